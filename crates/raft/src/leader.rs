//! A leader: appends, replicates, commits what a quorum holds, confirms reads, hands over.

use crate::admissions::{Incarnation, encode_admission};
use crate::entry::{Entry, EntryKind, Index, NodeId, Position};
use crate::log::Stretch;
use crate::message::Body;
use crate::node::{Core, Next, Refusal};
use crate::progress::Progress;
use crate::reads::{Reads, Waiter};
use crate::ready::{FetchFor, Notice, ReadId, Ticket};
use bytes::Bytes;
use std::collections::BTreeMap;

/// What a leader knows.
#[derive(Clone, Debug, Hash)]
pub(crate) struct Leader {
    /// Each peer's log as far as it is known. Its own is in the log itself: `Log::durable`.
    progress: BTreeMap<NodeId, Progress>,
    reads: Reads,
    transfer: Option<Transfer>,
    /// The first entry of this term.
    opening: Index,
    /// An admission that is not committed yet.
    admitting: Option<Index>,
    /// Ticks since the last heartbeat, and since the last check for a quorum.
    heartbeat_elapsed: u32,
    quorum_elapsed: u32,
    disk: DiskWatch,
}

/// How long our disk has been at its oldest write, and how long it owes what is read back from it, to
/// peers or to our own state machine, while nothing was committed or applied.
#[derive(Clone, Debug, Default, Hash)]
struct DiskWatch {
    oldest: Option<Ticket>,
    elapsed: u32,
    /// What was committed and applied.
    reached: (Index, Index),
    reading_elapsed: u32,
}

/// A hand-over under way.
#[derive(Clone, Debug, Hash)]
struct Transfer {
    to: NodeId,
    elapsed: u32,
    /// The target was told to campaign.
    told: bool,
}

impl Leader {
    /// Opens the term with an entry of its own, an admission if one is due: nothing of earlier terms
    /// can be committed before an entry of this one is (section 5.4.2), and no read may be served
    /// before that (section 8).
    pub(crate) fn new(core: &mut Core) -> Leader {
        let last = core.log.last().index;
        let progress = core.peers().into_iter().map(|id| (id, Progress::new(last))).collect();
        let opening = match core.take_admission_due() {
            Some(admission) => core.append(EntryKind::Admission, encode_admission(&admission)),
            None => core.append(EntryKind::Noop, Bytes::new()),
        };
        let opening = opening.index;
        Leader {
            progress,
            reads: Reads::default(),
            transfer: None,
            opening,
            // Those of earlier leaders, too: whoever saw them committed may be gone.
            admitting: core.log.admissions().last_pending(),
            heartbeat_elapsed: 0,
            quorum_elapsed: 0,
            disk: DiskWatch::default(),
        }
    }

    pub(crate) fn on_tick(&mut self, core: &mut Core) -> Next {
        self.heartbeat_elapsed += 1;
        if self.heartbeat_elapsed >= core.config.heartbeat_ticks {
            self.heartbeat(core);
        }
        if let Some(transfer) = &mut self.transfer {
            transfer.elapsed += 1;
            if transfer.elapsed >= core.config.election_ticks {
                self.transfer = None;
            }
        }
        self.quorum_elapsed += 1;
        if self.quorum_elapsed >= core.config.election_ticks {
            self.quorum_elapsed = 0;
            if let next @ Next::Follow { .. } = self.check_quorum(core) {
                return next;
            }
        }
        self.watch_disk(core)
    }

    /// A leader whose disk is stuck gives way, if somebody's disk is not, or a lagging peer needs what
    /// only the disk holds: others may do better. After an election timeout it hands over to the
    /// peer that holds most; if that has not worked after another one, it steps down.
    fn watch_disk(&mut self, core: &Core) -> Next {
        let (oldest, log) = (core.log.oldest_write(), &core.log);
        let reached = (log.committed(), log.applied());
        let starves = self.progress.values().any(|progress| progress.fetching.is_some());
        let disk = &mut self.disk;
        let is_writing = oldest.is_some() && oldest == disk.oldest;
        disk.elapsed = if is_writing { disk.elapsed + 1 } else { 0 };
        // A leader that takes no more writes has none under way, and still may be of no use.
        let is_reading = (starves || core.is_reading_for_apply()) && reached == disk.reached;
        disk.reading_elapsed = if is_reading { disk.reading_elapsed + 1 } else { 0 };
        (disk.oldest, disk.reached) = (oldest, reached);
        let patience = core.config.election_ticks;
        let elapsed = disk.elapsed.max(disk.reading_elapsed);
        if elapsed < patience {
            return Next::Stay;
        }
        let holds_more = |id: &NodeId| {
            let held = self.matched(*id);
            held > log.durable() || is_reading && held >= log.committed()
        };
        let abler = self.longest(core).filter(holds_more);
        if elapsed >= 2 * patience && (abler.is_some() || starves) {
            return Next::Follow { term: core.hard_state.term, leader: None };
        }
        if let Some(to) = abler.filter(|_| self.transfer.is_none()) {
            self.transfer = Some(Transfer { to, elapsed: 0, told: false });
        }
        Next::Stay
    }

    /// The peer that votes and holds most on its disk; one that is alive, if there is any.
    fn longest(&self, core: &Core) -> Option<NodeId> {
        let voters = self.progress.iter().filter(|(id, _)| core.config.membership.is_voter(**id));
        voters.max_by_key(|(_, progress)| (progress.active, progress.matched())).map(|(id, _)| *id)
    }

    pub(crate) fn propose(
        &mut self,
        core: &mut Core,
        payloads: Vec<Bytes>,
    ) -> Result<Position, Refusal> {
        if self.transfer.is_some() {
            return Err(Refusal::Transferring);
        }
        let first = Position::new(core.hard_state.term, core.log.last().index.next());
        core.reserve(payloads.len());
        for payload in payloads {
            core.append(EntryKind::Command, payload);
        }
        Ok(first)
    }

    pub(crate) fn read(&mut self, core: &Core, id: ReadId) {
        self.reads.wait(Waiter { member: core.config.id, id });
    }

    pub(crate) fn on_read_request(&mut self, from: NodeId, id: ReadId) -> Next {
        self.reads.wait(Waiter { member: from, id });
        Next::Stay
    }

    pub(crate) fn on_appended(
        &mut self,
        core: &mut Core,
        from: NodeId,
        by: Incarnation,
        matched: Index,
    ) -> Next {
        let Some(progress) = self.progress.get_mut(&from) else { return Next::Stay };
        if matched > core.log.last().index {
            return core.drop_nonsense();
        }
        progress.active = true;
        progress.appended(matched, by);
        Next::Stay
    }

    pub(crate) fn on_rejected(
        &mut self,
        core: &mut Core,
        from: NodeId,
        by: Incarnation,
        prev: Index,
        hint: Position,
    ) -> Next {
        let Some(progress) = self.progress.get_mut(&from) else { return Next::Stay };
        progress.active = true;
        if progress.learns_of_loss(prev, by) {
            let acknowledged = progress.matched();
            core.notices.push(Notice::LostEntries { peer: from, acknowledged, lacks: prev });
        }
        // Whole terms are skipped at a time (section 5.3, last part).
        let common = core.log.last_in_common(hint);
        progress.rejected(prev, common.index);
        Next::Stay
    }

    pub(crate) fn on_heartbeat_reply(&mut self, core: &mut Core, from: NodeId, round: u64) -> Next {
        let Some(progress) = self.progress.get_mut(&from) else { return Next::Stay };
        progress.active = true;
        progress.unpause();
        // The last append may be lost, with none after it to show the gap.
        progress.nudge = progress.matched() < core.log.last().index;
        self.confirm_reads(core, from, round);
        Next::Stay
    }

    /// Sends on what a lagging peer was waiting for.
    pub(crate) fn on_fetched(
        &mut self,
        core: &mut Core,
        peer: NodeId,
        from: Index,
        entries: Vec<Entry>,
    ) {
        let Some(progress) = self.progress.get_mut(&peer) else { return };
        if progress.fetching != Some(from) {
            return;
        }
        progress.fetching = None;
        self.disk.reading_elapsed = 0;
        if progress.next() == from && !progress.is_probing() && !entries.is_empty() {
            append(core, progress, peer, entries);
        }
    }

    pub(crate) fn on_contact(&mut self, peer: NodeId) {
        if let Some(progress) = self.progress.get_mut(&peer) {
            progress.active = true;
        }
    }

    pub(crate) fn on_disconnected(&mut self, peer: NodeId) {
        if let Some(progress) = self.progress.get_mut(&peer) {
            progress.reset();
        }
    }

    pub(crate) fn transfer(
        &mut self,
        core: &mut Core,
        to: Option<NodeId>,
    ) -> Result<NodeId, Refusal> {
        let to = to.or_else(|| self.longest(core)).unwrap_or(core.config.id);
        if !self.progress.contains_key(&to) || !core.config.membership.is_voter(to) {
            return Err(Refusal::UnknownPeer(to));
        }
        if self.transfer.as_ref().is_none_or(|transfer| transfer.to != to) {
            self.transfer = Some(Transfer { to, elapsed: 0, told: false });
        }
        Ok(to)
    }

    pub(crate) fn abandon_reads(&mut self, core: &mut Core) {
        // Peers that asked learn of the new term, and ask its leader.
        let me = core.config.id;
        for waiter in self.reads.abandon().filter(|waiter| waiter.member == me) {
            core.read_lost(waiter.id);
        }
    }

    /// Acts on everything that came in since the last time: one append, one commit and one round
    /// of reads, however many inputs there were.
    pub(crate) fn flush(&mut self, core: &mut Core) {
        self.commit(core);
        self.admit(core);
        self.begin_reads(core);
        for (id, progress) in &mut self.progress {
            replicate(core, progress, *id);
            announce_commit(core, progress, *id);
        }
        self.hand_over(core);
    }

    /// Commits what a quorum holds on disk, this member included only if it does.
    fn commit(&mut self, core: &mut Core) {
        let index = self.quorum_index(core);
        // Section 5.4.2: an entry of an earlier term can be on a quorum and still be replaced
        // (figure 8). Counting only our own term's entries is what makes this commit final.
        if index >= self.opening {
            core.log.commit(index);
        }
    }

    /// Admits those who were heard of and are not named by the log yet, one entry after the other.
    fn admit(&mut self, core: &mut Core) {
        let committed = core.log.committed();
        if self.admitting.take_if(|index| *index <= committed).is_some() {
            // Who was admitted counts where that is known to be committed. This entry carries the
            // knowledge to the disks, so that it outlives a restart of those that must count.
            core.append(EntryKind::Noop, Bytes::new());
        }
        let may = self.admitting.is_none() && self.transfer.is_none() && committed >= self.opening;
        if may
            && core.has_heard_of_others()
            && let Some(admission) = core.take_admission_due()
        {
            let at = core.append(EntryKind::Admission, encode_admission(&admission));
            self.admitting = Some(at.index);
        }
    }

    /// The highest index that a quorum holds on disk.
    pub(crate) fn quorum_index(&self, core: &Core) -> Index {
        core.config.membership.quorum_index(|id| self.held(core, id, Progress::counted))
    }

    /// Whether a quorum holds what is up to an index on disk, by a count of what each peer holds.
    pub(crate) fn is_on_quorum(
        &self,
        core: &Core,
        index: Index,
        count: impl Fn(&Progress) -> Index,
    ) -> bool {
        core.config.membership.is_quorum(|id| self.held(core, id, &count) >= index)
    }

    /// What a member holds on disk, this one included.
    fn held(&self, core: &Core, id: NodeId, count: impl Fn(&Progress) -> Index) -> Index {
        match self.progress.get(&id) {
            Some(progress) => count(progress),
            None if core.is_admitted() => core.log.durable(),
            None => Index(0),
        }
    }

    /// The first entry of this term.
    pub(crate) fn opening(&self) -> Index {
        self.opening
    }

    /// Each peer's progress.
    pub(crate) fn progress(&self) -> impl Iterator<Item = (NodeId, &Progress)> {
        self.progress.iter().map(|(id, progress)| (*id, progress))
    }

    /// Begins a round for the reads that wait, unless one is under way. Before something of this
    /// term is committed we do not know what is: earlier leaders may have committed more.
    fn begin_reads(&mut self, core: &mut Core) {
        if self.reads.is_due() && core.log.committed() >= self.opening {
            self.reads.begin(core.log.committed());
            self.heartbeat(core);
            let round = self.reads.round();
            if core.is_admitted() {
                self.confirm_reads(core, core.config.id, round);
            }
        }
    }

    fn confirm_reads(&mut self, core: &mut Core, from: NodeId, round: u64) {
        let confirmed = self.reads.confirm(from, round, &core.config.membership);
        let Some((index, waiters)) = confirmed else { return };
        for Waiter { member, id } in waiters {
            if member == core.config.id {
                core.read_ready(id, index);
            } else {
                core.send(member, Body::ReadReply { id, index });
            }
        }
    }

    fn heartbeat(&mut self, core: &mut Core) {
        self.heartbeat_elapsed = 0;
        let round = self.reads.round();
        for (id, progress) in &self.progress {
            // No further than what the peer is known to hold: it may hold something else beyond. While
            // it is probed that is nothing: its disk may have lost what it acknowledged, and hold in
            // its place what was replaced.
            let held = if progress.is_probing() { Index(0) } else { progress.matched() };
            let commit = core.log.committed().min(held);
            core.send(*id, Body::Heartbeat { commit, round });
        }
    }

    /// Steps down if no quorum was heard of since the last check: another leader may be elected,
    /// and clients should look for it.
    fn check_quorum(&mut self, core: &Core) -> Next {
        let active = |id| match self.progress.get(&id) {
            Some(progress) => progress.active,
            None => true,
        };
        let quorum = core.config.membership.is_quorum(active);
        for progress in self.progress.values_mut() {
            progress.active = false;
        }
        if core.config.check_quorum && !quorum {
            return Next::Follow { term: core.hard_state.term, leader: None };
        }
        Next::Stay
    }

    fn matched(&self, peer: NodeId) -> Index {
        self.progress.get(&peer).map(Progress::matched).unwrap_or_default()
    }

    /// Tells the target of a hand-over to campaign, once it holds the whole log.
    fn hand_over(&mut self, core: &mut Core) {
        let Some(transfer) = &mut self.transfer else { return };
        let matched = self.progress.get(&transfer.to).map(Progress::matched);
        if !transfer.told && matched == Some(core.log.last().index) {
            transfer.told = true;
            core.send(transfer.to, Body::TimeoutNow);
        }
    }
}

/// Sends a peer what it lacks, as far as it may be sent now.
fn replicate(core: &mut Core, progress: &mut Progress, peer: NodeId) {
    let last = core.log.last().index;
    while progress.may_send(core.config.inflight_bytes_max) {
        let next = progress.next();
        if next > last && !progress.is_probing() {
            break;
        }
        match core.log.stretch(next, last, core.config.append_bytes_max) {
            Stretch::Entries(entries) => append(core, progress, peer, entries),
            // First find out where the logs part; then read from disk.
            Stretch::OnDisk(_) if progress.is_probing() => {
                append(core, progress, peer, Vec::new());
            }
            Stretch::OnDisk(to) => {
                progress.fetching = Some(next);
                core.fetch(FetchFor::Peer(peer), next, to);
            }
        }
    }
    if progress.nudge && !progress.is_probing() {
        append(core, progress, peer, Vec::new());
    }
}

fn append(core: &mut Core, progress: &mut Progress, peer: NodeId, entries: Vec<Entry>) {
    let prev = core.log.position(progress.next().prev()).expect("what is next follows the log");
    let last = entries.last().map_or(prev.index, |entry| entry.at.index);
    let bytes = entries.iter().map(Entry::bytes).sum();
    let commit = core.log.committed();
    progress.sent(last, bytes, commit);
    core.send(peer, Body::Append { prev, entries, commit });
}

/// Tells a peer that what it holds is committed, if no append will.
fn announce_commit(core: &mut Core, progress: &mut Progress, peer: NodeId) {
    let commit = core.log.committed().min(progress.matched());
    if !progress.is_probing() && commit > progress.told {
        progress.told = commit;
        core.send(peer, Body::Commit { commit });
    }
}
