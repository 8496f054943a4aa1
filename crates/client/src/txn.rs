use bytes::Bytes;
use proto::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use proto::etcdserverpb::request_op::Request;
use proto::etcdserverpb::{self as api, RequestOp, TxnRequest};

use crate::{Delete, Get, Put};

/// One operation of a transaction.
#[derive(Clone, Debug, PartialEq)]
pub struct Op(RequestOp);

impl Op {
    fn of(request: Request) -> Op {
        Op(RequestOp { request: Some(request) })
    }
}

impl From<Get> for Op {
    fn from(get: Get) -> Op {
        Op::of(Request::RequestRange(get.request))
    }
}

impl From<Put> for Op {
    fn from(put: Put) -> Op {
        Op::of(Request::RequestPut(put.request))
    }
}

impl From<Delete> for Op {
    fn from(delete: Delete) -> Op {
        Op::of(Request::RequestDeleteRange(delete.request))
    }
}

impl From<Txn> for Op {
    fn from(txn: Txn) -> Op {
        Op::of(Request::RequestTxn(txn.request))
    }
}

/// How a key's property must compare.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Comparison {
    /// Equal to the operand.
    Equal,
    /// Greater than the operand.
    Greater,
    /// Less than the operand.
    Less,
    /// Not equal to the operand.
    NotEqual,
}

/// A condition of a transaction.
#[derive(Clone, Debug, PartialEq)]
pub struct Compare(api::Compare);

impl Compare {
    /// The number of puts since the key was created; 0 for a key that is not there.
    pub fn version(key: impl Into<Bytes>, how: Comparison, operand: i64) -> Compare {
        Compare::of(key.into(), how, CompareTarget::Version, TargetUnion::Version(operand))
    }

    /// The revision at which the key was created; 0 for a key that is not there.
    pub fn create_revision(key: impl Into<Bytes>, how: Comparison, operand: i64) -> Compare {
        Compare::of(key.into(), how, CompareTarget::Create, TargetUnion::CreateRevision(operand))
    }

    /// The revision of the key's last change; 0 for a key that is not there.
    pub fn mod_revision(key: impl Into<Bytes>, how: Comparison, operand: i64) -> Compare {
        Compare::of(key.into(), how, CompareTarget::Mod, TargetUnion::ModRevision(operand))
    }

    /// The value, byte by byte. Never holds for a key that is not there.
    pub fn value(key: impl Into<Bytes>, how: Comparison, operand: impl Into<Bytes>) -> Compare {
        Compare::of(key.into(), how, CompareTarget::Value, TargetUnion::Value(operand.into()))
    }

    /// The lease that the key is attached to; 0 for none.
    pub fn lease(key: impl Into<Bytes>, how: Comparison, operand: i64) -> Compare {
        Compare::of(key.into(), how, CompareTarget::Lease, TargetUnion::Lease(operand))
    }

    /// Must hold for every key from the given one on and before `end`.
    pub fn until(mut self, end: impl Into<Bytes>) -> Compare {
        self.0.range_end = end.into();
        self
    }

    fn of(key: Bytes, how: Comparison, target: CompareTarget, operand: TargetUnion) -> Compare {
        let result = match how {
            Comparison::Equal => CompareResult::Equal,
            Comparison::Greater => CompareResult::Greater,
            Comparison::Less => CompareResult::Less,
            Comparison::NotEqual => CompareResult::NotEqual,
        };
        Compare(api::Compare {
            result: result.into(),
            target: target.into(),
            key,
            target_union: Some(operand),
            range_end: Bytes::new(),
        })
    }
}

/// A transaction: if all conditions hold, one list of operations, else the other, as one change.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Txn {
    pub(crate) request: TxnRequest,
}

impl Txn {
    /// Without conditions or operations.
    pub fn new() -> Txn {
        Txn::default()
    }

    /// Adds a condition.
    pub fn when(mut self, compare: Compare) -> Txn {
        self.request.compare.push(compare.0);
        self
    }

    /// Adds an operation that runs if all conditions hold.
    pub fn then(mut self, op: impl Into<Op>) -> Txn {
        self.request.success.push(op.into().0);
        self
    }

    /// Adds an operation that runs if a condition does not hold.
    pub fn or_else(mut self, op: impl Into<Op>) -> Txn {
        self.request.failure.push(op.into().0);
        self
    }

    pub(crate) fn only_reads(&self) -> bool {
        only_reads(&self.request)
    }
}

fn only_reads(txn: &TxnRequest) -> bool {
    txn.success.iter().chain(&txn.failure).all(|op| match &op.request {
        None | Some(Request::RequestRange(_)) => true,
        Some(Request::RequestTxn(inner)) => only_reads(inner),
        Some(Request::RequestPut(_) | Request::RequestDeleteRange(_)) => false,
    })
}
