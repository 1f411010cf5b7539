//! The two kinds of listeners: who connects to them, and so which of their headers are trusted.
//!
//! It never accepts a connection: `listen` does.

/// Who connects to a listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Front {
    /// Clients or proxies: acc is the edge. Their statements about clients are ignored, except
    /// those of trusted proxies.
    Public,
    /// nginx, over a socket that only nginx can reach: its statements about clients are trusted.
    Wake,
}
