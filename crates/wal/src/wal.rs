//! The log: create, open, append, read, release.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;

use crate::batch::{Chain, Draft, sectors_for};
use crate::block_buffer::BlockBuffer;
use crate::disk::{Disk, DiskFile};
use crate::error::{WalError, tried};
use crate::meta::{self, COPIES, Meta, MetaFiles};
use crate::places::{Place, Places, Reader};
use crate::recovery::{Recovery, Scanned};
use crate::sector::{BLOCK, SECTOR, Salt};
use crate::segment;
use crate::{Batch, HardState, Identity, Incarnation, Options, Record, Recovered};

/// Memory kept between appends for the bytes of a batch.
const BUFFER_BYTES_KEPT: usize = 4 << 20;

/// The write-ahead log of one member.
///
/// Always holds: what [`append`](Wal::append) returned `Ok` for is found by the next
/// [`open`](Wal::open), whatever happens to the process or the machine in between; after the first
/// failed write or sync every later call fails.
pub struct Wal<D: Disk> {
    disk: D,
    _lock: D::Lock,
    options: Options,
    meta: Meta,
    meta_files: MetaFiles<D::File>,
    chain: Chain,
    commit: u64,
    reader: Reader<D>,
    /// From the oldest kept to the one being written; never empty.
    segments: VecDeque<Segment>,
    active: Active<D::File>,
    /// The bytes of the batch being written.
    buffer: BlockBuffer,
    syncs: u64,
}

/// A segment in use.
struct Segment {
    number: u64,
    len: u64,
    /// Where the log stood before its first batch.
    base: Chain,
}

/// The segment being written.
struct Active<F> {
    number: u64,
    file: Arc<F>,
    len: u64,
    /// Where the next batch goes; 0 before the first.
    at: u64,
    /// Up to where blocks were written since the log was opened, if only with zeros.
    written: u64,
}

impl<D: Disk> Wal<D> {
    /// Whether the directory holds a log, or what is left of one.
    pub fn exists(disk: &D) -> Result<bool, WalError> {
        let names = list(disk)?;
        Ok(meta::exists(&names) || names.iter().any(|name| segment::number(name).is_some()))
    }

    /// Creates an empty log, durably, and takes the lock.
    ///
    /// A crash meanwhile leaves either no log or an empty one.
    pub fn create(disk: D, identity: Identity, options: Options) -> Result<Wal<D>, WalError> {
        let lock = take_lock(&disk)?;
        if Wal::exists(&disk)? {
            return Err(WalError::Exists);
        }
        let wal_id = tried(|| "drawing a number for the log".into(), disk.unique_number())?;
        let id = tried(|| "drawing a number for its first life".into(), disk.unique_number())?;
        let chain = Chain::start(wal_id);
        let meta = Meta {
            identity,
            wal_id,
            sequence: 1,
            hard_state: HardState::default(),
            commit: 0,
            first_segment: 1,
            base: chain,
            newest_segment: 0,
            newest_len: 0,
            synced: chain,
            incarnation: Incarnation { start: 1, id },
        };
        let mut syncs = 0;
        let meta_files = MetaFiles::create(&disk, &meta, &mut syncs)?;
        Wal::begin(disk, lock, options, meta, meta_files, syncs)
    }

    /// Opens the log, and takes the lock.
    ///
    /// A batch that a crash cut short is removed and reported in [`Recovered::warnings`]. All that
    /// is reported is durable before this returns. Damage is refused, with a line that says where.
    pub fn open(disk: D, options: Options) -> Result<(Wal<D>, Recovered), WalError> {
        let lock = take_lock(&disk)?;
        if !Wal::exists(&disk)? {
            return Err(WalError::Missing);
        }
        let copies = meta::read_copies(&disk)?;
        let mut meta = meta::newest(&copies)?;
        let names = list(&disk)?;
        let mut recovery = Recovery::run(&disk, meta, &names, options.recover_kinds)?;

        // Nothing was changed up to here.
        let mut syncs = 0;
        let meta_files = MetaFiles::open(&disk, &copies, &meta, &mut syncs)?;
        settle(&disk, &recovery, meta.first_segment, &mut syncs)?;
        let mut warnings = copy_warnings(&copies, &meta);
        warnings.append(&mut recovery.warnings);
        if adopt(&mut meta, &recovery) {
            tried(|| "writing META".into(), meta_files.update(&meta, &mut syncs))?;
        }
        let recovered = Recovered {
            identity: meta.identity,
            incarnation: meta.incarnation,
            hard_state: recovery.hard_state,
            entries: std::mem::take(&mut recovery.entries),
            records: std::mem::take(&mut recovery.records),
            commit: recovery.commit,
            warnings,
        };
        if recovery.segments.is_empty() {
            return Ok((Wal::begin(disk, lock, options, meta, meta_files, syncs)?, recovered));
        }
        let Recovery { chain, commit, places, segments, end, .. } = recovery;
        let last = segments.last().expect("there are segments");
        let Scanned { number, len, .. } = *last;
        let active = Active { number, file: last.file.clone(), len, at: end, written: end };
        let segments = segments
            .iter()
            .map(|one| Segment { number: one.number, len: one.len, base: one.base })
            .collect();
        let wal = Wal {
            disk,
            _lock: lock,
            options,
            meta,
            meta_files,
            chain,
            commit,
            reader: Reader::new(meta.wal_id, places),
            segments,
            active,
            buffer: BlockBuffer::default(),
            syncs,
        };
        Ok((wal, recovered))
    }

    /// Begins the first segment of a log that has META only.
    fn begin(
        disk: D,
        lock: D::Lock,
        options: Options,
        meta: Meta,
        meta_files: MetaFiles<D::File>,
        syncs: u64,
    ) -> Result<Wal<D>, WalError> {
        let number = meta.first_segment;
        let len = segment_len(&options, 0);
        let file = tried(|| "making the first segment".into(), segment::make(&disk, number, len))?;
        let file = Arc::new(file);
        let mut wal = Wal {
            disk,
            _lock: lock,
            options,
            meta,
            meta_files,
            chain: meta.base,
            commit: meta.commit,
            reader: Reader::new(meta.wal_id, Places::new()),
            segments: VecDeque::new(),
            active: Active { number, file: file.clone(), len, at: 0, written: 0 },
            buffer: BlockBuffer::default(),
            syncs: syncs + 2,
        };
        tried(|| "beginning the first segment".into(), wal.begin_segment(number, file, len))?;
        Ok(wal)
    }

    /// Makes a batch durable: one write and one sync, whatever the number of its records. A changed
    /// hard state costs four more, of META.
    ///
    /// When it returns `Ok`, everything in the batch survives any crash; the commit index is a hint
    /// and survives with the next records. If the first record's index is not above the last one's,
    /// the log's entries from there on are replaced. A batch without records and without a new hard
    /// state writes nothing.
    ///
    /// Fails with [`io::ErrorKind::InvalidInput`], changing nothing, if the records are not
    /// contiguous, leave a gap to the log, reach below what it still has, or if the term would go
    /// back. Any other error is final: what was written may or may not be found by the next
    /// [`open`](Wal::open), and this log accepts nothing more.
    pub fn append(&mut self, batch: &Batch) -> io::Result<()> {
        self.reader.look(Places::check)?;
        let sectors = self.check(batch)?;
        let done = self.write(batch, sectors);
        self.latch(done)
    }

    /// Names this life of the log from now on, durably in all copies of META: four syncs.
    ///
    /// Fails with [`io::ErrorKind::InvalidInput`], changing nothing, unless it starts later than the
    /// one before. Any other error is final, as those of [`append`](Wal::append) are: either
    /// incarnation may be found by the next [`open`](Wal::open).
    pub fn begin_incarnation(&mut self, incarnation: Incarnation) -> io::Result<()> {
        self.reader.look(Places::check)?;
        let now = self.meta.incarnation;
        if incarnation.start <= now.start {
            let why = format!("incarnation {incarnation} does not start after {now}");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, why));
        }
        self.meta.incarnation = incarnation;
        let done = self.update_meta();
        self.latch(done)
    }

    /// The newest incarnation of this log: the one it was opened with, or begun since.
    pub fn incarnation(&self) -> Incarnation {
        self.meta.incarnation
    }

    /// Entries of the log; see [`Reader::read`].
    pub fn read(&self, from: u64, to_inclusive: u64, bytes_max: usize) -> io::Result<Vec<Record>> {
        self.reader.read(from, to_inclusive, bytes_max)
    }

    /// A handle to read with on another thread while this one appends.
    pub fn reader(&self) -> Reader<D> {
        self.reader.clone()
    }

    /// Drops the segments all of whose entries are below `before`. The one being written stays.
    ///
    /// Fails as [`append`](Wal::append) does.
    pub fn release(&mut self, before: u64) -> io::Result<()> {
        self.reader.look(Places::check)?;
        let keep =
            match self.reader.look(|places| (places.segment_of(before), places.first_index())) {
                (Some(segment), _) => segment,
                (None, Some(first)) if before < first => return Ok(()),
                _ => self.active.number,
            };
        let done = self.drop_segments(keep);
        self.latch(done)
    }

    /// Bytes of all files of the log.
    pub fn bytes_on_disk(&self) -> u64 {
        let segments: u64 = self.segments.iter().map(|segment| segment.len).sum();
        segments + (COPIES * BLOCK) as u64
    }

    /// Syncs of files and directories since the log was opened.
    pub fn syncs(&self) -> u64 {
        self.syncs
    }

    /// Checks what the caller asks for, and counts the batch's sectors.
    fn check(&self, batch: &Batch) -> io::Result<u32> {
        let refuse = |why: String| Err(io::Error::new(io::ErrorKind::InvalidInput, why));
        if let Some(hard_state) = batch.hard_state
            && hard_state.term < self.meta.hard_state.term
        {
            let now = self.meta.hard_state.term;
            return refuse(format!("term {} after term {now}", hard_state.term));
        }
        let mut bytes = 0;
        let mut expected = None;
        for record in &batch.records {
            if expected.is_some_and(|expected| record.id.index != expected) {
                return refuse(format!("index {} is out of order", record.id.index));
            }
            if u32::try_from(record.payload.len()).is_err() {
                return refuse(format!("the payload of index {} is too long", record.id.index));
            }
            expected = record.id.index.checked_add(1);
            bytes += record.payload.len() as u64;
        }
        if let Some(first) = batch.records.first() {
            let last = self.chain.last.index;
            let lowest = self.reader.look(Places::first_index).unwrap_or(last + 1);
            if first.id.index > last + 1 || first.id.index < lowest {
                let index = first.id.index;
                return refuse(format!("index {index} does not join a log of {lowest} to {last}"));
            }
        }
        match sectors_for(batch.records.len(), bytes) {
            Some(sectors) => Ok(sectors),
            None => refuse("the batch is too large".into()),
        }
    }

    fn write(&mut self, batch: &Batch, sectors: u32) -> io::Result<()> {
        // META, which is written before the records, must not count them as committed: if they never
        // reach the disk, others stand in their places.
        let commit = self.commit.max(batch.commit);
        if let Some(hard_state) = batch.hard_state
            && hard_state != self.meta.hard_state
        {
            self.meta.hard_state = hard_state;
            self.update_meta()?;
        }
        if batch.records.is_empty() {
            self.commit = commit;
            return Ok(());
        }
        let len = u64::from(sectors) * SECTOR as u64;
        let lead = if self.active.at == 0 { BLOCK as u64 } else { 0 };
        if self.active.at + lead + len > self.active.len {
            self.next_segment(len)?;
        }
        let draft = Draft {
            previous: self.chain,
            hard_state: self.meta.hard_state,
            commit,
            records: &batch.records,
            sectors,
        };
        let salt = Salt { wal_id: self.meta.wal_id, segment: self.active.number };
        let at = self.active.at;
        let chain = draft.encode(salt, at, self.active.len, &mut self.buffer);
        let end = at + self.buffer.len() as u64;
        if end > self.active.written {
            let (entries, len) = (batch.records.len(), self.buffer.len() as u64);
            let zeros = segment::zeros_after(entries, len, self.active.len - end);
            self.buffer.extend_with_zeros(zeros as usize);
            self.active.written = end + zeros;
        }
        self.active.file.write_durably(&self.buffer, at)?;
        self.syncs += 1;

        // Durable from here on.
        let place = Place {
            first: batch.records[0].id.index,
            last: chain.last.index,
            payload_bytes: batch.records.iter().map(|record| record.payload.len() as u64).sum(),
            batch: chain.batch,
            segment: self.active.number,
            offset: end - len,
            count: batch.records.len() as u32,
        };
        self.reader.change(|places| places.push(place));
        self.chain = chain;
        self.commit = commit;
        self.active.at = end;
        self.buffer.shrink(BUFFER_BYTES_KEPT);
        Ok(())
    }

    fn update_meta(&mut self) -> io::Result<()> {
        self.meta.sequence += 1;
        self.meta.commit = self.commit;
        self.meta.synced = self.chain;
        self.meta_files.update(&self.meta, &mut self.syncs)
    }

    /// Makes a segment with room for a batch of `len` bytes, and takes it into use.
    fn next_segment(&mut self, len: u64) -> io::Result<()> {
        let number = self.active.number + 1;
        let len = segment_len(&self.options, len);
        let file = segment::make(&self.disk, number, len)?;
        self.syncs += 2;
        self.begin_segment(number, Arc::new(file), len)
    }

    fn begin_segment(&mut self, number: u64, file: Arc<D::File>, len: u64) -> io::Result<()> {
        // META names the segment before anything is written to it, so that its loss is noticed.
        self.meta.newest_segment = number;
        self.meta.newest_len = len;
        self.update_meta()?;
        self.segments.push_back(Segment { number, len, base: self.chain });
        self.reader.change(|places| places.add_file(number, file.clone()));
        self.active = Active { number, file, len, at: 0, written: 0 };
        Ok(())
    }

    fn drop_segments(&mut self, keep: u64) -> io::Result<()> {
        let first = self.segments.front().map_or(keep, |segment| segment.number);
        if first >= keep {
            return Ok(());
        }
        let kept = self.segments.iter().find(|segment| segment.number == keep);
        self.meta.base = kept.expect("the segment to keep is in use").base;
        self.meta.first_segment = keep;
        // META first: segments that it does not ask for may be there or not.
        self.update_meta()?;
        for number in first..keep {
            self.disk.remove(&segment::name(number))?;
        }
        self.disk.sync_directory()?;
        self.syncs += 1;
        self.segments.retain(|segment| segment.number >= keep);
        self.reader.change(|places| places.release(keep));
        Ok(())
    }

    /// Remembers the first error for ever: after it nobody knows what is on the disk.
    fn latch(&mut self, done: io::Result<()>) -> io::Result<()> {
        if let Err(error) = &done {
            self.reader.change(|places| places.fail(error));
        }
        done
    }
}

/// Length of a segment that has room for a batch of `len` bytes.
fn segment_len(options: &Options, len: u64) -> u64 {
    let block = BLOCK as u64;
    options.segment_bytes.max(block + len).max(2 * block).next_multiple_of(block)
}

fn list<D: Disk>(disk: &D) -> Result<Vec<String>, WalError> {
    tried(|| "listing the data directory".into(), disk.names())
}

fn take_lock<D: Disk>(disk: &D) -> Result<D::Lock, WalError> {
    disk.lock().map_err(|source| match source.kind() {
        io::ErrorKind::WouldBlock => WalError::Locked,
        _ => WalError::Io { what: "locking the data directory".into(), source },
    })
}

/// Makes durable what recovery found, removes what it found to be nothing.
///
/// The newest batch is written again, not only synced: if the process that wrote it died of a failed
/// sync, the system may show what is not on the disk and count it as clean, so that no sync writes
/// it. Batches before it were synced before it was written. The bytes do not change, so a loss of
/// power meanwhile harms nothing.
fn settle<D: Disk>(
    disk: &D,
    recovery: &Recovery<'_, D>,
    first_segment: u64,
    syncs: &mut u64,
) -> Result<(), WalError> {
    if let Some(last) = recovery.segments.last() {
        let name = segment::name(last.number);
        let mut newest = vec![0; recovery.newest.len()];
        let at = recovery.newest.start as u64;
        if !newest.is_empty() {
            let again =
                last.file.read_at(&mut newest, at).and_then(|()| last.file.write_at(&newest, at));
            tried(|| format!("writing the newest batch of {name} again"), again)?;
        }
        for offset in &recovery.clear {
            let done = last.file.write_at(&[0; SECTOR], *offset as u64);
            tried(|| format!("clearing the torn tail of {name}"), done)?;
        }
        tried(|| format!("syncing {name}"), last.file.sync())?;
        *syncs += 1;
    }
    // Listed anew: a copy of META that was missing may have been made from a leftover's name.
    for name in &list(disk)? {
        let released = segment::number(name).is_some_and(|number| number < first_segment);
        if released || segment::is_temporary(name) {
            tried(|| format!("removing {name}"), disk.remove(name))?;
        }
    }
    *syncs += 1;
    tried(|| "syncing the data directory".into(), disk.sync_directory())
}

/// Puts into META what recovery found and META does not know; whether there was anything. All of it
/// is durable by now.
fn adopt<D: Disk>(meta: &mut Meta, recovery: &Recovery<'_, D>) -> bool {
    let before = *meta;
    meta.hard_state = recovery.hard_state;
    if let Some(last) = recovery.segments.last()
        && last.number > meta.newest_segment
    {
        // A crash came after the segment had got its name and before META named it. It is used
        // from now on, so META must name it, as if it were new: else its loss would not be noticed.
        meta.newest_segment = last.number;
        meta.newest_len = last.len;
        meta.synced = recovery.chain;
    }
    let changed = *meta != before;
    meta.sequence += u64::from(changed);
    changed
}

/// What there is to say about META's copies.
fn copy_warnings(copies: &[meta::Copy], meta: &Meta) -> Vec<String> {
    let mut warnings = Vec::new();
    for (number, copy) in copies.iter().enumerate() {
        let what = match copy {
            meta::Copy::Whole(whole) if whole == meta => continue,
            meta::Copy::Whole(_) => "was older than the others",
            meta::Copy::Missing => "was missing",
            _ => "was damaged",
        };
        warnings.push(format!("{} {what}; written anew", Meta::name(number)));
    }
    warnings
}
