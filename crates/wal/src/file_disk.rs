//! The real disk: files in a directory.
//!
//! What is in whole blocks goes past the page cache, and a write that must be durable is one system
//! call, if the file system can do so. If not it is `pwrite` into the page cache and `fdatasync`.
//! Reading goes through the page cache either way: the kernel writes out what it has of a block
//! before a write goes past it, and forgets it.

use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::io::{IoSlice, Read};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{FallocateFlags, OFlags, fallocate};
use rustix::io::{Errno, ReadWriteFlags, pwritev2};

use crate::block_buffer::{BlockBuffer, is_aligned};
use crate::disk::{Disk, DiskFile};
use crate::sector::BLOCK;

/// Name of the file that carries the lock. It stays empty.
const LOCK_NAME: &str = "LOCK";

/// What opens a file so that writes go past the page cache.
const DIRECT: i32 = OFlags::DIRECT.bits() as i32;

/// A data directory of the operating system.
#[derive(Clone, Debug)]
pub struct FileDisk {
    directory: Arc<Directory>,
}

#[derive(Debug)]
struct Directory {
    path: PathBuf,
    /// Kept open to sync the directory's entries.
    handle: File,
    read_only: bool,
    /// Writes may go past the page cache here, and be durable in one call.
    is_direct: bool,
}

impl FileDisk {
    /// Opens a directory, creating it and its parents as needed (readable by this user alone).
    pub fn create(path: impl Into<PathBuf>) -> io::Result<FileDisk> {
        let path = path.into();
        create_directories(&path)?;
        FileDisk::new(path, false)
    }

    /// Opens an existing directory.
    pub fn open(path: impl Into<PathBuf>) -> io::Result<FileDisk> {
        FileDisk::new(path.into(), false)
    }

    /// Opens an existing directory to look at it; every change is refused by the system.
    pub fn open_read_only(path: impl Into<PathBuf>) -> io::Result<FileDisk> {
        FileDisk::new(path.into(), true)
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.directory.path
    }

    fn new(path: PathBuf, read_only: bool) -> io::Result<FileDisk> {
        let handle = File::open(&path)?;
        if !handle.metadata()?.is_dir() {
            return Err(io::Error::from(io::ErrorKind::NotADirectory));
        }
        let is_direct = !read_only && takes_direct_writes(&path);
        Ok(FileDisk { directory: Arc::new(Directory { path, handle, read_only, is_direct }) })
    }

    /// A file that is there now, with a second way to write to it.
    fn handle(&self, file: File, name: &str) -> io::Result<DiskFileHandle> {
        let mut direct = OpenOptions::new();
        direct.write(true).custom_flags(DIRECT);
        let path = self.file_path(name);
        let direct = self.directory.is_direct.then(|| direct.open(path)).transpose()?;
        Ok(DiskFileHandle { file, direct })
    }

    fn file_path(&self, name: &str) -> PathBuf {
        self.directory.path.join(name)
    }
}

/// Creates the missing directories of `path`, each durable in its parent before the next.
fn create_directories(path: &Path) -> io::Result<()> {
    if path.as_os_str().is_empty() || path.is_dir() {
        return Ok(());
    }
    let parent = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    create_directories(parent)?;
    let mut builder = std::fs::DirBuilder::new();
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    match builder.create(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => {}
        other => other?,
    }
    File::open(parent)?.sync_all()
}

impl Disk for FileDisk {
    type File = DiskFileHandle;
    type Lock = File;

    fn lock(&self) -> io::Result<File> {
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(self.file_path(LOCK_NAME))?;
        match file.try_lock() {
            Ok(()) => Ok(file),
            Err(TryLockError::WouldBlock) => Err(io::Error::from(io::ErrorKind::WouldBlock)),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }

    fn names(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in std::fs::read_dir(&self.directory.path)? {
            let entry = entry?;
            // A name that is not UTF-8 is not one of ours.
            if entry.file_type()?.is_file()
                && let Ok(name) = entry.file_name().into_string()
            {
                names.push(name);
            }
        }
        Ok(names)
    }

    fn create(&self, name: &str) -> io::Result<DiskFileHandle> {
        let mut options = OpenOptions::new();
        let file = options
            .mode(0o600)
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .open(self.file_path(name))?;
        self.handle(file, name)
    }

    fn open(&self, name: &str) -> io::Result<DiskFileHandle> {
        let file = OpenOptions::new()
            .read(true)
            .write(!self.directory.read_only)
            .open(self.file_path(name))?;
        self.handle(file, name)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        std::fs::rename(self.file_path(from), self.file_path(to))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        std::fs::remove_file(self.file_path(name))
    }

    fn sync_directory(&self) -> io::Result<()> {
        self.directory.handle.sync_all()
    }

    fn unique_number(&self) -> io::Result<u64> {
        let mut bytes = [0; 8];
        File::open("/dev/urandom")?.read_exact(&mut bytes)?;
        Ok(u64::from_le_bytes(bytes))
    }
}

/// An open file of a [`FileDisk`].
#[derive(Debug)]
pub struct DiskFileHandle {
    file: File,
    /// The same file, to write to past the page cache, where that works.
    direct: Option<File>,
}

impl DiskFileHandle {
    /// The way past the page cache, if there is one and these bytes can go it.
    fn direct_for(&self, bytes: &[u8], offset: u64) -> Option<&File> {
        self.direct.as_ref().filter(|_| is_aligned(bytes, offset))
    }
}

impl DiskFile for DiskFileHandle {
    fn len(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.file.read_exact_at(buffer, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.direct_for(bytes, offset).unwrap_or(&self.file).write_all_at(bytes, offset)
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        match fallocate(&self.file, FallocateFlags::empty(), 0, len) {
            Ok(()) => Ok(()),
            // Some file systems cannot reserve room. Nothing is lost but contiguity: the caller
            // fills the file with zeros and syncs it before use.
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => self.file.set_len(len),
            Err(error) => Err(error.into()),
        }
    }

    fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn write_durably(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        match self.direct_for(bytes, offset) {
            Some(direct) => write_through(direct, bytes, offset),
            None => {
                self.write_at(bytes, offset)?;
                self.sync()
            }
        }
    }
}

/// Writes all of `bytes`, each part of which is on the disk when the system says that it is
/// written.
fn write_through(direct: &File, mut bytes: &[u8], mut offset: u64) -> io::Result<()> {
    while !bytes.is_empty() {
        match pwritev2(direct, &[IoSlice::new(bytes)], offset, ReadWriteFlags::DSYNC) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => {
                bytes = &bytes[written..];
                offset += written as u64;
            }
            // A signal came first: nothing was written.
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Tries on a file without a name whether writes in this directory may go past the page cache, and
/// be durable in one call. Some file systems refuse to open for that, some the write, some (as do
/// some sandboxes) the call, and some cannot make a file without a name: there the old way will do.
fn takes_direct_writes(directory: &Path) -> bool {
    let flags = DIRECT | OFlags::TMPFILE.bits() as i32;
    let file = OpenOptions::new().write(true).mode(0o600).custom_flags(flags).open(directory);
    file.is_ok_and(|file| write_through(&file, &BlockBuffer::zeroed(BLOCK), 0).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Writes blocks of the given byte in both ways, and reads them back after each.
    fn write_and_read(file: &DiskFileHandle) {
        let mut block = BlockBuffer::zeroed(BLOCK);
        let mut back = [0; 3 * BLOCK];
        file.write_at(&BlockBuffer::zeroed(3 * BLOCK), 0).unwrap();
        file.sync().unwrap();
        for byte in 1..20 {
            // What was read just before must not be remembered.
            file.read_at(&mut back, 0).unwrap();
            block.fill(byte);
            file.write_durably(&block, BLOCK as u64).unwrap();
            // Not in whole blocks: through the page cache.
            file.write_durably(&block[512..1024], 2 * BLOCK as u64).unwrap();
            file.read_at(&mut back, 0).unwrap();
            assert!(back[..BLOCK].iter().all(|found| *found == 0));
            assert!(back[BLOCK..2 * BLOCK + 512].iter().all(|found| *found == byte));
            assert!(back[2 * BLOCK + 512..].iter().all(|found| *found == 0));
        }
    }

    #[test]
    fn what_went_past_the_cache_is_read_through_it() {
        let directory = tempfile::tempdir().unwrap();
        let disk = FileDisk::open(directory.path()).unwrap();
        let file = disk.create("file").unwrap();
        assert_eq!(file.direct.is_some(), disk.directory.is_direct);
        write_and_read(&file);
        write_and_read(&disk.open("file").unwrap());
        let names = disk.names().unwrap();
        assert_eq!(names, ["file"], "the trial of direct writes leaves nothing behind");
    }

    #[test]
    fn where_nothing_goes_past_the_cache_all_goes_through_it() {
        let directory = tempfile::tempdir().unwrap();
        let disk = FileDisk::open(directory.path()).unwrap();
        let file = DiskFileHandle { direct: None, ..disk.create("file").unwrap() };
        write_and_read(&file);
        // A file system of the kernel has no files without names.
        assert!(!takes_direct_writes(Path::new("/proc")));
    }
}
