//! The file tree of a task that has an image: the layers of it as overlayfs shows them, in place of the host's.
//!
//! ```text
//! hold sandbox, volumes, devices, names ─► overlay ─► pivot_root ─► /proc /sys /dev /tmp, sandbox ─► let go of the host's
//! ```
//! Nothing is made or mounted by a path of the image before it is the root: a link in it leads to a place in
//! it and to nowhere else. What is the host's is held open before, and reached by that.
//!
//! The sandbox is where it is on the host, so that every path that a task, its checks or its executor were told
//! is right in both trees. What the task changes is in [`SCRATCH`] of its sandbox, counts as its disk and goes
//! with it; the task cannot reach it there.

use std::fs::{self, DirBuilder, File, Permissions};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::unistd::{chdir, fchdir, pivot_root};

use crate::confine::{Part, Rootfs, of};
use crate::request::{Failure, Request, step};
use crate::view::{
    COVER_OPTIONS, Devices, INERT, NONE, Own, SHM_OPTIONS, bind, link, mask_all, mount_new, open,
    private_tmp,
};

/// In the sandbox: what the task changes of its tree.
const SCRATCH: &str = ".rootfs";
/// Files of the host by which names are looked up: the network is the host's, or nothing.
const NAMES: [&str; 2] = ["/etc/resolv.conf", "/etc/hosts"];

/// Makes the tree the root, with all in it that a task has. `own` is then where it is found there.
pub(crate) fn arrange(request: &Request, rootfs: &Rootfs, own: &mut [Own]) -> Result<(), Failure> {
    let confinement = &request.confinement;
    let devices = match confinement.has(Part::Dev) {
        true => Some(of(Part::Dev, Devices::find(&confinement.devices))?),
        false => None,
    };
    let host_dev = of(Part::Image, step("find /dev", open(Path::new("/dev"))))?;
    // A host without one of them has nothing to tell.
    let names = NAMES.map(Path::new);
    let names = names
        .iter()
        .filter_map(|path| Some((*path, open(path).ok()?)));
    let names: Vec<(&Path, File)> = names.collect();
    let host = of(Part::Image, enter(&request.sandbox, rootfs))?;
    of(Part::Image, furnish(request, own))?;
    if confinement.has(Part::Tmp) {
        of(Part::Image, stand(Path::new("/tmp"), 0o1777))?;
        of(Part::Tmp, private_tmp(&request.sandbox))?;
    }
    match devices {
        Some(devices) => of(Part::Dev, devices.mount(request))?,
        None => of(Part::Image, bind(&link(&host_dev), Path::new("/dev")))?,
    }
    if confinement.has(Part::Ipc) && !confinement.has(Part::Dev) {
        let made = mount_new("tmpfs", Path::new("/dev/shm"), INERT, SHM_OPTIONS);
        of(Part::Ipc, made)?;
    }
    for (path, file) in &names {
        of(Part::Image, show_file(file, path))?;
    }
    if confinement.has(Part::Paths) {
        mask_all(confinement)?;
    }
    let workdir = DirBuilder::new()
        .recursive(true)
        .mode(0o755)
        .create(&rootfs.workdir);
    step(&format!("make {}", rootfs.workdir.display()), workdir)?;
    of(Part::Image, host.leave())
}

/// The host's tree, mounted over ours and reached by nobody, as long as something of it is wanted.
struct Host {
    root: File,
}

impl Host {
    fn leave(self) -> Result<(), Failure> {
        let left = fchdir(self.root.as_fd())
            .and_then(|()| umount2(".", MntFlags::MNT_DETACH))
            .and_then(|()| chdir("/"));
        step("leave the host's tree", left)
    }
}

/// Lays the layers over each other and makes that the root.
fn enter(sandbox: &Path, rootfs: &Rootfs) -> Result<Host, Failure> {
    let scratch = sandbox.join(SCRATCH);
    let [upper, work, root] = ["upper", "work", "root"].map(|name| scratch.join(name));
    let make = || {
        // Only we look into it: what a task writes may be setuid.
        DirBuilder::new().mode(0o700).create(&scratch)?;
        for folder in [&upper, &work, &root] {
            DirBuilder::new().mode(0o755).create(folder)?;
        }
        // That of the task's `/`, whatever the mask of new files leaves of it.
        fs::set_permissions(&upper, Permissions::from_mode(0o755))
    };
    step(&format!("make {}", scratch.display()), make())?;
    // By their numbers: paths may be longer than the options of a mount, or have commas and colons.
    let hold = |path: &PathBuf| {
        let name = format!("find {}", path.display());
        step(&name, open(path))
    };
    let layers = rootfs.layers.iter().map(hold);
    let layers: Vec<File> = layers.collect::<Result<_, _>>()?;
    let (upper, work) = (hold(&upper)?, hold(&work)?);
    let text = |file: &File| link(file).display().to_string();
    let lower: Vec<String> = layers.iter().map(text).collect();
    let options = format!(
        "lowerdir={},upperdir={},workdir={}",
        lower.join(":"),
        text(&upper),
        text(&work)
    );
    // A device in an image is none here.
    let overlay = Some("overlay");
    let flags = MsFlags::MS_NODEV;
    let mounted = mount(overlay, &root, overlay, flags, Some(options.as_str()));
    step("lay the layers of the image over each other", mounted)?;
    let host = step("find /", open(Path::new("/")))?;
    let entered = chdir(&root).and_then(|()| pivot_root(".", "."));
    step("make the image the root", entered)?;
    Ok(Host { root: host })
}

/// What programs take for granted, the sandbox and the volumes.
fn furnish(request: &Request, own: &mut [Own]) -> Result<(), Failure> {
    for folder in ["/proc", "/sys", "/dev"].map(Path::new) {
        stand(folder, 0o755)?;
    }
    // First: the rest is reached through it.
    mount_new("proc", Path::new("/proc"), INERT, "")?;
    mount_new("sysfs", Path::new("/sys"), INERT | MsFlags::MS_RDONLY, "")?;
    for own in own {
        let make = DirBuilder::new()
            .recursive(true)
            .mode(0o755)
            .create(&own.path);
        let path = make.and_then(|()| fs::canonicalize(&own.path));
        let path = step(&format!("make {}", own.path.display()), path)?;
        bind(&own.link(), &path)?;
        own.path = path;
    }
    let flags = INERT | MsFlags::MS_RDONLY;
    mount_new(
        "tmpfs",
        &request.sandbox.join(SCRATCH),
        flags,
        COVER_OPTIONS,
    )
}

/// A folder, and no link that leads to another one.
fn stand(path: &Path, mode: u32) -> Result<(), Failure> {
    let look = || match fs::symlink_metadata(path) {
        Ok(found) if found.is_dir() => Ok(()),
        Ok(_) => Err(io::Error::from(Errno::ENOTDIR)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            DirBuilder::new().mode(0o755).create(path)?;
            fs::set_permissions(path, Permissions::from_mode(mode))
        }
        Err(error) => Err(error),
    };
    step(&format!("find {} in the image", path.display()), look())
}

/// Puts a file of the host in place of what the image has there, to be read only.
fn show_file(file: &File, path: &Path) -> Result<(), Failure> {
    let make = || {
        if let Some(folder) = path.parent() {
            DirBuilder::new()
                .recursive(true)
                .mode(0o755)
                .create(folder)?;
        }
        match fs::symlink_metadata(path) {
            Ok(found) if found.is_file() => return Ok(()),
            // Where it leads to is most often made by a service that does not run here.
            Ok(_) => fs::remove_file(path)?,
            Err(_) => {}
        }
        File::create_new(path).map(drop)
    };
    step(&format!("make {} in the image", path.display()), make())?;
    bind(&link(file), path)?;
    let flags = MsFlags::MS_REMOUNT | MsFlags::MS_BIND | MsFlags::MS_RDONLY | INERT;
    let frozen = mount(NONE, path, NONE, flags, NONE);
    step(&format!("freeze {}", path.display()), frozen)
}
