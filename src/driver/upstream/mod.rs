//! Connections from acc to instances: made, pooled, counted, and dropped when a gate closes.
//!
//! It decides nothing about instances: it says whether an instance can have seen a request, and the caller goes on from
//! there. By itself it sends a request a second time in two cases only: the pooled connection was closed before one byte
//! of it was written, or the request is safe (GET, HEAD, OPTIONS without a body) and the connection was a pooled one.
//!
//! A connection has no task of its own: whoever waits for the answer, and then whoever reads its body, drives it. That
//! saves two task switches a request, and makes the pool exact: what is parked here is a plain value, dropping it closes
//! the socket at once.

mod body;
mod counts;
mod held;
mod link;
mod local;
mod patience;
mod socket;
mod target;

use std::collections::HashMap;
use std::io;
use std::path::PathBuf;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock};
use std::time::Duration;

use hyper::{Method, Request, Response, header};
use tokio::time::Instant;

use crate::domain::instance::Listen;
use crate::domain::name::InstanceName;
use crate::driver::edge::Gate;
use crate::driver::listener::Listeners;
use crate::host::io_threads;

pub use body::{BodyFault, FaultFlag, ReceiveBody, SendBody, Stall};
pub use counts::Counted;
use counts::Counts;
pub use link::MAX_HEADERS;
use link::{Link, SendFault};
pub use socket::Io;
pub use target::{FirstLine, RawTarget, first_line};

/// A connection without a request is closed after this long: well before the 2 s after which common servers close theirs.
const IDLE: Duration = Duration::from_secs(1);
/// A request on a new connection that has no answer for so long may wait for a connection that is parked: the application may serve
/// one after the other.
const SLOW: Duration = Duration::from_millis(5);
/// How often the parked connections are looked at.
const REAP_EVERY: Duration = Duration::from_millis(250);
/// Most parked connections of one run.
const PARKED_MAX: usize = 512;

/// A request that has no answer.
#[derive(Debug, thiserror::Error)]
pub enum UpstreamError {
    /// No connection: the instance never saw the request, here it is again, its body unread. (A safe one it may have seen once, on
    /// a pooled connection.)
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
    /// The connection broke after the request was, at least in part, written: the instance may have acted on it.
    #[error("the instance broke the connection before its answer")]
    Broken {
        /// It was a pooled connection.
        reused: bool,
        /// So often the instance may have read it.
        reads: u8,
        /// An answer had begun, and broke off or could not be read: the request has been acted on.
        began: bool,
        /// The same request once more, if it may be sent twice: its method says so, it had no body, and no answer had begun.
        again: Option<Box<Request<SendBody>>>,
        /// Why.
        #[source]
        source: hyper::Error,
    },
}

/// All connections to instances.
#[derive(Clone)]
pub struct Upstreams {
    shared: Arc<Shared>,
}

struct Shared {
    pooling: AtomicBool,
    listeners: Listeners,
    /// A socket of acc's own, see [`Upstreams::trust`].
    own: OnceLock<PathBuf>,
    /// By I/O thread: a connection is used again by the thread that made it, whose reactor wakes for it.
    pools: Box<[Pools]>,
    /// Upgraded connections that have been silent for so long that they are not use.
    silent: Arc<Counts>,
    /// Requests on new connections that have no answer yet, see [`SLOW`].
    slow: Arc<Counts>,
    reaping: AtomicBool,
}

type Pools = RwLock<HashMap<InstanceName, Arc<Pool>>>;

/// A request that no parked connection took.
struct Left {
    req: Box<Request<SendBody>>,
    copy: Spare,
    /// So often the instance may have read it.
    reads: u8,
}

/// Boxed, because a connection is large and changes hands with every request.
type Links = Vec<Box<Link>>;

/// Parked connections of one run of one instance.
struct Pool {
    name: InstanceName,
    run: u64,
    shared: std::sync::Weak<Shared>,
    /// Newest last, so that surplus ones grow old and are closed. `None` once the gate is closed.
    parked: Mutex<Option<Links>>,
    /// Parked ones whose socket is not closed yet.
    count: AtomicU32,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Upstreams {
    /// `pooling`: keep connections for the next request; without it every request has its own (`Connection: close`).
    #[must_use]
    pub fn new(pooling: bool) -> Self {
        Self::to_instances_of(Listeners::default(), pooling)
    }

    /// The same, and unix sockets are believed to be an instance's only when the user of these listens there.
    #[must_use]
    pub fn to_instances_of(listeners: Listeners, pooling: bool) -> Self {
        let pooling = AtomicBool::new(pooling);
        Self {
            shared: Arc::new(Shared {
                pooling,
                listeners,
                own: OnceLock::new(),
                pools: (0..=io_threads::MAX).map(|_| RwLock::default()).collect(),
                silent: Arc::default(),
                slow: Arc::default(),
                reaping: AtomicBool::new(false),
            }),
        }
    }

    /// At this path acc itself listens: requests go there when another acc has taken over. The folder is acc's own, so nobody
    /// else can have put a socket there.
    pub fn trust(&self, own: PathBuf) {
        let _ = self.shared.own.set(own);
    }

    /// Who must listen where the gate leads.
    fn owner_of(&self, gate: &Gate) -> Option<u32> {
        let is_own = matches!(&gate.listen, Listen::Unix(path) if self.shared.own.get() == Some(path));
        if is_own { None } else { self.shared.listeners.user() }
    }

    /// Sends a request and returns the head of the answer; its body arrives as it is read. There is no time limit on the
    /// answer: streams and slow pages are the caller's business. Dropping the future or the body closes the connection.
    ///
    /// # Errors
    /// See [`UpstreamError`]: either the instance never saw the request, or it may have.
    pub async fn request(&self, gate: &Gate, req: Box<Request<SendBody>>) -> Result<Response<ReceiveBody>, UpstreamError> {
        let mut req = req;
        if self.shared.pooling.load(Ordering::Acquire) {
            let pool = self.pool(gate);
            let left = match Self::over_parked(&pool, req).await {
                Ok(done) => return done,
                Err(left) => left,
            };
            // Rare, and too large to be part of every request.
            return Box::pin(self.over_fresh(gate, Some(pool), left)).await;
        }
        only_request(&mut req);
        Box::pin(self.over_fresh(gate, None, Left { req, copy: None, reads: 0 })).await
    }

    /// Tries parked connections; gives the request back when none of them took it, and a copy if one was made.
    async fn over_parked(pool: &Arc<Pool>, mut req: Box<Request<SendBody>>) -> Result<Result<Response<ReceiveBody>, UpstreamError>, Left> {
        // What may not be sent twice asks the kernel first whether the other side has closed; what may finds out by itself.
        let ask = !is_safe(&req);
        let mut copy = None;
        while let Some(link) = pool.take(ask) {
            copy = copy.or_else(|| spare(&req));
            match link.send(req).await {
                Ok(response) => return Ok(Ok(response)),
                Err(SendFault::Unsent(request)) => req = request,
                Err(SendFault::Lost { began: true, source }) => {
                    return Ok(Err(UpstreamError::Broken { reused: true, reads: 1, began: true, again: None, source }));
                }
                Err(SendFault::Lost { began, source }) => {
                    let reads = reads(&source);
                    match copy {
                        Some(req) if !ask => return Err(Left { req, copy: None, reads }),
                        again => return Ok(Err(UpstreamError::Broken { reused: true, reads, began, again, source })),
                    }
                }
            }
        }
        Err(Left { req, copy, reads: 0 })
    }

    async fn over_fresh(&self, gate: &Gate, pool: Option<Arc<Pool>>, left: Left) -> Result<Response<ReceiveBody>, UpstreamError> {
        match Link::connect(gate, self.owner_of(gate), &self.shared.listeners, pool).await {
            Ok(link) => self.over_new(gate, link, left).await,
            Err(source) => Err(UpstreamError::Connect { request: left.req, reads: left.reads, source }),
        }
    }

    async fn over_new(&self, gate: &Gate, link: Box<Link>, left: Left) -> Result<Response<ReceiveBody>, UpstreamError> {
        let Left { req, copy, reads: before } = left;
        let again = copy.or_else(|| spare(&req));
        let mut sending = pin!(link.send(req));
        let sent = match tokio::time::timeout(SLOW, sending.as_mut()).await {
            Ok(sent) => sent,
            Err(_) => {
                let _slow = self.shared.slow.one(gate);
                self.close_parked(gate);
                sending.await
            }
        };
        match sent {
            Ok(response) => Ok(response),
            Err(SendFault::Unsent(request)) => {
                let source = io::Error::new(io::ErrorKind::ConnectionReset, "closed before the request was written");
                Err(UpstreamError::Connect { request, reads: before, source })
            }
            Err(SendFault::Lost { began, source }) => {
                let reads = before + reads(&source);
                Err(UpstreamError::Broken { reused: false, reads, began, again: again.filter(|_| !began), source })
            }
        }
    }

    /// Closes the parked connections of that run at once. Those that carry a request finish it and are closed then. A later
    /// request to the same run (the stop was called off) begins a new pool.
    pub fn close(&self, gate: &Gate) {
        for pools in &self.shared.pools {
            let pool = {
                let mut pools = pools.write().unwrap_or_else(PoisonError::into_inner);
                match pools.get(&gate.name) {
                    Some(pool) if pool.run <= gate.run => pools.remove(&gate.name),
                    _ => None,
                }
            };
            if let Some(pool) = pool {
                pool.close();
            }
        }
    }

    fn close_parked(&self, gate: &Gate) {
        for pools in &self.shared.pools {
            let pool = pools.read().unwrap_or_else(PoisonError::into_inner).get(&gate.name).filter(|pool| pool.run == gate.run).cloned();
            if let Some(pool) = pool {
                pool.drop_where(|_| true);
            }
        }
    }

    /// Keeps no connection any more: those without a request are closed now, the others after theirs. Another acc has taken
    /// over, and to it every connection of this one is use.
    pub fn retire(&self) {
        self.shared.pooling.store(false, Ordering::Release);
        for pools in &self.shared.pools {
            let pools = std::mem::take(&mut *pools.write().unwrap_or_else(PoisonError::into_inner));
            pools.into_values().for_each(|pool| pool.close());
        }
    }

    /// Counts an upgraded connection of that run among those that are not use, until the value is dropped.
    #[must_use]
    pub fn silent(&self, gate: &Gate) -> Counted {
        self.shared.silent.one(gate)
    }

    /// Open connections of that run that are not use: those that carry no request now, and the silent ones. Those the
    /// instance has closed meanwhile are dropped first.
    #[must_use]
    pub fn pooled(&self, gate: &Gate) -> u32 {
        self.parked(gate) + self.shared.silent.of(&gate.name, gate.run)
    }

    fn parked(&self, gate: &Gate) -> u32 {
        let mut count = 0;
        for pools in &self.shared.pools {
            let pools = pools.read().unwrap_or_else(PoisonError::into_inner);
            let Some(pool) = pools.get(&gate.name).filter(|pool| pool.run == gate.run).cloned() else { continue };
            drop(pools);
            pool.drop_where(Link::is_dead);
            count += pool.count.load(Ordering::Acquire);
        }
        count
    }

    fn pool(&self, gate: &Gate) -> Arc<Pool> {
        let mine = &self.shared.pools[io_threads::current()];
        let pools = mine.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(pool) = pools.get(&gate.name).filter(|pool| pool.run == gate.run) {
            return pool.clone();
        }
        drop(pools);
        let mut pools = mine.write().unwrap_or_else(PoisonError::into_inner);
        let new = || Arc::new(Pool::new(gate, Arc::downgrade(&self.shared)));
        let known = pools.entry(gate.name.clone()).or_insert_with(new);
        let old = (known.run < gate.run).then(|| std::mem::replace(known, new()));
        // A straggler of an older run has its connections to itself; they are never parked beside the new ones.
        let pool = if known.run == gate.run { known.clone() } else { Arc::new(Pool::closed(gate)) };
        drop(pools);
        if let Some(old) = old {
            old.close();
        }
        pool
    }
}

impl Pool {
    fn new(gate: &Gate, shared: std::sync::Weak<Shared>) -> Self {
        Self { name: gate.name.clone(), run: gate.run, shared, parked: Mutex::new(Some(Vec::new())), count: AtomicU32::new(0) }
    }

    fn closed(gate: &Gate) -> Self {
        Self { name: gate.name.clone(), run: gate.run, shared: std::sync::Weak::new(), parked: Mutex::new(None), count: AtomicU32::new(0) }
    }

    /// The newest parked connection that still stands; `ask`: ask the kernel, do not trust what was last heard.
    fn take(&self, ask: bool) -> Option<Box<Link>> {
        loop {
            let mut link = lock(&self.parked).as_mut()?.pop()?;
            if !(ask && link.is_dead()) {
                self.count.fetch_sub(1, Ordering::AcqRel);
                return Some(link);
            }
            drop(link);
            self.count.fetch_sub(1, Ordering::AcqRel);
        }
    }

    /// Keeps a connection whose answer was read to its end, unless the gate was closed meanwhile.
    /// An application that serves one connection after the other must not wait for one that is kept for later: while requests on
    /// new connections wait for it, none is kept.
    fn park(&self, mut link: Box<Link>) {
        let Some(shared) = self.shared.upgrade() else { return };
        if shared.slow.of(&self.name, self.run) > 0 {
            return;
        }
        link.parked_at = Instant::now();
        let mut parked = lock(&self.parked);
        match parked.as_mut() {
            Some(links) if links.len() < PARKED_MAX => {
                self.count.fetch_add(1, Ordering::AcqRel);
                links.push(link);
            }
            _ => {
                drop(parked);
                drop(link);
                return;
            }
        }
        drop(parked);
        start_reaper(&shared);
    }

    fn close(&self) {
        let links = lock(&self.parked).take();
        self.end(links.unwrap_or_default());
    }

    fn drop_where(&self, mut dead: impl FnMut(&mut Link) -> bool) {
        let links = match lock(&self.parked).as_mut() {
            Some(links) => links.extract_if(.., |link| dead(link)).collect(),
            None => Links::new(),
        };
        self.end(links);
    }

    /// Closes the sockets, outside the lock, and only then stops counting them.
    fn end(&self, links: Links) {
        let closed = u32::try_from(links.len()).unwrap_or(u32::MAX);
        drop(links);
        self.count.fetch_sub(closed, Ordering::AcqRel);
    }
}

/// One task for all pools, while anything is parked: closes what was parked for longer than [`IDLE`].
fn start_reaper(shared: &Arc<Shared>) {
    if shared.reaping.swap(true, Ordering::AcqRel) {
        return;
    }
    let shared = Arc::downgrade(shared);
    tokio::spawn(async move {
        loop {
            tokio::time::sleep(REAP_EVERY).await;
            let Some(shared) = shared.upgrade() else { return };
            if !reap(&shared) {
                shared.reaping.store(false, Ordering::Release);
                // Something may have been parked between the look and the line above; then its reaper is this one.
                if !anything_parked(&shared) || shared.reaping.swap(true, Ordering::AcqRel) {
                    return;
                }
            }
        }
    });
}

fn all_pools(shared: &Shared) -> Vec<Arc<Pool>> {
    let of = |pools: &Pools| pools.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect::<Vec<_>>();
    shared.pools.iter().flat_map(of).collect()
}

fn anything_parked(shared: &Shared) -> bool {
    all_pools(shared).iter().any(|pool| pool.count.load(Ordering::Acquire) > 0)
}

/// Closes old connections; says whether any are left.
fn reap(shared: &Shared) -> bool {
    let now = Instant::now();
    for pool in all_pools(shared) {
        pool.drop_where(|link| now.duration_since(link.parked_at) >= IDLE);
    }
    anything_parked(shared)
}

/// A copy of a request that may be sent twice.
type Spare = Option<Box<Request<SendBody>>>;

/// The method says that sending it twice does no harm, and no body is lost by it.
fn is_repeatable(req: &Request<SendBody>) -> bool {
    matches!(*req.method(), Method::GET | Method::HEAD | Method::OPTIONS) && hyper::body::Body::is_end_stream(req.body())
}

/// Its connection is used once.
fn only_request(req: &mut Request<SendBody>) {
    if !req.headers().contains_key(header::UPGRADE) {
        req.headers_mut().insert(header::CONNECTION, header::HeaderValue::from_static("close"));
    }
}

/// May be sent twice to the same run without asking: it does not turn the connection into another one either.
fn is_safe(req: &Request<SendBody>) -> bool {
    is_repeatable(req) && !req.headers().contains_key(header::UPGRADE)
}

/// May the instance have read a request that was lost with its connection? The kernel says that a connection was reset, or is no pipe any
/// more, when it was closed with bytes that nobody had read.
fn reads(lost: &hyper::Error) -> u8 {
    let cause = std::error::Error::source(lost).and_then(|cause| cause.downcast_ref::<io::Error>()).map(io::Error::kind);
    u8::from(!matches!(cause, Some(io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe)))
}

fn spare(req: &Request<SendBody>) -> Spare {
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
