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
pub type StateId = u32;

pub struct Catalogue<'a> {
    bounds: &'a Bounds,
    states: Vec<Known>,
    by_fingerprint: HashMap<u64, StateId>,
    /// For each member, the messages to it.
    messages: [Vec<Message>; 3],
    effects: HashMap<(StateId, Numbered), Effect>,
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
    inputs: Vec<Numbered>,
    /// The messages that were tried. Of these:
    tried: Inbox,
    /// those that come too late, for this state and all that follow it,
    late: Inbox,
    /// those that do not change it,
    idle: Inbox,
    /// and the answers to these, if there are any.
    answers: Vec<(u8, Inboxes)>,
}

/// What comes of an input to a state.
#[derive(Clone)]
pub enum Effect {
    /// Another state, or the same again.
    Next(Next),
    /// It cannot happen, or is out of bounds.
    None,
    /// A rule is broken.
    Broken(Broken),
}

#[derive(Clone)]
pub struct Next {
    pub state: StateId,
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

    pub fn get(&self, state: StateId) -> &Known {
        &self.states[state as usize]
    }

    /// How many states and messages it holds.
    pub fn size(&self) -> (usize, usize) {
        (self.states.len(), self.messages.iter().map(Vec::len).sum())
    }

    /// The number of a member's state.
    pub fn number(&mut self, member: Member) -> StateId {
        let next = self.states.len() as StateId;
        let number = *self.by_fingerprint.entry(member.fingerprint()).or_insert(next);
        if number == next {
            self.states.push(Known::new(member, self.bounds));
        }
        number
    }

    /// What comes of an input to a state.
    pub fn effect(&mut self, state: StateId, input: Numbered) -> Effect {
        if let Some(effect) = self.effects.get(&(state, input)) {
            return effect.clone();
        }
        let effect = self.run(state, input);
        self.effects.insert((state, input), effect.clone());
        effect
    }

    /// Tries all messages of an inbox on a state. Returns the inbox without those that come too
    /// late, and the answers to those that change nothing.
    pub fn try_all(&mut self, state: StateId, inbox: Inbox) -> (Inbox, Inboxes) {
        for number in numbers(inbox & !self.get(state).tried) {
            self.try_one(state, number);
        }
        let known = self.get(state);
        let mut answers = [0; 3];
        for (_, sent) in known.answers.iter().filter(|(number, _)| inbox >> number & 1 == 1) {
            merge(&mut answers, sent);
        }
        (inbox & !known.late, answers)
    }

    fn try_one(&mut self, state: StateId, number: u8) {
        let known = &mut self.states[state as usize];
        known.tried |= 1 << number;
        if known.is_late(&self.messages[place(known.id)][number as usize]) {
            known.late |= 1 << number;
            return;
        }
        let effect = self.effect(state, Input::Deliver(number));
        let Effect::Next(next) = effect else { return };
        if next.state == state && next.is_silent() {
            let known = &mut self.states[state as usize];
            known.idle |= 1 << number;
            if next.sent != [0; 3] {
                known.answers.push((number, next.sent));
            }
        }
    }

    /// Tries what comes too late, each such message on every state for which it does.
    pub fn check_late(&self) -> Result<(), (StateId, Numbered, Broken)> {
        for (state, known) in self.states.iter().enumerate() {
            for (number, message) in self.messages[place(known.id)].iter().enumerate() {
                if known.is_late(message) && !self.is_ignored(known, message) {
                    let broken = format!("what comes late is ignored: {message}");
                    return Err((state as StateId, Input::Deliver(number as u8), broken));
                }
            }
        }
        Ok(())
    }

    fn is_ignored(&self, known: &Known, message: &Message) -> bool {
        let outcome = self.take(known, Input::Deliver(message)).ok().flatten();
        outcome.is_some_and(|Outcome { member, sent, .. }| {
            member.fingerprint() == known.member.fingerprint() && sent.is_empty()
        })
    }

    fn run(&mut self, state: StateId, input: Numbered) -> Effect {
        let known = self.get(state);
        let outcome = match self.take(known, self.spell_out(known.id, input)) {
            Ok(Some(outcome)) if outcome.member.writes() <= self.bounds.writes_max => outcome,
            Ok(_) => return Effect::None,
            Err(broken) => return Effect::Broken(broken),
        };
        let Outcome { member, sent, applied, reads, .. } = outcome;
        let mut inboxes = [0; 3];
        for message in sent {
            let to = place(message.to);
            inboxes[to] |= 1 << self.message_number(message);
        }
        Effect::Next(Next { state: self.number(member), sent: inboxes, applied, reads })
    }

    fn take(&self, known: &Known, input: Input<&Message>) -> Result<Option<Outcome>, Broken> {
        let take = || known.member.take(&input, self.bounds);
        catch_unwind(AssertUnwindSafe(take)).map_err(|panic| text(&*panic))
    }

    fn message_number(&mut self, message: Message) -> usize {
        let messages = &mut self.messages[place(message.to)];
        let number = messages.iter().position(|known| *known == message).unwrap_or(messages.len());
        if number == messages.len() {
            messages.push(message);
        }
        assert!(number < Inbox::BITS as usize, "an inbox has a bit for each message");
        number
    }

    /// An input with its message.
    pub fn spell_out(&self, id: NodeId, input: Numbered) -> Input<&Message> {
        match input {
            Input::Deliver(number) => Input::Deliver(&self.messages[place(id)][number as usize]),
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
            tried: 0,
            late: 0,
            idle: 0,
            answers: Vec::new(),
            member,
        }
    }

    /// What may change it, with these messages on their way to it.
    pub fn inputs(&self, inbox: Inbox) -> Vec<Numbered> {
        let messages = numbers(inbox & !self.idle).map(Input::Deliver);
        self.inputs.iter().copied().chain(messages).collect()
    }

    /// What it only answers, of these messages.
    pub fn answered(&self, inbox: Inbox) -> impl Iterator<Item = Numbered> {
        let answered = self.answers.iter().map(|(number, _)| *number);
        answered.filter(move |number| inbox >> number & 1 == 1).map(Input::Deliver)
    }

    /// A member never falls behind the term on its disk. Answers and commit indexes of a term
    /// before are ignored; requests are answered with the newer term.
    fn is_late(&self, message: &Message) -> bool {
        let request = matches!(
            message.body,
            Body::PreVote { .. } | Body::Vote { .. } | Body::Append { .. } | Body::Heartbeat { .. }
        );
        !request && message.term < self.member.disk().hard_state.term
    }
}

impl Next {
    /// Whether only the member and the network know of it.
    pub fn is_silent(&self) -> bool {
        self.applied.is_empty() && self.reads.is_empty()
    }
}

/// Adds messages to those that are there.
pub fn merge(inboxes: &mut Inboxes, sent: &Inboxes) {
    inboxes.iter_mut().zip(sent).for_each(|(inbox, sent)| *inbox |= sent);
}

/// Where a member stands among the three.
fn place(id: NodeId) -> usize {
    id.0 as usize - 1
}

/// The numbers of the messages in an inbox.
fn numbers(mut inbox: Inbox) -> impl Iterator<Item = u8> {
    std::iter::from_fn(move || {
        let number = inbox.trailing_zeros();
        inbox &= inbox.wrapping_sub(1);
        (number < Inbox::BITS).then_some(number as u8)
    })
}

/// What a panic says.
fn text(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or(panic.downcast_ref::<&str>().copied()).unwrap_or("a panic").to_string()
}
