//! Prints what the dearest commands that are not refused cost, one of each kind.
//!
//! `cargo run --release -p store --example dearest -- 1000000`
//!
//! The keys were written at random, so most of what is looked at is in no cache. Times are the
//! process's; each is the least of three.

use std::hint::black_box;

use mimalloc::MiMalloc;
use store::*;

#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

const VALUE_BYTES: usize = 256;
/// Versions of the keys that have many.
const VERSIONS: u64 = 1000;

type Failed = Box<dyn std::error::Error>;

fn main() -> Result<(), Failed> {
    let keys = std::env::args().nth(1).map_or(Ok(1_000_000), |keys| keys.parse())?;
    let mut store = loaded(keys)?;
    println!("{keys} keys of {VALUE_BYTES} bytes");
    let (keys_max, bytes_max) = (Bounds::default().keys_max, Bounds::default().bytes_max);
    for (name, command) in reads(keys, keys_max, &store) {
        measured(name, &mut store, &|_| command.clone())?;
    }
    for (name, prev_kv) in [("delete a range", false), ("delete a range, previous values", true)] {
        // Another one each time.
        let mut store = loaded(keys)?;
        measured(name, &mut store, &|round| {
            let each = if prev_kv { Bounds::DELETE_PREV_KEYS } else { 1 };
            let deleted = (keys_max - Bounds::STEP_KEYS) / each;
            let (key, range_end) = (key(round * deleted), key((round + 1) * deleted));
            Command::DeleteRange(DeleteRange { key, range_end, prev_kv })
        })?;
    }
    for (name, command) in changes(keys, keys_max) {
        measured(name, &mut store, &|_| command.clone())?;
    }
    let mut store = loaded(1000)?;
    deep(&mut store)?;
    println!("1,000 keys of {VERSIONS} versions, one of a million");
    for (name, command) in past(keys_max) {
        measured(name, &mut store, &|_| command.clone())?;
    }
    let mut store = large(bytes_max)?;
    println!("values of 1 MiB");
    for (name, command) in copies(bytes_max) {
        measured(name, &mut store, &|_| command.clone())?;
    }
    let mut store = alike(bytes_max)?;
    println!("values of 4 KiB, alike but for their end");
    for (name, command) in comparisons(bytes_max) {
        measured(name, &mut store, &|_| command.clone())?;
    }
    Ok(())
}

fn loaded(keys: u64) -> Result<Store, Refusal> {
    let mut store = Store::new();
    let value = bytes::Bytes::from(vec![b'v'; VALUE_BYTES]);
    for n in 0..keys {
        let key = key(n.wrapping_mul(2_654_435_761) % keys);
        store.apply(&Command::Put(Put { key, value: value.clone(), ..Put::default() }))?;
    }
    Ok(store)
}

/// Gives keys many versions, in turn.
fn deep(store: &mut Store) -> Result<(), Refusal> {
    for n in 0..VERSIONS * 1000 {
        for key in [key(n % 1000), "deep".into()] {
            store.apply(&Command::Put(Put { key, ..Put::default() }))?;
        }
    }
    Ok(())
}

fn large(bytes_max: u64) -> Result<Store, Refusal> {
    let mut store = Store::new();
    for n in 0..bytes_max >> 20 {
        let value = vec![n as u8; 1 << 20].into();
        store.apply(&Command::Put(Put { key: key(n), value, ..Put::default() }))?;
    }
    Ok(store)
}

fn alike(bytes_max: u64) -> Result<Store, Refusal> {
    let mut store = Store::new();
    for n in 0..bytes_max >> 12 {
        let mut value = vec![b'v'; 4086];
        value.extend_from_slice(&(n.wrapping_mul(2_654_435_761)).to_le_bytes()[..2]);
        store.apply(&Command::Put(Put { key: key(n), value: value.into(), ..Put::default() }))?;
    }
    Ok(store)
}

fn key(n: u64) -> bytes::Bytes {
    format!("{n:08}").into()
}

fn then(success: Vec<Op>) -> Command {
    Command::Txn(Txn { success, ..Txn::default() })
}

fn put(key: bytes::Bytes) -> Put {
    Put { key, value: "v".into(), ..Put::default() }
}

fn first(keys: u64) -> Range {
    Range { key: key(0), range_end: key(keys), ..Range::default() }
}

fn changes(keys: u64, keys_max: u64) -> Vec<(&'static str, Command)> {
    let puts = keys_max / (Bounds::STEP_KEYS + 1);
    let at_random = |n: u64| key(n.wrapping_mul(7919 * 131) % keys);
    let all = |one: &dyn Fn(u64) -> Op| then((0..puts).map(one).collect());
    let mut nested = Txn {
        success: (0..puts - 80).map(|n| Op::Put(put(at_random(n)))).collect(),
        ..Txn::default()
    };
    for n in 0..40 {
        let delete = DeleteRange { key: format!("x{n}").into(), ..DeleteRange::default() };
        nested = Txn { success: vec![Op::DeleteRange(delete), Op::Txn(nested)], ..Txn::default() };
    }
    vec![
        ("put new keys", all(&|n| Op::Put(put(format!("{:08}+", n * 17 % keys).into())))),
        ("put over keys", all(&|n| Op::Put(put(at_random(n))))),
        ("put over keys, previous values", {
            all(&|n| Op::Put(Put { prev_kv: true, ..put(at_random(n)) }))
        }),
        ("put over keys, below 40 transactions", Command::Txn(nested)),
        ("delete keys one by one", {
            let one = |n| DeleteRange { key: at_random(n), ..DeleteRange::default() };
            all(&|n| Op::DeleteRange(one(n)))
        }),
    ]
}

fn reads(keys: u64, keys_max: u64, store: &Store) -> Vec<(&'static str, Command)> {
    let with = |range| then(vec![Op::Range(range), Op::Put(put(key(0)))]);
    let at_random = |n: u64| key(n.wrapping_mul(7919 * 131) % keys);
    let compare = |keys, target| Compare {
        key: key(0),
        range_end: key(keys),
        result: CompareResult::NotEqual,
        target,
        operand: Operand::Value("w".into()),
    };
    let compares = |keys, count| Txn {
        compare: vec![compare(keys, CompareTarget::Version); count],
        success: vec![Op::Put(put(key(0)))],
        ..Txn::default()
    };
    let steps = 2 * Bounds::STEP_KEYS;
    let value = vec![compare(keys_max / 2 - steps, CompareTarget::Value); 2];
    let few = || compares(keys_max / (48 * 49) - Bounds::STEP_KEYS - 1, 48);
    let inner = Txn { success: Vec::new(), ..few() };
    let nested = Txn { success: (0..47).map(|_| Op::Txn(inner.clone())).collect(), ..few() };
    let revision = store.revision().0 - 10_000;
    let read = (keys_max - steps) / Bounds::RANGE_KEYS;
    let by = |sort_target| Range { sort_target, sort_order: SortOrder::Descend, ..first(read) };
    vec![
        ("read a range", with(first(read))),
        ("read a range, keys only", with(Range { keys_only: true, ..first(read) })),
        ("read a range by revision", with(by(SortTarget::Mod))),
        ("read a range by value", with(by(SortTarget::Value))),
        ("read keys one by one", {
            let one = |n| Range { key: at_random(n), ..Range::default() };
            then((0..keys_max / (Bounds::STEP_KEYS + 2)).map(|n| Op::Range(one(n))).collect())
        }),
        ("count at an older revision", {
            let keys = (keys_max - steps) / Bounds::PAST_KEYS;
            // Those that were deleted since are counted, too: none.
            with(Range { revision, count_only: true, ..first(keys - 1) })
        }),
        ("compare a range", Command::Txn(compares(keys_max / 4 - steps, 4))),
        ("compare the values of a range", Command::Txn(Txn { compare: value, ..compares(0, 0) })),
        ("compare 48 x 48 ranges", Command::Txn(nested)),
    ]
}

fn past(keys_max: u64) -> Vec<(&'static str, Command)> {
    let reads = keys_max / (Bounds::PAST_KEYS + Bounds::STEP_KEYS);
    let at = |n: u64, range| Range { revision: 2000 + 151 * n as i64, ..range };
    let deep = || Range { key: "deep".into(), ..Range::default() };
    vec![
        ("read a key at older revisions", {
            then((0..reads).map(|n| Op::Range(at(n, deep()))).collect())
        }),
        ("read ranges at older revisions", {
            let count = keys_max / (Bounds::PAST_KEYS * 1001);
            then((0..count).map(|n| Op::Range(at(n * 11, first(1000)))).collect())
        }),
    ]
}

fn copies(bytes_max: u64) -> Vec<(&'static str, Command)> {
    let large = |n| Put { value: bytes::Bytes::new(), ignore_value: true, ..put(key(n)) };
    let count = (bytes_max / Bounds::KEPT_BYTES) >> 20;
    vec![("keep values", then((0..count).map(|n| Op::Put(large(n))).collect()))]
}

fn comparisons(bytes_max: u64) -> Vec<(&'static str, Command)> {
    let count = bytes_max >> 12;
    let by_value =
        Range { sort_target: SortTarget::Value, sort_order: SortOrder::Ascend, ..first(count - 1) };
    let compare = Compare {
        key: key(0),
        range_end: key(count),
        result: CompareResult::Greater,
        target: CompareTarget::Value,
        operand: Operand::Value(vec![b'v'; 4085].into()),
    };
    let success = vec![Op::Put(put("z".into()))];
    vec![
        ("read a range by value", then(vec![Op::Range(by_value), Op::Put(put("z".into()))])),
        (
            "compare the values of a range",
            Command::Txn(Txn { compare: vec![compare], success, ..Txn::default() }),
        ),
    ]
}

/// Prints what a command takes, wanted and unwanted, and to be refused.
fn measured(
    name: &str,
    store: &mut Store,
    command: &dyn Fn(u64) -> Command,
) -> Result<(), Refusal> {
    let mut least = [u64::MAX; 3];
    for round in 0..3 {
        for (kind, least) in least.iter_mut().enumerate() {
            let command = &command(3 * round + kind as u64);
            let view = store.view();
            let start = processor_nanoseconds();
            match kind {
                0 => drop(black_box(store.apply(command)?)),
                1 => store.apply_unanswered(command)?,
                _ => {
                    command.check(&Limits { txn_ops_max: usize::MAX })?;
                    view.check_cost(command)?;
                }
            }
            *least = (*least).min(processor_nanoseconds() - start);
            drop(view);
        }
    }
    let [answered, unanswered, checked] = least.map(|time| time as f64 / 1e6);
    println!(
        "{name:>38}: {answered:>6.1} ms, unanswered {unanswered:>6.1}, checked {checked:>6.1}"
    );
    Ok(())
}

fn processor_nanoseconds() -> u64 {
    let spent = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    spent.tv_sec as u64 * 1_000_000_000 + spent.tv_nsec as u64
}
