//! A write waits for company, where that pays.
//!
//! A write that has a batch of the log to itself costs a cluster three times the processor's time
//! of one that shares it: each batch is handed from thread to thread and from member to member,
//! whatever it holds. Where a batch is being written, all that come meanwhile share the next one. At
//! some thousand writes a second they come just too far apart for that. So a leader whose disk is
//! idle keeps the first write for a moment, and a second one again, and proposes three together.
//!
//! Whether that pays is learned from the writes themselves, for the first and the second apart. If no
//! other came, the moment was wasted, and twice as many as the time before go at once until it is
//! tried again. So the only client, which sends one write after another, hardly ever waits; and where
//! another write comes more often than not, writes wait for it.

use replica::{Input, PeerMessage};
use std::time::Duration;
use tokio::time::Instant;

/// Writes that are proposed together without waiting for more.
const COMPANY: usize = 3;

/// If the next write takes longer, waiting was in vain, even if it comes before the runtime's timer,
/// which goes in milliseconds, says so. Long enough for company at two thousand writes a second, and
/// about what the batch itself takes.
const PATIENCE: Duration = Duration::from_micros(600);

/// After this often in vain the pause until the next try doubles no more: 1024 times.
const VAIN_MAX: u32 = 10;

/// What becomes of a write here.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Proposes {
    /// This member does not lead.
    Nothing,
    /// It leads, and what it proposed is on its disk.
    ToAnIdleDisk,
    /// It leads, and its disk is at a batch.
    ToABusyDisk,
}

/// The writes that wait, and what was learned from those before.
#[derive(Default)]
pub struct Company {
    waiting: Vec<Input>,
    until: Option<Instant>,
    /// For one write that waits, for two, and so on.
    lessons: [Lesson; COMPANY - 1],
}

/// Whether it pays to wait for the next write.
#[derive(Default)]
struct Lesson {
    /// How often it did not, less how often it did.
    vain: u32,
    /// So many times it is not tried.
    pause: u32,
}

impl Company {
    /// Until when writes wait, if any do.
    pub fn until(&self) -> Option<Instant> {
        self.until
    }

    /// Takes writes that shall wait out of a round's inputs; puts them back, before all others, when
    /// there are enough, when they have waited long enough, or when this member leads no more.
    pub fn gather(&mut self, inputs: &mut Vec<Input>, proposes: Proposes, now: Instant) {
        let (waiting, new) = (count(&self.waiting), count(inputs));
        let is_late = self.until.is_some_and(|until| now >= until);
        if waiting > 0 {
            match new {
                _ if is_late => self.lessons[waiting - 1].was_in_vain(),
                0 => {}
                _ => self.lessons[waiting - 1].paid(),
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
            && (1..COMPANY).contains(&writes)
            && self.lessons[writes - 1].is_to_be_tried()
        {
            self.waiting.extend(inputs.extract_if(.., |input| writes_of(input) > 0));
            self.until = Some(now + PATIENCE);
            return;
        }
        inputs.splice(0..0, self.waiting.drain(..));
        self.until = None;
    }
}

impl Lesson {
    fn is_to_be_tried(&mut self) -> bool {
        self.pause = self.pause.saturating_sub(1);
        self.pause == 0
    }

    fn paid(&mut self) {
        self.vain = self.vain.saturating_sub(1);
    }

    fn was_in_vain(&mut self) {
        self.vain = VAIN_MAX.min(self.vain + 1);
        self.pause = 1 << self.vain;
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
    use proto::etcdserverpb::PutRequest;
    use replica::{Kind, Proposal, RequestId};

    fn write(number: u64) -> Input {
        let proposal = Proposal::new(Kind::Put, &PutRequest::default());
        Input::Propose { request: RequestId(number), proposal }
    }

    /// Which inputs are given on: the numbers of requests, 0 for a tick.
    fn given(
        company: &mut Company,
        mut inputs: Vec<Input>,
        proposes: Proposes,
        now: Instant,
    ) -> Vec<u64> {
        company.gather(&mut inputs, proposes, now);
        let number = |input: &Input| match input {
            Input::Propose { request, .. } | Input::Cancel(request) => request.0,
            _ => 0,
        };
        inputs.iter().map(number).collect()
    }

    const NONE: [u64; 0] = [];

    #[test]
    fn three_writes_go_together() {
        let (mut company, now) = (Company::default(), Instant::now());
        let later = now + PATIENCE / 2;
        assert_eq!(given(&mut company, vec![write(1), Input::Tick], ToAnIdleDisk, now), [0]);
        assert_eq!(given(&mut company, vec![Input::Tick], ToAnIdleDisk, now), [0]);
        assert_eq!(company.until(), Some(now + PATIENCE));
        assert_eq!(given(&mut company, vec![write(2)], ToAnIdleDisk, later), NONE);
        assert_eq!(company.until(), Some(later + PATIENCE));
        let last = vec![Input::Tick, write(3)];
        assert_eq!(given(&mut company, last, ToAnIdleDisk, later), [1, 2, 0, 3]);
        assert_eq!(company.until(), None);
        let many = vec![write(4), write(5), write(6)];
        assert_eq!(given(&mut company, many, ToAnIdleDisk, now), [4, 5, 6]);
        // While the disk is busy all that come share what it does next.
        assert_eq!(given(&mut company, vec![write(7)], ToABusyDisk, now), [7]);
    }

    #[test]
    fn a_write_waits_neither_for_ever_nor_where_it_is_not_proposed() {
        let (mut company, now) = (Company::default(), Instant::now());
        assert_eq!(given(&mut company, vec![write(1)], ToAnIdleDisk, now), NONE);
        assert_eq!(given(&mut company, vec![], ToAnIdleDisk, now + PATIENCE), [1]);

        let mut company = Company::default();
        assert_eq!(given(&mut company, vec![write(1)], Nothing, now), [1]);
        assert_eq!(given(&mut company, vec![write(2)], ToAnIdleDisk, now), NONE);
        assert_eq!(given(&mut company, vec![Input::Tick], Nothing, now), [2, 0]);
        assert_eq!(given(&mut company, vec![write(3)], ToAnIdleDisk, now), NONE);
        let cancel = Input::Cancel(RequestId(3));
        assert_eq!(given(&mut company, vec![cancel], ToAnIdleDisk, now), [3, 3]);
    }

    /// How often a first write waits, and a second one, in a thousand times, if so many come in time.
    fn waits(come: impl Fn(u32) -> u32) -> [usize; 2] {
        let (mut company, now) = (Company::default(), Instant::now());
        let mut waits = [0; 2];
        for number in 0..1000 {
            for nth in 0..come(number) {
                let given = given(&mut company, vec![write(1)], ToAnIdleDisk, now);
                if !given.is_empty() {
                    // Those that follow find the disk busy.
                    break;
                }
                waits[nth as usize] += 1;
            }
            given(&mut company, vec![], ToAnIdleDisk, now + PATIENCE);
            assert_eq!(company.until(), None);
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
