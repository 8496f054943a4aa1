//! Operations and violations as lines of text: short, and nothing left out that is not a default.

use std::fmt::{self, Display, Formatter, Write};

use store::{
    Command, Compare, CompareResult, CompareTarget, KeyValue, Op, OpOutcome, Operand, Outcome, Put,
    Range, RangeResult, SortOrder, SortTarget, Txn, TxnOutcome,
};

use super::{Answer, Operation, Request};

/// The longest line.
const LINE_CHARS_MAX: usize = 400;
/// The most bytes of a key or a value that are shown.
const BYTES_MAX: usize = 32;

impl Display for Operation {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let mut line = format!("client {} [{}, ", self.client, self.call);
        match self.end {
            Some(end) => write!(line, "{end}] ")?,
            None => line.push_str("-] "),
        }
        write!(line, "{} -> ", self.request)?;
        match &self.answer {
            Some(answer) => write!(line, "{answer}")?,
            None => line.push_str("unknown"),
        }
        if let Some((cut, _)) = line.char_indices().nth(LINE_CHARS_MAX) {
            line.truncate(cut);
            line.push_str(" ...");
        }
        f.write_str(&line)
    }
}

impl Display for Request {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Request::Range(range) => range_to(f, range),
            Request::Command(Command::Put(put)) => put_to(f, put),
            Request::Command(Command::DeleteRange(delete)) => {
                write!(f, "delete {}", Keys((&delete.key, &delete.range_end)))?;
                flag(f, "prev_kv", delete.prev_kv)
            }
            Request::Command(Command::Txn(txn)) => txn_to(f, txn),
            Request::Command(Command::Compact(compact)) => {
                write!(f, "compact {}", compact.revision)
            }
        }
    }
}

impl Display for Answer {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Answer::Range(result, revision) => {
                result_to(f, result)?;
                write!(f, " at {revision}")
            }
            Answer::Done(outcome, revision) => {
                outcome_to(f, outcome)?;
                write!(f, " at {revision}")
            }
            Answer::Refused(refusal) => write!(f, "refused: {refusal:?}"),
        }
    }
}

/// What an outcome says, for the answer that a model would have given.
fn outcome_to(f: &mut Formatter<'_>, outcome: &Outcome) -> fmt::Result {
    match outcome {
        Outcome::Put { prev } => done_to(f, "put", prev.as_slice()),
        Outcome::DeleteRange { deleted, prevs } => done_to(f, &format!("deleted {deleted}"), prevs),
        Outcome::Txn(txn) => txn_outcome_to(f, txn),
        Outcome::Compact => f.write_str("compacted"),
    }
}

struct Text<'a>(&'a [u8]);

impl Display for Text<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Text(bytes) = self;
        write!(f, "\"{}\"", bytes[..bytes.len().min(BYTES_MAX)].escape_ascii())?;
        if bytes.len() > BYTES_MAX { write!(f, "... ({} bytes)", bytes.len()) } else { Ok(()) }
    }
}

/// A key, or a range by its first key and its end.
struct Keys<'a>((&'a [u8], &'a [u8]));

impl Display for Keys<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self.0 {
            (key, []) => write!(f, "{}", Text(key)),
            (key, [0]) => write!(f, "[{}, ...)", Text(key)),
            (key, end) => write!(f, "[{}, {})", Text(key), Text(end)),
        }
    }
}

fn flag(f: &mut Formatter<'_>, name: &str, is_set: bool) -> fmt::Result {
    if is_set { write!(f, " {name}") } else { Ok(()) }
}

fn number(f: &mut Formatter<'_>, name: &str, number: i64) -> fmt::Result {
    if number == 0 { Ok(()) } else { write!(f, " {name}={number}") }
}

fn range_to(f: &mut Formatter<'_>, range: &Range) -> fmt::Result {
    write!(f, "get {}", Keys((&range.key, &range.range_end)))?;
    number(f, "revision", range.revision)?;
    number(f, "limit", range.limit)?;
    if range.sort_order != SortOrder::None || range.sort_target != SortTarget::Key {
        write!(f, " sort={:?} {:?}", range.sort_order, range.sort_target)?;
    }
    flag(f, "keys_only", range.keys_only)?;
    flag(f, "count_only", range.count_only)?;
    number(f, "min_mod", range.min_mod_revision)?;
    number(f, "max_mod", range.max_mod_revision)?;
    number(f, "min_create", range.min_create_revision)?;
    number(f, "max_create", range.max_create_revision)
}

fn put_to(f: &mut Formatter<'_>, put: &Put) -> fmt::Result {
    write!(f, "put {}={}", Text(&put.key), Text(&put.value))?;
    number(f, "lease", put.lease.0)?;
    flag(f, "prev_kv", put.prev_kv)?;
    flag(f, "ignore_value", put.ignore_value)?;
    flag(f, "ignore_lease", put.ignore_lease)
}

fn txn_to(f: &mut Formatter<'_>, txn: &Txn) -> fmt::Result {
    f.write_str("txn if (")?;
    list(f, &txn.compare, compare_to)?;
    f.write_str(") then (")?;
    list(f, &txn.success, op_to)?;
    f.write_str(") else (")?;
    list(f, &txn.failure, op_to)?;
    f.write_str(")")
}

fn list<T>(
    f: &mut Formatter<'_>,
    items: &[T],
    each: impl Fn(&mut Formatter<'_>, &T) -> fmt::Result,
) -> fmt::Result {
    for (at, item) in items.iter().enumerate() {
        if at > 0 {
            f.write_str(", ")?;
        }
        each(f, item)?;
    }
    Ok(())
}

fn compare_to(f: &mut Formatter<'_>, compare: &Compare) -> fmt::Result {
    let target = match compare.target {
        CompareTarget::Version => "version",
        CompareTarget::Create => "create",
        CompareTarget::Mod => "mod",
        CompareTarget::Value => "value",
        CompareTarget::Lease => "lease",
        CompareTarget::Unknown(_) => "unknown",
    };
    let result = match compare.result {
        CompareResult::Equal => "=",
        CompareResult::Greater => ">",
        CompareResult::Less => "<",
        CompareResult::NotEqual => "!=",
        CompareResult::Unknown(_) => "?",
    };
    write!(f, "{target} of {} {result} ", Keys((&compare.key, &compare.range_end)))?;
    match &compare.operand {
        Operand::None => f.write_str("0"),
        Operand::Value(value) => write!(f, "{}", Text(value)),
        Operand::Version(n) | Operand::Create(n) | Operand::Mod(n) | Operand::Lease(n) => {
            write!(f, "{n}")
        }
    }
}

fn op_to(f: &mut Formatter<'_>, op: &Op) -> fmt::Result {
    match op {
        Op::Range(range) => range_to(f, range),
        Op::Put(put) => put_to(f, put),
        Op::DeleteRange(delete) => {
            write!(f, "delete {}", Keys((&delete.key, &delete.range_end)))?;
            flag(f, "prev_kv", delete.prev_kv)
        }
        Op::Txn(txn) => txn_to(f, txn),
        Op::Empty => f.write_str("nothing"),
    }
}

fn kv_to(f: &mut Formatter<'_>, kv: &KeyValue) -> fmt::Result {
    write!(f, "{}={}", Text(&kv.key), Text(&kv.value))?;
    write!(f, " (c{} m{} v{}", kv.create_revision, kv.mod_revision, kv.version)?;
    number(f, "lease", kv.lease.0)?;
    f.write_str(")")
}

fn result_to(f: &mut Formatter<'_>, result: &RangeResult) -> fmt::Result {
    f.write_str("[")?;
    list(f, &result.kvs, kv_to)?;
    write!(f, "] count={}", result.count)?;
    flag(f, "more", result.more)
}

fn done_to(f: &mut Formatter<'_>, what: &str, prevs: &[KeyValue]) -> fmt::Result {
    f.write_str(what)?;
    if prevs.is_empty() {
        return Ok(());
    }
    f.write_str(", before: ")?;
    list(f, prevs, kv_to)
}

fn txn_outcome_to(f: &mut Formatter<'_>, txn: &TxnOutcome) -> fmt::Result {
    f.write_str(if txn.succeeded { "then (" } else { "else (" })?;
    list(f, &txn.responses, |f, response| match response {
        OpOutcome::Range { revision, result } => {
            result_to(f, result)?;
            write!(f, " at {revision}")
        }
        OpOutcome::Put { revision, prev } => {
            done_to(f, "put", prev.as_slice())?;
            write!(f, " at {revision}")
        }
        OpOutcome::DeleteRange { revision, deleted, prevs } => {
            done_to(f, &format!("deleted {deleted}"), prevs)?;
            write!(f, " at {revision}")
        }
        OpOutcome::Txn(txn) => txn_outcome_to(f, txn),
    })?;
    f.write_str(")")
}
