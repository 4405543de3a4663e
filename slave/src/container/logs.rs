//! The output of a task: a pipe that is always read, and files that never exceed their bound.
//!
//! The newest output is kept: at half of the bound `stdout` becomes `stdout.1`, replacing an
//! older one, and a new `stdout` is begun. What cannot be written (disk full) is dropped and
//! counted; the task notices neither.
//!
//! Costs one small async task for each pipe and no memory while the task is silent. A task that
//! writes without end costs the slave CPU time as well, at most one CPU for each such pipe.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::net::unix::pipe;

use super::report::LogUsage;
use super::spec::LOG_FLOOR_BYTES;

/// The capacity of a pipe, so one read usually empties it.
const CHUNK_BYTES: usize = 64 << 10;

/// What a log saw so far, readable while it is written.
#[derive(Debug, Default)]
pub(crate) struct LogCounters {
    bytes: AtomicU64,
    bytes_dropped: AtomicU64,
    rotations: AtomicU64,
}

impl LogCounters {
    pub(crate) fn usage(&self) -> LogUsage {
        LogUsage {
            bytes: self.bytes.load(Ordering::Relaxed),
            bytes_dropped: self.bytes_dropped.load(Ordering::Relaxed),
            rotations: self.rotations.load(Ordering::Relaxed),
        }
    }
}

/// One bounded log file and its predecessor.
#[derive(Debug)]
pub(crate) struct LogFile {
    path: PathBuf,
    rotated: PathBuf,
    /// Half of the bound: the most that one of the two files holds.
    file_bytes_max: u64,
    /// `None` after a failed rotation, until the next write manages to make it.
    file: Option<File>,
    file_bytes: u64,
    counters: Arc<LogCounters>,
}

impl LogFile {
    /// Begins `<dir>/<name>`, removing what an earlier container left there.
    pub(crate) fn create(dir: &Path, name: &str, bytes_max: u64) -> io::Result<Self> {
        let path = dir.join(name);
        let rotated = dir.join(format!("{name}.1"));
        for old in [&path, &rotated] {
            match fs::remove_file(old) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        let file = create_new(&path)?;
        let file_bytes_max = bytes_max.max(LOG_FLOOR_BYTES) / 2;
        Ok(Self {
            path,
            rotated,
            file_bytes_max,
            file: Some(file),
            file_bytes: 0,
            counters: Arc::default(),
        })
    }

    pub(crate) fn counters(&self) -> Arc<LogCounters> {
        Arc::clone(&self.counters)
    }

    /// Appends, rotating where the bound demands it. Never fails: what cannot be written is counted.
    pub(crate) fn append(&mut self, mut bytes: &[u8]) {
        self.counters
            .bytes
            .fetch_add(bytes.len() as u64, Ordering::Relaxed);
        while !bytes.is_empty() {
            match self.write_some(bytes) {
                Ok(written) => bytes = &bytes[written..],
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => {
                    self.counters
                        .bytes_dropped
                        .fetch_add(bytes.len() as u64, Ordering::Relaxed);
                    return;
                }
            }
        }
    }

    fn write_some(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.file_bytes >= self.file_bytes_max {
            self.rotate()?;
        }
        let file = match &mut self.file {
            Some(file) => file,
            None => self.file.insert(create_new(&self.path)?),
        };
        let room = self.file_bytes_max - self.file_bytes;
        let fitting = usize::try_from(room).unwrap_or(usize::MAX).min(bytes.len());
        match file.write(&bytes[..fitting])? {
            0 => Err(io::ErrorKind::WriteZero.into()),
            written => {
                self.file_bytes += written as u64;
                Ok(written)
            }
        }
    }

    fn rotate(&mut self) -> io::Result<()> {
        match fs::rename(&self.path, &self.rotated) {
            // The task may remove its own log; there is nothing to keep then.
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        self.file = None;
        self.file_bytes = 0;
        self.counters.rotations.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }
}

/// Never follows a link and never reuses a file: the sandbox belongs to the task, which could
/// have put a link to a file of ours there.
fn create_new(path: &Path) -> io::Result<File> {
    File::options().append(true).create_new(true).open(path)
}

/// Copies a pipe into its log until every writer has closed it.
pub(crate) async fn copy(pipe: pipe::Receiver, mut log: LogFile) {
    while pipe.readable().await.is_ok() {
        let mut chunk = vec![0; CHUNK_BYTES];
        match pipe.try_read(&mut chunk) {
            Ok(0) => return,
            Ok(bytes) => {
                // A slow disk may hold the task back, never the slave's own async threads.
                let write = move || {
                    log.append(&chunk[..bytes]);
                    log
                };
                match tokio::task::spawn_blocking(write).await {
                    Ok(returned) => log = returned,
                    Err(_) => return,
                }
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(_) => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn contents(dir: &Path) -> (String, String) {
        let read = |name| fs::read_to_string(dir.join(name)).unwrap_or_default();
        (read("stdout.1"), read("stdout"))
    }

    #[test]
    fn the_newest_output_is_kept_within_the_bound() {
        let dir = tempfile::tempdir().unwrap();
        let mut log = LogFile::create(dir.path(), "stdout", 8 << 10).unwrap();
        for line in 0..10_000 {
            log.append(format!("{line:07}\n").as_bytes());
            let (old, new) = (dir.path().join("stdout.1"), dir.path().join("stdout"));
            let bytes = |path: &Path| fs::metadata(path).map_or(0, |metadata| metadata.len());
            assert!(bytes(&old) + bytes(&new) <= 8 << 10);
        }
        let (old, new) = contents(dir.path());
        assert!(new.ends_with("0009999\n"));
        let kept = old + &new;
        let lines: Vec<_> = kept.lines().collect();
        assert!(
            lines.len() > 512,
            "less than half of the bound is kept: {} lines",
            lines.len()
        );
        assert!(lines.windows(2).all(|pair| pair[0] < pair[1]));
        let usage = log.counters().usage();
        assert_eq!(
            (usage.bytes, usage.bytes_dropped, usage.rotations),
            (80_000, 0, 19)
        );
    }

    #[test]
    fn one_write_larger_than_the_bound_keeps_its_end() {
        let dir = tempfile::tempdir().unwrap();
        let mut log = LogFile::create(dir.path(), "stdout", 8 << 10).unwrap();
        let text: String = (0..5_000).map(|line| format!("{line:07}\n")).collect();
        log.append(text.as_bytes());
        let (old, new) = contents(dir.path());
        assert_eq!(old.len(), 4 << 10);
        assert!(text.ends_with(&(old + &new)));
    }

    #[test]
    fn a_full_disk_drops_and_counts_and_recovers() {
        let dir = tempfile::tempdir().unwrap();
        let mut log = LogFile::create(dir.path(), "stdout", 8 << 10).unwrap();
        // The kernel's own full disk: every write fails with ENOSPC.
        let healthy = log
            .file
            .replace(File::options().write(true).open("/dev/full").unwrap());
        log.append(&[b'x'; 100]);
        assert_eq!(log.counters().usage().bytes_dropped, 100);
        log.file = healthy;
        log.append(b"back");
        assert_eq!(contents(dir.path()).1, "back");
        assert_eq!(log.counters().usage().bytes, 104);
    }

    #[test]
    fn a_link_planted_by_the_task_is_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        let victim = dir.path().join("victim");
        fs::write(&victim, "precious").unwrap();
        let mut log = LogFile::create(dir.path(), "stdout", 8 << 10).unwrap();
        log.append(&[b'a'; 4 << 10]);
        log.rotate().unwrap();
        std::os::unix::fs::symlink(&victim, dir.path().join("stdout")).unwrap();
        log.append(b"attack");
        assert_eq!(fs::read_to_string(&victim).unwrap(), "precious");
        assert_eq!(log.counters().usage().bytes_dropped, 6);
    }
}
