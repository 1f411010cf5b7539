//! Calls to a supervisor over its unix socket: one connection, kept open and reopened when it
//! breaks. Every call has a time limit, which includes the wait for its turn.
//!
//! Its errors distinguish "no process listens there", "no answer" and "refused".

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tokio::sync::Mutex;

use crate::host::error_chain::chain;

use super::xmlrpc::{self, Value, XmlRpcFault};

/// Longest answer: that to `getAllProcessInfo` for about ten thousand processes.
const MAX_ANSWER: usize = 16 << 20;

/// Why a call returned no value.
#[derive(Debug, Clone, thiserror::Error)]
pub(super) enum RpcError {
    /// The socket is missing, or no process listens on it.
    #[error("no process is listening on `{}`", .0.display())]
    Absent(PathBuf),
    /// A process may listen, but gave no valid answer.
    #[error("{0}")]
    Broken(String),
    /// It refused the call.
    #[error(transparent)]
    Fault(#[from] XmlRpcFault),
}

impl RpcError {
    /// The fault code, if it is a fault.
    pub(super) fn code(&self) -> Option<i64> {
        match self {
            Self::Fault(fault) => Some(fault.code),
            Self::Absent(_) | Self::Broken(_) => None,
        }
    }
}

/// How long a killed process may take to end after its connections have broken.
const DEATH: Duration = Duration::from_millis(20);

/// A client of one supervisord.
#[derive(Debug)]
pub(super) struct RpcClient {
    socket: PathBuf,
    limit: Duration,
    /// The open connection, while it is idle.
    idle: Mutex<Option<SendRequest<Full<Bytes>>>>,
}

impl RpcClient {
    /// For the supervisord on this socket; nothing is connected yet. Every call ends within
    /// `limit`.
    pub(super) fn new(socket: PathBuf, limit: Duration) -> Self {
        Self {
            socket,
            limit,
            idle: Mutex::new(None),
        }
    }

    /// The socket.
    pub(super) fn socket(&self) -> &Path {
        &self.socket
    }

    /// Makes one call.
    pub(super) async fn call(&self, method: &str, params: &[Value]) -> Result<Value, RpcError> {
        let text = xmlrpc::call(method, params);
        let began = tokio::time::Instant::now();
        let answer = match tokio::time::timeout(self.limit, self.exchange(text)).await {
            Ok(answer) => answer?,
            Err(_) => {
                return Err(RpcError::Broken(format!(
                    "no answer to `{method}` within {} s",
                    self.limit.as_secs_f64()
                )));
            }
        };
        tracing::debug!(
            method,
            took_us = began.elapsed().as_micros(),
            "called supervisord"
        );
        match xmlrpc::response(&answer) {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(fault)) => Err(fault.into()),
            Err(malformed) => Err(RpcError::Broken(malformed.to_string())),
        }
    }

    /// Makes several calls one after the other with nothing in between; returns as many results as
    /// calls.
    pub(super) async fn multicall(
        &self,
        calls: &[(&str, Vec<Value>)],
    ) -> Result<Vec<Result<Value, XmlRpcFault>>, RpcError> {
        match self
            .call("system.multicall", &[xmlrpc::multicall(calls)])
            .await?
        {
            Value::Array(results) if results.len() == calls.len() => {
                Ok(results.into_iter().map(Value::into_result).collect())
            }
            other => Err(RpcError::Broken(format!(
                "{} results expected, got {other:?}",
                calls.len()
            ))),
        }
    }

    /// Sends the call and reads the answer. If a kept connection was closed meanwhile, tries once
    /// more on a new one; that is safe because every call that acc makes may be repeated. If the
    /// new one breaks, supervisord is dying: the next attempt finds it gone.
    async fn exchange(&self, text: String) -> Result<String, RpcError> {
        let body = Bytes::from(text);
        let mut idle = self.idle.lock().await;
        // Taken out: if this future is dropped half-way, the connection is closed and not reused.
        if let Some(mut kept) = idle.take()
            && kept.ready().await.is_ok()
            && let Ok(answer) = post(&mut kept, body.clone()).await
        {
            *idle = Some(kept);
            return answer;
        }
        let mut fresh = self.connect().await?;
        let answer = match post(&mut fresh, body.clone()).await {
            Ok(answer) => answer,
            Err(e) if e.is_parse() => return Err(RpcError::Broken(chain(&e))),
            Err(_) => {
                tokio::time::sleep(DEATH).await;
                fresh = self.connect().await?;
                post(&mut fresh, body)
                    .await
                    .map_err(|e| RpcError::Broken(chain(&e)))?
            }
        };
        *idle = Some(fresh);
        answer
    }

    async fn connect(&self) -> Result<SendRequest<Full<Bytes>>, RpcError> {
        let stream = UnixStream::connect(&self.socket)
            .await
            .map_err(|e| match e.kind() {
                io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
                    RpcError::Absent(self.socket.clone())
                }
                _ => RpcError::Broken(format!(
                    "could not connect to `{}`: {e}",
                    self.socket.display()
                )),
            })?;
        let (sender, connection) = handshake(TokioIo::new(stream))
            .await
            .map_err(|e| RpcError::Broken(chain(&e)))?;
        // Ends with the connection, when `sender` is dropped or supervisord closes it. The pending
        // call returns its error.
        tokio::spawn(async move { drop(connection.await) });
        Ok(sender)
    }
}

/// Sends one POST; the outer error means that the connection is unusable.
async fn post(
    sender: &mut SendRequest<Full<Bytes>>,
    body: Bytes,
) -> Result<Result<String, RpcError>, hyper::Error> {
    let request = Request::post("/RPC2")
        .header("Host", "localhost")
        .header("Content-Type", "text/xml")
        .body(Full::new(body));
    let Ok(request) = request else {
        return Ok(Err(RpcError::Broken(
            "the request could not be made".to_owned(),
        )));
    };
    let response = sender.send_request(request).await?;
    let status = response.status();
    let body = match Limited::new(response.into_body(), MAX_ANSWER)
        .collect()
        .await
    {
        Ok(body) => body.to_bytes(),
        Err(e) => return Ok(Err(RpcError::Broken(e.to_string()))),
    };
    if status != StatusCode::OK {
        return Ok(Err(RpcError::Broken(format!(
            "it answered with HTTP status {}",
            status.as_u16()
        ))));
    }
    Ok(String::from_utf8(body.into())
        .map_err(|_| RpcError::Broken("its answer is not UTF-8".to_owned())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::UnixListener;

    fn client(dir: &tempfile::TempDir, limit: Duration) -> RpcClient {
        RpcClient::new(dir.path().join("s"), limit)
    }

    /// Serves one canned answer for each connection, then closes it.
    fn serve(dir: &tempfile::TempDir, answers: Vec<String>) -> tokio::task::JoinHandle<()> {
        let listener = UnixListener::bind(dir.path().join("s")).unwrap();
        tokio::spawn(async move {
            for answer in answers {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut read = Vec::new();
                let mut buffer = [0; 4096];
                while !String::from_utf8_lossy(&read).contains("</methodCall>") {
                    let n = stream.read(&mut buffer).await.unwrap();
                    read.extend_from_slice(&buffer[..n]);
                }
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
        })
    }

    fn http(status: &str, body: &str) -> String {
        format!(
            "HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        )
    }

    const TRUE: &str = "<methodResponse><params><param><value><boolean>1</boolean></value></param></params></methodResponse>";

    #[tokio::test]
    async fn nobody_there_is_told_apart_from_no_answer() {
        let dir = tempfile::tempdir().unwrap();
        let client = client(&dir, Duration::from_millis(100));
        assert!(matches!(
            client.call("x", &[]).await,
            Err(RpcError::Absent(_))
        ));
        let listener = UnixListener::bind(dir.path().join("s")).unwrap();
        let error = client.call("x", &[]).await.unwrap_err();
        assert_eq!(error.to_string(), "no answer to `x` within 0.1 s");
        drop(listener);
        assert!(
            matches!(client.call("x", &[]).await, Err(RpcError::Absent(_))),
            "a socket file left behind"
        );
    }

    #[tokio::test]
    async fn a_closed_connection_is_made_anew() {
        let dir = tempfile::tempdir().unwrap();
        let served = serve(&dir, vec![http("200 OK", TRUE); 3]);
        let client = client(&dir, Duration::from_secs(20));
        for _ in 0..3 {
            assert_eq!(client.call("x", &[]).await.unwrap(), Value::Bool(true));
        }
        served.await.unwrap();
    }

    #[tokio::test]
    async fn one_that_dies_while_it_is_asked_is_gone() {
        let dir = tempfile::tempdir().unwrap();
        let served = serve(&dir, vec![String::new()]);
        let client = client(&dir, Duration::from_secs(20));
        assert!(matches!(
            client.call("x", &[]).await,
            Err(RpcError::Absent(_))
        ));
        served.await.unwrap();
    }

    #[tokio::test]
    async fn odd_answers_are_errors() {
        let dir = tempfile::tempdir().unwrap();
        let answers = [
            http("500 Internal Server Error", ""),
            http("200 OK", "<html/>"),
            http("200 OK", TRUE),
            "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nshort".to_owned(),
            "SSH-2.0-x\r\n".to_owned(),
        ];
        let served = serve(&dir, answers.to_vec());
        let client = client(&dir, Duration::from_secs(20));
        assert_eq!(
            client.call("x", &[]).await.unwrap_err().to_string(),
            "it answered with HTTP status 500"
        );
        assert!(
            client
                .call("x", &[])
                .await
                .unwrap_err()
                .to_string()
                .contains("not understood")
        );
        assert!(
            client
                .multicall(&[("x", vec![])])
                .await
                .unwrap_err()
                .to_string()
                .starts_with("1 results expected")
        );
        for _ in 0..2 {
            assert!(matches!(
                client.call("x", &[]).await,
                Err(RpcError::Broken(_))
            ));
        }
        served.await.unwrap();
    }
}
