//! What an entry of the log carries: a header, then the request's protobuf bytes as they came.
//!
//! | bytes | what |
//! |---|---|
//! | 0 | version of this layout: 1 |
//! | 1 | [`Kind`] |
//! | 2..8 | zero, kept for later use |
//! | 8..16 | origin: the member that took the request |
//! | 16..24 | origin: which life of that member |
//! | 24..32 | origin: which request of that life |
//! | 32.. | the request |
//!
//! Numbers are little endian. The bytes are made once; the same buffer goes to the log, the disk,
//! the peers and the store.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use raft::NodeId;
use std::fmt;

/// The version of the layout that this release writes, and the only one it knows.
const VERSION: u8 = 1;
const HEADER_BYTES: usize = 32;

/// What the request is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `etcdserverpb.PutRequest`
    Put = 1,
    /// `etcdserverpb.DeleteRangeRequest`
    DeleteRange = 2,
    /// `etcdserverpb.TxnRequest`
    Txn = 3,
    /// `etcdserverpb.CompactionRequest`
    Compact = 4,
    /// `raftkv.log.v1.Publish`: a member says its name and where clients find it.
    Publish = 5,
}

/// Where a request came from. No two requests of a cluster have the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Origin {
    /// The member that took it from a client.
    pub member: NodeId,
    /// The life of that member.
    pub boot: u64,
    /// Counted from 1 in each life.
    pub sequence: u64,
}

/// What stands before the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// What the request is.
    pub kind: Kind,
    /// Where it came from.
    pub origin: Origin,
}

/// A request that is ready for the log but for its origin, which the replica fills in.
#[derive(Debug)]
pub struct Proposal {
    kind: Kind,
    buffer: BytesMut,
    /// A compaction is answered when this member has removed what it gave up.
    pub(crate) physical: bool,
}

/// An entry of a version or kind that this release does not know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnknownEntry {
    /// The version of its layout.
    pub version: u8,
    /// What the request is, as a number.
    pub kind: u8,
}

impl Proposal {
    /// Encodes a request, once and for all.
    pub fn new(kind: Kind, request: &impl prost::Message) -> Proposal {
        let mut buffer = BytesMut::with_capacity(HEADER_BYTES + request.encoded_len());
        buffer.put_bytes(0, HEADER_BYTES);
        request.encode(&mut buffer).expect("the buffer is as large as the request");
        Proposal { kind, buffer, physical: false }
    }

    /// Takes a request's bytes as they came; whoever does this has decoded them once, so that they
    /// are known to be a message.
    pub fn encoded(kind: Kind, request: &[u8]) -> Proposal {
        let mut buffer = BytesMut::with_capacity(HEADER_BYTES + request.len());
        buffer.put_bytes(0, HEADER_BYTES);
        buffer.put_slice(request);
        Proposal { kind, buffer, physical: false }
    }

    /// A compaction that is answered only when this member has removed what it gave up.
    pub fn physical(mut self) -> Proposal {
        self.physical = true;
        self
    }

    /// What the request is.
    pub(crate) fn kind(&self) -> Kind {
        self.kind
    }

    /// Whether its answer waits for what it compacts to be gone.
    pub fn is_physical(&self) -> bool {
        self.physical
    }

    /// Bytes of the entry's payload.
    pub(crate) fn bytes(&self) -> usize {
        self.buffer.len()
    }

    /// Bytes of the request.
    pub fn request_bytes(&self) -> usize {
        self.buffer.len() - HEADER_BYTES
    }

    /// Completes the header.
    pub(crate) fn seal(mut self, origin: Origin) -> Bytes {
        let mut header = &mut self.buffer[..HEADER_BYTES];
        header.put_u8(VERSION);
        header.put_u8(self.kind as u8);
        header.put_bytes(0, 6);
        header.put_u64_le(origin.member.0);
        header.put_u64_le(origin.boot);
        header.put_u64_le(origin.sequence);
        self.buffer.freeze()
    }

    /// Takes back what was sealed, to be sealed anew; copies only what is still shared.
    pub(crate) fn unseal(kind: Kind, sealed: Bytes, physical: bool) -> Proposal {
        let buffer = sealed.try_into_mut().unwrap_or_else(|shared| BytesMut::from(&shared[..]));
        Proposal { kind, buffer, physical }
    }
}

impl Header {
    /// Reads the header of an entry; what remains is the request.
    ///
    /// # Errors
    /// [`UnknownEntry`] if this release cannot know what the entry means.
    pub fn decode(entry: &Bytes) -> Result<(Header, Bytes), UnknownEntry> {
        let (version, kind) =
            (entry.first().copied().unwrap_or(0), entry.get(1).copied().unwrap_or(0));
        let unknown = UnknownEntry { version, kind };
        // The reserved bytes are checked, or no later release could give them a meaning.
        let is_whole = version == VERSION && entry.len() >= HEADER_BYTES;
        if !is_whole || entry[2..8] != [0; 6] {
            return Err(unknown);
        }
        let kind = match kind {
            1 => Kind::Put,
            2 => Kind::DeleteRange,
            3 => Kind::Txn,
            4 => Kind::Compact,
            5 => Kind::Publish,
            _ => return Err(unknown),
        };
        let mut rest = &entry[8..HEADER_BYTES];
        let origin = Origin {
            member: NodeId(rest.get_u64_le()),
            boot: rest.get_u64_le(),
            sequence: rest.get_u64_le(),
        };
        Ok((Header { kind, origin }, entry.slice(HEADER_BYTES..)))
    }
}

impl fmt::Display for UnknownEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let UnknownEntry { version, kind } = self;
        write!(
            f,
            "the log holds an entry of version {version}, kind {kind}; this release knows version \
             {VERSION}: start the newer release that wrote it"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sealed_is_read_back() {
        let request = proto::etcdserverpb::CompactionRequest { revision: 7, physical: true };
        let origin = Origin { member: NodeId(0xfedc), boot: u64::MAX, sequence: 3 };
        let sealed = Proposal::new(Kind::Compact, &request).seal(origin);
        let (header, body) = Header::decode(&sealed).expect("known");
        assert_eq!(header, Header { kind: Kind::Compact, origin });
        assert_eq!(body, prost::Message::encode_to_vec(&request));
    }

    #[test]
    fn what_is_sealed_anew_leaves_copies_alone() {
        let request = proto::etcdserverpb::CompactionRequest { revision: 7, physical: true };
        let origin = Origin { member: NodeId(1), boot: 2, sequence: 3 };
        let first = Proposal::new(Kind::Compact, &request).seal(origin);
        let copy = first.clone();
        let again = Origin { sequence: 4, ..origin };
        let second = Proposal::unseal(Kind::Compact, first, false).seal(again);
        let (header, body) = Header::decode(&copy).expect("known");
        assert_eq!(header.origin, origin);
        assert_eq!(Header::decode(&second), Ok((Header { origin: again, ..header }, body)));
    }

    #[test]
    fn what_is_unknown_is_said() {
        for (bytes, version, kind) in
            [(&[][..], 0, 0), (&[1, 1], 1, 1), (&[2; 40], 2, 2), (&[1; 31], 1, 1)]
        {
            let unknown = Header::decode(&Bytes::copy_from_slice(bytes));
            assert_eq!(unknown, Err(UnknownEntry { version, kind }));
        }
        let mut entry = [0; 40];
        (entry[0], entry[1]) = (1, 99);
        let unknown = Header::decode(&Bytes::copy_from_slice(&entry));
        assert_eq!(unknown, Err(UnknownEntry { version: 1, kind: 99 }));
        (entry[1], entry[7]) = (1, 1);
        let unknown = Header::decode(&Bytes::copy_from_slice(&entry));
        assert_eq!(unknown, Err(UnknownEntry { version: 1, kind: 1 }), "reserved bytes are zero");
    }
}
