//! The real disk: files in a directory, `pwrite` and `fdatasync`.

use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{FallocateFlags, fallocate};

use crate::disk::{Disk, DiskFile};

/// Name of the file that carries the lock. It stays empty.
const LOCK_NAME: &str = "LOCK";

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
        Ok(FileDisk { directory: Arc::new(Directory { path, handle, read_only }) })
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
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let file = options
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .open(self.file_path(name))?;
        Ok(DiskFileHandle { file })
    }

    fn open(&self, name: &str) -> io::Result<DiskFileHandle> {
        let file = OpenOptions::new()
            .read(true)
            .write(!self.directory.read_only)
            .open(self.file_path(name))?;
        Ok(DiskFileHandle { file })
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
}

impl DiskFile for DiskFileHandle {
    fn len(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.file.read_exact_at(buffer, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.file.write_all_at(bytes, offset)
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        match fallocate(&self.file, FallocateFlags::empty(), 0, len) {
            Ok(()) => Ok(()),
            // Some file systems cannot reserve room. Nothing is lost but contiguity: the caller
            // fills the file with zeros and syncs it before use.
            Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOSYS) => self.file.set_len(len),
            Err(error) => Err(error.into()),
        }
    }

    fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }
}
