//! The generated part of docs/performance.md, and its plots.

use std::fs;

use super::{markdown, plots};
use crate::findings::Findings;
use crate::programs::root;
use crate::trouble::{OrTrouble, Outcome, Trouble};

const BEGIN: &str = "<!-- written by `bench compare --write-docs`: begin -->";
const END: &str = "<!-- written by `bench compare --write-docs`: end -->";

/// Replaces what stands between the marks, and the plots of an earlier run.
pub fn write(findings: &Findings) -> Outcome {
    let document = root().join("docs/performance.md");
    let text = fs::read_to_string(&document).or_trouble(document.display())?;
    let tables = markdown::findings(findings, "performance/");
    let text = replaced(&text, &tables)
        .ok_or_else(|| Trouble(format!("{} has no marks: {BEGIN}", document.display())))?;
    let folder = root().join("docs/performance");
    fs::create_dir_all(&folder).or_trouble(folder.display())?;
    for entry in fs::read_dir(&folder).or_trouble(folder.display())?.flatten() {
        if entry.path().extension().is_some_and(|ending| ending == "svg") {
            fs::remove_file(entry.path()).or_trouble(entry.path().display())?;
        }
    }
    for (name, plot) in plots::all(findings) {
        let path = folder.join(name);
        fs::write(&path, plot).or_trouble(path.display())?;
    }
    fs::write(&document, text).or_trouble(document.display())?;
    println!("wrote {} and its plots", document.display());
    Ok(())
}

fn replaced(text: &str, tables: &str) -> Option<String> {
    let (before, rest) = text.split_once(BEGIN)?;
    let (_, after) = rest.split_once(END)?;
    Some(format!("{before}{BEGIN}\n\n{tables}\n{END}{after}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_between_the_marks_changes() {
        let text = format!("a\n{BEGIN}\nold\n{END}\nb\n");
        let new = replaced(&text, "new\n").unwrap();
        assert_eq!(new, format!("a\n{BEGIN}\n\nnew\n\n{END}\nb\n"));
        assert_eq!(replaced(&new, "new\n").unwrap(), new);
        assert_eq!(replaced("no marks", "new"), None);
    }

    #[test]
    fn the_document_has_its_marks() {
        let text = fs::read_to_string(root().join("docs/performance.md")).unwrap();
        assert!(replaced(&text, "").is_some());
    }
}
