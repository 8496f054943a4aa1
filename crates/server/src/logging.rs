//! Where log lines go, and what they look like.

use crate::config::{LogConfig, LogOutput};
use crate::log_queue::LogQueue;
use std::fs::OpenOptions;
use std::io::{self, IsTerminal, Write};
use std::sync::mpsc::channel;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};
use tracing_subscriber::fmt::MakeWriter;

/// Lines get so much time to be written before the process ends.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(1);

/// The outputs of this process, once it logs.
static OUTPUTS: OnceLock<Outputs> = OnceLock::new();

/// Hands each line to every output's queue.
#[derive(Clone)]
struct Outputs(Arc<Vec<LogQueue>>);

impl Write for Outputs {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        for queue in self.0.iter() {
            queue.push(line);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for Outputs {
    type Writer = Outputs;

    fn make_writer(&self) -> Outputs {
        self.clone()
    }
}

/// Starts to log. Once in a process.
///
/// # Errors
/// When a file cannot be opened: one line that names it.
pub fn start(config: &LogConfig) -> Result<(), String> {
    let mut queues = Vec::new();
    for output in &config.outputs {
        let queue = match output {
            LogOutput::Stderr => LogQueue::start("stderr".to_owned(), io::stderr()),
            LogOutput::Stdout => LogQueue::start("stdout".to_owned(), io::stdout()),
            LogOutput::File(path) => {
                let file = OpenOptions::new().create(true).append(true).open(path);
                let file = file.map_err(|error| {
                    format!("--log-outputs: cannot open {}: {error}", path.display())
                })?;
                LogQueue::start(path.display().to_string(), file)
            }
        };
        queues.push(queue.map_err(|error| format!("cannot start a thread for the log: {error}"))?);
    }
    let colours = config.outputs.iter().all(|output| match output {
        LogOutput::Stderr => io::stderr().is_terminal(),
        LogOutput::Stdout => io::stdout().is_terminal(),
        LogOutput::File(_) => false,
    });
    let outputs = OUTPUTS.get_or_init(|| Outputs(Arc::new(queues))).clone();
    let builder = tracing_subscriber::fmt()
        .with_max_level(config.level)
        .with_writer(outputs)
        .with_target(false)
        .with_ansi(colours);
    // In a test several members share a process, and the first one's log.
    let _ = if config.json {
        let format = tracing_subscriber::fmt::format().json().flatten_event(true);
        let format = format.with_target(false);
        tracing::subscriber::set_global_default(
            builder
                .fmt_fields(tracing_subscriber::fmt::format::JsonFields::new())
                .event_format(format)
                .finish(),
        )
    } else {
        tracing::subscriber::set_global_default(builder.finish())
    };
    Ok(())
}

/// Waits until what was logged is written, as long as it may take.
pub fn flush() {
    let deadline = Instant::now() + FLUSH_TIMEOUT;
    for queue in OUTPUTS.get().into_iter().flat_map(|outputs| outputs.0.iter()) {
        queue.flush(deadline);
    }
}

/// Writes a line to standard error, after what was logged. Gives up if nobody takes it in time.
pub fn last_words(line: String) {
    flush();
    let (done, written) = channel();
    let thread = std::thread::Builder::new().name("last-words".to_owned());
    let spawned = thread.spawn(move || {
        let _ = writeln!(io::stderr(), "{line}");
        let _ = done.send(());
    });
    if spawned.is_ok() {
        let _ = written.recv_timeout(FLUSH_TIMEOUT);
    }
}
