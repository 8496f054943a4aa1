//! Numbers that stand for long histories: equal if the histories are.

/// A hash of everything that was added, in order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Digest(pub u64);

impl Digest {
    /// Adds a number.
    pub fn word(self, word: u64) -> Digest {
        let mixed = (self.0.rotate_left(23) ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        Digest(mixed ^ mixed >> 32)
    }

    /// Adds bytes and how many they are.
    pub fn bytes(self, bytes: &[u8]) -> Digest {
        let (words, rest) = bytes.as_chunks::<8>();
        let sum = words.iter().fold(self, |sum, word| sum.word(u64::from_le_bytes(*word)));
        let mut last = [0; 8];
        last[..rest.len()].copy_from_slice(rest);
        sum.word(u64::from_le_bytes(last)).word(bytes.len() as u64)
    }
}
