//! One connection of an executor: frames in, frames out, both bounded.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::BytesMut;
use meros_proto::codec::{FrameBuffer, encode};
use meros_proto::executor::TASKS_PER_EXECUTOR_MAX;
use meros_proto::message::executor::{ExecutorToSlave, SlaveToExecutor};
use meros_slave_core::{ContainerId, Event, SessionId};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tracing::{debug, warn};

use crate::shell::inbox::{Inbox, Input};

/// Room for what an executor is told: when it subscribes, all tasks that it may have come at once, and their
/// kills. Beyond it the connection is closed, and all that matters is told again on the next.
const EXECUTOR_QUEUE: usize = 2 * TASKS_PER_EXECUTOR_MAX + 1_024;
/// One read; an update takes a few hundred bytes.
const READ_BYTES: usize = 16 << 10;
/// An executor that does not read for so long is disconnected.
const WRITE_TIMEOUT: Duration = Duration::from_secs(30);

/// Numbers and serves connections of executors. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Sessions {
    inbox: Inbox,
    last: Arc<AtomicU64>,
}

impl Sessions {
    pub(crate) fn new(inbox: Inbox) -> Self {
        Self {
            inbox,
            last: Arc::default(),
        }
    }

    /// Serves one connection until either side ends it.
    pub(crate) fn serve(
        &self,
        container: ContainerId,
        stream: UnixStream,
    ) -> impl Future<Output = ()> + Send + use<> {
        let session = SessionId(self.last.fetch_add(1, Ordering::Relaxed) + 1);
        let inbox = self.inbox.clone();
        async move {
            let (reader, writer) = stream.into_split();
            let (sender, queue) = mpsc::channel(EXECUTOR_QUEUE);
            if inbox
                .send(Input::ExecutorConnected(session, sender))
                .await
                .is_err()
            {
                return;
            }
            tokio::select! {
                () = hear(session, container, reader, &inbox) => {}
                () = tell(session, writer, queue) => {}
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
) {
    let mut frames = FrameBuffer::new();
    let mut read = vec![0; READ_BYTES];
    loop {
        match reader.read(&mut read).await {
            Ok(0) | Err(_) => return,
            Ok(count) => frames.push(&read[..count]),
        }
        loop {
            let message = match frames.next_frame::<ExecutorToSlave>() {
                Ok(None) => break,
                Ok(Some(message)) => message,
                Err(error) => {
                    return warn!(%container, session = session.0, code = error.code(), %error, "executor sent no message");
                }
            };
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

/// Until the queue is closed and empty.
async fn tell(
    session: SessionId,
    mut writer: OwnedWriteHalf,
    mut queue: mpsc::Receiver<SlaveToExecutor>,
) {
    let mut frame = BytesMut::new();
    while let Some(message) = queue.recv().await {
        frame.clear();
        if let Err(error) = encode(&message, &mut frame) {
            return warn!(session = session.0, %error, "cannot tell an executor");
        }
        match timeout(WRITE_TIMEOUT, writer.write_all(&frame)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => return debug!(session = session.0, %error, "executor is gone"),
            Err(_) => return warn!(session = session.0, "executor does not read"),
        }
    }
}
