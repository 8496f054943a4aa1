//! What comes in.

use crate::entry::{Header, Proposal};
use bytes::Bytes;
use raft::{Entry, Fetch, NodeId, Term, Ticket};

/// Names a client's request; the driver's own handle, given back in the reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(pub u64);

/// Everything that can happen to a member.
#[derive(Debug)]
pub enum Input {
    /// A tick of time passed.
    Tick,
    /// A message from a peer.
    Peer(NodeId, PeerMessage),
    /// There is a new connection to a peer, perhaps in place of an older one. What was sent to it
    /// before may be lost; what is sent from now on goes to the new connection.
    Connected(NodeId),
    /// The connection to a peer broke: a hint.
    Disconnected(NodeId),
    /// Bytes of a long message from a peer are arriving: it is alive, though nothing it says can be
    /// read yet.
    Contact(NodeId),
    /// A forward to this peer was certainly not sent, as far as this copy of it goes: this is what
    /// the peer would have answered ([`PeerMessage::refusal`]).
    NotSent(NodeId, PeerMessage),
    /// A client wants something written.
    Propose {
        /// Whose reply it is.
        request: RequestId,
        /// What.
        proposal: Proposal,
    },
    /// A client wants to read what is current.
    Read {
        /// Whose reply it is.
        request: RequestId,
    },
    /// This write, and all before it, are on disk.
    Persisted(Ticket),
    /// Entries that were asked for.
    Fetched(Fetch, Vec<Entry>),
    /// Leadership shall move, to anybody if none is named.
    Transfer {
        /// Whose reply it is.
        request: RequestId,
        /// The new leader.
        to: Option<NodeId>,
    },
    /// Nobody waits for this reply any more. What was proposed stays proposed.
    Cancel(RequestId),
}

/// What members say to each other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PeerMessage {
    /// Consensus.
    Raft(raft::Message),
    /// Please propose these, if you lead in this term.
    Forward {
        /// The term in which the sender knows the receiver to lead.
        term: Term,
        /// Sealed entries.
        proposals: Vec<Bytes>,
    },
    /// These were not proposed: the receiver of the forward did not lead in its term.
    Refused {
        /// The life of the origin.
        boot: u64,
        /// Which of its requests.
        sequences: Vec<u64>,
    },
}

impl PeerMessage {
    /// What the receiver would answer to proposals that never reached it: a transport that knows
    /// that it did not send a message gives this back in its place. `None` if nobody waits for it.
    pub fn refusal(&self) -> Option<PeerMessage> {
        let PeerMessage::Forward { proposals, .. } = self else { return None };
        let headers = proposals.iter().filter_map(|sealed| Header::decode(sealed).ok());
        let origins: Vec<_> = headers.map(|(header, _)| header.origin).collect();
        let boot = origins.first()?.boot;
        let sequences = origins.iter().map(|origin| origin.sequence).collect();
        Some(PeerMessage::Refused { boot, sequences })
    }
}
