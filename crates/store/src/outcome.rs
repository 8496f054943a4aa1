//! What the store answers.

use crate::command::{KeyValue, Revision};
use bytes::Bytes;

/// Answer to a [`crate::Range`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RangeResult {
    /// What was found, in the order asked for.
    pub kvs: Vec<KeyValue>,
    /// Whether the limit left something out that passed the filters.
    pub more: bool,
    /// How many keys the range holds at the revision read, whatever limit and filters say.
    pub count: i64,
}

/// Answer to a [`crate::Command`] that was not refused. The store's revision after it says whether
/// anything changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The key is set.
    Put {
        /// What was there before, if it was asked for and existed.
        prev: Option<KeyValue>,
    },
    /// The keys are gone.
    DeleteRange {
        /// How many there were.
        deleted: i64,
        /// What they were, ascending by key, if it was asked for.
        prevs: Vec<KeyValue>,
    },
    /// The transaction ran.
    Txn(TxnOutcome),
    /// History before the revision is out of reach.
    Compact,
}

/// Answer to a [`crate::Txn`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TxnOutcome {
    /// Whether all conditions held.
    pub succeeded: bool,
    /// One answer for each step of the branch that ran, in its order.
    pub responses: Vec<OpOutcome>,
}

/// Answer to one step of a transaction. `revision` is what the store's revision was when the step
/// was done, counting the changes of the transaction so far.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OpOutcome {
    /// Answer to [`crate::Op::Range`].
    Range {
        /// See the type.
        revision: Revision,
        /// What was found.
        result: RangeResult,
    },
    /// Answer to [`crate::Op::Put`].
    Put {
        /// See the type.
        revision: Revision,
        /// As in [`Outcome::Put`].
        prev: Option<KeyValue>,
    },
    /// Answer to [`crate::Op::DeleteRange`].
    DeleteRange {
        /// See the type.
        revision: Revision,
        /// As in [`Outcome::DeleteRange`].
        deleted: i64,
        /// As in [`Outcome::DeleteRange`].
        prevs: Vec<KeyValue>,
    },
    /// Answer to [`crate::Op::Txn`].
    Txn(TxnOutcome),
}

/// One change of one key, as the per-revision history has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// The key was put; this is what it became.
    Put(KeyValue),
    /// The key was deleted.
    Delete {
        /// Which.
        key: Bytes,
        /// When.
        revision: Revision,
    },
}

impl Change {
    /// The revision that made it.
    pub fn revision(&self) -> Revision {
        match self {
            Change::Put(kv) => kv.mod_revision,
            Change::Delete { revision, .. } => *revision,
        }
    }
}
