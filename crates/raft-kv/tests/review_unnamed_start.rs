//! Review: whoever greets on a leader's peer port as a member that was not admitted yet, with a life
//! that is numbered 0, ends the leader; and the next one, and so on.

#![allow(clippy::unwrap_used)]
#![allow(dead_code, unused_imports)]

mod support;

use bytes::{BufMut, Bytes, BytesMut};
use prost::Message;
use proto::etcdserverpb as pb;
use proto::peer::{Batch, Frame, HeartbeatReply, Hello, PeerMessage, Raft, frame, peer_message, raft};
use std::time::{Duration, Instant};
use support::cluster::{Cluster, Kind, member_serves};
use support::kv::{self, Connection};
use support::{alone, say};

fn framed(message: &impl Message) -> Bytes {
    let mut frame = BytesMut::new();
    frame.put_u8(0);
    frame.put_u32(message.encoded_len() as u32);
    message.encode(&mut frame).unwrap();
    frame.freeze()
}

/// Greets as `from` in its life `0:5`, and says one thing.
async fn greet(peer_port: u16, cluster_id: u64, from: u64, to: u64) {
    let endpoint = format!("127.0.0.1:{peer_port}");
    let socket = tokio::net::TcpStream::connect(&endpoint).await.unwrap();
    let (calls, connection) = h2::client::handshake(socket).await.unwrap();
    tokio::spawn(connection);
    let mut calls = calls.ready().await.unwrap();
    let request = http::Request::post(format!("http://{endpoint}/raftkv.peer.v1.Peer/Connect"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(())
        .unwrap();
    let (response, mut body) = calls.send_request(request, false).unwrap();
    let hello = Hello {
        cluster_id,
        from,
        to,
        protocol_version: 2,
        incarnation_start: 0,
        incarnation_id: 5,
        history: 0,
    };
    let frame = |frame| framed(&Frame { frame: Some(frame) });
    body.send_data(frame(frame::Frame::Hello(hello)), false).unwrap();
    body.send_data(frame(frame::Frame::Batch(Batch::default())), false).unwrap();
    let reply = raft::Body::HeartbeatReply(HeartbeatReply { round: 0 });
    let raft = Raft { from, to, term: 1, body: Some(reply) };
    let message = PeerMessage { message: Some(peer_message::Message::Raft(raft)) };
    body.send_data(frame(frame::Frame::Batch(Batch { messages: vec![message] })), false).unwrap();
    let Ok(response) = response.await else { return };
    let mut answer = response.into_body();
    let _ = tokio::time::timeout(Duration::from_secs(2), async {
        while let Some(Ok(_)) = answer.data().await {}
    })
    .await;
}

#[test]
fn a_life_numbered_0_ends_no_leader() {
    alone(async {
        // A cluster whose third member, which has the largest id, has not started yet.
        for _ in 0..40 {
            let mut cluster = Cluster::new(Kind::RaftKv, 3, &[]);
            cluster.members[0].start();
            cluster.members[1].start();
            member_serves(&mut cluster.members[0]).await;
            member_serves(&mut cluster.members[1]).await;
            let status = kv::status(&cluster.members[0].endpoint()).await.unwrap();
            let header = status.header.unwrap();
            let list: pb::MemberListResponse = {
                let connection =
                    Connection::new(&cluster.members[0].endpoint(), Duration::from_secs(5));
                let path = "/etcdserverpb.Cluster/MemberList";
                let request = pb::MemberListRequest::default().encode_to_vec().into();
                pb::MemberListResponse::decode(connection.call(path, request).await.unwrap()).unwrap()
            };
            let url = |n: usize| format!("http://127.0.0.1:{}", cluster.members[n].peer_port);
            let id = |n: usize| {
                list.members.iter().find(|member| member.peer_urls.contains(&url(n))).unwrap().id
            };
            let leader = cluster.leader().await;
            if id(2) < id(leader) {
                continue;
            }
            let (port, to, from) = (cluster.members[leader].peer_port, id(leader), id(2));
            greet(port, header.cluster_id, from, to).await;
            tokio::time::sleep(Duration::from_secs(1)).await;
            let lives = cluster.members[leader].is_running();
            let log = cluster.members[leader].log();
            say(format!("lives: {lives}\n{}", &log[log.len().saturating_sub(1500)..]));
            assert!(lives, "the leader ended");
            return;
        }
        panic!("the ids did not fit");
    });
}
