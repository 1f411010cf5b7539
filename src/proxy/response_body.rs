//! The body of an answer to a client: acc's own text, what an instance sends, or a live report of a wake.
//!
//! While it exists the request counts as in flight: the pass of a forwarded request is dropped with it, or sooner, when the
//! instance has said its last byte. It never holds more of a body than one frame; `read_ahead` does.

use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use tokio::sync::mpsc;
use tokio::time::Sleep;
use tokio_util::sync::WaitForCancellationFutureOwned;

use super::access_log::AccessLine;
use super::connection_state::BusyGuard;
use super::error::BoxError;
use super::read_ahead::{self, Piece};
use super::stalled_responses::{StallWatch, WatchedBody};
use crate::driver::upstream::ReceiveBody;
use crate::service::door::Pass;

/// Any answer's body.
pub struct ResponseBody {
    kind: BodyKind,
    busy: Option<BusyGuard>,
}

enum BodyKind {
    Text(Option<Bytes>),
    Forwarded(Forwarded),
    Live(mpsc::Receiver<Bytes>),
    Watched(Arc<WatchedBody<ResponseBody>>),
}

struct Forwarded {
    /// `None` once it was ended from here, or is read ahead.
    body: Option<ReceiveBody>,
    /// Its rest, read ahead.
    ahead: Option<mpsc::Receiver<Piece>>,
    /// Where to keep what is read ahead; `None`: it is not.
    spool: Option<PathBuf>,
    passed: usize,
    events: Option<Events>,
    pass: Option<Box<dyn Pass>>,
    line: Option<Box<AccessLine>>,
    /// The instance has broken off: said once what came before it has left.
    fault: Option<BoxError>,
}

impl ResponseBody {
    /// A text of acc's own.
    #[must_use]
    pub fn text(text: String) -> Self {
        Self { kind: BodyKind::Text((!text.is_empty()).then(|| text.into())), busy: None }
    }

    /// No body.
    #[must_use]
    pub fn empty() -> Self {
        Self::text(String::new())
    }

    /// What an instance sends. `pass` is given back at its end; `line` is written to the access log then.
    pub(super) fn forwarded(body: ReceiveBody, pass: Box<dyn Pass>, line: Option<Box<AccessLine>>, kind: Flow) -> Self {
        let ends = body.is_end_stream();
        let events = (kind == Flow::Events && !ends).then(|| Events::new(&*pass));
        let spool = if let Flow::Ahead(folder) = kind { Some(folder) } else { None };
        let pass = (!ends).then_some(pass);
        let forwarded = Forwarded { body: Some(body), ahead: None, spool, passed: 0, events, pass, line, fault: None };
        Self { kind: BodyKind::Forwarded(forwarded), busy: None }
    }

    /// Pieces as they come.
    pub(super) fn live(pieces: mpsc::Receiver<Bytes>) -> Self {
        Self { kind: BodyKind::Live(pieces), busy: None }
    }

    /// Is given up when its client does not take it.
    pub(super) fn watched(self, watch: &StallWatch<Self>) -> Self {
        if self.is_end_stream() {
            return self;
        }
        Self { kind: BodyKind::Watched(watch.watch(self)), busy: None }
    }

    /// Keeps the client's connection marked as busy for as long as this body exists.
    pub(super) fn keep(mut self, busy: BusyGuard) -> Self {
        self.busy = Some(busy);
        self
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match &mut self.kind {
            BodyKind::Text(text) => Poll::Ready(text.take().map(|text| Ok(Frame::data(text)))),
            BodyKind::Live(pieces) => pieces.poll_recv(cx).map(|piece| piece.map(|piece| Ok(Frame::data(piece)))),
            BodyKind::Forwarded(forwarded) => forwarded.poll_frame(cx),
            BodyKind::Watched(taken) => taken.poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.kind {
            BodyKind::Text(text) => text.is_none(),
            BodyKind::Live(_) => false,
            BodyKind::Forwarded(forwarded) => forwarded.is_end_stream(),
            BodyKind::Watched(taken) => taken.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.kind {
            BodyKind::Text(text) => SizeHint::with_exact(text.as_ref().map_or(0, |text| text.len() as u64)),
            BodyKind::Live(_) => SizeHint::default(),
            BodyKind::Forwarded(forwarded) => forwarded.body.as_ref().map(Body::size_hint).unwrap_or_default(),
            BodyKind::Watched(taken) => taken.size_hint(),
        }
    }
}

/// How an instance's answer goes to its client.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Flow {
    /// As the client takes it.
    Plain,
    /// The same, and it goes on for as long as the client likes: it ends with the instance.
    Events,
    /// Read ahead of the client, and kept in a file in this folder.
    Ahead(PathBuf),
}

/// After so much of an answer the rest is read ahead: shorter ones are in the buffers of connections by then.
const SHORT: usize = 64 * 1024;

impl Forwarded {
    fn is_end_stream(&self) -> bool {
        self.fault.is_none() && self.ahead.is_none() && self.body.as_ref().is_none_or(Body::is_end_stream)
    }

    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let frame = match &mut self.ahead {
            Some(ahead) => ahead.poll_recv(cx),
            None => self.poll_body(cx),
        };
        if let Poll::Ready(Some(Ok(frame))) = &frame
            && let Some(data) = frame.data_ref()
        {
            self.passed += data.len();
            self.line.iter_mut().for_each(|line| line.sent += data.len() as u64);
            if self.passed > SHORT
                && let Some(folder) = self.spool.take()
                && let Some(body) = self.body.take_if(|body| !body.is_end_stream())
            {
                self.ahead = Some(read_ahead::read(body, self.pass.take(), folder));
            }
        }
        frame
    }

    fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if let Some(fault) = self.fault.take() {
            return Poll::Ready(Some(Err(fault)));
        }
        if self.events.as_mut().is_some_and(|events| events.poll_over(cx).is_ready()) {
            (self.body, self.pass, self.events) = (None, None, None);
        }
        let Some(body) = self.body.as_mut() else { return Poll::Ready(None) };
        let frame = Pin::new(&mut *body).poll_frame(cx);
        let ended = match &frame {
            Poll::Pending => false,
            Poll::Ready(None | Some(Err(_))) => true,
            Poll::Ready(Some(Ok(frame))) => {
                if let Some(data) = frame.data_ref() {
                    self.events.iter_mut().for_each(|events| events.is_whole = data.ends_with(b"\n\n") || data.ends_with(b"\r\n\r\n"));
                }
                body.is_end_stream()
            }
        };
        if ended {
            self.pass = None;
        }
        if let Poll::Ready(Some(Err(fault))) = frame {
            // hyper drops what it has not written yet, the head included: nginx would take the request for one without an answer, and
            // ask again.
            self.fault = Some(fault.into());
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        frame.map_err(Into::into)
    }
}

/// A stream of events (`text/event-stream`), which would go on for as long as its client likes.
struct Events {
    must_end: Pin<Box<WaitForCancellationFutureOwned>>,
    /// Set once it must end.
    last: Option<Pin<Box<Sleep>>>,
    /// The last event that was sent is whole.
    is_whole: bool,
}

/// An event that is under way may come to its end within this.
const LAST_EVENT: Duration = Duration::from_secs(1);

impl Events {
    fn new(pass: &dyn Pass) -> Self {
        Self { must_end: Box::pin(pass.streams_end().cancelled_owned()), last: None, is_whole: true }
    }

    /// Ready when it must end and no event is cut by it.
    fn poll_over(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.last.is_none() {
            ready!(self.must_end.as_mut().poll(cx));
        }
        if self.is_whole {
            return Poll::Ready(());
        }
        self.last.get_or_insert_with(|| Box::pin(tokio::time::sleep(LAST_EVENT))).as_mut().poll(cx)
    }
}
