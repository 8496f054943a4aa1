//! What a durable append costs, by the way in which it is written: four ways, batches of four
//! sizes, one writer and three at once. Then what it matters whether blocks were written before.
//!
//! `cargo run --release -p wal --example sync_costs [directory]`; the directory must be on the disk
//! to be measured, and is left empty. The ways take turns, and each figure is the median of the
//! rounds; the processor's time is the least, for what comes to it is somebody else's.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, IoSlice};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Barrier};
use std::time::{Duration, Instant};

use bytes::Bytes;
use rustix::fs::OFlags;
use rustix::io::{ReadWriteFlags, pwritev2};
use wal::{
    Batch, Disk, DiskFile, DiskFileHandle, EntryId, FileDisk, Identity, Options, Record, Wal,
};

const ROUNDS: usize = 5;
/// Bytes of a batch, and how many are appended in a round.
const SIZES: [(usize, u64); 4] =
    [(4 << 10, 1000), (16 << 10, 600), (64 << 10, 300), (256 << 10, 100)];
/// Room for all batches of a round: what is measured is no change of segment.
const SEGMENT_BYTES: u64 = 72 << 20;

/// How a batch is written and made durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Way {
    /// Into the page cache, then `fdatasync`.
    Cached,
    /// Into the page cache, durable in one call.
    CachedInOne,
    /// Past the page cache, then `fdatasync`.
    Direct,
    /// Past the page cache, durable in one call.
    DirectInOne,
}

const WAYS: [Way; 4] = [Way::Cached, Way::CachedInOne, Way::Direct, Way::DirectInOne];

fn main() -> io::Result<()> {
    let base = std::env::args().nth(1).map_or_else(std::env::temp_dir, PathBuf::from);
    let directory = tempfile::tempdir_in(base)?;
    append_costs(directory.path())?;
    first_write_costs(directory.path())
}

fn append_costs(base: &Path) -> io::Result<()> {
    println!("| writers | batch | way | p50 | appends/s | CPU per append | written per append |");
    println!("|---|---|---|---|---|---|---|");
    for writers in [1, 3] {
        let mut found: BTreeMap<(usize, Way), Vec<Cost>> = BTreeMap::new();
        for _ in 0..ROUNDS {
            for way in WAYS {
                for (size, cost) in round(base, way, writers)? {
                    found.entry((size, way)).or_default().push(cost);
                }
            }
        }
        for ((size, way), costs) in found {
            let median = |of: fn(&Cost) -> f64| {
                let mut values: Vec<f64> = costs.iter().map(of).collect();
                values.sort_unstable_by(f64::total_cmp);
                values[values.len() / 2]
            };
            let p50 = median(|cost| cost.p50.as_secs_f64() * 1e6);
            let least = costs.iter().map(|cost| cost.cpu).min().unwrap_or_default();
            println!(
                "| {writers} | {} KiB | {way:?} | {p50:.0} µs | {:.0} | {:.1} µs | {:.1} KiB |",
                size >> 10,
                median(|cost| cost.rate),
                least.as_secs_f64() * 1e6,
                median(|cost| cost.written) / 1024.0,
            );
        }
    }
    Ok(())
}

/// Of one append.
struct Cost {
    p50: Duration,
    /// Appends of all writers together in a second.
    rate: f64,
    cpu: Duration,
    written: f64,
}

/// Appends batches of all sizes from so many threads, each to a log of its own.
fn round(base: &Path, way: Way, writers: usize) -> io::Result<Vec<(usize, Cost)>> {
    let options = Options { segment_bytes: SEGMENT_BYTES, ..Options::default() };
    let mut logs = Vec::new();
    for writer in 0..writers {
        let disk = FileDisk::create(base.join(writer.to_string()))?;
        let disk = Measured { disk, way };
        let log = Wal::create(disk, Identity::default(), options.clone());
        logs.push((log.map_err(io::Error::other)?, 1));
    }
    let mut costs = Vec::new();
    for (size, appends) in SIZES {
        let barrier = Arc::new(Barrier::new(writers));
        let written = written_so_far()?;
        let start = Instant::now();
        let mut threads = Vec::new();
        for (mut log, first) in logs.drain(..) {
            let barrier = barrier.clone();
            threads.push(std::thread::spawn(move || {
                barrier.wait();
                let done = appends_of(&mut log, first, size, appends)?;
                Ok::<_, io::Error>((log, done))
            }));
        }
        let mut times = Vec::new();
        let mut cpu = Duration::ZERO;
        for thread in threads {
            let (log, done) = thread.join().expect("a writer does not panic")?;
            logs.push((log, done.next));
            times.extend(done.times);
            cpu += done.cpu;
        }
        let all = times.len() as f64;
        let rate = all / start.elapsed().as_secs_f64();
        times.sort_unstable();
        let p50 = times[times.len() / 2];
        let written = (written_so_far()? - written) as f64 / all;
        costs.push((size, Cost { p50, rate, cpu: cpu.div_f64(all), written }));
    }
    drop(logs);
    for writer in 0..writers {
        std::fs::remove_dir_all(base.join(writer.to_string()))?;
    }
    Ok(costs)
}

/// What a thread did.
struct Done {
    times: Vec<Duration>,
    cpu: Duration,
    /// Index of the next entry.
    next: u64,
}

fn appends_of(log: &mut Wal<Measured>, first: u64, size: usize, appends: u64) -> io::Result<Done> {
    // What 512-byte sectors hold, without head and table, which stand there twice.
    let payload = Bytes::from(vec![7; size / 512 * 492 - 256]);
    let mut times = Vec::new();
    let cpu = cpu_so_far()?;
    for index in first..first + appends {
        let before = Instant::now();
        let record = Record { id: EntryId { term: 1, index }, kind: 1, payload: payload.clone() };
        log.append(&Batch { records: vec![record], ..Batch::default() })?;
        times.push(before.elapsed());
    }
    Ok(Done { times, cpu: cpu_so_far()? - cpu, next: first + appends })
}

/// What was in a file where a write goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Blocks {
    /// Zeros that were written.
    Written,
    /// Room that was reserved, and reads as zeros.
    Reserved,
    /// As the log finds them: reserved, and written with zeros by small batches before.
    OfTheLog,
}

fn first_write_costs(base: &Path) -> io::Result<()> {
    println!("\n| writers | batch | blocks | p50 | p99 | CPU |");
    println!("|---|---|---|---|---|---|");
    for writers in [1, 3] {
        for (size, writes) in SIZES {
            let mut found: BTreeMap<Blocks, Vec<Done>> = BTreeMap::new();
            for _ in 0..ROUNDS {
                for blocks in [Blocks::Written, Blocks::Reserved, Blocks::OfTheLog] {
                    let threads: Vec<_> = (0..writers)
                        .map(|writer| {
                            let path = base.join(writer.to_string());
                            std::thread::spawn(move || writes_to(&path, blocks, size, writes))
                        })
                        .collect();
                    for thread in threads {
                        let done = thread.join().expect("a writer does not panic")?;
                        found.entry(blocks).or_default().push(done);
                    }
                }
            }
            for (blocks, done) in found {
                let mut times: Vec<_> = done.iter().flat_map(|done| &done.times).collect();
                times.sort_unstable();
                let [p50, p99] = [0.5, 0.99].map(|at| times[(times.len() as f64 * at) as usize]);
                let cpu = done.iter().map(|done| done.cpu).min().unwrap_or_default();
                let cpu = cpu.div_f64(writes as f64);
                let kib = size >> 10;
                println!(
                    "| {writers} | {kib} KiB | {blocks:?} | {p50:.0?} | {p99:.0?} | {cpu:.1?} |"
                );
            }
        }
    }
    Ok(())
}

fn writes_to(path: &Path, blocks: Blocks, size: usize, writes: u64) -> io::Result<Done> {
    let disk = FileDisk::create(path)?;
    let options = Options { segment_bytes: SEGMENT_BYTES, ..Options::default() };
    let disk = Measured { disk, way: Way::DirectInOne };
    let log = Wal::create(disk.clone(), Identity::default(), options);
    let mut log = log.map_err(io::Error::other)?;
    let done = if blocks == Blocks::OfTheLog {
        appends_of(&mut log, 1, size, writes)?
    } else {
        let file = disk.create("file")?;
        file.allocate(SEGMENT_BYTES)?;
        if blocks == Blocks::Written {
            file.file.write_at(&vec![0; SEGMENT_BYTES as usize], 0)?;
        }
        file.sync()?;
        let memory = vec![7; size + 4096];
        let start = memory.as_ptr().align_offset(4096);
        let bytes = &memory[start..start + size];
        let cpu = cpu_so_far()?;
        let mut times = Vec::new();
        for number in 0..writes {
            let before = Instant::now();
            file.write_durably(bytes, number * size as u64)?;
            times.push(before.elapsed());
        }
        Done { times, cpu: cpu_so_far()? - cpu, next: 0 }
    };
    drop(log);
    std::fs::remove_dir_all(path)?;
    Ok(done)
}

/// What this thread has used of a processor.
fn cpu_so_far() -> io::Result<Duration> {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat")?;
    let nanoseconds = text.split_whitespace().next().and_then(|word| word.parse().ok());
    Ok(Duration::from_nanos(nanoseconds.unwrap_or(0)))
}

/// What this process has had written, or counted as to be written, in bytes.
fn written_so_far() -> io::Result<u64> {
    let text = std::fs::read_to_string("/proc/self/io")?;
    let line = text.lines().find_map(|line| line.strip_prefix("write_bytes: "));
    Ok(line.and_then(|number| number.parse().ok()).unwrap_or(0))
}

/// A directory in which appends are written in one of the ways.
#[derive(Clone)]
struct Measured {
    disk: FileDisk,
    way: Way,
}

struct MeasuredFile {
    /// For everything but writing.
    file: DiskFileHandle,
    writes: File,
    way: Way,
}

impl Measured {
    fn file(&self, file: DiskFileHandle, name: &str) -> io::Result<MeasuredFile> {
        let mut options = OpenOptions::new();
        options.write(true);
        if matches!(self.way, Way::Direct | Way::DirectInOne) {
            options.custom_flags(OFlags::DIRECT.bits() as i32);
        }
        let writes = options.open(self.disk.path().join(name))?;
        Ok(MeasuredFile { file, writes, way: self.way })
    }
}

impl Disk for Measured {
    type File = MeasuredFile;
    type Lock = File;

    fn lock(&self) -> io::Result<File> {
        self.disk.lock()
    }

    fn names(&self) -> io::Result<Vec<String>> {
        self.disk.names()
    }

    fn create(&self, name: &str) -> io::Result<MeasuredFile> {
        self.file(self.disk.create(name)?, name)
    }

    fn open(&self, name: &str) -> io::Result<MeasuredFile> {
        self.file(self.disk.open(name)?, name)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.disk.rename(from, to)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.disk.remove(name)
    }

    fn sync_directory(&self) -> io::Result<()> {
        self.disk.sync_directory()
    }

    fn unique_number(&self) -> io::Result<u64> {
        self.disk.unique_number()
    }
}

impl DiskFile for MeasuredFile {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.file.read_at(buffer, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        match self.way {
            Way::Cached | Way::CachedInOne => self.writes.write_all_at(bytes, offset),
            Way::Direct | Way::DirectInOne => self.file.write_at(bytes, offset),
        }
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        self.file.allocate(len)
    }

    fn sync(&self) -> io::Result<()> {
        self.file.sync()
    }

    fn write_durably(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        match self.way {
            Way::Cached | Way::Direct => {
                self.writes.write_all_at(bytes, offset)?;
                self.writes.sync_data()
            }
            Way::CachedInOne | Way::DirectInOne => {
                let parts = [IoSlice::new(bytes)];
                let written = pwritev2(&self.writes, &parts, offset, ReadWriteFlags::DSYNC)?;
                assert_eq!(written, bytes.len(), "a regular file takes all at once");
                Ok(())
            }
        }
    }
}
