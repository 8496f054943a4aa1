//! Unary calls of gRPC, straight on HTTP/2: nothing is built per request that can be built once.

use std::future::poll_fn;

use bytes::{Bytes, BytesMut};
use h2::client::ResponseFuture;
use http::{HeaderMap, Request, StatusCode};
use prost::Message;
use tonic::{Code, Status};

/// Before each message: whether it is compressed, and its length in four bytes.
const PREFIX_BYTES: usize = 5;

/// What the load calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Method {
    Range,
    Put,
    Txn,
}

/// The requests to one server but for their messages; a call sends a copy.
pub(super) struct Heads([Request<()>; 3]);

impl Heads {
    /// `authority` is a host and a port.
    pub(super) fn new(authority: &str) -> Result<Heads, http::Error> {
        // In the order of `Method`.
        let [range, put, txn] = ["Range", "Put", "Txn"].map(|name| {
            Request::post(format!("http://{authority}/etcdserverpb.KV/{name}"))
                .header(http::header::TE, "trailers")
                .header(http::header::CONTENT_TYPE, "application/grpc")
                .body(())
        });
        Ok(Heads([range?, put?, txn?]))
    }

    pub(super) fn of(&self, method: Method) -> Request<()> {
        self.0[method as usize].clone()
    }
}

/// The message as it travels.
pub(super) fn frame(message: &impl Message) -> Bytes {
    let len = message.encoded_len();
    let mut framed = Vec::with_capacity(PREFIX_BYTES + len);
    framed.push(0);
    framed.extend_from_slice(&u32::try_from(len).expect("a message is small").to_be_bytes());
    message.encode(&mut framed).expect("a vector grows");
    framed.into()
}

/// Waits for the answer to a call and takes it out of its frame; else what went wrong.
pub(super) async fn answer(response: ResponseFuture) -> Result<Bytes, String> {
    let (head, mut body) = response.await.map_err(broken)?.into_parts();
    let mut framed = Chunks::default();
    while let Some(chunk) = poll_fn(|context| body.poll_data(context)).await {
        let chunk = chunk.map_err(broken)?;
        body.flow_control().release_capacity(chunk.len()).map_err(broken)?;
        framed.push(chunk);
    }
    let trailers = poll_fn(|context| body.poll_trailers(context)).await.map_err(broken)?;
    // Who refuses a call may do so in the headers.
    check(head.status, trailers.unwrap_or(head.headers))?;
    let mut framed = framed.end();
    if framed.len() < PREFIX_BYTES {
        return Err("an answer without a message".into());
    }
    let prefix = framed.split_to(PREFIX_BYTES);
    let len = u32::try_from(framed.len()).map(u32::to_be_bytes);
    if prefix[0] == 0 && len.is_ok_and(|len| len == prefix[1..]) {
        Ok(framed)
    } else {
        Err("an answer that is not one plain message".into())
    }
}

/// What an error of HTTP/2 means: the connection failed, not the server.
pub(super) fn broken(error: h2::Error) -> String {
    format!("connection: {error}")
}

/// Whether the call went well.
fn check(http: StatusCode, mut headers: HeaderMap) -> Result<(), String> {
    match headers.get("grpc-status") {
        Some(status) if status == "0" => return Ok(()),
        Some(_) => {}
        None if http == StatusCode::OK => return Err("an answer without a status".into()),
        None => return Err(format!("HTTP status {http}")),
    }
    // They are not shown, and need not be well-formed.
    headers.remove("grpc-status-details-bin");
    let status = Status::from_header_map(&headers);
    let status = status.unwrap_or_else(|| Status::new(Code::Unknown, "no status"));
    Err(format!("{:?}: {}", status.code(), status.message()))
}

/// Bytes that arrive in pieces, most often in one, which is then not copied.
#[derive(Default)]
struct Chunks {
    first: Bytes,
    all: BytesMut,
}

impl Chunks {
    fn push(&mut self, chunk: Bytes) {
        if self.first.is_empty() {
            self.first = chunk;
            return;
        }
        if self.all.is_empty() {
            self.all.extend_from_slice(&self.first);
        }
        self.all.extend_from_slice(&chunk);
    }

    fn end(self) -> Bytes {
        if self.all.is_empty() { self.first } else { self.all.freeze() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_is_a_prefix_and_the_message() {
        let message = proto::etcdserverpb::PutRequest {
            key: "k".into(),
            value: "v".into(),
            ..Default::default()
        };
        assert_eq!(frame(&message), &b"\0\0\0\0\x06\x0a\x01k\x12\x01v"[..]);
    }

    #[test]
    fn pieces_are_put_together() {
        let join = |pieces: &[&'static str]| {
            let mut chunks = Chunks::default();
            pieces.iter().for_each(|piece| chunks.push(Bytes::from_static(piece.as_bytes())));
            chunks.end()
        };
        assert_eq!(join(&[]), "");
        assert_eq!(join(&["one"]), "one");
        assert_eq!(join(&["", "one", "", "two", "three"]), "onetwothree");
    }

    #[test]
    fn a_refusal_is_told_by_code_and_text() {
        let headers = |list: &[(&'static str, &str)]| -> HeaderMap {
            list.iter()
                .map(|(name, value)| {
                    (http::HeaderName::from_static(name), value.parse().expect("a value"))
                })
                .collect()
        };
        let ok = StatusCode::OK;
        assert_eq!(check(ok, headers(&[("grpc-status", "0")])), Ok(()));
        let refused = [
            ("grpc-status", "14"),
            ("grpc-message", "no%20leader"),
            ("grpc-status-details-bin", "!"),
        ];
        assert_eq!(check(ok, headers(&refused)), Err("Unavailable: no leader".into()));
        assert_eq!(check(ok, headers(&[])), Err("an answer without a status".into()));
        let lost = check(StatusCode::NOT_FOUND, headers(&[]));
        assert_eq!(lost, Err("HTTP status 404 Not Found".into()));
    }
}
