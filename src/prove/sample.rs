//! One request of one client: what was sent, when, and how it ended. Makes and parses the id that
//! the application records.

use std::net::SocketAddr;

/// The kind of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RequestKind {
    /// A small GET.
    Get,
    /// A POST with a body.
    Post,
    /// A GET whose response takes a while.
    Slow,
    /// A GET whose response arrives in pieces.
    Stream,
    /// A WebSocket with a few messages.
    Socket,
}

impl RequestKind {
    /// The name for people.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Post => "POST",
            Self::Slow => "slow GET",
            Self::Stream => "stream",
            Self::Socket => "WebSocket",
        }
    }

    /// Whether a client may repeat it if it got no response. A WebSocket that has begun is judged
    /// separately.
    pub(super) fn safe(self) -> bool {
        match self {
            Self::Get | Self::Slow | Self::Stream | Self::Socket => true,
            Self::Post => false,
        }
    }
}

/// How the last try of a request ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum RequestEnd {
    /// 2xx (101 for a WebSocket), complete and as expected.
    Right,
    /// 2xx, but not what was expected.
    Wrong(Box<str>),
    /// Another status.
    Answered(u16, Box<str>),
    /// The connection ended before a response began.
    Cut(Box<str>),
    /// The connection ended in the middle of the response.
    Torn(Box<str>),
    /// A WebSocket ended before all messages came back.
    HungUp(Box<str>),
    /// There was no connection.
    NotConnected(Box<str>),
    /// No response in time.
    Late,
}

/// Identifies a request: the client's number, and the request's number of that client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct ProofRequestId {
    /// Number of the client.
    pub(super) client: u16,
    /// Number of its request.
    pub(super) n: u32,
}

impl ProofRequestId {
    /// The text of one try, as the application records it.
    pub(super) fn text(self, tag: &str, attempt: u8) -> String {
        format!("{tag}.{}.{}.{attempt}", self.client, self.n)
    }

    /// Parses an id of this run.
    pub(super) fn read(text: &str, tag: &str) -> Option<(Self, u8)> {
        let mut parts = text.strip_prefix(tag)?.strip_prefix('.')?.split('.');
        let mut part = || parts.next();
        let id = Self {
            client: part()?.parse().ok()?,
            n: part()?.parse().ok()?,
        };
        let attempt = part()?.parse().ok()?;
        parts.next().is_none().then_some((id, attempt))
    }
}

/// A client's connection to the edge, so that it can be found among those of another process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ClientConnection {
    /// The client's own end.
    pub(super) from: SocketAddr,
    /// A moment before it was opened, in nanoseconds of the monotonic clock: an earlier connection
    /// may have had the same address.
    pub(super) opened: u64,
}

/// A request that has ended. Times are nanoseconds of the monotonic clock.
#[derive(Debug, Clone)]
pub(super) struct Sample {
    /// The request.
    pub(super) id: ProofRequestId,
    /// Its kind.
    pub(super) kind: RequestKind,
    /// How often it was sent.
    pub(super) tries: u8,
    /// The connection of the last try, if there was one.
    pub(super) line: Option<ClientConnection>,
    /// When it was first sent.
    pub(super) sent: u64,
    /// When the head of the last response arrived; otherwise when it ended.
    pub(super) head: u64,
    /// When it ended.
    pub(super) ended: u64,
    /// How long the application was asked to delay the head, in milliseconds.
    pub(super) own_ms: u16,
    /// Messages of a WebSocket.
    pub(super) messages: u8,
    /// How it ended.
    pub(super) end: RequestEnd,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_read_as_it_was_written() {
        let id = ProofRequestId {
            client: 3,
            n: 70_000,
        };
        assert_eq!(
            ProofRequestId::read(&id.text("ab12", 2), "ab12"),
            Some((id, 2))
        );
        for other in [
            "-",
            "ab12",
            "ab12.3.4",
            "ab1.3.4.1",
            "ab12.3.4.1.9",
            "ab12.x.4.1",
            "ab123.3.4.1",
        ] {
            assert_eq!(ProofRequestId::read(other, "ab12"), None, "{other}");
        }
    }
}
