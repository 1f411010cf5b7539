//! The application's own record of the requests that reached it: the only evidence of what was
//! delivered, and how often.
//!
//! It reads what `acc demo-app --log` writes and judges nothing.

use std::collections::HashMap;
use std::io::{self, BufRead, BufReader};
use std::path::Path;

use super::sample::ProofRequestId;
use crate::host::untrusted;

/// One arrival of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct RecordedArrival {
    /// Which try of it.
    pub(super) attempt: u8,
    /// The process that had it.
    pub(super) pid: i32,
    /// When this process was started, in nanoseconds of the monotonic clock.
    pub(super) started: u64,
    /// When the former process had ended; 0: there was none, or it did not record its end.
    pub(super) before_ended: u64,
}

/// The whole record.
#[derive(Debug, Default)]
pub(super) struct AppRecord {
    /// Requests by id.
    pub(super) requests: HashMap<ProofRequestId, Vec<RecordedArrival>>,
    /// Messages by id and number, with how often each arrived.
    pub(super) messages: HashMap<(ProofRequestId, u32), u32>,
    /// Starts of the application.
    pub(super) starts: usize,
    current: HashMap<i32, (u64, u64)>,
    last_end: u64,
}

impl AppRecord {
    /// Reads the record of the run with this tag. A missing file is an empty record.
    pub(super) fn read(path: &Path, tag: &str) -> io::Result<Self> {
        let mut record = Self::default();
        let file = match untrusted::open(path, untrusted::To::Read) {
            Ok((file, _)) => file,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(record),
            Err(e) => return Err(e),
        };
        for line in BufReader::new(file).lines() {
            record.line(&line?, tag);
        }
        Ok(record)
    }

    /// Parses `WORD ns pid …`; other lines are not by the demo application.
    fn line(&mut self, line: &str, tag: &str) {
        let mut words = line.split(' ');
        let (Some(word), Some(ns), Some(pid)) = (words.next(), words.next(), words.next()) else {
            return;
        };
        let (Ok(ns), Ok(pid)) = (ns.parse::<u64>(), pid.parse::<i32>()) else {
            return;
        };
        match word {
            "START" => {
                self.starts += 1;
                self.current.insert(pid, (ns, self.last_end));
            }
            "EXIT" => self.last_end = ns,
            "REQ" => {
                let Some((id, attempt)) = words.nth(1).and_then(|id| ProofRequestId::read(id, tag))
                else {
                    return;
                };
                let (started, before_ended) = self.current.get(&pid).copied().unwrap_or_default();
                self.requests.entry(id).or_default().push(RecordedArrival {
                    attempt,
                    pid,
                    started,
                    before_ended,
                });
            }
            "MSG" => {
                let Some((id, number)) = words.next().and_then(|text| text.split_once('#')) else {
                    return;
                };
                if let (Some((id, _)), Ok(number)) = (ProofRequestId::read(id, tag), number.parse())
                {
                    *self.messages.entry((id, number)).or_default() += 1;
                }
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arrivals_know_their_process() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let text = "START 10 7\nREQ 20 7 GET t.0.1.1\nREQ 21 7 GET -\nMSG 22 7 t.0.2.1#0\nMSG 23 7 t.0.2.1#0\nTERM 29 7\nEXIT 30 7\n\
            START 40 8\nREQ 50 8 POST t.0.1.2\nREQ 51 8 POST other.0.1.2\nnonsense\nREQ x y z\n";
        std::fs::write(&path, text).unwrap();
        let record = AppRecord::read(&path, "t").unwrap();
        let id = ProofRequestId { client: 0, n: 1 };
        let first = RecordedArrival {
            attempt: 1,
            pid: 7,
            started: 10,
            before_ended: 0,
        };
        let second = RecordedArrival {
            attempt: 2,
            pid: 8,
            started: 40,
            before_ended: 30,
        };
        assert_eq!(record.requests[&id], [first, second]);
        assert_eq!((record.requests.len(), record.starts), (1, 2));
        assert_eq!(record.messages[&(ProofRequestId { client: 0, n: 2 }, 0)], 2);
        assert!(
            AppRecord::read(&dir.path().join("none"), "t")
                .unwrap()
                .requests
                .is_empty()
        );
    }
}
