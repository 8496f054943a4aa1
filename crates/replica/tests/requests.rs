//! What a client is told, and when: one behaviour a test.

#![allow(clippy::unwrap_used, reason = "tests")]

mod cluster;

use bytes::Bytes;
use cluster::{Cluster, compact, id, put_at};
use proto::log::Publish;
use raft::{Body, Entry, EntryKind, HardState, Index, Persist, Position, Term, Ticket};
use replica::{Input, Kind, PeerMessage, Proposal, Reply, RequestId};

fn is_forward(message: &PeerMessage) -> bool {
    matches!(message, PeerMessage::Forward { .. })
}

fn is_refused(message: &PeerMessage) -> bool {
    matches!(message, PeerMessage::Refused { .. })
}

fn is_read_request(message: &PeerMessage) -> bool {
    matches!(message, PeerMessage::Raft(raft) if matches!(raft.body, Body::ReadRequest { .. }))
}

fn is_appended(message: &PeerMessage) -> bool {
    matches!(message, PeerMessage::Raft(raft) if matches!(raft.body, Body::Appended { .. }))
}

#[test]
fn a_put_at_a_follower_is_answered_after_its_own_apply_and_read_back_there() {
    let (mut cluster, leader) = Cluster::led(3, 1);
    let follower = cluster.follower();
    let request = cluster.put(follower, "k", "v");
    cluster.settle();
    // The leader has committed and applied; the follower does not know yet.
    assert_eq!(cluster.get(leader, "k").unwrap().value, "v");
    if cluster.get(follower, "k").is_none() {
        assert_eq!(cluster.reply(request), None);
    }
    cluster.tick(2);
    assert_eq!(put_at(cluster.reply(request)), Some(2));
    assert_eq!(cluster.replies[&request].at, follower);
    assert_eq!(cluster.get(follower, "k").unwrap().value, "v");
}

#[test]
fn what_a_dead_leader_did_not_pass_on_is_proposed_again() {
    let (mut cluster, leader) = Cluster::led(3, 2);
    let follower = cluster.follower();
    let request = cluster.put(follower, "k", "v");
    cluster.crash(leader, || false);
    cluster.network.clear();
    for survivor in cluster.alive() {
        cluster.round(survivor, vec![Input::Disconnected(leader)]);
    }
    let mut ticks = 0;
    while cluster.reply(request).is_none() {
        cluster.tick(1);
        ticks += 1;
        assert!(ticks < 20, "an election, no time-out");
    }
    assert_eq!(put_at(cluster.reply(request)), Some(2));
    assert_eq!(cluster.get(follower, "k").unwrap().version, 1);
}

#[test]
fn what_a_dead_leader_passed_on_is_answered_and_not_proposed_again() {
    let (mut cluster, leader) = Cluster::led(3, 2);
    let follower = cluster.follower();
    let request = cluster.put(follower, "k", "v");
    // The others have it on their disks, and their answers do not reach the leader.
    while cluster.take(|envelope| is_appended(&envelope.message)).is_empty() {
        let envelope = cluster.network.remove(0);
        cluster.deliver(envelope);
        for member in cluster.alive() {
            assert!(cluster.run_disk(member));
        }
    }
    assert_eq!(cluster.get(follower, "k"), None);
    cluster.crash(leader, || false);
    cluster.network.clear();
    cluster.tick(40);
    assert_eq!(put_at(cluster.reply(request)), Some(2));
    assert_eq!(cluster.get(follower, "k").unwrap().version, 1);
}

#[test]
fn when_nobody_is_elected_what_was_proposed_is_lost() {
    let (mut cluster, leader) = Cluster::led(3, 3);
    cluster.isolate(leader);
    let request = cluster.put(leader, "k", "lost");
    let other = cluster.alive().into_iter().find(|id| *id != leader).unwrap();
    while cluster.status(other).leader.is_none_or(|id| id == leader) {
        cluster.tick(1);
    }
    cluster.tick(60);
    assert_eq!(cluster.reply(request), Some(&Reply::Lost));
    cluster.cut.clear();
    cluster.tick(10);
    assert_eq!(cluster.get(leader, "k"), None);
    let again = cluster.put(leader, "k", "kept");
    cluster.tick(4);
    assert_eq!(put_at(cluster.reply(again)), Some(2));
}

#[test]
fn reads_that_wait_share_one_round() {
    let (mut cluster, _) = Cluster::led(3, 4);
    let follower = cluster.follower();
    let ids: Vec<RequestId> = (0..5).map(|_| cluster.request()).collect();
    let reads = ids.iter().map(|request| Input::Read { request: *request }).collect();
    cluster.round(follower, reads);
    let late = [cluster.read(follower), cluster.read(follower)];
    let asked = cluster.take(|envelope| is_read_request(&envelope.message));
    assert_eq!(asked.len(), 1, "five reads ask once, and those after them wait for the next round");
    cluster.network.extend(asked);
    cluster.tick(4);
    for request in ids.iter().chain(&late) {
        assert_eq!(cluster.reply(*request), Some(&Reply::Readable));
    }
}

#[test]
fn a_read_whose_question_is_lost_is_asked_again() {
    let (mut cluster, _) = Cluster::led(3, 5);
    let follower = cluster.follower();
    let request = cluster.read(follower);
    assert_eq!(cluster.take(|envelope| is_read_request(&envelope.message)).len(), 1);
    cluster.tick(12);
    assert_eq!(cluster.reply(request), Some(&Reply::Readable));
}

#[test]
fn a_read_waits_for_the_first_commit_of_the_term() {
    let mut cluster = Cluster::new(3, 6);
    let mut held = Vec::new();
    let leader = loop {
        for member in cluster.alive() {
            cluster.round(member, vec![Input::Tick]);
        }
        // Acknowledgements do not arrive, so the leader commits nothing.
        while let Some(envelope) = cluster.network.pop() {
            if is_appended(&envelope.message) {
                held.push(envelope);
            } else {
                cluster.deliver(envelope);
            }
            for member in cluster.alive() {
                cluster.run_disk(member);
            }
        }
        for member in cluster.alive() {
            cluster.run_disk(member);
        }
        if let Some(leader) = cluster.leader()
            && !held.is_empty()
        {
            break leader;
        }
    };
    let request = cluster.read(leader);
    for _ in 0..50 {
        let Some(envelope) = cluster.network.pop() else { break };
        if is_appended(&envelope.message) { held.push(envelope) } else { cluster.deliver(envelope) }
    }
    assert_eq!(cluster.status(leader).commit, Index(0));
    assert_eq!(cluster.reply(request), None);
    cluster.network.extend(held);
    cluster.tick(3);
    assert_eq!(cluster.reply(request), Some(&Reply::Readable));
}

#[test]
fn without_a_leader_requests_wait_and_are_told_so_in_the_end() {
    let mut cluster = Cluster::new(3, 7);
    cluster.isolate(id(1));
    let (write, read) = (cluster.put(id(1), "k", "v"), cluster.read(id(1)));
    cluster.tick(59);
    assert_eq!((cluster.reply(write), cluster.reply(read)), (None, None));
    cluster.tick(1);
    assert_eq!(cluster.reply(write), Some(&Reply::NoLeader));
    assert_eq!(cluster.reply(read), Some(&Reply::TimedOut));
    cluster.cut.clear();
    cluster.tick(60);
    assert_eq!(cluster.get(id(1), "k"), None, "it was certainly not proposed");
}

#[test]
fn what_waits_for_a_leader_is_served_when_there_is_one() {
    let mut cluster = Cluster::new(3, 8);
    let (write, read) = (cluster.put(id(1), "k", "v"), cluster.read(id(2)));
    cluster.elect();
    cluster.tick(4);
    assert_eq!(put_at(cluster.reply(write)), Some(2));
    assert_eq!(cluster.reply(read), Some(&Reply::Readable));
}

#[test]
fn what_waits_for_a_leader_is_bounded() {
    let mut cluster = Cluster::new(3, 9);
    let value = "v".repeat(1000);
    let requests: Vec<RequestId> = (0..6).map(|_| cluster.put(id(1), "k", &value)).collect();
    let busy = |request: &&RequestId| cluster.reply(**request) == Some(&Reply::Busy);
    assert_eq!(requests.iter().filter(busy).count(), 3, "three of them fit");
    assert_eq!(cluster.reply(requests[0]), None, "the oldest keep their place");
}

#[test]
fn a_forward_that_is_lost_times_out() {
    let (mut cluster, _) = Cluster::led(3, 10);
    let follower = cluster.follower();
    let request = cluster.put(follower, "k", "v");
    assert_eq!(cluster.take(|envelope| is_forward(&envelope.message)).len(), 1);
    cluster.tick(60);
    assert_eq!(cluster.reply(request), Some(&Reply::TimedOut));
}

#[test]
fn a_forward_that_is_lost_with_its_connection_is_sent_again_on_the_next() {
    let (mut cluster, leader) = Cluster::led(3, 10);
    let follower = cluster.follower();
    let lost = cluster.put(follower, "k", "v");
    assert_eq!(cluster.take(|envelope| is_forward(&envelope.message)).len(), 1);
    // This one arrived, and what the leader had sent since did not.
    let taken = cluster.put(follower, "l", "v");
    let forward = cluster.take(|envelope| is_forward(&envelope.message)).pop().unwrap();
    cluster.round(leader, vec![Input::Peer(follower, forward.message)]);
    cluster.round(follower, vec![Input::Disconnected(leader)]);
    cluster.round(leader, vec![Input::Disconnected(follower)]);
    cluster.network.clear();
    cluster.round(leader, vec![Input::Connected(follower)]);
    cluster.round(follower, vec![Input::Connected(leader)]);
    cluster.settle();
    cluster.tick(2);
    for request in [lost, taken] {
        assert!(put_at(cluster.reply(request)).is_some(), "{:?}", cluster.reply(request));
    }
    assert_eq!(cluster.get(leader, "l").unwrap().version, 1, "proposed once");
    assert_eq!(cluster.leader(), Some(leader));
}

#[test]
fn a_refusal_that_is_lost_with_its_connection_is_said_again_on_the_next() {
    let (mut cluster, leader, follower, _) = handing_over(15);
    let request = cluster.put(follower, "k", "v");
    let forward = cluster.take(|envelope| is_forward(&envelope.message)).pop().unwrap();
    cluster.deliver(forward);
    assert_eq!(cluster.take(|envelope| is_refused(&envelope.message)).len(), 1);
    cluster.round(follower, vec![Input::Connected(leader)]);
    cluster.settle();
    cluster.tick(14);
    assert_eq!(put_at(cluster.reply(request)), Some(2));
}

#[test]
fn a_forward_that_was_not_sent_is_handed_over_again() {
    let (mut cluster, leader) = Cluster::led(3, 18);
    let follower = cluster.follower();
    let request = cluster.put(follower, "k", "v");
    let dropped = cluster.take(|envelope| is_forward(&envelope.message)).pop().unwrap();
    let refusal = dropped.message.refusal().unwrap();
    cluster.round(follower, vec![Input::NotSent(leader, refusal)]);
    cluster.tick(4);
    assert_eq!(put_at(cluster.reply(request)), Some(2));
}

/// The first copy was on the connection that broke, and may have arrived.
#[test]
fn a_second_copy_that_was_not_sent_says_nothing_of_the_first() {
    let (mut cluster, leader) = Cluster::led(3, 19);
    let follower = cluster.follower();
    let request = cluster.put(follower, "k", "v");
    let first = cluster.take(|envelope| is_forward(&envelope.message)).pop().unwrap();
    cluster.round(follower, vec![Input::Connected(leader)]);
    let second = cluster.take(|envelope| is_forward(&envelope.message)).pop().unwrap();
    let refusal = second.message.refusal().unwrap();
    cluster.round(follower, vec![Input::NotSent(leader, refusal)]);
    cluster.deliver(first);
    cluster.tick(4);
    assert_eq!(put_at(cluster.reply(request)), Some(2));
    assert_eq!(cluster.get(leader, "k").unwrap().version, 1, "proposed once");
}

#[test]
fn a_leader_that_is_heard_again_is_waited_for_as_long_as_ever() {
    let (mut cluster, leader) = Cluster::led(3, 16);
    let follower = cluster.follower();
    let request = cluster.put(follower, "k", "v");
    let forward = cluster.take(|envelope| is_forward(&envelope.message)).pop().unwrap();
    // For a moment the follower knows of no leader: its connection broke, and nobody answers it.
    cluster.round(follower, vec![Input::Disconnected(leader)]);
    while cluster.status(follower).leader.is_some() {
        cluster.round(follower, vec![Input::Tick]);
    }
    cluster.network.clear();
    // It is heard again, and what it is sent is lost again.
    for _ in 0..31 {
        for member in cluster.alive() {
            cluster.round(member, vec![Input::Tick]);
        }
        while !cluster.network.is_empty() {
            let envelope = cluster.network.remove(0);
            if !is_forward(&envelope.message) {
                cluster.deliver(envelope);
            }
        }
    }
    assert_eq!(cluster.status(follower).leader, Some(leader));
    assert_eq!(cluster.reply(request), None, "an election that did not happen is over by now");
    cluster.deliver(forward);
    cluster.tick(3);
    assert_eq!(put_at(cluster.reply(request)), Some(2));
}

/// The follower gives its leader up before it is connected again, and hears of it a moment later.
#[test]
fn a_forward_is_sent_again_to_a_leader_that_was_given_up_meanwhile() {
    let (mut cluster, leader) = Cluster::led(3, 10);
    let follower = cluster.follower();
    let lost = cluster.put(follower, "k", "v");
    assert_eq!(cluster.take(|envelope| is_forward(&envelope.message)).len(), 1);
    cluster.round(follower, vec![Input::Disconnected(leader)]);
    cluster.round(leader, vec![Input::Disconnected(follower)]);
    while cluster.status(follower).leader.is_some() {
        cluster.round(follower, vec![Input::Tick]);
    }
    cluster.network.clear();
    cluster.round(leader, vec![Input::Connected(follower)]);
    cluster.round(follower, vec![Input::Connected(leader)]);
    cluster.settle();
    cluster.tick(20);
    assert_eq!(cluster.leader(), Some(leader));
    assert!(put_at(cluster.reply(lost)).is_some(), "{:?}", cluster.reply(lost));
}

/// Whatever the disks and the clients do, what is admitted is bounded, and nothing is left of it.
#[test]
fn writes_count_until_they_are_applied_whether_somebody_waits_or_not() {
    let (mut cluster, leader) = Cluster::led(3, 17);
    let follower = cluster.follower();
    let value = "v".repeat(500);
    let mut requests = Vec::new();
    // All disks hang; what is sent arrives, clients at two members ask, and give up in the end.
    for round in 0..200 {
        for at in [leader, follower] {
            requests.push(cluster.put(at, &format!("{round}"), &value));
        }
        if round % 20 == 19 {
            let at = requests[requests.len() - 2];
            cluster.round(leader, vec![Input::Cancel(at)]);
        }
        for member in cluster.alive() {
            cluster.round(member, vec![Input::Tick]);
        }
        while !cluster.network.is_empty() {
            let envelope = cluster.network.remove(0);
            cluster.deliver(envelope);
        }
        for member in cluster.alive() {
            let bytes = cluster.status(member).unsettled_bytes;
            // Its own log, and one write more than fits.
            assert!(bytes < 4096 + 1000, "{bytes} bytes at {member} in round {round}");
        }
    }
    let count = |reply| requests.iter().filter(|r| cluster.reply(**r) == Some(&reply)).count();
    assert!(count(Reply::Busy) > 200 && count(Reply::TimedOut) + count(Reply::Lost) > 5);
    cluster.settle();
    cluster.elect();
    cluster.tick(80);
    for member in cluster.alive() {
        assert_eq!(cluster.status(member).unsettled_bytes, 0);
    }
    let request = cluster.put(follower, "k", "v");
    cluster.tick(4);
    assert!(put_at(cluster.reply(request)).is_some());
}

#[test]
fn a_forward_that_arrives_twice_is_proposed_once() {
    let (mut cluster, leader) = Cluster::led(3, 11);
    let follower = cluster.follower();
    let request = cluster.put(follower, "k", "v");
    let forward = cluster.take(|envelope| is_forward(&envelope.message)).pop().unwrap();
    for _ in 0..3 {
        cluster.deliver(forward.clone());
    }
    cluster.tick(4);
    assert_eq!(put_at(cluster.reply(request)), Some(2));
    // Again after it was applied, after a restart of its origin, and in a later term.
    cluster.deliver(forward.clone());
    cluster.crash(follower, || true);
    cluster.start(follower);
    cluster.deliver(forward.clone());
    cluster.tick(4);
    cluster.crash(leader, || true);
    cluster.start(leader);
    cluster.elect();
    cluster.tick(4);
    cluster.deliver(forward);
    cluster.tick(4);
    assert_eq!(cluster.get(leader, "k").unwrap().version, 1);
}

#[test]
fn forwards_that_arrive_in_another_order_are_all_proposed() {
    let (mut cluster, _) = Cluster::led(3, 12);
    let follower = cluster.follower();
    let requests: Vec<RequestId> =
        ["a", "b", "c"].map(|key| cluster.put(follower, key, "v")).into();
    cluster.network.reverse();
    cluster.tick(4);
    for request in requests {
        assert!(put_at(cluster.reply(request)).is_some());
    }
}

/// The leader hands over to a peer that does not answer, and refuses proposals meanwhile.
fn handing_over(seed: u64) -> (Cluster, raft::NodeId, raft::NodeId, RequestId) {
    let (mut cluster, leader) = Cluster::led(3, seed);
    let follower = cluster.follower();
    let deaf = cluster.alive().into_iter().find(|id| *id != leader && *id != follower).unwrap();
    cluster.cut = vec![(leader, deaf)];
    let request = cluster.request();
    cluster.round(leader, vec![Input::Transfer { request, to: Some(deaf) }]);
    (cluster, leader, follower, request)
}

#[test]
fn a_refused_forward_is_retried() {
    let (mut cluster, leader, follower, transfer) = handing_over(13);
    let requests: Vec<RequestId> = ["a", "b"].map(|key| cluster.put(follower, key, "v")).into();
    let own = cluster.put(leader, "c", "v");
    cluster.settle();
    assert!(requests.iter().chain([&own]).all(|request| cluster.reply(*request).is_none()));
    cluster.tick(14);
    let revisions: Vec<_> = requests.iter().map(|id| put_at(cluster.reply(*id)).unwrap()).collect();
    assert!(revisions.is_sorted(), "in order");
    assert!(put_at(cluster.reply(own)).is_some());
    cluster.tick(60);
    assert_eq!(cluster.reply(transfer), Some(&Reply::TimedOut));
}

#[test]
fn a_refusal_or_a_forward_that_arrives_late_changes_nothing() {
    let (mut cluster, leader, follower, _) = handing_over(14);
    let request = cluster.put(follower, "k", "v");
    let forward = cluster.take(|envelope| is_forward(&envelope.message)).pop().unwrap();
    cluster.deliver(forward.clone());
    let refused = cluster.take(|envelope| is_refused(&envelope.message)).pop().unwrap();
    cluster.deliver(refused.clone());
    cluster.deliver(refused.clone());
    // The origin forwards again at the next tick, under another number, until it is taken.
    cluster.tick(12);
    cluster.deliver(refused.clone());
    cluster.deliver(forward);
    cluster.tick(4);
    cluster.deliver(refused);
    cluster.tick(4);
    assert_eq!(put_at(cluster.reply(request)), Some(2));
    assert_eq!(cluster.get(leader, "k").unwrap().version, 1, "proposed once");
}

#[test]
fn nonsense_from_a_peer_is_not_proposed() {
    let (mut cluster, leader) = Cluster::led(3, 15);
    let follower = cluster.follower();
    let term = cluster.status(leader).term;
    let last = cluster.status(leader).last;
    let mut unknown = vec![1, 99];
    unknown.resize(40, 0);
    let mut stranger = vec![1, 1];
    stranger.resize(40, 0);
    let proposals = vec![Bytes::from_static(b"garbage"), unknown.into(), stranger.into()];
    let message = PeerMessage::Forward { term, proposals };
    cluster.round(leader, vec![Input::Peer(follower, message.clone())]);
    cluster.round(leader, vec![Input::Peer(id(99), message)]);
    assert_eq!(cluster.status(leader).last, last);
}

#[test]
fn a_cancelled_request_is_not_answered_and_still_takes_effect() {
    let (mut cluster, leader) = Cluster::led(3, 16);
    let (write, read) = (cluster.put(leader, "k", "v"), cluster.read(leader));
    cluster.round(leader, vec![Input::Cancel(write), Input::Cancel(read)]);
    cluster.tick(4);
    assert_eq!((cluster.reply(write), cluster.reply(read)), (None, None));
    assert_eq!(cluster.get(leader, "k").unwrap().value, "v");
    cluster.round(leader, vec![Input::Cancel(write)]);
}

#[test]
fn a_physical_compaction_is_answered_when_the_sweep_is_done_here() {
    let (mut cluster, leader) = Cluster::led(1, 17);
    for number in 0..2000 {
        cluster.put(leader, "k", &number.to_string());
        cluster.settle();
    }
    let logical = cluster.propose(leader, compact(20, false));
    let physical = cluster.propose(leader, compact(2000, true));
    let refused = cluster.propose(leader, compact(1000, true));
    cluster.settle();
    assert!(matches!(cluster.reply(refused), Some(Reply::Applied { outcome: Err(_), .. })));
    assert!(matches!(cluster.reply(logical), Some(Reply::Applied { outcome: Ok(_), .. })));
    let mut rounds = 0;
    while cluster.reply(physical).is_none() {
        cluster.round(leader, Vec::new());
        rounds += 1;
        assert!(rounds < 100, "it ends");
    }
    assert!(rounds >= 2, "in bounded steps");
    assert!(matches!(cluster.reply(physical), Some(Reply::Applied { outcome: Ok(_), .. })));
}

#[test]
fn a_body_that_is_not_of_its_kind_changes_nothing_anywhere() {
    let (mut cluster, leader) = Cluster::led(3, 18);
    // A publication's first field is a number; a put's is bytes.
    let body = Publish { member_id: 1, ..Publish::default() };
    let request = cluster.propose(leader, Proposal::new(Kind::Put, &body));
    cluster.tick(4);
    assert_eq!(cluster.reply(request), Some(&Reply::Malformed));
    for member in cluster.alive() {
        assert_eq!(cluster.contents(member), (1, Vec::new()));
        assert_eq!(cluster.status(member).applied, cluster.status(leader).applied);
    }
}

#[test]
fn a_publication_reaches_every_members_roster() {
    let (mut cluster, leader) = Cluster::led(3, 19);
    let follower = cluster.follower();
    let client_urls = vec!["http://127.0.0.1:2379".to_owned()];
    let publish = Publish { member_id: follower.0, name: "n".to_owned(), client_urls };
    let stranger = Publish { member_id: 77, ..publish.clone() };
    let request = cluster.propose(follower, Proposal::new(Kind::Publish, &publish));
    cluster.propose(leader, Proposal::new(Kind::Publish, &stranger));
    cluster.tick(4);
    assert_eq!(cluster.reply(request), Some(&Reply::Published));
    for member in cluster.alive() {
        let members = &cluster.life(member).published.members;
        assert_eq!(members.len(), 3);
        let found = members.iter().find(|member| member.id == follower).unwrap();
        assert_eq!((found.name.as_str(), &found.client_urls), ("n", &publish.client_urls));
    }
}

#[test]
fn a_transfer_is_answered_when_leadership_has_moved() {
    let (mut cluster, leader) = Cluster::led(3, 20);
    let follower = cluster.follower();
    let refused = cluster.request();
    cluster.round(follower, vec![Input::Transfer { request: refused, to: None }]);
    assert!(matches!(cluster.reply(refused), Some(Reply::TransferRefused(_))));
    let request = cluster.request();
    cluster.round(leader, vec![Input::Transfer { request, to: Some(follower) }]);
    assert_eq!(cluster.reply(request), None);
    cluster.tick(4);
    assert_eq!(cluster.reply(request), Some(&Reply::Transferred(follower)));
}

#[test]
fn a_restarted_member_replays_the_same_state() {
    let (mut cluster, _) = Cluster::led(3, 21);
    let follower = cluster.follower();
    for number in 0..30 {
        cluster.put(follower, &format!("k{}", number % 7), &number.to_string());
        cluster.tick(1);
    }
    cluster.propose(follower, compact(9, false));
    cluster.tick(4);
    let before = cluster.contents(follower);
    assert_eq!(before.0, 31);
    for member in cluster.alive() {
        cluster.crash(member, || false);
    }
    for number in 1..=3 {
        cluster.start(id(number));
    }
    cluster.elect();
    cluster.tick(10);
    for member in cluster.alive() {
        assert_eq!(cluster.contents(member), before);
        assert_eq!(cluster.life(member).published.view.compacted(), 9);
    }
}

#[test]
fn proposals_that_come_together_share_a_sync() {
    let (mut cluster, leader) = Cluster::led(1, 22);
    let before = cluster.slots[&leader].disk.syncs();
    for number in 0..50 {
        cluster.put(leader, &number.to_string(), "v");
    }
    cluster.settle();
    assert_eq!(cluster.contents(leader).0, 51);
    assert_eq!(cluster.slots[&leader].disk.syncs() - before, 1);
}

#[test]
#[should_panic(expected = "1@1: the log holds an entry of version 1, kind 77")]
fn an_entry_of_an_unknown_kind_stops_the_member() {
    let mut cluster = Cluster::new(1, 23);
    let mut payload = vec![0; 32];
    payload[..2].copy_from_slice(&[1, 77]);
    let at = Position::new(Term(1), Index(1));
    let entry = Entry { at, kind: EntryKind::Command, payload: payload.into() };
    let hard_state = Some(HardState { term: Term(1), vote: None });
    let persist = Persist {
        ticket: Ticket(1),
        hard_state,
        entries: vec![entry],
        commit: Index(1),
        then_send: Vec::new(),
    };
    let life = cluster.slots.get_mut(&id(1)).unwrap().life.as_mut().unwrap();
    life.write([persist]).unwrap();
    cluster.crash(id(1), || false);
    cluster.start(id(1));
    cluster.tick(40);
}

#[test]
fn the_same_inputs_give_the_same_outputs() {
    let run = || {
        let (mut cluster, _) = Cluster::led(3, 24);
        for member in cluster.alive() {
            cluster.put(member, "k", "v");
        }
        for member in cluster.alive() {
            cluster.round(member, vec![Input::Tick]);
        }
        format!("{:?}", cluster.network)
    };
    assert_eq!(run(), run());
}

#[test]
fn a_data_directory_of_another_member_is_refused() {
    let mut cluster = Cluster::new(1, 25);
    cluster.crash(id(1), || true);
    let disk = cluster.slots[&id(1)].disk.clone();
    let identity = wal::Identity { cluster: cluster::CLUSTER, member: 2 };
    let opened = replica::Storage::start(disk, identity, wal::Options::default(), 7);
    let line = opened.err().unwrap().to_string();
    assert!(line.contains("member 1, not 2"), "{line}");
}

#[test]
fn a_member_alone_answers_only_after_its_own_sync() {
    let (mut cluster, leader) = Cluster::led(1, 26);
    let request = cluster.put(leader, "k", "v");
    cluster.round(leader, vec![Input::Tick]);
    assert_eq!(cluster.reply(request), None, "it is not on disk yet");
    cluster.run_disk(leader);
    assert_eq!(put_at(cluster.reply(request)), Some(2));
}

#[test]
fn a_hand_over_loses_no_write_of_a_followers_clients() {
    let (mut cluster, leader) = Cluster::led(3, 27);
    let follower = cluster.follower();
    let target = cluster.alive().into_iter().find(|id| *id != leader && *id != follower).unwrap();
    let request = cluster.request();
    cluster.round(leader, vec![Input::Transfer { request, to: Some(target) }]);
    // The leader refuses while it hands over; the follower turns to the new one.
    let write = cluster.put(follower, "k", "v");
    let forward = cluster.take(|envelope| is_forward(&envelope.message)).pop().unwrap();
    cluster.deliver(forward);
    let refused = cluster.take(|envelope| is_refused(&envelope.message)).pop().unwrap();
    cluster.deliver(refused);
    cluster.settle();
    assert_eq!(cluster.leader(), Some(target));
    cluster.tick(4);
    assert!(put_at(cluster.reply(write)).is_some(), "{:?}", cluster.reply(write));
}

#[test]
fn what_a_peer_wanted_and_is_cut_off_by_now_is_nothing() {
    let cluster = Cluster::new(1, 28);
    let fetch = |purpose| {
        let (from, to, bytes_max) = (Index(7), Index(9), 100);
        cluster.life(id(1)).reader.fetch(raft::Fetch { purpose, from, to, bytes_max })
    };
    assert_eq!(fetch(raft::FetchFor::Peer(id(2))).unwrap(), []);
    assert!(fetch(raft::FetchFor::Apply).is_err(), "what is committed is there");
}

#[test]
fn a_forward_of_an_earlier_term_is_not_proposed_by_the_same_leader() {
    let (mut cluster, leader) = Cluster::led(3, 29);
    let follower = cluster.follower();
    let write = cluster.put(follower, "k", "v");
    let forward = cluster.take(|envelope| is_forward(&envelope.message)).pop().unwrap();
    cluster.deliver(forward.clone());
    cluster.tick(4);
    assert!(put_at(cluster.reply(write)).is_some());
    for to in [follower, leader] {
        let (from, request) = (cluster.leader().unwrap(), cluster.request());
        cluster.round(from, vec![Input::Transfer { request, to: Some(to) }]);
        cluster.tick(4);
        assert_eq!(cluster.leader(), Some(to));
    }
    cluster.deliver(forward);
    assert!(!cluster.network.iter().any(|envelope| is_refused(&envelope.message)), "nor refused");
    cluster.tick(4);
    assert_eq!(cluster.get(leader, "k").unwrap().version, 1);
}

/// A write of these entries, "index@term" each.
fn persist(ticket: u64, entries: &[(u64, u64)], vote: u64) -> Persist {
    let entry = |&(index, term): &(u64, u64)| Entry {
        at: Position::new(Term(term), Index(index)),
        kind: EntryKind::Command,
        payload: Bytes::from(format!("{index}@{term}")),
    };
    let term = entries.last().map_or(Term(9), |(_, term)| Term(*term));
    Persist {
        ticket: Ticket(ticket),
        hard_state: Some(HardState { term, vote: Some(id(vote)) }),
        entries: entries.iter().map(entry).collect(),
        commit: Index(1),
        then_send: Vec::new(),
    }
}

#[test]
fn writes_that_are_queued_together_replace_each_other_in_order() {
    let mut cluster = Cluster::new(1, 30);
    let life = cluster.slots.get_mut(&id(1)).unwrap().life.as_mut().unwrap();
    let before = life.writer.storage().syncs();
    let queued = [
        persist(1, &[(1, 1), (2, 1), (3, 1)], 1),
        persist(2, &[(3, 2), (4, 2), (5, 2)], 2),
        persist(3, &[(2, 3)], 3),
        persist(4, &[(3, 3)], 2),
    ];
    assert_eq!(life.write(queued).unwrap().ticket, Ticket(4));
    assert!(life.writer.storage().syncs() - before <= 5, "one batch, and META's four copies");
    let fetch = raft::Fetch {
        purpose: raft::FetchFor::Apply,
        from: Index(1),
        to: Index(3),
        bytes_max: 1000,
    };
    let found = life.reader.fetch(fetch).unwrap();
    let found: Vec<&[u8]> = found.iter().map(|entry| &entry.payload[..]).collect();
    assert_eq!(found, [b"1@1", b"2@3", b"3@3"]);
}

#[test]
fn term_vote_and_log_are_restored_after_a_loss_of_power() {
    let mut cluster = Cluster::new(1, 31);
    let life = cluster.slots.get_mut(&id(1)).unwrap().life.as_mut().unwrap();
    life.write([persist(1, &[(1, 1), (2, 1)], 1)]).unwrap();
    life.write([persist(2, &[], 3)]).unwrap();
    cluster.crash(id(1), || false);
    let disk = cluster.slots[&id(1)].disk.clone();
    let identity = wal::Identity { cluster: cluster::CLUSTER, member: 1 };
    let started = replica::Storage::start(disk, identity, wal::Options::default(), 7).unwrap();
    let restored = started.restored;
    assert_eq!(restored.hard_state, HardState { term: Term(9), vote: Some(id(3)) });
    let position = |index| Position::new(Term(1), Index(index));
    assert_eq!(restored.positions, [position(1), position(2)]);
    assert!(!started.is_new);
}

/// What peers forward and what own clients ask for in one round share the bound.
#[test]
fn forwards_and_own_writes_of_one_round_share_the_bound() {
    let (mut cluster, leader) = Cluster::led(3, 20);
    let follower = cluster.follower();
    let value = "v".repeat(500);
    for number in 0..7 {
        cluster.put(follower, &format!("{number}"), &value);
    }
    let forwards = cluster.take(|envelope| is_forward(&envelope.message));
    let mut inputs: Vec<Input> =
        forwards.into_iter().map(|forward| Input::Peer(follower, forward.message)).collect();
    for number in 0..7 {
        let (request, proposal) = (cluster.request(), cluster::put(&format!("{number}"), &value));
        inputs.push(Input::Propose { request, proposal });
    }
    cluster.round(leader, inputs);
    let bytes = cluster.status(leader).unsettled_bytes;
    assert!(bytes <= 4096, "{bytes} bytes");
}

/// Also where the leader had nothing before.
#[test]
fn forwards_of_all_peers_in_one_round_share_the_bound() {
    let (mut cluster, leader) = Cluster::led(5, 20);
    let value = "v".repeat(500);
    let followers: Vec<_> = cluster.alive().into_iter().filter(|id| *id != leader).collect();
    for follower in followers {
        for number in 0..7 {
            cluster.put(follower, &format!("{number}"), &value);
        }
    }
    let forwards = cluster.take(|envelope| is_forward(&envelope.message));
    let inputs = forwards.into_iter().map(|forward| Input::Peer(forward.from, forward.message));
    cluster.round(leader, inputs.collect());
    let bytes = cluster.status(leader).unsettled_bytes;
    assert!(bytes <= 4096, "{bytes} bytes");
}
