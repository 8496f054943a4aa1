//! Answers that nobody gave.

use sim::check::linearizability::{Answer, Operation, Request};
use store::{KeyValue, OpOutcome, Outcome, RangeResult, Refusal, Revision};

use crate::random::Random;

/// What is changed in an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tampering {
    /// A value that nobody wrote.
    Value,
    /// A version too many.
    Version,
    /// Another revision of creation.
    Create,
    /// Another revision of the last change.
    Mod,
    /// A read that counts one key more.
    Count,
    /// A read that leaves a key out.
    Missing,
    /// A read that says there is more, or that there is not.
    More,
    /// A change that claims another's revision.
    TwoWriters,
    /// The header's revision is off by one.
    Revision,
    /// A read answered with what an earlier read of the same was answered.
    Stale,
    /// What was before is left out.
    Prev,
    /// One key more or less deleted.
    Deleted,
    /// The other branch.
    Succeeded,
    /// Refused though done.
    Refused,
    /// Done though refused.
    Done,
}

use Tampering as T;

impl Tampering {
    pub const ALL: [Tampering; 15] = [
        T::Value,
        T::Version,
        T::Create,
        T::Mod,
        T::Count,
        T::Missing,
        T::More,
        T::TwoWriters,
        T::Revision,
        T::Stale,
        T::Prev,
        T::Deleted,
        T::Succeeded,
        T::Refused,
        T::Done,
    ];

    /// Whether no order can explain it, whatever else happened. The others may by luck have an
    /// explanation: operations overlap, and unknown ones may have done it.
    pub fn is_certain(self) -> bool {
        matches!(self, T::Value | T::Count | T::TwoWriters | T::More)
    }

    /// Does it to some operation, which is returned, if there is one that it can be done to.
    pub fn apply(self, history: &mut [Operation], random: &mut Random) -> Option<usize> {
        let start = random.below(history.len() as u64) as usize;
        let mut order = (start..history.len()).chain(0..start);
        order.find(|at| self.apply_to(history, *at, random))
    }

    fn apply_to(self, history: &mut [Operation], at: usize, random: &mut Random) -> bool {
        match self {
            T::Value | T::Version | T::Create | T::Mod => self.in_a_kv(&mut history[at], random),
            T::Count | T::Missing | T::More => {
                range_result(&mut history[at]).is_some_and(|result| self.in_a_result(result))
            }
            T::TwoWriters | T::Revision => self.in_the_revision(history, at, random),
            T::Stale => stale(history, at),
            T::Prev | T::Deleted | T::Succeeded => {
                outcome(&mut history[at]).is_some_and(|outcome| self.in_an_outcome(outcome, random))
            }
            T::Refused | T::Done => self.in_the_refusal(&mut history[at], random),
        }
    }

    fn in_a_kv(self, operation: &mut Operation, random: &mut Random) -> bool {
        let is_keys_only = matches!(&operation.request, Request::Range(range) if range.keys_only);
        let mut kvs = Vec::new();
        match &mut operation.answer {
            Some(Answer::Range(result, _)) => kvs.extend(&mut result.kvs),
            Some(Answer::Done(outcome, _)) => in_outcome(outcome, &mut kvs),
            _ => {}
        }
        if kvs.is_empty() {
            return false;
        }
        let at = random.below(kvs.len() as u64) as usize;
        let kv = &mut *kvs[at];
        match self {
            T::Value if is_keys_only => return false,
            T::Value => kv.value = "from nowhere".into(),
            T::Version => kv.version += 1,
            T::Create => kv.create_revision.0 -= 1,
            _ => kv.mod_revision.0 -= 1,
        }
        true
    }

    fn in_a_result(self, result: &mut RangeResult) -> bool {
        match self {
            T::Count => result.count += 1,
            T::More => result.more = !result.more,
            _ => return result.kvs.pop().is_some(),
        }
        true
    }

    fn in_the_revision(self, history: &mut [Operation], at: usize, random: &mut Random) -> bool {
        let puts = |operation: &Operation| match operation.answer {
            Some(Answer::Done(Outcome::Put { .. }, revision)) => Some(revision),
            _ => None,
        };
        if self == T::Revision {
            let Some(Answer::Range(_, revision) | Answer::Done(_, revision)) =
                &mut history[at].answer
            else {
                return false;
            };
            revision.0 += if random.percent(50) { 1 } else { -1 };
            return true;
        }
        let own = puts(&history[at]);
        let other = history.iter().filter_map(puts).find(|other| Some(*other) != own);
        match (own, other, &mut history[at].answer) {
            (Some(_), Some(other), Some(Answer::Done(_, revision))) => *revision = other,
            _ => return false,
        }
        true
    }

    fn in_an_outcome(self, outcome: &mut Outcome, random: &mut Random) -> bool {
        match (self, outcome) {
            (T::Prev, Outcome::Put { prev }) => prev.take().is_some(),
            (T::Prev, Outcome::DeleteRange { prevs, .. }) => prevs.pop().is_some(),
            (T::Deleted, Outcome::DeleteRange { deleted, .. }) => {
                *deleted += if random.percent(50) { 1 } else { -1 };
                true
            }
            (T::Succeeded, Outcome::Txn(txn)) => {
                txn.succeeded = !txn.succeeded;
                true
            }
            _ => false,
        }
    }

    fn in_the_refusal(self, operation: &mut Operation, random: &mut Random) -> bool {
        let Some(answer) = &mut operation.answer else { return false };
        let is_refused = matches!(answer, Answer::Refused(_));
        if is_refused == (self == T::Refused) {
            return false;
        }
        *answer = match (&operation.request, self) {
            (_, T::Refused) => Answer::Refused(*random.pick(&[
                Refusal::KeyNotFound,
                Refusal::Compacted,
                Refusal::FutureRevision,
                Refusal::DuplicateKey,
            ])),
            (Request::Range(_), _) => Answer::Range(RangeResult::default(), Revision(5)),
            _ => Answer::Done(Outcome::Put { prev: None }, Revision(5)),
        };
        true
    }
}

/// Some change, so that both verdicts come up.
pub fn anyhow(history: &mut [Operation], random: &mut Random) {
    if random.percent(30) {
        // Not tampering: fewer answers are explained by more orders.
        let at = random.below(history.len() as u64) as usize;
        history[at].answer = None;
        history[at].end = None;
        return;
    }
    random.pick(&Tampering::ALL).apply(history, random);
}

fn range_result(operation: &mut Operation) -> Option<&mut RangeResult> {
    match &mut operation.answer {
        Some(Answer::Range(result, _)) => Some(result),
        _ => None,
    }
}

fn outcome(operation: &mut Operation) -> Option<&mut Outcome> {
    match &mut operation.answer {
        Some(Answer::Done(outcome, _)) => Some(outcome),
        _ => None,
    }
}

fn in_outcome<'a>(outcome: &'a mut Outcome, kvs: &mut Vec<&'a mut KeyValue>) {
    match outcome {
        Outcome::Put { prev } => kvs.extend(prev),
        Outcome::DeleteRange { prevs, .. } => kvs.extend(prevs),
        Outcome::Txn(txn) => {
            for response in &mut txn.responses {
                match response {
                    OpOutcome::Put { prev, .. } => kvs.extend(prev),
                    OpOutcome::DeleteRange { prevs, .. } => kvs.extend(prevs),
                    // Those of ranges may have their values left out.
                    OpOutcome::Range { .. } | OpOutcome::Txn(_) => {}
                }
            }
        }
        Outcome::Compact => {}
    }
}

/// Gives a read the answer that an earlier one, over before it was called, had to the same
/// question, if that was another.
fn stale(history: &mut [Operation], at: usize) -> bool {
    let read = &history[at];
    if !matches!(read.answer, Some(Answer::Range(..))) {
        return false;
    }
    let older = history.iter().find(|other| {
        other.request == read.request
            && other.answer.is_some()
            && other.answer != read.answer
            && other.end.is_some_and(|end| end < read.call)
    });
    let Some(answer) = older.and_then(|other| other.answer.clone()) else { return false };
    history[at].answer = Some(answer);
    true
}
