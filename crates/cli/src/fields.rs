//! The fields format: one named field per line.

use std::fmt::Write;

use proto::etcdserverpb::response_op::Response;
use proto::etcdserverpb::{MemberListResponse, ResponseHeader, StatusResponse};
use proto::mvccpb::KeyValue;

use crate::output::Answer;
use crate::quote::quote;

/// Fields of one answer, in order.
struct Fields {
    out: String,
    hex: bool,
}

pub(crate) fn render(answer: &Answer<'_>, hex: bool) -> String {
    let mut fields = Fields { out: String::new(), hex };
    fields.answer(answer);
    fields.out
}

impl Fields {
    fn field(&mut self, name: &str, value: impl std::fmt::Display) {
        writeln!(self.out, "\"{name}\" : {value}").expect("a string takes what is written");
    }

    fn text(&mut self, name: &str, value: impl AsRef<[u8]>) {
        self.field(name, quote(value.as_ref()));
    }

    fn id(&mut self, name: &str, id: u64) {
        if self.hex {
            self.field(name, format_args!("{id:x}"));
        } else {
            self.field(name, id);
        }
    }

    fn answer(&mut self, answer: &Answer<'_>) {
        match answer {
            Answer::Get(range) => {
                self.header(range.header.as_ref());
                self.pairs("", &range.kvs);
                self.field("More", range.more);
                self.field("Count", range.count);
            }
            Answer::Put(put) => {
                self.header(put.header.as_ref());
                self.pairs("Prev", put.prev_kv.as_slice());
            }
            Answer::Delete(delete) => {
                self.header(delete.header.as_ref());
                self.field("Deleted", delete.deleted);
                self.pairs("Prev", &delete.prev_kvs);
            }
            Answer::Txn(txn) => {
                self.header(txn.header.as_ref());
                self.field("Succeeded", txn.succeeded);
                for op in &txn.responses {
                    match &op.response {
                        Some(Response::ResponseRange(range)) => self.answer(&Answer::Get(range)),
                        Some(Response::ResponsePut(put)) => self.answer(&Answer::Put(put)),
                        Some(Response::ResponseDeleteRange(delete)) => {
                            self.answer(&Answer::Delete(delete));
                        }
                        Some(Response::ResponseTxn(txn)) => self.answer(&Answer::Txn(txn)),
                        None => {}
                    }
                }
            }
            Answer::Members(list) => self.members(list),
            Answer::Status(statuses) => {
                for (endpoint, status) in *statuses {
                    self.status(endpoint, status);
                }
            }
            Answer::Health(endpoints) => {
                for health in *endpoints {
                    self.text("Endpoint", &health.endpoint);
                    self.field("Health", health.error.is_empty());
                    self.field("Took", &health.took);
                    self.field("Error", &health.error);
                    self.out.push('\n');
                }
            }
        }
    }

    fn header(&mut self, header: Option<&ResponseHeader>) {
        let header = header.cloned().unwrap_or_default();
        self.id("ClusterID", header.cluster_id);
        self.id("MemberID", header.member_id);
        // Answers about the cluster have no revision.
        if header.revision > 0 {
            self.field("Revision", header.revision);
        }
        self.field("RaftTerm", header.raft_term);
    }

    fn pairs(&mut self, prefix: &str, kvs: &[KeyValue]) {
        for kv in kvs {
            self.text(&format!("{prefix}Key"), &kv.key);
            self.field(&format!("{prefix}CreateRevision"), kv.create_revision);
            self.field(&format!("{prefix}ModRevision"), kv.mod_revision);
            self.field(&format!("{prefix}Version"), kv.version);
            self.text(&format!("{prefix}Value"), &kv.value);
            let lease = format!("{prefix}Lease");
            if self.hex {
                self.field(&lease, format_args!("{:016x}", kv.lease));
            } else {
                self.field(&lease, kv.lease);
            }
        }
    }

    fn members(&mut self, list: &MemberListResponse) {
        self.header(list.header.as_ref());
        for member in &list.members {
            self.id("ID", member.id);
            self.text("Name", &member.name);
            for url in &member.peer_urls {
                self.text("PeerURL", url);
            }
            for url in &member.client_urls {
                self.text("ClientURL", url);
            }
            self.field("IsLearner", member.is_learner);
            self.out.push('\n');
        }
    }

    fn status(&mut self, endpoint: &str, status: &StatusResponse) {
        self.header(status.header.as_ref());
        self.text("Version", &status.version);
        self.text("StorageVersion", &status.storage_version);
        self.field("DBSize", status.db_size);
        self.field("DBSizeInUse", status.db_size_in_use);
        self.field("DBSizeQuota", status.db_size_quota);
        self.field("Leader", status.leader);
        self.field("IsLearner", status.is_learner);
        self.field("RaftIndex", status.raft_index);
        self.field("RaftAppliedIndex", status.raft_applied_index);
        self.field("Errors", format_args!("[{}]", status.errors.join(" ")));
        self.text("Endpoint", endpoint);
        let downgrade = status.downgrade_info.clone().unwrap_or_default();
        self.text("DowngradeTargetVersion", downgrade.target_version);
        self.field("DowngradeEnabled", downgrade.enabled);
        self.out.push('\n');
    }
}
