//! Reads: the store as it was when the view was taken, and all that history still holds.

use std::cmp::Ordering;
use std::ops::ControlFlow;

use bytes::Bytes;

use crate::account::Bounds;
use crate::command::{
    Compare, CompareResult, CompareTarget, KeyValue, LeaseId, Limits, Op, Operand, Range, Refusal,
    Revision, SortOrder, SortTarget, Txn,
};
use crate::log::Log;
use crate::outcome::{Change, OpOutcome, RangeResult, TxnOutcome};
use crate::record::{Address, Record};
use crate::tree::{AHEAD, Newest, Tree};

/// The store at one moment. Cheap to take and to clone; later writes, compactions and sweeps do not
/// change it. It keeps alive what it shows, so keep it no longer than it is read.
#[derive(Clone, Debug)]
pub struct View {
    /// Where in the log the newest version of each key is.
    pub(crate) tree: Tree,
    pub(crate) log: Log,
    pub(crate) revision: i64,
    /// The oldest readable revision; -1 before the first compaction.
    pub(crate) compacted: i64,
    /// What a command may cost.
    pub(crate) bounds: Bounds,
}

/// There is room for so many records at once, if so many are asked for.
const FOUND_AHEAD: usize = 128;

/// Keys to be visited.
#[derive(Default)]
struct Ahead {
    keys: [Newest; AHEAD],
    len: usize,
}

impl Ahead {
    /// Adds one; returns whether they are to be visited.
    fn push(&mut self, newest: Newest) -> bool {
        self.keys[self.len] = newest;
        self.len += 1;
        self.len == AHEAD
    }

    fn visit<'a>(
        &mut self,
        log: &'a Log,
        visit: &mut dyn FnMut(Record<'a>) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        let keys = &self.keys[..std::mem::take(&mut self.len)];
        let mut found = [None; AHEAD];
        let mut beginnings = 0;
        for (found, newest) in found.iter_mut().zip(keys) {
            *found = log.bytes_of(newest.at());
            beginnings ^= found.and_then(|(bytes, _)| bytes.first()).copied().unwrap_or(0);
        }
        // So that they are loaded now.
        std::hint::black_box(beginnings);
        for (newest, found) in keys.iter().zip(found) {
            if let Some((bytes, home)) = found {
                visit(Record::read(newest.at(), bytes, home))?;
            }
        }
        ControlFlow::Continue(())
    }
}

/// A range of keys, as requests say it.
#[derive(Clone, Copy)]
pub(crate) enum Span<'a> {
    One(&'a [u8]),
    /// From the first up to but without the second; no second is the end.
    From(&'a [u8], Option<&'a [u8]>),
}

impl<'a> Span<'a> {
    pub(crate) fn new(key: &'a [u8], range_end: &'a [u8]) -> Span<'a> {
        match range_end {
            [] => Span::One(key),
            [0] => Span::From(key, None),
            end => Span::From(key, Some(end.max(key))),
        }
    }
}

impl View {
    /// The revision of the view.
    pub fn revision(&self) -> Revision {
        Revision(self.revision)
    }

    /// The oldest revision that can be read; -1 if nothing was ever compacted.
    pub fn compacted(&self) -> i64 {
        self.compacted
    }

    /// How many keys exist.
    pub fn keys(&self) -> u64 {
        self.tree.live()
    }

    /// Bytes of keys and values of all versions held, those of history included, and of what the
    /// index holds of long keys besides. The one figure that depends on how far the store has been
    /// swept, and when.
    pub fn bytes(&self) -> u64 {
        self.log.bytes() + self.tree.separator_bytes()
    }

    /// Reads a range. Costs O(log n + answer) at the view's revision, count included; at an
    /// older one, or with filters or an order, O(log n) for each key in the range.
    ///
    /// # Errors
    /// What [`Range::check`] says, [`Refusal::Compacted`] or [`Refusal::FutureRevision`].
    pub fn range(&self, range: &Range) -> Result<RangeResult, Refusal> {
        range.check()?;
        if range.revision > self.revision {
            return Err(Refusal::FutureRevision);
        }
        if range.revision > 0 && range.revision < self.compacted {
            return Err(Refusal::Compacted);
        }
        Ok(self.read(range))
    }

    /// Answers a transaction that only reads.
    ///
    /// # Errors
    /// What [`Txn::check`] says, whatever the number of operations; [`Refusal::Compacted`] or
    /// [`Refusal::FutureRevision`] for a step on the path taken; [`Refusal::KeyNotFound`] if the
    /// transaction is not read-only ([`Txn::is_read_only`]).
    pub fn txn(&self, txn: &Txn) -> Result<TxnOutcome, Refusal> {
        txn.check(&Limits { txn_ops_max: usize::MAX })?;
        self.txn_outcome(txn)
    }

    fn txn_outcome(&self, txn: &Txn) -> Result<TxnOutcome, Refusal> {
        let succeeded = txn.compare.iter().all(|compare| self.holds(compare));
        let steps = if succeeded { &txn.success } else { &txn.failure };
        let responses = steps.iter().map(|op| match op {
            Op::Range(range) => {
                self.readable_in_txn(range)?;
                Ok(OpOutcome::Range { revision: self.revision(), result: self.read(range) })
            }
            Op::Txn(txn) => self.txn_outcome(txn).map(OpOutcome::Txn),
            Op::Put(_) | Op::DeleteRange(_) | Op::Empty => Err(Refusal::KeyNotFound),
        });
        Ok(TxnOutcome { succeeded, responses: responses.collect::<Result<_, _>>()? })
    }

    /// All that was changed at or after a revision and is not compacted, in order.
    ///
    /// # Errors
    /// [`Refusal::Compacted`] if history does not reach back that far.
    pub fn changes(&self, from: Revision) -> Result<impl Iterator<Item = Change> + '_, Refusal> {
        if from.0 < self.compacted {
            return Err(Refusal::Compacted);
        }
        let log = &self.log;
        let here = |at: Address| Some((at, log.get(at)?));
        let next = move |(at, _): &(Address, Record<'_>)| here(log.next(*at));
        let records = std::iter::successors(here(log.find(from.0)), next);
        Ok(records.map(|(_, record)| change(&record)))
    }

    /// Whether the revision of a range in a transaction can be read. Unlike in a range by itself, a
    /// negative one counts as a revision: etcd's difference, and its clients see it.
    pub(crate) fn readable_in_txn(&self, range: &Range) -> Result<(), Refusal> {
        match range.revision {
            0 => Ok(()),
            revision if revision > self.revision => Err(Refusal::FutureRevision),
            revision if revision < self.compacted => Err(Refusal::Compacted),
            _ => Ok(()),
        }
    }

    /// Whether a comparison is true.
    pub(crate) fn holds(&self, compare: &Compare) -> bool {
        let (mut any, mut all) = (false, true);
        let span = Span::new(&compare.key, &compare.range_end);
        self.scan_live(&span, &mut |record| {
            any = true;
            all = holds_for(compare, Some(&record));
            if all { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        });
        if any { all } else { holds_for(compare, None) }
    }

    /// The key as it is now, if it exists.
    pub(crate) fn live_version(&self, key: &[u8]) -> Option<Record<'_>> {
        let newest = self.tree.get(&self.log, key).filter(|newest| newest.is_live())?;
        self.log.get(newest.at())
    }

    /// Shows each key that exists, as it is now, in order.
    pub(crate) fn scan_live<'a>(
        &'a self,
        span: &Span<'_>,
        visit: &mut dyn FnMut(Record<'a>) -> ControlFlow<()>,
    ) {
        match *span {
            Span::One(key) => {
                if let Some(record) = self.live_version(key) {
                    let _only_one = visit(record);
                }
            }
            Span::From(from, to) => self.scan_live_in_step(from, to, visit),
        }
    }

    /// Shows them some at a time; see [`AHEAD`].
    fn scan_live_in_step<'a>(
        &'a self,
        from: &[u8],
        to: Option<&[u8]>,
        visit: &mut dyn FnMut(Record<'a>) -> ControlFlow<()>,
    ) {
        let mut ahead = Ahead::default();
        let mut flow = ControlFlow::Continue(());
        self.tree.scan(&self.log, from, to, true, &mut |newest| {
            if ahead.push(newest) {
                flow = ahead.visit(&self.log, visit);
            }
            flow
        });
        if flow.is_continue() {
            let _last_ones = ahead.visit(&self.log, visit);
        }
    }

    /// The answer to a well-formed range at a readable revision.
    pub(crate) fn read(&self, range: &Range) -> RangeResult {
        let span = Span::new(&range.key, &range.range_end);
        let past = (range.revision > 0 && range.revision < self.revision).then_some(range.revision);
        let limit = usize::try_from(range.limit).ok().filter(|&limit| limit > 0);
        // Without an order and filters the cut is made in key order, and only then sorted.
        let fetch_all = range.sort_order != SortOrder::None || has_filters(range);
        let mut fetch = if fetch_all { None } else { limit.map(|limit| limit.saturating_add(1)) };
        if range.count_only {
            fetch = Some(0);
        }
        let (mut found, count) = match past {
            None => self.fetch_current(&span, fetch),
            Some(revision) => self.fetch_past(&span, revision, fetch),
        };
        if has_filters(range) {
            found.retain(|record| passes(range, record));
        }
        sort(&mut found, range);
        let more = !range.count_only && limit.is_some_and(|limit| found.len() > limit);
        if let Some(limit) = limit {
            found.truncate(limit);
        }
        let kvs = found.iter().map(|record| answer(record, range)).collect();
        RangeResult { kvs, more, count }
    }

    fn fetch_current(&self, span: &Span<'_>, fetch: Option<usize>) -> (Vec<Record<'_>>, i64) {
        let mut found = Vec::with_capacity(fetch.unwrap_or(0).min(FOUND_AHEAD));
        let wanted = fetch.unwrap_or(usize::MAX);
        match *span {
            _ if wanted == 0 => {}
            Span::One(key) => found.extend(self.live_version(key)),
            Span::From(from, to) => self.scan_live_in_step(from, to, &mut |record| {
                found.push(record);
                if found.len() < wanted {
                    ControlFlow::Continue(())
                } else {
                    ControlFlow::Break(())
                }
            }),
        }
        let count = match *span {
            // A fetch that came to its own end has counted already.
            _ if found.len() < wanted => found.len() as u64,
            Span::One(key) => u64::from(self.live_version(key).is_some()),
            Span::From(from, to) => self.tree.count_live(&self.log, from, to),
        };
        (found, count as i64)
    }

    fn fetch_past(
        &self,
        span: &Span<'_>,
        revision: i64,
        fetch: Option<usize>,
    ) -> (Vec<Record<'_>>, i64) {
        let (mut found, mut count) = (Vec::new(), 0);
        let wanted = fetch.unwrap_or(usize::MAX);
        self.scan_past(span, revision, &mut |record| {
            count += 1;
            if found.len() < wanted {
                found.push(record);
            }
            ControlFlow::Continue(())
        });
        (found, count)
    }

    /// Shows each key that existed at a revision, as it was, in order until `visit` breaks.
    pub(crate) fn scan_past<'a>(
        &'a self,
        span: &Span<'_>,
        revision: i64,
        visit: &mut dyn FnMut(Record<'a>) -> ControlFlow<()>,
    ) {
        let bound = self.log.find(revision.saturating_add(1));
        let mut show = |newest: Newest| {
            // Gone by then: the log need not be asked. There may be many that wait for a sweep.
            if !newest.is_live() && newest.at() < bound {
                return ControlFlow::Continue(());
            }
            let then = self.log.version_before(newest.at(), bound);
            match then.filter(|record| !record.is_tombstone()) {
                Some(record) => visit(record),
                None => ControlFlow::Continue(()),
            }
        };
        match *span {
            Span::One(key) => {
                let _only_one = self.tree.get(&self.log, key).map(show);
            }
            Span::From(from, to) => self.tree.scan(&self.log, from, to, false, &mut show),
        }
    }
}

pub(crate) fn has_filters(range: &Range) -> bool {
    range.min_mod_revision != 0
        || range.max_mod_revision != 0
        || range.min_create_revision != 0
        || range.max_create_revision != 0
}

fn passes(range: &Range, record: &Record<'_>) -> bool {
    let within = |at: i64, min: i64, max: i64| (min == 0 || at >= min) && (max == 0 || at <= max);
    within(record.mod_revision, range.min_mod_revision, range.max_mod_revision)
        && within(record.create_revision, range.min_create_revision, range.max_create_revision)
}

fn sort(found: &mut [Record<'_>], range: &Range) {
    match range.sort_target {
        SortTarget::Key | SortTarget::Unknown(_) => {}
        SortTarget::Version => found.sort_by_key(|record| record.version),
        SortTarget::Create => found.sort_by_key(|record| record.create_revision),
        SortTarget::Mod => found.sort_by_key(|record| record.mod_revision),
        SortTarget::Value => found.sort_by(|a, b| a.value.cmp(b.value)),
    }
    if range.sort_order == SortOrder::Descend {
        found.reverse();
    }
}

fn answer(record: &Record<'_>, range: &Range) -> KeyValue {
    let mut kv = record.key_value();
    if range.keys_only {
        kv.value = Bytes::new();
        // etcd 3.7 answers these from its index, which knows no leases, unless values were needed
        // to sort by.
        if range.sort_target != SortTarget::Value {
            kv.lease = LeaseId(0);
        }
    }
    kv
}

/// Whether a comparison is true of a key, or of the absence of any.
pub(crate) fn holds_for<'a>(compare: &Compare, record: Option<&Record<'a>>) -> bool {
    let number = |stored: fn(&Record<'a>) -> i64, given: Option<i64>| {
        record.map_or(0, stored).cmp(&given.unwrap_or(0))
    };
    let order = match compare.target {
        CompareTarget::Value => match (record, &compare.operand) {
            // No value is unequal to nothing, too.
            (None, _) => return false,
            (Some(record), Operand::Value(given)) => record.value.cmp(given),
            (Some(record), _) => record.value.cmp(&[]),
        },
        CompareTarget::Version => number(
            |record| record.version,
            match compare.operand {
                Operand::Version(given) => Some(given),
                _ => None,
            },
        ),
        CompareTarget::Create => number(
            |record| record.create_revision,
            match compare.operand {
                Operand::Create(given) => Some(given),
                _ => None,
            },
        ),
        CompareTarget::Mod => number(
            |record| record.mod_revision,
            match compare.operand {
                Operand::Mod(given) => Some(given),
                _ => None,
            },
        ),
        CompareTarget::Lease => number(
            |record| record.lease,
            match compare.operand {
                Operand::Lease(given) => Some(given),
                _ => None,
            },
        ),
        CompareTarget::Unknown(_) => Ordering::Equal,
    };
    match compare.result {
        CompareResult::Equal => order.is_eq(),
        CompareResult::Greater => order.is_gt(),
        CompareResult::Less => order.is_lt(),
        CompareResult::NotEqual => order.is_ne(),
        CompareResult::Unknown(_) => true,
    }
}

fn change(record: &Record<'_>) -> Change {
    let kv = record.key_value();
    if record.is_tombstone() {
        Change::Delete { key: kv.key, revision: kv.mod_revision }
    } else {
        Change::Put(kv)
    }
}
