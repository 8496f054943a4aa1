//! Power is lost at every disk operation of a scripted run, with every kind of loss of what was not
//! synced, and again during the recovery. What is found is what was acknowledged, or the state
//! right after the call in flight; never damage, never less, never anything else.

#![allow(clippy::unwrap_used, reason = "a test stops where it fails")]

mod support;

use bytes::Bytes;
use support::Draw;
use wal::{
    Batch, EntryId, Fault, HardState, Identity, Incarnation, MemoryDisk, Options, Record, Wal,
};

const IDENTITY: Identity = Identity { cluster: 1, member: 2 };
/// Room for three small batches besides the header block.
const OPTIONS: Options = Options { segment_bytes: 4 * 4096, recover_kinds: &[0] };
/// Up to so many unsynced things, all subsets are tried; beyond, a sample of this many.
const EXHAUSTIVE_MAX: usize = 6;
const SAMPLES: usize = 48;

enum Step {
    Append(Batch),
    Release(u64),
    /// Begins the incarnation that starts so late.
    Begin(u64),
    Reopen,
}

/// What must be found. `release_max`: entries below may be gone.
#[derive(Clone, Default, Debug, PartialEq)]
struct Model {
    hard_state: HardState,
    records: Vec<Record>,
    /// The highest index that was said to be committed.
    commit: u64,
    release_max: u64,
    incarnation: Incarnation,
}

impl Model {
    fn append(&mut self, batch: &Batch) {
        self.hard_state = batch.hard_state.unwrap_or(self.hard_state);
        self.commit = self.commit.max(batch.commit);
        if let Some(first) = batch.records.first() {
            self.records.truncate(first.id.index as usize - 1);
            self.records.extend(batch.records.iter().cloned());
        }
    }
}

fn records(term: u64, indexes: std::ops::RangeInclusive<u64>, len: usize) -> Vec<Record> {
    let record = |index: u64| Record {
        id: EntryId { term, index },
        kind: (index % 2) as u8,
        // Zeros on purpose: a payload of zeros must not look like sectors never written.
        payload: Bytes::from(vec![if index.is_multiple_of(3) { 0 } else { index as u8 }; len]),
    };
    indexes.map(record).collect()
}

fn script() -> Vec<Step> {
    let append = |records| Step::Append(Batch { records, ..Batch::default() });
    // All of it is committed, what it replaces was not.
    let vote = |term, vote, records: Vec<Record>| {
        let hard_state = Some(HardState { term, vote });
        let commit = records.last().map_or(0, |last| last.id.index);
        Step::Append(Batch { hard_state, records, commit })
    };
    let commit = |records: Vec<Record>| {
        let commit = records.last().map_or(0, |last| last.id.index);
        Step::Append(Batch { records, commit, ..Batch::default() })
    };
    vec![
        vote(1, 2, vec![]),
        Step::Begin(2),
        append(records(1, 1..=1, 10)),
        append(records(1, 2..=4, 3)),
        append(records(1, 5..=5, 5000)),
        append(records(1, 6..=6, 700)),
        vote(2, 0, records(2, 4..=5, 1200)),
        Step::Reopen,
        Step::Begin(3),
        append(records(2, 6..=8, 900)),
        Step::Release(5),
        append(records(2, 9..=9, 20_000)),
        // In a segment of its own, which META is told of before.
        commit(records(3, 9..=9, 20_000)),
        vote(4, 1, records(4, 10..=11, 0)),
        Step::Release(9),
        append(records(4, 12..=12, 1)),
        Step::Begin(5),
        Step::Reopen,
        append(records(4, 13..=13, 2)),
    ]
}

/// Runs the script until it ends or the disk fails. Returns what was acknowledged and what the call
/// in flight would have made of it.
fn run(disk: &MemoryDisk) -> Option<(Model, Model)> {
    let mut wal = Wal::create(disk.clone(), IDENTITY, OPTIONS).ok()?;
    let mut acknowledged = Model { incarnation: wal.incarnation(), ..Model::default() };
    let mut in_flight = acknowledged.clone();
    for step in script() {
        let done = match step {
            Step::Append(batch) => {
                in_flight.append(&batch);
                wal.append(&batch).is_ok()
            }
            Step::Release(before) => {
                in_flight.release_max = before;
                wal.release(before).is_ok()
            }
            Step::Begin(start) => {
                in_flight.incarnation = Incarnation { start, id: 100 + start };
                wal.begin_incarnation(in_flight.incarnation).is_ok()
            }
            Step::Reopen => {
                drop(wal);
                let Ok((reopened, found)) = Wal::open(disk.clone(), OPTIONS) else { break };
                assert_eq!(found.incarnation, acknowledged.incarnation);
                wal = reopened;
                true
            }
        };
        if !done {
            break;
        }
        acknowledged = in_flight.clone();
    }
    Some((acknowledged, in_flight))
}

/// Opens what a crash left, and compares. `None`: power was lost before the log was created.
fn check(disk: &MemoryDisk, allowed: &Option<(Model, Model)>, context: &str) {
    let Some((old, new)) = allowed else {
        if Wal::exists(disk).unwrap() {
            let (_, recovered) = Wal::open(disk.clone(), OPTIONS)
                .unwrap_or_else(|error| panic!("{context}: {error}"));
            assert_eq!(recovered.entries, [], "{context}");
            assert_eq!(recovered.incarnation.start, 1, "{context}");
        } else {
            Wal::create(disk.clone(), IDENTITY, OPTIONS).unwrap();
        }
        return;
    };
    let (mut wal, recovered) =
        Wal::open(disk.clone(), OPTIONS).unwrap_or_else(|error| panic!("{context}: {error}"));
    assert_eq!(recovered.identity, IDENTITY, "{context}");
    let first = recovered.entries.first().map_or(u64::MAX, |id| id.index);
    let found: Vec<Record> = match recovered.entries.last() {
        None => vec![],
        Some(last) => wal.read(first, last.index, usize::MAX).unwrap(),
    };
    let ids: Vec<EntryId> = found.iter().map(|record| record.id).collect();
    assert_eq!(ids, recovered.entries, "{context}");
    let whole: Vec<Record> = found.iter().filter(|record| record.kind == 0).cloned().collect();
    assert_eq!(recovered.records, whole, "{context}");
    let matches = |model: &Model| match first {
        u64::MAX => model.records.is_empty(),
        first => {
            first <= model.release_max.max(1)
                && model.records.get(first as usize - 1..) == Some(&found)
        }
    };
    let is_new = matches(new)
        && recovered.hard_state == new.hard_state
        && recovered.incarnation == new.incarnation;
    let is_old = matches(&Model { release_max: new.release_max, ..old.clone() })
        && [old.hard_state, new.hard_state].contains(&recovered.hard_state)
        && recovered.incarnation == old.incarnation;
    assert!(is_old || is_new, "{context}: found {recovered:?}, expected {old:?} or {new:?}");
    let committed = if is_new { new.commit } else { old.commit };
    assert!(recovered.commit <= committed, "{context}: {} is not committed", recovered.commit);
    // And it goes on: what is appended now is found, with nothing of a torn batch in between.
    let next = recovered.entries.last().map_or(1, |last| last.index + 1);
    let term = recovered.hard_state.term;
    let batch = Batch { records: records(term, next..=next, 600), ..Batch::default() };
    wal.append(&batch).unwrap();
    drop(wal);
    let (wal, again) = Wal::open(disk.clone(), OPTIONS).unwrap();
    assert_eq!(again.warnings, Vec::<String>::new(), "{context}");
    assert_eq!(again.incarnation, recovered.incarnation, "{context}");
    assert_eq!(wal.read(next, next, 0).unwrap(), batch.records, "{context}");
}

/// The losses to try with `unsynced` things: as bit sets or as draws.
fn losses(unsynced: usize, draw: &mut Draw, mut each: impl FnMut(&dyn Fn(usize) -> bool)) {
    if unsynced <= EXHAUSTIVE_MAX {
        for kept in 0..1usize << unsynced {
            each(&|thing| kept >> thing & 1 == 1);
        }
        return;
    }
    each(&|_| false);
    each(&|_| true);
    for thing in [0, 1, unsynced / 2, unsynced - 2, unsynced - 1] {
        each(&|other| other != thing);
        each(&|other| other == thing);
    }
    for _ in 0..SAMPLES {
        let seed = draw.next();
        // From hardly anything kept to nearly all.
        let share = draw.below(9) + 1;
        each(&|thing| Draw(seed ^ thing as u64).below(10) < share);
    }
}

#[test]
fn every_crash_point_recovers_what_was_acknowledged() {
    let mut draw = Draw::from_environment();
    let whole = MemoryDisk::default();
    let (end, _) = run(&whole).unwrap();
    assert_eq!(end.records.len(), 13, "the script runs to its end");
    check(&whole.copy(), &Some((end.clone(), end)), "no crash");
    let mut crashes = 0;
    let mut second_crashes = 0;
    for at in 0..whole.operations() {
        let disk = MemoryDisk::default();
        disk.set_fuse(at, Fault::PowerLoss);
        let allowed = run(&disk);
        let mut found = Vec::new();
        losses(disk.unsynced(), &mut draw, |kept| found.push(disk.after_power_loss(kept)));
        for (number, found) in found.iter().enumerate() {
            crashes += 1;
            let context = format!("crash at operation {at}, loss {number}");
            check(&found.copy(), &allowed, &context);
            // Power is lost again while recovering, at one operation drawn at random.
            let probe = found.copy();
            let _ = Wal::open(probe.clone(), OPTIONS);
            if probe.operations() == 0 {
                continue;
            }
            let again = draw.below(probe.operations() as u64) as usize;
            let second = found.copy();
            second.set_fuse(again, Fault::PowerLoss);
            assert!(Wal::open(second.clone(), OPTIONS).is_err(), "{context}: stopped at {again}");
            let context = format!("{context}, again at operation {again} of the recovery");
            for _ in 0..3 {
                let seed = draw.next();
                let kept = |thing| Draw(seed ^ thing as u64).below(2) == 1;
                check(&second.after_power_loss(kept), &allowed, &context);
                second_crashes += 1;
            }
        }
    }
    println!(
        "{} operations, {crashes} crashes, {second_crashes} with a second one",
        whole.operations()
    );
    assert!(crashes > 2000, "the losses were tried");
}
