//! A candidate: asks whether it would be elected, then asks to be.

use crate::admissions::Incarnation;
use crate::entry::{NodeId, Position};
use crate::membership::Tally;
use crate::message::Body;
use crate::node::{Core, Next};
use std::collections::BTreeMap;
use std::hash::{Hash, Hasher};

/// What a candidate, or one that considers to be one, knows.
#[derive(Clone, Debug)]
pub(crate) struct Candidate {
    phase: Phase,
    /// The answers of this phase, none from an earlier one.
    votes: BTreeMap<NodeId, bool>,
    elapsed: u32,
    patience: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Phase {
    /// Asking, in no new term yet (thesis, section 9.6).
    Ask,
    /// Campaigning in a term of its own.
    Campaign,
}

/// See [`crate::Node`].
impl Hash for Candidate {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let Candidate { phase, votes, elapsed, patience: _ } = self;
        (phase, votes, elapsed).hash(state);
    }
}

impl Candidate {
    /// Asks everybody how an election would go.
    pub(crate) fn ask(core: &mut Core) -> (Candidate, Next) {
        let mut candidate = Candidate::new(core, Phase::Ask);
        let last = core.log.last();
        let term = core.hard_state.term.next();
        for peer in core.peers() {
            core.send_in(term, peer, Body::PreVote { last });
        }
        // Our own answer needs no disk: it binds nobody.
        let next = if core.is_admitted() {
            candidate.count(core, core.config.id, true)
        } else {
            Next::Stay
        };
        (candidate, next)
    }

    /// Campaigns in the term just entered, beginning with a vote for itself.
    pub(crate) fn campaign(core: &mut Core, transfer: bool) -> Candidate {
        assert!(core.hard_state.vote.is_none(), "one vote a term");
        core.hard_state.vote = Some(core.config.id);
        let last = core.log.last();
        // A promise, too: a candidate that forgot that it asked could ask again in the same term
        // with another log, and votes for the one would count for the other
        // (see scripts/a_candidate_asks_when_its_term_and_log_are_on_disk).
        for peer in core.peers() {
            core.promise(peer, Body::Vote { last, transfer });
        }
        Candidate::new(core, Phase::Campaign)
    }

    pub(crate) fn is_asking(&self) -> bool {
        self.phase == Phase::Ask
    }

    pub(crate) fn on_tick(&mut self, core: &mut Core) -> Next {
        self.elapsed += 1;
        if self.elapsed < self.patience || !core.may_campaign() {
            Next::Stay
        } else if core.config.pre_vote {
            Next::PreCampaign
        } else {
            Next::Campaign { transfer: false }
        }
    }

    pub(crate) fn on_pre_vote_reply(&mut self, core: &Core, from: NodeId, granted: bool) -> Next {
        if self.phase != Phase::Ask {
            return Next::Stay;
        }
        self.count(core, from, granted)
    }

    /// A vote is for a log: what another life of ours was promised says nothing of this one
    /// (see scripts/a_vote_for_a_lost_log_does_not_count).
    pub(crate) fn on_vote_reply(
        &mut self,
        core: &Core,
        from: NodeId,
        granted: bool,
        last: Position,
        candidate: Incarnation,
    ) -> Next {
        let is_for_us = (last, candidate) == (core.log.last(), core.incarnation);
        if self.phase != Phase::Campaign || !is_for_us {
            return Next::Stay;
        }
        self.count(core, from, granted)
    }

    /// Our own vote counts like any other: when it is on disk. Else we could forget it, and vote
    /// for somebody else in a term that we won.
    pub(crate) fn on_persisted(&mut self, core: &mut Core) -> Next {
        if self.phase != Phase::Campaign || !core.has_own_vote_on_disk() || !core.is_admitted() {
            return Next::Stay;
        }
        self.count(core, core.config.id, true)
    }

    fn new(core: &mut Core, phase: Phase) -> Candidate {
        let range = core.config.election_ticks;
        let patience = range + core.draw_ticks(range);
        Candidate { phase, votes: BTreeMap::new(), elapsed: 0, patience }
    }

    /// Counts a voter's first answer; later ones are copies.
    fn count(&mut self, core: &Core, from: NodeId, granted: bool) -> Next {
        self.votes.entry(from).or_insert(granted);
        match core.config.membership.tally(&self.votes) {
            Tally::Open => Next::Stay,
            Tally::Won if self.phase == Phase::Ask => Next::Campaign { transfer: false },
            Tally::Won => Next::Lead,
            Tally::Lost => Next::Follow { term: core.hard_state.term, leader: None },
        }
    }
}
