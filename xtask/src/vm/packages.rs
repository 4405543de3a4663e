//! Where the machine comes from: a kernel of Debian, and qemu if this host has none. Packages are
//! fetched by apt and unpacked below the target folder; nothing is installed.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::setup::is_root;

const EMULATOR: &str = "qemu-system-x86_64";
const EMULATOR_PACKAGE: &str = "qemu-system-x86";
/// Debian's own, as it comes, without the drivers for hardware: a third of the other one's bytes.
const KERNEL_PACKAGE: &str = "linux-image-cloud-amd64";

/// A kernel and what runs it.
#[derive(Debug)]
pub(super) struct Packages {
    pub(super) kernel: PathBuf,
    root: PathBuf,
    has_own: bool,
}

impl Packages {
    /// Fetches what is missing in `folder`.
    ///
    /// # Errors
    /// Why it cannot be had here.
    pub(super) fn fetch(folder: &Path) -> Result<Self, String> {
        if !cfg!(target_arch = "x86_64") {
            return Err("the machine is one of x86-64".to_owned());
        }
        let root = folder.join("root");
        let is_installed = Command::new(EMULATOR)
            .arg("--version")
            .stdout(Stdio::null())
            .status()
            .is_ok_and(|status| status.success());
        let own = root.join("usr/bin").join(EMULATOR);
        if kernel_in(&root).is_none() {
            println!("vm: fetching {KERNEL_PACKAGE}");
            let depends = said("apt-cache", &["depends", KERNEL_PACKAGE])
                .or_else(|why| update().map_err(|_| why))
                .and_then(|_| said("apt-cache", &["depends", KERNEL_PACKAGE]))?;
            let name = depends
                .split_whitespace()
                .find(|word| word.starts_with("linux-image-") && *word != KERNEL_PACKAGE)
                .ok_or_else(|| format!("apt knows no kernel by {KERNEL_PACKAGE}"))?;
            unpack(folder, &root, |command| command.args(["download", name]))?;
        }
        if !is_installed && !own.is_file() {
            println!("vm: fetching {EMULATOR_PACKAGE}");
            // Into a folder of ours, so the lock of the installed packages is not needed, nor root.
            let archives = format!("Dir::Cache::archives={}", folder.join("packages").display());
            unpack(folder, &root, |command| {
                command
                    .args(["install", "--yes", "--download-only"])
                    .args(["--no-install-recommends", "-o", "Debug::NoLocking=1"])
                    .args(["-o", &archives, EMULATOR_PACKAGE])
            })?;
        }
        Ok(Self {
            kernel: kernel_in(&root).ok_or("the package of the kernel has none in /boot")?,
            has_own: !is_installed,
            root,
        })
    }

    /// The emulator, with what it needs to find its parts.
    pub(super) fn emulator(&self) -> Command {
        if !self.has_own {
            return Command::new(EMULATOR);
        }
        let (root, libraries) = (&self.root, self.root.join("usr/lib/x86_64-linux-gnu"));
        let mut path = OsString::from(&libraries);
        path.push(":");
        path.push(root.join("lib/x86_64-linux-gnu"));
        let mut command = Command::new(root.join("usr/bin").join(EMULATOR));
        command
            .env("LD_LIBRARY_PATH", path)
            .env("QEMU_MODULE_DIR", libraries.join("qemu"));
        for folder in ["usr/share/qemu", "usr/share/seabios"] {
            command.arg("-L").arg(root.join(folder));
        }
        command
    }
}

fn kernel_in(root: &Path) -> Option<PathBuf> {
    let entries = fs::read_dir(root.join("boot")).ok()?.flatten();
    let mut kernels: Vec<_> = entries
        .filter(|entry| entry.file_name().to_string_lossy().starts_with("vmlinuz-"))
        .map(|entry| entry.path())
        .collect();
    kernels.sort();
    kernels.pop()
}

/// A fresh machine has no lists of packages, and only root may fetch them.
fn update() -> Result<String, String> {
    match is_root() {
        true => said("apt-get", &["update"]),
        false => Err("not root".to_owned()),
    }
}

/// Lets apt-get fetch packages, and unpacks them.
fn unpack(
    folder: &Path,
    root: &Path,
    arguments: impl Fn(&mut Command) -> &mut Command,
) -> Result<(), String> {
    let packages = folder.join("packages");
    // Left from an attempt that was broken off.
    let _ = fs::remove_dir_all(&packages);
    let made = fs::create_dir_all(packages.join("partial"))
        .and_then(|()| fs::create_dir_all(root))
        .map_err(|error| format!("cannot make {}: {error}", packages.display()));
    made?;
    let fetch = || {
        let mut command = Command::new("apt-get");
        arguments(&mut command).current_dir(&packages);
        output_of(command)
    };
    fetch().or_else(|why| {
        // Also lists that name what is not there any more.
        update().map_err(|_| why)?;
        fetch()
    })?;
    let entries = fs::read_dir(&packages).into_iter().flatten().flatten();
    for package in entries
        .map(|entry| entry.path())
        .filter(|path| path.is_file())
    {
        let mut command = Command::new("dpkg-deb");
        command.arg("-x").arg(&package).arg(root);
        output_of(command)?;
    }
    fs::remove_dir_all(&packages).map_err(|error| error.to_string())
}

fn said(program: &str, arguments: &[&str]) -> Result<String, String> {
    let mut command = Command::new(program);
    command.args(arguments);
    output_of(command)
}

/// What it prints; else its complaint.
fn output_of(mut command: Command) -> Result<String, String> {
    let name = command.get_program().display().to_string();
    let output = command
        .env("DEBIAN_FRONTEND", "noninteractive")
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("cannot run {name}: {error}"))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let complaint = String::from_utf8_lossy(&output.stderr);
    let last = complaint.lines().last().unwrap_or("it says nothing");
    Err(format!("{name}: {last}"))
}
