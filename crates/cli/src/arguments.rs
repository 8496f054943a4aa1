//! The command line's grammar.

use std::ffi::OsString;
use std::time::Duration;

use clap::ArgAction::Set;
use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::duration;

/// Flags of every command.
#[derive(Args, Clone, Debug)]
pub struct Global {
    /// Endpoints, separated by commas [default: $RAFTKV_ENDPOINTS, $ETCDCTL_ENDPOINTS or 127.0.0.1:2379]
    #[arg(long, global = true, value_delimiter = ',', help_heading = "Global options")]
    pub(crate) endpoints: Vec<String>,

    /// How long to wait for a connection
    #[arg(long, global = true, default_value = "2s", value_parser = duration::parse, env = "ETCDCTL_DIAL_TIMEOUT",
        hide_env = true, value_name = "DURATION", help_heading = "Global options")]
    pub(crate) dial_timeout: Duration,

    /// How long to wait for an answer
    #[arg(long, global = true, default_value = "5s", value_parser = duration::parse, env = "ETCDCTL_COMMAND_TIMEOUT",
        hide_env = true, value_name = "DURATION", help_heading = "Global options")]
    pub(crate) command_timeout: Duration,

    /// Output format: simple, json, fields, or table where there are rows
    #[arg(
        long,
        short = 'w',
        global = true,
        default_value = "simple",
        value_name = "FORMAT",
        help_heading = "Global options"
    )]
    pub(crate) write_out: String,

    /// Print byte strings (simple) and ids (fields, json) in hexadecimal
    #[arg(long, global = true, help_heading = "Global options", action = Set, num_args = 0..=1, require_equals = true, default_value_t = false,
        default_missing_value = "true", hide_default_value = true, hide_possible_values = true,
        value_parser = clap::builder::BoolishValueParser::new(), value_name = "BOOL")]
    pub(crate) hex: bool,
}

/// The commands.
#[derive(Clone, Debug, Subcommand)]
pub enum Command {
    /// Write a key
    Put(Put),
    /// Read a key or a range of keys
    Get(Get),
    /// Delete a key or a range of keys
    Del(Del),
    /// Run a transaction that is read from standard input
    Txn(Txn),
    /// Forget the history before a revision
    Compaction(Compaction),
    /// Ask the endpoints how they are
    #[command(subcommand)]
    Endpoint(Endpoint),
    /// Show the members of the cluster
    #[command(subcommand)]
    Member(Member),
    /// Measure throughput and latency
    Bench(Bench),
    /// Print a completion script: `source <(raft-kv completion bash)`
    Completion {
        /// The shell
        shell: clap_complete::Shell,
    },
}

/// One line of a transaction.
#[derive(Debug, Parser)]
#[command(no_binary_name = true, disable_help_flag = true)]
pub(crate) enum TxnLine {
    Put(Put),
    Get(Get),
    Del(Del),
}

#[derive(Args, Clone, Debug)]
#[command(
    override_usage = "raft-kv put [OPTIONS] <KEY> [VALUE]",
    after_help = "Examples:
  raft-kv put color green
  raft-kv put color < file             the value from standard input
  raft-kv put -- -key -value           for what begins with a dash
  raft-kv put --prev-kv color blue     and show what was there"
)]
pub struct Put {
    /// The key, and its value; without a value it is read from standard input
    #[arg(value_name = "KEY")]
    pub(crate) args: Vec<OsString>,
    /// Lease to attach the key to, in hexadecimal
    #[arg(long, default_value = "0")]
    pub(crate) lease: String,
    /// Show what was replaced
    #[arg(long, action = Set, num_args = 0..=1, require_equals = true, default_value_t = false,
        default_missing_value = "true", hide_default_value = true, hide_possible_values = true,
        value_parser = clap::builder::BoolishValueParser::new(), value_name = "BOOL")]
    pub(crate) prev_kv: bool,
    /// Keep the value that the key has
    #[arg(long, action = Set, num_args = 0..=1, require_equals = true, default_value_t = false,
        default_missing_value = "true", hide_default_value = true, hide_possible_values = true,
        value_parser = clap::builder::BoolishValueParser::new(), value_name = "BOOL")]
    pub(crate) ignore_value: bool,
    /// Keep the lease that the key has
    #[arg(long, action = Set, num_args = 0..=1, require_equals = true, default_value_t = false,
        default_missing_value = "true", hide_default_value = true, hide_possible_values = true,
        value_parser = clap::builder::BoolishValueParser::new(), value_name = "BOOL")]
    pub(crate) ignore_lease: bool,
}

#[derive(Args, Clone, Debug)]
#[command(
    override_usage = "raft-kv get [OPTIONS] <KEY> [END]",
    after_help = "Examples:
  raft-kv get color
  raft-kv get --prefix config/ --limit 10
  raft-kv get a f                      keys from a on and before f
  raft-kv get color --rev 42           as it was
  raft-kv get --prefix '' --count-only -w fields
  raft-kv get color --print-value-only"
)]
pub struct Get {
    /// The key, or the first one and an end that is not included
    #[arg(value_name = "KEY")]
    pub(crate) args: Vec<OsString>,
    /// Linearizable (l), or serializable (s): what the asked member has
    #[arg(long, default_value = "l")]
    pub(crate) consistency: String,
    /// ASCEND or DESCEND
    #[arg(long, default_value = "", hide_default_value = true)]
    pub(crate) order: String,
    /// CREATE, KEY, MODIFY, VALUE or VERSION
    #[arg(long, default_value = "", hide_default_value = true)]
    pub(crate) sort_by: String,
    /// At most so many keys; 0 for all
    #[arg(long, default_value_t = 0)]
    pub(crate) limit: i64,
    /// Keys that begin with KEY
    #[arg(long, action = Set, num_args = 0..=1, require_equals = true, default_value_t = false,
        default_missing_value = "true", hide_default_value = true, hide_possible_values = true,
        value_parser = clap::builder::BoolishValueParser::new(), value_name = "BOOL")]
    pub(crate) prefix: bool,
    /// Keys from KEY on
    #[arg(long, action = Set, num_args = 0..=1, require_equals = true, default_value_t = false,
        default_missing_value = "true", hide_default_value = true, hide_possible_values = true,
        value_parser = clap::builder::BoolishValueParser::new(), value_name = "BOOL")]
    pub(crate) from_key: bool,
    /// As of this revision
    #[arg(long, default_value_t = 0)]
    pub(crate) rev: i64,
    /// Keys without values
    #[arg(long, action = Set, num_args = 0..=1, require_equals = true, default_value_t = false,
        default_missing_value = "true", hide_default_value = true, hide_possible_values = true,
        value_parser = clap::builder::BoolishValueParser::new(), value_name = "BOOL")]
    pub(crate) keys_only: bool,
    /// The number of keys alone (needs -w fields)
    #[arg(long, action = Set, num_args = 0..=1, require_equals = true, default_value_t = false,
        default_missing_value = "true", hide_default_value = true, hide_possible_values = true,
        value_parser = clap::builder::BoolishValueParser::new(), value_name = "BOOL")]
    pub(crate) count_only: bool,
    /// Values without keys (needs -w simple)
    #[arg(long, action = Set, num_args = 0..=1, require_equals = true, default_value_t = false,
        default_missing_value = "true", hide_default_value = true, hide_possible_values = true,
        value_parser = clap::builder::BoolishValueParser::new(), value_name = "BOOL")]
    pub(crate) print_value_only: bool,
    /// Only keys created at or after this revision
    #[arg(long, default_value_t = 0)]
    pub(crate) min_create_rev: i64,
    /// Only keys created at or before this revision
    #[arg(long, default_value_t = 0)]
    pub(crate) max_create_rev: i64,
    /// Only keys last changed at or after this revision
    #[arg(long, default_value_t = 0)]
    pub(crate) min_mod_rev: i64,
    /// Only keys last changed at or before this revision
    #[arg(long, default_value_t = 0)]
    pub(crate) max_mod_rev: i64,
}

#[derive(Args, Clone, Debug)]
#[command(
    override_usage = "raft-kv del [OPTIONS] <KEY> [END]",
    after_help = "Examples:
  raft-kv del color
  raft-kv del --prefix config/ --prev-kv
  raft-kv del a f --range              keys from a on and before f"
)]
pub struct Del {
    /// The key, or the first one and an end that is not included
    #[arg(value_name = "KEY")]
    pub(crate) args: Vec<OsString>,
    /// Keys that begin with KEY
    #[arg(long, action = Set, num_args = 0..=1, require_equals = true, default_value_t = false,
        default_missing_value = "true", hide_default_value = true, hide_possible_values = true,
        value_parser = clap::builder::BoolishValueParser::new(), value_name = "BOOL")]
    pub(crate) prefix: bool,
    /// Show what was deleted
    #[arg(long, action = Set, num_args = 0..=1, require_equals = true, default_value_t = false,
        default_missing_value = "true", hide_default_value = true, hide_possible_values = true,
        value_parser = clap::builder::BoolishValueParser::new(), value_name = "BOOL")]
    pub(crate) prev_kv: bool,
    /// Keys from KEY on
    #[arg(long, action = Set, num_args = 0..=1, require_equals = true, default_value_t = false,
        default_missing_value = "true", hide_default_value = true, hide_possible_values = true,
        value_parser = clap::builder::BoolishValueParser::new(), value_name = "BOOL")]
    pub(crate) from_key: bool,
    /// Delete KEY to END at once, without two seconds to think again
    #[arg(long, action = Set, num_args = 0..=1, require_equals = true, default_value_t = false,
        default_missing_value = "true", hide_default_value = true, hide_possible_values = true,
        value_parser = clap::builder::BoolishValueParser::new(), value_name = "BOOL")]
    pub(crate) range: bool,
}

#[derive(Args, Clone, Debug)]
#[command(
    after_help = "Three lists, each ended by an empty line: conditions, what to do if all hold, what to do if not.

Example:
  raft-kv txn <<EOF
  mod(\"color\") > \"0\"
  value(\"color\") = \"green\"

  put color blue
  get --prefix config/

  put color \"created anew\"

  EOF

Conditions compare version (ver), create (c), mod (m), value (val) or lease (in hexadecimal) by =, !=, > or <."
)]
pub struct Txn {
    /// Say what is expected next
    #[arg(long, short = 'i', action = Set, num_args = 0..=1, require_equals = true, default_value_t = false,
        default_missing_value = "true", hide_default_value = true, hide_possible_values = true,
        value_parser = clap::builder::BoolishValueParser::new(), value_name = "BOOL")]
    pub(crate) interactive: bool,
    #[arg(hide = true)]
    pub(crate) args: Vec<OsString>,
}

#[derive(Args, Clone, Debug)]
#[command(after_help = "Example:
  raft-kv compaction 1000")]
pub struct Compaction {
    /// The revision
    #[arg(value_name = "REVISION")]
    pub(crate) args: Vec<String>,
    /// Wait until the space is free
    #[arg(long, action = Set, num_args = 0..=1, require_equals = true, default_value_t = false,
        default_missing_value = "true", hide_default_value = true, hide_possible_values = true,
        value_parser = clap::builder::BoolishValueParser::new(), value_name = "BOOL")]
    pub(crate) physical: bool,
}

#[derive(Clone, Debug, Subcommand)]
pub enum Endpoint {
    /// Whether each endpoint can serve a linearizable read
    Health(Endpoints),
    /// Version, size, leader and log position of each endpoint
    Status(Endpoints),
}

#[derive(Args, Clone, Debug)]
#[command(after_help = "Examples:
  raft-kv endpoint health
  raft-kv endpoint status --cluster -w table")]
pub struct Endpoints {
    /// All members, as the first endpoint that answers lists them
    #[arg(long, action = Set, num_args = 0..=1, require_equals = true, default_value_t = false,
        default_missing_value = "true", hide_default_value = true, hide_possible_values = true,
        value_parser = clap::builder::BoolishValueParser::new(), value_name = "BOOL")]
    pub(crate) cluster: bool,
}

#[derive(Clone, Debug, Subcommand)]
pub enum Member {
    /// Id, status, name and addresses of each member
    List {
        /// Linearizable (l), or serializable (s): what the asked member has
        #[arg(long, default_value = "l")]
        consistency: String,
    },
}

/// What a load consists of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Load {
    /// Puts of random keys
    Put,
    /// Gets of random keys; `bench put` with the same key flags writes them
    Get,
    /// Both, as --reads says
    Mixed,
    /// Pages of --limit keys, from a random key on
    Range,
    /// Counts of all keys of the key space
    Count,
    /// Transactions that compare a random key's revision and put, as Kubernetes updates
    Txn,
}

#[derive(Args, Clone, Debug)]
#[command(after_help = "Examples:
  raft-kv bench put --clients 64 --connections 8 --total 100000
  raft-kv bench get --serializable --duration 30s
  raft-kv bench mixed --reads 80 --rate 2000 -w json
  raft-kv bench range --limit 500      pages of the keys that `bench put` wrote

At a fixed rate, latency counts from when a request should have started, so that a
stall is seen by all the requests that it held up.")]
pub struct Bench {
    /// What to send
    #[arg(value_enum)]
    pub(crate) load: Load,
    /// Requests in flight at most
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub(crate) clients: u32,
    /// Connections that the clients share [default: a sixteenth of the clients, at least one per endpoint]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(crate) connections: Option<u32>,
    /// Bytes of a key
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=65_536))]
    pub(crate) key_size: u32,
    /// Number of different keys
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) key_space: u64,
    /// Keys in order instead of at random
    #[arg(long)]
    pub(crate) sequential: bool,
    /// Bytes of a value
    #[arg(long, default_value_t = 256, value_parser = clap::value_parser!(u32).range(0..=1_500_000))]
    pub(crate) value_size: u32,
    /// Stop after so many requests
    #[arg(long, conflicts_with = "duration", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) total: Option<u64>,
    /// Stop after this time [default: 10s]
    #[arg(long, value_parser = duration::parse)]
    pub(crate) duration: Option<Duration>,
    /// Requests per second to start, whatever the answers do [default: as fast as answers come]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(crate) rate: Option<u32>,
    /// Percentage of gets in a mixed load
    #[arg(long, default_value_t = 80, value_parser = clap::value_parser!(u8).range(0..=100))]
    pub(crate) reads: u8,
    /// Keys of a page in a load of ranges
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(i64).range(1..))]
    pub(crate) limit: i64,
    /// Reads of what the asked member has
    #[arg(long)]
    pub(crate) serializable: bool,
    /// Time before anything is counted
    #[arg(long, default_value = "1s", value_parser = duration::parse)]
    pub(crate) warm_up: Duration,
    /// Only the member that leads at the start, instead of all endpoints
    #[arg(long)]
    pub(crate) target_leader: bool,
    /// No progress line
    #[arg(long)]
    pub(crate) quiet: bool,
}
