//! The writing half of a connection: a bounded queue, and a task that writes it out in batches.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::BytesMut;
use serde::Serialize;
use tokio::sync::mpsc;

use super::{
    CloseCode, ConnectionStats, Disconnect, QueueBound,
    connection::{Link, count},
};
use crate::codec;

/// A batch is written once it is this large, or once the queue is empty: 64 KiB is one pass through
/// QUIC's packet assembly at full width, and small enough to stay in a core's cache.
const BATCH_BYTES: usize = 64 * 1024;

/// Messages taken from the queue in one go.
const BATCH_MESSAGES_MAX: usize = 256;

/// How long a closing connection may take to deliver what was queued: 2 s. Longer would let a peer
/// that does not read keep our memory, shorter would lose a refusal on a slow path.
pub const FLUSH_TIMEOUT: Duration = Duration::from_secs(2);

/// Sends messages to the peer, in order. Cheap to clone; when the last clone is dropped, what is
/// queued is flushed and the connection closed with [`CloseCode::Done`].
pub struct Sender<Out> {
    queue: mpsc::Sender<Weighed<Out>>,
    weigh: fn(&Out) -> usize,
    budget: Arc<Budget>,
    link: Arc<Link>,
}

/// A message with its weight in bytes.
type Weighed<Out> = (Out, usize);

/// The bytes that wait in one queue.
struct Budget {
    queued: AtomicUsize,
    max: usize,
}

impl Budget {
    /// Whether there was room.
    fn try_take(&self, bytes: usize) -> bool {
        let before = self.queued.fetch_add(bytes, Ordering::Relaxed);
        let fits = before == 0 || before.saturating_add(bytes) <= self.max;
        if !fits {
            self.give(bytes);
        }
        fits
    }

    fn give(&self, bytes: usize) {
        self.queued.fetch_sub(bytes, Ordering::Relaxed);
    }
}

impl<Out> Clone for Sender<Out> {
    fn clone(&self) -> Self {
        Self {
            queue: self.queue.clone(),
            weigh: self.weigh,
            budget: Arc::clone(&self.budget),
            link: Arc::clone(&self.link),
        }
    }
}

impl<Out> fmt::Debug for Sender<Out> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sender")
            .field("queue_free", &self.queue.capacity())
            .finish_non_exhaustive()
    }
}

/// Why a message was not queued. The message comes back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TrySendError<Out> {
    /// The queue is full, of messages or of bytes: the peer, or the path to it, is slower than we are.
    #[error("send queue is full")]
    Full(Out),
    /// The connection is closed or closing.
    #[error("connection is closed")]
    Closed(Out),
}

/// The connection was closed before the message could be queued. The message comes back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("connection is closed")]
pub struct SendError<Out>(pub Out);

impl<Out> Sender<Out> {
    /// Queues a message without waiting. May be called from any thread, inside a runtime or not.
    ///
    /// `Ok` means queued, not delivered: the protocol's acknowledgements say what arrived.
    ///
    /// # Errors
    /// [`TrySendError`], with the message.
    pub fn try_send(&self, message: Out) -> Result<(), TrySendError<Out>> {
        let weight = (self.weigh)(&message);
        if !self.budget.try_take(weight) {
            count(&self.link.counters.sends_refused, 1);
            return Err(TrySendError::Full(message));
        }
        self.queue.try_send((message, weight)).map_err(|error| {
            self.budget.give(weight);
            match error {
                mpsc::error::TrySendError::Full((message, _)) => {
                    count(&self.link.counters.sends_refused, 1);
                    TrySendError::Full(message)
                }
                mpsc::error::TrySendError::Closed((message, _)) => TrySendError::Closed(message),
            }
        })
    }

    /// Queues a message, waiting for room among the messages, not for bytes. Cancelled before it returns, the message is not sent.
    ///
    /// # Errors
    /// [`SendError`], with the message.
    pub async fn send(&self, message: Out) -> Result<(), SendError<Out>> {
        let Ok(place) = self.queue.reserve().await else {
            return Err(SendError(message));
        };
        let weight = (self.weigh)(&message);
        self.budget.queued.fetch_add(weight, Ordering::Relaxed);
        place.send((message, weight));
        Ok(())
    }

    /// How many messages wait to be written. Others may be sending meanwhile.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.queue.max_capacity() - self.queue.capacity()
    }

    /// Closes the connection after what is queued has reached the peer, or after [`FLUSH_TIMEOUT`].
    ///
    /// Returns at once and may be called from any thread; from now on nothing can be queued. The first
    /// call decides code and reason.
    pub fn close(&self, code: CloseCode, reason: &str) {
        self.link.closing.send_if_modified(|closing| {
            let first = closing.is_none();
            if first {
                *closing = Some((code, reason.to_owned()));
            }
            first
        });
    }

    /// Waits until the connection is closed, by whichever side.
    pub async fn closed(&self) -> Disconnect {
        self.link.quic.closed().await.into()
    }

    /// How the connection ended, if it has.
    #[must_use]
    pub fn disconnect(&self) -> Option<Disconnect> {
        self.link.disconnect()
    }

    /// What went over the connection so far, in both directions.
    #[must_use]
    pub fn stats(&self) -> ConnectionStats {
        self.link.counters.snapshot()
    }
}

/// Starts the writing task of a connection.
pub(super) fn start<Out: Serialize + Send + 'static>(
    link: Arc<Link>,
    stream: quinn::SendStream,
    bound: QueueBound<Out>,
) -> Sender<Out> {
    let (sender, queue) = mpsc::channel(bound.messages.max(1));
    let budget = Arc::new(Budget {
        queued: AtomicUsize::new(0),
        max: bound.bytes,
    });
    let writer = Writer {
        queue,
        budget: Arc::clone(&budget),
        stream,
        link: Arc::clone(&link),
        batch: BytesMut::new(),
    };
    tokio::spawn(writer.run());
    Sender {
        queue: sender,
        weigh: bound.weigh,
        budget,
        link,
    }
}

struct Writer<Out> {
    queue: mpsc::Receiver<Weighed<Out>>,
    budget: Arc<Budget>,
    stream: quinn::SendStream,
    link: Arc<Link>,
    batch: BytesMut,
}

/// Why the writer stopped before everything was delivered.
enum Stopped {
    /// The connection is gone; there is nobody left to tell.
    ConnectionLost,
    /// A message of ours does not fit the wire. Dropping it would break the order, so the connection
    /// goes, and both sides reconcile on the next one.
    Unencodable,
}

impl<Out: Serialize> Writer<Out> {
    async fn run(mut self) {
        let link = Arc::clone(&self.link);
        let pumped = tokio::select! {
            biased;
            pumped = self.pump() => pumped,
            _ = link.quic.closed() => Err(Stopped::ConnectionLost),
            () = flush_deadline(&link) => Ok(()),
        };
        let (code, reason) = match pumped {
            Ok(()) => link
                .closing
                .borrow()
                .clone()
                .unwrap_or((CloseCode::Done, String::new())),
            Err(Stopped::Unencodable) => (CloseCode::Internal, "message too long".to_owned()),
            Err(Stopped::ConnectionLost) => return,
        };
        link.quic.close(code.to_wire(), reason.as_bytes());
    }

    /// Writes messages until the senders are gone or want to close, then waits until all arrived.
    async fn pump(&mut self) -> Result<(), Stopped> {
        let link = Arc::clone(&self.link);
        let mut messages = Vec::with_capacity(BATCH_MESSAGES_MAX);
        let mut open = true;
        loop {
            tokio::select! {
                biased;
                () = link.asked_to_close(), if open => {
                    open = false;
                    self.queue.close();
                }
                taken = self.queue.recv_many(&mut messages, BATCH_MESSAGES_MAX) => {
                    if taken == 0 {
                        break;
                    }
                    self.append(&mut messages).await?;
                    if self.queue.is_empty() {
                        self.write().await?;
                    }
                }
            }
        }
        self.write().await?;
        self.stream.finish().map_err(|_| Stopped::ConnectionLost)?;
        // Resolves when the peer's transport has everything.
        self.stream
            .stopped()
            .await
            .map(drop)
            .map_err(|_| Stopped::ConnectionLost)
    }

    async fn append(&mut self, messages: &mut Vec<Weighed<Out>>) -> Result<(), Stopped> {
        for (message, weight) in messages.drain(..) {
            self.budget.give(weight);
            if let Err(error) = codec::encode(&message, &mut self.batch) {
                tracing::error!(%error, "message cannot be sent, closing the connection");
                return Err(Stopped::Unencodable);
            }
            count(&self.link.counters.frames_sent, 1);
            if self.batch.len() >= BATCH_BYTES {
                self.write().await?;
            }
        }
        Ok(())
    }

    async fn write(&mut self) -> Result<(), Stopped> {
        if self.batch.is_empty() {
            return Ok(());
        }
        let batch = self.batch.split().freeze();
        count(&self.link.counters.bytes_sent, batch.len());
        self.stream
            .write_chunk(batch)
            .await
            .map_err(|_| Stopped::ConnectionLost)
    }
}

/// Ends when a close has been asked for and its time to flush is over.
async fn flush_deadline(link: &Link) {
    link.asked_to_close().await;
    tokio::time::sleep(FLUSH_TIMEOUT).await;
}
