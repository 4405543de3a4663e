//! What keeps a task apart beside control groups: data that the slave prepares, and the order in which a
//! copy of the shim puts it in force. Invariant S20: all that the request names, or no task.
//!
//! The order matters (docs/decisions/0016-isolation.md): namespaces before mounts, mounts while there is
//! the privilege for them, the bounding set before the user changes, and the system call filter last, for
//! it forbids most of what comes before it.

use std::collections::BTreeSet;
use std::fmt;
use std::fs::{self, File};
use std::io;
use std::path::PathBuf;

use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::unistd::{Pid, getegid, geteuid};
use serde::{Deserialize, Serialize};

use crate::network;
use crate::request::{Failure, Request, step};
use crate::rights;
use crate::view;

/// One thing that can be on or off by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Part {
    /// A user namespace in which the task's user is the only one: what lets a slave without root have
    /// the other namespaces.
    User,
    /// A process namespace: the task sees and signals its own processes only, and all of them end with
    /// the first one. Needs [`Mount`](Self::Mount), for a `/proc` of its own.
    Pid,
    /// A mount namespace: nothing that the task mounts is seen by others. What the parts below it need.
    Mount,
    /// Own System V and POSIX message queues, semaphores and shared memory.
    Ipc,
    /// Own host name.
    Uts,
    /// No network but an own loopback device.
    Net,
    /// `/tmp` and `/var/tmp` are a folder of the sandbox.
    Tmp,
    /// `/dev` has the harmless devices only.
    Dev,
    /// What the slave keeps, and the kernel's switches in `/proc` and `/sys`, cannot be read or written.
    Paths,
    /// Everything is read-only but the sandbox, volumes, `/dev/shm` and a `/tmp` of its own.
    ReadOnly,
    /// Capabilities beyond a list are gone for good.
    Capabilities,
    /// System calls beyond a list fail.
    Seccomp,
    /// By Landlock: writes outside of the sandbox, volumes, `/tmp`, `/var/tmp` and `/dev` fail.
    Files,
    /// By Landlock: processes outside of the task cannot be signalled or traced.
    Signals,
    /// A task that asks for an image has its file tree instead of the host's.
    Image,
}

impl Part {
    /// All of them.
    pub const ALL: [Self; 15] = [
        Self::User,
        Self::Pid,
        Self::Mount,
        Self::Ipc,
        Self::Uts,
        Self::Net,
        Self::Tmp,
        Self::Dev,
        Self::Paths,
        Self::ReadOnly,
        Self::Capabilities,
        Self::Seccomp,
        Self::Files,
        Self::Signals,
        Self::Image,
    ];

    /// Its name in options, logs and metrics.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Pid => "pid",
            Self::Mount => "mount",
            Self::Ipc => "ipc",
            Self::Uts => "uts",
            Self::Net => "net",
            Self::Tmp => "tmp",
            Self::Dev => "dev",
            Self::Paths => "paths",
            Self::ReadOnly => "read-only",
            Self::Capabilities => "capabilities",
            Self::Seccomp => "seccomp",
            Self::Files => "landlock-files",
            Self::Signals => "landlock-signals",
            Self::Image => "image",
        }
    }

    /// What it cannot be without.
    #[must_use]
    pub fn needs(self) -> Option<Self> {
        match self {
            Self::Pid | Self::Tmp | Self::Dev | Self::Paths | Self::ReadOnly | Self::Image => {
                Some(Self::Mount)
            }
            _ => None,
        }
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Which parts are on for a task, and what they work with.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Confinement {
    /// Those that are on.
    pub parts: BTreeSet<Part>,
    /// Folders of the slave that are empty for the task, except for its sandbox and `shown`.
    pub hidden: Vec<PathBuf>,
    /// What the task may use beside its sandbox, wherever it is: volumes.
    pub shown: Vec<PathBuf>,
    /// Files and folders that look empty. What is not there is no error.
    pub masked: Vec<PathBuf>,
    /// Files and folders that are read-only, with all that is mounted below.
    pub read_only: Vec<PathBuf>,
    /// What `/dev` has, beside terminals and shared memory. What is not there is no error.
    pub devices: Vec<PathBuf>,
    /// The capabilities that are kept: bits by their number.
    pub capabilities: u64,
    /// Most descriptors of one process; lower if the shim's own limit is.
    pub open_files_max: Option<u64>,
    /// The file tree of the task, if it is not the host's. Then nothing of `hidden` is there anyway.
    pub rootfs: Option<Rootfs>,
}

/// A file tree made of the layers of an image, and a place for what the task changes of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rootfs {
    /// Folders that lie over each other, the uppermost first. Shared, and never written.
    pub layers: Vec<PathBuf>,
    /// Where the command starts, in that tree; made if it is not there.
    pub workdir: PathBuf,
}

impl Confinement {
    /// Whether it is on.
    #[must_use]
    pub fn has(&self, part: Part) -> bool {
        self.parts.contains(&part)
    }
}

/// Says which part it was that failed.
pub(crate) fn of<T>(part: Part, result: Result<T, Failure>) -> Result<T, Failure> {
    result.map_err(|failure| Failure {
        part: Some(failure.part.unwrap_or(part)),
        ..failure
    })
}

/// A user namespace for the shim and all below it. Comes before the shim hides: the kernel lets nobody
/// but root write the map of who hides.
pub(crate) fn enter_user_namespace() -> Result<(), Failure> {
    let (uid, gid) = (geteuid(), getegid());
    let entered = || {
        step("make a user namespace", unshare(CloneFlags::CLONE_NEWUSER))?;
        step(
            "forbid other groups",
            fs::write("/proc/self/setgroups", "deny"),
        )?;
        step(
            "keep the user",
            fs::write("/proc/self/uid_map", format!("{uid} {uid} 1")),
        )?;
        step(
            "keep the group",
            fs::write("/proc/self/gid_map", format!("{gid} {gid} 1")),
        )
    };
    of(Part::User, entered())
}

/// The namespaces that the copy makes for itself, and their names in `/proc/<pid>/ns`.
const NAMESPACES: [(Part, CloneFlags, &str); 4] = [
    (Part::Mount, CloneFlags::CLONE_NEWNS, "mnt"),
    (Part::Ipc, CloneFlags::CLONE_NEWIPC, "ipc"),
    (Part::Uts, CloneFlags::CLONE_NEWUTS, "uts"),
    (Part::Net, CloneFlags::CLONE_NEWNET, "net"),
];

/// The same for what runs beside a task: enters what the task has. The user and process namespaces are
/// those of all children of the shim.
pub(crate) fn join_namespaces(request: &Request, task: Pid) -> Result<(), Failure> {
    let confinement = &request.confinement;
    if let Some(most) = confinement.open_files_max {
        step("limit open files", limit_open_files(most))?;
    }
    let wanted = NAMESPACES.into_iter();
    let wanted = wanted.filter(|(part, _, _)| confinement.has(*part));
    // All of them first: in another mount namespace the task's number is another.
    let open = wanted.map(|(_, flag, name)| {
        let file = File::open(format!("/proc/{task}/ns/{name}"));
        Ok((
            flag,
            step(&format!("find the task's {name} namespace"), file)?,
        ))
    });
    for (flag, namespace) in open.collect::<Result<Vec<_>, Failure>>()? {
        step("enter the task's namespaces", setns(namespace, flag))?;
    }
    if confinement.has(Part::Capabilities) {
        let bound = rights::bound_capabilities(confinement.capabilities);
        step("bound capabilities", bound)?;
    }
    Ok(())
}

/// Everything that needs the privileges which the task will not have. In the copy, inside of its groups
/// and, if it is to have one, of its process namespace.
pub(crate) fn enter_namespaces(request: &Request) -> Result<(), Failure> {
    let confinement = &request.confinement;
    if let Some(most) = confinement.open_files_max {
        step("limit open files", limit_open_files(most))?;
    }
    for (part, flag, _) in NAMESPACES {
        if confinement.has(part) {
            of(part, step("make a namespace", unshare(flag)))?;
        }
    }
    if confinement.has(Part::Net) {
        let up = step("start the loopback device", network::start_loopback());
        of(Part::Net, up)?;
    }
    if confinement.has(Part::Mount) {
        view::arrange(request)?;
    }
    if confinement.has(Part::Capabilities) {
        let bound = rights::bound_capabilities(confinement.capabilities);
        of(Part::Capabilities, step("bound capabilities", bound))?;
    }
    Ok(())
}

/// What comes after the user was changed. `program` is the filter.
pub(crate) fn give_up_rights(request: &Request, program: &[u8]) -> Result<(), Failure> {
    let confinement = &request.confinement;
    if confinement.has(Part::Capabilities) {
        let kept = rights::keep_capabilities(confinement.capabilities);
        of(Part::Capabilities, step("give up capabilities", kept))?;
    }
    let (files, signals) = (confinement.has(Part::Files), confinement.has(Part::Signals));
    if files {
        let restricted = rights::restrict_files(request);
        of(Part::Files, step("restrict writes", restricted))?;
    }
    if signals {
        let restricted = rights::restrict_signals();
        of(Part::Signals, step("restrict signals", restricted))?;
    }
    if confinement.has(Part::Seccomp) {
        let filtered = rights::filter_system_calls(program);
        of(Part::Seccomp, step("filter system calls", filtered))?;
    }
    Ok(())
}

fn limit_open_files(most: u64) -> io::Result<()> {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    let limit = most.min(hard);
    setrlimit(Resource::RLIMIT_NOFILE, limit, limit)?;
    Ok(())
}
