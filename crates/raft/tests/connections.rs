//! What a new connection means to what is about to be said.

use raft::{Body, Config, HardState, Incarnation, Index, Membership, Message, Node, NodeId};
use raft::{Position, Ready, Restored, RoleName, Term};

const OWN: NodeId = NodeId(1);
const PEER: NodeId = NodeId(2);

fn leader() -> Node {
    let config = Config {
        id: OWN,
        membership: Membership::new([OWN, PEER, NodeId(3)]),
        election_ticks: 10,
        heartbeat_ticks: 1,
        seed: 1,
        pre_vote: false,
        check_quorum: true,
        append_bytes_max: 1 << 20,
        inflight_bytes_max: 1 << 20,
        tail_bytes_max: 1 << 20,
    };
    let hard_state = HardState { term: Term(1), vote: None };
    let mut node = Node::new(config, Restored { hard_state, ..Restored::default() });
    while node.status().role != RoleName::Candidate {
        node.tick();
    }
    persist(&mut node);
    let (last, candidate) = (Position::default(), Incarnation::default());
    node.step(from_peer(Body::VoteReply { granted: true, last, candidate }));
    assert_eq!(node.status().role, RoleName::Leader);
    persist(&mut node);
    node
}

fn persist(node: &mut Node) -> Ready {
    let ready = node.ready();
    ready.persist.iter().for_each(|persist| node.persisted(persist.ticket));
    ready
}

fn from_peer(body: Body) -> Message {
    let incarnation = Incarnation::default();
    Message { from: PEER, to: OWN, term: Term(2), incarnation, body }
}

/// What the leader tells the peer to be committed, other than with the entries.
fn claimed(ready: &Ready) -> Vec<Index> {
    let to_peer = ready.messages.iter().filter(|message| message.to == PEER);
    let commit = |message: &Message| match message.body {
        Body::Heartbeat { commit, .. } | Body::Commit { commit } => Some(commit),
        _ => None,
    };
    to_peer.filter_map(commit).collect()
}

/// The peer's process ended, and an older copy of its disk took its place: it may hold another
/// entry where the one was that is known to be committed.
#[test]
fn what_a_peer_was_known_to_hold_is_not_claimed_on_its_next_connection() {
    for is_new in [false, true] {
        let mut node = leader();
        node.step(from_peer(Body::Appended { matched: Index(1) }));
        persist(&mut node);
        node.tick();
        if is_new {
            node.connected(PEER);
        }
        let told = claimed(&persist(&mut node));
        assert_eq!(told.contains(&Index(1)), !is_new, "{told:?}");
    }
}
