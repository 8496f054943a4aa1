//! The seam to the disk: the files of one flat data directory.
//!
//! The log asks very little of a disk, and asks it through these two traits only, so that a
//! simulator can stand in for it: keep written and synced bytes apart, keep directory entries
//! changed and synced apart, fail any single operation, and lose at a crash any part of what was
//! not synced. What the log assumes of an implementation is in `docs/formats.md`.

use std::io;

/// The files of one flat data directory. A clone is another handle to the same directory.
///
/// Names are plain file names. Creating, renaming and removing a name survives a crash only once
/// [`sync_directory`](Disk::sync_directory) has returned; until then any subset of those changes
/// may be lost. After any error of any operation the log performs no further write: an
/// implementation may leave everything that was not synced in whatever state it likes.
pub trait Disk: Clone + Send + Sync + 'static {
    /// An open file.
    type File: DiskFile;
    /// Proof that no other process writes to this directory; released when dropped.
    type Lock: Send + Sync + 'static;

    /// Takes the lock of the directory, without waiting.
    ///
    /// Fails with [`io::ErrorKind::WouldBlock`] while another holds it.
    fn lock(&self) -> io::Result<Self::Lock>;

    /// The names of all files, in any order.
    fn names(&self) -> io::Result<Vec<String>>;

    /// Creates an empty file, or empties the one of that name.
    fn create(&self, name: &str) -> io::Result<Self::File>;

    /// Opens an existing file; [`io::ErrorKind::NotFound`] if there is none of that name.
    fn open(&self, name: &str) -> io::Result<Self::File>;

    /// Gives a file another name, atomically replacing a file that has it.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;

    /// Removes a name; files that are open stay readable.
    fn remove(&self, name: &str) -> io::Result<()>;

    /// Makes all creations, renames and removals up to now durable.
    fn sync_directory(&self) -> io::Result<()>;

    /// A number that was never given before, here or elsewhere: random on a real disk, drawn from
    /// the seed in a simulation. Asked twice when a log is created: for its id, and for that of its
    /// first incarnation.
    fn unique_number(&self) -> io::Result<u64>;
}

/// One open file of a [`Disk`].
pub trait DiskFile: Send + Sync + 'static {
    /// Length in bytes.
    fn len(&self) -> io::Result<u64>;

    /// Whether the file has no bytes.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }

    /// Fills `buffer` from `offset`; [`io::ErrorKind::UnexpectedEof`] if the file ends before.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()>;

    /// Writes all of `bytes` at `offset`. Durable only after [`sync`](DiskFile::sync); a crash
    /// before that may keep any subset of the 512-byte sectors written.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;

    /// Reserves room for `len` bytes, which read as zeros, and makes that the file's length. Only
    /// called on a file just created.
    fn allocate(&self, len: u64) -> io::Result<()>;

    /// Makes all bytes written up to now, and the length, durable.
    fn sync(&self) -> io::Result<()>;

    /// Writes all of `bytes` at `offset`, over bytes that exist, and makes them durable: a write
    /// and a sync, in one operation where the disk has one that costs less. Until it has returned,
    /// a crash may keep any subset of the 512-byte sectors; after an error nothing is known.
    ///
    /// Begin `bytes` at a multiple of 4096 in memory, and `offset` and length likewise: some disks
    /// take only that the cheap way.
    fn write_durably(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.write_at(bytes, offset)?;
        self.sync()
    }
}
