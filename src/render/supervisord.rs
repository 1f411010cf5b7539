//! supervisord's texts: its own configuration, and a section for each instance and service.
//!
//! An instance writes to its log itself: `/bin/sh -c 'exec "$@" >>"$0" 2>&1' LOG …` opens it. Through a pipe of supervisord's it
//! would meet a broken one at its next line after supervisord has died, and many applications answer nothing any more then.
//!
//! A value on its way to the process goes through up to five readers, each with its own special characters: the INI parser
//! (` ;` and ` #` begin a comment, lines end), a textual search for the placeholder of the folder (`(here)` after a percent sign), `%` formatting,
//! the shell-like splitter of Python, and `env -S`. All that is known of them is here; nothing else writes these files. What
//! they cannot carry is refused, never altered.
//!
//! Its command is run as `env -i -S '…'`: its environment is exactly its own, whatever supervisord has in its environment or
//! adds to it. Values travel in variables of supervisord's `environment` under names made here and are put together by
//! `env`, since values may be secrets and command lines are for everybody to read. Only characters that the splitter of
//! `environment` cannot carry (quotes, `%`, `;`, `#`, line ends) stand in the command line, for the millisecond that
//! `env` lives.

use std::path::Path;

use serde::Serialize;

use super::{RenderError, Templates};

/// Longest single argument that Linux passes to a program, with room for what is added.
const ARGUMENT_MAX: usize = 120_000;

/// What `/bin/sh` is told: the log is its argument 0, the command are the others. A constant, nothing is put into it.
const INTO_LOG: &str = "exec \"$@\" >>\"$0\" 2>&1";

/// Stands for nothing in a value that goes through `%` formatting; it parts characters that would mean something together.
const NOTHING: &str = "%(here).0s";

/// A text for supervisord could not be made.
#[derive(Debug, thiserror::Error)]
pub enum SectionError {
    /// supervisord cannot carry this value.
    #[error("supervisord cannot pass on {what}: {why}")]
    Unfit {
        /// Which value (never the value itself: it may be a secret).
        what: String,
        /// The reason.
        why: &'static str,
    },
    /// The template is at fault.
    #[error(transparent)]
    Template(#[from] RenderError),
}

/// What supervisord's own configuration needs.
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

/// What the section of an instance needs.
#[derive(Debug, Clone, Copy)]
pub struct ProgramText<'a> {
    /// Name of the section.
    pub name: &'a str,
    /// The program `env`.
    pub env_program: &'a Path,
    /// The program to become.
    pub program: &'a Path,
    /// Its arguments, without argument 0.
    pub args: &'a [String],
    /// Its whole environment.
    pub env: &'a [(String, String)],
    /// Its working directory.
    pub dir: &'a Path,
    /// Its log.
    pub log: &'a Path,
    /// Number of its stop signal.
    pub stop_signal: i32,
    /// Seconds until supervisord kills it by itself.
    pub stop_wait: u64,
    /// User to run as.
    pub user: Option<&'a str>,
}

/// What the section of a service needs.
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
    /// Start it together with supervisord; not when one runs already that has outlived an earlier supervisord.
    pub autostart: bool,
}

/// `supervisord.conf`.
pub fn daemon(templates: &Templates, text: &DaemonText<'_>) -> Result<String, SectionError> {
    #[derive(Serialize)]
    struct Values {
        dir: String,
        socket: String,
        pid_file: String,
        log: String,
        root: bool,
    }
    if path_text("its folder", text.dir)?.contains(['*', '?', '[']) {
        return Err(unfit("its folder", "it includes files by pattern, and one of `*?[` is in the name"));
    }
    let values = Values {
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
    struct Values<'a> {
        name: &'a str,
        command: String,
        environment: String,
        dir: String,
        user: String,
        stop_signal: i32,
        stop_wait: u64,
    }
    let shim = Shim::new(text)?;
    let values = Values {
        name: text.name,
        command: format!(
            "/bin/sh -c {} {} {} -i -S {}",
            word("its shell's words", INTO_LOG)?,
            word("its log", path_text("its log", text.log)?)?,
            word("the program `env`", path_text("the program `env`", text.env_program)?)?,
            shim.split
        ),
        environment: shim.environment,
        dir: plain("its working directory", path_text("its working directory", text.dir)?)?,
        user: text.user.map(|user| plain("its user", user)).transpose()?.unwrap_or_default(),
        stop_signal: text.stop_signal,
        stop_wait: text.stop_wait,
    };
    Ok(templates.render("supervisord/program.conf", &values)?)
}

/// `services/NAME.conf`.
pub fn service(templates: &Templates, text: &ServiceText<'_>) -> Result<String, SectionError> {
    #[derive(Serialize)]
    struct Values<'a> {
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
    let values = Values {
        name: text.name,
        command,
        stop_signal: text.stop_signal,
        stop_wait: text.stop_wait,
        log: log(text.log)?,
        autostart: text.autostart,
    };
    Ok(templates.render("supervisord/service.conf", &values)?)
}

/// The two halves of an instance's command: what `env -S` splits, and the variables it puts values together from.
struct Shim {
    split: String,
    environment: String,
}

impl Shim {
    fn new(text: &ProgramText<'_>) -> Result<Self, SectionError> {
        let mut pieces: Vec<String> = Vec::new();
        let mut words: Vec<String> = Vec::new();
        for (name, value) in text.env {
            let what = format!("variable `{}`", name.escape_default());
            let value = put_together(&what, value, &mut pieces)?;
            words.push(format!("\"{}={value}\"", split_escape(&what, name)?));
        }
        let program = path_text("its program", text.program)?;
        if program.contains('=') {
            return Err(unfit("its program", "`env` takes a path with `=` for a variable"));
        }
        words.push(format!("\"{}\"", split_escape("its program", program)?));
        for (number, arg) in text.args.iter().enumerate() {
            words.push(format!("\"{}\"", split_escape(&format!("argument {}", number + 1), arg)?));
        }
        let split = words.join(" ");
        if split.len() > ARGUMENT_MAX || pieces.iter().any(|piece| piece.len() > ARGUMENT_MAX) {
            return Err(unfit("its command and environment", "together they are too long"));
        }
        let pieces = pieces.iter().enumerate().map(|(n, piece)| format!("ACC{n}=\"{piece}\""));
        // For `env` alone: in any other locale than this it reads a dozen files first.
        let environment: Vec<String> = std::iter::once("LC_ALL=\"C\"".to_owned()).chain(pieces).collect();
        Ok(Self { split: word("its command", &split)?, environment: environment.join(",") })
    }
}

/// A value as `env -S` shall put it together: `${ACC0}` for each piece that `environment` can carry, the rest as it is.
fn put_together(what: &str, value: &str, pieces: &mut Vec<String>) -> Result<String, SectionError> {
    let carried = |c: char| !c.is_control() && !['"', '\'', '%', ';', '#'].contains(&c);
    let mut out = String::new();
    let mut rest = value;
    while let Some(first) = rest.chars().next() {
        let end = rest.find(|c| carried(c) != carried(first)).unwrap_or(rest.len());
        let (piece, after) = rest.split_at(end);
        if carried(first) {
            out.push_str(&format!("${{ACC{}}}", pieces.len()));
            pieces.push(piece.to_owned());
        } else {
            out.push_str(&split_escape(what, piece)?);
        }
        rest = after;
    }
    Ok(out)
}

/// A text within double quotes of `env -S`.
fn split_escape(what: &str, text: &str) -> Result<String, SectionError> {
    let mut out = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        match c {
            '"' | '\\' | '$' => out.extend(['\\', c]),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            '\r' => out.push_str("\\r"),
            '\x0b' => out.push_str("\\v"),
            '\x0c' => out.push_str("\\f"),
            c if c.is_control() => return Err(unfit(what, "it holds a control character")),
            c => out.push(c),
        }
    }
    Ok(out)
}

/// One word of a `command`: for the INI parser, `%` formatting and Python's `shlex.split`.
fn word(what: &str, text: &str) -> Result<String, SectionError> {
    let mut out = String::with_capacity(text.len() + 8);
    out.push('\'');
    for c in text.chars() {
        match c {
            '\'' => out.push_str("'\"'\"'"),
            // The empty pair of quotes parts what would be a comment, or the placeholder for the folder.
            ';' | '#' => out.extend(['\'', '\'', c]),
            '%' => out.push_str("%%''"),
            c if c.is_control() => return Err(unfit(what, "it holds a control character")),
            c => out.push(c),
        }
    }
    out.push('\'');
    Ok(out)
}

/// A value that no splitter reads: for the INI parser and `%` formatting.
fn plain(what: &str, text: &str) -> Result<String, SectionError> {
    if text.trim() != text || text.is_empty() {
        return Err(unfit(what, "it is empty or has blanks at an end"));
    }
    let mut out = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        match c {
            ';' | '#' => out.extend([NOTHING, &c.to_string()]),
            '%' => out.extend(["%%", NOTHING]),
            c if c.is_control() => return Err(unfit(what, "it holds a control character")),
            c => out.push(c),
        }
    }
    Ok(out)
}

/// A log file of a program: supervisord formats this value twice.
fn log(path: &Path) -> Result<String, SectionError> {
    let what = "its log";
    let once = plain(what, path_text(what, path)?)?;
    plain(what, &once)
}

fn path_text<'a>(what: &str, path: &'a Path) -> Result<&'a str, SectionError> {
    path.to_str().ok_or_else(|| unfit(what, "its path is not UTF-8"))
}

fn unfit(what: &str, why: &'static str) -> SectionError {
    SectionError::Unfit { what: what.to_owned(), why }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text<'a>(args: &'a [String], env: &'a [(String, String)]) -> ProgramText<'a> {
        ProgramText {
            name: "shop",
            env_program: Path::new("/usr/bin/env"),
            program: Path::new("/usr/bin/python3"),
            args,
            env,
            dir: Path::new("/srv/a 100% ;b"),
            log: Path::new("/srv/100%.log"),
            stop_signal: 15,
            stop_wait: 10,
            user: None,
        }
    }

    #[test]
    fn a_section_keeps_values_out_of_the_command_line() {
        let args = ["-c".to_owned(), "it's 5% ;".to_owned()];
        let env = [("TOKEN".to_owned(), "se\"cret".to_owned()), ("EMPTY".to_owned(), String::new())];
        let section = program(&Templates::new(None).unwrap(), &text(&args, &env)).unwrap();
        let command = section.lines().find(|l| l.starts_with("command")).unwrap();
        assert_eq!(
            command,
            "command = /bin/sh -c 'exec \"$@\" >>\"$0\" 2>&1' '/srv/100%%''.log' '/usr/bin/env' -i -S '\"TOKEN=${ACC0}\\\"${ACC1}\" \"EMPTY=\" \"/usr/bin/python3\" \"-c\" \
             \"it'\"'\"'s 5%%'' '';\"'"
        );
        assert!(section.contains("\nenvironment = LC_ALL=\"C\",ACC0=\"se\",ACC1=\"cret\"\n"), "{section}");
        assert!(section.contains("\ndirectory = /srv/a 100%%%(here).0s %(here).0s;b\n"), "{section}");
        assert!(!section.contains("\nuser ="), "{section}");
    }

    #[test]
    fn without_an_environment_there_is_only_that_of_env_itself() {
        let section = program(&Templates::new(None).unwrap(), &text(&[], &[])).unwrap();
        assert!(section.contains("\nenvironment = LC_ALL=\"C\"\n"), "{section}");
    }

    #[test]
    fn what_cannot_be_carried_is_refused_and_not_shown() {
        let templates = Templates::new(None).unwrap();
        let why = |args: &[&str], env: &[(&str, &str)], program_path: &str| {
            let args: Vec<String> = args.iter().map(|a| (*a).to_owned()).collect();
            let env: Vec<_> = env.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
            let text = ProgramText { program: Path::new(program_path), ..text(&args, &env) };
            program(&templates, &text).unwrap_err().to_string()
        };
        assert_eq!(why(&["a", "b\x01"], &[], "/x"), "supervisord cannot pass on argument 2: it holds a control character");
        assert_eq!(why(&[], &[("K", "secret\x1b")], "/x"), "supervisord cannot pass on variable `K`: it holds a control character");
        assert!(why(&[], &[], "/a=b").contains("its program"));
        assert!(why(&[&"x".repeat(ARGUMENT_MAX)], &[], "/x").contains("too long"));
        let dir = ProgramText { dir: Path::new("/ends with a blank "), ..text(&[], &[]) };
        assert!(program(&templates, &dir).is_err());
        let daemon_text =
            DaemonText { dir: Path::new("/a[b]"), socket: Path::new("/s"), pid_file: Path::new("/p"), log: Path::new("/l"), root: false };
        assert!(daemon(&templates, &daemon_text).is_err());
        let fine = daemon(&templates, &DaemonText { dir: Path::new("/a"), ..daemon_text }).unwrap();
        assert!(!fine.contains("user ="), "{fine}");
    }
}
