//! What can go wrong with the registry on disk, and what to do then.

use std::path::{Path, PathBuf};

use meros_daemon::lock::LockError;
use meros_proto::codec::EncodeError;

/// What helps a master that has lost some of its registry.
const REPLACE: &str = "if this is one of several masters, let it join again with an empty data directory (`meros masters replace`); else make one from a backup (`meros restore`)";

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
    #[error("cannot open the registry in {}: if a file of it is missing or cannot be read, {REPLACE}", path.display())]
    Open {
        /// The registry.
        path: PathBuf,
        /// What RocksDB said.
        source: rocksdb::Error,
    },
    /// A newer release wrote it.
    #[error("the registry in {} has format {found}, this release reads up to {ours} (newer_format): start this master with the release of the others again, there is no way back", path.display())]
    NewerFormat {
        /// The registry.
        path: PathBuf,
        /// Its format.
        found: u32,
        /// Ours.
        ours: u32,
    },
    /// A release before masters were replicated wrote it.
    #[error("the registry in {} has format {found} of a release before masters were replicated, this release reads from {ours} (older_format): give this master an empty data directory; slaves and frameworks then join a new cluster, with empty data directories of their own", path.display())]
    OlderFormat {
        /// The registry.
        path: PathBuf,
        /// Its format.
        found: u32,
        /// Ours.
        ours: u32,
    },
    /// It belongs to a cluster with another certificate authority.
    #[error("the registry in {} belongs to a cluster whose certificate authority is none of those in this master's ca.pem: give it its own data directory, or the identity of that cluster", path.display())]
    OtherCluster {
        /// The registry.
        path: PathBuf,
    },
    /// It ends before what was acknowledged.
    #[error("the registry in {} ends at write {found}, but write {acknowledged} was acknowledged: files were lost or restored from an old copy; {REPLACE}; to go on with what is left of a single one, remove the file `acknowledged` beside it (slaves and frameworks admitted since will be refused)", path.display())]
    WritesLost {
        /// The registry.
        path: PathBuf,
        /// Its last write.
        found: u64,
        /// The last write that was promised.
        acknowledged: u64,
    },
    /// Its content makes no sense.
    #[error("the registry in {} is damaged ({detail}): {REPLACE}", path.display())]
    Corrupt {
        /// The registry.
        path: PathBuf,
        /// What was found.
        detail: String,
    },
    /// What every start writes could not be written.
    #[error("cannot write to the registry in {}", path.display())]
    Begin {
        /// The registry.
        path: PathBuf,
        /// Why.
        source: WriteError,
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

/// Why something could not be made durable. Final: the process must end
/// ([`ExitReason::StoreFailed`](crate::exit::ExitReason::StoreFailed)).
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// RocksDB could not write or sync.
    #[error("{}", if is_disk_full(.0) { "no space left on the disk of the registry" } else { "registry could not be written" })]
    Write(#[source] rocksdb::Error),
    /// The watermark could not be written.
    #[error("file `acknowledged` beside the registry could not be written")]
    Watermark(#[source] std::io::Error),
    /// A command does not fit a record.
    #[error("a command is too large for the registry")]
    Encode(#[from] EncodeError),
}

// RocksDB tells system errors apart only in its text.
fn is_disk_full(error: &rocksdb::Error) -> bool {
    let text: &str = error.as_ref();
    text.contains("No space left on device") || text.contains("Disk quota exceeded")
}
