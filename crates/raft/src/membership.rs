//! Who belongs to the cluster, and what a majority of them is.

use crate::entry::{Index, NodeId};
use std::collections::{BTreeMap, BTreeSet};

/// The members of a cluster. In a joint configuration (section 6) there are two sets of voters,
/// and every decision needs a majority of each; learners receive the log and decide nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Membership {
    voters: BTreeSet<NodeId>,
    /// The voters of the configuration that is being left; empty outside of a change.
    outgoing: BTreeSet<NodeId>,
    learners: BTreeSet<NodeId>,
}

/// How an election stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tally {
    /// A quorum granted its vote.
    Won,
    /// No quorum can be reached any more.
    Lost,
    /// Neither yet.
    Open,
}

impl Membership {
    /// A configuration with these voters and nobody else.
    pub fn new(voters: impl IntoIterator<Item = NodeId>) -> Membership {
        Membership { voters: voters.into_iter().collect(), ..Membership::default() }
    }

    /// A joint configuration: decisions need a majority of `voters` and one of `outgoing`.
    pub fn joint(
        voters: impl IntoIterator<Item = NodeId>,
        outgoing: impl IntoIterator<Item = NodeId>,
        learners: impl IntoIterator<Item = NodeId>,
    ) -> Membership {
        Membership {
            voters: voters.into_iter().collect(),
            outgoing: outgoing.into_iter().collect(),
            learners: learners.into_iter().collect(),
        }
    }

    /// All who vote, of both configurations, ascending.
    pub fn voters(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.voters.union(&self.outgoing).copied()
    }

    /// All who receive the log, ascending.
    pub fn members(&self) -> impl Iterator<Item = NodeId> + '_ {
        let all: BTreeSet<NodeId> = self.voters().chain(self.learners.iter().copied()).collect();
        all.into_iter()
    }

    /// Whether `id` votes.
    pub fn is_voter(&self, id: NodeId) -> bool {
        self.voters.contains(&id) || self.outgoing.contains(&id)
    }

    /// Whether `id` belongs to the cluster at all.
    pub fn contains(&self, id: NodeId) -> bool {
        self.is_voter(id) || self.learners.contains(&id)
    }

    /// Whether the members for which `holds` is true can decide.
    pub fn is_quorum(&self, holds: impl Fn(NodeId) -> bool) -> bool {
        self.configurations().all(|voters| {
            let count = voters.iter().filter(|id| holds(**id)).count();
            count > voters.len() / 2
        })
    }

    /// The highest index that a quorum has reached, when each member has reached
    /// `reached(member)`.
    pub fn quorum_index(&self, reached: impl Fn(NodeId) -> Index) -> Index {
        let majority = |voters: &BTreeSet<NodeId>| {
            let mut all: Vec<Index> = voters.iter().map(|id| reached(*id)).collect();
            all.sort_unstable_by(|a, b| b.cmp(a));
            all[voters.len() / 2]
        };
        self.configurations().map(majority).min().unwrap_or_default()
    }

    /// How an election stands after these votes.
    pub fn tally(&self, votes: &BTreeMap<NodeId, bool>) -> Tally {
        if self.is_quorum(|id| votes.get(&id) == Some(&true)) {
            Tally::Won
        } else if self.is_quorum(|id| votes.get(&id) != Some(&false)) {
            Tally::Open
        } else {
            Tally::Lost
        }
    }

    /// The sets of voters of which each must agree; those without voters agree to everything.
    fn configurations(&self) -> impl Iterator<Item = &BTreeSet<NodeId>> {
        [&self.voters, &self.outgoing].into_iter().filter(|voters| !voters.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(set: u64) -> impl Iterator<Item = NodeId> {
        (0..6).filter(move |bit| set >> bit & 1 == 1).map(|bit| NodeId(bit + 1))
    }

    /// Counts on fingers: every set of members is tried as a quorum.
    fn is_quorum_by_hand(voters: u64, outgoing: u64, yes: u64) -> bool {
        let majority = |set: u64| 2 * (set & yes).count_ones() > set.count_ones() || set == 0;
        majority(voters) && majority(outgoing)
    }

    #[test]
    fn quorums_equal_a_count_by_hand() {
        for voters in 1..64 {
            for outgoing in 0..64 {
                let membership = Membership::joint(ids(voters), ids(outgoing), []);
                for yes in 0..64 {
                    let holds = |id: NodeId| yes >> (id.0 - 1) & 1 == 1;
                    assert_eq!(
                        membership.is_quorum(holds),
                        is_quorum_by_hand(voters, outgoing, yes),
                        "{voters:b} {outgoing:b} {yes:b}"
                    );
                }
            }
        }
    }

    #[test]
    fn any_two_quorums_meet() {
        for voters in 1..32u64 {
            let membership = Membership::new(ids(voters));
            for a in 0..32u64 {
                for b in 0..32u64 {
                    let quorum = |set: u64| membership.is_quorum(|id| set >> (id.0 - 1) & 1 == 1);
                    assert!(!quorum(a) || !quorum(b) || a & b & voters != 0);
                }
            }
        }
    }

    #[test]
    fn the_quorum_index_is_the_highest_that_a_quorum_has_reached() {
        for voters in 1..16u64 {
            for outgoing in 0..16u64 {
                let membership = Membership::joint(ids(voters), ids(outgoing), []);
                for code in 0..256u64 {
                    // Two bits an index, for four members.
                    let reached = |id: NodeId| Index(code >> (2 * (id.0 - 1)) & 3);
                    let expected =
                        (0..=3).rev().find(|i| membership.is_quorum(|id| reached(id).0 >= *i));
                    assert_eq!(membership.quorum_index(reached).0, expected.unwrap());
                }
            }
        }
    }

    #[test]
    fn an_election_is_lost_when_no_quorum_is_left() {
        let membership = Membership::new(ids(0b111));
        let votes = |v: &[(u64, bool)]| v.iter().map(|(id, g)| (NodeId(*id), *g)).collect();
        assert_eq!(membership.tally(&votes(&[(1, true)])), Tally::Open);
        assert_eq!(membership.tally(&votes(&[(1, true), (2, false)])), Tally::Open);
        assert_eq!(membership.tally(&votes(&[(1, true), (2, true)])), Tally::Won);
        assert_eq!(membership.tally(&votes(&[(1, true), (2, false), (3, false)])), Tally::Lost);
    }

    #[test]
    fn learners_decide_nothing() {
        let membership = Membership::joint(ids(0b1), [], ids(0b110));
        assert!(membership.is_quorum(|id| id == NodeId(1)));
        assert!(!membership.is_quorum(|id| id != NodeId(1)));
        assert_eq!(membership.members().count(), 3);
    }
}
