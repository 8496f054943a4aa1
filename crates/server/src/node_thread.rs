//! The node: one thread that runs the replica. It takes what arrived, lets the replica handle it
//! as one batch, and delivers what follows. It never waits for anything but its inbox.

use crate::desk::{Counter, Mail};
use crate::disk_thread::Work;
use crate::transport::Outgoing;
use arc_swap::ArcSwap;
use raft::{NodeId, RoleName};
use replica::{Input, Outbox, Published, Replica};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::time::{Duration, Instant};
use tokio::sync::OwnedSemaphorePermit;
use tracing::info;
use wal::Disk;

/// Inputs handled in one round at most; more wait for the next, so that a flood delays neither
/// heartbeats nor answers.
const ROUND_INPUTS_MAX: usize = 4096;

/// What the node delivers to.
pub struct Deliveries<D: Disk> {
    /// The state as readers see it.
    pub published: Arc<ArcSwap<Published>>,
    /// Peers.
    pub peers: Arc<Outgoing>,
    /// The disk.
    pub disk: Sender<Work<D>>,
    /// Whoever waits for an answer.
    pub counter: Counter,
}

/// Runs until it is told to stop, or nobody is left to send anything.
pub fn run<D: Disk>(
    mut replica: Replica,
    tick: Duration,
    inbox: &Receiver<Mail>,
    mut deliveries: Deliveries<D>,
) {
    let mut next_tick = Instant::now() + tick;
    let mut round = Round::default();
    let mut outbox = Outbox::default();
    let mut leader = None;
    loop {
        let now = Instant::now();
        if now >= next_tick {
            round.inputs.push(Input::Tick);
            // After a pause time goes on from now: a burst of ticks would only start elections.
            next_tick = if now > next_tick + tick { now + tick } else { next_tick + tick };
        }
        let patience = if std::mem::take(&mut outbox.more) { now } else { next_tick };
        if round.gather(inbox, patience) == Gathered::Stop {
            return;
        }
        replica.handle(round.inputs.drain(..), &mut outbox);
        round.permits.clear();
        deliveries.deliver(&mut outbox, &mut round.inputs);
        note_leader(&replica, &mut leader);
    }
}

/// What one round takes in.
#[derive(Default)]
struct Round {
    inputs: Vec<Input>,
    permits: Vec<OwnedSemaphorePermit>,
}

#[derive(PartialEq, Eq)]
enum Gathered {
    Some,
    Stop,
}

impl Round {
    /// Waits until there is an input or `deadline` has come, then takes what else is there.
    fn gather(&mut self, inbox: &Receiver<Mail>, deadline: Instant) -> Gathered {
        if self.inputs.is_empty() {
            let patience = deadline.saturating_duration_since(Instant::now());
            match inbox.recv_timeout(patience) {
                Ok(mail) => {
                    if self.take(mail) == Gathered::Stop {
                        return Gathered::Stop;
                    }
                }
                Err(RecvTimeoutError::Timeout) => return Gathered::Some,
                Err(RecvTimeoutError::Disconnected) => return Gathered::Stop,
            }
        }
        while self.inputs.len() < ROUND_INPUTS_MAX
            && let Ok(mail) = inbox.try_recv()
        {
            if self.take(mail) == Gathered::Stop {
                return Gathered::Stop;
            }
        }
        Gathered::Some
    }

    fn take(&mut self, mail: Mail) -> Gathered {
        match mail {
            Mail::Inputs(inputs) => self.inputs.extend(inputs),
            Mail::Peer(from, messages, permit) => {
                self.inputs.extend(messages.into_iter().map(|message| Input::Peer(from, message)));
                self.permits.push(permit);
            }
            Mail::Stop => return Gathered::Stop,
        }
        Gathered::Some
    }
}

impl<D: Disk> Deliveries<D> {
    /// Empties the outbox. `inputs` gets what follows at once.
    fn deliver(&mut self, outbox: &mut Outbox, inputs: &mut Vec<Input>) {
        for (to, message) in outbox.peers.drain(..) {
            if let Some(refused) = self.peers.queue(to, message) {
                inputs.push(Input::Peer(to, refused));
            }
        }
        self.peers.flush();
        for persist in outbox.persists.drain(..) {
            // The disk's thread ends only with the process.
            let _ = self.disk.send(Work::Persist(persist));
        }
        for fetch in outbox.fetches.drain(..) {
            let _ = self.disk.send(Work::Fetch(fetch));
        }
        // First the state, then the answers: who is answered reads what it was promised.
        if let Some(published) = outbox.published.take() {
            self.published.store(Arc::new(published));
        }
        self.counter.deliver(&mut outbox.replies);
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
