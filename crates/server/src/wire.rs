//! Messages between members, as they are written on the wire. What does not read as a message is
//! nothing: a peer's nonsense is dropped and counted, never trusted.

use proto::peer as pb;
use raft::{Body, Entry, EntryKind, Incarnation, Index, Message, NodeId, Position, ReadId, Term};
use replica::PeerMessage;

/// About what a message costs in memory and on the wire, in bytes.
pub fn cost(message: &PeerMessage) -> usize {
    match message {
        PeerMessage::Raft(Message { body: Body::Append { entries, .. }, .. }) => {
            entries.iter().map(|entry| entry.payload.len() + 64).sum::<usize>() + 128
        }
        PeerMessage::Raft(_) => 128,
        PeerMessage::Forward { proposals, .. } => {
            proposals.iter().map(|proposal| proposal.len() + 32).sum::<usize>() + 64
        }
        PeerMessage::Refused { sequences, .. } => 10 * sequences.len() + 64,
    }
}

/// Writes a message.
pub fn encode(message: PeerMessage) -> pb::PeerMessage {
    use pb::peer_message::Message as Kind;
    pb::PeerMessage {
        message: Some(match message {
            PeerMessage::Raft(message) => Kind::Raft(encode_raft(message)),
            PeerMessage::Forward { term, proposals } => {
                Kind::Forward(pb::Forward { term: term.0, proposals })
            }
            PeerMessage::Refused { boot, sequences } => {
                Kind::Refused(pb::Refused { boot, sequences })
            }
        }),
    }
}

fn encode_raft(message: Message) -> pb::Raft {
    use pb::raft::Body as Wire;
    let position = |at: Position| Some(pb::Position { term: at.term.0, index: at.index.0 });
    let body = match message.body {
        Body::PreVote { last } => Wire::PreVote(pb::PreVote { last: position(last) }),
        Body::PreVoteReply { granted } => Wire::PreVoteReply(pb::PreVoteReply { granted }),
        Body::Vote { last, transfer } => Wire::Vote(pb::Vote { last: position(last), transfer }),
        Body::VoteReply { granted } => Wire::VoteReply(pb::VoteReply { granted }),
        Body::Append { prev, entries, commit } => Wire::Append(pb::Append {
            prev: position(prev),
            entries: entries.into_iter().map(encode_entry).collect(),
            commit: commit.0,
        }),
        Body::Appended { matched } => Wire::Appended(pb::Appended { matched: matched.0 }),
        Body::Rejected { prev, hint } => {
            Wire::Rejected(pb::Rejected { prev: prev.0, hint: position(hint) })
        }
        Body::Heartbeat { commit, round } => {
            Wire::Heartbeat(pb::Heartbeat { commit: commit.0, round })
        }
        Body::HeartbeatReply { round } => Wire::HeartbeatReply(pb::HeartbeatReply { round }),
        Body::Commit { commit } => Wire::Commit(pb::Commit { commit: commit.0 }),
        Body::ReadRequest { id } => Wire::ReadRequest(pb::ReadRequest { id: id.0 }),
        Body::ReadReply { id, index } => {
            Wire::ReadReply(pb::ReadReply { id: id.0, index: index.0 })
        }
        Body::TimeoutNow => Wire::TimeoutNow(pb::TimeoutNow {}),
    };
    pb::Raft { from: message.from.0, to: message.to.0, term: message.term.0, body: Some(body) }
}

fn encode_entry(entry: Entry) -> pb::Entry {
    let kind = u32::from(entry.kind.number());
    pb::Entry { term: entry.at.term.0, index: entry.at.index.0, kind, payload: entry.payload }
}

/// Reads a message that came from `from` for `to`; nothing if it is none, or claims otherwise.
pub fn decode(from: NodeId, to: NodeId, message: pb::PeerMessage) -> Option<PeerMessage> {
    use pb::peer_message::Message as Kind;
    match message.message? {
        Kind::Raft(message) => {
            let honest = message.from == from.0 && message.to == to.0;
            if honest { decode_raft(message).map(PeerMessage::Raft) } else { None }
        }
        Kind::Forward(pb::Forward { term, proposals }) => {
            Some(PeerMessage::Forward { term: Term(term), proposals })
        }
        Kind::Refused(pb::Refused { boot, sequences }) => {
            Some(PeerMessage::Refused { boot, sequences })
        }
    }
}

fn decode_raft(message: pb::Raft) -> Option<Message> {
    use pb::raft::Body as Wire;
    let position = |at: Option<pb::Position>| {
        at.map_or(Position::default(), |at| Position::new(Term(at.term), Index(at.index)))
    };
    let body = match message.body? {
        Wire::PreVote(body) => Body::PreVote { last: position(body.last) },
        Wire::PreVoteReply(body) => Body::PreVoteReply { granted: body.granted },
        Wire::Vote(body) => Body::Vote { last: position(body.last), transfer: body.transfer },
        Wire::VoteReply(body) => Body::VoteReply { granted: body.granted },
        Wire::Append(body) => Body::Append {
            prev: position(body.prev),
            entries: body.entries.into_iter().map(decode_entry).collect::<Option<_>>()?,
            commit: Index(body.commit),
        },
        Wire::Appended(body) => Body::Appended { matched: Index(body.matched) },
        Wire::Rejected(body) => {
            Body::Rejected { prev: Index(body.prev), hint: position(body.hint) }
        }
        Wire::Heartbeat(body) => Body::Heartbeat { commit: Index(body.commit), round: body.round },
        Wire::HeartbeatReply(body) => Body::HeartbeatReply { round: body.round },
        Wire::Commit(body) => Body::Commit { commit: Index(body.commit) },
        Wire::ReadRequest(body) => Body::ReadRequest { id: ReadId(body.id) },
        Wire::ReadReply(body) => Body::ReadReply { id: ReadId(body.id), index: Index(body.index) },
        Wire::TimeoutNow(_) => Body::TimeoutNow,
    };
    let (from, to) = (NodeId(message.from), NodeId(message.to));
    let incarnation = Incarnation::default();
    Some(Message { from, to, term: Term(message.term), incarnation, body })
}

/// An entry of a kind that only a newer release knows cannot be passed on as something else.
fn decode_entry(entry: pb::Entry) -> Option<Entry> {
    let kind = EntryKind::of_number(u8::try_from(entry.kind).ok()?)?;
    let at = Position::new(Term(entry.term), Index(entry.index));
    Some(Entry { at, kind, payload: entry.payload })
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    fn all_bodies() -> Vec<Body> {
        let at = Position::new(Term(3), Index(7));
        let entry = |kind| Entry { at, kind, payload: Bytes::from_static(b"x") };
        vec![
            Body::PreVote { last: at },
            Body::PreVoteReply { granted: true },
            Body::Vote { last: at, transfer: true },
            Body::VoteReply { granted: false },
            Body::Append {
                prev: Position::default(),
                entries: vec![entry(EntryKind::Noop), entry(EntryKind::Command)],
                commit: Index(6),
            },
            Body::Appended { matched: Index(7) },
            Body::Rejected { prev: Index(8), hint: at },
            Body::Heartbeat { commit: Index(7), round: 9 },
            Body::HeartbeatReply { round: 9 },
            Body::Commit { commit: Index(7) },
            Body::ReadRequest { id: ReadId(u64::MAX) },
            Body::ReadReply { id: ReadId(1), index: Index(7) },
            Body::TimeoutNow,
        ]
    }

    #[test]
    fn every_message_survives_the_wire() {
        let (from, to) = (NodeId(u64::MAX), NodeId(2));
        let raft = all_bodies().into_iter().map(|body| {
            PeerMessage::Raft(Message {
                from,
                to,
                term: Term(4),
                incarnation: Incarnation::default(),
                body,
            })
        });
        let others = [
            PeerMessage::Forward { term: Term(1), proposals: vec![Bytes::from_static(b"p")] },
            PeerMessage::Refused { boot: 5, sequences: vec![1, 2] },
        ];
        for message in raft.chain(others) {
            assert_eq!(decode(from, to, encode(message.clone())), Some(message));
        }
    }

    #[test]
    fn what_claims_another_origin_or_kind_is_nothing() {
        let (from, to) = (NodeId(1), NodeId(2));
        let message = |from, to| {
            let body = Body::TimeoutNow;
            encode(PeerMessage::Raft(Message {
                from,
                to,
                term: Term(1),
                incarnation: Incarnation::default(),
                body,
            }))
        };
        assert!(decode(from, to, message(from, to)).is_some());
        assert!(decode(from, to, message(NodeId(3), to)).is_none());
        assert!(decode(from, to, message(from, NodeId(3))).is_none());
        assert!(decode(from, to, pb::PeerMessage { message: None }).is_none());
        let entry = pb::Entry { term: 1, index: 1, kind: 99, payload: Bytes::new() };
        assert!(decode_entry(entry).is_none());
    }
}
