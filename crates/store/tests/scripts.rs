//! Runs `tests/scripts/*`: what the store does, one behaviour a file; the file's name is the claim.
//!
//! `put KEY VALUE`, `delete KEY [END]`, `range KEY [END]`, `txn [if COMPARE..] [then OP..]
//! [else OP..]`, `compact REVISION`; `sweep [N]`, `changes FROM`, `stats`, `keep NAME` (a view, read
//! by `range .. view=NAME`), `limit N` (operations of a transaction). A key or value `_` is empty,
//! an end `*` is the end of all keys, a key `*` all of them. Options are words or `name=value`.
//! Regenerate with `UPDATE_GOLDENFILES=1`, then read what changed.
#![allow(clippy::unwrap_used)] // helpers of tests are tests

use std::collections::BTreeMap;
use std::error::Error;
use std::fmt::Write as _;
use std::path::PathBuf;

use bytes::Bytes;
use goldenscript::Argument;
use store::*;

type Failed = Box<dyn Error>;

#[test]
fn scripts() {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/scripts");
    let mut paths: Vec<_> =
        std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    assert!(paths.len() >= 40, "the scripts are in {folder:?}");
    for path in paths {
        println!("{}", path.display());
        goldenscript::run(&mut Runner::new(), &path).unwrap();
    }
}

/// A command's words, as they came.
struct Words(Vec<String>);

impl TryFrom<&goldenscript::Command> for Words {
    type Error = Failed;

    fn try_from(command: &goldenscript::Command) -> Result<Words, Failed> {
        let mut words = vec![command.name.clone()];
        for argument in &command.args {
            words.push(match argument {
                Argument::Positional(word) => word.clone(),
                Argument::KeyValue(key, value) => format!("{key}={value}"),
                _ => return Err("an argument of a new kind".into()),
            });
        }
        Ok(Words(words))
    }
}

struct Runner {
    store: Store,
    kept: BTreeMap<String, View>,
    limits: Limits,
}

impl Runner {
    fn new() -> Runner {
        let limits = Limits { txn_ops_max: 128 };
        Runner { store: Store::new(), kept: BTreeMap::new(), limits }
    }

    fn apply(&mut self, command: &Command) -> String {
        let applied = command.check(&self.limits).and_then(|()| self.store.apply(command));
        let mut text = match applied {
            Err(refusal) => format!("refused: {refusal}\n"),
            Ok(Outcome::Put { prev }) => show_put(prev.as_ref(), ""),
            Ok(Outcome::DeleteRange { deleted, prevs }) => show_delete(deleted, &prevs, ""),
            Ok(Outcome::Txn(outcome)) => show_txn(&outcome, ""),
            Ok(Outcome::Compact) => "compacted\n".into(),
        };
        writeln!(text, "revision {}", self.store.revision()).unwrap();
        text
    }

    fn range(&self, range: &Range, view: Option<&str>) -> Result<String, Failed> {
        let view = match view {
            Some(name) => self.kept.get(name).ok_or("no such view")?.clone(),
            None => self.store.view(),
        };
        Ok(match view.range(range) {
            Err(refusal) => format!("refused: {refusal}\n"),
            Ok(result) => show_range(&result, ""),
        })
    }

    fn changes(&self, from: i64) -> String {
        let view = self.store.view();
        let changes = match view.changes(Revision(from)) {
            Err(refusal) => return format!("refused: {refusal}\n"),
            Ok(changes) => changes,
        };
        let mut text = String::new();
        for change in changes {
            match change {
                Change::Put(kv) => writeln!(text, "put {}", show(&kv)),
                Change::Delete { key, revision } => {
                    writeln!(text, "delete {} mod={revision}", word(&key))
                }
            }
            .unwrap();
        }
        text
    }
}

impl goldenscript::Runner for Runner {
    type Command = Words;

    fn run(&mut self, words: &Words, _: &goldenscript::Context) -> Result<String, Failed> {
        let words: Vec<&str> = words.0.iter().map(String::as_str).collect();
        let number = |at: usize| words.get(at).map_or(Ok(0), |word| word.parse::<i64>());
        Ok(match words[0] {
            "put" | "delete" | "txn" => self.apply(&command(&words)?),
            "compact" => self.apply(&Command::Compact(Compact { revision: number(1)? })),
            "range" => {
                let (view, words): (Vec<&str>, Vec<&str>) =
                    words.iter().partition(|word| word.starts_with("view="));
                let Op::Range(range) = op(&words)? else { return Err("not a range".into()) };
                self.range(&range, view.first().map(|view| &view[5..]))?
            }
            "read" => {
                let Command::Txn(txn) = command(&[&["txn"], &words[1..]].concat())? else {
                    return Err("not a transaction".into());
                };
                match self.store.view().txn(&txn) {
                    Err(refusal) => format!("refused: {refusal}\n"),
                    Ok(outcome) => show_txn(&outcome, ""),
                }
            }
            "sweep" => match words.get(1) {
                Some(word) => {
                    let changes = word.parse()?;
                    let more = (0..changes).fold(self.store.sweep(0), |_, _| self.store.sweep(1));
                    format!("more: {more}\n")
                }
                None => {
                    while self.store.sweep(1) {}
                    String::new()
                }
            },
            "changes" => self.changes(number(1)?),
            "stats" => {
                let view = self.store.view();
                format!(
                    "revision {} compacted {} keys {} bytes {}\n",
                    view.revision(),
                    view.compacted(),
                    view.keys(),
                    view.bytes()
                )
            }
            "keep" => {
                self.kept.insert(words[1].into(), self.store.view());
                String::new()
            }
            "limit" => {
                self.limits.txn_ops_max = words[1].parse()?;
                String::new()
            }
            other => return Err(format!("no command {other}").into()),
        })
    }
}

fn command(words: &[&str]) -> Result<Command, Failed> {
    if words[0] == "txn" {
        let mut rest = words[1..].iter().copied();
        return Ok(Command::Txn(txn(&mut rest)?));
    }
    match op(words)? {
        Op::Put(put) => Ok(Command::Put(put)),
        Op::DeleteRange(delete) => Ok(Command::DeleteRange(delete)),
        _ => Err("not a command".into()),
    }
}

/// `if`, `then` and `else` lists up to `end` or the end of the words; operations are quoted, a nested
/// transaction is `txn .. end`.
fn txn<'a>(words: &mut impl Iterator<Item = &'a str>) -> Result<Txn, Failed> {
    let (mut parsed, mut list) = (Txn::default(), "then");
    while let Some(word) = words.next() {
        let step = match word {
            "if" | "then" | "else" => {
                list = word;
                continue;
            }
            "end" => break,
            _ if list == "if" => {
                parsed.compare.push(compare(&word.split(' ').collect::<Vec<_>>())?);
                continue;
            }
            "txn" => Op::Txn(txn(words)?),
            _ => op(&word.split(' ').collect::<Vec<_>>())?,
        };
        if list == "then" { parsed.success.push(step) } else { parsed.failure.push(step) }
    }
    Ok(parsed)
}

/// `TARGET KEY [END] RESULT OPERAND`
fn compare(words: &[&str]) -> Result<Compare, Failed> {
    let (end, result, given) = match words {
        [_, _, result, given] => ("_", *result, *given),
        [_, _, end, result, given] => (*end, *result, *given),
        _ => return Err("compare: TARGET KEY [END] RESULT OPERAND".into()),
    };
    let number = || given.parse::<i64>();
    let (target, operand) = match words[0] {
        "version" => (CompareTarget::Version, Operand::Version(number()?)),
        "create" => (CompareTarget::Create, Operand::Create(number()?)),
        "mod" => (CompareTarget::Mod, Operand::Mod(number()?)),
        "lease" => (CompareTarget::Lease, Operand::Lease(number()?)),
        "value" => (CompareTarget::Value, Operand::Value(bytes(given))),
        "value-of-none" => (CompareTarget::Value, Operand::None),
        "mod-given-version" => (CompareTarget::Mod, Operand::Version(number()?)),
        "unknown" => (CompareTarget::Unknown(9), Operand::None),
        other => return Err(format!("no target {other}").into()),
    };
    let result = match result {
        "=" => CompareResult::Equal,
        ">" => CompareResult::Greater,
        "<" => CompareResult::Less,
        "!=" => CompareResult::NotEqual,
        "?" => CompareResult::Unknown(9),
        other => return Err(format!("no result {other}").into()),
    };
    let (key, range_end) = keys(&[words[1], end]);
    Ok(Compare { key, range_end, result, target, operand })
}

fn op(words: &[&str]) -> Result<Op, Failed> {
    let is_option = |word: &&str| word.contains('=') || FLAGS.contains(word);
    let (options, plain): (Vec<&str>, Vec<&str>) = words[1..].iter().partition(|w| is_option(w));
    let flag = |name: &str| options.contains(&name);
    let value =
        |name: &str| options.iter().find_map(|word| word.strip_prefix(name)?.strip_prefix('='));
    let number = |name: &str| value(name).map_or(Ok(0), str::parse::<i64>);
    let (key, range_end) = keys(&plain);
    Ok(match words[0] {
        "put" => Op::Put(Put {
            key,
            value: plain.get(1).map_or(Bytes::new(), |value| bytes(value)),
            lease: LeaseId(number("lease")?),
            prev_kv: flag("prev_kv"),
            ignore_value: flag("ignore_value"),
            ignore_lease: flag("ignore_lease"),
        }),
        "delete" => Op::DeleteRange(DeleteRange { key, range_end, prev_kv: flag("prev_kv") }),
        "range" => Op::Range(Range {
            key,
            range_end,
            limit: number("limit")?,
            revision: number("rev")?,
            sort_order: match value("order") {
                None => SortOrder::None,
                Some("ascend") => SortOrder::Ascend,
                Some("descend") => SortOrder::Descend,
                Some(other) => SortOrder::Unknown(other.parse()?),
            },
            sort_target: match value("sort") {
                None | Some("key") => SortTarget::Key,
                Some("version") => SortTarget::Version,
                Some("create") => SortTarget::Create,
                Some("mod") => SortTarget::Mod,
                Some("value") => SortTarget::Value,
                Some(other) => SortTarget::Unknown(other.parse()?),
            },
            keys_only: flag("keys_only"),
            count_only: flag("count_only"),
            min_mod_revision: number("min_mod")?,
            max_mod_revision: number("max_mod")?,
            min_create_revision: number("min_create")?,
            max_create_revision: number("max_create")?,
        }),
        "nothing" => Op::Empty,
        other => return Err(format!("no operation {other}").into()),
    })
}

const FLAGS: [&str; 5] = ["prev_kv", "ignore_value", "ignore_lease", "keys_only", "count_only"];

fn bytes(word: &str) -> Bytes {
    if word == "_" { Bytes::new() } else { Bytes::copy_from_slice(word.as_bytes()) }
}

fn keys(words: &[&str]) -> (Bytes, Bytes) {
    let zero = Bytes::from_static(&[0]);
    let first = words.first().copied().unwrap_or("_");
    if first == "*" {
        return (zero.clone(), zero);
    }
    let end = words.get(1).copied().unwrap_or("_");
    (bytes(first), if end == "*" { zero } else { bytes(end) })
}

fn word(bytes: &[u8]) -> String {
    bytes.escape_ascii().to_string()
}

fn show(kv: &KeyValue) -> String {
    format!(
        "{}={} create={} mod={} version={}",
        word(&kv.key),
        word(&kv.value),
        kv.create_revision,
        kv.mod_revision,
        kv.version
    )
}

fn show_put(prev: Option<&KeyValue>, indent: &str) -> String {
    match prev {
        None => format!("{indent}put\n"),
        Some(prev) => format!("{indent}put, was {}\n", show(prev)),
    }
}

fn show_delete(deleted: i64, prevs: &[KeyValue], indent: &str) -> String {
    let mut text = format!("{indent}deleted {deleted}\n");
    for prev in prevs {
        writeln!(text, "{indent}  was {}", show(prev)).unwrap();
    }
    text
}

fn show_range(result: &RangeResult, indent: &str) -> String {
    let mut text = String::new();
    for kv in &result.kvs {
        writeln!(text, "{indent}{}", show(kv)).unwrap();
    }
    let more = if result.more { ", more" } else { "" };
    writeln!(text, "{indent}count {}{more}", result.count).unwrap();
    text
}

fn show_txn(outcome: &TxnOutcome, indent: &str) -> String {
    let mut text = format!("{indent}{}\n", if outcome.succeeded { "then" } else { "else" });
    let inner = format!("{indent}  ");
    for response in &outcome.responses {
        let (at, shown) = match response {
            OpOutcome::Range { revision, result } => (revision, show_range(result, &inner)),
            OpOutcome::Put { revision, prev } => (revision, show_put(prev.as_ref(), &inner)),
            OpOutcome::DeleteRange { revision, deleted, prevs } => {
                (revision, show_delete(*deleted, prevs, &inner))
            }
            OpOutcome::Txn(nested) => {
                text += &show_txn(nested, &inner);
                continue;
            }
        };
        writeln!(text, "{indent} at {at}").unwrap();
        text += &shown;
    }
    text
}
