//! What goes out.

use crate::input::{PeerMessage, RequestId};
use crate::log_names::LogNames;
use crate::members::Member;
use raft::{Fetch, NodeId, Notice, Persist, Status};
use std::sync::Arc;
use store::{Outcome, Revision, View};

/// What a round asks of the world. The driver first makes `published` the state that readers
/// see, then delivers `replies`; the rest is in no need of order.
#[derive(Debug, Default)]
pub struct Outbox {
    /// Messages that may leave at once.
    pub peers: Vec<(NodeId, PeerMessage)>,
    /// Writes, in order, with the messages that wait for them.
    pub persists: Vec<Persist>,
    /// Entries to be read back from the log.
    pub fetches: Vec<Fetch>,
    /// Answers to clients.
    pub replies: Vec<(RequestId, Reply)>,
    /// What an operator should know of peers' disks.
    pub notices: Vec<Notice>,
    /// The state as readers may see it, if it changed.
    pub published: Option<Published>,
    /// There is more to do, without any input: the next round should come soon.
    pub more: bool,
}

/// The state as readers may see it. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Published {
    /// The store.
    pub view: View,
    /// The member's place in the cluster.
    pub status: Status,
    /// All members, ascending by id.
    pub members: Arc<[Member]>,
    /// Whose logs count.
    pub logs: Arc<LogNames>,
}

/// The answer to a request.
#[derive(Clone, Debug, PartialEq)]
pub enum Reply {
    /// It was applied here.
    Applied {
        /// What came of it.
        outcome: Result<Outcome, store::Refusal>,
        /// The store's revision after it.
        revision: Revision,
    },
    /// The member's own name and addresses are known to the cluster.
    Published,
    /// What is published now may be read.
    Readable,
    /// This member leads now.
    Transferred(NodeId),
    /// Leadership cannot move like that.
    TransferRefused(raft::Refusal),
    /// It was proposed, the leader was lost, and nobody was elected for long: it may have happened,
    /// or may still.
    Lost,
    /// The request was no message of its kind. It did nothing.
    Malformed,
    /// There was no leader for as long as a request may wait. It did nothing.
    NoLeader,
    /// It took longer than a request may take. If it was a write, it may still happen.
    TimedOut,
    /// Too much is waiting already. It did nothing.
    Busy,
}
