//! Every version of every key that is held, in the order they were made.

use std::sync::Arc;

use bytes::Bytes;

use crate::block::{Block, Tail};
use crate::record::{self, Address, Draft, Link, Record};

/// Bits of an address that number the records of a block.
const INDEX_BITS: u32 = 6;
/// Bits of a block's number that each level of pages takes.
const PAGE_BITS: u32 = if cfg!(test) { 1 } else { 4 };
const PAGE: usize = 1 << PAGE_BITS;
/// What a copy of a page counts as: a reference to each child is counted, in memory of its own.
const PAGE_COPY_BYTES: usize = PAGE * 64;
/// Each so many versions of a key, one is a station.
const STRIDE: u64 = if cfg!(test) { 2 } else { 8 };

/// Where all records are, found by address. A clone is O(1) and never changes.
///
/// A record is held for two reasons: while it is part of the *history*, the changes that were not
/// dropped from the front yet, and while it is *kept*, that is, while a read may come to it. Full
/// blocks are found through a tree of pages by their number, which goes on for ever; pages without
/// blocks go.
#[derive(Clone, Debug, Default)]
pub(crate) struct Log {
    root: Option<Arc<Page>>,
    /// Levels of pages above the one that leads to blocks.
    levels: u32,
    tail: Arc<Tail>,
    /// The number that the tail will have as a block.
    tail_number: u64,
    /// The oldest change of the history.
    first: Address,
    /// Bytes of key and value of all records that are kept.
    bytes: u64,
    /// How many records are kept.
    kept: u64,
    /// How many deletions there ever were.
    deletions: u64,
}

#[derive(Clone, Debug)]
enum Page {
    Pages([Option<Arc<Page>>; PAGE]),
    Blocks([Option<Block>; PAGE]),
}

impl Address {
    fn new(block: u64, index: u64) -> Address {
        Address(block << INDEX_BITS | index)
    }

    fn block(self) -> u64 {
        self.0 >> INDEX_BITS
    }

    /// Which record of its block.
    pub(crate) fn index(self) -> usize {
        (self.0 & ((1 << INDEX_BITS) - 1)) as usize
    }
}

impl Log {
    /// The oldest change of the history.
    pub(crate) fn first(&self) -> Address {
        self.first
    }

    /// The address that the next record will get.
    pub(crate) fn end(&self) -> Address {
        Address::new(self.tail_number, self.tail.records())
    }

    /// Bytes of key and value of all records that are kept.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// How many records are kept.
    pub(crate) fn kept(&self) -> u64 {
        self.kept
    }

    /// The record, if it is still held.
    pub(crate) fn get(&self, at: Address) -> Option<Record<'_>> {
        let (bytes, home) = self.bytes_of(at)?;
        Some(Record::read(at, bytes, home))
    }

    /// The key of a record that is still held.
    pub(crate) fn key(&self, at: Address) -> Option<&[u8]> {
        self.bytes_of(at).map(|(bytes, _)| record::key(bytes))
    }

    /// Has the processor load the beginnings of records, all at once.
    pub(crate) fn touch(&self, records: impl Iterator<Item = Address>) {
        let beginnings = records.filter_map(|at| self.bytes_of(at)?.0.first());
        std::hint::black_box(beginnings.fold(0, |all, byte| all ^ byte));
    }

    /// A record's bytes and those of its block, once that is full.
    #[inline]
    pub(crate) fn bytes_of(&self, at: Address) -> Option<(&[u8], Option<&Bytes>)> {
        let (bytes, home, is_kept) = if at.block() == self.tail_number {
            (self.tail.bytes_of(at)?, None, self.tail.is_kept(at))
        } else {
            let (bytes, home, is_kept) = self.block(at)?.find(at)?;
            (bytes, Some(home), is_kept)
        };
        // Memory is given back later than what was in it is given up.
        (is_kept || at >= self.first).then_some((bytes, home))
    }

    /// Where the next record is, or will be.
    pub(crate) fn next(&self, at: Address) -> Address {
        if at.index() as u64 + 1 == self.records(at) && at.block() != self.tail_number {
            Address::new(at.block() + 1, 0)
        } else {
            Address(at.0 + 1)
        }
    }

    pub(crate) fn push(&mut self, draft: &Draft<'_>) {
        let at = self.end();
        let tail = Arc::make_mut(&mut self.tail);
        tail.push(at, draft);
        self.bytes += (draft.key.len() + draft.value.len()) as u64;
        self.kept += 1;
        self.deletions += u64::from(draft.version == 0);
        if tail.is_full() {
            let block = tail.seal(self.deletions);
            self.tail_number += 1;
            self.set(at.block(), Some(block));
            self.release(at);
        }
    }

    /// What a new version of a key says of the older ones, the last of which is given.
    ///
    /// Each version points to the one before and to a *mark*, the last station before it; stations
    /// are [`STRIDE`] versions apart. The mark of a station is an older station: the one before, or
    /// if the two hops from there would be equally long, where they end (Myers, "An applicative
    /// random-access stack", 1983). So any version is found in O(log versions) hops, for the price of
    /// a look at three old records with every station.
    pub(crate) fn link(&self, prev: &Record<'_>) -> Link {
        let Some(before) = prev.link else {
            return Link { prev: prev.at, mark: prev.at, depth: 1 };
        };
        let depth = before.depth + 1;
        let mark = if before.depth.is_multiple_of(STRIDE) {
            prev.at
        } else if depth.is_multiple_of(STRIDE) {
            self.far_station(before.mark).unwrap_or(before.mark)
        } else {
            before.mark
        };
        Link { prev: prev.at, mark, depth }
    }

    /// Where two hops from a station end, if they are equally long and not out of reach.
    fn far_station(&self, near: Address) -> Option<Address> {
        let near = self.get(near)?;
        let middle = self.get(near.link?.mark)?;
        let far = self.get(middle.link?.mark)?;
        (near.depth() - middle.depth() == middle.depth() - far.depth()).then_some(far.at)
    }

    /// The last version before an address of a key whose newest version is given.
    pub(crate) fn version_before(&self, newest: Address, bound: Address) -> Option<Record<'_>> {
        let mut at = newest;
        while at >= bound {
            let link = self.get(at)?.link?;
            at = if link.mark >= bound { link.mark } else { link.prev };
        }
        self.get(at)
    }

    /// The first change of the history at or after a revision.
    pub(crate) fn find(&self, revision: i64) -> Address {
        let is_before = |block, index| {
            let record = self.get(Address::new(block, index));
            record.is_some_and(|record| record.mod_revision < revision)
        };
        // In the last block that begins before the revision. The first one begins in its middle.
        let first = self.first;
        let block = partition(first.block() + 1, self.tail_number + 1, |n| is_before(n, 0)) - 1;
        let start = first.max(Address::new(block, 0));
        let records = self.records(start);
        let index = partition(start.index() as u64, records, |index| is_before(block, index));
        if index == records && block != self.tail_number {
            Address::new(block + 1, 0)
        } else {
            Address::new(block, index)
        }
    }

    /// How many deletions there are in the history from this change on.
    pub(crate) fn deletions_from(&self, at: Address) -> u64 {
        let later = self.block(at).map_or(0, |block| self.deletions - block.deletions());
        let records = at.index() as u64..self.records(at);
        let here = records.filter_map(|index| self.get(Address::new(at.block(), index)));
        later + here.filter(Record::is_tombstone).count() as u64
    }

    /// Drops the first change of the history. Returns the bytes that were copied, as below.
    pub(crate) fn pop(&mut self) -> usize {
        if self.first >= self.end() {
            return 0;
        }
        let at = self.first;
        self.first = self.next(at);
        self.release(at)
    }

    /// No read will come to the record any more. Returns the bytes that were copied.
    pub(crate) fn forget(&mut self, at: Address) -> usize {
        let Some(record) = self.get(at) else { return 0 };
        let len = record.payload_len();
        if at.block() == self.tail_number {
            if !self.tail.is_kept(at) {
                return 0;
            }
            self.bytes -= len;
            self.kept -= 1;
            let copied = if Arc::get_mut(&mut self.tail).is_none() { self.tail.len() } else { 0 };
            Arc::make_mut(&mut self.tail).forget(at);
            return copied;
        }
        let Some(block) = self.block(at).filter(|block| block.is_kept(at)) else { return 0 };
        let mut block = block.clone();
        block.forget(at);
        self.bytes -= len;
        self.kept -= 1;
        size_of::<Block>() + self.set(at.block(), Some(block)) + self.release(at)
    }

    /// Gives back memory of the block, if there is enough in it that nobody wants. Returns the bytes
    /// that were copied.
    fn release(&mut self, at: Address) -> usize {
        let passed = match at.block().cmp(&self.first.block()) {
            std::cmp::Ordering::Less => u64::MAX,
            std::cmp::Ordering::Equal => (1 << self.first.index()) - 1,
            std::cmp::Ordering::Greater => 0,
        };
        let smaller = self.block(at).and_then(|block| block.without(block.forgotten() & passed));
        smaller.map_or(0, |smaller| {
            let copied = smaller.len();
            copied + self.set(at.block(), (!smaller.is_empty()).then_some(smaller))
        })
    }

    /// How many records the block has had, or how many the tail has.
    fn records(&self, at: Address) -> u64 {
        if at.block() == self.tail_number {
            self.tail.records()
        } else {
            self.block(at).map_or(0, Block::records)
        }
    }

    #[inline]
    fn block(&self, at: Address) -> Option<&Block> {
        let number = at.block();
        if number >= self.tail_number {
            return None;
        }
        let mut page = self.root.as_deref()?;
        for level in (1..=self.levels).rev() {
            match page {
                Page::Pages(pages) => page = pages[child(number, level)].as_deref()?,
                Page::Blocks(_) => return None,
            }
        }
        match page {
            Page::Blocks(blocks) => blocks[child(number, 0)].as_ref(),
            Page::Pages(_) => None,
        }
    }

    /// Returns the bytes of the pages that were copied.
    fn set(&mut self, number: u64, block: Option<Block>) -> usize {
        while number >> (PAGE_BITS * (self.levels + 1)) != 0 {
            self.levels += 1;
            if let Some(below) = self.root.take() {
                let mut pages = [const { None }; PAGE];
                pages[0] = Some(below);
                self.root = Some(Arc::new(Page::Pages(pages)));
            }
        }
        set(&mut self.root, self.levels, number, block)
    }
}

/// Puts a block below a page, or takes it away, and the pages that are empty then. Returns the bytes
/// of the pages that were copied.
fn set(page: &mut Option<Arc<Page>>, level: u32, number: u64, block: Option<Block>) -> usize {
    let at = child(number, level);
    let empty = || match level {
        0 => Arc::new(Page::Blocks([const { None }; PAGE])),
        _ => Arc::new(Page::Pages([const { None }; PAGE])),
    };
    let shared = page.get_or_insert_with(empty);
    let mut copied = if Arc::get_mut(shared).is_none() { PAGE_COPY_BYTES } else { 0 };
    let is_empty = match Arc::make_mut(shared) {
        Page::Blocks(blocks) => {
            blocks[at] = block;
            blocks.iter().all(Option::is_none)
        }
        Page::Pages(pages) => {
            copied += set(&mut pages[at], level - 1, number, block);
            pages.iter().all(Option::is_none)
        }
    };
    if is_empty {
        *page = None;
    }
    copied
}

/// Which child of a page at the level leads to the block.
fn child(number: u64, level: u32) -> usize {
    (number >> (PAGE_BITS * level)) as usize % PAGE
}

/// The first number from `low` on that is not before; `high` if all are.
fn partition(mut low: u64, mut high: u64, is_before: impl Fn(u64) -> bool) -> u64 {
    while low < high {
        let middle = low + (high - low) / 2;
        if is_before(middle) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    low
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// All records there ever were, and who wants them still.
    #[derive(Clone, Default)]
    struct Dumb {
        records: Vec<DumbRecord>,
        /// How many were dropped from the history.
        popped: usize,
    }

    #[derive(Clone)]
    struct DumbRecord {
        at: Address,
        key: u8,
        revision: i64,
        value: Vec<u8>,
        is_kept: bool,
    }

    impl Dumb {
        fn newest(&self, key: u8) -> Option<&DumbRecord> {
            self.records.iter().rev().find(|record| record.key == key)
        }

        fn is_wanted(&self, nth: usize) -> bool {
            nth >= self.popped || self.records[nth].is_kept
        }
    }

    fn same(log: &Log, dumb: &Dumb) {
        let mut at = Address::default();
        for (nth, record) in dumb.records.iter().enumerate() {
            assert!(record.at >= at, "addresses ascend");
            at = Address(record.at.0 + 1);
            if dumb.is_wanted(nth) {
                let found = log.get(record.at).expect("what is wanted is held");
                assert_eq!(log.key(record.at), Some(&[record.key][..]));
                let key_value = found.key_value();
                assert_eq!((found.key, found.at), (&[record.key][..], record.at));
                assert_eq!(
                    (key_value.value, found.mod_revision),
                    (record.value.clone().into(), record.revision)
                );
            }
            if nth >= dumb.popped {
                let next = dumb.records.get(nth + 1).map_or(log.end(), |next| next.at);
                assert_eq!(log.next(record.at), next);
            }
        }
        let history = &dumb.records[dumb.popped..];
        assert_eq!(log.first(), history.first().map_or(log.end(), |first| first.at));
        let kept = dumb.records.iter().filter(|record| record.is_kept);
        assert_eq!(log.kept(), kept.clone().count() as u64);
        assert_eq!(log.bytes(), kept.map(|record| record.value.len() as u64 + 1).sum());
        for revision in -1..dumb.records.last().map_or(1, |last| last.revision + 2) {
            let found = history.iter().find(|record| record.revision >= revision);
            assert_eq!(log.find(revision), found.map_or(log.end(), |found| found.at));
        }
        for key in 0..3 {
            let Some(newest) = dumb.newest(key) else { continue };
            let versions = dumb.records.iter().enumerate().filter(|(_, record)| record.key == key);
            for (nth, version) in versions {
                // What is older than one that is not kept is not asked for.
                let bound = Address(version.at.0 + 1);
                let newer = dumb.records[nth..].iter().filter(|record| record.key == key);
                if newer.clone().all(|record| record.is_kept) {
                    let found = log.version_before(newest.at, bound).expect("it is kept");
                    assert_eq!(found.at, version.at);
                }
            }
        }
        well_packed(log, dumb);
    }

    /// No block is half empty, and there are no others than those with something in them.
    fn well_packed(log: &Log, dumb: &Dumb) {
        for number in 0..log.tail_number {
            let of_block = |at: Address| at.block() == number;
            let records = dumb.records.iter().enumerate().filter(|(_, record)| of_block(record.at));
            let (mut wanted, mut dead) = (0, 0);
            for (nth, record) in records {
                let len = log.block(record.at).and_then(|block| block.find(record.at));
                let sum = if dumb.is_wanted(nth) { &mut wanted } else { &mut dead };
                *sum += len.map_or(0, |(bytes, ..)| bytes.len());
            }
            assert_eq!(log.block(Address::new(number, 0)).is_some(), wanted > 0);
            assert!(dead == 0 || dead < wanted, "no block is half empty");
        }
        let wanted = (0..dumb.records.len()).filter(|&nth| dumb.is_wanted(nth));
        let in_blocks = wanted.filter(|&nth| dumb.records[nth].at.block() < log.tail_number);
        assert_eq!(log.root.is_some(), in_blocks.count() > 0);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(500))]
        #[test]
        fn log_holds_what_is_wanted_and_old_clones_stay(
            steps in prop::collection::vec((0u8..10, 0u8..3, 0usize..40), 1..120),
        ) {
            let (mut log, mut dumb, mut clones) = (Log::default(), Dumb::default(), Vec::new());
            for (step, (kind, key, size)) in steps.iter().enumerate() {
                match kind {
                    0..2 => {
                        log.pop();
                        dumb.popped = (dumb.popped + 1).min(dumb.records.len());
                    }
                    // The oldest version of a key goes before its newer ones do.
                    2..4 => {
                        let of_key = |record: &&mut DumbRecord| record.key == *key && record.is_kept;
                        if let Some(oldest) = dumb.records.iter_mut().find(of_key) {
                            oldest.is_kept = false;
                            log.forget(oldest.at);
                            log.forget(oldest.at);
                        }
                    }
                    4 => clones.push((log.clone(), dumb.clone())),
                    _ => {
                        let prev = dumb.newest(*key).and_then(|newest| log.get(newest.at));
                        let link = prev.map(|prev| log.link(&prev));
                        let (at, revision) = (log.end(), step as i64 / 3);
                        let value = vec![b'v'; *size];
                        let (version, create_revision, lease) = (1, revision, 0);
                        log.push(&Draft {
                            key: &[*key], value: &value, mod_revision: revision, version,
                            create_revision, lease, link,
                        });
                        dumb.records.push(DumbRecord { at, key: *key, revision, value, is_kept: true });
                    }
                }
            }
            clones.push((log, dumb));
            for (log, dumb) in &clones {
                same(log, dumb);
            }
        }
    }

    /// However many versions of a key there are.
    #[test]
    fn an_old_version_is_few_hops_away() {
        let mut log = Log::default();
        let mut versions: Vec<Address> = Vec::new();
        for revision in 0..10_000 {
            let prev = versions.last().and_then(|last| log.get(*last));
            let link = prev.map(|prev| log.link(&prev));
            versions.push(log.end());
            log.push(&Draft::tombstone(b"key", revision, link));
        }
        let newest = versions[versions.len() - 1];
        for &version in versions.iter().step_by(97) {
            let (mut at, mut hops) = (newest, 0);
            while at > version {
                let link = log.get(at).and_then(|record| record.link).expect("an older version");
                at = if link.mark > version { link.mark } else { link.prev };
                hops += 1;
            }
            assert!(hops < 60, "{hops} hops to {version:?}");
            let found = log.version_before(newest, Address(version.0 + 1));
            assert_eq!(found.map(|found| found.at), Some(version));
        }
    }
}
