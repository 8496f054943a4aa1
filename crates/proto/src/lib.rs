//! The wire: protocol buffers of the client API, of gRPC's health check, and
//! between members.
//!
//! | module | package | what |
//! |---|---|---|
//! | [`mvccpb`] | `mvccpb` | keys, values and events of etcd's v3 API |
//! | [`authpb`] | `authpb` | its users, roles and permissions |
//! | [`etcdserverpb`] | `etcdserverpb` | its requests, answers and services |
//! | [`health`] | `grpc.health.v1` | gRPC's health checking protocol |
//! | [`peer`] | `raftkv.peer.v1` | what members say to each other |
//! | [`log`] | `raftkv.log.v1` | what entries of the log carry besides requests |
//!
//! The messages are plain structs that any protobuf runtime of the same schema
//! can read; `bytes` fields are [`bytes::Bytes`], so a decoded value shares the
//! buffer it came in. Stubs of the services need the feature `grpc`.
//!
//! The code under `src/generated` is checked in, so that building needs no
//! protobuf compiler. After a change of a `.proto` file:
//!
//! ```text
//! cargo run --manifest-path crates/proto/generate/Cargo.toml
//! ```
//!
//! With `-- --check` the same command changes nothing and fails if the
//! generated files are stale.

macro_rules! package {
    ($(#[$doc:meta])* $module:ident, $file:literal) => {
        $(#[$doc])*
        // What is generated follows its generator's style.
        #[allow(missing_docs, unreachable_pub, clippy::all, rustdoc::all)]
        pub mod $module {
            include!(concat!("generated/", $file, ".rs"));
        }
    };
}

package!(
    /// Keys, values and events (package `mvccpb`).
    mvccpb,
    "mvccpb"
);
package!(
    /// Users, roles and permissions (package `authpb`).
    authpb,
    "authpb"
);
package!(
    /// The client API: requests, answers, services (package `etcdserverpb`).
    etcdserverpb,
    "etcdserverpb"
);
package!(
    /// gRPC's health checking protocol (package `grpc.health.v1`).
    health,
    "grpc.health.v1"
);
package!(
    /// Messages between members (package `raftkv.peer.v1`).
    peer,
    "raftkv.peer.v1"
);
package!(
    /// What log entries carry besides requests (package `raftkv.log.v1`).
    log,
    "raftkv.log.v1"
);
