//! What happens when: the only clock there is.

use crate::weather::Micros;
use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// Events, by time; those of one moment in the order in which they were put here.
#[derive(Debug)]
pub struct Agenda<E> {
    now: Micros,
    number: u64,
    items: BinaryHeap<Reverse<Item<E>>>,
}

#[derive(Debug)]
struct Item<E> {
    at: Micros,
    number: u64,
    event: E,
}

impl<E> Agenda<E> {
    /// Nothing will happen, and it is the beginning of time.
    pub fn new() -> Agenda<E> {
        Agenda { now: 0, number: 0, items: BinaryHeap::new() }
    }

    /// The time of the last event taken.
    pub fn now(&self) -> Micros {
        self.now
    }

    /// How many events were taken or are to come.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// Lets something happen after a while.
    pub fn add(&mut self, after: Micros, event: E) {
        self.add_at(self.now + after, event);
    }

    /// Lets something happen at a moment, now at the earliest.
    pub fn add_at(&mut self, at: Micros, event: E) {
        self.number += 1;
        let (at, number) = (at.max(self.now), self.number);
        self.items.push(Reverse(Item { at, number, event }));
    }

    /// The next event, if there is one until then. Time goes on to it, or to then.
    pub fn next_until(&mut self, end: Micros) -> Option<E> {
        if self.items.peek().is_none_or(|Reverse(item)| item.at > end) {
            self.now = self.now.max(end);
            return None;
        }
        let Reverse(item) = self.items.pop()?;
        self.now = item.at;
        Some(item.event)
    }
}

impl<E> Default for Agenda<E> {
    fn default() -> Agenda<E> {
        Agenda::new()
    }
}

impl<E> PartialEq for Item<E> {
    fn eq(&self, other: &Item<E>) -> bool {
        (self.at, self.number) == (other.at, other.number)
    }
}

impl<E> Eq for Item<E> {}

impl<E> PartialOrd for Item<E> {
    fn partial_cmp(&self, other: &Item<E>) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl<E> Ord for Item<E> {
    fn cmp(&self, other: &Item<E>) -> std::cmp::Ordering {
        (self.at, self.number).cmp(&(other.at, other.number))
    }
}
