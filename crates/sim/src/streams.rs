//! What waits at a member for its peers: the server's own queues, emptied at the pace of a link.

use bytes::Bytes;
use raft::NodeId;
use replica::{NextFrame, PeerMessage, PeerQueue, QueueLimits};
use std::collections::BTreeMap;

use crate::weather::Micros;

/// The streams of one life of a member to its peers.
pub struct Streams {
    to: BTreeMap<NodeId, Stream>,
    /// How long the link carries 1 KiB; 0 for no time at all.
    pub pace: Micros,
    /// How much may wait for one peer.
    limits: QueueLimits,
}

#[derive(Default)]
struct Stream {
    queue: PeerQueue,
    /// The long message of which pieces leave.
    long: Option<PeerMessage>,
    /// How much of it has left.
    sent: usize,
    /// The link is at a frame.
    is_busy: bool,
    /// Its receiver takes nothing.
    is_stalled: bool,
}

/// What leaves in one frame.
pub struct Frame {
    /// Messages that are whole with it.
    pub messages: Vec<PeerMessage>,
    /// Bytes of all that.
    pub bytes: usize,
    /// It is a piece of a long message, and more follow.
    pub is_cut: bool,
}

impl Streams {
    /// Streams over links of this pace; none is in use.
    pub fn new(pace: Micros, limits: QueueLimits) -> Streams {
        Streams { to: BTreeMap::new(), pace, limits }
    }

    /// Queues a message; gives back the refusal of a forward that is dropped.
    pub fn push(&mut self, to: NodeId, message: PeerMessage) -> Option<PeerMessage> {
        self.to.entry(to).or_default().queue.push(message)
    }

    /// A new stream is taken into use; what was queued is lost.
    pub fn open(&mut self, to: NodeId, number: u64) {
        let stream = self.to.entry(to).or_default();
        stream.queue.set_limits(self.limits);
        let _is_newest = stream.queue.open(number);
        (stream.long, stream.sent) = (None, 0);
    }

    /// The member has heard of a stream that was opened.
    pub fn heard(&mut self, to: NodeId) {
        self.to.entry(to).or_default().queue.heard();
    }

    /// The stream in use breaks.
    pub fn close(&mut self, to: NodeId) {
        let stream = self.to.entry(to).or_default();
        if let Some(number) = stream.queue.stream() {
            stream.queue.close(number);
        }
        (stream.long, stream.sent) = (None, 0);
    }

    /// Peers to which something may leave now.
    pub fn ready(&self) -> Vec<NodeId> {
        let is_ready = |stream: &Stream| {
            let queue = &stream.queue;
            let is_free = !stream.is_busy && !stream.is_stalled;
            is_free && queue.stream().is_some_and(|number| queue.is_ready(number))
        };
        self.to.iter().filter(|(_, stream)| is_ready(stream)).map(|(id, _)| *id).collect()
    }

    /// Whether nothing waits for any peer.
    pub fn are_empty(&self) -> bool {
        let waits = |queue: &PeerQueue| queue.stream().is_some_and(|number| queue.is_ready(number));
        !self.to.values().any(|stream| waits(&stream.queue))
    }

    /// Whether the link is at a frame.
    pub fn set_busy(&mut self, to: NodeId, is_busy: bool) {
        self.to.entry(to).or_default().is_busy = is_busy;
    }

    /// Whether the receiver takes nothing.
    pub fn set_stalled(&mut self, to: NodeId, is_stalled: bool) {
        self.to.entry(to).or_default().is_stalled = is_stalled;
    }

    /// Whether a stream is in use.
    pub fn is_open(&self, to: NodeId) -> bool {
        self.to.get(&to).is_some_and(|stream| stream.queue.stream().is_some())
    }

    /// All receivers take what comes, and as much may wait for them as at the server.
    pub fn make_well(&mut self) {
        self.limits = QueueLimits::default();
        for stream in self.to.values_mut() {
            stream.is_stalled = false;
            stream.queue.set_limits(self.limits);
        }
    }

    /// Takes the next frame.
    ///
    /// # Panics
    /// If a piece is of a message that did not begin on this stream, or does not end with the message.
    pub fn next(&mut self, to: NodeId) -> Option<Frame> {
        let Stream { queue, long, sent, .. } = self.to.get_mut(&to)?;
        let number = queue.stream()?;
        // What it says is not looked at: its length is enough.
        let encode = |message: PeerMessage| {
            let bytes = Bytes::from(vec![0; message.bytes()]);
            *long = Some(message);
            bytes
        };
        match queue.next_frame(number, encode) {
            NextFrame::Batch(messages) => {
                let bytes = messages.iter().map(PeerMessage::bytes).sum();
                Some(Frame { messages, bytes, is_cut: false })
            }
            NextFrame::Part { bytes, rest } => {
                *sent += bytes.len();
                let all = long.as_ref().map(PeerMessage::bytes);
                assert!(all == Some(*sent + rest), "a piece to n{to} is of another message");
                let whole = if rest == 0 { long.take() } else { None };
                *sent = if rest == 0 { 0 } else { *sent };
                let messages = whole.into_iter().collect();
                Some(Frame { messages, bytes: bytes.len(), is_cut: rest > 0 })
            }
            NextFrame::Wait | NextFrame::Ended => None,
        }
    }
}
