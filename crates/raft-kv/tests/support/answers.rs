//! Requests and answers on the wire, as the checker of histories takes them.

use proto::etcdserverpb as pb;
use proto::etcdserverpb::response_op::Response;
use proto::mvccpb;
use sim::check::linearizability::{Answer, Request};
use store::{Command, KeyValue, LeaseId, OpOutcome, Outcome, RangeResult, Revision, TxnOutcome};
use tonic::Status;

use crate::support::kv::Connection;

/// A request that can be sent.
pub enum Asked {
    Range(pb::RangeRequest),
    Put(pb::PutRequest),
    DeleteRange(pb::DeleteRangeRequest),
    Txn(pb::TxnRequest),
}

impl Asked {
    pub fn request(&self) -> Request {
        match self {
            Asked::Range(range) => Request::Range(replica::range(range.clone())),
            Asked::Put(put) => Request::Command(Command::Put(replica::put(put.clone()))),
            Asked::DeleteRange(delete) => {
                Request::Command(Command::DeleteRange(replica::delete_range(delete.clone())))
            }
            Asked::Txn(txn) => Request::Command(Command::Txn(replica::txn(txn.clone()))),
        }
    }

    pub async fn send(self, connection: &Connection) -> Result<Answer, Status> {
        Ok(match self {
            Asked::Range(request) => {
                let answer = connection.range(request).await?;
                let revision = revision(answer.header.as_ref());
                Answer::Range(range(answer), revision)
            }
            Asked::Put(request) => {
                let answer = connection.put(request).await?;
                let prev = answer.prev_kv.map(key_value);
                Answer::Done(Outcome::Put { prev }, revision(answer.header.as_ref()))
            }
            Asked::DeleteRange(request) => {
                let answer = connection.delete(request).await?;
                let revision = revision(answer.header.as_ref());
                let (deleted, prevs) = (answer.deleted, key_values(answer.prev_kvs));
                Answer::Done(Outcome::DeleteRange { deleted, prevs }, revision)
            }
            Asked::Txn(request) => {
                let answer = connection.txn(request).await?;
                let revision = revision(answer.header.as_ref());
                Answer::Done(Outcome::Txn(txn(answer)), revision)
            }
        })
    }
}

fn revision(header: Option<&pb::ResponseHeader>) -> Revision {
    Revision(header.expect("an answer has a header").revision)
}

fn range(answer: pb::RangeResponse) -> RangeResult {
    RangeResult { kvs: key_values(answer.kvs), more: answer.more, count: answer.count }
}

fn txn(answer: pb::TxnResponse) -> TxnOutcome {
    let responses = answer.responses.into_iter().map(step).collect();
    TxnOutcome { succeeded: answer.succeeded, responses }
}

fn step(answer: pb::ResponseOp) -> OpOutcome {
    match answer.response.expect("a step has an answer") {
        Response::ResponseRange(answer) => {
            let revision = revision(answer.header.as_ref());
            OpOutcome::Range { revision, result: range(answer) }
        }
        Response::ResponsePut(answer) => {
            let revision = revision(answer.header.as_ref());
            OpOutcome::Put { revision, prev: answer.prev_kv.map(key_value) }
        }
        Response::ResponseDeleteRange(answer) => OpOutcome::DeleteRange {
            revision: revision(answer.header.as_ref()),
            deleted: answer.deleted,
            prevs: key_values(answer.prev_kvs),
        },
        Response::ResponseTxn(answer) => OpOutcome::Txn(txn(answer)),
    }
}

fn key_values(kvs: Vec<mvccpb::KeyValue>) -> Vec<KeyValue> {
    kvs.into_iter().map(key_value).collect()
}

fn key_value(kv: mvccpb::KeyValue) -> KeyValue {
    KeyValue {
        key: kv.key,
        create_revision: Revision(kv.create_revision),
        mod_revision: Revision(kv.mod_revision),
        version: kv.version,
        value: kv.value,
        lease: LeaseId(kv.lease),
    }
}
