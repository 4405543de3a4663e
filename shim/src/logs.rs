//! The output of a task: files that never exceed their bound.
//!
//! The newest output is kept: at half of the bound `stdout` becomes `stdout.1`, replacing an
//! older one, and a new `stdout` is begun. What cannot be written (disk full) is dropped and
//! counted; the task notices neither.
//!
//! A task that writes without end costs its shim CPU time, at most one CPU.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// Below this a rotation would cost more than what it keeps, so lower caps are raised to it.
pub const LOG_FLOOR_BYTES: u64 = 4 << 10;

/// What one output of a container saw.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
pub struct LogUsage {
    /// Bytes that the task wrote; also the offset of the end of the log in the task's own output.
    pub bytes: u64,
    /// Bytes that are in no file: the disk was full, or the file could not be made.
    pub bytes_dropped: u64,
    /// Twice the number of rotations, and one more while the files are being renamed: who has read the
    /// same even number before and after opening them has opened files that belong together.
    pub steps: u64,
}

impl LogUsage {
    /// How often the file became `.1` and a new one was begun.
    #[must_use]
    pub fn rotations(&self) -> u64 {
        self.steps / 2
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
    usage: LogUsage,
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
            usage: LogUsage::default(),
        })
    }

    #[cfg(test)]
    pub(crate) fn usage(&self) -> LogUsage {
        self.usage
    }

    /// Appends, rotating where the bound demands it. Never fails: what cannot be written is counted.
    /// `note` is called when the counters must be seen by others, before and after files are renamed.
    pub(crate) fn append(&mut self, mut bytes: &[u8], mut note: impl FnMut(LogUsage)) {
        self.usage.bytes += bytes.len() as u64;
        while !bytes.is_empty() {
            match self.write_some(bytes, &mut note) {
                Ok(written) => bytes = &bytes[written..],
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => {
                    self.usage.bytes_dropped += bytes.len() as u64;
                    break;
                }
            }
        }
        note(self.usage);
    }

    fn write_some(&mut self, bytes: &[u8], note: impl FnMut(LogUsage)) -> io::Result<usize> {
        if self.file_bytes >= self.file_bytes_max {
            self.rotate(note)?;
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

    fn rotate(&mut self, mut note: impl FnMut(LogUsage)) -> io::Result<()> {
        self.usage.steps |= 1;
        note(self.usage);
        match fs::rename(&self.path, &self.rotated) {
            // The task may remove its own log; there is nothing to keep then.
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                self.usage.steps &= !1;
                return Err(error);
            }
            _ => {}
        }
        self.file = None;
        self.file_bytes = 0;
        self.usage.steps += 1;
        Ok(())
    }
}

/// Never follows a link and never reuses a file: the sandbox belongs to the task, which could
/// have put a link to a file of ours there.
fn create_new(path: &Path) -> io::Result<File> {
    File::options().append(true).create_new(true).open(path)
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
            log.append(format!("{line:07}\n").as_bytes(), |_| {});
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
        let usage = log.usage();
        assert_eq!(
            (usage.bytes, usage.bytes_dropped, usage.rotations()),
            (80_000, 0, 19)
        );
    }

    #[test]
    fn one_write_larger_than_the_bound_keeps_its_end() {
        let dir = tempfile::tempdir().unwrap();
        let mut log = LogFile::create(dir.path(), "stdout", 8 << 10).unwrap();
        let text: String = (0..5_000).map(|line| format!("{line:07}\n")).collect();
        log.append(text.as_bytes(), |_| {});
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
        log.append(&[b'x'; 100], |_| {});
        assert_eq!(log.usage().bytes_dropped, 100);
        log.file = healthy;
        log.append(b"back", |_| {});
        assert_eq!(contents(dir.path()).1, "back");
        assert_eq!(log.usage().bytes, 104);
    }

    #[test]
    fn a_link_planted_by_the_task_is_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        let victim = dir.path().join("victim");
        fs::write(&victim, "precious").unwrap();
        let mut log = LogFile::create(dir.path(), "stdout", 8 << 10).unwrap();
        log.append(&[b'a'; 4 << 10], |_| {});
        log.rotate(|_| {}).unwrap();
        std::os::unix::fs::symlink(&victim, dir.path().join("stdout")).unwrap();
        log.append(b"attack", |_| {});
        assert_eq!(fs::read_to_string(&victim).unwrap(), "precious");
        assert_eq!(log.usage().bytes_dropped, 6);
    }
}
