//! Why a request gets no response from its instance, and what it gets instead: one table of status
//! and text.
//!
//! Pure: `respond` makes a response from a row. No row shows a path, an output or an address of
//! this host.

use hyper::StatusCode;

use crate::domain::admission::Refusal;

/// Why a request gets a response from acc instead of the instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProxyFailure {
    /// The service does not let it through.
    Refused(Refusal),
    /// The request is malformed; says how.
    Malformed(&'static str),
    /// acc does not forward requests with this method.
    Method,
    /// Its body has a transfer coding other than `chunked`.
    Coding,
    /// Its client has the highest allowed number of requests already.
    TooMany,
    /// Its body is longer than the edge allows.
    TooLarge,
    /// Its body stopped arriving.
    BodyStalled,
    /// The instance broke the connection before its response.
    Broke,
    /// The response of the instance broke off within its head, or is invalid.
    BadAnswer,
    /// The instance is awake but refuses connections.
    Unreachable,
    /// The instance may have read it already, and it must not be sent twice.
    MaybeSeen,
    /// The instance got it and did not respond in time.
    NoAnswer,
}

/// One row of the table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FailureAnswer {
    /// HTTP status.
    pub status: StatusCode,
    /// Short, and the same for every failure of its kind.
    pub title: &'static str,
    /// One sentence about this failure.
    pub detail: String,
    /// Seconds; with every 429, 503 and 504.
    pub retry_after: Option<u64>,
}

/// The detail for a request that the application may have read and that must not be sent twice:
/// `acc prove` recognises this text.
pub const MAYBE_SEEN: &str =
    "the application closed the connection, and this request must not be sent twice";

impl ProxyFailure {
    /// The table.
    #[must_use]
    pub fn answer(&self) -> FailureAnswer {
        let (status, title, retry_after) = match self {
            Self::Refused(refusal) => return refused(refusal),
            Self::Malformed(_) => (StatusCode::BAD_REQUEST, "Bad request", None),
            Self::Method => (StatusCode::METHOD_NOT_ALLOWED, "Method not allowed", None),
            Self::Coding => (StatusCode::NOT_IMPLEMENTED, "Not implemented", None),
            Self::TooMany => (StatusCode::TOO_MANY_REQUESTS, "Too many requests", Some(2)),
            Self::TooLarge => (StatusCode::PAYLOAD_TOO_LARGE, "Too large", None),
            Self::BodyStalled => (StatusCode::REQUEST_TIMEOUT, "Too slow", None),
            Self::Broke | Self::BadAnswer | Self::Unreachable | Self::MaybeSeen => {
                (StatusCode::BAD_GATEWAY, "Bad gateway", None)
            }
            Self::NoAnswer => (StatusCode::GATEWAY_TIMEOUT, "No answer in time", Some(5)),
        };
        let detail = match self {
            Self::Malformed(what) => what,
            Self::Method => "this server does not pass on requests with this method",
            Self::Coding => "this server knows no transfer coding but `chunked`",
            Self::TooMany => "too many requests of this client are in progress",
            Self::TooLarge => "the request is larger than this server accepts",
            Self::BodyStalled => "the request was not sent completely",
            Self::Broke => "the application closed the connection before it answered",
            Self::BadAnswer => {
                "the answer of the application broke off, or has a head that is longer than 64 KiB or no HTTP"
            }
            Self::Unreachable => "the application does not accept connections",
            Self::MaybeSeen => MAYBE_SEEN,
            Self::NoAnswer => "the application did not answer in time",
            Self::Refused(_) => "",
        };
        FailureAnswer {
            status,
            title,
            detail: detail.to_owned(),
            retry_after,
        }
    }
}

fn refused(refusal: &Refusal) -> FailureAnswer {
    let unavailable = StatusCode::SERVICE_UNAVAILABLE;
    let (status, title, retry_after) = match refusal {
        Refusal::UnknownHost => (StatusCode::NOT_FOUND, "Not found", None),
        Refusal::Destroyed => (StatusCode::GONE, "Gone", None),
        Refusal::Disabled => (unavailable, "Disabled", Some(3600)),
        Refusal::Creating => (unavailable, "Not ready yet", Some(2)),
        Refusal::Failed { retry_s, .. } => {
            (unavailable, "Not able to start", Some((*retry_s).max(1)))
        }
        Refusal::MayNotWake => (unavailable, "Asleep", Some(60)),
        Refusal::TooManyWaiting => (unavailable, "Too many requests wait", Some(2)),
        Refusal::TooManyWakes { retry_s } => (
            StatusCode::TOO_MANY_REQUESTS,
            "Too many requests",
            Some(*retry_s),
        ),
        Refusal::TooSlow => (StatusCode::GATEWAY_TIMEOUT, "Not started in time", Some(5)),
        Refusal::StillStopping => (StatusCode::GATEWAY_TIMEOUT, "Not stopped in time", Some(5)),
        Refusal::Halting => (unavailable, "Stopping", Some(10)),
        Refusal::Broken => (unavailable, "Not able to start", Some(10)),
    };
    FailureAnswer {
        status,
        title,
        detail: refusal.to_string(),
        retry_after,
    }
}
