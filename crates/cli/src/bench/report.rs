//! What a run found.

use std::collections::BTreeMap;
use std::time::Duration;

use hdrhistogram::Histogram;

use super::load::Run;
use crate::arguments::Load;
use crate::json::{Object, string};

/// Answers so far.
pub(super) struct Tally {
    /// Microseconds of the requests that were answered well.
    pub(super) latencies: Histogram<u64>,
    /// By code and text.
    pub(super) errors: BTreeMap<String, u64>,
    /// Reads that were answered, and those of them that found a key.
    reads: u64,
    found: u64,
}

impl Tally {
    pub(super) fn new() -> Tally {
        // A minute at three digits; what takes longer counts as a minute.
        let latencies = Histogram::new_with_bounds(1, 60_000_000, 3).expect("constant bounds");
        Tally { latencies, errors: BTreeMap::new(), reads: 0, found: 0 }
    }

    pub(super) fn record(&mut self, latency: Duration, answer: Result<Option<i64>, String>) {
        match answer {
            Ok(found) => {
                let micros = u64::try_from(latency.as_micros()).unwrap_or(u64::MAX);
                self.latencies.saturating_record(micros.max(1));
                self.reads += u64::from(found.is_some());
                self.found += u64::from(found.is_some_and(|keys| keys > 0));
            }
            Err(error) => *self.errors.entry(error).or_default() += 1,
        }
    }
}

/// A finished run.
pub(super) struct Report<'a> {
    pub(super) run: &'a Run,
    pub(super) tally: &'a Tally,
    pub(super) took: Duration,
    /// Of this process, while it measured.
    pub(super) cpu: Option<Duration>,
    pub(super) targets: &'a [String],
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

    fn rate(&self) -> f64 {
        self.tally.latencies.len() as f64 / self.took.as_secs_f64()
    }

    fn cpu_micros(&self) -> Option<f64> {
        let requests = self.tally.latencies.len().max(1) as f64;
        self.cpu.map(|cpu| cpu.as_secs_f64() * 1e6 / requests)
    }

    /// Names and microseconds.
    fn percentiles(&self) -> [(&'static str, u64); 5] {
        let at = |quantile| self.tally.latencies.value_at_quantile(quantile);
        [
            ("p50", at(0.5)),
            ("p90", at(0.9)),
            ("p99", at(0.99)),
            ("p99.9", at(0.999)),
            ("max", self.tally.latencies.max()),
        ]
    }

    pub(super) fn table(&self) -> String {
        let (bench, tally) = (&self.run.bench, self.tally);
        let mut text = format!("{} at {}\n", self.load(), self.targets.join(", "));
        let mut line = |name: &str, value: String| text += &format!("  {name:<18}{value}\n");
        line("clients", bench.clients.to_string());
        if let Some(rate) = bench.rate {
            line("fixed rate", format!("{rate}/s"));
        }
        line("requests", format!("{} in {:.2} s", tally.latencies.len(), self.took.as_secs_f64()));
        line("requests/s", format!("{:.0}", self.rate()));
        for (name, value) in self.percentiles() {
            line(name, micros(value));
        }
        if tally.reads > 0 {
            line("keys found", format!("{} of {} reads", tally.found, tally.reads));
        }
        if let Some(cpu) = self.cpu_micros() {
            line("own CPU/request", format!("{cpu:.1} µs"));
        }
        line("errors", tally.errors.values().sum::<u64>().to_string());
        for (error, count) in &tally.errors {
            line(&format!("  {count}"), error.clone());
        }
        text
    }

    pub(super) fn json(&self) -> String {
        let (bench, tally) = (&self.run.bench, self.tally);
        let targets: Vec<String> = self.targets.iter().map(|target| string(target)).collect();
        let latency = self
            .percentiles()
            .iter()
            .fold(Object::default(), |object, (name, value)| object.raw(name, value));
        let errors = tally.errors.iter().fold(Object::default(), |object, (error, count)| {
            object.raw(string(error).trim_matches('"'), count)
        });
        let mut object = Object::default()
            .raw("load", string(self.load()))
            .raw("endpoints", format_args!("[{}]", targets.join(",")))
            .raw("clients", bench.clients)
            .raw("key_size", bench.key_size)
            .raw("value_size", bench.value_size);
        if let Some(rate) = bench.rate {
            object = object.raw("rate", rate);
        }
        object = object
            .raw("requests", tally.latencies.len())
            .raw("seconds", format_args!("{:.3}", self.took.as_secs_f64()))
            .raw("requests_per_second", format_args!("{:.1}", self.rate()))
            .raw("latency_us", latency.end())
            .raw("reads", tally.reads)
            .raw("reads_found", tally.found);
        if let Some(cpu) = self.cpu_micros() {
            object = object.raw("own_cpu_us_per_request", format_args!("{cpu:.2}"));
        }
        object.raw("errors", errors.end()).end() + "\n"
    }
}

/// Microseconds in a unit that reads well.
pub(super) fn micros(micros: u64) -> String {
    match micros {
        0..1_000 => format!("{micros} µs"),
        1_000..1_000_000 => format!("{:.2} ms", micros as f64 / 1e3),
        _ => format!("{:.2} s", micros as f64 / 1e6),
    }
}

/// CPU time of this process so far, where /proc tells; to 10 ms.
pub(super) fn cpu_time() -> Option<Duration> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    // The name of the program may contain spaces, but ends at the last parenthesis.
    let mut fields = stat.rsplit_once(") ")?.1.split(' ').skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    // Linux counts in hundredths of a second on every machine that we know.
    Some(Duration::from_millis((user + system) * 10))
}
