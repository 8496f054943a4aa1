//! The member's loop: which events a turn takes, in which order its effects are delivered, how long it
//! may go on, and when the next one is due.
//!
//! A driver (the server's node thread, the simulator) waits for events or for
//! [`EventLoop::wake_at`], then runs a turn. Everything that the loop decides is decided here, with
//! time as a parameter, so that both run the same code.
//!
//! # A turn
//!
//! Promises of finished writes leave first: what they claim is true now. Then the replica handles all
//! events as one batch, and what follows from them is delivered. As long as the replica has more to
//! apply or to sweep it goes on, but no longer than [`TURN_MAX`]: no work of any size keeps a member
//! from its peers, its ticks and its clients. The driver lets them run between two turns
//! ([`EventLoop::wants_to_yield`]).
//!
//! To sweep is in no hurry, and all members sweep at the same time: where they share processors, sweeps
//! that never pause make each step of a write's way wait for them. So a turn sweeps no longer than
//! [`SWEEP_TURN_MAX`], and then nothing is swept for some time ([`SWEEP_REST`]).

use crate::input::{Input, PeerMessage, RequestId};
use crate::outbox::{Outbox, Published, Reply};
use crate::replica::Replica;
use crate::storage::Persisted;
use crate::write_batching::{Proposes, WriteBatching};
use raft::{Fetch, NodeId, Notice, Persist, RoleName};
use std::time::Duration;

/// Events that a driver takes for one turn at most; more wait for the next, so that a flood delays
/// neither heartbeats nor answers.
pub const TURN_EVENTS_MAX: usize = 256;

/// A turn that has lasted so long begins no further slice of work. A slice takes a fraction of a
/// millisecond, or as long as one command may take; a tick is 25 ms by default.
pub const TURN_MAX: Duration = Duration::from_millis(5);

/// The same of sweeping within a turn.
pub const SWEEP_TURN_MAX: Duration = Duration::from_millis(1);

/// After a turn that swept nothing is swept for this many times as long. A sweep is then still several
/// times as fast as clients write.
const SWEEP_REST: u32 = 3;

/// A turn of so many inputs is one of many.
const BUSY_INPUTS: usize = 8;

/// The longest turn is told of a span of this length, and the one before.
const LONGEST_TURN_SPAN: Duration = Duration::from_secs(60);

/// What reaches a member from its other threads.
#[derive(Debug)]
pub enum NodeEvent {
    /// Requests, or anything else that is an input.
    Inputs(Vec<Input>),
    /// Messages from one peer.
    Peer(NodeId, Vec<PeerMessage>),
    /// What is on disk now.
    Persisted(Persisted),
}

/// What a turn's effects are delivered to, in the order of the calls.
pub trait Ports {
    /// Returns the time since some moment. Never goes back.
    fn now(&mut self) -> Duration;
    /// Queues a message for a peer. If it is certain that it will not be sent, returns what the peer
    /// would answer to a forward that it did not get.
    fn send(&mut self, to: NodeId, message: PeerMessage) -> Option<PeerMessage>;
    /// Says that the member has heard of one more new stream to a peer ([`Input::Connected`]): what is
    /// sent from now on may leave on it.
    fn connected(&mut self, peer: NodeId);
    /// Lets what is queued for peers leave.
    fn flush(&mut self);
    /// Hands a write to the disk.
    fn persist(&mut self, persist: Persist);
    /// Asks for entries from the log on disk.
    fn fetch(&mut self, fetch: Fetch);
    /// Makes this the state that readers see.
    fn publish(&mut self, published: Published);
    /// Answers requests, and leaves the list empty. What they were promised is published.
    fn reply(&mut self, replies: &mut Vec<(RequestId, Reply)>);
    /// Tells an operator something.
    fn notice(&mut self, notice: Notice);
}

/// One member's loop. See the module's documentation.
#[derive(Debug)]
pub struct EventLoop {
    replica: Replica,
    outbox: Outbox,
    /// For the next turn.
    inputs: Vec<Input>,
    batching: WriteBatching,
    tick: Duration,
    next_tick: Duration,
    /// Nothing is swept before.
    sweep_at: Duration,
    /// The last turn had many inputs, so the next one may have more if it waits. With few, that would
    /// cost a look at all sockets for nothing.
    is_busy: bool,
    longest: LongestTurn,
}

/// The longest turn of the current span of time and of the one before.
#[derive(Debug, Default)]
struct LongestTurn {
    until: Duration,
    current: Duration,
    before: Duration,
}

impl EventLoop {
    /// The loop of a member that starts, with ticks of this length.
    pub fn new(replica: Replica, tick: Duration, now: Duration) -> EventLoop {
        EventLoop {
            replica,
            outbox: Outbox::default(),
            inputs: Vec::new(),
            batching: WriteBatching::default(),
            tick,
            next_tick: now + tick,
            sweep_at: now,
            is_busy: false,
            longest: LongestTurn::default(),
        }
    }

    /// The member.
    pub fn replica(&self) -> &Replica {
        &self.replica
    }

    /// Whether there is something to do without any event.
    pub fn has_work(&self) -> bool {
        !self.inputs.is_empty() || self.outbox.more
    }

    /// When the next turn is due if nothing happens before.
    pub fn wake_at(&self) -> Duration {
        let until = self.batching.until();
        let sweep_at = self.replica.is_sweeping().then_some(self.sweep_at);
        until.into_iter().chain(sweep_at).fold(self.next_tick, Duration::min)
    }

    /// Whether the member's other tasks should run before the next turn: because they may add to it, or
    /// because it goes on with long work.
    pub fn wants_to_yield(&self) -> bool {
        self.is_busy || self.outbox.more
    }

    /// The longest turn of the last minute or two.
    pub fn longest_turn(&self) -> Duration {
        self.longest.current.max(self.longest.before)
    }

    /// Runs one turn with these events.
    pub fn turn(&mut self, events: impl IntoIterator<Item = NodeEvent>, ports: &mut impl Ports) {
        let began = ports.now();
        for event in events {
            self.take(event, ports);
        }
        self.is_busy = self.inputs.len() >= BUSY_INPUTS;
        if began >= self.next_tick {
            self.inputs.push(Input::Tick);
            // After a pause time goes on from now: a burst of ticks would only start elections.
            let is_late = began > self.next_tick + self.tick;
            self.next_tick = if is_late { began } else { self.next_tick } + self.tick;
        }
        self.batching.gather(&mut self.inputs, proposes(&self.replica), began);
        for input in &self.inputs {
            if let Input::Connected(peer) = input {
                ports.connected(*peer);
            }
        }
        self.replica.pause_sweep(true);
        self.replica.handle(self.inputs.drain(..), &mut self.outbox);
        self.deliver(ports);
        let mut now = self.go_on(ports, began + TURN_MAX);
        if self.replica.is_sweeping() && now >= self.sweep_at {
            now = self.sweep(ports, now);
        }
        self.longest.note(now, now - began);
    }

    /// Runs further slices of work until none is left, or this moment; says what time it is.
    fn go_on(&mut self, ports: &mut impl Ports, until: Duration) -> Duration {
        let mut now = ports.now();
        while self.outbox.more && now < until {
            self.replica.handle([], &mut self.outbox);
            self.deliver(ports);
            now = ports.now();
        }
        now
    }

    /// Sweeps for a moment, then rests from it; says what time it is.
    fn sweep(&mut self, ports: &mut impl Ports, began: Duration) -> Duration {
        self.replica.pause_sweep(false);
        // However late the clock says it is: else a member that gets little time never ends a sweep.
        self.replica.handle([], &mut self.outbox);
        self.deliver(ports);
        let now = self.go_on(ports, began + SWEEP_TURN_MAX);
        self.replica.pause_sweep(true);
        self.outbox.more = self.replica.has_committed();
        self.sweep_at = now + SWEEP_REST * (now - began);
        now
    }

    fn take(&mut self, event: NodeEvent, ports: &mut impl Ports) {
        match event {
            NodeEvent::Inputs(inputs) => self.inputs.extend(inputs),
            NodeEvent::Peer(from, messages) => {
                let inputs = messages.into_iter().map(|message| Input::Peer(from, message));
                self.inputs.extend(inputs);
            }
            NodeEvent::Persisted(Persisted { ticket, then_send }) => {
                self.inputs.push(Input::Persisted(ticket));
                for message in then_send {
                    // Promises are not forwards: nobody waits for a refusal.
                    let _ = ports.send(message.to, PeerMessage::Raft(message));
                }
            }
        }
    }

    /// Empties the outbox. First the state, then the answers: who is answered reads what it was
    /// promised.
    fn deliver(&mut self, ports: &mut impl Ports) {
        let Outbox { peers, persists, fetches, replies, published, notices, more: _ } =
            &mut self.outbox;
        for (to, message) in peers.drain(..) {
            if let Some(refused) = ports.send(to, message) {
                self.inputs.push(Input::NotSent(to, refused));
            }
        }
        ports.flush();
        persists.drain(..).for_each(|persist| ports.persist(persist));
        fetches.drain(..).for_each(|fetch| ports.fetch(fetch));
        if let Some(published) = published.take() {
            ports.publish(published);
        }
        if !replies.is_empty() {
            ports.reply(replies);
        }
        notices.drain(..).for_each(|notice| ports.notice(notice));
    }
}

impl LongestTurn {
    fn note(&mut self, now: Duration, turn: Duration) {
        if now >= self.until {
            self.before = if now < self.until + LONGEST_TURN_SPAN { self.current } else { turn };
            self.until = now + LONGEST_TURN_SPAN;
            self.current = Duration::ZERO;
        }
        self.current = self.current.max(turn);
    }
}

fn proposes(replica: &Replica) -> Proposes {
    let status = replica.status();
    match status.role {
        RoleName::Leader if status.durable == status.last.index => Proposes::ToAnIdleDisk,
        RoleName::Leader => Proposes::ToABusyDisk,
        _ => Proposes::Nothing,
    }
}
