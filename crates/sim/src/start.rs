//! How a member starts: from what is on its disk, which must be what the ledger says.

use crate::cluster::{Asks, Cluster, Event};
use crate::effects::{Effect, Effects};
use crate::fault::Fault;
use crate::machine::Life;
use crate::marks::Mark;
use crate::streams::Streams;
use crate::weather::Micros;
use proto::log::Publish;
use raft::{Membership, NodeId, Restored};
use replica::{
    Config, DiskWriter, EventLoop, Input, Kind, Member, Proposal, QueueLimits, Replica, Slice,
    Started, Storage, StorageError,
};
use std::time::Duration;
use wal::{DiskFile, MemoryDisk};

const CLUSTER: u64 = 0xc1;

/// What may wait for a peer where members take nothing for a while: the server's limits are beyond
/// what these clients fill.
const SMALL_QUEUES: QueueLimits = QueueLimits { urgent_bytes_max: 2048, bulk_bytes_max: 8192 };

/// Bytes of a sector of a disk.
const SECTOR: usize = 512;

impl Cluster {
    /// A machine starts its member, unless it runs.
    pub(crate) fn start(&mut self, id: NodeId) {
        let is_kept_out = self.storm.is_barred(id) || self.machine(id).waits_for_repair;
        if self.is_alive(id) || is_kept_out || !self.may_start(id) {
            return;
        }
        if self.storm.rages() {
            let rate = self.weather.rate(Fault::MetaRot);
            self.storm.rot_meta(&self.machines[id.0 as usize - 1], rate, &mut self.faults);
            self.rot_log(id);
            self.endanger_recovery(id);
        }
        let disk = self.machine(id).disk.clone();
        let draw = self.members.next();
        match Storage::start(disk, identity(id), self.options(), draw) {
            Ok(started) => self.begin_life(id, started),
            Err(error) => self.start_failed(id, &error),
        }
    }

    /// Whether recovery finds on a damaged disk all that must be there. If it refuses the disk, the
    /// member waits for an operator: no member repairs its log from its peers yet. It also waits if
    /// recovery cannot know that the newest batch is lost (docs/formats.md): a member that has less
    /// than it promised is beyond what consensus tolerates.
    fn may_start(&mut self, id: NodeId) -> bool {
        let machine = &self.machines[id.0 as usize - 1];
        if !machine.disk.is_damaged() {
            return true;
        }
        let has_lied = machine.disk.has_lied();
        let copy = machine.disk.copy();
        copy.set_room(None);
        let (why, mark) = match Storage::start(copy, identity(id), self.options(), 1) {
            Ok(Started { restored, .. }) => {
                let interrupted = &machine.interrupted;
                if machine.ledger.lacks_newest(&restored, interrupted) {
                    ("its newest batch is lost".to_owned(), Mark::LieUntold)
                } else {
                    machine.ledger.clone().found(id, &restored, interrupted);
                    let mark = if has_lied { Mark::LieHarmless } else { Mark::RotHarmless };
                    self.marks.sometimes(mark, true);
                    return true;
                }
            }
            Err(error) => {
                assert!(is_told(&error), "n{id}: damage is answered with {error}");
                let mark = if has_lied { Mark::LieRefused } else { Mark::RotKeepsOut };
                (error.to_string(), mark)
            }
        };
        self.marks.sometimes(mark, true);
        let now = self.agenda.now();
        self.trace.line(now, || format!("n{id} waits for repair: {why}"));
        self.machine(id).waits_for_repair = true;
        let later = 1 + self.time.around(8 * self.weather.members.election());
        self.agenda.add(later, Event::Repair(id));
        false
    }

    /// An operator puts back what was damaged on a disk, and starts the member.
    pub(crate) fn repair(&mut self, id: NodeId) {
        let machine = self.machine(id);
        machine.disk.repair();
        if std::mem::take(&mut machine.waits_for_repair) {
            self.agenda.add(1, Event::Start(id));
        }
    }

    fn options(&self) -> wal::Options {
        wal::Options {
            segment_bytes: self.weather.members.segment_bytes,
            ..wal::Options::default()
        }
    }

    fn start_failed(&mut self, id: NodeId, error: &StorageError) {
        let now = self.agenda.now();
        self.trace.line(now, || format!("n{id} does not start: {error}"));
        let again = self.weather.members.election() / 2;
        self.agenda.add(1 + self.time.around(again), Event::Start(id));
        let machine = &mut self.machines[id.0 as usize - 1];
        if machine.disk.is_down() {
            let share = self.disks.below(11);
            machine.disk.lose_power(|_| self.disks.below(10) < share);
            machine.faulty = false;
            self.faults.count(Fault::CrashInRecovery);
            let twice = self.storm.crashed_in_recovery(id) > 1;
            self.marks.sometimes(Mark::TwoCrashesInRecovery, twice);
            return;
        }
        let full = error.to_string().contains("no storage space");
        assert!(full || machine.faulty, "n{id} refuses to start: {error}");
        machine.disk.process_died();
        machine.faulty = false;
    }

    fn begin_life(&mut self, id: NodeId, started: Started<MemoryDisk>) {
        let Started { storage, restored, warnings, .. } = started;
        self.storm.recovered(id);
        let machine = &mut self.machines[id.0 as usize - 1];
        machine.disk.clear_fuse();
        machine.scarred |= machine.disk.is_damaged();
        machine.faulty = false;
        let interrupted = std::mem::take(&mut machine.interrupted);
        let torn = !interrupted.is_empty() || !machine.tainted.is_empty();
        note_recovery(&mut self.marks, torn, &warnings, id);
        let may_warn = machine.scarred || !machine.tainted.is_empty();
        let in_good_order = std::mem::take(&mut machine.stopped) && !may_warn;
        let is_clean = warnings.iter().all(|warning| warning.starts_with("META."));
        assert!(!in_good_order || is_clean, "n{id} stopped in good order, and finds {warnings:?}");
        let before = machine.ledger.disk.last();
        machine.ledger.found(id, &restored, &interrupted);
        machine.tainted = machine.disk.unsynced_files();
        if machine.tainted.is_empty() {
            machine.disk.forget_damage();
        } else {
            // What recovery cleared may come back; what it found must be found again.
            let copy = machine.disk.after_power_loss(|_| false);
            let options = wal::Options {
                segment_bytes: self.weather.members.segment_bytes,
                ..wal::Options::default()
            };
            match Storage::start(copy, identity(id), options, 1) {
                Ok(again) => machine.ledger.clone().found(id, &again.restored, &[]),
                // What was damaged comes back as well.
                Err(_) if machine.disk.is_damaged() => {}
                Err(error) => panic!("n{id} would not start again: {error}"),
            }
        }
        let batch = interrupted.iter().any(|write| !write.logged.is_empty());
        let kept = machine.ledger.disk.last() != before;
        self.marks.sometimes(Mark::InterruptedKept, batch && kept);
        self.marks.sometimes(Mark::InterruptedGone, batch && !kept);
        let now = self.agenda.now();
        self.trace.line(now, || {
            let last = restored.positions.last().copied().unwrap_or_default();
            let term = restored.hard_state.term;
            format!("n{id} starts: term={term} last={last} {}", warnings.join("; "))
        });
        self.live(id, storage, restored);
    }

    fn live(&mut self, id: NodeId, storage: Storage<MemoryDisk>, restored: Restored) {
        self.boots += 1;
        self.trouble_until(self.agenda.now());
        let boot = self.boots;
        // Some take little time for a lot, others a lot for little.
        let election = self.weather.members.election();
        let slice_takes = self.time.pick(&[20, election / 2000, election / 200]);
        let slice_takes = Duration::from_micros(slice_takes);
        let little = Slice { entries: 4, bytes: 1000, sweep_bytes: 4096 };
        let slice = self.time.pick(&[Slice::default(), little]);
        let replica = Replica::new(Config { slice, ..self.config(id, boot) }, restored);
        let tick = Duration::from_micros(self.weather.members.tick);
        let phase = Duration::from_micros(self.time.below(self.weather.members.tick));
        let now = self.agenda.now();
        // Mostly as fast as is; some links take seconds for what others take milliseconds for.
        let pace = self.time.pick(&[0, 0, 0, 20, 500]);
        let is_small = self.weather.rate(Fault::SlowReceiver) > 0 && self.storm.rages();
        let limits = if is_small { SMALL_QUEUES } else { QueueLimits::default() };
        let local = self.machine(id).local_time(now);
        let mut event_loop = EventLoop::new(replica, tick, local.saturating_sub(phase));
        let mut effects = Effects::new(local, slice_takes);
        event_loop.turn([], &mut effects);
        let busy_until = now + effects.lasted().as_micros() as Micros;
        let published = effects.list.iter().find_map(|effect| match effect {
            Effect::Publish(published) => Some((**published).clone()),
            _ => None,
        });
        let published = published.expect("readers see something from the start");
        self.machine(id).life = Some(Life {
            boot,
            event_loop,
            reader: storage.reader(),
            writer: DiskWriter::new(storage),
            inbox: Vec::new(),
            turn_at: None,
            streams: Streams::new(pace, limits),
            slice_takes,
            busy_until,
            queue: Vec::new(),
            current: Vec::new(),
            reading: None,
            published,
            stopping: None,
        });
        for peer in self.ids() {
            if peer != id {
                let soon = 1 + self.time.around(self.weather.delay);
                self.agenda.add(soon, Event::Connect(id, peer));
            }
        }
        self.carry_out(id, effects);
        let publish = Publish {
            member_id: id.0,
            name: format!("n{id}"),
            client_urls: vec![format!("http://n{id}/{}", boot % 3)],
        };
        let request = self.request(id, Asks::Publish);
        let proposal = Proposal::new(Kind::Publish, &publish);
        self.push(id, Input::Propose { request, proposal });
    }

    fn config(&mut self, id: NodeId, boot: u64) -> Config {
        let settings = &self.weather.members;
        let raft = raft::Config {
            id,
            membership: Membership::new(self.ids()),
            election_ticks: settings.election_ticks,
            heartbeat_ticks: settings.heartbeat_ticks,
            seed: self.members.next(),
            pre_vote: settings.pre_vote,
            check_quorum: settings.check_quorum,
            append_bytes_max: settings.append_bytes_max,
            inflight_bytes_max: settings.inflight_bytes_max,
            tail_bytes_max: settings.tail_bytes_max,
        };
        let member = |id: NodeId| Member {
            id,
            name: String::new(),
            peer_urls: vec![format!("http://n{id}")],
            client_urls: Vec::new(),
            is_learner: false,
        };
        let members = self.ids().into_iter().map(member).collect();
        let (request_ticks_max, admitted_bytes_max) =
            (settings.request_ticks_max, settings.admitted_bytes_max);
        let slice = Slice::default();
        Config { raft, boot, members, request_ticks_max, admitted_bytes_max, slice }
    }

    /// Lets power fail, or an operation of the disk, while the member recovers.
    fn endanger_recovery(&mut self, id: NodeId) {
        let machine = &mut self.machines[id.0 as usize - 1];
        let chance = &mut self.storm.chance;
        if chance.per_mille(self.weather.rate(Fault::CrashInRecovery)) {
            machine.disk.set_fuse(chance.below(16) as usize, wal::Fault::PowerLoss);
        } else if self.weather.rate(Fault::DiskError) > 0 && chance.one_in(6) {
            machine.disk.set_fuse(chance.below(16) as usize, wal::Fault::Error);
            machine.faulty = true;
            self.faults.count(Fault::DiskError);
        }
    }

    /// Flips a bit in the log of a copy of the disk: recovery must refuse it, or find all the same.
    fn rot_log(&mut self, id: NodeId) {
        if !self.storm.chance.per_mille(self.weather.rate(Fault::LogRot)) {
            return;
        }
        let machine = &self.machines[id.0 as usize - 1];
        let copy = machine.disk.copy();
        copy.set_room(None);
        let Some(Rot { name, offset, sector }) = Rot::draw(&copy, &mut self.storm.chance) else {
            return;
        };
        let file = wal::Disk::open(&copy, &name).expect("the file exists");
        file.write_at(&sector, offset as u64).expect("the copy is sound");
        self.faults.count(Fault::LogRot);
        match Storage::start(copy, identity(id), self.options(), 1) {
            Ok(started) => {
                // Found among what was never written, or in what the crash had torn.
                let mut ledger = machine.ledger.clone();
                ledger.found(id, &started.restored, &machine.interrupted);
            }
            Err(error) => {
                assert!(is_told(&error), "n{id}: rot is answered with {error}");
                self.marks.sometimes(Mark::RotRefused, true);
            }
        }
    }
}

fn identity(id: NodeId) -> wal::Identity {
    wal::Identity { cluster: CLUSTER, member: id.0 }
}

/// Only what was under way when the process died can be torn, or is what an earlier recovery cleared
/// in vain.
fn note_recovery(
    marks: &mut crate::marks::Marks,
    may_be_torn: bool,
    warnings: &[String],
    id: NodeId,
) {
    let torn = warnings.iter().any(|warning| warning.contains("torn batch"));
    assert!(!torn || may_be_torn, "n{id}: recovery cuts what was written whole");
    marks.sometimes(Mark::TornBatch, torn);
    let meta = warnings.iter().any(|warning| warning.starts_with("META."));
    marks.sometimes(Mark::MetaRepaired, meta);
}

/// Whether an error says that the log is damaged.
fn is_told(error: &StorageError) -> bool {
    use wal::WalError::{Damaged, TailLost};
    matches!(error, StorageError::Wal(Damaged { .. } | TailLost { .. }))
}

/// A change of a sector of the log.
pub(crate) struct Rot {
    pub(crate) name: String,
    pub(crate) offset: usize,
    pub(crate) sector: [u8; SECTOR],
}

impl Rot {
    /// Draws one of a sector that was written, if there is one. One of the last segment is not zeroed:
    /// a batch that lacks sectors and is the last looks torn, and a disk that takes back what it said
    /// it had synced is beyond what can be told.
    pub(crate) fn draw(disk: &MemoryDisk, chance: &mut crate::chance::Chance) -> Option<Rot> {
        let names = wal::Disk::names(disk).unwrap_or_default();
        let segments: Vec<String> =
            names.into_iter().filter(|name| name.ends_with(".wal")).collect();
        let at = chance.below(segments.len() as u64) as usize;
        let name = segments.get(at)?;
        let bytes = disk.read(name).expect("the file exists");
        let written: Vec<usize> = (0..bytes.len())
            .step_by(SECTOR)
            .filter(|at| bytes[*at..at + SECTOR].iter().any(|byte| *byte != 0))
            .collect();
        let offset = *written.get(chance.below(written.len() as u64) as usize)?;
        let mut sector = [0; SECTOR];
        sector.copy_from_slice(&bytes[offset..offset + SECTOR]);
        match chance.below(3) {
            0 => sector[chance.below(SECTOR as u64) as usize] ^= 1 << chance.below(8),
            1 => sector.iter_mut().for_each(|byte| *byte = chance.next() as u8),
            _ if Some(name) != segments.last() => sector.fill(0),
            _ => sector.reverse(),
        }
        Some(Rot { name: name.clone(), offset, sector })
    }
}
