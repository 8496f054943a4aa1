//! What no member can see: who won which term, and what was committed. A state of the cluster
//! includes its history, and the rules that take more than one member to break are checked on it.

use crate::catalogue::{Known, Numbered};
use crate::member::Input;
use raft::*;
use std::collections::BTreeMap;

#[derive(Clone, Default, PartialEq, Eq, Hash)]
pub struct History {
    /// Who won each term, and its log at that moment.
    leaders: BTreeMap<Term, (NodeId, Vec<Entry>)>,
    /// What was applied anywhere, and the term of the member that was first.
    pub committed: Vec<(Entry, Term)>,
    /// How much that was when each read was asked for.
    pub reads: Vec<Index>,
    pub proposals: usize,
    pub crashes: usize,
    pub disconnects: usize,
}

/// A rule that was broken, and how.
pub type Broken = String;

impl History {
    /// Counts an input.
    pub fn count(&mut self, input: Numbered) {
        match input {
            Input::Propose => self.proposals += 1,
            Input::Read(_) => self.reads.push(Index(self.committed.len() as u64)),
            Input::Disconnect(_) => self.disconnects += 1,
            Input::Crash { .. } => self.crashes += 1,
            _ => {}
        }
    }

    /// A member won its term. Election safety (section 5.2), and leader completeness (section 5.4)
    /// for what was committed before.
    pub fn elected(&mut self, member: &Known) -> Result<(), Broken> {
        let Known { id, term, log, .. } = member;
        if let Some((first, _)) = self.leaders.insert(*term, (*id, log.clone())) {
            return Err(format!("a term is won once: n{first} won {term}, and now n{id}"));
        }
        // Late votes can make a leader of a term that a quorum has left, and it need not hold what
        // was committed since: nobody will follow it.
        for (entry, _) in self.committed.iter().filter(|(_, committed_in)| committed_in < term) {
            expect_in(log, entry, *id, *term)?;
        }
        Ok(())
    }

    /// A member applied an entry. State machine safety (section 5.4.3), and leader completeness for
    /// those elected before.
    pub fn applied(&mut self, member: &Known, entry: &Entry) -> Result<(), Broken> {
        let at = entry.at;
        match self.committed.get(at.index.prev().0 as usize) {
            Some((first, _)) if first == entry => return Ok(()),
            Some((first, _)) => return Err(format!("all apply the same: {}, now {at}", first.at)),
            None => {}
        }
        for (term, (id, log)) in self.leaders.range(member.term.next()..) {
            expect_in(log, entry, *id, *term)?;
        }
        self.committed.push((entry.clone(), member.term));
        Ok(())
    }

    /// A read was confirmed. It sees all that was applied anywhere before it was asked for.
    pub fn read(&self, read: &ReadReady) -> Result<(), Broken> {
        let before = self.reads[read.id.0 as usize];
        if read.index < before {
            let seen = read.index;
            return Err(format!("a read sees what was applied before it: {before}, not {seen}"));
        }
        Ok(())
    }

    /// What must hold of all members together.
    pub fn check(&self, members: [&Known; 3]) -> Result<(), Broken> {
        for (entry, _) in &self.committed {
            let holders = members.iter().filter(|member| holds(&member.disk, entry)).count();
            if holders < 2 {
                return Err(format!("a quorum has on disk what is committed: {}", entry.at));
            }
        }
        for (a, b) in [(0, 1), (0, 2), (1, 2)] {
            // Log matching (section 5.3): logs that have parted never meet again.
            let both = members[a].log.iter().zip(&members[b].log);
            let parted = both.skip_while(|(a, b)| a == b);
            if let Some((entry, _)) = parted.into_iter().find(|(a, b)| a.at == b.at) {
                return Err(format!("logs are equal up to what both hold: {}", entry.at));
            }
        }
        Ok(())
    }
}

fn expect_in(log: &[Entry], entry: &Entry, id: NodeId, term: Term) -> Result<(), Broken> {
    if !holds(log, entry) {
        return Err(format!("a leader holds what is committed: n{id}@{term} lacks {}", entry.at));
    }
    Ok(())
}

fn holds(log: &[Entry], entry: &Entry) -> bool {
    log.get(entry.at.index.prev().0 as usize) == Some(entry)
}
