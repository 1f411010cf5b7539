//! Checks whether a program can be run: before every start, and again after a failed one. The error
//! says what is wrong and where.
//!
//! It changes nothing. If the answer is outdated a moment later, the start fails.

use std::io;
use std::path::PathBuf;

use crate::host::command::{PATH, find_program, is_executable};
use crate::host::spawn::{self, UserIds};

use super::{Program, Service, SupervisorError, exec, program_path};

/// The file to execute for this program, after all checks that are possible before a start.
pub(super) fn executable(program: &Program) -> Result<PathBuf, SupervisorError> {
    find(program).map_err(|why| SupervisorError::NotStarted {
        name: program.name.to_string(),
        why,
    })
}

/// The file to execute for one of acc's services.
pub(super) fn service(service: &Service) -> Result<PathBuf, SupervisorError> {
    let name = service.argv.first().cloned().unwrap_or_default();
    let path = if name.contains('/') {
        Some(PathBuf::from(&name))
    } else {
        find_program(&name)
    };
    let failed = |why: String| SupervisorError::NotStarted {
        name: service.name.to_owned(),
        why,
    };
    match path {
        Some(path) if is_executable(&path) => Ok(path),
        Some(path) if path.exists() => Err(failed(format!(
            "its program `{}` is not executable",
            path.display()
        ))),
        Some(path) => Err(failed(format!(
            "its program `{}`: no such file or directory",
            path.display()
        ))),
        None => Err(failed(format!("its program `{name}` is not in `{PATH}`"))),
    }
}

/// The user to run as: acc's own unless acc is root.
pub(super) fn user(program: &Program) -> Result<Option<UserIds>, SupervisorError> {
    let failed = |why: String| SupervisorError::NotStarted {
        name: program.name.to_string(),
        why,
    };
    match program.account.name() {
        Some(user) if spawn::may_change_user() => match spawn::user_ids(user) {
            Ok(Some(ids)) => Ok(Some(ids)),
            Ok(None) => Err(failed(format!("there is no user `{user}`"))),
            Err(e) => Err(failed(format!("could not look up user `{user}`: {e}"))),
        },
        _ => Ok(None),
    }
}

/// Why this program could not be run; includes likely reasons.
pub(super) fn explain(program: &Program) -> Option<String> {
    match find(program) {
        Err(why) => Some(why),
        Ok(path) => exec::likely(program, &path, user(program).ok()?),
    }
}

fn find(program: &Program) -> Result<PathBuf, String> {
    let path = program_path::named(program);
    let dir = program.dir.as_path();
    match std::fs::metadata(dir) {
        Ok(found) if found.is_dir() => {}
        Ok(_) => {
            return Err(format!(
                "its working directory `{}` is not a directory",
                dir.display()
            ));
        }
        Err(e) => {
            return Err(format!(
                "its working directory `{}`: {}",
                dir.display(),
                plain(&e)
            ));
        }
    }
    let path = path?;
    match std::fs::metadata(&path) {
        Ok(found) if found.is_dir() => {
            Err(format!("its program `{}` is a directory", path.display()))
        }
        Ok(_) if !is_executable(&path) => Err(format!(
            "its program `{}` is not executable",
            path.display()
        )),
        Ok(_) => exec::sound(program, &path).map(|()| path),
        Err(e) => Err(format!("its program `{}`: {}", path.display(), plain(&e))),
    }
}

/// An I/O error without its number in parentheses.
fn plain(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => "no such file or directory".to_owned(),
        io::ErrorKind::PermissionDenied => "permission denied".to_owned(),
        _ => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::suite::program;
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    fn why(program: &Program) -> String {
        match executable(program).unwrap_err() {
            SupervisorError::NotStarted { name, why } => {
                assert_eq!(name, program.name.to_string());
                why
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn faults_name_the_file_and_the_reason() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name).display().to_string();
        let good = program("a", dir.path(), &["sh"]);
        assert_eq!(executable(&good).unwrap().file_name().unwrap(), "sh");
        std::fs::write(dir.path().join("data"), "x").unwrap();
        std::fs::write(dir.path().join("script"), "#! /no/such/interpreter -x\n").unwrap();
        std::fs::set_permissions(
            dir.path().join("script"),
            std::fs::Permissions::from_mode(0o755),
        )
        .unwrap();
        for (argv, expected) in [
            (vec![], "its command is empty".to_owned()),
            (vec![""], "its command is empty".to_owned()),
            (
                vec!["/no/such/program"],
                "its program `/no/such/program`: no such file or directory".to_owned(),
            ),
            (
                vec!["./data"],
                format!("its program `{}` is not executable", at("./data")),
            ),
            (vec!["/tmp"], "its program `/tmp` is a directory".to_owned()),
            (
                vec!["no-such-name"],
                format!("its program `no-such-name` is not in `{PATH}`"),
            ),
            (
                vec!["./script"],
                format!(
                    "the interpreter `/no/such/interpreter` of its program `{}` is missing",
                    at("./script")
                ),
            ),
            (
                vec!["sh", "a\0b"],
                "\"a\\0b\" contains a zero byte".to_owned(),
            ),
        ] {
            assert_eq!(why(&program("a", dir.path(), &argv)), expected);
        }
        let nowhere = Program {
            dir: dir.path().join("gone"),
            ..good.clone()
        };
        assert_eq!(
            why(&nowhere),
            format!(
                "its working directory `{}`: no such file or directory",
                at("gone")
            )
        );
        let file = Program {
            dir: dir.path().join("data"),
            ..good.clone()
        };
        assert_eq!(
            why(&file),
            format!("its working directory `{}` is not a directory", at("data"))
        );
        let odd = Program {
            env: vec![("A=B".to_owned(), String::new())],
            ..good
        };
        assert_eq!(
            why(&odd),
            "\"A=B\" is not a name for an environment variable"
        );
    }

    #[test]
    fn a_bare_name_is_looked_for_on_the_programs_own_path() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("bin")).unwrap();
        std::fs::write(dir.path().join("bin/sh"), "").unwrap();
        std::fs::set_permissions(
            dir.path().join("bin/sh"),
            std::fs::Permissions::from_mode(0o755),
        )
        .unwrap();
        let own = Program {
            env: vec![("PATH".to_owned(), "bin:/usr/bin".to_owned())],
            ..program("a", dir.path(), &["sh"])
        };
        assert_eq!(executable(&own).unwrap(), dir.path().join("bin/sh"));
    }
}
