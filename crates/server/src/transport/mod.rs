//! Streams between members: one for each pair, opened by the member with the larger id.
//!
//! A stream may break at any moment, and what was on it is lost; consensus does not rely on more.

mod frames;
mod outgoing;

pub use outgoing::Outgoing;

use crate::accept;
use crate::config::Config;
use crate::desk::Mail;
use crate::grpc;
use crate::http2::Pulse;
use crate::identity::Id;
use crate::socket::Coalescing;
use crate::urls::Url;
use crate::wire;
use arc_swap::ArcSwap;
use bytes::Bytes;
use frames::Frames;
use futures_util::TryFutureExt;
use h2::server::SendResponse;
use h2::{PingPong, RecvStream, SendStream};
use http::Request;
use outgoing::Sending;
use proto::peer::{Batch, Frame, Hello, frame};
use raft::{Index, NodeId};
use replica::{Input, PeerMessage, Published};
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;
use std::time::{Duration, Instant};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::sync::mpsc::UnboundedSender;
use tokio::time::timeout;
use tonic::{Code, Status};
use tracing::{debug, info, warn};

/// The one call that members make.
const CONNECT: &str = "/raftkv.peer.v1.Peer/Connect";

/// The protocol that this release speaks with its peers.
const PROTOCOL_VERSION: u32 = 1;
/// Bytes of one peer's messages that the node has not taken yet; beyond, the stream waits.
const UNREAD_BYTES_MAX: usize = 64 << 20;
/// A peer that says nothing for so long on a new stream is given up.
const HANDSHAKE_PATIENCE: Duration = Duration::from_secs(2);
const CONNECT_PATIENCE: Duration = Duration::from_secs(1);
const BACKOFF_MIN: Duration = Duration::from_millis(20);
const BACKOFF_MAX: Duration = Duration::from_millis(500);
/// A silent stream is pinged, and given up if no answer comes.
const PING_INTERVAL: Duration = Duration::from_secs(1);
const PING_PATIENCE: Duration = Duration::from_secs(3);
/// What keeps failing is logged once in this time.
const COMPLAINT_INTERVAL: Duration = Duration::from_secs(60);
/// HTTP/2: what may be under way in each direction, and the frames that it is cut into.
const WINDOW_BYTES: u32 = 8 << 20;
const HTTP2_FRAME_BYTES: u32 = 1 << 20;
/// Streams of one connection at once; a member opens one.
const CALLS_MAX: u32 = 16;

const CLOSED: &str = "it closed the stream";
const SILENT: &str = "it does not answer a ping";

/// The transport of one member. Lives on the node's thread.
#[derive(Clone)]
pub struct Transport {
    inner: Arc<Inner>,
}

struct Inner {
    own: NodeId,
    cluster: Id,
    urls: BTreeMap<NodeId, Vec<Url>>,
    outgoing: Arc<Outgoing>,
    inbox: UnboundedSender<Mail>,
    published: Arc<ArcSwap<Published>>,
    streams: AtomicU64,
    /// Taken when a stream is refused or breaks; holds when each line was last logged.
    complaints: Mutex<BTreeMap<String, Instant>>,
}

impl Transport {
    /// The transport of the configured member. Nothing is connected yet.
    pub fn new(
        config: &Config,
        outgoing: Arc<Outgoing>,
        inbox: UnboundedSender<Mail>,
        published: Arc<ArcSwap<Published>>,
    ) -> Transport {
        let own = NodeId(config.member_id.0);
        let urls = config
            .members
            .iter()
            .map(|(id, member)| (NodeId(id.0), member.peer_urls.clone()))
            .filter(|(id, _)| *id != own)
            .collect();
        let inner = Inner {
            own,
            cluster: config.cluster_id,
            urls,
            outgoing,
            inbox,
            published,
            streams: AtomicU64::new(1),
            complaints: Mutex::default(),
        };
        Transport { inner: Arc::new(inner) }
    }

    /// Starts to dial the peers that this member dials: those with smaller ids.
    pub fn dial(&self) {
        for (peer, urls) in &self.inner.urls {
            if *peer < self.inner.own {
                tokio::spawn(Arc::clone(&self.inner).keep_dialling(*peer, urls.clone()));
            }
        }
    }

    /// Answers the peers that dial this member, for ever.
    pub async fn accept(self, listener: TcpListener) {
        loop {
            let (socket, from) = accept::connection(&listener).await;
            let inner = Arc::clone(&self.inner);
            tokio::spawn(async move {
                let Err(why) = inner.serve(socket).await;
                debug!(%from, why, "a connection on the peer port ended");
            });
        }
    }
}

impl Inner {
    fn hello(&self, to: NodeId) -> Frame {
        let hello = Hello {
            cluster_id: self.cluster.0,
            from: self.own.0,
            to: to.0,
            protocol_version: PROTOCOL_VERSION,
            log_is_empty: self.published.load().status.last.index == Index(0),
        };
        Frame { frame: Some(frame::Frame::Hello(hello)) }
    }

    /// One connection of one who dialled.
    async fn serve(self: Arc<Self>, socket: TcpStream) -> Result<Infallible, String> {
        let connection = h2::server::Builder::new()
            .initial_window_size(WINDOW_BYTES)
            .initial_connection_window_size(2 * WINDOW_BYTES)
            .max_frame_size(HTTP2_FRAME_BYTES)
            .max_concurrent_streams(CALLS_MAX)
            .handshake(Coalescing::new(socket));
        let mut connection = within(HANDSHAKE_PATIENCE, connection.map_err(root_cause)).await?;
        let mut pulse = pulse(connection.ping_pong());
        loop {
            let next = poll_fn(|context| match pulse.poll_missed(context) {
                Poll::Ready(()) => Poll::Ready(Err(SILENT.to_owned())),
                Poll::Pending => connection.poll_accept(context).map(Ok),
            });
            let (request, respond) = match next.await? {
                Some(call) => call.map_err(root_cause)?,
                None => return Err(CLOSED.to_owned()),
            };
            tokio::spawn(Arc::clone(&self).answer(request, respond));
        }
    }

    /// One call of one who dialled: refused, or a stream until it ends.
    async fn answer(
        self: Arc<Self>,
        request: Request<RecvStream>,
        mut respond: SendResponse<Bytes>,
    ) {
        let is_ours = request.uri().path() == CONNECT;
        let mut frames = Frames::new(request.into_body());
        let greeted = if is_ours {
            self.greeted(&mut frames).await
        } else {
            Err(Status::unimplemented("members make no such call"))
        };
        let from = match greeted {
            Ok(from) => from,
            Err(status) => return grpc::refuse(&mut respond, &status),
        };
        let number = self.streams.fetch_add(1, Ordering::Relaxed);
        let Ok(mut out) = respond.send_response(grpc::head(), false) else { return };
        if grpc::send(&mut out, grpc::frame(&self.hello(from))).await.is_ok() {
            tokio::select! {
                biased;
                () = self.receive_once_wanted(from, number, &mut frames) => {}
                () = self.send(from, number, &mut out) => {}
            }
        }
    }

    /// Reads the greeting of one who dialled.
    async fn greeted(&self, frames: &mut Frames) -> Result<NodeId, Status> {
        let Ok(Some(frame::Frame::Hello(hello))) = within(HANDSHAKE_PATIENCE, frames.next()).await
        else {
            return Err(Status::invalid_argument("a stream of a peer starts with a greeting"));
        };
        if let Err(why) = self.judge(&hello) {
            self.complain(format!("refused a stream from {:x}: {why}", hello.from));
            return Err(Status::failed_precondition(why));
        }
        if hello.from < self.own.0 {
            return Err(Status::failed_precondition("the member with the larger id dials"));
        }
        Ok(NodeId(hello.from))
    }

    /// Sends what is queued until another stream takes over, or this one breaks, which whoever
    /// reads it notices as well.
    async fn send(&self, to: NodeId, number: u64, out: &mut SendStream<Bytes>) {
        let outgoing = Arc::clone(&self.outgoing);
        let mut sending = Sending::new(outgoing, to, number);
        while let Some(messages) = poll_fn(|context| sending.poll_queue(context)).await {
            let messages = messages.into_iter().map(wire::encode).collect();
            let batch = Frame { frame: Some(frame::Frame::Batch(Batch { messages })) };
            if grpc::send(out, grpc::frame(&batch)).await.is_err() {
                return std::future::pending().await;
            }
        }
    }

    /// Whether a greeting is that of a peer, to us.
    fn judge(&self, hello: &Hello) -> Result<(), String> {
        let Hello { cluster_id, from, to, protocol_version, log_is_empty } = *hello;
        if cluster_id != self.cluster.0 {
            return Err(format!(
                "the stream is for cluster {cluster_id:x}, and member {:x} is of cluster {}; \
                 compare --initial-cluster and --initial-cluster-token",
                self.own.0, self.cluster
            ));
        }
        if to != self.own.0 {
            return Err(format!("the stream is for member {to:x}, and this is {:x}", self.own.0));
        }
        if !self.urls.contains_key(&NodeId(from)) {
            return Err(format!("{from:x} is no member of cluster {}", self.cluster));
        }
        if protocol_version != PROTOCOL_VERSION {
            return Err(format!(
                "the stream is of version {protocol_version} of the protocol between members, and \
                 this member speaks version {PROTOCOL_VERSION}"
            ));
        }
        // Whoever is known by name held the entry that says so, on its disk (see `Running::join`).
        // With an empty log it has lost that, and may have lost votes and acknowledged writes.
        let published = self.published.load();
        let known = published.members.iter().find(|member| member.id.0 == from);
        if log_is_empty && known.is_some_and(|member| !member.client_urls.is_empty()) {
            return Err(format!(
                "member {from:x} has already been bootstrapped, and its log is empty: its data \
                 directory was lost or is the wrong one"
            ));
        }
        Ok(())
    }

    /// Takes a stream into use, in place of an older one.
    fn established(&self, peer: NodeId, number: u64) {
        self.outgoing.switch(peer, Some(number));
        info!(peer = format_args!("{:x}", peer.0), "connected to a peer");
    }

    /// Waits until the peer that dialled has found our greeting good, then goes on with its
    /// messages.
    async fn receive_once_wanted(&self, from: NodeId, number: u64, frames: &mut Frames) {
        let first = within(HANDSHAKE_PATIENCE, frames.next()).await;
        if let Ok(Some(frame::Frame::Batch(_))) = first {
            self.established(from, number);
            self.receive(from, number, frames).await;
        } else {
            self.complain(format!(
                "peer {:x} opened a stream and does not want it; its log says why",
                from.0
            ));
        }
    }

    /// Hands on what a peer says until the stream breaks.
    async fn receive(&self, from: NodeId, number: u64, frames: &mut Frames) {
        let unread = Arc::new(Semaphore::new(UNREAD_BYTES_MAX));
        let why = loop {
            let batch = match frames.next().await {
                Ok(Some(frame::Frame::Batch(batch))) => batch,
                Ok(Some(frame::Frame::Hello(_))) => break "it greeted again".to_owned(),
                Ok(None) => break CLOSED.to_owned(),
                Err(why) => break why,
            };
            if self.outgoing.stream_of(from) != Some(number) {
                return; // A newer stream took over.
            }
            if batch.messages.is_empty() {
                continue;
            }
            let sent = batch.messages.len();
            let messages: Vec<PeerMessage> = batch
                .messages
                .into_iter()
                .filter_map(|message| wire::decode(from, self.own, message))
                .collect();
            if messages.len() < sent {
                self.complain(format!("dropped messages of {:x} that mean nothing here", from.0));
            }
            let bytes: usize = messages.iter().map(wire::cost).sum();
            let permits = bytes.min(UNREAD_BYTES_MAX) as u32;
            let Ok(permit) = Arc::clone(&unread).acquire_many_owned(permits).await else { return };
            if self.inbox.send(Mail::Peer(from, messages, permit)).is_err() {
                return;
            }
        };
        self.broken(from, number, &why);
    }

    fn broken(&self, peer: NodeId, number: u64, why: &str) {
        if self.outgoing.stream_of(peer) != Some(number) {
            return;
        }
        self.outgoing.switch(peer, None);
        warn!(peer = format_args!("{:x}", peer.0), why, "lost the connection to a peer");
        let _ = self.inbox.send(Mail::Inputs(vec![Input::Disconnected(peer)]));
    }

    async fn keep_dialling(self: Arc<Self>, peer: NodeId, urls: Vec<Url>) {
        let mut backoff = BACKOFF_MIN;
        for url in urls.iter().cycle() {
            match self.try_dial(peer, url).await {
                Ok(()) => backoff = BACKOFF_MIN,
                Err(why) => {
                    self.complain(format!("cannot reach peer {:x} at {url}: {why}", peer.0));
                    backoff = (backoff * 2).min(BACKOFF_MAX);
                }
            }
            tokio::time::sleep(backoff).await;
        }
    }

    /// One stream, from greeting to end.
    async fn try_dial(&self, peer: NodeId, url: &Url) -> Result<(), String> {
        let socket = TcpStream::connect(url.authority()).map_err(root_cause);
        let socket = within(CONNECT_PATIENCE, socket).await?;
        socket.set_nodelay(true).map_err(|error| error.to_string())?;
        let connection = h2::client::Builder::new()
            .initial_window_size(WINDOW_BYTES)
            .initial_connection_window_size(2 * WINDOW_BYTES)
            .max_frame_size(HTTP2_FRAME_BYTES)
            .handshake(Coalescing::new(socket));
        let connection = within(HANDSHAKE_PATIENCE, connection.map_err(root_cause)).await?;
        let (calls, mut connection) = connection;
        let mut pulse = pulse(connection.ping_pong());
        let mut connection = pin!(connection);
        let mut ended = poll_fn(|context| match pulse.poll_missed(context) {
            Poll::Ready(()) => Poll::Ready(SILENT.to_owned()),
            Poll::Pending => connection.as_mut().poll(context).map(|ended| match ended {
                Ok(()) => CLOSED.to_owned(),
                Err(error) => root_cause(error),
            }),
        });
        let greeting = within(HANDSHAKE_PATIENCE, self.greet(peer, url, calls));
        let (mut frames, mut out) = tokio::select! {
            biased;
            why = &mut ended => return Err(why),
            greeted = greeting => greeted?,
        };
        let number = self.streams.fetch_add(1, Ordering::Relaxed);
        self.established(peer, number);
        tokio::select! {
            biased;
            why = &mut ended => self.broken(peer, number, &why),
            () = self.receive(peer, number, &mut frames) => {}
            () = self.send(peer, number, &mut out) => {}
        }
        Ok(())
    }

    /// Opens a stream and exchanges greetings.
    async fn greet(
        &self,
        peer: NodeId,
        url: &Url,
        calls: h2::client::SendRequest<Bytes>,
    ) -> Result<(Frames, SendStream<Bytes>), String> {
        let mut calls = calls.ready().await.map_err(root_cause)?;
        let request = Request::post(format!("http://{}{CONNECT}", url.authority()))
            .header(http::header::CONTENT_TYPE, "application/grpc")
            .header(http::header::TE, "trailers")
            .body(())
            .map_err(|error| error.to_string())?;
        let (response, mut out) = calls.send_request(request, false).map_err(root_cause)?;
        grpc::send(&mut out, grpc::frame(&self.hello(peer))).await.map_err(root_cause)?;
        let response = response.await.map_err(root_cause)?;
        match Status::from_header_map(response.headers()) {
            Some(status) if status.code() != Code::Ok => {
                return Err(format!("refused: {}", status.message()));
            }
            _ => {}
        }
        let mut frames = Frames::new(response.into_body());
        let Some(frame::Frame::Hello(hello)) = frames.next().await? else {
            return Err("it did not greet".to_owned());
        };
        if hello.from != peer.0 {
            return Err(format!("member {:x} answers there", hello.from));
        }
        self.judge(&hello)?;
        Ok((frames, out))
    }

    /// Logs a line, unless it was logged a moment ago.
    fn complain(&self, line: String) {
        /// More different lines than this are not remembered: a stranger may invent them.
        const LINES_MAX: usize = 256;
        let now = Instant::now();
        {
            let mut complaints = self.complaints.lock().unwrap_or_else(PoisonError::into_inner);
            complaints.retain(|_, since| now.duration_since(*since) < COMPLAINT_INTERVAL);
            if complaints.contains_key(&line) || complaints.len() >= LINES_MAX {
                return;
            }
            complaints.insert(line.clone(), now);
        }
        warn!("{line}");
    }
}

fn pulse(pings: Option<PingPong>) -> Pulse {
    Pulse::new(pings.expect("it is asked for once"), PING_INTERVAL, PING_PATIENCE)
}

/// Waits no longer than this.
async fn within<T>(
    patience: Duration,
    result: impl Future<Output = Result<T, String>>,
) -> Result<T, String> {
    timeout(patience, result).await.unwrap_or_else(|_| Err("it does not answer".to_owned()))
}

/// The innermost error: what the system said.
fn root_cause(error: impl std::error::Error) -> String {
    let mut cause: &dyn std::error::Error = &error;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    cause.to_string()
}
