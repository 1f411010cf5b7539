//! The path of a request, from a client's connection to an instance and back. The steps, and the
//! files that do them:
//!
//! 1. `listen`: the sockets to accept from, each with its `front` (who connects to it). `serve`:
//!    accepts; `connection_limits`: refuses or closes connections when a client or the process has
//!    too many.
//! 2. `connection`: serves one connection. `client_io`: its socket, with time limits (`timeouts`);
//!    `hyper_settings`: HTTP itself; `connection_state`: whether a request is being served;
//!    `stalled_responses`: clients that do not read on HTTP/2; `rest`: idle connections.
//! 3. `exchange`: one request and its response. `receive`: reads the head. `request`: which host,
//!    whether it may wake, whether it is a browser's navigation; `trusted_proxies`: the client;
//!    `nginx_headers`: the headers between nginx and acc.
//! 4. `forward`: asks `service::admission::Admission` for a ticket; an awake instance gets the
//!    request at once, a sleeping one is woken and the request is held with its body unread.
//!    `pending`: the state of the request meanwhile; `replay_notes`: what nginx must not repeat.
//! 5. `headers`: which headers the instance and the client get. `driver::upstream`: a connection,
//!    pooled or new; the body is streamed with back-pressure. `linger`: the rest of a body that the
//!    response did not wait for.
//! 6. `response_body`: the response is streamed back; the ticket is dropped with its last byte.
//!    `read_ahead`: for slow clients; `upgrade`: WebSockets, by their frames (`websocket_frames`).
//! 7. `failure`: why the instance did not respond, in one table; `respond`: the response that acc
//!    gives instead; `wake_events`: the events for the waiting page.
//! 8. `access_log`: one line for each request, on acc's own edge; `answer_log`: also for responses
//!    of acc itself.
//!
//! All of them share `context` (with `settings`), and those of one server `server`; `latch` is the
//! flag that makes connections end, `error` the error of bodies and connections.
//!
//! It never decides whether an instance may sleep or wake. It keeps at most 64 KiB of a body in
//! memory, and the rest in a file (`host::spool`).

pub mod access_log;
mod answer_log;
mod client_io;
mod connection;
mod connection_limits;
mod connection_state;
mod context;
mod error;
mod exchange;
pub mod failure;
mod forward;
mod front;
pub mod headers;
mod hyper_settings;
mod latch;
mod linger;
pub mod listen;
pub mod nginx_headers;
mod pending;
mod read_ahead;
mod receive;
pub mod replay_notes;
pub mod request;
pub mod respond;
pub mod response_body;
mod rest;
pub mod serve;
mod server;
mod settings;
mod stalled_responses;
#[cfg(test)]
mod tests;
mod timeouts;
mod trusted_proxies;
mod upgrade;
mod wake_events;
mod websocket_frames;

pub use context::Proxy;
pub use front::Front;
pub use serve::{ServeReport, serve};
pub use server::ShutdownSignals;
pub use settings::{BODY_STALL, ProxySettings};
pub use trusted_proxies::{Origin, TrustedProxies};
