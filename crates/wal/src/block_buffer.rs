//! Memory in whole blocks that begins where a block may: what goes to a disk past the page cache
//! must.

use std::ops::{Deref, DerefMut};

use crate::sector::BLOCK;

/// Bytes that begin at a multiple of [`BLOCK`] in memory. What they are made of is kept when they
/// become fewer, and used again.
#[derive(Default)]
pub(crate) struct BlockBuffer {
    /// Longer by up to a block, for there is no saying where it begins.
    memory: Vec<u8>,
    /// Where the bytes begin in it.
    start: usize,
    len: usize,
}

impl BlockBuffer {
    /// So many zeros.
    pub(crate) fn zeroed(len: usize) -> BlockBuffer {
        let mut buffer = BlockBuffer::default();
        buffer.extend_with_zeros(len);
        buffer
    }

    /// Makes it so many bytes, of which nothing is known: they may be what it held before.
    pub(crate) fn set_len(&mut self, len: usize) {
        if self.start + len > self.memory.len() {
            // Made anew and not grown, which would copy what nobody needs.
            self.memory = vec![0; len + BLOCK];
            self.start = self.memory.as_ptr().align_offset(BLOCK);
            assert!(self.start < BLOCK, "a block begins within a block's length of anywhere");
        }
        self.len = len;
    }

    /// Adds zeros at the end.
    pub(crate) fn extend_with_zeros(&mut self, more: usize) {
        let len = self.len + more;
        if self.start + len > self.memory.len() {
            let mut larger = BlockBuffer::default();
            larger.set_len(len);
            larger[..self.len].copy_from_slice(self);
            *self = BlockBuffer { len: self.len, ..larger };
        }
        let old = std::mem::replace(&mut self.len, len);
        self[old..].fill(0);
    }

    /// Gives the memory back if it is more than `bytes`.
    pub(crate) fn shrink(&mut self, bytes: usize) {
        if self.memory.len() > bytes {
            *self = BlockBuffer::default();
        }
    }
}

impl Deref for BlockBuffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.memory[self.start..self.start + self.len]
    }
}

impl DerefMut for BlockBuffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.memory[self.start..self.start + self.len]
    }
}

/// Whether these bytes may go to that offset past the page cache: all in whole blocks.
pub(crate) fn is_aligned(bytes: &[u8], offset: u64) -> bool {
    let block = BLOCK as u64;
    bytes.as_ptr().addr().is_multiple_of(BLOCK)
        && bytes.len().is_multiple_of(BLOCK)
        && offset.is_multiple_of(block)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_begin_at_a_block() {
        let mut buffer = BlockBuffer::default();
        for len in [BLOCK, 3 * BLOCK, 2 * BLOCK, 100 * BLOCK, 0] {
            buffer.set_len(len);
            assert_eq!(buffer.len(), len);
            assert!(is_aligned(&buffer, 0));
            buffer.fill(1);
        }
        assert!(!is_aligned(&buffer, 512));
        buffer.set_len(BLOCK);
        buffer.fill(1);
        for more in [BLOCK, 300 * BLOCK, 0] {
            let before = buffer.len();
            buffer.extend_with_zeros(more);
            assert!(is_aligned(&buffer, 0));
            assert!(buffer[..BLOCK].iter().all(|byte| *byte == 1));
            assert!(buffer[before..].iter().all(|byte| *byte == 0));
            assert_eq!(buffer.len(), before + more);
        }
        let some = BlockBuffer::zeroed(2 * BLOCK);
        assert!(some.iter().all(|byte| *byte == 0));
        assert!(!is_aligned(&some[512..], 0));
        assert!(!is_aligned(&some[..512], 0));
    }
}
