//! Writes: those that wait for a leader, those whose fate the log decides, and those of others.

use crate::entry::{Header, Kind, Origin, Proposal};
use crate::input::RequestId;
use crate::outbox::Reply;
use bytes::Bytes;
use raft::{NodeId, Term};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// The writes that this member took from clients.
///
/// A write waits until there is a leader, then it is proposed or forwarded, once in one term: the
/// log decides about it. It is never handed over again, for nobody can know that it was not
/// proposed, until
///
/// - the leader itself says that it did not propose it, and never will; or
/// - an entry of a later term was applied here and this write was not: terms in the log never go
///   back, so it will not come any more (sections 5.2 and 5.4.1: whoever leads from now on has that
///   entry in its log, behind which nothing of an earlier term can stand).
///
/// Then it waits again, and gets a new number, so that a refusal that comes late or twice names
/// nothing any more.
#[derive(Debug)]
pub(crate) struct Proposals {
    member: NodeId,
    boot: u64,
    last_sequence: u64,
    waiting: VecDeque<Waiting>,
    waiting_bytes: usize,
    /// Proposed or forwarded, by sequence; so their terms never go back.
    pending: BTreeMap<u64, Pending>,
    pending_bytes: usize,
    /// How many of `pending` nobody waits for.
    abandoned: usize,
    /// Who leads now, in which term.
    reign: Option<Reign>,
    /// Leaders that were given something and lead no more as far as is known, and when what they were
    /// given is given up: when nobody is elected for long, the log's word does not come.
    lost: BTreeMap<Reign, u64>,
    /// Who refused: it is asked again when time has passed.
    refused_by: Option<Reign>,
    /// Bytes of writes under way to a leader; more wait until those are applied. Little after a refusal,
    /// and more with each write that is applied.
    window: usize,
}

/// The most bytes under way to a leader. So what a broken connection loses is not sent again by the
/// hundred megabytes.
const WINDOW_MAX: usize = 16 << 20;
/// What is under way at most to a leader that has just refused. It is asked at each tick, and is full
/// for as long as its disk hangs.
const WINDOW_MIN: usize = 64 << 10;

/// A leader and its term.
type Reign = (NodeId, Term);

#[derive(Debug)]
struct Waiting {
    request: RequestId,
    deadline: u64,
    /// The number under which it was handed over before; `u64::MAX` if it was not.
    before: u64,
    proposal: Proposal,
}

/// A write whose fate the log decides.
#[derive(Debug)]
pub(crate) struct Pending {
    /// Who waits, unless it went away.
    pub(crate) request: Option<RequestId>,
    deadline: u64,
    pub(crate) physical: bool,
    /// More than one copy of it was sent: that one was not says nothing of the other.
    is_repeated: bool,
    /// Whom it was given to.
    reign: Reign,
    /// What was handed over, in case it has to be again.
    kind: Kind,
    sealed: Bytes,
}

impl Proposals {
    pub(crate) fn new(member: NodeId, boot: u64) -> Proposals {
        Proposals {
            member,
            boot,
            last_sequence: 0,
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            pending: BTreeMap::new(),
            pending_bytes: 0,
            abandoned: 0,
            reign: None,
            lost: BTreeMap::new(),
            refused_by: None,
            window: WINDOW_MAX,
        }
    }

    /// Takes a write.
    pub(crate) fn push(&mut self, request: RequestId, proposal: Proposal, deadline: u64) {
        self.waiting_bytes += proposal.bytes();
        self.waiting.push_back(Waiting { request, deadline, before: u64::MAX, proposal });
    }

    /// Bytes of the writes that wait to be handed over.
    pub(crate) fn waiting_bytes(&self) -> usize {
        self.waiting_bytes
    }

    /// Bytes of the writes whose fate the log decides.
    pub(crate) fn pending_bytes(&self) -> usize {
        self.pending_bytes
    }

    /// Whether this leader is to be given something now.
    pub(crate) fn is_waiting(&self, leader: NodeId, term: Term) -> bool {
        let has_room = self.pending_bytes < self.window_of(leader);
        !self.waiting.is_empty() && has_room && self.refused_by != Some((leader, term))
    }

    /// Hands out those that wait, as far as this leader is to be given them now: from now on its log
    /// decides about them.
    pub(crate) fn take_waiting(&mut self, leader: NodeId, term: Term) -> Vec<Bytes> {
        let reign = (leader, term);
        assert!(self.reign == Some(reign), "only who leads is given something");
        let (mut bytes, bytes_max) = (self.pending_bytes, self.window_of(leader));
        let fits = |waiting: &&Waiting| {
            let has_room = bytes < bytes_max;
            bytes += waiting.proposal.bytes();
            has_room
        };
        let count = self.waiting.iter().take_while(fits).count();
        let (member, boot) = (self.member, self.boot);
        let hand_out = |Waiting { request, deadline, proposal, .. }: Waiting| {
            self.waiting_bytes -= proposal.bytes();
            self.pending_bytes += proposal.bytes();
            self.last_sequence += 1;
            let sequence = self.last_sequence;
            let (kind, physical) = (proposal.kind(), proposal.physical);
            let sealed = proposal.seal(Origin { member, boot, sequence });
            let request = Some(request);
            let handed = sealed.clone();
            self.pending.insert(
                sequence,
                Pending { request, deadline, physical, is_repeated: false, reign, kind, sealed },
            );
            handed
        };
        self.waiting.drain(..count).map(hand_out).collect()
    }

    /// This member itself may have everything under way: it is in its memory anyway.
    fn window_of(&self, leader: NodeId) -> usize {
        if leader == self.member { usize::MAX } else { self.window }
    }

    /// Copies of what this leader was given and has not decided about yet, as far as is known. Also of
    /// what nobody waits for: it has a place in the window until it is decided about.
    pub(crate) fn hand_over_again(&mut self, leader: NodeId, term: Term) -> Vec<Bytes> {
        let is_there = |pending: &&mut Pending| pending.reign == (leader, term);
        let again = |pending: &mut Pending| {
            pending.is_repeated = true;
            pending.sealed.clone()
        };
        self.pending.values_mut().filter(is_there).map(again).collect()
    }

    /// An entry was applied: the write of ours that it was, if it is pending.
    pub(crate) fn applied(&mut self, origin: Origin) -> Option<Pending> {
        let ours = origin.member == self.member && origin.boot == self.boot;
        let pending = ours.then(|| self.pending.remove(&origin.sequence)).flatten()?;
        self.abandoned -= usize::from(pending.request.is_none());
        self.pending_bytes -= pending.sealed.len();
        self.window = WINDOW_MAX.min(self.window + pending.sealed.len());
        Some(pending)
    }

    /// What was applied reached this term: what was given to earlier leaders and is not applied yet
    /// was lost with them. It waits again.
    pub(crate) fn reached(&mut self, term: Term) {
        while let Some(oldest) = self.pending.first_entry()
            && oldest.get().reign.1 < term
        {
            let (sequence, pending) = oldest.remove_entry();
            self.wait_again(sequence, pending);
        }
        self.lost.retain(|(_, of), _| *of >= term);
    }

    /// Who leads now. Those that another one was given wait for the log's word until `deadline` at
    /// most; if that one turns out to lead still, they wait as long as ever. Returns whether that is
    /// news.
    pub(crate) fn lead(&mut self, leader: Option<NodeId>, term: Term, deadline: u64) -> bool {
        let now = leader.map(|leader| (leader, term));
        if self.reign == now {
            return false;
        }
        if let Some(before) = std::mem::replace(&mut self.reign, now)
            && !self.pending.is_empty()
        {
            self.lost.insert(before, deadline);
        }
        if let Some(now) = now {
            self.lost.remove(&now);
            self.window = WINDOW_MAX;
        }
        true
    }

    /// A leader says that it did not propose these, and never will. They wait again.
    pub(crate) fn refused(&mut self, from: NodeId, boot: u64, sequences: &[u64]) {
        self.take_back(from, boot, sequences, |_| true);
    }

    /// A copy of these was not sent to a leader. Those of which that was the only one wait again.
    pub(crate) fn not_sent(&mut self, to: NodeId, boot: u64, sequences: &[u64]) {
        self.take_back(to, boot, sequences, |pending| !pending.is_repeated);
    }

    fn take_back(
        &mut self,
        from: NodeId,
        boot: u64,
        sequences: &[u64],
        is_certain: impl Fn(&Pending) -> bool,
    ) {
        if boot != self.boot || from == self.member {
            return;
        }
        for &refused in sequences {
            let pending = self.pending.get(&refused).filter(|pending| is_certain(pending));
            if pending.is_some_and(|pending| pending.reign.0 == from) {
                let pending = self.pending.remove(&refused).expect("it was there");
                self.refused_by = Some(pending.reign);
                self.window = WINDOW_MIN;
                self.wait_again(refused, pending);
            }
        }
    }

    /// Puts a write that will not happen before all that were never handed over, and in order.
    fn wait_again(&mut self, before: u64, pending: Pending) {
        let Pending { request, deadline, physical, kind, sealed, .. } = pending;
        self.pending_bytes -= sealed.len();
        let Some(request) = request else {
            self.abandoned -= 1;
            return;
        };
        let proposal = Proposal::unseal(kind, sealed, physical);
        self.waiting_bytes += proposal.bytes();
        let at = self.waiting.partition_point(|waiting| waiting.before < before);
        self.waiting.insert(at, Waiting { request, deadline, before, proposal });
    }

    /// Time passed: who refused may be asked again.
    pub(crate) fn tick(&mut self) {
        self.refused_by = None;
    }

    /// Those that waited too long, and what to say to them.
    pub(crate) fn take_expired(&mut self, now: u64) -> Vec<(RequestId, Reply)> {
        let unproposed = self.take_waiting_if(|waiting| waiting.deadline <= now);
        let mut expired: Vec<_> =
            unproposed.into_iter().map(|request| (request, Reply::NoLeader)).collect();
        self.pending.retain(|_, pending| {
            let given_up = self.lost.get(&pending.reign).is_some_and(|deadline| *deadline <= now);
            let over = given_up || pending.deadline <= now;
            if over {
                self.pending_bytes -= pending.sealed.len();
                self.abandoned -= usize::from(pending.request.is_none());
                let leads = Some(pending.reign) == self.reign;
                let reply = if leads { Reply::TimedOut } else { Reply::Lost };
                expired.extend(pending.request.map(|request| (request, reply)));
            }
            !over
        });
        expired
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

    /// What must hold when the log was applied up to an entry of this term.
    pub(crate) fn assert_sound(&self, applied: Term) {
        assert!(self.waiting.is_empty() == (self.waiting_bytes == 0), "what waits has bytes");
        assert!(self.pending.is_empty() == (self.pending_bytes == 0), "what is pending has bytes");
        let last = self.pending.last_key_value().map_or(0, |(sequence, _)| *sequence);
        assert!(last <= self.last_sequence, "only what was taken is pending");
        let oldest = self.pending.first_key_value().map(|(_, pending)| pending.reign.1);
        assert!(oldest.is_none_or(|term| term >= applied), "what the log decided is not pending");
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
    /// The latest ones of those that were refused. Who asks again had no answer; of older ones it gets
    /// none, and finds out from the log.
    refused: VecDeque<Origin>,
}

/// Refused writes that are remembered: about as many as one forward brings.
const REFUSED_MAX: usize = 4096;

/// Gaps in the numbers of one life that are kept; what falls into lower ones counts as seen.
const GAPS_MAX: usize = 64;

/// Lives of peers that are kept in one term. Each restart of a peer adds one; those beyond are
/// not served until the next term, so that nobody needs to be forgotten.
const LIVES_MAX: usize = 4096;

impl Forwards {
    /// This member leads `term`.
    pub(crate) fn lead(&mut self, term: Term) {
        if term != self.term {
            *self = Forwards { term, ..Forwards::default() };
        }
    }

    /// These were refused.
    pub(crate) fn note_refused(&mut self, term: Term, proposals: &[Bytes]) {
        if term == self.term {
            let origins =
                proposals.iter().flat_map(Header::decode).map(|(header, _)| header.origin);
            self.refused.extend(origins);
            let excess = self.refused.len().saturating_sub(REFUSED_MAX);
            self.refused.drain(..excess);
        }
    }

    /// Those of `from` that were refused before.
    pub(crate) fn refused_before(
        &self,
        from: NodeId,
        term: Term,
        proposals: &[Bytes],
    ) -> Vec<Bytes> {
        if term != self.term || self.refused.is_empty() {
            return Vec::new();
        }
        let refused: BTreeSet<&Origin> = self.refused.iter().collect();
        let was_refused = |sealed: &&Bytes| {
            let origin = Header::decode(sealed).map(|(header, _)| header.origin);
            origin.is_ok_and(|origin| origin.member == from && refused.contains(&origin))
        };
        proposals.iter().filter(was_refused).cloned().collect()
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
    fn a_leader_that_refused_is_asked_with_little_until_it_takes_something() {
        let (leader, term, boot) = (NodeId(2), Term(1), 9);
        let mut proposals = Proposals::new(NodeId(1), boot);
        let write = vec![7; 10 << 10];
        for number in 0..400 {
            let proposal = Proposal::encoded(Kind::Put, &write);
            proposals.push(RequestId(number), proposal, 1000);
        }
        proposals.lead(Some(leader), term, 0);
        let forward = |proposals: &mut Proposals| {
            let is_waiting = proposals.is_waiting(leader, term);
            let sealed = if is_waiting { proposals.take_waiting(leader, term) } else { Vec::new() };
            let origin = |sealed| Header::decode(sealed).expect("known").0.origin;
            sealed.iter().map(origin).collect::<Vec<Origin>>()
        };
        let mut forwarded = forward(&mut proposals);
        assert_eq!(forwarded.len(), 400, "all fit");
        // It is full, and says so at each tick.
        for _ in 0..3 {
            let sequences: Vec<u64> = forwarded.iter().map(|origin| origin.sequence).collect();
            proposals.refused(leader, boot, &sequences);
            assert_eq!(forward(&mut proposals), [], "not in the same tick");
            proposals.tick();
            forwarded = forward(&mut proposals);
            assert_eq!(forwarded.len(), 7, "64 KiB");
        }
        // Then it has room, and more is under way with each round.
        let mut rounds = Vec::new();
        while !forwarded.is_empty() {
            rounds.push(forwarded.len());
            for origin in forwarded {
                assert!(proposals.applied(origin).is_some());
            }
            forwarded = forward(&mut proposals);
        }
        assert_eq!(rounds, [7, 14, 28, 56, 112, 183]);
        proposals.assert_sound(term);
    }

    /// Forwards that were lost with their connection fill the window until the leader decides about
    /// them, whether somebody waits or not.
    #[test]
    fn what_nobody_waits_for_keeps_nothing_else_from_a_leader() {
        let (leader, term, boot) = (NodeId(2), Term(1), 9);
        let mut proposals = Proposals::new(NodeId(1), boot);
        let write = vec![7; 10 << 10];
        proposals.lead(Some(leader), term, 0);
        // A blip of the connection: one forward was not sent.
        proposals.push(RequestId(0), Proposal::encoded(Kind::Put, &write), 1000);
        let sent = proposals.take_waiting(leader, term);
        let sequence = Header::decode(&sent[0]).expect("known").0.origin.sequence;
        proposals.not_sent(leader, boot, &[sequence]);
        proposals.tick();
        for number in 1..7 {
            proposals.push(RequestId(number), Proposal::encoded(Kind::Put, &write), 1000);
        }
        assert_eq!(proposals.take_waiting(leader, term).len(), 7);
        // These are lost with the next blip, and their clients give up.
        proposals.cancel(&(0..7).map(RequestId).collect());
        // The next connection, which is well.
        let again = proposals.hand_over_again(leader, term).len();
        proposals.push(RequestId(7), Proposal::encoded(Kind::Put, &write), 1100);
        let mut now = 1;
        while !proposals.is_waiting(leader, term) && now < 1000 {
            proposals.tick();
            proposals.take_expired(now);
            now += 1;
        }
        assert!(again == 7 || now < 10, "it waits for {now} ticks, and {again} were sent again");
    }

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
