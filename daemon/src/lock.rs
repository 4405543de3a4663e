//! The lock of a data directory: one process at a time.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

/// How long a lock is waited for whose holder has ended. A process that dies while it starts
/// another leaves the lock with the child until that runs its own program: milliseconds, and more
/// on a busy machine, which must not make the restart of a killed daemon fail.
const INHERITED: Duration = Duration::from_secs(10);

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
    /// Locks a directory that exists. Of a holder that has ended, what it left is waited for, 10 s
    /// at most.
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
        let deadline = Instant::now() + INHERITED;
        loop {
            match file.try_lock() {
                Ok(()) => break,
                Err(TryLockError::WouldBlock) => {}
                Err(TryLockError::Error(source)) => return Err(io(source)),
            }
            let pid = read_pid(&mut file);
            if pid.is_none_or(runs) || Instant::now() >= deadline {
                return Err(LockError::Held {
                    path: data_dir.to_owned(),
                    pid,
                });
            }
            thread::sleep(Duration::from_millis(5));
        }
        file.set_len(0).map_err(io)?;
        file.rewind().map_err(io)?;
        writeln!(file, "{}", std::process::id()).map_err(io)?;
        Ok(Self { _file: file })
    }
}

fn runs(pid: u32) -> bool {
    Path::new("/proc").join(pid.to_string()).exists()
}

fn read_pid(file: &mut File) -> Option<u32> {
    let mut text = String::new();
    file.rewind().ok()?;
    file.take(32).read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

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
    fn what_a_holder_that_has_ended_left_to_a_child_is_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let mut ended = Command::new("true").spawn().unwrap();
        ended.wait().unwrap();
        let mut held = File::create(dir.path().join("lock")).unwrap();
        held.try_lock().unwrap();
        writeln!(held, "{}", ended.id()).unwrap();
        // The only holder from here on, as a child is between fork and exec.
        let mut child = Command::new("sleep")
            .arg("0.3")
            .stdin(Stdio::from(held))
            .spawn()
            .unwrap();
        let lock = DataDirLock::acquire(dir.path());
        child.wait().unwrap();
        lock.unwrap();
    }

    #[test]
    fn a_directory_that_is_not_there_is_named() {
        let error = DataDirLock::acquire(Path::new("/nonexistent/meros")).unwrap_err();
        assert!(error.to_string().contains("/nonexistent/meros"), "{error}");
    }
}
