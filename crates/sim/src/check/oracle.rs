//! What must hold of the cluster at every moment, seen by somebody who sees everything.
//!
//! | rule | where |
//! |---|---|
//! | at most one leader in a term, over all time | `note_leader` |
//! | a leader holds everything that is committed | `note_leader` |
//! | term and vote never go back, one vote a term, across restarts | `Ledger::ask`, `Ledger::found` |
//! | two entries with one name are the same, and so is everything before them | `note_write` |
//! | what is committed is never replaced by the committing leader, or a later one | `check_replaced` |
//! | nobody is in a term in which nobody campaigned | `observe` |
//! | what a member counts as durable is on its synced disk | `observe` |
//! | what is committed is on the *synced* disks of a quorum at that instant | `commit` |
//! | a leader commits by counting only what is of its own term | `note_commit` |
//! | all members commit and apply the same | `note_commit`, `note_applied` |
//! | all members have the same state after the same entry: the model's | `note_applied` |
//! | each entry changed what it changes in the model | `check_changes` |
//! | what history can be read is the model's, whatever was swept | `check_history` |
//! | what was compacted is gone when a member says so | `check_swept` |
//! | no request takes effect twice | `commit` |
//! | a message that claims something about a disk leaves when it is true | `check_claim` |
//! | who is told to campaign has the leader's whole log on its disk | `check_claim` |
//! | a confirmed read sees everything that anybody had committed before it was asked | `Cluster::on_serve` |
//! | what recovery finds is what was on disk, or that and the batch under way | `Ledger::found` |
//! | what is read back is what was written; damage ends the member, and only damage does | `Ledger::read_back`, `Cluster::disk_failed` |
//! | a damaged log is refused, or all of it is found | `Cluster::may_start` |
//! | a local read shows a state of the past, whole, or is refused for its revision | `check_local_range` |

use crate::check::linearizability::{Answer, Makers, Operation, Request, changes};
use crate::digest::Digest;
use crate::ledger::{Kept, Logged, Write};
use crate::machine::Machine;
use crate::marks::{Mark, Marks};
use bytes::Bytes;
use proto::log::Publish;
use raft::{Body, EntryKind, HardState, Index, Message, NodeId, Position, RoleName, Status, Term};
use replica::{Header, Kind, Origin, Published};
use std::collections::{BTreeMap, BTreeSet};
use store::{Change, Command, KeyValue, Model, Range, Refusal, Revision, View};

/// Sees everything, and panics at the first broken rule.
pub struct Oracle {
    leaders: BTreeMap<Term, NodeId>,
    /// Terms in which somebody campaigned.
    campaigns: BTreeSet<Term>,
    /// What stands for the log up to each entry that anybody ever had.
    prefixes: BTreeMap<Position, Digest>,
    /// What is committed.
    committed: Vec<Logged>,
    /// The term of whoever first knew so: no earlier than that in which it was committed.
    committed_by: Vec<Term>,
    /// The state after each committed entry, and before the first.
    states: Vec<State>,
    model: Model,
    /// By revision, what made it.
    made: BTreeMap<Revision, Command>,
    names: BTreeMap<NodeId, Publish>,
    origins: BTreeSet<Origin>,
    /// Each member as it was last seen.
    seen: BTreeMap<NodeId, Seen>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct State {
    revision: Revision,
    compacted: i64,
    names: Digest,
}

#[derive(Clone, Copy)]
struct Seen {
    boot: u64,
    status: Status,
    revision: Revision,
    compacted: i64,
    bytes: u64,
}

impl Oracle {
    /// Before anything has happened.
    pub fn new() -> Oracle {
        let mut oracle = Oracle {
            leaders: BTreeMap::new(),
            campaigns: BTreeSet::from([Term(0)]),
            prefixes: BTreeMap::new(),
            committed: Vec::new(),
            committed_by: Vec::new(),
            states: Vec::new(),
            model: Model::new(),
            made: BTreeMap::new(),
            names: BTreeMap::new(),
            origins: BTreeSet::new(),
            seen: BTreeMap::new(),
        };
        oracle.states.push(oracle.state());
        oracle
    }

    /// How far anybody knows the log to be committed.
    pub fn committed(&self) -> Index {
        Index(self.committed.len() as u64)
    }

    /// The store after everything that is committed.
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// The latest term that was led, and by whom.
    pub fn leader(&self) -> Option<(Term, NodeId)> {
        self.leaders.last_key_value().map(|(term, id)| (*term, *id))
    }

    /// A member asked for a write.
    pub fn note_write(&mut self, id: NodeId, write: &Write) {
        let votes = write.persist.then_send.iter();
        let votes = votes.filter(|message| matches!(message.body, Body::Vote { .. }));
        self.campaigns.extend(votes.map(|message| message.term));
        for Logged { entry, prefix } in &write.logged {
            let known = *self.prefixes.entry(entry.at).or_insert(*prefix);
            assert!(
                known == *prefix,
                "n{id} has a log up to {} that differs from another's",
                entry.at
            );
        }
    }

    /// A member in this term replaces its log from an index on; `prefix` stands for what it has up
    /// to there. Who still follows an earlier leader than the one that committed it, and is not in
    /// that one's quorum, may.
    pub fn check_replaced(&self, id: NodeId, term: Term, index: Index, prefix: Option<Digest>) {
        let by = self.committed_by.get((index.0 as usize).saturating_sub(1));
        let early = by.is_some_and(|by| term < *by);
        let other = prefix != self.prefix(index);
        assert!(other || early, "n{id} replaces {index}, which is committed");
    }

    /// A member did something: looks at what it is now.
    pub fn observe(&mut self, machines: &[Machine], id: NodeId, marks: &mut Marks) {
        let machine = &machines[id.0 as usize - 1];
        let Some(life) = &machine.life else { return };
        let status = life.event_loop.replica().status();
        let view = &life.published.view;
        let (revision, compacted, bytes) = (view.revision(), view.compacted(), view.bytes());
        let seen = Seen { boot: life.boot, status, revision, compacted, bytes };
        let before = self.seen.insert(id, seen).filter(|before| before.boot == life.boot);
        let read = before.map_or(Revision(0), |before| before.revision);
        let compacted_before = before.map_or(-1, |before| before.compacted);
        let was_swept =
            before.is_some_and(|before| before.bytes != bytes && before.status == status);
        let before = before.map(|before| before.status);
        if was_swept {
            self.check_history(id, view);
            if !life.event_loop.replica().is_sweeping() {
                self.check_swept(id, view);
            }
        }
        if before == Some(status) {
            return;
        }
        if matches!(status.role, RoleName::Candidate | RoleName::Leader) {
            self.campaigns.insert(status.term);
        }
        let (term, durable) = (status.term, status.durable);
        assert!(self.campaigns.contains(&term), "n{id} is in term {term}, and nobody campaigned");
        let ledger = &machine.ledger;
        assert!(
            ledger.memory.prefix(durable) == ledger.disk.prefix(durable),
            "n{id} counts its log as durable up to {durable}; on disk it ends with {}",
            ledger.disk.last()
        );
        let led = before.is_some_and(|before| before.role == RoleName::Leader);
        let same_term = before.is_some_and(|before| before.term == status.term);
        if status.role == RoleName::Leader && !(led && same_term) {
            self.note_leader(machine, status, marks);
        }
        let stepped_down = led && same_term && status.role != RoleName::Leader;
        marks.sometimes(Mark::SteppedDown, stepped_down);
        let campaigns = |role| role == RoleName::Candidate;
        let again =
            before.is_some_and(|before| campaigns(before.role) && before.term < status.term);
        marks.sometimes(Mark::SplitVote, again && campaigns(status.role));
        if before.is_none_or(|before| before.commit < status.commit) {
            self.note_commit(machines, machine, status, marks);
        }
        if before.is_none_or(|before| before.applied < status.applied) {
            self.note_applied(machine, status, &life.published);
            self.check_changes(id, view, read);
            if compacted > compacted_before {
                self.check_history(id, view);
            }
            marks.sometimes(Mark::ApplyBeforeOwnDisk, status.applied > status.durable);
        }
    }

    fn note_leader(&mut self, machine: &Machine, status: Status, marks: &mut Marks) {
        let (id, term) = (status.id, status.term);
        let known = *self.leaders.entry(term).or_insert(id);
        assert!(known == id, "n{known} and n{id} both lead term {term}");
        let log = &machine.ledger.memory;
        // Somebody whose vote for itself reached its disk late may lead a term long after others
        // lead later ones; it need not have what those committed.
        let before = self.committed_by.partition_point(|by| *by < term);
        let committed = Index(before as u64);
        assert!(
            log.prefix(committed) == self.prefix(committed),
            "n{id} leads term {term} without all of what was committed before, up to {committed}"
        );
        let committed = self.committed();
        let next = log.get(committed.next());
        let is_old = next.is_some_and(|next| next.entry.at.term < term);
        marks.sometimes(Mark::OldTail, is_old);
        let leads = |seen: &Seen| seen.status.role == RoleName::Leader;
        let leaders = self.seen.values().filter(|seen| leads(seen)).count();
        marks.sometimes(Mark::TwoLeaders, leaders > 1);
    }

    fn note_commit(
        &mut self,
        machines: &[Machine],
        machine: &Machine,
        status: Status,
        marks: &mut Marks,
    ) {
        let (id, commit) = (status.id, status.commit);
        let log = &machine.ledger.memory;
        let leads = status.role == RoleName::Leader;
        while self.committed() < commit {
            let index = self.committed().next();
            let logged =
                log.get(index).unwrap_or_else(|| panic!("n{id} commits nothing at {index}"));
            if leads {
                let at = log.get(commit).map_or(Position::ORIGIN, |logged| logged.entry.at);
                assert!(
                    at.term == status.term,
                    "n{id} leads term {} and commits {at} by counting",
                    status.term
                );
            }
            self.commit(machines, status, logged.clone());
        }
        assert!(
            log.prefix(commit) == self.prefix(commit),
            "n{id} commits another log up to {commit}"
        );
        marks.sometimes(Mark::CommitBeforeOwnDisk, leads && status.durable < commit);
    }

    /// An entry is committed as far as anybody knows.
    fn commit(&mut self, machines: &[Machine], by: Status, logged: Logged) {
        let id = by.id;
        let at = logged.entry.at;
        let has = |machine: &&Machine| machine.ledger.disk.prefix(at.index) == Some(logged.prefix);
        let holders = machines.iter().filter(has).count();
        assert!(
            holders > machines.len() / 2,
            "n{id} counts {at} as committed; it is on {holders} of {} disks",
            machines.len()
        );
        if logged.entry.kind == EntryKind::Command {
            let (Header { kind, origin }, body) = Header::decode(&logged.entry.payload)
                .unwrap_or_else(|unknown| panic!("{at}: {unknown}"));
            assert!(self.origins.insert(origin), "{at} is the second entry of {origin:?}");
            self.execute(kind, body);
        }
        self.committed.push(logged);
        // Terms in which things become known need not ascend; what they bound does.
        let known = self.committed_by.last().copied().unwrap_or_default();
        self.committed_by.push(by.term.max(known));
        self.states.push(self.state());
    }

    fn execute(&mut self, kind: Kind, body: Bytes) {
        if kind == Kind::Publish {
            let publish: Publish = prost::Message::decode(body).expect("members publish messages");
            self.names.insert(NodeId(publish.member_id), publish);
        } else {
            let command = replica::decode(kind, body).expect("clients send messages");
            let before = self.model.revision();
            // Refused or not: the model says what the state is.
            let _ = self.model.apply(&command);
            if self.model.revision() > before {
                self.made.insert(self.model.revision(), command);
            }
        }
    }

    /// What a member applied is what everybody applies, and its state is the model's.
    fn note_applied(&self, machine: &Machine, status: Status, published: &Published) {
        let (id, applied) = (status.id, status.applied);
        assert!(
            machine.ledger.memory.prefix(applied) == self.prefix(applied),
            "n{id} applies another log up to {applied}"
        );
        assert!(published.status == status, "n{id}: readers see the latest status");
        let view = &published.view;
        let names = published.members.iter().filter(|member| !member.name.is_empty());
        let names = names.map(|member| (member.id, &member.name, &member.client_urls));
        let state =
            State { revision: view.revision(), compacted: view.compacted(), names: digest(names) };
        let expected = self.states[applied.0 as usize];
        assert!(
            state == expected,
            "n{id} after {applied} is at {state:?}, the model at {expected:?}"
        );
        self.check_contents(id, view, view.revision());
    }

    /// What a member shows of a revision is the model's.
    fn check_contents(&self, id: NodeId, view: &View, revision: Revision) {
        let own = everything(view, revision);
        let model = || self.model.contents(revision);
        if own.iter().eq(model()) {
            return;
        }
        match own.iter().zip(model()).find(|(own, model)| own != model) {
            Some((own, model)) => {
                panic!("n{id} at {revision} has {own:?}, and should have {model:?}")
            }
            None => panic!(
                "n{id} at {revision} has {} keys, and should have {}",
                own.len(),
                model().count()
            ),
        }
    }

    /// What a member says was changed after a revision is what was changed in the model.
    fn check_changes(&self, id: NodeId, view: &View, after: Revision) {
        let from = Revision((after.0 + 1).max(view.compacted()));
        let mut own = view
            .changes(from)
            .unwrap_or_else(|refusal| panic!("n{id} refuses the changes from {from}: {refusal}"));
        let is_there = |change: &&Change| change.revision() <= view.revision();
        let mut model = self.model.all_changes(from).take_while(is_there);
        loop {
            match (own.next(), model.next()) {
                (None, None) => return,
                (own, model) => assert!(
                    own.as_ref() == model,
                    "n{id} says that after {after} there was {own:?}, and it was {model:?}"
                ),
            }
        }
    }

    /// All history that a member can show is the model's.
    pub fn check_history(&self, id: NodeId, view: &View) {
        let compacted = view.compacted().max(1);
        self.check_changes(id, view, Revision(compacted - 1));
        for revision in compacted..=view.revision().0 {
            self.check_contents(id, view, Revision(revision));
        }
    }

    /// Who says that nothing is left to be swept holds no more than what can be read.
    pub fn check_swept(&self, id: NodeId, view: &View) {
        let compacted = Revision(view.compacted().max(1));
        let len = |kv: &KeyValue| kv.key.len() + kv.value.len();
        let at_first: usize = self.model.contents(compacted).map(len).sum();
        let changes = self.model.all_changes(compacted);
        let changes = changes.take_while(|change| change.revision() <= view.revision());
        let later: usize = changes
            .map(|change| match change {
                Change::Put(kv) => len(kv),
                Change::Delete { key, .. } => key.len(),
            })
            .sum();
        let bytes = view.bytes();
        assert!(
            bytes <= (at_first + later) as u64,
            "n{id} holds {bytes} bytes after it swept up to {compacted}; {at_first} then, {later} since"
        );
    }

    /// The state of everything that is committed.
    fn state(&self) -> State {
        let names = self
            .names
            .values()
            .map(|publish| (NodeId(publish.member_id), &publish.name, &publish.client_urls));
        State {
            revision: self.model.revision(),
            compacted: self.model.compacted(),
            names: digest(names),
        }
    }

    fn prefix(&self, index: Index) -> Option<Digest> {
        match index.0 {
            0 => Some(Digest::default()),
            index => self.committed.get(index as usize - 1).map(|logged| logged.prefix),
        }
    }

    /// A message that claims something about its sender's disk leaves: it must be true.
    pub fn check_claim(&self, machines: &[Machine], message: &Message) {
        let disk = &machines[message.from.0 as usize - 1].ledger.disk;
        let HardState { term, vote } = disk.hard_state;
        if message.body == Body::TimeoutNow {
            let leader = &machines[message.from.0 as usize - 1].ledger.memory;
            let target = &machines[message.to.0 as usize - 1].ledger.disk;
            let last = leader.last().index;
            // A later leader may have replaced what it had; it then ignores this message.
            let overtaken = target.hard_state.term > message.term;
            let whole = target.prefix(last) == leader.prefix(last);
            assert!(overtaken || whole, "{message}: on its disk it has not got all up to {last}");
        }
        let claims = matches!(
            message.body,
            Body::Vote { .. } | Body::VoteReply { granted: true, .. } | Body::Appended { .. }
        );
        if !claims || term > message.term {
            return;
        }
        assert!(term == message.term, "{message}: the term is not on disk, but {term}");
        match message.body {
            Body::VoteReply { .. } => {
                assert!(vote == Some(message.to), "{message}: the vote on disk is {vote:?}");
            }
            Body::Vote { last, .. } => {
                assert!(vote == Some(message.from), "{message}: the vote on disk is {vote:?}");
                let memory = &machines[message.from.0 as usize - 1].ledger.memory;
                let has = |kept: &Kept| kept.get(last.index).is_some_and(|l| l.entry.at == last);
                // Another won this term meanwhile, and replaced it.
                let held = last == Position::ORIGIN || has(disk) || !has(memory);
                assert!(held, "{message}: the log on disk ends with {}", disk.last());
            }
            Body::Appended { matched } => self.check_appended(machines, message, matched),
            _ => {}
        }
    }

    /// What is acknowledged is on disk, and is what the leader has there.
    fn check_appended(&self, machines: &[Machine], message: &Message, matched: Index) {
        let disk = &machines[message.from.0 as usize - 1].ledger.disk;
        let own = disk.prefix(matched);
        assert!(own.is_some(), "{message}: the log on disk ends with {}", disk.last());
        let leads =
            |seen: &Seen| seen.status.role == RoleName::Leader && seen.status.term == message.term;
        let leader = &machines[message.to.0 as usize - 1];
        if leader.life.is_some() && self.seen.get(&leader.id).is_some_and(leads) {
            let leaders = leader.ledger.memory.prefix(matched);
            assert!(own == leaders, "{message}: the leader's log is another one");
        }
    }

    /// Which operations of unknown fate made which revisions, as the log tells.
    pub fn makers(&self, history: &[Operation]) -> Makers {
        let makes = |at: usize, command: &Command| matches!(&history[at].request, Request::Command(own) if own == command);
        let mut made = self.made.clone();
        let mut unknown = Vec::new();
        for (at, operation) in history.iter().enumerate() {
            match &operation.answer {
                None => unknown.push(at),
                // Its client knows, and will say so. (One that came too late to change anything
                // names the same revision.)
                Some(Answer::Done(outcome, revision)) if changes(outcome) => {
                    if made.get(revision).is_some_and(|command| makes(at, command)) {
                        made.remove(revision);
                    }
                }
                Some(_) => {}
            }
        }
        unknown.sort_by_key(|at| history[*at].call);
        let mut makers = Makers::new();
        for (revision, command) in &made {
            if let Some(place) = unknown.iter().position(|at| makes(*at, command)) {
                makers.insert(*revision, unknown.remove(place));
            }
        }
        makers
    }

    /// A read of a member's state must show a state of the past, whole; or is refused because that
    /// state does not have the revision that is asked for.
    pub fn check_local_range(&self, range: &Range, answer: &Answer, view: &View) {
        let revision = view.revision();
        assert!(
            revision <= self.model.revision(),
            "a read of revision {revision}, which is to come"
        );
        let expected = if range.revision > revision.0 {
            Answer::Refused(Refusal::FutureRevision)
        } else if range.revision > 0 && range.revision < view.compacted() {
            Answer::Refused(Refusal::Compacted)
        } else {
            let at = if range.revision > 0 { Revision(range.revision) } else { revision };
            Answer::Range(self.model.read_at(at, range), revision)
        };
        assert!(
            *answer == expected,
            "a read of {range:?} at {revision} gave {answer:?}, and was {expected:?}"
        );
    }

    /// A member as it was last seen in this life.
    pub fn seen(&self, id: NodeId) -> Option<Status> {
        self.seen.get(&id).map(|seen| seen.status)
    }

    /// Forgets a member's life that has ended.
    pub fn forget(&mut self, id: NodeId) {
        self.seen.remove(&id);
    }
}

impl Default for Oracle {
    fn default() -> Oracle {
        Oracle::new()
    }
}

fn everything(view: &View, revision: Revision) -> Vec<KeyValue> {
    let all = Bytes::from_static(b"\0");
    let range =
        Range { key: all.clone(), range_end: all, revision: revision.0, ..Range::default() };
    view.range(&range).map(|result| result.kvs).unwrap_or_default()
}

fn digest<'a>(names: impl Iterator<Item = (NodeId, &'a String, &'a Vec<String>)>) -> Digest {
    let mut digest = Digest::default();
    for (id, name, urls) in names {
        digest = digest.word(id.0).bytes(name.as_bytes());
        digest = urls.iter().fold(digest, |digest, url| digest.bytes(url.as_bytes()));
    }
    digest
}
