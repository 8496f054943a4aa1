//! The cluster: machines, network, clients and an agenda, in one thread.
//!
//! Everything that takes time in a real cluster is an event here. What a member does at an event is
//! what the server's threads do: the node's thread takes its inbox and lets the replica handle it as
//! one batch; the disk's thread takes all that is queued, writes and syncs once, and lets the
//! promises go; another reads entries back, one request after the other; a network thread answers reads from what is published.

use crate::agenda::Agenda;
use crate::chance::{Chance, Stream};
use crate::check::linearizability::{Answer, Operation, Request};
use crate::check::oracle::Oracle;
use crate::clients::{Asking, Clients, Fate, Way, serve};
use crate::effects::{Effect, Effects};
use crate::fault::{Fault, Tally};
use crate::machine::{Death, Done, Life, Machine};
use crate::marks::{Mark, Marks};
use crate::network::{Link, Network};
use crate::trace::Trace;
use crate::weather::{Micros, Weather};
use raft::{Body, Entry, FetchFor, Index, Message, NodeId, RoleName, Status};
use replica::{Header, Input, NodeEvent, PeerMessage, Reply, RequestId, TURN_EVENTS_MAX};
use std::collections::BTreeMap;
use std::time::Duration;
use store::{Outcome, Refusal};

/// Everything there is.
pub struct Cluster {
    pub(crate) weather: Weather,
    pub(crate) agenda: Agenda<Event>,
    pub(crate) machines: Vec<Machine>,
    pub(crate) network: Network,
    pub(crate) clients: Clients,
    pub(crate) oracle: Oracle,
    pub(crate) storm: crate::storm::Storm,
    pub(crate) marks: Marks,
    pub(crate) faults: Tally,
    pub(crate) trace: Trace,
    pub(crate) time: Chance,
    pub(crate) disks: Chance,
    pub(crate) members: Chance,
    /// Requests that members were given and have not answered.
    pub(crate) asked: BTreeMap<RequestId, Asked>,
    /// For reads that wait to be confirmed: what anybody knew to be committed when they were asked.
    floors: BTreeMap<usize, Index>,
    /// What readers saw when a member said in this turn that what was compacted is gone.
    swept: Vec<store::View>,
    requests: u64,
    streams: u64,
    pub(crate) boots: u64,
    /// Processes that died.
    pub(crate) deaths: u64,
    /// When there was last trouble, or will be.
    trouble: Micros,
}

/// Who waits for the answer to a request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asked {
    pub(crate) member: NodeId,
    pub(crate) what: Asks,
    /// It is answered when nothing is left of what it compacts.
    is_physical: bool,
    at: Micros,
    /// What its member's clock showed then.
    local: Duration,
    /// What its member's clock showed when that knew another leader, or none, for the first time since.
    leader_changed: Option<Duration>,
}

/// What a request is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Asks {
    /// This operation of a client's.
    Operation(usize),
    /// The member's own name to be known.
    Publish,
    /// Leadership to move.
    Transfer,
    /// Leadership to move before the member stops.
    HandOver,
    /// Nobody waits any more.
    Cancelled,
}

/// What can happen. A `u64` beside a member names its life: what was meant for one that has ended
/// does not happen.
pub(crate) enum Event {
    /// A member's loop runs a turn.
    Turn(NodeId, u64),
    /// A message arrives that was sent at this time.
    Arrive(Link, Micros, Box<PeerMessage>),
    /// Its disk thread has written what it was at.
    Written(NodeId, u64),
    /// The thread that reads its disk has done what it was at.
    ReadBack(NodeId, u64),
    /// A machine starts its member.
    Start(NodeId),
    /// A member that stops goes on with it.
    Stop(NodeId, u64),
    /// A process dies.
    Die(NodeId, u64, Death),
    /// A member believes that a connection broke.
    Hint(NodeId, NodeId),
    /// A link has carried the frame that it was at.
    LinkFree(NodeId, u64, NodeId),
    /// A receiver takes what comes again.
    Takes(NodeId, u64, NodeId),
    /// A connection that broke is there again, if there is somebody to connect to.
    Connect(NodeId, NodeId),
    /// A client does something.
    Next(u32),
    /// A request reaches its member.
    Reach(Box<Asking>),
    /// A network thread answers a read from what is published.
    Serve(NodeId, u64, usize),
    /// A client hears of its operation.
    Hear(usize, Box<Fate>),
    /// A client has waited long enough.
    GiveUp(usize),
    /// A fault strikes.
    Strike(Fault),
    /// A cut ends.
    Mend(u64),
    /// Room is made on a disk.
    MakeRoom(NodeId),
    /// An operator puts back what was damaged on a disk.
    Repair(NodeId),
}

/// So many election timeouts after the last trouble all that was asked before is carried out.
const LONG: Micros = 6;

impl Cluster {
    /// A cluster in which nothing runs yet.
    pub fn new(seed: u64, weather: Weather, trace: Trace) -> Cluster {
        let mut members = Chance::new(seed, Stream::Members);
        let machine = |id| Machine::new(NodeId(id), members.next());
        let machines = (1..=weather.size).map(machine).collect();
        let chance = |stream| Chance::new(seed, stream);
        Cluster {
            agenda: Agenda::new(),
            machines,
            network: Network::new(&weather, chance(Stream::Network)),
            clients: Clients::new(&weather.load, weather.size, chance(Stream::Clients)),
            oracle: Oracle::new(),
            storm: crate::storm::Storm::new(chance(Stream::Faults)),
            marks: Marks::default(),
            faults: Tally::default(),
            trace,
            time: chance(Stream::Time),
            disks: chance(Stream::Disk),
            members,
            asked: BTreeMap::new(),
            floors: BTreeMap::new(),
            swept: Vec::new(),
            requests: 0,
            streams: 0,
            boots: 0,
            deaths: 0,
            trouble: 0,
            weather,
        }
    }

    /// The members' names.
    pub(crate) fn ids(&self) -> Vec<NodeId> {
        self.machines.iter().map(|machine| machine.id).collect()
    }

    pub(crate) fn machine(&mut self, id: NodeId) -> &mut Machine {
        &mut self.machines[id.0 as usize - 1]
    }

    /// A member's state, while it runs.
    pub(crate) fn status(&self, id: NodeId) -> Option<Status> {
        let machine = &self.machines[id.0 as usize - 1];
        let life = machine.life.as_ref().filter(|life| life.has_node());
        life.map(|life| life.event_loop.replica().status())
    }

    /// Who leads the latest term, while it runs and knows it.
    pub(crate) fn leader(&self) -> Option<NodeId> {
        let leads = |status: &Status| status.role == RoleName::Leader;
        let leaders = self.machines.iter().filter_map(|machine| self.status(machine.id));
        leaders.filter(leads).max_by_key(|status| status.term).map(|status| status.id)
    }

    /// Lets time pass until a moment.
    pub(crate) fn run_until(&mut self, end: Micros) {
        while let Some(event) = self.agenda.next_until(end) {
            self.happen(event);
        }
    }

    fn happen(&mut self, event: Event) {
        crate::run::now_at(self.agenda.number(), self.agenda.now());
        self.trace.note(&[self.agenda.now()]);
        match event {
            Event::Turn(id, boot) => self.on_turn(id, boot),
            Event::Arrive(link, sent, message) => self.on_arrive(link, sent, *message),
            Event::Written(id, boot) => self.on_written(id, boot),
            Event::ReadBack(id, boot) => self.on_read_back(id, boot),
            Event::Start(id) => self.start(id),
            Event::Stop(id, boot) => self.on_stop(id, boot),
            Event::Die(id, boot, death) => {
                if self.machine(id).life(boot).is_some() {
                    self.die(id, death);
                }
            }
            Event::LinkFree(id, boot, to) => self.on_link_free(id, boot, to),
            Event::Takes(id, boot, to) => {
                if let Some(life) = self.machine(id).life(boot) {
                    life.streams.set_stalled(to, false);
                    self.empty_queues(id);
                }
            }
            Event::Hint(id, peer) => {
                self.trouble_until(self.agenda.now());
                if let Some(life) = &mut self.machine(id).life {
                    life.streams.close(peer);
                }
                self.push(id, Input::Disconnected(peer));
                // As soon as can be, or later than some have patience.
                let election = self.weather.members.election();
                let again = self.time.pick(&[4 * self.weather.delay, election / 4]);
                let again = 1 + self.time.around(again);
                self.agenda.add(again, Event::Connect(id, peer));
            }
            Event::Connect(id, peer) => self.on_connect(id, peer),
            Event::Next(client) => self.on_next(client),
            Event::Reach(asking) => self.on_reach(*asking),
            Event::Serve(id, boot, operation) => self.on_serve(id, boot, operation),
            Event::Hear(operation, fate) => self.on_hear(operation, *fate),
            Event::GiveUp(operation) => self.on_give_up(operation),
            Event::Strike(fault) => self.strike(fault),
            Event::Mend(number) => {
                self.trouble_until(self.agenda.now());
                self.network.mend(number);
            }
            Event::MakeRoom(id) => self.machine(id).disk.set_room(None),
            Event::Repair(id) => self.repair(id),
        }
    }

    /// Whether a process stands still; then its event happens when it goes on.
    pub(crate) fn is_paused(&mut self, id: NodeId, event: Event) -> Result<(), ()> {
        let until = self.machine(id).paused_until;
        if until <= self.agenda.now() {
            return Ok(());
        }
        self.agenda.add_at(until, event);
        Err(())
    }

    /// Puts something into a member's inbox, if it runs.
    pub(crate) fn push(&mut self, id: NodeId, input: Input) {
        self.push_event(id, NodeEvent::Inputs(vec![input]));
    }

    fn push_event(&mut self, id: NodeId, event: NodeEvent) {
        let now = self.agenda.now();
        let starved = self.machine(id).starved_until > now;
        let Some(life) = self.machine(id).node() else { return };
        life.inbox.push(event);
        let late = if starved { self.weather.members.election() / 4 } else { 10 };
        let hop = 1 + self.time.around(late);
        self.turn_by(id, now + hop);
    }

    /// Lets a member run a turn at this time, unless it runs one earlier.
    fn turn_by(&mut self, id: NodeId, at: Micros) {
        let Some(life) = self.machine(id).node() else { return };
        let at = at.max(life.busy_until);
        if life.turn_at.is_none_or(|due| at < due) {
            life.turn_at = Some(at);
            let boot = life.boot;
            self.agenda.add_at(at, Event::Turn(id, boot));
        }
    }

    /// A member's clock was changed: what waits for a time on it may be due earlier now.
    pub(crate) fn wake_by_clock(&mut self, id: NodeId) {
        let soon = self.agenda.now() + 1;
        let machine = self.machine(id);
        let Some(life) = &machine.life else { return };
        let wake_at = machine.world_time(life.event_loop.wake_at()).max(soon);
        self.turn_by(id, wake_at);
    }

    /// The node's thread: one turn, and what follows from it.
    fn on_turn(&mut self, id: NodeId, boot: u64) {
        let now = self.agenda.now();
        if self.machine(id).life(boot).is_none_or(|life| life.turn_at.is_none_or(|at| at > now))
            || self.is_paused(id, Event::Turn(id, boot)).is_err()
        {
            return;
        }
        let local = self.machine(id).local_time(now);
        let Some(life) = self.machine(id).life(boot).filter(|life| life.has_node()) else { return };
        life.turn_at = None;
        let events: Vec<NodeEvent> =
            life.inbox.drain(..life.inbox.len().min(TURN_EVENTS_MAX)).collect();
        let mut effects = Effects::new(local, life.slice_takes);
        life.event_loop.turn(events, &mut effects);
        life.busy_until = now + effects.lasted().as_micros() as Micros;
        let goes_on = life.event_loop.has_work();
        self.marks.sometimes(Mark::TurnGoesOn, goes_on);
        self.carry_out(id, effects);
    }

    /// A connection is there again; what was on the old one may be lost.
    fn on_connect(&mut self, id: NodeId, peer: NodeId) {
        if !self.has_node(id) {
            return;
        }
        let is_cut = self.network.is_cut((id, peer)) || self.network.is_cut((peer, id));
        if is_cut || !self.has_node(peer) {
            let again = self.weather.members.election() / 4;
            self.agenda.add(1 + self.time.around(again), Event::Connect(id, peer));
        } else {
            for (one, other) in [(id, peer), (peer, id)] {
                self.open_stream(one, other);
                self.push(one, Input::Connected(other));
            }
        }
    }

    /// Does what a turn asks for, in its order, and sees when the next one is due.
    pub(crate) fn carry_out(&mut self, id: NodeId, effects: Effects) {
        for effect in effects.list {
            match effect {
                Effect::Send(to, message) => self.send(id, to, message),
                Effect::Connected(peer) => {
                    if let Some(life) = &mut self.machine(id).life {
                        life.streams.heard(peer);
                    }
                }
                Effect::Persist(persist) => {
                    self.note_replaced(id, &persist);
                    let write = self.machine(id).ledger.ask(id, persist);
                    self.oracle.note_write(id, &write);
                    if let Some(life) = &mut self.machine(id).life {
                        life.write(write);
                    }
                }
                Effect::Fetch(fetch) => self.on_fetch(id, fetch),
                Effect::Publish(published) => {
                    if let Some(life) = &mut self.machine(id).life {
                        life.published = *published;
                    }
                }
                Effect::Reply(request, reply) => self.on_reply(id, request, reply),
                Effect::Notice(notice) => self.on_notice(id, notice),
            }
        }
        self.observe(id);
        for view in std::mem::take(&mut self.swept) {
            self.oracle.check_swept(id, &view);
        }
        self.empty_queues(id);
        self.begin_write(id);
        self.begin_read(id);
        let now = self.agenda.now();
        let machine = self.machine(id);
        let Some(life) = &machine.life else { return };
        let has_more = life.event_loop.has_work() || !life.inbox.is_empty();
        let wake_at = machine.world_time(life.event_loop.wake_at()).max(now + 1);
        self.turn_by(id, if has_more { now + 1 } else { wake_at });
    }

    fn on_fetch(&mut self, id: NodeId, fetch: raft::Fetch) {
        self.marks.sometimes(Mark::FetchForApply, fetch.purpose == FetchFor::Apply);
        self.marks.sometimes(Mark::FetchForPeer, fetch.purpose != FetchFor::Apply);
        let (now, to) = (self.agenda.now(), fetch.to);
        self.trace.line(now, || format!("n{id} fetch {}..{to}", fetch.from));
        if let Some(life) = &mut self.machine(id).life {
            life.reader.push(fetch);
        }
    }

    /// No disk is lost here, so no member may accuse another.
    fn on_notice(&mut self, id: NodeId, notice: raft::Notice) {
        panic!("n{id} accuses the disk of another: {notice:?}");
    }

    fn observe(&mut self, id: NodeId) {
        let before = self.oracle.seen(id);
        self.oracle.observe(&self.machines, id, &mut self.marks);
        let Some(status) = self.status(id) else { return };
        let last = status.last.index.0;
        self.trace.note(&[id.0, status.term.0, last, status.durable.0, status.applied.0]);
        let now = self.agenda.now();
        let led_by = |status: Status| (status.leader, status.term);
        if before.is_some_and(|before| led_by(before) != led_by(status)) {
            let local = self.machine(id).local_time(now);
            let asked = self.asked.values_mut().filter(|asked| asked.member == id);
            asked.for_each(|asked| _ = asked.leader_changed.get_or_insert(local));
            self.trouble_until(now);
        }
        if before.is_none_or(|before| before.role != status.role) {
            self.trace.line(now, || format!("n{id}@{} becomes {:?}", status.term, status.role));
            self.ambush(id, status.role != RoleName::Follower);
        }
        if status.role == RoleName::Leader && self.is_on_the_brink(id, status) {
            self.ambush_surely(id);
        }
        let applied = before.map_or(0, |before| before.applied.0);
        if self.trace.is_kept() {
            for index in applied + 1..=status.applied.0 {
                let entry = &self.machine(id).ledger.memory.get(Index(index));
                let line = entry.map(|logged| applied_line(id, &logged.entry));
                self.trace.line(now, || line.unwrap_or_default());
            }
        }
    }

    /// Whether a leader has an entry of an earlier term on a quorum of disks, and none of its own:
    /// what it has there is not committed, and may be replaced if it dies now (figure 8).
    fn is_on_the_brink(&self, id: NodeId, status: Status) -> bool {
        let log = &self.machines[id.0 as usize - 1].ledger.memory;
        let next = log.get(status.commit.next());
        next.is_some_and(|next| {
            let has = |machine: &&Machine| {
                machine.ledger.disk.prefix(next.entry.at.index) == Some(next.prefix)
            };
            let holders = || self.machines.iter().filter(has).count();
            next.entry.at.term < status.term && holders() > self.machines.len() / 2
        })
    }

    fn note_replaced(&mut self, id: NodeId, persist: &raft::Persist) {
        let ledger = &self.machine(id).ledger;
        let replaced = ledger.replaced_by(persist);
        self.marks.sometimes(Mark::Conflict, replaced > 0);
        self.marks.sometimes(Mark::LongConflict, replaced > 2);
        if let Some(first) = persist.entries.first().filter(|_| replaced > 0) {
            let prefix = self.machine(id).ledger.memory.prefix(first.at.index);
            let term = self.machine(id).ledger.memory.hard_state.term;
            self.oracle.check_replaced(id, term, first.at.index, prefix);
            let has = |machine: &&Machine| machine.ledger.disk.prefix(first.at.index) == prefix;
            let holders = self.machines.iter().filter(has).count();
            self.marks.sometimes(Mark::Figure8, holders > self.machines.len() / 2);
        }
    }

    /// Queues a message for a peer, as the server does; what the queue drops is given back.
    fn send(&mut self, from: NodeId, to: NodeId, message: PeerMessage) {
        let now = self.agenda.now();
        match &message {
            PeerMessage::Raft(message) => {
                self.oracle.check_claim(&self.machines, message);
                self.note_message(message);
                self.trace.line(now, || message.to_string());
            }
            PeerMessage::Forward { term, proposals } => {
                let count = proposals.len();
                self.trace.line(now, || format!("n{from}@{term} -> n{to} Forward {count}"));
            }
            PeerMessage::Refused { sequences, .. } => {
                self.marks.sometimes(Mark::ForwardRefused, true);
                self.trace.line(now, || format!("n{from} -> n{to} Refused {sequences:?}"));
            }
        }
        let Some(life) = &mut self.machine(from).life else { return };
        if let Some(refusal) = life.streams.push(to, message) {
            let is_full = life.streams.is_open(to);
            self.marks.sometimes(Mark::QueueFull, is_full);
            self.marks.sometimes(Mark::ForwardNotSent, true);
            self.push(from, Input::NotSent(to, refusal));
        }
    }

    /// A new stream to a peer is taken into use.
    pub(crate) fn open_stream(&mut self, id: NodeId, peer: NodeId) {
        self.streams += 1;
        let number = self.streams;
        if let Some(life) = &mut self.machine(id).life {
            life.streams.open(peer, number);
        }
    }

    /// Lets what waits for peers leave: at once, or frame by frame where a link is slow.
    pub(crate) fn empty_queues(&mut self, id: NodeId) {
        loop {
            let Some(life) = &mut self.machine(id).life else { return };
            let (boot, pace) = (life.boot, life.streams.pace);
            let ready = life.streams.ready();
            if ready.is_empty() {
                return;
            }
            for to in ready {
                let Some(life) = &mut self.machine(id).life else { return };
                let Some(frame) = life.streams.next(to) else { continue };
                if pace > 0 {
                    life.streams.set_busy(to, true);
                    let takes = 1 + pace * frame.bytes as Micros / 1024;
                    self.agenda.add(takes, Event::LinkFree(id, boot, to));
                }
                for message in frame.messages {
                    self.leave(id, to, message);
                }
                if frame.is_cut && self.storm.take_reset() {
                    self.marks.sometimes(Mark::LongMessageCut, true);
                    self.reset(id, to);
                }
            }
        }
    }

    /// A connection breaks, and both sides notice. What is queued and under way is lost.
    pub(crate) fn reset(&mut self, one: NodeId, other: NodeId) {
        let now = self.agenda.now();
        for (id, peer) in [(one, other), (other, one)] {
            self.network.reset((id, peer), now);
            if let Some(life) = &mut self.machine(id).life {
                life.streams.close(peer);
            }
            self.agenda.add(0, Event::Hint(id, peer));
        }
    }

    fn on_link_free(&mut self, id: NodeId, boot: u64, to: NodeId) {
        if let Some(life) = self.machine(id).life(boot) {
            life.streams.set_busy(to, false);
            self.empty_queues(id);
        }
    }

    /// A message leaves its sender.
    fn leave(&mut self, from: NodeId, to: NodeId, message: PeerMessage) {
        let now = self.agenda.now();
        let arrivals = self.network.arrivals(now, (from, to), &mut self.faults);
        let in_time = arrivals.first().filter(|at| **at <= now + 4 * self.weather.delay);
        if in_time.is_none() {
            self.trouble_until(arrivals.first().copied().unwrap_or(now));
        }
        for at in arrivals {
            self.agenda.add_at(at, Event::Arrive((from, to), now, Box::new(message.clone())));
        }
    }

    fn note_message(&mut self, message: &Message) {
        let refused = matches!(message.body, Body::PreVoteReply { granted: false });
        self.marks.sometimes(Mark::PreVoteRefused, refused);
        self.marks.sometimes(Mark::FollowerRead, matches!(message.body, Body::ReadReply { .. }));
        let promise = matches!(
            message.body,
            Body::Vote { .. } | Body::VoteReply { granted: true, .. } | Body::Appended { .. }
        );
        if promise {
            self.ambush(message.from, true);
        }
    }

    fn on_arrive(&mut self, link: Link, sent: Micros, message: PeerMessage) {
        if !self.network.is_cut(link) && !self.network.is_lost(link, sent) {
            let (from, to) = link;
            self.push(to, Input::Peer(from, message));
        }
    }

    /// The disk's thread takes the writes that are queued, if it is free.
    fn begin_write(&mut self, id: NodeId) {
        let Some(life) = &mut self.machine(id).life else { return };
        if !life.begin_write() {
            return;
        }
        let boot = life.boot;
        let takes = self.disk_time(id);
        self.agenda.add(takes, Event::Written(id, boot));
        if let Some(death) = self.storm.take_doom(id) {
            self.agenda.add(self.disks.below(takes), Event::Die(id, boot, death));
        }
    }

    /// The thread that reads takes what has waited longest, if it is free.
    fn begin_read(&mut self, id: NodeId) {
        let Some(life) = &mut self.machine(id).life else { return };
        if !life.begin_read() {
            return;
        }
        let boot = life.boot;
        let takes = self.disk_time(id);
        self.agenda.add(takes, Event::ReadBack(id, boot));
    }

    /// How long a turn at a disk takes.
    fn disk_time(&mut self, id: NodeId) -> Micros {
        let slow = self.machine(id).slow_until > self.agenda.now();
        let base = self.weather.write * if slow { 30 } else { 1 };
        1 + self.disks.heavy_tailed(base / 2, 20 * base)
    }

    /// Until when a member's disk does nothing.
    fn disk_stands_until(&mut self, id: NodeId) -> Micros {
        let machine = self.machine(id);
        machine.hung_until.max(machine.paused_until)
    }

    /// The disk's thread has written what it was at.
    fn on_written(&mut self, id: NodeId, boot: u64) {
        let (now, until) = (self.agenda.now(), self.disk_stands_until(id));
        let Machine { life: Some(life), disk, .. } = self.machine(id) else { return };
        if life.boot != boot {
            return;
        }
        if until > now {
            self.agenda.add_at(until, Event::Written(id, boot));
            return;
        }
        let bytes = life.writer.storage().bytes_on_disk();
        let had_lied = disk.has_lied();
        let finished = life.finish_write();
        let lied = disk.has_lied() && !had_lied;
        let has_more = life.writer.storage().bytes_on_disk() > bytes;
        let is_read = life.reading.is_some();
        self.marks.sometimes(Mark::NewSegment, has_more);
        self.marks.sometimes(Mark::WrittenDuringRead, is_read);
        match finished {
            Ok(done) => self.on_done(id, done, lied),
            Err(error) => self.disk_failed(id, &error),
        }
    }

    /// The thread that reads has done what it was at.
    fn on_read_back(&mut self, id: NodeId, boot: u64) {
        let (now, until) = (self.agenda.now(), self.disk_stands_until(id));
        let Machine { life: Some(life), ledger, .. } = self.machine(id) else { return };
        if life.boot != boot {
            return;
        }
        if until > now {
            self.agenda.add_at(until, Event::ReadBack(id, boot));
            return;
        }
        match life.finish_read(ledger, id) {
            Ok(fetched) => {
                fetched.into_iter().for_each(|input| self.push(id, input));
                self.begin_read(id);
            }
            Err(error) => self.disk_failed(id, &error),
        }
    }

    /// Writes are done, as far as the disk says; it `lied` if it did one of them wrong.
    fn on_done(&mut self, id: NodeId, done: Done, lied: bool) {
        let now = self.agenda.now();
        let machine = self.machine(id);
        let is_late = |write: &crate::ledger::Write| {
            let last = write.logged.last();
            last.is_some_and(|last| {
                machine.ledger.memory.prefix(last.entry.at.index) != Some(last.prefix)
            })
        };
        let late = done.writes.iter().any(is_late);
        machine.ledger.written(&done.writes, lied);
        machine.check_synced("a write was reported done");
        self.marks.sometimes(Mark::LateWrite, late);
        for write in &done.writes {
            self.trace.line(now, || format!("n{id} {}", write.persist));
        }
        self.push_event(id, NodeEvent::Persisted(done.persisted));
        self.begin_write(id);
        if let Some(boot) = self.life(id).filter(|life| !life.has_node()).map(|life| life.boot) {
            self.agenda.add(0, Event::Stop(id, boot));
        }
    }

    /// The first error of its disk ends a member.
    fn disk_failed(&mut self, id: NodeId, error: &std::io::Error) {
        let full = error.kind() == std::io::ErrorKind::StorageFull;
        let rotten = error.kind() == std::io::ErrorKind::InvalidData;
        let machine = self.machine(id);
        let may_fail = if rotten { machine.disk.is_damaged() } else { machine.faulty };
        assert!(full || may_fail, "n{id}: a sound disk fails: {error}");
        self.marks.sometimes(Mark::RotReadBack, rotten);
        self.marks.sometimes(Mark::DiskErrorEnds, !full && !rotten);
        self.marks.sometimes(Mark::FullDiskEnds, full);
        let now = self.agenda.now();
        self.trace.line(now, || format!("n{id} ends: {error}"));
        self.die(id, Death { of_power: false, operations: None });
    }

    fn on_next(&mut self, client: u32) {
        if !self.storm.rages() {
            return;
        }
        let asking = self.clients.ask(client, self.agenda.now());
        self.post(asking);
    }

    /// A request is on its way, and its client begins to wait.
    pub(crate) fn post(&mut self, asking: Asking) {
        let patience = self.clients.patience();
        self.agenda.add(patience, Event::GiveUp(asking.operation));
        let way = 1 + self.time.around(self.weather.delay);
        self.agenda.add(way, Event::Reach(Box::new(asking)));
    }

    fn on_reach(&mut self, asking: Asking) {
        let Asking { operation, member, way } = asking;
        let now = self.agenda.now();
        let machine = self.machine(member);
        let Some(life) = machine.life.as_ref().filter(|life| life.takes_requests()) else {
            self.tell(operation, Fate::Nothing);
            return;
        };
        let (boot, until) = (life.boot, machine.paused_until);
        let Operation { client, request, .. } = self.clients.operation(operation);
        self.trace.line(now, || format!("c{client} -> n{member} #{operation} {request}"));
        self.note_request(member, &way);
        match way {
            Way::Local => self.agenda.add_at(until, Event::Serve(member, boot, operation)),
            Way::Confirm => {
                self.floors.insert(operation, self.oracle.committed());
                let request = self.request(member, Asks::Operation(operation));
                self.push(member, Input::Read { request });
            }
            Way::Propose(proposal) => {
                let request = self.request(member, Asks::Operation(operation));
                if let Some(asked) = self.asked.get_mut(&request) {
                    asked.is_physical = proposal.is_physical();
                }
                self.push(member, Input::Propose { request, proposal });
            }
        }
    }

    fn note_request(&mut self, member: NodeId, way: &Way) {
        let Some(status) = self.status(member) else { return };
        let leads = status.role == RoleName::Leader;
        let deposed = self.oracle.leader().is_some_and(|(term, _)| term > status.term);
        self.marks.sometimes(Mark::DeposedAsked, leads && deposed);
        let ledger = &self.machine(member).ledger.memory;
        let opened = ledger.get(status.commit).is_some_and(|l| l.entry.at.term == status.term);
        let early = leads && !opened && matches!(way, Way::Confirm);
        self.marks.sometimes(Mark::ReadBeforeFirstCommit, early);
    }

    /// A new request to a member.
    pub(crate) fn request(&mut self, member: NodeId, what: Asks) -> RequestId {
        self.requests += 1;
        let request = RequestId(self.requests);
        let at = self.agenda.now();
        let local = self.machine(member).local_time(at);
        let asked = Asked { member, what, is_physical: false, at, local, leader_changed: None };
        self.asked.insert(request, asked);
        request
    }

    fn on_reply(&mut self, id: NodeId, request: RequestId, reply: Reply) {
        let asked = self.asked.remove(&request);
        let Some(asked) = asked else {
            panic!("n{id} answers {request:?} twice, or what nobody asked: {reply:?}");
        };
        let Asked { member, what, is_physical, .. } = asked;
        assert!(member == id, "n{id} answers {request:?}, which n{member} was asked");
        self.check_excuse(&asked, &reply);
        self.note_reply(&reply);
        let given_up = what == Asks::Transfer && reply == Reply::TimedOut;
        self.marks.sometimes(Mark::TransferGivenUp, given_up);
        if what == Asks::HandOver {
            self.on_handed_over(id, matches!(reply, Reply::Transferred(_)));
        }
        let Asks::Operation(operation) = what else { return };
        if is_physical
            && matches!(reply, Reply::Applied { outcome: Ok(_), .. })
            && let Some(life) = self.life(id)
        {
            self.swept.push(life.published.view.clone());
        }
        let fate = match reply {
            Reply::Applied { revision, .. } if !self.is_readable(id, revision) => {
                panic!("n{id} answers {request:?} before readers see revision {revision}")
            }
            Reply::Applied { outcome, revision } => Fate::Answered(match outcome {
                Ok(outcome) => Answer::Done(outcome, revision),
                Err(refusal) => Answer::Refused(refusal),
            }),
            Reply::Readable => {
                let Some(life) = &self.machine(id).life else { return };
                let boot = life.boot;
                let hop = self.time.around(20);
                self.agenda.add(hop, Event::Serve(id, boot, operation));
                return;
            }
            Reply::NoLeader | Reply::Busy => Fate::Nothing,
            Reply::Lost | Reply::TimedOut => Fate::Unknown,
            other => panic!("n{id} answers {request:?} with {other:?}"),
        };
        self.tell(operation, fate);
    }

    /// Whether readers at a member see what was done at this revision.
    fn is_readable(&self, id: NodeId, revision: store::Revision) -> bool {
        self.life(id).is_some_and(|life| life.published.view.revision() >= revision)
    }

    /// A request that is answered without having been carried out was given enough time; and there was
    /// trouble, unless its member has no room.
    fn check_excuse(&mut self, asked: &Asked, reply: &Reply) {
        let Asked { member: id, at, local, leader_changed, .. } = *asked;
        let settings = &self.weather.members;
        let now = self.machines[id.0 as usize - 1].local_time(self.agenda.now());
        // The first tick may come at once, and one that is late makes the next seem early.
        let lasted = |since: Duration, ticks: u32| {
            let tick = Duration::from_micros(settings.tick);
            now.saturating_sub(since) >= tick * ticks.saturating_sub(2)
        };
        let took_all_time = lasted(local, settings.request_ticks_max);
        let leader_was_lost =
            leader_changed.is_some_and(|since| lasted(since, 2 * settings.election_ticks));
        let is_due = match reply {
            Reply::Lost => leader_was_lost || (took_all_time && leader_changed.is_some()),
            Reply::TimedOut if matches!(asked.what, Asks::Transfer | Asks::HandOver) => return,
            Reply::TimedOut | Reply::NoLeader => took_all_time,
            _ => return,
        };
        assert!(is_due, "n{id} answers {reply:?} too early: {asked:?}, now {now:?}");
        self.check_quiet(at, || format!("n{id} answers {reply:?}: {asked:?}"));
    }

    /// What is asked for so long, and there has been no trouble for so long, is carried out by now.
    fn check_quiet(&mut self, asked: Micros, what: impl Fn() -> String) {
        let long = LONG * self.weather.members.election();
        let quiet_since = self.trouble.max(asked);
        assert!(self.agenda.now() < quiet_since + long, "in quiet weather {}", what());
    }

    /// Something may be late or lost for no fault of a member's until this moment.
    pub(crate) fn trouble_until(&mut self, until: Micros) {
        self.trouble = self.trouble.max(until);
    }

    fn note_reply(&mut self, reply: &Reply) {
        let mut mark = |mark, condition| self.marks.sometimes(mark, condition);
        mark(Mark::AnsweredLost, *reply == Reply::Lost);
        mark(Mark::AnsweredTimedOut, *reply == Reply::TimedOut);
        mark(Mark::AnsweredNoLeader, *reply == Reply::NoLeader);
        mark(Mark::AnsweredBusy, *reply == Reply::Busy);
        mark(Mark::Transferred, matches!(reply, Reply::Transferred(_)));
    }

    fn on_serve(&mut self, id: NodeId, boot: u64, operation: usize) {
        let machine = &mut self.machines[id.0 as usize - 1];
        let Some(life) = machine.life(boot).filter(|life| life.has_node()) else {
            // Its connection broke with the process.
            return self.tell(operation, Fate::Unknown);
        };
        // Stricter than what clients can see: it need not have been acknowledged to anybody.
        let applied = life.published.status.applied;
        if let Some(floor) = self.floors.remove(&operation) {
            assert!(applied >= floor, "n{id} serves a read at {applied}, asked after {floor}");
        }
        let request = &self.clients.operation(operation).request;
        let answer = serve(&life.published, request);
        if let Request::Range(range) = request {
            self.oracle.check_local_range(range, &answer, &life.published.view);
        }
        self.tell(operation, Fate::Answered(answer));
    }

    /// Lets a client know, after a while.
    pub(crate) fn tell(&mut self, operation: usize, fate: Fate) {
        let way = 1 + self.time.around(self.weather.delay);
        self.agenda.add(way, Event::Hear(operation, Box::new(fate)));
    }

    fn on_hear(&mut self, operation: usize, fate: Fate) {
        let now = self.agenda.now();
        self.note_fate(&fate);
        let nothing = matches!(fate, Fate::Nothing);
        let client = self.clients.operation(operation).client;
        self.trace.line(now, || format!("c{client} <- #{operation} {fate}"));
        if self.clients.hear(operation, fate, now) {
            self.think(operation, nothing);
        }
    }

    fn note_fate(&mut self, fate: &Fate) {
        let Fate::Answered(answer) = fate else { return };
        let mut mark = |mark, condition| self.marks.sometimes(mark, condition);
        match answer {
            Answer::Done(Outcome::Txn(txn), _) => {
                mark(Mark::TxnSucceeded, txn.succeeded);
                mark(Mark::TxnFailed, !txn.succeeded);
            }
            Answer::Refused(refusal) => {
                mark(Mark::Compacted, *refusal == Refusal::Compacted);
                mark(Mark::FutureRevision, *refusal == Refusal::FutureRevision);
                mark(Mark::TxnRefused, *refusal == Refusal::KeyNotFound);
            }
            _ => {}
        }
    }

    /// The client goes on after a while, but for the one that probes.
    fn think(&mut self, operation: usize, nothing: bool) {
        let client = self.clients.operation(operation).client;
        if client != self.clients.prober() {
            // Who was not served tries again soon, elsewhere.
            let think = self.clients.think() / if nothing { 4 } else { 1 };
            self.agenda.add(1 + think, Event::Next(client));
        }
    }

    fn on_give_up(&mut self, operation: usize) {
        let now = self.agenda.now();
        if !self.clients.hear(operation, Fate::Unknown, now) {
            return;
        }
        let waits = |asked: &Asked| asked.what == Asks::Operation(operation);
        // How long it takes to remove what was compacted depends on how much that is.
        let sweeps = self.asked.values().any(|asked| waits(asked) && asked.is_physical);
        if !sweeps {
            let call = self.clients.operation(operation).call;
            self.check_quiet(call, || format!("#{operation} has no answer"));
        }
        let found = self.asked.iter_mut().find(|(_, asked)| waits(asked));
        if let Some((&request, asked)) = found {
            asked.what = Asks::Cancelled;
            let member = asked.member;
            self.push(member, Input::Cancel(request));
        }
        self.think(operation, false);
    }

    /// A process dies. Its clients' connections break; so do its peers', if its machine lives on.
    pub(crate) fn die(&mut self, id: NodeId, death: Death) {
        let now = self.agenda.now();
        self.deaths += 1;
        self.trouble_until(now);
        self.note_death(id, death);
        self.trace.line(now, || format!("n{id} dies: {death:?}"));
        let machine = &mut self.machines[id.0 as usize - 1];
        let loss = machine.die(death, &mut self.disks);
        self.marks.sometimes(Mark::SectorsLost, loss.sectors_lost > 0);
        self.marks.sometimes(Mark::NamesLost, loss.names_lost > 0);
        self.oracle.forget(id);
        self.forget_requests(id);
        if !death.of_power {
            self.hang_up(id);
        }
        let all_dead = self.machines.iter().all(|machine| machine.life.is_none());
        self.marks.sometimes(Mark::AllDead, all_dead);
        let down = self.time.around(2 * self.weather.members.election());
        self.agenda.add(1 + down, Event::Start(id));
    }

    /// Nobody answers what a member was asked, and its clients see it.
    pub(crate) fn forget_requests(&mut self, id: NodeId) {
        let gone: Vec<Asked> =
            self.asked.values().copied().filter(|asked| asked.member == id).collect();
        self.asked.retain(|_, asked| asked.member != id);
        for asked in gone {
            if let Asks::Operation(operation) = asked.what {
                self.tell(operation, Fate::Unknown);
            }
        }
    }

    /// A member's connections to its peers break, and these see it.
    pub(crate) fn hang_up(&mut self, id: NodeId) {
        for peer in self.ids().into_iter().filter(|peer| *peer != id) {
            if !self.network.is_cut((id, peer)) {
                let way = 1 + self.time.around(self.weather.delay);
                self.agenda.add(way, Event::Hint(peer, id));
            }
        }
    }

    fn note_death(&mut self, id: NodeId, death: Death) {
        let Some(status) = self.status(id) else { return };
        self.marks.sometimes(Mark::CandidateDies, status.role == RoleName::Candidate);
        let kept = self.machine(id).ledger.disk.last().index;
        self.marks.sometimes(Mark::AppliedAndForgotten, death.of_power && status.applied > kept);
    }

    pub(crate) fn is_alive(&self, id: NodeId) -> bool {
        self.machines[id.0 as usize - 1].life.is_some()
    }

    /// Whether a member's node thread runs.
    fn has_node(&self, id: NodeId) -> bool {
        self.life(id).is_some_and(Life::has_node)
    }

    pub(crate) fn life(&self, id: NodeId) -> Option<&Life> {
        self.machines[id.0 as usize - 1].life.as_ref()
    }
}

/// `n1 apply 2@1 put "k"="v"`
fn applied_line(id: NodeId, entry: &Entry) -> String {
    let what = match Header::decode(&entry.payload) {
        Ok((header, body)) => match replica::decode(header.kind, body) {
            Ok(command) => Request::Command(command).to_string(),
            Err(_) => format!("{:?}", header.kind),
        },
        Err(_) => "nothing".to_owned(),
    };
    format!("n{id} apply {} {what}", entry.at)
}
