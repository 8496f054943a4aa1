//! gRPC's health check: only the server as a whole has a state.

use super::Member;
use crate::grpc;
use bytes::Bytes;
use futures_util::{Stream, stream};
use proto::health as pb;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tonic::Status;

/// How long a change of state may take to be told.
const POLL_INTERVAL: Duration = Duration::from_millis(500);

impl Member {
    fn serving(&self) -> pb::HealthCheckResponse {
        use pb::health_check_response::ServingStatus;
        let status = if self.stopping.load(Ordering::Relaxed) {
            ServingStatus::NotServing
        } else {
            ServingStatus::Serving
        };
        pb::HealthCheckResponse { status: status.into() }
    }

    pub(super) async fn health_check(
        &self,
        request: pb::HealthCheckRequest,
    ) -> Result<pb::HealthCheckResponse, Status> {
        if request.service.is_empty() {
            Ok(self.serving())
        } else {
            Err(Status::not_found("unknown service"))
        }
    }

    /// The state now, and each change of it.
    pub(super) fn health_watch(
        self: Arc<Self>,
        request: pb::HealthCheckRequest,
    ) -> impl Stream<Item = Bytes> {
        use pb::health_check_response::ServingStatus;
        let known = request.service.is_empty();
        stream::unfold(None, move |told: Option<pb::HealthCheckResponse>| {
            let member = Arc::clone(&self);
            async move {
                loop {
                    let mut now = member.serving();
                    if !known {
                        now.set_status(ServingStatus::ServiceUnknown);
                    }
                    if told.as_ref() != Some(&now) {
                        return Some((grpc::frame(&now), Some(now)));
                    }
                    tokio::time::sleep(POLL_INTERVAL).await;
                }
            }
        })
    }
}
