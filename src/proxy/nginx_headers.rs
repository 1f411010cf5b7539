//! The headers that nginx and acc exchange, never with clients. `templates/nginx` has the other
//! side of the protocol.
//!
//! It never reads a header: `request` and `headers` do.

use hyper::header::HeaderName;

/// The host nginx chose; only nginx can set it.
pub const X_ACC_HOST: HeaderName = HeaderName::from_static("x-acc-host");
/// nginx's `$upstream_connect_time`: a number means that the instance may have read the request.
pub const X_ACC_CONNECT: HeaderName = HeaderName::from_static("x-acc-connect");
/// nginx's `$upstream_status` of its earlier tries.
pub const X_ACC_STATUS: HeaderName = HeaderName::from_static("x-acc-status");
/// nginx's id of the request, the same for every try.
pub const X_ACC_REQUEST: HeaderName = HeaderName::from_static("x-acc-request");
/// nginx has asked another worker before, which ended without a response.
pub const X_ACC_AGAIN: HeaderName = HeaderName::from_static("x-acc-again");
/// Set by nginx only, and only when acc checks whether nginx answers, see
/// `driver::edge::nginx::ask`.
pub const X_ACC_CHECK: HeaderName = HeaderName::from_static("x-acc-check");
/// The client's address, set by the edge.
pub const X_REAL_IP: HeaderName = HeaderName::from_static("x-real-ip");
/// In a response to nginx: the outcome of the request, for nginx's log only.
pub(super) const X_ACC_LOG: HeaderName = HeaderName::from_static("x-acc-log");
