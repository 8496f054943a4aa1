//! A write waits for others to share its batch, where that pays.
//!
//! A write that has a batch of the log to itself costs a cluster three times the processor's time
//! of one that shares it: each batch is handed from thread to thread and from member to member,
//! whatever it holds. Where a batch is being written, all that come meanwhile share the next one. At
//! some thousand writes a second they come just too far apart for that. So a leader whose disk is
//! idle keeps the first write for a moment, and a second one again, and proposes three together.
//!
//! Whether that pays is estimated from the writes themselves, for the first and the second apart. If no
//! other came, the moment was wasted, and twice as many as the time before go at once until it is
//! tried again. So the only client, which sends one write after another, hardly ever waits; and where
//! another write comes more often than not, writes wait for it.

use crate::input::{Input, PeerMessage};
use std::time::Duration;

/// Writes that are proposed together without waiting for more.
const BATCH_WRITES: usize = 3;

/// If the next write takes longer, the delay was missed, even if it comes before a driver's timer,
/// which may go in milliseconds, says so. Long enough for another write at two thousand a second, and
/// about what the batch itself takes.
const DELAY_MAX: Duration = Duration::from_micros(600);

/// Caps the pause between tries at 2^10 writes.
const MISSED_MAX: u32 = 10;

/// What becomes of a write here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Proposes {
    /// This member does not lead.
    Nothing,
    /// It leads, and what it proposed is on its disk.
    ToAnIdleDisk,
    /// It leads, and its disk is at a batch.
    ToABusyDisk,
}

/// The writes that wait, and what was estimated from those before.
#[derive(Debug, Default)]
pub(crate) struct WriteBatching {
    waiting: Vec<Input>,
    until: Option<Duration>,
    /// For one write that waits, for two, and so on.
    estimators: [DelayEstimator; BATCH_WRITES - 1],
}

/// Whether it pays to wait for the next write.
#[derive(Debug, Default)]
struct DelayEstimator {
    /// How often it did not, less how often it did.
    missed: u32,
    /// So many times it is not tried.
    pause: u32,
}

impl WriteBatching {
    /// Until when writes wait, if any do.
    pub(crate) fn until(&self) -> Option<Duration> {
        self.until
    }

    /// Takes writes that shall wait out of a round's inputs; puts them back, before all others, when
    /// there are enough, when they have waited long enough, or when this member leads no more.
    pub(crate) fn gather(&mut self, inputs: &mut Vec<Input>, proposes: Proposes, now: Duration) {
        let (waiting, new) = (count(&self.waiting), count(inputs));
        let is_late = self.until.is_some_and(|until| now >= until);
        if waiting > 0 {
            match new {
                _ if is_late => self.estimators[waiting - 1].was_missed(),
                0 => {}
                _ => self.estimators[waiting - 1].paid(),
            }
        }
        // A write that is given up must be where it can be found.
        let is_given_up = inputs.iter().any(|input| matches!(input, Input::Cancel(_)));
        let may_wait = !is_late && !is_given_up && proposes != Proposes::Nothing;
        if new == 0 && may_wait {
            return;
        }
        let writes = waiting + new;
        if may_wait
            && proposes == Proposes::ToAnIdleDisk
            && (1..BATCH_WRITES).contains(&writes)
            && self.estimators[writes - 1].is_to_be_tried()
        {
            self.waiting.extend(inputs.extract_if(.., |input| writes_of(input) > 0));
            self.until = Some(now + DELAY_MAX);
            return;
        }
        inputs.splice(0..0, self.waiting.drain(..));
        self.until = None;
    }
}

impl DelayEstimator {
    fn is_to_be_tried(&mut self) -> bool {
        self.pause = self.pause.saturating_sub(1);
        self.pause == 0
    }

    fn paid(&mut self) {
        self.missed = self.missed.saturating_sub(1);
    }

    fn was_missed(&mut self) {
        self.missed = MISSED_MAX.min(self.missed + 1);
        self.pause = 1 << self.missed;
    }
}

fn count(inputs: &[Input]) -> usize {
    inputs.iter().map(writes_of).sum()
}

/// How many writes an input brings.
fn writes_of(input: &Input) -> usize {
    match input {
        Input::Propose { .. } => 1,
        Input::Peer(_, PeerMessage::Forward { proposals, .. }) => proposals.len(),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::Proposes::{Nothing, ToABusyDisk, ToAnIdleDisk};
    use super::*;
    use crate::entry::{Kind, Proposal};
    use crate::input::RequestId;
    use proto::etcdserverpb::PutRequest;

    fn write(number: u64) -> Input {
        let proposal = Proposal::new(Kind::Put, &PutRequest::default());
        Input::Propose { request: RequestId(number), proposal }
    }

    /// Which inputs are given on: the numbers of requests, 0 for a tick.
    fn given(
        batching: &mut WriteBatching,
        mut inputs: Vec<Input>,
        proposes: Proposes,
        now: Duration,
    ) -> Vec<u64> {
        batching.gather(&mut inputs, proposes, now);
        let number = |input: &Input| match input {
            Input::Propose { request, .. } | Input::Cancel(request) => request.0,
            _ => 0,
        };
        inputs.iter().map(number).collect()
    }

    const NONE: [u64; 0] = [];

    #[test]
    fn three_writes_go_together() {
        let (mut batching, now) = (WriteBatching::default(), Duration::from_secs(1));
        let later = now + DELAY_MAX / 2;
        assert_eq!(given(&mut batching, vec![write(1), Input::Tick], ToAnIdleDisk, now), [0]);
        assert_eq!(given(&mut batching, vec![Input::Tick], ToAnIdleDisk, now), [0]);
        assert_eq!(batching.until(), Some(now + DELAY_MAX));
        assert_eq!(given(&mut batching, vec![write(2)], ToAnIdleDisk, later), NONE);
        assert_eq!(batching.until(), Some(later + DELAY_MAX));
        let last = vec![Input::Tick, write(3)];
        assert_eq!(given(&mut batching, last, ToAnIdleDisk, later), [1, 2, 0, 3]);
        assert_eq!(batching.until(), None);
        let many = vec![write(4), write(5), write(6)];
        assert_eq!(given(&mut batching, many, ToAnIdleDisk, now), [4, 5, 6]);
        // While the disk is busy all that come share what it does next.
        assert_eq!(given(&mut batching, vec![write(7)], ToABusyDisk, now), [7]);
    }

    #[test]
    fn a_write_waits_neither_for_ever_nor_where_it_is_not_proposed() {
        let (mut batching, now) = (WriteBatching::default(), Duration::from_secs(1));
        assert_eq!(given(&mut batching, vec![write(1)], ToAnIdleDisk, now), NONE);
        assert_eq!(given(&mut batching, vec![], ToAnIdleDisk, now + DELAY_MAX), [1]);

        let mut batching = WriteBatching::default();
        assert_eq!(given(&mut batching, vec![write(1)], Nothing, now), [1]);
        assert_eq!(given(&mut batching, vec![write(2)], ToAnIdleDisk, now), NONE);
        assert_eq!(given(&mut batching, vec![Input::Tick], Nothing, now), [2, 0]);
        assert_eq!(given(&mut batching, vec![write(3)], ToAnIdleDisk, now), NONE);
        let cancel = Input::Cancel(RequestId(3));
        assert_eq!(given(&mut batching, vec![cancel], ToAnIdleDisk, now), [3, 3]);
    }

    /// How often a first write waits, and a second one, in a thousand times, if so many come in time.
    fn waits(come: impl Fn(u32) -> u32) -> [usize; 2] {
        let (mut batching, now) = (WriteBatching::default(), Duration::from_secs(1));
        let mut waits = [0; 2];
        for number in 0..1000 {
            for nth in 0..come(number) {
                let given = given(&mut batching, vec![write(1)], ToAnIdleDisk, now);
                if !given.is_empty() {
                    // Those that follow find the disk busy.
                    break;
                }
                waits[nth as usize] += 1;
            }
            given(&mut batching, vec![], ToAnIdleDisk, now + DELAY_MAX);
            assert_eq!(batching.until(), None);
        }
        waits
    }

    #[test]
    fn writes_wait_where_others_come() {
        assert_eq!(waits(|_| 1), [9, 0], "0, 2, 6, 14, ... 510");
        assert_eq!(waits(|_| 3), [1000, 1000]);
        // Two clients, each one write after another.
        assert_eq!(waits(|_| 2), [1000, 9]);
        let [first, _] = waits(|number| 1 + u32::from(number % 4 > 0));
        assert!(first > 700, "{first}");
        let [first, _] = waits(|number| 1 + u32::from(number % 4 == 0));
        assert!(first < 50, "{first}");
        // What was learned is forgotten when it is no longer true.
        let [first, second] = waits(|number| if number > 200 { 3 } else { 1 });
        assert!(first > 400 && second > 400, "{first} {second}");
    }
}
