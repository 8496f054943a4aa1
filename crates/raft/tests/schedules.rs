//! Random schedules: messages lost, doubled, reordered; disks slow; members killed; leadership
//! handed over; reads and writes all the while. The oracle of `cluster` checks every step, and
//! every run ends in calm weather, in which the cluster must get its work done.
//!
//! `RAFT_SEED=n cargo test -p raft --test schedules` repeats one run.

#![allow(clippy::unwrap_used, reason = "a test that is wrong may die")]

mod cluster;

use cluster::Cluster;
use raft::{NodeId, RoleName};

/// A sequence of numbers that a seed fixes (splitmix64).
struct Chance(u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound.max(1) as u64) as usize
    }

    fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }
}

/// The weather of one run.
struct Weather {
    loss: usize,
    copies: usize,
    crashes: usize,
    /// One in so many crashes loses the disk, or puts an older copy in its place.
    losses: Option<usize>,
    /// Which members' messages are lost, by (from, to); redrawn now and then.
    cut: Vec<(NodeId, NodeId)>,
}

#[test]
fn every_schedule_is_safe_and_calm_weather_brings_progress() {
    let seeds = match std::env::var("RAFT_SEED") {
        Ok(seed) => vec![seed.parse().expect("RAFT_SEED is a number")],
        Err(_) => (0..count()).collect(),
    };
    let (mut applied, mut reads) = (0, 0);
    for seed in seeds {
        let outcome = std::panic::catch_unwind(|| run(seed));
        match outcome {
            Ok((entries, confirmed)) => {
                applied += entries;
                reads += confirmed;
            }
            Err(_) => panic!("RAFT_SEED={seed} cargo test -p raft --test schedules"),
        }
    }
    eprintln!("{applied} entries applied, {reads} reads confirmed");
    assert!(applied > 0 && reads > 0, "the runs do something");
}

fn count() -> u64 {
    std::env::var("RAFT_SEEDS").ok().and_then(|n| n.parse().ok()).unwrap_or(1000)
}

fn run(seed: u64) -> (usize, u64) {
    let mut chance = Chance(seed);
    let size = [1, 2, 3, 3, 3, 5][chance.below(6)];
    let small = chance.one_in(2);
    let (pre_vote, check_quorum) = (!chance.one_in(4), !chance.one_in(4));
    let named = !chance.one_in(4);
    let mut cluster = Cluster::with_names(size, named, |config| {
        config.seed = seed;
        config.pre_vote = pre_vote;
        config.check_quorum = check_quorum;
        if small {
            // Tiny limits: one entry per append, two in flight, nothing kept in memory.
            config.append_bytes_max = 1;
            config.inflight_bytes_max = 80;
            config.tail_bytes_max = 1;
        }
    });
    let mut weather = Weather {
        loss: [3, 10, 100, 1000][chance.below(4)],
        copies: [5, 20, 100][chance.below(3)],
        crashes: [50, 300, 2000][chance.below(3)],
        losses: (named && size > 2).then(|| [2, 10][chance.below(2)]),
        cut: Vec::new(),
    };
    for step in 0..6000 {
        storm(&mut cluster, &mut chance, &mut weather, step);
    }
    calm(&mut cluster);
    cluster.achievements()
}

fn storm(cluster: &mut Cluster, chance: &mut Chance, weather: &mut Weather, step: u64) {
    cluster.trace.clear();
    let ids = cluster.ids();
    let id = ids[chance.below(ids.len())];
    let runs = cluster.members[&id].node.is_some();
    match chance.below(20) {
        0..=9 if !cluster.network.is_empty() => deliver(cluster, chance, weather),
        10..=12 if runs => cluster.tick(id),
        13 | 14 => {
            cluster.sync(id);
        }
        15 => propose(cluster, chance, step),
        16 if runs => {
            let _ = cluster.read(id, step);
        }
        17 if !runs => cluster.restart(id),
        18 if runs && chance.one_in(weather.crashes / 10) => {
            cluster.crash(id);
            if weather.losses.is_some_and(|losses| chance.one_in(losses)) {
                lose_disk(cluster, chance, id);
            }
        }
        19 if runs => mischief(cluster, chance, weather, id),
        _ => {}
    }
}

/// Of a minority, and not before a majority of the others count, as all of those know: a cluster that
/// has just begun needs those that it began with, and one of which a majority is empty cannot be told
/// from one that never ran. An older copy is told from its
/// original by those that know of a later life of it.
fn lose_disk(cluster: &mut Cluster, chance: &mut Chance, id: NodeId) {
    if !cluster.lost.contains(&id) && cluster.lost.len() + 1 > (cluster.ids().len() - 1) / 2 {
        return;
    }
    let others = || cluster.members.iter().filter(|(other, _)| **other != id);
    let copy = cluster.members[&id].copy.incarnation;
    let knows_later = |disk: &cluster::DiskImage| {
        disk.committed_life(id).is_some_and(|life| life.start > copy.start)
    };
    let whole = || others().filter(|(other, _)| !cluster.lost.contains(other));
    let knows = |of: NodeId| whole().all(|(_, m)| m.disk.committed_life(of).is_some());
    let has_quorum = whole().filter(|(other, _)| knows(**other)).count() > cluster.ids().len() / 2;
    if chance.one_in(2) && copy.start > 0 && others().all(|(_, member)| knows_later(&member.disk)) {
        cluster.restore(id);
    } else if has_quorum {
        cluster.wipe(id);
    } else {
        return;
    }
    cluster.lost.insert(id);
    // Connections are between processes: what the former disk sent, or was sent, ends with them.
    // What waits for the disks of others does not.
    cluster.network.retain(|message| message.to != id && message.from != id);
    for other in cluster.ids() {
        cluster.with(other, |node| node.connected(id));
    }
}

/// Mostly to whoever leads: others refuse.
fn propose(cluster: &mut Cluster, chance: &mut Chance, step: u64) {
    let ids = cluster.ids();
    let leads = |id: &NodeId| cluster.status(*id).is_some_and(|s| s.role == RoleName::Leader);
    let leaders: Vec<NodeId> = ids.iter().copied().filter(leads).collect();
    if !leaders.is_empty() {
        let id = leaders[chance.below(leaders.len())];
        let _ = cluster.propose(id, &format!("{step}"));
    }
}

fn deliver(cluster: &mut Cluster, chance: &mut Chance, weather: &Weather) {
    // Mostly the oldest ones, and now and then one that overtakes many.
    let reach = 1 + chance.below(12);
    let n = chance.below(cluster.network.len().min(reach));
    let message = &cluster.network[n];
    if chance.one_in(weather.loss) || weather.cut.contains(&(message.from, message.to)) {
        cluster.network.remove(n);
        return;
    }
    if chance.one_in(weather.copies) {
        let copy = message.clone();
        cluster.network.push(copy);
    }
    cluster.deliver(n);
}

fn mischief(cluster: &mut Cluster, chance: &mut Chance, weather: &mut Weather, id: NodeId) {
    let ids = cluster.ids();
    let peer = ids[chance.below(ids.len())];
    match chance.below(12) {
        0 => cluster.member(id).slow = true,
        1 => {
            cluster.member(id).slow = false;
            while cluster.sync(id) {}
        }
        2 => {
            cluster.with(id, |node| node.transfer((peer != id).then_some(peer)));
        }
        3 => {
            cluster.with(id, |node| node.disconnected(peer));
        }
        4 => weather.cut.clear(),
        5 => weather.cut.push((id, peer)),
        6 if !cluster.lost.contains(&id) => cluster.backup(id),
        _ => {}
    }
}

/// Everybody runs, nothing is lost: a leader must emerge, and a new command must be applied by
/// all, and a read be confirmed.
fn calm(cluster: &mut Cluster) {
    for id in cluster.ids() {
        cluster.member(id).slow = false;
        while cluster.sync(id) {}
        if cluster.members[&id].node.is_none() {
            cluster.restart(id);
        }
    }
    let mut proposed = None;
    for round in 0..400 {
        cluster.trace.clear();
        for id in cluster.ids() {
            cluster.tick(id);
        }
        while !cluster.network.is_empty() {
            cluster.deliver(0);
        }
        let leads = |id: &NodeId| cluster.status(*id).unwrap().role == RoleName::Leader;
        let leader = cluster.ids().into_iter().find(leads);
        if let (None, Some(leader), true) = (proposed, leader, round > 100) {
            proposed = cluster.propose(leader, "calm").ok();
            let _ = cluster.read(leader, u64::MAX);
        }
        let everywhere = |at: raft::Position| {
            let whole = cluster.members.iter().filter(|(id, _)| !cluster.lost.contains(id));
            whole.into_iter().all(|(_, member)| member.applied.iter().any(|e| e.at == at))
        };
        if proposed.is_some_and(everywhere) {
            return;
        }
    }
    for (id, member) in &cluster.members {
        let restored = member.disk.restored();
        eprintln!(
            "n{id} {:?} {:?} {} {:?} commit {} lost {}",
            member.disk.hard_state,
            cluster.status(*id),
            member.disk.incarnation,
            restored.admissions,
            restored.commit,
            cluster.lost.contains(id)
        );
    }
    panic!("no progress in calm weather");
}
