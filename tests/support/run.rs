//! Runs one program with a deadline and keeps its output.

use std::io::Read;
use std::process::{Command, ExitStatus, Stdio};
use std::time::Duration;

use super::wait::{now, pause};

/// A program that has ended.
#[derive(Debug, Clone)]
pub struct Done {
    /// The command line, for messages.
    pub what: String,
    /// Its exit code; `None`: ended by a signal.
    pub code: Option<i32>,
    /// Standard output.
    pub out: String,
    /// Standard error.
    pub err: String,
    /// How long it took.
    pub took: Duration,
}

impl Done {
    /// Panics unless the exit code is this one.
    #[track_caller]
    pub fn code(self, expected: i32) -> Self {
        assert_eq!(
            self.code,
            Some(expected),
            "`{}`\nstdout: {}\nstderr: {}",
            self.what,
            self.out,
            self.err
        );
        self
    }

    /// Panics unless the exit code is 0.
    #[track_caller]
    pub fn ok(self) -> Self {
        self.code(0)
    }

    /// Panics unless all these texts are in the output. A shorter text could occur in the random
    /// name of a folder.
    #[track_caller]
    pub fn says(self, texts: &[&str]) -> Self {
        for text in texts {
            assert!(text.len() > 3, "{text:?} is in many a text");
            assert!(
                self.out.contains(text) || self.err.contains(text),
                "`{}` does not say {text:?}\nstdout: {}\nstderr: {}",
                self.what,
                self.out,
                self.err
            );
        }
        self
    }

    /// Panics unless the command was refused: an error, and neither "no such instance" nor "too
    /// slow".
    #[track_caller]
    pub fn refused(self) -> Self {
        let code = self.code.unwrap_or(-1);
        assert!(
            [1, 2, 4].contains(&code),
            "`{}` was not refused but ended with {code}\nstdout: {}\nstderr: {}",
            self.what,
            self.out,
            self.err
        );
        self.error(code)
    }

    /// Panics unless the command failed with this code and an error of two lines: `error:`, with
    /// something named, and `hint:`.
    #[track_caller]
    pub fn error(self, code: i32) -> Self {
        let done = self.code(code);
        let lines: Vec<&str> = done.err.lines().filter(|l| !l.trim().is_empty()).collect();
        for word in ["error: ", "hint: "] {
            assert!(
                lines.iter().any(|l| l.starts_with(word)),
                "`{}` has no line with {word:?}: {}",
                done.what,
                done.err
            );
        }
        assert!(
            !done.err.contains("panicked"),
            "`{}` panicked: {}",
            done.what,
            done.err
        );
        done
    }
}

/// Runs `command` to its end; after `limit` it is killed and the test fails.
#[track_caller]
pub fn run(command: &mut Command, limit: Duration) -> Done {
    let what = format!("{command:?}");
    let started = now();
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|e| panic!("could not run {what}: {e}"));
    let reader = |mut pipe: Box<dyn Read + Send>| {
        std::thread::spawn(move || {
            let mut bytes = Vec::new();
            let _ = pipe.read_to_end(&mut bytes);
            String::from_utf8_lossy(&bytes).into_owned()
        })
    };
    let out = reader(Box::new(child.stdout.take().unwrap()));
    let err = reader(Box::new(child.stderr.take().unwrap()));
    let status: Option<ExitStatus> = loop {
        match child.try_wait().unwrap() {
            Some(status) => break Some(status),
            None if started.elapsed() > limit => break None,
            None => pause(Duration::from_millis(2)),
        }
    };
    let took = started.elapsed();
    let Some(status) = status else {
        let _ = child.kill();
        let _ = child.wait();
        let (out, err) = (joined(out), joined(err));
        panic!("{what} did not end within {limit:?}\nstdout: {out}\nstderr: {err}");
    };
    Done {
        what,
        code: status.code(),
        out: joined(out),
        err: joined(err),
        took,
    }
}

/// What the reader has read; a daemon that kept the pipe open does not block the test for ever.
fn joined(reader: std::thread::JoinHandle<String>) -> String {
    let deadline = now() + Duration::from_secs(3);
    while !reader.is_finished() {
        assert!(
            now() < deadline,
            "a process left behind keeps the output of an ended command open"
        );
        pause(Duration::from_millis(2));
    }
    reader.join().unwrap()
}
