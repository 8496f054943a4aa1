//! One machine: a disk that survives, and a member's process while it runs.
//!
//! The process is the real one but for its threads: the loop with the replica, and the log on the disk through
//! [`DiskWriter`] and [`DiskReader`]. What their threads do takes time: work is taken when the thread
//! is free, and happens when its time is over; a write in part when the process dies before.

use crate::chance::Chance;
use crate::ledger::{Ledger, Write};
use crate::stop::Stopping;
use crate::streams::Streams;
use crate::weather::Micros;
use raft::{Fetch, NodeId};
use replica::{DiskReader, DiskWriter, EventLoop, Input, NodeEvent, Persisted, Published};
use std::collections::BTreeSet;
use std::io;
use std::time::Duration;
use wal::{Loss, MemoryDisk};

/// A machine and what is known of it.
pub struct Machine {
    /// The member that runs on it.
    pub id: NodeId,
    /// Its disk.
    pub disk: MemoryDisk,
    /// What its log must hold.
    pub ledger: Ledger,
    /// The process, while it runs.
    pub life: Option<Life>,
    /// The batch that was being written when the process died.
    pub interrupted: Vec<Write>,
    clock: Clock,
    /// Its process stands still.
    pub paused_until: Micros,
    /// Its process gets the processor late.
    pub starved_until: Micros,
    /// Its disk is slow, or does nothing.
    pub slow_until: Micros,
    /// Its disk does nothing.
    pub hung_until: Micros,
    /// Its process ended in good order.
    pub stopped: bool,
    /// Harmless damage stays on its disk.
    pub scarred: bool,
    /// Its member cannot start until its disk is repaired.
    pub waits_for_repair: bool,
    /// An operation of its disk was made to fail.
    pub faulty: bool,
    /// Files with sectors that recovery cleared in vain: they may come back, and mean nothing.
    pub tainted: BTreeSet<String>,
}

/// A clock that runs at a rate of its own.
struct Clock {
    /// In thousandths.
    rate: u64,
    /// Since when, in the world's time.
    since: Micros,
    /// What it showed then.
    then: Micros,
}

/// What is gone when the process dies.
pub struct Life {
    /// Names this life of this member.
    pub boot: u64,
    /// The member.
    pub event_loop: EventLoop,
    /// Its log, to write it.
    pub writer: DiskWriter<MemoryDisk>,
    /// Its log, to read it.
    pub reader: DiskReader<MemoryDisk>,
    /// What its node thread has not taken yet.
    pub inbox: Vec<NodeEvent>,
    /// When its next turn is on the agenda.
    pub turn_at: Option<Micros>,
    /// What waits for its peers.
    pub streams: Streams,
    /// How long a slice of a turn takes.
    pub slice_takes: Duration,
    /// Its node thread is at a turn.
    pub busy_until: Micros,
    /// Writes that the disk's thread has not taken yet.
    pub queue: Vec<Write>,
    /// Writes that the disk's thread is at.
    pub current: Vec<Write>,
    /// What the thread that reads is at.
    pub reading: Option<Fetch>,
    /// What its readers see.
    pub published: Published,
    /// It was told to stop.
    pub stopping: Option<Stopping>,
}

/// What came of a turn of the disk's thread.
pub struct Done {
    /// What the node's thread is told.
    pub persisted: Persisted,
    /// What is on disk now.
    pub writes: Vec<Write>,
}

/// How a process dies.
#[derive(Clone, Copy, Debug)]
pub struct Death {
    /// The machine loses power, too.
    pub of_power: bool,
    /// What the disk's thread was at is done in part: so many operations. `None`: not begun.
    pub operations: Option<usize>,
}

impl Machine {
    /// A machine with an empty disk.
    pub fn new(id: NodeId, disk_number: u64) -> Machine {
        Machine {
            id,
            disk: MemoryDisk::new(disk_number),
            ledger: Ledger::default(),
            life: None,
            interrupted: Vec::new(),
            clock: Clock { rate: 1000, since: 0, then: 0 },
            paused_until: 0,
            starved_until: 0,
            slow_until: 0,
            hung_until: 0,
            stopped: false,
            scarred: false,
            waits_for_repair: false,
            faulty: false,
            tainted: BTreeSet::new(),
        }
    }

    /// Lets its clock run at another rate, in thousandths.
    pub fn set_clock(&mut self, now: Micros, rate: u64) {
        let then = self.local_time(now).as_micros() as Micros;
        self.clock = Clock { rate, since: now, then };
    }

    /// Lets its clock show at once what it would have shown later. It never goes back.
    pub fn advance_clock(&mut self, by: Micros) {
        self.clock.then += by;
    }

    /// At which rate its clock runs, in thousandths.
    pub fn clock_rate(&self) -> u64 {
        self.clock.rate
    }

    /// What its clock shows.
    pub fn local_time(&self, now: Micros) -> Duration {
        let Clock { rate, since, then } = self.clock;
        Duration::from_micros(then + (now - since) * rate / 1000)
    }

    /// When its clock shows this, or a little later.
    pub fn world_time(&self, local: Duration) -> Micros {
        let Clock { rate, since, then } = self.clock;
        let local = local.as_micros() as Micros;
        since + (local.saturating_sub(then) * 1000).div_ceil(rate)
    }

    /// The process, while its node's thread runs.
    pub fn node(&mut self) -> Option<&mut Life> {
        self.life.as_mut().filter(|life| life.has_node())
    }

    /// The life of this number, if it has not ended.
    pub fn life(&mut self, boot: u64) -> Option<&mut Life> {
        self.life.as_mut().filter(|life| life.boot == boot)
    }

    /// Nothing that counts may be lost now. What is being made under a temporary name does not
    /// count; of META's four copies three are enough.
    ///
    /// # Panics
    /// If `what` was said too early.
    pub fn check_synced(&self, what: &str) {
        let unsynced = self.disk.unsynced_files();
        let (copies, files): (Vec<&String>, Vec<&String>) = unsynced
            .iter()
            .filter(|name| !name.ends_with(".tmp") && !self.tainted.contains(*name))
            .partition(|name| name.starts_with("META."));
        let id = self.id;
        assert!(files.is_empty() && copies.len() < 2, "n{id}: {what}; unsynced: {unsynced:?}");
    }

    /// The process dies, and the machine with it if it loses power.
    pub fn die(&mut self, death: Death, chance: &mut Chance) -> Loss {
        if let Some(mut life) = self.life.take() {
            if let Some(operations) = death.operations {
                self.disk.set_fuse(operations, wal::Fault::PowerLoss);
                if !life.current.is_empty() {
                    let _ = life.writer.finish();
                }
            }
            self.interrupted = life.current;
        }
        // A process that died paused is not continued.
        (self.paused_until, self.starved_until) = (0, 0);
        if !death.of_power {
            self.disk.process_died();
            return Loss::default();
        }
        self.faulty = false;
        let share = chance.below(11);
        self.disk.lose_power(|_| chance.below(10) < share)
    }
}

impl Life {
    /// Asks the disk's thread for a write.
    pub fn write(&mut self, write: Write) {
        self.writer.push(write.persist.clone());
        self.queue.push(write);
    }

    /// The disk's thread takes all that is queued, if it is free. Whether it has something to do
    /// now.
    pub fn begin_write(&mut self) -> bool {
        let begun = self.writer.begin();
        if begun {
            self.current = std::mem::take(&mut self.queue);
        }
        begun
    }

    /// Whether the disk's thread has something to do.
    pub fn is_writing(&self) -> bool {
        !self.queue.is_empty() || !self.current.is_empty()
    }

    /// The disk's thread has done what it was at.
    ///
    /// # Errors
    /// The first of the disk; it ends the member.
    pub fn finish_write(&mut self) -> io::Result<Done> {
        let persisted = self.writer.finish()?;
        Ok(Done { persisted, writes: std::mem::take(&mut self.current) })
    }

    /// The thread that reads takes the next request, if it is free. Whether it has something to do
    /// now.
    pub fn begin_read(&mut self) -> bool {
        if self.reading.is_some() {
            return false;
        }
        self.reading = self.reader.begin();
        self.reading.is_some()
    }

    /// The thread that reads has done what it was at.
    ///
    /// # Errors
    /// The first of the disk; it ends the member.
    pub fn finish_read(&mut self, ledger: &Ledger, id: NodeId) -> io::Result<Option<Input>> {
        let Some(fetch) = self.reading.take() else { return Ok(None) };
        let entries = self.reader.fetch(fetch)?;
        ledger.read_back(id, &entries);
        Ok(Some(Input::Fetched(fetch, entries)))
    }
}
