//! Connections from acc to instances: made, pooled, counted, and dropped when a gate closes.
//!
//! It decides nothing about instances: it says whether an instance can have seen a request, and the
//! caller goes on from there. By itself it sends a request a second time in two cases only: the
//! pooled connection was closed before one byte of it was written, or the request is safe (GET,
//! HEAD, OPTIONS without a body) and the connection was a pooled one.
//!
//! A connection has no task of its own: the task that waits for the answer, and then reads its
//! body, drives it. That saves two task switches a request, and makes the pool exact: what is
//! parked here is a plain value, dropping it closes the socket at once.

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
use std::path::PathBuf;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use hyper::{Method, Request, Response, header};

use crate::domain::gate::Gate;
use crate::domain::instance::Listen;
use crate::driver::listener::Listeners;

pub use body::{BodyFault, FaultFlag, SendBody, Stall};
pub use counts::Counted;
use counts::Counts;
use link::{Link, Park, SendFault};
pub use link::{MAX_HEADERS, ReceiveBody};
use pool::{Pool, PoolSet};
pub use socket::Io;
pub use target::{FirstLine, RawTarget, first_line};

/// A request on a new connection that has no answer for so long may wait for a connection that is
/// parked: the application may serve one after the other.
const SLOW: Duration = Duration::from_millis(5);

/// A request that has no answer.
#[derive(Debug, thiserror::Error)]
pub enum UpstreamError {
    /// No connection: the instance never saw the request, here it is again, its body unread. (A
    /// safe one it may have seen once, on a pooled connection.)
    #[error("could not connect to the instance")]
    Connect {
        /// The request as it was given.
        request: Box<Request<SendBody>>,
        /// So often the instance may have read it.
        reads: u8,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The connection broke after the request was, at least in part, written: the instance may have
    /// acted on it.
    #[error("the instance broke the connection before its answer")]
    Broken {
        /// It was a pooled connection.
        reused: bool,
        /// So often the instance may have read it.
        reads: u8,
        /// An answer had begun, and broke off or could not be read: the request has been acted on.
        began: bool,
        /// The same request once more, if it may be sent twice: its method says so, it had no body,
        /// and no answer had begun.
        again: Option<Box<Request<SendBody>>>,
        /// Why.
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
    /// A socket of acc's own, see [`Upstreams::trust`].
    own: OnceLock<PathBuf>,
    pools: Arc<PoolSet>,
    /// Upgraded connections that have been silent for so long that they are not use.
    silent: Arc<Counts>,
}

/// A request that no parked connection took.
struct Left {
    req: Box<Request<SendBody>>,
    copy: RequestCopy,
    /// So often the instance may have read it.
    reads: u8,
}

impl Upstreams {
    /// `pooling`: keep connections for the next request; without it every request has its own
    /// (`Connection: close`).
    #[must_use]
    pub fn new(pooling: bool) -> Self {
        Self::to_instances_of(Listeners::default(), pooling)
    }

    /// The same, and unix sockets are believed to be an instance's only when the user of these
    /// listens there.
    #[must_use]
    pub fn to_instances_of(listeners: Listeners, pooling: bool) -> Self {
        let pooling = AtomicBool::new(pooling);
        Self {
            shared: Arc::new(UpstreamState {
                pooling,
                listeners,
                own: OnceLock::new(),
                pools: Arc::default(),
                silent: Arc::default(),
            }),
        }
    }

    /// At this path acc itself listens: requests go there when another acc has taken over. The
    /// folder is acc's own, so no other user can have put a socket there.
    pub fn trust(&self, own: PathBuf) {
        let _ = self.shared.own.set(own);
    }

    /// Who must listen where the gate leads.
    fn owner_of(&self, gate: &Gate) -> Option<u32> {
        let is_own =
            matches!(&gate.listen, Listen::Unix(path) if self.shared.own.get() == Some(path));
        if is_own {
            None
        } else {
            self.shared.listeners.user()
        }
    }

    /// Sends a request and returns the head of the answer; its body arrives as it is read. There is
    /// no time limit on the answer: streams and slow pages are the caller's business. Dropping the
    /// future or the body closes the connection.
    ///
    /// # Errors
    /// See [`UpstreamError`]: either the instance never saw the request, or it may have.
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
            // Rare, and too large to be part of every request.
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

    /// Tries parked connections; gives the request back when none of them took it, and a copy if
    /// one was made.
    async fn over_parked(
        pool: &Arc<Pool>,
        mut req: Box<Request<SendBody>>,
    ) -> Result<Result<Response<ReceiveBody>, UpstreamError>, Left> {
        // What may not be sent twice asks the kernel first whether the other side has closed; what
        // may finds out by itself.
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
        match Link::connect(gate, self.owner_of(gate), &self.shared.listeners, pool).await {
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

    /// Closes the parked connections of that run at once. Those that carry a request finish it and
    /// are closed then. A later request to the same run (the stop was called off) begins a new
    /// pool.
    pub fn close(&self, gate: &Gate) {
        self.shared.pools.close(gate);
    }

    /// Keeps no connection any more: those without a request are closed now, the others after
    /// theirs. Another acc has taken over, and to it every connection of this one is use.
    pub fn retire(&self) {
        self.shared.pooling.store(false, Ordering::Release);
        self.shared.pools.close_all();
    }

    /// Counts an upgraded connection of that run among those that are not use, until the value is
    /// dropped.
    #[must_use]
    pub fn silent(&self, gate: &Gate) -> Counted {
        self.shared.silent.one(gate)
    }

    /// Open connections of that run that are not use: those that carry no request now, and the
    /// silent ones. Those the instance has closed meanwhile are dropped first.
    #[must_use]
    pub fn pooled(&self, gate: &Gate) -> u32 {
        self.shared.pools.parked(gate) + self.shared.silent.of(&gate.name, gate.run)
    }
}

/// A copy of a request that may be sent twice.
type RequestCopy = Option<Box<Request<SendBody>>>;

/// The method says that sending it twice does no harm, and no body is lost by it.
fn is_repeatable(req: &Request<SendBody>) -> bool {
    matches!(*req.method(), Method::GET | Method::HEAD | Method::OPTIONS)
        && hyper::body::Body::is_end_stream(req.body())
}

/// Its connection is used once.
fn only_request(req: &mut Request<SendBody>) {
    if !req.headers().contains_key(header::UPGRADE) {
        req.headers_mut().insert(
            header::CONNECTION,
            header::HeaderValue::from_static("close"),
        );
    }
}

/// May be sent twice to the same run without asking: it does not turn the connection into another
/// one either.
fn is_safe(req: &Request<SendBody>) -> bool {
    is_repeatable(req) && !req.headers().contains_key(header::UPGRADE)
}

/// May the instance have read a request that was lost with its connection? The kernel says that a
/// connection was reset, or is no pipe any more, when it was closed with unread bytes.
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
