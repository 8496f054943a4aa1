//! The changes of the store in the order they were made.

use std::collections::VecDeque;

use crate::record::Record;

/// Changes in a chunk; growing by chunks keeps an append from ever copying what is there.
const CHUNK: usize = 1024;

/// An append-only log of changes, dropped from the front by compaction.
///
/// Changes are numbered by a sequence that never restarts; those of one revision stand side by
/// side, in the order of the transaction's steps (etcd's sub-revisions). Every chunk but the first
/// and the last holds [`CHUNK`].
#[derive(Debug, Default)]
pub(crate) struct History {
    chunks: VecDeque<VecDeque<Record>>,
    first: u64,
    end: u64,
}

impl History {
    /// Sequence number of the oldest change held.
    pub(crate) fn first(&self) -> u64 {
        self.first
    }

    /// Sequence number that the next change will get.
    pub(crate) fn end(&self) -> u64 {
        self.end
    }

    pub(crate) fn push(&mut self, record: Record) {
        // By number, not by length: the only chunk may also have been drained from the front.
        if self.end.is_multiple_of(CHUNK as u64) || self.chunks.is_empty() {
            self.chunks.push_back(VecDeque::new());
        }
        if let Some(chunk) = self.chunks.back_mut() {
            chunk.push_back(record);
        }
        self.end += 1;
    }

    pub(crate) fn get(&self, sequence: u64) -> Option<&Record> {
        let chunk = sequence / CHUNK as u64 - self.first / CHUNK as u64;
        let start = (sequence / CHUNK as u64 * CHUNK as u64).max(self.first);
        self.chunks.get(chunk as usize)?.get((sequence - start) as usize)
    }

    pub(crate) fn pop(&mut self) {
        if let Some(chunk) = self.chunks.front_mut() {
            chunk.pop_front();
            self.first += 1;
            if self.first.is_multiple_of(CHUNK as u64) || chunk.is_empty() {
                self.chunks.pop_front();
            }
        }
    }

    /// Sequence number of the first change at or after a revision.
    pub(crate) fn find(&self, revision: i64) -> u64 {
        let (mut low, mut high) = (self.first, self.end);
        while low < high {
            let middle = low + (high - low) / 2;
            if self.get(middle).is_some_and(|record| record.mod_revision() < revision) {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        low
    }
}
