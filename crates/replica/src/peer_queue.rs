//! The queue of messages to one peer: in which order they leave, which are dropped, and which stream
//! takes them.
//!
//! Messages wait in two lanes. In the **urgent** lane is what is short and must not be late:
//! heartbeats and their answers, votes, commits, reads, acknowledgements. In the **bulk** lane are
//! appends and forwards, which may be megabytes. Urgent messages always leave first, and a long
//! message leaves in pieces, so that on a slow link an urgent one waits for one piece at most.
//! Within a lane messages stay in order.
//!
//! # Why consensus may be reordered like this
//!
//! Raft tolerates any order, but some orders cost much: an append that overtakes the one before it
//! is rejected, and the leader starts again from what is certain. So all appends, also those
//! without entries, keep their order in the bulk lane. What overtakes them is safe to: a heartbeat
//! and a commit speak only of what the peer is known to hold already, acknowledgements go the other
//! way, and a vote is of another term.
//!
//! Because heartbeats overtake appends, their answers come back while an append is still under way,
//! and to the leader each looks like a hint that the append was lost: it sends it again. Such copies
//! are dropped here, or they would fill a slow link.

use crate::input::PeerMessage;
use bytes::Bytes;
use raft::{Body, Index, Message, Term};
use std::collections::VecDeque;

/// The most bytes of a long message that leave together, and of short messages that leave in one
/// frame. At 1 MB/s it takes 32 ms, a third of a heartbeat's interval; smaller pieces cost fast links
/// a system call each for no visible gain on slow ones.
pub const PIECE_BYTES_MAX: usize = 32 << 10;

/// Urgent messages that wait for one peer hold at most so many bytes: some seconds of the busiest
/// traffic. A peer that does not read for longer gets newer ones later.
const URGENT_BYTES_MAX: usize = 1 << 20;

/// Appends and forwards that wait for one peer hold at most so many bytes. More than a leader has
/// in flight to one peer, so that its appends are not dropped.
const BULK_BYTES_MAX: usize = 64 << 20;

/// How much may wait for one peer.
#[derive(Clone, Copy, Debug)]
pub struct QueueLimits {
    /// Bytes of urgent messages.
    pub urgent_bytes_max: usize,
    /// Bytes of appends and forwards.
    pub bulk_bytes_max: usize,
}

impl Default for QueueLimits {
    fn default() -> QueueLimits {
        QueueLimits { urgent_bytes_max: URGENT_BYTES_MAX, bulk_bytes_max: BULK_BYTES_MAX }
    }
}

/// The messages that wait for one peer. Without a stream nothing waits.
#[derive(Debug, Default)]
pub struct PeerQueue {
    stream: Option<Stream>,
    /// The highest number of a stream that was in use: older streams are not taken into use.
    newest: u64,
    urgent: Lane,
    bulk: Lane,
    /// A long message of which some pieces have left.
    begun: Option<Begun>,
    /// The term of the appends that were queued last; the bulk lane holds none of another.
    append_term: Option<Term>,
    dropped: u64,
    /// How many streams were taken into use that the node has not heard of.
    unheard: usize,
    limits: QueueLimits,
}

/// The stream in use.
#[derive(Clone, Copy, Debug)]
struct Stream {
    number: u64,
    /// The peer was told that it is in use.
    announced: bool,
}

#[derive(Debug, Default)]
struct Lane {
    messages: VecDeque<PeerMessage>,
    bytes: usize,
}

#[derive(Debug)]
struct Begun {
    rest: Bytes,
    append: Option<AppendRange>,
}

/// What a stream sends next.
#[derive(Debug, PartialEq, Eq)]
pub enum NextFrame {
    /// These messages, whole. Empty once, to tell the peer that the stream is in use.
    Batch(Vec<PeerMessage>),
    /// A piece of the long message that is being sent.
    Part {
        /// Not empty.
        bytes: Bytes,
        /// How many bytes of the message follow; with 0 it ends.
        rest: usize,
    },
    /// Nothing now.
    Wait,
    /// Nothing any more: a newer stream is in use, or this one was closed.
    Ended,
}

impl PeerQueue {
    /// Queues a message. Without a stream, before the node has heard of it, or if too much waits
    /// already, it is dropped. If it asked
    /// the peer to propose something, the peer's refusal is returned in its place: this copy was not
    /// proposed.
    pub fn push(&mut self, message: PeerMessage) -> Option<PeerMessage> {
        if self.stream.is_none() || self.unheard > 0 {
            return self.drop_message(&message);
        }
        self.drop_outdated_appends(&message);
        if message.is_urgent() {
            if !self.urgent.has_room(&message, 0, self.limits.urgent_bytes_max) {
                return self.drop_message(&message);
            }
            self.urgent.push(message);
            return None;
        }
        if self.absorb_repeated_append(&message) {
            return None;
        }
        let begun = self.begun.as_ref().map_or(0, |begun| begun.rest.len());
        if !self.bulk.has_room(&message, begun, self.limits.bulk_bytes_max) {
            return self.drop_message(&message);
        }
        self.append_term = AppendRange::of(&message).map(|range| range.term).or(self.append_term);
        self.bulk.push(message);
        None
    }

    /// Lets so much wait from now on; more that waits already stays.
    pub fn set_limits(&mut self, limits: QueueLimits) {
        self.limits = limits;
    }

    /// The number of the stream in use.
    pub fn stream(&self) -> Option<u64> {
        self.stream.map(|stream| stream.number)
    }

    /// Takes a stream into use, in place of an older one; false if a newer one was in use already.
    ///
    /// What was queued for the older one is dropped without a word, and what it sent last may be
    /// lost: the node must be told that there is a new connection. Until it has heard so
    /// ([`PeerQueue::heard`]), it speaks to whom the older stream led to, which may have been another
    /// life of the peer: all that is dropped, too.
    pub fn open(&mut self, number: u64) -> bool {
        if number <= self.newest {
            return false;
        }
        self.clear();
        self.newest = number;
        self.stream = Some(Stream { number, announced: false });
        self.unheard += 1;
        true
    }

    /// The node has heard of one more of the streams that were opened, in their order.
    pub fn heard(&mut self) {
        self.unheard = self.unheard.saturating_sub(1);
    }

    /// Closes a stream; false if it is not the one in use. What is queued is dropped.
    pub fn close(&mut self, number: u64) -> bool {
        if self.stream() != Some(number) {
            return false;
        }
        self.clear();
        self.stream = None;
        true
    }

    /// Whether [`PeerQueue::next_frame`] has something else to say to this stream than to wait.
    pub fn is_ready(&self, number: u64) -> bool {
        match self.stream {
            Some(stream) if stream.number == number => {
                !stream.announced
                    || self.begun.is_some()
                    || !self.urgent.messages.is_empty()
                    || !self.bulk.messages.is_empty()
            }
            _ => number <= self.newest,
        }
    }

    /// Takes what the stream of this number sends next. A message longer than a piece is encoded as a
    /// whole when its first piece leaves.
    pub fn next_frame(
        &mut self,
        number: u64,
        encode: impl FnOnce(PeerMessage) -> Bytes,
    ) -> NextFrame {
        let Some(stream) = self.stream.as_mut().filter(|stream| stream.number == number) else {
            return if number <= self.newest { NextFrame::Ended } else { NextFrame::Wait };
        };
        if !std::mem::replace(&mut stream.announced, true) {
            return NextFrame::Batch(Vec::new());
        }
        let batch = self.take_batch();
        if !batch.is_empty() {
            return NextFrame::Batch(batch);
        }
        if self.begun.is_none()
            && let Some(message) = self.bulk.pop()
        {
            let append = AppendRange::of(&message);
            self.begun = Some(Begun { rest: encode(message), append });
        }
        self.take_piece()
    }

    /// How many messages were dropped, copies not counted.
    pub fn dropped(&self) -> u64 {
        self.dropped
    }

    /// Urgent messages, and behind them whole ones of the bulk lane as far as they fit.
    fn take_batch(&mut self) -> Vec<PeerMessage> {
        let mut batch = Vec::new();
        let mut bytes = 0;
        let mut take_from = |lane: &mut Lane| {
            while let Some(message) = lane.messages.front()
                && bytes + message.bytes() <= PIECE_BYTES_MAX
            {
                bytes += message.bytes();
                batch.extend(lane.pop());
            }
            lane.messages.is_empty()
        };
        if take_from(&mut self.urgent) && self.begun.is_none() {
            take_from(&mut self.bulk);
        }
        batch
    }

    fn take_piece(&mut self) -> NextFrame {
        let Some(begun) = &mut self.begun else { return NextFrame::Wait };
        let bytes = begun.rest.split_to(begun.rest.len().min(PIECE_BYTES_MAX));
        let rest = begun.rest.len();
        if rest == 0 {
            self.begun = None;
        }
        NextFrame::Part { bytes, rest }
    }

    fn drop_message(&mut self, message: &PeerMessage) -> Option<PeerMessage> {
        self.dropped += 1;
        message.refusal()
    }

    /// Drops an append that says nothing which the newest one in the lane does not say, but for the
    /// commit index, which that one takes over. If it has begun to leave, the next heartbeat tells.
    fn absorb_repeated_append(&mut self, message: &PeerMessage) -> bool {
        let Some(repeated) = AppendRange::of(message) else { return false };
        for queued in self.bulk.messages.iter_mut().rev() {
            if let Some(range) = AppendRange::of(queued) {
                let absorbs = range.covers(repeated);
                if absorbs && let PeerMessage::Raft(Message { body, .. }) = queued {
                    raise_commit(body, repeated.commit);
                }
                return absorbs;
            }
        }
        let begun = self.begun.as_ref().and_then(|begun| begun.append);
        begun.is_some_and(|range| range.covers(repeated))
    }

    /// Drops appends of earlier terms than this message's: who sends it leads in those no more.
    fn drop_outdated_appends(&mut self, message: &PeerMessage) {
        let PeerMessage::Raft(Message { term, body, .. }) = message else { return };
        // These speak of a term that nobody may ever enter.
        let is_hypothetical = matches!(body, Body::PreVote { .. } | Body::PreVoteReply { .. });
        if !is_hypothetical && self.append_term.is_some_and(|queued| queued < *term) {
            let before = self.bulk.messages.len();
            self.bulk.messages.retain(|queued| AppendRange::of(queued).is_none());
            self.bulk.bytes = self.bulk.messages.iter().map(PeerMessage::bytes).sum();
            self.dropped += (before - self.bulk.messages.len()) as u64;
            self.append_term = None;
        }
    }

    fn clear(&mut self) {
        self.urgent = Lane::default();
        self.bulk = Lane::default();
        self.begun = None;
        self.append_term = None;
    }
}

impl Lane {
    /// Whether a message may be added to this lane and the bytes beside it. One always may, or a
    /// large one could never be.
    fn has_room(&self, message: &PeerMessage, beside: usize, bytes_max: usize) -> bool {
        let bytes = self.bytes + beside;
        bytes == 0 || bytes + message.bytes() <= bytes_max
    }

    fn push(&mut self, message: PeerMessage) {
        self.bytes += message.bytes();
        self.messages.push_back(message);
    }

    fn pop(&mut self) -> Option<PeerMessage> {
        let message = self.messages.pop_front()?;
        self.bytes -= message.bytes();
        Some(message)
    }
}

impl PeerMessage {
    /// About what the message costs in memory and on the wire, in bytes; not less than on the wire.
    pub fn bytes(&self) -> usize {
        match self {
            PeerMessage::Raft(Message { body: Body::Append { entries, .. }, .. }) => {
                entries.iter().map(|entry| entry.payload.len() + 64).sum::<usize>() + 128
            }
            PeerMessage::Raft(_) => 128,
            PeerMessage::Forward { proposals, .. } => {
                proposals.iter().map(|proposal| proposal.len() + 32).sum::<usize>() + 64
            }
            PeerMessage::Refused { sequences, .. } => 10 * sequences.len() + 64,
        }
    }

    /// Whether the message overtakes appends and forwards. It is no longer than a piece.
    pub fn is_urgent(&self) -> bool {
        match self {
            PeerMessage::Raft(message) => !matches!(message.body, Body::Append { .. }),
            PeerMessage::Forward { .. } => false,
            PeerMessage::Refused { .. } => self.bytes() <= PIECE_BYTES_MAX,
        }
    }
}

/// Which entries an append carries: those after `prev`, up to `last`, of the log of `term`'s leader.
#[derive(Clone, Copy, Debug)]
struct AppendRange {
    term: Term,
    prev: Index,
    last: Index,
    commit: Index,
}

impl AppendRange {
    fn of(message: &PeerMessage) -> Option<AppendRange> {
        let PeerMessage::Raft(Message { term, body, .. }) = message else { return None };
        let Body::Append { prev, entries, commit } = body else { return None };
        let last = Index(prev.index.0.saturating_add(entries.len() as u64));
        Some(AppendRange { term: *term, prev: prev.index, last, commit: *commit })
    }

    /// Whether whoever answers this append answers the other one, too.
    fn covers(self, other: AppendRange) -> bool {
        self.term == other.term && self.prev <= other.prev && other.last <= self.last
    }
}

fn raise_commit(body: &mut Body, to: Index) {
    if let Body::Append { commit, .. } = body {
        *commit = (*commit).max(to);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entry::{Kind, Origin, Proposal};
    use raft::{Entry, EntryKind, NodeId, Position};

    fn raft(term: u64, body: Body) -> PeerMessage {
        let incarnation = raft::Incarnation::default();
        let (from, to, term) = (NodeId(1), NodeId(2), Term(term));
        PeerMessage::Raft(Message { from, to, term, incarnation, body })
    }

    fn heartbeat(round: u64) -> PeerMessage {
        raft(1, Body::Heartbeat { commit: Index(0), round })
    }

    /// An append of `count` entries of so many bytes after index `prev`.
    fn append(term: u64, prev: u64, count: u64, bytes: usize, commit: u64) -> PeerMessage {
        let entry = |index| Entry {
            at: Position::new(Term(term), Index(index)),
            kind: EntryKind::Command,
            payload: vec![index as u8; bytes].into(),
        };
        let entries = (prev + 1..=prev + count).map(entry).collect();
        let prev = Position::new(Term(term), Index(prev));
        raft(term, Body::Append { prev, entries, commit: Index(commit) })
    }

    fn forward(sequence: u64, bytes: usize) -> PeerMessage {
        let proposal = Proposal::encoded(Kind::Put, &vec![7; bytes]);
        let origin = Origin { member: NodeId(1), boot: 9, sequence };
        PeerMessage::Forward { term: Term(1), proposals: vec![proposal.seal(origin)] }
    }

    fn refused(sequence: u64) -> PeerMessage {
        PeerMessage::Refused { boot: 9, sequences: vec![sequence] }
    }

    /// A queue whose stream 1 is in use, and has said so.
    fn open() -> PeerQueue {
        let mut queue = PeerQueue::default();
        assert!(queue.open(1));
        queue.heard();
        assert_eq!(next(&mut queue), NextFrame::Batch(Vec::new()));
        queue
    }

    /// Encodes a message as zeros: as many as it costs.
    fn encode(message: PeerMessage) -> Bytes {
        vec![0; message.bytes()].into()
    }

    fn next(queue: &mut PeerQueue) -> NextFrame {
        let ready = queue.is_ready(1);
        let frame = queue.next_frame(1, encode);
        assert_eq!(ready, frame != NextFrame::Wait);
        frame
    }

    /// All messages that leave whole, and how many bytes leave in pieces.
    fn drain(queue: &mut PeerQueue) -> (Vec<PeerMessage>, usize) {
        let (mut whole, mut pieces) = (Vec::new(), 0);
        loop {
            match next(queue) {
                NextFrame::Batch(batch) => whole.extend(batch),
                NextFrame::Part { bytes, .. } => pieces += bytes.len(),
                NextFrame::Wait | NextFrame::Ended => return (whole, pieces),
            }
        }
    }

    fn is_empty(queue: &PeerQueue) -> bool {
        queue.urgent.bytes + queue.bulk.bytes == 0
            && queue.urgent.messages.is_empty()
            && queue.bulk.messages.is_empty()
            && queue.begun.is_none()
    }

    #[test]
    fn a_long_message_leaves_in_pieces_and_urgent_ones_pass_between_them() {
        let mut queue = open();
        let long = append(1, 0, 1, 3 * PIECE_BYTES_MAX, 0);
        let cost = long.bytes();
        assert_eq!(queue.push(long), None);
        let mut sent = 0;
        for round in 0.. {
            queue.push(heartbeat(round));
            assert_eq!(next(&mut queue), NextFrame::Batch(vec![heartbeat(round)]));
            let NextFrame::Part { bytes, rest } = next(&mut queue) else { panic!("a piece") };
            assert!(!bytes.is_empty() && bytes.len() <= PIECE_BYTES_MAX);
            sent += bytes.len();
            assert_eq!(sent + rest, cost);
            if rest == 0 {
                break;
            }
        }
        assert_eq!(next(&mut queue), NextFrame::Wait);
        assert!(is_empty(&queue));
    }

    #[test]
    fn short_messages_leave_together_urgent_ones_first_and_in_order() {
        let mut queue = open();
        let sent =
            [forward(1, 100), heartbeat(1), append(1, 0, 1, 10, 0), heartbeat(2), refused(5)];
        sent.iter().for_each(|message| assert_eq!(queue.push(message.clone()), None));
        let [forwarded, first, appended, second, refused] = sent;
        assert_eq!(
            next(&mut queue),
            NextFrame::Batch(vec![first, second, refused, forwarded, appended])
        );
        assert!(is_empty(&queue));
    }

    #[test]
    fn what_follows_a_long_message_in_its_lane_waits_for_all_of_it() {
        let mut queue = open();
        queue.push(forward(1, 2 * PIECE_BYTES_MAX));
        queue.push(forward(2, 10));
        for _ in 0..2 {
            assert!(matches!(next(&mut queue), NextFrame::Part { rest: 1.., .. }));
        }
        assert!(matches!(next(&mut queue), NextFrame::Part { rest: 0, .. }));
        assert_eq!(next(&mut queue), NextFrame::Batch(vec![forward(2, 10)]));
    }

    #[test]
    fn a_full_lane_drops_the_newest_and_the_other_lane_goes_on() {
        let mut queue = open();
        let bytes = 8 << 20;
        let kept = (BULK_BYTES_MAX / forward(0, bytes).bytes()) as u64;
        for sequence in 0..kept {
            assert_eq!(queue.push(forward(sequence, bytes)), None);
        }
        assert_eq!(queue.push(forward(kept, bytes)), Some(refused(kept)));
        assert!(queue.bulk.bytes <= BULK_BYTES_MAX);
        let urgent = (URGENT_BYTES_MAX / heartbeat(0).bytes()) as u64;
        for round in 0..urgent + 3 {
            assert_eq!(queue.push(heartbeat(round)), None);
        }
        assert_eq!(queue.dropped(), 1 + 3);
        let (whole, pieces) = drain(&mut queue);
        let rounds: Vec<_> = (0..urgent).map(heartbeat).collect();
        assert!(whole == rounds);
        assert_eq!(pieces, kept as usize * forward(0, bytes).bytes());
    }

    #[test]
    fn lower_limits_keep_what_waits_and_drop_what_comes() {
        let mut queue = open();
        assert_eq!(queue.push(forward(1, 1000)), None);
        queue.push(heartbeat(1));
        let (urgent_bytes_max, bulk_bytes_max) = (heartbeat(1).bytes(), 1000);
        queue.set_limits(QueueLimits { urgent_bytes_max, bulk_bytes_max });
        queue.push(heartbeat(2));
        assert_eq!(queue.push(forward(2, 10)), Some(refused(2)));
        assert_eq!(next(&mut queue), NextFrame::Batch(vec![heartbeat(1), forward(1, 1000)]));
    }

    #[test]
    fn what_has_begun_to_leave_counts_until_it_has_left() {
        let mut queue = open();
        assert_eq!(queue.push(forward(1, BULK_BYTES_MAX - 1000)), None);
        assert!(matches!(next(&mut queue), NextFrame::Part { rest: 1.., .. }));
        assert_eq!(queue.push(forward(2, 2 * PIECE_BYTES_MAX)), Some(refused(2)));
        assert_eq!(queue.push(forward(3, 100)), None);
    }

    #[test]
    fn one_message_is_taken_whatever_its_size() {
        let mut queue = open();
        assert_eq!(queue.push(forward(1, BULK_BYTES_MAX + 1)), None);
        assert_eq!(queue.push(forward(2, 1)), Some(refused(2)));
    }

    #[test]
    fn without_a_stream_nothing_waits() {
        let mut queue = PeerQueue::default();
        assert_eq!(queue.push(forward(7, 10)), Some(refused(7)));
        assert_eq!(queue.push(heartbeat(1)), None);
        assert_eq!(queue.dropped(), 2);
        assert!(is_empty(&queue));
        assert_eq!(queue.next_frame(1, encode), NextFrame::Wait, "it may be taken into use yet");
    }

    #[test]
    fn a_newer_stream_takes_over_and_starts_with_nothing() {
        let mut queue = open();
        queue.push(append(1, 0, 1, 2 * PIECE_BYTES_MAX, 0));
        queue.push(heartbeat(1));
        queue.push(append(1, 1, 1, 2 * PIECE_BYTES_MAX, 0));
        assert!(matches!(next(&mut queue), NextFrame::Batch(_)));
        assert!(matches!(next(&mut queue), NextFrame::Part { .. }), "it has begun");
        assert!(queue.open(3));
        assert!(queue.push(forward(1, 10)).is_some(), "the node has not heard of it");
        queue.heard();
        assert!(is_empty(&queue));
        assert_eq!(queue.next_frame(1, encode), NextFrame::Ended);
        assert!(!queue.open(2), "an older one comes too late");
        assert_eq!(queue.next_frame(2, encode), NextFrame::Ended);
        assert!(!queue.close(1), "it is not in use");
        queue.push(heartbeat(2));
        assert_eq!(queue.next_frame(3, encode), NextFrame::Batch(Vec::new()));
        assert_eq!(queue.next_frame(3, encode), NextFrame::Batch(vec![heartbeat(2)]));
        assert!(queue.close(3));
        assert_eq!((queue.stream(), queue.next_frame(3, encode)), (None, NextFrame::Ended));
        assert!(!queue.open(3), "what was closed stays closed");
    }

    #[test]
    fn an_append_is_not_repeated_while_it_waits_or_leaves() {
        let mut queue = open();
        let long = append(1, 4, 3, PIECE_BYTES_MAX, 2);
        for _ in 0..3 {
            queue.push(long.clone());
            queue.push(append(1, 7, 0, 0, 3));
        }
        assert_eq!(queue.bulk.messages, [append(1, 4, 3, PIECE_BYTES_MAX, 3)], "and tells more");
        assert!(matches!(next(&mut queue), NextFrame::Part { rest: 1.., .. }));
        queue.push(long.clone());
        assert!(queue.bulk.messages.is_empty(), "it is still on its way");
        // What reaches further, begins earlier, or is of another leader is none.
        queue.push(append(1, 7, 1, 0, 2));
        queue.push(append(1, 3, 4, 0, 2));
        queue.push(append(1, 3, 5, 0, 2));
        assert_eq!(queue.bulk.messages.len(), 3);
        drain(&mut queue);
        queue.push(long);
        assert_eq!(queue.bulk.messages.len(), 1, "it may have been lost");
    }

    #[test]
    fn appends_of_an_earlier_term_are_dropped() {
        let mut queue = open();
        queue.push(append(3, 0, 1, 10, 0));
        queue.push(forward(1, 10));
        queue.push(append(3, 1, 1, 10, 0));
        let last = Position::new(Term(3), Index(2));
        queue.push(raft(4, Body::PreVote { last }));
        queue.push(raft(3, Body::Commit { commit: Index(1) }));
        assert_eq!(queue.bulk.messages.len(), 3, "nobody is in term 4");
        queue.push(raft(4, Body::Vote { last, transfer: false }));
        assert_eq!(queue.bulk.messages, [forward(1, 10)]);
        assert_eq!(queue.bulk.bytes, forward(1, 10).bytes());
        queue.push(append(5, 0, 1, 10, 0));
        queue.push(append(6, 0, 1, 10, 0));
        assert_eq!(queue.bulk.messages, [forward(1, 10), append(6, 0, 1, 10, 0)]);
    }

    #[test]
    fn random_traffic_keeps_its_order_and_its_bytes() {
        let seed: u64 =
            std::env::var("PEER_QUEUE_SEED").map_or(1, |seed| seed.parse().expect("a seed"));
        println!("PEER_QUEUE_SEED={seed}");
        let mut draw = seed;
        let mut below = |bound: u64| {
            draw = draw.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (draw >> 33) % bound
        };
        let mut queue = open();
        let (mut urgent, mut bulk): (VecDeque<PeerMessage>, VecDeque<PeerMessage>) =
            Default::default();
        let mut long: Option<PeerMessage> = None;
        for number in 0..20_000 {
            match below(4) {
                0 => {
                    assert_eq!(queue.push(heartbeat(number)), None);
                    urgent.push_back(heartbeat(number));
                }
                1 => {
                    let message = forward(number, below(4 * PIECE_BYTES_MAX as u64) as usize);
                    match queue.push(message.clone()) {
                        None => bulk.push_back(message),
                        Some(refusal) => assert_eq!(refusal, refused(number)),
                    }
                }
                _ => match queue.next_frame(1, |message| {
                    assert!(long.replace(message.clone()).is_none(), "one at a time");
                    encode(message)
                }) {
                    NextFrame::Batch(batch) => {
                        for message in batch {
                            let lane = if message.is_urgent() { &mut urgent } else { &mut bulk };
                            assert_eq!(lane.pop_front(), Some(message));
                        }
                    }
                    NextFrame::Part { rest, .. } => {
                        assert!(urgent.is_empty(), "urgent messages leave first");
                        if rest == 0 {
                            assert_eq!(bulk.pop_front(), long.take());
                        }
                    }
                    NextFrame::Wait => assert!(urgent.is_empty() && bulk.is_empty()),
                    NextFrame::Ended => panic!("the stream is in use"),
                },
            }
        }
        drain(&mut queue);
        assert!(is_empty(&queue));
    }
}
