//! How fast the log appends, beside a bare loop of overwrite and sync on a prepared file.
//!
//! `cargo run -p wal --example append_speed [directory]`; the directory must be on the disk to be
//! measured, and is left empty.

use std::io;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use bytes::Bytes;
use wal::{Batch, Disk, DiskFile, EntryId, FileDisk, Identity, Options, Record, Wal};

const RUN: Duration = Duration::from_secs(2);

fn main() -> io::Result<()> {
    let base = std::env::args().nth(1).map_or_else(std::env::temp_dir, PathBuf::from);
    let directory = tempfile::tempdir_in(base)?;
    for payload_bytes in [280, 3_500, 60_000] {
        let disk = FileDisk::create(directory.path().join(payload_bytes.to_string()))?;
        let options = Options::default();
        let mut wal =
            Wal::create(disk.clone(), Identity::default(), options).map_err(io::Error::other)?;
        let payload = Bytes::from(vec![7; payload_bytes]);
        let mut index = 0;
        report(&format!("append {payload_bytes} B"), || {
            index += 1;
            let id = EntryId { term: 1, index };
            let records = vec![Record { id, kind: 1, payload: payload.clone() }];
            wal.append(&Batch { records, ..Batch::default() })?;
            wal.release(index)?;
            Ok(())
        })?;

        let file = disk.create("bare")?;
        let len = 64 << 20;
        file.write_at(&vec![0; len], 0)?;
        file.sync()?;
        let block = vec![7; (payload_bytes + 300).next_multiple_of(4096)];
        let mut at = 0;
        report(&format!("bare overwrite of {} B", block.len()), || {
            at = if at + 2 * block.len() > len { 0 } else { at + block.len() };
            file.write_at(&block, at as u64)?;
            file.sync()
        })?;
    }
    Ok(())
}

fn report(what: &str, mut once: impl FnMut() -> io::Result<()>) -> io::Result<()> {
    let mut times = Vec::new();
    let start = Instant::now();
    while start.elapsed() < RUN {
        let before = Instant::now();
        once()?;
        times.push(before.elapsed());
    }
    let rate = times.len() as f64 / start.elapsed().as_secs_f64();
    times.sort_unstable();
    let at = |share: f64| times[(times.len() as f64 * share) as usize];
    println!("{what}: {rate:.0}/s, p50 {:?}, p99 {:?}, p99.9 {:?}", at(0.5), at(0.99), at(0.999));
    Ok(())
}
