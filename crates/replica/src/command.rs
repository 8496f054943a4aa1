//! From the wire's requests to the store's. Total: every number and every missing part becomes
//! something that the store knows how to refuse.

use crate::entry::Kind;
use bytes::Bytes;
use prost::Message;
use proto::etcdserverpb as pb;
use proto::etcdserverpb::compare::TargetUnion;
use proto::etcdserverpb::request_op::Request;
use store::{
    Command, Compact, Compare, CompareResult, CompareTarget, DeleteRange, LeaseId, Op, Operand,
    Put, Range, SortOrder, SortTarget, Txn,
};

/// A request that is no protobuf message of its kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed;

/// The command in an entry's body.
///
/// # Errors
/// When the body is no message of its kind, or the kind is none of the store's.
pub fn decode(kind: Kind, body: Bytes) -> Result<Command, Malformed> {
    Ok(match kind {
        Kind::Put => Command::Put(put(parse(body)?)),
        Kind::DeleteRange => Command::DeleteRange(delete_range(parse(body)?)),
        Kind::Txn => Command::Txn(txn(parse(body)?)),
        Kind::Compact => Command::Compact(compact(&parse(body)?)),
        Kind::Publish => return Err(Malformed),
    })
}

pub(crate) fn parse<M: Message + Default>(body: Bytes) -> Result<M, Malformed> {
    M::decode(body).map_err(|_| Malformed)
}

/// A range request.
pub fn range(request: pb::RangeRequest) -> Range {
    Range {
        sort_order: match request.sort_order {
            0 => SortOrder::None,
            1 => SortOrder::Ascend,
            2 => SortOrder::Descend,
            other => SortOrder::Unknown(other),
        },
        sort_target: match request.sort_target {
            0 => SortTarget::Key,
            1 => SortTarget::Version,
            2 => SortTarget::Create,
            3 => SortTarget::Mod,
            4 => SortTarget::Value,
            other => SortTarget::Unknown(other),
        },
        key: request.key,
        range_end: request.range_end,
        limit: request.limit,
        revision: request.revision,
        keys_only: request.keys_only,
        count_only: request.count_only,
        min_mod_revision: request.min_mod_revision,
        max_mod_revision: request.max_mod_revision,
        min_create_revision: request.min_create_revision,
        max_create_revision: request.max_create_revision,
    }
}

/// A put request.
pub fn put(request: pb::PutRequest) -> Put {
    Put {
        key: request.key,
        value: request.value,
        lease: LeaseId(request.lease),
        prev_kv: request.prev_kv,
        ignore_value: request.ignore_value,
        ignore_lease: request.ignore_lease,
    }
}

/// A delete request.
pub fn delete_range(request: pb::DeleteRangeRequest) -> DeleteRange {
    DeleteRange { key: request.key, range_end: request.range_end, prev_kv: request.prev_kv }
}

/// A transaction. As deep as the decoder lets it be, which is bounded.
pub fn txn(request: pb::TxnRequest) -> Txn {
    Txn {
        compare: request.compare.into_iter().map(compare).collect(),
        success: request.success.into_iter().map(op).collect(),
        failure: request.failure.into_iter().map(op).collect(),
    }
}

/// A compaction request; whether it is physical is not the store's business.
pub fn compact(request: &pb::CompactionRequest) -> Compact {
    Compact { revision: request.revision }
}

fn op(op: pb::RequestOp) -> Op {
    match op.request {
        None => Op::Empty,
        Some(Request::RequestRange(request)) => Op::Range(range(request)),
        Some(Request::RequestPut(request)) => Op::Put(put(request)),
        Some(Request::RequestDeleteRange(request)) => Op::DeleteRange(delete_range(request)),
        Some(Request::RequestTxn(request)) => Op::Txn(txn(request)),
    }
}

fn compare(compare: pb::Compare) -> Compare {
    Compare {
        result: match compare.result {
            0 => CompareResult::Equal,
            1 => CompareResult::Greater,
            2 => CompareResult::Less,
            3 => CompareResult::NotEqual,
            other => CompareResult::Unknown(other),
        },
        target: match compare.target {
            0 => CompareTarget::Version,
            1 => CompareTarget::Create,
            2 => CompareTarget::Mod,
            3 => CompareTarget::Value,
            4 => CompareTarget::Lease,
            other => CompareTarget::Unknown(other),
        },
        operand: match compare.target_union {
            None => Operand::None,
            Some(TargetUnion::Version(version)) => Operand::Version(version),
            Some(TargetUnion::CreateRevision(revision)) => Operand::Create(revision),
            Some(TargetUnion::ModRevision(revision)) => Operand::Mod(revision),
            Some(TargetUnion::Value(value)) => Operand::Value(value),
            Some(TargetUnion::Lease(lease)) => Operand::Lease(lease),
        },
        key: compare.key,
        range_end: compare.range_end,
    }
}
