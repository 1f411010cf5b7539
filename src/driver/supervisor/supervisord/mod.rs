//! x
mod xmlrpc;
