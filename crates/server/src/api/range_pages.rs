//! A range read page by page from one view, so that no more of it is in memory than is wanted.

use super::outcome;
use crate::texts;
use bytes::{BufMut, Bytes, BytesMut};
use proto::etcdserverpb as pb;
use store::{KeyValue, Range, SortOrder, SortTarget, View};
use tonic::Status;

/// Keys that are read at once: a third of a millisecond's work.
pub(super) const PAGE_KEYS: usize = 1000;

/// Answers of one range that merge to the whole; the last one has header and counts.
pub(super) struct RangePages {
    view: View,
    /// What is still to be read; nothing if all is.
    rest: Option<Range>,
    found: std::vec::IntoIter<KeyValue>,
    /// The last answer.
    last: Option<pb::RangeResponse>,
}

/// Whether the keys are answered in their own order, as they are now.
pub(super) fn is_plain(range: &Range) -> bool {
    range.revision <= 0
        && range.sort_target == SortTarget::Key
        && range.sort_order == SortOrder::None
        && !has_filters(range)
}

fn has_filters(range: &Range) -> bool {
    range.min_mod_revision != 0
        || range.max_mod_revision != 0
        || range.min_create_revision != 0
        || range.max_create_revision != 0
}

impl RangePages {
    /// Whether a range can be read page by page: in the order of the keys, as they are now.
    pub(super) fn is_paged(range: &Range) -> bool {
        range.sort_order != SortOrder::Descend
            && is_plain(&Range { sort_order: SortOrder::None, ..range.clone() })
            && !range.count_only
    }

    /// Begins to read. What is not in the order of the keys, or of the past, is found as a whole
    /// here, without copying keys or values.
    ///
    /// # Errors
    /// When the range cannot be read.
    pub(super) fn new(
        header: pb::ResponseHeader,
        view: View,
        mut range: Range,
    ) -> Result<RangePages, Status> {
        let (limit, is_paged) = (range.limit, RangePages::is_paged(&range));
        if is_paged {
            range.sort_order = SortOrder::None;
        }
        let mut pages =
            RangePages { view, rest: Some(range), found: Vec::new().into_iter(), last: None };
        let (count, more) = if is_paged {
            let count = pages.read_page()?;
            (count, limit > 0 && count > limit)
        } else {
            let range = pages.rest.take().expect("it was put there above");
            let result = pages.view.range(&range).map_err(|refusal| texts::refused(&refusal))?;
            pages.found = result.kvs.into_iter();
            (result.count, result.more)
        };
        let last = pb::RangeResponse { header: Some(header), kvs: Vec::new(), more, count };
        pages.last = Some(last);
        Ok(pages)
    }

    /// Reads the next page. Returns how many keys there are from its first on.
    fn read_page(&mut self) -> Result<i64, Status> {
        let Some(mut range) = self.rest.take() else { return Ok(0) };
        let limit = range.limit;
        let page = PAGE_KEYS as i64;
        range.limit = if limit > 0 { limit.min(page) } else { page };
        let result = self.view.range(&range).map_err(|refusal| texts::refused(&refusal))?;
        let read = result.kvs.len() as i64;
        if let Some(last) = result.kvs.last()
            && result.more
            && limit != read
        {
            let rest = if limit > 0 { limit - read } else { limit };
            self.rest = Some(Range { key: after(&last.key), limit: rest, ..range });
        }
        self.found = result.kvs.into_iter();
        Ok(result.count)
    }

    /// The next answer: so many keys at most, and closed once they have so many bytes. Nothing after
    /// the last.
    pub(super) fn next(&mut self, keys_max: usize, bytes_max: usize) -> Option<pb::RangeResponse> {
        self.last.as_ref()?;
        let mut kvs = Vec::new();
        let mut bytes = 0;
        while kvs.len() < keys_max && bytes < bytes_max && self.fill() {
            kvs.extend(self.found.next().map(|kv| {
                bytes += kv.key.len() + kv.value.len() + 32;
                outcome::key_value(kv)
            }));
        }
        if self.fill() {
            return Some(pb::RangeResponse { kvs, ..pb::RangeResponse::default() });
        }
        self.last.take().map(|last| pb::RangeResponse { kvs, ..last })
    }

    /// Whether there is one more key.
    fn fill(&mut self) -> bool {
        if self.found.len() == 0 && self.rest.is_some() {
            // The view does not change: what could be read at first can be read now.
            let _ = self.read_page();
        }
        self.found.len() > 0
    }
}

/// The first key after this one.
fn after(key: &[u8]) -> Bytes {
    let mut next = BytesMut::with_capacity(key.len() + 1);
    next.put_slice(key);
    next.put_u8(0);
    next.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;
    use store::{Command, Put, Store};

    fn view(keys: usize) -> View {
        let mut store = Store::new();
        for n in 0..keys {
            let (key, value) = (format!("{n:05}").into(), vec![b'v'; n % 90].into());
            store.apply(&Command::Put(Put { key, value, ..Put::default() })).unwrap();
        }
        store.view()
    }

    #[test]
    fn pages_merge_to_the_whole() {
        let view = view(3456);
        let all = Range { key: "0".into(), range_end: "9".into(), ..Range::default() };
        let ascending = |limit| Range { limit, sort_order: SortOrder::Ascend, ..all.clone() };
        let ranges = [
            all.clone(),
            Range { limit: 1, ..all.clone() },
            Range { limit: 1000, ..all.clone() },
            Range { limit: 1001, ..all.clone() },
            Range { limit: 3456, ..all.clone() },
            Range { limit: 5000, ..all.clone() },
            Range { count_only: true, ..all.clone() },
            Range { keys_only: true, range_end: "\0".into(), ..all.clone() },
            Range { revision: 2000, limit: 1999, ..all.clone() },
            Range { sort_order: SortOrder::Descend, limit: 1500, ..all.clone() },
            Range { sort_target: SortTarget::Value, ..all.clone() },
            Range { min_mod_revision: 70, limit: 1200, ..all.clone() },
            Range { range_end: Bytes::new(), key: "00017".into(), ..all.clone() },
            Range { key: "x".into(), range_end: "y".into(), ..all.clone() },
            ascending(0),
            ascending(2222),
        ];
        for range in ranges {
            for (keys_max, bytes_max) in
                [(PAGE_KEYS, usize::MAX), (10, 100), (7, 1), (usize::MAX, 5000)]
            {
                let header = pb::ResponseHeader { revision: 9, ..Default::default() };
                let mut pages = RangePages::new(header, view.clone(), range.clone()).unwrap();
                let parts: Vec<_> =
                    std::iter::from_fn(|| pages.next(keys_max, bytes_max)).collect();
                let (last, others) = parts.split_last().unwrap();
                assert!(others.iter().all(|part| part.header.is_none() && part.count == 0));
                assert!(parts.iter().all(|part| part.kvs.len() <= keys_max));
                let kvs: Vec<_> = parts.iter().flat_map(|part| part.kvs.clone()).collect();
                let merged = pb::RangeResponse { kvs, ..last.clone() };
                let whole = outcome::range(Some(header), view.range(&range).unwrap());
                assert_eq!(merged, whole, "{range:?} by {keys_max} keys, {bytes_max} bytes");
            }
        }
    }
}
