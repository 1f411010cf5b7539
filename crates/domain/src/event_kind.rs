//! The kinds of the events that acc records: one word each in the database, in JSON and in the
//! table of `acc events`.
//!
//! It decides nothing. A word of another version of acc is kept as it is: a database outlives the
//! program that wrote it.

use serde::{Deserialize, Serialize};

/// What kind of event it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub enum EventKind {
    /// The instance was made.
    Created,
    /// It answers.
    Woke,
    /// It was put to sleep.
    Slept,
    /// It failed.
    Failed,
    /// It was killed, because it did not stop in time.
    Killed,
    /// An idle stop was cancelled: requests were in flight.
    StopCancelled,
    /// It exited by itself.
    Ended,
    /// It is not to be reached at its address.
    Displaced,
    /// It has another port.
    PortChanged,
    /// The installation runs in other folders.
    Moved,
    /// Another desired state.
    Desired,
    /// Out of service.
    Destroyed,
    /// Removed.
    Purged,
    /// One of acc's own parts was repaired.
    Repaired,
    /// A log was cut.
    LogCut,
    /// Of another version of acc.
    Other(String),
}

impl EventKind {
    const KNOWN: [Self; 15] = [
        Self::Created,
        Self::Woke,
        Self::Slept,
        Self::Failed,
        Self::Killed,
        Self::StopCancelled,
        Self::Ended,
        Self::Displaced,
        Self::PortChanged,
        Self::Moved,
        Self::Desired,
        Self::Destroyed,
        Self::Purged,
        Self::Repaired,
        Self::LogCut,
    ];

    /// Its word.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match self {
            Self::Created => "created",
            Self::Woke => "woke",
            Self::Slept => "slept",
            Self::Failed => "failed",
            Self::Killed => "killed",
            Self::StopCancelled => "stop_cancelled",
            Self::Ended => "ended",
            Self::Displaced => "displaced",
            Self::PortChanged => "port_changed",
            Self::Moved => "moved",
            Self::Desired => "desired",
            Self::Destroyed => "destroyed",
            Self::Purged => "purged",
            Self::Repaired => "repaired",
            Self::LogCut => "log_cut",
            Self::Other(word) => word,
        }
    }
}

impl From<String> for EventKind {
    fn from(word: String) -> Self {
        let known = Self::KNOWN.into_iter().find(|kind| kind.as_str() == word);
        known.unwrap_or(Self::Other(word))
    }
}

impl From<EventKind> for String {
    fn from(kind: EventKind) -> Self {
        kind.as_str().to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_word_comes_back_also_one_of_another_version() {
        for kind in EventKind::KNOWN {
            let text = serde_json::to_string(&kind).unwrap();
            assert_eq!(text, format!("\"{}\"", kind.as_str()));
            assert_eq!(serde_json::from_str::<EventKind>(&text).unwrap(), kind);
        }
        let later: EventKind = serde_json::from_str("\"paused\"").unwrap();
        assert_eq!(later, EventKind::Other("paused".to_owned()));
        assert_eq!(String::from(later), "paused");
    }
}
