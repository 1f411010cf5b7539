//! What can be asked on the control socket: its routes, and what each answers.
//!
//! It decides nothing: the handler does. It never cancels a verb because its client left.

use std::sync::Arc;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Extension, Router};
use hyper::{StatusCode, Uri};
use tokio_util::task::TaskTracker;

use super::ROUTE;
use super::json::{Json, invalid, refuse};
use crate::service::error::ServiceError;
use crate::service::handler::{Handler, RequestCaller, handle};
use crate::service::outcome::Outcome;
use crate::service::request::Request;

/// Who answers, and the tasks in which the verbs run.
type Server = (Arc<dyn Handler>, TaskTracker);

/// All routes. They need the caller, as an `Extension`.
pub(super) fn all(handler: Arc<dyn Handler>, verbs: TaskTracker) -> Router {
    Router::new()
        .route(ROUTE, post(answer))
        .method_not_allowed_fallback(wrong_method)
        .fallback(no_such_route)
        .with_state((handler, verbs))
}

/// The answers for a user who may not use the control socket.
pub(super) fn for_strangers() -> Router {
    let error = ServiceError::failed(
        "only its owner may use the control socket",
        "run this command as the user who runs acc's server, or as root",
    );
    Router::new().fallback(async || (StatusCode::FORBIDDEN, Json(error)))
}

async fn no_such_route(uri: Uri) -> impl IntoResponse {
    let error = invalid(format!("the control socket has no `{}`", uri.path()));
    (StatusCode::NOT_FOUND, Json(error))
}

async fn wrong_method(uri: Uri) -> impl IntoResponse {
    let error = invalid(format!("`{}` accepts only POST", uri.path()));
    (StatusCode::METHOD_NOT_ALLOWED, Json(error))
}

async fn answer(
    State((handler, verbs)): State<Server>,
    Extension(caller): Extension<RequestCaller>,
    Json(request): Json<Request>,
) -> Result<Json<Outcome>, Response> {
    // A task of its own: when the client leaves, hyper drops this future, and the verb must not end
    // half done with it.
    let verb = verbs.spawn(async move { handle(&*handler, &caller, request).await });
    let outcome = verb.await.unwrap_or_else(|error| {
        tracing::error!(%error, "a request failed by an internal error");
        Err(ServiceError::failed(
            "internal error in acc's server",
            "please report this with the server's log",
        ))
    });
    outcome.map(Json).map_err(refuse)
}
