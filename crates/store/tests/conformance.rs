//! The worked example that etcd answers in the same way, as one run.
#![allow(clippy::unwrap_used)] // helpers of tests are tests

use store::{
    Command, Compact, Compare, CompareResult, CompareTarget, DeleteRange, Op, OpOutcome, Operand,
    Outcome, Put, Range, Refusal, SortTarget, Store, Txn,
};

fn put(key: &'static str, value: &'static str) -> Put {
    Put { key: key.into(), value: value.into(), ..Put::default() }
}

fn delete(key: &'static str, range_end: &'static str) -> DeleteRange {
    DeleteRange { key: key.into(), range_end: range_end.into(), prev_kv: true }
}

fn all() -> Range {
    Range { key: "\0".into(), range_end: "\0".into(), ..Range::default() }
}

fn then(success: Vec<Op>) -> Command {
    Command::Txn(Txn { success, ..Txn::default() })
}

fn keys(store: &Store, range: &Range) -> (Vec<String>, bool, i64) {
    let result = store.view().range(range).unwrap();
    let keys = result.kvs.iter().map(|kv| String::from_utf8_lossy(&kv.key).into_owned());
    (keys.collect(), result.more, result.count)
}

fn filled() -> Store {
    let mut store = Store::new();
    for (key, value) in [("a", "1"), ("b", "1"), ("a", "2"), ("a", "3"), ("c", "3")] {
        store.apply(&Command::Put(put(key, value))).unwrap();
    }
    store
}

#[test]
fn limits_cut_before_an_implied_sort_and_counts_ignore_them() {
    let store = filled();
    assert_eq!(store.revision().0, 6);
    let by_version = Range { sort_target: SortTarget::Version, limit: 1, ..all() };
    assert_eq!(keys(&store, &by_version), (vec!["b".into()], true, 3));
    let recent = Range { min_mod_revision: 5, limit: 1, ..all() };
    assert_eq!(keys(&store, &recent), (vec!["a".into()], true, 3));
    let count = Range { count_only: true, limit: 1, ..all() };
    assert_eq!(keys(&store, &count), (vec![], false, 3));
    let inverted = Range { key: "c".into(), range_end: "a".into(), ..Range::default() };
    assert_eq!(keys(&store, &inverted), (vec![], false, 0));
    let future = Range { revision: 100, ..all() };
    assert_eq!(store.view().range(&future), Err(Refusal::FutureRevision));
    assert_eq!(store.view().range(&Range::default()), Err(Refusal::KeyNotProvided));
}

#[test]
fn transactions_change_the_revision_once_if_at_all() {
    let mut store = filled();
    let conflict = then(vec![Op::Put(put("x", "")), Op::DeleteRange(delete("w", "z"))]);
    assert_eq!(store.apply(&conflict), Err(Refusal::DuplicateKey));
    let nothing = then(vec![Op::DeleteRange(delete("w", "z"))]);
    store.apply(&nothing).unwrap();
    assert_eq!(store.revision().0, 6);
    let absent = Compare { key: "x".into(), ..Compare::default() };
    let nested =
        Txn { compare: vec![absent], success: vec![Op::Put(put("y", ""))], ..Txn::default() };
    let read = Range { key: "x".into(), ..Range::default() };
    let outcome = store.apply(&then(vec![
        Op::Put(put("x", "")),
        Op::Range(read),
        Op::Txn(nested),
        Op::DeleteRange(delete("a", "")),
    ]));
    let Ok(Outcome::Txn(outcome)) = outcome else { panic!("{outcome:?}") };
    let [_, OpOutcome::Range { revision, result }, OpOutcome::Txn(nested), last] =
        &outcome.responses[..]
    else {
        panic!("{outcome:?}")
    };
    assert_eq!((revision.0, result.kvs[0].mod_revision.0), (7, 7));
    assert!(nested.succeeded, "its condition sees the store before the transaction");
    let OpOutcome::DeleteRange { deleted: 1, prevs, .. } = last else { panic!("{last:?}") };
    assert_eq!((prevs[0].version, prevs[0].mod_revision.0), (3, 5));
    assert_eq!(store.apply(&then(vec![Op::Empty])), Err(Refusal::KeyNotFound));
    let value = Compare {
        key: "zz".into(),
        result: CompareResult::NotEqual,
        target: CompareTarget::Value,
        operand: Operand::Value("q".into()),
        ..Compare::default()
    };
    let unequal = Command::Txn(Txn { compare: vec![value], ..Txn::default() });
    let Ok(Outcome::Txn(outcome)) = store.apply(&unequal) else { panic!() };
    assert!(!outcome.succeeded, "an absent value is not unequal to anything");
}

#[test]
fn compaction_ends_history_once() {
    let mut store = filled();
    let mut compact = |revision| store.apply(&Command::Compact(Compact { revision }));
    assert_eq!(compact(1000), Err(Refusal::FutureRevision));
    assert_eq!(compact(0), Ok(Outcome::Compact));
    assert_eq!(compact(0), Err(Refusal::Compacted));
    assert_eq!(compact(5), Ok(Outcome::Compact));
    assert_eq!(compact(5), Err(Refusal::Compacted));
    for _swept in [false, true] {
        assert_eq!(
            keys(&store, &Range { revision: 5, ..all() }),
            (vec!["a".into(), "b".into()], false, 2)
        );
        assert_eq!(store.view().range(&Range { revision: 4, ..all() }), Err(Refusal::Compacted));
        assert_eq!(keys(&store, &Range { revision: -5, ..all() }).2, 3);
        while store.sweep(1) {}
    }
    let negative = then(vec![Op::Range(Range { revision: -5, ..all() }), Op::Put(put("x", ""))]);
    assert_eq!(store.apply(&negative), Err(Refusal::Compacted));
    assert_eq!(store.revision().0, 6);
}

/// A delete from a key on, and a put that keeps the key's value: it kills etcd's members for good.
#[test]
fn a_delete_from_a_key_on_conflicts_with_a_put() {
    let mut store = filled();
    let keep = Put { key: "a".into(), ignore_value: true, ..Put::default() };
    let poison = then(vec![Op::DeleteRange(delete("a", "\0")), Op::Put(keep)]);
    assert_eq!(store.apply(&poison), Err(Refusal::DuplicateKey));
    assert_eq!(keys(&store, &all()).2, 3);
}

/// A key deleted and put again at one revision, compacted at just that one.
#[test]
fn a_key_deleted_and_put_at_once_survives_compaction_there() {
    let mut store = filled();
    let nested = |op| Op::Txn(Txn { success: vec![op], ..Txn::default() });
    // Nested put first, then nested delete: the order that is let through.
    let both = [nested(Op::Put(put("b", "2"))), nested(Op::DeleteRange(delete("b", "")))];
    store.apply(&then(both.to_vec())).unwrap();
    store.apply(&Command::Put(put("b", "3"))).unwrap();
    for revision in [7, 8] {
        store.apply(&Command::Compact(Compact { revision })).unwrap();
        while store.sweep(1) {}
        assert_eq!(keys(&store, &all()).2, 3);
    }
}

#[test]
fn ranges_and_nested_ranges_make_a_transaction_read_only() {
    let branches = |success, failure| Txn { success, failure, ..Txn::default() };
    let read = || Op::Range(all());
    assert!(branches(vec![], vec![]).is_read_only());
    assert!(branches(vec![read(), read()], vec![read()]).is_read_only());
    let nested = |op| Op::Txn(branches(vec![read()], vec![op]));
    assert!(branches(vec![nested(read())], vec![read()]).is_read_only());
    for write in [
        Op::Put(put("a", "")),
        Op::DeleteRange(delete("a", "")),
        nested(Op::Put(put("a", ""))),
        nested(nested(Op::Empty)),
        Op::Empty,
    ] {
        assert!(!branches(vec![], vec![read(), write.clone()]).is_read_only());
        assert!(!branches(vec![write], vec![read()]).is_read_only());
    }
}

#[test]
fn a_view_is_read_on_any_thread() {
    fn everywhere<T: Send + Sync + 'static>(_: &T) {}
    let mut store = filled();
    let view = store.view();
    everywhere(&view);
    let reader = std::thread::spawn(move || view.range(&all()).unwrap());
    store.apply(&Command::DeleteRange(delete("\0", "\0"))).unwrap();
    assert_eq!(reader.join().unwrap().count, 3);
}
