//! `home`, `run` or acc's program at another place than when instances were made. What an instance
//! is run with has these paths in it, and so may its own files, which acc does not touch: so acc
//! refuses to begin with other folders than before.
//!
//! Never is anything made again from what a model has become.

use crate::config::Config;
use crate::domain::event_kind::EventKind;
use crate::domain::instance::Launch;
use crate::service::context::Context;
use crate::service::error::{ErrorKind, ServiceError};
use crate::service::events;
use crate::store::{Row, Store};

/// Refuses to begin where all instances were made for another `home` or `run`.
///
/// # Errors
/// It is so: names both places and the ways out. Or the database cannot be read.
pub fn refuse_other_places(config: &Config, store: &dyn Store) -> Result<(), ServiceError> {
    let here = format!("{} {} ", config.home.display(), config.run.display());
    let Some(key) = store
        .made_elsewhere(&here)
        .map_err(crate::service::error::store)?
    else {
        return Ok(());
    };
    let (before, now) = (
        places(&key),
        (
            config.home.display().to_string(),
            config.run.display().to_string(),
        ),
    );
    let Some([home, run, _]) = before else {
        let message = format!(
            "the instances in `{}` were created for other folders (`{key}`)",
            config.home.display()
        );
        return Err(ServiceError::new(
            ErrorKind::Denied,
            message,
            "restore the old `home` and `run` in the config",
        ));
    };
    let message = format!(
        "the instances in `{}` were created with home `{home}` and run `{run}`, but the config has home `{}` and run `{}`; their commands and \
         files contain the old paths",
        now.0, now.0, now.1
    );
    let mut ways = Vec::new();
    for (word, old, new) in [("home", home, &now.0), ("run", run, &now.1)] {
        if old != new {
            let bind = if word == "home" {
                format!(
                    " (or keep the files there and mount them at the old path: `mount --bind {new} {old}`)"
                )
            } else {
                String::new()
            };
            ways.push(format!("`{word} = \"{old}\"`{bind}"));
        }
    }
    let hint = format!(
        "set in the config: {}; nothing was changed; see \"Moving an installation\" in docs/models.md",
        ways.join(", ")
    );
    Err(ServiceError::new(ErrorKind::Denied, message, hint))
}

/// Home, run and acc's program in a key: three absolute paths with a blank between them. `None`:
/// they cannot be separated.
fn places(key: &str) -> Option<[&str; 3]> {
    let cuts: Vec<usize> = key.match_indices(" /").map(|(at, _)| at).collect();
    let [first, second] = cuts[..] else {
        return None;
    };
    Some([
        key.get(..first)?,
        key.get(first + 1..second)?,
        key.get(second + 1..)?,
    ])
}

/// The same launch, with the places of `new` where those of `old` were. `None`: it is unknown
/// which those were.
pub(super) fn carried(launch: &Launch, old: &str, new: &str) -> Option<Launch> {
    let mut pairs: Vec<(&str, &str)> = places(old)?
        .into_iter()
        .zip(places(new)?)
        .filter(|(old, new)| old != new)
        .collect();
    // The longer first: one may lie in the other.
    pairs.sort_by_key(|(old, _)| std::cmp::Reverse(old.len()));
    let follow = |text: &String| replaced(text, &pairs);
    Some(Launch {
        argv: launch.argv.iter().map(follow).collect(),
        env: launch
            .env
            .iter()
            .map(|(name, value)| (name.clone(), follow(value)))
            .collect(),
        ..launch.clone()
    })
}

/// Replaces each path, as a whole or as the beginning of a longer one.
fn replaced(text: &str, pairs: &[(&str, &str)]) -> String {
    let part_of_name = |c: char| c.is_alphanumeric() || matches!(c, '.' | '_' | '-');
    let (mut out, mut rest) = (String::with_capacity(text.len()), text);
    while let Some(next) = rest.chars().next() {
        let begins = !out.ends_with(|c| part_of_name(c) || c == '/');
        let found = pairs.iter().find(|(old, _)| {
            begins
                && rest
                    .strip_prefix(old)
                    .is_some_and(|after| !after.starts_with(part_of_name))
        });
        match found {
            Some((old, new)) => {
                out.push_str(new);
                rest = &rest[old.len()..];
            }
            None => {
                out.push(next);
                rest = &rest[next.len_utf8()..];
            }
        }
    }
    out
}

/// An event: what follows, and what does not.
pub(super) fn tell(ctx: &Context, row: &Row, key: &str) {
    let detail = format!(
        "from `{}` to `{key}`: its command and environment were updated, its files are unchanged",
        row.launch_key
    );
    events::of(ctx, row.id, &row.name, EventKind::Moved, detail);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_three_paths() {
        assert_eq!(
            places("/h a/b /run/acc /usr/bin/acc"),
            Some(["/h a/b", "/run/acc", "/usr/bin/acc"])
        );
        for unclear in ["", "/h /r", "/h /a /b /c", "k"] {
            assert_eq!(places(unclear), None, "{unclear}");
        }
    }

    #[test]
    fn only_whole_paths_follow_and_nothing_else_changes() {
        let launch = Launch {
            runner: Default::default(),
            argv: [
                "/usr/bin/acc",
                "--socket=/run/acc/sock/a",
                "/usr/bin/acc-tool",
                "/srv/usr/bin/acc",
                "/h/acc/x:/h/acc",
                "/h/accx",
            ]
            .map(str::to_owned)
            .to_vec(),
            env: vec![("A".to_owned(), "unix:/run/acc/a.sock?x".to_owned())],
            handed: true,
            notifies: false,
            health: Some("/run/acc".to_owned()),
            stop_signal: 2,
            start_timeout: None,
            stop_timeout: None,
        };
        let carried = carried(
            &launch,
            "/h/acc /run/acc /usr/bin/acc",
            "/run/acc/home /r /opt/acc",
        )
        .unwrap();
        let argv = [
            "/opt/acc",
            "--socket=/r/sock/a",
            "/usr/bin/acc-tool",
            "/srv/usr/bin/acc",
            "/run/acc/home/x:/run/acc/home",
            "/h/accx",
        ];
        assert_eq!(carried.argv, argv);
        assert_eq!(carried.env[0].1, "unix:/r/a.sock?x");
        assert_eq!(
            (
                carried.handed,
                carried.health.as_deref(),
                carried.stop_signal
            ),
            (true, Some("/run/acc"), 2)
        );
        assert_eq!(super::carried(&launch, "k", "/a /b /c"), None);
    }
}
