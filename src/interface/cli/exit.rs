//! The exit codes: one closed list, and which error leads to which.

use std::process::ExitCode;

use crate::service::error::ErrorKind;

/// How the program ends. Ordered from best to worst for [`CommandExit::worst`] by the number
/// itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum CommandExit {
    /// Done, or already so.
    Done = 0,
    /// It did not work.
    Failed = 1,
    /// Wrong command line or config.
    Usage = 2,
    /// No such instance or model.
    NotFound = 3,
    /// Refused in this phase.
    Denied = 4,
    /// It took too long.
    TimedOut = 5,
}

impl CommandExit {
    /// The exit code of an error.
    #[must_use]
    pub fn of(kind: ErrorKind) -> Self {
        match kind {
            ErrorKind::Failed => Self::Failed,
            ErrorKind::Invalid => Self::Usage,
            ErrorKind::NotFound => Self::NotFound,
            ErrorKind::Denied => Self::Denied,
            ErrorKind::TimedOut => Self::TimedOut,
        }
    }

    /// Done, unless something that was asked for `failed`.
    #[must_use]
    pub fn unless(failed: bool) -> Self {
        if failed { Self::Failed } else { Self::Done }
    }

    /// Of two, the one to end with: any error before success, and among errors the one with the
    /// higher number.
    #[must_use]
    pub fn worst(self, other: Self) -> Self {
        self.max(other)
    }
}

impl From<CommandExit> for ExitCode {
    fn from(exit: CommandExit) -> Self {
        Self::from(exit as u8)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_its_code() {
        let all = [
            ErrorKind::Failed,
            ErrorKind::Invalid,
            ErrorKind::NotFound,
            ErrorKind::Denied,
            ErrorKind::TimedOut,
        ];
        assert_eq!(all.map(|kind| CommandExit::of(kind) as u8), [1, 2, 3, 4, 5]);
        assert_eq!(CommandExit::Done as u8, 0);
    }

    #[test]
    fn the_worst_of_several_decides() {
        assert_eq!(
            CommandExit::Done.worst(CommandExit::Failed),
            CommandExit::Failed
        );
        assert_eq!(
            CommandExit::TimedOut.worst(CommandExit::NotFound),
            CommandExit::TimedOut
        );
        assert_eq!(
            CommandExit::Done.worst(CommandExit::Done),
            CommandExit::Done
        );
    }
}
