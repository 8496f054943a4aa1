//! The same random programs run on three of our members and on a real etcd 3.7:
//! answers, error codes and error texts must be the same, field by field.
//!
//! | variable | what |
//! |---|---|
//! | `RAFT_KV_CONFORMANCE_REQUESTS` | requests to send, 3000 |
//! | `RAFT_KV_SEED` | repeats a run |
//! | `RAFT_KV_MEMBERS=etcd` | etcd in the place of our members, to test the test |

// Tests may unwrap, and so may what only they use.
#![allow(clippy::unwrap_used)]

mod support;

use std::time::Duration;

use prost::Message;
use proto::etcdserverpb as pb;
use proto::etcdserverpb::request_op::Request as Op;
use proto::mvccpb;
use support::cluster::{Cluster, Kind};
use support::comparison::{Answered, difference};
use support::kv::Connection;
use support::peer;
use support::program::{Program, Step};
use support::{alone, count_from_env, repeat, say, seed};

/// Requests of one program. Each program finds a cluster that holds what the last one left.
const PROGRAM_LEN: u64 = 500;
const LIMIT: Duration = Duration::from_secs(20);

struct Sides {
    ours: Vec<Connection>,
    theirs: Connection,
    /// The member that has surely applied all: it gave the last good answer.
    current: usize,
}

impl Sides {
    /// Sends one request to both. Answers whether it was an error, or the difference.
    async fn run(&mut self, program: &mut Program, step: &Step) -> Result<bool, String> {
        let chosen = program.random().below(self.ours.len() as u64) as usize;
        let member = if step.is_local() { self.current } else { chosen };
        let ours = self.ours[member].call(step.path(), step.message()).await;
        let theirs = self.theirs.call(step.path(), step.message()).await;
        if ours.is_ok() {
            self.current = member;
        }
        if let Some(difference) = difference(step, &ours, &theirs) {
            return Err(format!("at member {}: {difference}", member + 1));
        }
        note(program, step, &theirs);
        Ok(theirs.is_err())
    }
}

/// Keeps the program's idea of the revision: every answer starts with a header.
fn note(program: &mut Program, step: &Step, answer: &Answered) {
    let Ok(answer) = answer else { return };
    if let Some(header) =
        pb::CompactionResponse::decode(answer.clone()).ok().and_then(|answer| answer.header)
    {
        program.revision = program.revision.max(header.revision);
    }
    if let Step::Compact(compact) = step {
        program.compacted = program.compacted.max(compact.revision);
    }
}

#[test]
fn answers_are_etcds() {
    alone(conformance());
}

async fn conformance() {
    if peer::program().is_none() {
        return peer::skip("conformance", "no Go here to build a real etcd");
    }
    let seed = seed("conformance");
    let requests = count_from_env("RAFT_KV_CONFORMANCE_REQUESTS", 3000);
    let ours = Cluster::start(Kind::under_test(), 3, &[]).await;
    let theirs = Cluster::start(Kind::Etcd, 1, &[]).await;
    let mut sides = Sides {
        ours: ours.endpoints().iter().map(|endpoint| Connection::new(endpoint, LIMIT)).collect(),
        theirs: Connection::new(&theirs.endpoints()[0], LIMIT),
        current: 0,
    };
    let mut program = Program::new(seed);
    // A program of errors alone would agree too: count them.
    let mut errors = 0;
    for at in 0..requests {
        if at > 0 && at % PROGRAM_LEN == 0 {
            let (revision, compacted) = (program.revision, program.compacted);
            program = Program::new(seed.wrapping_add(at));
            (program.revision, program.compacted) = (revision, compacted);
        }
        let step = program.step();
        match sides.run(&mut program, &step).await {
            Ok(is_error) => errors += u64::from(is_error),
            Err(difference) => panic!(
                "seed {seed}, step {at}: {}\n{difference}\nrepeat: {}",
                shown(&step),
                repeat("conformance", seed)
            ),
        }
    }
    let revision = program.revision;
    say(format!(
        "conformance: {requests} requests, {errors} of them errors, no difference; revision {revision}"
    ));
    assert!((requests / 20..requests / 2).contains(&errors), "the programs are one-sided");
}

/// Nested ranges are no write, so what a write may cost does not bound their answer.
#[test]
fn ranges_in_a_nested_transaction_may_answer_more_than_a_write() {
    alone(async {
        let cluster = Cluster::start(Kind::under_test(), 1, &[]).await;
        let connection = Connection::new(&cluster.endpoints()[0], LIMIT);
        let value = vec![b'v'; 300_000];
        let put = pb::PutRequest { key: "a".into(), value: value.into(), ..Default::default() };
        connection.put(put).await.unwrap();
        let range = pb::RangeRequest { key: "a".into(), ..Default::default() };
        let op = pb::RequestOp { request: Some(Op::RequestRange(range)) };
        let inner = pb::TxnRequest { success: vec![op; 127], ..Default::default() };
        let nested = pb::RequestOp { request: Some(Op::RequestTxn(inner)) };
        let txn = pb::TxnRequest { success: vec![nested], ..Default::default() };
        let step = Step::Txn(txn);
        let answer = connection.call(step.path(), step.message()).await.unwrap();
        assert!(answer.len() > 127 * 300_000, "{}", answer.len());
    });
}

/// A step in one line of bearable length.
fn shown(step: &Step) -> String {
    let mut text = format!("{step:?}");
    if text.len() > 2000 {
        text = format!("{}... ({} bytes)", text.chars().take(2000).collect::<String>(), text.len());
    }
    text
}

/// A delete up to `\0` (the end of all keys) beside a put of a key that it covers
/// kills etcd up to 3.7.3; ours has to refuse it, and go on.
#[test]
fn a_delete_to_the_end_conflicts_with_a_put() {
    alone(async {
        if Kind::under_test() == Kind::Etcd {
            return say("SKIP a_delete_to_the_end_conflicts_with_a_put: it would kill etcd");
        }
        let cluster = Cluster::start(Kind::RaftKv, 3, &[]).await;
        for endpoint in cluster.endpoints() {
            let connection = Connection::new(&endpoint, LIMIT);
            let put = pb::PutRequest { key: "b".into(), value: "1".into(), ..Default::default() };
            connection.put(put.clone()).await.unwrap();
            for ignore_value in [false, true] {
                let value = if ignore_value { "".into() } else { put.value.clone() };
                let put = pb::PutRequest { value, ignore_value, ..put.clone() };
                let delete = pb::DeleteRangeRequest {
                    key: "a".into(),
                    range_end: "\0".into(),
                    prev_kv: false,
                };
                let ops = [Op::RequestDeleteRange(delete), Op::RequestPut(put)]
                    .map(|op| pb::RequestOp { request: Some(op) });
                let txn = pb::TxnRequest { success: ops.to_vec(), ..Default::default() };
                let refusal = connection.txn(txn).await.unwrap_err();
                assert_eq!(refusal.code(), tonic::Code::InvalidArgument);
                assert_eq!(refusal.message(), "etcdserver: duplicate key given in txn request");
            }
            let range = pb::RangeRequest { key: "b".into(), ..Default::default() };
            assert_eq!(connection.range(range).await.unwrap().kvs[0].value, "1");
        }
    });
}

/// The comparison can fail: whatever single field of an answer changes, it shows.
#[test]
fn every_changed_field_is_a_difference() {
    let kv = mvccpb::KeyValue {
        key: "a".into(),
        create_revision: 2,
        mod_revision: 3,
        version: 2,
        value: "v".into(),
        lease: 0,
    };
    let header = pb::ResponseHeader { cluster_id: 1, member_id: 2, revision: 3, raft_term: 4 };
    let answer =
        pb::RangeResponse { header: Some(header), kvs: vec![kv.clone()], more: false, count: 1 };
    let changes: [fn(&mut pb::RangeResponse); 12] = [
        |answer| answer.header = None,
        |answer| answer.header.as_mut().unwrap().revision = 4,
        |answer| answer.header.as_mut().unwrap().raft_term = 0,
        |answer| answer.header.as_mut().unwrap().member_id = 0,
        |answer| answer.kvs[0].key = "b".into(),
        |answer| answer.kvs[0].create_revision = 3,
        |answer| answer.kvs[0].mod_revision = 2,
        |answer| answer.kvs[0].version = 3,
        |answer| answer.kvs[0].value = "w".into(),
        |answer| answer.kvs[0].lease = 7,
        |answer| answer.more = true,
        |answer| answer.kvs.clear(),
    ];
    for sort_target in [0, 1] {
        let step = Step::Range(pb::RangeRequest { sort_target, ..Default::default() });
        let encoded = |answer: &pb::RangeResponse| Ok(answer.encode_to_vec().into());
        let mut same = answer.clone();
        same.header.as_mut().unwrap().raft_term = 9;
        assert_eq!(difference(&step, &encoded(&same), &encoded(&answer)), None);
        for (n, change) in changes.iter().enumerate() {
            let mut changed = answer.clone();
            change(&mut changed);
            let found = difference(&step, &encoded(&changed), &encoded(&answer));
            assert!(found.is_some(), "change {n} is missed with sort target {sort_target}");
        }
        let refusal = || Err(tonic::Status::invalid_argument("etcdserver: x"));
        assert!(difference(&step, &refusal(), &encoded(&answer)).is_some());
        assert!(difference(&step, &encoded(&answer), &refusal()).is_some());
        let others = [
            tonic::Status::invalid_argument("etcdserver: y"),
            tonic::Status::out_of_range("etcdserver: x"),
        ];
        for other in others {
            assert!(difference(&step, &Err(other), &refusal()).is_some());
        }
    }
}

/// Keys that a sort finds equal may come in any order, all others may not.
#[test]
fn only_ties_are_forgiven() {
    let kv = |key: &'static str, version| mvccpb::KeyValue {
        key: key.into(),
        version,
        ..Default::default()
    };
    let answer = |kvs: &[mvccpb::KeyValue], more| {
        Ok(pb::RangeResponse { kvs: kvs.to_vec(), more, ..Default::default() }
            .encode_to_vec()
            .into())
    };
    let (a, b, c) = (kv("a", 1), kv("b", 1), kv("c", 2));
    let step = |sort_order, sort_target| {
        Step::Range(pb::RangeRequest { sort_order, sort_target, ..Default::default() })
    };
    let ascending = step(1, 1);
    let full = answer(&[a.clone(), b.clone(), c.clone()], false);
    let swapped = answer(&[b.clone(), a.clone(), c.clone()], false);
    let wrong = answer(&[a.clone(), c.clone(), b.clone()], false);
    assert_eq!(difference(&ascending, &swapped, &full), None);
    assert!(difference(&ascending, &wrong, &full).is_some());
    assert!(difference(&step(1, 0), &swapped, &full).is_some());
    let (one, other) = (answer(&[a], true), answer(&[b], true));
    assert_eq!(difference(&ascending, &one, &other), None);
    assert!(difference(&step(0, 1), &one, &other).is_some(), "cut by key before the sort");
    assert!(difference(&ascending, &answer(&[c], true), &one).is_some());
}
