//! What can be said against a request without looking at the store.
//!
//! A member checks before it proposes; [`crate::Store::apply`] checks again, with every limit
//! but the depth of nesting lifted, so that no command can reach the state that is not
//! well-formed. These rules are therefore part of what all members must agree on.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound::{Excluded, Included, Unbounded};

use bytes::Bytes;

use crate::command::{
    Command, DeleteRange, Limits, Op, Put, Range, Refusal, SortOrder, SortTarget, Txn,
};

/// How deeply transactions may be nested. The default limit of operations allows no deeper nesting
/// and no client's decoder comes near; it bounds the stack whatever limit is configured.
pub(crate) const DEPTH_MAX: usize = 128;
/// How many conditions and operations a transaction may have in all, both branches and nested ones
/// counted in, whatever limit is configured: each of them costs something before anything is known
/// of what they do. No fewer than [`crate::Bounds::STEP_KEYS`] lets through, so that what is too long is
/// refused before it is in the log.
pub(crate) const STEPS_MAX: usize = 2_000;

impl Command {
    /// Whether the command makes sense by itself, in etcd's order of checks.
    ///
    /// # Errors
    /// The first rule that it breaks; never one that depends on the store's state.
    pub fn check(&self, limits: &Limits) -> Result<(), Refusal> {
        match self {
            Command::Put(put) => put.check(),
            Command::DeleteRange(delete) => delete.check(),
            Command::Txn(txn) => txn.check(limits),
            Command::Compact(_) => Ok(()),
        }
    }
}

impl Range {
    /// Whether the read makes sense by itself.
    ///
    /// # Errors
    /// [`Refusal::KeyNotProvided`] or [`Refusal::InvalidSortOption`].
    pub fn check(&self) -> Result<(), Refusal> {
        provided(&self.key)?;
        match (self.sort_order, self.sort_target) {
            (SortOrder::Unknown(_), _) | (_, SortTarget::Unknown(_)) => {
                Err(Refusal::InvalidSortOption)
            }
            _ => Ok(()),
        }
    }
}

impl Put {
    fn check(&self) -> Result<(), Refusal> {
        provided(&self.key)?;
        if self.ignore_value && !self.value.is_empty() {
            return Err(Refusal::ValueProvided);
        }
        if self.ignore_lease && self.lease.0 != 0 {
            return Err(Refusal::LeaseProvided);
        }
        Ok(())
    }
}

impl DeleteRange {
    fn check(&self) -> Result<(), Refusal> {
        provided(&self.key)
    }

    fn upper(&self) -> Upper<'_> {
        match &self.range_end[..] {
            [] => Upper::At(&self.key, true),
            // To the end of the keys here too: read as an inverted range, as etcd did, it lets a
            // transaction delete a key and put it again from its own value (see
            // scripts/txn_delete_from_key_conflicts_with_put).
            [0] => Upper::Open,
            end => Upper::At(end, false),
        }
    }
}

impl Txn {
    /// Whether the transaction makes sense by itself: the number of operations, then keys and
    /// steps in their order, then keys that are written twice.
    ///
    /// # Errors
    /// The first rule that it breaks.
    pub fn check(&self, limits: &Limits) -> Result<(), Refusal> {
        let mut steps_left = STEPS_MAX;
        self.check_ops(limits.txn_ops_max, 0, &mut steps_left)?;
        Writes::of(&self.success)?;
        Writes::of(&self.failure)?;
        Ok(())
    }

    /// `steps_left` is what is left for this transaction and those that are checked after it.
    fn check_ops(
        &self,
        ops_max: usize,
        depth: usize,
        steps_left: &mut usize,
    ) -> Result<(), Refusal> {
        let ops = self.compare.len().max(self.success.len()).max(self.failure.len());
        let steps = self.compare.len() + self.success.len() + self.failure.len();
        if ops > ops_max || depth > DEPTH_MAX || steps > *steps_left {
            return Err(Refusal::TooManyOps);
        }
        *steps_left -= steps;
        for compare in &self.compare {
            provided(&compare.key)?;
        }
        for op in self.success.iter().chain(&self.failure) {
            match op {
                Op::Range(range) => range.check()?,
                Op::Put(put) => put.check()?,
                Op::DeleteRange(delete) => delete.check()?,
                Op::Txn(txn) => txn.check_ops(ops_max - ops, depth + 1, steps_left)?,
                Op::Empty => return Err(Refusal::KeyNotFound),
            }
        }
        Ok(())
    }
}

fn provided(key: &Bytes) -> Result<(), Refusal> {
    if key.is_empty() { Err(Refusal::KeyNotProvided) } else { Ok(()) }
}

/// Where a range of keys ends. The derived order is that of the keys.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Upper<'a> {
    /// Before the key, or, if true, just after it.
    At(&'a [u8], bool),
    /// Nowhere.
    Open,
}

/// What a list of steps may write, whichever branches its nested transactions take.
#[derive(Default)]
struct Writes<'a> {
    puts: BTreeSet<&'a [u8]>,
    /// First key to end; disjoint.
    deletes: BTreeMap<&'a [u8], Upper<'a>>,
}

impl<'a> Writes<'a> {
    /// Gathers them, or finds a key that the list would put twice, or put and delete.
    ///
    /// The order is etcd's, because it decides what is found: the list's own deletes, then nested
    /// transactions one after the other, then the list's own puts. So a put in one nested
    /// transaction and a delete in a later one go unnoticed, which is harmless: they are applied
    /// in order.
    fn of(ops: &'a [Op]) -> Result<Writes<'a>, Refusal> {
        let mut all = Writes::default();
        for op in ops {
            if let Op::DeleteRange(delete) = op {
                all.delete(&delete.key, delete.upper());
            }
        }
        for op in ops {
            if let Op::Txn(txn) = op {
                all.join(Writes::of(&txn.success)?, Writes::of(&txn.failure)?)?;
            }
        }
        for op in ops {
            if let Op::Put(put) = op {
                all.put(&put.key)?;
            }
        }
        Ok(all)
    }

    /// Adds a nested transaction. Its two branches exclude each other, so they cannot conflict.
    ///
    /// What is looked at is never more than the smaller of two sets, so that a key is looked at
    /// O(log keys) times, however deeply it is nested.
    fn join(&mut self, then: Writes<'a>, other: Writes<'a>) -> Result<(), Refusal> {
        let nested = then.either(other);
        if self.overlaps(&nested) {
            return Err(Refusal::DuplicateKey);
        }
        *self = std::mem::take(self).either(nested);
        Ok(())
    }

    /// What is in one of the two, or in both.
    fn either(self, other: Writes<'a>) -> Writes<'a> {
        let (puts, more_puts) = by_len(self.puts, other.puts, BTreeSet::len);
        let (deletes, more_deletes) = by_len(self.deletes, other.deletes, BTreeMap::len);
        let mut both = Writes { puts, deletes };
        both.puts.extend(more_puts);
        for (start, upper) in more_deletes {
            both.delete(start, upper);
        }
        both
    }

    /// Whether a key that the nested transaction puts is put or deleted here.
    fn overlaps(&self, nested: &Writes<'a>) -> bool {
        let (few, many) = match self.puts.len() < nested.puts.len() {
            true => (&self.puts, &nested.puts),
            false => (&nested.puts, &self.puts),
        };
        let is_put_in = |start: &'a [u8], upper: Upper<'a>| {
            let next = nested.puts.range::<[u8], _>((Included(start), Unbounded)).next();
            next.is_some_and(|key| Upper::At(key, false) < upper)
        };
        few.iter().any(|key| many.contains(key))
            || match self.deletes.len() < nested.puts.len() {
                true => self.deletes.iter().any(|(start, upper)| is_put_in(start, *upper)),
                false => nested.puts.iter().any(|key| self.deletes_key(key)),
            }
    }

    fn put(&mut self, key: &'a [u8]) -> Result<(), Refusal> {
        if self.deletes_key(key) || !self.puts.insert(key) {
            return Err(Refusal::DuplicateKey);
        }
        Ok(())
    }

    fn deletes_key(&self, key: &[u8]) -> bool {
        let before = self.deletes.range::<[u8], _>((Unbounded, Included(key))).next_back();
        before.is_some_and(|(_, &upper)| Upper::At(key, false) < upper)
    }

    fn delete(&mut self, start: &'a [u8], upper: Upper<'a>) {
        if upper <= Upper::At(start, false) {
            return;
        }
        let (mut start, mut upper) = (start, upper);
        // Ranges that overlap become one, so that a key is looked up in the last that starts
        // before it, however many ranges there are.
        while let Some((first, end)) = self.last_before(upper)
            && Upper::At(start, false) <= end
        {
            self.deletes.remove(first);
            start = start.min(first);
            upper = upper.max(end);
        }
        self.deletes.insert(start, upper);
    }

    fn last_before(&self, upper: Upper<'a>) -> Option<(&'a [u8], Upper<'a>)> {
        let before = match upper {
            Upper::At(key, false) => Excluded(key),
            Upper::At(key, true) => Included(key),
            Upper::Open => Unbounded,
        };
        self.deletes.range::<[u8], _>((Unbounded, before)).next_back().map(|(&k, &u)| (k, u))
    }
}

/// The larger of the two, then the other.
fn by_len<T>(one: T, other: T, len: impl Fn(&T) -> usize) -> (T, T) {
    if len(&one) < len(&other) { (other, one) } else { (one, other) }
}
