//! One run of the load generator, as a process of its own.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use serde_json::Value;

use crate::cluster::command;
use crate::interrupt;
use crate::trouble::{OrTrouble, Outcome, Trouble};

/// How much longer than asked for a run may take.
const RUN_SLACK: Duration = Duration::from_secs(30);

/// What is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Put,
    Get,
    SerializableGet,
    Range,
    Count,
    Txn,
    Mixed,
}

impl Kind {
    pub const ALL: [Kind; 7] = [
        Kind::Put,
        Kind::Get,
        Kind::SerializableGet,
        Kind::Range,
        Kind::Count,
        Kind::Txn,
        Kind::Mixed,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Kind::Put => "put",
            Kind::Get => "get",
            Kind::SerializableGet => "sget",
            Kind::Range => "range",
            Kind::Count => "count",
            Kind::Txn => "txn",
            Kind::Mixed => "mixed",
        }
    }

    /// For a heading.
    pub fn title(self) -> &'static str {
        match self {
            Kind::Put => "Puts",
            Kind::Get => "Linearizable gets",
            Kind::SerializableGet => "Serializable gets",
            Kind::Range => "Ranges of 100 keys",
            Kind::Count => "Counts",
            Kind::Txn => "Transactions: compare and put",
            Kind::Mixed => "Mixed: 20 % puts, 80 % linearizable gets",
        }
    }

    fn words(self) -> &'static [&'static str] {
        match self {
            Kind::Put => &["put"],
            Kind::Get => &["get"],
            Kind::SerializableGet => &["get", "--serializable"],
            Kind::Range => &["range", "--limit=100"],
            Kind::Count => &["count"],
            Kind::Txn => &["txn"],
            Kind::Mixed => &["mixed", "--reads=80"],
        }
    }
}

/// A load, without where and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Load {
    pub kind: Kind,
    pub clients: u32,
    /// Requests per second to start, instead of one after another.
    pub rate: Option<u32>,
    pub value_bytes: u32,
    pub keys: u64,
}

/// When a run ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    After(Duration),
    Requests {
        total: u64,
        limit: Duration,
    },
    /// Writes the keys up to this one, in order.
    Keys {
        up_to: u64,
        limit: Duration,
    },
}

/// What the load generator found.
#[derive(Clone, Debug, Default)]
pub struct Answer {
    pub requests: u64,
    pub seconds: f64,
    pub per_second: f64,
    /// Microseconds at p50, p99 and p99.9.
    pub latency: [u64; 3],
    /// By text.
    pub errors: BTreeMap<String, u64>,
    /// Its own CPU, in microseconds.
    pub own_cpu: Option<f64>,
}

impl Answer {
    pub fn errors(&self) -> u64 {
        self.errors.values().sum()
    }
}

impl Load {
    pub fn new(kind: Kind, clients: u32) -> Load {
        Load { kind, clients, rate: None, value_bytes: 256, keys: 10_000 }
    }

    /// Drives `endpoints`. Nothing is left out as warm-up: that is a run of its own.
    pub fn run(&self, raft_kv: &Path, endpoints: &[String], end: End) -> Outcome<Answer> {
        let mut words = vec![raft_kv.display().to_string(), "bench".to_owned()];
        words.extend(self.kind.words().iter().map(|word| (*word).to_owned()));
        words.extend([
            format!("--clients={}", self.clients),
            format!("--value-size={}", self.value_bytes),
            format!("--endpoints={}", endpoints.join(",")),
            "--warm-up=0s".to_owned(),
            "--quiet".to_owned(),
            "--write-out=json".to_owned(),
        ]);
        words.extend(self.rate.map(|rate| format!("--rate={rate}")));
        let limit = match end {
            End::After(time) => {
                let millis = time.as_millis();
                words.extend([
                    format!("--duration={millis}ms"),
                    format!("--key-space={}", self.keys),
                ]);
                time
            }
            End::Requests { total, limit } => {
                words.extend([format!("--total={total}"), format!("--key-space={}", self.keys)]);
                limit
            }
            End::Keys { up_to, limit } => {
                words.extend([format!("--total={up_to}"), format!("--key-space={up_to}")]);
                words.push("--sequential".to_owned());
                limit
            }
        };
        run(&words, limit + RUN_SLACK)
    }
}

fn run(words: &[String], limit: Duration) -> Outcome<Answer> {
    let child = command(words).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let mut child = child.or_trouble(&words[0])?;
    // A few hundred bytes: they fit into the pipes, nobody waits for us to read.
    let ended = interrupt::wait(&mut child, limit, "the load generator")?;
    let (mut out, mut error) = (String::new(), String::new());
    if let Some(mut pipe) = child.stdout.take() {
        pipe.read_to_string(&mut out).or_trouble("the load generator's answer")?;
    }
    if let Some(mut pipe) = child.stderr.take() {
        let _ = pipe.read_to_string(&mut error);
    }
    match serde_json::from_str(&out) {
        Ok(found) => answer(&found),
        Err(_) => {
            let line = error.lines().find(|line| !line.trim().is_empty()).unwrap_or("no answer");
            Err(Trouble(format!("the load generator ended ({ended}): {line}")))
        }
    }
}

fn answer(found: &Value) -> Outcome<Answer> {
    let number = |value: &Value, name: &str| {
        let number = value[name].as_f64();
        number.ok_or_else(|| Trouble(format!("the load generator does not tell {name}")))
    };
    let latency = |name| number(&found["latency_us"], name).map(|micros| micros as u64);
    let errors = found["errors"].as_object().into_iter().flatten();
    Ok(Answer {
        requests: number(found, "requests")? as u64,
        seconds: number(found, "seconds")?,
        per_second: number(found, "requests_per_second")?,
        latency: [latency("p50")?, latency("p99")?, latency("p99.9")?],
        errors: errors.map(|(text, count)| (text.clone(), count.as_u64().unwrap_or(0))).collect(),
        own_cpu: found["own_cpu_us_per_request"].as_f64(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_read() {
        let text = r#"{"load":"put","requests":100,"seconds":2.0,"requests_per_second":50.0,
            "latency_us":{"p50":7,"p90":8,"p99":9,"p99.9":10,"max":11},"reads":0,
            "own_cpu_us_per_request":4.5,"errors":{"Unavailable: no leader":3}}"#;
        let answer = answer(&serde_json::from_str(text).unwrap()).unwrap();
        assert_eq!((answer.requests, answer.latency), (100, [7, 9, 10]));
        assert_eq!((answer.errors(), answer.own_cpu), (3, Some(4.5)));
    }

    #[test]
    fn an_answer_without_latency_is_none() {
        let told = answer(&serde_json::json!({ "requests": 1 }));
        assert!(told.unwrap_err().to_string().contains("seconds"));
    }
}
