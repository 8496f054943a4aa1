//! A disk in memory that keeps what was written apart from what was synced, and can fail.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard};
use wal::{Disk, DiskFile};

#[derive(Clone, Default)]
pub struct MemoryDisk(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    files: Vec<File>,
    names: BTreeMap<String, usize>,
    synced_names: BTreeMap<String, usize>,
    locked: bool,
    syncs: u64,
    /// Operations until the power fails.
    fuse: Option<u32>,
}

#[derive(Default)]
struct File {
    bytes: Vec<u8>,
    synced: Vec<u8>,
    unsynced: Vec<(usize, Vec<u8>)>,
}

pub struct MemoryFile(MemoryDisk, usize);
pub struct MemoryLock(MemoryDisk);

impl MemoryDisk {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    pub fn syncs(&self) -> u64 {
        self.state().syncs
    }

    /// After so many operations, all others fail.
    pub fn set_fuse(&self, operations: u32) {
        self.state().fuse = Some(operations);
    }

    /// What is left after a loss of power that spares the unsynced sectors `keeps` says yes to.
    pub fn after_crash(&self, mut keeps: impl FnMut() -> bool) -> MemoryDisk {
        let state = self.state();
        let files = state.files.iter().map(|file| {
            let mut bytes = file.synced.clone();
            for (at, sector) in &file.unsynced {
                if keeps() {
                    write(&mut bytes, *at, sector);
                }
            }
            File { synced: bytes.clone(), bytes, unsynced: Vec::new() }
        });
        let files = files.collect();
        let names = state.synced_names.clone();
        let synced_names = names.clone();
        let after = State { files, names, synced_names, ..State::default() };
        MemoryDisk(Arc::new(Mutex::new(after)))
    }
}

impl State {
    fn burn(&mut self) -> io::Result<()> {
        match &mut self.fuse {
            Some(0) => Err(io::Error::other("the power is gone")),
            Some(left) => {
                *left -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }

    fn file(&self, name: &str) -> io::Result<usize> {
        self.names.get(name).copied().ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

fn write(bytes: &mut Vec<u8>, at: usize, with: &[u8]) {
    let len = bytes.len().max(at + with.len());
    bytes.resize(len, 0);
    bytes[at..at + with.len()].copy_from_slice(with);
}

impl Drop for MemoryLock {
    fn drop(&mut self) {
        self.0.state().locked = false;
    }
}

impl Disk for MemoryDisk {
    type File = MemoryFile;
    type Lock = MemoryLock;

    fn lock(&self) -> io::Result<MemoryLock> {
        if std::mem::replace(&mut self.state().locked, true) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        Ok(MemoryLock(self.clone()))
    }

    fn names(&self) -> io::Result<Vec<String>> {
        Ok(self.state().names.keys().cloned().collect())
    }

    fn create(&self, name: &str) -> io::Result<MemoryFile> {
        let mut state = self.state();
        state.burn()?;
        state.files.push(File::default());
        let file = state.files.len() - 1;
        state.names.insert(name.to_owned(), file);
        Ok(MemoryFile(self.clone(), file))
    }

    fn open(&self, name: &str) -> io::Result<MemoryFile> {
        let file = self.state().file(name)?;
        Ok(MemoryFile(self.clone(), file))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut state = self.state();
        state.burn()?;
        let file = state.file(from)?;
        state.names.remove(from);
        state.names.insert(to.to_owned(), file);
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut state = self.state();
        state.burn()?;
        state.names.remove(name);
        Ok(())
    }

    fn sync_directory(&self) -> io::Result<()> {
        let mut state = self.state();
        state.burn()?;
        state.syncs += 1;
        state.synced_names = state.names.clone();
        Ok(())
    }

    fn unique_number(&self) -> io::Result<u64> {
        Ok(0x5eed)
    }
}

impl DiskFile for MemoryFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.state().files[self.1].bytes.len() as u64)
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let state = self.0.state();
        let from = offset as usize;
        let found = state.files[self.1].bytes.get(from..from + buffer.len());
        buffer.copy_from_slice(found.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let mut state = self.0.state();
        state.burn()?;
        let file = &mut state.files[self.1];
        write(&mut file.bytes, offset as usize, bytes);
        for (number, sector) in bytes.chunks(512).enumerate() {
            file.unsynced.push((offset as usize + 512 * number, sector.to_vec()));
        }
        Ok(())
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        let mut state = self.0.state();
        state.burn()?;
        state.files[self.1].bytes.resize(len as usize, 0);
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        let mut state = self.0.state();
        state.burn()?;
        state.syncs += 1;
        let file = &mut state.files[self.1];
        file.unsynced.clear();
        file.synced.clone_from(&file.bytes);
        Ok(())
    }
}
