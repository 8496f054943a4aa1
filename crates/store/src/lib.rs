//! The multi-version key-value state machine, pure and in memory.

mod check;
mod command;
mod outcome;

pub use command::{
    Command, Compact, Compare, CompareResult, CompareTarget, DeleteRange, KeyValue, LeaseId,
    Limits, Op, Operand, Put, Range, Refusal, Revision, SortOrder, SortTarget, Txn,
};
pub use outcome::{Change, OpOutcome, Outcome, RangeResult, TxnOutcome};
