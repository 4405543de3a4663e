//! The registry on disk: a replicated log with one member, on RocksDB.
//!
//! It has the shape that Raft needs (entries with index and term, a snapshot, purging), so that the
//! core behind it does not change when there are several members. Column families: `log` (index to
//! entry) and `state` (format, trusted authorities, term, and the snapshot with its index).
//!
//! Promise: an entry that [`Store::append`] returned for is found by every later open, or the open is
//! refused. Each record carries its version byte (`meros_proto::codec`); checksums are RocksDB's, over
//! each log record and each block, verified on every read.
//!
//! Absent: threads (see [`commit`]), the meaning of commands (see the core's `Registry`).

pub mod commit;
mod error;
mod snapshot;
#[cfg(test)]
mod tests;
mod watermark;

use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use meros_master_core::Registry;
use meros_master_core::command::Command;
use meros_proto::codec::{decode_record, encode_record};
use meros_proto::ids::{ClusterId, Epoch};
use rocksdb::{
    BlockBasedOptions, Cache, ColumnFamily, ColumnFamilyDescriptor, DB, DBRecoveryMode, Direction,
    IteratorMode, Options, WriteBatch, WriteOptions,
};

pub use error::{AppendError, OpenStoreError};
pub use meros_daemon::lock::{DataDirLock, LockError};
use watermark::Watermark;

/// The layout on disk that this release writes, and the newest that it reads.
const FORMAT: u32 = 1;

/// Entries after which a snapshot is made and the log before it is dropped: replaying that many takes
/// well under a second.
pub const SNAPSHOT_EVERY: u64 = 10_000;

const LOG: &str = "log";
const STATE: &str = "state";

/// Keys of the column family `state`. The snapshot's records are `snapshot/` and a number.
const KEY_FORMAT: &[u8] = b"format";
const KEY_AUTHORITIES: &[u8] = b"authorities";
const KEY_TERM: &[u8] = b"term";
const KEY_SNAPSHOT_INDEX: &[u8] = b"snapshot_index";

// The registry of 50,000 slaves is some 50 MB and is read once; what is written are small entries.
// RocksDB's own defaults would take 64 MiB a column family.
const WRITE_BUFFER_BYTES: usize = 1 << 20;
const BLOCK_CACHE_BYTES: usize = 1 << 20;
const WAL_BYTES_MAX: u64 = 8 << 20;
const OPEN_FILES_MAX: i32 = 64;

/// An entry of the log: the term it was proposed in, and the command.
type Entry = (u64, Command);

/// The log and the snapshot of one cluster's registry. Owned by one thread.
#[derive(Debug)]
pub struct Store {
    db: DB,
    watermark: Watermark,
    term: Epoch,
    last_index: u64,
    snapshot_index: u64,
    path: PathBuf,
    /// The last field, so that it outlives the database it guards.
    _lock: DataDirLock,
}

impl Store {
    /// Opens the registry in `data_dir`, or forms a new cluster in an empty one, and begins a new
    /// term. `authorities` are the certificates (DER) of the CAs that this master trusts: at least
    /// one must be known to the registry, so that the data of another cluster is not taken over;
    /// replacing a CA works while both are trusted.
    ///
    /// # Errors
    /// [`OpenStoreError`]; nothing has been changed then, except for an empty directory.
    pub fn open(
        data_dir: &Path,
        authorities: &[&[u8]],
        new_cluster: ClusterId,
    ) -> Result<(Self, Registry), OpenStoreError> {
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(data_dir)
            .map_err(|source| OpenStoreError::DataDir {
                path: data_dir.to_owned(),
                source,
            })?;
        let lock = DataDirLock::acquire(data_dir)?;
        let path = data_dir.join("registry");
        let db = open_db(&path)?;
        let mark_path = data_dir.join("acknowledged");
        let watermark = Watermark::open(&mark_path).map_err(|source| OpenStoreError::DataDir {
            path: mark_path.clone(),
            source,
        })?;
        let acknowledged = watermark.get().map_err(|source| OpenStoreError::DataDir {
            path: mark_path,
            source,
        })?;

        let mut store = Self {
            db,
            watermark,
            term: Epoch(0),
            last_index: 0,
            snapshot_index: 0,
            path,
            _lock: lock,
        };
        let registry = if store.get(KEY_FORMAT)?.is_some() {
            let trusted = store.check_identity(authorities)?;
            let registry = store.load(acknowledged)?;
            store.begin_term(&trusted)?;
            registry
        } else {
            store.form(authorities, new_cluster, acknowledged)?
        };
        Ok((store, registry))
    }

    /// The term that this open began; higher than any before in this directory.
    #[must_use]
    pub fn term(&self) -> Epoch {
        self.term
    }

    /// The index of the last entry.
    #[must_use]
    pub fn last_index(&self) -> u64 {
        self.last_index
    }

    /// The index up to which entries have become a snapshot.
    #[must_use]
    pub fn snapshot_index(&self) -> u64 {
        self.snapshot_index
    }

    /// Appends commands in order, with one write and one sync for all of them. When this returns
    /// they are durable.
    ///
    /// # Errors
    /// The disk is full or failing. The entries may or may not be found by the next open, and the
    /// store must not be used any more.
    pub fn append(&mut self, commands: &[Command]) -> Result<(), AppendError> {
        let mut batch = WriteBatch::default();
        let mut index = self.last_index;
        for command in commands {
            index += 1;
            let entry: (u64, &Command) = (self.term.0, command);
            batch.put_cf(self.log(), index.to_be_bytes(), encode_record(&entry)?);
        }
        self.write_synced(batch)?;
        self.last_index = index;
        self.watermark.set(index).map_err(AppendError::Watermark)
    }

    /// Makes a snapshot and drops the log before it, if [`SNAPSHOT_EVERY`] entries have come since
    /// the last. Tells whether it did.
    ///
    /// # Errors
    /// As of [`Store::append`], or the log cannot be read any more.
    pub fn compact_if_due(&mut self) -> Result<bool, AppendError> {
        if self.last_index - self.snapshot_index < SNAPSHOT_EVERY {
            return Ok(false);
        }
        self.compact()?;
        Ok(true)
    }

    fn compact(&mut self) -> Result<(), AppendError> {
        // Read back instead of kept: a second copy of the registry in memory would cost all the
        // time what this costs every 10,000 entries.
        let registry = self
            .replay()
            .map_err(|error| AppendError::Compact(Box::new(error)))?;
        let mut batch = WriteBatch::default();
        let (from, to) = snapshot::key_range();
        batch.delete_range_cf(self.state(), from, to);
        for (number, record) in snapshot::records(&registry)?.into_iter().enumerate() {
            batch.put_cf(self.state(), snapshot::key(number), record);
        }
        batch.put_cf(
            self.state(),
            KEY_SNAPSHOT_INDEX,
            self.last_index.to_be_bytes(),
        );
        batch.delete_range_cf(
            self.log(),
            0_u64.to_be_bytes(),
            (self.last_index + 1).to_be_bytes(),
        );
        self.write_synced(batch)?;
        self.snapshot_index = self.last_index;
        Ok(())
    }

    /// First start in an empty directory.
    fn form(
        &mut self,
        authorities: &[&[u8]],
        cluster_id: ClusterId,
        acknowledged: u64,
    ) -> Result<Registry, OpenStoreError> {
        if acknowledged > 0 || self.iterate(LOG, None).next().is_some() {
            return Err(OpenStoreError::EntriesLost {
                path: self.path.clone(),
                found: 0,
                acknowledged,
            });
        }
        self.term = Epoch(1);
        let command = Command::FormCluster { cluster_id };
        let entry: (u64, &Command) = (self.term.0, &command);
        let mut batch = WriteBatch::default();
        batch.put_cf(self.state(), KEY_FORMAT, FORMAT.to_be_bytes());
        batch.put_cf(
            self.state(),
            KEY_AUTHORITIES,
            encode_own(&authorities.to_vec()),
        );
        batch.put_cf(self.state(), KEY_TERM, self.term.0.to_be_bytes());
        batch.put_cf(self.log(), 1_u64.to_be_bytes(), encode_own(&entry));
        self.write_synced(batch)
            .map_err(|error| self.failed_to_begin(error))?;
        self.last_index = 1;
        let mut registry = Registry::default();
        registry
            .apply(&command)
            .expect("the first command forms a cluster in any registry");
        Ok(registry)
    }

    /// Checks format and cluster; returns the authorities to remember from now on.
    fn check_identity(&self, authorities: &[&[u8]]) -> Result<Vec<Vec<u8>>, OpenStoreError> {
        let format = self
            .get_number::<4>(KEY_FORMAT)?
            .map_or(0, u32::from_be_bytes);
        if format > FORMAT {
            return Err(OpenStoreError::NewerFormat {
                path: self.path.clone(),
                found: format,
                ours: FORMAT,
            });
        }
        let known = self.get(KEY_AUTHORITIES)?.unwrap_or_default();
        let known: Vec<Vec<u8>> = decode_record(&known).map_err(|error| self.corrupt(error))?;
        if !known
            .iter()
            .any(|one| authorities.contains(&one.as_slice()))
        {
            let cluster_id = self.replay()?.cluster_id();
            return Err(OpenStoreError::OtherCluster {
                path: self.path.clone(),
                cluster_id,
            });
        }
        Ok(authorities.iter().map(|one| one.to_vec()).collect())
    }

    fn load(&mut self, acknowledged: u64) -> Result<Registry, OpenStoreError> {
        self.snapshot_index = self
            .get_number::<8>(KEY_SNAPSHOT_INDEX)?
            .map_or(0, u64::from_be_bytes);
        self.term = Epoch(
            self.get_number::<8>(KEY_TERM)?
                .map_or(0, u64::from_be_bytes),
        );
        self.last_index = self.find_last_index()?;
        if self.last_index < acknowledged {
            return Err(OpenStoreError::EntriesLost {
                path: self.path.clone(),
                found: self.last_index,
                acknowledged,
            });
        }
        self.replay()
    }

    fn begin_term(&mut self, authorities: &[Vec<u8>]) -> Result<(), OpenStoreError> {
        self.term = Epoch(self.term.0 + 1);
        let mut batch = WriteBatch::default();
        batch.put_cf(self.state(), KEY_TERM, self.term.0.to_be_bytes());
        batch.put_cf(self.state(), KEY_AUTHORITIES, encode_own(&authorities));
        self.write_synced(batch)
            .map_err(|error| self.failed_to_begin(error))
    }

    /// The registry as snapshot and log make it.
    fn replay(&self) -> Result<Registry, OpenStoreError> {
        let mut registry = snapshot::read(self)?;
        let snapshot_index = self
            .get_number::<8>(KEY_SNAPSHOT_INDEX)?
            .map_or(0, u64::from_be_bytes);
        let first = snapshot_index + 1;
        let entries = self.iterate(LOG, Some(&first.to_be_bytes()));
        for (expected, item) in (first..).zip(entries) {
            let (key, value) = item.map_err(|error| self.unreadable(error))?;
            let index = self.index_of(&key)?;
            if index != expected {
                return Err(self.corrupt(format!("entry {expected} is missing before {index}")));
            }
            let (_, command): Entry = decode_record(&value)
                .map_err(|error| self.corrupt(format!("entry {index}: {error}")))?;
            // One that no longer fits changed nothing when it was committed, and does so again.
            let _ = registry.apply(&command);
        }
        Ok(registry)
    }

    fn find_last_index(&self) -> Result<u64, OpenStoreError> {
        match self.db.iterator_cf(self.log(), IteratorMode::End).next() {
            None => Ok(self.snapshot_index),
            Some(Ok((key, _))) => self.index_of(&key),
            Some(Err(error)) => Err(self.unreadable(error)),
        }
    }

    fn index_of(&self, key: &[u8]) -> Result<u64, OpenStoreError> {
        let bytes = key
            .try_into()
            .map_err(|_| self.corrupt("a log key is not 8 bytes long"))?;
        Ok(u64::from_be_bytes(bytes))
    }

    fn write_synced(&self, batch: WriteBatch) -> Result<(), AppendError> {
        let mut options = WriteOptions::default();
        options.set_sync(true);
        self.db
            .write_opt(batch, &options)
            .map_err(AppendError::Write)
    }

    fn log(&self) -> &ColumnFamily {
        self.db.cf_handle(LOG).expect("opened with it")
    }

    fn state(&self) -> &ColumnFamily {
        self.db.cf_handle(STATE).expect("opened with it")
    }

    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, OpenStoreError> {
        self.db
            .get_cf(self.state(), key)
            .map_err(|error| self.unreadable(error))
    }

    fn get_number<const N: usize>(&self, key: &[u8]) -> Result<Option<[u8; N]>, OpenStoreError> {
        let Some(bytes) = self.get(key)? else {
            return Ok(None);
        };
        let wrong = || {
            self.corrupt(format!(
                "{} has {} bytes",
                String::from_utf8_lossy(key),
                bytes.len()
            ))
        };
        bytes.as_slice().try_into().map(Some).map_err(|_| wrong())
    }

    fn iterate(&self, family: &str, from: Option<&[u8]>) -> rocksdb::DBIterator<'_> {
        let family = if family == LOG {
            self.log()
        } else {
            self.state()
        };
        let mode = from.map_or(IteratorMode::Start, |key| {
            IteratorMode::From(key, Direction::Forward)
        });
        self.db.iterator_cf(family, mode)
    }

    fn corrupt(&self, detail: impl ToString) -> OpenStoreError {
        OpenStoreError::Corrupt {
            path: self.path.clone(),
            detail: detail.to_string(),
        }
    }

    fn unreadable(&self, source: rocksdb::Error) -> OpenStoreError {
        OpenStoreError::from_rocksdb(&self.path, source)
    }

    fn failed_to_begin(&self, source: AppendError) -> OpenStoreError {
        OpenStoreError::Begin {
            path: self.path.clone(),
            source,
        }
    }
}

fn open_db(path: &Path) -> Result<DB, OpenStoreError> {
    let mut options = Options::default();
    options.create_if_missing(true);
    options.create_missing_column_families(true);
    options.set_db_write_buffer_size(2 * WRITE_BUFFER_BYTES);
    options.set_max_total_wal_size(WAL_BYTES_MAX);
    options.set_max_open_files(OPEN_FILES_MAX);
    options.set_max_background_jobs(2);
    // Its own log is of use to nobody here; what matters comes back as errors.
    options.set_keep_log_file_num(1);
    options.set_max_log_file_size(256 << 10);
    options.set_stats_dump_period_sec(0);
    options.set_stats_persist_period_sec(0);
    // A torn last record is an entry that was never acknowledged. Damage before it is refused here;
    // a log that lost acknowledged entries is refused by the watermark.
    options.set_wal_recovery_mode(DBRecoveryMode::TolerateCorruptedTailRecords);
    options.set_track_and_verify_wals_in_manifest(true);

    let mut tables = BlockBasedOptions::default();
    let cache = Cache::new_lru_cache(BLOCK_CACHE_BYTES);
    tables.set_block_cache(&cache);
    let family = |name| {
        let mut options = Options::default();
        options.set_write_buffer_size(WRITE_BUFFER_BYTES);
        options.set_max_write_buffer_number(2);
        options.set_block_based_table_factory(&tables);
        ColumnFamilyDescriptor::new(name, options)
    };
    DB::open_cf_descriptors(
        &options,
        path,
        [family("default"), family(LOG), family(STATE)],
    )
    .map_err(|source| OpenStoreError::from_rocksdb(path, source))
}

/// A record of a few KiB that we made ourselves.
fn encode_own<T: serde::Serialize>(value: &T) -> Vec<u8> {
    encode_record(value).expect("far smaller than a frame, and of plain types")
}
