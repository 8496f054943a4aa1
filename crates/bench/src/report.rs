//! What was found, for people and for programs.

pub mod docs;
mod json;
mod markdown;
mod plot;
mod plots;
pub mod text;

use std::path::Path;

use crate::findings::Findings;
use crate::trouble::{OrTrouble, Outcome};

/// Writes numbers, tables and plots into a directory.
pub fn write(findings: &Findings, out: &Path) -> Outcome {
    let file = |name: &str, text: &str| {
        let path = out.join(name);
        std::fs::write(&path, text).or_trouble(path.display())
    };
    file("compare.json", &format!("{:#}\n", json::findings(findings)))?;
    file("compare.md", &markdown::findings(findings, ""))?;
    for (name, plot) in plots::all(findings) {
        file(&name, &plot)?;
    }
    Ok(())
}
