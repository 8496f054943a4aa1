//! What a store says no to, before anything is changed.

use std::collections::VecDeque;
use std::ops::ControlFlow;

use crate::account::{Account, Bounds};
use crate::command::{
    Command, Compare, CompareTarget, DeleteRange, LeaseId, Op, Operand, Put, Range, Refusal,
    SortOrder, SortTarget, Txn,
};
use crate::record::Record;
use crate::view::{Span, View, has_filters, holds_for};

/// Which branch each transaction on the path takes, outermost first.
pub(crate) type Path = VecDeque<bool>;

impl View {
    /// Whether the command costs too much as far as this view knows, so that it need not be
    /// proposed. Never looks at more than [`Bounds::keys_max`] keys. The command is decided on when
    /// it is applied; another refusal than for its cost is only found then.
    ///
    /// # Errors
    /// [`Refusal::TooManyKeys`] or [`Refusal::TooManyBytes`].
    pub fn check_cost(&self, command: &Command) -> Result<(), Refusal> {
        match self.admit(command) {
            Err(refusal @ (Refusal::TooManyKeys { .. } | Refusal::TooManyBytes { .. })) => {
                Err(refusal)
            }
            _ => Ok(()),
        }
    }

    /// Looks for what refuses a well-formed command.
    pub(crate) fn admit(&self, command: &Command) -> Result<Path, Refusal> {
        let mut path = Path::new();
        match command {
            Command::Put(put) => self.admit_put(put)?,
            // One key costs less than the request that names it.
            Command::DeleteRange(delete) if delete.range_end.is_empty() => {}
            Command::DeleteRange(delete) => {
                self.admit_delete(delete, &mut Account::new(self.bounds))?;
            }
            Command::Txn(txn) => {
                self.admit_txn(txn, &mut Account::new(self.bounds), &mut path)?;
            }
            Command::Compact(_) => {}
        }
        Ok(path)
    }

    fn admit_txn<'a>(
        &self,
        txn: &'a Txn,
        account: &mut Account<'a>,
        path: &mut Path,
    ) -> Result<(), Refusal> {
        let mut succeeded = true;
        for compare in &txn.compare {
            succeeded = self.admitted_holds(compare, account)?;
            if !succeeded {
                break;
            }
        }
        path.push_back(succeeded);
        for op in if succeeded { &txn.success } else { &txn.failure } {
            match op {
                Op::Range(range) => self.admit_range(range, account)?,
                Op::Put(put) => self.admit_put_of_txn(put, account)?,
                Op::DeleteRange(delete) => self.admit_delete(delete, account)?,
                Op::Txn(txn) => self.admit_txn(txn, account, path)?,
                Op::Empty => {}
            }
        }
        Ok(())
    }

    /// Whether a comparison is true. It costs the keys up to the first that decides it.
    fn admitted_holds(
        &self,
        compare: &Compare,
        account: &mut Account<'_>,
    ) -> Result<bool, Refusal> {
        account.keys(Bounds::STEP_KEYS)?;
        let mut outcome = Ok(());
        let (mut any, mut all) = (false, true);
        let span = Span::new(&compare.key, &compare.range_end);
        self.scan_live(&span, &mut |record| {
            any = true;
            outcome = account.keys(1).and_then(|()| account.bytes(compared(compare, &record)));
            all = outcome.is_ok() && holds_for(compare, Some(&record));
            if all { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        });
        outcome?;
        Ok(if any { all } else { holds_for(compare, None) })
    }

    fn admit_put(&self, put: &Put) -> Result<(), Refusal> {
        // Leases are looked up here once there are any.
        if put.lease != LeaseId(0) {
            return Err(Refusal::LeaseNotFound);
        }
        let keeps = put.ignore_value || put.ignore_lease;
        if keeps && self.live_version(&put.key).is_none() {
            return Err(Refusal::KeyNotFound);
        }
        Ok(())
    }

    fn admit_put_of_txn<'a>(&self, put: &'a Put, account: &mut Account<'a>) -> Result<(), Refusal> {
        self.admit_put(put)?;
        let is_looked_up = put.ignore_value || put.prev_kv;
        let prev = is_looked_up.then(|| self.live_version(&put.key)).flatten();
        account.keys(Bounds::STEP_KEYS)?;
        let kept = prev.filter(|_| put.ignore_value).map_or(0, |prev| prev.value.len() as u64);
        account.bytes(kept.saturating_mul(Bounds::KEPT_BYTES))?;
        let answered = prev.filter(|_| put.prev_kv).map_or(0, |prev| prev.payload_len());
        account.bytes(answered)?;
        account.put(&put.key, (put.key.len() + put.value.len()) as u64 + kept);
        Ok(())
    }

    fn admit_delete(&self, delete: &DeleteRange, account: &mut Account<'_>) -> Result<(), Refusal> {
        let span = Span::new(&delete.key, &delete.range_end);
        let (puts, put_bytes) = account.puts_in(&span, u64::MAX);
        let keys = self.live_in(&span).saturating_add(puts);
        let each = if delete.prev_kv { Bounds::DELETE_PREV_KEYS } else { 1 };
        account.keys(Bounds::STEP_KEYS.saturating_add(keys.saturating_mul(each)))?;
        account.delete(keys);
        if delete.prev_kv {
            account.bytes(put_bytes)?;
            self.admit_bytes(&span, u64::MAX, true, account)?;
        }
        Ok(())
    }

    /// A range costs what it would if it were evaluated, whether the answer is wanted or not.
    fn admit_range(&self, range: &Range, account: &mut Account<'_>) -> Result<(), Refusal> {
        self.readable_in_txn(range)?;
        let span = Span::new(&range.key, &range.range_end);
        let is_past = range.revision > 0;
        let is_cut = !is_past && range.sort_order == SortOrder::None && !has_filters(range);
        let limit = u64::try_from(range.limit).ok().filter(|&limit| limit > 0);
        // The keys that were deleted before may have been the first ones.
        let most = limit
            .filter(|_| is_cut)
            .map_or(u64::MAX, |limit| limit.saturating_add(1).saturating_add(account.deleted()));
        account.keys(Bounds::STEP_KEYS)?;
        if range.count_only && !is_past {
            return Ok(());
        }
        let (puts, put_bytes) = match is_past {
            false => account.puts_in(&span, most),
            true => (account.all_puts(), 0),
        };
        let (keys, each) = match span {
            Span::One(_) if is_past => (1, Bounds::PAST_KEYS),
            Span::From(..) if is_past => {
                let keys = self.live_in(&span) + puts + self.deleted_since(range.revision);
                (keys, Bounds::PAST_KEYS)
            }
            Span::One(_) => (1, Bounds::RANGE_KEYS),
            Span::From(..) => ((self.live_in(&span) + puts).min(most), Bounds::RANGE_KEYS),
        };
        account.keys(keys.saturating_mul(each))?;
        if range.count_only {
            return Ok(());
        }
        let with_values = !range.keys_only || range.sort_target == SortTarget::Value;
        if is_past {
            return self.admit_past_bytes(range, &span, with_values, account);
        }
        account.bytes(put_bytes)?;
        self.admit_bytes(&span, most, with_values, account)
    }

    /// The bytes of the first `most` keys that exist.
    fn admit_bytes(
        &self,
        span: &Span<'_>,
        most: u64,
        with_values: bool,
        account: &mut Account<'_>,
    ) -> Result<(), Refusal> {
        let (mut seen, mut outcome) = (0, Ok(()));
        self.scan_live(span, &mut |record| {
            seen += 1;
            outcome = account.bytes(len(&record, with_values));
            if outcome.is_ok() && seen < most {
                ControlFlow::Continue(())
            } else {
                ControlFlow::Break(())
            }
        });
        outcome
    }

    /// The bytes of all that existed at an older revision.
    fn admit_past_bytes(
        &self,
        range: &Range,
        span: &Span<'_>,
        with_values: bool,
        account: &mut Account<'_>,
    ) -> Result<(), Refusal> {
        let mut outcome = Ok(());
        self.scan_past(span, range.revision, &mut |record| {
            outcome = account.bytes(len(&record, with_values));
            if outcome.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        });
        outcome
    }

    fn live_in(&self, span: &Span<'_>) -> u64 {
        match *span {
            Span::One(key) => u64::from(self.live_version(key).is_some()),
            Span::From(from, to) => self.tree.count_live(&self.log, from, to),
        }
    }

    /// How many deletions there were after a revision that can be read.
    fn deleted_since(&self, revision: i64) -> u64 {
        self.log.deletions_from(self.log.find(revision.saturating_add(1)))
    }
}

fn len(record: &Record<'_>, with_values: bool) -> u64 {
    if with_values { record.payload_len() } else { record.key.len() as u64 }
}

/// Bytes that a comparison looks at.
fn compared(compare: &Compare, record: &Record<'_>) -> u64 {
    match (compare.target, &compare.operand) {
        (CompareTarget::Value, Operand::Value(given)) => given.len().min(record.value.len()) as u64,
        _ => 0,
    }
}
