//! A member's life: bind, open the data, join, serve, hand over, stop.

use crate::api::Member;
use crate::config::{Config, ConfigError};
use crate::connection::Edge;
use crate::desk::{self, Counter, DeskKit, Mail};
use crate::disk_thread::{self, DiskHandle, Work};
use crate::identity::Id;
use crate::node_thread::{self, Deliveries};
use crate::open_files::{Shares, TooFew};
use crate::readers::Readers;
use crate::transport::{Outgoing, Transport};
use crate::urls::Url;
use crate::{API_VERSION, clients};
use arc_swap::ArcSwap;

use raft::{Membership, NodeId};
use replica::{Input, Proposal, Published, Replica, Reply, Started, Storage, StorageError};
use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tokio::runtime::Runtime;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::watch;
use tracing::{info, warn};
use wal::{FileDisk, Identity};

/// The node's sense of time is this many times finer than its heartbeats: elections of several
/// members fall apart better, and a leader notices sooner that it is alone.
const TICKS_PER_HEARTBEAT: u32 = 4;
/// Entries in one append to a peer.
const APPEND_BYTES_MAX: usize = 1 << 20;
/// Entries under way to one peer.
const INFLIGHT_BYTES_MAX: usize = 16 << 20;
/// Entries kept in memory for peers that are a little behind.
const TAIL_BYTES_MAX: usize = 4 << 20;
/// Writes that a member admits at once, from when they come in until they are applied and on disk.
const ADMITTED_BYTES_MAX: usize = 64 << 20;
/// What is under way when the member stops gets so much time.
const FINISH_PATIENCE: Duration = Duration::from_secs(2);
/// While no leader answers, say so this often.
const JOIN_COMPLAINT_INTERVAL: Duration = Duration::from_secs(5);

/// Why a member cannot start, or cannot go on. One line when displayed.
#[derive(Debug)]
pub enum StartError {
    /// A setting.
    Config(ConfigError),
    /// A port is in use, or not ours to use.
    Bind {
        /// The URL to listen on.
        url: String,
        /// The flag it comes from, without dashes.
        flag: &'static str,
        /// What the system says.
        error: io::Error,
    },
    /// The data directory cannot be used.
    DataDir {
        /// Where it is.
        path: PathBuf,
        /// What is wrong.
        error: io::Error,
    },
    /// What is in the data directory cannot be used.
    Storage {
        /// Where it is.
        path: PathBuf,
        /// What is wrong.
        error: StorageError,
    },
    /// `--initial-cluster-state existing` without data: joining is not served yet.
    NothingThere(PathBuf),
    /// The limit of open files is too low.
    OpenFiles(TooFew),
    /// The system gives no thread, or no chance.
    System(io::Error),
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StartError::Config(error) => error.fmt(f),
            StartError::Bind { url, flag, error } => {
                write!(f, "cannot listen on {url} (--{flag}): {error}")
            }
            StartError::DataDir { path, error } => {
                write!(f, "cannot use the data directory {}: {error}", path.display())
            }
            StartError::Storage { path, error } => {
                write!(f, "data directory {}: {error}", path.display())
            }
            StartError::NothingThere(path) => write!(
                f,
                "--initial-cluster-state is existing, but there is no data in {}, and joining a \
                 running cluster is not served yet: check --data-dir",
                path.display()
            ),
            StartError::OpenFiles(TooFew { limit, needed }) => write!(
                f,
                "cannot serve with {limit} open files, this member needs at least {needed}: raise \
                 the limit (ulimit -n, or LimitNOFILE of the service)"
            ),
            StartError::System(error) => write!(f, "cannot start: {error}"),
        }
    }
}

impl std::error::Error for StartError {}

impl From<io::Error> for StartError {
    fn from(error: io::Error) -> StartError {
        StartError::System(error)
    }
}

/// Listeners that are bound before anything on disk is touched.
struct Listeners {
    peers: Vec<TcpListener>,
    clients: Vec<TcpListener>,
    pages: Vec<TcpListener>,
    early_pages: Vec<TcpListener>,
}

impl Listeners {
    fn bind(config: &Config) -> Result<Listeners, StartError> {
        Ok(Listeners {
            peers: bind(&config.listen_peer_urls, "listen-peer-urls")?,
            clients: bind(&config.listen_client_urls, "listen-client-urls")?,
            pages: bind(&config.listen_http_urls, "listen-client-http-urls")?,
            early_pages: bind(&config.listen_metrics_urls, "listen-metrics-urls")?,
        })
    }
}

fn bind(urls: &[Url], flag: &'static str) -> Result<Vec<TcpListener>, StartError> {
    let bind = |url: &Url| {
        let address: SocketAddr = url.listen_address().map_err(io::Error::other)?;
        let listener = TcpListener::bind(address)?;
        listener.set_nonblocking(true)?;
        Ok(listener)
    };
    urls.iter()
        .map(|url| {
            bind(url).map_err(|error| StartError::Bind { url: url.to_string(), flag, error })
        })
        .collect()
}

/// A member that runs, until [`Running::stop`].
pub struct Running {
    member: Arc<Member>,
    outgoing: Arc<Outgoing>,
    inbox: UnboundedSender<Mail>,
    /// Ends the network threads, once what is under way is done.
    stop: watch::Sender<bool>,
    control: Runtime,
    node: JoinHandle<()>,
    disk: JoinHandle<()>,
    disk_work: DiskHandle,
    networks: Vec<JoinHandle<()>>,
}

/// Starts a member and returns once it serves clients, or `given_up` says to stop waiting.
///
/// # Errors
/// Why it cannot start. Unless the data directory itself is at fault, nothing was changed.
pub fn start(config: Config, given_up: impl Fn() -> bool) -> Result<Option<Running>, StartError> {
    let config = Arc::new(config);
    let listeners = Listeners::bind(&config)?;
    let shares =
        Shares::new(config.network_threads, config.members.len()).map_err(StartError::OpenFiles)?;
    let Started { storage, restored, is_new, warnings, .. } = open_data(&config)?;
    for warning in warnings {
        warn!("{warning}");
    }
    note_start(&config, &restored, is_new);
    let control = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (stop, stopped) = watch::channel(false);
    let (inbox, mail) = unbounded_channel();
    let (counter, mut kits) = Counter::new(config.network_threads + 1, &inbox);
    let replica = Replica::new(replica_config(&config)?, restored);
    let published = first_published(&config, &replica);
    let edge = Edge::new(Readers::start()?);
    let member = Arc::new(Member {
        config,
        published,
        longest_turn: Arc::default(),
        edge,
        stopping: AtomicBool::new(false),
    });
    let ids = member.config.members.keys().map(|id| NodeId(id.0));
    let outgoing = Arc::new(Outgoing::new(ids));
    let (disk_work, disk) = disk_thread::start(storage, &inbox, disk_failed)?;
    let deliveries = Deliveries {
        published: Arc::clone(&member.published),
        peers: Arc::clone(&outgoing),
        disk: disk_work.clone(),
        counter,
        started: tokio::time::Instant::now(),
        longest_turn: Arc::clone(&member.longest_turn),
    };
    let transport = Transport::new(
        &member.config,
        Arc::clone(&outgoing),
        inbox.clone(),
        Arc::clone(&member.published),
    );
    let tick = tick(&member.config);
    let node = start_node(replica, tick, mail, deliveries, transport, (listeners.peers, &shares))?;
    let control_kit = kits.pop().expect("one desk more than network threads");
    serve_early(&control, control_kit, (listeners.early_pages, &shares), &member, &stopped)?;
    let networks = Vec::new();
    #[rustfmt::skip]
    let running =
        Running { member, outgoing, inbox, stop, control, node, disk, disk_work, networks };
    if !running.control.block_on(running.join(given_up)) {
        running.stop();
        return Ok(None);
    }
    running.serve(listeners.clients, listeners.pages, &shares, kits, &stopped).map(Some)
}

/// Logs who starts, and with what.
fn note_start(config: &Config, restored: &raft::Restored, is_new: bool) {
    info!(
        name = config.name,
        member = %config.member_id,
        cluster = %config.cluster_id,
        members = config.members.len(),
        data = %config.data_dir.display(),
        entries = restored.positions.len(),
        term = restored.hard_state.term.0,
        life = restored.incarnation.start,
        "{}",
        if is_new { "starts with an empty log" } else { "starts with the log it left" }
    );
}

/// Gives the main thread its desk, and serves the pages that do not wait for the member to join.
fn serve_early(
    control: &Runtime,
    kit: DeskKit,
    (listeners, shares): (Vec<TcpListener>, &Shares),
    member: &Arc<Member>,
    stopped: &watch::Receiver<bool>,
) -> io::Result<()> {
    control.block_on(async {
        desk::open(kit);
        for listener in listeners {
            let door = shares.door_of_pages(tokio::net::TcpListener::from_std(listener)?);
            tokio::spawn(clients::serve_pages(door, Arc::clone(member), stopped.clone()));
        }
        Ok(())
    })
}

fn open_data(config: &Config) -> Result<Started<FileDisk>, StartError> {
    let path = || config.data_dir.clone();
    let at = |error| StartError::DataDir { path: path(), error };
    let storage_error = |error| StartError::Storage { path: path(), error };
    if config.existing {
        let found = match FileDisk::open(path()) {
            Ok(disk) => wal::Wal::exists(&disk).map_err(|error| storage_error(error.into()))?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => false,
            Err(error) => return Err(at(error)),
        };
        if !found {
            return Err(StartError::NothingThere(path()));
        }
    }
    let disk = FileDisk::create(path()).map_err(at)?;
    let identity = Identity { cluster: config.cluster_id.0, member: config.member_id.0 };
    let draw = chance()?;
    Storage::start(disk, identity, wal::Options::default(), draw).map_err(storage_error)
}

fn tick(config: &Config) -> Duration {
    config.heartbeat / TICKS_PER_HEARTBEAT
}

fn replica_config(config: &Config) -> Result<replica::Config, StartError> {
    let tick = tick(config);
    let ticks = |time: Duration| (time.as_micros() / tick.as_micros().max(1)) as u32;
    let seed = chance()?;
    info!(seed, "chance");
    Ok(replica::Config {
        raft: raft::Config {
            id: NodeId(config.member_id.0),
            membership: Membership::new(config.members.keys().map(|id| NodeId(id.0))),
            election_ticks: ticks(config.election),
            heartbeat_ticks: TICKS_PER_HEARTBEAT,
            seed,
            pre_vote: config.pre_vote,
            check_quorum: true,
            append_bytes_max: APPEND_BYTES_MAX,
            inflight_bytes_max: INFLIGHT_BYTES_MAX,
            tail_bytes_max: TAIL_BYTES_MAX,
        },
        boot: chance()?,
        members: replica_members(config),
        request_ticks_max: ticks(config.request_timeout()),
        admitted_bytes_max: ADMITTED_BYTES_MAX,
        slice: replica::Slice::default(),
    })
}

/// 64 bits from the system: nobody has drawn them before.
fn chance() -> io::Result<u64> {
    use std::io::Read as _;
    let mut bytes = [0; 8];
    std::fs::File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    // Mixed with the time, so that a machine without entropy yet does not repeat itself.
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos());
    Ok(u64::from_le_bytes(bytes) ^ (now as u64).rotate_left(32))
}

/// What readers see before the first round.
fn first_published(config: &Config, replica: &Replica) -> Arc<ArcSwap<Published>> {
    let members = replica_members(config);
    Arc::new(ArcSwap::from_pointee(Published {
        view: store::Store::new().view(),
        status: replica.status(),
        members: members.into(),
        logs: replica.logs(),
    }))
}

fn replica_members(config: &Config) -> Vec<replica::Member> {
    config
        .members
        .iter()
        .map(|(id, member)| replica::Member {
            id: NodeId(id.0),
            name: member.name.clone(),
            peer_urls: member.peer_urls.iter().map(Url::to_string).collect(),
            client_urls: Vec::new(),
            is_learner: false,
        })
        .collect()
}

fn disk_failed(error: io::Error) {
    crate::fatal(&format!("the disk failed, this member ends: {error}"));
}

/// The node's thread: the replica, and the streams to its peers. What clients do cannot keep it
/// from its heartbeats.
fn start_node(
    replica: Replica,
    tick: Duration,
    mail: UnboundedReceiver<Mail>,
    deliveries: Deliveries,
    transport: Transport,
    (listeners, shares): (Vec<TcpListener>, &Shares),
) -> io::Result<JoinHandle<()>> {
    let shares = shares.clone();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    std::thread::Builder::new().name("node".to_owned()).spawn(move || {
        runtime.block_on(async move {
            transport.dial();
            for listener in listeners {
                match tokio::net::TcpListener::from_std(listener) {
                    Ok(listener) => {
                        let door = shares.door_of_peers(listener);
                        tokio::spawn(transport.clone().accept(door));
                    }
                    Err(error) => crate::fatal(&format!("cannot listen for peers: {error}")),
                }
            }
            // As a task: to wake what `block_on` itself runs costs a system call, a task costs none.
            let node = tokio::spawn(node_thread::run(replica, tick, mail, deliveries));
            node.await.expect("a panic ends the process");
        });
    })
}

impl Running {
    /// Makes this member's name and addresses known through the log: when that is applied here,
    /// there is a leader and this member has caught up with it.
    async fn join(&self, given_up: impl Fn() -> bool) -> bool {
        let config = &self.member.config;
        let publish = proto::log::Publish {
            member_id: config.member_id.0,
            name: config.name.clone(),
            client_urls: config.advertise_client_urls.iter().map(Url::to_string).collect(),
        };
        let mut complained = Instant::now();
        // Whom the others know by name has something on its disk: with an empty disk it is refused
        // from then on.
        while self.member.published.load().status.durable == raft::Index(0) {
            if given_up() {
                return false;
            }
            if complained.elapsed() >= JOIN_COMPLAINT_INTERVAL {
                complained = Instant::now();
                self.say_why_it_waits();
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        loop {
            let proposal = Proposal::new(replica::Kind::Publish, &publish);
            let asked = desk::ask(0, |request| Input::Propose { request, proposal });
            let mut asked = std::pin::pin!(asked);
            let reply = loop {
                if given_up() {
                    return false;
                }
                match tokio::time::timeout(Duration::from_millis(100), asked.as_mut()).await {
                    Ok(reply) => break reply,
                    Err(_) if complained.elapsed() < JOIN_COMPLAINT_INTERVAL => {}
                    Err(_) => {
                        complained = Instant::now();
                        self.say_why_it_waits();
                    }
                }
            };
            if reply == Reply::Published {
                return true;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    fn say_why_it_waits(&self) {
        let status = self.member.published.load().status;
        let (applied, last) = (status.applied.0, status.last.index.0);
        if status.leader.is_some() {
            info!(applied, last, "catches up with the log; clients are not served yet");
            return;
        }
        let members = &self.member.config.members;
        let name = |id: NodeId| members.get(&Id(id.0)).map_or("?", |member| member.name.as_str());
        let missing: Vec<String> =
            self.outgoing.unconnected().iter().map(|id| format!("{} ({id})", name(*id))).collect();
        let (connected, peers) = (self.outgoing.connected(), members.len() - 1);
        warn!(
            connected,
            peers,
            missing = missing.join(", "),
            "waits for a leader; clients are not served yet. A majority of whole members is needed; \
             lines above say why members are missing"
        );
    }

    /// Opens the doors for clients.
    fn serve(
        mut self,
        clients: Vec<TcpListener>,
        pages: Vec<TcpListener>,
        shares: &Shares,
        kits: Vec<DeskKit>,
        stopped: &watch::Receiver<bool>,
    ) -> Result<Running, StartError> {
        let mut deals = Vec::new();
        for (number, kit) in kits.into_iter().enumerate() {
            let (deal, dealt) = tokio::sync::mpsc::unbounded_channel();
            deals.push(deal);
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            let (member, stopped) = (Arc::clone(&self.member), stopped.clone());
            let thread = std::thread::Builder::new().name(format!("net-{number}"));
            self.networks.push(thread.spawn(move || {
                runtime.block_on(async move {
                    desk::open(kit);
                    clients::serve(member, dealt, stopped).await;
                    finish(&tokio::runtime::Handle::current()).await;
                });
            })?);
        }
        self.control.block_on(async {
            for listener in clients {
                let door = shares.door_of_clients(tokio::net::TcpListener::from_std(listener)?);
                tokio::spawn(clients::accept(door, deals.clone()));
            }
            for listener in pages {
                let door = shares.door_of_pages(tokio::net::TcpListener::from_std(listener)?);
                let member = Arc::clone(&self.member);
                tokio::spawn(clients::serve_pages(door, member, stopped.clone()));
            }
            Ok::<_, io::Error>(())
        })?;
        let urls: Vec<String> =
            self.member.config.listen_client_urls.iter().map(Url::to_string).collect();
        info!(
            name = self.member.config.name,
            urls = urls.join(","),
            version = env!("CARGO_PKG_VERSION"),
            api = API_VERSION,
            "ready to serve client requests"
        );
        Ok(self)
    }

    /// This member's id.
    pub fn id(&self) -> Id {
        self.member.config.member_id
    }

    /// Serves until `end` is done, then stops in good order: hands leadership over, finishes what
    /// is under way, closes.
    pub fn run_until(self, end: impl Future<Output = ()>) {
        self.control.block_on(end);
        self.stop();
    }

    /// Stops in good order.
    pub fn stop(self) {
        self.control.block_on(self.hand_over());
        self.member.stopping.store(true, Ordering::Relaxed);
        let _ = self.stop.send(true);
        // What is under way still needs the node: it ends last.
        for thread in self.networks {
            let _ = thread.join();
        }
        let _ = self.inbox.send(Mail::Stop);
        let _ = self.node.join();
        self.disk_work.send(Work::Stop);
        // It may hang in the disk, and owes nobody anything any more.
        let deadline = Instant::now() + FINISH_PATIENCE;
        while !self.disk.is_finished() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(1));
        }
        info!("stopped");
    }

    /// Gives leadership away, if this member has it and somebody can take it.
    async fn hand_over(&self) {
        let status = self.member.published.load().status;
        if status.leader != Some(status.id) || self.member.config.members.len() == 1 {
            return;
        }
        let deadline = Instant::now() + 2 * self.member.config.election;
        let asked = desk::ask(0, |request| Input::Transfer { request, to: None });
        let mut asked = std::pin::pin!(asked);
        // When the whole cluster stops there is soon nobody left to wait for.
        while Instant::now() < deadline && self.outgoing.connected() > 0 {
            match tokio::time::timeout(Duration::from_millis(20), asked.as_mut()).await {
                Ok(Reply::Transferred(to)) => {
                    info!(to = format_args!("{:x}", to.0), "handed leadership over");
                    return;
                }
                Ok(_) => break,
                Err(_) => {}
            }
        }
        warn!("nobody took leadership over");
    }
}

/// Waits until the tasks of this thread are done, or their time is up.
async fn finish(runtime: &tokio::runtime::Handle) {
    /// The desk's own two tasks never end.
    const DESK_TASKS: usize = 2;
    let deadline = Instant::now() + FINISH_PATIENCE;
    while runtime.metrics().num_alive_tasks() > DESK_TASKS && Instant::now() < deadline {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
