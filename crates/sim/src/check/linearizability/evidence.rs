//! What answers show of each key, whatever the order: which revisions changed it, and which did not.

use std::collections::BTreeMap;

use store::{Change, KeyValue, Model, OpOutcome, Outcome, RangeResult, Revision, TxnOutcome};

use super::{Answer, Operation, Request};

/// A key's value, and how long it certainly was that.
struct Seen<'a> {
    kv: &'a KeyValue,
    until: i64,
}

/// Everything that answers show.
#[derive(Default)]
pub(super) struct Evidence<'a> {
    /// By key, by the revision that made the value.
    keys: BTreeMap<&'a [u8], BTreeMap<i64, Seen<'a>>>,
    /// By revision, the keys that it certainly changed.
    changed: BTreeMap<i64, Vec<&'a KeyValue>>,
}

impl<'a> Evidence<'a> {
    pub(super) fn of(history: &'a [Operation]) -> Evidence<'a> {
        let mut evidence = Evidence::default();
        for operation in history {
            match (&operation.request, &operation.answer) {
                (Request::Range(range), Some(Answer::Range(result, revision)))
                    if !range.keys_only =>
                {
                    let at = if range.revision > 0 { range.revision } else { revision.0 };
                    evidence.see_all(&result.kvs, at);
                }
                (_, Some(Answer::Done(outcome, revision))) => evidence.see(outcome, *revision),
                _ => {}
            }
        }
        for seen in evidence.keys.values().flat_map(BTreeMap::values) {
            evidence.changed.entry(seen.kv.mod_revision.0).or_default().push(seen.kv);
        }
        evidence
    }

    fn see(&mut self, outcome: &'a Outcome, revision: Revision) {
        let before = revision.0 - 1;
        match outcome {
            Outcome::Put { prev } => self.see_all(prev.as_slice(), before),
            Outcome::DeleteRange { prevs, .. } => self.see_all(prevs, before),
            Outcome::Txn(txn) => self.see_txn(txn),
            Outcome::Compact => {}
        }
    }

    /// Whether a step shows what was before the transaction or what it did is not looked into: a value
    /// was there when it was made, that is enough.
    fn see_txn(&mut self, txn: &'a TxnOutcome) {
        for response in &txn.responses {
            match response {
                OpOutcome::Range { result: RangeResult { kvs, .. }, .. } => self.see_all(kvs, 0),
                OpOutcome::Put { prev, .. } => self.see_all(prev.as_slice(), 0),
                OpOutcome::DeleteRange { prevs, .. } => self.see_all(prevs, 0),
                OpOutcome::Txn(txn) => self.see_txn(txn),
            }
        }
    }

    fn see_all(&mut self, kvs: &'a [KeyValue], at: i64) {
        for kv in kvs.iter().filter(|kv| !kv.value.is_empty()) {
            let made = kv.mod_revision.0;
            let revisions = self.keys.entry(&kv.key).or_default();
            let seen = revisions.entry(made).or_insert(Seen { kv, until: made });
            seen.until = seen.until.max(at);
        }
    }

    /// Whether the last change of a model is one that the answers allow.
    pub(super) fn allows(&self, model: &Model) -> bool {
        let made = model.revision();
        let certain = self.changed.get(&made.0).into_iter().flatten();
        certain.into_iter().all(|kv| model.key_value(&kv.key, made) == Some(*kv))
            && model.changes(made).into_iter().flatten().all(|change| {
                let key = match change {
                    Change::Put(kv) => &kv.key,
                    Change::Delete { key, .. } => key,
                };
                let before = self.keys.get(&key[..]).and_then(|revisions| {
                    revisions.range(..made.0).next_back().map(|(_, seen)| seen.until)
                });
                before.is_none_or(|until| until < made.0)
            })
    }

    /// Whether a revision is known to have put this value of this key.
    pub(super) fn made(&self, key: &[u8], value: &[u8]) -> impl Iterator<Item = i64> {
        let revisions = self.keys.get(key).into_iter().flatten();
        revisions.filter(move |(_, seen)| seen.kv.value == value).map(|(made, _)| *made)
    }
}
