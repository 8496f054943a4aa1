//! What a client of the load does.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use bytes::Bytes;
use prost::Message;
use proto::etcdserverpb::{PutRequest, RangeRequest};
use tokio::sync::Semaphore;
use tokio::time::Sleep;

use super::connection::Connection;
use super::grpc::{self, Method};
use super::report::Tally;
use crate::arguments::{Bench, Load};

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

impl Run {
    /// Waits for a request's turn and answers when it starts; `None` at the end.
    async fn turn(&self) -> Option<Instant> {
        let start = match &self.permits {
            None => {
                self.issued.set(self.issued.get() + 1);
                Instant::now()
            }
            Some((permits, rate)) => {
                permits.acquire().await.ok()?.forget();
                let n = self.issued.replace(self.issued.get() + 1);
                due(self.start, n, *rate)
            }
        };
        if self.end.is_some_and(|end| start >= end) {
            return None;
        }
        if start >= self.measured {
            let recorded = self.recorded.get();
            if self.bench.total.is_some_and(|total| recorded >= total) {
                return None;
            }
            self.recorded.set(recorded + 1);
        }
        Some(start)
    }
}

pub(super) async fn client(run: Rc<Run>, connection: Rc<Connection>, number: u64) {
    let mut chance = Chance(number);
    let value = Bytes::from(chance.bytes(run.bench.value_size as usize));
    let mut patience = Patience::new();
    while let Some(start) = run.turn().await {
        let number = match run.bench.sequential {
            true => run.issued.get(),
            false => chance.next(),
        };
        let key = key(number % run.bench.key_space, run.bench.key_size as usize);
        let read = match run.bench.load {
            Load::Put => false,
            Load::Get => true,
            Load::Mixed => chance.next() % 100 < u64::from(run.bench.reads),
        };
        let request = pin!(send(&run, &connection, read, key, &value));
        let answer = match patience.wait(request).await {
            Some(answer) => answer,
            None => Err("no answer in 10 s".to_owned()),
        };
        if start >= run.measured {
            run.tally.borrow_mut().record(start.elapsed(), answer);
        }
    }
}

/// Ends what takes longer than [`REQUEST_TIMEOUT`]. Its timer is moved when it fires, that is
/// once in ten seconds, and not for each request.
struct Patience(Pin<Box<Sleep>>);

impl Patience {
    fn new() -> Patience {
        Patience(Box::pin(tokio::time::sleep(REQUEST_TIMEOUT)))
    }

    async fn wait<T>(&mut self, mut request: Pin<&mut impl Future<Output = T>>) -> Option<T> {
        let deadline = tokio::time::Instant::now() + REQUEST_TIMEOUT;
        poll_fn(|context| {
            if let Poll::Ready(answer) = request.as_mut().poll(context) {
                return Poll::Ready(Some(answer));
            }
            // It was set for an earlier request, so it never fires too late.
            while self.0.as_mut().poll(context).is_ready() {
                if self.0.deadline() >= deadline {
                    return Poll::Ready(None);
                }
                self.0.as_mut().reset(deadline);
            }
            Poll::Pending
        })
        .await
    }
}

/// Answers how many keys a read found.
async fn send(
    run: &Run,
    connection: &Connection,
    read: bool,
    key: Bytes,
    value: &Bytes,
) -> Result<Option<i64>, String> {
    if read {
        let serializable = run.bench.serializable;
        let request = RangeRequest { key, serializable, ..RangeRequest::default() };
        let answer = connection.call(Method::Range, grpc::frame(&request)).await?;
        let answer = Found::decode(answer).map_err(|error| error.to_string())?;
        Ok(Some(answer.count))
    } else {
        let request = PutRequest { key, value: value.clone(), ..PutRequest::default() };
        connection.call(Method::Put, grpc::frame(&request)).await?;
        Ok(None)
    }
}

/// What of a `RangeResponse` matters here; the rest is skipped, not built.
#[derive(Clone, PartialEq, Message)]
struct Found {
    #[prost(int64, tag = "4")]
    count: i64,
}

/// The number's last digits, behind as many zeros as fit.
fn key(number: u64, size: usize) -> Bytes {
    let mut text = format!("{number:0size$}").into_bytes();
    Bytes::from(text.split_off(text.len() - size))
}

/// SplitMix64: the same load whenever the flags are the same.
struct Chance(u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0.rotate_left(32) ^ self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn bytes(&mut self, len: usize) -> Vec<u8> {
        std::iter::repeat_with(|| self.next().to_le_bytes()).flatten().take(len).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_have_the_size_that_was_asked_for() {
        assert_eq!(key(42, 8), "00000042");
        assert_eq!(key(0, 1), "0");
        assert_eq!(key(12345, 3), "345");
    }

    #[test]
    fn a_fixed_rate_neither_drifts_nor_overflows() {
        let start = Instant::now();
        assert_eq!(due(start, 3, 3), start + Duration::from_secs(1));
        assert_eq!(due(start, 1, 2000), start + Duration::from_micros(500));
        let hour = 3600 * 1_000_000;
        assert_eq!(due(start, hour, 1_000_000), start + Duration::from_secs(3600));
    }
}
