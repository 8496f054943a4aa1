//! The write-ahead log: what one member keeps, and keeps for good.
//!
//! A member of a Raft cluster makes promises: this entry is mine to keep, this vote is given. A
//! promise may leave the machine only when a power cut can no longer undo it. This crate is the
//! place where that becomes true: [`Wal::append`] takes what has gathered, writes it as one batch,
//! syncs once, and returns. It knows entries by term and index, and replaces a suffix when told to,
//! but nothing of Raft's rules: who may write what is decided elsewhere.
//!
//! On disk there are four copies of META (identity, term, vote, incarnation) and a row of segments, numbered
//! without gaps. A segment is a row of batches, each naming the hash
//! of the one before. Each 512-byte sector of a batch carries its own checksum and place, so that
//! what was never written, what was written, and what has rotted can be told apart.
//! `docs/formats.md` describes every byte.
//!
//! What always holds:
//!
//! - After `append` returned `Ok`, everything in the batch is found by every later open.
//! - Before `append` is called again, nothing else is written: at most one batch can be torn, and
//!   that one was never acknowledged.
//! - A block that holds acknowledged bytes is never written again.
//! - What is read, at open or later, was checked; what does not match is an error that names file,
//!   offset and index, never a shorter log and never other bytes.
//! - After the first failed write or sync every call fails. Nothing is retried: what the system
//!   holds in memory after a failed sync says nothing about the disk.
//!
//! **Never**: `wal` never decides what is committed, never reads a clock, never draws a number
//! (the disk does, when a log is created), never spawns a thread. It never skips what it cannot read, and
//! never deletes data because something about it is unreadable.
//!
//! All access to files goes through [`Disk`]. [`FileDisk`] is the real one, [`MemoryDisk`] one that
//! fails on demand, for tests and simulators.

mod batch;
mod block_buffer;
mod checksum;
mod disk;
mod error;
mod file_disk;
mod inspect;
mod memory_disk;
mod meta;
mod places;
mod recovery;
mod sector;
mod segment;
mod wal;

use std::fmt;

use bytes::Bytes;

pub use crate::disk::{Disk, DiskFile};
pub use crate::error::WalError;
pub use crate::file_disk::{DiskFileHandle, FileDisk};
pub use crate::inspect::inspect;
pub use crate::memory_disk::{Fault, Lie, Loss, MemoryDisk, MemoryFile, MemoryLock};
pub use crate::places::Reader;
pub use crate::wal::Wal;

/// Names one entry. `Display` is `2@1`: index 2 of term 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EntryId {
    /// Term of the leader that made it.
    pub term: u64,
    /// Its place in the log; the first is 1.
    pub index: u64,
}

impl fmt::Display for EntryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.index, self.term)
    }
}

/// One entry of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Its name.
    pub id: EntryId,
    /// What the payload is; the log does not care.
    pub kind: u8,
    /// Up to 4 GiB; shared, never changed.
    pub payload: Bytes,
}

/// Whose log this is. Given when it is created, and returned whenever it is opened, for the caller
/// to compare.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    /// The cluster's id.
    pub cluster: u64,
    /// The member's id.
    pub member: u64,
}

/// Names one life of a log: from one start of its owner to the next. `Display` is `3:9f0c`: the
/// third life, and its id in hexadecimal.
///
/// A log that was deleted and made anew, or put back from an old copy, has another incarnation than
/// the one that others remember. The order is that of starts; ids only tell apart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Incarnation {
    /// Which life of this log it is, from 1. 0 with an id of 0 means that none has begun: a
    /// release before incarnations wrote the log.
    pub start: u64,
    /// A number drawn at random for this life.
    pub id: u64,
}

impl fmt::Display for Incarnation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{:x}", self.start, self.id)
    }
}

/// What Raft must not forget besides the entries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HardState {
    /// The newest term known. Never goes back.
    pub term: u64,
    /// The member voted for in that term; 0 for none. Within a term it changes from none to a
    /// member at most: recovery relies on it.
    pub vote: u64,
}

/// How a log is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Bytes of a segment, rounded up to whole blocks of 4 KiB, at least two. A batch that is
    /// larger gets a segment of its own size. The default is 64 MiB: large enough that making one
    /// is rare, small enough that released segments soon give their room back.
    pub segment_bytes: u64,
    /// Kinds of entries that [`Recovered::records`] has whole; none by default. Meant for the few
    /// that the caller must know before it does anything else: they are kept in memory.
    pub recover_kinds: &'static [u8],
}

impl Default for Options {
    fn default() -> Options {
        Options { segment_bytes: 64 << 20, recover_kinds: &[] }
    }
}

/// What one append makes durable, all of it or nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    /// The hard state, if it changed.
    pub hard_state: Option<HardState>,
    /// Entries with contiguous indexes. If the first one's is not above the log's last, they
    /// replace everything from there on.
    pub records: Vec<Record>,
    /// An index known to be committed, or 0: a hint.
    pub commit: u64,
}

/// What a log held when it was opened. All of it is durable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recovered {
    /// Whose log it is.
    pub identity: Identity,
    /// The newest incarnation that was begun: of the life that ended before this was opened.
    pub incarnation: Incarnation,
    /// The newest hard state.
    pub hard_state: HardState,
    /// The ids of all entries kept, in order, contiguous.
    pub entries: Vec<EntryId>,
    /// Those of them that are of the kinds in [`Options::recover_kinds`], whole and in order.
    pub records: Vec<Record>,
    /// An index known to be committed, at most the last entry's.
    pub commit: u64,
    /// One line for everything that was not as it should be and was put right.
    pub warnings: Vec<String>,
}
