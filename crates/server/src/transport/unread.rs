//! What arrived from one peer and the node has not taken yet: bounded in bytes.

use crate::desk::Mail;
use raft::NodeId;
use replica::{Input, PeerMessage};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::mpsc::UnboundedSender;
use tokio::sync::{AcquireError, OwnedSemaphorePermit, Semaphore};

/// Appends and forwards that the node has not taken yet; beyond, at most one more batch of them is
/// read.
const BULK_BYTES_MAX: usize = 64 << 20;
/// Urgent messages that the node has not taken yet; beyond, the stream waits.
const URGENT_BYTES_MAX: usize = 4 << 20;

/// Hands on what one peer says.
pub(super) struct Unread {
    from: NodeId,
    inbox: UnboundedSender<Mail>,
    urgent: Arc<Semaphore>,
    bulk: Arc<Semaphore>,
    /// Appends or forwards that wait for room; what is urgent passes them.
    held: Option<Vec<PeerMessage>>,
    /// When the node last heard of the peer.
    heard: Instant,
    contact_interval: Duration,
}

/// The node is gone: the member ends.
#[derive(Debug)]
pub(super) struct NodeGone;

impl Unread {
    /// Nothing of `from` yet. The node is told of bytes that arrive once in this time.
    pub(super) fn new(
        from: NodeId,
        inbox: UnboundedSender<Mail>,
        contact_interval: Duration,
    ) -> Unread {
        Unread {
            from,
            inbox,
            urgent: Arc::new(Semaphore::new(URGENT_BYTES_MAX)),
            bulk: Arc::new(Semaphore::new(BULK_BYTES_MAX)),
            held: None,
            heard: Instant::now(),
            contact_interval,
        }
    }

    /// Hands messages to the node; waits while too much is unread.
    ///
    /// # Errors
    /// [`NodeGone`].
    pub(super) async fn add(&mut self, messages: Vec<PeerMessage>) -> Result<(), NodeGone> {
        let (urgent, bulk): (Vec<_>, Vec<_>) =
            messages.into_iter().partition(PeerMessage::is_urgent);
        if !urgent.is_empty() {
            let permits = permits(&urgent, URGENT_BYTES_MAX);
            let permit = Arc::clone(&self.urgent).acquire_many_owned(permits).await;
            self.hand_on(urgent, permit)?;
        }
        if !bulk.is_empty() {
            self.make_room().await?;
            self.held = Some(bulk);
        }
        Ok(())
    }

    /// Whether something waits for room.
    pub(super) fn holds(&self) -> bool {
        self.held.is_some()
    }

    /// Hands on what waits for room, once there is some. Loses nothing when it is dropped.
    ///
    /// # Errors
    /// [`NodeGone`].
    pub(super) async fn make_room(&mut self) -> Result<(), NodeGone> {
        let Some(held) = &self.held else { return Ok(()) };
        let permits = permits(held, BULK_BYTES_MAX);
        let permit = Arc::clone(&self.bulk).acquire_many_owned(permits).await;
        let Some(held) = self.held.take() else { return Ok(()) };
        self.hand_on(held, permit)
    }

    /// Bytes of a long message have arrived: tells the node that the peer is alive, unless it heard
    /// of it a moment ago.
    ///
    /// # Errors
    /// [`NodeGone`].
    pub(super) fn note_contact(&mut self) -> Result<(), NodeGone> {
        let now = Instant::now();
        if now.duration_since(self.heard) < self.contact_interval {
            return Ok(());
        }
        self.heard = now;
        let contact = Mail::Inputs(vec![Input::Contact(self.from)]);
        self.inbox.send(contact).map_err(|_| NodeGone)
    }

    fn hand_on(
        &mut self,
        messages: Vec<PeerMessage>,
        permit: Result<OwnedSemaphorePermit, AcquireError>,
    ) -> Result<(), NodeGone> {
        self.heard = Instant::now();
        let permit = permit.expect("nobody closes a budget");
        self.inbox.send(Mail::Peer(self.from, messages, permit)).map_err(|_| NodeGone)
    }
}

/// What messages take of a budget; all of it if they are larger.
fn permits(messages: &[PeerMessage], bytes_max: usize) -> u32 {
    messages.iter().map(PeerMessage::bytes).sum::<usize>().min(bytes_max) as u32
}

#[cfg(test)]
mod tests {
    use super::*;
    use raft::{Body, Index, Message, Term};
    use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

    const PEER: NodeId = NodeId(1);

    fn heartbeat(round: u64) -> PeerMessage {
        let body = Body::Heartbeat { commit: Index(0), round };
        let (incarnation, to) = (raft::Incarnation::default(), NodeId(2));
        PeerMessage::Raft(Message { from: PEER, to, term: Term(1), incarnation, body })
    }

    fn forward(bytes: usize) -> PeerMessage {
        PeerMessage::Forward { term: Term(1), proposals: vec![vec![0; bytes].into()] }
    }

    fn run(test: impl AsyncFnOnce(Unread, UnboundedReceiver<Mail>)) {
        let (inbox, mail) = unbounded_channel();
        let unread = Unread::new(PEER, inbox, Duration::from_secs(3600));
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(test(unread, mail));
    }

    /// What the node gets; it has taken it when the permit is dropped.
    fn taken(
        mail: &mut UnboundedReceiver<Mail>,
    ) -> Option<(Vec<PeerMessage>, OwnedSemaphorePermit)> {
        match mail.try_recv() {
            Ok(Mail::Peer(PEER, messages, permit)) => Some((messages, permit)),
            _ => None,
        }
    }

    async fn is_pending(future: impl Future) -> bool {
        let mut future = std::pin::pin!(future);
        std::future::poll_fn(|context| {
            std::task::Poll::Ready(future.as_mut().poll(context).is_pending())
        })
        .await
    }

    #[test]
    fn urgent_messages_pass_bulk_that_waits_for_room() {
        run(async |mut unread, mut mail| {
            unread.add(vec![forward(BULK_BYTES_MAX)]).await.unwrap();
            unread.make_room().await.unwrap();
            unread.add(vec![forward(10)]).await.unwrap();
            assert!(is_pending(unread.make_room()).await);
            unread.add(vec![heartbeat(1), heartbeat(2)]).await.unwrap();
            assert!(unread.holds());
            let (first, room) = taken(&mut mail).unwrap();
            assert!(first == [forward(BULK_BYTES_MAX)]);
            assert_eq!(taken(&mut mail).unwrap().0, [heartbeat(1), heartbeat(2)]);
            assert!(taken(&mut mail).is_none());
            assert!(is_pending(unread.add(vec![forward(11)])).await, "one is held, no more");
            drop(room);
            unread.make_room().await.unwrap();
            assert!(!unread.holds());
            assert_eq!(taken(&mut mail).unwrap().0, [forward(10)]);
        });
    }

    #[test]
    fn urgent_messages_that_nobody_takes_stop_the_stream() {
        run(async |mut unread, mut mail| {
            let many = vec![heartbeat(1); URGENT_BYTES_MAX / heartbeat(1).bytes()];
            unread.add(many).await.unwrap();
            assert!(is_pending(unread.add(vec![heartbeat(2)])).await);
            drop(taken(&mut mail));
            unread.add(vec![heartbeat(3)]).await.unwrap();
        });
    }

    #[test]
    fn bytes_that_arrive_are_told_at_most_once_in_a_while() {
        run(async |mut unread, mut mail| {
            unread.note_contact().unwrap();
            assert!(mail.try_recv().is_err(), "it was heard a moment ago");
            unread.contact_interval = Duration::ZERO;
            unread.note_contact().unwrap();
            let told = mail.try_recv();
            assert!(matches!(told, Ok(Mail::Inputs(inputs))
                if matches!(inputs[..], [Input::Contact(PEER)])));
        });
    }
}
