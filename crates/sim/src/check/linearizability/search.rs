//! The search for an order. See the module above for the idea.

use std::collections::{BTreeMap, BTreeSet};

use store::{Command, Mark, Model, Op, OpOutcome, Outcome, Refusal, Revision, Txn, TxnOutcome};

use super::evidence::Evidence;
use super::{Answer, Makers, Operation, Report, Request, Violation};

/// The search gives up after so many choices.
const CHOICES_MAX: u64 = 1_000_000;
/// So many operations around the one that does not fit are shown.
const AROUND_MAX: usize = 8;

/// One order of operations, as far as it was found.
pub(super) struct Search<'a> {
    history: &'a [Operation],
    makers: &'a Makers,
    evidence: Evidence<'a>,
    /// With an answer: by call, and by end.
    by_call: Vec<usize>,
    by_end: Vec<usize>,
    /// By revision: those that change nothing, and those that give up history.
    readers: BTreeMap<i64, Vec<usize>>,
    compactions: BTreeMap<i64, Vec<usize>>,
    /// By revision: the one that makes it.
    writers: BTreeMap<i64, usize>,
    refused: Vec<usize>,
    /// Of unknown fate, by call: what may change something, and what may give up history.
    unknown: Vec<Unknown>,
    unknown_compactions: Vec<usize>,
    /// The state after the operations taken, which are `trail`, in order.
    model: Model,
    trail: Vec<usize>,
    done: Vec<bool>,
    /// All before it in `by_end`, and in `refused`, is done.
    ended: usize,
    visited: BTreeSet<(i64, i64, Vec<usize>)>,
    choices: u64,
    steps_back: u64,
    farthest: Option<Stuck>,
}

/// An operation of unknown fate.
struct Unknown {
    at: usize,
    /// Gaps at which an answer shows what it puts: if any, it made one of these.
    shown: Vec<i64>,
    /// An equal one that was called before; that one goes first.
    twin: Option<usize>,
}

/// The farthest that the search came, and why no farther.
struct Stuck {
    trail: usize,
    what: String,
    operation: Option<usize>,
}

/// What to go back to.
#[derive(Clone, Copy)]
struct Place {
    mark: Mark,
    trail: usize,
    ended: usize,
}

/// How far the search came without a choice.
enum Reached {
    /// All is done.
    End,
    /// An answer that fits no more: this order leads nowhere.
    Nowhere,
    /// A choice must be made; this one is answered and may come next.
    Choice(Option<usize>),
}

impl<'a> Search<'a> {
    /// # Errors
    /// When two answers claim one revision, or one claims what nobody can have made.
    pub(super) fn new(
        history: &'a [Operation],
        makers: &'a Makers,
    ) -> Result<Search<'a>, Violation> {
        let evidence = Evidence::of(history);
        let mut search = Search {
            history,
            makers,
            evidence,
            by_call: Vec::new(),
            by_end: Vec::new(),
            readers: BTreeMap::new(),
            compactions: BTreeMap::new(),
            writers: BTreeMap::new(),
            refused: Vec::new(),
            unknown: Vec::new(),
            unknown_compactions: Vec::new(),
            model: Model::new(),
            trail: Vec::with_capacity(history.len()),
            done: vec![false; history.len()],
            ended: 0,
            visited: BTreeSet::new(),
            choices: 0,
            steps_back: 0,
            farthest: None,
        };
        let mut by_call: Vec<usize> = (0..history.len()).collect();
        by_call.sort_by_key(|at| history[*at].call);
        for at in by_call {
            search.sort_in(at)?;
        }
        search.by_end = search.by_call.clone();
        search.by_end.sort_by_key(|at| history[*at].end.unwrap_or(u64::MAX));
        Ok(search)
    }

    fn sort_in(&mut self, at: usize) -> Result<(), Violation> {
        let operation = &self.history[at];
        if operation.answer.is_some() {
            self.by_call.push(at);
        }
        match (&operation.request, &operation.answer) {
            (Request::Range(_), None) => {}
            (Request::Command(Command::Compact(_)), None) => self.unknown_compactions.push(at),
            (Request::Command(command), None) => {
                let shown = self.shown(command);
                let is_twin =
                    |other: &&Unknown| self.history[other.at].request == operation.request;
                let twin = self.unknown.iter().rposition(|other| is_twin(&other));
                self.unknown.push(Unknown { at, shown, twin });
            }
            (_, Some(Answer::Refused(_))) => self.refused.push(at),
            (_, Some(Answer::Range(_, Revision(revision)))) => {
                self.readers.entry(*revision).or_default().push(at);
            }
            (_, Some(Answer::Done(Outcome::Compact, Revision(revision)))) => {
                self.compactions.entry(*revision).or_default().push(at);
            }
            (_, Some(Answer::Done(outcome, Revision(revision)))) if changes(outcome) => {
                if let Some(other) = self.writers.insert(*revision, at) {
                    let what = format!("two answers claim that they made revision {revision}");
                    return Err(self.violation(what, &[other, at], false));
                }
            }
            (_, Some(Answer::Done(_, Revision(revision)))) => {
                self.readers.entry(*revision).or_default().push(at);
            }
        }
        Ok(())
    }

    /// Revisions that put one of the values that a command may put.
    fn shown(&self, command: &Command) -> Vec<i64> {
        let mut puts = Vec::new();
        match command {
            Command::Put(put) => puts.push(put),
            Command::Txn(txn) => puts_of(txn, &mut puts),
            Command::DeleteRange(_) | Command::Compact(_) => {}
        }
        puts.iter().flat_map(|put| self.evidence.made(&put.key, &put.value)).collect()
    }

    /// Finds an order.
    ///
    /// # Errors
    /// The farthest that any came.
    pub(super) fn run(mut self) -> Result<Report, Violation> {
        if self.goes_on() {
            let is_unknown = |at: &&usize| self.history[**at].answer.is_none();
            return Ok(Report {
                operations: self.history.len(),
                unknown: self.history.len() - self.by_call.len(),
                filled: self.trail.iter().filter(is_unknown).count(),
                steps_back: self.steps_back,
            });
        }
        let undecided = self.choices > CHOICES_MAX;
        let stuck = self.farthest.take();
        let (what, operation) = stuck.map(|s| (s.what, s.operation)).unwrap_or_default();
        let gave_up = if undecided { "gave up, undecided: " } else { "" };
        let what = format!("{gave_up}{what}");
        Err(self.violation(what, operation.as_slice(), undecided))
    }

    /// Whether an order goes on from here to the end; then it is in `trail`.
    fn goes_on(&mut self) -> bool {
        let next = match self.advance() {
            Reached::End => return true,
            Reached::Nowhere => return false,
            Reached::Choice(next) => next,
        };
        let place = self.place();
        self.choices += 1;
        if self.choices > CHOICES_MAX || !self.visit() {
            return false;
        }
        for way in self.ways(next) {
            if self.takes(way) && self.goes_on() {
                return true;
            }
            self.steps_back += 1;
            self.go_back(place);
        }
        let (waits, revision) = (self.by_end.get(self.ended).copied(), self.model.revision());
        self.stuck(waits, || {
            format!("nothing can come after revision {revision}, and before what this waits for")
        });
        false
    }

    /// Takes all that needs no choice.
    fn advance(&mut self) -> Reached {
        loop {
            let before = self.trail.len();
            if !self.read() {
                return Reached::Nowhere;
            }
            if self.trail.len() > before {
                continue;
            }
            if self.bound() == u64::MAX {
                return Reached::End;
            }
            let revision = self.model.revision().0;
            let waits = |lists: &BTreeMap<i64, Vec<usize>>| {
                lists.get(&revision).is_some_and(|all| all.iter().any(|at| !self.done[*at]))
            };
            let (reads, compacts) = (waits(&self.readers), waits(&self.compactions));
            let next = match self.writers.get(&(revision + 1)) {
                _ if compacts => self.next_compaction(revision),
                Some(writer) if !reads => Some(*writer),
                _ => None,
            };
            match next.filter(|next| self.is_next(*next)) {
                // What waits for a compaction may have to come before.
                Some(next) if self.ways_to_compact().is_empty() => {
                    if !self.answers(next) {
                        return Reached::Nowhere;
                    }
                    self.take(next);
                }
                next => return Reached::Choice(next),
            }
        }
    }

    /// Takes all that changes nothing and fits. False if something can fit no more.
    fn read(&mut self) -> bool {
        let readers = self.readers.get(&self.model.revision().0).cloned().unwrap_or_default();
        for at in readers {
            if !self.done[at] && self.is_next(at) {
                if !self.answers(at) {
                    return false;
                }
                self.take(at);
            }
        }
        let bound = self.bound();
        let called = |at: &&usize| self.history[**at].call <= bound;
        let refused: Vec<usize> = self.refused.iter().take_while(called).copied().collect();
        for at in refused {
            let mark = self.model.mark();
            if !self.done[at] && self.found(at) == self.history[at].answer {
                self.take(at);
            }
            self.model.rewind(mark);
        }
        true
    }

    /// Of the compactions answered at a revision the one that gives up least.
    fn next_compaction(&self, revision: i64) -> Option<usize> {
        let waiting = self.compactions.get(&revision)?.iter().filter(|at| !self.done[**at]);
        waiting.copied().min_by_key(|at| compacts_to(&self.history[*at]))
    }

    /// What may be done now, likeliest first.
    fn ways(&mut self, next: Option<usize>) -> Vec<usize> {
        let revision = self.model.revision();
        let reads = self.readers.get(&revision.0).into_iter().flatten();
        let here = reads.chain(self.compactions.get(&revision.0).into_iter().flatten());
        let finished = here.into_iter().all(|at| self.done[*at]);
        let mut ways: Vec<usize> = next.into_iter().collect();
        let made = Revision(revision.0 + 1);
        if finished && !self.writers.contains_key(&made.0) {
            ways.extend(self.ways_to_make(made));
        }
        // Last, for it leaves less to read; unless it is known that something else comes next, which
        // must wait for what waits for a compaction.
        let compactions = self.ways_to_compact();
        let late = self.makers.get(&made).is_none_or(|maker| ways.contains(maker));
        ways.splice(if late { ways.len()..ways.len() } else { 0..0 }, compactions);
        ways
    }

    fn ways_to_make(&mut self, made: Revision) -> Vec<usize> {
        let bound = self.bound();
        let mut ways: Vec<(u32, usize)> = Vec::new();
        let mark = self.model.mark();
        for number in 0..self.unknown.len() {
            let Unknown { at, twin, .. } = self.unknown[number];
            let waits = |twin: usize| !self.done[self.unknown[twin].at];
            if self.done[at] || self.history[at].call > bound || twin.is_some_and(waits) {
                continue;
            }
            let _ = self.found(at);
            if self.model.revision() == made && self.evidence.allows(&self.model) {
                let shown = &self.unknown[number].shown;
                let elsewhere = !shown.is_empty() && !shown.contains(&made.0);
                let rank = match self.makers.get(&made) {
                    Some(maker) if *maker == at => 0,
                    _ => 1 + u32::from(elsewhere),
                };
                ways.push((rank, at));
            }
            self.model.rewind(mark);
        }
        ways.sort_by_key(|(rank, at)| (*rank, self.history[*at].call));
        ways.into_iter().map(|(_, at)| at).collect()
    }

    /// Compactions that make something fit that waits for one.
    fn ways_to_compact(&mut self) -> Vec<usize> {
        let bound = self.bound();
        let compacted = Some(Answer::Refused(Refusal::Compacted));
        let waits = |at: &&usize| !self.done[**at] && self.history[**at].answer == compacted;
        let called = |at: &&usize| self.history[**at].call <= bound;
        let waiting: Vec<usize> =
            self.refused.iter().take_while(called).filter(waits).copied().collect();
        if waiting.is_empty() {
            return Vec::new();
        }
        let unknown = self.unknown_compactions.iter().filter(|at| !self.done[**at]);
        let mut ways: Vec<usize> = unknown.filter(called).copied().collect();
        ways.sort_by_key(|at| compacts_to(&self.history[*at]));
        ways.dedup_by_key(|at| compacts_to(&self.history[*at]));
        let mark = self.model.mark();
        ways.retain(|way| {
            let done = matches!(self.found(*way), Some(Answer::Done(..)));
            let compacted = self.model.mark();
            let helps = done
                && waiting.iter().any(|at| {
                    let fits = self.found(*at) == self.history[*at].answer;
                    self.model.rewind(compacted);
                    fits
                });
            self.model.rewind(mark);
            helps
        });
        ways
    }

    /// Carries an operation out, and takes it unless its answer does not fit.
    fn takes(&mut self, at: usize) -> bool {
        let fits = match self.history[at].answer {
            Some(_) => self.answers(at),
            None => self.found(at).is_some(),
        };
        self.take(at);
        fits
    }

    /// What the model answers, carrying it out.
    fn found(&mut self, at: usize) -> Option<Answer> {
        let answer = match &self.history[at].request {
            Request::Range(range) => {
                self.model.range(range).map(|result| Answer::Range(result, self.model.revision()))
            }
            Request::Command(command) => self
                .model
                .apply(command)
                .map(|outcome| Answer::Done(outcome, self.model.revision())),
        };
        Some(answer.unwrap_or_else(Answer::Refused))
    }

    /// Carries an operation out; whether its answer is the model's.
    fn answers(&mut self, at: usize) -> bool {
        let found = self.found(at);
        let fits = found == self.history[at].answer;
        if !fits {
            let found = found.map(|found| found.to_string()).unwrap_or_default();
            self.stuck(Some(at), || format!("this answer fits no order; it should be: {found}"));
        }
        fits
    }

    fn take(&mut self, at: usize) {
        self.done[at] = true;
        self.trail.push(at);
        while self.by_end.get(self.ended).is_some_and(|at| self.done[*at]) {
            self.ended += 1;
        }
    }

    /// What was called after this moment comes later than something that waits.
    fn bound(&self) -> u64 {
        let first = self.by_end.get(self.ended);
        first.map_or(u64::MAX, |at| self.history[*at].end.unwrap_or(u64::MAX - 1))
    }

    fn is_next(&self, at: usize) -> bool {
        self.history[at].call <= self.bound()
    }

    fn place(&self) -> Place {
        Place { mark: self.model.mark(), trail: self.trail.len(), ended: self.ended }
    }

    fn go_back(&mut self, place: Place) {
        for at in self.trail.drain(place.trail..) {
            self.done[at] = false;
        }
        self.ended = place.ended;
        self.model.rewind(place.mark);
    }

    /// False if the search was here before: with the same state, which the order of those of unknown
    /// fate decides, and the same done.
    fn visit(&mut self) -> bool {
        let mut done: Vec<usize> =
            self.trail.iter().copied().filter(|at| self.history[*at].answer.is_none()).collect();
        let refused = self.refused.iter().copied().filter(|at| self.done[*at]);
        done.extend(refused);
        self.visited.insert((self.model.revision().0, self.model.compacted(), done))
    }

    fn stuck(&mut self, operation: Option<usize>, what: impl FnOnce() -> String) {
        let trail = self.trail.len();
        if self.farthest.as_ref().is_none_or(|farthest| farthest.trail < trail) {
            self.farthest = Some(Stuck { trail, what: what(), operation });
        }
    }

    fn violation(&self, what: String, operations: &[usize], undecided: bool) -> Violation {
        let line = |at: &usize| self.history[*at].to_string();
        let mut around: Vec<String> = operations.iter().map(line).collect();
        let near = operations.first().map_or_else(|| self.bound(), |at| self.history[*at].call);
        let mut others: Vec<usize> = (0..self.history.len()).collect();
        others.retain(|at| !operations.contains(at));
        others.sort_by_key(|at| self.history[*at].call.abs_diff(near));
        others.truncate(AROUND_MAX);
        others.sort_by_key(|at| self.history[*at].call);
        around.push("around:".into());
        around.extend(others.iter().map(line));
        Violation { what, around, undecided }
    }
}

/// Whether an answer says that something was changed.
pub(crate) fn changes(outcome: &Outcome) -> bool {
    match outcome {
        Outcome::Put { .. } => true,
        Outcome::DeleteRange { deleted, .. } => *deleted > 0,
        Outcome::Txn(txn) => txn_changes(txn),
        Outcome::Compact => false,
    }
}

fn txn_changes(txn: &TxnOutcome) -> bool {
    txn.responses.iter().any(|response| match response {
        OpOutcome::Range { .. } => false,
        OpOutcome::Put { .. } => true,
        OpOutcome::DeleteRange { deleted, .. } => *deleted > 0,
        OpOutcome::Txn(txn) => txn_changes(txn),
    })
}

fn puts_of<'a>(txn: &'a Txn, puts: &mut Vec<&'a store::Put>) {
    for op in txn.success.iter().chain(&txn.failure) {
        match op {
            Op::Put(put) => puts.push(put),
            Op::Txn(txn) => puts_of(txn, puts),
            Op::Range(_) | Op::DeleteRange(_) | Op::Empty => {}
        }
    }
}

fn compacts_to(operation: &Operation) -> i64 {
    match &operation.request {
        Request::Command(Command::Compact(compact)) => compact.revision,
        _ => 0,
    }
}
