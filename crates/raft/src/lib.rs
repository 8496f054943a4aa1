//! The Raft consensus algorithm, as a pure state machine.
//!
//! A cluster of members agrees on a log of commands. One of them leads; it appends commands to
//! its log and sends them to the others; what a majority has on disk is committed, will never
//! change, and is handed to the state machine, on every member in the same order. When the
//! leader is gone, the others elect one whose log holds everything that may be committed.
//!
//! The algorithm is that of Ongaro and Ousterhout, "In Search of an Understandable Consensus
//! Algorithm" (2014; sections cited without a name are its), with pre-vote, check-quorum,
//! leadership transfer and read rounds of Ongaro's thesis (2014).
//!
//! # Contract
//!
//! A [`Node`] does nothing by itself. It has no clock: [`Node::tick`] is called at a steady pace.
//! It has no network: [`Node::step`] takes a message, [`Ready::messages`] leave. It has no disk:
//! [`Ready::persist`] is written by the driver, and [`Node::persisted`] says so. It has no chance
//! but a seed. The same inputs give the same outputs.
//!
//! The driver gives inputs, in any number, then takes one [`Ready`] and carries it out, until
//! there is nothing more to do. It must keep these, and only these:
//!
//! 1. Persists reach the disk in the order of their tickets, and `persisted(t)` is called only
//!    when those up to `t` would survive a loss of power.
//! 2. The messages in [`Persist::then_send`] leave only then. They are promises; all others may
//!    leave at once.
//! 3. [`Ready::committed`] is applied in order.
//! 4. A read is served from a state that has applied its [`ReadReady::index`].
//! 5. The first error of the disk ends the member.
//! 6. What was sent to or by a member whose disk was lost does not reach, and does not come from, the
//!    one that begins anew in its place: connections are between processes. Promises that wait for
//!    a disk meanwhile are not meant; they say to which life of a log they were given.
//!
//! The network may lose, double, delay and reorder messages. The disk may take its time: nothing
//! here waits for it, so a leader with a slow disk still leads, confirms reads, and commits what
//! a quorum of others holds.
//!
//! # Where to look
//!
//! `follower`, `candidate` and `leader` are the protocol's table of contents; `node` has the one
//! check of terms and the one change of roles; `log` knows what is in the log and on disk;
//! `progress` what a leader knows of a peer; `reads` the rounds; `admissions` whose votes and
//! acknowledgements count; `invariants` what must always hold. Every behaviour has a script in `tests/scripts`.

mod admissions;
mod candidate;
mod entry;
mod follower;
mod invariants;
mod leader;
mod log;
mod membership;
mod message;
mod node;
mod progress;
mod reads;
mod ready;

pub use admissions::{Admission, Incarnation, Standing, decode_admission, encode_admission};
pub use entry::{Entry, EntryKind, HardState, Index, NodeId, Position, Term};
pub use membership::{Membership, Tally};
pub use message::{Body, Message};
pub use node::{Config, Node, Refusal, Restored, RoleName, Status};
pub use ready::{Fetch, FetchFor, Notice, Persist, ReadId, ReadReady, Ready, Ticket};
