//! Why a request got no answer: the codes and texts that etcd's clients compare.

use replica::Reply;
use store::Refusal;
use tonic::{Code, Status};

/// What the store says no to.
pub fn refused(refusal: &Refusal) -> Status {
    let code = match refusal {
        Refusal::KeyNotProvided
        | Refusal::KeyNotFound
        | Refusal::ValueProvided
        | Refusal::LeaseProvided
        | Refusal::TooManyOps
        | Refusal::DuplicateKey
        | Refusal::InvalidSortOption
        | Refusal::TooManyKeys { .. }
        | Refusal::TooManyBytes { .. } => Code::InvalidArgument,
        Refusal::Compacted | Refusal::FutureRevision => Code::OutOfRange,
        Refusal::LeaseNotFound => Code::NotFound,
    };
    Status::new(code, refusal.to_string())
}

/// Whether a request reads or writes: some answers differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// It changes nothing.
    Read,
    /// It may have happened although the answer is a failure.
    Write,
}

/// What the node answers when it cannot do what was asked.
pub fn failed(reply: &Reply, kind: Kind) -> Status {
    match reply {
        // Its fate is unknown. etcd says so after its timeout, we as soon as it is known.
        Reply::Lost if kind == Kind::Write => Status::unavailable(
            "etcdserver: request timed out, possibly due to previous leader failure",
        ),
        Reply::Lost => Status::unavailable("etcdserver: leader changed"),
        Reply::NoLeader => no_leader(),
        Reply::TimedOut => Status::unavailable("etcdserver: request timed out"),
        Reply::Busy => busy(),
        Reply::Malformed => Status::invalid_argument("etcdserver: malformed request"),
        Reply::TransferRefused(raft::Refusal::NotLeader { .. }) => {
            Status::failed_precondition("etcdserver: not leader")
        }
        Reply::TransferRefused(_) => {
            Status::failed_precondition("etcdserver: bad leader transferee")
        }
        Reply::Applied { .. } | Reply::Published | Reply::Readable | Reply::Transferred(_) => {
            Status::internal("an answer of another kind than what was asked")
        }
    }
}

/// More is under way than the member takes on; nothing was done.
pub fn busy() -> Status {
    Status::resource_exhausted("etcdserver: too many requests")
}

/// The answer is longer than an answer may be; a write has happened all the same.
pub fn answer_too_large(bytes_max: usize) -> Status {
    Status::resource_exhausted(format!(
        "etcdserver: response is too large (more than {bytes_max} bytes); use a limit, or RangeStream"
    ))
}

/// No leader is known.
pub fn no_leader() -> Status {
    Status::unavailable("etcdserver: no leader")
}

/// Larger than `--max-request-bytes`.
pub fn too_large() -> Status {
    Status::invalid_argument("etcdserver: request is too large")
}

/// The client's own deadline passed.
pub fn deadline() -> Status {
    Status::deadline_exceeded("context deadline exceeded")
}

/// A method of etcd's that is not served, or of nobody's.
pub fn unimplemented(path: &str) -> Status {
    let name = path.trim_start_matches('/');
    let known = ["etcdserverpb.", "v3lockpb.", "v3electionpb."];
    if known.iter().any(|package| name.starts_with(package)) {
        return Status::unimplemented(format!("raft-kv does not serve {name} yet"));
    }
    let service = name.rsplit_once('/').map_or(name, |(service, _)| service);
    Status::unimplemented(format!("unknown service {service}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_and_texts_are_etcds() {
        let said = |refusal| {
            let status = refused(&refusal);
            (status.code(), status.message().to_owned())
        };
        for (refusal, code, text) in [
            (Refusal::KeyNotProvided, Code::InvalidArgument, "etcdserver: key is not provided"),
            (Refusal::KeyNotFound, Code::InvalidArgument, "etcdserver: key not found"),
            (Refusal::ValueProvided, Code::InvalidArgument, "etcdserver: value is provided"),
            (Refusal::LeaseProvided, Code::InvalidArgument, "etcdserver: lease is provided"),
            (
                Refusal::TooManyOps,
                Code::InvalidArgument,
                "etcdserver: too many operations in txn request",
            ),
            (
                Refusal::DuplicateKey,
                Code::InvalidArgument,
                "etcdserver: duplicate key given in txn request",
            ),
            (Refusal::InvalidSortOption, Code::InvalidArgument, "etcdserver: invalid sort option"),
            (
                Refusal::Compacted,
                Code::OutOfRange,
                "etcdserver: mvcc: required revision has been compacted",
            ),
            (
                Refusal::FutureRevision,
                Code::OutOfRange,
                "etcdserver: mvcc: required revision is a future revision",
            ),
            (Refusal::LeaseNotFound, Code::NotFound, "etcdserver: requested lease not found"),
        ] {
            assert_eq!(said(refusal), (code, text.to_owned()));
        }
    }

    #[test]
    fn what_is_not_served_says_so() {
        assert_eq!(
            unimplemented("/etcdserverpb.Watch/Watch").message(),
            "raft-kv does not serve etcdserverpb.Watch/Watch yet"
        );
        assert_eq!(unimplemented("/a.B/C").message(), "unknown service a.B");
    }
}
