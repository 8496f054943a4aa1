//! Who the members are.

use super::Member;
use proto::etcdserverpb as pb;
use tonic::Status;

impl Member {
    pub(super) async fn member_list(
        &self,
        request: pb::MemberListRequest,
    ) -> Result<pb::MemberListResponse, Status> {
        if request.linearizable {
            self.catch_up().await?;
        }
        let members = self
            .published
            .load()
            .members
            .iter()
            .map(|member| pb::Member {
                id: member.id.0,
                name: member.name.clone(),
                peer_urls: member.peer_urls.clone(),
                client_urls: member.client_urls.clone(),
                is_learner: member.is_learner,
            })
            .collect();
        Ok(pb::MemberListResponse { header: Some(self.header_without_revision()), members })
    }
}
