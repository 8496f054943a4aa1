//! Nonsense from the command line, from disk, from peers and from clients: one line
//! and an exit code, or an error to whom it came from; never a member that stops.

// Tests may unwrap, and so may what only they use.
#![allow(clippy::unwrap_used)]

mod support;

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use proto::etcdserverpb as pb;
use support::alone;
use support::cluster::{Cluster, Kind, Member, free_port};
use support::kv::Connection;
use support::program::deep_txn;
use support::random::Random;

/// Runs to the end; a member that serves instead is killed, and the test fails.
fn run(mut command: Command) -> Output {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let start = Instant::now();
    while child.try_wait().unwrap().is_none() {
        if start.elapsed() > Duration::from_secs(20) {
            child.kill().unwrap();
            panic!("it runs on: {:?}", child.wait_with_output().unwrap());
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    child.wait_with_output().unwrap()
}

/// It must end with an error and one line on stderr in which `words` occur.
fn refused(command: Command, words: &[&str]) {
    let what = format!("{command:?}");
    let output = run(command);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success(), "{what} succeeds: {stderr}");
    assert!(output.status.code().is_some(), "{what} dies of a signal: {stderr}");
    assert!(!stderr.contains("panicked"), "{what}: {stderr}");
    assert!(stderr.trim_end().lines().count() <= 1, "{what}: more than a line:\n{stderr}");
    for word in words {
        assert!(stderr.contains(word), "{what}: no `{word}` in: {stderr}");
    }
}

/// Every file below a folder with its bytes.
fn contents(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).into_iter().flatten() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let bytes = std::fs::read(&path).unwrap();
                found.insert(path, bytes);
            }
        }
    }
    found
}

/// As `refused`, and not a byte below the data directory changes.
fn refused_untouched(member: &Member, command: Command, words: &[&str]) {
    let before = contents(&member.data_dir());
    refused(command, words);
    let after = contents(&member.data_dir());
    let names = |files: &BTreeMap<PathBuf, Vec<u8>>| files.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&before), names(&after), "files came or went");
    for (path, bytes) in &before {
        assert!(after[path] == *bytes, "{} was changed", path.display());
    }
}

/// The member's command line with other values for some flags.
fn with_flags(member: &Member, changed: &[(&str, &str)]) -> Command {
    let mut flags = member.flags.clone();
    for (name, value) in changed {
        let prefix = format!("--{name}=");
        flags.retain(|flag| !flag.starts_with(&prefix));
        flags.push(format!("{prefix}{value}"));
    }
    let mut command = Command::new(env!("CARGO_BIN_EXE_raft-kv"));
    command.arg("server").args(flags);
    command
}

#[test]
fn wrong_flags_and_addresses_are_refused() {
    let cluster = Cluster::new(Kind::RaftKv, 1, &[]);
    let member = &cluster.members[0];
    let occupied = TcpListener::bind("127.0.0.1:0").unwrap();
    let busy = format!("http://{}", occupied.local_addr().unwrap());
    let cases: &[(&str, &str, &[&str])] = &[
        ("data-dirr", "x", &["data-dirr", "data-dir"]),
        ("listen-client-urls", "127.0.0.1:2379", &["127.0.0.1:2379"]),
        ("listen-client-urls", "http://example.invalid:2379", &["example.invalid"]),
        ("listen-peer-urls", "ftp://127.0.0.1:2380", &["ftp"]),
        ("listen-client-urls", "http://127.0.0.1:99999", &["99999"]),
        ("initial-cluster", "m1", &["initial-cluster"]),
        ("initial-cluster", "other=http://127.0.0.1:1", &["m1"]),
        ("initial-cluster-state", "maybe", &["maybe"]),
        ("election-timeout", "soon", &["soon"]),
        ("election-timeout", "100", &["election"]),
        ("heartbeat-interval", "0", &["heartbeat"]),
        ("listen-client-urls", &busy, &["in use"]),
        ("listen-peer-urls", &busy, &["in use"]),
    ];
    for (name, value, words) in cases {
        refused(with_flags(member, &[(name, value)]), words);
        // What never served leaves nothing that would hinder the next start.
        assert!(contents(&member.data_dir()).is_empty(), "--{name}={value} left files");
    }
}

#[test]
fn a_foreign_locked_or_damaged_data_directory_is_refused_untouched() {
    alone(async {
        let mut cluster = Cluster::start(Kind::RaftKv, 3, &[]).await;
        let value: bytes::Bytes = vec![b'v'; 1000].into();
        let connection = Connection::new(&cluster.endpoints()[0], Duration::from_secs(10));
        for n in 0..100 {
            let key = format!("key-{n}").into();
            let put = pb::PutRequest { key, value: value.clone(), ..Default::default() };
            connection.put(put).await.unwrap();
        }
        second_process_is_refused(&cluster.members[0]);
        cluster.serves().await;

        cluster.members.iter_mut().for_each(Member::kill);
        let first = &cluster.members[0];
        let token = [("initial-cluster-token", "another-cluster")];
        refused_untouched(first, with_flags(first, &token), &["cluster"]);
        let data_dir = first.data_dir();
        let as_second = [("data-dir", data_dir.to_str().unwrap())];
        refused_untouched(first, with_flags(&cluster.members[1], &as_second), &["member"]);
        flipped_byte_is_refused(first);

        cluster.members.iter_mut().for_each(Member::start);
        cluster.serves().await;
        let range = pb::RangeRequest { key: "key-99".into(), ..Default::default() };
        assert_eq!(connection.range(range).await.unwrap().kvs[0].value, value);
    });
}

/// While the member runs: same folder, other ports.
fn second_process_is_refused(member: &Member) {
    let urls = [free_port(), free_port()].map(|port| format!("http://127.0.0.1:{port}"));
    let changed = [("listen-client-urls", urls[0].as_str()), ("listen-peer-urls", &urls[1])];
    refused(with_flags(member, &changed), &[member.data_dir().to_str().unwrap()]);
}

/// A flipped byte in an entry that has others behind it is rot, not a torn tail.
fn flipped_byte_is_refused(member: &Member) {
    let files = contents(&member.data_dir());
    // A value's bytes, but fewer: the log may lay it over several sectors.
    let pattern = [b'v'; 200];
    let value = |bytes: &[u8]| bytes.windows(200).position(|window| window == pattern);
    let (path, bytes) = files
        .iter()
        .find(|(_, bytes)| value(bytes).is_some())
        .expect("the values are somewhere in the log");
    let at = value(bytes).expect("just found") + 100;
    let mut damaged = bytes.clone();
    damaged[at] ^= 1;
    std::fs::write(path, &damaged).unwrap();
    let name = path.file_name().unwrap().to_str().unwrap();
    refused_untouched(member, member.command(), &[name]);
    std::fs::write(path, bytes).unwrap();
}

/// What strangers send: noise, a web request, half a handshake, nothing.
fn shout(port: u16, random: &mut Random) {
    let noise: Vec<u8> = (0..4000).map(|_| random.next() as u8).collect();
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    let mut broken = preface.to_vec();
    broken.extend_from_slice(&noise);
    // Frames that announce 16 MB, a stream that was never opened, settings too long.
    let mut frames = preface.to_vec();
    frames.extend_from_slice(&[0xff, 0xff, 0xff, 0, 0, 0, 0, 0, 1, 0, 0, 5, 4, 0, 0, 0, 0, 0]);
    let messages: [&[u8]; 6] = [
        &noise,
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        &broken,
        &frames,
        b"POST /raftkv.peer.v1.Peer/Connect HTTP/1.1\r\nContent-Length: 99999999\r\n\r\n",
        b"",
    ];
    for message in messages {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
        stream.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
        let _ = stream.write_all(message);
        let _ = stream.read(&mut [0; 1000]);
    }
}

#[test]
fn garbage_on_the_ports_stops_no_member() {
    alone(async {
        let mut cluster = Cluster::start(Kind::under_test(), 3, &[]).await;
        let mut random = Random::new(support::seed("bad_input"));
        for member in &cluster.members {
            shout(member.client_port, &mut random);
            shout(member.peer_port, &mut random);
            garbage_calls(member, &mut random).await;
        }
        let connection = Connection::new(&cluster.endpoints()[0], Duration::from_secs(10));
        for depth in [130, 1000] {
            let refusal = connection.txn(deep_txn(depth)).await.unwrap_err();
            assert_ne!(refusal.code(), tonic::Code::Unavailable, "{depth} levels: {refusal}");
        }
        cluster.serves().await;
        for member in &mut cluster.members {
            assert!(member.is_running());
            assert!(!member.log().contains("panicked"), "{} panicked", member.name);
        }
        let connection = Connection::new(&cluster.endpoints()[2], Duration::from_secs(10));
        let put = pb::PutRequest { key: "a".into(), value: "1".into(), ..Default::default() };
        connection.put(put).await.unwrap();
    });
}

/// Well-formed gRPC with messages that are none, to clients' and to peers' methods.
async fn garbage_calls(member: &Member, random: &mut Random) {
    let paths = [
        "/etcdserverpb.KV/Range",
        "/etcdserverpb.KV/Txn",
        "/etcdserverpb.Maintenance/Status",
        "/grpc.health.v1.Health/Check",
        "/raftkv.peer.v1.Peer/Connect",
    ];
    for port in [member.client_port, member.peer_port] {
        let connection = Connection::new(&format!("127.0.0.1:{port}"), Duration::from_secs(2));
        for path in paths {
            let len = 1 + random.below(300) as usize;
            let message: Vec<u8> = (0..len).map(|_| random.next() as u8 | 7).collect();
            let answer = connection.call(path, message.into()).await;
            // A wire type 7 does not exist: no decoder takes it for a message.
            assert!(answer.is_err(), "{path} takes garbage for a message");
        }
        let too_large = vec![0; 3 << 20];
        assert!(connection.call("/etcdserverpb.KV/Put", too_large.into()).await.is_err());
    }
}
