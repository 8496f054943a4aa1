//! Many runs, on all cores.

use crate::fault::Tally;
use crate::marks::Marks;
use crate::run::{Failure, Report, run};
use crate::weather::{Micros, Narrowing};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// One in so many seeds is run twice: both runs must be the same.
const TWICE_ONE_IN: u64 = 50;

/// Which seeds to run, and how long.
pub struct Plan {
    /// The n-th seed.
    pub seed: Box<dyn Fn(u64) -> u64 + Send + Sync>,
    /// No more runs than this.
    pub runs: u64,
    /// No new run after this time.
    pub time: Duration,
    /// Threads.
    pub threads: usize,
    /// What is left out of all of them.
    pub narrowing: Narrowing,
}

/// What many runs were.
#[derive(Clone, Debug, Default)]
pub struct Harvest {
    /// How many there were.
    pub runs: u64,
    /// How many of them were run a second time, and were the same.
    pub repeated: u64,
    /// Simulated time.
    pub simulated: Micros,
    /// Events.
    pub steps: u64,
    /// Operations that clients began.
    pub operations: u64,
    /// Processes that died.
    pub deaths: u64,
    /// Faults by kind.
    pub faults: Tally,
    /// In how many runs each mark was reached.
    pub marks: Marks,
}

/// A run that broke a rule, and how many runs there had been.
pub struct Find {
    /// The seed.
    pub seed: u64,
    /// Runs, this one included.
    pub after: u64,
    /// What was found.
    pub failure: Box<Failure>,
}

struct Shared<'a> {
    plan: &'a Plan,
    next: AtomicU64,
    stop: AtomicBool,
    start: Instant,
    /// Taken after each run, for a moment.
    harvest: Mutex<(Harvest, Option<Find>)>,
}

/// Runs until the plan is done or a rule is broken. `progress` hears of it about once in five
/// seconds.
pub fn farm(plan: &Plan, progress: impl Fn(&Harvest, Duration)) -> (Harvest, Option<Find>) {
    let shared = Shared {
        plan,
        next: AtomicU64::new(0),
        stop: AtomicBool::new(false),
        start: Instant::now(),
        harvest: Mutex::default(),
    };
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..plan.threads).map(|_| scope.spawn(|| work(&shared))).collect();
        let mut next = Duration::from_secs(5);
        while workers.iter().any(|worker| !worker.is_finished()) {
            std::thread::sleep(Duration::from_millis(20));
            if shared.start.elapsed() > next {
                next += Duration::from_secs(5);
                progress(&shared.lock().0, shared.start.elapsed());
            }
        }
    });
    shared.harvest.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner)
}

impl Shared<'_> {
    fn lock(&self) -> std::sync::MutexGuard<'_, (Harvest, Option<Find>)> {
        self.harvest.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

fn work(shared: &Shared<'_>) {
    while !shared.stop.load(Ordering::Relaxed) && shared.start.elapsed() < shared.plan.time {
        let number = shared.next.fetch_add(1, Ordering::Relaxed);
        if number >= shared.plan.runs {
            return;
        }
        let seed = (shared.plan.seed)(number);
        let twice = number % TWICE_ONE_IN == TWICE_ONE_IN - 1;
        let result = run_checked(seed, &shared.plan.narrowing, twice);
        let (harvest, find) = &mut *shared.lock();
        harvest.runs += 1;
        match result {
            Ok(report) => harvest.add(&report, twice),
            Err(failure) => {
                shared.stop.store(true, Ordering::Relaxed);
                let after = harvest.runs;
                find.get_or_insert(Find { seed, after, failure });
            }
        }
    }
}

/// Runs a seed, and a second time if the two are to be compared.
fn run_checked(seed: u64, narrowing: &Narrowing, twice: bool) -> Result<Report, Box<Failure>> {
    let report = run(seed, narrowing, false)?;
    if twice {
        let again = run(seed, narrowing, false)?;
        if again.digest != report.digest {
            return Err(Box::new(Failure {
                step: again.steps,
                at: again.simulated,
                what: format!(
                    "the same seed gave two runs: {} and {}",
                    report.digest.0, again.digest.0
                ),
                place: String::new(),
                trace: Vec::new(),
            }));
        }
    }
    Ok(report)
}

impl Harvest {
    fn add(&mut self, report: &Report, repeated: bool) {
        self.repeated += u64::from(repeated);
        self.simulated += report.simulated;
        self.steps += report.steps;
        self.operations += report.operations;
        self.deaths += report.deaths;
        self.faults.add(&report.faults);
        self.marks.add_run(&report.marks);
    }
}
