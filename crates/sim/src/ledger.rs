//! What a member's log holds, as the simulator knows it from what the member asked of its disk.
//!
//! The member reads its own log back after a crash; the ledger is what it must find.

use crate::digest::Digest;
use raft::{
    Entry, EntryKind, HardState, Index, NodeId, Persist, Position, Restored, Term, decode_admission,
};

/// An entry, and a number that stands for it and all before it.
#[derive(Clone, Debug)]
pub struct Logged {
    /// The entry.
    pub entry: Entry,
    /// Equal in two logs if these are equal up to here.
    pub prefix: Digest,
}

/// A write on its way to the disk.
#[derive(Clone, Debug)]
pub struct Write {
    /// As the member asked for it.
    pub persist: Persist,
    /// Its entries.
    pub logged: Vec<Logged>,
}

/// Term, vote and log.
#[derive(Clone, Debug, Default)]
pub struct Kept {
    /// Term and vote.
    pub hard_state: HardState,
    /// All entries from index 1.
    pub log: Vec<Logged>,
    /// How far they are known to be committed.
    pub commit: Index,
}

/// What a member has: in memory, and on disk.
#[derive(Clone, Debug, Default)]
pub struct Ledger {
    /// What the member works with.
    pub memory: Kept,
    /// What would survive a loss of power.
    pub disk: Kept,
    /// The newest batch, if the disk lied about it and META was not written behind it.
    newest: Option<Newest>,
}

/// The newest batch of entries on disk.
#[derive(Clone, Debug)]
struct Newest {
    /// How many entries it left alone.
    kept: usize,
    /// What it replaced.
    replaced: Vec<Logged>,
}

impl Kept {
    /// The last entry's position.
    pub fn last(&self) -> Position {
        self.log.last().map_or(Position::ORIGIN, |last| last.entry.at)
    }

    /// The entry at an index, if there is one.
    pub fn get(&self, index: Index) -> Option<&Logged> {
        self.log.get((index.0 as usize).checked_sub(1)?)
    }

    /// What stands for the log up to an index.
    pub fn prefix(&self, index: Index) -> Option<Digest> {
        if index == Index(0) { Some(Digest::default()) } else { Some(self.get(index)?.prefix) }
    }

    /// How many entries `entries` would replace.
    fn replaced_by(&self, entries: &[Entry]) -> usize {
        let first = entries.first().map_or(usize::MAX, |first| first.at.index.0 as usize);
        (self.log.len() + 1).saturating_sub(first)
    }

    /// Whether it knows that this member's log counts.
    pub fn admits(&self, id: NodeId) -> bool {
        let committed = self.log.iter().take(self.commit.0 as usize);
        let mut admissions = committed.filter(|l| l.entry.kind == EntryKind::Admission);
        admissions.any(|logged| {
            decode_admission(&logged.entry.payload).is_some_and(|named| named.contains_key(&id))
        })
    }

    fn take(&mut self, write: &Write) {
        self.hard_state = write.persist.hard_state.unwrap_or(self.hard_state);
        let replaced = self.replaced_by(&write.persist.entries);
        self.log.truncate(self.log.len() - replaced);
        self.log.extend(write.logged.iter().cloned());
        if !write.logged.is_empty() {
            self.commit = self.commit.max(write.persist.commit.min(self.last().index));
        }
    }

    fn is(&self, restored: &Restored) -> bool {
        self.log.len() == restored.positions.len()
            && self.log.iter().zip(&restored.positions).all(|(own, at)| own.entry.at == *at)
    }
}

impl Ledger {
    /// Takes note of a write that the member asks for.
    ///
    /// # Panics
    /// If the member breaks a rule: a term that goes back, a second vote, a gap.
    pub fn ask(&mut self, id: NodeId, persist: Persist) -> Write {
        let Kept { hard_state, log, .. } = &self.memory;
        if let Some(HardState { term, vote }) = persist.hard_state {
            assert!(term >= hard_state.term, "n{id}: the term goes back");
            let kept =
                term > hard_state.term || hard_state.vote.is_none() || hard_state.vote == vote;
            assert!(kept, "n{id} votes twice in term {term}");
        }
        let mut prefix = Digest::default();
        if let Some(first) = persist.entries.first() {
            let index = first.at.index;
            let before = self.memory.prefix(index.prev());
            assert!(before.is_some(), "n{id}: {} after {}", first.at, log.len());
            prefix = before.unwrap_or_default();
        }
        let extend = |entry: &Entry| {
            prefix = extended(prefix, entry);
            Logged { entry: entry.clone(), prefix }
        };
        let logged = persist.entries.iter().map(extend).collect();
        let write = Write { persist, logged };
        self.memory.take(&write);
        write
    }

    /// How many entries in memory a write would replace.
    pub fn replaced_by(&self, persist: &Persist) -> usize {
        self.memory.replaced_by(&persist.entries)
    }

    /// These writes are on disk, or the disk says so and `lied`.
    pub fn written(&mut self, writes: &[Write], lied: bool) {
        let firsts = writes.iter().filter_map(|write| write.persist.entries.first());
        let first = firsts.map(|entry| entry.at.index.0 as usize - 1).min();
        let newest = first.filter(|_| lied).map(|kept| {
            let replaced = self.disk.log.get(kept..).unwrap_or_default().to_vec();
            Newest { kept, replaced }
        });
        let before = self.disk.hard_state;
        for write in writes {
            self.disk.take(write);
        }
        // META names the batch before the one that it is written with, or alone.
        if first.is_some() || self.disk.hard_state != before {
            self.newest = newest;
        }
    }

    /// Whether a member found everything but the newest batch, which the disk lied about, and nothing was
    /// written behind: lost, in part or as a whole, it looks like one that was never written whole.
    pub fn lacks_newest(&self, restored: &Restored, interrupted: &[Write]) -> bool {
        let Some(Newest { kept, replaced }) = &self.newest else { return false };
        let left = self.disk.log[..*kept].iter().chain(replaced).map(|logged| logged.entry.at);
        let states = interrupted.iter().filter_map(|write| write.persist.hard_state);
        let mut states = states.chain([self.disk.hard_state]);
        left.eq(restored.positions.iter().copied())
            && states.any(|state| state == restored.hard_state)
    }

    /// The member came back and found this; `interrupted` are the writes that were under way when
    /// it died. They were one batch: term and vote went first, then all entries or none.
    ///
    /// # Panics
    /// If it is not what must be there.
    pub fn found(&mut self, id: NodeId, restored: &Restored, interrupted: &[Write]) {
        let before = self.disk.clone();
        let mut after = before.clone();
        interrupted.iter().for_each(|write| after.take(write));
        let half = Kept { hard_state: after.hard_state, ..before.clone() };
        let found = [before, half, after]
            .into_iter()
            .find(|kept| kept.hard_state == restored.hard_state && kept.is(restored));
        let HardState { term, vote } = restored.hard_state;
        let last = restored.positions.last().copied().unwrap_or_default();
        let Some(mut found) = found else {
            let disk = &self.disk;
            panic!(
                "n{id} found term {term}, vote {vote:?}, a log of {} up to {last}; on its disk \
                 were term {}, vote {:?}, a log of {} up to {}",
                restored.positions.len(),
                disk.hard_state.term,
                disk.hard_state.vote,
                disk.log.len(),
                disk.last()
            );
        };
        found.commit = restored.commit;
        self.newest = None;
        self.memory = found.clone();
        self.disk = found;
    }

    /// What a follower's read of its own log gave must be what was written there.
    ///
    /// # Panics
    /// If it is something else.
    pub fn read_back(&self, id: NodeId, entries: &[Entry]) {
        for entry in entries {
            let written = self.disk.get(entry.at.index).map(|logged| &logged.entry);
            assert!(written == Some(entry), "n{id} reads {} back as something else", entry.at);
        }
    }
}

fn extended(prefix: Digest, entry: &Entry) -> Digest {
    let Position { term: Term(term), index: Index(index) } = entry.at;
    let kind = entry.kind.number();
    prefix.word(term).word(index).word(kind.into()).bytes(&entry.payload)
}
