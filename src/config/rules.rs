//! `[[rules]]`: which requests do not wake an instance or do not count as use.

use super::reader::Section;
use super::value::{self, Parsed};
use crate::domain::rule::Rule;
use ipnet::IpNet;
use toml::de::DeValue;

/// Reads all rules, in order.
pub(super) fn read_rules(root: &Section<'_>) -> Vec<Rule> {
    root.sections("rules")
        .into_iter()
        .map(|section| rule(&section))
        .collect()
}

fn rule(section: &Section<'_>) -> Rule {
    let rule = Rule {
        path: section.optional("path", path),
        method: section.optional("method", method),
        user_agent: section.optional("user_agent", some_line),
        client: section.optional("client", network),
        wake: section.or("wake", true, value::boolean),
        counts: section.or("counts", true, value::boolean),
    };
    // Ask the file, not the values: a condition with a fault is still a condition.
    if !["path", "method", "user_agent", "client"]
        .iter()
        .any(|key| section.line_of(key).is_some())
    {
        section.fault_here(
            "has no condition: set at least one of path, method, user_agent and client",
        );
    }
    if section.reads_as_true("wake") && section.reads_as_true("counts") {
        section.fault_here("has no effect: set wake or counts to false");
    }
    section.close();
    rule
}

fn path(v: &DeValue<'_>) -> Parsed<String> {
    let path = value::line(v)?;
    if path.starts_with('/') {
        Ok(path)
    } else {
        Err("must begin with /".to_owned())
    }
}

fn method(v: &DeValue<'_>) -> Parsed<String> {
    let method = value::line(v)?;
    let good = !method.is_empty() && method.chars().all(|c| c.is_ascii_alphabetic() || c == '-');
    if good {
        Ok(method.to_ascii_uppercase())
    } else {
        Err("not a method such as \"GET\"".to_owned())
    }
}

fn some_line(v: &DeValue<'_>) -> Parsed<String> {
    let text = value::line(v)?;
    if text.is_empty() {
        Err("must not be empty".to_owned())
    } else {
        Ok(text)
    }
}

/// Parses an address or a network.
pub(super) fn network(v: &DeValue<'_>) -> Parsed<IpNet> {
    let text = v.as_str().unwrap_or_default();
    let parsed = text
        .parse::<IpNet>()
        .ok()
        .or_else(|| Some(IpNet::from(text.parse::<std::net::IpAddr>().ok()?)));
    parsed
        .map(|net| net.trunc())
        .ok_or_else(|| "not a network such as \"10.0.0.0/8\" or \"2001:db8::/32\"".to_owned())
}
