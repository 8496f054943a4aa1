//! A client's connection over HTTP/2: takes what it asks, sends what is answered.

use crate::connection::ClientConnection;
use crate::socket::Coalescing;
use bytes::Bytes;
use h2::server::{Builder, Connection, SendResponse};
use h2::{Ping, PingPong, RecvStream};
use http::Request;
use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{Instant, Sleep};
use tracing::debug;

/// Metadata of one request.
const HEADER_BYTES_MAX: u32 = 64 << 10;
/// What may be under way on one request, and on one connection.
const STREAM_WINDOW_BYTES: u32 = 1 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 4 << 20;
/// Who opens a connection finishes its greeting within this time.
const GREETING_PATIENCE: Duration = Duration::from_secs(30);

/// A client that has answers to take, and takes nothing for so long, is given up. Looked at once in
/// this time, so it may be up to twice as long; longer than a single stream may stall.
const STALLED_TIMEOUT: Duration = Duration::from_secs(90);

/// Longer settings mean the same, and clocks can be added to.
const INTERVAL_MAX: Duration = Duration::from_secs(365 * 24 * 3600);

/// What a connection may do, and how long it may be silent.
#[derive(Clone, Copy)]
pub struct Terms {
    /// Requests at once.
    pub streams_max: u32,
    /// A client that asks nothing for so long is pinged.
    pub keepalive_interval: Duration,
    /// And given up if it does not answer within this time.
    pub keepalive_timeout: Duration,
}

type Asked = (Request<RecvStream>, SendResponse<Bytes>);

/// Serves a connection until it ends, or until `stop` turns true: then what is under way is
/// finished and nothing new accepted. Each request is taken by `take`, which does not wait, once
/// `account` has room for its answer.
pub async fn serve(
    socket: Coalescing<TcpStream>,
    terms: Terms,
    mut stop: watch::Receiver<bool>,
    account: &ClientConnection,
    take: impl Fn(Request<RecvStream>, SendResponse<Bytes>),
) {
    let taken = socket.taken();
    let greeting = Builder::new()
        .max_concurrent_streams(terms.streams_max)
        .max_header_list_size(HEADER_BYTES_MAX)
        .initial_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .handshake(socket);
    let mut connection = match tokio::time::timeout(GREETING_PATIENCE, greeting).await {
        Ok(Ok(connection)) => connection,
        Ok(Err(error)) => return debug!(%error, "a client's connection ended at once"),
        Err(_) => return debug!("a client did not finish its greeting"),
    };
    let mut stopping = pin!(async move { drop(stop.wait_for(|stop| *stop).await) });
    let mut told = false;
    let pings = connection.ping_pong().expect("it is asked for once");
    let mut pulse = Pulse::new(pings, terms.keepalive_interval, terms.keepalive_timeout);
    let mut stall = Stall { taken, before: 0, due: None };
    let mut asked = VecDeque::new();
    let mut more = true;
    while more {
        let waited = asked.len();
        more = poll_fn(|context| {
            if !told && stopping.as_mut().poll(context).is_ready() {
                told = true;
                connection.graceful_shutdown();
            }
            match poll_all(&mut connection, &mut asked, account, context) {
                Poll::Ready(more) => Poll::Ready(more),
                Poll::Pending if stall.poll_given_up(account, context).is_ready() => {
                    Poll::Ready(false)
                }
                Poll::Pending => pulse.poll_missed(context).map(|()| false),
            }
        })
        .await;
        if asked.len() > waited {
            pulse.felt();
        }
        account.go_on();
        // All that came in together before the first answer: then the answers leave together too.
        while account.has_room()
            && !account.is_waited_for()
            && let Some((request, respond)) = asked.pop_front()
        {
            take(request, respond);
        }
    }
    account.close();
}

/// Takes every request that has arrived. Ready when there is something to do: a request, or room for
/// one that waits. Ready as well when the connection has ended: false.
fn poll_all(
    connection: &mut Connection<Coalescing<TcpStream>, Bytes>,
    asked: &mut VecDeque<Asked>,
    account: &ClientConnection,
    context: &mut Context<'_>,
) -> Poll<bool> {
    loop {
        match connection.poll_accept(context) {
            Poll::Ready(Some(Ok(request))) => asked.push_back(request),
            Poll::Ready(Some(Err(error))) => {
                debug!(%error, "a client's connection ended");
                return Poll::Ready(false);
            }
            Poll::Ready(None) => return Poll::Ready(false),
            Poll::Pending if asked.is_empty() && !account.is_waited_for() => return Poll::Pending,
            Poll::Pending => {
                account.wake_when_room(context.waker());
                return if account.has_room() { Poll::Ready(true) } else { Poll::Pending };
            }
        }
    }
}

/// Finds out whether a client that has answers to take takes any.
struct Stall {
    /// Bytes that the socket has taken, now and at the last look.
    taken: Arc<AtomicU64>,
    before: u64,
    /// When to look next; while there is nothing to take, never.
    due: Option<Pin<Box<Sleep>>>,
}

impl Stall {
    /// Ready when the client is given up.
    fn poll_given_up(&mut self, account: &ClientConnection, context: &mut Context<'_>) -> Poll<()> {
        loop {
            let Some(due) = &mut self.due else {
                if account.unsent() == 0 {
                    return Poll::Pending;
                }
                self.before = self.taken.load(Ordering::Relaxed);
                self.due = Some(Box::pin(tokio::time::sleep(STALLED_TIMEOUT)));
                continue;
            };
            ready!(due.as_mut().poll(context));
            self.due = None;
            if account.unsent() > 0 && self.taken.load(Ordering::Relaxed) == self.before {
                debug!("a client took none of its answers");
                return Poll::Ready(());
            }
        }
    }
}

/// Finds out whether the other end of a silent connection is still there.
pub struct Pulse {
    pings: PingPong,
    interval: Duration,
    patience: Duration,
    /// When the next ping is due, or the answer to the last one is overdue.
    due: Pin<Box<Sleep>>,
    waiting: bool,
}

impl Pulse {
    /// Pings after this interval without a sign of life, and waits so long for the answer.
    pub fn new(pings: PingPong, interval: Duration, patience: Duration) -> Pulse {
        let interval = interval.min(INTERVAL_MAX);
        Pulse {
            pings,
            interval,
            patience: patience.min(INTERVAL_MAX),
            due: Box::pin(tokio::time::sleep(interval)),
            waiting: false,
        }
    }

    /// There was a sign of life.
    fn felt(&mut self) {
        if !self.waiting && self.due.deadline() < Instant::now() + self.interval / 2 {
            self.due.as_mut().reset(Instant::now() + self.interval);
        }
    }

    /// Pings when it is time. Ready when a ping was not answered.
    pub fn poll_missed(&mut self, context: &mut Context<'_>) -> Poll<()> {
        if self.waiting && self.pings.poll_pong(context).is_ready() {
            self.waiting = false;
            self.due.as_mut().reset(Instant::now() + self.interval);
        }
        while self.due.as_mut().poll(context).is_ready() {
            if self.waiting {
                debug!("a ping was not answered");
                return Poll::Ready(());
            }
            // It fails when the connection does, which shows by itself.
            let _ = self.pings.send_ping(Ping::opaque());
            self.waiting = true;
            self.due.as_mut().reset(Instant::now() + self.patience);
        }
        Poll::Pending
    }
}
