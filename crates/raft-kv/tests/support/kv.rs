//! Requests as bytes over gRPC, answers as bytes and status: what is on the wire.

use std::time::Duration;

use bytes::{Buf, BufMut, Bytes};
use http::uri::PathAndQuery;
use prost::Message;
use proto::etcdserverpb as pb;
use tonic::client::Grpc;
use tonic::codec::{BufferSettings, Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status};

/// Passes message bytes through as they are.
struct Raw;

impl Codec for Raw {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Raw;
    type Decoder = Raw;
    fn encoder(&mut self) -> Raw {
        Raw
    }
    fn decoder(&mut self) -> Raw {
        Raw
    }
}

impl Encoder for Raw {
    type Item = Bytes;
    type Error = Status;
    fn encode(&mut self, item: Bytes, into: &mut EncodeBuf<'_>) -> Result<(), Status> {
        into.put(item);
        Ok(())
    }
    fn buffer_settings(&self) -> BufferSettings {
        BufferSettings::default()
    }
}

impl Decoder for Raw {
    type Item = Bytes;
    type Error = Status;
    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(from.copy_to_bytes(from.remaining())))
    }
    fn buffer_settings(&self) -> BufferSettings {
        BufferSettings::default()
    }
}

/// A connection to one member, made when it is first used.
#[derive(Clone)]
pub struct Connection(Channel);

impl Connection {
    /// To `host:port`. A request without an answer ends after `limit`.
    pub fn new(endpoint: &str, limit: Duration) -> Connection {
        let endpoint = Endpoint::from_shared(format!("http://{endpoint}")).unwrap();
        Connection(endpoint.timeout(limit).connect_timeout(Duration::from_secs(1)).connect_lazy())
    }

    /// Sends a message to `path` (`/package.Service/Method`).
    pub async fn call(&self, path: &str, message: Bytes) -> Result<Bytes, Status> {
        let mut grpc = Grpc::new(self.0.clone()).max_decoding_message_size(usize::MAX);
        grpc.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
        let path = PathAndQuery::try_from(path).unwrap();
        grpc.unary(Request::new(message), path, Raw).await.map(tonic::Response::into_inner)
    }

    async fn typed<A: Message + Default>(
        &self,
        path: &str,
        request: &impl Message,
    ) -> Result<A, Status> {
        let answer = self.call(path, request.encode_to_vec().into()).await?;
        Ok(A::decode(answer).expect("the answer is a message of its type"))
    }

    pub async fn put(&self, request: pb::PutRequest) -> Result<pb::PutResponse, Status> {
        self.typed("/etcdserverpb.KV/Put", &request).await
    }

    pub async fn range(&self, request: pb::RangeRequest) -> Result<pb::RangeResponse, Status> {
        self.typed("/etcdserverpb.KV/Range", &request).await
    }

    pub async fn delete(
        &self,
        request: pb::DeleteRangeRequest,
    ) -> Result<pb::DeleteRangeResponse, Status> {
        self.typed("/etcdserverpb.KV/DeleteRange", &request).await
    }

    pub async fn txn(&self, request: pb::TxnRequest) -> Result<pb::TxnResponse, Status> {
        self.typed("/etcdserverpb.KV/Txn", &request).await
    }
}

/// The member's own view of the cluster, if it answers within a second.
pub async fn status(endpoint: &str) -> Option<pb::StatusResponse> {
    let connection = Connection::new(endpoint, Duration::from_secs(1));
    connection.typed("/etcdserverpb.Maintenance/Status", &pb::StatusRequest::default()).await.ok()
}

/// Whether the member answers a linearizable read.
pub async fn answers(endpoint: &str) -> bool {
    let connection = Connection::new(endpoint, Duration::from_secs(2));
    let request = pb::RangeRequest { key: "health".into(), ..Default::default() };
    connection.range(request).await.is_ok()
}

/// Whether the request surely never left: there was no connection to send it on.
pub fn was_never_sent(status: &Status) -> bool {
    status.code() == Code::Unavailable && status.message().contains("tcp connect error")
}
