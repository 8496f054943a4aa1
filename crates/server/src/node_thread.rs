//! The node: one thread that runs the member's loop and the streams to its peers. It never waits for a
//! disk, a client or whoever reads the log. What a turn takes, does and delivers is decided by
//! [`EventLoop`]; here it gets its events, its clock and its ports.
//!
//! Loop and streams share a thread because each hand-over between threads costs about as much
//! as all the rest of a message's way: what a peer sends is handled, and what the replica sends
//! is written to the socket, in the same turn.

use crate::desk::{Answers, Counter, Mail};
use crate::disk_thread::{DiskHandle, Work};
use crate::transport::Outgoing;
use arc_swap::ArcSwap;
use raft::{Fetch, NodeId, Notice, Persist, RoleName};
use replica::{EventLoop, NodeEvent, PeerMessage, Ports, Published, Replica, TURN_EVENTS_MAX};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::OwnedSemaphorePermit;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::time::Instant;
use tracing::{error, info};

/// What the node delivers to.
pub struct Deliveries {
    /// The state as readers see it.
    pub published: Arc<ArcSwap<Published>>,
    /// Peers.
    pub peers: Arc<Outgoing>,
    /// The disk.
    pub disk: DiskHandle,
    /// Whoever waits for an answer.
    pub counter: Counter,
    /// When time begins.
    pub started: Instant,
    /// The longest turn of late, in microseconds.
    pub longest_turn: Arc<AtomicU64>,
}

/// Runs until it is told to stop, or nobody is left to send anything.
pub async fn run(
    replica: Replica,
    tick: Duration,
    mut inbox: UnboundedReceiver<Mail>,
    mut deliveries: Deliveries,
) {
    let started = deliveries.started;
    let mut event_loop = EventLoop::new(replica, tick, deliveries.now());
    let mut alarm = std::pin::pin!(tokio::time::sleep_until(started + event_loop.wake_at()));
    let mut mails = Vec::new();
    let mut events = Vec::new();
    let mut permits = Vec::new();
    let mut leader = None;
    loop {
        if !event_loop.has_work() {
            let wake_at = started + event_loop.wake_at();
            if alarm.deadline() != wake_at {
                alarm.as_mut().reset(wake_at);
            }
            tokio::select! {
                biased;
                _ = inbox.recv_many(&mut mails, TURN_EVENTS_MAX) => {}
                () = alarm.as_mut() => {}
            }
        }
        if event_loop.wants_to_yield() {
            tokio::task::yield_now().await;
        }
        while mails.len() < TURN_EVENTS_MAX
            && let Ok(mail) = inbox.try_recv()
        {
            mails.push(mail);
        }
        if open(&mut mails, &mut events, &mut permits) == Opened::Stop {
            return;
        }
        event_loop.turn(events.drain(..), &mut deliveries);
        permits.clear();
        note_leader(event_loop.replica(), &mut leader);
        let longest = event_loop.longest_turn().as_micros() as u64;
        deliveries.longest_turn.store(longest, Ordering::Relaxed);
    }
}

#[derive(PartialEq, Eq)]
enum Opened {
    All,
    Stop,
}

/// Makes events of what came; the permits count bytes until these are taken.
fn open(
    mails: &mut Vec<Mail>,
    events: &mut Vec<NodeEvent>,
    permits: &mut Vec<OwnedSemaphorePermit>,
) -> Opened {
    for mail in mails.drain(..) {
        events.push(match mail {
            Mail::Inputs(inputs) => NodeEvent::Inputs(inputs),
            Mail::Peer(from, messages, permit) => {
                permits.push(permit);
                NodeEvent::Peer(from, messages)
            }
            Mail::Persisted(persisted) => NodeEvent::Persisted(persisted),
            Mail::Stop => return Opened::Stop,
        });
    }
    Opened::All
}

impl Ports for Deliveries {
    fn now(&mut self) -> Duration {
        self.started.elapsed()
    }

    fn send(&mut self, to: NodeId, message: PeerMessage) -> Option<PeerMessage> {
        self.peers.queue(to, message)
    }

    fn connected(&mut self, peer: NodeId) {
        self.peers.heard(peer);
    }

    fn flush(&mut self) {
        self.peers.flush();
    }

    fn persist(&mut self, persist: Persist) {
        self.disk.send(Work::Persist(persist));
    }

    fn fetch(&mut self, fetch: Fetch) {
        self.disk.send(Work::Fetch(fetch));
    }

    fn publish(&mut self, published: Published) {
        self.published.store(Arc::new(published));
    }

    fn reply(&mut self, replies: &mut Answers) {
        self.counter.deliver(replies);
    }

    fn notice(&mut self, notice: Notice) {
        match notice {
            Notice::Replaced { peer, admitted, presented } => error!(
                peer = format_args!("{peer}"),
                %admitted,
                %presented,
                "this peer's log is not the one that counts: its disk was lost or is an older copy. \
                 It is not heard; leave it stopped until it can be replaced"
            ),
            Notice::LostEntries { peer, acknowledged, lacks } => error!(
                peer = format_args!("{peer}"),
                acknowledged = acknowledged.0,
                lacks = lacks.0,
                "this peer's disk lost what it had acknowledged. It counts for nothing while this \
                 member leads: look at its disk"
            ),
        }
    }
}

/// Logs who leads, when that changes.
fn note_leader(replica: &Replica, known: &mut Option<(Option<NodeId>, raft::Term)>) {
    let status = replica.status();
    let now = Some((status.leader, status.term));
    if *known == now {
        return;
    }
    let before = known.and_then(|(leader, _)| leader);
    *known = now;
    let term = status.term.0;
    match status.leader {
        Some(leader) if leader == status.id => info!(term, "this member leads"),
        Some(leader) => info!(term, leader = format_args!("{:x}", leader.0), "follows a leader"),
        None if before.is_some() => info!(term, "lost its leader"),
        None if status.role == RoleName::Follower => info!(term, "waits for a leader"),
        None => info!(term, "campaigns"),
    }
}
