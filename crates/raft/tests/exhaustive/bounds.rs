//! How small a cluster is kept. Within its bounds a search leaves out nothing.

use raft::*;

/// The bounds of one search, with three members.
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
    /// Leaders send heartbeats, as often as they like. For prompt disks only: of others a leader
    /// counts how long they hang, and time would not stand still.
    pub heartbeats: bool,
    /// Writes under way at a member. With none, disks are prompt: a write is done at once.
    pub writes_max: usize,
    /// Inputs that a driver may give a node before it asks what there is to do.
    pub inputs_max: usize,
    /// An append holds no more than one entry.
    pub single_entries: bool,
    /// Pre-vote and check-quorum are on. A follower hears its leader until its patience ends.
    pub careful: bool,
}

impl Bounds {
    /// Elections in so many terms, and nothing else.
    pub fn elections(candidates: &'static [&'static [u64]]) -> Bounds {
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
        [1, 2, 3].map(NodeId)
    }

    pub fn last_term(&self) -> Term {
        Term(self.candidates.len() as u64)
    }

    pub fn may_campaign(&self, id: NodeId, term: Term) -> bool {
        let candidates = self.candidates.get(term.0 as usize - 1);
        candidates.is_some_and(|candidates| candidates.contains(&id.0))
    }

    pub fn prompt_disks(&self) -> bool {
        self.writes_max == 0
    }
}
