//! The commands alone, as a program: `cargo run -p cli --example raft_kv -- get color`.

use std::process::ExitCode;

use clap::{CommandFactory, Parser};

#[derive(Parser)]
#[command(name = "raft-kv")]
struct Program {
    #[command(flatten)]
    global: cli::Global,
    #[command(subcommand)]
    command: cli::Command,
}

fn main() -> ExitCode {
    let program = Program::parse();
    cli::run(program.command, &program.global, Program::command())
}
