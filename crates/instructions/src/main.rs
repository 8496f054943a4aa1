//! Counts the instructions of the paths that every request takes, and says how they changed.
//!
//! `cargo run --release -p instructions` runs each path under callgrind, with so many operations
//! and with twice as many; the difference is theirs alone, without the setup. Neither neighbours
//! nor the weather change it, so it can be compared with what was counted on another day, which
//! stands in `recorded.txt`. `-- --record` writes that file anew.
//!
//! Callgrind knows neither caches nor system calls: a count that fell is a hint, not a proof.

mod paths;

use std::collections::BTreeMap;
use std::error::Error;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::Command;

use crate::paths::{PATHS, Path};

/// The binary's, so that its share is counted, too.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

type Outcome<T> = Result<T, Box<dyn Error>>;

fn main() -> Outcome<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        [] => report(false),
        ["--record"] => report(true),
        // What runs under callgrind.
        ["run", name, times] => {
            let path = PATHS.iter().find(|path| path.name == name).ok_or("no such path")?;
            (path.run)(times.parse()?)
        }
        _ => Err("usage: instructions [--record]".into()),
    }
}

fn report(record: bool) -> Outcome<()> {
    let file = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("recorded.txt");
    let before = std::fs::read_to_string(&file).unwrap_or_default();
    let recorded = recorded(&before);
    println!("{:<36}{:>12}{:>12}{:>10}", "instructions of", "recorded", "now", "change");
    let mut text = String::new();
    for path in PATHS {
        let now = counted(path)?;
        writeln!(text, "{:<36}{now:>12}", path.name)?;
        match recorded.get(path.name) {
            Some(&before) => {
                let change = 100.0 * (now as f64 / before as f64 - 1.0);
                println!("{:<36}{before:>12}{now:>12}{change:>+9.1}%", path.name);
            }
            None => println!("{:<36}{:>12}{now:>12}{:>10}", path.name, "-", "new"),
        }
    }
    if record {
        std::fs::write(file, text)?;
    }
    Ok(())
}

/// Lines of a name and a count.
fn recorded(text: &str) -> BTreeMap<&str, u64> {
    let split = text.lines().filter_map(|line| line.trim_end().rsplit_once(' '));
    split.filter_map(|(name, count)| Some((name.trim_end(), count.parse().ok()?))).collect()
}

/// Instructions of one operation.
fn counted(path: &Path) -> Outcome<u64> {
    let (once, twice) = (collected(path.name, path.times)?, collected(path.name, 2 * path.times)?);
    Ok(twice.saturating_sub(once) / path.times)
}

fn collected(name: &str, times: u64) -> Outcome<u64> {
    let run = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(std::env::current_exe()?)
        .args(["run", name, &times.to_string()])
        .output()
        .map_err(|error| format!("valgrind: {error}; is it installed?"))?;
    let said = String::from_utf8_lossy(&run.stderr);
    let count =
        said.lines().find_map(|line| line.split_once("Collected : ")?.1.trim().parse().ok());
    if !run.status.success() {
        return Err(format!("{name}: {}\n{said}", run.status).into());
    }
    Ok(count.ok_or_else(|| format!("{name}: callgrind counted nothing\n{said}"))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_path_can_be_walked() {
        for path in PATHS {
            (path.run)(2).unwrap();
        }
    }

    #[test]
    fn what_was_recorded_is_read() {
        let expected = BTreeMap::from([("a name", 7), ("another", 80)]);
        assert_eq!(recorded("a name     7\n\nanother 80\n"), expected);
    }
}
