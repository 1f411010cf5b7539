//! The headers by which nginx and acc inform each other, and no client: the other side of the
//! protocol is in `templates/nginx`.
//!
//! It never reads a header: `request` and `headers` do.

use hyper::header::HeaderName;

/// The host nginx chose; only nginx can set it.
pub const X_ACC_HOST: HeaderName = HeaderName::from_static("x-acc-host");
/// nginx's `$upstream_connect_time`: a number means the instance may have seen the request.
pub const X_ACC_CONNECT: HeaderName = HeaderName::from_static("x-acc-connect");
/// nginx's `$upstream_status` of what it tried before.
pub const X_ACC_STATUS: HeaderName = HeaderName::from_static("x-acc-status");
/// nginx's own number of the request, the same however often it asks.
pub const X_ACC_REQUEST: HeaderName = HeaderName::from_static("x-acc-request");
/// nginx has asked another worker before, and that ended without an answer.
pub const X_ACC_AGAIN: HeaderName = HeaderName::from_static("x-acc-again");
/// Only nginx sets it, and only when acc checks whether nginx answers, see
/// `driver::edge::nginx::ask`.
pub const X_ACC_CHECK: HeaderName = HeaderName::from_static("x-acc-check");
/// The client's address, set by the edge.
pub const X_REAL_IP: HeaderName = HeaderName::from_static("x-real-ip");
/// In an answer to nginx: what became of the request, for nginx's log alone.
pub(super) const X_ACC_LOG: HeaderName = HeaderName::from_static("x-acc-log");
