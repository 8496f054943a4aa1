//! The run as a text, in the notation of the scripts; and as a number that stands for it.

use crate::digest::Digest;
use crate::weather::{Micros, SECOND};

/// What happened. The text is made only if somebody reads it; the digest always.
#[derive(Default)]
pub struct Trace {
    digest: Digest,
    lines: Option<Vec<String>>,
}

impl Trace {
    /// A trace that keeps its text, or not.
    pub fn new(keeps: bool) -> Trace {
        Trace { digest: Digest::default(), lines: keeps.then(Vec::new) }
    }

    /// Whether somebody reads it.
    pub fn is_kept(&self) -> bool {
        self.lines.is_some()
    }

    /// Adds a line, if somebody reads it.
    pub fn line(&mut self, now: Micros, line: impl FnOnce() -> String) {
        if let Some(lines) = &mut self.lines {
            let (seconds, micros) = (now / SECOND, now % SECOND);
            lines.push(format!("{seconds:4}.{micros:06} {}", line()));
        }
    }

    /// Adds numbers that tell this run from others.
    pub fn note(&mut self, words: &[u64]) {
        self.digest = words.iter().fold(self.digest, |digest, word| digest.word(*word));
    }

    /// What stands for all that happened.
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// The lines so far.
    pub fn take_lines(&mut self) -> Vec<String> {
        self.lines.as_mut().map(std::mem::take).unwrap_or_default()
    }
}
