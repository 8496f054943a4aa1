//! Connections of clients: each is accepted once and stays on one thread.

use crate::api::Member;
use crate::grpc::Answer;
use crate::http_pages;
use crate::socket::Coalescing;
use http::{Request, Response, Version, header};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::GracefulConnection;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender};
use tokio::sync::watch;
use tracing::{debug, warn};

/// Metadata of one request.
const HEADER_BYTES_MAX: u32 = 64 << 10;
/// What may be under way on one request, and on one connection.
const STREAM_WINDOW_BYTES: u32 = 1 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 4 << 20;
/// Who opens a connection over HTTP/1 says what it wants within this time.
const FIRST_WORDS_PATIENCE: Duration = Duration::from_secs(30);
/// When the system gives no more sockets, look again after this.
const ACCEPT_BACKOFF: Duration = Duration::from_millis(100);

/// Accepts for ever and deals connections out to threads in turn.
pub async fn accept(listener: TcpListener, threads: Vec<UnboundedSender<std::net::TcpStream>>) {
    for thread in threads.iter().cycle() {
        let socket = loop {
            match listener.accept().await {
                Ok((socket, _)) => break socket,
                // One bad connection, or no more file descriptors: neither ends the member.
                Err(error) => {
                    warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(ACCEPT_BACKOFF).await;
                }
            }
        };
        if let Ok(socket) = socket.into_std() {
            let _ = thread.send(socket);
        }
    }
}

/// Serves the connections that are dealt to this thread until `stop` turns true and all are done.
pub async fn serve(
    member: Arc<Member>,
    mut dealt: UnboundedReceiver<std::net::TcpStream>,
    stop: watch::Receiver<bool>,
) {
    let mut stopping = stop.clone();
    loop {
        tokio::select! {
            socket = dealt.recv() => match socket {
                Some(socket) => {
                    if let Ok(socket) = TcpStream::from_std(socket) {
                        tokio::spawn(connection(Arc::clone(&member), socket, stop.clone()));
                    }
                }
                None => return,
            },
            _ = stopping.wait_for(|stop| *stop) => return,
        }
    }
}

/// Serves health and version, and nothing else, on a listener of its own.
pub async fn serve_pages(listener: TcpListener, member: Arc<Member>, stop: watch::Receiver<bool>) {
    loop {
        match listener.accept().await {
            Ok((socket, _)) => {
                tokio::spawn(pages_connection(Arc::clone(&member), socket, stop.clone()));
            }
            Err(_) => tokio::time::sleep(ACCEPT_BACKOFF).await,
        }
    }
}

async fn pages_connection(member: Arc<Member>, socket: TcpStream, stop: watch::Receiver<bool>) {
    let service = service_fn(move |request: Request<Incoming>| {
        let member = Arc::clone(&member);
        async move { Ok::<_, Infallible>(http_pages::answer(&member, &request).await) }
    });
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(FIRST_WORDS_PATIENCE);
    run(builder.serve_connection(TokioIo::new(socket), service), stop).await;
}

async fn connection(member: Arc<Member>, socket: TcpStream, stop: watch::Receiver<bool>) {
    // Without this, answers wait for the peer's acknowledgements: 40 ms each.
    if let Err(error) = socket.set_nodelay(true) {
        debug!(%error, "cannot set TCP_NODELAY");
        return;
    }
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(FIRST_WORDS_PATIENCE);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(member.config.streams_max)
        .max_header_list_size(HEADER_BYTES_MAX)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .keep_alive_interval(member.config.keepalive_interval)
        .keep_alive_timeout(member.config.keepalive_timeout);
    let service = service_fn(move |request: Request<Incoming>| {
        let member = Arc::clone(&member);
        async move { Ok::<_, Infallible>(answer(&member, request).await) }
    });
    let socket = TokioIo::new(Coalescing::undecided(socket));
    run(builder.serve_connection(socket, service), stop).await;
}

/// Lets a connection live until it ends, or until the member stops: then what is under way is
/// finished and nothing new accepted.
async fn run(
    connection: impl GracefulConnection<Error = Box<dyn std::error::Error + Send + Sync>>,
    mut stop: watch::Receiver<bool>,
) {
    let mut connection = std::pin::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => Some(ended),
        () = async { let _ = stop.wait_for(|stop| *stop).await; } => None,
    };
    let ended = match ended {
        Some(ended) => ended,
        None => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        debug!(error, "a client's connection ended");
    }
}

/// gRPC speaks HTTP/2, pages HTTP/1; a call says what it is.
async fn answer(member: &Arc<Member>, request: Request<Incoming>) -> Response<Answer> {
    let is_call = request.version() == Version::HTTP_2
        && request
            .headers()
            .get(header::CONTENT_TYPE)
            .is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"));
    if is_call { member.call(request).await } else { http_pages::answer(member, &request).await }
}
