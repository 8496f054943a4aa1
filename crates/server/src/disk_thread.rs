//! The disk: one thread that writes the log, and one that reads entries back from it, so that a slow
//! read delays the peer that it is for, and no commit.

use crate::desk::Mail;
use raft::{Fetch, Persist};
use replica::{DiskReader, DiskWriter, Input, Storage};
use std::io;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use tokio::sync::mpsc::UnboundedSender;
use wal::Disk;

/// What the disk is asked to do.
pub enum Work {
    /// Make this durable.
    Persist(Persist),
    /// Read this back.
    Fetch(Fetch),
    /// Let go of the log. Writes that were asked for before are done; reads are not.
    Stop,
}

/// Asks the disk's threads for work. A clone is another handle.
#[derive(Clone)]
pub struct DiskHandle {
    /// `None` ends the thread.
    persists: Sender<Option<Persist>>,
    /// `None` ends the thread.
    fetches: Sender<Option<Fetch>>,
}

impl DiskHandle {
    /// Gives the work to its thread. The threads end only when told to, or with the process.
    pub fn send(&self, work: Work) {
        match work {
            Work::Persist(persist) => drop(self.persists.send(Some(persist))),
            Work::Fetch(fetch) => drop(self.fetches.send(Some(fetch))),
            Work::Stop => {
                let _ = self.persists.send(None);
                let _ = self.fetches.send(None);
            }
        }
    }
}

/// Starts both threads. The one that is returned owns the log, and lets go of it when it ends.
/// `fail` is called by the one that meets the first failure of the disk: whatever was asked for then
/// must be taken as not done, and nothing may be asked again.
///
/// # Errors
/// When the system gives no thread.
pub fn start<D: Disk>(
    storage: Storage<D>,
    inbox: &UnboundedSender<Mail>,
    fail: fn(io::Error),
) -> io::Result<(DiskHandle, JoinHandle<()>)> {
    let (persists, persist_queue) = channel();
    let (fetches, fetch_queue) = channel();
    let reader = storage.reader();
    let reads = inbox.clone();
    std::thread::Builder::new()
        .name("fetch".to_owned())
        .spawn(move || read(reader, &fetch_queue, &reads).unwrap_or_else(fail))?;
    let writer = DiskWriter::new(storage);
    let writes = inbox.clone();
    let disk = std::thread::Builder::new()
        .name("disk".to_owned())
        .spawn(move || write(writer, &persist_queue, &writes).unwrap_or_else(fail))?;
    Ok((DiskHandle { persists, fetches }, disk))
}

fn write<D: Disk>(
    mut writer: DiskWriter<D>,
    queue: &Receiver<Option<Persist>>,
    inbox: &UnboundedSender<Mail>,
) -> io::Result<()> {
    let mut stop = false;
    while !stop && let Ok(first) = queue.recv() {
        for persist in std::iter::once(first).chain(queue.try_iter()) {
            match persist {
                Some(persist) => writer.push(persist),
                None => stop = true,
            }
        }
        if writer.begin() {
            let _ = inbox.send(Mail::Persisted(writer.finish()?));
        }
    }
    Ok(())
}

fn read<D: Disk>(
    mut reader: DiskReader<D>,
    queue: &Receiver<Option<Fetch>>,
    inbox: &UnboundedSender<Mail>,
) -> io::Result<()> {
    while let Some(fetch) = next_fetch(&mut reader, queue) {
        match reader.fetch(fetch) {
            Ok(entries) => {
                let _ = inbox.send(Mail::Inputs(vec![Input::Fetched(fetch, entries)]));
            }
            // The thread that writes says why.
            Err(_) if reader.log_has_failed() => break,
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Waits for something to read. `None` when there will be nothing more.
fn next_fetch<D: Disk>(
    reader: &mut DiskReader<D>,
    queue: &Receiver<Option<Fetch>>,
) -> Option<Fetch> {
    loop {
        for fetch in queue.try_iter() {
            reader.push(fetch?);
        }
        if let Some(fetch) = reader.begin() {
            return Some(fetch);
        }
        reader.push(queue.recv().ok()??);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use raft::{Entry, EntryKind, FetchFor, HardState, Index, NodeId, Position, Term, Ticket};
    use std::sync::{Arc, Condvar, Mutex};
    use std::time::{Duration, Instant};
    use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
    use wal::{DiskFile, Fault, Identity, MemoryDisk, MemoryFile, MemoryLock, Options};

    /// A disk whose reads hang while the gate is shut.
    #[derive(Clone, Default)]
    struct HangingDisk {
        disk: MemoryDisk,
        gate: Arc<Gate>,
    }

    #[derive(Default)]
    struct Gate {
        /// Taken for a moment; the condition is told of each change.
        is_shut: Mutex<bool>,
        changed: Condvar,
    }

    struct HangingFile {
        file: MemoryFile,
        gate: Arc<Gate>,
    }

    impl Gate {
        fn shut(&self, shut: bool) {
            *self.is_shut.lock().unwrap() = shut;
            self.changed.notify_all();
        }

        fn pass(&self) {
            drop(self.changed.wait_while(self.is_shut.lock().unwrap(), |shut| *shut).unwrap());
        }
    }

    impl HangingDisk {
        fn file(&self, file: MemoryFile) -> HangingFile {
            HangingFile { file, gate: Arc::clone(&self.gate) }
        }
    }

    impl Disk for HangingDisk {
        type File = HangingFile;
        type Lock = MemoryLock;

        fn lock(&self) -> io::Result<MemoryLock> {
            self.disk.lock()
        }

        fn names(&self) -> io::Result<Vec<String>> {
            self.disk.names()
        }

        fn create(&self, name: &str) -> io::Result<HangingFile> {
            Ok(self.file(self.disk.create(name)?))
        }

        fn open(&self, name: &str) -> io::Result<HangingFile> {
            Ok(self.file(self.disk.open(name)?))
        }

        fn rename(&self, from: &str, to: &str) -> io::Result<()> {
            self.disk.rename(from, to)
        }

        fn remove(&self, name: &str) -> io::Result<()> {
            self.disk.remove(name)
        }

        fn sync_directory(&self) -> io::Result<()> {
            self.disk.sync_directory()
        }

        fn unique_number(&self) -> io::Result<u64> {
            self.disk.unique_number()
        }
    }

    impl DiskFile for HangingFile {
        fn len(&self) -> io::Result<u64> {
            self.file.len()
        }

        fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
            self.gate.pass();
            self.file.read_at(buffer, offset)
        }

        fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
            self.file.write_at(bytes, offset)
        }

        fn allocate(&self, len: u64) -> io::Result<()> {
            self.file.allocate(len)
        }

        fn sync(&self) -> io::Result<()> {
            self.file.sync()
        }
    }

    const FETCH: Fetch = Fetch {
        purpose: FetchFor::Peer(NodeId(3)),
        from: Index(1),
        to: Index(1),
        bytes_max: 1 << 20,
    };

    fn persist(ticket: u64) -> Persist {
        let entry = Entry {
            at: Position::new(Term(1), Index(ticket)),
            kind: EntryKind::Command,
            payload: Bytes::from_static(b"an entry"),
        };
        Persist {
            ticket: Ticket(ticket),
            hard_state: (ticket == 1).then_some(HardState { term: Term(1), vote: None }),
            entries: vec![entry],
            commit: Index(0),
            then_send: Vec::new(),
        }
    }

    fn open(disk: HangingDisk, fail: fn(io::Error)) -> (DiskHandle, UnboundedReceiver<Mail>) {
        let identity = Identity { cluster: 1, member: 2 };
        let started = Storage::start(disk, identity, Options::default(), 1).unwrap();
        let (inbox, mail) = unbounded_channel();
        let (disk, _) = start(started.storage, &inbox, fail).unwrap();
        (disk, mail)
    }

    /// Waits until there is something. It comes at once, unless a thread waits for what it must not.
    fn wait<T>(mut ready: impl FnMut() -> Option<T>) -> T {
        let deadline = Instant::now() + Duration::from_secs(10);
        loop {
            if let Some(found) = ready() {
                return found;
            }
            assert!(Instant::now() < deadline, "the disk's threads do nothing");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// What the disk says next.
    fn next(mail: &mut UnboundedReceiver<Mail>) -> String {
        match wait(|| mail.try_recv().ok()) {
            Mail::Persisted(persisted) => format!("{:?}", persisted.ticket),
            Mail::Inputs(inputs) => match &inputs[..] {
                [Input::Fetched(fetch, entries)] => {
                    format!("{:?}: {} entries", fetch.purpose, entries.len())
                }
                other => panic!("{other:?}"),
            },
            _ => panic!("the disk sends something else"),
        }
    }

    #[test]
    fn writes_go_on_while_a_read_hangs() {
        let disk = HangingDisk::default();
        let (work, mut mail) = open(disk.clone(), |error| panic!("{error}"));
        work.send(Work::Persist(persist(1)));
        assert_eq!(next(&mut mail), "Ticket(1)");
        disk.gate.shut(true);
        work.send(Work::Fetch(FETCH));
        for ticket in 2..100 {
            work.send(Work::Persist(persist(ticket)));
            assert_eq!(next(&mut mail), format!("Ticket({ticket})"));
        }
        disk.gate.shut(false);
        assert_eq!(next(&mut mail), "Peer(NodeId(3)): 1 entries");
    }

    #[test]
    fn a_write_that_fails_is_told_by_the_writer_alone() {
        static TOLD: Mutex<Vec<String>> = Mutex::new(Vec::new());
        let disk = HangingDisk::default();
        let (work, mut mail) =
            open(disk.clone(), |error| TOLD.lock().unwrap().push(error.to_string()));
        work.send(Work::Persist(persist(1)));
        assert_eq!(next(&mut mail), "Ticket(1)");
        disk.disk.set_fuse(0, Fault::Error);
        work.send(Work::Persist(persist(2)));
        wait(|| work.persists.send(Some(persist(3))).err());
        wait(|| work.fetches.send(Some(FETCH)).err());
        assert_eq!(*TOLD.lock().unwrap(), ["input/output error"]);
        assert!(mail.try_recv().is_err(), "nothing more is reported done");
    }

    #[test]
    fn what_has_rotted_ends_the_member() {
        static TOLD: Mutex<Vec<String>> = Mutex::new(Vec::new());
        let disk = HangingDisk::default();
        let (work, mut mail) =
            open(disk.clone(), |error| TOLD.lock().unwrap().push(error.to_string()));
        work.send(Work::Persist(persist(1)));
        assert_eq!(next(&mut mail), "Ticket(1)");
        let segment = disk.disk.open("0000000000000001.wal").unwrap();
        segment.write_at(&[0xa5; 512], 4096).unwrap();
        work.send(Work::Fetch(FETCH));
        wait(|| work.fetches.send(Some(FETCH)).err());
        let told = TOLD.lock().unwrap().join("; ");
        assert!(told.starts_with("0000000000000001.wal at offset 4096"), "{told}");
        work.send(Work::Persist(persist(2)));
        assert_eq!(next(&mut mail), "Ticket(2)", "the log itself is sound");
    }
}
