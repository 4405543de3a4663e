//! `cargo xtask vm`: the tests of isolation on a stock kernel of Debian with the control groups of the other
//! kind than this host's. A virtual machine without a disk, run by qemu in software, so that it needs
//! neither root nor a processor that helps; it holds the test program and the few programs of this host that
//! the tests call. The kernel and, if need be, qemu come from apt and stay below the target folder.

mod archive;
mod packages;

use std::env;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use archive::Archive;
use packages::Packages;

use crate::step;

/// From the first instruction of the kernel to the end: many times what it takes.
const TIMEOUT: Duration = Duration::from_secs(300);
/// More than the tests take on two cores of software; the tests of memory have 256 MiB at most.
const MEBIBYTES: &str = "1536";
/// Lines that it has said and that are not shown yet; then it waits.
const LINES_MAX: usize = 64;
/// What the machine says last.
const VERDICT: &str = "machine: the tests ended with ";
const INIT: &[u8] = include_bytes!("init.sh");
/// Users, of whom the tests know two.
const USERS: &[u8] = b"root:x:0:0:root:/:/bin/sh\ntests:x:1000:1000::/tmp:/bin/sh\n\
    nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n";
const GROUPS: &[u8] = b"root:x:0:\ntests:x:1000:\nnogroup:x:65534:\n";

/// What the tests call, and the first process of the machine.
const PROGRAMS: &[&str] = &[
    "cat",
    "chmod",
    "chown",
    "cp",
    "cut",
    "date",
    "dd",
    "echo",
    "env",
    "find",
    "grep",
    "head",
    "id",
    "ln",
    "ls",
    "mkdir",
    "mknod",
    "mount",
    "mv",
    "printf",
    "readlink",
    "rm",
    "seq",
    "setpriv",
    "setsid",
    "sleep",
    "sort",
    "stat",
    "switch_root",
    "tail",
    "taskset",
    "tee",
    "touch",
    "tr",
    "true",
    "umount",
    "uname",
    "unshare",
    "wc",
    "yes",
];

/// Whose control groups, and which.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Root, one hierarchy for all controllers.
    V2,
    /// Somebody else, in a group of such a hierarchy that was given to them.
    V2User,
    /// Root, one hierarchy for each controller.
    V1,
    /// Root, both beside each other.
    Hybrid,
    /// Somebody else, without any control groups.
    User,
}

impl Kind {
    const ALL: [(&str, Self); 5] = [
        ("v2", Self::V2),
        ("v2-user", Self::V2User),
        ("v1", Self::V1),
        ("hybrid", Self::Hybrid),
        ("user", Self::User),
    ];

    /// The one that a user means.
    pub(crate) fn named(name: &str) -> Option<Self> {
        let mut all = Self::ALL.into_iter();
        all.find_map(|(known, kind)| (known == name).then_some(kind))
    }

    fn name(self) -> &'static str {
        let mut all = Self::ALL.into_iter();
        all.find_map(|(name, kind)| (kind == self).then_some(name))
            .expect("all of them are in the list")
    }
}

/// How it went.
#[derive(Debug)]
pub(crate) enum Outcome {
    Passed,
    /// With the reason.
    Failed(String),
    /// With what this machine lacks.
    Skipped(String),
}

/// Runs the tests on a machine of each kind, one after the other; of the kind `v2` if none is named.
pub(crate) fn run(kinds: &[Kind]) -> Outcome {
    let folder = target().join("vm");
    let packages = match Packages::fetch(&folder) {
        Ok(packages) => packages,
        Err(why) => return Outcome::Skipped(why),
    };
    let made = test_program().and_then(|program| make_archive(&folder, &program));
    let archive = match made {
        Ok(archive) => archive,
        Err(why) => return Outcome::Failed(why),
    };
    let kinds = if kinds.is_empty() { &[Kind::V2] } else { kinds };
    for kind in kinds {
        println!("vm: {}", kind.name());
        let began = Instant::now();
        if let Err(why) = Machine::boot(&packages, &archive, *kind).and_then(Machine::verdict) {
            return Outcome::Failed(format!("{}: {why}", kind.name()));
        }
        println!(
            "vm: {} passed in {} s",
            kind.name(),
            began.elapsed().as_secs()
        );
    }
    Outcome::Passed
}

/// Where cargo builds.
fn target() -> PathBuf {
    let own = env::var_os("CARGO_TARGET_DIR").map(PathBuf::from);
    step::root().join(own.unwrap_or_else(|| "target".into()))
}

/// Built as the step `tests` builds it, so most likely built already.
fn test_program() -> Result<PathBuf, String> {
    let output = step::cargo()
        .args(["test", "--locked", "--workspace", "--test", "isolation"])
        .args(["--no-run", "--message-format=json-render-diagnostics"])
        .current_dir(step::root())
        .stderr(Stdio::inherit())
        .output();
    let output = output.map_err(|error| format!("cannot run cargo: {error}"))?;
    if !output.status.success() {
        return Err("the tests of isolation cannot be built".to_owned());
    }
    let messages = String::from_utf8_lossy(&output.stdout);
    executable(&messages).ok_or_else(|| "cargo names no test program".to_owned())
}

/// The program that cargo's messages name.
fn executable(messages: &str) -> Option<PathBuf> {
    let (_, rest) = messages
        .lines()
        .filter(|line| line.contains("\"name\":\"isolation\""))
        .find_map(|line| line.split_once("\"executable\":\""))?;
    rest.split('"').next().map(PathBuf::from)
}

fn make_archive(folder: &Path, tests: &Path) -> Result<PathBuf, String> {
    let says = |error: std::io::Error| format!("cannot pack the machine's files: {error}");
    // What a debugger would read is most of it.
    let stripped = folder.join("isolation");
    let strip = Command::new("strip")
        .arg("-o")
        .arg(&stripped)
        .arg(tests)
        .output();
    let is_stripped = strip.is_ok_and(|output| output.status.success());
    let tests = if is_stripped { &stripped } else { tests };
    let mut archive = Archive::default();
    // By the name that scripts know, which may lead through other links than the one in the search path.
    archive.program(Path::new("/bin/sh")).map_err(says)?;
    for program in PROGRAMS {
        let path = find(program).ok_or_else(|| format!("this machine has no program {program}"))?;
        archive.program(&path).map_err(says)?;
    }
    archive.program(tests).map_err(says)?;
    let tests = fs::read(tests).map_err(says)?;
    archive.file(Path::new("/tests/isolation"), 0o755, &tests);
    archive.file(Path::new("/init"), 0o755, INIT);
    archive.file(Path::new("/etc/passwd"), 0o644, USERS);
    archive.file(Path::new("/etc/group"), 0o644, GROUPS);
    archive.file(Path::new("/etc/hostname"), 0o644, b"machine\n");
    for path in ["/mnt", "/run", "/tmp", "/var/lib", "/var/tmp"] {
        archive.folder(Path::new(path));
    }
    let path = folder.join("files.cpio");
    fs::write(&path, archive.finish()).map_err(says)?;
    Ok(path)
}

/// Where this host has a program, also one for administrators.
fn find(program: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let folders = env::split_paths(&path).chain(["/usr/sbin", "/sbin"].map(PathBuf::from));
    folders
        .map(|folder| folder.join(program))
        .find(|path| path.is_file())
}

/// A machine at work; switched off when dropped.
struct Machine {
    emulator: Child,
    lines: Receiver<String>,
}

impl Drop for Machine {
    fn drop(&mut self) {
        // An error means that it has ended already.
        let _ = self.emulator.kill();
        let _ = self.emulator.wait();
    }
}

impl Machine {
    fn boot(packages: &Packages, archive: &Path, kind: Kind) -> Result<Self, String> {
        let words = format!("console=ttyS0 quiet panic=-1 kind={}", kind.name());
        let mut emulator = packages
            .emulator()
            .args([
                "-machine",
                "q35",
                "-accel",
                "tcg,thread=multi",
                "-cpu",
                "max",
            ])
            .args(["-smp", "2", "-m", MEBIBYTES])
            .args(["-nodefaults", "-no-user-config", "-no-reboot"])
            .args(["-display", "none", "-serial", "stdio"])
            .arg("-kernel")
            .arg(&packages.kernel)
            .arg("-initrd")
            .arg(archive)
            .arg("-append")
            .arg(words)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| format!("cannot run qemu: {error}"))?;
        let output = BufReader::new(emulator.stdout.take().expect("piped above"));
        let (sender, lines) = mpsc::sync_channel(LINES_MAX);
        thread::spawn(move || {
            for line in output.split(b'\n').map_while(Result::ok) {
                let line = String::from_utf8_lossy(&line).trim_end().to_owned();
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        Ok(Self { emulator, lines })
    }

    /// Shows what it says until it says how the tests ended.
    fn verdict(self) -> Result<(), String> {
        let deadline = Instant::now() + TIMEOUT;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let line = self.lines.recv_timeout(left).map_err(|error| match error {
                RecvTimeoutError::Timeout => format!("not done in {} s", TIMEOUT.as_secs()),
                RecvTimeoutError::Disconnected => "the machine stopped before the tests did".into(),
            })?;
            match line.strip_prefix(VERDICT) {
                Some("0") => return Ok(()),
                Some(code) => return Err(format!("the tests ended with {code}")),
                None => println!("{line}"),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_test_program_is_the_one_that_cargo_names() {
        let messages = "{\"target\":{\"name\":\"other\"},\"executable\":\"/t/other-1\"}\n\
            {\"target\":{\"name\":\"isolation\"},\"executable\":\"/t/isolation-2\",\"fresh\":true}\n";
        assert_eq!(executable(messages), Some(PathBuf::from("/t/isolation-2")));
        assert_eq!(executable("{\"reason\":\"build-finished\"}"), None);
    }

    #[test]
    fn every_kind_is_known_by_its_name_here_and_in_the_machine() {
        let init = str::from_utf8(INIT).unwrap();
        for (name, kind) in Kind::ALL {
            assert_eq!((Kind::named(name), kind.name()), (Some(kind), name));
            assert!(init.contains(&format!("\n{name})\n")), "{name}");
        }
        assert!(init.contains(VERDICT));
    }
}
