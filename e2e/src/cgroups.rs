//! The control groups of a test: its own root, and nothing of it left at the end.

use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

/// Longer than what was killed takes to be gone.
const DYING: Duration = Duration::from_secs(5);

/// A root for control groups that no other test uses; removed when dropped.
#[derive(Debug)]
pub struct CgroupRoot {
    name: String,
}

impl CgroupRoot {
    /// A name from this process and a word of the test.
    #[must_use]
    pub fn new(word: &str) -> Self {
        Self {
            name: format!("meros-test-{}-{word}", std::process::id()),
        }
    }

    /// The name, for `--cgroup-root`.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Every control group folder below this root, in all hierarchies, without the root itself.
    #[must_use]
    pub fn groups(&self) -> Vec<PathBuf> {
        let mut found = Vec::new();
        for root in self.roots() {
            walk(&root, &mut found);
        }
        found
    }

    /// Tasks that outlive their slave would outlive a test that failed as well.
    fn kill_all(&self) {
        for group in self.groups() {
            let members = std::fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default();
            for pid in members.lines().filter_map(|line| line.parse().ok()) {
                // Dead already is as good.
                let _ = nix::sys::signal::kill(
                    nix::unistd::Pid::from_raw(pid),
                    nix::sys::signal::Signal::SIGKILL,
                );
            }
        }
    }

    fn roots(&self) -> Vec<PathBuf> {
        let base = Path::new("/sys/fs/cgroup");
        let below = std::fs::read_dir(base).into_iter().flatten().flatten();
        let mut roots: Vec<PathBuf> = below.map(|entry| entry.path().join(&self.name)).collect();
        roots.push(base.join(&self.name));
        roots.retain(|path| path.is_dir());
        roots.sort();
        // v1 has the controllers also under joined names, as links to one hierarchy.
        roots.dedup_by_key(|path| path.canonicalize().ok());
        roots
    }
}

fn walk(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            walk(&entry.path(), found);
            found.push(entry.path());
        }
    }
}

impl Drop for CgroupRoot {
    fn drop(&mut self) {
        let deadline = Instant::now() + DYING;
        loop {
            if thread::panicking() {
                self.kill_all();
            }
            // Deepest first, as found. What still has processes cannot be removed and shows up in
            // the test that looks for it.
            for group in self.groups().into_iter().chain(self.roots()) {
                drop(std::fs::remove_dir(group));
            }
            let is_over = !thread::panicking() || Instant::now() > deadline;
            if is_over || self.roots().is_empty() {
                return;
            }
            thread::sleep(Duration::from_millis(5));
        }
    }
}
