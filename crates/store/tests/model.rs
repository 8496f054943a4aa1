//! Random programs, malformed ones included, against the [`Model`]: every answer, then every
//! revision of history. Sweeps of random size run in between on one store and only at the end
//! on another; neither may show.
#![allow(clippy::unwrap_used)] // helpers of tests are tests

use bytes::Bytes;
use proptest::prelude::*;
use store::*;

fn key() -> impl Strategy<Value = Bytes> {
    prop_oneof![
        30 => prop::sample::select(vec!["a", "b", "c", "d", "e", "aa", "\0"]),
        1 => Just(""),
    ]
    .prop_map(Bytes::from)
}

fn range_end() -> impl Strategy<Value = Bytes> {
    prop::sample::select(vec!["", "", "", "\0", "a", "b", "c", "e", "z"]).prop_map(Bytes::from)
}

fn revision() -> impl Strategy<Value = i64> {
    prop_oneof![6 => Just(0), 6 => 1i64..20, 2 => 1i64..60, 1 => -3i64..0,
        1 => prop::sample::select(vec![i64::MIN, i64::MAX])]
}

fn filter() -> impl Strategy<Value = i64> {
    prop_oneof![8 => Just(0i64), 1 => -1i64..12]
}

prop_compose! {
    fn range()(
        key in key(), range_end in range_end(), revision in revision(),
        limit in prop_oneof![3 => Just(0i64), 3 => 1i64..4, 1 => prop::sample::select(vec![-1, i64::MIN, i64::MAX])],
        sort_order in prop_oneof![8 => Just(SortOrder::None), 2 => Just(SortOrder::Ascend),
            2 => Just(SortOrder::Descend)],
        // Sort keys that differ between keys, or the order would be anybody's guess.
        sort_target in prop_oneof![8 => Just(SortTarget::Key), 2 => Just(SortTarget::Mod),
            1 => Just(SortTarget::Version), 1 => Just(SortTarget::Value), 1 => Just(SortTarget::Create)],
        unknown in prop_oneof![60 => Just(false), 1 => Just(true)],
        keys_only in any::<bool>(), count_only in prop::bool::weighted(0.2),
        filters in (filter(), filter(), filter(), filter()),
    ) -> Range {
        Range {
            key, range_end, limit, revision, sort_order, keys_only, count_only,
            sort_target: if unknown { SortTarget::Unknown(9) } else { sort_target },
            min_mod_revision: filters.0, max_mod_revision: filters.1,
            min_create_revision: filters.2, max_create_revision: filters.3,
        }
    }
}

prop_compose! {
    fn put()(
        key in key(), value in prop::sample::select(vec!["", "", "1", "2", "3"]), prev_kv in any::<bool>(),
        ignore_value in prop::bool::weighted(0.2), ignore_lease in prop::bool::weighted(0.05),
        lease in prop_oneof![40 => Just(0i64), 1 => any::<i64>()],
    ) -> Put {
        Put { key, value: value.into(), lease: LeaseId(lease), prev_kv, ignore_value, ignore_lease }
    }
}

prop_compose! {
    fn delete()(key in key(), range_end in range_end(), prev_kv in any::<bool>()) -> DeleteRange {
        DeleteRange { key, range_end, prev_kv }
    }
}

fn compare() -> impl Strategy<Value = Compare> {
    use CompareResult as R;
    use CompareTarget as T;
    let number = prop_oneof![3 => Just(0i64), 4 => 0i64..8, 1 => any::<i64>()];
    let result =
        prop::sample::select(vec![R::Equal, R::Greater, R::Less, R::NotEqual, R::Unknown(7)]);
    let target = prop::sample::select(vec![
        T::Version,
        T::Create,
        T::Mod,
        T::Value,
        T::Lease,
        T::Unknown(8),
    ]);
    let operand = (0..6, number, prop::sample::select(vec!["", "1", "2"])).prop_map(
        |(kind, n, v)| match kind {
            0 => Operand::None,
            1 => Operand::Version(n),
            2 => Operand::Create(n),
            3 => Operand::Mod(n),
            4 => Operand::Value(v.into()),
            _ => Operand::Lease(n),
        },
    );
    (key(), range_end(), result, target, operand).prop_map(
        |(key, range_end, result, target, operand)| Compare {
            key,
            range_end,
            result,
            target,
            operand,
        },
    )
}

fn op() -> impl Strategy<Value = Op> {
    let leaf = prop_oneof![
        60 => put().prop_map(Op::Put),
        40 => delete().prop_map(Op::DeleteRange),
        40 => range().prop_map(Op::Range),
        1 => Just(Op::Empty),
    ];
    leaf.prop_recursive(3, 12, 3, |inner| txn_of(inner.boxed()).prop_map(Op::Txn))
}

fn txn_of(op: BoxedStrategy<Op>) -> impl Strategy<Value = Txn> {
    let ops = prop::collection::vec(op, 0..4);
    (prop::collection::vec(compare(), 0..3), ops.clone(), ops)
        .prop_map(|(compare, success, failure)| Txn { compare, success, failure })
}

#[derive(Clone, Debug)]
enum Step {
    Apply(Command),
    Read(Range),
    ReadTxn(Txn),
    Sweep(usize),
    /// So many versions of one key that reads of the past do not step over them all.
    Burst(Bytes),
    Keep,
}

fn step() -> impl Strategy<Value = Step> {
    let command = prop_oneof![
        8 => put().prop_map(Command::Put),
        3 => delete().prop_map(Command::DeleteRange),
        8 => txn_of(op().boxed()).prop_map(Command::Txn),
        2 => revision().prop_map(|revision| Command::Compact(Compact { revision })),
    ];
    let read = range().prop_map(Op::Range);
    let read = read.prop_recursive(2, 6, 3, |inner| txn_of(inner.boxed()).prop_map(Op::Txn));
    prop_oneof![
        20 => command.prop_map(Step::Apply),
        6 => range().prop_map(Step::Read),
        1 => txn_of(read.boxed()).prop_map(Step::ReadTxn),
        4 => (0usize..6).prop_map(Step::Sweep),
        1 => key().prop_map(Step::Burst),
        1 => Just(Step::Keep),
    ]
}

fn all_at(revision: i64) -> Range {
    Range { key: "\0".into(), range_end: "\0".into(), revision, ..Range::default() }
}

fn same_history(view: &View, model: &Model) {
    assert_eq!(view.revision(), model.revision());
    assert_eq!(view.compacted(), model.compacted());
    for revision in -2..=model.revision().0 + 2 {
        let range = all_at(revision);
        let found = view.range(&range);
        assert_eq!(found, model.range(&range), "at {revision}");
        if let (1.., Ok(found)) = (revision, found) {
            assert!(model.contents(Revision(revision)).eq(&found.kvs), "at {revision}");
        }
        let some = Range { key: "b".into(), range_end: "d".into(), limit: 1, ..range };
        assert_eq!(view.range(&some), model.range(&some), "at {revision}");
        for key in ["a", "b", "aa", "zz"] {
            let one = Range { key: key.into(), revision, ..Range::default() };
            assert_eq!(view.range(&one), model.range(&one), "{key} at {revision}");
        }
    }
    assert_eq!(view.keys(), model.range(&all_at(0)).unwrap().count as u64);
}

fn same_changes(store: &Store, model: &Model) {
    for from in -2..=model.revision().0 + 1 {
        let from = Revision(from);
        let view = store.view();
        let changes = view.changes(from).map(Iterator::collect::<Vec<_>>);
        let expected = model.changes(from).map(|changes| changes.cloned().collect());
        assert_eq!(changes, expected, "from {from:?}");
    }
}

/// Answers apart from the order of keys that are equal in what is sorted by.
fn by_key(mut result: RangeResult) -> RangeResult {
    result.kvs.sort_by(|a, b| a.key.cmp(&b.key));
    result
}

/// Stores that must not differ: one is swept in between, one at the end only, and of one nobody
/// wants to have an answer.
struct Stores {
    swept: Store,
    unswept: Store,
    unanswered: Store,
    model: Model,
}

impl Stores {
    fn new(bounds: Bounds) -> Stores {
        let store = || Store::with_bounds(bounds);
        let model = Model::with_bounds(bounds);
        Stores { swept: store(), unswept: store(), unanswered: store(), model }
    }

    fn apply(&mut self, command: &Command) -> Result<Outcome, Refusal> {
        let expected = self.model.apply(command);
        if command.check(&Limits { txn_ops_max: usize::MAX }).is_ok() {
            let costs = expected.as_ref().err().filter(|refusal| is_for_cost(refusal));
            let said = self.swept.view().check_cost(command);
            assert_eq!(said.err().as_ref(), costs, "{command:?}");
        }
        assert_eq!(self.swept.apply(command), expected, "{command:?}");
        assert_eq!(self.unswept.apply(command), expected, "{command:?}");
        let unanswered = self.unanswered.apply_unanswered(command);
        assert_eq!(unanswered, expected.clone().map(drop), "{command:?}");
        expected
    }
}

fn is_for_cost(refusal: &Refusal) -> bool {
    matches!(refusal, Refusal::TooManyKeys { .. } | Refusal::TooManyBytes { .. })
}

fn run(program: &[Step], bounds: Bounds) {
    let mut stores = Stores::new(bounds);
    let mut kept = Vec::new();
    for step in program {
        match step {
            Step::Apply(command) => drop(stores.apply(command)),
            Step::Read(range) => {
                let (ours, theirs) = (stores.swept.view().range(range), stores.model.range(range));
                assert_eq!(ours.map(by_key), theirs.map(by_key), "{range:?}");
            }
            Step::ReadTxn(txn) => {
                let expected = stores.model.txn(txn);
                assert_eq!(stores.swept.view().txn(txn), expected, "{txn:?}");
                let applied = stores.apply(&Command::Txn(txn.clone()));
                if !applied.as_ref().is_err_and(is_for_cost) {
                    assert_eq!(applied, expected.map(Outcome::Txn), "{txn:?}");
                }
            }
            Step::Sweep(versions_max) => drop(stores.swept.sweep(*versions_max)),
            Step::Burst(key) => {
                for _ in 0..20 {
                    let put = Put { key: key.clone(), ..Put::default() };
                    let _refused_without_a_key = stores.apply(&Command::Put(put));
                }
            }
            Step::Keep => {
                let model = &stores.model;
                kept.push((stores.swept.view(), model.clone(), model.mark()));
            }
        }
        assert_eq!(stores.swept.revision(), stores.model.revision());
    }
    let Stores { mut swept, mut unswept, mut unanswered, mut model } = stores;
    same_history(&swept.view(), &model);
    same_changes(&swept, &model);
    while swept.sweep(1) {}
    while unswept.sweep(1000) {}
    while unanswered.sweep(7) {}
    for store in [&swept, &unswept, &unanswered] {
        same_history(&store.view(), &model);
        same_changes(store, &model);
        assert_eq!(store.view().bytes(), swept.view().bytes(), "what is left is the same");
    }
    for (view, then, mark) in kept.iter().rev() {
        same_history(view, then);
        model.rewind(*mark);
        same_history(view, &model);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2500, max_shrink_iters: 20_000, ..ProptestConfig::default() })]
    #[test]
    fn store_does_what_the_model_does(program in prop::collection::vec(step(), 1..40)) {
        run(&program, Bounds::default());
    }

    #[test]
    fn what_costs_too_much_is_refused_by_all(
        program in prop::collection::vec(step(), 1..40), keys_max in 8u64..150, bytes_max in 0u64..12,
    ) {
        run(&program, Bounds { keys_max, bytes_max });
    }
}

/// All that is left after compaction at a revision and a full sweep is what that revision and later
/// ones show: nothing is lost, and nothing is kept in the tree that no read can reach.
#[test]
fn a_full_sweep_leaves_only_what_can_be_read() {
    let mut store = Store::new();
    for round in 0..50 {
        for key in ["a", "b", "c"] {
            let put = Put { key: key.into(), value: vec![round; 10].into(), ..Put::default() };
            store.apply(&Command::Put(put)).unwrap();
        }
        let delete = DeleteRange { key: "b".into(), ..DeleteRange::default() };
        store.apply(&Command::DeleteRange(delete)).unwrap();
    }
    let revision = store.revision().0;
    store.apply(&Command::Compact(Compact { revision })).unwrap();
    let mut steps = 0;
    while store.sweep(1) {
        steps += 1;
    }
    assert!((199..=200).contains(&steps), "one step a change, not {steps}");
    assert_eq!((store.view().keys(), store.view().bytes()), (2, 2 * 11));
    assert_eq!(store.view().changes(Revision(revision)).unwrap().count(), 1, "the deletion at it");
}

/// Deep nesting, and commands that no client could send, are refused and not fatal.
#[test]
fn nesting_has_an_end() {
    let nest = |depth| {
        let put = Op::Put(Put { key: "a".into(), ..Put::default() });
        let mut txn = Txn { success: vec![put], ..Txn::default() };
        for _ in 0..depth {
            txn = Txn { success: vec![Op::Txn(txn)], ..Txn::default() };
        }
        Command::Txn(txn)
    };
    let (mut store, mut model) = (Store::new(), Model::new());
    for depth in [1000, 129, 128] {
        assert_eq!(model.apply(&nest(depth)).is_ok(), depth == 128);
    }
    assert_eq!(store.apply(&nest(1000)), Err(Refusal::TooManyOps));
    assert_eq!(store.apply(&nest(129)), Err(Refusal::TooManyOps));
    assert_eq!(store.revision().0, 1);
    assert!(store.apply(&nest(128)).is_ok());
    let limits = Limits { txn_ops_max: 128 };
    assert_eq!(nest(128).check(&limits), Err(Refusal::TooManyOps));
    assert_eq!(nest(127).check(&limits), Ok(()));
}
