//! META: term, vote, identity and incarnation, four times.
//!
//! Each copy is one block in a file of its own. An update writes and syncs one copy after the
//! other: whatever a crash does to the block being written, at least three copies are whole.

use crate::batch::Chain;
use crate::checksum::Hasher;
use crate::disk::{Disk, DiskFile};
use crate::error::{WalError, tried};
use crate::sector::{BLOCK, word32, word64};
use crate::{EntryId, HardState, Identity, Incarnation};

/// The version of META that is written. A release that changes META raises it.
pub(crate) const META_VERSION: u32 = 2;
/// The version before that, which is read, too. It has no incarnation.
const VERSION_WITHOUT_INCARNATION: u32 = 1;
/// Number of copies.
pub(crate) const COPIES: usize = 4;

const MAGIC: u64 = u64::from_le_bytes(*b"RKV-META");

/// What META says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Meta {
    pub(crate) identity: Identity,
    /// Drawn when the log was created.
    pub(crate) wal_id: u64,
    /// Counts updates; the highest is the truth.
    pub(crate) sequence: u64,
    pub(crate) hard_state: HardState,
    /// An index known to be committed at the time.
    pub(crate) commit: u64,
    /// The oldest segment that must be there.
    pub(crate) first_segment: u64,
    /// Where the log stood before that segment.
    pub(crate) base: Chain,
    /// The newest segment in use at the time; 0 before the first.
    pub(crate) newest_segment: u64,
    /// Its length in bytes.
    pub(crate) newest_len: u64,
    /// How far the log was synced at the time: it never ends before this.
    pub(crate) synced: Chain,
    pub(crate) incarnation: Incarnation,
}

impl Meta {
    pub(crate) fn name(copy: usize) -> String {
        format!("META.{copy}")
    }

    fn encode(&self) -> Vec<u8> {
        let words = [
            MAGIC,
            u64::from(META_VERSION),
            self.identity.cluster,
            self.identity.member,
            self.wal_id,
            self.sequence,
            self.hard_state.term,
            self.hard_state.vote,
            self.commit,
            self.first_segment,
            self.base.batch,
            self.base.hash,
            self.base.last.term,
            self.base.last.index,
            self.newest_segment,
            self.newest_len,
            self.synced.batch,
            self.synced.hash,
            self.synced.last.term,
            self.synced.last.index,
            self.incarnation.start,
            self.incarnation.id,
        ];
        let mut block = vec![0; BLOCK];
        for (at, word) in block.chunks_exact_mut(8).zip(words) {
            at.copy_from_slice(&word.to_le_bytes());
        }
        let end = BLOCK - 16;
        let hash = Hasher::new(MAGIC).bytes(&block[..end]).finish();
        block[end..end + 8].copy_from_slice(&hash.to_le_bytes());
        let crc = crc32c::crc32c(&block[..BLOCK - 4]);
        block[BLOCK - 4..].copy_from_slice(&crc.to_le_bytes());
        block
    }

    /// Takes a block apart; `Err(Some(version))` if it is intact but of another version.
    fn decode(block: &[u8]) -> Result<Meta, Option<u32>> {
        let crc = crc32c::crc32c(&block[..BLOCK - 4]);
        if word64(block, 0) != MAGIC || word32(block, BLOCK - 4) != crc {
            return Err(None);
        }
        // Magic, version and CRC stand where they stand in every version.
        let version = word32(block, 8);
        if !(VERSION_WITHOUT_INCARNATION..=META_VERSION).contains(&version) {
            return Err(Some(version));
        }
        let end = BLOCK - 16;
        if Hasher::new(MAGIC).bytes(&block[..end]).finish() != word64(block, end) {
            return Err(None);
        }
        let word = |number: usize| word64(block, number * 8);
        let chain = |number: usize| Chain {
            batch: word(number),
            hash: word(number + 1),
            last: EntryId { term: word(number + 2), index: word(number + 3) },
        };
        let incarnation = match version {
            VERSION_WITHOUT_INCARNATION => Incarnation::default(),
            _ => Incarnation { start: word(20), id: word(21) },
        };
        Ok(Meta {
            identity: Identity { cluster: word(2), member: word(3) },
            wal_id: word(4),
            sequence: word(5),
            hard_state: HardState { term: word(6), vote: word(7) },
            commit: word(8),
            first_segment: word(9),
            base: chain(10),
            newest_segment: word(14),
            newest_len: word(15),
            synced: chain(16),
            incarnation,
        })
    }
}

/// What became of one copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Copy {
    Whole(Meta),
    Version(u32),
    Damaged,
    Missing,
}

/// Reads one copy.
pub(crate) fn read_copy<D: Disk>(disk: &D, copy: usize) -> Result<Copy, WalError> {
    let name = Meta::name(copy);
    let file = match disk.open(&name) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Copy::Missing),
        Err(source) => return Err(WalError::Io { what: format!("opening {name}"), source }),
    };
    let mut block = vec![0; BLOCK];
    // A copy that cannot be read, or is cut short, is a damaged copy: there are three more.
    if file.read_at(&mut block, 0).is_err() {
        return Ok(Copy::Damaged);
    }
    Ok(match Meta::decode(&block) {
        Ok(meta) => Copy::Whole(meta),
        Err(Some(version)) => Copy::Version(version),
        Err(None) => Copy::Damaged,
    })
}

/// Reads all copies.
pub(crate) fn read_copies<D: Disk>(disk: &D) -> Result<Vec<Copy>, WalError> {
    (0..COPIES).map(|copy| read_copy(disk, copy)).collect()
}

/// Whether any copy, whole or not, exists.
pub(crate) fn exists(names: &[String]) -> bool {
    (0..COPIES).any(|copy| names.contains(&Meta::name(copy)))
}

/// The newest whole copy: the highest sequence, wherever it stands.
pub(crate) fn newest(copies: &[Copy]) -> Result<Meta, WalError> {
    let mut newest: Option<Meta> = None;
    for (number, copy) in copies.iter().enumerate() {
        let meta = match copy {
            Copy::Whole(meta) => meta,
            Copy::Version(version) => {
                return Err(WalError::Version {
                    file: Meta::name(number),
                    version: *version,
                    known: META_VERSION,
                });
            }
            Copy::Damaged | Copy::Missing => continue,
        };
        match newest {
            Some(other) if (other.identity, other.wal_id) != (meta.identity, meta.wal_id) => {
                return Err(WalError::Foreign {
                    file: Meta::name(number),
                    detail: format!(
                        "belongs to member {:x} of cluster {:x}, log {:x}, unlike the copies \
                         before it",
                        meta.identity.member, meta.identity.cluster, meta.wal_id
                    ),
                });
            }
            Some(other) if other.sequence >= meta.sequence => {}
            _ => newest = Some(*meta),
        }
    }
    newest.ok_or_else(|| {
        let missing = copies.iter().filter(|copy| **copy == Copy::Missing).count();
        let damaged = copies.len() - missing;
        WalError::MetaLost { detail: format!("{damaged} of 4 copies damaged, {missing} missing") }
    })
}

/// The four files, open.
pub(crate) struct MetaFiles<F> {
    files: Vec<F>,
}

impl<F: DiskFile> MetaFiles<F> {
    /// Creates all copies, durably.
    pub(crate) fn create<D: Disk<File = F>>(
        disk: &D,
        meta: &Meta,
        syncs: &mut u64,
    ) -> Result<MetaFiles<F>, WalError> {
        let mut files = Vec::new();
        for copy in 0..COPIES {
            files.push(create_copy(disk, copy, meta, syncs)?);
        }
        tried(|| "syncing the data directory".into(), disk.sync_directory())?;
        *syncs += 1;
        Ok(MetaFiles { files })
    }

    /// Opens all copies, makes them equal to the newest, and all of that durable. A copy that was
    /// missing is created; one that is whole is written again, for it may be readable and yet not
    /// on the disk, if the process that wrote it died of a failed sync.
    pub(crate) fn open<D: Disk<File = F>>(
        disk: &D,
        copies: &[Copy],
        meta: &Meta,
        syncs: &mut u64,
    ) -> Result<MetaFiles<F>, WalError> {
        // The whole copies first: what was read may not have been synced by the process that
        // wrote it, and no copy may be overwritten before another is durable.
        let mut files: Vec<Option<F>> = Vec::new();
        for (number, copy) in copies.iter().enumerate() {
            let name = Meta::name(number);
            files.push(match copy {
                Copy::Missing => None,
                _ => Some(tried(|| format!("opening {name}"), disk.open(&name))?),
            });
            if *copy == Copy::Whole(*meta)
                && let Some(Some(file)) = files.last()
            {
                tried(|| format!("syncing {name}"), file.sync())?;
                *syncs += 1;
            }
        }
        let is_whole = |number: &usize| copies[*number] == Copy::Whole(*meta);
        let (whole, others): (Vec<usize>, Vec<usize>) = (0..COPIES).partition(is_whole);
        for number in &others {
            if files[*number].is_none() {
                files[*number] = Some(create_copy(disk, *number, meta, syncs)?);
            }
        }
        // Their names, too, before a whole one is put at risk.
        tried(|| "syncing the data directory".into(), disk.sync_directory())?;
        *syncs += 1;
        let block = meta.encode();
        for number in others.into_iter().chain(whole) {
            let Some(file) = &files[number] else { continue };
            if copies[number] == Copy::Missing {
                continue;
            }
            tried(|| format!("writing META.{number}"), file.write_at(&block, 0))?;
            tried(|| format!("syncing META.{number}"), file.sync())?;
            *syncs += 1;
        }
        Ok(MetaFiles { files: files.into_iter().flatten().collect() })
    }

    /// Makes all copies say `meta`, one after the other, durably.
    pub(crate) fn update(&self, meta: &Meta, syncs: &mut u64) -> std::io::Result<()> {
        let block = meta.encode();
        for file in &self.files {
            file.write_at(&block, 0)?;
            file.sync()?;
            *syncs += 1;
        }
        Ok(())
    }
}

/// Creates one copy under its name, whole or not at all. The directory is not yet synced.
fn create_copy<D: Disk>(
    disk: &D,
    copy: usize,
    meta: &Meta,
    syncs: &mut u64,
) -> Result<D::File, WalError> {
    let name = Meta::name(copy);
    let temporary = format!("{name}.tmp");
    let create = || {
        let file = disk.create(&temporary)?;
        file.write_at(&meta.encode(), 0)?;
        file.sync()?;
        disk.rename(&temporary, &name)?;
        Ok(file)
    };
    *syncs += 1;
    tried(|| format!("creating {name}"), create())
}
