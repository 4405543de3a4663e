//! A TCP listener with bounds: so many connections, each cut off when it stays silent.
//!
//! Without them a client that opens connections and says nothing would hold all file descriptors.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::serve::Listener;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, Sleep};

/// Connections at the same time; those beyond wait in the kernel's queue.
const CONNECTIONS_MAX: usize = 512;
/// How long nothing may move on a connection. Longer than any request may take.
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);

/// See the module.
#[derive(Debug)]
pub(super) struct BoundedListener {
    listener: TcpListener,
    room: Arc<Semaphore>,
    idle: Duration,
}

impl BoundedListener {
    pub(super) fn new(listener: TcpListener) -> Self {
        Self {
            listener,
            room: Arc::new(Semaphore::new(CONNECTIONS_MAX)),
            idle: IDLE_TIMEOUT,
        }
    }
}

impl Listener for BoundedListener {
    type Io = BoundedStream;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (BoundedStream, SocketAddr) {
        let room = Arc::clone(&self.room);
        let place = room
            .acquire_owned()
            .await
            .expect("the semaphore is never closed");
        let (stream, address) = Listener::accept(&mut self.listener).await;
        let idle_at = Box::pin(tokio::time::sleep(self.idle));
        (
            BoundedStream {
                stream,
                idle_at,
                idle: self.idle,
                _place: place,
            },
            address,
        )
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

/// One connection, with its place and its patience.
#[derive(Debug)]
pub(super) struct BoundedStream {
    stream: TcpStream,
    idle_at: Pin<Box<Sleep>>,
    idle: Duration,
    _place: OwnedSemaphorePermit,
}

impl BoundedStream {
    /// Passes progress on and starts the time anew; turns too long a wait into an error.
    fn timed<T>(
        &mut self,
        cx: &mut Context<'_>,
        polled: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if polled.is_ready() {
            self.idle_at.as_mut().reset(Instant::now() + self.idle);
            return polled;
        }
        self.idle_at
            .as_mut()
            .poll(cx)
            .map(|()| Err(io::ErrorKind::TimedOut.into()))
    }
}

impl AsyncRead for BoundedStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.stream).poll_read(cx, into);
        self.timed(cx, polled)
    }
}

impl AsyncWrite for BoundedStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.timed(cx, polled)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.stream).poll_flush(cx);
        self.timed(cx, polled)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.stream).poll_shutdown(cx);
        self.timed(cx, polled)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test]
    async fn a_silent_connection_is_cut_off_and_gives_its_place_back() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let idle = Duration::from_millis(20);
        let mut bounded = BoundedListener {
            listener,
            room: Arc::new(Semaphore::new(1)),
            idle,
        };
        let mut talker = TcpStream::connect(address).await.unwrap();
        talker.write_all(b"x").await.unwrap();
        let (mut stream, _) = bounded.accept().await;
        let mut byte = [0];
        stream
            .read_exact(&mut byte)
            .await
            .expect("what was said is heard");
        let error = stream
            .read_exact(&mut byte)
            .await
            .expect_err("then there is silence");
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);

        let _second = TcpStream::connect(address).await.unwrap();
        assert!(
            tokio::time::timeout(idle, bounded.accept()).await.is_err(),
            "there is one place, and it is taken"
        );
        drop(stream);
        bounded.accept().await;
    }
}
