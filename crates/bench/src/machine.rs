//! What it was measured on, and with.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::cluster::Ground;
use crate::proc;
use crate::programs::{root, version};
use crate::sample::numbers_of;
use crate::trouble::{Outcome, Trouble};

/// File systems in memory, where nothing is ever synced.
const IN_MEMORY: [&str; 2] = ["tmpfs", "ramfs"];
const DAY_SECONDS: u64 = 86_400;

/// Names and values, in the order in which they are shown.
pub struct Machine(pub Vec<(&'static str, String)>);

impl Machine {
    pub fn look(ground: &Ground) -> Machine {
        let programs = &ground.programs;
        let raft_kv = [programs.raft_kv.display().to_string()];
        let cores = std::thread::available_parallelism().map_or(0, usize::from);
        Machine(vec![
            ("cpu", cpu_model()),
            ("cores", cores.to_string()),
            ("memory", memory()),
            ("kernel", line("/proc/sys/kernel/osrelease")),
            ("disk", disk(ground)),
            ("raft-kv", version(&raft_kv, "--version")),
            ("commit", commit()),
            ("etcd", version(&programs.etcd, "--version")),
            ("date", date(SystemTime::now())),
        ])
    }
}

/// Refuses a directory, there already or not, that is on no disk.
pub fn is_on_disk(directory: &Path) -> Outcome {
    match directory.ancestors().find_map(file_system) {
        Some(name) if IN_MEMORY.contains(&&*name) => {
            let path = directory.display();
            Err(Trouble(format!(
                "{path} is in memory ({name}): name a directory on a disk, with --data"
            )))
        }
        _ => Ok(()),
    }
}

fn file_system(directory: &Path) -> Option<String> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").ok()?;
    Some(proc::mount(&mounts, &numbers_of(directory)?)?.file_system)
}

fn disk(ground: &Ground) -> String {
    let file_system = file_system(&ground.data).unwrap_or_else(|| "?".to_owned());
    let Some(device) = &ground.device else { return file_system };
    let about = |name: &str| line(&format!("/sys/block/{device}/{name}"));
    let model = about("device/model");
    let model = if model.is_empty() { model } else { format!("{model}, ") };
    format!("{file_system} on {device} ({model}{})", about("queue/write_cache"))
}

fn line(path: &str) -> String {
    let text = fs::read_to_string(path).unwrap_or_default();
    text.lines().next().unwrap_or_default().trim().to_owned()
}

fn cpu_model() -> String {
    let text = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = text.lines().find_map(|line| line.strip_prefix("model name"));
    model.map_or("?", |model| model.trim_start_matches([' ', '\t', ':'])).to_owned()
}

fn memory() -> String {
    let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let kib = proc::field(&text, "MemTotal:").unwrap_or(0);
    format!("{:.1} GiB", kib as f64 / f64::from(1 << 20))
}

/// Of the tree that this was built from; a `+` if files differ from it.
fn commit() -> String {
    let git = |arguments: &[&str]| {
        let told = Command::new("git").args(arguments).current_dir(root()).output().ok()?;
        told.status.success().then(|| String::from_utf8_lossy(&told.stdout).trim().to_owned())
    };
    let Some(commit) = git(&["rev-parse", "--short=10", "HEAD"]) else { return "?".to_owned() };
    let changed = git(&["status", "--porcelain"]).is_some_and(|changes| !changes.is_empty());
    if changed { commit + "+" } else { commit }
}

/// `2026-02-28 12:34 UTC`.
fn date(now: SystemTime) -> String {
    let seconds = now.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let (days, rest) = (seconds / DAY_SECONDS, seconds % DAY_SECONDS);
    let (year, month, day) = civil(days);
    format!("{year}-{month:02}-{day:02} {:02}:{:02} UTC", rest / 3600, rest / 60 % 60)
}

/// Year, month and day so many days after 1970-01-01, in years that begin in March: then the leap
/// day comes last.
fn civil(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let of_month = day - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (era * 400 + year + u64::from(month <= 2), month, of_month)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn dates_are_civil() {
        let at = |seconds| date(UNIX_EPOCH + Duration::from_secs(seconds));
        assert_eq!(at(0), "1970-01-01 00:00 UTC");
        assert_eq!(at(951_782_399), "2000-02-28 23:59 UTC");
        assert_eq!(at(951_782_400), "2000-02-29 00:00 UTC");
        assert_eq!(at(1_767_225_600), "2026-01-01 00:00 UTC");
    }

    #[test]
    fn memory_is_no_disk() {
        if Path::new("/dev/shm").exists() {
            assert!(is_on_disk(Path::new("/dev/shm")).is_err());
        }
    }
}
