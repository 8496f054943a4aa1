//! What streams are made of: frames, and long messages that come in parts.

use super::root_cause;
use crate::grpc;
use bytes::{Buf, BufMut, Bytes, BytesMut};
use h2::RecvStream;
use prost::Message;
use prost::encoding::{WireType, decode_key, decode_varint, encode_key, encode_varint};
use proto::peer::{Batch, Frame, Hello, Part, PeerMessage, frame, peer_message};
use replica::PIECE_BYTES_MAX;
use std::future::poll_fn;

/// What is written at once at most: a piece, and what stands before it.
pub(super) const WRITE_BYTES_MAX: usize = PIECE_BYTES_MAX + 1024;
/// A peer that announces a longer frame is refused before a byte of it is kept.
const FRAME_BYTES_MAX: usize = 2 * PIECE_BYTES_MAX;
/// A peer that announces a longer message is refused. Every append of full size is shorter.
const MESSAGE_BYTES_MAX: usize = 128 << 20;
/// So much memory is taken for a message because its first part announces it; more when it is
/// there. Without it most of the work of receiving is to touch and copy memory that grows.
const ANNOUNCED_BYTES_MAX: usize = 4 << 20;

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
    /// A message that this release does not know; its kind in words.
    Unknown(String),
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
    /// How many bytes of the part that is arriving are missing, and how many of the message
    /// behind that part.
    part_missing: usize,
    message_missing: usize,
    /// The kind of a message that was taken out because this release does not know it.
    unknown: Option<String>,
}

impl Assembly {
    fn push(&mut self, bytes: &[u8]) {
        // Straight to their place: to copy megabytes twice would be seen in the figures.
        let (part, next) = bytes.split_at(self.part_missing.min(bytes.len()));
        self.part_missing -= part.len();
        self.message.extend_from_slice(part);
        self.frame.extend_from_slice(next);
    }

    /// Takes the next frame, or long message, out of what has arrived.
    fn next(&mut self) -> Result<Option<Received>, String> {
        loop {
            if let Some(kind) = self.unknown.take() {
                return Ok(Some(Received::Unknown(kind)));
            }
            if self.part_missing > 0 {
                return Ok(None);
            }
            if !self.message.is_empty() && self.message_missing == 0 {
                let raw = std::mem::take(&mut self.message).freeze();
                let message =
                    PeerMessage::decode(raw.clone()).map_err(|error| error.to_string())?;
                self.unknown = unknown_kind(&message, &raw);
                if self.unknown.is_some() {
                    continue;
                }
                return Ok(Some(Received::Messages(vec![message])));
            }
            if let Some(PartHead { head, bytes, rest }) = PartHead::read(&self.frame) {
                self.begin_part(bytes, rest)?;
                self.frame.advance(head);
                let arrived = self.frame.split();
                self.push(&arrived);
                continue;
            }
            let frame = grpc::split_message(&mut self.frame, FRAME_BYTES_MAX)
                .map_err(|status| status.message().to_owned())?;
            let Some(frame) = frame else { return Ok(None) };
            let raw = frame.clone();
            let frame = Frame::decode(frame).map_err(|error| error.to_string())?;
            match frame.frame {
                Some(frame::Frame::Hello(hello)) => return Ok(Some(Received::Hello(hello))),
                Some(frame::Frame::Batch(mut batch)) => {
                    if batch.messages.iter().any(is_unknown) {
                        self.unknown = unknown_kind_in(&batch, &raw);
                        batch.messages.retain(|message| !is_unknown(message));
                    }
                    return Ok(Some(Received::Messages(batch.messages)));
                }
                // Its head was written in an unusual way.
                Some(frame::Frame::Part(Part { rest, bytes })) => {
                    self.begin_part(bytes.len(), rest)?;
                    self.part_missing = 0;
                    self.message.extend_from_slice(&bytes);
                }
                None => return Err("it sent an empty frame, or one of a newer release".to_owned()),
            }
        }
    }

    /// Checks what a part announces of itself, and expects its bytes.
    fn begin_part(&mut self, bytes: usize, rest: u64) -> Result<(), String> {
        let rest = usize::try_from(rest).unwrap_or(usize::MAX);
        let missing = bytes.saturating_add(rest);
        if bytes == 0 {
            return Err("it sent a part without bytes".to_owned());
        }
        if bytes > FRAME_BYTES_MAX {
            return Err(format!("it announced a part of {bytes} bytes"));
        }
        if self.message.is_empty() {
            if missing > MESSAGE_BYTES_MAX {
                return Err(format!("it announced a message of {missing} bytes"));
            }
            self.message.reserve(missing.min(ANNOUNCED_BYTES_MAX));
        } else if self.message_missing != missing {
            return Err("it sent a part that does not continue the one before".to_owned());
        }
        (self.part_missing, self.message_missing) = (bytes, rest);
        Ok(())
    }
}

/// Whether what a message says is lost on this release.
fn is_unknown(message: &PeerMessage) -> bool {
    match &message.message {
        None => true,
        Some(peer_message::Message::Raft(raft)) => raft.body.is_none(),
        Some(_) => false,
    }
}

/// The kind of a message that this release does not know, read from the bytes it was decoded from.
fn unknown_kind(message: &PeerMessage, raw: &[u8]) -> Option<String> {
    if !is_unknown(message) {
        return None;
    }
    let Some((number, content)) = fields(raw).next() else { return Some("none".to_owned()) };
    if message.message.is_none() {
        return Some(number.to_string());
    }
    // Sender, receiver and term come before the body.
    let body = fields(content).map(|(number, _)| number).find(|number| *number > 3);
    Some(body.map_or("none, of consensus".to_owned(), |number| format!("{number}, of consensus")))
}

/// The same of the first such message of a batch, from the bytes of its frame.
fn unknown_kind_in(batch: &Batch, raw: &[u8]) -> Option<String> {
    let messages = fields(raw).flat_map(|(_, batch)| fields(batch));
    batch.messages.iter().zip(messages).find_map(|(message, (_, raw))| unknown_kind(message, raw))
}

/// The numbers and contents of a message's fields, as far as they can be read.
fn fields(mut raw: &[u8]) -> impl Iterator<Item = (u32, &[u8])> {
    std::iter::from_fn(move || {
        let (number, kind) = decode_key(&mut raw).ok()?;
        let bytes = match kind {
            WireType::LengthDelimited => usize::try_from(decode_varint(&mut raw).ok()?).ok()?,
            WireType::Varint => {
                decode_varint(&mut raw).ok()?;
                0
            }
            WireType::SixtyFourBit => 8,
            WireType::ThirtyTwoBit => 4,
            WireType::StartGroup | WireType::EndGroup => return None,
        };
        let (content, after) = raw.split_at_checked(bytes)?;
        raw = after;
        Some((number, content))
    })
}

/// What stands before the bytes of a part.
struct PartHead {
    /// Its own length.
    head: usize,
    /// The length of the part's bytes.
    bytes: usize,
    /// How many bytes of the message follow in later parts.
    rest: u64,
}

impl PartHead {
    /// Reads a head as [`part_head`] writes it; `None` if it is not all there, or something else.
    fn read(frame: &[u8]) -> Option<PartHead> {
        let (prefix, mut after) = frame.split_first_chunk::<5>()?;
        let announced = u64::from(u32::from_be_bytes([prefix[1], prefix[2], prefix[3], prefix[4]]));
        let frame_body = after.len() as u64;
        if prefix[0] != 0 || !take_key(&mut after, 3, WireType::LengthDelimited) {
            return None;
        }
        let part_len = decode_varint(&mut after).ok()?;
        let part_body = after.len() as u64;
        let rest = match take_key(&mut after, 1, WireType::Varint) {
            true => decode_varint(&mut after).ok()?,
            false => 0,
        };
        if !take_key(&mut after, 2, WireType::LengthDelimited) {
            return None;
        }
        let bytes = decode_varint(&mut after).ok()?;
        let ends_together = |body: u64, len: u64| {
            (body - after.len() as u64).checked_add(bytes).is_some_and(|end| end == len)
        };
        let is_whole = ends_together(frame_body, announced) && ends_together(part_body, part_len);
        let head = frame.len() - after.len();
        is_whole.then_some(PartHead { head, bytes: usize::try_from(bytes).ok()?, rest })
    }
}

/// Takes the key of a field, if it comes next. All keys here have one byte.
fn take_key(from: &mut &[u8], field: u8, kind: WireType) -> bool {
    let comes_next = from.first() == Some(&(field << 3 | kind as u8));
    if comes_next {
        from.advance(1);
    }
    comes_next
}

/// Encodes a frame of whole messages.
pub(super) fn batch(messages: Vec<PeerMessage>) -> Bytes {
    grpc::frame(&Frame { frame: Some(frame::Frame::Batch(Batch { messages })) })
}

/// Encodes what stands before the bytes of a part, so that they need not be copied.
pub(super) fn part_head(bytes: usize, rest: usize) -> Bytes {
    let mut part = Vec::new();
    if rest > 0 {
        encode_key(1, WireType::Varint, &mut part);
        encode_varint(rest as u64, &mut part);
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
    use proto::peer as pb;

    fn refused(sequences: Vec<u64>) -> PeerMessage {
        let refused = pb::Refused { boot: 1, sequences };
        PeerMessage { message: Some(peer_message::Message::Refused(refused)) }
    }

    fn part(bytes: &[u8], rest: usize) -> Vec<u8> {
        [&part_head(bytes.len(), rest), bytes].concat()
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
        for (bytes, rest) in [(&b"x"[..], 0), (&[7; 300], 1), (&[1; 40_000], 1 << 30)] {
            let part_of = pb::Part { rest: rest as u64, bytes: Bytes::copy_from_slice(bytes) };
            let frame = Frame { frame: Some(frame::Frame::Part(part_of)) };
            assert!(part(bytes, rest) == grpc::frame(&frame)[..]);
        }
        assert_eq!(part(b"ab", 5)[..], *b"\0\0\0\0\x08\x1a\x06\x08\x05\x12\x02ab");
    }

    #[test]
    fn a_message_in_parts_comes_whole_and_batches_pass_between_them() {
        let long = refused((0..5000).map(|n| n << 40).collect());
        let bytes = long.encode_to_vec();
        let pieces: Vec<_> = bytes.chunks(700).collect();
        let mut stream = Vec::new();
        let mut rest = bytes.len();
        for (n, piece) in pieces.iter().enumerate() {
            rest -= piece.len();
            stream.extend(part(piece, rest));
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
        let cases: [(&[u8], &str); 10] = [
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
            (b"\0\0\0\0\x06\x1a\x04\x12\x02\x0f\x0f", "decode"),
            // The first part of 34 GB, and of more than there is memory anywhere.
            (b"\0\0\0\0\x0b\x1a\x09\x08\xff\xff\xff\xff\x7f\x12\x01x", "announced"),
            (
                b"\0\0\0\0\x10\x1a\x0e\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01\x12\x01x",
                "announced",
            ),
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
    fn messages_of_a_newer_release_are_named_and_the_others_come() {
        let known = refused(vec![3]).encode_to_vec();
        // Field 9 of a message; field 40 of one of consensus, after its sender.
        let (newer, consensus) = (b"\x4a\x01x", b"\x0a\x05\x08\x01\xc2\x02\x00");
        for (unknown, kind) in [(&newer[..], "9"), (consensus, "40, of consensus"), (b"", "none")] {
            let mut batch = Vec::new();
            for message in [&known[..], unknown, &known] {
                batch.extend([0x0a, message.len() as u8]);
                batch.extend(message);
            }
            let mut frame = vec![0, 0, 0, 0, batch.len() as u8 + 2, 0x12, batch.len() as u8];
            frame.extend(batch);
            let messages = Received::Messages(vec![refused(vec![3]); 2]);
            let expected = vec![messages, Received::Unknown(kind.to_owned())];
            assert_eq!(read(&mut Assembly::default(), &frame), (expected, None));
            if !unknown.is_empty() {
                let received = read(&mut Assembly::default(), &part(unknown, 0));
                assert_eq!(received, (vec![Received::Unknown(kind.to_owned())], None));
            }
        }
    }

    #[test]
    fn an_unusual_head_is_read_as_well() {
        let message = refused(vec![7]);
        let bytes = message.encode_to_vec();
        // The fields in the other order.
        let mut frame = vec![0, 0, 0, 0, 6 + 1, 0x1a, 5, 0x12, 1, bytes[0], 0x08];
        frame.push(bytes.len() as u8 - 1);
        let mut assembly = Assembly::default();
        assert_eq!(read(&mut assembly, &frame), (Vec::new(), None));
        let (received, why) = read(&mut assembly, &part(&bytes[1..], 0));
        assert_eq!((received, why), (vec![Received::Messages(vec![message])], None));
    }

    #[test]
    fn parts_that_do_not_continue_the_ones_before_are_refused() {
        for (rest, bytes) in [(100, 2), (99, 2), (98, 1), (0, 1), (usize::MAX, 1)] {
            let mut assembly = Assembly::default();
            assert_eq!(read(&mut assembly, &part(b"x", 100)), (Vec::new(), None));
            let (received, why) = read(&mut assembly, &part(&vec![0; bytes], rest));
            assert!(
                received.is_empty() && why.expect("it is refused").contains("does not continue")
            );
        }
    }

    #[test]
    fn what_is_announced_takes_little_memory_before_it_comes() {
        let mut assembly = Assembly::default();
        let first = part(b"x", MESSAGE_BYTES_MAX - 1);
        assert_eq!(read(&mut assembly, &first), (Vec::new(), None));
        assert!(assembly.message.capacity() <= 2 * ANNOUNCED_BYTES_MAX);
        let too_long = part(b"x", MESSAGE_BYTES_MAX);
        let (_, why) = read(&mut Assembly::default(), &too_long);
        assert!(why.expect("it is refused").contains("announced"));
    }
}
