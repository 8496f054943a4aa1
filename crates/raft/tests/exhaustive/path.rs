//! How a search tells what it found: the inputs that lead to it and what came of each, in the
//! notation of scripts and traces.

use crate::bounds::Bounds;
use crate::catalogue::{Catalogue, Numbered};
use crate::member::{Input, Outcome};
use crate::search::World;
use raft::*;
use std::fmt::Write as _;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// One input, and what came of it.
struct Line {
    text: String,
    uses: Option<Message>,
    sends: Vec<Message>,
    /// Nothing came of it but an answer.
    aside: bool,
}

/// Tells of inputs, each with the world that it happened in and the place of the member.
pub fn tell(
    catalogue: &Catalogue<'_>,
    bounds: &Bounds,
    steps: &[(World, usize, Numbered)],
) -> String {
    let mut lines: Vec<Line> = Vec::new();
    for (world, place, input) in steps {
        for aside in asides(catalogue, bounds, world) {
            let said = |message: &Message| lines.iter().any(|line| line.sends.contains(message));
            if !aside.sends.iter().all(said) {
                lines.push(aside);
            }
        }
        lines.push(line(catalogue, bounds, world, *place, *input));
    }
    // An answer is told of if it is heard later.
    let mut used = Vec::new();
    let mut told = Vec::new();
    for line in lines.into_iter().rev() {
        if !line.aside || line.sends.iter().any(|message| used.contains(message)) {
            used.extend(line.uses);
            told.push(line.text);
        }
    }
    told.reverse();
    told.concat()
}

/// The answers that members give in a world without being changed.
fn asides(catalogue: &Catalogue<'_>, bounds: &Bounds, world: &World) -> Vec<Line> {
    let mut lines = Vec::new();
    for (place, state) in world.cluster.members.into_iter().enumerate() {
        for input in catalogue.get(state).answered(world.inboxes[place]) {
            let line = line(catalogue, bounds, world, place, input);
            lines.push(Line { aside: true, ..line });
        }
    }
    lines
}

fn line(
    catalogue: &Catalogue<'_>,
    bounds: &Bounds,
    world: &World,
    place: usize,
    input: Numbered,
) -> Line {
    let known = catalogue.get(world.cluster.members[place]);
    let input = catalogue.spelled(known.id, input);
    let uses = if let Input::Deliver(message) = input { Some(message.clone()) } else { None };
    let mut text = match &uses {
        Some(_) => format!("{input}\n"),
        None => format!("n{} {input}\n", known.id),
    };
    let outcome = catch_unwind(AssertUnwindSafe(|| known.member.take(&input, bounds)));
    let Ok(Some(outcome)) = outcome else {
        return Line { text, uses, sends: Vec::new(), aside: false };
    };
    write_effects(&mut text, known.member.status(), &outcome);
    Line { text, uses, sends: outcome.sent, aside: false }
}

fn write_effects(text: &mut String, before: Status, outcome: &Outcome) {
    let now = outcome.member.status();
    let id = now.id;
    if let Some(persist) = &outcome.synced {
        let _ = writeln!(text, "    n{id} {persist}");
    }
    if (before.role, before.term) != (now.role, now.term) {
        let _ = writeln!(text, "    n{id}@{} becomes {:?}", now.term, now.role);
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
