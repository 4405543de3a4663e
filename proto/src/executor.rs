//! Executors: what runs tasks on a slave on behalf of a framework.

use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::ids::{ExecutorId, FrameworkId};
use crate::labels::Labels;
use crate::resources::Resources;
use crate::task::Command;

/// The most executors on one slave at one time; one more is refused with its task.
pub const EXECUTORS_PER_SLAVE_MAX: usize = 10_000;
/// The most tasks of one executor that have not ended; one more is refused.
pub const TASKS_PER_EXECUTOR_MAX: usize = 10_000;
/// The longest id of an executor, in bytes: the slave names directories after it.
pub const EXECUTOR_ID_BYTES_MAX: usize = 200;
/// The most bytes in one message between a framework and its executor.
pub const EXECUTOR_MESSAGE_BYTES_MAX: usize = 1 << 20;
/// The most bytes of `data` in an update of an executor: 16 updates of each task may wait for its framework.
pub const EXECUTOR_UPDATE_DATA_BYTES_MAX: usize = 64 << 10;
/// The most bytes of `data` of an executor: each of its tasks carries them to the slave.
pub const EXECUTOR_DATA_BYTES_MAX: usize = 64 << 10;
/// From being asked to shut down to SIGKILL when the description does not say (semantics M4).
pub const SHUTDOWN_GRACE_DEFAULT: Duration = Duration::from_secs(5);

/// In the environment of an executor: its id. Beside it is `MEROS_FRAMEWORK_ID`, as tasks have it.
pub const EXECUTOR_ID_VARIABLE: &str = "MEROS_EXECUTOR_ID";
/// In the environment of an executor: the path of the socket behind which its slave listens.
pub const EXECUTOR_SOCKET_VARIABLE: &str = "MEROS_EXECUTOR_SOCKET";
/// In the environment of an executor: how long it has when it is asked to shut down, in milliseconds.
pub const EXECUTOR_SHUTDOWN_GRACE_VARIABLE: &str = "MEROS_EXECUTOR_SHUTDOWN_GRACE_MS";

/// An executor as a framework describes it.
///
/// A command task has one implicitly: the slave itself, under the id of the task.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExecutorDescription {
    /// Unique in the framework on one slave.
    pub executor_id: ExecutorId,
    /// Its framework; filled in by the master when absent (semantics R9).
    pub framework_id: Option<FrameworkId>,
    /// For people.
    pub name: String,
    /// What starts it. None: the slave itself, which runs the tasks of a
    /// [`TaskGroup`](crate::group::TaskGroup) under this id and has no process for it.
    pub command: Option<Command>,
    /// What it takes beside its tasks (semantics D9).
    pub resources: Resources,
    /// For people and tools.
    pub labels: Labels,
    /// From being asked to shut down to SIGKILL; [`SHUTDOWN_GRACE_DEFAULT`] when absent, at most
    /// [`KILL_GRACE_MAX`](crate::task::KILL_GRACE_MAX) (semantics M4).
    pub shutdown_grace: Option<Duration>,
    /// For an executor that speaks the v1 API, which finds it in the description of itself; at most
    /// [`EXECUTOR_DATA_BYTES_MAX`]. One that is built with the SDK is told what it needs in the environment
    /// of its command.
    pub data: Bytes,
}

impl ExecutorDescription {
    /// An executor with no more than it needs. A slave also needs some `mem` for it (semantics D9).
    #[must_use]
    pub fn new(executor_id: ExecutorId, command: Command, resources: Resources) -> Self {
        Self {
            name: executor_id.as_str().to_owned(),
            executor_id,
            framework_id: None,
            command: Some(command),
            resources,
            labels: Labels::default(),
            shutdown_grace: None,
            data: Bytes::new(),
        }
    }

    /// What the tasks of a group run under: the id of the group, and what it takes beside its tasks, which may be
    /// nothing.
    #[must_use]
    pub fn group(group_id: ExecutorId, resources: Resources) -> Self {
        Self {
            name: group_id.as_str().to_owned(),
            executor_id: group_id,
            framework_id: None,
            command: None,
            resources,
            labels: Labels::default(),
            shutdown_grace: None,
            data: Bytes::new(),
        }
    }

    /// Whether it stands for a group of tasks: the slave runs them itself, each in its own container.
    #[must_use]
    pub fn is_group(&self) -> bool {
        self.command.is_none()
    }
}
