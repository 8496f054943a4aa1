//! Linearizable reads by rounds of confirmation (thesis, section 6.4).
//!
//! A leader may serve a read if, at some moment after the read arrived, it was still the leader.
//! To know, it asks everybody: a round. A round has a number, made by the leader and never used
//! twice in its term; every heartbeat carries the number of the latest round, and the answer
//! repeats it. A quorum of answers to round r proves that this was the leader when r began, so r
//! confirms the reads that had arrived *before* it began, with the commit index of that moment.
//! Reads that arrive while a round is under way wait for the next one: all of them share it.
//!
//! Answers to an older round confirm nothing, however late they come: a number supplied by
//! whoever reads, or used again on a retry, would let them.

use crate::entry::{Index, NodeId};
use crate::membership::Membership;
use crate::ready::ReadId;
use std::collections::BTreeSet;

/// The reads that wait at a leader.
#[derive(Clone, Debug, Default, Hash)]
pub(crate) struct Reads {
    /// The number of the latest round.
    round: u64,
    current: Option<Round>,
    waiting: Vec<Waiter>,
}

/// One who waits: a read of this member, or a peer's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Waiter {
    pub(crate) member: NodeId,
    pub(crate) id: ReadId,
}

#[derive(Clone, Debug, Hash)]
struct Round {
    index: Index,
    waiters: Vec<Waiter>,
    confirmed_by: BTreeSet<NodeId>,
}

impl Reads {
    /// The number of the latest round.
    pub(crate) fn round(&self) -> u64 {
        self.round
    }

    /// Whether a round should begin.
    pub(crate) fn is_due(&self) -> bool {
        self.current.is_none() && !self.waiting.is_empty()
    }

    /// Adds a read that waits for the next round.
    pub(crate) fn wait(&mut self, waiter: Waiter) {
        self.waiting.push(waiter);
    }

    /// Begins a round for all that wait, with what is committed now.
    pub(crate) fn begin(&mut self, index: Index) {
        assert!(self.current.is_none(), "one round at a time");
        self.round += 1;
        let waiters = std::mem::take(&mut self.waiting);
        self.current = Some(Round { index, waiters, confirmed_by: BTreeSet::new() });
    }

    /// Counts an answer. When it completes the round: the reads, and their index.
    pub(crate) fn confirm(
        &mut self,
        from: NodeId,
        round: u64,
        membership: &Membership,
    ) -> Option<(Index, Vec<Waiter>)> {
        if round != self.round {
            return None;
        }
        let current = self.current.as_mut()?;
        current.confirmed_by.insert(from);
        if !membership.is_quorum(|id| current.confirmed_by.contains(&id)) {
            return None;
        }
        self.current.take().map(|done| (done.index, done.waiters))
    }

    /// All that wait, in whatever round.
    pub(crate) fn abandon(&mut self) -> impl Iterator<Item = Waiter> + use<> {
        let current = self.current.take().map(|round| round.waiters).unwrap_or_default();
        current.into_iter().chain(std::mem::take(&mut self.waiting))
    }
}
