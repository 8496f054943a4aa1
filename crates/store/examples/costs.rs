//! Prints what the store's operations cost, and how much memory a key takes, with the allocator of
//! the binary.
//!
//! `cargo run --release -p store --example costs -- 10000 1000000 5000000`
//!
//! A view is published after every 50 puts, as a busy member does. Times are the process's, so
//! that neighbours disturb them less; run it more than once and believe the least.

use std::hint::black_box;
use std::sync::LazyLock;

use mimalloc::MiMalloc;
use stats_alloc::{Region, StatsAlloc};
use store::{Command, Compact, DeleteRange, Put, Range, SWEEP_BYTES, Store, View};

#[global_allocator]
static ALLOCATOR: StatsAlloc<MiMalloc> = StatsAlloc::new(MiMalloc);

static LONG_KEYS: LazyLock<bool> = LazyLock::new(|| std::env::var_os("LONG_KEYS").is_some());
const VALUE_BYTES: usize = 256;
/// Puts between two views.
const ROUND: u64 = 50;
const PAGE: i64 = 100;

type Done = Result<(), store::Refusal>;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut sizes =
        std::env::args().skip(1).map(|keys| keys.parse()).collect::<Result<Vec<_>, _>>()?;
    if sizes.is_empty() {
        sizes = vec![10_000, 1_000_000];
    }
    for others in [0, 7, 31, 63, 255, 1023] {
        alone(others)?;
    }
    for keys in sizes {
        costs(keys)?;
    }
    Ok(())
}

fn costs(keys: u64) -> Done {
    println!("{keys} keys, loaded in order");
    let mut store = Store::new();
    measured("put, new keys in order", keys, || puts(&mut store, (0..keys).map(key)))?;
    drop(store);
    println!("{keys} keys, loaded at random");
    let mut store = Store::new();
    measured("put, new keys at random", keys, || {
        puts(&mut store, (0..keys).map(|n| key(scattered(n, keys))))
    })?;
    let times = 1_000_000;
    measured("put, overwriting at random", times, || {
        puts(&mut store, (0..times).map(|n| key(scattered(n * 7 + n / keys, keys))))
    })?;
    reads(&store.view(), keys)?;
    compact(&mut store, "sweep, a change", keys + times)?;
    measured("put, after the sweep", times, || {
        puts(&mut store, (0..times).map(|n| key(scattered(n * 3 + n / keys, keys))))
    })?;
    measured("delete, a range of 10,000", keys, || {
        (0..keys).step_by(10_000).try_for_each(|n| {
            let (key, range_end) = (key(n), key(n + 10_000));
            let delete = DeleteRange { key, range_end, prev_kv: false };
            store.apply_unanswered(&Command::DeleteRange(delete))
        })
    })?;
    compact(&mut store, "sweep, a deletion or put", keys + times)
}

fn compact(store: &mut Store, name: &str, changes: u64) -> Done {
    let revision = store.revision().0;
    store.apply(&Command::Compact(Compact { revision }))?;
    let mut longest = 0;
    measured(name, changes, || {
        longest = swept(store);
        Ok(())
    })?;
    println!("{:>28}: {longest:>6} ns", "longest call of sweep");
    Ok(())
}

/// Prints what a key keeps, beyond itself and its value, that is never overwritten among many that are.
fn alone(others: u64) -> Done {
    let keys = 20_000;
    let region = Region::new(&ALLOCATOR);
    let mut store = Store::new();
    for n in 0..keys {
        puts(&mut store, std::iter::once(key(n)))?;
        puts(&mut store, (0..others).map(|n| format!("other {n:02}").into()))?;
    }
    let revision = store.revision().0;
    store.apply(&Command::Compact(Compact { revision }))?;
    swept(&mut store);
    let change = region.change();
    let held = change.bytes_allocated - change.bytes_deallocated;
    let own = VALUE_BYTES + 8;
    println!(
        "kept of {:>20}: {:>6} B besides itself",
        others + 1,
        (held / keys as usize).saturating_sub(own)
    );
    Ok(())
}

/// As a member does it, a view after each call. Returns what the longest call took.
fn swept(store: &mut Store) -> u64 {
    let (mut view, mut longest, mut more) = (store.view(), 0, true);
    while more {
        let start = processor_nanoseconds();
        more = store.sweep(SWEEP_BYTES);
        longest = longest.max(processor_nanoseconds() - start);
        view = store.view();
    }
    black_box(view);
    longest
}

fn puts(store: &mut Store, keys: impl Iterator<Item = bytes::Bytes>) -> Done {
    let mut view = store.view();
    let value = bytes::Bytes::from(vec![b'v'; VALUE_BYTES]);
    for (n, key) in (0u64..).zip(keys) {
        store.apply(&Command::Put(Put { key, value: value.clone(), ..Put::default() }))?;
        if n % ROUND == 0 {
            view = store.view();
        }
    }
    black_box(view);
    Ok(())
}

fn reads(view: &View, keys: u64) -> Done {
    let times = 500_000;
    let read = |range: Range| view.range(&range).map(|result| drop(black_box(result)));
    let from = |n| Range { key: key(n), range_end: vec![0].into(), ..Range::default() };
    measured("get", times, || {
        (0..times)
            .try_for_each(|n| read(Range { key: key(scattered(n, keys)), ..Range::default() }))
    })?;
    measured("get, the revision before", times, || {
        let revision = view.revision().0 - 1;
        (0..times).try_for_each(|n| {
            read(Range { key: key(scattered(n, keys)), revision, ..Range::default() })
        })
    })?;
    measured("page of 100 with its count", times / 50, || {
        (0..times / 50).try_for_each(|n| read(Range { limit: PAGE, ..from(scattered(n, keys)) }))
    })?;
    measured("count of all but some", times / 5, || {
        (0..times / 5)
            .try_for_each(|n| read(Range { count_only: true, ..from(scattered(n, keys)) }))
    })
}

/// Prints a line: what one of so many operations took.
fn measured(what: &str, times: u64, work: impl FnOnce() -> Done) -> Done {
    let region = Region::new(&ALLOCATOR);
    let (resident, start) = (resident_bytes(), processor_nanoseconds());
    work()?;
    let spent = processor_nanoseconds() - start;
    let grown = resident_bytes().saturating_sub(resident);
    let allocations = region.change().allocations as u64 * 10 / times;
    println!(
        "{what:>28}: {:>6} ns, {:>3}.{} allocations, {:>4} B resident",
        spent / times,
        allocations / 10,
        allocations % 10,
        grown / times,
    );
    Ok(())
}

/// With LONG_KEYS set they are long, and alike at the beginning.
fn key(n: u64) -> bytes::Bytes {
    match *LONG_KEYS {
        false => format!("{n:08}").into(),
        true => format!("/registry/pods/namespace-{:03}/pod-{n:08}", n / 20_000).into(),
    }
}

/// All over the keys, each once, the same in every run.
fn scattered(n: u64, keys: u64) -> u64 {
    n.wrapping_mul(2_654_435_761) % keys
}

/// Memory of the process, where the system says so.
fn resident_bytes() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    statm.split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok()).unwrap_or(0) * 4096
}

fn processor_nanoseconds() -> u64 {
    let spent = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    spent.tv_sec as u64 * 1_000_000_000 + spent.tv_nsec as u64
}
