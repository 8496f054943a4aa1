//! What the surroundings can do to one member: a log that nobody reads. It does not keep the member
//! from serving.

// Tests may unwrap, and so may what only they use.
#![allow(clippy::unwrap_used)]

mod support;

use std::io::Read;
use std::net::TcpStream;
use std::process::{Child, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use bytes::Bytes;
use proto::etcdserverpb as pb;
use support::cluster::{Cluster, Kind, START_LIMIT};
use support::kv::{self, Connection};
use support::alone;

/// A put or get beside whatever keeps the member busy takes at most this.
const LIMIT: Duration = Duration::from_secs(10);

fn put(key: &str, value: impl Into<Bytes>) -> pb::PutRequest {
    pb::PutRequest { key: key.to_owned().into(), value: value.into(), ..Default::default() }
}

/// A member's process that this test started by itself; killed when dropped.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Process {
    /// Waits until it has ended.
    fn ended(&mut self) -> ExitStatus {
        let start = Instant::now();
        loop {
            if let Some(status) = self.0.try_wait().unwrap() {
                return status;
            }
            assert!(start.elapsed() < START_LIMIT, "it does not end");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Asks it to end, and waits until it has.
    fn terminate(&mut self) {
        let id = rustix::process::Pid::from_child(&self.0);
        rustix::process::kill_process(id, rustix::process::Signal::TERM).unwrap();
        self.ended();
    }
}

#[test]
fn a_log_that_nobody_reads_holds_nobody_up() {
    /// More lines than a pipe holds, one for each connection.
    const CONNECTIONS: usize = 3000;
    alone(async {
        let cluster = Cluster::new(Kind::RaftKv, 1, &["--log-level=debug"]);
        let member = &cluster.members[0];
        let child = member.command().stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let mut process = Process(child);
        let start = Instant::now();
        while !kv::answers(&member.endpoint()).await {
            assert!(start.elapsed() < START_LIMIT);
        }
        let connection = Connection::new(&member.endpoint(), LIMIT);
        for n in 0..CONNECTIONS {
            drop(TcpStream::connect(member.endpoint()).unwrap());
            if n % 100 == 0 {
                connection.put(put("key", "value")).await.unwrap();
            }
        }
        connection.put(put("key", "last")).await.unwrap();
        process.terminate();
        let mut log = String::new();
        process.0.stderr.take().unwrap().read_to_string(&mut log).unwrap();
        let lines = log.lines().count();
        assert!(lines < CONNECTIONS, "{lines} lines did not fill the pipe");
    });
}

#[test]
fn a_log_that_was_closed_ends_no_member() {
    alone(async {
        let cluster = Cluster::new(Kind::RaftKv, 1, &["--log-level=debug"]);
        let member = &cluster.members[0];
        let child = member.command().stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let mut process = Process(child);
        drop(process.0.stderr.take());
        let start = Instant::now();
        while !kv::answers(&member.endpoint()).await {
            assert!(process.0.try_wait().unwrap().is_none(), "it ended");
            assert!(start.elapsed() < START_LIMIT);
        }
        process.terminate();
    });
}
