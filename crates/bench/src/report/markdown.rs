//! The tables, for documents.

use super::plots;
use super::text::quantile_of;
use crate::cluster::System;
use crate::compare::{BOTH, noise};
use crate::figures::{bytes, count, micros, ratio, round as rounded, short};
use crate::findings::{Findings, Found, Round, of};
use crate::load::Kind;
use crate::row::{Measured, Row, Target};

/// With fewer keys than this, buffers weigh more than keys.
const MEMORY_KEYS_MIN: u64 = 100_000;

/// A figure of a measurement, and how it is shown.
type Column = (&'static str, fn(&Measured) -> Option<f64>, fn(f64) -> String);

/// Everything, with plots that lie in `folder` (empty, or ending with a slash).
pub fn findings(findings: &Findings, folder: &str) -> String {
    let mut text = String::new();
    if let Some(why) = &findings.incomplete {
        text += &format!("**Incomplete: it ended early ({why}).**\n\n");
    }
    let extent = if findings.full { "full" } else { "quick" };
    text += &format!("A {extent} run.\n\n");
    let machine = findings.machine.0.iter();
    let machine = machine.map(|(name, value)| vec![(*name).to_owned(), value.clone()]);
    text += &table(&["", ""], machine);
    if !findings.idle.is_empty() {
        let each = findings
            .idle
            .iter()
            .map(|(system, cores)| format!("{} of {}", short(*cores), system.name()));
        let each = each.collect::<Vec<_>>().join(", ");
        text += &format!("\nThree idle members use, in cores: {each}.\n");
    }
    text += &rows(findings, folder);
    text += &against_limits(findings);
    text += &values(findings, folder);
    text += &keys(findings, folder);
    text + &failover(findings, folder)
}

fn table(heading: &[&str], rows: impl Iterator<Item = Vec<String>>) -> String {
    let line = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
    let heading: Vec<String> = heading.iter().map(|name| (*name).to_owned()).collect();
    let mut text = line(&heading);
    text += &format!("|{}\n", "---|".repeat(heading.len()));
    rows.for_each(|row| text += &line(&row));
    text
}

/// Those charts of this list that there are.
fn charts(findings: &Findings, folder: &str, names: &[&str]) -> String {
    let all = plots::all(findings);
    let there = names.iter().filter(|name| all.iter().any(|(other, _)| other == *name));
    there.map(|name| format!("\n![{}]({folder}{name})\n", name.trim_end_matches(".svg"))).collect()
}

/// Ours, theirs, and the ratio.
fn triple(found: &Found<Measured>, (_, figure, show): Column) -> String {
    let at = |system| of(found, system).and_then(figure);
    let shown = |value: Option<f64>| value.map_or_else(|| "–".to_owned(), show);
    let (ours, theirs) = (at(System::RaftKv), at(System::Etcd));
    let ratio = ours.zip(theirs).map_or("–".to_owned(), |(ours, theirs)| ratio(ours, theirs));
    format!("{} · {} · **{ratio}**", shown(ours), shown(theirs))
}

const SPEED: [Column; 5] = [
    ("requests/s", |one| Some(one.answer.per_second), count),
    ("p50", |one| Some(one.answer.latency[0] as f64), micros),
    ("p99", |one| Some(one.answer.latency[1] as f64), micros),
    ("p99.9", |one| Some(one.answer.latency[2] as f64), micros),
    ("CPU µs", |one| Some(one.cpu_micros_each()), short),
];

const COST: [Column; 6] = [
    ("context switches", |one| Some(one.each(one.cost.switches)), short),
    ("disk flushes", |one| Some(one.each(one.cost.device?.flushes as f64)), short),
    ("disk writes", |one| Some(one.each(one.cost.device?.writes as f64)), short),
    ("bytes written", |one| Some(one.each(one.cost.device?.bytes_written as f64)), count),
    ("memory of a member", |one| Some(one.cost.resident_bytes), bytes),
    ("load's CPU µs", |one| one.answer.own_cpu, short),
];

fn rows(findings: &Findings, folder: &str) -> String {
    let mut text = String::new();
    for kind in Kind::ALL {
        let of_kind: Vec<_> =
            findings.rows.iter().filter(|(row, _)| row.load.kind == kind).collect();
        if of_kind.is_empty() {
            continue;
        }
        text += &format!("\n### {}\n\n", kind.title());
        let mut heading = vec!["clients"];
        heading.extend(SPEED.iter().map(|(name, ..)| *name));
        heading.push("remarks");
        text += &table(
            &heading,
            of_kind.iter().map(|(row, found)| {
                let mut cells = vec![label(row)];
                cells.extend(SPEED.map(|column| triple(found, column)));
                cells.push(remarks(found));
                cells
            }),
        );
        let mut done = of_kind.iter().filter(|(_, found)| found.iter().any(|(_, one)| one.is_ok()));
        if done.next().is_none() {
            continue;
        }
        text += "\nFor each request:\n\n";
        let mut heading = vec!["clients"];
        heading.extend(COST.iter().map(|(name, ..)| *name));
        heading.extend(["etcd's own syncs", "foreign cores"]);
        text += &table(
            &heading,
            of_kind.iter().map(|(row, found)| {
                let mut cells = vec![label(row)];
                cells.extend(COST.map(|column| triple(found, column)));
                cells.extend([own_syncs(found), foreign_cores(found)]);
                cells
            }),
        );
        text += &charts(findings, folder, &[chart_of(kind)]);
    }
    text
}

fn chart_of(kind: Kind) -> &'static str {
    match kind {
        Kind::Put => "puts.svg",
        Kind::Get => "gets.svg",
        Kind::SerializableGet => "serializable-gets.svg",
        Kind::Range => "ranges.svg",
        Kind::Count => "counts.svg",
        Kind::Txn => "transactions.svg",
        Kind::Mixed => "mixed.svg",
    }
}

fn label(row: &Row) -> String {
    match (row.load.rate, row.target) {
        (Some(rate), _) => format!("{}/s, whatever the answers do", count(f64::from(rate))),
        (None, Target::Leader) => format!("{}, all at the leader", row.load.clients),
        (None, Target::Spread) => row.load.clients.to_string(),
    }
}

fn remarks(found: &Found<Measured>) -> String {
    let mut remarks = Vec::new();
    if let Some(cores) = noise(found) {
        remarks.push(format!("**noisy** ({} cores)", short(cores)));
    }
    for (system, one) in found {
        match one {
            Err(why) => remarks.push(format!("{}: {}", system.name(), why.replace('|', "\\|"))),
            Ok(one) if one.answer.errors() > 0 => {
                let (count, text) = (one.answer.errors(), one.answer.errors.keys().next());
                let text = text.map_or("", String::as_str).replace('|', "\\|");
                remarks.push(format!("{}: {count} errors ({text})", system.name()));
            }
            Ok(_) => {}
        }
    }
    remarks.join("; ")
}

fn own_syncs(found: &Found<Measured>) -> String {
    let etcd = of(found, System::Etcd).and_then(|one| Some(one.each(one.own_syncs?)));
    etcd.map_or_else(|| "–".to_owned(), short)
}

fn foreign_cores(found: &Found<Measured>) -> String {
    let cores = found.iter().map(|(_, one)| match one {
        Ok(one) => short(one.cost.foreign_cores + one.cost.stolen_cores),
        Err(_) => "–".to_owned(),
    });
    cores.collect::<Vec<_>>().join(" · ")
}

fn against_limits(findings: &Findings) -> String {
    let mut text = String::new();
    if !findings.syncs.is_empty() {
        text += "\n### Limits of the machine\n\n";
        let syncs = findings.syncs.iter().map(|syncs| {
            let (p50, p99) = (micros(syncs.p50 as f64), micros(syncs.p99 as f64));
            let noise = if syncs.is_noisy { ", **noisy**" } else { "" };
            let what = format!("overwrite of 4 KiB and sync, {} at once{noise}", syncs.writers);
            vec![what, count(syncs.per_second), p50, p99, "–".to_owned()]
        });
        let commits = findings.commits.iter().map(|commits| {
            let (p50, p99) = (micros(commits.p50 as f64), micros(commits.p99 as f64));
            let noise = if commits.is_noisy() { ", **noisy**" } else { "" };
            let what = format!("bare log, {} in flight{noise}", commits.in_flight);
            vec![what, count(commits.per_second), p50, p99, short(commits.cpu_micros_each)]
        });
        text += &table(&["", "per second", "p50", "p99", "CPU µs each"], syncs.chain(commits));
    }
    let limits = findings.rows.iter().filter(|(_, found)| of(found, System::Empty).is_some());
    let limits: Vec<_> = limits.map(|(row, found)| against_empty(row, found)).collect();
    if !limits.is_empty() {
        text +=
            "\nAgainst three servers of the same library that do nothing, under the same load:\n\n";
        let heading =
            ["load", "empty requests/s", "raft-kv ÷ empty", "etcd ÷ empty", "empty CPU µs"];
        text += &table(&heading, limits.into_iter());
    }
    let alone = findings.commits.iter().find(|commits| commits.in_flight == 1);
    for system in BOTH {
        if let (Some(put), Some(alone)) = (findings.row("put-1", system), alone) {
            let put = put.answer.latency[0] as f64;
            let (name, by) = (system.name(), ratio(put, alone.p50 as f64));
            text += &format!(
                "\nA put of one client takes {name} {by} of what the bare log takes (medians).\n"
            );
        }
    }
    text
}

fn against_empty(row: &Row, found: &Found<Measured>) -> Vec<String> {
    let rate = |system| of(found, system).map_or(0.0, |one| one.answer.per_second);
    let empty = rate(System::Empty);
    let by = |system| ratio(rate(system), empty);
    let cpu = of(found, System::Empty).map_or(0.0, Measured::cpu_micros_each);
    let (ours, theirs) = (by(System::RaftKv), by(System::Etcd));
    vec![row.name(), count(empty), ours, theirs, short(cpu)]
}

fn values(findings: &Findings, folder: &str) -> String {
    if findings.values.is_empty() {
        return String::new();
    }
    let rows = findings.values.iter().map(|(size, found)| {
        let size = f64::from(*size);
        let rate = |system| of(found, system).map_or(0.0, |one| one.answer.per_second * size / 1e6);
        let (ours, theirs) = (rate(System::RaftKv), rate(System::Etcd));
        let rate = format!("{} · {} · **{}**", short(ours), short(theirs), ratio(ours, theirs));
        let mut cells = vec![bytes(size), rate];
        cells.extend([SPEED[4], SPEED[2], COST[3]].map(|column| triple(found, column)));
        cells.push(remarks(found));
        cells
    });
    let heading = ["value", "MB/s", "CPU µs of a put", "p99", "bytes written", "remarks"];
    let text = format!("\n### As values grow\n\nPuts of 16 clients.\n\n{}", table(&heading, rows));
    text + &charts(findings, folder, &["values.svg"])
}

fn keys(findings: &Findings, folder: &str) -> String {
    if findings.keys.is_empty() {
        return String::new();
    }
    let kinds = [Kind::Get, Kind::Put, Kind::Range, Kind::Count];
    let rows = findings.keys.iter().map(|(keys, found)| {
        let per_key = |system| of(found, system).map(|at_keys| at_keys.bytes_per_key);
        let memory = per_key(System::RaftKv).zip(per_key(System::Etcd));
        let mut cells = vec![rounded(*keys)];
        cells.push(match memory.filter(|_| *keys >= MEMORY_KEYS_MIN) {
            Some((ours, theirs)) => {
                format!("{} · {} · **{}**", count(ours), count(theirs), ratio(ours, theirs))
            }
            None => "–".to_owned(),
        });
        cells.extend(kinds.map(|kind| triple(&at(found, kind), SPEED[4])));
        cells.push(
            kinds.map(|kind| remarks(&at(found, kind))).into_iter().max().unwrap_or_default(),
        );
        cells
    });
    let mut heading = vec!["keys", "memory of a member, bytes a key"];
    heading.extend([
        "get, CPU µs",
        "put, CPU µs",
        "range of 100, CPU µs",
        "count, CPU µs",
        "remarks",
    ]);
    let text = format!(
        "\n### As keys get many\n\nKeys of 8 bytes with values of 256, written in order. Memory is \
         what a member has resident beyond an empty one. Gets and puts of 16 clients, ranges and \
         counts of 4.\n\n{}",
        table(&heading, rows)
    );
    text + &charts(findings, folder, &["keys.svg"])
}

/// One load out of those that were measured with so many keys.
fn at(found: &Found<crate::findings::AtKeys>, kind: Kind) -> Found<Measured> {
    let of_kind = found.iter().filter_map(|(system, one)| match one {
        Err(why) => Some((*system, Err(why.clone()))),
        Ok(one) => {
            let (_, measured) = one.loads.iter().find(|(other, _)| *other == kind)?;
            Some((*system, Ok(measured.clone())))
        }
    });
    of_kind.collect()
}

fn failover(findings: &Findings, folder: &str) -> String {
    if findings.failover.iter().all(|(_, rounds)| rounds.is_empty()) {
        return String::new();
    }
    let rows = findings.failover.iter().map(|(system, rounds)| {
        let at = |quantile| micros(quantile_of(rounds, quantile) * 1e6);
        let sum = |of: fn(&Round) -> u64| count(rounds.iter().map(of).sum::<u64>() as f64);
        let mut cells = vec![system.name().to_owned(), rounds.len().to_string()];
        cells.extend([at(0.0), at(0.5), at(0.9), at(1.0)]);
        cells.extend([sum(|one| one.sent), sum(|one| one.refused), sum(|one| one.unanswered)]);
        cells
    });
    let heading = [
        "",
        "rounds",
        "shortest",
        "median",
        "p90",
        "longest",
        "puts sent",
        "refused",
        "no answer in 5 s",
    ];
    let text = format!(
        "\n### The death of a leader\n\nFrom SIGKILL to the first acknowledgement of a put that was \
         sent after it; a put a millisecond at the members that survive.\n\n{}",
        table(&heading, rows)
    );
    text + &charts(findings, folder, &["failover.svg"])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::{Answer, Load};
    use crate::machine::Machine;
    use crate::sample::Cost;

    fn measured(per_second: f64, foreign_cores: f64) -> Result<Measured, String> {
        let answer =
            Answer { requests: 100, per_second, latency: [10, 20, 30], ..Answer::default() };
        let cost = Cost { cpu_micros: 5000.0, foreign_cores, ..Cost::default() };
        Ok(Measured { answer, cost, own_syncs: None })
    }

    fn with_row(found: Found<Measured>) -> String {
        let machine = Machine(vec![("cores", "2".to_owned())]);
        let mut all = Findings::new(false, machine);
        let row = Row { load: Load::new(Kind::Put, 64), target: Target::Spread };
        all.rows.push((row, found));
        findings(&all, "plots/")
    }

    #[test]
    fn every_line_of_a_table_has_as_many_cells() {
        let text = with_row(vec![
            (System::RaftKv, measured(300.0, 0.0)),
            (System::Etcd, measured(100.0, 0.0)),
        ]);
        assert!(text.contains("300 · 100 · **3.00×**"), "{text}");
        let mut cells = None;
        for line in text.lines() {
            if !line.starts_with('|') {
                cells = None;
                continue;
            }
            let here = line.matches('|').count();
            assert_eq!(*cells.get_or_insert(here), here, "{line}");
        }
    }

    #[test]
    fn noise_and_failures_are_told() {
        let failed = Err("no a|b".to_owned());
        let text = with_row(vec![(System::RaftKv, measured(300.0, 0.4)), (System::Etcd, failed)]);
        assert!(text.contains("**noisy** (0.400 cores)"), "{text}");
        assert!(text.contains("etcd: no a\\|b"), "{text}");
    }
}
