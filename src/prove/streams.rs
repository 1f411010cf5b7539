//! Streams that stay open until a stop ends them: WebSockets and event streams, beside the clients
//! that send requests.
//!
//! Each end is in order or broken. An end is in order if browsers reconnect without telling their
//! user: a WebSocket's close frame with 1001, "going away" (RFC 6455, 7.4.1), and an event stream
//! whose body ends after a whole event. Anything else is broken, unless a process was killed that
//! held the connection or worked behind it. Then another stream is opened.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::{Request, Response, header};
use tokio::sync::watch;

use super::context::{Order, ProveContext};
use super::report::{RequestFault, Streams};
use super::sample::ClientConnection;
use super::wire::{RequestBody, Talk, Wire};
use crate::host::clock::monotonic_ns;
use crate::host::error_chain::chain;

/// Pause after a stream that was broken or could not be opened.
const AFTER_FAULT: Duration = Duration::from_millis(100);
/// Faults that are reported individually.
const REPORTED_MAX: usize = 20;
/// "Going away" (RFC 6455, 7.4.1).
const GOING_AWAY: u16 = 1001;
/// Longer than any proof.
const EVENTS: &str = "/stream?kind=sse&seconds=86400";

/// The kind of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum StreamKind {
    /// A WebSocket.
    Socket,
    /// An event stream.
    Events,
}

/// How a stream ended.
enum StreamEnd {
    /// As it should at a stop.
    InOrder,
    /// The proof ended it.
    Ours,
    /// Nothing was sent: no process listened.
    NotOpened(Box<str>),
    /// In any other way.
    Broken(Box<str>),
}

/// How some streams ended.
#[derive(Debug, Default)]
pub(super) struct EndedStreams {
    pub(super) count: Streams,
    pub(super) faults: Vec<RequestFault>,
}

impl EndedStreams {
    /// Adds these.
    pub(super) fn add(&mut self, more: Self) {
        self.count.opened += more.count.opened;
        self.count.ended_in_order += more.count.ended_in_order;
        self.count.cut_by_the_crash += more.count.cut_by_the_crash;
        self.count.broken += more.count.broken;
        self.faults.extend(more.faults);
        self.faults.truncate(REPORTED_MAX);
    }
}

/// Keeps one stream open, and another one when it has ended.
pub(super) struct StreamHolder {
    context: Arc<ProveContext>,
    kind: StreamKind,
    /// Its name for people.
    id: String,
    began: u64,
    ended: EndedStreams,
}

impl StreamHolder {
    /// The `number`th stream of its kind. `began`: start of the run, in nanoseconds of the
    /// monotonic clock.
    pub(super) fn new(
        context: Arc<ProveContext>,
        kind: StreamKind,
        number: u16,
        began: u64,
    ) -> Self {
        let id = format!(
            "{}.{}{number}",
            context.tag,
            if kind == StreamKind::Socket { "w" } else { "e" }
        );
        Self {
            context,
            kind,
            id,
            began,
            ended: EndedStreams::default(),
        }
    }

    /// Runs until the order to end.
    pub(super) async fn run(mut self, mut order: watch::Receiver<Order>) -> EndedStreams {
        loop {
            let now = *order.borrow_and_update();
            match now {
                Order::Go => {
                    let busy = &self.context.clone().meter.busy;
                    busy.fetch_add(1, Ordering::Relaxed);
                    self.one(&mut order).await;
                    busy.fetch_sub(1, Ordering::Relaxed);
                }
                Order::Rest if order.changed().await.is_err() => return self.ended,
                Order::Rest => {}
                Order::End => return self.ended,
            }
        }
    }

    async fn one(&mut self, order: &mut watch::Receiver<Order>) {
        let begun = monotonic_ns();
        let mut line = None;
        let end = match self.open(&mut line).await {
            Ok(response) => {
                self.ended.count.opened += 1;
                hold(response, self.kind, order).await
            }
            Err(end) => end,
        };
        let count = &mut self.ended.count;
        match end {
            StreamEnd::Ours => return,
            StreamEnd::InOrder => {
                count.ended_in_order += 1;
                return;
            }
            StreamEnd::Broken(_) if self.context.met_a_kill(line, begun) => {
                count.cut_by_the_crash += 1
            }
            // What was killed is not restored yet.
            StreamEnd::NotOpened(_) if self.context.chaos => {}
            StreamEnd::NotOpened(why) | StreamEnd::Broken(why) => {
                count.broken += 1;
                self.tell(begun, &why);
            }
        }
        tokio::time::sleep(AFTER_FAULT).await;
    }

    fn tell(&mut self, begun: u64, what: &str) {
        if self.ended.faults.len() < REPORTED_MAX {
            let seconds = |ns: u64| Duration::from_millis(ns / 1_000_000).as_secs_f64();
            self.ended.faults.push(RequestFault {
                id: self.id.clone(),
                kind: if self.kind == StreamKind::Socket {
                    "open WebSocket"
                } else {
                    "open event stream"
                },
                verdict: "lost",
                at_s: seconds(begun.saturating_sub(self.began)),
                took_s: seconds(monotonic_ns().saturating_sub(begun)),
                what: what.to_owned(),
            });
        }
    }

    /// Opens the stream; returns the head of the response if its status is right.
    async fn open(
        &self,
        line: &mut Option<ClientConnection>,
    ) -> Result<(Wire, Response<Incoming>), StreamEnd> {
        let opening = async {
            let mut wire = Wire::open(self.context.to)
                .await
                .map_err(StreamEnd::NotOpened)?;
            *line = Some(wire.line);
            let (response, head) = wire
                .send(self.request())
                .await
                .map_err(|broken| StreamEnd::Broken(broken.why))?;
            let expected = if self.kind == StreamKind::Socket {
                101
            } else {
                200
            };
            if response.status().as_u16() == expected {
                return Ok((wire, response));
            }
            let status = response.status();
            let answer = super::wire::whole(response, head)
                .await
                .map_err(|broken| StreamEnd::Broken(broken.why))?;
            Err(StreamEnd::Broken(
                format!("answered {status}: {}", answer.text()).into(),
            ))
        };
        tokio::time::timeout(self.context.limit, opening)
            .await
            .unwrap_or_else(|_| Err(StreamEnd::Broken("no answer within the time limit".into())))
    }

    fn request(&self) -> Request<RequestBody> {
        let mut request = Request::new(Empty::new().boxed_unsync());
        *request.uri_mut() = hyper::Uri::from_static(if self.kind == StreamKind::Socket {
            "/ws"
        } else {
            EVENTS
        });
        let mut set = |name: header::HeaderName, value: &str| {
            if let Ok(value) = header::HeaderValue::from_str(value) {
                request.headers_mut().insert(name, value);
            }
        };
        set(header::HOST, &self.context.host);
        set(header::USER_AGENT, "acc-prove");
        if self.kind == StreamKind::Socket {
            set(header::CONNECTION, "Upgrade");
            set(header::UPGRADE, "websocket");
            set(header::SEC_WEBSOCKET_VERSION, "13");
            set(header::SEC_WEBSOCKET_KEY, "MTIzNDU2Nzg5MGFiY2RlZg==");
        } else {
            set(header::ACCEPT, "text/event-stream");
        }
        request
    }
}

/// Keeps it until it ends, or until another order. The connection is held as long.
async fn hold(
    (wire, response): (Wire, Response<Incoming>),
    kind: StreamKind,
    order: &mut watch::Receiver<Order>,
) -> StreamEnd {
    let _wire = wire;
    if kind == StreamKind::Events {
        return tokio::select! {
            end = listen(response) => end,
            _ = order.changed() => StreamEnd::Ours,
        };
    }
    let mut talk = match Talk::begin(response).await {
        Ok(talk) => talk,
        Err(why) => return StreamEnd::Broken(why),
    };
    let ended = tokio::select! {
        code = talk.closed() => Some(code),
        _ = order.changed() => None,
    };
    match ended {
        None => {
            talk.end().await;
            StreamEnd::Ours
        }
        Some(Ok(Some(GOING_AWAY))) => StreamEnd::InOrder,
        Some(Ok(code)) => StreamEnd::Broken(
            format!(
                "closed with {}",
                code.map_or_else(|| "no code".to_owned(), |c| c.to_string())
            )
            .into(),
        ),
        Some(Err(why)) => StreamEnd::Broken(why),
    }
}

/// Reads events until the body ends.
async fn listen(response: Response<Incoming>) -> StreamEnd {
    let mut body = response.into_body();
    let (mut next, mut rest) = (0_u64, Vec::new());
    while let Some(frame) = body.frame().await {
        match frame {
            Ok(frame) => rest.extend_from_slice(frame.data_ref().map_or(&[][..], |data| data)),
            Err(e) => return StreamEnd::Broken(chain(&e).into()),
        }
        while let Some(at) = rest.windows(2).position(|two| two == b"\n\n") {
            let event: Vec<u8> = rest.drain(..at + 2).collect();
            if event != format!("data: {next}\n\n").as_bytes() {
                return StreamEnd::Broken(
                    format!("event {next} is `{:.100}`", String::from_utf8_lossy(&event)).into(),
                );
            }
            next += 1;
        }
    }
    if rest.is_empty() {
        StreamEnd::InOrder
    } else {
        StreamEnd::Broken("it ended in the middle of an event".into())
    }
}
