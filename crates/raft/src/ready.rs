//! What a node asks of the world: the effects of the inputs since the last time it was asked.

use crate::admissions::Incarnation;
use crate::entry::{Entry, HardState, Index, NodeId};
use crate::message::{Entries, Message};
use std::fmt;

/// Everything there is to do, in no need of any order but the one its shape says: what is in
/// `persist.then_send` waits for the disk, the rest may happen at once.
#[derive(Debug, Default)]
pub struct Ready {
    /// Messages that claim nothing about this member's disk. They may leave at once.
    pub messages: Vec<Message>,
    /// What must reach the disk, and the promises that wait for it.
    pub persist: Option<Persist>,
    /// Entries to be read back from the log on disk.
    pub fetches: Vec<Fetch>,
    /// Committed entries for the state machine, each index exactly once and in order. They count
    /// as applied from here on. They are on a quorum of disks, and need not be on this member's
    /// own: a state machine that outlives its process must not run ahead of the log.
    pub committed: Vec<Entry>,
    /// Reads that may be served once the state machine has applied their index.
    pub reads: Vec<ReadReady>,
    /// Reads that will never be confirmed, because the leader changed. They may be asked again.
    pub reads_lost: Vec<ReadId>,
    /// What an operator should know.
    pub notices: Vec<Notice>,
}

/// What a member found out about the disk of another, said once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Notice {
    /// A peer's log is not the one that counts, though it has the same number: its disk was lost, or is
    /// an older copy. It is not heard. One with a lower number is not heard either, and not told from
    /// a late message; whoever opens connections knows.
    Replaced {
        /// The peer.
        peer: NodeId,
        /// The life that counts.
        admitted: Incarnation,
        /// What it presents.
        presented: Incarnation,
    },
    /// A peer lacks an entry that it had acknowledged in an earlier life: its disk lost it. It
    /// counts for nothing while this member leads.
    LostEntries {
        /// The peer.
        peer: NodeId,
        /// What it had acknowledged.
        acknowledged: Index,
        /// An entry at or before that which it lacks.
        lacks: Index,
    },
}

impl Ready {
    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.messages.is_empty()
            && self.persist.is_none()
            && self.fetches.is_empty()
            && self.committed.is_empty()
            && self.reads.is_empty()
            && self.reads_lost.is_empty()
            && self.notices.is_empty()
    }
}

/// A write to the disk. Persists take effect in the order of their tickets; a driver may join
/// several that are queued into one write with one sync.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Persist {
    /// Names this write in [`crate::Node::persisted`]. Tickets ascend by one.
    pub ticket: Ticket,
    /// The new term and vote, if they changed.
    pub hard_state: Option<HardState>,
    /// Entries for the log, contiguous. They replace whatever the log on disk holds from the
    /// index of the first one on.
    pub entries: Vec<Entry>,
    /// How far the log is committed, as a hint for the next start; needs no sync.
    pub commit: Index,
    /// Promises: they may leave when this and all earlier writes are durable, not before.
    pub then_send: Vec<Message>,
}

/// Names one [`Persist`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(pub u64);

/// Asks for entries that are no longer in memory. They are on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Fetch {
    /// What they are wanted for.
    pub purpose: FetchFor,
    /// The first index wanted.
    pub from: Index,
    /// The last index wanted.
    pub to: Index,
    /// Stop before this many bytes; one entry at least is read, whatever its size.
    pub bytes_max: usize,
}

/// What fetched entries are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FetchFor {
    /// This member's own state machine.
    Apply,
    /// A peer that lags behind.
    Peer(NodeId),
}

/// Names a read at the member that asks. Never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReadId(pub u64);

/// A confirmed read: at some moment after it was asked, everything up to `index` and nothing
/// else was committed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ReadReady {
    /// Which read.
    pub id: ReadId,
    /// The index its state must have applied.
    pub index: Index,
}

impl fmt::Display for Persist {
    /// `persist term=1 vote=n1 [2@1]`: the notation of scripts and traces.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "persist")?;
        if let Some(HardState { term, vote }) = self.hard_state {
            write!(f, " term={term} vote=")?;
            match vote {
                Some(id) => write!(f, "n{id}")?,
                None => write!(f, "none")?,
            }
        }
        if !self.entries.is_empty() {
            write!(f, " {}", Entries(&self.entries))?;
        }
        Ok(())
    }
}
