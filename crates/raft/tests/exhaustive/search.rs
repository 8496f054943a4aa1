//! The search: from the cluster's first state to everything that can follow.

use crate::bounds::Bounds;
use crate::catalogue::{Catalogue, Effect, Inboxes, Next, Numbered, StateId, merge};
use crate::history::{Broken, History};
use crate::member::{Input, Member};
use crate::path;
use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::fmt;

/// What is looked at first.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// What has the most messages on their way: it covers the most, so that less is left.
    MostMessages,
    /// What takes the fewest inputs: it shows the shortest way to what breaks.
    FewestInputs,
}

pub struct Search<'a> {
    bounds: &'a Bounds,
    order: Order,
    catalogue: Catalogue<'a>,
    histories: Vec<History>,
    by_history: HashMap<History, u32>,
    found: Vec<Found>,
    /// The worlds of each state that no other world covers.
    widest: HashMap<ClusterState, Vec<u32>>,
    /// The worlds to be looked at, the next one on top.
    open: BinaryHeap<(u32, Reverse<u32>)>,
    transitions: usize,
}

/// The states of the members, and the history, by number.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct ClusterState {
    pub members: [StateId; 3],
    history: u32,
}

/// A state of the cluster, and the messages on their way. Another with the same state and all
/// these messages, or more, *covers* it.
#[derive(Clone, Copy)]
pub struct World {
    pub state: ClusterState,
    pub inboxes: Inboxes,
}

/// A world, and how it was found.
struct Found {
    world: World,
    by: Step,
    covered: bool,
}

/// An input to one member of a world that was found.
#[derive(Clone, Copy)]
struct Step {
    world: u32,
    place: u8,
    input: Numbered,
}

/// The step that broke a rule.
struct Failure {
    step: Step,
    broken: Broken,
}

/// What was visited.
pub struct Report {
    states: usize,
    worlds: usize,
    transitions: usize,
    members: usize,
    messages: usize,
    pub histories: Vec<History>,
}

impl<'a> Search<'a> {
    /// Visits everything. If a rule is broken, tells the way there.
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
        match search.visit_all() {
            Ok(()) => Ok(search.report()),
            Err(failure) => Err(search.tell(&failure)),
        }
    }

    fn visit_all(&mut self) -> Result<(), Failure> {
        let members = self.bounds.ids().map(|id| Member::new(id, self.bounds));
        let members = members.map(|member| self.catalogue.number(member));
        let history = self.number(History::default());
        let first = World { state: ClusterState { members, history }, inboxes: [0; 3] };
        // Nothing came before it; no path goes further back than to world 0.
        self.add(first, Step { world: 0, place: 0, input: Input::Settle })?;
        while let Some((_, Reverse(world))) = self.open.pop() {
            if !self.found[world as usize].covered {
                self.visit(world)?;
            }
        }
        self.catalogue.check_late().map_err(|(state, input, broken)| {
            let step = self.locate(state, input);
            Failure { step, broken }
        })
    }

    fn visit(&mut self, number: u32) -> Result<(), Failure> {
        let world = self.found[number as usize].world;
        for (place, state) in world.state.members.into_iter().enumerate() {
            for input in self.catalogue.get(state).inputs(world.inboxes[place]) {
                if !self.is_allowed(&world, input) {
                    continue;
                }
                let step = Step { world: number, place: place as u8, input };
                match self.catalogue.effect(state, input) {
                    Effect::None => {}
                    Effect::Next(next) => {
                        self.transitions += 1;
                        let after = self.after(world, step, &next);
                        let after = after.map_err(|broken| Failure { step, broken })?;
                        self.add(after, step)?;
                    }
                    Effect::Broken(broken) => return Err(Failure { step, broken }),
                }
            }
        }
        Ok(())
    }

    /// Whether there is some left of what is counted.
    fn is_allowed(&self, world: &World, input: Numbered) -> bool {
        let history = &self.histories[world.state.history as usize];
        match input {
            Input::Propose => history.proposals < self.bounds.proposals,
            Input::Read(n) => history.reads.len() == n,
            Input::Disconnect(_) => history.disconnects < self.bounds.disconnects,
            Input::Crash { .. } => history.crashes < self.bounds.crashes,
            _ => true,
        }
    }

    /// The world after a step that led a member to its next state.
    fn after(&mut self, mut world: World, step: Step, next: &Next) -> Result<World, Broken> {
        let state = &mut world.state.members[usize::from(step.place)];
        let (before, now) = (self.catalogue.get(*state), self.catalogue.get(next.state));
        let elected = now.leads && !(before.leads && before.term == now.term);
        *state = next.state;
        merge(&mut world.inboxes, &next.sent);
        let counted = matches!(
            step.input,
            Input::Propose | Input::Read(_) | Input::Disconnect(_) | Input::Crash { .. }
        );
        if counted || elected || !next.is_silent() {
            let mut history = self.histories[world.state.history as usize].clone();
            history.count(step.input);
            if elected {
                history.elected(now)?;
            }
            next.applied.iter().try_for_each(|entry| history.applied(now, entry))?;
            next.reads.iter().try_for_each(|read| history.read(read))?;
            world.state.history = self.number(history);
        }
        Ok(world)
    }

    fn number(&mut self, history: History) -> u32 {
        let next = self.histories.len() as u32;
        *self.by_history.entry(history).or_insert_with_key(|history| {
            self.histories.push(history.clone());
            next
        })
    }

    /// Adds a world, unless one that is known covers it.
    fn add(&mut self, mut world: World, by: Step) -> Result<(), Failure> {
        self.answer(&mut world);
        let worlds = self.widest.entry(world.state).or_default();
        if worlds.is_empty() {
            let members = world.state.members.map(|state| self.catalogue.get(state));
            let checked = self.histories[world.state.history as usize].check(members);
            checked.map_err(|broken| Failure { step: by, broken })?;
        }
        if worlds.iter().any(|known| self.found[*known as usize].world.covers(&world)) {
            return Ok(());
        }
        worlds.retain(|known| {
            let known = &mut self.found[*known as usize];
            known.covered = world.covers(&known.world);
            !known.covered
        });
        let number = self.found.len() as u32;
        worlds.push(number);
        self.found.push(Found { world, by, covered: false });
        let urgency = match self.order {
            Order::MostMessages => world.inboxes.iter().map(|inbox| inbox.count_ones()).sum(),
            Order::FewestInputs => 0,
        };
        self.open.push((urgency, Reverse(number)));
        Ok(())
    }

    /// Adds all answers that members give without being changed, and drops what comes too late.
    fn answer(&mut self, world: &mut World) {
        loop {
            let before = world.inboxes;
            for (place, state) in world.state.members.into_iter().enumerate() {
                let (left, answers) = self.catalogue.try_all(state, world.inboxes[place]);
                world.inboxes[place] = left;
                merge(&mut world.inboxes, &answers);
            }
            if world.inboxes == before {
                return;
            }
        }
    }

    /// An input to a state of a member, in the first world that has it.
    fn locate(&self, state: StateId, input: Numbered) -> Step {
        let place = |found: &Found| found.world.state.members.iter().position(|s| *s == state);
        let places = self.found.iter().map(place).enumerate();
        let mut steps = places.filter_map(|(world, place)| {
            Some(Step { world: world as u32, place: place? as u8, input })
        });
        steps.next().expect("every state of a member is one in some world")
    }

    fn tell(&self, failure: &Failure) -> String {
        let mut steps = vec![failure.step];
        while let Some(Step { world: 1.., .. }) = steps.last() {
            let world = steps[steps.len() - 1].world;
            steps.push(self.found[world as usize].by);
        }
        steps.reverse();
        let path = steps.iter().map(|step| {
            (self.found[step.world as usize].world, usize::from(step.place), step.input)
        });
        let path: Vec<path::Step> = path.collect();
        let told = path::tell(&self.catalogue, self.bounds, &path);
        let (states, inputs, broken) = (self.widest.len(), path.len(), &failure.broken);
        format!("{broken}\nafter {states} states, {inputs} inputs from the first:\n\n{told}")
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

impl World {
    fn covers(&self, other: &World) -> bool {
        self.inboxes.iter().zip(&other.inboxes).all(|(ours, theirs)| theirs & !ours == 0)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Report { states, worlds, transitions, members, messages, .. } = self;
        write!(
            f,
            "{states} states ({worlds} with what is on its way), {transitions} transitions, "
        )?;
        write!(f, "put together from {members} states of members and {messages} messages")
    }
}
