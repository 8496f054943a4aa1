//! Writes: those that wait for a leader, those whose fate the log decides, and those of others.

use crate::entry::{Header, Origin, Proposal};
use crate::input::RequestId;
use bytes::Bytes;
use raft::{NodeId, Term};
use std::collections::{BTreeMap, VecDeque};

/// The writes that this member took from clients.
///
/// A write waits until there is a leader, then it is proposed or forwarded once, in one term. From
/// then on it is applied, or lost when that leader is; it is never proposed again, for nobody can
/// know that it was not.
#[derive(Debug)]
pub(crate) struct Proposals {
    member: NodeId,
    boot: u64,
    last_sequence: u64,
    waiting: VecDeque<Waiting>,
    waiting_bytes: usize,
    waiting_bytes_max: usize,
    /// Proposed or forwarded, by sequence.
    pending: BTreeMap<u64, Pending>,
    /// The leader and term that all of `pending` belong to.
    reign: Option<(NodeId, Term)>,
}

#[derive(Debug)]
struct Waiting {
    request: RequestId,
    deadline: u64,
    sequence: u64,
    physical: bool,
    sealed: Bytes,
}

/// A write whose fate the log decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Pending {
    /// Who waits, unless it went away.
    pub(crate) request: Option<RequestId>,
    deadline: u64,
    pub(crate) physical: bool,
}

impl Proposals {
    pub(crate) fn new(member: NodeId, boot: u64, waiting_bytes_max: usize) -> Proposals {
        Proposals {
            member,
            boot,
            last_sequence: 0,
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            waiting_bytes_max,
            pending: BTreeMap::new(),
            reign: None,
        }
    }

    /// Takes a write. False if too much is waiting.
    pub(crate) fn push(&mut self, request: RequestId, proposal: Proposal, deadline: u64) -> bool {
        // One is always taken, or a large one could never be.
        let bytes = proposal.request_bytes();
        if self.waiting_bytes > 0 && self.waiting_bytes + bytes > self.waiting_bytes_max {
            return false;
        }
        self.last_sequence += 1;
        let sequence = self.last_sequence;
        let physical = proposal.physical;
        let sealed = proposal.seal(Origin { member: self.member, boot: self.boot, sequence });
        self.waiting_bytes += sealed.len();
        self.waiting.push_back(Waiting { request, deadline, sequence, physical, sealed });
        true
    }

    pub(crate) fn is_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Hands out all that wait: from now on this leader's log decides about them.
    pub(crate) fn take_waiting(&mut self, leader: NodeId, term: Term) -> Vec<Bytes> {
        assert!(
            self.pending.is_empty() || self.reign == Some((leader, term)),
            "what an earlier leader was given is settled first"
        );
        self.reign = Some((leader, term));
        self.waiting_bytes = 0;
        let hand_out = |waiting: Waiting| {
            let Waiting { request, deadline, sequence, physical, sealed } = waiting;
            let pending = Pending { request: Some(request), deadline, physical };
            self.pending.insert(sequence, pending);
            sealed
        };
        self.waiting.drain(..).map(hand_out).collect()
    }

    /// An entry was applied: the write of ours that it was, if it is pending.
    pub(crate) fn applied(&mut self, origin: Origin) -> Option<Pending> {
        let ours = origin.member == self.member && origin.boot == self.boot;
        ours.then(|| self.pending.remove(&origin.sequence)).flatten()
    }

    /// The leader is this one now. Those that another one was given are lost.
    pub(crate) fn take_lost(&mut self, leader: Option<NodeId>, term: Term) -> Vec<RequestId> {
        let same = leader.map(|leader| (leader, term));
        if self.pending.is_empty() || self.reign == same {
            return Vec::new();
        }
        let lost = std::mem::take(&mut self.pending);
        lost.into_values().filter_map(|pending| pending.request).collect()
    }

    /// These were refused. A copy of the forward may have been accepted, so they are not safe to
    /// propose again.
    pub(crate) fn take_refused(&mut self, boot: u64, sequences: &[u64]) -> Vec<RequestId> {
        if boot != self.boot {
            return Vec::new();
        }
        let refused = sequences.iter().filter_map(|sequence| self.pending.remove(sequence));
        refused.filter_map(|pending| pending.request).collect()
    }

    /// Those that waited too long: never proposed, and proposed.
    pub(crate) fn take_expired(&mut self, now: u64) -> (Vec<RequestId>, Vec<RequestId>) {
        let mut unproposed = Vec::new();
        while let Some(first) = self.waiting.front().filter(|first| first.deadline <= now) {
            self.waiting_bytes -= first.sealed.len();
            unproposed.push(first.request);
            self.waiting.pop_front();
        }
        let mut proposed = Vec::new();
        self.pending.retain(|_, pending| {
            let over = pending.deadline <= now;
            proposed.extend(pending.request.filter(|_| over));
            !over
        });
        (unproposed, proposed)
    }

    /// Nobody waits for this any more.
    pub(crate) fn cancel(&mut self, request: RequestId) {
        for pending in self.pending.values_mut().filter(|p| p.request == Some(request)) {
            pending.request = None;
        }
        if let Some(at) = self.waiting.iter().position(|waiting| waiting.request == request) {
            let gone = self.waiting.remove(at).expect("it was found");
            self.waiting_bytes -= gone.sealed.len();
        }
    }

    /// How many requests somebody waits for.
    pub(crate) fn waiting_requests(&self) -> usize {
        let pending = self.pending.values().filter(|pending| pending.request.is_some());
        self.waiting.len() + pending.count()
    }

    /// What must hold.
    pub(crate) fn assert_sound(&self) {
        assert!(self.waiting.is_empty() == (self.waiting_bytes == 0), "what waits has bytes");
        let last = self.pending.last_key_value().map_or(0, |(sequence, _)| *sequence);
        assert!(last <= self.last_sequence, "only what was taken is pending");
    }
}

/// What a leader was forwarded in its term: nothing is proposed twice, however often the network
/// delivers it.
#[derive(Debug, Default)]
pub(crate) struct Forwards {
    term: Term,
    /// Sequences already proposed, as ranges (first, last), by origin's member and life.
    seen: BTreeMap<(NodeId, u64), BTreeMap<u64, u64>>,
}

impl Forwards {
    /// Keeps those of `from` that were not proposed in this term yet.
    pub(crate) fn keep_new(
        &mut self,
        from: NodeId,
        term: Term,
        proposals: Vec<Bytes>,
    ) -> Vec<Bytes> {
        if term != self.term {
            *self = Forwards { term, seen: BTreeMap::new() };
        }
        let is_new = |sealed: &Bytes| match Header::decode(sealed) {
            // A member forwards what its own clients asked for, nothing else.
            Ok((Header { origin, .. }, _)) if origin.member == from => {
                let seen = self.seen.entry((origin.member, origin.boot)).or_default();
                add(seen, origin.sequence)
            }
            // A peer of another release sends what we do not know: it is not proposed.
            Ok(_) | Err(_) => false,
        };
        proposals.into_iter().filter(is_new).collect()
    }
}

/// Adds a number to a set of ranges. False if it is there already.
fn add(ranges: &mut BTreeMap<u64, u64>, number: u64) -> bool {
    let before = ranges.range(..=number).next_back().map(|(first, last)| (*first, *last));
    let mut first = number;
    match before {
        Some((_, last)) if last >= number => return false,
        Some((start, last)) if last + 1 == number => first = start,
        _ => {}
    }
    let last = number.checked_add(1).and_then(|next| ranges.remove(&next)).unwrap_or(number);
    ranges.insert(first, last);
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn ranges_equal_a_set() {
        let mut chance = 1u64;
        for _ in 0..200 {
            let (mut ranges, mut set) = (BTreeMap::new(), BTreeSet::new());
            for _ in 0..60 {
                chance = chance.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                let number = [chance >> 59, u64::MAX - (chance >> 60)][(chance >> 20 & 1) as usize];
                assert_eq!(add(&mut ranges, number), set.insert(number));
                let all: u64 = ranges.iter().map(|(first, last)| last - first + 1).sum();
                assert_eq!(all, set.len() as u64);
            }
        }
    }
}
