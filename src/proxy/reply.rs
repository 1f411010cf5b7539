//! The body of an answer to a client: acc's own text, what an instance sends, or a live report of a wake.
//!
//! While it exists the request counts as in flight: the pass of a forwarded request is dropped with it, or sooner, when the
//! instance has said its last byte. It never holds more of a body than one frame.

use std::error::Error;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use tokio::sync::mpsc;

use super::access_log::Line;
use super::client_io::Busy;
use super::takers::{Taken, Takers};
use crate::driver::upstream::ReceiveBody;
use crate::service::door::Pass;

/// Why a body breaks off.
pub type Fault = Box<dyn Error + Send + Sync>;

/// Any answer's body.
pub struct Reply {
    kind: Kind,
    busy: Option<Busy>,
}

enum Kind {
    Text(Option<Bytes>),
    Forwarded(Forwarded),
    Live(mpsc::Receiver<Bytes>),
    Watched(Arc<Taken>),
}

struct Forwarded {
    body: ReceiveBody,
    pass: Option<Box<dyn Pass>>,
    line: Option<Box<Line>>,
}

impl Reply {
    /// A text of acc's own.
    #[must_use]
    pub fn text(text: String) -> Self {
        Self { kind: Kind::Text((!text.is_empty()).then(|| text.into())), busy: None }
    }

    /// No body.
    #[must_use]
    pub fn empty() -> Self {
        Self::text(String::new())
    }

    /// What an instance sends. `pass` is given back at its end; `line` is written to the access log then.
    pub(super) fn forwarded(body: ReceiveBody, pass: Box<dyn Pass>, line: Option<Box<Line>>) -> Self {
        let pass = (!body.is_end_stream()).then_some(pass);
        Self { kind: Kind::Forwarded(Forwarded { body, pass, line }), busy: None }
    }

    /// Pieces as they come.
    pub(super) fn live(pieces: mpsc::Receiver<Bytes>) -> Self {
        Self { kind: Kind::Live(pieces), busy: None }
    }

    /// Is given up when its client does not take it.
    pub(super) fn watched(self, takers: &Takers) -> Self {
        if self.is_end_stream() {
            return self;
        }
        Self { kind: Kind::Watched(takers.watch(self)), busy: None }
    }

    /// Keeps the client's connection marked as busy for as long as this body exists.
    pub(super) fn keep(mut self, busy: Busy) -> Self {
        self.busy = Some(busy);
        self
    }
}

impl Body for Reply {
    type Data = Bytes;
    type Error = Fault;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Fault>>> {
        match &mut self.kind {
            Kind::Text(text) => Poll::Ready(text.take().map(|text| Ok(Frame::data(text)))),
            Kind::Live(pieces) => pieces.poll_recv(cx).map(|piece| piece.map(|piece| Ok(Frame::data(piece)))),
            Kind::Forwarded(forwarded) => forwarded.poll_frame(cx),
            Kind::Watched(taken) => taken.poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.kind {
            Kind::Text(text) => text.is_none(),
            Kind::Live(_) => false,
            Kind::Forwarded(forwarded) => forwarded.body.is_end_stream(),
            Kind::Watched(taken) => taken.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.kind {
            Kind::Text(text) => SizeHint::with_exact(text.as_ref().map_or(0, |text| text.len() as u64)),
            Kind::Live(_) => SizeHint::default(),
            Kind::Forwarded(forwarded) => forwarded.body.size_hint(),
            Kind::Watched(taken) => taken.size_hint(),
        }
    }
}

impl Forwarded {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Fault>>> {
        let frame = Pin::new(&mut self.body).poll_frame(cx);
        let ended = match &frame {
            Poll::Pending => false,
            Poll::Ready(None | Some(Err(_))) => true,
            Poll::Ready(Some(Ok(frame))) => {
                if let (Some(line), Some(data)) = (self.line.as_mut(), frame.data_ref()) {
                    line.sent += data.len() as u64;
                }
                self.body.is_end_stream()
            }
        };
        if ended {
            self.pass = None;
        }
        frame.map_err(Into::into)
    }
}
