//! Which files start programs, open files or read clocks.
//!
//! Decisions are pure; I/O is at the border. A file that is not listed here takes what it needs from
//! `host` or from a driver. A new line in a list is a decision that a reviewer sees.

use super::Source;

/// Words of code, what they do, and the files and folders of `src` where they are allowed.
const REACHES: &[(&[&str], &str, &[&str])] = &[
    (
        &["Command::new("],
        "starts a program",
        &[
            "app/master",
            "host",
            "interface/cli/commands/boot.rs",
            // The parser of the command line, not a program.
            "interface/cli/commands/completions.rs",
        ],
    ),
    (
        &["std::fs", "tokio::fs", "File::open(", "OpenOptions::new("],
        "opens files",
        &[
            "app",
            "config/load.rs",
            "config/regular.rs",
            "config/trust.rs",
            "control/server.rs",
            "demo",
            "driver",
            "host",
            "interface/cli",
            "models",
            "prove/chaos.rs",
            "prove/target.rs",
            "proxy/access_log.rs",
            "proxy/replay_notes.rs",
            "render/instance.rs",
            "service/logs/tail.rs",
            "service/monitor/log_bound.rs",
            "service/places.rs",
            "service/verbs/failed_logs.rs",
            "service/view.rs",
            "store",
        ],
    ),
    // tokio's clock, which tests can stop; a lint forbids the one of `std`.
    (
        &["Instant::now("],
        "reads the clock of the timers",
        &[
            "app",
            "demo",
            "driver",
            "host",
            "proxy",
            "service/instance/actor.rs",
        ],
    ),
    (
        &["clock_gettime", "SystemTime::now("],
        "reads a clock",
        &["demo/log.rs", "host"],
    ),
];

/// Breaches of one source file, a line each.
pub fn breaches(source: &Source) -> Vec<String> {
    let mut found = Vec::new();
    for (words, what, places) in REACHES {
        if places.iter().any(|place| source.path.starts_with(place)) {
            continue;
        }
        let lines = source.code.lines().enumerate();
        let lines = lines.filter(|(_, line)| words.iter().any(|word| line.contains(word)));
        found.extend(lines.map(|(n, _)| format!("{}:{}: {what}", source.name(), n + 1)));
    }
    found
}
