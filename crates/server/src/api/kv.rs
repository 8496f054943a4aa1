//! Keys and values.

use super::{Member, outcome};
use crate::grpc::{self, Answer};
use crate::{desk, texts};
use futures_util::stream;
use http::Response;
use proto::etcdserverpb as pb;
use replica::{Input, Kind, Proposal, Reply};
use store::{Command, Limits, Outcome, Revision};
use tonic::Status;

/// What etcd adds to a request before it compares with the limit: an id, and the request's place
/// in an envelope.
const ENVELOPE_BYTES: usize = 17;
/// Keys in the first part of a streamed range; later ones are sized by bytes.
const STREAM_KEYS_FIRST: usize = 10;

impl Member {
    pub(super) async fn range(
        &self,
        request: pb::RangeRequest,
    ) -> Result<pb::RangeResponse, Status> {
        let serializable = request.serializable;
        let range = replica::range(request);
        range.check().map_err(|refusal| texts::refused(&refusal))?;
        if !serializable {
            self.catch_up().await?;
        }
        let published = self.published.load_full();
        let result = published.view.range(&range).map_err(|refusal| texts::refused(&refusal))?;
        Ok(outcome::range(Some(self.header(published.view.revision())), result))
    }

    pub(super) async fn put(&self, request: pb::PutRequest) -> Result<pb::PutResponse, Status> {
        self.check(&Command::Put(replica::put(request.clone())))?;
        match self.propose(Proposal::new(Kind::Put, &request)).await? {
            (Outcome::Put { prev }, revision) => Ok(pb::PutResponse {
                header: Some(self.header(revision)),
                prev_kv: prev.map(outcome::key_value),
            }),
            other => Err(unexpected(&other)),
        }
    }

    pub(super) async fn delete_range(
        &self,
        request: pb::DeleteRangeRequest,
    ) -> Result<pb::DeleteRangeResponse, Status> {
        self.check(&Command::DeleteRange(replica::delete_range(request.clone())))?;
        match self.propose(Proposal::new(Kind::DeleteRange, &request)).await? {
            (Outcome::DeleteRange { deleted, prevs }, revision) => Ok(pb::DeleteRangeResponse {
                header: Some(self.header(revision)),
                deleted,
                prev_kvs: prevs.into_iter().map(outcome::key_value).collect(),
            }),
            other => Err(unexpected(&other)),
        }
    }

    pub(super) async fn txn(&self, request: pb::TxnRequest) -> Result<pb::TxnResponse, Status> {
        let txn = replica::txn(request.clone());
        let command = Command::Txn(txn);
        self.check(&command)?;
        let Command::Txn(txn) = command else { unreachable!("made so above") };
        if !txn.is_read_only() {
            return match self.propose(Proposal::new(Kind::Txn, &request)).await? {
                (Outcome::Txn(result), revision) => {
                    Ok(outcome::txn(Some(self.header(revision)), result))
                }
                other => Err(unexpected(&other)),
            };
        }
        if !is_serializable(&request) {
            self.catch_up().await?;
        }
        let published = self.published.load_full();
        let result = published.view.txn(&txn).map_err(|refusal| texts::refused(&refusal))?;
        Ok(outcome::txn(Some(self.header(published.view.revision())), result))
    }

    pub(super) async fn compact(
        &self,
        request: pb::CompactionRequest,
    ) -> Result<pb::CompactionResponse, Status> {
        let mut proposal = Proposal::new(Kind::Compact, &request);
        if request.physical {
            proposal = proposal.physical();
        }
        match self.propose(proposal).await? {
            (Outcome::Compact, revision) => {
                Ok(pb::CompactionResponse { header: Some(self.header(revision)) })
            }
            other => Err(unexpected(&other)),
        }
    }

    /// A range in parts, all of one revision; the last part has header and counts.
    pub(super) async fn range_stream(&self, request: pb::RangeRequest) -> Response<Answer> {
        let ascending = matches!((request.sort_order, request.sort_target), (0, _) | (1, 0));
        let filtered = request.min_mod_revision != 0
            || request.max_mod_revision != 0
            || request.min_create_revision != 0
            || request.max_create_revision != 0;
        let key_given = !request.key.is_empty();
        if key_given && !ascending {
            return grpc::refusal(&Status::unimplemented(
                "RangeStream does not support custom sort orders",
            ));
        }
        if key_given && filtered {
            return grpc::refusal(&Status::unimplemented(
                "RangeStream does not support revision filters",
            ));
        }
        match self.range(request).await {
            Ok(whole) => {
                let bytes_max = self.config.request_bytes_max;
                grpc::streaming(stream::iter(parts(whole, bytes_max).map(|part| {
                    let part = pb::RangeStreamResponse { range_response: Some(part) };
                    Ok(grpc::frame(&part))
                })))
            }
            Err(status) => grpc::refusal(&status),
        }
    }

    fn check(&self, command: &Command) -> Result<(), Status> {
        let limits = Limits { txn_ops_max: self.config.txn_ops_max };
        command.check(&limits).map_err(|refusal| texts::refused(&refusal))
    }

    /// Has a write replicated and applied.
    async fn propose(&self, proposal: Proposal) -> Result<(Outcome, Revision), Status> {
        let bytes = proposal.request_bytes();
        if bytes + ENVELOPE_BYTES > self.config.request_bytes_max {
            return Err(texts::too_large());
        }
        match desk::ask(bytes, |request| Input::Propose { request, proposal }).await {
            Reply::Applied { outcome: Ok(outcome), revision } => Ok((outcome, revision)),
            Reply::Applied { outcome: Err(refusal), .. } => Err(texts::refused(&refusal)),
            reply => Err(texts::failed(&reply, texts::Kind::Write)),
        }
    }
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
