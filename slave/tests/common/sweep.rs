//! Nothing of a test is left, however it ends: what outlives its slave on purpose would outlive a test that
//! fails as well.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Longer than the kernel calls the group of dead processes busy.
const PATIENCE: Duration = Duration::from_secs(5);
/// What runs beside a task, by its name.
const BESIDE: [&str; 2] = ["meros-shim", "meros-init"];

/// Kills what runs in the control groups of a test and the shims that have their folders below its directory,
/// and removes the groups, when it is dropped. Nobody else's have their names.
#[derive(Debug)]
pub(crate) struct Sweep {
    root: String,
    dir: PathBuf,
}

impl Sweep {
    /// Of the control groups below `root`, in every hierarchy.
    pub(crate) fn new(root: &str, dir: &Path) -> Self {
        Self {
            root: root.to_owned(),
            dir: dir.canonicalize().expect("the test has made it"),
        }
    }

    pub(crate) fn root(&self) -> &str {
        &self.root
    }

    /// Processes of the test, and its groups, the inner ones first.
    fn left(&self) -> (Vec<i32>, Vec<PathBuf>) {
        let roots = cgroup_mounts()
            .into_iter()
            .map(|mount| mount.join(&self.root));
        let groups: Vec<PathBuf> = roots.flat_map(|root| groups_below(&root)).collect();
        let members = groups.iter().flat_map(|group| members(group));
        (members.chain(shims_below(&self.dir)).collect(), groups)
    }
}

impl Drop for Sweep {
    fn drop(&mut self) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let (processes, groups) = self.left();
            if (processes.is_empty() && groups.is_empty()) || Instant::now() > deadline {
                return;
            }
            for pid in processes {
                // Dead already is as good.
                let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
            }
            for group in groups {
                let _ = fs::remove_dir(group);
            }
            thread::sleep(Duration::from_millis(5));
        }
    }
}

fn members(group: &Path) -> Vec<i32> {
    let text = fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default();
    text.lines().filter_map(|pid| pid.parse().ok()).collect()
}

/// Dead ones that nobody has waited for have no folder any more.
fn shims_below(dir: &Path) -> Vec<i32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    let is_ours = |pid: &i32| {
        let proc = Path::new("/proc").join(pid.to_string());
        let name = fs::read_to_string(proc.join("comm")).unwrap_or_default();
        let folder = fs::read_link(proc.join("cwd")).unwrap_or_default();
        BESIDE.contains(&name.trim()) && folder.starts_with(dir)
    };
    pids.filter(is_ours).collect()
}

/// Where hierarchies are mounted.
pub(crate) fn cgroup_mounts() -> Vec<PathBuf> {
    let text = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let lines = text.lines().filter(|line| line.contains(" - cgroup"));
    lines
        .filter_map(|line| line.split(' ').nth(4))
        .map(PathBuf::from)
        .collect()
}

/// A group and all below it, children first.
pub(crate) fn groups_below(group: &Path) -> Vec<PathBuf> {
    let children = fs::read_dir(group)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path());
    let mut found: Vec<PathBuf> = children
        .filter(|path| path.is_dir())
        .flat_map(|path| groups_below(&path))
        .collect();
    if group.is_dir() {
        found.push(group.to_owned());
    }
    found
}
