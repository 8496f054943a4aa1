//! Reads that must see what is current: what waits for a confirmation, and for an index.

use crate::input::RequestId;
use raft::{Index, ReadId, ReadReady};
use std::collections::{BTreeMap, BTreeSet};

/// A read, and the tick after which nobody waits for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Waiter {
    request: RequestId,
    deadline: u64,
}

/// All reads of this member. One confirmation is under way at a time; those that arrive meanwhile
/// share the next one.
#[derive(Debug, Default)]
pub(crate) struct Reads {
    last_id: u64,
    waiting: Vec<Waiter>,
    asked: Option<(ReadId, Vec<Waiter>)>,
    /// Confirmed, but not applied that far yet.
    confirmed: BTreeMap<Index, Vec<Waiter>>,
}

impl Reads {
    pub(crate) fn push(&mut self, request: RequestId, deadline: u64) {
        self.waiting.push(Waiter { request, deadline });
    }

    /// A new id, if there is anything to ask for.
    pub(crate) fn next_to_ask(&mut self) -> Option<ReadId> {
        if self.asked.is_some() || self.waiting.is_empty() {
            return None;
        }
        self.last_id += 1;
        Some(ReadId(self.last_id))
    }

    /// All that wait were asked for under this id.
    pub(crate) fn asked(&mut self, id: ReadId) {
        self.asked = Some((id, std::mem::take(&mut self.waiting)));
    }

    /// A confirmation came in.
    pub(crate) fn confirmed(&mut self, ready: ReadReady) {
        if let Some((_, waiters)) = self.asked.take_if(|(id, _)| *id == ready.id) {
            self.confirmed.entry(ready.index).or_default().extend(waiters);
        }
    }

    /// It will never come: ask again, ahead of those that came later.
    pub(crate) fn lost(&mut self, lost: ReadId) {
        if let Some((_, mut waiters)) = self.asked.take_if(|(id, _)| *id == lost) {
            waiters.append(&mut self.waiting);
            self.waiting = waiters;
        }
    }

    /// Those that may be served now.
    pub(crate) fn take_served(
        &mut self,
        applied: Index,
    ) -> impl Iterator<Item = RequestId> + use<> {
        let later = self.confirmed.split_off(&applied.next());
        let served = std::mem::replace(&mut self.confirmed, later);
        served.into_values().flatten().map(|waiter| waiter.request)
    }

    /// Those that waited too long.
    pub(crate) fn take_expired(&mut self, now: u64) -> Vec<RequestId> {
        self.take_if(|waiter| waiter.deadline <= now)
    }

    pub(crate) fn cancel(&mut self, requests: &BTreeSet<RequestId>) {
        self.take_if(|waiter| requests.contains(&waiter.request));
    }

    pub(crate) fn len(&self) -> usize {
        let asked = self.asked.as_ref().map_or(0, |(_, waiters)| waiters.len());
        self.waiting.len() + asked + self.confirmed.values().map(Vec::len).sum::<usize>()
    }

    fn take_if(&mut self, is_over: impl Fn(&Waiter) -> bool) -> Vec<RequestId> {
        let mut over = Vec::new();
        let asked = self.asked.iter_mut().map(|(_, waiters)| waiters);
        for list in asked.chain(self.confirmed.values_mut()).chain([&mut self.waiting]) {
            over.extend(list.extract_if(.., |waiter| is_over(waiter)).map(|w| w.request));
        }
        over
    }
}
