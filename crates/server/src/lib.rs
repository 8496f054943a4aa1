//! One member process: threads, gRPC, HTTP.

pub mod config;
pub mod flags;
pub mod identity;
pub mod urls;
