//! Who the members are, as the log tells.

use proto::log::Publish;
use raft::NodeId;
use std::sync::Arc;

/// A member of the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Its id.
    pub id: NodeId,
    /// Its name; empty until it was started for the first time.
    pub name: String,
    /// Where its peers find it.
    pub peer_urls: Vec<String>,
    /// Where clients find it; empty until it was started for the first time.
    pub client_urls: Vec<String>,
    /// Receives the log, and does not vote.
    pub is_learner: bool,
}

/// All members, ascending by id. Replicated: the same on all members at the same index.
#[derive(Debug)]
pub(crate) struct Members {
    all: Arc<[Member]>,
}

impl Members {
    pub(crate) fn new(mut members: Vec<Member>) -> Members {
        members.sort_by_key(|member| member.id);
        Members { all: members.into() }
    }

    pub(crate) fn all(&self) -> Arc<[Member]> {
        Arc::clone(&self.all)
    }

    /// A member said its name and addresses. Returns whether that is news.
    pub(crate) fn publish(&mut self, publish: Publish) -> bool {
        let mut all = self.all.to_vec();
        let Some(member) = all.iter_mut().find(|member| member.id.0 == publish.member_id) else {
            return false;
        };
        if member.name == publish.name && member.client_urls == publish.client_urls {
            return false;
        }
        member.name = publish.name;
        member.client_urls = publish.client_urls;
        self.all = all.into();
        true
    }
}
