//! The command line's side of the control socket: one request, and the difference between "no
//! server" and "could not ask".
//!
//! It never retries a request that may have reached the server, unless that only asks.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::StatusCode;
use hyper::client::conn::http1;
use hyper::header::{CONTENT_TYPE, HOST};
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tokio_util::task::AbortOnDropHandle;

use super::{BODY_MAX, ROUTE};
use crate::service::error::{ErrorKind, ServiceError};
use crate::service::outcome::Outcome;
use crate::service::request::Request;

/// How long the server's queue of connections may be full before that counts as a fault.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);
const CONNECT_PAUSE: Duration = Duration::from_millis(20);

/// A question that needs no work is answered within this, or the server is taken for hung.
const PING_LIMIT: Duration = Duration::from_secs(10);

/// While a verb runs, the server is asked this often whether it is still there.
const PING_EVERY: Duration = Duration::from_secs(10);

/// What became of a call.
#[derive(Debug)]
pub enum ControlReply {
    /// No server: there is no socket, or no process listens on it.
    NoServer,
    /// The server ran the request and this is its answer.
    Answered(Result<Outcome, ServiceError>),
}

/// The server could not be asked, or did not get to its answer. Never means that there is no
/// server.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// No connection although a process may listen: no permission, queue full.
    #[error("could not reach the server on `{}`", path.display())]
    Unreachable {
        /// The socket.
        path: PathBuf,
        /// The reason.
        #[source]
        source: io::Error,
    },
    /// The connection broke after the request was sent: what became of it is not known.
    #[error("the connection to the server broke before its answer")]
    Broken(#[source] hyper::Error),
    /// It is there but does not even answer a ping: hung.
    #[error("the server on `{}` does not answer", .0.display())]
    Silent(PathBuf),
    /// It answered something that is not an answer.
    #[error("the server on `{}` sent an invalid answer ({status}): {why}", path.display())]
    Garbled {
        /// The socket.
        path: PathBuf,
        /// The HTTP status.
        status: u16,
        /// What is wrong with it.
        why: String,
    },
}

impl From<CallError> for ServiceError {
    fn from(error: CallError) -> Self {
        let (kind, hint) = match &error {
            CallError::Unreachable { source, .. }
                if source.kind() == io::ErrorKind::PermissionDenied =>
            {
                (
                    ErrorKind::Failed,
                    "run this command as the user who runs acc's server, or as root",
                )
            }
            CallError::Unreachable { .. } => (ErrorKind::Failed, "run `acc doctor`"),
            CallError::Broken(_) => (
                ErrorKind::Failed,
                "the command may be done or half done: check `acc info` and the server's log",
            ),
            CallError::Silent(_) => (
                ErrorKind::TimedOut,
                "the server may hang: check its log and run `acc doctor`",
            ),
            CallError::Garbled { .. } => (
                ErrorKind::Failed,
                "check with `acc doctor` whether the server has the version of this command",
            ),
        };
        Self::new(kind, crate::service::error::chain(&error), hint)
    }
}

/// Sends one request to the server behind `socket` and waits for its answer, as long as the server
/// lives. A ping and a question for the settings end within ten seconds.
///
/// # Errors
/// When the server is there, or may be, and no answer came from it.
pub async fn call(socket: &Path, request: &Request) -> Result<ControlReply, CallError> {
    if matches!(request, Request::Ping | Request::Settings) {
        return question(socket, request).await;
    }
    let answer = exchange(socket, request);
    tokio::select! {
        reply = answer => reply,
        () = silence(socket) => Err(CallError::Silent(socket.to_owned())),
    }
}

async fn question(socket: &Path, request: &Request) -> Result<ControlReply, CallError> {
    let answered = async {
        loop {
            match exchange(socket, request).await {
                // It died just now, or made way for another one: a question may be sent again, and
                // tells which of both.
                Err(CallError::Broken(_)) => tokio::time::sleep(CONNECT_PAUSE).await,
                reply => return reply,
            }
        }
    };
    tokio::time::timeout(PING_LIMIT, answered)
        .await
        .unwrap_or_else(|_| Err(CallError::Silent(socket.to_owned())))
}

/// Resolves when two pings in a row stay without any answer. A server that is gone is noticed by
/// the call itself.
async fn silence(socket: &Path) {
    let mut missed = 0;
    while missed < 2 {
        tokio::time::sleep(PING_EVERY).await;
        match question(socket, &Request::Ping).await {
            Err(CallError::Silent(_)) => missed += 1,
            _ => missed = 0,
        }
    }
}

async fn exchange(socket: &Path, request: &Request) -> Result<ControlReply, CallError> {
    let garbled = |status: StatusCode, why: String| CallError::Garbled {
        path: socket.to_owned(),
        status: status.as_u16(),
        why,
    };
    let Some(stream) = connect(socket)
        .await
        .map_err(|source| CallError::Unreachable {
            path: socket.to_owned(),
            source,
        })?
    else {
        return Ok(ControlReply::NoServer);
    };
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
        .await
        .map_err(CallError::Broken)?;
    // Ends with this future: the server sees at once that its client has left.
    let _connection = AbortOnDropHandle::new(tokio::spawn(connection));
    let request = http(request).map_err(|why| garbled(StatusCode::OK, why))?;
    let response = sender
        .send_request(request)
        .await
        .map_err(CallError::Broken)?;
    let status = response.status();
    let body = Limited::new(response.into_body(), BODY_MAX * 16);
    let body = match body.collect().await {
        Ok(body) => body.to_bytes(),
        Err(error) => {
            return Err(match error.downcast::<hyper::Error>() {
                Ok(broken) => CallError::Broken(*broken),
                Err(other) => garbled(status, other.to_string()),
            });
        }
    };
    let not_json = |e: serde_json::Error| garbled(status, e.to_string());
    Ok(ControlReply::Answered(match status {
        StatusCode::OK => Ok(serde_json::from_slice(&body).map_err(not_json)?),
        _ => Err(serde_json::from_slice(&body).map_err(not_json)?),
    }))
}

fn http(request: &Request) -> Result<hyper::Request<Full<Bytes>>, String> {
    let body = serde_json::to_vec(request).map_err(|e| e.to_string())?;
    hyper::Request::post(ROUTE)
        .header(HOST, "acc")
        .header(CONTENT_TYPE, "application/json")
        .body(Full::new(Bytes::from(body)))
        .map_err(|e| e.to_string())
}

/// `None`: no process listens there.
async fn connect(socket: &Path) -> io::Result<Option<UnixStream>> {
    let attempts = async {
        loop {
            match UnixStream::connect(socket).await {
                Ok(stream) => return Ok(Some(stream)),
                Err(e)
                    if matches!(
                        e.kind(),
                        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused
                    ) =>
                {
                    return Ok(None);
                }
                // A unix socket with a full queue fails at once instead of waiting.
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                    tokio::time::sleep(CONNECT_PAUSE).await
                }
                Err(e) => return Err(e),
            }
        }
    };
    tokio::time::timeout(CONNECT_LIMIT, attempts)
        .await
        .unwrap_or_else(|_| {
            Err(io::Error::new(
                io::ErrorKind::TimedOut,
                "its connection queue stays full",
            ))
        })
}
