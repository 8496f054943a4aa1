//! The limits of the machine: what no server on it can beat.

pub mod bare_log;
pub mod bare_log_load;
pub mod disk;
pub mod null_server;

use std::time::Duration;

use hdrhistogram::Histogram;

/// Microseconds, up to ten seconds, at three digits.
pub fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 10_000_000, 3).expect("constant bounds")
}

/// As a histogram wants it.
pub fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX).max(1)
}
