//! What can go wrong with the checkpoint on disk, and what to do then.

use std::path::{Path, PathBuf};

use meros_proto::codec::EncodeError;

/// Why a checkpoint could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenStoreError {
    /// The disk has no space left.
    #[error("no space left for the checkpoint in {}: free some and start again", path.display())]
    DiskFull {
        /// The checkpoint.
        path: PathBuf,
        /// What RocksDB said.
        source: rocksdb::Error,
    },
    /// RocksDB cannot open it.
    #[error("cannot open the checkpoint in {}", path.display())]
    Open {
        /// The checkpoint.
        path: PathBuf,
        /// What RocksDB said.
        source: rocksdb::Error,
    },
    /// A newer release wrote it.
    #[error("the checkpoint in {} has format {found}, this release reads up to {ours}: start the newer release again", path.display())]
    NewerFormat {
        /// The checkpoint.
        path: PathBuf,
        /// Its format.
        found: u32,
        /// Ours.
        ours: u32,
    },
    /// An older release wrote it, and it has tasks that this one would misread.
    #[error("the checkpoint in {} has tasks in format {found}, which this release cannot read: start the release before again, drain the slave (`meros slaves drain`), and start this one when nothing runs there", path.display())]
    OlderFormat {
        /// The checkpoint.
        path: PathBuf,
        /// Its format.
        found: u32,
    },
    /// What everything else depends on makes no sense.
    #[error("the checkpoint in {} is damaged ({detail}): restore a copy, or remove it to become a new slave; its tasks are then reported as lost", path.display())]
    Corrupt {
        /// The checkpoint.
        path: PathBuf,
        /// What was found.
        detail: String,
    },
    /// It could not be begun.
    #[error("cannot write to the checkpoint in {}", path.display())]
    Begin {
        /// The checkpoint.
        path: PathBuf,
        /// Why.
        source: AppendError,
    },
}

impl OpenStoreError {
    pub(super) fn from_rocksdb(path: &Path, source: rocksdb::Error) -> Self {
        let path = path.to_owned();
        if is_disk_full(&source) {
            return Self::DiskFull { path, source };
        }
        match source.kind() {
            rocksdb::ErrorKind::Corruption => Self::Corrupt {
                path,
                detail: source.into_string(),
            },
            _ => Self::Open { path, source },
        }
    }
}

/// Why records could not be made durable.
#[derive(Debug, thiserror::Error)]
pub enum AppendError {
    /// RocksDB could not write or sync.
    #[error("{}", if is_disk_full(.0) { "no space left on the disk of the checkpoint" } else { "checkpoint could not be written" })]
    Write(#[source] rocksdb::Error),
    /// It could not be opened again after a failed write.
    #[error("checkpoint could not be opened again")]
    Reopen(#[source] Box<OpenStoreError>),
    /// A record does not fit.
    #[error("a record is too large for the checkpoint")]
    Encode(#[from] EncodeError),
}

// RocksDB tells system errors apart only in its text.
fn is_disk_full(error: &rocksdb::Error) -> bool {
    let text: &str = error.as_ref();
    text.contains("No space left on device") || text.contains("Disk quota exceeded")
}
