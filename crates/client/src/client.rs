use std::sync::Arc;
use std::time::Duration;

use proto::etcdserverpb::cluster_client::ClusterClient;
use proto::etcdserverpb::kv_client::KvClient;
use proto::etcdserverpb::maintenance_client::MaintenanceClient;
use proto::etcdserverpb::{
    AlarmMember, AlarmRequest, CompactionRequest, CompactionResponse, DeleteRangeResponse,
    MemberListRequest, MemberListResponse, PutResponse, RangeResponse, StatusRequest,
    StatusResponse, TxnResponse,
};
use proto::health::HealthCheckRequest;
use proto::health::health_check_response::ServingStatus;
use proto::health::health_client::HealthClient;

use crate::endpoints::{Endpoints, Repeat};
use crate::{Delete, Error, Get, Put, Txn};

/// How long a client waits.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Options {
    /// For a connection to one endpoint, and for any endpoint to come up before a request is given up unsent; 2 s.
    pub connect_timeout: Duration,
    /// For the answer to a request, all attempts included; 5 s.
    pub request_timeout: Duration,
}

impl Default for Options {
    fn default() -> Options {
        Options { connect_timeout: Duration::from_secs(2), request_timeout: Duration::from_secs(5) }
    }
}

impl Options {
    /// Sets [`Options::connect_timeout`].
    pub fn connect_timeout(mut self, timeout: Duration) -> Options {
        self.connect_timeout = timeout;
        self
    }

    /// Sets [`Options::request_timeout`].
    pub fn request_timeout(mut self, timeout: Duration) -> Options {
        self.request_timeout = timeout;
        self
    }
}

/// A client of one cluster. Clones share its connections.
///
/// A request goes to the endpoint that answered last. Reads move on to the next endpoint when one is unavailable, and
/// are repeated until they succeed or time is up. Writes move on only as long as they have certainly not been sent.
#[derive(Clone)]
pub struct Client {
    endpoints: Arc<Endpoints>,
}

impl Client {
    /// A client of the cluster at `endpoints` (`host:port` or `http://host:port`). Connects when first used; must be
    /// called inside a tokio runtime, on which the connections live.
    pub fn new<E: Into<String>>(endpoints: impl IntoIterator<Item = E>) -> Result<Client, Error> {
        Client::with_options(endpoints, Options::default())
    }

    /// [`Client::new`] with other timeouts than the usual.
    pub fn with_options<E: Into<String>>(
        endpoints: impl IntoIterator<Item = E>,
        options: Options,
    ) -> Result<Client, Error> {
        let names = endpoints.into_iter().map(Into::into).collect();
        Ok(Client { endpoints: Arc::new(Endpoints::new(names, options)?) })
    }

    /// The endpoints as they were given.
    pub fn endpoints(&self) -> impl Iterator<Item = &str> {
        self.endpoints.names()
    }

    /// Reads a key, or what a [`Get`] says.
    pub async fn get(&self, get: impl Into<Get>) -> Result<RangeResponse, Error> {
        let rpc = |channel, request| async move {
            KvClient::new(channel).max_decoding_message_size(usize::MAX).range(request).await
        };
        self.endpoints.call(Repeat::Safe, get.into().request, rpc).await
    }

    /// Writes a key: `put(("key", "value"))`, or a [`Put`] with more to say.
    pub async fn put(&self, put: impl Into<Put>) -> Result<PutResponse, Error> {
        let rpc = |channel, request| async move {
            KvClient::new(channel).max_decoding_message_size(usize::MAX).put(request).await
        };
        self.endpoints.call(Repeat::Unsafe, put.into().request, rpc).await
    }

    /// Deletes a key, or what a [`Delete`] says.
    pub async fn delete(&self, delete: impl Into<Delete>) -> Result<DeleteRangeResponse, Error> {
        let rpc = |channel, request| async move {
            KvClient::new(channel).max_decoding_message_size(usize::MAX).delete_range(request).await
        };
        self.endpoints.call(Repeat::Unsafe, delete.into().request, rpc).await
    }

    /// Runs a transaction.
    pub async fn txn(&self, txn: Txn) -> Result<TxnResponse, Error> {
        let repeat = if txn.only_reads() { Repeat::Safe } else { Repeat::Unsafe };
        let rpc = |channel, request| async move {
            KvClient::new(channel).max_decoding_message_size(usize::MAX).txn(request).await
        };
        self.endpoints.call(repeat, txn.request, rpc).await
    }

    /// Forgets the history before `revision`; if `physical`, answers when the space is free.
    pub async fn compact(
        &self,
        revision: i64,
        physical: bool,
    ) -> Result<CompactionResponse, Error> {
        let request = CompactionRequest { revision, physical };
        let rpc = |channel, request| async move { KvClient::new(channel).compact(request).await };
        self.endpoints.call(Repeat::Unsafe, request, rpc).await
    }

    /// The members of the cluster; unless `linearizable`, as the asked member knows them.
    pub async fn member_list(&self, linearizable: bool) -> Result<MemberListResponse, Error> {
        let request = MemberListRequest { linearizable };
        let rpc = |channel, request| async move {
            ClusterClient::new(channel).member_list(request).await
        };
        self.endpoints.call(Repeat::Safe, request, rpc).await
    }

    /// How the member is that answers. To ask a certain member, make a client with its endpoint alone.
    pub async fn status(&self) -> Result<StatusResponse, Error> {
        let rpc =
            |channel, request| async move { MaintenanceClient::new(channel).status(request).await };
        self.endpoints.call(Repeat::Safe, StatusRequest {}, rpc).await
    }

    /// The alarms that are raised anywhere in the cluster.
    pub async fn alarms(&self) -> Result<Vec<AlarmMember>, Error> {
        let rpc =
            |channel, request| async move { MaintenanceClient::new(channel).alarm(request).await };
        let answer = self.endpoints.call(Repeat::Safe, AlarmRequest::default(), rpc).await?;
        Ok(answer.alarms)
    }

    /// Whether the member that answers says that it serves (gRPC's health check).
    pub async fn serving(&self) -> Result<bool, Error> {
        let rpc = |channel, request| async move { HealthClient::new(channel).check(request).await };
        let answer = self.endpoints.call(Repeat::Safe, HealthCheckRequest::default(), rpc).await?;
        Ok(answer.status() == ServingStatus::Serving)
    }
}
