//! What is served over plain HTTP: health and version.

use crate::api::{API_VERSION, Member};
use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use std::fmt::Write as _;
use std::sync::atomic::Ordering;
use store::Range;
use tonic::Status;

/// A check that `/livez` or `/readyz` is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Check {
    DataCorruption,
    SerializableRead,
    LinearizableRead,
    NonLearner,
}

const LIVEZ: &[Check] = &[Check::SerializableRead];
const READYZ: &[Check] =
    &[Check::DataCorruption, Check::SerializableRead, Check::LinearizableRead, Check::NonLearner];

impl Check {
    fn name(self) -> &'static str {
        match self {
            Check::DataCorruption => "data_corruption",
            Check::SerializableRead => "serializable_read",
            Check::LinearizableRead => "linearizable_read",
            Check::NonLearner => "non_learner",
        }
    }

    async fn run(self, member: &Member) -> Result<(), Status> {
        match self {
            // Neither can be otherwise yet: no alarm is ever raised, every member votes.
            Check::DataCorruption | Check::NonLearner => Ok(()),
            Check::SerializableRead => read(member),
            Check::LinearizableRead => {
                member.catch_up().await?;
                read(member)
            }
        }
    }
}

/// Reads one key.
fn read(member: &Member) -> Result<(), Status> {
    let range = Range { key: Bytes::from_static(b"a"), limit: 1, ..Range::default() };
    let published = member.published.load_full();
    published.view.range(&range).map(drop).map_err(|refusal| crate::texts::refused(&refusal))
}

/// What is asked for after `?`.
#[derive(Debug, Default, PartialEq, Eq)]
struct Query<'a> {
    serializable: bool,
    verbose: bool,
    exclude: Vec<&'a str>,
}

impl<'a> Query<'a> {
    fn of(text: &'a str) -> Query<'a> {
        let mut query = Query::default();
        for pair in text.split('&') {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            match name {
                "serializable" => query.serializable = value == "true",
                "verbose" => query.verbose = true,
                "exclude" => query.exclude.push(value),
                _ => {}
            }
        }
        query
    }
}

/// Answers one request.
pub async fn answer<B>(member: &Member, request: &Request<B>) -> Response<Bytes> {
    let path = request.uri().path();
    let query = Query::of(request.uri().query().unwrap_or(""));
    let (root, checks) = match path
        .split_at_checked(path[1.min(path.len())..].find('/').map_or(path.len(), |at| at + 1))
    {
        Some(("/livez", rest)) => ("/livez", select(LIVEZ, rest)),
        Some(("/readyz", rest)) => ("/readyz", select(READYZ, rest)),
        _ => (path, None),
    };
    let known = checks.is_some() || matches!(path, "/version" | "/health" | "/status");
    if !known {
        return page(StatusCode::NOT_FOUND, TEXT, "404 page not found\n".to_owned());
    }
    if request.method() != Method::GET {
        let mut refused =
            page(StatusCode::METHOD_NOT_ALLOWED, TEXT, "Method Not Allowed\n".to_owned());
        refused.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET"));
        return refused;
    }
    match checks {
        Some(checks) => run_checks(member, root, &checks, &query).await,
        None if path == "/version" => version(),
        None if path == "/status" => status(member),
        None => health(member, &query).await,
    }
}

/// What this member's consensus and its loop are doing: ours, and not etcd's.
fn status(member: &Member) -> Response<Bytes> {
    let raft::Status {
        id,
        role,
        term,
        leader,
        last,
        durable,
        commit,
        applied,
        unsettled_bytes,
        dropped,
    } = member.published.load().status;
    let leader = leader.map_or_else(String::new, |leader| leader.to_string());
    let longest_turn = member.longest_turn.load(Ordering::Relaxed);
    let text = format!(
        "{{\"member\":\"{id}\",\"role\":\"{role:?}\",\"term\":{term},\"leader\":\"{leader}\",\
         \"last\":{},\"durable\":{durable},\"commit\":{commit},\"applied\":{applied},\
         \"unsettled_bytes\":{unsettled_bytes},\"longest_turn_us\":{longest_turn},\
         \"dropped_messages\":{dropped},\"version\":\"{}\"}}\n",
        last.index,
        env!("CARGO_PKG_VERSION"),
    );
    page(StatusCode::OK, JSON, text)
}

/// All checks, or the one that is named after the slash.
fn select(all: &[Check], rest: &str) -> Option<Vec<Check>> {
    match rest.trim_start_matches('/') {
        "" => Some(all.to_vec()),
        name => all.iter().find(|check| check.name() == name).map(|check| vec![*check]),
    }
}

fn version() -> Response<Bytes> {
    let text = format!(
        "{{\"etcdserver\":\"{API_VERSION}\",\"etcdcluster\":\"{API_VERSION}\",\
         \"storage\":\"{API_VERSION}\"}}"
    );
    page(StatusCode::OK, JSON, text)
}

async fn health(member: &Member, query: &Query<'_>) -> Response<Bytes> {
    let reason = if !query.serializable && member.published.load().status.leader.is_none() {
        Some("RAFT NO LEADER".to_owned())
    } else {
        let check =
            if query.serializable { Check::SerializableRead } else { Check::LinearizableRead };
        check.run(member).await.err().map(|status| format!("RANGE ERROR:{}", status.message()))
    };
    match reason {
        None => page(StatusCode::OK, TEXT, "{\"health\":\"true\",\"reason\":\"\"}".to_owned()),
        Some(reason) => page(
            StatusCode::SERVICE_UNAVAILABLE,
            TEXT,
            format!("{{\"health\":\"false\",\"reason\":\"{reason}\"}}"),
        ),
    }
}

async fn run_checks(
    member: &Member,
    root: &str,
    checks: &[Check],
    query: &Query<'_>,
) -> Response<Bytes> {
    let mut lines = String::new();
    let mut sound = true;
    for check in checks.iter().filter(|check| !query.exclude.contains(&check.name())) {
        let name = check.name();
        // Writing to a String does not fail.
        let _ = match check.run(member).await {
            Ok(()) => writeln!(lines, "[+]{name} ok"),
            Err(status) => {
                sound = false;
                writeln!(lines, "[-]{name} failed: {}", status.message())
            }
        };
    }
    if sound {
        let lines = if query.verbose { lines } else { String::new() };
        page(StatusCode::OK, TEXT, lines + "ok\n")
    } else {
        let name = root.trim_start_matches('/');
        page(StatusCode::SERVICE_UNAVAILABLE, TEXT, format!("{lines}{name} check failed\n"))
    }
}

const TEXT: &str = "text/plain; charset=utf-8";
const JSON: &str = "application/json";

fn page(status: StatusCode, kind: &'static str, text: String) -> Response<Bytes> {
    let mut response = Response::new(Bytes::from(text));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_are_read() {
        assert_eq!(Query::of(""), Query::default());
        let query = Query::of("serializable=true&exclude=a&exclude=b&verbose&x=y");
        assert!(query.serializable && query.verbose);
        assert_eq!(query.exclude, ["a", "b"]);
    }

    #[test]
    fn single_checks_are_found() {
        assert_eq!(select(READYZ, "").unwrap().len(), 4);
        assert_eq!(select(READYZ, "/linearizable_read"), Some(vec![Check::LinearizableRead]));
        assert_eq!(select(LIVEZ, "/linearizable_read"), None);
    }
}
