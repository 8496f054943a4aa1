//! A member whose disk was lost, or replaced by an older copy, has forgotten what it promised: it
//! elects nobody and acknowledges nothing, in whatever order the members start. With real processes;
//! `docs/raft.md`, "Admissions", has the rules.

// Tests may unwrap, and so may what only they use.
#![allow(clippy::unwrap_used)]

mod support;

use std::path::Path;
use std::time::{Duration, Instant};

use proto::etcdserverpb as pb;
use support::alone;
use support::cluster::{Cluster, Kind, Member, START_LIMIT, member_serves};
use support::kv::Connection;

/// The members by their parts: whose disk goes, who lags and is whole, who has everything.
const LOST: usize = 0;
const LAGGING: usize = 1;
const WHOLE: usize = 2;

async fn put(cluster: &Cluster, at: usize, value: &str) {
    let connection = Connection::new(&cluster.endpoints()[at], Duration::from_secs(10));
    let (key, value) = ("key".into(), value.to_owned().into());
    connection.put(pb::PutRequest { key, value, ..Default::default() }).await.unwrap();
}

async fn get(cluster: &Cluster, at: usize) -> String {
    let connection = Connection::new(&cluster.endpoints()[at], Duration::from_secs(10));
    let request = pb::RangeRequest { key: "key".into(), ..Default::default() };
    let answer = connection.range(request).await.unwrap();
    String::from_utf8(answer.kvs[0].value.to_vec()).unwrap()
}

/// Waits until a member has said something in its log, after what it had said before.
async fn says(member: &Member, what: &str, after: usize) {
    let start = Instant::now();
    while !member.log()[after..].contains(what) {
        assert!(start.elapsed() < START_LIMIT, "{} never says {what:?}", member.name);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Three members of which one lags behind an acknowledged write; `lose` changes the disk of another one
/// when all have stopped. The two that then start together may not elect; the third has the write.
async fn outlives(cluster: &mut Cluster, lose: impl FnOnce(&Path)) {
    put(cluster, WHOLE, "first").await;
    cluster.members[LAGGING].kill();
    put(cluster, WHOLE, "kept").await;
    assert_eq!(get(cluster, LOST).await, "kept");
    cluster.members[WHOLE].kill();
    cluster.members[LOST].kill();
    lose(&cluster.members[LOST].data_dir());
    let before = [LOST, LAGGING].map(|at| cluster.members[at].log().len());
    cluster.members[LAGGING].start();
    cluster.members[LOST].start();
    // The whole one says who is kept out and why, the other that it is; both wait.
    says(&cluster.members[LAGGING], "already been bootstrapped with another log", before[1]).await;
    says(&cluster.members[LAGGING], "waits for a leader", before[1]).await;
    for (at, before) in [LOST, LAGGING].into_iter().zip(before) {
        assert!(cluster.members[at].is_running());
        assert!(!cluster.members[at].log()[before..].contains("this member leads"));
    }
    cluster.members[WHOLE].start();
    for at in [WHOLE, LAGGING] {
        member_serves(&mut cluster.members[at]).await;
        assert_eq!(get(cluster, at).await, "kept");
    }
    put(cluster, LAGGING, "more").await;
    assert_eq!(get(cluster, WHOLE).await, "more");
    assert!(!cluster.members[LOST].log()[before[0]..].contains("ready to serve client requests"));
}

#[test]
fn a_disk_that_was_lost_elects_nobody() {
    if Kind::under_test() != Kind::RaftKv {
        return;
    }
    alone(async {
        let mut cluster = Cluster::start(Kind::RaftKv, 3, &[]).await;
        outlives(&mut cluster, |data| std::fs::remove_dir_all(data).unwrap()).await;
    });
}

#[test]
fn an_older_copy_of_a_disk_elects_nobody() {
    if Kind::under_test() != Kind::RaftKv {
        return;
    }
    alone(async {
        let mut cluster = Cluster::start(Kind::RaftKv, 3, &[]).await;
        // A copy of a member that stopped, as backups are made; then it starts and stops again.
        cluster.members[LOST].terminate();
        let data = cluster.members[LOST].data_dir();
        let copy = data.with_extension("copy");
        copy_files(&data, &copy);
        cluster.members[LOST].start();
        member_serves(&mut cluster.members[LOST]).await;
        let restored = copy.clone();
        outlives(&mut cluster, move |data| {
            std::fs::remove_dir_all(data).unwrap();
            copy_files(&restored, data);
        })
        .await;
    });
}

fn copy_files(from: &Path, to: &Path) {
    std::fs::create_dir(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}
