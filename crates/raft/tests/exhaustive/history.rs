//! What no member can see: who won which term, and what was committed. Every state of the cluster
//! comes with its history; the rules that take more than one member to break are checked on it.

use crate::catalogue::{Known, Numbered};
use crate::member::Input;
use raft::*;
use std::collections::BTreeMap;

#[derive(Clone, Default, PartialEq, Eq, Hash)]
pub struct History {
    /// Who won each term, and its log at that moment.
    pub leaders: BTreeMap<Term, (NodeId, Vec<Entry>)>,
    /// What was applied anywhere, and the term in which it was first.
    pub committed: Vec<(Entry, Term)>,
    /// How far that was when each read was asked for.
    pub reads: Vec<Index>,
    pub proposals: usize,
    pub crashes: usize,
    pub disconnects: usize,
}

/// A rule that was broken, and how.
pub type Broken = String;

impl History {
    /// Election safety (section 5.2), and leader completeness (section 5.4) towards what was
    /// committed before.
    pub fn elected(&mut self, member: &Known) -> Result<(), Broken> {
        let Known { id, term, log, .. } = member;
        if let Some((first, _)) = self.leaders.insert(*term, (*id, log.clone())) {
            return Err(format!("one leader in a term: n{first} won {term}, and now n{id}"));
        }
        // Votes may come late, and their candidate win a term that others have left. What they
        // committed since then is not its business: nobody will follow it.
        for (entry, _) in self.committed.iter().filter(|(_, committed)| committed < term) {
            expect_in(log, entry, *id, *term)?;
        }
        Ok(())
    }

    /// State machine safety (section 5.4.3), and leader completeness of those elected before.
    pub fn applied(&mut self, member: &Known, entry: &Entry) -> Result<(), Broken> {
        if let Some((first, _)) = self.committed.get(entry.at.index.prev().0 as usize) {
            let same = first == entry;
            let (first, now) = (first.at, entry.at);
            return same.then_some(()).ok_or(format!("all apply the same: {first}, not {now}"));
        }
        for (term, (id, log)) in self.leaders.range(member.term.next()..) {
            expect_in(log, entry, *id, *term)?;
        }
        self.committed.push((entry.clone(), member.term));
        Ok(())
    }

    /// Linearizability: a read sees all that was applied anywhere before it was asked for.
    pub fn read(&self, read: &ReadReady) -> Result<(), Broken> {
        let ReadReady { id, index } = read;
        let floor = self.reads[id.0 as usize];
        let seen = *index >= floor;
        seen.then_some(())
            .ok_or(format!("a read sees what was applied: up to {floor}, not {index}"))
    }

    pub fn count(&mut self, input: Numbered) {
        match input {
            Input::Propose => self.proposals += 1,
            Input::Read(_) => self.reads.push(Index(self.committed.len() as u64)),
            Input::Disconnect(_) => self.disconnects += 1,
            Input::Crash { .. } => self.crashes += 1,
            _ => {}
        }
    }

    /// What must hold of all members together.
    pub fn check(&self, members: [&Known; 3]) -> Result<(), Broken> {
        for (entry, _) in &self.committed {
            let holders = members.iter().filter(|member| holds(&member.disk, entry));
            if holders.count() < 2 {
                return Err(format!("a quorum has on disk what is committed: {}", entry.at));
            }
        }
        for (a, b) in [(0, 1), (0, 2), (1, 2)] {
            // Log matching (section 5.3): where logs have parted they never meet again.
            let both = members[a].log.iter().zip(&members[b].log);
            if let Some((entry, _)) = both.skip_while(|(a, b)| a == b).find(|(a, b)| a.at == b.at) {
                return Err(format!("logs are equal up to what both hold: {}", entry.at));
            }
        }
        Ok(())
    }
}

fn expect_in(log: &[Entry], entry: &Entry, id: NodeId, term: Term) -> Result<(), Broken> {
    let at = entry.at;
    let text = || format!("a leader holds what is committed: n{id}@{term} lacks {at}");
    holds(log, entry).then_some(()).ok_or_else(text)
}

fn holds(log: &[Entry], entry: &Entry) -> bool {
    log.get(entry.at.index.prev().0 as usize) == Some(entry)
}
