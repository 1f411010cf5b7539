//! supervisord's texts: its own configuration, and a section for each instance and service.
//!
//! A value for supervisord passes through several parsers, each with its own special characters:
//! the INI parser (` ;` and ` #` begin a comment, lines end), a textual search for the placeholder
//! of the folder (`(here)` after a percent sign), `%` formatting, and Python's shell-like splitter.
//! All that is known about them is here; nothing else writes these files. A value that they cannot
//! represent is refused, never altered. Values for instances do not pass this way: see
//! `driver::supervisor::supervisord`'s launcher.

use std::path::Path;

use serde::Serialize;

use super::{RenderError, Templates};

/// Expands to nothing in `%` formatting; it separates characters that would have a meaning
/// together.
const NOTHING: &str = "%(here).0s";

/// A text for supervisord could not be made.
#[derive(Debug, thiserror::Error)]
pub enum SectionError {
    /// supervisord cannot represent this value.
    #[error("supervisord cannot pass on {what}: {why}")]
    Unfit {
        /// What the value is for (never the value itself: it may be a secret).
        what: String,
        /// The reason.
        why: &'static str,
    },
    /// The template has a fault.
    #[error(transparent)]
    Template(#[from] RenderError),
}

/// The values of supervisord's own configuration.
#[derive(Debug, Clone, Copy)]
pub struct DaemonText<'a> {
    /// Folder of the configuration.
    pub dir: &'a Path,
    /// Its XML-RPC socket.
    pub socket: &'a Path,
    /// Its pid file.
    pub pid_file: &'a Path,
    /// Its own log.
    pub log: &'a Path,
    /// It runs as root.
    pub root: bool,
}

/// The values of an instance's section.
#[derive(Debug, Clone, Copy)]
pub struct ProgramText<'a> {
    /// Name of the section.
    pub name: &'a str,
    /// Program and first arguments of its launcher.
    pub launcher: &'a [String],
    /// The request for the launcher: its last argument.
    pub spec: &'a Path,
    /// Number of its stop signal.
    pub stop_signal: i32,
    /// Seconds until supervisord kills it by itself.
    pub stop_wait: u64,
}

/// The values of a service's section.
#[derive(Debug, Clone, Copy)]
pub struct ServiceText<'a> {
    /// Name of the section.
    pub name: &'a str,
    /// The program.
    pub program: &'a Path,
    /// Its arguments, without argument 0.
    pub args: &'a [String],
    /// Its log.
    pub log: &'a Path,
    /// Number of its stop signal.
    pub stop_signal: i32,
    /// Seconds until supervisord kills it by itself.
    pub stop_wait: u64,
    /// Start it together with supervisord; not if one is running that outlived an earlier
    /// supervisord.
    pub autostart: bool,
}

/// `supervisord.conf`.
pub fn daemon(templates: &Templates, text: &DaemonText<'_>) -> Result<String, SectionError> {
    #[derive(Serialize)]
    struct DaemonValues {
        dir: String,
        socket: String,
        pid_file: String,
        log: String,
        root: bool,
    }
    if path_text("its folder", text.dir)?.contains(['*', '?', '[']) {
        return Err(unfit(
            "its folder",
            "its name contains one of `*?[`, which supervisord would take as a pattern",
        ));
    }
    let values = DaemonValues {
        dir: plain("its folder", path_text("its folder", text.dir)?)?,
        socket: plain("its socket", path_text("its socket", text.socket)?)?,
        pid_file: plain("its pid file", path_text("its pid file", text.pid_file)?)?,
        log: plain("its log", path_text("its log", text.log)?)?,
        root: text.root,
    };
    Ok(templates.render("supervisord/supervisord.conf", &values)?)
}

/// `programs/NAME.conf`.
pub fn program(templates: &Templates, text: &ProgramText<'_>) -> Result<String, SectionError> {
    #[derive(Serialize)]
    struct ProgramValues<'a> {
        name: &'a str,
        command: String,
        stop_signal: i32,
        stop_wait: u64,
    }
    let mut command = String::new();
    for given in text.launcher {
        command.push_str(&word("its launcher", given)?);
        command.push(' ');
    }
    command.push_str(&word(
        "its launcher's file",
        path_text("its launcher's file", text.spec)?,
    )?);
    let values = ProgramValues {
        name: text.name,
        command,
        stop_signal: text.stop_signal,
        stop_wait: text.stop_wait,
    };
    Ok(templates.render("supervisord/program.conf", &values)?)
}

/// `services/NAME.conf`.
pub fn service(templates: &Templates, text: &ServiceText<'_>) -> Result<String, SectionError> {
    #[derive(Serialize)]
    struct ServiceValues<'a> {
        name: &'a str,
        command: String,
        stop_signal: i32,
        stop_wait: u64,
        log: String,
        autostart: bool,
    }
    let mut command = word("its program", path_text("its program", text.program)?)?;
    for (number, arg) in text.args.iter().enumerate() {
        command.push(' ');
        command.push_str(&word(&format!("argument {}", number + 1), arg)?);
    }
    let values = ServiceValues {
        name: text.name,
        command,
        stop_signal: text.stop_signal,
        stop_wait: text.stop_wait,
        log: log(text.log)?,
        autostart: text.autostart,
    };
    Ok(templates.render("supervisord/service.conf", &values)?)
}

/// Quotes one word of a `command`: for the INI parser, `%` formatting and Python's `shlex.split`.
fn word(what: &str, text: &str) -> Result<String, SectionError> {
    let mut out = String::with_capacity(text.len() + 8);
    out.push('\'');
    for c in text.chars() {
        match c {
            '\'' => out.push_str("'\"'\"'"),
            // The empty pair of quotes separates characters that would begin a comment or the
            // placeholder for the folder.
            ';' | '#' => out.extend(['\'', '\'', c]),
            '%' => out.push_str("%%''"),
            c if c.is_control() => return Err(unfit(what, "it contains a control character")),
            c => out.push(c),
        }
    }
    out.push('\'');
    Ok(out)
}

/// Quotes a value without a splitter: for the INI parser and `%` formatting.
fn plain(what: &str, text: &str) -> Result<String, SectionError> {
    if text.trim() != text || text.is_empty() {
        return Err(unfit(what, "it is empty, or begins or ends with a blank"));
    }
    let mut out = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        match c {
            ';' | '#' => out.extend([NOTHING, &c.to_string()]),
            '%' => out.extend(["%%", NOTHING]),
            c if c.is_control() => return Err(unfit(what, "it contains a control character")),
            c => out.push(c),
        }
    }
    Ok(out)
}

/// Quotes the log file of a program: supervisord formats this value twice.
fn log(path: &Path) -> Result<String, SectionError> {
    let what = "its log";
    let once = plain(what, path_text(what, path)?)?;
    plain(what, &once)
}

fn path_text<'a>(what: &str, path: &'a Path) -> Result<&'a str, SectionError> {
    path.to_str()
        .ok_or_else(|| unfit(what, "its path is not UTF-8"))
}

fn unfit(what: &str, why: &'static str) -> SectionError {
    SectionError::Unfit {
        what: what.to_owned(),
        why,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_section_names_the_launcher_and_its_file() {
        let launcher = ["/opt/a 100% ;b/acc".to_owned(), "launch".to_owned()];
        let spec = Path::new("/srv/it's #1.json");
        let text = ProgramText {
            name: "shop",
            launcher: &launcher,
            spec,
            stop_signal: 15,
            stop_wait: 10,
        };
        let section = program(&Templates::new(None).unwrap(), &text).unwrap();
        let command = section.lines().find(|l| l.starts_with("command")).unwrap();
        assert_eq!(
            command,
            "command = '/opt/a 100%%'' '';b/acc' 'launch' '/srv/it'\"'\"'s ''#1.json'"
        );
    }

    #[test]
    fn what_cannot_be_carried_is_refused() {
        let templates = Templates::new(None).unwrap();
        let odd = ["/x".to_owned(), "b\x01".to_owned()];
        let text = ProgramText {
            name: "shop",
            launcher: &odd,
            spec: Path::new("/s"),
            stop_signal: 15,
            stop_wait: 10,
        };
        let why = program(&templates, &text).unwrap_err().to_string();
        assert_eq!(
            why,
            "supervisord cannot pass on its launcher: it contains a control character"
        );
        let daemon_text = DaemonText {
            dir: Path::new("/a[b]"),
            socket: Path::new("/s"),
            pid_file: Path::new("/p"),
            log: Path::new("/l"),
            root: false,
        };
        assert!(daemon(&templates, &daemon_text).is_err());
        assert!(
            daemon(
                &templates,
                &DaemonText {
                    dir: Path::new("/ends with a blank "),
                    ..daemon_text
                }
            )
            .is_err()
        );
        let fine = daemon(
            &templates,
            &DaemonText {
                dir: Path::new("/a"),
                ..daemon_text
            },
        )
        .unwrap();
        assert!(!fine.contains("user ="), "{fine}");
    }
}
