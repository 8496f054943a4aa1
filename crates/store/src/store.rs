//! The one writer: applies commands, and forgets in small steps what was compacted.

use std::collections::VecDeque;
use std::ops::ControlFlow;

use crate::command::{
    Command, Compact, DeleteRange, KeyValue, LeaseId, Limits, Op, Put, Refusal, Revision, Txn,
};
use crate::history::History;
use crate::outcome::{Change, OpOutcome, Outcome, TxnOutcome};
use crate::record::Record;
use crate::tree::{Place, Tree};
use crate::view::{Span, View};

/// The state machine. Two stores that were given the same commands answer everything alike,
/// whenever either was swept.
#[derive(Debug)]
pub struct Store {
    /// What readers see; changed between commands only.
    view: View,
    history: History,
    /// Sequence number in the history: what came before has been swept.
    swept: u64,
}

impl Default for Store {
    fn default() -> Store {
        Store::new()
    }
}

impl Store {
    /// An empty store, at revision 1.
    pub fn new() -> Store {
        let view = View { tree: Tree::default(), revision: 1, compacted: -1 };
        Store { view, history: History::default(), swept: 0 }
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
    /// the same on every member.
    pub fn apply(&mut self, command: &Command) -> Result<Outcome, Refusal> {
        command.check(&Limits { txn_ops_max: usize::MAX })?;
        if let Command::Compact(compact) = command {
            return self.compact(compact).map(|()| Outcome::Compact);
        }
        let path = self.admit(command)?;
        let mut batch = Batch { revision: self.view.revision + 1, changed: false, store: self };
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

    /// All that was changed at or after a revision and is not compacted, in order.
    ///
    /// # Errors
    /// [`Refusal::Compacted`] if history does not reach back that far.
    pub fn changes(&self, from: Revision) -> Result<impl Iterator<Item = Change> + '_, Refusal> {
        if from.0 < self.view.compacted {
            return Err(Refusal::Compacted);
        }
        let sequences = self.history.find(from.0)..self.history.end();
        Ok(sequences.filter_map(|sequence| self.history.get(sequence)).map(change))
    }

    /// Frees what compaction has put out of reach, looking at no more than `versions_max` changes.
    /// Returns whether there is more to do.
    pub fn sweep(&mut self, versions_max: usize) -> bool {
        let compacted = self.view.compacted;
        for _ in 0..versions_max {
            let first = self.history.first();
            let at = self.swept.max(first);
            let is_gone = |history: &History| {
                history.get(first).is_some_and(|oldest| oldest.mod_revision() < compacted)
            };
            let next = self.history.get(at).filter(|next| next.mod_revision() <= compacted);
            if let Some(record) = next.cloned() {
                self.forget_older(&record);
                self.swept = at + 1;
            } else if !is_gone(&self.history) {
                return false;
            }
            // What happened at the compacted revision itself stays: a watch may start there.
            if is_gone(&self.history) {
                self.history.pop();
            }
        }
        self.view.compacted > 0 && self.has_garbage()
    }

    fn has_garbage(&self) -> bool {
        let compacted = self.view.compacted;
        let at = self.swept.max(self.history.first());
        self.history.get(at).is_some_and(|next| next.mod_revision() <= compacted)
            || self
                .history
                .get(self.history.first())
                .is_some_and(|oldest| oldest.mod_revision() < compacted)
    }

    /// Removes from the tree what a compacted change has superseded. Changes are swept in order, so
    /// there is at most one such version; and the change itself if it left a tombstone, which hides
    /// nothing any more.
    fn forget_older(&mut self, record: &Record) {
        let (key, revision) = (record.key(), record.mod_revision());
        let tree = &mut self.view.tree;
        if let Some(older) = tree.version(key, revision - 1).cloned() {
            tree.remove(Place { key, revision: older.mod_revision() });
        }
        // Asked of the tree, not of the change: a transaction that deleted the key may have put it
        // again, at the same revision.
        let here = tree.version(key, revision);
        if here.is_some_and(|here| here.mod_revision() == revision && here.is_tombstone()) {
            tree.remove(Place { key, revision });
        }
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

    /// Looks for what refuses a well-formed command, before anything is changed. Returns which
    /// branch each transaction on the path takes, outermost first.
    fn admit(&self, command: &Command) -> Result<VecDeque<bool>, Refusal> {
        let mut path = VecDeque::new();
        match command {
            Command::Put(put) => self.admit_put(put)?,
            Command::Txn(txn) => self.admit_txn(txn, &mut path)?,
            Command::DeleteRange(_) | Command::Compact(_) => {}
        }
        Ok(path)
    }

    fn admit_txn(&self, txn: &Txn, path: &mut VecDeque<bool>) -> Result<(), Refusal> {
        let succeeded = txn.compare.iter().all(|compare| self.view.holds(compare));
        path.push_back(succeeded);
        for op in if succeeded { &txn.success } else { &txn.failure } {
            match op {
                Op::Range(range) => self.view.readable_in_txn(range)?,
                Op::Put(put) => self.admit_put(put)?,
                Op::Txn(txn) => self.admit_txn(txn, path)?,
                Op::DeleteRange(_) | Op::Empty => {}
            }
        }
        Ok(())
    }

    fn admit_put(&self, put: &Put) -> Result<(), Refusal> {
        // Leases are looked up here once there are any.
        if put.lease != LeaseId(0) {
            return Err(Refusal::LeaseNotFound);
        }
        let keeps = put.ignore_value || put.ignore_lease;
        if keeps && self.view.tree.live_version(&put.key).is_none() {
            return Err(Refusal::KeyNotFound);
        }
        Ok(())
    }
}

/// The changes of one command, all at one revision. Nothing in it can fail.
struct Batch<'a> {
    store: &'a mut Store,
    /// The revision its changes get.
    revision: i64,
    changed: bool,
}

impl Batch<'_> {
    /// The store's revision, counting what was changed so far.
    fn current(&self) -> i64 {
        if self.changed { self.revision } else { self.store.view.revision }
    }

    fn write(&mut self, record: Record) {
        self.store.view.tree.insert(record.clone());
        self.store.history.push(record);
        self.changed = true;
    }

    fn put(&mut self, put: &Put) -> Option<KeyValue> {
        let prev = self.store.view.tree.live_version(&put.key).cloned();
        let kept = prev.as_ref();
        // `check` lets no transaction delete a key and then keep its value. Were one to get here all
        // the same, there is nothing to keep.
        let value = match put.ignore_value {
            true => kept.map_or(&[][..], Record::value),
            false => &put.value,
        };
        let lease = if put.ignore_lease { kept.map_or(0, Record::lease) } else { put.lease.0 };
        let create = kept.map_or(self.revision, Record::create_revision);
        let version = kept.map_or(0, Record::version).saturating_add(1);
        self.write(Record::put(&put.key, value, self.revision, version, create, lease));
        prev.filter(|_| put.prev_kv).map(|prev| prev.key_value())
    }

    fn delete(&mut self, delete: &DeleteRange) -> (i64, Vec<KeyValue>) {
        let mut found: Vec<Record> = Vec::new();
        let span = Span::new(&delete.key, &delete.range_end);
        self.store.view.scan_live(&span, &mut |record| {
            found.push(record.clone());
            ControlFlow::Continue(())
        });
        for record in &found {
            self.write(Record::tombstone(record.key(), self.revision));
        }
        let deleted = found.len() as i64;
        let prevs = if delete.prev_kv { found } else { Vec::new() };
        (deleted, prevs.iter().map(Record::key_value).collect())
    }

    /// `path` says which branch is taken, as it was decided before the first change.
    fn txn(&mut self, txn: &Txn, path: &mut impl Iterator<Item = bool>) -> TxnOutcome {
        let succeeded = path.next().unwrap_or(false);
        let steps = if succeeded { &txn.success } else { &txn.failure };
        let mut responses = Vec::with_capacity(steps.len());
        for op in steps {
            responses.push(match op {
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

fn change(record: &Record) -> Change {
    let kv = record.key_value();
    if record.is_tombstone() {
        Change::Delete { key: kv.key, revision: kv.mod_revision }
    } else {
        Change::Put(kv)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What `check` refuses, carried out all the same.
    fn unchecked(store: &mut Store, ops: Vec<Op>) -> TxnOutcome {
        let revision = store.view.revision + 1;
        let mut batch = Batch { store, revision, changed: false };
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
        let kept = store.view.tree.live_version(b"a").unwrap().key_value();
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
            assert!(store.view.tree.live_version(b"a").is_some());
            store.apply(&Command::Put(put(next))).unwrap();
        }
        assert_eq!(store.view().keys(), 3);
    }
}
