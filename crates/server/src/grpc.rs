//! gRPC's calls, by hand: one message in, one message and a status out.
//!
//! Doing it here gives the limits, codes and texts that etcd's clients know, and keeps the path of
//! a request short: a call is not a task, but a value that waits with whoever will answer it.

use crate::connection::{ArrivingCharge, Charge, ClientConnection};
use crate::readers::Busy;
use crate::texts;
use bytes::{Buf, BufMut, Bytes, BytesMut};
use h2::server::SendResponse;
use h2::{RecvStream, SendStream};
use http::{HeaderMap, HeaderValue, Response, header};
use prost::Message;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;
use tokio::sync::oneshot::{Receiver, channel};
use tokio::time::Instant;
use tonic::Status;

/// Compression flag and length before each message.
const PREFIX_BYTES: usize = 5;
/// Shorter answers to reads are given however much all clients have not taken yet.
const READ_BYTES_FREE: usize = 64 << 10;
/// Longer answers are encoded by a reader thread: half a millisecond's work.
const LONG_ANSWER_BYTES: usize = 1 << 20;
/// No answer is longer. A client of gRPC takes 2 GiB at most, if it is told to; this is a quarter of
/// that, for the answer is in memory as a whole, here and there.
pub const ANSWER_BYTES_MAX: usize = 512 << 20;
/// A part of an answer in parts is sent in pieces of this size.
const PIECE_BYTES: usize = 64 << 10;
/// A client takes a piece of an answer in parts at least this often.
const STALLED_TIMEOUT: Duration = Duration::from_secs(60);
/// A request that began to arrive is there within this time.
const ARRIVAL_TIMEOUT: Duration = Duration::from_secs(120);

/// A call that waits for its answer. If it is dropped without one, the client sees its stream
/// reset. An answer to a client that is gone goes nowhere.
pub struct Call {
    respond: SendResponse<Bytes>,
    connection: Arc<ClientConnection>,
    /// When the client stops waiting, if it said so.
    pub deadline: Option<Instant>,
}

impl Call {
    /// The call of a request with these headers, on this connection.
    pub fn new(
        respond: SendResponse<Bytes>,
        headers: &HeaderMap,
        connection: &Arc<ClientConnection>,
    ) -> Call {
        let deadline = timeout(headers).and_then(|timeout| Instant::now().checked_add(timeout));
        Call { respond, connection: Arc::clone(connection), deadline }
    }

    /// Goes on once the client has taken enough of what it was answered before; not at all if it
    /// waits no longer by then.
    pub fn when_room(self, next: impl FnOnce(Call) + Send + 'static) {
        let connection = Arc::clone(&self.connection);
        if connection.has_room() && !connection.is_waited_for() {
            return next(self);
        }
        connection.when_room(move || {
            let mut call = self;
            let is_late = call.deadline.is_some_and(|deadline| deadline <= Instant::now());
            if is_late {
                call.refuse(&texts::deadline());
            } else if !call.is_gone() {
                next(call);
            }
        });
    }

    /// Whether the client has given up.
    fn is_gone(&mut self) -> bool {
        self.respond.poll_reset(&mut Context::from_waker(Waker::noop())).is_ready()
    }

    /// Answers with one message, or with why there is none.
    pub fn answer(self, result: Result<impl Message + 'static, Status>) {
        match result {
            Ok(message) => self.answer_of(message, |_, _| true),
            Err(status) => self.refuse(&status),
        }
    }

    /// Answers as [`Call::answer`], but a long answer only if all clients' answers leave room for it:
    /// a read can be asked again.
    pub fn answer_read(self, result: Result<impl Message + 'static, Status>) {
        match result {
            Ok(message) => self.answer_of(message, |connection, len| {
                len < READ_BYTES_FREE || connection.edge.has_room_for(len)
            }),
            Err(status) => self.refuse(&status),
        }
    }

    fn answer_of(
        self,
        message: impl Message + 'static,
        is_allowed: impl FnOnce(&ClientConnection, usize) -> bool,
    ) {
        let len = message.encoded_len();
        if len > ANSWER_BYTES_MAX {
            return self.refuse(&texts::answer_too_large(ANSWER_BYTES_MAX));
        }
        if !is_allowed(&self.connection, len) {
            return self.refuse(&texts::busy());
        }
        if len > LONG_ANSWER_BYTES {
            let charge = self.connection.charge(len);
            let encode = move || Ok(charge.hold(encoded(&message, len)));
            let answer = self.connection.edge.readers.run_anyway(encode);
            return self.send_later(answer);
        }
        let charge = self.connection.charge(len);
        self.send(charge.hold(encoded(&message, len)));
    }

    /// Answers with the framed message that a reader thread makes, unless the client gives up before.
    /// `bytes` is what the request holds while it waits for a thread; the answer will have about
    /// `expected` bytes, which count from now on.
    pub fn answer_apart(
        self,
        bytes: usize,
        expected: usize,
        work: impl FnOnce(Charge) -> Result<Bytes, Status> + Send + 'static,
    ) {
        let charge = self.connection.charge(expected);
        match self.connection.edge.readers.run(bytes, move || work(charge)) {
            Ok(answer) => self.send_later(answer),
            Err(Busy) => self.refuse(&texts::busy()),
        }
    }

    /// Sends what a reader thread makes, unless the client gives up before: then it need not be made.
    fn send_later(mut self, answer: Receiver<Result<Bytes, Status>>) {
        tokio::spawn(async move {
            let answer =
                async { answer.await.expect("a reader thread answers, or the process ends") };
            match self.unless_gone(answer).await {
                Some(Ok(frame)) => self.send(frame),
                Some(Err(status)) => self.refuse(&status),
                None => {}
            }
        });
    }

    /// What comes of a future; nothing if the client gives up before.
    async fn unless_gone<T>(
        &mut self,
        result: impl Future<Output = Result<T, Status>>,
    ) -> Option<Result<T, Status>> {
        let mut result = pin!(within(self.deadline, result));
        poll_fn(|context| match self.respond.poll_reset(context) {
            Poll::Ready(_) => Poll::Ready(None),
            Poll::Pending => result.as_mut().poll(context).map(Some),
        })
        .await
    }

    /// Sends a framed message, and that all is well.
    fn send(mut self, frame: Bytes) {
        if let Ok(mut stream) = self.respond.send_response(head(), false) {
            let _ = stream.send_data(frame, false);
            let _ = stream.send_trailers(success());
        }
    }

    /// Answers with a status and nothing else.
    pub fn refuse(mut self, status: &Status) {
        refuse(&mut self.respond, status);
    }

    /// Answers with what comes of a future, unless the client gives up before.
    pub async fn answer_with<M: Message + 'static>(
        mut self,
        result: impl Future<Output = Result<M, Status>>,
    ) {
        if let Some(result) = self.unless_gone(result).await {
            self.answer(result);
        }
    }

    /// Begins an answer in parts.
    pub fn stream(mut self) -> Option<Streaming> {
        let stream = self.respond.send_response(head(), false).ok()?;
        Some(Streaming { stream, connection: self.connection })
    }
}

/// An answer in parts, each a message. Dropped before its end, the client sees its stream reset.
pub struct Streaming {
    stream: SendStream<Bytes>,
    connection: Arc<ClientConnection>,
}

/// The client takes no more parts.
#[derive(Debug)]
pub struct Gone;

impl Streaming {
    /// Waits until the client has taken enough of what it was answered before, so that a part may
    /// be made at all.
    ///
    /// # Errors
    /// When the client is gone, or takes nothing for too long.
    pub async fn room(&mut self) -> Result<(), Gone> {
        let (ready, has_room) = channel();
        self.connection.when_room(move || {
            let _ = ready.send(());
        });
        let has_room = async { has_room.await.map_err(|_| Gone) };
        self.unless_gone(has_room).await.ok_or(Gone)??;
        self.stream.reserve_capacity(PREFIX_BYTES);
        let capacity = poll_fn(|context| self.stream.poll_capacity(context));
        match tokio::time::timeout(STALLED_TIMEOUT, capacity).await {
            Ok(Some(Ok(_))) => Ok(()),
            _ => Err(Gone),
        }
    }

    /// What comes of a future; nothing if the client gives up before.
    pub async fn unless_gone<T>(&mut self, result: impl Future<Output = T>) -> Option<T> {
        let mut result = pin!(result);
        poll_fn(|context| match self.stream.poll_reset(context) {
            Poll::Ready(_) => Poll::Ready(None),
            Poll::Pending => result.as_mut().poll(context).map(Some),
        })
        .await
    }

    /// Sends a part as fast as the client takes it.
    ///
    /// # Errors
    /// When the client is gone, or takes nothing for too long.
    pub async fn send(&mut self, part: &impl Message) -> Result<(), Gone> {
        let len = part.encoded_len();
        let mut frame = self.connection.charge(len).hold(encoded(part, len));
        while !frame.is_empty() {
            let piece = frame.split_to(frame.len().min(PIECE_BYTES));
            match tokio::time::timeout(STALLED_TIMEOUT, send(&mut self.stream, piece)).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) | Err(_) => return Err(Gone),
            }
        }
        Ok(())
    }

    /// Ends the answer.
    pub fn end(mut self, result: Result<(), Status>) {
        let trailers = result.map_or_else(|status| trailers(&status), |()| success());
        let _ = self.stream.send_trailers(trailers);
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
    encoded(message, message.encoded_len()).freeze()
}

/// A message of this length with its prefix.
fn encoded(message: &impl Message, len: usize) -> BytesMut {
    let mut buffer = BytesMut::with_capacity(PREFIX_BYTES + len);
    buffer.put_u8(0);
    buffer.put_u32(u32::try_from(len).expect("longer messages are refused before"));
    message.encode(&mut buffer).expect("a buffer grows");
    buffer
}

/// A message that is encoded field by field, with its prefix.
pub struct LongFrame {
    bytes: Vec<u8>,
    charge: Charge,
}

impl LongFrame {
    /// No field yet. `charge` counts what the message will need, as far as that is known.
    pub fn new(charge: Charge) -> LongFrame {
        LongFrame { bytes: vec![0; PREFIX_BYTES], charge }
    }

    /// Adds the fields of `message`, for they are some of the whole's.
    ///
    /// # Errors
    /// When the whole is longer than an answer may be, or than there is room for now.
    pub fn add(&mut self, message: &impl Message) -> Result<(), Status> {
        let len = self.bytes.len() + message.encoded_len();
        if len > PREFIX_BYTES + ANSWER_BYTES_MAX {
            return Err(texts::answer_too_large(ANSWER_BYTES_MAX));
        }
        if !self.charge.resize(len) {
            return Err(texts::busy());
        }
        message.encode(&mut self.bytes).expect("a vector grows");
        Ok(())
    }

    /// The whole.
    pub fn finish(mut self) -> Bytes {
        let len = self.bytes.len() - PREFIX_BYTES;
        let len = u32::try_from(len).expect("longer messages are refused before");
        self.bytes[1..PREFIX_BYTES].copy_from_slice(&len.to_be_bytes());
        // What is counted is what is held.
        self.bytes.shrink_to_fit();
        self.charge.hold(self.bytes)
    }
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
    connection: Arc<ClientConnection>,
    /// Counts what came, once the rest is waited for.
    charge: Option<ArrivingCharge>,
}

impl Incoming {
    /// The message of a request with this body and these headers, on this connection.
    pub fn new(
        body: RecvStream,
        headers: &HeaderMap,
        bytes_max: usize,
        connection: &Arc<ClientConnection>,
    ) -> Incoming {
        Incoming {
            body,
            encoding: headers.get("grpc-encoding").cloned(),
            bytes_max,
            first: Bytes::new(),
            joined: BytesMut::new(),
            connection: Arc::clone(connection),
            charge: None,
        }
    }

    /// The message, once all of it is there, if it is there in time.
    ///
    /// # Errors
    /// With the codes and texts of grpc-go.
    pub async fn message(mut self, deadline: Option<Instant>) -> Result<Bytes, Status> {
        let latest = Instant::now() + ARRIVAL_TIMEOUT;
        let deadline = deadline.map_or(latest, |deadline| deadline.min(latest));
        let so_far = self.first.len() + self.joined.len();
        self.charge = Some(self.connection.charge_arriving(so_far).ok_or_else(texts::busy)?);
        within(Some(deadline), poll_fn(|context| self.poll_message(context))).await
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
        if self.charge.as_mut().is_some_and(|charge| !charge.add(part.len())) {
            return Err(texts::busy());
        }
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
