//! The rules. Each test is one, and says what to do.

use xtask::{Finding, Source, long_functions, member_table, root, sources, words};

fn none(found: Vec<Finding>, rule: &str) {
    assert!(found.is_empty(), "{rule}\n  {}", found.join("\n  "));
}

fn shipped(crates: &[&str]) -> Vec<Source> {
    let ours = |source: &Source| source.is_shipped() && crates.contains(&source.krate());
    sources(".rs").into_iter().filter(ours).collect()
}

#[test]
fn functions_fit_a_screen() {
    let found = sources(".rs").iter().flat_map(long_functions).collect();
    none(found, "split it, or say `Long because ...` in the comment above it");
}

#[test]
fn files_are_nouns_of_the_design() {
    let banned = ["util", "utils", "common", "core", "types", "manager", "helper", "helpers"];
    let is_banned = |path: &str| {
        let name = path.rsplit('/').next().unwrap_or_default().trim_end_matches(".rs");
        banned.contains(&name)
    };
    let found = sources(".rs").into_iter().map(|source| source.path).filter(|path| is_banned(path));
    none(found.collect(), "name the file by what is in it");
}

/// An empty dependency list is a proof.
#[test]
fn dependencies_point_one_way() {
    let allowed: [(&str, &[&str]); 4] = [
        ("raft", &["bytes"]),
        ("store", &["bytes"]),
        ("wal", &["bytes", "crc32c", "rustix"]),
        ("replica", &["bytes", "prost", "proto", "raft", "store", "wal"]),
    ];
    let mut found = Vec::new();
    for (krate, allowed) in allowed {
        let manifest = root().join("crates").join(krate).join("Cargo.toml");
        let text = std::fs::read_to_string(manifest).expect("a manifest");
        let section = text.split("[dependencies]").nth(1).expect("a list of dependencies");
        for line in section.lines().take_while(|line| !line.starts_with('[')) {
            let name = line.split(['.', ' ', '=']).next().unwrap_or_default();
            if !name.is_empty() && !name.starts_with('#') && !allowed.contains(&name) {
                found.push(format!("{krate} depends on {name}"));
            }
        }
    }
    none(found, "the pure crates stay pure: see ARCHITECTURE.md");
}

#[test]
fn the_deterministic_crates_have_no_clock_no_chance_and_no_order_of_hashes() {
    let banned = ["HashMap", "HashSet", "Instant", "SystemTime", "thread", "RandomState", "rand"];
    let pure = shipped(&["raft", "store", "replica"]);
    let mut found: Vec<Finding> = pure.iter().flat_map(|s| words(s, &banned)).collect();
    let floats = ["f32", "f64"];
    found.extend(pure.iter().flat_map(|s| words(s, &floats)));
    none(found, "the same inputs give the same outputs: pass it in");
}

/// Else a seed would not be a run. The farm and the commands around it look at the clock, for the
/// time that it all takes.
#[test]
fn a_simulated_life_has_no_clock_no_chance_and_no_order_of_hashes() {
    let banned = ["HashMap", "HashSet", "Instant", "SystemTime", "RandomState", "rand"];
    let around = ["farm.rs", "main.rs", "planted.rs"];
    let is_life = |source: &&Source| !around.iter().any(|name| source.path.ends_with(name));
    let sources = shipped(&["sim"]);
    let found = sources.iter().filter(is_life).flat_map(|s| words(s, &banned)).collect();
    none(found, "draw it from the seed, or put it in order");
}

#[test]
fn async_stays_at_the_shore() {
    let inner = shipped(&["raft", "store", "replica", "wal", "sim"]);
    none(inner.iter().flat_map(|s| words(s, &["async", "await"])).collect(), "no async inside");
}

#[test]
fn nothing_is_left_to_do_without_an_issue() {
    let marks = ["TO", "FIX", "XX"].iter().zip(["DO", "ME", "X"]).map(|(a, b)| format!("{a}{b}"));
    let marks: Vec<String> = marks.collect();
    let mut found = Vec::new();
    for source in sources(".rs") {
        for (n, line) in source.lines.iter().enumerate() {
            let marked = marks.iter().any(|mark| line.contains(mark.as_str()));
            if marked && !line.contains('#') {
                found.push(format!("{}:{}", source.path, n + 1));
            }
        }
    }
    none(found, "do it, or name the issue: (#123)");
}

#[test]
fn every_script_explains_itself() {
    let mut found = Vec::new();
    for krate in ["raft", "store"] {
        let folder = root().join("crates").join(krate).join("tests/scripts");
        let Ok(entries) = std::fs::read_dir(folder) else { continue };
        for path in entries.map(|entry| entry.expect("an entry").path()) {
            let text = std::fs::read_to_string(&path).expect("a script is text");
            if !text.starts_with("# ") {
                found.push(path.display().to_string());
            }
        }
    }
    none(found, "the first line of a script is a comment that explains the claim");
}

#[test]
fn every_script_of_the_core_is_listed_in_its_document() {
    let document = std::fs::read_to_string(root().join("docs/raft.md")).expect("docs/raft.md");
    let folder = root().join("crates/raft/tests/scripts");
    let entries = std::fs::read_dir(folder).expect("scripts");
    let names = entries.map(|entry| entry.expect("an entry").file_name().into_string());
    let names = names.map(|name| name.expect("a script's name is text"));
    let found = names.filter(|name| !document.contains(&format!("`{name}`")));
    none(found.collect(), "list the script in docs/raft.md, by its subject");
}

#[test]
fn every_part_of_a_member_is_in_the_table_of_what_is_simulated() {
    let document = std::fs::read_to_string(root().join("docs/testing.md")).expect("the document");
    let found = member_table::check(&document, &sources(".rs"));
    none(found, "say in docs/testing.md where this is simulated, or why not and what tests it");
}

/// A check that cannot fail is none.
#[test]
fn the_checks_see_what_they_look_for() {
    let source = |text: &str| Source {
        path: "crates/x/src/x.rs".into(),
        lines: text.lines().map(str::to_string).collect(),
    };
    let long = format!("    fn f() {{\n{}    }}\n", "        x();\n".repeat(60));
    assert_eq!(long_functions(&source(&long)).len(), 1);
    assert_eq!(long_functions(&source(&format!("    // Long because.\n{long}"))).len(), 0);
    assert_eq!(long_functions(&source(&long.replacen("x();\n", "", 1))).len(), 1);
    let fits = format!("    fn f() {{\n{}    }}\n", "        x();\n".repeat(57));
    assert_eq!(long_functions(&source(&fits)).len(), 0);
    assert_eq!(words(&source("let x: HashMap<u8> = f();"), &["HashMap"]).len(), 1);
    assert_eq!(words(&source("// HashMap\nMyHashMap"), &["HashMap"]).len(), 0);
}
