//! The real etcd that Raft-KV is compared with, built from `tests/peer`.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use super::say;

/// The program that is etcd and etcdctl 3.7, built when it is not there yet.
/// `None` where there is no Go to build it: the caller skips, and says so.
/// In CI that is a failure.
pub fn program() -> Option<&'static Path> {
    static BUILT: OnceLock<Option<PathBuf>> = OnceLock::new();
    BUILT.get_or_init(build).as_deref()
}

/// Says that `test` is skipped, and why; fails instead in CI.
pub fn skip(test: &str, why: &str) {
    assert!(std::env::var("CI").as_deref() != Ok("true"), "{test}: {why}, and CI never skips");
    say(format!("SKIP {test}: {why}"));
}

fn build() -> Option<PathBuf> {
    Command::new("go").arg("version").output().ok().filter(|go| go.status.success())?;
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/peer");
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("peer");
    std::fs::create_dir_all(&folder).unwrap();
    // Test programs may run side by side: one builds, the others wait. Go's own
    // cache makes a build without changes a matter of a second.
    let lock = File::create(folder.join("lock")).unwrap();
    lock.lock().unwrap();
    let program = folder.join("peer");
    if !program.exists() {
        say("building etcd 3.7 from tests/peer, once; takes about a minute");
    }
    let go = Command::new("go")
        .args(["build", "-buildvcs=false", "-o"])
        .arg(&program)
        .arg(".")
        .current_dir(source)
        .output()
        .unwrap();
    assert!(go.status.success(), "go build: {}", String::from_utf8_lossy(&go.stderr));
    Some(program)
}
