//! The glue between consensus and disk: what a [`raft::Persist`] becomes in the log.

use crate::disk_queue::DiskReader;
use raft::{
    Entry, EntryKind, HardState, Incarnation, Index, Message, NodeId, Persist, Position, Restored,
    Term, Ticket, decode_admission,
};
use std::fmt;
use std::io;
use wal::{Batch, Disk, EntryId, Identity, Options, Record, Recovered, Wal, WalError};

/// The kind of admissions on disk: [`EntryKind::number`].
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
    /// The log itself admits a later life of this member's log: what is here is an older copy.
    OlderCopy {
        /// The last life that this copy knows.
        found: Incarnation,
        /// The one that is admitted.
        admitted: Incarnation,
    },
    /// An entry that should be an admission is none that this release can read.
    BadAdmission(Position),
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
    /// Opens the log, or makes it if there is none, and begins a new life of it if the last one was
    /// admitted, durably and under a name that is made of `draw`, a number nobody has drawn before.
    ///
    /// # Errors
    /// When there is a log that is damaged, locked, somebody else's, or an older copy.
    pub fn start(
        disk: D,
        identity: Identity,
        options: Options,
        draw: u64,
    ) -> Result<Started<D>, StorageError> {
        let options = Options { recover_kinds: &[ADMISSION], ..options };
        if !Wal::exists(&disk)? {
            let wal = Wal::create(disk, identity, options)?;
            let incarnation = incarnation(wal.incarnation());
            let restored = Restored { incarnation, ..Restored::default() };
            let (storage, warnings) = (Storage { wal }, Vec::new());
            return Ok(Started { storage, restored, is_new: true, warnings });
        }
        let (wal, mut found) = Wal::open(disk, options)?;
        if found.identity != identity {
            return Err(StorageError::Foreign { found: found.identity, wanted: identity });
        }
        let warnings = std::mem::take(&mut found.warnings);
        let mut restored = restored(found)?;
        let mut storage = Storage { wal };
        storage.begin_life(NodeId(identity.member), &mut restored, draw)?;
        Ok(Started { storage, restored, is_new: false, warnings })
    }

    /// Names this life of the log before it promises anything, or goes on under the name of the last
    /// one, if nobody admitted that yet. So an older copy never gets beyond the life after the one
    /// that it was made in.
    fn begin_life(
        &mut self,
        own: NodeId,
        restored: &mut Restored,
        draw: u64,
    ) -> Result<(), StorageError> {
        let found = restored.incarnation;
        let admissions = restored.admissions.iter();
        let lives =
            || admissions.clone().filter_map(|(at, admission)| Some((*at, *admission.get(&own)?)));
        // An admission that is not committed may yet be replaced.
        let committed = lives().filter(|(at, _)| *at <= restored.commit).map(|(_, life)| life);
        let counts =
            committed.reduce(|counts, life| if life.continues(counts) { life } else { counts });
        if let Some(admitted) = counts.filter(|admitted| !found.continues(*admitted)) {
            return Err(StorageError::OlderCopy { found, admitted });
        }
        if found == Incarnation::default() || lives().any(|(_, life)| life == found) {
            let next = match found.start {
                0 => Incarnation::of_an_unnamed_log(draw),
                start => Incarnation { start: start + 1, id: draw },
            };
            let named =
                self.wal.begin_incarnation(wal::Incarnation { start: next.start, id: draw });
            named.map_err(|source| WalError::Io { what: "naming this life".to_owned(), source })?;
            restored.incarnation = next;
        }
        Ok(())
    }

    /// A handle to read the log with while it is written.
    pub fn reader(&self) -> DiskReader<D> {
        DiskReader::new(self.wal.reader())
    }

    /// Carries out all that is queued: one write, one sync.
    ///
    /// # Errors
    /// The first one ends the member: what is on the disk is not known any more.
    ///
    /// # Panics
    /// If nothing is queued.
    pub fn persist(&mut self, queued: impl IntoIterator<Item = Persist>) -> io::Result<Persisted> {
        let mut ticket = None;
        let mut then_send = Vec::new();
        let mut batch = Batch::default();
        for persist in queued {
            ticket = Some(persist.ticket);
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
        let ticket = ticket.expect("something is queued");
        // Promises alone need no disk: what they claim was written before.
        if batch.hard_state.is_some() || !batch.records.is_empty() {
            self.wal.append(&batch)?;
        }
        Ok(Persisted { ticket, then_send })
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

/// What consensus starts from, as the log has it.
fn restored(found: Recovered) -> Result<Restored, StorageError> {
    let wal::HardState { term, vote } = found.hard_state;
    let admission = |record: Record| {
        let at = Index(record.id.index);
        let decoded = decode_admission(&record.payload).map(|admission| (at, admission));
        decoded.ok_or(StorageError::BadAdmission(position(record.id)))
    };
    Ok(Restored {
        incarnation: incarnation(found.incarnation),
        hard_state: HardState { term: Term(term), vote: (vote != 0).then_some(NodeId(vote)) },
        positions: found.entries.into_iter().map(position).collect(),
        admissions: found.records.into_iter().map(admission).collect::<Result<_, _>>()?,
        commit: Index(found.commit),
    })
}

fn incarnation(named: wal::Incarnation) -> Incarnation {
    Incarnation { start: named.start, id: named.id }
}

fn position(id: EntryId) -> Position {
    Position::new(Term(id.term), Index(id.index))
}

fn record(entry: Entry) -> Record {
    let kind = entry.kind.number();
    let id = EntryId { term: entry.at.term.0, index: entry.at.index.0 };
    Record { id, kind, payload: entry.payload }
}

/// The entry that a record of the log holds.
pub(crate) fn entry(record: Record) -> io::Result<Entry> {
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
            StorageError::OlderCopy { found, admitted } => write!(
                f,
                "this is an older copy of the member's log: it ends in its life {}, and the log \
                 itself says that life {} had begun. It has forgotten votes and writes that it had \
                 promised to keep; put the newer directory back, or leave this member stopped until \
                 it can be replaced",
                found.start, admitted.start
            ),
            StorageError::BadAdmission(at) => write!(
                f,
                "entry {at} should say whose log counts, and cannot be read: start the newer release \
                 that wrote it"
            ),
        }
    }
}

impl std::error::Error for StorageError {}
