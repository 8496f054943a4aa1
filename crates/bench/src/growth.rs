//! What becomes of the cost of a request as keys get many and values large, and what a key takes
//! in memory.

use std::time::Duration;

use crate::cluster::{Cluster, Ground, System};
use crate::compare::{BOTH, Extent, kept, pids_beside};
use crate::findings::{AtKeys, Findings};
use crate::interrupt;
use crate::load::{End, Kind, Load};
use crate::report;
use crate::row::{self, Measured, Row, Target};
use crate::sample::Sample;
use crate::trouble::Outcome;

/// What is asked of a system with many keys.
const KINDS: [Kind; 4] = [Kind::Get, Kind::Range, Kind::Count, Kind::Put];
const CLIENTS: u32 = 16;
/// Of ranges and counts, which may take a second of CPU each.
const FEW_CLIENTS: u32 = 4;
/// Keys are written by so many at once, at least so many a second.
const FILL_CLIENTS: u32 = 256;
const FILL_PER_SECOND_MIN: u64 = 3000;
/// Before memory is read: what was written last is being cleared away.
const SETTLE_TIME: Duration = Duration::from_secs(2);
/// Values from this size on are written a number of times instead of for a time: in memory, every
/// version counts.
const LARGE_BYTES: u32 = 64 << 10;
const LARGE_TOTAL_BYTES: u32 = 128 << 20;
const LARGE_LIMIT: Duration = Duration::from_secs(30);

/// Fresh members for each number of keys, one system after the other: older versions would count,
/// and both at once might not fit into memory.
pub fn keys(ground: &Ground, extent: &Extent, findings: &mut Findings) -> Outcome {
    for keys in extent.keys {
        let mut found = Vec::new();
        for system in BOTH {
            found.push((system, kept(at_keys(ground, extent, system, *keys))?));
        }
        report::text::keys(*keys, &found);
        findings.keys.push((*keys, found));
    }
    Ok(())
}

fn at_keys(ground: &Ground, extent: &Extent, system: System, keys: u64) -> Outcome<AtKeys> {
    let mut cluster = ground.start(system)?;
    let resident = |cluster: &Cluster| {
        interrupt::sleep(SETTLE_TIME)?;
        Ok(Sample::take(&cluster.pids(), &[], None)?.resident_bytes())
    };
    let empty = resident(&cluster)?;
    let fill = Load { keys, ..Load::new(Kind::Put, FILL_CLIENTS) };
    let limit = Duration::from_secs(30 + keys / FILL_PER_SECOND_MIN);
    let endpoints = cluster.endpoints()?;
    fill.run(&ground.programs.raft_kv, &endpoints, End::Keys { up_to: keys, limit })?;
    let full = resident(&cluster)?;
    let mut loads = Vec::new();
    for kind in KINDS {
        let is_dear = matches!(kind, Kind::Range | Kind::Count);
        let clients = if is_dear { FEW_CLIENTS } else { CLIENTS };
        let load = Load { keys, ..Load::new(kind, clients) };
        let row = Row { load, target: Target::Spread };
        match kept(row::measure(ground, &row, &mut cluster, &[], extent.keys_windows))? {
            Ok(measured) => loads.push((kind, measured)),
            Err(why) => report::text::note(&format!("{} at {}: {why}", kind.name(), system.name())),
        }
    }
    Ok(AtKeys { bytes_per_key: (full - empty) / keys as f64, loads })
}

/// Puts of small and of large values.
pub fn values(ground: &Ground, extent: &Extent, findings: &mut Findings) -> Outcome {
    let mut clusters = vec![ground.start(System::RaftKv)?, ground.start(System::Etcd)?];
    for value_bytes in extent.value_bytes {
        let mut found = Vec::new();
        for n in 0..clusters.len() {
            let beside = pids_beside(&clusters, n);
            let measured = at_size(ground, extent, &mut clusters[n], &beside, *value_bytes);
            found.push((clusters[n].system, kept(measured)?));
        }
        report::text::value(*value_bytes, &found);
        findings.values.push((*value_bytes, found));
    }
    Ok(())
}

fn at_size(
    ground: &Ground,
    extent: &Extent,
    cluster: &mut Cluster,
    beside: &[u32],
    value_bytes: u32,
) -> Outcome<Measured> {
    let load = Load { value_bytes, keys: 1000, ..Load::new(Kind::Put, CLIENTS) };
    let row = Row { load, target: Target::Spread };
    let mut windows = extent.windows;
    let end = if value_bytes < LARGE_BYTES {
        End::After(windows.measured)
    } else {
        windows.warm_up = windows.warm_up.min(Duration::from_millis(200));
        let total = u64::from(LARGE_TOTAL_BYTES / value_bytes);
        End::Requests { total, limit: LARGE_LIMIT }
    };
    row::measure_until(ground, &row, cluster, beside, windows, end)
}
