//! The registry's database: a RocksDB with two column families, and what every open checks.
//!
//! `log` holds entries by index; `state` holds the format, the trusted authorities, this member's
//! number, its vote, what is purged, and the snapshot. Everything that is promised to others goes
//! through [`Db::write_synced`]: one batch, one sync.
//!
//! Promise: what [`Db::write_synced`] returned for is found by every later open, or the open is
//! refused. Each record carries its version byte (`meros_proto::codec`); checksums are RocksDB's, over
//! each log record and each block, verified on every read.
//!
//! Absent: what entries mean (see `machine`), and when they are written (see `log`).

use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use meros_daemon::lock::DataDirLock;
use meros_master_core::Format;
use meros_proto::codec::{decode_record, encode_record};
use parking_lot::Mutex;
use rocksdb::{
    BlockBasedOptions, Cache, ColumnFamily, ColumnFamilyDescriptor, DB, DBRecoveryMode, Direction,
    IteratorMode, Options, WriteBatch, WriteOptions,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::oneshot;

use super::error::{OpenStoreError, WriteError};
use super::pace::Pace;
use super::types::{Entry, MasterId, Record};
use super::watermark::Watermark;

pub(super) const LOG: &str = "log";
pub(super) const STATE: &str = "state";

const KEY_FORMAT: &[u8] = b"format";
const KEY_AUTHORITIES: &[u8] = b"authorities";
const KEY_MASTER_ID: &[u8] = b"master_id";
const KEY_PACE: &[u8] = b"pace";
/// Counts synced writes; see [`Watermark`].
const KEY_WRITES: &[u8] = b"writes";

// The registry of 50,000 slaves is some 50 MB and is read once; what is written are small entries.
// RocksDB's own defaults would take 64 MiB a column family.
const WRITE_BUFFER_BYTES: usize = 1 << 20;
const BLOCK_CACHE_BYTES: usize = 1 << 20;
const WAL_BYTES_MAX: u64 = 8 << 20;
const OPEN_FILES_MAX: i32 = 64;

/// An open database. The last to drop it frees the data directory.
#[derive(Debug)]
pub(crate) struct Db {
    db: DB,
    written: Mutex<Written>,
    /// The newest that may be in it; 0: not known yet.
    format: AtomicU32,
    path: PathBuf,
    /// After the database, so that it outlives what it guards.
    _lock: DataDirLock,
    /// Dropped last: then the directory can be opened again.
    _closed: oneshot::Sender<()>,
}

#[derive(Debug)]
struct Written {
    /// Synced writes so far.
    count: u64,
    watermark: Watermark,
}

/// A key and its value as RocksDB gives them.
type KeyValue = (Box<[u8]>, Box<[u8]>);

/// What a new registry begins with, besides its number.
pub(crate) type First = Box<dyn FnOnce(&Db, &mut WriteBatch) -> Result<(), WriteError> + Send>;

/// What [`Db::open`] found.
#[derive(Debug)]
pub(crate) struct Opened {
    /// The database.
    pub(crate) db: Arc<Db>,
    /// This member.
    pub(crate) master_id: MasterId,
    /// Ends when nobody holds the database any more.
    pub(crate) closed: oneshot::Receiver<()>,
}

impl Db {
    /// Opens the registry in `data_dir`, or begins one with the number `new_id` and with what `first`
    /// writes. `authorities` are the certificates (DER) of the CAs that this master
    /// trusts: at least one must be known to the registry, so that the data of another cluster is not
    /// taken over; replacing a CA works while both are trusted.
    ///
    /// # Errors
    /// [`OpenStoreError`]; nothing has been changed then, except for an empty directory.
    pub(crate) fn open(
        data_dir: &Path,
        authorities: &[&[u8]],
        new_id: MasterId,
        first: First,
    ) -> Result<Opened, OpenStoreError> {
        let (db, closed, acknowledged) = Self::open_files(data_dir, true)?;
        let master_id = match db.number::<4>(KEY_FORMAT)?.map(u32::from_be_bytes) {
            Some(format) => db.check(Format(format), authorities, acknowledged)?,
            None => db.begin(authorities, acknowledged, new_id, first)?,
        };
        Ok(Opened {
            db: Arc::new(db),
            master_id,
            closed,
        })
    }

    /// Opens the registry in `data_dir` only to read it, whoever it belongs to. It must exist, and all
    /// that was promised must be there.
    ///
    /// # Errors
    /// [`OpenStoreError`].
    pub(crate) fn open_existing(data_dir: &Path) -> Result<Self, OpenStoreError> {
        let (db, _, acknowledged) = Self::open_files(data_dir, false)?;
        match db.number::<4>(KEY_FORMAT)?.map(u32::from_be_bytes) {
            Some(format) => db.check_whole(Format(format), acknowledged)?,
            None => return Err(db.corrupt("there is no registry in it")),
        };
        Ok(db)
    }

    /// The database, what ends with it, and how many writes were promised.
    fn open_files(
        data_dir: &Path,
        create: bool,
    ) -> Result<(Self, oneshot::Receiver<()>, u64), OpenStoreError> {
        let unusable = |path: &Path| {
            let path = path.to_owned();
            move |source| OpenStoreError::DataDir { path, source }
        };
        let made = match create {
            true => std::fs::DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(data_dir),
            false => std::fs::metadata(data_dir.join("registry")).map(drop),
        };
        made.map_err(unusable(data_dir))?;
        let lock = DataDirLock::acquire(data_dir)?;
        let path = data_dir.join("registry");
        let db = open_db(&path)?;
        let mark_path = data_dir.join("acknowledged");
        let watermark = Watermark::open(&mark_path).map_err(unusable(&mark_path))?;
        let acknowledged = watermark.get().map_err(unusable(&mark_path))?;
        let (closing, closed) = oneshot::channel();
        let db = Self {
            db,
            written: Mutex::new(Written {
                count: 0,
                watermark,
            }),
            format: AtomicU32::new(0),
            path,
            _lock: lock,
            _closed: closing,
        };
        Ok((db, closed, acknowledged))
    }

    /// First start in an empty directory.
    fn begin(
        &self,
        authorities: &[&[u8]],
        acknowledged: u64,
        new_id: MasterId,
        first: First,
    ) -> Result<MasterId, OpenStoreError> {
        if acknowledged > 0 || self.iterate(LOG, IteratorMode::Start).next().is_some() {
            return Err(self.lost(0, acknowledged));
        }
        let mut batch = WriteBatch::default();
        // A newer one is noted when the cluster goes on to it.
        self.put_format(&mut batch, Format::OLDEST);
        batch.put_cf(self.state(), KEY_MASTER_ID, new_id.0.to_be_bytes());
        let begun = self
            .put(&mut batch, KEY_AUTHORITIES, &authorities.to_vec())
            .and_then(|()| first(self, &mut batch))
            .and_then(|()| self.write_synced(batch));
        begun.map_err(|error| self.failed_to_begin(error))?;
        Ok(new_id)
    }

    fn check(
        &self,
        format: Format,
        authorities: &[&[u8]],
        acknowledged: u64,
    ) -> Result<MasterId, OpenStoreError> {
        let count = self.check_whole(format, acknowledged)?;
        let known: Vec<Vec<u8>> = self.get(KEY_AUTHORITIES)?.unwrap_or_default();
        let is_trusted = |one: &Vec<u8>| authorities.contains(&one.as_slice());
        if !known.iter().any(is_trusted) {
            let path = self.path.clone();
            return Err(OpenStoreError::OtherCluster { path });
        }
        self.written.lock().count = count;
        let ours: Vec<Vec<u8>> = authorities.iter().map(|one| one.to_vec()).collect();
        if known != ours {
            let mut batch = WriteBatch::default();
            self.put(&mut batch, KEY_AUTHORITIES, &ours)
                .and_then(|()| self.write_synced(batch))
                .map_err(|error| self.failed_to_begin(error))?;
        }
        self.number::<8>(KEY_MASTER_ID)?
            .map(|number| MasterId(u64::from_be_bytes(number)))
            .ok_or_else(|| self.corrupt("the number of this master is missing"))
    }

    /// Whether this release can read it, and all that was promised is there; tells how many writes that
    /// were.
    fn check_whole(&self, format: Format, acknowledged: u64) -> Result<u64, OpenStoreError> {
        let path = || self.path.clone();
        if format > Format::NEWEST {
            return Err(OpenStoreError::NewerFormat {
                path: path(),
                found: format.0,
                ours: Format::NEWEST.0,
            });
        }
        if format < Format::OLDEST {
            return Err(OpenStoreError::OlderFormat {
                path: path(),
                found: format.0,
                ours: Format::OLDEST.0,
            });
        }
        self.format.store(format.0, Ordering::Release);
        let count = self.number::<8>(KEY_WRITES)?.map_or(0, u64::from_be_bytes);
        match count < acknowledged {
            true => Err(self.lost(count, acknowledged)),
            false => Ok(count),
        }
    }

    /// Writes and syncs; when this returns it is durable. Blocks for as long as the disk takes.
    ///
    /// # Errors
    /// The disk is full or failing. What was written may or may not be found by the next open, and
    /// the process must end.
    pub(crate) fn write_synced(&self, mut batch: WriteBatch) -> Result<(), WriteError> {
        let mut written = self.written.lock();
        let count = written.count + 1;
        batch.put_cf(self.state(), KEY_WRITES, count.to_be_bytes());
        let mut options = WriteOptions::default();
        options.set_sync(true);
        self.db
            .write_opt(batch, &options)
            .map_err(WriteError::Write)?;
        written.count = count;
        written.watermark.set(count).map_err(WriteError::Watermark)
    }

    /// Writes what need not survive a loss of power.
    ///
    /// # Errors
    /// As of [`Db::write_synced`].
    pub(crate) fn write_unsynced(&self, batch: WriteBatch) -> Result<(), WriteError> {
        self.db.write(batch).map_err(WriteError::Write)
    }

    /// Adds a record of the state to a batch.
    ///
    /// # Errors
    /// It is too large for a record.
    pub(crate) fn put<T: Serialize>(
        &self,
        batch: &mut WriteBatch,
        key: &[u8],
        value: &T,
    ) -> Result<(), WriteError> {
        batch.put_cf(self.state(), key, encode_record(value)?);
        Ok(())
    }

    /// The pace at which whoever had this database open before may have promised something. Writes down this
    /// one if it is slower.
    ///
    /// # Errors
    /// The database cannot be read or written.
    pub(crate) fn paced(&self, pace: Pace) -> Result<Pace, OpenStoreError> {
        let before = self.get::<Pace>(KEY_PACE)?.unwrap_or_default().checked();
        if pace > before {
            self.put_pace(pace)
                .map_err(|error| self.failed_to_begin(error))?;
        }
        Ok(before)
    }

    /// Writes down the pace at which this master makes promises from now on.
    ///
    /// # Errors
    /// As of [`Db::write_synced`].
    pub(crate) fn put_pace(&self, pace: Pace) -> Result<(), WriteError> {
        let mut batch = WriteBatch::default();
        self.put(&mut batch, KEY_PACE, &pace)?;
        self.write_synced(batch)
    }

    /// Adds to a batch that what is in the database may have this format: a release that does not know it
    /// does not open it any more. Nothing if that was known; it is never taken back.
    pub(crate) fn put_format(&self, batch: &mut WriteBatch, format: Format) {
        if self.format.fetch_max(format.0, Ordering::AcqRel) < format.0 {
            batch.put_cf(self.state(), KEY_FORMAT, format.0.to_be_bytes());
        }
    }

    /// Adds an entry of the log to a batch.
    ///
    /// # Errors
    /// It is too large for a record.
    pub(crate) fn put_entry(&self, batch: &mut WriteBatch, entry: Entry) -> Result<(), WriteError> {
        let key = entry.log_id.index.to_be_bytes();
        batch.put_cf(self.log(), key, encode_record(&Record::from(entry))?);
        Ok(())
    }

    /// A record of the state, if it is there.
    ///
    /// # Errors
    /// It cannot be read, or makes no sense.
    pub(crate) fn get<T: DeserializeOwned>(&self, key: &[u8]) -> Result<Option<T>, OpenStoreError> {
        let Some(bytes) = self.bytes(key)? else {
            return Ok(None);
        };
        let value = decode_record(&bytes).map_err(|error| {
            self.corrupt(format!("record {}: {error}", String::from_utf8_lossy(key)))
        })?;
        Ok(Some(value))
    }

    /// The entries from this index on, up to the first that cannot be read.
    pub(crate) fn entries(
        &self,
        from: u64,
    ) -> impl Iterator<Item = Result<(Entry, usize), OpenStoreError>> {
        let from = from.to_be_bytes();
        let mode = IteratorMode::From(&from, Direction::Forward);
        let items = self.db.iterator_cf(self.log(), mode);
        items.map(|item| {
            let (key, value) = item.map_err(|error| self.unreadable(error))?;
            Ok((self.entry(&key, &value)?, value.len()))
        })
    }

    /// The last entry of the log.
    ///
    /// # Errors
    /// It cannot be read, or makes no sense.
    pub(crate) fn last_entry(&self) -> Result<Option<Entry>, OpenStoreError> {
        match self.iterate(LOG, IteratorMode::End).next() {
            None => Ok(None),
            Some(Ok((key, value))) => self.entry(&key, &value).map(Some),
            Some(Err(error)) => Err(self.unreadable(error)),
        }
    }

    fn entry(&self, key: &[u8], value: &[u8]) -> Result<Entry, OpenStoreError> {
        let key = key
            .try_into()
            .map_err(|_| self.corrupt("a log key is not 8 bytes long"))?;
        let index = u64::from_be_bytes(key);
        let record: Record = decode_record(value)
            .map_err(|error| self.corrupt(format!("entry {index}: {error}")))?;
        Ok(record.into_entry(index))
    }

    pub(super) fn iterate(
        &self,
        family: &str,
        mode: IteratorMode<'_>,
    ) -> impl Iterator<Item = Result<KeyValue, rocksdb::Error>> {
        self.db.iterator_cf(self.family(family), mode)
    }

    /// Where it is.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    fn bytes(&self, key: &[u8]) -> Result<Option<Vec<u8>>, OpenStoreError> {
        self.db
            .get_cf(self.state(), key)
            .map_err(|error| self.unreadable(error))
    }

    fn number<const BYTES: usize>(
        &self,
        key: &[u8],
    ) -> Result<Option<[u8; BYTES]>, OpenStoreError> {
        let Some(bytes) = self.bytes(key)? else {
            return Ok(None);
        };
        let number = bytes.try_into().map_err(|_| {
            self.corrupt(format!(
                "record {} has the wrong length",
                String::from_utf8_lossy(key)
            ))
        })?;
        Ok(Some(number))
    }

    pub(super) fn log(&self) -> &ColumnFamily {
        self.family(LOG)
    }

    pub(super) fn state(&self) -> &ColumnFamily {
        self.family(STATE)
    }

    fn family(&self, name: &str) -> &ColumnFamily {
        self.db.cf_handle(name).expect("opened with it")
    }

    pub(super) fn corrupt(&self, detail: impl ToString) -> OpenStoreError {
        OpenStoreError::Corrupt {
            path: self.path.clone(),
            detail: detail.to_string(),
        }
    }

    pub(super) fn unreadable(&self, source: rocksdb::Error) -> OpenStoreError {
        OpenStoreError::from_rocksdb(&self.path, source)
    }

    fn lost(&self, found: u64, acknowledged: u64) -> OpenStoreError {
        OpenStoreError::WritesLost {
            path: self.path.clone(),
            found,
            acknowledged,
        }
    }

    fn failed_to_begin(&self, source: WriteError) -> OpenStoreError {
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
    // A torn last record is a write that was never acknowledged. Damage before it is refused here;
    // a log that lost acknowledged writes is refused by the watermark.
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
