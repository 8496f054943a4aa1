//! What streams are made of: frames, and long messages that come in parts.

use super::root_cause;
use crate::grpc;
use bytes::{BufMut, Bytes, BytesMut};
use h2::RecvStream;
use prost::Message;
use prost::encoding::{WireType, encode_key, encode_varint};
use proto::peer::{Batch, Frame, Hello, Part, PeerMessage, frame};
use replica::PIECE_BYTES_MAX;
use std::future::poll_fn;

/// What is written at once at most: a piece, and what stands before it.
pub(super) const WRITE_BYTES_MAX: usize = PIECE_BYTES_MAX + 1024;
/// A peer that announces a longer frame is refused before a byte of it is kept.
const FRAME_BYTES_MAX: usize = 2 * PIECE_BYTES_MAX;
/// A peer that sends a longer message in parts is refused. Every append of full size is shorter.
const MESSAGE_BYTES_MAX: usize = 128 << 20;

/// What a peer sends, as it arrives.
pub(super) struct Frames {
    body: RecvStream,
    assembly: Assembly,
}

/// Something that arrived.
#[derive(Debug, PartialEq)]
pub(super) enum Received {
    /// Who the peer is.
    Hello(Hello),
    /// Messages.
    Messages(Vec<PeerMessage>),
    /// Some bytes of a message that is not complete yet.
    Bytes,
}

impl Frames {
    /// Reads the frames of one call.
    pub(super) fn new(body: RecvStream) -> Frames {
        Frames { body, assembly: Assembly::default() }
    }

    /// Waits for what arrives next; `None` at the end. Loses nothing when it is dropped.
    ///
    /// # Errors
    /// Why there is nothing more.
    pub(super) async fn next(&mut self) -> Result<Option<Received>, String> {
        if let Some(received) = self.assembly.next()? {
            return Ok(Some(received));
        }
        let Some(bytes) = poll_fn(|context| self.body.poll_data(context)).await else {
            return Ok(None);
        };
        let bytes = bytes.map_err(root_cause)?;
        let _ = self.body.flow_control().release_capacity(bytes.len());
        self.assembly.push(&bytes);
        Ok(Some(self.assembly.next()?.unwrap_or(Received::Bytes)))
    }

    /// Waits until something is complete.
    ///
    /// # Errors
    /// Why there is nothing more.
    pub(super) async fn next_complete(&mut self) -> Result<Option<Received>, String> {
        loop {
            match self.next().await? {
                Some(Received::Bytes) => {}
                received => return Ok(received),
            }
        }
    }
}

/// Bytes of a stream that are not used yet.
#[derive(Default)]
struct Assembly {
    /// Of a frame.
    frame: BytesMut,
    /// Of a message, from its parts.
    message: BytesMut,
}

impl Assembly {
    fn push(&mut self, bytes: &[u8]) {
        self.frame.extend_from_slice(bytes);
    }

    /// Takes the next frame, or long message, out of what has arrived.
    fn next(&mut self) -> Result<Option<Received>, String> {
        loop {
            let frame = grpc::split_message(&mut self.frame, FRAME_BYTES_MAX)
                .map_err(|status| status.message().to_owned())?;
            let Some(frame) = frame else { return Ok(None) };
            let frame = Frame::decode(frame).map_err(|error| error.to_string())?;
            match frame.frame {
                Some(frame::Frame::Hello(hello)) => return Ok(Some(Received::Hello(hello))),
                Some(frame::Frame::Batch(batch)) => {
                    return Ok(Some(Received::Messages(batch.messages)));
                }
                Some(frame::Frame::Part(part)) => {
                    if let Some(message) = self.add(part)? {
                        return Ok(Some(Received::Messages(vec![message])));
                    }
                }
                None => return Err("it sent an empty frame, or one of a newer release".to_owned()),
            }
        }
    }

    /// Adds a part; returns the message if this was its last one.
    fn add(&mut self, Part { last, bytes }: Part) -> Result<Option<PeerMessage>, String> {
        if bytes.is_empty() {
            return Err("it sent a part without bytes".to_owned());
        }
        if self.message.len() + bytes.len() > MESSAGE_BYTES_MAX {
            return Err(format!("it sent a message of more than {MESSAGE_BYTES_MAX} bytes"));
        }
        self.message.extend_from_slice(&bytes);
        if !last {
            return Ok(None);
        }
        let message = std::mem::take(&mut self.message).freeze();
        PeerMessage::decode(message).map(Some).map_err(|error| error.to_string())
    }
}

/// Encodes a frame of whole messages.
pub(super) fn batch(messages: Vec<PeerMessage>) -> Bytes {
    grpc::frame(&Frame { frame: Some(frame::Frame::Batch(Batch { messages })) })
}

/// Encodes what stands before the bytes of a part, so that they need not be copied.
pub(super) fn part_head(bytes: usize, last: bool) -> Bytes {
    let mut part = Vec::new();
    if last {
        encode_key(1, WireType::Varint, &mut part);
        encode_varint(1, &mut part);
    }
    encode_key(2, WireType::LengthDelimited, &mut part);
    encode_varint(bytes as u64, &mut part);
    let mut frame = Vec::new();
    encode_key(3, WireType::LengthDelimited, &mut frame);
    encode_varint((part.len() + bytes) as u64, &mut frame);
    let mut head = BytesMut::new();
    head.put_u8(0);
    head.put_u32((frame.len() + part.len() + bytes) as u32);
    head.put_slice(&frame);
    head.put_slice(&part);
    head.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proto::peer::{self as pb, peer_message};

    fn refused(sequences: Vec<u64>) -> PeerMessage {
        let refused = pb::Refused { boot: 1, sequences };
        PeerMessage { message: Some(peer_message::Message::Refused(refused)) }
    }

    fn part(bytes: &[u8], last: bool) -> Vec<u8> {
        [&part_head(bytes.len(), last), bytes].concat()
    }

    /// All that is made of these bytes, and why it ends, if it does.
    fn read(assembly: &mut Assembly, bytes: &[u8]) -> (Vec<Received>, Option<String>) {
        assembly.push(bytes);
        let mut all = Vec::new();
        loop {
            match assembly.next() {
                Ok(Some(received)) => all.push(received),
                Ok(None) => return (all, None),
                Err(why) => return (all, Some(why)),
            }
        }
    }

    #[test]
    fn a_part_is_what_the_definition_of_the_protocol_says() {
        for (bytes, last) in [(&b"x"[..], false), (&[7; 300], true), (&[1; 40_000], false)] {
            let part_of = pb::Part { last, bytes: Bytes::copy_from_slice(bytes) };
            let frame = Frame { frame: Some(frame::Frame::Part(part_of)) };
            assert!(part(bytes, last) == grpc::frame(&frame)[..]);
        }
        assert_eq!(part(b"ab", true)[..], *b"\0\0\0\0\x08\x1a\x06\x08\x01\x12\x02ab");
    }

    #[test]
    fn a_message_in_parts_comes_whole_and_batches_pass_between_them() {
        let long = refused((0..5000).map(|n| n << 40).collect());
        let bytes = long.encode_to_vec();
        let pieces: Vec<_> = bytes.chunks(700).collect();
        let mut stream = Vec::new();
        for (n, piece) in pieces.iter().enumerate() {
            stream.extend(part(piece, n + 1 == pieces.len()));
            stream.extend_from_slice(&batch(vec![refused(vec![n as u64])]));
        }
        let mut whole = Vec::new();
        let mut assembly = Assembly::default();
        // Cut anywhere.
        for bytes in stream.chunks(997) {
            let (received, why) = read(&mut assembly, bytes);
            assert_eq!(why, None);
            whole.extend(received);
        }
        assert_eq!(whole.len(), pieces.len() + 1);
        let at = whole.len() - 2;
        assert_eq!(whole.remove(at), Received::Messages(vec![long]));
        for (n, received) in whole.into_iter().enumerate() {
            assert_eq!(received, Received::Messages(vec![refused(vec![n as u64])]));
        }
    }

    #[test]
    fn lies_are_refused_without_keeping_their_bytes() {
        let cases: [(&[u8], &str); 8] = [
            (b"\0\xff\xff\xff\xff", "larger than max"),
            (b"\0\x00\x01\x00\x01", "larger than max"),
            (b"\x01\0\0\0\x01x", "Decompressor"),
            (b"\0\0\0\0\0", "empty frame"),
            // A field that nobody has defined.
            (b"\0\0\0\0\x03\xfa\x01\0", "empty frame"),
            // A length beyond the end.
            (b"\0\0\0\0\x02\x1a\x7f", "decode"),
            (b"\0\0\0\0\x02\x1a\0", "a part without bytes"),
            // The last part of what is no message.
            (b"\0\0\0\0\x08\x1a\x06\x08\x01\x12\x02\x0f\x0f", "decode"),
        ];
        for (bytes, words) in cases {
            let mut assembly = Assembly::default();
            let (received, why) = read(&mut assembly, bytes);
            let why = why.expect("it is refused");
            assert!(received.is_empty() && why.contains(words), "{bytes:x?}: {why}");
            assert!(assembly.frame.capacity() < 1000);
        }
    }

    #[test]
    fn parts_that_never_end_are_refused_when_they_are_too_long() {
        let mut assembly = Assembly::default();
        let endless = part(&[0; PIECE_BYTES_MAX], false);
        for _ in 0..MESSAGE_BYTES_MAX / PIECE_BYTES_MAX {
            assert_eq!(read(&mut assembly, &endless), (Vec::new(), None));
        }
        let (_, why) = read(&mut assembly, &endless);
        assert!(why.expect("it is refused").contains("more than"));
        assert!(assembly.message.capacity() <= 2 * MESSAGE_BYTES_MAX);
    }
}
