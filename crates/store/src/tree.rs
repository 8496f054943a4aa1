//! The newest version of every key, ordered by key, in a copy-on-write B+tree.
//!
//! The nodes are reference-counted. A clone of the tree is a clone of its root: O(1), and it never
//! changes again, because the writer changes a node in place only while it alone holds it and
//! copies it otherwise. Each branch knows how many *live* keys (whose newest version is not a
//! tombstone) lie under each child, so a range of live keys is counted on two paths.
//!
//! A leaf has numbers alone, so that a copy of it touches no other memory: where in the [`Log`] the
//! newest version of a key is, which also holds the key, and the key's *head*: eight bytes after
//! those that all keys share which can be in the leaf. Most searches look at the one key they end at.

use std::cmp::Ordering;
use std::ops::ControlFlow;
use std::sync::Arc;

use crate::log::Log;
use crate::record::Address;
use crate::view::Span;

/// Slots of a leaf. A copied leaf costs little; unit tests use a tiny one to see many levels.
const LEAF_MAX: usize = if cfg!(test) { 4 } else { 54 };
/// Children of a branch: few, because a copy of it counts a reference to each.
const BRANCH_MAX: usize = if cfg!(test) { 4 } else { 16 };

/// What a copy of a branch counts as: a reference to each child and to each separator is counted, in
/// memory of its own.
const BRANCH_BYTES: usize = BRANCH_MAX * 2 * 64;
/// What looking at a record counts as: some lines of memory, one here and there.
pub(crate) const RECORD_BYTES: usize = 512;
/// Separators longer than this are held no longer than keys that need them.
const LONG: usize = if cfg!(test) { 4 } else { 64 };

/// So many records are asked for at once where many are looked at, so that the memory of one is
/// waited for while that of the others is.
pub(crate) const AHEAD: usize = 8;

/// Where the newest version of a key is in the log, and whether it is live.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Newest(u64);

/// See the module.
#[derive(Clone, Debug)]
pub(crate) struct Tree {
    root: Node,
    /// How many keys there are, tombstones included.
    keys: u64,
    /// Bytes of separators, as they are [`counted`].
    separator_bytes: u64,
}

#[derive(Clone, Debug)]
enum Node {
    Leaf(Arc<Leaf>),
    Branch(Arc<Branch>),
}

/// Never empty, but for the root.
#[derive(Clone, Debug)]
struct Leaf {
    /// How many bytes all keys share that can be here.
    shared: usize,
    len: usize,
    slots: [Slot; LEAF_MAX],
}

#[derive(Clone, Copy, Debug, Default)]
struct Slot {
    head: u64,
    newest: Newest,
}

/// At least two children, but for the time until its own parent has joined it.
#[derive(Clone, Debug)]
struct Branch {
    /// How many bytes all keys share that can be here.
    shared: usize,
    /// One less than children: all keys under child i are less than `separators[i]`, those under
    /// child i + 1 are not. Shared between copies: they change only when children come or go.
    separators: Arc<[Separator]>,
    children: Vec<Child>,
}

#[derive(Clone, Debug)]
struct Separator {
    head: u64,
    key: Arc<[u8]>,
}

#[derive(Clone, Debug)]
struct Child {
    node: Node,
    /// Live keys under it.
    live: u64,
}

/// What keys can be under a node: from the first up to but without the second.
#[derive(Clone, Copy)]
struct Bounds<'a> {
    lower: Option<&'a [u8]>,
    upper: Option<&'a [u8]>,
}

/// The part of a node that went to a new one behind it, and what stands between the two.
type Split = Option<(Arc<[u8]>, Node)>;

/// What happened below when a key was put.
struct Placed {
    before: Option<Newest>,
    split: Split,
    /// Bytes of a separator that there was not before, as they are counted.
    separator_bytes: u64,
}

/// What happened below when a key was taken out.
struct Removed {
    /// Whether too little is left of the node.
    is_small: bool,
    /// Bytes of separators that there were not before, as they are counted.
    separators_made: u64,
    /// Bytes of those that there were.
    separators_gone: u64,
    /// Bytes of nodes that were copied or made anew, as they are counted for [`Tree::remove`].
    moved: usize,
}

#[derive(Clone, Copy)]
enum Side {
    First,
    Last,
}

impl Newest {
    pub(crate) fn new(at: Address, is_live: bool) -> Newest {
        Newest(at.0 << 1 | u64::from(is_live))
    }

    pub(crate) fn at(self) -> Address {
        Address(self.0 >> 1)
    }

    pub(crate) fn is_live(self) -> bool {
        self.0 & 1 == 1
    }
}

impl Default for Tree {
    fn default() -> Tree {
        Tree { root: Node::Leaf(Arc::new(Leaf::new(0, &[]))), keys: 0, separator_bytes: 0 }
    }
}

impl Tree {
    /// How many keys are live.
    pub(crate) fn live(&self) -> u64 {
        self.root.live()
    }

    /// How many keys there are, those included whose newest version is a tombstone.
    pub(crate) fn keys(&self) -> u64 {
        self.keys
    }

    /// Bytes of all separators that are long.
    pub(crate) fn separator_bytes(&self) -> u64 {
        self.separator_bytes
    }

    /// The newest version of a key.
    pub(crate) fn get(&self, log: &Log, key: &[u8]) -> Option<Newest> {
        let mut node = &self.root;
        loop {
            match node {
                Node::Leaf(leaf) => {
                    return leaf.search(log, key).ok().map(|at| leaf.slots[at].newest);
                }
                Node::Branch(branch) => node = &branch.children[branch.child_of(key)].node,
            }
        }
    }

    /// Says where the newest version of a key is, which the log need not have yet. Returns what was
    /// the newest before.
    pub(crate) fn put(&mut self, log: &Log, key: &[u8], newest: Newest) -> Option<Newest> {
        let bounds = Bounds { lower: None, upper: None };
        let placed = self.root.put(log, key, newest, bounds);
        if let Some((separator, right)) = placed.split {
            let children = vec![Child::of(self.root.clone()), Child::of(right)];
            self.root = Node::Branch(Arc::new(Branch::new(bounds, vec![separator], children)));
        }
        self.keys += u64::from(placed.before.is_none());
        self.separator_bytes += placed.separator_bytes;
        placed.before
    }

    /// Has a tombstone made for each live key of the span, in order, which becomes its newest
    /// version. No key is searched for. Returns how many there were.
    pub(crate) fn delete_live(
        &mut self,
        log: &mut Log,
        span: &Span<'_>,
        tombstone: &mut dyn FnMut(&mut Log, Newest) -> Address,
    ) -> u64 {
        match *span {
            Span::From(from, to) => self.root.delete_live(log, Some(from), to, tombstone),
            Span::One(key) => {
                let live = self.get(log, key).filter(|newest| newest.is_live());
                let Some(newest) = live else { return 0 };
                let newest = Newest::new(tombstone(log, newest), false);
                self.put(log, key, newest);
                1
            }
        }
    }

    /// Takes a key out. Returns how many bytes of memory that moved.
    pub(crate) fn remove(&mut self, log: &Log, key: &[u8]) -> usize {
        let Some(needed) = self.separators_beside(log, key) else { return 0 };
        self.keys -= 1;
        let everything = Bounds { lower: None, upper: None };
        let removed = self.root.remove(log, key, everything);
        self.separator_bytes += removed.separators_made;
        self.separator_bytes -= removed.separators_gone;
        while let Node::Branch(branch) = &self.root
            && let [only] = &branch.children[..]
        {
            self.root = only.node.clone();
        }
        for separator in needed.into_iter().flatten() {
            self.shorten(log, &separator);
        }
        RECORD_BYTES + removed.moved
    }

    /// The long separators that stand just before and just after a key; nothing if it is not there.
    fn separators_beside(&self, log: &Log, key: &[u8]) -> Option<[Option<Arc<[u8]>>; 2]> {
        let (mut node, mut before, mut after) = (&self.root, None, None);
        loop {
            match node {
                Node::Leaf(leaf) => {
                    let at = leaf.search(log, key).ok()?;
                    let before = before.filter(|_| at == 0);
                    let after = after.filter(|_| at + 1 == leaf.len);
                    let long = |separator: &&Separator| counted(&separator.key) > 0;
                    let beside = |one: Option<&Separator>| {
                        one.filter(long).map(|separator| separator.key.clone())
                    };
                    return Some([beside(before), beside(after)]);
                }
                Node::Branch(branch) => {
                    let at = branch.child_of(key);
                    before = at.checked_sub(1).map(|at| &branch.separators[at]).or(before);
                    after = branch.separators.get(at).or(after);
                    node = &branch.children[at].node;
                }
            }
        }
    }

    /// Makes a separator no longer than the keys beside it need, if it is still there: one of those
    /// that needed it has gone.
    fn shorten(&mut self, log: &Log, separator: &[u8]) {
        let Some((left, right)) = self.root.parted_by(separator) else { return };
        let shorter = between(left.last_key(log), right.first_key(log));
        if shorter.len() < separator.len() {
            self.separator_bytes += counted(&shorter);
            self.separator_bytes -= counted(separator);
            self.root.replace(log, separator, shorter, Bounds { lower: None, upper: None });
        }
    }

    /// How many live keys are in `[from, to)`; no `to` is the end.
    pub(crate) fn count_live(&self, log: &Log, from: &[u8], to: Option<&[u8]>) -> u64 {
        let until = to.map_or_else(|| self.live(), |to| self.root.live_before(log, to));
        until.saturating_sub(self.root.live_before(log, from))
    }

    /// Shows the newest versions of the keys in `[from, to)` in order until `visit` breaks; the
    /// live ones alone if asked, without touching what holds none.
    pub(crate) fn scan(
        &self,
        log: &Log,
        from: &[u8],
        to: Option<&[u8]>,
        live_only: bool,
        visit: &mut dyn FnMut(Newest) -> ControlFlow<()>,
    ) {
        let _stopped_early = self.root.scan(log, Some(from), to, live_only, visit);
    }
}

impl Bounds<'_> {
    /// How many bytes all keys share that are within.
    fn shared(&self) -> usize {
        match (self.lower, self.upper) {
            (Some(lower), Some(upper)) => common(lower, upper),
            _ => 0,
        }
    }

    fn of_child<'b>(&'b self, separators: &'b [Separator], child: usize) -> Bounds<'b> {
        let key = |at: usize| separators.get(at).map(|separator| &*separator.key);
        Bounds {
            lower: child.checked_sub(1).map_or(self.lower, key),
            upper: key(child).or(self.upper),
        }
    }

    fn split<'b>(&'b self, separator: &'b [u8]) -> (Bounds<'b>, Bounds<'b>) {
        let (lower, upper) = (self.lower, self.upper);
        (Bounds { lower, upper: Some(separator) }, Bounds { lower: Some(separator), upper })
    }
}

impl Child {
    fn of(node: Node) -> Child {
        let live = node.live();
        Child { node, live }
    }
}

impl Node {
    fn live(&self) -> u64 {
        match self {
            Node::Leaf(leaf) => leaf.live(leaf.len),
            Node::Branch(branch) => branch.children.iter().map(|child| child.live).sum(),
        }
    }

    fn live_before(&self, log: &Log, key: &[u8]) -> u64 {
        match self {
            Node::Leaf(leaf) => leaf.live(leaf.index_of(log, key)),
            Node::Branch(branch) => {
                let at = branch.child_of(key);
                let before: u64 = branch.children[..at].iter().map(|child| child.live).sum();
                before + branch.children[at].node.live_before(log, key)
            }
        }
    }

    fn scan(
        &self,
        log: &Log,
        from: Option<&[u8]>,
        to: Option<&[u8]>,
        live_only: bool,
        visit: &mut dyn FnMut(Newest) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        match self {
            Node::Leaf(leaf) => {
                let start = from.map_or(0, |from| leaf.index_of(log, from));
                let end = to.map_or(leaf.len, |to| leaf.index_of(log, to));
                for slot in leaf.slots.get(start..end).unwrap_or_default() {
                    if !live_only || slot.newest.is_live() {
                        visit(slot.newest)?;
                    }
                }
            }
            Node::Branch(branch) => {
                let start = from.map_or(0, |from| branch.child_of(from));
                let end = to.map_or(branch.children.len() - 1, |to| branch.child_of(to));
                for at in start..=end {
                    let child = &branch.children[at];
                    if !live_only || child.live > 0 {
                        let from = from.filter(|_| at == start);
                        let to = to.filter(|_| at == end);
                        child.node.scan(log, from, to, live_only, visit)?;
                    }
                }
            }
        }
        ControlFlow::Continue(())
    }

    fn delete_live(
        &mut self,
        log: &mut Log,
        from: Option<&[u8]>,
        to: Option<&[u8]>,
        tombstone: &mut dyn FnMut(&mut Log, Newest) -> Address,
    ) -> u64 {
        let mut deleted = 0;
        match self {
            Node::Leaf(leaf) => {
                let start = from.map_or(0, |from| leaf.index_of(log, from));
                let end = to.map_or(leaf.len, |to| leaf.index_of(log, to));
                let leaf = Arc::make_mut(leaf);
                for slots in leaf.slots.get_mut(start..end).unwrap_or_default().chunks_mut(AHEAD) {
                    log.touch(slots.iter().map(|slot| slot.newest.at()));
                    for slot in slots.iter_mut().filter(|slot| slot.newest.is_live()) {
                        slot.newest = Newest::new(tombstone(log, slot.newest), false);
                        deleted += 1;
                    }
                }
            }
            Node::Branch(branch) => {
                let start = from.map_or(0, |from| branch.child_of(from));
                let end = to.map_or(branch.children.len() - 1, |to| branch.child_of(to));
                let branch = Arc::make_mut(branch);
                for at in start..=end {
                    let child = &mut branch.children[at];
                    if child.live > 0 {
                        let from = from.filter(|_| at == start);
                        let to = to.filter(|_| at == end);
                        let died = child.node.delete_live(log, from, to, tombstone);
                        child.live -= died;
                        deleted += died;
                    }
                }
            }
        }
        deleted
    }

    fn put(&mut self, log: &Log, key: &[u8], newest: Newest, bounds: Bounds<'_>) -> Placed {
        match self {
            Node::Leaf(leaf) => Arc::make_mut(leaf).put(log, key, newest, bounds),
            Node::Branch(branch) => Arc::make_mut(branch).put(log, key, newest, bounds),
        }
    }

    /// Takes out the key, which is there.
    fn remove(&mut self, log: &Log, key: &[u8], bounds: Bounds<'_>) -> Removed {
        match self {
            Node::Leaf(leaf) => {
                let moved = if Arc::get_mut(leaf).is_none() { size_of::<Leaf>() } else { 0 };
                let leaf = Arc::make_mut(leaf);
                if let Ok(at) = leaf.search(log, key) {
                    leaf.slots.copy_within(at + 1..leaf.len, at);
                    leaf.len -= 1;
                }
                let is_small = leaf.len <= LEAF_MAX / 4;
                Removed { is_small, separators_made: 0, separators_gone: 0, moved }
            }
            Node::Branch(branch) => {
                let copied = if Arc::get_mut(branch).is_none() { BRANCH_BYTES } else { 0 };
                let branch = Arc::make_mut(branch);
                let at = branch.child_of(key);
                let child = &mut branch.children[at];
                let within = bounds.of_child(&branch.separators, at);
                let mut removed = child.node.remove(log, key, within);
                removed.moved += copied;
                child.live = child.node.live();
                if removed.is_small {
                    removed.moved += BRANCH_BYTES;
                    branch.join(log, at.max(1), bounds, &mut removed);
                }
                removed.is_small = branch.children.len() <= BRANCH_MAX / 4;
                removed
            }
        }
    }

    /// The nodes on both sides of a separator, if it is below this node.
    fn parted_by(&self, separator: &[u8]) -> Option<(&Node, &Node)> {
        let Node::Branch(branch) = self else { return None };
        let at = branch.child_of(separator);
        match at.checked_sub(1) {
            Some(left) if *branch.separators[left].key == *separator => {
                Some((&branch.children[left].node, &branch.children[at].node))
            }
            _ => branch.children[at].node.parted_by(separator),
        }
    }

    fn first_key<'a>(&self, log: &'a Log) -> &'a [u8] {
        match self {
            Node::Leaf(leaf) => key_of(log, &leaf.slots[0]),
            Node::Branch(branch) => branch.children[0].node.first_key(log),
        }
    }

    fn last_key<'a>(&self, log: &'a Log) -> &'a [u8] {
        match self {
            Node::Leaf(leaf) => key_of(log, &leaf.slots[leaf.len - 1]),
            Node::Branch(branch) => branch.children[branch.children.len() - 1].node.last_key(log),
        }
    }

    /// Puts another separator in the place of one that is below this node.
    fn replace(&mut self, log: &Log, old: &[u8], new: Arc<[u8]>, bounds: Bounds<'_>) {
        let Node::Branch(branch) = self else { return };
        let branch = Arc::make_mut(branch);
        let at = branch.child_of(old);
        if at == 0 || *branch.separators[at - 1].key != *old {
            let within = bounds.of_child(&branch.separators, at);
            return branch.children[at].node.replace(log, old, new, within);
        }
        let mut keys = branch.keys();
        keys[at - 1] = new;
        *branch = Branch::new(bounds, keys, std::mem::take(&mut branch.children));
        for (child, side) in [(at - 1, Side::Last), (at, Side::First)] {
            let within = bounds.of_child(&branch.separators, child);
            branch.children[child].node.fit_to(log, within, side);
        }
    }

    /// Has the heads fit bounds that changed on one side.
    fn fit_to(&mut self, log: &Log, bounds: Bounds<'_>, side: Side) {
        match self {
            Node::Leaf(leaf) if leaf.shared != bounds.shared() => {
                *leaf = Arc::new(Leaf::within(log, bounds, None, leaf.slots()));
            }
            Node::Leaf(_) => {}
            Node::Branch(branch) => {
                let branch = Arc::make_mut(branch);
                if branch.shared != bounds.shared() {
                    let keys = branch.keys();
                    *branch = Branch::new(bounds, keys, std::mem::take(&mut branch.children));
                }
                let child = match side {
                    Side::First => 0,
                    Side::Last => branch.children.len() - 1,
                };
                let within = bounds.of_child(&branch.separators, child);
                branch.children[child].node.fit_to(log, within, side);
            }
        }
    }

    /// What [`Node::joined`] counts as: it may have to look at each key.
    fn join_bytes(&self, next: &Node, bounds: Bounds<'_>) -> usize {
        match (self, next) {
            (Node::Leaf(left), Node::Leaf(right)) => {
                let shared = bounds.shared();
                let are_known = left.shared == shared && right.shared == shared;
                let each = if are_known { size_of::<Slot>() } else { RECORD_BYTES };
                (left.len + right.len) * each
            }
            _ => 2 * BRANCH_BYTES,
        }
    }

    /// This node and the next in one, or if that would be too large in two of equal size.
    fn joined(
        self,
        log: &Log,
        separator: Arc<[u8]>,
        next: Node,
        bounds: Bounds<'_>,
    ) -> (Node, Split) {
        match (self, next) {
            (Node::Leaf(left), Node::Leaf(right)) => {
                let slots = [left.slots(), right.slots()].concat();
                let shared = (left.shared == right.shared).then_some(left.shared);
                let leaf =
                    |bounds, slots| Node::Leaf(Arc::new(Leaf::within(log, bounds, shared, slots)));
                if slots.len() <= LEAF_MAX {
                    return (leaf(bounds, &slots), None);
                }
                let (lower, upper) = slots.split_at(slots.len() / 2);
                let last = &lower[lower.len() - 1];
                let separator = between(key_of(log, last), key_of(log, &upper[0]));
                let (left, right) = bounds.split(&separator);
                (leaf(left, lower), Some((separator.clone(), leaf(right, upper))))
            }
            (Node::Branch(left), Node::Branch(right)) => {
                let mut keys = left.keys();
                keys.push(separator);
                keys.extend(right.keys());
                let children = [&left.children[..], &right.children[..]].concat();
                let middle = children.len() / 2;
                let (branch, split) = Branch::fit(bounds, keys, children, middle);
                (Node::Branch(Arc::new(branch)), split)
            }
            _ => unreachable!("all leaves are at one depth"),
        }
    }
}

impl Leaf {
    fn new(shared: usize, slots: &[Slot]) -> Leaf {
        let mut leaf = Leaf { shared, len: slots.len(), slots: [Slot::default(); LEAF_MAX] };
        leaf.slots[..slots.len()].copy_from_slice(slots);
        leaf
    }

    /// With the heads that fit the bounds; `shared` is what the slots' heads come after so far, if
    /// they all come after the same.
    fn within(log: &Log, bounds: Bounds<'_>, shared: Option<usize>, slots: &[Slot]) -> Leaf {
        let mut leaf = Leaf::new(bounds.shared(), slots);
        if shared != Some(leaf.shared) {
            for slot in &mut leaf.slots[..leaf.len] {
                slot.head = head(key_of(log, slot), leaf.shared);
            }
        }
        leaf
    }

    fn slots(&self) -> &[Slot] {
        &self.slots[..self.len]
    }

    fn live(&self, len: usize) -> u64 {
        self.slots[..len].iter().map(|slot| slot.newest.0 & 1).sum()
    }

    /// Where the key is, or would be.
    fn search(&self, log: &Log, key: &[u8]) -> Result<usize, usize> {
        let head = head(key, self.shared);
        let start = self.slots().partition_point(|slot| slot.head < head);
        let alike = self.slots()[start..].iter().take_while(|slot| slot.head == head).count();
        let alike = &self.slots()[start..start + alike];
        let found = alike.binary_search_by(|slot| key_of(log, slot).cmp(key));
        found.map(|at| start + at).map_err(|at| start + at)
    }

    /// How many keys stand before this one.
    fn index_of(&self, log: &Log, key: &[u8]) -> usize {
        self.search(log, key).unwrap_or_else(|at| at)
    }

    fn put(&mut self, log: &Log, key: &[u8], newest: Newest, bounds: Bounds<'_>) -> Placed {
        let at = match self.search(log, key) {
            Ok(at) => {
                let before = std::mem::replace(&mut self.slots[at].newest, newest);
                return Placed { before: Some(before), split: None, separator_bytes: 0 };
            }
            Err(at) => at,
        };
        if self.len < LEAF_MAX {
            self.insert(at, key, newest);
            return Placed { before: None, split: None, separator_bytes: 0 };
        }
        // Keys are often written in order: leave a full leaf behind, not two halves.
        let middle = if at == LEAF_MAX { LEAF_MAX } else { LEAF_MAX / 2 };
        let next = self.slots.get(middle).map_or(key, |slot| key_of(log, slot));
        let separator = between(key_of(log, &self.slots[middle - 1]), next);
        let (left, right) = bounds.split(&separator);
        let mut upper = Leaf::within(log, right, Some(self.shared), &self.slots[middle..]);
        *self = Leaf::within(log, left, Some(self.shared), &self.slots[..middle]);
        let leaf = if key < &separator[..] { &mut *self } else { &mut upper };
        leaf.insert(leaf.index_of(log, key), key, newest);
        let separator_bytes = counted(&separator);
        let split = Some((separator, Node::Leaf(Arc::new(upper))));
        Placed { before: None, split, separator_bytes }
    }

    fn insert(&mut self, at: usize, key: &[u8], newest: Newest) {
        self.slots.copy_within(at..self.len, at + 1);
        self.slots[at] = Slot { head: head(key, self.shared), newest };
        self.len += 1;
    }
}

impl Branch {
    fn new(bounds: Bounds<'_>, separators: Vec<Arc<[u8]>>, children: Vec<Child>) -> Branch {
        let shared = bounds.shared();
        let separators =
            separators.into_iter().map(|key| Separator { head: head(&key, shared), key });
        Branch { shared, separators: separators.collect(), children }
    }

    /// The child under which the key is, or would be.
    fn child_of(&self, key: &[u8]) -> usize {
        let head = head(key, self.shared);
        self.separators.partition_point(|separator| match separator.head.cmp(&head) {
            Ordering::Equal => &*separator.key <= key,
            order => order.is_lt(),
        })
    }

    fn put(&mut self, log: &Log, key: &[u8], newest: Newest, bounds: Bounds<'_>) -> Placed {
        let at = self.child_of(key);
        let child = &mut self.children[at];
        let within = bounds.of_child(&self.separators, at);
        let placed = child.node.put(log, key, newest, within);
        let Placed { before, split, separator_bytes } = placed;
        let Some((separator, right)) = split else {
            child.live += u64::from(newest.is_live());
            child.live -= u64::from(before.is_some_and(Newest::is_live));
            return Placed { before, split: None, separator_bytes };
        };
        child.live = child.node.live();
        self.children.insert(at + 1, Child::of(right));
        let mut keys = self.keys();
        keys.insert(at, separator);
        let children = std::mem::take(&mut self.children);
        // Leave a full branch behind, as with leaves.
        let at_end = at + 2 == children.len();
        let middle = if at_end { children.len() - 2 } else { children.len() / 2 };
        let (branch, split) = Branch::fit(bounds, keys, children, middle);
        *self = branch;
        Placed { before, split, separator_bytes }
    }

    /// One branch, or if that would be too large two, divided at `middle`.
    fn fit(
        bounds: Bounds<'_>,
        mut keys: Vec<Arc<[u8]>>,
        mut children: Vec<Child>,
        middle: usize,
    ) -> (Branch, Split) {
        if children.len() <= BRANCH_MAX {
            return (Branch::new(bounds, keys, children), None);
        }
        let (right_children, right_keys) = (children.split_off(middle), keys.split_off(middle));
        let separator = keys.pop().expect("a branch is divided between two children");
        let (left, right) = bounds.split(&separator);
        let right = Node::Branch(Arc::new(Branch::new(right, right_keys, right_children)));
        (Branch::new(left, keys, children), Some((separator, right)))
    }

    fn keys(&self) -> Vec<Arc<[u8]>> {
        self.separators.iter().map(|separator| separator.key.clone()).collect()
    }

    /// Joins child `at` with the one before; both stay, of equal size, if one cannot hold all.
    fn join(&mut self, log: &Log, at: usize, bounds: Bounds<'_>, removed: &mut Removed) {
        let (mut keys, mut children) = (self.keys(), std::mem::take(&mut self.children));
        let between = keys.remove(at - 1);
        let (right, left) = (children.remove(at).node, children.remove(at - 1).node);
        let within = Bounds {
            lower: at.checked_sub(2).map_or(bounds.lower, |before| Some(&*keys[before])),
            upper: keys.get(at - 1).map_or(bounds.upper, |next| Some(&**next)),
        };
        let are_leaves = matches!(left, Node::Leaf(_));
        removed.moved += left.join_bytes(&right, within);
        // Between branches it goes down, and another one up.
        removed.separators_gone += if are_leaves { counted(&between) } else { 0 };
        let (left, split) = left.joined(log, between, right, within);
        children.insert(at - 1, Child::of(left));
        if let Some((separator, right)) = split {
            removed.separators_made += if are_leaves { counted(&separator) } else { 0 };
            keys.insert(at - 1, separator);
            children.insert(at, Child::of(right));
        }
        *self = Branch::new(bounds, keys, children);
    }
}

/// Eight bytes of a key as a number that is ordered as they are; zeros stand after a shorter key.
/// So a key with a lesser head is less, and nothing is known of keys with the same.
fn head(key: &[u8], shared: usize) -> u64 {
    let rest = key.get(shared..).unwrap_or_default();
    match rest.first_chunk() {
        Some(head) => u64::from_be_bytes(*head),
        None => {
            let mut head = [0; 8];
            head[..rest.len()].copy_from_slice(rest);
            u64::from_be_bytes(head)
        }
    }
}

fn key_of<'a>(log: &'a Log, slot: &Slot) -> &'a [u8] {
    log.key(slot.newest.at()).expect("the newest version of a key is held")
}

/// How many bytes two keys share at their beginning.
fn common(left: &[u8], right: &[u8]) -> usize {
    left.iter().zip(right).take_while(|(a, b)| a == b).count()
}

/// The bytes of a separator, if it is long: short ones are part of what any key costs.
fn counted(separator: &[u8]) -> u64 {
    if separator.len() > LONG { separator.len() as u64 } else { 0 }
}

/// Something short that stands between two neighbours: after `left`, not after `right`.
fn between(left: &[u8], right: &[u8]) -> Arc<[u8]> {
    right[..=common(left, right)].into()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::record::Draft;

    type Dumb = BTreeMap<Vec<u8>, Newest>;

    fn scan(
        tree: &Tree,
        log: &Log,
        from: &[u8],
        to: Option<&[u8]>,
        live_only: bool,
    ) -> Vec<Newest> {
        let mut found = Vec::new();
        tree.scan(log, from, to, live_only, &mut |newest| {
            found.push(newest);
            ControlFlow::Continue(())
        });
        found
    }

    /// Every node is well-formed; returns the depth.
    fn check(node: &Node, log: &Log, bounds: Bounds<'_>, is_root: bool) -> usize {
        let is_within = |key: &[u8]| {
            bounds.lower.is_none_or(|lower| lower <= key)
                && bounds.upper.is_none_or(|upper| key < upper)
        };
        let branch = match node {
            Node::Leaf(leaf) => {
                assert_eq!(leaf.shared, bounds.shared());
                assert!(is_root || leaf.len >= 1, "no leaf is empty");
                for slot in leaf.slots() {
                    let key = key_of(log, slot);
                    assert!(is_within(key));
                    assert_eq!(slot.head, head(key, leaf.shared));
                }
                return 1;
            }
            Node::Branch(branch) => branch,
        };
        assert_eq!(branch.shared, bounds.shared());
        assert!((2..=BRANCH_MAX).contains(&branch.children.len()));
        assert_eq!(branch.separators.len() + 1, branch.children.len());
        for separator in &*branch.separators {
            assert!(is_within(&separator.key));
            assert_eq!(separator.head, head(&separator.key, branch.shared));
        }
        let mut depths = Vec::new();
        for (at, child) in branch.children.iter().enumerate() {
            assert_eq!(child.live, child.node.live(), "live keys are counted");
            depths.push(check(&child.node, log, bounds.of_child(&branch.separators, at), false));
        }
        assert!(depths.windows(2).all(|pair| pair[0] == pair[1]), "all leaves are at one depth");
        depths[0] + 1
    }

    fn same(tree: &Tree, log: &Log, dumb: &Dumb, keys: &[Vec<u8>]) {
        check(&tree.root, log, Bounds { lower: None, upper: None }, true);
        well_separated(tree, log);
        let live = dumb.values().filter(|newest| newest.is_live());
        assert_eq!(tree.live(), live.clone().count() as u64);
        assert_eq!(tree.keys(), dumb.len() as u64);
        assert!(scan(tree, log, &[], None, true).iter().eq(live));
        assert!(scan(tree, log, &[], None, false).iter().eq(dumb.values()));
        for pair in keys.windows(2) {
            assert_eq!(tree.get(log, &pair[0]), dumb.get(&pair[0]).copied());
            let (from, to) = (pair[0].clone(), pair[1].clone().max(pair[0].clone()));
            let within: Vec<_> = dumb.range(from.clone()..to.clone()).map(|(_, n)| *n).collect();
            assert_eq!(scan(tree, log, &from, Some(&to), false), within);
            let live: Vec<_> = within.into_iter().filter(|newest| newest.is_live()).collect();
            assert_eq!(scan(tree, log, &from, Some(&to), true), live);
            assert_eq!(tree.count_live(log, &from, Some(&to)), live.len() as u64);
        }
    }

    /// Bytes of all separators, and of those that count.
    fn separator_bytes(node: &Node) -> (u64, u64) {
        let Node::Branch(branch) = node else { return (0, 0) };
        let own = branch.separators.iter().map(|separator| &separator.key);
        let own = own.map(|key| (key.len() as u64, counted(key)));
        let below = branch.children.iter().map(|child| separator_bytes(&child.node));
        own.chain(below).fold((0, 0), |sum, more| (sum.0 + more.0, sum.1 + more.1))
    }

    /// Between two keys is no more than they need, now.
    fn well_separated(tree: &Tree, log: &Log) {
        let (all, counted) = separator_bytes(&tree.root);
        assert_eq!(tree.separator_bytes(), counted);
        let keys = scan(tree, log, &[], None, false);
        let keys = keys.iter().filter_map(|newest| log.key(newest.at()));
        let most: u64 = keys.map(|key| key.len().max(LONG) as u64).sum();
        assert!(all <= most, "{all} bytes of separators, {most} of keys");
    }

    #[test]
    fn separators_do_not_outlive_the_keys_that_needed_them() {
        let (mut tree, mut log) = (Tree::default(), Log::default());
        let mut put = |tree: &mut Tree, key: &[u8]| {
            let newest = Newest::new(log.end(), true);
            tree.put(&log, key, newest);
            let (value, link) = (b"".as_slice(), None);
            let (mod_revision, version, create_revision, lease) = (1, 1, 1, 0);
            log.push(&Draft { key, value, mod_revision, version, create_revision, lease, link });
        };
        // Six and six are alike but for their ends, and short keys stand between those groups.
        let short = |n: u32| format!("{n:04}").into_bytes();
        let alike = |n| {
            let ends = ["a", "b", "c", "d", "e", "f"];
            ends.map(|end| [&short(n)[..], &[b'-'; 10_000], end.as_bytes()].concat())
        };
        for n in (0..3000).map(|n| n * 7 % 3000) {
            put(&mut tree, &short(n));
            for key in alike(n).iter().filter(|_| n % 60 == 0) {
                put(&mut tree, key);
            }
        }
        assert!(separator_bytes(&tree.root).0 > 300_000);
        let before = tree.clone();
        let mut left = 300;
        for key in (0..3000).step_by(60).flat_map(alike) {
            tree.remove(&log, &key);
            left -= 1;
            let (all, counted) = separator_bytes(&tree.root);
            assert_eq!(tree.separator_bytes(), counted);
            assert!(all < 20_000 + left * 10_005, "{all} bytes with {left} long keys");
        }
        assert!(separator_bytes(&tree.root).0 < 20_000);
        check(&tree.root, &log, Bounds { lower: None, upper: None }, true);
        check(&before.root, &log, Bounds { lower: None, upper: None }, true);
        for n in 0..3000 {
            assert!(tree.get(&log, &short(n)).is_some());
            assert_eq!(before.get(&log, &alike(n)[1]).is_some(), n % 60 == 0);
        }
    }

    /// Keys that share long beginnings with some and nothing with others, and that are beginnings
    /// of each other.
    fn key() -> impl Strategy<Value = Vec<u8>> {
        let beginning = prop::sample::select(vec!["", "", "abcdefghij", "abcdefghijklmnopqrst"]);
        (beginning, prop::collection::vec(0u8..4, 1..12), 0usize..12).prop_map(
            |(beginning, rest, cut)| {
                let rest = &rest[..rest.len().min(cut).max(1)];
                [beginning.as_bytes(), rest].concat()
            },
        )
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(500))]
        #[test]
        fn tree_is_a_map_and_old_roots_stay(
            steps in prop::collection::vec((key(), 0u8..10, any::<prop::sample::Index>()), 1..200),
        ) {
            let (mut tree, mut log) = (Tree::default(), Log::default());
            let (mut dumb, mut kept) = (Dumb::new(), Vec::new());
            let keys: Vec<_> = steps.iter().map(|(key, ..)| key.clone()).collect();
            for (key, kind, pick) in &steps {
                let some = (!dumb.is_empty()).then(|| dumb.keys().nth(pick.index(dumb.len())));
                let some = some.flatten().cloned();
                match (kind, some) {
                    (0..3, Some(key)) => {
                        tree.remove(&log, &key);
                        dumb.remove(&key);
                    }
                    (3, _) => kept.push((tree.clone(), log.clone(), dumb.clone())),
                    (_, some) => {
                        let key = if *kind == 4 { some.as_ref().unwrap_or(key) } else { key };
                        let newest = Newest::new(log.end(), *kind > 5);
                        prop_assert_eq!(tree.put(&log, key, newest), dumb.insert(key.clone(), newest));
                        log.push(&Draft {
                            key, value: b"", mod_revision: 1, version: 1, create_revision: 1,
                            lease: 0, link: None,
                        });
                    }
                }
            }
            kept.push((tree, log, dumb));
            for (tree, log, dumb) in &kept {
                same(tree, log, dumb, &keys);
            }
        }
    }
}
