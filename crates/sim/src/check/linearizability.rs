//! Is a history of a cluster, as its clients saw it, linearizable? Each operation must seem to
//! take effect at one moment between its call and its end, and its answer must be just what
//! [`store::Model`] answers at that moment, with the store's revision then.
//!
//! The search is Wing and Gong's with Lowe's memory ("Testing for linearizability", 2017): of the
//! operations that may come next, as none that waits had ended before they were called, take one that
//! fits the state; step back when none does; never go on twice from the same state. What makes it
//! quick is that every answer names a revision, and that each change takes just the next one:
//!
//! - What changes nothing is taken as soon as it fits. No later order can want it later.
//! - A change that was answered with revision r is the one that makes r.
//! - A revision that no answer claims, a *gap*, was made by an operation of unknown fate. Here is a
//!   choice, and [`evidence`] mostly leaves one way.
//! - A compaction of unknown fate is placed where nothing goes on without, and no earlier: what it
//!   gave up is refused from then on.
//! - After the last revision that an answer names, operations of unknown fate take effect only to
//!   explain a refusal.
//!
//! The search is complete: it says no only if there is no order. On a history made to be hard it may
//! give up ([`Violation::is_undecided`]), for the problem is hard. Who knows what made a revision,
//! because it saw the log, can say so ([`check_with`]): that way is tried first, and there is no
//! search left. It proves no less: an order that explains the history is one, whoever found it.

mod evidence;
mod notation;
mod search;

use std::collections::BTreeMap;
use std::fmt;

pub(crate) use search::changes;
use store::{Command, Outcome, Range, RangeResult, Refusal, Revision};

/// One operation as its client saw it. Moments are of one clock that all clients share, of any
/// unit; two operations of which one ends at the moment the other is called overlap.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Operation {
    /// Who asked. A client's operations need not be one after the other.
    pub client: u32,
    /// When it was sent.
    pub call: u64,
    /// When the answer came. `None`: no answer, or one that leaves the fate open.
    pub end: Option<u64>,
    /// What was asked.
    pub request: Request,
    /// What the answer said. `None`: the operation may take effect once, at any moment after its
    /// call, or never.
    pub answer: Option<Answer>,
}

/// What was asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// A linearizable read.
    Range(Range),
    /// Anything else, transactions that only read included.
    Command(Command),
}

/// What the answer said. The revision is that of the answer's header: the store's at the moment
/// the operation took effect, its own change included; whatever revision a range reads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Answer to [`Request::Range`].
    Range(RangeResult, Revision),
    /// Answer to [`Request::Command`].
    Done(Outcome, Revision),
    /// Nothing was changed. Has no revision, like etcd's errors.
    Refused(Refusal),
}

/// What a search that found an order says of itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Operations in the history.
    pub operations: usize,
    /// Those of unknown fate.
    pub unknown: usize,
    /// Those of unknown fate that took effect in the order found.
    pub filled: usize,
    /// How often the search had to step back.
    pub steps_back: u64,
}

/// Why a history is not linearizable. Displays as the first difference, with the operations around
/// it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// What cannot be, in a sentence.
    what: String,
    /// The operations that it is about, and some around them.
    around: Vec<String>,
    undecided: bool,
}

impl Violation {
    /// True if the search gave up: whether there is an order is not known.
    pub fn is_undecided(&self) -> bool {
        self.undecided
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)?;
        self.around.iter().try_for_each(|line| write!(f, "\n  {line}"))
    }
}

impl std::error::Error for Violation {}

/// By revision, the operation that made it, as a place in the history.
pub type Makers = BTreeMap<Revision, usize>;

/// Checks a history, in any order, of a store that was empty at first. Also checked, because it
/// follows: the revisions of a client's answers do not go back between operations that do not
/// overlap.
///
/// # Errors
/// The first thing that no order explains.
pub fn check(history: &[Operation]) -> Result<Report, Violation> {
    check_with(history, &Makers::new())
}

/// The same, by somebody who knows of some revisions of unknown origin what made them.
///
/// # Errors
/// The first thing that no order explains.
pub fn check_with(history: &[Operation], makers: &Makers) -> Result<Report, Violation> {
    search::Search::new(history, makers)?.run()
}
