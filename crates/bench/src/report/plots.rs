//! Which charts there are, and what is in them.

use super::plot::{Dots, Panel, Point, Series, Style, dots, panels};
use super::text::quantile_of;
use crate::cluster::System;
use crate::compare::BOTH;
use crate::figures::{brief, bytes, count, micros, short};
use crate::findings::{Findings, of};
use crate::load::Kind;
use crate::row::{Measured, Target};

fn style(system: System) -> Style {
    match system {
        System::RaftKv => Style { name: "Raft-KV", color: "#1d5fd1", dashes: "none" },
        System::Etcd => Style { name: "etcd", color: "#c4570a", dashes: "none" },
        System::Empty => Style { name: "empty server", color: "#7a828c", dashes: "5 4" },
    }
}

/// The sums of a chart, out of what was measured.
type Figure = fn(&Measured) -> f64;

/// File names and contents. What was not measured has no chart.
pub fn all(findings: &Findings) -> Vec<(String, String)> {
    let mut files = Vec::new();
    for (kind, name, title) in [
        (Kind::Put, "puts.svg", "Puts of 256 bytes"),
        (Kind::Get, "gets.svg", "Linearizable gets of 256 bytes"),
        (Kind::SerializableGet, "serializable-gets.svg", "Serializable gets of 256 bytes"),
        (Kind::Range, "ranges.svg", "Ranges of 100 keys"),
        (Kind::Count, "counts.svg", "Counts of 10,000 keys"),
        (Kind::Txn, "transactions.svg", "Transactions: compare and put"),
        (Kind::Mixed, "mixed.svg", "One put for four linearizable gets"),
    ] {
        let shown = by_clients(findings, kind);
        if shown.first().is_some_and(|panel| panel.x_ticks.len() > 1) {
            files.push((name.to_owned(), panels(title, &shown)));
        }
    }
    if findings.keys.len() > 1 {
        let title = "CPU of all servers for each request, as keys get many";
        files.push(("keys.svg".to_owned(), panels(title, &by_keys(findings))));
    }
    if findings.values.len() > 1 {
        let title = "Puts, as values grow";
        files.push(("values.svg".to_owned(), panels(title, &by_size(findings))));
    }
    if findings.failover.iter().any(|(_, rounds)| !rounds.is_empty()) {
        files.push(("failover.svg".to_owned(), failover(findings)));
    }
    files
}

fn by_clients(findings: &Findings, kind: Kind) -> Vec<Panel> {
    let rows: Vec<_> = findings
        .rows
        .iter()
        .filter(|(row, _)| row.load.kind == kind && row.load.rate.is_none())
        .filter(|(row, _)| row.target == Target::Spread)
        .map(|(row, found)| (f64::from(row.load.clients), found))
        .collect();
    let x_ticks: Vec<_> = rows.iter().map(|(clients, _)| (*clients, count(*clients))).collect();
    let panel = |title: &str, y_show, figure: Figure, systems: &[System]| Panel {
        title: title.to_owned(),
        x_label: "clients",
        x_ticks: x_ticks.clone(),
        y_show,
        series: series(systems, |system| {
            let points = rows.iter().filter_map(|(x, found)| point(*x, of(found, system)?, figure));
            points.collect()
        }),
    };
    let three = [System::RaftKv, System::Etcd, System::Empty];
    vec![
        panel("requests per second", short, |one| one.answer.per_second, &three),
        panel("CPU of all servers for each request", micros, Measured::cpu_micros_each, &three),
        panel("latency, median", micros, |one| one.answer.latency[0] as f64, &BOTH),
        panel("latency, 99 % are faster", micros, |one| one.answer.latency[1] as f64, &BOTH),
    ]
}

fn point(x: f64, measured: &Measured, figure: impl Fn(&Measured) -> f64) -> Option<Point> {
    let y = figure(measured);
    // A logarithmic axis has no place for nothing.
    (y > 0.0).then(|| Point { x, y, is_noisy: measured.is_noisy() })
}

/// Series without points are left out.
fn series(systems: &[System], points: impl Fn(System) -> Vec<Point>) -> Vec<Series> {
    let all =
        systems.iter().map(|system| Series { style: style(*system), points: points(*system) });
    all.filter(|series| !series.points.is_empty()).collect()
}

fn by_keys(findings: &Findings) -> Vec<Panel> {
    let x_ticks: Vec<_> =
        findings.keys.iter().map(|(keys, _)| (*keys as f64, brief(*keys))).collect();
    let panel = |(kind, title): (Kind, &str)| Panel {
        title: title.to_owned(),
        x_label: "keys",
        x_ticks: x_ticks.clone(),
        y_show: micros,
        series: series(&BOTH, |system| {
            let points = findings.keys.iter().filter_map(|(keys, found)| {
                let (_, one) = of(found, system)?.loads.iter().find(|(other, _)| *other == kind)?;
                point(*keys as f64, one, Measured::cpu_micros_each)
            });
            points.collect()
        }),
    };
    let titles = [
        (Kind::Get, "linearizable get"),
        (Kind::Put, "put"),
        (Kind::Range, "range with a limit of 100 keys"),
        (Kind::Count, "count"),
    ];
    titles.map(panel).into()
}

fn by_size(findings: &Findings) -> Vec<Panel> {
    let x_ticks: Vec<_> = findings
        .values
        .iter()
        .map(|(size, _)| (f64::from(*size), bytes(f64::from(*size))))
        .collect();
    let panel = |title: &str, y_show, figure: fn(f64, &Measured) -> f64| Panel {
        title: title.to_owned(),
        x_label: "bytes of a value",
        x_ticks: x_ticks.clone(),
        y_show,
        series: series(&BOTH, |system| {
            let points = findings.values.iter().filter_map(|(size, found)| {
                let size = f64::from(*size);
                point(size, of(found, system)?, |one| figure(size, one))
            });
            points.collect()
        }),
    };
    vec![
        panel("MB of values per second", short, |size, one| one.answer.per_second * size / 1e6),
        panel("CPU of all servers for each put", micros, |_, one| one.cpu_micros_each()),
    ]
}

fn failover(findings: &Findings) -> String {
    let row = |(system, rounds): &(System, Vec<_>)| Dots {
        style: style(*system),
        places: rounds.iter().map(|round: &crate::findings::Round| round.seconds).collect(),
        note: format!("median {}", micros(quantile_of(rounds, 0.5) * 1e6)),
    };
    let rows: Vec<Dots> = findings.failover.iter().map(row).collect();
    let title = "From SIGKILL of the leader to the next acknowledged write";
    dots(title, "seconds; a dot for each kill", &rows)
}
