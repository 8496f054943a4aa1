//! What the kernel tells of processes, processors and disks, as numbers.
//!
//! Parsing only; [`crate::sample`] says what is read when.

/// CPU time of a process in /proc/PID/stat, its ended threads included: user and system, in
/// hundredths of a second.
pub fn stat_ticks(stat: &str) -> Option<u64> {
    let mut fields = after_name(stat)?.skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(user + system)
}

/// The same of the children that a process has waited for.
pub fn stat_ticks_of_children(stat: &str) -> Option<u64> {
    let mut fields = after_name(stat)?.skip(13);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(user + system)
}

/// The parent's id in /proc/PID/stat.
pub fn stat_parent(stat: &str) -> Option<u32> {
    after_name(stat)?.nth(1)?.parse().ok()
}

/// The fields behind the name, which may contain spaces but ends at the last parenthesis.
fn after_name(stat: &str) -> Option<std::str::Split<'_, char>> {
    Some(stat.rsplit_once(") ")?.1.split(' '))
}

/// Nanoseconds on a CPU in a schedstat file.
pub fn schedstat_nanos(schedstat: &str) -> Option<u64> {
    schedstat.split_whitespace().next()?.parse().ok()
}

/// Context switches in a task's status file, of its own will and not.
pub fn switches(status: &str) -> u64 {
    ["voluntary_ctxt_switches:", "nonvoluntary_ctxt_switches:"]
        .iter()
        .filter_map(|name| field(status, name))
        .sum()
}

/// Resident bytes in a process's status file.
pub fn resident_bytes(status: &str) -> Option<u64> {
    field(status, "VmRSS:").map(|kib| kib << 10)
}

/// The first number behind a name that begins a line.
pub fn field(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

/// What all processors did, in /proc/stat: hundredths of a second. Interrupts are left out: whether
/// they count for the thread that they interrupt depends on how the kernel was built.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Processors {
    /// In processes and kernel threads.
    pub busy: u64,
    /// Taken away by the host of a virtual machine.
    pub stolen: u64,
}

pub fn processors(stat: &str) -> Option<Processors> {
    let line = stat.lines().find_map(|line| line.strip_prefix("cpu "))?;
    let fields: Vec<u64> = line.split_whitespace().map_while(|field| field.parse().ok()).collect();
    // user nice system idle iowait irq softirq steal
    let [user, nice, system, _, _, _, _, stolen, ..] = fields[..] else { return None };
    Some(Processors { busy: user + nice + system, stolen })
}

/// What a block device did since the system started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Device {
    pub writes: u64,
    pub bytes_written: u64,
    /// Requests to empty its cache; 0 where the kernel does not count them.
    pub flushes: u64,
}

/// Of the device of that name, in /proc/diskstats.
pub fn device(diskstats: &str, name: &str) -> Option<Device> {
    let mut fields = diskstats
        .lines()
        .map(|line| line.split_whitespace().skip(2))
        .find_map(|mut fields| (fields.next() == Some(name)).then_some(fields))?
        .map_while(|field| field.parse::<u64>().ok());
    // Writes, merged, sectors of 512 bytes, ... ; flushes come last, since Linux 5.5.
    let writes = fields.nth(4)?;
    let sectors = fields.nth(1)?;
    let flushes = fields.nth(8).unwrap_or(0);
    Some(Device { writes, bytes_written: sectors * 512, flushes })
}

/// A mount in /proc/self/mountinfo.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    pub file_system: String,
    pub source: String,
}

/// The mount with these device numbers, `major:minor`.
pub fn mount(mountinfo: &str, numbers: &str) -> Option<Mount> {
    let line = mountinfo.lines().find(|line| line.split(' ').nth(2) == Some(numbers))?;
    let mut rest = line.split_once(" - ")?.1.split(' ');
    Some(Mount { file_system: rest.next()?.to_owned(), source: rest.next()?.to_owned() })
}

/// A counter in the text that Prometheus reads.
pub fn metric(text: &str, name: &str) -> Option<f64> {
    let behind = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))?;
    behind.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_may_be_called_anything() {
        let stat = "77 (a) b (c) R 2 77 77 0 -1 4194304 101 0 0 0 30 12 5 6 20 0 1 0 99";
        assert_eq!(stat_ticks(stat), Some(42));
        assert_eq!(stat_ticks_of_children(stat), Some(11));
        assert_eq!(stat_parent(stat), Some(2));
        assert_eq!(stat_ticks("nothing"), None);
    }

    #[test]
    fn tasks_tell_time_and_switches() {
        assert_eq!(schedstat_nanos("686127 4956033 4\n"), Some(686_127));
        let status = "Name:\tx\nVmRSS:\t  2048 kB\nvoluntary_ctxt_switches:\t7\n\
                      nonvoluntary_ctxt_switches:\t5\n";
        assert_eq!(switches(status), 12);
        assert_eq!(resident_bytes(status), Some(2 << 20));
        assert_eq!(resident_bytes("Name:\tkthreadd\n"), None);
    }

    #[test]
    fn idle_processors_are_not_busy() {
        let stat = "cpu  100 20 30 9000 800 4 6 9 0 0\ncpu0 1 2 3 4 5 6 7 8 9 10\n";
        let processors = processors(stat).unwrap();
        assert_eq!(processors, Processors { busy: 150, stolen: 9 });
    }

    #[test]
    fn a_device_is_found_by_its_whole_name() {
        let old = "254 0 vda 1 2 3 4 5 6 7 8 9 10 11\n";
        let new = " 254 1 vda1 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0\n \
                   254 0 vda 962 54 387 17 1443 240 1562 744 0 211 2520 131 24 113 297 526 413\n";
        let written = |writes, sectors: u64, flushes| Device {
            writes,
            bytes_written: sectors * 512,
            flushes,
        };
        assert_eq!(device(new, "vda"), Some(written(1443, 1562, 526)));
        assert_eq!(device(old, "vda"), Some(written(5, 7, 0)));
        assert_eq!(device(new, "vd"), None);
    }

    #[test]
    fn a_mount_is_found_by_its_numbers() {
        let text = "22 27 0:21 / /proc rw,relatime - proc proc rw\n\
                    27 1 254:0 / / rw,relatime shared:1 - ext4 /dev/root rw,discard\n";
        let mount = mount(text, "254:0").unwrap();
        assert_eq!((&*mount.file_system, &*mount.source), ("ext4", "/dev/root"));
        assert_eq!(super::mount(text, "0:99"), None);
    }

    #[test]
    fn a_metric_is_found_by_its_whole_name() {
        let text = "# HELP a_count what\na_count_total 3\na_count 17\n";
        assert_eq!(metric(text, "a_count"), Some(17.0));
        assert_eq!(metric(text, "b"), None);
    }
}
