//! Ctrl-C, and the limits of what is waited for.
//!
//! A signal only sets a flag; whoever waits looks at it, and what was started is stopped on the
//! way out. The second signal ends the process at once.

use std::process::{Child, ExitStatus};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use crate::trouble::{OrTrouble, Outcome, Trouble};

/// Between two looks at a process that is waited for.
const LOOK_INTERVAL: Duration = Duration::from_millis(5);

static ASKED: OnceLock<Arc<AtomicBool>> = OnceLock::new();

/// From here on signals are heeded.
pub fn listen() -> Outcome {
    let asked = ASKED.get_or_init(Arc::default);
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        // In this order: the second signal finds the flag set.
        signal_hook::flag::register_conditional_shutdown(signal, 130, Arc::clone(asked))
            .or_trouble("cannot watch for signals")?;
        signal_hook::flag::register(signal, Arc::clone(asked))
            .or_trouble("cannot watch for signals")?;
    }
    Ok(())
}

/// Fails once a signal came.
pub fn check() -> Outcome {
    match ASKED.get() {
        Some(asked) if asked.load(Ordering::Relaxed) => Err(Trouble("interrupted".to_owned())),
        _ => Ok(()),
    }
}

/// Sleeps, unless a signal comes.
pub fn sleep(time: Duration) -> Outcome {
    let end = Instant::now() + time;
    loop {
        check()?;
        let rest = end.saturating_duration_since(Instant::now());
        if rest.is_zero() {
            return Ok(());
        }
        std::thread::sleep(rest.min(Duration::from_millis(50)));
    }
}

/// Waits for a process; kills it when its time is up or a signal comes.
pub fn wait(child: &mut Child, limit: Duration, what: &str) -> Outcome<ExitStatus> {
    let end = Instant::now() + limit;
    loop {
        if let Some(status) = child.try_wait().or_trouble(what)? {
            return Ok(status);
        }
        let late = Instant::now() > end;
        if let Err(trouble) = check().and_then(|()| match late {
            true => Err(Trouble(format!("{what} takes longer than {limit:?}"))),
            false => Ok(()),
        }) {
            let _ = child.kill();
            let _ = child.wait();
            return Err(trouble);
        }
        std::thread::sleep(LOOK_INTERVAL);
    }
}
