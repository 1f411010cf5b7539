//! Where a WebSocket connection can be ended: between two frames (RFC 6455 section 5.2), so that
//! the close frame is understood.
//!
//! It never reads a message. Pure.

/// Longest head of a frame: two bytes, eight of length, four of mask.
const LONGEST: usize = 14;
/// The operation code of a close frame.
const CLOSE: u8 = 8;

/// The close frame of a server that is going away (RFC 6455 section 7.4.1).
pub(super) const GOING_AWAY: [u8; 4] = [0x88, 2, 0x03, 0xE9];
/// The same from a client: with a mask, which is zero.
pub(super) const CLIENT_GOES_AWAY: [u8; 8] = [0x88, 0x82, 0, 0, 0, 0, 0x03, 0xE9];

/// One direction of a connection.
#[derive(Debug, Default)]
pub(super) struct Frames {
    head: [u8; LONGEST],
    /// Bytes of a head that have arrived.
    have: usize,
    /// Bytes of the payload that have not arrived.
    left: u64,
    closed: bool,
}

impl Frames {
    /// Records that these bytes were copied.
    pub(super) fn take(&mut self, mut bytes: &[u8]) {
        while let [first, rest @ ..] = bytes {
            if self.left > 0 {
                let now = usize::try_from(self.left)
                    .unwrap_or(usize::MAX)
                    .min(bytes.len());
                self.left -= now as u64;
                bytes = &bytes[now..];
                continue;
            }
            self.head[self.have] = *first;
            self.have += 1;
            bytes = rest;
            if self.have == self.head_length() {
                self.closed |= self.head[0] & 0xF == CLOSE;
                self.left = self.payload_length();
                self.have = 0;
            }
        }
    }

    /// Whether a whole frame was copied, and no byte of the next.
    pub(super) fn is_between(&self) -> bool {
        self.left == 0 && self.have == 0
    }

    /// Whether this side has closed.
    pub(super) fn is_closed(&self) -> bool {
        self.closed && self.is_between()
    }

    /// How many of the next bytes certainly belong to this frame; at least one.
    pub(super) fn belongs_to_frame(&self) -> u64 {
        if self.left > 0 {
            self.left
        } else {
            (self.head_length() - self.have) as u64
        }
    }

    /// The length of the head, as far as it is known yet.
    fn head_length(&self) -> usize {
        if self.have < 2 {
            return 2;
        }
        let length = match self.head[1] & 0x7F {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        2 + length + if self.head[1] & 0x80 == 0 { 0 } else { 4 }
    }

    fn payload_length(&self) -> u64 {
        let number = |bytes: &[u8]| {
            bytes
                .iter()
                .fold(0, |number, byte| number << 8 | u64::from(*byte))
        };
        match self.head[1] & 0x7F {
            126 => number(&self.head[2..4]),
            127 => number(&self.head[2..10]),
            short => u64::from(short),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(first: u8, length: usize, mask: bool) -> Vec<u8> {
        let bit = if mask { 0x80 } else { 0 };
        let mut frame = vec![first];
        match length {
            0..126 => frame.push(bit | u8::try_from(length).unwrap()),
            126..65536 => {
                frame.push(bit | 126);
                frame.extend(u16::try_from(length).unwrap().to_be_bytes());
            }
            _ => {
                frame.push(bit | 127);
                frame.extend((length as u64).to_be_bytes());
            }
        }
        frame.resize(frame.len() + if mask { 4 } else { 0 } + length, 7);
        frame
    }

    #[test]
    fn the_end_of_a_frame_is_found_however_it_comes() {
        for mask in [false, true] {
            for length in [0, 1, 125, 126, 65535, 65536] {
                let frame = frame(0x82, length, mask);
                for piece in [1, 2, 3, 7, 100_000] {
                    let mut frames = Frames::default();
                    let mut before = true;
                    for piece in frame.chunks(piece) {
                        assert!(before);
                        frames.take(piece);
                        before = !frames.is_between();
                    }
                    assert!(
                        frames.is_between() && !frames.is_closed(),
                        "{length} {piece}"
                    );
                }
            }
        }
    }

    #[test]
    fn what_it_wants_never_reaches_into_the_next() {
        let stream = [
            frame(1, 5, true),
            frame(0x88, 2, false),
            frame(2, 70_000, true),
        ]
        .concat();
        let (mut frames, mut at, mut ends) = (Frames::default(), 0, Vec::new());
        while at < stream.len() {
            let now = usize::try_from(frames.belongs_to_frame()).unwrap();
            assert!(now > 0);
            frames.take(&stream[at..at + now]);
            at += now;
            if frames.is_between() {
                ends.push((at, frames.is_closed()));
            }
        }
        assert_eq!(ends, [(11, false), (15, true), (15 + 14 + 70_000, true)]);
    }

    #[test]
    fn what_is_said_last_is_a_frame() {
        for last in [&GOING_AWAY[..], &CLIENT_GOES_AWAY] {
            let mut frames = Frames::default();
            frames.take(last);
            assert!(frames.is_closed());
        }
    }
}
