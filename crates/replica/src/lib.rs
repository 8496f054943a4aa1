//! One member of the cluster, deterministic: consensus, store, and what waits for what.
//!
//! A [`Replica`] takes a batch of [`Input`]s and fills an [`Outbox`]: messages for peers, writes
//! for the disk, answers for clients, and a view of the state for readers. The same inputs give
//! the same outputs, so a whole member can be run in a test, its formats on disk included:
//! [`DiskWriter`] and [`DiskReader`] carry out what the outbox asks of the disk, on a [`wal::Wal`].
//!
//! # The round
//!
//! [`Replica::handle`] first takes all inputs, then asks the consensus core what there is to do
//! until there is nothing more: everything that arrived together is proposed, replicated,
//! written and answered together. Nothing waits here; what must wait is a future input.
//!
//! # What a client may rely on
//!
//! - A request carries its [`Origin`]. A follower forwards it to the leader and answers when its
//!   *own* store has applied it, so a client reads its writes at the member it talks to.
//! - Every request is answered exactly once: applied, or why not.
//! - When the leader is lost, what it was given is applied if its successor has it, and proposed
//!   again if not: the client waits for the election, no more. [`Reply::Lost`] means that nobody was
//!   elected for long: it may have happened or not, or may still. Nothing happens twice.
//! - While there is no leader requests wait, bounded in time and bytes.
//! - A read is served by a view that holds everything that was acknowledged before it was asked.
//!   All reads that wait share one confirmation.
//!
//! # Why nothing happens twice
//!
//! What was handed to a leader is handed to nobody else before it is certain that it will not
//! happen: that leader says so ([`PeerMessage::Refused`]), or the log has gone on to a later term
//! without it. Messages may be lost, doubled, late and out of order, members may restart, and
//! still:
//!
//! - A leader decides about each number once in its term: to propose it or to refuse it. It
//!   remembers which, so a second copy of a forward does nothing.
//! - A forward names the term of the leader it is for. A member decides only for the last term
//!   that it led in this life; of others it does not know what it proposed, and is silent.
//! - A write can be committed only in the term in which it was handed over. Once this member has
//!   applied an entry of a later term, every later leader has that entry, and behind it nothing of
//!   an earlier term can stand: a write that was not applied by then never will be.
//! - Each handing over has a number of its own. A write that waits again gets another one, so a
//!   second copy of a refusal names a number that nobody waits for.
//!
//! A forward that is lost on its way is sent again when the connection to the leader is there again
//! ([`Input::Connected`]); if the connection never broke, its client waits for [`Reply::TimedOut`].
//! A leader that has decided about it by then does nothing, or refuses it once more.
//!
//! # What it may cost
//!
//! The writes that a member has admitted have a bound in bytes, from when they come in until they are
//! applied and on its disk, whether somebody waits for them or not; beyond, the answer is
//! [`Reply::Busy`]. A round applies and sweeps a little; if there is more to do it says so
//! ([`Outbox::more`]), and its driver comes back after a look at its peers and its clock.
//!
//! **Never**: spawns, sleeps, reads a clock, does IO by itself, draws chance.

mod command;
mod disk_queue;
mod entry;
mod event_loop;
mod input;
mod invariants;
mod log_names;
mod members;
mod outbox;
mod peer_queue;
mod proposals;
mod reads;
mod replica;
mod storage;
mod write_batching;

pub use command::{Malformed, compact, decode, delete_range, put, range, txn};
pub use disk_queue::{DiskReader, DiskWriter};
pub use entry::{Header, Kind, Origin, Proposal, UnknownEntry};
pub use event_loop::{EventLoop, NodeEvent, Ports, SWEEP_TURN_MAX, TURN_EVENTS_MAX, TURN_MAX};
pub use input::{Input, PeerMessage, RequestId};
pub use log_names::{ForeignLog, LogNames};
pub use members::Member;
pub use outbox::{Outbox, Published, Reply};
pub use peer_queue::{NextFrame, PIECE_BYTES_MAX, PeerQueue, QueueLimits};
pub use replica::{Config, Replica, Slice};
pub use storage::{Persisted, Started, Storage, StorageError};
