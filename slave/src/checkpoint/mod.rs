//! What the slave remembers, on disk: the state that its records add up to, by key, on RocksDB.
//!
//! Not a log of records: the store stays as small as what is remembered, and opening it reads no
//! more. Promise: records that [`Store::append`] returned for are found by every later open.
//!
//! A damaged value costs its own task only: it is left out and reported, and the master, which still
//! knows the task, asks for it when the slave re-registers (semantics K6).
//!
//! Invariants: S12 what is durable is found again.
//!
//! Absent: threads (see `writer`), the meaning of records (see the core's `Checkpoint`).

mod error;
mod keys;
#[cfg(test)]
mod tests;
pub(crate) mod writer;

use std::path::{Path, PathBuf};

use meros_proto::codec::{decode_record, encode_record};
use meros_proto::ids::FrameworkId;
use meros_proto::message::slave::{RunExecutor, RunTask};
use meros_proto::status::{TaskState, TaskStatus};
use meros_slave_core::{
    Checkpoint, CheckpointedExecutor, CheckpointedTask, GROUP_IS_ENDING, Identity, Record,
};
use rocksdb::{
    BlockBasedOptions, Cache, DB, DBRecoveryMode, IteratorMode, Options, WriteBatch, WriteOptions,
};
use serde::de::DeserializeOwned;
use tracing::warn;

pub use error::{AppendError, OpenStoreError};
pub use meros_daemon::lock::{DataDirLock, LockError};

/// The layout on disk that this release writes. Identity and claims are as in 1 and 2; tasks and updates
/// have more fields since 3 (files to fetch, checks), which also has executors; since 4 those may be groups, and tasks have images.
const FORMAT: u32 = 4;

/// Marks a task as being killed. A release that takes any mark for "was seen running" loses no more than
/// it did before.
const KILLING: &[u8] = b"k";
/// The value at `keys::started` of a task that its executor is preparing.
const STARTING: &[u8] = b"s";

// What is remembered of 1,000 tasks is about 1 MiB, written once and read at the next start.
// RocksDB's own defaults would take 64 MiB.
const WRITE_BUFFER_BYTES: usize = 1 << 20;
const BLOCK_CACHE_BYTES: usize = 256 << 10;
const WAL_BYTES_MAX: u64 = 4 << 20;
const OPEN_FILES_MAX: i32 = 32;

/// The checkpoint of one slave. Owned by one thread.
#[derive(Debug)]
pub struct Store {
    db: DB,
    path: PathBuf,
}

/// What was found.
#[derive(Debug)]
pub struct Recovered {
    /// What the records add up to.
    pub checkpoint: Checkpoint,
    /// Values that could not be read and were left out.
    pub damaged: usize,
}

impl Store {
    /// Opens the checkpoint at `path`, or begins an empty one, and reads it.
    ///
    /// # Errors
    /// [`OpenStoreError`].
    pub fn open(path: &Path) -> Result<(Self, Recovered), OpenStoreError> {
        let db = open_db(path)?;
        let store = Self {
            db,
            path: path.to_owned(),
        };
        match store.read::<u32>(keys::FORMAT)? {
            None => store.begin()?,
            Some(found) if found < FORMAT => {
                if store.has_tasks()? {
                    let path = store.path.clone();
                    return Err(OpenStoreError::OlderFormat { path, found });
                }
                store.begin()?;
            }
            Some(found) if found > FORMAT => {
                let path = store.path.clone();
                return Err(OpenStoreError::NewerFormat {
                    path,
                    found,
                    ours: FORMAT,
                });
            }
            Some(_) => {}
        }
        let recovered = store.load()?;
        Ok((store, recovered))
    }

    /// Makes records durable, in order, with one write and one sync for all of them. May be repeated
    /// after an error: the same records again change nothing more.
    ///
    /// # Errors
    /// The disk is full or failing.
    pub fn append(&self, records: &[Record]) -> Result<(), AppendError> {
        let mut batch = WriteBatch::default();
        for record in records {
            put(&mut batch, record)?;
        }
        self.write_synced(batch)
    }

    /// From now on what is written has our format.
    fn begin(&self) -> Result<(), OpenStoreError> {
        let mut batch = WriteBatch::default();
        batch.put(keys::FORMAT, encode_own(&FORMAT));
        let begun = self.write_synced(batch);
        begun.map_err(|source| OpenStoreError::Begin {
            path: self.path.clone(),
            source,
        })
    }

    /// Whether it remembers a task, or an update of one.
    fn has_tasks(&self) -> Result<bool, OpenStoreError> {
        for item in self.db.iterator(IteratorMode::Start) {
            let (key, _) = item.map_err(|source| self.unreadable(source))?;
            if !matches!(keys::parse(&key), Some(keys::Parsed::Meta)) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn load(&self) -> Result<Recovered, OpenStoreError> {
        let mut recovered = Recovered {
            checkpoint: Checkpoint::default(),
            damaged: 0,
        };
        let checkpoint = &mut recovered.checkpoint;
        // What everything else depends on: without it the slave would be another one, or would give
        // away what is reserved and find no volume.
        checkpoint.identity = self.read::<Identity>(keys::IDENTITY)?;
        checkpoint.incarnation = self.read(keys::INCARNATION)?.unwrap_or(0);
        checkpoint.epoch = self.read(keys::TERM)?.unwrap_or_default();
        checkpoint.claims = self.read(keys::CLAIMS)?.unwrap_or_default();
        for item in self.db.iterator(IteratorMode::Start) {
            let (key, value) = item.map_err(|source| self.unreadable(source))?;
            let damaged = match keys::parse(&key) {
                Some(keys::Parsed::Meta) => false,
                Some(keys::Parsed::Task(task)) => match decode_record(&value) {
                    Ok(run) => {
                        let reached = self.reached(&task)?;
                        checkpoint
                            .tasks
                            .insert(task, CheckpointedTask { run, reached });
                        false
                    }
                    Err(error) => report_damaged(&key, &error),
                },
                Some(keys::Parsed::Started) => false,
                Some(keys::Parsed::Executor(executor)) => match decode_record(&value) {
                    Ok(run) => {
                        let heard = self.heard(&executor)?;
                        let found = CheckpointedExecutor { run, heard };
                        checkpoint.executors.insert(executor, found);
                        false
                    }
                    Err(error) => report_damaged(&key, &error),
                },
                Some(keys::Parsed::Heard) => false,
                Some(keys::Parsed::Update(task)) => match decode_record::<TaskStatus>(&value) {
                    Ok(status) => {
                        // Keys of one task's updates are in the order they were made.
                        checkpoint
                            .updates
                            .entry(task)
                            .or_default()
                            .push_back(status);
                        false
                    }
                    Err(error) => report_damaged(&key, &error),
                },
                None => report_damaged(&key, &"no key of ours"),
            };
            recovered.damaged += usize::from(damaged);
        }
        Ok(recovered)
    }

    fn reached(&self, task: &meros_slave_core::TaskKey) -> Result<TaskState, OpenStoreError> {
        let found = self.db.get_pinned(keys::started(task));
        let found = found.map_err(|source| self.unreadable(source))?;
        Ok(match found.as_deref() {
            None => TaskState::Staging,
            Some([]) => TaskState::Running,
            Some(STARTING) => TaskState::Starting,
            Some(_) => TaskState::Killing,
        })
    }

    /// What cannot be read counts as nothing heard: then an update may be told twice, but none is lost.
    fn heard(&self, executor: &meros_slave_core::ExecutorKey) -> Result<u64, OpenStoreError> {
        let found = self.db.get_pinned(keys::heard(executor));
        let found = found.map_err(|source| self.unreadable(source))?;
        let number = found.and_then(|value| <[u8; 8]>::try_from(&*value).ok());
        Ok(number.map_or(0, u64::from_be_bytes))
    }

    /// A value without which nothing else makes sense.
    fn read<T: DeserializeOwned>(&self, key: &[u8]) -> Result<Option<T>, OpenStoreError> {
        let value = self.db.get(key).map_err(|source| self.unreadable(source))?;
        let decoded = value.map(|value| decode_record(&value)).transpose();
        decoded.map_err(|error| OpenStoreError::Corrupt {
            path: self.path.clone(),
            detail: format!("{}: {error}", String::from_utf8_lossy(key)),
        })
    }

    fn write_synced(&self, batch: WriteBatch) -> Result<(), AppendError> {
        let mut options = WriteOptions::default();
        options.set_sync(true);
        self.db
            .write_opt(batch, &options)
            .map_err(AppendError::Write)
    }

    fn unreadable(&self, source: rocksdb::Error) -> OpenStoreError {
        OpenStoreError::from_rocksdb(&self.path, source)
    }
}

fn report_damaged(key: &[u8], error: &dyn std::fmt::Display) -> bool {
    let key = String::from_utf8_lossy(key).escape_debug().to_string();
    warn!(key, %error, "a damaged value of the checkpoint is left out");
    true
}

/// What one record changes. The same as the core's `Checkpoint::apply`, by key.
fn put(batch: &mut WriteBatch, record: &Record) -> Result<(), AppendError> {
    match record {
        Record::Identity(identity) => batch.put(keys::IDENTITY, encode_record(identity)?),
        Record::IncarnationStarted(number) => batch.put(keys::INCARNATION, encode_record(number)?),
        Record::TermHeard(epoch) => batch.put(keys::TERM, encode_record(epoch)?),
        Record::ClaimsChanged(claims) => batch.put(keys::CLAIMS, encode_record(claims)?),
        Record::TaskAdded(run) => put_task(batch, run)?,
        Record::GroupAdded { executor, tasks } => {
            put_executor(batch, executor)?;
            for run in tasks {
                put_task(batch, run)?;
            }
        }
        Record::GroupEnding { executor } => {
            batch.put(keys::heard(executor), GROUP_IS_ENDING.to_be_bytes());
        }
        Record::UpdateMade {
            framework_id,
            status,
        } => {
            put_update(batch, *framework_id, status)?;
        }
        Record::UpdateHeard {
            framework_id,
            executor_id,
            number,
            status,
        } => {
            let executor = (*framework_id, executor_id.clone());
            batch.put(keys::heard(&executor), number.to_be_bytes());
            put_update(batch, *framework_id, status)?;
            if status.state == TaskState::Starting {
                let task = (*framework_id, status.task_id.clone());
                batch.put(keys::started(&task), STARTING);
            }
        }
        Record::ExecutorAdded(run) => put_executor(batch, run)?,
        Record::ExecutorForgotten { executor } => {
            batch.delete(keys::executor(executor));
            batch.delete(keys::heard(executor));
        }
        Record::UpdateAcknowledged { task, update_id } => {
            batch.delete(keys::update(task, *update_id));
        }
        Record::TaskForgotten { task } => {
            batch.delete(keys::task(task));
            batch.delete(keys::started(task));
            let (from, to) = keys::updates_of(task);
            batch.delete_range(from, to);
        }
        Record::FrameworkShutDown { framework_id } => {
            for (from, to) in keys::all_of(*framework_id) {
                batch.delete_range(from, to);
            }
        }
        Record::Left => {
            batch.delete(keys::IDENTITY);
            batch.delete(keys::TERM);
            for (from, to) in keys::all_tasks() {
                batch.delete_range(from, to);
            }
        }
    }
    Ok(())
}

fn put_task(batch: &mut WriteBatch, run: &RunTask) -> Result<(), AppendError> {
    let task = (run.framework.framework_id, run.task.task_id.clone());
    batch.put(keys::task(&task), encode_record(run)?);
    batch.delete(keys::started(&task));
    Ok(())
}

fn put_executor(batch: &mut WriteBatch, run: &RunExecutor) -> Result<(), AppendError> {
    let executor = (run.framework.framework_id, run.executor.executor_id.clone());
    batch.put(keys::executor(&executor), encode_record(run)?);
    batch.delete(keys::heard(&executor));
    Ok(())
}

fn put_update(
    batch: &mut WriteBatch,
    framework_id: FrameworkId,
    status: &TaskStatus,
) -> Result<(), AppendError> {
    let task = (framework_id, status.task_id.clone());
    let id = status.update_id.unwrap_or(meros_proto::ids::UpdateId(0));
    batch.put(keys::update(&task, id), encode_record(status)?);
    match status.state {
        TaskState::Running => batch.put(keys::started(&task), []),
        TaskState::Killing => batch.put(keys::started(&task), KILLING),
        // What the slave only prepared begins anew elsewhere (semantics L3).
        _ => {}
    }
    Ok(())
}

fn open_db(path: &Path) -> Result<DB, OpenStoreError> {
    let mut options = Options::default();
    options.create_if_missing(true);
    options.set_write_buffer_size(WRITE_BUFFER_BYTES);
    options.set_max_write_buffer_number(2);
    options.set_max_total_wal_size(WAL_BYTES_MAX);
    options.set_max_open_files(OPEN_FILES_MAX);
    options.set_max_background_jobs(2);
    // Its own log is of use to nobody here; what matters comes back as errors.
    options.set_keep_log_file_num(1);
    options.set_max_log_file_size(256 << 10);
    options.set_stats_dump_period_sec(0);
    options.set_stats_persist_period_sec(0);
    // A torn last write is a record that was never promised to anybody.
    options.set_wal_recovery_mode(DBRecoveryMode::TolerateCorruptedTailRecords);
    let mut tables = BlockBasedOptions::default();
    tables.set_block_cache(&Cache::new_lru_cache(BLOCK_CACHE_BYTES));
    options.set_block_based_table_factory(&tables);
    DB::open(&options, path).map_err(|source| OpenStoreError::from_rocksdb(path, source))
}

/// A value of a few bytes that we made ourselves.
fn encode_own<T: serde::Serialize>(value: &T) -> Vec<u8> {
    encode_record(value).expect("far smaller than a frame, and of plain types")
}
