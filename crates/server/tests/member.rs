//! Members in this process: what they answer, what they refuse, how they stop and come back.

// Tests may unwrap, and so may what only they use.
#![allow(clippy::unwrap_used)]

use proto::etcdserverpb as pb;
use proto::etcdserverpb::kv_client::KvClient;
use proto::etcdserverpb::maintenance_client::MaintenanceClient;
use server::config::Config;
use server::flags::{self, Asked};
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tokio::sync::oneshot;
use tonic::transport::Channel;
use tonic::{Code, Request};

/// A port that was free a moment ago.
fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// A cluster's places: flags for each member, kept across restarts.
struct Places {
    clients: Vec<u16>,
    peers: Vec<u16>,
    root: tempfile::TempDir,
}

impl Places {
    fn new(members: usize) -> Places {
        let ports = || (0..members).map(|_| free_port()).collect();
        Places { clients: ports(), peers: ports(), root: tempfile::tempdir().unwrap() }
    }

    fn data_dir(&self, member: usize) -> PathBuf {
        self.root.path().join(format!("n{member}"))
    }

    fn flags(&self, member: usize) -> Vec<String> {
        let url = |port: u16| format!("http://127.0.0.1:{port}");
        let all: Vec<String> =
            self.peers.iter().enumerate().map(|(n, port)| format!("n{n}={}", url(*port))).collect();
        vec![
            format!("--name=n{member}"),
            format!("--data-dir={}", self.data_dir(member).display()),
            format!("--listen-client-urls={}", url(self.clients[member])),
            format!("--advertise-client-urls={}", url(self.clients[member])),
            format!("--listen-peer-urls={}", url(self.peers[member])),
            format!("--initial-advertise-peer-urls={}", url(self.peers[member])),
            format!("--initial-cluster={}", all.join(",")),
            "--heartbeat-interval=40".to_owned(),
            "--election-timeout=400".to_owned(),
        ]
    }

    fn config(&self, member: usize, more: &[&str]) -> Config {
        let words = self.flags(member).into_iter().chain(more.iter().map(|s| (*s).to_owned()));
        match flags::read(words, []).unwrap() {
            Asked::Run(given) => Config::new(&given).unwrap(),
            other => panic!("{other:?}"),
        }
    }

    /// Starts a member on a thread of its own.
    fn start(&self, member: usize) -> Started {
        let config = self.config(member, &[]);
        let (stop, stopped) = oneshot::channel::<()>();
        let thread = std::thread::spawn(move || {
            let running = server::start(config, || false).unwrap().unwrap();
            running.run_until(async {
                let _ = stopped.await;
            });
        });
        Started { stop, thread }
    }

    async fn channel(&self, member: usize) -> Channel {
        let url = format!("http://127.0.0.1:{}", self.clients[member]);
        let endpoint = tonic::transport::Endpoint::from_shared(url).unwrap();
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            match endpoint.connect().await {
                Ok(channel) => return channel,
                Err(error) => assert!(Instant::now() < deadline, "no connection: {error}"),
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    async fn kv(&self, member: usize) -> KvClient<Channel> {
        KvClient::new(self.channel(member).await)
            .max_decoding_message_size(usize::MAX)
            .max_encoding_message_size(usize::MAX)
    }
}

struct Started {
    stop: oneshot::Sender<()>,
    thread: std::thread::JoinHandle<()>,
}

impl Started {
    fn stop(self) {
        let _ = self.stop.send(());
        self.thread.join().expect("it stops in good order");
    }
}

fn put(key: &str, value: impl Into<bytes::Bytes>) -> pb::PutRequest {
    pb::PutRequest { key: key.to_owned().into(), value: value.into(), ..Default::default() }
}

fn get(key: &str) -> pb::RangeRequest {
    pb::RangeRequest { key: key.to_owned().into(), ..Default::default() }
}

fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        tokio::time::timeout(Duration::from_secs(60), test).await.expect("done in time");
    });
}

/// One request over HTTP/1: status line and body.
fn page(port: u16, method: &str, path: &str) -> (String, String) {
    let mut socket = TcpStream::connect(("127.0.0.1", port)).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    write!(socket, "{method} {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.lines().next().unwrap().to_owned(), body.to_owned())
}

#[test]
fn what_was_written_is_there_after_a_restart() {
    let places = Places::new(1);
    let member = places.start(0);
    run(async {
        let mut kv = places.kv(0).await;
        for n in 2..12 {
            let answer = kv.put(put("k", n.to_string())).await.unwrap().into_inner();
            assert_eq!(answer.header.unwrap().revision, n);
        }
    });
    member.stop();
    let member = places.start(0);
    run(async {
        let answer = places.kv(0).await.range(get("k")).await.unwrap().into_inner();
        assert_eq!(answer.kvs[0].value, "11");
        let header = answer.header.unwrap();
        let config = places.config(0, &[]);
        assert_eq!(header.revision, 11);
        assert_eq!(
            (header.cluster_id, header.member_id),
            (config.cluster_id.0, config.member_id.0)
        );
    });
    member.stop();
}

#[test]
fn nonsense_gets_etcds_codes_and_texts() {
    let places = Places::new(1);
    let member = places.start(0);
    run(async {
        let mut kv = places.kv(0).await;
        let refused = |status: tonic::Status| (status.code(), status.message().to_owned());
        let large = kv.put(put("k", vec![0; 1_600_000])).await.unwrap_err();
        assert_eq!(
            refused(large),
            (Code::InvalidArgument, "etcdserver: request is too large".to_owned())
        );
        let larger = refused(kv.put(put("k", vec![0; 2_200_000])).await.unwrap_err());
        assert_eq!(larger.0, Code::ResourceExhausted);
        assert_eq!(larger.1, "grpc: received message larger than max (2200008 vs. 2097152)");
        let empty = kv.put(put("", "v")).await.unwrap_err();
        assert_eq!(
            refused(empty),
            (Code::InvalidArgument, "etcdserver: key is not provided".to_owned())
        );
        let mut wants_leader = Request::new(get("k"));
        wants_leader.metadata_mut().insert("hasleader", "true".parse().unwrap());
        kv.range(wants_leader).await.expect("there is one");
        let mut zipped =
            places.kv(0).await.send_compressed(tonic::codec::CompressionEncoding::Gzip);
        assert_eq!(zipped.range(get("k")).await.unwrap_err().code(), Code::Unimplemented);
        let channel = places.channel(0).await;
        let mut lease = pb::lease_client::LeaseClient::new(channel);
        let status = lease.lease_grant(pb::LeaseGrantRequest::default()).await.unwrap_err();
        assert_eq!(status.code(), Code::Unimplemented);
        assert_eq!(status.message(), "raft-kv does not serve etcdserverpb.Lease/LeaseGrant yet");
        kv.put(put("k", "it still serves")).await.unwrap();
    });
    member.stop();
}

#[test]
fn a_long_answer_arrives_whole_and_in_parts() {
    let places = Places::new(1);
    let member = places.start(0);
    run(async {
        let mut kv = places.kv(0).await;
        for n in 0..60 {
            kv.put(put(&format!("k{n:02}"), vec![n; 200_000])).await.unwrap();
        }
        let all = pb::RangeRequest { range_end: vec![0].into(), ..get("k") };
        let whole = kv.range(all.clone()).await.unwrap().into_inner();
        assert_eq!((whole.kvs.len(), whole.count), (60, 60));
        let mut parts = kv.range_stream(all).await.unwrap().into_inner();
        let mut kvs = Vec::new();
        let mut last = None;
        while let Some(part) = parts.message().await.unwrap() {
            let mut part = part.range_response.unwrap();
            kvs.append(&mut part.kvs);
            last = Some(part);
        }
        let last = last.unwrap();
        assert!(kvs == whole.kvs);
        assert_eq!((last.count, last.header), (60, whole.header));
    });
    member.stop();
}

#[test]
fn health_and_version_are_pages() {
    let places = Places::new(1);
    let member = places.start(0);
    run(async { drop(places.channel(0).await) });
    let get = |path: &str| page(places.clients[0], "GET", path);
    let ok = |body: &str| ("HTTP/1.1 200 OK".to_owned(), body.to_owned());
    // The port is open before it is served; the first answer waits for that.
    assert_eq!(get("/health"), ok(r#"{"health":"true","reason":""}"#));
    let version = r#"{"etcdserver":"3.7.0","etcdcluster":"3.7.0","storage":"3.7.0"}"#;
    assert_eq!(get("/version"), ok(version));
    assert_eq!(get("/livez"), ok("ok\n"));
    assert_eq!(get("/livez?verbose"), ok("[+]serializable_read ok\nok\n"));
    assert_eq!(get("/readyz/linearizable_read"), ok("ok\n"));
    let some = get("/readyz?verbose&exclude=linearizable_read&exclude=nothing").1;
    assert_eq!(some, "[+]data_corruption ok\n[+]serializable_read ok\n[+]non_learner ok\nok\n");
    for path in ["/", "/nothing", "/livez/nothing", "/healthy"] {
        assert_eq!(get(path).0, "HTTP/1.1 404 Not Found", "{path}");
    }
    let posted = page(places.clients[0], "POST", "/health");
    assert_eq!(posted.0, "HTTP/1.1 405 Method Not Allowed");
    member.stop();
}

#[test]
fn three_members_take_writes_anywhere_and_hand_over() {
    let places = Places::new(3);
    let mut members: Vec<Option<Started>> = (0..3).map(|n| Some(places.start(n))).collect();
    run(async {
        for n in 0..3 {
            places.kv(n).await.put(put(&format!("k{n}"), "v")).await.unwrap();
        }
        for n in 0..3 {
            let all = pb::RangeRequest { range_end: vec![0].into(), ..get("k") };
            assert_eq!(places.kv(n).await.range(all).await.unwrap().into_inner().count, 3);
        }
        let mut status = MaintenanceClient::new(places.channel(0).await);
        let before = status.status(pb::StatusRequest {}).await.unwrap().into_inner().leader;
        let leader = (0..3).find(|n| places.config(*n, &[]).member_id.0 == before).unwrap();
        members[leader].take().unwrap().stop();
        let other = (leader + 1) % 3;
        let stopped = Instant::now();
        places.kv(other).await.put(put("after", "v")).await.unwrap();
        // It was asked to take over: nobody had to run out of patience.
        assert!(stopped.elapsed() < Duration::from_millis(350), "{:?}", stopped.elapsed());
        let mut status = MaintenanceClient::new(places.channel(other).await);
        let after = status.status(pb::StatusRequest {}).await.unwrap().into_inner();
        assert_ne!(after.leader, before);
        assert!(after.errors.is_empty());
        members[leader] = Some(places.start(leader));
        let value = places.kv(leader).await.range(get("after")).await.unwrap().into_inner();
        assert_eq!(value.count, 1, "it caught up before it served");
    });
    // All at once: nobody is left to take over.
    let stops: Vec<_> =
        members.into_iter().flatten().map(|m| std::thread::spawn(|| m.stop())).collect();
    stops.into_iter().for_each(|stop| stop.join().unwrap());
}

#[test]
fn without_a_quorum_requests_end_in_time_and_local_reads_go_on() {
    let places = Places::new(3);
    let mut members: Vec<Started> = (0..3).map(|n| places.start(n)).collect();
    run(async {
        for n in (0..3).rev() {
            places.kv(n).await.put(put("k", "v")).await.unwrap();
        }
    });
    let last = members.remove(0);
    let stops: Vec<_> = members.into_iter().map(|m| std::thread::spawn(|| m.stop())).collect();
    stops.into_iter().for_each(|stop| stop.join().unwrap());
    run(async {
        let mut kv = places.kv(0).await;
        let unavailable = loop {
            let mut wants_leader = Request::new(get("k"));
            wants_leader.metadata_mut().insert("hasleader", "true".parse().unwrap());
            wants_leader.set_timeout(Duration::from_millis(100));
            match kv.range(wants_leader).await {
                Err(status) if status.code() == Code::Unavailable => break status,
                // The client's own clock, or the member's.
                Err(status) => {
                    assert!(matches!(status.code(), Code::Cancelled | Code::DeadlineExceeded))
                }
                Ok(_) => {}
            }
        };
        assert_eq!(unavailable.message(), "etcdserver: no leader");
        let mut late = Request::new(get("k"));
        late.set_timeout(Duration::from_millis(50));
        let asked = Instant::now();
        kv.range(late).await.expect_err("nobody can confirm it");
        assert!(asked.elapsed() < Duration::from_secs(1));
        let local = pb::RangeRequest { serializable: true, ..get("k") };
        assert_eq!(kv.range(local).await.unwrap().into_inner().kvs[0].value, "v");
        let status = kv.put(put("k", "w")).await.unwrap_err();
        assert_eq!(status.code(), Code::Unavailable, "after 5 s and two elections");
    });
    last.stop();
}

#[test]
fn a_member_that_lost_its_data_takes_no_part() {
    let places = Places::new(2);
    let members: Vec<Started> = (0..2).map(|n| places.start(n)).collect();
    run(async {
        for n in 0..2 {
            places.kv(n).await.put(put("k", "v")).await.unwrap();
        }
        let id = |n: usize| places.config(n, &[]).member_id.0;
        let (smaller, larger) = if id(0) < id(1) { (0, 1) } else { (1, 0) };
        let hello = proto::peer::Hello {
            cluster_id: places.config(0, &[]).cluster_id.0,
            from: id(larger),
            to: id(smaller),
            protocol_version: 3,
            incarnation_start: 1,
            incarnation_id: 7,
            history: 0,
        };
        let url = format!("http://127.0.0.1:{}", places.peers[smaller]);
        let endpoint = tonic::transport::Endpoint::from_shared(url).unwrap();
        let channel = endpoint.connect().await.unwrap();
        let mut client = proto::peer::peer_client::PeerClient::new(channel);
        let frame = proto::peer::Frame { frame: Some(proto::peer::frame::Frame::Hello(hello)) };
        let status = client.connect(tokio_stream::iter([frame])).await.unwrap_err();
        assert_eq!(status.code(), Code::FailedPrecondition);
        assert!(status.message().contains("already been bootstrapped"), "{}", status.message());
    });
    let stops: Vec<_> = members.into_iter().map(|m| std::thread::spawn(|| m.stop())).collect();
    stops.into_iter().for_each(|stop| stop.join().unwrap());
}

#[test]
fn garbage_on_either_port_stops_nobody() {
    let places = Places::new(1);
    let member = places.start(0);
    run(async { drop(places.kv(0).await.put(put("k", "v")).await.unwrap()) });
    let nonsense: Vec<u8> =
        (0..200_000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    for port in [places.clients[0], places.peers[0]] {
        for bytes in [&nonsense[..], b"GET / HTTP/1.1\r\n\r\n", b"\0", preface] {
            let mut socket = TcpStream::connect(("127.0.0.1", port)).unwrap();
            let _ = socket.write_all(bytes);
            let _ = socket.write_all(&nonsense);
        }
    }
    run(async {
        let channel = tonic::transport::Endpoint::from_shared(format!(
            "http://127.0.0.1:{}",
            places.peers[0]
        ))
        .unwrap()
        .connect()
        .await
        .unwrap();
        let mut stranger = proto::peer::peer_client::PeerClient::new(channel);
        for (hello, words) in strangers(&places) {
            let frame = proto::peer::Frame { frame: Some(proto::peer::frame::Frame::Hello(hello)) };
            let status = stranger.connect(tokio_stream::iter([frame])).await.unwrap_err();
            assert_eq!(status.code(), Code::FailedPrecondition);
            assert!(status.message().contains(words), "{}", status.message());
        }
        let silent = proto::peer::Frame { frame: None };
        let status = stranger.connect(tokio_stream::iter([silent])).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument);
        assert_eq!(places.kv(0).await.range(get("k")).await.unwrap().into_inner().count, 1);
    });
    member.stop();
}

/// Greetings of those who are no peers, and what the refusal must say.
fn strangers(places: &Places) -> Vec<(proto::peer::Hello, &'static str)> {
    let config = places.config(0, &[]);
    let own = proto::peer::Hello {
        cluster_id: config.cluster_id.0,
        from: 77,
        to: config.member_id.0,
        protocol_version: 3,
        incarnation_start: 1,
        incarnation_id: 7,
        history: 0,
    };
    vec![
        (proto::peer::Hello { cluster_id: 5, ..own }, "for cluster 5"),
        (proto::peer::Hello { to: 0xabc, ..own }, "for member abc"),
        (own, "4d is no member"),
    ]
}

/// All files below, with their bytes.
fn contents(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.map(|path| (path.clone(), std::fs::read(path).unwrap())).collect()
}

#[test]
fn a_start_that_is_refused_changes_nothing() {
    let places = Places::new(1);
    places.start(0).stop();
    let before = contents(&places.data_dir(0));
    let refusal = |more: &[&str]| {
        server::start(places.config(0, more), || false).map(|_| ()).unwrap_err().to_string()
    };
    let line = refusal(&["--initial-cluster-token=other"]);
    assert!(line.contains("belongs to cluster"), "{line}");
    let taken = TcpListener::bind(("127.0.0.1", places.clients[0])).unwrap();
    let line = refusal(&[]);
    assert!(line.contains("cannot listen on") && line.contains("--listen-client-urls"), "{line}");
    drop(taken);
    let nowhere = places.root.path().join("nowhere");
    let line = refusal(&[
        "--initial-cluster-state=existing",
        &format!("--data-dir={}", nowhere.display()),
    ]);
    assert!(line.contains("joining a running cluster is not served yet"), "{line}");
    assert!(!nowhere.exists());
    assert!(contents(&places.data_dir(0)) == before);
    // With data, `existing` is an ordinary start.
    let config = places.config(0, &["--initial-cluster-state=existing"]);
    server::start(config, || false).unwrap().unwrap().stop();
}
