//! The one queue into the core.
//!
//! Whoever sends waits for room, in order of arrival; while the reader of the master's connection
//! waits it reads nothing, and QUIC's flow control makes the master wait. What the checkpoint reports
//! does not go through here, so that the disk never waits for the core.

use std::sync::Arc;
use std::time::Duration;

use crossbeam::channel::{self, Receiver, Sender};
use meros_proto::message::master::SlaveToMaster;
use meros_proto::message::slave::RunExecutor;
use meros_proto::transport;
use meros_slave_core::{ConnectionId, ContainerId, Event, ExecutorKey, SessionId, TaskKey};
use tokio::sync::{Semaphore, oneshot};

use super::running::{RunningContainers, TaskContainer};
use super::snapshot::{ExecutorRow, Picked, Snapshot, TaskRow};
use crate::container::Container;
use crate::executor::Outbox;

/// Room in the queue. A batch of orders, and the ends of as many containers as end at one time.
const INBOX: usize = 4_096;

/// What can reach the core's thread.
#[derive(Debug)]
pub(crate) enum Input {
    /// A master's connection, and how to write to it.
    Connected(ConnectionId, transport::Sender<SlaveToMaster>),
    /// A container's command runs; in this image, if it has one.
    Started(ContainerId, Arc<Container>, Option<String>),
    /// A connection of an executor, and how to write to it.
    ExecutorConnected(SessionId, Outbox),
    /// Anything else that the core is told as it is.
    Event(Event),
    /// Somebody wants to know how things stand.
    Snapshot(oneshot::Sender<Snapshot>),
    /// Somebody wants to see tasks, at most so many.
    Tasks(usize, oneshot::Sender<Vec<TaskRow>>),
    /// Somebody wants to see executors, at most so many.
    Executors(usize, oneshot::Sender<Vec<ExecutorRow>>),
    /// Somebody wants to see all that is here, at most so many of each.
    Pick(usize, oneshot::Sender<Picked>),
    /// Somebody wants to look at containers that run, so many at the most.
    Containers(usize, oneshot::Sender<RunningContainers>),
    /// Somebody wants to do something with one that runs.
    Container(ContainerId, oneshot::Sender<Option<Arc<Container>>>),
    /// Somebody says that it is this executor.
    Executor(ExecutorKey, oneshot::Sender<Option<ExecutorFound>>),
    /// Somebody wants to know which executor of its framework runs a task.
    ExecutorOf(TaskKey, oneshot::Sender<Option<ExecutorKey>>),
    /// Somebody wants into the container of a task.
    ContainerOf(TaskKey, oneshot::Sender<TaskContainer>),
}

/// What is known of an executor whose container was asked for.
#[derive(Debug)]
pub(crate) struct ExecutorFound {
    pub(crate) container: ContainerId,
    /// What it was started as.
    pub(crate) run: Box<RunExecutor>,
    /// Whether its start is known: before, it cannot subscribe.
    pub(crate) is_running: bool,
}

/// The sending side. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Inbox {
    sender: Sender<Input>,
    room: Arc<Semaphore>,
}

/// The thread of the core has ended; the process is about to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("core has ended")]
pub(crate) struct CoreGone;

/// The receiving side, owned by the core's thread.
#[derive(Debug)]
pub(crate) struct Outlet {
    pub(super) receiver: Receiver<Input>,
    room: Arc<Semaphore>,
}

pub(crate) fn inbox() -> (Inbox, Outlet) {
    let (sender, receiver) = channel::bounded(INBOX);
    let room = Arc::new(Semaphore::new(INBOX));
    (
        Inbox {
            sender,
            room: Arc::clone(&room),
        },
        Outlet { receiver, room },
    )
}

impl Inbox {
    /// Waits for room and hands one over.
    ///
    /// # Errors
    /// [`CoreGone`].
    pub(crate) async fn send(&self, input: Input) -> Result<(), CoreGone> {
        // Closed when the outlet is dropped.
        let place = self.room.acquire().await.map_err(|_| CoreGone)?;
        place.forget();
        // There is room for as many as there are permits.
        self.sender.try_send(input).map_err(|_| CoreGone)
    }

    /// Hands over what nobody misses if there is no room at once.
    pub(crate) fn offer(&self, input: Input) {
        if let Ok(place) = self.room.try_acquire() {
            place.forget();
            // There is room for as many as there are permits; else the core is gone.
            let _ = self.sender.try_send(input);
        }
    }

    /// Asks and waits for the answer, at most so long.
    ///
    /// # Errors
    /// [`CoreGone`], or it is too busy to answer.
    pub(crate) async fn ask<T>(
        &self,
        question: impl FnOnce(oneshot::Sender<T>) -> Input,
        patience: Duration,
    ) -> Result<T, CoreGone> {
        let (reply, answer) = oneshot::channel();
        let asked = async {
            self.send(question(reply)).await?;
            answer.await.map_err(|_| CoreGone)
        };
        tokio::time::timeout(patience, asked)
            .await
            .unwrap_or(Err(CoreGone))
    }

    /// How many wait.
    pub(crate) fn len(&self) -> usize {
        self.sender.len()
    }
}

impl Outlet {
    /// So many have been taken out.
    pub(super) fn taken(&self, count: usize) {
        self.room.add_permits(count);
    }
}

impl Drop for Outlet {
    fn drop(&mut self) {
        self.room.close();
    }
}
