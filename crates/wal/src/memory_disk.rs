//! A disk in memory that fails as real ones do, for tests and simulators.
//!
//! It keeps apart what was written and what would survive a loss of power: of contents by sector,
//! of names by change. A process that dies leaves both as they are, like a system's page cache; a
//! loss of power keeps of what was not synced whatever its caller says.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::disk::{Disk, DiskFile};
use crate::sector::SECTOR;

/// The disk of one machine. A clone is another handle to it.
#[derive(Clone, Default)]
pub struct MemoryDisk {
    /// Taken for one operation at a time, by whoever does it.
    state: Arc<Mutex<State>>,
}

/// How the operation fails that the fuse burns down to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Power is lost in its middle: it may have had its effect, and nothing after it has.
    PowerLoss,
    /// It alone answers an error. A write may have had its effect. What a failed sync did not
    /// write, no later sync will, though it can be read until power is lost: Linux's file systems
    /// do so, they count the pages as clean.
    Error,
}

/// What a disk does wrong with a write that it says is done, and synced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lie {
    /// One of its sectors is not written.
    LosesSector,
    /// None of it is written.
    LosesAll,
    /// One of its sectors is written elsewhere, in place of what stands there.
    Misdirects,
}

/// What became of the things that were not synced when power was lost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Loss {
    /// Sectors of which the last written contents survived.
    pub sectors_kept: usize,
    /// Sectors that went back to what they were.
    pub sectors_lost: usize,
    /// Creations, renames and removals that did not happen.
    pub names_lost: usize,
}

#[derive(Clone, Default)]
struct State {
    files: Vec<File>,
    names: BTreeMap<String, usize>,
    synced_names: BTreeMap<String, usize>,
    unsynced_names: Vec<NameChange>,
    /// Files with anything unsynced.
    dirty: BTreeSet<usize>,
    /// Operations that change something, so far.
    operations: usize,
    fuse: Option<(usize, Fault)>,
    /// The most bytes that all files may have together.
    room: Option<u64>,
    locked: bool,
    syncs: u64,
    number: u64,
    /// What stands elsewhere than it should, or is something else.
    damages: Vec<Damage>,
    /// What it does wrong with the next write that changes anything, and what decides where.
    lie: Option<(Lie, u64)>,
    has_lied: bool,
}

#[derive(Clone, Default)]
struct File {
    bytes: Vec<u8>,
    synced_len: usize,
    /// Writes that were not synced, in order.
    unsynced: Vec<Write>,
    /// By offset, what the disk holds of sectors that a failed sync dropped.
    dropped: BTreeMap<usize, Vec<u8>>,
}

/// A write, and what stood in its place before.
#[derive(Clone)]
struct Write {
    offset: usize,
    before: Vec<u8>,
    /// Which operation of the disk it was.
    at: usize,
}

/// A sector that is not what was written and synced there, until something else is.
#[derive(Clone)]
struct Damage {
    file: usize,
    offset: usize,
    /// What should stand there, and what does.
    right: Vec<u8>,
    wrong: Vec<u8>,
    /// After which operation of the disk.
    at: usize,
}

#[derive(Clone)]
enum NameChange {
    Create(String, usize),
    Rename(String, String, usize),
    Remove(String),
}

impl MemoryDisk {
    /// An empty disk; `number` is the first that [`Disk::unique_number`] gives, others follow from it.
    pub fn new(number: u64) -> MemoryDisk {
        let state = State { number, ..State::default() };
        MemoryDisk { state: Arc::new(Mutex::new(state)) }
    }

    /// Lets `operations` more operations succeed and the next fail.
    pub fn set_fuse(&self, operations: usize, fault: Fault) {
        let mut state = self.state();
        state.fuse = Some((state.operations + operations, fault));
    }

    /// Takes the fuse away, if it has not burnt down.
    pub fn clear_fuse(&self) {
        self.state().fuse = None;
    }

    /// Lets all files together have at most so many bytes, or any number.
    pub fn set_room(&self, bytes: Option<u64>) {
        self.state().room = bytes;
    }

    /// Operations that change something, so far.
    pub fn operations(&self) -> usize {
        self.state().operations
    }

    /// Syncs of files and of the directory, so far.
    pub fn syncs(&self) -> u64 {
        self.state().syncs
    }

    /// Bytes of all files.
    pub fn len(&self) -> u64 {
        self.state().len()
    }

    /// Whether there are no bytes in any file.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether the fuse burnt down to a loss of power.
    pub fn is_down(&self) -> bool {
        self.state().is_down()
    }

    /// How many things a loss of power now may keep or lose, each by itself.
    pub fn unsynced(&self) -> usize {
        let state = self.state();
        let sectors = |file: &File| -> usize {
            file.unsynced.iter().map(|write| write.before.len().div_ceil(SECTOR)).sum()
        };
        state.files.iter().map(sectors).sum::<usize>() + state.unsynced_names.len()
    }

    /// The names of files of which a loss of power now could lose contents, or the name itself.
    pub fn unsynced_files(&self) -> BTreeSet<String> {
        let state = self.state();
        let dirty = state.names.iter().filter(|(_, file)| state.dirty.contains(file));
        let mut names: BTreeSet<String> = dirty.map(|(name, _)| name.clone()).collect();
        for change in &state.unsynced_names {
            names.extend(match change {
                NameChange::Create(name, _) | NameChange::Remove(name) => [name.clone()],
                NameChange::Rename(_, to, _) => [to.clone()],
            });
        }
        names
    }

    /// The process that used the disk died: its lock is gone, and so is a fuse. What it wrote can
    /// be read, and is as durable as it was.
    pub fn process_died(&self) {
        let mut state = self.state();
        state.locked = false;
        state.fuse = None;
        state.lie = None;
    }

    /// Power is lost: of what was not synced, what `keeps` says yes to survives. Things are
    /// numbered from 0; names come first, in order, then the sectors of each file, latest first.
    pub fn lose_power(&self, mut keeps: impl FnMut(usize) -> bool) -> Loss {
        let mut state = self.state();
        let mut number = 0..;
        let mut keep = || number.next().is_some_and(&mut keeps);
        let mut loss = Loss::default();
        let mut names = std::mem::take(&mut state.synced_names);
        for change in std::mem::take(&mut state.unsynced_names) {
            if keep() {
                change.apply(&mut names);
            } else {
                loss.names_lost += 1;
            }
        }
        state.synced_names.clone_from(&names);
        state.names = names;
        for file in std::mem::take(&mut state.dirty) {
            state.forget_unpromised(file);
            state.files[file].lose_power(&mut keep, &mut loss);
        }
        // Of what was written over damage and not synced, some came through.
        let State { files, damages, .. } = &mut *state;
        damages.retain(|one| {
            let sector = files[one.file].bytes.get(one.offset..one.offset + SECTOR);
            sector == Some(&one.wrong)
        });
        state.locked = false;
        state.fuse = None;
        state.lie = None;
        loss
    }

    /// What would be found after a loss of power now; this disk stays as it is.
    pub fn after_power_loss(&self, keeps: impl FnMut(usize) -> bool) -> MemoryDisk {
        let copy = self.copy();
        copy.lose_power(keeps);
        copy
    }

    /// An independent disk with the same contents, that nobody uses and nobody has used.
    pub fn copy(&self) -> MemoryDisk {
        let contents = self.state().clone();
        let state = State { locked: false, fuse: None, operations: 0, syncs: 0, ..contents };
        MemoryDisk { state: Arc::new(Mutex::new(state)) }
    }

    /// All files by name, as they can be read now.
    pub fn files(&self) -> BTreeMap<String, Vec<u8>> {
        let state = self.state();
        let read =
            |(name, file): (&String, &usize)| (name.clone(), state.files[*file].bytes.clone());
        state.names.iter().map(read).collect()
    }

    /// A file, as it can be read now.
    pub fn read(&self, name: &str) -> Option<Vec<u8>> {
        let state = self.state();
        state.names.get(name).map(|file| state.files[*file].bytes.clone())
    }

    /// Gives a file these contents, durably, behind the back of whoever uses the disk.
    pub fn put(&self, name: &str, bytes: Vec<u8>) {
        let mut state = self.state();
        let file = state.files.len();
        state.files.push(File { synced_len: bytes.len(), bytes, ..File::default() });
        state.names.insert(name.into(), file);
        state.synced_names.insert(name.into(), file);
    }

    /// Removes a file, durably, behind the back of whoever uses the disk. Returns its contents.
    pub fn take(&self, name: &str) -> Option<Vec<u8>> {
        let mut state = self.state();
        state.synced_names.remove(name);
        let file = state.names.remove(name)?;
        Some(state.files[file].bytes.clone())
    }

    /// Changes a sector that is synced, durably, behind the back of whoever uses the disk, and
    /// remembers what it was. False, and nothing is changed, if there is no such sector.
    pub fn damage(&self, name: &str, offset: usize, sector: &[u8; SECTOR]) -> bool {
        let mut state = self.state();
        let Some(&file) = state.names.get(name) else { return false };
        state.damage(file, offset, sector)
    }

    /// Lets the next write that changes anything be done wrong, if it is one of the process that uses
    /// the disk now; `draw` decides where.
    pub fn set_lie(&self, lie: Lie, draw: u64) {
        let mut state = self.state();
        (state.lie, state.has_lied) = (Some((lie, draw)), false);
    }

    /// Whether a write was done wrong since this was last asked for, and the disk not repaired since.
    pub fn has_lied(&self) -> bool {
        self.state().has_lied
    }

    /// Whether nothing is damaged, and no write will be done wrong.
    pub fn is_sound(&self) -> bool {
        let state = self.state();
        state.damages.is_empty() && state.lie.is_none()
    }

    /// Whether a sector is damaged, and nothing was written there and synced since.
    pub fn is_damaged(&self) -> bool {
        !self.state().damages.is_empty()
    }

    /// Puts everything back that was damaged and not written since. What was written and not synced
    /// since stands above what is put back, and may be lost.
    pub fn repair(&self) {
        let mut state = self.state();
        for damage in std::mem::take(&mut state.damages).into_iter().rev() {
            state.files[damage.file].repair(&damage);
        }
        (state.lie, state.has_lied) = (None, false);
    }

    /// Leaves for good what was damaged.
    pub fn forget_damage(&self) {
        let mut state = self.state();
        state.damages.clear();
        state.has_lied = false;
    }

    /// Every operation leaves the state whole, so one that panicked elsewhere spoils nothing.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn len(&self) -> u64 {
        self.names.values().map(|file| self.files[*file].bytes.len() as u64).sum()
    }

    fn is_down(&self) -> bool {
        matches!(self.fuse, Some((fuse, Fault::PowerLoss)) if self.operations > fuse)
    }

    /// Begins an operation. `Ok(Some(..))`: it fails, and the caller decides with what effect.
    fn begin(&mut self) -> io::Result<Option<io::Error>> {
        if self.is_down() {
            return Err(io::Error::other("the machine is down"));
        }
        let at = self.operations;
        self.operations += 1;
        match self.fuse {
            Some((fuse, fault)) if at == fuse => Ok(Some(io::Error::other(match fault {
                Fault::PowerLoss => "power was lost",
                Fault::Error => "input/output error",
            }))),
            _ => Ok(None),
        }
    }

    fn damage(&mut self, file: usize, offset: usize, sector: &[u8]) -> bool {
        if !self.files[file].is_synced(offset) {
            return false;
        }
        let Some(old) = self.files[file].bytes.get_mut(offset..offset + SECTOR) else {
            return false;
        };
        let right = old.to_vec();
        old.copy_from_slice(sector);
        let (wrong, at) = (sector.to_vec(), self.operations);
        self.damages.push(Damage { file, offset, right, wrong, at });
        true
    }

    /// What was written over damage is about to be synced.
    fn forget_overwritten(&mut self, file: usize) {
        let State { files, damages, .. } = self;
        damages.retain(|one| one.file != file || files[file].unsynced_over(one).is_none());
    }

    /// What was not synced of a file is lost or dropped: nobody said that it was done, right or wrong.
    fn forget_unpromised(&mut self, file: usize) {
        let State { files, damages, .. } = self;
        let is_of = |write: &Write, one: &Damage| write.at == one.at && write.covers(one.offset);
        damages.retain(|one| {
            one.file != file || !files[file].unsynced.iter().any(|write| is_of(write, one))
        });
    }

    /// Does the last write of a file wrong, if the disk is to lie.
    fn do_wrong(&mut self, file: usize) {
        let Some((lie, draw)) = self.lie else { return };
        let File { bytes, unsynced, .. } = &mut self.files[file];
        let Some(write) = unsynced.last() else { return };
        let changed: Vec<usize> = write
            .sectors()
            .filter(|(offset, before)| bytes[*offset..*offset + before.len()] != **before)
            .map(|(offset, _)| offset)
            .collect();
        if changed.is_empty() {
            return;
        }
        let chosen = changed[draw as usize % changed.len()];
        let mut strayed = None;
        for (offset, before) in write.sectors() {
            let is_lost = changed.contains(&offset) && (lie == Lie::LosesAll || offset == chosen);
            if is_lost {
                let right = bytes[offset..offset + SECTOR].to_vec();
                bytes[offset..offset + SECTOR].copy_from_slice(before);
                strayed = Some(right.clone());
                let (wrong, at) = (before.to_vec(), self.operations);
                self.damages.push(Damage { file, offset, right, wrong, at });
            }
        }
        (self.lie, self.has_lied) = (None, true);
        if let Some(strayed) = strayed.filter(|_| lie == Lie::Misdirects) {
            let draw = (draw >> 16) as usize;
            let files: Vec<usize> = self.names.values().copied().collect();
            let file = files[draw % files.len()];
            let sectors = self.files[file].bytes.len() / SECTOR;
            let offset = (draw >> 16) % sectors.max(1) * SECTOR;
            // Where a write is under way it goes nowhere.
            self.damage(file, offset, &strayed);
        }
    }

    fn check_room(&self, more: usize) -> io::Result<()> {
        match self.room {
            Some(room) if self.len() + more as u64 > room => Err(io::ErrorKind::StorageFull.into()),
            _ => Ok(()),
        }
    }

    fn file(&self, name: &str) -> io::Result<usize> {
        self.names.get(name).copied().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn change_name(&mut self, change: NameChange) -> io::Result<()> {
        let failure = self.begin()?;
        change.apply(&mut self.names);
        self.unsynced_names.push(change);
        failure.map_or(Ok(()), Err)
    }
}

impl NameChange {
    fn apply(&self, names: &mut BTreeMap<String, usize>) {
        match self {
            NameChange::Create(name, file) => {
                names.insert(name.clone(), *file);
            }
            NameChange::Rename(from, to, file) => {
                if names.get(from) == Some(file) {
                    names.remove(from);
                }
                names.insert(to.clone(), *file);
            }
            NameChange::Remove(name) => {
                names.remove(name);
            }
        }
    }
}

impl File {
    fn write(&mut self, offset: usize, bytes: &[u8], at: usize) {
        let end = offset + bytes.len();
        if self.bytes.len() < end {
            self.bytes.resize(end, 0);
        }
        let before = self.bytes[offset..end].to_vec();
        self.bytes[offset..end].copy_from_slice(bytes);
        self.unsynced.push(Write { offset, before, at });
    }

    /// Whether a loss of power would not change this sector.
    fn is_synced(&self, offset: usize) -> bool {
        !self.dropped.contains_key(&offset)
            && !self.unsynced.iter().any(|write| write.covers(offset))
    }

    /// The first write after it to a damaged sector that is not synced.
    fn unsynced_over(&mut self, damage: &Damage) -> Option<&mut Write> {
        let is_over = |write: &&mut Write| write.at > damage.at && write.covers(damage.offset);
        self.unsynced.iter_mut().find(is_over)
    }

    fn repair(&mut self, damage: &Damage) {
        let offset = damage.offset;
        if let Some(write) = self.unsynced_over(damage) {
            let at = offset - write.offset;
            write.before[at..at + SECTOR].copy_from_slice(&damage.right);
        } else if let Some(below) = self.dropped.get_mut(&offset) {
            below.clone_from(&damage.right);
        } else if let Some(sector) = self.bytes.get_mut(offset..offset + SECTOR) {
            sector.copy_from_slice(&damage.right);
        }
    }

    fn sync(&mut self) {
        for write in self.unsynced.drain(..) {
            if !self.dropped.is_empty() {
                self.dropped.retain(|offset, _| !write.covers(*offset));
            }
        }
        self.synced_len = self.bytes.len();
    }

    /// A sync that failed: nothing of it is on the disk, and nobody will write it any more.
    fn drop_unsynced(&mut self) {
        for write in std::mem::take(&mut self.unsynced) {
            for (offset, before) in write.sectors() {
                self.dropped.entry(offset).or_insert_with(|| before.to_vec());
            }
        }
    }

    fn lose_power(&mut self, keep: &mut impl FnMut() -> bool, loss: &mut Loss) {
        let mut settled = BTreeSet::new();
        let mut len = self.synced_len;
        for write in std::mem::take(&mut self.unsynced).into_iter().rev() {
            for (offset, before) in write.sectors() {
                let end = offset + before.len();
                if keep() {
                    len = len.max(end);
                    loss.sectors_kept += usize::from(settled.insert(offset));
                } else if !settled.contains(&offset) {
                    self.bytes[offset..end].copy_from_slice(before);
                    loss.sectors_lost += 1;
                }
            }
        }
        for (offset, before) in std::mem::take(&mut self.dropped) {
            if !settled.contains(&offset) {
                self.bytes[offset..offset + before.len()].copy_from_slice(&before);
                loss.sectors_lost += 1;
            }
        }
        self.bytes.resize(len, 0);
        self.synced_len = len;
    }
}

impl Write {
    fn covers(&self, offset: usize) -> bool {
        (self.offset..self.offset + self.before.len()).contains(&offset)
    }

    /// Offset and former contents of each sector.
    fn sectors(&self) -> impl Iterator<Item = (usize, &[u8])> {
        (self.offset..).step_by(SECTOR).zip(self.before.chunks(SECTOR))
    }
}

/// The lock of a [`MemoryDisk`].
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
            return Err(io::ErrorKind::WouldBlock.into());
        }
        Ok(MemoryLock(self.clone()))
    }

    fn names(&self) -> io::Result<Vec<String>> {
        Ok(self.state().names.keys().cloned().collect())
    }

    fn create(&self, name: &str) -> io::Result<MemoryFile> {
        let mut state = self.state();
        state.check_room(1)?;
        let file = state.files.len();
        state.files.push(File::default());
        state.change_name(NameChange::Create(name.into(), file))?;
        Ok(MemoryFile { disk: self.clone(), file })
    }

    fn open(&self, name: &str) -> io::Result<MemoryFile> {
        let file = self.state().file(name)?;
        Ok(MemoryFile { disk: self.clone(), file })
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut state = self.state();
        let file = state.file(from)?;
        state.change_name(NameChange::Rename(from.into(), to.into(), file))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut state = self.state();
        state.file(name)?;
        state.change_name(NameChange::Remove(name.into()))
    }

    fn sync_directory(&self) -> io::Result<()> {
        let mut state = self.state();
        if let Some(failure) = state.begin()? {
            return Err(failure);
        }
        state.syncs += 1;
        state.synced_names = state.names.clone();
        state.unsynced_names.clear();
        Ok(())
    }

    fn unique_number(&self) -> io::Result<u64> {
        let mut state = self.state();
        // An odd step: the numbers of one disk repeat only after 2^64.
        let next = state.number.wrapping_add(0x9e37_79b9_7f4a_7c15);
        Ok(std::mem::replace(&mut state.number, next))
    }
}

/// An open file of a [`MemoryDisk`].
pub struct MemoryFile {
    disk: MemoryDisk,
    file: usize,
}

impl DiskFile for MemoryFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.disk.state().files[self.file].bytes.len() as u64)
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let state = self.disk.state();
        let range = offset as usize..offset as usize + buffer.len();
        let found = state.files[self.file].bytes.get(range);
        buffer.copy_from_slice(found.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        assert_eq!(offset as usize % SECTOR, 0, "writes begin at a sector");
        assert_eq!(bytes.len() % SECTOR, 0, "writes are whole sectors");
        let mut state = self.disk.state();
        let len = state.files[self.file].bytes.len();
        state.check_room((offset as usize + bytes.len()).saturating_sub(len))?;
        let failure = state.begin()?;
        let at = state.operations;
        state.files[self.file].write(offset as usize, bytes, at);
        if failure.is_none() {
            state.do_wrong(self.file);
        }
        state.dirty.insert(self.file);
        failure.map_or(Ok(()), Err)
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        let mut state = self.disk.state();
        let now = state.files[self.file].bytes.len();
        state.check_room((len as usize).saturating_sub(now))?;
        let failure = state.begin()?;
        state.files[self.file].bytes.resize(len as usize, 0);
        state.dirty.insert(self.file);
        failure.map_or(Ok(()), Err)
    }

    fn sync(&self) -> io::Result<()> {
        let mut state = self.disk.state();
        let failure = state.begin()?;
        match failure {
            None => {
                state.syncs += 1;
                state.forget_overwritten(self.file);
                state.files[self.file].sync();
                if state.files[self.file].dropped.is_empty() {
                    state.dirty.remove(&self.file);
                }
                Ok(())
            }
            Some(failure) => {
                // Without power there is no later sync: what was written is kept or lost then.
                if !state.is_down() {
                    state.forget_unpromised(self.file);
                    state.files[self.file].drop_unsynced();
                }
                Err(failure)
            }
        }
    }
}
