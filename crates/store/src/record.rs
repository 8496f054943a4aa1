//! One version of one key, in one block of memory.

use std::sync::Arc;

use bytes::Bytes;

use crate::command::{KeyValue, LeaseId, Revision};

/// A version of a key: what a put made of it, or the tombstone that a delete left.
///
/// Key, numbers and value lie in one reference-counted block of exactly their size, which the
/// tree and the history share; so neither costs more than a pointer, and nothing keeps the buffer
/// alive that a request came in. Layout: length of the key, key, mod revision, version, and for a
/// put also create revision, lease and value. Numbers are varints (7 bits a byte, low bits first).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Record(Arc<[u8]>);

impl AsRef<[u8]> for Record {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

/// A record's numbers, and where its value begins.
struct Fields {
    key_start: usize,
    key_end: usize,
    mod_revision: i64,
    version: i64,
    create_revision: i64,
    lease: i64,
    value_start: usize,
}

impl Record {
    pub(crate) fn put(
        key: &[u8],
        value: &[u8],
        modified: i64,
        version: i64,
        create: i64,
        lease: i64,
    ) -> Record {
        let mut block = Vec::with_capacity(key.len() + value.len() + 40);
        write(&mut block, key.len() as u64);
        block.extend_from_slice(key);
        for number in [modified, version, create, lease] {
            write(&mut block, number as u64);
        }
        block.extend_from_slice(value);
        Record(block.into())
    }

    pub(crate) fn tombstone(key: &[u8], modified: i64) -> Record {
        Record::put(key, &[], modified, 0, 0, 0)
    }

    pub(crate) fn key(&self) -> &[u8] {
        let (len, start) = read(&self.0, 0);
        &self.0[start..start + len as usize]
    }

    pub(crate) fn mod_revision(&self) -> i64 {
        let (len, start) = read(&self.0, 0);
        read(&self.0, start + len as usize).0 as i64
    }

    pub(crate) fn is_tombstone(&self) -> bool {
        self.fields().version == 0
    }

    pub(crate) fn version(&self) -> i64 {
        self.fields().version
    }

    pub(crate) fn create_revision(&self) -> i64 {
        self.fields().create_revision
    }

    pub(crate) fn lease(&self) -> i64 {
        self.fields().lease
    }

    pub(crate) fn value(&self) -> &[u8] {
        &self.0[self.fields().value_start..]
    }

    /// Bytes of key and value.
    pub(crate) fn payload_len(&self) -> u64 {
        let at = self.fields();
        (at.key_end - at.key_start + self.0.len() - at.value_start) as u64
    }

    /// The record as it is answered, sharing the block.
    pub(crate) fn key_value(&self) -> KeyValue {
        let at = self.fields();
        let block = Bytes::from_owner(self.clone());
        KeyValue {
            key: block.slice(at.key_start..at.key_end),
            create_revision: Revision(at.create_revision),
            mod_revision: Revision(at.mod_revision),
            version: at.version,
            value: block.slice(at.value_start..),
            lease: LeaseId(at.lease),
        }
    }

    fn fields(&self) -> Fields {
        let (len, key_start) = read(&self.0, 0);
        let key_end = key_start + len as usize;
        let (mod_revision, next) = read(&self.0, key_end);
        let (version, next) = read(&self.0, next);
        let (create_revision, next) = read(&self.0, next);
        let (lease, value_start) = read(&self.0, next);
        Fields {
            key_start,
            key_end,
            mod_revision: mod_revision as i64,
            version: version as i64,
            create_revision: create_revision as i64,
            lease: lease as i64,
            value_start,
        }
    }
}

fn write(block: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        block.push(number as u8 | 0x80);
        number >>= 7;
    }
    block.push(number as u8);
}

/// The number at `at`, and where it ends.
fn read(block: &[u8], mut at: usize) -> (u64, usize) {
    let (mut number, mut shift) = (0, 0);
    loop {
        let byte = block[at];
        number |= u64::from(byte & 0x7f) << shift;
        at += 1;
        if byte < 0x80 {
            return (number, at);
        }
        shift += 7;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_gives_back_what_it_was_made_of() {
        for lease in [0, 1, -1, i64::MIN, i64::MAX] {
            for len in [1, 127, 128, 20_000] {
                let (key, value) = (vec![7; len], vec![9; len - 1]);
                let record = Record::put(&key, &value, i64::MAX, 3, 300, lease);
                let kv = record.key_value();
                assert_eq!((&kv.key[..], &kv.value[..]), (&key[..], &value[..]));
                assert_eq!((kv.mod_revision.0, kv.version), (i64::MAX, 3));
                assert_eq!((kv.create_revision.0, kv.lease.0), (300, lease));
                assert_eq!(record.payload_len(), 2 * len as u64 - 1);
                assert!(!record.is_tombstone());
            }
        }
        assert!(Record::tombstone(b"k", 2).is_tombstone());
        assert_eq!(size_of::<Option<Record>>(), 16, "a slot is one pointer and a length");
    }
}
