//! The watermark: the last index that was reported as committed, kept outside the database.
//!
//! A write-ahead log that lost its end looks like one that was never longer. So the index is written
//! to a file of its own after each commit, and a database that ends before it is refused instead of
//! quietly forgetting what was promised. The file is not synced, which would double the cost of a
//! commit: after a power loss it may be behind, which only makes the check weaker, never wrong.

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

    /// The index last set; 0 if there is none, or the file was torn by a power loss.
    pub(super) fn get(&self) -> std::io::Result<u64> {
        let mut bytes = [0; BYTES];
        match self.file.read_exact_at(&mut bytes, 0) {
            Ok(()) => {}
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => return Ok(0),
            Err(error) => return Err(error),
        }
        let (index, inverse) = bytes.split_at(BYTES / 2);
        let index = u64::from_be_bytes(index.try_into().expect("half of 16 bytes"));
        let inverse = u64::from_be_bytes(inverse.try_into().expect("half of 16 bytes"));
        Ok(if index == !inverse { index } else { 0 })
    }

    /// Sets the index. Never needs more space once set.
    pub(super) fn set(&self, index: u64) -> std::io::Result<()> {
        let mut bytes = [0; BYTES];
        bytes[..BYTES / 2].copy_from_slice(&index.to_be_bytes());
        bytes[BYTES / 2..].copy_from_slice(&(!index).to_be_bytes());
        self.file.write_all_at(&bytes, 0)
    }
}
