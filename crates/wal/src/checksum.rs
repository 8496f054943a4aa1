//! The 64-bit hash of records, batches and META.
//!
//! It is the second of two nets. The first is the CRC-32C of every sector, which finds every
//! change of up to five bits and every burst of up to 32; this one is of another family, so that
//! what slips through the one by its algebra does not slip through the other.

const MULTIPLIER: u64 = 0x9e37_79b9_7f4a_7c15;

/// A hash over words and bytes, in order. Part of the format on disk: it never changes.
///
/// Each step is a bijection of the state, so two inputs of equal length that differ in one word
/// only always have different hashes.
pub(crate) struct Hasher {
    state: u64,
}

impl Hasher {
    pub(crate) fn new(seed: u64) -> Hasher {
        Hasher { state: seed ^ 0x5241_4654_2d4b_5631 }
    }

    pub(crate) fn word(&mut self, word: u64) -> &mut Hasher {
        self.state = (self.state.rotate_left(29) ^ word).wrapping_mul(MULTIPLIER);
        self
    }

    /// Bytes as little-endian words, the last one filled up with zeros, then their number.
    pub(crate) fn bytes(&mut self, bytes: &[u8]) -> &mut Hasher {
        let mut words = bytes.chunks_exact(8);
        for word in &mut words {
            self.word(u64::from_le_bytes(word.try_into().expect("chunks of eight bytes")));
        }
        let rest = words.remainder();
        if !rest.is_empty() {
            let mut word = [0; 8];
            word[..rest.len()].copy_from_slice(rest);
            self.word(u64::from_le_bytes(word));
        }
        self.word(bytes.len() as u64)
    }

    pub(crate) fn finish(&self) -> u64 {
        let mut hash = self.state;
        hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        hash ^ (hash >> 31)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hash_is_part_of_the_format() {
        assert_eq!(Hasher::new(0).finish(), 0x5ced6319b40ec42);
        assert_eq!(Hasher::new(1).word(2).bytes(b"raft-kv wal").finish(), 0xfcb10e48cd6d0fec);
    }

    #[test]
    fn every_flipped_bit_changes_the_hash() {
        let bytes: Vec<u8> = (0..100).collect();
        let whole = Hasher::new(7).bytes(&bytes).finish();
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_ne!(Hasher::new(7).bytes(&flipped).finish(), whole, "bit {bit}");
        }
    }
}
