//! Two answers to one request: equal, but for what may differ.

use bytes::Bytes;
use prost::Message;
use proto::etcdserverpb as pb;
use proto::etcdserverpb::request_op::Request as Op;
use proto::etcdserverpb::response_op::Response as Answer;
use proto::mvccpb::KeyValue;
use tonic::{Code, Status};

use super::program::Step;

/// What a member answered: a message's bytes, or an error.
pub type Answered = Result<Bytes, Status>;

/// The first difference between our answer and etcd's, in words.
///
/// Allowed differences, all of them:
/// * Ids and the term in headers are each cluster's own: compared is whether
///   they are set.
/// * The text for bytes that are not a message comes from the protobuf library:
///   nobody can act on it. The code is compared.
/// * The text for a method that does not exist: ours also says of those that etcd has
///   and we have not yet that they are not served yet. The code is compared.
/// * Transactions nested deeper than some 48 levels, which etcd takes up to 128, are
///   undecodable to us: programs leave them out.
/// * Keys that a sort finds equal have no order, neither by the API nor in etcd,
///   whose sort is not stable; a limit may cut among them anywhere.
pub fn difference(step: &Step, ours: &Answered, theirs: &Answered) -> Option<String> {
    match (ours, theirs) {
        (Ok(ours), Ok(theirs)) => messages(step, ours, theirs),
        (Err(ours), Err(theirs)) => errors(ours, theirs),
        (Ok(_), Err(theirs)) => Some(format!("ours succeeds, etcd: {theirs}")),
        (Err(ours), Ok(_)) => Some(format!("etcd succeeds, ours: {ours}")),
    }
}

fn errors(ours: &Status, theirs: &Status) -> Option<String> {
    if ours.code() != theirs.code() {
        return Some(format!("code and text\n  ours: {ours}\n  etcd: {theirs}"));
    }
    let undecodable =
        theirs.code() == Code::Internal && theirs.message().contains("error unmarshalling request");
    let unknown_method = theirs.code() == Code::Unimplemented;
    (ours.message() != theirs.message() && !undecodable && !unknown_method).then(|| {
        format!("error text\n  ours: {:?}\n  etcd: {:?}", ours.message(), theirs.message())
    })
}

fn messages(step: &Step, ours: &Bytes, theirs: &Bytes) -> Option<String> {
    match step {
        Step::Range(range) => both::<pb::RangeResponse>(ours, theirs, |a, b| {
            masked(&mut a.header);
            masked(&mut b.header);
            forgive_ties(range, a, b);
        }),
        Step::Txn(txn) => both::<pb::TxnResponse>(ours, theirs, |a, b| {
            masked(&mut a.header);
            masked(&mut b.header);
            forgive_ties_within(txn, a, b);
        }),
        Step::Put(_) => both::<pb::PutResponse>(ours, theirs, |a, b| {
            masked(&mut a.header);
            masked(&mut b.header);
        }),
        Step::Delete(_) => both::<pb::DeleteRangeResponse>(ours, theirs, |a, b| {
            masked(&mut a.header);
            masked(&mut b.header);
        }),
        Step::Compact(_) => both::<pb::CompactionResponse>(ours, theirs, |a, b| {
            masked(&mut a.header);
            masked(&mut b.header);
        }),
        Step::Raw { path, message } => {
            let step = decoded(path, message)?;
            messages(&step, ours, theirs)
        }
    }
}

/// The request that odd bytes stand for.
fn decoded(path: &str, message: &Bytes) -> Option<Step> {
    let message = message.clone();
    match path {
        "/etcdserverpb.KV/Range" => pb::RangeRequest::decode(message).ok().map(Step::Range),
        "/etcdserverpb.KV/Put" => pb::PutRequest::decode(message).ok().map(Step::Put),
        "/etcdserverpb.KV/DeleteRange" => {
            pb::DeleteRangeRequest::decode(message).ok().map(Step::Delete)
        }
        _ => None,
    }
}

fn both<M: Message + Default + PartialEq + std::fmt::Debug>(
    ours: &Bytes,
    theirs: &Bytes,
    forgive: impl FnOnce(&mut M, &mut M),
) -> Option<String> {
    let (mut a, mut b) = match (M::decode(ours.clone()), M::decode(theirs.clone())) {
        (Ok(a), Ok(b)) => (a, b),
        (a, b) => {
            return Some(format!(
                "undecodable answer\n  ours: {:?}\n  etcd: {:?}",
                a.err(),
                b.err()
            ));
        }
    };
    // A field that we do not know of, or a default written out, shows here.
    if b.encode_to_vec() != theirs.as_ref() {
        return Some(format!("etcd's answer holds fields that our schema lacks: {theirs:?}"));
    }
    if a.encode_to_vec() != ours.as_ref() {
        return Some(format!("our answer's encoding is not canonical: {ours:?}"));
    }
    forgive(&mut a, &mut b);
    (a != b).then(|| first_field(&format!("{a:#?}"), &format!("{b:#?}")))
}

/// The first line in which two printed messages differ, with its path.
fn first_field(ours: &str, theirs: &str) -> String {
    let mut path: Vec<(usize, &str)> = Vec::new();
    let mut theirs = theirs.lines();
    for line in ours.lines() {
        let indent = line.len() - line.trim_start().len();
        path.retain(|(outer, _)| *outer < indent);
        let other = theirs.next().unwrap_or("nothing");
        if line != other {
            let names: Vec<&str> = path.iter().map(|(_, name)| *name).collect();
            return format!(
                "{}\n  ours: {}\n  etcd: {}",
                names.join(" "),
                line.trim(),
                other.trim()
            );
        }
        path.push((indent, line.trim()));
    }
    format!("etcd's answer is longer: {}", theirs.next().unwrap_or_default())
}

fn masked(header: &mut Option<pb::ResponseHeader>) {
    if let Some(header) = header {
        header.cluster_id = header.cluster_id.min(1);
        header.member_id = header.member_id.min(1);
        header.raft_term = header.raft_term.min(1);
    }
}

fn forgive_ties_within(txn: &pb::TxnRequest, a: &mut pb::TxnResponse, b: &mut pb::TxnResponse) {
    let ops = if a.succeeded { &txn.success } else { &txn.failure };
    for ((op, a), b) in ops.iter().zip(&mut a.responses).zip(&mut b.responses) {
        match (&op.request, &mut a.response, &mut b.response) {
            (
                Some(Op::RequestRange(range)),
                Some(Answer::ResponseRange(a)),
                Some(Answer::ResponseRange(b)),
            ) => forgive_ties(range, a, b),
            (
                Some(Op::RequestTxn(inner)),
                Some(Answer::ResponseTxn(a)),
                Some(Answer::ResponseTxn(b)),
            ) => forgive_ties_within(inner, a, b),
            _ => {}
        }
    }
}

/// Puts keys that the sort finds equal into the order of keys, on both sides.
/// Where a limit cut among equals, which of them are there is left open.
fn forgive_ties(range: &pb::RangeRequest, a: &mut pb::RangeResponse, b: &mut pb::RangeResponse) {
    if range.sort_target == 0 || a.kvs.len() != b.kvs.len() {
        return;
    }
    // The value that was sorted by is cleared before we see it.
    let blind = range.sort_target == 4 && range.keys_only;
    let rank = |kv: &KeyValue| match range.sort_target {
        1 => (kv.version, Bytes::new()),
        2 => (kv.create_revision, Bytes::new()),
        3 => (kv.mod_revision, Bytes::new()),
        _ => (0, kv.value.clone()),
    };
    let same_ranks = a.kvs.iter().map(rank).eq(b.kvs.iter().map(rank));
    if !same_ranks {
        return;
    }
    let filtered = range.min_mod_revision != 0
        || range.max_mod_revision != 0
        || range.min_create_revision != 0
        || range.max_create_revision != 0;
    // Without an order and a filter etcd cuts by key, then sorts: nothing is open.
    let cut_after_sort = a.more && (range.sort_order != 0 || filtered);
    if cut_after_sort {
        let last = a.kvs.last().map(rank);
        let sure = a.kvs.iter().take_while(|kv| !blind && Some(rank(kv)) != last).count();
        a.kvs.truncate(sure);
        b.kvs.truncate(sure);
    }
    for kvs in [&mut a.kvs, &mut b.kvs] {
        let descending = range.sort_order == 2;
        kvs.sort_by(|x, y| {
            let by_rank = rank(x).cmp(&rank(y));
            let by_rank = if descending { by_rank.reverse() } else { by_rank };
            by_rank.then_with(|| x.key.cmp(&y.key))
        });
    }
}
