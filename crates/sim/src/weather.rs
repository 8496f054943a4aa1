//! What one run is like: everything that a seed decides before the run begins.

use crate::chance::{Chance, Stream};
use crate::fault::Fault;
use std::collections::BTreeSet;
use std::fmt;

/// Simulated time, in microseconds.
pub type Micros = u64;

/// A second.
pub const SECOND: Micros = 1_000_000;

/// What one run is like. Small worlds reach corners: logs of a few entries per segment, appends of
/// one entry, few keys.
#[derive(Clone, Debug)]
pub struct Weather {
    /// Members: 1, 3 or 5.
    pub size: u64,
    /// How long faults strike.
    pub storm: Micros,
    /// Members' clocks, limits and patience.
    pub members: MemberSettings,
    /// What clients do.
    pub load: Load,
    /// What a message takes in good weather.
    pub delay: Micros,
    /// What a write takes in good weather.
    pub write: Micros,
    /// Indexed by fault; 0: never.
    rates: [u64; Fault::ALL.len()],
}

/// How members are set up.
#[derive(Clone, Debug)]
pub struct MemberSettings {
    /// A tick of a clock that is right.
    pub tick: Micros,
    /// As in [`raft::Config`], and so on.
    pub election_ticks: u32,
    /// Ticks between heartbeats.
    pub heartbeat_ticks: u32,
    /// Whether members ask before they campaign.
    pub pre_vote: bool,
    /// Whether leaders that hear no quorum step down.
    pub check_quorum: bool,
    /// Bytes of an append.
    pub append_bytes_max: usize,
    /// Bytes of unanswered appends.
    pub inflight_bytes_max: usize,
    /// Bytes of payloads kept in memory.
    pub tail_bytes_max: usize,
    /// Bytes of a segment of the log.
    pub segment_bytes: u64,
    /// Bytes of requests that wait for a leader.
    pub admitted_bytes_max: usize,
    /// Ticks that a request may take.
    pub request_ticks_max: u32,
}

/// What clients do.
#[derive(Clone, Debug)]
pub struct Load {
    /// How many there are.
    pub clients: u32,
    /// How long one thinks between two requests.
    pub think: Micros,
    /// How long one waits for an answer before it goes to another member.
    pub patience: Micros,
    /// How many keys they share.
    pub keys: u64,
    /// The longest value.
    pub value_bytes_max: u64,
    /// Weights of: puts, deletes, transactions, compactions, linearizable and serializable reads.
    pub mix: [u64; 6],
}

/// What is left out of a run, to find what a failure needs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Narrowing {
    /// Faults that do not happen.
    pub without: BTreeSet<Fault>,
    /// Fewer clients.
    pub clients: Option<u32>,
    /// The storm ends early.
    pub storm: Option<Micros>,
}

impl Weather {
    /// The weather of this seed.
    pub fn of(seed: u64, narrowing: &Narrowing) -> Weather {
        let mut chance = Chance::new(seed, Stream::Weather);
        let size = chance.pick(&[1, 3, 3, 3, 3, 5, 5]);
        let members = MemberSettings::draw(&mut chance);
        let election = members.election();
        let storm = (election * chance.between(30, 120)).clamp(5 * SECOND, 60 * SECOND);
        let load = Load::draw(&mut chance, storm, election);
        let delay = election / chance.pick(&[2000, 500, 100]);
        let write = election / chance.pick(&[2000, 500, 100]);
        let mut rates = [0; Fault::ALL.len()];
        // From a gentle breeze with one or two faults to everything at once.
        let share = chance.pick(&[60, 200, 350, 600]);
        for (fault, _) in Fault::ALL {
            let rate = rate(fault, election, &mut chance);
            if chance.per_mille(share) && !narrowing.without.contains(&fault) {
                rates[fault as usize] = rate;
            }
        }
        let mut weather = Weather { size, storm, members, load, delay, write, rates };
        weather.load.clients = narrowing.clients.unwrap_or(u32::MAX).min(weather.load.clients);
        weather.storm = narrowing.storm.unwrap_or(u64::MAX).min(weather.storm);
        weather
    }

    /// How often a fault happens: for one that strikes, the mean time between; for others, so many
    /// times in a thousand. 0: never.
    pub fn rate(&self, fault: Fault) -> u64 {
        self.rates[fault as usize]
    }

    /// The faults that happen.
    pub fn faults(&self) -> impl Iterator<Item = Fault> + '_ {
        Fault::ALL.iter().map(|(fault, _)| *fault).filter(|fault| self.rate(*fault) > 0)
    }
}

fn rate(fault: Fault, election: Micros, chance: &mut Chance) -> u64 {
    match fault {
        Fault::Loss | Fault::Copies => chance.pick(&[5, 30, 150]),
        Fault::Reordering | Fault::ClockRates => 1000,
        Fault::LongDelays => chance.pick(&[5, 50, 500]),
        Fault::StaleCopies => chance.pick(&[2, 10, 50]),
        Fault::Ambush => chance.pick(&[5, 20, 60]),
        Fault::CrashInRecovery => chance.pick(&[200, 500]),
        Fault::MetaRot => chance.pick(&[100, 400]),
        Fault::LogRot => chance.pick(&[50, 200]),
        _ => election * chance.pick(&[3, 8, 20]),
    }
}

impl MemberSettings {
    fn draw(chance: &mut Chance) -> MemberSettings {
        let tick = chance.pick(&[10_000, 25_000, 50_000]);
        let election_ticks = chance.pick(&[5, 10, 20]);
        let heartbeat_ticks = chance.between(1, u64::from(election_ticks) / 4) as u32;
        let segment_bytes = chance.pick(&[2, 3, 4, 16]) * 4096;
        MemberSettings {
            tick,
            election_ticks,
            heartbeat_ticks,
            pre_vote: !chance.one_in(8),
            check_quorum: !chance.one_in(8),
            append_bytes_max: chance.pick(&[1, 400, 4096, 1 << 20]),
            inflight_bytes_max: chance.pick(&[80, 2000, 1 << 20]),
            tail_bytes_max: chance.pick(&[1, 600, 1 << 20]),
            segment_bytes,
            admitted_bytes_max: chance.pick(&[500, 1 << 20]),
            request_ticks_max: election_ticks * chance.pick(&[3, 8]),
        }
    }

    /// The shortest time in which a follower may lose patience.
    pub fn election(&self) -> Micros {
        self.tick * u64::from(self.election_ticks)
    }

    /// How long a request may take.
    pub fn request(&self) -> Micros {
        self.tick * u64::from(self.request_ticks_max)
    }
}

impl Load {
    fn draw(chance: &mut Chance, storm: Micros, election: Micros) -> Load {
        let clients = chance.pick(&[1, 3, 6, 12]);
        let requests = chance.between(60, 700);
        let mut mix = [10, 2, 4, 1, 6, 2];
        for weight in &mut mix {
            *weight *= chance.pick(&[0, 1, 1, 4]);
        }
        mix[0] = mix[0].max(2);
        Load {
            clients,
            think: storm * u64::from(clients) / requests,
            patience: election * chance.pick(&[1, 4, 20]),
            keys: chance.pick(&[1, 3, 6, 12]),
            value_bytes_max: chance.pick(&[16, 100, 900, 6000]),
            mix,
        }
    }
}

impl fmt::Display for Weather {
    /// One line.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.storm as f64 / SECOND as f64;
        let (size, clients) = (self.size, self.load.clients);
        write!(f, "{size} members, {clients} clients, {seconds:.1} s of ")?;
        let faults: Vec<String> = self.faults().map(|fault| fault.to_string()).collect();
        let faults = if faults.is_empty() { "calm".to_owned() } else { faults.join(", ") };
        write!(f, "{faults}")
    }
}

impl fmt::Display for Narrowing {
    /// As flags, each with a space before it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.without.is_empty() {
            let names: Vec<String> = self.without.iter().map(Fault::to_string).collect();
            write!(f, " --without {}", names.join(","))?;
        }
        if let Some(clients) = self.clients {
            write!(f, " --clients {clients}")?;
        }
        if let Some(storm) = self.storm {
            write!(f, " --storm-ms {}", storm / 1000)?;
        }
        Ok(())
    }
}
