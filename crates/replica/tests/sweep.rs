//! What the member's loop does with its time.

#![allow(clippy::unwrap_used, reason = "tests")]

mod cluster;

use cluster::{Cluster, compact};
use raft::{Fetch, NodeId, Notice, Persist};
use replica::{EventLoop, Input, NodeEvent, PeerMessage, Ports, Published, Reply, RequestId};
use std::time::Duration;

/// A clock that goes on by a step whenever it is read, and what a turn wants written and answered.
struct Recorder {
    now: Duration,
    step: Duration,
    persists: Vec<Persist>,
    replies: Vec<(RequestId, Reply)>,
}

impl Ports for Recorder {
    fn now(&mut self) -> Duration {
        self.now += self.step;
        self.now
    }

    fn send(&mut self, _: NodeId, _: PeerMessage) -> Option<PeerMessage> {
        None
    }

    fn connected(&mut self, _: NodeId) {}

    fn flush(&mut self) {}

    fn persist(&mut self, persist: Persist) {
        self.persists.push(persist);
    }

    fn fetch(&mut self, _: Fetch) {}

    fn publish(&mut self, _: Published) {}

    fn reply(&mut self, replies: &mut Vec<(RequestId, Reply)>) {
        self.replies.append(replies);
    }

    fn notice(&mut self, _: Notice) {}
}

#[test]
fn a_sweep_rests_most_of_the_time_and_ends() {
    let (mut cluster, leader) = Cluster::led(1, 31);
    for number in 0..20_000 {
        cluster.put(leader, "k", &number.to_string());
        if number % 10 == 0 {
            cluster.settle();
        }
    }
    cluster.settle();
    let request = cluster.request();
    let mut life = cluster.slots.get_mut(&leader).unwrap().life.take().unwrap();
    let step = Duration::from_micros(300);
    let (persists, replies) = (Vec::new(), Vec::new());
    let mut ports = Recorder { now: Duration::ZERO, step, persists, replies };
    let mut event_loop = EventLoop::new(life.replica, Duration::from_millis(25), ports.now);
    let proposal = compact(20_000, true);
    event_loop.turn([NodeEvent::Inputs(vec![Input::Propose { request, proposal }])], &mut ports);
    let (mut working, mut turns) = (Duration::ZERO, 0);
    let began = ports.now;
    while ports.replies.is_empty() {
        let mut events = Vec::new();
        if !ports.persists.is_empty() {
            ports.persists.drain(..).for_each(|persist| life.writer.push(persist));
            assert!(life.writer.begin());
            events.push(NodeEvent::Persisted(life.writer.finish().unwrap()));
        } else if !event_loop.has_work() {
            ports.now = ports.now.max(event_loop.wake_at());
        }
        let turn = ports.now;
        event_loop.turn(events, &mut ports);
        working += ports.now - turn;
        turns += 1;
        assert!(turns < 10_000, "it ends");
    }
    let answer = &ports.replies[..];
    assert!(matches!(answer, [(_, Reply::Applied { outcome: Ok(_), .. })]), "{answer:?}");
    let longest = event_loop.longest_turn();
    assert!(longest <= Duration::from_millis(3), "a turn took {longest:?}");
    let all = ports.now - began;
    assert!(turns > 5, "not in one go: {turns} turns");
    assert!(working * 2 < all, "{working:?} of {all:?} in {turns} turns");
}
