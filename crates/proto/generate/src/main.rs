//! Writes the Rust of the `proto` crate from its `.proto` files, without protoc.
//!
//! ```text
//! cargo run --manifest-path crates/proto/generate/Cargo.toml             # write
//! cargo run --manifest-path crates/proto/generate/Cargo.toml -- --check  # compare
//! ```
//!
//! `--check` changes nothing and exits with 1 if a checked-in file is not what
//! would be written.

use std::collections::BTreeMap;
use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::{env, fs};

const FILES: [&str; 6] =
    ["kv.proto", "auth.proto", "rpc.proto", "health.proto", "log.proto", "peer.proto"];

/// Names that the conversion of etcd's field names to Rust's makes unreadable.
const RENAMED: [(&str, &str); 2] = [("peer_ur_ls", "peer_urls"), ("client_ur_ls", "client_urls")];

fn main() -> Result<ExitCode, Box<dyn Error>> {
    let check = match env::args().skip(1).collect::<Vec<_>>().as_slice() {
        [] => false,
        [flag] if flag == "--check" => true,
        _ => return Err("usage: generate [--check]".into()),
    };
    let proto = Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("the generator lives inside the proto crate");
    let target = proto.join("src/generated");
    let wanted = generate(&proto.join("proto"))?;
    if check {
        return compare(&target, &wanted);
    }
    for (name, text) in &wanted {
        fs::write(target.join(name), text)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// File names and contents, made in a scratch directory of this process.
fn generate(sources: &Path) -> Result<BTreeMap<String, String>, Box<dyn Error>> {
    let scratch = env::temp_dir().join(format!("raft-kv-generate-{}", std::process::id()));
    fs::create_dir_all(&scratch)?;
    let made = compile(sources, &scratch).and_then(|()| read_back(&scratch));
    fs::remove_dir_all(&scratch)?;
    made
}

fn compile(sources: &Path, out: &Path) -> Result<(), Box<dyn Error>> {
    let mut compiler = protox::Compiler::new([sources])?;
    // Comments of the .proto files become documentation.
    compiler.include_source_info(true).include_imports(true);
    compiler.open_files(FILES)?;
    let mut config = prost_build::Config::new();
    config.bytes(["."]);
    let only_with_grpc = r#"#[cfg(feature = "grpc")]"#;
    tonic_prost_build::configure()
        .out_dir(out)
        // Connecting is the client crate's business (deadlines, TCP_NODELAY).
        .build_transport(false)
        .client_mod_attribute(".", only_with_grpc)
        .server_mod_attribute(".", only_with_grpc)
        .compile_fds_with_config(compiler.file_descriptor_set(), config)?;
    Ok(())
}

fn read_back(out: &Path) -> Result<BTreeMap<String, String>, Box<dyn Error>> {
    let mut files = BTreeMap::new();
    for entry in fs::read_dir(out)? {
        let path = entry?.path();
        let name = path.file_name().expect("a file").to_string_lossy();
        let mut text = fs::read_to_string(&path)?;
        for (from, to) in RENAMED {
            text = text.replace(from, to);
        }
        files.insert(name.into_owned(), text);
    }
    Ok(files)
}

fn compare(target: &Path, wanted: &BTreeMap<String, String>) -> Result<ExitCode, Box<dyn Error>> {
    let mut stale: Vec<PathBuf> = Vec::new();
    for (name, text) in wanted {
        let path = target.join(name);
        if fs::read_to_string(&path).ok().as_ref() != Some(text) {
            stale.push(path);
        }
    }
    for entry in fs::read_dir(target)? {
        let path = entry?.path();
        let name = path.file_name().expect("a file").to_string_lossy();
        if !wanted.contains_key(name.as_ref()) {
            stale.push(path);
        }
    }
    for path in &stale {
        eprintln!("{} is not what the .proto files say", path.display());
    }
    if stale.is_empty() {
        return Ok(ExitCode::SUCCESS);
    }
    eprintln!("write it anew: cargo run --manifest-path crates/proto/generate/Cargo.toml");
    Ok(ExitCode::FAILURE)
}
