//! The table in docs/testing.md that says where each part of a member is simulated: whether it
//! lacks a part, or names what is not there.
//!
//! Parts that the sources are searched for:
//!
//! - **thread**: `thread::Builder::new()`, by the text that it is named with; and what starts a
//!   thread without a name, by the call;
//! - **queue**: what is made by `channel(..)`, by the first name that it is given; a `VecDeque`, by
//!   the name before it; a struct whose name ends with `Queue`;
//! - **budget**: a constant with one of [`BUDGET_WORDS`] in its name.
//!
//! Two of one kind and name in one file are one part. A row may also name a **decision**: any name
//! in the code.

use crate::{Finding, Source, has_word};
use std::collections::BTreeSet;

/// The heading above the table.
pub const HEADING: &str = "## What of a member is simulated";

/// Crates that a member consists of.
const CRATES: [&str; 5] = ["raft", "replica", "server", "store", "wal"];
/// A server without a member, for measurements.
const NO_MEMBER: &str = "crates/server/src/null.rs";

/// A constant with one of these between the underscores of its name is a budget.
pub const BUDGET_WORDS: [&str; 6] = ["BYTES", "LIMIT", "MAX", "MIN", "PATIENCE", "TIMEOUT"];

/// Calls that start threads without a name.
const NAMELESS: [&str; 4] =
    ["thread::spawn", "thread::scope", "spawn_blocking", "new_multi_thread"];

/// Kind, path and name.
type Part = (String, String, String);

/// What a table lacks, and what it names that is not in the sources.
pub fn check(document: &str, sources: &[Source]) -> Vec<Finding> {
    let parts: BTreeSet<Part> = sources.iter().flat_map(parts).collect();
    let (mut listed, mut found) = (BTreeSet::new(), Vec::new());
    for row in rows(document) {
        let cells: Vec<&str> = row.split('|').map(str::trim).collect();
        let [_, named, kind, _, place, _] = cells[..] else {
            found.push(format!("this row has not four cells: {row}"));
            continue;
        };
        for (path, name) in references(named) {
            let part = (kind.to_owned(), path, name);
            let (_, path, name) = &part;
            let is_decision = kind == "decision" && is_there(sources, path, name);
            if !is_decision && !parts.contains(&part) {
                found.push(format!("a row names the {kind} {name}, which is not in {path}"));
            }
            listed.insert(part);
        }
        for (path, name) in references(place) {
            if !is_there(sources, &path, &name) {
                found.push(format!("the row of {named} refers to {name}, not in {path}"));
            }
        }
        if references(place).next().is_none() && !place.contains("no test") {
            found.push(format!("the row of {named} names no place, nor says: no test"));
        }
    }
    let missing = parts.difference(&listed);
    found.extend(missing.map(|(kind, path, name)| format!("{path}: the {kind} {name} has no row")));
    found
}

/// The rows below the heading, without those of the table's head.
fn rows(document: &str) -> impl Iterator<Item = &str> {
    let section = document.lines().skip_while(|line| *line != HEADING).skip(1);
    section.take_while(|line| !line.starts_with("## ")).filter(|line| line.starts_with("| `"))
}

/// The paths and names of all that a cell refers to: `` `wal/src/wal.rs: open, append` `` are two.
fn references(cell: &str) -> impl Iterator<Item = (String, String)> {
    let quoted = cell.split('`').skip(1).step_by(2);
    quoted.filter_map(|quoted| quoted.split_once(": ")).flat_map(|(path, names)| {
        names.split(", ").map(move |name| (format!("crates/{path}"), name.to_owned()))
    })
}

/// Whether a file's code has the name, be it in a test.
fn is_there(sources: &[Source], path: &str, name: &str) -> bool {
    let is_code = |line: &&String| !line.trim_start().starts_with("//");
    let file = sources.iter().find(|source| source.path == path);
    file.is_some_and(|file| file.lines.iter().filter(is_code).any(|line| has_word(line, name)))
}

/// The threads, queues and budgets of a file.
fn parts(source: &Source) -> BTreeSet<Part> {
    let mut found = BTreeSet::new();
    let is_member = CRATES.contains(&source.krate()) && source.path != NO_MEMBER;
    if !is_member || !source.is_shipped() {
        return found;
    }
    let lines: Vec<&str> = source.code().map(|(_, line)| line.trim()).collect();
    for (n, line) in lines.iter().enumerate() {
        let names = [
            ("thread", thread(&lines[n..])),
            ("queue", channel(line)),
            ("queue", deque(line)),
            ("queue", queue_struct(line)),
            ("budget", budget(line)),
        ];
        for (kind, name) in names {
            let part = |name: &str| (kind.to_owned(), source.path.clone(), name.to_owned());
            found.extend(name.map(part));
        }
    }
    found
}

/// The thread that the first of these lines starts. Its name may stand on the next line.
fn thread<'a>(lines: &[&'a str]) -> Option<&'a str> {
    if let Some((_, rest)) = lines[0].split_once("thread::Builder::new()") {
        let name = if rest.is_empty() { *lines.get(1)? } else { rest };
        return Some(name.split('"').nth(1).unwrap_or("thread::Builder"));
    }
    NAMELESS.into_iter().find(|call| lines[0].contains(&format!("{call}(")))
}

fn channel(line: &str) -> Option<&str> {
    let is_call = line.contains("channel(") || line.contains("channel::<");
    let pair = line.strip_prefix("let (").and_then(|names| names.split_once(','));
    let name = pair.map_or("channel", |(first, _)| first.trim_start_matches("mut "));
    (is_call && !line.contains("fn ")).then_some(name)
}

fn deque(line: &str) -> Option<&str> {
    let at = line.find("VecDeque<").or_else(|| line.find("VecDeque::"))?;
    let before = line[..at].trim_end_matches("std::collections::").trim_end_matches("&mut ");
    let before = before.trim_end_matches([' ', ':', '=', '&']);
    before.rsplit(|c: char| !c.is_alphanumeric() && c != '_').next()
}

fn queue_struct(line: &str) -> Option<&str> {
    let (_, rest) = line.split_once("struct ")?;
    let name = rest.split(|c: char| !c.is_alphanumeric()).next()?;
    name.ends_with("Queue").then_some(name)
}

fn budget(line: &str) -> Option<&str> {
    let (before, rest) = line.split_once("const ")?;
    let (name, _) = rest.split_once(": ")?;
    let is_item = before.is_empty() || before.starts_with("pub");
    let is_budget = name.split('_').any(|word| BUDGET_WORDS.contains(&word));
    (is_item && is_budget).then_some(name)
}
