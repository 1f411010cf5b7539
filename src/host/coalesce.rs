//! Joins several small pieces into one: a plain `send` of a copied head and body costs the kernel
//! less than a `writev` of the two.
//!
//! It never copies large pieces and never allocates.

use std::io::IoSlice;

/// Longest text that is copied: a head and a small body. To copy it takes less time than the kernel
/// needs for each vector.
const SMALL: usize = 1024;

/// Room for the copies of small pieces.
pub struct CoalesceBuffer([u8; SMALL]);

impl CoalesceBuffer {
    /// Empty.
    #[must_use]
    pub fn new() -> Self {
        Self([0; SMALL])
    }

    /// Returns the pieces as one: the only piece, or a copy of all if they are small. `None`: write
    /// them as they are.
    pub fn coalesce<'a>(&'a mut self, pieces: &'a [IoSlice<'_>]) -> Option<&'a [u8]> {
        if let [piece] = pieces {
            return Some(piece);
        }
        let mut end = 0;
        for piece in pieces {
            self.0
                .get_mut(end..end + piece.len())?
                .copy_from_slice(piece);
            end += piece.len();
        }
        self.0.get(..end)
    }
}

impl Default for CoalesceBuffer {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_pieces_become_one_and_large_ones_are_left() {
        let large = [7; SMALL];
        let all = |pieces: &[&[u8]]| {
            let pieces: Vec<IoSlice<'_>> = pieces.iter().map(|piece| IoSlice::new(piece)).collect();
            CoalesceBuffer::new().coalesce(&pieces).map(<[u8]>::to_vec)
        };
        assert_eq!(all(&[b"head", b"", b"body"]), Some(b"headbody".to_vec()));
        assert_eq!(all(&[&large]), Some(large.to_vec()));
        assert_eq!(all(&[&large, b""]), Some(large.to_vec()));
        assert_eq!(all(&[b"x", &large]), None);
        assert_eq!(all(&[]), Some(Vec::new()));
    }
}
