//! A disk in memory that can crash: it keeps written and synced bytes apart, changed and synced
//! directory entries apart, fails at any one operation, and loses at a crash any part of what was
//! not synced.

#![allow(dead_code, reason = "each test binary uses a part")]

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard};

use wal::{Disk, DiskFile};

pub const SECTOR: usize = 512;

/// What happens at the operation the fuse burns down to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fuse {
    /// It and all later operations fail: the machine lost power in its middle.
    Crash,
    /// It alone fails: the device answered with an error.
    Once,
}

#[derive(Clone, Default)]
pub struct MemoryDisk {
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    inodes: Vec<Inode>,
    names: BTreeMap<String, usize>,
    synced_names: BTreeMap<String, usize>,
    unsynced_names: Vec<NameChange>,
    /// Operations that change something, so far.
    operations: usize,
    fuse: Option<(usize, Fuse)>,
    locked: bool,
    /// Syncs of files and of the directory, so far.
    syncs: u64,
}

#[derive(Default, Clone)]
struct Inode {
    bytes: Vec<u8>,
    synced: Vec<u8>,
    /// Sectors written and not synced, in order.
    unsynced: Vec<(u64, Vec<u8>)>,
}

#[derive(Clone)]
enum NameChange {
    Create(String, usize),
    Rename(String, String, usize),
    Remove(String),
}

impl NameChange {
    fn apply(&self, names: &mut BTreeMap<String, usize>) {
        match self {
            NameChange::Create(name, inode) => {
                names.insert(name.clone(), *inode);
            }
            NameChange::Rename(from, to, inode) => {
                if names.get(from) == Some(inode) {
                    names.remove(from);
                }
                names.insert(to.clone(), *inode);
            }
            NameChange::Remove(name) => {
                names.remove(name);
            }
        }
    }
}

impl MemoryDisk {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// Fails operation number `at` (from 0) in the given way.
    pub fn set_fuse(&self, at: usize, fuse: Fuse) {
        self.state().fuse = Some((at, fuse));
    }

    pub fn operations(&self) -> usize {
        self.state().operations
    }

    pub fn syncs(&self) -> u64 {
        self.state().syncs
    }

    /// Number of things a crash now may keep or lose, each by itself.
    pub fn unsynced(&self) -> usize {
        let state = self.state();
        let sectors: usize = state.inodes.iter().map(|inode| inode.unsynced.len()).sum();
        sectors + state.unsynced_names.len()
    }

    /// What is found after a crash now that kept the unsynced things `keeps` says yes to.
    pub fn after_crash(&self, mut keeps: impl FnMut(usize) -> bool) -> MemoryDisk {
        let state = self.state();
        let mut number = 0..;
        let mut keep = || keeps(number.next().unwrap());
        let mut names = state.synced_names.clone();
        for change in &state.unsynced_names {
            if keep() {
                change.apply(&mut names);
            }
        }
        let mut inodes = Vec::new();
        for inode in &state.inodes {
            let mut bytes = inode.synced.clone();
            for (offset, sector) in &inode.unsynced {
                if keep() {
                    overwrite(&mut bytes, *offset, sector);
                }
            }
            inodes.push(Inode { synced: bytes.clone(), bytes, unsynced: Vec::new() });
        }
        let found = State { inodes, synced_names: names.clone(), names, ..State::default() };
        MemoryDisk { state: Arc::new(Mutex::new(found)) }
    }

    /// An independent copy with everything on it durable.
    pub fn copy(&self) -> MemoryDisk {
        self.after_crash(|_| true)
    }

    pub fn files(&self) -> BTreeMap<String, Vec<u8>> {
        let state = self.state();
        state
            .names
            .iter()
            .map(|(name, at)| (name.clone(), state.inodes[*at].bytes.clone()))
            .collect()
    }

    /// Replaces the contents of a file, durably, behind the log's back.
    pub fn put(&self, name: &str, bytes: Vec<u8>) {
        let mut state = self.state();
        let inode = state.inodes.len();
        state.inodes.push(Inode { synced: bytes.clone(), bytes, unsynced: Vec::new() });
        state.names.insert(name.into(), inode);
        state.synced_names.insert(name.into(), inode);
    }

    pub fn take(&self, name: &str) -> Vec<u8> {
        let mut state = self.state();
        state.synced_names.remove(name);
        let inode = state.names.remove(name).unwrap();
        state.inodes[inode].bytes.clone()
    }
}

impl State {
    /// Counts an operation; the caller records its effect as unsynced before it returns the error.
    fn burn(&mut self) -> io::Result<()> {
        let at = self.operations;
        self.operations += 1;
        let fails = match self.fuse {
            Some((fuse, Fuse::Crash)) => at >= fuse,
            Some((fuse, Fuse::Once)) => at == fuse,
            None => false,
        };
        if fails { Err(io::Error::other("injected")) } else { Ok(()) }
    }

    /// Whether the machine is down: no effect at all.
    fn is_down(&self) -> bool {
        matches!(self.fuse, Some((fuse, Fuse::Crash)) if self.operations > fuse)
    }

    fn down(&self) -> io::Result<()> {
        if self.is_down() { Err(io::Error::other("the machine is down")) } else { Ok(()) }
    }

    fn change_name(&mut self, change: NameChange) -> io::Result<()> {
        self.down()?;
        change.apply(&mut self.names);
        self.unsynced_names.push(change);
        self.burn()
    }

    fn inode(&self, name: &str) -> io::Result<usize> {
        self.names.get(name).copied().ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))
    }
}

fn overwrite(bytes: &mut Vec<u8>, offset: u64, with: &[u8]) {
    let end = offset as usize + with.len();
    if bytes.len() < end {
        bytes.resize(end, 0);
    }
    bytes[offset as usize..end].copy_from_slice(with);
}

pub struct MemoryLock(MemoryDisk);

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
            return Err(io::Error::from(io::ErrorKind::WouldBlock));
        }
        Ok(MemoryLock(self.clone()))
    }

    fn names(&self) -> io::Result<Vec<String>> {
        Ok(self.state().names.keys().cloned().collect())
    }

    fn create(&self, name: &str) -> io::Result<MemoryFile> {
        let mut state = self.state();
        let inode = state.inodes.len();
        state.inodes.push(Inode::default());
        state.change_name(NameChange::Create(name.into(), inode))?;
        Ok(MemoryFile { disk: self.clone(), inode })
    }

    fn open(&self, name: &str) -> io::Result<MemoryFile> {
        let inode = self.state().inode(name)?;
        Ok(MemoryFile { disk: self.clone(), inode })
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut state = self.state();
        let inode = state.inode(from)?;
        state.change_name(NameChange::Rename(from.into(), to.into(), inode))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut state = self.state();
        state.inode(name)?;
        state.change_name(NameChange::Remove(name.into()))
    }

    fn sync_directory(&self) -> io::Result<()> {
        let mut state = self.state();
        state.down()?;
        state.burn()?;
        state.syncs += 1;
        state.synced_names = state.names.clone();
        state.unsynced_names.clear();
        Ok(())
    }

    fn unique_number(&self) -> io::Result<u64> {
        Ok(0x1234_5678_9abc_def0)
    }
}

pub struct MemoryFile {
    disk: MemoryDisk,
    inode: usize,
}

impl DiskFile for MemoryFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.disk.state().inodes[self.inode].bytes.len() as u64)
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let state = self.disk.state();
        let bytes = &state.inodes[self.inode].bytes;
        let range = offset as usize..offset as usize + buffer.len();
        let from = bytes.get(range).ok_or(io::ErrorKind::UnexpectedEof)?;
        buffer.copy_from_slice(from);
        Ok(())
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        assert_eq!(offset as usize % SECTOR, 0, "writes begin at a sector");
        assert_eq!(bytes.len() % SECTOR, 0, "writes are whole sectors");
        let mut state = self.disk.state();
        state.down()?;
        let inode = &mut state.inodes[self.inode];
        overwrite(&mut inode.bytes, offset, bytes);
        for (number, sector) in bytes.chunks(SECTOR).enumerate() {
            inode.unsynced.push((offset + (number * SECTOR) as u64, sector.to_vec()));
        }
        state.burn()
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        let mut state = self.disk.state();
        state.down()?;
        state.inodes[self.inode].bytes.resize(len as usize, 0);
        state.burn()
    }

    fn sync(&self) -> io::Result<()> {
        let mut state = self.disk.state();
        state.down()?;
        state.burn()?;
        state.syncs += 1;
        let inode = &mut state.inodes[self.inode];
        inode.synced = inode.bytes.clone();
        inode.unsynced.clear();
        Ok(())
    }
}

/// A small generator of numbers; a test prints its seed.
pub struct Draw(pub u64);

impl Draw {
    /// From `WAL_SEED`, else from the clock; printed, so that a failure can be repeated.
    pub fn from_environment() -> Draw {
        let seed = std::env::var("WAL_SEED").ok().and_then(|seed| seed.parse().ok());
        let seed = seed.unwrap_or_else(|| {
            let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
            since.unwrap().as_nanos() as u64
        });
        println!("WAL_SEED={seed}");
        Draw(seed)
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}
