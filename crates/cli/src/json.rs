//! The JSON format, as etcdctl's: fields in the order of the API, default
//! values left out, bytes in base64, 64-bit numbers as numbers.

use proto::etcdserverpb::response_op::Response;
use proto::etcdserverpb::{
    DeleteRangeResponse, MemberListResponse, PutResponse, RangeResponse, ResponseHeader,
    StatusResponse, TxnResponse,
};
use proto::mvccpb::KeyValue;

use crate::output::{Answer, Health};

/// An object under construction. Fields with default values are left out.
#[derive(Default)]
pub(crate) struct Object(String);

impl Object {
    /// A field whatever its value; `value` is JSON.
    pub(crate) fn raw(mut self, name: &str, value: impl std::fmt::Display) -> Object {
        let comma = if self.0.is_empty() { "" } else { "," };
        self.0.push_str(&format!("{comma}\"{name}\":{value}"));
        self
    }

    fn number(self, name: &str, value: impl Into<i128>) -> Object {
        let value = value.into();
        if value == 0 { self } else { self.raw(name, value) }
    }

    fn flag(self, name: &str, value: bool) -> Object {
        if value { self.raw(name, true) } else { self }
    }

    fn text(self, name: &str, value: &str) -> Object {
        if value.is_empty() { self } else { self.raw(name, string(value)) }
    }

    fn bytes(self, name: &str, value: &[u8]) -> Object {
        if value.is_empty() { self } else { self.raw(name, format_args!("\"{}\"", base64(value))) }
    }

    fn some(self, name: &str, value: Option<String>) -> Object {
        match value {
            Some(value) => self.raw(name, value),
            None => self,
        }
    }

    fn list(self, name: &str, values: impl Iterator<Item = String>) -> Object {
        let list = array(values);
        if list == "[]" { self } else { self.raw(name, list) }
    }

    pub(crate) fn end(self) -> String {
        format!("{{{}}}", self.0)
    }
}

pub(crate) fn render(answer: &Answer<'_>, hex: bool) -> String {
    let mut text = match answer {
        Answer::Get(response) => range(response),
        Answer::Put(response) => put(response),
        Answer::Delete(response) => delete(response),
        Answer::Txn(response) => txn(response),
        Answer::Members(response) => members(response, hex),
        Answer::Status(statuses) => array(statuses.iter().map(|(endpoint, response)| {
            let object = Object::default().raw("Endpoint", string(endpoint));
            object.raw("Status", status(response)).end()
        })),
        // Go writes an empty list of structs that were never appended to as null.
        Answer::Health([]) => "null".into(),
        Answer::Health(endpoints) => array(endpoints.iter().map(health)),
    };
    if matches!(answer, Answer::Status([])) {
        text = "null".into();
    }
    text.push('\n');
    text
}

fn array(values: impl Iterator<Item = String>) -> String {
    format!("[{}]", values.collect::<Vec<_>>().join(","))
}

/// A string as Go writes it: safe to put into HTML.
pub(crate) fn string(text: &str) -> String {
    let text = serde_json::Value::from(text).to_string();
    let escapes = [
        ('<', "\\u003c"),
        ('>', "\\u003e"),
        ('&', "\\u0026"),
        ('\u{2028}', "\\u2028"),
        ('\u{2029}', "\\u2029"),
    ];
    escapes.iter().fold(text, |text, (from, to)| text.replace(*from, to))
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let mut group = [0; 3];
        group[..chunk.len()].copy_from_slice(chunk);
        let bits = u32::from_be_bytes([0, group[0], group[1], group[2]]);
        for place in 0..4 {
            let digit = DIGITS[(bits >> (18 - 6 * place)) as usize & 63];
            text.push(if place <= chunk.len() { char::from(digit) } else { '=' });
        }
    }
    text
}

fn header(header: &ResponseHeader) -> String {
    Object::default()
        .number("cluster_id", header.cluster_id)
        .number("member_id", header.member_id)
        .number("revision", header.revision)
        .number("raft_term", header.raft_term)
        .end()
}

fn hex_header(header: &ResponseHeader) -> String {
    Object::default()
        .raw("cluster_id", format_args!("\"{:x}\"", header.cluster_id))
        .raw("member_id", format_args!("\"{:x}\"", header.member_id))
        .number("revision", header.revision)
        .number("raft_term", header.raft_term)
        .end()
}

fn kv(kv: &KeyValue) -> String {
    Object::default()
        .bytes("key", &kv.key)
        .number("create_revision", kv.create_revision)
        .number("mod_revision", kv.mod_revision)
        .number("version", kv.version)
        .bytes("value", &kv.value)
        .number("lease", kv.lease)
        .end()
}

fn range(response: &RangeResponse) -> String {
    Object::default()
        .some("header", response.header.as_ref().map(header))
        .list("kvs", response.kvs.iter().map(kv))
        .flag("more", response.more)
        .number("count", response.count)
        .end()
}

fn put(response: &PutResponse) -> String {
    Object::default()
        .some("header", response.header.as_ref().map(header))
        .some("prev_kv", response.prev_kv.as_ref().map(kv))
        .end()
}

fn delete(response: &DeleteRangeResponse) -> String {
    Object::default()
        .some("header", response.header.as_ref().map(header))
        .number("deleted", response.deleted)
        .list("prev_kvs", response.prev_kvs.iter().map(kv))
        .end()
}

fn txn(response: &TxnResponse) -> String {
    let responses = response.responses.iter().map(|op| {
        let object = Object::default();
        let object = match &op.response {
            Some(Response::ResponseRange(inner)) => object.raw("response_range", range(inner)),
            Some(Response::ResponsePut(inner)) => object.raw("response_put", put(inner)),
            Some(Response::ResponseDeleteRange(inner)) => {
                object.raw("response_delete_range", delete(inner))
            }
            Some(Response::ResponseTxn(inner)) => object.raw("response_txn", txn(inner)),
            None => object,
        };
        Object::default().raw("Response", object.end()).end()
    });
    Object::default()
        .some("header", response.header.as_ref().map(header))
        .flag("succeeded", response.succeeded)
        .list("responses", responses)
        .end()
}

fn members(response: &MemberListResponse, hex: bool) -> String {
    let list = response.members.iter().map(|member| {
        let object = Object::default();
        let object = match hex {
            true => object.raw("ID", format_args!("\"{:x}\"", member.id)),
            false => object.number("ID", member.id),
        };
        object
            .text("name", &member.name)
            .list("peerURLs", member.peer_urls.iter().map(|url| string(url)))
            .list("clientURLs", member.client_urls.iter().map(|url| string(url)))
            .flag("isLearner", member.is_learner)
            .end()
    });
    let header = response.header.as_ref().map(if hex { hex_header } else { header });
    Object::default().some("header", header).list("members", list).end()
}

fn status(response: &StatusResponse) -> String {
    let downgrade = response.downgrade_info.as_ref().map(|info| {
        let object = Object::default().flag("enabled", info.enabled);
        object.text("targetVersion", &info.target_version).end()
    });
    Object::default()
        .some("header", response.header.as_ref().map(header))
        .text("version", &response.version)
        .number("dbSize", response.db_size)
        .number("leader", response.leader)
        .number("raftIndex", response.raft_index)
        .number("raftTerm", response.raft_term)
        .number("raftAppliedIndex", response.raft_applied_index)
        .list("errors", response.errors.iter().map(|error| string(error)))
        .number("dbSizeInUse", response.db_size_in_use)
        .flag("isLearner", response.is_learner)
        .text("storageVersion", &response.storage_version)
        .number("dbSizeQuota", response.db_size_quota)
        .some("downgradeInfo", downgrade)
        .end()
}

fn health(health: &Health) -> String {
    Object::default()
        .raw("endpoint", string(&health.endpoint))
        .raw("health", health.error.is_empty())
        .raw("took", string(&health.took))
        .text("error", &health.error)
        .end()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_padded() {
        let table =
            [("", ""), ("a", "YQ=="), ("ab", "YWI="), ("abc", "YWJj"), ("abcd", "YWJjZA==")];
        for (bytes, text) in table {
            assert_eq!(base64(bytes.as_bytes()), text);
        }
        assert_eq!(base64(b"\xff\xef\xbe"), "/+++");
    }

    #[test]
    fn strings_are_safe_in_html() {
        assert_eq!(string("a<b>&\"\n"), r#""a\u003cb\u003e\u0026\"\n""#);
    }
}
