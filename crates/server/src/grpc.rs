//! gRPC's calls, by hand: one message in, one message and a status out.
//!
//! Doing it here gives the limits, codes and texts that etcd's clients know, and keeps the path of
//! a request short: a call is not a task, but a value that waits with whoever will answer it.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use futures_util::Stream;
use h2::server::SendResponse;
use h2::{RecvStream, SendStream};
use http::{HeaderMap, HeaderValue, Response, header};
use prost::Message;
use std::future::poll_fn;
use std::pin::pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::time::Instant;
use tonic::Status;

/// Compression flag and length before each message.
const PREFIX_BYTES: usize = 5;

/// A call that waits for its answer. If it is dropped without one, the client sees its stream
/// reset. An answer to a client that is gone goes nowhere.
pub struct Call {
    respond: SendResponse<Bytes>,
    /// When the client stops waiting, if it said so.
    pub deadline: Option<Instant>,
}

impl Call {
    /// The call of a request with these headers.
    pub fn new(respond: SendResponse<Bytes>, headers: &HeaderMap) -> Call {
        let deadline = timeout(headers).and_then(|timeout| Instant::now().checked_add(timeout));
        Call { respond, deadline }
    }

    /// Answers with one message, or with why there is none.
    pub fn answer(mut self, result: Result<impl Message, Status>) {
        let message = match result {
            Ok(message) => message,
            Err(status) => return self.refuse(&status),
        };
        if let Ok(mut stream) = self.respond.send_response(head(), false) {
            let _ = stream.send_data(frame(&message), false);
            let _ = stream.send_trailers(success());
        }
    }

    /// Answers with a status and nothing else.
    pub fn refuse(mut self, status: &Status) {
        refuse(&mut self.respond, status);
    }

    /// Answers with what comes of a future, unless the client gives up before.
    pub async fn answer_with<M: Message>(
        mut self,
        result: impl Future<Output = Result<M, Status>>,
    ) {
        let mut result = pin!(within(self.deadline, result));
        let result = poll_fn(|context| match self.respond.poll_reset(context) {
            Poll::Ready(_) => Poll::Ready(None),
            Poll::Pending => result.as_mut().poll(context).map(Some),
        });
        if let Some(result) = result.await {
            self.answer(result);
        }
    }

    /// Answers with messages as they come, as fast as the client takes them.
    pub async fn stream(mut self, messages: impl Stream<Item = Bytes>) {
        let Ok(mut stream) = self.respond.send_response(head(), false) else { return };
        let mut messages = pin!(messages);
        loop {
            let next = poll_fn(|context| match stream.poll_reset(context) {
                Poll::Ready(_) => Poll::Ready(Err(())),
                Poll::Pending => messages.as_mut().poll_next(context).map(Ok),
            });
            match next.await {
                Ok(Some(message)) => {
                    if send(&mut stream, message).await.is_err() {
                        return;
                    }
                }
                Ok(None) => break,
                Err(()) => return,
            }
        }
        let _ = stream.send_trailers(success());
    }
}

/// Answers a request with a status and nothing else. Goes nowhere if the client is gone.
pub fn refuse(respond: &mut SendResponse<Bytes>, status: &Status) {
    let mut response = head();
    response.headers_mut().extend(trailers(status));
    let _ = respond.send_response(response, true);
}

/// Waits no longer than the client does.
pub async fn within<T>(
    deadline: Option<Instant>,
    result: impl Future<Output = Result<T, Status>>,
) -> Result<T, Status> {
    match deadline {
        None => result.await,
        Some(deadline) => tokio::time::timeout_at(deadline, result)
            .await
            .unwrap_or_else(|_| Err(crate::texts::deadline())),
    }
}

/// Sends a message in pieces that the other end has room for.
///
/// # Errors
/// When the stream or the connection has ended.
pub async fn send(stream: &mut SendStream<Bytes>, mut message: Bytes) -> Result<(), h2::Error> {
    while !message.is_empty() {
        stream.reserve_capacity(message.len());
        let Some(room) = poll_fn(|context| stream.poll_capacity(context)).await else {
            return Err(h2::Reason::CANCEL.into());
        };
        let room = room?.min(message.len());
        stream.send_data(message.split_to(room), false)?;
    }
    Ok(())
}

/// Waits until this much can be sent at once, and all that was sent before has left the stream's
/// buffer, if that is no larger.
///
/// # Errors
/// When the stream or the connection has ended.
pub async fn wait_for_room(stream: &mut SendStream<Bytes>, bytes: usize) -> Result<(), h2::Error> {
    stream.reserve_capacity(bytes);
    while stream.capacity() < bytes {
        let Some(more) = poll_fn(|context| stream.poll_capacity(context)).await else {
            return Err(h2::Reason::CANCEL.into());
        };
        more?;
    }
    Ok(())
}

/// The head of an answer.
pub fn head() -> Response<()> {
    let mut response = Response::new(());
    let kind = HeaderValue::from_static("application/grpc");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}

fn success() -> HeaderMap {
    let mut trailers = HeaderMap::with_capacity(1);
    trailers.insert("grpc-status", HeaderValue::from_static("0"));
    trailers
}

fn trailers(status: &Status) -> HeaderMap {
    let mut trailers = HeaderMap::new();
    if status.add_header(&mut trailers).is_err() {
        trailers.insert("grpc-status", HeaderValue::from_static("13"));
    }
    trailers
}

/// A message with its prefix.
pub fn frame(message: &impl Message) -> Bytes {
    let len = message.encoded_len();
    let mut buffer = BytesMut::with_capacity(PREFIX_BYTES + len);
    buffer.put_u8(0);
    // Longer answers cannot be framed; memory would have ended before.
    buffer.put_u32(len as u32);
    message.encode(&mut buffer).expect("the buffer is as large as the message");
    buffer.freeze()
}

/// Reads a message.
///
/// # Errors
/// With the code and text of grpc-go, which etcd's clients know.
pub fn decode<M: Message + Default>(message: Bytes) -> Result<M, Status> {
    M::decode(message)
        .map_err(|error| Status::internal(format!("grpc: error unmarshalling request: {error}")))
}

/// Takes the first message out of what came so far, once it is all there.
///
/// # Errors
/// If it is larger than `bytes_max`, or compressed.
pub fn split_message(bytes: &mut BytesMut, bytes_max: usize) -> Result<Option<Bytes>, Status> {
    match announced(bytes, None)? {
        Some(len) if len > bytes_max => Err(too_large(len, bytes_max)),
        Some(len) if bytes.len() >= PREFIX_BYTES + len => {
            bytes.advance(PREFIX_BYTES);
            Ok(Some(bytes.split_to(len).freeze()))
        }
        _ => Ok(None),
    }
}

fn too_large(len: usize, max: usize) -> Status {
    Status::resource_exhausted(format!("grpc: received message larger than max ({len} vs. {max})"))
}

/// The one message of a call, on its way in.
pub struct Incoming {
    body: RecvStream,
    encoding: Option<HeaderValue>,
    bytes_max: usize,
    /// What came so far: the first part as it is, all parts joined once there is a second.
    first: Bytes,
    joined: BytesMut,
}

impl Incoming {
    /// The message of a request with this body and these headers.
    pub fn new(body: RecvStream, headers: &HeaderMap, bytes_max: usize) -> Incoming {
        let encoding = headers.get("grpc-encoding").cloned();
        Incoming { body, encoding, bytes_max, first: Bytes::new(), joined: BytesMut::new() }
    }

    /// The message, once all of it is there.
    ///
    /// # Errors
    /// With the codes and texts of grpc-go.
    pub fn poll_message(&mut self, context: &mut Context<'_>) -> Poll<Result<Bytes, Status>> {
        while let Some(part) = ready!(self.body.poll_data(context)) {
            // The client gave up, or its connection broke: nobody reads the answer.
            let part = part.map_err(|error| Status::cancelled(error.to_string()))?;
            let _ = self.body.flow_control().release_capacity(part.len());
            self.push(part)?;
        }
        Poll::Ready(self.take())
    }

    fn push(&mut self, part: Bytes) -> Result<(), Status> {
        if self.first.is_empty() && self.joined.is_empty() {
            self.first = part;
        } else {
            if self.joined.is_empty() {
                self.joined.extend_from_slice(&std::mem::take(&mut self.first));
            }
            self.joined.extend_from_slice(&part);
        }
        let so_far = if self.joined.is_empty() { &self.first[..] } else { &self.joined[..] };
        match announced(so_far, self.encoding.as_ref())? {
            Some(len) if len > self.bytes_max => Err(too_large(len, self.bytes_max)),
            _ => Ok(()),
        }
    }

    fn take(&mut self) -> Result<Bytes, Status> {
        let (first, joined) = (std::mem::take(&mut self.first), std::mem::take(&mut self.joined));
        let whole = if joined.is_empty() { first } else { joined.freeze() };
        match announced(&whole, self.encoding.as_ref())? {
            Some(len) if whole.len() == PREFIX_BYTES + len => Ok(whole.slice(PREFIX_BYTES..)),
            Some(len) if whole.len() > PREFIX_BYTES + len => {
                Err(Status::internal("grpc: a unary call carries one message"))
            }
            _ => Err(Status::internal("grpc: the call ended before its message")),
        }
    }
}

/// The length that the prefix announces, once all of the prefix is there.
fn announced(bytes: &[u8], compression: Option<&HeaderValue>) -> Result<Option<usize>, Status> {
    let Some((prefix, _)) = bytes.split_first_chunk::<PREFIX_BYTES>() else { return Ok(None) };
    if prefix[0] != 0 {
        let name = compression.and_then(|name| name.to_str().ok()).unwrap_or("");
        return Err(Status::unimplemented(format!(
            "grpc: Decompressor is not installed for grpc-encoding \"{name}\""
        )));
    }
    let len = u32::from_be_bytes([prefix[1], prefix[2], prefix[3], prefix[4]]);
    Ok(Some(len as usize))
}

/// How long the client waits, if it says so and the text is one of gRPC's.
fn timeout(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get("grpc-timeout")?.to_str().ok()?;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let count: u64 = digits.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(count * 3600),
        "M" => Duration::from_secs(count * 60),
        "S" => Duration::from_secs(count),
        "m" => Duration::from_millis(count),
        "u" => Duration::from_micros(count),
        "n" => Duration::from_nanos(count),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use tonic::Code;

    #[test]
    fn timeouts_are_read_as_grpc_writes_them() {
        let of = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert("grpc-timeout", HeaderValue::from_str(text).unwrap());
            timeout(&headers)
        };
        assert_eq!(of("5S"), Some(Duration::from_secs(5)));
        assert_eq!(of("4999m"), Some(Duration::from_millis(4999)));
        assert_eq!(of("99999999H"), Some(Duration::from_secs(99_999_999 * 3600)));
        for text in ["", "S", "5", "5x", "123456789S", "-5S"] {
            assert_eq!(of(text), None, "{text}");
        }
    }

    #[test]
    fn a_prefix_is_waited_for_and_compression_refused() {
        assert_eq!(announced(&[0, 0, 0, 1], None).unwrap(), None);
        assert_eq!(announced(&[0, 0, 0, 1, 2, 9], None).unwrap(), Some(258));
        let gzip = HeaderValue::from_static("gzip");
        let status = announced(&[1, 0, 0, 0, 0], Some(&gzip)).unwrap_err();
        assert_eq!(status.code(), Code::Unimplemented);
        assert!(status.message().contains("\"gzip\""));
    }
}
