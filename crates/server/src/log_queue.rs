//! The way of log lines to one output: a bounded queue, and a thread that writes what is in it.
//!
//! An output may take nothing for as long as it likes: a pipe that nobody reads, a terminal that was
//! stopped. Then lines are dropped and counted, and whoever logs goes on. What was dropped is said
//! when the output takes lines again.

use std::io::{self, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tracing::warn;

/// Lines that wait hold at most so many bytes; as much again is being written. A member at its
/// default level logs less in a day.
const WAITING_BYTES_MAX: usize = 4 << 20;

/// Lines on their way to one output. A clone is another handle to the same queue.
#[derive(Clone)]
pub struct LogQueue {
    inner: Arc<Inner>,
}

struct Inner {
    /// Taken for one copy of a line, by whoever logs; never held while something is written.
    state: Mutex<State>,
    /// Signalled when there is something to write, and when all is written.
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// Whole lines.
    waiting: Vec<u8>,
    is_writing: bool,
    dropped: u64,
}

impl LogQueue {
    /// Starts the thread that writes to `output`, which is called `name` when lines were dropped.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn start(name: String, output: impl Write + Send + 'static) -> io::Result<LogQueue> {
        let inner = Arc::new(Inner { state: Mutex::default(), changed: Condvar::new() });
        let writer = Arc::clone(&inner);
        let thread = std::thread::Builder::new().name("log".to_owned());
        thread.spawn(move || writer.write_all_to(&name, output))?;
        Ok(LogQueue { inner })
    }

    /// Adds a line, or counts it as dropped if too much waits. Never waits for the output.
    pub fn push(&self, line: &[u8]) {
        let mut state = self.inner.lock();
        if state.waiting.len() + line.len() > WAITING_BYTES_MAX {
            state.dropped += 1;
            return;
        }
        let was_empty = state.waiting.is_empty();
        state.waiting.extend_from_slice(line);
        drop(state);
        if was_empty {
            self.inner.changed.notify_all();
        }
    }

    /// Waits until all lines so far are written, or the deadline has passed.
    pub fn flush(&self, deadline: Instant) {
        let mut state = self.inner.lock();
        while state.is_writing || !state.waiting.is_empty() {
            let left = deadline.saturating_duration_since(Instant::now());
            if left == Duration::ZERO {
                return;
            }
            let waited = self.inner.changed.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes what comes, for ever.
    fn write_all_to(&self, name: &str, mut output: impl Write) {
        let mut lines = Vec::new();
        loop {
            let mut state = self.lock();
            state.is_writing = false;
            if state.waiting.is_empty() {
                self.changed.notify_all();
            }
            while state.waiting.is_empty() {
                state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
            std::mem::swap(&mut lines, &mut state.waiting);
            state.is_writing = true;
            drop(state);
            // A log that cannot be written must not end a member: a pipe that was closed, say.
            let _ = output.write_all(&lines);
            lines.clear();
            let dropped = std::mem::take(&mut self.lock().dropped);
            if dropped > 0 {
                warn!(output = name, lines = dropped, "log lines were dropped: nobody read them");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::{Receiver, Sender, channel};

    /// Takes a write when it is allowed one; the test sees what was written.
    struct Gated {
        allowed: Receiver<()>,
        written: Sender<Vec<u8>>,
    }

    impl Write for Gated {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let _ = self.allowed.recv();
            let _ = self.written.send(bytes.to_vec());
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(20)
    }

    #[test]
    fn an_output_that_takes_nothing_holds_nobody_up() {
        let (allow, allowed) = channel();
        let (written, seen) = channel();
        let queue = LogQueue::start("test".to_owned(), Gated { allowed, written }).unwrap();
        let line = [b'x'; 1024];
        queue.push(&line);
        while queue.inner.lock().waiting.len() + line.len() <= WAITING_BYTES_MAX {
            queue.push(&line);
        }
        queue.push(&line);
        queue.push(&line);
        assert!(queue.inner.lock().dropped >= 1, "beyond the bound lines are counted");
        queue.flush(Instant::now() + Duration::from_millis(20));
        drop(allow); // From here on every write is taken.
        queue.flush(soon());
        let bytes: usize = seen.try_iter().map(|lines| lines.len()).sum();
        assert_eq!(bytes % line.len(), 0, "lines are whole");
        assert!((WAITING_BYTES_MAX..=2 * WAITING_BYTES_MAX).contains(&(bytes + line.len())));
        assert_eq!(queue.inner.lock().dropped, 0, "what was dropped has been said");
    }

    #[test]
    fn lines_are_written_in_order_before_a_flush_returns() {
        let (written, seen) = channel();
        let (_, allowed) = channel();
        let queue = LogQueue::start("test".to_owned(), Gated { allowed, written }).unwrap();
        for n in 0..100 {
            queue.push(format!("{n}\n").as_bytes());
        }
        queue.flush(soon());
        let text: Vec<u8> = seen.try_iter().flatten().collect();
        let expected: String = (0..100).map(|n| format!("{n}\n")).collect();
        assert_eq!(String::from_utf8(text).unwrap(), expected);
    }

    #[test]
    fn an_output_that_fails_ends_nothing() {
        struct Closed;
        impl Write for Closed {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::ErrorKind::BrokenPipe.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let queue = LogQueue::start("test".to_owned(), Closed).unwrap();
        queue.push(b"line\n");
        queue.flush(soon());
        queue.push(b"line\n");
        queue.flush(soon());
    }
}
