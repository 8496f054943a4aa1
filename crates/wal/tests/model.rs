//! The log against a vector: random programs of appends, replacements, releases and reopens.

#![allow(clippy::unwrap_used, reason = "a test stops where it fails")]

use bytes::Bytes;
use proptest::prelude::*;
use wal::{Batch, EntryId, HardState, Identity, MemoryDisk, Options, Record, Wal};

const IDENTITY: Identity = Identity { cluster: 1, member: 2 };
/// Entries of these kinds are recovered whole.
const KINDS: &[u8] = &[1, 4];

#[derive(Clone, Debug)]
enum Step {
    /// Goes back so many entries and adds some, of these sizes.
    Append {
        back: u64,
        sizes: Vec<usize>,
        vote: Option<u64>,
    },
    Release(u64),
    Reopen,
    Read {
        from: u64,
        to: u64,
        bytes_max: usize,
    },
}

fn step() -> impl Strategy<Value = Step> {
    let size = prop_oneof![0..40usize, 400..1200usize, 9000..10_000usize];
    let sizes = prop::collection::vec(size, 0..6);
    let back = prop_oneof![3 => Just(0u64), 1 => 0..6u64];
    prop_oneof![
        8 => (back, sizes, prop::option::weighted(0.2, 0..4u64))
            .prop_map(|(back, sizes, vote)| Step::Append { back, sizes, vote }),
        1 => (0..60u64).prop_map(Step::Release),
        2 => Just(Step::Reopen),
        3 => (0..60u64, 0..9u64, 0..3000usize)
            .prop_map(|(from, more, bytes_max)| Step::Read { from, to: from + more, bytes_max }),
    ]
}

struct Pair {
    disk: MemoryDisk,
    options: Options,
    wal: Option<Wal<MemoryDisk>>,
    hard_state: HardState,
    /// All entries ever, from index 1.
    records: Vec<Record>,
    /// Entries below may be gone.
    released: u64,
}

impl Pair {
    fn wal(&mut self) -> &mut Wal<MemoryDisk> {
        self.wal.as_mut().unwrap()
    }

    fn run(&mut self, step: Step) {
        match step {
            Step::Append { back, sizes, vote } => self.append(back, &sizes, vote),
            Step::Release(before) => {
                self.released = self.released.max(before.min(self.records.len() as u64));
                self.wal().release(before).unwrap();
            }
            Step::Reopen => self.reopen(),
            Step::Read { from, to, bytes_max } => self.read(from, to, bytes_max),
        }
    }

    fn append(&mut self, back: u64, sizes: &[usize], vote: Option<u64>) {
        let last = self.records.len() as u64;
        // At least one entry that was not released stays, so that the log goes on from there.
        let from = last.saturating_sub(back).max(self.released.min(last)) + 1;
        let term = self.hard_state.term + u64::from(vote.is_some() || back > 0);
        // Within a term a vote once given stays.
        let kept = if term == self.hard_state.term { self.hard_state.vote } else { 0 };
        let hard_state = HardState { term, vote: vote.unwrap_or(kept) };
        let record = |(index, size): (u64, &usize)| Record {
            id: EntryId { term, index },
            kind: (index % 5) as u8,
            payload: Bytes::from(vec![index as u8; *size]),
        };
        let records: Vec<Record> = (from..).zip(sizes).map(record).collect();
        let commit = self.released;
        let batch = Batch { hard_state: Some(hard_state), records, commit };
        self.wal().append(&batch).unwrap();
        self.hard_state = hard_state;
        if !batch.records.is_empty() {
            self.records.truncate(from as usize - 1);
            self.records.extend(batch.records);
        }
    }

    fn reopen(&mut self) {
        self.wal = None;
        let (wal, recovered) = Wal::open(self.disk.clone(), self.options.clone()).unwrap();
        self.wal = Some(wal);
        assert_eq!(recovered.warnings, Vec::<String>::new());
        assert_eq!(recovered.hard_state, self.hard_state);
        let first = recovered.entries.first().map_or(self.records.len() as u64 + 1, |id| id.index);
        assert!(first <= self.released.max(1) || recovered.entries.is_empty());
        let expected: Vec<EntryId> =
            self.records[first as usize - 1..].iter().map(|record| record.id).collect();
        assert_eq!(recovered.entries, expected);
        let whole = self.records[first as usize - 1..].iter();
        let whole: Vec<&Record> = whole.filter(|record| KINDS.contains(&record.kind)).collect();
        assert_eq!(recovered.records.iter().collect::<Vec<_>>(), whole);
    }

    fn read(&mut self, from: u64, to: u64, bytes_max: usize) {
        let last = self.records.len() as u64;
        let found = self.wal().read(from, to, bytes_max);
        if from == 0 || from > last {
            assert!(found.is_err());
            return;
        }
        let Ok(found) = found else {
            assert!(from < self.released, "only what was released may be gone");
            return;
        };
        assert!(!found.is_empty());
        let bytes: usize = found.iter().map(|record| record.payload.len()).sum();
        assert!(found.len() == 1 || bytes <= bytes_max);
        let start = from as usize - 1;
        assert!(found.len() as u64 <= to - from + 1);
        assert!(found[..] == self.records[start..start + found.len()]);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..Default::default() })]

    #[test]
    fn the_log_is_what_a_vector_would_be(
        blocks in 2..8u64,
        steps in prop::collection::vec(step(), 1..60),
    ) {
        let disk = MemoryDisk::default();
        let options = Options { segment_bytes: blocks * 4096, recover_kinds: KINDS };
        let wal = Some(Wal::create(disk.clone(), IDENTITY, options.clone()).unwrap());
        let hard_state = HardState::default();
        let mut pair =
            Pair { disk, options, wal, hard_state, records: Vec::new(), released: 0 };
        for step in steps {
            pair.run(step);
        }
        pair.reopen();
    }
}
