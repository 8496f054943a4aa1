//! Clusters of three on this machine: started, asked who leads, killed, never left behind.

use std::fs::File;
use std::net::TcpListener;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use raft_kv_client::{Client, Options};

use crate::interrupt;
use crate::programs::Programs;
use crate::sample;
use crate::trouble::{OrTrouble, Outcome, Trouble};

/// Members of a cluster.
pub const MEMBERS: usize = 3;
/// How long a cluster may take to serve, on a machine that is busy.
const START_LIMIT: Duration = Duration::from_secs(60);
/// Between two questions to a cluster that does not serve yet.
const ASK_INTERVAL: Duration = Duration::from_millis(20);
/// For an answer to such a question.
const ASK_LIMIT: Duration = Duration::from_secs(1);
/// Ports are looked for within so many from the first.
const PORTS_MAX: u16 = 1000;

/// What etcd is told besides names and addresses: room for the load, and nothing on its log that
/// is no warning.
const ETCD_FLAGS: [&str; 2] = ["--quota-backend-bytes=8589934592", "--log-level=warn"];

/// Whose servers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum System {
    RaftKv,
    Etcd,
    /// Servers that do nothing: see [`server::null`].
    Empty,
}

impl System {
    pub fn name(self) -> &'static str {
        match self {
            System::RaftKv => "raft-kv",
            System::Etcd => "etcd",
            System::Empty => "empty",
        }
    }
}

/// What clusters are made from: programs, a directory on a disk, ports.
pub struct Ground {
    pub programs: Programs,
    pub data: PathBuf,
    /// The disk that `data` is on.
    pub device: Option<String>,
    first_port: u16,
    next_port: std::cell::Cell<u16>,
}

impl Ground {
    pub fn new(programs: Programs, data: PathBuf, first_port: u16) -> Ground {
        let device = sample::device_of(&data);
        Ground { programs, data, device, first_port, next_port: first_port.into() }
    }

    /// A port that is free on loopback, and was not given before as long as there are others.
    pub fn port(&self) -> Outcome<u16> {
        for _ in 0..PORTS_MAX {
            let port = self.next_port.get();
            let step = (port - self.first_port + 1) % PORTS_MAX.min(u16::MAX - self.first_port);
            self.next_port.set(self.first_port + step);
            if TcpListener::bind(("127.0.0.1", port)).is_ok() {
                return Ok(port);
            }
        }
        Err(Trouble(format!("no free port within {PORTS_MAX} from {}", self.first_port)))
    }

    /// A directory that goes when it is dropped.
    pub fn folder(&self, name: &str) -> Outcome<tempfile::TempDir> {
        let prefix = format!("{name}-");
        let folder = tempfile::Builder::new().prefix(&prefix).tempdir_in(&self.data);
        folder.or_trouble(self.data.display())
    }

    /// A running cluster that serves at every member.
    pub fn start(&self, system: System) -> Outcome<Cluster> {
        let folder = self.folder(system.name())?;
        let mut ports = Vec::new();
        for _ in 0..MEMBERS {
            ports.push((self.port()?, self.port()?));
        }
        let initial: Vec<String> = (1..)
            .zip(&ports)
            .map(|(n, (_, peer))| format!("m{n}=http://127.0.0.1:{peer}"))
            .collect();
        let members = (1..)
            .zip(&ports)
            .map(|(n, (client, peer))| {
                let name = format!("m{n}");
                let command = match system {
                    System::Empty => self.empty(*client),
                    _ => self.member(system, &name, folder.path(), (*client, *peer), &initial),
                };
                let log = folder.path().join(format!("{name}.log"));
                Member { client_port: *client, command, log, process: None }
            })
            .collect();
        let mut cluster = Cluster { system, members, _folder: folder };
        cluster.members.iter_mut().try_for_each(Member::start)?;
        cluster.serves()?;
        Ok(cluster)
    }

    fn member(
        &self,
        system: System,
        name: &str,
        folder: &Path,
        (client, peer): (u16, u16),
        initial: &[String],
    ) -> Vec<String> {
        let program = match system {
            System::Etcd => &self.programs.etcd,
            _ => &self.programs.raft_kv_server,
        };
        let mut words = program.clone();
        words.extend([
            format!("--name={name}"),
            format!("--data-dir={}", folder.join(name).display()),
            format!("--listen-client-urls=http://127.0.0.1:{client}"),
            format!("--advertise-client-urls=http://127.0.0.1:{client}"),
            format!("--listen-peer-urls=http://127.0.0.1:{peer}"),
            format!("--initial-advertise-peer-urls=http://127.0.0.1:{peer}"),
            format!("--initial-cluster={}", initial.join(",")),
        ]);
        if system == System::Etcd {
            words.extend(ETCD_FLAGS.map(str::to_owned));
        }
        words
    }

    fn empty(&self, port: u16) -> Vec<String> {
        let this = self.programs.this.display().to_string();
        vec![this, "null-server".to_owned(), format!("--listen=127.0.0.1:{port}")]
    }
}

/// A command that the kernel kills should this process be killed, where there is `setpriv`; in a
/// group of its own: a Ctrl-C at the terminal is for us, who then stop it.
pub fn command(words: &[String]) -> Command {
    let setpriv = Path::new("/usr/bin/setpriv");
    let mut command = if setpriv.exists() {
        let mut command = Command::new(setpriv);
        command.args(["--pdeathsig", "KILL", "--"]).arg(&words[0]);
        command
    } else {
        Command::new(&words[0])
    };
    command.args(&words[1..]).process_group(0).stdin(Stdio::null()).env_remove("ETCDCTL_API");
    command
}

/// Processes that end with this value.
pub struct Processes(Vec<Child>);

impl Processes {
    /// Starts a process for each command line; what they print is nobody's business.
    pub fn start(commands: impl Iterator<Item = Vec<String>>) -> Outcome<Processes> {
        let mut processes = Processes(Vec::new());
        for words in commands {
            let child = command(&words).stdout(Stdio::null()).spawn();
            processes.0.push(child.or_trouble(&words[0])?);
        }
        Ok(processes)
    }

    pub fn pids(&self) -> Vec<u32> {
        self.0.iter().map(Child::id).collect()
    }
}

impl Drop for Processes {
    fn drop(&mut self) {
        for process in &mut self.0 {
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

/// One member, and its process while it runs.
struct Member {
    client_port: u16,
    command: Vec<String>,
    log: PathBuf,
    process: Option<Child>,
}

impl Member {
    fn start(&mut self) -> Outcome {
        let log = File::options().create(true).append(true).open(&self.log);
        let log = log.or_trouble(self.log.display())?;
        let again = log.try_clone().or_trouble(self.log.display())?;
        let child = command(&self.command).stdout(again).stderr(log).spawn();
        self.process = Some(child.or_trouble(&self.command[0])?);
        Ok(())
    }

    fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            let _ = process.kill();
            let _ = process.wait();
        }
    }

    fn endpoint(&self) -> String {
        format!("127.0.0.1:{}", self.client_port)
    }

    /// Fails if the process has ended, with what it said last.
    fn check(&mut self) -> Outcome {
        let Some(process) = &mut self.process else { return Ok(()) };
        let Some(status) = process.try_wait().or_trouble(&self.command[0])? else { return Ok(()) };
        let log = std::fs::read_to_string(&self.log).unwrap_or_default();
        let last = log.lines().rfind(|line| !line.trim().is_empty()).unwrap_or("it said nothing");
        Err(Trouble(format!("{} ended ({status}): {last}", self.command[0])))
    }
}

/// Three members, and their data, which goes with them.
pub struct Cluster {
    pub system: System,
    members: Vec<Member>,
    _folder: tempfile::TempDir,
}

impl Cluster {
    /// Process ids of the members that run.
    pub fn pids(&self) -> Vec<u32> {
        self.members.iter().filter_map(|member| Some(member.process.as_ref()?.id())).collect()
    }

    /// Where member `n` listens for clients.
    pub fn endpoint(&self, n: usize) -> String {
        self.members[n].endpoint()
    }

    pub fn all_endpoints(&self) -> Vec<String> {
        self.members.iter().map(Member::endpoint).collect()
    }

    /// All endpoints, the leader's first: so a single client talks to the leader, whoever it is.
    pub fn endpoints(&mut self) -> Outcome<Vec<String>> {
        let leader = self.leader()?;
        let order = (0..self.members.len()).map(|n| (leader + n) % self.members.len());
        Ok(order.map(|n| self.endpoint(n)).collect())
    }

    /// Waits until every member that runs answers a linearizable read.
    pub fn serves(&mut self) -> Outcome {
        let start = Instant::now();
        for n in 0..self.members.len() {
            while self.members[n].process.is_some() && !is_serving(&self.endpoint(n)) {
                self.members[n].check()?;
                self.has_time(start, "to serve")?;
            }
        }
        Ok(())
    }

    /// Which member leads, by the word of the newest term.
    pub fn leader(&mut self) -> Outcome<usize> {
        let start = Instant::now();
        loop {
            if self.system == System::Empty {
                return Ok(0);
            }
            let runs = |n: &usize| self.members[*n].process.is_some();
            let told: Vec<_> = (0..self.members.len())
                .filter(runs)
                .filter_map(|n| Some((n, status(&self.endpoint(n))?)))
                .collect();
            let newest = told.iter().max_by_key(|(_, status)| status.term);
            if let Some((_, newest)) = newest
                && let Some((n, _)) = told.iter().find(|(_, status)| status.id == newest.leader)
            {
                return Ok(*n);
            }
            self.members.iter_mut().try_for_each(Member::check)?;
            self.has_time(start, "for a leader")?;
        }
    }

    fn has_time(&self, start: Instant, what: &str) -> Outcome {
        if start.elapsed() > START_LIMIT {
            let name = self.system.name();
            return Err(Trouble(format!("waited {START_LIMIT:?} in vain for {name} {what}")));
        }
        interrupt::sleep(ASK_INTERVAL)
    }

    /// Sends SIGKILL, without waiting for the end: whoever measures has no time. Answers when.
    pub fn kill(&mut self, n: usize) -> Instant {
        let at = Instant::now();
        if let Some(process) = &mut self.members[n].process {
            let _ = process.kill();
        }
        at
    }

    /// Starts a member that was killed; does not wait until it serves.
    pub fn restart(&mut self, n: usize) -> Outcome {
        self.members[n].kill();
        self.members[n].start()
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // All at once: waiting for one by one would give the others time to elect.
        for process in self.members.iter_mut().filter_map(|member| member.process.as_mut()) {
            let _ = process.kill();
        }
        self.members.iter_mut().for_each(Member::kill);
    }
}

/// What a member says of itself.
struct Status {
    id: u64,
    leader: u64,
    term: u64,
}

/// Asks one endpoint something.
fn ask<T>(endpoint: &str, question: impl AsyncFnOnce(Client) -> Option<T>) -> Option<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().ok()?;
    runtime.block_on(async {
        let options = Options::default().connect_timeout(ASK_LIMIT).request_timeout(ASK_LIMIT);
        question(Client::with_options([endpoint], options).ok()?).await
    })
}

fn is_serving(endpoint: &str) -> bool {
    ask(endpoint, async |client| client.get("serving").await.ok()).is_some()
}

fn status(endpoint: &str) -> Option<Status> {
    ask(endpoint, async |client| {
        let status = client.status().await.ok()?;
        let header = status.header?;
        Some(Status { id: header.member_id, leader: status.leader, term: header.raft_term })
    })
}
