//! Runs the scripts: one behaviour each, as a trace that can be read. The commands are
//! documented on [`Act`]; `UPDATE_GOLDENFILES=1 cargo test -p raft --test scripts` writes the
//! traces anew, to be read before they are believed.

#![allow(clippy::unwrap_used, reason = "a test that is wrong may die")]

mod cluster;

use bytes::Bytes;
use cluster::Cluster;
use goldenscript::Command;
use raft::*;
use std::collections::BTreeMap;
use std::error::Error;
use std::fmt::Write as _;

#[test]
fn scripts() {
    let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/scripts");
    let mut paths: Vec<_> =
        std::fs::read_dir(dir).expect("scripts").map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    let only = std::env::var("SCRIPT").ok();
    let mut failed = Vec::new();
    for path in &paths {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if only.as_ref().is_some_and(|only| !name.contains(only.as_str())) {
            continue;
        }
        let run = || goldenscript::run(&mut Script::new(), path).unwrap();
        if std::panic::catch_unwind(run).is_err() {
            failed.push(name);
        }
    }
    assert!(failed.is_empty(), "SCRIPT=name runs one; failed: {failed:?}");
    eprintln!("{} scripts", paths.len());
}

type Outcome = Result<(), Box<dyn Error>>;

/// A script's cluster. Commands:
///
/// - `cluster [nodes=3] [pre_vote=true] [check_quorum=true] [append_bytes_max=] ...`;
///   `incarnations=true`: members name their logs, and admit those of others.
/// - `lead ID`: makes a member the leader, everything delivered.
/// - `tick ID [N]`, `campaign ID` (ticks until it asks or campaigns), `propose ID WORD...`,
///   `read ID N`, `transfer ID [TO]`, `disconnect ID PEER`, `connect ID PEER`, `contact ID PEER`.
/// - `deliver [FILTER]`: what is on its way now; `stabilize`: until nothing is on its way.
/// - `drop [FILTER]`, `copy [FILTER]`, `hold NAME [FILTER]`, `release NAME`, `flight`.
///   FILTER: `from=ID to=ID type=NAME n=COUNT`; `n` takes the first, `last=COUNT` the last ones.
/// - `cut A B` (both ways), `cut A B oneway`, `heal`: what `deliver` and `stabilize` lose.
/// - `hang ID`: reads from its disk are not answered.
/// - `slow ID`: writes wait; `sync ID [N]`: the oldest complete; `fast ID`: all, from now on.
/// - `crash ID`, `restart ID`, `status [ID]`, `log ID`.
/// - `wipe ID`: its disk is lost; `backup ID`: copies its disk; `restore ID`: puts the copy back;
///   `lose ID`: puts back the copy's entries, under the name that the log has.
/// - `upgrade`: from now on who starts names its log, and admits those of others.
/// - `inject FROM TO TERM TYPE [key=value...]`: a message nobody sent.
struct Script {
    cluster: Cluster,
    held: BTreeMap<String, Vec<Message>>,
    cut: Vec<(NodeId, NodeId)>,
}

/// A command with its arguments sorted out.
struct Act<'a> {
    words: Vec<&'a str>,
    keys: BTreeMap<&'a str, &'a str>,
}

impl goldenscript::Runner for Script {
    type Command = Command;

    fn run(
        &mut self,
        command: &Command,
        _: &goldenscript::Context,
    ) -> Result<String, Box<dyn Error>> {
        self.cluster.trace.clear();
        let mut act = Act { words: Vec::new(), keys: BTreeMap::new() };
        let mut args = command.consume_args();
        while let Some((key, value)) = args.next_key() {
            act.keys.insert(key, value);
        }
        while let Some(word) = args.next_pos() {
            act.words.push(word);
        }
        self.act(&command.name, &act)?;
        Ok(std::mem::take(&mut self.cluster.trace))
    }
}

impl Act<'_> {
    fn id(&self, n: usize) -> Result<NodeId, Box<dyn Error>> {
        Ok(NodeId(self.words.get(n).ok_or("which member?")?.parse()?))
    }

    fn number(&self, n: usize, default: u64) -> Result<u64, Box<dyn Error>> {
        Ok(self.words.get(n).map_or(Ok(default), |word| word.parse())?)
    }

    fn key<T: std::str::FromStr>(&self, key: &str, default: T) -> Result<T, Box<dyn Error>>
    where
        T::Err: Error + 'static,
    {
        Ok(self.keys.get(key).map_or(Ok(default), |value| value.parse())?)
    }
}

impl Script {
    fn new() -> Script {
        Script { cluster: Cluster::new(3, |_| ()), held: BTreeMap::new(), cut: Vec::new() }
    }

    fn act(&mut self, name: &str, act: &Act<'_>) -> Outcome {
        match name {
            "cluster" => self.start(act)?,
            "deliver" => self.deliver(act)?,
            "stabilize" => self.stabilize(),
            "drop" => drop(self.take(act)?),
            "copy" => self.copy(act)?,
            "hold" => self.hold(act)?,
            "release" => self.release(act)?,
            "flight" => self.flight(),
            "cut" => self.cut(act)?,
            "heal" => self.cut.clear(),
            "upgrade" => self.cluster.names_logs = true,
            "lead" => self.lead(act.id(0)?)?,
            "slow" => self.cluster.member(act.id(0)?).slow = true,
            "hang" => self.cluster.member(act.id(0)?).hangs = true,
            "fast" => self.fast(act.id(0)?),
            "sync" => self.sync(act)?,
            "crash" => self.cluster.crash(act.id(0)?),
            "restart" => self.cluster.restart(act.id(0)?),
            "wipe" => self.cluster.wipe(act.id(0)?),
            "backup" => self.cluster.backup(act.id(0)?),
            "lose" => self.cluster.lose(act.id(0)?),
            "restore" => self.cluster.restore(act.id(0)?),
            "status" => self.status(act)?,
            "log" => self.log(act.id(0)?),
            "inject" => self.inject(act)?,
            _ => self.input(name, act)?,
        }
        Ok(())
    }

    /// Inputs to a node.
    fn input(&mut self, name: &str, act: &Act<'_>) -> Outcome {
        let id = act.id(0)?;
        let refused = match name {
            "tick" => {
                for _ in 0..act.number(1, 1)? {
                    self.cluster.tick(id);
                }
                None
            }
            "campaign" => {
                self.campaign(id)?;
                None
            }
            "propose" => {
                let command = act.words[1..].join(" ");
                self.cluster.propose(id, &command).err()
            }
            "read" => self.cluster.read(id, act.number(1, 1)?).err(),
            "transfer" => {
                let to = (act.words.len() > 1).then(|| act.id(1)).transpose()?;
                self.cluster.with(id, |node| node.transfer(to)).and_then(Result::err)
            }
            "contact" => {
                let peer = act.id(1)?;
                self.cluster.with(id, |node| node.contact(peer));
                None
            }
            "disconnect" => {
                let peer = act.id(1)?;
                self.cluster.with(id, |node| node.disconnected(peer));
                None
            }
            "connect" => {
                let peer = act.id(1)?;
                self.cluster.with(id, |node| node.connected(peer));
                None
            }
            _ => return Err(format!("no command {name}").into()),
        };
        if let Some(refusal) = refused {
            writeln!(self.cluster.trace, "n{id} refuses: {refusal:?}")?;
        }
        Ok(())
    }

    fn start(&mut self, act: &Act<'_>) -> Outcome {
        let size = act.key("nodes", 3)?;
        let pre_vote = act.key("pre_vote", true)?;
        let check_quorum = act.key("check_quorum", true)?;
        let append_bytes_max = act.key("append_bytes_max", 1 << 20)?;
        let inflight_bytes_max = act.key("inflight_bytes_max", 1 << 20)?;
        let tail_bytes_max = act.key("tail_bytes_max", 1 << 20)?;
        let incarnations = act.key("incarnations", false)?;
        self.cluster = Cluster::with_names(size, incarnations, |config| {
            config.pre_vote = pre_vote;
            config.check_quorum = check_quorum;
            config.append_bytes_max = append_bytes_max;
            config.inflight_bytes_max = inflight_bytes_max;
            config.tail_bytes_max = tail_bytes_max;
        });
        Ok(())
    }

    fn campaign(&mut self, id: NodeId) -> Outcome {
        let term = self.cluster.status(id).ok_or("it does not run")?.term;
        for _ in 0..40 {
            self.cluster.tick(id);
            let now = self.cluster.status(id).expect("it runs");
            if now.term > term || now.role == RoleName::PreCandidate {
                return Ok(());
            }
        }
        Err("it does not campaign".into())
    }

    fn lead(&mut self, id: NodeId) -> Outcome {
        for peer in self.cluster.ids() {
            let ticks = if peer == id { 0 } else { 10 };
            // Nobody campaigns before ten ticks, and after ten nobody hears an old leader.
            for _ in 0..ticks {
                if self.cluster.status(peer).is_some_and(|s| s.role == RoleName::Follower) {
                    self.cluster.tick(peer);
                }
            }
        }
        self.cluster.network.clear();
        self.campaign(id)?;
        self.stabilize();
        let status = self.cluster.status(id).ok_or("it does not run")?;
        if status.role != RoleName::Leader {
            return Err(format!("n{id} is {:?}", status.role).into());
        }
        Ok(())
    }

    fn fast(&mut self, id: NodeId) {
        self.cluster.member(id).slow = false;
        while self.cluster.sync(id) {}
    }

    fn sync(&mut self, act: &Act<'_>) -> Outcome {
        for _ in 0..act.number(1, 1)? {
            if !self.cluster.sync(act.id(0)?) {
                return Err("nothing to sync".into());
            }
        }
        Ok(())
    }

    fn matches(&self, message: &Message, act: &Act<'_>) -> bool {
        let body = message.body.to_string();
        let kind = body.split(' ').next().unwrap_or_default();
        let is = |key: &str, value: String| act.keys.get(key).is_none_or(|want| *want == value);
        is("from", message.from.to_string())
            && is("to", message.to.to_string())
            && is("type", kind.to_string())
    }

    /// Takes the messages a filter names off the network.
    fn take(&mut self, act: &Act<'_>) -> Result<Vec<Message>, Box<dyn Error>> {
        let all: Vec<usize> = (0..self.cluster.network.len())
            .filter(|n| self.matches(&self.cluster.network[*n], act))
            .collect();
        let first = act.key("n", all.len())?.min(all.len());
        let last = act.key("last", first)?.min(first);
        let chosen = &all[first - last..first];
        let network = std::mem::take(&mut self.cluster.network);
        let (mut taken, mut kept) = (Vec::new(), Vec::new());
        for (n, message) in network.into_iter().enumerate() {
            if chosen.contains(&n) { taken.push(message) } else { kept.push(message) }
        }
        self.cluster.network = kept;
        Ok(taken)
    }

    fn deliver(&mut self, act: &Act<'_>) -> Outcome {
        for message in self.take(act)? {
            self.hand_over(message);
        }
        Ok(())
    }

    fn hand_over(&mut self, message: Message) {
        if !self.cut.contains(&(message.from, message.to)) {
            self.cluster.with(message.to, |node| node.step(message));
        }
    }

    fn stabilize(&mut self) {
        while !self.cluster.network.is_empty() {
            let message = self.cluster.network.remove(0);
            self.hand_over(message);
        }
    }

    fn copy(&mut self, act: &Act<'_>) -> Outcome {
        let messages = self.take(act)?;
        self.cluster.network.extend(messages.iter().cloned());
        self.cluster.network.extend(messages);
        Ok(())
    }

    fn hold(&mut self, act: &Act<'_>) -> Outcome {
        let messages = self.take(act)?;
        let name = act.words.first().ok_or("hold as what?")?;
        for message in &messages {
            writeln!(self.cluster.trace, "held: {message}")?;
        }
        self.held.entry(name.to_string()).or_default().extend(messages);
        Ok(())
    }

    fn release(&mut self, act: &Act<'_>) -> Outcome {
        let name = *act.words.first().ok_or("release what?")?;
        let messages = self.held.remove(name).ok_or("nothing is held by that name")?;
        for message in messages {
            writeln!(self.cluster.trace, "late: {message}")?;
            self.cluster.with(message.to, |node| node.step(message));
        }
        Ok(())
    }

    fn flight(&mut self) {
        for message in &self.cluster.network {
            let _ = writeln!(self.cluster.trace, "{message}");
        }
    }

    fn cut(&mut self, act: &Act<'_>) -> Outcome {
        let (a, b) = (act.id(0)?, act.id(1)?);
        self.cut.push((a, b));
        if act.words.get(2) != Some(&"oneway") {
            self.cut.push((b, a));
        }
        Ok(())
    }

    fn status(&mut self, act: &Act<'_>) -> Outcome {
        let ids = if act.words.is_empty() { self.cluster.ids() } else { vec![act.id(0)?] };
        for id in ids {
            let Some(s) = self.cluster.status(id) else {
                writeln!(self.cluster.trace, "n{id} down")?;
                continue;
            };
            let leader = s.leader.map_or("none".to_string(), |leader| format!("n{leader}"));
            writeln!(
                self.cluster.trace,
                "n{id}@{} {:?} leader={leader} last={} durable={} commit={} applied={} dropped={}",
                s.term, s.role, s.last, s.durable, s.commit, s.applied, s.dropped
            )?;
        }
        Ok(())
    }

    /// The log as it is on disk.
    fn log(&mut self, id: NodeId) {
        let disk = &self.cluster.members[&id].disk;
        let mut line = format!("n{id} disk term={}", disk.hard_state.term);
        if let Some(vote) = disk.hard_state.vote {
            let _ = write!(line, " vote=n{vote}");
        }
        for entry in &disk.entries {
            let _ = write!(line, " {}", entry.at);
            if entry.kind == EntryKind::Command {
                let _ = write!(line, "={}", String::from_utf8_lossy(&entry.payload));
            }
        }
        let _ = writeln!(self.cluster.trace, "{line}");
    }

    fn inject(&mut self, act: &Act<'_>) -> Outcome {
        let (from, to) = (act.id(0)?, act.id(1)?);
        let term = Term(act.number(2, 0)?);
        let index = |key| act.key(key, 0).map(Index);
        let position = |key: &str| position(act.keys.get(key).copied().unwrap_or("0@0"));
        let granted = act.key("granted", true)?;
        let body = match *act.words.get(3).ok_or("which type?")? {
            "PreVote" => Body::PreVote { last: position("last")? },
            "PreVoteReply" => Body::PreVoteReply { granted },
            "Vote" => Body::Vote { last: position("last")?, transfer: act.key("transfer", false)? },
            "VoteReply" => Body::VoteReply {
                granted,
                last: position("last")?,
                candidate: self.cluster.members[&to].disk.incarnation,
            },
            "Append" => {
                let list = act.keys.get("entries").copied().unwrap_or_default();
                let entries = list.split(',').filter(|at| !at.is_empty()).map(entry);
                let entries = entries.collect::<Result<_, _>>()?;
                Body::Append { prev: position("prev")?, entries, commit: index("commit")? }
            }
            "Appended" => Body::Appended { matched: index("matched")? },
            "Rejected" => Body::Rejected { prev: index("prev")?, hint: position("hint")? },
            "Heartbeat" => {
                Body::Heartbeat { commit: index("commit")?, round: act.key("round", 0)? }
            }
            "HeartbeatReply" => Body::HeartbeatReply { round: act.key("round", 0)? },
            "Commit" => Body::Commit { commit: index("commit")? },
            "ReadRequest" => Body::ReadRequest { id: ReadId(act.key("id", 0)?) },
            "ReadReply" => {
                Body::ReadReply { id: ReadId(act.key("id", 0)?), index: index("index")? }
            }
            "TimeoutNow" => Body::TimeoutNow,
            other => return Err(format!("no message {other}").into()),
        };
        let incarnation = self.cluster.incarnation(from);
        let message = Message { from, to, term, incarnation, body };
        self.cluster.with(to, |node| node.step(message));
        Ok(())
    }
}

/// Parses `2@1`.
fn position(text: &str) -> Result<Position, Box<dyn Error>> {
    let (index, term) = text.split_once('@').ok_or("a position is index@term")?;
    Ok(Position::new(Term(term.parse()?), Index(index.parse()?)))
}

/// Parses `2@1`, an entry whose payload is its own name.
fn entry(text: &str) -> Result<Entry, Box<dyn Error>> {
    let payload = Bytes::copy_from_slice(text.as_bytes());
    Ok(Entry { at: position(text)?, kind: EntryKind::Command, payload })
}
