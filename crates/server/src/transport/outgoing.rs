//! The queues of messages to the peers, shared by the node, which fills them, and the streams, which
//! empty them. What leaves when, and what is dropped, is decided by [`PeerQueue`].

use crate::wire;
use bytes::Bytes;
use prost::Message;
use raft::NodeId;
use replica::{NextFrame, PeerMessage, PeerQueue};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

/// The queues to all peers. The node fills them, and the streams beside it on its thread empty them.
pub struct Outgoing {
    peers: BTreeMap<NodeId, Peer>,
}

struct Peer {
    /// Taken for a few moves of memory, by the node's thread, and by the main thread when it counts;
    /// nobody waits while holding it.
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    queue: PeerQueue,
    /// Wake streams by their numbers: the one in use when there is something to send, one that
    /// waits for its handshake when it is taken into use, one that was replaced so that it ends.
    wakers: BTreeMap<u64, Waker>,
}

impl Outgoing {
    /// Queues to these peers.
    pub fn new(peers: impl IntoIterator<Item = NodeId>) -> Outgoing {
        let peers = peers.into_iter().map(|id| (id, Peer { state: Mutex::default() })).collect();
        Outgoing { peers }
    }

    /// Queues a message for a peer; it leaves after the next [`Outgoing::flush`] at the latest.
    ///
    /// Without a stream, or with a full queue, the message is dropped. If it asked the peer to
    /// propose something, the peer's refusal is returned in its place: it was not proposed.
    pub fn queue(&self, to: NodeId, message: PeerMessage) -> Option<PeerMessage> {
        let Some(peer) = self.peers.get(&to) else { return message.refusal() };
        peer.lock().queue.push(message)
    }

    /// The node has heard of a stream that was opened.
    pub fn heard(&self, peer: NodeId) {
        if let Some(peer) = self.peers.get(&peer) {
            peer.lock().queue.heard();
        }
    }

    /// Wakes the streams that have something to send.
    pub fn flush(&self) {
        for peer in self.peers.values() {
            let waker = {
                let State { queue, wakers } = &mut *peer.lock();
                let number = queue.stream().filter(|number| queue.is_ready(*number));
                number.and_then(|number| wakers.remove(&number))
            };
            if let Some(waker) = waker {
                waker.wake();
            }
        }
    }

    /// The peers that have no stream.
    pub fn unconnected(&self) -> Vec<NodeId> {
        let peers = self.peers.iter().filter(|(_, peer)| peer.lock().queue.stream().is_none());
        peers.map(|(id, _)| *id).collect()
    }

    /// How many peers have a stream.
    pub fn connected(&self) -> usize {
        self.peers.values().filter(|peer| peer.lock().queue.stream().is_some()).count()
    }

    /// The stream that empties the queue to this peer.
    pub(super) fn stream_of(&self, peer: NodeId) -> Option<u64> {
        self.peers[&peer].lock().queue.stream()
    }

    /// Takes a stream into use; false if a newer one was.
    pub(super) fn open(&self, peer: NodeId, number: u64) -> bool {
        self.change(peer, |queue| queue.open(number))
    }

    /// Closes a stream; false if it is not the one in use.
    pub(super) fn close(&self, peer: NodeId, number: u64) -> bool {
        self.change(peer, |queue| queue.close(number))
    }

    /// Changes which stream is in use, and wakes all so that they see it.
    fn change(&self, peer: NodeId, act: impl FnOnce(&mut PeerQueue) -> bool) -> bool {
        let (done, wakers) = {
            let State { queue, wakers } = &mut *self.peers[&peer].lock();
            (act(queue), std::mem::take(wakers))
        };
        for waker in wakers.into_values() {
            waker.wake();
        }
        done
    }
}

impl Peer {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What one stream sends after its greeting.
pub(super) struct Sending {
    outgoing: Arc<Outgoing>,
    to: NodeId,
    number: u64,
}

impl Sending {
    /// Creates the sender for stream `number` to a peer.
    pub(super) fn new(outgoing: Arc<Outgoing>, to: NodeId, number: u64) -> Sending {
        Sending { outgoing, to, number }
    }

    /// Waits until there is something to send, or nothing ever will be.
    pub(super) fn poll_ready(&self, context: &mut Context<'_>) -> Poll<()> {
        let State { queue, wakers } = &mut *self.outgoing.peers[&self.to].lock();
        if queue.is_ready(self.number) {
            return Poll::Ready(());
        }
        wakers.insert(self.number, context.waker().clone());
        Poll::Pending
    }

    /// Takes what is to be sent now.
    pub(super) fn next_frame(&self) -> NextFrame {
        let encode = |message| Bytes::from(wire::encode(message).encode_to_vec());
        self.outgoing.peers[&self.to].lock().queue.next_frame(self.number, encode)
    }
}

impl Drop for Sending {
    fn drop(&mut self) {
        self.outgoing.peers[&self.to].lock().wakers.remove(&self.number);
    }
}
