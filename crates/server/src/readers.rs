//! The threads for what takes long: reads of many keys, and the encoding of large answers. Whoever
//! serves many clients hands such work over, and goes on with others until it is done.

use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::oneshot;

/// Reader threads. Two, so that one endless read does not stop all others; not more, for they
/// compete with the node for the processor, and hold the keys that they read in memory.
const THREADS: usize = 2;
/// Work that waits for a reader thread; whoever comes later is refused.
const WAITING_MAX: usize = 1024;
/// Bytes of the requests that wait for a reader thread.
const WAITING_BYTES_MAX: usize = 64 << 20;

type Work = Box<dyn FnOnce() + Send>;

/// The reader threads of a member. They end when this is dropped.
pub struct Readers {
    queue: Sender<Work>,
    waiting: Arc<Waiting>,
}

#[derive(Default)]
struct Waiting {
    count: AtomicUsize,
    bytes: AtomicUsize,
}

/// Too much waits already.
#[derive(Debug)]
pub struct Busy;

impl Readers {
    /// Starts the threads.
    ///
    /// # Errors
    /// When the system gives none.
    pub fn start() -> io::Result<Readers> {
        let (queue, work) = channel();
        let work = Arc::new(Mutex::new(work));
        for number in 0..THREADS {
            let work = Arc::clone(&work);
            let thread = std::thread::Builder::new().name(format!("read-{number}"));
            thread.spawn(move || serve(&work))?;
        }
        Ok(Readers { queue, waiting: Arc::default() })
    }

    /// Has `work` done for a request of so many bytes. If the receiver is dropped before its turn
    /// comes, it is not done.
    ///
    /// # Errors
    /// When too much waits already.
    pub fn run<T: Send + 'static>(
        &self,
        bytes: usize,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<oneshot::Receiver<T>, Busy> {
        let waits = Waits::new(&self.waiting, bytes).ok_or(Busy)?;
        Ok(self.run_anyway(move || {
            drop(waits);
            work()
        }))
    }

    /// Has `work` done however much waits: for what is held in memory whether it is done or not.
    pub fn run_anyway<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> oneshot::Receiver<T> {
        let (done, result) = oneshot::channel();
        let work = move || {
            if !done.is_closed() {
                let _ = done.send(work());
            }
        };
        // The threads live as long as this.
        let _ = self.queue.send(Box::new(work));
        result
    }
}

/// Counts work that waits until it is dropped.
struct Waits {
    waiting: Arc<Waiting>,
    bytes: usize,
}

impl Waits {
    fn new(waiting: &Arc<Waiting>, bytes: usize) -> Option<Waits> {
        let count = waiting.count.fetch_add(1, Ordering::Relaxed);
        let before = waiting.bytes.fetch_add(bytes, Ordering::Relaxed);
        let waits = Waits { waiting: Arc::clone(waiting), bytes };
        let fits = count < WAITING_MAX && before.saturating_add(bytes) <= WAITING_BYTES_MAX;
        fits.then_some(waits)
    }
}

impl Drop for Waits {
    fn drop(&mut self) {
        self.waiting.count.fetch_sub(1, Ordering::Relaxed);
        self.waiting.bytes.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// Does what is in the queue until nobody can add to it any more.
fn serve(queue: &Mutex<Receiver<Work>>) {
    loop {
        // The lock is held while waiting: the other thread waits for the lock instead.
        let next = queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
        match next {
            Ok(work) => work(),
            Err(_) => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_that_nobody_waits_for_is_not_done_and_too_much_is_refused() {
        let readers = Readers::start().unwrap();
        let (release, blocked) = channel::<()>();
        let blocked = Arc::new(Mutex::new(blocked));
        let busy: Vec<_> = (0..THREADS)
            .map(|_| {
                let blocked = Arc::clone(&blocked);
                readers.run(0, move || blocked.lock().unwrap().recv().is_ok()).unwrap()
            })
            .collect();
        while readers.waiting.count.load(Ordering::Relaxed) > 0 {
            std::thread::yield_now();
        }
        let done = Arc::new(AtomicUsize::new(0));
        let count = |done: &Arc<AtomicUsize>| {
            let done = Arc::clone(done);
            move || done.fetch_add(1, Ordering::Relaxed)
        };
        let mut waiting: Vec<_> =
            (0..WAITING_MAX).map(|_| readers.run(1, count(&done)).unwrap()).collect();
        assert!(readers.run(1, count(&done)).is_err(), "too many");
        waiting.truncate(3);
        drop(release);
        for work in busy {
            work.blocking_recv().unwrap();
        }
        for work in waiting {
            work.blocking_recv().unwrap();
        }
        while readers.waiting.count.load(Ordering::Relaxed) > 0 {
            std::thread::yield_now();
        }
        assert_eq!(done.load(Ordering::Relaxed), 3);
        assert!(readers.run(WAITING_BYTES_MAX + 1, || ()).is_err(), "too many bytes");
        assert_eq!(readers.waiting.bytes.load(Ordering::Relaxed), 0);
    }
}
