//! The table on the terminal, line by line while it goes.

use crate::cluster::System;
use crate::compare::noise;
use crate::figures::{bytes, count, micros, ratio, round as rounded, short};
use crate::findings::{AtKeys, Findings, Found, Round, of};
use crate::machine::Machine;
use crate::row::{Measured, Row};

pub fn note(line: &str) {
    println!("  {line}");
}

pub fn machine(machine: &Machine) {
    for (name, value) in &machine.0 {
        println!("{name:<9}{value}");
    }
}

pub fn limits(findings: &Findings) {
    println!("\nlimits");
    for syncs in &findings.syncs {
        let what = format!("sync of 4 KiB, {} at once", syncs.writers);
        limit(&what, syncs.per_second, [syncs.p50, syncs.p99], None, syncs.is_noisy);
    }
    for commits in &findings.commits {
        let what = format!("bare log, {} in flight", commits.in_flight);
        let (times, cpu) = ([commits.p50, commits.p99], Some(commits.cpu_micros_each));
        limit(&what, commits.per_second, times, cpu, commits.is_noisy());
    }
}

fn limit(what: &str, per_second: f64, times: [u64; 2], cpu: Option<f64>, is_noisy: bool) {
    let [p50, p99] = times.map(|time| micros(time as f64));
    let rate = count(per_second) + "/s";
    let cpu = cpu.map_or(String::new(), |cpu| format!("  CPU {} µs", short(cpu)));
    let noise = if is_noisy { "  noisy" } else { "" };
    println!("  {what:<25}{rate:>12}  p50 {p50:>8}  p99 {p99:>8}{cpu}{noise}");
}

pub fn idle(findings: &Findings) {
    let each =
        findings.idle.iter().map(|(system, cores)| format!("{} {}", system.name(), short(*cores)));
    println!("\nidle members use cores: {}", each.collect::<Vec<_>>().join(", "));
}

pub fn rows_heading() {
    println!("\nraft-kv, etcd and their ratio; CPU of all servers for each request");
    println!("{:<15}{:>26}{:>29}{:>29}{:>25}", "", "requests/s", "p50", "p99", "CPU µs");
}

pub fn row(row: &Row, found: &Found<Measured>) {
    println!("{}", row_line(&row.name(), found));
}

fn row_line(name: &str, found: &Found<Measured>) -> String {
    let both = of(found, System::RaftKv).zip(of(found, System::Etcd));
    let mut line = format!("{name:<15}");
    match both {
        None => line += "  –",
        Some((ours, theirs)) => {
            let mut pair =
                |width: usize, of: &dyn Fn(&Measured) -> f64, show: fn(f64) -> String| {
                    let (ours, theirs) = (of(ours), of(theirs));
                    line += &format!(
                        "{:>width$}{:>width$}{:>8} ",
                        show(ours),
                        show(theirs),
                        ratio(ours, theirs)
                    );
                };
            pair(9, &|one| one.answer.per_second, count);
            pair(10, &|one| one.answer.latency[0] as f64, micros);
            pair(10, &|one| one.answer.latency[1] as f64, micros);
            pair(8, &|one| one.cpu_micros_each(), short);
        }
    }
    line + &remarks(found)
}

/// The empty server, noise, errors and failures, where there are any.
fn remarks(found: &Found<Measured>) -> String {
    let mut text = String::new();
    if let Some((ours, empty)) = of(found, System::RaftKv).zip(of(found, System::Empty)) {
        let rate = empty.answer.per_second;
        text += &format!("  empty {}/s ({})", count(rate), ratio(ours.answer.per_second, rate));
    }
    if let Some(cores) = noise(found) {
        text += &format!("  noisy ({} cores)", short(cores));
    }
    for (system, one) in found {
        match one {
            Err(why) => text += &format!("  {}: {why}", system.name()),
            Ok(one) if one.answer.errors() > 0 => {
                text +=
                    &format!("  {}: {} errors", system.name(), count(one.answer.errors() as f64));
            }
            Ok(_) => {}
        }
    }
    text
}

pub fn value(value_bytes: u32, found: &Found<Measured>) {
    println!("{}", row_line(&format!("value {}", bytes(value_bytes.into())), found));
}

pub fn keys(keys: u64, found: &Found<AtKeys>) {
    println!("\nwith {} keys", rounded(keys));
    for (system, at_keys) in found {
        match at_keys {
            Err(why) => println!("  {:<9}{why}", system.name()),
            Ok(at_keys) => {
                let costs = at_keys.loads.iter().map(|(kind, one)| {
                    let noise = if one.is_noisy() { " (noisy)" } else { "" };
                    format!("{} {} µs{noise}", kind.name(), short(one.cpu_micros_each()))
                });
                let per_key = short(at_keys.bytes_per_key);
                let costs = costs.collect::<Vec<_>>().join(", ");
                println!("  {:<9}{per_key} bytes a key; CPU of {costs}", system.name());
            }
        }
    }
}

pub fn failover(found: &[(System, Vec<Round>)]) {
    println!("\nfrom SIGKILL of the leader to the next acknowledged write");
    for (system, rounds) in found {
        let at = |quantile| micros(quantile_of(rounds, quantile) * 1e6);
        let unanswered: u64 = rounds.iter().map(|round| round.unanswered).sum();
        let refused: u64 = rounds.iter().map(|round| round.refused).sum();
        println!(
            "  {:<9}{} rounds: median {}, longest {}; {} refused and {} unanswered in 5 s",
            system.name(),
            rounds.len(),
            at(0.5),
            at(1.0),
            count(refused as f64),
            count(unanswered as f64),
        );
    }
}

/// The time at this place among all of them in order.
pub fn quantile_of(rounds: &[Round], quantile: f64) -> f64 {
    let mut seconds: Vec<f64> = rounds.iter().map(|round| round.seconds).collect();
    seconds.sort_by(f64::total_cmp);
    let last = seconds.len().saturating_sub(1);
    seconds.get((last as f64 * quantile).round() as usize).copied().unwrap_or(0.0)
}
