//! The disk: one thread that owns the log. Whatever queued up during one sync is the next batch.

use crate::desk::Mail;
use raft::{Fetch, Persist};
use replica::{Input, Storage};
use std::io;
use std::sync::mpsc::{Receiver, Sender};
use tokio::sync::mpsc::UnboundedSender;
use wal::{Disk, Prepared};

/// What the disk is asked to do.
pub enum Work<D: Disk> {
    /// Make this durable.
    Persist(Persist),
    /// Read this back.
    Fetch(Fetch),
    /// A segment is ready to be used.
    Prepared(Prepared<D>),
    /// Let go of the log. What was asked before is done.
    Stop,
}

/// Where the disk's results go.
pub struct Results<D: Disk> {
    /// The node.
    pub inbox: UnboundedSender<Mail>,
    /// The disk itself, for segments that another thread prepares.
    pub work: Sender<Work<D>>,
}

/// Works until it is told to stop.
///
/// # Errors
/// The first failure of the disk. Whatever was asked for then must be taken as not done, and
/// nothing may be asked again.
pub fn run<D: Disk>(
    mut storage: Storage<D>,
    queue: &Receiver<Work<D>>,
    results: &Results<D>,
) -> io::Result<()> {
    let mut preparing = false;
    while let Ok(first) = queue.recv() {
        // Threads that are ready to run go first: what they bring shares the sync. Where a core is
        // free this costs nothing.
        std::thread::yield_now();
        let mut persists = Vec::new();
        let mut stop = false;
        for work in std::iter::once(first).chain(queue.try_iter()) {
            match work {
                Work::Persist(persist) => persists.push(persist),
                Work::Fetch(fetch) => {
                    let entries = storage.fetch(fetch)?;
                    let _ = results.inbox.send(Mail::Inputs(vec![Input::Fetched(fetch, entries)]));
                }
                Work::Prepared(segment) => {
                    storage.adopt(segment);
                    preparing = false;
                }
                Work::Stop => stop = true,
            }
        }
        if !persists.is_empty() {
            let done = storage.persist(persists)?;
            let _ = results.inbox.send(Mail::Persisted(done));
        }
        if stop {
            break;
        }
        if !preparing && let Some(preparation) = storage.wants_segment() {
            preparing = true;
            let work = results.work.clone();
            std::thread::Builder::new().name("prepare".to_owned()).spawn(
                move || match preparation.run() {
                    Ok(segment) => {
                        let _ = work.send(Work::Prepared(segment));
                    }
                    Err(error) => crate::fatal(&format!("cannot prepare a log segment: {error}")),
                },
            )?;
        }
    }
    Ok(())
}
