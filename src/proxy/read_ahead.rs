//! Reads a long response ahead of a slow client: the instance, which may serve one request after
//! the other, is free once it has sent all of it. What the client has not read waits in memory,
//! then on disk.
//!
//! It never delays what the client can read, and never reads further ahead than [`Spool`] has room.

use std::path::PathBuf;

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::Frame;
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;

use super::error::BoxError;
use crate::driver::upstream::ReceiveBody;
use crate::host::spool::Spool;
use crate::service::admission::Ticket;

/// Parts of a response that wait in memory; each is at most as long as the buffer of a connection
/// to an instance, 64 KiB.
const PIECES: usize = 8;

/// Bytes of one response on disk, about as much as nginx buffers. An application that serves one
/// client at a time sends no more in one response, and the database is on that disk.
const MOST: u64 = 4 << 20;

/// A part of a response.
pub(super) type Piece = Result<Frame<Bytes>, BoxError>;

/// The rest of a response, read ahead. The ticket is dropped after its last byte.
pub(super) fn read(
    body: ReceiveBody,
    ticket: Option<Box<dyn Ticket>>,
    folder: PathBuf,
) -> mpsc::Receiver<Piece> {
    let (pieces, received) = mpsc::channel(PIECES);
    tokio::spawn(run(body, ticket, Spool::new(folder, MOST), pieces));
    received
}

async fn run(
    mut body: ReceiveBody,
    ticket: Option<Box<dyn Ticket>>,
    mut spool: Spool,
    pieces: mpsc::Sender<Piece>,
) {
    let mut last = None;
    loop {
        tokio::select! {
            permit = pieces.reserve(), if !spool.is_empty() => {
                let Ok(permit) = permit else { return };
                match spool.pop().await {
                    Ok(bytes) => permit.send(Ok(Frame::data(bytes))),
                    Err(error) => return permit.send(Err(error.into())),
                }
            }
            frame = body.frame(), if spool.has_room() => match frame {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) if spool.is_empty() => match pieces.try_send(Ok(Frame::data(data))) {
                        Ok(()) => {}
                        Err(TrySendError::Closed(_)) => return,
                        Err(TrySendError::Full(piece)) => spool_up(&mut spool, piece).await,
                    },
                    Ok(data) => spool.push(data).await,
                    Err(trailers) => {
                        last = Some(Ok(trailers));
                        break;
                    }
                },
                Some(Err(error)) => {
                    last = Some(Err(error.into()));
                    break;
                }
                None => break,
            },
            // The client has left; the instance must notice.
            () = pieces.closed() => return,
        }
    }
    drop((body, ticket));
    while !spool.is_empty() {
        let piece = spool.pop().await.map(Frame::data).map_err(BoxError::from);
        let broken = piece.is_err();
        if pieces.send(piece).await.is_err() || broken {
            return;
        }
    }
    if let Some(last) = last {
        let _ = pieces.send(last).await;
    }
}

async fn spool_up(spool: &mut Spool, piece: Piece) {
    if let Ok(Ok(data)) = piece.map(Frame::into_data) {
        spool.push(data).await;
    }
}
