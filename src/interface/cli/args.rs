//! The command line as types: every command, option and help text. It checks the form of what was
//! typed, never its meaning.

use std::path::PathBuf;
use std::time::Duration;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{ArgAction, Args, Parser, Subcommand};

use crate::domain::instance::DesiredState;
use crate::domain::lifecycle::Phase;

/// Runs many mostly idle web applications on one host: asleep until the next request.
#[derive(Debug, Clone, Parser)]
#[command(
    name = "acc",
    version,
    propagate_version = false,
    infer_subcommands = false,
    subcommand_required = true,
    arg_required_else_help = true,
    max_term_width = 100,
    after_help = "An instance is named by its name or its number.\n\
        Exit codes: 0 done or already so, 1 failed, 2 usage or config, 3 no such instance or model,\n\
        4 refused in this phase, 5 timed out.\n\n\
        Example:\n  acc create shop --model hello && acc info shop"
)]
pub struct Cli {
    /// Options that every command takes.
    #[command(flatten)]
    pub global: Global,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Options that every command takes.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Global options")]
pub struct Global {
    /// Read this config file (else $ACC_CONFIG, ./acc.toml unless root, /etc/acc/config.toml, the
    /// user's config folder).
    #[arg(long, global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Print data and errors as JSON.
    #[arg(long, global = true)]
    pub json: bool,
    /// Print more; repeat for even more.
    #[arg(short, long, global = true, action = ArgAction::Count)]
    pub verbose: u8,
    /// Print only data and errors.
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    pub quiet: bool,
}

/// The commands.
#[derive(Debug, Clone, Subcommand)]
pub enum Command {
    /// Prepare everything, start the supervisor, the edge and the server.
    ///
    /// If acc already runs, it repairs what is missing. If the program was replaced since, it
    /// upgrades the server without losing a request.
    #[command(after_help = "Example:\n  acc boot")]
    Boot(BootArgs),
    /// Put every instance to sleep, then stop server, edge and supervisor.
    #[command(after_help = "Example:\n  acc halt")]
    Halt,
    /// Apply a changed config as far as possible without a restart.
    ///
    /// Prints what changed and what needs `acc halt` and `acc boot`. A file with errors
    /// changes nothing. SIGHUP to the server does the same with the file it was started with.
    #[command(after_help = "Example:\n  acc config check && acc reload")]
    Reload,
    /// Create an instance and wait until it answers.
    ///
    /// If any step fails, everything is undone.
    #[command(
        after_help = "Example:\n  acc create shop --model hello --host shop.example.org --set greeting=Hello --idle 15m"
    )]
    Create(CreateArgs),
    /// Wake instances and wait until they answer.
    #[command(visible_alias = "wake", after_help = "Example:\n  acc start shop")]
    Start(Names),
    /// Stop instances after their requests have finished; the next request wakes them.
    #[command(visible_alias = "sleep", after_help = "Example:\n  acc stop shop")]
    Stop(StopArgs),
    /// Stop instances, then start them.
    #[command(after_help = "Example:\n  acc restart shop")]
    Restart(Names),
    /// Let instances sleep and wake automatically (desired state: auto).
    #[command(alias = "unpin", after_help = "Example:\n  acc enable shop")]
    Enable(Names),
    /// Stop instances and keep them stopped: no request wakes them (desired state: down).
    #[command(after_help = "Example:\n  acc disable shop")]
    Disable(Names),
    /// Wake instances and keep them awake (desired state: up).
    #[command(after_help = "Example:\n  acc pin shop")]
    Pin(Names),
    /// Clear the failure of instances, so that the next request wakes them at once.
    #[command(after_help = "Example:\n  acc reset shop")]
    Reset(Names),
    /// Take instances out of service permanently; their files are kept until `acc purge`.
    #[command(after_help = "Example:\n  acc destroy shop")]
    Destroy(DestroyArgs),
    /// Remove destroyed instances and all their data.
    #[command(after_help = "Example:\n  acc purge shop")]
    Purge(Names),
    /// List the instances.
    #[command(
        after_help = "Example:\n  acc list --phase awake\n  acc list --limit 50 --after shop"
    )]
    List(ListArgs),
    /// Show everything about one instance.
    #[command(after_help = "Example:\n  acc info shop --json")]
    Info(Name),
    /// List the models that instances can be created from, or show one with its parameters.
    #[command(after_help = "Example:\n  acc models hello")]
    Models(ModelsArgs),
    /// Show the output of an instance.
    #[command(after_help = "Example:\n  acc logs shop -f")]
    Logs(LogsArgs),
    /// Show events: wakes, sleeps, failures and operator actions.
    #[command(after_help = "Example:\n  acc events shop --lines 20")]
    Events(EventsArgs),
    /// Check all instances once: put idle ones to sleep, detect dead ones, repair.
    ///
    /// Prints nothing if nothing happened, so it can run from cron.
    #[command(after_help = "Example:\n  acc monitor --dry-run")]
    Monitor(MonitorArgs),
    /// Prove on this host that no request is lost when an instance is stopped and woken.
    ///
    /// Clients send requests to a scratch instance without a pause (GET, POST, slow answers,
    /// streams, WebSockets) while it is put to sleep and woken over and over. Compares every answer
    /// with the application's own record. Exit code 0 only if no request was lost, answered wrongly
    /// or delivered twice. The scratch instance is removed.
    #[command(after_help = "Example:\n  acc prove --cycles 100 --clients 8")]
    Prove(ProveArgs),
    /// Run the server in the foreground (`acc boot` starts it by itself).
    ///
    /// SIGTERM ends it once held requests are finished, SIGHUP does what `acc reload` does, SIGUSR2
    /// upgrades to the program on disk without losing a request.
    #[command(visible_alias = "serve", after_help = "Example:\n  acc server -v")]
    Server(ServerArgs),
    /// The part of the server that serves, started by the part that watches it.
    #[command(name = "worker", hide = true)]
    Worker(WorkerArgs),
    /// Check or show the config.
    #[command(subcommand, after_help = "Example:\n  acc config check")]
    Config(ConfigCommand),
    /// Check this host and suggest fixes.
    #[command(after_help = "Example:\n  acc doctor")]
    Doctor,
    /// Print the completion script for a shell.
    #[command(after_help = "Example:\n  acc completions bash > /etc/bash_completion.d/acc")]
    Completions(CompletionsArgs),
    /// Print all names, for shell completion.
    #[command(name = "names", hide = true)]
    Names(NamesArgs),
    /// Print the manual page, or write one page per command.
    #[command(after_help = "Example:\n  acc man | man -l -")]
    Man(ManArgs),
    /// The small HTTP application behind the model `hello`.
    #[command(name = "demo-app", hide = true)]
    DemoApp(crate::demo::DemoOptions),
}

/// Options of `boot`.
#[derive(Debug, Clone, Args)]
pub struct BootArgs {
    /// Become the supervisor instead of leaving it in the background: for systemd.
    #[arg(long)]
    pub foreground: bool,
}

/// Options of `server`.
#[derive(Debug, Clone, Default, Args)]
pub struct ServerArgs {
    /// State that the previous program left.
    #[arg(long, hide = true)]
    pub resume: Option<String>,
}

/// Options of `worker`: what its master leaves to it, open files by number.
#[derive(Debug, Clone, Args)]
pub struct WorkerArgs {
    /// Names and numbers of the listening sockets.
    #[arg(long)]
    pub sockets: String,
    /// Number of the socket to the master.
    #[arg(long)]
    pub channel: i32,
    /// Process id of the master.
    #[arg(long)]
    pub master: u32,
    /// Number of the master's lock.
    #[arg(long)]
    pub lock: i32,
}

/// One instance.
#[derive(Debug, Clone, Args)]
pub struct Name {
    /// Name or number of the instance.
    #[arg(value_name = "NAME")]
    pub name: String,
}

/// Some instances.
#[derive(Debug, Clone, Args)]
pub struct Names {
    /// Names or numbers of instances. If any does not exist, nothing is done. Otherwise all are
    /// tried; the highest exit code is returned.
    #[arg(value_name = "NAME", required = true)]
    pub names: Vec<String>,
}

/// Options of `create`.
#[derive(Debug, Clone, Args)]
pub struct CreateArgs {
    /// Name: a-z, 0-9 and inner dashes [default: a free name made from the model's].
    #[arg(value_name = "NAME")]
    pub name: Option<String>,
    /// Model to create it from; `acc models` lists them.
    #[arg(long, short, value_name = "MODEL")]
    pub model: String,
    /// A host name besides NAME.DOMAIN; may be repeated.
    #[arg(long = "host", value_name = "HOST")]
    pub hosts: Vec<String>,
    /// Contact e-mail of the owner.
    #[arg(long, value_name = "EMAIL")]
    pub owner: Option<String>,
    /// A parameter of the model; may be repeated.
    #[arg(long, value_name = "KEY=VALUE", value_parser = key_value)]
    pub set: Vec<(String, String)>,
    /// A parameter read from a file (-: standard input): for secrets, which a process list would
    /// show.
    #[arg(long, value_name = "KEY=FILE", value_parser = key_value)]
    pub set_file: Vec<(String, String)>,
    /// Stop it after this long without use, such as 90s or "1h 30m" [default: idle.timeout].
    #[arg(long, value_name = "DURATION", value_parser = some_time)]
    pub idle: Option<Duration>,
    /// Desired state: sleep and wake automatically, always awake, or disabled [default: auto].
    #[arg(long, value_name = "auto|up|down", value_parser = a_desired_state(), hide_possible_values = true)]
    pub desired: Option<DesiredState>,
    /// Do not start it: the first request does.
    #[arg(long)]
    pub asleep: bool,
}

/// Options of `stop`.
#[derive(Debug, Clone, Args)]
pub struct StopArgs {
    /// Which.
    #[command(flatten)]
    pub names: Names,
    /// Do not wait for open requests.
    #[arg(long)]
    pub now: bool,
}

/// Options of `destroy`.
#[derive(Debug, Clone, Args)]
pub struct DestroyArgs {
    /// Which.
    #[command(flatten)]
    pub names: Names,
    /// Stop it first if it is not asleep.
    #[arg(long)]
    pub force: bool,
}

/// Options of `list`.
#[derive(Debug, Clone, Args)]
pub struct ListArgs {
    /// Only instances in this phase.
    #[arg(long, value_name = "PHASE", value_parser = a_phase())]
    pub phase: Option<Phase>,
    /// Only instances of this model.
    #[arg(long, value_name = "MODEL")]
    pub model: Option<String>,
    /// At most this many, in the order of their names.
    #[arg(long, value_name = "N", value_parser = some_lines())]
    pub limit: Option<usize>,
    /// List only names after this one. For the next page, give the last name of the previous page.
    /// The name need not exist.
    #[arg(long, value_name = "NAME")]
    pub after: Option<String>,
}

/// Options of `models`.
#[derive(Debug, Clone, Args)]
pub struct ModelsArgs {
    /// Show this model with its parameters.
    #[arg(value_name = "NAME")]
    pub name: Option<String>,
}

/// Options of `logs`.
#[derive(Debug, Clone, Args)]
pub struct LogsArgs {
    /// Which.
    #[command(flatten)]
    pub name: Name,
    /// Follow the log across rotations until Ctrl-C.
    #[arg(long, short)]
    pub follow: bool,
    /// Start this many lines before the end.
    #[arg(long, short = 'n', value_name = "N", default_value_t = 100)]
    pub lines: usize,
    /// Show the access log instead of stdout and stderr.
    #[arg(long)]
    pub access: bool,
    /// Print the bytes as they were written; otherwise control characters are shown as `\x1b`.
    #[arg(long)]
    pub raw: bool,
}

/// Options of `events`.
#[derive(Debug, Clone, Args)]
pub struct EventsArgs {
    /// Only events of this instance.
    #[arg(value_name = "NAME")]
    pub name: Option<String>,
    /// Show this many of the newest events.
    #[arg(long, short = 'n', alias = "limit", value_name = "N", default_value_t = 50, value_parser = some_lines())]
    pub lines: usize,
}

/// Options of `monitor`.
#[derive(Debug, Clone, Args)]
pub struct MonitorArgs {
    /// Change nothing: print for each awake instance why it would or would not be stopped.
    #[arg(long)]
    pub dry_run: bool,
}

/// Options of `prove`.
#[derive(Debug, Clone, Args)]
pub struct ProveArgs {
    /// Use this instance and leave it as it was found, instead of a scratch one that is removed
    /// afterwards.
    #[arg(long, value_name = "NAME", conflicts_with = "app")]
    pub instance: Option<String>,
    /// Stop it this many times [default: 100, or until --for is over].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub cycles: Option<u32>,
    /// Clients at once.
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub clients: u16,
    /// Model of the scratch instance. A model other than acc's demo application keeps no record, so
    /// only its answers are checked.
    #[arg(long, value_name = "MODEL", default_value = "hello")]
    pub app: String,
    /// End after this long, such as 60s, even if cycles are left.
    #[arg(long = "for", value_name = "DURATION", value_parser = humantime::parse_duration)]
    pub time: Option<Duration>,
    /// Also keep this many WebSockets and as many event streams open [without a number: 10]. Each
    /// stop must end them in order, and other requests must not wait longer than
    /// `stop.drain_streams` for them.
    #[arg(long, value_name = "N", num_args = 0..=1, default_missing_value = "10", value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub streams: Option<u16>,
    /// Also kill the instance, the server, the supervisor and nginx's workers at random moments.
    /// This affects every instance of this installation.
    #[arg(long)]
    pub chaos: bool,
    /// Random seed, to repeat an earlier run.
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,
}

/// What to do with the config.
#[derive(Debug, Clone, Subcommand)]
pub enum ConfigCommand {
    /// Report all errors in the config.
    #[command(after_help = "Example:\n  acc config check --config new.toml")]
    Check,
    /// Print the settings in force and pending changes.
    #[command(after_help = "Example:\n  acc config show")]
    Show,
}

/// Options of `completions`.
#[derive(Debug, Clone, Args)]
pub struct CompletionsArgs {
    /// The shell.
    #[arg(value_name = "SHELL")]
    pub shell: clap_complete::Shell,
}

/// Options of `names`.
#[derive(Debug, Clone, Args)]
pub struct NamesArgs {
    /// Of models instead of instances.
    #[arg(long)]
    pub models: bool,
}

/// Options of `man`.
#[derive(Debug, Clone, Args)]
pub struct ManArgs {
    /// Write one page per command into this folder.
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
}

/// Zero lines would look like an empty log.
fn some_lines() -> clap::builder::RangedU64ValueParser<usize> {
    clap::builder::RangedU64ValueParser::new().range(1..)
}

/// One of the words of phases.
fn a_phase() -> impl TypedValueParser<Value = Phase> {
    PossibleValuesParser::new(Phase::ALL.map(Phase::as_str))
        .try_map(|word| Phase::parse(&word).ok_or("no phase"))
}

/// `auto`, `up` or `down`.
fn a_desired_state() -> impl TypedValueParser<Value = DesiredState> {
    PossibleValuesParser::new(["auto", "up", "down"]).try_map(DesiredState::try_from)
}

/// A duration of at least a millisecond.
fn some_time(text: &str) -> Result<Duration, String> {
    let duration = humantime::parse_duration(text).map_err(|e| e.to_string())?;
    if duration.as_millis() == 0 {
        Err("must be longer than zero".to_owned())
    } else {
        Ok(duration)
    }
}

fn key_value(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("give it as KEY=VALUE".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn aliases_name_the_same_command() {
        let parse = |name: &str| {
            Cli::try_parse_from(["acc", name, "a", "b"])
                .unwrap()
                .command
        };
        assert!(matches!(parse("wake"), Command::Start(n) if n.names == ["a", "b"]));
        assert!(
            matches!(parse("sleep"), Command::Stop(n) if n.names.names == ["a", "b"] && !n.now)
        );
        assert!(matches!(parse("unpin"), Command::Enable(n) if n.names == ["a", "b"]));
        assert!(matches!(
            Cli::try_parse_from(["acc", "serve"]).unwrap().command,
            Command::Server(_)
        ));
    }

    #[test]
    fn values_may_hold_an_equals_sign_and_be_empty() {
        assert_eq!(key_value("a=b=c"), Ok(("a".to_owned(), "b=c".to_owned())));
        assert_eq!(key_value("a="), Ok(("a".to_owned(), String::new())));
        assert!(key_value("a").is_err() && key_value("=b").is_err());
    }
}
