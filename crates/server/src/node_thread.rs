//! The node: one thread that runs the replica and the streams to its peers. It takes what arrived,
//! lets the replica handle it as one batch, and delivers what follows. It never waits for a disk or
//! a client.
//!
//! Replica and streams share a thread because each hand-over between threads costs about as much
//! as all the rest of a message's way: what a peer sends is handled, and what the replica sends
//! is written to the socket, in the same turn of one loop.

use crate::company::{Company, Proposes};
use crate::desk::{Counter, Mail};
use crate::disk_thread::{DiskHandle, Work};
use crate::transport::Outgoing;
use arc_swap::ArcSwap;
use raft::{NodeId, RoleName};
use replica::{Input, Outbox, PeerMessage, Persisted, Published, Replica};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::OwnedSemaphorePermit;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::time::Instant;
use tracing::info;

/// Letters taken in one round at most; more wait for the next, so that a flood delays neither
/// heartbeats nor answers.
const ROUND_MAILS_MAX: usize = 256;

/// A round of so many inputs is one of many.
const BUSY_INPUTS: usize = 8;

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
}

/// Runs until it is told to stop, or nobody is left to send anything.
pub async fn run(
    mut replica: Replica,
    tick: Duration,
    mut inbox: UnboundedReceiver<Mail>,
    mut deliveries: Deliveries,
) {
    let mut next_tick = Instant::now() + tick;
    let mut alarm = std::pin::pin!(tokio::time::sleep_until(next_tick));
    let mut round = Round::default();
    let mut outbox = Outbox::default();
    let mut company = Company::default();
    let mut leader = None;
    loop {
        if round.inputs.is_empty() && !std::mem::take(&mut outbox.more) {
            let wake_up = company.until().map_or(next_tick, |until| next_tick.min(until));
            if alarm.deadline() != wake_up {
                alarm.as_mut().reset(wake_up);
            }
            tokio::select! {
                biased;
                _ = inbox.recv_many(&mut round.mails, ROUND_MAILS_MAX) => {}
                () = alarm.as_mut() => {}
            }
        }
        if round.is_busy {
            // Whoever is ready to run in this turn of the loop may add to the batch.
            tokio::task::yield_now().await;
        }
        if round.open(&mut inbox) == Opened::Stop {
            return;
        }
        let now = Instant::now();
        if now >= next_tick {
            round.inputs.push(Input::Tick);
            // After a pause time goes on from now: a burst of ticks would only start elections.
            next_tick = if now > next_tick + tick { now + tick } else { next_tick + tick };
        }
        deliveries.send(round.promises.drain(..));
        let status = replica.status();
        let proposes = match status.role {
            RoleName::Leader if status.durable == status.last.index => Proposes::ToAnIdleDisk,
            RoleName::Leader => Proposes::ToABusyDisk,
            _ => Proposes::Nothing,
        };
        company.gather(&mut round.inputs, proposes, now);
        replica.handle(round.inputs.drain(..), &mut outbox);
        round.permits.clear();
        deliveries.deliver(&mut outbox, &mut round.inputs);
        note_leader(&replica, &mut leader);
    }
}

/// What one round takes in.
#[derive(Default)]
struct Round {
    mails: Vec<Mail>,
    inputs: Vec<Input>,
    /// What may be claimed of the disk now.
    promises: Vec<raft::Message>,
    permits: Vec<OwnedSemaphorePermit>,
    /// The last round had many inputs, so the next one may have more if it waits a turn. With few,
    /// that would cost a look at all sockets for nothing.
    is_busy: bool,
}

#[derive(PartialEq, Eq)]
enum Opened {
    All,
    Stop,
}

impl Round {
    /// Opens the mail that came, and what else is there by now.
    fn open(&mut self, inbox: &mut UnboundedReceiver<Mail>) -> Opened {
        while self.mails.len() < ROUND_MAILS_MAX
            && let Ok(mail) = inbox.try_recv()
        {
            self.mails.push(mail);
        }
        for mail in self.mails.drain(..) {
            match mail {
                Mail::Inputs(inputs) => self.inputs.extend(inputs),
                Mail::Peer(from, messages, permit) => {
                    let inputs = messages.into_iter().map(|message| Input::Peer(from, message));
                    self.inputs.extend(inputs);
                    self.permits.push(permit);
                }
                Mail::Persisted(Persisted { ticket, then_send }) => {
                    self.inputs.push(Input::Persisted(ticket));
                    self.promises.extend(then_send);
                }
                Mail::Stop => return Opened::Stop,
            }
        }
        self.is_busy = self.inputs.len() >= BUSY_INPUTS;
        Opened::All
    }
}

impl Deliveries {
    /// Promises need not wait for the replica: what they claim is true now.
    fn send(&self, promises: impl Iterator<Item = raft::Message>) {
        for message in promises {
            self.peers.queue(message.to, PeerMessage::Raft(message));
        }
    }

    /// Empties the outbox. `inputs` gets what follows at once.
    fn deliver(&mut self, outbox: &mut Outbox, inputs: &mut Vec<Input>) {
        for (to, message) in outbox.peers.drain(..) {
            if let Some(refused) = self.peers.queue(to, message) {
                inputs.push(Input::Peer(to, refused));
            }
        }
        self.peers.flush();
        for persist in outbox.persists.drain(..) {
            self.disk.send(Work::Persist(persist));
        }
        for fetch in outbox.fetches.drain(..) {
            self.disk.send(Work::Fetch(fetch));
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
