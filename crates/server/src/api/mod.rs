//! What clients may ask: etcd's v3 API.

mod cluster;
mod health;
mod kv;
mod maintenance;
mod outcome;
mod range_pages;
mod reads;

use crate::config::Config;
use crate::connection::{ClientConnection, Edge};
use crate::grpc::{self, Call, Incoming};
use crate::identity::Id;
use crate::{desk, texts};
use arc_swap::ArcSwap;
use bytes::Bytes;
use h2::RecvStream;
use h2::server::SendResponse;
use http::{HeaderMap, Request};
use proto::etcdserverpb::ResponseHeader;
use replica::{Input, Published, Reply};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll, Waker};
use store::Revision;
use tonic::Status;

/// The version of etcd whose API this is. Clients parse it, and choose what to use by it.
pub const API_VERSION: &str = "3.7.0";
/// A request may be so much larger on the wire than [`Config::request_bytes_max`]: etcd's slack.
const RECEIVE_SLACK_BYTES: usize = 512 << 10;

/// What a request that waits until this member has caught up holds.
const CATCH_UP_BYTES: usize = 512;

/// What every request of every thread sees of the member.
pub struct Member {
    /// The settings.
    pub config: Arc<Config>,
    /// The state, as of the last round of the node.
    pub published: Arc<ArcSwap<Published>>,
    /// The longest turn of the node's loop in the last minute or two, in microseconds.
    pub longest_turn: Arc<AtomicU64>,
    /// What the connections of all clients share.
    pub edge: Arc<Edge>,
    /// The member is stopping: it answers, but wants no more requests.
    pub stopping: AtomicBool,
}

/// What can be called.
#[derive(Clone, Copy)]
enum Method {
    Put,
    Range,
    Txn,
    DeleteRange,
    Compact,
    Rare(Rare),
}

#[derive(Clone, Copy)]
enum Rare {
    RangeStream,
    MemberList,
    Status,
    Alarm,
    MoveLeader,
    HealthCheck,
    HealthWatch,
}

impl Method {
    fn of(path: &str) -> Option<Method> {
        Some(match path {
            "/etcdserverpb.KV/Put" => Method::Put,
            "/etcdserverpb.KV/Range" => Method::Range,
            "/etcdserverpb.KV/Txn" => Method::Txn,
            "/etcdserverpb.KV/DeleteRange" => Method::DeleteRange,
            "/etcdserverpb.KV/Compact" => Method::Compact,
            "/etcdserverpb.KV/RangeStream" => Method::Rare(Rare::RangeStream),
            "/etcdserverpb.Cluster/MemberList" => Method::Rare(Rare::MemberList),
            "/etcdserverpb.Maintenance/Status" => Method::Rare(Rare::Status),
            "/etcdserverpb.Maintenance/Alarm" => Method::Rare(Rare::Alarm),
            "/etcdserverpb.Maintenance/MoveLeader" => Method::Rare(Rare::MoveLeader),
            "/grpc.health.v1.Health/Check" => Method::Rare(Rare::HealthCheck),
            "/grpc.health.v1.Health/Watch" => Method::Rare(Rare::HealthWatch),
            _ => return None,
        })
    }
}

impl Member {
    /// Takes one call. It is answered as soon as it can be, on this thread.
    pub fn take(
        self: &Arc<Self>,
        connection: &Arc<ClientConnection>,
        request: Request<RecvStream>,
        respond: SendResponse<Bytes>,
    ) {
        let (head, body) = request.into_parts();
        let call = Call::new(respond, &head.headers, connection);
        if let Err(status) = self.admit(&head.headers) {
            return call.refuse(&status);
        }
        let Some(method) = Method::of(head.uri.path()) else {
            return call.refuse(&texts::unimplemented(head.uri.path()));
        };
        let bytes_max = self.config.request_bytes_max + RECEIVE_SLACK_BYTES;
        let mut incoming = Incoming::new(body, &head.headers, bytes_max, connection);
        match incoming.poll_message(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(message) => self.dispatch(method, message, call),
            // Large, or from a slow client: the rest is on its way.
            Poll::Pending => {
                let member = Arc::clone(self);
                tokio::spawn(async move {
                    let message = incoming.message(call.deadline).await;
                    member.dispatch(method, message, call);
                });
            }
        }
    }

    /// What is checked before anything else.
    fn admit(&self, headers: &HeaderMap) -> Result<(), Status> {
        if let Some(version) = headers.get("client-api-version")
            && std::str::from_utf8(version.as_bytes()).is_err()
        {
            return Err(Status::invalid_argument("etcdserver: invalid client api version"));
        }
        let wants_leader = headers.get("hasleader").is_some_and(|value| value == "true");
        if wants_leader && self.published.load().status.leader.is_none() {
            return Err(texts::no_leader());
        }
        if self.stopping.load(Ordering::Relaxed) {
            return Err(Status::unavailable("etcdserver: server stopped"));
        }
        Ok(())
    }

    fn dispatch(self: &Arc<Self>, method: Method, message: Result<Bytes, Status>, call: Call) {
        let message = match message {
            Ok(message) => message,
            Err(status) => return call.refuse(&status),
        };
        match method {
            Method::Put => self.put(message, call),
            Method::Range => self.range(message, call),
            Method::Txn => self.txn(message, call),
            Method::DeleteRange => self.delete_range(message, call),
            Method::Compact => self.compact(message, call),
            Method::Rare(rare) => {
                tokio::spawn(Arc::clone(self).answer_rare(rare, message, call));
            }
        }
    }

    /// Calls that need not be cheap, each a task.
    async fn answer_rare(self: Arc<Self>, method: Rare, message: Bytes, call: Call) {
        macro_rules! unary {
            ($method:ident) => {
                call.answer_with(async { self.$method(grpc::decode(message)?).await }).await
            };
        }
        match method {
            Rare::RangeStream => self.range_stream(message, call).await,
            Rare::MemberList => unary!(member_list),
            Rare::Status => unary!(status),
            Rare::Alarm => unary!(alarm),
            Rare::MoveLeader => unary!(move_leader),
            Rare::HealthCheck => unary!(health_check),
            Rare::HealthWatch => match grpc::decode(message) {
                Ok(request) => self.health_watch(request, call).await,
                Err(status) => call.refuse(&status),
            },
        }
    }

    /// The header of an answer at this revision.
    fn header(&self, revision: Revision) -> ResponseHeader {
        ResponseHeader { revision: revision.0, ..self.header_without_revision() }
    }

    /// The header of an answer read from this state.
    fn header_of(&self, published: &Published) -> ResponseHeader {
        let revision = published.view.revision().0;
        let raft_term = published.status.term.0;
        ResponseHeader { revision, raft_term, ..self.ids() }
    }

    fn ids(&self) -> ResponseHeader {
        let Id(cluster_id) = self.config.cluster_id;
        let Id(member_id) = self.config.member_id;
        ResponseHeader { cluster_id, member_id, ..ResponseHeader::default() }
    }

    fn header_without_revision(&self) -> ResponseHeader {
        let raft_term = self.published.load().status.term.0;
        ResponseHeader { raft_term, ..self.ids() }
    }

    /// Returns once the published state holds everything that was acknowledged before the call.
    ///
    /// # Errors
    /// When that cannot be found out.
    pub async fn catch_up(&self) -> Result<(), Status> {
        match desk::ask(CATCH_UP_BYTES, |request| Input::Read { request }).await {
            Reply::Readable => Ok(()),
            reply => Err(texts::failed(&reply, texts::Kind::Read)),
        }
    }
}
