//! The command line's grammar.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

/// Compares Raft-KV with etcd, and with the limits of the machine.
#[derive(Parser)]
#[command(name = "bench", version)]
pub struct Program {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Subcommand)]
pub enum Command {
    /// Measure Raft-KV and etcd in turn, and write tables, plots and numbers
    Compare(Compare),
    /// A server that answers with constants; `compare` starts it
    #[command(hide = true)]
    NullServer {
        #[arg(long)]
        listen: SocketAddr,
    },
    /// One process of a replicated log without anything around it; `compare` starts it
    #[command(hide = true)]
    BareLog(BareLog),
}

#[derive(Args, Clone)]
#[command(after_help = "Examples:
  cargo run --release -p bench -- compare
  cargo run --release -p bench -- compare --only put-64 put-256 --etcd /usr/bin/etcd
  cargo run --release -p bench -- compare --full --write-docs

Names for --only: put, get, sget, range, count, txn, mixed, each also with its clients (put-64),
and limits, keys, values, failover.")]
pub struct Compare {
    /// A few minutes, as without it: fewer rows, short windows
    #[arg(long, conflicts_with = "full")]
    pub quick: bool,
    /// Everything: some forty minutes
    #[arg(long)]
    pub full: bool,
    /// An etcd to compare with [default: built from tests/peer, which takes Go]
    #[arg(long, value_name = "PATH")]
    pub etcd: Option<PathBuf>,
    /// A raft-kv to measure [default: built from this workspace]
    #[arg(long, value_name = "PATH")]
    pub raft_kv: Option<PathBuf>,
    /// Only what begins with one of these names
    #[arg(long, num_args = 1.., value_name = "NAME")]
    pub only: Vec<String>,
    /// Where the results go [default: target/compare]
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// Where the members keep their data meanwhile; must be on a disk [default: below target]
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// Members listen on free ports from here on
    #[arg(long, default_value_t = 25_000, value_name = "PORT")]
    pub first_port: u16,
    /// Write plots to docs/performance and the tables into docs/performance.md
    #[arg(long)]
    pub write_docs: bool,
}

#[derive(Args, Clone)]
pub struct BareLog {
    #[arg(long)]
    pub listen: SocketAddr,
    #[arg(long)]
    pub data: PathBuf,
    /// The followers, if this process is to lead
    #[arg(long, value_delimiter = ',')]
    pub followers: Vec<SocketAddr>,
}
