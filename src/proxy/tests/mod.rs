//! The way of a request, in process, over real sockets: a real proxy, a real application, a fake of
//! the service.

mod basics;
mod broken;
mod fixture;
mod hold;
mod hostile;
mod rest;
mod shutdown;
mod stream;
