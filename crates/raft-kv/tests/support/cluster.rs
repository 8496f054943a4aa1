//! Member processes: started, killed, stopped, continued, never left behind.

use std::fs::{File, OpenOptions};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::{kv, peer, say};

/// How long a cluster may take to serve, on a machine that is busy.
pub const START_LIMIT: Duration = Duration::from_secs(30);

/// Which program the members run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    RaftKv,
    Etcd,
}

impl Kind {
    /// The members under test. `RAFT_KV_MEMBERS=etcd` puts etcd in their place,
    /// to test the tests: it must show no difference.
    pub fn under_test() -> Kind {
        match std::env::var("RAFT_KV_MEMBERS").as_deref() {
            Ok("etcd") => Kind::Etcd,
            _ => Kind::RaftKv,
        }
    }

    fn command(self) -> Command {
        match self {
            Kind::RaftKv => {
                with_death_of_parent(Path::new(env!("CARGO_BIN_EXE_raft-kv")), "server")
            }
            Kind::Etcd => with_death_of_parent(peer::program().expect("asked before"), "etcd"),
        }
    }
}

/// Has the kernel kill the process should the test itself be killed, where there
/// is `setpriv`; the process keeps its id.
fn with_death_of_parent(program: &Path, argument: &str) -> Command {
    let setpriv = Path::new("/usr/bin/setpriv");
    if !setpriv.exists() {
        let mut command = Command::new(program);
        command.arg(argument);
        return command;
    }
    let mut command = Command::new(setpriv);
    command.args(["--pdeathsig", "KILL", "--"]).arg(program).arg(argument);
    command
}

/// A port that is free on loopback. Below the range from which the kernel draws
/// ports of outgoing connections: a member that is down keeps its port.
pub fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let start = std::process::id() as u16;
    for _ in 0..10_000 {
        let step = NEXT.fetch_add(1, Ordering::Relaxed);
        let port = 20_000 + start.wrapping_mul(61).wrapping_add(step) % 12_000;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
    panic!("no free port on loopback");
}

/// One member: its flags, its folder, and its process while it runs.
pub struct Member {
    pub kind: Kind,
    pub name: String,
    pub host: String,
    pub client_port: u16,
    pub peer_port: u16,
    pub folder: PathBuf,
    pub flags: Vec<String>,
    /// A program and its arguments that run the member's command line, if any.
    pub wrapper: Vec<String>,
    process: Option<Child>,
}

impl Member {
    /// `host:port` for clients.
    pub fn endpoint(&self) -> String {
        format!("{}:{}", self.host, self.client_port)
    }

    pub fn data_dir(&self) -> PathBuf {
        self.folder.join("data")
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder.join("log")).unwrap_or_default()
    }

    /// Starts the process; does not wait until it serves.
    pub fn start(&mut self) {
        assert!(self.process.is_none(), "{} runs already", self.name);
        let log =
            OpenOptions::new().create(true).append(true).open(self.folder.join("log")).unwrap();
        self.process =
            Some(self.command().stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap());
    }

    /// The member's command line, ready to run.
    pub fn command(&self) -> Command {
        let mut command = self.kind.command();
        if let [program, arguments @ ..] = self.wrapper.as_slice() {
            let mut outer = Command::new(program);
            outer.args(arguments).arg(command.get_program()).args(command.get_args());
            command = outer;
        }
        command.args(&self.flags).stdin(Stdio::null()).env_remove("ETCDCTL_API");
        command
    }

    /// The id of the process, which runs.
    pub fn process_id(&self) -> u32 {
        self.process.as_ref().expect("the member runs").id()
    }

    fn signal(&self, signal: Signal) {
        let process = self.process.as_ref().expect("the member runs");
        kill_process(Pid::from_child(process), signal).unwrap();
    }

    /// SIGKILL; returns when the process is gone.
    pub fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            let _ = process.kill();
            let _ = process.wait();
        }
    }

    /// SIGTERM; returns how it ended, or kills it and panics after 20 seconds.
    pub fn terminate(&mut self) -> ExitStatus {
        self.signal(Signal::TERM);
        let mut process = self.process.take().expect("the member runs");
        let start = Instant::now();
        loop {
            if let Some(status) = process.try_wait().unwrap() {
                return status;
            }
            if start.elapsed() > Duration::from_secs(20) {
                let _ = process.kill();
                let _ = process.wait();
                panic!("{} ignored SIGTERM for 20 seconds", self.name);
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// SIGSTOP: the process stands still, its connections stay open.
    pub fn pause(&self) {
        self.signal(Signal::STOP);
    }

    /// SIGCONT.
    pub fn resume(&self) {
        self.signal(Signal::CONT);
    }

    pub fn is_running(&mut self) -> bool {
        self.process.as_mut().is_some_and(|process| process.try_wait().unwrap().is_none())
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Members that form a cluster, in a folder of their own that goes with them;
/// it stays, and the logs' ends are shown, when the test fails.
pub struct Cluster {
    pub members: Vec<Member>,
    folder: Option<tempfile::TempDir>,
}

impl Cluster {
    /// Lays out `size` members with names m1, m2, ...; starts none.
    pub fn new(kind: Kind, size: usize, more_flags: &[&str]) -> Cluster {
        Cluster::at(kind, &vec!["127.0.0.1".to_owned(); size], more_flags)
    }

    /// The same, one member at each of these addresses.
    pub fn at(kind: Kind, hosts: &[String], more_flags: &[&str]) -> Cluster {
        let folder = tempfile::Builder::new().prefix("raft-kv-test-").tempdir().unwrap();
        let places: Vec<_> =
            hosts.iter().map(|host| (host.clone(), free_port(), free_port())).collect();
        let initial: Vec<String> = (1..)
            .zip(&places)
            .map(|(n, (host, _, peer))| format!("m{n}=http://{host}:{peer}"))
            .collect();
        let members = (1..)
            .zip(places)
            .map(|(n, (host, client_port, peer_port))| {
                let name = format!("m{n}");
                let folder = folder.path().join(&name);
                std::fs::create_dir(&folder).unwrap();
                File::create(folder.join("log")).unwrap();
                let mut flags = vec![
                    format!("--name={name}"),
                    format!("--data-dir={}", folder.join("data").display()),
                    format!("--listen-client-urls=http://{host}:{client_port}"),
                    format!("--advertise-client-urls=http://{host}:{client_port}"),
                    format!("--listen-peer-urls=http://{host}:{peer_port}"),
                    format!("--initial-advertise-peer-urls=http://{host}:{peer_port}"),
                    format!("--initial-cluster={}", initial.join(",")),
                    "--initial-cluster-state=new".to_owned(),
                ];
                flags.extend(more_flags.iter().map(|flag| (*flag).to_owned()));
                Member {
                    kind,
                    name,
                    host,
                    client_port,
                    peer_port,
                    folder,
                    flags,
                    wrapper: Vec::new(),
                    process: None,
                }
            })
            .collect();
        Cluster { members, folder: Some(folder) }
    }

    /// A running cluster that serves at every member.
    pub async fn start(kind: Kind, size: usize, more_flags: &[&str]) -> Cluster {
        let mut cluster = Cluster::new(kind, size, more_flags);
        cluster.members.iter_mut().for_each(Member::start);
        cluster.serves().await;
        cluster
    }

    /// Waits until every member answers a linearizable read.
    pub async fn serves(&mut self) {
        for member in &mut self.members {
            member_serves(member).await;
        }
    }

    pub fn endpoints(&self) -> Vec<String> {
        self.members.iter().map(Member::endpoint).collect()
    }

    /// Which member leads, by the word of the members that run; waits for one.
    pub async fn leader(&self) -> usize {
        let start = Instant::now();
        loop {
            let mut told = Vec::new();
            for (n, member) in self.members.iter().enumerate() {
                if member.process.is_some()
                    && let Some(status) = kv::status(&member.endpoint()).await
                {
                    told.push((n, status));
                }
            }
            // The highest term's word counts: a leader of an older one is deposed.
            let leads = told.iter().max_by_key(|(_, status)| status.raft_term);
            if let Some((_, latest)) = leads
                && let Some((n, _)) = told.iter().find(|(_, status)| {
                    status.header.as_ref().map(|header| header.member_id) == Some(latest.leader)
                })
            {
                return *n;
            }
            assert!(start.elapsed() < START_LIMIT, "waited {START_LIMIT:?} in vain for a leader");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// Waits until the member answers a linearizable read.
pub async fn member_serves(member: &mut Member) {
    let start = Instant::now();
    while !kv::answers(&member.endpoint()).await {
        assert!(member.is_running(), "{} ended:\n{}", member.name, tail(&member.log()));
        assert!(start.elapsed() < START_LIMIT, "{} serves not within {START_LIMIT:?}", member.name);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn tail(log: &str) -> String {
    let lines: Vec<&str> = log.lines().collect();
    lines[lines.len().saturating_sub(15)..].join("\n")
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.members.iter_mut().for_each(Member::kill);
        if std::thread::panicking()
            && let Some(folder) = self.folder.take()
        {
            for member in &self.members {
                say(format!("--- end of {}'s log\n{}", member.name, tail(&member.log())));
            }
            say(format!("--- logs and data are kept in {}", folder.keep().display()));
        }
    }
}
