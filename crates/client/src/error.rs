use std::fmt;

use tonic::Status;

/// A gRPC status code.
pub use tonic::Code;

/// Why a request has no answer, by what the caller may conclude.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Error {
    /// An endpoint is not an address that this client can use. Nothing was tried.
    Endpoint {
        /// As it was given.
        endpoint: String,
        /// What is wrong with it.
        reason: String,
    },
    /// No endpoint could be connected to: the request never left, nothing happened.
    Unreachable {
        /// What the last endpoint that was tried says.
        message: String,
    },
    /// The server answered with an error, and nothing has changed.
    Refused {
        /// The status code.
        code: Code,
        /// The server's text, as it came.
        message: String,
    },
    /// A read got no answer in time, or the cluster cannot answer now. Asking again is safe.
    Unavailable {
        /// The status code.
        code: Code,
        /// The server's text, or the deadline.
        message: String,
    },
    /// A write may or may not have happened. It was not sent again: only the caller can tell whether that is safe.
    OutcomeUnknown {
        /// The status code.
        code: Code,
        /// The server's text, or the deadline.
        message: String,
    },
}

impl Error {
    /// The gRPC code that says the same.
    pub fn code(&self) -> Code {
        match self {
            Error::Endpoint { .. } => Code::InvalidArgument,
            Error::Unreachable { .. } => Code::Unavailable,
            Error::Refused { code, .. }
            | Error::Unavailable { code, .. }
            | Error::OutcomeUnknown { code, .. } => *code,
        }
    }

    /// The text alone, without what it means for the caller.
    pub fn message(&self) -> &str {
        match self {
            Error::Endpoint { reason, .. } => reason,
            Error::Unreachable { message }
            | Error::Refused { message, .. }
            | Error::Unavailable { message, .. }
            | Error::OutcomeUnknown { message, .. } => message,
        }
    }

    pub(crate) fn of_status(status: &Status, safe_to_repeat: bool) -> Error {
        let (code, message) = (status.code(), status.message().to_owned());
        if never_sent(status) {
            return Error::Unreachable { message: innermost(status) };
        }
        match code {
            // Both ends watch the deadline; whichever notices first, it is the same event.
            Code::DeadlineExceeded | Code::Cancelled => Error::deadline(safe_to_repeat),
            Code::InvalidArgument
            | Code::NotFound
            | Code::AlreadyExists
            | Code::PermissionDenied
            | Code::ResourceExhausted
            | Code::FailedPrecondition
            | Code::OutOfRange
            | Code::Unimplemented
            | Code::Unauthenticated => Error::Refused { code, message },
            _ if safe_to_repeat => Error::Unavailable { code, message },
            _ => Error::OutcomeUnknown { code, message },
        }
    }

    pub(crate) fn deadline(safe_to_repeat: bool) -> Error {
        let (code, message) = (Code::DeadlineExceeded, "context deadline exceeded".to_owned());
        if safe_to_repeat {
            return Error::Unavailable { code, message };
        }
        Error::OutcomeUnknown { code, message }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Endpoint { endpoint, reason } => write!(f, "endpoint {endpoint:?}: {reason}"),
            Error::Unreachable { message } => write!(f, "no endpoint can be reached: {message}"),
            Error::Refused { message, .. } | Error::Unavailable { message, .. } => {
                f.write_str(message)
            }
            Error::OutcomeUnknown { message, .. } => {
                write!(f, "{message} (the write may have happened)")
            }
        }
    }
}

impl std::error::Error for Error {}

/// Only a failure to connect proves that a request never left this process.
pub(crate) fn never_sent(status: &Status) -> bool {
    let mut cause = std::error::Error::source(status);
    while let Some(error) = cause {
        if error.is::<tonic::ConnectError>() {
            return true;
        }
        cause = error.source();
    }
    false
}

/// The text of the first cause ("Connection refused"), not of its wrappings.
fn innermost(status: &Status) -> String {
    let mut text = status.message().to_owned();
    let mut cause = std::error::Error::source(status);
    while let Some(error) = cause {
        text = error.to_string();
        cause = error.source();
    }
    text
}
