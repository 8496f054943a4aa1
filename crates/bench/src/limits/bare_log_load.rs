//! Drives the bare log: clients that keep a number of records in flight each.

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use super::bare_log::{RECORD_BYTES, connect};
use super::{histogram, micros};
use crate::cluster::{Ground, MEMBERS, Processes};
use crate::interrupt;
use crate::sample::{Cost, Sample};
use crate::trouble::{OrTrouble, Outcome, Trouble};

/// Connections at most.
const CLIENTS_MAX: usize = 8;
/// Before anything is counted.
const WARM_UP: Duration = Duration::from_millis(500);
/// The longest that an answer may take.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);

/// What was found with so many records in flight.
#[derive(Clone, Copy, Debug)]
pub struct Commits {
    pub in_flight: usize,
    pub per_second: f64,
    /// Microseconds.
    pub p50: u64,
    pub p99: u64,
    /// Of the three processes together.
    pub cpu_micros_each: f64,
    pub cost: Cost,
}

impl Commits {
    pub fn is_noisy(&self) -> bool {
        self.cost.is_noisy()
    }
}

pub fn measure(ground: &Ground, in_flight: usize, time: Duration) -> Outcome<Commits> {
    interrupt::check()?;
    let device = ground.device.as_deref();
    let folder = ground.folder("bare-log")?;
    let mut addresses = Vec::new();
    for _ in 0..MEMBERS {
        addresses.push(SocketAddr::from(([127, 0, 0, 1], ground.port()?)));
    }
    let commands = addresses.iter().enumerate().map(|(n, address)| {
        let mut words = vec![ground.programs.this.display().to_string(), "bare-log".to_owned()];
        words.push(format!("--listen={address}"));
        words.push(format!("--data={}", folder.path().join(n.to_string()).display()));
        if n == 0 {
            let followers: Vec<String> = addresses[1..].iter().map(ToString::to_string).collect();
            words.push(format!("--followers={}", followers.join(",")));
        }
        words
    });
    let processes = Processes::start(commands)?;
    let clients = in_flight.min(CLIENTS_MAX);
    let leader = addresses[0];
    let start = connect(leader).map(|_| Instant::now() + WARM_UP)?;
    let end = start + time;
    let (found, cost) = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..clients)
            .map(|_| scope.spawn(move || client(leader, in_flight / clients, start, end)))
            .collect();
        std::thread::sleep(start.saturating_duration_since(Instant::now()));
        let before = Sample::take(&processes.pids(), &[], device);
        std::thread::sleep(end.saturating_duration_since(Instant::now()));
        let after = Sample::take(&processes.pids(), &[], device);
        let found = threads
            .into_iter()
            .map(|thread| thread.join().map_err(|_| Trouble("a client panicked".to_owned()))?);
        Ok((found.collect::<Outcome<Vec<_>>>()?, after?.since(&before?)))
    })?;
    let mut all = histogram();
    found.iter().try_for_each(|one| all.add(one)).or_trouble("latencies")?;
    Ok(Commits {
        in_flight,
        per_second: all.len() as f64 / time.as_secs_f64(),
        p50: all.value_at_quantile(0.5),
        p99: all.value_at_quantile(0.99),
        cpu_micros_each: cost.cpu_micros / all.len().max(1) as f64,
        cost,
    })
}

/// Keeps `depth` records in flight; answers the latencies of those that were answered between
/// `start` and `end`.
fn client(
    leader: SocketAddr,
    depth: usize,
    start: Instant,
    end: Instant,
) -> Outcome<Histogram<u64>> {
    let mut socket = connect(leader)?;
    socket.set_read_timeout(Some(ANSWER_LIMIT)).or_trouble("a client")?;
    let records = vec![7; depth * RECORD_BYTES];
    let mut sent = VecDeque::new();
    let mut found = histogram();
    let mut next = depth;
    loop {
        let now = Instant::now();
        if now > end {
            return Ok(found);
        }
        socket.write_all(&records[..next * RECORD_BYTES]).or_trouble("the bare log")?;
        sent.extend(std::iter::repeat_n(now, next));
        let mut count = [0; 4];
        socket.read_exact(&mut count).or_trouble("the bare log")?;
        next = u32::from_le_bytes(count) as usize;
        let now = Instant::now();
        for sent in sent.drain(..next) {
            if now >= start {
                found.saturating_record(micros(now - sent));
            }
        }
    }
}
