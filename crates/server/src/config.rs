//! A member's settings, checked: what flags mean, their units and bounds.

use crate::flags::Given;
use crate::identity::{self, Id};
use crate::urls::{Url, UrlError};
use std::collections::BTreeMap;
use std::fmt;
use std::net::ToSocketAddrs;
use std::path::PathBuf;
use std::time::Duration;

/// The longest election timeout, in milliseconds: etcd's bound.
const ELECTION_MILLIS_MAX: u64 = 50_000;
/// An election timeout is at least so many heartbeats: etcd's rule.
const HEARTBEATS_PER_ELECTION_MIN: u64 = 5;
/// The largest value of `--max-request-bytes`: a request has to fit into one message between
/// members, with room to spare.
const REQUEST_BYTES_BOUND: u64 = 32 << 20;

/// What a quota of 0 stands for.
const QUOTA_BYTES_DEFAULT: i64 = 2 << 30;

/// Everything a member needs to know to start.
#[derive(Clone, Debug)]
pub struct Config {
    /// This member's name.
    pub name: String,
    /// Where it keeps its data.
    pub data_dir: PathBuf,
    /// Where it listens for other members; at least one.
    pub listen_peer_urls: Vec<Url>,
    /// Where it listens for clients; at least one.
    pub listen_client_urls: Vec<Url>,
    /// Where it serves HTTP besides.
    pub listen_http_urls: Vec<Url>,
    /// Where it serves health, even before clients are served.
    pub listen_metrics_urls: Vec<Url>,
    /// Where clients reach it, as told to them.
    pub advertise_client_urls: Vec<Url>,
    /// All members of the cluster, by id.
    pub members: BTreeMap<Id, InitialMember>,
    /// The cluster's token.
    pub token: String,
    /// This member's id.
    pub member_id: Id,
    /// The cluster's id.
    pub cluster_id: Id,
    /// The member expects to find data of an earlier start.
    pub existing: bool,
    /// Between heartbeats.
    pub heartbeat: Duration,
    /// A follower waits at least so long for its leader, and less than twice as long.
    pub election: Duration,
    /// Whether a candidate asks first.
    pub pre_vote: bool,
    /// The largest request, as it is replicated.
    pub request_bytes_max: usize,
    /// The most operations in one list of a transaction.
    pub txn_ops_max: usize,
    /// The most concurrent requests on one connection.
    pub streams_max: u32,
    /// A connection silent for so long is pinged.
    pub keepalive_interval: Duration,
    /// A ping unanswered for so long ends the connection.
    pub keepalive_timeout: Duration,
    /// The quota told to clients; not enforced.
    pub quota_bytes: i64,
    /// Threads that serve clients.
    pub network_threads: usize,
    /// How to log.
    pub log: LogConfig,
}

/// A member as `--initial-cluster` has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InitialMember {
    /// Its name.
    pub name: String,
    /// Where others reach it.
    pub peer_urls: Vec<Url>,
}

/// What to log, how, and where to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogConfig {
    /// The least important level that is logged.
    pub level: tracing::Level,
    /// JSON objects instead of text.
    pub json: bool,
    /// Where lines go; each line goes to all of them.
    pub outputs: Vec<LogOutput>,
}

/// One place that log lines go to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogOutput {
    /// Standard error.
    Stderr,
    /// Standard output.
    Stdout,
    /// A file, appended to.
    File(PathBuf),
}

/// A setting that cannot be. One line when displayed.
#[derive(Debug, PartialEq, Eq)]
pub enum ConfigError {
    /// A flag's value means nothing, or is out of bounds.
    Value {
        /// The flag, without dashes.
        flag: &'static str,
        /// Its value.
        value: String,
        /// What it should be.
        expected: String,
    },
    /// A URL in a flag.
    Url {
        /// The flag, without dashes.
        flag: &'static str,
        /// What is wrong.
        error: UrlError,
    },
    /// The flags contradict each other; says which and what to do.
    Conflict(String),
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ConfigError::Value { flag, value, expected } => {
                write!(f, "--{flag} {value:?}: {expected}")
            }
            ConfigError::Url { flag, error } => write!(f, "--{flag}: {error}"),
            ConfigError::Conflict(text) => f.write_str(text),
        }
    }
}

impl std::error::Error for ConfigError {}

impl Config {
    /// Checks what was given and fills in the rest. Looks at names in the network's directory only
    /// if `--initial-cluster` and `--initial-advertise-peer-urls` differ as texts; changes nothing.
    ///
    /// # Errors
    /// The first setting that cannot be.
    pub fn new(given: &Given) -> Result<Config, ConfigError> {
        let name = member_name(given)?;
        let (heartbeat, election) = intervals(given)?;
        let advertise_peer_urls = some_urls(given, "initial-advertise-peer-urls")?;
        let token = given.value("initial-cluster-token").to_owned();
        let initial = initial_cluster(given, &name, &advertise_peer_urls)?;
        let own = own_entry(&initial, &name, &advertise_peer_urls)?;
        let member_id = identity::member_id(own, &token);
        let members: BTreeMap<Id, InitialMember> = initial
            .into_iter()
            .map(|(name, peer_urls)| {
                (identity::member_id(&peer_urls, &token), InitialMember { name, peer_urls })
            })
            .collect();
        let cluster_id = identity::cluster_id(members.keys().copied());
        let data_dir = match given.value("data-dir") {
            "" => PathBuf::from(format!("{name}.raft-kv")),
            path => PathBuf::from(path),
        };
        Ok(Config {
            data_dir,
            listen_peer_urls: listen_urls(given, "listen-peer-urls")?,
            listen_client_urls: listen_urls(given, "listen-client-urls")?,
            listen_http_urls: listen_urls(given, "listen-client-http-urls")?,
            listen_metrics_urls: listen_urls(given, "listen-metrics-urls")?,
            advertise_client_urls: advertise_client_urls(given)?,
            members,
            token,
            member_id,
            cluster_id,
            existing: cluster_state(given)?,
            heartbeat,
            election,
            pre_vote: given.value("pre-vote") == "true",
            request_bytes_max: number(given, "max-request-bytes", 1, REQUEST_BYTES_BOUND)? as usize,
            txn_ops_max: number(given, "max-txn-ops", 1, 1 << 20)? as usize,
            streams_max: number(given, "max-concurrent-streams", 1, u64::from(u32::MAX))? as u32,
            keepalive_interval: duration(given, "grpc-keepalive-interval")?,
            keepalive_timeout: duration(given, "grpc-keepalive-timeout")?,
            quota_bytes: quota(given)?,
            network_threads: network_threads(given)?,
            log: log_config(given)?,
            name,
        })
    }

    /// Bounds a request: as long as etcd's.
    pub fn request_timeout(&self) -> Duration {
        Duration::from_secs(5) + 2 * self.election
    }
}

fn invalid(given: &Given, flag: &'static str, expected: impl Into<String>) -> ConfigError {
    ConfigError::Value { flag, value: given.value(flag).to_owned(), expected: expected.into() }
}

fn member_name(given: &Given) -> Result<String, ConfigError> {
    let name = given.value("name");
    let fits = !name.is_empty()
        && !name.contains(|c: char| matches!(c, ',' | '=' | '/') || c.is_control());
    if fits {
        Ok(name.to_owned())
    } else {
        Err(invalid(given, "name", "a name is not empty and has no comma, '=' or '/'"))
    }
}

fn number(given: &Given, flag: &'static str, min: u64, max: u64) -> Result<u64, ConfigError> {
    match given.value(flag).parse::<u64>() {
        Ok(n) if (min..=max).contains(&n) => Ok(n),
        _ => Err(invalid(given, flag, format!("expected a number from {min} to {max}"))),
    }
}

fn quota(given: &Given) -> Result<i64, ConfigError> {
    match given.value("quota-backend-bytes").parse::<i64>() {
        Ok(0) => Ok(QUOTA_BYTES_DEFAULT),
        Ok(bytes) => Ok(bytes),
        Err(_) => Err(invalid(given, "quota-backend-bytes", "expected a number of bytes")),
    }
}

fn intervals(given: &Given) -> Result<(Duration, Duration), ConfigError> {
    let heartbeat = number(given, "heartbeat-interval", 1, ELECTION_MILLIS_MAX)?;
    let election = number(given, "election-timeout", 1, ELECTION_MILLIS_MAX)?;
    if election < HEARTBEATS_PER_ELECTION_MIN * heartbeat {
        return Err(ConfigError::Conflict(format!(
            "--election-timeout {election} is too short: it must be at least \
             {HEARTBEATS_PER_ELECTION_MIN} times --heartbeat-interval {heartbeat}"
        )));
    }
    Ok((Duration::from_millis(heartbeat), Duration::from_millis(election)))
}

/// A duration as Go writes it: `2h`, `1m30s`, `500ms`.
fn duration(given: &Given, flag: &'static str) -> Result<Duration, ConfigError> {
    parse_duration(given.value(flag))
        .filter(|duration| !duration.is_zero())
        .ok_or_else(|| invalid(given, flag, "expected a duration such as 20s, 1m30s or 2h"))
}

fn parse_duration(text: &str) -> Option<Duration> {
    let mut rest = text;
    let mut sum = Duration::ZERO;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit())?;
        let count: u64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let unit_end = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
        let millis = match &rest[..unit_end] {
            "ms" => 1,
            "s" => 1_000,
            "m" => 60_000,
            "h" => 3_600_000,
            _ => return None,
        };
        rest = &rest[unit_end..];
        sum = sum.checked_add(Duration::from_millis(count.checked_mul(millis)?))?;
    }
    Some(sum)
}

fn network_threads(given: &Given) -> Result<usize, ConfigError> {
    let asked = number(given, "network-threads", 0, 256)? as usize;
    if asked > 0 {
        return Ok(asked);
    }
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    Ok((cores / 2).clamp(1, 8))
}

fn urls(given: &Given, flag: &'static str) -> Result<Vec<Url>, ConfigError> {
    Url::parse_list(given.value(flag)).map_err(|error| ConfigError::Url { flag, error })
}

fn some_urls(given: &Given, flag: &'static str) -> Result<Vec<Url>, ConfigError> {
    let urls = urls(given, flag)?;
    if urls.is_empty() {
        return Err(invalid(given, flag, "expected at least one URL"));
    }
    Ok(urls)
}

/// URLs that this member can listen on; at least one where the default has one.
fn listen_urls(given: &Given, flag: &'static str) -> Result<Vec<Url>, ConfigError> {
    let optional = matches!(flag, "listen-client-http-urls" | "listen-metrics-urls");
    let urls = if optional { urls(given, flag)? } else { some_urls(given, flag)? };
    for url in &urls {
        url.listen_address().map_err(|error| ConfigError::Url { flag, error })?;
    }
    Ok(urls)
}

fn advertise_client_urls(given: &Given) -> Result<Vec<Url>, ConfigError> {
    let explicit = given.given("listen-client-urls").is_some();
    if explicit && given.given("advertise-client-urls").is_none() {
        return Err(ConfigError::Conflict(
            "--advertise-client-urls is required when --listen-client-urls is set: \
             say where clients reach this member"
                .to_owned(),
        ));
    }
    some_urls(given, "advertise-client-urls")
}

fn cluster_state(given: &Given) -> Result<bool, ConfigError> {
    match given.value("initial-cluster-state") {
        "new" => Ok(false),
        "existing" => Ok(true),
        _ => Err(invalid(given, "initial-cluster-state", "expected new or existing")),
    }
}

/// The members by name. A name may stand for several URLs; no URL may occur twice.
fn initial_cluster(
    given: &Given,
    name: &str,
    advertise_peer_urls: &[Url],
) -> Result<BTreeMap<String, Vec<Url>>, ConfigError> {
    const FLAG: &str = "initial-cluster";
    let Some(text) = given.given(FLAG) else {
        return Ok(BTreeMap::from([(name.to_owned(), advertise_peer_urls.to_vec())]));
    };
    let mut members: BTreeMap<String, Vec<Url>> = BTreeMap::new();
    for part in text.split(',') {
        let (name, url) =
            part.split_once('=').filter(|(name, _)| !name.trim().is_empty()).ok_or_else(|| {
                invalid(given, FLAG, format!("{part:?} is not name=http://host:port"))
            })?;
        let url = Url::parse(url).map_err(|error| ConfigError::Url { flag: FLAG, error })?;
        if members.values().flatten().any(|known| *known == url) {
            return Err(ConfigError::Conflict(format!("--{FLAG} has {url} twice")));
        }
        members.entry(name.trim().to_owned()).or_default().push(url);
    }
    Ok(members)
}

/// This member's URLs as `--initial-cluster` has them.
fn own_entry<'a>(
    initial: &'a BTreeMap<String, Vec<Url>>,
    name: &str,
    advertise_peer_urls: &[Url],
) -> Result<&'a [Url], ConfigError> {
    let Some(own) = initial.get(name) else {
        let names: Vec<&str> = initial.keys().map(String::as_str).collect();
        return Err(ConfigError::Conflict(format!(
            "--name {name:?} is not in --initial-cluster, which has {}",
            names.join(", ")
        )));
    };
    if sorted(own) == sorted(advertise_peer_urls) || same_addresses(own, advertise_peer_urls) {
        return Ok(own);
    }
    Err(ConfigError::Conflict(format!(
        "--initial-cluster has {name}={}, but --initial-advertise-peer-urls is {}; make them equal",
        list(own),
        list(advertise_peer_urls)
    )))
}

fn sorted(urls: &[Url]) -> Vec<&Url> {
    let mut urls: Vec<&Url> = urls.iter().collect();
    urls.sort_unstable();
    urls
}

fn list(urls: &[Url]) -> String {
    urls.iter().map(Url::to_string).collect::<Vec<_>>().join(",")
}

/// Whether both lists stand for the same addresses once names are resolved.
fn same_addresses(one: &[Url], other: &[Url]) -> bool {
    let resolve = |urls: &[Url]| {
        let mut all = Vec::new();
        for url in urls {
            all.extend((url.host(), url.port()).to_socket_addrs().ok()?);
        }
        all.sort_unstable();
        all.dedup();
        Some(all)
    };
    one.len() == other.len()
        && matches!((resolve(one), resolve(other)), (Some(a), Some(b)) if a == b)
}

fn log_config(given: &Given) -> Result<LogConfig, ConfigError> {
    let level = match given.value("log-level") {
        "debug" => tracing::Level::DEBUG,
        "info" => tracing::Level::INFO,
        "warn" => tracing::Level::WARN,
        "error" | "dpanic" | "panic" | "fatal" => tracing::Level::ERROR,
        _ => return Err(invalid(given, "log-level", "expected debug, info, warn or error")),
    };
    let json = match given.value("log-format") {
        "json" => true,
        "text" | "console" => false,
        _ => return Err(invalid(given, "log-format", "expected text, console or json")),
    };
    let outputs = given
        .value("log-outputs")
        .split(',')
        .map(|output| match output.trim() {
            "default" | "stderr" => Ok(LogOutput::Stderr),
            "stdout" => Ok(LogOutput::Stdout),
            "" | "systemd/journal" => {
                Err(invalid(given, "log-outputs", "expected stderr, stdout or a file's path"))
            }
            path => Ok(LogOutput::File(PathBuf::from(path))),
        })
        .collect::<Result<_, _>>()?;
    Ok(LogConfig { level, json, outputs })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flags::{self, Asked};

    fn config(arguments: &[&str]) -> Result<Config, String> {
        let words = arguments.iter().map(|word| (*word).to_owned());
        match flags::read(words, []).map_err(|error| error.to_string())? {
            Asked::Run(given) => Config::new(&given).map_err(|error| error.to_string()),
            other => panic!("not a run: {other:?}"),
        }
    }

    fn refusal(arguments: &[&str]) -> String {
        config(arguments).expect_err("must be refused")
    }

    const THREE: &str = "a=http://127.0.0.1:1,b=http://127.0.0.1:2,c=http://127.0.0.1:3";

    #[test]
    fn defaults_are_a_cluster_of_one() {
        let config = config(&[]).unwrap();
        assert_eq!(config.data_dir, PathBuf::from("default.raft-kv"));
        assert_eq!(config.members.len(), 1);
        assert_eq!(config.member_id.to_string(), "8e9e05c52164694d", "what etcd has by default");
        assert_eq!(config.cluster_id.to_string(), "cdf818194e3a8c32", "what etcd has by default");
        assert_eq!(config.request_timeout(), Duration::from_secs(7));
        assert_eq!(config.keepalive_interval, Duration::from_secs(7200));
        assert_eq!(config.quota_bytes, 2 << 30);
        assert_eq!(config.streams_max, u32::MAX);
        assert_eq!(config.request_bytes_max, 1_572_864);
    }

    #[test]
    fn three_members() {
        let config = config(&[
            "--name=b",
            "--initial-cluster",
            THREE,
            "--initial-advertise-peer-urls=http://127.0.0.1:2",
        ])
        .unwrap();
        assert_eq!(config.members.len(), 3);
        assert_eq!(config.members[&config.member_id].name, "b");
    }

    #[test]
    fn a_name_may_have_several_urls() {
        let config = config(&[
            "--name=a",
            "--initial-cluster=a=http://127.0.0.1:1,b=http://127.0.0.1:2,a=http://127.0.0.1:3",
            "--initial-advertise-peer-urls=http://127.0.0.1:3,http://127.0.0.1:1",
        ])
        .unwrap();
        assert_eq!(config.members.len(), 2);
    }

    #[test]
    fn contradictions_say_what_to_do() {
        assert_eq!(
            refusal(&["--election-timeout=400"]),
            "--election-timeout 400 is too short: it must be at least 5 times \
             --heartbeat-interval 100"
        );
        assert_eq!(
            refusal(&["--name=x", "--initial-cluster", THREE]),
            "--name \"x\" is not in --initial-cluster, which has a, b, c"
        );
        assert_eq!(
            refusal(&[
                "--name=a",
                "--initial-cluster",
                THREE,
                "--initial-advertise-peer-urls=http://127.0.0.1:9"
            ]),
            "--initial-cluster has a=http://127.0.0.1:1, but --initial-advertise-peer-urls is \
             http://127.0.0.1:9; make them equal"
        );
        assert_eq!(
            refusal(&["--initial-cluster=a=http://h:1,b=http://h:1"]),
            "--initial-cluster has http://h:1 twice"
        );
        assert!(
            refusal(&["--listen-client-urls=http://127.0.0.1:1"])
                .starts_with("--advertise-client-urls is required")
        );
    }

    #[test]
    fn bad_values_are_named() {
        for (argument, part) in [
            ("--name=a,b", "--name \"a,b\": a name"),
            ("--name=", "--name \"\": a name"),
            ("--election-timeout=60000", "expected a number from 1 to 50000"),
            ("--heartbeat-interval=-1", "expected a number from 1 to 50000"),
            ("--initial-cluster=a=http://h:1/x", "must end after its port"),
            ("--initial-cluster=a", "is not name=http://host:port"),
            ("--initial-cluster=", "is not name=http://host:port"),
            ("--initial-cluster-state=old", "expected new or existing"),
            ("--listen-peer-urls=https://127.0.0.1:1", "TLS is not served yet"),
            ("--listen-peer-urls=", "expected at least one URL"),
            ("--listen-peer-urls=http://db:1", "must be an IP address or localhost"),
            ("--max-request-bytes=99999999999", "expected a number from 1"),
            ("--max-txn-ops=0", "expected a number from 1"),
            ("--grpc-keepalive-timeout=5", "expected a duration such as"),
            ("--quota-backend-bytes=1G", "expected a number of bytes"),
            ("--log-level=loud", "expected debug, info, warn or error"),
            ("--log-format=xml", "expected text, console or json"),
            ("--log-outputs=", "expected stderr, stdout or a file's path"),
        ] {
            let line = refusal(&[argument]);
            assert!(line.contains(part), "{argument}: {line}");
            assert!(!line.contains('\n'), "{line}");
        }
    }

    #[test]
    fn durations() {
        assert_eq!(parse_duration("1m30s"), Some(Duration::from_secs(90)));
        assert_eq!(parse_duration("500ms"), Some(Duration::from_millis(500)));
        for text in ["5", "s", "5x", "99999999999999999999s"] {
            assert_eq!(parse_duration(text), None, "{text}");
        }
    }
}
