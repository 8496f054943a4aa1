//! Small clusters in all their states: three members, few terms and commands, and within these
//! bounds everything that can happen. `schedules` takes samples of a large space; here a small
//! one is looked at as a whole. Each test is one search; its doc says what it is for and how
//! much it visits, its [`Bounds`] what can happen in it, and its output both, with the figures.
//!
//! Any message ever sent may arrive at any later time, any number of times, or never. A write is
//! on disk at any later time, and promises leave with it. A member may die at any time; it starts
//! again from its disk. Patience may end at any time. The rules of `history` and `member` are
//! checked in every state and at every step, besides those that the core checks by itself.
//!
//! What breaks a rule is told as the inputs that lead there, as few as possible. The largest searches
//! are ignored unless asked for: `cargo test -p raft --test exhaustive -- --ignored`.
//!
//! # Why so few states are enough
//!
//! Each of these leaves out only what cannot break a rule that the rest does not break.
//!
//! - **A network that forgets nothing.** What is on its way is the set of all messages ever sent:
//!   one that is lost is one that never arrives. So a state in which more messages are on their
//!   way can do all that the same state with fewer can, and *covers* it: only those that no other
//!   covers are looked at. What is counted as a state is the members with their disks, and the
//!   history; what is on its way comes on top.
//! - **Answers at once.** If a message changes nothing at its receiver except that it is answered,
//!   the answer is added without a step, by the same argument.
//! - **Late messages.** Answers and commit indexes of a term before the one on the receiver's disk
//!   are forgotten. That they do nothing is not believed but tried, for every such message and
//!   every state of a member, when the search is done.
//! - **Empty writes.** A write that only carries promises is joined to the one before it, as a
//!   driver may, and done at once when there is none: what a crash takes from it are messages.
//! - **No time.** Every input that needs ticks uses them up, so no state holds a part of a wait.
//!   How long patience is, and what else is left to chance, decides nothing but when it ends; the
//!   hash of a `Node` leaves it out.
//! - **Death is short.** A member that is dead for long is one whose messages take long.
//! - **One run for each state of a member.** What an input does to a member is looked up if it was
//!   met in another state of the cluster (`catalogue`).
//!
//! States of members are told apart by 64 bits of hash; there are some thousands of them.

#![allow(clippy::unwrap_used, reason = "a test that is wrong may die")]

mod bounds;
mod catalogue;
#[path = "../cluster/mod.rs"]
mod cluster;
mod history;
mod member;
mod path;
mod search;

use bounds::Bounds;
use search::{Order, Search};
use std::time::Instant;

/// Everybody against everybody: votes that are split, lost, doubled and late; a member that
/// forgets what was not on its disk.
#[test]
fn elections_between_all_with_slow_disks_and_a_crash() {
    search(Bounds { writes_max: 2, crashes: 1, ..Bounds::elections(&[&[1, 2], &[1, 2, 3]]) });
}

#[test]
fn elections_in_three_terms_with_slow_disks() {
    search(Bounds { writes_max: 2, ..Bounds::elections(&[&[1, 2], &[1, 2], &[1, 2]]) });
}

#[test]
fn elections_with_pre_vote_and_check_quorum() {
    search(Bounds { careful: true, heartbeats: true, ..Bounds::elections(&[&[1, 2], &[1, 2]]) });
}

#[test]
fn one_leader_with_a_command_slow_disks_and_a_crash() {
    search(Bounds { proposals: 1, writes_max: 1, crashes: 1, ..Bounds::elections(&[&[1]]) });
}

#[test]
#[ignore = "takes minutes"]
fn one_leader_with_two_commands_slow_disks_and_a_crash() {
    search(Bounds { proposals: 2, writes_max: 2, crashes: 1, ..Bounds::elections(&[&[1]]) });
}

#[test]
fn a_change_of_leaders_with_slow_disks_and_a_crash() {
    search(Bounds { writes_max: 1, crashes: 1, ..Bounds::elections(&[&[1], &[2]]) });
}

#[test]
#[ignore = "takes a minute"]
fn a_change_of_leaders_with_a_command_slow_disks_and_a_crash() {
    search(Bounds { proposals: 1, writes_max: 1, crashes: 1, ..Bounds::elections(&[&[1], &[2]]) });
}

#[test]
fn a_change_of_leaders_with_two_commands() {
    search(Bounds { proposals: 2, ..Bounds::elections(&[&[1], &[2]]) });
}

#[test]
fn a_change_of_leaders_with_broken_connections() {
    let single = Bounds { single_entries: true, ..Bounds::elections(&[&[1], &[2]]) };
    search(Bounds { proposals: 1, disconnects: 1, ..single });
}

#[test]
fn a_change_of_leaders_with_batches() {
    search(Bounds { inputs_max: 2, ..Bounds::elections(&[&[1], &[2]]) });
}

#[test]
fn a_change_of_leaders_with_reads() {
    search(Bounds { reads: 1, heartbeats: true, ..Bounds::elections(&[&[1], &[2]]) });
}

#[test]
fn figure_8() {
    let terms: &[&[u64]] = &[&[1], &[3], &[1], &[3]];
    search(Bounds { single_entries: true, ..Bounds::elections(terms) });
}

fn search(bounds: Bounds) {
    let start = Instant::now();
    let report = match Search::run(&bounds, Order::MostMessages) {
        Ok(report) => report,
        Err(first) => {
            eprintln!("first: {}", first.lines().take(2).collect::<Vec<_>>().join(" "));
            let shortest = Search::run(&bounds, Order::Shortest).err().unwrap_or(first);
            panic!("{bounds:?}\n\n{shortest}");
        }
    };
    eprintln!("{bounds:?}\n  {report}, {:.1} s", start.elapsed().as_secs_f64());
    let committed = |history: &history::History| {
        history.committed.iter().any(|(_, term)| *term == bounds.last_term())
    };
    assert!(report.histories.iter().any(committed), "the last term commits");
}
