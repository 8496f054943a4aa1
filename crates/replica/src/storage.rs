//! The glue between consensus and disk: what a [`raft::Persist`] becomes in the log.

use raft::{
    Entry, EntryKind, Fetch, FetchFor, HardState, Index, NodeId, Persist, Position, Restored,
};
use raft::{Message, Term, Ticket};
use std::fmt;
use std::io;
use wal::{Batch, Disk, EntryId, Identity, Incarnation, Options, Record, Wal, WalError};

/// Admissions of logs: whose votes and acknowledgements count.
const ADMISSION: u8 = 2;

/// A member's disk. One thread owns it.
pub struct Storage<D: Disk> {
    wal: Wal<D>,
}

/// A disk that is ready, and what was on it.
pub struct Started<D: Disk> {
    /// The disk.
    pub storage: Storage<D>,
    /// What consensus starts from.
    pub restored: Restored,
    /// Whether the log was made just now.
    pub is_new: bool,
    /// The newest life of this log that has a name: of a new log this one, else the one that ended
    /// before; see [`Storage::begin_incarnation`].
    pub incarnation: Incarnation,
    /// The admissions in the log, committed or not, in order.
    pub admissions: Vec<Record>,
    /// One line for everything that was not as it should be and was put right.
    pub warnings: Vec<String>,
}

/// Why a member cannot start on this disk. `Display` is one line.
#[derive(Debug)]
pub enum StorageError {
    /// The log cannot be opened.
    Wal(WalError),
    /// The log is another member's, or of another cluster.
    Foreign {
        /// Whose it is.
        found: Identity,
        /// Who wants to use it.
        wanted: Identity,
    },
}

/// Writes that are done.
#[derive(Debug)]
pub struct Persisted {
    /// This one, and all before it.
    pub ticket: Ticket,
    /// Promises that are true now.
    pub then_send: Vec<Message>,
}

impl<D: Disk> Storage<D> {
    /// Opens the log, or makes it if there is none.
    ///
    /// # Errors
    /// When there is a log that is damaged, locked, or somebody else's.
    pub fn start(
        disk: D,
        identity: Identity,
        options: Options,
    ) -> Result<Started<D>, StorageError> {
        let options = Options { recover_kinds: &[ADMISSION], ..options };
        if !Wal::exists(&disk)? {
            let wal = Wal::create(disk, identity, options)?;
            return Ok(Started {
                restored: Restored::default(),
                is_new: true,
                incarnation: wal.incarnation(),
                admissions: Vec::new(),
                warnings: Vec::new(),
                storage: Storage { wal },
            });
        }
        let (wal, found) = Wal::open(disk, options)?;
        if found.identity != identity {
            return Err(StorageError::Foreign { found: found.identity, wanted: identity });
        }
        let wal::HardState { term, vote } = found.hard_state;
        let hard_state = HardState { term: Term(term), vote: (vote != 0).then_some(NodeId(vote)) };
        let positions = found.entries.into_iter().map(position).collect();
        let commit = Index(found.commit);
        let restored = Restored { hard_state, positions, admissions: Vec::new(), commit };
        Ok(Started {
            storage: Storage { wal },
            restored,
            is_new: false,
            incarnation: found.incarnation,
            admissions: found.records,
            warnings: found.warnings,
        })
    }

    /// Names this life of the log durably, before it promises anything.
    ///
    /// # Errors
    /// If it does not start later than the one before, or the disk fails, which ends the member.
    pub fn begin_incarnation(&mut self, incarnation: Incarnation) -> io::Result<()> {
        self.wal.begin_incarnation(incarnation)
    }

    /// The newest incarnation of the log.
    pub fn incarnation(&self) -> Incarnation {
        self.wal.incarnation()
    }

    /// Carries out all that is queued: one write, one sync.
    ///
    /// # Errors
    /// The first one ends the member: what is on the disk is not known any more.
    ///
    /// # Panics
    /// If nothing is queued.
    pub fn persist(&mut self, queued: Vec<Persist>) -> io::Result<Persisted> {
        let ticket = queued.last().expect("something is queued").ticket;
        let mut then_send = Vec::new();
        let mut batch = Batch::default();
        for persist in queued {
            if let Some(HardState { term, vote }) = persist.hard_state {
                let vote = vote.map_or(0, |id| id.0);
                batch.hard_state = Some(wal::HardState { term: term.0, vote });
            }
            if let Some(first) = persist.entries.first() {
                // A later write replaces what an earlier one of the same batch would have held.
                let kept = batch.records.partition_point(|old| old.id.index < first.at.index.0);
                batch.records.truncate(kept);
            }
            batch.records.extend(persist.entries.into_iter().map(record));
            batch.commit = batch.commit.max(persist.commit.0);
            then_send.extend(persist.then_send);
        }
        // Promises alone need no disk: what they claim was written before.
        if batch.hard_state.is_some() || !batch.records.is_empty() {
            self.wal.append(&batch)?;
        }
        Ok(Persisted { ticket, then_send })
    }

    /// Reads entries back. Those for a peer may have been cut off since they were asked for, when
    /// a new leader's log is shorter; then there are none.
    ///
    /// # Errors
    /// When the disk does not give back what it was given.
    pub fn fetch(&self, fetch: Fetch) -> io::Result<Vec<Entry>> {
        let Fetch { purpose, from, to, bytes_max } = fetch;
        match self.wal.read(from.0, to.0, bytes_max) {
            Err(error) if error.kind() == io::ErrorKind::NotFound && purpose != FetchFor::Apply => {
                Ok(Vec::new())
            }
            read => read?.into_iter().map(entry).collect(),
        }
    }

    /// Bytes of all files.
    pub fn bytes_on_disk(&self) -> u64 {
        self.wal.bytes_on_disk()
    }

    /// How often anything was synced since the start.
    pub fn syncs(&self) -> u64 {
        self.wal.syncs()
    }
}

fn position(id: EntryId) -> Position {
    Position::new(Term(id.term), Index(id.index))
}

fn record(entry: Entry) -> Record {
    let kind = entry.kind.number();
    let id = EntryId { term: entry.at.term.0, index: entry.at.index.0 };
    Record { id, kind, payload: entry.payload }
}

fn entry(record: Record) -> io::Result<Entry> {
    let at = position(record.id);
    let Some(kind) = EntryKind::of_number(record.kind) else {
        let why =
            format!("entry {at} is of kind {}, which only a newer release knows", record.kind);
        return Err(io::Error::new(io::ErrorKind::InvalidData, why));
    };
    Ok(Entry { at, kind, payload: record.payload })
}

impl From<WalError> for StorageError {
    fn from(error: WalError) -> StorageError {
        StorageError::Wal(error)
    }
}

impl fmt::Display for StorageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StorageError::Wal(error) => error.fmt(f),
            StorageError::Foreign { found, wanted } if found.cluster != wanted.cluster => write!(
                f,
                "the data directory belongs to cluster {:x}, not {:x}: check --data-dir, \
                 --initial-cluster and --initial-cluster-token",
                found.cluster, wanted.cluster
            ),
            StorageError::Foreign { found, wanted } => write!(
                f,
                "the data directory belongs to member {:x}, not {:x}: check --data-dir and --name",
                found.member, wanted.member
            ),
        }
    }
}

impl std::error::Error for StorageError {}
