//! `/ws`: echoes every text and binary message, and answers pings.
//!
//! When the application is stopped, it echoes the messages that have arrived, sends a close frame
//! and waits for the client's (the application's own time limit ends the wait).

use std::sync::Arc;

use futures_util::{SinkExt, StreamExt};
use hyper::header::{CONNECTION, HeaderMap, HeaderValue, UPGRADE};
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper::{Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::body::{DemoBody, status_only, text};
use super::log::Log;

/// Answers the handshake; a separate task continues once the 101 has been sent.
pub(super) fn accept(
    headers: &HeaderMap,
    upgrade: OnUpgrade,
    log: &Arc<Log>,
    stopping: &CancellationToken,
    tasks: &TaskTracker,
) -> Response<DemoBody> {
    let wanted = headers
        .get(UPGRADE)
        .is_some_and(|v| v.as_bytes().eq_ignore_ascii_case(b"websocket"));
    let Some(key) = headers.get("sec-websocket-key").filter(|_| wanted) else {
        return text(
            StatusCode::UPGRADE_REQUIRED,
            "a WebSocket handshake is needed\n",
        );
    };
    let Ok(accepted) = HeaderValue::from_str(&derive_accept_key(key.as_bytes())) else {
        return text(StatusCode::BAD_REQUEST, "a wrong key\n");
    };
    let (stopping, log) = (stopping.clone(), Arc::clone(log));
    tasks.spawn(async move {
        if let Ok(stream) = upgrade.await {
            let socket =
                WebSocketStream::from_raw_socket(TokioIo::new(stream), Role::Server, None).await;
            converse(socket, &log, stopping).await;
        }
    });
    let mut answer = status_only(StatusCode::SWITCHING_PROTOCOLS);
    answer
        .headers_mut()
        .insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    answer
        .headers_mut()
        .insert(UPGRADE, HeaderValue::from_static("websocket"));
    answer
        .headers_mut()
        .insert("sec-websocket-accept", accepted);
    answer
}

/// Records a short text without blanks; longer ones are no ids.
fn record(log: &Log, message: &Message) {
    if let Message::Text(text) = message
        && text.len() <= 64
        && text.bytes().all(|b| b.is_ascii_graphic())
    {
        log.write("MSG", text);
    }
}

async fn converse(
    mut socket: WebSocketStream<TokioIo<Upgraded>>,
    log: &Log,
    stopping: CancellationToken,
) {
    loop {
        let message = tokio::select! {
            biased;
            message = socket.next() => message,
            () = stopping.cancelled() => {
                let bye = CloseFrame { code: CloseCode::Away, reason: "stopping".into() };
                let _ = socket.close(Some(bye)).await;
                while let Some(Ok(_)) = socket.next().await {}
                return;
            }
        };
        match message {
            Some(Ok(echo @ (Message::Text(_) | Message::Binary(_)))) => {
                record(log, &echo);
                if socket.send(echo).await.is_err() {
                    return;
                }
            }
            // tungstenite answers pings and close frames itself; its answer is sent with the next
            // read.
            Some(Ok(_)) => {}
            Some(Err(_)) | None => return,
        }
    }
}
