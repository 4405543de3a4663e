//! The read model: what every GET answers from, kept by the core's ordered stream of
//! `ClusterEvent`s (architecture decision 3). Reads never enter the core.
//!
//! One thread applies events under the write lock. A reader holds the read lock only while it picks
//! rows, which are shared pointers; it serialises them afterwards.
//!
//! At the bound: the stream has room for [`PENDING_BATCHES_MAX`] batches. A read model with gaps would
//! be wrong for ever, so when it is full the publisher waits, which is counted. The wait is short by
//! construction: the lock is fair, so it lasts as long as the longest picking of rows.

mod model;
mod page;
mod roles;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;

use crossbeam::channel::{self, Receiver, Sender, TrySendError};
use meros_proto::view::ClusterEvent;
use parking_lot::{RwLock, RwLockReadGuard};

use crate::exit::Exit;

pub use model::{
    COMPLETED_FRAMEWORKS_MAX, COMPLETED_TASKS_MAX, ReadModel, StateFilter, TaskFilter, TaskTotals,
};
pub use page::{BadCursor, Page, TaskCursor};
pub use roles::RoleFilter;

/// Batches of events on their way to the read model. One batch is what the core did in one go, so
/// this is some seconds of work at full load.
pub const PENDING_BATCHES_MAX: usize = 1_024;

/// The read side. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Projection {
    model: Arc<RwLock<ReadModel>>,
    waits: Arc<AtomicU64>,
}

impl Projection {
    /// An empty read model with the thread that keeps it. The thread ends when the publisher is
    /// dropped and all events are applied.
    ///
    /// # Errors
    /// The operating system gives no thread.
    pub(crate) fn start(exit: &Exit) -> std::io::Result<(Self, Publisher, JoinHandle<()>)> {
        let projection = Self::default();
        let (sender, receiver) = channel::bounded(PENDING_BATCHES_MAX);
        let model = Arc::clone(&projection.model);
        let thread = exit.spawn_thread("read-model", move || {
            apply_all(&model, &receiver);
            None
        })?;
        let publisher = Publisher {
            sender,
            waits: Arc::clone(&projection.waits),
        };
        Ok((projection, publisher, thread))
    }

    /// The model as it is now. Pick rows and let go: events wait meanwhile.
    pub fn read(&self) -> RwLockReadGuard<'_, ReadModel> {
        self.model.read()
    }

    /// How often the core had to wait because the read model was behind.
    #[must_use]
    pub fn waits(&self) -> u64 {
        self.waits.load(Ordering::Relaxed)
    }
}

fn apply_all(model: &RwLock<ReadModel>, batches: &Receiver<Vec<ClusterEvent>>) {
    for batch in batches {
        let mut model = model.write();
        // An empty batch says that there is nothing to be read any more.
        if batch.is_empty() {
            *model = ReadModel::default();
        }
        for event in batch {
            model.apply(event);
        }
    }
}

/// The write side, owned by the core's thread.
#[derive(Debug)]
pub struct Publisher {
    sender: Sender<Vec<ClusterEvent>>,
    waits: Arc<AtomicU64>,
}

impl Publisher {
    /// Hands over what the core published, in order.
    ///
    /// # Errors
    /// [`ProjectionGone`] if the thread has died.
    pub fn publish(&self, batch: Vec<ClusterEvent>) -> Result<(), ProjectionGone> {
        if batch.is_empty() {
            return Ok(());
        }
        self.send(batch)
    }

    /// This master does not lead any more: there is nothing to read here.
    ///
    /// # Errors
    /// [`ProjectionGone`] if the thread has died.
    pub fn forget(&self) -> Result<(), ProjectionGone> {
        self.send(Vec::new())
    }

    fn send(&self, batch: Vec<ClusterEvent>) -> Result<(), ProjectionGone> {
        match self.sender.try_send(batch) {
            Ok(()) => Ok(()),
            Err(TrySendError::Full(batch)) => {
                self.waits.fetch_add(1, Ordering::Relaxed);
                self.sender.send(batch).map_err(|_| ProjectionGone)
            }
            Err(TrySendError::Disconnected(_)) => Err(ProjectionGone),
        }
    }
}

/// The thread of the read model has ended before its publisher: a bug of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("thread of the read model is gone")]
pub struct ProjectionGone;
