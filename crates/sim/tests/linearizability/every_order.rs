//! A second checker that cannot be wrong in interesting ways: it tries every order.

use sim::check::linearizability::{Answer, Operation, Request};
use store::Model;

/// Whether an order explains the history. For few operations only.
pub fn exists(history: &[Operation]) -> bool {
    goes_on(history, &mut vec![false; history.len()], &mut Model::new())
}

fn goes_on(history: &[Operation], done: &mut [bool], model: &mut Model) -> bool {
    let waits = |at: &usize| !done[*at] && history[*at].answer.is_some();
    let bound =
        (0..history.len()).filter(waits).map(|at| history[at].end.unwrap_or(u64::MAX)).min();
    let Some(bound) = bound else { return true };
    for at in 0..history.len() {
        if done[at] || history[at].call > bound {
            continue;
        }
        let mark = model.mark();
        let found = match &history[at].request {
            Request::Range(range) => {
                model.range(range).map(|result| Answer::Range(result, model.revision()))
            }
            Request::Command(command) => {
                model.apply(command).map(|outcome| Answer::Done(outcome, model.revision()))
            }
        };
        let found = found.unwrap_or_else(Answer::Refused);
        // An unknown one without effect may as well never happen.
        let goes = match &history[at].answer {
            Some(answer) => *answer == found,
            None => model.mark() != mark,
        };
        done[at] = true;
        let is_found = goes && goes_on(history, done, model);
        done[at] = false;
        model.rewind(mark);
        if is_found {
            return true;
        }
    }
    false
}
