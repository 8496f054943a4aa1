//! What a peer says of its log's life is checked before it can be admitted.

use raft::{Body, Config, HardState, Incarnation, Membership, Message, Node, NodeId};
use raft::{Position, Ready, Restored, RoleName, Term};

const OWN: NodeId = NodeId(1);
const PEER: NodeId = NodeId(2);

fn persist(node: &mut Node) -> Ready {
    let ready = node.ready();
    ready.persist.iter().for_each(|persist| node.persisted(persist.ticket));
    ready
}

#[test]
fn a_peer_that_numbers_its_life_0_ends_no_leader() {
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
    let incarnation = Incarnation { start: 1, id: 11 };
    let mut node = Node::new(config, Restored { hard_state, incarnation, ..Restored::default() });
    while node.status().role != RoleName::Candidate {
        node.tick();
    }
    persist(&mut node);
    let message = |from, start, id, body| {
        let incarnation = Incarnation { start, id };
        Message { from, to: OWN, term: Term(2), incarnation, body }
    };
    // Any message of such a life.
    node.step(message(PEER, 0, 5, Body::HeartbeatReply { round: 0 }));
    let (last, candidate) = (Position::default(), incarnation);
    node.step(message(NodeId(3), 1, 33, Body::VoteReply { granted: true, last, candidate }));
    assert_eq!(node.status().role, RoleName::Leader);
}
