//! One version of one key, as it lies in a block of the log.

use bytes::Bytes;

use crate::command::{KeyValue, LeaseId, Revision};

/// Where a record stands in the log. Later records have greater addresses, also within a revision.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Address(pub(crate) u64);

/// A version of a key: what a put made of it, or the tombstone that a delete left.
///
/// Its bytes are: length of the key, key, mod revision, version, mod revision less create revision,
/// lease, link, value. Numbers are varints (7 bits a byte, low bits first). A link is its distance
/// to the version before, 0 if there is none; if there is one, then the distance to the mark, and
/// the depth.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Record<'a> {
    pub(crate) at: Address,
    pub(crate) key: &'a [u8],
    pub(crate) mod_revision: i64,
    /// 0 for a tombstone.
    pub(crate) version: i64,
    pub(crate) create_revision: i64,
    pub(crate) lease: i64,
    pub(crate) link: Option<Link>,
    pub(crate) value: &'a [u8],
    /// The block that it is part of, to be shared; none while the block is being filled.
    home: Option<&'a Bytes>,
}

/// What a record is made of.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Draft<'a> {
    pub(crate) key: &'a [u8],
    pub(crate) value: &'a [u8],
    pub(crate) mod_revision: i64,
    /// 0 makes it a tombstone.
    pub(crate) version: i64,
    pub(crate) create_revision: i64,
    pub(crate) lease: i64,
    pub(crate) link: Option<Link>,
}

/// How a version leads to the older ones of its key, whether they are still held or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Link {
    /// The version before.
    pub(crate) prev: Address,
    /// One that is much older, if there is one; see [`crate::log::Log::link`].
    pub(crate) mark: Address,
    /// How many versions came before.
    pub(crate) depth: u64,
}

impl<'a> Draft<'a> {
    pub(crate) fn tombstone(key: &'a [u8], mod_revision: i64, link: Option<Link>) -> Draft<'a> {
        let (version, create_revision, lease) = (0, 0, 0);
        Draft { key, value: &[], mod_revision, version, create_revision, lease, link }
    }

    /// As many bytes as the record may have.
    pub(crate) fn len_max(&self) -> usize {
        const NUMBERS: usize = 8;
        const NUMBER_BYTES_MAX: usize = 10;
        self.key.len() + self.value.len() + NUMBERS * NUMBER_BYTES_MAX
    }

    /// Appends the record that will have this address.
    pub(crate) fn write(&self, at: Address, block: &mut Vec<u8>) {
        write(block, self.key.len() as u64);
        block.extend_from_slice(self.key);
        let age = self.mod_revision.wrapping_sub(self.create_revision);
        for number in [self.mod_revision, self.version, age, self.lease] {
            write(block, number as u64);
        }
        match self.link {
            None => write(block, 0),
            Some(link) => {
                for number in [at.0 - link.prev.0, at.0 - link.mark.0, link.depth] {
                    write(block, number);
                }
            }
        }
        block.extend_from_slice(self.value);
    }
}

/// The key of the record with these bytes.
pub(crate) fn key(bytes: &[u8]) -> &[u8] {
    let (len, start) = read(bytes, 0);
    &bytes[start..start + len as usize]
}

impl<'a> Record<'a> {
    pub(crate) fn read(at: Address, bytes: &'a [u8], home: Option<&'a Bytes>) -> Record<'a> {
        let (len, start) = read(bytes, 0);
        let end = start + len as usize;
        let (mod_revision, next) = read(bytes, end);
        let (version, next) = read(bytes, next);
        let (age, next) = read(bytes, next);
        let (lease, next) = read(bytes, next);
        let (link, next) = read_link(at, bytes, next);
        Record {
            at,
            key: &bytes[start..end],
            mod_revision: mod_revision as i64,
            version: version as i64,
            create_revision: (mod_revision as i64).wrapping_sub(age as i64),
            lease: lease as i64,
            link,
            value: &bytes[next..],
            home,
        }
    }

    pub(crate) fn is_tombstone(&self) -> bool {
        self.version == 0
    }

    /// How many versions of its key came before.
    pub(crate) fn depth(&self) -> u64 {
        self.link.map_or(0, |link| link.depth)
    }

    /// Bytes of key and value.
    pub(crate) fn payload_len(&self) -> u64 {
        (self.key.len() + self.value.len()) as u64
    }

    /// A part of the record, sharing its block if that is full.
    pub(crate) fn lend(&self, part: &[u8]) -> Bytes {
        match self.home {
            Some(block) => block.slice_ref(part),
            None => Bytes::copy_from_slice(part),
        }
    }

    /// The record as it is answered, sharing its block if that is full.
    pub(crate) fn key_value(&self) -> KeyValue {
        KeyValue {
            key: self.lend(self.key),
            create_revision: Revision(self.create_revision),
            mod_revision: Revision(self.mod_revision),
            version: self.version,
            value: self.lend(self.value),
            lease: LeaseId(self.lease),
        }
    }
}

fn read_link(at: Address, bytes: &[u8], start: usize) -> (Option<Link>, usize) {
    let (prev, next) = read(bytes, start);
    if prev == 0 {
        return (None, next);
    }
    let (mark, next) = read(bytes, next);
    let (depth, next) = read(bytes, next);
    let back = |distance| Address(at.0 - distance);
    (Some(Link { prev: back(prev), mark: back(mark), depth }), next)
}

fn write(block: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        block.push(number as u8 | 0x80);
        number >>= 7;
    }
    block.push(number as u8);
}

/// The number at `at`, and where it ends. Most have one byte.
#[inline]
fn read(block: &[u8], at: usize) -> (u64, usize) {
    let byte = block[at];
    if byte < 0x80 { (u64::from(byte), at + 1) } else { read_long(block, at) }
}

fn read_long(block: &[u8], at: usize) -> (u64, usize) {
    let mut number = 0;
    for (nth, &byte) in block[at..].iter().enumerate() {
        number |= u64::from(byte & 0x7f) << (7 * nth);
        if byte < 0x80 {
            return (number, at + nth + 1);
        }
    }
    unreachable!("a record ends with its value, not within a number")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_gives_back_what_it_was_made_of() {
        let link = Link { prev: Address(999_999), mark: Address(0), depth: 7 };
        for lease in [0, 1, -1, i64::MIN, i64::MAX] {
            for len in [1, 127, 128, 20_000] {
                for (create_revision, link) in [(i64::MAX, None), (300, Some(link))] {
                    let (key, value) = (vec![7; len], vec![9; len - 1]);
                    let draft = Draft {
                        key: &key,
                        value: &value,
                        mod_revision: i64::MAX,
                        version: 3,
                        create_revision,
                        lease,
                        link,
                    };
                    let mut block = Vec::new();
                    draft.write(Address(1_000_000), &mut block);
                    let home = Bytes::from(block);
                    for shared in [None, Some(&home)] {
                        let record = Record::read(Address(1_000_000), &home, shared);
                        let kv = record.key_value();
                        assert_eq!((&kv.key[..], &kv.value[..]), (&key[..], &value[..]));
                        assert_eq!((kv.mod_revision.0, kv.version), (i64::MAX, 3));
                        assert_eq!((kv.create_revision.0, kv.lease.0), (create_revision, lease));
                        assert_eq!((record.link, super::key(&home)), (link, &key[..]));
                        assert_eq!(record.payload_len(), 2 * len as u64 - 1);
                        assert!(!record.is_tombstone());
                    }
                }
            }
        }
    }
}
