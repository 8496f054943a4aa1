//! Plots.
use crate::findings::Findings;
pub fn all(_: &Findings) -> Vec<(String, String)> {
    Vec::new()
}
