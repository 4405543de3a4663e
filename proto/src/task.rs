//! Tasks as frameworks describe them (semantics D1).

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::check::{Check, HealthCheck};
use crate::executor::ExecutorDescription;
use crate::fetch::FetchUri;
use crate::ids::{SlaveId, TaskId};
use crate::image::Image;
use crate::labels::Labels;
use crate::resources::{Resources, Scalar};

/// Between SIGTERM and SIGKILL when nobody says otherwise (semantics M5).
pub const KILL_GRACE_DEFAULT: Duration = Duration::from_secs(3);
/// The longest grace that is honoured; a longer one is cut to it, so that a kill always ends.
pub const KILL_GRACE_MAX: Duration = Duration::from_secs(60 * 60);
/// The largest command, in bytes of arguments and environment together. Linux refuses a little
/// more than this (`ARG_MAX` is 2 MiB with the usual stack limit).
pub const COMMAND_BYTES_MAX: usize = 1 << 20;
/// The most that `data` may hold, in bytes.
pub const TASK_DATA_BYTES_MAX: usize = 1 << 20;

/// What to execute.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Execute {
    /// A line for `/bin/sh -c`.
    Shell(String),
    /// A program, looked up in the task's PATH, and its arguments; the first is the program. With an
    /// [image](Command::image): what its entrypoint is given, in place of the image's own arguments (its
    /// `Cmd`), or the program if it has no entrypoint; may be empty then.
    Argv(Vec<String>),
}

/// A command with its surroundings.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Command {
    /// What to execute.
    pub execute: Execute,
    /// Added to the environment of the task, over the slave's PATH and the kernel's own
    /// variables (semantics M6).
    pub environment: BTreeMap<String, String>,
    /// The user to run as; the framework's when absent. Another user than the slave's own needs a
    /// slave that runs as root.
    pub user: Option<String>,
    /// Files that are fetched into the sandbox before it starts, in their order. Default: none. At most
    /// [`URIS_MAX`](crate::fetch::URIS_MAX).
    #[serde(default)]
    pub uris: Vec<FetchUri>,
    /// The image whose file tree, environment, user and working directory it has. Default: none, and it
    /// runs in the slave's own tree. Needs a slave that runs as root.
    #[serde(default)]
    pub image: Option<Image>,
}

impl Command {
    /// A shell line with no environment of its own.
    #[must_use]
    pub fn shell(line: impl Into<String>) -> Self {
        Self {
            execute: Execute::Shell(line.into()),
            environment: BTreeMap::new(),
            user: None,
            uris: Vec::new(),
            image: None,
        }
    }

    /// A program and its arguments.
    #[must_use]
    pub fn argv<S: Into<String>>(argv: impl IntoIterator<Item = S>) -> Self {
        let argv = argv.into_iter().map(Into::into).collect();
        Self {
            execute: Execute::Argv(argv),
            environment: BTreeMap::new(),
            user: None,
            uris: Vec::new(),
            image: None,
        }
    }

    /// The same command with one more variable.
    #[must_use]
    pub fn env(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.environment.insert(name.into(), value.into());
        self
    }

    /// The same command with one more file in its sandbox.
    #[must_use]
    pub fn fetch(mut self, uri: FetchUri) -> Self {
        self.uris.push(uri);
        self
    }

    /// The same command in the file tree of an image.
    #[must_use]
    pub fn image(mut self, image: Image) -> Self {
        self.image = Some(image);
        self
    }

    /// Whether something has to be brought before it can start, which may take long: files or an image.
    #[must_use]
    pub fn is_prepared(&self) -> bool {
        !self.uris.is_empty() || self.image.is_some()
    }

    /// Bytes of arguments and environment, as [`COMMAND_BYTES_MAX`] counts them.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let execute = match &self.execute {
            Execute::Shell(line) => line.len(),
            Execute::Argv(argv) => argv.iter().map(|arg| arg.len() + 1).sum(),
        };
        let environment: usize = self
            .environment
            .iter()
            .map(|(name, value)| name.len() + value.len() + 2)
            .sum();
        execute + environment
    }
}

/// Limits above what is reserved by `resources` (Mesos's `limits`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskLimits {
    /// The most cpus it may use, enforced by quota; absent: as many as are idle, while `cpus` of
    /// its resources sets its share under contention.
    pub cpus: Option<Scalar>,
    /// The most memory it may use, in MiB, never below `mem` of its resources; absent: `mem`.
    pub mem: Option<Scalar>,
}

/// A task as a framework describes it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskDescription {
    /// For people; need not be unique.
    pub name: String,
    /// Unique in the framework among live and unreachable tasks (semantics A9).
    pub task_id: TaskId,
    /// The slave whose offer it uses.
    pub slave_id: SlaveId,
    /// What it takes of the offer; at least something (semantics D9).
    pub resources: Resources,
    /// Limits above that.
    pub limits: TaskLimits,
    /// What to run. Exactly one of `command` and `executor` (semantics D1); a task that runs in a group has both,
    /// and is launched with it only.
    pub command: Option<Command>,
    /// An executor of the framework's own that runs it. Needs a slave with the capability
    /// [`SlaveCapability::CustomExecutors`](crate::slave::SlaveCapability).
    pub executor: Option<ExecutorDescription>,
    /// From SIGTERM to SIGKILL; [`KILL_GRACE_DEFAULT`] when absent, at most [`KILL_GRACE_MAX`].
    pub kill_grace: Option<Duration>,
    /// Ends as FAILED with the reason `MaxCompletionTimeReached` when it runs longer.
    pub max_completion_time: Option<Duration>,
    /// For people and tools.
    pub labels: Labels,
    /// For the executor.
    pub data: Bytes,
    /// Ends the task when it fails it several times in a row (semantics M8). Slaves check command tasks;
    /// of a task of an executor it is that one's business.
    pub health_check: Option<HealthCheck>,
    /// Reported only: readiness. Likewise.
    pub check: Option<Check>,
}

impl TaskDescription {
    /// A command task with no more than it needs.
    #[must_use]
    pub fn command(
        task_id: TaskId,
        slave_id: SlaveId,
        resources: Resources,
        command: Command,
    ) -> Self {
        Self {
            name: task_id.as_str().to_owned(),
            task_id,
            slave_id,
            resources,
            limits: TaskLimits::default(),
            command: Some(command),
            executor: None,
            kill_grace: None,
            max_completion_time: None,
            labels: Labels::default(),
            data: Bytes::new(),
            health_check: None,
            check: None,
        }
    }
}
