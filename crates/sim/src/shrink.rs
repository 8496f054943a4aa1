//! Makes a failing run smaller: fewer kinds of faults, fewer clients, a shorter storm.

use crate::run::{Failure, run};
use crate::weather::{Narrowing, SECOND, Weather};

/// Leaves out whatever a failure does not need. `say` hears of each step. `None` if the run does not
/// fail.
pub fn shrink(
    seed: u64,
    narrowing: &Narrowing,
    say: impl Fn(&Narrowing, &Failure),
) -> Option<(Narrowing, Box<Failure>)> {
    let failure = run(seed, narrowing, false).err()?;
    let mut best = (narrowing.clone(), failure);
    loop {
        let smaller = candidates(seed, &best.0, best.1.at).into_iter().find_map(|narrowing| {
            let failure = run(seed, &narrowing, false).err()?;
            Some((narrowing, failure))
        });
        match smaller {
            Some(smaller) => best = smaller,
            None => return Some(best),
        }
        say(&best.0, &best.1);
    }
}

/// Everything that is a little smaller, boldest first.
fn candidates(seed: u64, narrowing: &Narrowing, failed_at: u64) -> Vec<Narrowing> {
    let weather = Weather::of(seed, narrowing);
    let mut smaller = Vec::new();
    for storm in [failed_at, weather.storm / 2, weather.storm * 9 / 10] {
        if storm < weather.storm && storm > SECOND / 100 {
            smaller.push(Narrowing { storm: Some(storm), ..narrowing.clone() });
        }
    }
    for fault in weather.faults() {
        let mut without = narrowing.without.clone();
        without.insert(fault);
        smaller.push(Narrowing { without, ..narrowing.clone() });
    }
    let clients = weather.load.clients;
    for fewer in [1, clients / 2, clients.saturating_sub(1)] {
        if fewer > 0 && fewer < clients {
            smaller.push(Narrowing { clients: Some(fewer), ..narrowing.clone() });
        }
    }
    smaller
}
