//! The server's side of the control socket: which users may connect, the form of a request, and how
//! an answer is sent.
//!
//! It never cancels a verb because its client left, never waits for a client without an end, and
//! never shows more of an error than the error's own two lines.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::header::{ALLOW, CACHE_CONTROL, CONNECTION, CONTENT_TYPE, HeaderValue};
use hyper::{Method, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{UnixListener, UnixStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::patient::PatientStream;
use super::{BODY_MAX, ROUTE};
use crate::host::{fs, listen};
use crate::service::error::{ErrorKind, ServiceError};
use crate::service::handler::{EntryPoint, Handler, RequestCaller, handle};
use crate::service::outcome::Outcome;
use crate::service::request::Request;

type HttpRequest = hyper::Request<Incoming>;
type HttpResponse = hyper::Response<Full<Bytes>>;

/// A client that does not send the head of its request within this time is disconnected.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);

/// The same for the body, which is small.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);

/// A client that reads nothing of its answer for this time is disconnected.
pub(super) const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// A client that was accepted just before the end gets this long to send its request.
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
/// end) and returns. The caller bounds how long that may take.
pub async fn serve(listener: UnixListener, handler: Arc<dyn Handler>, shutdown: CancellationToken) {
    let tasks = TaskTracker::new();
    loop {
        let accepted = tokio::select! {
            () = shutdown.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, _)) => {
                let (handler, verbs, shutdown) =
                    (Arc::clone(&handler), tasks.clone(), shutdown.clone());
                tasks.spawn(connection(stream, handler, verbs, shutdown));
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

async fn connection(
    stream: UnixStream,
    handler: Arc<dyn Handler>,
    verbs: TaskTracker,
    shutdown: CancellationToken,
) {
    let caller = peer(&stream);
    let service = hyper::service::service_fn(move |request: HttpRequest| {
        let (handler, verbs) = (Arc::clone(&handler), verbs.clone());
        async move {
            Ok::<_, std::convert::Infallible>(match caller {
                Some(caller) => answer(request, handler, caller, &verbs).await,
                None => refuse(
                    StatusCode::FORBIDDEN,
                    &ServiceError::failed(
                        "only its owner may use the control socket",
                        "run this command as the user who runs acc's server, or as root",
                    ),
                ),
            })
        }
    });
    let mut builder = hyper::server::conn::http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT);
    let mut conn = std::pin::pin!(builder.serve_connection(
        TokioIo::new(PatientStream::new(stream, ANSWER_TIMEOUT)),
        service
    ));
    let ended = tokio::select! {
        ended = conn.as_mut() => ended,
        // A client that was accepted just now is about to send its request.
        () = stopped_for(&shutdown, LAST_WORD) => {
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

async fn answer(
    request: HttpRequest,
    handler: Arc<dyn Handler>,
    caller: RequestCaller,
    verbs: &TaskTracker,
) -> HttpResponse {
    if request.uri().path() != ROUTE {
        let text = format!("the control socket has no `{}`", request.uri().path());
        return refuse(StatusCode::NOT_FOUND, &invalid(text));
    }
    if request.method() != Method::POST {
        let mut response = refuse(
            StatusCode::METHOD_NOT_ALLOWED,
            &invalid(format!("`{ROUTE}` accepts only POST")),
        );
        response
            .headers_mut()
            .insert(ALLOW, HeaderValue::from_static("POST"));
        return response;
    }
    let request = match tokio::time::timeout(BODY_TIMEOUT, read(request.into_body())).await {
        Ok(Ok(request)) => request,
        Ok(Err(error)) => return refuse(StatusCode::BAD_REQUEST, &error),
        Err(_) => {
            let text = format!(
                "the request was not complete within {} s",
                BODY_TIMEOUT.as_secs()
            );
            let mut response = refuse(StatusCode::REQUEST_TIMEOUT, &invalid(text));
            response
                .headers_mut()
                .insert(CONNECTION, HeaderValue::from_static("close"));
            return response;
        }
    };
    // A task of its own: when the client leaves, hyper drops this future, and the verb must not end
    // half done with it.
    match verbs
        .spawn(async move { handle(&*handler, &caller, request).await })
        .await
    {
        Ok(Ok(outcome)) => done(&outcome),
        Ok(Err(error)) => refuse(status(error.kind), &error),
        Err(error) => {
            tracing::error!(%error, "a request failed by an internal error");
            let error = ServiceError::failed(
                "internal error in acc's server",
                "please report this with the server's log",
            );
            refuse(StatusCode::INTERNAL_SERVER_ERROR, &error)
        }
    }
}

async fn read(body: Incoming) -> Result<Request, ServiceError> {
    let bytes = Limited::new(body, BODY_MAX)
        .collect()
        .await
        .map_err(|e| invalid(format!("could not read the request: {e}")))?
        .to_bytes();
    serde_json::from_slice(&bytes).map_err(|e| invalid(format!("not a request: {e}")))
}

fn invalid(message: String) -> ServiceError {
    ServiceError::new(
        ErrorKind::Invalid,
        message,
        "check with `acc doctor` whether the server has the version of this command",
    )
}

/// The HTTP status of each kind of error.
#[must_use]
pub fn status(kind: ErrorKind) -> StatusCode {
    match kind {
        ErrorKind::Failed => StatusCode::INTERNAL_SERVER_ERROR,
        ErrorKind::Invalid => StatusCode::BAD_REQUEST,
        ErrorKind::NotFound => StatusCode::NOT_FOUND,
        ErrorKind::Denied => StatusCode::CONFLICT,
        ErrorKind::TimedOut => StatusCode::GATEWAY_TIMEOUT,
    }
}

fn done(outcome: &Outcome) -> HttpResponse {
    json(StatusCode::OK, serde_json::to_vec(outcome))
}

fn refuse(status: StatusCode, error: &ServiceError) -> HttpResponse {
    json(status, serde_json::to_vec(error))
}

fn json(status: StatusCode, body: serde_json::Result<Vec<u8>>) -> HttpResponse {
    let (status, body) = match body {
        Ok(body) => (status, body),
        Err(error) => {
            tracing::error!(%error, "could not write an answer as JSON");
            (StatusCode::INTERNAL_SERVER_ERROR, Vec::new())
        }
    };
    let mut response = hyper::Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
        .headers_mut()
        .insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
