//! The disk's loops: what is written as one batch, and what is read back meanwhile.
//!
//! There are two, and neither waits for the other: a read that is slow, or hangs, delays the peer
//! that it is for, and no commit. A driver gives each a thread, or a place on its agenda, of its
//! own. They share the log: a [`DiskWriter`] appends to it, a [`DiskReader`] reads what is durable.
//!
//! No order is needed between them. What is read is checked by the consensus core against what its
//! log holds by then, so an answer that comes late, or was read before its entries were replaced,
//! is ignored.

use crate::storage::{Persisted, Storage, entry};
use raft::{Entry, Fetch, FetchFor, Persist};
use std::collections::VecDeque;
use std::io;
use wal::Disk;

/// The loop that writes: whatever is asked for during one sync is the next batch.
pub struct DiskWriter<D: Disk> {
    storage: Storage<D>,
    /// Asked for and not begun, in order. Bounded by what the member admits, not here.
    waiting: Vec<Persist>,
    /// The batch under way.
    batch: Vec<Persist>,
}

impl<D: Disk> DiskWriter<D> {
    /// A writer to this log with nothing to do.
    pub fn new(storage: Storage<D>) -> DiskWriter<D> {
        DiskWriter { storage, waiting: Vec::new(), batch: Vec::new() }
    }

    /// Asks for a write. Writes take effect in the order in which they are asked for.
    pub fn push(&mut self, persist: Persist) {
        self.waiting.push(persist);
    }

    /// Begins the next batch with all that waits. False if nothing waits, or a batch is under way.
    pub fn begin(&mut self) -> bool {
        if !self.batch.is_empty() || self.waiting.is_empty() {
            return false;
        }
        std::mem::swap(&mut self.batch, &mut self.waiting);
        true
    }

    /// Carries out the batch that was begun: one write, one sync.
    ///
    /// # Errors
    /// The first one ends the member: what is on the disk is not known any more.
    ///
    /// # Panics
    /// If no batch was begun.
    pub fn finish(&mut self) -> io::Result<Persisted> {
        self.storage.persist(self.batch.drain(..))
    }

    /// The log that is written to.
    pub fn storage(&self) -> &Storage<D> {
        &self.storage
    }
}

/// The loop that reads entries back, one request after the other.
///
/// At most one request for each purpose waits here, whatever is asked for: of two for the same peer
/// the core wants the later one, for it starts anew with a peer whose connection broke, and takes
/// no answer to what it asked before.
pub struct DiskReader<D: Disk> {
    log: wal::Reader<D>,
    waiting: VecDeque<Fetch>,
}

impl<D: Disk> DiskReader<D> {
    pub(crate) fn new(log: wal::Reader<D>) -> DiskReader<D> {
        DiskReader { log, waiting: VecDeque::new() }
    }

    /// Asks for entries, in place of what waits for the same purpose.
    pub fn push(&mut self, fetch: Fetch) {
        match self.waiting.iter_mut().find(|waiting| waiting.purpose == fetch.purpose) {
            Some(waiting) => *waiting = fetch,
            None => self.waiting.push_back(fetch),
        }
    }

    /// Takes the request that has waited longest; [`fetch`](DiskReader::fetch) carries it out.
    pub fn begin(&mut self) -> Option<Fetch> {
        self.waiting.pop_front()
    }

    /// Reads entries back. Those for a peer may have been cut off since they were asked for, when
    /// a new leader's log is shorter; then there are none.
    ///
    /// # Errors
    /// When the disk does not give back what it was given, or has failed before. It ends the
    /// member: what is committed must be there.
    pub fn fetch(&self, fetch: Fetch) -> io::Result<Vec<Entry>> {
        let Fetch { purpose, from, to, bytes_max } = fetch;
        match self.log.read(from.0, to.0, bytes_max) {
            Err(error) if error.kind() == io::ErrorKind::NotFound && purpose != FetchFor::Apply => {
                Ok(Vec::new())
            }
            read => read?.into_iter().map(entry).collect(),
        }
    }

    /// Whether a write has failed. Then nothing can be read, and the writer knows why.
    pub fn log_has_failed(&self) -> bool {
        self.log.has_failed()
    }
}
