//! How commands fail: etcdctl's exit codes.

use std::process::ExitCode;

use raft_kv_client::Error;

/// A message for standard error and an exit code.
#[derive(Debug)]
pub(crate) struct Failure {
    code: u8,
    /// Empty: everything is said already.
    message: String,
    hint: Option<&'static str>,
}

impl Failure {
    fn new(code: u8, message: impl Into<String>) -> Failure {
        Failure { code, message: message.into(), hint: None }
    }

    /// The request failed.
    pub(crate) fn error(message: impl Into<String>) -> Failure {
        Failure::new(1, message)
    }

    /// What was read from standard input makes no sense.
    pub(crate) fn input(message: impl Into<String>) -> Failure {
        Failure::new(3, message)
    }

    /// A flag is known, its value is not.
    pub(crate) fn feature(message: impl Into<String>) -> Failure {
        Failure::new(4, message)
    }

    /// Arguments are missing or contradict each other.
    pub(crate) fn arguments(message: impl Into<String>) -> Failure {
        Failure::new(128, message)
    }

    #[cfg(test)]
    pub(crate) fn code(&self) -> u8 {
        self.code
    }

    #[cfg(test)]
    pub(crate) fn message(&self) -> &str {
        &self.message
    }

    pub(crate) fn report(self) -> ExitCode {
        if !self.message.is_empty() {
            eprintln!("Error: {}", self.message);
        }
        if let Some(hint) = self.hint {
            eprintln!("{hint}");
        }
        ExitCode::from(self.code)
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        match &error {
            Error::OutcomeUnknown { message, .. } => Failure {
                hint: Some("The write may or may not have happened; read before you repeat it."),
                ..Failure::error(message)
            },
            Error::Endpoint { .. } => Failure::arguments(error.to_string()),
            _ => Failure::error(error.to_string()),
        }
    }
}
