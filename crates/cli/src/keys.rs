//! put, get, del and compaction.

use std::ffi::OsString;
use std::io::Read;
use std::os::unix::ffi::OsStringExt;
use std::time::Duration;

use bytes::Bytes;
use raft_kv_client as client;
use raft_kv_client::{SortOrder, SortTarget};

use crate::arguments::{Compaction, Del, Get, Put};
use crate::failure::Failure;
use crate::output::{Answer, Format, Style};
use crate::quote::quote;
use crate::session::Session;

const BOTH_RANGES: &str = "`--prefix` and `--from-key` cannot be set at the same time, choose one";
const RANGE_AND_END: &str =
    "too many arguments, only accept one argument when `--prefix` or `--from-key` is set";

pub(crate) async fn put(session: &Session, put: Put) -> Result<(), Failure> {
    let request = put_request(put, true)?;
    let answer = session.client()?.put(request).await?;
    session.print(Answer::Put(&answer).render(session.style())?)
}

pub(crate) async fn get(session: &Session, get: Get) -> Result<(), Failure> {
    let (count_only, value_only) = (get.count_only, get.print_value_only);
    let request = get_request(get)?;
    let answer = session.client()?.get(request).await?;
    if count_only && session.format != Format::Fields {
        return Err(Failure::arguments("--count-only is only for `--write-out=fields`"));
    }
    if value_only && session.format != Format::Simple {
        return Err(Failure::arguments("print-value-only is only for `--write-out=simple`"));
    }
    session.print(Answer::Get(&answer).render(Style { value_only, ..session.style() })?)
}

pub(crate) async fn del(session: &Session, del: Del) -> Result<(), Failure> {
    let think_again = del.args.len() == 2 && !del.range;
    let ends = del.args.clone();
    let request = del_request(del)?;
    if think_again {
        let [from, to] = [&ends[0], &ends[1]].map(|end| quote(&end.clone().into_vec()));
        eprintln!(
            "Warning: Keys between {from} and {to} will be deleted. Please interrupt the command within next 2 \
             seconds to cancel. You can provide `--range` flag to avoid the delay."
        );
        tokio::time::sleep(Duration::from_secs(2)).await;
    }
    let answer = session.client()?.delete(request).await?;
    session.print(Answer::Delete(&answer).render(session.style())?)
}

pub(crate) async fn compaction(session: &Session, compaction: Compaction) -> Result<(), Failure> {
    let [revision] = compaction.args.as_slice() else {
        return Err(Failure::arguments("compaction command needs 1 argument"));
    };
    let revision = parse_i64(revision, 10).map_err(Failure::error)?;
    session.client()?.compact(revision, compaction.physical).await?;
    session.print(format!("compacted revision {revision}\n"))
}

/// A value that is not given is read from standard input, where `stdin` allows it.
pub(crate) fn put_request(put: Put, stdin: bool) -> Result<client::Put, Failure> {
    let usage =
        || Failure::arguments("put command needs 1 argument and input from stdin or 2 arguments");
    let mut args = put.args.into_iter().map(bytes);
    let key = args.next().ok_or_else(usage)?;
    let value = match (args.next(), put.ignore_value) {
        (Some(_), true) => {
            let text = "put command needs only 1 argument when 'ignore-value' is set";
            return Err(Failure::arguments(text));
        }
        (None, true) => Bytes::new(),
        (Some(value), false) => value,
        (None, false) if stdin => {
            let mut value = Vec::new();
            std::io::stdin().read_to_end(&mut value).map_err(|_| usage())?;
            if value.is_empty() {
                return Err(usage());
            }
            value.into()
        }
        (None, false) => return Err(usage()),
    };
    let lease = parse_i64(&put.lease, 16).map_err(|error| {
        Failure::arguments(format!("bad lease ID ({error}), expecting ID in Hex"))
    })?;
    let mut request = client::Put::new(key, value).lease(lease);
    if put.prev_kv {
        request = request.prev_kv();
    }
    if put.ignore_value {
        request = request.ignore_value();
    }
    if put.ignore_lease {
        request = request.ignore_lease();
    }
    Ok(request)
}

pub(crate) fn get_request(get: Get) -> Result<client::Get, Failure> {
    if get.args.is_empty() {
        let text = "get command needs one argument as key and an optional argument as range_end";
        return Err(Failure::arguments(text));
    }
    if get.prefix && get.from_key {
        return Err(Failure::arguments(BOTH_RANGES));
    }
    if get.keys_only && get.count_only {
        let text = "`--keys-only` and `--count-only` cannot be set at the same time, choose one";
        return Err(Failure::arguments(text));
    }
    let serializable = is_serializable(&get.consistency)?;
    let (order, target) = (sort_order(&get.order)?, sort_target(&get.sort_by)?);
    let mut args = get.args.into_iter().map(bytes);
    let key = args.next().unwrap_or_default();
    let mut request = match (args.next(), get.prefix, get.from_key) {
        (Some(_), true, _) | (Some(_), _, true) => return Err(Failure::arguments(RANGE_AND_END)),
        (Some(end), false, false) => client::Get::range(key, end),
        (None, true, _) => client::Get::prefix(key),
        (None, _, true) => client::Get::from_key(key),
        (None, false, false) => client::Get::key(key),
    };
    request = request
        .limit(get.limit)
        .revision(get.rev.max(0))
        .sort(target, order)
        .created_between(get.min_create_rev, get.max_create_rev)
        .modified_between(get.min_mod_rev, get.max_mod_rev);
    if serializable {
        request = request.serializable();
    }
    if get.keys_only {
        request = request.keys_only();
    }
    if get.count_only {
        request = request.count_only();
    }
    Ok(request)
}

pub(crate) fn del_request(del: Del) -> Result<client::Delete, Failure> {
    if del.args.is_empty() || del.args.len() > 2 {
        let text = "del command needs one argument as key and an optional argument as range_end";
        return Err(Failure::arguments(text));
    }
    if del.prefix && del.from_key {
        return Err(Failure::arguments(BOTH_RANGES));
    }
    let mut args = del.args.into_iter().map(bytes);
    let key = args.next().unwrap_or_default();
    let request = match (args.next(), del.prefix, del.from_key) {
        (Some(_), true, _) | (Some(_), _, true) => return Err(Failure::arguments(RANGE_AND_END)),
        (Some(end), false, false) => client::Delete::range(key, end),
        (None, true, _) => client::Delete::prefix(key),
        (None, _, true) => client::Delete::from_key(key),
        (None, false, false) => client::Delete::key(key),
    };
    Ok(if del.prev_kv { request.prev_kv() } else { request })
}

pub(crate) fn is_serializable(consistency: &str) -> Result<bool, Failure> {
    match consistency {
        "s" => Ok(true),
        "l" => Ok(false),
        other => {
            let other = quote(other.as_bytes());
            Err(Failure::feature(format!("unknown consistency flag {other}")))
        }
    }
}

fn sort_order(name: &str) -> Result<SortOrder, Failure> {
    match name.to_uppercase().as_str() {
        "" => Ok(SortOrder::None),
        "ASCEND" => Ok(SortOrder::Ascend),
        "DESCEND" => Ok(SortOrder::Descend),
        _ => Err(Failure::feature(format!("bad sort order {name}"))),
    }
}

fn sort_target(name: &str) -> Result<SortTarget, Failure> {
    match name.to_uppercase().as_str() {
        "" | "KEY" => Ok(SortTarget::Key),
        "CREATE" => Ok(SortTarget::Create),
        "MODIFY" => Ok(SortTarget::Mod),
        "VALUE" => Ok(SortTarget::Value),
        "VERSION" => Ok(SortTarget::Version),
        _ => Err(Failure::feature(format!("bad sort target {name}"))),
    }
}

fn bytes(argument: OsString) -> Bytes {
    argument.into_vec().into()
}

/// A number, or Go's words about why it is none.
pub(crate) fn parse_i64(text: &str, radix: u32) -> Result<i64, String> {
    i64::from_str_radix(text, radix).map_err(|error| {
        use std::num::IntErrorKind::{NegOverflow, PosOverflow};
        let why = match error.kind() {
            PosOverflow | NegOverflow => "value out of range",
            _ => "invalid syntax",
        };
        format!("strconv.ParseInt: parsing {}: {why}", quote(text.as_bytes()))
    })
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::arguments::TxnLine;

    /// What a command line is refused with.
    fn refusal(line: &str) -> Failure {
        let words = line.split(' ').map(|word| if word == "''" { "" } else { word });
        let request = match TxnLine::try_parse_from(words).expect("clap takes it") {
            TxnLine::Put(put) => put_request(put, false).map(drop),
            TxnLine::Get(get) => get_request(get).map(drop),
            TxnLine::Del(del) => del_request(del).map(drop),
        };
        request.expect_err(line)
    }

    #[test]
    fn refusals_are_etcdctls() {
        // Exit codes and texts as etcdctl 3.7.3 gave them.
        let get = "get command needs one argument as key and an optional argument as range_end";
        let del = "del command needs one argument as key and an optional argument as range_end";
        let table = [
            ("get", 128, get),
            ("get a b --prefix", 128, RANGE_AND_END),
            ("get a --prefix --from-key", 128, BOTH_RANGES),
            (
                "get a --keys-only --count-only",
                128,
                "`--keys-only` and `--count-only` cannot be set at the same time, choose one",
            ),
            ("get a --sort-by nope", 4, "bad sort target nope"),
            ("get a --order nope", 4, "bad sort order nope"),
            ("get a --consistency x", 4, "unknown consistency flag \"x\""),
            ("del", 128, del),
            ("del a b c", 128, del),
            ("del p q --range --prefix", 128, RANGE_AND_END),
            ("del p --prefix --from-key", 128, BOTH_RANGES),
            ("put", 128, "put command needs 1 argument and input from stdin or 2 arguments"),
            (
                "put x 3 --ignore-value",
                128,
                "put command needs only 1 argument when 'ignore-value' is set",
            ),
            (
                "put x 1 --lease zz",
                128,
                "bad lease ID (strconv.ParseInt: parsing \"zz\": invalid syntax), expecting ID in Hex",
            ),
            (
                "put x 1 --lease 99999999999999999",
                128,
                "bad lease ID (strconv.ParseInt: parsing \"99999999999999999\": value out of range), \
                 expecting ID in Hex",
            ),
        ];
        for (line, code, message) in table {
            let failure = refusal(line);
            assert_eq!((failure.code(), failure.message()), (code, message), "{line}");
        }
    }

    #[test]
    fn an_empty_prefix_is_every_key() {
        let every = client::Get::range(&b"\0"[..], &b"\0"[..]);
        for line in [["get", "", "--prefix"], ["get", "", "--from-key"]] {
            let TxnLine::Get(get) = TxnLine::try_parse_from(line).unwrap() else { panic!() };
            assert_eq!(get_request(get).unwrap(), every);
        }
    }
}
