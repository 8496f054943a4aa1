//! Where log lines go, and what they look like.

use crate::config::{LogConfig, LogOutput};
use std::fs::{File, OpenOptions};
use std::io::{self, IsTerminal, Write};
use std::sync::Arc;
use tracing_subscriber::fmt::MakeWriter;

/// Writes each line to every output.
#[derive(Clone)]
struct Outputs(Arc<Vec<Output>>);

enum Output {
    Stderr,
    Stdout,
    File(File),
}

impl Write for Outputs {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        for output in self.0.iter() {
            // A log that cannot be written must not end a member.
            let _ = match output {
                Output::Stderr => io::stderr().write_all(line),
                Output::Stdout => io::stdout().write_all(line),
                Output::File(file) => (&*file).write_all(line),
            };
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
    let mut outputs = Vec::new();
    for output in &config.outputs {
        outputs.push(match output {
            LogOutput::Stderr => Output::Stderr,
            LogOutput::Stdout => Output::Stdout,
            LogOutput::File(path) => {
                let file = OpenOptions::new().create(true).append(true).open(path);
                Output::File(file.map_err(|error| {
                    format!("--log-outputs: cannot open {}: {error}", path.display())
                })?)
            }
        });
    }
    let colours = outputs.iter().all(|output| match output {
        Output::Stderr => io::stderr().is_terminal(),
        Output::Stdout => io::stdout().is_terminal(),
        Output::File(_) => false,
    });
    let builder = tracing_subscriber::fmt()
        .with_max_level(config.level)
        .with_writer(Outputs(Arc::new(outputs)))
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
