//! What was read of a client's body and not sent on yet, and the total of all such bodies.
//!
//! It never waits.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use hyper::body::Frame;

/// The bytes held for slow clients.
static ALL: AtomicUsize = AtomicUsize::new(0);
/// Beyond this many, slow bodies are sent on as they arrive.
const MOST: usize = 64 << 20;

/// The frames in order. Most bodies have one.
#[derive(Debug, Default)]
pub(super) struct HeldBody {
    first: Option<Frame<Bytes>>,
    more: VecDeque<Frame<Bytes>>,
    bytes: usize,
    /// Its bytes are part of `ALL`. Those of a body that is sent on at once are not.
    counted: bool,
}

impl HeldBody {
    /// Counts it in `ALL`, because it is held for longer.
    pub(super) fn count(&mut self) {
        if !self.counted {
            self.counted = true;
            ALL.fetch_add(self.bytes, Ordering::Relaxed);
        }
    }

    /// Whether to read more, up to about `bytes`.
    pub(super) fn wants(&self, bytes: usize) -> bool {
        self.bytes < bytes && (!self.counted || ALL.load(Ordering::Relaxed) < MOST)
    }

    pub(super) fn push(&mut self, frame: Frame<Bytes>) {
        let size = length(&frame);
        self.bytes += size;
        if self.counted {
            ALL.fetch_add(size, Ordering::Relaxed);
        }
        match self.first {
            None if self.more.is_empty() => self.first = Some(frame),
            _ => self.more.push_back(frame),
        }
    }

    pub(super) fn pop(&mut self) -> Option<Frame<Bytes>> {
        let frame = self.first.take().or_else(|| self.more.pop_front())?;
        self.give_back(length(&frame));
        Some(frame)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.first.is_none() && self.more.is_empty()
    }

    /// Whether it contains no trailers.
    pub(super) fn is_data(&self) -> bool {
        self.first.iter().chain(&self.more).all(Frame::is_data)
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    fn give_back(&mut self, size: usize) {
        self.bytes -= size;
        if self.counted {
            ALL.fetch_sub(size, Ordering::Relaxed);
        }
    }
}

impl Drop for HeldBody {
    fn drop(&mut self) {
        self.give_back(self.bytes);
    }
}

fn length(frame: &Frame<Bytes>) -> usize {
    frame.data_ref().map_or(0, Bytes::len)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_come_out_in_their_order() {
        let mut held = HeldBody::default();
        for n in 0..3_u8 {
            held.push(Frame::data(vec![n; 10].into()));
            if n == 1 {
                held.count();
            }
        }
        assert!(held.wants(31) && !held.wants(30) && held.is_data());
        assert_eq!(held.pop().unwrap().into_data().unwrap()[0], 0);
        held.push(Frame::trailers(hyper::HeaderMap::new()));
        assert_eq!((held.bytes(), held.is_data()), (20, false));
        let rest: Vec<_> = std::iter::from_fn(|| held.pop()).collect();
        assert!(rest.len() == 3 && rest[2].is_trailers() && held.is_empty());
    }
}
