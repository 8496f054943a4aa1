//! How a member stops when it is told to, as the server does on a signal: it hands leadership over if
//! it leads, takes no more requests and answers those it has, lets the disk's thread write what it was
//! asked for, and ends.

use crate::cluster::{Asked, Asks, Cluster, Event};
use crate::ledger::Kept;
use crate::machine::{Death, Life};
use crate::marks::Mark;
use crate::streams::Streams;
use crate::weather::{Micros, SECOND};
use raft::NodeId;
use replica::{Input, QueueLimits};

/// Requests under way get so much time, and then the disk's thread; as at the server.
const FINISH_TIMEOUT: Micros = 2 * SECOND;

/// A process that was told to stop.
#[derive(Clone, Copy, Debug)]
pub struct Stopping {
    stage: Stage,
    /// The stage ends then, whether it is done or not.
    until: Micros,
    /// What becomes of the machine, and of a write that does not end.
    death: Death,
}

/// What a process that stops is at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    /// Leadership is handed over.
    HandsOver,
    /// No request is taken any more; those under way are answered.
    Answers,
    /// The node's thread has ended; the disk's thread writes what it was asked for.
    Writes,
}

impl Life {
    /// Whether its network threads take requests.
    pub fn takes_requests(&self) -> bool {
        self.stopping.is_none_or(|stopping| stopping.stage < Stage::Answers)
    }

    /// Whether its node's thread runs.
    pub fn has_node(&self) -> bool {
        self.stopping.is_none_or(|stopping| stopping.stage < Stage::Writes)
    }
}

impl Cluster {
    /// A member is told to stop. False if it does not run, or was told so before.
    pub(crate) fn stop(&mut self, id: NodeId, death: Death) -> bool {
        let leads = self.status(id).is_some_and(|status| status.leader == Some(id));
        let hands_over = leads && self.machines.len() > 1;
        let patience = if hands_over { 2 * self.weather.members.election() } else { 0 };
        let until = self.agenda.now() + patience;
        let Some(life) = self.machine(id).life.as_mut().filter(|life| life.stopping.is_none())
        else {
            return false;
        };
        life.stopping = Some(Stopping { stage: Stage::HandsOver, until, death });
        let boot = life.boot;
        if hands_over {
            let request = self.request(id, Asks::HandOver);
            self.push(id, Input::Transfer { request, to: None });
        }
        self.agenda.add_at(until, Event::Stop(id, boot));
        true
    }

    /// Leadership is handed over, or cannot be: a member that stops goes on.
    pub(crate) fn on_handed_over(&mut self, id: NodeId, is_done: bool) {
        self.marks.sometimes(Mark::HandedOverAtStop, is_done);
        let now = self.agenda.now();
        let Some(life) = &mut self.machine(id).life else { return };
        let Some(stopping) = &mut life.stopping else { return };
        if stopping.stage == Stage::HandsOver {
            stopping.until = now;
            let boot = life.boot;
            self.agenda.add(0, Event::Stop(id, boot));
        }
    }

    /// A member that stops looks whether the next stage may begin.
    pub(crate) fn on_stop(&mut self, id: NodeId, boot: u64) {
        if self.machine(id).life(boot).is_none()
            || self.is_paused(id, Event::Stop(id, boot)).is_err()
        {
            return;
        }
        let now = self.agenda.now();
        let is_asked = |asked: &Asked| {
            asked.member == id && matches!(asked.what, Asks::Operation(_) | Asks::Cancelled)
        };
        let is_asked = self.asked.values().any(is_asked);
        let Some(life) = self.machine(id).life(boot) else { return };
        let Some(Stopping { stage, until, death }) = life.stopping else { return };
        let is_writing = life.is_writing();
        let waits = match stage {
            Stage::HandsOver => true,
            Stage::Answers => is_asked,
            Stage::Writes => is_writing,
        };
        if waits && now < until {
            // What else ends a stage has an event of its own.
            if stage == Stage::Answers {
                self.agenda.add(self.weather.members.tick, Event::Stop(id, boot));
            }
            return;
        }
        let mut enter = |stage| {
            life.stopping = Some(Stopping { stage, until: now + FINISH_TIMEOUT, death });
        };
        match stage {
            Stage::HandsOver => {
                enter(Stage::Answers);
                self.agenda.add(0, Event::Stop(id, boot));
            }
            Stage::Answers => {
                enter(Stage::Writes);
                self.end_node(id, is_writing);
                self.agenda.add(0, Event::Stop(id, boot));
                self.agenda.add(FINISH_TIMEOUT, Event::Stop(id, boot));
            }
            Stage::Writes => self.end_process(id, death, is_writing),
        }
    }

    /// The node's thread ends, and with it all connections. What it has not taken is lost.
    fn end_node(&mut self, id: NodeId, is_writing: bool) {
        self.marks.sometimes(Mark::StopsWhileWriting, is_writing);
        if let Some(life) = &mut self.machine(id).life {
            life.inbox.clear();
            life.streams = Streams::new(life.streams.pace, QueueLimits::default());
        }
        self.oracle.forget(id);
        self.forget_requests(id);
        self.hang_up(id);
    }

    fn end_process(&mut self, id: NodeId, death: Death, is_writing: bool) {
        self.marks.sometimes(Mark::StopOverdue, is_writing);
        self.marks.sometimes(Mark::Stopped, !is_writing);
        if !is_writing {
            let machine = self.machine(id);
            machine.check_stopped();
            machine.stopped = true;
        }
        self.die(id, death);
    }
}

impl crate::machine::Machine {
    /// A process that ends in good order has written everything that it asked its disk for.
    ///
    /// # Panics
    /// If something is missing.
    fn check_stopped(&self) {
        let (id, Kept { hard_state, log, .. }) = (self.id, &self.ledger.memory);
        let disk = &self.ledger.disk;
        let last = self.ledger.memory.last();
        let whole = *hard_state == disk.hard_state
            && log.len() == disk.log.len()
            && disk.prefix(last.index) == self.ledger.memory.prefix(last.index);
        assert!(
            whole,
            "n{id} stopped in good order; its log ends with {last}, on disk with {}",
            disk.last()
        );
        self.check_synced("it stopped in good order");
    }
}
