//! The one writer: applies commands, and forgets in small steps what was compacted.

use std::ops::ControlFlow;

use crate::account::Bounds;
use crate::command::{
    Command, Compact, DeleteRange, KeyValue, Limits, Op, Put, Refusal, Revision, Txn,
};
use crate::log::Log;
use crate::outcome::{OpOutcome, Outcome, TxnOutcome};
use crate::record::{Address, Draft};
use crate::tree::{Newest, RECORD_BYTES, Tree};
use crate::view::{Span, View};

/// A good measure for one call of [`Store::sweep`].
pub const SWEEP_BYTES: usize = 384 << 10;

/// The state machine. Two stores that were given the same commands answer everything alike,
/// whenever either was swept.
#[derive(Debug)]
pub struct Store {
    /// What readers see; changed between commands only.
    view: View,
    /// What was changed before has been swept.
    swept: Address,
}

impl Default for Store {
    fn default() -> Store {
        Store::new()
    }
}

impl Store {
    /// An empty store, at revision 1.
    pub fn new() -> Store {
        Store::with_bounds(Bounds::default())
    }

    /// An empty store whose commands may cost something else than usual.
    pub fn with_bounds(bounds: Bounds) -> Store {
        let (tree, log) = (Tree::default(), Log::default());
        let view = View { tree, log, revision: 1, compacted: -1, bounds };
        Store { view, swept: Address::default() }
    }

    /// The revision of the last change.
    pub fn revision(&self) -> Revision {
        self.view.revision()
    }

    /// The store as it is now. O(1).
    pub fn view(&self) -> View {
        self.view.clone()
    }

    /// Carries a command out. Total: no command panics it, checked or not, and one that is
    /// refused has no effect. The store's revision goes up by one if a key was changed.
    ///
    /// # Errors
    /// What [`Command::check`] says without a limit on operations, then what depends on the state;
    /// the same on every member. [`Refusal::TooManyKeys`] or [`Refusal::TooManyBytes`] if it costs
    /// more than one command may, see [`Bounds`].
    pub fn apply(&mut self, command: &Command) -> Result<Outcome, Refusal> {
        self.carry_out(command, true)
    }

    /// Carries a command out for which nobody waits here: as [`Store::apply`], but no range is
    /// evaluated and no previous value copied.
    ///
    /// # Errors
    /// Just those of [`Store::apply`].
    pub fn apply_unanswered(&mut self, command: &Command) -> Result<(), Refusal> {
        self.carry_out(command, false).map(drop)
    }

    /// The outcome is incomplete unless the answer is wanted.
    fn carry_out(&mut self, command: &Command, is_wanted: bool) -> Result<Outcome, Refusal> {
        command.check(&Limits { txn_ops_max: usize::MAX })?;
        if let Command::Compact(compact) = command {
            return self.compact(compact).map(|()| Outcome::Compact);
        }
        let path = self.view.admit(command)?;
        let revision = self.view.revision + 1;
        let mut batch = Batch { revision, changed: false, store: self, is_wanted };
        let outcome = match command {
            Command::Put(put) => Outcome::Put { prev: batch.put(put) },
            Command::DeleteRange(delete) => {
                let (deleted, prevs) = batch.delete(delete);
                Outcome::DeleteRange { deleted, prevs }
            }
            Command::Txn(txn) => Outcome::Txn(batch.txn(txn, &mut path.into_iter())),
            Command::Compact(_) => Outcome::Compact,
        };
        if batch.changed {
            self.view.revision += 1;
        }
        Ok(outcome)
    }

    /// Frees some of what compaction has put out of reach. Returns whether there is more to do.
    ///
    /// It looks at changes, one after the other, until it has moved `bytes_max` bytes of memory: what
    /// is copied of blocks, pages and nodes that a view still has, and half a KiB for each record
    /// that is looked at. The last change may make it a little more. With [`SWEEP_BYTES`] a call
    /// takes about a millisecond at most.
    pub fn sweep(&mut self, bytes_max: usize) -> bool {
        let compacted = self.view.compacted;
        let mut moved = 0;
        while moved < bytes_max {
            moved += RECORD_BYTES;
            let log = &self.view.log;
            let first = log.first();
            let at = self.swept.max(first);
            let is_gone =
                |log: &Log| log.get(first).is_some_and(|oldest| oldest.mod_revision < compacted);
            let next = log.get(at).filter(|next| next.mod_revision <= compacted);
            if next.is_some() {
                moved += self.forget_older(at);
                self.swept = self.view.log.next(at);
            } else if !is_gone(log) {
                return false;
            }
            // What happened at the compacted revision itself stays: a watch may start there.
            if is_gone(&self.view.log) {
                moved += self.view.log.pop();
            }
        }
        self.view.compacted > 0 && self.has_garbage()
    }

    fn has_garbage(&self) -> bool {
        let (log, compacted) = (&self.view.log, self.view.compacted);
        let at = self.swept.max(log.first());
        log.get(at).is_some_and(|next| next.mod_revision <= compacted)
            || log.get(log.first()).is_some_and(|oldest| oldest.mod_revision < compacted)
    }

    /// Forgets what a compacted change has superseded. Changes are swept in order, so there is at
    /// most one such version; and the change itself if it left a tombstone, which hides nothing any
    /// more. Returns the bytes that were moved.
    fn forget_older(&mut self, at: Address) -> usize {
        let View { tree, log, .. } = &mut self.view;
        let Some(record) = log.get(at) else { return 0 };
        let mut moved = 0;
        let older = record.link.map(|link| link.prev);
        let is_tombstone = record.is_tombstone();
        // A transaction that deleted the key may have put it again, at the same revision.
        if is_tombstone && tree.get(log, record.key) == Some(Newest::new(at, false)) {
            moved += tree.remove(log, record.key);
        }
        if let Some(older) = older {
            moved += log.forget(older);
        }
        if is_tombstone {
            moved += log.forget(at);
        }
        moved
    }

    fn compact(&mut self, compact: &Compact) -> Result<(), Refusal> {
        if compact.revision <= self.view.compacted {
            return Err(Refusal::Compacted);
        }
        if compact.revision > self.view.revision {
            return Err(Refusal::FutureRevision);
        }
        self.view.compacted = compact.revision;
        Ok(())
    }
}

/// The changes of one command, all at one revision. Nothing in it can fail.
struct Batch<'a> {
    store: &'a mut Store,
    /// The revision its changes get.
    revision: i64,
    changed: bool,
    /// Whether somebody waits for the answer.
    is_wanted: bool,
}

impl Batch<'_> {
    /// The store's revision, counting what was changed so far.
    fn current(&self) -> i64 {
        if self.changed { self.revision } else { self.store.view.revision }
    }

    fn put(&mut self, put: &Put) -> Option<KeyValue> {
        self.changed = true;
        let View { tree, log, .. } = &mut self.store.view;
        let before = tree.put(log, &put.key, Newest::new(log.end(), true));
        let before = before.and_then(|newest| log.get(newest.at()));
        let prev = before.filter(|record| !record.is_tombstone());
        let answer = prev.filter(|_| put.prev_kv && self.is_wanted).map(|prev| prev.key_value());
        // `check` lets no transaction delete a key and then keep its value. Were one to get here all
        // the same, there is nothing to keep.
        let kept = prev.filter(|_| put.ignore_value).map(|prev| prev.lend(prev.value));
        let lease = if put.ignore_lease { prev.map_or(0, |prev| prev.lease) } else { put.lease.0 };
        let draft = Draft {
            key: &put.key,
            value: kept.as_deref().unwrap_or(&put.value),
            mod_revision: self.revision,
            version: prev.map_or(0, |prev| prev.version).saturating_add(1),
            create_revision: prev.map_or(self.revision, |prev| prev.create_revision),
            lease,
            link: before.map(|before| log.link(&before)),
        };
        log.push(&draft);
        answer
    }

    fn delete(&mut self, delete: &DeleteRange) -> (i64, Vec<KeyValue>) {
        let mut prevs = Vec::new();
        let span = Span::new(&delete.key, &delete.range_end);
        if delete.prev_kv && self.is_wanted {
            self.store.view.scan_live(&span, &mut |record| {
                prevs.push(record.key_value());
                ControlFlow::Continue(())
            });
        }
        let View { tree, log, .. } = &mut self.store.view;
        let revision = self.revision;
        let mut key = Vec::new();
        let deleted = tree.delete_live(log, &span, &mut |log, newest| {
            let at = log.end();
            key.clear();
            let link = log.get(newest.at()).map(|before| {
                key.extend_from_slice(before.key);
                log.link(&before)
            });
            log.push(&Draft::tombstone(&key, revision, link));
            at
        });
        self.changed |= deleted > 0;
        (deleted as i64, prevs)
    }

    /// `path` says which branch is taken, as it was decided before the first change.
    fn txn(&mut self, txn: &Txn, path: &mut impl Iterator<Item = bool>) -> TxnOutcome {
        let succeeded = path.next().unwrap_or(false);
        let steps = if succeeded { &txn.success } else { &txn.failure };
        let mut responses = Vec::with_capacity(steps.len());
        for op in steps {
            responses.push(match op {
                Op::Range(_) if !self.is_wanted => continue,
                Op::Range(range) => {
                    let result = self.read(range);
                    OpOutcome::Range { revision: Revision(self.current()), result }
                }
                Op::Put(put) => {
                    let prev = self.put(put);
                    OpOutcome::Put { revision: Revision(self.current()), prev }
                }
                Op::DeleteRange(delete) => {
                    let (deleted, prevs) = self.delete(delete);
                    let revision = Revision(self.current());
                    OpOutcome::DeleteRange { revision, deleted, prevs }
                }
                Op::Txn(txn) => OpOutcome::Txn(self.txn(txn, path)),
                // Refused by `check`.
                Op::Empty => continue,
            });
        }
        TxnOutcome { succeeded, responses }
    }

    /// A range among the changes of its own transaction: "the current revision" includes them, and
    /// the revision before them is the past.
    fn read(&mut self, range: &crate::Range) -> crate::RangeResult {
        let before = self.store.view.revision;
        self.store.view.revision = self.current();
        let result = self.store.view.read(range);
        self.store.view.revision = before;
        result
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::Model;

    /// Any key from the first on, or a single one.
    fn range() -> impl Strategy<Value = (bytes::Bytes, bytes::Bytes)> {
        let end = prop::sample::select(vec!["", "", "", "\0", "key of many 3", "z"]);
        ((0u8..6), end).prop_map(|(n, end)| (format!("key of many {n}").into(), end.into()))
    }

    fn command() -> impl Strategy<Value = Command> {
        let put = (range(), 0usize..60, any::<bool>());
        let put = put.prop_map(|((key, _), len, prev_kv)| Put {
            key,
            value: vec![b'v'; len].into(),
            prev_kv,
            ..Put::default()
        });
        let delete = range();
        let delete =
            delete.prop_map(|(key, range_end)| DeleteRange { key, range_end, prev_kv: true });
        let (put, delete) = (put.boxed(), delete.boxed());
        // Both of one key at one revision: only a transaction inside another may do that.
        let both = (put.clone(), delete.clone()).prop_map(|(put, delete)| {
            let inner = |op| Op::Txn(Txn { success: vec![op], ..Txn::default() });
            let success = vec![inner(Op::Put(put)), inner(Op::DeleteRange(delete))];
            Txn { success, ..Txn::default() }
        });
        prop_oneof![
            8 => put.prop_map(Command::Put),
            2 => delete.prop_map(Command::DeleteRange),
            1 => both.prop_map(Command::Txn),
        ]
    }

    #[derive(Clone, Debug)]
    enum Step {
        Apply(Command),
        Compact(prop::sample::Index),
        Sweep(usize),
        Keep,
    }

    fn same(view: &View, model: &Model) {
        for revision in view.compacted.max(0)..=model.revision().0 {
            for (key, range_end) in
                [("a", "\0"), ("key of many 2", "key of many 4"), ("key of many 1", "")]
            {
                let (key, range_end) = (key.into(), range_end.into());
                let range = crate::Range { key, range_end, revision, ..crate::Range::default() };
                assert_eq!(view.range(&range), model.range(&range), "{range:?}");
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(500))]
        /// With the tiny nodes, blocks and strides of unit tests, which `tests/model.rs` does not have.
        #[test]
        fn store_of_tiny_parts_does_what_the_model_does(
            steps in prop::collection::vec(prop_oneof![
                12 => command().prop_map(Step::Apply),
                1 => any::<prop::sample::Index>().prop_map(Step::Compact),
                3 => (0usize..12).prop_map(Step::Sweep),
                1 => Just(Step::Keep),
            ], 1..150),
        ) {
            let (mut store, mut model, mut kept) = (Store::new(), Model::new(), Vec::new());
            for step in &steps {
                match step {
                    Step::Apply(command) => {
                        prop_assert_eq!(store.apply(command), model.apply(command));
                    }
                    Step::Compact(pick) => {
                        let revision = pick.index(store.revision().0 as usize) as i64 + 1;
                        let compact = Command::Compact(Compact { revision });
                        prop_assert_eq!(store.apply(&compact), model.apply(&compact));
                    }
                    Step::Sweep(versions_max) => drop(store.sweep(*versions_max)),
                    Step::Keep => kept.push((store.view(), model.clone())),
                }
            }
            for _ in 0..2 {
                same(&store.view, &model);
                let from = Revision(model.compacted().max(0));
                let view = store.view();
                let changes: Vec<_> = view.changes(from).unwrap().collect();
                prop_assert!(model.changes(from).unwrap().eq(&changes));
                while store.sweep(1) {}
            }
            for (view, model) in &kept {
                same(view, model);
            }
        }
    }

    /// What `check` refuses, carried out all the same.
    fn unchecked(store: &mut Store, ops: Vec<Op>) -> TxnOutcome {
        let revision = store.view.revision + 1;
        let mut batch = Batch { store, revision, changed: false, is_wanted: true };
        let txn = Txn { success: ops, ..Txn::default() };
        let outcome = batch.txn(&txn, &mut [true].into_iter());
        assert!(batch.changed);
        store.view.revision = revision;
        outcome
    }

    fn delete(key: &'static str, range_end: &'static str) -> Op {
        let range_end = range_end.into();
        Op::DeleteRange(DeleteRange { key: key.into(), range_end, prev_kv: false })
    }

    fn put(key: &'static str) -> Put {
        Put { key: key.into(), value: "v".into(), ..Put::default() }
    }

    /// It kills an etcd member for good. Here it cannot get this far; nor would it matter.
    #[test]
    fn keeping_the_value_of_what_was_just_deleted_is_not_fatal() {
        let mut store = Store::new();
        store.apply(&Command::Put(put("a"))).unwrap();
        let keep = Put { value: "".into(), ignore_value: true, ignore_lease: true, ..put("a") };
        unchecked(&mut store, vec![delete("a", "\0"), Op::Put(keep), Op::Empty]);
        let kept = store.view.live_version(b"a").unwrap().key_value();
        assert_eq!((kept.value, kept.version, kept.create_revision.0), ("".into(), 1, 3));
    }

    /// Compacted at just that revision, an etcd member loses the key, then all others.
    #[test]
    fn what_is_deleted_and_put_at_one_revision_outlives_its_compaction() {
        let mut store = Store::new();
        store.apply(&Command::Put(put("a"))).unwrap();
        unchecked(&mut store, vec![delete("a", ""), Op::Put(put("a"))]);
        for next in ["b", "c"] {
            let revision = store.revision().0;
            store.apply(&Command::Compact(Compact { revision })).unwrap();
            while store.sweep(1) {}
            assert!(store.view.live_version(b"a").is_some());
            store.apply(&Command::Put(put(next))).unwrap();
        }
        assert_eq!(store.view().keys(), 3);
    }

    /// How many changes one call looks at, where each superseded a version.
    fn swept_at_once(bytes_max: usize, is_viewed: bool) -> usize {
        let mut store = Store::new();
        for n in 0..200 {
            let key = format!("{:03}", n * if n < 100 { 77 } else { 31 } % 100).into();
            store.apply(&Command::Put(Put { key, ..Put::default() })).unwrap();
        }
        let revision = store.revision().0;
        store.apply(&Command::Compact(Compact { revision })).unwrap();
        for _first_versions in 0..100 {
            store.sweep(1);
        }
        let compacted = store.view();
        let view = is_viewed.then_some(compacted);
        assert!(store.sweep(bytes_max), "there is more");
        drop(view);
        // The last one says that there is no more.
        99 - std::iter::from_fn(|| store.sweep(1).then_some(())).count()
    }

    #[test]
    fn a_sweep_counts_what_it_copies_for_the_sake_of_views() {
        let bytes_max = 40 * RECORD_BYTES;
        let alone = swept_at_once(bytes_max, false);
        let viewed = swept_at_once(bytes_max, true);
        assert!((20..=40).contains(&alone), "{alone} changes");
        assert!(viewed > 0 && viewed < alone, "{viewed} changes, {alone} without a view");
        assert_eq!((swept_at_once(1, false), swept_at_once(1, true)), (1, 1));
    }
}
