//! All that single members were seen in, by number: their states, the messages to them, and what
//! comes of each input to each state. The core runs once for an input to a state of a *member*;
//! the many more states of the *cluster* are put together from these numbers.

use crate::bounds::Bounds;
use crate::history::Broken;
use crate::member::{Input, Member, Outcome};
use raft::*;
use std::any::Any;
use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Messages to one member, a bit for each.
pub type Inbox = u128;

/// For each member, messages to it.
pub type Inboxes = [Inbox; 3];

/// An input, its message by number.
pub type Numbered = Input<u8>;

/// The number of a member's state.
pub type State = u32;

pub struct Catalogue<'a> {
    bounds: &'a Bounds,
    states: Vec<Known>,
    by_fingerprint: HashMap<u64, State>,
    messages: [Vec<Message>; 3],
    effects: HashMap<(State, Numbered), Effect>,
}

/// A state of a member.
pub struct Known {
    pub member: Member,
    pub id: NodeId,
    pub term: Term,
    pub leads: bool,
    pub log: Vec<Entry>,
    pub disk: Vec<Entry>,
    /// What may happen to it besides messages.
    pub inputs: Vec<Numbered>,
    /// The messages that were looked at: each is one of the following, or does something.
    seen: Inbox,
    /// Comes too late to do anything, to this state and to all that follow it.
    late: Inbox,
    /// Does nothing to this state, except that it may be answered.
    idle: Inbox,
    /// The answers to those.
    answers: Vec<(u8, Inboxes)>,
}

/// What comes of an input to a state.
#[derive(Clone)]
pub enum Effect {
    /// It leads to another state, or to the same.
    Next(Next),
    /// It cannot happen, or leads beyond the bounds.
    None,
    /// It breaks a rule.
    Broken(Broken),
}

#[derive(Clone)]
pub struct Next {
    pub state: State,
    pub sent: Inboxes,
    pub applied: Vec<Entry>,
    pub reads: Vec<ReadReady>,
}

impl<'a> Catalogue<'a> {
    pub fn new(bounds: &'a Bounds) -> Catalogue<'a> {
        Catalogue {
            bounds,
            states: Vec::new(),
            by_fingerprint: HashMap::new(),
            messages: [const { Vec::new() }; 3],
            effects: HashMap::new(),
        }
    }

    pub fn get(&self, state: State) -> &Known {
        &self.states[state as usize]
    }

    /// How many states and messages there are.
    pub fn size(&self) -> (usize, usize) {
        (self.states.len(), self.messages.iter().map(Vec::len).sum())
    }

    /// The number of a member's state.
    pub fn number(&mut self, member: Member) -> State {
        let next = self.states.len() as State;
        let number = *self.by_fingerprint.entry(member.fingerprint()).or_insert(next);
        if number == next {
            self.states.push(Known::new(member, self.bounds));
        }
        number
    }

    /// What comes of an input to a state.
    pub fn effect(&mut self, state: State, input: Numbered) -> Effect {
        if let Some(effect) = self.effects.get(&(state, input)) {
            return effect.clone();
        }
        let effect = self.run(state, input);
        self.effects.insert((state, input), effect.clone());
        effect
    }

    /// Looks at all messages of an inbox. Returns what is left of it without those that come too
    /// late, and the answers to those that do nothing else.
    pub fn look(&mut self, state: State, inbox: Inbox) -> (Inbox, Inboxes) {
        for number in numbers(inbox & !self.get(state).seen) {
            self.look_at(state, number);
        }
        let known = self.get(state);
        let mut answers = [0; 3];
        for (_, sent) in known.answers.iter().filter(|(number, _)| inbox >> number & 1 == 1) {
            merge(&mut answers, sent);
        }
        (inbox & !known.late, answers)
    }

    fn look_at(&mut self, state: State, number: u8) {
        let known = self.get(state);
        let late = known.is_late(&self.messages[place(known.id)][number as usize]);
        let effect = if late { Effect::None } else { self.effect(state, Input::Deliver(number)) };
        let known = &mut self.states[state as usize];
        known.seen |= 1 << number;
        if late {
            known.late |= 1 << number;
        }
        if let Effect::Next(next) = effect
            && next.is_idle(state)
        {
            known.idle |= 1 << number;
            if next.sent != [0; 3] {
                known.answers.push((number, next.sent));
            }
        }
    }

    /// Tries every message that comes too late on every state for which it does.
    pub fn check_late(&self) -> Result<(), (State, Numbered, Broken)> {
        for (state, known) in self.states.iter().enumerate() {
            for (number, message) in self.messages[place(known.id)].iter().enumerate() {
                if !known.is_late(message) {
                    continue;
                }
                let idle = |outcome: Option<Outcome>| {
                    let same = |o: &Outcome| o.member.fingerprint() == known.member.fingerprint();
                    outcome.is_some_and(|o| same(&o) && o.sent.is_empty())
                };
                if !self.try_take(known, Input::Deliver(message)).is_ok_and(idle) {
                    let broken = format!("what comes late does nothing: {message}");
                    return Err((state as State, Input::Deliver(number as u8), broken));
                }
            }
        }
        Ok(())
    }

    fn run(&mut self, state: State, input: Numbered) -> Effect {
        let known = self.get(state);
        let outcome = match self.try_take(known, self.spelled(known.id, input)) {
            Ok(Some(outcome)) if self.bounds.allow(&outcome.member) => outcome,
            Ok(_) => return Effect::None,
            Err(broken) => return Effect::Broken(broken),
        };
        let Outcome { member, sent, applied, reads, .. } = outcome;
        let mut inboxes = [0; 3];
        for message in sent {
            let to = place(message.to);
            inboxes[to] |= self.bit(message);
        }
        Effect::Next(Next { state: self.number(member), sent: inboxes, applied, reads })
    }

    fn try_take(&self, known: &Known, input: Input<&Message>) -> Result<Option<Outcome>, Broken> {
        catch_unwind(AssertUnwindSafe(|| known.member.take(&input, self.bounds)))
            .map_err(|panic| text(&*panic))
    }

    fn bit(&mut self, message: Message) -> Inbox {
        let messages = &mut self.messages[place(message.to)];
        let number = messages.iter().position(|known| *known == message).unwrap_or(messages.len());
        if number == messages.len() {
            messages.push(message);
        }
        assert!(number < Inbox::BITS as usize, "an inbox has a bit for each message");
        1 << number
    }

    /// An input with its message spelled out.
    pub fn spelled(&self, to: NodeId, input: Numbered) -> Input<&Message> {
        match input {
            Input::Deliver(number) => Input::Deliver(&self.messages[place(to)][number as usize]),
            Input::Sync => Input::Sync,
            Input::Campaign => Input::Campaign,
            Input::Propose => Input::Propose,
            Input::Read(n) => Input::Read(n),
            Input::Heartbeat => Input::Heartbeat,
            Input::Disconnect(peer) => Input::Disconnect(peer),
            Input::Settle => Input::Settle,
            Input::Crash { hint } => Input::Crash { hint },
        }
    }
}

impl Known {
    fn new(member: Member, bounds: &Bounds) -> Known {
        let status = member.status();
        Known {
            id: status.id,
            term: status.term,
            leads: status.role == RoleName::Leader,
            log: member.log(),
            disk: member.disk().entries.clone(),
            inputs: member.inputs(bounds),
            seen: 0,
            late: 0,
            idle: 0,
            answers: Vec::new(),
            member,
        }
    }

    /// What may happen to it when these messages are there, except what does nothing.
    pub fn inputs(&self, inbox: Inbox) -> impl Iterator<Item = Numbered> {
        self.inputs.iter().copied().chain(numbers(inbox & !self.idle).map(Input::Deliver))
    }

    /// The messages of an inbox that it answers without being changed.
    pub fn answered(&self, inbox: Inbox) -> impl Iterator<Item = Numbered> {
        let answered = self.answers.iter().map(|(number, _)| *number);
        answered.filter(move |number| inbox >> number & 1 == 1).map(Input::Deliver)
    }

    /// Answers and commit indexes of a term before the one on disk are ignored for ever: a member
    /// never falls behind what is on its disk. Requests are answered with the newer term.
    fn is_late(&self, message: &Message) -> bool {
        let answered = matches!(
            message.body,
            Body::PreVote { .. } | Body::Vote { .. } | Body::Append { .. } | Body::Heartbeat { .. }
        );
        !answered && message.term < self.member.disk().hard_state.term
    }
}

impl Next {
    fn is_idle(&self, before: State) -> bool {
        self.state == before && self.is_silent()
    }

    pub fn is_silent(&self) -> bool {
        self.applied.is_empty() && self.reads.is_empty()
    }
}

/// Where a member stands among the three.
pub fn place(id: NodeId) -> usize {
    id.0 as usize - 1
}

/// Adds messages to inboxes.
pub fn merge(inboxes: &mut Inboxes, sent: &Inboxes) {
    inboxes.iter_mut().zip(sent).for_each(|(inbox, sent)| *inbox |= sent);
}

/// The numbers of the messages in an inbox.
fn numbers(mut inbox: Inbox) -> impl Iterator<Item = u8> {
    std::iter::from_fn(move || {
        let number = inbox.trailing_zeros();
        inbox &= inbox.wrapping_sub(1);
        (number < Inbox::BITS).then_some(number as u8)
    })
}

fn text(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or(panic.downcast_ref::<&str>().copied()).unwrap_or("a panic").to_string()
}
