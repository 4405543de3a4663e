//! The registry in a file, and a new cluster from one.
//!
//! A backup is what one master had applied at one moment. From it, or from what is left of a master, a
//! data directory is made for the only member of a new Raft; others join it with empty directories.
//! Its log begins far behind that of the backup, so that its epochs are higher than all that anybody
//! has heard of: slaves and frameworks come back to it, and turn their backs on what may be left of the
//! old masters. Ids that were given out since the backup are left out for the same reason.
//!
//! Invariant: R4 epochs and ids of a restored cluster were not given out before.

use std::collections::BTreeMap;
use std::path::Path;

use meros_master_core::{Format, Registry};
use openraft::Membership;
use rocksdb::WriteBatch;
use serde::{Deserialize, Serialize};

use crate::restore::Restored;

use super::db::Db;
use super::error::{OpenStoreError, WriteError};
use super::log::Log;
use super::machine::State;
use super::snapshot;
use super::types::{MasterId, Member, SnapshotMeta, StoredMembers, Vote, entry_id};

/// The layout of the file, and the only one that this release reads.
const FORMAT: u32 = 1;
/// How far behind the backup's last entry the new log begins: more entries than a cluster writes in
/// years, so that epochs since the backup are passed over.
const ENTRIES_PASSED_OVER: u64 = 1 << 32;
/// How many ids of slaves and frameworks are passed over.
const IDS_PASSED_OVER: u32 = 1 << 20;

/// What `GET /api/v1/backup` tells.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Backup {
    format: u32,
    /// Of the software that wrote it.
    release: String,
    /// The last entry in it.
    index: u64,
    registry: Registry,
}

/// Why no data directory was made.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// The file is not what `meros backup` wrote.
    #[error("the file is not a backup, or it is damaged")]
    NotABackup(#[source] serde_json::Error),
    /// A newer release wrote it.
    #[error("the backup has format {found}, this release reads {FORMAT}: use the newer release")]
    NewerFormat {
        /// Its format.
        found: u32,
    },
    /// It is of a cluster whose masters were of a newer release.
    #[error(
        "the registry in it has format {found} and was written by release {release}, this release reads up to {} (newer_format): use that release",
        Format::NEWEST
    )]
    NewerRegistry {
        /// Its format.
        found: Format,
        /// Who wrote it.
        release: String,
    },
    /// A backup of nothing.
    #[error("there is no cluster in it yet")]
    NoCluster,
    /// There is a registry already.
    #[error("there is a registry in the data directory already: name one that does not exist yet")]
    NotEmpty,
    /// The registry cannot be opened or written.
    #[error(transparent)]
    Store(#[from] OpenStoreError),
}

impl Backup {
    /// Of what is applied.
    pub(crate) fn of(state: &State) -> Self {
        Self {
            format: FORMAT,
            release: env!("CARGO_PKG_VERSION").to_owned(),
            index: state.applied_index(),
            registry: state.registry.clone(),
        }
    }

    /// Of a registry, by the first release.
    #[cfg(test)]
    pub(super) fn sample(registry: Registry) -> Self {
        Self {
            format: FORMAT,
            release: "0.1.0".to_owned(),
            index: 70_000,
            registry,
        }
    }

    /// Of a file.
    ///
    /// # Errors
    /// [`RestoreError`].
    pub(crate) fn parse(json: &[u8]) -> Result<Self, RestoreError> {
        /// What every format has.
        #[derive(Deserialize)]
        struct Head {
            format: u32,
            #[serde(default)]
            release: String,
            #[serde(default)]
            registry: snapshot::Head,
        }
        let head: Head = serde_json::from_slice(json).map_err(RestoreError::NotABackup)?;
        if head.format > FORMAT {
            return Err(RestoreError::NewerFormat { found: head.format });
        }
        if head.registry.format > Format::NEWEST {
            // What this release does not know in it would be lost without a word.
            return Err(RestoreError::NewerRegistry {
                found: head.registry.format,
                release: head.release,
            });
        }
        serde_json::from_slice(json).map_err(RestoreError::NotABackup)
    }

    /// Of a member that does not run: its snapshot and all of its log. What it had not heard to be
    /// committed is in it, too: nobody can tell any more.
    ///
    /// # Errors
    /// [`OpenStoreError`].
    pub(crate) fn of_survivor(db: &Db) -> Result<Self, OpenStoreError> {
        let mut state = State::load(db)?;
        for entry in db.entries(state.applied_index().saturating_add(1)) {
            let (entry, _) = entry?;
            state.replay(entry);
        }
        Ok(Self::of(&state))
    }

    /// Makes a data directory from it, with a single member.
    ///
    /// # Errors
    /// [`RestoreError`]; there is no directory then, or one that cannot be used.
    pub(crate) fn restore(
        mut self,
        data_dir: &Path,
        authorities: &[&[u8]],
        new_id: MasterId,
        member: Member,
    ) -> Result<Restored, RestoreError> {
        let restored = Restored {
            cluster_id: self.registry.cluster_id().ok_or(RestoreError::NoCluster)?,
            slaves: self.registry.slaves().count(),
            frameworks: self.registry.frameworks().count(),
        };
        self.registry.pass_over_ids(IDS_PASSED_OVER);
        let last = entry_id(0, MasterId::default(), self.index + ENTRIES_PASSED_OVER);
        let members = Membership::new(vec![[new_id].into()], BTreeMap::from([(new_id, member)]));
        let meta = SnapshotMeta {
            last_log_id: Some(last),
            last_membership: StoredMembers::new(Some(last), members),
            snapshot_id: format!("restored-{}", self.index),
        };
        let json = snapshot::encode(&self.registry).map_err(RestoreError::NotABackup)?;
        let format = self.registry.format();
        let first = move |db: &Db, batch: &mut WriteBatch| -> Result<(), WriteError> {
            snapshot::put(db, batch, &meta, format, &json)?;
            Log::put_purged(db, batch, last)?;
            Log::put_vote(db, batch, Vote::new_committed(1, new_id))
        };
        let opened = Db::open(data_dir, authorities, new_id, Box::new(first))?;
        match opened.master_id == new_id {
            true => Ok(restored),
            false => Err(RestoreError::NotEmpty),
        }
    }
}
