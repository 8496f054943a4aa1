//! The numbers, for programs. Units are in the names.

use serde_json::{Map, Value, json};

use crate::cluster::System;
use crate::findings::{AtKeys, Findings, Found, Round, of};
use crate::limits::bare_log_load::Commits;
use crate::limits::disk::Syncs;
use crate::row::{Measured, Row};

pub fn findings(findings: &Findings) -> Value {
    let machine = findings.machine.0.iter();
    let idle = findings.idle.iter().map(|(system, cores)| (system.name(), *cores));
    json!({
        "full": findings.full,
        "incomplete": findings.incomplete,
        "machine": machine.map(|(name, value)| (*name, value.clone())).collect::<Object<_>>().0,
        "idle_cores": idle.collect::<Object<_>>().0,
        "rows": findings.rows.iter().map(|(row, found)| of_row(row, found)).collect::<Vec<_>>(),
        "disk_syncs": findings.syncs.iter().map(syncs).collect::<Vec<_>>(),
        "bare_log": findings.commits.iter().map(commits).collect::<Vec<_>>(),
        "values": findings.values.iter().map(|(value_bytes, found)| {
            json!({ "value_bytes": value_bytes, "systems": systems(found, measured) })
        }).collect::<Vec<_>>(),
        "keys": findings.keys.iter().map(|(keys, found)| {
            json!({ "keys": keys, "systems": systems(found, at_keys) })
        }).collect::<Vec<_>>(),
        "failover": findings.failover.iter().map(|(system, rounds)| {
            (system.name(), rounds.iter().map(round).collect::<Vec<_>>())
        }).collect::<Object<_>>().0,
    })
}

/// Collects names and values.
struct Object<T>(Value, std::marker::PhantomData<T>);

impl<T: Into<Value>> FromIterator<(&'static str, T)> for Object<T> {
    fn from_iter<I: IntoIterator<Item = (&'static str, T)>>(pairs: I) -> Object<T> {
        let pairs = pairs.into_iter().map(|(name, value)| (name.to_owned(), value.into()));
        Object(Value::Object(pairs.collect::<Map<_, _>>()), std::marker::PhantomData)
    }
}

fn of_row(row: &Row, found: &Found<Measured>) -> Value {
    let of_system = |system| of(found, system).map(measured);
    json!({
        "name": row.name(),
        "load": row.load.kind.name(),
        "clients": row.load.clients,
        "rate": row.load.rate,
        "target": format!("{:?}", row.target).to_lowercase(),
        "systems": systems(found, measured),
        "raft_kv_by_etcd": ratios(of_system(System::RaftKv), of_system(System::Etcd)),
    })
}

/// Ours by theirs, of every number that both have.
fn ratios(ours: Option<Value>, theirs: Option<Value>) -> Value {
    let (Some(Value::Object(ours)), Some(theirs)) = (ours, theirs) else { return Value::Null };
    let ratio = |(name, ours): (String, Value)| {
        let ratio = ours.as_f64()? / theirs[&name].as_f64()?;
        ratio.is_finite().then(|| (name, ratio.into()))
    };
    Value::Object(ours.into_iter().filter_map(ratio).collect())
}

fn systems<T>(found: &Found<T>, show: fn(&T) -> Value) -> Value {
    let shown = found.iter().map(|(system, one): &(System, _)| {
        (system.name(), one.as_ref().map_or_else(|why| json!({ "failed": why }), show))
    });
    shown.collect::<Object<_>>().0
}

fn measured(one: &Measured) -> Value {
    let (answer, cost) = (&one.answer, &one.cost);
    let device = cost.device;
    json!({
        "requests": answer.requests,
        "seconds": answer.seconds,
        "requests_per_second": answer.per_second,
        "p50_us": answer.latency[0],
        "p99_us": answer.latency[1],
        "p99_9_us": answer.latency[2],
        "errors": answer.errors,
        "cpu_us_per_request": one.cpu_micros_each(),
        "switches_per_request": one.each(cost.switches),
        "device_flushes_per_request": device.map(|device| one.each(device.flushes as f64)),
        "device_writes_per_request": device.map(|device| one.each(device.writes as f64)),
        "device_bytes_per_request": device.map(|device| one.each(device.bytes_written as f64)),
        "own_syncs_per_request": one.own_syncs.map(|syncs| one.each(syncs)),
        "resident_bytes_per_member": cost.resident_bytes,
        "load_cpu_us_per_request": answer.own_cpu,
        "foreign_cores": cost.foreign_cores,
        "stolen_cores": cost.stolen_cores,
        "idle_cores_beside": cost.beside_cores,
        "noisy": one.is_noisy(),
    })
}

fn at_keys(one: &AtKeys) -> Value {
    let loads = one.loads.iter().map(|(kind, found)| (kind.name(), measured(found)));
    json!({ "bytes_per_key": one.bytes_per_key, "loads": loads.collect::<Object<_>>().0 })
}

fn syncs(syncs: &Syncs) -> Value {
    json!({
        "writers": syncs.writers,
        "syncs_per_second": syncs.per_second,
        "p50_us": syncs.p50,
        "p99_us": syncs.p99,
        "noisy": syncs.is_noisy,
    })
}

fn commits(commits: &Commits) -> Value {
    json!({
        "in_flight": commits.in_flight,
        "commits_per_second": commits.per_second,
        "p50_us": commits.p50,
        "p99_us": commits.p99,
        "cpu_us_per_record": commits.cpu_micros_each,
        "foreign_cores": commits.cost.foreign_cores,
        "noisy": commits.is_noisy(),
    })
}

fn round(round: &Round) -> Value {
    json!({
        "seconds": round.seconds,
        "sent": round.sent,
        "refused": round.refused,
        "unanswered": round.unanswered,
    })
}
