//! A cluster of bare Raft nodes in one thread: a network that does what it is told, disks that
//! complete when told, and an oracle that sees everything and checks what no member can.

#![allow(dead_code, reason = "each kind of test uses its part")]
#![allow(clippy::unwrap_used, reason = "a test that is wrong may die")]

use bytes::Bytes;
use raft::*;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt::Write as _;

/// The whole cluster. Everything that happens is written to `trace`, in its true order.
pub struct Cluster {
    pub template: Config,
    pub members: BTreeMap<NodeId, Member>,
    /// Messages on their way, oldest first.
    pub network: Vec<Message>,
    pub trace: String,
    /// Whose disks forgot what they promised.
    pub lost: BTreeSet<NodeId>,
    /// Members name their logs, and admit those of others, if they start from now on.
    pub names_logs: bool,
    oracle: Oracle,
}

/// One member: a node while it runs, and a disk that survives it.
pub struct Member {
    pub node: Option<Node>,
    pub disk: DiskImage,
    /// What it was at some time.
    pub copy: DiskImage,
    /// Writes that were handed out and are not on disk yet.
    pub writing: VecDeque<Persist>,
    /// Writes complete only when told so.
    pub slow: bool,
    /// Reads from its disk are not answered.
    pub hangs: bool,
    pub applied: Vec<Entry>,
    lives: u64,
    role: RoleName,
}

/// What would survive a loss of power.
#[derive(Clone, Debug, Default, Hash)]
pub struct DiskImage {
    pub hard_state: HardState,
    pub entries: Vec<Entry>,
    pub commit: Index,
    pub incarnation: Incarnation,
}

/// What must hold of the cluster as a whole.
#[derive(Default)]
struct Oracle {
    leaders: BTreeMap<Term, NodeId>,
    /// The log as applied by anybody: the same for all.
    applied: Vec<Entry>,
    /// The term of whoever was the first to apply each entry.
    applied_in: Vec<Term>,
    /// Reads under way: what was applied anywhere when they were asked.
    reads: BTreeMap<(NodeId, u64), Index>,
    confirmed: u64,
}

impl Cluster {
    pub fn new(size: u64, change: impl Fn(&mut Config)) -> Cluster {
        Cluster::with_names(size, false, change)
    }

    pub fn with_names(size: u64, names_logs: bool, change: impl Fn(&mut Config)) -> Cluster {
        let mut template = Config {
            id: NodeId(1),
            membership: Membership::new((1..=size).map(NodeId)),
            election_ticks: 10,
            heartbeat_ticks: 3,
            seed: 1,
            pre_vote: true,
            check_quorum: true,
            append_bytes_max: 1 << 20,
            inflight_bytes_max: 1 << 20,
            tail_bytes_max: 1 << 20,
        };
        change(&mut template);
        let mut cluster = Cluster {
            template,
            members: BTreeMap::new(),
            network: Vec::new(),
            trace: String::new(),
            lost: BTreeSet::new(),
            names_logs,
            oracle: Oracle::default(),
        };
        for id in (1..=size).map(NodeId) {
            cluster.members.insert(id, Member::new());
            cluster.restart(id);
        }
        cluster
    }

    /// Starts a member from what is on its disk.
    pub fn restart(&mut self, id: NodeId) {
        let template = self.template.clone();
        let member = self.members.get_mut(&id).unwrap();
        assert!(member.node.is_none(), "n{id} runs");
        member.lives += 1;
        let seed = template.seed.wrapping_mul(0x9e37_79b9).wrapping_add(id.0 << 32 | member.lives);
        member.disk.begin_life(id, self.names_logs.then_some(seed));
        let config = Config { id, seed, ..template };
        let restored = member.disk.restored();
        member.node = Some(Node::new(config, restored));
        member.applied.clear();
        member.role = RoleName::Follower;
        self.settle(id);
    }

    /// The life of a member's log.
    pub fn incarnation(&self, id: NodeId) -> Incarnation {
        self.members.get(&id).map(|member| member.disk.incarnation).unwrap_or_default()
    }

    /// Loses the disk of a member that is dead.
    pub fn wipe(&mut self, id: NodeId) {
        self.member(id).disk = DiskImage::default();
    }

    /// Copies a member's disk.
    pub fn backup(&mut self, id: NodeId) {
        let member = self.member(id);
        member.copy = member.disk.clone();
    }

    /// Puts the copy in the place of a dead member's disk.
    pub fn restore(&mut self, id: NodeId) {
        let member = self.member(id);
        member.disk = member.copy.clone();
    }

    /// Loses what a dead member's disk got since it was copied, but for the log's name.
    pub fn lose(&mut self, id: NodeId) {
        let member = self.member(id);
        let incarnation = member.disk.incarnation;
        member.disk = DiskImage { incarnation, ..member.copy.clone() };
    }

    /// Kills a member: what is not on its disk is gone.
    pub fn crash(&mut self, id: NodeId) {
        let member = self.member(id);
        member.node = None;
        member.writing.clear();
        self.oracle.reads.retain(|(reader, _), _| *reader != id);
    }

    /// Gives a running member an input, then carries out what it asks for.
    pub fn with<T>(&mut self, id: NodeId, input: impl FnOnce(&mut Node) -> T) -> Option<T> {
        let result = input(self.member(id).node.as_mut()?);
        self.settle(id);
        Some(result)
    }

    pub fn propose(&mut self, id: NodeId, command: &str) -> Result<Position, Refusal> {
        let payload = Bytes::copy_from_slice(command.as_bytes());
        self.with(id, |node| node.propose(vec![payload])).expect("it runs")
    }

    pub fn read(&mut self, id: NodeId, read: u64) -> Result<(), Refusal> {
        let floor = Index(self.oracle.applied.len() as u64);
        self.oracle.reads.insert((id, read), floor);
        self.with(id, |node| node.read(ReadId(read))).expect("it runs")
    }

    /// Delivers the n-th message on its way.
    pub fn deliver(&mut self, n: usize) {
        let message = self.network.remove(n);
        self.with(message.to, |node| node.step(message));
    }

    /// Completes the oldest write of a member.
    pub fn sync(&mut self, id: NodeId) -> bool {
        let done = self.complete_write(id);
        if done {
            self.settle(id);
        }
        done
    }

    /// Ticks a member.
    pub fn tick(&mut self, id: NodeId) {
        self.with(id, Node::tick);
    }

    pub fn status(&self, id: NodeId) -> Option<Status> {
        self.members[&id].node.as_ref().map(Node::status)
    }

    pub fn member(&mut self, id: NodeId) -> &mut Member {
        self.members.get_mut(&id).expect("a member")
    }

    pub fn ids(&self) -> Vec<NodeId> {
        self.members.keys().copied().collect()
    }

    /// How many entries were applied anywhere, and how many reads were confirmed.
    pub fn achievements(&self) -> (usize, u64) {
        (self.oracle.applied.len(), self.oracle.confirmed)
    }

    /// Carries out what a member asks for, until it asks for nothing more.
    fn settle(&mut self, id: NodeId) {
        loop {
            let Some(node) = self.member(id).node.as_mut() else { return };
            let ready = node.ready();
            let status = node.status();
            self.note_role(id, status);
            let idle = ready.is_empty();
            for message in ready.messages {
                self.send(message);
            }
            if let Some(persist) = ready.persist {
                self.member(id).writing.push_back(persist);
            }
            if !self.member(id).slow {
                while self.complete_write(id) {}
            }
            for fetch in ready.fetches {
                self.fetch(id, fetch);
            }
            for entry in ready.committed {
                self.apply(id, entry);
            }
            for notice in ready.notices {
                self.note(id, notice);
            }
            for read in ready.reads {
                self.oracle_read(id, read);
            }
            for read in ready.reads_lost {
                self.oracle.reads.remove(&(id, read.0));
                let _ = writeln!(self.trace, "n{id} read {} lost", read.0);
            }
            if idle {
                return;
            }
        }
    }

    fn note(&mut self, id: NodeId, notice: Notice) {
        let start = |life: Incarnation| life.start;
        let _ = match notice {
            Notice::Replaced { peer, admitted, presented } => {
                let (admitted, presented) = (start(admitted), start(presented));
                writeln!(self.trace, "n{id} hears no n{peer}: admitted {admitted}, is {presented}")
            }
            Notice::LostEntries { peer, acknowledged, lacks } => writeln!(
                self.trace,
                "n{id} counts no n{peer}: acknowledged {acknowledged}, lacks {lacks}"
            ),
        };
    }

    fn complete_write(&mut self, id: NodeId) -> bool {
        let member = self.members.get_mut(&id).unwrap();
        let Some(persist) = member.writing.pop_front() else { return false };
        member.disk.write(&persist);
        if persist.hard_state.is_some() || !persist.entries.is_empty() {
            let _ = writeln!(self.trace, "n{id} {persist}");
        }
        member.node.as_mut().unwrap().persisted(persist.ticket);
        for message in persist.then_send {
            check_promise(&message, &self.members[&id].disk);
            self.send(message);
        }
        true
    }

    fn fetch(&mut self, id: NodeId, fetch: Fetch) {
        let member = self.members.get_mut(&id).unwrap();
        let mut bytes = 0;
        let entries = member.disk.entries[fetch.from.0 as usize - 1..fetch.to.0 as usize]
            .iter()
            .take_while(|entry| {
                let first = bytes == 0;
                bytes += entry.bytes();
                first || bytes <= fetch.bytes_max
            })
            .cloned()
            .collect();
        let (from, to) = (fetch.from, fetch.to);
        let _ = writeln!(self.trace, "n{id} fetch {from}..{to}");
        if member.hangs {
            return;
        }
        member.node.as_mut().unwrap().fetched(fetch, entries);
    }

    fn send(&mut self, message: Message) {
        let _ = writeln!(self.trace, "{message}");
        self.network.push(message);
    }

    /// State-machine safety: everybody applies the same entries in the same order, once.
    fn apply(&mut self, id: NodeId, entry: Entry) {
        if entry.kind == EntryKind::Command {
            let command = String::from_utf8_lossy(&entry.payload).into_owned();
            let _ = writeln!(self.trace, "n{id} apply {} \"{command}\"", entry.at);
        }
        let member = self.members.get_mut(&id).unwrap();
        let n = member.applied.len();
        assert_eq!(entry.at.index.0, n as u64 + 1, "each index is applied once, in order");
        match self.oracle.applied.get(n) {
            Some(known) => assert_eq!(known, &entry, "all apply the same"),
            None => {
                self.assert_on_quorum(&entry);
                let term = self.status(id).map_or(Term(0), |status| status.term);
                self.oracle.applied.push(entry.clone());
                self.oracle.applied_in.push(term);
            }
        }
        self.members.get_mut(&id).unwrap().applied.push(entry);
    }

    /// Durability: what is applied anywhere is on the disks of a quorum.
    fn assert_on_quorum(&self, entry: &Entry) {
        let holds = |id| {
            let disk: &DiskImage = &self.members[&id].disk;
            disk.entries.get(entry.at.index.0 as usize - 1) == Some(entry)
                || self.lost.contains(&id)
        };
        assert!(self.template.membership.is_quorum(holds), "{} is on a quorum", entry.at);
    }

    /// Linearizability: a read sees everything that was applied anywhere before it was asked.
    fn oracle_read(&mut self, id: NodeId, read: ReadReady) {
        let _ = writeln!(self.trace, "n{id} read {} index={}", read.id.0, read.index);
        let floor = self.oracle.reads.remove(&(id, read.id.0)).expect("confirmed once, if asked");
        assert!(read.index >= floor, "read {} sees everything up to {floor}", read.id.0);
        self.oracle.confirmed += 1;
    }

    /// Election safety and leader completeness.
    fn note_role(&mut self, id: NodeId, status: Status) {
        let member = self.members.get_mut(&id).unwrap();
        if member.role == status.role {
            return;
        }
        member.role = status.role;
        let _ = writeln!(self.trace, "n{id}@{} becomes {:?}", status.term, status.role);
        if status.role != RoleName::Leader {
            return;
        }
        let known = *self.oracle.leaders.entry(status.term).or_insert(id);
        assert_eq!(known, id, "one leader in term {}", status.term);
        // Its log, as far as it is on disk and on the way there.
        let mut log = member.disk.clone();
        member.writing.iter().for_each(|persist| log.write(persist));
        let applied = self.oracle.applied.iter().zip(&self.oracle.applied_in).enumerate();
        // A vote may come late, and its candidate win a term that others have left.
        for (n, (entry, _)) in applied.filter(|(_, (_, term))| **term < status.term) {
            assert_eq!(log.entries.get(n), Some(entry), "a leader holds all that is committed");
        }
    }
}

impl Member {
    fn new() -> Member {
        Member {
            node: None,
            disk: DiskImage::default(),
            copy: DiskImage::default(),
            writing: VecDeque::new(),
            slow: false,
            hangs: false,
            applied: Vec::new(),
            lives: 0,
            role: RoleName::Follower,
        }
    }
}

impl DiskImage {
    /// Names a new life of the log, once the last one was admitted.
    fn begin_life(&mut self, id: NodeId, draw: Option<u64>) {
        let Some(draw) = draw else { return };
        let own = self.restored().admissions.into_iter().filter_map(|(_, a)| a.get(&id).copied());
        if self.incarnation.start == 0 && self.hard_state != HardState::default() {
            self.incarnation = Incarnation::of_an_unnamed_log(draw);
        } else if self.incarnation.start == 0 || own.max() == Some(self.incarnation) {
            self.incarnation = Incarnation { start: self.incarnation.start + 1, id: draw };
        }
    }

    /// The last life of a member's log that this one knows to count.
    pub fn committed_life(&self, id: NodeId) -> Option<Incarnation> {
        let Restored { admissions, commit, .. } = self.restored();
        let committed = admissions.into_iter().filter(|(index, _)| *index <= commit);
        committed.filter_map(|(_, admission)| admission.get(&id).copied()).max()
    }

    pub fn restored(&self) -> Restored {
        let admission = |entry: &Entry| {
            let is_one = entry.kind == EntryKind::Admission;
            is_one.then(|| (entry.at.index, decode_admission(&entry.payload).expect("it is one")))
        };
        Restored {
            incarnation: self.incarnation,
            hard_state: self.hard_state,
            positions: self.entries.iter().map(|entry| entry.at).collect(),
            admissions: self.entries.iter().filter_map(admission).collect(),
            commit: self.commit,
        }
    }

    pub fn write(&mut self, persist: &Persist) {
        if let Some(hard_state) = persist.hard_state {
            assert!(hard_state.term >= self.hard_state.term, "terms on disk never go back");
            let again = hard_state.term == self.hard_state.term && self.hard_state.vote.is_some();
            assert!(!again || hard_state.vote == self.hard_state.vote, "one vote a term");
            self.hard_state = hard_state;
        }
        if let Some(first) = persist.entries.first() {
            assert!(first.at.index > self.commit, "what is committed is not replaced");
            self.entries.truncate(first.at.index.0 as usize - 1);
            assert_eq!(self.entries.len() as u64 + 1, first.at.index.0, "no gaps on disk");
            self.entries.extend(persist.entries.iter().cloned());
        }
        // The hint is honest only as far as the log on disk reaches.
        self.commit = self.commit.max(persist.commit.min(Index(self.entries.len() as u64)));
    }
}

/// A promise may leave only when the disk holds what it claims.
fn check_promise(message: &Message, disk: &DiskImage) {
    assert!(disk.hard_state.term >= message.term, "{message}: the term is on disk");
    match message.body {
        Body::VoteReply { granted: true, .. } => {
            let vote = HardState { term: message.term, vote: Some(message.to) };
            let kept = disk.hard_state == vote || disk.hard_state.term > message.term;
            assert!(kept, "{message}: the vote is on disk");
        }
        Body::Appended { matched } => {
            assert!(disk.entries.len() as u64 >= matched.0, "{message}: the entries are on disk");
        }
        Body::Vote { last, .. } => {
            assert!(disk.entries.len() as u64 >= last.index.0, "{message}: the log is on disk");
        }
        ref body => panic!("{body} is no promise"),
    }
}
