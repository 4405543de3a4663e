//! The replicated registry itself: committed entries are applied to it, in order, on every master.
//!
//! It is kept in memory; on disk are the last snapshot and the log since. What this master proposed
//! in its present reign is reported to its core as it is applied.
//!
//! Masters compare: after each [`HASH_EVERY`] entries each computes the hash of its registry, and the
//! leader's goes out with its next proposal. One that differs is a bug or broken memory, and whoever
//! finds it stops: going on would be two truths.
//!
//! Invariant: R1 on all masters the registry after an entry is the same.

use std::collections::VecDeque;
use std::io::{Cursor, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use meros_master_core::command::Command;
use meros_master_core::{Format, Registry};
use meros_proto::ids::Epoch;
use openraft::storage::RaftStateMachine;
use openraft::{AnyError, EntryPayload, OptionalSend, RaftSnapshotBuilder, Snapshot};
use parking_lot::Mutex;
use tokio::task;
use tracing::info;

use super::db::Db;
use super::error::OpenStoreError;
use super::snapshot;
use super::types::{
    Batch, Body, Entry, EntryId, MasterId, Reign, SnapshotMeta, StateCheck, StorageError,
    StorageIoError, StoredMembers, Types,
};
use super::upgrade::Formats;
use crate::exit::{Exit, ExitReason};

/// Entries between two hashes. Hashing 50,000 slaves takes some 100 ms, which this makes rare.
pub(crate) const HASH_EVERY: u64 = 256;

/// Hashes that are kept to be compared with those of the leader, which sends each at once.
const HASHES_KEPT: usize = 4;

/// The most bytes of a snapshot that are taken from another master: the registry of 50,000 slaves is
/// some 50 MB.
pub(crate) const SNAPSHOT_BYTES_MAX: u64 = 1 << 30;

/// What the core's thread is told of what is applied, in order.
#[derive(Debug)]
pub(crate) enum Report {
    /// The entry that begins this master's reign is applied, and so is all before it.
    Lead {
        /// The number of the reign.
        reign: u64,
        /// The index of that entry: higher than that of any reign before.
        epoch: Epoch,
        /// What is replicated, as of that entry.
        registry: Box<Registry>,
    },
    /// A command is applied in this reign.
    Committed {
        /// The number of the reign.
        reign: u64,
        /// The core's number for it; none if the core has not proposed it in this reign.
        proposal: Option<u64>,
        /// The command.
        command: Box<Command>,
    },
}

/// What can be read of the registry at any time, also by those that do not lead.
#[derive(Debug, Default)]
pub(crate) struct State {
    pub(crate) registry: Registry,
    applied: Option<EntryId>,
    members: StoredMembers,
    hashes: VecDeque<StateCheck>,
}

impl State {
    /// The stored snapshot, or nothing.
    ///
    /// # Errors
    /// It cannot be read, or makes no sense.
    pub(super) fn load(db: &Db) -> Result<Self, OpenStoreError> {
        let mut state = Self::default();
        if let Some((meta, json)) = snapshot::load(db)? {
            state.registry = snapshot::decode(&json)
                .map_err(|error| db.corrupt(format!("snapshot: {error}")))?;
            state.applied = meta.last_log_id;
            state.members = meta.last_membership;
        }
        Ok(state)
    }

    /// The last entry in it.
    pub(super) fn applied_index(&self) -> u64 {
        index_of(self.applied)
    }

    /// Applies an entry to what nobody else sees.
    pub(super) fn replay(&mut self, entry: Entry) {
        if let EntryPayload::Normal(Batch {
            body: Body::Commands(commands),
            ..
        }) = entry.payload
        {
            for (_, command) in &commands {
                // As in `apply_batch`.
                let _ = self.registry.apply(command);
            }
        }
        self.applied = Some(entry.log_id);
    }

    /// What the leader's next proposal is to tell the others.
    pub(crate) fn check(&self) -> Option<StateCheck> {
        self.hashes.back().copied()
    }
}

/// See [`State`]. Cheap to clone.
pub(crate) type SharedState = Arc<Mutex<State>>;

/// The state machine as openraft wants it.
pub(crate) struct Machine {
    db: Arc<Db>,
    master_id: MasterId,
    state: SharedState,
    /// The reign of this master; 0: it does not lead.
    reign: Arc<AtomicU64>,
    /// The reign of this master that the latest entry of its kind begins; 0: it begins another's.
    begun: u64,
    formats: Arc<Formats>,
    report: Box<dyn FnMut(Report) + Send + Sync>,
    exit: Exit,
}

impl Machine {
    /// With the stored snapshot.
    ///
    /// # Errors
    /// It cannot be read, or makes no sense.
    pub(crate) fn open(
        db: Arc<Db>,
        master_id: MasterId,
        reign: Arc<AtomicU64>,
        formats: Arc<Formats>,
        report: Box<dyn FnMut(Report) + Send + Sync>,
        exit: Exit,
    ) -> Result<Self, OpenStoreError> {
        let state = State::load(&db)?;
        formats.follow(&state.registry);
        Ok(Self {
            db,
            master_id,
            state: Arc::new(Mutex::new(state)),
            reign,
            begun: 0,
            formats,
            report,
            exit,
        })
    }

    /// What is applied.
    pub(crate) fn state(&self) -> SharedState {
        Arc::clone(&self.state)
    }

    fn apply_batch(&mut self, index: u64, batch: Batch) -> Result<(), StateCheck> {
        let reign = self.reign.load(Ordering::Acquire);
        let ours = Reign {
            master: self.master_id,
            number: reign,
        };
        let is_ours = reign != 0 && batch.reign == ours;
        match batch.body {
            Body::Lead => {
                self.begun = if is_ours { reign } else { 0 };
                if is_ours {
                    let registry = Box::new(self.state.lock().registry.clone());
                    (self.report)(Report::Lead {
                        reign,
                        epoch: Epoch(index),
                        registry,
                    });
                }
            }
            Body::Commands(commands) => {
                {
                    let mut state = self.state.lock();
                    for (_, command) in &commands {
                        // One that no longer fits is a result that every master finds, not an error.
                        let _ = state.registry.apply(command);
                    }
                    self.formats.follow(&state.registry);
                }
                // Also what was on its way when another reign of this master ended: the core of this one
                // must not miss anything.
                let is_led = reign != 0 && self.begun == reign;
                for (proposal, command) in commands.into_iter().filter(|_| is_led) {
                    (self.report)(Report::Committed {
                        reign,
                        proposal: is_ours.then_some(proposal),
                        command: Box::new(command),
                    });
                }
            }
        }
        match batch.check {
            Some(theirs) => self.state.lock().compare(theirs),
            None => Ok(()),
        }
    }
}

impl State {
    fn compare(&self, theirs: StateCheck) -> Result<(), StateCheck> {
        let comparable =
            |ours: &&StateCheck| ours.index == theirs.index && ours.release == theirs.release;
        match self.hashes.iter().find(comparable) {
            Some(ours) if ours.hash != theirs.hash => Err(*ours),
            _ => Ok(()),
        }
    }

    fn applied(&mut self, id: EntryId) {
        self.applied = Some(id);
        let is_due = id.index.is_multiple_of(HASH_EVERY);
        if let Some(hash) = is_due.then(|| hash(&self.registry)).flatten() {
            self.hashes.push_back(StateCheck {
                index: id.index,
                release: Hash::of(env!("CARGO_PKG_VERSION").as_bytes()),
                hash,
            });
            if self.hashes.len() > HASHES_KEPT {
                self.hashes.pop_front();
            }
        }
    }
}

impl RaftStateMachine<Types> for Machine {
    type SnapshotBuilder = Builder;

    async fn applied_state(&mut self) -> Result<(Option<EntryId>, StoredMembers), StorageError> {
        let state = self.state.lock();
        Ok((state.applied, state.members.clone()))
    }

    async fn apply<I>(&mut self, entries: I) -> Result<Vec<()>, StorageError>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let mut answers = Vec::new();
        for entry in entries {
            let id = entry.log_id;
            match entry.payload {
                EntryPayload::Blank => {}
                EntryPayload::Membership(members) => {
                    self.state.lock().members = StoredMembers::new(Some(id), members);
                }
                EntryPayload::Normal(batch) => {
                    let theirs = batch.check;
                    if let (Err(ours), Some(theirs)) = (self.apply_batch(id.index, batch), theirs) {
                        return Err(self.diverged(id, ours, theirs));
                    }
                }
            }
            self.state.lock().applied(id);
            answers.push(());
        }
        Ok(answers)
    }

    async fn get_snapshot_builder(&mut self) -> Builder {
        let state = self.state.lock();
        Builder {
            db: Arc::clone(&self.db),
            registry: state.registry.clone(),
            meta: SnapshotMeta {
                last_log_id: state.applied,
                last_membership: state.members.clone(),
                snapshot_id: format!("{}-{}", self.master_id, index_of(state.applied)),
            },
        }
    }

    async fn begin_receiving_snapshot(&mut self) -> Result<Box<Cursor<Vec<u8>>>, StorageError> {
        Ok(Box::default())
    }

    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMeta,
        snapshot: Box<Cursor<Vec<u8>>>,
    ) -> Result<(), StorageError> {
        let json = snapshot.into_inner();
        let unread = |error| StorageIoError::read_snapshot(Some(meta.signature()), error);
        let format = snapshot::format(&json).map_err(|error| unread(AnyError::new(&error)))?;
        let expected = self.formats.expect(format);
        expected.map_err(|error| unread(AnyError::new(&error)))?;
        let registry = snapshot::decode(&json).map_err(|error| unread(AnyError::new(&error)))?;
        info!(
            entry = index_of(meta.last_log_id),
            slaves = registry.slaves().count(),
            "snapshot received from the leader"
        );
        store(Arc::clone(&self.db), meta.clone(), format, json).await?;
        self.formats.follow(&registry);
        let mut state = self.state.lock();
        state.registry = registry;
        state.applied = meta.last_log_id;
        state.members = meta.last_membership.clone();
        state.hashes.clear();
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot<Types>>, StorageError> {
        let db = Arc::clone(&self.db);
        let loaded = task::spawn_blocking(move || snapshot::load(&db))
            .await
            .expect("reading does not panic")
            .map_err(|error| StorageIoError::read_snapshot(None, &error))?;
        Ok(loaded.map(|(meta, json)| Snapshot {
            meta,
            snapshot: Box::new(Cursor::new(json)),
        }))
    }
}

impl Machine {
    fn diverged(&self, at: EntryId, ours: StateCheck, theirs: StateCheck) -> StorageError {
        let reason = ExitReason::RegistryDiverged {
            index: ours.index,
            ours: ours.hash,
            theirs: theirs.hash,
            leader: at.leader_id.node_id,
        };
        let error = AnyError::error(&reason);
        self.exit.end(reason);
        StorageIoError::apply(at, error).into()
    }
}

/// Writes the snapshot while the registry goes on.
#[derive(Debug)]
pub(crate) struct Builder {
    db: Arc<Db>,
    registry: Registry,
    meta: SnapshotMeta,
}

impl RaftSnapshotBuilder<Types> for Builder {
    async fn build_snapshot(&mut self) -> Result<Snapshot<Types>, StorageError> {
        let registry = std::mem::take(&mut self.registry);
        let (meta, format) = (self.meta.clone(), registry.format());
        let json = task::spawn_blocking(move || snapshot::encode(&registry))
            .await
            .expect("encoding does not panic")
            .map_err(|error| StorageIoError::write_snapshot(Some(meta.signature()), &error))?;
        store(Arc::clone(&self.db), meta.clone(), format, json.clone()).await?;
        info!(
            entry = index_of(meta.last_log_id),
            bytes = json.len(),
            "snapshot of the registry"
        );
        Ok(Snapshot {
            meta,
            snapshot: Box::new(Cursor::new(json)),
        })
    }
}

async fn store(
    db: Arc<Db>,
    meta: SnapshotMeta,
    format: Format,
    json: Vec<u8>,
) -> Result<(), StorageError> {
    let signature = meta.signature();
    task::spawn_blocking(move || snapshot::store(&db, &meta, format, &json))
        .await
        .expect("writing does not panic")
        .map_err(|error| StorageIoError::write_snapshot(Some(signature), &error).into())
}

fn index_of(id: Option<EntryId>) -> u64 {
    id.map_or(0, |id| id.index)
}

/// The hash of all that is replicated: the same on every master of one release. None if it has no form
/// in JSON, which the next snapshot says as an error.
pub(super) fn hash(registry: &Registry) -> Option<u64> {
    let mut hash = Hash::new();
    serde_json::to_writer(&mut hash, registry).ok()?;
    Some(hash.0)
}

/// FNV-1a: fixed for ever, which the standard library's hashes are not.
struct Hash(u64);

impl Hash {
    fn new() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }

    fn of(bytes: &[u8]) -> u64 {
        let mut hash = Self::new();
        hash.add(bytes);
        hash.0
    }

    fn add(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3);
        }
    }
}

impl Write for Hash {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.add(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
