//! How small the cluster is kept. Within its bounds a search leaves out nothing.

use crate::member::Member;
use raft::*;

/// The bounds of one search.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Who may campaign in each term. Nobody does after the last.
    pub candidates: &'static [&'static [u64]],
    /// Commands that clients propose, in all.
    pub proposals: usize,
    /// Reads that clients ask a leader for, in all.
    pub reads: usize,
    /// Members that die and start again, in all.
    pub crashes: usize,
    /// Connections that a leader hears to be broken, in all.
    pub disconnects: usize,
    /// Leaders send heartbeats, as often as they like. Only with prompt disks: else time passes
    /// that a leader counts (how long its disk hangs).
    pub heartbeats: bool,
    /// Writes under way at one member. With none, disks are prompt: a write is done at once.
    pub writes_max: usize,
    /// Inputs that a driver may give a node before it asks what to do.
    pub inputs_max: usize,
    /// An append holds one entry at most.
    pub single_entries: bool,
    /// Pre-vote and check-quorum are on.
    pub careful: bool,
}

impl Bounds {
    /// Elections in these terms, and nothing else.
    pub const fn elections(candidates: &'static [&'static [u64]]) -> Bounds {
        Bounds {
            candidates,
            proposals: 0,
            reads: 0,
            crashes: 0,
            disconnects: 0,
            heartbeats: false,
            writes_max: 0,
            inputs_max: 1,
            single_entries: false,
            careful: false,
        }
    }

    pub fn ids(&self) -> [NodeId; 3] {
        [NodeId(1), NodeId(2), NodeId(3)]
    }

    pub fn last_term(&self) -> Term {
        Term(self.candidates.len() as u64)
    }

    pub fn may_campaign(&self, id: NodeId, term: Term) -> bool {
        let candidates = self.candidates.get(term.0 as usize - 1);
        candidates.is_some_and(|candidates| candidates.contains(&id.0))
    }

    pub fn allow(&self, member: &Member) -> bool {
        member.writes() <= self.writes_max
    }
}
