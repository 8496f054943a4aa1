//! The disk's sync: how fast a block that is there already can be made durable.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use super::{histogram, micros};
use crate::cluster::Ground;
use crate::interrupt;
use crate::sample::Sample;
use crate::trouble::{OrTrouble, Outcome, Trouble};

/// What is overwritten at a time, and the file around it.
const BLOCK_BYTES: u64 = 4096;
const FILE_BYTES: u64 = 16 << 20;

/// What was found with so many writers at once, each with a file of its own.
#[derive(Clone, Copy, Debug)]
pub struct Syncs {
    pub writers: usize,
    pub per_second: f64,
    /// Microseconds.
    pub p50: u64,
    pub p99: u64,
    pub is_noisy: bool,
}

pub fn measure(ground: &Ground, writers: usize, time: Duration) -> Outcome<Syncs> {
    interrupt::check()?;
    let folder = ground.folder("disk")?;
    let files = (0..writers)
        .map(|n| prepared(&folder.path().join(n.to_string())))
        .collect::<Outcome<Vec<File>>>()?;
    let before = Sample::take(&[], &[], None)?;
    let start = Instant::now();
    let found = std::thread::scope(|scope| {
        let threads: Vec<_> =
            files.iter().map(|file| scope.spawn(move || overwrite(file, start + time))).collect();
        let ended = threads.into_iter().map(|thread| thread.join());
        ended
            .map(|ended| ended.map_err(|_| Trouble("a writer panicked".to_owned()))?)
            .collect::<Outcome<Vec<_>>>()
    })?;
    let mut all = histogram();
    found.iter().try_for_each(|one| all.add(one)).or_trouble("latencies")?;
    Ok(Syncs {
        writers,
        per_second: all.len() as f64 / start.elapsed().as_secs_f64(),
        p50: all.value_at_quantile(0.5),
        p99: all.value_at_quantile(0.99),
        is_noisy: Sample::take(&[], &[], None)?.since(&before).is_noisy(),
    })
}

fn prepared(path: &Path) -> Outcome<File> {
    let file = File::create_new(path).or_trouble(path.display())?;
    let filled = file.write_all_at(&vec![0; FILE_BYTES as usize], 0);
    filled.and_then(|()| file.sync_all()).or_trouble(path.display())?;
    Ok(file)
}

fn overwrite(file: &File, end: Instant) -> Outcome<Histogram<u64>> {
    let block = [7; BLOCK_BYTES as usize];
    let mut found = histogram();
    for n in 0.. {
        let before = Instant::now();
        if before > end {
            break;
        }
        let written = file.write_all_at(&block, n % (FILE_BYTES / BLOCK_BYTES) * BLOCK_BYTES);
        written.and_then(|()| file.sync_data()).or_trouble("the disk")?;
        found.saturating_record(micros(before.elapsed()));
    }
    Ok(found)
}
