//! Connections of clients: each is accepted once and stays on one thread.

use crate::accept::Door;
use crate::api::Member;
use crate::config::Config;
use crate::connection::ClientConnection;
use crate::http_pages;
use crate::http2::{self, Terms};
use crate::open_files::Place;
use crate::socket::Coalescing;
use bytes::Bytes;
use h2::RecvStream;
use h2::server::SendResponse;
use http::{HeaderMap, Request, header};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use std::convert::Infallible;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender};
use tokio::sync::watch;
use tracing::debug;

/// Who opens a connection, and each who asks over HTTP/1, says what it wants within this time.
const FIRST_WORDS_PATIENCE: Duration = Duration::from_secs(30);

/// A connection on its way to the thread that will serve it.
pub type Dealt = (std::net::TcpStream, Place);

/// Requests of one connection at once, whatever `--max-concurrent-streams` says: each costs a
/// kilobyte or two, more while its message is on its way.
const STREAMS_MAX: u32 = 8192;

/// Accepts for ever and deals connections out to threads in turn.
pub async fn accept(door: Door, threads: Vec<UnboundedSender<Dealt>>) {
    for thread in threads.iter().cycle() {
        let (socket, _, place) = door.next().await;
        if let Ok(socket) = socket.into_std() {
            let _ = thread.send((socket, place));
        }
    }
}

/// Serves the connections that are dealt to this thread until `stop` turns true and all are done.
pub async fn serve(
    member: Arc<Member>,
    mut dealt: UnboundedReceiver<Dealt>,
    stop: watch::Receiver<bool>,
) {
    let mut stopping = stop.clone();
    loop {
        tokio::select! {
            socket = dealt.recv() => match socket {
                Some((socket, place)) => {
                    if let Ok(socket) = TcpStream::from_std(socket) {
                        let served = connection(Arc::clone(&member), socket, stop.clone());
                        tokio::spawn(async move {
                            served.await;
                            drop(place);
                        });
                    }
                }
                None => return,
            },
            _ = stopping.wait_for(|stop| *stop) => return,
        }
    }
}

/// Serves health and version, and nothing else, on a listener of its own.
pub async fn serve_pages(door: Door, member: Arc<Member>, stop: watch::Receiver<bool>) {
    loop {
        let (socket, _, place) = door.next().await;
        let served = serve_http1(Arc::clone(&member), socket, stop.clone());
        tokio::spawn(async move {
            served.await;
            drop(place);
        });
    }
}

async fn connection(member: Arc<Member>, socket: TcpStream, stop: watch::Receiver<bool>) {
    let mut socket = Coalescing::new(socket);
    match tokio::time::timeout(FIRST_WORDS_PATIENCE, socket.announces_http2()).await {
        Ok(Ok(true)) => {
            let account = ClientConnection::new(Arc::clone(&member.edge));
            let take = |request, respond| take(&member, &account, request, respond);
            http2::serve(socket, terms(&member.config), stop, &account, take).await;
        }
        Ok(Ok(false)) => serve_http1(member, socket, stop).await,
        Ok(Err(error)) => debug!(%error, "a client's connection ended at once"),
        Err(_) => debug!("a client connected and said nothing"),
    }
}

fn terms(config: &Config) -> Terms {
    Terms {
        streams_max: config.streams_max.min(STREAMS_MAX),
        keepalive_interval: config.keepalive_interval,
        keepalive_timeout: config.keepalive_timeout,
    }
}

/// A call is for the member, anything else may be a page.
fn take(
    member: &Arc<Member>,
    account: &Arc<ClientConnection>,
    request: Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
) {
    if is_call(request.headers()) {
        return member.take(account, request, respond);
    }
    let member = Arc::clone(member);
    tokio::spawn(async move {
        let (head, page) = http_pages::answer(&member, &request).await.into_parts();
        if let Ok(mut stream) = respond.send_response(http::Response::from_parts(head, ()), false) {
            let _ = stream.send_data(page, true);
        }
    });
}

fn is_call(headers: &HeaderMap) -> bool {
    let kind = headers.get(header::CONTENT_TYPE);
    kind.is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"))
}

/// Pages; a connection lives until it ends, or until the member stops: then what is under way is
/// finished and nothing new accepted.
async fn serve_http1(
    member: Arc<Member>,
    socket: impl AsyncRead + AsyncWrite + Unpin + 'static,
    mut stop: watch::Receiver<bool>,
) {
    let service = service_fn(move |request: Request<Incoming>| {
        let member = Arc::clone(&member);
        async move {
            let page = http_pages::answer(&member, &request).await;
            Ok::<_, Infallible>(page.map(Full::new))
        }
    });
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(FIRST_WORDS_PATIENCE);
    let mut connection = pin!(builder.serve_connection(TokioIo::new(socket), service));
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
        debug!(%error, "a client's connection ended");
    }
}
