//! The only place that prints: data to standard output, talk to standard error.
//!
//! It knows what `--json`, `-q`, `-v`, `NO_COLOR` and the kind of each stream ask for. It decides
//! nothing else.

use std::io::{self, IsTerminal, Write};

use serde::Serialize;

use super::escape;
use super::exit::CommandExit;
use crate::domain::time::WallTime;
use crate::host::clock::{Clock, SystemClock};
use crate::service::error::ServiceError;

/// How much and in which form to print.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Style {
    /// `--json`.
    pub json: bool,
    /// `-q`.
    pub quiet: bool,
    /// `-v`, counted.
    pub verbose: u8,
    /// Colours in data: standard output is a terminal and `NO_COLOR` is not set.
    pub colour: bool,
    /// Standard error is a terminal: progress may be shown.
    pub talk_to_terminal: bool,
}

impl Style {
    /// What the streams of this process are; `no_color`: the variable is set and not empty
    /// (<https://no-color.org>).
    #[must_use]
    pub fn of_process(json: bool, quiet: bool, verbose: u8, no_color: bool) -> Self {
        let colour = io::stdout().is_terminal() && !no_color;
        Self {
            json,
            quiet,
            verbose,
            colour,
            talk_to_terminal: io::stderr().is_terminal(),
        }
    }
}

/// Why a command ended early.
#[derive(Debug, thiserror::Error)]
pub enum Stop {
    /// It did not work.
    #[error(transparent)]
    Error(#[from] ServiceError),
    /// What it had to say could not be written.
    #[error("could not write the output")]
    Output(#[from] io::Error),
}

/// What a command comes to.
pub type CommandEnd = Result<CommandExit, Stop>;

/// Where a command prints.
pub struct Ui {
    out: Box<dyn Write>,
    err: Box<dyn Write>,
    /// How to print.
    pub style: Style,
    /// What time it is, for "3 min ago".
    pub now: WallTime,
    /// `out` is standard output.
    real: bool,
}

impl Ui {
    /// Prints to the streams of this process.
    #[must_use]
    pub fn of_process(style: Style) -> Self {
        Self {
            real: true,
            ..Self::new(
                Box::new(io::stdout()),
                Box::new(io::stderr()),
                style,
                SystemClock.wall(),
            )
        }
    }

    /// Prints elsewhere.
    #[must_use]
    pub fn new(out: Box<dyn Write>, err: Box<dyn Write>, style: Style, now: WallTime) -> Self {
        Self {
            out,
            err,
            style,
            now,
            real: false,
        }
    }

    /// Prints text of acc's own, in which whatever is from elsewhere was escaped.
    ///
    /// # Errors
    /// When the stream cannot be written; a broken pipe means that the reader has seen enough.
    pub fn data(&mut self, text: &str) -> io::Result<()> {
        self.bytes(text.as_bytes())
    }

    /// Prints data as it is, be it text or not.
    ///
    /// # Errors
    /// As [`Self::data`].
    pub fn bytes(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.out.write_all(bytes)?;
        self.out.flush()
    }

    /// Does a process still read the data? Checked without writing any, for a command
    /// that waits for more of it.
    #[must_use]
    pub fn is_read(&self) -> bool {
        use rustix::event::{PollFd, PollFlags, Timespec, poll};
        if !self.real {
            return true;
        }
        let stdout = io::stdout();
        let mut fds = [PollFd::new(&stdout, PollFlags::empty())];
        let polled = poll(
            &mut fds,
            Some(&Timespec {
                tv_sec: 0,
                tv_nsec: 0,
            }),
        );
        polled.is_err() || !fds[0].revents().intersects(PollFlags::ERR | PollFlags::HUP)
    }

    /// Prints a value as JSON over several lines.
    ///
    /// # Errors
    /// As [`Self::data`].
    pub fn json<T: Serialize + ?Sized>(&mut self, value: &T) -> io::Result<()> {
        let text = serde_json::to_string_pretty(value)?;
        self.data(&(escape::json(&text).into_owned() + "\n"))
    }

    /// Prints a value as JSON on one line: for commands that print one per instance.
    ///
    /// # Errors
    /// As [`Self::data`].
    pub fn json_line<T: Serialize + ?Sized>(&mut self, value: &T) -> io::Result<()> {
        let text = serde_json::to_string(value)?;
        self.data(&(escape::json(&text).into_owned() + "\n"))
    }

    /// Says what was done: a line on standard error, nothing with `-q` or `--json`.
    pub fn say(&mut self, line: &str) {
        if !self.style.quiet && !self.style.json {
            self.talk(line);
        }
    }

    /// Says what is wrong although the command goes on; also with `-q`.
    pub fn warn(&mut self, line: &str) {
        match self.style.json {
            true => self.talk(&escape::json(
                &serde_json::json!({ "warning": line }).to_string(),
            )),
            false => self.talk(&format!("warning: {line}")),
        }
    }

    /// Reports an error: two lines, or one line of JSON. Standard output stays clean either way.
    pub fn error(&mut self, error: &ServiceError) {
        if self.style.json {
            self.talk(&escape::json(
                &serde_json::json!({ "error": error }).to_string(),
            ));
            return;
        }
        self.talk(&format!("error: {}", error.message));
        if !error.hint.is_empty() {
            self.talk(&format!("hint: {}", error.hint));
        }
        if self.style.verbose > 0 {
            let exit = CommandExit::of(error.kind);
            self.talk(&format!("detail: {exit:?}, exit code {}", exit as u8));
        }
    }

    /// Ends a command: prints its error, if any, and says how to exit.
    pub fn end(&mut self, end: CommandEnd) -> CommandExit {
        match end {
            Ok(exit) => exit,
            Err(Stop::Error(error)) => {
                self.error(&error);
                CommandExit::of(error.kind)
            }
            // The reader (`| head`) has seen enough: that is not a failure.
            Err(Stop::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => {
                CommandExit::Done
            }
            Err(Stop::Output(error)) => {
                self.error(&ServiceError::because(
                    "could not write the output",
                    &error,
                    "check whether the disk is full",
                ));
                CommandExit::Failed
            }
        }
    }

    /// Talk may quote what an application said, so it is escaped wherever it goes. There is nowhere
    /// left to report that standard error cannot be written.
    fn talk(&mut self, line: &str) {
        let _ = writeln!(self.err, "{}", escape::lines(line));
        let _ = self.err.flush();
    }
}

/// Prints what the parser of the command line has to say: help and version to standard output,
/// faults to standard error.
pub fn usage(error: &clap::Error) -> CommandExit {
    // A closed pipe is no failure, and an error could not be printed either.
    let _ = error.print();
    match error.exit_code() {
        0 => CommandExit::Done,
        _ => CommandExit::Usage,
    }
}

/// Makes a panic two short lines instead of a page; `RUST_BACKTRACE` still adds the trace.
pub fn short_panics() {
    std::panic::set_hook(Box::new(|info| {
        let place = info.location().map(ToString::to_string).unwrap_or_default();
        let payload = info.payload();
        let what = payload
            .downcast_ref::<&str>()
            .copied()
            .or_else(|| payload.downcast_ref::<String>().map(String::as_str));
        let what = what.unwrap_or("no reason given");
        let mut err = io::stderr().lock();
        let _ = writeln!(err, "error: internal error at {place}: {what}");
        let _ = writeln!(
            err,
            "hint: please report it; RUST_BACKTRACE=1 adds a backtrace"
        );
        let trace = std::backtrace::Backtrace::capture();
        if trace.status() == std::backtrace::BacktraceStatus::Captured {
            let _ = writeln!(err, "{trace}");
        }
    }));
}

#[cfg(test)]
pub(super) mod testing {
    use std::sync::{Arc, Mutex};

    use super::*;

    /// What was printed.
    #[derive(Debug, Clone, Default)]
    pub(in super::super) struct Printed(Arc<Mutex<Vec<u8>>>);

    impl Printed {
        pub(in super::super) fn text(&self) -> String {
            String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
        }
    }

    impl Write for Printed {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// A `Ui` and what it prints to each stream. Its time is 2026-01-02T03:04:05Z.
    pub(in super::super) fn ui(style: Style) -> (Ui, Printed, Printed) {
        let (out, err) = (Printed::default(), Printed::default());
        let ui = Ui::new(
            Box::new(out.clone()),
            Box::new(err.clone()),
            style,
            WallTime(1_767_323_045_000),
        );
        (ui, out, err)
    }
}

#[cfg(test)]
mod tests {
    use super::testing::ui;
    use super::*;
    use crate::service::error::ErrorKind;

    fn denied() -> ServiceError {
        ServiceError::new(
            ErrorKind::Denied,
            "`shop` is waking",
            "wait for it: `acc info shop`",
        )
    }

    #[test]
    fn errors_are_two_lines() {
        let (mut ui, out, err) = ui(Style::default());
        assert_eq!(ui.end(Err(denied().into())), CommandExit::Denied);
        assert_eq!(
            err.text(),
            "error: `shop` is waking\nhint: wait for it: `acc info shop`\n"
        );
        assert_eq!(out.text(), "");
    }

    #[test]
    fn errors_in_json_are_one_line_and_not_among_the_data() {
        let (mut ui, out, err) = ui(Style {
            json: true,
            ..Style::default()
        });
        ui.error(&denied());
        let expected = r#"{"error":{"hint":"wait for it: `acc info shop`","kind":"denied","message":"`shop` is waking"}}"#;
        let read: serde_json::Value = serde_json::from_str(&err.text()).unwrap();
        assert_eq!(
            read,
            serde_json::from_str::<serde_json::Value>(expected).unwrap()
        );
        assert_eq!(err.text().lines().count(), 1);
        assert_eq!(out.text(), "");
    }

    #[test]
    fn quiet_keeps_data_and_errors() {
        let (mut ui, out, err) = ui(Style {
            quiet: true,
            ..Style::default()
        });
        ui.say("talk");
        ui.data("data\n").unwrap();
        ui.error(&denied());
        assert_eq!(out.text(), "data\n");
        assert!(err.text().starts_with("error: ") && !err.text().contains("talk"));
    }

    #[test]
    fn verbose_adds_the_kind() {
        let (mut ui, _, err) = ui(Style {
            verbose: 1,
            ..Style::default()
        });
        ui.error(&denied());
        assert!(err.text().ends_with("detail: Denied, exit code 4\n"));
    }

    #[test]
    fn a_reader_that_left_is_success_and_a_full_disk_is_not() {
        let (mut ui, _, err) = ui(Style::default());
        assert_eq!(
            ui.end(Err(io::Error::from(io::ErrorKind::BrokenPipe).into())),
            CommandExit::Done
        );
        assert_eq!(err.text(), "");
        assert_eq!(
            ui.end(Err(io::Error::from(io::ErrorKind::StorageFull).into())),
            CommandExit::Failed
        );
        assert!(
            err.text()
                .starts_with("error: could not write the output: ")
        );
    }
}
