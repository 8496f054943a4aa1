//! What a turn of a member's loop does to the world, in its true order.

use raft::{Fetch, NodeId, Notice, Persist};
use replica::{PeerMessage, Ports, Published, Reply, RequestId, SWEEP_TURN_MAX, TURN_MAX};
use std::time::Duration;

/// One effect.
pub enum Effect {
    /// A message leaves for a peer.
    Send(NodeId, PeerMessage),
    /// The member has heard of a new stream.
    Connected(NodeId),
    /// A write goes to the disk.
    Persist(Persist),
    /// Entries are wanted back from the disk.
    Fetch(Fetch),
    /// Readers see this from now on.
    Publish(Box<Published>),
    /// A request is answered.
    Reply(RequestId, Reply),
    /// An operator is told something.
    Notice(Notice),
}

/// Notes the effects of a turn. Its clock goes on by a fixed time with each look at it, so that long
/// work is cut into turns where that time is long.
pub struct Effects {
    now: Duration,
    step: Duration,
    began: Duration,
    /// In the order in which they happened.
    pub list: Vec<Effect>,
}

impl Effects {
    /// A turn that begins now.
    pub fn new(now: Duration, step: Duration) -> Effects {
        Effects { now, step, began: now, list: Vec::new() }
    }

    /// How long the turn has lasted.
    ///
    /// # Panics
    /// If that is longer than a turn may last, whatever there is to do: nothing but a slice that was
    /// begun in time may come on top.
    pub fn lasted(&self) -> Duration {
        let lasted = self.now - self.began;
        let looks = 6 * self.step;
        assert!(lasted <= TURN_MAX + SWEEP_TURN_MAX + looks, "a turn lasts {lasted:?}");
        lasted
    }
}

impl Ports for Effects {
    fn now(&mut self) -> Duration {
        let now = self.now;
        self.now += self.step;
        now
    }

    fn send(&mut self, to: NodeId, message: PeerMessage) -> Option<PeerMessage> {
        // Whether it is refused shows when the network is asked.
        self.list.push(Effect::Send(to, message));
        None
    }

    fn connected(&mut self, peer: NodeId) {
        self.list.push(Effect::Connected(peer));
    }

    fn flush(&mut self) {}

    fn persist(&mut self, persist: Persist) {
        self.list.push(Effect::Persist(persist));
    }

    fn fetch(&mut self, fetch: Fetch) {
        self.list.push(Effect::Fetch(fetch));
    }

    fn publish(&mut self, published: Published) {
        self.list.push(Effect::Publish(Box::new(published)));
    }

    fn reply(&mut self, replies: &mut Vec<(RequestId, Reply)>) {
        let replies = replies.drain(..);
        self.list.extend(replies.map(|(request, reply)| Effect::Reply(request, reply)));
    }

    fn notice(&mut self, notice: Notice) {
        self.list.push(Effect::Notice(notice));
    }
}
