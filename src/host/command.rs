//! Short helper programs (`nginx -t`, `supervisord --version`): found on a fixed path, run with a
//! cleared environment and a time limit, their output captured.
//!
//! It never goes through a shell and never leaves a helper running. Long-lived programs are started
//! by `spawn`.

use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

/// Where programs are searched for. acc's own `PATH` is ignored: cron, systemd and a login shell
/// must find the same ones.
pub const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The result of a helper program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    /// Exit code; `None`: ended by a signal.
    pub code: Option<i32>,
    /// Standard output; invalid UTF-8 is replaced.
    pub stdout: String,
    /// Standard error, in the same form.
    pub stderr: String,
}

impl Output {
    /// Whether it exited with code 0.
    #[must_use]
    pub fn success(&self) -> bool {
        self.code == Some(0)
    }
}

/// A helper program could not be run to its end.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// There is no such program on [`PATH`], or no such file.
    #[error("`{0}` is not installed")]
    Missing(String),
    /// It could not be started or waited for.
    #[error("could not run `{program}`")]
    Failed {
        /// The program.
        program: String,
        /// The reason.
        #[source]
        source: io::Error,
    },
    /// It took too long and was killed.
    #[error("`{program}` did not end within {} s", .limit.as_secs_f64())]
    TooSlow {
        /// The program.
        program: String,
        /// The limit.
        limit: Duration,
    },
}

/// The program of this name on [`PATH`].
#[must_use]
pub fn find_program(name: &str) -> Option<PathBuf> {
    find_program_in(name, &[])
}

/// The program of this name on [`PATH`], else in one of the given folders.
#[must_use]
pub fn find_program_in(name: &str, more: &[&Path]) -> Option<PathBuf> {
    if name.is_empty() || name.contains('/') {
        return None;
    }
    let known = PATH.split(':').map(Path::new);
    known
        .chain(more.iter().copied())
        .map(|dir| dir.join(name))
        .find(|path| is_executable(path))
}

/// A file with an execute bit.
pub fn is_executable(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0)
}

/// Runs a program (a path, or a name on [`PATH`]) and waits for its end, at most `limit`. Its
/// environment is `PATH` and `LC_ALL=C.UTF-8`, its input empty.
pub async fn run(argv: &[String], limit: Duration) -> Result<Output, CommandError> {
    let name = argv.first().cloned().unwrap_or_default();
    let path = if name.contains('/') {
        Some(PathBuf::from(&name))
    } else {
        find_program(&name)
    };
    let path = path.ok_or_else(|| CommandError::Missing(name.clone()))?;
    let mut command = tokio::process::Command::new(&path);
    command
        .args(argv.get(1..).unwrap_or_default())
        .env_clear()
        .env("PATH", PATH)
        .env("LC_ALL", "C.UTF-8")
        .process_group(0);
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    let failed = |source: io::Error| match source.kind() {
        io::ErrorKind::NotFound => CommandError::Missing(name.clone()),
        _ => CommandError::Failed {
            program: name.clone(),
            source,
        },
    };
    let child = command.spawn().map_err(failed)?;
    match tokio::time::timeout(limit, child.wait_with_output()).await {
        Ok(Ok(output)) => Ok(Output {
            code: output.status.code(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }),
        Ok(Err(source)) => Err(failed(source)),
        Err(_) => Err(CommandError::TooSlow {
            program: name,
            limit,
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn argv(words: &[&str]) -> Vec<String> {
        words.iter().map(|w| (*w).to_owned()).collect()
    }

    #[tokio::test]
    async fn output_and_code_come_back_and_the_environment_is_clean() {
        let script = "env | sort; echo bad >&2; exit 3";
        let output = run(&argv(&["sh", "-c", script]), Duration::from_secs(20))
            .await
            .unwrap();
        assert_eq!(output.code, Some(3));
        assert!(!output.success());
        assert_eq!(output.stderr, "bad\n");
        let names: Vec<&str> = output
            .stdout
            .lines()
            .filter_map(|l| l.split('=').next())
            .collect();
        assert!(
            names
                .iter()
                .all(|n| ["LC_ALL", "PATH", "PWD", "OLDPWD", "SHLVL", "_"].contains(n)),
            "{names:?}"
        );
    }

    #[tokio::test]
    async fn what_is_missing_or_slow_is_named() {
        for missing in ["no-such-program-of-acc", "/no/such/program", ""] {
            let error = run(&argv(&[missing]), Duration::from_secs(20))
                .await
                .unwrap_err();
            assert!(
                matches!(&error, CommandError::Missing(name) if name == missing),
                "{error:?}"
            );
        }
        let error = run(&argv(&["/etc/passwd"]), Duration::from_secs(20))
            .await
            .unwrap_err();
        assert_eq!(error.to_string(), "could not run `/etc/passwd`");
        let error = run(&argv(&["sleep", "1000"]), Duration::from_millis(50))
            .await
            .unwrap_err();
        assert_eq!(error.to_string(), "`sleep` did not end within 0.05 s");
    }

    #[test]
    fn programs_are_found_on_the_fixed_path_and_in_given_folders() {
        assert!(find_program("sh").is_some());
        assert_eq!(find_program("../bin/sh"), None);
        assert_eq!(find_program("passwd.no"), None);
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("mine"), "").unwrap();
        assert_eq!(find_program_in("mine", &[dir.path()]), None);
        std::fs::set_permissions(
            dir.path().join("mine"),
            std::fs::Permissions::from_mode(0o755),
        )
        .unwrap();
        assert_eq!(
            find_program_in("mine", &[dir.path()]),
            Some(dir.path().join("mine"))
        );
    }
}
