//! Why a container did not start, and why a containerizer did not open.

use std::io;
use std::path::PathBuf;

/// A container did not start. Nothing of it is left: no process, no cgroup.
/// The sandbox directory may exist.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The specification itself is wrong; a retry cannot help.
    #[error("invalid {field}: {why}")]
    InvalidSpec {
        /// The field of [`ContainerSpec`](super::ContainerSpec).
        field: &'static str,
        /// What the field must be.
        why: &'static str,
    },
    /// Another container of this id runs, or its cgroup could not be removed yet.
    #[error("container id {id:?} is in use")]
    IdInUse {
        /// The id that was asked for.
        id: String,
    },
    /// The program does not exist in the task's `PATH`, or not at the given path.
    #[error("command not found: {command:?}")]
    CommandNotFound {
        /// The program as given.
        command: String,
    },
    /// The program exists but the kernel refuses to execute it: no execute permission, a missing
    /// interpreter, a foreign format, arguments too long.
    #[error("cannot execute {command:?}")]
    CommandNotExecutable {
        /// The program as given.
        command: String,
        /// The kernel's reason.
        source: io::Error,
    },
    /// The account does not exist on this host.
    #[error("unknown user {user:?}")]
    UserUnknown {
        /// The account as given.
        user: String,
    },
    /// The sandbox or a log file in it could not be made.
    #[error("failed to prepare sandbox {path}", path = path.display())]
    Sandbox {
        /// The directory or file.
        path: PathBuf,
        /// The kernel's reason.
        source: io::Error,
    },
    /// The cgroup could not be made.
    #[error("failed to create cgroup {path}", path = path.display())]
    CreateGroup {
        /// The directory below one hierarchy.
        path: PathBuf,
        /// The kernel's reason.
        source: io::Error,
    },
    /// The kernel did not take a limit. The container is not started without it.
    #[error("failed to set {limit} to {value}")]
    SetLimit {
        /// Which limit, in the words of [`Limits`](super::Limits).
        limit: &'static str,
        /// What was written.
        value: u64,
        /// The reason, with the control file.
        source: cgroups_rs::fs::error::Error,
    },
    /// The shim could not be started or spoken to.
    #[error("failed to start the shim")]
    Spawn {
        /// The reason.
        source: io::Error,
    },
    /// The shim failed between its start and the task's `execve`.
    #[error("failed to set up the task: {step}")]
    Setup {
        /// What it was doing.
        step: String,
        /// The kernel's reason.
        source: io::Error,
    },
    /// The task or its shim ended before the command ran, for example because the memory limit is too
    /// small.
    #[error("the task ended before its command was executed: {ended}")]
    Died {
        /// How it ended, and the memory limit if that was the cause.
        ended: String,
    },
    /// The shim did not reach `execve` in time; it was killed.
    #[error("the task did not start within {seconds} s")]
    TimedOut {
        /// The time it had.
        seconds: u64,
    },
    /// The containerizer is shutting down.
    #[error("the containerizer is shutting down")]
    ShuttingDown,
}

/// The containerizer could not take possession of its cgroups.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// Another live process uses the same cgroup root and instance.
    #[error("cgroup {path} is in use by another slave: choose another instance name", path = path.display())]
    InUse {
        /// The group that is locked.
        path: PathBuf,
    },
    /// The cgroup root was there and belongs to somebody else. Nothing of it was changed.
    #[error("cgroup {path} is not ours, {why}: choose another --cgroup-root, or give us an empty group", path = path.display())]
    Foreign {
        /// The root below one hierarchy.
        path: PathBuf,
        /// What is in it.
        why: String,
    },
    /// The group could not be locked.
    #[error("failed to lock cgroup {path}", path = path.display())]
    Lock {
        /// The group.
        path: PathBuf,
        /// The kernel's reason.
        source: io::Error,
    },
    /// There is no memory for the program of the shims, or the kernel allows no programs there.
    #[error("failed to load the shim into memory")]
    Shim {
        /// The kernel's reason.
        source: io::Error,
    },
    /// A part of isolation was asked for by name, and this host does not give it.
    #[error(
        "isolation_missing: {part} is asked for and cannot be had here ({reason}); without {part} in --isolation tasks run without it"
    )]
    IsolationMissing {
        /// The part, as the option names it.
        part: String,
        /// Why, and what to do.
        reason: String,
    },
    /// Not even an unconfined command could be started.
    #[error("failed to try out the isolation of tasks: {step}")]
    Trial {
        /// What the shim was doing.
        step: String,
        /// The kernel's reason.
        source: io::Error,
    },
    /// Our one helper thread could not be started.
    #[error("failed to start the launcher thread")]
    Thread {
        /// The kernel's reason.
        source: io::Error,
    },
}

/// The configured cgroup root is no path below a hierarchy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "invalid cgroup {field} {value:?}: components of 1 to 64 of a-z A-Z 0-9 - _ . : @, no leading dot, at most 8 of them"
)]
pub struct CgroupRootError {
    /// `name` or `instance`.
    pub field: &'static str,
    /// What was given.
    pub value: String,
}
