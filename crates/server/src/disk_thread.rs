//! The disk: one thread that owns the log. Whatever queued up during one sync is the next batch.

use crate::desk::Mail;
use raft::{Fetch, Persist};
use replica::{Input, Storage};
use std::io;
use std::sync::mpsc::Receiver;
use tokio::sync::mpsc::UnboundedSender;
use wal::Disk;

/// What the disk is asked to do.
pub enum Work {
    /// Make this durable.
    Persist(Persist),
    /// Read this back.
    Fetch(Fetch),
    /// Let go of the log. What was asked before is done.
    Stop,
}

/// Works until it is told to stop.
///
/// # Errors
/// The first failure of the disk. Whatever was asked for then must be taken as not done, and
/// nothing may be asked again.
pub fn run<D: Disk>(
    mut storage: Storage<D>,
    queue: &Receiver<Work>,
    inbox: &UnboundedSender<Mail>,
) -> io::Result<()> {
    while let Ok(first) = queue.recv() {
        let mut persists = Vec::new();
        let mut stop = false;
        for work in std::iter::once(first).chain(queue.try_iter()) {
            match work {
                Work::Persist(persist) => persists.push(persist),
                Work::Fetch(fetch) => {
                    let entries = storage.fetch(fetch)?;
                    let _ = inbox.send(Mail::Inputs(vec![Input::Fetched(fetch, entries)]));
                }
                Work::Stop => stop = true,
            }
        }
        if !persists.is_empty() {
            let done = storage.persist(persists)?;
            let _ = inbox.send(Mail::Persisted(done));
        }
        if stop {
            break;
        }
    }
    Ok(())
}
