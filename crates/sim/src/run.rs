//! One run: a storm, then calm in which a connected quorum must get its work done, then peace in
//! which all must.

use crate::check::linearizability::{self, Answer, Operation};
use crate::clients::Probe;
use crate::cluster::{Asks, Cluster, Event};
use crate::digest::Digest;
use crate::fault::Tally;
use crate::marks::{Mark, Marks};
use crate::network::Link;
use crate::trace::Trace;
use crate::weather::{Micros, Narrowing, SECOND, Weather};
use raft::NodeId;
use replica::Input;
use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use store::Refusal;

/// What a run was.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Simulated time.
    pub simulated: Micros,
    /// Events.
    pub steps: u64,
    /// Operations that clients began.
    pub operations: u64,
    /// Processes that died.
    pub deaths: u64,
    /// Faults by kind.
    pub faults: Tally,
    /// Rare states.
    pub marks: Marks,
    /// What stands for all of it.
    pub digest: Digest,
    /// What happened, if that was asked for.
    pub trace: Vec<String>,
}

/// A rule was broken.
#[derive(Clone, Debug)]
pub struct Failure {
    /// At this event.
    pub step: u64,
    /// At this time.
    pub at: Micros,
    /// The rule, and the first difference.
    pub what: String,
    /// Where in the source it was noticed.
    pub place: String,
    /// What happened until then, if that was asked for.
    pub trace: Vec<String>,
}

thread_local! {
    static NOW: Cell<(u64, Micros)> = const { Cell::new((0, 0)) };
    static PANIC: RefCell<Option<(String, String)>> = const { RefCell::new(None) };
    static RUNS: Cell<bool> = const { Cell::new(false) };
}

/// Remembers where the run is, for the report of a failure.
pub(crate) fn now_at(step: u64, now: Micros) {
    NOW.set((step, now));
}

/// Lets panics of runs be caught in silence. Others are reported as before. Call it once.
pub fn catch_panics() {
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        if !RUNS.get() {
            return before(info);
        }
        let payload = info.payload();
        let text = payload.downcast_ref::<String>().cloned();
        let text = text.or_else(|| payload.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        let place = info.location().map(ToString::to_string).unwrap_or_default();
        PANIC.set(Some((text.unwrap_or_default(), place)));
    }));
}

/// Runs one life of a cluster.
///
/// # Errors
/// The first rule that was broken.
pub fn run(seed: u64, narrowing: &Narrowing, traced: bool) -> Result<Report, Box<Failure>> {
    let weather = Weather::of(seed, narrowing);
    let mut cluster = Cluster::new(seed, weather, Trace::new(traced));
    RUNS.set(true);
    let done = catch_unwind(AssertUnwindSafe(|| cluster.live_through()));
    RUNS.set(false);
    let trace = cluster.trace.take_lines();
    if done.is_ok() {
        return Ok(cluster.report(trace));
    }
    let (step, at) = NOW.get();
    let (what, place) = PANIC.take().unwrap_or_default();
    Err(Box::new(Failure { step, at, what, place, trace }))
}

impl Cluster {
    fn report(self, trace: Vec<String>) -> Report {
        Report {
            simulated: self.agenda.now(),
            steps: self.agenda.number(),
            operations: self.clients.operations() as u64,
            deaths: self.deaths,
            faults: self.faults,
            marks: self.marks,
            digest: self.trace.digest(),
            trace,
        }
    }

    fn live_through(&mut self) {
        for id in self.ids() {
            self.start(id);
        }
        for client in 0..self.clients.prober() {
            let think = self.clients.think();
            self.agenda.add(think, Event::Next(client));
        }
        self.begin_storm();
        let storm = self.weather.storm;
        self.run_until(storm);
        self.calm();
        self.peace();
        self.hand_over();
        self.comes_to_rest();
        self.check_history();
    }

    /// What must happen in good weather happens within this time: elections at the pace of the
    /// slowest clock, some of them split, and requests that waited for them.
    fn good_time(&self) -> Micros {
        40 * self.weather.members.election() + 2 * self.weather.members.request() + 5 * SECOND
    }

    /// The storm ends for a quorum of members that reach each other; the others are as bad as ever.
    fn calm(&mut self) {
        self.storm.end();
        let ids = self.storm.shuffled(&self.ids());
        let core = ids.len() / 2 + 1;
        let core = if self.storm.chance.one_in(2) { ids.len() } else { core };
        let core = if self.all_count(&ids[..core]) { core } else { ids.len() };
        let (core, outsiders) = ids.split_at(core);
        self.marks.sometimes(Mark::Outsiders, !outsiders.is_empty());
        let mut cut = Vec::new();
        let mut barred = BTreeSet::new();
        for id in outsiders {
            self.leave_outside(*id, core, &mut cut, &mut barred);
        }
        self.storm.bar(barred);
        self.network.calm(cut);
        for id in core {
            self.make_well(*id);
        }
        self.gets_done(core, &Probe::ALL, "a connected quorum");
    }

    /// Whether each of these members knows that all of them count. One that does not cannot be told
    /// from one that lost its disk, until those that do count are there to admit it.
    fn all_count(&self, members: &[NodeId]) -> bool {
        let ledger = |id: NodeId| &self.machines[id.0 as usize - 1].ledger;
        members.iter().all(|id| members.iter().all(|other| ledger(*id).disk.admits(*other)))
    }

    /// A member outside of the connected quorum: dead, cut off, deaf, mute, paused, with a disk that
    /// hangs, or as well as the others.
    fn leave_outside(
        &mut self,
        id: NodeId,
        core: &[NodeId],
        cut: &mut Vec<Link>,
        barred: &mut BTreeSet<NodeId>,
    ) {
        let deaf = core.iter().map(|other| (*other, id));
        let mute = core.iter().map(|other| (id, *other));
        self.make_well(id);
        let settings = &self.weather.members;
        let protected = settings.pre_vote && settings.check_quorum;
        // Without pre-vote and check-quorum somebody who only talks, or only hears, may disturb.
        match self.storm.chance.below(if protected { 7 } else { 2 }) {
            0 => {
                barred.insert(id);
                if self.is_alive(id) {
                    self.die(id, crate::machine::Death { of_power: true, operations: None });
                }
            }
            1 => cut.extend(deaf.chain(mute)),
            2 => cut.extend(deaf),
            3 => cut.extend(mute),
            4 => self.machine(id).paused_until = u64::MAX,
            5 => self.machine(id).hung_until = u64::MAX,
            _ => {}
        }
    }

    /// Nothing is wrong with this machine any more.
    fn make_well(&mut self, id: NodeId) {
        let now = self.agenda.now();
        let machine = self.machine(id);
        machine.disk.clear_fuse();
        machine.disk.set_room(None);
        self.repair(id);
        let machine = self.machine(id);
        for until in [
            &mut machine.paused_until,
            &mut machine.hung_until,
            &mut machine.slow_until,
            &mut machine.starved_until,
        ] {
            *until = now.min(*until);
        }
        if let Some(life) = &mut self.machine(id).life {
            life.streams.make_well();
            self.empty_queues(id);
        }
        // Who was told to stop is killed, or it would end when nothing bad may happen any more.
        if self.life(id).is_some_and(|life| life.stopping.is_some()) {
            self.die(id, crate::machine::Death { of_power: false, operations: None });
        }
        // A read that hung goes on now, not when the hang would have ended.
        if let Some(boot) = self.life(id).map(|life| life.boot) {
            self.agenda.add(1, Event::ReadBack(id, boot));
        }
    }

    /// All faults end, and all must come to rest in the same state.
    fn peace(&mut self) {
        self.storm.bar(BTreeSet::new());
        self.network.calm(Vec::new());
        for id in self.ids() {
            // What waited for the end of time goes on now.
            let stuck = self.machine(id).paused_until == u64::MAX
                || self.machine(id).hung_until == u64::MAX;
            self.make_well(id);
            if stuck && self.is_alive(id) {
                self.die(id, crate::machine::Death { of_power: false, operations: None });
            }
            self.agenda.add(1, Event::Start(id));
        }
        let all = self.ids();
        self.gets_done(&all, &[Probe::Write], "everybody");
        let patience = self.clients.patience().max(self.weather.members.request());
        let end = self.agenda.now() + 2 * patience + self.good_time();
        while self.clients.wait() || self.asked.values().any(|asked| asked.what != Asks::Cancelled)
        {
            assert!(
                self.agenda.now() < end,
                "in peace, requests stay without an answer: {:?}",
                self.asked
            );
            self.let_pass(2);
        }
        self.answers_everything();
    }

    /// Nothing is wrong with anybody, so whatever is asked of whomever is answered with success, and
    /// never as unknown. Who has no room for it at the moment says so, and has room soon.
    fn answers_everything(&mut self) {
        for member in self.ids() {
            for probe in Probe::ALL {
                let end = self.agenda.now() + self.good_time();
                self.converges(&self.ids(), "everybody");
                while !self.probe_once(member, probe) {
                    // To remove what was compacted may take longer than the client has patience.
                    let void = self.clients.last_did_nothing() || probe == Probe::Compaction;
                    assert!(void, "in peace n{member} does not know what became of a {probe:?}");
                    assert!(
                        self.agenda.now() < end,
                        "in peace n{member} has no room for a {probe:?}"
                    );
                    self.let_pass(16);
                }
            }
        }
    }

    /// Lets so much of the election timeout pass.
    fn let_pass(&mut self, part: u64) {
        self.run_until(self.agenda.now() + self.weather.members.election() / part);
    }

    /// Each of these members answers these requests with success, if not at the first try, and all
    /// of them end in the same state.
    fn gets_done(&mut self, members: &[NodeId], probes: &[Probe], who: &str) {
        let end = self.agenda.now() + self.good_time();
        for member in members {
            for &probe in probes {
                while !(self.is_alive(*member) && self.probe_once(*member, probe)) {
                    let late = self.agenda.now() > end;
                    assert!(!late, "in calm weather {who} gets no {probe:?} done at n{member}");
                    self.let_pass(2);
                }
            }
        }
        self.converges(members, who);
    }

    /// These members end in the same state.
    fn converges(&mut self, members: &[NodeId], who: &str) {
        let end = self.agenda.now() + self.good_time();
        while !self.have_converged(members) {
            let states: Vec<_> = members.iter().map(|id| self.status(*id)).collect();
            assert!(self.agenda.now() < end, "in calm weather {who} does not converge: {states:?}");
            self.let_pass(16);
        }
    }

    /// Asks something of a member; whether that was done.
    fn probe_once(&mut self, member: NodeId, probe: Probe) -> bool {
        let asking = self.clients.probe(member, probe, self.agenda.now());
        let operation = asking.operation;
        self.post(asking);
        while self.clients.waits_for(operation) {
            self.let_pass(16);
        }
        let answer = &self.clients.operation(operation).answer;
        // What is to be compacted may have been meanwhile, by a client that has given up.
        let is_done = |answer: &Answer| match answer {
            Answer::Refused(refusal) => {
                probe == Probe::Compaction && *refusal == Refusal::Compacted
            }
            _ => true,
        };
        answer.as_ref().is_some_and(is_done)
    }

    fn have_converged(&self, members: &[NodeId]) -> bool {
        let committed = self.oracle.committed();
        members.iter().all(|id| {
            self.status(*id).is_some_and(|status| {
                status.applied == committed
                    && status.last.index == committed
                    && status.durable == committed
            })
        })
    }

    /// In peace leadership can be handed to whom one likes.
    fn hand_over(&mut self) {
        let ids = self.ids();
        let end = self.agenda.now() + self.good_time();
        let leader = loop {
            if let Some(leader) = self.leader() {
                break leader;
            }
            assert!(self.agenda.now() < end, "in peace nobody leads");
            self.let_pass(2);
        };
        let others: Vec<NodeId> = ids.iter().copied().filter(|id| *id != leader).collect();
        if others.is_empty() {
            return;
        }
        let to = self.storm.chance.pick(&others);
        let request = self.request(leader, Asks::Transfer);
        self.push(leader, Input::Transfer { request, to: Some(to) });
        // The writes of this moment must not keep the target from catching up.
        self.probe_once(leader, Probe::Write);
        let end = self.agenda.now() + 4 * self.weather.members.election();
        while self.leader() != Some(to) {
            assert!(self.agenda.now() < end, "in peace n{leader} does not hand over to n{to}");
            self.let_pass(2);
        }
        self.gets_done(&ids, &[Probe::Write], "everybody, after a hand-over,");
    }

    /// When nobody asks for anything any more, members hold nothing for anybody, and all that they
    /// can show of the past is the model's.
    fn comes_to_rest(&mut self) {
        let end = self.agenda.now() + self.good_time();
        while let Some((busy, why)) = self.ids().into_iter().find_map(|id| self.is_busy(id)) {
            assert!(self.agenda.now() < end, "in peace n{busy} does not come to rest: {why}");
            // No multiple of the time between heartbeats.
            self.let_pass(7);
        }
        for id in self.ids() {
            let Some(life) = self.life(id) else { continue };
            self.oracle.check_history(id, &life.published.view);
            self.oracle.check_swept(id, &life.published.view);
        }
    }

    /// What a member holds that is only there for a while.
    fn is_busy(&self, id: NodeId) -> Option<(NodeId, &'static str)> {
        let Some(life) = self.life(id) else { return Some((id, "it is not alive")) };
        let replica = life.event_loop.replica();
        let busy = [
            (replica.waiting() > 0, "requests wait"),
            (replica.admitted_bytes() > 0, "bytes are admitted"),
            (replica.is_sweeping(), "it sweeps"),
            (!life.streams.are_empty(), "messages wait for peers"),
            (life.is_writing(), "it writes"),
            (life.reading.is_some(), "it reads its log"),
        ];
        busy.into_iter().find_map(|(is_so, why)| is_so.then_some((id, why)))
    }

    fn check_history(&mut self) {
        let history: Vec<Operation> = self.clients.history();
        // Many operations end unknown in bad weather; the log says which of them happened.
        let makers = self.oracle.makers(&history);
        match linearizability::check_with(&history, &makers) {
            Ok(report) => self.marks.sometimes(Mark::UnknownHappened, report.filled > 0),
            Err(violation) => panic!("the history is not linearizable: {violation}"),
        }
    }
}
