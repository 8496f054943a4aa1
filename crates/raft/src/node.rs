//! One member's consensus: inputs as method calls, effects as one [`Ready`].

use crate::admissions::{Admission, Incarnation, Standing, decode_admission};
use crate::candidate::Candidate;
use crate::entry::{Entry, EntryKind, HardState, Index, NodeId, Position, Term};
use crate::follower::Follower;
use crate::invariants::Invariants;
use crate::leader::Leader;
use crate::log::{Log, Stretch};
use crate::membership::Membership;
use crate::message::{Body, Message};
use crate::ready::{Fetch, FetchFor, Notice, Persist, ReadId, ReadReady, Ready, Ticket};
use bytes::Bytes;
use std::collections::BTreeMap;
use std::hash::{Hash, Hasher};

/// How a node behaves. Times are in ticks, whatever the driver makes a tick.
#[derive(Clone, Debug)]
pub struct Config {
    /// This member.
    pub id: NodeId,
    /// All members.
    pub membership: Membership,
    /// A follower that hears nothing campaigns after a time drawn from `[n, 2n)`. At least 2.
    pub election_ticks: u32,
    /// A leader speaks at least this often. At least 1, below `election_ticks`.
    pub heartbeat_ticks: u32,
    /// Where chance comes from. Must differ in each life of each member: tokens of reads are
    /// drawn from it.
    pub seed: u64,
    /// Ask before campaigning, so that a member that was cut off disturbs nobody
    /// (thesis, section 9.6).
    pub pre_vote: bool,
    /// A leader that hears no quorum steps down, and a follower that hears its leader refuses to
    /// vote for another (thesis, sections 6.2 and 4.2.3).
    pub check_quorum: bool,
    /// The most bytes of entries in one append; one entry is sent whatever its size.
    pub append_bytes_max: usize,
    /// Appends to one peer stop while this many bytes are unanswered.
    pub inflight_bytes_max: usize,
    /// Payloads kept in memory after they were applied, in bytes.
    pub tail_bytes_max: usize,
}

/// What a member finds on its disk when it starts.
#[derive(Clone, Debug, Default)]
pub struct Restored {
    /// The life of its log that begins now.
    pub incarnation: Incarnation,
    /// Term and vote.
    pub hard_state: HardState,
    /// The name of each entry of the log, in order and without gaps from index 1.
    pub positions: Vec<Position>,
    /// The admissions among them, ascending.
    pub admissions: Vec<(Index, Admission)>,
    /// An index that is known to be committed; 0 if none is.
    pub commit: Index,
}

/// Why a call was refused. Nothing has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Only the leader can do this; it may be this one.
    NotLeader {
        /// The leader of the term, if it is known.
        leader: Option<NodeId>,
    },
    /// The leader is handing over; ask again when that is over.
    Transferring,
    /// There is no leader that could be asked.
    NoLeader,
    /// No voter of this name, or it is the leader already.
    UnknownPeer(NodeId),
}

/// What a member is at the moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RoleName {
    /// It follows a leader, or waits for one.
    Follower,
    /// It asks whether it would be elected.
    PreCandidate,
    /// It asks to be elected.
    Candidate,
    /// It leads.
    Leader,
}

/// A node's state as others may see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Status {
    /// This member.
    pub id: NodeId,
    /// Its role.
    pub role: RoleName,
    /// Its term.
    pub term: Term,
    /// The leader of that term, if known.
    pub leader: Option<NodeId>,
    /// The last entry of its log.
    pub last: Position,
    /// How far its log is on its disk.
    pub durable: Index,
    /// How far its log is known to be committed.
    pub commit: Index,
    /// How far committed entries were handed out.
    pub applied: Index,
    /// Bytes of entries that are in memory because they are not on disk or not applied.
    pub unsettled_bytes: usize,
    /// Messages dropped because no correct member sends them.
    pub dropped: u64,
}

/// One member of the cluster. See the crate's documentation for the contract.
#[derive(Clone, Debug)]
pub struct Node {
    core: Core,
    role: Role,
    invariants: Invariants,
}

/// The roles. What belongs to a role lives in it: a follower has no votes.
#[derive(Clone, Debug, Hash)]
pub(crate) enum Role {
    Follower(Follower),
    Candidate(Candidate),
    Leader(Leader),
}

/// What a handler wants to become of the role. Only `Node::transition` changes it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Next {
    Stay,
    Follow {
        term: Term,
        leader: Option<NodeId>,
    },
    /// Somebody is in a later term. That alone is no reason to wait longer for a leader.
    Enter {
        term: Term,
    },
    PreCampaign,
    Campaign {
        transfer: bool,
    },
    Lead,
}

/// What a member has in every role.
#[derive(Clone, Debug)]
pub(crate) struct Core {
    pub(crate) config: Config,
    pub(crate) incarnation: Incarnation,
    pub(crate) hard_state: HardState,
    pub(crate) log: Log,
    /// Term and vote as last handed to the disk, and as known to be on it.
    handed: HardState,
    written: HardState,
    last_ticket: Ticket,
    /// What the next `Persist` will hold.
    unwritten: Vec<Entry>,
    promises: Vec<Message>,
    /// What the next `Ready` will hold besides.
    messages: Vec<Message>,
    fetches: Vec<Fetch>,
    committed: Vec<Entry>,
    reads: Vec<ReadReady>,
    reads_lost: Vec<ReadId>,
    pub(crate) notices: Vec<Notice>,
    /// Lives of peers' logs that were heard of and that ours does not name.
    heard: BTreeMap<NodeId, Incarnation>,
    /// The last life of each peer's log that is not the one that counts: said once.
    replaced: BTreeMap<NodeId, Incarnation>,
    /// The state machine takes no more entries now.
    is_apply_paused: bool,
    /// Entries for the state machine are being read from disk.
    applying_from_disk: bool,
    chance: u64,
    dropped: u64,
    /// The latest term whose leader was learnt, and that leader. Remembered across roles: who asks
    /// whether it would be elected, or was refused, still knows who leads.
    led_by: Option<(Term, NodeId)>,
}

/// No correct cluster reaches such terms, indexes or starts; a peer that names them sends nonsense.
pub(crate) const NUMBER_MAX: u64 = 1 << 62;

impl Node {
    /// A member that starts, as a follower.
    ///
    /// # Panics
    /// If the configuration cannot work: no voters, times out of order.
    pub fn new(config: Config, restored: Restored) -> Node {
        assert!(config.membership.voters().next().is_some(), "a cluster has voters");
        assert!(config.heartbeat_ticks >= 1, "a heartbeat takes a tick at least");
        assert!(config.heartbeat_ticks < config.election_ticks, "heartbeats prevent elections");
        let Restored { incarnation, hard_state, positions, admissions, commit } = restored;
        let log = Log::restore(&positions, admissions, commit, config.tail_bytes_max);
        assert!(log.last().term <= hard_state.term, "a log is no newer than the term");
        let mut core = Core {
            chance: config.seed,
            config,
            incarnation,
            hard_state,
            log,
            handed: hard_state,
            written: hard_state,
            last_ticket: Ticket(0),
            unwritten: Vec::new(),
            promises: Vec::new(),
            messages: Vec::new(),
            fetches: Vec::new(),
            committed: Vec::new(),
            reads: Vec::new(),
            reads_lost: Vec::new(),
            notices: Vec::new(),
            heard: BTreeMap::new(),
            replaced: BTreeMap::new(),
            is_apply_paused: false,
            applying_from_disk: false,
            dropped: 0,
            led_by: None,
        };
        let role = Role::Follower(Follower::new(&mut core, None));
        let invariants = Invariants::new(&core, &role);
        Node { core, role, invariants }
    }

    /// Lets one tick of time pass.
    pub fn tick(&mut self) {
        let next = match &mut self.role {
            Role::Follower(follower) => follower.on_tick(&mut self.core),
            Role::Candidate(candidate) => candidate.on_tick(&mut self.core),
            Role::Leader(leader) => leader.on_tick(&mut self.core),
        };
        self.transition(next);
        self.check();
    }

    /// Takes a message from a peer. What no correct peer sends is dropped and counted.
    pub fn step(&mut self, message: Message) {
        if !self.is_sane(&message) {
            self.core.dropped += 1;
        } else if let Some(counts) = self.core.check_incarnation(&message)
            && self.check_term(&message)
            && (counts || !message.body.is_counted())
        {
            let next = self.dispatch(message);
            self.transition(next);
        }
        self.check();
    }

    /// Proposes commands. They get contiguous positions of one term; the first is returned.
    /// Whether they are ever committed shows when they are handed out as such, or when another
    /// leader's entries are.
    ///
    /// # Errors
    /// [`Refusal::NotLeader`] and [`Refusal::Transferring`].
    pub fn propose(&mut self, payloads: Vec<Bytes>) -> Result<Position, Refusal> {
        let proposed = match &mut self.role {
            Role::Leader(leader) => leader.propose(&mut self.core, payloads),
            role => Err(Refusal::NotLeader { leader: role.leader(&self.core) }),
        };
        self.check();
        proposed
    }

    /// Asks for a linearizable read. It ends in [`Ready::reads`] or [`Ready::reads_lost`].
    ///
    /// # Errors
    /// [`Refusal::NoLeader`] when nobody could confirm it.
    pub fn read(&mut self, id: ReadId) -> Result<(), Refusal> {
        match &mut self.role {
            Role::Follower(follower) => follower.read(&mut self.core, id)?,
            Role::Candidate(_) => return Err(Refusal::NoLeader),
            Role::Leader(leader) => leader.read(&self.core, id),
        }
        self.check();
        Ok(())
    }

    /// The write of this ticket, and all before it, are on disk.
    ///
    /// # Panics
    /// If the ticket was never handed out.
    pub fn persisted(&mut self, ticket: Ticket) {
        assert!(ticket <= self.core.last_ticket, "only what was handed out is persisted");
        if let Some(hard_state) = self.core.log.written(ticket) {
            self.core.written = hard_state;
        }
        let next = match &mut self.role {
            Role::Candidate(candidate) => candidate.on_persisted(&mut self.core),
            Role::Follower(_) | Role::Leader(_) => Next::Stay,
        };
        self.transition(next);
        self.check();
    }

    /// Takes entries that were asked for by a [`Fetch`]. Those that are no longer what the log
    /// holds are ignored.
    pub fn fetched(&mut self, fetch: Fetch, entries: Vec<Entry>) {
        let mut index = fetch.from.prev();
        let current = entries.iter().all(|entry| {
            index = index.next();
            entry.at.index == index && self.core.log.contains(entry.at)
        });
        let entries = if current { entries } else { Vec::new() };
        match (fetch.purpose, &mut self.role) {
            (FetchFor::Apply, _) => self.core.fetched_for_apply(fetch.from, entries),
            (FetchFor::Peer(id), Role::Leader(leader)) => {
                leader.on_fetched(&mut self.core, id, fetch.from, entries);
            }
            (FetchFor::Peer(_), _) => {}
        }
        self.check();
    }

    /// Hands leadership over: to this voter, or to the one whose log is the longest. Proposals
    /// are refused until it is done, or given up after an election timeout.
    ///
    /// # Errors
    /// [`Refusal::NotLeader`] and [`Refusal::UnknownPeer`].
    pub fn transfer(&mut self, to: Option<NodeId>) -> Result<NodeId, Refusal> {
        let target = match &mut self.role {
            Role::Leader(leader) => leader.transfer(&mut self.core, to),
            role => Err(Refusal::NotLeader { leader: role.leader(&self.core) }),
        };
        self.check();
        target
    }

    /// A hint that the connection to a peer broke. If that was the leader, a follower is less
    /// patient with its silence; pre-vote keeps a wrong hint harmless.
    pub fn disconnected(&mut self, peer: NodeId) {
        match &mut self.role {
            Role::Follower(follower) => follower.on_disconnected(&self.core, peer),
            Role::Leader(leader) => leader.on_disconnected(peer),
            Role::Candidate(_) => {}
        }
        self.check();
    }

    /// Whether the state machine takes no more entries for now: then [`Ready::committed`] stays empty.
    /// What it took is not counted as being in the log's memory any more, so whoever falls behind
    /// pauses.
    pub fn pause_apply(&mut self, is_paused: bool) {
        self.core.is_apply_paused = is_paused;
    }

    /// Something of a long message from a peer has arrived, which proves that it is alive and that
    /// there is a connection: as good as a heartbeat and its answer, but that it confirms no read.
    pub fn contact(&mut self, peer: NodeId) {
        match &mut self.role {
            Role::Follower(follower) => follower.on_contact(&mut self.core, peer),
            Role::Leader(leader) => leader.on_contact(peer),
            Role::Candidate(_) => {}
        }
        self.check();
    }

    /// The life of this member's log.
    pub fn incarnation(&self) -> Incarnation {
        self.core.incarnation
    }

    /// The lives of members' logs that count for certain: those that committed entries name. Empty
    /// before the first admission is committed, which may yet be replaced by another leader's.
    pub fn admitted(&self) -> &Admission {
        self.core.log.admissions().committed()
    }

    /// Names the log that all members share; 0 before its first admission is committed.
    pub fn history(&self) -> u64 {
        self.core.log.admissions().history()
    }

    /// A new connection to a peer: what was on an old one may be lost, in either direction.
    pub fn connected(&mut self, peer: NodeId) {
        // It may be another life of the log now, of which nothing is known.
        let claims = |body: &Body| matches!(body, Body::Heartbeat { .. } | Body::Commit { .. });
        self.core.messages.retain(|message| message.to != peer || !claims(&message.body));
        match &mut self.role {
            Role::Follower(follower) => follower.on_connected(peer),
            Role::Leader(leader) => leader.on_disconnected(peer),
            Role::Candidate(_) => {}
        }
        self.check();
    }

    /// Everything there is to do since the last call.
    pub fn ready(&mut self) -> Ready {
        if let Role::Leader(leader) = &mut self.role {
            leader.flush(&mut self.core);
        }
        let ready = self.core.take_ready();
        self.check();
        ready
    }

    /// The state as others may see it.
    pub fn status(&self) -> Status {
        let log = &self.core.log;
        Status {
            id: self.core.config.id,
            role: self.role.name(),
            term: self.core.hard_state.term,
            leader: self.role.leader(&self.core),
            last: log.last(),
            durable: log.durable(),
            commit: log.committed(),
            applied: log.applied(),
            unsettled_bytes: log.unsettled_bytes(),
            dropped: self.core.dropped,
        }
    }

    /// Whether a correct peer could have sent this to us.
    fn is_sane(&self, message: &Message) -> bool {
        let config = &self.core.config;
        message.to == config.id
            && message.from != config.id
            && config.membership.contains(message.from)
            && message.term > Term(0)
            && message.term.0 < NUMBER_MAX
            && message.incarnation.is_possible()
            && match &message.body {
                Body::Append { prev, entries, .. } => follows(*prev, entries, message.term),
                _ => true,
            }
    }

    /// The term check, once for all messages (figure 2, "rules for servers"). Returns whether the
    /// message is of our term, which it may have changed.
    fn check_term(&mut self, message: &Message) -> bool {
        let term = self.core.hard_state.term;
        match message.body {
            // These speak of a term that nobody has entered yet.
            Body::PreVote { .. } => true,
            Body::PreVoteReply { granted: true } => message.term == term.next(),
            // Somebody who lost touch asks for votes; the leader is well (section 6, last part).
            Body::Vote { transfer: false, .. } if message.term > term && self.is_led() => false,
            _ if message.term > term => {
                self.transition(Next::Enter { term: message.term });
                true
            }
            _ if message.term < term => {
                self.answer_stale(message);
                false
            }
            _ => true,
        }
    }

    /// Tells the sender of an old term about ours, if that may be news to it.
    fn answer_stale(&mut self, message: &Message) {
        let body = match message.body {
            // No rejection: that would say that we lack what we may well have.
            Body::Append { .. } | Body::Heartbeat { .. } => Body::HeartbeatReply { round: 0 },
            Body::Vote { last, .. } => {
                Body::VoteReply { granted: false, last, candidate: message.incarnation }
            }
            _ => return,
        };
        self.core.send(message.from, body);
    }

    fn dispatch(&mut self, message: Message) -> Next {
        let Message { from, term, incarnation, body, .. } = message;
        if body.is_of_leader() && !self.core.is_led_by(from) {
            return self.core.drop_nonsense();
        }
        if matches!(self.role, Role::Candidate(_)) && body.is_of_leader() {
            // Somebody else won this term: follow, then hear what it says.
            self.transition(Next::Follow { term, leader: Some(from) });
        }
        let core = &mut self.core;
        match (body, &mut self.role) {
            (Body::PreVote { last }, _) => self.on_pre_vote(from, term, last),
            (Body::Vote { last, .. }, _) => self.on_vote(from, incarnation, last),

            (Body::PreVoteReply { granted }, Role::Candidate(candidate)) => {
                candidate.on_pre_vote_reply(core, from, granted)
            }
            (
                Body::VoteReply { granted, last, candidate: voted_for },
                Role::Candidate(candidate),
            ) => candidate.on_vote_reply(core, from, granted, last, voted_for),
            (Body::Append { prev, entries, commit }, Role::Follower(follower)) => {
                follower.on_append(core, from, prev, entries, commit)
            }
            (Body::Heartbeat { commit, round }, Role::Follower(follower)) => {
                follower.on_heartbeat(core, from, commit, round)
            }
            (Body::Commit { commit }, Role::Follower(follower)) => {
                follower.on_commit(core, from, commit)
            }
            (Body::ReadReply { id, index }, Role::Follower(follower)) => {
                follower.on_read_reply(core, id, index)
            }
            (Body::TimeoutNow, Role::Follower(follower)) => follower.on_timeout_now(core, from),

            (Body::Appended { matched }, Role::Leader(leader)) => {
                leader.on_appended(core, from, incarnation, matched)
            }
            (Body::Rejected { prev, hint }, Role::Leader(leader)) => {
                leader.on_rejected(core, from, incarnation, prev, hint)
            }
            (Body::HeartbeatReply { round }, Role::Leader(leader)) => {
                leader.on_heartbeat_reply(core, from, round)
            }
            (Body::ReadRequest { id }, Role::Leader(leader)) => leader.on_read_request(from, id),
            // Late answers to what we were, and the leader's words to a role that needs none.
            _ => Next::Stay,
        }
    }

    /// Grants nothing and changes nothing: says how a vote would go.
    fn on_pre_vote(&mut self, from: NodeId, term: Term, last: Position) -> Next {
        let ours = self.core.hard_state.term;
        let granted = term > ours && last >= self.core.log.last() && !self.is_led();
        let term = if granted { term } else { ours };
        self.core.send_in(term, from, Body::PreVoteReply { granted });
        Next::Stay
    }

    /// One vote a term, for a candidate whose log holds everything that may be committed
    /// (sections 5.2 and 5.4.1).
    fn on_vote(&mut self, from: NodeId, candidate: Incarnation, last: Position) -> Next {
        let leader = self.role.leader(&self.core);
        let core = &mut self.core;
        let again = core.hard_state.vote == Some(from);
        let free = core.hard_state.vote.is_none() && leader.is_none();
        if !(again || free) || last < core.log.last() {
            core.send(from, Body::VoteReply { granted: false, last, candidate });
            return Next::Stay;
        }
        core.hard_state.vote = Some(from);
        core.promise(from, Body::VoteReply { granted: true, last, candidate });
        if again {
            return Next::Stay;
        }
        Next::Follow { term: core.hard_state.term, leader: None }
    }

    /// Whether a leader is well, as far as we can know.
    fn is_led(&self) -> bool {
        self.core.config.check_quorum
            && match &self.role {
                Role::Follower(follower) => follower.hears_leader(&self.core),
                Role::Candidate(_) => false,
                Role::Leader(_) => true,
            }
    }

    /// The only place where a role changes.
    fn transition(&mut self, next: Next) {
        let core = &mut self.core;
        let next = match next {
            Next::Stay => return,
            Next::Follow { term, leader } => {
                self.role.abandon_reads(core);
                core.enter(term);
                self.role = Role::Follower(Follower::new(core, leader));
                Next::Stay
            }
            Next::Enter { term } => {
                self.role.abandon_reads(core);
                core.enter(term);
                let follower = match &self.role {
                    Role::Follower(follower) => follower.leaderless(),
                    Role::Candidate(_) | Role::Leader(_) => Follower::new(core, None),
                };
                self.role = Role::Follower(follower);
                Next::Stay
            }
            Next::PreCampaign => {
                self.role.abandon_reads(core);
                let (candidate, next) = Candidate::ask(core);
                self.role = Role::Candidate(candidate);
                next
            }
            Next::Campaign { transfer } => {
                self.role.abandon_reads(core);
                core.enter(core.hard_state.term.next());
                self.role = Role::Candidate(Candidate::campaign(core, transfer));
                Next::Stay
            }
            Next::Lead => {
                core.led_by = Some((core.hard_state.term, core.config.id));
                self.role = Role::Leader(Leader::new(core));
                Next::Stay
            }
        };
        self.transition(next);
    }

    fn check(&mut self) {
        self.invariants.check(&self.core, &self.role);
    }
}

/// Two nodes of one configuration that hash alike do alike, whatever comes: what a search through
/// states must know to tell that it was here before. Left out is what does not change what they
/// do: the configuration; how long they wait, and which tokens their reads get (chance); counters;
/// and the numbers of writes, which ascend by one, so that the order says everything.
impl Hash for Node {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let Node { core, role, invariants } = self;
        (core, role, invariants).hash(state);
    }
}

impl Hash for Core {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let Core {
            config,
            incarnation,
            hard_state,
            log,
            handed,
            written,
            last_ticket: _,
            unwritten,
            promises,
            messages,
            fetches,
            committed,
            reads,
            reads_lost,
            notices: _,
            heard,
            replaced,
            is_apply_paused,
            applying_from_disk,
            chance: _,
            dropped: _,
            led_by,
        } = self;
        led_by.filter(|(term, _)| *term == hard_state.term).hash(state);
        (config.id, incarnation, hard_state, log, handed, written, unwritten, promises).hash(state);
        (messages, fetches, committed, reads, reads_lost, applying_from_disk).hash(state);
        (heard, replaced, is_apply_paused).hash(state);
    }
}

impl Role {
    /// The leader of our term, if known.
    pub(crate) fn leader(&self, core: &Core) -> Option<NodeId> {
        match self {
            Role::Follower(follower) => follower.leader(),
            Role::Candidate(_) => None,
            Role::Leader(_) => Some(core.config.id),
        }
    }

    pub(crate) fn name(&self) -> RoleName {
        match self {
            Role::Follower(_) => RoleName::Follower,
            Role::Candidate(candidate) if candidate.is_asking() => RoleName::PreCandidate,
            Role::Candidate(_) => RoleName::Candidate,
            Role::Leader(_) => RoleName::Leader,
        }
    }

    /// Reads that wait in this role will not be confirmed in another.
    fn abandon_reads(&mut self, core: &mut Core) {
        match self {
            Role::Follower(follower) => follower.abandon_reads(core),
            Role::Candidate(_) => {}
            Role::Leader(leader) => leader.abandon_reads(core),
        }
    }
}

impl Core {
    /// Sends what claims nothing about our disk.
    pub(crate) fn send(&mut self, to: NodeId, body: Body) {
        self.send_in(self.hard_state.term, to, body);
    }

    /// The same, in the name of another term: only pre-votes do that.
    pub(crate) fn send_in(&mut self, term: Term, to: NodeId, body: Body) {
        let (from, incarnation) = (self.config.id, self.incarnation);
        self.messages.push(Message { from, to, term, incarnation, body });
    }

    /// Sends what claims that term, vote and log are on our disk: it leaves when they are.
    pub(crate) fn promise(&mut self, to: NodeId, body: Body) {
        let term = self.hard_state.term;
        let (from, incarnation) = (self.config.id, self.incarnation);
        self.promises.push(Message { from, to, term, incarnation, body });
    }

    /// Drops a message that no correct peer sends.
    pub(crate) fn drop_nonsense(&mut self) -> Next {
        self.dropped += 1;
        Next::Stay
    }

    /// Accepts who leads our term. False if it was another one that led it: at most one leader is
    /// elected in a term (section 5.2).
    fn is_led_by(&mut self, from: NodeId) -> bool {
        let term = self.hard_state.term;
        match self.led_by {
            Some((of, leader)) if of == term => leader == from,
            _ => {
                self.led_by = Some((term, from));
                true
            }
        }
    }

    /// Enters a term, without a vote in it yet.
    fn enter(&mut self, term: Term) {
        assert!(term >= self.hard_state.term, "terms never go back");
        if term > self.hard_state.term {
            self.hard_state = HardState { term, vote: None };
        }
    }

    /// Makes room for so many entries that will be appended.
    pub(crate) fn reserve(&mut self, entries: usize) {
        self.unwritten.reserve(entries);
    }

    /// Appends an entry of our own term to the log.
    pub(crate) fn append(&mut self, kind: EntryKind, payload: Bytes) -> Position {
        let at = Position::new(self.hard_state.term, self.log.last().index.next());
        let entry = Entry { at, kind, payload };
        self.unwritten.push(entry.clone());
        self.log.append([entry]);
        at
    }

    /// Makes the log continue with `entries`, which follow an entry that it holds. False if that
    /// contradicts what is committed.
    pub(crate) fn splice(&mut self, entries: Vec<Entry>) -> bool {
        let crate::log::Spliced::Added(added) = self.log.splice(entries) else {
            return false;
        };
        if let Some(first) = added.first() {
            // What was not even handed out yet is replaced before the disk hears of it.
            let kept = self.unwritten.iter().take_while(|old| old.at.index < first.at.index);
            self.unwritten.truncate(kept.count());
        }
        self.unwritten.extend(added);
        true
    }

    /// Whether our vote for ourselves in this term is on disk.
    pub(crate) fn has_own_vote_on_disk(&self) -> bool {
        self.written == self.hard_state && self.written.vote == Some(self.config.id)
    }

    /// Whether term and vote are on disk. Who still waits for that does not campaign again: it could
    /// not win, and its terms would keep others from winning.
    pub(crate) fn may_campaign(&self) -> bool {
        let standing = self.log.standing(self.config.id, self.incarnation);
        let is_whole = !matches!(standing, Standing::Replaced { .. });
        self.is_voter() && is_whole && self.written == self.hard_state
    }

    /// Whether our own vote and our own disk count.
    pub(crate) fn is_admitted(&self) -> bool {
        let standing = self.log.standing(self.config.id, self.incarnation);
        standing == Standing::Admitted
    }

    /// Whether the sender of a message is heard at all: then, whether it counts.
    fn check_incarnation(&mut self, message: &Message) -> Option<bool> {
        let Message { from, incarnation: presented, .. } = *message;
        let admissions = self.log.admissions();
        // Nearly always there is nothing to remember of it.
        if self.heard.is_empty() && admissions.name_only(from, presented) {
            return Some(true);
        }
        match self.log.standing(from, presented) {
            Standing::Admitted | Standing::Unknown if !self.incarnation.is_named() => Some(true),
            standing @ (Standing::Admitted | Standing::Unknown) => {
                if admissions.latest(from) != Some(presented) {
                    self.heard.insert(from, presented);
                } else if !self.heard.is_empty() {
                    self.heard.remove(&from);
                }
                Some(standing == Standing::Admitted)
            }
            Standing::Replaced { admitted } => {
                // A lower number may also be a late message of an earlier life of the log that counts.
                let is_another = presented.start == admitted.start;
                if is_another && self.replaced.insert(from, presented) != Some(presented) {
                    self.notices.push(Notice::Replaced { peer: from, admitted, presented });
                }
                // The very first admission may not be committed, and be replaced by that of another
                // leader, which is heard then.
                let is_certain = !admissions.committed().is_empty();
                (!is_certain && message.body.is_of_leader()).then_some(false)
            }
        }
    }

    /// Whether entries for the state machine are being read from disk.
    pub(crate) fn is_reading_for_apply(&self) -> bool {
        self.applying_from_disk
    }

    /// Whether lives of peers' logs were heard of that ours does not name.
    pub(crate) fn has_heard_of_others(&self) -> bool {
        !self.heard.is_empty()
    }

    /// The lives that this member, which leads, should admit: its own, and those of peers it heard
    /// of. None is returned again before it is heard of again.
    pub(crate) fn take_admission_due(&mut self) -> Option<Admission> {
        let (id, incarnation) = (self.config.id, self.incarnation);
        if !incarnation.is_named() {
            return None;
        }
        let (log, admissions) = (&self.log, self.log.admissions());
        let mut due = std::mem::take(&mut self.heard);
        due.insert(id, incarnation);
        if admissions.in_effect().is_none() {
            // The first admission counts at once, so it is of those that count without it.
            let counts =
                |(id, life): &(NodeId, Incarnation)| log.standing(*id, *life) == Standing::Admitted;
            let (first, others) = due.into_iter().partition(counts);
            (due, self.heard) = (first, others);
        }
        due.retain(|id, life| {
            let is_first = admissions.in_effect().is_none_or(|named| !named.contains_key(id));
            let latest = admissions.latest(*id);
            life.is_named()
                && latest
                    .is_none_or(|latest| latest != *life && (is_first || life.continues(latest)))
        });
        (!due.is_empty()).then_some(due)
    }

    /// The other members, ascending.
    pub(crate) fn peers(&self) -> Vec<NodeId> {
        self.config.membership.members().filter(|id| *id != self.config.id).collect()
    }

    /// Whether this member may stand for election.
    pub(crate) fn is_voter(&self) -> bool {
        self.config.membership.is_voter(self.config.id)
    }

    pub(crate) fn fetch(&mut self, purpose: FetchFor, from: Index, to: Index) {
        let bytes_max = self.config.append_bytes_max;
        self.fetches.push(Fetch { purpose, from, to, bytes_max });
    }

    pub(crate) fn read_ready(&mut self, id: ReadId, index: Index) {
        self.reads.push(ReadReady { id, index });
    }

    pub(crate) fn read_lost(&mut self, id: ReadId) {
        self.reads_lost.push(id);
    }

    /// The next number of the seed's sequence (splitmix64).
    pub(crate) fn draw(&mut self) -> u64 {
        self.chance = self.chance.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.chance;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    /// A number of ticks below `bound`.
    pub(crate) fn draw_ticks(&mut self, bound: u32) -> u32 {
        (self.draw() % u64::from(bound.max(1))) as u32
    }

    fn fetched_for_apply(&mut self, from: Index, entries: Vec<Entry>) {
        self.applying_from_disk = false;
        if from != self.log.applied().next() {
            return;
        }
        if let Some(last) = entries.last() {
            self.log.apply(last.at.index);
        }
        self.committed.extend(entries);
    }

    /// Moves what may be applied to `committed`, or asks the disk for it. What is committed is on
    /// a quorum of disks; ours need not be one of them. If we lose it, we lose what we applied
    /// too, and get both again.
    fn apply(&mut self) {
        let (from, to) = (self.log.applied().next(), self.log.committed());
        if from > to || self.applying_from_disk || self.is_apply_paused {
            return;
        }
        match self.log.stretch(from, to, self.config.append_bytes_max) {
            Stretch::Entries(entries) => {
                let last = entries.last().expect("one at least is in the log");
                self.log.apply(last.at.index);
                self.committed.extend(entries);
            }
            Stretch::OnDisk(end) => {
                self.applying_from_disk = true;
                self.fetch(FetchFor::Apply, from, end);
            }
        }
    }

    fn take_persist(&mut self) -> Option<Persist> {
        let changed = self.hard_state != self.handed;
        if !changed && self.unwritten.is_empty() && self.promises.is_empty() {
            return None;
        }
        self.handed = self.hard_state;
        self.last_ticket = Ticket(self.last_ticket.0 + 1);
        self.log.writing(self.last_ticket, self.hard_state);
        Some(Persist {
            ticket: self.last_ticket,
            hard_state: changed.then_some(self.hard_state),
            entries: std::mem::take(&mut self.unwritten),
            commit: self.log.committed(),
            then_send: std::mem::take(&mut self.promises),
        })
    }

    fn take_ready(&mut self) -> Ready {
        self.apply();
        Ready {
            persist: self.take_persist(),
            messages: std::mem::take(&mut self.messages),
            fetches: std::mem::take(&mut self.fetches),
            committed: std::mem::take(&mut self.committed),
            reads: std::mem::take(&mut self.reads),
            reads_lost: std::mem::take(&mut self.reads_lost),
            notices: std::mem::take(&mut self.notices),
        }
    }
}

/// Whether what the core itself must read can be read.
fn is_readable(entry: &Entry) -> bool {
    entry.kind != EntryKind::Admission || decode_admission(&entry.payload).is_some()
}

/// Whether `entries` can follow `prev` in the log of a leader of `term`, and be read.
fn follows(prev: Position, entries: &[Entry], term: Term) -> bool {
    let grounded = (prev.index == Index(0)) == (prev.term == Term(0)) && prev.index.0 < NUMBER_MAX;
    let mut before = prev;
    grounded
        && prev.term <= term
        && entries.iter().all(|entry| {
            let after = entry.at.index == before.index.next() && entry.at.term >= before.term;
            before = entry.at;
            after && entry.at.term > Term(0) && entry.at.term <= term && is_readable(entry)
        })
}
