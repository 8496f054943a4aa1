//! Whether a peer's log is the one that counts, as told when a connection is made.

use raft::{Admission, Incarnation, NodeId};
use std::fmt;

/// What a member's own log says of all members' logs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogNames {
    /// The life of its own log.
    pub own: Incarnation,
    /// The lives that count for certain; empty before an admission is committed.
    pub admitted: Admission,
    /// Names the log that all of them share; 0 before its first entry is known to be committed.
    pub history: u64,
}

/// Why a peer's log is none that this member's log could go on with. `Display` is one line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ForeignLog {
    /// It is not the life that counts, nor a later one of the same log.
    Replaced {
        /// Whose log it is.
        peer: NodeId,
        /// The life that counts.
        admitted: Incarnation,
        /// What is presented.
        presented: Incarnation,
    },
    /// It begins with another entry.
    OtherHistory(NodeId),
}

impl LogNames {
    /// Checks what a peer presents.
    ///
    /// # Errors
    /// Why it must be kept out.
    pub fn check(
        &self,
        peer: NodeId,
        presented: Incarnation,
        history: u64,
    ) -> Result<(), ForeignLog> {
        // A peer that begins anew has neither; its log is the matter of the other rule.
        if self.history != 0 && history != 0 && self.history != history {
            return Err(ForeignLog::OtherHistory(peer));
        }
        match self.admitted.get(&peer) {
            Some(&admitted) if !presented.continues(admitted) => {
                Err(ForeignLog::Replaced { peer, admitted, presented })
            }
            _ => Ok(()),
        }
    }
}

impl fmt::Display for ForeignLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ForeignLog::Replaced { peer, admitted, presented } => write!(
                f,
                "member {peer} has already been bootstrapped with another log (life {admitted}, and \
                 now {presented}): its data directory was lost, or is an older copy or the wrong \
                 one. It takes no part; put its directory back, or leave it stopped until it can \
                 be replaced"
            ),
            ForeignLog::OtherHistory(peer) => write!(
                f,
                "member {peer} has the log of another history of this cluster: a majority lost \
                 their data directories and began anew. Put those back, or set up the cluster anew \
                 from the members that have what you want to keep"
            ),
        }
    }
}

impl std::error::Error for ForeignLog {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_is_known_by_its_life_and_its_history() {
        let life = |start, id| Incarnation { start, id };
        let peer = NodeId(2);
        let admitted = Admission::from([(peer, life(3, 7))]);
        let names = LogNames { own: life(1, 1), admitted, history: 9 };
        assert_eq!(names.check(peer, life(3, 7), 9), Ok(()));
        assert_eq!(names.check(peer, life(4, 8), 0), Ok(()));
        assert_eq!(names.check(NodeId(3), life(1, 5), 0), Ok(()), "nobody knows it yet");
        for presented in [life(3, 8), life(1, 7), life(0, 0)] {
            let told = names.check(peer, presented, 9).unwrap_err();
            assert_eq!(told, ForeignLog::Replaced { peer, admitted: life(3, 7), presented });
        }
        assert_eq!(names.check(peer, life(3, 7), 8), Err(ForeignLog::OtherHistory(peer)));
        assert_eq!(LogNames::default().check(peer, life(1, 1), 8), Ok(()));
    }
}
