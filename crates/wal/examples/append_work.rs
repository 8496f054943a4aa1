//! What an append costs the processor before it reaches the system: a log on a disk that keeps
//! nothing.
//!
//! `cargo run --profile planted -p wal --example append_work [entries] [bytes]` prints the
//! processor's time for appends of that many entries (1, 64, 256 unless said) of so many bytes (300). For instructions,
//! run it under `valgrind --tool=callgrind --toggle-collect='*Wal*append*'`.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use wal::{Batch, Disk, DiskFile, EntryId, Identity, Options, Record, Wal};

const APPENDS: u64 = 10_000;

fn main() -> io::Result<()> {
    let mut numbers = std::env::args().skip(1).filter_map(|word| word.parse().ok());
    let counts = numbers.next().map_or_else(|| vec![1, 64, 256], |count| vec![count]);
    let payload_bytes = numbers.next().unwrap_or(300);
    for count in counts {
        let mut best = Duration::MAX;
        for _ in 0..5 {
            best = best.min(run(count, payload_bytes)?);
        }
        println!("{count} entries of {payload_bytes} bytes: {best:?} per append");
    }
    Ok(())
}

/// The mean time of an append.
fn run(count: u64, payload_bytes: u64) -> io::Result<Duration> {
    let options = Options { segment_bytes: 1 << 30, ..Options::default() };
    let mut wal = Wal::create(Nothing, Identity::default(), options).map_err(io::Error::other)?;
    let payload = |index: u64| Bytes::from(vec![index as u8; payload_bytes as usize]);
    let record =
        |index| Record { id: EntryId { term: 1, index }, kind: 1, payload: payload(index) };
    let mut records: Vec<Record> = (1..=count).map(record).collect();
    let start = cpu_so_far()?;
    for _ in 0..APPENDS {
        let batch = Batch { records, ..Batch::default() };
        wal.append(&batch)?;
        records = batch.records;
        for record in &mut records {
            record.id.index += count;
        }
    }
    Ok((cpu_so_far()? - start) / APPENDS as u32)
}

/// What this thread has used of a processor.
fn cpu_so_far() -> io::Result<Duration> {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat")?;
    let nanoseconds = text.split_whitespace().next().and_then(|word| word.parse().ok());
    Ok(Duration::from_nanos(nanoseconds.unwrap_or(0)))
}

/// A disk that does nothing, at once.
#[derive(Clone)]
struct Nothing;

impl Disk for Nothing {
    type File = Nothing;
    type Lock = ();

    fn lock(&self) -> io::Result<()> {
        Ok(())
    }

    fn names(&self) -> io::Result<Vec<String>> {
        Ok(Vec::new())
    }

    fn create(&self, _name: &str) -> io::Result<Nothing> {
        Ok(Nothing)
    }

    fn open(&self, _name: &str) -> io::Result<Nothing> {
        Err(io::ErrorKind::NotFound.into())
    }

    fn rename(&self, _from: &str, _to: &str) -> io::Result<()> {
        Ok(())
    }

    fn remove(&self, _name: &str) -> io::Result<()> {
        Ok(())
    }

    fn sync_directory(&self) -> io::Result<()> {
        Ok(())
    }

    fn unique_number(&self) -> io::Result<u64> {
        Ok(1)
    }
}

impl DiskFile for Nothing {
    fn len(&self) -> io::Result<u64> {
        Ok(0)
    }

    fn read_at(&self, _buffer: &mut [u8], _offset: u64) -> io::Result<()> {
        Err(io::ErrorKind::UnexpectedEof.into())
    }

    fn write_at(&self, _bytes: &[u8], _offset: u64) -> io::Result<()> {
        Ok(())
    }

    fn allocate(&self, _len: u64) -> io::Result<()> {
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }
}
