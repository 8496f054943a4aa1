//! gRPC's health check: only the server as a whole has a state.

use super::Member;
use crate::grpc::Call;
use proto::health as pb;
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

    /// Tells the state now, and each change of it.
    pub(super) async fn health_watch(&self, request: pb::HealthCheckRequest, call: Call) {
        use pb::health_check_response::ServingStatus;
        let Some(mut answer) = call.stream() else { return };
        let known = request.service.is_empty();
        let mut told = None;
        loop {
            let mut now = self.serving();
            if !known {
                now.set_status(ServingStatus::ServiceUnknown);
            }
            if told.as_ref() != Some(&now) {
                if answer.room().await.is_err() || answer.send(&now).await.is_err() {
                    return;
                }
                told = Some(now);
            }
            if answer.unless_gone(tokio::time::sleep(POLL_INTERVAL)).await.is_none() {
                return;
            }
        }
    }
}
