//! The binary: a member, a playground, a look at a log, and a client.

mod playground;

use clap::{CommandFactory, Parser, Subcommand};
use std::ffi::OsString;
use std::io::{ErrorKind, Write};
use std::path::PathBuf;
use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Raft-KV: a strongly consistent, crash-safe, replicated key-value store with etcd's v3 API.
#[derive(Parser)]
#[command(name = "raft-kv", version, after_help = EXAMPLES)]
struct Program {
    #[command(flatten)]
    global: cli::Global,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run a member of a cluster; takes etcd's flags (`raft-kv server --help`)
    #[command(disable_help_flag = true)]
    Server {
        /// etcd's flags
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        flags: Vec<OsString>,
    },
    /// Start a cluster on this machine, with a prompt
    Playground(playground::Options),
    /// Print what a member's data directory holds, and what of it is damaged
    Inspect {
        /// The data directory
        data_dir: PathBuf,
    },
    #[command(flatten)]
    Client(cli::Command),
}

const EXAMPLES: &str = "\
Examples:
  raft-kv playground                              three members and a prompt
  raft-kv put greeting hello                      at 127.0.0.1:2379
  raft-kv --endpoints=host:2379 get --prefix gr
  raft-kv inspect /var/lib/raft-kv/m1";

fn main() -> ExitCode {
    // The allocator asks for huge pages, and a fault that clears one stops everybody for as long as
    // hundreds of small ones: the p99 of puts doubles. A kernel that refuses leaves it at that.
    let _ = rustix::thread::disable_transparent_huge_pages(true);
    // A member's flags are etcd's, read by its own rules: `-name`, environment and all.
    let mut words = std::env::args_os().skip(1);
    if words.next().is_some_and(|first| first == "server") {
        return server::run(words);
    }
    let Program { global, command } = Program::parse();
    match command {
        Command::Server { flags } => server::run(flags),
        Command::Playground(options) => playground::run(&options),
        Command::Inspect { data_dir } => inspect(&data_dir),
        Command::Client(command) => cli::run(command, &global, Program::command()),
    }
}

/// Exits with 0 if all is sound, with 1 if something is damaged or cannot be read.
fn inspect(data_dir: &std::path::Path) -> ExitCode {
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    let sound = wal::inspect(data_dir, &mut out).and_then(|sound| out.flush().map(|()| sound));
    match sound {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        // Whoever read it has seen enough.
        Err(error) if error.kind() == ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("raft-kv inspect: {}: {error}", data_dir.display());
            ExitCode::FAILURE
        }
    }
}
