//! Which format an answer is printed in.

use proto::etcdserverpb::{
    DeleteRangeResponse, MemberListResponse, PutResponse, RangeResponse, StatusResponse,
    TxnResponse,
};

use crate::failure::Failure;
use crate::{fields, json, simple, table};

/// `--write-out`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    Simple,
    Json,
    Fields,
    Table,
}

impl Format {
    pub(crate) fn named(name: &str) -> Result<Format, Failure> {
        match name {
            "simple" => Ok(Format::Simple),
            "json" => Ok(Format::Json),
            "fields" => Ok(Format::Fields),
            "table" => Ok(Format::Table),
            _ => Err(Failure::feature("unsupported output format")),
        }
    }
}

/// An answer and how to print it.
pub(crate) enum Answer<'a> {
    Get(&'a RangeResponse),
    Put(&'a PutResponse),
    Delete(&'a DeleteRangeResponse),
    Txn(&'a TxnResponse),
    Members(&'a MemberListResponse),
    Status(&'a [(String, StatusResponse)]),
    Health(&'a [Health]),
}

/// Whether an endpoint serves.
pub(crate) struct Health {
    pub(crate) endpoint: String,
    pub(crate) took: String,
    /// Empty if the endpoint is well.
    pub(crate) error: String,
}

/// How an answer is printed.
#[derive(Clone, Copy)]
pub(crate) struct Style {
    pub(crate) format: Format,
    pub(crate) hex: bool,
    /// Values without keys, in the simple format.
    pub(crate) value_only: bool,
}

impl Answer<'_> {
    pub(crate) fn render(&self, style: Style) -> Result<Vec<u8>, Failure> {
        match style.format {
            Format::Simple => Ok(simple::render(self, style)),
            Format::Json => Ok(json::render(self, style.hex).into_bytes()),
            Format::Fields => Ok(fields::render(self, style.hex).into_bytes()),
            Format::Table => table::render(self).map(String::into_bytes),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use proto::etcdserverpb::response_op::Response;
    use proto::etcdserverpb::{Member, ResponseHeader, ResponseOp};
    use proto::mvccpb::KeyValue;

    fn header(revision: i64) -> Option<ResponseHeader> {
        let (cluster_id, member_id) = (324952591200643719, 3319814642761637952);
        Some(ResponseHeader { cluster_id, member_id, revision, raft_term: 2 })
    }

    fn kv(key: &'static [u8], value: &'static [u8]) -> KeyValue {
        let (key, value) = (Bytes::from_static(key), Bytes::from_static(value));
        KeyValue { key, value, create_revision: 8, mod_revision: 9, version: 2, lease: 0 }
    }

    fn text(answer: &Answer<'_>, format: Format, hex: bool) -> String {
        let bytes = answer.render(Style { format, hex, value_only: false }).unwrap();
        String::from_utf8(bytes).unwrap()
    }

    // What is expected below was printed by etcdctl 3.7.3.

    #[test]
    fn a_read() {
        let range =
            RangeResponse { header: header(9), kvs: vec![kv(b"a", b"2")], more: false, count: 1 };
        let answer = Answer::Get(&range);
        assert_eq!(text(&answer, Format::Simple, false), "a\n2\n");
        assert_eq!(text(&answer, Format::Simple, true), "\\x61\n\\x32\n");
        assert_eq!(
            text(&answer, Format::Json, false),
            "{\"header\":{\"cluster_id\":324952591200643719,\"member_id\":3319814642761637952,\
             \"revision\":9,\"raft_term\":2},\"kvs\":[{\"key\":\"YQ==\",\"create_revision\":8,\
             \"mod_revision\":9,\"version\":2,\"value\":\"Mg==\"}],\"count\":1}\n"
        );
        assert_eq!(
            text(&answer, Format::Fields, false),
            "\"ClusterID\" : 324952591200643719\n\"MemberID\" : 3319814642761637952\n\
             \"Revision\" : 9\n\"RaftTerm\" : 2\n\"Key\" : \"a\"\n\"CreateRevision\" : 8\n\
             \"ModRevision\" : 9\n\"Version\" : 2\n\"Value\" : \"2\"\n\"Lease\" : 0\n\
             \"More\" : false\n\"Count\" : 1\n"
        );
        let style = Style { format: Format::Table, hex: false, value_only: false };
        assert!(answer.render(style).is_err());
    }

    #[test]
    fn a_transaction_in_json_keeps_the_header_of_each_operation() {
        let inner = Some(ResponseHeader { revision: 9, ..ResponseHeader::default() });
        let put = Response::ResponsePut(PutResponse { header: inner, prev_kv: None });
        let responses = vec![ResponseOp { response: Some(put) }];
        let txn = TxnResponse { header: header(9), succeeded: true, responses };
        assert_eq!(
            text(&Answer::Txn(&txn), Format::Json, false),
            "{\"header\":{\"cluster_id\":324952591200643719,\"member_id\":3319814642761637952,\
             \"revision\":9,\"raft_term\":2},\"succeeded\":true,\"responses\":[{\"Response\":\
             {\"response_put\":{\"header\":{\"revision\":9}}}}]}\n"
        );
        assert_eq!(text(&Answer::Txn(&txn), Format::Simple, false), "SUCCESS\n\nOK\n");
    }

    #[test]
    fn members_in_a_table() {
        let member = Member {
            id: 3319814642761637952,
            name: "solo".into(),
            peer_urls: vec!["http://127.0.0.1:23800".into()],
            client_urls: vec!["http://127.0.0.1:23790".into()],
            is_learner: false,
        };
        let list = MemberListResponse { header: header(0), members: vec![member] };
        let answer = Answer::Members(&list);
        let table = "\
┌──────────────────┬─────────┬──────┬────────────────────────┬────────────────────────┬────────────┐
│        ID        │ STATUS  │ NAME │       PEER ADDRS       │      CLIENT ADDRS      │ IS LEARNER │
├──────────────────┼─────────┼──────┼────────────────────────┼────────────────────────┼────────────┤
│ 2e1259d415f2a040 │ started │ solo │ http://127.0.0.1:23800 │ http://127.0.0.1:23790 │      false │
└──────────────────┴─────────┴──────┴────────────────────────┴────────────────────────┴────────────┘
";
        assert_eq!(text(&answer, Format::Table, false), table);
        assert_eq!(
            text(&answer, Format::Simple, false),
            "2e1259d415f2a040, started, solo, http://127.0.0.1:23800, http://127.0.0.1:23790, false\n"
        );
        assert_eq!(
            text(&answer, Format::Json, true),
            "{\"header\":{\"cluster_id\":\"48276a8f75b6a87\",\"member_id\":\"2e1259d415f2a040\",\
             \"raft_term\":2},\"members\":[{\"ID\":\"2e1259d415f2a040\",\"name\":\"solo\",\
             \"peerURLs\":[\"http://127.0.0.1:23800\"],\"clientURLs\":[\"http://127.0.0.1:23790\"]}]}\n"
        );
    }
}
