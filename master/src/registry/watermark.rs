//! The watermark: how many writes were reported as durable, kept outside the database.
//!
//! A write-ahead log that lost its end looks like one that was never longer. So the database counts
//! its synced writes, the count is written to a file of its own after each, and a database that counts
//! less is refused instead of quietly forgetting what was promised: an entry, or a vote. The file is
//! not synced, which would double the cost of a write: after a power loss it may be behind, which only
//! makes the check weaker, never wrong.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

const BYTES: usize = 16;

/// The open file.
#[derive(Debug)]
pub(super) struct Watermark {
    file: File,
}

impl Watermark {
    /// Opens or makes the file.
    pub(super) fn open(path: &Path) -> std::io::Result<Self> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(path)?;
        Ok(Self { file })
    }

    /// The count last set; 0 if there is none, or the file was torn by a power loss.
    pub(super) fn get(&self) -> std::io::Result<u64> {
        let mut bytes = [0; BYTES];
        match self.file.read_exact_at(&mut bytes, 0) {
            Ok(()) => {}
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => return Ok(0),
            Err(error) => return Err(error),
        }
        let (count, inverse) = bytes.split_at(BYTES / 2);
        let count = u64::from_be_bytes(count.try_into().expect("half of 16 bytes"));
        let inverse = u64::from_be_bytes(inverse.try_into().expect("half of 16 bytes"));
        Ok(if count == !inverse { count } else { 0 })
    }

    /// Sets the count. Never needs more space once set.
    pub(super) fn set(&self, count: u64) -> std::io::Result<()> {
        let mut bytes = [0; BYTES];
        bytes[..BYTES / 2].copy_from_slice(&count.to_be_bytes());
        bytes[BYTES / 2..].copy_from_slice(&(!count).to_be_bytes());
        self.file.write_all_at(&bytes, 0)
    }
}
