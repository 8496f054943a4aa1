//! A server that does nothing: the cost of a call alone, to measure members against.
//!
//! Sockets, HTTP/2, framing and messages are a member's own; what is between question and answer
//! is left out. One thread, as a member's network thread.

use crate::accept;
use crate::connection::{ClientConnection, Edge};
use crate::grpc::{self, Call, Incoming};
use crate::http2::{self, Terms};
use crate::readers::Readers;
use crate::socket::Coalescing;
use crate::texts;
use bytes::Bytes;
use h2::RecvStream;
use h2::server::SendResponse;
use http::Request;
use proto::etcdserverpb as pb;
use proto::mvccpb::KeyValue;
use std::io;
use std::net::TcpListener;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;
use tokio::sync::watch;
use tonic::Status;

/// Bytes of a key and of a value in an answer.
const KEY_BYTES: usize = 8;
const VALUE_BYTES: usize = 256;
/// What a range without a limit finds, and at most one with a limit.
const KEYS_FOUND: i64 = 1;
const KEYS_MAX: i64 = 1000;
/// Of a request.
const RECEIVE_BYTES_MAX: usize = 2 << 20;
/// A member's defaults.
const TERMS: Terms = Terms {
    streams_max: u32::MAX,
    keepalive_interval: Duration::from_secs(7200),
    keepalive_timeout: Duration::from_secs(20),
};

/// Answers puts, ranges and transactions with constants, for ever.
///
/// # Errors
/// When the system gives no runtime, or cannot use the listener.
pub fn serve(listener: TcpListener) -> io::Result<()> {
    listener.set_nonblocking(true)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::from_std(listener)?;
        let (_never, stop) = watch::channel(false);
        let edge = Edge::new(Readers::start()?);
        loop {
            let (socket, _) = accept::connection(&listener).await;
            let account = ClientConnection::new(Arc::clone(&edge));
            let stop = stop.clone();
            tokio::spawn(async move {
                let take = |request, respond| take(&account, request, respond);
                http2::serve(Coalescing::new(socket), TERMS, stop, &account, take).await;
            });
        }
    })
}

fn take(
    account: &Arc<ClientConnection>,
    request: Request<RecvStream>,
    respond: SendResponse<Bytes>,
) {
    let (head, body) = request.into_parts();
    let call = Call::new(respond, &head.headers, account);
    let mut incoming = Incoming::new(body, &head.headers, RECEIVE_BYTES_MAX, account);
    match incoming.poll_message(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(message) => answer(head.uri.path(), message, call),
        Poll::Pending => {
            tokio::spawn(async move {
                let message = incoming.message(call.deadline).await;
                answer(head.uri.path(), message, call);
            });
        }
    }
}

fn answer(path: &str, message: Result<Bytes, Status>, call: Call) {
    match path {
        "/etcdserverpb.KV/Put" => call.answer(
            message
                .and_then(grpc::decode)
                .map(|_: pb::PutRequest| pb::PutResponse { header: header(), prev_kv: None }),
        ),
        "/etcdserverpb.KV/Range" => {
            call.answer(message.and_then(grpc::decode).map(|range| found(&range)));
        }
        "/etcdserverpb.KV/Txn" => {
            call.answer(message.and_then(grpc::decode).map(|_: pb::TxnRequest| pb::TxnResponse {
                header: header(),
                succeeded: true,
                responses: Vec::new(),
            }))
        }
        path => call.refuse(&texts::unimplemented(path)),
    }
}

fn header() -> Option<pb::ResponseHeader> {
    let (cluster_id, member_id) = (u64::MAX, u64::MAX / 2);
    Some(pb::ResponseHeader { cluster_id, member_id, revision: 1 << 20, raft_term: 2 })
}

fn found(range: &pb::RangeRequest) -> pb::RangeResponse {
    let key_value = KeyValue {
        key: Bytes::from_static(&[b'0'; KEY_BYTES]),
        value: Bytes::from_static(&[b'v'; VALUE_BYTES]),
        create_revision: 1 << 20,
        mod_revision: 1 << 20,
        version: 1,
        lease: 0,
    };
    let count = if range.limit > 0 { range.limit.min(KEYS_MAX) } else { KEYS_FOUND };
    let sent = if range.count_only { 0 } else { count as usize };
    pb::RangeResponse { header: header(), kvs: vec![key_value; sent], more: false, count }
}
