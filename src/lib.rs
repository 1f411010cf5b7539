//! acc runs hundreds or thousands of mostly idle web applications on one host: asleep until the
//! next request.
//!
//! The layers, from top to bottom; each uses only those below it (a test reads the sources and
//! holds this): `app` wires everything; `interface` turns text into requests and outcomes into
//! text; `prove` shows from outside that nothing is lost; `proxy` is the way of an HTTP request;
//! `control` hands requests to the running server; `service` is what acc can do, one verb a file;
//! `driver` is the world (supervisors, edges, sockets, files); `render` makes configuration texts
//! and pages from templates; `store` is SQLite; `models` reads what an application needs to become
//! an instance; `config` the checked settings; `host` the operating system; `domain` the words and
//! the pure decisions.

pub mod app;
pub mod config;
pub mod control;
pub mod demo;
pub mod domain;
pub mod driver;
pub mod host;
pub mod interface;
pub mod models;
pub mod prove;
pub mod proxy;
pub mod render;
pub mod service;
pub mod store;
