//! What the sources must look like, checked by `cargo test -p xtask`. The rules and their reasons
//! are in CONTRIBUTING.md; a rule that no machine checks is a wish.

pub mod member_table;

use std::path::{Path, PathBuf};

/// A place that breaks a rule, and the rule.
pub type Finding = String;

/// A file of the project, with its path from the root.
pub struct Source {
    /// The path, with `/` between its parts.
    pub path: String,
    /// Its lines.
    pub lines: Vec<String>,
}

/// The most lines a function may have.
pub const FUNCTION_LINES_MAX: usize = 60;

/// What stands in the comment above a function that has a reason to be longer.
pub const LONG_BECAUSE: &str = "Long because";

/// The root of the workspace.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask is in the workspace").into()
}

/// All files below `crates` and `xtask` with this ending.
pub fn sources(ending: &str) -> Vec<Source> {
    let root = root();
    let mut found = Vec::new();
    for folder in ["crates", "xtask"] {
        walk(&root, &root.join(folder), ending, &mut found);
    }
    found.sort_by(|a, b| a.path.cmp(&b.path));
    found
}

fn walk(root: &Path, folder: &Path, ending: &str, found: &mut Vec<Source>) {
    let entries = std::fs::read_dir(folder).expect("a folder of the project can be read");
    for path in entries.map(|entry| entry.expect("an entry can be read").path()) {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if path.is_dir() {
            if name != "target" && name != "generated" {
                walk(root, &path, ending, found);
            }
        } else if name.ends_with(ending) {
            let text = std::fs::read_to_string(&path).expect("a source is text");
            let path = path.strip_prefix(root).expect("it is below the root");
            found.push(Source {
                path: path.to_string_lossy().replace('\\', "/"),
                lines: text.lines().map(str::to_string).collect(),
            });
        }
    }
}

impl Source {
    /// The crate the file belongs to.
    pub fn krate(&self) -> &str {
        self.path.split('/').nth(1).unwrap_or_default()
    }

    /// Whether the file is part of what is shipped: not a test, an example or a benchmark.
    pub fn is_shipped(&self) -> bool {
        self.path.contains("/src/")
    }

    /// Its lines with their numbers, without comments and what follows `mod tests`.
    pub fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        self.lines
            .iter()
            .map(String::as_str)
            .enumerate()
            .take_while(|(_, line)| !line.starts_with("mod tests {"))
            .filter(|(_, line)| !line.trim_start().starts_with("//"))
            .map(|(n, line)| (n + 1, line))
    }
}

/// Functions longer than [`FUNCTION_LINES_MAX`] without a reason in the comment above them.
/// Relies on the formatter: a function ends at the first `}` as far in as its `fn`.
pub fn long_functions(source: &Source) -> Vec<Finding> {
    let mut found = Vec::new();
    for (n, line) in source.lines.iter().enumerate() {
        let code = line.trim_start();
        let is_function = code.starts_with("fn ") || code.contains(" fn ") && code.contains('(');
        if !is_function || code.starts_with("//") || code.starts_with("type ") {
            continue;
        }
        let end = format!("{}}}", &line[..line.len() - code.len()]);
        let body = source.lines[n..].iter().position(|line| *line == end);
        let Some(last) = body.filter(|last| *last >= FUNCTION_LINES_MAX) else { continue };
        // A declaration without a body has no end of its own.
        let declared = source.lines[n..n + last].iter().position(|line| line.ends_with(';'));
        let opened = source.lines[n..n + last].iter().position(|line| line.ends_with('{'));
        if declared.is_some_and(|declared| opened.is_none_or(|opened| declared < opened)) {
            continue;
        }
        let above = source.lines[..n].iter().rev().take_while(|line| {
            line.trim_start().starts_with("//") || line.trim_start().starts_with("#[")
        });
        if !above.into_iter().any(|line| line.contains(LONG_BECAUSE)) {
            found.push(format!("{}:{}: {} lines", source.path, n + 1, last + 1));
        }
    }
    found
}

/// Places where one of `words` stands in code.
pub fn words(source: &Source, words: &[&str]) -> Vec<Finding> {
    let mut found = Vec::new();
    for (n, line) in source.code() {
        for word in words.iter().filter(|word| has_word(line, word)) {
            found.push(format!("{}:{n}: {word}", source.path));
        }
    }
    found
}

/// Whether a line has this word, and not only as a part of another.
fn has_word(line: &str, word: &str) -> bool {
    let part = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_');
    line.match_indices(word).any(|(at, _)| {
        !part(line[..at].chars().next_back()) && !part(line[at + word.len()..].chars().next())
    })
}
