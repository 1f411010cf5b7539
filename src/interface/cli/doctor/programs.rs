//! The programs acc runs: are they there, and new enough?

use std::time::Duration;

use super::finding::{Finding, bad, ok, warn};
use crate::config::{Config, EdgeKind, SupervisorKind, trust};
use crate::host::command;

const LIMIT: Duration = Duration::from_secs(5);

/// A program and the oldest version that will do.
struct Needed {
    program: &'static str,
    argument: &'static str,
    package: &'static str,
    oldest: (u32, u32),
    /// The setting that does without it.
    instead: &'static str,
}

const NGINX: Needed = Needed {
    program: "nginx",
    argument: "-v",
    package: "nginx",
    oldest: (1, 18),
    instead: "[edge] kind = \"builtin\"",
};
const SUPERVISORD: Needed = Needed {
    program: "supervisord",
    argument: "--version",
    package: "supervisor",
    oldest: (4, 0),
    instead: "[supervisor] kind = \"builtin\"",
};

pub(super) async fn all(config: &Config) -> Vec<Finding> {
    let nginx = match config.edge.kind {
        EdgeKind::Nginx => needed(&NGINX).await,
        EdgeKind::Builtin => ok("edge: builtin, nginx is not needed"),
    };
    let supervisord = match config.supervisor {
        SupervisorKind::Supervisord => needed(&SUPERVISORD).await,
        SupervisorKind::Builtin => ok("supervisor: builtin, supervisord is not needed"),
    };
    let mut findings = vec![nginx, supervisord, python().await];
    if config.edge.kind == EdgeKind::Nginx
        && let Ok(built) = ask(NGINX.program, "-V").await
    {
        findings.push(interim(&built, config));
    }
    findings
}

/// nginx takes an answer with a status of 1xx for a whole one and passes on whatever follows it: to
/// a proxy before it that may be the next visitor's answer.
fn interim(built: &str, config: &Config) -> Finding {
    if !built.contains("http_sub_module") {
        let hint = format!(
            "run `apt install {}`, or set {} in the config",
            NGINX.package, NGINX.instead
        );
        return bad(
            "`nginx` was built without its sub module (`http_sub_module`), which acc's configuration uses",
            hint,
        );
    }
    let own = config
        .edge
        .templates
        .as_ref()
        .map(|dir| dir.join("nginx/nginx.conf"));
    match own.and_then(|file| Some((trust::read_to_string(&file).ok()?, file))) {
        Some((text, file)) if !text.contains("sub_filter $acc_no_") => warn(
            format!(
                "with the template `{}`, an application can send a 1xx answer to another application's visitor if a proxy is in front of nginx",
                file.display()
            ),
            "copy the lines with `acc_no_` from acc's template, or terminate TLS in nginx",
        ),
        _ => ok(
            "1xx answers of applications: nginx passes them on, and acc's template makes them unreadable",
        ),
    }
}

/// Only the model `python-http` needs it.
pub(super) async fn python() -> Finding {
    match ask("python3", "--version").await {
        Ok(said) => ok(format!(
            "python3 {}",
            version(&said).map_or_else(|| "of unknown version".to_owned(), |v| v.text)
        )),
        Err(why) => warn(
            why,
            "run `apt install python3` to use the model `python-http`",
        ),
    }
}

async fn needed(n: &Needed) -> Finding {
    judge(n, ask(n.program, n.argument).await)
}

/// What the program says of itself, or why it could not be asked.
async fn ask(program: &str, argument: &str) -> Result<String, String> {
    let argv = [program.to_owned(), argument.to_owned()];
    let output = command::run(&argv, LIMIT)
        .await
        .map_err(|e| crate::service::error::chain(&e))?;
    // nginx says its version on standard error.
    Ok(format!("{}{}", output.stdout, output.stderr))
}

fn judge(n: &Needed, said: Result<String, String>) -> Finding {
    let (major, minor) = n.oldest;
    let hint = format!(
        "run `apt install {}`, or set {} in the config",
        n.package, n.instead
    );
    let said = match said {
        Ok(said) => said,
        Err(why) => return bad(why, hint),
    };
    match version(&said) {
        Some(v) if v.number >= n.oldest => ok(format!("{} {}", n.program, v.text)),
        Some(v) => bad(
            format!(
                "`{}` is too old: {}, at least {major}.{minor} is needed",
                n.program, v.text
            ),
            hint,
        ),
        None => bad(
            format!(
                "`{}` does not report its version: {}",
                n.program,
                said.lines().next().unwrap_or("no output")
            ),
            hint,
        ),
    }
}

#[derive(Debug, PartialEq, Eq)]
struct ProgramVersion {
    number: (u32, u32),
    text: String,
}

/// The first version number in the text, such as "1.22.1".
fn version(said: &str) -> Option<ProgramVersion> {
    said.split(|c: char| !c.is_ascii_digit() && c != '.')
        .find_map(|word| {
            let mut parts = word.split('.');
            let number = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
            Some(ProgramVersion {
                number,
                text: word.trim_end_matches('.').to_owned(),
            })
        })
}

#[cfg(test)]
mod tests {
    use super::super::finding::Level;
    use super::*;

    #[test]
    fn versions_are_read_as_programs_print_them() {
        for (said, number, text) in [
            ("nginx version: nginx/1.22.1\n", (1, 22), "1.22.1"),
            ("4.2.5\n", (4, 2), "4.2.5"),
            ("Python 3.11.2", (3, 11), "3.11.2"),
            (
                "nginx version: openresty/1.25.3.1 (Ubuntu)",
                (1, 25),
                "1.25.3.1",
            ),
        ] {
            assert_eq!(
                version(said),
                Some(ProgramVersion {
                    number,
                    text: text.to_owned()
                }),
                "{said}"
            );
        }
        assert_eq!(version("no number 7 here"), None);
    }

    #[test]
    fn an_answer_without_an_end_is_spoken_of() {
        let dir = tempfile::tempdir().unwrap();
        let mut config =
            crate::config::parse("", None, &crate::config::env::Env::bare(0, "/srv")).unwrap();
        let built = "nginx version: nginx/1.22.1\nconfigure arguments: --with-http_sub_module\n";
        assert_eq!(interim(built, &config).level, Level::Ok);
        assert_eq!(
            interim(
                "nginx version: nginx/1.22.1\nconfigure arguments:\n",
                &config
            )
            .level,
            Level::Bad
        );
        config.edge.templates = Some(dir.path().to_owned());
        assert_eq!(
            interim(built, &config).level,
            Level::Ok,
            "acc's own template is in force"
        );
        std::fs::create_dir(dir.path().join("nginx")).unwrap();
        for (text, level) in [
            ("events {}", Level::Warn),
            ("sub_filter $acc_no_h \"\";", Level::Ok),
        ] {
            std::fs::write(dir.path().join("nginx/nginx.conf"), text).unwrap();
            assert_eq!(interim(built, &config).level, level, "{text}");
        }
    }

    #[test]
    fn old_missing_and_mute_programs_are_bad() {
        assert_eq!(
            judge(&NGINX, Ok("nginx/1.18.0".to_owned())).level,
            Level::Ok
        );
        let old = judge(&NGINX, Ok("nginx/1.14.2".to_owned()));
        assert_eq!(
            (old.level, old.what.as_str()),
            (
                Level::Bad,
                "`nginx` is too old: 1.14.2, at least 1.18 is needed"
            )
        );
        assert!(old.hint.contains("apt install nginx") && old.hint.contains("builtin"));
        assert_eq!(
            judge(&SUPERVISORD, Ok("3.3.5".to_owned())).level,
            Level::Bad
        );
        assert_eq!(judge(&SUPERVISORD, Ok(String::new())).level, Level::Bad);
        assert_eq!(
            judge(
                &SUPERVISORD,
                Err("`supervisord` is not installed".to_owned())
            )
            .level,
            Level::Bad
        );
    }
}
