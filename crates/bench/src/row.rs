//! A row of the comparison: one load, measured at one system after the other.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use crate::cluster::{Cluster, Ground, System};
use crate::load::{Answer, End, Kind, Load};
use crate::proc;
use crate::sample::{Cost, Sample};
use crate::trouble::{OrTrouble, Outcome};

/// Clients of the rows of a full run.
const CLIENTS: [u32; 5] = [1, 16, 64, 256, 1000];
/// A fixed rate that both can keep up with, and how many may be in flight meanwhile.
const RATE: u32 = 2000;
const RATE_CLIENTS: u32 = 256;

/// Where the connections go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// In turn to all members, the leader first.
    Spread,
    Leader,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row {
    pub load: Load,
    pub target: Target,
}

impl Row {
    fn spread(kind: Kind, clients: u32) -> Row {
        Row { load: Load::new(kind, clients), target: Target::Spread }
    }

    fn leader(clients: u32) -> Row {
        Row { target: Target::Leader, ..Row::spread(Kind::Put, clients) }
    }

    fn fixed_rate() -> Row {
        let mut row = Row::spread(Kind::Put, RATE_CLIENTS);
        row.load.rate = Some(RATE);
        row
    }

    pub fn name(&self) -> String {
        let kind = self.load.kind.name();
        match (self.load.rate, self.target) {
            (Some(rate), _) => format!("{kind}-rate-{rate}"),
            (None, Target::Leader) => format!("{kind}-{}-leader", self.load.clients),
            (None, Target::Spread) => format!("{kind}-{}", self.load.clients),
        }
    }

    /// Whether the empty server is measured too.
    pub fn has_limit(&self) -> bool {
        matches!(self.load.kind, Kind::Put | Kind::Get)
            && self.load.rate.is_none()
            && self.target == Target::Spread
    }

    /// All rows.
    pub fn all() -> Vec<Row> {
        let mut rows: Vec<Row> = Kind::ALL
            .iter()
            .flat_map(|kind| CLIENTS.map(|clients| Row::spread(*kind, clients)))
            .collect();
        let after_puts = CLIENTS.len();
        let more = [Row::leader(64), Row::leader(256), Row::fixed_rate()];
        rows.splice(after_puts..after_puts, more);
        rows
    }

    /// Those that fit into a few minutes.
    pub fn few() -> Vec<Row> {
        let is_few = |row: &Row| match (row.load.kind, row.target) {
            (Kind::Put, Target::Leader) => row.load.clients == 256,
            (Kind::Put | Kind::Get, _) => {
                row.load.rate.is_some() || [1, 64, 256].contains(&row.load.clients)
            }
            _ => row.load.clients == 64,
        };
        Row::all().into_iter().filter(is_few).collect()
    }
}

/// How long things take.
#[derive(Clone, Copy, Debug)]
pub struct Windows {
    /// Before each measurement, by a run of its own.
    pub warm_up: Duration,
    pub measured: Duration,
}

/// What one system did with one load.
#[derive(Clone, Debug)]
pub struct Measured {
    pub answer: Answer,
    pub cost: Cost,
    /// Syncs of the log and commits of the database, by etcd's own count.
    pub own_syncs: Option<f64>,
}

impl Measured {
    /// A sum over the run, for each request.
    pub fn each(&self, sum: f64) -> f64 {
        sum / (self.answer.requests + self.answer.errors()).max(1) as f64
    }

    pub fn cpu_micros_each(&self) -> f64 {
        self.each(self.cost.cpu_micros)
    }

    pub fn is_noisy(&self) -> bool {
        self.cost.is_noisy()
    }
}

/// Measures one load at one cluster, while the processes `beside` it are idle.
pub fn measure(
    ground: &Ground,
    row: &Row,
    cluster: &mut Cluster,
    beside: &[u32],
    windows: Windows,
) -> Outcome<Measured> {
    measure_until(ground, row, cluster, beside, windows, End::After(windows.measured))
}

/// [`measure`], with an end of its own.
pub fn measure_until(
    ground: &Ground,
    row: &Row,
    cluster: &mut Cluster,
    beside: &[u32],
    windows: Windows,
    end: End,
) -> Outcome<Measured> {
    let mut endpoints = cluster.endpoints()?;
    if row.target == Target::Leader {
        endpoints.truncate(1);
    }
    let raft_kv = &ground.programs.raft_kv;
    row.load.run(raft_kv, &endpoints, End::After(windows.warm_up))?;
    let device = ground.device.as_deref();
    let pids = cluster.pids();
    let syncs = etcd_syncs(cluster);
    let before = Sample::take(&pids, beside, device)?;
    let answer = row.load.run(raft_kv, &endpoints, end)?;
    let cost = Sample::take(&pids, beside, device)?.since(&before);
    let own_syncs = etcd_syncs(cluster).zip(syncs).map(|(now, then)| now - then);
    Ok(Measured { answer, cost, own_syncs })
}

/// Syncs that the members of etcd have counted so far.
fn etcd_syncs(cluster: &Cluster) -> Option<f64> {
    const NAMES: [&str; 2] = [
        "etcd_disk_wal_fsync_duration_seconds_count",
        "etcd_disk_backend_commit_duration_seconds_count",
    ];
    if cluster.system != System::Etcd {
        return None;
    }
    let of_member = |endpoint: &String| {
        let page = page(endpoint, "/metrics").ok()?;
        NAMES.iter().map(|name| proc::metric(&page, name)).sum::<Option<f64>>()
    };
    cluster.all_endpoints().iter().map(of_member).sum()
}

/// A page over HTTP, by hand: nothing else here needs a client of HTTP/1.
fn page(endpoint: &str, path: &str) -> Outcome<String> {
    let mut socket = TcpStream::connect(endpoint).or_trouble(endpoint)?;
    socket.set_read_timeout(Some(Duration::from_secs(5))).or_trouble(endpoint)?;
    write!(socket, "GET {path} HTTP/1.0\r\nHost: {endpoint}\r\n\r\n").or_trouble(endpoint)?;
    let mut text = String::new();
    socket.read_to_string(&mut text).or_trouble(endpoint)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn names_of_rows_are_unique() {
        let rows = Row::all();
        let names: BTreeSet<String> = rows.iter().map(Row::name).collect();
        assert_eq!(names.len(), rows.len());
        assert!(names.contains("put-256-leader") && names.contains("put-rate-2000"));
    }

    #[test]
    fn a_quick_run_has_every_load() {
        let few = Row::few();
        assert!(Kind::ALL.iter().all(|kind| few.iter().any(|row| row.load.kind == *kind)));
        assert!(few.len() <= 14, "{}", few.len());
    }
}
