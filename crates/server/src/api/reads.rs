//! Reads of what is published. Short ones are answered where they are asked, long ones by the
//! reader threads, so that nobody waits for another's long read.

use super::Member;
use super::outcome;
use super::range_pages::{PAGE_KEYS, RangePages, is_plain};
use crate::connection::Charge;
use crate::grpc::{Call, LongFrame};
use crate::texts;
use bytes::Bytes;
use proto::etcdserverpb as pb;
use std::sync::Arc;
use store::{Op, Range, RangeResult, Refusal, Txn, View};
use tonic::Status;

/// A read that visits more keys is long: a third of a millisecond, some ten times what it costs to
/// hand it over.
const SHORT_KEYS: usize = PAGE_KEYS;
/// Of the estimated length of a long read's answer so much is counted before it is read, the rest as
/// it is made: what one connection may have unsent, so its largest reads come one after the other.
const EXPECTED_BYTES_MAX: u64 = 16 << 20;

/// A nested transaction of ranges is answered as a whole, so it is a read only with so few operations,
/// which come to so few keys; else it is a write, and what a write may cost bounds it.
const NESTED_OPS_MAX: usize = 1000;
const NESTED_KEYS_MAX: u64 = 100_000;

/// A read that was checked.
pub(super) enum Read {
    Range(Range),
    /// One that only reads.
    Txn(Txn),
}

impl Member {
    /// Reads what is published once there is room for the answer. `bytes` is the request's length.
    pub(super) fn read(self: &Arc<Self>, call: Call, read: Read, bytes: usize) {
        let member = Arc::clone(self);
        call.when_room(move |call| member.read_now(call, read, bytes));
    }

    fn read_now(&self, call: Call, read: Read, bytes: usize) {
        let published = self.published.load();
        let header = self.header_of(&published);
        let view = &published.view;
        match &read {
            Read::Range(range) => {
                if let Some(found) = short_range(view, range) {
                    let found = found.map_err(|refusal| texts::refused(&refusal));
                    return call
                        .answer_read(found.map(|found| outcome::range(Some(header), found)));
                }
            }
            Read::Txn(txn) => {
                if is_short_txn(view, txn) {
                    let found = view.txn(txn).map_err(|refusal| texts::refused(&refusal));
                    return call.answer_read(found.map(|found| outcome::txn(Some(header), found)));
                }
            }
        }
        let view = view.clone();
        let cost = match &read {
            Read::Range(range) => view.cost(range),
            Read::Txn(txn) => view.txn_cost(txn),
        };
        let expected = cost.bytes.min(EXPECTED_BYTES_MAX) as usize;
        call.answer_apart(bytes, expected, move |charge| match read {
            Read::Range(range) => long_range(header, view, range, charge),
            Read::Txn(txn) => long_txn(header, &view, txn, charge),
        });
    }
}

/// Whether a transaction is answered from what is published, instead of through the log.
pub(super) fn is_read(view: &View, txn: &Txn) -> bool {
    let is_flat = txn.success.iter().chain(&txn.failure).all(|op| matches!(op, Op::Range(_)));
    is_flat
        || txn.is_read_only()
            && ops(txn) <= NESTED_OPS_MAX
            && view.txn_cost(txn).keys <= NESTED_KEYS_MAX
}

/// How many operations and conditions there are, nested ones counted in.
fn ops(txn: &Txn) -> usize {
    let nested = txn.success.iter().chain(&txn.failure).map(|op| match op {
        Op::Txn(txn) => ops(txn),
        Op::Range(_) | Op::Put(_) | Op::DeleteRange(_) | Op::Empty => 1,
    });
    1 + txn.compare.len() + nested.sum::<usize>()
}

/// Reads a range if that is short.
fn short_range(view: &View, range: &Range) -> Option<Result<RangeResult, Refusal>> {
    let limited = 0 < range.limit && range.limit <= SHORT_KEYS as i64;
    if range.range_end.is_empty()
        || view.keys() <= SHORT_KEYS as u64 && range.revision <= 0
        || is_plain(range) && (limited || range.count_only)
    {
        return Some(view.range(range));
    }
    if is_plain(range) {
        // To try costs less than to estimate, for most are short.
        let tried = view.range(&Range { limit: SHORT_KEYS as i64, ..range.clone() });
        return Some(tried).filter(|tried| !matches!(tried, Ok(found) if found.more));
    }
    (view.cost(range).keys <= SHORT_KEYS as u64).then(|| view.range(range))
}

/// Whether a transaction that only reads is short.
fn is_short_txn(view: &View, txn: &Txn) -> bool {
    let mut ops = txn.success.iter().chain(&txn.failure);
    let of_single_keys = txn.compare.iter().all(|compare| compare.range_end.is_empty())
        && ops.all(|op| matches!(op, Op::Range(range) if range.range_end.is_empty()));
    let count = txn.compare.len() + txn.success.len().max(txn.failure.len());
    of_single_keys && count <= SHORT_KEYS || view.txn_cost(txn).keys <= SHORT_KEYS as u64
}

fn long_range(
    header: pb::ResponseHeader,
    view: View,
    range: Range,
    charge: Charge,
) -> Result<Bytes, Status> {
    let mut frame = LongFrame::new(charge);
    let mut pages = RangePages::new(header, view, range)?;
    while let Some(part) = pages.next(PAGE_KEYS, usize::MAX) {
        frame.add(&part)?;
    }
    Ok(frame.finish())
}

/// Answers step by step: the answers to all together need not be in memory but encoded.
fn long_txn(
    header: pb::ResponseHeader,
    view: &View,
    txn: Txn,
    charge: Charge,
) -> Result<Bytes, Status> {
    let read = |txn: &Txn| view.txn(txn).map_err(|refusal| texts::refused(&refusal));
    let Txn { compare, success, failure } = txn;
    let succeeded = read(&Txn { compare, ..Txn::default() })?.succeeded;
    let mut frame = LongFrame::new(charge);
    let header = Some(header);
    frame.add(&pb::TxnResponse { header, succeeded, responses: Vec::new() })?;
    for op in if succeeded { success } else { failure } {
        let found = read(&Txn { success: vec![op], ..Txn::default() })?;
        let responses = outcome::txn(None, found).responses;
        frame.add(&pb::TxnResponse { header: None, succeeded: false, responses })?;
    }
    Ok(frame.finish())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::connection::{ClientConnection, Edge};
    use crate::readers::Readers;
    use prost::Message;
    use store::{Command, Compare, CompareResult, Put, SortOrder, SortTarget, Store};

    fn view(keys: usize) -> View {
        let mut store = Store::new();
        for n in 0..keys {
            let (key, value) = (format!("{n:05}").into(), format!("{}", n * 7919 % 1000).into());
            store.apply(&Command::Put(Put { key, value, ..Put::default() })).unwrap();
        }
        store.view()
    }

    fn charge() -> Charge {
        ClientConnection::new(Edge::new(Readers::start().unwrap())).charge(0)
    }

    fn ranges() -> Vec<Range> {
        let all = Range { key: "0".into(), range_end: "9".into(), ..Range::default() };
        vec![
            all.clone(),
            Range { limit: 10, ..all.clone() },
            Range { limit: 1500, ..all.clone() },
            Range { count_only: true, ..all.clone() },
            Range { sort_order: SortOrder::Descend, sort_target: SortTarget::Value, ..all.clone() },
            Range { revision: 400, ..all.clone() },
            Range { key: "00400".into(), range_end: "00500".into(), ..all.clone() },
            Range { key: "00400".into(), range_end: Bytes::new(), ..all },
        ]
    }

    #[test]
    fn short_and_long_reads_answer_alike() {
        let header = pb::ResponseHeader { revision: 7, ..Default::default() };
        let mut short = Vec::new();
        for keys in [10, 500, 3000] {
            let view = view(keys);
            for range in ranges() {
                let whole = view.range(&range);
                let tried = short_range(&view, &range);
                short.push(tried.is_some());
                if let Some(tried) = tried {
                    assert_eq!(tried, whole, "{range:?} of {keys}");
                }
                let long = long_range(header, view.clone(), range.clone(), charge());
                let Ok(whole) = whole else {
                    assert!(long.is_err());
                    continue;
                };
                let long = pb::RangeResponse::decode(&long.unwrap()[5..]).unwrap();
                assert_eq!(long, outcome::range(Some(header), whole), "{range:?} of {keys}");
            }
        }
        let long_ones = short.iter().filter(|short| !**short).count();
        assert_eq!(long_ones, 4, "all, a large limit, sorted, of the past; with many keys");
    }

    #[test]
    fn nested_ranges_are_a_read_as_long_as_they_are_few() {
        let view = view(3000);
        let nested = |range: &Range, times| Txn {
            success: vec![Op::Txn(Txn {
                success: vec![Op::Range(range.clone()); times],
                ..Txn::default()
            })],
            ..Txn::default()
        };
        let all = &ranges()[0];
        let one = Range { key: "00400".into(), ..Range::default() };
        assert!(is_read(&view, &nested(&one, NESTED_OPS_MAX - 2)));
        assert!(!is_read(&view, &nested(&one, NESTED_OPS_MAX - 1)));
        assert!(is_read(&view, &nested(all, 33)));
        assert!(!is_read(&view, &nested(all, 34)));
        let flat = Txn { success: vec![Op::Range(all.clone()); 127], ..Txn::default() };
        assert!(is_read(&view, &flat));
        let success = vec![Op::Put(Put::default())];
        assert!(!is_read(&view, &Txn { success, ..Txn::default() }));
    }

    #[test]
    fn long_transactions_answer_as_the_store_does() {
        let header = pb::ResponseHeader { revision: 7, ..Default::default() };
        let view = view(3000);
        for result in [CompareResult::Equal, CompareResult::NotEqual] {
            let compare = Compare { key: "00001".into(), result, ..Compare::default() };
            let ops = |ranges: Vec<Range>| ranges.into_iter().map(Op::Range).collect();
            let txn = Txn { compare: vec![compare], success: ops(ranges()), failure: Vec::new() };
            assert!(!is_short_txn(&view, &txn));
            let whole = outcome::txn(Some(header), view.txn(&txn).unwrap());
            let long = long_txn(header, &view, txn, charge()).unwrap();
            assert_eq!(pb::TxnResponse::decode(&long[5..]).unwrap(), whole);
        }
    }
}
