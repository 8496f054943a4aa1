//! The same commands given to etcdctl at our members and at etcd: the same output,
//! but for identities, sizes, versions and times. And to our own command line: the
//! same output as etcdctl's.
//!
//! etcdctl 3.7 comes with `tests/peer`. etcdctl 3.4 is Debian's `etcd-client`; where
//! it is not installed its test skips, and says so.

// Tests may unwrap, and so may what only they use.
#![allow(clippy::unwrap_used)]

mod support;

use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use support::cluster::{Cluster, Kind};
use support::{alone, peer};

/// A command: arguments, separated by blanks (`_` in an argument is a blank), and
/// standard input.
type Line = (&'static str, &'static str);

const SCRIPT: &[Line] = &[
    ("put a 1", ""),
    ("put b 2 --prev-kv", ""),
    ("put a 3 --prev-kv", ""),
    ("put a/1 one", ""),
    ("put a/2 two", ""),
    ("put with_blank many_words", ""),
    ("put from-input", "the value\n"),
    ("put a --ignore-value", ""),
    ("put nothing --ignore-value", ""),
    ("put a 4 --prev-kv -w json", ""),
    ("put a 5 -w fields", ""),
    ("get a", ""),
    ("get none", ""),
    ("get a --print-value-only", ""),
    ("get a --hex", ""),
    ("get a -w json", ""),
    ("get a -w fields", ""),
    ("get a --rev=2", ""),
    ("get a --rev=4 -w json", ""),
    ("get a --rev=1000", ""),
    ("get a b", ""),
    ("get a --prefix", ""),
    ("get b --from-key", ""),
    ("get a --prefix --limit=2", ""),
    ("get a --prefix --limit=2 -w json", ""),
    ("get a --prefix --keys-only", ""),
    ("get a --prefix --count-only -w fields", ""),
    ("get a --prefix --count-only -w json", ""),
    ("get a --prefix --order=DESCEND", ""),
    ("get a --prefix --sort-by=MODIFY --order=ASCEND", ""),
    ("get a --prefix --sort-by=CREATE --order=DESCEND --keys-only", ""),
    ("get a --prefix --sort-by=VALUE --order=ASCEND", ""),
    ("get a --prefix --sort-by=VERSION --order=DESCEND --limit=1", ""),
    ("get a --prefix --sort-by=NONSENSE", ""),
    ("txn", "mod(\"a\") > \"0\"\n\nput x 1\nget a\ndel b\n\nput y 2\n\n"),
    ("txn", "value(\"a\") = \"no\"\nversion(\"a\") = \"3\"\n\nput x 3\n\nget x\nget none\n\n"),
    ("txn -w json", "create(\"none\") = \"0\"\n\nput z 1\n\n\n"),
    ("txn -w fields", "\nput z 2\nget z\n\n\n"),
    ("txn", "\nput z 2\nput z 3\n\n\n"),
    ("del none", ""),
    ("del z", ""),
    ("del a/ --prefix --prev-kv", ""),
    ("del x -w json", ""),
    ("del with_blank from-input", ""),
    ("get a --prefix -w json", ""),
    ("compaction 5", ""),
    ("compaction 5", ""),
    ("compaction 1000", ""),
    ("compaction 7 --physical", ""),
    ("compaction nonsense", ""),
    ("get a --rev=3", ""),
    ("get a --rev=8", ""),
    ("endpoint health", ""),
    ("endpoint health -w json", ""),
    ("endpoint status", ""),
    ("endpoint status -w json", ""),
    ("endpoint status -w table", ""),
    ("member list", ""),
    ("member list -w json", ""),
    ("member list -w table", ""),
    ("put", ""),
    ("get", ""),
];

/// A program that takes etcdctl's arguments.
struct Program {
    path: PathBuf,
    first: &'static [&'static str],
}

/// What can be seen of a command's run; what differs by nature is masked.
#[derive(PartialEq, Debug)]
struct Seen {
    output: Vec<String>,
    failed: bool,
    /// The last line on stderr.
    error: String,
}

impl Program {
    fn run(&self, line: &Line, cluster: &Cluster) -> Seen {
        let (words, input) = line;
        let mut command = Command::new(&self.path);
        command.args(self.first).args(words.split(' ').map(|word| word.replace('_', " ")));
        command.arg(format!("--endpoints={}", cluster.endpoints().join(",")));
        command.env("ETCDCTL_API", "3");
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        // A command that reads no input may be gone already.
        let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
        let done = child.wait_with_output().unwrap();
        let stderr = String::from_utf8_lossy(&done.stderr).into_owned();
        let stdout = masked(&String::from_utf8_lossy(&done.stdout), words, cluster);
        let mut output: Vec<String> = stdout.lines().map(str::to_owned).collect();
        if words.starts_with("endpoint") || words.starts_with("member") {
            // The order is that of ids, or of who answered first.
            let apart = stdout.replace("[{", "[\n{").replace("},{", "}\n{").replace("}]", "}\n]");
            output = apart.lines().map(str::to_owned).collect();
            output.sort();
        }
        // Logs of etcdctl's own stand before it; what is no error of the store's is
        // each program's own affair.
        let last = stderr.lines().rfind(|line| line.contains("etcdserver: "));
        let error = last.and_then(|line| line.find("etcdserver: ").map(|at| line[at..].to_owned()));
        Seen { output, failed: !done.status.success(), error: error.unwrap_or_default() }
    }
}

/// The text without what is each cluster's own.
fn masked(text: &str, words: &str, cluster: &Cluster) -> String {
    let mut text = text.to_owned();
    for (member, word) in cluster.members.iter().zip(["one", "two", "three"]) {
        text =
            text.replace(&format!("127.0.0.1:{}", member.client_port), &format!("client-{word}"));
        text = text.replace(&format!("127.0.0.1:{}", member.peer_port), &format!("peer-{word}"));
    }
    let is_status = words.starts_with("endpoint");
    let mut out = String::new();
    let mut rest = text.as_str();
    while let Some(first) = rest.chars().next() {
        let is_word = |c: char| c.is_ascii_alphanumeric() || (is_status && "._µ".contains(c));
        if !is_word(first) {
            // Tables are drawn as wide as their cells.
            let is_padding = " -|+─│┌┐└┘├┤┬┴┼".contains(first) && words.contains("table");
            if !is_padding {
                out.push(first);
            }
            rest = &rest[first.len_utf8()..];
            continue;
        }
        let end = rest.find(|c| !is_word(c)).unwrap_or(rest.len());
        out.push_str(mask_word(&rest[..end], is_status, &out));
        rest = &rest[end..];
    }
    out
}

fn mask_word<'a>(word: &'a str, is_status: bool, before: &str) -> &'a str {
    let is_id = word.len() > 10 && word.chars().all(|c| c.is_ascii_hexdigit());
    let is_term = ["\"raft_term\":", "\"RaftTerm\" : "].iter().any(|name| before.ends_with(name));
    let has_digit = word.contains(|c: char| c.is_ascii_digit());
    match word {
        _ if is_id => "ID",
        _ if is_term => "TERM",
        // Who leads, how large, how far, which version.
        "true" | "false" if is_status && !before.ends_with("\"health\":") => "BOOL",
        _ if is_status && has_digit => "#",
        "B" | "kB" | "MB" | "GB" if is_status => "BYTES",
        _ => word,
    }
}

fn etcdctl() -> Option<Program> {
    peer::program().map(|path| Program { path: path.to_owned(), first: &["etcdctl"] })
}

/// Debian's etcdctl, if it is on the path.
fn etcdctl_of_debian() -> Option<Program> {
    let version = Command::new("etcdctl").arg("version").env("ETCDCTL_API", "3").output().ok()?;
    let is_old = String::from_utf8_lossy(&version.stdout).contains("etcdctl version: 3.4");
    is_old.then(|| Program { path: "etcdctl".into(), first: &[] })
}

/// Runs the script by two programs, each at a fresh cluster of its own.
async fn compare(ours: (&Program, Kind), theirs: (&Program, Kind), is_own_cli: bool) {
    let our_cluster = Cluster::start(ours.1, 3, &[]).await;
    let their_cluster = Cluster::start(theirs.1, 3, &[]).await;
    let mut differences = Vec::new();
    for line in SCRIPT {
        let mut ours = ours.0.run(line, &our_cluster);
        let mut theirs = theirs.0.run(line, &their_cluster);
        if is_own_cli && ours.failed && theirs.failed {
            // Of a refused command line the words are our own; etcdctl prints its help.
            (ours.output, theirs.output) = Default::default();
        }
        if ours != theirs {
            differences.push(format!("{line:?}\n  ours:  {ours:?}\n  etcd:  {theirs:?}"));
        }
    }
    assert!(differences.is_empty(), "{} differ:\n{}", differences.len(), differences.join("\n"));
}

#[test]
fn etcdctl_3_7_prints_what_it_prints_with_etcd() {
    let Some(etcdctl) = etcdctl() else {
        return peer::skip("etcdctl 3.7", "no Go here to build it");
    };
    alone(async { compare((&etcdctl, Kind::under_test()), (&etcdctl, Kind::Etcd), false).await });
}

#[test]
fn etcdctl_3_4_prints_what_it_prints_with_etcd() {
    let Some(etcdctl) = etcdctl_of_debian() else {
        return peer::skip("etcdctl 3.4", "Debian's package etcd-client is not installed");
    };
    if peer::program().is_none() {
        return peer::skip("etcdctl 3.4", "no Go here to build an etcd to compare with");
    }
    alone(async { compare((&etcdctl, Kind::under_test()), (&etcdctl, Kind::Etcd), false).await });
}

#[test]
fn our_command_line_prints_what_etcdctl_prints() {
    let Some(etcdctl) = etcdctl() else {
        return peer::skip("our command line", "no Go here to build etcdctl");
    };
    if Kind::under_test() == Kind::Etcd {
        return support::say("SKIP our command line: etcd stands in the place of our members");
    }
    let ours = Program { path: env!("CARGO_BIN_EXE_raft-kv").into(), first: &[] };
    alone(async { compare((&ours, Kind::RaftKv), (&etcdctl, Kind::Etcd), true).await });
}

#[test]
fn masking_leaves_what_must_agree() {
    let cluster = Cluster::new(Kind::RaftKv, 1, &[]);
    let text = format!(
        "127.0.0.1:{} is healthy: successfully committed proposal: took = 1.5ms",
        cluster.members[0].client_port
    );
    assert_eq!(
        masked(&text, "endpoint health", &cluster),
        "client-one is healthy: successfully committed proposal: took = #"
    );
    let json =
        r#"{"header":{"cluster_id":8925027824743593106,"revision":5,"raft_term":2},"count":1}"#;
    assert_eq!(
        masked(json, "get a -w json", &cluster),
        r#"{"header":{"cluster_id":ID,"revision":5,"raft_term":TERM},"count":1}"#
    );
}
