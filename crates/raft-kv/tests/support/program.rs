//! Random programs of KV requests, malformed ones among them.

use bytes::{BufMut, Bytes, BytesMut};
use prost::Message;
use proto::etcdserverpb as pb;
use proto::etcdserverpb::compare::TargetUnion;
use proto::etcdserverpb::request_op::Request as Op;

use super::random::Random;

/// One request of a program.
#[derive(Clone, Debug)]
pub enum Step {
    Range(pb::RangeRequest),
    Put(pb::PutRequest),
    Delete(pb::DeleteRangeRequest),
    Txn(pb::TxnRequest),
    Compact(pb::CompactionRequest),
    /// Bytes as they are, to any path.
    Raw {
        path: &'static str,
        message: Bytes,
    },
}

impl Step {
    pub fn path(&self) -> &'static str {
        match self {
            Step::Range(_) => "/etcdserverpb.KV/Range",
            Step::Put(_) => "/etcdserverpb.KV/Put",
            Step::Delete(_) => "/etcdserverpb.KV/DeleteRange",
            Step::Txn(_) => "/etcdserverpb.KV/Txn",
            Step::Compact(_) => "/etcdserverpb.KV/Compact",
            Step::Raw { path, .. } => path,
        }
    }

    pub fn message(&self) -> Bytes {
        match self {
            Step::Range(request) => request.encode_to_vec().into(),
            Step::Put(request) => request.encode_to_vec().into(),
            Step::Delete(request) => request.encode_to_vec().into(),
            Step::Txn(request) => request.encode_to_vec().into(),
            Step::Compact(request) => request.encode_to_vec().into(),
            Step::Raw { message, .. } => message.clone(),
        }
    }

    /// Whether a member may answer from its own, possibly older state. A
    /// transaction without operations is such a request too.
    pub fn is_local(&self) -> bool {
        match self {
            Step::Range(range) => range.serializable,
            Step::Txn(txn) => txn.success.iter().chain(&txn.failure).all(
                |op| matches!(&op.request, Some(Op::RequestRange(range)) if range.serializable),
            ),
            _ => false,
        }
    }
}

/// Makes the steps of one program from its seed.
pub struct Program {
    random: Random,
    /// Highest revision seen in an answer; revisions are chosen around it.
    pub revision: i64,
    /// Highest revision compacted so far.
    pub compacted: i64,
}

impl Program {
    pub fn new(seed: u64) -> Program {
        Program { random: Random::new(seed), revision: 1, compacted: 0 }
    }

    pub fn random(&mut self) -> &mut Random {
        &mut self.random
    }

    pub fn step(&mut self) -> Step {
        match self.random.below(100) {
            0..28 => Step::Put(self.put()),
            28..55 => Step::Range(self.range()),
            55..65 => Step::Delete(self.delete()),
            65..92 => Step::Txn(self.txn()),
            92..95 => Step::Compact(self.compaction()),
            95 => self.oversized(),
            96 => Step::Txn(self.wide_txn()),
            97 => self.odd_encoding(),
            98 => self.garbage(),
            _ => self.unknown_method(),
        }
    }

    /// Few keys, so that requests meet; some with odd bytes, some empty.
    fn key(&mut self) -> Bytes {
        match self.random.below(40) {
            0 => Bytes::new(),
            1 => Bytes::from_static(b"\0"),
            2 => Bytes::from_static(b"\xff\xff"),
            3 => Bytes::from_static(b"a\0"),
            4..12 => Bytes::from(format!("a/{}", self.random.below(4))),
            _ => Bytes::from(vec![b'a' + self.random.below(8) as u8]),
        }
    }

    fn range_end(&mut self) -> Bytes {
        match self.random.below(8) {
            0..4 => Bytes::new(),
            4 => Bytes::from_static(b"\0"),
            5 => Bytes::from_static(b"a0"),
            _ => self.key(),
        }
    }

    fn value(&mut self) -> Bytes {
        match self.random.below(20) {
            0 => Bytes::new(),
            1 => Bytes::from(vec![self.random.next() as u8; 3000]),
            _ => Bytes::from(format!("v{}", self.random.below(6))),
        }
    }

    /// Mostly near what exists: now, just compacted, the future, nonsense.
    fn at_revision(&mut self) -> i64 {
        match self.random.below(12) {
            0 => self.compacted,
            1 => self.compacted - 1,
            2 => self.revision + 1,
            3 => self.revision + self.random.below(1000) as i64,
            4 => -(self.random.below(10) as i64),
            5 => *self.random.pick(&[i64::MIN, i64::MAX, 1]),
            6 => self.revision,
            _ => self.past(),
        }
    }

    fn past(&mut self) -> i64 {
        let span = (self.revision - self.compacted).clamp(1, 60);
        self.revision - self.random.below(span as u64) as i64
    }

    fn filter(&mut self) -> i64 {
        if self.random.one_in(12) { self.at_revision() } else { 0 }
    }

    /// An enum's number: usually one that exists.
    fn number(&mut self, known: u64) -> i32 {
        match self.random.below(60) {
            0 => known as i32,
            1 => -1,
            2 => i32::MAX,
            _ => self.random.below(known) as i32,
        }
    }

    fn range(&mut self) -> pb::RangeRequest {
        let sorted = self.random.one_in(3);
        pb::RangeRequest {
            key: self.key(),
            range_end: self.range_end(),
            limit: match self.random.below(8) {
                0..5 => 0,
                5 => -1,
                _ => 1 + self.random.below(6) as i64,
            },
            revision: if self.random.one_in(3) { self.at_revision() } else { 0 },
            sort_order: if sorted { self.number(3) } else { 0 },
            sort_target: if sorted { self.number(5) } else { 0 },
            serializable: self.random.one_in(6),
            keys_only: self.random.one_in(6),
            count_only: self.random.one_in(8),
            min_mod_revision: self.filter(),
            max_mod_revision: self.filter(),
            min_create_revision: self.filter(),
            max_create_revision: self.filter(),
        }
    }

    fn put(&mut self) -> pb::PutRequest {
        let ignore_value = self.random.one_in(12);
        let ignore_lease = self.random.one_in(12);
        pb::PutRequest {
            key: self.key(),
            value: if ignore_value && !self.random.one_in(5) { Bytes::new() } else { self.value() },
            lease: if self.random.one_in(30) { *self.random.pick(&[7, -7, i64::MAX]) } else { 0 },
            prev_kv: self.random.one_in(4),
            ignore_value,
            ignore_lease,
        }
    }

    fn delete(&mut self) -> pb::DeleteRangeRequest {
        let (key, range_end) = (self.key(), self.range_end());
        pb::DeleteRangeRequest { key, range_end, prev_kv: self.random.one_in(2) }
    }

    fn compaction(&mut self) -> pb::CompactionRequest {
        let revision = match self.random.below(8) {
            0 => self.at_revision(),
            1 => self.compacted,
            2 => self.revision,
            _ => (self.compacted + 1 + self.random.below(40) as i64).min(self.revision),
        };
        pb::CompactionRequest { revision, physical: self.random.one_in(4) }
    }

    fn txn(&mut self) -> pb::TxnRequest {
        let mut txn = self.txn_of(0);
        // Such deletes beside puts kill etcd up to 3.7.3 (a range that ends in
        // "\0" escapes its check for duplicates). What ours does is tested apart.
        if has_put(&txn) {
            close_deletes(&mut txn);
        }
        txn
    }

    fn txn_of(&mut self, depth: u64) -> pb::TxnRequest {
        let compares = self.random.below(3);
        pb::TxnRequest {
            compare: (0..compares).map(|_| self.compare()).collect(),
            success: self.ops(depth),
            failure: self.ops(depth),
        }
    }

    fn ops(&mut self, depth: u64) -> Vec<pb::RequestOp> {
        (0..self.random.below(4)).map(|_| self.op(depth)).collect()
    }

    fn op(&mut self, depth: u64) -> pb::RequestOp {
        let request = match self.random.below(40) {
            0 => None,
            1..14 => Some(Op::RequestRange(self.range())),
            14..27 => Some(Op::RequestPut(self.put())),
            27..33 => Some(Op::RequestDeleteRange(self.delete())),
            _ if depth < 3 => Some(Op::RequestTxn(self.txn_of(depth + 1))),
            _ => Some(Op::RequestPut(self.put())),
        };
        pb::RequestOp { request }
    }

    fn compare(&mut self) -> pb::Compare {
        let target = self.number(5);
        let number = match self.random.below(4) {
            0 => 0,
            1 => 1,
            _ => self.past(),
        };
        // Mostly the operand that the target asks for.
        let kind = if self.random.one_in(15) { self.number(5) } else { target };
        let operand = match kind {
            0 => Some(TargetUnion::Version(self.random.below(4) as i64)),
            1 => Some(TargetUnion::CreateRevision(number)),
            2 => Some(TargetUnion::ModRevision(number)),
            3 => Some(TargetUnion::Value(self.value())),
            4 => Some(TargetUnion::Lease(number.min(1))),
            _ => None,
        };
        pb::Compare {
            result: self.number(4),
            target,
            key: self.key(),
            range_end: if self.random.one_in(3) { self.range_end() } else { Bytes::new() },
            target_union: if self.random.one_in(25) { None } else { operand },
        }
    }

    /// Around the limits of a request's size and of a message's. The first one
    /// counts a small header in, whose size is each store's own: stay clear of it.
    fn oversized(&mut self) -> Step {
        let size = *self.random.pick(&[1_572_864 - 512, 1_572_864 + 1, 2_097_152 + 10]);
        let value = Bytes::from(vec![b'x'; size]);
        Step::Put(pb::PutRequest { key: self.key(), value, ..Default::default() })
    }

    /// As many operations as are allowed, or one more; at the top or nested.
    fn wide_txn(&mut self) -> pb::TxnRequest {
        let count = *self.random.pick(&[127, 128, 129]);
        let range = pb::RangeRequest { key: "a".into(), ..Default::default() };
        let op = pb::RequestOp { request: Some(Op::RequestRange(range)) };
        let compare = pb::Compare { key: "a".into(), ..Default::default() };
        match self.random.below(5) {
            // Deeper than this our decoder refuses what etcd takes (it goes to 128): a
            // bound that keeps a message from exhausting the stack; see `bad_input`.
            4 => deep_txn(*self.random.pick(&[10, 30, 45])),
            0 => pb::TxnRequest { compare: vec![compare; count], ..Default::default() },
            1 => pb::TxnRequest { success: vec![op; count], ..Default::default() },
            2 => pb::TxnRequest { failure: vec![op; count], ..Default::default() },
            _ => {
                let inner = pb::TxnRequest { success: vec![op; count - 1], ..Default::default() };
                let nested = pb::RequestOp { request: Some(Op::RequestTxn(inner)) };
                pb::TxnRequest { success: vec![nested], ..Default::default() }
            }
        }
    }

    /// Unusual but sound encodings: unknown fields, fields twice and out of order.
    fn odd_encoding(&mut self) -> Step {
        let (first, second) = (Step::Range(self.range()), Step::Range(self.range()));
        let (first, second) = match self.random.below(3) {
            0 => (first, second),
            1 => (Step::Put(self.put()), Step::Put(self.put())),
            _ => (Step::Delete(self.delete()), Step::Delete(self.delete())),
        };
        let mut message = BytesMut::new();
        prost::encoding::string::encode(1999, &"unknown".to_owned(), &mut message);
        message.put(first.message());
        if self.random.one_in(2) {
            message.put(second.message());
        }
        prost::encoding::uint64::encode(77, &self.random.next(), &mut message);
        Step::Raw { path: first.path(), message: message.freeze() }
    }

    /// Bytes that no decoder can take for a message: field number zero, a wire
    /// type that does not exist, a length beyond the end, an endless number.
    fn garbage(&mut self) -> Step {
        let path = *self.random.pick(&[
            "/etcdserverpb.KV/Range",
            "/etcdserverpb.KV/Put",
            "/etcdserverpb.KV/DeleteRange",
            "/etcdserverpb.KV/Txn",
            "/etcdserverpb.KV/Compact",
        ]);
        let tail: &[u8] =
            self.random.pick::<&[u8]>(&[b"\x02\x01a", b"\x0f", b"\x0a\x7fshort", &[0xff; 12]]);
        let mut message = BytesMut::new();
        if self.random.one_in(2) {
            message.put(
                pb::RangeRequest { key: "a".into(), ..Default::default() }
                    .encode_to_vec()
                    .as_slice(),
            );
        }
        message.put(tail);
        Step::Raw { path, message: message.freeze() }
    }

    fn unknown_method(&mut self) -> Step {
        let path = *self.random.pick(&[
            "/etcdserverpb.KV/Nothing",
            "/etcdserverpb.Nothing/Range",
            "/nothing.at.all/X",
        ]);
        Step::Raw { path, message: Step::Range(self.range()).message() }
    }
}

/// Transactions in transactions, `depth` levels of them.
pub fn deep_txn(depth: usize) -> pb::TxnRequest {
    let mut txn = pb::TxnRequest::default();
    for _ in 0..depth {
        let op = pb::RequestOp { request: Some(Op::RequestTxn(txn)) };
        txn = pb::TxnRequest { success: vec![op], ..Default::default() };
    }
    txn
}

fn ops_mut(txn: &mut pb::TxnRequest) -> impl Iterator<Item = &mut Op> {
    txn.success.iter_mut().chain(&mut txn.failure).filter_map(|op| op.request.as_mut())
}

fn has_put(txn: &pb::TxnRequest) -> bool {
    txn.success.iter().chain(&txn.failure).any(|op| match &op.request {
        Some(Op::RequestPut(_)) => true,
        Some(Op::RequestTxn(inner)) => has_put(inner),
        _ => false,
    })
}

fn close_deletes(txn: &mut pb::TxnRequest) {
    for op in ops_mut(txn) {
        match op {
            Op::RequestDeleteRange(delete) if delete.range_end == b"\0"[..] => {
                delete.range_end = Bytes::from_static(b"\xff\xff\xff");
            }
            Op::RequestTxn(inner) => close_deletes(inner),
            _ => {}
        }
    }
}
