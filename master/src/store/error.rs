//! What can go wrong with the registry on disk, and what to do then.

use std::path::{Path, PathBuf};

use meros_proto::codec::EncodeError;
use meros_proto::ids::ClusterId;

use super::LockError;

/// Why a registry could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenStoreError {
    /// The directory or a file in it cannot be made or read.
    #[error("cannot use {}: check that the directory exists or can be made, and who owns it", path.display())]
    DataDir {
        /// The directory or file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// Another process works in it, or it cannot be locked.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// The disk has no space left.
    #[error("no space left for the registry in {}: free some and start again", path.display())]
    DiskFull {
        /// The registry.
        path: PathBuf,
        /// What RocksDB said.
        source: rocksdb::Error,
    },
    /// RocksDB cannot open it.
    #[error("cannot open the registry in {}", path.display())]
    Open {
        /// The registry.
        path: PathBuf,
        /// What RocksDB said.
        source: rocksdb::Error,
    },
    /// A newer release wrote it.
    #[error("the registry in {} has format {found}, this release reads up to {ours}: start the newer release again, there is no way back", path.display())]
    NewerFormat {
        /// The registry.
        path: PathBuf,
        /// Its format.
        found: u32,
        /// Ours.
        ours: u32,
    },
    /// It belongs to a cluster with another certificate authority.
    #[error("the registry in {} belongs to cluster {}, whose certificate authority is none of those in this master's ca.pem: give it its own data directory, or the identity of that cluster", path.display(), cluster(*cluster_id))]
    OtherCluster {
        /// The registry.
        path: PathBuf,
        /// Its cluster, if it still tells.
        cluster_id: Option<ClusterId>,
    },
    /// It ends before what was acknowledged.
    #[error("the registry in {} ends at entry {found}, but entry {acknowledged} was acknowledged: files were lost or restored from an old copy; restore a newer copy, or, to go on with what is left, remove the file `acknowledged` beside it (slaves and frameworks admitted since will be refused)", path.display())]
    EntriesLost {
        /// The registry.
        path: PathBuf,
        /// Its last entry.
        found: u64,
        /// The last entry that was promised.
        acknowledged: u64,
    },
    /// Its content makes no sense.
    #[error("the registry in {} is damaged ({detail}): restore a copy of the whole data directory", path.display())]
    Corrupt {
        /// The registry.
        path: PathBuf,
        /// What was found.
        detail: String,
    },
    /// The new term could not be written.
    #[error("cannot write to the registry in {}", path.display())]
    Begin {
        /// The registry.
        path: PathBuf,
        /// Why.
        source: AppendError,
    },
}

fn cluster(id: Option<ClusterId>) -> String {
    id.map_or_else(|| "unknown".to_owned(), |id| id.to_string())
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

/// Why entries could not be made durable. Final: the process must end (`ExitReason::StoreFailed`).
#[derive(Debug, thiserror::Error)]
pub enum AppendError {
    /// RocksDB could not write or sync.
    #[error("{}", if is_disk_full(.0) { "no space left on the disk of the registry" } else { "registry could not be written" })]
    Write(#[source] rocksdb::Error),
    /// The watermark could not be written.
    #[error("file `acknowledged` beside the registry could not be written")]
    Watermark(#[source] std::io::Error),
    /// A command does not fit a record.
    #[error("a command is too large for the registry")]
    Encode(#[from] EncodeError),
    /// The log could not be read back for a snapshot.
    #[error("registry could not be read back for a snapshot")]
    Compact(#[source] Box<OpenStoreError>),
}

// RocksDB tells system errors apart only in its text.
fn is_disk_full(error: &rocksdb::Error) -> bool {
    let text: &str = error.as_ref();
    text.contains("No space left on device") || text.contains("Disk quota exceeded")
}
