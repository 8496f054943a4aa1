//! What one client's connection may make the member hold: answers that the socket has not taken, and
//! requests that have not come in whole.
//!
//! A client that does not read keeps its answers in our memory. So answers are counted from their
//! encoding until the socket has taken them, for each connection and for all. Beyond its budget a
//! connection's calls wait; they go on as the client takes what it asked for. A client that takes
//! nothing at all for a while loses its connection.

use crate::readers::Readers;
use bytes::Bytes;
use futures_util::task::AtomicWaker;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;
use tokio::sync::Semaphore;

/// Answers of one connection that the socket has not taken hold at most so many bytes, and one answer
/// more; further calls wait. Some round trips' worth of a fast network.
const UNSENT_BYTES_MAX: usize = 16 << 20;
/// The same while those of all connections are at their bound: enough to go on with small answers.
const UNSENT_BYTES_MIN: usize = 256 << 10;
/// Answers of all connections that the sockets have not taken hold at most so many bytes; beyond,
/// long reads are refused, and each connection has the smaller budget. Twice the largest answer.
const ALL_UNSENT_BYTES_MAX: usize = 1 << 30;
/// What an answer costs beside its bytes: its stream, head and trailers.
const ANSWER_OVERHEAD_BYTES: usize = 1 << 10;

/// Requests of one connection that have come in part hold at most so many bytes.
const ARRIVING_BYTES_MAX: usize = 64 << 20;
/// The same for all connections.
const ALL_ARRIVING_BYTES_MAX: usize = 512 << 20;

/// Ranges that are streamed and cannot be read page by page: their keys are all found, some hundred
/// bytes each, before the first is sent.
const WHOLE_STREAMS_MAX: usize = 8;

/// What the connections of all clients share.
pub struct Edge {
    /// Threads for what takes long.
    pub readers: Readers,
    /// Permits for ranges that are found as a whole before they are streamed.
    pub whole_streams: Semaphore,
    unsent: AtomicUsize,
    arriving: AtomicUsize,
}

impl Edge {
    /// Nothing is held yet.
    pub fn new(readers: Readers) -> Arc<Edge> {
        Arc::new(Edge {
            readers,
            whole_streams: Semaphore::new(WHOLE_STREAMS_MAX),
            unsent: AtomicUsize::new(0),
            arriving: AtomicUsize::new(0),
        })
    }
}

impl Edge {
    /// Whether an answer of so many bytes is within the bound of all.
    pub fn has_room_for(&self, bytes: usize) -> bool {
        self.unsent.load(Ordering::Relaxed) + bytes <= ALL_UNSENT_BYTES_MAX
    }
}

/// What goes on once there is room.
type Act = Box<dyn FnOnce() + Send>;

/// The account of one connection. It is used on the connection's thread; reader threads only charge it.
pub struct ClientConnection {
    /// What it shares with others.
    pub edge: Arc<Edge>,
    unsent: AtomicUsize,
    arriving: AtomicUsize,
    /// Calls that wait for room, in order. Taken for a move only; nothing runs under it.
    waiting: Mutex<Waiting>,
    /// Whether there is anything in `waiting`.
    is_waited_for: AtomicBool,
    /// Whether the connection's task is to be woken by whoever makes room.
    wants_room: AtomicBool,
    task: AtomicWaker,
}

#[derive(Default)]
struct Waiting {
    acts: VecDeque<Act>,
    is_closed: bool,
}

impl ClientConnection {
    /// The account of a new connection.
    pub fn new(edge: Arc<Edge>) -> Arc<ClientConnection> {
        Arc::new(ClientConnection {
            edge,
            unsent: AtomicUsize::new(0),
            arriving: AtomicUsize::new(0),
            waiting: Mutex::default(),
            is_waited_for: AtomicBool::new(false),
            wants_room: AtomicBool::new(false),
            task: AtomicWaker::new(),
        })
    }

    /// Whether the connection may have one more answer.
    pub fn has_room(&self) -> bool {
        let unsent = self.unsent.load(Ordering::SeqCst);
        unsent < UNSENT_BYTES_MIN
            || unsent < UNSENT_BYTES_MAX
                && self.edge.unsent.load(Ordering::Relaxed) < ALL_UNSENT_BYTES_MAX
    }

    /// Bytes of answers that the socket has not taken.
    pub fn unsent(&self) -> usize {
        self.unsent.load(Ordering::Relaxed)
    }

    /// Does something now, if there is room for an answer; otherwise after those who wait already.
    pub fn when_room(&self, act: impl FnOnce() + Send + 'static) {
        if self.has_room() && !self.is_waited_for.load(Ordering::Relaxed) {
            return act();
        }
        let mut waiting = self.lock();
        if !waiting.is_closed {
            self.is_waited_for.store(true, Ordering::Relaxed);
            waiting.acts.push_back(Box::new(act));
        }
    }

    /// Who waits for room goes on, if there is some.
    pub fn go_on(&self) {
        while self.is_waited_for.load(Ordering::Relaxed) && self.has_room() {
            let act = self.lock().acts.pop_front();
            match act {
                Some(act) => act(),
                None => self.is_waited_for.store(false, Ordering::Relaxed),
            }
        }
    }

    /// Whether somebody waits for room.
    pub fn is_waited_for(&self) -> bool {
        self.is_waited_for.load(Ordering::Relaxed)
    }

    /// Wakes this task when there may be room. Look once more after this.
    pub fn wake_when_room(&self, task: &Waker) {
        self.task.register(task);
        self.wants_room.store(true, Ordering::SeqCst);
    }

    /// Counts so many bytes less of answers.
    fn release(&self, bytes: usize) {
        self.unsent.fetch_sub(bytes, Ordering::SeqCst);
        self.edge.unsent.fetch_sub(bytes, Ordering::Relaxed);
        if self.wants_room.load(Ordering::SeqCst) && self.has_room() {
            self.wants_room.store(false, Ordering::Relaxed);
            self.task.wake();
        }
    }

    /// The connection has ended: nobody waits any more.
    pub fn close(&self) {
        let acts = {
            let mut waiting = self.lock();
            waiting.is_closed = true;
            std::mem::take(&mut waiting.acts)
        };
        drop(acts);
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts an answer of so many bytes, whether there is room for it or not.
    pub fn charge(self: &Arc<Self>, bytes: usize) -> Charge {
        let bytes = bytes + ANSWER_OVERHEAD_BYTES;
        self.unsent.fetch_add(bytes, Ordering::Relaxed);
        self.edge.unsent.fetch_add(bytes, Ordering::Relaxed);
        Charge { connection: Arc::clone(self), bytes }
    }

    /// Counts so many bytes of a request that has come in part, unless that is too much.
    pub fn charge_arriving(self: &Arc<Self>, bytes: usize) -> Option<ArrivingCharge> {
        let mut charge = ArrivingCharge { connection: Arc::clone(self), bytes: 0 };
        charge.add(bytes).then_some(charge)
    }
}

/// Bytes of an answer that count until this is dropped.
pub struct Charge {
    connection: Arc<ClientConnection>,
    bytes: usize,
}

impl Charge {
    /// Counts so many bytes in all, unless that is too much for all connections together. Less than
    /// before is never too much.
    pub fn resize(&mut self, bytes: usize) -> bool {
        let bytes = bytes + ANSWER_OVERHEAD_BYTES;
        if let Some(less) = self.bytes.checked_sub(bytes) {
            self.connection.release(less);
        } else {
            let (own, all) = (&self.connection.unsent, &self.connection.edge.unsent);
            let more = bytes - self.bytes;
            if all.fetch_add(more, Ordering::Relaxed) + more > ALL_UNSENT_BYTES_MAX {
                all.fetch_sub(more, Ordering::Relaxed);
                return false;
            }
            own.fetch_add(more, Ordering::Relaxed);
        }
        self.bytes = bytes;
        true
    }

    /// The bytes of an answer, which are counted until the last of them is dropped.
    pub fn hold(self, bytes: impl AsRef<[u8]> + Send + 'static) -> Bytes {
        Bytes::from_owner(Held { bytes, _charge: self })
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.connection.release(self.bytes);
    }
}

struct Held<B> {
    bytes: B,
    _charge: Charge,
}

impl<B: AsRef<[u8]>> AsRef<[u8]> for Held<B> {
    fn as_ref(&self) -> &[u8] {
        self.bytes.as_ref()
    }
}

/// Bytes of a request that count until this is dropped.
pub struct ArrivingCharge {
    connection: Arc<ClientConnection>,
    bytes: usize,
}

impl ArrivingCharge {
    /// Counts so many bytes more. False if that is too much.
    pub fn add(&mut self, bytes: usize) -> bool {
        self.bytes += bytes;
        let own = self.connection.arriving.fetch_add(bytes, Ordering::Relaxed) + bytes;
        let all = self.connection.edge.arriving.fetch_add(bytes, Ordering::Relaxed) + bytes;
        own <= ARRIVING_BYTES_MAX && all <= ALL_ARRIVING_BYTES_MAX
    }
}

impl Drop for ArrivingCharge {
    fn drop(&mut self) {
        self.connection.arriving.fetch_sub(self.bytes, Ordering::Relaxed);
        self.connection.edge.arriving.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn edge() -> Arc<Edge> {
        Edge::new(Readers::start().unwrap())
    }

    #[test]
    fn calls_wait_in_order_until_answers_are_taken() {
        let connection = ClientConnection::new(edge());
        let done: Arc<Mutex<Vec<u32>>> = Arc::default();
        let note = |n: u32| {
            let done = Arc::clone(&done);
            move || done.lock().unwrap().push(n)
        };
        connection.when_room(note(1));
        let large = connection.charge(UNSENT_BYTES_MAX).hold(vec![7; 3]);
        connection.when_room(note(2));
        connection.when_room(note(3));
        connection.go_on();
        assert_eq!(*done.lock().unwrap(), [1]);
        let part = large.slice(1..2);
        drop(large);
        assert!(!connection.has_room(), "a part of the answer is still there");
        drop(part);
        connection.when_room(note(4));
        connection.go_on();
        assert_eq!(*done.lock().unwrap(), [1, 2, 3, 4]);
        assert!(!connection.is_waited_for());
        assert_eq!((connection.unsent(), connection.edge.unsent.load(Ordering::Relaxed)), (0, 0));
    }

    #[test]
    fn all_connections_together_have_a_bound_and_small_answers_go_on() {
        let edge = edge();
        let greedy = ClientConnection::new(Arc::clone(&edge));
        let other = ClientConnection::new(Arc::clone(&edge));
        let mut charge = greedy.charge(0);
        assert!(charge.resize(ALL_UNSENT_BYTES_MAX - ANSWER_OVERHEAD_BYTES));
        assert!(!greedy.has_room());
        assert!(other.has_room());
        let mut small = other.charge(UNSENT_BYTES_MIN);
        assert!(!other.has_room());
        assert!(!small.resize(UNSENT_BYTES_MIN + 1));
        assert!(small.resize(1));
        assert!(other.has_room());
        drop((charge, small));
        assert_eq!(edge.unsent.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn who_waits_on_a_closed_connection_is_dropped() {
        let connection = ClientConnection::new(edge());
        let _held = connection.charge(UNSENT_BYTES_MAX);
        let held = Arc::clone(&connection);
        connection.when_room(move || drop(held));
        connection.close();
        let held = Arc::clone(&connection);
        connection.when_room(move || drop(held));
        assert_eq!(Arc::strong_count(&connection), 2, "this one, and the charge's");
    }

    #[test]
    fn requests_on_their_way_are_bounded() {
        let connection = ClientConnection::new(edge());
        let most = connection.charge_arriving(ARRIVING_BYTES_MAX);
        assert!(most.is_some());
        assert!(connection.charge_arriving(1).is_none());
        drop(most);
        assert!(connection.charge_arriving(1).is_some());
        assert_eq!(connection.edge.arriving.load(Ordering::Relaxed), 0);
    }
}
