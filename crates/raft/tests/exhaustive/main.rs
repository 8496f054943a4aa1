//! Small clusters in all their states: three members, few terms and commands, and within these
//! bounds everything that can happen. `schedules` takes samples of a space without end; here a
//! small one is seen whole. Each test is one search, bounded by its [`Bounds`]; it prints these,
//! and how much it visited.
//!
//! Every message that was ever sent may arrive at any later time, any number of times, or never.
//! A write is on disk at any later time, and its promises leave then. Patience may end at any
//! time. A member may die at any time; it starts again from what is on its disk. After every step
//! the rules are checked: those of the core itself, those of one member (`member`: promises leave
//! when what they claim is on disk, and what is there never goes back), and those that only an
//! observer of all members can check (`history`: one leader a term, leaders hold what is
//! committed, logs match, all apply the same, a quorum has on disk what is committed, reads see
//! what was applied). What breaks a rule is told as the shortest sequence of inputs.
//!
//! The largest searches only run when asked for: `-- --ignored`.
//!
//! # Why so few states are enough
//!
//! Each of these leaves out only what can break nothing that the rest cannot break.
//!
//! - **The network forgets nothing.** What is on its way is the set of all messages ever sent; a
//!   lost one is one that never arrives. So a world with more messages can do whatever one with
//!   fewer can, if the members and the history are the same: it *covers* the other, which need not
//!   be looked at. What is counted as a state is the members and the history; worlds of one state
//!   are counted besides, as far as none that was known covered them.
//! - **Answers come at once.** When a message changes nothing at its receiver, but is answered, the
//!   answer is added without a step: by the same argument, that makes nothing impossible.
//! - **What comes late is forgotten:** answers and commit indexes of a term before that on the disk
//!   of their receiver. That such a message does nothing is tried, not believed: at the end each
//!   is given to every state of its receiver for which it comes late.
//! - **Writes that hold nothing** but promises are joined to the write before, as a driver may do;
//!   if there is none, they are done at once. What a crash could take from them is a message.
//! - **Time stands still.** An input uses up the ticks that it takes, so no state is in the middle
//!   of a wait. Chance decides how long a wait is and nothing else here; the hash of a node leaves
//!   it out.
//! - **Members are looked up.** What comes of an input to a member does not depend on the others, so
//!   the core runs once for each state of a member (`catalogue`). They are told apart by hashes of
//!   64 bits, and there are some thousands of them; states of the cluster are compared exactly.
//!
//! Members are interchangeable, so little is lost when only some of them campaign.
//!
//! # How it is trusted
//!
//! Bugs were planted in the core, one at a time, and found: votes for shorter logs, votes that a
//! restart forgets or that leave before their write, votes and acknowledgements that count in
//! another term, entries of an earlier term that count (figure 8), a leader that counts itself
//! before its disk, commit indexes beyond what is known to be equal, late writes that vouch for
//! what replaced their entries, reads that another round confirms.

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

/// Everybody against everybody: votes that are split, lost, doubled and late; members that forget
/// what was not on their disks.
#[test]
fn elections_between_all_with_slow_disks_and_a_crash() {
    search(Bounds { writes_max: 2, crashes: 1, ..Bounds::elections(&[&[1, 2], &[1, 2, 3]]) });
}

/// What is left of one term meets the one after the next.
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

/// Appends that overtake each other on their way to a disk that has not caught up.
#[test]
#[ignore = "takes minutes"]
fn one_leader_with_two_commands_slow_disks_and_a_crash() {
    search(Bounds { proposals: 2, writes_max: 2, crashes: 1, ..Bounds::elections(&[&[1]]) });
}

/// What one leader left, on disk or not, committed or not, the next one keeps or replaces.
#[test]
fn a_change_of_leaders_with_slow_disks_and_a_crash() {
    search(Bounds { writes_max: 1, crashes: 1, ..Bounds::elections(&[&[1], &[2]]) });
}

#[test]
#[ignore = "takes ten seconds"]
fn a_change_of_leaders_with_a_command_slow_disks_and_a_crash() {
    search(Bounds { proposals: 1, writes_max: 1, crashes: 1, ..Bounds::elections(&[&[1], &[2]]) });
}

#[test]
fn a_change_of_leaders_with_two_commands() {
    search(Bounds { proposals: 2, ..Bounds::elections(&[&[1], &[2]]) });
}

/// A leader that begins again from what is certain sends what was sent before.
#[test]
fn a_change_of_leaders_with_broken_connections() {
    let single_entries = Bounds { single_entries: true, ..Bounds::elections(&[&[1], &[2]]) };
    search(Bounds { proposals: 1, disconnects: 1, ..single_entries });
}

/// Entries that are replaced, and terms that end, before anybody asks what there is to do.
#[test]
fn a_change_of_leaders_with_batches() {
    search(Bounds { inputs_max: 2, ..Bounds::elections(&[&[1], &[2]]) });
}

#[test]
fn a_change_of_leaders_with_reads() {
    search(Bounds { reads: 1, heartbeats: true, ..Bounds::elections(&[&[1], &[2]]) });
}

/// Three members are enough for it, and no commands: the no-ops of two leaders that take turns are
/// what is replaced.
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
            let shortest = Search::run(&bounds, Order::FewestInputs).err();
            panic!("{}\n{bounds:?}", shortest.unwrap_or(first));
        }
    };
    eprintln!("{bounds:?}\n    {report}, in {:.1} s", start.elapsed().as_secs_f64());
    let mut committed = report.histories.iter().flat_map(|history| &history.committed);
    assert!(committed.any(|(_, term)| *term == bounds.last_term()), "the last term is reached");
}
