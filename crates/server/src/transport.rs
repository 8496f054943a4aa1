//! Streams between members: one for each pair, opened by the member with the larger id.
//!
//! A stream may break at any moment, and what was on it is lost; consensus does not rely on
//! more. Queues are bounded in bytes: a peer that does not keep up loses messages, it never slows
//! the node.

use crate::config::Config;
use crate::desk::Mail;
use crate::identity::Id;
use crate::socket::Coalescing;
use crate::urls::Url;
use crate::wire;
use arc_swap::ArcSwap;
use futures_util::{Stream, StreamExt};
use hyper_util::rt::TokioIo;
use proto::peer::{Batch, Frame, Hello, frame};
use raft::{Index, NodeId};
use replica::{Input, PeerMessage, Published};
use std::collections::{BTreeMap, VecDeque};
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker, ready};
use std::time::{Duration, Instant};
use tokio::net::TcpStream;
use tokio::sync::mpsc::UnboundedSender;
use tokio::sync::{Semaphore, oneshot};
use tonic::transport::Endpoint;
use tonic::{Request, Response, Status, Streaming};
use tracing::{info, warn};

/// The protocol that this release speaks with its peers.
const PROTOCOL_VERSION: u32 = 1;
/// Messages that wait for one peer hold at most so many bytes; the newest are dropped.
const QUEUE_BYTES_MAX: usize = 64 << 20;
/// A frame is closed once it holds so many bytes.
const FRAME_BYTES: usize = 1 << 20;
/// No frame is larger: one message beyond [`FRAME_BYTES`] may hold an append of full size.
const FRAME_BYTES_MAX: usize = 128 << 20;
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
/// HTTP/2 windows: what may be under way in each direction.
const WINDOW_BYTES: u32 = 8 << 20;

/// The queues to all peers. The node fills them, and the streams beside it on its thread empty them.
pub struct Outgoing {
    peers: BTreeMap<NodeId, Peer>,
}

struct Peer {
    /// Taken for a few moves of memory, by the node's thread, and by the main thread when it counts;
    /// nobody waits while holding it.
    queue: Mutex<Queue>,
}

#[derive(Default)]
struct Queue {
    /// Which stream empties it; none if there is none.
    stream: Option<u64>,
    messages: VecDeque<PeerMessage>,
    bytes: usize,
    /// Wake streams by their numbers: the one in use when there is something to send, one that
    /// waits for its handshake when it is taken into use, one that was replaced so that it ends.
    wakers: BTreeMap<u64, Waker>,
    dropped: u64,
}

impl Outgoing {
    /// Queues to these peers.
    pub fn new(peers: impl IntoIterator<Item = NodeId>) -> Outgoing {
        let peers = peers.into_iter().map(|id| (id, Peer { queue: Mutex::default() })).collect();
        Outgoing { peers }
    }

    /// Queues a message for a peer; it leaves after the next [`Outgoing::flush`] at the latest.
    ///
    /// Without a stream, or with a full queue, the message is dropped. If it asked the peer to
    /// propose something, the peer's refusal is returned in its place: it was not proposed.
    pub fn queue(&self, to: NodeId, message: PeerMessage) -> Option<PeerMessage> {
        let Some(peer) = self.peers.get(&to) else { return message.refusal() };
        let cost = wire::cost(&message);
        let mut queue = peer.lock();
        let fits = queue.bytes == 0 || queue.bytes + cost <= QUEUE_BYTES_MAX;
        if queue.stream.is_none() || !fits {
            queue.dropped += 1;
            drop(queue);
            return message.refusal();
        }
        queue.bytes += cost;
        queue.messages.push_back(message);
        None
    }

    /// Wakes the streams that have something to send.
    pub fn flush(&self) {
        for peer in self.peers.values() {
            let waker = {
                let mut queue = peer.lock();
                let number = queue.stream.filter(|_| !queue.messages.is_empty());
                number.and_then(|number| queue.wakers.remove(&number))
            };
            if let Some(waker) = waker {
                waker.wake();
            }
        }
    }

    /// How many peers have a stream.
    pub fn connected(&self) -> usize {
        self.peers.values().filter(|peer| peer.lock().stream.is_some()).count()
    }
}

impl Peer {
    fn lock(&self) -> std::sync::MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a stream sends: a greeting; once it is taken into use an empty batch, which tells the
/// other side so; then whatever is queued, until another stream takes over.
struct Sending {
    outgoing: Arc<Outgoing>,
    to: NodeId,
    number: u64,
    hello: Option<Frame>,
    in_use: bool,
    /// Ends the stream when its other end is dropped: HTTP/2 would keep a request open whose
    /// answer nobody reads any more.
    ended: Option<oneshot::Receiver<()>>,
}

impl Sending {
    /// Takes what is queued, up to a frame's size; waits if there is nothing.
    fn poll_queue(&mut self, context: &mut Context<'_>) -> Poll<Option<Vec<PeerMessage>>> {
        let mut queue = self.outgoing.peers[&self.to].lock();
        let ours = queue.stream == Some(self.number);
        if !ours && (self.in_use || queue.stream.is_some_and(|newer| newer > self.number)) {
            return Poll::Ready(None);
        }
        let first = ours && !self.in_use;
        self.in_use = ours;
        if !first && (!ours || queue.messages.is_empty()) {
            queue.wakers.insert(self.number, context.waker().clone());
            return Poll::Pending;
        }
        let mut taken = Vec::new();
        let mut bytes = 0;
        while !first
            && bytes < FRAME_BYTES
            && let Some(message) = queue.messages.pop_front()
        {
            let cost = wire::cost(&message);
            bytes += cost;
            queue.bytes -= cost;
            taken.push(message);
        }
        Poll::Ready(Some(taken))
    }
}

impl Stream for Sending {
    type Item = Frame;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Frame>> {
        if let Some(ended) = &mut self.ended
            && Pin::new(ended).poll(context).is_ready()
        {
            return Poll::Ready(None);
        }
        if let Some(hello) = self.hello.take() {
            return Poll::Ready(Some(hello));
        }
        let Some(messages) = ready!(self.poll_queue(context)) else { return Poll::Ready(None) };
        let messages = messages.into_iter().map(wire::encode).collect();
        Poll::Ready(Some(Frame { frame: Some(frame::Frame::Batch(Batch { messages })) }))
    }
}

impl Drop for Sending {
    fn drop(&mut self) {
        self.outgoing.peers[&self.to].lock().wakers.remove(&self.number);
    }
}

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

    /// The gRPC service that answers the peers that dial this member.
    pub fn service(&self) -> proto::peer::peer_server::PeerServer<Transport> {
        proto::peer::peer_server::PeerServer::new(self.clone())
            .max_decoding_message_size(FRAME_BYTES_MAX)
            .max_encoding_message_size(FRAME_BYTES_MAX)
    }
}

#[tonic::async_trait]
impl proto::peer::peer_server::Peer for Transport {
    type ConnectStream = Pin<Box<dyn Stream<Item = Result<Frame, Status>> + Send>>;

    async fn connect(
        &self,
        request: Request<Streaming<Frame>>,
    ) -> Result<Response<Self::ConnectStream>, Status> {
        let inner = &self.inner;
        let mut frames = request.into_inner();
        let greeting = tokio::time::timeout(HANDSHAKE_PATIENCE, frames.message()).await;
        let hello = match greeting {
            Ok(Ok(Some(Frame { frame: Some(frame::Frame::Hello(hello)) }))) => hello,
            _ => return Err(Status::invalid_argument("a stream of a peer starts with a greeting")),
        };
        let from = NodeId(hello.from);
        if let Err(why) = inner.judge(&hello) {
            inner.complain(format!("refused a stream from {:x}: {why}", hello.from));
            return Err(Status::failed_precondition(why));
        }
        if from < inner.own {
            return Err(Status::failed_precondition("the member with the larger id dials"));
        }
        let number = inner.streams.fetch_add(1, Ordering::Relaxed);
        let sending = inner.sending(from, number, None);
        tokio::spawn(Arc::clone(inner).receive_once_wanted(from, number, frames));
        Ok(Response::new(Box::pin(sending.map(Ok))))
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

    fn sending(&self, to: NodeId, number: u64, ended: Option<oneshot::Receiver<()>>) -> Sending {
        let hello = Some(self.hello(to));
        let outgoing = Arc::clone(&self.outgoing);
        Sending { outgoing, to, number, hello, in_use: false, ended }
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
        self.switch(peer, Some(number));
        info!(peer = format_args!("{:x}", peer.0), "connected to a peer");
    }

    /// Makes a stream, or none, the one that empties the queue; what is queued is lost.
    fn switch(&self, peer: NodeId, stream: Option<u64>) {
        let wakers = {
            let mut queue = self.outgoing.peers[&peer].lock();
            queue.stream = stream;
            queue.messages.clear();
            queue.bytes = 0;
            std::mem::take(&mut queue.wakers)
        };
        for waker in wakers.into_values() {
            waker.wake();
        }
    }

    /// Waits until the peer that dialled has found our greeting good, then goes on with its
    /// messages.
    async fn receive_once_wanted(
        self: Arc<Self>,
        from: NodeId,
        number: u64,
        mut frames: Streaming<Frame>,
    ) {
        let first = tokio::time::timeout(HANDSHAKE_PATIENCE, frames.message()).await;
        if let Ok(Ok(Some(Frame { frame: Some(frame::Frame::Batch(_)) }))) = first {
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
    async fn receive(self: Arc<Self>, from: NodeId, number: u64, mut frames: Streaming<Frame>) {
        let unread = Arc::new(Semaphore::new(UNREAD_BYTES_MAX));
        let why = loop {
            let batch = match frames.message().await {
                Ok(Some(Frame { frame: Some(frame::Frame::Batch(batch)) })) => batch,
                Ok(Some(_)) => break "it sent something else than messages".to_owned(),
                Ok(None) => break "it closed the stream".to_owned(),
                Err(status) => break root_cause(&status),
            };
            if self.stream_of(from) != Some(number) {
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

    fn stream_of(&self, peer: NodeId) -> Option<u64> {
        self.outgoing.peers[&peer].lock().stream
    }

    fn broken(&self, peer: NodeId, number: u64, why: &str) {
        if self.stream_of(peer) != Some(number) {
            return;
        }
        self.switch(peer, None);
        warn!(peer = format_args!("{:x}", peer.0), why, "lost the connection to a peer");
        let _ = self.inbox.send(Mail::Inputs(vec![Input::Disconnected(peer)]));
    }

    async fn keep_dialling(self: Arc<Self>, peer: NodeId, urls: Vec<Url>) {
        let mut backoff = BACKOFF_MIN;
        for url in urls.iter().cycle() {
            match Arc::clone(&self).try_dial(peer, url).await {
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
    async fn try_dial(self: Arc<Self>, peer: NodeId, url: &Url) -> Result<(), String> {
        let endpoint = Endpoint::from_shared(url.to_string())
            .map_err(|error| error.to_string())?
            .connect_timeout(CONNECT_PATIENCE)
            .initial_stream_window_size(WINDOW_BYTES)
            .initial_connection_window_size(2 * WINDOW_BYTES)
            .http2_keep_alive_interval(PING_INTERVAL)
            .keep_alive_timeout(PING_PATIENCE)
            .keep_alive_while_idle(true);
        let authority = url.authority().to_owned();
        let connector = tower::service_fn(move |_| {
            let authority = authority.clone();
            async move {
                let socket = TcpStream::connect(authority).await?;
                socket.set_nodelay(true)?;
                Ok::<_, std::io::Error>(TokioIo::new(Coalescing::new(socket)))
            }
        });
        let channel =
            endpoint.connect_with_connector(connector).await.map_err(|error| root_cause(&error))?;
        let mut client = proto::peer::peer_client::PeerClient::new(channel)
            .max_decoding_message_size(FRAME_BYTES_MAX)
            .max_encoding_message_size(FRAME_BYTES_MAX);
        let number = self.streams.fetch_add(1, Ordering::Relaxed);
        // Dropped at the end of this function, however that comes.
        let (_open, ended) = oneshot::channel();
        let greeting = async {
            let mut frames =
                client.connect(self.sending(peer, number, Some(ended))).await?.into_inner();
            let first = frames.message().await?;
            Ok::<_, Status>((frames, first))
        };
        let (frames, first) = tokio::time::timeout(HANDSHAKE_PATIENCE, greeting)
            .await
            .map_err(|_| "it does not answer".to_owned())?
            .map_err(|status| format!("refused: {}", status.message()))?;
        let Some(Frame { frame: Some(frame::Frame::Hello(hello)) }) = first else {
            return Err("it did not greet".to_owned());
        };
        if hello.from != peer.0 {
            return Err(format!("member {:x} answers there", hello.from));
        }
        self.judge(&hello)?;
        self.established(peer, number);
        Arc::clone(&self).receive(peer, number, frames).await;
        Ok(())
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

/// The innermost error: what the system said.
fn root_cause(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    cause.to_string()
}
