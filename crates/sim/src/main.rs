//! `sim`: lives of whole clusters, from seeds. `docs/testing.md` says how to read what it prints.

use clap::Parser;
use sim::{Fault, Find, Harvest, Mark, Narrowing, Plan, SECOND, Weather};
use std::process::ExitCode;
use std::time::Duration;

/// Runs whole clusters in simulated time, with faults, and checks everything they do.
///
/// Without a seed the seeds are those of the commit: other ones with each commit.
#[derive(Parser)]
struct Flags {
    /// The seed of the first run; those of further runs follow it.
    #[arg(long)]
    seed: Option<u64>,
    /// How many runs [default: one, if a seed is given, or as many as fit the minutes].
    #[arg(long)]
    runs: Option<u64>,
    /// No new run after so many minutes.
    #[arg(long)]
    minutes: Option<f64>,
    /// All seeds that ever failed, each with what it failed for.
    #[arg(long, conflicts_with_all = ["seed", "runs", "minutes"])]
    kept: bool,
    /// Threads [default: all cores].
    #[arg(long)]
    threads: Option<usize>,
    /// Prints everything that happens in the run.
    #[arg(long, requires = "seed")]
    trace: bool,
    /// Looks for a smaller run that fails, too.
    #[arg(long, requires = "seed")]
    shrink: bool,
    /// Faults that do not happen, by name, separated by commas.
    #[arg(long, value_delimiter = ',')]
    without: Vec<Fault>,
    /// At most so many clients.
    #[arg(long)]
    clients: Option<u32>,
    /// The storm is over after so many simulated milliseconds.
    #[arg(long)]
    storm_ms: Option<u64>,
    /// Fails if a rare state was not reached in any run.
    #[arg(long)]
    require_marks: bool,
}

fn main() -> ExitCode {
    let flags = Flags::parse();
    let commit = commit();
    sim::catch_panics();
    match flags.seed {
        Some(seed) => println!("commit {commit} seed {seed}"),
        None => println!("commit {commit} seeds of the commit"),
    }
    let narrowing = Narrowing {
        without: flags.without.iter().copied().collect(),
        clients: flags.clients,
        storm: flags.storm_ms.map(|ms| ms * 1000),
    };
    match flags.seed {
        _ if flags.kept => kept(),
        Some(seed) if flags.shrink => shrink(seed, &narrowing),
        Some(seed) if flags.runs.unwrap_or(1) == 1 && flags.minutes.is_none() => {
            one(seed, &narrowing, flags.trace)
        }
        _ => many(&flags, narrowing, &commit),
    }
}

/// The commit this was built from, as far as the current directory tells; `+` if there are changes.
fn commit() -> String {
    let git = |arguments: &[&str]| {
        let output = std::process::Command::new("git").args(arguments).output().ok()?;
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let Some(head) = git(&["rev-parse", "--short=12", "HEAD"]) else { return "unknown".into() };
    let changed = git(&["status", "--porcelain"]).is_some_and(|changes| !changes.is_empty());
    head + if changed { "+" } else { "" }
}

fn one(seed: u64, narrowing: &Narrowing, trace: bool) -> ExitCode {
    println!("{}", Weather::of(seed, narrowing));
    match sim::run(seed, narrowing, trace) {
        Ok(report) => {
            report.trace.iter().for_each(|line| println!("{line}"));
            println!(
                "ok: {:.1} simulated seconds, {} steps, {} operations, {} deaths, digest {:016x}",
                report.simulated as f64 / SECOND as f64,
                report.steps,
                report.operations,
                report.deaths,
                report.digest.0
            );
            ExitCode::SUCCESS
        }
        Err(failure) => {
            failure.trace.iter().for_each(|line| println!("{line}"));
            report_find(&Find { seed, after: 1, failure }, narrowing);
            ExitCode::FAILURE
        }
    }
}

fn shrink(seed: u64, narrowing: &Narrowing) -> ExitCode {
    let say = |narrowing: &Narrowing, failure: &sim::Failure| {
        println!("  fails at {} us with{narrowing}: {}", failure.at, first_line(&failure.what));
    };
    let Some((narrowing, failure)) = sim::shrink(seed, narrowing, say) else {
        println!("the run does not fail");
        return ExitCode::SUCCESS;
    };
    println!("{}", Weather::of(seed, &narrowing));
    report_find(&Find { seed, after: 1, failure }, &narrowing);
    ExitCode::FAILURE
}

/// Seeds that failed once must not fail again.
fn kept() -> ExitCode {
    for kept in sim::kept_seeds() {
        match sim::run(kept.seed, &Narrowing::default(), false) {
            Ok(_) => println!("ok {} ({})", kept.seed, kept.why),
            Err(failure) => {
                let find = Find { seed: kept.seed, after: 1, failure };
                report_find(&find, &Narrowing::default());
                return ExitCode::FAILURE;
            }
        }
    }
    ExitCode::SUCCESS
}

fn many(flags: &Flags, narrowing: Narrowing, commit: &str) -> ExitCode {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let base = flags.seed;
    let commit = commit.to_owned();
    let minutes = flags.minutes.unwrap_or(if flags.runs.is_some() { 1e6 } else { 1.0 });
    let plan = Plan {
        seed: Box::new(move |number| match base {
            Some(base) => base.wrapping_add(number),
            None => seed_of_commit(&commit, number),
        }),
        runs: flags.runs.unwrap_or(u64::MAX),
        time: Duration::from_secs_f64(minutes * 60.0),
        threads: flags.threads.unwrap_or(cores),
        narrowing: narrowing.clone(),
    };
    let start = std::time::Instant::now();
    let (harvest, find) =
        sim::farm(&plan, |harvest, elapsed| println!("{}", line(harvest, elapsed)));
    if let Some(find) = find {
        report_find(&find, &narrowing);
        return ExitCode::FAILURE;
    }
    report(&harvest, start.elapsed());
    let missing = harvest.marks.missing();
    if flags.require_marks && !missing.is_empty() {
        println!("FAILED after {} runs: never reached: {missing:?}", harvest.runs);
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

/// The n-th seed of a commit.
fn seed_of_commit(commit: &str, number: u64) -> u64 {
    sim::Digest::default().bytes(commit.as_bytes()).word(number).0 >> 16
}

fn line(harvest: &Harvest, elapsed: Duration) -> String {
    let seconds = elapsed.as_secs_f64().max(0.001);
    format!(
        "{seconds:6.1} s: {} runs, {:.0} a second; {:.1} simulated hours; {} operations, {} deaths",
        harvest.runs,
        harvest.runs as f64 / seconds,
        harvest.simulated as f64 / SECOND as f64 / 3600.0,
        harvest.operations,
        harvest.deaths
    )
}

fn report(harvest: &Harvest, elapsed: Duration) {
    println!("{}", line(harvest, elapsed));
    println!("{} runs repeated, each the same byte for byte", harvest.repeated);
    println!("\nfaults:");
    for (fault, name) in Fault::ALL {
        println!("{:>12} {name}", harvest.faults.of(fault));
    }
    println!("\nruns that reached:");
    for mark in Mark::ALL {
        println!("{:>12} {mark:?}", harvest.marks.of(mark));
    }
}

fn report_find(find: &Find, narrowing: &Narrowing) {
    let Find { seed, after, failure } = find;
    let times = if *after == 1 { "run" } else { "runs" };
    println!("FAILED seed={seed} after {after} {times}: {}", first_line(&failure.what));
    println!("at step {}, {} us, noticed at {}", failure.step, failure.at, failure.place);
    for more in failure.what.lines().skip(1) {
        println!("{more}");
    }
    println!("repeat: cargo run --release -p sim -- --seed {seed}{narrowing}");
    println!("(--trace prints what happened, --shrink looks for a smaller run)");
}

fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or_default()
}
