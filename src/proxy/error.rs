//! The error of bodies and connections, whatever their parts fail with.
//!
//! It never becomes an answer: the failures that clients get are in `failure`.

/// Why a body or a connection breaks off.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;
