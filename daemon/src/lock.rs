//! The lock of a data directory: one process at a time.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Why a data directory could not be locked.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another process works in it.
    #[error("data directory {} is in use by {}: stop that one, or give this one another --data-dir", path.display(), holder(*pid))]
    Held {
        /// The data directory.
        path: PathBuf,
        /// Who holds it, if it wrote its id.
        pid: Option<u32>,
    },
    /// The lock file cannot be made or written.
    #[error("cannot lock data directory {}: check that it is on a local disk and writable", path.display())]
    Io {
        /// The data directory.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
}

fn holder(pid: Option<u32>) -> String {
    pid.map_or_else(
        || "another process".to_owned(),
        |pid| format!("process {pid}"),
    )
}

/// Holds the lock until dropped, or until the process ends in whatever way.
#[derive(Debug)]
pub struct DataDirLock {
    // The kernel drops the lock with the file. The file itself stays: removing it would let two
    // processes lock two files of one name.
    _file: File,
}

impl DataDirLock {
    /// Locks a directory that exists.
    ///
    /// # Errors
    /// Another process holds it, or the lock file cannot be written.
    pub fn acquire(data_dir: &Path) -> Result<Self, LockError> {
        let io = |source| LockError::Io {
            path: data_dir.to_owned(),
            source,
        };
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(data_dir.join("lock"))
            .map_err(io)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(LockError::Held {
                    path: data_dir.to_owned(),
                    pid: read_pid(&mut file),
                });
            }
            Err(TryLockError::Error(source)) => return Err(io(source)),
        }
        file.set_len(0).map_err(io)?;
        file.rewind().map_err(io)?;
        writeln!(file, "{}", std::process::id()).map_err(io)?;
        Ok(Self { _file: file })
    }
}

fn read_pid(file: &mut File) -> Option<u32> {
    let mut text = String::new();
    file.take(32).read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_in_use_is_refused_with_its_holder_and_free_again_afterwards() {
        let dir = tempfile::tempdir().unwrap();
        let first = DataDirLock::acquire(dir.path()).unwrap();
        let error = DataDirLock::acquire(dir.path()).expect_err("it is held");
        let own = std::process::id();
        assert!(
            matches!(error, LockError::Held { pid: Some(pid), .. } if pid == own),
            "{error}"
        );
        drop(first);
        DataDirLock::acquire(dir.path()).unwrap();
    }

    #[test]
    fn a_directory_that_is_not_there_is_named() {
        let error = DataDirLock::acquire(Path::new("/nonexistent/meros")).unwrap_err();
        assert!(error.to_string().contains("/nonexistent/meros"), "{error}");
    }
}
