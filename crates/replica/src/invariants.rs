//! What must hold of a member after every round, in release builds too. The rules of consensus
//! are checked by its own crate.

use crate::replica::Replica;
use raft::Index;
use store::Revision;

/// What is remembered of the state before the round.
#[derive(Debug, Default)]
pub(crate) struct Invariants {
    applied: Index,
    revision: Revision,
    taken: u64,
}

impl Invariants {
    /// Checks everything, then remembers this state.
    pub(crate) fn check(replica: &mut Replica) {
        let status = replica.status();
        let revision = replica.revision();
        let before = &replica.invariants;
        assert!(replica.applied() <= replica.handed_out(), "what is applied was handed out");
        assert!(before.applied <= status.applied, "what is applied stays applied");
        assert!(before.revision <= revision, "the revision never goes back");
        let grown = status.applied.0 - before.applied.0;
        let risen = (revision.0 - before.revision.0) as u64;
        // An empty store is at revision 1.
        assert!(risen <= grown + 1, "an entry makes one revision at most");
        assert!(before.taken <= replica.taken(), "requests are taken once");
        let open = replica.taken() - replica.answered();
        assert!(open == replica.waiting() as u64, "every request is answered once");
        replica.assert_sound();
        let taken = replica.taken();
        replica.invariants = Invariants { applied: status.applied, revision, taken };
    }
}
