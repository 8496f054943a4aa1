//! The log on real files.

#![allow(clippy::unwrap_used, reason = "a test stops where it fails")]

mod support;

use bytes::Bytes;
use std::io::ErrorKind;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use support::Draw;
use wal::{Batch, EntryId, FileDisk, HardState, Identity, Options, Reader, Record, Wal, WalError};

const IDENTITY: Identity = Identity { cluster: 7, member: 8 };

fn options() -> Options {
    Options { segment_bytes: 64 << 10, ..Options::default() }
}

fn record(term: u64, index: u64, payload: &str) -> Record {
    let payload = Bytes::from(payload.to_owned());
    Record { id: EntryId { term, index }, kind: 1, payload }
}

fn batch(records: Vec<Record>) -> Batch {
    Batch { records, ..Batch::default() }
}

#[test]
fn what_was_appended_is_found_again() {
    let directory = tempfile::tempdir().unwrap();
    let disk = FileDisk::create(directory.path().join("a/b")).unwrap();
    let hard_state = HardState { term: 2, vote: 8 };
    {
        let mut wal = Wal::create(disk.clone(), IDENTITY, options()).unwrap();
        wal.append(&batch(vec![record(1, 1, "one"), record(1, 2, "two")])).unwrap();
        let replacing = vec![record(2, 2, "zwei"), record(2, 3, "drei")];
        let hard_state = Some(hard_state);
        wal.append(&Batch { hard_state, records: replacing, commit: 2 }).unwrap();
        assert_eq!(wal.read(1, 9, usize::MAX).unwrap().len(), 3);
    }
    let (wal, recovered) = Wal::open(disk, options()).unwrap();
    assert_eq!(recovered.identity, IDENTITY);
    assert_eq!(recovered.hard_state, hard_state);
    assert_eq!(recovered.commit, 2);
    assert_eq!(recovered.warnings, Vec::<String>::new());
    let ids: Vec<String> = recovered.entries.iter().map(EntryId::to_string).collect();
    assert_eq!(ids, ["1@1", "2@2", "3@2"]);
    let records = wal.read(2, 3, usize::MAX).unwrap();
    assert_eq!(records, [record(2, 2, "zwei"), record(2, 3, "drei")]);
    let reader = wal.reader();
    let read = std::thread::spawn(move || reader.read(1, 1, 0).unwrap()).join().unwrap();
    assert_eq!(read, [record(1, 1, "one")]);
}

#[test]
fn a_second_process_is_refused_by_the_lock() {
    let directory = tempfile::tempdir().unwrap();
    let disk = FileDisk::open(directory.path()).unwrap();
    let wal = Wal::create(disk.clone(), IDENTITY, options()).unwrap();
    let again = FileDisk::open(directory.path()).unwrap();
    assert!(matches!(Wal::open(again.clone(), options()), Err(WalError::Locked)));
    assert!(matches!(Wal::create(again.clone(), IDENTITY, options()), Err(WalError::Locked)));
    drop(wal);
    assert!(Wal::open(again, options()).is_ok());
}

#[test]
fn a_log_is_created_once() {
    let directory = tempfile::tempdir().unwrap();
    let disk = FileDisk::open(directory.path()).unwrap();
    assert!(matches!(Wal::open(disk.clone(), options()), Err(WalError::Missing)));
    drop(Wal::create(disk.clone(), IDENTITY, options()).unwrap());
    assert!(matches!(Wal::create(disk, IDENTITY, options()), Err(WalError::Exists)));
}

/// A payload that says whose it is, of a length that its place decides.
fn named(term: u64, index: u64) -> Record {
    let len = [20, 200, 3000, 9000][(term * 7 + index * 3) as usize % 4];
    record(term, index, &format!("{index}@{term} ").repeat(len / 5))
}

/// Lets readers end also when the writer panics.
struct SetOnDrop<'a>(&'a AtomicBool);

impl Drop for SetOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Reads around the log's end, whatever stands there, until `done`. Returns how often it read, and
/// how often an append was under way or came in between.
fn read_along(
    reader: &Reader<FileDisk>,
    last: &AtomicU64,
    done: &AtomicBool,
    mut draw: Draw,
) -> (u64, u64) {
    let (mut reads, mut overtaken) = (0, 0);
    while !done.load(Ordering::Relaxed) {
        let before = last.load(Ordering::Relaxed);
        let from = before.saturating_sub(draw.below(12)).max(1);
        match reader.read(from, from + draw.below(20), 30_000) {
            Ok(records) => {
                for (found, index) in records.iter().zip(from..) {
                    assert!(*found == named(found.id.term, index), "{}", found.id);
                }
                let terms: Vec<u64> = records.iter().map(|record| record.id.term).collect();
                assert!(terms.is_sorted(), "the log of one moment: {terms:?}");
                reads += 1;
            }
            // Cut off, or released.
            Err(error) => assert_eq!(error.kind(), ErrorKind::NotFound, "{error}"),
        }
        overtaken += u64::from(last.load(Ordering::Relaxed) != before);
    }
    (reads, overtaken)
}

/// Fetches for peers run while the log is appended to and cut. On a file system where writes go
/// past the page cache, this is also a test of that: readers go through it.
#[test]
fn readers_find_no_damage_while_the_log_is_written_and_replaced() {
    let mut draw = Draw::from_environment();
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let disk = FileDisk::open(directory.path()).unwrap();
    let mut wal = Wal::create(disk, IDENTITY, options()).unwrap();
    let reader = wal.reader();
    let (mut end, mut released) = (0, 0);
    let (last, done) = (AtomicU64::new(0), AtomicBool::new(false));
    std::thread::scope(|scope| {
        let ends = SetOnDrop(&done);
        let readers = [draw.next(), draw.next()].map(|seed| {
            scope.spawn({
                let (reader, last, done) = (&reader, &last, &done);
                move || read_along(reader, last, done, Draw(seed))
            })
        });
        for term in 1..=400 {
            let back = if draw.below(3) == 0 { draw.below(9) } else { 0 };
            let from = end - back.min(end - released) + 1;
            end = from + draw.below(5);
            wal.append(&batch((from..=end).map(|index| named(term, index)).collect())).unwrap();
            last.store(end, Ordering::Relaxed);
            if term % 50 == 0 {
                released = end - 10.min(end);
                wal.release(released).unwrap();
            }
        }
        drop(ends);
        for reader in readers {
            let (reads, overtaken) = reader.join().unwrap();
            println!("{reads} reads, {overtaken} overtaken by an append");
            assert!(reads > 0);
        }
    });
}
