//! What the client does with endpoints that are down, unavailable or silent,
//! shown on servers that only count what reaches them.

#![allow(clippy::unwrap_used)]

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use proto::etcdserverpb::kv_server::{Kv, KvServer};
use proto::etcdserverpb::*;
use raft_kv_client::{Client, Code, Error, Options};
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status};

#[derive(Clone, Copy)]
enum Mood {
    Well,
    Unavailable,
    Refusing,
    Silent,
}

#[derive(Clone)]
struct Fake {
    mood: Mood,
    asked: Arc<AtomicU32>,
}

impl Fake {
    async fn answer<A: Default>(&self) -> Result<Response<A>, Status> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        match self.mood {
            Mood::Well => Ok(Response::new(A::default())),
            Mood::Unavailable => Err(Status::unavailable("etcdserver: no leader")),
            Mood::Refusing => Err(Status::invalid_argument("etcdserver: key is not provided")),
            Mood::Silent => std::future::pending().await,
        }
    }
}

#[tonic::async_trait]
impl Kv for Fake {
    type RangeStreamStream = tokio_stream::Empty<Result<RangeStreamResponse, Status>>;

    async fn range(&self, _: Request<RangeRequest>) -> Result<Response<RangeResponse>, Status> {
        self.answer().await
    }
    async fn range_stream(
        &self,
        _: Request<RangeRequest>,
    ) -> Result<Response<Self::RangeStreamStream>, Status> {
        Err(Status::unimplemented(""))
    }
    async fn put(&self, _: Request<PutRequest>) -> Result<Response<PutResponse>, Status> {
        self.answer().await
    }
    async fn delete_range(
        &self,
        _: Request<DeleteRangeRequest>,
    ) -> Result<Response<DeleteRangeResponse>, Status> {
        self.answer().await
    }
    async fn txn(&self, _: Request<TxnRequest>) -> Result<Response<TxnResponse>, Status> {
        self.answer().await
    }
    async fn compact(
        &self,
        _: Request<CompactionRequest>,
    ) -> Result<Response<CompactionResponse>, Status> {
        self.answer().await
    }
}

/// The address of a server in this mood, and how often it was asked.
async fn server(mood: Mood) -> (String, Arc<AtomicU32>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let asked = Arc::new(AtomicU32::new(0));
    let fake = Fake { mood, asked: asked.clone() };
    let router = tonic::transport::Server::builder().add_service(KvServer::new(fake));
    tokio::spawn(router.serve_with_incoming(TcpListenerStream::new(listener)));
    (address, asked)
}

/// An address where nobody listens.
async fn nobody() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    listener.local_addr().unwrap().to_string()
}

fn client(endpoints: [&str; 2]) -> Client {
    let millis = Duration::from_millis;
    let options = Options::default().connect_timeout(millis(300)).request_timeout(millis(600));
    Client::with_options(endpoints, options).unwrap()
}

fn count(asked: &AtomicU32) -> u32 {
    asked.load(Ordering::SeqCst)
}

#[tokio::test]
async fn a_write_moves_on_from_an_endpoint_that_is_down() {
    let (well, asked) = server(Mood::Well).await;
    let client = client([&nobody().await, &well]);
    client.put(("k", "v")).await.unwrap();
    client.put(("k", "v")).await.unwrap();
    assert_eq!(count(&asked), 2);
}

#[tokio::test]
async fn a_write_is_sent_once_when_its_fate_is_unknown() {
    let (unavailable, refused) = server(Mood::Unavailable).await;
    let (well, asked) = server(Mood::Well).await;
    let client = client([&unavailable, &well]);
    let error = client.put(("k", "v")).await.unwrap_err();
    assert!(matches!(error, Error::OutcomeUnknown { code: Code::Unavailable, .. }), "{error:?}");
    assert_eq!((count(&refused), count(&asked)), (1, 0));
    // The next request starts where it may fare better.
    client.put(("k", "v")).await.unwrap();
    assert_eq!((count(&refused), count(&asked)), (1, 1));
}

#[tokio::test]
async fn a_read_moves_on_from_an_unavailable_endpoint() {
    let (unavailable, refused) = server(Mood::Unavailable).await;
    let (well, asked) = server(Mood::Well).await;
    let client = client([&unavailable, &well]);
    client.get("k").await.unwrap();
    assert_eq!((count(&refused), count(&asked)), (1, 1));
}

#[tokio::test]
async fn silence_ends_at_the_deadline() {
    let (silent, asked) = server(Mood::Silent).await;
    let start = Instant::now();
    let client = client([&silent, &silent]);
    let error = client.put(("k", "v")).await.unwrap_err();
    assert!(
        matches!(error, Error::OutcomeUnknown { code: Code::DeadlineExceeded, .. }),
        "{error:?}"
    );
    let error = client.get("k").await.unwrap_err();
    assert!(matches!(error, Error::Unavailable { code: Code::DeadlineExceeded, .. }), "{error:?}");
    assert_eq!(count(&asked), 2);
    assert!(start.elapsed() < Duration::from_secs(5));
}

#[tokio::test]
async fn a_refusal_is_final() {
    let (refusing, asked) = server(Mood::Refusing).await;
    let (well, spared) = server(Mood::Well).await;
    let error = client([&refusing, &well]).get("").await.unwrap_err();
    assert!(matches!(error, Error::Refused { code: Code::InvalidArgument, .. }), "{error:?}");
    assert_eq!(error.message(), "etcdserver: key is not provided");
    assert_eq!((count(&asked), count(&spared)), (1, 0));
}

#[tokio::test]
async fn nothing_reachable_is_said_with_its_cause() {
    let error = client([&nobody().await, &nobody().await]).put(("k", "v")).await.unwrap_err();
    assert!(matches!(error, Error::Unreachable { .. }), "{error:?}");
    assert!(error.to_string().contains("Connection refused"), "{error}");
}

#[tokio::test]
async fn endpoints_that_cannot_be_used_are_refused_by_name() {
    for endpoint in ["https://127.0.0.1:2379", "unix://x", "", "127.0.0.1", "a b:1"] {
        let error = Client::new([endpoint]).err().expect(endpoint);
        assert!(matches!(&error, Error::Endpoint { endpoint: named, .. } if named == endpoint));
    }
    assert!(Client::new([""; 0]).is_err());
}
