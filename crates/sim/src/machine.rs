//! One machine: a disk that survives, and a member's process while it runs.
//!
//! The process is the real one but for its threads: the replica, and the log on the disk through
//! [`Storage`]. What the disk's thread does takes time: work is taken when the thread is free, and
//! happens when its time is over, or in part when the process dies before.

use crate::chance::Chance;
use crate::ledger::{Ledger, Write};
use crate::weather::Micros;
use raft::{Fetch, Message, NodeId, Persist};
use replica::{Input, Published, Replica, Storage};
use std::collections::BTreeSet;
use std::io;
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
    /// How fast its clock runs, in thousandths.
    pub clock: u64,
    /// Its process stands still.
    pub paused_until: Micros,
    /// Its process gets the processor late.
    pub starved_until: Micros,
    /// Its disk is slow, or does nothing.
    pub slow_until: Micros,
    /// Its disk does nothing.
    pub hung_until: Micros,
    /// An operation of its disk was made to fail.
    pub faulty: bool,
    /// Files with sectors that recovery cleared in vain: they may come back, and mean nothing.
    pub tainted: BTreeSet<String>,
}

/// What is gone when the process dies.
pub struct Life {
    /// Names this life of this member.
    pub boot: u64,
    /// The member.
    pub replica: Replica,
    /// Its log.
    pub storage: Storage<MemoryDisk>,
    /// What its node thread has not taken yet.
    pub inbox: Vec<Input>,
    /// A round is on the agenda.
    pub round_due: bool,
    /// What its disk thread has not taken yet.
    pub queue: Vec<Work>,
    /// What the disk thread is at.
    pub current: Vec<Work>,
    /// What its readers see.
    pub published: Published,
}

/// What the disk thread is asked to do.
pub enum Work {
    /// Make this durable.
    Persist(Write),
    /// Read this back.
    Fetch(Fetch),
}

/// What came of a turn of the disk thread.
#[derive(Default)]
pub struct Done {
    /// Promises that are true now.
    pub promises: Vec<Message>,
    /// What the node's thread is told.
    pub inputs: Vec<Input>,
    /// What is on disk now.
    pub writes: Vec<Write>,
}

/// How a process dies.
#[derive(Clone, Copy, Debug)]
pub struct Death {
    /// The machine loses power, too.
    pub of_power: bool,
    /// What the disk thread was at is done in part: so many operations. `None`: not begun.
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
            clock: 1000,
            paused_until: 0,
            starved_until: 0,
            slow_until: 0,
            hung_until: 0,
            faulty: false,
            tainted: BTreeSet::new(),
        }
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
            let storage = &mut life.storage;
            let (persists, writes) = split(life.current);
            if let Some(operations) = death.operations {
                self.disk.set_fuse(operations, wal::Fault::PowerLoss);
                if !persists.is_empty() {
                    let _ = storage.persist(persists);
                }
            }
            self.interrupted = writes;
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
    /// Whether the disk thread could take work.
    pub fn may_begin(&self) -> bool {
        self.current.is_empty() && !self.queue.is_empty()
    }

    /// The disk thread takes all that is queued.
    pub fn begin(&mut self) {
        self.current = std::mem::take(&mut self.queue);
    }

    /// The disk thread has done what it was at, as the server's does: reads at once, then all
    /// writes together.
    ///
    /// # Errors
    /// The first of the disk; it ends the member.
    pub fn finish(&mut self, ledger: &Ledger, id: NodeId) -> io::Result<Done> {
        let mut done = Done::default();
        let mut persists = Vec::new();
        for work in &self.current {
            match work {
                Work::Persist(write) => persists.push(write.persist.clone()),
                Work::Fetch(fetch) => {
                    let entries = self.storage.fetch(*fetch)?;
                    ledger.read_back(id, &entries);
                    done.inputs.push(Input::Fetched(*fetch, entries));
                }
            }
        }
        if !persists.is_empty() {
            let persisted = self.storage.persist(persists)?;
            done.promises = persisted.then_send;
            done.inputs.push(Input::Persisted(persisted.ticket));
        }
        done.writes = split(std::mem::take(&mut self.current)).1;
        Ok(done)
    }
}

fn split(work: Vec<Work>) -> (Vec<Persist>, Vec<Write>) {
    let writes: Vec<Write> = work
        .into_iter()
        .filter_map(|work| match work {
            Work::Persist(write) => Some(write),
            Work::Fetch(_) => None,
        })
        .collect();
    (writes.iter().map(|write| write.persist.clone()).collect(), writes)
}
