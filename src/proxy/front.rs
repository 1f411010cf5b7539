//! The two kinds of listeners: who speaks at them, and so what is believed of what they say.
//!
//! It never accepts a connection: `listen` does.

/// Who speaks at a listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Front {
    /// Clients themselves, or proxies: acc is the edge. Nothing they say about clients is believed,
    /// except from trusted proxies.
    Public,
    /// nginx, over a socket that only it can reach: what it says about clients is believed.
    Wake,
}
