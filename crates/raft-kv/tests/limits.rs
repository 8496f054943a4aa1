//! What clients and the surroundings can do to one member: too many connections, answers that nobody
//! takes, reads that take long, a log that nobody reads. None of it ends the member, makes it grow
//! beyond a bound, or keeps it from serving others.

// Tests may unwrap, and so may what only they use.
#![allow(clippy::unwrap_used)]

mod support;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::{Child, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use bytes::{BufMut, Bytes, BytesMut};
use prost::Message;
use proto::etcdserverpb as pb;
use support::cluster::{Cluster, Kind, Member, START_LIMIT, member_serves};
use support::kv::{self, Connection};
use support::{alone, say};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

/// A put or get beside whatever keeps the member busy takes at most this.
const LIMIT: Duration = Duration::from_secs(10);

fn put(key: &str, value: impl Into<Bytes>) -> pb::PutRequest {
    pb::PutRequest { key: key.to_owned().into(), value: value.into(), ..Default::default() }
}

fn get(key: &str) -> pb::RangeRequest {
    pb::RangeRequest { key: key.to_owned().into(), ..Default::default() }
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

/// Waits until one who says `words` is told `text`. Few are told at a time; others find a closed door
/// without a word.
fn is_told(member: &Member, words: &[u8], text: &str) {
    let start = Instant::now();
    loop {
        let told = answer_to(member, words);
        if contains(&told, text) {
            return;
        }
        assert!(start.elapsed() < LIMIT, "nobody is told {text:?}, but {told:?}");
        std::thread::sleep(Duration::from_millis(100));
    }
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
        is_told(member, PREFACE, "too many connections");
        is_told(member, b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n", "503 Service Unavailable");
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

/// Peak of the process's resident memory, in bytes.
fn peak_memory(id: u32) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{id}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    let kilobytes: usize = line.split_whitespace().nth(1).unwrap().parse().unwrap();
    kilobytes << 10
}

fn framed(message: &impl Message) -> Bytes {
    let mut frame = BytesMut::new();
    frame.put_u8(0);
    frame.put_u32(message.encoded_len() as u32);
    message.encode(&mut frame).unwrap();
    frame.freeze()
}

/// Asks many times on one connection, and takes nothing of the answers. Returns what keeps the
/// requests open.
async fn ask_and_take_nothing(
    endpoint: &str,
    path: &str,
    message: Bytes,
    times: usize,
) -> Vec<h2::client::ResponseFuture> {
    let socket = tokio::net::TcpStream::connect(endpoint).await.unwrap();
    let (mut calls, connection) = h2::client::handshake(socket).await.unwrap();
    tokio::spawn(connection);
    let mut open = Vec::new();
    for _ in 0..times {
        let request = http::Request::post(format!("http://{endpoint}{path}"))
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(())
            .unwrap();
        // The member may allow no more at once.
        let Ok(ready) = tokio::time::timeout(Duration::from_secs(1), calls.ready()).await else {
            break;
        };
        calls = ready.unwrap();
        let (response, mut body) = calls.send_request(request, false).unwrap();
        body.send_data(message.clone(), true).unwrap();
        open.push(response);
    }
    open
}

const MEGABYTE: usize = 1 << 20;

#[test]
fn answers_that_nobody_takes_are_bounded() {
    const CONNECTIONS: usize = 6;
    const REQUESTS: usize = 300;
    /// The budget of each connection in MiB, and what a member holds besides.
    const BOUND: usize = (CONNECTIONS * 16 + 200) * MEGABYTE;
    alone(async {
        let mut cluster = Cluster::start(Kind::RaftKv, 1, &[]).await;
        let member = &cluster.members[0];
        let connection = Connection::new(&member.endpoint(), LIMIT);
        connection.put(put("large", vec![b'v'; MEGABYTE])).await.unwrap();
        let mut greedy = Vec::new();
        let stream = pb::RangeRequest { range_end: "\0".into(), ..get("large") };
        let reads =
            pb::RequestOp { request: Some(pb::request_op::Request::RequestRange(get("large"))) };
        let txn = pb::TxnRequest { success: vec![reads], ..Default::default() };
        let previous = pb::PutRequest { prev_kv: true, ..put("large", vec![b'v'; MEGABYTE]) };
        for (path, message, times) in [
            ("Range", framed(&get("large")), REQUESTS),
            ("Range", framed(&pb::RangeRequest { serializable: true, ..get("large") }), REQUESTS),
            ("Txn", framed(&txn), REQUESTS),
            ("RangeStream", framed(&stream), REQUESTS),
            ("Put", framed(&previous), 60),
            ("Range", framed(&get("nothing")), 50 * REQUESTS),
        ] {
            let path = format!("/etcdserverpb.KV/{path}");
            greedy.push(ask_and_take_nothing(&member.endpoint(), &path, message, times).await);
        }
        for n in 0..100 {
            connection.put(put("small", n.to_string())).await.unwrap();
            let found = connection.range(get("small")).await.unwrap();
            assert_eq!(found.kvs[0].value, n.to_string());
        }
        let found = connection.range(get("large")).await.unwrap();
        assert_eq!(found.kvs[0].value.len(), MEGABYTE);
        let peak = peak_memory(member.process_id());
        say(format!("limits: answers that nobody takes: peak of {} MiB", peak / MEGABYTE));
        assert!(peak < BOUND, "the member grew to {} MiB", peak / MEGABYTE);
        drop(greedy);
        member_serves(&mut cluster.members[0]).await;
    });
}

#[test]
fn a_long_read_keeps_nobody_waiting() {
    const KEYS: usize = 20_000;
    const IN_ONE_TXN: usize = 100;
    const READS: usize = 4;
    alone(async {
        let cluster = Cluster::start(Kind::RaftKv, 1, &["--network-threads=1"]).await;
        let member = &cluster.members[0];
        let connection = Connection::new(&member.endpoint(), Duration::from_secs(60));
        for first in (0..KEYS).step_by(IN_ONE_TXN) {
            let puts = (first..first + IN_ONE_TXN).map(|n| {
                let request = put(&format!("key-{n:06}"), format!("{:06}", n * 7919 % KEYS));
                let request = Some(pb::request_op::Request::RequestPut(request));
                pb::RequestOp { request }
            });
            let txn = pb::TxnRequest { success: puts.collect(), ..Default::default() };
            connection.txn(txn).await.unwrap();
        }
        let all = pb::RangeRequest {
            key: "key".into(),
            range_end: "kez".into(),
            sort_target: pb::range_request::SortTarget::Value.into(),
            sort_order: pb::range_request::SortOrder::Descend.into(),
            limit: 1,
            ..Default::default()
        };
        let op = pb::RequestOp { request: Some(pb::request_op::Request::RequestRange(all)) };
        let txn = pb::TxnRequest { success: vec![op; 127], ..Default::default() };
        let reads: Vec<_> = (0..READS)
            .map(|_| {
                let (reader, txn) = (connection.clone(), txn.clone());
                tokio::spawn(async move { reader.txn(txn).await.unwrap() })
            })
            .collect();
        let others = Connection::new(&member.endpoint(), Duration::from_secs(60));
        let mut meanwhile = 0;
        while !reads.iter().all(tokio::task::JoinHandle::is_finished) {
            others.put(put("other", "value")).await.unwrap();
            others.range(get("other")).await.unwrap();
            meanwhile += 1;
        }
        for read in reads {
            assert_eq!(read.await.unwrap().responses.len(), 127);
        }
        say(format!("limits: {meanwhile} puts and gets beside {READS} long reads"));
        // Were they on the thread that serves the others, these would come between two at best.
        assert!(meanwhile > 2 * READS, "only {meanwhile} puts and gets beside {READS} long reads");
    });
}
