//! Keys and values.

use super::range_pages::{PAGE_KEYS, RangePages};
use super::reads::{self, Read};
use super::{Member, outcome};
use crate::desk::{self, DeadlinePassed};
use crate::grpc::{self, Call, Gone, Streaming};
use crate::readers::Busy;
use crate::texts;
use bytes::Bytes;
use prost::Message;
use proto::etcdserverpb as pb;
use replica::{Input, Kind, Proposal, Reply};
use std::sync::Arc;
use store::{Command, Limits, Outcome, Range, Revision, Txn};
use tokio::sync::SemaphorePermit;
use tonic::Status;

/// What etcd adds to a request before it compares with the limit: an id, and the request's place
/// in an envelope.
const ENVELOPE_BYTES: usize = 17;
/// Keys in the first part of a streamed range; later ones are sized by bytes.
const STREAM_KEYS_FIRST: usize = 10;
/// A part of a streamed range is closed once it holds so many bytes: a stream whose client is slow
/// holds no more.
const STREAM_PART_BYTES: usize = 256 << 10;
/// What a read holds while it waits, beside its request.
const READ_OVERHEAD_BYTES: usize = 512;

/// What each call does in the end: it makes the answer of what the store says.
type Answer<M> = fn(&Member, Outcome, Revision) -> Result<M, Status>;

impl Member {
    pub(super) fn range(self: &Arc<Self>, message: Bytes, call: Call) {
        let bytes = message.len();
        match checked_range(message) {
            Ok((range, Freshness::Any)) => self.read(call, Read::Range(range), bytes),
            Ok((range, Freshness::Current)) => self.when_current(call, Read::Range(range), bytes),
            Err(status) => call.refuse(&status),
        }
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
        if !reads::is_read(&self.published.load().view, &txn) {
            let proposal = self.proposal(Kind::Txn, &message);
            return self.propose(call, proposal, |member, outcome, revision| match outcome {
                Outcome::Txn(result) => Ok(outcome::txn(Some(member.header(revision)), result)),
                other => Err(unexpected(&other)),
            });
        }
        match freshness {
            Freshness::Any => self.read(call, Read::Txn(txn), message.len()),
            Freshness::Current => self.when_current(call, Read::Txn(txn), message.len()),
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
    pub(super) async fn range_stream(self: &Arc<Self>, message: Bytes, call: Call) {
        let (pages, _permit) = match grpc::within(call.deadline, self.streamed_range(message)).await
        {
            Ok(pages) => pages,
            Err(status) => return call.refuse(&status),
        };
        let deadline = call.deadline;
        let Some(mut answer) = call.stream() else { return };
        let parts = self.stream_parts(pages, &mut answer);
        match grpc::within(deadline, async { Ok(parts.await) }).await {
            Ok(Ok(())) => answer.end(Ok(())),
            // Dropped, the stream is reset.
            Ok(Err(Gone)) => {}
            Err(status) => answer.end(Err(status)),
        }
    }

    async fn stream_parts(
        &self,
        mut pages: RangePages,
        answer: &mut Streaming,
    ) -> Result<(), Gone> {
        let mut keys_max = STREAM_KEYS_FIRST;
        let bytes_max = self.config.request_bytes_max.min(STREAM_PART_BYTES);
        loop {
            // Before there is room for it a part is not even read.
            answer.room().await?;
            let Some(part) = pages.next(keys_max, bytes_max) else { return Ok(()) };
            let part = pb::RangeStreamResponse { range_response: Some(part) };
            answer.send(&part).await?;
            keys_max = PAGE_KEYS;
        }
    }

    async fn streamed_range(
        &self,
        message: Bytes,
    ) -> Result<(RangePages, Option<SemaphorePermit<'_>>), Status> {
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
        let bytes = message.len();
        let (range, freshness) = checked_range(message)?;
        if freshness == Freshness::Current {
            self.catch_up().await?;
        }
        let permit = if RangePages::is_paged(&range) {
            None
        } else {
            Some(self.edge.whole_streams.try_acquire().map_err(|_| texts::busy())?)
        };
        let published = self.published.load_full();
        let header = self.header_of(&published);
        let pages = move || RangePages::new(header, published.view.clone(), range);
        let pages = self.edge.readers.run(bytes, pages).map_err(|Busy| texts::busy())?;
        Ok((pages.await.expect("a reader thread answers, or the process ends")?, permit))
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
            let result = match reply {
                Ok(Reply::Applied { outcome, revision }) => outcome
                    .map_err(|refusal| texts::refused(&refusal))
                    .map(|outcome| (outcome, revision)),
                Ok(reply) => Err(texts::failed(&reply, texts::Kind::Write)),
                Err(DeadlinePassed) => Err(texts::deadline()),
            };
            call.when_room(move |call| {
                call.answer(
                    result.and_then(|(outcome, revision)| answer(&member, outcome, revision)),
                );
            });
        };
        desk::submit(bytes, deadline, |request| Input::Propose { request, proposal }, next);
    }

    /// Reads once the published state holds everything that was acknowledged before the call.
    fn when_current(self: &Arc<Self>, call: Call, read: Read, bytes: usize) {
        let member = Arc::clone(self);
        let deadline = call.deadline;
        let next = move |reply| match reply {
            Ok(Reply::Readable) => member.read(call, read, bytes),
            Ok(reply) => call.refuse(&texts::failed(&reply, texts::Kind::Read)),
            Err(DeadlinePassed) => call.refuse(&texts::deadline()),
        };
        let held = bytes + READ_OVERHEAD_BYTES;
        desk::submit(held, deadline, |request| Input::Read { request }, next);
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

fn unexpected<T>(_: &T) -> Status {
    Status::internal("an answer of another kind than what was asked")
}
