//! Writes: those that wait for a leader, those whose fate the log decides, and those of others.

use crate::entry::{Header, Kind, Origin, Proposal};
use crate::input::RequestId;
use bytes::Bytes;
use raft::{NodeId, Term};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// The writes that this member took from clients.
///
/// A write waits until there is a leader, then it is proposed or forwarded once, in one term. From
/// then on it is applied, or lost when that leader is. It is never handed over again, for nobody
/// can know that it was not proposed; unless the leader itself says so. Then it waits again, and
/// gets a new number, so that a refusal that comes late or twice names nothing any more.
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
    /// How many of `pending` nobody waits for.
    abandoned: usize,
    /// The leader and term that all of `pending` belong to.
    reign: Option<(NodeId, Term)>,
    /// Who refused: it is asked again when time has passed.
    refused_by: Option<(NodeId, Term)>,
}

#[derive(Debug)]
struct Waiting {
    request: RequestId,
    deadline: u64,
    /// The number under which it was refused; `u64::MAX` if it has not been handed over.
    refused: u64,
    proposal: Proposal,
}

/// A write whose fate the log decides.
#[derive(Debug)]
pub(crate) struct Pending {
    /// Who waits, unless it went away.
    pub(crate) request: Option<RequestId>,
    deadline: u64,
    pub(crate) physical: bool,
    /// What was forwarded to another member, in case that refuses it.
    forwarded: Option<(Kind, Bytes)>,
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
            abandoned: 0,
            reign: None,
            refused_by: None,
        }
    }

    /// Takes a write. False if too much is waiting.
    pub(crate) fn push(&mut self, request: RequestId, proposal: Proposal, deadline: u64) -> bool {
        // One is always taken, or a large one could never be.
        let bytes = proposal.bytes();
        if self.waiting_bytes > 0 && self.waiting_bytes + bytes > self.waiting_bytes_max {
            return false;
        }
        self.waiting_bytes += bytes;
        self.waiting.push_back(Waiting { request, deadline, refused: u64::MAX, proposal });
        true
    }

    /// Whether this leader is to be given something.
    pub(crate) fn is_waiting(&self, leader: NodeId, term: Term) -> bool {
        !self.waiting.is_empty() && self.refused_by != Some((leader, term))
    }

    /// Hands out all that wait: from now on this leader's log decides about them.
    pub(crate) fn take_waiting(&mut self, leader: NodeId, term: Term) -> Vec<Bytes> {
        assert!(
            self.pending.is_empty() || self.reign == Some((leader, term)),
            "what an earlier leader was given is settled first"
        );
        self.reign = Some((leader, term));
        self.waiting_bytes = 0;
        let (member, boot) = (self.member, self.boot);
        let hand_out = |Waiting { request, deadline, proposal, .. }: Waiting| {
            self.last_sequence += 1;
            let sequence = self.last_sequence;
            let (kind, physical) = (proposal.kind(), proposal.physical);
            let sealed = proposal.seal(Origin { member, boot, sequence });
            let forwarded = (leader != member).then(|| (kind, sealed.clone()));
            let pending = Pending { request: Some(request), deadline, physical, forwarded };
            self.pending.insert(sequence, pending);
            sealed
        };
        self.waiting.drain(..).map(hand_out).collect()
    }

    /// An entry was applied: the write of ours that it was, if it is pending.
    pub(crate) fn applied(&mut self, origin: Origin) -> Option<Pending> {
        let ours = origin.member == self.member && origin.boot == self.boot;
        let pending = ours.then(|| self.pending.remove(&origin.sequence)).flatten()?;
        self.abandoned -= usize::from(pending.request.is_none());
        Some(pending)
    }

    /// The leader is this one now. Those that another one was given are lost.
    pub(crate) fn take_lost(&mut self, leader: Option<NodeId>, term: Term) -> Vec<RequestId> {
        let same = leader.map(|leader| (leader, term));
        if self.pending.is_empty() || self.reign == same {
            return Vec::new();
        }
        self.abandoned = 0;
        let lost = std::mem::take(&mut self.pending);
        lost.into_values().filter_map(|pending| pending.request).collect()
    }

    /// A leader says that it did not propose these, and never will. They wait again, before all
    /// others and in order.
    pub(crate) fn refused(&mut self, from: NodeId, boot: u64, sequences: &[u64]) {
        let Some((leader, term)) = self.reign else { return };
        if boot != self.boot || from != leader || from == self.member {
            return;
        }
        for &refused in sequences {
            let Some(pending) = self.pending.remove(&refused) else { continue };
            self.refused_by = Some((leader, term));
            let Pending { request, deadline, physical, forwarded } = pending;
            let (kind, sealed) = forwarded.expect("what another member leads was forwarded");
            let Some(request) = request else {
                self.abandoned -= 1;
                continue;
            };
            let proposal = Proposal::unseal(kind, sealed, physical);
            self.waiting_bytes += proposal.bytes();
            let at = self.waiting.partition_point(|waiting| waiting.refused < refused);
            self.waiting.insert(at, Waiting { request, deadline, refused, proposal });
        }
    }

    /// Time passed: who refused may be asked again.
    pub(crate) fn tick(&mut self) {
        self.refused_by = None;
    }

    /// Those that waited too long: never proposed, and proposed.
    pub(crate) fn take_expired(&mut self, now: u64) -> (Vec<RequestId>, Vec<RequestId>) {
        let unproposed = self.take_waiting_if(|waiting| waiting.deadline <= now);
        let mut proposed = Vec::new();
        self.pending.retain(|_, pending| {
            let over = pending.deadline <= now;
            if over {
                self.abandoned -= usize::from(pending.request.is_none());
                proposed.extend(pending.request);
            }
            !over
        });
        (unproposed, proposed)
    }

    /// Nobody waits for these any more.
    pub(crate) fn cancel(&mut self, requests: &BTreeSet<RequestId>) {
        for pending in self.pending.values_mut() {
            if pending.request.take_if(|request| requests.contains(request)).is_some() {
                self.abandoned += 1;
            }
        }
        self.take_waiting_if(|waiting| requests.contains(&waiting.request));
    }

    fn take_waiting_if(&mut self, is_over: impl Fn(&Waiting) -> bool) -> Vec<RequestId> {
        let mut over = Vec::new();
        self.waiting.retain(|waiting| {
            let goes = is_over(waiting);
            if goes {
                self.waiting_bytes -= waiting.proposal.bytes();
                over.push(waiting.request);
            }
            !goes
        });
        over
    }

    /// How many requests somebody waits for.
    pub(crate) fn waiting_requests(&self) -> usize {
        self.waiting.len() + self.pending.len() - self.abandoned
    }

    /// What must hold, when these lead.
    pub(crate) fn assert_sound(&self, leader: Option<NodeId>, term: Term) {
        assert!(self.waiting.is_empty() == (self.waiting_bytes == 0), "what waits has bytes");
        let last = self.pending.last_key_value().map_or(0, |(sequence, _)| *sequence);
        assert!(last <= self.last_sequence, "only what was taken is pending");
        assert!(
            self.pending.is_empty() || self.reign == leader.map(|leader| (leader, term)),
            "what was given to a leader that is gone is answered"
        );
    }
}

/// What this member was forwarded in the last term that it led in this life. It decides about
/// each number once, so nothing is proposed twice, however often the network delivers it, and
/// nothing is proposed that was refused.
///
/// Of other terms it knows nothing and says nothing: it may have proposed what was forwarded to a
/// former life, or in an earlier term. Who forwarded it learns of the new term, and gives it up.
#[derive(Debug, Default)]
pub(crate) struct Forwards {
    term: Term,
    /// Numbers decided about, as ranges (first, last), by origin's member and life.
    seen: BTreeMap<(NodeId, u64), BTreeMap<u64, u64>>,
}

/// Gaps in the numbers of one life that are kept; what falls into lower ones counts as seen.
const GAPS_MAX: usize = 64;

/// Lives of peers that are kept in one term. Each restart of a peer adds one; those beyond are
/// not served until the next term, so that nobody needs to be forgotten.
const LIVES_MAX: usize = 4096;

impl Forwards {
    /// This member leads `term`.
    pub(crate) fn lead(&mut self, term: Term) {
        if term != self.term {
            *self = Forwards { term, seen: BTreeMap::new() };
        }
    }

    /// Those of `from` that are to be decided about, now and never again.
    pub(crate) fn take_new(
        &mut self,
        from: NodeId,
        term: Term,
        proposals: Vec<Bytes>,
    ) -> Vec<Bytes> {
        if term != self.term {
            return Vec::new();
        }
        let is_new = |sealed: &Bytes| match Header::decode(sealed) {
            // A member forwards what its own clients asked for, nothing else.
            Ok((Header { origin, .. }, _)) if origin.member == from => {
                let life = (origin.member, origin.boot);
                if self.seen.len() >= LIVES_MAX && !self.seen.contains_key(&life) {
                    return false;
                }
                add(self.seen.entry(life).or_default(), origin.sequence)
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
    if ranges.len() > GAPS_MAX
        && let Some((first, _)) = ranges.pop_first()
        && let Some(lowest) = ranges.first_entry()
    {
        let last = *lowest.get();
        lowest.remove();
        ranges.insert(first, last);
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

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

    #[test]
    fn too_many_gaps_are_closed_from_below() {
        let mut ranges = BTreeMap::new();
        for number in (2..=2 * GAPS_MAX as u64 + 2).step_by(2) {
            assert!(add(&mut ranges, number));
        }
        assert_eq!(ranges.len(), GAPS_MAX);
        assert!(!add(&mut ranges, 3), "the lowest gap counts as seen");
        assert!(add(&mut ranges, 5), "the next does not");
    }
}
