//! Faults that strike: when, and whom.

use crate::chance::Chance;
use crate::cluster::{Asks, Cluster, Event};
use crate::fault::{Fault, Tally};
use crate::machine::{Death, Machine};
use crate::marks::Mark;
use crate::network::Link;
use crate::start::Rot;
use crate::weather::{Micros, SECOND};
use raft::{NodeId, RoleName};
use replica::Input;
use std::collections::{BTreeMap, BTreeSet};

/// The state of the bad weather.
pub(crate) struct Storm {
    pub(crate) chance: Chance,
    /// What each fault draws from: to leave one out changes none of the others.
    of_fault: Vec<Chance>,
    rages: bool,
    cuts: u64,
    /// Members that die in the middle of their next write.
    doomed: BTreeMap<NodeId, Death>,
    /// A connection breaks at the next piece of a long message.
    resets: bool,
    /// Members that are not started.
    barred: BTreeSet<NodeId>,
    /// How often in a row a member's recovery failed.
    recoveries: BTreeMap<NodeId, u64>,
    /// Copies of META as they once were.
    old_meta: BTreeMap<NodeId, Vec<u8>>,
}

impl Storm {
    pub(crate) fn new(chance: Chance) -> Storm {
        let of_fault = (0..Fault::ALL.len()).map(|fault| chance.fork(fault as u64)).collect();
        Storm {
            chance,
            of_fault,
            rages: true,
            cuts: 0,
            doomed: BTreeMap::new(),
            resets: false,
            barred: BTreeSet::new(),
            recoveries: BTreeMap::new(),
            old_meta: BTreeMap::new(),
        }
    }

    /// Whether faults strike.
    pub(crate) fn rages(&self) -> bool {
        self.rages
    }

    /// No fault strikes any more.
    pub(crate) fn end(&mut self) {
        self.rages = false;
        self.doomed.clear();
        self.resets = false;
    }

    /// These members are not started, all others are.
    pub(crate) fn bar(&mut self, members: BTreeSet<NodeId>) {
        self.barred = members;
    }

    pub(crate) fn is_barred(&self, id: NodeId) -> bool {
        self.barred.contains(&id)
    }

    pub(crate) fn take_doom(&mut self, id: NodeId) -> Option<Death> {
        self.doomed.remove(&id)
    }

    pub(crate) fn take_reset(&mut self) -> bool {
        std::mem::take(&mut self.resets)
    }

    pub(crate) fn crashed_in_recovery(&mut self, id: NodeId) -> u64 {
        let times = self.recoveries.entry(id).or_default();
        *times += 1;
        *times
    }

    pub(crate) fn recovered(&mut self, id: NodeId) {
        self.recoveries.remove(&id);
    }

    /// Damages up to three copies of META, or makes them old ones, while all four are the same.
    pub(crate) fn rot_meta(&mut self, machine: &Machine, rate: u64, faults: &mut Tally) {
        let name = |copy: u64| format!("META.{copy}");
        let Some(copy) = machine.disk.read(&name(0)).filter(|_| rate > 0) else { return };
        let unsynced = machine.disk.unsynced_files();
        let differs = |other| machine.disk.read(&name(other)).as_ref() != Some(&copy);
        // The one that is spared must be there for good.
        if (1..4).any(differs) || (0..4).any(|number| unsynced.contains(&name(number))) {
            return;
        }
        let old = self.old_meta.insert(machine.id, copy.clone());
        if !self.chance.per_mille(rate) {
            return;
        }
        faults.count(Fault::MetaRot);
        let spared = self.chance.below(4);
        for number in (0..4).filter(|number| *number != spared) {
            match (self.chance.below(4), &old) {
                (0, _) => {
                    let mut rotten = copy.clone();
                    rotten[self.chance.below(4096) as usize] ^= 1 << self.chance.below(8);
                    machine.disk.put(&name(number), rotten);
                }
                (1, Some(old)) => machine.disk.put(&name(number), old.clone()),
                (2, _) => {
                    machine.disk.take(&name(number));
                }
                _ => {}
            }
        }
    }

    /// From now on chance is that of a fault; or, called again, that of everything else.
    fn draw_from(&mut self, fault: Fault) {
        std::mem::swap(&mut self.chance, &mut self.of_fault[fault as usize]);
    }

    fn next_cut(&mut self) -> u64 {
        self.cuts += 1;
        self.cuts
    }

    /// All members in an order of chance.
    pub(crate) fn shuffled(&mut self, ids: &[NodeId]) -> Vec<NodeId> {
        let mut ids = ids.to_vec();
        for last in (1..ids.len()).rev() {
            ids.swap(last, self.chance.below(last as u64 + 1) as usize);
        }
        ids
    }
}

impl Cluster {
    /// From now on faults strike.
    pub(crate) fn begin_storm(&mut self) {
        let strikes: Vec<Fault> = self.weather.faults().filter(|fault| fault.strikes()).collect();
        for fault in strikes {
            let after = self.storm.of_fault[fault as usize].around(self.weather.rate(fault));
            self.agenda.add(after, Event::Strike(fault));
        }
        if self.weather.rate(Fault::ClockRates) > 0 {
            let now = self.agenda.now();
            for machine in &mut self.machines {
                machine.set_clock(now, a_rate(&mut self.storm.chance));
                self.faults.count(Fault::ClockRates);
            }
        }
    }

    pub(crate) fn strike(&mut self, fault: Fault) {
        if !self.storm.rages() {
            return;
        }
        self.storm.draw_from(fault);
        let again = self.storm.chance.around(self.weather.rate(fault));
        self.agenda.add(1 + again, Event::Strike(fault));
        let victim = self.victim(fault);
        let window = self.storm.chance.around(3 * self.weather.members.election());
        if self.strike_connection(fault, victim, window)
            || self.strike_link(fault, victim, window)
            || self.strike_process(fault, victim, window)
            || self.strike_clock(fault, victim)
            || self.strike_disk(fault, victim, window)
            || self.damage_disk(fault, victim)
        {
            self.faults.count(fault);
            let now = self.agenda.now();
            let lasts = self.weather.members.election() + 2 * window;
            self.trouble_until(now + if fault.is_of_a_moment() { 0 } else { lasts });
            self.trace.line(now, || format!("fault: {fault} n{victim} for {window} us"));
        }
        self.storm.draw_from(fault);
    }

    /// Whom it strikes: anybody, but the leader more often than that.
    fn victim(&mut self, fault: Fault) -> NodeId {
        let anybody = NodeId(1 + self.storm.chance.below(self.weather.size));
        let of_leader = matches!(fault, Fault::IsolatedLeader | Fault::HalfDeafLeader);
        match self.leader() {
            Some(leader) if of_leader || self.storm.chance.one_in(3) => leader,
            _ => anybody,
        }
    }

    /// What happens to connections that lasts for a moment, or is no cut.
    fn strike_connection(&mut self, fault: Fault, victim: NodeId, window: Micros) -> bool {
        let mut others = self.ids();
        others.retain(|id| *id != victim);
        if others.is_empty() {
            return false;
        }
        match fault {
            Fault::Clog => {
                let (other, until) = (self.storm.chance.pick(&others), self.agenda.now() + window);
                self.network.clog((victim, other), until);
            }
            Fault::Disconnect => {
                let other = self.storm.chance.pick(&others);
                self.agenda.add(0, Event::Hint(victim, other));
            }
            Fault::Reset => self.storm.resets = true,
            Fault::Blip => {
                let ids = self.ids();
                for (at, id) in ids.iter().enumerate() {
                    ids[at + 1..].iter().for_each(|peer| self.reset(*id, *peer));
                }
            }
            Fault::SlowReceiver => {
                for other in others {
                    let Some(life) = &mut self.machine(other).life else { continue };
                    life.streams.set_stalled(victim, true);
                    let boot = life.boot;
                    self.agenda.add(window, Event::Takes(other, boot, victim));
                }
            }
            _ => return false,
        }
        true
    }

    fn strike_link(&mut self, fault: Fault, victim: NodeId, window: Micros) -> bool {
        let ids = self.ids();
        if ids.len() < 2 {
            return false;
        }
        let others = ids.iter().copied().filter(|id| *id != victim);
        let shuffled = self.storm.shuffled(&ids);
        let other = shuffled.iter().copied().find(|id| *id != victim).unwrap_or(victim);
        let links: Vec<Link> = match fault {
            Fault::OneWayCut => vec![(victim, other)],
            Fault::CutLink => vec![(victim, other), (other, victim)],
            Fault::Isolation | Fault::IsolatedLeader => {
                if self.storm.chance.one_in(3) {
                    // What it writes meanwhile gets neither to its disk nor to others.
                    let hangs = self.agenda.now() + 2 * window;
                    self.machine(victim).hung_until = hangs;
                }
                others.flat_map(|other| [(victim, other), (other, victim)]).collect()
            }
            Fault::HalfDeafLeader if self.storm.chance.one_in(2) => {
                others.map(|other| (other, victim)).collect()
            }
            Fault::HalfDeafLeader => others.map(|other| (victim, other)).collect(),
            Fault::Split => {
                let size = 1 + self.storm.chance.below(ids.len() as u64) as usize;
                between(&shuffled[..size], &shuffled[size..])
            }
            Fault::Bridge => {
                let middle = ids.len() / 2;
                between(&shuffled[..middle], &shuffled[middle + 1..])
            }
            Fault::Ring => not_neighbours(&shuffled),
            _ => return false,
        };
        if links.is_empty() {
            return false;
        }
        let number = self.storm.next_cut();
        self.network.cut(number, links);
        self.agenda.add(window, Event::Mend(number));
        true
    }

    fn strike_process(&mut self, fault: Fault, victim: NodeId, window: Micros) -> bool {
        let election = self.weather.members.election();
        let now = self.agenda.now();
        match fault {
            Fault::Stop => {
                let of_all = self.storm.chance.one_in(4);
                let told = if of_all { self.ids() } else { vec![victim] };
                for id in told {
                    let of_power = self.storm.chance.one_in(2);
                    let death = self.death(of_power);
                    self.stop(id, death);
                }
            }
            Fault::Kill | Fault::PowerLoss => {
                let death = self.death(fault == Fault::PowerLoss);
                if self.is_alive(victim) {
                    self.die(victim, death);
                }
            }
            Fault::CrashInWrite => {
                let of_power = self.storm.chance.one_in(2);
                let operations = Some(self.storm.chance.below(13) as usize);
                self.storm.doomed.insert(victim, Death { of_power, operations });
            }
            Fault::PowerLossOfAll => {
                for id in self.ids() {
                    let death = self.death(true);
                    if self.is_alive(id) {
                        self.die(id, death);
                    }
                }
            }
            Fault::ShortPause => self.machine(victim).paused_until = now + window.min(election) / 2,
            Fault::LongPause => self.machine(victim).paused_until = now + election + window,
            Fault::Starvation => self.machine(victim).starved_until = now + window,
            Fault::Transfer => {
                let to = NodeId(1 + self.storm.chance.below(self.weather.size));
                let to = (!self.storm.chance.one_in(3)).then_some(to);
                if self.is_alive(victim) {
                    let request = self.request(victim, Asks::Transfer);
                    self.push(victim, Input::Transfer { request, to });
                }
            }
            _ => return false,
        }
        true
    }

    fn death(&mut self, of_power: bool) -> Death {
        let chance = &mut self.storm.chance;
        let operations = chance.one_in(2).then(|| chance.below(13) as usize);
        Death { of_power, operations }
    }

    fn strike_clock(&mut self, fault: Fault, victim: NodeId) -> bool {
        let (now, settings) = (self.agenda.now(), &self.weather.members);
        let election = settings.election();
        match fault {
            Fault::ClockDrift => {
                let rate = a_rate(&mut self.storm.chance);
                self.machine(victim).set_clock(now, rate);
                let rates = || self.machines.iter().map(Machine::clock_rate);
                let apart = rates().max() > rates().min().map(|slowest| 2 * slowest);
                self.marks.sometimes(Mark::ClocksApart, apart);
            }
            Fault::ClockJump => {
                let long = settings.request().max(election);
                let by = self.storm.chance.pick(&[election / 4, election, 2 * long, 3600 * SECOND]);
                let leads = self.status(victim).is_some_and(|s| s.role == RoleName::Leader);
                self.marks.sometimes(Mark::LeaderJumps, leads && by >= election);
                let waits = self.asked.values().any(|asked| asked.member == victim);
                self.marks.sometimes(Mark::JumpOverRequests, waits && by > long);
                self.machine(victim).advance_clock(by);
            }
            _ => return false,
        }
        self.wake_by_clock(victim);
        true
    }

    fn strike_disk(&mut self, fault: Fault, victim: NodeId, window: Micros) -> bool {
        let now = self.agenda.now();
        let room = self.storm.chance.below(40_000);
        let operations = self.storm.chance.below(10) as usize;
        let machine = self.machine(victim);
        match fault {
            Fault::SlowDisk => machine.slow_until = now + window,
            Fault::HungDisk => machine.hung_until = now + window,
            // A disk has one fault at a time.
            Fault::SyncError | Fault::DiskError
                if machine.life.is_some() && machine.disk.is_sound() =>
            {
                // Writes and syncs alternate.
                let sync = fault == Fault::SyncError;
                let operations = if sync { operations / 2 * 2 + 1 } else { operations };
                machine.disk.set_fuse(operations, wal::Fault::Error);
                machine.faulty = true;
            }
            Fault::FullDisk => {
                machine.disk.set_room(Some(machine.disk.len() + room));
                self.agenda.add(2 * window, Event::MakeRoom(victim));
            }
            _ => return false,
        }
        true
    }

    /// Damages a disk, unless that would leave less than a quorum of members with sound disks.
    fn damage_disk(&mut self, fault: Fault, victim: NodeId) -> bool {
        let damaged = self.machines.iter().filter(|machine| !machine.disk.is_sound()).count();
        let Machine { disk, life, faulty, .. } = &self.machines[victim.0 as usize - 1];
        let may_strike = disk.is_sound() && !faulty && life.is_some();
        if 2 * (damaged + 1) >= self.machines.len() || !may_strike {
            return false;
        }
        let chance = &mut self.storm.chance;
        match fault {
            Fault::LiveRot => {
                let rot = Rot::draw(disk, chance);
                return rot.is_some_and(|rot| disk.damage(&rot.name, rot.offset, &rot.sector));
            }
            Fault::LostWrite => {
                let lie = chance.pick(&[wal::Lie::LosesSector, wal::Lie::LosesAll]);
                disk.set_lie(lie, chance.next());
            }
            Fault::MisdirectedWrite => disk.set_lie(wal::Lie::Misdirects, chance.next()),
            _ => return false,
        }
        true
    }

    /// A member has just promised something, or become something: a good moment to die.
    pub(crate) fn ambush(&mut self, id: NodeId, is_telling: bool) {
        let rate = self.weather.rate(Fault::Ambush);
        if is_telling && rate > 0 && self.storm.rages() && self.storm.chance.per_mille(rate) {
            self.strike_down(id);
        }
    }

    /// A leader dies half of the times when what it has may still be replaced.
    pub(crate) fn ambush_surely(&mut self, id: NodeId) {
        let strikes = self.weather.rate(Fault::Ambush) > 0 && self.storm.rages();
        if strikes && self.storm.chance.one_in(2) {
            self.strike_down(id);
        }
    }

    fn strike_down(&mut self, id: NodeId) {
        let Some(boot) = self.life(id).map(|life| life.boot) else { return };
        self.faults.count(Fault::Ambush);
        let of_power = self.storm.chance.one_in(2);
        let death = self.death(of_power);
        let after = self.storm.chance.pick(&[0, self.weather.delay / 2, self.weather.write]);
        self.agenda.add(after, Event::Die(id, boot, death));
    }
}

/// A rate for a clock, in thousandths.
fn a_rate(chance: &mut Chance) -> u64 {
    chance.between(600, 1500)
}

/// All links between two groups.
fn between(group: &[NodeId], others: &[NodeId]) -> Vec<Link> {
    let both = |a: NodeId, b: NodeId| [(a, b), (b, a)];
    group.iter().flat_map(|a| others.iter().flat_map(move |b| both(*a, *b))).collect()
}

/// All links of a ring between members that do not stand side by side.
fn not_neighbours(ring: &[NodeId]) -> Vec<Link> {
    let mut links = Vec::new();
    for (at, a) in ring.iter().enumerate() {
        for (other, b) in ring.iter().enumerate() {
            let apart = at.abs_diff(other).min(ring.len() - at.abs_diff(other));
            if apart > 1 {
                links.push((*a, *b));
            }
        }
    }
    links
}
