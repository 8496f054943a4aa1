//! One member process: threads, gRPC, HTTP. The only crate that is asynchronous, and one of two
//! ways to run a [`replica::Replica`].
//!
//! # Threads
//!
//! | thread | what it does |
//! |---|---|
//! | `net-0`.. | clients' connections, each on one thread for its life; short reads are answered here |
//! | `read-0`.. | long reads, and the encoding of long answers |
//! | `log` | writes log lines, one for each output |
//! | `node` | the replica, and the streams to its peers: what arrived is one batch; busy clients do not delay heartbeats |
//! | `disk` | the log: whatever queued up during one sync is the next batch |
//! | main | starts, waits for a signal, stops |
//!
//! A write crosses two seams: from a network thread to the node and back (`desk`). What is read
//! is the state that the node last published, an [`arc_swap::ArcSwap`]: no lock, and no waiting
//! for a write or a sync.
//!
//! # Data directory
//!
//! `--data-dir`, by default `${name}.raft-kv` in the working directory. Everything in it belongs
//! to the log ([`wal`]): META with term, vote and identity, the segments, and the lock that keeps
//! a second process out. The store has no files: it is filled from the log at start.
//!
//! # Identity
//!
//! Ids of members and of the cluster follow from `--initial-cluster` and
//! `--initial-cluster-token` ([`identity`]), at every start; they must be those that the data
//! directory was made with.
//!
//! **Never**: decides anything that consensus or the store should.

mod accept;
mod api;
mod clients;
pub mod config;
mod connection;
mod desk;
mod disk_thread;
pub mod flags;
mod grpc;
mod http2;
mod http_pages;
pub mod identity;
mod log_queue;
mod logging;
mod member;
mod node_thread;
pub mod null;
mod open_files;
mod readers;
mod socket;
mod texts;
mod transport;
pub mod urls;
mod warn_interval;
mod wire;

pub use api::API_VERSION;
pub use member::{Running, StartError, start};

use config::Config;
use flags::Asked;
use std::io::Write as _;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::signal::unix::{SignalKind, signal};

/// A command line that cannot be followed.
const EXIT_USAGE: u8 = 2;
/// A member that could not start.
const EXIT_FAILURE: u8 = 1;

/// Runs a member as a process: reads flags and environment, logs, serves until a signal says
/// stop. Whatever is wrong with the input is one line on standard error.
pub fn run(arguments: impl IntoIterator<Item = std::ffi::OsString>) -> ExitCode {
    let mut words = Vec::new();
    for word in arguments {
        match word.into_string() {
            Ok(word) => words.push(word),
            Err(word) => return refuse(EXIT_USAGE, &format!("{word:?} is not UTF-8")),
        }
    }
    let environment = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
    let given = match flags::read(words, environment) {
        Ok(Asked::Run(given)) => given,
        Ok(Asked::Help) => return print(&flags::help()),
        Ok(Asked::Version) => return print(&version()),
        Err(error) => return refuse(EXIT_USAGE, &error.to_string()),
    };
    let config = match Config::new(&given) {
        Ok(config) => config,
        Err(error) => return refuse(EXIT_USAGE, &error.to_string()),
    };
    if let Err(line) = logging::start(&config.log) {
        return refuse(EXIT_FAILURE, &line);
    }
    die_of_panics();
    for warning in &given.warnings {
        tracing::warn!("{warning}");
    }
    open_files::raise_limit();
    match serve(config) {
        Ok(()) => {
            logging::flush();
            ExitCode::SUCCESS
        }
        Err(error) => refuse(EXIT_FAILURE, &error.to_string()),
    }
}

/// From the first bind to the last goodbye.
fn serve(config: Config) -> Result<(), StartError> {
    let asked_to_stop = Arc::new(AtomicBool::new(false));
    let (told, mut stop) = tokio::sync::watch::channel(false);
    watch_signals(Arc::clone(&asked_to_stop), told)?;
    let given_up = || asked_to_stop.load(Ordering::Relaxed);
    match start(config, given_up)? {
        Some(running) => running.run_until(async move {
            let _ = stop.wait_for(|stop| *stop).await;
        }),
        None => tracing::info!("stopped before it could join the cluster"),
    }
    Ok(())
}

/// The first signal asks to stop, the second ends the process at once.
fn watch_signals(
    asked: Arc<AtomicBool>,
    told: tokio::sync::watch::Sender<bool>,
) -> std::io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (mut terminate, mut interrupt) = {
        let _inside = runtime.enter();
        (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?)
    };
    std::thread::Builder::new().name("signals".to_owned()).spawn(move || {
        runtime.block_on(async move {
            loop {
                let name = tokio::select! {
                    _ = terminate.recv() => "SIGTERM",
                    _ = interrupt.recv() => "SIGINT",
                };
                if asked.swap(true, Ordering::Relaxed) {
                    fatal(&format!("{name} for the second time: ends at once"));
                }
                tracing::info!("{name}: hands over and stops");
                let _ = told.send(true);
            }
        });
    })?;
    Ok(())
}

/// A panic means that a rule of our own is broken: whatever this member would do from here on
/// cannot be trusted, so the process ends, after it has said why.
fn die_of_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let thread = std::thread::current();
        let payload = panic.payload();
        let text = payload.downcast_ref::<String>().map(String::as_str);
        let message = text.or_else(|| payload.downcast_ref().copied()).unwrap_or("no message");
        let place = panic.location().map_or_else(String::new, ToString::to_string);
        tracing::error!(
            thread = thread.name().unwrap_or("?"),
            place,
            "broken rule, this member ends: {message}"
        );
        logging::flush();
        std::process::abort();
    }));
}

/// Ends the process because it cannot go on, with one line that says why.
fn fatal(line: &str) -> ! {
    tracing::error!("{line}");
    logging::flush();
    std::process::exit(i32::from(EXIT_FAILURE));
}

fn version() -> String {
    format!("raft-kv {}\nAPI: etcd {API_VERSION}\n", env!("CARGO_PKG_VERSION"))
}

fn print(text: &str) -> ExitCode {
    // Nobody reads it: nothing to say, then.
    let _ = std::io::stdout().write_all(text.as_bytes());
    ExitCode::SUCCESS
}

fn refuse(code: u8, line: &str) -> ExitCode {
    logging::last_words(format!("raft-kv server: {line}"));
    ExitCode::from(code)
}
