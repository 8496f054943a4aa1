//! The store said as simply as possible: a full copy of the map per revision, nothing clever. For
//! tests, and for checkers of histories.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;

use crate::account::Bounds;
use crate::check::{DEPTH_MAX, STEPS_MAX};
use crate::command::{
    Command, Compact, Compare, CompareResult, CompareTarget, DeleteRange, KeyValue, LeaseId, Op,
    Operand, Put, Range, Refusal, Revision, SortOrder, SortTarget, Txn,
};
use crate::outcome::{Change, OpOutcome, Outcome, RangeResult, TxnOutcome};

type Map = BTreeMap<Bytes, Arc<KeyValue>>;

/// What [`crate::Store`] must do, in a form that cannot be wrong in interesting ways. It answers
/// what the store answers, refusals included, and is as total: no command panics it.
///
/// It forgets nothing. A compaction only makes it refuse, which is why it can step back:
/// [`Model::mark`] and [`Model::rewind`]. A clone shares the maps.
#[derive(Clone, Debug)]
pub struct Model {
    /// One for each revision, the first being 1; never empty.
    moments: Vec<Arc<Moment>>,
    compacted: i64,
    bounds: Bounds,
}

/// The store at one revision.
#[derive(Clone, Debug, Default)]
struct Moment {
    map: Arc<Map>,
    /// What the revision changed, in order.
    changes: Vec<Change>,
}

/// A state of a [`Model`] to come back to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    moments: usize,
    compacted: i64,
}

impl Default for Model {
    fn default() -> Model {
        Model::new()
    }
}

impl Model {
    /// An empty store, at revision 1.
    pub fn new() -> Model {
        Model::with_bounds(Bounds::default())
    }

    /// An empty store whose commands may cost something else than usual.
    pub fn with_bounds(bounds: Bounds) -> Model {
        Model { moments: vec![Arc::default()], compacted: -1, bounds }
    }

    /// The revision of the last change.
    pub fn revision(&self) -> Revision {
        Revision(self.moments.len() as i64)
    }

    /// The oldest revision that can be read; -1 if nothing was ever compacted.
    pub fn compacted(&self) -> i64 {
        self.compacted
    }

    /// All that existed at a revision, ascending by key, compacted or not; nothing at a revision
    /// that does not exist yet.
    pub fn contents(&self, revision: Revision) -> impl Iterator<Item = &KeyValue> {
        self.moment(revision.0).into_iter().flat_map(|at| at.map.values()).map(|kv| &**kv)
    }

    /// One of [`Model::contents`].
    pub fn key_value(&self, key: &[u8], revision: Revision) -> Option<&KeyValue> {
        self.moment(revision.0)?.map.get(key).map(|kv| &**kv)
    }

    /// Reads a range.
    ///
    /// # Errors
    /// As [`crate::View::range`].
    pub fn range(&self, range: &Range) -> Result<RangeResult, Refusal> {
        well_formed_range(range)?;
        if range.revision > self.revision().0 {
            return Err(Refusal::FutureRevision);
        }
        if range.revision > 0 && range.revision < self.compacted {
            return Err(Refusal::Compacted);
        }
        Ok(read(self.map_at(range.revision).unwrap_or(self.now()), range))
    }

    /// What a range held at a revision, compacted or not; all of it at the last revision if that one
    /// does not exist yet.
    pub fn read_at(&self, revision: Revision, range: &Range) -> RangeResult {
        read(self.map_at(revision.0).unwrap_or(self.now()), range)
    }

    /// Answers a transaction that only reads.
    ///
    /// # Errors
    /// As [`crate::View::txn`].
    pub fn txn(&self, txn: &Txn) -> Result<TxnOutcome, Refusal> {
        well_formed_txn(txn)?;
        self.can_only_read(txn)?;
        Ok(self.carry_out(txn, &mut self.work()))
    }

    fn can_only_read(&self, txn: &Txn) -> Result<(), Refusal> {
        self.branch(txn).1.iter().try_for_each(|op| match op {
            Op::Range(range) => self.can_read(range),
            Op::Txn(txn) => self.can_only_read(txn),
            _ => Err(Refusal::KeyNotFound),
        })
    }

    /// All that was changed at or after a revision, in order.
    ///
    /// # Errors
    /// [`Refusal::Compacted`] if the revision was given up.
    pub fn changes(&self, from: Revision) -> Result<impl Iterator<Item = &Change>, Refusal> {
        if from.0 < self.compacted {
            return Err(Refusal::Compacted);
        }
        Ok(self.all_changes(from))
    }

    /// All that was changed at or after a revision, compacted or not, in order.
    pub fn all_changes(&self, from: Revision) -> impl Iterator<Item = &Change> {
        let skipped = usize::try_from(from.0.saturating_sub(1)).unwrap_or(0);
        self.moments.iter().skip(skipped).flat_map(|moment| &moment.changes)
    }

    /// Carries a command out.
    ///
    /// # Errors
    /// As [`crate::Store::apply`].
    pub fn apply(&mut self, command: &Command) -> Result<Outcome, Refusal> {
        let mut work = self.work();
        let outcome = match command {
            Command::Put(put) => {
                well_formed_put(put)?;
                self.can_put(put)?;
                Outcome::Put { prev: work.put(put) }
            }
            Command::DeleteRange(delete) => {
                provided(&delete.key)?;
                if !delete.range_end.is_empty() {
                    self.can_delete(delete, &mut self.bill())?;
                }
                let (deleted, prevs) = work.delete(delete);
                Outcome::DeleteRange { deleted, prevs }
            }
            Command::Txn(txn) => {
                well_formed_txn(txn)?;
                self.can_txn(txn, &mut self.bill())?;
                Outcome::Txn(self.carry_out(txn, &mut work))
            }
            Command::Compact(compact) => {
                self.compact(compact)?;
                Outcome::Compact
            }
        };
        if !work.changes.is_empty() {
            self.moments.push(Arc::new(Moment { map: work.map, changes: work.changes }));
        }
        Ok(outcome)
    }

    /// Remembers the state, for [`Model::rewind`].
    pub fn mark(&self) -> Mark {
        Mark { moments: self.moments.len(), compacted: self.compacted }
    }

    /// Goes back to what the model was when the mark was taken. A mark is good until the model
    /// goes back to before it. Costs what is undone.
    pub fn rewind(&mut self, mark: Mark) {
        self.moments.truncate(mark.moments.max(1));
        self.compacted = mark.compacted;
    }

    fn moment(&self, revision: i64) -> Option<&Moment> {
        let at = usize::try_from(revision.checked_sub(1)?).ok()?;
        self.moments.get(at).map(|moment| &**moment)
    }

    fn map_at(&self, revision: i64) -> Option<&Map> {
        self.moment(revision).map(|moment| &*moment.map)
    }

    fn now(&self) -> &Arc<Map> {
        &self.moments.last().expect("revision 1 is never taken away").map
    }

    fn work(&self) -> Work {
        Work { revision: self.revision().0 + 1, map: self.now().clone(), changes: vec![] }
    }

    fn compact(&mut self, compact: &Compact) -> Result<(), Refusal> {
        if compact.revision <= self.compacted {
            return Err(Refusal::Compacted);
        }
        if compact.revision > self.revision().0 {
            return Err(Refusal::FutureRevision);
        }
        self.compacted = compact.revision;
        Ok(())
    }

    fn can_put(&self, put: &Put) -> Result<(), Refusal> {
        if put.lease.0 != 0 {
            return Err(Refusal::LeaseNotFound);
        }
        if (put.ignore_value || put.ignore_lease) && !self.now().contains_key(&put.key) {
            return Err(Refusal::KeyNotFound);
        }
        Ok(())
    }

    /// A range within a transaction: a negative revision is one there.
    fn can_read(&self, range: &Range) -> Result<(), Refusal> {
        if range.revision > self.revision().0 {
            return Err(Refusal::FutureRevision);
        }
        if range.revision != 0 && range.revision < self.compacted {
            return Err(Refusal::Compacted);
        }
        Ok(())
    }

    fn can_txn(&self, txn: &Txn, bill: &mut Bill) -> Result<(), Refusal> {
        for compare in &txn.compare {
            let found = find(self.now(), &compare.key, &compare.range_end);
            let decided = found.iter().position(|kv| !holds_for(kv, compare));
            let looked_at = &found[..decided.map_or(found.len(), |at| at + 1)];
            bill.keys(Bounds::STEP_KEYS)?;
            for kv in looked_at {
                bill.keys(1)?;
                if let (CompareTarget::Value, Operand::Value(given)) =
                    (compare.target, &compare.operand)
                {
                    bill.bytes(given.len().min(kv.value.len()))?;
                }
            }
            if !holds(self.now(), compare) {
                break;
            }
        }
        self.branch(txn).1.iter().try_for_each(|op| match op {
            Op::Range(range) => {
                self.can_read(range)?;
                self.can_afford(range, bill)
            }
            Op::Put(put) => {
                self.can_put(put)?;
                bill.keys(Bounds::STEP_KEYS)?;
                let prev = self.now().get(&put.key);
                let kept = prev.filter(|_| put.ignore_value).map_or(0, |kv| kv.value.len());
                bill.bytes(kept * Bounds::KEPT_BYTES as usize)?;
                bill.bytes(prev.filter(|_| put.prev_kv).map_or(0, |kv| size(kv)))?;
                bill.puts.insert(put.key.clone(), put.key.len() + put.value.len() + kept);
                Ok(())
            }
            Op::Txn(txn) => self.can_txn(txn, bill),
            Op::DeleteRange(delete) => self.can_delete(delete, bill),
            Op::Empty => Ok(()),
        })
    }

    fn bill(&self) -> Bill {
        Bill { bounds: self.bounds, keys: 0, bytes: 0, puts: BTreeMap::new(), deleted: 0 }
    }

    fn can_delete(&self, delete: &DeleteRange, bill: &mut Bill) -> Result<(), Refusal> {
        let found = find(self.now(), &delete.key, &delete.range_end);
        let put: Vec<usize> = bill.puts_in(&delete.key, &delete.range_end);
        let keys = (found.len() + put.len()) as u64;
        let each = if delete.prev_kv { Bounds::DELETE_PREV_KEYS } else { 1 };
        bill.keys(Bounds::STEP_KEYS + keys * each)?;
        bill.deleted += keys;
        if delete.prev_kv {
            bill.bytes(put.iter().sum::<usize>() + found.iter().map(size).sum::<usize>())?;
        }
        Ok(())
    }

    /// What a range may cost at most, whatever the transaction changes before it.
    fn can_afford(&self, range: &Range, bill: &mut Bill) -> Result<(), Refusal> {
        let is_past = range.revision > 0;
        bill.keys(Bounds::STEP_KEYS)?;
        if range.count_only && !is_past {
            return Ok(());
        }
        let filters = [
            range.min_mod_revision,
            range.max_mod_revision,
            range.min_create_revision,
            range.max_create_revision,
        ];
        let mut most = usize::MAX;
        if !is_past && range.sort_order == SortOrder::None && filters == [0; 4] && range.limit > 0 {
            most = (range.limit as usize).saturating_add(1).saturating_add(bill.deleted as usize);
        }
        let mut found = find(self.now(), &range.key, &range.range_end);
        let mut put = bill.puts_in(&range.key, &range.range_end);
        put.truncate(most);
        let mut keys = (found.len() + put.len()).min(most);
        if is_past {
            let later = self.moments.iter().skip(range.revision as usize);
            let changes = later.flat_map(|moment| &moment.changes);
            let deletions = changes.filter(|change| matches!(change, Change::Delete { .. }));
            keys = found.len() + bill.puts.len() + deletions.count();
            let then = self.map_at(range.revision).unwrap_or(self.now());
            found = find(then, &range.key, &range.range_end);
            put.clear();
        }
        if range.range_end.is_empty() {
            keys = 1;
        }
        bill.keys(keys as u64 * if is_past { Bounds::PAST_KEYS } else { Bounds::RANGE_KEYS })?;
        if range.count_only {
            return Ok(());
        }
        bill.bytes(put.iter().sum())?;
        let without_values = range.keys_only && range.sort_target != SortTarget::Value;
        for kv in found.iter().take(most) {
            bill.bytes(if without_values { kv.key.len() } else { size(kv) })?;
        }
        Ok(())
    }

    fn branch<'a>(&self, txn: &'a Txn) -> (bool, &'a [Op]) {
        let succeeded = txn.compare.iter().all(|compare| holds(self.now(), compare));
        (succeeded, if succeeded { &txn.success } else { &txn.failure })
    }

    /// Conditions are asked of the state before the whole transaction, ranges of the work so far.
    fn carry_out(&self, txn: &Txn, work: &mut Work) -> TxnOutcome {
        let (succeeded, ops) = self.branch(txn);
        let mut responses = vec![];
        for op in ops {
            responses.push(match op {
                Op::Range(range) => {
                    let map = self.map_at(range.revision).unwrap_or(&work.map);
                    let result = read(map, range);
                    OpOutcome::Range { revision: work.now(), result }
                }
                Op::Put(put) => {
                    let prev = work.put(put);
                    OpOutcome::Put { revision: work.now(), prev }
                }
                Op::DeleteRange(delete) => {
                    let (deleted, prevs) = work.delete(delete);
                    OpOutcome::DeleteRange { revision: work.now(), deleted, prevs }
                }
                Op::Txn(txn) => OpOutcome::Txn(self.carry_out(txn, work)),
                // Refused before.
                Op::Empty => continue,
            });
        }
        TxnOutcome { succeeded, responses }
    }
}

/// What a command has cost so far.
struct Bill {
    bounds: Bounds,
    keys: u64,
    bytes: usize,
    /// Keys put, and the bytes that each holds then.
    puts: BTreeMap<Bytes, usize>,
    /// How many keys were deleted at most.
    deleted: u64,
}

impl Bill {
    fn keys(&mut self, keys: u64) -> Result<(), Refusal> {
        self.keys += keys;
        let max = self.bounds.keys_max;
        if self.keys > max { Err(Refusal::TooManyKeys { max }) } else { Ok(()) }
    }

    fn bytes(&mut self, bytes: usize) -> Result<(), Refusal> {
        self.bytes += bytes;
        let max = self.bounds.bytes_max;
        if self.bytes as u64 > max { Err(Refusal::TooManyBytes { max }) } else { Ok(()) }
    }

    fn puts_in(&self, first: &[u8], end: &[u8]) -> Vec<usize> {
        let within = self.puts.iter().filter(|(key, _)| within(key, first, end));
        within.map(|(_, bytes)| *bytes).collect()
    }
}

fn size(kv: &KeyValue) -> usize {
    kv.key.len() + kv.value.len()
}

/// The state inside a command.
struct Work {
    /// The revision that its changes get.
    revision: i64,
    /// Copied by its first change.
    map: Arc<Map>,
    changes: Vec<Change>,
}

impl Work {
    fn now(&self) -> Revision {
        Revision(self.revision - i64::from(self.changes.is_empty()))
    }

    fn put(&mut self, put: &Put) -> Option<KeyValue> {
        let prev = self.map.get(&put.key).map(|kv| KeyValue::clone(kv));
        let revision = Revision(self.revision);
        let kept = prev.as_ref().map(|kv| kv.value.clone()).unwrap_or_default();
        let kv = KeyValue {
            key: put.key.clone(),
            create_revision: prev.as_ref().map_or(revision, |kv| kv.create_revision),
            mod_revision: revision,
            version: prev.as_ref().map_or(1, |kv| kv.version + 1),
            value: if put.ignore_value { kept } else { put.value.clone() },
            lease: LeaseId(0),
        };
        Arc::make_mut(&mut self.map).insert(put.key.clone(), Arc::new(kv.clone()));
        self.changes.push(Change::Put(kv));
        prev.filter(|_| put.prev_kv)
    }

    fn delete(&mut self, delete: &DeleteRange) -> (i64, Vec<KeyValue>) {
        let found = find(&self.map, &delete.key, &delete.range_end);
        for kv in &found {
            Arc::make_mut(&mut self.map).remove(&kv.key);
            let revision = Revision(self.revision);
            self.changes.push(Change::Delete { key: kv.key.clone(), revision });
        }
        (found.len() as i64, if delete.prev_kv { found } else { vec![] })
    }
}

fn within(key: &[u8], first: &[u8], end: &[u8]) -> bool {
    if end.is_empty() {
        key == first
    } else if end == [0] {
        key >= first
    } else {
        key >= first && key < end
    }
}

fn find(map: &Map, first: &[u8], end: &[u8]) -> Vec<KeyValue> {
    let found = map.values().filter(|kv| within(&kv.key, first, end));
    found.map(|kv| KeyValue::clone(kv)).collect()
}

fn read(map: &Map, range: &Range) -> RangeResult {
    let mut kvs = find(map, &range.key, &range.range_end);
    let count = kvs.len() as i64;
    if range.count_only {
        return RangeResult { kvs: vec![], more: false, count };
    }
    let limit = if range.limit <= 0 { usize::MAX } else { range.limit as usize };
    let filters = [
        range.min_mod_revision,
        range.max_mod_revision,
        range.min_create_revision,
        range.max_create_revision,
    ];
    if range.sort_order == SortOrder::None && filters == [0; 4] && limit < kvs.len() {
        kvs.truncate(limit + 1);
    }
    let [min_mod, max_mod, min_create, max_create] = filters;
    kvs.retain(|kv| min_mod == 0 || kv.mod_revision.0 >= min_mod);
    kvs.retain(|kv| max_mod == 0 || kv.mod_revision.0 <= max_mod);
    kvs.retain(|kv| min_create == 0 || kv.create_revision.0 >= min_create);
    kvs.retain(|kv| max_create == 0 || kv.create_revision.0 <= max_create);
    match range.sort_target {
        SortTarget::Key => kvs.sort_by(|a, b| a.key.cmp(&b.key)),
        SortTarget::Version => kvs.sort_by_key(|kv| kv.version),
        SortTarget::Create => kvs.sort_by_key(|kv| kv.create_revision),
        SortTarget::Mod => kvs.sort_by_key(|kv| kv.mod_revision),
        SortTarget::Value => kvs.sort_by(|a, b| a.value.cmp(&b.value)),
        // Refused before.
        SortTarget::Unknown(_) => {}
    }
    if range.sort_order == SortOrder::Descend {
        kvs.reverse();
    }
    let more = kvs.len() > limit;
    kvs.truncate(limit);
    if range.keys_only {
        for kv in &mut kvs {
            kv.value = Bytes::new();
        }
    }
    RangeResult { kvs, more, count }
}

fn provided(key: &Bytes) -> Result<(), Refusal> {
    if key.is_empty() { Err(Refusal::KeyNotProvided) } else { Ok(()) }
}

fn well_formed_range(range: &Range) -> Result<(), Refusal> {
    provided(&range.key)?;
    if matches!(range.sort_order, SortOrder::Unknown(_))
        || matches!(range.sort_target, SortTarget::Unknown(_))
    {
        return Err(Refusal::InvalidSortOption);
    }
    Ok(())
}

fn well_formed_put(put: &Put) -> Result<(), Refusal> {
    provided(&put.key)?;
    if put.ignore_value && !put.value.is_empty() {
        return Err(Refusal::ValueProvided);
    }
    if put.ignore_lease && put.lease.0 != 0 {
        return Err(Refusal::LeaseProvided);
    }
    Ok(())
}

fn well_formed_txn(txn: &Txn) -> Result<(), Refusal> {
    let mut steps_left = STEPS_MAX;
    well_formed_ops(txn, 0, &mut steps_left)?;
    no_double(&txn.success)?;
    no_double(&txn.failure)?;
    Ok(())
}

fn well_formed_ops(txn: &Txn, depth: usize, steps_left: &mut usize) -> Result<(), Refusal> {
    let steps = txn.compare.len() + txn.success.len() + txn.failure.len();
    if depth > DEPTH_MAX || steps > *steps_left {
        return Err(Refusal::TooManyOps);
    }
    *steps_left -= steps;
    txn.compare.iter().try_for_each(|compare| provided(&compare.key))?;
    txn.success.iter().chain(&txn.failure).try_for_each(|op| match op {
        Op::Range(range) => well_formed_range(range),
        Op::Put(put) => well_formed_put(put),
        Op::DeleteRange(delete) => provided(&delete.key),
        Op::Txn(txn) => well_formed_ops(txn, depth + 1, steps_left),
        Op::Empty => Err(Refusal::KeyNotFound),
    })
}

/// Keys put, and ranges deleted.
type Written = (Vec<Bytes>, Vec<(Bytes, Bytes)>);

/// What the list puts and deletes, duplicates refused.
fn no_double(ops: &[Op]) -> Result<Written, Refusal> {
    let (mut puts, mut deletes): Written = Default::default();
    let clash = |(puts, deletes): (&[Bytes], &[(Bytes, Bytes)]), key: &Bytes| {
        puts.contains(key) || deletes.iter().any(|(first, end)| within(key, first, end))
    };
    for op in ops {
        if let Op::DeleteRange(delete) = op {
            deletes.push((delete.key.clone(), delete.range_end.clone()));
        }
    }
    for op in ops {
        if let Op::Txn(txn) = op {
            let (then, then_deletes) = no_double(&txn.success)?;
            let (other, other_deletes) = no_double(&txn.failure)?;
            if then.iter().chain(&other).any(|key| clash((&puts, &deletes), key)) {
                return Err(Refusal::DuplicateKey);
            }
            puts.extend(then);
            puts.extend(other);
            deletes.extend(then_deletes);
            deletes.extend(other_deletes);
        }
    }
    for op in ops {
        if let Op::Put(put) = op {
            if clash((&puts, &deletes), &put.key) {
                return Err(Refusal::DuplicateKey);
            }
            puts.push(put.key.clone());
        }
    }
    Ok((puts, deletes))
}

fn holds(map: &Map, compare: &Compare) -> bool {
    let mut found = find(map, &compare.key, &compare.range_end);
    if found.is_empty() {
        if compare.target == CompareTarget::Value {
            return false;
        }
        found.push(KeyValue::default());
    }
    found.iter().all(|kv| holds_for(kv, compare))
}

fn holds_for(kv: &KeyValue, compare: &Compare) -> bool {
    let operand = &compare.operand;
    let order = match compare.target {
        CompareTarget::Value => kv.value[..].cmp(match operand {
            Operand::Value(value) => &value[..],
            _ => &[],
        }),
        CompareTarget::Version => kv.version.cmp(match operand {
            Operand::Version(n) => n,
            _ => &0,
        }),
        CompareTarget::Create => kv.create_revision.0.cmp(match operand {
            Operand::Create(n) => n,
            _ => &0,
        }),
        CompareTarget::Mod => kv.mod_revision.0.cmp(match operand {
            Operand::Mod(n) => n,
            _ => &0,
        }),
        CompareTarget::Lease => kv.lease.0.cmp(match operand {
            Operand::Lease(n) => n,
            _ => &0,
        }),
        CompareTarget::Unknown(_) => std::cmp::Ordering::Equal,
    };
    match compare.result {
        CompareResult::Equal => order.is_eq(),
        CompareResult::NotEqual => order.is_ne(),
        CompareResult::Greater => order.is_gt(),
        CompareResult::Less => order.is_lt(),
        CompareResult::Unknown(_) => true,
    }
}
