//! Warnings about what may happen thousands of times a second: one line in a while, with a count.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// The same line is logged once in this time.
const INTERVAL: Duration = Duration::from_secs(10);

/// Counts how often something happened, and says when that is due to be logged.
pub struct WarnInterval {
    /// When it was last logged, and how often it happened since; taken for a few instructions.
    state: Mutex<(Option<Instant>, u64)>,
}

impl WarnInterval {
    /// Nothing has happened yet.
    pub const fn new() -> WarnInterval {
        WarnInterval { state: Mutex::new((None, 0)) }
    }

    /// Counts one more. Returns the count since the last line if one is due now.
    pub fn count(&self, now: Instant) -> Option<u64> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let (last, times) = &mut *state;
        *times += 1;
        if last.is_some_and(|last| now.duration_since(last) < INTERVAL) {
            return None;
        }
        *last = Some(now);
        Some(std::mem::take(times))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_due_at_once_and_then_once_in_a_while() {
        let (warnings, start) = (WarnInterval::new(), Instant::now());
        assert_eq!(warnings.count(start), Some(1));
        assert_eq!(warnings.count(start), None);
        assert_eq!(warnings.count(start + INTERVAL / 2), None);
        assert_eq!(warnings.count(start + INTERVAL), Some(3));
        assert_eq!(warnings.count(start + INTERVAL), None);
    }
}
