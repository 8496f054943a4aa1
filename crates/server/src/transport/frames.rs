//! What streams are made of: the size of frames, and what comes in.

use super::root_cause;
use crate::grpc;
use bytes::{Bytes, BytesMut};
use h2::RecvStream;
use prost::Message;
use proto::peer::{Frame, frame};
use std::future::poll_fn;

/// A frame is closed once it holds so many bytes.
pub(super) const FRAME_BYTES: usize = 1 << 20;
/// No frame is larger: one message beyond [`FRAME_BYTES`] may hold an append of full size.
const FRAME_BYTES_MAX: usize = 128 << 20;

/// What a peer sends, frame by frame.
pub(super) struct Frames {
    body: RecvStream,
    bytes: BytesMut,
}

impl Frames {
    /// Those of a call.
    pub(super) fn new(body: RecvStream) -> Frames {
        Frames { body, bytes: BytesMut::new() }
    }

    /// The next frame; `None` at the end.
    ///
    /// # Errors
    /// Why there is none.
    pub(super) async fn next(&mut self) -> Result<Option<frame::Frame>, String> {
        loop {
            if let Some(message) = split(&mut self.bytes)? {
                let frame = Frame::decode(message).map_err(|error| error.to_string())?;
                return frame.frame.map(Some).ok_or_else(|| "it sent an empty frame".to_owned());
            }
            let Some(part) = poll_fn(|context| self.body.poll_data(context)).await else {
                return Ok(None);
            };
            let part = part.map_err(root_cause)?;
            let _ = self.body.flow_control().release_capacity(part.len());
            self.bytes.extend_from_slice(&part);
        }
    }
}

fn split(bytes: &mut BytesMut) -> Result<Option<Bytes>, String> {
    grpc::split_message(bytes, FRAME_BYTES_MAX).map_err(|status| status.message().to_owned())
}
