//! Messages between members, as they are written on the wire. What does not read as a message is
//! named and dropped: a peer's nonsense is never trusted.

use proto::peer as pb;
use raft::{Body, Entry, EntryKind, Incarnation, Index, Message, NodeId, Position, ReadId, Term};
use replica::{Header, PeerMessage, UnknownEntry};
use std::fmt;

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
        Body::VoteReply { granted, last, candidate } => Wire::VoteReply(pb::VoteReply {
            granted,
            last: position(last),
            incarnation_start: candidate.start,
            incarnation_id: candidate.id,
        }),
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

/// Something a peer sent that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unreadable {
    /// A message that claims to be from or for another member than those of its stream.
    Misaddressed,
    /// A kind of message that only a newer release knows.
    Message {
        /// Its number, and where it counts.
        kind: String,
    },
    /// A kind of entry that only a newer release knows.
    Entry {
        /// Its number.
        kind: u32,
    },
    /// A forwarded request that only a newer release knows.
    Request(UnknownEntry),
}

impl fmt::Display for Unreadable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Unreadable::Misaddressed => {
                return f.write_str("a message from or for another member; it was dropped");
            }
            Unreadable::Message { kind } => write!(f, "a message of kind {kind},")?,
            Unreadable::Entry { kind } => write!(f, "entries of kind {kind}")?,
            Unreadable::Request(UnknownEntry { version, kind }) => {
                write!(f, "a request of version {version}, kind {kind}")?;
            }
        }
        let advice = "it was dropped: start the newer release here, too";
        write!(f, " that this release does not know; {advice}")
    }
}

/// A message that says nothing; who assembles frames has named those of newer releases.
fn nothing() -> Unreadable {
    Unreadable::Message { kind: "none".to_owned() }
}

/// Reads a message that came from `from` for `to`.
///
/// # Errors
/// Why it cannot be read.
pub fn decode(
    from: NodeId,
    to: NodeId,
    incarnation: Incarnation,
    message: pb::PeerMessage,
) -> Result<PeerMessage, Unreadable> {
    use pb::peer_message::Message as Kind;
    match message.message.ok_or_else(nothing)? {
        Kind::Raft(message) if message.from == from.0 && message.to == to.0 => {
            decode_raft(message, incarnation).map(PeerMessage::Raft)
        }
        Kind::Raft(_) => Err(Unreadable::Misaddressed),
        Kind::Forward(pb::Forward { term, proposals }) => {
            Ok(PeerMessage::Forward { term: Term(term), proposals })
        }
        Kind::Refused(pb::Refused { boot, sequences }) => {
            Ok(PeerMessage::Refused { boot, sequences })
        }
    }
}

/// The first of the requests that a message forwards which this release does not know. The replica
/// proposes none of those.
pub fn unknown_request(message: &PeerMessage) -> Option<Unreadable> {
    let PeerMessage::Forward { proposals, .. } = message else { return None };
    proposals.iter().find_map(|request| Header::decode(request).err()).map(Unreadable::Request)
}

fn decode_raft(message: pb::Raft, incarnation: Incarnation) -> Result<Message, Unreadable> {
    use pb::raft::Body as Wire;
    let position = |at: Option<pb::Position>| {
        at.map_or(Position::default(), |at| Position::new(Term(at.term), Index(at.index)))
    };
    let body = match message.body.ok_or_else(nothing)? {
        Wire::PreVote(body) => Body::PreVote { last: position(body.last) },
        Wire::PreVoteReply(body) => Body::PreVoteReply { granted: body.granted },
        Wire::Vote(body) => Body::Vote { last: position(body.last), transfer: body.transfer },
        Wire::VoteReply(body) => {
            let (start, id) = (body.incarnation_start, body.incarnation_id);
            let candidate = Incarnation { start, id };
            Body::VoteReply { granted: body.granted, last: position(body.last), candidate }
        }
        Wire::Append(body) => Body::Append {
            prev: position(body.prev),
            entries: body.entries.into_iter().map(decode_entry).collect::<Result<_, _>>()?,
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
    Ok(Message { from, to, term: Term(message.term), incarnation, body })
}

/// An entry of a kind that only a newer release knows cannot be passed on as something else.
fn decode_entry(entry: pb::Entry) -> Result<Entry, Unreadable> {
    let kind = u8::try_from(entry.kind).ok().and_then(EntryKind::of_number);
    let kind = kind.ok_or(Unreadable::Entry { kind: entry.kind })?;
    let at = Position::new(Term(entry.term), Index(entry.index));
    Ok(Entry { at, kind, payload: entry.payload })
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    /// Not on the wire with each message: the greeting of the stream has it.
    const LIFE: Incarnation = Incarnation { start: 3, id: u64::MAX };

    fn all_bodies() -> Vec<Body> {
        let at = Position::new(Term(3), Index(7));
        let entry = |kind| Entry { at, kind, payload: Bytes::from_static(b"x") };
        vec![
            Body::PreVote { last: at },
            Body::PreVoteReply { granted: true },
            Body::Vote { last: at, transfer: true },
            Body::VoteReply { granted: true, last: at, candidate: LIFE },
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
            PeerMessage::Raft(Message { from, to, term: Term(4), incarnation: LIFE, body })
        });
        let others = [
            PeerMessage::Forward { term: Term(1), proposals: vec![Bytes::from_static(b"p")] },
            PeerMessage::Refused { boot: 5, sequences: vec![1, 2] },
        ];
        for message in raft.chain(others) {
            assert_eq!(decode(from, to, LIFE, encode(message.clone())), Ok(message));
        }
    }

    #[test]
    fn the_cost_is_not_below_the_length_on_the_wire() {
        let (from, to) = (NodeId(u64::MAX), NodeId(u64::MAX));
        let at = Position::new(Term(u64::MAX), Index(u64::MAX));
        let entry = Entry { at, kind: EntryKind::Command, payload: vec![1; 5000].into() };
        let append = Body::Append { prev: at, entries: vec![entry; 7], commit: Index(u64::MAX) };
        let mut bodies = all_bodies();
        bodies.push(append);
        let raft = bodies.into_iter().map(|body| {
            let (term, incarnation) = (Term(u64::MAX), LIFE);
            PeerMessage::Raft(Message { from, to, term, incarnation, body })
        });
        let proposals = vec![Bytes::from(vec![1; 5000]); 7];
        let others = [
            PeerMessage::Forward { term: Term(u64::MAX), proposals },
            PeerMessage::Refused { boot: u64::MAX, sequences: vec![u64::MAX; 7] },
        ];
        for message in raft.chain(others) {
            let cost = message.bytes();
            let batch = pb::Batch { messages: vec![encode(message)] };
            assert!(prost::Message::encoded_len(&batch) <= cost);
        }
    }

    #[test]
    fn what_claims_another_origin_or_is_of_an_unknown_kind_is_named() {
        let (from, to) = (NodeId(1), NodeId(2));
        let message = |from, to| {
            let body = Body::TimeoutNow;
            encode(PeerMessage::Raft(Message { from, to, term: Term(1), incarnation: LIFE, body }))
        };
        assert!(decode(from, to, LIFE, message(from, to)).is_ok());
        assert_eq!(decode(from, to, LIFE, message(NodeId(3), to)), Err(Unreadable::Misaddressed));
        assert_eq!(decode(from, to, LIFE, message(from, NodeId(3))), Err(Unreadable::Misaddressed));
        let unknown = pb::PeerMessage { message: None };
        assert_eq!(decode(from, to, LIFE, unknown), Err(nothing()));
        let entry = pb::Entry { term: 1, index: 1, kind: 99, payload: Bytes::new() };
        let append = pb::Append { prev: None, entries: vec![entry], commit: 0 };
        let body = Some(pb::raft::Body::Append(append));
        let raft = pb::Raft { from: 1, to: 2, term: 1, body };
        let message = Some(pb::peer_message::Message::Raft(raft));
        let why = decode(from, to, LIFE, pb::PeerMessage { message }).expect_err("it is unknown");
        assert_eq!(
            why.to_string(),
            "entries of kind 99 that this release does not know; it was dropped: start the newer \
             release here, too"
        );
    }

    #[test]
    fn a_forwarded_request_of_a_newer_release_is_named() {
        let request = |kind| {
            let mut request = vec![0; 40];
            (request[0], request[1]) = (1, kind);
            Bytes::from(request)
        };
        let forward = |proposals| PeerMessage::Forward { term: Term(1), proposals };
        assert_eq!(unknown_request(&forward(vec![request(1), request(2)])), None);
        let newer = unknown_request(&forward(vec![request(1), request(77)]));
        let why = newer.expect("it is unknown").to_string();
        assert!(why.starts_with("a request of version 1, kind 77 that"), "{why}");
    }
}
