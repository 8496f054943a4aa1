//! Is a recorded history linearizable? Each operation must seem to take effect
//! at one moment between its call and its return.
//!
//! The search is Wing and Gong's with Lowe's memory of states: of the operations
//! that may come first, take one that fits the state, and go on; step back when
//! none fits; never visit the same (set of done operations, state) twice. Keys are
//! independent registers, so each key's history is searched by itself.

use std::collections::{BTreeMap, HashSet};

/// A key's value; `None` while it is absent.
pub type Value = Option<u64>;

/// What was asked, and what the answer said.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Action {
    Put(u64),
    Delete,
    /// What the read returned.
    Get(Value),
    /// Put `new` if the value is `old`; `done` is what the answer said.
    CompareAndPut {
        old: Value,
        new: u64,
        done: bool,
    },
    /// The same without an answer: it may have been done or refused.
    CompareAndPutUnknown {
        old: Value,
        new: u64,
    },
}

/// One operation on one key. Moments are of one clock, of any unit.
#[derive(Clone, Copy, Debug)]
pub struct Operation {
    pub key: u64,
    pub action: Action,
    pub call: u64,
    /// `None`: no answer, or one that leaves the fate open. It may take effect at
    /// any moment after the call, once, or never.
    pub end: Option<u64>,
}

/// The state after `action`, if the action fits the state before.
fn apply(state: Value, action: Action) -> Option<Value> {
    match action {
        Action::Put(value) => Some(Some(value)),
        Action::Delete => Some(None),
        Action::Get(seen) => (seen == state).then_some(state),
        Action::CompareAndPut { old, new, done } => {
            (done == (old == state)).then_some(if done { Some(new) } else { state })
        }
        Action::CompareAndPutUnknown { old, new } => {
            Some(if old == state { Some(new) } else { state })
        }
    }
}

/// Checks each key; every key is absent at first. On failure: the operations of
/// the key among which no order can be found, as close as the search came.
pub fn check(history: &[Operation]) -> Result<(), String> {
    let mut keys: BTreeMap<u64, Vec<Operation>> = BTreeMap::new();
    for operation in history {
        // A read without an answer says nothing.
        if !(operation.end.is_none() && matches!(operation.action, Action::Get(_))) {
            keys.entry(operation.key).or_default().push(*operation);
        }
    }
    for (key, mut operations) in keys {
        operations.sort_by_key(|operation| (operation.call, operation.end));
        let (lost, operations): (Vec<_>, Vec<_>) =
            operations.into_iter().partition(|operation| operation.end.is_none());
        let search = Search { operations: &operations, lost: &lost, visited: HashSet::new() };
        search.run().map_err(|stuck| {
            let near = stuck.saturating_sub(4)..(stuck + 6).min(operations.len());
            let shown: Vec<String> =
                operations[near].iter().map(|operation| format!("  {operation:?}")).collect();
            format!("key {key} is not linearizable; no order around\n{}", shown.join("\n"))
        })?;
    }
    Ok(())
}

/// Which operations are done. Of those with an answer: a prefix that is full, and
/// the rest one by one; done ones are nearly a prefix, so this stays small.
#[derive(Clone, PartialEq, Eq, Hash, Default)]
struct Done {
    prefix: usize,
    beyond: Vec<usize>,
    /// Of those without an answer; ascending.
    lost: Vec<usize>,
}

impl Done {
    fn contains(&self, at: usize) -> bool {
        at < self.prefix || self.beyond.binary_search(&at).is_ok()
    }

    fn insert(&mut self, at: usize) {
        let place = self.beyond.binary_search(&at).unwrap_or_else(|place| place);
        self.beyond.insert(place, at);
        let full = self.beyond.iter().enumerate().take_while(|&(n, &at)| at == self.prefix + n);
        let full = full.count();
        self.beyond.drain(..full);
        self.prefix += full;
    }

    fn insert_lost(&mut self, at: usize) {
        let place = self.lost.binary_search(&at).unwrap_or_else(|place| place);
        self.lost.insert(place, at);
    }
}

struct Search<'a> {
    /// With an answer, by call.
    operations: &'a [Operation],
    /// Without one, by call.
    lost: &'a [Operation],
    visited: HashSet<(Done, Value)>,
}

impl Search<'_> {
    /// `Err` holds how many operations could be put in order at most.
    fn run(mut self) -> Result<(), usize> {
        let mut farthest = 0;
        let mut open = vec![(Done::default(), None)];
        while let Some((done, state)) = open.pop() {
            farthest = farthest.max(done.prefix);
            if done.prefix == self.operations.len() {
                return Ok(()); // Those without an answer may never take effect.
            }
            let mut steps = self.steps(&done, state);
            // The stack is taken from its end: who returned first goes first.
            steps.sort_by_key(|(end, ..)| std::cmp::Reverse(*end));
            for (_, done, state) in steps {
                if self.visited.insert((done.clone(), state)) {
                    open.push((done, state));
                }
            }
        }
        Err(farthest)
    }

    /// All that may come next: an operation that fits, or one that fits after
    /// some of unknown fate took effect. Those are placed just before the operation
    /// that needs them and nowhere else: as they have no end, they can be moved
    /// there from any earlier place, or left out if nobody saw them.
    fn steps(&self, done: &Done, state: Value) -> Vec<(Option<u64>, Done, Value)> {
        let pending = || (done.prefix..self.operations.len()).filter(|at| !done.contains(*at));
        // Whatever comes first was called before any other had returned. Sorted by
        // call: from the first that was called later on, none returned earlier.
        let mut bound = u64::MAX;
        for at in pending() {
            if self.operations[at].call > bound {
                break;
            }
            bound = bound.min(self.operations[at].end.unwrap_or(u64::MAX));
        }
        let mut steps = Vec::new();
        for at in pending().take_while(|at| self.operations[*at].call <= bound) {
            let operation = &self.operations[at];
            let mut after = done.clone();
            after.insert(at);
            match apply(state, operation.action) {
                Some(state) => steps.push((operation.end, after, state)),
                None => self.rescue(operation, after, state, bound, 3, &mut steps),
            }
        }
        steps
    }

    /// Ways to make `operation` fit by operations of unknown fate, several in a
    /// row when compares are among them.
    fn rescue(
        &self,
        operation: &Operation,
        done: Done,
        state: Value,
        bound: u64,
        depth: u32,
        steps: &mut Vec<(Option<u64>, Done, Value)>,
    ) {
        for (at, lost) in self.lost.iter().enumerate().take_while(|(_, lost)| lost.call <= bound) {
            if done.lost.binary_search(&at).is_ok() {
                continue;
            }
            let Some(between) = apply(state, lost.action).filter(|between| *between != state)
            else {
                continue;
            };
            let mut done = done.clone();
            done.insert_lost(at);
            match apply(between, operation.action) {
                Some(state) => steps.push((operation.end, done, state)),
                // Only a compare can be needed after another: a put hides what was before.
                None if depth > 0 && self.compares(between, bound, &done) => {
                    self.rescue(operation, done, between, bound, depth - 1, steps);
                }
                None => {}
            }
        }
    }

    fn compares(&self, state: Value, bound: u64, done: &Done) -> bool {
        self.lost.iter().enumerate().any(|(at, lost)| {
            lost.call <= bound
                && done.lost.binary_search(&at).is_err()
                && matches!(lost.action, Action::CompareAndPutUnknown { old, .. } if old == state)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn operation(action: Action, call: u64, end: u64) -> Operation {
        Operation { key: 1, action, call, end: Some(end) }
    }

    fn lost(action: Action, call: u64) -> Operation {
        Operation { key: 1, action, call, end: None }
    }

    #[test]
    fn good_histories_pass() {
        use Action::{CompareAndPut, CompareAndPutUnknown, Delete, Get, Put};
        let cas = |old, new, done| CompareAndPut { old, new, done };
        let good: &[&[Operation]] = &[
            &[],
            &[operation(Get(None), 1, 2), operation(Put(1), 3, 4), operation(Get(Some(1)), 5, 6)],
            // Two at once: either order.
            &[operation(Put(1), 1, 10), operation(Put(2), 1, 10), operation(Get(Some(1)), 11, 12)],
            // A read during a put sees either.
            &[operation(Put(1), 1, 10), operation(Get(None), 2, 3), operation(Get(Some(1)), 4, 5)],
            // A put without an answer: never, late, ...
            &[lost(Put(1), 1), operation(Get(None), 2, 3), operation(Get(Some(1)), 50, 51)],
            &[lost(Put(1), 1), operation(Get(None), 2, 3)],
            &[operation(cas(None, 1, true), 1, 2), operation(cas(None, 2, false), 3, 4)],
            &[lost(CompareAndPutUnknown { old: None, new: 1 }, 1), operation(Get(Some(1)), 2, 3)],
            &[operation(Put(1), 1, 2), operation(Delete, 3, 4), operation(Get(None), 5, 6)],
        ];
        for history in good {
            check(history).unwrap();
        }
    }

    #[test]
    fn bad_histories_are_caught() {
        use Action::{CompareAndPut, CompareAndPutUnknown, Delete, Get, Put};
        let cas = |old, new, done| CompareAndPut { old, new, done };
        let bad: &[(&str, &[Operation])] = &[
            (
                "stale read",
                &[operation(Put(1), 1, 2), operation(Put(2), 3, 4), operation(Get(Some(1)), 5, 6)],
            ),
            ("lost write", &[operation(Put(1), 1, 2), operation(Get(None), 3, 4)]),
            ("value from nowhere", &[operation(Get(Some(9)), 1, 2)]),
            (
                "reads go back",
                &[
                    operation(Put(1), 1, 2),
                    operation(Put(2), 3, 100),
                    operation(Get(Some(2)), 4, 5),
                    operation(Get(Some(1)), 6, 7),
                ],
            ),
            (
                "an unknown put takes effect twice",
                &[
                    lost(Put(1), 1),
                    operation(Get(Some(1)), 2, 3),
                    operation(Put(2), 4, 5),
                    operation(Get(Some(1)), 6, 7),
                ],
            ),
            (
                "an unknown put takes effect before its call",
                &[operation(Get(Some(1)), 1, 2), lost(Put(1), 3)],
            ),
            (
                "both compares win",
                &[operation(cas(None, 1, true), 1, 10), operation(cas(None, 2, true), 1, 10)],
            ),
            ("a compare fails without a cause", &[operation(cas(None, 1, false), 1, 2)]),
            (
                "a refused unknown compare took effect",
                &[
                    operation(Put(5), 1, 2),
                    lost(CompareAndPutUnknown { old: Some(4), new: 1 }, 3),
                    operation(Get(Some(1)), 4, 5),
                ],
            ),
            (
                "deleted and still there",
                &[operation(Put(1), 1, 2), operation(Delete, 3, 4), operation(Get(Some(1)), 5, 6)],
            ),
        ];
        for (what, history) in bad {
            assert!(check(history).is_err(), "{what} was not caught");
        }
    }

    /// 10,000 operations of 8 clients on 5 keys with 200 of unknown fate, and the
    /// same with one stale read.
    #[test]
    fn long_histories_are_quick() {
        let start = std::time::Instant::now();
        let mut random = crate::support::random::Random::new(7);
        let mut state = [None; 5];
        let mut history = Vec::new();
        for n in 0..10_000 {
            let key = random.below(5);
            let now = &mut state[key as usize];
            let is_lost = n % 50 == 0;
            // Takes effect at 10 n; the intervals of about 8 overlap.
            let (call, end) = (10 * n + 100 - random.below(40), 10 * n + 100 + random.below(40));
            let (action, end) = if is_lost || random.one_in(2) {
                if !is_lost || random.one_in(2) {
                    *now = Some(n);
                }
                (Action::Put(n), (!is_lost).then_some(end))
            } else {
                (Action::Get(*now), Some(end))
            };
            history.push(Operation { key, action, call, end });
        }
        check(&history).unwrap();
        let at = history
            .iter()
            .rposition(|operation| matches!(operation.action, Action::Get(Some(_))))
            .unwrap();
        history[at].action = Action::Get(Some(1));
        assert!(check(&history).is_err());
        assert!(start.elapsed().as_secs() < 20, "took {:?}", start.elapsed());
    }
}
