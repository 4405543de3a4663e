//! What a sandbox takes of the disk, measured.
//!
//! Blocks that are there, as `du` counts them: holes cost nothing, and a file with several names is counted
//! once. Nothing outside of the sandbox counts: links are not followed, and other file systems (volumes)
//! are not entered. A file that is removed while it is open is not seen; its blocks come back when it is
//! closed.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// The unit of `st_blocks`, whatever the file system's own is.
const BLOCK_BYTES: u64 = 512;
/// More files with several names than this are counted by each of their names.
const LINKED_MAX: usize = 65_536;
const MIB: u64 = 1 << 20;

/// A sandbox has become larger than its task may have it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskReport {
    /// What it may take, in bytes.
    pub limit_bytes: u64,
    /// What it took, in bytes; the count ends where it is too much.
    pub used_bytes: u64,
}

impl DiskReport {
    /// One sentence for people.
    #[must_use]
    pub fn message(&self) -> String {
        format!(
            "disk limit exceeded: limit {} MiB, used at least {} MiB; raise disk of the task, or write less \
             into its sandbox",
            self.limit_bytes / MIB,
            self.used_bytes.div_ceil(MIB)
        )
    }
}

/// Bytes below a folder, up to a bound: counting ends when it is passed. What disappears meanwhile is
/// not counted. Blocks: takes a system call for each file.
pub(crate) fn used_bytes(sandbox: &Path, bound: u64) -> u64 {
    let Ok(root) = fs::symlink_metadata(sandbox) else {
        return 0;
    };
    let device = root.dev();
    let mut folders: Vec<PathBuf> = vec![sandbox.to_owned()];
    let mut linked = BTreeSet::new();
    let mut used = 0_u64;
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let Ok(found) = entry.metadata() else {
                continue;
            };
            let is_counted = found.nlink() > 1
                && !found.is_dir()
                && linked.len() < LINKED_MAX
                && !linked.insert(found.ino());
            if found.dev() != device || is_counted {
                continue;
            }
            used = used.saturating_add(found.blocks().saturating_mul(BLOCK_BYTES));
            if found.is_dir() {
                folders.push(entry.path());
            }
            if used > bound {
                return used;
            }
        }
    }
    used
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_count_once_and_neither_holes_nor_links_do() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("sandbox");
        fs::create_dir_all(root.join("a/b")).unwrap();
        let before = used_bytes(&root, u64::MAX);
        fs::write(root.join("a/b/file"), vec![7; 1 << 20]).unwrap();
        let after = used_bytes(&root, u64::MAX);
        assert!(
            (1 << 20..1 << 21).contains(&(after - before)),
            "{before} {after}"
        );
        fs::hard_link(root.join("a/b/file"), root.join("same")).unwrap();
        let hole = fs::File::create(root.join("hole")).unwrap();
        hole.set_len(1 << 30).unwrap();
        fs::write(dir.path().join("outside"), vec![7; 1 << 20]).unwrap();
        std::os::unix::fs::symlink(dir.path(), root.join("link")).unwrap();
        let linked = used_bytes(&root, u64::MAX);
        assert!(linked - after < 1 << 16, "{after} {linked}");
        assert!(used_bytes(&root, 1 << 19) > 1 << 19);
        assert_eq!(used_bytes(&dir.path().join("gone"), u64::MAX), 0);
    }
}
