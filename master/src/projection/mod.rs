//! The read model: what every GET answers from, kept by an ordered stream of `ClusterEvent`s
//! (architecture decision 3): of this master's core while it leads, of the leader while it follows. Reads
//! never enter the core.
//!
//! One thread applies events under the write lock. A reader holds the read lock only while it picks
//! rows, which are shared pointers; it serialises them afterwards. The same thread passes what the core
//! publishes on to the masters that follow (`subscribers`).
//!
//! At the bound: the stream has room for [`PENDING_BATCHES_MAX`] batches. A read model with gaps would
//! be wrong for ever, so when it is full the publisher waits, which is counted. The wait is short by
//! construction: the lock is fair, so it lasts as long as the longest picking of rows.

mod history;
mod model;
mod page;
mod roles;
mod subscribers;
#[cfg(test)]
mod tests;
mod thread;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam::channel::{self, Sender, TrySendError};
use meros_proto::view::{ClusterEvent, TaskView};
use parking_lot::{Mutex, RwLock, RwLockReadGuard};

use crate::exit::Exit;

pub(crate) use history::{Batch, Form, Place, Told, Watcher};
pub use model::{
    COMPLETED_FRAMEWORKS_MAX, COMPLETED_TASKS_MAX, ReadModel, Row, StateFilter, TaskFilter,
    TaskTotals,
};
pub use page::{BadCursor, Page, TaskCursor};
pub use roles::RoleFilter;
pub(crate) use subscribers::{News, SubscribeError, Subscription};
pub(crate) use thread::Followed;

use history::History;
use subscribers::Subscribers;
use thread::{Keeper, Step};

/// Batches of events on their way to the read model. One batch is what the core did in one go, so
/// this is some seconds of work at full load.
pub const PENDING_BATCHES_MAX: usize = 1_024;

/// What [`Shared::current_as_of`] is while this master leads.
const LEADING: u64 = u64::MAX;

/// The read side. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Projection {
    shared: Arc<Shared>,
    steps: Sender<Step>,
}

#[derive(Debug)]
struct Shared {
    model: RwLock<ReadModel>,
    waits: AtomicU64,
    started: Instant,
    /// Up to when everything that the leader has published is in the model, in microseconds after
    /// `started`; 0: there is nothing in it yet; or [`LEADING`].
    current_as_of: AtomicU64,
    subscribers: Mutex<Subscribers>,
    history: Arc<History>,
}

/// How current the read model is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Currency {
    /// This master leads, and the model is its own.
    Leading,
    /// All that the leader had published so long ago is in it, and perhaps more.
    Behind(Duration),
    /// It is empty.
    Void,
}

impl Projection {
    /// An empty read model with the thread that keeps it. The thread ends when the
    /// publisher is dropped and all that was handed over before is applied.
    ///
    /// # Errors
    /// The operating system gives no thread.
    pub(crate) fn start(exit: &Exit) -> std::io::Result<(Self, Publisher, JoinHandle<()>)> {
        let (steps, receiver) = channel::bounded(PENDING_BATCHES_MAX);
        let projection = Self {
            shared: Arc::new(Shared {
                model: RwLock::default(),
                waits: AtomicU64::new(0),
                started: Instant::now(),
                current_as_of: AtomicU64::new(0),
                subscribers: Mutex::default(),
                history: Arc::default(),
            }),
            steps,
        };
        let keeper = Keeper::new(Arc::clone(&projection.shared));
        let thread = exit.spawn_thread("read-model", move || {
            keeper.run(&receiver);
            None
        })?;
        let publisher = Publisher {
            steps: projection.steps.clone(),
            shared: Arc::clone(&projection.shared),
        };
        Ok((projection, publisher, thread))
    }

    /// The model as it is now. Pick rows and let go: events wait meanwhile.
    pub fn read(&self) -> RwLockReadGuard<'_, ReadModel> {
        self.shared.model.read()
    }

    /// How current it is.
    #[must_use]
    pub fn currency(&self) -> Currency {
        match self.shared.current_as_of.load(Ordering::Acquire) {
            LEADING => Currency::Leading,
            0 => Currency::Void,
            as_of => Currency::Behind(Duration::from_micros(self.now().saturating_sub(as_of))),
        }
    }

    /// Whether this master leads, and has published that.
    #[must_use]
    pub fn is_leading(&self) -> bool {
        self.currency() == Currency::Leading
    }

    /// How often the core had to wait because the read model was behind.
    #[must_use]
    pub fn waits(&self) -> u64 {
        self.shared.waits.load(Ordering::Relaxed)
    }

    /// Masters that follow this one, and those that were dropped because they were too slow.
    pub(crate) fn followers(&self) -> (usize, u64) {
        let subscribers = self.shared.subscribers.lock();
        (subscribers.len(), subscribers.dropped())
    }

    /// The time by which followers count, in microseconds.
    pub(crate) fn now(&self) -> u64 {
        // Never 0, which means that there is nothing.
        u64::try_from(self.shared.started.elapsed().as_micros()).map_or(LEADING - 1, |it| it + 1)
    }

    /// Everything that is known, and from then on all changes, for a master that follows.
    ///
    /// # Errors
    /// [`SubscribeError`].
    pub(crate) fn subscribe(&self) -> Result<Subscription, SubscribeError> {
        // While this is held nothing is applied, so nothing is missed or told twice.
        let model = self.shared.model.read();
        if !self.is_leading() {
            return Err(SubscribeError::NotLeading);
        }
        let (rows, sequence) = model.rows();
        self.shared.subscribers.lock().add(rows, sequence)
    }

    /// What `pick` takes from the model, and every event after that, or after an earlier place.
    ///
    /// # Errors
    /// [`SubscribeError::NotLeading`].
    pub(crate) fn watch<T>(
        &self,
        after: Option<Place>,
        pick: impl FnOnce(&ReadModel) -> T,
    ) -> Result<(T, Watcher), SubscribeError> {
        // While this is held nothing is applied, so nothing is missed or told twice.
        let model = self.shared.model.read();
        let now = model.place().filter(|_| self.is_leading());
        let now = now.ok_or(SubscribeError::NotLeading)?;
        let watcher = history::watch(&self.shared.history, now, after);
        Ok((pick(&model), watcher))
    }

    /// Marks the place in the stream of a subscriber behind all that was published before this call.
    /// Without effect if too much waits.
    pub(crate) fn mark(&self, subscriber: u64, number: u64) {
        // A mark that is left out makes the follower's lag look longer than it is.
        let _ = self.steps.try_send(Step::Mark { subscriber, number });
    }

    /// Hands over what the leader has sent, in order.
    ///
    /// # Errors
    /// There is no room: try again in a moment. Comes back whole.
    pub(crate) fn follow(&self, followed: Vec<Followed>) -> Result<(), Vec<Followed>> {
        match self.steps.try_send(Step::Followed(followed)) {
            Ok(()) => Ok(()),
            Err(TrySendError::Full(Step::Followed(followed))) => Err(followed),
            // The process is about to end.
            Err(_) => Ok(()),
        }
    }
}

/// The write side, owned by the core's thread.
#[derive(Debug)]
pub struct Publisher {
    steps: Sender<Step>,
    shared: Arc<Shared>,
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
        self.send(Step::Own(batch))
    }

    /// This master begins to lead: nothing is taken over from others any more. Tells the tasks that are
    /// known. Waits until what was handed over before is applied.
    ///
    /// # Errors
    /// [`ProjectionGone`] if the thread has died.
    pub fn lead(&self) -> Result<Vec<Arc<TaskView>>, ProjectionGone> {
        let (sender, known) = channel::bounded(1);
        self.send(Step::Lead(sender))?;
        known.recv().map_err(|_| ProjectionGone)
    }

    /// This master does not lead any more: what is known stays, and grows old.
    ///
    /// # Errors
    /// [`ProjectionGone`] if the thread has died.
    pub fn rest(&self) -> Result<(), ProjectionGone> {
        self.send(Step::Rest)
    }

    fn send(&self, step: Step) -> Result<(), ProjectionGone> {
        match self.steps.try_send(step) {
            Ok(()) => Ok(()),
            Err(TrySendError::Full(step)) => {
                self.shared.waits.fetch_add(1, Ordering::Relaxed);
                self.steps.send(step).map_err(|_| ProjectionGone)
            }
            Err(TrySendError::Disconnected(_)) => Err(ProjectionGone),
        }
    }
}

impl Drop for Publisher {
    fn drop(&mut self) {
        // The thread may have ended already.
        let _ = self.steps.send(Step::End);
    }
}

/// The thread of the read model has ended before its publisher: a bug of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("thread of the read model is gone")]
pub struct ProjectionGone;
