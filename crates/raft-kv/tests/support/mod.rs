//! Clusters of real processes on loopback, for the tests beside this folder.

// Every test is a program of its own and uses a part of this.
#![allow(dead_code)]

pub mod cluster;
pub mod comparison;
pub mod kv;
pub mod network;
pub mod peer;
pub mod program;
pub mod random;

use std::io::Write;
use std::sync::{Mutex, PoisonError};

/// Writes a line that is seen even when the test passes: the test harness
/// holds back only what the print macros write.
pub fn say(line: impl std::fmt::Display) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// A count from the environment, or `default`.
pub fn count_from_env(name: &str, default: u64) -> u64 {
    match std::env::var(name) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{name}={text} is not a number")),
        Err(_) => default,
    }
}

/// The seed of this run: `RAFT_KV_SEED`, or a fresh one. Says how to repeat it.
pub fn seed(test: &str) -> u64 {
    let fresh = std::time::UNIX_EPOCH.elapsed().expect("the clock is after 1970").subsec_nanos();
    let seed = count_from_env("RAFT_KV_SEED", u64::from(fresh));
    say(format!("{test}: seed {seed} (repeat with {})", repeat(test, seed)));
    seed
}

/// The command that repeats a run of `test`.
pub fn repeat(test: &str, seed: u64) -> String {
    format!("RAFT_KV_SEED={seed} cargo test --package raft-kv --test {test} -- --nocapture")
}

/// Runs a test with its own processes while no other of this program runs.
pub fn alone(test: impl Future<Output = ()>) {
    static TURN: Mutex<()> = Mutex::new(());
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(test);
}
