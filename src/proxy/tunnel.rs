//! An upgraded connection (WebSocket above all): bytes both ways until both sides are done, the pass held all the while.
//!
//! It never looks at the bytes.

use std::io;

use bytes::Bytes;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncWriteExt, copy_bidirectional_with_sizes};
use tokio_util::sync::CancellationToken;

use super::access_log::Line;
use crate::driver::upstream::{Io, ReceiveBody};
use crate::service::door::Pass;

/// Bytes buffered per direction.
const BUFFER: usize = 16 * 1024;

/// Carries the connection; ends with it, or when `cut` is called.
pub(super) async fn carry(client: OnUpgrade, instance: ReceiveBody, pass: Box<dyn Pass>, line: Option<Box<Line>>, cut: CancellationToken) {
    let carried = tokio::select! {
        carried = both_ways(client, instance) => carried,
        () = cut.cancelled() => Ok((0, 0)),
    };
    match carried {
        Ok((_, sent)) => {
            if let Some(mut line) = line {
                line.sent = sent;
            }
        }
        Err(error) => tracing::debug!(%error, "an upgraded connection broke"),
    }
    drop(pass);
}

async fn both_ways(client: OnUpgrade, instance: ReceiveBody) -> io::Result<(u64, u64)> {
    let (mut instance, early): (Io, Bytes) = instance.upgrade().await?;
    let mut client = TokioIo::new(client.await.map_err(io::Error::other)?);
    // What the instance said right behind its answer was read together with it.
    client.write_all(&early).await?;
    let (received, sent) = copy_bidirectional_with_sizes(&mut client, &mut instance, BUFFER, BUFFER).await?;
    Ok((received, sent + early.len() as u64))
}
