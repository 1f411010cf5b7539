//! Makes checked settings from the file and the environment, with every default in one place.
//!
//! It reads one file and never creates or changes anything.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use super::env::Env;
use super::fault::{ConfigErrors, ConfigFault};
use super::reader::{Faults, Section};
use super::rules::read_rules;
use super::sections;
use super::trust::{self, TrustError};
use super::value::{self, Parsed};
use super::{Config, EdgeKind};
use crate::domain::name::{HostName, NAME_MAX};

/// The account that `setup.sh` makes for nginx's workers.
pub const EDGE_ACCOUNT: &str = "acc-edge";

/// The part after `run` of the longest socket path, for the longest name, with the final zero byte.
const LONGEST_BELOW_RUN: usize = "/sock/".len() + NAME_MAX + "/app.sock".len() + 1;

/// Longest path of the `run` folder in bytes: a unix socket's path has 108 in all.
pub const RUN_MAX: usize = 108 - LONGEST_BELOW_RUN;

/// Reads the settings: from the file named on the command line, else by `ACC_CONFIG` (a named file
/// must exist), else from the first that exists of `./acc.toml` (not for root),
/// `/etc/acc/config.toml` and the user's `acc/config.toml`, else only the defaults.
///
/// # Errors
/// Every fault at once. A file that other users can change is not used (see [`trust`]).
pub fn load(explicit: Option<&Path>, env: &Env) -> Result<Config, ConfigErrors> {
    match find(explicit, env)? {
        Some((file, text)) => parse(&text, Some(file), env),
        None => parse("", None, env),
    }
}

/// Finds the file and reads its text.
pub(super) fn find(
    explicit: Option<&Path>,
    env: &Env,
) -> Result<Option<(PathBuf, String)>, ConfigErrors> {
    if let Some(path) = named(explicit, env) {
        return match trust::read_to_string(&path) {
            Ok(text) => Ok(Some((path, text))),
            Err(e) => Err(unreadable(path, &e)),
        };
    }
    // A user who can write to root's current folder must not provide settings for root.
    let here = (!env.is_root()).then(|| env.cwd.join("acc.toml"));
    let users = env
        .xdg("XDG_CONFIG_HOME", ".config")
        .map(|dir| dir.join("acc/config.toml"));
    for path in [here.clone(), Some(env.host_file.clone()), users]
        .into_iter()
        .flatten()
    {
        // A file in a folder that may not be searched counts as missing (the current folder of `su`
        // is often root's own).
        if fs::symlink_metadata(&path).is_err() {
            continue;
        }
        match trust::read_to_string(&path) {
            Ok(text) => return Ok(Some((path, text))),
            Err(TrustError::Io(e))
                if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {}
            // The current folder may belong to any user.
            Err(TrustError::Distrust(found)) if here.as_ref() == Some(&path) => {
                tracing::warn!(
                    "ignoring `{}`: {found}; to use it, name it with --config",
                    path.display()
                );
            }
            // An unreadable file is not a missing file: continuing would silently use other
            // settings.
            Err(e) => return Err(unreadable(path, &e)),
        }
    }
    Ok(None)
}

/// The file named by the command line or the environment, as an absolute path.
#[must_use]
pub fn named(explicit: Option<&Path>, env: &Env) -> Option<PathBuf> {
    explicit
        .or_else(|| env.os("ACC_CONFIG").map(Path::new))
        .map(|path| env.cwd.join(path))
}

fn unreadable(path: PathBuf, e: &TrustError) -> ConfigErrors {
    let reason = match e {
        TrustError::Io(e) => format!("could not read `{}`: {}", path.display(), why(e)),
        TrustError::Distrust(found) => {
            let shown = path.display();
            format!(
                "`{shown}` {}: acc does not use it\n  either {}, or move the file to a place where only you can change it",
                found.of(&path),
                found.fix()
            )
        }
    };
    ConfigErrors {
        file: Some(path),
        faults: vec![ConfigFault {
            key: String::new(),
            line: None,
            reason,
            found: None,
        }],
    }
}

/// The reason without "(os error 2)".
fn why(error: &std::io::Error) -> String {
    if error.kind() == ErrorKind::InvalidData {
        return "it is not UTF-8 text".to_owned();
    }
    let text = error.to_string();
    text.split(" (os error")
        .next()
        .unwrap_or(&text)
        .to_lowercase()
}

/// Checks the text of a config file.
///
/// # Errors
/// Every fault at once.
pub fn parse(text: &str, file: Option<PathBuf>, env: &Env) -> Result<Config, ConfigErrors> {
    let faults = Faults::new(text);
    let table = faults.parse();
    if !faults.is_empty() {
        return Err(ConfigErrors {
            file,
            faults: faults.into_list(),
        });
    }
    let config = read(&Section::root(&faults, &table), file.clone(), env, &faults);
    if faults.is_empty() {
        Ok(config)
    } else {
        Err(ConfigErrors {
            file,
            faults: faults.into_list(),
        })
    }
}

/// Every key that the reader knows, with its tables; `[n]` stands for an element of an array.
#[cfg(test)]
pub(super) fn known_keys() -> Vec<String> {
    let faults = Faults::new("[[rules]]\npath = \"/\"\n");
    let table = faults.parse();
    read(
        &Section::root(&faults, &table),
        None,
        &Env::bare(0, "/"),
        &faults,
    );
    faults.asked()
}

fn read(root: &Section<'_>, file: Option<PathBuf>, env: &Env, faults: &Faults<'_>) -> Config {
    let (home, run) = folders(root, env, faults);
    let user = root.or("user", None, |v| value::or_none(v, sections::account));
    let config = Config {
        file,
        home,
        run,
        domain: root.or("domain", HostName::default_domain(), domain),
        rules: read_rules(root),
        edge: sections::edge(&root.section("edge"), || edge_account(user.as_deref(), env)),
        user,
        supervisor: sections::supervisor(&root.section("supervisor")),
        idle: sections::idle(&root.section("idle")),
        wake: sections::wake(&root.section("wake"), env),
        stop: sections::stop(&root.section("stop")),
        ports: sections::ports(&root.section("ports")),
        log: sections::log(&root.section("log")),
        events: sections::events(&root.section("events")),
        limits: sections::limits(&root.section("limits")),
    };
    if let Some(own) = config
        .edge
        .listen
        .iter()
        .find(|a| (config.ports.first..=config.ports.last).contains(&a.port()))
    {
        root.section("ports")
            .fault("range", format!("contains the port of the edge, {own}"));
    }
    if config.edge.kind == EdgeKind::Nginx && config.idle.silent_connections.is_some() {
        let why = "must be \"never\" with the edge nginx, which does not report how long a connection has been silent";
        root.section("idle").fault("silent_connections", why);
    }
    root.close();
    config
}

fn domain(v: &toml::de::DeValue<'_>) -> Parsed<HostName> {
    let text = value::text(v)?;
    if text.contains(':') {
        return Err("must be a domain without a port".to_owned());
    }
    let host = HostName::parse(&text).map_err(|fault| format!("not a domain: {fault}"))?;
    let room = 253 - NAME_MAX - 1;
    if host.as_str().len() > room {
        return Err(format!(
            "must have at most {room} characters, to leave room for the longest name"
        ));
    }
    Ok(host)
}

/// acc's own account for nginx, then the accounts of distributions for web servers.
const EDGE_ACCOUNTS: [&str; 4] = [EDGE_ACCOUNT, "www-data", "nginx", "nobody"];

/// The user of nginx's workers if `edge.user` is not set: not the user of instances, which could
/// stop the workers. If instances run as acc's user, they cannot be separated, and the workers run
/// as that user too.
fn edge_account(instances: Option<&str>, env: &Env) -> Option<String> {
    let instances = instances?;
    EDGE_ACCOUNTS
        .into_iter()
        .find(|name| *name != instances && env.has_account(name))
        .map(str::to_owned)
}

/// A folder and where its path was set.
struct ChosenFolder {
    path: PathBuf,
    key: &'static str,
    line: Option<usize>,
}

impl ChosenFolder {
    fn fault(&self, faults: &Faults<'_>, reason: String) {
        let found = Some(format!("\"{}\"", self.path.display()));
        faults.add(ConfigFault {
            key: self.key.to_owned(),
            line: self.line,
            reason,
            found,
        });
    }
}

fn folders(root: &Section<'_>, env: &Env, faults: &Faults<'_>) -> (PathBuf, PathBuf) {
    let home_default = if env.is_root() {
        Some("/var/lib/acc".into())
    } else {
        env.xdg("XDG_DATA_HOME", ".local/share")
            .map(|d| d.join("acc"))
    };
    let home = folder(root, env, faults, "home", "ACC_HOME", home_default);
    let run = run(root, env, faults);
    let length = run.as_ref().map_or(0, |run| run.path.as_os_str().len());
    if let Some(run) = run.as_ref().filter(|_| length > RUN_MAX) {
        let reason = format!(
            "too long for the unix sockets in it: {length} bytes, {} more than the maximum of {RUN_MAX}",
            length - RUN_MAX
        );
        run.fault(faults, reason);
    }
    let (Some(home), Some(run)) = (home, run) else {
        return (PathBuf::new(), PathBuf::new());
    };
    if home.path == run.path {
        run.fault(faults, "must not be the same folder as home".to_owned());
    } else if home.path.starts_with(&run.path) {
        home.fault(
            faults,
            "must not be inside run, which is empty after every reboot".to_owned(),
        );
    }
    (home.path, run.path)
}

fn run(root: &Section<'_>, env: &Env, faults: &Faults<'_>) -> Option<ChosenFolder> {
    let default = if env.is_root() {
        PathBuf::from("/run/acc")
    } else {
        env.xdg("XDG_RUNTIME_DIR", "")
            .map_or_else(|| format!("/tmp/acc-{}", env.uid).into(), |d| d.join("acc"))
    };
    folder(root, env, faults, "run", "ACC_RUN", Some(default))
}

/// Reads only the run folder. `None`: a fault was recorded.
pub(super) fn run_folder(root: &Section<'_>, env: &Env, faults: &Faults<'_>) -> Option<PathBuf> {
    run(root, env, faults).map(|folder| folder.path)
}

/// The environment overrides the file, the file overrides the default. `None`: a fault was
/// recorded.
fn folder(
    root: &Section<'_>,
    env: &Env,
    faults: &Faults<'_>,
    key: &'static str,
    variable: &'static str,
    default: Option<PathBuf>,
) -> Option<ChosenFolder> {
    let in_file = root.optional(key, value::absolute);
    let chosen = if let Some(path) = env.os(variable) {
        ChosenFolder {
            path: path.into(),
            key: variable,
            line: None,
        }
    } else if let Some(path) = in_file {
        ChosenFolder {
            path,
            key,
            line: root.line_of(key),
        }
    } else if root.line_of(key).is_some() {
        return None;
    } else if let Some(path) = default {
        ChosenFolder {
            path,
            key,
            line: None,
        }
    } else {
        root.fault(
            key,
            format!("must be set here or in `{variable}`, because `HOME` is not set"),
        );
        return None;
    };
    match value::check_path(&chosen.path) {
        Ok(()) => Some(chosen),
        Err(reason) => {
            chosen.fault(faults, reason);
            None
        }
    }
}
