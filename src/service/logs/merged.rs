//! Several logs shown as one, in the order of the times that their lines bear.
//!
//! It never holds more than what one read returns of each; of a single log it holds nothing.

use std::io;
use std::path::PathBuf;

use super::tail::Tail;

/// What a log cannot be read for.
pub type LogFault = (PathBuf, io::Error);

/// One log, or several.
#[derive(Debug)]
pub struct Merged {
    parts: Vec<LogPart>,
    /// So many lines are shown of what was there at the beginning.
    first: Option<usize>,
}

#[derive(Debug)]
struct LogPart {
    path: PathBuf,
    tail: Tail,
    /// A line that has not ended yet.
    begun: Vec<u8>,
}

impl Merged {
    /// Opens them `lines` lines before their end.
    ///
    /// # Errors
    /// One is there and cannot be read.
    pub fn open(paths: Vec<PathBuf>, lines: usize) -> Result<Self, LogFault> {
        let open = |path: PathBuf| match Tail::open(&path, lines) {
            Ok(tail) => Ok(LogPart {
                path,
                tail,
                begun: Vec::new(),
            }),
            Err(error) => Err((path, error)),
        };
        Ok(Self {
            parts: paths.into_iter().map(open).collect::<Result<_, _>>()?,
            first: Some(lines),
        })
    }

    /// Is one of them there?
    #[must_use]
    pub fn is_there(&self) -> bool {
        self.parts.iter().any(|part| part.tail.is_there())
    }

    /// What comes next; empty: that is all for now.
    ///
    /// # Errors
    /// One cannot be read.
    pub fn read(&mut self) -> Result<Vec<u8>, LogFault> {
        if let [only] = &mut self.parts[..] {
            return only.piece();
        }
        let mut lines = Vec::new();
        for part in &mut self.parts {
            part.lines(&mut lines)?;
        }
        // Stable: those of one second stay in their order.
        lines.sort_by_key(|(time, _)| *time);
        let skip = self
            .first
            .take()
            .map_or(0, |first| lines.len().saturating_sub(first));
        Ok(lines
            .split_off(skip)
            .into_iter()
            .flat_map(|(_, line)| line)
            .collect())
    }
}

impl LogPart {
    fn piece(&mut self) -> Result<Vec<u8>, LogFault> {
        self.tail.read().map_err(|error| (self.path.clone(), error))
    }

    /// All lines that are there and whole, each with its time.
    fn lines(&mut self, into: &mut Vec<(i64, Vec<u8>)>) -> Result<(), LogFault> {
        let mut last = 0;
        loop {
            let piece = self.piece()?;
            if piece.is_empty() {
                return Ok(());
            }
            self.begun.extend_from_slice(&piece);
            let end = self
                .begun
                .iter()
                .rposition(|byte| *byte == b'\n')
                .map_or(0, |at| at + 1);
            let rest = self.begun.split_off(end);
            for line in
                std::mem::replace(&mut self.begun, rest).split_inclusive(|byte| *byte == b'\n')
            {
                last = time(line).unwrap_or(last);
                into.push((last, line.to_vec()));
            }
        }
    }
}

/// Seconds, of a line of an access log.
fn time(line: &[u8]) -> Option<i64> {
    let line = std::str::from_utf8(line).ok()?;
    let (text, _) = line.split_once(" [")?.1.split_once(']')?;
    jiff::Timestamp::strptime("%d/%b/%Y:%H:%M:%S %z", text)
        .ok()
        .map(jiff::Timestamp::as_second)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Write as _;

    use super::*;

    #[test]
    fn lines_come_in_the_order_of_their_times() {
        let dir = tempfile::tempdir().unwrap();
        let [one, two] = ["one", "two"].map(|name| dir.path().join(name));
        let line = |at: &str, what: &str| format!("127.0.0.1 - - [30/Nov/2026:{at}] \"{what}\"\n");
        fs::write(
            &one,
            [
                line("10:00:00 +0000", "a"),
                line("10:00:02 +0000", "c"),
                "odd\n".into(),
                line("10:00:04 +0000", "e"),
            ]
            .concat(),
        )
        .unwrap();
        fs::write(
            &two,
            [line("11:00:01 +0100", "b"), line("10:00:03 +0000", "d")].concat(),
        )
        .unwrap();
        let order = |text: Vec<u8>| {
            let text = String::from_utf8(text).unwrap();
            text.lines()
                .map(|line| line.split('"').nth(1).unwrap_or(line).to_owned())
                .collect::<Vec<_>>()
                .join(" ")
        };
        let mut all = Merged::open(vec![one.clone(), two.clone()], 100).unwrap();
        assert_eq!(order(all.read().unwrap()), "a b c odd d e");
        assert_eq!(
            order(
                Merged::open(vec![one.clone(), two.clone()], 3)
                    .unwrap()
                    .read()
                    .unwrap()
            ),
            "odd d e"
        );
        assert!(all.read().unwrap().is_empty());
        let mut more = fs::OpenOptions::new().append(true).open(&two).unwrap();
        more.write_all(&line("10:00:05 +0000", "f").as_bytes()[..20])
            .unwrap();
        assert!(all.read().unwrap().is_empty(), "half a line");
        more.write_all(&line("10:00:05 +0000", "f").as_bytes()[20..])
            .unwrap();
        assert_eq!(order(all.read().unwrap()), "f");
        assert!(Merged::open(vec![dir.path().join("none")], 1).is_ok_and(|none| !none.is_there()));
    }
}
