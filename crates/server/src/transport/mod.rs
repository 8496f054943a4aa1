//! Streams between members: one for each pair, opened by the member with the larger id.
//!
//! A stream may break at any moment, and what was on it is lost; consensus does not rely on more.
//!
//! What waits for a peer waits in its [`replica::PeerQueue`], where urgent messages pass long ones,
//! and not below: a stream takes its next frame only when the one before has left for the socket,
//! and the kernel keeps little that it has not sent.

mod frames;
mod outgoing;
mod unread;

pub use outgoing::Outgoing;

use crate::accept::Door;
use crate::config::Config;
use crate::desk::Mail;
use crate::grpc;
use crate::http2::Pulse;
use crate::identity::Id;
use crate::socket::Coalescing;
use crate::urls::Url;
use crate::wire::{self, Unreadable};
use arc_swap::ArcSwap;
use bytes::Bytes;
use frames::{Frames, Received, WRITE_BYTES_MAX};
use futures_util::TryFutureExt;
use h2::server::SendResponse;
use h2::{PingPong, RecvStream, SendStream};
use http::Request;
use outgoing::Sending;
use proto::peer::{Frame, Hello, frame};
use raft::{Incarnation, NodeId};
use replica::{Input, NextFrame, PIECE_BYTES_MAX, PeerMessage, Published};
use socket2::SockRef;
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;
use std::time::{Duration, Instant};
use tokio::net::TcpStream;
use tokio::sync::mpsc::UnboundedSender;
use tokio::time::timeout;
use tonic::{Code, Status};
use tracing::{debug, info, warn};
use unread::{NodeGone, Unread};

/// The one call that members make.
const CONNECT: &str = "/raftkv.peer.v1.Peer/Connect";

/// The protocol that this release speaks with its peers. Since version 2 long messages come in parts,
/// and appends and forwards may be overtaken. Since version 3 a vote says for which log it is.
const PROTOCOL_VERSION: u32 = 3;
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
/// HTTP/2: what may be under way in each direction, and the frames that it is cut into. A piece is
/// one of them.
const WINDOW_BYTES: u32 = 8 << 20;
const HTTP2_FRAME_BYTES: u32 = WRITE_BYTES_MAX as u32;
/// Bytes that a socket's writer may hold back to send them together; larger frames go at once.
const HELD_BYTES_MAX: usize = 16 << 10;
/// Bytes that the kernel takes for a peer without having sent them. What it has taken cannot be
/// passed by anything.
const UNSENT_BYTES_MAX: u32 = PIECE_BYTES_MAX as u32;
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
    /// While a long message arrives from a peer, the node is told this often.
    contact_interval: Duration,
    urls: BTreeMap<NodeId, Vec<Url>>,
    outgoing: Arc<Outgoing>,
    inbox: UnboundedSender<Mail>,
    published: Arc<ArcSwap<Published>>,
    streams: AtomicU64,
    /// Taken when a stream is refused or breaks; holds when each line was last logged.
    complaints: Mutex<BTreeMap<String, Instant>>,
}

/// Who speaks on a stream, as its greeting said.
#[derive(Clone, Copy)]
struct Speaker {
    id: NodeId,
    incarnation: Incarnation,
}

impl Speaker {
    fn of(hello: &Hello) -> Speaker {
        let Hello { incarnation_start: start, incarnation_id: id, .. } = *hello;
        Speaker { id: NodeId(hello.from), incarnation: Incarnation { start, id } }
    }
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
            contact_interval: config.heartbeat / 4,
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
    pub async fn accept(self, door: Door) {
        loop {
            let (socket, from, place) = door.next().await;
            let inner = Arc::clone(&self.inner);
            tokio::spawn(async move {
                let Err(why) = inner.serve(socket).await;
                debug!(%from, why, "a connection on the peer port ended");
                drop(place);
            });
        }
    }
}

impl Inner {
    fn hello(&self, to: NodeId) -> Frame {
        let logs = Arc::clone(&self.published.load().logs);
        let hello = Hello {
            cluster_id: self.cluster.0,
            from: self.own.0,
            to: to.0,
            protocol_version: PROTOCOL_VERSION,
            incarnation_start: logs.own.start,
            incarnation_id: logs.own.id,
            history: logs.history,
        };
        Frame { frame: Some(frame::Frame::Hello(hello)) }
    }

    /// One connection of one who dialled.
    async fn serve(self: Arc<Self>, socket: TcpStream) -> Result<Infallible, String> {
        limit_unsent(&socket);
        let connection = h2::server::Builder::new()
            .max_send_buffer_size(WRITE_BYTES_MAX)
            .initial_window_size(WINDOW_BYTES)
            .initial_connection_window_size(2 * WINDOW_BYTES)
            .max_frame_size(HTTP2_FRAME_BYTES)
            .max_concurrent_streams(CALLS_MAX)
            .handshake(Coalescing::with_bound(socket, HELD_BYTES_MAX));
        let mut connection = within(HANDSHAKE_PATIENCE, connection.map_err(root_cause)).await?;
        let mut pulse = pulse(connection.ping_pong());
        let is_peer = Arc::new(AtomicBool::new(false));
        // Handshake of the connection, then greeting of its stream: a stranger holds it no longer.
        let mut stranger = pin!(tokio::time::sleep(2 * HANDSHAKE_PATIENCE));
        loop {
            let next = poll_fn(|context| {
                if !is_peer.load(Ordering::Relaxed) && stranger.as_mut().poll(context).is_ready() {
                    return Poll::Ready(Err("no member greeted".to_owned()));
                }
                match pulse.poll_missed(context) {
                    Poll::Ready(()) => Poll::Ready(Err(SILENT.to_owned())),
                    Poll::Pending => connection.poll_accept(context).map(Ok),
                }
            });
            let (request, respond) = match next.await? {
                Some(call) => call.map_err(root_cause)?,
                None => return Err(CLOSED.to_owned()),
            };
            tokio::spawn(Arc::clone(&self).answer(request, respond, Arc::clone(&is_peer)));
        }
    }

    /// One call of one who dialled: refused, or a stream until it ends.
    async fn answer(
        self: Arc<Self>,
        request: Request<RecvStream>,
        mut respond: SendResponse<Bytes>,
        is_peer: Arc<AtomicBool>,
    ) {
        let is_ours = request.uri().path() == CONNECT;
        let mut frames = Frames::new(request.into_body());
        let greeted = if is_ours {
            self.greeted(&mut frames).await
        } else {
            Err(Status::unimplemented("members make no such call"))
        };
        let peer = match greeted {
            Ok(peer) => peer,
            Err(status) => return grpc::refuse(&mut respond, &status),
        };
        is_peer.store(true, Ordering::Relaxed);
        let from = peer.id;
        let number = self.streams.fetch_add(1, Ordering::Relaxed);
        let Ok(mut out) = respond.send_response(grpc::head(), false) else { return };
        if grpc::send(&mut out, grpc::frame(&self.hello(from))).await.is_ok() {
            tokio::select! {
                biased;
                () = self.receive_once_wanted(peer, number, &mut frames) => {}
                () = self.send(from, number, &mut out) => {}
            }
        }
    }

    /// Reads the greeting of one who dialled.
    async fn greeted(&self, frames: &mut Frames) -> Result<Speaker, Status> {
        let first = within(HANDSHAKE_PATIENCE, frames.next_complete()).await;
        let Ok(Some(Received::Hello(hello))) = first else {
            return Err(Status::invalid_argument("a stream of a peer starts with a greeting"));
        };
        if let Err(why) = self.judge(&hello) {
            self.complain(format!("refused a stream from {:x}: {why}", hello.from));
            return Err(Status::failed_precondition(why));
        }
        if hello.from < self.own.0 {
            return Err(Status::failed_precondition("the member with the larger id dials"));
        }
        Ok(Speaker::of(&hello))
    }

    /// Sends what is queued until another stream takes over, or this one breaks, which whoever
    /// reads it notices as well.
    async fn send(&self, to: NodeId, number: u64, out: &mut SendStream<Bytes>) {
        let sending = Sending::new(Arc::clone(&self.outgoing), to, number);
        loop {
            poll_fn(|context| sending.poll_ready(context)).await;
            // What leaves next is decided when it can leave, not before: until then something more
            // urgent may come.
            let mut sent = grpc::wait_for_room(out, WRITE_BYTES_MAX).await;
            if sent.is_ok() {
                sent = match sending.next_frame() {
                    NextFrame::Batch(messages) => {
                        let messages = messages.into_iter().map(wire::encode).collect();
                        out.send_data(frames::batch(messages), false)
                    }
                    NextFrame::Part { bytes, rest } => out
                        .send_data(frames::part_head(bytes.len(), rest), false)
                        .and_then(|()| out.send_data(bytes, false)),
                    NextFrame::Wait => Ok(()),
                    NextFrame::Ended => return,
                };
            }
            if sent.is_err() {
                return std::future::pending().await;
            }
        }
    }

    /// Whether a greeting is that of a peer, to us.
    fn judge(&self, hello: &Hello) -> Result<(), String> {
        let Hello { cluster_id, from, to, protocol_version, history, .. } = *hello;
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
                 this member speaks version {PROTOCOL_VERSION}: start the newer release on both"
            ));
        }
        let Speaker { id, incarnation } = Speaker::of(hello);
        let logs = Arc::clone(&self.published.load().logs);
        logs.check(id, incarnation, history).map_err(|foreign| foreign.to_string())
    }

    /// Takes a stream into use, in place of an older one; false if a newer one is in use.
    fn established(&self, peer: NodeId, number: u64) -> bool {
        if !self.outgoing.open(peer, number) {
            return false;
        }
        info!(peer = format_args!("{:x}", peer.0), "connected to a peer");
        // What the node sends once it has heard goes to this stream, and nothing that it sends before.
        let _ = self.inbox.send(Mail::Inputs(vec![Input::Connected(peer)]));
        true
    }

    /// Waits until the peer that dialled has found our greeting good, then goes on with its
    /// messages.
    async fn receive_once_wanted(&self, peer: Speaker, number: u64, frames: &mut Frames) {
        let from = peer.id;
        let first = within(HANDSHAKE_PATIENCE, frames.next_complete()).await;
        if let Ok(Some(Received::Messages(_))) = first {
            if self.established(from, number) {
                self.receive(peer, number, frames).await;
            }
        } else {
            self.complain(format!(
                "peer {:x} opened a stream and does not want it; its log says why",
                from.0
            ));
        }
    }

    /// Hands on what a peer says until the stream breaks.
    async fn receive(&self, peer: Speaker, number: u64, frames: &mut Frames) {
        let from = peer.id;
        let mut unread = Unread::new(from, self.inbox.clone(), self.contact_interval);
        let why = loop {
            let received = tokio::select! {
                biased;
                Err(NodeGone) = unread.make_room(), if unread.holds() => return,
                received = frames.next() => received,
            };
            if self.outgoing.stream_of(from) != Some(number) {
                return; // A newer stream took over.
            }
            let handed_on = match received {
                Ok(Some(Received::Messages(messages))) => {
                    let messages = messages.into_iter();
                    unread
                        .add(messages.filter_map(|message| self.read(peer, message)).collect())
                        .await
                }
                Ok(Some(Received::Unknown(kind))) => {
                    let unreadable = Unreadable::Message { kind };
                    self.complain(format!("peer {:x} sent {unreadable}", from.0));
                    Ok(())
                }
                Ok(Some(Received::Bytes)) => unread.note_contact(),
                Ok(Some(Received::Hello(_))) => break "it greeted again".to_owned(),
                Ok(None) => break CLOSED.to_owned(),
                Err(why) => break why,
            };
            if let Err(NodeGone) = handed_on {
                return;
            }
        };
        self.broken(from, number, &why);
    }

    fn broken(&self, peer: NodeId, number: u64, why: &str) {
        if !self.outgoing.close(peer, number) {
            return;
        }
        warn!(peer = format_args!("{:x}", peer.0), why, "lost the connection to a peer");
        let _ = self.inbox.send(Mail::Inputs(vec![Input::Disconnected(peer)]));
    }

    async fn keep_dialling(self: Arc<Self>, peer: NodeId, urls: Vec<Url>) {
        let mut backoff = BACKOFF_MIN;
        for url in urls.iter().cycle() {
            let began = Instant::now();
            match self.try_dial(peer, url).await {
                Ok(()) => {
                    backoff = BACKOFF_MIN;
                    // One that was in use is replaced at once: its peers wait no longer for a leader.
                    if began.elapsed() >= BACKOFF_MAX {
                        continue;
                    }
                }
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
        limit_unsent(&socket);
        let connection = h2::client::Builder::new()
            .max_send_buffer_size(WRITE_BYTES_MAX)
            .initial_window_size(WINDOW_BYTES)
            .initial_connection_window_size(2 * WINDOW_BYTES)
            .max_frame_size(HTTP2_FRAME_BYTES)
            .handshake(Coalescing::with_bound(socket, HELD_BYTES_MAX));
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
        let (speaker, mut frames, mut out) = tokio::select! {
            biased;
            why = &mut ended => return Err(why),
            greeted = greeting => greeted?,
        };
        let number = self.streams.fetch_add(1, Ordering::Relaxed);
        if !self.established(peer, number) {
            return Ok(());
        }
        tokio::select! {
            biased;
            why = &mut ended => self.broken(peer, number, &why),
            () = self.receive(speaker, number, &mut frames) => {}
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
    ) -> Result<(Speaker, Frames, SendStream<Bytes>), String> {
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
        let Some(Received::Hello(hello)) = frames.next_complete().await? else {
            return Err("it did not greet".to_owned());
        };
        if hello.from != peer.0 {
            return Err(format!("member {:x} answers there", hello.from));
        }
        self.judge(&hello)?;
        Ok((Speaker::of(&hello), frames, out))
    }

    /// Reads a message of a peer, and names what cannot be read.
    fn read(&self, peer: Speaker, message: proto::peer::PeerMessage) -> Option<PeerMessage> {
        let Speaker { id: from, incarnation } = peer;
        let read = wire::decode(from, self.own, incarnation, message);
        let unreadable = match &read {
            Ok(message) => wire::unknown_request(message),
            Err(unreadable) => Some(unreadable.clone()),
        };
        if let Some(unreadable) = unreadable {
            self.complain(format!("peer {:x} sent {unreadable}", from.0));
        }
        read.ok()
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

/// Keeps the kernel from taking more for a peer than it can send soon.
fn limit_unsent(socket: &TcpStream) {
    // Without it urgent messages are slower behind long ones; nothing else depends on it.
    let _ = SockRef::from(socket).set_tcp_notsent_lowat(UNSENT_BYTES_MAX);
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
