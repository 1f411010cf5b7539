//! The control socket: how a command line on this host hands a request to the running server.
//!
//! HTTP/1.1 over a unix socket that only its owner may open. `POST /v1/request` takes a [`Request`]
//! as JSON and answers 200 with an [`Outcome`], or a 4xx/5xx with a [`ServiceError`]. It decides
//! nothing: the handler does. It is never reachable over the network.

mod client;
mod patient;
mod server;
#[cfg(test)]
mod tests;

use async_trait::async_trait;

use crate::service::error::ServiceError;
use crate::service::outcome::Outcome;
use crate::service::request::Request;

pub use client::{CallError, ControlReply, call};
pub use server::{bind, serve, status};

/// The path of the one route.
const ROUTE: &str = "/v1/request";

/// Longest body of a request or an answer, in bytes.
const BODY_MAX: usize = 1024 * 1024;

/// Runs requests. The service implements it; a fake does in the tests.
#[async_trait]
pub trait Handler: Send + Sync {
    /// Runs one request to its end. It is called on a task of its own: a client that leaves does
    /// not cancel it. A `Ping` must be answered at once, whatever else is under way: clients use it
    /// to tell a slow verb from a hung server.
    async fn handle(&self, request: Request) -> Result<Outcome, ServiceError>;
}
