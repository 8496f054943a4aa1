//! Histories by hand, good and bad. Each line is one operation: who, from when, until when, what.

use bytes::Bytes;
use sim::check::linearizability::{Answer, Operation, Request, check};
use store::{
    Command, Compact, Compare, CompareTarget, DeleteRange, KeyValue, Op, OpOutcome, Operand,
    Outcome, Put, Range, RangeResult, Refusal, Revision, Txn, TxnOutcome,
};

/// `create`, `modified` and `version` of what `key` holds.
fn kv(key: &str, value: &str, create: i64, modified: i64, version: i64) -> KeyValue {
    KeyValue {
        key: Bytes::copy_from_slice(key.as_bytes()),
        value: Bytes::copy_from_slice(value.as_bytes()),
        create_revision: Revision(create),
        mod_revision: Revision(modified),
        version,
        ..KeyValue::default()
    }
}

fn put(key: &str, value: &str) -> Put {
    let (key, value) = (key.to_owned().into(), value.to_owned().into());
    Put { key, value, prev_kv: true, ..Put::default() }
}

fn delete(key: &str) -> DeleteRange {
    DeleteRange { key: key.to_owned().into(), prev_kv: true, ..DeleteRange::default() }
}

fn range(key: &str, revision: i64) -> Range {
    Range { key: key.to_owned().into(), revision, ..Range::default() }
}

fn found(kvs: Vec<KeyValue>) -> RangeResult {
    RangeResult { count: kvs.len() as i64, more: false, kvs }
}

/// Client 1; a client of its own for what overlaps.
fn operation(call: u64, end: u64, request: Request, answer: Answer) -> Operation {
    Operation { client: 1, call, end: Some(end), request, answer: Some(answer) }
}

fn unknown(call: u64, command: Command) -> Operation {
    Operation { client: 9, call, end: None, request: Request::Command(command), answer: None }
}

fn puts(call: u64, end: u64, key: &str, value: &str, prev: Option<KeyValue>, at: i64) -> Operation {
    let answer = Answer::Done(Outcome::Put { prev }, Revision(at));
    operation(call, end, Request::Command(Command::Put(put(key, value))), answer)
}

fn deletes(call: u64, end: u64, key: &str, prevs: Vec<KeyValue>, at: i64) -> Operation {
    let outcome = Outcome::DeleteRange { deleted: prevs.len() as i64, prevs };
    let request = Request::Command(Command::DeleteRange(delete(key)));
    operation(call, end, request, Answer::Done(outcome, Revision(at)))
}

fn gets(call: u64, end: u64, key: &str, kvs: Vec<KeyValue>, at: i64) -> Operation {
    let answer = Answer::Range(found(kvs), Revision(at));
    operation(call, end, Request::Range(range(key, 0)), answer)
}

fn gets_old(
    call: u64,
    end: u64,
    key: &str,
    revision: i64,
    kvs: Vec<KeyValue>,
    at: i64,
) -> Operation {
    let answer = Answer::Range(found(kvs), Revision(at));
    operation(call, end, Request::Range(range(key, revision)), answer)
}

fn refused(call: u64, end: u64, request: Request, refusal: Refusal) -> Operation {
    operation(call, end, request, Answer::Refused(refusal))
}

fn compacts(call: u64, end: u64, revision: i64, at: i64) -> Operation {
    let request = Request::Command(Command::Compact(Compact { revision }));
    operation(call, end, request, Answer::Done(Outcome::Compact, Revision(at)))
}

/// If `key` does not exist, puts it.
fn creates(key: &str, value: &str) -> Txn {
    let absent = Compare {
        key: key.to_owned().into(),
        target: CompareTarget::Create,
        operand: Operand::Create(0),
        ..Compare::default()
    };
    Txn { compare: vec![absent], success: vec![Op::Put(put(key, value))], failure: vec![] }
}

fn txns(call: u64, end: u64, txn: Txn, outcome: TxnOutcome, at: i64) -> Operation {
    let answer = Answer::Done(Outcome::Txn(outcome), Revision(at));
    operation(call, end, Request::Command(Command::Txn(txn)), answer)
}

fn created(at: i64) -> TxnOutcome {
    let put = OpOutcome::Put { revision: Revision(at), prev: None };
    TxnOutcome { succeeded: true, responses: vec![put] }
}

/// Long because it is a list.
#[test]
fn good_histories_pass() {
    let not_created = TxnOutcome { succeeded: false, responses: vec![] };
    let good: Vec<(&str, Vec<Operation>)> = vec![
        ("nothing", vec![]),
        (
            "one after the other",
            vec![
                gets(1, 2, "a", vec![], 1),
                puts(3, 4, "a", "1", None, 2),
                gets(5, 6, "a", vec![kv("a", "1", 2, 2, 1)], 2),
            ],
        ),
        (
            "a read during a put sees either",
            vec![
                puts(1, 10, "a", "1", None, 2),
                gets(2, 3, "a", vec![], 1),
                gets(4, 5, "a", vec![kv("a", "1", 2, 2, 1)], 2),
            ],
        ),
        (
            "two at once, in the other order",
            vec![
                puts(1, 10, "a", "1", Some(kv("a", "2", 2, 2, 1)), 3),
                puts(1, 10, "a", "2", None, 2),
            ],
        ),
        (
            "unknown: late",
            vec![
                unknown(1, Command::Put(put("a", "1"))),
                gets(2, 3, "a", vec![], 1),
                gets(50, 51, "a", vec![kv("a", "1", 2, 2, 1)], 2),
            ],
        ),
        (
            "unknown: never",
            vec![unknown(1, Command::Put(put("a", "1"))), puts(2, 3, "b", "1", None, 2)],
        ),
        (
            "unknown: shows only in the revision",
            vec![unknown(1, Command::Put(put("a", "1"))), puts(2, 3, "b", "1", None, 3)],
        ),
        (
            "one compare wins",
            vec![
                txns(1, 10, creates("a", "1"), created(2), 2),
                txns(1, 10, creates("a", "2"), not_created, 2),
            ],
        ),
        (
            "an old revision, until it is given up",
            vec![
                puts(1, 2, "a", "1", None, 2),
                puts(3, 4, "a", "2", Some(kv("a", "1", 2, 2, 1)), 3),
                gets_old(5, 6, "a", 2, vec![kv("a", "1", 2, 2, 1)], 3),
                compacts(7, 8, 3, 3),
                refused(9, 10, Request::Range(range("a", 2)), Refusal::Compacted),
            ],
        ),
        (
            "a compaction of unknown fate: happened",
            vec![
                puts(1, 2, "a", "1", None, 2),
                unknown(3, Command::Compact(Compact { revision: 2 })),
                gets_old(4, 5, "a", 1, vec![], 2),
                refused(6, 7, Request::Range(range("a", 1)), Refusal::Compacted),
            ],
        ),
        (
            "a compaction of unknown fate: did not",
            vec![
                puts(1, 2, "a", "1", None, 2),
                unknown(3, Command::Compact(Compact { revision: 2 })),
                gets_old(6, 7, "a", 1, vec![], 2),
            ],
        ),
        (
            "created, deleted, created",
            vec![
                puts(1, 2, "a", "1", None, 2),
                deletes(3, 4, "a", vec![kv("a", "1", 2, 2, 1)], 3),
                deletes(5, 6, "a", vec![], 3),
                puts(7, 8, "a", "2", None, 4),
                gets(9, 10, "a", vec![kv("a", "2", 4, 4, 1)], 4),
            ],
        ),
        (
            "a future revision is refused until it exists",
            vec![
                refused(1, 2, Request::Range(range("a", 2)), Refusal::FutureRevision),
                puts(3, 4, "a", "1", None, 2),
                gets_old(5, 6, "a", 2, vec![kv("a", "1", 2, 2, 1)], 2),
            ],
        ),
    ];
    for (what, history) in good {
        check(&history).unwrap_or_else(|violation| panic!("{what}: {violation}"));
    }
}

/// Long because it is a list.
#[test]
fn bad_histories_are_caught() {
    let keep = Put { ignore_value: true, value: Bytes::new(), ..put("a", "") };
    let both = |at| TxnOutcome {
        succeeded: true,
        responses: vec![
            OpOutcome::Put { revision: Revision(at), prev: None },
            OpOutcome::Put { revision: Revision(at), prev: None },
        ],
    };
    let two =
        Txn { success: vec![Op::Put(put("a", "1")), Op::Put(put("b", "1"))], ..Txn::default() };
    let bad: Vec<(&str, Vec<Operation>)> = vec![
        ("stale read", vec![puts(1, 2, "a", "1", None, 2), gets(3, 4, "a", vec![], 1)]),
        ("lost write", vec![puts(1, 2, "a", "1", None, 2), gets(3, 4, "a", vec![], 2)]),
        ("value from nowhere", vec![gets(1, 2, "a", vec![kv("a", "9", 2, 2, 1)], 2)]),
        (
            "reads go back",
            vec![
                puts(1, 100, "a", "1", None, 2),
                gets(2, 3, "a", vec![kv("a", "1", 2, 2, 1)], 2),
                gets(4, 5, "a", vec![], 1),
            ],
        ),
        (
            "an unknown put takes effect twice",
            vec![
                unknown(1, Command::Put(put("a", "1"))),
                gets(2, 3, "a", vec![kv("a", "1", 2, 2, 1)], 2),
                gets(4, 5, "a", vec![kv("a", "1", 2, 3, 2)], 3),
            ],
        ),
        (
            "an unknown put takes effect before its call",
            vec![
                gets(1, 2, "a", vec![kv("a", "1", 2, 2, 1)], 2),
                unknown(3, Command::Put(put("a", "1"))),
            ],
        ),
        (
            "both compares win",
            vec![
                txns(1, 10, creates("a", "1"), created(2), 2),
                txns(1, 10, creates("a", "2"), created(3), 3),
            ],
        ),
        (
            "a transaction in part",
            vec![
                txns(1, 2, two.clone(), both(2), 2),
                gets(3, 4, "a", vec![kv("a", "1", 2, 2, 1)], 2),
                gets(5, 6, "b", vec![], 2),
            ],
        ),
        ("a revision for each operation", vec![txns(1, 2, two, both(3), 3)]),
        (
            "a revision used twice",
            vec![puts(1, 10, "a", "1", None, 2), puts(1, 10, "b", "1", None, 2)],
        ),
        ("a revision skipped", vec![puts(1, 2, "a", "1", None, 3)]),
        (
            "a revision for nothing",
            vec![deletes(1, 2, "a", vec![], 2), puts(3, 4, "a", "1", None, 3)],
        ),
        (
            "deleted and still there",
            vec![
                puts(1, 2, "a", "1", None, 2),
                deletes(3, 4, "a", vec![kv("a", "1", 2, 2, 1)], 3),
                gets(5, 6, "a", vec![kv("a", "1", 2, 2, 1)], 3),
            ],
        ),
        (
            "another previous value",
            vec![
                puts(1, 2, "a", "1", None, 2),
                puts(3, 4, "a", "2", Some(kv("a", "0", 2, 2, 1)), 3),
            ],
        ),
        (
            "another version",
            vec![puts(1, 2, "a", "1", None, 2), gets(3, 4, "a", vec![kv("a", "1", 2, 2, 2)], 2)],
        ),
        (
            "another revision of creation",
            vec![
                puts(1, 2, "a", "1", None, 2),
                puts(3, 4, "a", "2", Some(kv("a", "1", 2, 2, 1)), 3),
                gets(5, 6, "a", vec![kv("a", "2", 3, 3, 2)], 3),
            ],
        ),
        (
            "read after it was given up",
            vec![
                puts(1, 2, "a", "1", None, 2),
                compacts(3, 4, 2, 2),
                gets_old(5, 6, "a", 1, vec![], 2),
            ],
        ),
        (
            "refused, and not given up",
            vec![
                puts(1, 2, "a", "1", None, 2),
                refused(3, 4, Request::Range(range("a", 1)), Refusal::Compacted),
            ],
        ),
        (
            "an old revision with newer contents",
            vec![
                puts(1, 2, "a", "1", None, 2),
                puts(3, 4, "a", "2", Some(kv("a", "1", 2, 2, 1)), 3),
                gets_old(5, 6, "a", 2, vec![kv("a", "2", 2, 3, 2)], 3),
            ],
        ),
        (
            "refused, and done",
            vec![
                refused(1, 2, Request::Command(Command::Put(keep)), Refusal::KeyNotFound),
                gets(3, 4, "a", vec![kv("a", "", 2, 2, 1)], 2),
            ],
        ),
        (
            "an unknown compaction that both did and did not happen",
            vec![
                puts(1, 2, "a", "1", None, 2),
                unknown(3, Command::Compact(Compact { revision: 2 })),
                refused(4, 5, Request::Range(range("a", 1)), Refusal::Compacted),
                gets_old(6, 7, "a", 1, vec![], 2),
            ],
        ),
        (
            "another count",
            vec![operation(
                1,
                2,
                Request::Range(range("a", 0)),
                Answer::Range(RangeResult { count: 1, ..RangeResult::default() }, Revision(1)),
            )],
        ),
    ];
    for (what, history) in bad {
        let violation = check(&history).expect_err(what);
        assert!(!violation.is_undecided(), "{what}: {violation}");
        println!("{what}: {violation}");
    }
}
