//! The control socket: how a command line on this host hands a request to the running server.
//!
//! HTTP/1.1 over a unix socket that only its owner may open. `POST /v1/request` takes a
//! [`Request`](crate::service::request::Request) as JSON and answers 200 with an
//! [`Outcome`](crate::service::outcome::Outcome), or a 4xx/5xx with a
//! [`ServiceError`](crate::service::error::ServiceError). A request that it does not know, of
//! another version, is a 400 that says so. It decides nothing: the handler does. It is never reachable over the network.

mod client;
mod json;
mod patient;
mod routes;
mod server;
#[cfg(test)]
mod tests;

pub use client::{CallError, ControlReply, call};
pub use json::status;
pub use server::{bind, serve};

/// The path of the one route.
const ROUTE: &str = "/v1/request";

/// Longest body of a request or an answer, in bytes.
const BODY_MAX: usize = 1024 * 1024;
