//! Segments: the files that batches are written to.
//!
//! A segment's room is reserved when it is made, and reads as zeros; making it costs a few syncs, less than
//! a millisecond here. Its blocks become written ones with the batches, see [`zeros_after`].

use std::io;

use crate::disk::{Disk, DiskFile};
use crate::sector::BLOCK;

/// What a segment is called until it is whole.
const UNFINISHED: &str = "segment.tmp";

/// Zeros that a batch of one block takes along.
const ZEROS_MAX: u64 = 512 << 10;
/// A batch of more entries takes none.
const FEW_ENTRIES: usize = 8;

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
    file_name == UNFINISHED
        || file_name.strip_suffix(".tmp").is_some_and(|stem| stem.starts_with("META."))
}

/// Makes a segment of `len` bytes, durably: it is there with all its room, or not at all.
pub(crate) fn make<D: Disk>(disk: &D, number: u64, len: u64) -> io::Result<D::File> {
    let file = disk.create(UNFINISHED)?;
    file.allocate(len)?;
    file.sync()?;
    disk.rename(UNFINISHED, &name(number))?;
    disk.sync_directory()?;
    Ok(file)
}

/// How many zeros to write together with a batch of so many entries and `len` bytes that reaches blocks
/// never written, with `room` bytes after it in the segment.
///
/// The first write to a block makes the file system note in its journal that it is written now, which
/// the sync waits for: that doubles the time of a small one. Zeros spare the batches that follow this,
/// and cost the disk as much again as those. So small batches take many along, 512 KiB if it is one block,
/// for one in a hundred must not be slow; and large ones fewer, or none, when the note costs less. None
/// either when many entries share the cost of the sync, and the disk would write most bytes twice.
pub(crate) fn zeros_after(entries: usize, len: u64, room: u64) -> u64 {
    let block = BLOCK as u64;
    let zeros = (ZEROS_MAX / (len / block)) / block * block;
    if entries > FEW_ENTRIES || zeros < 2 * len { 0 } else { zeros.min(room) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_batches_take_zeros_along() {
        let kib = |bytes: u64| bytes << 10;
        for (batch, zeros) in [(4, 512), (8, 256), (12, 168), (32, 64), (36, 0), (1024, 0)] {
            assert_eq!(zeros_after(8, kib(batch), kib(4096)), kib(zeros), "{batch} KiB");
            assert_eq!(zeros_after(8, kib(batch), kib(20)), kib(zeros.min(20)), "no room for more");
        }
        assert_eq!(zeros_after(9, kib(4), kib(4096)), 0, "many entries share one sync");
    }
}
