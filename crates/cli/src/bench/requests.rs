//! What the load sends, and what of the answers it looks at.

use bytes::Bytes;
use prost::Message;
use proto::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use proto::etcdserverpb::request_op::Request as Operation;
use proto::etcdserverpb::{Compare, PutRequest, RangeRequest, RequestOp, TxnRequest};

use super::grpc::{self, Method};
use crate::arguments::{Bench, Load};

/// The requests of one client.
pub(super) struct Requests<'a> {
    bench: &'a Bench,
    chance: Chance,
    value: Bytes,
    first: Bytes,
    /// Behind the last key.
    end: Bytes,
}

pub(super) enum Request {
    Range(RangeRequest),
    Put(PutRequest),
    Txn(TxnRequest),
}

impl Requests<'_> {
    /// `client` decides what is random about them.
    pub(super) fn new(bench: &Bench, client: u64) -> Requests<'_> {
        let mut chance = Chance(client);
        let value = Bytes::from(chance.bytes(bench.value_size as usize));
        let (first, end) = bounds(bench.key_space, bench.key_size as usize);
        Requests { bench, chance, value, first, end }
    }

    /// What to send as the `issued`th request of all clients.
    pub(super) fn next(&mut self, issued: u64) -> Request {
        if self.bench.load == Load::Count {
            return self.count();
        }
        let number = if self.bench.sequential { issued } else { self.chance.next() };
        let key = key(number % self.bench.key_space, self.bench.key_size as usize);
        match self.bench.load {
            Load::Put => Request::Put(self.put(key)),
            Load::Get => self.get(key),
            Load::Mixed if self.chance.next() % 100 < u64::from(self.bench.reads) => self.get(key),
            Load::Mixed => Request::Put(self.put(key)),
            Load::Range => self.page(key),
            Load::Txn => Request::Txn(self.compare_and_put(key)),
            Load::Count => unreachable!("answered above"),
        }
    }

    fn put(&self, key: Bytes) -> PutRequest {
        PutRequest { key, value: self.value.clone(), ..PutRequest::default() }
    }

    fn get(&self, key: Bytes) -> Request {
        let serializable = self.bench.serializable;
        Request::Range(RangeRequest { key, serializable, ..RangeRequest::default() })
    }

    fn page(&self, key: Bytes) -> Request {
        Request::Range(RangeRequest {
            key,
            range_end: self.end.clone(),
            limit: self.bench.limit,
            serializable: self.bench.serializable,
            ..RangeRequest::default()
        })
    }

    fn count(&self) -> Request {
        Request::Range(RangeRequest {
            key: self.first.clone(),
            range_end: self.end.clone(),
            count_only: true,
            serializable: self.bench.serializable,
            ..RangeRequest::default()
        })
    }

    /// Kubernetes' update: put if the key is as it was seen, else get what it is now. The
    /// revision that is compared is below all there are, so that each transaction writes.
    fn compare_and_put(&self, key: Bytes) -> TxnRequest {
        let compare = Compare {
            result: CompareResult::Greater.into(),
            target: CompareTarget::Mod.into(),
            key: key.clone(),
            target_union: Some(TargetUnion::ModRevision(-1)),
            ..Compare::default()
        };
        let get = RangeRequest { key: key.clone(), ..RangeRequest::default() };
        let operation = |request| vec![RequestOp { request: Some(request) }];
        TxnRequest {
            compare: vec![compare],
            success: operation(Operation::RequestPut(self.put(key))),
            failure: operation(Operation::RequestRange(get)),
        }
    }
}

impl Request {
    pub(super) fn method(&self) -> Method {
        match self {
            Request::Range(_) => Method::Range,
            Request::Put(_) => Method::Put,
            Request::Txn(_) => Method::Txn,
        }
    }

    pub(super) fn frame(&self) -> Bytes {
        match self {
            Request::Range(request) => grpc::frame(request),
            Request::Put(request) => grpc::frame(request),
            Request::Txn(request) => grpc::frame(request),
        }
    }
}

/// How many keys a read found; `None` for a write.
pub(super) fn read(method: Method, message: Bytes) -> Result<Option<i64>, String> {
    match method {
        Method::Range => match Found::decode(message) {
            Ok(found) => Ok(Some(found.count)),
            Err(error) => Err(error.to_string()),
        },
        Method::Put => Ok(None),
        Method::Txn => match Compared::decode(message) {
            Ok(Compared { succeeded: true }) => Ok(None),
            Ok(_) => Err("the comparison of a transaction failed".into()),
            Err(error) => Err(error.to_string()),
        },
    }
}

/// What of a `RangeResponse` matters here; the rest is skipped, not built.
#[derive(Clone, PartialEq, Message)]
struct Found {
    #[prost(int64, tag = "4")]
    count: i64,
}

/// What of a `TxnResponse` matters here.
#[derive(Clone, PartialEq, Message)]
struct Compared {
    #[prost(bool, tag = "2")]
    succeeded: bool,
}

/// The number's last digits, behind as many zeros as fit.
fn key(number: u64, size: usize) -> Bytes {
    let mut text = format!("{number:0size$}").into_bytes();
    Bytes::from(text.split_off(text.len() - size))
}

/// The first of the keys, and what is just behind the last.
fn bounds(key_space: u64, size: usize) -> (Bytes, Bytes) {
    let last = key_space - 1;
    // Of longer numbers, keys are the last digits: any of them may come.
    let is_cut = last.to_string().len() > size;
    let last = if is_cut { Bytes::from(vec![b'9'; size]) } else { key(last, size) };
    (key(0, size), [&last[..], b"\0"].concat().into())
}

/// SplitMix64: the same load whenever the flags are the same.
struct Chance(u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0.rotate_left(32) ^ self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn bytes(&mut self, len: usize) -> Vec<u8> {
        std::iter::repeat_with(|| self.next().to_le_bytes()).flatten().take(len).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;
    use proto::etcdserverpb::{RangeResponse, TxnResponse};

    #[derive(Parser)]
    struct Program {
        #[command(flatten)]
        bench: Bench,
    }

    fn bench(flags: &str) -> Bench {
        let words = std::iter::once("bench").chain(flags.split(' '));
        Program::try_parse_from(words).expect("flags").bench
    }

    fn range(bench: &Bench, issued: u64) -> RangeRequest {
        match Requests::new(bench, 0).next(issued) {
            Request::Range(request) => request,
            _ => panic!("no read"),
        }
    }

    #[test]
    fn keys_have_the_size_that_was_asked_for() {
        assert_eq!(key(42, 8), "00000042");
        assert_eq!(key(0, 1), "0");
        assert_eq!(key(12345, 3), "345");
    }

    #[test]
    fn the_bounds_hold_every_key() {
        assert_eq!(bounds(100, 4), ("0000".into(), "0099\0".into()));
        assert_eq!(bounds(1000, 3), ("000".into(), "999\0".into()));
        assert_eq!(bounds(1235, 3), ("000".into(), "999\0".into()));
        assert_eq!(bounds(1, 1), ("0".into(), "0\0".into()));
    }

    #[test]
    fn a_page_ends_with_the_key_space_and_a_count_takes_all_of_it() {
        let page = range(&bench("range --key-space 100 --key-size 4 --limit 7 --sequential"), 142);
        assert_eq!((page.key, page.range_end), ("0042".into(), "0099\0".into()));
        assert_eq!((page.limit, page.count_only, page.serializable), (7, false, false));
        assert_eq!(range(&bench("range"), 0).limit, 100);

        let count = range(&bench("count --key-space 100 --key-size 4 --serializable"), 0);
        assert_eq!((count.key, count.range_end), ("0000".into(), "0099\0".into()));
        assert_eq!((count.limit, count.count_only, count.serializable), (0, true, true));
    }

    #[test]
    fn a_transaction_compares_and_puts_or_gets() {
        let bench = bench("txn --sequential --key-size 2");
        let Request::Txn(txn) = Requests::new(&bench, 0).next(7) else { panic!("no transaction") };
        assert_eq!(txn.compare[0].key, "07");
        assert_eq!(txn.compare[0].target(), CompareTarget::Mod);
        let Some(Operation::RequestPut(put)) = &txn.success[0].request else { panic!("no put") };
        assert_eq!((&put.key[..], put.value.len()), (&b"07"[..], 256));
        let Some(Operation::RequestRange(get)) = &txn.failure[0].request else { panic!("no get") };
        assert_eq!(get.key, "07");
    }

    #[test]
    fn of_an_answer_only_what_matters_is_read() {
        let kvs = vec![proto::mvccpb::KeyValue { key: "k".into(), ..Default::default() }; 3];
        let response = RangeResponse { kvs, count: 5, ..Default::default() };
        assert_eq!(read(Method::Range, response.encode_to_vec().into()), Ok(Some(5)));
        let txn = |succeeded| TxnResponse { succeeded, ..Default::default() }.encode_to_vec();
        assert_eq!(read(Method::Txn, txn(true).into()), Ok(None));
        assert!(read(Method::Txn, txn(false).into()).is_err());
        assert!(read(Method::Range, Bytes::from_static(b"\x20")).is_err(), "cut off");
    }
}
