//! From the file and the environment to checked settings, with every default in one place.
//!
//! It reads one file and never creates or changes anything.

use std::fs;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ipnet::IpNet;

use super::env::Env;
use super::fault::{ConfigErrors, ConfigFault};
use super::public::proxies;
use super::reader::{Faults, Section};
use super::rules::{network, read_rules};
use super::scheme::Scheme;
use super::trust::{self, TrustError};
use super::value::{self, Parsed};
use super::{
    Config, EdgeConfig, EdgeKind, EventsConfig, IdleConfig, LimitsConfig, LogConfig, LogFormat,
    StopConfig, SupervisorKind, WakeConfig,
};
use crate::domain::name::{HostName, NAME_MAX};
use crate::domain::port::PortRange;

/// The account that `setup.sh` makes for nginx's workers.
pub const EDGE_ACCOUNT: &str = "acc-edge";

/// What comes after `run` in the longest socket path, for the longest name, with the closing zero
/// byte.
const LONGEST_BELOW_RUN: usize = "/sock/".len() + NAME_MAX + "/app.sock".len() + 1;

/// Longest path of the `run` folder in bytes: a unix socket's path has 108 in all.
pub const RUN_MAX: usize = 108 - LONGEST_BELOW_RUN;

/// Reads the settings: the file named on the command line, else by `ACC_CONFIG` (one that is named
/// must exist), else the first that exists of `./acc.toml` (not for root), `/etc/acc/config.toml`
/// and the user's `acc/config.toml`, else the defaults alone.
///
/// # Errors
/// Every fault at once; a file that others can change is not obeyed (see [`trust`]).
pub fn load(explicit: Option<&Path>, env: &Env) -> Result<Config, ConfigErrors> {
    match find(explicit, env)? {
        Some((file, text)) => parse(&text, Some(file), env),
        None => parse("", None, env),
    }
}

/// The file to read and its text.
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
    // Whoever can write to the folder that root happens to be in must not give it settings.
    let here = (!env.is_root()).then(|| env.cwd.join("acc.toml"));
    let users = env
        .xdg("XDG_CONFIG_HOME", ".config")
        .map(|dir| dir.join("acc/config.toml"));
    for path in [here.clone(), Some(env.host_file.clone()), users]
        .into_iter()
        .flatten()
    {
        // One in a folder that may not even be searched is as good as none (the current folder of
        // `su` is often root's own).
        if fs::symlink_metadata(&path).is_err() {
            continue;
        }
        match trust::read_to_string(&path) {
            Ok(text) => return Ok(Some((path, text))),
            Err(TrustError::Io(e))
                if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {}
            // The folder one happens to be in may be anybody's.
            Err(TrustError::Distrust(found)) if here.as_ref() == Some(&path) => {
                tracing::warn!(
                    "`{}` is passed over: {found}; name it with --config if you mean it",
                    path.display()
                );
            }
            // A file that may not be read is not a file that is not there: going on would silently
            // use other settings.
            Err(e) => return Err(unreadable(path, &e)),
        }
    }
    Ok(None)
}

/// The file that the command line or the environment names, with its whole path.
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
                "`{shown}` {}: it is not obeyed\n  either {}, or put the file where only you can change it",
                found.of(&path),
                found.way_out()
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

/// Every key the reader knows, with its tables; `[n]` stands for an element of an array.
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
    let user = root.or("user", None, |v| value::or_none(v, account));
    let config = Config {
        file,
        home,
        run,
        domain: root.or("domain", HostName::default_domain(), domain),
        rules: read_rules(root),
        edge: edge(&root.section("edge"), || edge_account(user.as_deref(), env)),
        user,
        supervisor: supervisor(&root.section("supervisor")),
        idle: idle(&root.section("idle")),
        wake: wake(&root.section("wake"), env),
        stop: stop(&root.section("stop")),
        ports: ports(&root.section("ports")),
        log: log(&root.section("log")),
        events: events(&root.section("events")),
        limits: limits(&root.section("limits")),
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
        let why = "must be \"never\" with the edge nginx, which does not tell how long a connection has been silent";
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

/// The name of a user account, as `useradd` allows it; whether there is such a user is for the host
/// to say.
fn account(v: &toml::de::DeValue<'_>) -> Parsed<String> {
    let text = value::text(v)?;
    let good = |c: char| c.is_ascii_alphanumeric() || "_-.".contains(c);
    let first = text
        .chars()
        .next()
        .is_some_and(|c| c.is_ascii_alphabetic() || c == '_');
    if first && text.len() <= 32 && text.chars().all(good) {
        Ok(text)
    } else {
        Err("not the name of a user".to_owned())
    }
}

/// The account that is for that alone, then those that distributions have for web servers.
const EDGE_ACCOUNTS: [&str; 4] = [EDGE_ACCOUNT, "www-data", "nginx", "nobody"];

/// Who nginx's workers run as when `edge.user` does not say: somebody else than the instances, who
/// could stop them otherwise. With instances that run as acc itself there is nobody to keep them
/// apart from, and the workers run as acc too.
fn edge_account(instances: Option<&str>, env: &Env) -> Option<String> {
    let instances = instances?;
    EDGE_ACCOUNTS
        .into_iter()
        .find(|name| *name != instances && env.has_account(name))
        .map(str::to_owned)
}

/// One folder and where its path was said.
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
            "too long for the unix sockets in it: {length} bytes, cut {} to have {RUN_MAX} at most",
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
            "must not be inside run, which is emptied at every start of the host".to_owned(),
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

/// The run folder alone. `None`: a fault was recorded.
pub(super) fn run_folder(root: &Section<'_>, env: &Env, faults: &Faults<'_>) -> Option<PathBuf> {
    run(root, env, faults).map(|folder| folder.path)
}

/// The environment wins over the file, the file over the default. `None`: a fault was recorded.
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
            format!("must be given here or in `{variable}`: there is no `HOME` to put it in"),
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

fn edge(section: &Section<'_>, default_user: impl FnOnce() -> Option<String>) -> EdgeConfig {
    let kinds = [("nginx", EdgeKind::Nginx), ("builtin", EdgeKind::Builtin)];
    let kind = section.or("kind", EdgeKind::Nginx, value::one_of(&kinds));
    let mut seen: Vec<SocketAddr> = Vec::new();
    let listen = section.list("listen", |v| {
        let address = value::address(v)?;
        if matches!(address, SocketAddr::V6(a) if a.scope_id() != 0) {
            return Err("must not have a zone".to_owned());
        }
        if seen.contains(&address) {
            return Err("is there twice".to_owned());
        }
        seen.push(address);
        Ok(address)
    });
    if section.is_empty_list("listen") {
        section.fault("listen", "must have at least one address");
    }
    let max_body = section.or("max_body", 64 << 20, value::size);
    let per_client = section.or("per_client", Some(1000), off_or_count);
    let shared_addresses = section
        .list("shared_addresses", network)
        .unwrap_or_else(private_networks);
    let trusted_proxies = section.list("trusted_proxies", proxies).unwrap_or_default();
    let schemes = Scheme::ALL.map(|scheme| (scheme.as_str(), scheme));
    let public_scheme = section.or("public_scheme", Scheme::Http, value::one_of(&schemes));
    let public_port = section.or("public_port", None, |v| {
        value::or_word(v, "auto", value::port)
    });
    let templates = section.or("templates", None, |v| value::or_none(v, value::absolute));
    if let Some(dir) = &templates {
        match trust::distrust(dir) {
            Ok(_) if !dir.is_dir() => section.fault("templates", "not a folder that can be read"),
            Ok(None) => {}
            Ok(Some(found)) => section.fault(
                "templates",
                format!(
                    "{}: nothing in it is obeyed; {}",
                    found.of(dir),
                    found.way_out()
                ),
            ),
            Err(_) => section.fault("templates", "not a folder that can be read"),
        }
    }
    let user = section
        .or("user", None, |v| value::or_none(v, account))
        .or_else(default_user);
    section.close();
    let listen = listen.unwrap_or_else(|| vec![SocketAddr::from(([127, 0, 0, 1], 8080))]);
    EdgeConfig {
        kind,
        listen,
        max_body,
        per_client,
        shared_addresses,
        trusted_proxies,
        public_scheme,
        public_port,
        templates,
        user,
    }
}

/// Nobody on the internet has an address in one of these: proxies and gateways of one's own do.
fn private_networks() -> Vec<IpNet> {
    const PRIVATE: [&str; 7] = [
        "10.0.0.0/8",
        "100.64.0.0/10",
        "169.254.0.0/16",
        "172.16.0.0/12",
        "192.168.0.0/16",
        "fc00::/7",
        "fe80::/10",
    ];
    PRIVATE.iter().filter_map(|net| net.parse().ok()).collect()
}

/// A number of what one client may have, or "off".
fn off_or_count(v: &toml::de::DeValue<'_>) -> Result<Option<u32>, String> {
    match v.as_str() {
        Some("off") => Ok(None),
        _ => value::whole(1, 1_000_000)(v)
            .map(|n| u32::try_from(n).ok())
            .map_err(|reason| format!("{reason}, or \"off\"")),
    }
}

fn supervisor(section: &Section<'_>) -> SupervisorKind {
    let kinds = [
        ("supervisord", SupervisorKind::Supervisord),
        ("builtin", SupervisorKind::Builtin),
    ];
    let kind = section.or("kind", SupervisorKind::Supervisord, value::one_of(&kinds));
    section.close();
    kind
}

fn idle(section: &Section<'_>) -> IdleConfig {
    let idle = IdleConfig {
        timeout: section.or("timeout", Duration::from_secs(15 * 60), value::some_time),
        min_awake: section.or("min_awake", Duration::from_secs(30), value::duration),
        check_every: section.or("check_every", Some(Duration::from_secs(30)), value::pause),
        silent_connections: section.or("silent_connections", None, value::never),
    };
    section.close();
    idle
}

fn wake(section: &Section<'_>, env: &Env) -> WakeConfig {
    let auto = (2 * env.cores).max(4);
    let at_once = |v: &toml::de::DeValue<'_>| match v.as_str() {
        Some("auto") => Ok(auto),
        _ => value::whole(1, 10_000)(v).map_err(|reason| format!("{reason}, or \"auto\"")),
    };
    let wake = WakeConfig {
        timeout: section.or("timeout", Duration::from_secs(30), value::some_time),
        page_after: section.or("page_after", Duration::from_secs(2), value::duration),
        max_waiting: section.or("max_waiting", 1000, value::whole(1, 1_000_000)),
        max_at_once: section.or("max_at_once", auto, at_once),
        per_client: section.or("per_client", Some(60), off_or_count),
    };
    section.close();
    wake
}

fn stop(section: &Section<'_>) -> StopConfig {
    let stop = StopConfig {
        drain: section.or("drain", Duration::from_secs(30), value::duration),
        drain_streams: section.or("drain_streams", Duration::from_secs(2), value::duration),
        timeout: section.or("timeout", Duration::from_secs(10), value::some_time),
    };
    section.close();
    stop
}

fn ports(section: &Section<'_>) -> PortRange {
    let range = section.or(
        "range",
        PortRange {
            first: 20_000,
            last: 29_999,
        },
        value::port_range,
    );
    section.close();
    range
}

fn log(section: &Section<'_>) -> LogConfig {
    let levels = ["error", "warn", "info", "debug", "trace"].map(|word| (word, word));
    let formats = [("text", LogFormat::Text), ("json", LogFormat::Json)];
    let log = LogConfig {
        level: section
            .or("level", "info", value::one_of(&levels))
            .to_owned(),
        format: section.or("format", LogFormat::Text, value::one_of(&formats)),
    };
    section.close();
    log
}

fn events(section: &Section<'_>) -> EventsConfig {
    let events = EventsConfig {
        keep: section.or("keep", 100_000, value::whole(1, 10_000_000)),
        keep_for: section.or(
            "keep_for",
            Duration::from_secs(90 * 24 * 3600),
            value::some_time,
        ),
    };
    section.close();
    events
}

fn limits(section: &Section<'_>) -> LimitsConfig {
    let count = |least| {
        move |v: &toml::de::DeValue<'_>| value::whole(least, 1 << 30)(v).map(|count| count as u64)
    };
    let limits = LimitsConfig {
        open_files: section.or("open_files", None, |v| value::or_word(v, "auto", count(64))),
        processes: section.or("processes", Some(1024), |v| {
            value::or_word(v, "unlimited", count(8))
        }),
        memory: section.or("memory", None, |v| {
            value::or_word(v, "unlimited", value::size_of(4 << 20))
        }),
        file_size: section.or("file_size", None, |v| {
            value::or_word(v, "unlimited", value::size)
        }),
        core: section.or("core", Some(0), |v| {
            value::or_word(v, "unlimited", value::size_or_off)
        }),
    };
    section.close();
    limits
}
