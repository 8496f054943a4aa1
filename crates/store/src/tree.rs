//! Every version of every key, ordered, in a copy-on-write B+tree.
//!
//! The nodes are reference-counted. A clone of the tree is a clone of its root: O(1), and it never
//! changes again, because the writer changes a node in place only while it alone holds it and
//! copies it otherwise. Each branch knows how many *live* records (the newest of their key, and
//! not a tombstone) lie under each child, so a range of live keys is counted on two paths.

use std::ops::ControlFlow;
use std::sync::Arc;

use crate::record::Record;

/// Fanout. Nodes are small because one that is shared is copied, at a counter per slot. Unit tests
/// use a tiny one to see many levels.
const NODE_MAX: usize = if cfg!(test) { 4 } else { 32 };
/// A node with fewer slots is joined with its neighbour.
const NODE_MIN: usize = NODE_MAX / 4 + 1;

/// Where a record stands: versions of a key side by side, oldest first. The derived order is the
/// order of the tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place<'a> {
    pub(crate) key: &'a [u8],
    pub(crate) revision: i64,
}

impl<'a> Place<'a> {
    /// Before every version of the key.
    pub(crate) fn before(key: &'a [u8]) -> Place<'a> {
        Place { key, revision: i64::MIN }
    }

    /// After every version of the key.
    pub(crate) fn after(key: &'a [u8]) -> Place<'a> {
        Place { key, revision: i64::MAX }
    }

    fn of(record: &'a Record) -> Place<'a> {
        Place { key: record.key(), revision: record.mod_revision() }
    }
}

/// See the module.
#[derive(Clone, Debug)]
pub(crate) struct Tree {
    root: Arc<Node>,
    /// Bytes of key and value of all records.
    bytes: u64,
}

#[derive(Clone, Debug)]
enum Node {
    Leaf(Leaf),
    Branch(Branch),
}

#[derive(Clone, Debug, Default)]
struct Leaf {
    records: Vec<Record>,
    /// Bit i is set if record i is live.
    live: u64,
}

/// At least two children, but for the time until its own parent has joined it.
#[derive(Clone, Debug)]
struct Branch {
    /// One less than children: no record under child i + 1 stands before `separators[i]`, all
    /// under child i do.
    separators: Vec<Separator>,
    children: Vec<Child>,
}

#[derive(Clone, Debug)]
struct Child {
    node: Arc<Node>,
    /// Live records under it.
    live: u64,
}

/// Owns a copy of a key, not a record: it may outlive every record of that key.
#[derive(Clone, Debug)]
struct Separator {
    key: Arc<[u8]>,
    revision: i64,
}

/// What happened below when a record was inserted.
struct Inserted {
    split: Option<(Separator, Node)>,
    replaced_bytes: u64,
}

impl Default for Tree {
    fn default() -> Tree {
        Tree { root: Arc::new(Node::Leaf(Leaf::default())), bytes: 0 }
    }
}

impl Tree {
    /// How many records are live.
    pub(crate) fn live(&self) -> u64 {
        self.root.live()
    }

    /// Bytes of key and value of all records.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The newest version of a key at a revision, tombstones included.
    pub(crate) fn version(&self, key: &[u8], revision: i64) -> Option<&Record> {
        self.root.last_until(Place { key, revision }).filter(|record| record.key() == key)
    }

    /// The key as it is now, if it exists.
    pub(crate) fn live_version(&self, key: &[u8]) -> Option<&Record> {
        self.version(key, i64::MAX).filter(|record| !record.is_tombstone())
    }

    /// Adds the newest version of its key, which is not live any more then. A record at the same
    /// place, made by the same transaction, is replaced.
    pub(crate) fn insert(&mut self, record: Record) {
        let handle = record.clone();
        let place = Place::of(&handle);
        let inserted = Arc::make_mut(&mut self.root).insert(place, record);
        self.bytes = self.bytes + handle.payload_len() - inserted.replaced_bytes;
        if let Some((separator, right)) = inserted.split {
            let left = std::mem::replace(&mut self.root, Arc::new(Node::Leaf(Leaf::default())));
            let children = vec![Child::of(left), Child::of(Arc::new(right))];
            self.root = Arc::new(Node::Branch(Branch { separators: vec![separator], children }));
        }
    }

    /// Takes a record out, if it is there. The newest of its key may go only when it is the last:
    /// no other record becomes live, and the next version of the key will find its predecessor
    /// beside it in its leaf, since no separator between the two outlives the newer one.
    pub(crate) fn remove(&mut self, place: Place<'_>) {
        let Some(record) = self.root.last_until(place).filter(|found| Place::of(found) == place)
        else {
            return;
        };
        self.bytes -= record.payload_len();
        Arc::make_mut(&mut self.root).remove(place);
        while let Node::Branch(branch) = &*self.root
            && let [only] = &branch.children[..]
        {
            self.root = only.node.clone();
        }
    }

    /// How many live records stand in `[from, to)`; no `to` is the end.
    pub(crate) fn count_live(&self, from: Place<'_>, to: Option<Place<'_>>) -> u64 {
        let until = to.map_or_else(|| self.live(), |to| self.root.live_before(to));
        until.saturating_sub(self.root.live_before(from))
    }

    /// Shows the records in `[from, to)` in order until `visit` breaks; the live ones alone if
    /// asked, without touching what holds none.
    pub(crate) fn scan<'a>(
        &'a self,
        from: Place<'_>,
        to: Option<Place<'_>>,
        live_only: bool,
        visit: &mut dyn FnMut(&'a Record) -> ControlFlow<()>,
    ) {
        let _stopped_early = self.root.scan(Some(from), to, live_only, visit);
    }
}

impl Child {
    fn of(node: Arc<Node>) -> Child {
        let live = node.live();
        Child { node, live }
    }
}

impl Separator {
    fn place(&self) -> Place<'_> {
        Place { key: &self.key, revision: self.revision }
    }

    /// Something short that stands between two neighbours: after `left`, not after `right`.
    fn between(left: &Record, right: &Record) -> Separator {
        let (before, key) = (left.key(), right.key());
        if before == key {
            return Separator { key: key.into(), revision: right.mod_revision() };
        }
        let common = before.iter().zip(key).take_while(|(a, b)| a == b).count();
        Separator { key: key[..=common].into(), revision: i64::MIN }
    }
}

impl Node {
    fn live(&self) -> u64 {
        match self {
            Node::Leaf(leaf) => u64::from(leaf.live.count_ones()),
            Node::Branch(branch) => branch.children.iter().map(|child| child.live).sum(),
        }
    }

    fn slots(&self) -> usize {
        match self {
            Node::Leaf(leaf) => leaf.records.len(),
            Node::Branch(branch) => branch.children.len(),
        }
    }

    fn last_until(&self, place: Place<'_>) -> Option<&Record> {
        match self {
            Node::Leaf(leaf) => {
                let after = leaf.records.partition_point(|record| Place::of(record) <= place);
                leaf.records.get(after.checked_sub(1)?)
            }
            Node::Branch(branch) => {
                let at = branch.child_of(place);
                // A separator may stand before the first record of its child, when that was
                // removed: then the one searched for is the last of the child before.
                let older = || branch.children.get(at.checked_sub(1)?)?.node.last();
                branch.children[at].node.last_until(place).or_else(older)
            }
        }
    }

    fn last(&self) -> Option<&Record> {
        match self {
            Node::Leaf(leaf) => leaf.records.last(),
            Node::Branch(branch) => branch.children.last()?.node.last(),
        }
    }

    fn live_before(&self, place: Place<'_>) -> u64 {
        match self {
            Node::Leaf(leaf) => {
                let before = leaf.records.partition_point(|record| Place::of(record) < place);
                u64::from((leaf.live & mask(before)).count_ones())
            }
            Node::Branch(branch) => {
                let at = branch.child_of(place);
                let before: u64 = branch.children[..at].iter().map(|child| child.live).sum();
                before + branch.children[at].node.live_before(place)
            }
        }
    }

    fn scan<'a>(
        &'a self,
        from: Option<Place<'_>>,
        to: Option<Place<'_>>,
        live_only: bool,
        visit: &mut dyn FnMut(&'a Record) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        match self {
            Node::Leaf(leaf) => {
                let start = from.map_or(0, |from| leaf.index_of(from));
                let end = to.map_or(leaf.records.len(), |to| leaf.index_of(to));
                for at in start..end {
                    if !live_only || leaf.live >> at & 1 == 1 {
                        visit(&leaf.records[at])?;
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
                        child.node.scan(from, to, live_only, visit)?;
                    }
                }
            }
        }
        ControlFlow::Continue(())
    }

    fn insert(&mut self, place: Place<'_>, record: Record) -> Inserted {
        let mut inserted = match self {
            Node::Leaf(leaf) => leaf.insert(place, record),
            Node::Branch(branch) => branch.insert(place, record),
        };
        let slots = self.slots();
        if slots > NODE_MAX {
            // Keys are often written in order: leave a full node behind, not two halves.
            let at_end = self.last().is_some_and(|last| Place::of(last) == place);
            inserted.split = Some(self.split_off(if at_end { slots - 2 } else { slots / 2 }));
        }
        inserted
    }

    /// Takes out the record at the place, which is there.
    fn remove(&mut self, place: Place<'_>) {
        match self {
            Node::Leaf(leaf) => {
                let at = leaf.index_of(place);
                leaf.records.remove(at);
                leaf.live = leaf.live & mask(at) | leaf.live >> 1 & !mask(at);
            }
            Node::Branch(branch) => {
                let at = branch.child_of(place);
                let child = &mut branch.children[at];
                let node = Arc::make_mut(&mut child.node);
                node.remove(place);
                child.live = node.live();
                if node.slots() < NODE_MIN {
                    branch.join(at.max(1));
                }
            }
        }
    }

    /// Moves the slots from `at` on to a new node.
    fn split_off(&mut self, at: usize) -> (Separator, Node) {
        match self {
            Node::Leaf(leaf) => {
                let right = Leaf { records: leaf.records.split_off(at), live: leaf.live >> at };
                leaf.live &= mask(at);
                let separator = Separator::between(&leaf.records[at - 1], &right.records[0]);
                (separator, Node::Leaf(right))
            }
            Node::Branch(branch) => {
                let children = branch.children.split_off(at);
                let separators = branch.separators.split_off(at);
                let separator = branch.separators.pop().expect("a branch is split between two");
                (separator, Node::Branch(Branch { separators, children }))
            }
        }
    }
}

impl Leaf {
    /// How many records stand before the place.
    fn index_of(&self, place: Place<'_>) -> usize {
        self.records.partition_point(|record| Place::of(record) < place)
    }

    fn insert(&mut self, place: Place<'_>, record: Record) -> Inserted {
        let at = self.index_of(place);
        // The predecessor is in this leaf, see `Tree::remove`.
        let bit = u64::from(!record.is_tombstone()) << at;
        let older = at.checked_sub(1);
        if let Some(older) = older.filter(|&older| self.records[older].key() == place.key) {
            self.live &= !(1 << older);
        }
        if let Some(same) = self.records.get_mut(at).filter(|same| Place::of(same) == place) {
            let replaced_bytes = same.payload_len();
            *same = record;
            self.live = self.live & !(1 << at) | bit;
            return Inserted { split: None, replaced_bytes };
        }
        if self.records.len() == self.records.capacity() {
            self.records.reserve_exact(NODE_MAX / 4);
        }
        self.records.insert(at, record);
        self.live = self.live & mask(at) | bit | (self.live & !mask(at)) << 1;
        Inserted { split: None, replaced_bytes: 0 }
    }
}

impl Branch {
    /// The child under which the place is.
    fn child_of(&self, place: Place<'_>) -> usize {
        self.separators.partition_point(|separator| separator.place() <= place)
    }

    fn insert(&mut self, place: Place<'_>, record: Record) -> Inserted {
        let at = self.child_of(place);
        let child = &mut self.children[at];
        let node = Arc::make_mut(&mut child.node);
        let mut inserted = node.insert(place, record);
        if let Some((separator, right)) = inserted.split.take() {
            self.separators.insert(at, separator);
            self.children.insert(at + 1, Child::of(Arc::new(right)));
        }
        let child = &mut self.children[at];
        child.live = child.node.live();
        inserted
    }

    /// Joins child `at` with the one before; both stay, of equal size, if one cannot hold all.
    fn join(&mut self, at: usize) {
        let separator = self.separators.remove(at - 1);
        let right = Arc::unwrap_or_clone(self.children.remove(at).node);
        let child = &mut self.children[at - 1];
        let left = Arc::make_mut(&mut child.node);
        match (&mut *left, right) {
            (Node::Leaf(left), Node::Leaf(right)) => {
                left.live |= right.live << left.records.len();
                left.records.extend(right.records);
            }
            (Node::Branch(left), Node::Branch(right)) => {
                left.separators.push(separator);
                left.separators.extend(right.separators);
                left.children.extend(right.children);
            }
            _ => unreachable!("all leaves are at one depth"),
        }
        let split = (left.slots() > NODE_MAX).then(|| left.split_off(left.slots() / 2));
        child.live = child.node.live();
        if let Some((separator, right)) = split {
            self.separators.insert(at - 1, separator);
            self.children.insert(at, Child::of(Arc::new(right)));
        }
    }
}

/// The lowest `bits` bits; `bits` is less than 64, as two nodes that are joined have fewer slots.
fn mask(bits: usize) -> u64 {
    (1 << bits) - 1
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    /// The same as a map, with liveness worked out by looking at all of it.
    #[derive(Clone, Default)]
    struct Dumb(BTreeMap<(Vec<u8>, i64), Record>);

    impl Dumb {
        fn scan(&self, from: Place<'_>, to: Option<Place<'_>>, live_only: bool) -> Vec<Record> {
            let live = |key: &[u8], revision| {
                !self.0.keys().any(|(other, newer)| other == key && *newer > revision)
            };
            self.0
                .iter()
                .filter(|((key, revision), record)| {
                    let place = Place { key, revision: *revision };
                    let shown = !live_only || live(key, *revision) && !record.is_tombstone();
                    place >= from && to.is_none_or(|to| place < to) && shown
                })
                .map(|(_, record)| record.clone())
                .collect()
        }
    }

    fn scan(tree: &Tree, from: Place<'_>, to: Option<Place<'_>>, live_only: bool) -> Vec<Record> {
        let mut found = Vec::new();
        tree.scan(from, to, live_only, &mut |record| {
            found.push(record.clone());
            ControlFlow::Continue(())
        });
        found
    }

    /// Every node is well-formed; returns the depth.
    fn check(node: &Node, is_root: bool) -> usize {
        assert!(node.slots() <= NODE_MAX, "a node is not overfull");
        assert!(is_root || node.slots() >= 1, "no node is empty");
        let Node::Branch(branch) = node else { return 1 };
        assert!(branch.children.len() >= 2, "a branch has two children");
        assert_eq!(branch.separators.len() + 1, branch.children.len());
        for (at, child) in branch.children.iter().enumerate() {
            assert_eq!(child.live, child.node.live(), "live records are counted");
            let last = Place::of(child.node.last().expect("no node is empty"));
            assert!(branch.separators.get(at).is_none_or(|next| last < next.place()));
        }
        let depths: Vec<_> =
            branch.children.iter().map(|child| check(&child.node, false)).collect();
        assert!(depths.windows(2).all(|pair| pair[0] == pair[1]), "all leaves are at one depth");
        depths[0] + 1
    }

    fn same(tree: &Tree, dumb: &Dumb, keys: &[Vec<u8>]) {
        check(&tree.root, true);
        let all = (Place::before(&[]), None);
        for live_only in [false, true] {
            assert_eq!(scan(tree, all.0, all.1, live_only), dumb.scan(all.0, all.1, live_only));
        }
        assert_eq!(tree.bytes(), dumb.0.values().map(Record::payload_len).sum::<u64>());
        for pair in keys.windows(2) {
            let (from, to) = (Place::before(&pair[0]), Place::after(&pair[1]));
            let live = dumb.scan(from, Some(to), true);
            assert_eq!(scan(tree, from, Some(to), true), live);
            assert_eq!(tree.count_live(from, Some(to)), live.len() as u64);
            let newest = dumb.0.range(..=(pair[0].clone(), 20)).next_back();
            let newest = newest.filter(|((key, _), _)| *key == pair[0]).map(|(_, record)| record);
            assert_eq!(tree.version(&pair[0], 20), newest);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(300))]
        #[test]
        fn tree_is_a_map_and_old_roots_stay(
            steps in prop::collection::vec(
                (prop::collection::vec(0u8..4, 1..4), 0u8..10, 0usize..200), 1..150),
        ) {
            let (mut tree, mut dumb, mut kept) = (Tree::default(), Dumb::default(), Vec::new());
            let keys: Vec<_> = steps.iter().map(|(key, ..)| key.clone()).collect();
            for (revision, (key, kind, pick)) in steps.iter().enumerate() {
                let revision = revision as i64 / 2;
                match kind {
                    // A removal, of what no read of the newest would miss.
                    0..4 => {
                        let victims: Vec<_> = dumb.0.keys().cloned().collect();
                        if let Some((key, revision)) = victims.get(pick % victims.len().max(1)) {
                            let place = Place { key, revision: *revision };
                            let newer = victims.iter().any(|(k, r)| k == key && r > revision);
                            if newer || dumb.0[&(key.clone(), *revision)].is_tombstone()
                                && !victims.iter().any(|(k, r)| k == key && r < revision) {
                                tree.remove(place);
                                dumb.0.remove(&(key.clone(), *revision));
                            }
                        }
                    }
                    4..6 => {
                        tree.insert(Record::tombstone(key, revision));
                        dumb.0.insert((key.clone(), revision), Record::tombstone(key, revision));
                    }
                    6 => kept.push((tree.clone(), dumb.clone())),
                    _ => {
                        let record = Record::put(key, &vec![1; *pick], revision, 1, revision, 0);
                        tree.insert(record.clone());
                        dumb.0.insert((key.clone(), revision), record);
                    }
                }
            }
            kept.push((tree, dumb));
            for (tree, dumb) in &kept {
                same(tree, dumb, &keys);
            }
        }
    }
}
