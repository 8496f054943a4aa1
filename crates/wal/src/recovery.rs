//! Recovery: what a log holds when it is opened.
//!
//! Batches are followed from the base that META names, each checked against the hash and the last
//! id of the one before. Where that ends, the rest of the segment decides what it was: nothing
//! (never written), a batch cut short by a crash, or damage. `docs/formats.md` has the table and
//! argues why a torn batch was never acknowledged.

use std::sync::Arc;

use crate::batch::{self, Chain, Flaw, Found, Head, SEGMENT_VERSION, SegmentHeader};
use crate::disk::{Disk, DiskFile};
use crate::error::{WalError, tried};
use crate::meta::Meta;
use crate::places::{Place, Places, ids};
use crate::sector::{BLOCK, SECTOR, Salt, Sector};
use crate::segment;
use crate::{EntryId, HardState, Record};

/// A segment that was read.
pub(crate) struct Scanned<F> {
    pub(crate) number: u64,
    pub(crate) file: Arc<F>,
    pub(crate) len: u64,
    /// Where the log stood before it.
    pub(crate) base: Chain,
}

/// What the segments hold.
pub(crate) struct Recovery<'a, D: Disk> {
    disk: &'a D,
    meta: Meta,
    pub(crate) chain: Chain,
    pub(crate) hard_state: HardState,
    pub(crate) commit: u64,
    pub(crate) entries: Vec<EntryId>,
    /// Kinds of entries that are given back whole.
    kinds: &'static [u8],
    /// The entries of these kinds.
    pub(crate) records: Vec<Record>,
    pub(crate) places: Places<D::File>,
    pub(crate) segments: Vec<Scanned<D::File>>,
    /// Where the next batch goes in the last segment.
    pub(crate) end: u64,
    /// Sectors of the last segment to fill with zeros before that.
    pub(crate) clear: Vec<usize>,
    /// What the last write to the last segment was, from where to where.
    pub(crate) newest: std::ops::Range<usize>,
    pub(crate) warnings: Vec<String>,
}

/// What stands where no intact batch does, up to the end of the segment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Survey {
    /// Intact sectors of the batch expected there.
    pub(crate) own: Vec<usize>,
    /// The first sector that is neither intact nor blank.
    pub(crate) bad: Option<usize>,
    /// Never written, with a few bits set nevertheless.
    pub(crate) rotted: Vec<usize>,
    /// Intact sectors of batches that end before: what is left of a longer one that had the same
    /// number, was torn, and was cut by a recovery whose own writes failed.
    pub(crate) remains: Vec<usize>,
    /// The first intact sector of a later batch.
    pub(crate) later: Option<usize>,
    /// The head in the batch's trailer.
    pub(crate) trailer: Option<Head>,
}

impl Survey {
    /// Looks at all sectors from `slot` on, where batch number `expected` would begin.
    pub(crate) fn of(bytes: &[u8], salt: Salt, slot: usize, expected: u64) -> Survey {
        let mut survey = Survey::default();
        for offset in (slot..bytes.len()).step_by(SECTOR) {
            match Sector::at(bytes, offset, salt) {
                Sector::Blank { rotted: false } => {}
                Sector::Blank { rotted: true } => survey.rotted.push(offset),
                Sector::Intact { batch, position }
                    if batch == expected && position as usize == (offset - slot) / SECTOR =>
                {
                    survey.own.push(offset);
                    let trailer = Head::of_trailer(&bytes[offset..offset + SECTOR]);
                    survey.trailer = trailer.filter(|head| head.batch == batch);
                }
                Sector::Intact { batch, .. } if batch > expected => {
                    survey.later.get_or_insert(offset);
                }
                Sector::Intact { batch, .. } if batch < expected => survey.remains.push(offset),
                _ => {
                    survey.bad.get_or_insert(offset);
                }
            }
        }
        survey
    }

    pub(crate) fn is_blank(&self) -> bool {
        self.own.is_empty() && self.bad.is_none() && self.later.is_none()
    }
}

impl<'a, D: Disk> Recovery<'a, D> {
    /// Reads all segments. Changes nothing.
    pub(crate) fn run(
        disk: &'a D,
        meta: Meta,
        names: &[String],
        kinds: &'static [u8],
    ) -> Result<Self, WalError> {
        let mut recovery = Recovery {
            disk,
            meta,
            chain: meta.base,
            hard_state: meta.hard_state,
            commit: meta.commit,
            entries: Vec::new(),
            kinds,
            records: Vec::new(),
            places: Places::new(),
            segments: Vec::new(),
            end: 0,
            clear: Vec::new(),
            newest: 0..0,
            warnings: Vec::new(),
        };
        let mut numbers: Vec<u64> = names.iter().filter_map(|name| segment::number(name)).collect();
        numbers.retain(|number| *number >= meta.first_segment);
        numbers.sort_unstable();
        for number in &numbers {
            recovery.check_header(*number)?;
        }
        let newest = numbers.last().copied().unwrap_or(0).max(meta.newest_segment);
        for number in meta.first_segment..=newest {
            let Ok(at) = numbers.binary_search(&number) else {
                let after = recovery.chain.last.index;
                return Err(WalError::SegmentMissing { file: segment::name(number), after });
            };
            recovery.scan(number, &numbers[at + 1..])?;
        }
        recovery.check_end()?;
        recovery.commit = recovery.commit.min(recovery.chain.last.index);
        Ok(recovery)
    }

    fn check_end(&self) -> Result<(), WalError> {
        let expected = self.meta.synced;
        if self.chain.batch >= expected.batch {
            return Ok(());
        }
        let last = self.segments.last();
        Err(WalError::TailLost {
            file: last.map_or_else(|| segment::name(1), |segment| segment::name(segment.number)),
            offset: self.end,
            last: self.chain.last.index,
            expected: expected.last.index,
        })
    }

    fn read_segment(&self, number: u64) -> Result<(D::File, Vec<u8>), WalError> {
        let name = segment::name(number);
        let file = tried(|| format!("opening {name}"), self.disk.open(&name))?;
        let len = tried(|| format!("reading the length of {name}"), file.len())?;
        // What no batch could have been written to (a file cut short) is left out.
        let mut bytes = vec![0; len as usize / BLOCK * BLOCK];
        tried(|| format!("reading {name}"), file.read_at(&mut bytes, 0))?;
        Ok((file, bytes))
    }

    fn scan(&mut self, number: u64, later: &[u64]) -> Result<(), WalError> {
        let (file, bytes) = self.read_segment(number)?;
        let salt = Salt { wal_id: self.meta.wal_id, segment: number };
        let file = Arc::new(file);
        let base = self.chain;
        self.places.add_file(number, file.clone());
        self.segments.push(Scanned { number, file, len: bytes.len() as u64, base });
        let mut slot = 0;
        self.newest = 0..0;
        let flaw = loop {
            match batch::find(&bytes, salt, slot) {
                Ok(found) => {
                    self.accept(&bytes, &found, salt)?;
                    self.newest = slot..found.end;
                    slot = found.end;
                }
                Err(flaw) => break flaw,
            }
        };
        self.end = slot as u64;
        self.judge_end(&bytes, salt, slot, flaw, later)
    }

    /// Takes an intact batch, found in these bytes of a segment, into the log, if it follows the one
    /// before.
    fn accept(&mut self, bytes: &[u8], found: &Found, salt: Salt) -> Result<(), WalError> {
        let head = &found.head;
        if head.previous() != self.chain {
            let gap = head.batch > self.chain.batch + 1;
            let first = head.previous_last.index.min(self.chain.last.index) + 1;
            return Err(WalError::Damaged {
                file: segment::name(salt.segment),
                offset: found.start as u64,
                first,
                last: gap.then_some(head.previous_last.index.max(first)),
                synced: true,
                detail: format!(
                    "batch {} does not follow batch {} before it",
                    head.batch, self.chain.batch
                ),
            });
        }
        if head.count > 0 {
            let base = self.entries.first().map_or(head.first_index, |first| first.index);
            self.entries.truncate(head.first_index.saturating_sub(base) as usize);
            self.entries.extend(ids(found));
            let kept = self.records.partition_point(|record| record.id.index < head.first_index);
            self.records.truncate(kept);
            self.records.extend(batch::records_of(bytes, found, self.kinds));
        }
        let last = ids(found).last().unwrap_or(self.chain.last);
        self.chain = Chain { batch: head.batch, hash: head.hash, last };
        self.places.push(Place::of(head, salt.segment, found.start as u64));
        self.commit = self.commit.max(head.commit);
        // META was synced before any batch that repeats it; if it knows less, its newest copies
        // are gone. A newer term, and a vote where none is known, are always safe to adopt.
        let copy = head.hard_state;
        let newer = copy.term > self.hard_state.term
            || (copy.term == self.hard_state.term && self.hard_state.vote == 0 && copy.vote != 0);
        if newer {
            self.warnings.push(format!(
                "{}: batch {} knows term {}, vote {:x}, which META lost; adopted",
                segment::name(salt.segment),
                head.batch,
                copy.term,
                copy.vote
            ));
            self.hard_state = copy;
        }
        Ok(())
    }

    /// Decides what the end of a segment's batches at `slot` is.
    fn judge_end(
        &mut self,
        bytes: &[u8],
        salt: Salt,
        slot: usize,
        flaw: Flaw,
        later: &[u64],
    ) -> Result<(), WalError> {
        let survey = Survey::of(bytes, salt, slot, self.chain.batch + 1);
        let name = segment::name(salt.segment);
        if survey.is_blank() {
            if later.is_empty() {
                self.tidy(&name, survey);
            }
            return Ok(());
        }
        if survey.own.is_empty() && survey.later.is_none() && self.continues(later)? {
            self.warnings.push(format!(
                "{name} at offset {}: garbage after the segment's last batch; harmless",
                survey.bad.unwrap_or(slot)
            ));
            return Ok(());
        }
        let known = batch_head(bytes, salt, slot, self.chain.batch + 1).or(survey.trailer);
        let synced = survey.later.is_some()
            || self.meta.synced.batch > self.chain.batch
            // A segment is begun only when the one before is synced.
            || !later.is_empty();
        // Remains of an earlier batch stand for blanks.
        let lacks_sectors = flaw == Flaw::Blank || flaw == Flaw::Bad && !survey.remains.is_empty();
        if !synced && survey.bad.is_none() && lacks_sectors {
            self.cut(&name, slot, known, survey);
            return Ok(());
        }
        Err(WalError::Damaged {
            file: name,
            offset: survey.bad.unwrap_or(slot) as u64,
            first: known.map_or(self.chain.last.index + 1, |head| head.first_index),
            last: known.map(|head| head.last_index()),
            synced: synced || (survey.bad.is_none() && flaw != Flaw::Blank),
            detail: match (flaw, survey.bad) {
                (_, Some(_)) => "a sector is neither intact nor empty".into(),
                (Flaw::Inconsistent, None) => "its intact sectors contradict each other".into(),
                _ => "sectors of it are empty, and later batches exist".into(),
            },
        })
    }

    /// Nothing was written there that anybody needs: it shall be blank.
    fn tidy(&mut self, name: &str, survey: Survey) {
        let what = [
            (&survey.rotted, "flipped bits where nothing was written"),
            (&survey.remains, "remains of a torn batch"),
        ];
        for (sectors, what) in what {
            if let Some(first) = sectors.first() {
                self.warnings.push(format!("{name} at offset {first}: {what}; cleared"));
            }
        }
        self.clear = survey.rotted;
        self.clear.extend(survey.remains);
    }

    /// A batch that never became whole: it was not acknowledged, and goes.
    fn cut(&mut self, name: &str, slot: usize, known: Option<Head>, survey: Survey) {
        let what = known.map_or_else(
            || format!("after index {}", self.chain.last.index),
            |head| format!("of index {} to {}", head.first_index, head.last_index()),
        );
        self.warnings.push(format!(
            "{name} at offset {slot}: cut a torn batch {what}: a crash interrupted its write, \
             nobody was told that it is kept"
        ));
        self.clear = survey.own;
        self.clear.extend(survey.rotted);
        self.clear.extend(survey.remains);
    }

    /// Whether the next segment says that the log went on there from where it stands now.
    fn continues(&self, later: &[u64]) -> Result<bool, WalError> {
        let Some(next) = later.first() else { return Ok(false) };
        let (_, bytes) = self.read_segment(*next)?;
        let salt = Salt { wal_id: self.meta.wal_id, segment: *next };
        let header = SegmentHeader::find(&bytes).map(|(header, _)| header);
        let batch = batch::find(&bytes, salt, 0).ok();
        Ok(header.is_some_and(|header| header.salt == salt && header.previous == self.chain)
            || batch.is_some_and(|found| found.head.previous() == self.chain))
    }

    /// Refuses a segment whose header is intact and speaks of another one, or whose file has
    /// another length than it was made with.
    fn check_header(&self, number: u64) -> Result<(), WalError> {
        let file = segment::name(number);
        let opened = tried(|| format!("opening {file}"), self.disk.open(&file))?;
        let len = tried(|| format!("reading the length of {file}"), opened.len())?;
        let mut block = vec![0; (BLOCK as u64).min(len) as usize];
        tried(|| format!("reading {file}"), opened.read_at(&mut block, 0))?;
        let mut made_with = (number == self.meta.newest_segment).then_some(self.meta.newest_len);
        if let Some((header, version)) = SegmentHeader::find(&block) {
            if version != SEGMENT_VERSION {
                let known = SEGMENT_VERSION;
                return Err(WalError::Version { file, version, known });
            }
            let Salt { wal_id, segment } = header.salt;
            if wal_id != self.meta.wal_id {
                let ours = self.meta.wal_id;
                let detail = format!("belongs to log {wal_id:x}, this directory holds {ours:x}");
                return Err(WalError::Foreign { file, detail });
            }
            if segment != number {
                let detail = format!("is segment {} by its header", segment::name(segment));
                return Err(WalError::Foreign { file, detail });
            }
            made_with = Some(header.len);
        }
        match made_with.filter(|made_with| *made_with != len) {
            None => Ok(()),
            Some(made_with) => Err(WalError::Damaged {
                file,
                offset: len,
                first: self.chain.last.index + 1,
                last: None,
                synced: true,
                detail: format!("the file was made with {made_with} bytes and has {len}"),
            }),
        }
    }
}

/// The head of the batch at `slot`, if its sector is intact, whatever the rest is like.
fn batch_head(bytes: &[u8], salt: Salt, slot: usize, expected: u64) -> Option<Head> {
    let start = if slot == 0 { BLOCK } else { slot };
    if start >= bytes.len() {
        return None;
    }
    let Sector::Intact { batch, .. } = Sector::at(bytes, start, salt) else { return None };
    let head = Head::of_first(&bytes[start..start + SECTOR])?;
    (batch == expected && head.batch == expected).then_some(head)
}
