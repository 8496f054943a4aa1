//! The queues of messages to the peers.
//!
//! They are bounded in bytes: a peer that does not keep up loses messages, it never slows the node.

use super::frames::FRAME_BYTES;
use crate::wire;
use raft::NodeId;
use replica::PeerMessage;
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

/// Messages that wait for one peer hold at most so many bytes; the newest are dropped.
const QUEUE_BYTES_MAX: usize = 64 << 20;

/// The queues to all peers. The node fills them, and the streams beside it on its thread empty them.
pub struct Outgoing {
    peers: BTreeMap<NodeId, Peer>,
}

struct Peer {
    /// Taken for a few moves of memory, by the node's thread, and by the main thread when it counts;
    /// nobody waits while holding it.
    queue: Mutex<Queue>,
}

#[derive(Default)]
struct Queue {
    /// Which stream empties it; none if there is none.
    stream: Option<u64>,
    messages: VecDeque<PeerMessage>,
    bytes: usize,
    /// Wake streams by their numbers: the one in use when there is something to send, one that
    /// waits for its handshake when it is taken into use, one that was replaced so that it ends.
    wakers: BTreeMap<u64, Waker>,
    dropped: u64,
}

impl Outgoing {
    /// Queues to these peers.
    pub fn new(peers: impl IntoIterator<Item = NodeId>) -> Outgoing {
        let peers = peers.into_iter().map(|id| (id, Peer { queue: Mutex::default() })).collect();
        Outgoing { peers }
    }

    /// Queues a message for a peer; it leaves after the next [`Outgoing::flush`] at the latest.
    ///
    /// Without a stream, or with a full queue, the message is dropped. If it asked the peer to
    /// propose something, the peer's refusal is returned in its place: it was not proposed.
    pub fn queue(&self, to: NodeId, message: PeerMessage) -> Option<PeerMessage> {
        let Some(peer) = self.peers.get(&to) else { return message.refusal() };
        let cost = wire::cost(&message);
        let mut queue = peer.lock();
        let fits = queue.bytes == 0 || queue.bytes + cost <= QUEUE_BYTES_MAX;
        if queue.stream.is_none() || !fits {
            queue.dropped += 1;
            drop(queue);
            return message.refusal();
        }
        queue.bytes += cost;
        queue.messages.push_back(message);
        None
    }

    /// Wakes the streams that have something to send.
    pub fn flush(&self) {
        for peer in self.peers.values() {
            let waker = {
                let mut queue = peer.lock();
                let number = queue.stream.filter(|_| !queue.messages.is_empty());
                number.and_then(|number| queue.wakers.remove(&number))
            };
            if let Some(waker) = waker {
                waker.wake();
            }
        }
    }

    /// How many peers have a stream.
    pub fn connected(&self) -> usize {
        self.peers.values().filter(|peer| peer.lock().stream.is_some()).count()
    }

    /// The stream that empties the queue to this peer.
    pub(super) fn stream_of(&self, peer: NodeId) -> Option<u64> {
        self.peers[&peer].lock().stream
    }

    /// Makes a stream, or none, the one that empties the queue; what is queued is lost.
    pub(super) fn switch(&self, peer: NodeId, stream: Option<u64>) {
        let wakers = {
            let mut queue = self.peers[&peer].lock();
            queue.stream = stream;
            queue.messages.clear();
            queue.bytes = 0;
            std::mem::take(&mut queue.wakers)
        };
        for waker in wakers.into_values() {
            waker.wake();
        }
    }
}

impl Peer {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a stream sends after its greeting: once it is taken into use an empty batch, which tells the
/// other side so; then whatever is queued, until another stream takes over.
pub(super) struct Sending {
    outgoing: Arc<Outgoing>,
    to: NodeId,
    number: u64,
    in_use: bool,
}

impl Sending {
    /// Of the stream of this number to this peer.
    pub(super) fn new(outgoing: Arc<Outgoing>, to: NodeId, number: u64) -> Sending {
        Sending { outgoing, to, number, in_use: false }
    }

    /// Takes what is queued, up to a frame's size; waits if there is nothing. `None` at the end.
    pub(super) fn poll_queue(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Option<Vec<PeerMessage>>> {
        let mut queue = self.outgoing.peers[&self.to].lock();
        let ours = queue.stream == Some(self.number);
        if !ours && (self.in_use || queue.stream.is_some_and(|newer| newer > self.number)) {
            return Poll::Ready(None);
        }
        let first = ours && !self.in_use;
        self.in_use = ours;
        if !first && (!ours || queue.messages.is_empty()) {
            queue.wakers.insert(self.number, context.waker().clone());
            return Poll::Pending;
        }
        let mut taken = Vec::new();
        let mut bytes = 0;
        while !first
            && bytes < FRAME_BYTES
            && let Some(message) = queue.messages.pop_front()
        {
            let cost = wire::cost(&message);
            bytes += cost;
            queue.bytes -= cost;
            taken.push(message);
        }
        Poll::Ready(Some(taken))
    }
}

impl Drop for Sending {
    fn drop(&mut self) {
        self.outgoing.peers[&self.to].lock().wakers.remove(&self.number);
    }
}
