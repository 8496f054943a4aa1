//! Prints what the store's operations cost, and how much memory a key takes.
//!
//! `cargo run -p store --example costs --release`

use std::hint::black_box;
use std::time::Instant;

use store::{Command, Compact, Put, Range, Store};

const VALUE_BYTES: usize = 256;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    for keys in [10_000, 1_000_000] {
        costs(keys)?;
    }
    Ok(())
}

fn costs(keys: u64) -> Result<(), Box<dyn std::error::Error>> {
    let before = resident_bytes();
    let mut store = Store::new();
    let put = |n: u64| Put { key: key(n), value: vec![b'v'; VALUE_BYTES].into(), ..Put::default() };
    report("put, new keys in order", keys, || {
        for n in 0..keys {
            store.apply(&Command::Put(put(n)))?;
        }
        Ok(())
    })?;
    let payload = store.view().bytes() / keys;
    let held = resident_bytes().saturating_sub(before) / keys;
    println!("{keys} keys: {held} B a key, of which {payload} B are key and value");

    let times = 100_000;
    report("put, a view taken every 64", times, || {
        let mut view = store.view();
        for n in 0..times {
            store.apply(&Command::Put(put(scattered(n, keys))))?;
            if n % 64 == 0 {
                view = store.view();
            }
        }
        black_box(view);
        Ok(())
    })?;
    let view = store.view();
    let read = |range: Range| view.range(&range).map(|result| drop(black_box(result)));
    let all = || Range { key: key(0), range_end: vec![0].into(), ..Range::default() };
    report("get", times, || {
        (0..times)
            .try_for_each(|n| read(Range { key: key(scattered(n, keys)), ..Range::default() }))
    })?;
    report("range, limit 100", 1000, || {
        (0..1000)
            .try_for_each(|n| read(Range { key: key(scattered(n, keys)), limit: 100, ..all() }))
    })?;
    report("count of half", 100_000, || {
        (0..100_000).try_for_each(|_| read(Range { key: key(keys / 2), count_only: true, ..all() }))
    })?;
    let revision = store.revision().0;
    report("compact", 1, || store.apply(&Command::Compact(Compact { revision })).map(|_| ()))?;
    report("sweep, a version", keys + times, || {
        while store.sweep(1000) {}
        Ok(())
    })?;
    Ok(())
}

fn report(
    what: &str,
    times: u64,
    work: impl FnOnce() -> Result<(), store::Refusal>,
) -> Result<(), store::Refusal> {
    let start = Instant::now();
    work()?;
    println!("{what:>28}: {} ns", start.elapsed().as_nanos() / u128::from(times));
    Ok(())
}

fn key(n: u64) -> bytes::Bytes {
    format!("{n:08}").into()
}

/// All over the keys, the same ones in every run.
fn scattered(n: u64, keys: u64) -> u64 {
    n.wrapping_mul(0x9e37_79b9_7f4a_7c15) % keys
}

/// Memory of the process, where the system says so.
fn resident_bytes() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    statm.split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok()).unwrap_or(0) * 4096
}
