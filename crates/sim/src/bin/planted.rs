//! Plants bugs, one after the other, and says what finds them.
//!
//! A check that cannot fail is none. `crates/sim/planted` holds one patch for each of the mistakes
//! that a cluster like this one is known to suffer from; `planted` applies each to a copy of the
//! sources as they were committed last, and lets the simulation and the tests of the crates
//! concerned look for it. A bug that neither finds makes it fail. The shipped sources know nothing
//! of all this.
//!
//! A patch begins with a paragraph that says what the bug is and what it breaks. Everything is kept
//! in `target/planted`: the copy (`tree`), what was built of it, and what was printed (`logs`).

use clap::Parser;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

/// Plants bugs in a copy of the sources, and says what finds them.
#[derive(Parser)]
struct Arguments {
    /// Which bugs, by the beginning of their names or a part of them; all if none is given
    names: Vec<String>,
    /// Simulated runs in which a bug must show itself
    #[arg(long, default_value_t = 2000)]
    seeds: u64,
    /// Leave out the tests
    #[arg(long, conflicts_with = "only_tests")]
    only_sim: bool,
    /// Leave out the simulation
    #[arg(long)]
    only_tests: bool,
    /// Minutes after which the simulation of one bug is stopped
    #[arg(long, default_value_t = 30)]
    minutes_max: u64,
    /// Only see whether every patch applies to the working tree
    #[arg(long)]
    check: bool,
}

/// The crates in which bugs are planted, and whose tests look for them.
const CRATES: [&str; 4] = ["raft", "wal", "store", "replica"];

/// Tests take half a minute; those that take so long hang.
const TESTS_TIME_MAX: Duration = Duration::from_secs(600);
const BUILD_TIME_MAX: Duration = Duration::from_secs(3600);

/// What goes wrong with the tools, not with what they look at.
type Result<T> = std::result::Result<T, String>;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let done = if arguments.check { check(&arguments) } else { hunt(&arguments) };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(why) => {
            eprintln!("{why}");
            ExitCode::from(2)
        }
    }
}

/// Whether all patches apply.
fn check(arguments: &Arguments) -> Result<bool> {
    let root = root()?;
    let mut sound = true;
    for bug in chosen(&root, &arguments.names)? {
        let mut git = Command::new("git");
        let ran = git.current_dir(&root).args(["apply", "--check"]).arg(&bug.patch).output();
        let ran = ran.map_err(|error| format!("git: {error}"))?;
        if !ran.status.success() {
            eprint!("{}: {}", bug.name, String::from_utf8_lossy(&ran.stderr));
            sound = false;
        }
    }
    Ok(sound)
}

/// Plants bug after bug. True if all were found.
fn hunt(arguments: &Arguments) -> Result<bool> {
    let root = root()?;
    let bugs = chosen(&root, &arguments.names)?;
    let workshop = Workshop::prepare(&root)?;
    workshop.examine_unspoilt(arguments)?;
    let mut rows = Vec::new();
    for (number, bug) in bugs.iter().enumerate() {
        let verdict = match workshop.plant(bug) {
            Ok(()) => workshop.examine(&bug.name, arguments),
            Err(why) => Verdict { simulation: Sight::Trouble(why), tests: Sight::Unasked },
        };
        workshop.restore(bug)?;
        eprintln!(
            "{}/{} {}: simulation: {}; tests: {}",
            number + 1,
            bugs.len(),
            bug.name,
            verdict.simulation.text(),
            verdict.tests.text()
        );
        rows.push((bug, verdict));
    }
    print!("{}", table(&rows));
    Ok(rows.iter().all(|(_, verdict)| verdict.is_found()))
}

/// The root of the workspace.
fn root() -> Result<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    root.canonicalize().map_err(|error| format!("{}: {error}", root.display()))
}

/// A bug to plant.
#[derive(Debug)]
struct Bug {
    /// The file's name without its ending.
    name: String,
    /// The paragraph before the patch, on one line.
    text: String,
    patch: PathBuf,
    /// What the patch changes, by paths below the root.
    files: BTreeSet<String>,
}

impl Bug {
    fn read(patch: &Path) -> Result<Bug> {
        let bug = fs::read_to_string(patch)
            .map_err(|error| error.to_string())
            .and_then(|text| Bug::parse(patch, &text));
        bug.map_err(|why| format!("{}: {why}", patch.display()))
    }

    fn parse(patch: &Path, text: &str) -> Result<Bug> {
        let name = patch.file_stem().ok_or("has no name")?.to_string_lossy().into_owned();
        let (before, diff) = text.split_once("diff --git ").ok_or("holds no patch")?;
        let text = before.split_whitespace().collect::<Vec<_>>().join(" ");
        if text.is_empty() {
            return Err("says nothing about the bug before the patch".into());
        }
        let files: BTreeSet<String> = diff
            .lines()
            .filter_map(|line| line.strip_prefix("+++ b/"))
            .map(str::to_string)
            .collect();
        if files.is_empty() {
            return Err("changes no file".into());
        }
        Ok(Bug { name, text, patch: patch.to_path_buf(), files })
    }

    /// What the bug is: the first sentence, without the number before it, if there is one.
    fn what(&self) -> &str {
        let numbered =
            self.text.strip_prefix("Planted bug ").and_then(|text| text.split_once(": "));
        let text = numbered.map_or(&*self.text, |(_, text)| text);
        text.split_once(". ").map_or(text, |(first, _)| first).trim_end_matches('.')
    }
}

/// The bugs of these names, in the order of their numbers.
fn chosen(root: &Path, names: &[String]) -> Result<Vec<Bug>> {
    let folder = root.join("crates/sim/planted");
    let entries =
        fs::read_dir(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    let mut patches: Vec<PathBuf> = entries
        .filter_map(|entry| entry.ok().map(|entry| entry.path()))
        .filter(|path| path.extension().is_some_and(|ending| ending == "patch"))
        .collect();
    patches.sort();
    let bugs = patches.iter().map(|patch| Bug::read(patch)).collect::<Result<Vec<Bug>>>()?;
    let all: Vec<&str> = bugs.iter().map(|bug| &*bug.name).collect();
    let wanted = select(&all, names)?;
    Ok(bugs.into_iter().filter(|bug| wanted.contains(&bug.name)).collect())
}

/// Those that begin with one of these names, or contain it if none does; all if there are none.
fn select(all: &[&str], names: &[String]) -> Result<BTreeSet<String>> {
    if names.is_empty() {
        return Ok(all.iter().map(ToString::to_string).collect());
    }
    let mut wanted = BTreeSet::new();
    for name in names {
        let found = |fits: &dyn Fn(&str) -> bool| -> Vec<String> {
            all.iter().filter(|one| fits(one)).map(ToString::to_string).collect()
        };
        let mut these = found(&|one| one.starts_with(name.as_str()));
        if these.is_empty() {
            these = found(&|one| one.contains(name.as_str()));
        }
        if these.is_empty() {
            return Err(format!("no planted bug is called {name}"));
        }
        wanted.extend(these);
    }
    Ok(wanted)
}

/// A copy of the sources to plant bugs in, and what is built of it.
struct Workshop {
    /// What was committed last.
    fresh: PathBuf,
    /// The same, with a bug planted now and then. A file is written only if it changes, so that
    /// cargo builds no more than it must.
    tree: PathBuf,
    target: PathBuf,
    /// The simulator of what was committed last.
    unspoilt: PathBuf,
    logs: PathBuf,
}

impl Workshop {
    fn prepare(root: &Path) -> Result<Workshop> {
        let folder = root.join("target/planted");
        let [fresh, tree, target, unspoilt, logs] =
            ["fresh", "tree", "target", "sim", "logs"].map(|name| folder.join(name));
        if fresh.exists() {
            fs::remove_dir_all(&fresh).map_err(|error| error.to_string())?;
        }
        for path in [&fresh, &tree, &logs] {
            fs::create_dir_all(path).map_err(|error| format!("{}: {error}", path.display()))?;
        }
        let archive = folder.join("head.tar");
        let mut git = Command::new("git");
        git.current_dir(root).args(["archive", "HEAD", "--output"]).arg(&archive);
        succeed(&mut git)?;
        succeed(Command::new("tar").arg("-xmf").arg(&archive).arg("-C").arg(&fresh))?;
        make_equal(&fresh, &tree).map_err(|error| format!("{}: {error}", tree.display()))?;
        Ok(Workshop { fresh, tree, target, unspoilt, logs })
    }

    /// Looks at the sources without any bug planted: what finds something there finds nothing.
    fn examine_unspoilt(&self, arguments: &Arguments) -> Result<()> {
        if !arguments.only_tests {
            self.build_simulation(&self.logs.join("none.sim"))?;
            fs::copy(self.simulator(), &self.unspoilt).map_err(|error| error.to_string())?;
        }
        if !arguments.only_sim {
            let sight = self.test("none")?;
            if sight != Sight::Nothing {
                return Err(format!("without any planted bug: {}", sight.text()));
            }
        }
        Ok(())
    }

    fn plant(&self, bug: &Bug) -> Result<()> {
        let mut git = Command::new("git");
        // The copy lies inside of a repository that it is no part of.
        if let Some(above) = self.tree.parent() {
            git.env("GIT_CEILING_DIRECTORIES", above);
        }
        succeed(git.current_dir(&self.tree).arg("apply").arg(&bug.patch))
    }

    fn restore(&self, bug: &Bug) -> Result<()> {
        for file in &bug.files {
            fs::copy(self.fresh.join(file), self.tree.join(file))
                .map_err(|error| format!("{file}: {error}"))?;
        }
        Ok(())
    }

    /// Lets the simulation and the tests look, both at the same time.
    fn examine(&self, name: &str, arguments: &Arguments) -> Verdict {
        let look = |wanted: bool, look: &dyn Fn() -> Result<Sight>| match wanted {
            true => look().unwrap_or_else(Sight::Trouble),
            false => Sight::Unasked,
        };
        std::thread::scope(|scope| {
            let simulation =
                scope.spawn(|| look(!arguments.only_tests, &|| self.simulate(name, arguments)));
            let tests = look(!arguments.only_sim, &|| self.test(name));
            let simulation = simulation.join();
            let simulation =
                simulation.unwrap_or_else(|_| Sight::Trouble("the thread panicked".into()));
            Verdict { simulation, tests }
        })
    }

    fn simulate(&self, name: &str, arguments: &Arguments) -> Result<Sight> {
        let log = self.logs.join(format!("{name}.sim"));
        self.build_simulation(&log)?;
        let limit = Duration::from_secs(60 * arguments.minutes_max);
        let mut sim = Command::new(self.simulator());
        sim.current_dir(&self.tree).args(["--runs", &arguments.seeds.to_string()]);
        let ran = run(&mut sim, &log, limit)?;
        let Some(seed) = failed_seed(&ran.output) else { return Ok(simulation_sight(&ran)) };
        // What fails without the bug, too, says nothing about it.
        let mut sim = Command::new(&self.unspoilt);
        sim.current_dir(&self.tree).args(["--seed", seed]);
        match run(&mut sim, &log.with_extension("sim-unspoilt"), limit)?.succeeded {
            true => Ok(simulation_sight(&ran)),
            false => Err(format!("seed {seed} fails without the bug, too")),
        }
    }

    fn build_simulation(&self, log: &Path) -> Result<()> {
        let mut build = self.cargo("build");
        build.args(["--profile", "planted", "--package", "sim", "--bin", "sim"]);
        build_succeeds(&run(&mut build, log, BUILD_TIME_MAX)?, log)
    }

    fn simulator(&self) -> PathBuf {
        self.target.join("planted/sim")
    }

    fn test(&self, name: &str) -> Result<Sight> {
        let log = self.logs.join(format!("{name}.tests"));
        let packages = CRATES.iter().flat_map(|krate| ["--package", krate]);
        let mut build = self.cargo("test");
        build.args(packages.clone()).arg("--no-run");
        build_succeeds(&run(&mut build, &log, BUILD_TIME_MAX)?, &log)?;
        let mut test = self.cargo("test");
        test.args(packages).arg("--no-fail-fast").env("RUST_BACKTRACE", "0");
        Ok(tests_sight(&run(&mut test, &log, TESTS_TIME_MAX)?))
    }

    fn cargo(&self, command: &str) -> Command {
        let mut cargo = Command::new("cargo");
        cargo.arg(command).current_dir(&self.tree);
        cargo.env("CARGO_TARGET_DIR", &self.target).env("CARGO_TERM_COLOR", "never");
        cargo
    }
}

/// Makes the files below `to` those below `from`, and writes only those that differ.
fn make_equal(from: &Path, to: &Path) -> io::Result<()> {
    let entries = |folder: &Path| -> io::Result<BTreeMap<_, _>> {
        fs::read_dir(folder)?.map(|entry| entry.map(|e| (e.file_name(), e.path()))).collect()
    };
    let wanted = entries(from)?;
    for (name, path) in entries(to)? {
        match (wanted.get(&name), path.is_dir()) {
            (Some(other), folder) if other.is_dir() == folder => {}
            (_, true) => fs::remove_dir_all(path)?,
            (_, false) => fs::remove_file(path)?,
        }
    }
    for (name, path) in wanted {
        let copy = to.join(name);
        if path.is_dir() {
            fs::create_dir_all(&copy)?;
            make_equal(&path, &copy)?;
        } else if fs::read(&copy).ok() != Some(fs::read(&path)?) {
            fs::copy(&path, &copy)?;
        }
    }
    Ok(())
}

/// Runs a tool that has nothing to say but why it fails.
fn succeed(command: &mut Command) -> Result<()> {
    let tool = command.get_program().to_string_lossy().into_owned();
    let ran = command.output().map_err(|error| format!("{tool}: {error}"))?;
    match ran.status.success() {
        true => Ok(()),
        false => Err(format!("{tool}: {}", String::from_utf8_lossy(&ran.stderr).trim())),
    }
}

/// What became of a process.
struct Ran {
    succeeded: bool,
    /// It took too long, and was killed.
    killed: bool,
    output: String,
}

/// Runs something that may hang, with everything that it starts, and keeps what it prints in a file.
fn run(command: &mut Command, log: &Path, limit: Duration) -> Result<Ran> {
    let tool = command.get_program().to_string_lossy().into_owned();
    let wrong = |error: io::Error| format!("{tool}: {error}");
    let file = fs::File::create(log).map_err(wrong)?;
    let again = file.try_clone().map_err(wrong)?;
    let mut child = command.stdout(file).stderr(again).process_group(0).spawn().map_err(wrong)?;
    let deadline = Instant::now() + limit;
    let (mut killed, mut status) = (false, None);
    while status.is_none() {
        if !killed && Instant::now() > deadline {
            let group = format!("-{}", child.id());
            succeed(Command::new("kill").args(["-KILL", "--", &group]))?;
            killed = true;
        }
        std::thread::sleep(Duration::from_millis(20));
        status = child.try_wait().map_err(wrong)?;
    }
    let output = fs::read(log).map_err(wrong)?;
    let output = String::from_utf8_lossy(&output).into_owned();
    Ok(Ran { succeeded: status.is_some_and(|status| status.success()), killed, output })
}

fn build_succeeds(ran: &Ran, log: &Path) -> Result<()> {
    let why = if ran.killed { "takes too long to build" } else { "does not build" };
    if ran.succeeded { Ok(()) } else { Err(format!("{why}, see {}", log.display())) }
}

/// What one kind of checks saw.
#[derive(Debug, PartialEq, Eq)]
enum Sight {
    /// It did not look.
    Unasked,
    Nothing,
    /// It looked for as long as it may, and was not done.
    Unfinished,
    Found(String),
    /// It could not look.
    Trouble(String),
}

impl Sight {
    fn text(&self) -> &str {
        match self {
            Sight::Unasked => "-",
            Sight::Nothing => "nothing",
            Sight::Unfinished => "nothing in the time it may take",
            Sight::Found(what) | Sight::Trouble(what) => what,
        }
    }
}

/// What became of a planted bug.
struct Verdict {
    simulation: Sight,
    tests: Sight,
}

impl Verdict {
    fn is_found(&self) -> bool {
        let both = [&self.simulation, &self.tests];
        both.iter().any(|sight| matches!(sight, Sight::Found(_)))
            && !both.iter().any(|sight| matches!(sight, Sight::Trouble(_)))
    }
}

/// Reads what the simulation printed: `FAILED seed=7 after 12 runs: what failed`.
fn simulation_sight(ran: &Ran) -> Sight {
    let failed = ran.output.lines().find_map(|line| line.trim_start().strip_prefix("FAILED "));
    if let Some(failed) = failed {
        let found = failed.split_once("after ").map_or(failed, |(_, found)| found);
        return Sight::Found(format!("after {found}"));
    }
    if ran.killed {
        return Sight::Unfinished;
    }
    if ran.succeeded {
        return Sight::Nothing;
    }
    let last = ran.output.lines().rfind(|line| !line.trim().is_empty()).unwrap_or("nothing");
    Sight::Trouble(format!("the simulator stopped, and said: {last}"))
}

/// The seed that failed, in what the simulation printed.
fn failed_seed(output: &str) -> Option<&str> {
    let failed = output.lines().find_map(|line| line.trim_start().strip_prefix("FAILED seed="))?;
    failed.split_whitespace().next()
}

/// Scripts that are named of all that fail.
const SCRIPTS_NAMED: usize = 3;

/// Reads what `cargo test` printed.
fn tests_sight(ran: &Ran) -> Sight {
    let found = failed_tests(&ran.output, ran.killed);
    match (found.is_empty(), ran.succeeded) {
        (false, _) => Sight::Found(found.join(", ")),
        (true, true) => Sight::Nothing,
        (true, false) if ran.killed => Sight::Unfinished,
        (true, false) => Sight::Trouble("the tests did not run".into()),
    }
}

/// The tests that failed, hung or died, each with its crate; of scripts, the first few.
fn failed_tests(output: &str, killed: bool) -> Vec<String> {
    let mut found = Vec::new();
    let mut slow = BTreeSet::new();
    let (mut krate, mut target) = ("", "");
    for line in output.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words[..] {
            ["Running", "unittests", _, program] => {
                krate = program_name(program);
                target = "unit tests";
            }
            ["Running", path, _] => {
                target = path.trim_start_matches("tests/").trim_end_matches(".rs");
            }
            ["test", name, "has", "been", "running", ..] => {
                slow.insert(format!("{krate}: {name}"));
            }
            ["test", name, .., end] => {
                slow.remove(&format!("{krate}: {name}"));
                if end == "FAILED" {
                    found.push(format!("{krate}: {name}"));
                }
            }
            ["process", "didn't", "exit", ..] if line.contains("(signal: ") => {
                found.push(format!("{krate}: {target} died"));
            }
            _ => {}
        }
        if let Some(scripts) = failed_scripts(line)
            && let Some(last) = found.iter_mut().rfind(|test| test.ends_with(": scripts"))
        {
            last.push_str(&format!(" ({scripts})"));
        }
    }
    if killed {
        found.extend(slow.into_iter().map(|test| format!("{test} hangs")));
    }
    found
}

/// The name in `(target/debug/deps/raft-875045a7ebb26326)`.
fn program_name(program: &str) -> &str {
    let file = program.rsplit('/').next().unwrap_or(program);
    file.rsplit_once('-').map_or(file, |(name, _)| name)
}

/// The scripts in `failed: ["one", "two"]`.
fn failed_scripts(line: &str) -> Option<String> {
    let (_, list) = line.split_once("failed: [")?;
    let names: Vec<&str> = list.split('"').skip(1).step_by(2).collect();
    let shown = names[..names.len().min(SCRIPTS_NAMED)].join(", ");
    match names.len().saturating_sub(SCRIPTS_NAMED) {
        0 => Some(shown),
        more => Some(format!("{shown} and {more} more")),
    }
}

/// What is printed in the end.
fn table(rows: &[(&Bug, Verdict)]) -> String {
    let mut text = String::from(
        "| planted bug | what it is | simulation | tests that fail |\n|---|---|---|---|\n",
    );
    for (bug, verdict) in rows {
        let cells = [&*bug.name, bug.what(), verdict.simulation.text(), verdict.tests.text()];
        let cells = cells.map(|cell| cell.replace('|', "\\|"));
        text.push_str(&format!("| {} |\n", cells.join(" | ")));
    }
    let count = |sees: &dyn Fn(&Verdict) -> bool| rows.iter().filter(|(_, v)| sees(v)).count();
    let is_found = |sight: &Sight| matches!(sight, Sight::Found(_));
    text.push_str(&format!(
        "\n{} planted bugs: {} found by simulation, {} by tests, {} not found\n",
        rows.len(),
        count(&|verdict| is_found(&verdict.simulation)),
        count(&|verdict| is_found(&verdict.tests)),
        count(&|verdict| !verdict.is_found()),
    ));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ran(output: &str, succeeded: bool, killed: bool) -> Ran {
        Ran { succeeded, killed, output: output.into() }
    }

    const TESTS: &str = r#"
     Running unittests src/lib.rs (/t/debug/deps/raft-875045a7ebb26326)
test log::tests::one ... ok
test log::tests::two ... FAILED
     Running tests/scripts.rs (/t/debug/deps/scripts-593f21c72b36da3e)
test scripts ... FAILED
---- scripts stdout ----
SCRIPT=name runs one; failed: ["a", "b", "c", "d", "e"]
test result: FAILED. 0 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.04s
     Running unittests src/lib.rs (/t/debug/deps/wal-54bf12f21a06301f)
     Running tests/model.rs (/t/debug/deps/model-cde7f212d5101da5)
test quick has been running for over 60 seconds
test slow has been running for over 60 seconds
test quick ... ok
  process didn't exit successfully: `/t/debug/deps/model-cde7f212d5101da5` (signal: 6, SIGABRT)
"#;

    #[test]
    fn failed_tests_are_named_with_their_crates() {
        let mut expected = vec![
            "raft: log::tests::two".to_string(),
            "raft: scripts (a, b, c and 2 more)".to_string(),
            "wal: model died".to_string(),
        ];
        assert_eq!(failed_tests(TESTS, false), expected);
        expected.push("wal: slow hangs".into());
        assert_eq!(failed_tests(TESTS, true), expected);
    }

    #[test]
    fn a_run_of_tests_that_shows_nothing_is_told_from_one_that_did_not_run() {
        assert_eq!(tests_sight(&ran("test a ... ok\n", true, false)), Sight::Nothing);
        assert_eq!(tests_sight(&ran("test a ... ok\n", false, true)), Sight::Unfinished);
        let broken = tests_sight(&ran("error: no such package\n", false, false));
        assert!(matches!(broken, Sight::Trouble(_)));
    }

    #[test]
    fn what_the_simulation_found_is_read_from_its_last_words() {
        let output = "some trace\nFAILED seed=7 after 12 runs: a | is not b\nrepeat with ...\n";
        let found = Sight::Found("after 12 runs: a | is not b".into());
        assert_eq!(simulation_sight(&ran(output, false, false)), found);
        assert_eq!(failed_seed(output), Some("7"));
        assert_eq!(failed_seed("2000 runs\n"), None);
        assert_eq!(simulation_sight(&ran("2000 runs\n", true, false)), Sight::Nothing);
        assert_eq!(simulation_sight(&ran("", false, true)), Sight::Unfinished);
        let broken = simulation_sight(&ran("error: what is --runs?\n\n", false, false));
        assert_eq!(
            broken,
            Sight::Trouble("the simulator stopped, and said: error: what is --runs?".into())
        );
    }

    #[test]
    fn a_patch_says_what_the_bug_is_and_what_it_changes() {
        let text = "Planted bug 7, first half: commits\ntoo much. It breaks things.\n\n\
                    diff --git a/x/a.rs b/x/a.rs\n--- a/x/a.rs\n+++ b/x/a.rs\n@@ -1 +1 @@\n-a\n+b\n";
        let bug = Bug::parse(Path::new("07-commits.patch"), text).unwrap();
        assert_eq!((&*bug.name, bug.what()), ("07-commits", "commits too much"));
        assert_eq!(bug.files, BTreeSet::from(["x/a.rs".to_string()]));
        let text = text.replace("Planted bug 7, first half: commits", "It commits: ");
        let bug = Bug::parse(Path::new("07-commits.patch"), &text).unwrap();
        assert_eq!(bug.what(), "It commits: too much");
        let silent = text.split_once("diff").unwrap().1;
        assert!(Bug::parse(Path::new("07.patch"), &format!("diff{silent}")).is_err());
        assert!(Bug::parse(Path::new("07.patch"), "Planted bug 7: no patch").is_err());
    }

    #[test]
    fn all_patches_can_be_read() {
        let bugs = chosen(&root().unwrap(), &[]).unwrap();
        assert!(bugs.len() > 30);
        for bug in bugs {
            assert!(bug.what().len() < 160, "{} says in short what it is", bug.name);
            let ours = |file: &String| CRATES.iter().any(|c| file.contains(&format!("/{c}/src/")));
            assert!(bug.files.iter().all(ours), "{} stays in the crates that are tested", bug.name);
        }
    }

    #[test]
    fn names_choose_by_their_beginning_and_else_by_a_part() {
        let all = ["01-vote", "12a-match", "12b-old", "21-vote"];
        let chosen = |name: &str| -> Vec<String> {
            select(&all, &[name.to_string()]).unwrap_or_default().into_iter().collect()
        };
        assert_eq!(chosen("12"), ["12a-match", "12b-old"]);
        assert_eq!(chosen("vote"), ["01-vote", "21-vote"]);
        assert_eq!(chosen("2"), ["21-vote"]);
        assert!(chosen("99").is_empty());
        assert_eq!(select(&all, &[]).unwrap().len(), 4);
    }

    #[test]
    fn the_table_counts_what_was_found() {
        let text = "Planted bug 7: commits too much.\n\ndiff --git a/x b/x\n+++ b/x\n";
        let bug = Bug::parse(Path::new("07-commits.patch"), text).unwrap();
        let found = Verdict {
            simulation: Sight::Found("after 3 runs: a | b".into()),
            tests: Sight::Nothing,
        };
        let missed = Verdict { simulation: Sight::Unfinished, tests: Sight::Nothing };
        let trouble = Verdict {
            simulation: Sight::Trouble("does not build".into()),
            tests: Sight::Found("raft: scripts".into()),
        };
        assert!(found.is_found() && !missed.is_found() && !trouble.is_found());
        let table = table(&[(&bug, found), (&bug, missed), (&bug, trouble)]);
        assert!(
            table.contains("| 07-commits | commits too much | after 3 runs: a \\| b | nothing |\n")
        );
        assert!(
            table.ends_with("\n3 planted bugs: 1 found by simulation, 1 by tests, 2 not found\n")
        );
    }
}
