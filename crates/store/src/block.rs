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
    /// The records that are held.
    bytes: Bytes,
    /// Where each of them ends but the last, which ends them all. So these are small.
    ends: [u16; RECORDS_MAX],
    /// How many there were at first.
    records: usize,
    /// Bit i is set while record i is among the bytes.
    held: u64,
    /// Bit i is set until no read can come to record i.
    kept: u64,
}

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
        self.ends.len() == RECORDS_MAX || self.bytes.len() + self.largest > BYTES_MAX
    }

    pub(crate) fn is_kept(&self, at: Address) -> bool {
        self.kept & bit(at.index()) != 0
    }

    pub(crate) fn forget(&mut self, at: Address) {
        self.kept &= !bit(at.index());
    }

    /// The records as a block, and empties the tail for those to come.
    pub(crate) fn seal(&mut self) -> Block {
        let starts = std::iter::once(0).chain(self.ends.iter().copied());
        let records = starts.zip(&self.ends).map(|(start, &end)| &self.bytes[start..end]);
        let block = Block::pack(self.ends.len(), self.kept, self.bytes.len(), records.enumerate());
        self.bytes.clear();
        self.bytes.shrink_to(BYTES_MAX);
        self.ends.clear();
        (self.largest, self.kept) = (0, 0);
        block
    }
}

impl Block {
    fn pack<'a>(
        records: usize,
        kept: u64,
        len: usize,
        held: impl Iterator<Item = (usize, &'a [u8])>,
    ) -> Block {
        let mut bytes: Vec<u8> = Vec::with_capacity(len);
        let ends = [0; RECORDS_MAX];
        let mut block = Block { bytes: Bytes::new(), ends, records, held: 0, kept };
        for (nth, (index, record)) in held.enumerate() {
            bytes.extend_from_slice(record);
            block.ends[nth] = bytes.len() as u16;
            block.held |= bit(index);
        }
        block.bytes = bytes.into();
        block
    }

    /// How many records there were at first.
    pub(crate) fn records(&self) -> u64 {
        self.records as u64
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
        let start = nth.checked_sub(1).map_or(0, |before| usize::from(self.ends[before]));
        let is_last = self.held >> index == 1;
        let end = if is_last { self.bytes.len() } else { usize::from(self.ends[nth]) };
        Some(&self.bytes[start..end])
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
            let indices = (0..self.records).filter(move |&index| mask & bit(index) != 0);
            indices.filter_map(|index| Some((index, self.nth_bytes(index)?)))
        };
        let dead: usize = held(gone).map(|(_, record)| record.len()).sum();
        let left = self.bytes.len() - dead;
        (dead > 0 && dead >= left).then(|| Block::pack(self.records, self.kept, left, held(!gone)))
    }
}

fn bit(index: usize) -> u64 {
    1 << index
}
