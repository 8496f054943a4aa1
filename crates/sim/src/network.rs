//! The network between members: when a message arrives, if it does.

use crate::chance::Chance;
use crate::fault::{Fault, Tally};
use crate::weather::{Micros, SECOND, Weather};
use raft::NodeId;
use std::collections::BTreeMap;

/// A direction between two members.
pub type Link = (NodeId, NodeId);

/// The network between members.
#[derive(Debug)]
pub struct Network {
    chance: Chance,
    delay: Micros,
    /// Chances in a thousand.
    loss: u64,
    copies: u64,
    long_delays: u64,
    stale_copies: u64,
    reordering: bool,
    /// Links that carry nothing, each with the cuts that say so, by number.
    cuts: BTreeMap<u64, Vec<Link>>,
    /// Links that carry nothing until a moment, and then all at once.
    clogs: BTreeMap<Link, Micros>,
    /// When the last message of each link arrives: what is sent later arrives later, unless
    /// messages overtake each other.
    last: BTreeMap<Link, Micros>,
    /// What was sent until then on a link is lost, unless it has arrived.
    resets: BTreeMap<Link, Micros>,
}

impl Network {
    /// The network of this weather.
    pub fn new(weather: &Weather, chance: Chance) -> Network {
        Network {
            chance,
            delay: weather.delay,
            loss: weather.rate(Fault::Loss),
            copies: weather.rate(Fault::Copies),
            long_delays: weather.rate(Fault::LongDelays),
            stale_copies: weather.rate(Fault::StaleCopies),
            reordering: weather.rate(Fault::Reordering) > 0,
            cuts: BTreeMap::new(),
            clogs: BTreeMap::new(),
            last: BTreeMap::new(),
            resets: BTreeMap::new(),
        }
    }

    /// When a message sent now arrives: at no, one or several moments.
    pub fn arrivals(&mut self, now: Micros, link: Link, faults: &mut Tally) -> Vec<Micros> {
        if self.is_cut(link) {
            return Vec::new();
        }
        let mut arrivals = Vec::new();
        if self.chance.per_mille(self.loss) {
            faults.count(Fault::Loss);
        } else {
            arrivals.push(self.arrival(now, link, faults));
        }
        if self.chance.per_mille(self.copies) {
            faults.count(Fault::Copies);
            arrivals.push(self.arrival(now, link, faults));
        }
        if self.chance.per_mille(self.stale_copies) {
            faults.count(Fault::StaleCopies);
            arrivals.push(now + self.chance.around(3 * SECOND));
        }
        arrivals
    }

    fn arrival(&mut self, now: Micros, link: Link, faults: &mut Tally) -> Micros {
        let mut at = now + 1 + self.delay / 2 + self.chance.around(self.delay);
        if self.chance.per_mille(self.long_delays) {
            faults.count(Fault::LongDelays);
            at += self.chance.heavy_tailed(8 * self.delay, 5 * SECOND);
        }
        at = at.max(self.clogs.get(&link).copied().unwrap_or(0));
        let last = self.last.entry(link).or_default();
        if at < *last && self.reordering {
            faults.count(Fault::Reordering);
            return at;
        }
        at = at.max(*last);
        *last = at;
        at
    }

    /// Whether nothing gets through.
    pub fn is_cut(&self, link: Link) -> bool {
        self.cuts.values().any(|links| links.contains(&link))
    }

    /// Lets these links carry nothing, until [`Network::mend`] with the same number.
    pub fn cut(&mut self, number: u64, links: Vec<Link>) {
        self.cuts.insert(number, links);
    }

    /// Ends a cut.
    pub fn mend(&mut self, number: u64) {
        self.cuts.remove(&number);
    }

    /// Loses what is under way.
    pub fn reset(&mut self, link: Link, now: Micros) {
        self.resets.insert(link, now);
    }

    /// Whether a message that was sent then was lost with its connection.
    pub fn is_lost(&self, link: Link, sent: Micros) -> bool {
        self.resets.get(&link).is_some_and(|reset| sent <= *reset)
    }

    /// Lets a link keep what it is given until a moment.
    pub fn clog(&mut self, link: Link, until: Micros) {
        self.clogs.insert(link, until);
    }

    /// From now on everything arrives, once and soon, but for the links that stay cut.
    pub fn calm(&mut self, cut: Vec<Link>) {
        (self.loss, self.copies, self.long_delays, self.stale_copies) = (0, 0, 0, 0);
        self.reordering = false;
        self.cuts = BTreeMap::from([(u64::MAX, cut)]);
        self.clogs.clear();
        self.last.clear();
    }
}
