//! The settings of hyper for clients' connections: sizes, and the limits that hyper enforces.
//!
//! It sets no time limits for HTTP/1: `ClientIo` has them.

use std::time::Duration;

use hyper::server::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioTimer};

use crate::driver::upstream::MAX_HEADERS;

/// Most bytes buffered per direction; also the longest head.
const BUFFER: usize = 64 * 1024;
/// Simultaneous requests on one HTTP/2 connection.
const STREAMS: u32 = 128;
/// An HTTP/2 client that does not answer a ping within this time is gone.
const PING: Duration = Duration::from_secs(20);

pub(super) fn http1_settings() -> http1::Builder {
    let mut builder = http1::Builder::new();
    // Without a timer hyper has no time limits of its own: `ClientIo` holds them, at less cost for
    // each request.
    builder
        .max_buf_size(BUFFER)
        .max_headers(MAX_HEADERS)
        .preserve_header_case(true)
        .title_case_headers(true);
    builder
}

pub(super) fn http2_settings() -> http2::Builder<TokioExecutor> {
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS)
        .max_header_list_size(BUFFER as u32)
        .max_send_buf_size(BUFFER)
        .initial_stream_window_size(256 * 1024)
        .initial_connection_window_size(1024 * 1024)
        .keep_alive_interval(PING)
        .keep_alive_timeout(PING);
    builder
}
