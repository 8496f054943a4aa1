//! A socket that sends what one turn of the loop produced with one system call.
//!
//! The HTTP/2 library flushes after each large frame. Here a flush only wakes the connection's
//! task, and the task's next read, which is the first thing it does when it runs again, sends
//! the lot: by then all clients that an answer woke have added their next requests.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// More than this is sent at once.
const HELD_BYTES_MAX: usize = 64 << 10;

/// See the module.
pub(super) struct Gathering<S> {
    socket: S,
    held: Vec<u8>,
    /// How much of `held` is sent.
    sent: usize,
}

impl<S: AsyncWrite + Unpin> Gathering<S> {
    pub(super) fn new(socket: S) -> Gathering<S> {
        Gathering { socket, held: Vec::with_capacity(HELD_BYTES_MAX), sent: 0 }
    }

    /// Sends what is held back.
    fn poll_drain(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.sent < self.held.len() {
            let rest = &self.held[self.sent..];
            let n = ready!(Pin::new(&mut self.socket).poll_write(context, rest))?;
            if n == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.sent += n;
        }
        self.held.clear();
        self.sent = 0;
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Gathering<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        // If the socket takes no more now, it wakes us; meanwhile reading goes on.
        if let Poll::Ready(Err(error)) = self.poll_drain(context) {
            return Poll::Ready(Err(error));
        }
        Pin::new(&mut self.socket).poll_read(context, buffer)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Gathering<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.held.len() + bytes.len() > HELD_BYTES_MAX {
            ready!(self.poll_drain(context))?;
            if bytes.len() > HELD_BYTES_MAX {
                return Pin::new(&mut self.socket).poll_write(context, bytes);
            }
        }
        self.held.extend_from_slice(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.held.is_empty() {
            context.waker().wake_by_ref();
        }
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_drain(context))?;
        Pin::new(&mut self.socket).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    fn run(test: impl Future<Output = ()>) {
        tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(test);
    }

    /// Polls once.
    async fn pending<T>(future: impl Future<Output = T>) -> bool {
        let mut future = std::pin::pin!(future);
        std::future::poll_fn(|context| Poll::Ready(future.as_mut().poll(context).is_pending()))
            .await
    }

    #[test]
    fn what_is_flushed_leaves_with_the_next_read() {
        run(async {
            let (near, mut far) = tokio::io::duplex(1 << 20);
            let mut near = Gathering::new(near);
            for _ in 0..3 {
                near.write_all(&[7; 300]).await.unwrap();
                near.flush().await.unwrap();
            }
            let mut buffer = [0; 2000];
            assert!(pending(far.read(&mut buffer)).await, "nothing has left yet");
            assert!(pending(near.read(&mut [0])).await);
            assert_eq!(far.read(&mut buffer).await.unwrap(), 900);
        });
    }

    #[test]
    fn a_slow_peer_gets_every_byte_in_order() {
        run(async {
            let (near, mut far) = tokio::io::duplex(1000);
            let mut near = Gathering::new(near);
            let sent: Vec<u8> = (0..400_000_u32).map(|n| (n.wrapping_mul(n) >> 3) as u8).collect();
            let copy = sent.clone();
            let writer = tokio::spawn(async move {
                // Sizes around every bound: tiny, frames, beyond what is held.
                let mut rest = &copy[..];
                for size in [1, 9, 300, 16_384, 70_000, 65_536, 3].into_iter().cycle() {
                    let (now, later) = rest.split_at(size.min(rest.len()));
                    near.write_all(now).await.unwrap();
                    near.flush().await.unwrap();
                    rest = later;
                    if rest.is_empty() {
                        break;
                    }
                }
                near.shutdown().await.unwrap();
            });
            let mut got = Vec::new();
            far.read_to_end(&mut got).await.unwrap();
            writer.await.unwrap();
            assert!(got == sent);
        });
    }
}
