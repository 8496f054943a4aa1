//! Segments: the files that batches are written to, prepared before they are needed.
//!
//! Overwriting blocks that exist syncs in about half the time of growing a file, so a segment is
//! allocated, filled with zeros and synced under a temporary name first. It gets its real name
//! when it is taken into use, and its header with its first batch.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use crate::block_buffer::BlockBuffer;
use crate::disk::{Disk, DiskFile};

/// Bytes written at once when filling with zeros: a sync of somebody else waits for no more than
/// this.
const FILL_BYTES: usize = 256 << 10;

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
    pub(crate) patience: Patience,
}

/// How long there is until a segment that is being prepared is needed, told by what the log has
/// room for: no clock says when it will be used up.
pub(crate) struct Patience {
    /// Bytes left in the segment being written; the appending thread says so after each batch. Gone
    /// with the log.
    room: Weak<AtomicU64>,
    /// How many there were when this began.
    room_at_first: u64,
}

impl Patience {
    pub(crate) fn none() -> Patience {
        Patience { room: Weak::new(), room_at_first: 0 }
    }

    pub(crate) fn with(room: &Arc<AtomicU64>) -> Patience {
        let room_at_first = room.load(Ordering::Relaxed);
        Patience { room: Arc::downgrade(room), room_at_first }
    }

    /// Whether there is time to give way, with so much of `len` bytes left to fill. The segment
    /// shall be ready when half of the room is used up.
    fn lasts(&self, left: u64, len: u64) -> bool {
        let Some(room) = self.room.upgrade() else { return false };
        let room = u128::from(room.load(Ordering::Relaxed));
        let half = u128::from(self.room_at_first / 2);
        room > half && u128::from(left) * half <= (room - half) * u128::from(len)
    }
}

impl<D: Disk> Preparation<D> {
    /// Allocates, fills and syncs the segment: about a second for 64 MiB, most of which it leaves
    /// the disk to others. It goes faster when the log is about to need the segment.
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
            if self.patience.lasts(self.len - at, self.len) {
                self.disk.give_way();
            }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patience_ends_when_the_log_gains_on_the_preparation() {
        let room = Arc::new(AtomicU64::new(1000));
        let patience = Patience::with(&room);
        // Room left, and how much of 800 bytes may be left to fill then.
        for (left_of_log, lasts_up_to) in [(1000, 800), (750, 400), (501, 1)] {
            room.store(left_of_log, Ordering::Relaxed);
            assert!(patience.lasts(lasts_up_to, 800), "{left_of_log}");
            assert!(!patience.lasts(lasts_up_to + 1, 800), "{left_of_log}");
        }
        room.store(500, Ordering::Relaxed);
        assert!(!patience.lasts(0, 800));
        room.store(1000, Ordering::Relaxed);
        assert!(!Patience::none().lasts(800, 800));
        drop(room);
        assert!(!patience.lasts(0, 800));
    }
}
