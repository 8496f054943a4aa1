//! Keys and values.

use super::{Member, outcome};
use crate::desk::{self, DeadlinePassed};
use crate::grpc::{self, Call};
use crate::texts;
use bytes::Bytes;
use futures_util::stream;
use prost::Message;
use proto::etcdserverpb as pb;
use replica::{Input, Kind, Proposal, Reply};
use std::sync::Arc;
use store::{Command, Limits, Outcome, Range, Revision, Txn};
use tonic::Status;

/// What etcd adds to a request before it compares with the limit: an id, and the request's place
/// in an envelope.
const ENVELOPE_BYTES: usize = 17;
/// Keys in the first part of a streamed range; later ones are sized by bytes.
const STREAM_KEYS_FIRST: usize = 10;

/// What each call does in the end: it makes the answer of what the store says.
type Answer<M> = fn(&Member, Outcome, Revision) -> Result<M, Status>;

impl Member {
    pub(super) fn range(self: &Arc<Self>, message: Bytes, call: Call) {
        match checked_range(message) {
            Ok((range, Freshness::Any)) => call.answer(self.read_range(&range)),
            Ok((range, Freshness::Current)) => {
                self.when_current(call, move |member| member.read_range(&range));
            }
            Err(status) => call.refuse(&status),
        }
    }

    fn read_range(&self, range: &Range) -> Result<pb::RangeResponse, Status> {
        let published = self.published.load();
        let result = published.view.range(range).map_err(|refusal| texts::refused(&refusal))?;
        Ok(outcome::range(Some(self.header_of(&published)), result))
    }

    pub(super) fn put(self: &Arc<Self>, message: Bytes, call: Call) {
        let put = grpc::decode(message.clone()).map(|put| Command::Put(replica::put(put)));
        let checked = put.and_then(|put| self.check(&put));
        let proposal = checked.and_then(|()| self.proposal(Kind::Put, &message));
        self.propose(call, proposal, |member, outcome, revision| match outcome {
            Outcome::Put { prev } => Ok(pb::PutResponse {
                header: Some(member.header(revision)),
                prev_kv: prev.map(outcome::key_value),
            }),
            other => Err(unexpected(&other)),
        });
    }

    pub(super) fn delete_range(self: &Arc<Self>, message: Bytes, call: Call) {
        let delete = grpc::decode(message.clone())
            .map(|delete| Command::DeleteRange(replica::delete_range(delete)));
        let checked = delete.and_then(|delete| self.check(&delete));
        let proposal = checked.and_then(|()| self.proposal(Kind::DeleteRange, &message));
        self.propose(call, proposal, |member, outcome, revision| match outcome {
            Outcome::DeleteRange { deleted, prevs } => Ok(pb::DeleteRangeResponse {
                header: Some(member.header(revision)),
                deleted,
                prev_kvs: prevs.into_iter().map(outcome::key_value).collect(),
            }),
            other => Err(unexpected(&other)),
        });
    }

    pub(super) fn txn(self: &Arc<Self>, message: Bytes, call: Call) {
        let (txn, freshness) = match self.checked_txn(message.clone()) {
            Ok(checked) => checked,
            Err(status) => return call.refuse(&status),
        };
        if !txn.is_read_only() {
            let proposal = self.proposal(Kind::Txn, &message);
            return self.propose(call, proposal, |member, outcome, revision| match outcome {
                Outcome::Txn(result) => Ok(outcome::txn(Some(member.header(revision)), result)),
                other => Err(unexpected(&other)),
            });
        }
        match freshness {
            Freshness::Any => call.answer(self.read_txn(&txn)),
            Freshness::Current => self.when_current(call, move |member| member.read_txn(&txn)),
        }
    }

    fn checked_txn(&self, message: Bytes) -> Result<(Txn, Freshness), Status> {
        let request: pb::TxnRequest = grpc::decode(message)?;
        let freshness = if is_serializable(&request) { Freshness::Any } else { Freshness::Current };
        let command = Command::Txn(replica::txn(request));
        self.check(&command)?;
        let Command::Txn(txn) = command else { unreachable!("made so above") };
        Ok((txn, freshness))
    }

    fn read_txn(&self, txn: &Txn) -> Result<pb::TxnResponse, Status> {
        let published = self.published.load();
        let result = published.view.txn(txn).map_err(|refusal| texts::refused(&refusal))?;
        Ok(outcome::txn(Some(self.header_of(&published)), result))
    }

    pub(super) fn compact(self: &Arc<Self>, message: Bytes, call: Call) {
        let proposal = grpc::decode(message.clone()).and_then(|request: pb::CompactionRequest| {
            let proposal = self.proposal(Kind::Compact, &message)?;
            Ok(if request.physical { proposal.physical() } else { proposal })
        });
        self.propose(call, proposal, |member, outcome, revision| match outcome {
            Outcome::Compact => {
                Ok(pb::CompactionResponse { header: Some(member.header(revision)) })
            }
            other => Err(unexpected(&other)),
        });
    }

    /// A range in parts, all of one revision; the last part has header and counts.
    pub(super) async fn range_stream(&self, message: Bytes, call: Call) {
        match grpc::within(call.deadline, self.streamed_range(message)).await {
            Ok(whole) => {
                let parts = parts(whole, self.config.request_bytes_max).map(|part| {
                    grpc::frame(&pb::RangeStreamResponse { range_response: Some(part) })
                });
                call.stream(stream::iter(parts)).await;
            }
            Err(status) => call.refuse(&status),
        }
    }

    async fn streamed_range(&self, message: Bytes) -> Result<pb::RangeResponse, Status> {
        let request: pb::RangeRequest = grpc::decode(message.clone())?;
        let ascending = matches!((request.sort_order, request.sort_target), (0, _) | (1, 0));
        let filtered = request.min_mod_revision != 0
            || request.max_mod_revision != 0
            || request.min_create_revision != 0
            || request.max_create_revision != 0;
        let key_given = !request.key.is_empty();
        if key_given && !ascending {
            let why = "RangeStream does not support custom sort orders";
            return Err(Status::unimplemented(why));
        }
        if key_given && filtered {
            let why = "RangeStream does not support revision filters";
            return Err(Status::unimplemented(why));
        }
        let (range, freshness) = checked_range(message)?;
        if freshness == Freshness::Current {
            self.catch_up().await?;
        }
        self.read_range(&range)
    }

    fn check(&self, command: &Command) -> Result<(), Status> {
        let limits = Limits { txn_ops_max: self.config.txn_ops_max };
        command.check(&limits).map_err(|refusal| texts::refused(&refusal))
    }

    /// A request for the log, as its bytes came.
    fn proposal(&self, kind: Kind, message: &[u8]) -> Result<Proposal, Status> {
        if message.len() + ENVELOPE_BYTES > self.config.request_bytes_max {
            return Err(texts::too_large());
        }
        Ok(Proposal::encoded(kind, message))
    }

    /// Has a write replicated and applied, then answers.
    fn propose<M: Message + 'static>(
        self: &Arc<Self>,
        call: Call,
        proposal: Result<Proposal, Status>,
        answer: Answer<M>,
    ) {
        let proposal = match proposal {
            Ok(proposal) => proposal,
            Err(status) => return call.refuse(&status),
        };
        let member = Arc::clone(self);
        let (bytes, deadline) = (proposal.request_bytes(), call.deadline);
        let next = move |reply| {
            call.answer(match reply {
                Ok(Reply::Applied { outcome: Ok(outcome), revision }) => {
                    answer(&member, outcome, revision)
                }
                Ok(Reply::Applied { outcome: Err(refusal), .. }) => Err(texts::refused(&refusal)),
                Ok(reply) => Err(texts::failed(&reply, texts::Kind::Write)),
                Err(DeadlinePassed) => Err(texts::deadline()),
            });
        };
        desk::submit(bytes, deadline, |request| Input::Propose { request, proposal }, next);
    }

    /// Reads once the published state holds everything that was acknowledged before the call.
    fn when_current<M: Message>(
        self: &Arc<Self>,
        call: Call,
        read: impl FnOnce(&Member) -> Result<M, Status> + 'static,
    ) {
        let member = Arc::clone(self);
        let deadline = call.deadline;
        let next = move |reply| {
            call.answer(match reply {
                Ok(Reply::Readable) => read(&member),
                Ok(reply) => Err(texts::failed(&reply, texts::Kind::Read)),
                Err(DeadlinePassed) => Err(texts::deadline()),
            });
        };
        desk::submit(0, deadline, |request| Input::Read { request }, next);
    }
}

/// What a read must see.
#[derive(PartialEq, Eq)]
enum Freshness {
    /// Whatever this member has.
    Any,
    /// Everything that was acknowledged.
    Current,
}

fn checked_range(message: Bytes) -> Result<(Range, Freshness), Status> {
    let request: pb::RangeRequest = grpc::decode(message)?;
    let freshness = if request.serializable { Freshness::Any } else { Freshness::Current };
    let range = replica::range(request);
    range.check().map_err(|refusal| texts::refused(&refusal))?;
    Ok((range, freshness))
}

/// Whether every range of the transaction may be answered from local state. One without ranges
/// may not: it reads too, with its conditions.
fn is_serializable(request: &pb::TxnRequest) -> bool {
    use pb::request_op::Request;
    let mut ops = request.success.iter().chain(&request.failure).peekable();
    ops.peek().is_some()
        && ops.all(
            |op| matches!(&op.request, Some(Request::RequestRange(range)) if range.serializable),
        )
}

/// Cuts an answer into parts that merge to the whole.
fn parts(
    whole: pb::RangeResponse,
    bytes_max: usize,
) -> impl Iterator<Item = pb::RangeResponse> + Send + 'static {
    let pb::RangeResponse { header, kvs, more, count } = whole;
    let mut last = Some(pb::RangeResponse { header, kvs: Vec::new(), more, count });
    let mut kvs = kvs.into_iter().peekable();
    let mut keys_max = STREAM_KEYS_FIRST;
    std::iter::from_fn(move || {
        last.as_ref()?;
        let mut part = Vec::new();
        let mut bytes = 0;
        while part.len() < keys_max
            && bytes < bytes_max
            && let Some(kv) = kvs.next()
        {
            bytes += kv.key.len() + kv.value.len() + 32;
            part.push(kv);
        }
        keys_max = usize::MAX;
        if kvs.peek().is_some() {
            return Some(pb::RangeResponse { kvs: part, ..pb::RangeResponse::default() });
        }
        last.take().map(|last| pb::RangeResponse { kvs: part, ..last })
    })
}

fn unexpected<T>(_: &T) -> Status {
    Status::internal("an answer of another kind than what was asked")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_merge_to_the_whole() {
        for (keys, value) in [(0, 1), (1, 1), (10, 1), (11, 1), (100, 300)] {
            let kv = |n: usize| proto::mvccpb::KeyValue {
                key: n.to_string().into(),
                value: vec![7; value].into(),
                ..Default::default()
            };
            let whole = pb::RangeResponse {
                header: Some(pb::ResponseHeader { revision: 9, ..Default::default() }),
                kvs: (0..keys).map(kv).collect(),
                more: true,
                count: 500,
            };
            let parts: Vec<_> = parts(whole.clone(), 1000).collect();
            assert!(parts[0].kvs.len() <= STREAM_KEYS_FIRST);
            let (last, others) = parts.split_last().unwrap();
            assert!(others.iter().all(|part| part.header.is_none() && part.count == 0));
            let merged: Vec<_> = parts.iter().flat_map(|part| part.kvs.clone()).collect();
            assert_eq!(pb::RangeResponse { kvs: merged, ..last.clone() }, whole);
        }
    }
}
