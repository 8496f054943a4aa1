//! What a leader knows of one peer's log, and what is on the way to it.

use crate::admissions::Incarnation;
use crate::entry::Index;
use std::collections::VecDeque;

/// Replication to one peer.
///
/// - `matched < next`; `matched` never goes back within a leader's term.
/// - The peer's log equals the leader's up to `matched`, on the peer's disk.
#[derive(Clone, Debug, Hash)]
pub(crate) struct Progress {
    matched: Index,
    /// The life of the peer's log that acknowledged it.
    matched_by: Incarnation,
    /// A later life lacks what was acknowledged: the peer's disk lost it.
    has_lost: bool,
    /// The first entry that has not been sent.
    next: Index,
    flow: Flow,
    /// The highest commit index that the peer was told, or will learn from what is in flight.
    pub(crate) told: Index,
    /// Heard of since the last check for a quorum.
    pub(crate) active: bool,
    /// An append without entries is due: something sent may have been lost.
    pub(crate) nudge: bool,
    /// Entries that were asked from the disk, beginning here.
    pub(crate) fetching: Option<Index>,
}

/// How entries are sent.
#[derive(Clone, Debug, Hash)]
enum Flow {
    /// Where the logs part is not known: one append at a time, until one is accepted.
    Probe {
        /// One is on the way.
        waiting: bool,
    },
    /// Appends follow each other without waiting for answers, bounded by bytes.
    Replicate {
        /// The last index and the bytes of each append on the way, oldest first.
        in_flight: VecDeque<(Index, usize)>,
        bytes: usize,
    },
}

impl Progress {
    /// Of a peer about which a new leader knows nothing: it tries the end of its own log.
    pub(crate) fn new(last: Index) -> Progress {
        Progress {
            matched: Index(0),
            matched_by: Incarnation::default(),
            has_lost: false,
            next: last.next(),
            flow: Flow::Probe { waiting: false },
            told: Index(0),
            active: true,
            nudge: false,
            fetching: None,
        }
    }

    /// The last index known to be equal, and on the peer's disk.
    pub(crate) fn matched(&self) -> Index {
        self.matched
    }

    /// What counts of that: nothing, if the peer's disk loses what it acknowledged.
    pub(crate) fn counted(&self) -> Index {
        if self.has_lost { Index(0) } else { self.matched }
    }

    /// The first index that has not been sent.
    pub(crate) fn next(&self) -> Index {
        self.next
    }

    /// Whether where the logs part is not known yet.
    pub(crate) fn is_probing(&self) -> bool {
        matches!(self.flow, Flow::Probe { .. })
    }

    /// Whether an append may be sent now.
    pub(crate) fn may_send(&self, in_flight_bytes_max: usize) -> bool {
        self.fetching.is_none()
            && match self.flow {
                Flow::Probe { waiting } => !waiting,
                Flow::Replicate { bytes, .. } => bytes < in_flight_bytes_max,
            }
    }

    /// Takes note of an append that leaves, up to `last` and of this size.
    pub(crate) fn sent(&mut self, last: Index, size: usize, commit: Index) {
        self.nudge = false;
        match &mut self.flow {
            Flow::Probe { waiting } => *waiting = true,
            Flow::Replicate { in_flight, bytes } => {
                if last >= self.next {
                    in_flight.push_back((last, size));
                    *bytes += size;
                    self.next = last.next();
                }
                self.told = self.told.max(commit.min(last));
            }
        }
    }

    /// The peer holds everything up to `matched`. Returns whether that is news.
    pub(crate) fn appended(&mut self, matched: Index, by: Incarnation) -> bool {
        let news = matched > self.matched;
        if matched >= self.matched {
            (self.matched, self.matched_by, self.has_lost) = (matched, by, false);
        }
        match &mut self.flow {
            Flow::Probe { .. } => {
                self.next = self.matched.next();
                self.flow = Flow::Replicate { in_flight: VecDeque::new(), bytes: 0 };
            }
            Flow::Replicate { in_flight, bytes } => {
                while let Some((_, size)) = in_flight.front().filter(|(last, _)| *last <= matched) {
                    *bytes -= size;
                    in_flight.pop_front();
                }
                self.next = self.next.max(self.matched.next());
            }
        }
        news
    }

    /// Whether a refusal of an append after `prev` proves that the peer's disk lost what it had
    /// acknowledged, which is news. A late copy of a refusal from before the acknowledgement is of
    /// the life that acknowledged, or of an earlier one.
    pub(crate) fn learns_of_loss(&mut self, prev: Index, by: Incarnation) -> bool {
        let was_held = prev > Index(0) && prev <= self.matched;
        let lost = was_held && by.start > self.matched_by.start;
        lost && !std::mem::replace(&mut self.has_lost, true)
    }

    /// The peer refused an append after `prev`; the logs may be equal up to `hint`. Returns
    /// whether it was news: a late copy of an old refusal is not, nor is one of what the peer
    /// acknowledged, which would be asked and refused for ever.
    pub(crate) fn rejected(&mut self, prev: Index, hint: Index) -> bool {
        let stale = prev <= self.matched && prev > Index(0)
            || match self.flow {
                Flow::Probe { .. } => prev != self.next.prev(),
                Flow::Replicate { .. } => prev <= self.matched || prev >= self.next,
            };
        if stale {
            return false;
        }
        self.probe(hint.min(prev.prev()).next());
        true
    }

    /// Starts again from what is certain: what was on the way may be lost.
    pub(crate) fn reset(&mut self) {
        self.probe(self.matched.next());
    }

    /// A sign of life: a probe that got no answer was lost, or will be harmless when repeated.
    pub(crate) fn unpause(&mut self) {
        if let Flow::Probe { waiting } = &mut self.flow {
            *waiting = false;
        }
    }

    fn probe(&mut self, next: Index) {
        self.next = next.max(self.matched.next());
        self.flow = Flow::Probe { waiting: false };
        self.told = Index(0);
        self.nudge = false;
        self.fetching = None;
    }
}
