//! The world outside acc: supervisors, edges, sockets, processes, files.
//!
//! A driver does each call in bounded time, and a call may be repeated. It never decides, and it
//! never takes "I could not ask" for "there is none": the first is an error, the second an answer.

pub mod activity;
pub mod edge;
pub mod listener;
pub mod probe;
pub mod supervisor;
pub mod upstream;
