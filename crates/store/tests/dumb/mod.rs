//! A second store that cannot be wrong in interesting ways: a full copy of the map per revision,
//! nothing shared, nothing clever.

use std::collections::BTreeMap;

use store::*;

type Map = BTreeMap<Vec<u8>, KeyValue>;

#[derive(Clone)]
pub struct Dumb {
    /// One for each revision, the first being 1.
    maps: Vec<Map>,
    changes: Vec<Change>,
    compacted: i64,
}

/// The state inside a transaction.
struct Work {
    revision: i64,
    map: Map,
    changes: Vec<Change>,
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
    map.values().filter(|kv| within(&kv.key, first, end)).cloned().collect()
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
        SortTarget::Unknown(_) => unreachable!(),
    }
    if range.sort_order == SortOrder::Descend {
        kvs.reverse();
    }
    let more = kvs.len() > limit;
    kvs.truncate(limit);
    if range.keys_only {
        for kv in &mut kvs {
            kv.value = Default::default();
        }
    }
    RangeResult { kvs, more, count }
}

fn well_formed(command: &Command) -> Result<(), Refusal> {
    let op = match command {
        Command::Put(put) => Op::Put(put.clone()),
        Command::DeleteRange(delete) => Op::DeleteRange(delete.clone()),
        Command::Txn(txn) => Op::Txn(txn.clone()),
        Command::Compact(_) => return Ok(()),
    };
    well_formed_op(&op)?;
    if let Op::Txn(txn) = op {
        no_double(&txn.success)?;
        no_double(&txn.failure)?;
    }
    Ok(())
}

fn well_formed_op(op: &Op) -> Result<(), Refusal> {
    let key = match op {
        Op::Range(range) => &range.key,
        Op::Put(put) => &put.key,
        Op::DeleteRange(delete) => &delete.key,
        Op::Txn(txn) => {
            if txn.compare.iter().any(|compare| compare.key.is_empty()) {
                return Err(Refusal::KeyNotProvided);
            }
            return txn.success.iter().chain(&txn.failure).try_for_each(well_formed_op);
        }
        Op::Empty => return Err(Refusal::KeyNotFound),
    };
    if key.is_empty() {
        return Err(Refusal::KeyNotProvided);
    }
    match op {
        Op::Put(put) if put.ignore_value && !put.value.is_empty() => Err(Refusal::ValueProvided),
        Op::Put(put) if put.ignore_lease && put.lease.0 != 0 => Err(Refusal::LeaseProvided),
        Op::Range(range)
            if matches!(range.sort_order, SortOrder::Unknown(_))
                || matches!(range.sort_target, SortTarget::Unknown(_)) =>
        {
            Err(Refusal::InvalidSortOption)
        }
        _ => Ok(()),
    }
}

type Deletes = Vec<(Vec<u8>, Vec<u8>)>;

/// What the list puts and deletes, duplicates refused.
fn no_double(ops: &[Op]) -> Result<(Vec<Vec<u8>>, Deletes), Refusal> {
    let (mut puts, mut deletes): (Vec<Vec<u8>>, Deletes) = Default::default();
    let clash = |puts: &[Vec<u8>], deletes: &Deletes, key: &Vec<u8>| {
        puts.contains(key) || deletes.iter().any(|(first, end)| within(key, first, end))
    };
    for op in ops {
        if let Op::DeleteRange(delete) = op {
            deletes.push((delete.key.to_vec(), delete.range_end.to_vec()));
        }
    }
    for op in ops {
        if let Op::Txn(txn) = op {
            let (then, then_deletes) = no_double(&txn.success)?;
            let (other, other_deletes) = no_double(&txn.failure)?;
            if then.iter().chain(&other).any(|key| clash(&puts, &deletes, key)) {
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
            if clash(&puts, &deletes, &put.key.to_vec()) {
                return Err(Refusal::DuplicateKey);
            }
            puts.push(put.key.to_vec());
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
    found.iter().all(|kv| {
        let operand = &compare.operand;
        let given = |number: Option<i64>| number.unwrap_or(0);
        let order = match compare.target {
            CompareTarget::Value => kv.value[..].cmp(match operand {
                Operand::Value(value) => &value[..],
                _ => &[],
            }),
            CompareTarget::Version => kv.version.cmp(&given(match operand {
                Operand::Version(n) => Some(*n),
                _ => None,
            })),
            CompareTarget::Create => kv.create_revision.0.cmp(&given(match operand {
                Operand::Create(n) => Some(*n),
                _ => None,
            })),
            CompareTarget::Mod => kv.mod_revision.0.cmp(&given(match operand {
                Operand::Mod(n) => Some(*n),
                _ => None,
            })),
            CompareTarget::Lease => kv.lease.0.cmp(&given(match operand {
                Operand::Lease(n) => Some(*n),
                _ => None,
            })),
            CompareTarget::Unknown(_) => std::cmp::Ordering::Equal,
        };
        match compare.result {
            CompareResult::Equal => order.is_eq(),
            CompareResult::NotEqual => order.is_ne(),
            CompareResult::Greater => order.is_gt(),
            CompareResult::Less => order.is_lt(),
            CompareResult::Unknown(_) => true,
        }
    })
}

impl Dumb {
    pub fn new() -> Dumb {
        Dumb { maps: vec![Map::new()], changes: vec![], compacted: -1 }
    }

    pub fn revision(&self) -> i64 {
        self.maps.len() as i64
    }

    pub fn compacted(&self) -> i64 {
        self.compacted
    }

    fn now(&self) -> &Map {
        self.maps.last().unwrap()
    }

    fn at(&self, revision: i64) -> &Map {
        if revision <= 0 { self.now() } else { &self.maps[revision as usize - 1] }
    }

    pub fn range(&self, range: &Range) -> Result<RangeResult, Refusal> {
        well_formed_op(&Op::Range(range.clone()))?;
        if range.revision > self.revision() {
            return Err(Refusal::FutureRevision);
        }
        if range.revision > 0 && range.revision < self.compacted {
            return Err(Refusal::Compacted);
        }
        Ok(read(self.at(range.revision), range))
    }

    pub fn changes(&self, from: i64) -> Result<Vec<Change>, Refusal> {
        if from < self.compacted {
            return Err(Refusal::Compacted);
        }
        let at = |change: &Change| match change {
            Change::Put(kv) => kv.mod_revision.0,
            Change::Delete { revision, .. } => revision.0,
        };
        Ok(self.changes.iter().filter(|change| at(change) >= from).cloned().collect())
    }

    pub fn apply(&mut self, command: &Command) -> Result<Outcome, Refusal> {
        well_formed(command)?;
        let mut work =
            Work { revision: self.revision() + 1, map: self.now().clone(), changes: vec![] };
        let outcome = match command {
            Command::Compact(compact) => {
                if compact.revision <= self.compacted {
                    return Err(Refusal::Compacted);
                }
                if compact.revision > self.revision() {
                    return Err(Refusal::FutureRevision);
                }
                self.compacted = compact.revision;
                Outcome::Compact
            }
            Command::Put(put) => {
                self.can_put(put)?;
                Outcome::Put { prev: work.put(put) }
            }
            Command::DeleteRange(delete) => {
                let (deleted, prevs) = work.delete(delete);
                Outcome::DeleteRange { deleted, prevs }
            }
            Command::Txn(txn) => {
                self.can_txn(txn)?;
                Outcome::Txn(self.txn(txn, &mut work))
            }
        };
        if !work.changes.is_empty() {
            self.maps.push(work.map);
            self.changes.extend(work.changes);
        }
        Ok(outcome)
    }

    fn can_put(&self, put: &Put) -> Result<(), Refusal> {
        if put.lease.0 != 0 {
            return Err(Refusal::LeaseNotFound);
        }
        if (put.ignore_value || put.ignore_lease) && !self.now().contains_key(&put.key[..]) {
            return Err(Refusal::KeyNotFound);
        }
        Ok(())
    }

    fn can_txn(&self, txn: &Txn) -> Result<(), Refusal> {
        self.branch(txn).1.iter().try_for_each(|op| match op {
            Op::Range(range) if range.revision > self.revision() => Err(Refusal::FutureRevision),
            Op::Range(range) if range.revision != 0 && range.revision < self.compacted => {
                Err(Refusal::Compacted)
            }
            Op::Put(put) => self.can_put(put),
            Op::Txn(txn) => self.can_txn(txn),
            _ => Ok(()),
        })
    }

    fn branch<'a>(&self, txn: &'a Txn) -> (bool, &'a [Op]) {
        let succeeded = txn.compare.iter().all(|compare| holds(self.now(), compare));
        (succeeded, if succeeded { &txn.success } else { &txn.failure })
    }

    fn txn(&self, txn: &Txn, work: &mut Work) -> TxnOutcome {
        let (succeeded, ops) = self.branch(txn);
        let mut responses = vec![];
        for op in ops {
            let response = match op {
                Op::Range(range) => {
                    let map = if range.revision <= 0 { &work.map } else { self.at(range.revision) };
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
                Op::Txn(txn) => OpOutcome::Txn(self.txn(txn, work)),
                Op::Empty => unreachable!(),
            };
            responses.push(response);
        }
        TxnOutcome { succeeded, responses }
    }
}

impl Work {
    fn now(&self) -> Revision {
        Revision(self.revision - i64::from(self.changes.is_empty()))
    }

    fn put(&mut self, put: &Put) -> Option<KeyValue> {
        let prev = self.map.get(&put.key[..]).cloned();
        let kv = KeyValue {
            key: put.key.clone(),
            create_revision: prev.as_ref().map_or(Revision(self.revision), |kv| kv.create_revision),
            mod_revision: Revision(self.revision),
            version: prev.as_ref().map_or(1, |kv| kv.version + 1),
            value: if put.ignore_value { prev.clone().unwrap().value } else { put.value.clone() },
            lease: LeaseId(0),
        };
        self.map.insert(put.key.to_vec(), kv.clone());
        self.changes.push(Change::Put(kv));
        prev.filter(|_| put.prev_kv)
    }

    fn delete(&mut self, delete: &DeleteRange) -> (i64, Vec<KeyValue>) {
        let found = find(&self.map, &delete.key, &delete.range_end);
        for kv in &found {
            self.map.remove(&kv.key[..]);
            let revision = Revision(self.revision);
            self.changes.push(Change::Delete { key: kv.key.clone(), revision });
        }
        (found.len() as i64, if delete.prev_kv { found } else { vec![] })
    }
}
