//! Reading the sandboxes of tasks: what is in a folder, a part of a file.
//!
//! A sandbox belongs to its task, which may put links and special files there while we look. So a path is
//! opened by the kernel below the sandbox or not at all (a link may lead anywhere below it, and nowhere
//! else: not into a volume, either), without effect (`O_PATH`); only then, if it is a regular file or a
//! folder, is the same thing opened for reading. Blocks.
//!
//! Invariants: S24 who reads sandboxes reads nothing outside of them, and opens nothing special.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Component, Path, PathBuf};

use meros_proto::ids::{FrameworkId, TaskId};
use meros_slave_core::{ContainerId, TaskKey};
use rustix::fs::{AtFlags, CWD, Dir, Mode, OFlags, ResolveFlags, Stat, open, openat2, statat};
use rustix::io::Errno;
use serde::Serialize;

use crate::sandbox::{Sandboxes, parse_container};

/// Rows of one folder; the rest is not shown.
pub(crate) const ROWS_MAX: usize = 10_000;
/// The longest path that is asked for, in bytes.
const PATH_BYTES_MAX: usize = 4_096;

/// Why there is nothing to see.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FilesError {
    /// No sandbox, no such file, or none any more.
    #[error("there is no such file, or its sandbox is no longer kept")]
    Unknown,
    /// It leads out of the sandbox.
    #[error(
        "the path leads out of the sandbox, or its links do: a volume is read by the tasks that have it"
    )]
    Outside,
    /// It is something else.
    #[error("it is {is}, and not {wanted}")]
    Kind {
        is: &'static str,
        wanted: &'static str,
    },
    /// The path cannot be one.
    #[error("a path has at most 4096 bytes and no NUL")]
    Path,
    /// The disk.
    #[error("it cannot be read: {0}")]
    Io(#[from] io::Error),
}

/// Something in a folder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct FileRow {
    /// Its name in the folder. What is not UTF-8 is shown as `�`.
    pub(crate) name: String,
    /// `file`, `folder`, `link` or `special`.
    pub(crate) kind: &'static str,
    /// As `-rw-r--r--`.
    pub(crate) mode: String,
    /// The same, as the kernel has it.
    #[serde(skip)]
    pub(crate) mode_bits: u32,
    /// Bytes.
    pub(crate) size: u64,
    /// When it was changed, in seconds since 1970.
    pub(crate) modified: i64,
    /// How many names it has.
    pub(crate) links: u64,
    /// Whose it is, as a number.
    pub(crate) uid: u32,
    /// The group, as a number.
    pub(crate) gid: u32,
}

/// What a folder has.
#[derive(Debug, Default)]
pub(crate) struct Listing {
    /// By name.
    pub(crate) rows: Vec<FileRow>,
    /// There is more than is shown.
    pub(crate) has_more: bool,
}

/// A place in a sandbox that is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Spot {
    /// Whose sandbox.
    pub(crate) task: TaskKey,
    /// Where that is on this machine.
    pub(crate) sandbox: PathBuf,
    /// Below it.
    pub(crate) path: PathBuf,
}

/// All sandboxes, for readers.
#[derive(Debug, Clone)]
pub(crate) struct Files {
    sandboxes: Sandboxes,
}

impl Files {
    pub(crate) fn new(sandboxes: Sandboxes) -> Self {
        Self { sandboxes }
    }

    /// Where the sandbox of a container is.
    pub(crate) fn sandbox(&self, task: &TaskKey, container: ContainerId) -> PathBuf {
        self.sandboxes.path(task, container)
    }

    /// A path in a task's newest sandbox.
    pub(crate) fn spot(&self, task: TaskKey, path: &str) -> Result<Spot, FilesError> {
        let (sandbox, _) = self.sandboxes.latest(&task).ok_or(FilesError::Unknown)?;
        let path = below(path)?;
        Ok(Spot {
            task,
            sandbox,
            path,
        })
    }

    /// A path as clients of Mesos have it: the sandbox's own on this machine, or
    /// `/frameworks/F/executors/E/runs/R/…`, with or without `/slaves/S` in front, where `R` is a
    /// container or `latest`.
    pub(crate) fn virtual_spot(&self, text: &str) -> Result<Spot, FilesError> {
        if text.len() > PATH_BYTES_MAX || text.contains('\0') {
            return Err(FilesError::Path);
        }
        let path = Path::new(text);
        let parts: Option<Vec<&str>> = match path.strip_prefix(self.sandboxes.root()) {
            Ok(rest) => rest.iter().map(|part| part.to_str()).collect(),
            Err(_) => return self.spot_by_name(text),
        };
        let parts = parts.ok_or(FilesError::Unknown)?;
        let [framework, task, run, rest @ ..] = parts.as_slice() else {
            return Err(FilesError::Unknown);
        };
        self.spot_of(framework, task, run, rest)
    }

    fn spot_by_name(&self, text: &str) -> Result<Spot, FilesError> {
        let parts: Vec<&str> = text.split('/').filter(|part| !part.is_empty()).collect();
        let parts = match parts.as_slice() {
            ["slaves", _, rest @ ..] => rest,
            all => all,
        };
        match parts {
            [
                "frameworks" | "framework",
                framework,
                "executors" | "executor",
                task,
                "runs",
                run,
                rest @ ..,
            ] => self.spot_of(framework, task, run, rest),
            _ => Err(FilesError::Unknown),
        }
    }

    fn spot_of(
        &self,
        framework: &str,
        task: &str,
        run: &str,
        rest: &[&str],
    ) -> Result<Spot, FilesError> {
        // As ours are, or as those of Mesos: the cluster's, a dash and the number.
        let digits = framework.rsplit_once('-').map(|(_, digits)| digits);
        let number = digits
            .and_then(|digits| digits.parse().ok())
            .map(FrameworkId);
        let framework = framework.parse().ok().or(number);
        let framework = framework.ok_or(FilesError::Unknown)?;
        let task = TaskId::new(task).map_err(|_| FilesError::Unknown)?;
        let spot = self.spot((framework, task), &rest.join("/"))?;
        if run == "latest" {
            return Ok(spot);
        }
        let container = parse_container(run).ok_or(FilesError::Unknown)?;
        Ok(Spot {
            sandbox: self.sandboxes.path(&spot.task, container),
            ..spot
        })
    }

    /// Sandboxes that are there, at most so many, and whose they are.
    pub(crate) fn kept(&self, most: usize) -> Vec<(TaskKey, PathBuf)> {
        let all = self.sandboxes.paths().into_iter().take(most);
        let of_tasks = all.filter_map(|path| {
            let rest = path.strip_prefix(self.sandboxes.root()).ok()?;
            let parts: Option<Vec<&str>> = rest.iter().map(|part| part.to_str()).collect();
            let [framework, task, _] = parts?[..] else {
                return None;
            };
            let task = (framework.parse().ok()?, TaskId::new(task).ok()?);
            Some((task, path))
        });
        of_tasks.collect()
    }

    /// The same: how clients of Mesos call them, and where they are.
    pub(crate) fn named(&self, most: usize) -> Vec<(String, PathBuf)> {
        let all = self
            .kept(most)
            .into_iter()
            .map(|((framework, task), path)| {
                let run = path.file_name().unwrap_or_default().to_string_lossy();
                let name = format!("/frameworks/{framework}/executors/{task}/runs/{run}");
                (name, path)
            });
        all.collect()
    }
}

impl Spot {
    /// What is in the folder.
    pub(crate) fn list(&self) -> Result<Listing, FilesError> {
        let folder = self.open("a folder", |kind| kind == libc_kind::FOLDER)?;
        let mut listing = Listing::default();
        for entry in Dir::read_from(&folder).map_err(io::Error::from)? {
            let entry = entry.map_err(io::Error::from)?;
            if matches!(entry.file_name().to_bytes(), b"." | b"..") {
                continue;
            }
            if listing.rows.len() == ROWS_MAX {
                listing.has_more = true;
                break;
            }
            let name = entry.file_name();
            // It may have gone since.
            let Ok(found) = statat(&folder, name, AtFlags::SYMLINK_NOFOLLOW) else {
                continue;
            };
            listing.rows.push(FileRow {
                name: name.to_string_lossy().into_owned(),
                kind: kind_of(found.st_mode),
                mode: mode_text(found.st_mode),
                mode_bits: found.st_mode,
                size: u64::try_from(found.st_size).unwrap_or(0),
                modified: found.st_mtime,
                links: links(&found),
                uid: found.st_uid,
                gid: found.st_gid,
            });
        }
        listing.rows.sort_by(|one, other| one.name.cmp(&other.name));
        Ok(listing)
    }

    /// The file, open for reading.
    pub(crate) fn file(&self) -> Result<File, FilesError> {
        let file = self.open("a regular file", |kind| kind == libc_kind::REGULAR)?;
        Ok(File::from(file))
    }

    /// Its name without folders.
    pub(crate) fn name(&self) -> String {
        let name = self.path.file_name().unwrap_or_default();
        name.to_string_lossy().into_owned()
    }

    fn open(
        &self,
        wanted: &'static str,
        fits: impl Fn(u32) -> bool,
    ) -> Result<OwnedFd, FilesError> {
        let folder = OFlags::DIRECTORY | OFlags::PATH | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let root = open(&self.sandbox, folder, Mode::empty()).map_err(explained)?;
        let path = match self.path.as_os_str().is_empty() {
            true => Path::new("."),
            false => &self.path,
        };
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
        let found = openat2(&root, path, flags, Mode::empty(), resolve).map_err(explained)?;
        let mode = rustix::fs::fstat(&found).map_err(explained)?.st_mode;
        if !fits(mode & libc_kind::ALL) {
            let is = match kind_of(mode) {
                "folder" => "a folder",
                "file" => "a file",
                _ => "a pipe, a socket or a device",
            };
            return Err(FilesError::Kind { is, wanted });
        }
        // The same thing, whatever stands at its name by now.
        let same = format!("/proc/self/fd/{}", found.as_raw_fd());
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
        rustix::fs::openat(CWD, same, flags, Mode::empty()).map_err(explained)
    }
}

/// A path below a sandbox, as a client writes it.
fn below(text: &str) -> Result<PathBuf, FilesError> {
    if text.len() > PATH_BYTES_MAX || text.contains('\0') {
        return Err(FilesError::Path);
    }
    let mut path = PathBuf::new();
    for part in Path::new(text).components() {
        match part {
            Component::Normal(part) => path.push(part),
            // `/a` means what is called `a` in the sandbox.
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
            Component::ParentDir => return Err(FilesError::Outside),
        }
    }
    Ok(path)
}

fn explained(error: Errno) -> FilesError {
    match error {
        Errno::NOENT | Errno::NOTDIR | Errno::NAMETOOLONG => FilesError::Unknown,
        Errno::XDEV | Errno::LOOP => FilesError::Outside,
        other => FilesError::Io(other.into()),
    }
}

/// The type of a file, as its mode has it.
mod libc_kind {
    pub(super) const ALL: u32 = 0o170_000;
    pub(super) const FOLDER: u32 = 0o040_000;
    pub(super) const REGULAR: u32 = 0o100_000;
    pub(super) const LINK: u32 = 0o120_000;
    pub(super) const PIPE: u32 = 0o010_000;
    pub(super) const SOCKET: u32 = 0o140_000;
    pub(super) const BLOCK: u32 = 0o060_000;
}

fn kind_of(mode: u32) -> &'static str {
    match mode & libc_kind::ALL {
        libc_kind::REGULAR => "file",
        libc_kind::FOLDER => "folder",
        libc_kind::LINK => "link",
        _ => "special",
    }
}

#[allow(
    clippy::useless_conversion,
    reason = "the type of this field depends on the processor"
)]
fn links(found: &Stat) -> u64 {
    found.st_nlink.into()
}

/// As `ls -l` has it.
fn mode_text(mode: u32) -> String {
    let kind = match mode & libc_kind::ALL {
        libc_kind::REGULAR => '-',
        libc_kind::FOLDER => 'd',
        libc_kind::LINK => 'l',
        libc_kind::PIPE => 'p',
        libc_kind::SOCKET => 's',
        libc_kind::BLOCK => 'b',
        _ => 'c',
    };
    let bits = (0..9).rev().zip("rwxrwxrwx".chars());
    let bits = bits.map(|(bit, letter)| if mode >> bit & 1 == 1 { letter } else { '-' });
    std::iter::once(kind).chain(bits).collect()
}

/// Up to so many bytes from there, for which there is room in memory; fewer at the end.
pub(crate) fn read_at(file: &File, offset: u64, length: u64) -> io::Result<Vec<u8>> {
    let left = file.metadata()?.size().saturating_sub(offset);
    let mut bytes = vec![0; usize::try_from(left.min(length)).unwrap_or(0)];
    let mut filled = 0;
    while filled < bytes.len() {
        match file.read_at(&mut bytes[filled..], offset + filled as u64) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    bytes.truncate(filled);
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;
    use std::os::unix::net::UnixListener;

    use super::*;

    fn world() -> (tempfile::TempDir, Files, PathBuf, TaskKey) {
        let dir = tempfile::tempdir().unwrap();
        let sandboxes = Sandboxes::below(dir.path().join("sandboxes"));
        let task = (FrameworkId(3), TaskId::new("web.1").unwrap());
        let container = ContainerId {
            incarnation: 1,
            number: 2,
        };
        let sandbox = sandboxes.create(&task, container).unwrap();
        (dir, Files::new(sandboxes), sandbox, task)
    }

    #[test]
    fn a_folder_is_listed_and_a_file_is_read_also_by_links_that_stay_inside() {
        let (_dir, files, sandbox, task) = world();
        fs::create_dir(sandbox.join("logs")).unwrap();
        fs::write(sandbox.join("logs/a"), "hello").unwrap();
        symlink("logs", sandbox.join("current")).unwrap();
        let listing = files.spot(task.clone(), "/").unwrap().list().unwrap();
        let rows: Vec<_> = listing
            .rows
            .iter()
            .map(|row| (row.name.as_str(), row.kind))
            .collect();
        assert_eq!(rows, [("current", "link"), ("logs", "folder")]);
        assert_eq!(listing.rows[1].mode, "drwxr-xr-x");
        let file = files.spot(task, "current/a").unwrap().file().unwrap();
        assert_eq!(read_at(&file, 1, 3).unwrap(), b"ell");
        assert_eq!(read_at(&file, 9, 3).unwrap(), b"");
    }

    #[test]
    fn nothing_outside_of_a_sandbox_is_read_and_nothing_special() {
        let (dir, files, sandbox, task) = world();
        fs::write(dir.path().join("secret"), "x").unwrap();
        symlink(dir.path().join("secret"), sandbox.join("absolute")).unwrap();
        symlink("../../../../secret", sandbox.join("relative")).unwrap();
        symlink(dir.path(), sandbox.join("folder")).unwrap();
        let _socket = UnixListener::bind(sandbox.join("socket")).unwrap();
        nix::unistd::mkfifo(&sandbox.join("pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        for path in [
            "absolute",
            "relative",
            "folder/secret",
            "../1-2/x",
            "a/../../x",
        ] {
            let read = files.spot(task.clone(), path).and_then(|spot| spot.file());
            assert!(matches!(read, Err(FilesError::Outside)), "{path}: {read:?}");
        }
        for path in ["socket", "pipe", "."] {
            let read = files.spot(task.clone(), path).and_then(|spot| spot.file());
            assert!(
                matches!(read, Err(FilesError::Kind { .. })),
                "{path}: {read:?}"
            );
        }
        let list = files
            .spot(task.clone(), "pipe")
            .and_then(|spot| spot.list());
        assert!(matches!(list, Err(FilesError::Kind { .. })));
        let missing = files.spot(task, "missing").and_then(|spot| spot.file());
        assert!(matches!(missing, Err(FilesError::Unknown)));
    }

    #[test]
    fn clients_of_mesos_find_a_sandbox_by_its_path_and_by_its_name() {
        let (_dir, files, sandbox, task) = world();
        let own = format!("{}/a/b", sandbox.display());
        for text in [
            own.as_str(),
            "/frameworks/F3/executors/web.1/runs/latest/a/b",
            "/frameworks/0001-0003/executors/web.1/runs/1-2/a/b",
            "/slaves/S1/frameworks/F3/executors/web.1/runs/1-2/a/b/",
        ] {
            let spot = files.virtual_spot(text).expect(text);
            let found = (&spot.task, &spot.sandbox, spot.path.as_path());
            assert_eq!(found, (&task, &sandbox, Path::new("a/b")), "{text}");
        }
        for text in [
            "",
            "/",
            "/etc/passwd",
            "/frameworks/F3",
            "/slave/log",
            "/frameworks/F4/executors/x/runs/latest",
        ] {
            assert!(files.virtual_spot(text).is_err(), "{text}");
        }
        let outside = "/frameworks/F3/executors/web.1/runs/latest/../../x";
        assert!(matches!(
            files.virtual_spot(outside),
            Err(FilesError::Outside)
        ));
        let all = files.named(10);
        assert_eq!(all[0].0, "/frameworks/F3/executors/web.1/runs/1-2");
        assert_eq!(all[0].1, sandbox);
    }
}
