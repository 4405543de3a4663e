//! Which control groups are ours.
//!
//! A group that we make carries the sticky bit from its first moment. The bit means nothing to the
//! kernel on a group, is kept until the group goes, and is seen by every slave of the host: so the
//! mark outlives a crash and needs no file beside it. Groups without it belong to somebody else.
//! They are used in one case only: an administrator has given us one, empty or with this very
//! process in it (systemd's `Delegate=yes`). They are never removed.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::Path;

use super::group::subgroups;
use super::isolation::SUPERVISOR;

const MARK: u32 = 0o1000;
const MODE: u32 = 0o755 | MARK;

/// Makes a group that is ours. One that is there already stays what it is.
pub(crate) fn create_group(path: &Path) -> io::Result<()> {
    match DirBuilder::new().mode(MODE).create(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        result => result,
    }
}

/// Whether we have made it, in this run or an earlier one, or another slave of ours.
pub(crate) fn is_ours(group: &Path) -> bool {
    fs::metadata(group).is_ok_and(|found| found.permissions().mode() & MARK != 0)
}

/// Why `root` must not be used, if it is there.
pub(crate) fn in_foreign_use(root: &Path) -> Option<String> {
    let mut children = subgroups(root);
    if let Some(child) = children.find(|child| !is_ours(child) && !is_supervisor(child)) {
        let child = child.file_name().unwrap_or_default().display().to_string();
        return Some(format!("it has the group {child:?}, which is not ours"));
    }
    if is_ours(root) {
        return None;
    }
    let own = std::process::id().to_string();
    let stranger = members(root).into_iter().find(|pid| *pid != own)?;
    Some(format!("process {stranger} is in it"))
}

/// Where we live in a group that was given to us.
fn is_supervisor(child: &Path) -> bool {
    child.file_name().is_some_and(|name| name == SUPERVISOR)
}

fn members(group: &Path) -> Vec<String> {
    let text = fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

/// Removes a group of ours, if it is empty. False if it stays.
pub(crate) fn remove_group(group: &Path) -> bool {
    is_ours(group) && fs::remove_dir(group).is_ok()
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::path::PathBuf;

    use super::*;

    fn group(below: &Path, name: &str, members: &str) -> PathBuf {
        let path = below.join(name);
        fs::create_dir(&path).unwrap();
        fs::write(path.join("cgroup.procs"), members).unwrap();
        path
    }

    #[test]
    fn a_group_is_marked_when_it_is_made_and_not_when_it_was_there() {
        let dir = tempfile::tempdir().unwrap();
        let (ours, foreign) = (dir.path().join("ours"), group(dir.path(), "foreign", ""));
        for path in [&ours, &foreign] {
            create_group(path).unwrap();
        }
        assert!(is_ours(&ours) && !is_ours(&foreign));
        assert!(remove_group(&ours) && !remove_group(&foreign));
        assert!(foreign.exists() && !ours.exists());
    }

    #[test]
    fn a_root_with_processes_or_groups_of_others_is_refused_and_an_empty_one_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let own = format!("{}\n", std::process::id());
        assert_eq!(in_foreign_use(&dir.path().join("absent")), None);
        assert_eq!(in_foreign_use(&group(dir.path(), "given", "")), None);
        let delegated = group(dir.path(), "delegated", &own);
        group(&delegated, SUPERVISOR, &own);
        assert_eq!(in_foreign_use(&delegated), None);

        let busy = group(dir.path(), "busy", &format!("{own}1\n"));
        assert!(in_foreign_use(&busy).unwrap().contains("process 1"));
        let slice = group(dir.path(), "system.slice", "");
        group(&slice, "ssh.service", "1\n");
        assert!(in_foreign_use(&slice).unwrap().contains("ssh.service"));
        // Ours by name, but somebody has put a group of theirs into it.
        fs::set_permissions(&slice, Permissions::from_mode(MODE)).unwrap();
        assert!(in_foreign_use(&slice).is_some());
        fs::remove_file(slice.join("ssh.service/cgroup.procs")).unwrap();
        fs::remove_dir(slice.join("ssh.service")).unwrap();
        create_group(&slice.join("slave-1")).unwrap();
        assert_eq!(in_foreign_use(&slice), None);
    }
}
