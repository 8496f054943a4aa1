//! Who this member is: ids, derived from what the operator writes, as etcd derives them, so that
//! all members of a new cluster agree on them before they have spoken.

use crate::urls::Url;
use sha1::{Digest, Sha1};
use std::fmt;

/// The id of a member or a cluster; displayed in hexadecimal without leading zeros.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Id(pub u64);

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}", self.0)
    }
}

/// A member's id: from its peer URLs and the cluster's token.
pub fn member_id(peer_urls: &[Url], token: &str) -> Id {
    let mut urls: Vec<String> = peer_urls.iter().map(Url::to_string).collect();
    urls.sort_unstable();
    let mut hash = Sha1::new();
    for url in urls {
        hash.update(url.as_bytes());
    }
    hash.update(token.as_bytes());
    first_eight(hash)
}

/// A cluster's id: from the ids of its first members.
pub fn cluster_id(members: impl IntoIterator<Item = Id>) -> Id {
    let mut ids: Vec<Id> = members.into_iter().collect();
    ids.sort_unstable();
    let mut hash = Sha1::new();
    for id in ids {
        hash.update(id.0.to_be_bytes());
    }
    first_eight(hash)
}

fn first_eight(hash: Sha1) -> Id {
    let digest = hash.finalize();
    Id(u64::from_be_bytes(digest[..8].try_into().expect("SHA-1 has 20 bytes")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn urls(text: &str) -> Vec<Url> {
        Url::parse_list(text).unwrap()
    }

    #[test]
    fn one_member_as_etcd_derives_it() {
        let member = member_id(&urls("http://127.0.0.1:23800"), "etcd-cluster");
        assert_eq!(member.to_string(), "2e1259d415f2a040");
        assert_eq!(member.0, 3_319_814_642_761_637_952);
        let cluster = cluster_id([member]);
        assert_eq!(cluster.to_string(), "48276a8f75b6a87");
        assert_eq!(cluster.0, 324_952_591_200_643_719);
    }

    #[test]
    fn three_members_as_etcd_derives_them() {
        let ids: Vec<Id> = (1..=3)
            .map(|n| member_id(&urls(&format!("http://10.0.0.{n}:2380")), "etcd-cluster"))
            .collect();
        let texts: Vec<String> = ids.iter().map(Id::to_string).collect();
        assert_eq!(texts, ["3ebc01aec68d6d70", "ee274cacce804b21", "fe9c64eaf3991d47"]);
        assert_eq!(cluster_id(ids).to_string(), "cd11e86392339c47");
    }

    #[test]
    fn the_order_of_urls_does_not_matter() {
        let one = member_id(&urls("http://a:1,http://b:2"), "t");
        assert_eq!(one, member_id(&urls("http://b:2,http://a:1"), "t"));
        assert_ne!(one, member_id(&urls("http://b:2,http://a:1"), "u"));
    }
}
