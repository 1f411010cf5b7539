//! Which run folder a config file with faults still names: there lies what tells which settings are in force.
//!
//! It guesses nothing: a file that may name another folder further down than it can be read names none.

use std::path::{Path, PathBuf};

use toml::de::DeTable;

use super::env::Env;
use super::load::{find, run_folder};
use super::reader::{Faults, Section};

/// The run folder, whatever else is wrong with the file; `None`: it cannot be told.
#[must_use]
pub fn run_of_faulty(explicit: Option<&Path>, env: &Env) -> Option<PathBuf> {
    let text = find(explicit, env).ok()?.map(|(_, text)| text).unwrap_or_default();
    let head = readable(&text);
    let table = DeTable::parse(head).ok()?.into_inner();
    let faults = Faults::new(head);
    let root = Section::root(&faults, &table);
    let said = env.os("ACC_RUN").is_some() || root.line_of("run").is_some();
    if !said && text.get(head.len()..)?.lines().any(may_name_run) {
        return None;
    }
    run_folder(&root, env, &faults).filter(|_| faults.is_empty())
}

/// The lines before the first that is not TOML.
fn readable(text: &str) -> &str {
    let mut head = text;
    while let Err(e) = DeTable::parse(head) {
        let at = e.span().map_or(head.len(), |span| span.start).min(head.len().saturating_sub(1));
        let end = head.get(..at).and_then(|before| before.rfind('\n')).map_or(0, |newline| newline + 1);
        head = head.get(..end).unwrap_or_default();
    }
    head
}

fn may_name_run(line: &str) -> bool {
    let line = line.trim_start().trim_start_matches(['"', '\'']);
    line.strip_prefix("run").is_some_and(|rest| !rest.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_can_be_told_is_told_and_nothing_is_guessed() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("acc.toml");
        let run = |text: &str| {
            std::fs::write(&file, text).unwrap();
            run_of_faulty(Some(&file), &Env::bare(0, dir.path()))
        };
        for text in [
            "run = \"/a/run\"\n[idle]\ntimeout = \"soon\"\n",
            "run = \"/a/run\"\nhome = \"relative\"\nnonsense = 1\n",
            "run = \"/a/run\"\n[idle\ntimeout = \"5m\"\n",
            "run = \"/a/run\"\n[idle]\ntimeout = \"5m\nrun = \"/b\"\n",
            "home = \"/a/home\"\nrun = \"/a/run\"\n[idle]\nrunning = 1\ntimeout = 5m\n[edge]\nx = '''\n",
        ] {
            assert_eq!(run(text), Some("/a/run".into()), "{text}");
        }
        for text in ["[idle]\ntimeout = soon\n", "home = \"/a\nrunning = 3\n", "", "=", "= \"\n\n"] {
            assert_eq!(run(text), Some("/run/acc".into()), "{text}");
        }
        for text in ["run = \"/a/run\n", "home = \"/a\nrun = \"/a/run\"\n", "x = \n \"run\" = \"/a\"", "run = 5\n", "run = \"relative\"\n"]
        {
            assert_eq!(run(text), None, "{text}");
        }
        std::fs::write(&file, "home = \"/a\nrun = \"/a/run\"\n").unwrap();
        assert_eq!(run_of_faulty(Some(&file), &Env::bare(0, dir.path()).with("ACC_RUN", "/b/run")), Some("/b/run".into()));
        assert_eq!(run_of_faulty(Some(&dir.path().join("missing")), &Env::bare(0, dir.path())), None);
    }
}
