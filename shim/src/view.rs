//! The file tree as a task sees it: the host's, with the slave's own folders, raw devices and the
//! kernel's switches taken out; or that of an image, with what every task has put in (`rootfs`).
//!
//! Nothing here is seen outside of the task's mount namespace, and all of it goes with the task's last
//! process. A task without the privilege to mount cannot undo it.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{self, DirBuilder, File, Permissions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::libc;
use nix::mount::{MsFlags, mount};

use crate::confine::{Confinement, Part, of};
use crate::request::{Failure, Request, step};
use crate::rootfs;

/// In the sandbox: what the task sees as `/tmp`. It counts as the task's disk, and goes with it.
const TMP: &str = ".tmp";
/// For everybody, and nobody removes what is another's.
const TMP_MODE: u32 = 0o1777;
/// Links and empty files only.
const DEV_OPTIONS: &str = "mode=755,size=64k";
/// Covers a folder; nothing can be written there.
pub(crate) const COVER_OPTIONS: &str = "mode=755,size=64k";
/// Memory of the task: its own limit holds here as well.
pub(crate) const SHM_OPTIONS: &str = "mode=1777";
const SANE: MsFlags = MsFlags::MS_NOSUID.union(MsFlags::MS_NODEV);
pub(crate) const INERT: MsFlags = SANE.union(MsFlags::MS_NOEXEC);

/// Makes it, in a mount namespace that is ours alone.
pub(crate) fn arrange(request: &Request) -> Result<(), Failure> {
    let confinement = &request.confinement;
    let apart = mount(NONE, "/", NONE, MsFlags::MS_REC | MsFlags::MS_SLAVE, NONE);
    of(Part::Mount, step("keep mounts to ourselves", apart))?;
    // Before anything is covered that it may be in.
    let mut own = own_folders(request)?;
    if let Some(rootfs) = &confinement.rootfs {
        rootfs::arrange(request, rootfs, &mut own)?;
        return restrict(confinement, &own);
    }
    if confinement.has(Part::Tmp) {
        of(Part::Tmp, private_tmp(&request.sandbox))?;
    }
    if confinement.has(Part::Paths) {
        of(Part::Paths, hide(&confinement.hidden, &own))?;
    }
    if confinement.has(Part::Dev) {
        let devices = of(Part::Dev, Devices::find(&confinement.devices))?;
        of(Part::Dev, devices.mount(request))?;
    } else if confinement.has(Part::Ipc) && !own.iter().any(|own| own.path.starts_with("/dev")) {
        let made = mount_new("tmpfs", Path::new("/dev/shm"), INERT, SHM_OPTIONS);
        of(Part::Ipc, made)?;
    }
    if confinement.has(Part::Pid) {
        of(Part::Pid, mount_new("proc", Path::new("/proc"), INERT, ""))?;
    }
    if confinement.has(Part::Paths) {
        mask_all(confinement)?;
    } else if confinement.has(Part::ReadOnly) {
        let shown = own.iter().try_for_each(|own| bind(&own.link(), &own.path));
        of(Part::ReadOnly, shown)?;
    }
    restrict(confinement, &own)
}

pub(crate) const NONE: Option<&str> = None;

/// A folder that stays as it is, and a hold on it.
pub(crate) struct Own {
    pub(crate) path: PathBuf,
    open: File,
}

impl Own {
    /// A name of it that holds when it is covered.
    pub(crate) fn link(&self) -> PathBuf {
        link(&self.open)
    }
}

pub(crate) fn link(open: &File) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", open.as_raw_fd()))
}

pub(crate) fn open(path: &Path) -> io::Result<File> {
    let mut options = File::options();
    options.read(true).custom_flags(libc::O_PATH).open(path)
}

fn own_folders(request: &Request) -> Result<Vec<Own>, Failure> {
    let paths = [&request.sandbox]
        .into_iter()
        .chain(&request.confinement.shown);
    let own = paths.map(|path| {
        let name = format!("find {}", path.display());
        Ok(Own {
            path: path.clone(),
            open: step(&name, open(path))?,
        })
    });
    of(Part::Mount, own.collect())
}

/// A file system of this kind at a folder.
pub(crate) fn mount_new(
    kind: &str,
    at: &Path,
    flags: MsFlags,
    options: &str,
) -> Result<(), Failure> {
    let made = mount(Some(kind), at, Some(kind), flags, Some(options));
    step(&format!("mount {kind} at {}", at.display()), made)
}

/// The same file or folder at another place, with what is mounted below.
pub(crate) fn bind(from: &Path, to: &Path) -> Result<(), Failure> {
    let flags = MsFlags::MS_BIND | MsFlags::MS_REC;
    let bound = mount(Some(from), to, NONE, flags, NONE);
    step(&format!("show {}", to.display()), bound)
}

pub(crate) fn private_tmp(sandbox: &Path) -> Result<(), Failure> {
    let tmp = sandbox.join(TMP);
    let make = || {
        DirBuilder::new().mode(0o700).create(&tmp)?;
        // Not what the mask of new files leaves of it.
        fs::set_permissions(&tmp, Permissions::from_mode(TMP_MODE))
    };
    step(&format!("make {}", tmp.display()), make())?;
    let places = ["/tmp", "/var/tmp"].map(Path::new);
    let mut places = places.into_iter().filter(|place| place.is_dir());
    places.try_for_each(|place| bind(&tmp, place))
}

/// Covers folders, and shows again what of them is the task's.
fn hide(hidden: &[PathBuf], own: &[Own]) -> Result<(), Failure> {
    for folder in hidden.iter().filter(|folder| folder.is_dir()) {
        mount_new("tmpfs", folder, INERT, COVER_OPTIONS)?;
    }
    for own in own {
        let make = DirBuilder::new()
            .recursive(true)
            .mode(0o755)
            .create(&own.path);
        step(&format!("make {}", own.path.display()), make)?;
        bind(&own.link(), &own.path)?;
    }
    for folder in hidden.iter().filter(|folder| folder.is_dir()) {
        let flags = MsFlags::MS_REMOUNT | MsFlags::MS_BIND | MsFlags::MS_RDONLY | INERT;
        let frozen = mount(NONE, folder, NONE, flags, NONE);
        step(&format!("freeze {}", folder.display()), frozen)?;
    }
    Ok(())
}

/// Devices of the host, held before anything covers them.
pub(crate) struct Devices<'a> {
    kept: Vec<(&'a Path, File)>,
}

impl<'a> Devices<'a> {
    /// Those that there are.
    pub(crate) fn find(wanted: &'a [PathBuf]) -> Result<Self, Failure> {
        let mut kept = Vec::new();
        for path in wanted {
            match open(path) {
                Ok(open) => kept.push((path.as_path(), open)),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return step(&format!("find {}", path.display()), Err(error)),
            }
        }
        Ok(Self { kept })
    }

    /// Makes `/dev` of them.
    pub(crate) fn mount(self, request: &Request) -> Result<(), Failure> {
        make_dev(self.kept, request)
    }
}

fn make_dev(kept: Vec<(&Path, File)>, request: &Request) -> Result<(), Failure> {
    let dev = Path::new("/dev");
    // Of the host's: where syslog(3) writes to, a link to somewhere else.
    let log = fs::read_link("/dev/log");
    mount_new("tmpfs", dev, MsFlags::MS_NOSUID, DEV_OPTIONS)?;
    for (path, open) in kept {
        let is_folder = open.metadata().is_ok_and(|found| found.is_dir());
        let made = || {
            let folder = if is_folder { Some(path) } else { path.parent() };
            if let Some(folder) = folder {
                DirBuilder::new()
                    .recursive(true)
                    .mode(0o755)
                    .create(folder)?;
            }
            match is_folder {
                true => Ok(()),
                false => File::create_new(path).map(drop),
            }
        };
        step(&format!("make {}", path.display()), made())?;
        bind(&link(&open), path)?;
    }
    for folder in ["pts", "shm"] {
        let made = fs::create_dir(dev.join(folder));
        step(&format!("make /dev/{folder}"), made)?;
    }
    // The group of terminals is 5 wherever there is one; in a user namespace it is nobody's.
    let group = if request.confinement.has(Part::User) {
        ""
    } else {
        ",gid=5"
    };
    let options = format!("newinstance,ptmxmode=0666,mode=0620{group}");
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC;
    mount_new("devpts", &dev.join("pts"), flags, &options)?;
    mount_new("tmpfs", &dev.join("shm"), INERT, SHM_OPTIONS)?;
    let links = [
        ("fd", "/proc/self/fd"),
        ("stdin", "/proc/self/fd/0"),
        ("stdout", "/proc/self/fd/1"),
        ("stderr", "/proc/self/fd/2"),
        ("ptmx", "pts/ptmx"),
    ];
    for (name, target) in links {
        step(
            &format!("make /dev/{name}"),
            symlink(target, dev.join(name)),
        )?;
    }
    if let Ok(target) = log {
        step("make /dev/log", symlink(target, dev.join("log")))?;
    }
    Ok(())
}

/// What a task can neither read nor write.
pub(crate) fn mask_all(confinement: &Confinement) -> Result<(), Failure> {
    let masked = confinement.masked.iter().try_for_each(|path| mask(path));
    of(Part::Paths, masked)
}

fn mask(path: &Path) -> Result<(), Failure> {
    match fs::metadata(path) {
        Ok(found) if found.is_dir() => {
            mount_new("tmpfs", path, INERT | MsFlags::MS_RDONLY, COVER_OPTIONS)
        }
        Ok(_) => bind(Path::new("/dev/null"), path),
        // Not there, or not to be seen by us and so not by the task.
        Err(_) => Ok(()),
    }
}

/// Mount points with the flags that a change must repeat: in a user namespace none may be dropped.
struct Mounts {
    all: BTreeMap<PathBuf, MsFlags>,
}

impl Mounts {
    fn read() -> io::Result<Self> {
        Ok(Self::parse(&fs::read("/proc/self/mountinfo")?))
    }

    /// Lines that make no sense are left out. Of mounts over each other the last one is seen.
    fn parse(text: &[u8]) -> Self {
        let lines = text.split(|byte| *byte == b'\n');
        let mounts = lines.filter_map(|line| {
            let mut fields = line.split(|byte| *byte == b' ').skip(4);
            let path = mount_path(fields.next()?);
            let flags = str::from_utf8(fields.next()?).ok()?;
            let flags = flags.split(',').filter_map(flag).collect();
            Some((path, flags))
        });
        Self {
            all: mounts.collect(),
        }
    }

    /// Makes a path a mount of its own, with the flags of the one that it is in.
    fn set_apart(&mut self, path: &Path) -> Result<(), Failure> {
        if !self.all.contains_key(path) {
            let within = path.ancestors().find_map(|above| self.all.get(above));
            let flags = within.copied().unwrap_or(MsFlags::empty());
            bind(path, path)?;
            self.all.insert(path.to_owned(), flags);
        }
        Ok(())
    }
}

fn flag(word: &str) -> Option<MsFlags> {
    Some(match word {
        "ro" => MsFlags::MS_RDONLY,
        "nosuid" => MsFlags::MS_NOSUID,
        "nodev" => MsFlags::MS_NODEV,
        "noexec" => MsFlags::MS_NOEXEC,
        "noatime" => MsFlags::MS_NOATIME,
        "nodiratime" => MsFlags::MS_NODIRATIME,
        "relatime" => MsFlags::MS_RELATIME,
        _ => return None,
    })
}

/// A path as `/proc/self/mountinfo` writes it: blanks, tabs, newlines and backslashes as `\040` and so
/// on, any other byte as it is (proc(5)).
#[must_use]
pub fn mount_path(field: &[u8]) -> PathBuf {
    let mut path = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&byte, behind)) = rest.split_first() {
        let digits = behind.get(..3).filter(|_| byte == b'\\');
        let digits = digits.and_then(|digits| str::from_utf8(digits).ok());
        let escaped = digits.and_then(|digits| u8::from_str_radix(digits, 8).ok());
        path.push(escaped.unwrap_or(byte));
        rest = if escaped.is_some() {
            &behind[3..]
        } else {
            behind
        };
    }
    OsString::from_vec(path).into()
}

/// Takes rights off the mounts that are there now: to write to the kernel's switches, or anywhere; to
/// open devices elsewhere than in `/dev`.
fn restrict(confinement: &Confinement, own: &[Own]) -> Result<(), Failure> {
    let (paths, dev, read_only) = (
        confinement.has(Part::Paths),
        confinement.has(Part::Dev),
        confinement.has(Part::ReadOnly),
    );
    if !(paths || dev || read_only) {
        return Ok(());
    }
    let mut mounts = of(Part::Mount, step("list mounts", Mounts::read()))?;
    let switches = if paths {
        confinement.read_only.as_slice()
    } else {
        &[]
    };
    for path in switches.iter().filter(|path| path.exists()) {
        of(Part::Paths, mounts.set_apart(path))?;
    }
    let mut spared: Vec<&Path> = own.iter().map(|own| own.path.as_path()).collect();
    spared.extend(["/dev/shm", "/dev/pts", "/proc"].map(Path::new));
    if confinement.has(Part::Tmp) {
        spared.extend(["/tmp", "/var/tmp"].map(Path::new));
    }
    let is_below = |at: &Path, all: &[&Path]| all.iter().any(|path| at.starts_with(path));
    let switches: Vec<&Path> = switches.iter().map(PathBuf::as_path).collect();
    for (at, had) in &mounts.all {
        if dev && !at.starts_with("/dev") {
            of(Part::Dev, remount(at, *had, MsFlags::MS_NODEV))?;
        }
        let had = match dev && !at.starts_with("/dev") {
            true => *had | MsFlags::MS_NODEV,
            false => *had,
        };
        if is_below(at, &switches) {
            of(Part::Paths, remount(at, had, MsFlags::MS_RDONLY))?;
        } else if read_only && !is_below(at, &spared) {
            of(Part::ReadOnly, remount(at, had, MsFlags::MS_RDONLY))?;
        }
    }
    Ok(())
}

/// Adds a flag to a mount; nothing to do if it has it.
fn remount(at: &Path, had: MsFlags, more: MsFlags) -> Result<(), Failure> {
    if had.contains(more) {
        return Ok(());
    }
    let flags = had | more | MsFlags::MS_REMOUNT | MsFlags::MS_BIND;
    match mount(NONE, at, NONE, flags, NONE) {
        // Covered by another mount, so nobody reaches it.
        Err(Errno::ENOENT | Errno::EINVAL | Errno::ENOTDIR) => Ok(()),
        made => step(&format!("restrict {}", at.display()), made),
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;

    use super::*;

    #[test]
    fn mounts_are_read_with_their_flags_and_the_last_one_counts() {
        let text = b"22 27 0:21 / /proc rw,relatime - proc proc rw\n\
            23 27 0:22 / /sys ro,nosuid,nodev,noexec,relatime shared:7 - sysfs sysfs rw\n\
            31 23 0:28 / /sys/fs/a\\040b rw - tmpfs tmpfs rw,mode=755\n\
            32 23 0:29 / /proc rw,nosuid - proc proc rw\n\
            33 23 0:30 / /mnt/\xe9\\777\\9 rw,nosuid - tmpfs tmpfs rw\n\
            garbage\n 1 2\n";
        let mounts = Mounts::parse(text);
        assert_eq!(mounts.all.len(), 4);
        assert_eq!(mounts.all[Path::new("/proc")], MsFlags::MS_NOSUID);
        let sys = INERT | MsFlags::MS_RDONLY | MsFlags::MS_RELATIME;
        assert_eq!(mounts.all[Path::new("/sys")], sys);
        assert!(mounts.all.contains_key(Path::new("/sys/fs/a b")));
        // Names of other encodings, and what looks like an escape and is none.
        let odd = Path::new(OsStr::from_bytes(b"/mnt/\xe9\\777\\9"));
        assert_eq!(mounts.all[odd], MsFlags::MS_NOSUID);
    }
}
