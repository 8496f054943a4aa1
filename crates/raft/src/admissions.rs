//! Which life of whose log counts.
//!
//! A vote and an acknowledgement are promises of a disk. A member whose disk was lost, or replaced
//! by an older copy, has forgotten what it promised; counted all the same, it lets a leader be
//! elected that lacks what was committed. So each life of a log has a name, an [`Incarnation`], and
//! the replicated log itself says which one of each member counts: an *admission* is an entry that
//! names some.
//!
//! - The first leader of all opens its term with an admission of itself and of all it heard from.
//!   It is elected by members whose logs are as empty as its own, and it counts at once.
//! - Whoever is heard of later is admitted by an entry of its own. That counts once it is
//!   committed by those that counted before: else an entry that is never committed could let one
//!   disk count for a log that another disk of the same member voted against.
//! - A member that was admitted stays so in later lives of the same log, which have higher numbers.
//!   They are admitted, too, so that an older copy of the log, whose next life has a lower number
//!   or the same number and another id, is told from it.
//! - A log that admits nobody is empty: then all count. Or it is of a release that knew no admissions:
//!   then all count but those whose log was made since.
//!
//! An admission never replaces a log by another one: that needs the agreement of those that are
//! whole, and is a change of membership.

use crate::entry::{Index, NodeId};
use crate::node::NUMBER_MAX;
use bytes::{Buf, BufMut, Bytes, BytesMut};
use std::collections::{BTreeMap, VecDeque};
use std::fmt;

/// Names a life of a member's log. A log that is made begins with `start` 1, one of a release that
/// knew no names with 2; it gets a new name when its member starts after the last one was admitted. The default, of zeros, is that of a
/// member that does not name its log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Incarnation {
    /// Counts the lives that were admitted.
    pub start: u64,
    /// Drawn for each.
    pub id: u64,
}

/// What a member's own log says of a peer, or of the member itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It counts.
    Admitted,
    /// The log does not name it: it counts when it was admitted.
    Unknown,
    /// The log names another life, which this one does not continue: the disk was lost, or is an
    /// older copy.
    Replaced {
        /// The life that counts.
        admitted: Incarnation,
    },
}

/// The lives that one entry admits.
pub type Admission = BTreeMap<NodeId, Incarnation>;

/// The admissions of a log.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Admissions {
    /// Those that are committed, joined: the latest of each member.
    committed: Admission,
    /// Names the log by the first of them; 0 before.
    history: u64,
    /// Those that are not, in order.
    pending: VecDeque<(Index, Admission)>,
}

impl Incarnation {
    /// Whether a log that says this is the one that said `earlier`, now or in a later life.
    pub fn continues(self, earlier: Incarnation) -> bool {
        self == earlier || self.start > earlier.start
    }

    /// The first life of a log that had no names before. It is not that of a log that is made now,
    /// which begins with 1.
    pub fn of_an_unnamed_log(id: u64) -> Incarnation {
        Incarnation { start: 2, id }
    }

    /// Whether this is the first life of a log that was made under this name.
    pub(crate) fn is_of_a_new_log(self) -> bool {
        self.start == 1
    }

    /// Whether a correct member presents this: it does not name its log, or by what can be admitted.
    pub(crate) fn is_possible(self) -> bool {
        !self.is_named() || (1..NUMBER_MAX).contains(&self.start)
    }

    /// Whether the member names its log.
    pub(crate) fn is_named(self) -> bool {
        self != Incarnation::default()
    }
}

impl Admissions {
    /// Takes note of an admission in the log.
    pub(crate) fn append(&mut self, index: Index, admission: Admission) {
        self.pending.push_back((index, admission));
    }

    /// Forgets those from an index on: they were replaced.
    pub(crate) fn truncate(&mut self, from: Index) {
        self.pending.retain(|(index, _)| *index < from);
    }

    /// Takes note of how far the log is committed.
    pub(crate) fn commit(&mut self, index: Index) {
        while self.pending.front().is_some_and(|(at, _)| *at <= index) {
            let (_, admission) = self.pending.pop_front().expect("there is a first");
            if self.committed.is_empty() {
                let mix = |mixed: u64, life: &Incarnation| mixed.rotate_left(7) ^ life.id;
                self.history = admission.values().fold(0, mix).max(1);
            }
            for (id, incarnation) in admission {
                let latest = self.committed.entry(id).or_insert(incarnation);
                if incarnation.continues(*latest) {
                    *latest = incarnation;
                }
            }
        }
    }

    /// The last one that is not known to be committed.
    pub(crate) fn last_pending(&self) -> Option<Index> {
        self.pending.back().map(|(index, _)| *index)
    }

    /// The lives that count.
    pub(crate) fn in_effect(&self) -> Option<&Admission> {
        let first = self.pending.front().map(|(_, admission)| admission);
        if self.committed.is_empty() { first } else { Some(&self.committed) }
    }

    /// Names the log that this is a part of: the same for all members that have one. 0 before the first
    /// admission is committed.
    pub(crate) fn history(&self) -> u64 {
        self.history
    }

    /// What is certain: the lives that committed entries name.
    pub(crate) fn committed(&self) -> &Admission {
        &self.committed
    }

    /// What the log says of a member that presents itself like this.
    pub(crate) fn standing(&self, id: NodeId, presented: Incarnation) -> Standing {
        let Some(admitted) = self.in_effect() else { return Standing::Admitted };
        match admitted.get(&id) {
            None => Standing::Unknown,
            Some(admitted) if presented.continues(*admitted) => Standing::Admitted,
            Some(admitted) => Standing::Replaced { admitted: *admitted },
        }
    }

    /// Whether the log names this life of a member, committed, and no other one.
    pub(crate) fn name_only(&self, id: NodeId, presented: Incarnation) -> bool {
        self.pending.is_empty() && self.committed.get(&id) == Some(&presented)
    }

    /// The latest life of a member that the log names anywhere.
    pub(crate) fn latest(&self, id: NodeId) -> Option<Incarnation> {
        let pending = self.pending.iter().filter_map(|(_, admission)| admission.get(&id));
        pending.chain(self.committed.get(&id)).copied().max()
    }
}

/// Bytes of one member in an entry.
const MEMBER_BYTES: usize = 24;

/// Encodes an admission: for each member, ascending, its id, then the life's start and id; numbers
/// are little endian.
pub fn encode_admission(admission: &Admission) -> Bytes {
    let mut bytes = BytesMut::with_capacity(admission.len() * MEMBER_BYTES);
    for (id, incarnation) in admission {
        bytes.put_u64_le(id.0);
        bytes.put_u64_le(incarnation.start);
        bytes.put_u64_le(incarnation.id);
    }
    bytes.freeze()
}

/// Decodes an admission; `None` if it is none.
pub fn decode_admission(mut bytes: &[u8]) -> Option<Admission> {
    if bytes.is_empty() || !bytes.len().is_multiple_of(MEMBER_BYTES) {
        return None;
    }
    let mut admission = Admission::new();
    while bytes.has_remaining() {
        let id = NodeId(bytes.get_u64_le());
        let incarnation = Incarnation { start: bytes.get_u64_le(), id: bytes.get_u64_le() };
        let ascends = admission.last_key_value().is_none_or(|(last, _)| *last < id);
        if !ascends || !(1..NUMBER_MAX).contains(&incarnation.start) {
            return None;
        }
        admission.insert(id, incarnation);
    }
    Some(admission)
}

impl fmt::Display for Incarnation {
    /// `7:2f`: the start, and the id in hexadecimal.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{:x}", self.start, self.id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn life(start: u64, id: u64) -> Incarnation {
        Incarnation { start, id }
    }

    #[test]
    fn an_admission_is_read_back_and_nothing_else_is_one() {
        let admission = Admission::from([(NodeId(1), life(1, 7)), (NodeId(9), life(3, u64::MAX))]);
        let bytes = encode_admission(&admission);
        assert_eq!(decode_admission(&bytes), Some(admission));
        assert_eq!(decode_admission(&[]), None);
        assert_eq!(decode_admission(&bytes[1..]), None);
        let descending = [&bytes[MEMBER_BYTES..], &bytes[..MEMBER_BYTES]].concat();
        assert_eq!(decode_admission(&descending), None);
        for start in [0, NUMBER_MAX, u64::MAX] {
            let nobodys = encode_admission(&Admission::from([(NodeId(1), life(start, 7))]));
            assert_eq!(decode_admission(&nobodys), None);
        }
    }

    #[test]
    fn the_first_counts_at_once_and_later_ones_when_they_are_committed() {
        let mut admissions = Admissions::default();
        let (one, two) = (NodeId(1), NodeId(2));
        assert_eq!(admissions.standing(two, life(0, 0)), Standing::Admitted, "nobody is named");
        admissions.append(Index(1), Admission::from([(one, life(1, 7))]));
        assert_eq!(admissions.standing(one, life(1, 7)), Standing::Admitted);
        let admitted = life(1, 7);
        assert_eq!(admissions.standing(one, life(1, 8)), Standing::Replaced { admitted });
        assert_eq!(admissions.standing(one, life(2, 8)), Standing::Admitted, "a later life");
        admissions.append(Index(2), Admission::from([(two, life(1, 3))]));
        assert_eq!(admissions.standing(two, life(1, 3)), Standing::Unknown);
        admissions.commit(Index(1));
        assert_eq!(admissions.standing(two, life(1, 3)), Standing::Unknown);
        admissions.commit(Index(2));
        assert_eq!(admissions.standing(two, life(1, 3)), Standing::Admitted);
        admissions.append(Index(3), Admission::from([(one, life(5, 5))]));
        assert_eq!(admissions.latest(one), Some(life(5, 5)));
        admissions.truncate(Index(3));
        assert_eq!(admissions.latest(one), Some(life(1, 7)));
    }
}
