//! The search itself: from the cluster's first state to all that can follow.

use crate::bounds::Bounds;
use crate::catalogue::{Catalogue, Effect, Inboxes, Next, Numbered, State, merge};
use crate::history::{Broken, History};
use crate::member::{Input, Member};
use crate::path;
use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::fmt;

/// In which order states are looked at.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// Those with the most messages first: they cover the most of the others.
    MostMessages,
    /// Those with the fewest inputs before them first: what breaks is seen on a shortest path.
    Shortest,
}

pub struct Search<'a> {
    bounds: &'a Bounds,
    order: Order,
    catalogue: Catalogue<'a>,
    histories: Vec<History>,
    by_history: HashMap<History, u32>,
    found: Vec<Found>,
    /// The worlds of each state that no other covers.
    widest: HashMap<Cluster, Vec<u32>>,
    open: BinaryHeap<(u32, Reverse<u32>)>,
    transitions: usize,
}

/// A state of the cluster: those of its members, and its history, by number.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Cluster {
    pub members: [State; 3],
    history: u32,
}

/// A state of the cluster, and the messages that may arrive in it.
#[derive(Clone, Copy)]
pub struct World {
    pub cluster: Cluster,
    pub inboxes: Inboxes,
}

/// A world, and how it was found: the world before, and the input to one of its members.
struct Found {
    world: World,
    before: u32,
    place: u8,
    input: Numbered,
    covered: bool,
}

/// A rule that is broken, and where: by an input to one member of a world.
pub struct Failure {
    broken: Broken,
    before: u32,
    place: usize,
    input: Numbered,
}

pub struct Report {
    /// States of the cluster, and worlds.
    pub states: usize,
    pub worlds: usize,
    transitions: usize,
    members: usize,
    messages: usize,
    pub histories: Vec<History>,
}

impl<'a> Search<'a> {
    /// Looks at everything. On failure, tells the way to it.
    pub fn run(bounds: &'a Bounds, order: Order) -> Result<Report, String> {
        let mut search = Search {
            bounds,
            order,
            catalogue: Catalogue::new(bounds),
            histories: Vec::new(),
            by_history: HashMap::new(),
            found: Vec::new(),
            widest: HashMap::new(),
            open: BinaryHeap::new(),
            transitions: 0,
        };
        match search.explore() {
            Ok(()) => Ok(search.report()),
            Err(failure) => Err(search.tell(failure)),
        }
    }

    fn explore(&mut self) -> Result<(), Failure> {
        let members = self.bounds.ids().map(|id| Member::new(id, self.bounds));
        let members = members.map(|member| self.catalogue.number(member));
        let history = self.history(History::default());
        let first = World { cluster: Cluster { members, history }, inboxes: [0; 3] };
        self.add(Found {
            world: first,
            before: 0,
            place: 0,
            input: Input::Settle,
            covered: false,
        })?;
        while let Some((_, Reverse(at))) = self.open.pop() {
            if !self.found[at as usize].covered {
                self.expand(at)?;
            }
        }
        self.catalogue
            .check_late()
            .map_err(|(state, input, broken)| self.locate(state, input, broken))
    }

    fn expand(&mut self, at: u32) -> Result<(), Failure> {
        let world = self.found[at as usize].world;
        for (place, state) in world.cluster.members.into_iter().enumerate() {
            let inputs: Vec<_> = self.catalogue.get(state).inputs(world.inboxes[place]).collect();
            for input in inputs {
                if !self.affords(world, input) {
                    continue;
                }
                let fail = |broken| Failure { broken, before: at, place, input };
                match self.catalogue.effect(state, input) {
                    Effect::Next(next) => {
                        self.transitions += 1;
                        let world = self.after(world, place, input, &next).map_err(fail)?;
                        let place = place as u8;
                        self.add(Found { world, before: at, place, input, covered: false })?;
                    }
                    Effect::None => {}
                    Effect::Broken(broken) => return Err(fail(broken)),
                }
            }
        }
        Ok(())
    }

    /// Whether what is counted is not used up.
    fn affords(&self, world: World, input: Numbered) -> bool {
        let history = &self.histories[world.cluster.history as usize];
        match input {
            Input::Crash { .. } => history.crashes < self.bounds.crashes,
            Input::Propose => history.proposals < self.bounds.proposals,
            Input::Disconnect(_) => history.disconnects < self.bounds.disconnects,
            Input::Read(n) => history.reads.len() == n,
            _ => true,
        }
    }

    /// The world after an input that led one member to its next state.
    fn after(
        &mut self,
        mut world: World,
        place: usize,
        input: Numbered,
        next: &Next,
    ) -> Result<World, Broken> {
        let before = self.catalogue.get(world.cluster.members[place]);
        let now = self.catalogue.get(next.state);
        let elected = now.leads && !(before.leads && before.term == now.term);
        world.cluster.members[place] = next.state;
        merge(&mut world.inboxes, &next.sent);
        let counted = matches!(
            input,
            Input::Crash { .. } | Input::Propose | Input::Disconnect(_) | Input::Read(_)
        );
        if counted || elected || !next.is_silent() {
            let mut history = self.histories[world.cluster.history as usize].clone();
            history.count(input);
            if elected {
                history.elected(now)?;
            }
            next.applied.iter().try_for_each(|entry| history.applied(now, entry))?;
            next.reads.iter().try_for_each(|read| history.read(read))?;
            world.cluster.history = self.history(history);
        }
        Ok(world)
    }

    fn history(&mut self, history: History) -> u32 {
        let next = self.histories.len() as u32;
        *self.by_history.entry(history).or_insert_with_key(|history| {
            self.histories.push(history.clone());
            next
        })
    }

    /// Adds a world, unless a known one covers it: has the same state, and all its messages.
    fn add(&mut self, mut found: Found) -> Result<(), Failure> {
        self.close(&mut found.world);
        let World { cluster, inboxes } = found.world;
        let worlds = self.widest.entry(cluster).or_default();
        if worlds.is_empty() {
            let members = cluster.members.map(|state| self.catalogue.get(state));
            let checked = self.histories[cluster.history as usize].check(members);
            let Found { before, place, input, .. } = found;
            let place = place as usize;
            checked.map_err(|broken| Failure { broken, before, place, input })?;
        }
        let covers = |a: &Inboxes, b: &Inboxes| a.iter().zip(b).all(|(a, b)| b & !a == 0);
        if worlds.iter().any(|at| covers(&self.found[*at as usize].world.inboxes, &inboxes)) {
            return Ok(());
        }
        worlds.retain(|at| {
            let known = &mut self.found[*at as usize];
            known.covered = covers(&inboxes, &known.world.inboxes);
            !known.covered
        });
        let at = self.found.len() as u32;
        worlds.push(at);
        let messages = inboxes.iter().map(|inbox| inbox.count_ones()).sum();
        let first = if self.order == Order::MostMessages { messages } else { 0 };
        self.open.push((first, Reverse(at)));
        self.found.push(found);
        Ok(())
    }

    /// Adds all answers that members give without being changed, and drops what comes too late.
    fn close(&mut self, world: &mut World) {
        loop {
            let before = world.inboxes;
            for (place, state) in world.cluster.members.into_iter().enumerate() {
                let (left, answers) = self.catalogue.look(state, world.inboxes[place]);
                world.inboxes[place] = left;
                merge(&mut world.inboxes, &answers);
            }
            if world.inboxes == before {
                return;
            }
        }
    }

    fn locate(&self, state: State, input: Numbered, broken: Broken) -> Failure {
        let of = |found: &Found| found.world.cluster.members.iter().position(|s| *s == state);
        let mut found = self.found.iter().enumerate();
        let (before, place) =
            found.find_map(|(at, found)| Some((at as u32, of(found)?))).expect("it was met");
        Failure { broken, before, place, input }
    }

    fn tell(&self, failure: Failure) -> String {
        let Failure { broken, before, place, input } = failure;
        let mut steps = vec![(self.found[before as usize].world, place, input)];
        let mut at = before as usize;
        while at > 0 {
            let Found { before, place, input, .. } = self.found[at];
            at = before as usize;
            steps.push((self.found[at].world, place as usize, input));
        }
        steps.reverse();
        let told = path::tell(&self.catalogue, self.bounds, &steps);
        let count = steps.len();
        format!("{broken}\nafter {} states, by {count} inputs:\n\n{told}", self.widest.len())
    }

    fn report(self) -> Report {
        let (members, messages) = self.catalogue.size();
        Report {
            states: self.widest.len(),
            worlds: self.found.len(),
            transitions: self.transitions,
            members,
            messages,
            histories: self.histories,
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Report { states, worlds, transitions, members, messages, .. } = self;
        write!(
            f,
            "{states} states, {worlds} with what is on its way, {transitions} transitions; "
        )?;
        write!(f, "{members} states of members, {messages} messages")
    }
}
