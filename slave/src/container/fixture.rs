//! A directory that looks like a host's cgroup mounts, for tests of the logic without a kernel.

use std::fs;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use super::isolation::{CgroupRoot, Isolation};

/// Mounts are directories below a temporary one; "the kernel's" files are made by the test.
pub(crate) struct Host {
    dir: TempDir,
    mountinfo: String,
}

impl Host {
    pub(crate) fn new() -> Self {
        Self {
            dir: tempfile::tempdir().unwrap(),
            mountinfo: String::new(),
        }
    }

    pub(crate) fn path(&self, below: &str) -> PathBuf {
        self.dir.path().join(below)
    }

    /// A v1 hierarchy with our group in it, which has the given files.
    pub(crate) fn v1(mut self, controllers: &str, files: &[(&str, &str)]) -> Self {
        self.mount(controllers, &format!("cgroup cgroup rw,{controllers}"));
        self.group(&format!("{controllers}/meros/a"), files);
        self
    }

    /// The v2 hierarchy with controllers, and our group with the given files.
    pub(crate) fn v2(mut self, controllers: &str, files: &[(&str, &str)]) -> Self {
        self.mount("unified", "cgroup2 cgroup2 rw");
        for group in ["unified", "unified/meros", "unified/meros/a"] {
            self.group(
                group,
                &[
                    ("cgroup.controllers", controllers),
                    ("cgroup.subtree_control", ""),
                ],
            );
        }
        self.group("unified/meros/a", files);
        self
    }

    /// A mount that cannot be used: its mount point is a file.
    pub(crate) fn unusable_v1(mut self, controllers: &str) -> Self {
        fs::write(self.path(controllers), "").unwrap();
        self.mountinfo +=
            &self.mountinfo_line(controllers, &format!("cgroup cgroup rw,{controllers}"));
        self
    }

    pub(crate) fn detect(&self) -> Isolation {
        let mountinfo = self.path("mountinfo");
        fs::write(&mountinfo, &self.mountinfo).unwrap();
        Isolation::detect_from(&CgroupRoot::new("meros", "a").unwrap(), &mountinfo)
    }

    /// Makes a group as a crashed run of ours would have left it, since the kernel's files must be in
    /// it before we are.
    pub(crate) fn group(&self, below: &str, files: &[(&str, &str)]) {
        let group = self.path(below);
        fs::create_dir_all(group.parent().unwrap()).unwrap();
        super::ownership::create_group(&group).unwrap();
        fs::write(group.join("cgroup.procs"), "").unwrap();
        for (name, content) in files {
            fs::write(group.join(name), content).unwrap();
        }
    }

    fn mount(&mut self, below: &str, tail: &str) {
        fs::create_dir_all(self.path(below)).unwrap();
        self.mountinfo += &self.mountinfo_line(below, tail);
    }

    fn mountinfo_line(&self, below: &str, tail: &str) -> String {
        format!(
            "30 20 0:30 / {} rw,relatime - {tail}\n",
            self.path(below).display()
        )
    }
}

pub(crate) fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}
