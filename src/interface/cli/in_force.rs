//! Which settings a command uses: those of the running server, and without a server those of the
//! config file.
//!
//! So a change of the file that waits for a restart is not taken for what is, and a file with
//! faults stops nothing that runs. Only what begins something new (`boot`, `server`) or is about
//! the file itself (`config check`) goes by the file. The server writes down what it runs with
//! ([`config::in_force`]); this only reads it.

use std::path::{Path, PathBuf};

use super::args::{Command, ConfigCommand};
use super::config_file::wrong_config;
use super::output::Ui;
use crate::config::env::Env;
use crate::config::reload::{Difference, NEED_RESTART, differences};
use crate::config::{self, Config, in_force, run_of_faulty};
use crate::service::error::{ErrorKind, ServiceError};

/// The settings that a command uses.
pub(super) struct Settings {
    /// The settings.
    pub(super) config: Config,
    /// What the file says otherwise by now, nothing when it has faults; `None`: the settings are
    /// those of the file.
    pub(super) waiting: Option<Vec<Difference>>,
}

/// The settings for this command.
///
/// # Errors
/// The file is needed and has faults.
pub(super) fn settings(
    command: &Command,
    file: Option<PathBuf>,
    env: &Env,
    ui: &mut Ui,
) -> Result<Settings, ServiceError> {
    let read = config::load(file.as_deref(), env);
    let run = match &read {
        Ok(config) => Some(config.run.clone()),
        Err(_) => run_of_faulty(file.as_deref(), env),
    };
    let running = run
        .filter(|_| uses_running_settings(command))
        .and_then(|run| in_force::read(&run, env));
    match (running, read) {
        (None, read) => read
            .map(|config| Settings {
                config,
                waiting: None,
            })
            .map_err(|errors| wrong_config(&errors)),
        // It would end the instances of another home.
        (Some(running), Ok(read))
            if matches!(command, Command::Halt) && running.home != read.home =>
        {
            Err(other_home(&running, &read))
        }
        (Some(running), Ok(read)) => {
            let waiting = differences(&running.to_toml(), &read.to_toml()).unwrap_or_default();
            Ok(Settings {
                config: Config {
                    file: read.file,
                    ..running
                },
                waiting: Some(waiting),
            })
        }
        (Some(running), Err(errors)) => {
            // The server itself reports to `acc reload` what is wrong.
            if !matches!(command, Command::Reload) {
                let faults = wrong_config(&errors).message;
                ui.warn(&format!(
                    "{faults}\nacc still runs with the previous settings, and this command uses them"
                ));
            }
            Ok(Settings {
                config: Config {
                    file: errors.file,
                    ..running
                },
                waiting: Some(Vec::new()),
            })
        }
    }
}

fn other_home(running: &Config, read: &Config) -> ServiceError {
    let (run, before, now) = (
        running.run.display(),
        running.home.display(),
        read.home.display(),
    );
    let message = format!(
        "acc runs in `{run}` with home `{before}`, but the config has home `{now}`; nothing was halted"
    );
    ServiceError::new(
        ErrorKind::Denied,
        message,
        format!("to halt the running acc, set `home = \"{before}\"` in the config"),
    )
}

/// The settings for a part of the server: should its file have faults, those of before, so that
/// what dies can come back.
///
/// # Errors
/// The file has faults, and acc does not run.
pub(super) fn for_server(
    file: Option<&Path>,
    env: &Env,
) -> Result<(Config, Option<ServiceError>), ServiceError> {
    match config::load(file, env) {
        Ok(config) => Ok((config, None)),
        Err(errors) => {
            let why = wrong_config(&errors);
            let running = run_of_faulty(file, env).and_then(|run| in_force::read(&run, env));
            running
                .map(|running| {
                    (
                        Config {
                            file: errors.file,
                            ..running
                        },
                        Some(why.clone()),
                    )
                })
                .ok_or(why)
        }
    }
}

/// A line about what is shown, when the file says otherwise about that: not what is shown is wrong,
/// but the file is not in force.
pub(super) fn about_what_is_shown(config: &Config, waiting: &[Difference]) -> Option<String> {
    let shown = |d: &&Difference| {
        ["home", "domain", "edge.listen", "idle.timeout"].contains(&d.key.as_str())
    };
    let (restart, reload): (Vec<_>, Vec<_>) = waiting
        .iter()
        .filter(shown)
        .partition(|d| NEED_RESTART.contains(&d.key.as_str()));
    let named = |all: &[&Difference], way: &str| {
        let names: Vec<String> = all.iter().map(|d| format!("`{}`", d.key)).collect();
        let verb = if all.len() == 1 { "waits" } else { "wait" };
        (!all.is_empty()).then(|| format!("{} {verb} for {way}", names.join(" and ")))
    };
    let parts: Vec<String> = [
        named(&restart, "a restart (`acc halt`, `acc boot`)"),
        named(&reload, "`acc reload`"),
    ]
    .into_iter()
    .flatten()
    .collect();
    let file = config.file.as_ref().map_or_else(
        || "the config".to_owned(),
        |file| format!("`{}`", file.display()),
    );
    (!parts.is_empty()).then(|| {
        format!(
            "these are the settings in force; of the changes in {file}, {}",
            parts.join(", ")
        )
    })
}

/// Does it use the settings of the running server? The others start something, check the file, or
/// need no settings.
fn uses_running_settings(command: &Command) -> bool {
    match command {
        Command::Halt
        | Command::Reload
        | Command::Create(_)
        | Command::Start(_)
        | Command::Stop(_)
        | Command::Restart(_)
        | Command::Enable(_)
        | Command::Disable(_)
        | Command::Pin(_)
        | Command::Reset(_)
        | Command::Destroy(_)
        | Command::Purge(_)
        | Command::List(_)
        | Command::Info(_)
        | Command::Models(_)
        | Command::Names(_)
        | Command::Config(ConfigCommand::Show)
        | Command::Logs(_)
        | Command::Events(_)
        | Command::Monitor(_)
        | Command::Doctor
        | Command::Prove(_) => true,
        Command::Boot(_)
        | Command::Server(_)
        | Command::Worker(_)
        | Command::Config(ConfigCommand::Check)
        | Command::Completions(_)
        | Command::Man(_)
        | Command::DemoApp(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::super::output::Style;
    use super::super::output::testing::ui;
    use super::*;

    /// An installation that runs with the domain `a.localhost`.
    struct Runs {
        dir: tempfile::TempDir,
        env: Env,
    }

    impl Runs {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let env = Env::bare(7, dir.path());
            let this = Self { dir, env };
            this.says("domain = \"a.localhost\"\n");
            let config = config::load(None, &this.env).unwrap();
            std::fs::create_dir(&config.run).unwrap();
            std::fs::write(in_force::file(&config.run), in_force::written(&config)).unwrap();
            this.booted("background");
            this
        }

        fn says(&self, text: &str) {
            let dir = self.dir.path().display();
            std::fs::write(
                self.dir.path().join("acc.toml"),
                format!("home = \"{dir}/home\"\nrun = \"{dir}/run\"\n{text}"),
            )
            .unwrap();
        }

        fn booted(&self, word: &str) {
            std::fs::write(self.dir.path().join("run/booted"), word).unwrap();
        }

        fn settings(&self, words: &[&str]) -> (Result<Settings, ServiceError>, String) {
            use clap::Parser;
            let (mut ui, _, err) = ui(Style::default());
            let cli = super::super::args::Cli::try_parse_from([&["acc"], words].concat()).unwrap();
            let settings = settings(&cli.command, None, &self.env, &mut ui);
            (settings, err.text())
        }
    }

    #[test]
    fn what_runs_decides_and_the_file_only_where_something_begins() {
        let runs = Runs::new();
        runs.says("domain = \"b.localhost\"\n[idle]\ntimeout = \"7m\"\n");
        let (found, said) = runs.settings(&["list"]);
        let found = found.unwrap();
        assert_eq!(
            (found.config.domain.as_str(), said.as_str()),
            ("a.localhost", "")
        );
        let waiting = found.waiting.unwrap();
        let keys: Vec<&str> = waiting.iter().map(|d| d.key.as_str()).collect();
        assert_eq!(keys, ["domain", "idle.timeout"]);
        let line = about_what_is_shown(&found.config, &waiting).unwrap();
        assert!(
            line.contains("`domain` waits for a restart")
                && line.ends_with("`idle.timeout` waits for `acc reload`"),
            "{line}"
        );
        assert!(line.contains("acc.toml`"), "{line}");
        for words in [["boot"].as_slice(), &["config", "check"], &["server"]] {
            let found = runs.settings(words).0.unwrap();
            assert_eq!(
                (found.config.domain.as_str(), found.waiting),
                ("b.localhost", None),
                "{words:?}"
            );
        }
        runs.booted("");
        let found = runs.settings(&["list"]).0.unwrap();
        assert_eq!(
            (found.config.domain.as_str(), found.waiting),
            ("b.localhost", None),
            "it was halted"
        );
    }

    #[test]
    fn a_file_with_faults_stops_nothing_that_runs() {
        let runs = Runs::new();
        runs.says("[idle]\ntimeout = \"soon\"\n");
        for words in [
            ["halt"].as_slice(),
            &["list"],
            &["stop", "a"],
            &["monitor"],
            &["create", "--model", "hello"],
        ] {
            let (found, said) = runs.settings(words);
            assert_eq!(
                found.unwrap().config.domain.as_str(),
                "a.localhost",
                "{words:?}"
            );
            assert!(
                said.starts_with("warning: invalid settings in `")
                    && said.contains("\n  idle.timeout: "),
                "{said}"
            );
        }
        for words in [["boot"].as_slice(), &["config", "check"]] {
            assert!(
                runs.settings(words)
                    .0
                    .is_err_and(|e| e.message.contains("idle.timeout")),
                "{words:?}"
            );
        }
        let (config, why) = for_server(None, &runs.env).unwrap();
        assert!(
            config.domain.as_str() == "a.localhost"
                && why.unwrap().message.contains("idle.timeout")
        );
        runs.booted("");
        assert!(
            runs.settings(&["halt"]).0.is_err() && for_server(None, &runs.env).is_err(),
            "there is nothing to go by"
        );
    }

    #[test]
    fn what_was_written_elsewhere_or_before_a_reboot_is_not_in_force() {
        let runs = Runs::new();
        let file = in_force::file(&runs.dir.path().join("run"));
        let good = std::fs::read_to_string(&file).unwrap();
        runs.says("domain = \"b.localhost\"\n");
        let domain = || {
            runs.settings(&["list"])
                .0
                .unwrap()
                .config
                .domain
                .as_str()
                .to_owned()
        };
        assert_eq!(domain(), "a.localhost");
        let (_, rest) = good.split_once('\n').unwrap();
        for other in [
            format!("# boot another\n{rest}"),
            rest.to_owned(),
            good.replace("/run\"", "/run2\""),
            format!("{good}x = 1\n"),
            String::new(),
        ] {
            std::fs::write(&file, &other).unwrap();
            assert_eq!(domain(), "b.localhost", "{other}");
        }
    }
}
