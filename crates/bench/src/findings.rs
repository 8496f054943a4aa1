//! Everything that a comparison found.

use crate::cluster::System;
use crate::limits::bare_log_load::Commits;
use crate::limits::disk::Syncs;
use crate::load::Kind;
use crate::machine::Machine;
use crate::row::{Measured, Row};

/// What is found at one system, or why nothing is.
pub type Found<T> = Vec<(System, Result<T, String>)>;

pub struct Findings {
    /// Whether everything was asked for.
    pub full: bool,
    pub machine: Machine,
    /// Cores that three idle members use.
    pub idle: Vec<(System, f64)>,
    pub rows: Vec<(Row, Found<Measured>)>,
    pub syncs: Vec<Syncs>,
    pub commits: Vec<Commits>,
    pub keys: Vec<(u64, Found<AtKeys>)>,
    pub values: Vec<(u32, Found<Measured>)>,
    pub failover: Vec<(System, Vec<Round>)>,
    /// Why it ended early, if it did.
    pub incomplete: Option<String>,
}

/// A system that holds so many keys.
#[derive(Clone, Debug)]
pub struct AtKeys {
    /// Resident memory of a member beyond that of an empty one, for each key.
    pub bytes_per_key: f64,
    pub loads: Vec<(Kind, Measured)>,
}

/// A leader's death.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Round {
    /// From the signal to the first acknowledgement of a write that was sent after it.
    pub seconds: f64,
    /// Writes sent to the survivors, from half a second before.
    pub sent: u64,
    /// Of these, answered with an error.
    pub refused: u64,
    /// Of these, not answered in time.
    pub unanswered: u64,
}

impl Findings {
    pub fn new(full: bool, machine: Machine) -> Findings {
        Findings {
            full,
            machine,
            idle: Vec::new(),
            rows: Vec::new(),
            syncs: Vec::new(),
            commits: Vec::new(),
            keys: Vec::new(),
            values: Vec::new(),
            failover: Vec::new(),
            incomplete: None,
        }
    }

    /// What a system did in the row of that name.
    pub fn row(&self, name: &str, system: System) -> Option<&Measured> {
        let (_, found) = self.rows.iter().find(|(row, _)| row.name() == name)?;
        of(found, system)
    }
}

/// What was found at this system, if anything.
pub fn of<T>(found: &Found<T>, system: System) -> Option<&T> {
    found.iter().find(|(other, _)| *other == system)?.1.as_ref().ok()
}
