//! Counters of processes, the disk and the machine, read before and after what is measured.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Instant;

use crate::proc::{self, Device, Processors};
use crate::trouble::{OrTrouble, Outcome, Trouble};

/// Nanoseconds in one of the kernel's ticks, which are hundredths of a second on every machine.
const TICK_NANOS: u64 = 10_000_000;
/// By how much ticks may differ from nanoseconds: one tick each of user and system time.
const TICK_SLACK_NANOS: u64 = 2 * TICK_NANOS;
/// Foreign processes that use more than so many cores make a measurement noisy.
const FOREIGN_CORES_MAX: f64 = 0.15;
/// The kernel's threads are children of this process.
const KERNEL_PARENT: u32 = 2;

/// The name of the block device that a directory is on, where there is one: the whole disk, for
/// the kernel counts flushes by disk.
pub fn device_of(directory: &Path) -> Option<String> {
    let block = Path::new("/sys/dev/block").join(numbers_of(directory)?);
    let real = fs::canonicalize(block).ok()?;
    let disk = if real.join("partition").exists() { real.parent()? } else { &real };
    Some(disk.file_name()?.to_str()?.to_owned())
}

/// The `major:minor` of the file system that a directory is on.
pub fn numbers_of(directory: &Path) -> Option<String> {
    let device = fs::metadata(directory).ok()?.dev();
    Some(format!("{}:{}", rustix::fs::major(device), rustix::fs::minor(device)))
}

/// One look at everything.
pub struct Sample {
    at: Instant,
    servers: BTreeMap<u32, Process>,
    /// Of the processes that run but are not measured.
    beside_nanos: u64,
    kernel_nanos: u64,
    /// Of this process and of the load generators it started.
    own_nanos: u64,
    processors: Processors,
    device: Option<Device>,
}

struct Process {
    tasks: BTreeMap<u32, Task>,
    /// Of all threads that ever ran, in ticks.
    ticks_nanos: u64,
    resident_bytes: u64,
}

#[derive(Clone, Copy)]
struct Task {
    nanos: u64,
    switches: u64,
}

impl Sample {
    /// Looks at the processes that are measured, those `beside` them, and the rest.
    pub fn take(servers: &[u32], beside: &[u32], device: Option<&str>) -> Outcome<Sample> {
        let servers = servers
            .iter()
            .map(|pid| Ok((*pid, Process::read(*pid)?)))
            .collect::<Outcome<BTreeMap<_, _>>>()?;
        let own = read("/proc/self/stat")?;
        let own_ticks = proc::stat_ticks(&own).zip(proc::stat_ticks_of_children(&own));
        let own_ticks = own_ticks.map(|(own, children)| own + children);
        let processors = proc::processors(&read("/proc/stat")?);
        let disks = read("/proc/diskstats")?;
        Ok(Sample {
            at: Instant::now(),
            servers,
            beside_nanos: beside.iter().filter_map(|pid| nanos(&format!("/proc/{pid}"))).sum(),
            kernel_nanos: kernel_nanos()?,
            own_nanos: own_ticks.ok_or_else(|| strange("/proc/self/stat"))? * TICK_NANOS,
            processors: processors.ok_or_else(|| strange("/proc/stat"))?,
            device: device.and_then(|name| proc::device(&disks, name)),
        })
    }

    /// What happened since an earlier look.
    pub fn since(&self, before: &Sample) -> Cost {
        let seconds = self.at.duration_since(before.at).as_secs_f64();
        let pairs = || self.servers.iter().map(|(pid, now)| (now, before.servers.get(pid)));
        let server_nanos: u64 = pairs().map(|(now, then)| now.nanos_since(then)).sum();
        let busy = (self.processors.busy - before.processors.busy) * TICK_NANOS;
        let ours = server_nanos
            + self.beside_nanos.saturating_sub(before.beside_nanos)
            + self.kernel_nanos.saturating_sub(before.kernel_nanos)
            + (self.own_nanos - before.own_nanos);
        let cores = |nanos: u64| nanos as f64 / 1e9 / seconds;
        Cost {
            seconds,
            cpu_micros: server_nanos as f64 / 1e3,
            switches: pairs().map(|(now, then)| now.switches_since(then)).sum::<u64>() as f64,
            resident_bytes: self.resident_bytes(),
            foreign_cores: cores(busy.saturating_sub(ours)),
            stolen_cores: cores((self.processors.stolen - before.processors.stolen) * TICK_NANOS),
            beside_cores: cores(self.beside_nanos.saturating_sub(before.beside_nanos)),
            device: self.device.zip(before.device).map(|(now, then)| Device {
                writes: now.writes - then.writes,
                bytes_written: now.bytes_written - then.bytes_written,
                flushes: now.flushes - then.flushes,
            }),
        }
    }

    /// Resident memory of a server, on average.
    pub fn resident_bytes(&self) -> f64 {
        let all: u64 = self.servers.values().map(|process| process.resident_bytes).sum();
        all as f64 / self.servers.len().max(1) as f64
    }
}

/// What happened between two looks.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Cost {
    pub seconds: f64,
    /// Of all servers.
    pub cpu_micros: f64,
    /// Of all servers' threads that were there at the end.
    pub switches: f64,
    /// Of a server, on average, at the end.
    pub resident_bytes: f64,
    /// Cores used by processes that have nothing to do with the measurement.
    pub foreign_cores: f64,
    /// Cores that the host of a virtual machine kept for itself.
    pub stolen_cores: f64,
    /// Cores used by servers that were idle meanwhile.
    pub beside_cores: f64,
    /// What the disk did, for whomever.
    pub device: Option<Device>,
}

impl Cost {
    /// Whether others used so much of the machine that the figures suffer.
    pub fn is_noisy(&self) -> bool {
        self.foreign_cores + self.stolen_cores > FOREIGN_CORES_MAX
    }
}

impl Process {
    fn read(pid: u32) -> Outcome<Process> {
        let folder = format!("/proc/{pid}");
        let mut tasks = BTreeMap::new();
        let entries = fs::read_dir(format!("{folder}/task")).or_trouble(&folder)?;
        for name in entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()) {
            let task = format!("{folder}/task/{name}");
            // A thread may end while its folder is read.
            let status = fs::read_to_string(format!("{task}/status")).unwrap_or_default();
            if let (Ok(tid), Some(nanos)) = (name.parse(), schedstat(&task)) {
                tasks.insert(tid, Task { nanos, switches: proc::switches(&status) });
            }
        }
        let stat = format!("{folder}/stat");
        let ticks = proc::stat_ticks(&read(&stat)?).ok_or_else(|| strange(&stat))?;
        let status = read(&format!("{folder}/status"))?;
        let resident_bytes = proc::resident_bytes(&status)
            .ok_or_else(|| Trouble(format!("process {pid} has ended")))?;
        Ok(Process { tasks, ticks_nanos: ticks * TICK_NANOS, resident_bytes })
    }

    /// Threads count in nanoseconds. A thread that ended meanwhile took its count along; then the
    /// process's ticks tell more, which include it.
    fn nanos_since(&self, before: Option<&Process>) -> u64 {
        let then = |tid| before.and_then(|before| before.tasks.get(tid)).map_or(0, |t| t.nanos);
        let exact: u64 =
            self.tasks.iter().map(|(tid, now)| now.nanos.saturating_sub(then(tid))).sum();
        let ticks = self.ticks_nanos - before.map_or(0, |before| before.ticks_nanos);
        if ticks > exact + TICK_SLACK_NANOS { ticks } else { exact }
    }

    fn switches_since(&self, before: Option<&Process>) -> u64 {
        let then = |tid| before.and_then(|before| before.tasks.get(tid)).map_or(0, |t| t.switches);
        self.tasks.iter().map(|(tid, now)| now.switches.saturating_sub(then(tid))).sum()
    }
}

fn read(path: &str) -> Outcome<String> {
    fs::read_to_string(path).or_trouble(path)
}

fn strange(path: &str) -> Trouble {
    Trouble(format!("{path} is not as it is known on Linux"))
}

fn schedstat(folder: &str) -> Option<u64> {
    proc::schedstat_nanos(&fs::read_to_string(format!("{folder}/schedstat")).ok()?)
}

/// CPU time of a process, all threads, to a tick.
fn nanos(folder: &str) -> Option<u64> {
    let stat = fs::read_to_string(format!("{folder}/stat")).ok()?;
    proc::stat_ticks(&stat).map(|ticks| ticks * TICK_NANOS)
}

/// Of the kernel's own threads: much of it is done for the servers, writing to the disk.
fn kernel_nanos() -> Outcome<u64> {
    let mut sum = 0;
    for entry in fs::read_dir("/proc").or_trouble("/proc")?.flatten() {
        let name = entry.file_name();
        let Some(pid) = name.to_str().filter(|name| name.bytes().all(|b| b.is_ascii_digit()))
        else {
            continue;
        };
        let folder = format!("/proc/{pid}");
        let stat = fs::read_to_string(format!("{folder}/stat")).unwrap_or_default();
        if proc::stat_parent(&stat) == Some(KERNEL_PARENT) {
            sum += schedstat(&folder).unwrap_or(0);
        }
    }
    Ok(sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn process(tasks: &[(u32, u64, u64)], ticks_nanos: u64) -> Process {
        let tasks = tasks
            .iter()
            .map(|(tid, nanos, switches)| (*tid, Task { nanos: *nanos, switches: *switches }));
        Process { tasks: tasks.collect(), ticks_nanos, resident_bytes: 0 }
    }

    #[test]
    fn threads_count_exactly_while_none_ends() {
        let before = process(&[(1, 100, 5)], 0);
        let now = process(&[(1, 5_000_100, 9), (2, 7, 2)], 10_000_000);
        assert_eq!(now.nanos_since(Some(&before)), 5_000_007);
        assert_eq!(now.switches_since(Some(&before)), 6);
    }

    #[test]
    fn a_thread_that_ended_is_not_forgotten() {
        let before = process(&[(1, 100, 5)], 0);
        let now = process(&[(1, 5_000_100, 9)], 90_000_000);
        assert_eq!(now.nanos_since(Some(&before)), 90_000_000);
    }

    #[test]
    fn this_machine_can_be_sampled() {
        let us = [std::process::id()];
        let before = Sample::take(&us, &[], None).unwrap();
        let mut sum = 0_u64;
        while before.at.elapsed().as_millis() < 60 {
            sum = sum.wrapping_mul(31).wrapping_add(7);
        }
        let cost = Sample::take(&us, &[], None).unwrap().since(&before);
        assert!(std::hint::black_box(sum) != 1);
        assert!(cost.cpu_micros > 5_000.0, "{cost:?}");
        assert!(cost.resident_bytes > 1e5, "{cost:?}");
    }
}
