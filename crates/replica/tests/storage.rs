//! What a member starts from, and how its disk is used.

#![allow(clippy::unwrap_used, reason = "a test stops where it fails")]

use bytes::Bytes;
use raft::{
    Admission, Entry, EntryKind, Fetch, FetchFor, Incarnation, Index, NodeId, Persist, Position,
    Term, Ticket, encode_admission,
};
use replica::{DiskReader, DiskWriter, Started, Storage, StorageError};
use wal::{Batch, EntryId, Identity, MemoryDisk, Options, Record, Wal};

const IDENTITY: Identity = Identity { cluster: 1, member: 2 };
const COMMAND: u8 = 1;
const ADMISSION: u8 = 2;

fn start(disk: &MemoryDisk, draw: u64) -> Result<Started<MemoryDisk>, StorageError> {
    Storage::start(disk.clone(), IDENTITY, Options::default(), draw)
}

/// The life of the log that a start begins.
fn begins(disk: &MemoryDisk, draw: u64) -> Incarnation {
    start(disk, draw).unwrap().restored.incarnation
}

fn life(start: u64, id: u64) -> Incarnation {
    Incarnation { start, id }
}

fn record(term: u64, index: u64, kind: u8, payload: Bytes) -> Record {
    Record { id: EntryId { term, index }, kind, payload }
}

/// An entry that admits a life of this member's log.
fn admits(term: u64, index: u64, admitted: Incarnation) -> Record {
    let admission = Admission::from([(NodeId(IDENTITY.member), admitted)]);
    record(term, index, ADMISSION, encode_admission(&admission))
}

fn append(disk: &MemoryDisk, records: Vec<Record>) {
    let (mut wal, _) = Wal::open(disk.clone(), Options::default()).unwrap();
    wal.append(&Batch { records, ..Batch::default() }).unwrap();
}

/// Appends one more entry, and says that those before it are committed.
fn commit_before(disk: &MemoryDisk, index: u64) {
    let (mut wal, _) = Wal::open(disk.clone(), Options::default()).unwrap();
    let records = vec![record(1, index, COMMAND, Bytes::from_static(b"x"))];
    wal.append(&Batch { records, commit: index - 1, ..Batch::default() }).unwrap();
}

#[test]
fn a_new_life_begins_once_the_last_one_was_admitted() {
    let disk = MemoryDisk::new(9);
    let first = begins(&disk, 5);
    assert_eq!(first.start, 1);
    assert_eq!(begins(&disk, 6), first, "nobody has admitted it yet");
    append(&disk, vec![admits(1, 1, first)]);
    assert_eq!(begins(&disk, 7), life(2, 7));
    disk.lose_power(|_| false);
    assert_eq!(begins(&disk, 8), life(2, 7), "it is durable");
    append(&disk, vec![admits(1, 2, life(2, 7))]);
    assert_eq!(begins(&disk, 9), life(3, 9));
}

#[test]
fn an_older_copy_is_refused_once_its_log_knows() {
    let disk = MemoryDisk::new(9);
    let first = begins(&disk, 5);
    append(&disk, vec![admits(1, 1, first)]);
    let copy = disk.copy();
    assert_eq!(begins(&disk, 7), life(2, 7));
    // It begins the same life under another name, however often it starts.
    assert_eq!(begins(&copy, 8), life(2, 8));
    assert_eq!(begins(&copy, 9), life(2, 8));
    append(&copy, vec![admits(1, 2, life(2, 7))]);
    assert_eq!(begins(&copy, 10), life(2, 8), "another leader may replace what is not committed");
    commit_before(&copy, 3);
    let refused = start(&copy, 11).err().expect("it is refused");
    assert!(refused.to_string().contains("older copy"), "{refused}");
}

#[test]
fn admissions_are_restored_without_those_that_were_replaced() {
    let disk = MemoryDisk::default();
    drop(start(&disk, 1));
    let of_peer = |start| Admission::from([(NodeId(3), life(start, 7))]);
    let admits =
        |term, index, start| record(term, index, ADMISSION, encode_admission(&of_peer(start)));
    let command = |term, index| record(term, index, COMMAND, Bytes::from_static(b"x"));
    append(&disk, (1..=3).map(|index| admits(1, index, index)).collect());
    append(&disk, vec![command(2, 2), admits(2, 3, 9)]);
    append(&disk, vec![command(2, 4)]);
    let restored = start(&disk, 2).unwrap().restored;
    assert_eq!(restored.positions.len(), 4);
    assert_eq!(restored.admissions, [(Index(1), of_peer(1)), (Index(3), of_peer(9))]);
}

#[test]
fn an_admission_that_cannot_be_read_is_named() {
    let disk = MemoryDisk::new(1);
    drop(start(&disk, 1));
    append(&disk, vec![record(4, 1, ADMISSION, Bytes::from_static(b"?"))]);
    let refused = start(&disk, 2).err().expect("it is refused");
    assert!(refused.to_string().starts_with("entry 1@4 "), "{refused}");
}

/// A write of one entry, with the index of its ticket.
fn persist(ticket: u64) -> Persist {
    let at = Position::new(Term(1), Index(ticket));
    let payload = Bytes::from(format!("{ticket}"));
    Persist {
        ticket: Ticket(ticket),
        hard_state: None,
        entries: vec![Entry { at, kind: EntryKind::Command, payload }],
        commit: Index(0),
        then_send: Vec::new(),
    }
}

fn disk() -> (DiskWriter<MemoryDisk>, DiskReader<MemoryDisk>) {
    let storage = start(&MemoryDisk::default(), 1).unwrap().storage;
    let reader = storage.reader();
    (DiskWriter::new(storage), reader)
}

#[test]
fn what_is_asked_for_during_a_write_is_the_next_batch() {
    let (mut writer, _) = disk();
    assert!(!writer.begin(), "there is nothing to do");
    writer.push(persist(1));
    writer.push(persist(2));
    assert!(writer.begin());
    for ticket in 3..=6 {
        writer.push(persist(ticket));
        assert!(!writer.begin(), "one is under way");
    }
    let before = writer.storage().syncs();
    assert_eq!(writer.finish().unwrap().ticket, Ticket(2));
    assert!(writer.begin());
    assert_eq!(writer.finish().unwrap().ticket, Ticket(6));
    assert_eq!(writer.storage().syncs() - before, 2, "one for each batch");
    assert!(!writer.begin());
}

#[test]
fn one_read_waits_for_each_purpose() {
    let (mut writer, mut reader) = disk();
    (1..=9).for_each(|ticket| writer.push(persist(ticket)));
    assert!(writer.begin());
    writer.finish().unwrap();
    let fetch = |purpose, from| Fetch { purpose, from: Index(from), to: Index(9), bytes_max: 100 };
    let peer = |number| FetchFor::Peer(NodeId(number));
    reader.push(fetch(peer(2), 1));
    assert_eq!(reader.begin(), Some(fetch(peer(2), 1)));
    // The disk hangs; connections break, and peers are asked again where they are.
    for from in 1..=8 {
        reader.push(fetch(peer(2), from));
        reader.push(fetch(FetchFor::Apply, 9));
        reader.push(fetch(peer(3), from));
    }
    let waiting: Vec<Fetch> = std::iter::from_fn(|| reader.begin()).collect();
    assert_eq!(waiting, [fetch(peer(2), 8), fetch(FetchFor::Apply, 9), fetch(peer(3), 8)]);
    let found = reader.fetch(waiting[0]).unwrap();
    let found: Vec<u64> = found.iter().map(|entry| entry.at.index.0).collect();
    assert_eq!(found, [8, 9]);
}
