//! The program as it is used.

use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use raft_kv_client::{Client, Get};

/// A process that ends with the test.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn bench() -> Command {
    Command::new(env!("CARGO_BIN_EXE_bench"))
}

#[test]
fn the_empty_server_answers_with_constants() {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let endpoint = format!("127.0.0.1:{port}");
    let server = bench().args(["null-server", "--listen", &endpoint]).spawn().unwrap();
    let _server = Process(server);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let client = Client::new([endpoint]).unwrap();
        let start = Instant::now();
        while let Err(error) = client.put(("key", "value")).await {
            assert!(start.elapsed() < Duration::from_secs(20), "{error}");
        }
        let one = client.get("key").await.unwrap();
        assert_eq!((one.count, one.kvs[0].value.len()), (1, 256));
        let page = client.get(Get::prefix("").limit(100)).await.unwrap();
        assert_eq!(page.kvs.len(), 100);
        assert!(client.delete("key").await.is_err(), "nobody measures that");
    });
}

#[test]
fn what_cannot_be_done_is_one_line() {
    for (arguments, line) in [
        (["--only", "everything"], "bench: nothing is called everything: see --help\n"),
        (["--raft-kv", "/nowhere"], "bench: /nowhere is no program\n"),
    ] {
        let told = bench().arg("compare").args(arguments).output().unwrap();
        assert!(!told.status.success());
        assert_eq!(String::from_utf8_lossy(&told.stderr), line);
    }
}

/// Builds raft-kv and etcd, and takes half a minute then. `RAFT_KV` and `ETCD` name other programs.
#[test]
#[ignore = "builds etcd with Go, and measures for half a minute"]
fn a_comparison_finds_figures_and_leaves_nothing() {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let (out, data) = (folder.path().join("out"), folder.path().join("data"));
    let mut command = bench();
    command.args(["compare", "--only", "put-16", "get-16", "limits"]);
    command.arg("--out").arg(&out).arg("--data").arg(&data);
    for (variable, flag) in [("RAFT_KV", "--raft-kv"), ("ETCD", "--etcd")] {
        if let Some(program) = std::env::var_os(variable) {
            command.arg(flag).arg(program);
        }
    }
    let told = command.stderr(Stdio::inherit()).output().unwrap();
    assert!(told.status.success(), "{told:?}");
    let text = std::fs::read_to_string(out.join("compare.json")).unwrap();
    let found: serde_json::Value = serde_json::from_str(&text).unwrap();
    for row in found["rows"].as_array().unwrap() {
        for system in ["raft-kv", "etcd", "empty"] {
            let one = &row["systems"][system];
            assert!(one["requests"].as_u64().unwrap() > 100, "{one}");
            assert!(one["cpu_us_per_request"].as_f64().unwrap() > 1.0, "{one}");
            assert_eq!(one["errors"], serde_json::json!({}), "{one}");
        }
    }
    assert_eq!(found["bare_log"].as_array().unwrap().len(), 3);
    assert!(out.join("compare.md").exists());
    assert_eq!(std::fs::read_dir(&data).unwrap().count(), 0, "data is left behind");
}
