//! The multi-version key-value state machine, pure and in memory.
//!
//! # Model
//!
//! The store maps keys to values and remembers what it was: each applied [`Command`] that changes
//! at least one key moves the store's one [`Revision`] up by one, and a read may name any revision
//! that was not compacted. [`Store`] is the one writer. [`Store::view`] gives a [`View`], the store
//! as it is at that moment: O(1) to take, readable on any thread, never changed again, and in
//! nobody's way.
//!
//! Every version of every key is one record in a log ordered by time, which is also for those who
//! want to know what changed ([`View::changes`]). A copy-on-write B+tree says where the newest
//! version of each key is, and each version where the one before it is. A key is *live* if its newest
//! version is no tombstone. Nodes of the tree count the live keys below them, so counting a range
//! costs no more than finding its ends.
//!
//! # What always holds
//!
//! - Applying is a total function of the state and the command: nothing panics it, and every
//!   member that applies the same commands answers the same, refusals included.
//! - A command that is refused has changed nothing. All that can refuse a transaction is looked
//!   for before its first change; carrying it out cannot fail.
//! - What a command may cost is bounded ([`Bounds`]), by what the store holds and not by how a member
//!   holds it, so that all refuse alike. Whether its answer is wanted changes nothing but the answer.
//! - All changes of one command have one revision. Of those of one key reads show the last; the log
//!   holds them all.
//! - A compaction takes effect at once for all reads. [`Store::sweep`] frees the memory later, in
//!   steps as small as the caller wants. When the sweeps run changes no answer but
//!   [`View::bytes`]. What the compacted revision itself still shows, and the changes made at it,
//!   deletions included, stay until a later compaction.
//!
//! # Never
//!
//! The store never reads a clock, draws a random number, does IO, waits, or iterates in an order
//! that depends on anything but its contents. It keeps no reference to the buffer that a request
//! came in.
//!
//! # Not here yet
//!
//! Leases: none exists, so a put that names one is refused, and all records compare as having
//! none.

mod account;
mod admission;
mod block;
mod check;
mod command;
mod cost;
mod log;
mod model;
mod outcome;
mod record;
mod store;
mod tree;
mod view;

pub use account::Bounds;
pub use command::{
    Command, Compact, Compare, CompareResult, CompareTarget, DeleteRange, KeyValue, LeaseId,
    Limits, Op, Operand, Put, Range, Refusal, Revision, SortOrder, SortTarget, Txn,
};
pub use cost::Cost;
pub use model::{Mark, Model};
pub use outcome::{Change, OpOutcome, Outcome, RangeResult, TxnOutcome};
pub use store::{SWEEP_BYTES, Store};
pub use view::View;
