//! The machine and the programs that a figure belongs to. Reads files and runs `--version`, nothing
//! else.

use std::fs;
use std::process::Command;

use serde_json::{Value, json};

use crate::support::fixture::ACC;
use crate::support::need;

/// The first line of a program's `--version`; `None`: it is not installed.
pub fn version(program: &str, argument: &str) -> Option<String> {
    let path = need::find(program)?;
    let done = Command::new(path).arg(argument).output().ok()?;
    let text = if done.stdout.is_empty() {
        done.stderr
    } else {
        done.stdout
    };
    let line = String::from_utf8_lossy(&text)
        .lines()
        .next()
        .unwrap_or_default()
        .trim()
        .to_owned();
    Some(
        line.trim_start_matches("nginx version: ")
            .trim_start_matches("Python ")
            .to_owned(),
    )
}

fn first_line(path: &str, key: &str) -> String {
    let text = fs::read_to_string(path).unwrap_or_default();
    let line = text
        .lines()
        .find(|l| l.starts_with(key))
        .unwrap_or_default();
    line.split_once(':')
        .map_or(line, |(_, value)| value)
        .trim()
        .to_owned()
}

/// How acc was built.
pub fn build() -> &'static str {
    if cfg!(debug_assertions) {
        "debug build: no figure of it is worth anything"
    } else {
        "optimised build"
    }
}

/// Load of the last minute.
pub fn load() -> f64 {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ')
        .next()
        .and_then(|l| l.parse().ok())
        .unwrap_or(f64::NAN)
}

/// What a reader must know about the machine and the programs.
pub fn describe() -> Value {
    let acc = Command::new(ACC)
        .arg("--version")
        .output()
        .map(|o| String::from_utf8_lossy(&o.stdout).trim().to_owned());
    json!({
        "processor": first_line("/proc/cpuinfo", "model name"),
        "processors": std::thread::available_parallelism().map_or(0, std::num::NonZero::get),
        "memory": first_line("/proc/meminfo", "MemTotal"),
        "kernel": fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim(),
        "acc": acc.unwrap_or_default(),
        "build": build(),
        "nginx": version("nginx", "-v"),
        "supervisord": version("supervisord", "--version"),
        "wrk": need::find("wrk").map(|_| "installed"),
        "node": version("node", "--version"),
        "load_before": load(),
    })
}

/// The same as one paragraph.
pub fn text(machine: &Value) -> String {
    let word = |key: &str| {
        machine[key]
            .as_str()
            .map_or_else(|| machine[key].to_string(), str::to_owned)
    };
    let mut text = format!(
        "{}, {} processors, {}, kernel {}; {} ({})",
        word("processor"),
        word("processors"),
        word("memory"),
        word("kernel"),
        word("acc"),
        word("build")
    );
    for key in ["nginx", "supervisord", "node"] {
        if machine[key].is_string() {
            text += &format!(", {key} {}", word(key).trim_start_matches("nginx/"));
        }
    }
    text + &format!("; load before {}\n", word("load_before"))
}
