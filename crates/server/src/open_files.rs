//! Open files: how many the system allows this process, and how many of them may be connections.
//!
//! A connection is an open file like any other, and a member that cannot open its next segment has to
//! end. So connections are counted, and beyond what the member itself may need none is kept.

use crate::accept::{Door, Visitors};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::net::TcpListener;

/// Files that are kept free for what the member opens while it serves: the next segment, checkpoints
/// and files of the log (at most two handles each), and the connections below.
const RESERVE: usize = 48 + PEER_STRANGERS_MAX + PAGES_MAX + TURNED_AWAY_MAX;
/// Connections on the peer port beyond two for each member: strangers, and streams that are about to
/// be replaced.
const PEER_STRANGERS_MAX: usize = 32;
/// Connections on ports that serve only health and version.
const PAGES_MAX: usize = 32;
/// Connections beyond the limit that are told so at the same time; more are closed without a word.
const TURNED_AWAY_MAX: usize = 16;
/// With room for fewer clients than this there is no point in starting.
const CLIENTS_MIN: usize = 16;
/// Files of a thread that has a runtime: its poll, its waker, its share of the signals' pipe.
const FILES_PER_RUNTIME: usize = 4;
/// Runtimes beside those of the network threads: the main thread's, the node's, the signals'.
const OTHER_RUNTIMES: usize = 3;
/// Files of a data directory that is open: four copies of META, lock, directory, two segments.
const DATA_FILES: usize = 16;

/// Raises the limit of open files as far as the system lets this process.
pub fn raise_limit() {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current != maximum {
        // What cannot be raised is worked with, or found too low, like any other limit.
        let _ = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
    }
}

/// How the files that this process may open are shared out.
#[derive(Clone)]
pub struct Shares {
    /// Connections of clients.
    clients: Arc<ConnectionLimit>,
    /// Connections on ports that serve only pages.
    pages: Arc<ConnectionLimit>,
    /// Connections on the peer port.
    peers: Arc<ConnectionLimit>,
    /// Connections that are told that there are too many.
    turned_away: Arc<ConnectionLimit>,
}

/// The limit of open files is too low for a member.
#[derive(Debug)]
pub struct TooFew {
    /// What the system allows.
    pub limit: u64,
    /// What this member needs to serve a few clients.
    pub needed: usize,
}

impl Shares {
    /// Shares out what the system allows, for a member with so many network threads in a cluster
    /// of so many members. What is open now stays open.
    ///
    /// # Errors
    /// When that is not enough for a few clients.
    pub fn new(network_threads: usize, members: usize) -> Result<Shares, TooFew> {
        let own = open_now()
            + FILES_PER_RUNTIME * (network_threads + OTHER_RUNTIMES)
            + DATA_FILES
            + 2 * members;
        let limit = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
        let needed = own + RESERVE + CLIENTS_MIN;
        let allowed = usize::try_from(limit).unwrap_or(usize::MAX);
        if allowed < needed {
            return Err(TooFew { limit, needed });
        }
        Ok(Shares {
            clients: ConnectionLimit::new(allowed - own - RESERVE),
            pages: ConnectionLimit::new(PAGES_MAX),
            peers: ConnectionLimit::new(2 * members + PEER_STRANGERS_MAX),
            turned_away: ConnectionLimit::new(TURNED_AWAY_MAX),
        })
    }

    /// The door of a port for clients.
    pub fn door_of_clients(&self, listener: TcpListener) -> Door {
        Door::new(listener, Visitors::Clients, &self.clients, &self.turned_away)
    }

    /// The door of a port that serves only pages.
    pub fn door_of_pages(&self, listener: TcpListener) -> Door {
        Door::new(listener, Visitors::Pages, &self.pages, &self.turned_away)
    }

    /// The door of the peer port.
    pub fn door_of_peers(&self, listener: TcpListener) -> Door {
        Door::new(listener, Visitors::Peers, &self.peers, &self.turned_away)
    }
}

/// How many files this process has open; a guess where the system does not say.
fn open_now() -> usize {
    std::fs::read_dir("/dev/fd").map_or(16, Iterator::count)
}

/// So many connections at the same time.
pub struct ConnectionLimit {
    open: AtomicUsize,
    max: usize,
}

impl ConnectionLimit {
    /// At most `max`.
    pub fn new(max: usize) -> Arc<ConnectionLimit> {
        Arc::new(ConnectionLimit { open: AtomicUsize::new(0), max })
    }

    /// How many there may be.
    pub fn max(&self) -> usize {
        self.max
    }

    /// A place for one more connection, if there is one.
    pub fn take(self: &Arc<Self>) -> Option<Place> {
        let next = |open| (open < self.max).then_some(open + 1);
        self.open.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next).ok()?;
        Some(Place(Arc::clone(self)))
    }
}

/// The place of one connection; free again when dropped.
pub struct Place(Arc<ConnectionLimit>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_counted_and_come_back() {
        let limit = ConnectionLimit::new(2);
        let (first, second) = (limit.take(), limit.take());
        assert!(first.is_some() && second.is_some() && limit.take().is_none());
        drop(first);
        assert!(limit.take().is_some());
    }

    #[test]
    fn clients_get_what_the_member_does_not_need() {
        let shares = Shares::new(1, 3).unwrap_or_else(|few| panic!("{few:?}"));
        let limit = getrlimit(Resource::Nofile).current.unwrap();
        assert!(shares.clients.max() as u64 + RESERVE as u64 + 40 < limit);
    }
}
