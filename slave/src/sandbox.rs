//! Sandboxes: the directories that tasks run in, kept for a while after their end so that their
//! output can be read, and then removed.
//!
//! `<data_dir>/sandboxes/<framework>/<task>/<container>/` is the task's own. Beside it, out of the
//! task's reach, `<container>.json` says how it ended; without it the machine crashed.
//!
//! Invariants: S14 sandboxes of ended tasks are bounded, and one in use is never removed.
//!
//! Bounds: at most [`KEPT_MAX`] sandboxes of ended tasks, none older than [`KEPT_FOR`], and while the
//! disk has less than [`FREE_PERCENT_MIN`] percent free none older than [`KEPT_AT_LEAST`]; the oldest
//! go first.

use std::collections::BTreeSet;
use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use meros_slave_core::{ContainerId, TaskKey};
use nix::sys::statvfs::statvfs;
use serde::{Deserialize, Serialize};

/// Sandboxes of ended tasks: a scan of as many takes a few milliseconds.
pub(crate) const KEPT_MAX: usize = 1_000;
/// A week, as Mesos does it (`gc_delay`).
pub(crate) const KEPT_FOR: Duration = Duration::from_secs(7 * 24 * 60 * 60);
/// A tenth, as Mesos does it (`gc_disk_headroom`).
pub(crate) const FREE_PERCENT_MIN: u64 = 10;
/// However short the disk is: who waits for a task gets to read what it wrote.
pub(crate) const KEPT_AT_LEAST: Duration = Duration::from_secs(60);
/// The task's directory may be removed as empty while its next sandbox is being made.
const CREATE_ATTEMPTS: usize = 8;
/// Ours beside each sandbox of an ended task.
const ENDED_SUFFIX: &str = "json";

/// What is remembered of a container that has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Ended {
    /// How often `stdout` was rotated.
    pub(crate) stdout_rotations: u64,
    /// How often `stderr` was rotated.
    pub(crate) stderr_rotations: u64,
    /// Bytes of output after which a file is rotated.
    pub(crate) file_bytes_max: u64,
}

/// What a collection has done.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Collected {
    /// Sandboxes removed.
    pub(crate) removed: usize,
    /// Sandboxes of ended tasks that are left.
    pub(crate) kept: usize,
    /// Sandboxes that could not be removed.
    pub(crate) failed: usize,
    /// The disk had too little free, after what was removed.
    pub(crate) is_disk_short: bool,
}

/// What a collection leaves.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    pub(crate) kept_max: usize,
    pub(crate) kept_for: Duration,
    pub(crate) free_percent_min: u64,
    pub(crate) kept_at_least: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            kept_max: KEPT_MAX,
            kept_for: KEPT_FOR,
            free_percent_min: FREE_PERCENT_MIN,
            kept_at_least: KEPT_AT_LEAST,
        }
    }
}

/// All sandboxes of one slave.
#[derive(Debug, Clone)]
pub(crate) struct Sandboxes {
    root: PathBuf,
}

impl Sandboxes {
    /// Below this directory, which is made when needed.
    pub(crate) fn below(root: PathBuf) -> Self {
        Self { root }
    }

    /// Where all of them are.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// All that are kept. Blocks.
    pub(crate) fn paths(&self) -> Vec<PathBuf> {
        let all = self.all().into_iter().map(|(_, path)| path);
        let mut paths: Vec<PathBuf> = all.collect();
        paths.sort();
        paths
    }

    fn of_task(&self, task: &TaskKey) -> PathBuf {
        self.root.join(task.0.to_string()).join(task.1.as_str())
    }

    pub(crate) fn path(&self, task: &TaskKey, container: ContainerId) -> PathBuf {
        self.of_task(task).join(container.to_string())
    }

    /// Makes the sandbox. Blocks.
    pub(crate) fn create(&self, task: &TaskKey, container: ContainerId) -> io::Result<PathBuf> {
        let path = self.path(task, container);
        let mut attempts = CREATE_ATTEMPTS;
        loop {
            // Others may pass through, because a task may run as another user, but not look.
            DirBuilder::new()
                .recursive(true)
                .mode(0o711)
                .create(self.of_task(task))?;
            match DirBuilder::new().mode(0o700).create(&path) {
                Ok(()) => return Ok(path),
                Err(error) if error.kind() == io::ErrorKind::NotFound && attempts > 0 => {
                    attempts -= 1
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Remembers how it ended; from now on it may be collected. Blocks.
    pub(crate) fn finish(
        &self,
        task: &TaskKey,
        container: ContainerId,
        ended: &Ended,
    ) -> io::Result<()> {
        let text = serde_json::to_vec(ended).map_err(io::Error::from)?;
        fs::write(
            self.path(task, container).with_extension(ENDED_SUFFIX),
            text,
        )
    }

    /// The newest sandbox that is kept of a task. Blocks.
    pub(crate) fn latest(&self, task: &TaskKey) -> Option<(PathBuf, Option<Ended>)> {
        let names = fs::read_dir(self.of_task(task)).ok()?.flatten();
        let containers = names.filter_map(|entry| parse_container(entry.file_name().to_str()?));
        let path = self.path(task, containers.max()?);
        let ended = fs::read(path.with_extension(ENDED_SUFFIX)).ok();
        let ended = ended.and_then(|text| serde_json::from_slice(&text).ok());
        Some((path, ended))
    }

    /// Removes what is over the limits, except `live` ones. Blocks.
    pub(crate) fn collect(
        &self,
        live: impl FnOnce() -> BTreeSet<PathBuf>,
        limits: Limits,
        now: SystemTime,
    ) -> Collected {
        let mut ended = self.all();
        // Asked after the look: whoever has a sandbox by then has said so before making it.
        let live = live();
        ended.retain(|(_, path)| !live.contains(path));
        ended.sort();
        let mut collected = Collected {
            is_disk_short: self.is_disk_short(limits.free_percent_min),
            ..Collected::default()
        };
        let total = ended.len();
        for (nth, (at, path)) in ended.into_iter().enumerate() {
            let left = total - nth;
            let age = now.duration_since(at).unwrap_or_default();
            let is_over = left > limits.kept_max || age > limits.kept_for;
            let is_in_the_way = collected.is_disk_short && age >= limits.kept_at_least;
            if !is_over && !is_in_the_way {
                collected.kept += left;
                break;
            }
            match remove(&path) {
                Ok(()) => collected.removed += 1,
                Err(error) => {
                    tracing::warn!(path = %path.display(), %error, "failed to remove a sandbox");
                    collected.failed += 1;
                }
            }
            if collected.is_disk_short {
                collected.is_disk_short = self.is_disk_short(limits.free_percent_min);
            }
        }
        collected
    }

    /// All sandboxes, with the time of their end if they have ended.
    fn all(&self) -> Vec<(SystemTime, PathBuf)> {
        let mut found = Vec::new();
        for framework in directories(&self.root) {
            for task in directories(&framework) {
                for path in directories(&task) {
                    let ended = path.with_extension(ENDED_SUFFIX);
                    let metadata =
                        fs::symlink_metadata(ended).or_else(|_| fs::symlink_metadata(&path));
                    if let Ok(at) = metadata.and_then(|metadata| metadata.modified()) {
                        found.push((at, path));
                    }
                }
            }
        }
        found
    }

    fn is_disk_short(&self, free_percent_min: u64) -> bool {
        statvfs(&self.root).is_ok_and(|stat| {
            let free = u128::from(stat.blocks_available()) * 100;
            free < u128::from(stat.blocks()) * u128::from(free_percent_min)
        })
    }
}

/// Removes a sandbox, what we know of it, and the directories above it that are empty now.
fn remove(sandbox: &Path) -> io::Result<()> {
    fs::remove_dir_all(sandbox)?;
    match fs::remove_file(sandbox.with_extension(ENDED_SUFFIX)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    for above in sandbox.ancestors().skip(1).take(2) {
        // Not empty, most often.
        if fs::remove_dir(above).is_err() {
            break;
        }
    }
    Ok(())
}

fn directories(path: &Path) -> impl Iterator<Item = PathBuf> {
    let entries = fs::read_dir(path).into_iter().flatten().flatten();
    let is_directory = |entry: &fs::DirEntry| entry.file_type().is_ok_and(|it| it.is_dir());
    entries.filter(is_directory).map(|entry| entry.path())
}

pub(crate) fn parse_container(name: &str) -> Option<ContainerId> {
    let (incarnation, number) = name.split_once('-')?;
    Some(ContainerId {
        incarnation: incarnation.parse().ok()?,
        number: number.parse().ok()?,
    })
}

#[cfg(test)]
mod tests {
    use meros_proto::ids::{FrameworkId, TaskId};

    use super::*;

    const ENDED: Ended = Ended {
        stdout_rotations: 2,
        stderr_rotations: 0,
        file_bytes_max: 4_096,
    };
    const NO_LIMITS: Limits = Limits {
        kept_max: usize::MAX,
        kept_for: Duration::MAX,
        free_percent_min: 0,
        kept_at_least: Duration::ZERO,
    };

    fn key(task: &str) -> TaskKey {
        (FrameworkId(1), TaskId::new(task).unwrap())
    }

    fn container(number: u64) -> ContainerId {
        ContainerId {
            incarnation: 1,
            number,
        }
    }

    #[test]
    fn the_newest_sandbox_of_a_task_is_found_by_number() {
        let dir = tempfile::tempdir().unwrap();
        let sandboxes = Sandboxes::below(dir.path().join("sandboxes"));
        assert!(sandboxes.latest(&key("t")).is_none());
        for number in [9, 10, 2] {
            sandboxes.create(&key("t"), container(number)).unwrap();
        }
        let newest = sandboxes.path(&key("t"), container(10));
        assert_eq!(sandboxes.latest(&key("t")), Some((newest.clone(), None)));
        sandboxes.finish(&key("t"), container(10), &ENDED).unwrap();
        assert_eq!(sandboxes.latest(&key("t")), Some((newest, Some(ENDED))));
    }

    #[test]
    fn the_oldest_beyond_the_count_are_removed_and_live_ones_stay() {
        let dir = tempfile::tempdir().unwrap();
        let sandboxes = Sandboxes::below(dir.path().join("sandboxes"));
        let mut paths = Vec::new();
        for number in 1..=6 {
            let task = key(&format!("t{number}"));
            paths.push(sandboxes.create(&task, container(number)).unwrap());
            sandboxes.finish(&task, container(number), &ENDED).unwrap();
            let file = fs::File::options()
                .write(true)
                .open(paths[paths.len() - 1].with_extension("json"));
            let at = SystemTime::UNIX_EPOCH + Duration::from_secs(number);
            file.unwrap().set_modified(at).unwrap();
        }
        let live = BTreeSet::from([paths[0].clone()]);
        let limits = Limits {
            kept_max: 2,
            ..NO_LIMITS
        };
        let collected = sandboxes.collect(|| live, limits, SystemTime::now());
        assert_eq!(
            collected,
            Collected {
                removed: 3,
                kept: 2,
                failed: 0,
                is_disk_short: false,
            }
        );
        let left: Vec<bool> = paths.iter().map(|path| path.exists()).collect();
        assert_eq!(left, [true, false, false, false, true, true]);
        assert!(
            !dir.path().join("sandboxes/F1/t2").exists(),
            "an empty directory was left"
        );
    }

    #[test]
    fn old_ones_go_and_so_do_all_when_the_disk_is_short() {
        let dir = tempfile::tempdir().unwrap();
        let sandboxes = Sandboxes::below(dir.path().join("sandboxes"));
        let path = sandboxes.create(&key("t"), container(1)).unwrap();
        let weak = Limits {
            kept_for: Duration::from_secs(60),
            ..NO_LIMITS
        };
        assert_eq!(
            sandboxes
                .collect(BTreeSet::new, weak, SystemTime::now())
                .removed,
            0
        );
        let later = SystemTime::now() + Duration::from_secs(61);
        assert_eq!(sandboxes.collect(BTreeSet::new, weak, later).removed, 1);
        assert!(!path.exists());
        sandboxes.create(&key("t"), container(2)).unwrap();
        let greedy = Limits {
            free_percent_min: 101,
            kept_at_least: Duration::from_secs(60),
            ..NO_LIMITS
        };
        // Whoever waits for the task still has to read it.
        let collected = sandboxes.collect(BTreeSet::new, greedy, SystemTime::now());
        assert_eq!((collected.removed, collected.kept), (0, 1));
        assert!(collected.is_disk_short);
        let collected = sandboxes.collect(BTreeSet::new, greedy, later);
        assert_eq!((collected.removed, collected.kept), (1, 0));
    }

    #[test]
    fn a_link_in_a_sandbox_is_removed_and_what_it_points_to_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let precious = dir.path().join("precious");
        fs::create_dir(&precious).unwrap();
        fs::write(precious.join("file"), "x").unwrap();
        let sandboxes = Sandboxes::below(dir.path().join("sandboxes"));
        let path = sandboxes.create(&key("t"), container(1)).unwrap();
        std::os::unix::fs::symlink(&precious, path.join("link")).unwrap();
        let limits = Limits {
            kept_max: 0,
            ..NO_LIMITS
        };
        assert_eq!(
            sandboxes
                .collect(BTreeSet::new, limits, SystemTime::now())
                .removed,
            1
        );
        assert!(precious.join("file").exists());
    }
}
