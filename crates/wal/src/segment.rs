//! Segments: the files that batches are written to, prepared before they are needed.
//!
//! Overwriting blocks that exist syncs in about half the time of growing a file, so a segment is
//! allocated, filled with zeros and synced under a temporary name first. It gets its real name
//! when it is taken into use, and its header with its first batch.

use std::io;
use std::sync::Arc;

use crate::block_buffer::BlockBuffer;
use crate::disk::{Disk, DiskFile};

/// Bytes written at once when filling with zeros.
const FILL_BYTES: usize = 1 << 20;

const SUFFIX: &str = ".wal";

/// The file name of a segment: its number in 16 hexadecimal digits.
pub(crate) fn name(number: u64) -> String {
    format!("{number:016x}{SUFFIX}")
}

/// The number of the segment of that name, if it is one.
pub(crate) fn number(file_name: &str) -> Option<u64> {
    let digits = file_name.strip_suffix(SUFFIX)?;
    let number = u64::from_str_radix(digits, 16).ok()?;
    (name(number) == file_name).then_some(number)
}

/// Whether this is the name of a file that was being made when its process died.
pub(crate) fn is_temporary(file_name: &str) -> bool {
    let Some(stem) = file_name.strip_suffix(".tmp") else { return false };
    stem.starts_with("spare-") || stem.starts_with("META.")
}

/// A segment that ought to be prepared. [`run`](Preparation::run) it on any thread, and hand the
/// result to [`Wal::adopt`](crate::Wal::adopt).
#[must_use = "the log asks once per segment, and prepares it itself in the way of an append if \
              nobody has"]
pub struct Preparation<D: Disk> {
    pub(crate) disk: D,
    /// Nobody else may write here while this does.
    pub(crate) _lock: Arc<D::Lock>,
    pub(crate) name: String,
    pub(crate) len: u64,
}

impl<D: Disk> Preparation<D> {
    /// Allocates, fills and syncs the segment: about 0.1 s for 64 MiB.
    ///
    /// An error (no room on the device, say) leaves the log as it was; it will try again by itself
    /// when it needs the segment, and fail then if it must.
    pub fn run(self) -> io::Result<Prepared<D>> {
        let file = self.disk.create(&self.name)?;
        file.allocate(self.len)?;
        let zeros = BlockBuffer::zeroed(FILL_BYTES.min(self.len as usize));
        let mut at = 0;
        while at < self.len {
            let len = zeros.len().min((self.len - at) as usize);
            file.write_at(&zeros[..len], at)?;
            at += len as u64;
        }
        file.sync()?;
        Ok(Prepared { name: self.name, file: Arc::new(file), len: self.len })
    }
}

/// A segment ready to be used.
pub struct Prepared<D: Disk> {
    pub(crate) name: String,
    pub(crate) file: Arc<D::File>,
    pub(crate) len: u64,
}
