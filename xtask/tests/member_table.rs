//! The check of the table of what is simulated finds what it looks for.

use xtask::Source;
use xtask::member_table::{HEADING, check};

const MEMBER: &str = r#"
use std::sync::mpsc::{Receiver, channel};
pub(crate) const WAITING_BYTES_MAX: usize = 1;
const REQUEST_TIMEOUT: Duration = Duration::from_secs(1);
const MAXIMUM: usize = 1; // const NO_MAX: usize = 1;
// let (comment, receiver) = channel();
pub struct FrameQueue {
    waiting: VecDeque<Frame>,
}
fn start(asked: &mut VecDeque<Frame>) {
    let (mut told, hears) = tokio::sync::watch::channel(false);
    give(sync_channel(1));
    let thread = std::thread::Builder::new().name(format!("net-{number}"));
    std::thread::Builder::new()
        .name("disk".to_owned())
        .spawn(write)?;
    std::thread::spawn(read);
    tokio::spawn(async move { WAITING_BYTES_MAX });
}
#[cfg(test)]
mod tests {
    const TEST_MAX: usize = 1;
}
"#;

const ROWS: [&str; 4] = [
    "| `server/src/x.rs: disk, net-{number}, thread::spawn` | thread | . | Yes: `sim/src/y.rs: on_turn` |",
    "| `server/src/x.rs: FrameQueue, asked, channel, told, waiting` | queue | . | No; no test |",
    "| `server/src/x.rs: REQUEST_TIMEOUT, WAITING_BYTES_MAX` | budget | . | No: `server/src/x.rs: TEST_MAX` |",
    "| `server/src/x.rs: start` | decision | . | Yes: `sim/src/y.rs: on_turn` |",
];

fn source(path: &str, text: &str) -> Source {
    Source { path: path.into(), lines: text.lines().map(str::to_string).collect() }
}

/// What is found in a table of these rows, when the member's source is this.
fn found(rows: &[&str], member: &str) -> Vec<String> {
    let simulation = source("crates/sim/src/y.rs", "fn on_turn(waiting: VecDeque<Frame>) {}");
    let sources = [source("crates/server/src/x.rs", member), simulation];
    check(&format!("{HEADING}\n\n| what | kind |\n|---|---|\n{}\n", rows.join("\n")), &sources)
}

#[test]
fn a_table_with_all_parts_is_good() {
    assert_eq!(found(&ROWS, MEMBER), Vec::<String>::new());
    let other = source("crates/client/src/x.rs", MEMBER);
    assert_eq!(check("", &[other]), Vec::<String>::new(), "it is no part of a member");
}

#[test]
fn a_part_without_a_row_is_named() {
    let queues = ["FrameQueue", "asked", "channel", "told", "waiting"];
    let expected =
        queues.map(|name| format!("crates/server/src/x.rs: the queue {name} has no row"));
    assert_eq!(found(&[ROWS[0], ROWS[2], ROWS[3]], MEMBER), expected);
    let (budgets, threads) =
        (["REQUEST_TIMEOUT", "WAITING_BYTES_MAX"], ["disk", "net-{number}", "thread::spawn"]);
    let named =
        |kind: &str, name: &&str| format!("crates/server/src/x.rs: the {kind} {name} has no row");
    let expected = budgets.iter().map(|name| named("budget", name));
    let expected = expected.chain(threads.iter().map(|name| named("thread", name)));
    assert_eq!(found(&[ROWS[1], ROWS[3]], MEMBER), expected.collect::<Vec<_>>());
    let planted = MEMBER.replace("const MAXIMUM", "const LINES_MAX: u8 = 1;\nconst MAXIMUM");
    assert_eq!(found(&ROWS, &planted), ["crates/server/src/x.rs: the budget LINES_MAX has no row"]);
}

#[test]
fn a_row_of_what_is_gone_is_named() {
    let gone = |kind: &str, name: &str| {
        vec![format!("a row names the {kind} {name}, which is not in crates/server/src/x.rs")]
    };
    for (kind, text, name) in [
        ("thread", "        .name(\"disk\".to_owned())", "disk"),
        ("queue", "asked: &mut VecDeque<Frame>", "asked"),
        ("budget", "pub(crate) const WAITING_BYTES_MAX: usize = 1;", "WAITING_BYTES_MAX"),
        ("decision", "fn start(", "start"),
    ] {
        let without = MEMBER.replace(text, if kind == "decision" { "fn begin(" } else { "" });
        let found = found(&ROWS, &without);
        assert!(found.starts_with(&gone(kind, name)), "{found:?}");
    }
    let moved = ROWS.map(|row| row.replace("on_turn", "on_round"));
    let moved: Vec<&str> = moved.iter().map(String::as_str).collect();
    let refers = |part: &str| {
        format!(
            "the row of `server/src/x.rs: {part}` refers to on_round, not in crates/sim/src/y.rs"
        )
    };
    let parts = ["disk, net-{number}, thread::spawn", "start"];
    assert_eq!(found(&moved, MEMBER), parts.map(refers));
}

#[test]
fn a_row_that_says_too_little_is_named() {
    let silent = "| `server/src/x.rs: start` | decision | . | Yes |";
    let found = found(&[ROWS[0], ROWS[1], ROWS[2], silent, "| `short` |"], MEMBER);
    assert_eq!(
        found,
        [
            "the row of `server/src/x.rs: start` names no place, nor says: no test",
            "this row has not four cells: | `short` |",
        ]
    );
}
