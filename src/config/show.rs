//! Writes the settings in force as a config file with the same meaning, for `acc config show`.

use std::path::Path;

use ipnet::IpNet;

use super::value::{show_duration, show_size};
use super::{Config, EdgeKind, LogFormat, SupervisorKind};
use crate::domain::rule::Rule;

impl Config {
    /// Every key with its value in force. Parsing the text gives the same settings; an optional
    /// value that is not set is `""`.
    #[must_use]
    pub fn to_toml(&self) -> String {
        let mut out = String::new();
        let from = self.file.as_ref().map_or_else(
            || "defaults (no config file)".to_owned(),
            |f| f.display().to_string(),
        );
        out.push_str(&format!("# from: {from}\n"));
        section(&mut out, None, &self.top());
        section(&mut out, Some("edge"), &self.edge_lines());
        section(
            &mut out,
            Some("supervisor"),
            &[("kind", quote(self.supervisor.as_str()))],
        );
        section(&mut out, Some("idle"), &self.idle_lines());
        section(&mut out, Some("wake"), &self.wake_lines());
        let stop = [
            ("drain", self.stop.drain),
            ("drain_streams", self.stop.drain_streams),
            ("timeout", self.stop.timeout),
        ]
        .map(|(key, time)| (key, quote(&show_duration(time))));
        section(&mut out, Some("stop"), &stop);
        section(
            &mut out,
            Some("ports"),
            &[(
                "range",
                quote(&format!("{}-{}", self.ports.first, self.ports.last)),
            )],
        );
        section(
            &mut out,
            Some("log"),
            &[
                ("level", quote(&self.log.level)),
                ("format", quote(self.log.format.as_str())),
            ],
        );
        let events = [
            ("keep", self.events.keep.to_string()),
            ("keep_for", quote(&show_duration(self.events.keep_for))),
        ];
        section(&mut out, Some("events"), &events);
        section(&mut out, Some("limits"), &self.limits_lines());
        for rule in &self.rules {
            out.push_str("\n[[rules]]\n");
            push(&mut out, &rule_lines(rule));
        }
        out
    }

    fn top(&self) -> Vec<(&'static str, String)> {
        let mut lines = vec![
            ("home", quote_path(&self.home)),
            ("run", quote_path(&self.run)),
            ("domain", quote(self.domain.as_str())),
            ("user", quote(self.user.as_deref().unwrap_or_default())),
        ];
        if self.rules.is_empty() {
            lines.push(("rules", "[]".to_owned()));
        }
        lines
    }

    fn edge_lines(&self) -> [(&'static str, String); 10] {
        let listen = self
            .edge
            .listen
            .iter()
            .map(|a| quote(&a.to_string()))
            .collect::<Vec<_>>()
            .join(", ");
        let nets = |nets: &[IpNet]| {
            format!(
                "[{}]",
                nets.iter()
                    .map(|net| quote(&net.to_string()))
                    .collect::<Vec<_>>()
                    .join(", ")
            )
        };
        [
            ("kind", quote(self.edge.kind.as_str())),
            ("listen", format!("[{listen}]")),
            ("max_body", quote(&show_size(self.edge.max_body))),
            ("per_client", count_or_off(self.edge.per_client)),
            ("shared_addresses", nets(&self.edge.shared_addresses)),
            ("trusted_proxies", nets(&self.edge.trusted_proxies)),
            ("public_scheme", quote(self.edge.public_scheme.as_str())),
            (
                "public_port",
                self.edge
                    .public_port
                    .map_or_else(|| quote("auto"), |port| port.to_string()),
            ),
            (
                "templates",
                self.edge
                    .templates
                    .as_deref()
                    .map_or_else(|| quote(""), quote_path),
            ),
            ("user", quote(self.edge.user.as_deref().unwrap_or_default())),
        ]
    }

    fn idle_lines(&self) -> [(&'static str, String); 4] {
        [
            ("timeout", quote(&show_duration(self.idle.timeout))),
            ("min_awake", quote(&show_duration(self.idle.min_awake))),
            (
                "check_every",
                quote(
                    &self
                        .idle
                        .check_every
                        .map_or_else(|| "off".to_owned(), show_duration),
                ),
            ),
            (
                "silent_connections",
                quote(
                    &self
                        .idle
                        .silent_connections
                        .map_or_else(|| "never".to_owned(), show_duration),
                ),
            ),
        ]
    }

    fn limits_lines(&self) -> [(&'static str, String); 5] {
        let limits = &self.limits;
        let count =
            |limit: Option<u64>, word| limit.map_or_else(|| quote(word), |limit| limit.to_string());
        let size =
            |limit: Option<u64>| quote(&limit.map_or_else(|| "unlimited".to_owned(), show_size));
        [
            ("open_files", count(limits.open_files, "auto")),
            ("processes", count(limits.processes, "unlimited")),
            ("memory", size(limits.memory)),
            ("file_size", size(limits.file_size)),
            (
                "core",
                if limits.core == Some(0) {
                    quote("off")
                } else {
                    size(limits.core)
                },
            ),
        ]
    }

    fn wake_lines(&self) -> [(&'static str, String); 5] {
        [
            ("timeout", quote(&show_duration(self.wake.timeout))),
            ("page_after", quote(&show_duration(self.wake.page_after))),
            ("max_waiting", self.wake.max_waiting.to_string()),
            ("max_at_once", self.wake.max_at_once.to_string()),
            ("per_client", count_or_off(self.wake.per_client)),
        ]
    }
}

fn rule_lines(rule: &Rule) -> Vec<(&'static str, String)> {
    let client = rule.client.map(|net| net.to_string());
    let conditions = [
        ("path", &rule.path),
        ("method", &rule.method),
        ("user_agent", &rule.user_agent),
        ("client", &client),
    ];
    let given = conditions
        .into_iter()
        .filter_map(|(key, value)| Some((key, quote(value.as_deref()?))));
    given
        .chain([
            ("wake", rule.wake.to_string()),
            ("counts", rule.counts.to_string()),
        ])
        .collect()
}

fn section(out: &mut String, name: Option<&str>, lines: &[(&str, String)]) {
    if let Some(name) = name {
        out.push_str(&format!("\n[{name}]\n"));
    }
    push(out, lines);
}

fn push(out: &mut String, lines: &[(&str, String)]) {
    for (key, value) in lines {
        out.push_str(&format!("{key} = {value}\n"));
    }
}

fn count_or_off(count: Option<u32>) -> String {
    count.map_or_else(|| quote("off"), |count| count.to_string())
}

/// Quotes a TOML text.
fn quote(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

fn quote_path(path: &Path) -> String {
    quote(&path.to_string_lossy())
}

impl EdgeKind {
    /// The word in the config file.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Nginx => "nginx",
            Self::Builtin => "builtin",
        }
    }
}

impl SupervisorKind {
    /// Does a daemon start acc's server, and start it again when it ends?
    #[must_use]
    pub fn has_daemon(self) -> bool {
        self == Self::Supervisord
    }

    /// The word in the config file.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Supervisord => "supervisord",
            Self::Builtin => "builtin",
        }
    }
}

impl LogFormat {
    /// The word in the config file.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Json => "json",
        }
    }
}
