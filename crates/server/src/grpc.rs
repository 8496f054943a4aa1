//! gRPC's unary calls, by hand: one message in, one message and a status out.
//!
//! Doing it here gives the limits, codes and texts that etcd's clients know, and keeps the path of
//! a request short.

use bytes::{BufMut, Bytes, BytesMut};
use futures_util::Stream;
use http::{HeaderMap, HeaderValue, Request, Response, header};
use http_body_util::BodyExt;
use hyper::body::{Body, Frame, Incoming};
use prost::Message;
use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
use tonic::{Code, Status};

/// Compression flag and length before each message.
const PREFIX_BYTES: usize = 5;

/// Messages, each with its prefix.
type Messages = Pin<Box<dyn Stream<Item = Result<Bytes, Status>> + Send>>;

/// The body of an answer.
pub enum Answer {
    /// One message, then the status.
    Message(Option<Bytes>, Option<HeaderMap>),
    /// Messages as they come; ends with a status.
    Stream(Option<Messages>),
    /// No gRPC: a page of HTTP, or nothing.
    Page(Option<Bytes>),
}

impl Body for Answer {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match self.get_mut() {
            Answer::Message(data, trailers) => Poll::Ready(match data.take() {
                Some(data) => Some(Ok(Frame::data(data))),
                None => trailers.take().map(|trailers| Ok(Frame::trailers(trailers))),
            }),
            Answer::Stream(stream) => {
                let Some(messages) = stream else { return Poll::Ready(None) };
                let next = std::task::ready!(messages.as_mut().poll_next(context));
                let status = match next {
                    Some(Ok(data)) => return Poll::Ready(Some(Ok(Frame::data(data)))),
                    Some(Err(status)) => status,
                    None => Status::new(Code::Ok, ""),
                };
                *stream = None;
                Poll::Ready(Some(Ok(Frame::trailers(trailers(&status)))))
            }
            Answer::Page(data) => Poll::Ready(data.take().map(|data| Ok(Frame::data(data)))),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Answer::Message(data, trailers) => data.is_none() && trailers.is_none(),
            Answer::Stream(stream) => stream.is_none(),
            Answer::Page(data) => data.is_none(),
        }
    }

    fn size_hint(&self) -> hyper::body::SizeHint {
        match self {
            Answer::Page(data) => {
                hyper::body::SizeHint::with_exact(data.as_ref().map_or(0, Bytes::len) as u64)
            }
            _ => hyper::body::SizeHint::default(),
        }
    }
}

fn trailers(status: &Status) -> HeaderMap {
    let mut trailers = HeaderMap::new();
    if status.code() == Code::Ok {
        trailers.insert("grpc-status", HeaderValue::from_static("0"));
    } else if status.add_header(&mut trailers).is_err() {
        trailers.insert("grpc-status", HeaderValue::from_static("13"));
    }
    trailers
}

fn response(body: Answer) -> Response<Answer> {
    let mut response = Response::new(body);
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    response
}

/// An answer that is a status and nothing else.
pub fn refusal(status: &Status) -> Response<Answer> {
    let mut response = response(Answer::Message(None, None));
    response.headers_mut().extend(trailers(status));
    response
}

/// An answer of one message, or why there is none.
pub fn unary(result: Result<impl Message, Status>) -> Response<Answer> {
    match result {
        Ok(message) => {
            let trailers = trailers(&Status::new(Code::Ok, ""));
            response(Answer::Message(Some(frame(&message)), Some(trailers)))
        }
        Err(status) => refusal(&status),
    }
}

/// An answer of many messages.
pub fn streaming(
    messages: impl Stream<Item = Result<Bytes, Status>> + Send + 'static,
) -> Response<Answer> {
    response(Answer::Stream(Some(Box::pin(messages))))
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

/// Reads the one message of a call.
///
/// # Errors
/// With the codes and texts of grpc-go, which etcd's clients know.
pub async fn read<M: Message + Default>(
    request: Request<Incoming>,
    bytes_max: usize,
) -> Result<M, Status> {
    let compression = request.headers().get("grpc-encoding").cloned();
    let message = read_message(request.into_body(), compression.as_ref(), bytes_max).await?;
    M::decode(message)
        .map_err(|error| Status::internal(format!("grpc: error unmarshalling request: {error}")))
}

async fn read_message(
    mut body: Incoming,
    compression: Option<&HeaderValue>,
    bytes_max: usize,
) -> Result<Bytes, Status> {
    let mut first = Bytes::new();
    let mut all = BytesMut::new();
    while let Some(part) = body.frame().await {
        // The client gave up, or its connection broke: nobody reads the answer.
        let part = part.map_err(|error| Status::cancelled(error.to_string()))?;
        let Ok(data) = part.into_data() else { break };
        if data.is_empty() {
            continue;
        }
        if first.is_empty() && all.is_empty() {
            first = data;
        } else {
            if all.is_empty() {
                all.extend_from_slice(&std::mem::take(&mut first));
            }
            all.extend_from_slice(&data);
        }
        let so_far = if all.is_empty() { &first[..] } else { &all[..] };
        if let Some(len) = announced(so_far, compression)?
            && len > bytes_max
        {
            return Err(Status::resource_exhausted(format!(
                "grpc: received message larger than max ({len} vs. {bytes_max})"
            )));
        }
    }
    let whole = if all.is_empty() { first } else { all.freeze() };
    match announced(&whole, compression)? {
        Some(len) if whole.len() == PREFIX_BYTES + len => Ok(whole.slice(PREFIX_BYTES..)),
        Some(len) if whole.len() > PREFIX_BYTES + len => {
            Err(Status::internal("grpc: a unary call carries one message"))
        }
        _ => Err(Status::internal("grpc: the call ended before its message")),
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
pub fn timeout(headers: &HeaderMap) -> Option<Duration> {
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
