//! acc runs hundreds or thousands of mostly idle web applications on one host: each sleeps until
//! its next request.
//!
//! The layers, from top to bottom; each uses only those below it, which a test checks: `app` wires
//! everything; `interface` converts text to requests and outcomes to text; `prove` shows from
//! outside that nothing is lost; `proxy` carries HTTP requests; `control` passes verbs to the
//! running server; `service` has the verbs, one a file; `driver` has the outside world
//! (supervisors, edges, sockets, files); `render` makes configuration texts and pages from
//! templates; `store` is SQLite; `models` reads what an application needs to become an instance;
//! `config` has the checked settings; `host` the operating system; `domain` (a crate of its own) the
//! terms and the pure decisions.

pub mod app;
pub mod config;
pub mod control;
pub mod demo;
pub use acc_domain as domain;
pub mod driver;
pub mod host;
pub mod interface;
pub mod models;
pub mod prove;
pub mod proxy;
pub mod render;
pub mod service;
pub mod store;
