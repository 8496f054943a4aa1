//! The log on real files.

#![allow(clippy::unwrap_used, reason = "a test stops where it fails")]

use bytes::Bytes;
use wal::{Batch, EntryId, FileDisk, HardState, Identity, Options, Record, Wal, WalError};

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
