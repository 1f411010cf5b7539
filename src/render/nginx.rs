//! The configuration of nginx as one text: the values for the template, and the escaping for
//! nginx's syntax.
//!
//! It is one file on purpose: a rename then replaces everything at once. It decides nothing about
//! files, processes or reloads.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::Path;

use ipnet::IpNet;
use serde::Serialize;

use super::{RenderError, Templates};
use crate::config::{Config, Scheme};
use crate::domain::edge_headers::{EDGE_ONLY, OF_PROXIES, SET_BY_NGINX};
use crate::domain::name::{HostName, InstanceName};
use crate::domain::rule::Rule;

/// The template.
pub const TEMPLATE: &str = "nginx/nginx.conf";

/// The host that acc uses to check whether nginx answers. No instance can have it: it has its own
/// server block in nginx.
pub const CHECK_HOST: &str = "edge.acc.invalid";
/// The path for that check.
pub const CHECK_PATH: &str = "/.well-known/acc/edge";

/// Words with a special meaning as the first word of a line inside a `map`.
const MAP_WORDS: &[&str] = &["default", "hostnames", "include", "volatile"];

/// The part of an instance in the configuration.
#[derive(Debug, Clone, Copy)]
pub struct NginxEntry<'a> {
    /// The instance.
    pub name: &'a InstanceName,
    /// Hosts other than `NAME.domain`.
    pub hosts: &'a [HostName],
    /// Its address, if it listens on TCP.
    pub tcp: Option<SocketAddr>,
}

/// What nginx may use on this host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Allowance {
    /// User and group of the workers; `None` if acc is not root (nginx cannot change them then).
    pub run_as: Option<(String, String)>,
    /// Open files of a worker; `None`: unchanged.
    pub open_files: Option<u64>,
    /// Connections of one worker.
    pub connections: u64,
}

/// The values for the template. Every text is escaped for its place there.
#[derive(Debug, Serialize)]
struct View {
    run_as: Option<String>,
    pid_file: String,
    open_files: Option<u64>,
    connections: u64,
    error_log: String,
    map_hash_max_size: usize,
    map_hash_bucket_size: usize,
    temp_dir: String,
    max_body: u64,
    per_client: Option<u32>,
    shared_addresses: Vec<String>,
    trusted_proxies: Vec<String>,
    public_scheme: &'static str,
    /// For `http` and for `https`.
    public_ports: [u16; 2],
    domain_pattern: String,
    hosts: Vec<HostView>,
    tcp: Vec<TcpView>,
    rules: Vec<RuleView>,
    listen: Vec<String>,
    nginx_dir: String,
    gate_socket: String,
    gate_file: String,
    log_dir: String,
    access_log: String,
    uncounted_log: String,
    wake_socket: String,
    /// Headers that only an edge may set, and that nginx removes for every application.
    dropped_headers: Vec<&'static str>,
    /// Headers that are kept if they come from a trusted proxy.
    headers_of_proxies: &'static [&'static str],
    check_host: &'static str,
}

#[derive(Debug, Serialize)]
struct HostView {
    key: String,
    name: String,
}

#[derive(Debug, Serialize)]
struct TcpView {
    key: String,
    address: String,
}

#[derive(Debug, Serialize)]
struct RuleView {
    number: usize,
    path: Option<String>,
    method: Option<String>,
    user_agent: Option<String>,
    client: Option<String>,
    /// The variables of the conditions, joined.
    subject: String,
    /// The value of `subject` if all conditions hold.
    all_match: String,
    counts: bool,
}

/// Renders the whole configuration.
pub fn text(
    templates: &Templates,
    config: &Config,
    allowance: &Allowance,
    entries: &[NginxEntry<'_>],
) -> Result<String, RenderError> {
    templates.render(TEMPLATE, &view(config, allowance, entries)?)
}

fn view(
    config: &Config,
    allowance: &Allowance,
    entries: &[NginxEntry<'_>],
) -> Result<View, RenderError> {
    // `Config` makes paths from the name of an instance. Only nginx knows that name, so its
    // variable takes the name's place.
    let any = "$acc_instance";
    let hosts = hosts(entries);
    let tcp = tcp(entries);
    let (map_hash_max_size, map_hash_bucket_size) = hash_size(&hosts, &tcp);
    check(&config.home)?;
    check(&config.run)?;
    let log = config.access_log(any);
    Ok(View {
        run_as: run_as(allowance)?,
        pid_file: plain(&pid_file(config)),
        open_files: allowance.open_files,
        connections: allowance.connections,
        error_log: plain(&config.own_log("nginx-error")),
        map_hash_max_size,
        map_hash_bucket_size,
        temp_dir: plain(&temp_dir(config)),
        max_body: config.edge.max_body,
        per_client: per_client(config, allowance),
        shared_addresses: networks(&config.edge.of_many()),
        trusted_proxies: networks(&config.edge.trusted_proxies),
        public_scheme: config.edge.public_scheme.as_str(),
        public_ports: Scheme::ALL.map(|scheme| config.edge.port(scheme)),
        domain_pattern: domain_pattern(&config.domain)?,
        hosts,
        tcp,
        rules: rules(&config.rules)?,
        listen: config.edge.listen.iter().map(ToString::to_string).collect(),
        nginx_dir: plain(&config.nginx_dir()),
        gate_socket: plain(&config.gate_dir().join(format!("{any}.sock"))),
        // With the address from the map: after a change of the port, a worker with an older map
        // finds no gate for the old one.
        gate_file: plain(&config.gate_dir().join(format!("{any}.$acc_tcp.tcp"))),
        log_dir: plain(log.parent().unwrap_or(&log)),
        access_log: plain(&log),
        uncounted_log: plain(&config.uncounted_log(any)),
        wake_socket: plain(&config.wake_socket()),
        dropped_headers: EDGE_ONLY
            .iter()
            .copied()
            .filter(|name| is_dropped(name))
            .collect(),
        headers_of_proxies: OF_PROXIES,
        check_host: CHECK_HOST,
    })
}

/// User and group of the workers, as arguments of nginx's `user`.
fn run_as(allowance: &Allowance) -> Result<Option<String>, RenderError> {
    let Some((user, group)) = &allowance.run_as else {
        return Ok(None);
    };
    Ok(Some(format!("{} {}", quoted(user)?, quoted(group)?)))
}

/// Simultaneous requests of one client: the setting, but at most an eighth of a worker's
/// connections, because a request may take three of them.
fn per_client(config: &Config, allowance: &Allowance) -> Option<u32> {
    let most = u32::try_from(allowance.connections / 8).unwrap_or(u32::MAX);
    config.edge.per_client.map(|limit| limit.min(most))
}

fn is_dropped(name: &str) -> bool {
    !SET_BY_NGINX.contains(&name) && !OF_PROXIES.contains(&name) && !name.starts_with("x-acc-")
}

/// Without duplicates, for which nginx prints a warning.
fn networks(all: &[IpNet]) -> Vec<String> {
    let each: BTreeSet<IpNet> = all.iter().map(IpNet::trunc).collect();
    each.into_iter().map(|net| net.to_string()).collect()
}

/// Where nginx writes the pid of its master process.
#[must_use]
pub fn pid_file(config: &Config) -> std::path::PathBuf {
    config.run.join("nginx.pid")
}

/// Where nginx keeps bodies that do not fit into its memory.
#[must_use]
pub fn temp_dir(config: &Config) -> std::path::PathBuf {
    config.nginx_dir().join("tmp")
}

/// The lines of the host map. A host appears only once, whatever the input: a duplicate would make
/// nginx refuse the configuration.
fn hosts(entries: &[NginxEntry<'_>]) -> Vec<HostView> {
    let mut lines = BTreeMap::new();
    for entry in entries {
        for host in entry.hosts {
            lines.entry(host.as_str()).or_insert(entry.name);
        }
    }
    lines
        .into_iter()
        .map(|(host, name)| HostView {
            key: map_key(host),
            name: name.as_str().to_owned(),
        })
        .collect()
}

/// The lines of the TCP map, also without duplicates.
fn tcp(entries: &[NginxEntry<'_>]) -> Vec<TcpView> {
    let lines: BTreeMap<&str, SocketAddr> = entries
        .iter()
        .filter_map(|e| Some((e.name.as_str(), e.tcp?)))
        .collect();
    lines
        .into_iter()
        .map(|(name, address)| TcpView {
            key: map_key(name),
            address: address.to_string(),
        })
        .collect()
}

/// The number of buckets of nginx's maps, and the size of each in bytes. Twice as many as there are
/// keys, each with room for eight of the longest: with less, nginx may not find room for all and
/// prints a warning at every start.
fn hash_size(hosts: &[HostView], tcp: &[TcpView]) -> (usize, usize) {
    let keys = hosts
        .iter()
        .map(|h| &h.key)
        .chain(tcp.iter().map(|t| &t.key));
    let longest = keys.map(String::len).max().unwrap_or(0);
    // An entry takes its key with the length, rounded up to words, and a pointer.
    let entry = (longest + 2).next_multiple_of(8) + 8;
    let buckets = hosts.len().max(tcp.len()) * 2;
    (
        buckets.max(2048).next_power_of_two(),
        (entry * 8 + 8).max(512).next_power_of_two(),
    )
}

/// A name as the key of a map: names contain nothing that needs quoting, but may equal a special
/// word.
fn map_key(name: &str) -> String {
    if MAP_WORDS.contains(&name) {
        format!("\\{name}")
    } else {
        name.to_owned()
    }
}

/// The pattern of `NAME.domain`, which captures the name in `$acc_label`.
fn domain_pattern(domain: &HostName) -> Result<String, RenderError> {
    quoted(&format!(
        r"~^(?<acc_label>[a-z0-9](?:[a-z0-9-]{{0,61}}[a-z0-9])?)\.{}$",
        regex_literal(domain.as_str())
    ))
}

fn rules(rules: &[Rule]) -> Result<Vec<RuleView>, RenderError> {
    let numbered = rules.iter().enumerate();
    numbered
        .map(|(number, rule)| rule_view(number, rule))
        .collect()
}

fn rule_view(number: usize, rule: &Rule) -> Result<RuleView, RenderError> {
    let path = rule
        .path
        .as_ref()
        .map(|p| quoted(&format!("~^{}", regex_literal(p))))
        .transpose()?;
    // As a pattern: a map ignores case in plain texts, and methods are case-sensitive.
    let method = rule
        .method
        .as_ref()
        .map(|m| quoted(&format!("~^{}$", regex_literal(m))))
        .transpose()?;
    let user_agent = rule
        .user_agent
        .as_ref()
        .map(|u| quoted(&format!("~*{}", regex_literal(u))))
        .transpose()?;
    let client = rule.client.map(|net| net.trunc().to_string());
    let parts = [
        ("path", path.is_some()),
        ("method", method.is_some()),
        ("agent", user_agent.is_some()),
        ("client", client.is_some()),
    ];
    let used: Vec<&str> = parts
        .iter()
        .filter(|(_, used)| *used)
        .map(|(name, _)| *name)
        .collect();
    Ok(RuleView {
        number,
        path,
        method,
        user_agent,
        client,
        subject: used
            .iter()
            .map(|part| format!("$acc_rule{number}_{part}"))
            .collect(),
        all_match: "1".repeat(used.len()),
        counts: rule.counts,
    })
}

/// A regular expression that matches exactly this text.
fn regex_literal(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        // A backslash before an ASCII letter or digit has a special meaning; before any other
        // character it removes one.
        if c.is_ascii() && !c.is_ascii_alphanumeric() {
            out.push('\\');
        }
        out.push(c);
    }
    out
}

/// Quotes a text as one word of nginx's configuration. Variables are still expanded: use it only
/// where nginx expands none, or for texts without a dollar sign. Control characters are refused:
/// none of these texts needs one.
fn quoted(text: &str) -> Result<String, RenderError> {
    if text.chars().any(char::is_control) {
        return Err(refuse(&format!(
            "`{}` contains a control character",
            text.escape_debug()
        )));
    }
    Ok(format!(
        "\"{}\"",
        text.replace('\\', r"\\").replace('"', "\\\"")
    ))
}

/// Refuses a folder that nginx's configuration cannot express: a dollar sign would begin a
/// variable, and a colon ends the path of a socket.
fn check(path: &Path) -> Result<(), RenderError> {
    let Some(text) = path.to_str() else {
        return Err(refuse(&format!(
            "the folder `{}` is not UTF-8",
            path.display()
        )));
    };
    match text
        .chars()
        .find(|c| c.is_control() || "$\"'\\:".contains(*c))
    {
        Some(c) => Err(refuse(&format!(
            "the folder `{}` contains `{}`, which nginx cannot read in a path",
            path.display(),
            c.escape_debug()
        ))),
        None => Ok(()),
    }
}

/// A path below a checked folder, for use between double quotes.
fn plain(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

fn refuse(why: &str) -> RenderError {
    RenderError::Template {
        name: TEMPLATE.to_owned(),
        why: why.to_owned(),
    }
}

#[cfg(test)]
mod tests;
