//! The way to a broken rule: inputs, and what came of each, in the notation of the scripts.

use crate::bounds::Bounds;
use crate::catalogue::{Catalogue, Numbered};
use crate::member::{Input, Outcome, holds_nothing};
use crate::search::World;
use raft::*;
use std::fmt::Write as _;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// An input to the member at this place of a world.
pub type Step = (World, usize, Numbered);

/// One input, and what came of it.
struct Told {
    text: String,
    heard: Option<Message>,
    sent: Vec<Message>,
    /// The member only answered, and the search did not count that as an input.
    aside: bool,
}

pub fn tell(catalogue: &Catalogue<'_>, bounds: &Bounds, path: &[Step]) -> String {
    let mut all = Vec::new();
    for step in path {
        for aside in asides(&step.0, catalogue) {
            all.push(Told { aside: true, ..tell_step(&aside, catalogue, bounds) });
        }
        all.push(tell_step(step, catalogue, bounds));
    }
    // An answer is worth telling if it is heard later, and once is enough.
    let mut text = Vec::new();
    let mut missing: Vec<Message> = Vec::new();
    for (n, told) in all.iter().enumerate().rev() {
        let is_new = |message: &Message| !all[..n].iter().any(|told| told.sent.contains(message));
        let needed = |message: &Message| missing.contains(message) && is_new(message);
        if !told.aside || told.sent.iter().any(needed) {
            missing.extend(told.heard.clone());
            text.push(told.text.as_str());
        }
    }
    text.reverse();
    text.concat()
}

/// The inputs of a world that are only answered.
fn asides(world: &World, catalogue: &Catalogue<'_>) -> Vec<Step> {
    let members = world.state.members.into_iter().enumerate();
    let answered = members.flat_map(|(place, state)| {
        let inputs = catalogue.get(state).answered(world.inboxes[place]);
        inputs.map(move |input| (*world, place, input))
    });
    answered.collect()
}

fn tell_step((world, place, input): &Step, catalogue: &Catalogue<'_>, bounds: &Bounds) -> Told {
    let known = catalogue.get(world.state.members[*place]);
    let input = catalogue.spell_out(known.id, *input);
    let (mut text, heard) = match input {
        Input::Deliver(message) => (format!("{input}\n"), Some(message.clone())),
        _ => (format!("n{} {input}\n", known.id), None),
    };
    let take = || known.member.take(&input, bounds);
    // The last input may be the one that breaks a rule, and nothing comes of it.
    let outcome = catch_unwind(AssertUnwindSafe(take)).ok().flatten();
    let sent = outcome.map_or(Vec::new(), |outcome| {
        tell_outcome(&mut text, known.member.status(), &outcome);
        outcome.sent
    });
    Told { text, heard, sent, aside: false }
}

fn tell_outcome(text: &mut String, before: Status, outcome: &Outcome) {
    let now = outcome.member.status();
    let id = now.id;
    if (before.role, before.term) != (now.role, now.term) {
        let _ = writeln!(text, "    n{id}@{} becomes {:?}", now.term, now.role);
    }
    for persist in outcome.synced.iter().filter(|persist| !holds_nothing(persist)) {
        let _ = writeln!(text, "    n{id} {persist}");
    }
    for message in &outcome.sent {
        let _ = writeln!(text, "    {message}");
    }
    for entry in &outcome.applied {
        let _ = writeln!(text, "    n{id} apply {}", entry.at);
    }
    for read in &outcome.reads {
        let _ = writeln!(text, "    n{id} read {} index={}", read.id.0, read.index);
    }
}
