//! Where each entry stands on disk, and reading it back.
//!
//! The index holds one small row per batch, not per entry: an entry is found by its batch, and in
//! the batch's own table.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::sync::{Arc, PoisonError, RwLock};

use crate::Record;
use crate::batch::{self, Found, Head, Row};
use crate::disk::{Disk, DiskFile};
use crate::sector::{BLOCK, CONTENT, SECTOR, Salt, Sector};
use crate::segment;

/// Where a batch with entries stands, and which of them are still part of the log.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    /// Index of its first entry.
    pub(crate) first: u64,
    /// Index of its last entry that no later batch replaced.
    pub(crate) last: u64,
    pub(crate) payload_bytes: u64,
    pub(crate) batch: u64,
    pub(crate) segment: u64,
    /// Of its first sector.
    pub(crate) offset: u64,
    /// Entries it was written with.
    pub(crate) count: u32,
}

impl Place {
    pub(crate) fn of(head: &Head, segment: u64, offset: u64) -> Place {
        Place {
            first: head.first_index,
            last: head.last_index(),
            payload_bytes: head.payload_bytes,
            batch: head.batch,
            segment,
            offset,
            count: head.count,
        }
    }
}

/// The batches of the log with entries in it, by index: contiguous, none replaced.
pub(crate) struct Places<F> {
    rows: VecDeque<Place>,
    /// The open segments that rows name.
    files: BTreeMap<u64, Arc<F>>,
    /// The first error of a write or sync. Nothing works after it.
    failed: Option<String>,
}

impl<F> Places<F> {
    pub(crate) fn new() -> Places<F> {
        Places { rows: VecDeque::new(), files: BTreeMap::new(), failed: None }
    }

    pub(crate) fn add_file(&mut self, segment: u64, file: Arc<F>) {
        self.files.insert(segment, file);
    }

    /// Adds a batch, which replaces all entries from its first index on.
    pub(crate) fn push(&mut self, place: Place) {
        if place.count == 0 {
            return;
        }
        while self.rows.back().is_some_and(|row| row.first >= place.first) {
            self.rows.pop_back();
        }
        if let Some(row) = self.rows.back_mut() {
            row.last = row.last.min(place.first - 1);
        }
        self.rows.push_back(place);
    }

    /// Forgets everything in segments before `segment`.
    pub(crate) fn release(&mut self, segment: u64) {
        while self.rows.front().is_some_and(|row| row.segment < segment) {
            self.rows.pop_front();
        }
        self.files = self.files.split_off(&segment);
    }

    /// The segment that holds the entry.
    pub(crate) fn segment_of(&self, index: u64) -> Option<u64> {
        self.row_of(index).map(|at| self.rows[at].segment)
    }

    pub(crate) fn first_index(&self) -> Option<u64> {
        self.rows.front().map(|row| row.first)
    }

    pub(crate) fn fail(&mut self, error: &io::Error) {
        self.failed.get_or_insert_with(|| error.to_string());
    }

    pub(crate) fn check(&self) -> io::Result<()> {
        match &self.failed {
            None => Ok(()),
            Some(error) => Err(io::Error::other(format!(
                "the log failed before and accepts nothing more: {error}"
            ))),
        }
    }

    fn row_of(&self, index: u64) -> Option<usize> {
        let at = self.rows.partition_point(|row| row.last < index);
        self.rows.get(at).is_some_and(|row| row.first <= index).then_some(at)
    }
}

/// Reads entries on any thread while the log is appended to. A clone is another handle.
///
/// An append never makes a read find damage where there is none: a batch is in the index only when
/// it is durable, and its blocks are not written again, not even when other
/// batches replace its entries; these, and zeros written along with them, go into blocks behind it. A segment that is released stays readable as long as
/// it is open, which each read under way sees to. Reading goes through the system's cache, which may
/// hold blocks behind a batch as they were before they were written; the write past the cache drops
/// them before it returns (assumption 4 in `docs/formats.md`), so before the index names them.
pub struct Reader<D: Disk> {
    wal_id: u64,
    /// Taken by the appending thread after each sync, for a moment; by readers to look up where
    /// to read, never while reading.
    pub(crate) places: Arc<RwLock<Places<D::File>>>,
}

impl<D: Disk> Clone for Reader<D> {
    fn clone(&self) -> Reader<D> {
        Reader { wal_id: self.wal_id, places: self.places.clone() }
    }
}

impl<D: Disk> Reader<D> {
    pub(crate) fn new(wal_id: u64, places: Places<D::File>) -> Reader<D> {
        Reader { wal_id, places: Arc::new(RwLock::new(places)) }
    }

    /// Changes the index. A panic elsewhere leaves it whole: every change is one call.
    pub(crate) fn change<T>(&self, change: impl FnOnce(&mut Places<D::File>) -> T) -> T {
        change(&mut self.places.write().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn look<T>(&self, look: impl FnOnce(&Places<D::File>) -> T) -> T {
        look(&self.places.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// The entries from `from` on, at most to `to_inclusive` and at least one, until their
    /// payloads reach `bytes_max`: a batch that would go beyond is not begun, and within the first
    /// batch no entry that would go beyond is added to the first.
    ///
    /// What is returned was the log at one moment; an append meanwhile may have replaced it. Every
    /// entry is checked against its checksum. Fails with [`io::ErrorKind::NotFound`] if `from` is
    /// not in the log, and with [`io::ErrorKind::InvalidData`], naming file, offset and index, if
    /// what is on disk has rotted.
    pub fn read(&self, from: u64, to_inclusive: u64, bytes_max: usize) -> io::Result<Vec<Record>> {
        let mut records = Vec::new();
        let mut bytes = 0;
        for (place, file) in self.places_of(from, to_inclusive, bytes_max)? {
            let first = from.max(place.first);
            let last = to_inclusive.min(place.last);
            let batch = BatchOnDisk { wal_id: self.wal_id, place, file: &*file };
            let found = batch.read(first, last, bytes_max.saturating_sub(bytes))?;
            bytes += found.iter().map(|record| record.payload.len()).sum::<usize>();
            let stopped = found.last().map(|record| record.id.index) != Some(last);
            records.extend(found);
            if stopped || bytes >= bytes_max {
                break;
            }
        }
        Ok(records)
    }

    /// Whether an append or a release has failed: then every call fails, also of this reader.
    pub fn has_failed(&self) -> bool {
        self.look(|places| places.failed.is_some())
    }

    fn places_of(
        &self,
        from: u64,
        to_inclusive: u64,
        bytes_max: usize,
    ) -> io::Result<Vec<(Place, Arc<D::File>)>> {
        self.look(|places| {
            places.check()?;
            let start = places.row_of(from).filter(|_| from <= to_inclusive).ok_or_else(|| {
                let (first, last) = match (places.rows.front(), places.rows.back()) {
                    (Some(first), Some(last)) => (first.first, last.last),
                    _ => (0, 0),
                };
                let kind = io::ErrorKind::NotFound;
                let text = format!(
                    "entries {from} to {to_inclusive} are not in the log, which has {first} to \
                     {last}"
                );
                io::Error::new(kind, text)
            })?;
            let mut found = Vec::new();
            let mut bytes: u64 = 0;
            for place in places.rows.range(start..) {
                bytes = bytes.saturating_add(place.payload_bytes);
                let beyond = place.first > to_inclusive || bytes > bytes_max as u64;
                if beyond && !found.is_empty() {
                    break;
                }
                let file = places.files.get(&place.segment);
                let file = file.expect("a segment stays open as long as a row names it");
                found.push((*place, file.clone()));
            }
            Ok(found)
        })
    }
}

/// One batch, to read entries from.
struct BatchOnDisk<'a, F> {
    wal_id: u64,
    place: Place,
    file: &'a F,
}

impl<F: DiskFile> BatchOnDisk<'_, F> {
    fn read(&self, first: u64, last: u64, bytes_max: usize) -> io::Result<Vec<Record>> {
        let front_bytes = batch::HEAD + batch::ROW * self.place.count as usize;
        let front = self.sectors(0, front_bytes.div_ceil(CONTENT))?;
        let (head, rows) =
            batch::front(&front).ok_or_else(|| self.rotten(0, first, "head and table differ"))?;
        if head.first_index != self.place.first || head.count != self.place.count {
            return Err(self.rotten(0, first, "another batch stands there"));
        }
        let skipped = (first - self.place.first) as usize;
        let before: usize = rows[..skipped].iter().map(|row| row.len as usize).sum();
        let wanted = take(&rows[skipped..=(last - self.place.first) as usize], bytes_max);
        let len: usize = wanted.iter().map(|row| row.len as usize).sum();

        let at = head.front_bytes() + before;
        let from_sector = at / CONTENT;
        let sectors = self.sectors(from_sector, (at + len).div_ceil(CONTENT) - from_sector)?;
        batch::payloads(&sectors, at - from_sector * CONTENT, wanted, first)
            .map_err(|index| self.rotten(from_sector, index, "wrong checksum of the entry"))
    }

    /// Reads sectors of the batch and judges each.
    fn sectors(&self, from: usize, count: usize) -> io::Result<Vec<u8>> {
        let start = self.place.offset + (from * SECTOR) as u64;
        let mut bytes = vec![0; count * SECTOR];
        self.file.read_at(&mut bytes, start)?;
        let salt = Salt { wal_id: self.wal_id, segment: self.place.segment };
        // The first batch of a segment counts the sectors of the header block before it.
        let lead = if self.place.offset == BLOCK as u64 { BLOCK / SECTOR } else { 0 };
        for (number, sector) in bytes.chunks_exact(SECTOR).enumerate() {
            let position = (lead + from + number) as u32;
            let expected = Sector::Intact { batch: self.place.batch, position };
            if Sector::judge(sector, start + (number * SECTOR) as u64, salt) != expected {
                return Err(self.rotten(from + number, self.place.first, "a damaged sector"));
            }
        }
        Ok(bytes)
    }

    fn rotten(&self, sector: usize, index: u64, what: &str) -> io::Error {
        let offset = self.place.offset + (sector * SECTOR) as u64;
        let text = format!(
            "{} at offset {offset}, batch of index {} to {}, reading {index}: {what}",
            segment::name(self.place.segment),
            self.place.first,
            self.place.first + u64::from(self.place.count) - 1,
        );
        io::Error::new(io::ErrorKind::InvalidData, text)
    }
}

/// The first row, and those after it while all payloads fit.
fn take(rows: &[Row], bytes_max: usize) -> &[Row] {
    let mut bytes = 0;
    let fit = rows.iter().take_while(|row| {
        bytes += row.len as usize;
        bytes <= bytes_max
    });
    &rows[..fit.count().max(1)]
}

/// Entry ids of a batch, in order.
pub(crate) fn ids(found: &Found) -> impl Iterator<Item = crate::EntryId> + '_ {
    let indexes = found.head.first_index..;
    found.rows.iter().zip(indexes).map(|(row, index)| crate::EntryId { term: row.term, index })
}
