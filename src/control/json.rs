//! Bodies of the control socket: what a request must be to be read, and the form of every answer.
//!
//! It never reads a body longer or for more time than its limits, and never shows more of an error
//! than the error's own two lines.

use std::time::Duration;

use axum::extract::FromRequest;
use axum::http::header::{CACHE_CONTROL, CONNECTION, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use hyper::StatusCode;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::BODY_MAX;
use crate::service::error::{ErrorKind, ServiceError};

/// A client that does not send the body of its request, which is small, within this time is
/// disconnected.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);

/// A body as JSON: of a request, or of an answer.
pub(super) struct Json<T>(pub(super) T);

impl<T: DeserializeOwned, S: Sync> FromRequest<S> for Json<T> {
    type Rejection = Response;

    async fn from_request(request: axum::extract::Request, _: &S) -> Result<Self, Response> {
        let body = axum::body::to_bytes(request.into_body(), BODY_MAX);
        let Ok(body) = tokio::time::timeout(BODY_TIMEOUT, body).await else {
            let seconds = BODY_TIMEOUT.as_secs();
            let error = invalid(format!("the request was not complete within {seconds} s"));
            let close = [(CONNECTION, "close")];
            return Err((StatusCode::REQUEST_TIMEOUT, close, Json(error)).into_response());
        };
        let body = body.map_err(|e| refuse(invalid(format!("could not read the request: {e}"))))?;
        let read = serde_json::from_slice(&body).map(Self);
        read.map_err(|e| refuse(invalid(format!("not a request: {e}"))))
    }
}

impl<T: Serialize> IntoResponse for Json<T> {
    fn into_response(self) -> Response {
        let headers = [
            (CONTENT_TYPE, "application/json"),
            (CACHE_CONTROL, "no-store"),
        ];
        match serde_json::to_vec(&self.0) {
            Ok(body) => (headers, body).into_response(),
            Err(error) => {
                tracing::error!(%error, "could not write an answer as JSON");
                (StatusCode::INTERNAL_SERVER_ERROR, headers).into_response()
            }
        }
    }
}

/// The answer to a request that failed.
pub(super) fn refuse(error: ServiceError) -> Response {
    (status(error.kind), Json(error)).into_response()
}

/// The error of a request that this version does not know.
pub(super) fn invalid(message: String) -> ServiceError {
    ServiceError::new(
        ErrorKind::Invalid,
        message,
        "check with `acc doctor` whether the server has the version of this command",
    )
}

/// The HTTP status of each kind of error.
#[must_use]
pub fn status(kind: ErrorKind) -> StatusCode {
    match kind {
        ErrorKind::Failed => StatusCode::INTERNAL_SERVER_ERROR,
        ErrorKind::Invalid => StatusCode::BAD_REQUEST,
        ErrorKind::NotFound => StatusCode::NOT_FOUND,
        ErrorKind::Denied => StatusCode::CONFLICT,
        ErrorKind::TimedOut => StatusCode::GATEWAY_TIMEOUT,
    }
}
