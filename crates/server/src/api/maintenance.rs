//! How this member is.

use super::{API_VERSION, Member};
use crate::{desk, texts};
use proto::etcdserverpb as pb;
use raft::NodeId;
use replica::{Input, Reply};
use tonic::Status;

impl Member {
    pub(super) async fn status(&self, _: pb::StatusRequest) -> Result<pb::StatusResponse, Status> {
        let published = self.published.load_full();
        let status = published.status;
        let bytes = i64::try_from(published.view.bytes()).unwrap_or(i64::MAX);
        let mut errors = Vec::new();
        if status.leader.is_none() {
            errors.push("etcdserver: no leader".to_owned());
        }
        Ok(pb::StatusResponse {
            header: Some(self.header(published.view.revision())),
            version: API_VERSION.to_owned(),
            db_size: bytes,
            leader: status.leader.map_or(0, |leader| leader.0),
            raft_index: status.commit.0,
            raft_term: status.term.0,
            raft_applied_index: status.applied.0,
            errors,
            db_size_in_use: bytes,
            is_learner: false,
            storage_version: API_VERSION.to_owned(),
            db_size_quota: self.config.quota_bytes,
            downgrade_info: Some(pb::DowngradeInfo::default()),
        })
    }

    /// There are no alarms here: none is listed, none can be lifted, and none raised by hand.
    pub(super) async fn alarm(
        &self,
        request: pb::AlarmRequest,
    ) -> Result<pb::AlarmResponse, Status> {
        if request.action() == pb::alarm_request::AlarmAction::Activate {
            return Err(Status::unimplemented("raft-kv has no alarms to raise yet"));
        }
        let revision = self.published.load().view.revision();
        Ok(pb::AlarmResponse { header: Some(self.header(revision)), alarms: Vec::new() })
    }

    pub(super) async fn move_leader(
        &self,
        request: pb::MoveLeaderRequest,
    ) -> Result<pb::MoveLeaderResponse, Status> {
        let to = Some(NodeId(request.target_id));
        let status = self.published.load().status;
        if status.leader == Some(status.id) && to == status.leader {
            return Err(Status::failed_precondition("etcdserver: bad leader transferee"));
        }
        match desk::ask(0, |request| Input::Transfer { request, to }).await {
            Reply::Transferred(_) => Ok(pb::MoveLeaderResponse { header: None }),
            Reply::TimedOut => {
                Err(Status::unknown("etcdserver: request timed out, leader transfer took too long"))
            }
            reply => Err(texts::failed(&reply, texts::Kind::Read)),
        }
    }
}
