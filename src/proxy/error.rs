//! The error type of bodies and connections, for all causes.
//!
//! It never becomes a response: `failure` has those that clients get.

/// Why a body or a connection breaks off.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;
