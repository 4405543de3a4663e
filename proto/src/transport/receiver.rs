//! The reading half of a connection: frames to messages, in batches.

use std::{fmt, marker::PhantomData, sync::Arc};

use serde::de::DeserializeOwned;

use super::{
    CloseCode, ConnectionStats, Disconnect, FLUSH_TIMEOUT,
    connection::{Link, count},
};
use crate::codec::{DecodeError, FrameBuffer};

/// Bytes taken from the stream in one read.
const READ_BYTES_MAX: usize = 64 * 1024;

/// Receives the peer's messages, in order.
///
/// Reading is how the peer's sending is paced: whoever stops calling stops the peer after one window
/// (1 MiB), and costs no more memory than that.
pub struct Receiver<In> {
    link: Arc<Link>,
    stream: quinn::RecvStream,
    frames: FrameBuffer,
    message: PhantomData<fn() -> In>,
}

impl<In> fmt::Debug for Receiver<In> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Receiver")
            .field("buffered", &self.frames.len())
            .finish_non_exhaustive()
    }
}

/// Why there are no more messages.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RecvError {
    /// The connection has ended.
    #[error("connection ended")]
    Closed(#[source] Disconnect),
    /// The peer sent something that is no message. The connection has been closed with
    /// [`CloseCode::BadFrame`] and the error's code as reason.
    #[error("peer sent a bad frame")]
    BadFrame(#[source] DecodeError),
}

impl<In: DeserializeOwned> Receiver<In> {
    pub(super) fn new(link: Arc<Link>, stream: quinn::RecvStream) -> Self {
        Self {
            link,
            stream,
            frames: FrameBuffer::new(),
            message: PhantomData,
        }
    }

    /// Waits for messages and appends up to `max` (at least one) to `out`, as many as are there.
    ///
    /// Cancelling it loses nothing.
    ///
    /// # Errors
    /// [`RecvError`], after all messages before it have been given out; for ever.
    pub async fn recv_batch(&mut self, out: &mut Vec<In>, max: usize) -> Result<(), RecvError> {
        let first = self.recv().await?;
        out.push(first);
        for _ in 1..max {
            // An error waits for the next call: what came before it is good.
            match self.frames.next_frame() {
                Ok(Some(message)) => out.push(message),
                Ok(None) | Err(_) => break,
            }
            count(&self.link.counters.frames_received, 1);
        }
        Ok(())
    }

    /// Waits for one message.
    ///
    /// Cancelling it loses nothing.
    ///
    /// # Errors
    /// [`RecvError`], for ever.
    pub async fn recv(&mut self) -> Result<In, RecvError> {
        loop {
            match self.frames.next_frame() {
                Ok(Some(message)) => {
                    count(&self.link.counters.frames_received, 1);
                    return Ok(message);
                }
                Ok(None) => self.read().await?,
                Err(error) => return Err(self.refuse(error)),
            }
        }
    }

    /// What went over the connection so far, in both directions.
    #[must_use]
    pub fn stats(&self) -> ConnectionStats {
        self.link.counters.snapshot()
    }

    async fn read(&mut self) -> Result<(), RecvError> {
        match self.stream.read_chunk(READ_BYTES_MAX, true).await {
            Ok(Some(chunk)) => {
                count(&self.link.counters.bytes_received, chunk.bytes.len());
                self.frames.push(&chunk.bytes);
                Ok(())
            }
            Ok(None) if !self.frames.is_empty() => Err(self.refuse(DecodeError::Truncated)),
            Ok(None) => Err(RecvError::Closed(self.ended().await)),
            Err(quinn::ReadError::ConnectionLost(error)) => Err(RecvError::Closed(error.into())),
            Err(error) => {
                let detail = error.to_string();
                let ended = self.link.disconnect();
                Err(RecvError::Closed(
                    ended.unwrap_or(Disconnect::Transport { detail }),
                ))
            }
        }
    }

    /// The peer has said its last word; its reason for closing follows within its flush time.
    async fn ended(&self) -> Disconnect {
        let closed = tokio::time::timeout(FLUSH_TIMEOUT, self.link.quic.closed()).await;
        closed.map_or_else(
            |_| Disconnect::ByPeer {
                code: CloseCode::Done,
                reason: String::new(),
            },
            Disconnect::from,
        )
    }

    fn refuse(&self, error: DecodeError) -> RecvError {
        tracing::warn!(code = error.code(), %error, "bad frame, closing the connection");
        let reason = format!("{}: {error}", error.code());
        // At once: nothing that is still queued for such a peer is worth delivering.
        self.link
            .quic
            .close(CloseCode::BadFrame.to_wire(), reason.as_bytes());
        RecvError::BadFrame(error)
    }
}
