//! txn: conditions and operations, line by line from standard input.

use std::io::BufRead;

use clap::Parser;
use raft_kv_client::{Compare, Comparison, Op, Txn};

use crate::arguments::{self, TxnLine};
use crate::failure::Failure;
use crate::keys;
use crate::output::Answer;
use crate::quote::{quote, unquote};
use crate::session::Session;

pub(crate) async fn txn(session: &Session, flags: arguments::Txn) -> Result<(), Failure> {
    if !flags.args.is_empty() {
        return Err(Failure::arguments("txn command does not accept argument"));
    }
    let mut prompt = |text: &str| match flags.interactive {
        true => session.print(format!("{text}\n")),
        false => Ok(()),
    };
    let txn = read(&mut std::io::stdin().lock(), &mut prompt)?;
    let answer = session.client()?.txn(txn).await?;
    session.print(Answer::Txn(&answer).render(session.style())?)
}

fn read(
    input: &mut impl BufRead,
    prompt: &mut impl FnMut(&str) -> Result<(), Failure>,
) -> Result<Txn, Failure> {
    let mut txn = Txn::new();
    prompt("compares:")?;
    while let Some(line) = next_line(input)? {
        txn = txn.when(compare(&line).map_err(Failure::input)?);
    }
    prompt("success requests (get, put, del):")?;
    while let Some(line) = next_line(input)? {
        txn = txn.then(operation(&line)?);
    }
    prompt("failure requests (get, put, del):")?;
    while let Some(line) = next_line(input)? {
        txn = txn.or_else(operation(&line)?);
    }
    Ok(txn)
}

/// The next line of a list; `None` at the empty line that ends it.
fn next_line(input: &mut impl BufRead) -> Result<Option<String>, Failure> {
    let mut line = String::new();
    input.read_line(&mut line).map_err(|error| Failure::input(error.to_string()))?;
    if !line.ends_with('\n') {
        return Err(Failure::input("EOF"));
    }
    let line = line.trim();
    Ok((!line.is_empty()).then(|| line.to_owned()))
}

/// `mod("key") > "0"`.
fn compare(line: &str) -> Result<Compare, String> {
    let malformed = || format!("malformed comparison: {line}");
    let (target, rest) = line.split_once('(').ok_or_else(malformed)?;
    let (key, rest) = unquote(rest.trim_start()).ok_or_else(malformed)?;
    let rest = rest.strip_prefix(')').ok_or_else(malformed)?.trim_start();
    let (how, rest) = rest.split_once(char::is_whitespace).ok_or_else(malformed)?;
    let (operand, _) = unquote(rest.trim_start()).ok_or_else(malformed)?;
    let how = match how {
        "=" => Comparison::Equal,
        "!=" => Comparison::NotEqual,
        ">" => Comparison::Greater,
        "<" => Comparison::Less,
        _ => return Err(format!("{} (unknown operator {how})", malformed())),
    };
    let number = |radix| {
        let text = std::str::from_utf8(&operand).ok()?;
        keys::parse_i64(text, radix).ok()
    };
    let invalid = || format!("invalid txn compare request: {line}");
    match target {
        "ver" | "version" => Ok(Compare::version(key, how, number(10).ok_or_else(invalid)?)),
        "c" | "create" => Ok(Compare::create_revision(key, how, number(10).ok_or_else(invalid)?)),
        "m" | "mod" => Ok(Compare::mod_revision(key, how, number(10).ok_or_else(invalid)?)),
        "lease" => Ok(Compare::lease(key, how, number(16).ok_or_else(invalid)?)),
        "val" | "value" => Ok(Compare::value(key, how, operand)),
        _ => Err(format!("{} (unknown target {target})", malformed())),
    }
}

/// A put, get or del with its flags, as on the command line.
fn operation(line: &str) -> Result<Op, Failure> {
    let words = words(line)?;
    if words.len() < 2 {
        return Err(Failure::input(format!("invalid txn compare request: {line}")));
    }
    let parsed = TxnLine::try_parse_from(words)
        .map_err(|_| Failure::input(format!("invalid txn request: {line}")))?;
    match parsed {
        TxnLine::Put(put) => keys::put_request(put, false).map(Op::from),
        TxnLine::Get(get) => keys::get_request(get).map(Op::from),
        TxnLine::Del(del) => keys::del_request(del).map(Op::from),
    }
}

/// Splits at spaces, but not inside quotes; double quotes take escapes.
fn words(line: &str) -> Result<Vec<std::ffi::OsString>, Failure> {
    use std::os::unix::ffi::OsStringExt;
    let wrong = |rest: &str| Failure::input(format!("invalid quotes: {}", quote(rest.as_bytes())));
    let mut words = Vec::new();
    let mut rest = line.trim_start();
    while !rest.is_empty() {
        let (word, after) = if rest.starts_with('"') {
            unquote(rest).ok_or_else(|| wrong(rest))?
        } else if let Some(quoted) = rest.strip_prefix('\'') {
            let (word, after) = quoted.split_once('\'').ok_or_else(|| wrong(rest))?;
            (word.as_bytes().to_vec(), after)
        } else {
            let end = rest.find(char::is_whitespace).unwrap_or(rest.len());
            (rest.as_bytes()[..end].to_vec(), &rest[end..])
        };
        words.push(std::ffi::OsString::from_vec(word));
        rest = after.trim_start();
    }
    Ok(words)
}

#[cfg(test)]
mod tests {
    use super::*;
    use raft_kv_client::{Delete, Get, Put};

    fn parsed(text: &str) -> Result<Txn, String> {
        let none = &mut |_: &str| Ok(());
        read(&mut text.as_bytes(), none).map_err(|failure| failure.message().to_owned())
    }

    #[test]
    fn three_lists_each_ended_by_an_empty_line() {
        let text = "mod(\"k\") > \"0\"\n  val(\"a b\") != \"\\x00\"\n\nput k \"a b\" --prev-kv\n\
                    get 'k 1' --limit=3 --from-key\n\ndel k --prefix\nput -- -k -v\n\n";
        let expected = Txn::new()
            .when(Compare::mod_revision("k", Comparison::Greater, 0))
            .when(Compare::value("a b", Comparison::NotEqual, &b"\0"[..]))
            .then(Put::new("k", "a b").prev_kv())
            .then(Get::from_key("k 1").limit(3))
            .or_else(Delete::prefix("k"))
            .or_else(Put::new("-k", "-v"));
        assert_eq!(parsed(text), Ok(expected));
        assert_eq!(parsed("\n\n\n"), Ok(Txn::new()));
    }

    #[test]
    fn what_makes_no_sense_is_named() {
        let table = [
            ("", "EOF"),
            ("\n\n", "EOF"),
            ("mod(\"k\") > \"0\"", "EOF"),
            ("mod k\n", "malformed comparison: mod k"),
            ("mod(k) > \"0\"\n", "malformed comparison: mod(k) > \"0\""),
            ("x(\"k\") > \"0\"\n", "malformed comparison: x(\"k\") > \"0\" (unknown target x)"),
            ("mod(\"k\") > \"z\"\n", "invalid txn compare request: mod(\"k\") > \"z\""),
            ("\nput\n", "invalid txn compare request: put"),
            ("\nfoo k v\n", "invalid txn request: foo k v"),
            ("\nget k --nonsense\n", "invalid txn request: get k --nonsense"),
        ];
        for (text, message) in table {
            assert_eq!(parsed(text), Err(message.to_owned()), "{text:?}");
        }
    }
}
