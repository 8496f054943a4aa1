//! The load generator. One thread; it must cost less than what it measures.

mod connection;
mod grpc;
mod load;
mod report;
mod requests;
mod socket;

use std::cell::RefCell;
use std::io::IsTerminal;
use std::num::NonZeroU64;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::Semaphore;
use tokio::task::spawn_local;

use crate::arguments::Bench;
use crate::failure::Failure;
use crate::output::Format;
use crate::session::Session;
use connection::Connection;
use load::Run;
use report::Tally;

/// Up to so many requests per second, each is started for itself; of more, some start together.
const EXACT_RATE_MAX: u32 = 2_000;

pub(crate) async fn run(session: &Session, bench: Bench) -> Result<(), Failure> {
    if matches!(session.format, Format::Fields) {
        return Err(Failure::feature("fields not supported as output format"));
    }
    let endpoints = targets(session, &bench).await?;
    let local = tokio::task::LocalSet::new();
    let connections = local.run_until(connect(&endpoints, &bench)).await?;
    let (run, cpu) = local.run_until(drive(&connections, bench)).await?;
    let end = Instant::now();
    let tally = run.tally.borrow();
    let report = report::Report {
        run: &run,
        tally: &tally,
        end,
        cpu,
        targets: &endpoints,
        connections: connections.len(),
    };
    session.print(match session.format {
        Format::Json => report.json(),
        _ => report.table(),
    })?;
    if tally.latencies.is_empty() { Err(Failure::error("no request was answered")) } else { Ok(()) }
}

/// Runs the load to its end, and answers the CPU time that the measured part took.
async fn drive(
    connections: &[Rc<Connection>],
    bench: Bench,
) -> Result<(Rc<Run>, Duration), Failure> {
    let start = Instant::now();
    let measured = start + bench.warm_up;
    // Without --total, ten seconds.
    let duration = bench.duration.or(bench.total.is_none().then(|| Duration::from_secs(10)));
    let run = Rc::new(Run {
        permits: bench.rate.map(|rate| (pace(start, rate), rate)),
        start,
        measured,
        end: duration.map(|duration| measured + duration),
        tally: RefCell::new(Tally::new(measured)),
        issued: 0.into(),
        recorded: 0.into(),
        bench,
    });
    let clients: Vec<_> = (0..run.bench.clients)
        .map(|client| {
            let connection = connections[client as usize % connections.len()].clone();
            spawn_local(load::client(run.clone(), connection, u64::from(client)))
        })
        .collect();
    let progress = spawn_local(progress(run.clone()));
    tokio::time::sleep_until(measured.into()).await;
    let before = report::cpu_time();
    for client in clients {
        client.await.map_err(|error| Failure::error(error.to_string()))?;
    }
    let cpu = report::cpu_time() - before;
    progress.abort();
    Ok((run, cpu))
}

/// The endpoints that get load.
async fn targets(session: &Session, bench: &Bench) -> Result<Vec<String>, Failure> {
    if !bench.target_leader {
        return Ok(session.endpoints.clone());
    }
    for endpoint in &session.endpoints {
        if let Ok(status) = session.client_of(endpoint)?.status().await
            && status.header.is_some_and(|header| header.member_id == status.leader)
        {
            return Ok(vec![endpoint.clone()]);
        }
    }
    Err(Failure::error("none of the endpoints leads"))
}

async fn connect(endpoints: &[String], bench: &Bench) -> Result<Vec<Rc<Connection>>, Failure> {
    let at_least = u32::try_from(endpoints.len()).unwrap_or(u32::MAX);
    let wanted = bench.connections.unwrap_or_else(|| bench.clients.div_ceil(16).max(at_least));
    let mut connections = Vec::new();
    for endpoint in endpoints.iter().cycle().take(wanted.min(bench.clients) as usize) {
        let connection = Connection::new(endpoint).map_err(Failure::arguments)?;
        connection.start().await.map_err(|error| Failure::error(format!("{endpoint}: {error}")))?;
        connections.push(connection);
    }
    Ok(connections)
}

/// Permits that come at a fixed rate: the runtime's own timer is too coarse, a
/// sleeping thread is exact to some ten microseconds.
fn pace(start: Instant, rate: u32) -> Arc<Semaphore> {
    let permits = Arc::new(Semaphore::new(0));
    let weak = Arc::downgrade(&permits);
    std::thread::spawn(move || {
        // By default the system may wake a sleeper 50 us late, to save wake-ups. At high rates
        // that is welcome.
        if rate <= EXACT_RATE_MAX {
            let _ = rustix::thread::set_current_timer_slack(NonZeroU64::new(1));
        }
        let mut issued: u64 = 0;
        loop {
            let due = load::due(start, issued, rate);
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            let Some(permits) = weak.upgrade() else { return };
            let before = issued;
            while load::due(start, issued, rate) <= Instant::now() {
                issued += 1;
            }
            permits.add_permits(usize::try_from(issued - before).unwrap_or(usize::MAX));
        }
    });
    permits
}

/// A line per second on standard error.
async fn progress(run: Rc<Run>) {
    let terminal = std::io::stderr().is_terminal();
    let mut before = 0;
    if run.bench.quiet {
        return;
    }
    loop {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let tally = run.tally.borrow();
        let (done, errors) = (tally.latencies.len(), tally.errors.values().sum::<u64>());
        let p99 = report::micros(tally.latencies.value_at_quantile(0.99));
        let seconds = run.start.elapsed().as_secs();
        let warm = if Instant::now() < run.measured { " (warm-up)" } else { "" };
        let line = format!("{seconds} s{warm}  {}/s  p99 {p99}  {errors} errors", done - before);
        before = done;
        if terminal {
            eprint!("\r{line:<70}\r");
        } else {
            eprintln!("{line}");
        }
    }
}
