//! Why a log cannot be created or opened.

use std::fmt;
use std::io;

/// Why a log cannot be created or opened. Nothing was changed, apart from what a crash while
/// opening may leave: copies of META made equal, a torn tail cleared.
///
/// `Display` is one line: what is wrong, where, and what to do.
#[derive(Debug)]
pub enum WalError {
    /// The disk refused an operation.
    Io {
        /// What was tried, naming the file.
        what: String,
        /// The system's answer.
        source: io::Error,
    },
    /// Another process holds the directory's lock.
    Locked,
    /// The directory to create a log in holds one already.
    Exists,
    /// There is no log in the directory.
    Missing,
    /// A newer release wrote this file.
    Version {
        /// The file.
        file: String,
        /// The version of its format.
        version: u32,
        /// The newest version that this release reads.
        known: u32,
    },
    /// No copy of META can be read, or those that can contradict each other: term, vote and
    /// identity are unknown.
    MetaLost {
        /// What became of the copies.
        detail: String,
    },
    /// A file of another log, or of another place in this one.
    Foreign {
        /// The file.
        file: String,
        /// What it says it is.
        detail: String,
    },
    /// A segment that must exist does not.
    SegmentMissing {
        /// The file's name.
        file: String,
        /// The last index of the log before the gap.
        after: u64,
    },
    /// A batch that had been acknowledged, or may have been, can no longer be read.
    Damaged {
        /// The file.
        file: String,
        /// Where in it, in bytes.
        offset: u64,
        /// First index affected.
        first: u64,
        /// Last index affected, if any intact copy of the ids says so.
        last: Option<u64>,
        /// Whether it is certain that the batch had been synced. If not, the damage may also be
        /// a last write cut short by a power failure on a disk that tears sectors.
        synced: bool,
        /// What was found.
        detail: String,
    },
    /// The log ends before a batch that META knows to have been synced.
    TailLost {
        /// The file the log ends in.
        file: String,
        /// Where in it, in bytes.
        offset: u64,
        /// The last index found.
        last: u64,
        /// The last index META knows of.
        expected: u64,
    },
}

/// What to do about a log that cannot be used until damaged logs are repaired from peers.
const REPLACE: &str = "nothing was changed; keep this directory, and leave the member stopped until \
                       it can be replaced: with an empty directory or an older copy its peers keep \
                       it out";

impl fmt::Display for WalError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            WalError::Io { what, source } => write!(f, "{what}: {source}"),
            WalError::Locked => write!(
                f,
                "the data directory is locked by another process (file LOCK); stop that process \
                 or choose another directory"
            ),
            WalError::Exists => write!(
                f,
                "the data directory already holds a log; open it, or choose an empty directory"
            ),
            WalError::Missing => write!(f, "the data directory holds no log"),
            WalError::Version { file, version, known } => write!(
                f,
                "{file} has format version {version}, this release reads none above {known}; start \
                 the newer release that wrote it"
            ),
            WalError::MetaLost { detail } => write!(
                f,
                "META.0 to META.3: {detail}; without term and vote this member could vote twice; \
                 {REPLACE}"
            ),
            WalError::Foreign { file, detail } => write!(
                f,
                "{file}: {detail}; files were renamed or copied into this data directory; put \
                 them back where they were"
            ),
            WalError::SegmentMissing { file, after } => {
                write!(f, "{file} is missing, entries after index {after} are lost; {REPLACE}")
            }
            WalError::Damaged { file, offset, first, last, synced, detail } => {
                let what = if *synced {
                    "a batch that had been synced is damaged"
                } else {
                    "the last batch is damaged and may have been acknowledged"
                };
                write!(f, "{file} at offset {offset}, index {first}")?;
                match last {
                    Some(last) if last > first => write!(f, " to {last}")?,
                    Some(_) => {}
                    None => write!(f, " and after")?,
                }
                write!(f, ": {what} ({detail}); {REPLACE}")
            }
            WalError::TailLost { file, offset, last, expected } => write!(
                f,
                "{file} at offset {offset}: the log ends at index {last}, but had been synced up \
                 to index {expected}: the disk lost a synced write; {REPLACE}"
            ),
        }
    }
}

impl std::error::Error for WalError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            WalError::Io { source, .. } => Some(source),
            _ => None,
        }
    }
}

/// Names what was tried when the disk refused.
pub(crate) fn tried<T>(
    what: impl FnOnce() -> String,
    result: io::Result<T>,
) -> Result<T, WalError> {
    result.map_err(|source| WalError::Io { what: what(), source })
}
