//! The programs that are compared: given, or built.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::arguments::Compare;
use crate::interrupt;
use crate::trouble::{OrTrouble, Outcome, Trouble};

/// Building may take so long: link-time optimization, or all of etcd on a cold cache.
const BUILD_LIMIT: Duration = Duration::from_secs(900);

/// Command lines, without what is told to members.
pub struct Programs {
    /// This program.
    pub this: PathBuf,
    /// Ours, with the load generator in it.
    pub raft_kv: PathBuf,
    /// A member of ours.
    pub raft_kv_server: Vec<String>,
    /// A member of etcd.
    pub etcd: Vec<String>,
}

/// The root of the workspace that this was built from.
pub fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.ancestors().nth(2).expect("the crate is two levels below the root").to_owned()
}

impl Programs {
    /// Finds or builds all of them; `target` is where what was built goes.
    pub fn find(options: &Compare, target: &Path) -> Outcome<Programs> {
        let this = std::env::current_exe().or_trouble("cannot find this program's own file")?;
        let raft_kv = match &options.raft_kv {
            Some(given) => existing(given)?,
            None => build_raft_kv(target)?,
        };
        let etcd = match &options.etcd {
            Some(given) => vec![existing(given)?.display().to_string()],
            None => vec![build_peer(target)?.display().to_string(), "etcd".to_owned()],
        };
        let raft_kv_server = vec![raft_kv.display().to_string(), "server".to_owned()];
        Ok(Programs { this, raft_kv, raft_kv_server, etcd })
    }
}

fn existing(path: &Path) -> Outcome<PathBuf> {
    let path = std::path::absolute(path).or_trouble(path.display())?;
    match path.is_file() {
        true => Ok(path),
        false => Err(Trouble(format!("{} is no program", path.display()))),
    }
}

fn build_raft_kv(target: &Path) -> Outcome<PathBuf> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.args(["build", "--release", "--quiet", "--package", "raft-kv", "--target-dir"]);
    command.arg(target);
    build("raft-kv", command.current_dir(root()))?;
    Ok(target.join("release/raft-kv"))
}

fn build_peer(target: &Path) -> Outcome<PathBuf> {
    let program = target.join("compare-etcd/peer");
    let mut command = Command::new("go");
    command.args(["build", "-buildvcs=false", "-o"]).arg(&program).arg(".");
    build(
        "etcd (with Go; or name one with --etcd)",
        command.current_dir(root().join("tests/peer")),
    )?;
    Ok(program)
}

fn build(what: &str, command: &mut Command) -> Outcome {
    eprintln!("building {what}");
    let child = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn();
    let mut child = child.or_trouble(format!("cannot build {what}"))?;
    let status = interrupt::wait(&mut child, BUILD_LIMIT, &format!("building {what}"))?;
    if status.success() { Ok(()) } else { Err(Trouble(format!("building {what}: {status}"))) }
}

/// The first line that a program says of its version.
pub fn version(words: &[String], flag: &str) -> String {
    let told = Command::new(&words[0]).args(&words[1..]).arg(flag).stdin(Stdio::null()).output();
    let told = told.map(|told| String::from_utf8_lossy(&told.stdout).into_owned());
    told.unwrap_or_default().lines().next().unwrap_or("unknown").to_owned()
}
