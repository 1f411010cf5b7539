//! `acc logs`: what an instance printed, or the requests to it. The files are read here, piece by
//! piece: there is no bound, bytes stay what they are, and they can be followed.

use std::time::Duration;

use serde::Serialize;

use super::super::args::LogsArgs;
use super::super::context::CommandContext;
use super::super::escape::Pieces;
use super::super::exit::CommandExit;
use super::super::output::CommandEnd;
use crate::service::error::unexpected;
use crate::service::logs::{self, Merged, unreadable};
use crate::service::outcome::Outcome;
use crate::service::request::Request;

/// With `-f`, pause between two reads at the end of the file.
const CHECK_EVERY: Duration = Duration::from_millis(200);

/// A line longer than this is cut into several objects.
const LONGEST: usize = 1024 * 1024;

pub(in super::super) async fn run(call: &mut CommandContext<'_>, args: &LogsArgs) -> CommandEnd {
    let instance = args.name.name.as_str().into();
    let Outcome::Info(info) = call.ask(Request::Info { instance }).await? else {
        return Err(unexpected().into());
    };
    let paths = logs::paths(call.config, &info.instance.name, args.access);
    let mut tail = Merged::open(paths, args.lines).map_err(unreadable)?;
    if !tail.is_there() {
        call.ui.say(if args.access {
            "no requests yet"
        } else {
            "no output yet"
        });
    }
    let (mut lines, mut shown) = (Lines::default(), Pieces::default());
    let mut ticks = tokio::time::interval(CHECK_EVERY);
    loop {
        let piece = tail.read().map_err(unreadable)?;
        if !piece.is_empty() && call.ui.style.json {
            lines
                .add(&piece)
                .iter()
                .try_for_each(|line| call.ui.json_line(line))?;
        } else if !piece.is_empty() {
            // Shown also through a pipe: its other end may be a terminal (less, tee, a session that
            // is recorded).
            if args.raw {
                call.ui.bytes(&piece)?
            } else {
                call.ui.data(&shown.add(&piece))?
            }
        } else if !args.follow || !call.ui.is_read() {
            // A last line without its end is a line too.
            lines
                .rest()
                .iter()
                .try_for_each(|line| call.ui.json_line(line))?;
            call.ui.data(&shown.rest())?;
            return Ok(CommandExit::Done);
        } else {
            ticks.tick().await;
        }
    }
}

/// With `--json`: a line of the log as one object.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct LogLine {
    line: String,
}

/// Cuts pieces into lines. It keeps the line that has not ended yet, at most [`LONGEST`] bytes of
/// it.
#[derive(Default)]
struct Lines(Vec<u8>);

impl Lines {
    fn add(&mut self, piece: &[u8]) -> Vec<LogLine> {
        self.0.extend_from_slice(piece);
        let (mut lines, mut start) = (Vec::new(), 0);
        loop {
            let left = &self.0[start..];
            let window = &left[..left.len().min(LONGEST + 1)];
            let (end, next) = match window.iter().position(|byte| *byte == b'\n') {
                Some(end) => (end, end + 1),
                None if left.len() > LONGEST => (LONGEST, LONGEST),
                None => break,
            };
            lines.push(LogLine {
                line: String::from_utf8_lossy(&left[..end]).into_owned(),
            });
            start += next;
        }
        self.0.drain(..start);
        lines
    }

    fn rest(&mut self) -> Option<LogLine> {
        let rest = std::mem::take(&mut self.0);
        (!rest.is_empty()).then(|| LogLine {
            line: String::from_utf8_lossy(&rest).into_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_cut_into_lines() {
        let mut lines = Lines::default();
        let texts = |lines: Vec<LogLine>| lines.into_iter().map(|l| l.line).collect::<Vec<_>>();
        assert_eq!(texts(lines.add(b"one\ntw")), ["one"]);
        assert_eq!(texts(lines.add(b"o\n\n\xff\nend")), ["two", "", "\u{fffd}"]);
        assert_eq!(
            lines.rest(),
            Some(LogLine {
                line: "end".to_owned()
            })
        );
        assert_eq!(lines.rest(), None);
        let cut = texts(lines.add(&vec![b'x'; LONGEST + 1]));
        assert_eq!((cut.len(), cut[0].len()), (1, LONGEST));
        assert_eq!(
            serde_json::to_string(&lines.rest()).unwrap(),
            r#"{"line":"x"}"#
        );
    }
}
