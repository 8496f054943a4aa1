//! Slow links between members: large values take seconds, and cost neither the leader nor a request.
//!
//! The links are virtual, between network namespaces. Where those may not be made, or `ip` or `tc` is
//! missing, the test skips, and says so.

// Tests may unwrap, and so may what only they use.
#![allow(clippy::unwrap_used)]

mod support;

use std::time::{Duration, Instant};

use proto::etcdserverpb as pb;
use support::cluster::{Cluster, Kind};
use support::kv::{Connection, status};
use support::network::Network;
use support::{alone, peer, say};

/// What passes from each member to each other one in a second.
const LINK_BYTES: u64 = 1_000_000;
/// A value takes longer to pass a link than anybody waits for a heartbeat.
const VALUE_BYTES: usize = 1_400_000;
const DURATION: Duration = Duration::from_secs(20);

#[test]
fn large_values_over_slow_links_cost_no_leader_and_no_put() {
    let test = "large_values_over_slow_links_cost_no_leader_and_no_put";
    alone(async {
        let network = match Network::enter(3) {
            Ok(network) => network,
            Err(why) => return peer::skip(test, &why),
        };
        if let Err(why) = network.limit(LINK_BYTES) {
            return peer::skip(test, &why);
        }
        let mut cluster = Cluster::at(Kind::under_test(), &network.hosts(), &[]);
        for (n, member) in cluster.members.iter_mut().enumerate() {
            member.wrapper = network.wrapper(n);
            member.start();
        }
        cluster.serves().await;
        let leader = cluster.leader().await;
        let before = term(&cluster).await;

        let (mut done, mut failed, mut slowest) = (0, Vec::new(), Duration::ZERO);
        let start = Instant::now();
        let endpoints = cluster.endpoints();
        let connections: Vec<_> =
            endpoints.iter().map(|at| Connection::new(at, Duration::from_secs(30))).collect();
        let reads = tokio::spawn(slowest_read(endpoints[leader].clone()));
        for (n, connection) in connections.iter().cycle().enumerate() {
            if start.elapsed() > DURATION {
                break;
            }
            let value = vec![n as u8; VALUE_BYTES].into();
            let put = pb::PutRequest { key: "key".into(), value, ..Default::default() };
            let asked = Instant::now();
            match connection.put(put).await {
                Ok(_) => done += 1,
                Err(status) => failed.push(status.to_string()),
            }
            slowest = slowest.max(asked.elapsed());
        }
        let after = term(&cluster).await;
        let read = reads.await.unwrap();
        say(format!(
            "slow_link: {done} puts of {VALUE_BYTES} bytes, the slowest took {slowest:?}; {} failed; \
             the slowest read at the leader meanwhile took {read:?}; {} leader changes",
            failed.len(),
            after - before
        ));
        assert!(failed.is_empty(), "puts failed: {failed:#?}");
        assert_eq!(after, before, "the leader changed");
        // What was made first goes last: the processes, then the namespaces they are in.
    });
}

/// Asks the leader for linearizable reads while values are put, and returns what the slowest took: a
/// heartbeat to some follower, and its answer. (At a follower a read may wait for a whole value.)
async fn slowest_read(endpoint: String) -> Duration {
    let connection = Connection::new(&endpoint, Duration::from_secs(30));
    let start = Instant::now();
    let mut slowest = Duration::ZERO;
    while start.elapsed() < DURATION {
        let asked = Instant::now();
        let range = pb::RangeRequest { key: "other".into(), ..Default::default() };
        if let Err(status) = connection.range(range).await {
            say(format!("slow_link: a read failed: {status}"));
        }
        slowest = slowest.max(asked.elapsed());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    slowest
}

/// The latest term that any member knows.
async fn term(cluster: &Cluster) -> u64 {
    let mut latest = 0;
    for endpoint in cluster.endpoints() {
        latest = latest.max(status(&endpoint).await.map_or(0, |status| status.raft_term));
    }
    latest
}
