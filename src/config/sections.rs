//! The tables of the config file, one function each, with the defaults of their keys.
//!
//! It checks values, and folders of templates. It never reads a file's content.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;

use super::env::Env;
use super::public::proxies;
use super::reader::Section;
use super::rules::network;
use super::scheme::Scheme;
use super::trust;
use super::value::{self, Parsed};
use super::{
    EdgeConfig, EdgeKind, EventsConfig, IdleConfig, LimitsConfig, LogConfig, LogFormat, StopConfig,
    SupervisorKind, WakeConfig,
};
use crate::domain::port::PortRange;

/// The name of a user account in the form that `useradd` allows; the host is not asked.
pub(super) fn account(v: &toml::de::DeValue<'_>) -> Parsed<String> {
    let text = value::text(v)?;
    let good = |c: char| c.is_ascii_alphanumeric() || "_-.".contains(c);
    let first = text
        .chars()
        .next()
        .is_some_and(|c| c.is_ascii_alphabetic() || c == '_');
    if first && text.len() <= 32 && text.chars().all(good) {
        Ok(text)
    } else {
        Err("not a valid user name".to_owned())
    }
}

pub(super) fn edge(
    section: &Section<'_>,
    default_user: impl FnOnce() -> Option<String>,
) -> EdgeConfig {
    let kinds = [("nginx", EdgeKind::Nginx), ("builtin", EdgeKind::Builtin)];
    let schemes = Scheme::ALL.map(|scheme| (scheme.as_str(), scheme));
    let edge = EdgeConfig {
        kind: section.or("kind", EdgeKind::Nginx, value::one_of(&kinds)),
        listen: listen(section),
        max_body: section.or("max_body", 64 << 20, value::size),
        per_client: section.or("per_client", Some(1000), off_or_count),
        shared_addresses: section
            .list("shared_addresses", network)
            .unwrap_or_else(private_networks),
        trusted_proxies: section.list("trusted_proxies", proxies).unwrap_or_default(),
        public_scheme: section.or("public_scheme", Scheme::Http, value::one_of(&schemes)),
        public_port: section.or("public_port", None, |v| {
            value::or_word(v, "auto", value::port)
        }),
        templates: templates(section),
        user: section
            .or("user", None, |v| value::or_none(v, account))
            .or_else(default_user),
    };
    section.close();
    edge
}

/// The addresses of the edge, each once.
fn listen(section: &Section<'_>) -> Vec<SocketAddr> {
    let mut seen: Vec<SocketAddr> = Vec::new();
    let listen = section.list("listen", |v| {
        let address = value::address(v)?;
        if matches!(address, SocketAddr::V6(a) if a.scope_id() != 0) {
            return Err("must not have a zone".to_owned());
        }
        if seen.contains(&address) {
            return Err("is listed twice".to_owned());
        }
        seen.push(address);
        Ok(address)
    });
    if section.is_empty_list("listen") {
        section.fault("listen", "must have at least one address");
    }
    listen.unwrap_or_else(|| vec![SocketAddr::from(([127, 0, 0, 1], 8080))])
}

/// The folder of the operator's templates: it must exist, and only trusted users may be able to
/// change it.
fn templates(section: &Section<'_>) -> Option<PathBuf> {
    let dir = section.or("templates", None, |v| value::or_none(v, value::absolute))?;
    match trust::distrust(&dir) {
        Ok(_) if !dir.is_dir() => section.fault("templates", "not a readable folder"),
        Ok(None) => {}
        Ok(Some(found)) => section.fault(
            "templates",
            format!(
                "{}: acc does not use its files; {}",
                found.of(&dir),
                found.fix()
            ),
        ),
        Err(_) => section.fault("templates", "not a readable folder"),
    }
    Some(dir)
}

/// Networks without internet clients; an address in one of them belongs to a proxy or gateway of
/// the operator.
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

/// A limit for one client, or "off".
fn off_or_count(v: &toml::de::DeValue<'_>) -> Result<Option<u32>, String> {
    match v.as_str() {
        Some("off") => Ok(None),
        _ => value::whole(1, 1_000_000)(v)
            .map(|n| u32::try_from(n).ok())
            .map_err(|reason| format!("{reason}, or \"off\"")),
    }
}

pub(super) fn supervisor(section: &Section<'_>) -> SupervisorKind {
    let kinds = [
        ("supervisord", SupervisorKind::Supervisord),
        ("builtin", SupervisorKind::Builtin),
    ];
    let kind = section.or("kind", SupervisorKind::Supervisord, value::one_of(&kinds));
    section.close();
    kind
}

pub(super) fn idle(section: &Section<'_>) -> IdleConfig {
    let idle = IdleConfig {
        timeout: section.or("timeout", Duration::from_secs(15 * 60), value::some_time),
        min_awake: section.or("min_awake", Duration::from_secs(30), value::duration),
        check_every: section.or("check_every", Some(Duration::from_secs(30)), value::pause),
        silent_connections: section.or("silent_connections", None, value::never),
    };
    section.close();
    idle
}

pub(super) fn wake(section: &Section<'_>, env: &Env) -> WakeConfig {
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

pub(super) fn stop(section: &Section<'_>) -> StopConfig {
    let stop = StopConfig {
        drain: section.or("drain", Duration::from_secs(30), value::duration),
        drain_streams: section.or("drain_streams", Duration::from_secs(2), value::duration),
        timeout: section.or("timeout", Duration::from_secs(10), value::some_time),
    };
    section.close();
    stop
}

pub(super) fn ports(section: &Section<'_>) -> PortRange {
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

pub(super) fn log(section: &Section<'_>) -> LogConfig {
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

pub(super) fn events(section: &Section<'_>) -> EventsConfig {
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

pub(super) fn limits(section: &Section<'_>) -> LimitsConfig {
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
