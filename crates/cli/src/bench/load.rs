//! What a client of the load does.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use tokio::sync::Semaphore;
use tokio::time::Sleep;

use super::connection::Connection;
use super::report::Tally;
use super::requests::{self, Requests};
use crate::arguments::Bench;

/// After which a request counts as failed.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// What all clients of a run share. One thread runs them.
pub(super) struct Run {
    pub(super) bench: Bench,
    /// Permits to start and their rate per second, if it is fixed.
    pub(super) permits: Option<(Arc<Semaphore>, u32)>,
    pub(super) start: Instant,
    /// From when on requests count.
    pub(super) measured: Instant,
    pub(super) end: Option<Instant>,
    pub(super) tally: RefCell<Tally>,
    /// Requests begun.
    pub(super) issued: Cell<u64>,
    /// Requests begun that count.
    pub(super) recorded: Cell<u64>,
}

/// When the nth request of a fixed rate starts.
pub(super) fn due(start: Instant, n: u64, rate: u32) -> Instant {
    let (seconds, rest) = (n / u64::from(rate), n % u64::from(rate));
    start + Duration::new(seconds, 0) + Duration::from_nanos(rest * 1_000_000_000 / u64::from(rate))
}

/// A request's time has come.
pub(super) struct Turn {
    /// When it should start, which is when its latency counts from.
    pub(super) due: Instant,
    /// When it did.
    pub(super) begun: Instant,
}

impl Run {
    /// Waits for a request's turn; `None` at the end.
    async fn turn(&self) -> Option<Turn> {
        let turn = match &self.permits {
            None => {
                let now = Instant::now();
                self.issued.set(self.issued.get() + 1);
                Turn { due: now, begun: now }
            }
            Some((permits, rate)) => {
                permits.acquire().await.ok()?.forget();
                let n = self.issued.replace(self.issued.get() + 1);
                Turn { due: due(self.start, n, *rate), begun: Instant::now() }
            }
        };
        if self.is_over(turn.due) {
            // At a low rate, the others' permits would take their time.
            if let Some((permits, _)) = &self.permits {
                permits.close();
            }
            return None;
        }
        if turn.due >= self.measured {
            self.recorded.set(self.recorded.get() + 1);
        }
        Some(turn)
    }

    /// Whether nothing that is due at this time is sent any more.
    fn is_over(&self, due: Instant) -> bool {
        self.end.is_some_and(|end| due >= end)
            || self.bench.total.is_some_and(|total| self.recorded.get() >= total)
    }
}

pub(super) async fn client(run: Rc<Run>, connection: Rc<Connection>, number: u64) {
    let mut requests = Requests::new(&run.bench, number);
    let mut patience = Patience::new(REQUEST_TIMEOUT);
    while let Some(turn) = run.turn().await {
        let request = requests.next(run.issued.get());
        let method = request.method();
        let call = pin!(connection.call(method, request.frame()));
        let answer = match patience.wait(call).await {
            Some(answer) => answer.and_then(|message| requests::read(method, message)),
            None => Err("no answer in 10 s".to_owned()),
        };
        if turn.due >= run.measured {
            run.tally.borrow_mut().record(&turn, Instant::now(), answer);
        }
    }
}

/// Ends what takes too long. Its timer is moved when it fires, not for each request.
struct Patience {
    limit: Duration,
    timer: Pin<Box<Sleep>>,
}

impl Patience {
    fn new(limit: Duration) -> Patience {
        Patience { limit, timer: Box::pin(tokio::time::sleep(limit)) }
    }

    /// What the request brings; `None` if it takes too long.
    async fn wait<T>(&mut self, mut request: Pin<&mut impl Future<Output = T>>) -> Option<T> {
        let deadline = tokio::time::Instant::now() + self.limit;
        poll_fn(|context| {
            if let Poll::Ready(answer) = request.as_mut().poll(context) {
                return Poll::Ready(Some(answer));
            }
            // It was set for an earlier request, so it never fires too late.
            while self.timer.as_mut().poll(context).is_ready() {
                if self.timer.deadline() >= deadline {
                    return Poll::Ready(None);
                }
                self.timer.as_mut().reset(deadline);
            }
            Poll::Pending
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fixed_rate_neither_drifts_nor_overflows() {
        let start = Instant::now();
        assert_eq!(due(start, 3, 3), start + Duration::from_secs(1));
        assert_eq!(due(start, 1, 2000), start + Duration::from_micros(500));
        let hour = 3600 * 1_000_000;
        assert_eq!(due(start, hour, 1_000_000), start + Duration::from_secs(3600));
    }

    #[test]
    fn a_request_is_given_its_full_time_and_no_more() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let limit = Duration::from_millis(60);
            let mut patience = Patience::new(limit);
            // The timer was set when this began, and must not end the second of them.
            for _ in 0..2 {
                let slow = pin!(tokio::time::sleep(Duration::from_millis(40)));
                assert_eq!(patience.wait(slow).await, Some(()));
            }
            let start = Instant::now();
            assert_eq!(patience.wait(pin!(std::future::pending::<()>())).await, None);
            assert!(start.elapsed() >= limit);
            assert_eq!(patience.wait(pin!(async { 7 })).await, Some(7));
        });
    }
}
