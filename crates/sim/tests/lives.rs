//! A few lives of clusters, as a test; `cargo run --release -p sim -- --minutes 4` runs many more.
//!
//! `SIM_RUNS=1000 cargo test -p sim --test lives` runs more of them here, `SIM_SEED=7` the one.

#![allow(clippy::unwrap_used, reason = "a test that is wrong may die")]

use sim::{Failure, Narrowing, Report};

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().expect("a number"))
}

fn live(seed: u64) -> Report {
    sim::run(seed, &Narrowing::default(), false)
        .unwrap_or_else(|failure| panic!("{}", told(seed, &failure)))
}

fn told(seed: u64, failure: &Failure) -> String {
    format!(
        "seed {seed}, step {}: {}\nrepeat: cargo run --release -p sim -- --seed {seed}",
        failure.step, failure.what
    )
}

#[test]
fn lives_of_clusters_break_no_rule() {
    sim::catch_panics();
    let seeds = match number("SIM_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("SIM_RUNS").unwrap_or(250),
    };
    let (mut operations, mut deaths) = (0, 0);
    for seed in seeds.clone() {
        let report = live(seed);
        operations += report.operations;
        deaths += report.deaths;
    }
    println!("seeds {seeds:?}: {operations} operations, {deaths} deaths");
    assert!(operations > 0, "something was done");
}

#[test]
fn seeds_that_failed_once_do_not_fail_again() {
    sim::catch_panics();
    for kept in sim::kept_seeds() {
        live(kept.seed);
    }
}

#[test]
fn a_seed_is_the_same_run_every_time_byte_for_byte() {
    for seed in [3, 4, 5] {
        let traced = || sim::run(seed, &Narrowing::default(), true).unwrap();
        let (first, second) = (traced(), traced());
        assert!(first.trace == second.trace, "seed {seed} gives two traces");
        let silent = live(seed);
        assert_eq!(first.digest, silent.digest, "seed {seed}: who looks on changes nothing");
        assert!(!first.trace.is_empty());
    }
    assert_ne!(live(3).digest, live(4).digest);
}

#[test]
fn what_is_left_out_does_not_happen() {
    let seed = (0..).find(|seed| live(*seed).deaths > 5).unwrap();
    let all: Vec<sim::Fault> = sim::Fault::ALL.iter().map(|(fault, _)| *fault).collect();
    let calm = Narrowing { without: all.iter().copied().collect(), ..Narrowing::default() };
    let report = sim::run(seed, &calm, false).unwrap();
    let happened = all.into_iter().find(|fault| report.faults.of(*fault) > 0);
    assert_eq!(happened, None, "seed {seed} without faults");
    let short = Narrowing { storm: Some(100_000), clients: Some(1), ..Narrowing::default() };
    let report = sim::run(seed, &short, false).unwrap();
    assert!(report.operations < live(seed).operations);
}
