//! What clients may ask: etcd's v3 API.

mod cluster;
mod health;
mod kv;
mod maintenance;
mod outcome;

use crate::config::Config;
use crate::grpc::{self, Answer};
use crate::identity::Id;
use crate::{desk, texts};
use arc_swap::ArcSwap;
use http::{HeaderMap, Request, Response};
use hyper::body::Incoming;
use proto::etcdserverpb::ResponseHeader;
use replica::{Input, Published, Reply};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use store::Revision;
use tonic::Status;

/// The version of etcd whose API this is. Clients parse it, and choose what to use by it.
pub const API_VERSION: &str = "3.7.0";
/// A request may be so much larger on the wire than [`Config::request_bytes_max`]: etcd's slack.
const RECEIVE_SLACK_BYTES: usize = 512 << 10;

/// What every request of every thread sees of the member.
pub struct Member {
    /// The settings.
    pub config: Arc<Config>,
    /// The state, as of the last round of the node.
    pub published: Arc<ArcSwap<Published>>,
    /// The member is stopping: it answers, but wants no more requests.
    pub stopping: AtomicBool,
}

impl Member {
    /// Answers one call.
    pub async fn call(self: &Arc<Self>, request: Request<Incoming>) -> Response<Answer> {
        let timeout = grpc::timeout(request.headers());
        if let Err(status) = self.admit(request.headers()) {
            return grpc::refusal(&status);
        }
        match timeout {
            None => self.dispatch(request).await,
            Some(timeout) => match tokio::time::timeout(timeout, self.dispatch(request)).await {
                Ok(response) => response,
                Err(_) => grpc::refusal(&texts::deadline()),
            },
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

    async fn dispatch(self: &Arc<Self>, request: Request<Incoming>) -> Response<Answer> {
        macro_rules! unary {
            ($method:ident) => {
                match grpc::read(request, self.receive_bytes_max()).await {
                    Ok(message) => grpc::unary(self.$method(message).await),
                    Err(status) => grpc::refusal(&status),
                }
            };
        }
        match request.uri().path() {
            "/etcdserverpb.KV/Put" => unary!(put),
            "/etcdserverpb.KV/Range" => unary!(range),
            "/etcdserverpb.KV/Txn" => unary!(txn),
            "/etcdserverpb.KV/DeleteRange" => unary!(delete_range),
            "/etcdserverpb.KV/Compact" => unary!(compact),
            "/etcdserverpb.KV/RangeStream" => {
                match grpc::read(request, self.receive_bytes_max()).await {
                    Ok(message) => self.range_stream(message).await,
                    Err(status) => grpc::refusal(&status),
                }
            }
            "/etcdserverpb.Cluster/MemberList" => unary!(member_list),
            "/etcdserverpb.Maintenance/Status" => unary!(status),
            "/etcdserverpb.Maintenance/Alarm" => unary!(alarm),
            "/etcdserverpb.Maintenance/MoveLeader" => unary!(move_leader),
            "/grpc.health.v1.Health/Check" => unary!(health_check),
            "/grpc.health.v1.Health/Watch" => {
                match grpc::read(request, self.receive_bytes_max()).await {
                    Ok(message) => Arc::clone(self).health_watch(message),
                    Err(status) => grpc::refusal(&status),
                }
            }
            path => grpc::refusal(&texts::unimplemented(path)),
        }
    }

    fn receive_bytes_max(&self) -> usize {
        self.config.request_bytes_max + RECEIVE_SLACK_BYTES
    }

    /// The header of an answer at this revision.
    fn header(&self, revision: Revision) -> ResponseHeader {
        ResponseHeader { revision: revision.0, ..self.header_without_revision() }
    }

    fn header_without_revision(&self) -> ResponseHeader {
        let Id(cluster_id) = self.config.cluster_id;
        let Id(member_id) = self.config.member_id;
        let raft_term = self.published.load().status.term.0;
        ResponseHeader { cluster_id, member_id, revision: 0, raft_term }
    }

    /// Returns once the published state holds everything that was acknowledged before the call.
    ///
    /// # Errors
    /// When that cannot be found out.
    pub async fn catch_up(&self) -> Result<(), Status> {
        match desk::ask(0, |request| Input::Read { request }).await {
            Reply::Readable => Ok(()),
            reply => Err(texts::failed(&reply, texts::Kind::Read)),
        }
    }
}
