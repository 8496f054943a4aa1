use bytes::Bytes;
use proto::etcdserverpb::{DeleteRangeRequest, PutRequest, RangeRequest};

/// Which way keys are sorted.
pub use proto::etcdserverpb::range_request::SortOrder;
/// What keys are sorted by.
pub use proto::etcdserverpb::range_request::SortTarget;

/// As a range's end: every key from its start on.
const NO_END: &[u8] = b"\0";

/// A read of one key or a range of keys.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Get {
    pub(crate) request: RangeRequest,
}

impl Get {
    /// One key.
    pub fn key(key: impl Into<Bytes>) -> Get {
        Get { request: RangeRequest { key: key.into(), ..RangeRequest::default() } }
    }

    /// Keys from `start` on and before `end`.
    pub fn range(start: impl Into<Bytes>, end: impl Into<Bytes>) -> Get {
        let (key, range_end) = (start.into(), end.into());
        Get { request: RangeRequest { key, range_end, ..RangeRequest::default() } }
    }

    /// Keys that begin with `prefix`; with the empty prefix, all.
    pub fn prefix(prefix: impl Into<Bytes>) -> Get {
        let (start, end) = prefix_range(prefix.into());
        Get::range(start, end)
    }

    /// Keys from `start` on.
    pub fn from_key(start: impl Into<Bytes>) -> Get {
        Get::range(start_or_first(start.into()), NO_END)
    }

    /// At most so many keys; 0 for all.
    pub fn limit(mut self, keys_max: i64) -> Get {
        self.request.limit = keys_max;
        self
    }

    /// As of an earlier revision.
    pub fn revision(mut self, revision: i64) -> Get {
        self.request.revision = revision;
        self
    }

    /// Sorted, before the limit cuts.
    pub fn sort(mut self, target: SortTarget, order: SortOrder) -> Get {
        // Ascending by key is the order of the store: not asking for it is faster.
        let order = match (target, order) {
            (SortTarget::Key, SortOrder::Ascend) => SortOrder::None,
            _ => order,
        };
        self.request.sort_target = target.into();
        self.request.sort_order = order.into();
        self
    }

    /// What the asked member has, possibly stale, but even if it cannot reach the others.
    pub fn serializable(mut self) -> Get {
        self.request.serializable = true;
        self
    }

    /// Without values.
    pub fn keys_only(mut self) -> Get {
        self.request.keys_only = true;
        self
    }

    /// Nothing but the number of keys.
    pub fn count_only(mut self) -> Get {
        self.request.count_only = true;
        self
    }

    /// Only keys created at revisions `min` to `max`; 0 for no bound.
    pub fn created_between(mut self, min: i64, max: i64) -> Get {
        self.request.min_create_revision = min;
        self.request.max_create_revision = max;
        self
    }

    /// Only keys last changed at revisions `min` to `max`; 0 for no bound.
    pub fn modified_between(mut self, min: i64, max: i64) -> Get {
        self.request.min_mod_revision = min;
        self.request.max_mod_revision = max;
        self
    }
}

impl<K: Into<Bytes>> From<K> for Get {
    fn from(key: K) -> Get {
        Get::key(key)
    }
}

/// A write of one key.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Put {
    pub(crate) request: PutRequest,
}

impl Put {
    /// `key` gets `value`.
    pub fn new(key: impl Into<Bytes>, value: impl Into<Bytes>) -> Put {
        let (key, value) = (key.into(), value.into());
        Put { request: PutRequest { key, value, ..PutRequest::default() } }
    }

    /// Attached to a lease.
    pub fn lease(mut self, lease: i64) -> Put {
        self.request.lease = lease;
        self
    }

    /// Answer with what was replaced.
    pub fn prev_kv(mut self) -> Put {
        self.request.prev_kv = true;
        self
    }

    /// Keep the value that the key has.
    pub fn ignore_value(mut self) -> Put {
        self.request.ignore_value = true;
        self
    }

    /// Keep the lease that the key has.
    pub fn ignore_lease(mut self) -> Put {
        self.request.ignore_lease = true;
        self
    }
}

impl<K: Into<Bytes>, V: Into<Bytes>> From<(K, V)> for Put {
    fn from((key, value): (K, V)) -> Put {
        Put::new(key, value)
    }
}

/// A deletion of one key or a range of keys.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Delete {
    pub(crate) request: DeleteRangeRequest,
}

impl Delete {
    /// One key.
    pub fn key(key: impl Into<Bytes>) -> Delete {
        Delete { request: DeleteRangeRequest { key: key.into(), ..DeleteRangeRequest::default() } }
    }

    /// Keys from `start` on and before `end`.
    pub fn range(start: impl Into<Bytes>, end: impl Into<Bytes>) -> Delete {
        let (key, range_end) = (start.into(), end.into());
        Delete { request: DeleteRangeRequest { key, range_end, prev_kv: false } }
    }

    /// Keys that begin with `prefix`; with the empty prefix, all.
    pub fn prefix(prefix: impl Into<Bytes>) -> Delete {
        let (start, end) = prefix_range(prefix.into());
        Delete::range(start, end)
    }

    /// Keys from `start` on.
    pub fn from_key(start: impl Into<Bytes>) -> Delete {
        Delete::range(start_or_first(start.into()), NO_END)
    }

    /// Answer with what was deleted.
    pub fn prev_kv(mut self) -> Delete {
        self.request.prev_kv = true;
        self
    }
}

impl<K: Into<Bytes>> From<K> for Delete {
    fn from(key: K) -> Delete {
        Delete::key(key)
    }
}

/// The empty key is not a key; the first possible one is a zero byte.
fn start_or_first(start: Bytes) -> Bytes {
    if start.is_empty() { Bytes::from_static(b"\0") } else { start }
}

/// The range of all keys that begin with `prefix`.
fn prefix_range(prefix: Bytes) -> (Bytes, Bytes) {
    if prefix.is_empty() {
        return (start_or_first(prefix), Bytes::from_static(NO_END));
    }
    // The first key after them ends in the next greater byte; 0xff has none, so the byte before it grows.
    let kept = prefix.iter().rposition(|byte| *byte < 0xff);
    let end = match kept {
        Some(last) => {
            let mut end = prefix[..=last].to_vec();
            end[last] += 1;
            end.into()
        }
        None => Bytes::from_static(NO_END),
    };
    (prefix, end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_end_before_the_next_key() {
        let table: [(&[u8], &[u8], &[u8]); 5] = [
            (b"a", b"a", b"b"),
            (b"a\xff", b"a\xff", b"b"),
            (b"a\xff\xfe", b"a\xff\xfe", b"a\xff\xff"),
            (b"\xff\xff", b"\xff\xff", b"\0"),
            (b"", b"\0", b"\0"),
        ];
        for (prefix, start, end) in table {
            assert_eq!(prefix_range(Bytes::from_static(prefix)), (start.into(), end.into()));
        }
    }
}
