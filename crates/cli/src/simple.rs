//! The simple format: keys and values as they are, one per line.

use proto::etcdserverpb::TxnResponse;
use proto::etcdserverpb::response_op::Response;
use proto::mvccpb::KeyValue;

use crate::output::{Answer, Style};
use crate::table;

pub(crate) fn render(answer: &Answer<'_>, style: Style) -> Vec<u8> {
    let mut out = Vec::new();
    match answer {
        Answer::Get(range) => pairs(&range.kvs, style, &mut out),
        Answer::Put(put) => {
            out.extend(b"OK\n");
            pairs(put.prev_kv.as_slice(), style, &mut out);
        }
        Answer::Delete(delete) => {
            out.extend(format!("{}\n", delete.deleted).bytes());
            pairs(&delete.prev_kvs, style, &mut out);
        }
        Answer::Txn(txn) => transaction(txn, style, &mut out),
        Answer::Members(members) => lines(&table::members(members).rows, &mut out),
        Answer::Status(statuses) => lines(&table::statuses(statuses).rows, &mut out),
        Answer::Health(endpoints) => {
            for health in endpoints.iter().filter(|health| health.error.is_empty()) {
                let text = "is healthy: successfully committed proposal: took =";
                out.extend(format!("{} {text} {}\n", health.endpoint, health.took).bytes());
            }
        }
    }
    out
}

fn pairs(kvs: &[KeyValue], style: Style, out: &mut Vec<u8>) {
    for kv in kvs {
        if !style.value_only {
            line(&kv.key, style.hex, out);
        }
        line(&kv.value, style.hex, out);
    }
}

fn line(bytes: &[u8], hex: bool, out: &mut Vec<u8>) {
    if hex {
        out.extend(bytes.iter().flat_map(|byte| format!("\\x{byte:02x}").into_bytes()));
    } else {
        out.extend(bytes);
    }
    out.push(b'\n');
}

fn transaction(txn: &TxnResponse, style: Style, out: &mut Vec<u8>) {
    out.extend(if txn.succeeded { &b"SUCCESS\n"[..] } else { b"FAILURE\n" });
    for op in &txn.responses {
        out.push(b'\n');
        let answer = match &op.response {
            Some(Response::ResponseRange(range)) => Answer::Get(range),
            Some(Response::ResponsePut(put)) => Answer::Put(put),
            Some(Response::ResponseDeleteRange(delete)) => Answer::Delete(delete),
            Some(Response::ResponseTxn(txn)) => Answer::Txn(txn),
            None => continue,
        };
        out.extend(render(&answer, style));
    }
}

fn lines(rows: &[Vec<String>], out: &mut Vec<u8>) {
    for row in rows {
        out.extend(row.join(", ").bytes());
        out.push(b'\n');
    }
}
