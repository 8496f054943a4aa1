//! Histories by hand: each is a claim about what may be and what may not.

use sim::check::linearizability::{Answer, Operation, Request, check};
use store::{
    Command, Compact, Compare, CompareTarget, DeleteRange, KeyValue, Op, OpOutcome, Operand,
    Outcome, Put, Range, RangeResult, Refusal, Revision, SortOrder, SortTarget, Txn, TxnOutcome,
};

fn good(history: &[Operation]) {
    if let Err(why) = check(history) {
        panic!("refused: {why}\n{}", crate::listed(history));
    }
}

/// The history is refused, and the report speaks of it.
fn bad(history: &[Operation]) {
    let Err(why) = check(history) else { panic!("not caught:\n{}", crate::listed(history)) };
    assert!(!why.is_undecided(), "{why}");
    let lines = why.to_string().lines().count();
    assert!((2..=14).contains(&lines), "{why}");
}

/// Good, and bad with this operation too.
fn bad_with(history: &[Operation], more: Operation) {
    good(history);
    bad(&[history, &[more]].concat());
}

// What is asked.

fn put(key: &'static str, value: &'static str) -> Put {
    Put { key: key.into(), value: value.into(), ..Put::default() }
}

fn put_prev(key: &'static str, value: &'static str) -> Put {
    Put { prev_kv: true, ..put(key, value) }
}

fn keep(key: &'static str) -> Put {
    Put { ignore_value: true, ..put(key, "") }
}

fn key(key: &'static str) -> Range {
    Range { key: key.into(), ..Range::default() }
}

fn all() -> Range {
    Range { key: "\0".into(), range_end: "\0".into(), ..Range::default() }
}

fn delete(key: &'static str) -> DeleteRange {
    DeleteRange { key: key.into(), ..DeleteRange::default() }
}

fn value_is(key: &'static str, value: &'static str) -> Compare {
    let (target, operand) = (CompareTarget::Value, Operand::Value(value.into()));
    Compare { key: key.into(), target, operand, ..Compare::default() }
}

fn is_absent(key: &'static str) -> Compare {
    Compare { key: key.into(), ..Compare::default() }
}

fn txn(compare: &[Compare], success: &[Op], failure: &[Op]) -> Request {
    Request::Command(Command::Txn(txn_of(compare, success, failure)))
}

fn txn_of(compare: &[Compare], success: &[Op], failure: &[Op]) -> Txn {
    Txn { compare: compare.into(), success: success.into(), failure: failure.into() }
}

fn compact(revision: i64) -> Request {
    Request::Command(Command::Compact(Compact { revision }))
}

impl From<Put> for RequestOf {
    fn from(put: Put) -> RequestOf {
        RequestOf(Request::Command(Command::Put(put)))
    }
}

impl From<DeleteRange> for RequestOf {
    fn from(delete: DeleteRange) -> RequestOf {
        RequestOf(Request::Command(Command::DeleteRange(delete)))
    }
}

impl From<Range> for RequestOf {
    fn from(range: Range) -> RequestOf {
        RequestOf(Request::Range(range))
    }
}

impl From<Request> for RequestOf {
    fn from(request: Request) -> RequestOf {
        RequestOf(request)
    }
}

struct RequestOf(Request);

// What is answered.

fn kv(
    key: &'static str,
    value: &'static str,
    create: i64,
    modified: i64,
    version: i64,
) -> KeyValue {
    KeyValue {
        key: key.into(),
        value: value.into(),
        create_revision: Revision(create),
        mod_revision: Revision(modified),
        version,
        ..KeyValue::default()
    }
}

fn result(kvs: &[KeyValue]) -> RangeResult {
    RangeResult { kvs: kvs.to_vec(), more: false, count: kvs.len() as i64 }
}

fn found(kvs: &[KeyValue], revision: i64) -> Answer {
    Answer::Range(result(kvs), Revision(revision))
}

fn done(revision: i64) -> Answer {
    Answer::Done(Outcome::Put { prev: None }, Revision(revision))
}

fn replaced(prev: KeyValue, revision: i64) -> Answer {
    Answer::Done(Outcome::Put { prev: Some(prev) }, Revision(revision))
}

fn deleted(deleted: i64, revision: i64) -> Answer {
    Answer::Done(Outcome::DeleteRange { deleted, prevs: vec![] }, Revision(revision))
}

fn ran(succeeded: bool, responses: &[OpOutcome], revision: i64) -> Answer {
    let responses = responses.to_vec();
    Answer::Done(Outcome::Txn(TxnOutcome { succeeded, responses }), Revision(revision))
}

fn did_put(revision: i64) -> OpOutcome {
    OpOutcome::Put { revision: Revision(revision), prev: None }
}

fn did_find(kvs: &[KeyValue], revision: i64) -> OpOutcome {
    OpOutcome::Range { revision: Revision(revision), result: result(kvs) }
}

fn compacted(revision: i64) -> Answer {
    Answer::Done(Outcome::Compact, Revision(revision))
}

fn refused(refusal: Refusal) -> Answer {
    Answer::Refused(refusal)
}

/// An operation of a client of its own.
fn at(call: u64, end: u64, request: impl Into<RequestOf>, answer: Answer) -> Operation {
    by(call as u32 * 1000 + end as u32, call, end, request, answer)
}

fn by(
    client: u32,
    call: u64,
    end: u64,
    request: impl Into<RequestOf>,
    answer: Answer,
) -> Operation {
    Operation { client, call, end: Some(end), request: request.into().0, answer: Some(answer) }
}

/// Of unknown fate.
fn lost(call: u64, request: impl Into<RequestOf>) -> Operation {
    Operation { client: 0, call, end: None, request: request.into().0, answer: None }
}

/// a = 1, then a = 2, one after the other.
fn two_puts() -> Vec<Operation> {
    vec![at(1, 2, put("a", "1"), done(2)), at(3, 4, put("a", "2"), done(3))]
}

fn with(mut history: Vec<Operation>, more: impl IntoIterator<Item = Operation>) -> Vec<Operation> {
    history.extend(more);
    history
}

// Reads and writes.

#[test]
fn nothing_happened() {
    good(&[]);
    good(&[lost(1, put("a", "1")), lost(2, compact(7)), lost(3, key("a"))]);
    good(&[at(1, 2, key("a"), found(&[], 1))]);
    bad(&[at(1, 2, key("a"), found(&[], 2))]);
    bad(&[at(1, 2, key("a"), found(&[], 0))]);
}

#[test]
fn a_read_sees_the_last_write() {
    bad_with(&two_puts(), at(5, 6, key("a"), found(&[kv("a", "1", 2, 2, 1)], 2)));
    good(&with(two_puts(), [at(5, 6, key("a"), found(&[kv("a", "2", 2, 3, 2)], 3))]));
    // Not even with the header's revision of now.
    bad_with(&two_puts(), at(5, 6, key("a"), found(&[kv("a", "1", 2, 2, 1)], 3)));
}

#[test]
fn a_read_beside_a_write_sees_either() {
    let write = at(1, 10, put("a", "1"), done(2));
    good(&[write.clone(), at(2, 3, key("a"), found(&[], 1))]);
    good(&[write.clone(), at(2, 3, key("a"), found(&[kv("a", "1", 2, 2, 1)], 2))]);
    // But once one has seen it, all later ones do.
    let before = at(2, 3, key("a"), found(&[kv("a", "1", 2, 2, 1)], 2));
    bad_with(&[write, before], at(4, 5, key("a"), found(&[], 1)));
}

#[test]
fn moments_that_touch_overlap() {
    good(&[at(1, 2, put("a", "1"), done(2)), at(2, 3, key("a"), found(&[], 1))]);
    bad(&[at(1, 2, put("a", "1"), done(2)), at(3, 4, key("a"), found(&[], 1))]);
}

#[test]
fn a_write_is_not_lost() {
    bad_with(&[at(1, 2, put("a", "1"), done(2))], at(3, 4, key("a"), found(&[], 2)));
    bad_with(&[at(1, 2, put("a", "1"), done(2))], at(3, 4, put("b", "1"), done(2)));
}

#[test]
fn a_value_comes_from_somewhere() {
    bad(&[at(1, 2, key("a"), found(&[kv("a", "9", 2, 2, 1)], 2))]);
    bad_with(&two_puts(), at(5, 6, key("a"), found(&[kv("a", "9", 2, 3, 2)], 3)));
    bad_with(&two_puts(), at(5, 6, key("b"), found(&[kv("b", "2", 3, 3, 1)], 3)));
}

#[test]
fn reads_do_not_go_back() {
    let writes = [at(1, 2, put("a", "1"), done(2)), at(3, 100, put("a", "2"), done(3))];
    let new = at(4, 5, key("a"), found(&[kv("a", "2", 2, 3, 2)], 3));
    let old = at(6, 7, key("a"), found(&[kv("a", "1", 2, 2, 1)], 2));
    bad_with(&with(writes.to_vec(), [new]), old);
}

#[test]
fn revisions_are_neither_skipped_nor_used_twice() {
    bad(&[at(1, 2, put("a", "1"), done(3))]);
    bad(&[at(1, 2, put("a", "1"), done(i64::MAX))]);
    bad(&[at(1, 9, put("a", "1"), done(2)), at(1, 9, put("b", "1"), done(2))]);
    bad(&[at(1, 9, put("a", "1"), done(2)), at(1, 9, put("b", "1"), done(4))]);
    bad(&[at(1, 2, put("a", "1"), done(1))]);
}

#[test]
fn what_changes_nothing_makes_no_revision() {
    good(&[at(1, 2, delete("a"), deleted(0, 1)), at(3, 4, put("a", "1"), done(2))]);
    bad(&[at(1, 2, delete("a"), deleted(0, 2)), at(3, 4, put("a", "1"), done(3))]);
    bad(&[at(1, 2, delete("a"), deleted(0, 2))]);
    good(&[at(1, 2, txn(&[is_absent("a")], &[], &[]), ran(true, &[], 1))]);
}

#[test]
fn what_is_deleted_is_gone() {
    let history = with(two_puts(), [at(5, 6, delete("a"), deleted(1, 4))]);
    bad_with(&history, at(7, 8, key("a"), found(&[kv("a", "2", 2, 3, 2)], 4)));
    good(&with(history.clone(), [at(7, 8, key("a"), found(&[], 4))]));
    bad_with(&two_puts(), at(5, 6, delete("a"), deleted(2, 4)));
    bad_with(&two_puts(), at(5, 6, delete("a"), deleted(0, 3)));
    // It starts anew.
    let anew = at(7, 8, put_prev("a", "3"), done(5));
    good(&with(
        history.clone(),
        [anew.clone(), at(9, 9, key("a"), found(&[kv("a", "3", 5, 5, 1)], 5))],
    ));
    bad_with(&with(history, [anew]), at(9, 9, key("a"), found(&[kv("a", "3", 2, 5, 3)], 5)));
}

#[test]
fn what_was_before_is_told() {
    let put = |prev| at(5, 6, put_prev("a", "3"), prev);
    good(&with(two_puts(), [put(replaced(kv("a", "2", 2, 3, 2), 4))]));
    bad_with(&two_puts(), put(replaced(kv("a", "1", 2, 2, 1), 4)));
    bad_with(&two_puts(), put(replaced(kv("a", "2", 2, 3, 1), 4)));
    bad_with(&two_puts(), put(done(4)));
    // And only if asked for.
    bad_with(&two_puts(), at(5, 6, self::put("a", "3"), replaced(kv("a", "2", 2, 3, 2), 4)));
}

#[test]
fn versions_and_revisions_of_a_key_are_right() {
    for wrong in
        [kv("a", "2", 2, 3, 3), kv("a", "2", 3, 3, 2), kv("a", "2", 3, 3, 1), kv("a", "2", 2, 2, 1)]
    {
        bad_with(&two_puts(), at(5, 6, key("a"), found(&[wrong], 3)));
    }
}

#[test]
fn a_range_is_answered_as_a_whole() {
    let (a, b) = (kv("a", "1", 2, 2, 1), kv("b", "1", 3, 3, 1));
    let puts = [at(1, 2, put("a", "1"), done(2)), at(3, 4, put("b", "1"), done(3))];
    let read = |range: Range, result| at(5, 6, range, Answer::Range(result, Revision(3)));
    good(&with(puts.to_vec(), [read(all(), result(&[a.clone(), b.clone()]))]));
    bad_with(&puts, read(all(), result(&[b.clone(), a.clone()])));
    bad_with(&puts, read(all(), result(std::slice::from_ref(&a))));
    bad_with(&puts, read(all(), RangeResult { count: 1, ..result(&[a.clone(), b.clone()]) }));
    bad_with(&puts, read(all(), RangeResult { more: true, ..result(&[a.clone(), b.clone()]) }));
    let one = RangeResult { kvs: vec![a.clone()], more: true, count: 2 };
    let limited = Range { limit: 1, ..all() };
    good(&with(puts.to_vec(), [read(limited.clone(), one.clone())]));
    bad_with(&puts, read(limited.clone(), RangeResult { more: false, ..one.clone() }));
    bad_with(&puts, read(limited.clone(), RangeResult { kvs: vec![b.clone()], ..one.clone() }));
    let last = Range { sort_order: SortOrder::Descend, sort_target: SortTarget::Mod, ..limited };
    good(&with(puts.to_vec(), [read(last, RangeResult { kvs: vec![b], ..one.clone() })]));
    let count = Range { count_only: true, ..all() };
    good(&with(
        puts.to_vec(),
        [read(count.clone(), RangeResult { kvs: vec![], more: false, count: 2 })],
    ));
    bad_with(&puts, read(count, RangeResult { kvs: vec![], more: false, count: 3 }));
    let keys = Range { keys_only: true, ..key("a") };
    good(&with(puts.to_vec(), [read(keys.clone(), result(&[kv("a", "", 2, 2, 1)]))]));
    bad_with(&puts, read(keys, result(&[a])));
}

// Transactions.

#[test]
fn only_one_compare_wins() {
    let cas = |value| txn(&[is_absent("a")], &[Op::Put(put("a", value))], &[]);
    let won = at(1, 10, cas("1"), ran(true, &[did_put(2)], 2));
    good(&[won.clone(), at(1, 10, cas("2"), ran(false, &[], 2))]);
    good(&[won.clone(), at(1, 10, key("b"), found(&[], 1))]);
    bad_with(std::slice::from_ref(&won), at(1, 10, cas("2"), ran(true, &[did_put(3)], 3)));
    bad_with(&[won], at(1, 10, cas("2"), ran(false, &[], 1)));
    bad(&[at(1, 2, cas("1"), ran(false, &[], 1))]);
}

#[test]
fn a_transaction_is_applied_as_a_whole() {
    let both = txn(&[], &[Op::Put(put("a", "1")), Op::Put(put("b", "1"))], &[]);
    let history = [at(1, 9, both, ran(true, &[did_put(2), did_put(2)], 2))];
    let (a, b) = (kv("a", "1", 2, 2, 1), kv("b", "1", 2, 2, 1));
    good(&with(history.to_vec(), [at(2, 3, all(), found(&[a.clone(), b.clone()], 2))]));
    bad_with(&history, at(2, 3, all(), found(&[a], 2)));
    bad_with(&history, at(2, 3, key("b"), found(&[], 2)));
    bad_with(&history, at(2, 3, key("b"), found(&[kv("b", "1", 3, 3, 1)], 3)));
}

#[test]
fn nested_conditions_see_the_state_before() {
    let inner = txn_of(&[is_absent("a")], &[Op::Put(put("b", "1"))], &[Op::Put(put("b", "2"))]);
    let outer = txn(&[], &[Op::Put(put("a", "1")), Op::Txn(inner)], &[]);
    let ran_as = |succeeded| {
        let inner = OpOutcome::Txn(TxnOutcome { succeeded, responses: vec![did_put(2)] });
        at(1, 2, outer.clone(), ran(true, &[did_put(2), inner], 2))
    };
    let b = |value| at(3, 4, key("b"), found(&[kv("b", value, 2, 2, 1)], 2));
    good(&[ran_as(true), b("1")]);
    bad(&[ran_as(false), b("2")]);
    bad_with(&[ran_as(true)], b("2"));
}

#[test]
fn a_transaction_sees_its_own_writes() {
    let request =
        txn(&[], &[Op::Range(key("a")), Op::Put(put("a", "3")), Op::Range(key("a"))], &[]);
    let answer = |first, last| {
        let responses = [did_find(&[first], 3), did_put(4), did_find(&[last], 4)];
        at(5, 6, request.clone(), ran(true, &responses, 4))
    };
    let (old, new) = (kv("a", "2", 2, 3, 2), kv("a", "3", 2, 4, 3));
    good(&with(two_puts(), [answer(old.clone(), new.clone())]));
    bad_with(&two_puts(), answer(old.clone(), old));
    bad_with(&two_puts(), answer(new.clone(), new));
}

// Unknown fates.

#[test]
fn an_unknown_put_happens_late_or_never() {
    let write = lost(1, put("a", "1"));
    let seen = |call| at(call, call + 1, key("a"), found(&[kv("a", "1", 2, 2, 1)], 2));
    let unseen = |call| at(call, call + 1, key("a"), found(&[], 1));
    good(&[write.clone(), unseen(2), seen(50)]);
    good(&[write.clone(), unseen(2), unseen(50)]);
    bad_with(&[write.clone(), seen(2)], unseen(50));
    // Not before its call.
    bad(&[lost(30, put("a", "1")), seen(2)]);
    good(&[lost(3, put("a", "1")), seen(2)]);
    // Unseen itself, it still takes its revision.
    good(&[write.clone(), at(5, 6, put("a", "2"), done(3))]);
    bad(&[lost(7, put("a", "1")), at(5, 6, put("a", "2"), done(3))]);
}

#[test]
fn an_unknown_put_happens_once() {
    let write = lost(1, put("a", "1"));
    let between = at(4, 5, put("a", "2"), done(3));
    let seen = at(2, 3, key("a"), found(&[kv("a", "1", 2, 2, 1)], 2));
    let again = at(6, 7, key("a"), found(&[kv("a", "1", 2, 4, 3)], 4));
    bad_with(&[write.clone(), seen.clone(), between.clone()], again.clone());
    good(&[write.clone(), write, seen, between, again]);
}

#[test]
fn a_gap_is_filled_by_whoever_fits_what_is_seen_much_later() {
    // Both may have made revision 2; the second would be tried first, and is needed at 4.
    let history = [
        lost(1, put("a", "1")),
        lost(2, put("b", "1")),
        at(3, 4, put("c", "1"), done(3)),
        at(5, 6, put("c", "2"), done(5)),
    ];
    good(&with(history.to_vec(), [at(7, 8, key("a"), found(&[kv("a", "1", 2, 2, 1)], 5))]));
    good(&with(history.to_vec(), [at(7, 8, key("a"), found(&[kv("a", "1", 4, 4, 1)], 5))]));
    bad_with(&history, at(7, 8, key("a"), found(&[], 5)));
    bad_with(&history, at(7, 8, all(), found(&[], 5)));
}

#[test]
fn what_an_unknown_transaction_did_depends_on_who_came_before_it() {
    // The count alone says that the transaction put b, so that the first gap was a = 1.
    let inner = txn(&[value_is("a", "1")], &[Op::Put(put("b", "1"))], &[Op::Put(put("c", "1"))]);
    let count = |key: &'static str, count| {
        let range = Range { count_only: true, ..self::key(key) };
        let result = RangeResult { kvs: vec![], more: false, count };
        at(9, 9, range, Answer::Range(result, Revision(5)))
    };
    for first in ["1", "2"] {
        let second = if first == "1" { "2" } else { "1" };
        let history = [
            lost(1, put("a", first)),
            lost(2, put("a", second)),
            at(3, 4, put("x", "1"), done(3)),
            lost(5, inner.clone()),
            at(7, 8, put("x", "2"), done(5)),
            lost(9, put("y", "1")),
        ];
        good(&with(history.to_vec(), [count("b", 1)]));
        good(&with(history.to_vec(), [count("c", 1)]));
        bad_with(&with(history.to_vec(), [count("b", 1)]), count("c", 1));
    }
}

#[test]
fn an_unknown_write_explains_a_refusal_at_the_end() {
    let refused = at(5, 6, keep("a"), refused(Refusal::KeyNotFound));
    bad_with(&two_puts(), refused.clone());
    good(&with(two_puts(), [lost(2, delete("a")), refused.clone()]));
    bad(&with(two_puts(), [lost(7, delete("a")), refused.clone()]));
    bad(&with(two_puts(), [lost(2, put("a", "3")), lost(2, delete("b")), refused.clone()]));
    // One that needs another.
    let two = txn(&[], &[Op::Put(keep("b")), Op::DeleteRange(delete("a"))], &[]);
    bad(&with(two_puts(), [lost(2, two.clone()), refused.clone()]));
    good(&with(two_puts(), [lost(2, two), lost(2, put("b", "1")), refused.clone()]));
    let mod_is_5 =
        Compare { target: CompareTarget::Mod, operand: Operand::Mod(5), ..is_absent("b") };
    let two = txn(&[mod_is_5], &[Op::DeleteRange(delete("a"))], &[]);
    bad(&with(two_puts(), [lost(2, two.clone()), lost(2, put("b", "1")), refused.clone()]));
    let any = lost(2, put("z", "1"));
    good(&with(two_puts(), [lost(2, two), lost(2, put("b", "1")), any, refused]));
}

#[test]
fn a_refused_put_has_not_happened() {
    let refused = at(1, 2, keep("a"), refused(Refusal::KeyNotFound));
    good(&[refused.clone(), at(3, 4, key("a"), found(&[], 1))]);
    bad(&[refused.clone(), at(3, 4, key("a"), found(&[kv("a", "", 2, 2, 1)], 2))]);
    good(&[refused, at(3, 4, put("a", "1"), done(2))]);
}

#[test]
fn a_refusal_has_its_moment() {
    let refused = |call, end| at(call, end, keep("a"), refused(Refusal::KeyNotFound));
    let history = [at(1, 2, put("a", "1"), done(2)), at(5, 6, delete("a"), deleted(1, 3))];
    good(&with(history.to_vec(), [refused(0, 1)]));
    good(&with(history.to_vec(), [refused(3, 5)]));
    bad_with(&history, refused(3, 4));
    bad_with(&history, at(3, 4, keep("a"), self::refused(Refusal::Compacted)));
    bad_with(&history, at(3, 4, delete("a"), self::refused(Refusal::KeyNotFound)));
}

#[test]
fn what_is_malformed_is_refused_as_such() {
    good(&[at(1, 2, key(""), refused(Refusal::KeyNotProvided))]);
    bad(&[at(1, 2, key(""), found(&[], 1))]);
    bad(&[at(1, 2, key("a"), refused(Refusal::KeyNotProvided))]);
    bad(&[at(1, 2, put("a", ""), found(&[], 1))]);
    bad(&[at(1, 2, key("a"), done(2))]);
    let twice = txn(&[], &[Op::Put(put("a", "1")), Op::Put(put("a", "2"))], &[]);
    good(&[at(1, 2, twice.clone(), refused(Refusal::DuplicateKey))]);
    bad(&[at(1, 2, twice, ran(true, &[did_put(2), did_put(2)], 2))]);
}

// The past.

fn past(revision: i64) -> Range {
    Range { revision, ..key("a") }
}

#[test]
fn an_old_revision_has_its_old_content() {
    let (one, two) = (kv("a", "1", 2, 2, 1), kv("a", "2", 2, 3, 2));
    good(&with(two_puts(), [at(5, 6, past(2), found(std::slice::from_ref(&one), 3))]));
    bad_with(&two_puts(), at(5, 6, past(2), found(&[two], 3)));
    bad_with(&two_puts(), at(5, 6, past(1), found(std::slice::from_ref(&one), 3)));
    // The header has the revision of now.
    bad_with(&two_puts(), at(5, 6, past(2), found(&[one], 2)));
}

#[test]
fn the_future_is_refused() {
    good(&with(two_puts(), [at(5, 6, past(4), refused(Refusal::FutureRevision))]));
    good(&with(two_puts(), [at(2, 6, past(3), refused(Refusal::FutureRevision))]));
    bad_with(&two_puts(), at(5, 6, past(3), refused(Refusal::FutureRevision)));
    bad_with(&two_puts(), at(5, 6, past(4), found(&[], 3)));
    bad_with(&two_puts(), at(5, 6, compact(4), compacted(3)));
}

#[test]
fn what_is_compacted_cannot_be_read() {
    let history = with(two_puts(), [at(5, 6, compact(3), compacted(3))]);
    let one = found(&[kv("a", "1", 2, 2, 1)], 3);
    let refused = refused(Refusal::Compacted);
    bad_with(&history, at(7, 8, past(2), one.clone()));
    good(&with(history.clone(), [at(7, 8, past(2), refused.clone())]));
    good(&with(history.clone(), [at(5, 8, past(2), one)]));
    good(&with(history.clone(), [at(5, 8, past(2), refused.clone())]));
    bad_with(&history, at(7, 8, past(3), refused.clone()));
    good(&with(history.clone(), [at(7, 8, past(3), found(&[kv("a", "2", 2, 3, 2)], 3))]));
    // Nobody compacted yet.
    bad_with(&two_puts(), at(5, 6, past(2), refused.clone()));
    // Nor twice.
    bad_with(&history, at(7, 8, compact(2), compacted(3)));
    good(&with(history, [at(7, 8, compact(2), refused)]));
}

#[test]
fn an_unknown_compaction_explains_a_refusal() {
    let refused = |call| at(call, call + 1, past(2), refused(Refusal::Compacted));
    let one = |call| at(call, call + 1, past(2), found(&[kv("a", "1", 2, 2, 1)], 3));
    let history = with(two_puts(), [lost(3, compact(3))]);
    good(&with(history.clone(), [refused(5)]));
    good(&with(history.clone(), [one(5)]));
    good(&with(history.clone(), [one(5), refused(7)]));
    bad_with(&with(history, [refused(5)]), one(7));
    bad(&with(two_puts(), [lost(9, compact(3)), refused(5)]));
    bad(&with(two_puts(), [lost(3, compact(2)), refused(5)]));
    // To a revision that must be made first, by somebody unknown.
    bad(&with(two_puts(), [lost(3, compact(4)), refused(5)]));
    good(&with(two_puts(), [lost(3, compact(4)), lost(3, put("z", "1")), refused(5)]));
}

#[test]
fn the_least_of_unknown_compactions_comes_first() {
    let puts: Vec<Operation> =
        (2..8).map(|n| at(2 * n, 2 * n + 1, put("a", "1"), done(n as i64))).collect();
    let refused = at(20, 21, past(2), refused(Refusal::Compacted));
    let read = at(23, 24, past(4), found(&[kv("a", "1", 2, 4, 3)], 7));
    let known = at(1, 30, compact(5), compacted(7));
    let history = with(puts, [refused, read, known]);
    bad(&history);
    bad(&with(history.clone(), [lost(1, compact(6))]));
    good(&with(history.clone(), [lost(1, compact(6)), lost(1, compact(4))]));
    good(&with(history, [lost(1, compact(6)), lost(1, compact(3))]));
}

#[test]
fn which_compaction_is_needed_depends_on_a_gap() {
    // Refused for revision 2 or 5; the gap, which nobody saw, says for which.
    let read = |revision| Op::Range(Range { revision, ..key("x") });
    let either = txn(&[value_is("k", "1")], &[read(2)], &[read(5)]);
    for (first, second) in [("1", "2"), ("2", "1")] {
        let mut history = vec![lost(1, put("k", first)), lost(2, put("k", second))];
        history.extend((3..8).map(|n| at(2 * n, 2 * n + 1, put("a", "1"), done(n as i64))));
        history.push(at(20, 21, either.clone(), refused(Refusal::Compacted)));
        history.push(at(22, 23, past(4), found(&[kv("a", "1", 3, 4, 2)], 7)));
        history.push(at(24, 25, key("a"), found(&[kv("a", "1", 3, 7, 5)], 7)));
        bad(&with(history.clone(), [lost(3, compact(6))]));
        good(&with(history.clone(), [lost(3, compact(6)), lost(3, compact(3))]));
    }
}

// Hard to search.

#[test]
fn many_unknown_operations_may_fill_the_same_gap() {
    // 100 of 200 deletes that are all alike, in 100 gaps.
    let mut history: Vec<Operation> = (0..200).map(|_| lost(1, delete("a"))).collect();
    for n in 0..100 {
        history.push(at(10 * n + 2, 10 * n + 3, put("a", "1"), done(2 * n as i64 + 2)));
    }
    good(&history);
    bad_with(&history, at(2000, 2001, key("a"), found(&[kv("a", "1", 199, 200, 2)], 200)));
    bad_with(&history, at(2000, 2001, all(), found(&[], 200)));
}

#[test]
fn long_reads_beside_everything() {
    let mut history = Vec::new();
    for n in 0..300_u64 {
        let revision = n as i64 + 2;
        history.push(at(10 * n, 10 * n + 1, put("a", "1"), done(revision)));
        let seen = kv("a", "1", 2, revision, n as i64 + 1);
        history.push(at(0, 10_000, key("a"), found(&[seen], revision)));
        history.push(at(0, 10_000, past(400), refused(Refusal::FutureRevision)));
        history.push(at(0, 10_000 + n, past(100), refused(Refusal::Compacted)));
        history.push(lost(0, compact(revision)));
    }
    good(&history);
    bad_with(&history, at(5000, 5001, past(400), found(&[], 301)));
    bad_with(&history, at(0, 9_000, key("a"), found(&[kv("a", "1", 2, 100, 98)], 100)));
}
