#![doc = include_str!("../README.md")]

mod client;
mod endpoints;
mod error;
mod request;
mod txn;

pub use client::{Client, Options};
pub use error::{Code, Error};
pub use request::{Delete, Get, Put, SortOrder, SortTarget};
pub use txn::{Compare, Comparison, Op, Txn};

/// Requests and answers as they are on the wire.
pub use proto::{etcdserverpb as api, mvccpb::KeyValue};
