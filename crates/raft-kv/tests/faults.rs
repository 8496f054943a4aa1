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

#[path = "support/answers.rs"]
mod answers;
mod support;

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::{Duration, Instant};

use answers::Asked;
use bytes::Bytes;
use proto::etcdserverpb as pb;
use proto::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use proto::etcdserverpb::request_op::Request as Op;
use sim::check::linearizability::{self, Answer, Operation, Request};
use store::Command;
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
    client: u32,
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
            let asked = self.asked();
            let member = self.random.below(self.connections.len() as u64) as usize;
            let connection = self.connections[member].clone();
            let (request, call) = (asked.request(), self.now());
            let answer = asked.send(&connection).await;
            let end = Some(self.now()).filter(|_| answer.is_ok());
            if answer.is_ok() {
                load.acknowledged.set(load.acknowledged.get() + 1);
            }
            // Whatever else went wrong, the request may have been done, or will be.
            if !answer.as_ref().is_err_and(was_never_sent) {
                let (client, answer) = (self.client, answer.ok());
                self.history.borrow_mut().push(Operation { client, call, end, request, answer });
            }
            tokio::time::sleep(Duration::from_millis(1 + self.random.below(6))).await;
        }
    }

    fn now(&self) -> u64 {
        self.start.elapsed().as_micros() as u64
    }

    fn asked(&mut self) -> Asked {
        let key: Bytes = format!("key-{}", self.random.below(5)).into();
        let value = self.next_value.replace(self.next_value.get() + 1).to_string().into();
        let prev_kv = self.random.one_in(2);
        match self.random.below(10) {
            0..5 => Asked::Range(pb::RangeRequest { key, ..Default::default() }),
            5..7 => Asked::Put(pb::PutRequest { key, value, prev_kv, ..Default::default() }),
            7 => Asked::DeleteRange(pb::DeleteRangeRequest { key, prev_kv, ..Default::default() }),
            _ => Asked::Txn(self.compare_and_put(key, value)),
        }
    }

    /// Compares with a value that the key has held lately, so that it wins at times, and reads the
    /// key when it does not.
    fn compare_and_put(&self, key: Bytes, value: Bytes) -> pb::TxnRequest {
        let mut compare = pb::Compare { key: key.clone(), ..Default::default() }; // version = 0
        if let Some(old) = self.last_value(&key) {
            compare.set_target(CompareTarget::Value);
            compare.set_result(CompareResult::Equal);
            compare.target_union = Some(TargetUnion::Value(old));
        }
        let put = pb::PutRequest { key: key.clone(), value, prev_kv: true, ..Default::default() };
        let get = pb::RangeRequest { key, ..Default::default() };
        let step = |request| vec![pb::RequestOp { request: Some(request) }];
        let (success, failure) = (step(Op::RequestPut(put)), step(Op::RequestRange(get)));
        pb::TxnRequest { compare: vec![compare], success, failure }
    }

    fn last_value(&self, key: &Bytes) -> Option<Bytes> {
        let history = self.history.borrow();
        let mut values =
            history.iter().rev().filter_map(|past| match (&past.request, &past.answer) {
                (Request::Command(Command::Put(put)), _) if put.key == key => {
                    Some(Some(put.value.clone()))
                }
                (Request::Range(range), Some(Answer::Range(result, _))) if range.key == key => {
                    Some(result.kvs.first().map(|kv| kv.value.clone()))
                }
                _ => None,
            });
        values.next().flatten()
    }
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
                    client: n,
                    connections: cluster.endpoints().iter().map(connection).collect(),
                    random: Random::new(seed.wrapping_add(u64::from(n))),
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
        let checked = Instant::now();
        let report = linearizability::check(&history);
        let report = report.unwrap_or_else(|why| panic!("seed {seed}: {why}"));
        say(format!("history: linearizable, checked in {:?}; {report:?}", checked.elapsed()));
        a_stale_read_would_show(&history);
    }));
}

/// The check can fail on this very history: the last read is given what the first one of its key
/// that was answered otherwise had found.
fn a_stale_read_would_show(history: &[Operation]) {
    let mut history = history.to_vec();
    let read = |operation: &Operation| match &operation.answer {
        Some(Answer::Range(result, revision)) => Some((result.clone(), *revision)),
        _ => None,
    };
    let last = history.iter().rposition(|operation| read(operation).is_some());
    let last = last.expect("somebody read something");
    let (new, revision) = read(&history[last]).expect("it was found so");
    let is_older = |operation: &&Operation| {
        operation.request == history[last].request
            && operation.end.is_some_and(|end| end < history[last].call)
    };
    let mut older = history.iter().filter(is_older).filter_map(read);
    let old = older.find(|(old, _)| *old != new).expect("the history is long enough");
    history[last].answer = Some(Answer::Range(old.0, revision));
    assert!(linearizability::check(&history).is_err(), "the check misses a stale read");
}
