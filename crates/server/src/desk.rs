//! Where requests wait for the node: one desk per thread that takes requests.
//!
//! A request costs the node's thread no wake-up and no allocation of its own: what one turn of a
//! network thread's loop brings in crosses to the node as one batch, and what one round of the
//! node answers crosses back as one batch per thread. Everything else happens on the thread that
//! holds the connection, without locks.

use replica::{Input, PeerMessage, Persisted, Reply, RequestId};
use std::cell::RefCell;
use std::collections::BTreeSet;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::{Notify, OwnedSemaphorePermit};
use tokio::time::Instant;

/// Requests that wait at one desk hold at most so many bytes.
const WAITING_BYTES_MAX: usize = 256 << 20;

/// What reaches the node's thread.
pub enum Mail {
    /// Requests, or anything else that is an input.
    Inputs(Vec<Input>),
    /// Messages from one peer; the permit counts their bytes until the node has taken them.
    Peer(raft::NodeId, Vec<PeerMessage>, OwnedSemaphorePermit),
    /// What is on disk now.
    Persisted(Persisted),
    /// The member stops.
    Stop,
}

/// Answers of one round for one desk.
pub type Answers = Vec<(RequestId, Reply)>;

/// The node's side of all desks.
pub struct Counter {
    desks: Vec<(UnboundedSender<Answers>, Answers)>,
}

impl Counter {
    /// As many desks as threads that take requests; each [`DeskKit`] makes one of them.
    pub fn new(desks: usize, inbox: &UnboundedSender<Mail>) -> (Counter, Vec<DeskKit>) {
        assert!(desks <= 256, "a request's id has 8 bits for its desk");
        let (senders, kits) = (0..desks as u64)
            .map(|number| {
                let (sender, answers) = unbounded_channel();
                ((sender, Vec::new()), DeskKit { number, inbox: inbox.clone(), answers })
            })
            .unzip();
        (Counter { desks: senders }, kits)
    }

    /// Hands a round's answers to their desks.
    pub fn deliver(&mut self, replies: &mut Answers) {
        for (request, reply) in replies.drain(..) {
            self.desks[(request.0 >> 56) as usize].1.push((request, reply));
        }
        for (sender, answers) in &mut self.desks {
            if !answers.is_empty() {
                // A desk that is gone has nobody waiting.
                let _ = sender.send(std::mem::take(answers));
            }
        }
    }
}

/// What a thread needs to open its desk.
pub struct DeskKit {
    number: u64,
    inbox: UnboundedSender<Mail>,
    answers: UnboundedReceiver<Answers>,
}

struct Desk {
    /// In its place in a request's id.
    number: u64,
    slots: Vec<Slot>,
    free: Vec<u32>,
    waiting_bytes: usize,
    outgoing: Vec<Input>,
    bell: Option<Waker>,
    /// Of the requests whose clients stop waiting some time.
    deadlines: BTreeSet<(Instant, RequestId)>,
    /// Rings when there is a new first of them.
    alarm: Arc<Notify>,
}

/// A place to wait. A request's id is desk, generation, slot: 8, 24 and 32 bits.
struct Slot {
    generation: u32,
    bytes: usize,
    deadline: Option<Instant>,
    state: State,
}

enum State {
    Free,
    /// A task waits.
    Waiting(Option<Waker>),
    /// What is done with the answer; no task.
    Next(Next),
    Answered(Reply),
}

/// What goes on with an answer.
type Next = Box<dyn FnOnce(Result<Reply, DeadlinePassed>)>;

/// The client stopped waiting before there was an answer.
#[derive(Debug)]
pub struct DeadlinePassed;

/// What is to be done about an answer.
enum Answering {
    Wake(Waker),
    Next(Next, Reply),
    Nobody,
}

thread_local! {
    static DESK: RefCell<Option<Desk>> = const { RefCell::new(None) };
}

fn with<T>(act: impl FnOnce(&mut Desk) -> T) -> T {
    DESK.with_borrow_mut(|desk| act(desk.as_mut().expect("this thread has a desk")))
}

/// Opens this thread's desk. The tasks that serve it run on the current runtime, which must be
/// of one thread.
pub fn open(kit: DeskKit) {
    let DeskKit { number, inbox, mut answers } = kit;
    DESK.set(Some(Desk {
        number: number << 56,
        slots: Vec::new(),
        free: Vec::new(),
        waiting_bytes: 0,
        outgoing: Vec::new(),
        bell: None,
        deadlines: BTreeSet::new(),
        alarm: Arc::default(),
    }));
    tokio::spawn(async move {
        loop {
            poll_fn(|context| with(|desk| desk.poll_outgoing(context))).await;
            if with(|desk| desk.outgoing.len() > 1) {
                // Whoever is ready to run in this turn of the loop may add to the batch.
                tokio::task::yield_now().await;
            }
            let batch = with(|desk| std::mem::take(&mut desk.outgoing));
            if inbox.send(Mail::Inputs(batch)).is_err() {
                return; // The node is gone: the process ends.
            }
        }
    });
    tokio::spawn(async move {
        while let Some(batch) = answers.recv().await {
            for (request, reply) in batch {
                match with(|desk| desk.answer(request, reply)) {
                    Answering::Wake(waker) => waker.wake(),
                    Answering::Next(next, reply) => next(Ok(reply)),
                    Answering::Nobody => {}
                }
            }
        }
    });
    tokio::spawn(watch_deadlines());
}

/// Gives up for clients that wait no longer.
async fn watch_deadlines() {
    let alarm = with(|desk| Arc::clone(&desk.alarm));
    loop {
        let first = with(|desk| desk.deadlines.first().map(|(deadline, _)| *deadline));
        let Some(first) = first else {
            alarm.notified().await;
            continue;
        };
        tokio::select! {
            () = alarm.notified() => continue,
            () = tokio::time::sleep_until(first) => {}
        }
        while let Some(next) = with(|desk| desk.give_up(first)) {
            next(Err(DeadlinePassed));
        }
    }
}

/// Sends a request to the node, and has its answer handled on this thread, without a task that
/// waits. If too much waits already the answer is [`Reply::Busy`], as in [`ask`].
///
/// # Panics
/// On a thread without a desk.
pub fn submit(
    bytes: usize,
    deadline: Option<Instant>,
    request: impl FnOnce(RequestId) -> Input,
    next: impl FnOnce(Result<Reply, DeadlinePassed>) + 'static,
) {
    let next: Next = Box::new(next);
    let refused = with(|desk| {
        let Some(id) = desk.take_slot(bytes) else { return Some(next) };
        let slot = desk.slot(id).expect("it was taken just now");
        (slot.state, slot.deadline) = (State::Next(next), deadline);
        if let Some(deadline) = deadline {
            desk.deadlines.insert((deadline, id));
            if desk.deadlines.first() == Some(&(deadline, id)) {
                desk.alarm.notify_one();
            }
        }
        desk.send(request(id));
        None
    });
    if let Some(next) = refused {
        next(Ok(Reply::Busy));
    }
}

/// Sends a request to the node and waits for its answer. When the future is dropped, nobody waits
/// any more; what was proposed stays proposed.
///
/// `bytes` is what the request holds in memory; beyond a bound the answer is [`Reply::Busy`].
///
/// # Panics
/// On a thread without a desk.
pub async fn ask(bytes: usize, request: impl FnOnce(RequestId) -> Input) -> Reply {
    let id = with(|desk| {
        let id = desk.take_slot(bytes)?;
        desk.send(request(id));
        Some(id)
    });
    match id {
        Some(id) => Waiting { id, answered: false }.await,
        None => Reply::Busy,
    }
}

/// A request that waits.
struct Waiting {
    id: RequestId,
    answered: bool,
}

impl Future for Waiting {
    type Output = Reply;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Reply> {
        let id = self.id;
        let answer = with(|desk| {
            let slot = desk.slot(id).expect("a slot is kept until its answer is taken");
            match std::mem::replace(&mut slot.state, State::Free) {
                State::Answered(reply) => {
                    desk.free_slot(id);
                    Some(reply)
                }
                State::Free | State::Waiting(_) | State::Next(_) => {
                    slot.state = State::Waiting(Some(context.waker().clone()));
                    None
                }
            }
        });
        match answer {
            Some(reply) => {
                self.answered = true;
                Poll::Ready(reply)
            }
            None => Poll::Pending,
        }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        if self.answered {
            return;
        }
        // During the thread's own end there may be no desk any more.
        let _ = DESK.try_with(|desk| {
            if let Ok(mut desk) = desk.try_borrow_mut()
                && let Some(desk) = desk.as_mut()
            {
                let waits =
                    desk.slot(self.id).is_some_and(|s| matches!(s.state, State::Waiting(_)));
                desk.free_slot(self.id);
                if waits {
                    desk.send(Input::Cancel(self.id));
                }
            }
        });
    }
}

impl Desk {
    fn take_slot(&mut self, bytes: usize) -> Option<RequestId> {
        if self.waiting_bytes.saturating_add(bytes) > WAITING_BYTES_MAX {
            return None;
        }
        self.waiting_bytes += bytes;
        let index = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot { generation: 0, bytes: 0, deadline: None, state: State::Free });
            (self.slots.len() - 1) as u32
        });
        let slot = &mut self.slots[index as usize];
        slot.generation = (slot.generation + 1) & 0xff_ffff;
        slot.bytes = bytes;
        slot.state = State::Waiting(None);
        Some(RequestId(self.number | u64::from(slot.generation) << 32 | u64::from(index)))
    }

    /// The slot of a request, if it is still that request's.
    fn slot(&mut self, id: RequestId) -> Option<&mut Slot> {
        let slot = self.slots.get_mut(id.0 as u32 as usize)?;
        (slot.generation == (id.0 >> 32) as u32 & 0xff_ffff).then_some(slot)
    }

    fn free_slot(&mut self, id: RequestId) {
        let slot = &mut self.slots[id.0 as u32 as usize];
        slot.state = State::Free;
        if let Some(deadline) = slot.deadline.take() {
            self.deadlines.remove(&(deadline, id));
        }
        self.waiting_bytes -= std::mem::take(&mut slot.bytes);
        self.free.push(id.0 as u32);
    }

    /// Takes an answer, and says what is to be done about it.
    fn answer(&mut self, id: RequestId, reply: Reply) -> Answering {
        let Some(slot) = self.slot(id) else { return Answering::Nobody };
        match std::mem::replace(&mut slot.state, State::Free) {
            State::Waiting(waker) => {
                slot.state = State::Answered(reply);
                waker.map_or(Answering::Nobody, Answering::Wake)
            }
            State::Next(next) => {
                self.free_slot(id);
                Answering::Next(next, reply)
            }
            // Given up in the meantime.
            State::Free => Answering::Nobody,
            State::Answered(_) => panic!("every request is answered once"),
        }
    }

    /// Gives up one of the requests whose deadline is not after `now`.
    fn give_up(&mut self, now: Instant) -> Option<Next> {
        let (_, id) = *self.deadlines.first().filter(|(deadline, _)| *deadline <= now)?;
        let slot = self.slot(id).expect("a deadline goes with its request");
        let State::Next(next) = std::mem::replace(&mut slot.state, State::Free) else {
            panic!("only what is answered without a task has a deadline here")
        };
        self.free_slot(id);
        self.send(Input::Cancel(id));
        Some(next)
    }

    fn send(&mut self, input: Input) {
        self.outgoing.push(input);
        if let Some(bell) = self.bell.take() {
            bell.wake();
        }
    }

    fn poll_outgoing(&mut self, context: &Context<'_>) -> Poll<()> {
        if self.outgoing.is_empty() {
            self.bell = Some(context.waker().clone());
            return Poll::Pending;
        }
        Poll::Ready(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A desk and, in the place of the node, whatever the test does with its mail.
    fn run<T>(test: impl AsyncFnOnce(UnboundedReceiver<Mail>, Counter) -> T) -> T {
        let (inbox, mail) = unbounded_channel();
        let (counter, mut kits) = Counter::new(1, &inbox);
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async move {
            open(kits.remove(0));
            test(mail, counter).await
        })
    }

    fn ids(mail: &mut UnboundedReceiver<Mail>) -> Vec<RequestId> {
        match mail.try_recv() {
            Ok(Mail::Inputs(inputs)) => inputs
                .iter()
                .map(|input| match input {
                    Input::Read { request } | Input::Cancel(request) => *request,
                    other => panic!("{other:?}"),
                })
                .collect(),
            _ => Vec::new(),
        }
    }

    fn read(request: RequestId) -> Input {
        Input::Read { request }
    }

    async fn turns() {
        for _ in 0..10 {
            tokio::task::yield_now().await;
        }
    }

    #[test]
    fn requests_of_one_turn_travel_together_and_get_their_own_answers() {
        run(async |mut mail, mut counter| {
            let asks: Vec<_> = (0..5).map(|_| tokio::spawn(ask(10, read))).collect();
            turns().await;
            let ids = ids(&mut mail);
            assert_eq!(ids.len(), 5);
            let mut replies = vec![
                (ids[3], Reply::TimedOut),
                (ids[0], Reply::Readable),
                (ids[1], Reply::Busy),
                (ids[2], Reply::Lost),
                (ids[4], Reply::NoLeader),
            ];
            counter.deliver(&mut replies);
            let mut got = Vec::new();
            for ask in asks {
                got.push(ask.await.unwrap());
            }
            assert_eq!(
                got,
                [Reply::Readable, Reply::Busy, Reply::Lost, Reply::TimedOut, Reply::NoLeader]
            );
            with(|desk| assert_eq!((desk.waiting_bytes, desk.free.len()), (0, 5)));
        });
    }

    #[test]
    fn who_gives_up_is_cancelled_and_a_late_answer_goes_nowhere() {
        run(async |mut mail, mut counter| {
            let ask_one = tokio::spawn(ask(1, read));
            turns().await;
            let first = ids(&mut mail)[0];
            ask_one.abort();
            turns().await;
            assert_eq!(ids(&mut mail), [first], "the node hears of it");
            // The slot serves another request before the late answer arrives.
            let ask_two = tokio::spawn(ask(1, read));
            turns().await;
            let second = ids(&mut mail)[0];
            assert_ne!(first, second);
            counter.deliver(&mut vec![(first, Reply::Lost), (second, Reply::Readable)]);
            assert_eq!(ask_two.await.unwrap(), Reply::Readable);
        });
    }

    #[test]
    fn bytes_are_bounded() {
        run(async |mut mail, _counter| {
            let large = tokio::spawn(ask(WAITING_BYTES_MAX, read));
            turns().await;
            assert_eq!(ids(&mut mail).len(), 1);
            assert_eq!(ask(1, read).await, Reply::Busy);
            large.abort();
            turns().await;
            with(|desk| assert_eq!(desk.waiting_bytes, 0));
        });
    }
}
