//! The body of a response to a client: a text of acc's own, what an instance sends, or the events
//! of a wake.
//!
//! While it exists the request counts as in flight: the ticket of a forwarded request is dropped
//! with it, or earlier, when the instance has sent its last byte. It never holds more of a body
//! than one frame; `read_ahead` does.

use std::future::Future;
use std::path::{Path, PathBuf};
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
use crate::service::admission::Ticket;

/// The body of any response.
pub struct ResponseBody {
    kind: BodyKind,
    busy: Option<BusyGuard>,
}

enum BodyKind {
    Text(Option<Bytes>),
    Forwarded(Forwarded),
    Stream(mpsc::Receiver<Bytes>),
    Watched(Arc<WatchedBody<ResponseBody>>),
}

struct Forwarded {
    /// `None` once it was ended here or is read ahead.
    body: Option<ReceiveBody>,
    /// The rest of it, which is read ahead.
    rest: Option<mpsc::Receiver<Piece>>,
    /// Where to keep what is read ahead; `None`: nothing is.
    spool: Option<PathBuf>,
    forwarded_bytes: usize,
    events: Option<EventStream>,
    ticket: Option<Box<dyn Ticket>>,
    line: Option<Box<AccessLine>>,
    /// The instance broke the connection: reported once the earlier bytes were sent.
    fault: Option<BoxError>,
}

impl ResponseBody {
    /// A text of acc's own.
    #[must_use]
    pub fn text(text: String) -> Self {
        Self {
            kind: BodyKind::Text((!text.is_empty()).then(|| text.into())),
            busy: None,
        }
    }

    /// No body.
    #[must_use]
    pub fn empty() -> Self {
        Self::text(String::new())
    }

    /// What an instance sends. At its end the ticket is dropped and `line` is written to the access
    /// log.
    pub(super) fn forwarded(
        body: ReceiveBody,
        ticket: Box<dyn Ticket>,
        line: Option<Box<AccessLine>>,
        kind: Delivery<'_>,
    ) -> Self {
        let ends = body.is_end_stream();
        let events = (kind == Delivery::EventStream && !ends).then(|| EventStream::new(&*ticket));
        let spool = match kind {
            Delivery::ReadAhead(folder) if !is_short(&body) => Some(folder.to_owned()),
            _ => None,
        };
        let ticket = (!ends).then_some(ticket);
        let forwarded = Forwarded {
            body: Some(body),
            rest: None,
            spool,
            forwarded_bytes: 0,
            events,
            ticket,
            line,
            fault: None,
        };
        Self {
            kind: BodyKind::Forwarded(forwarded),
            busy: None,
        }
    }

    /// A stream whose parts are sent as they arrive.
    pub(super) fn stream(pieces: mpsc::Receiver<Bytes>) -> Self {
        Self {
            kind: BodyKind::Stream(pieces),
            busy: None,
        }
    }

    /// Makes the response end if its client does not read it.
    pub(super) fn watched(self, watch: &StallWatch<Self>) -> Self {
        if self.is_end_stream() {
            return self;
        }
        Self {
            kind: BodyKind::Watched(watch.watch(self)),
            busy: None,
        }
    }

    /// Keeps the client's connection marked as busy while this body exists.
    pub(super) fn keep_busy(mut self, busy: BusyGuard) -> Self {
        self.busy = Some(busy);
        self
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match &mut self.kind {
            BodyKind::Text(text) => Poll::Ready(text.take().map(|text| Ok(Frame::data(text)))),
            BodyKind::Stream(pieces) => pieces
                .poll_recv(cx)
                .map(|piece| piece.map(|piece| Ok(Frame::data(piece)))),
            BodyKind::Forwarded(forwarded) => forwarded.poll_frame(cx),
            BodyKind::Watched(taken) => taken.poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.kind {
            BodyKind::Text(text) => text.is_none(),
            BodyKind::Stream(_) => false,
            BodyKind::Forwarded(forwarded) => forwarded.is_end_stream(),
            BodyKind::Watched(taken) => taken.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.kind {
            BodyKind::Text(text) => {
                SizeHint::with_exact(text.as_ref().map_or(0, |text| text.len() as u64))
            }
            BodyKind::Stream(_) => SizeHint::default(),
            BodyKind::Forwarded(forwarded) => forwarded
                .body
                .as_ref()
                .map(Body::size_hint)
                .unwrap_or_default(),
            BodyKind::Watched(taken) => taken.size_hint(),
        }
    }
}

/// How the response of an instance is sent to its client.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Delivery<'a> {
    /// As fast as the client reads it.
    AsRead,
    /// The same, for a response without an end: it ends with the instance.
    EventStream,
    /// Read ahead of a slow client, into a file in this folder.
    ReadAhead(&'a Path),
}

/// After this many bytes the rest of a response is read ahead: shorter responses fit into the
/// buffers of connections.
const SHORT: usize = 64 * 1024;

/// Whether a response is known to be short before it is read.
fn is_short(body: &ReceiveBody) -> bool {
    body.size_hint()
        .exact()
        .is_some_and(|length| length <= SHORT as u64)
}

impl Forwarded {
    fn is_end_stream(&self) -> bool {
        self.fault.is_none()
            && self.rest.is_none()
            && self.body.as_ref().is_none_or(Body::is_end_stream)
    }

    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let frame = match &mut self.rest {
            Some(rest) => rest.poll_recv(cx),
            None => self.poll_body(cx),
        };
        if let Poll::Ready(Some(Ok(frame))) = &frame
            && let Some(data) = frame.data_ref()
        {
            self.forwarded_bytes += data.len();
            self.line
                .iter_mut()
                .for_each(|line| line.sent += data.len() as u64);
            if self.forwarded_bytes > SHORT
                && let Some(folder) = self.spool.take()
                && let Some(body) = self.body.take_if(|body| !body.is_end_stream())
            {
                self.rest = Some(read_ahead::read(body, self.ticket.take(), folder));
            }
        }
        frame
    }

    fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if let Some(fault) = self.fault.take() {
            return Poll::Ready(Some(Err(fault)));
        }
        if self
            .events
            .as_mut()
            .is_some_and(|events| events.poll_ended(cx).is_ready())
        {
            (self.body, self.ticket, self.events) = (None, None, None);
        }
        let Some(body) = self.body.as_mut() else {
            return Poll::Ready(None);
        };
        let frame = Pin::new(&mut *body).poll_frame(cx);
        let ended = match &frame {
            Poll::Pending => false,
            Poll::Ready(None | Some(Err(_))) => true,
            Poll::Ready(Some(Ok(frame))) => {
                if let Some(data) = frame.data_ref() {
                    self.events.iter_mut().for_each(|events| {
                        events.event_complete =
                            data.ends_with(b"\n\n") || data.ends_with(b"\r\n\r\n")
                    });
                }
                body.is_end_stream()
            }
        };
        if ended {
            self.ticket = None;
        }
        if let Poll::Ready(Some(Err(fault))) = frame {
            // On an error hyper drops what it has not written yet, including the head: nginx would
            // take the request as unanswered and send it again.
            self.fault = Some(fault.into());
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        frame.map_err(Into::into)
    }
}

/// A stream of events (`text/event-stream`), which has no end of its own.
struct EventStream {
    must_end: Pin<Box<WaitForCancellationFutureOwned>>,
    /// When it is cut, once it must end.
    cut_after: Option<Pin<Box<Sleep>>>,
    /// The last event was sent completely.
    event_complete: bool,
}

/// Time to finish an event that is being sent.
const LAST_EVENT: Duration = Duration::from_secs(1);

impl EventStream {
    fn new(ticket: &dyn Ticket) -> Self {
        Self {
            must_end: Box::pin(ticket.streams_end().cancelled_owned()),
            cut_after: None,
            event_complete: true,
        }
    }

    /// Ready when it must end and no event would be cut, or its time is over.
    fn poll_ended(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.cut_after.is_none() {
            ready!(self.must_end.as_mut().poll(cx));
        }
        if self.event_complete {
            return Poll::Ready(());
        }
        self.cut_after
            .get_or_insert_with(|| Box::pin(tokio::time::sleep(LAST_EVENT)))
            .as_mut()
            .poll(cx)
    }
}
