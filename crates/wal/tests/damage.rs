//! Rot, lost files, foreign files and errors of the disk: reported or harmless, never silent.

#![allow(clippy::unwrap_used, reason = "a test stops where it fails")]

use bytes::Bytes;
use wal::{
    Batch, EntryId, Fault, FileDisk, HardState, Identity, Incarnation, MemoryDisk, Options, Record,
    Recovered, Wal, WalError,
};

const IDENTITY: Identity = Identity { cluster: 1, member: 2 };
const OPTIONS: Options = Options { segment_bytes: 3 * 4096, recover_kinds: &[] };

fn batch(term: u64, indexes: std::ops::RangeInclusive<u64>, len: usize) -> Batch {
    let record =
        |index| Record { id: EntryId { term, index }, kind: 1, payload: Bytes::from(vec![0; len]) };
    Batch { records: indexes.map(record).collect(), ..Batch::default() }
}

/// Two segments with three batches.
fn small_log() -> MemoryDisk {
    let disk = MemoryDisk::default();
    let mut wal = Wal::create(disk.clone(), IDENTITY, OPTIONS).unwrap();
    let hard_state = Some(HardState { term: 1, vote: 2 });
    wal.append(&Batch { hard_state, ..batch(1, 1..=2, 40) }).unwrap();
    wal.append(&batch(1, 3..=3, 3000)).unwrap();
    wal.append(&batch(1, 4..=4, 3000)).unwrap();
    disk.copy()
}

fn open(disk: &MemoryDisk) -> Result<(Wal<MemoryDisk>, Recovered), WalError> {
    Wal::open(disk.clone(), OPTIONS)
}

fn contents(disk: &MemoryDisk) -> Result<(HardState, Vec<Record>, Vec<String>), WalError> {
    let (wal, recovered) = open(disk)?;
    let last = recovered.entries.last().unwrap().index;
    let records = wal.read(1, last, usize::MAX).unwrap();
    Ok((recovered.hard_state, records, recovered.warnings))
}

fn refused(disk: &MemoryDisk) -> WalError {
    let before = disk.files();
    let error = open(disk).err().expect("the log is refused");
    assert!(!error.to_string().contains('\n'), "{error}");
    assert!(disk.files() == before, "nothing was changed: {error}");
    error
}

#[test]
fn every_flipped_bit_is_harmless_or_reported() {
    let log = small_log();
    let (hard_state, records, warnings) = contents(&log.copy()).unwrap();
    assert_eq!((records.len(), warnings), (4, vec![]));
    let mut reported = 0;
    let mut put_right = 0;
    let mut harmless = 0;
    for (name, bytes) in log.files() {
        for bit in 0..bytes.len() * 8 {
            let mut rotten = bytes.clone();
            rotten[bit / 8] ^= 1 << (bit % 8);
            let disk = log.copy();
            disk.put(&name, rotten);
            match contents(&disk) {
                Err(error) => {
                    assert!(matches!(error, WalError::Damaged { .. }), "{name} {bit}: {error}");
                    assert!(error.to_string().starts_with(&name), "{name} {bit}: {error}");
                    reported += 1;
                }
                Ok((found_hard_state, found, warnings)) => {
                    assert_eq!(found_hard_state, hard_state, "{name} bit {bit}");
                    assert!(found == records, "{name} bit {bit}");
                    *(if warnings.is_empty() { &mut harmless } else { &mut put_right }) += 1;
                    assert!(!name.starts_with("META") || !warnings.is_empty(), "{name} {bit}");
                }
            }
        }
    }
    println!("{reported} reported, {put_right} put right with a warning, {harmless} harmless");
    assert_eq!(reported, 3 * 4096 * 8, "every bit of the three batches matters");
    assert_eq!(put_right, (4 * 4096 + 4096) * 8, "META's copies and the room never written");
}

#[test]
fn every_flipped_bit_is_found_by_a_read() {
    let log = small_log();
    let (wal, _) = open(&log).unwrap();
    let whole = wal.read(3, 3, 0).unwrap();
    let name = format!("{:016x}.wal", 1);
    let bytes = log.files()[&name].clone();
    drop(wal);
    // The second batch: the first segment's third block.
    for bit in (2 * 4096 * 8..3 * 4096 * 8).step_by(7) {
        let disk = log.copy();
        let (wal, _) = open(&disk).unwrap();
        let file = wal::Disk::open(&disk, &name).unwrap();
        let mut rotten = bytes.clone();
        rotten[bit / 8] ^= 1 << (bit % 8);
        wal::DiskFile::write_at(&file, &rotten, 0).unwrap();
        match wal.read(3, 3, 0) {
            Ok(found) => assert!(found == whole, "bit {bit}"),
            Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::InvalidData, "{error}"),
        }
    }
}

#[test]
fn damage_in_the_middle_names_file_offset_and_indexes() {
    let disk = small_log();
    let name = format!("{:016x}.wal", 1);
    let mut bytes = disk.take(&name).unwrap();
    // All of the first batch's second half, zeroed: like a torn batch, but others follow.
    bytes[4096 + 2048..8192].fill(0);
    disk.put(&name, bytes);
    let line = refused(&disk).to_string();
    assert!(line.starts_with("0000000000000001.wal at offset "), "{line}");
    assert!(line.contains("index 1 to 2: a batch that had been synced is damaged"), "{line}");
}

#[test]
fn garbage_at_the_end_is_not_taken_for_a_torn_batch() {
    let disk = small_log();
    let name = format!("{:016x}.wal", 2);
    let mut bytes = disk.take(&name).unwrap();
    bytes[4096..4608].fill(0);
    bytes[4608..5120].fill(0xa5);
    disk.put(&name, bytes);
    let line = refused(&disk).to_string();
    assert!(line.contains("the last batch is damaged and may have been acknowledged"), "{line}");
}

#[test]
fn lost_and_foreign_files_are_refused() {
    let [one, two, three] = [1, 2, 3].map(|number| format!("{number:016x}.wal"));
    for name in [&one, &two] {
        let disk = small_log();
        disk.take(name);
        let error = refused(&disk);
        assert!(matches!(&error, WalError::SegmentMissing { file, .. } if file == name), "{error}");
    }
    let disk = small_log();
    let bytes = disk.take(&two).unwrap();
    disk.put(&three, bytes);
    let error = refused(&disk);
    assert!(matches!(&error, WalError::Foreign { file, .. } if *file == three), "{error}");

    let disk = small_log();
    for name in [&one, &two] {
        let bytes = disk.take(name).unwrap();
        disk.put(name, bytes[..4096].to_vec());
        assert!(matches!(refused(&disk), WalError::Damaged { .. }));
    }
    let disk = small_log();
    for copy in 0..4 {
        disk.take(&format!("META.{copy}"));
    }
    assert!(matches!(refused(&disk), WalError::MetaLost { .. }));
}

/// A segment may be taken into use by the log that makes it, or by the recovery that finds it.
#[test]
fn a_lost_segment_is_missed_wherever_a_crash_came_before() {
    let run = |disk: &MemoryDisk| -> std::io::Result<()> {
        let create = || Wal::create(disk.clone(), IDENTITY, OPTIONS);
        let mut wal = create().map_err(std::io::Error::other)?;
        // Segments of two such batches; META is written again in the second and the last.
        for index in 1..=7 {
            let hard_state = (index > 2).then_some(HardState { term: 1 + index / 7, vote: 2 });
            wal.append(&Batch { hard_state, ..batch(1, index..=index, 3000) })?;
        }
        wal.release(3)
    };
    let whole = MemoryDisk::default();
    run(&whole).unwrap();
    let mut lost = 0;
    for at in 0..=whole.operations() {
        for (fault, kept) in [
            (Fault::PowerLoss, true),
            (Fault::PowerLoss, false),
            (Fault::Error, true),
            (Fault::Error, false),
        ] {
            let disk = MemoryDisk::default();
            disk.set_fuse(at, fault);
            assert_eq!(run(&disk).is_ok(), at == whole.operations());
            disk.process_died();
            if fault == Fault::PowerLoss {
                disk.lose_power(|_| kept);
            }
            if !Wal::exists(&disk).unwrap() {
                continue;
            }
            // What is lost may be all that was appended since, or stand between others.
            for appended in 1..=4 {
                let disk = disk.copy();
                let (mut wal, found) = open(&disk).unwrap();
                let last = found.entries.last().map_or(0, |last| last.index);
                for index in last + 1..=last + appended {
                    wal.append(&batch(found.hard_state.term.max(1), index..=index, 3000)).unwrap();
                }
                drop(wal);
                if !kept {
                    disk.lose_power(|_| false);
                }
                for (name, bytes) in disk.files() {
                    if name.ends_with(".wal") && bytes.iter().any(|byte| *byte != 0) {
                        let disk = disk.copy();
                        disk.take(&name);
                        let opened = open(&disk).map(|(_, found)| found.entries);
                        let context = format!("{fault:?} at {at}, {appended} appended, no {name}");
                        assert!(opened.is_err(), "{context}: found {opened:?}");
                        lost += 1;
                    }
                }
            }
        }
    }
    println!("{lost} segments were missed");
}

#[test]
fn one_copy_of_meta_is_enough_and_the_newest_wins() {
    let disk = small_log();
    let old = disk.files();
    let (mut wal, _) = open(&disk).unwrap();
    let hard_state = HardState { term: 9, vote: 0 };
    wal.append(&Batch { hard_state: Some(hard_state), ..Batch::default() }).unwrap();
    drop(wal);
    for newest in 0..4 {
        let disk = disk.copy();
        for copy in (0..4).filter(|copy| *copy != newest) {
            let name = format!("META.{copy}");
            disk.put(&name, old[&name].clone());
        }
        let (_, recovered) = open(&disk).unwrap();
        assert_eq!(recovered.hard_state, hard_state);
        assert_eq!(recovered.warnings.len(), 3);
        assert!(contents(&disk).unwrap().2.is_empty(), "all copies are equal again");
    }
}

#[test]
fn an_incarnation_is_found_again_in_any_copy() {
    let disk = small_log();
    let (mut wal, recovered) = open(&disk).unwrap();
    let first = recovered.incarnation;
    assert_eq!((first, first.start), (wal.incarnation(), 1));
    let old = disk.files();
    let second = Incarnation { start: 2, id: 77 };
    let syncs = wal.syncs();
    wal.begin_incarnation(second).unwrap();
    assert_eq!(wal.syncs(), syncs + 4, "one for each copy of META");
    let operations = disk.operations();
    for late in [first, second, Incarnation { start: 2, id: 78 }, Incarnation::default()] {
        let error = wal.begin_incarnation(late).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::InvalidInput);
    }
    assert_eq!((disk.operations(), wal.incarnation()), (operations, second));
    // What META is written for besides keeps it.
    let hard_state = Some(HardState { term: 2, vote: 7 });
    wal.append(&Batch { hard_state, ..batch(2, 5..=5, 9000) }).unwrap();
    wal.release(5).unwrap();
    drop(wal);
    for newest in 0..4 {
        let disk = disk.copy();
        for copy in (0..4).filter(|copy| *copy != newest) {
            let name = format!("META.{copy}");
            disk.put(&name, if copy == 1 { vec![0; 4096] } else { old[&name].clone() });
        }
        assert_eq!(open(&disk).unwrap().1.incarnation, second);
    }
    let other = MemoryDisk::new(5);
    let wal = Wal::create(other, IDENTITY, OPTIONS).unwrap();
    assert_ne!(wal.incarnation().id, first.id, "drawn for each log");
}

/// META as releases before incarnations wrote it; words that are not given are zeros.
const META_OF_VERSION_1: [(usize, u64); 15] = [
    (0, u64::from_le_bytes(*b"RKV-META")),
    (1, 1),
    (2, 7),
    (3, 8),
    (4, 0x1234),
    (5, 3),
    (6, 3),
    (7, 8),
    (9, 1),
    (11, 0x4150_e1fd_4a96_cb54),
    (14, 1),
    (15, 0x3000),
    (17, 0x4150_e1fd_4a96_cb54),
    (510, 0x95f1_af2f_034c_1e04),
    (511, 0x23cd_36c9_0000_0000),
];

#[test]
fn a_log_of_before_incarnations_opens_and_gets_one() {
    let mut meta = vec![0; 4096];
    for (number, word) in META_OF_VERSION_1 {
        meta[number * 8..][..8].copy_from_slice(&word.to_le_bytes());
    }
    let disk = MemoryDisk::default();
    for copy in 0..4 {
        disk.put(&format!("META.{copy}"), meta.clone());
    }
    disk.put(&format!("{:016x}.wal", 1), vec![0; 0x3000]);
    let (mut wal, found) = open(&disk).unwrap();
    assert_eq!(found.identity, Identity { cluster: 7, member: 8 });
    assert_eq!(found.hard_state, HardState { term: 3, vote: 8 });
    assert_eq!((found.incarnation, found.warnings), (Incarnation::default(), vec![]));
    let first = Incarnation { start: 1, id: 9 };
    wal.begin_incarnation(first).unwrap();
    wal.append(&batch(3, 1..=1, 40)).unwrap();
    drop(wal);
    for (name, bytes) in disk.files() {
        let is_meta = name.starts_with("META");
        assert!(!is_meta || bytes[8] == 2, "a release of before must refuse {name}");
    }
    let (_, found) = open(&disk).unwrap();
    assert_eq!((found.incarnation, found.entries.len()), (first, 1));
}

#[test]
fn versions_that_are_not_known_are_refused() {
    for (version, name) in [(0, "META.0"), (3, "META.2"), (u32::MAX, "META.1")] {
        let disk = small_log();
        let mut bytes = disk.take(name).unwrap();
        bytes[8..12].copy_from_slice(&version.to_le_bytes());
        let crc = crc32c::crc32c(&bytes[..4092]);
        bytes[4092..].copy_from_slice(&crc.to_le_bytes());
        disk.put(name, bytes);
        let error = refused(&disk);
        let line = error.to_string();
        assert!(matches!(error, WalError::Version { known: 2, .. }), "{line}");
        assert!(line.starts_with(name) && line.contains(&version.to_string()), "{line}");
    }
}

#[test]
fn the_first_failed_operation_is_the_last() {
    let reference = MemoryDisk::default();
    let run = |disk: &MemoryDisk| -> std::io::Result<()> {
        let mut wal =
            Wal::create(disk.clone(), IDENTITY, OPTIONS).map_err(std::io::Error::other)?;
        for index in 1..=4 {
            let hard_state = Some(HardState { term: index, vote: 0 });
            let result = wal.append(&Batch { hard_state, ..batch(index, index..=index, 3000) });
            if let Err(error) = result {
                let operations = disk.operations();
                let last = index - 1;
                assert!(wal.append(&batch(index, index..=index, 1)).is_err(), "{error}");
                assert!(wal.release(1).is_err(), "{error}");
                let second = Incarnation { start: 2, id: 1 };
                assert!(wal.begin_incarnation(second).is_err(), "{error}");
                assert!(wal.read(1, last.max(1), 0).is_err(), "{error}");
                assert_eq!(disk.operations(), operations, "nothing is tried again");
                return Err(error);
            }
        }
        wal.release(3)?;
        let begun = wal.begin_incarnation(Incarnation { start: 2, id: 1 });
        if begun.is_err() {
            assert!(wal.begin_incarnation(Incarnation { start: 3, id: 1 }).is_err());
            assert!(wal.append(&batch(4, 5..=5, 1)).is_err());
        }
        begun
    };
    run(&reference).unwrap();
    for at in 0..reference.operations() {
        let disk = MemoryDisk::default();
        disk.set_fuse(at, Fault::Error);
        assert!(run(&disk).is_err(), "operation {at}");
    }
}

/// What a failed sync did not write can be read as long as power lasts, and no later sync writes it.
#[test]
fn what_is_found_after_a_failed_sync_survives_a_loss_of_power() {
    let reference = MemoryDisk::default();
    let run = |disk: &MemoryDisk| -> std::io::Result<()> {
        let mut wal =
            Wal::create(disk.clone(), IDENTITY, OPTIONS).map_err(std::io::Error::other)?;
        for index in 1..=3 {
            let hard_state = Some(HardState { term: index, vote: 7 });
            wal.append(&Batch { hard_state, ..batch(index, index..=index, 3000) })?;
        }
        Ok(())
    };
    run(&reference).unwrap();
    for at in 0..reference.operations() {
        let disk = MemoryDisk::default();
        disk.set_fuse(at, Fault::Error);
        assert!(run(&disk).is_err(), "operation {at}");
        disk.process_died();
        let Ok((_, found)) = open(&disk) else { continue };
        let after = disk.after_power_loss(|_| false);
        let (_, again) = open(&after).unwrap_or_else(|error| panic!("operation {at}: {error}"));
        assert_eq!(again.entries, found.entries, "operation {at}");
        assert_eq!(again.hard_state, found.hard_state, "operation {at}");
    }
}

/// A recovery whose own write fails leaves remains of a torn batch behind.
#[test]
fn remains_of_a_torn_batch_are_cleared_later() {
    let disk = MemoryDisk::default();
    let mut wal =
        Wal::create(disk.clone(), IDENTITY, Options { segment_bytes: 8 * 4096, ..OPTIONS })
            .unwrap();
    wal.append(&batch(1, 1..=1, 40)).unwrap();
    disk.set_fuse(0, Fault::PowerLoss);
    wal.append(&batch(1, 2..=2, 9000)).unwrap_err();
    drop(wal);
    // All sectors but one of the long batch are there.
    let kept = disk.unsynced() - 3;
    disk.lose_power(|thing| thing != kept);
    // Recovery reads, writes META four times and the newest batch once, clears and syncs in vain.
    let torn = disk.copy();
    let probe = disk.copy();
    open(&probe).unwrap();
    for at in 0..probe.operations() {
        let disk = torn.copy();
        disk.set_fuse(at, Fault::Error);
        assert!(open(&disk).is_err(), "operation {at}");
        disk.process_died();
        let (mut wal, found) = open(&disk).unwrap();
        assert_eq!(found.entries.len(), 1, "operation {at}");
        wal.append(&batch(2, 2..=2, 40)).unwrap();
        drop(wal);
        disk.lose_power(|_| false);
        let (mut wal, found) =
            open(&disk).unwrap_or_else(|error| panic!("operation {at}: {error}"));
        assert_eq!(found.entries.len(), 2, "operation {at}");
        wal.append(&batch(2, 3..=3, 5000)).unwrap();
        drop(wal);
        let (_, found) = open(&disk).unwrap();
        assert_eq!((found.entries.len(), found.warnings), (3, vec![]), "operation {at}");
    }
}

#[test]
fn an_append_costs_one_sync() {
    let disk = MemoryDisk::default();
    let options = Options { segment_bytes: 1 << 20, ..OPTIONS };
    let mut wal = Wal::create(disk.clone(), IDENTITY, options).unwrap();
    let hard_state = Some(HardState { term: 1, vote: 2 });
    wal.append(&Batch { hard_state, ..Batch::default() }).unwrap();
    for index in 0..20 {
        let before = (disk.syncs(), wal.syncs(), disk.operations());
        let records = batch(1, index * 50 + 1..=index * 50 + 50, 30).records;
        wal.append(&Batch { hard_state, records, commit: index * 50 }).unwrap();
        let after = (disk.syncs(), wal.syncs(), disk.operations());
        assert_eq!(after, (before.0 + 1, before.1 + 1, before.2 + 2), "one write, one sync");
    }
    let before = disk.operations();
    wal.append(&Batch { commit: 900, ..Batch::default() }).unwrap();
    assert_eq!(disk.operations(), before, "a commit index alone is not worth a sync");
    let before = wal.syncs();
    let hard_state = Some(HardState { term: 2, vote: 2 });
    wal.append(&Batch { hard_state, ..Batch::default() }).unwrap();
    assert_eq!(wal.syncs(), before + 4, "one for each copy of META");
}

#[test]
fn nonsense_is_refused_and_changes_nothing() {
    let disk = MemoryDisk::default();
    let mut wal = Wal::create(disk.clone(), IDENTITY, OPTIONS).unwrap();
    let hard_state = Some(HardState { term: 2, vote: 0 });
    wal.append(&Batch { hard_state, ..batch(1, 1..=3, 1) }).unwrap();
    let before = disk.operations();
    let mut holes = batch(1, 4..=6, 1);
    holes.records.remove(1);
    let older = Batch { hard_state: Some(HardState { term: 1, vote: 0 }), ..batch(1, 4..=4, 1) };
    for nonsense in [batch(1, 5..=5, 1), batch(1, 0..=0, 1), holes, older] {
        let error = wal.append(&nonsense).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::InvalidInput);
    }
    assert_eq!(disk.operations(), before);
    wal.append(&batch(2, 4..=4, 1)).unwrap();
}

#[test]
fn inspect_prints_sound_and_damaged_logs() {
    let directory = tempfile::tempdir().unwrap();
    for (name, bytes) in small_log().files() {
        std::fs::write(directory.path().join(name), bytes).unwrap();
    }
    let inspect = || {
        let mut out = Vec::new();
        let sound = wal::inspect(directory.path(), &mut out).unwrap();
        (sound, String::from_utf8(out).unwrap())
    };
    let (sound, text) = inspect();
    assert!(sound, "{text}");
    assert!(text.contains("    3@1 kind 1 3000 bytes"), "{text}");
    assert!(text.contains(" incarnation 1:9e3779b97f4a7c15 term 1 vote 2 "), "{text}");
    let path = directory.path().join(format!("{:016x}.wal", 1));
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[4100] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    let (sound, text) = inspect();
    assert!(!sound && text.contains("DAMAGED") && text.contains("    3@1 kind 1"), "{text}");
    let names = std::fs::read_dir(directory.path()).unwrap().count();
    assert_eq!(names, 6, "nothing was created, not even a lock");
    assert!(Wal::open(FileDisk::open(directory.path()).unwrap(), OPTIONS).is_err());
}
