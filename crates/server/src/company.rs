//! A write waits for company, where that pays.
//!
//! A write that has a batch of the log to itself costs a cluster three times the processor's time
//! of one that shares it: each batch is handed from thread to thread and from member to member,
//! whatever it holds. Where a batch is being written, all that come meanwhile share the next one. At
//! some thousand writes a second they come just too far apart for that. So a leader whose disk is
//! idle keeps a lonely write for a moment, and proposes it together with the next one.
//!
//! Whether that pays is learned from the writes themselves. If no other came, the moment was wasted,
//! and twice as many lonely writes as the time before go at once until it is tried again. So the
//! only client, which sends one write after another, hardly ever waits; and where another write
//! comes more often than not, every lonely one does.

use replica::{Input, PeerMessage};
use std::time::Duration;
use tokio::time::Instant;

/// A write that waits longer waits in vain, even if another comes before the runtime's timer, which
/// goes in milliseconds, says so. Long enough for company at two thousand writes a second, and
/// about what the batch itself takes.
const PATIENCE: Duration = Duration::from_micros(600);

/// After this often in vain the number of those that go at once doubles no more: it is 1023.
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

/// The lonely write that waits, and what was learned from those before.
#[derive(Default)]
pub struct Company {
    waiting: Option<(Input, Instant)>,
    /// How often it was in vain, less how often it was not.
    vain: u32,
    /// So many go at once before one waits again.
    at_once: u32,
}

impl Company {
    /// Until when a write waits, if one does.
    pub fn until(&self) -> Option<Instant> {
        self.waiting.as_ref().map(|(_, until)| *until)
    }

    /// Takes a lonely write out of a round's inputs; puts it back, before all others, when another
    /// write came, when it has waited long enough, or when this member leads no more.
    pub fn gather(&mut self, inputs: &mut Vec<Input>, proposes: Proposes, now: Instant) {
        let writes: usize = inputs.iter().map(writes_of).sum();
        match self.waiting.take() {
            Some((input, until)) => {
                // A write that is given up must be where it can be found.
                let is_given_up = inputs.iter().any(|input| matches!(input, Input::Cancel(_)));
                if now >= until {
                    self.vain = VAIN_MAX.min(self.vain + 1);
                    self.at_once = (1 << self.vain) - 1;
                } else if writes > 0 {
                    self.vain = self.vain.saturating_sub(1);
                } else if proposes != Proposes::Nothing && !is_given_up {
                    self.waiting = Some((input, until));
                    return;
                }
                inputs.insert(0, input);
            }
            None if writes != 1 || proposes != Proposes::ToAnIdleDisk => {}
            None if self.at_once > 0 => self.at_once -= 1,
            None => {
                let lonely = inputs.extract_if(.., |input| writes_of(input) == 1).next();
                self.waiting = lonely.map(|input| (input, now + PATIENCE));
            }
        }
    }
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
    fn a_lonely_write_goes_with_the_next_one() {
        let (mut company, now) = (Company::default(), Instant::now());
        assert_eq!(given(&mut company, vec![write(1), Input::Tick], ToAnIdleDisk, now), [0]);
        assert_eq!(company.until(), Some(now + PATIENCE));
        assert_eq!(given(&mut company, vec![Input::Tick], ToAnIdleDisk, now), [0]);
        assert_eq!(given(&mut company, vec![Input::Tick, write(2)], ToAnIdleDisk, now), [1, 0, 2]);
        assert_eq!(company.until(), None);
        // While the disk is busy all that come share what it does next.
        assert_eq!(given(&mut company, vec![write(3)], ToABusyDisk, now), [3]);
        // Two at once are not lonely.
        assert_eq!(given(&mut company, vec![write(4), write(5)], ToAnIdleDisk, now), [4, 5]);
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

    /// How many of a thousand lonely writes wait, if another comes in time for these.
    fn waits(has_company: impl Fn(u32) -> bool) -> usize {
        let (mut company, now) = (Company::default(), Instant::now());
        let mut waited = 0;
        for number in 0..1000 {
            if !given(&mut company, vec![write(1)], ToAnIdleDisk, now).is_empty() {
                continue;
            }
            waited += 1;
            let late = if has_company(number) { Duration::ZERO } else { PATIENCE };
            assert_eq!(given(&mut company, vec![write(2)], ToAnIdleDisk, now + late), [1, 2]);
        }
        waited
    }

    #[test]
    fn writes_wait_where_others_come() {
        assert_eq!(waits(|_| true), 1000);
        assert_eq!(waits(|_| false), 9, "0, 2, 6, 14, ... 510");
        assert!(waits(|number| number % 4 > 0) > 700);
        assert!(waits(|number| number % 4 == 0) < 50);
        // What was learned is forgotten when it is no longer true.
        assert!(waits(|number| number > 200) > 400);
    }
}
