//! A cluster to play with: real member processes on this machine, and a prompt.
//!
//! Everything goes through what users have: members are `raft-kv server` processes, and what is
//! typed at the prompt that is not about processes runs as `raft-kv <command>`.

use clap::Args;
use rustix::process::{Pid, Signal, kill_process};
use rustyline::ExternalPrinter;
use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io::{BufRead, BufReader, IsTerminal};
use std::net::TcpListener;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::mpsc::{self, Receiver, Sender};
use std::time::{Duration, Instant};

/// What `raft-kv playground` takes.
#[derive(Debug, Args)]
pub struct Options {
    /// How many members
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=9))]
    members: u16,
    /// Where the members keep their data; a later start finds it again
    #[arg(long, default_value = "raft-kv-playground")]
    data_dir: PathBuf,
}

/// Why the playground cannot go on: one line.
#[derive(Debug)]
struct Trouble(String);

type Outcome<T = ()> = Result<T, Trouble>;

/// Where a member is found. The ports make its identity, so they are chosen once and kept.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Place {
    name: String,
    client_port: u16,
    peer_port: u16,
}

/// One member: its place, and its process while it runs.
struct Member {
    place: Place,
    process: Option<Child>,
    paused: bool,
}

/// What a member says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Status {
    id: u64,
    leader: u64,
    term: u64,
    revision: i64,
    applied: u64,
}

struct Playground {
    data_dir: PathBuf,
    binary: PathBuf,
    members: Vec<Member>,
}

/// What the prompt waits for.
enum Event {
    Line(String),
    Stop,
}

const START_SECONDS_MAX: u64 = 30;
const STOP_SECONDS_MAX: u64 = 10;
/// How long a member may take to say how it is.
const STATUS_TIMEOUT: &str = "--command-timeout=1s";

const HELP: &str = "\
about the members
  members              who runs, who leads
  kill NAME|leader     end a member at once (SIGKILL); it comes back with `start`
  stop NAME|leader     end a member gently: a leader hands over first (SIGTERM)
  start NAME           start a member that was ended
  pause NAME|leader    let a member hang (SIGSTOP), `resume NAME` lets it go on
  log NAME [LINES]     the end of a member's log
  quit                 stop everything (also ctrl-C, ctrl-D); the data stays
about the data, as `raft-kv COMMAND` outside (try `get --help`)
  put KEY VALUE, get KEY, get --prefix KEY, del KEY, txn, compaction REVISION,
  endpoint status, endpoint health, member list, bench put, ...";

/// Runs the playground until it is told to stop.
pub fn run(options: &Options) -> ExitCode {
    match play(options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(trouble) => {
            eprintln!("raft-kv playground: {trouble}");
            ExitCode::FAILURE
        }
    }
}

fn play(options: &Options) -> Outcome {
    let mut playground = Playground::open(options)?;
    let stopped = playground.start_all().and_then(|()| {
        println!("{}", playground.welcome());
        playground.prompt()
    });
    playground.stop_all();
    stopped
}

impl Playground {
    fn open(options: &Options) -> Outcome<Playground> {
        let binary = std::env::current_exe().or_trouble("cannot find this program's own file")?;
        std::fs::create_dir_all(&options.data_dir)
            .or_trouble(&format!("cannot create {}", options.data_dir.display()))?;
        let places = places(options)?;
        for place in &places {
            for port in [place.client_port, place.peer_port] {
                free(port).or_trouble(&format!(
                    "port {port} of {} is in use (does another playground run?)",
                    place.name
                ))?;
            }
        }
        let member = |place| Member { place, process: None, paused: false };
        let members = places.into_iter().map(member).collect();
        Ok(Playground { data_dir: options.data_dir.clone(), binary, members })
    }

    fn start_all(&mut self) -> Outcome {
        for n in 0..self.members.len() {
            self.start(n)?;
        }
        let deadline = Instant::now() + Duration::from_secs(START_SECONDS_MAX);
        while self.statuses().len() < self.members.len() {
            for member in &mut self.members {
                let place = &member.place;
                let ended = member.process.as_mut().and_then(|child| child.try_wait().ok()?);
                if let Some(code) = ended {
                    let last = tail(&log_path(&self.data_dir, &place.name), 1);
                    return Err(Trouble(format!("{} ended ({code}): {}", place.name, last.trim())));
                }
            }
            if Instant::now() > deadline {
                let logs = self.data_dir.join("*.log");
                return Err(Trouble(format!("no leader; see {}", logs.display())));
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        Ok(())
    }

    fn start(&mut self, n: usize) -> Outcome {
        let cluster: Vec<String> = self
            .members
            .iter()
            .map(|m| format!("{}=http://127.0.0.1:{}", m.place.name, m.place.peer_port))
            .collect();
        let place = self.members[n].place.clone();
        let log = File::options()
            .create(true)
            .append(true)
            .open(log_path(&self.data_dir, &place.name))
            .or_trouble("cannot write a member's log")?;
        let peer = format!("http://127.0.0.1:{}", place.peer_port);
        let client = format!("http://127.0.0.1:{}", place.client_port);
        let child = Command::new(&self.binary)
            .arg("server")
            .args(["--name", &place.name])
            .arg("--data-dir")
            .arg(self.data_dir.join(&place.name))
            .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
            .args(["--listen-client-urls", &client, "--advertise-client-urls", &client])
            .args(["--initial-cluster", &cluster.join(",")])
            .args(["--initial-cluster-token", "raft-kv-playground"])
            // A group of its own: a ctrl-C at the terminal is ours, not the members'.
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(log.try_clone().or_trouble("cannot share a member's log")?)
            .stderr(log)
            .spawn()
            .or_trouble("cannot start a member")?;
        self.members[n].process = Some(child);
        self.members[n].paused = false;
        Ok(())
    }

    fn welcome(&self) -> String {
        let binary = self.binary.display();
        let endpoints = self.endpoints();
        format!(
            "{} members run; their data and logs are in {}\n\n{}\n\
             from another terminal:\n  \
             {binary} --endpoints={endpoints} put greeting hello\n  \
             etcdctl --endpoints={endpoints} get greeting\n\n\
             `help` lists what can be done here; try `put greeting hello`, then `kill leader`.\n",
            self.members.len(),
            self.data_dir.display(),
            self.table(),
        )
    }

    fn endpoints(&self) -> String {
        let all: Vec<String> =
            self.members.iter().map(|m| format!("127.0.0.1:{}", m.place.client_port)).collect();
        all.join(",")
    }

    fn statuses(&self) -> BTreeMap<u16, Status> {
        statuses(&self.binary, &self.endpoints())
    }

    fn table(&self) -> String {
        let statuses = self.statuses();
        let mut text = format!(
            "  {:<6} {:<21} {:<10} {:>6} {:>10} {:>9}\n",
            "name", "endpoint", "state", "term", "revision", "applied"
        );
        for member in &self.members {
            let place = &member.place;
            let status = statuses.get(&place.client_port);
            let state = match (&member.process, member.paused, status) {
                (None, ..) => "ended",
                (Some(_), true, _) => "paused",
                (Some(_), false, None) => "silent",
                (Some(_), false, Some(s)) if s.leader == s.id => "leader",
                (Some(_), false, Some(_)) => "follower",
            };
            let number = |value: Option<i64>| value.map_or("-".to_string(), |v| v.to_string());
            text += &format!(
                "  {:<6} {:<21} {state:<10} {:>6} {:>10} {:>9}\n",
                place.name,
                format!("127.0.0.1:{}", place.client_port),
                number(status.map(|s| s.term as i64)),
                number(status.map(|s| s.revision)),
                number(status.map(|s| s.applied as i64)),
            );
        }
        text
    }

    /// Obeys commands until told to stop, by one of them or by a signal.
    fn prompt(&mut self) -> Outcome {
        let (events, incoming) = mpsc::channel();
        let (go_on, may_go_on) = mpsc::channel();
        watch_signals(events.clone())?;
        let watched = (self.binary.clone(), self.endpoints(), self.names());
        std::thread::spawn(move || {
            if std::io::stdin().is_terminal() {
                read_terminal(&events, &may_go_on, watched);
            } else {
                read_input(&events, &may_go_on);
            }
        });
        while let Ok(Event::Line(line)) = incoming.recv() {
            if !self.obey(&line) {
                break;
            }
            let _ = go_on.send(());
        }
        Ok(())
    }

    fn names(&self) -> BTreeMap<u16, String> {
        self.members.iter().map(|m| (m.place.client_port, m.place.name.clone())).collect()
    }

    /// Does what a line says. False to stop.
    fn obey(&mut self, line: &str) -> bool {
        let Some(words) = shlex::split(line) else {
            println!("a quotation mark is missing");
            return true;
        };
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let done = match words[..] {
            [] => Ok(()),
            ["quit" | "exit"] => return false,
            ["help" | "?"] => {
                println!("{HELP}");
                Ok(())
            }
            ["members" | "status"] => {
                print!("{}", self.table());
                Ok(())
            }
            ["start", name] => self.find(name).and_then(|n| self.start_again(n)),
            ["kill", name] => self.find(name).and_then(|n| self.end(n, Signal::KILL)),
            ["stop", name] => self.find(name).and_then(|n| self.end(n, Signal::TERM)),
            ["pause", name] => self.find(name).and_then(|n| self.pause(n, true)),
            ["resume", name] => self.find(name).and_then(|n| self.pause(n, false)),
            ["log", name] => self.find(name).map(|n| self.print_log(n, 10)),
            ["log", name, lines] => {
                self.find(name).map(|n| self.print_log(n, lines.parse().unwrap_or(10)))
            }
            _ => self.pass_on(&words),
        };
        if let Err(trouble) = done {
            println!("{trouble}");
        }
        true
    }

    fn find(&self, name: &str) -> Outcome<usize> {
        let statuses = self.statuses();
        let leads = |member: &Member| {
            statuses.get(&member.place.client_port).is_some_and(|s| s.leader == s.id)
        };
        let found = match name {
            "leader" => self.members.iter().position(leads).ok_or("nobody leads at the moment"),
            _ => {
                let named = |member: &Member| member.place.name == name;
                self.members.iter().position(named).ok_or("no such member; `members` lists them")
            }
        };
        found.map_err(|why| Trouble(why.to_string()))
    }

    fn start_again(&mut self, n: usize) -> Outcome {
        if self.members[n].process.is_some() {
            return Err(Trouble(format!("{} runs already", self.members[n].place.name)));
        }
        self.start(n)?;
        println!("{} started", self.members[n].place.name);
        Ok(())
    }

    fn end(&mut self, n: usize, signal: Signal) -> Outcome {
        let member = &mut self.members[n];
        let name = &member.place.name;
        let not = || Trouble(format!("{name} does not run"));
        let mut child = member.process.take().ok_or_else(not)?;
        if member.paused {
            signal_to(&child, Signal::CONT);
        }
        signal_to(&child, signal);
        let code = wait(&mut child)?;
        println!("{name} ended ({code})");
        Ok(())
    }

    fn pause(&mut self, n: usize, pause: bool) -> Outcome {
        let member = &mut self.members[n];
        let not = || Trouble(format!("{} does not run", member.place.name));
        let child = member.process.as_ref().ok_or_else(not)?;
        signal_to(child, if pause { Signal::STOP } else { Signal::CONT });
        member.paused = pause;
        println!("{} {}", member.place.name, if pause { "hangs" } else { "goes on" });
        Ok(())
    }

    fn print_log(&self, n: usize, lines: usize) {
        print!("{}", tail(&log_path(&self.data_dir, &self.members[n].place.name), lines));
    }

    /// Everything else is a command of the binary, with our endpoints.
    fn pass_on(&self, words: &[&str]) -> Outcome {
        let mut child = Command::new(&self.binary)
            .args(words)
            .env("ETCDCTL_ENDPOINTS", self.endpoints())
            .spawn()
            .or_trouble("cannot run the command")?;
        child.wait().or_trouble("cannot wait for the command")?;
        Ok(())
    }

    fn stop_all(&mut self) {
        println!("stopping");
        for member in &mut self.members {
            if let Some(child) = &member.process {
                signal_to(child, Signal::CONT);
                signal_to(child, Signal::TERM);
            }
        }
        for member in &mut self.members {
            if let Some(mut child) = member.process.take() {
                let _ = wait(&mut child);
            }
        }
    }
}

/// The members' places: those of the last time, or new ones.
fn places(options: &Options) -> Outcome<Vec<Place>> {
    let path = options.data_dir.join("members");
    if let Ok(file) = File::open(&path) {
        let places: Vec<Place> =
            BufReader::new(file).lines().map_while(Result::ok).filter_map(place).collect();
        if places.len() != usize::from(options.members) {
            return Err(Trouble(format!(
                "{} holds a playground of {} members; give --members {0}, or another --data-dir",
                options.data_dir.display(),
                places.len()
            )));
        }
        return Ok(places);
    }
    let places: Vec<Place> = (1..=options.members).map(new_place).collect::<Outcome<_>>()?;
    let mut text = String::new();
    for place in &places {
        text += &format!("{} {} {}\n", place.name, place.client_port, place.peer_port);
    }
    std::fs::write(&path, text).or_trouble(&format!("cannot write {}", path.display()))?;
    Ok(places)
}

fn place(line: String) -> Option<Place> {
    let mut words = line.split_whitespace();
    Some(Place {
        name: words.next()?.to_string(),
        client_port: words.next()?.parse().ok()?,
        peer_port: words.next()?.parse().ok()?,
    })
}

/// The customary ports (2379, 22379, 32379, ... and 2380, ...) where they are free.
fn new_place(n: u16) -> Outcome<Place> {
    let customary = |port: u16| match n {
        1 => Some(port),
        2..=6 => Some(n * 10_000 + port),
        _ => None,
    };
    let choose = |port: u16| {
        let wanted = customary(port).filter(|port| free(*port).is_ok());
        wanted.map_or_else(|| free(0), Ok).or_trouble("no free port on loopback")
    };
    Ok(Place { name: format!("m{n}"), client_port: choose(2379)?, peer_port: choose(2380)? })
}

/// Whether a port is free; of port 0, one that is.
fn free(port: u16) -> std::io::Result<u16> {
    TcpListener::bind(("127.0.0.1", port))?.local_addr().map(|address| address.port())
}

/// What the members say of themselves, by client port; silent ones are left out.
fn statuses(binary: &Path, endpoints: &str) -> BTreeMap<u16, Status> {
    let output = Command::new(binary)
        .args(["endpoint", "status", "-w", "json", STATUS_TIMEOUT, "--endpoints", endpoints])
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output();
    let json = output.map(|output| output.stdout).unwrap_or_default();
    let all: Vec<serde_json::Value> = serde_json::from_slice(&json).unwrap_or_default();
    let status = |one: &serde_json::Value| {
        let (_, port) = one["Endpoint"].as_str()?.rsplit_once(':')?;
        let status = &one["Status"];
        let found = Status {
            id: status["header"]["member_id"].as_u64()?,
            leader: status["leader"].as_u64().filter(|id| *id != 0)?,
            term: status["raftTerm"].as_u64().unwrap_or_default(),
            revision: status["header"]["revision"].as_i64().unwrap_or_default(),
            applied: status["raftAppliedIndex"].as_u64().unwrap_or_default(),
        };
        Some((port.parse().ok()?, found))
    };
    all.iter().filter_map(status).collect()
}

/// Reads lines at a terminal, with history and news above the prompt. The next one is read when
/// the last one was obeyed.
fn read_terminal(
    events: &Sender<Event>,
    may_go_on: &Receiver<()>,
    (binary, endpoints, names): (PathBuf, String, BTreeMap<u16, String>),
) {
    let Ok(mut editor) = rustyline::DefaultEditor::new() else {
        return read_input(events, may_go_on);
    };
    if let Ok(printer) = editor.create_external_printer() {
        watch_leader(binary, endpoints, names, printer);
    }
    while let Ok(line) = editor.readline("raft-kv> ") {
        let _ = editor.add_history_entry(&line);
        if events.send(Event::Line(line)).is_err() || may_go_on.recv().is_err() {
            return;
        }
    }
    let _ = events.send(Event::Stop);
}

/// Reads lines from anything else, and repeats them, so that what comes out can be read.
fn read_input(events: &Sender<Event>, may_go_on: &Receiver<()>) {
    for line in std::io::stdin().lock().lines().map_while(Result::ok) {
        println!("raft-kv> {line}");
        if events.send(Event::Line(line)).is_err() || may_go_on.recv().is_err() {
            return;
        }
    }
    let _ = events.send(Event::Stop);
}

fn watch_signals(events: Sender<Event>) -> Outcome {
    let wanted = [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM];
    let mut signals =
        signal_hook::iterator::Signals::new(wanted).or_trouble("cannot watch for signals")?;
    std::thread::spawn(move || {
        for _ in signals.forever() {
            let _ = events.send(Event::Stop);
        }
    });
    Ok(())
}

/// Says above the prompt who leads, whenever that changes. Ends with the process.
fn watch_leader(
    binary: PathBuf,
    endpoints: String,
    names: BTreeMap<u16, String>,
    mut printer: impl ExternalPrinter + Send + 'static,
) {
    std::thread::spawn(move || {
        let mut known = None;
        loop {
            let statuses = statuses(&binary, &endpoints);
            let leads = |(port, s): (&u16, &Status)| (s.leader == s.id).then_some((s.term, *port));
            let leader = statuses.iter().filter_map(leads).max();
            if leader != known {
                let news = match leader {
                    Some((term, port)) => format!("* {} leads term {term}", names[&port]),
                    None => "* nobody leads".to_string(),
                };
                if known.is_some() && printer.print(news).is_err() {
                    return;
                }
                known = leader;
            }
            std::thread::sleep(Duration::from_millis(500));
        }
    });
}

fn signal_to(child: &Child, signal: Signal) {
    let _ = kill_process(Pid::from_child(child), signal);
}

/// Waits for a process that was told to end; in the end it is made to.
fn wait(child: &mut Child) -> Outcome<std::process::ExitStatus> {
    let deadline = Instant::now() + Duration::from_secs(STOP_SECONDS_MAX);
    loop {
        if let Some(code) = child.try_wait().or_trouble("cannot wait for a member")? {
            return Ok(code);
        }
        if Instant::now() > deadline {
            signal_to(child, Signal::KILL);
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn log_path(data_dir: &Path, name: &str) -> PathBuf {
    data_dir.join(format!("{name}.log"))
}

/// The last lines of a file.
fn tail(path: &Path, lines: usize) -> String {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let all: Vec<&str> = text.lines().collect();
    let mut end = all[all.len().saturating_sub(lines)..].join("\n");
    end.push('\n');
    end
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Turns an error into one line that says what was being done.
trait OrTrouble<T> {
    fn or_trouble(self, what: &str) -> Outcome<T>;
}

impl<T, E: fmt::Display> OrTrouble<T> for Result<T, E> {
    fn or_trouble(self, what: &str) -> Outcome<T> {
        self.map_err(|error| Trouble(format!("{what}: {error}")))
    }
}
