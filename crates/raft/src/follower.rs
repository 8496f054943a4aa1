//! A follower: heeds the leader of its term, and loses patience when there is none.

use crate::entry::{Entry, Index, NodeId, Position};
use crate::message::Body;
use crate::node::{Config, Core, Next, Refusal};
use crate::ready::ReadId;
use std::collections::BTreeMap;
use std::hash::{Hash, Hasher};

/// What a follower knows.
#[derive(Clone, Debug)]
pub(crate) struct Follower {
    /// The leader of this term, once it has spoken.
    leader: Option<NodeId>,
    /// Ticks since the leader spoke, or since a vote was granted.
    elapsed: u32,
    /// It campaigns when `elapsed` reaches this.
    patience: u32,
    /// Or this, which is sooner, since the connection to the leader broke.
    patience_unconnected: Option<u32>,
    /// Reads that the leader was asked to confirm, by token.
    reads: BTreeMap<ReadId, Asked>,
}

/// A read on its way.
#[derive(Clone, Copy, Debug, Hash)]
struct Asked {
    id: ReadId,
    ticks: u32,
}

/// See [`crate::Node`].
impl Hash for Follower {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let Follower { leader, elapsed, patience: _, patience_unconnected, reads } = self;
        (leader, patience_unconnected.is_some(), elapsed, reads).hash(state);
    }
}

impl Follower {
    pub(crate) fn new(core: &mut Core, leader: Option<NodeId>) -> Follower {
        let range = core.config.election_ticks;
        let patience = range + core.draw_ticks(range);
        Follower {
            leader,
            elapsed: 0,
            patience,
            patience_unconnected: None,
            reads: BTreeMap::new(),
        }
    }

    /// The same in a later term, in which nobody is known to lead. It goes on waiting where it was:
    /// only a leader and a candidate that it votes for are worth more patience (section 5.2). Else
    /// somebody who campaigns often and cannot win, because its log or its disk is behind, would
    /// keep the others from ever campaigning.
    pub(crate) fn leaderless(&self) -> Follower {
        let Follower { elapsed, patience, patience_unconnected, .. } = *self;
        Follower { leader: None, elapsed, patience, patience_unconnected, reads: BTreeMap::new() }
    }

    pub(crate) fn leader(&self) -> Option<NodeId> {
        self.leader
    }

    /// Whether the leader spoke within the shortest time in which anybody could lose patience.
    pub(crate) fn hears_leader(&self, core: &Core) -> bool {
        self.leader.is_some()
            && self.patience_unconnected.is_none()
            && self.elapsed < core.config.election_ticks
    }

    pub(crate) fn on_tick(&mut self, core: &mut Core) -> Next {
        self.elapsed += 1;
        let patience = self.patience_unconnected.unwrap_or(self.patience);
        if self.elapsed >= patience && core.may_campaign() {
            return if core.config.pre_vote {
                Next::PreCampaign
            } else {
                Next::Campaign { transfer: false }
            };
        }
        self.ask_again(core);
        Next::Stay
    }

    pub(crate) fn on_append(
        &mut self,
        core: &mut Core,
        from: NodeId,
        prev: Position,
        entries: Vec<Entry>,
        commit: Index,
    ) -> Next {
        self.heed(from);
        if !core.log.contains(prev) {
            if prev.index <= core.log.committed() {
                return core.drop_nonsense();
            }
            let hint = core.log.last_in_common(prev);
            core.send(from, Body::Rejected { prev: prev.index, hint });
            return Next::Stay;
        }
        let matched = Index(prev.index.0 + entries.len() as u64);
        if !core.splice(entries) {
            return core.drop_nonsense();
        }
        // Only up to `matched` do we know that our log is the leader's: what we hold beyond may
        // be of another leader, and must not be committed by this one's word.
        core.log.commit(commit.min(matched));
        core.promise(from, Body::Appended { matched });
        Next::Stay
    }

    pub(crate) fn on_heartbeat(
        &mut self,
        core: &mut Core,
        from: NodeId,
        commit: Index,
        round: u64,
    ) -> Next {
        self.heed(from);
        core.log.commit(commit);
        // It says who leads at this moment, and claims nothing about our disk: no reader waits
        // for a sync.
        core.send(from, Body::HeartbeatReply { round });
        Next::Stay
    }

    pub(crate) fn on_commit(&mut self, core: &mut Core, from: NodeId, commit: Index) -> Next {
        self.heed(from);
        core.log.commit(commit);
        Next::Stay
    }

    /// Asks the leader to confirm a read.
    pub(crate) fn read(&mut self, core: &mut Core, id: ReadId) -> Result<(), Refusal> {
        let leader = self.leader.ok_or(Refusal::NoLeader)?;
        self.ask(core, leader, id);
        Ok(())
    }

    pub(crate) fn on_read_reply(&mut self, core: &mut Core, token: ReadId, index: Index) -> Next {
        if let Some(asked) = self.reads.remove(&token) {
            core.read_ready(asked.id, index);
        }
        Next::Stay
    }

    pub(crate) fn on_timeout_now(&mut self, core: &mut Core, from: NodeId) -> Next {
        if self.leader != Some(from) || !core.is_voter() {
            return Next::Stay;
        }
        Next::Campaign { transfer: true }
    }

    /// The connection broke: a leader that lives will be heard of again soon. Without pre-vote a
    /// wrong guess would unseat it.
    pub(crate) fn on_disconnected(&mut self, core: &Core, peer: NodeId) {
        if self.leader != Some(peer) || !core.config.pre_vote {
            return;
        }
        // In turn, by id: those that lose a leader lose it at once, and two that asked at once
        // could split the vote, and would wait for an election timeout. In a turn there is time
        // for an answer: who campaigns refuses those whose turn comes later. The first turn is the
        // leader's: if it lives, it is connected again.
        let Config { id, election_ticks, membership, .. } = &core.config;
        let earlier = membership.voters().filter(|voter| voter < id && *voter != peer).count();
        let turn = (election_ticks / 20).max(1);
        let soon = turn * (1 + earlier as u32);
        let sooner = self.patience.min(self.elapsed.saturating_add(soon));
        self.patience_unconnected.get_or_insert(sooner);
    }

    /// There is a new connection: its process lives. If that is not the leader's any more, silence
    /// will tell.
    pub(crate) fn on_connected(&mut self, peer: NodeId) {
        if self.leader == Some(peer) {
            self.patience_unconnected = None;
        }
    }

    /// A part of a long message arrived. If it is the leader's, it is heard; and told that we are,
    /// for our acknowledgement may be as long in coming. No round has the number 0.
    pub(crate) fn on_contact(&mut self, core: &mut Core, peer: NodeId) {
        if self.leader == Some(peer) {
            self.heed(peer);
            core.send(peer, Body::HeartbeatReply { round: 0 });
        }
    }

    pub(crate) fn abandon_reads(&mut self, core: &mut Core) {
        for asked in std::mem::take(&mut self.reads).into_values() {
            core.read_lost(asked.id);
        }
    }

    /// Accepts the leader of this term, and starts to wait anew, as long as at first: it is heard
    /// again, whatever became of an earlier connection.
    fn heed(&mut self, from: NodeId) {
        self.elapsed = 0;
        self.patience_unconnected = None;
        self.leader = Some(from);
    }

    /// Every attempt gets a token of its own: a late answer to an earlier one, perhaps from
    /// before our restart, must not confirm it.
    fn ask(&mut self, core: &mut Core, leader: NodeId, id: ReadId) {
        let token = ReadId(core.draw());
        self.reads.insert(token, Asked { id, ticks: 0 });
        core.send(leader, Body::ReadRequest { id: token });
    }

    /// Asks again for what got no answer within a heartbeat's time.
    fn ask_again(&mut self, core: &mut Core) {
        let Some(leader) = self.leader else { return };
        let mut overdue = Vec::new();
        self.reads.retain(|_, asked| {
            asked.ticks += 1;
            let late = asked.ticks > core.config.heartbeat_ticks;
            if late {
                overdue.push(asked.id);
            }
            !late
        });
        for id in overdue {
            self.ask(core, leader, id);
        }
    }
}
