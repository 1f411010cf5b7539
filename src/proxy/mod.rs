//! The way of a request, from a client's connection to an instance and back. The life of a request:
//!
//! 1. `listen`: the sockets it can come in by; `serve`: its connection is accepted, its head read within a time limit. `exchange`
//!    has it from then on.
//! 2. `request`: who is asked for, may this wake, is it a browser's navigation; `trusted_proxies`: who asks.
//! 3. `forward`: knocks at `service::door::Door`; an awake instance lets it pass, a sleeping one is woken and the request
//!    is held with its body unread.
//! 4. `headers`: what the instance is told, and what it is not.
//! 5. `driver::upstream`: a connection, pooled or new; the body streams through with back-pressure.
//! 6. `reply`: the answer streams back; the pass is given back with its last byte. `upgrade`: upgraded connections.
//! 7. `respond`: everything else, in one table; `wake_events`: what the waiting page follows.
//! 8. `access_log`: one line, on acc's own edge; `own_answers`: also for an answer of acc's own.
//!
//! It never decides whether an instance may sleep or wake. Of a body it takes 64 KiB into memory, and the rest into a file (`host::spool`).

pub mod access_log;
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
mod own_answers;
mod pending;
mod read_ahead;
mod receive;
mod reclaim;
pub mod replay_notes;
pub mod request;
pub mod respond;
pub mod response_body;
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
pub use trusted_proxies::{Origin, Trust};
