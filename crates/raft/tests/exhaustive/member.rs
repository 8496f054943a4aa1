//! One member as the search sees it: a node, its disk, and the writes between the two; what may
//! happen to it, and what comes of that. The rules that a member can break by itself are checked
//! here.

use crate::bounds::Bounds;
use crate::cluster::DiskImage;
use bytes::Bytes;
use raft::*;
use std::collections::VecDeque;
use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};

/// Every input uses up the ticks that it takes, so time stands still between two of them: a
/// campaign takes the rest of the patience, a heartbeat the time between two checks for a quorum.
const ELECTION_TICKS: u32 = 2;

#[derive(Clone)]
pub struct Member {
    id: NodeId,
    node: Node,
    disk: DiskImage,
    /// Writes that were handed out and are not on disk yet, oldest first.
    writing: VecDeque<Persist>,
    applied: Index,
    /// Inputs that did something since the node was asked what there is to do.
    inputs: usize,
}

/// What may happen to a member. `M` is a message, or names one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Input<M> {
    /// A message arrives, for the first time or again.
    Deliver(M),
    /// The oldest write is on disk.
    Sync,
    /// Patience ends.
    Campaign,
    /// A client proposes a command to a leader.
    Propose,
    /// A client asks a leader for a read, the n-th of all.
    Read(usize),
    /// A leader sends heartbeats, and looks whether it hears a quorum.
    Heartbeat,
    /// A leader hears that the connection to a peer broke.
    Disconnect(NodeId),
    /// The driver asks what there is to do, and does it.
    Settle,
    /// The process dies, and starts again from what is on its disk. Being dead for longer is the
    /// same as messages that take longer, and a write that reached the disk without being
    /// confirmed the same as one whose promises were lost.
    Crash {
        /// The disk knows how far the log is committed; that is luck.
        hint: bool,
    },
}

/// What comes of an input.
pub struct Outcome {
    pub member: Member,
    pub synced: Vec<Persist>,
    pub sent: Vec<Message>,
    pub applied: Vec<Entry>,
    pub reads: Vec<ReadReady>,
}

impl Member {
    /// A member that starts for the first time.
    pub fn new(id: NodeId, bounds: &Bounds) -> Member {
        Member::start(id, DiskImage::default(), bounds)
    }

    fn start(id: NodeId, disk: DiskImage, bounds: &Bounds) -> Member {
        let config = Config {
            id,
            membership: Membership::new(bounds.ids()),
            election_ticks: ELECTION_TICKS,
            heartbeat_ticks: 1,
            seed: 1,
            pre_vote: bounds.careful,
            check_quorum: bounds.careful,
            append_bytes_max: if bounds.single_entries { 1 } else { 1 << 20 },
            inflight_bytes_max: 1 << 20,
            tail_bytes_max: 1 << 20,
        };
        let node = Node::new(config, disk.restored());
        Member { id, node, disk, writing: VecDeque::new(), applied: Index(0), inputs: 0 }
    }

    pub fn status(&self) -> Status {
        self.node.status()
    }

    pub fn disk(&self) -> &DiskImage {
        &self.disk
    }

    /// How many writes are under way.
    pub fn writes(&self) -> usize {
        self.writing.len()
    }

    /// The log as far as it was handed out: what is on disk, and what is on its way there.
    pub fn log(&self) -> Vec<Entry> {
        let mut disk = self.disk.clone();
        self.writing.iter().for_each(|persist| disk.write(persist));
        disk.entries
    }

    /// Members with the same fingerprint are in the same state.
    pub fn fingerprint(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        self.hash(&mut hasher);
        hasher.finish()
    }

    /// What may happen to it besides messages.
    pub fn inputs<M>(&self, bounds: &Bounds) -> Vec<Input<M>> {
        let Status { role, term, .. } = self.status();
        let mut inputs = vec![Input::Crash { hint: true }];
        if self.disk.commit > Index(0) {
            inputs.push(Input::Crash { hint: false });
        }
        if self.inputs > 0 {
            inputs.push(Input::Settle);
        }
        if !self.writing.is_empty() {
            inputs.push(Input::Sync);
        }
        match role {
            RoleName::Leader => {
                inputs.push(Input::Propose);
                inputs.extend((0..bounds.reads).map(Input::Read));
                inputs.extend(bounds.heartbeats.then_some(Input::Heartbeat));
                let peers = bounds.ids().into_iter().filter(|peer| *peer != self.id);
                inputs.extend(peers.map(Input::Disconnect));
            }
            // One that asks again forgets the answers that it has. They might as well be lost.
            RoleName::PreCandidate => {}
            RoleName::Follower | RoleName::Candidate => {
                let allowed = bounds.may_campaign(self.id, term.next());
                inputs.extend(allowed.then_some(Input::Campaign));
            }
        }
        inputs
    }

    /// What comes of an input; `None` if it cannot happen now.
    ///
    /// # Panics
    /// If a rule is broken that a member can break by itself, or one that the core checks.
    pub fn take(&self, input: &Input<&Message>, bounds: &Bounds) -> Option<Outcome> {
        let mut outcome = Outcome::new(self.clone());
        if !outcome.give(input, bounds) {
            return None;
        }
        if outcome.member.fingerprint() != self.fingerprint() {
            outcome.member.inputs += 1;
        }
        let at_once = matches!(input, Input::Settle | Input::Crash { .. });
        if at_once || outcome.member.inputs >= bounds.inputs_max {
            outcome.settle(bounds);
        }
        outcome.member.check();
        Some(outcome)
    }

    /// Lets patience end. False if it does not: a member that waits for its disk is patient.
    fn campaign(&mut self) -> bool {
        let before = self.status();
        (0..2 * ELECTION_TICKS).any(|_| {
            self.node.tick();
            let now = self.status();
            now.term > before.term || now.role != before.role
        })
    }

    /// Queues a write. One that holds nothing is joined to the one before it, as a driver may.
    fn write(&mut self, persist: Persist) {
        match self.writing.back_mut() {
            Some(last) if holds_nothing(&persist) => {
                last.ticket = persist.ticket;
                for promise in persist.then_send {
                    if !last.then_send.contains(&promise) {
                        last.then_send.push(promise);
                    }
                }
            }
            _ => self.writing.push_back(persist),
        }
    }

    fn check(&self) {
        let (log, status) = (self.log(), self.status());
        let durable = log.get(..status.durable.0 as usize);
        let on_disk = durable.is_some_and(|log| self.disk.entries.starts_with(log));
        assert!(on_disk, "what counts as durable is on disk");
        if self.inputs == 0 {
            assert_eq!(last(&log), status.last, "the log is on disk or on its way there");
        }
    }
}

impl Outcome {
    fn new(member: Member) -> Outcome {
        let (synced, sent) = (Vec::new(), Vec::new());
        Outcome { member, synced, sent, applied: Vec::new(), reads: Vec::new() }
    }

    /// Gives the member an input. False if it cannot happen now.
    fn give(&mut self, input: &Input<&Message>, bounds: &Bounds) -> bool {
        let Member { id, node, disk, .. } = &mut self.member;
        match *input {
            Input::Deliver(message) => node.step(message.clone()),
            Input::Sync => self.sync(),
            Input::Campaign => return self.member.campaign(),
            Input::Propose => {
                let payload = Bytes::from(format!("n{id}"));
                return node.propose(vec![payload]).is_ok();
            }
            Input::Read(n) => return node.read(ReadId(n as u64)).is_ok(),
            Input::Heartbeat => (0..ELECTION_TICKS).for_each(|_| node.tick()),
            Input::Disconnect(peer) => node.disconnected(peer),
            Input::Settle => {}
            Input::Crash { hint } => {
                let commit = if hint { disk.commit } else { Index(0) };
                let disk = DiskImage { commit, ..disk.clone() };
                self.member = Member::start(*id, disk, bounds);
            }
        }
        true
    }

    /// Does what the node asks for, until it asks for nothing more.
    fn settle(&mut self, bounds: &Bounds) {
        self.member.inputs = 0;
        loop {
            let ready = self.member.node.ready();
            let oldest = self.member.writing.front();
            if !ready.is_empty() {
                self.carry_out(ready);
            } else if oldest.is_some_and(|oldest| bounds.prompt_disks() || holds_nothing(oldest)) {
                self.sync();
            } else {
                return;
            }
        }
    }

    fn carry_out(&mut self, ready: Ready) {
        let member = &mut self.member;
        for message in ready.messages {
            check_claim(&message, &member.disk);
            self.sent.push(message);
        }
        if let Some(persist) = ready.persist {
            member.write(persist);
        }
        for fetch in ready.fetches {
            let wanted = fetch.from.prev().0 as usize..fetch.to.0 as usize;
            let entries = member.disk.entries.get(wanted).expect("what is fetched is on disk");
            member.node.fetched(fetch, entries.to_vec());
        }
        for entry in ready.committed {
            assert_eq!(entry.at.index, member.applied.next(), "applied in order, each index once");
            member.applied = entry.at.index;
            self.applied.push(entry);
        }
        self.reads.extend(ready.reads);
    }

    fn sync(&mut self) {
        let member = &mut self.member;
        let persist = member.writing.pop_front().expect("a write is under way");
        member.disk.write(&persist);
        member.node.persisted(persist.ticket);
        for message in &persist.then_send {
            check_claim(message, &member.disk);
            self.sent.push(message.clone());
        }
        self.synced.push(persist);
    }
}

impl Hash for Member {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let Member { id, node, disk, writing, applied, inputs } = self;
        (id, node, disk, applied, inputs).hash(state);
        // The numbers of writes ascend by one: their order says everything.
        for Persist { ticket: _, hard_state, entries, commit, then_send } in writing {
            (hard_state, entries, commit, then_send).hash(state);
        }
    }
}

impl<M: fmt::Display> fmt::Display for Input<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Input::Deliver(message) => write!(f, "deliver {message}"),
            Input::Sync => write!(f, "sync"),
            Input::Campaign => write!(f, "campaign"),
            Input::Propose => write!(f, "propose"),
            Input::Read(n) => write!(f, "read {n}"),
            Input::Heartbeat => write!(f, "heartbeat"),
            Input::Disconnect(peer) => write!(f, "disconnect {peer}"),
            Input::Settle => write!(f, "settle"),
            Input::Crash { hint: true } => write!(f, "crash, restart"),
            Input::Crash { hint: false } => write!(f, "crash, restart without a commit index"),
        }
    }
}

/// Whether a write carries only promises.
pub fn holds_nothing(persist: &Persist) -> bool {
    persist.hard_state.is_none() && persist.entries.is_empty()
}

fn last(log: &[Entry]) -> Position {
    log.last().map_or(Position::ORIGIN, |entry| entry.at)
}

/// What a message claims of its sender's disk is true when it leaves.
fn check_claim(message: &Message, disk: &DiskImage) {
    let HardState { term, vote } = disk.hard_state;
    let voted = |id| term > message.term || (term, vote) == (message.term, Some(id));
    let holds = match message.body {
        Body::VoteReply { granted: true, .. } => voted(message.to),
        Body::Vote { last: claimed, .. } => voted(message.from) && claimed <= last(&disk.entries),
        Body::Appended { matched } => term >= message.term && matched <= last(&disk.entries).index,
        _ => true,
    };
    assert!(holds, "what a message claims is on disk when it leaves: {message}");
}
