//! How much work one command may make, so that no request keeps a member from everything else.
//!
//! Every member applies a command, so every member must refuse the same ones. The account is
//! therefore kept in terms of what the store holds and never of how a member stores it, how far it
//! has been swept, or whether it was asked for the answer. It is kept while the command is examined,
//! before its first change.

use std::collections::BTreeMap;

use crate::command::Refusal;
use crate::view::Span;

/// What the work of one command may come to. All members of a cluster must have the same bounds.
///
/// A *key* is one that a condition comes to, or that is deleted. What takes longer counts as more.
/// Measured by `examples/dearest`: a key is some 0.2 us where nothing is in a cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// The most keys.
    pub keys_max: u64,
    /// The most bytes of keys and values that are answered, compared, or kept by a put that ignores
    /// its own value. Bytes that came with the request do not count.
    pub bytes_max: u64,
}

impl Bounds {
    /// Each condition and operation counts as so many keys, besides those that it comes to: it has
    /// something to search for.
    pub const STEP_KEYS: u64 = 24;
    /// A key that a range comes to counts as so many, for it is looked at twice.
    pub const RANGE_KEYS: u64 = 2;
    /// A key that a range in a transaction reads at a revision it names counts as so many.
    pub const PAST_KEYS: u64 = 16;
    /// A key that is deleted counts as so many if what it held is answered.
    pub const DELETE_PREV_KEYS: u64 = 4;
    /// A byte of a value that a put keeps counts as so many, for it is stored anew.
    pub const KEPT_BYTES: u64 = 2;
}

impl Default for Bounds {
    fn default() -> Bounds {
        Bounds { keys_max: 50_000, bytes_max: 32 << 20 }
    }
}

/// The work of one command so far.
pub(crate) struct Account<'a> {
    bounds: Bounds,
    keys: u64,
    bytes: u64,
    /// The puts so far, and the bytes of their keys and values.
    puts: BTreeMap<&'a [u8], u64>,
    /// Those that no range has asked for yet.
    latest_puts: Vec<(&'a [u8], u64)>,
    /// Keys deleted so far.
    deleted: u64,
}

impl<'a> Account<'a> {
    pub(crate) fn new(bounds: Bounds) -> Account<'a> {
        let (puts, latest_puts) = (BTreeMap::new(), Vec::new());
        Account { bounds, keys: 0, bytes: 0, puts, latest_puts, deleted: 0 }
    }

    pub(crate) fn keys(&mut self, keys: u64) -> Result<(), Refusal> {
        self.keys = self.keys.saturating_add(keys);
        let max = self.bounds.keys_max;
        if self.keys > max { Err(Refusal::TooManyKeys { max }) } else { Ok(()) }
    }

    pub(crate) fn bytes(&mut self, bytes: u64) -> Result<(), Refusal> {
        self.bytes = self.bytes.saturating_add(bytes);
        let max = self.bounds.bytes_max;
        if self.bytes > max { Err(Refusal::TooManyBytes { max }) } else { Ok(()) }
    }

    /// Remembers a put and the bytes of its key and value.
    pub(crate) fn put(&mut self, key: &'a [u8], bytes: u64) {
        self.latest_puts.push((key, bytes));
    }

    pub(crate) fn delete(&mut self, keys: u64) {
        self.deleted = self.deleted.saturating_add(keys);
    }

    /// How many keys were put so far.
    pub(crate) fn all_puts(&self) -> u64 {
        (self.puts.len() + self.latest_puts.len()) as u64
    }

    /// How many keys were deleted so far.
    pub(crate) fn deleted(&self) -> u64 {
        self.deleted
    }

    /// How many keys of the span were put so far, and their bytes; of the first `most` alone.
    pub(crate) fn puts_in(&mut self, span: &Span<'_>, most: u64) -> (u64, u64) {
        self.puts.extend(self.latest_puts.drain(..));
        let most = usize::try_from(most).unwrap_or(usize::MAX);
        match *span {
            Span::One(key) => self.puts.get(key).map_or((0, 0), |&bytes| (1, bytes)),
            Span::From(from, Some(to)) => sum(self.puts.range(from..to), most),
            Span::From(from, None) => sum(self.puts.range(from..), most),
        }
    }
}

fn sum<'b>(puts: impl Iterator<Item = (&'b &'b [u8], &'b u64)>, most: usize) -> (u64, u64) {
    puts.take(most).fold((0, 0), |(keys, sum), (_, bytes)| (keys + 1, sum + bytes))
}
