//! One member of the cluster, deterministic: consensus, store, and what waits for what.
//!
//! A [`Replica`] takes a batch of [`Input`]s and fills an [`Outbox`]: messages for peers, writes
//! for the disk, answers for clients, and a view of the state for readers. The same inputs give
//! the same outputs, so a whole member can be run in a test, its formats on disk included:
//! [`Storage`] carries out what the outbox asks of the disk on a [`wal::Wal`].
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
//! - [`Reply::Lost`] means that it was proposed and the leader changed: it may have happened or
//!   not. Nothing is proposed twice, here or by a message that the network doubled.
//! - While there is no leader requests wait, bounded in time and bytes.
//! - A read is served by a view that holds everything that was acknowledged before it was asked.
//!   All reads that wait share one confirmation.
//!
//! **Never**: spawns, sleeps, reads a clock, does IO by itself, draws chance.

mod command;
mod entry;
mod input;
mod invariants;
mod members;
mod outbox;
mod proposals;
mod reads;
mod replica;
mod storage;

pub use command::{Malformed, compact, delete_range, put, range, txn};
pub use entry::{Header, Kind, Origin, Proposal, UnknownEntry};
pub use input::{Input, PeerMessage, RequestId};
pub use members::Member;
pub use outbox::{Outbox, Published, Reply};
pub use replica::{Config, Replica};
pub use storage::{Persisted, Started, Storage, StorageError};
