//! Rare states: how often they were reached. A run that never gets there proves nothing about them.

/// A state that a sound set of runs must reach sometimes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mark {
    /// A leader is elected whose log ends in entries of earlier terms that are not committed.
    OldTail,
    /// Entries are replaced by another leader's.
    Conflict,
    /// At least three at once.
    LongConflict,
    /// An entry was on a quorum of disks and is replaced all the same (figure 8).
    Figure8,
    /// A write completes when its entries were replaced already.
    LateWrite,
    /// A pre-vote is refused.
    PreVoteRefused,
    /// A candidate campaigns again: nobody won.
    SplitVote,
    /// A leader steps down because it hears no quorum.
    SteppedDown,
    /// Two members lead, in different terms.
    TwoLeaders,
    /// A client asks a leader that was deposed.
    DeposedAsked,
    /// A leader commits what is not on its own disk.
    CommitBeforeOwnDisk,
    /// A member applies what is not on its own disk.
    ApplyBeforeOwnDisk,
    /// A member dies with applied entries that are not on its own disk.
    AppliedAndForgotten,
    /// A read waits for the first commit of its leader's term.
    ReadBeforeFirstCommit,
    /// A follower's read is confirmed by its leader.
    FollowerRead,
    /// Leadership is handed over.
    Transferred,
    /// A hand-over is given up.
    TransferGivenUp,
    /// A peer lags so far that the log is read back for it.
    FetchForPeer,
    /// A member reads its log back to apply it.
    FetchForApply,
    /// A write is done while the log is read back.
    WrittenDuringRead,
    /// A forward is dropped by the queue to its leader.
    ForwardNotSent,
    /// A turn of a loop ends with work left for the next.
    TurnGoesOn,
    /// A leader's refusal of a forwarded write comes back.
    ForwardRefused,
    /// A write is answered as unknown, at once.
    AnsweredLost,
    /// A request waits too long for an answer.
    AnsweredTimedOut,
    /// A write waits too long for a leader.
    AnsweredNoLeader,
    /// Too much waits.
    AnsweredBusy,
    /// A write of unknown fate took effect.
    UnknownHappened,
    /// A read comes after what it wants to see was compacted.
    Compacted,
    /// A read asks for a revision that does not exist yet.
    FutureRevision,
    /// A transaction's conditions hold.
    TxnSucceeded,
    /// They do not.
    TxnFailed,
    /// A transaction is refused whole for one of its steps.
    TxnRefused,
    /// Recovery cuts a torn batch.
    TornBatch,
    /// Recovery repairs copies of META.
    MetaRepaired,
    /// A loss of power loses sectors that were written.
    SectorsLost,
    /// A loss of power loses names.
    NamesLost,
    /// A batch under way when its process died was kept.
    InterruptedKept,
    /// A batch under way when its process died is gone.
    InterruptedGone,
    /// Power is lost twice in a row during recovery.
    TwoCrashesInRecovery,
    /// All members are dead at once.
    AllDead,
    /// A failed sync or write ends a member.
    DiskErrorEnds,
    /// A full disk ends a member.
    FullDiskEnds,
    /// A member dies between asking for votes and the end of the election.
    CandidateDies,
    /// The log goes on in a new segment.
    NewSegment,
    /// Rot in the log is refused.
    RotRefused,
    /// A member that stops when told to hands leadership over first.
    HandedOverAtStop,
    /// A member that stops has writes under way, and does them.
    StopsWhileWriting,
    /// A member stopped in good order.
    Stopped,
    /// A member that stops ends before a write that does not.
    StopOverdue,
    /// A clock goes on at less than half the rate of another.
    ClocksApart,
    /// A leader's clock jumps by an election timeout or more.
    LeaderJumps,
    /// A clock jumps further than requests may wait, while some do.
    JumpOverRequests,
    /// A member reads back what has rotted, and ends.
    RotReadBack,
    /// A member does not start on a disk that has rotted.
    RotKeepsOut,
    /// A member finds everything on a disk that has rotted.
    RotHarmless,
    /// A member does not start on a disk that lost, or misplaced, what it said it had synced.
    LieRefused,
    /// Such a disk lost the newest batch, which cannot be told from one that was never written whole.
    LieUntold,
    /// A member finds everything on such a disk.
    LieHarmless,
    /// A connection breaks in the middle of a long message.
    LongMessageCut,
    /// A queue to a peer that takes nothing is full.
    QueueFull,
    /// A member outside of the connected quorum is there in the calm.
    Outsiders,
}

impl Mark {
    /// All marks. Every one of them is required of a set of runs.
    pub const ALL: [Mark; 62] = [
        Mark::OldTail,
        Mark::Conflict,
        Mark::LongConflict,
        Mark::Figure8,
        Mark::LateWrite,
        Mark::PreVoteRefused,
        Mark::SplitVote,
        Mark::SteppedDown,
        Mark::TwoLeaders,
        Mark::DeposedAsked,
        Mark::CommitBeforeOwnDisk,
        Mark::ApplyBeforeOwnDisk,
        Mark::AppliedAndForgotten,
        Mark::ReadBeforeFirstCommit,
        Mark::FollowerRead,
        Mark::Transferred,
        Mark::TransferGivenUp,
        Mark::FetchForPeer,
        Mark::FetchForApply,
        Mark::WrittenDuringRead,
        Mark::ForwardNotSent,
        Mark::TurnGoesOn,
        Mark::ForwardRefused,
        Mark::AnsweredLost,
        Mark::AnsweredTimedOut,
        Mark::AnsweredNoLeader,
        Mark::AnsweredBusy,
        Mark::UnknownHappened,
        Mark::Compacted,
        Mark::FutureRevision,
        Mark::TxnSucceeded,
        Mark::TxnFailed,
        Mark::TxnRefused,
        Mark::TornBatch,
        Mark::MetaRepaired,
        Mark::SectorsLost,
        Mark::NamesLost,
        Mark::InterruptedKept,
        Mark::InterruptedGone,
        Mark::TwoCrashesInRecovery,
        Mark::AllDead,
        Mark::DiskErrorEnds,
        Mark::FullDiskEnds,
        Mark::CandidateDies,
        Mark::NewSegment,
        Mark::RotRefused,
        Mark::HandedOverAtStop,
        Mark::StopsWhileWriting,
        Mark::Stopped,
        Mark::StopOverdue,
        Mark::ClocksApart,
        Mark::LeaderJumps,
        Mark::JumpOverRequests,
        Mark::RotReadBack,
        Mark::RotKeepsOut,
        Mark::RotHarmless,
        Mark::LieRefused,
        Mark::LieUntold,
        Mark::LieHarmless,
        Mark::LongMessageCut,
        Mark::QueueFull,
        Mark::Outsiders,
    ];
}

/// How often each mark was reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Marks([u64; Mark::ALL.len()]);

impl Default for Marks {
    fn default() -> Marks {
        Marks([0; Mark::ALL.len()])
    }
}

impl Marks {
    /// Counts the mark if the condition holds.
    pub fn sometimes(&mut self, mark: Mark, condition: bool) {
        self.0[mark as usize] += u64::from(condition);
    }

    /// Adds one run: each mark counts once if the run reached it.
    pub fn add_run(&mut self, run: &Marks) {
        for (sum, hits) in self.0.iter_mut().zip(run.0) {
            *sum += u64::from(hits > 0);
        }
    }

    /// Adds sums of runs.
    pub fn add(&mut self, other: &Marks) {
        for (sum, more) in self.0.iter_mut().zip(other.0) {
            *sum += more;
        }
    }

    /// How often it was reached.
    pub fn of(&self, mark: Mark) -> u64 {
        self.0[mark as usize]
    }

    /// Those never reached.
    pub fn missing(&self) -> Vec<Mark> {
        Mark::ALL.into_iter().filter(|mark| self.of(*mark) == 0).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_marks_are_listed_in_order() {
        for (number, mark) in Mark::ALL.iter().enumerate() {
            assert_eq!(*mark as usize, number);
        }
    }
}
