//! The member's loop by a clock of the test's: in which order it delivers, and how long a turn lasts.

#![allow(clippy::unwrap_used, reason = "a test stops where it fails")]

mod cluster;

use cluster::{CLUSTER, Cluster, id, put};
use raft::{Fetch, NodeId, Notice, Persist, RoleName};
use replica::{
    DiskReader, DiskWriter, EventLoop, Input, Kind, NodeEvent, PeerMessage, Ports, Proposal,
    Published, Replica, Reply, RequestId, Started, Storage, TURN_MAX,
};
use std::time::Duration;
use wal::{Identity, MemoryDisk, Options};

const TICK: Duration = Duration::from_millis(25);

/// What a member's effects are delivered to. Each look at the clock takes a third of the time that a
/// turn may last, or as long as the test says, as if a slice of work took so long.
struct World {
    now: Duration,
    writer: DiskWriter<MemoryDisk>,
    reader: DiskReader<MemoryDisk>,
    revision: i64,
    answered: usize,
    /// What a look at the clock takes.
    slice: Duration,
}

impl World {
    const SLICE: Duration = TURN_MAX.checked_div(3).unwrap();
}

impl Ports for World {
    fn now(&mut self) -> Duration {
        self.now += self.slice;
        self.now
    }

    fn send(&mut self, _: NodeId, message: PeerMessage) -> Option<PeerMessage> {
        panic!("a member alone has no peers: {message:?}");
    }

    fn connected(&mut self, _: NodeId) {}

    fn flush(&mut self) {}

    fn persist(&mut self, persist: Persist) {
        self.writer.push(persist);
    }

    fn fetch(&mut self, fetch: Fetch) {
        self.reader.push(fetch);
    }

    fn publish(&mut self, published: Published) {
        self.revision = published.view.revision().0;
    }

    fn reply(&mut self, replies: &mut Vec<(RequestId, Reply)>) {
        for (request, reply) in replies.drain(..) {
            let Reply::Applied { revision, .. } = reply else { panic!("{request:?}: {reply:?}") };
            assert!(revision.0 <= self.revision, "what is answered can be read");
            self.answered += 1;
        }
    }

    fn notice(&mut self, notice: Notice) {
        panic!("{notice:?}");
    }
}

/// A member alone that leads.
fn alone() -> (EventLoop, World) {
    let mut config = Cluster::new(1, 21).config(id(1));
    config.admitted_bytes_max = 1 << 20;
    let identity = Identity { cluster: CLUSTER, member: 1 };
    let Started { storage, restored, .. } =
        Storage::start(MemoryDisk::default(), identity, Options::default(), 21).unwrap();
    let (reader, writer) = (storage.reader(), DiskWriter::new(storage));
    let now = Duration::ZERO;
    let slice = World::SLICE;
    let mut world = World { now, writer, reader, revision: 0, answered: 0, slice };
    let mut event_loop = EventLoop::new(Replica::new(config, restored), TICK, world.now);
    let mut turns = 0;
    let mut events = Vec::new();
    while event_loop.replica().status().role != RoleName::Leader || event_loop.has_work() {
        world.now = world.now.max(event_loop.wake_at());
        turn(&mut event_loop, events, &mut world);
        events = disk(&mut world);
        turns += 1;
        assert!(turns < 1000, "nobody is elected");
    }
    (event_loop, world)
}

/// Runs a turn, which must not last longer than one may and the slice in which that was over.
fn turn(event_loop: &mut EventLoop, events: Vec<NodeEvent>, world: &mut World) {
    let before = world.now;
    event_loop.turn(events, world);
    let lasted = world.now - before - World::SLICE;
    assert!(lasted <= TURN_MAX + World::SLICE, "a turn lasts {lasted:?}");
}

/// What the disk has done when it has done all that it was asked for.
fn disk(world: &mut World) -> Vec<NodeEvent> {
    let mut events = Vec::new();
    while let Some(fetch) = world.reader.begin() {
        let entries = world.reader.fetch(fetch).unwrap();
        events.push(NodeEvent::Inputs(vec![Input::Fetched(fetch, entries)]));
    }
    if world.writer.begin() {
        events.push(NodeEvent::Persisted(world.writer.finish().unwrap()));
    }
    events
}

/// Many writes that become committed at once are applied and answered in more than one turn, between
/// which others may run; and what is answered is published.
#[test]
fn a_turn_ends_while_there_is_more_to_do() {
    let (mut event_loop, mut world) = alone();
    let writes = 5000;
    let propose = |number| Input::Propose { request: RequestId(number), proposal: put("k", "v") };
    let mut events = vec![NodeEvent::Inputs((0..writes).map(propose).collect())];
    let mut went_on = 0;
    while world.answered < writes as usize {
        turn(&mut event_loop, events, &mut world);
        assert!(
            event_loop.wants_to_yield() || !event_loop.has_work(),
            "others run before the next"
        );
        went_on += usize::from(event_loop.has_work());
        events = disk(&mut world);
        if events.is_empty() && !event_loop.has_work() {
            world.now = world.now.max(event_loop.wake_at());
        }
    }
    assert!(went_on >= 3, "{went_on} turns left something to do");
    assert!(event_loop.longest_turn() >= TURN_MAX);
}

/// The processor is so busy with others that a turn has no time left whenever it looks at the clock.
/// Each turn that may sweep does some of it all the same, so a compaction is answered in the end.
#[test]
fn a_sweep_ends_however_late_it_is() {
    let (mut event_loop, mut world) = alone();
    world.slice = 10 * TURN_MAX;
    let compaction = proto::etcdserverpb::CompactionRequest { revision: 3, physical: true };
    let compaction = Proposal::new(Kind::Compact, &compaction).physical();
    let proposals = [put("k", "1"), put("k", "2"), put("k", "3"), compaction];
    let propose = |(number, proposal)| Input::Propose { request: RequestId(number), proposal };
    let mut events = vec![NodeEvent::Inputs((0..).zip(proposals).map(propose).collect())];
    for _ in 0..100 {
        event_loop.turn(events, &mut world);
        events = disk(&mut world);
        world.now = world.now.max(event_loop.wake_at());
    }
    assert_eq!(world.answered, 4);
}
