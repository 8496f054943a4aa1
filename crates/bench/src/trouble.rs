//! Why a comparison cannot go on.

use std::fmt;

/// One line, for the person at the terminal.
#[derive(Debug)]
pub struct Trouble(pub String);

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What may end in [`Trouble`].
pub type Outcome<T = ()> = Result<T, Trouble>;

/// Says what was tried when it did not work.
pub trait OrTrouble<T> {
    fn or_trouble(self, what: impl fmt::Display) -> Outcome<T>;
}

impl<T, E: fmt::Display> OrTrouble<T> for Result<T, E> {
    fn or_trouble(self, what: impl fmt::Display) -> Outcome<T> {
        self.map_err(|error| Trouble(format!("{what}: {error}")))
    }
}
