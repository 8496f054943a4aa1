//! The flags of a member: etcd's names, on the command line and in the environment.
//!
//! This file knows the names, where a value comes from and how it is written; what a value
//! means is [`crate::config`]'s business.

use std::collections::BTreeMap;
use std::fmt;

/// What becomes of a flag here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Use {
    /// It does what it says.
    Served,
    /// Accepted, so that a command line written for etcd works; it changes nothing here.
    Ignored,
    /// Ignoring it would betray who set it (encryption, say): refused unless it is left at its
    /// default. The text says what is missing.
    Refused(&'static str),
}

/// One flag.
#[derive(Debug)]
struct Flag {
    name: &'static str,
    /// As etcd writes it; empty if there is none.
    default: &'static str,
    is_bool: bool,
    usage: Use,
    help: &'static str,
}

const fn served(name: &'static str, default: &'static str, help: &'static str) -> Flag {
    Flag { name, default, is_bool: false, usage: Use::Served, help }
}

const fn ignored(name: &'static str, default: &'static str) -> Flag {
    Flag { name, default, is_bool: false, usage: Use::Ignored, help: "" }
}

const fn refused(name: &'static str, reason: &'static str) -> Flag {
    Flag { name, default: "", is_bool: false, usage: Use::Refused(reason), help: "" }
}

/// The same flag, but one that stands for true when no value is given.
const fn switch(mut flag: Flag) -> Flag {
    flag.is_bool = true;
    flag
}

/// A switch that is off unless set.
const fn off(mut flag: Flag) -> Flag {
    flag.default = "false";
    switch(flag)
}

const NO_TLS: &str = "TLS is not served yet";
const NO_DISCOVERY: &str = "discovery is not served: list the members in --initial-cluster";

/// Every flag, in the order of the help text.
static FLAGS: &[Flag] = &[
    served("name", "default", "this member's name, as it stands in --initial-cluster"),
    served("data-dir", "", "where this member keeps its data [${name}.raft-kv]"),
    served("listen-peer-urls", "http://localhost:2380", "where to listen for other members"),
    served("listen-client-urls", "http://localhost:2379", "where to listen for clients"),
    served("listen-client-http-urls", "", "more addresses that serve HTTP (health, version)"),
    served("listen-metrics-urls", "", "more addresses that serve health, before clients are"),
    served(
        "initial-advertise-peer-urls",
        "http://localhost:2380",
        "where other members reach this one",
    ),
    served("advertise-client-urls", "http://localhost:2379", "where clients reach this member"),
    served(
        "initial-cluster",
        "",
        "all members, `name=url,name=url,...` [this one alone]; give the same at every start",
    ),
    served("initial-cluster-state", "new", "new; `existing` only to start from existing data"),
    served("initial-cluster-token", "etcd-cluster", "keeps clusters with equal URLs apart"),
    served("heartbeat-interval", "100", "milliseconds between a leader's heartbeats"),
    served("election-timeout", "1000", "milliseconds without a leader before an election"),
    switch(served("pre-vote", "true", "ask before a campaign whether it could be won")),
    served("max-request-bytes", "1572864", "the largest request"),
    served("max-txn-ops", "128", "the most operations in one list of a transaction"),
    served(
        "max-concurrent-streams",
        "4294967295",
        "the most requests at once per connection; at most 8192",
    ),
    served("grpc-keepalive-interval", "2h", "ping a connection that was silent for so long"),
    served("grpc-keepalive-timeout", "20s", "close it when no answer comes for so long"),
    served("quota-backend-bytes", "0", "reported to clients, not enforced yet"),
    served("log-level", "info", "debug, info, warn or error"),
    served("log-format", "text", "text (or console), or json"),
    served("log-outputs", "default", "comma-separated: stderr (default), stdout, a file's path"),
    served("network-threads", "0", "threads that serve clients [0: half the cores, at most 8]"),
    refused("config-file", "a configuration file is not read yet: use flags or ETCD_* variables"),
    off(refused("force-new-cluster", "recovery into a new cluster is not served yet")),
    refused("cert-file", NO_TLS),
    refused("key-file", NO_TLS),
    refused("trusted-ca-file", NO_TLS),
    off(refused("client-cert-auth", NO_TLS)),
    refused("client-crl-file", NO_TLS),
    refused("client-cert-allowed-hostname", NO_TLS),
    refused("client-cert-file", NO_TLS),
    refused("client-key-file", NO_TLS),
    off(refused("auto-tls", NO_TLS)),
    refused("peer-cert-file", NO_TLS),
    refused("peer-key-file", NO_TLS),
    refused("peer-trusted-ca-file", NO_TLS),
    off(refused("peer-client-cert-auth", NO_TLS)),
    refused("peer-client-cert-file", NO_TLS),
    refused("peer-client-key-file", NO_TLS),
    off(refused("peer-auto-tls", NO_TLS)),
    refused("peer-crl-file", NO_TLS),
    refused("peer-cert-allowed-cn", NO_TLS),
    refused("peer-cert-allowed-hostname", NO_TLS),
    refused("discovery", NO_DISCOVERY),
    refused("discovery-token", NO_DISCOVERY),
    refused("discovery-endpoints", NO_DISCOVERY),
    refused("discovery-srv", NO_DISCOVERY),
    refused("discovery-srv-name", NO_DISCOVERY),
    ignored("discovery-fallback", "exit"),
    ignored("discovery-proxy", ""),
    ignored("discovery-dial-timeout", "2s"),
    ignored("discovery-request-timeout", "5s"),
    ignored("discovery-keepalive-time", "2s"),
    ignored("discovery-keepalive-timeout", "6s"),
    off(ignored("discovery-insecure-transport", "true")),
    off(ignored("discovery-insecure-skip-tls-verify", "false")),
    ignored("discovery-cert", ""),
    ignored("discovery-key", ""),
    ignored("discovery-cacert", ""),
    ignored("discovery-user", ""),
    ignored("discovery-password", ""),
    ignored("wal-dir", ""),
    ignored("snapshot-count", "10000"),
    ignored("snapshot-catchup-entries", "5000"),
    switch(ignored("initial-election-tick-advance", "true")),
    switch(ignored("strict-reconfig-check", "true")),
    ignored("max-learners", "1"),
    ignored("max-snapshots", "5"),
    ignored("max-wals", "5"),
    ignored("grpc-keepalive-min-time", "5s"),
    ignored("backend-batch-interval", "0s"),
    ignored("backend-batch-limit", "0"),
    ignored("backend-bbolt-freelist-type", "map"),
    ignored("auto-compaction-mode", "periodic"),
    ignored("auto-compaction-retention", "0"),
    ignored("compaction-batch-limit", "1000"),
    ignored("compaction-sleep-interval", "10ms"),
    ignored("self-signed-cert-validity", "1"),
    ignored("cipher-suites", ""),
    ignored("tls-min-version", "TLS1.2"),
    ignored("tls-max-version", ""),
    off(ignored("peer-skip-client-san-verification", "false")),
    ignored("cors", "*"),
    ignored("host-whitelist", "*"),
    ignored("auth-token", "simple"),
    ignored("auth-token-ttl", "300"),
    ignored("bcrypt-cost", "10"),
    ignored("metrics", "basic"),
    off(ignored("enable-pprof", "false")),
    switch(ignored("enable-grpc-gateway", "true")),
    ignored("logger", "zap"),
    off(ignored("enable-log-rotation", "false")),
    ignored("log-rotation-config-json", ""),
    ignored("warning-apply-duration", "100ms"),
    ignored("warning-unary-request-duration", "300ms"),
    ignored("watch-progress-notify-interval", "10m"),
    ignored("corrupt-check-time", "0s"),
    ignored("compact-hash-check-time", "1m"),
    ignored("downgrade-check-time", "5s"),
    off(ignored("memory-mlock", "false")),
    ignored("bootstrap-defrag-threshold-megabytes", "0"),
    off(ignored("socket-reuse-port", "false")),
    off(ignored("socket-reuse-address", "false")),
    ignored("raft-read-timeout", "5s"),
    ignored("raft-write-timeout", "5s"),
    off(ignored("unsafe-no-fsync", "false")),
    ignored("feature-gates", ""),
    off(ignored("enable-distributed-tracing", "false")),
    ignored("distributed-tracing-address", "localhost:4317"),
    ignored("distributed-tracing-service-name", "etcd"),
    ignored("distributed-tracing-instance-id", ""),
    ignored("distributed-tracing-sampling-rate", "0"),
    off(ignored("enable-v2", "false")),
    ignored("v2-deprecation", ""),
    ignored("proxy", "off"),
    ignored("proxy-failure-wait", "5000"),
    ignored("proxy-refresh-interval", "30000"),
    ignored("proxy-dial-timeout", "1000"),
    ignored("proxy-write-timeout", "5000"),
    ignored("proxy-read-timeout", "0"),
];

/// What a command line asks for.
#[derive(Debug, PartialEq, Eq)]
pub enum Asked {
    /// Run a member with these settings.
    Run(Given),
    /// Print the help text.
    Help,
    /// Print the version.
    Version,
}

/// The values that were given, by flag name, and what is to be said about them.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Given {
    values: BTreeMap<&'static str, String>,
    /// One line each, for the log once it exists.
    pub warnings: Vec<String>,
}

impl Given {
    /// The value in force: what was given, or the default.
    ///
    /// # Panics
    /// If the name is in no line of the table: a mistake in this crate.
    pub fn value(&self, name: &str) -> &str {
        self.given(name).unwrap_or_else(|| find(name).expect("a flag of the table").default)
    }

    /// The value, if one was given.
    pub fn given(&self, name: &str) -> Option<&str> {
        self.values.get(name).map(String::as_str)
    }
}

/// A command line, or an environment, that cannot be followed. One line when displayed.
#[derive(Debug, PartialEq, Eq)]
pub enum FlagError {
    /// No such flag; the nearest one, if one is near.
    Unknown {
        /// As written, without dashes.
        name: String,
        /// The flag that may have been meant.
        nearest: Option<&'static str>,
    },
    /// A word that is no flag.
    Stray {
        /// The word.
        word: String,
        /// The switch before it, whose value it may have been meant to be.
        after_switch: Option<&'static str>,
    },
    /// The last flag lacks its value.
    NoValue(&'static str),
    /// A switch with a value that is neither true nor false.
    NotBool {
        /// The switch.
        name: &'static str,
        /// Its value.
        value: String,
    },
    /// Given as a flag and in the environment.
    Twice(&'static str),
    /// A flag that cannot be served, and may not be ignored.
    Unserved {
        /// The flag.
        name: &'static str,
        /// What is missing.
        reason: &'static str,
    },
}

impl fmt::Display for FlagError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FlagError::Unknown { name, nearest: Some(nearest) } => {
                write!(f, "unknown flag --{name}; did you mean --{nearest}?")
            }
            FlagError::Unknown { name, nearest: None } => {
                write!(f, "unknown flag --{name}; `raft-kv server --help` lists all")
            }
            FlagError::Stray { word, after_switch: Some(name) } => {
                write!(f, "{word:?} after --{name} is no flag; write --{name}={word}")
            }
            FlagError::Stray { word, after_switch: None } => {
                write!(f, "{word:?} is no flag; flags start with --")
            }
            FlagError::NoValue(name) => write!(f, "--{name} needs a value"),
            FlagError::NotBool { name, value } => {
                write!(f, "--{name} is true or false, not {value:?}")
            }
            FlagError::Twice(name) => write!(
                f,
                "conflicting environment variable {} is shadowed by --{name}; give only one",
                variable(name)
            ),
            FlagError::Unserved { name, reason } => write!(f, "--{name}: {reason}"),
        }
    }
}

impl std::error::Error for FlagError {}

/// Reads a command line (without the program's and the subcommand's name) and an environment.
///
/// # Errors
/// The first thing that cannot be followed.
pub fn read(
    arguments: impl IntoIterator<Item = String>,
    environment: impl IntoIterator<Item = (String, String)>,
) -> Result<Asked, FlagError> {
    let mut given = Given::default();
    let mut words = arguments.into_iter().peekable();
    let mut last_switch = None;
    while let Some(word) = words.next() {
        let Some(body) = word.strip_prefix("--").or_else(|| word.strip_prefix('-')) else {
            return Err(FlagError::Stray { word, after_switch: last_switch });
        };
        let (name, value) = match body.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (body, None),
        };
        match name {
            "h" | "help" => return Ok(Asked::Help),
            "version" => return Ok(Asked::Version),
            _ => {}
        }
        last_switch = None;
        let Some(flag) = find(name) else {
            let Some(known) = retired(name) else {
                return Err(FlagError::Unknown { name: name.to_owned(), nearest: nearest(name) });
            };
            if value.is_none() {
                words.next_if(|next| !next.starts_with('-'));
            }
            given.warnings.push(known);
            continue;
        };
        let value = match value {
            Some(value) => value,
            None if flag.is_bool => {
                last_switch = Some(flag.name);
                "true".to_owned()
            }
            None => words.next().ok_or(FlagError::NoValue(flag.name))?,
        };
        given.values.insert(flag.name, value);
    }
    read_environment(&mut given, environment)?;
    judge(&mut given)?;
    Ok(Asked::Run(given))
}

/// Adds what the environment says.
fn read_environment(
    given: &mut Given,
    environment: impl IntoIterator<Item = (String, String)>,
) -> Result<(), FlagError> {
    for (variable, value) in environment {
        let Some(tail) = variable.strip_prefix("ETCD_") else { continue };
        if value.is_empty() {
            continue;
        }
        let name = tail.to_ascii_lowercase().replace('_', "-");
        let Some(flag) = find(&name) else {
            given.warnings.push(format!("{variable} names no flag and is ignored"));
            continue;
        };
        if given.values.insert(flag.name, value).is_some() {
            return Err(FlagError::Twice(flag.name));
        }
    }
    Ok(())
}

/// Checks the switches, refuses what cannot be served and notes what is ignored.
fn judge(given: &mut Given) -> Result<(), FlagError> {
    for (name, value) in &mut given.values {
        let flag = find(name).expect("only flags of the table are kept");
        if flag.is_bool {
            *value = match value.as_str() {
                "true" | "TRUE" | "True" | "t" | "T" | "1" => "true".to_owned(),
                "false" | "FALSE" | "False" | "f" | "F" | "0" => "false".to_owned(),
                _ => {
                    return Err(FlagError::NotBool { name: flag.name, value: value.clone() });
                }
            };
        }
        match flag.usage {
            Use::Served => {}
            _ if value == flag.default => {}
            Use::Ignored => {
                given.warnings.push(format!("--{name} has no effect here (yet) and is ignored"));
            }
            Use::Refused(reason) => {
                return Err(FlagError::Unserved { name: flag.name, reason });
            }
        }
    }
    Ok(())
}

/// The environment variable of a flag.
fn variable(name: &str) -> String {
    format!("ETCD_{}", name.to_ascii_uppercase().replace('-', "_"))
}

fn find(name: &str) -> Option<&'static Flag> {
    FLAGS.iter().find(|flag| flag.name == name)
}

/// A warning, if this is a flag of an older etcd: manifests still carry them.
fn retired(name: &str) -> Option<String> {
    name.starts_with("experimental-")
        .then(|| format!("--{name} is a flag of an older etcd and is ignored"))
}

/// The flag whose name takes the fewest edits to reach, if that is few.
fn nearest(name: &str) -> Option<&'static str> {
    let allowed = name.len() / 3;
    FLAGS
        .iter()
        .map(|flag| (edits(name, flag.name), flag.name))
        .min()
        .filter(|&(edits, _)| edits <= allowed.max(2))
        .map(|(_, name)| name)
}

/// The number of single-character edits that turn one name into the other.
fn edits(from: &str, to: &str) -> usize {
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (i, a) in from.bytes().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, b) in to.bytes().enumerate() {
            let change = diagonal + usize::from(a != b);
            diagonal = row[j + 1];
            row[j + 1] = change.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[to.len()]
}

/// The help text.
pub fn help() -> String {
    use std::fmt::Write as _;
    let mut text = String::from(
        "Run one member of a Raft-KV cluster.\n\n\
         Usage: raft-kv server [--flag value | --flag=value]...\n\n\
         Each flag can be given as an environment variable instead: --data-dir as ETCD_DATA_DIR.\n\n\
         Flags:\n",
    );
    for flag in FLAGS.iter().filter(|flag| flag.usage == Use::Served) {
        let _ = write!(text, "  --{:<28} {}", flag.name, flag.help);
        if !flag.default.is_empty() {
            let _ = write!(text, " [{}]", flag.default);
        }
        text.push('\n');
    }
    text.push_str(
        "\nOther flags of etcd are accepted with a warning, except those of TLS and discovery.\n\n\
         Example, the first of three members on one machine:\n  \
         raft-kv server --name n1 --data-dir /tmp/n1 \\\n    \
         --listen-client-urls http://127.0.0.1:2379 \
         --advertise-client-urls http://127.0.0.1:2379 \\\n    \
         --listen-peer-urls http://127.0.0.1:2380 \
         --initial-advertise-peer-urls http://127.0.0.1:2380 \\\n    \
         --initial-cluster n1=http://127.0.0.1:2380,n2=http://127.0.0.1:2480,n3=http://127.0.0.1:2580\n",
    );
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(arguments: &[&str], environment: &[(&str, &str)]) -> Result<Given, FlagError> {
        let asked = read(
            arguments.iter().map(|word| (*word).to_owned()),
            environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())),
        )?;
        match asked {
            Asked::Run(given) => Ok(given),
            other => panic!("not a run: {other:?}"),
        }
    }

    #[test]
    fn both_spellings_and_one_dash_are_read() {
        let given = run(&["--name", "a", "--data-dir=/d", "-election-timeout", "7"], &[]).unwrap();
        assert_eq!(given.value("name"), "a");
        assert_eq!(given.value("data-dir"), "/d");
        assert_eq!(given.value("election-timeout"), "7");
        assert_eq!(given.value("heartbeat-interval"), "100");
        assert_eq!(given.given("heartbeat-interval"), None);
    }

    #[test]
    fn the_environment_counts_unless_the_flag_is_given_too() {
        let given = run(&[], &[("ETCD_DATA_DIR", "/e"), ("ETCD_NAME", ""), ("HOME", "/")]).unwrap();
        assert_eq!(given.value("data-dir"), "/e");
        assert_eq!(given.value("name"), "default");
        assert_eq!(
            run(&["--name=a"], &[("ETCD_NAME", "b")]).unwrap_err().to_string(),
            "conflicting environment variable ETCD_NAME is shadowed by --name; give only one"
        );
    }

    #[test]
    fn an_unknown_variable_is_only_a_warning() {
        let given = run(&[], &[("ETCD_NMAE", "b")]).unwrap();
        assert_eq!(given.warnings, ["ETCD_NMAE names no flag and is ignored"]);
    }

    #[test]
    fn unknown_flags_name_the_nearest() {
        let say = |arguments: &[&str]| run(arguments, &[]).unwrap_err().to_string();
        assert_eq!(say(&["--nmae", "a"]), "unknown flag --nmae; did you mean --name?");
        assert_eq!(
            say(&["--listen-client-url=x"]),
            "unknown flag --listen-client-url; did you mean --listen-client-urls?"
        );
        assert_eq!(
            say(&["--frobnicate"]),
            "unknown flag --frobnicate; `raft-kv server --help` lists all"
        );
    }

    #[test]
    fn a_switch_takes_its_value_after_an_equals_sign() {
        assert_eq!(run(&["--pre-vote"], &[]).unwrap().value("pre-vote"), "true");
        assert_eq!(run(&["--pre-vote=F"], &[]).unwrap().value("pre-vote"), "false");
        let say = |arguments: &[&str]| run(arguments, &[]).unwrap_err().to_string();
        assert_eq!(
            say(&["--pre-vote", "false"]),
            "\"false\" after --pre-vote is no flag; write --pre-vote=false"
        );
        assert_eq!(say(&["--pre-vote=no"]), "--pre-vote is true or false, not \"no\"");
        assert_eq!(say(&["server"]), "\"server\" is no flag; flags start with --");
        assert_eq!(say(&["--name"]), "--name needs a value");
    }

    #[test]
    fn what_means_nothing_here_is_accepted_with_one_warning_each() {
        let given = run(
            &[
                "--snapshot-count=5000",
                "--auto-compaction-mode=periodic",
                "--experimental-initial-corrupt-check=true",
                "--experimental-watch-progress-notify-interval",
                "5s",
                "--unsafe-no-fsync",
            ],
            &[],
        )
        .unwrap();
        assert_eq!(given.warnings.len(), 4, "{:?}", given.warnings);
    }

    #[test]
    fn what_may_not_be_ignored_is_refused() {
        let say = |arguments: &[&str]| run(arguments, &[]).unwrap_err().to_string();
        assert_eq!(say(&["--cert-file=/c"]), "--cert-file: TLS is not served yet");
        assert_eq!(
            say(&["--config-file", "/c"]),
            "--config-file: a configuration file is not read yet: use flags or ETCD_* variables"
        );
        assert!(run(&["--client-cert-auth=false", "--cert-file="], &[]).is_ok());
        assert!(run(&["--client-cert-auth"], &[]).is_err());
    }

    #[test]
    fn help_and_version_win() {
        assert_eq!(read(["--help".to_owned()], []), Ok(Asked::Help));
        assert_eq!(read(["--version".to_owned()], []), Ok(Asked::Version));
        assert!(help().contains("--initial-cluster-token"));
    }

    #[test]
    fn names_are_unique() {
        let mut names: Vec<_> = FLAGS.iter().map(|flag| flag.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), FLAGS.len());
    }
}
