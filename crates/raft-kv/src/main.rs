//! The Raft-KV binary.
fn main() {}
