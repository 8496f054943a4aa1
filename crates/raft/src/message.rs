//! What members say to each other: the protocol's dictionary.

use crate::admissions::Incarnation;
use crate::entry::{Entry, Index, NodeId, Position, Term};
use crate::ready::ReadId;
use std::fmt;

/// One message from one member to another. The network may lose, double, delay and reorder
/// messages; nothing here relies on anything better.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Message {
    /// Who says it.
    pub from: NodeId,
    /// To whom.
    pub to: NodeId,
    /// The sender's term when it said so; in a pre-vote, and in a granted answer to one, the term
    /// that would be campaigned in.
    pub term: Term,
    /// The sender's life of its log: what it promises is worth no more than that.
    pub incarnation: Incarnation,
    /// What is said.
    pub body: Body,
}

/// What a message says.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Body {
    /// Would you vote for me in this term? Changes nothing at the receiver (thesis, section 9.6).
    PreVote {
        /// The last entry of the asker's log.
        last: Position,
    },
    /// Answers a [`Body::PreVote`].
    PreVoteReply {
        /// Whether the asker would have the vote.
        granted: bool,
    },
    /// Vote for me (section 5.2). A promise that the sender's term, vote and log are on its disk.
    Vote {
        /// The last entry of the candidate's log.
        last: Position,
        /// The old leader asked for this election: its followers need not protect it.
        transfer: bool,
    },
    /// Answers a [`Body::Vote`]. A granted one is a promise: it leaves after the vote is on disk,
    /// which may take so long that another life of the candidate's log has begun meanwhile, with
    /// fewer entries. So it says what was voted for.
    VoteReply {
        /// Whether the candidate has the vote.
        granted: bool,
        /// The candidate's last entry when it asked.
        last: Position,
        /// The candidate's life of its log when it asked.
        candidate: Incarnation,
    },
    /// Entries for the log, from the leader (section 5.3).
    Append {
        /// The entry before the first of `entries`: the receiver must hold it.
        prev: Position,
        /// What follows it; may be empty.
        entries: Vec<Entry>,
        /// The leader's commit index.
        commit: Index,
    },
    /// The receiver's log equals the leader's up to `matched`, on disk. A promise.
    Appended {
        /// The last index known to be equal.
        matched: Index,
    },
    /// The receiver lacks the entry that an [`Body::Append`] builds on.
    Rejected {
        /// The index of that entry.
        prev: Index,
        /// The last entry of the receiver that the leader's log may hold too: entries after it
        /// up to `prev` are missing, or of a later term than the leader's there.
        hint: Position,
    },
    /// I lead, and these entries are committed.
    Heartbeat {
        /// The commit index, no further than what the receiver is known to hold; 0 while it is not
        /// known where the logs part.
        commit: Index,
        /// The latest round of read confirmations; see [`crate::reads`].
        round: u64,
    },
    /// Answers a [`Body::Heartbeat`]: at this moment you lead as far as I know.
    HeartbeatReply {
        /// The heartbeat's round.
        round: u64,
    },
    /// These entries are committed; asks for no answer.
    Commit {
        /// The commit index, no further than what the receiver is known to hold.
        commit: Index,
    },
    /// A follower asks the leader to confirm a linearizable read.
    ReadRequest {
        /// The asker's token, never used twice, not even across its restarts.
        id: ReadId,
    },
    /// Answers a [`Body::ReadRequest`].
    ReadReply {
        /// The asker's token.
        id: ReadId,
        /// The read may be served by a state that has applied this index.
        index: Index,
    },
    /// Campaign now, without waiting: the leader hands over (thesis, section 3.10).
    TimeoutNow,
}

impl Body {
    /// Whether this counts for something at the receiver, so that it must come from a disk that
    /// counts.
    pub(crate) fn is_counted(&self) -> bool {
        matches!(
            self,
            Body::PreVoteReply { granted: true }
                | Body::VoteReply { granted: true, .. }
                | Body::Appended { .. }
                | Body::Rejected { .. }
                | Body::HeartbeatReply { .. }
        )
    }

    /// Whether only the leader of a term says this.
    pub(crate) fn is_of_leader(&self) -> bool {
        matches!(self, Body::Append { .. } | Body::Heartbeat { .. } | Body::Commit { .. })
    }
}

impl fmt::Display for Message {
    /// `n1@2 -> n3 Append prev=1@1 [2@2] commit=1`: the notation of scripts and traces.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "n{}@{} -> n{} {}", self.from, self.term, self.to, self.body)
    }
}

impl fmt::Display for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Body::PreVote { last } => write!(f, "PreVote last={last}"),
            Body::PreVoteReply { granted } => write!(f, "PreVoteReply granted={granted}"),
            Body::Vote { last, transfer: false } => write!(f, "Vote last={last}"),
            Body::Vote { last, transfer: true } => write!(f, "Vote last={last} transfer"),
            Body::VoteReply { granted, .. } => write!(f, "VoteReply granted={granted}"),
            Body::Append { prev, entries, commit } => {
                write!(f, "Append prev={prev} {} commit={commit}", Entries(entries))
            }
            Body::Appended { matched } => write!(f, "Appended matched={matched}"),
            Body::Rejected { prev, hint } => write!(f, "Rejected prev={prev} hint={hint}"),
            Body::Heartbeat { commit, round } => {
                write!(f, "Heartbeat commit={commit} round={round}")
            }
            Body::HeartbeatReply { round } => write!(f, "HeartbeatReply round={round}"),
            Body::Commit { commit } => write!(f, "Commit commit={commit}"),
            Body::ReadRequest { id } => write!(f, "ReadRequest id={}", id.0),
            Body::ReadReply { id, index } => write!(f, "ReadReply id={} index={index}", id.0),
            Body::TimeoutNow => write!(f, "TimeoutNow"),
        }
    }
}

/// `[2@1 3@1]`: entries by their positions.
pub(crate) struct Entries<'a>(pub &'a [Entry]);

impl fmt::Display for Entries<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[")?;
        for (i, entry) in self.0.iter().enumerate() {
            write!(f, "{}{}", if i > 0 { " " } else { "" }, entry.at)?;
        }
        f.write_str("]")
    }
}
