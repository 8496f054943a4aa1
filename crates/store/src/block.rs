//! Records that were made one after the other, packed into one piece of memory.

use bytes::Bytes;

use crate::record::{Address, Draft};

/// A block is full with so many records, a bit of a word for each. Unit tests use tiny blocks.
pub(crate) const RECORDS_MAX: usize = if cfg!(test) { 4 } else { 64 };
/// Or when one more as large as its largest would make it larger than this, which the allocator hands
/// out without waste.
const BYTES_MAX: usize = if cfg!(test) { 80 } else { 16 << 10 };

/// The block that is being filled. Small enough to be copied when a view has it, too.
#[derive(Debug)]
pub(crate) struct Tail {
    bytes: Vec<u8>,
    /// Where each record ends.
    ends: Vec<usize>,
    largest: usize,
    kept: u64,
}

/// A full block. Its records never change; they only go, one by one.
#[derive(Clone, Debug)]
pub(crate) struct Block {
    /// The records that are held; then where each of them ends but the last, two bytes each.
    bytes: Bytes,
    /// How many records there were at first.
    records: u32,
    /// How many are held.
    held_records: u32,
    /// Bit i is set while record i is among the bytes.
    held: u64,
    /// Bit i is set until no read can come to record i.
    kept: u64,
    /// How many deletions there were in the log up to the end of the block.
    deletions: u64,
}

/// Bytes that say where a record ends: what stands before the last record is small.
const END_BYTES: usize = size_of::<u16>();

impl Default for Tail {
    fn default() -> Tail {
        let (bytes, ends) = (Vec::with_capacity(BYTES_MAX), Vec::with_capacity(RECORDS_MAX));
        Tail { bytes, ends, largest: 0, kept: 0 }
    }
}

impl Clone for Tail {
    fn clone(&self) -> Tail {
        let mut copy = Tail { largest: self.largest, kept: self.kept, ..Tail::default() };
        copy.bytes.extend_from_slice(&self.bytes);
        copy.ends.extend_from_slice(&self.ends);
        copy
    }
}

impl Tail {
    pub(crate) fn records(&self) -> u64 {
        self.ends.len() as u64
    }

    pub(crate) fn bytes_of(&self, at: Address) -> Option<&[u8]> {
        let end = *self.ends.get(at.index())?;
        Some(&self.bytes[at.index().checked_sub(1).map_or(0, |before| self.ends[before])..end])
    }

    pub(crate) fn push(&mut self, at: Address, draft: &Draft<'_>) {
        let start = self.bytes.len();
        draft.write(at, &mut self.bytes);
        self.largest = self.largest.max(self.bytes.len() - start);
        self.kept |= bit(self.ends.len());
        self.ends.push(self.bytes.len());
    }

    pub(crate) fn is_full(&self) -> bool {
        let ends = self.ends.len() * END_BYTES;
        self.ends.len() == RECORDS_MAX || self.bytes.len() + ends + self.largest > BYTES_MAX
    }

    pub(crate) fn is_kept(&self, at: Address) -> bool {
        self.kept & bit(at.index()) != 0
    }

    pub(crate) fn forget(&mut self, at: Address) {
        self.kept &= !bit(at.index());
    }

    /// The records as a block, and empties the tail for those to come. `deletions` counts those of
    /// the whole log.
    pub(crate) fn seal(&mut self, deletions: u64) -> Block {
        let starts = std::iter::once(0).chain(self.ends.iter().copied());
        let records = starts.zip(&self.ends).map(|(start, &end)| &self.bytes[start..end]);
        let empty = Block {
            bytes: Bytes::new(),
            records: self.ends.len() as u32,
            held_records: 0,
            held: 0,
            kept: self.kept,
            deletions,
        };
        let block = empty.with(self.ends.len(), self.bytes.len(), records.enumerate());
        self.bytes.clear();
        self.bytes.shrink_to(BYTES_MAX);
        self.ends.clear();
        (self.largest, self.kept) = (0, 0);
        block
    }
}

impl Block {
    /// The block with these records, so many with so many bytes, and no others.
    fn with<'a>(
        &self,
        records: usize,
        len: usize,
        held: impl Iterator<Item = (usize, &'a [u8])>,
    ) -> Block {
        // Just as large as needed: it is kept.
        let ends_len = records.saturating_sub(1) * END_BYTES;
        let mut bytes: Vec<u8> = Vec::with_capacity(len + ends_len);
        let mut ends = [0; RECORDS_MAX * END_BYTES];
        let mut mask = 0;
        for ((index, record), end) in held.zip(ends.chunks_exact_mut(END_BYTES)) {
            bytes.extend_from_slice(record);
            end.copy_from_slice(&(bytes.len() as u16).to_le_bytes());
            mask |= bit(index);
        }
        bytes.extend_from_slice(&ends[..ends_len]);
        Block { bytes: bytes.into(), held: mask, held_records: records as u32, ..*self }
    }

    /// How many records there were at first.
    pub(crate) fn records(&self) -> u64 {
        u64::from(self.records)
    }

    /// How many deletions there were in the log up to the end of the block.
    pub(crate) fn deletions(&self) -> u64 {
        self.deletions
    }

    /// All the bytes that [`Block::bytes_of`] gives parts of, to be shared.
    pub(crate) fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    pub(crate) fn bytes_of(&self, at: Address) -> Option<&[u8]> {
        self.nth_bytes(at.index())
    }

    fn nth_bytes(&self, index: usize) -> Option<&[u8]> {
        if self.held & bit(index) == 0 {
            return None;
        }
        let nth = (self.held & (bit(index) - 1)).count_ones() as usize;
        let start = nth.checked_sub(1).map_or(0, |before| self.end_of(before));
        Some(&self.bytes[start..self.end_of(nth)])
    }

    /// Where a record that is held ends.
    fn end_of(&self, nth: usize) -> usize {
        let ends_len = (self.held_records as usize).saturating_sub(1) * END_BYTES;
        let (records, ends) = self.bytes.split_at(self.bytes.len() - ends_len);
        match ends.get(nth * END_BYTES..).and_then(|ends| ends.first_chunk()) {
            Some(&end) => usize::from(u16::from_le_bytes(end)),
            None => records.len(),
        }
    }

    pub(crate) fn is_kept(&self, at: Address) -> bool {
        self.kept & bit(at.index()) != 0
    }

    /// The records that no read comes to.
    pub(crate) fn forgotten(&self) -> u64 {
        !self.kept
    }

    pub(crate) fn forget(&mut self, at: Address) {
        self.kept &= !bit(at.index());
    }

    /// Whether nothing is left.
    pub(crate) fn is_empty(&self) -> bool {
        self.held == 0
    }

    /// The block without the records that are gone, once half of its memory is theirs: so what is
    /// copied is never more than what is given back.
    pub(crate) fn without(&self, gone: u64) -> Option<Block> {
        let held = |mask: u64| {
            let indices = (0..self.records as usize).filter(move |&index| mask & bit(index) != 0);
            indices.filter_map(|index| Some((index, self.nth_bytes(index)?)))
        };
        let len = |mask: u64| held(mask).map(|(_, record)| record.len()).sum::<usize>();
        let dead = len(gone);
        if dead == 0 {
            return None;
        }
        let left = len(!gone);
        let records = (self.held & !gone).count_ones() as usize;
        (dead >= left).then(|| self.with(records, left, held(!gone)))
    }
}

fn bit(index: usize) -> u64 {
    1 << index
}
