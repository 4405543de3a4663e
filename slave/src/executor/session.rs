//! One connection of an executor: frames in, frames out, both bounded.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::BytesMut;
use meros_proto::codec::{FrameBuffer, encode};
use meros_proto::executor::TASKS_PER_EXECUTOR_MAX;
use meros_proto::message::executor::{ExecutorToSlave, SlaveToExecutor};
use meros_slave_core::{ContainerId, Event, SessionId};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio::time::{Instant, timeout, timeout_at};
use tracing::{debug, warn};

use super::pace::{PER_MESSAGE, Pace};
use crate::shell::inbox::{Inbox, Input};

/// Room for what an executor is told: when it subscribes, all tasks that it may have come at once, and their
/// kills. Beyond it the connection is closed, and all that matters is told again on the next.
const EXECUTOR_QUEUE: usize = 2 * TASKS_PER_EXECUTOR_MAX + 1_024;
/// One read; an update takes a few hundred bytes.
const READ_BYTES: usize = 16 << 10;
/// An executor that does not read for so long is disconnected.
const WRITE_TIMEOUT: Duration = Duration::from_secs(30);
/// An executor that says nothing at all for so long, once connected, takes a place for naught.
const FIRST_MESSAGE_TIMEOUT: Duration = Duration::from_secs(10);
/// So long what an executor sent before it went is heard.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// Messages of frameworks that find so many others waiting for their executor are dropped.
const MESSAGES_WAITING_MAX: usize = 16;
/// Bytes of messages of frameworks that wait for all executors together; more are dropped.
const MESSAGES_BYTES_MAX: usize = 64 << 20;

/// Numbers and serves connections of executors. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Sessions {
    inbox: Inbox,
    last: Arc<AtomicU64>,
    /// Bytes left for messages of frameworks.
    room: Arc<Semaphore>,
}

/// What an executor is told next, and the room that it takes.
type Told = (SlaveToExecutor, Option<OwnedSemaphorePermit>);

/// Where the core puts what an executor is told.
#[derive(Debug)]
pub(crate) struct Outbox {
    sender: mpsc::Sender<Told>,
    room: Arc<Semaphore>,
}

/// What an executor is told, in order; closed by the core.
#[derive(Debug)]
pub(crate) struct Queue(mpsc::Receiver<Told>);

/// What became of something that an executor is to be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Push {
    /// It is told when its turn comes.
    Waits,
    /// It was a message of a framework, and there is no room for it.
    Dropped,
    /// The executor does not read, or is gone: nothing that follows may overtake this one.
    Full,
}

impl Outbox {
    /// Never waits.
    pub(crate) fn push(&self, message: SlaveToExecutor) -> Push {
        let room = match &message {
            SlaveToExecutor::Message(data) => match self.room_for(data.len()) {
                None => return Push::Dropped,
                room => room,
            },
            _ => None,
        };
        match self.sender.try_send((message, room)) {
            Ok(()) => Push::Waits,
            Err(_) => Push::Full,
        }
    }

    fn room_for(&self, bytes: usize) -> Option<OwnedSemaphorePermit> {
        let waiting = self.sender.max_capacity() - self.sender.capacity();
        let bytes = u32::try_from(bytes).ok()?;
        let room = Arc::clone(&self.room);
        (waiting < MESSAGES_WAITING_MAX)
            .then(|| room.try_acquire_many_owned(bytes).ok())
            .flatten()
    }
}

impl Queue {
    /// The next; none when it is closed and empty.
    pub(crate) async fn recv(&mut self) -> Option<SlaveToExecutor> {
        self.0.recv().await.map(|(message, _)| message)
    }

    /// The same, for bodies.
    pub(crate) fn poll_recv(&mut self, cx: &mut Context<'_>) -> Poll<Option<SlaveToExecutor>> {
        let next = self.0.poll_recv(cx);
        next.map(|told| told.map(|(message, _)| message))
    }
}

impl Sessions {
    pub(crate) fn new(inbox: Inbox) -> Self {
        Self {
            inbox,
            last: Arc::default(),
            room: Arc::new(Semaphore::new(MESSAGES_BYTES_MAX)),
        }
    }

    /// A connection that somebody else serves: its number, and both ends of its queue.
    pub(crate) fn open(&self) -> (SessionId, Outbox, Queue) {
        let session = SessionId(self.last.fetch_add(1, Ordering::Relaxed) + 1);
        let (sender, queue) = mpsc::channel(EXECUTOR_QUEUE);
        let room = Arc::clone(&self.room);
        (session, Outbox { sender, room }, Queue(queue))
    }

    /// Serves one connection until either side ends it, or all is `over`.
    pub(super) fn serve(
        &self,
        container: ContainerId,
        stream: UnixStream,
        pace: Arc<Pace>,
        mut over: watch::Receiver<bool>,
    ) -> impl Future<Output = ()> + Send + use<> {
        let (session, sender, queue) = self.open();
        let inbox = self.inbox.clone();
        async move {
            let (reader, writer) = stream.into_split();
            if inbox
                .send(Input::ExecutorConnected(session, sender))
                .await
                .is_err()
            {
                return;
            }
            let mut hear = pin!(hear(session, container, reader, &inbox, &pace));
            let over = async move {
                let is_over = over.wait_for(|over| *over).await.is_ok();
                if !is_over {
                    // The slave goes: what is to be told is still written.
                    std::future::pending::<()>().await;
                }
            };
            let mut over = pin!(over);
            let is_gone = tokio::select! {
                () = &mut hear => false,
                is_gone = tell(session, writer, queue) => is_gone,
                () = &mut over => false,
            };
            if is_gone {
                tokio::select! {
                    // At its end or not, the session is over.
                    _ = timeout(LAST_WORDS, hear) => {}
                    () = over => {}
                }
            }
            let gone = Event::ExecutorDisconnected { session };
            // Nobody is left to be told only when the slave goes.
            let _ = inbox.send(Input::Event(gone)).await;
        }
    }
}

async fn hear(
    session: SessionId,
    container: ContainerId,
    mut reader: OwnedReadHalf,
    inbox: &Inbox,
    pace: &Pace,
) {
    let mut frames = FrameBuffer::new();
    let mut read = vec![0; READ_BYTES];
    let first = Instant::now() + FIRST_MESSAGE_TIMEOUT;
    let mut has_spoken = false;
    loop {
        let reading = reader.read(&mut read);
        let count = if has_spoken {
            reading.await
        } else if let Ok(count) = timeout_at(first, reading).await {
            count
        } else {
            return warn!(%container, session = session.0, "executor connected and says nothing");
        };
        match count {
            Ok(0) | Err(_) => return,
            Ok(count) => {
                pace.keep(count as u64).await;
                frames.push(&read[..count]);
            }
        }
        loop {
            let message = match frames.next_frame::<ExecutorToSlave>() {
                Ok(None) => break,
                Ok(Some(message)) => message,
                Err(error) => {
                    return warn!(%container, session = session.0, code = error.code(), %error, "executor sent no message");
                }
            };
            has_spoken = true;
            pace.keep(PER_MESSAGE).await;
            let event = Event::Executor {
                session,
                container,
                message: Box::new(message),
            };
            if inbox.send(Input::Event(event)).await.is_err() {
                return;
            }
        }
    }
}

/// Until the queue is closed and empty. Whether the executor is gone.
async fn tell(session: SessionId, mut writer: OwnedWriteHalf, mut queue: Queue) -> bool {
    let mut frame = BytesMut::new();
    while let Some(message) = queue.recv().await {
        frame.clear();
        if let Err(error) = encode(&message, &mut frame) {
            warn!(session = session.0, %error, "cannot tell an executor");
            return false;
        }
        match timeout(WRITE_TIMEOUT, writer.write_all(&frame)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                debug!(session = session.0, %error, "executor is gone");
                return true;
            }
            Err(_) => {
                warn!(session = session.0, "executor does not read");
                return false;
            }
        }
    }
    false
}
