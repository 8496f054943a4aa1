//! The round: inputs in, effects out.

use crate::command;
use crate::entry::{Header, Kind};
use crate::input::{Input, PeerMessage, RequestId};
use crate::invariants::Invariants;
use crate::log_names::LogNames;
use crate::members::{Member, Members};
use crate::outbox::{Outbox, Published, Reply};
use crate::proposals::{Forwards, Pending, Proposals};
use crate::reads::Reads;
use bytes::Bytes;
use raft::{
    Entry, EntryKind, Index, Node, NodeId, Position, Ready, Refusal, Restored, Status, Term,
};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use store::{Revision, Store};

/// How a member behaves.
#[derive(Clone, Debug)]
pub struct Config {
    /// Consensus: who we are, who the members are, and how patient.
    pub raft: raft::Config,
    /// Names this life of this member; never the same twice.
    pub boot: u64,
    /// All members, as they are known before the log tells more.
    pub members: Vec<Member>,
    /// A request that takes longer than this many ticks is given up.
    pub request_ticks_max: u32,
    /// The most bytes of writes that this member admits at once: from when they come in, its own
    /// clients' and, while it leads, its peers', until they are applied and on its disk, whether
    /// somebody still waits for them or not. Beyond, new ones are answered as busy; one is always
    /// admitted.
    pub admitted_bytes_max: usize,
    /// How much is done between two looks at the clock.
    pub slice: Slice,
}

/// A slice of long work: so much, and then the loop sees whether its turn has lasted long enough. Small
/// enough that it is asked often, large enough that busy turns are not cut.
#[derive(Clone, Copy, Debug)]
pub struct Slice {
    /// Entries to apply.
    pub entries: usize,
    /// Bytes of entries to apply; one more entry may be begun.
    pub bytes: usize,
    /// Bytes to move while sweeping, as [`Store::sweep`] counts them.
    pub sweep_bytes: usize,
}

impl Default for Slice {
    fn default() -> Slice {
        Slice { entries: 256, bytes: 256 << 10, sweep_bytes: store::SWEEP_BYTES }
    }
}

/// One member. See the crate's documentation for what it promises.
#[derive(Debug)]
pub struct Replica {
    id: NodeId,
    node: Node,
    store: Store,
    members: Members,
    /// The last entry that was applied.
    applied: Position,
    now: u64,
    request_ticks_max: u64,
    /// An election takes longer only when it has failed.
    election_ticks_max: u64,
    forward_bytes_max: usize,
    admitted_bytes_max: usize,
    slice: Slice,
    /// What consensus handed out and the store has not taken yet.
    committed: VecDeque<Entry>,
    committed_bytes: usize,
    proposals: Proposals,
    /// Writes of peers' clients: those decided about, and those of this round to be proposed in
    /// this term.
    forwards: Forwards,
    forwarded: Vec<(Term, Bytes)>,
    forwarded_bytes: usize,
    reads: Reads,
    transfer: Option<Transfer>,
    /// Requests of this round that nobody waits for any more.
    cancelled: BTreeSet<RequestId>,
    /// Something compacted is still there; these wait until it is not.
    sweeping: bool,
    /// It rests for now.
    sweep_paused: bool,
    swept_for: Vec<(RequestId, Reply)>,
    taken: u64,
    answered: u64,
    published: Option<(Status, Revision, bool)>,
    members_changed: bool,
    logs: Arc<LogNames>,
    pub(crate) invariants: Invariants,
}

#[derive(Debug)]
struct Transfer {
    request: RequestId,
    to: NodeId,
    deadline: u64,
}

impl Replica {
    /// A member that starts with what was on its disk. Its store is filled by what is committed.
    pub fn new(config: Config, restored: Restored) -> Replica {
        let (id, election_ticks) = (config.raft.id, config.raft.election_ticks);
        let mut replica = Replica {
            id,
            forward_bytes_max: config.raft.append_bytes_max,
            node: Node::new(config.raft, restored),
            store: Store::new(),
            members: Members::new(config.members),
            applied: Position::default(),
            now: 0,
            request_ticks_max: u64::from(config.request_ticks_max),
            election_ticks_max: 2 * u64::from(election_ticks),
            admitted_bytes_max: config.admitted_bytes_max,
            slice: config.slice,
            committed: VecDeque::new(),
            committed_bytes: 0,
            proposals: Proposals::new(id, config.boot),
            forwards: Forwards::default(),
            forwarded: Vec::new(),
            forwarded_bytes: 0,
            cancelled: BTreeSet::new(),
            reads: Reads::default(),
            transfer: None,
            sweeping: false,
            sweep_paused: false,
            swept_for: Vec::new(),
            taken: 0,
            answered: 0,
            published: None,
            logs: Arc::default(),
            members_changed: true,
            invariants: Invariants::default(),
        };
        replica.note_logs();
        replica
    }

    /// Whose logs count, by what this member's own log says.
    pub fn logs(&self) -> Arc<LogNames> {
        Arc::clone(&self.logs)
    }

    /// Takes inputs, as many as there are, and says what follows from them.
    pub fn handle(&mut self, inputs: impl IntoIterator<Item = Input>, outbox: &mut Outbox) {
        for input in inputs {
            self.take(input, outbox);
        }
        self.cancel();
        self.settle(outbox);
        self.sweep(outbox);
        outbox.more = self.wants_to_sweep() || !self.committed.is_empty();
        self.publish(outbox);
        Invariants::check(self);
    }

    /// Whether something that was compacted is still there, to be removed little by little.
    pub fn is_sweeping(&self) -> bool {
        self.sweeping
    }

    /// Whether entries are committed that the store has yet to apply.
    pub(crate) fn has_committed(&self) -> bool {
        !self.committed.is_empty()
    }

    /// Keeps what was compacted for now, or goes on to remove it.
    pub(crate) fn pause_sweep(&mut self, pause: bool) {
        self.sweep_paused = pause;
    }

    fn wants_to_sweep(&self) -> bool {
        self.sweeping && !self.sweep_paused
    }

    /// The state of consensus, and how far the store has applied what is committed.
    pub fn status(&self) -> Status {
        Status { applied: self.applied.index, ..self.node.status() }
    }

    /// How far consensus has handed out what is committed.
    pub(crate) fn handed_out(&self) -> Index {
        self.node.status().applied
    }

    /// Bytes of writes that this member has admitted. A write is here as long as its client waits, and
    /// in the log as long as it is not applied and on disk, and often in both.
    pub fn admitted_bytes(&self) -> usize {
        let in_log = self.node.status().unsettled_bytes + self.committed_bytes;
        let waiting = self.proposals.waiting_bytes() + self.forwarded_bytes;
        waiting + self.proposals.pending_bytes().max(in_log)
    }

    /// Whether so many more bytes are more than may be admitted.
    fn is_full(&self, bytes: usize) -> bool {
        let admitted = self.admitted_bytes();
        admitted > 0 && admitted + bytes > self.admitted_bytes_max
    }

    pub(crate) fn revision(&self) -> Revision {
        self.store.revision()
    }

    pub(crate) fn applied(&self) -> Index {
        self.applied.index
    }

    /// How many requests came in, and how many were answered or given up by whoever asked.
    pub(crate) fn taken(&self) -> u64 {
        self.taken
    }

    pub(crate) fn answered(&self) -> u64 {
        self.answered
    }

    /// How many requests wait for something.
    pub fn waiting(&self) -> usize {
        self.proposals.waiting_requests()
            + self.reads.len()
            + self.swept_for.len()
            + usize::from(self.transfer.is_some())
    }

    pub(crate) fn assert_sound(&self) {
        self.proposals.assert_sound(self.applied.term);
        assert!(self.forwarded.is_empty(), "what was forwarded is decided about in its round");
        assert!(self.forwarded_bytes == 0, "what was decided about has no bytes");
        let is_applied = self.committed.is_empty();
        assert!(is_applied == (self.committed_bytes == 0), "what is handed out has bytes");
    }

    fn take(&mut self, input: Input, outbox: &mut Outbox) {
        match input {
            Input::Tick => self.tick(outbox),
            Input::Peer(from, message) => self.on_peer(from, message, outbox),
            Input::Disconnected(peer) => self.node.disconnected(peer),
            Input::NotSent(peer, PeerMessage::Refused { boot, sequences }) => {
                self.proposals.not_sent(peer, boot, &sequences);
            }
            Input::NotSent(..) => {}
            Input::Connected(peer) => self.on_connected(peer, outbox),
            Input::Contact(peer) => self.node.contact(peer),
            Input::Propose { request, proposal } => {
                self.taken += 1;
                if self.is_full(proposal.bytes()) {
                    self.reply(outbox, request, Reply::Busy);
                } else {
                    self.proposals.push(request, proposal, self.deadline());
                }
            }
            Input::Read { request } => {
                self.taken += 1;
                self.reads.push(request, self.deadline());
            }
            Input::Persisted(ticket) => self.node.persisted(ticket),
            Input::Fetched(fetch, entries) => self.node.fetched(fetch, entries),
            Input::Transfer { request, to } => self.on_transfer(request, to, outbox),
            Input::Cancel(request) => {
                self.cancelled.insert(request);
            }
        }
    }

    fn deadline(&self) -> u64 {
        self.now + self.request_ticks_max
    }

    fn reply(&mut self, outbox: &mut Outbox, request: RequestId, reply: Reply) {
        self.answered += 1;
        outbox.replies.push((request, reply));
    }

    fn tick(&mut self, outbox: &mut Outbox) {
        self.now += 1;
        self.node.tick();
        self.proposals.tick();
        for (request, reply) in self.proposals.take_expired(self.now) {
            self.reply(outbox, request, reply);
        }
        for request in self.reads.take_expired(self.now) {
            self.reply(outbox, request, Reply::TimedOut);
        }
        if let Some(transfer) = self.transfer.take_if(|transfer| transfer.deadline <= self.now) {
            self.reply(outbox, transfer.request, Reply::TimedOut);
        }
    }

    fn on_peer(&mut self, from: NodeId, message: PeerMessage, outbox: &mut Outbox) {
        match message {
            // Who speaks was settled when the stream was opened.
            PeerMessage::Raft(message) if message.from == from => self.node.step(message),
            PeerMessage::Raft(_) => {}
            PeerMessage::Forward { term, proposals } => {
                self.on_forward(from, term, proposals, outbox);
            }
            PeerMessage::Refused { boot, sequences } => {
                self.proposals.refused(from, boot, &sequences);
            }
        }
    }

    /// Proposes a peer's writes, if we lead in the term that it thinks we do: it can tell from
    /// the log then what became of them.
    fn on_forward(&mut self, from: NodeId, term: Term, proposals: Vec<Bytes>, outbox: &mut Outbox) {
        let leads = self.leads(term);
        if leads {
            self.forwards.lead(term);
        }
        // Refused again, if the first refusal was lost.
        let refused_before = self.forwards.refused_before(from, term, &proposals);
        refuse(&refused_before, outbox);
        let mut refused = Vec::new();
        for proposal in self.forwards.take_new(from, term, proposals) {
            if leads && !self.is_full(proposal.len()) {
                self.forwarded_bytes += proposal.len();
                self.forwarded.push((term, proposal));
            } else {
                refused.push(proposal);
            }
        }
        self.refuse(term, refused, outbox);
    }

    /// Says that these will not be proposed in this term, and remembers it.
    fn refuse(&mut self, term: Term, proposals: Vec<Bytes>, outbox: &mut Outbox) {
        self.forwards.note_refused(term, &proposals);
        refuse(&proposals, outbox);
    }

    /// What was on its way to a leader whose connection broke may be lost, and so may its refusal. It
    /// is sent again: a leader tells what it has decided about by its number.
    fn on_connected(&mut self, peer: NodeId, outbox: &mut Outbox) {
        self.node.connected(peer);
        self.hand_over_again(peer, outbox);
    }

    /// Sends what this leader was given and has not decided about, if it leads.
    fn hand_over_again(&mut self, peer: NodeId, outbox: &mut Outbox) {
        let Status { leader, term, .. } = self.status();
        if leader == Some(peer) && peer != self.id {
            let pending = self.proposals.hand_over_again(peer, term);
            if !pending.is_empty() {
                forward(peer, term, pending, self.forward_bytes_max, outbox);
            }
        }
    }

    fn leads(&self, term: Term) -> bool {
        let status = self.status();
        status.term == term && status.leader == Some(self.id)
    }

    fn on_transfer(&mut self, request: RequestId, to: Option<NodeId>, outbox: &mut Outbox) {
        self.taken += 1;
        match self.node.transfer(to) {
            Ok(to) => {
                let deadline = self.deadline();
                let newer = Transfer { request, to, deadline };
                if let Some(older) = self.transfer.replace(newer) {
                    self.reply(outbox, older.request, Reply::TimedOut);
                }
            }
            Err(refusal) => self.reply(outbox, request, Reply::TransferRefused(refusal)),
        }
    }

    /// All at once: when a cluster hangs, thousands give up together.
    fn cancel(&mut self) {
        if self.cancelled.is_empty() {
            return;
        }
        let before = self.waiting();
        let cancelled = std::mem::take(&mut self.cancelled);
        self.proposals.cancel(&cancelled);
        self.reads.cancel(&cancelled);
        self.swept_for.retain(|(waiter, _)| !cancelled.contains(waiter));
        self.transfer.take_if(|transfer| cancelled.contains(&transfer.request));
        self.answered += (before - self.waiting()) as u64;
    }

    /// Lets consensus act until nothing is left to do.
    fn settle(&mut self, outbox: &mut Outbox) {
        let mut room = self.slice;
        self.apply_committed(&mut room, outbox);
        loop {
            self.settle_reign(outbox);
            self.propose(outbox);
            self.ask_for_reads();
            // No more than what is applied soon is taken out of the log.
            self.node.pause_apply(!self.committed.is_empty());
            let ready = self.node.ready();
            if ready.is_empty() {
                return;
            }
            self.carry_out(ready, &mut room, outbox);
        }
    }

    /// A change of leader decides what was given to the one before.
    fn settle_reign(&mut self, outbox: &mut Outbox) {
        let Status { leader, term, .. } = self.status();
        let is_news = self.proposals.lead(leader, term, self.now + self.election_ticks_max);
        if is_news && let Some(leader) = leader {
            // It may be the one of before, whom we gave up while we were not connected.
            self.hand_over_again(leader, outbox);
        }
        let leads = |of: Term| of == term && leader == Some(self.id);
        let deposed: Vec<(Term, Bytes)> =
            self.forwarded.extract_if(.., |(of, _)| !leads(*of)).collect();
        for (of, proposal) in deposed {
            self.forwarded_bytes -= proposal.len();
            self.refuse(of, vec![proposal], outbox);
        }
        if let Some(done) = self.transfer.take_if(|transfer| leader == Some(transfer.to)) {
            self.reply(outbox, done.request, Reply::Transferred(done.to));
        }
    }

    /// Gives what waits to the leader, whoever that is.
    fn propose(&mut self, outbox: &mut Outbox) {
        let Status { leader: Some(leader), term, .. } = self.status() else { return };
        let waits = self.proposals.is_waiting(leader, term);
        if leader != self.id {
            if waits {
                let proposals = self.proposals.take_waiting(leader, term);
                forward(leader, term, proposals, self.forward_bytes_max, outbox);
            }
            return;
        }
        if !waits && self.forwarded.is_empty() {
            return;
        }
        let forwarded: Vec<Bytes> =
            self.forwarded.drain(..).map(|(_, proposal)| proposal).collect();
        self.forwarded_bytes = 0;
        // Asked with nothing: during a hand-over ours wait, and those of others go home, from
        // where they find the new leader.
        if self.node.propose(Vec::new()) == Err(Refusal::Transferring) {
            self.refuse(term, forwarded, outbox);
            return;
        }
        let own = self.proposals.take_waiting(leader, term);
        let all = forwarded.into_iter().chain(own).collect();
        self.node.propose(all).expect("it leads and hands nothing over");
    }

    fn ask_for_reads(&mut self) {
        if let Some(id) = self.reads.next_to_ask()
            && self.node.read(id).is_ok()
        {
            self.reads.asked(id);
        }
    }

    fn carry_out(&mut self, ready: Ready, room: &mut Slice, outbox: &mut Outbox) {
        let messages = ready.messages.into_iter();
        outbox.peers.extend(messages.map(|message| (message.to, PeerMessage::Raft(message))));
        outbox.persists.extend(ready.persist);
        outbox.fetches.extend(ready.fetches);
        outbox.notices.extend(ready.notices);
        self.committed_bytes += ready.committed.iter().map(Entry::bytes).sum::<usize>();
        self.committed.extend(ready.committed);
        self.apply_committed(room, outbox);
        for read in ready.reads {
            self.reads.confirmed(read);
        }
        for read in ready.reads_lost {
            self.reads.lost(read);
        }
        self.serve_reads(outbox);
    }

    fn serve_reads(&mut self, outbox: &mut Outbox) {
        for request in self.reads.take_served(self.applied.index) {
            self.reply(outbox, request, Reply::Readable);
        }
    }

    /// Applies what is committed, as far as there is room for it in this round.
    fn apply_committed(&mut self, room: &mut Slice, outbox: &mut Outbox) {
        let before = self.applied.index;
        while room.entries > 0
            && room.bytes > 0
            && let Some(entry) = self.committed.pop_front()
        {
            room.entries -= 1;
            room.bytes = room.bytes.saturating_sub(entry.bytes());
            self.committed_bytes -= entry.bytes();
            self.apply(entry, outbox);
        }
        if self.applied.index > before {
            self.serve_reads(outbox);
        }
    }

    fn apply(&mut self, entry: Entry, outbox: &mut Outbox) {
        assert!(entry.at.index == self.applied.index.next(), "entries are applied in order");
        if entry.at.term > self.applied.term {
            self.proposals.reached(entry.at.term);
        }
        self.applied = entry.at;
        if entry.kind != EntryKind::Command {
            return;
        }
        let (header, body) = match Header::decode(&entry.payload) {
            Ok(decoded) => decoded,
            // Going on without it would make this member differ from those that know it.
            Err(unknown) => panic!("{}: {unknown}", entry.at),
        };
        let waiter = match self.proposals.applied(header.origin) {
            Some(Pending { request: Some(request), physical, .. }) => Some((request, physical)),
            _ => None,
        };
        let reply = self.execute(header.kind, body, waiter.is_some());
        match (waiter, reply) {
            (Some((request, true)), Some(reply))
                if self.sweeping && matches!(reply, Reply::Applied { outcome: Ok(_), .. }) =>
            {
                self.swept_for.push((request, reply));
            }
            (Some((request, _)), Some(reply)) => self.reply(outbox, request, reply),
            _ => {}
        }
    }

    /// What every member does alike with an entry. The answer is made where somebody waits for it, and
    /// nowhere else: it may be as large as a client likes.
    fn execute(&mut self, kind: Kind, body: Bytes, is_wanted: bool) -> Option<Reply> {
        if kind == Kind::Publish {
            let Ok(publish) = command::parse(body) else { return Some(Reply::Malformed) };
            self.members_changed |= self.members.publish(publish);
            return Some(Reply::Published);
        }
        let Ok(command) = command::decode(kind, body) else { return Some(Reply::Malformed) };
        self.sweeping |= kind == Kind::Compact;
        if !is_wanted {
            let _same_as_if_wanted = self.store.apply_unanswered(&command);
            return None;
        }
        let outcome = self.store.apply(&command);
        Some(Reply::Applied { outcome, revision: self.store.revision() })
    }

    /// Removes a little of what was compacted.
    fn sweep(&mut self, outbox: &mut Outbox) {
        if self.wants_to_sweep() {
            self.sweeping = self.store.sweep(self.slice.sweep_bytes);
        }
        if !self.sweeping {
            for (request, reply) in std::mem::take(&mut self.swept_for) {
                self.reply(outbox, request, reply);
            }
        }
    }

    fn publish(&mut self, outbox: &mut Outbox) {
        let now = (self.status(), self.store.revision(), self.sweeping);
        let logs_changed = self.note_logs();
        if self.published == Some(now) && !self.members_changed && !logs_changed {
            return;
        }
        self.published = Some(now);
        self.members_changed = false;
        outbox.published = Some(Published {
            view: self.store.view(),
            status: self.status(),
            members: self.members.all(),
            logs: Arc::clone(&self.logs),
        });
    }

    /// Keeps what the log says of members' logs. Returns whether that is news.
    fn note_logs(&mut self) -> bool {
        let (admitted, history) = (self.node.admitted(), self.node.history());
        let own = self.node.incarnation();
        let known = (self.logs.own, &self.logs.admitted, self.logs.history);
        let is_news = known != (own, admitted, history);
        if is_news {
            self.logs = Arc::new(LogNames { own, admitted: admitted.clone(), history });
        }
        is_news
    }
}

/// Forwards proposals in their order: in one message, unless that would be larger than an append.
fn forward(leader: NodeId, term: Term, waiting: Vec<Bytes>, bytes_max: usize, outbox: &mut Outbox) {
    let mut proposals = Vec::new();
    let mut bytes = 0;
    for proposal in waiting {
        if bytes > 0 && bytes + proposal.len() > bytes_max {
            let proposals = std::mem::take(&mut proposals);
            outbox.peers.push((leader, PeerMessage::Forward { term, proposals }));
            bytes = 0;
        }
        bytes += proposal.len();
        proposals.push(proposal);
    }
    outbox.peers.push((leader, PeerMessage::Forward { term, proposals }));
}

/// Tells the origins of these that they were not proposed, and will not be.
fn refuse(proposals: &[Bytes], outbox: &mut Outbox) {
    let mut refused: BTreeMap<(NodeId, u64), Vec<u64>> = BTreeMap::new();
    for (Header { origin, .. }, _) in proposals.iter().flat_map(Header::decode) {
        refused.entry((origin.member, origin.boot)).or_default().push(origin.sequence);
    }
    for ((member, boot), sequences) in refused {
        outbox.peers.push((member, PeerMessage::Refused { boot, sequences }));
    }
}
