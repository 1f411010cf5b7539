//! Checks of this host, each finding with a hint how to fix it.
//!
//! It never changes anything. A check that could not be made is a finding too, never a good
//! one.

mod edge;
mod files;
mod finding;
mod host;
mod models;
mod net;
mod programs;

use super::human::clean;
use crate::config::Config;
use crate::config::reload::{Difference, NEED_RESTART};
use crate::service::error::ServiceError;
pub use finding::{Finding, Level};
use finding::{bad, ok, warn};

/// All checks, in the order of repair, against the settings in force. `waiting`: what
/// the config file says otherwise. Takes a few seconds at most.
pub async fn examine(config: &Config, waiting: &[Difference]) -> Vec<Finding> {
    let file = config.file.as_ref().map_or_else(
        || "no config file: the defaults are in force".to_owned(),
        |f| format!("config `{}`", f.display()),
    );
    let mut findings = vec![ok(file)];
    findings.extend(waiting.iter().map(waits));
    findings.extend(host::all());
    findings.push(host::user(config));
    findings.push(host::members(config));
    findings.extend(programs::all(config).await);
    findings.extend(files::all(config));
    findings.extend(host::shared(config));
    findings.extend(models::all(config));
    findings.extend(net::all(config).await);
    findings.extend(edge::all(config).await);
    findings
}

/// A change of the config that is not in force.
fn waits(change: &Difference) -> Finding {
    let way = if NEED_RESTART.contains(&change.key.as_str()) {
        "`acc halt`, then `acc boot`"
    } else {
        "`acc reload`"
    };
    let what = format!(
        "`{}` is {} in the running server, but {} in the config",
        change.key, change.one, change.other
    );
    warn(
        what,
        format!("apply the change with {way}; all following findings are about the running server"),
    )
}

/// What can be said without a config.
pub async fn without_config(error: &ServiceError) -> Vec<Finding> {
    let mut findings = vec![bad(error.message.clone(), error.hint.clone())];
    findings.extend(host::all());
    findings.push(programs::python().await);
    findings
}

/// A line for each finding, its hint below.
#[must_use]
pub fn text(findings: &[Finding], colour: bool) -> String {
    let mut text = String::new();
    for finding in findings {
        let (word, code) = match finding.level {
            Level::Ok => ("ok", "32"),
            Level::Warn => ("warn", "33"),
            Level::Bad => ("bad", "31"),
        };
        let padding = " ".repeat(6 - word.len());
        let word = if colour {
            format!("\u{1b}[{code}m{word}\u{1b}[0m")
        } else {
            word.to_owned()
        };
        let what: Vec<String> = finding.what.lines().map(clean).collect();
        text.push_str(&format!("{word}{padding}{}\n", what.join("\n      ")));
        if !finding.hint.is_empty() {
            text.push_str(&format!("      hint: {}\n", clean(&finding.hint)));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_for_each_finding_with_its_hint_below() {
        let findings = [
            ok("nginx 1.22.1"),
            warn("no `python3`", "install it"),
            bad("two\n  faults", ""),
        ];
        assert_eq!(
            text(&findings, false),
            "ok    nginx 1.22.1\nwarn  no `python3`\n      hint: install it\nbad   two\n        faults\n"
        );
        assert!(text(&findings, true).starts_with("\u{1b}[32mok\u{1b}[0m    nginx"));
    }
}
