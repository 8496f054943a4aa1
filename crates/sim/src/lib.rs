//! A whole cluster in one thread: real members over a simulated clock, network and disks, all
//! from one seed, and the checkers that watch them.

mod agenda;
mod chance;
pub mod check;
mod clients;
mod cluster;
mod digest;
mod effects;
mod farm;
mod fault;
mod kept;
mod ledger;
mod machine;
mod marks;
mod network;
mod run;
mod shrink;
mod start;
mod stop;
mod storm;
mod streams;
mod trace;
mod weather;

pub use digest::Digest;
pub use farm::{Find, Harvest, Plan, farm};
pub use fault::{Fault, Tally};
pub use kept::{Kept, kept_seeds};
pub use marks::{Mark, Marks};
pub use run::{Failure, Report, catch_panics, run};
pub use shrink::shrink;
pub use weather::{Micros, Narrowing, SECOND, Weather};
