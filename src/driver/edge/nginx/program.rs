//! The program `nginx`: its path, its version, and what it reports about a configuration.
//!
//! It runs helpers to their end, in bounded time, without a shell. It never starts the nginx that
//! serves.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::driver::edge::EdgeError;
use crate::host::command::{self, Output, PATH, is_executable};
use crate::host::error_chain::chain;

/// Oldest version that the configuration supports.
pub const OLDEST: NginxVersion = NginxVersion(1, 18, 0);

/// nginx reads a configuration with 100,000 hosts in a fifth of a second; a minute allows for a
/// busy host.
const CHECK_LIMIT: Duration = Duration::from_secs(60);
const VERSION_LIMIT: Duration = Duration::from_secs(10);

/// A version of nginx.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct NginxVersion(pub u32, pub u32, pub u32);

impl std::fmt::Display for NginxVersion {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}.{}", self.0, self.1, self.2)
    }
}

/// Folders in which to find the program. Fixed, so that cron, systemd and a shell find the same
/// one.
pub fn search_path() -> Vec<PathBuf> {
    PATH.split(':')
        .chain(["/usr/local/nginx/sbin"])
        .map(PathBuf::from)
        .collect()
}

/// Finds the first executable `nginx` in these folders.
pub fn find(search: &[PathBuf]) -> Result<PathBuf, EdgeError> {
    search.iter().map(|dir| dir.join("nginx")).find(|path| is_executable(path)).ok_or_else(|| {
        EdgeError::Unusable("`nginx` is not installed: install it (Debian: apt install nginx) or set edge.kind to \"builtin\"".into())
    })
}

/// Reads the program's version.
pub async fn version(program: &Path) -> Result<NginxVersion, EdgeError> {
    let ended = run(program, &["-v"], VERSION_LIMIT).await?;
    parse_version(&ended.stderr).ok_or_else(|| {
        EdgeError::Unusable(format!(
            "`{}` does not report its version: {}",
            program.display(),
            first_line(&ended.stderr)
        ))
    })
}

/// Refuses a version that is too old.
pub async fn require(program: &Path) -> Result<NginxVersion, EdgeError> {
    let found = version(program).await?;
    if found < OLDEST {
        return Err(EdgeError::Unusable(format!(
            "`{}` is version {found}, acc needs {OLDEST} or later: upgrade it or set edge.kind to \"builtin\"",
            program.display()
        )));
    }
    Ok(found)
}

/// Has nginx check the configuration; `Ok(Err(why))`: it refuses it.
pub async fn check(program: &Path, file: &Path) -> Result<Result<(), String>, EdgeError> {
    let path = file.to_string_lossy();
    let ended = run(program, &["-t", "-q", "-c", &path], CHECK_LIMIT).await?;
    if ended.success() {
        Ok(Ok(()))
    } else {
        Ok(Err(complaint(&ended.stderr, file)))
    }
}

/// What nginx complains about, with the line it refers to.
fn complaint(said: &str, file: &Path) -> String {
    let line = said
        .lines()
        .find(|l| l.contains("[emerg]"))
        .or_else(|| said.lines().find(|l| !l.trim().is_empty()))
        .unwrap_or("no reason given");
    let why = line.split_once(": ").map_or(line, |(_, why)| why).trim();
    let number = why
        .rsplit_once(':')
        .and_then(|(_, n)| n.parse::<usize>().ok());
    let text = number.and_then(|n| {
        std::fs::read_to_string(file)
            .ok()?
            .lines()
            .nth(n.checked_sub(1)?)
            .map(|l| l.trim().to_owned())
    });
    match text {
        Some(text) if !text.is_empty() => format!("{why} (`{text}`)"),
        _ => why.to_owned(),
    }
}

fn parse_version(said: &str) -> Option<NginxVersion> {
    let text = said
        .lines()
        .find_map(|l| l.split_once("version: ")?.1.split_once('/'))?
        .1;
    let mut parts = text.split(|c: char| !c.is_ascii_digit()).map(str::parse);
    let mut part = || parts.next()?.ok();
    Some(NginxVersion(part()?, part()?, part()?))
}

/// Runs the program to its end. nginx writes all messages to standard error.
async fn run(program: &Path, args: &[&str], limit: Duration) -> Result<Output, EdgeError> {
    let argv: Vec<String> = [program.to_string_lossy().as_ref()]
        .iter()
        .chain(args)
        .map(|word| (*word).to_owned())
        .collect();
    command::run(&argv, limit)
        .await
        .map_err(|e| EdgeError::Unusable(chain(&e)))
}

fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or("nothing")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_versions() {
        assert_eq!(
            parse_version("nginx version: nginx/1.22.1\n"),
            Some(NginxVersion(1, 22, 1))
        );
        assert_eq!(
            parse_version("nginx version: nginx/1.18.0 (Ubuntu)"),
            Some(NginxVersion(1, 18, 0))
        );
        assert_eq!(
            parse_version("nginx version: openresty/1.21.4.1"),
            Some(NginxVersion(1, 21, 4))
        );
        assert_eq!(parse_version("no such thing"), None);
        assert_eq!(parse_version("nginx version: nginx/x"), None);
        assert!(
            NginxVersion(1, 9, 15) < OLDEST
                && NginxVersion(1, 18, 0) >= OLDEST
                && NginxVersion(2, 0, 0) > OLDEST
        );
    }

    #[test]
    fn a_complaint_carries_the_line() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("nginx.conf");
        std::fs::write(&file, "a;\n  bogus line;\n").unwrap();
        let said = format!(
            "2026/01/01 00:00:00 [emerg] 1#1: unknown directive \"bogus\" in {}:2\n",
            file.display()
        );
        assert_eq!(
            complaint(&said, &file),
            format!(
                "unknown directive \"bogus\" in {}:2 (`bogus line;`)",
                file.display()
            )
        );
        let plain = "nginx: [emerg] bind() to 127.0.0.1:80 failed (13: Permission denied)\nx";
        assert_eq!(
            complaint(plain, &file),
            "[emerg] bind() to 127.0.0.1:80 failed (13: Permission denied)"
        );
        assert_eq!(complaint("", &file), "no reason given");
    }
}
