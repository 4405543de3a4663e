//! The thread that makes records durable: many with one sync.
//!
//! It takes all records that wait, writes them together, and says how far it has come. While it
//! syncs, more gather, so the busier the slave, the fewer syncs for each record.
//!
//! Invariants: S13 on a full disk nothing is promised, and not for ever.
//!
//! A write that fails is tried again with the same records, first in the same database, then in the
//! database opened anew, for [`PATIENCE`]; meanwhile nothing new is promised: no task starts, no
//! update leaves. Then the slave ends: tasks are killed, and what was promised is told at the next
//! start.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam::channel::{self, Receiver, Sender};
use meros_slave_core::{Record, RecordId};
use tracing::{error, info, warn};

use super::{AppendError, Store};
use crate::exit::ExitReason;

/// Records that may wait; beyond it the core waits for the disk.
const QUEUE: usize = 8_192;
/// Records of one sync: a batch of a MiB or so.
const BATCH_MAX: usize = 1_024;
/// How long a failing disk is waited for. An operator, or the removal of old sandboxes, may free
/// space; a minute is within the ping timeout, so masters do not give the slave up meanwhile.
const PATIENCE: Duration = Duration::from_secs(60);
/// Between two attempts.
const RETRY_DELAY: Duration = Duration::from_millis(500);

/// What the writer has done, for the core and for metrics.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    durable: AtomicU64,
    syncs: AtomicU64,
    failures: AtomicU64,
}

impl Progress {
    /// The last record that is durable.
    pub(crate) fn durable(&self) -> RecordId {
        RecordId(self.durable.load(Ordering::Acquire))
    }

    /// Writes with a sync.
    pub(crate) fn syncs(&self) -> u64 {
        self.syncs.load(Ordering::Relaxed)
    }

    /// Writes that failed and were tried again.
    pub(crate) fn failures(&self) -> u64 {
        self.failures.load(Ordering::Relaxed)
    }
}

/// The core's side of the thread. When it is dropped the thread writes what is left and ends.
#[derive(Debug)]
pub(crate) struct Writer {
    pub(super) records: Sender<(RecordId, Record)>,
    pub(crate) progress: Arc<Progress>,
    /// A word comes here when there is progress; words do not pile up.
    pub(crate) woken: Receiver<()>,
    /// A reason comes here before the thread ends in failure.
    pub(crate) failed: Receiver<ExitReason>,
    pub(crate) thread: JoinHandle<()>,
}

impl Writer {
    /// Starts the thread.
    ///
    /// # Errors
    /// The system gives no thread.
    pub(crate) fn start(store: Store, path: PathBuf) -> std::io::Result<Self> {
        Self::start_patient(store, path, PATIENCE)
    }

    /// With another patience.
    pub(super) fn start_patient(
        store: Store,
        path: PathBuf,
        patience: Duration,
    ) -> std::io::Result<Self> {
        let (records, queue) = channel::bounded(QUEUE);
        let (wake, woken) = channel::bounded(1);
        let (fail, failed) = channel::bounded(1);
        let progress = Arc::<Progress>::default();
        let worker = Worker {
            store: Some(store),
            path,
            queue,
            wake,
            progress: Arc::clone(&progress),
            patience,
        };
        let body = move || {
            if let Err(reason) = worker.run() {
                error!(%reason, "checkpoint given up");
                // Room for one, and there is only one.
                let _ = fail.try_send(reason);
            }
        };
        let thread = std::thread::Builder::new()
            .name("checkpoint".into())
            .spawn(body)?;
        Ok(Self {
            records,
            progress,
            woken,
            failed,
            thread,
        })
    }

    /// Hands a record over; waits for the disk when very many are on their way.
    pub(crate) fn write(&self, id: RecordId, record: Record) -> Result<(), WriterGone> {
        self.records.send((id, record)).map_err(|_| WriterGone)
    }
}

/// The thread has ended; `failed` says why.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("checkpoint thread has ended")]
pub(crate) struct WriterGone;

struct Worker {
    /// `None` only while it is opened anew.
    store: Option<Store>,
    path: PathBuf,
    queue: Receiver<(RecordId, Record)>,
    wake: Sender<()>,
    progress: Arc<Progress>,
    patience: Duration,
}

impl Worker {
    fn run(mut self) -> Result<(), ExitReason> {
        let mut batch = Vec::new();
        while let Ok((first, record)) = self.queue.recv() {
            let mut last = first;
            batch.push(record);
            for (id, record) in self.queue.try_iter().take(BATCH_MAX - 1) {
                last = id;
                batch.push(record);
            }
            self.append(&batch)?;
            batch.clear();
            self.progress.syncs.fetch_add(1, Ordering::Relaxed);
            self.progress.durable.store(last.0, Ordering::Release);
            // Full: the core has not yet looked at what came before, and will see this, too.
            let _ = self.wake.try_send(());
        }
        Ok(())
    }

    fn append(&mut self, batch: &[Record]) -> Result<(), ExitReason> {
        let began = Instant::now();
        loop {
            let error = match self.attempt(batch) {
                Ok(()) if self.progress.failures() > 0 && began.elapsed() >= RETRY_DELAY => {
                    info!("checkpoint can be written again");
                    return Ok(());
                }
                Ok(()) => return Ok(()),
                Err(error) => error,
            };
            self.progress.failures.fetch_add(1, Ordering::Relaxed);
            let cause = std::error::Error::source(&error)
                .map(ToString::to_string)
                .unwrap_or_default();
            if began.elapsed() >= self.patience || matches!(error, AppendError::Encode(_)) {
                return Err(ExitReason::CheckpointFailed {
                    cause: format!("{error}: {cause}"),
                });
            }
            warn!(%error, cause, "checkpoint cannot be written, trying again");
            std::thread::sleep(RETRY_DELAY);
            // RocksDB stops all writes after one that failed, until it is opened anew.
            self.store = None;
        }
    }

    fn attempt(&mut self, batch: &[Record]) -> Result<(), AppendError> {
        let store = match self.store.take() {
            Some(store) => store,
            None => {
                Store::open(&self.path)
                    .map_err(|error| AppendError::Reopen(Box::new(error)))?
                    .0
            }
        };
        self.store.insert(store).append(batch)
    }
}
