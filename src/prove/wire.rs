//! A client's connections: opened, used once or repeatedly, and what is known when they break.
//!
//! It never repeats a request and never follows a redirect: the client decides.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Limited};
use hyper::client::conn::http1;
use hyper::upgrade::Upgraded;
use hyper::{Request, Response, StatusCode, body::Incoming};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::Role;

use super::sample::ClientConnection;
use crate::host::clock::monotonic_ns;
use crate::host::error_chain::chain;

/// The body of a request.
pub(super) type RequestBody = UnsyncBoxBody<Bytes, Infallible>;

/// Longest response that is kept, in bytes.
const ANSWER_MAX: usize = 4 * 1024 * 1024;
/// How long the other side of a WebSocket may take to close.
const GOODBYE: Duration = Duration::from_secs(2);

/// An open connection.
pub(super) struct Wire {
    sender: http1::SendRequest<RequestBody>,
    driver: JoinHandle<()>,
    /// Identifies the connection.
    pub(super) line: ClientConnection,
    /// It has carried a request already.
    pub(super) used: bool,
}

impl Drop for Wire {
    fn drop(&mut self) {
        // A connection that became a WebSocket is not driven by this task any more.
        self.driver.abort();
    }
}

/// A complete response.
pub(super) struct WireAnswer {
    pub(super) status: StatusCode,
    pub(super) body: Bytes,
    /// When its head arrived.
    pub(super) head: u64,
}

impl WireAnswer {
    /// The beginning of its body on one line, for messages.
    pub(super) fn text(&self) -> String {
        let text: String = String::from_utf8_lossy(&self.body)
            .chars()
            .take(300)
            .collect();
        text.replace('\n', " ").trim().to_owned()
    }
}

/// There is no complete response.
pub(super) struct Broken {
    /// No byte of it arrived.
    pub(super) before_head: bool,
    /// Why.
    pub(super) why: Box<str>,
}

impl Wire {
    /// Opens a connection.
    pub(super) async fn open(to: SocketAddr) -> Result<Self, Box<str>> {
        let opened = monotonic_ns();
        let stream = TcpStream::connect(to).await.map_err(|e| chain(&e))?;
        let line = ClientConnection {
            from: stream.local_addr().map_err(|e| chain(&e))?,
            opened,
        };
        stream.set_nodelay(true).map_err(|e| chain(&e))?;
        let (sender, connection) = http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|e| chain(&e))?;
        let driver = tokio::spawn(async move {
            // An error is reported to the caller that waits for the response.
            let _ = connection.with_upgrades().await;
        });
        Ok(Self {
            sender,
            driver,
            line,
            used: false,
        })
    }

    /// Whether it can carry another request.
    pub(super) async fn is_ready(&mut self) -> bool {
        // The task that drives it must first see that the peer has closed.
        tokio::task::yield_now().await;
        self.sender.ready().await.is_ok()
    }

    /// Sends a request and returns the head of the response.
    pub(super) async fn send(
        &mut self,
        request: Request<RequestBody>,
    ) -> Result<(Response<Incoming>, u64), Broken> {
        self.used = true;
        match self.sender.send_request(request).await {
            Ok(response) => Ok((response, monotonic_ns())),
            Err(e) => Err(Broken {
                before_head: true,
                why: chain(&e).into(),
            }),
        }
    }

    /// Sends a request and reads the whole response.
    pub(super) async fn ask(
        &mut self,
        request: Request<RequestBody>,
    ) -> Result<WireAnswer, Broken> {
        let (response, head) = self.send(request).await?;
        whole(response, head).await
    }
}

/// Reads the rest of a response.
pub(super) async fn whole(response: Response<Incoming>, head: u64) -> Result<WireAnswer, Broken> {
    let status = response.status();
    match Limited::new(response.into_body(), ANSWER_MAX)
        .collect()
        .await
    {
        Ok(body) => Ok(WireAnswer {
            status,
            body: body.to_bytes(),
            head,
        }),
        Err(e) => Err(Broken {
            before_head: false,
            why: chain(e.as_ref()).into(),
        }),
    }
}

/// A WebSocket.
pub(super) struct Talk(WebSocketStream<TokioIo<Upgraded>>);

impl Talk {
    /// Makes it from a response with status 101.
    pub(super) async fn begin(response: Response<Incoming>) -> Result<Self, Box<str>> {
        let upgraded = hyper::upgrade::on(response).await.map_err(|e| chain(&e))?;
        Ok(Self(
            WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Client, None).await,
        ))
    }

    /// Sends a text and returns the next one that arrives.
    pub(super) async fn echo(&mut self, text: &str) -> Result<String, Box<str>> {
        self.0
            .send(Message::text(text))
            .await
            .map_err(|e| chain(&e))?;
        loop {
            match self.0.next().await {
                Some(Ok(Message::Text(back))) => return Ok(back.to_string()),
                Some(Ok(Message::Close(bye))) => {
                    return Err(format!("closed by the other side: {bye:?}").into());
                }
                Some(Ok(_)) => {}
                Some(Err(e)) => return Err(chain(&e).into()),
                None => return Err("closed by the other side".into()),
            }
        }
    }

    /// Waits until the peer closes it; returns the status, if there is one.
    pub(super) async fn closed(&mut self) -> Result<Option<u16>, Box<str>> {
        loop {
            match self.0.next().await {
                Some(Ok(Message::Close(frame))) => return Ok(frame.map(|frame| frame.code.into())),
                Some(Ok(_)) => {}
                Some(Err(e)) => return Err(chain(&e).into()),
                None => return Err("closed without a close frame".into()),
            }
        }
    }

    /// Closes it and waits a moment for the peer.
    pub(super) async fn end(mut self) {
        let goodbye = async {
            let _ = self.0.close(None).await;
            while let Some(Ok(_)) = self.0.next().await {}
        };
        let _ = tokio::time::timeout(GOODBYE, goodbye).await;
    }
}
