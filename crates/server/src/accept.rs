//! How connections are accepted, on every port.

use crate::open_files::{ConnectionLimit, Place};
use crate::socket::Coalescing;
use crate::warn_interval::WarnInterval;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tracing::{debug, warn};

/// When the system gives no more sockets, look again after this.
const BACKOFF: Duration = Duration::from_millis(100);
/// Who is turned away is told so within this time.
const TURN_AWAY_TIMEOUT: Duration = Duration::from_secs(1);

/// HTTP/2: empty settings, then the end of the connection before its first request. The reason is
/// ENHANCE_YOUR_CALM, 11.
const GOAWAY: &[u8] = b"\0\0\0\x04\0\0\0\0\0\
    \0\0\x1c\x07\0\0\0\0\0\0\0\0\0\0\0\0\x0btoo many connections";
const UNAVAILABLE: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\ncontent-type: text/plain\r\n\
    content-length: 21\r\nconnection: close\r\n\r\ntoo many connections\n";

/// The next connection, and where it comes from.
pub async fn connection(listener: &TcpListener) -> (TcpStream, SocketAddr) {
    static FAILURES: WarnInterval = WarnInterval::new();
    loop {
        match listener.accept().await {
            Ok((socket, from)) => {
                // Without this, answers wait for the other side's acknowledgements: 40 ms each.
                let _ = socket.set_nodelay(true);
                return (socket, from);
            }
            // One bad connection, or no more file descriptors: neither ends the member.
            Err(error) => {
                if let Some(times) = FAILURES.count(Instant::now()) {
                    warn!(%error, times, "cannot accept connections");
                }
                tokio::time::sleep(BACKOFF).await;
            }
        }
    }
}

/// What connects at a door.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Visitors {
    /// Clients: as many as the limit of open files leaves room for.
    Clients,
    /// Whoever asks for pages only: a fixed number.
    Pages,
    /// Members, and strangers on the peer port: a fixed number.
    Peers,
}

impl Visitors {
    /// What an operator is told when there are too many, and what can be done.
    fn refusal(self) -> &'static str {
        match self {
            Visitors::Clients => {
                "refused connections: there are as many as the limit of open files allows beside the \
                 member's own; raise it (ulimit -n, or LimitNOFILE of the service)"
            }
            Visitors::Pages => {
                "refused connections: there are as many as this port takes; it is for health checks"
            }
            Visitors::Peers => {
                "refused connections: there are as many as the peer port takes; see who connects there \
                 beside the members"
            }
        }
    }
}

/// A port that keeps no more connections than its limit says.
pub struct Door {
    listener: TcpListener,
    of: Visitors,
    limit: Arc<ConnectionLimit>,
    turned_away: Arc<ConnectionLimit>,
    refusals: WarnInterval,
}

impl Door {
    /// A door for connections `of` somebody. Those beyond `limit` are closed; as many at a time as
    /// `turned_away` allows are told why.
    pub fn new(
        listener: TcpListener,
        of: Visitors,
        limit: &Arc<ConnectionLimit>,
        turned_away: &Arc<ConnectionLimit>,
    ) -> Door {
        let (limit, turned_away) = (Arc::clone(limit), Arc::clone(turned_away));
        Door { listener, of, limit, turned_away, refusals: WarnInterval::new() }
    }

    /// The next connection for which there is a place, and where it comes from.
    pub async fn next(&self) -> (TcpStream, SocketAddr, Place) {
        loop {
            let (socket, from) = connection(&self.listener).await;
            match self.limit.take() {
                Some(place) => return (socket, from, place),
                None => self.refuse(socket, from),
            }
        }
    }

    fn refuse(&self, socket: TcpStream, from: SocketAddr) {
        if let Some(times) = self.refusals.count(Instant::now()) {
            warn!(
                of = ?self.of,
                max = self.limit.max(),
                %from,
                times,
                "{}",
                self.of.refusal()
            );
        }
        if let Some(place) = self.turned_away.take() {
            tokio::spawn(async move {
                let told = tokio::time::timeout(TURN_AWAY_TIMEOUT, turn_away(socket)).await;
                if !matches!(told, Ok(Ok(()))) {
                    debug!(%from, "a connection that was refused did not hear why");
                }
                drop(place);
            });
        }
    }
}

/// Says that there are too many connections, in the protocol that the client speaks.
async fn turn_away(socket: TcpStream) -> std::io::Result<()> {
    let mut socket = Coalescing::new(socket);
    let answer = if socket.announces_http2().await? { GOAWAY } else { UNAVAILABLE };
    socket.write_all(answer).await?;
    socket.shutdown().await?;
    // If it were closed with bytes unread, the client might lose the answer.
    while socket.read(&mut [0; 512]).await? > 0 {}
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_limit_of_open_files_is_blamed_on_it() {
        let blames = |of: Visitors| of.refusal().contains("ulimit");
        assert_eq!(
            [Visitors::Clients, Visitors::Pages, Visitors::Peers].map(blames),
            [true, false, false]
        );
        assert!(Visitors::Peers.refusal().starts_with("refused connections"));
    }

    #[test]
    fn lengths_of_what_is_said_are_right() {
        let text = &GOAWAY[9 + 9 + 8..];
        assert_eq!(text, b"too many connections");
        assert_eq!(usize::from(GOAWAY[9 + 2]), 8 + text.len());
        assert!(UNAVAILABLE.ends_with(b"\r\n\r\ntoo many connections\n"));
    }
}
