//! Connections from acc to instances: made, pooled, counted, and closed with their gate.
//!
//! It decides nothing about instances: it reports whether an instance can have read a request, and
//! the caller decides. It sends a request a second time in two cases only: a pooled connection was
//! closed before one byte was written, or the request is safe (GET, HEAD, OPTIONS without a body)
//! and the connection was a pooled one.
//!
//! A connection has no task of its own: the task that waits for the response, and then reads its
//! body, drives it. That saves two task switches per request and makes the pool exact: a parked
//! connection is a plain value, and dropping it closes the socket at once.

mod body;
mod counts;
mod held;
mod link;
mod local;
mod patience;
mod pool;
mod socket;
mod target;

use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use hyper::{Method, Request, Response, header};

use crate::domain::gate::Gate;
use crate::driver::listener::Listeners;

pub use body::{BodyFault, FaultFlag, SendBody, Stall};
pub use counts::Counted;
use counts::Counts;
use link::{Link, Park, SendFault};
pub use link::{MAX_HEADERS, ReceiveBody};
use pool::{Pool, PoolSet};
pub use socket::Io;
pub use target::{FirstLine, RawTarget, first_line};

/// A request on a new connection that has no response after this long may be waiting for a parked
/// connection: the application may serve one connection after the other.
const SLOW: Duration = Duration::from_millis(5);

/// Why a request has no response.
#[derive(Debug, thiserror::Error)]
pub enum UpstreamError {
    /// No connection: the instance never read the request, which is returned with its body unread.
    /// (A safe one may have been read once, on a pooled connection.)
    #[error("could not connect to the instance")]
    Connect {
        /// The request as it was given.
        request: Box<Request<SendBody>>,
        /// How often the instance may have read it.
        reads: u8,
        /// The reason.
        #[source]
        source: io::Error,
    },
    /// The connection broke after at least a part of the request was written: the instance may have
    /// acted on it.
    #[error("the instance broke the connection before its answer")]
    Broken {
        /// It was a pooled connection.
        reused: bool,
        /// How often the instance may have read it.
        reads: u8,
        /// A response had begun, and broke off or was invalid: the instance has acted on the
        /// request.
        began: bool,
        /// A copy of the request if it may be sent twice: its method allows that, it had no body,
        /// and no response had begun.
        again: Option<Box<Request<SendBody>>>,
        /// The reason.
        #[source]
        source: hyper::Error,
    },
}

/// All connections to instances.
#[derive(Clone)]
pub struct Upstreams {
    shared: Arc<UpstreamState>,
}

struct UpstreamState {
    pooling: AtomicBool,
    listeners: Listeners,
    pools: Arc<PoolSet>,
    /// Upgraded connections that have been silent for so long that they do not count as use.
    silent: Arc<Counts>,
}

/// A request for which no parked connection worked.
struct Left {
    req: Box<Request<SendBody>>,
    copy: RequestCopy,
    /// How often the instance may have read it.
    reads: u8,
}

impl Upstreams {
    /// `pooling`: keep connections for later requests. Without it, every request has its own
    /// (`Connection: close`).
    #[must_use]
    pub fn new(pooling: bool) -> Self {
        Self::sharing(Listeners::default(), pooling)
    }

    /// The same with the listeners that others have examined.
    #[must_use]
    pub fn sharing(listeners: Listeners, pooling: bool) -> Self {
        let pooling = AtomicBool::new(pooling);
        Self {
            shared: Arc::new(UpstreamState {
                pooling,
                listeners,
                pools: Arc::default(),
                silent: Arc::default(),
            }),
        }
    }

    /// Sends a request and returns the head of the response; the body arrives as it is read. There
    /// is no time limit: the caller handles streams and slow pages. Dropping the future or the body
    /// closes the connection.
    ///
    /// # Errors
    /// See [`UpstreamError`]: either the instance never read the request, or it may have.
    pub async fn request(
        &self,
        gate: &Gate,
        req: Box<Request<SendBody>>,
    ) -> Result<Response<ReceiveBody>, UpstreamError> {
        let mut req = req;
        if self.shared.pooling.load(Ordering::Acquire) {
            let pool = PoolSet::of(&self.shared.pools, gate);
            let left = match Self::over_parked(&pool, req).await {
                Ok(done) => return done,
                Err(left) => left,
            };
            // Boxed: it is rare, and too large to be part of every request.
            return Box::pin(self.over_fresh(gate, Some(pool), left)).await;
        }
        only_request(&mut req);
        Box::pin(self.over_fresh(
            gate,
            None,
            Left {
                req,
                copy: None,
                reads: 0,
            },
        ))
        .await
    }

    /// Tries parked connections. If none works, returns the request, and its copy if one was made.
    async fn over_parked(
        pool: &Arc<Pool>,
        mut req: Box<Request<SendBody>>,
    ) -> Result<Result<Response<ReceiveBody>, UpstreamError>, Left> {
        // For a request that must not be sent twice, first ask the kernel whether the peer has
        // closed; any other finds out by trying.
        let ask = !is_safe(&req);
        let mut copy = None;
        while let Some(link) = pool.take(ask) {
            copy = copy.or_else(|| spare(&req));
            match link.send(req).await {
                Ok(response) => return Ok(Ok(response)),
                Err(SendFault::Unsent(request)) => req = request,
                Err(SendFault::Lost {
                    began: true,
                    source,
                }) => {
                    return Ok(Err(UpstreamError::Broken {
                        reused: true,
                        reads: 1,
                        began: true,
                        again: None,
                        source,
                    }));
                }
                Err(SendFault::Lost { began, source }) => {
                    let reads = reads(&source);
                    match copy {
                        Some(req) if !ask => {
                            return Err(Left {
                                req,
                                copy: None,
                                reads,
                            });
                        }
                        again => {
                            return Ok(Err(UpstreamError::Broken {
                                reused: true,
                                reads,
                                began,
                                again,
                                source,
                            }));
                        }
                    }
                }
            }
        }
        Err(Left {
            req,
            copy,
            reads: 0,
        })
    }

    async fn over_fresh(
        &self,
        gate: &Gate,
        pool: Option<Arc<dyn Park>>,
        left: Left,
    ) -> Result<Response<ReceiveBody>, UpstreamError> {
        match Link::connect(gate, &self.shared.listeners, pool).await {
            Ok(link) => self.over_new(gate, link, left).await,
            Err(source) => Err(UpstreamError::Connect {
                request: left.req,
                reads: left.reads,
                source,
            }),
        }
    }

    async fn over_new(
        &self,
        gate: &Gate,
        link: Box<Link>,
        left: Left,
    ) -> Result<Response<ReceiveBody>, UpstreamError> {
        let Left {
            req,
            copy,
            reads: before,
        } = left;
        let again = copy.or_else(|| spare(&req));
        let mut sending = pin!(link.send(req));
        let sent = match tokio::time::timeout(SLOW, sending.as_mut()).await {
            Ok(sent) => sent,
            Err(_) => {
                let _slow = self.shared.pools.slow.one(gate);
                self.shared.pools.close_parked(gate);
                sending.await
            }
        };
        match sent {
            Ok(response) => Ok(response),
            Err(SendFault::Unsent(request)) => {
                let source = io::Error::new(
                    io::ErrorKind::ConnectionReset,
                    "closed before the request was written",
                );
                Err(UpstreamError::Connect {
                    request,
                    reads: before,
                    source,
                })
            }
            Err(SendFault::Lost { began, source }) => {
                let reads = before + reads(&source);
                Err(UpstreamError::Broken {
                    reused: false,
                    reads,
                    began,
                    again: again.filter(|_| !began),
                    source,
                })
            }
        }
    }

    /// Closes the parked connections of that run at once, and the others when their request ends. A
    /// later request to the same run (after a cancelled stop) begins a new pool.
    pub fn close(&self, gate: &Gate) {
        self.shared.pools.close(gate);
    }

    /// Stops pooling: idle connections are closed now, the others when their request ends. Another
    /// acc has taken over and counts every connection of this one as use.
    pub fn retire(&self) {
        self.shared.pooling.store(false, Ordering::Release);
        self.shared.pools.close_all();
    }

    /// Counts an upgraded connection of that run as not in use, until the value is dropped.
    #[must_use]
    pub fn silent(&self, gate: &Gate) -> Counted {
        self.shared.silent.one(gate)
    }

    /// How many open connections of that run are not in use: idle ones and silent ones. First drops
    /// those that the instance has closed.
    #[must_use]
    pub fn pooled(&self, gate: &Gate) -> u32 {
        self.shared.pools.parked(gate) + self.shared.silent.of(&gate.name, gate.run)
    }
}

/// A copy of a request that may be sent twice.
type RequestCopy = Option<Box<Request<SendBody>>>;

/// Whether the method allows a second try, and there is no body that would be lost.
fn is_repeatable(req: &Request<SendBody>) -> bool {
    matches!(*req.method(), Method::GET | Method::HEAD | Method::OPTIONS)
        && hyper::body::Body::is_end_stream(req.body())
}

/// Marks the request as the only one of its connection.
fn only_request(req: &mut Request<SendBody>) {
    if !req.headers().contains_key(header::UPGRADE) {
        req.headers_mut().insert(
            header::CONNECTION,
            header::HeaderValue::from_static("close"),
        );
    }
}

/// Whether it may be sent twice to the same run without asking the kernel. An upgrade may not.
fn is_safe(req: &Request<SendBody>) -> bool {
    is_repeatable(req) && !req.headers().contains_key(header::UPGRADE)
}

/// How often the instance may have read a request whose connection broke. If it was closed with
/// unread bytes, the kernel reports a reset or a broken pipe.
fn reads(lost: &hyper::Error) -> u8 {
    let cause = std::error::Error::source(lost)
        .and_then(|cause| cause.downcast_ref::<io::Error>())
        .map(io::Error::kind);
    u8::from(!matches!(
        cause,
        Some(io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe)
    ))
}

fn spare(req: &Request<SendBody>) -> RequestCopy {
    is_repeatable(req).then(|| {
        let mut copy = Request::new(SendBody::empty());
        copy.method_mut().clone_from(req.method());
        copy.uri_mut().clone_from(req.uri());
        *copy.version_mut() = req.version();
        copy.headers_mut().clone_from(req.headers());
        copy.extensions_mut().clone_from(req.extensions());
        Box::new(copy)
    })
}

#[cfg(test)]
mod tests;
