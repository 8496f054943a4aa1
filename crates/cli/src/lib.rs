//! The command line of Raft-KV: etcdctl's commands with etcdctl's arguments,
//! output and exit codes, and a load generator, over the public API only.
//!
//! A binary flattens [`Command`] into its own subcommands, [`Global`] into its
//! flags, and hands both to [`run`]:
//!
//! ```no_run
//! use clap::{CommandFactory, Parser};
//!
//! #[derive(Parser)]
//! struct Program {
//!     #[command(flatten)]
//!     global: cli::Global,
//!     #[command(subcommand)]
//!     command: cli::Command,
//! }
//!
//! fn main() -> std::process::ExitCode {
//!     let program = Program::parse();
//!     cli::run(program.command, &program.global, Program::command())
//! }
//! ```
//!
//! Standard output carries results and nothing else; errors go to standard
//! error as `Error: <text>`.

mod arguments;
mod bench;
mod duration;
mod endpoint;
mod failure;
mod fields;
mod json;
mod keys;
mod output;
mod quote;
mod session;
mod simple;
mod table;
mod transaction;

use std::process::ExitCode;

pub use arguments::{Command, Global};
use failure::Failure;
use session::Session;

/// Runs one command to its end and answers the exit code that etcdctl would give.
///
/// `program` is the whole command line, for `completion`. Starts a tokio runtime of its own on the calling thread.
pub fn run(command: Command, global: &Global, program: clap::Command) -> ExitCode {
    match dispatch(command, global, program) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}

fn dispatch(command: Command, global: &Global, mut program: clap::Command) -> Result<(), Failure> {
    if let Command::Completion { shell } = command {
        let name = program.get_name().to_owned();
        clap_complete::generate(shell, &mut program, name, &mut std::io::stdout());
        return Ok(());
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::error(error.to_string()))?;
    runtime.block_on(async {
        let session = Session::new(global)?;
        match command {
            Command::Put(put) => keys::put(&session, put).await,
            Command::Get(get) => keys::get(&session, get).await,
            Command::Del(del) => keys::del(&session, del).await,
            Command::Txn(txn) => transaction::txn(&session, txn).await,
            Command::Compaction(compaction) => keys::compaction(&session, compaction).await,
            Command::Endpoint(command) => endpoint::run(&session, command).await,
            Command::Member(command) => endpoint::member(&session, command).await,
            Command::Bench(bench) => bench::run(&session, bench).await,
            Command::Completion { .. } => unreachable!("answered above"),
        }
    })
}
