//! What a run found.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use super::load::{Run, Turn};
use crate::arguments::Load;
use crate::json::{Object, string};

/// Answers so far.
pub(super) struct Tally {
    /// Microseconds of the requests that were answered well.
    pub(super) latencies: Histogram<u64>,
    /// Microseconds from when a request should have started until it did.
    late: Histogram<u64>,
    /// By code and text.
    pub(super) errors: BTreeMap<String, u64>,
    /// Reads that were answered, and those of them that found a key.
    reads: u64,
    found: u64,
    /// The last good answer, or the begin.
    answered: Instant,
    longest_gap: Duration,
}

impl Tally {
    /// Of a run that counts from `begin`.
    pub(super) fn new(begin: Instant) -> Tally {
        // A minute at three digits; what takes longer counts as a minute.
        let histogram = || Histogram::new_with_bounds(1, 60_000_000, 3).expect("constant bounds");
        Tally {
            latencies: histogram(),
            late: histogram(),
            errors: BTreeMap::new(),
            reads: 0,
            found: 0,
            answered: begin,
            longest_gap: Duration::ZERO,
        }
    }

    pub(super) fn record(
        &mut self,
        turn: &Turn,
        now: Instant,
        answer: Result<Option<i64>, String>,
    ) {
        self.late.saturating_record(whole_micros(turn.begun - turn.due));
        match answer {
            Ok(found) => {
                self.latencies.saturating_record(whole_micros(now - turn.due).max(1));
                self.reads += u64::from(found.is_some());
                self.found += u64::from(found.is_some_and(|keys| keys > 0));
                self.longest_gap = self.longest_gap(now);
                self.answered = now;
            }
            Err(error) => *self.errors.entry(error).or_default() += 1,
        }
    }

    /// The longest time without a good answer until `now`.
    fn longest_gap(&self, now: Instant) -> Duration {
        self.longest_gap.max(now.saturating_duration_since(self.answered))
    }
}

fn whole_micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

/// A finished run.
pub(super) struct Report<'a> {
    pub(super) run: &'a Run,
    pub(super) tally: &'a Tally,
    pub(super) end: Instant,
    /// Of this process, while it measured.
    pub(super) cpu: Duration,
    pub(super) targets: &'a [String],
    pub(super) connections: usize,
}

impl Report<'_> {
    fn load(&self) -> &'static str {
        match self.run.bench.load {
            Load::Put => "put",
            Load::Get => "get",
            Load::Mixed => "mixed",
            Load::Range => "range",
            Load::Count => "count",
            Load::Txn => "txn",
        }
    }

    fn seconds(&self) -> f64 {
        self.end.saturating_duration_since(self.run.measured).as_secs_f64()
    }

    fn rate(&self) -> f64 {
        self.tally.latencies.len() as f64 / self.seconds()
    }

    fn cpu_micros(&self) -> f64 {
        self.cpu.as_secs_f64() * 1e6 / self.tally.latencies.len().max(1) as f64
    }

    fn longest_gap(&self) -> u64 {
        whole_micros(self.tally.longest_gap(self.end))
    }

    pub(super) fn table(&self) -> String {
        let (bench, tally) = (&self.run.bench, self.tally);
        let mut text = format!("{} at {}\n", self.load(), self.targets.join(", "));
        let mut line = |name: &str, value: String| text += &format!("  {name:<18}{value}\n");
        line("clients", format!("{}, connections {}", bench.clients, self.connections));
        if let Some(rate) = bench.rate {
            line("fixed rate", format!("{rate}/s"));
            line("started late", format!("p99 {}", micros(tally.late.value_at_quantile(0.99))));
        }
        line("requests", format!("{} in {:.2} s", tally.latencies.len(), self.seconds()));
        line("requests/s", format!("{:.0}", self.rate()));
        for (name, value) in percentiles(&tally.latencies) {
            line(name, micros(value));
        }
        line("longest gap", micros(self.longest_gap()));
        if tally.reads > 0 {
            line("keys found", format!("{} of {} reads", tally.found, tally.reads));
        }
        line("own CPU/request", format!("{:.1} µs", self.cpu_micros()));
        line("errors", tally.errors.values().sum::<u64>().to_string());
        for (error, count) in &tally.errors {
            line(&format!("  {count}"), error.clone());
        }
        text
    }

    pub(super) fn json(&self) -> String {
        let (bench, tally) = (&self.run.bench, self.tally);
        let targets: Vec<String> = self.targets.iter().map(|target| string(target)).collect();
        let errors = tally.errors.iter().fold(Object::default(), |object, (error, count)| {
            object.raw(string(error).trim_matches('"'), count)
        });
        let mut object = Object::default()
            .raw("load", string(self.load()))
            .raw("endpoints", format_args!("[{}]", targets.join(",")))
            .raw("clients", bench.clients)
            .raw("connections", self.connections)
            .raw("key_size", bench.key_size)
            .raw("value_size", bench.value_size);
        if bench.load == Load::Range {
            object = object.raw("limit", bench.limit);
        }
        if let Some(rate) = bench.rate {
            object = object.raw("rate", rate).raw("late_us", quantiles(&tally.late));
        }
        object
            .raw("requests", tally.latencies.len())
            .raw("seconds", format_args!("{:.3}", self.seconds()))
            .raw("requests_per_second", format_args!("{:.1}", self.rate()))
            .raw("latency_us", quantiles(&tally.latencies))
            .raw("longest_gap_us", self.longest_gap())
            .raw("reads", tally.reads)
            .raw("reads_found", tally.found)
            .raw("own_cpu_us_per_request", format_args!("{:.2}", self.cpu_micros()))
            .raw("errors", errors.end())
            .end()
            + "\n"
    }
}

/// Names and microseconds.
fn percentiles(histogram: &Histogram<u64>) -> [(&'static str, u64); 5] {
    let at = |quantile| histogram.value_at_quantile(quantile);
    [
        ("p50", at(0.5)),
        ("p90", at(0.9)),
        ("p99", at(0.99)),
        ("p99.9", at(0.999)),
        ("max", histogram.max()),
    ]
}

/// The same as JSON.
fn quantiles(histogram: &Histogram<u64>) -> String {
    let object = percentiles(histogram)
        .iter()
        .fold(Object::default(), |object, (name, value)| object.raw(name, value));
    object.end()
}

/// Microseconds in a unit that reads well.
pub(super) fn micros(micros: u64) -> String {
    match micros {
        0..1_000 => format!("{micros} µs"),
        1_000..1_000_000 => format!("{:.2} ms", micros as f64 / 1e3),
        _ => format!("{:.2} s", micros as f64 / 1e6),
    }
}

/// CPU time of this process so far, all threads together.
pub(super) fn cpu_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::try_from(time).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn latency_counts_from_when_a_request_was_due() {
        let begin = Instant::now();
        let at = |millis| begin + Duration::from_millis(millis);
        let mut tally = Tally::new(begin);
        tally.record(&Turn { due: at(10), begun: at(12) }, at(15), Ok(Some(1)));
        assert_eq!((tally.latencies.max() / 100, tally.late.max() / 100), (50, 20));
        assert_eq!((tally.reads, tally.found), (1, 1));
    }

    #[test]
    fn the_longest_gap_is_between_good_answers_or_at_the_ends() {
        let begin = Instant::now();
        let at = |millis| begin + Duration::from_millis(millis);
        let mut tally = Tally::new(begin);
        let mut answer = |millis, answer| {
            tally.record(&Turn { due: at(millis), begun: at(millis) }, at(millis), answer);
        };
        answer(30, Ok(None));
        answer(50, Err("no".into()));
        answer(70, Ok(None));
        answer(80, Ok(None));
        assert_eq!(tally.longest_gap(at(90)), Duration::from_millis(40));
        assert_eq!(tally.longest_gap(at(180)), Duration::from_millis(100));
    }

    #[test]
    fn cpu_time_grows_with_work() {
        let before = cpu_time();
        let start = Instant::now();
        while start.elapsed() < Duration::from_millis(5) {}
        assert!(cpu_time() > before);
    }
}
