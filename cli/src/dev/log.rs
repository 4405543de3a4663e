//! The log of a daemon, of which an error shows the end.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use crate::exit::CliError;

/// Lines shown of a daemon that has failed.
const LINES: usize = 8;
/// The most that is read for them, in bytes.
const TAIL_BYTES: u64 = 64 << 10;

/// A log file that is appended to by one run after the other.
#[derive(Debug)]
pub(super) struct Log {
    path: PathBuf,
    /// Where the newest run begins.
    run_from: u64,
}

impl Log {
    /// Of the file at this path, which need not exist.
    pub(super) fn at(path: PathBuf) -> Self {
        Self { path, run_from: 0 }
    }

    /// Where it is.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Begins a run: what is in the file now is of earlier ones.
    ///
    /// # Errors
    /// It cannot be opened.
    pub(super) fn begin(&mut self) -> Result<File, CliError> {
        let opened = File::options().create(true).append(true).open(&self.path);
        let opened = opened.and_then(|file| {
            self.run_from = file.metadata()?.len();
            Ok(file)
        });
        opened.map_err(|error| {
            CliError::failure(format!(
                "cannot open the log {}: {error}",
                self.path.display()
            ))
        })
    }

    /// The last lines of the newest run.
    pub(super) fn last_lines(&self) -> String {
        let bytes = self.tail().unwrap_or_default();
        let text = String::from_utf8_lossy(&bytes);
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(LINES)..].join("\n")
    }

    fn tail(&self) -> std::io::Result<Vec<u8>> {
        let mut file = File::open(&self.path)?;
        let from = file.metadata()?.len().saturating_sub(TAIL_BYTES);
        file.seek(SeekFrom::Start(from.max(self.run_from)))?;
        let mut bytes = Vec::new();
        file.take(TAIL_BYTES).read_to_end(&mut bytes)?;
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn only_the_newest_run_is_shown_and_of_it_the_end() {
        let dir = tempfile::tempdir().unwrap();
        let mut log = Log::at(dir.path().join("a.log"));
        assert_eq!(log.last_lines(), "", "before the first run");
        let mut file = log.begin().unwrap();
        for line in 0..10_000 {
            writeln!(file, "first {line}").unwrap();
        }
        assert_eq!(log.last_lines().lines().count(), LINES);
        assert!(log.last_lines().ends_with("first 9998\nfirst 9999"));
        let mut file = log.begin().unwrap();
        assert_eq!(log.last_lines(), "", "it has said nothing yet");
        writeln!(file, "second").unwrap();
        assert_eq!(log.last_lines(), "second");
    }
}
