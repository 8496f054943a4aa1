//! Members killed and paused under load: nothing acknowledged is lost, members
//! agree, revisions never go back, and what clients saw is linearizable.
//!
//! | variable | what |
//! |---|---|
//! | `RAFT_KV_LEADER_KILLS` | rounds in which the leader is killed, 3 |
//! | `RAFT_KV_CLUSTER_KILLS` | rounds in which all members are killed at once, 1 |
//! | `RAFT_KV_PAUSES` | rounds in which the leader is stopped and continued, 2 |
//! | `RAFT_KV_SEED` | repeats the choices of a run; the timing is the machine's |
//! | `RAFT_KV_MEMBERS=etcd` | etcd in the place of our members, to test the test |

// Tests may unwrap, and so may what only they use.
#![allow(clippy::unwrap_used)]

#[path = "support/linearizability.rs"]
mod linearizability;
mod support;

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::{Duration, Instant};

use linearizability::{Action, Operation};
use proto::etcdserverpb as pb;
use proto::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use proto::etcdserverpb::request_op::Request as Op;
use support::cluster::{Cluster, Kind, member_serves};
use support::kv::{Connection, was_never_sent};
use support::random::Random;
use support::{alone, count_from_env, peer, say, seed};
use tokio::task::{JoinHandle, LocalSet};

/// A request at a member that runs, or was just killed, has an answer within this.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);
/// etcd lets writes that it lost at a leader change run into its time limit of 7 s.
const ANSWER_LIMIT_ETCD: Duration = Duration::from_secs(12);
/// How long a leader stands still: longer than any election timeout.
const PAUSE: Duration = Duration::from_secs(4);
/// How long the cluster may take to write again after a fault.
const RECOVERY_LIMIT: Duration = Duration::from_secs(30);

fn skips(test: &str) -> bool {
    let skips = Kind::under_test() == Kind::Etcd && peer::program().is_none();
    if skips {
        peer::skip(test, "no Go here to build a real etcd");
    }
    skips
}

/// What a writer was told about one put of a key that nobody else writes.
#[derive(Clone, Copy)]
enum Told {
    Done { revision: i64 },
    Unknown,
}

/// What writers and the test share; all run on one thread.
#[derive(Default)]
struct Load {
    stop: Cell<bool>,
    /// Puts acknowledged so far, by all writers.
    acknowledged: Cell<u64>,
    slowest: Cell<Duration>,
    unknown: Cell<u64>,
}

impl Load {
    fn took(&self, time: Duration, limit: Duration) {
        assert!(time < limit, "a request had no answer for {time:?}");
        self.slowest.set(self.slowest.get().max(time));
    }

    /// Waits until `more` further puts are acknowledged.
    async fn progress(&self, more: u64) {
        let (start, from) = (Instant::now(), self.acknowledged.get());
        while self.acknowledged.get() < from + more {
            assert!(start.elapsed() < RECOVERY_LIMIT, "no {more} writes within {RECOVERY_LIMIT:?}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

fn answer_limit() -> Duration {
    match Kind::under_test() {
        Kind::RaftKv => ANSWER_LIMIT,
        Kind::Etcd => ANSWER_LIMIT_ETCD,
    }
}

/// Puts `key/0`, `key/1`, ... at the members in turn until told to stop.
async fn write(load: Rc<Load>, endpoints: Vec<String>, writer: usize) -> Vec<(String, Told)> {
    let limit = answer_limit();
    let connections: Vec<_> =
        endpoints.iter().map(|endpoint| Connection::new(endpoint, limit)).collect();
    let mut told = Vec::new();
    let mut revision = 0;
    while !load.stop.get() {
        let n = told.len();
        let key = format!("writer-{writer}/{n:06}");
        let put = pb::PutRequest {
            key: key.clone().into(),
            value: format!("{n}").into(),
            ..Default::default()
        };
        let start = Instant::now();
        let answer = connections[(n + writer) % connections.len()].put(put).await;
        load.took(start.elapsed(), limit);
        match answer {
            Ok(answer) => {
                let now = answer.header.expect("a put's answer has a header").revision;
                assert!(now > revision, "{key} got revision {now} after {revision}");
                revision = now;
                told.push((key, Told::Done { revision }));
                load.acknowledged.set(load.acknowledged.get() + 1);
            }
            Err(status) => {
                if !was_never_sent(&status) {
                    load.unknown.set(load.unknown.get() + 1);
                }
                told.push((key, Told::Unknown));
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    }
    told
}

async fn everything(endpoint: &str, revision: i64, serializable: bool) -> pb::RangeResponse {
    let connection = Connection::new(endpoint, Duration::from_secs(20));
    let (key, range_end) = ("\0".into(), "\0".into());
    let range = pb::RangeRequest { key, range_end, revision, serializable, ..Default::default() };
    connection.range(range).await.unwrap()
}

/// All members hold the same; returns it.
async fn members_agree(cluster: &Cluster) -> pb::RangeResponse {
    let endpoints = cluster.endpoints();
    let first = everything(&endpoints[0], 0, false).await;
    let revision = first.header.as_ref().unwrap().revision;
    for endpoint in &endpoints {
        // A linearizable read first: from then on the member has applied all.
        everything(endpoint, 0, false).await;
        let other = everything(endpoint, revision, true).await;
        assert!(first.kvs == other.kvs, "{endpoint} holds other keys at revision {revision}");
    }
    first
}

/// Every acknowledged put is there, once; of the others only what was asked for.
fn nothing_lost(contents: &pb::RangeResponse, told: &[(String, Told)]) {
    let found: std::collections::BTreeMap<_, _> =
        contents.kvs.iter().map(|kv| (kv.key.as_ref(), kv)).collect();
    for (key, told) in told {
        let kv = found.get(key.as_bytes());
        if let Some(kv) = kv {
            let value = key.rsplit('/').next().unwrap().parse::<u64>().unwrap().to_string();
            assert!(kv.value == value && kv.version == 1, "{key} holds {kv:?}");
        }
        if let Told::Done { revision } = told {
            let kv = kv.unwrap_or_else(|| panic!("{key}, acknowledged at {revision}, is lost"));
            assert_eq!(kv.mod_revision, *revision, "{key} moved");
        }
    }
    assert!(found.len() <= told.len(), "there are keys that nobody wrote");
    let last = contents.header.as_ref().unwrap().revision;
    assert!(contents.kvs.iter().all(|kv| kv.mod_revision <= last), "the revision went back");
}

#[test]
fn acknowledged_writes_survive_killed_members() {
    if skips("faults") {
        return;
    }
    alone(LocalSet::new().run_until(async {
        let mut cluster = Cluster::start(Kind::under_test(), 3, &[]).await;
        let load = Rc::new(Load::default());
        let writers: Vec<JoinHandle<_>> = (0..4)
            .map(|n| tokio::task::spawn_local(write(load.clone(), cluster.endpoints(), n)))
            .collect();
        for _ in 0..count_from_env("RAFT_KV_LEADER_KILLS", 3) {
            load.progress(100).await;
            let leader = cluster.leader().await;
            cluster.members[leader].kill();
            load.progress(100).await;
            cluster.members[leader].start();
            member_serves(&mut cluster.members[leader]).await;
        }
        for _ in 0..count_from_env("RAFT_KV_CLUSTER_KILLS", 1) {
            load.progress(100).await;
            for member in &mut cluster.members {
                member.kill();
            }
            for member in &mut cluster.members {
                member.start();
            }
            cluster.serves().await;
        }
        load.progress(100).await;
        load.stop.set(true);
        let mut told = Vec::new();
        for writer in writers {
            told.extend(writer.await.unwrap());
        }
        nothing_lost(&members_agree(&cluster).await, &told);
        say(format!(
            "killed members: {} puts acknowledged, {} of unknown fate; slowest answer {:?}",
            load.acknowledged.get(),
            load.unknown.get(),
            load.slowest.get()
        ));
    }));
}

/// A client that does random operations on few keys and records them.
struct Recorder {
    connections: Vec<Connection>,
    random: Random,
    start: Instant,
    /// Makes every value written unique.
    next_value: Rc<Cell<u64>>,
    history: Rc<RefCell<Vec<Operation>>>,
}

impl Recorder {
    async fn run(mut self, load: Rc<Load>) {
        while !load.stop.get() {
            let key = self.random.below(5);
            let value = self.next_value.replace(self.next_value.get() + 1);
            let member = self.random.below(self.connections.len() as u64) as usize;
            let connection = self.connections[member].clone();
            let call = self.now();
            let (action, unknown, answered) = match self.random.below(10) {
                0..5 => get(&connection, key).await,
                5..7 => put(&connection, key, value).await,
                7 => delete(&connection, key).await,
                _ => self.compare_and_put(&connection, key, value).await,
            };
            let end = self.now();
            if answered != Answered::NeverSent {
                let is_known = answered == Answered::Yes;
                let (action, end) = if is_known { (action, Some(end)) } else { (unknown, None) };
                self.history.borrow_mut().push(Operation { key, action, call, end });
            }
            if answered == Answered::Yes {
                load.acknowledged.set(load.acknowledged.get() + 1);
            }
            tokio::time::sleep(Duration::from_millis(1 + self.random.below(6))).await;
        }
    }

    fn now(&self) -> u64 {
        self.start.elapsed().as_micros() as u64
    }

    /// Compares with a value that the key has held lately, so that it wins at times.
    async fn compare_and_put(&self, connection: &Connection, key: u64, new: u64) -> Record {
        let old =
            self.history.borrow().iter().rev().filter(|past| past.key == key).find_map(|past| {
                match past.action {
                    Action::Put(value) => Some(Some(value)),
                    Action::Get(value) => Some(value),
                    _ => None,
                }
            });
        let old = old.flatten();
        let compare = match old {
            Some(old) => pb::Compare {
                result: CompareResult::Equal.into(),
                target: CompareTarget::Value.into(),
                key: name(key),
                target_union: Some(TargetUnion::Value(old.to_string().into())),
                ..Default::default()
            },
            None => pb::Compare { key: name(key), ..Default::default() }, // version = 0
        };
        let put =
            pb::PutRequest { key: name(key), value: new.to_string().into(), ..Default::default() };
        let put = pb::RequestOp { request: Some(Op::RequestPut(put)) };
        let txn = pb::TxnRequest { compare: vec![compare], success: vec![put], failure: vec![] };
        let answer = connection.txn(txn).await;
        let done = answer.as_ref().is_ok_and(|answer| answer.succeeded);
        let unknown = Action::CompareAndPutUnknown { old, new };
        (Action::CompareAndPut { old, new, done }, unknown, answered(&answer))
    }
}

#[derive(PartialEq, Eq)]
enum Answered {
    Yes,
    No,
    NeverSent,
}

/// The action as answered, the action if its fate is unknown, and which it is.
type Record = (Action, Action, Answered);

fn answered<T>(answer: &Result<T, tonic::Status>) -> Answered {
    match answer {
        Ok(_) => Answered::Yes,
        Err(status) if was_never_sent(status) => Answered::NeverSent,
        Err(_) => Answered::No,
    }
}

fn name(key: u64) -> bytes::Bytes {
    format!("key-{key}").into()
}

async fn get(connection: &Connection, key: u64) -> Record {
    let range = pb::RangeRequest { key: name(key), ..Default::default() };
    let answer = connection.range(range).await;
    let value = answer.as_ref().ok().and_then(|answer| answer.kvs.first()).map(|kv| {
        std::str::from_utf8(&kv.value).unwrap().parse().expect("only numbers are written")
    });
    (Action::Get(value), Action::Get(value), answered(&answer))
}

async fn put(connection: &Connection, key: u64, value: u64) -> Record {
    let text = value.to_string().into();
    let answer =
        connection.put(pb::PutRequest { key: name(key), value: text, ..Default::default() }).await;
    (Action::Put(value), Action::Put(value), answered(&answer))
}

async fn delete(connection: &Connection, key: u64) -> Record {
    let request = pb::DeleteRangeRequest { key: name(key), ..Default::default() };
    let answer = connection.delete(request).await;
    (Action::Delete, Action::Delete, answered(&answer))
}

/// Stops the leader for longer than an election takes. Requests wait at it
/// meanwhile, and reach a leader that is none any more when it continues.
async fn pause_leader(cluster: &Cluster, load: &Load) {
    let leader = cluster.leader().await;
    cluster.members[leader].pause();
    tokio::time::sleep(PAUSE).await;
    cluster.members[leader].resume();
    load.progress(500).await;
}

async fn kill_leader(cluster: &mut Cluster, load: &Load) {
    let leader = cluster.leader().await;
    cluster.members[leader].kill();
    load.progress(100).await;
    cluster.members[leader].start();
    member_serves(&mut cluster.members[leader]).await;
}

#[test]
fn histories_under_faults_are_linearizable() {
    if skips("faults") {
        return;
    }
    let seed = seed("faults");
    alone(LocalSet::new().run_until(async move {
        let mut cluster = Cluster::start(Kind::under_test(), 3, &[]).await;
        let load = Rc::new(Load::default());
        let history = Rc::new(RefCell::new(Vec::new()));
        let (next_value, start) = (Rc::new(Cell::new(1)), Instant::now());
        let clients: Vec<JoinHandle<()>> = (0..12)
            .map(|n| {
                // Longer than a pause: a request at a paused leader is answered after it.
                let connection = |endpoint: &String| Connection::new(endpoint, 5 * PAUSE);
                let recorder = Recorder {
                    connections: cluster.endpoints().iter().map(connection).collect(),
                    random: Random::new(seed.wrapping_add(n)),
                    start,
                    next_value: next_value.clone(),
                    history: history.clone(),
                };
                tokio::task::spawn_local(recorder.run(load.clone()))
            })
            .collect();
        load.progress(1000).await;
        for _ in 0..count_from_env("RAFT_KV_PAUSES", 2) {
            pause_leader(&cluster, &load).await;
        }
        for _ in 0..count_from_env("RAFT_KV_LEADER_KILLS", 3).div_ceil(3) {
            kill_leader(&mut cluster, &load).await;
        }
        load.stop.set(true);
        for client in clients {
            client.await.unwrap();
        }
        members_agree(&cluster).await;
        let history = history.borrow();
        let unknown = history.iter().filter(|operation| operation.end.is_none()).count();
        say(format!("history: {} operations, {unknown} of unknown fate", history.len()));
        let checked = Instant::now();
        linearizability::check(&history).unwrap_or_else(|why| panic!("seed {seed}: {why}"));
        say(format!("history: linearizable, checked in {:?}", checked.elapsed()));
        a_stale_read_would_show(&history);
    }));
}

/// The check can fail on this very history: a read is given an old value of its key.
fn a_stale_read_would_show(history: &[Operation]) {
    let mut history = history.to_vec();
    let is_read = |operation: &&Operation| matches!(operation.action, Action::Get(Some(_)));
    let read = *history.iter().rfind(is_read).expect("somebody read something");
    let old = history.iter().find_map(|operation| match operation.action {
        Action::Put(old) if operation.key == read.key && operation.end.is_some() => Some(old),
        _ => None,
    });
    assert!(old.is_some() && read.action != Action::Get(old), "the history is too short");
    history.iter_mut().rfind(|operation| is_read(&&**operation)).expect("as above").action =
        Action::Get(old);
    assert!(linearizability::check(&history).is_err(), "the check misses a stale read");
}
