//! What one command may cost: requests of a few bytes that would keep every member busy are refused,
//! and have changed nothing.
#![allow(clippy::unwrap_used)] // helpers of tests are tests

use store::*;

const BOUNDS: Bounds = Bounds { keys_max: 1000, bytes_max: 4000 };
const KEYS: u64 = BOUNDS.keys_max;
const STEP: u64 = Bounds::STEP_KEYS;
const TOO_MANY_KEYS: Refusal = Refusal::TooManyKeys { max: KEYS };
const TOO_MANY_BYTES: Refusal = Refusal::TooManyBytes { max: BOUNDS.bytes_max };

fn key(n: u64) -> bytes::Bytes {
    format!("{n:04}").into()
}

fn put(n: u64, len: usize) -> Put {
    Put { key: key(n), value: vec![b'v'; len].into(), ..Put::default() }
}

/// So many keys, of so many bytes each.
fn store(keys: u64, len: usize) -> Store {
    let mut store = Store::with_bounds(BOUNDS);
    for n in 0..keys {
        store.apply(&Command::Put(put(n, len - 4))).unwrap();
    }
    store
}

fn first(keys: u64) -> Range {
    Range { key: key(0), range_end: key(keys), ..Range::default() }
}

fn delete(keys: u64, prev_kv: bool) -> DeleteRange {
    DeleteRange { key: key(0), range_end: key(keys), prev_kv }
}

fn holds(keys: u64) -> Compare {
    let result = CompareResult::Greater;
    Compare { key: key(0), range_end: key(keys), result, ..Compare::default() }
}

fn then(success: Vec<Op>) -> Command {
    Command::Txn(Txn { success, ..Txn::default() })
}

/// It is refused, so by an edge, and with nothing changed.
fn refused(store: &mut Store, command: &Command, why: Refusal) {
    let before = store.revision();
    assert_eq!(store.view().check_cost(command), Err(why));
    assert_eq!(store.apply(command), Err(why));
    assert_eq!(store.apply_unanswered(command), Err(why));
    assert_eq!(store.revision(), before);
}

fn accepted(store: &mut Store, command: &Command) {
    assert_eq!(store.view().check_cost(command), Ok(()));
    store.apply(command).unwrap();
}

#[test]
fn a_delete_may_take_as_many_keys_as_the_bound_says() {
    let mut store = store(KEYS, 4);
    refused(&mut store, &Command::DeleteRange(delete(KEYS - STEP + 1, false)), TOO_MANY_KEYS);
    accepted(&mut store, &Command::DeleteRange(delete(KEYS - STEP, false)));
    assert_eq!(store.view().keys(), STEP);
}

#[test]
fn a_delete_may_answer_as_many_bytes_as_the_bound_says() {
    let mut store = store(300, 40);
    refused(&mut store, &Command::DeleteRange(delete(101, true)), TOO_MANY_BYTES);
    accepted(&mut store, &Command::DeleteRange(delete(101, false)));
    let Ok(Outcome::DeleteRange { prevs, .. }) =
        store.apply(&Command::DeleteRange(delete(201, true)))
    else {
        panic!("it is accepted")
    };
    assert_eq!(prevs.len(), 100);
}

#[test]
fn ranges_beside_a_put_cost_their_answers() {
    let mut store = store(300, 4);
    let read = |times, range: Range| {
        let ranges = (0..times).map(|_| Op::Range(range.clone()));
        then(ranges.chain([Op::Put(put(0, 0))]).collect())
    };
    refused(&mut store, &read(2, first(300)), TOO_MANY_KEYS);
    refused(&mut store, &read(127, first(300)), TOO_MANY_KEYS);
    accepted(&mut store, &read(1, first(300)));
    // What is not answered costs little, unless it is sorted first.
    accepted(&mut store, &read(30, Range { count_only: true, ..first(300) }));
    accepted(&mut store, &read(30, Range { limit: 1, ..first(300) }));
    let sorted = Range { limit: 1, sort_order: SortOrder::Descend, ..first(300) };
    refused(&mut store, &read(2, sorted), TOO_MANY_KEYS);
}

#[test]
fn ranges_cost_what_was_put_and_deleted_before_them() {
    let mut store = store(101, 1000);
    let nested = |op| Op::Txn(Txn { success: vec![op], ..Txn::default() });
    // The first key is a small one before the deletion only.
    store.apply(&Command::Put(put(0, 0))).unwrap();
    let one = |op| then(vec![op, Op::Range(Range { limit: 3, ..first(200) })]);
    let gone = |keys| nested(Op::DeleteRange(delete(keys, false)));
    accepted(&mut store, &one(Op::Put(put(200, 0))));
    refused(&mut store, &one(gone(2)), TOO_MANY_BYTES);
    // New keys are answered, too.
    refused(&mut store, &one(Op::Put(put(1, 3000))), TOO_MANY_BYTES);
    let puts = (300..302).map(|n| Op::Put(put(n, 1000)));
    let all = Range { key: key(300), range_end: key(999), ..Range::default() };
    let ranges = |times| (0..times).map(|_| Op::Range(all.clone()));
    refused(&mut store, &then(puts.clone().chain(ranges(2)).collect()), TOO_MANY_BYTES);
    accepted(&mut store, &then(puts.chain(ranges(1)).collect()));
}

#[test]
fn conditions_cost_the_keys_that_decide_them() {
    let mut store = store(200, 4);
    let txn = |compare: Vec<Compare>| {
        Command::Txn(Txn { compare, success: vec![Op::Put(put(0, 0))], ..Txn::default() })
    };
    accepted(&mut store, &txn(vec![holds(200); 4]));
    refused(&mut store, &txn(vec![holds(200); 5]), TOO_MANY_KEYS);
    // The first key decides.
    let fails = Compare { result: CompareResult::Less, ..holds(200) };
    accepted(&mut store, &txn([vec![fails], vec![holds(200); 100]].concat()));
    // Nested ones are counted in.
    let inner = || Op::Txn(Txn { compare: vec![holds(20); 10], ..Txn::default() });
    let nested = Txn { success: (0..5).map(|_| inner()).collect(), ..Txn::default() };
    refused(&mut store, &Command::Txn(nested), TOO_MANY_KEYS);
}

#[test]
fn compared_values_cost_their_bytes() {
    let mut store = store(50, 104);
    let compare = |len| Compare {
        target: CompareTarget::Value,
        operand: Operand::Value(vec![b'v'; len].into()),
        ..holds(50)
    };
    let txn = |len| Command::Txn(Txn { compare: vec![compare(len)], ..Txn::default() });
    accepted(&mut store, &txn(80));
    refused(&mut store, &txn(81), TOO_MANY_BYTES);
}

#[test]
fn values_that_are_kept_cost_their_bytes() {
    let mut store = store(5, 504);
    let keep = |n| Op::Put(Put { ignore_value: true, ..put(n, 0) });
    refused(&mut store, &then((0..5).map(keep).collect()), TOO_MANY_BYTES);
    accepted(&mut store, &then((0..4).map(keep).collect()));
}

#[test]
fn reads_of_the_past_cost_the_keys_that_were_deleted_since() {
    let mut store = store(60, 4);
    let count = |revision| {
        let range = Range { revision, count_only: true, ..first(55) };
        then(vec![Op::Range(range), Op::Put(put(60, 0))])
    };
    let before = store.revision().0;
    accepted(&mut store, &count(before));
    store.apply(&Command::DeleteRange(delete(50, false))).unwrap();
    let deleted = store.revision().0;
    for n in 0..50 {
        store.apply(&Command::Put(put(n, 0))).unwrap();
    }
    refused(&mut store, &count(before), TOO_MANY_KEYS);
    accepted(&mut store, &count(deleted));
    // Swept or not.
    store.apply(&Command::Compact(Compact { revision: before })).unwrap();
    for _swept in [false, true] {
        refused(&mut store, &count(before), TOO_MANY_KEYS);
        accepted(&mut store, &count(deleted));
        while store.sweep(1) {}
    }
}

#[test]
fn puts_of_a_transaction_are_bounded() {
    let mut store = store(1, 4);
    let puts = |times| then((0..times).map(|n| Op::Put(put(n, 0))).collect());
    accepted(&mut store, &puts(KEYS / STEP));
    refused(&mut store, &puts(KEYS / STEP + 1), TOO_MANY_KEYS);
}

/// However many operations are allowed in each list.
#[test]
fn steps_are_bounded_before_anything_is_known_of_them() {
    let limits = Limits { txn_ops_max: usize::MAX };
    let reads = |times| vec![Op::Range(first(1)); times];
    let txn = |failure| Txn { success: reads(500), failure, ..Txn::default() };
    let nested = |times| txn(vec![Op::Txn(txn(reads(times)))]);
    assert_eq!(nested(999).check(&limits), Ok(()));
    assert_eq!(nested(1_000).check(&limits), Err(Refusal::TooManyOps));
    assert_eq!(Store::new().apply(&Command::Txn(nested(1_000))), Err(Refusal::TooManyOps));
}

#[test]
fn refusals_say_what_was_too_much() {
    let texts = [TOO_MANY_KEYS, TOO_MANY_BYTES].map(|refusal| refusal.to_string());
    assert_eq!(
        texts,
        [
            "etcdserver: request too costly: it would visit more than 1000 keys",
            "etcdserver: request too costly: it would copy or answer more than 4000 bytes",
        ]
    );
}

/// Those that stopped clusters, with the bounds that members have.
#[test]
fn requests_that_stopped_clusters_are_refused() {
    let mut store = Store::new();
    for n in 0..5000 {
        store.apply(&Command::Put(put(n, 10_000))).unwrap();
    }
    let (too_many_keys, too_many_bytes) =
        (Refusal::TooManyKeys { max: 50_000 }, Refusal::TooManyBytes { max: 32 << 20 });
    let ranges = (0..127).map(|_| Op::Range(first(9999)));
    let ranges = then(ranges.chain([Op::Put(put(0, 0))]).collect());
    refused(&mut store, &ranges, too_many_bytes);
    let keys_only = Range { keys_only: true, ..first(9999) };
    refused(&mut store, &then(vec![Op::Range(keys_only); 127]), too_many_keys);
    let past = Range { revision: 3000, count_only: true, ..first(9999) };
    refused(&mut store, &then(vec![Op::Range(past); 127]), too_many_keys);
    let compares = |success| Txn { compare: vec![holds(9999); 64], success, failure: vec![] };
    refused(&mut store, &Command::Txn(compares(vec![])), too_many_keys);
    let few = |success| Txn { compare: vec![holds(50); 64], success, failure: vec![] };
    let nested = (0..29).map(|_| Op::Txn(few(vec![]))).collect();
    refused(&mut store, &Command::Txn(few(nested)), too_many_keys);
    let keep = |n| Op::Put(Put { ignore_value: true, ..put(n, 0) });
    refused(&mut store, &then((0..2000).map(keep).collect()), too_many_bytes);
}
