//! What the log is made of: entries, and the names of entries.

use bytes::Bytes;
use std::fmt;

/// A member of the cluster. Never 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(pub u64);

/// Raft's logical clock: at most one leader is elected in each term. 0 before the first election.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Term(pub u64);

/// Where an entry stands in the log. The first entry has index 1; 0 is the place before it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Index(pub u64);

/// Names one entry for ever. The derived order is Raft's "more up to date" (section 5.4.1):
/// the term comes first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    /// The term of the leader that made the entry.
    pub term: Term,
    /// The entry's place in the log.
    pub index: Index,
}

/// What an entry is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EntryKind {
    /// Nothing: the entry with which a leader opens its term.
    Noop,
    /// A command of the state machine, opaque here.
    Command,
    /// Lives of members' logs that count from here on; see [`crate::Admission`].
    Admission,
}

impl EntryKind {
    /// The number that stands for it on disk and on the wire.
    pub fn number(self) -> u8 {
        match self {
            EntryKind::Noop => 0,
            EntryKind::Command => 1,
            EntryKind::Admission => 2,
        }
    }

    /// The kind of a number; `None` if only a newer release knows it.
    pub fn of_number(number: u8) -> Option<EntryKind> {
        [EntryKind::Noop, EntryKind::Command, EntryKind::Admission]
            .into_iter()
            .find(|kind| kind.number() == number)
    }
}

/// One entry of the replicated log. The payload's bytes are shared, never copied: the same
/// buffer goes to the disk, to the peers and to the state machine.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Entry {
    /// Its name.
    pub at: Position,
    /// What it is for.
    pub kind: EntryKind,
    /// The command, or the encoded admission; empty for a no-op.
    pub payload: Bytes,
}

/// What a member must remember across restarts besides its log (figure 2, "persistent state").
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct HardState {
    /// The latest term this member has seen.
    pub term: Term,
    /// Whom it voted for in that term.
    pub vote: Option<NodeId>,
}

impl Position {
    /// The place before the first entry. Every log holds it.
    pub const ORIGIN: Position = Position { term: Term(0), index: Index(0) };

    /// The position of `index` in `term`.
    pub fn new(term: Term, index: Index) -> Position {
        Position { term, index }
    }
}

impl Index {
    /// The index after this one.
    pub fn next(self) -> Index {
        Index(self.0 + 1)
    }

    /// The index before this one; of 0, 0.
    pub fn prev(self) -> Index {
        Index(self.0.saturating_sub(1))
    }
}

impl Term {
    /// The term after this one.
    pub fn next(self) -> Term {
        Term(self.0 + 1)
    }
}

impl Entry {
    /// What the entry costs in memory and on the wire, in bytes: its payload and a flat rate for
    /// the rest.
    pub fn bytes(&self) -> usize {
        self.payload.len() + 32
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}", self.0)
    }
}

impl fmt::Display for Term {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl fmt::Display for Index {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.index, self.term)
    }
}
