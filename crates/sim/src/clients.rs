//! What clients ask, and what they were told: the history.

use crate::chance::Chance;
use crate::check::linearizability::{Answer, Operation, Request};
use crate::weather::{Load, Micros};
use bytes::Bytes;
use proto::etcdserverpb as pb;
use proto::etcdserverpb::compare::TargetUnion;
use proto::etcdserverpb::request_op::Request as Op;
use raft::NodeId;
use replica::{Kind, Proposal, Published};
use std::fmt;
use store::{Command, Limits, Outcome, Revision};

/// The clients of a run. Each does one thing at a time, at a member of its choice; when it does not
/// hear from that, it goes to another one. The last client asks nothing by itself: it probes.
pub struct Clients {
    chance: Chance,
    load: Load,
    members: u64,
    clients: Vec<Client>,
    history: Vec<Record>,
}

#[derive(Clone, Debug)]
struct Client {
    member: NodeId,
    current: Option<usize>,
    /// Numbers its values.
    last_value: u64,
    /// The latest revision it knows of.
    revision: i64,
    /// What it last wrote, to compare with.
    wrote: Bytes,
    /// What it asked for last, and asks again, as it does not know what became of it.
    again: Option<Wire>,
    asked: Option<Wire>,
}

/// A request as it travels.
#[derive(Clone, Debug)]
enum Wire {
    Put(pb::PutRequest),
    DeleteRange(pb::DeleteRangeRequest),
    Txn(pb::TxnRequest),
    Compact(pb::CompactionRequest),
    Range(pb::RangeRequest),
}

/// An operation, and what became of it.
#[derive(Clone, Debug)]
struct Record {
    operation: Operation,
    /// It certainly did nothing, or is none for the checker.
    void: bool,
}

/// How a request is to be handled by a member.
pub enum Way {
    /// Through the log.
    Propose(Proposal),
    /// From the member's state, once that is confirmed to be current.
    Confirm,
    /// From the member's state as it is.
    Local,
}

/// What the prober asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Probe {
    /// A put.
    Write,
    /// A linearizable read.
    Read,
    /// A serializable read.
    LocalRead,
    /// A transaction that writes.
    Txn,
    /// A transaction that only reads.
    ReadTxn,
    /// A compaction up to the latest revision, answered when nothing is left of what it removes.
    Compaction,
}

/// What a client asks next.
pub struct Asking {
    /// Which operation of the history.
    pub operation: usize,
    /// Of whom.
    pub member: NodeId,
    /// How it is to be handled.
    pub way: Way,
}

/// What came of an operation, as its client sees it.
#[derive(Clone, Debug)]
pub enum Fate {
    /// This.
    Answered(Answer),
    /// It may have happened, or may still.
    Unknown,
    /// It did nothing, and never will.
    Nothing,
}

impl Probe {
    /// All of them. A write comes before the compaction, so that there is something to compact.
    pub const ALL: [Probe; 6] = [
        Probe::Write,
        Probe::Read,
        Probe::LocalRead,
        Probe::Txn,
        Probe::ReadTxn,
        Probe::Compaction,
    ];
}

impl fmt::Display for Fate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fate::Answered(answer) => answer.fmt(f),
            Fate::Unknown => f.write_str("unknown"),
            Fate::Nothing => f.write_str("nothing was done"),
        }
    }
}

impl Clients {
    /// The clients of this load, and one that probes.
    pub fn new(load: &Load, members: u64, mut chance: Chance) -> Clients {
        let mut client = || Client {
            member: NodeId(1 + chance.below(members)),
            current: None,
            last_value: 0,
            revision: 1,
            wrote: Bytes::new(),
            again: None,
            asked: None,
        };
        let clients = (0..=load.clients).map(|_| client()).collect();
        Clients { chance, load: load.clone(), members, clients, history: Vec::new() }
    }

    /// The client that probes.
    pub fn prober(&self) -> u32 {
        self.load.clients
    }

    /// What a client does next.
    pub fn ask(&mut self, client: u32, now: Micros) -> Asking {
        let wire = match self.clients[client as usize].again.take() {
            Some(again) => again,
            None => self.invent(client),
        };
        let member = self.clients[client as usize].member;
        self.begin(client, member, wire, now)
    }

    /// The prober asks this of a member. None of it is refused when it asks for a compaction right
    /// after a write.
    pub fn probe(&mut self, member: NodeId, probe: Probe, now: Micros) -> Asking {
        let client = self.prober();
        let (key, revision) = (self.key(), self.clients[client as usize].revision);
        let range = pb::RangeRequest { key: key.clone(), ..Default::default() };
        let put =
            |value| pb::PutRequest { key: key.clone(), value, prev_kv: true, ..Default::default() };
        let txn = |step| {
            let success = vec![pb::RequestOp { request: Some(step) }];
            Wire::Txn(pb::TxnRequest { success, ..Default::default() })
        };
        let wire = match probe {
            Probe::Write => Wire::Put(put(self.value(client))),
            Probe::Read => Wire::Range(range),
            Probe::LocalRead => Wire::Range(pb::RangeRequest { serializable: true, ..range }),
            Probe::Txn => txn(Op::RequestPut(put(self.value(client)))),
            Probe::ReadTxn => txn(Op::RequestRange(range)),
            Probe::Compaction => Wire::Compact(pb::CompactionRequest { revision, physical: true }),
        };
        self.begin(client, member, wire, now)
    }

    fn begin(&mut self, client: u32, member: NodeId, wire: Wire, now: Micros) -> Asking {
        let operation = self.history.len();
        let (request, way) = wire.asked();
        let void = matches!(way, Way::Local);
        self.history.push(Record {
            operation: Operation { client, call: now, end: None, request, answer: None },
            void,
        });
        let client = &mut self.clients[client as usize];
        client.current = Some(operation);
        client.asked = Some(wire);
        Asking { operation, member, way }
    }

    /// A client hears of an operation. False if it does not wait for it any more.
    pub fn hear(&mut self, operation: usize, fate: Fate, now: Micros) -> bool {
        let record = &mut self.history[operation];
        let client = &mut self.clients[record.operation.client as usize];
        if client.current != Some(operation) {
            return false;
        }
        client.current = None;
        match fate {
            Fate::Answered(answer) => {
                if let Answer::Range(_, Revision(revision)) | Answer::Done(_, Revision(revision)) =
                    answer
                {
                    client.revision = client.revision.max(revision);
                }
                record.operation.end = Some(now);
                record.operation.answer = Some(answer);
                return true;
            }
            Fate::Unknown => {}
            Fate::Nothing => record.void = true,
        }
        // Like any client's program: it tries again, or gives up and goes on.
        client.again = client.asked.take().filter(|_| self.chance.one_in(2));
        client.member = NodeId(1 + self.chance.below(self.members));
        true
    }

    /// Whether what was asked last certainly did nothing.
    pub fn last_did_nothing(&self) -> bool {
        self.history.last().is_some_and(|record| record.void && record.operation.answer.is_none())
    }

    /// Whether a client waits for this.
    pub fn waits_for(&self, operation: usize) -> bool {
        let client = self.history[operation].operation.client;
        self.clients[client as usize].current == Some(operation)
    }

    /// Whether anybody waits for anything.
    pub fn wait(&self) -> bool {
        self.clients.iter().any(|client| client.current.is_some())
    }

    /// An operation of the history.
    pub fn operation(&self, operation: usize) -> &Operation {
        &self.history[operation].operation
    }

    /// How long a client thinks before the next operation.
    pub fn think(&mut self) -> Micros {
        self.chance.around(self.load.think)
    }

    /// How long a client waits for an answer.
    pub fn patience(&self) -> Micros {
        self.load.patience
    }

    /// What the checker looks at.
    pub fn history(&self) -> Vec<Operation> {
        let counts = self.history.iter().filter(|record| !record.void);
        counts.map(|record| record.operation.clone()).collect()
    }

    /// How many operations were begun.
    pub fn operations(&self) -> usize {
        self.history.len()
    }

    fn invent(&mut self, client: u32) -> Wire {
        let total: u64 = self.load.mix.iter().sum();
        let mut at = self.chance.below(total);
        let what = self.load.mix.iter().position(|weight| {
            let here = at < *weight;
            at = at.saturating_sub(*weight);
            here
        });
        match what {
            Some(1) => Wire::DeleteRange(self.delete()),
            Some(2) => Wire::Txn(self.sound_txn(client)),
            Some(3) => Wire::Compact(self.compaction(client)),
            Some(4) => Wire::Range(self.range(client)),
            Some(5) => Wire::Range(pb::RangeRequest { serializable: true, ..self.range(client) }),
            _ => Wire::Put(self.put(client)),
        }
    }

    fn key(&mut self) -> Bytes {
        format!("k{}", self.chance.below(self.load.keys)).into()
    }

    /// A value that nobody else writes.
    fn value(&mut self, client: u32) -> Bytes {
        let one = &mut self.clients[client as usize];
        one.last_value += 1;
        let mut value = format!("c{client}.{}", one.last_value).into_bytes();
        let len = self.chance.below(self.load.value_bytes_max) as usize;
        value.resize(value.len().max(len), b'.');
        let value = Bytes::from(value);
        one.wrote = value.clone();
        value
    }

    /// Where a range that begins at a key ends: mostly right behind it.
    fn range_end(&mut self) -> Bytes {
        match self.chance.below(6) {
            0 => Bytes::from_static(b"\0"),
            1 => self.key(),
            2 => Bytes::from_static(b"l"),
            _ => Bytes::new(),
        }
    }

    fn put(&mut self, client: u32) -> pb::PutRequest {
        let ignore_value = self.chance.one_in(12);
        let value = if ignore_value { Bytes::new() } else { self.value(client) };
        let (key, prev_kv) = (self.key(), self.chance.one_in(3));
        let ignore_lease = self.chance.one_in(20);
        pb::PutRequest { key, value, prev_kv, ignore_value, ignore_lease, ..Default::default() }
    }

    fn delete(&mut self) -> pb::DeleteRangeRequest {
        let (key, range_end) = (self.key(), self.range_end());
        pb::DeleteRangeRequest { key, range_end, prev_kv: self.chance.one_in(2) }
    }

    fn range(&mut self, client: u32) -> pb::RangeRequest {
        let (key, range_end) = (self.key(), self.range_end());
        let mut range = pb::RangeRequest { key, range_end, ..Default::default() };
        if self.chance.one_in(4) {
            range.revision = self.revision_near(client);
        }
        if self.chance.one_in(4) {
            range.limit = self.chance.below(4) as i64;
            range.sort_order = self.chance.below(3) as i32;
            range.sort_target = self.chance.below(5) as i32;
            range.count_only = self.chance.one_in(4);
            range.keys_only = self.chance.one_in(4);
        }
        if self.chance.one_in(8) {
            range.min_mod_revision = self.revision_near(client);
            range.max_create_revision = self.revision_near(client);
        }
        range
    }

    /// Mostly in the near past, at times to come.
    fn revision_near(&mut self, client: u32) -> i64 {
        let known = self.clients[client as usize].revision;
        (known + 2 - self.chance.heavy_tailed(1, 100) as i64).max(1)
    }

    fn compaction(&mut self, client: u32) -> pb::CompactionRequest {
        let revision = self.revision_near(client);
        pb::CompactionRequest { revision, physical: self.chance.one_in(2) }
    }

    /// A transaction that a member does not refuse at first sight.
    fn sound_txn(&mut self, client: u32) -> pb::TxnRequest {
        let limits = Limits { txn_ops_max: 128 };
        loop {
            let request = self.txn(client, 0);
            if replica::txn(request.clone()).check(&limits).is_ok() {
                return request;
            }
        }
    }

    fn txn(&mut self, client: u32, depth: u32) -> pb::TxnRequest {
        let steps = |clients: &mut Clients, max| {
            (0..clients.chance.below(max)).map(|_| clients.step(client, depth)).collect()
        };
        let (success, failure) = (steps(self, 4), steps(self, 3));
        let compare = (0..self.chance.below(3)).map(|_| self.compare(client)).collect();
        pb::TxnRequest { compare, success, failure }
    }

    fn step(&mut self, client: u32, depth: u32) -> pb::RequestOp {
        let request = match self.chance.below(8) {
            0..3 => Op::RequestPut(self.put(client)),
            3 => Op::RequestDeleteRange(self.delete()),
            4 if depth < 2 => Op::RequestTxn(self.txn(client, depth + 1)),
            _ => Op::RequestRange(self.range(client)),
        };
        pb::RequestOp { request: Some(request) }
    }

    fn compare(&mut self, client: u32) -> pb::Compare {
        let (target, union) = match self.chance.below(4) {
            0 => (0, TargetUnion::Version(self.chance.below(4) as i64)),
            1 => (
                1,
                TargetUnion::CreateRevision(
                    self.revision_near(client) * self.chance.below(2) as i64,
                ),
            ),
            2 => (2, TargetUnion::ModRevision(self.revision_near(client))),
            _ => (3, TargetUnion::Value(self.clients[client as usize].wrote.clone())),
        };
        let range_end = if self.chance.one_in(4) { self.range_end() } else { Bytes::new() };
        let (key, result) = (self.key(), self.chance.below(4) as i32);
        pb::Compare { key, range_end, result, target, target_union: Some(union) }
    }
}

impl Wire {
    /// What is asked, and how a member handles it.
    fn asked(&self) -> (Request, Way) {
        let propose = |command, proposal| (command, Way::Propose(proposal));
        let (command, way) = match self.clone() {
            Wire::Range(range) => {
                let way = if range.serializable { Way::Local } else { Way::Confirm };
                return (Request::Range(replica::range(range)), way);
            }
            Wire::Put(put) => {
                let proposal = Proposal::new(Kind::Put, &put);
                propose(Command::Put(replica::put(put)), proposal)
            }
            Wire::DeleteRange(delete) => {
                let proposal = Proposal::new(Kind::DeleteRange, &delete);
                propose(Command::DeleteRange(replica::delete_range(delete)), proposal)
            }
            Wire::Compact(compact) => {
                let proposal = Proposal::new(Kind::Compact, &compact);
                let proposal = if compact.physical { proposal.physical() } else { proposal };
                propose(Command::Compact(replica::compact(&compact)), proposal)
            }
            Wire::Txn(request) => {
                let proposal = Proposal::new(Kind::Txn, &request);
                let txn = replica::txn(request);
                let reads = txn.is_read_only();
                let way = if reads { Way::Confirm } else { Way::Propose(proposal) };
                (Command::Txn(txn), way)
            }
        };
        (Request::Command(command), way)
    }
}

/// Answers a read from a member's state, as a network thread does.
pub fn serve(published: &Published, request: &Request) -> Answer {
    let (view, revision) = (&published.view, published.view.revision());
    let answer = match request {
        Request::Range(range) => view.range(range).map(|result| Answer::Range(result, revision)),
        Request::Command(Command::Txn(txn)) => {
            view.txn(txn).map(|outcome| Answer::Done(Outcome::Txn(outcome), revision))
        }
        Request::Command(command) => panic!("{command:?} is no read"),
    };
    answer.unwrap_or_else(Answer::Refused)
}
