//! The way of a request, in process, over real sockets: a real front, a real application, a door that does as it is told.

mod basics;
mod broken;
mod hold;
mod hostile;
mod rest;
mod shutdown;
mod stage;
mod stream;
