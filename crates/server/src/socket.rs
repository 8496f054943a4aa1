//! A socket that sends what one turn of the loop produced with one system call.
//!
//! The HTTP/2 library flushes after each frame of 256 bytes or more. Here a flush only notes that
//! it is wanted and wakes the connection's task; the task's next read, which is the first thing it
//! does when it runs again, sends the lot. So frames that are made in one turn leave together.
//!
//! What makes this sound: a connection of HTTP/2 always reads when its task runs. One of HTTP/1
//! may not, so nothing is held back once the peer's first bytes announce that.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};

/// More than this is sent at once, unless another bound is set.
const HELD_BYTES_MAX: usize = 64 << 10;

/// What a connection of HTTP/2 begins with.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// See the module.
#[derive(Debug)]
pub struct Coalescing<S> {
    socket: S,
    held: Vec<u8>,
    /// More than this is sent at once.
    held_bytes_max: usize,
    /// How much of `held` is sent.
    sent: usize,
    /// Whether to hold back at all.
    holds: bool,
    /// What was read to find out what the peer speaks, and is to be read again.
    early: Vec<u8>,
    /// How many bytes the socket has taken.
    taken: Arc<AtomicU64>,
}

impl<S> Coalescing<S> {
    /// A socket on which HTTP/2 will be spoken.
    pub fn new(socket: S) -> Coalescing<S> {
        Coalescing::with_bound(socket, HELD_BYTES_MAX)
    }

    /// A socket on which HTTP/2 will be spoken, and that holds back no more than this.
    pub fn with_bound(socket: S, held_bytes_max: usize) -> Coalescing<S> {
        Coalescing {
            socket,
            held: Vec::new(),
            held_bytes_max,
            sent: 0,
            holds: true,
            early: Vec::new(),
            taken: Arc::default(),
        }
    }

    /// How many bytes the socket has taken, now and later.
    pub fn taken(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.taken)
    }

    fn note_taken(&self, bytes: usize) {
        self.taken.fetch_add(bytes as u64, Ordering::Relaxed);
    }
}

impl<S: AsyncRead + Unpin> Coalescing<S> {
    /// Reads until it is clear whether the peer chose HTTP/2, and holds nothing back if not.
    ///
    /// # Errors
    /// When the peer is gone before.
    pub async fn announces_http2(&mut self) -> io::Result<bool> {
        while self.early.len() < PREFACE.len() && PREFACE.starts_with(&self.early) {
            let mut bytes = [0; PREFACE.len()];
            let wanted = PREFACE.len() - self.early.len();
            let n = self.socket.read(&mut bytes[..wanted]).await?;
            if n == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            self.early.extend_from_slice(&bytes[..n]);
        }
        self.holds = self.early == PREFACE;
        Ok(self.holds)
    }
}

impl<S: AsyncWrite + Unpin> Coalescing<S> {
    /// Sends what is held back.
    fn poll_drain(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.sent < self.held.len() {
            let rest = &self.held[self.sent..];
            let n = ready!(Pin::new(&mut self.socket).poll_write(context, rest))?;
            if n == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.sent += n;
            self.note_taken(n);
        }
        self.held.clear();
        self.sent = 0;
        // A burst does not hold its memory for the connection's life.
        if self.held.capacity() > self.held_bytes_max {
            self.held.shrink_to(self.held_bytes_max);
        }
        Poll::Ready(Ok(()))
    }

    /// Makes room for `bytes` more, if they can be held at all.
    fn poll_room(&mut self, context: &mut Context<'_>, bytes: usize) -> Poll<io::Result<bool>> {
        if self.holds && self.held.len() + bytes <= self.held_bytes_max {
            return Poll::Ready(Ok(true));
        }
        ready!(self.poll_drain(context))?;
        Poll::Ready(Ok(self.holds && bytes <= self.held_bytes_max))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Coalescing<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        // If the socket takes no more now, it wakes us; meanwhile reading goes on.
        if let Poll::Ready(Err(error)) = self.poll_drain(context) {
            return Poll::Ready(Err(error));
        }
        if !self.early.is_empty() {
            let n = self.early.len().min(buffer.remaining());
            buffer.put_slice(&self.early[..n]);
            self.early.drain(..n);
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.socket).poll_read(context, buffer)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Coalescing<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if ready!(self.poll_room(context, bytes.len()))? {
            self.held.extend_from_slice(bytes);
            return Poll::Ready(Ok(bytes.len()));
        }
        let n = ready!(Pin::new(&mut self.socket).poll_write(context, bytes))?;
        self.note_taken(n);
        Poll::Ready(Ok(n))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let bytes = slices.iter().map(|slice| slice.len()).sum();
        if ready!(self.poll_room(context, bytes))? {
            for slice in slices {
                self.held.extend_from_slice(slice);
            }
            return Poll::Ready(Ok(bytes));
        }
        let n = ready!(Pin::new(&mut self.socket).poll_write_vectored(context, slices))?;
        self.note_taken(n);
        Poll::Ready(Ok(n))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.holds {
            if !self.held.is_empty() {
                context.waker().wake_by_ref();
            }
            return Poll::Ready(Ok(()));
        }
        ready!(self.poll_drain(context))?;
        Pin::new(&mut self.socket).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_drain(context))?;
        Pin::new(&mut self.socket).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncWriteExt;

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
            let mut near = Coalescing::new(near);
            for _ in 0..3 {
                near.write_all(&[7; 300]).await.unwrap();
                near.flush().await.unwrap();
            }
            let mut buffer = [0; 2000];
            assert!(pending(far.read(&mut buffer)).await, "nothing has left yet");
            let mut byte = [0; 1];
            assert!(pending(near.read(&mut byte)).await);
            assert_eq!(far.read(&mut buffer).await.unwrap(), 900);
        });
    }

    #[test]
    fn a_slow_peer_gets_every_byte_in_order() {
        run(async {
            let (near, mut far) = tokio::io::duplex(1000);
            let mut near = Coalescing::new(near);
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

    #[test]
    fn http1_is_not_held_back() {
        run(async {
            let (near, mut far) = tokio::io::duplex(1 << 20);
            let mut near = Coalescing::new(near);
            far.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
            assert!(!near.announces_http2().await.unwrap());
            let mut request = [0; 18];
            near.read_exact(&mut request).await.unwrap();
            assert_eq!(&request, b"GET / HTTP/1.1\r\n\r\n");
            let mut buffer = [0; 100];
            near.write_all(b"HTTP/1.1 200 OK\r\n").await.unwrap();
            near.flush().await.unwrap();
            assert_eq!(far.read(&mut buffer).await.unwrap(), 17);
        });
    }

    #[test]
    fn the_preface_is_read_again_however_it_comes() {
        run(async {
            let (near, mut far) = tokio::io::duplex(1 << 20);
            let mut near = Coalescing::new(near);
            for byte in PREFACE {
                assert!(pending(near.announces_http2()).await);
                far.write_all(&[*byte]).await.unwrap();
            }
            assert!(near.announces_http2().await.unwrap());
            far.write_all(b"x").await.unwrap();
            let mut all = vec![0; PREFACE.len() + 1];
            near.read_exact(&mut all).await.unwrap();
            assert_eq!(all, [PREFACE, b"x"].concat());
        });
    }
}
