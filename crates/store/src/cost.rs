//! An estimate of what a read costs, before it is done.

use std::ops::ControlFlow;

use crate::command::{Compare, Op, Range, SortOrder, SortTarget, Txn};
use crate::view::{Span, View, has_filters};

/// The cost of a read, estimated from counts alone: O(log n) for each range, however much the range
/// holds. The estimate is a member's own: another one that has been swept further counts fewer keys.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cost {
    /// The number of keys that the read visits at most.
    pub keys: u64,
    /// Whether all keys of a range are gathered to be sorted or filtered before any is answered.
    pub gathers: bool,
    /// An estimate of the bytes of keys and values in the answer: exact for one key, otherwise from
    /// the average size of a record.
    pub bytes: u64,
}

impl Cost {
    fn and(self, other: Cost) -> Cost {
        Cost {
            keys: self.keys.saturating_add(other.keys),
            gathers: self.gathers || other.gathers,
            bytes: self.bytes.saturating_add(other.bytes),
        }
    }

    fn or(self, other: Cost) -> Cost {
        Cost {
            keys: self.keys.max(other.keys),
            gathers: self.gathers || other.gathers,
            bytes: self.bytes.max(other.bytes),
        }
    }
}

impl View {
    /// Estimates the cost of [`View::range`].
    pub fn cost(&self, range: &Range) -> Cost {
        let Span::From(from, to) = Span::new(&range.key, &range.range_end) else {
            return self.cost_of_one(range);
        };
        let is_past = range.revision > 0 && range.revision < self.revision;
        let live = self.tree.count_live(&self.log, from, to);
        // Keys that exist no more are not counted for each part of the tree.
        let deleted = if is_past { self.tree.keys() - self.tree.live() } else { 0 };
        let keys = live + deleted;
        let gathers = range.sort_order != SortOrder::None
            || range.sort_target != SortTarget::Key
            || has_filters(range);
        let limit = u64::try_from(range.limit).ok().filter(|&limit| limit > 0);
        let answered = match limit {
            _ if range.count_only => 0,
            limit => limit.unwrap_or(keys).min(keys),
        };
        // Without an order and filters the limit is made in the order of the keys.
        let is_cut = !is_past && range.sort_order == SortOrder::None && !has_filters(range);
        let visited = match limit {
            _ if !is_past && range.count_only => 0,
            Some(limit) if is_cut => limit.saturating_add(1).min(keys),
            _ => keys,
        };
        let each = if range.keys_only { self.first_key_len(from, to) } else { self.record_len() };
        Cost {
            keys: visited.max(1),
            gathers: gathers && !range.count_only,
            bytes: answered.saturating_mul(each),
        }
    }

    /// Estimates the cost of [`View::txn`], or of the reads in a transaction that writes: of all
    /// conditions, and of the dearer branch.
    pub fn txn_cost(&self, txn: &Txn) -> Cost {
        let compares = txn.compare.iter().map(|compare| self.compare_cost(compare));
        let branch = |ops: &[Op]| {
            let costs = ops.iter().map(|op| match op {
                Op::Range(range) => self.cost(range),
                Op::Txn(txn) => self.txn_cost(txn),
                Op::Put(_) | Op::DeleteRange(_) | Op::Empty => Cost::default(),
            });
            costs.fold(Cost::default(), Cost::and)
        };
        let branches = branch(&txn.success).or(branch(&txn.failure));
        compares.fold(branches, Cost::and)
    }

    fn compare_cost(&self, compare: &Compare) -> Cost {
        let keys = match Span::new(&compare.key, &compare.range_end) {
            Span::One(_) => 1,
            Span::From(from, to) => self.tree.count_live(&self.log, from, to).max(1),
        };
        Cost { keys, ..Cost::default() }
    }

    fn cost_of_one(&self, range: &Range) -> Cost {
        let record = self.live_version(&range.key).filter(|_| !range.count_only);
        let value = |value: &[u8]| if range.keys_only { 0 } else { value.len() };
        let bytes = record.map_or(0, |record| record.key.len() + value(record.value));
        Cost { keys: 1, gathers: false, bytes: bytes as u64 }
    }

    /// The average length of a key with its value.
    fn record_len(&self) -> u64 {
        self.log.bytes().div_ceil(self.log.kept().max(1))
    }

    /// The length of the first key that exists, as a sample.
    fn first_key_len(&self, from: &[u8], to: Option<&[u8]>) -> u64 {
        let mut len = 0;
        self.scan_live(&Span::From(from, to), &mut |record| {
            len = record.key.len() as u64;
            ControlFlow::Break(())
        });
        len
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::{Command, DeleteRange, Put};
    use crate::store::Store;

    fn store() -> Store {
        let mut store = Store::new();
        for n in 0..100 {
            let (key, value) = (format!("{n:04}").into(), vec![b'v'; 96].into());
            store.apply(&Command::Put(Put { key, value, ..Put::default() })).unwrap();
        }
        store
    }

    fn delete(store: &mut Store, key: &'static str, range_end: &'static str) {
        let (key, range_end) = (key.into(), range_end.into());
        let delete = DeleteRange { key, range_end, prev_kv: false };
        store.apply(&Command::DeleteRange(delete)).unwrap();
    }

    fn range(key: &'static str, range_end: &'static str) -> Range {
        Range { key: key.into(), range_end: range_end.into(), ..Range::default() }
    }

    fn cost(keys: u64, gathers: bool, bytes: u64) -> Cost {
        Cost { keys, gathers, bytes }
    }

    #[test]
    fn cost_of_a_range_follows_its_options() {
        let view = store().view();
        let some = range("0010", "0030");
        let cases = [
            (range("0010", ""), cost(1, false, 100)),
            (Range { count_only: true, ..range("0010", "") }, cost(1, false, 0)),
            (Range { keys_only: true, ..range("0010", "") }, cost(1, false, 4)),
            (range("x", ""), cost(1, false, 0)),
            (some.clone(), cost(20, false, 2000)),
            (Range { limit: 5, ..some.clone() }, cost(6, false, 500)),
            (Range { limit: i64::MAX, ..some.clone() }, cost(20, false, 2000)),
            (Range { limit: -1, ..some.clone() }, cost(20, false, 2000)),
            (Range { count_only: true, ..some.clone() }, cost(1, false, 0)),
            (Range { keys_only: true, ..some.clone() }, cost(20, false, 80)),
            (
                Range { limit: 5, sort_order: SortOrder::Descend, ..some.clone() },
                cost(20, true, 500),
            ),
            (Range { limit: 5, min_mod_revision: 3, ..some.clone() }, cost(20, true, 500)),
            (
                Range { limit: 5, sort_target: SortTarget::Value, ..some.clone() },
                cost(6, true, 500),
            ),
            (Range { revision: 50, limit: 5, ..some.clone() }, cost(20, false, 500)),
            (Range { revision: 50, count_only: true, ..some }, cost(20, false, 0)),
            (range("0050", "\0"), cost(50, false, 5000)),
            (range("1", "0"), cost(1, false, 0)),
        ];
        for (range, expected) in cases {
            assert_eq!(view.cost(&range), expected, "{range:?}");
        }
    }

    #[test]
    fn reads_of_the_past_count_deleted_keys() {
        let mut store = store();
        let before = store.revision().0;
        delete(&mut store, "0000", "0090");
        let view = store.view();
        assert_eq!(view.cost(&range("\0", "\0")).keys, 10);
        let past = Range { revision: before, ..range("\0", "\0") };
        assert_eq!(view.cost(&past).keys, 100);
        assert!(view.cost(&Range { revision: before, ..range("0095", "\0") }).keys >= 5);
    }

    #[test]
    fn cost_of_a_transaction_is_that_of_its_conditions_and_its_dearer_branch() {
        let view = store().view();
        let compare = |key: &'static str, range_end: &'static str| Compare {
            key: key.into(),
            range_end: range_end.into(),
            ..Compare::default()
        };
        let inner = Txn {
            compare: vec![compare("0000", "0020")],
            success: vec![Op::Range(range("0000", "0005"))],
            ..Txn::default()
        };
        let txn = Txn {
            compare: vec![compare("0000", ""), compare("0000", "0010")],
            success: vec![Op::Range(range("0000", "0003")), Op::Txn(inner)],
            failure: vec![Op::Range(range("0000", "0004"))],
        };
        assert_eq!(view.txn_cost(&txn), cost(1 + 10 + 3 + 20 + 5, false, 800));
        assert_eq!(view.txn_cost(&Txn::default()), Cost::default());
    }
}
