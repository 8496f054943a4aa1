//! How connections are accepted, on every port.

use std::net::SocketAddr;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tracing::warn;

/// When the system gives no more sockets, look again after this.
const BACKOFF: Duration = Duration::from_millis(100);

/// The next connection, and where it comes from.
pub async fn connection(listener: &TcpListener) -> (TcpStream, SocketAddr) {
    loop {
        match listener.accept().await {
            Ok((socket, from)) => {
                // Without this, answers wait for the other side's acknowledgements: 40 ms each.
                let _ = socket.set_nodelay(true);
                return (socket, from);
            }
            // One bad connection, or no more file descriptors: neither ends the member.
            Err(error) => {
                warn!(%error, "cannot accept a connection");
                tokio::time::sleep(BACKOFF).await;
            }
        }
    }
}
