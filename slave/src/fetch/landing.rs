//! Putting files into a sandbox on behalf of the task's user.
//!
//! The slave may be root and what is unpacked may be hostile. So every folder on the way is opened for
//! itself and never through a symbolic link, also not one that was there before (a volume), nothing but a
//! regular file is ever replaced, and all that is made belongs to the task's user.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

use meros_proto::fetch::check_name;
use rustix::fs::{
    AtFlags, CWD, FileType, Gid, Mode, OFlags, ResolveFlags, Uid, fchmod, fchown, linkat, mkdirat,
    openat, openat2, readlinkat, statat, symlinkat, unlinkat,
};
use rustix::io::Errno;

use super::error::Failure;

/// No link on the way, and no way out.
const STRICT: ResolveFlags = ResolveFlags::BENEATH
    .union(ResolveFlags::NO_SYMLINKS)
    .union(ResolveFlags::NO_MAGICLINKS);
const FOLDER: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::CLOEXEC)
    .union(OFlags::NOFOLLOW);
const NEW_FILE: OFlags = OFlags::WRONLY
    .union(OFlags::CREATE)
    .union(OFlags::EXCL)
    .union(OFlags::CLOEXEC)
    .union(OFlags::NOFOLLOW);

/// The user and group that things in a sandbox belong to.
pub(crate) type Owner = (nix::unistd::Uid, nix::unistd::Gid);

/// A sandbox that is being filled.
#[derive(Debug)]
pub(super) struct Landing {
    root: OwnedFd,
    owner: Option<(Uid, Gid)>,
}

/// A name below the sandbox, its folders included.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place(PathBuf);

impl Place {
    /// As an archive or a framework writes it. `None` is the sandbox itself (`./`).
    pub(super) fn parse(name: &str) -> Result<Option<Self>, Failure> {
        if name.starts_with('/') {
            return Err(refused(name, "is an absolute path"));
        }
        // Archives write `./a` and `a/`.
        let parts = Path::new(name).components();
        let path: PathBuf = parts.filter(|part| *part != Component::CurDir).collect();
        let Some(text) = path.to_str().filter(|text| !text.is_empty()) else {
            return Ok(None);
        };
        check_name(text).map_err(|why| refused(name, why))?;
        Ok(Some(Self(path)))
    }

    fn name(&self) -> &OsStr {
        self.0.file_name().unwrap_or_default()
    }

    fn above(&self) -> &Path {
        self.0.parent().unwrap_or(Path::new(""))
    }

    pub(super) fn depth(&self) -> usize {
        self.above().components().count()
    }

    fn is_taken(&self, by: &str) -> Failure {
        Failure::Sandbox(format!(
            "{} is there already, and is {by}",
            self.0.display()
        ))
    }

    fn failed(&self, error: Errno) -> Failure {
        let name = self.0.display();
        match error {
            Errno::LOOP | Errno::NOTDIR => Failure::Sandbox(format!(
                "on the way to {name} there is a link or a file, and not a folder"
            )),
            Errno::XDEV => Failure::Sandbox(format!("{name} leads out of the sandbox")),
            other => Failure::Sandbox(format!("{name}: {other}")),
        }
    }
}

fn refused(name: &str, why: &str) -> Failure {
    let name: String = name.chars().take(200).collect();
    Failure::Archive(format!("it has {name:?}, which {why}"))
}

impl Landing {
    pub(super) fn open(sandbox: &Path, owner: Option<Owner>) -> Result<Self, Failure> {
        let root = openat(CWD, sandbox, FOLDER, Mode::empty());
        let owner = owner
            .map(|(user, group)| (Uid::from_raw(user.as_raw()), Gid::from_raw(group.as_raw())));
        Ok(Self {
            root: root.map_err(|error| Failure::Sandbox(error.to_string()))?,
            owner,
        })
    }

    /// A new file, or an empty one in place of a regular file. It belongs to us until [`Landing::seal`].
    pub(super) fn file(&self, place: &Place) -> Result<File, Failure> {
        let above = self.folder_above(place)?;
        self.make_room(&above, place)?;
        let mode = Mode::from_raw_mode(0o600);
        let file = openat(&above, place.name(), NEW_FILE, mode).map_err(|it| place.failed(it))?;
        Ok(File::from(file))
    }

    /// Hands a finished file over. Of its mode only the permissions count: no setuid, no setgid.
    pub(super) fn seal(&self, place: &Place, file: &File, mode: u32) -> Result<(), Failure> {
        self.own(file, mode & 0o777 | 0o600)
            .map_err(|error| place.failed(error))
    }

    /// A folder, which may be there.
    pub(super) fn folder(&self, place: &Place, mode: u32) -> Result<(), Failure> {
        let folder = self.walk(&place.0).map_err(|error| place.failed(error))?;
        self.own(&folder, mode & 0o777 | 0o700)
            .map_err(|error| place.failed(error))
    }

    /// A symbolic link to something below the sandbox. One that is the same may be there.
    pub(super) fn symlink(&self, place: &Place, target: &str) -> Result<(), Failure> {
        check_target(place, target)?;
        let above = self.folder_above(place)?;
        match symlinkat(target, &above, place.name()) {
            Ok(()) => {}
            Err(Errno::EXIST) => {
                let same = readlinkat(&above, place.name(), Vec::new());
                return match same.is_ok_and(|it| it.as_bytes() == target.as_bytes()) {
                    true => Ok(()),
                    false => Err(place.is_taken("not that link")),
                };
            }
            Err(error) => return Err(place.failed(error)),
        }
        let Some((user, group)) = self.owner else {
            return Ok(());
        };
        let flags = AtFlags::SYMLINK_NOFOLLOW;
        rustix::fs::chownat(&above, place.name(), Some(user), Some(group), flags)
            .map_err(|error| place.failed(error))
    }

    /// A second name of a regular file that is there.
    pub(super) fn hardlink(&self, place: &Place, target: &Place) -> Result<(), Failure> {
        let from = self.folder_above(target)?;
        let found = statat(&from, target.name(), AtFlags::SYMLINK_NOFOLLOW)
            .map_err(|error| target.failed(error))?;
        if FileType::from_raw_mode(found.st_mode) != FileType::RegularFile {
            return Err(target.is_taken("no regular file to link to"));
        }
        if place == target {
            return Ok(());
        }
        let above = self.folder_above(place)?;
        self.make_room(&above, place)?;
        linkat(&from, target.name(), &above, place.name(), AtFlags::empty())
            .map_err(|error| place.failed(error))
    }

    /// Removes a regular file that is in the way; anything else stays and is an error.
    fn make_room(&self, above: &OwnedFd, place: &Place) -> Result<(), Failure> {
        match statat(above, place.name(), AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => Ok(()),
            Err(error) => Err(place.failed(error)),
            Ok(found) => match FileType::from_raw_mode(found.st_mode) {
                FileType::RegularFile => unlinkat(above, place.name(), AtFlags::empty())
                    .map_err(|error| place.failed(error)),
                FileType::Directory => Err(place.is_taken("a folder")),
                _ => Err(place.is_taken("a link, and never written through")),
            },
        }
    }

    fn folder_above(&self, place: &Place) -> Result<OwnedFd, Failure> {
        self.walk(place.above())
            .map_err(|error| place.failed(error))
    }

    /// Opens a folder; makes what is missing of it.
    fn walk(&self, path: &Path) -> Result<OwnedFd, Errno> {
        if path.as_os_str().is_empty() {
            return self.root.try_clone().map_err(|_| Errno::MFILE);
        }
        match openat2(&self.root, path, FOLDER, Mode::empty(), STRICT) {
            Err(Errno::NOENT) => {}
            found => return found,
        }
        let mut folder = self.root.try_clone().map_err(|_| Errno::MFILE)?;
        for part in path {
            let open = |folder: &OwnedFd| openat2(folder, part, FOLDER, Mode::empty(), STRICT);
            folder = match open(&folder) {
                Err(Errno::NOENT) => {
                    mkdirat(&folder, part, Mode::from_raw_mode(0o700))?;
                    let made = open(&folder)?;
                    self.own(&made, 0o755)?;
                    made
                }
                found => found?,
            };
        }
        Ok(folder)
    }

    fn own(&self, thing: impl AsFd, mode: u32) -> Result<(), Errno> {
        // In this order: a change of owner takes bits of the mode away.
        if let Some((user, group)) = self.owner {
            fchown(&thing, Some(user), Some(group))?;
        }
        fchmod(&thing, Mode::from_raw_mode(mode))
    }
}

/// Whether a link leads to something below the sandbox: up first, as far as there are real folders, then
/// down. Down again could be through another link, and up from there out.
fn check_target(place: &Place, target: &str) -> Result<(), Failure> {
    let outside = || {
        Failure::Archive(format!(
            "its link {} leads to {target:?}, which is not below the sandbox",
            place.0.display()
        ))
    };
    let (mut up, mut is_down) = (0, false);
    for part in Path::new(target).components() {
        match part {
            Component::CurDir => {}
            Component::Normal(_) => is_down = true,
            Component::ParentDir if !is_down => up += 1,
            _ => return Err(outside()),
        }
    }
    let is_inside = up <= place.depth() && !target.is_empty() && !target.contains('\0');
    if is_inside { Ok(()) } else { Err(outside()) }
}

/// An error of the disk under a file in the sandbox.
pub(super) fn on_write(error: io::Error) -> Failure {
    Failure::Sandbox(error.to_string())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Write;
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    fn place(name: &str) -> Place {
        Place::parse(name).unwrap().unwrap()
    }

    #[test]
    fn nothing_is_written_through_a_link_or_over_a_folder() {
        let dir = tempfile::tempdir().unwrap();
        let (sandbox, outside) = (dir.path().join("sandbox"), dir.path().join("outside"));
        fs::create_dir(&sandbox).unwrap();
        fs::create_dir(&outside).unwrap();
        fs::write(outside.join("file"), "kept").unwrap();
        symlink(&outside, sandbox.join("volume")).unwrap();
        symlink(outside.join("file"), sandbox.join("link")).unwrap();
        fs::create_dir(sandbox.join("folder")).unwrap();
        let landing = Landing::open(&sandbox, None).unwrap();
        for name in ["volume/x", "volume/file", "link", "folder", "volume"] {
            assert!(landing.file(&place(name)).is_err(), "{name}");
        }
        assert!(landing.folder(&place("volume/new"), 0o755).is_err());
        assert!(landing.symlink(&place("volume/l"), "x").is_err());
        assert!(
            landing
                .hardlink(&place("mine"), &place("volume/file"))
                .is_err()
        );
        assert!(landing.hardlink(&place("mine"), &place("link")).is_err());
        assert_eq!(fs::read_dir(&outside).unwrap().count(), 1);
        assert_eq!(fs::read_to_string(outside.join("file")).unwrap(), "kept");
    }

    #[test]
    fn files_have_their_permissions_and_no_more_and_replace_files() {
        let dir = tempfile::tempdir().unwrap();
        let landing = Landing::open(dir.path(), None).unwrap();
        for text in ["first", "second"] {
            let mut file = landing.file(&place("a/b/program")).unwrap();
            file.write_all(text.as_bytes()).unwrap();
            landing.seal(&place("a/b/program"), &file, 0o6755).unwrap();
        }
        let path = dir.path().join("a/b/program");
        assert_eq!(fs::read_to_string(&path).unwrap(), "second");
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
        assert_eq!(mode(&path), 0o755);
        assert_eq!(mode(&dir.path().join("a/b")), 0o755);
        landing
            .hardlink(&place("again"), &place("a/b/program"))
            .unwrap();
        assert_eq!(
            fs::read_to_string(dir.path().join("again")).unwrap(),
            "second"
        );
    }

    #[test]
    fn links_lead_down_or_up_and_then_down_and_never_out() {
        let dir = tempfile::tempdir().unwrap();
        let landing = Landing::open(dir.path(), None).unwrap();
        for target in ["b", "../x", "../../y/z", "./b/c"] {
            check_target(&place("one/two/link"), target).unwrap();
        }
        for target in ["/etc", "../../../x", "b/../c", "", "b/..", "../a/.."] {
            assert!(
                landing.symlink(&place("one/two/link"), target).is_err(),
                "{target}"
            );
        }
        landing.symlink(&place("one/link"), "two").unwrap();
        landing.symlink(&place("one/link"), "two").unwrap();
        assert!(landing.symlink(&place("one/link"), "three").is_err());
    }

    #[test]
    fn names_that_leave_the_sandbox_or_are_the_slaves_own_are_none() {
        for name in [
            "/a",
            "../a",
            "a/../../b",
            "a/..",
            "stdout",
            "./stderr",
            ".tmp/x",
            "a\nb",
        ] {
            assert!(Place::parse(name).is_err(), "{name:?}");
        }
        assert_eq!(Place::parse("./").unwrap(), None);
        assert_eq!(Place::parse("./a/").unwrap(), Some(place("a")));
    }
}
