//! A gRPC server that does nothing, made from the parts of ours: the cost of the calls alone.
//!
//! Three of them stand for a cluster, so that connections spread alike; a row of a comparison is
//! driven against them as against members.

use std::net::{SocketAddr, TcpListener};

use crate::trouble::{OrTrouble, Outcome};

/// Serves until it is killed.
pub fn serve(listen: SocketAddr) -> Outcome {
    let listener = TcpListener::bind(listen).or_trouble(listen)?;
    server::null::serve(listener).or_trouble("the empty server")
}
