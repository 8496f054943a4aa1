//! What must hold of a run.

pub mod linearizability;
pub mod oracle;
