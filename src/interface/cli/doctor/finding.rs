//! One finding of `acc doctor`, and how bad it is. It checks nothing by itself.

use serde::Serialize;

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// As it should be.
    Ok,
    /// acc works, with less.
    Warn,
    /// acc does not work like this.
    Bad,
}

/// One finding.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// How bad it is.
    pub level: Level,
    /// What was found, with the object in backquotes.
    pub what: String,
    /// How to fix it; empty when nothing is wrong.
    pub hint: String,
}

/// What is as it should be.
pub(super) fn ok(what: impl Into<String>) -> Finding {
    Finding {
        level: Level::Ok,
        what: what.into(),
        hint: String::new(),
    }
}

/// What acc works with, though with less; `hint`: how to fix it.
pub(super) fn warn(what: impl Into<String>, hint: impl Into<String>) -> Finding {
    Finding {
        level: Level::Warn,
        what: what.into(),
        hint: hint.into(),
    }
}

/// What acc does not work with; `hint`: how to fix it.
pub(super) fn bad(what: impl Into<String>, hint: impl Into<String>) -> Finding {
    Finding {
        level: Level::Bad,
        what: what.into(),
        hint: hint.into(),
    }
}
