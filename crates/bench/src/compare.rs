//! The course of a comparison: who is started, measured and stopped, and in which order.
//!
//! Both clusters run at the same time, and are measured in turn, row by row, so that noise of the
//! machine hits both alike. The one that is not measured idles: stopping its processes instead
//! (SIGSTOP) would have it elect a leader as soon as it goes on, and starting it anew would have
//! it measured cold. What the idle ones cost is measured too, and is little.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::arguments::Compare;
use crate::cluster::{Cluster, Ground, System};
use crate::findings::{Findings, Found};
use crate::limits::{bare_log_load, disk};
use crate::load::{End, Kind, Load};
use crate::machine::{self, Machine};
use crate::programs::Programs;
use crate::report;
use crate::row::{self, Measured, Row, Windows};
use crate::sample::Sample;
use crate::trouble::{OrTrouble, Outcome, Trouble};
use crate::{failover, growth, interrupt};

/// The systems whose ratio matters.
pub const BOTH: [System; 2] = [System::RaftKv, System::Etcd];
/// Keys that are read were written before, within this time.
const FILL_LIMIT: Duration = Duration::from_secs(60);
const FILL_CLIENTS: u32 = 64;
/// Of one row, the first included.
const ATTEMPTS_MAX: usize = 3;

/// How much of everything.
#[derive(Clone, Copy, Debug)]
pub struct Extent {
    pub full: bool,
    pub windows: Windows,
    /// Of limits and of idleness.
    pub limit_time: Duration,
    pub keys: &'static [u64],
    /// At each number of keys.
    pub keys_windows: Windows,
    pub value_bytes: &'static [u32],
    pub failover_rounds: usize,
    /// A noisy row is measured again while there is time for it, and the quietest counts.
    pub again_time: Duration,
}

const fn windows(warm_up: u64, measured: u64) -> Windows {
    Windows { warm_up: Duration::from_millis(warm_up), measured: Duration::from_millis(measured) }
}

const QUICK: Extent = Extent {
    full: false,
    windows: windows(500, 2000),
    limit_time: Duration::from_millis(1500),
    keys: &[10_000, 200_000],
    keys_windows: windows(200, 800),
    value_bytes: &[64, 4 << 10, 64 << 10, 1 << 20],
    failover_rounds: 5,
    again_time: Duration::ZERO,
};

const FULL: Extent = Extent {
    full: true,
    windows: windows(1000, 5000),
    limit_time: Duration::from_secs(4),
    keys: &[10_000, 100_000, 1_000_000, 5_000_000],
    keys_windows: windows(500, 3000),
    value_bytes: &[64, 256, 1 << 10, 4 << 10, 16 << 10, 64 << 10, 256 << 10, 1 << 20],
    failover_rounds: 50,
    again_time: Duration::from_secs(240),
};

/// Names of the parts besides rows.
const PARTS: [&str; 4] = ["limits", "keys", "values", "failover"];

/// What was chosen with `--only`.
struct Chosen {
    rows: Vec<Row>,
    parts: Vec<&'static str>,
}

impl Chosen {
    fn new(only: &[String], extent: &Extent) -> Outcome<Chosen> {
        let usual = if extent.full { Row::all() } else { Row::few() };
        if only.is_empty() {
            return Ok(Chosen { rows: usual, parts: PARTS.to_vec() });
        }
        let all = Row::all();
        for name in only {
            let is_kind = Kind::ALL.iter().any(|kind| kind.name() == name);
            let is_row = all.iter().any(|row| row.name() == *name);
            if !is_kind && !is_row && !PARTS.contains(&name.as_str()) {
                return Err(Trouble(format!("nothing is called {name}: see --help")));
            }
        }
        let named = |name: &str| only.iter().any(|only| only == name);
        let rows = all
            .into_iter()
            .filter(|row| named(&row.name()) || named(row.load.kind.name()) && usual.contains(row));
        let parts = PARTS.into_iter().filter(|part| named(part));
        Ok(Chosen { rows: rows.collect(), parts: parts.collect() })
    }

    fn has(&self, part: &str) -> bool {
        self.parts.contains(&part)
    }
}

/// Measures, prints while it goes, writes what it found, and leaves nothing behind.
pub fn run(options: &Compare) -> Outcome {
    interrupt::listen()?;
    let extent = if options.full { FULL } else { QUICK };
    let chosen = Chosen::new(&options.only, &extent)?;
    let target = target()?;
    let programs = Programs::find(options, &target)?;
    let out = options.out.clone().unwrap_or_else(|| target.join("compare"));
    std::fs::create_dir_all(&out).or_trouble(out.display())?;
    let below = options.data.clone().unwrap_or_else(|| target.clone());
    let below = std::path::absolute(&below).or_trouble(below.display())?;
    machine::is_on_disk(&below)?;
    std::fs::create_dir_all(&below).or_trouble(below.display())?;
    // Goes with everything in it, however this ends.
    let data = tempfile::Builder::new().prefix("compare-data-").tempdir_in(&below);
    let data = data.or_trouble(below.display())?;
    let ground = Ground::new(programs, data.path().to_owned(), options.first_port);
    let mut findings = Findings::new(extent.full, Machine::look(&ground));
    report::text::machine(&findings.machine);
    let done = measure(&ground, &extent, &chosen, &mut findings);
    findings.incomplete = done.as_ref().err().map(ToString::to_string);
    report::write(&findings, &out)?;
    println!("tables, plots and numbers are in {}", out.display());
    done?;
    if options.write_docs { report::docs::write(&findings) } else { Ok(()) }
}

/// Where cargo put this program: target/PROFILE/bench.
fn target() -> Outcome<PathBuf> {
    let this = std::env::current_exe().or_trouble("cannot find this program's own file")?;
    Ok(this.ancestors().nth(2).unwrap_or(Path::new(".")).to_owned())
}

/// Part by part. What fails in one is told, and the others are measured still.
fn measure(ground: &Ground, extent: &Extent, chosen: &Chosen, findings: &mut Findings) -> Outcome {
    let mut failed = Ok(());
    let mut then = |done: Outcome| {
        interrupt::check()?;
        if let Err(trouble) = done {
            report::text::note(&trouble.to_string());
            failed = Err(trouble);
        }
        Ok(())
    };
    if chosen.has("limits") {
        then(limits(ground, extent, findings))?;
    }
    if !chosen.rows.is_empty() {
        then(rows(ground, extent, &chosen.rows, findings))?;
    }
    if chosen.has("values") {
        then(growth::values(ground, extent, findings))?;
    }
    if chosen.has("failover") {
        then(failover::measure(ground, extent.failover_rounds, findings))?;
    }
    if chosen.has("keys") {
        then(growth::keys(ground, extent, findings))?;
    }
    failed
}

fn limits(ground: &Ground, extent: &Extent, findings: &mut Findings) -> Outcome {
    for writers in [1, 3] {
        findings.syncs.push(disk::measure(ground, writers, extent.limit_time)?);
    }
    for in_flight in [1, 64, 256] {
        let found = bare_log_load::measure(ground, in_flight, extent.limit_time)?;
        findings.commits.push(found);
    }
    report::text::limits(findings);
    Ok(())
}

fn rows(ground: &Ground, extent: &Extent, rows: &[Row], findings: &mut Findings) -> Outcome {
    let mut clusters = vec![ground.start(System::RaftKv)?, ground.start(System::Etcd)?];
    if rows.iter().any(Row::has_limit) {
        clusters.push(ground.start(System::Empty)?);
    }
    for cluster in clusters.iter_mut().filter(|cluster| cluster.system != System::Empty) {
        let load = Load::new(Kind::Put, FILL_CLIENTS);
        let end = End::Keys { up_to: load.keys, limit: FILL_LIMIT };
        load.run(&ground.programs.raft_kv, &cluster.endpoints()?, end)?;
    }
    findings.idle = idle(&clusters, extent.limit_time)?;
    report::text::idle(findings);
    report::text::rows_heading();
    let mut again_time = extent.again_time;
    for row in rows {
        let mut found = in_turn(ground, extent, row, &mut clusters)?;
        for _ in 1..ATTEMPTS_MAX {
            let start = Instant::now();
            if noise(&found).is_none() || again_time.is_zero() {
                break;
            }
            let again = in_turn(ground, extent, row, &mut clusters)?;
            if noise(&again) < noise(&found) {
                found = again;
            }
            again_time = again_time.saturating_sub(start.elapsed());
        }
        report::text::row(row, &found);
        findings.rows.push((*row, found));
    }
    Ok(())
}

/// One row, at each system in turn.
fn in_turn(
    ground: &Ground,
    extent: &Extent,
    row: &Row,
    clusters: &mut [Cluster],
) -> Outcome<Found<Measured>> {
    let mut found = Vec::new();
    for n in 0..clusters.len() {
        if clusters[n].system == System::Empty && !row.has_limit() {
            continue;
        }
        let beside = pids_beside(clusters, n);
        let measured = row::measure(ground, row, &mut clusters[n], &beside, extent.windows);
        found.push((clusters[n].system, kept(measured)?));
    }
    Ok(found)
}

/// What failed at one system is told in its place, and the comparison goes on; unless it was
/// interrupted.
pub fn kept<T>(measured: Outcome<T>) -> Outcome<Result<T, String>> {
    interrupt::check()?;
    Ok(measured.map_err(|trouble| trouble.to_string()))
}

/// The processes of all clusters but the nth.
pub fn pids_beside(clusters: &[Cluster], n: usize) -> Vec<u32> {
    let others = clusters.iter().enumerate().filter(|(other, _)| *other != n);
    others.flat_map(|(_, cluster)| cluster.pids()).collect()
}

fn idle(clusters: &[Cluster], time: Duration) -> Outcome<Vec<(System, f64)>> {
    let look = || {
        let samples = clusters.iter().map(|cluster| Sample::take(&cluster.pids(), &[], None));
        samples.collect::<Outcome<Vec<_>>>()
    };
    // What was written just now is still being committed and cleared away.
    interrupt::sleep(Duration::from_secs(1))?;
    let before = look()?;
    interrupt::sleep(time)?;
    let after = look()?;
    let costs = before.iter().zip(&after).map(|(before, after)| after.since(before));
    let cores = costs.map(|cost| cost.cpu_micros / 1e6 / cost.seconds);
    Ok(clusters.iter().map(|cluster| cluster.system).zip(cores).collect())
}

/// Cores that foreign processes used in the noisiest of the noisy measurements, if any was.
pub fn noise(found: &Found<Measured>) -> Option<f64> {
    let measured = found.iter().filter_map(|(_, one)| one.as_ref().ok());
    let noise = measured
        .filter(|one| one.is_noisy())
        .map(|one| one.cost.foreign_cores + one.cost.stolen_cores);
    noise.reduce(f64::max)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(only: &[&str], extent: &Extent) -> Outcome<Chosen> {
        Chosen::new(&only.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>(), extent)
    }

    #[test]
    fn what_is_named_is_chosen() {
        let one = chosen(&["put-1000", "failover"], &QUICK).unwrap();
        assert_eq!(one.rows.iter().map(Row::name).collect::<Vec<_>>(), ["put-1000"]);
        assert_eq!(one.parts, ["failover"]);
        let kind = chosen(&["get"], &QUICK).unwrap();
        assert_eq!(kind.rows.len(), 3);
        assert_eq!(chosen(&[], &FULL).unwrap().rows.len(), Row::all().len());
        assert!(chosen(&["putt"], &QUICK).is_err());
    }
}
