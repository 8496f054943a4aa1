//! A comparison with etcd, and with the limits of the machine, to trust and to repeat.
//!
//! `bench compare` starts three members of each system on the same disk, drives both with the
//! same load generator (`raft-kv bench`) in turn, row by row, and samples what the processes,
//! the disk and the rest of the machine did meanwhile. What is measured, and how, is told in
//! `docs/performance.md`.

mod arguments;
mod cluster;
mod compare;
mod failover;
mod figures;
mod findings;
mod growth;
mod interrupt;
mod limits;
mod load;
mod machine;
mod proc;
mod programs;
mod report;
mod row;
mod sample;
mod trouble;

use std::process::ExitCode;

use clap::Parser;

use arguments::{Command, Program};

/// The binary's: what the empty server shows must differ from a member in nothing else.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let outcome = match Program::parse().command {
        Command::Compare(options) => compare::run(&options),
        Command::NullServer { listen } => limits::null_server::serve(listen),
        Command::BareLog(options) => limits::bare_log::serve(&options),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(trouble) => {
            eprintln!("bench: {trouble}");
            ExitCode::FAILURE
        }
    }
}
