//! What clients and the surroundings can do to one member: too many connections, a log that nobody
//! reads. It neither ends the member nor keeps it from serving others.

// Tests may unwrap, and so may what only they use.
#![allow(clippy::unwrap_used)]

mod support;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::{Child, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use bytes::Bytes;
use proto::etcdserverpb as pb;
use support::alone;
use support::cluster::{Cluster, Kind, Member, START_LIMIT};
use support::kv::{self, Connection};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

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

/// Runs the member's command line with so many open files: the soft limit, then the hard one.
fn with_open_files(soft: u32, hard: u32) -> Vec<String> {
    let script = format!("ulimit -Sn {soft} && ulimit -Hn {hard} && exec \"$0\" \"$@\"");
    ["sh", "-c", &script].map(str::to_owned).to_vec()
}

/// What the member says to a client that says this first.
fn answer_to(member: &Member, words: &[u8]) -> Vec<u8> {
    let mut socket = TcpStream::connect(member.endpoint()).unwrap();
    socket.set_read_timeout(Some(LIMIT)).unwrap();
    // It may be closed already: what it said is there all the same.
    let _ = socket.write_all(words);
    let mut answer = Vec::new();
    let mut buffer = [0; 1000];
    while let Ok(n) = socket.read(&mut buffer)
        && n > 0
    {
        answer.extend_from_slice(&buffer[..n]);
        if answer.windows(8).any(|window| window == b"too many") {
            break;
        }
    }
    answer
}

fn contains(answer: &[u8], text: &str) -> bool {
    answer.windows(text.len()).any(|window| window == text.as_bytes())
}

#[test]
fn idle_connections_leave_the_member_its_own_files() {
    const SEGMENT_BYTES: usize = 64 << 20;
    const VALUE_BYTES: usize = 1_400_000;
    alone(async {
        let mut cluster = Cluster::new(Kind::RaftKv, 3, &[]);
        for member in &mut cluster.members {
            member.wrapper = with_open_files(40, 300);
            member.start();
        }
        cluster.serves().await;
        let leader = cluster.leader().await;
        let connection = Connection::new(&cluster.endpoints()[leader], LIMIT);
        connection.put(put("key", "value")).await.unwrap();

        let mut idle = Vec::new();
        for member in &cluster.members {
            for _ in 0..400 {
                idle.push(TcpStream::connect(member.endpoint()).unwrap());
                idle.push(TcpStream::connect(("127.0.0.1", member.peer_port)).unwrap());
            }
        }
        // Segments are rolled meanwhile.
        for _ in 0..2 * SEGMENT_BYTES / VALUE_BYTES {
            connection.put(put("key", vec![b'v'; VALUE_BYTES])).await.unwrap();
        }
        let member = &cluster.members[leader];
        let told = answer_to(member, PREFACE);
        assert!(contains(&told, "too many connections"), "HTTP/2: {told:?}");
        let told = answer_to(member, b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n");
        assert!(contains(&told, "503 Service Unavailable"), "HTTP/1: {told:?}");
        assert!(member.log().contains("refused connections"), "the log does not say so");
        assert!(member.log().lines().count() < 100, "the log is flooded");

        drop(idle);
        cluster.serves().await;
    });
}

#[test]
fn too_few_open_files_are_said_at_once() {
    let mut cluster = Cluster::new(Kind::RaftKv, 1, &[]);
    cluster.members[0].wrapper = with_open_files(40, 100);
    let mut command = cluster.members[0].command();
    let child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let mut process = Process(child);
    assert!(!process.ended().success());
    let mut stderr = String::new();
    process.0.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
    assert!(stderr.contains("open files") && stderr.lines().count() == 1, "{stderr}");
    assert!(!cluster.members[0].data_dir().exists(), "the disk was touched");
}
