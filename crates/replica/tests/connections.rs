//! Between the moment when a new stream is taken into use and the turn that hears of it there may be
//! other turns: that word waits behind everything in the inbox, and a turn takes 256 events at most.

#![allow(clippy::unwrap_used, reason = "a test stops where it fails")]

mod cluster;

use cluster::{CLUSTER, Cluster, id};
use raft::{Body, Fetch, Incarnation, Index, Message, NodeId, Notice, Persist, RoleName};
use replica::{
    DiskWriter, EventLoop, Input, NextFrame, NodeEvent, PeerMessage, PeerQueue, Ports, Published,
    Replica, Reply, RequestId, Started, Storage, TURN_EVENTS_MAX,
};
use std::time::Duration;
use wal::{Identity, MemoryDisk, Options};

const TICK: Duration = Duration::from_millis(25);

struct World {
    now: Duration,
    writer: DiskWriter<MemoryDisk>,
    /// To the peer with the number 2; of the other one nothing is heard.
    queue: PeerQueue,
}

impl Ports for World {
    fn now(&mut self) -> Duration {
        self.now
    }
    fn send(&mut self, to: NodeId, message: PeerMessage) -> Option<PeerMessage> {
        if to == id(2) { self.queue.push(message) } else { None }
    }
    fn connected(&mut self, peer: NodeId) {
        if peer == id(2) {
            self.queue.heard();
        }
    }
    fn flush(&mut self) {}
    fn persist(&mut self, persist: Persist) {
        self.writer.push(persist);
    }
    fn fetch(&mut self, _: Fetch) {}
    fn publish(&mut self, _: Published) {}
    fn reply(&mut self, _: &mut Vec<(RequestId, Reply)>) {}
    fn notice(&mut self, notice: Notice) {
        panic!("{notice:?}");
    }
}

impl World {
    /// What leaves on a stream.
    fn leaves(&mut self, number: u64) -> Vec<Message> {
        let mut messages = Vec::new();
        while self.queue.is_ready(number) {
            let NextFrame::Batch(batch) = self.queue.next_frame(number, |_| unreachable!()) else {
                break;
            };
            messages.extend(batch.into_iter().filter_map(|message| match message {
                PeerMessage::Raft(message) => Some(message),
                _ => None,
            }));
        }
        messages
    }

    fn disk(&mut self) -> Vec<NodeEvent> {
        let is_writing = self.writer.begin();
        is_writing
            .then(|| NodeEvent::Persisted(self.writer.finish().unwrap()))
            .into_iter()
            .collect()
    }
}

#[test]
fn nothing_is_claimed_of_a_peer_on_a_stream_that_the_node_has_not_heard_of() {
    let config = Cluster::new(3, 21).config(id(1));
    let identity = Identity { cluster: CLUSTER, member: 1 };
    let Started { storage, restored, .. } =
        Storage::start(MemoryDisk::default(), identity, Options::default(), 21).unwrap();
    let own = restored.incarnation;
    let mut world = World {
        now: Duration::ZERO,
        writer: DiskWriter::new(storage),
        queue: PeerQueue::default(),
    };
    let mut event_loop = EventLoop::new(Replica::new(config, restored), TICK, world.now);
    world.queue.open(1);
    let mut events = vec![NodeEvent::Inputs(vec![Input::Connected(id(2))])];
    // The peer agrees to everything, and acknowledges what it is sent.
    for _ in 0..200 {
        world.now += TICK;
        event_loop.turn(events, &mut world);
        events = world.disk();
        for message in world.leaves(1) {
            let body = match message.body {
                Body::PreVote { .. } => Body::PreVoteReply { granted: true },
                Body::Vote { last, .. } => Body::VoteReply { granted: true, last, candidate: own },
                Body::Append { prev, entries, .. } => {
                    Body::Appended { matched: Index(prev.index.0 + entries.len() as u64) }
                }
                Body::Heartbeat { round, .. } => Body::HeartbeatReply { round },
                _ => continue,
            };
            let incarnation = Incarnation { start: 1, id: 2 };
            let (from, to, term) = (message.to, message.from, message.term);
            let answer = Message { from, to, term, incarnation, body };
            events.push(NodeEvent::Peer(from, vec![PeerMessage::Raft(answer)]));
        }
    }
    let status = event_loop.replica().status();
    assert_eq!((status.role, status.commit), (RoleName::Leader, status.last.index));

    // The peer's process ends, and an older copy of its disk takes its place. A stream to it is taken into
    // use, and the word of that is the last in the inbox.
    world.queue.open(2);
    let mut inbox: Vec<NodeEvent> =
        (0..TURN_EVENTS_MAX).map(|_| NodeEvent::Inputs(vec![])).collect();
    inbox.push(NodeEvent::Inputs(vec![Input::Connected(id(2))]));
    let mut claimed = Vec::new();
    while !inbox.is_empty() {
        world.now += 10 * TICK;
        let first = inbox.drain(..inbox.len().min(TURN_EVENTS_MAX)).collect::<Vec<_>>();
        event_loop.turn(first, &mut world);
        claimed.extend(world.leaves(2).into_iter().filter_map(|message| match message.body {
            Body::Heartbeat { commit, .. } | Body::Commit { commit } => Some(commit),
            _ => None,
        }));
    }
    assert!(claimed.iter().all(|commit| *commit == Index(0)), "claimed: {claimed:?}");
}
