//! The write-ahead log: what one member keeps, and keeps for good.

mod batch;
mod checksum;
mod disk;
mod error;
mod file_disk;
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
pub use crate::places::Reader;
pub use crate::segment::{Preparation, Prepared};
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

/// What Raft must not forget besides the entries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HardState {
    /// The newest term known. Never goes back.
    pub term: u64,
    /// The member voted for in that term; 0 for none.
    pub vote: u64,
}

/// How a log is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Bytes of a segment, rounded up to whole blocks of 4 KiB, at least two. A batch that is
    /// larger gets a segment of its own size. The default is 64 MiB: large enough that preparing
    /// is rare, small enough that released segments soon give their room back.
    pub segment_bytes: u64,
}

impl Default for Options {
    fn default() -> Options {
        Options { segment_bytes: 64 << 20 }
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
    /// The newest hard state.
    pub hard_state: HardState,
    /// The ids of all entries kept, in order, contiguous.
    pub entries: Vec<EntryId>,
    /// An index known to be committed, at most the last entry's.
    pub commit: u64,
    /// One line for everything that was not as it should be and was put right.
    pub warnings: Vec<String>,
}
