//! The server's side of the control socket: which users may connect, how long a client may take,
//! and how it ends.
//!
//! It never waits for a client without an end. It knows no request: `routes` does.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::{Extension, Router};
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{UnixListener, UnixStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::patient::PatientStream;
use super::routes;
use crate::host::{fs, listen};
use crate::service::handler::{EntryPoint, Handler, RequestCaller};

/// A client that does not send the head of its request within this time is disconnected.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);

/// A client that reads nothing of its answer for this time is disconnected.
pub(super) const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// A client that was accepted just before the end gets this long to send the head of its request.
const LAST_WORD: Duration = Duration::from_millis(250);

/// Pause after a failed accept (no file descriptors left): the loop must not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Makes the socket with mode 0600. One left by a server that died is replaced: the caller holds
/// the owner lock, so no other process can be listening on it. It is bound beside and renamed, so
/// that it is never open to others, not for a moment.
pub fn bind(path: &Path) -> io::Result<UnixListener> {
    // Shorter than the name itself: a socket path has 108 bytes in all.
    let beside = path.with_extension("new");
    fs::remove_file(&beside)?;
    let listener = listen::unix(&beside, 0o600, None).map_err(io::Error::other)?;
    std::fs::rename(&beside, path)?;
    listener.set_nonblocking(true)?;
    UnixListener::from_std(listener)
}

/// Serves until `shutdown`; then accepts nothing new, finishes what it has begun (each verb to its
/// end) and returns. The caller bounds how long that may take. `axum::serve` has no limit for the
/// head of a request, so connections are accepted and driven here.
pub async fn serve(listener: UnixListener, handler: Arc<dyn Handler>, shutdown: CancellationToken) {
    let tasks = TaskTracker::new();
    let routes = routes::all(handler, tasks.clone());
    loop {
        let accepted = tokio::select! {
            () = shutdown.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, _)) => {
                tasks.spawn(connection(stream, routes.clone(), shutdown.clone()));
            }
            Err(error) => {
                tracing::warn!(%error, "could not accept a connection on the control socket");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    drop(listener);
    tasks.close();
    tasks.wait().await;
}

async fn connection(stream: UnixStream, routes: Router, shutdown: CancellationToken) {
    let routes = match peer(&stream) {
        Some(caller) => routes.layer(Extension(caller)),
        None => routes::for_strangers(),
    };
    let mut builder = hyper::server::conn::http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT);
    let (begun, routes) = (AtomicBool::new(false), TowerToHyperService::new(routes));
    let mut conn = std::pin::pin!(builder.serve_connection(
        TokioIo::new(PatientStream::new(stream, ANSWER_TIMEOUT)),
        service_fn(|request| {
            begun.store(true, Ordering::Relaxed);
            routes.call(request)
        })
    ));
    let ended = tokio::select! {
        ended = conn.as_mut() => ended,
        // A client that was accepted just now is about to send its request.
        () = stopped_for(&shutdown, LAST_WORD) => {
            if !begun.load(Ordering::Relaxed) {
                return;
            }
            conn.as_mut().graceful_shutdown();
            conn.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection to the control socket ended early");
    }
}

async fn stopped_for(stop: &CancellationToken, time: Duration) {
    stop.cancelled().await;
    tokio::time::sleep(time).await;
}

/// The caller, by what the kernel says of the connection; `None`: it may not speak here. The mode of
/// the socket does the same; this also holds when the mode was changed.
pub(super) fn peer(stream: &UnixStream) -> Option<RequestCaller> {
    let own = rustix::process::geteuid().as_raw();
    let uid = stream.peer_cred().ok()?.uid();
    let allowed = uid == 0 || uid == own;
    allowed.then(|| RequestCaller::operator(uid, EntryPoint::ControlSocket))
}
