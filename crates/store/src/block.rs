//! Records that were made one after the other, packed into one piece of memory.

use std::sync::Arc;

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

/// A full block. Its records never change; they only go, one by one. What says where they end is
/// beside what says where they are, for it is needed first; so there are two sizes.
#[derive(Clone, Debug)]
pub(crate) enum Block {
    Many(Arc<Packed<{ RECORDS_MAX - 1 }>>),
    Few(Arc<Packed<FEW>>),
}

#[derive(Clone, Debug)]
pub(crate) struct Packed<const ENDS: usize> {
    head: Head,
    /// Where each record ends but the last, which ends them all. So these are small.
    ends: [u16; ENDS],
}

#[derive(Clone, Debug)]
struct Head {
    /// The records that are held.
    bytes: Bytes,
    /// How many records there were at first.
    records: u32,
    /// Bit i is set while record i is among the bytes.
    held: u64,
    /// Bit i is set until no read can come to record i.
    kept: u64,
    /// How many deletions there were in the log up to the end of the block.
    deletions: u64,
}

/// Ends of a block that lost most of its records.
const FEW: usize = if cfg!(test) { 1 } else { 8 };

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

    /// Bytes of its records.
    pub(crate) fn len(&self) -> usize {
        self.bytes.len()
    }

    pub(crate) fn bytes_of(&self, at: Address) -> Option<&[u8]> {
        let end = *self.ends.get(at.index())?;
        Some(&self.bytes[at.index().checked_sub(1).map_or(0, |before| self.ends[before])..end])
    }

    pub(crate) fn push(&mut self, at: Address, draft: &Draft<'_>) {
        let start = self.bytes.len();
        if draft.value.len() > BYTES_MAX {
            self.bytes.reserve_exact(draft.len_max());
        }
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

    /// The records as a block, and empties the tail for those to come. `deletions` counts those of
    /// the whole log.
    pub(crate) fn seal(&mut self, deletions: u64) -> Block {
        // What the tail has is given away if a copy would take no less: an allocator rounds up by as
        // much, and one record may be large.
        let bytes = match self.bytes.len() > BYTES_MAX / 8 * 7 {
            true => std::mem::replace(&mut self.bytes, Vec::with_capacity(BYTES_MAX)).into(),
            false => Bytes::copy_from_slice(&self.bytes),
        };
        let mut ends = [0; RECORDS_MAX];
        for (end, &at) in ends.iter_mut().zip(&self.ends) {
            *end = at as u16;
        }
        let count = self.ends.len();
        let held = u64::MAX >> (u64::BITS as usize - count);
        let head = Head { bytes, records: count as u32, held, kept: self.kept, deletions };
        self.bytes.clear();
        self.ends.clear();
        (self.largest, self.kept) = (0, 0);
        Block::new(head, &ends)
    }
}

impl Block {
    fn new(head: Head, ends: &[u16; RECORDS_MAX]) -> Block {
        let is_few = head.held.count_ones() as usize <= FEW + 1;
        match (ends.first_chunk(), ends.first_chunk()) {
            (Some(&ends), _) if is_few => Block::Few(Arc::new(Packed { head, ends })),
            (_, Some(&ends)) => Block::Many(Arc::new(Packed { head, ends })),
            _ => unreachable!("neither has more ends than a block has records"),
        }
    }

    fn head(&self) -> &Head {
        match self {
            Block::Many(packed) => &packed.head,
            Block::Few(packed) => &packed.head,
        }
    }

    /// How many records there were at first.
    pub(crate) fn records(&self) -> u64 {
        u64::from(self.head().records)
    }

    /// How many deletions there were in the log up to the end of the block.
    pub(crate) fn deletions(&self) -> u64 {
        self.head().deletions
    }

    /// Bytes of its records.
    pub(crate) fn len(&self) -> usize {
        self.head().bytes.len()
    }

    /// A record that is held, all bytes of the block, to be shared, and whether it is kept.
    #[inline]
    pub(crate) fn find(&self, at: Address) -> Option<(&[u8], &Bytes, bool)> {
        match self {
            Block::Many(packed) => packed.find(at.index()),
            Block::Few(packed) => packed.find(at.index()),
        }
    }

    fn nth_bytes(&self, index: usize) -> Option<&[u8]> {
        let found = match self {
            Block::Many(packed) => packed.find(index),
            Block::Few(packed) => packed.find(index),
        };
        found.map(|(bytes, ..)| bytes)
    }

    pub(crate) fn is_kept(&self, at: Address) -> bool {
        self.head().kept & bit(at.index()) != 0
    }

    /// The records that no read comes to.
    pub(crate) fn forgotten(&self) -> u64 {
        !self.head().kept
    }

    pub(crate) fn forget(&mut self, at: Address) {
        let head = match self {
            Block::Many(packed) => &mut Arc::make_mut(packed).head,
            Block::Few(packed) => &mut Arc::make_mut(packed).head,
        };
        head.kept &= !bit(at.index());
    }

    /// Whether nothing is left.
    pub(crate) fn is_empty(&self) -> bool {
        self.head().held == 0
    }

    /// The block without the records that are gone, once half of its memory is theirs: so what is
    /// copied is never more than what is given back.
    pub(crate) fn without(&self, gone: u64) -> Option<Block> {
        let head = self.head();
        let held = |mask: u64| {
            let indices = (0..head.records as usize).filter(move |&index| mask & bit(index) != 0);
            indices.filter_map(|index| Some((index, self.nth_bytes(index)?)))
        };
        let dead: usize = held(gone).map(|(_, record)| record.len()).sum();
        let left = head.bytes.len() - dead;
        if dead == 0 || dead < left {
            return None;
        }
        let mut bytes: Vec<u8> = Vec::with_capacity(left);
        let mut ends = [0; RECORDS_MAX];
        for ((_, record), end) in held(!gone).zip(&mut ends) {
            bytes.extend_from_slice(record);
            *end = bytes.len() as u16;
        }
        let head = Head { bytes: bytes.into(), held: head.held & !gone, ..*head };
        Some(Block::new(head, &ends))
    }
}

impl<const ENDS: usize> Packed<ENDS> {
    #[inline]
    fn find(&self, index: usize) -> Option<(&[u8], &Bytes, bool)> {
        let Head { bytes, held, kept, .. } = &self.head;
        if held & bit(index) == 0 {
            return None;
        }
        // Most blocks hold all that they held at first.
        let before = bit(index) - 1;
        let is_whole = held & before == before;
        let nth = if is_whole { index } else { (held & before).count_ones() as usize };
        let start = nth.checked_sub(1).map_or(0, |before| usize::from(self.ends[before]));
        let is_last = held >> index == 1;
        let end = if is_last { bytes.len() } else { usize::from(self.ends[nth]) };
        Some((&bytes[start..end], bytes, kept & bit(index) != 0))
    }
}

fn bit(index: usize) -> u64 {
    1 << index
}
