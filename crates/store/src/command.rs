//! What can be asked of the store, and what it answers: etcd's requests as types.

use bytes::Bytes;
use std::fmt;

/// The store's counter: one more with each request that changes something. An empty store is at
/// revision 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Revision(pub i64);

/// Names a lease; 0 is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct LeaseId(pub i64);

/// A key with what it holds at some revision.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeyValue {
    /// The key.
    pub key: Bytes,
    /// The revision of the put that created the key, after it was absent.
    pub create_revision: Revision,
    /// The revision of the last change.
    pub mod_revision: Revision,
    /// How many puts there were since it was created, that one included.
    pub version: i64,
    /// The value.
    pub value: Bytes,
    /// The lease that was given in the last put.
    pub lease: LeaseId,
}

/// Asks for keys. `range_end` empty: one key; a single zero byte: all keys from `key` on; else
/// all keys from `key` up to but without `range_end`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Range {
    /// The first key.
    pub key: Bytes,
    /// Where the range ends.
    pub range_end: Bytes,
    /// The most keys to answer; 0 or less for all.
    pub limit: i64,
    /// The revision to read at; 0 or less for the current one.
    pub revision: i64,
    /// Which way to sort.
    pub sort_order: SortOrder,
    /// What to sort by.
    pub sort_target: SortTarget,
    /// Leave the values out.
    pub keys_only: bool,
    /// Answer the number of keys alone.
    pub count_only: bool,
    /// Only keys changed at this revision or later; 0 for no filter, here and below.
    pub min_mod_revision: i64,
    /// Only keys changed at this revision or earlier.
    pub max_mod_revision: i64,
    /// Only keys created at this revision or later.
    pub min_create_revision: i64,
    /// Only keys created at this revision or earlier.
    pub max_create_revision: i64,
}

/// Which way to sort. Numbers that nobody defined are kept, to be refused.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SortOrder {
    /// By key, or ascending if another target is given.
    #[default]
    None,
    /// Ascending.
    Ascend,
    /// Descending.
    Descend,
    /// None of these.
    Unknown(i32),
}

/// What to sort by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SortTarget {
    /// The key's bytes.
    #[default]
    Key,
    /// The version.
    Version,
    /// The revision of creation.
    Create,
    /// The revision of the last change.
    Mod,
    /// The value's bytes.
    Value,
    /// None of these.
    Unknown(i32),
}

/// Sets a key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Put {
    /// The key.
    pub key: Bytes,
    /// The value.
    pub value: Bytes,
    /// The lease that the key is attached to from now on.
    pub lease: LeaseId,
    /// Answer what the key held before.
    pub prev_kv: bool,
    /// Keep the value.
    pub ignore_value: bool,
    /// Keep the lease.
    pub ignore_lease: bool,
}

/// Deletes keys; the range is as in [`Range`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeleteRange {
    /// The first key.
    pub key: Bytes,
    /// Where the range ends.
    pub range_end: Bytes,
    /// Answer what the keys held.
    pub prev_kv: bool,
}

/// A condition on all keys of a range; the range is as in [`Range`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Compare {
    /// The first key.
    pub key: Bytes,
    /// Where the range ends.
    pub range_end: Bytes,
    /// How what is stored must stand to the operand.
    pub result: CompareResult,
    /// What is compared.
    pub target: CompareTarget,
    /// With what; one of another kind than the target counts as zero or empty.
    pub operand: Operand,
}

/// How what is stored must stand to the operand.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CompareResult {
    /// Equal.
    #[default]
    Equal,
    /// Greater.
    Greater,
    /// Less.
    Less,
    /// Not equal.
    NotEqual,
    /// None of these: holds always.
    Unknown(i32),
}

/// What is compared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CompareTarget {
    /// The version; 0 for a key that does not exist, as below.
    #[default]
    Version,
    /// The revision of creation.
    Create,
    /// The revision of the last change.
    Mod,
    /// The value; never holds for a key that does not exist.
    Value,
    /// The lease.
    Lease,
    /// None of these: as if all were equal.
    Unknown(i32),
}

/// What to compare with.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Operand {
    /// Nothing was given.
    #[default]
    None,
    /// For [`CompareTarget::Version`].
    Version(i64),
    /// For [`CompareTarget::Create`].
    Create(i64),
    /// For [`CompareTarget::Mod`].
    Mod(i64),
    /// For [`CompareTarget::Value`].
    Value(Bytes),
    /// For [`CompareTarget::Lease`].
    Lease(i64),
}

/// One operation of a transaction.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Op {
    /// Reads.
    Range(Range),
    /// Sets a key.
    Put(Put),
    /// Deletes keys.
    DeleteRange(DeleteRange),
    /// A transaction inside.
    Txn(Txn),
    /// Nothing was given; refused.
    #[default]
    Empty,
}

/// If all compares hold, `success` happens, else `failure`: as one change, or not at all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Txn {
    /// The conditions.
    pub compare: Vec<Compare>,
    /// What happens if they hold.
    pub success: Vec<Op>,
    /// What happens if not.
    pub failure: Vec<Op>,
}

impl Txn {
    /// Whether every operation of both branches is a range, nested ones counted in, so that a
    /// [`crate::View`] can answer it. True for a transaction without operations.
    pub fn is_read_only(&self) -> bool {
        self.success.iter().chain(&self.failure).all(|op| match op {
            Op::Range(_) => true,
            Op::Txn(txn) => txn.is_read_only(),
            Op::Put(_) | Op::DeleteRange(_) | Op::Empty => false,
        })
    }
}

/// Gives up the history below a revision.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Compact {
    /// The oldest revision that can be read afterwards.
    pub revision: i64,
}

/// What goes through the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Sets a key.
    Put(Put),
    /// Deletes keys.
    DeleteRange(DeleteRange),
    /// A transaction.
    Txn(Txn),
    /// Gives up history.
    Compact(Compact),
}

/// Why a request was refused. Nothing has changed. Displays as etcd's text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// No key is given.
    KeyNotProvided,
    /// The key whose value or lease is to be kept does not exist; or an operation is empty.
    KeyNotFound,
    /// A value is given, and is to be ignored.
    ValueProvided,
    /// A lease is given, and is to be ignored.
    LeaseProvided,
    /// The transaction has too many operations.
    TooManyOps,
    /// The transaction would change a key twice.
    DuplicateKey,
    /// No such sort order or target.
    InvalidSortOption,
    /// The revision was given up.
    Compacted,
    /// The revision does not exist yet.
    FutureRevision,
    /// No such lease.
    LeaseNotFound,
    /// The command would come to more keys than one may; see [`crate::Bounds`].
    TooManyKeys {
        /// As many as one may.
        max: u64,
    },
    /// The command would copy or answer more bytes than one may.
    TooManyBytes {
        /// As many as one may.
        max: u64,
    },
}

/// What a request may not exceed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The most operations of a transaction: in each of its lists, nested ones counted in.
    pub txn_ops_max: usize,
}

const COSTLY: &str = "etcdserver: request too costly";

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Refusal::KeyNotProvided => "etcdserver: key is not provided",
            Refusal::KeyNotFound => "etcdserver: key not found",
            Refusal::ValueProvided => "etcdserver: value is provided",
            Refusal::LeaseProvided => "etcdserver: lease is provided",
            Refusal::TooManyOps => "etcdserver: too many operations in txn request",
            Refusal::DuplicateKey => "etcdserver: duplicate key given in txn request",
            Refusal::InvalidSortOption => "etcdserver: invalid sort option",
            Refusal::Compacted => "etcdserver: mvcc: required revision has been compacted",
            Refusal::FutureRevision => "etcdserver: mvcc: required revision is a future revision",
            Refusal::LeaseNotFound => "etcdserver: requested lease not found",
            Refusal::TooManyKeys { max } => {
                return write!(f, "{COSTLY}: it would visit more than {max} keys");
            }
            Refusal::TooManyBytes { max } => {
                return write!(f, "{COSTLY}: it would copy or answer more than {max} bytes");
            }
        })
    }
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl std::error::Error for Refusal {}
