//! What the store answers, as clients read it.

use proto::etcdserverpb as pb;
use proto::mvccpb;
use store::{KeyValue, OpOutcome, RangeResult, Revision, TxnOutcome};

pub(super) fn key_value(kv: KeyValue) -> mvccpb::KeyValue {
    mvccpb::KeyValue {
        key: kv.key,
        create_revision: kv.create_revision.0,
        mod_revision: kv.mod_revision.0,
        version: kv.version,
        value: kv.value,
        lease: kv.lease.0,
    }
}

pub(super) fn range(header: Option<pb::ResponseHeader>, result: RangeResult) -> pb::RangeResponse {
    let kvs = result.kvs.into_iter().map(key_value).collect();
    pb::RangeResponse { header, kvs, more: result.more, count: result.count }
}

pub(super) fn txn(header: Option<pb::ResponseHeader>, result: TxnOutcome) -> pb::TxnResponse {
    let responses = result.responses.into_iter().map(op).collect();
    pb::TxnResponse { header, succeeded: result.succeeded, responses }
}

/// The answer to one step. Its header has a revision and nothing else, and that of a nested
/// transaction not even that: etcd's habit, which clients know.
fn op(outcome: OpOutcome) -> pb::ResponseOp {
    use pb::response_op::Response;
    let header = |revision: Revision| {
        Some(pb::ResponseHeader { revision: revision.0, ..pb::ResponseHeader::default() })
    };
    let response = match outcome {
        OpOutcome::Range { revision, result } => {
            Response::ResponseRange(range(header(revision), result))
        }
        OpOutcome::Put { revision, prev } => Response::ResponsePut(pb::PutResponse {
            header: header(revision),
            prev_kv: prev.map(key_value),
        }),
        OpOutcome::DeleteRange { revision, deleted, prevs } => {
            Response::ResponseDeleteRange(pb::DeleteRangeResponse {
                header: header(revision),
                deleted,
                prev_kvs: prevs.into_iter().map(key_value).collect(),
            })
        }
        OpOutcome::Txn(result) => {
            Response::ResponseTxn(txn(Some(pb::ResponseHeader::default()), result))
        }
    };
    pb::ResponseOp { response: Some(response) }
}
