//! What a member starts from: what its log on disk gives back.

#![allow(clippy::unwrap_used, reason = "a test stops where it fails")]

use bytes::Bytes;
use replica::{Started, Storage};
use wal::{Batch, EntryId, Identity, Incarnation, MemoryDisk, Options, Record, Wal};

const IDENTITY: Identity = Identity { cluster: 1, member: 2 };
const COMMAND: u8 = 1;
const ADMISSION: u8 = 2;

fn start(disk: &MemoryDisk) -> Started<MemoryDisk> {
    Storage::start(disk.clone(), IDENTITY, Options::default()).unwrap()
}

#[test]
fn each_life_finds_the_name_of_the_one_before() {
    let disk = MemoryDisk::new(9);
    let started = start(&disk);
    let first = started.incarnation;
    assert_eq!((started.is_new, first.start), (true, 1));
    drop(started);
    let mut started = start(&disk);
    assert_eq!((started.is_new, started.incarnation), (false, first));
    let second = Incarnation { start: 2, id: 5 };
    started.storage.begin_incarnation(second).unwrap();
    assert_eq!(started.storage.incarnation(), second);
    assert!(started.storage.begin_incarnation(first).is_err(), "lives do not come back");
    drop(started);
    disk.lose_power(|_| false);
    assert_eq!(start(&disk).incarnation, second);
}

#[test]
fn admissions_are_restored_without_those_that_were_replaced() {
    let disk = MemoryDisk::default();
    let record = |term, index, kind| {
        let payload = Bytes::from(format!("{index}@{term}"));
        Record { id: EntryId { term, index }, kind, payload }
    };
    let mut wal = Wal::create(disk.clone(), IDENTITY, Options::default()).unwrap();
    let append = |wal: &mut Wal<MemoryDisk>, records| {
        wal.append(&Batch { records, ..Batch::default() }).unwrap();
    };
    let first = (1..=3).map(|index| record(1, index, ADMISSION)).collect();
    append(&mut wal, first);
    append(&mut wal, vec![record(2, 2, COMMAND), record(2, 3, ADMISSION)]);
    append(&mut wal, vec![record(2, 4, COMMAND)]);
    drop(wal);
    let started = start(&disk);
    assert_eq!(started.restored.positions.len(), 4);
    assert_eq!(started.admissions, [record(1, 1, ADMISSION), record(2, 3, ADMISSION)]);
}
