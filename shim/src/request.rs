//! What a slave wants run.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::confine::{Confinement, Part};

/// The longest request: the command may have 1 MiB, and JSON escapes up to six-fold.
pub const REQUEST_BYTES_MAX: u64 = 8 << 20;

/// Everything about one container that a slave which has forgotten it must know, too.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// Whose it is, in the slave's own words; the shim does not look at it.
    pub owner: String,
    /// Which start of the machine it belongs to; the shim does not look at it.
    pub boot_id: String,
    /// For people: the shell line or the program.
    pub command: String,
    /// The `cgroup.procs` files of the groups that the task enters.
    pub groups: Vec<PathBuf>,
    /// What is executed, its name first; looked up in `PATH` of `env` unless it has a `/`.
    pub argv: Vec<String>,
    /// The whole environment.
    pub env: BTreeMap<String, String>,
    /// Where `stdout` and `stderr` are written; the working directory of a task without a tree of its own.
    pub sandbox: PathBuf,
    /// Who it runs as; none is the shim's own user.
    pub account: Option<Account>,
    /// Most bytes kept of standard output, in two files.
    pub stdout_bytes_max: u64,
    /// The same of standard error.
    pub stderr_bytes_max: u64,
    /// Most bytes that the sandbox may take; the slave's to watch over, also one that has forgotten it.
    #[serde(default)]
    pub disk_bytes: Option<u64>,
    /// Whether everything is killed when the slave is lost.
    pub ends_with_slave: bool,
    /// What is run beside it when the slave orders so, by name.
    #[serde(default)]
    pub checks: BTreeMap<String, CheckCommand>,
    /// What keeps it apart beside its groups; nothing in requests of older slaves.
    #[serde(default)]
    pub confinement: Confinement,
}

impl Request {
    /// Where the command starts, and what runs beside it: the sandbox, or what its image says.
    pub(crate) fn workdir(&self) -> &Path {
        match &self.confinement.rootfs {
            Some(rootfs) => &rootfs.workdir,
            None => &self.sandbox,
        }
    }
}

/// A command that runs beside the task for a moment, as if the task had started it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckCommand {
    /// What is executed, its name first; looked up in `PATH` unless it has a `/`.
    pub argv: Vec<String>,
    /// Added to the environment of the task.
    pub env: BTreeMap<String, String>,
}

/// A user as numbers: the shim asks nobody for names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Account {
    /// The user.
    pub uid: u32,
    /// The user's own group.
    pub gid: u32,
    /// All groups of the user.
    pub groups: Vec<u32>,
}

/// What could not be done before the task ran.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// For people, except for [`EXEC`](Self::EXEC).
    pub step: String,
    /// The kernel's error number, 0 if it was not the kernel; for [`DIED`](Self::DIED) the signal.
    pub errno: i32,
    /// The part of the confinement that the host does not give.
    #[serde(default)]
    pub part: Option<Part>,
}

impl Failure {
    /// The step at which the command itself was refused.
    pub const EXEC: &str = "execute the command";
    /// The step at which the task ended before it had got so far, most often for want of memory.
    pub const DIED: &str = "hear of the start";
}

/// Names the step that failed.
pub(crate) fn step<T, E: Into<std::io::Error>>(
    step: &str,
    result: Result<T, E>,
) -> Result<T, Failure> {
    result.map_err(|error| Failure {
        step: step.to_owned(),
        errno: error.into().raw_os_error().unwrap_or(0),
        part: None,
    })
}
