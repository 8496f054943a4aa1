//! A disk that stalls holds up writes, and nothing else: reads go on.
//!
//! The stall is made from outside: the member runs under `strace`, which holds every
//! sync, and write that is one, after the first hundred for two seconds. Where there is no `strace`, or it
//! may not trace, the test skips, and says so.

// Tests may unwrap, and so may what only they use.
#![allow(clippy::unwrap_used)]

mod support;

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use proto::etcdserverpb as pb;
use support::cluster::{Cluster, Kind, member_serves};
use support::kv::Connection;
use support::{alone, say};

/// How long one sync takes once the disk stalls, in microseconds.
const STALL_MICROS: u64 = 2_000_000;
/// A read that waited for a sync would take longer.
const READ_LIMIT: Duration = Duration::from_millis(700);

fn strace_works() -> bool {
    let inject = "--inject=pwritev2:delay_enter=1:when=1000+";
    Command::new("strace")
        .args(["-f", "--trace=pwritev2", inject, "--", "true"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

fn put(n: u64) -> pb::PutRequest {
    pb::PutRequest { key: "key".into(), value: n.to_string().into(), ..Default::default() }
}

#[test]
fn reads_go_on_while_the_disk_stalls() {
    if !strace_works() {
        return say(
            "SKIP reads_go_on_while_the_disk_stalls: there is no strace here that may trace",
        );
    }
    alone(async {
        let mut cluster = Cluster::new(Kind::under_test(), 1, &[]);
        let inject =
            format!("--inject=fdatasync,fsync,pwritev2:delay_enter={STALL_MICROS}:when=100+");
        // With -D the tracer is the grandchild: the process that we start is the member.
        let wrapper = ["strace", "-D", "-f", "-q", "-o", "/dev/null"];
        let trace = ["--seccomp-bpf", "--trace=fdatasync,fsync,pwritev2", &inject, "--"];
        cluster.members[0].wrapper = wrapper.iter().chain(&trace).map(|&s| s.to_owned()).collect();
        cluster.members[0].start();
        member_serves(&mut cluster.members[0]).await;
        let connection = Connection::new(&cluster.endpoints()[0], Duration::from_secs(30));
        let written = until_it_stalls(&connection).await;

        let writer = connection.clone();
        let write = tokio::spawn(async move {
            let start = Instant::now();
            writer.put(put(written + 1)).await.unwrap();
            start.elapsed()
        });
        let mut reads = Vec::new();
        while !write.is_finished() {
            let start = Instant::now();
            let range = pb::RangeRequest { key: "key".into(), ..Default::default() };
            connection.range(range).await.unwrap();
            reads.push(start.elapsed());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let stalled = write.await.unwrap();
        let slowest = reads.iter().max().unwrap();
        say(format!(
            "stall: a put took {stalled:?}; {} reads meanwhile, {slowest:?} at most",
            reads.len()
        ));
        assert!(stalled > READ_LIMIT, "the disk did not stall");
        assert!(*slowest < READ_LIMIT, "a read took {slowest:?} while the disk stalled");
    });
}

/// Puts until one takes as long as a stalled sync; returns how many were put.
async fn until_it_stalls(connection: &Connection) -> u64 {
    for n in 0..300 {
        let start = Instant::now();
        connection.put(put(n)).await.unwrap();
        if start.elapsed() > Duration::from_micros(STALL_MICROS / 2) {
            return n;
        }
    }
    panic!("strace delays no sync");
}
