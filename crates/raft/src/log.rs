//! The log in memory: its whole shape, and the payloads of its tail.

use crate::admissions::{Admission, Admissions, Incarnation, Standing, decode_admission};
use crate::entry::{Entry, EntryKind, HardState, Index, NodeId, Position, Term};
use crate::ready::Ticket;
use std::collections::VecDeque;
use std::hash::{Hash, Hasher};

/// The replicated log of one member.
///
/// - The terms of all entries are held as runs, so every question about a (term, index) is
///   answered here. Payloads are held for a tail bounded by bytes; older ones are on disk.
/// - `applied <= committed <= last`, `durable <= last`; committed and applied never go back, and
///   nothing at or below `committed` is ever replaced.
/// - An entry leaves the tail only when it is durable and applied; what is not in the tail is
///   on disk.
#[derive(Clone, Debug)]
pub(crate) struct Log {
    /// The first position of each run of entries of one term; terms and indexes ascend.
    runs: Vec<Position>,
    last: Index,
    /// The newest entries, contiguous up to `last`.
    tail: VecDeque<Entry>,
    tail_bytes: usize,
    /// Of these, the bytes that cannot leave memory yet: of entries that are not durable or not applied.
    unsettled_bytes: usize,
    tail_bytes_max: usize,
    /// Writes under way, oldest first.
    writes: VecDeque<Write>,
    /// The log up to here is on disk, and what is there is what is here.
    durable: Index,
    committed: Index,
    applied: Index,
    /// The admissions among all entries.
    admissions: Admissions,
}

/// A write that was handed out and not yet confirmed.
#[derive(Clone, Debug)]
struct Write {
    ticket: Ticket,
    /// When it is done the log is durable up to here, as far as it was not replaced since.
    last: Index,
    hard_state: HardState,
}

/// What a stretch of the log is.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Stretch {
    /// The entries, in memory.
    Entries(Vec<Entry>),
    /// On disk, up to and including this index.
    OnDisk(Index),
}

/// What a follower's log made of entries from its leader.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Spliced {
    /// The log now equals the leader's up to the end of the entries; these ones are new.
    Added(Vec<Entry>),
    /// They contradict what is committed here: no correct leader sends this.
    Impossible,
}

/// See [`crate::Node`]. A write that vouches for no more than the one before it makes no
/// difference, and is left out, too.
impl Hash for Log {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let Log {
            runs,
            last,
            tail,
            tail_bytes,
            unsettled_bytes: _,
            tail_bytes_max: _,
            writes,
            durable,
            committed,
            applied,
            admissions,
        } = self;
        let mut claims: Vec<_> = writes.iter().map(|w| (w.last, w.hard_state)).collect();
        claims.dedup();
        (runs, last, tail, tail_bytes, claims, durable, committed, applied, admissions).hash(state);
    }
}

impl Log {
    /// The log that was found on disk.
    ///
    /// # Panics
    /// If `positions` do not start at 1 or have gaps, or terms go back: the disk layer promised.
    pub(crate) fn restore(
        positions: &[Position],
        admissions: Vec<(Index, Admission)>,
        commit: Index,
        tail_bytes_max: usize,
    ) -> Log {
        let mut log = Log {
            runs: Vec::new(),
            last: Index(0),
            tail: VecDeque::new(),
            tail_bytes: 0,
            unsettled_bytes: 0,
            tail_bytes_max,
            writes: VecDeque::new(),
            durable: Index(0),
            committed: Index(0),
            applied: Index(0),
            admissions: Admissions::default(),
        };
        for at in positions {
            log.extend_shape(*at);
        }
        for (index, admission) in admissions {
            log.admissions.append(index, admission);
        }
        log.durable = log.last;
        // The hint is durable only by luck, so it may lie behind. It stands on the disk no earlier than
        // the entries that it counts, so what the log has up to there is what was committed.
        log.commit(commit);
        log
    }

    /// The last entry's position; `ORIGIN` when there is none.
    pub(crate) fn last(&self) -> Position {
        Position { term: self.runs.last().map_or(Term(0), |run| run.term), index: self.last }
    }

    /// How far the log is on this member's disk.
    pub(crate) fn durable(&self) -> Index {
        self.durable
    }

    /// How far the log is known to be committed.
    pub(crate) fn committed(&self) -> Index {
        self.committed
    }

    /// How far committed entries were handed out.
    pub(crate) fn applied(&self) -> Index {
        self.applied
    }

    /// Whose votes and acknowledgements count.
    pub(crate) fn admissions(&self) -> &Admissions {
        &self.admissions
    }

    /// What the log says of a member that presents itself like this. A log that has entries and names
    /// nobody is of a release that knew no admissions. All count that come from that release; not a
    /// log that was made since, for what its member had before is lost.
    pub(crate) fn standing(&self, id: NodeId, presented: Incarnation) -> Standing {
        let names_nobody = self.admissions.in_effect().is_none();
        if names_nobody && self.last > Index(0) && presented.is_of_a_new_log() {
            return Standing::Unknown;
        }
        self.admissions.standing(id, presented)
    }

    /// The name of the entry at `index`, if the log reaches that far.
    pub(crate) fn position(&self, index: Index) -> Option<Position> {
        if index == Index(0) {
            return Some(Position::ORIGIN);
        }
        if index > self.last {
            return None;
        }
        let run = self.runs.partition_point(|run| run.index <= index) - 1;
        Some(Position { term: self.runs[run].term, index })
    }

    /// Whether the log holds this very entry.
    pub(crate) fn contains(&self, at: Position) -> bool {
        self.position(at.index) == Some(at)
    }

    /// The last entry at or before `limit.index` whose term is at most `limit.term`: the last one
    /// that two logs can have in common, when one of them has `limit` and the other has not.
    pub(crate) fn last_in_common(&self, limit: Position) -> Position {
        let mut index = limit.index.min(self.last);
        for run in self.runs.iter().rev() {
            if run.index > index {
                continue;
            }
            if run.term <= limit.term {
                return Position { term: run.term, index };
            }
            index = run.index.prev();
        }
        Position::ORIGIN
    }

    /// Adds entries at the end.
    pub(crate) fn append(&mut self, entries: impl IntoIterator<Item = Entry>) {
        for entry in entries {
            self.extend_shape(entry.at);
            if entry.kind == EntryKind::Admission {
                let admission = decode_admission(&entry.payload).expect("it was checked");
                self.admissions.append(entry.at.index, admission);
            }
            self.tail_bytes += entry.bytes();
            self.unsettled_bytes += entry.bytes();
            self.tail.push_back(entry);
        }
    }

    /// Makes the log equal to the leader's up to the last of `entries`, which follow an entry
    /// that both hold. Entries that are here already are left alone: they may be acknowledged,
    /// and a late copy of an old message must not undo what followed it (section 5.3).
    pub(crate) fn splice(&mut self, entries: Vec<Entry>) -> Spliced {
        let Some(new) = entries.iter().position(|entry| !self.contains(entry.at)) else {
            return Spliced::Added(Vec::new());
        };
        let from = entries[new].at.index;
        if from <= self.committed {
            return Spliced::Impossible;
        }
        if from <= self.last {
            self.truncate(from);
        }
        let added = entries[new..].to_vec();
        self.append(added.iter().cloned());
        Spliced::Added(added)
    }

    /// The entries from `from` on, up to `to`, stopping before `bytes_max` but with one at least.
    /// `from` must be in the log.
    pub(crate) fn stretch(&self, from: Index, to: Index, bytes_max: usize) -> Stretch {
        let tail_first = self.tail_first();
        if from < tail_first {
            return Stretch::OnDisk(to.min(tail_first.prev()));
        }
        let mut bytes = 0;
        let skip = (from.0 - tail_first.0) as usize;
        let entries = self.tail.range(skip..).take_while(|entry| {
            let first = bytes == 0;
            bytes += entry.bytes();
            entry.at.index <= to && (first || bytes <= bytes_max)
        });
        Stretch::Entries(entries.cloned().collect())
    }

    /// Notes a write that is handed out now: everything there is goes to disk with it.
    pub(crate) fn writing(&mut self, ticket: Ticket, hard_state: HardState) {
        self.writes.push_back(Write { ticket, last: self.last, hard_state });
    }

    /// Takes note that the write of `ticket`, and all before it, are done. Returns the term and
    /// vote that are on disk now.
    ///
    /// A write whose entries were replaced since it left says nothing about what replaced them,
    /// even where index and number of entries are the same (the ABA race of asynchronous writes:
    /// see `truncate`, which lowered what the write may claim).
    pub(crate) fn written(&mut self, ticket: Ticket) -> Option<HardState> {
        let mut hard_state = None;
        let before = self.settled();
        while let Some(write) = self.writes.front().filter(|write| write.ticket <= ticket) {
            self.durable = self.durable.max(write.last);
            hard_state = Some(write.hard_state);
            self.writes.pop_front();
        }
        self.settle(before);
        hard_state
    }

    /// The oldest write that was handed out and is not done.
    pub(crate) fn oldest_write(&self) -> Option<Ticket> {
        self.writes.front().map(|write| write.ticket)
    }

    /// Raises the commit index, as far as the log reaches.
    pub(crate) fn commit(&mut self, index: Index) {
        self.committed = self.committed.max(index.min(self.last));
        self.admissions.commit(self.committed);
    }

    /// Counts entries up to `index` as applied.
    pub(crate) fn apply(&mut self, index: Index) {
        assert!(index <= self.committed, "only committed entries are applied");
        assert!(index >= self.applied, "what is applied stays applied");
        let before = self.settled();
        self.applied = index;
        self.settle(before);
    }

    /// Bytes of the entries that cannot leave memory yet, because they are not on disk or not applied.
    pub(crate) fn unsettled_bytes(&self) -> usize {
        self.unsettled_bytes
    }

    /// The first index whose payload is in memory.
    pub(crate) fn tail_first(&self) -> Index {
        Index(self.last.0 + 1 - self.tail.len() as u64)
    }

    /// What must hold of the log by itself, in constant time.
    pub(crate) fn assert_sound(&self) {
        assert!(self.applied <= self.committed, "only committed entries are applied");
        assert!(self.committed <= self.last, "only entries that exist are committed");
        assert!(self.durable <= self.last, "only entries that exist are durable");
        assert!(self.tail.back().is_none_or(|e| e.at == self.last()), "the tail ends the log");
        assert!(self.tail.len() as u64 <= self.last.0, "the tail is part of the log");
        assert!(self.tail_first().prev() <= self.durable, "what is not on disk is in memory");
        let is_settled = self.settled() == self.last;
        assert!(!is_settled || self.unsettled_bytes == 0, "what is settled is counted no more");
    }

    fn extend_shape(&mut self, at: Position) {
        let last = self.last();
        assert!(at.index == last.index.next(), "the log has no gaps");
        assert!(at.term >= last.term, "terms in the log never go back");
        if at.term > last.term {
            self.runs.push(at);
        }
        self.last = at.index;
    }

    /// Removes the entries from `from` on.
    fn truncate(&mut self, from: Index) {
        assert!(from > self.committed, "committed entries stay");
        while let Some(entry) = self.tail.back().filter(|entry| entry.at.index >= from) {
            self.tail_bytes -= entry.bytes();
            // What is committed stays, so it was not applied.
            self.unsettled_bytes -= entry.bytes();
            self.tail.pop_back();
        }
        self.last = from.prev();
        self.admissions.truncate(from);
        while self.runs.last().is_some_and(|run| run.index >= from) {
            self.runs.pop();
        }
        // A write under way may still complete, and what it wrote from here on is not what the
        // log will hold: it must not vouch for it.
        self.durable = self.durable.min(self.last);
        for write in &mut self.writes {
            write.last = write.last.min(self.last);
        }
    }

    /// Up to here entries are durable and applied.
    fn settled(&self) -> Index {
        self.applied.min(self.durable)
    }

    /// Counts what was settled since it was so up to `before`, and gives memory back.
    fn settle(&mut self, before: Index) {
        let settled = self.settled();
        if settled > before {
            let first = self.tail_first();
            let nth = |index: Index| (index.next().0.max(first.0) - first.0) as usize;
            let new = self.tail.range(nth(before)..nth(settled));
            self.unsettled_bytes -= new.map(Entry::bytes).sum::<usize>();
        }
        self.evict(settled);
    }

    fn evict(&mut self, settled: Index) {
        while self.tail_bytes > self.tail_bytes_max {
            match self.tail.front() {
                Some(entry) if entry.at.index <= settled => {
                    self.tail_bytes -= entry.bytes();
                    self.tail.pop_front();
                }
                _ => return,
            }
        }
    }
}
