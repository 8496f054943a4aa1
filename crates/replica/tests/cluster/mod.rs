//! A cluster of whole members in one thread: replica, storage and log over a disk in memory; a
//! network that is a list of envelopes; no clock but the test's.

#![allow(dead_code, reason = "each test binary uses a part")]

use bytes::Bytes;
use proto::etcdserverpb::{CompactionRequest, PutRequest};
use raft::{Fetch, Index, Membership, NodeId, Persist, Status};
use replica::{
    Config, DiskReader, DiskWriter, Input, Kind, Member, Outbox, PeerMessage, Persisted, Proposal,
    Published, Replica, Reply, RequestId, Started, Storage,
};
use std::collections::BTreeMap;
use std::io;
use store::{KeyValue, Outcome, Range};
use wal::MemoryDisk;

pub const CLUSTER: u64 = 0xc1;

/// One message under way.
#[derive(Clone, Debug)]
pub struct Envelope {
    pub from: NodeId,
    pub to: NodeId,
    pub message: PeerMessage,
}

pub struct Cluster {
    pub slots: BTreeMap<NodeId, Slot>,
    pub network: Vec<Envelope>,
    /// Messages of these pairs are lost.
    pub cut: Vec<(NodeId, NodeId)>,
    pub replies: BTreeMap<RequestId, Answer>,
    /// The store's revision at each index that readers saw, which is the same on all members.
    revisions: BTreeMap<Index, i64>,
    next_request: u64,
    lives: u64,
    seed: u64,
}

/// What a client was told.
#[derive(Debug)]
pub struct Answer {
    pub at: NodeId,
    pub reply: Reply,
    /// What readers there saw at that moment.
    pub revision: i64,
}

pub struct Slot {
    pub disk: MemoryDisk,
    pub life: Option<Life>,
}

/// What is gone after a crash.
pub struct Life {
    pub boot: u64,
    pub replica: Replica,
    pub writer: DiskWriter<MemoryDisk>,
    pub reader: DiskReader<MemoryDisk>,
    pub published: Published,
}

impl Life {
    /// Writes these as one batch.
    pub fn write(&mut self, persists: impl IntoIterator<Item = Persist>) -> io::Result<Persisted> {
        persists.into_iter().for_each(|persist| self.writer.push(persist));
        assert!(self.writer.begin());
        self.writer.finish()
    }
}

pub fn id(number: u64) -> NodeId {
    NodeId(number)
}

impl Cluster {
    pub fn new(size: u64, seed: u64) -> Cluster {
        let mut cluster = Cluster {
            slots: BTreeMap::new(),
            network: Vec::new(),
            cut: Vec::new(),
            replies: BTreeMap::new(),
            revisions: BTreeMap::new(),
            next_request: 0,
            lives: 0,
            seed,
        };
        for number in 1..=size {
            cluster.slots.insert(id(number), Slot { disk: MemoryDisk::default(), life: None });
        }
        for number in 1..=size {
            cluster.start(id(number));
        }
        cluster
    }

    /// A cluster with a leader that everybody knows.
    pub fn led(size: u64, seed: u64) -> (Cluster, NodeId) {
        let mut cluster = Cluster::new(size, seed);
        let leader = cluster.elect();
        cluster.tick(1);
        (cluster, leader)
    }

    pub fn config(&mut self, member: NodeId) -> Config {
        self.lives += 1;
        let voters: Vec<NodeId> = self.slots.keys().copied().collect();
        let raft = raft::Config {
            id: member,
            membership: Membership::new(voters.iter().copied()),
            election_ticks: 10,
            heartbeat_ticks: 2,
            seed: self.seed ^ self.lives << 32,
            pre_vote: true,
            check_quorum: true,
            append_bytes_max: 400,
            inflight_bytes_max: 1 << 20,
            tail_bytes_max: 600,
        };
        let members = voters.iter().map(|id| Member {
            id: *id,
            name: String::new(),
            peer_urls: vec![format!("http://peer-{id}")],
            client_urls: Vec::new(),
            is_learner: false,
        });
        let members = members.collect();
        let (boot, request_ticks_max, admitted_bytes_max) = (self.lives, 60, 4096);
        let slice = replica::Slice::default();
        Config { raft, boot, members, request_ticks_max, admitted_bytes_max, slice }
    }

    pub fn start(&mut self, member: NodeId) {
        let config = self.config(member);
        let boot = config.boot;
        let slot = self.slots.get_mut(&member).unwrap();
        let identity = wal::Identity { cluster: CLUSTER, member: member.0 };
        let options = wal::Options { segment_bytes: 16 << 10, ..wal::Options::default() };
        let Started { storage, restored, .. } =
            Storage::start(slot.disk.clone(), identity, options, self.seed ^ boot).unwrap();
        let mut replica = Replica::new(config, restored);
        let mut outbox = Outbox::default();
        replica.handle([], &mut outbox);
        assert!(outbox.peers.is_empty() && outbox.persists.is_empty());
        let published = outbox.published.expect("readers see something from the start");
        let (reader, writer) = (storage.reader(), DiskWriter::new(storage));
        slot.life = Some(Life { boot, replica, writer, reader, published });
        let fetched = self.fetch(member, outbox.fetches);
        self.round(member, fetched);
    }

    /// The power fails; of what was not synced, some may survive.
    pub fn crash(&mut self, member: NodeId, mut keeps: impl FnMut() -> bool) {
        let slot = self.slots.get_mut(&member).unwrap();
        slot.life = None;
        slot.disk.lose_power(|_| keeps());
    }

    pub fn life(&self, member: NodeId) -> &Life {
        self.slots[&member].life.as_ref().unwrap()
    }

    pub fn status(&self, member: NodeId) -> Status {
        self.life(member).replica.status()
    }

    pub fn alive(&self) -> Vec<NodeId> {
        self.slots.iter().filter(|(_, slot)| slot.life.is_some()).map(|(id, _)| *id).collect()
    }

    /// One round at one member. Published first, then answers, as a driver must.
    pub fn round(&mut self, member: NodeId, inputs: Vec<Input>) {
        let Some(life) = &mut self.slots.get_mut(&member).unwrap().life else { return };
        let mut outbox = Outbox::default();
        life.replica.handle(inputs, &mut outbox);
        outbox.persists.into_iter().for_each(|persist| life.writer.push(persist));
        if let Some(published) = outbox.published {
            life.published = published;
        }
        let status = life.published.status;
        let revision = life.published.view.revision().0;
        assert_eq!(status, life.replica.status(), "readers see the latest status");
        assert_eq!(*self.revisions.entry(status.applied).or_insert(revision), revision);
        for (request, reply) in outbox.replies {
            if let Reply::Applied { revision: applied, .. } = &reply {
                assert!(applied.0 <= revision, "what is answered can be read");
            }
            let answer = Answer { at: member, reply, revision };
            assert!(self.replies.insert(request, answer).is_none(), "{request:?} answered twice");
        }
        for (to, message) in outbox.peers {
            self.network.push(Envelope { from: member, to, message });
        }
        let fetched = self.fetch(member, outbox.fetches);
        if !fetched.is_empty() {
            self.round(member, fetched);
        }
    }

    fn fetch(&mut self, member: NodeId, fetches: Vec<Fetch>) -> Vec<Input> {
        let reader = &mut self.slots.get_mut(&member).unwrap().life.as_mut().unwrap().reader;
        fetches.into_iter().for_each(|fetch| reader.push(fetch));
        let mut fetched = Vec::new();
        while let Some(fetch) = reader.begin() {
            fetched.push(Input::Fetched(fetch, reader.fetch(fetch).unwrap()));
        }
        fetched
    }

    /// Writes all that is queued. False if the disk failed, which ends the member.
    pub fn run_disk(&mut self, member: NodeId) -> bool {
        let Some(life) = &mut self.slots.get_mut(&member).unwrap().life else { return true };
        if !life.writer.begin() {
            return true;
        }
        let Ok(persisted) = life.writer.finish() else { return false };
        for message in persisted.then_send {
            let to = message.to;
            self.network.push(Envelope { from: member, to, message: PeerMessage::Raft(message) });
        }
        self.round(member, vec![Input::Persisted(persisted.ticket)]);
        true
    }

    pub fn deliver(&mut self, envelope: Envelope) {
        let Envelope { from, to, message } = envelope;
        if !self.cut.contains(&(from, to)) {
            self.round(to, vec![Input::Peer(from, message)]);
        }
    }

    /// Delivers and writes until nothing moves without time.
    pub fn settle(&mut self) {
        for _ in 0..10_000 {
            for member in self.alive() {
                assert!(self.run_disk(member));
            }
            if self.network.is_empty() {
                return;
            }
            let envelope = self.network.remove(0);
            self.deliver(envelope);
        }
        panic!("the cluster does not settle");
    }

    pub fn tick(&mut self, ticks: u32) {
        for _ in 0..ticks {
            for member in self.alive() {
                self.round(member, vec![Input::Tick]);
            }
            self.settle();
        }
    }

    pub fn leader(&self) -> Option<NodeId> {
        let leads = |id: &NodeId| self.status(*id).leader == Some(*id);
        self.alive().into_iter().filter(leads).max_by_key(|id| self.status(*id).term)
    }

    /// Lets time pass until somebody leads.
    pub fn elect(&mut self) -> NodeId {
        for _ in 0..400 {
            if let Some(leader) = self.leader() {
                return leader;
            }
            self.tick(1);
        }
        panic!("nobody was elected");
    }

    pub fn follower(&self) -> NodeId {
        let leader = self.leader();
        self.alive().into_iter().find(|id| Some(*id) != leader).unwrap()
    }

    pub fn request(&mut self) -> RequestId {
        self.next_request += 1;
        RequestId(self.next_request)
    }

    pub fn put(&mut self, at: NodeId, key: &str, value: &str) -> RequestId {
        let proposal = put(key, value);
        self.propose(at, proposal)
    }

    pub fn propose(&mut self, at: NodeId, proposal: Proposal) -> RequestId {
        let request = self.request();
        self.round(at, vec![Input::Propose { request, proposal }]);
        request
    }

    pub fn read(&mut self, at: NodeId) -> RequestId {
        let request = self.request();
        self.round(at, vec![Input::Read { request }]);
        request
    }

    pub fn reply(&self, request: RequestId) -> Option<&Reply> {
        self.replies.get(&request).map(|answer| &answer.reply)
    }

    pub fn get(&self, at: NodeId, key: &str) -> Option<KeyValue> {
        let range = Range { key: Bytes::copy_from_slice(key.as_bytes()), ..Range::default() };
        self.life(at).published.view.range(&range).unwrap().kvs.pop()
    }

    /// Everything that readers at this member can see.
    pub fn contents(&self, at: NodeId) -> (i64, Vec<KeyValue>) {
        let everything = Bytes::from_static(b"\0");
        let range = Range { key: everything.clone(), range_end: everything, ..Range::default() };
        let view = &self.life(at).published.view;
        (view.revision().0, view.range(&range).unwrap().kvs)
    }

    /// Takes the messages under way that `takes` says yes to out of the network.
    pub fn take(&mut self, takes: impl Fn(&Envelope) -> bool) -> Vec<Envelope> {
        self.network.extract_if(.., |envelope| takes(envelope)).collect()
    }

    /// Cuts a member off from all others, both ways.
    pub fn isolate(&mut self, member: NodeId) {
        for other in self.slots.keys() {
            self.cut.extend([(member, *other), (*other, member)]);
        }
    }
}

pub fn put(key: &str, value: &str) -> Proposal {
    let key = Bytes::copy_from_slice(key.as_bytes());
    let value = Bytes::copy_from_slice(value.as_bytes());
    Proposal::new(Kind::Put, &PutRequest { key, value, ..PutRequest::default() })
}

pub fn compact(revision: i64, physical: bool) -> Proposal {
    let proposal = Proposal::new(Kind::Compact, &CompactionRequest { revision, physical });
    if physical { proposal.physical() } else { proposal }
}

/// The revision of a put that was applied.
pub fn put_at(reply: Option<&Reply>) -> Option<i64> {
    match reply {
        Some(Reply::Applied { outcome: Ok(Outcome::Put { .. }), revision }) => Some(revision.0),
        _ => None,
    }
}
