//! Whose the listener is that was found where an instance should listen. It decides nothing.

/// Who listens where an instance should.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ListenerOwner {
    /// Only its own processes.
    Own,
    /// Nobody.
    Nobody,
    /// Somebody else, too; says who, for people.
    Stranger(String),
}
