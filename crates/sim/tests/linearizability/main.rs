//! The checker of histories: named histories by hand, random ones that a model made, the same with
//! an answer tampered with, and a second checker that tries every order.
//!
//! | variable | what |
//! |---|---|
//! | `SEED` | repeats a random test |
//! | `HISTORIES` | how many random histories, 300 |
#![allow(clippy::unwrap_used)] // helpers of tests are tests

mod cases;
mod every_order;
mod generate;
mod random;
mod tamper;

use std::time::{Duration, Instant};

use generate::Shape;
use random::Random;
use sim::check::linearizability::{Operation, check, check_with};
use tamper::Tampering;

fn from_env(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().expect("a number"))
}

/// The seed of this run: `SEED`, or a fresh one.
fn seed(test: &str) -> u64 {
    let fresh = std::time::UNIX_EPOCH.elapsed().expect("it is after 1970").subsec_nanos();
    let seed = from_env("SEED", u64::from(fresh));
    println!("{test}: SEED={seed}");
    seed
}

fn histories() -> u64 {
    from_env("HISTORIES", 300)
}

fn listed(history: &[Operation]) -> String {
    history.iter().map(|operation| format!("  {operation}\n")).collect()
}

#[test]
fn what_a_model_did_passes() {
    let mut random = Random::new(seed("what_a_model_did_passes"));
    let (mut unknown, mut filled, mut undecided) = (0, 0, 0);
    for n in 0..histories() {
        let seed = random.next();
        let shape = Shape::any(&mut Random::new(seed));
        let history = generate::history(seed, &shape);
        let context = |why| panic!("history {n} with seed {seed}, {shape:?}: {why}");
        match check(&history) {
            Ok(report) => (unknown, filled) = (unknown + report.unknown, filled + report.filled),
            Err(why) if why.is_undecided() => undecided += 1,
            Err(why) => context(why),
        }
        // Who saw what made the gaps is never left in doubt.
        if let Err(why) = check_with(&history, &generate::makers(seed, &shape)) {
            context(why);
        }
    }
    println!("{unknown} operations of unknown fate, {filled} of them needed");
    println!("{undecided} histories were too hard without help");
    assert!(filled > 0, "nothing of unknown fate ever mattered");
    assert!(undecided * 100 <= histories(), "hardly any is too hard");
}

/// The one test that can find a history wrongly refused and one wrongly passed alike.
#[test]
fn the_verdict_is_that_of_trying_every_order() {
    let mut random = Random::new(seed("the_verdict_is_that_of_trying_every_order"));
    let (mut good, mut bad) = (0, 0);
    for n in 0..histories() * 100 {
        let seed = random.next();
        let mut random = Random::new(seed);
        let shape = Shape::tiny(&mut random);
        let mut history = generate::history(seed, &shape);
        for _ in 0..random.below(3) {
            tamper::anyhow(&mut history, &mut random);
        }
        let expected = every_order::exists(&history);
        let found = check(&history);
        if expected != found.is_ok() {
            let said = found.map_or_else(|why| why.to_string(), |_| "an order exists".into());
            panic!("history {n}, seed {seed}: expected {expected}; {said}\n{}", listed(&history));
        }
        if expected { good += 1 } else { bad += 1 }
    }
    println!("{good} linearizable, {bad} not");
    assert!(good > 0 && bad > 0, "both verdicts came up");
}

#[test]
fn tampered_answers_are_caught() {
    let mut random = Random::new(seed("tampered_answers_are_caught"));
    let mut tally = [(0, 0); Tampering::ALL.len()];
    let mut slowest = Duration::ZERO;
    let mut undecided = 0;
    for n in 0..histories() / 5 {
        let seed = random.next();
        let shape = Shape::any(&mut Random::new(seed));
        let whole = generate::history(seed, &shape);
        for (tampering, (done, caught)) in Tampering::ALL.iter().zip(&mut tally) {
            let mut history = whole.clone();
            let Some(at) = tampering.apply(&mut history, &mut random) else { continue };
            *done += 1;
            let start = Instant::now();
            let result = check(&history);
            slowest = slowest.max(start.elapsed());
            let why = format!("history {n} with seed {seed}, {tampering:?}, {}", history[at]);
            match result {
                Err(violation) if violation.is_undecided() => undecided += 1,
                Err(_) => *caught += 1,
                Ok(_) => assert!(!tampering.is_certain(), "{why}: not caught"),
            }
        }
    }
    for (tampering, (done, caught)) in Tampering::ALL.iter().zip(tally) {
        println!("{tampering:?}: {caught} of {done} caught");
        assert!(caught > 0, "{tampering:?} is never caught");
    }
    let total = tally.iter().fold((0, 0), |sum, next| (sum.0 + next.0, sum.1 + next.1));
    println!("{undecided} undecided");
    println!("tampered answers: {} of {} caught; slowest {slowest:?}", total.1, total.0);
}

#[test]
fn long_histories_are_quick() {
    let seed = seed("long_histories_are_quick");
    for (clients, operations, runs) in
        [(8, 500, 20), (16, 500, 20), (8, 10_000, 1), (16, 10_000, 1)]
    {
        let shape = Shape { clients, operations, ..Shape::usual() };
        let made: Vec<_> = (0..runs).map(|n| generate::history(seed + n, &shape)).collect();
        let start = Instant::now();
        let reports: Vec<_> = made.iter().map(|history| check(history).unwrap()).collect();
        let took = start.elapsed() / runs as u32;
        println!("{clients} clients: {took:?} a history; {:?}", reports[0]);
        assert!(took < Duration::from_secs(60), "{took:?}");
    }
}
