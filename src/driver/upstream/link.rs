//! One connection to an instance: connects, sends a request, drives the connection while the
//! response is read, and returns it to its pool.
//!
//! It never decides to send a request again.

use std::future::{Future, poll_fn};
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::client::conn::http1;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::Instant;

use super::body::SendBody;
use super::local::Local;
use super::socket::{InstanceStream, Io, SocketState};
use crate::domain::gate::Gate;
use crate::domain::instance::Listen;
use crate::driver::listener::{ListenerOwner, Listeners};
use crate::host::unix_connect;

/// A connect to a socket on this host is answered at once; if it takes longer, the backlog is full
/// or the process is stopped.
const CONNECT: Duration = Duration::from_secs(1);
/// Most bytes buffered per direction, so that a slow reader uses little memory.
const BUFFER: usize = 64 * 1024;
/// Most headers of a message. hyper reserves 64 bytes for each of them with every message; nginx
/// limits only their length.
pub const MAX_HEADERS: usize = 1000;

/// Why a request has no response.
pub(super) enum SendFault {
    /// Nothing of it was written.
    Unsent(Box<Request<SendBody>>),
    /// A part of it was written.
    Lost {
        /// A response had begun.
        began: bool,
        /// The error of the connection.
        source: hyper::Error,
    },
}

/// Header names keep their spelling. Invalid header lines are dropped, as nginx does.
fn settings() -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder
        .max_buf_size(BUFFER)
        .max_headers(MAX_HEADERS)
        .preserve_header_case(true)
        .title_case_headers(true)
        .allow_spaces_after_header_name_in_responses(true)
        .allow_obsolete_multiline_headers_in_responses(true)
        .ignore_invalid_headers_in_responses(true);
    builder
}

type Connection = http1::Connection<TokioIo<Io>, SendBody>;

/// Receives a connection whose response was read to its end.
pub(super) trait Park: Send + Sync {
    /// Keeps the connection for a later request, or closes it.
    fn park(&self, link: Box<Link>);
}

/// A connection and the two ends that hyper has for it.
pub(super) struct Link {
    /// `None` once it has ended without an answer.
    conn: Option<Connection>,
    /// hyper is done with it. It is kept, because after a 101 it contains the socket.
    done: bool,
    sender: http1::SendRequest<SendBody>,
    shared: Arc<SocketState>,
    pool: Option<Arc<dyn Park>>,
    /// When it was last parked.
    pub(super) parked_at: Instant,
}

impl Link {
    /// Connects; `pool` receives the connection once a response was read to its end.
    pub(super) async fn connect(
        gate: &Gate,
        listeners: &Listeners,
        pool: Option<Arc<dyn Park>>,
    ) -> io::Result<Box<Self>> {
        let stream = match tokio::time::timeout(CONNECT, connect(gate, listeners)).await {
            Ok(stream) => stream?,
            Err(_) => return Err(io::ErrorKind::TimedOut.into()),
        };
        Self::begin(stream, pool).await
    }

    async fn begin(stream: InstanceStream, pool: Option<Arc<dyn Park>>) -> io::Result<Box<Self>> {
        let shared = Arc::new(SocketState::default());
        let io = TokioIo::new(Io::new(stream, shared.clone()));
        let (sender, conn) = settings().handshake(io).await.map_err(io::Error::other)?;
        Ok(Box::new(Self {
            conn: Some(conn),
            done: false,
            sender,
            shared,
            pool,
            parked_at: Instant::now(),
        }))
    }

    /// Sends one request and waits for the head of the response.
    pub(super) async fn send(
        mut self: Box<Self>,
        req: Box<Request<SendBody>>,
    ) -> Result<Response<ReceiveBody>, SendFault> {
        self.shared.begin(req.extensions().get());
        let mut answer = pin!(self.sender.try_send_request(*req));
        let (answer, ended) = poll_fn(|cx| {
            // Drive the connection first: it produces the response.
            self.drive(cx);
            let mut polled = answer.as_mut().poll(cx);
            if polled.is_pending() && self.done {
                // It had ended before hyper took the request out of its queue. Only the end of the
                // queue returns it.
                self.conn = None;
                polled = answer.as_mut().poll(cx);
            }
            polled.map(|answer| {
                let ended = answer
                    .as_ref()
                    .is_ok_and(|response| self.ended(cx, response));
                (answer, ended)
            })
        })
        .await;
        match answer {
            Ok(response) => Ok(self.wrap(response, ended)),
            Err(mut fault) => Err(match fault.take_message() {
                Some(request) => SendFault::Unsent(Box::new(request)),
                None => SendFault::Lost {
                    began: self.shared.was_heard(),
                    source: fault.into_error(),
                },
            }),
        }
    }

    /// A response without a body ends with its head: no body will be read, so the connection is
    /// returned now.
    fn ended(&mut self, cx: &mut Context<'_>, response: &Response<Incoming>) -> bool {
        let ended =
            response.body().is_end_stream() && response.status() != StatusCode::SWITCHING_PROTOCOLS;
        if ended {
            self.drive(cx);
        }
        ended
    }

    fn wrap(self: Box<Self>, response: Response<Incoming>, ended: bool) -> Response<ReceiveBody> {
        let link = if ended {
            self.settle();
            None
        } else {
            Some(self)
        };
        response.map(|body| ReceiveBody::new(body, link))
    }

    /// Lets hyper read and write as far as possible without waiting.
    pub(super) fn drive(&mut self, cx: &mut Context<'_>) {
        // hyper reports the error of the connection to the response or its body.
        self.done = self.done
            || self
                .conn
                .as_mut()
                .is_none_or(|conn| conn.poll_without_shutdown(cx).is_ready());
    }

    /// The response is over: returns the connection to the pool if it can carry another request,
    /// else closes it.
    pub(super) fn settle(self: Box<Self>) {
        if !self.done
            && self.sender.is_ready()
            && let Some(pool) = self.pool.clone()
        {
            pool.park(self);
        }
    }

    /// Asks the kernel whether the peer has closed this idle connection.
    pub(super) fn is_dead(&mut self) -> bool {
        self.shared.asks(true);
        self.drive(&mut Context::from_waker(Waker::noop()));
        self.shared.asks(false);
        self.done
    }

    /// After a 101: the socket, and what was read from it already.
    pub(super) async fn into_io(mut self: Box<Self>) -> io::Result<(Io, Bytes)> {
        let Some(mut conn) = self.conn.take() else {
            return Err(io::ErrorKind::NotConnected.into());
        };
        if !self.done {
            poll_fn(|cx| conn.poll_without_shutdown(cx))
                .await
                .map_err(io::Error::other)?;
        }
        let parts = conn.into_parts();
        Ok((parts.io.into_inner(), parts.read_buf))
    }
}

/// The body of a response. Reading it drives the connection; at its end the connection returns to
/// its pool. If it is dropped earlier, the connection is closed and the instance notices.
pub struct ReceiveBody {
    body: Incoming,
    link: Option<Box<Link>>,
}

impl ReceiveBody {
    fn new(body: Incoming, link: Option<Box<Link>>) -> Self {
        Self { body, link }
    }

    /// After a 101: the socket to the instance and what was read from it already.
    ///
    /// # Errors
    /// The connection ended meanwhile.
    pub async fn upgrade(self) -> io::Result<(Io, Bytes)> {
        match self.link {
            Some(link) => link.into_io().await,
            None => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }

    fn end(&mut self, cx: &mut Context<'_>) {
        if let Some(mut link) = self.link.take() {
            link.drive(cx);
            link.settle();
        }
    }
}

impl Body for ReceiveBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let this = &mut *self;
        let mut frame = Pin::new(&mut this.body).poll_frame(cx);
        if frame.is_pending()
            && let Some(link) = this.link.as_mut()
        {
            link.drive(cx);
            frame = Pin::new(&mut this.body).poll_frame(cx);
        }
        match &frame {
            Poll::Ready(Some(Ok(_))) if !this.body.is_end_stream() => {}
            Poll::Ready(Some(Ok(_)) | None) => this.end(cx),
            Poll::Ready(Some(Err(_))) => this.link = None,
            Poll::Pending => {}
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

async fn connect(gate: &Gate, listeners: &Listeners) -> io::Result<InstanceStream> {
    match &gate.listen {
        Listen::Unix(path) => {
            let mut pause = Duration::from_millis(1);
            loop {
                match unix_connect::connect(path) {
                    // On a unix socket a full backlog is an immediate error, not a wait as on TCP.
                    Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                        tokio::time::sleep(pause).await;
                        pause = (pause * 2).min(Duration::from_millis(20));
                    }
                    other => {
                        let stream = other?;
                        unix_connect::check(&stream, gate.account.uid())?;
                        return Ok(InstanceStream::Unix(Local::new(stream)?));
                    }
                }
            }
        }
        Listen::Tcp(address) => {
            let mut stream = connect_tcp(*address).await?;
            if let Some(process) = gate.process
                && !listeners.is_known(*address, process)
            {
                match listeners.examine(*address, process, &gate.account).await? {
                    ListenerOwner::Own => {}
                    ListenerOwner::None => return Err(io::ErrorKind::ConnectionRefused.into()),
                    ListenerOwner::Stranger(who) => {
                        return Err(io::Error::new(io::ErrorKind::PermissionDenied, who));
                    }
                }
                // The other connection was made before the listener's owner was known.
                stream = connect_tcp(*address).await?;
                if !listeners.is_known(*address, process) {
                    return Err(io::ErrorKind::ConnectionRefused.into());
                }
            }
            stream.set_nodelay(true)?;
            Ok(InstanceStream::Tcp(stream))
        }
    }
}

async fn connect_tcp(address: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(address).await?;
    // Without a listener, a connection may reach itself if the kernel picks that very port as the
    // source port.
    if stream.local_addr()? == address {
        return Err(io::ErrorKind::ConnectionRefused.into());
    }
    Ok(stream)
}
