//! What is counted. Each path sets up what it needs, then does its operation so many times.

use std::hint::black_box;

use bytes::Bytes;
use prost::Message as _;
use proto::etcdserverpb::PutRequest;
use raft::{Config, Membership, Message, Node, NodeId, Restored};
use replica::{Header, Kind, Proposal};
use store::{Command, Put, Range, Store};
use wal::{Batch, EntryId, Identity, MemoryDisk, Options, Record, Wal};

use crate::Outcome;

const VALUE: &[u8] = &[b'v'; 256];
const KEYS: u64 = 100_000;
/// Puts between two views, as a busy member publishes them.
const ROUND: u64 = 50;

/// One path.
pub struct Path {
    /// What one operation is.
    pub name: &'static str,
    /// How many operations are enough.
    pub times: u64,
    /// Does so many.
    pub run: fn(u64) -> Outcome<()>,
}

/// All of them.
pub const PATHS: &[Path] = &[
    Path { name: "raft: commit 1 entry, 3 nodes", times: 2000, run: |times| raft(times, 1) },
    Path { name: "raft: commit 64 entries, 3 nodes", times: 200, run: |times| raft(times, 64) },
    Path { name: "wal: append 1 record", times: 1000, run: |times| wal(times, 1) },
    Path { name: "wal: append 64 records", times: 100, run: |times| wal(times, 64) },
    Path { name: "store: put a new key", times: 20_000, run: put_new },
    Path { name: "store: overwrite a key", times: 20_000, run: overwrite },
    Path { name: "store: get", times: 20_000, run: get },
    Path { name: "store: range of 100", times: 500, run: range },
    Path { name: "replica: encode a put", times: 20_000, run: encode },
    Path { name: "replica: decode a put", times: 20_000, run: decode },
];

/// Three nodes; the network and the disks take no time.
fn raft(times: u64, batch: usize) -> Outcome<()> {
    let mut nodes: Vec<Node> = (1..=3).map(node).collect();
    while nodes[0].status().leader != Some(NodeId(1)) {
        nodes[0].tick();
        settle(&mut nodes);
    }
    let payload = Bytes::from_static(VALUE);
    let before = nodes[2].status().applied;
    for _ in 0..times {
        nodes[0].propose(vec![payload.clone(); batch]).map_err(|why| format!("{why:?}"))?;
        settle(&mut nodes);
    }
    // The last commit waits for the next message to the others, so the leader's own counts.
    let applied = nodes[0].status().applied.0 - before.0;
    if applied < times * batch as u64 { Err("not everything was committed".into()) } else { Ok(()) }
}

fn node(id: u64) -> Node {
    let config = Config {
        id: NodeId(id),
        membership: Membership::new((1..=3).map(NodeId)),
        election_ticks: 10,
        heartbeat_ticks: 1,
        seed: id,
        pre_vote: true,
        check_quorum: false,
        append_bytes_max: 1 << 20,
        inflight_bytes_max: 4 << 20,
        tail_bytes_max: 1 << 20,
    };
    Node::new(config, Restored::default())
}

/// Carries out all there is to do, until there is nothing more.
fn settle(nodes: &mut [Node]) {
    let mut quiet = false;
    while !quiet {
        quiet = true;
        for at in 0..nodes.len() {
            let ready = nodes[at].ready();
            quiet &= ready.is_empty();
            black_box(&ready.committed);
            deliver(nodes, ready.messages);
            if let Some(persist) = ready.persist {
                nodes[at].persisted(persist.ticket);
                deliver(nodes, persist.then_send);
            }
        }
    }
}

fn deliver(nodes: &mut [Node], messages: Vec<Message>) {
    for message in messages {
        nodes[message.to.0 as usize - 1].step(message);
    }
}

fn wal(times: u64, batch: u64) -> Outcome<()> {
    // Large enough that none is full before the end.
    let options = Options { segment_bytes: 128 << 20, ..Options::default() };
    let mut wal = Wal::create(MemoryDisk::new(1), Identity::default(), options)?;
    let payload = Bytes::from_static(VALUE);
    for n in 0..times {
        let record = |index| {
            let id = EntryId { term: 1, index };
            Record { id, kind: 1, payload: payload.clone() }
        };
        let records = (n * batch + 1..=(n + 1) * batch).map(record).collect();
        wal.append(&Batch { records, ..Batch::default() })?;
    }
    Ok(())
}

/// Those with even numbers are in the store from the beginning.
fn key(n: u64) -> Bytes {
    format!("/registry/pods/default/pod-{n:08}").into()
}

/// An even number, all over the keys.
fn scattered(n: u64) -> u64 {
    n * 2_654_435_761 % KEYS * 2
}

fn loaded() -> Outcome<Store> {
    let mut store = Store::new();
    put_all(&mut store, (0..KEYS).map(|n| key(2 * n)))?;
    Ok(store)
}

fn put_all(store: &mut Store, keys: impl Iterator<Item = Bytes>) -> Outcome<()> {
    let mut view = store.view();
    for (n, key) in (0u64..).zip(keys) {
        let put = Put { key, value: Bytes::from_static(VALUE), ..Put::default() };
        black_box(store.apply(&Command::Put(put))?);
        if n % ROUND == 0 {
            view = store.view();
        }
    }
    black_box(view);
    Ok(())
}

fn put_new(times: u64) -> Outcome<()> {
    put_all(&mut loaded()?, (0..times).map(|n| key(scattered(n) + 1)))
}

fn overwrite(times: u64) -> Outcome<()> {
    put_all(&mut loaded()?, (0..times).map(|n| key(scattered(n))))
}

fn get(times: u64) -> Outcome<()> {
    let view = loaded()?.view();
    for n in 0..times {
        let found = view.range(&Range { key: key(scattered(n)), ..Range::default() })?;
        black_box(found);
    }
    Ok(())
}

fn range(times: u64) -> Outcome<()> {
    let view = loaded()?.view();
    for n in 0..times {
        let range_end = Bytes::from_static(b"/registry/pods0");
        let range = Range { key: key(scattered(n)), range_end, limit: 100, ..Range::default() };
        black_box(view.range(&range)?);
    }
    Ok(())
}

fn request() -> PutRequest {
    let (key, value) = (key(7), Bytes::from_static(VALUE));
    PutRequest { key, value, ..PutRequest::default() }
}

fn encode(times: u64) -> Outcome<()> {
    let request = request();
    for _ in 0..times {
        black_box(Proposal::new(Kind::Put, black_box(&request)));
    }
    Ok(())
}

fn decode(times: u64) -> Outcome<()> {
    // Version, kind, and an origin of zeros: see `replica::Header`.
    let mut entry = vec![0; 32];
    (entry[0], entry[1]) = (1, Kind::Put as u8);
    request().encode(&mut entry)?;
    let entry = Bytes::from(entry);
    for _ in 0..times {
        let (header, body) = Header::decode(black_box(&entry)).map_err(|why| why.to_string())?;
        black_box(replica::decode(header.kind, body).map_err(|why| format!("{why:?}"))?);
    }
    Ok(())
}
