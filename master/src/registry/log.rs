//! The log as openraft wants it: votes and entries, each durable before anybody hears of it.
//!
//! openraft calls these one after the other and waits for each, so a write is one batch and one sync,
//! on a thread that may block. That many commands share it is the work of `propose`.

use std::fmt::Debug;
use std::ops::{Bound, RangeBounds};
use std::sync::Arc;

use openraft::storage::{LogFlushed, RaftLogStorage};
use openraft::{LogState, OptionalSend, RaftLogReader};
use rocksdb::WriteBatch;
use tokio::task;

use super::db::Db;
use super::error::WriteError;
use super::types::{Entry, EntryId, StorageError, StorageIoError, Types, Vote, raises};
use super::upgrade::Formats;

const KEY_VOTE: &[u8] = b"vote";
const KEY_COMMITTED: &[u8] = b"committed";
const KEY_PURGED: &[u8] = b"purged";

/// The most that one message to a follower carries, besides its first entry: a quarter of a frame.
const READ_BYTES_MAX: usize = 1 << 20;

/// The log in the database. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Log {
    db: Arc<Db>,
    formats: Arc<Formats>,
}

impl Log {
    pub(crate) fn new(db: Arc<Db>, formats: Arc<Formats>) -> Self {
        Self { db, formats }
    }

    /// Adds to a batch that there are no entries up to this one.
    pub(super) fn put_purged(
        db: &Db,
        batch: &mut WriteBatch,
        upto: EntryId,
    ) -> Result<(), WriteError> {
        db.put(batch, KEY_PURGED, &upto)
    }

    /// Adds the vote to a batch.
    pub(super) fn put_vote(db: &Db, batch: &mut WriteBatch, vote: Vote) -> Result<(), WriteError> {
        db.put(batch, KEY_VOTE, &vote)
    }

    #[expect(
        clippy::result_large_err,
        reason = "openraft's error, as its traits want it"
    )]
    fn read(&self, from: u64, end: u64, bytes_max: usize) -> Result<Vec<Entry>, StorageError> {
        let mut entries = Vec::new();
        let mut bytes = 0;
        for item in self.db.entries(from) {
            let (entry, size) = item.map_err(|error| StorageIoError::read_logs(&error))?;
            bytes += size;
            let is_enough = !entries.is_empty() && bytes > bytes_max;
            let index = entry.log_id.index;
            if index >= end || is_enough {
                break;
            }
            if let Some(last) = entries.last().map(|last: &Entry| last.log_id.index)
                && last + 1 != index
            {
                let error = self
                    .db
                    .corrupt(format!("no entry between {last} and {index}"));
                return Err(StorageIoError::read_logs(&error).into());
            }
            entries.push(entry);
        }
        Ok(entries)
    }

    async fn write(&self, batch: WriteBatch) -> Result<(), WriteError> {
        let db = Arc::clone(&self.db);
        task::spawn_blocking(move || db.write_synced(batch))
            .await
            .expect("writing does not panic")
    }
}

impl RaftLogReader<Types> for Log {
    async fn try_get_log_entries<R: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: R,
    ) -> Result<Vec<Entry>, StorageError> {
        let from = match range.start_bound() {
            Bound::Included(from) => *from,
            Bound::Excluded(before) => before.saturating_add(1),
            Bound::Unbounded => 0,
        };
        let end = match range.end_bound() {
            Bound::Included(last) => last.saturating_add(1),
            Bound::Excluded(end) => *end,
            Bound::Unbounded => u64::MAX,
        };
        self.read(from, end, usize::MAX)
    }

    async fn limited_get_log_entries(
        &mut self,
        start: u64,
        end: u64,
    ) -> Result<Vec<Entry>, StorageError> {
        self.read(start, end, READ_BYTES_MAX)
    }
}

impl RaftLogStorage<Types> for Log {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> Result<LogState<Types>, StorageError> {
        let read = |error| StorageIoError::read_logs(&error);
        let purged: Option<EntryId> = self.db.get(KEY_PURGED).map_err(read)?;
        let last = self.db.last_entry().map_err(read)?;
        Ok(LogState {
            last_purged_log_id: purged,
            last_log_id: last.map(|entry| entry.log_id).or(purged),
        })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> Result<(), StorageError> {
        let mut batch = WriteBatch::default();
        Self::put_vote(&self.db, &mut batch, *vote)
            .map_err(|error| StorageIoError::write_vote(&error))?;
        let written = self.write(batch).await;
        Ok(written.map_err(|error| StorageIoError::write_vote(&error))?)
    }

    async fn read_vote(&mut self) -> Result<Option<Vote>, StorageError> {
        let vote = self.db.get(KEY_VOTE);
        Ok(vote.map_err(|error| StorageIoError::read_vote(&error))?)
    }

    /// Not synced: without it a start only knows later what was committed.
    async fn save_committed(&mut self, committed: Option<EntryId>) -> Result<(), StorageError> {
        let mut batch = WriteBatch::default();
        let written = self
            .db
            .put(&mut batch, KEY_COMMITTED, &committed)
            .and_then(|()| self.db.write_unsynced(batch));
        Ok(written.map_err(|error| StorageIoError::write_logs(&error))?)
    }

    async fn read_committed(&mut self) -> Result<Option<EntryId>, StorageError> {
        let committed = self.db.get::<Option<EntryId>>(KEY_COMMITTED);
        let committed = committed.map_err(|error| StorageIoError::read_logs(&error))?;
        Ok(committed.flatten())
    }

    async fn append<I>(
        &mut self,
        entries: I,
        flushed: LogFlushed<Types>,
    ) -> Result<(), StorageError>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let mut batch = WriteBatch::default();
        for entry in entries {
            if let Some(format) = raises(&entry) {
                self.formats
                    .expect(format)
                    .map_err(|error| StorageIoError::write_logs(&error))?;
                self.db.put_format(&mut batch, format);
            }
            self.db
                .put_entry(&mut batch, entry)
                .map_err(|error| StorageIoError::write_logs(&error))?;
        }
        match self.write(batch).await {
            Ok(()) => {
                flushed.log_io_completed(Ok(()));
                Ok(())
            }
            Err(error) => Err(StorageIoError::write_logs(&error).into()),
        }
    }

    async fn truncate(&mut self, from: EntryId) -> Result<(), StorageError> {
        let mut batch = WriteBatch::default();
        batch.delete_range_cf(
            self.db.log(),
            from.index.to_be_bytes(),
            u64::MAX.to_be_bytes(),
        );
        let written = self.write(batch).await;
        Ok(written.map_err(|error| StorageIoError::write_logs(&error))?)
    }

    /// Not synced: entries that come back are purged again.
    async fn purge(&mut self, upto: EntryId) -> Result<(), StorageError> {
        let mut batch = WriteBatch::default();
        batch.delete_range_cf(
            self.db.log(),
            0_u64.to_be_bytes(),
            upto.index.saturating_add(1).to_be_bytes(),
        );
        let written = self
            .db
            .put(&mut batch, KEY_PURGED, &upto)
            .and_then(|()| self.db.write_unsynced(batch));
        Ok(written.map_err(|error| StorageIoError::write_logs(&error))?)
    }
}
