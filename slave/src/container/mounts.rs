//! Where the host has mounted its cgroup hierarchies, from `/proc/self/mountinfo`.
//!
//! cgroups-rs has such a parser too, but it reads no other file, knows no cgroup2 beside v1
//! (hybrid hosts) and does not undo the kernel's escapes.

use std::path::PathBuf;

use meros_shim::mount_path;

/// A mounted cgroup hierarchy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum CgroupMount {
    /// A v1 hierarchy with the controllers (`cpu`, `memory`, …) bound to it.
    V1 {
        path: PathBuf,
        controllers: Vec<String>,
    },
    /// The unified hierarchy; its controllers are listed in its own files.
    V2 { path: PathBuf },
}

/// The cgroup mounts among the lines of a mountinfo file, in order; other lines are skipped, whatever
/// bytes they have.
pub(crate) fn parse_mountinfo(text: &[u8]) -> Vec<CgroupMount> {
    let lines = text.split(|byte| *byte == b'\n');
    let lines = lines.filter_map(|line| str::from_utf8(line).ok());
    lines.filter_map(parse_line).collect()
}

/// `36 35 98:0 /root /mount/point rw,noatime shared:1 - type source super,options` (proc(5)).
fn parse_line(line: &str) -> Option<CgroupMount> {
    let (before, after) = line.split_once(" - ")?;
    let path = mount_path(before.split(' ').nth(4)?.as_bytes());
    let mut after = after.split(' ');
    let kind = after.next()?;
    let super_options = after.nth(1)?;
    match kind {
        "cgroup2" => Some(CgroupMount::V2 { path }),
        "cgroup" => {
            let controllers = super_options.split(',').map(str::to_owned).collect();
            Some(CgroupMount::V1 { path, controllers })
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn v1_and_v2_mounts_are_told_apart_and_others_skipped() {
        let text = b"\
            30 23 0:27 / /mnt/\xe9 rw - cgroup2 cgroup2 rw\n\
            31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755\n\
            32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw shared:9 master:1 - cgroup cgroup rw,cpu,cpuacct\n\
            40 31 0:37 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=systemd\n\
            41 31 0:38 / /mnt/with\\040blank rw - cgroup2 cgroup2 rw,nsdelegate\n";
        let mounts = parse_mountinfo(text);
        let v1 = |path: &str, controllers: &[&str]| CgroupMount::V1 {
            path: path.into(),
            controllers: controllers.iter().map(|&name| name.into()).collect(),
        };
        assert_eq!(
            mounts,
            [
                v1("/sys/fs/cgroup/cpu,cpuacct", &["rw", "cpu", "cpuacct"]),
                v1("/sys/fs/cgroup/systemd", &["rw", "xattr", "name=systemd"]),
                CgroupMount::V2 {
                    path: "/mnt/with blank".into()
                },
            ]
        );
    }

    #[test]
    fn broken_lines_are_skipped() {
        let text = b"\n - \n1 2 3 - cgroup\na b c d e f - cgroup2\nx - cgroup cgroup rw,cpu\n1 2 3 / \\9\\ rw - cgroup2 c rw\n";
        assert_eq!(
            parse_mountinfo(text),
            [CgroupMount::V2 {
                path: "\\9\\".into()
            }]
        );
    }
}
