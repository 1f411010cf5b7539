//! The owner of a listener at an instance's address. It decides nothing.

/// The owner of the listener at an instance's address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ListenerOwner {
    /// Only its own processes.
    Own,
    /// No process listens.
    None,
    /// Another program, too; says which, for people.
    Stranger(String),
}
