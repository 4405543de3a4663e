//! The file that keeps a framework's id between two starts of its program.
//!
//! Three lines: `framework F3`, `cluster <uuid>`, and `term 7`. Replaced as a whole: written beside, made
//! durable, renamed, so that a crash leaves the old file or the new one.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use meros_proto::ids::{ClusterId, Epoch, FrameworkId};

/// Far more than three lines need.
const FILE_BYTES_MAX: u64 = 4_096;

/// Whose id is kept, which cluster gave it, and the highest term heard of there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SavedState {
    pub(crate) framework_id: FrameworkId,
    pub(crate) cluster_id: ClusterId,
    pub(crate) epoch: Epoch,
}

/// Why a state file could not be used.
#[derive(Debug, thiserror::Error)]
pub enum StateFileError {
    /// It could not be read.
    #[error("failed to read the state file {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It holds something else.
    #[error(
        "{} is not the state file of a framework: name another one, or remove it to start as a new framework",
        path.display()
    )]
    Form {
        /// The file.
        path: PathBuf,
    },
    /// It could not be written or removed.
    #[error("failed to write the state file {}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// Reads the file; none if there is no such file.
pub(crate) fn load(path: &Path) -> Result<Option<SavedState>, StateFileError> {
    let failed = |source| StateFileError::Read {
        path: path.to_owned(),
        source,
    };
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(error)),
    };
    let mut bytes = Vec::new();
    file.take(FILE_BYTES_MAX)
        .read_to_end(&mut bytes)
        .map_err(failed)?;
    let state = std::str::from_utf8(&bytes).ok().and_then(parse);
    state.map(Some).ok_or_else(|| StateFileError::Form {
        path: path.to_owned(),
    })
}

fn parse(text: &str) -> Option<SavedState> {
    let mut lines = text.lines();
    let framework_id = lines.next()?.strip_prefix("framework ")?.parse().ok()?;
    let cluster_id = lines.next()?.strip_prefix("cluster ")?.parse().ok()?;
    let epoch = Epoch(lines.next()?.strip_prefix("term ")?.parse().ok()?);
    lines.next().is_none().then_some(SavedState {
        framework_id,
        cluster_id,
        epoch,
    })
}

/// Replaces the file, durably. Blocks.
pub(crate) fn save(path: &Path, state: SavedState) -> Result<(), StateFileError> {
    let failed = |source| StateFileError::Write {
        path: path.to_owned(),
        source,
    };
    let mut beside = path.as_os_str().to_owned();
    beside.push(".new");
    let beside = PathBuf::from(beside);
    let SavedState {
        framework_id,
        cluster_id,
        epoch,
    } = state;
    let mut file = File::create(&beside).map_err(failed)?;
    let text = format!("framework {framework_id}\ncluster {cluster_id}\nterm {epoch}\n");
    file.write_all(text.as_bytes())
        .and_then(|()| file.sync_all())
        .map_err(failed)?;
    fs::rename(&beside, path).map_err(failed)?;
    // The name in the directory has to last too.
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty());
    let dir = File::open(dir.unwrap_or(Path::new("."))).map_err(failed)?;
    dir.sync_all().map_err(failed)
}

/// Removes the file, because its framework is no more.
pub(crate) fn remove(path: &Path) -> Result<(), StateFileError> {
    match fs::remove_file(path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => Err(StateFileError::Write {
            path: path.to_owned(),
            source,
        }),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_is_replaced_read_back_and_removed() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("state");
        assert_eq!(load(&path).expect("no file is fine"), None);
        for (framework_id, term) in [(FrameworkId(3), 1), (FrameworkId(4), u64::MAX)] {
            let state = SavedState {
                framework_id,
                cluster_id: ClusterId(u128::MAX / 3),
                epoch: Epoch(term),
            };
            save(&path, state).expect("written");
            assert_eq!(load(&path).expect("read"), Some(state));
        }
        remove(&path).expect("removed");
        remove(&path).expect("removing twice is fine");
        assert_eq!(fs::read_dir(dir.path()).expect("a directory").count(), 0);
    }

    #[test]
    fn a_file_that_is_something_else_is_named_and_left_alone() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("state");
        for text in [
            "",
            "framework F3\n",
            "framework F3\ncluster 1\n",
            "framework F3\ncluster 1\nterm one\n",
            "\u{0}\u{ff}",
            "root:x:0",
        ] {
            fs::write(&path, text).expect("written");
            let error = load(&path).expect_err("not a state file");
            assert!(
                error.to_string().contains("is not the state file"),
                "{error}"
            );
        }
        let nowhere = dir.path().join("missing/state");
        let state = SavedState {
            framework_id: FrameworkId(1),
            cluster_id: ClusterId(1),
            epoch: Epoch(1),
        };
        assert!(matches!(
            save(&nowhere, state),
            Err(StateFileError::Write { .. })
        ));
    }
}
