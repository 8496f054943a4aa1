//! One HTTP/2 connection, without the queues of a general client.

use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use http::Uri;
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};
use proto::etcdserverpb::kv_client::KvClient;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tonic::body::Body;
use tower::Service;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// A connection that can be opened again. Its clients share it.
pub(super) struct Connection {
    address: String,
    origin: Uri,
    client: RefCell<Option<KvClient<Sender>>>,
    opening: tokio::sync::Mutex<()>,
}

impl Connection {
    pub(super) fn new(endpoint: &str) -> Result<Connection, String> {
        let address = endpoint.strip_prefix("http://").unwrap_or(endpoint).trim_end_matches('/');
        let origin = format!("http://{address}").parse();
        let origin = origin.map_err(|_| format!("endpoint {endpoint:?}: not a host and port"))?;
        let (client, opening) = (RefCell::new(None), tokio::sync::Mutex::new(()));
        Ok(Connection { address: address.to_owned(), origin, client, opening })
    }

    /// The client, connected anew if the connection has ended.
    pub(super) async fn open(&self) -> Result<KvClient<Sender>, String> {
        if let Some(client) = self.client.borrow().as_ref() {
            return Ok(client.clone());
        }
        let _one_at_a_time = self.opening.lock().await;
        if let Some(client) = self.client.borrow().as_ref() {
            return Ok(client.clone());
        }
        let attempt = tokio::time::timeout(CONNECT_TIMEOUT, self.connect());
        let client = attempt.await.map_err(|_| "connecting takes too long".to_owned())??;
        *self.client.borrow_mut() = Some(client.clone());
        Ok(client)
    }

    /// The connection broke: the next request opens another.
    pub(super) fn broken(&self) {
        *self.client.borrow_mut() = None;
    }

    async fn connect(&self) -> Result<KvClient<Sender>, String> {
        let stream = TcpStream::connect(&self.address).await.map_err(|error| error.to_string())?;
        stream.set_nodelay(true).map_err(|error| error.to_string())?;
        let io = TokioIo::new(Gathering(stream));
        let (sender, driver) = http2::Builder::new(TokioExecutor::new())
            .initial_stream_window_size(1 << 20)
            .initial_connection_window_size(1 << 20)
            .handshake(io)
            .await
            .map_err(|error| error.to_string())?;
        // Its end shows in the requests on it.
        tokio::spawn(driver);
        Ok(KvClient::with_origin(Sender(sender), self.origin.clone()))
    }
}

/// The sending side, as tonic wants it.
#[derive(Clone)]
pub(super) struct Sender(SendRequest<Body>);

impl Service<http::Request<Body>> for Sender {
    type Response = http::Response<hyper::body::Incoming>;
    type Error = hyper::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, hyper::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), hyper::Error>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        Box::pin(self.0.send_request(request))
    }
}

/// A socket that hides vectored writes. With them, HTTP/2 frames of 256 bytes
/// and more leave one system call each; without, they are gathered.
struct Gathering(TcpStream);

impl AsyncRead for Gathering {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(context, buffer)
    }
}

impl AsyncWrite for Gathering {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(context, buffer)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(context)
    }
}
