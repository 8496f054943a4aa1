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
        Invariants {
            hard_state: core.hard_state,
            role: role.name(),
            last: core.log.last(),
            committed: committed(core),
            applied: core.log.applied(),
            led_by: None,
        }
    }

    /// Checks everything, then remembers this state.
    pub(crate) fn check(&mut self, core: &Core, role: &Role) {
        check_state(core, role);
        self.check_change(core, role);
        self.remember(core, role);
    }

    fn remember(&mut self, core: &Core, role: &Role) {
        self.hard_state = core.hard_state;
        self.role = role.name();
        self.last = core.log.last();
        // If the index is the same, so is the term: it was just checked.
        if core.log.committed() != self.committed.index {
            self.committed = committed(core);
        }
        self.applied = core.log.applied();
        if let Some(leader) = role.leader(core) {
            self.led_by = Some((core.hard_state.term, leader));
        }
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

fn committed(core: &Core) -> Position {
    core.log.position(core.log.committed()).expect("what is committed exists")
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
            let committed = core.log.committed();
            let own = committed < leader.opening();
            let on_quorum = || leader.is_on_quorum(core, committed, Progress::matched);
            assert!(own || on_quorum(), "what is committed is on a quorum");
        }
    }
}
