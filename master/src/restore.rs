//! Making the data directory of a new cluster from a backup, or from what is left of a master.

use std::path::{Path, PathBuf};

use meros_proto::ids::ClusterId;
use meros_proto::transport::Identity;

use crate::StartError;
use crate::config::is_address;
use crate::registry::{self, Backup, MasterId, Member, RestoreError};
use crate::running::{draw, load_identity};

/// The largest file that is read: as large as a snapshot may be.
const BACKUP_BYTES_MAX: u64 = 1 << 30;

/// Where the registry comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// A file that `meros backup` has written.
    Backup(PathBuf),
    /// The data directory of a master that does not run and cannot find a majority any more.
    Survivor(PathBuf),
}

/// Why no data directory was made.
#[derive(Debug, thiserror::Error)]
pub enum RestoreFailed {
    /// The certificate or key cannot be used.
    #[error(transparent)]
    Identity(#[from] StartError),
    /// The file cannot be read.
    #[error("cannot read {}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// It is no address.
    #[error("{0:?} is not HOST:PORT")]
    NotAnAddress(String),
    /// What was read is of no use, or cannot be written.
    #[error(transparent)]
    Restore(#[from] RestoreError),
}

/// What is in the new data directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Restored {
    /// The cluster: the same as before.
    pub cluster_id: ClusterId,
    /// How many slaves it knows.
    pub slaves: usize,
    /// How many frameworks it knows.
    pub frameworks: usize,
}

/// Makes `data_dir` for the master with this identity, which others reach at `advertise`. It is then the
/// only member; others join it. Blocks.
///
/// # Errors
/// [`RestoreFailed`]; what was there before is unchanged.
pub fn restore(
    source: &Source,
    data_dir: &Path,
    identity: &Path,
    advertise: &str,
) -> Result<Restored, RestoreFailed> {
    if !is_address(advertise) {
        return Err(RestoreFailed::NotAnAddress(advertise.to_owned()));
    }
    let identity: Identity = load_identity(identity)?;
    let backup = match source {
        Source::Backup(path) => {
            let unreadable = |source| RestoreFailed::Unreadable {
                path: path.clone(),
                source,
            };
            let bytes = std::fs::metadata(path).map_err(unreadable)?.len();
            if bytes > BACKUP_BYTES_MAX {
                return Err(unreadable(std::io::ErrorKind::FileTooLarge.into()));
            }
            Backup::parse(&std::fs::read(path).map_err(unreadable)?)?
        }
        Source::Survivor(path) => registry::read_survivor(path).map_err(RestoreError::from)?,
    };
    let random = draw().map_err(|source| StartError::System {
        action: "draw a random number",
        source,
    })?;
    let new_id = MasterId(u64::from_be_bytes(
        random[..8].try_into().expect("8 of 16 bytes"),
    ));
    let member = Member {
        name: identity.peer().name().to_owned(),
        address: advertise.to_owned(),
    };
    let roots: Vec<Vec<u8>> = identity.roots().iter().map(|root| root.to_vec()).collect();
    let roots: Vec<&[u8]> = roots.iter().map(Vec::as_slice).collect();
    Ok(backup.restore(data_dir, &roots, new_id, member)?)
}
