//! What must always hold, checked after every input, in release builds too. A member that finds
//! one of these broken stops: going on could lose what was promised.
//!
//! Facts about one state stand in `check_state`, facts about a change in `check_change`, which
//! compares with what was remembered of the state before.

use crate::entry::{HardState, Index, NodeId, Position, Term};
use crate::node::{Core, Role, RoleName};
use crate::progress::Progress;
use std::hash::{Hash, Hasher};

/// What is remembered of the state before the last input.
#[derive(Clone, Debug)]
pub(crate) struct Invariants {
    hard_state: HardState,
    role: RoleName,
    last: Position,
    committed: Position,
    applied: Index,
    /// The latest term whose leader was learnt, and that leader.
    led_by: Option<(Term, NodeId)>,
}

/// See [`crate::Node`]. The rest repeats what the node itself is, and a leader of an earlier term
/// forbids nothing any more.
impl Hash for Invariants {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.led_by.filter(|(term, _)| *term == self.hard_state.term).hash(state);
    }
}

impl Invariants {
    pub(crate) fn new(core: &Core, role: &Role) -> Invariants {
        let committed = core.log.position(core.log.committed()).expect("what is committed exists");
        Invariants {
            hard_state: core.hard_state,
            role: role.name(),
            last: core.log.last(),
            committed,
            applied: core.log.applied(),
            led_by: None,
        }
    }

    /// Checks everything, then remembers this state.
    pub(crate) fn check(&mut self, core: &Core, role: &Role) {
        check_state(core, role);
        self.check_change(core, role);
        let led_by = role.leader(core).map(|leader| (core.hard_state.term, leader));
        *self = Invariants { led_by: led_by.or(self.led_by), ..Invariants::new(core, role) };
    }

    fn check_change(&self, core: &Core, role: &Role) {
        let now = core.hard_state;
        let log = &core.log;
        assert!(self.hard_state.term <= now.term, "terms never go back");
        if self.hard_state.term == now.term {
            let kept = self.hard_state.vote.is_none() || self.hard_state.vote == now.vote;
            assert!(kept, "one vote a term");
            let led = self.role == RoleName::Leader && role.name() == RoleName::Leader;
            assert!(!led || log.contains(self.last), "a leader never rewrites its own log");
        }
        assert!(self.committed.index <= log.committed(), "the commit index never goes back");
        assert!(log.contains(self.committed), "committed entries stay");
        assert!(self.applied <= log.applied(), "what is applied stays applied");
        if let (Some((term, before)), Some(leader)) = (self.led_by, role.leader(core)) {
            assert!(term < now.term || before == leader, "at most one leader in a term");
        }
    }
}

fn check_state(core: &Core, role: &Role) {
    core.log.assert_sound();
    let HardState { term, vote } = core.hard_state;
    assert!(core.log.last().term <= term, "the log is no newer than the term");
    let me = core.config.id;
    match role {
        Role::Follower(follower) => {
            assert!(follower.leader() != Some(me), "nobody follows itself");
        }
        Role::Candidate(candidate) => {
            assert!(candidate.is_asking() || vote == Some(me), "a candidate votes for itself");
        }
        Role::Leader(leader) => {
            assert!(vote == Some(me), "a leader voted for itself");
            let opening = core.log.position(leader.opening());
            assert!(opening.is_some_and(|at| at.term == term), "a leader opened its term");
            assert!(core.log.last().term == term, "a leader's last entry is its own");
            for (_, progress) in leader.progress() {
                assert!(progress.matched() < progress.next(), "what is matched was sent");
                assert!(progress.matched() <= core.log.last().index, "peers match what exists");
                let sent = progress.next() <= core.log.last().index.next();
                assert!(sent, "only what exists is sent");
            }
            // What a peer lost since does not take back that it was committed.
            let quorum = leader.quorum_index_of(core, Progress::matched);
            let own = core.log.committed() < leader.opening();
            assert!(own || core.log.committed() <= quorum, "what is committed is on a quorum");
        }
    }
}
