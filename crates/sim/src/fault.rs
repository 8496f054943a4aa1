//! What can go wrong: the kinds of faults, by name.

use std::fmt;
use std::str::FromStr;

/// A kind of fault. Each seed draws which of them a run has, and how often.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// A message is lost.
    Loss,
    /// A message arrives twice.
    Copies,
    /// Messages overtake each other.
    Reordering,
    /// Delays have a heavy tail, up to seconds.
    LongDelays,
    /// A copy of a message arrives much later, perhaps after restarts.
    StaleCopies,
    /// A link carries nothing for a while, then all at once.
    Clog,
    /// Nothing gets from one member to another, but back.
    OneWayCut,
    /// Nothing gets from one member to another, nor back.
    CutLink,
    /// A member is cut off from all others.
    Isolation,
    /// The leader is cut off from all others.
    IsolatedLeader,
    /// The leader is not heard, or does not hear.
    HalfDeafLeader,
    /// Two groups that do not reach each other.
    Split,
    /// Each member reaches its two neighbours.
    Ring,
    /// Two groups with one member in both.
    Bridge,
    /// A member believes that a connection broke.
    Disconnect,
    /// A connection breaks in the middle of a long message; what is under way on it is lost.
    Reset,
    /// All connections of all members break at once.
    Blip,
    /// A member takes nothing from its peers for a while, whose queues fill up.
    SlowReceiver,
    /// A process is told to stop, or all are; half of the machines are then switched off.
    Stop,
    /// A process dies; its machine goes on.
    Kill,
    /// A machine loses power.
    PowerLoss,
    /// A process dies, or its machine loses power, in the middle of a write.
    CrashInWrite,
    /// A process dies just when it has campaigned, voted, acknowledged or begun to lead.
    Ambush,
    /// All machines lose power.
    PowerLossOfAll,
    /// Power is lost while a member recovers.
    CrashInRecovery,
    /// A process stands still for less than an election timeout.
    ShortPause,
    /// A process stands still for longer than an election timeout.
    LongPause,
    /// A member's threads get the processor late.
    Starvation,
    /// Clocks run at different rates.
    ClockRates,
    /// A clock goes on at another rate.
    ClockDrift,
    /// A clock jumps forward, as that of a machine that was suspended.
    ClockJump,
    /// Writes take long.
    SlowDisk,
    /// Writes take seconds.
    HungDisk,
    /// A sync fails, and what it did not write is dropped.
    SyncError,
    /// Any operation of the disk fails.
    DiskError,
    /// There is no room on the disk.
    FullDisk,
    /// Up to three copies of META are damaged or old.
    MetaRot,
    /// Bits flip in the log of a copy of a disk: recovery must tell.
    LogRot,
    /// A sector of the log changes on the disk of a member that runs.
    LiveRot,
    /// A write that the disk says it has synced did not happen, or one of its sectors did not.
    LostWrite,
    /// A sector of a write that the disk says it has synced went elsewhere.
    MisdirectedWrite,
    /// Leadership is handed over.
    Transfer,
}

impl Fault {
    /// All kinds, with their names.
    pub const ALL: [(Fault, &str); 42] = [
        (Fault::Loss, "loss"),
        (Fault::Copies, "copies"),
        (Fault::Reordering, "reordering"),
        (Fault::LongDelays, "long-delays"),
        (Fault::StaleCopies, "stale-copies"),
        (Fault::Clog, "clog"),
        (Fault::OneWayCut, "one-way-cut"),
        (Fault::CutLink, "cut-link"),
        (Fault::Isolation, "isolation"),
        (Fault::IsolatedLeader, "isolated-leader"),
        (Fault::HalfDeafLeader, "half-deaf-leader"),
        (Fault::Split, "split"),
        (Fault::Ring, "ring"),
        (Fault::Bridge, "bridge"),
        (Fault::Disconnect, "disconnect"),
        (Fault::Reset, "reset"),
        (Fault::Blip, "blip"),
        (Fault::SlowReceiver, "slow-receiver"),
        (Fault::Stop, "stop"),
        (Fault::Kill, "kill"),
        (Fault::PowerLoss, "power-loss"),
        (Fault::CrashInWrite, "crash-in-write"),
        (Fault::Ambush, "ambush"),
        (Fault::PowerLossOfAll, "power-loss-of-all"),
        (Fault::CrashInRecovery, "crash-in-recovery"),
        (Fault::ShortPause, "short-pause"),
        (Fault::LongPause, "long-pause"),
        (Fault::Starvation, "starvation"),
        (Fault::ClockRates, "clock-rates"),
        (Fault::ClockDrift, "clock-drift"),
        (Fault::ClockJump, "clock-jump"),
        (Fault::SlowDisk, "slow-disk"),
        (Fault::HungDisk, "hung-disk"),
        (Fault::SyncError, "sync-error"),
        (Fault::DiskError, "disk-error"),
        (Fault::FullDisk, "full-disk"),
        (Fault::MetaRot, "meta-rot"),
        (Fault::LogRot, "log-rot"),
        (Fault::LiveRot, "live-rot"),
        (Fault::LostWrite, "lost-write"),
        (Fault::MisdirectedWrite, "misdirected-write"),
        (Fault::Transfer, "transfer"),
    ];

    /// Faults that strike at moments of their own; the others happen to messages, writes or
    /// recoveries as these come by, or last for the whole run.
    pub fn strikes(self) -> bool {
        !matches!(
            self,
            Fault::Loss
                | Fault::Copies
                | Fault::Reordering
                | Fault::LongDelays
                | Fault::StaleCopies
                | Fault::Ambush
                | Fault::CrashInRecovery
                | Fault::ClockRates
                | Fault::MetaRot
                | Fault::LogRot
        )
    }
}

impl Fault {
    /// Whether all that it does is done when it has struck; what follows is noted as it happens.
    pub fn is_of_a_moment(self) -> bool {
        matches!(
            self,
            Fault::Disconnect
                | Fault::Blip
                | Fault::Kill
                | Fault::PowerLoss
                | Fault::PowerLossOfAll
        )
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(Fault::ALL[*self as usize].1)
    }
}

impl FromStr for Fault {
    type Err = String;

    fn from_str(text: &str) -> Result<Fault, String> {
        let known = Fault::ALL.iter().find(|(_, name)| *name == text);
        known.map(|(fault, _)| *fault).ok_or_else(|| {
            let names: Vec<&str> = Fault::ALL.iter().map(|(_, name)| *name).collect();
            format!("no such fault; there are: {}", names.join(", "))
        })
    }
}

/// How often each kind happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tally([u64; Fault::ALL.len()]);

impl Default for Tally {
    fn default() -> Tally {
        Tally([0; Fault::ALL.len()])
    }
}

impl Tally {
    /// It happened once more.
    pub fn count(&mut self, fault: Fault) {
        self.0[fault as usize] += 1;
    }

    /// Adds another run's.
    pub fn add(&mut self, other: &Tally) {
        for (sum, more) in self.0.iter_mut().zip(other.0) {
            *sum += more;
        }
    }

    /// How often this kind happened.
    pub fn of(&self, fault: Fault) -> u64 {
        self.0[fault as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_in_the_order_of_the_kinds() {
        for (number, (fault, name)) in Fault::ALL.iter().enumerate() {
            assert_eq!(*fault as usize, number);
            assert_eq!(name.parse(), Ok(*fault));
            assert_eq!(fault.to_string(), *name);
        }
    }
}
