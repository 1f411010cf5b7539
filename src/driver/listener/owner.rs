//! The owner of a listener at an instance's address. It decides nothing.

/// The owner of the listener at an instance's address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ListenerOwner {
    /// Only the instance's own processes.
    Own,
    /// No process listens.
    None,
    /// Another program as well; the text describes it, for people.
    Stranger(String),
}
