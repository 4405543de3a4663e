//! What can be read of a slave: copies that leave the core's thread.

use std::collections::BTreeMap;
use std::path::PathBuf;

use meros_proto::ids::{ExecutorId, FrameworkId, TaskId};
use meros_proto::resources::Resources;
use meros_proto::role::RoleName;
use meros_slave_core::{
    ContainerId, Counters, ExecutorSummary, Identity, SlaveCore, TaskKey, TaskSummary,
};
use serde::Serialize;

use crate::plan::executor_place;

/// How things stand.
#[derive(Debug, Clone)]
pub(crate) struct Snapshot {
    pub(crate) identity: Option<Identity>,
    pub(crate) registered: bool,
    pub(crate) counters: Counters,
    /// Tasks by state, as `TASK_RUNNING`.
    pub(crate) tasks: BTreeMap<&'static str, u64>,
    pub(crate) updates_pending: u64,
    /// Executors of frameworks, and those of them that are subscribed.
    pub(crate) executors: u64,
    pub(crate) executors_subscribed: u64,
}

impl Snapshot {
    pub(super) fn of(core: &SlaveCore) -> Self {
        let mut tasks = BTreeMap::new();
        for task in core.tasks() {
            *tasks.entry(task.state.name()).or_insert(0) += 1;
        }
        Self {
            identity: core.identity(),
            registered: core.is_registered(),
            counters: core.counters().clone(),
            tasks,
            updates_pending: core.updates_pending() as u64,
            executors: core.executors().count() as u64,
            executors_subscribed: core.executors().filter(|it| it.is_subscribed).count() as u64,
        }
    }
}

/// A task, as `GET /api/v1/tasks` shows it.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct TaskRow {
    pub(crate) framework_id: FrameworkId,
    pub(crate) task_id: TaskId,
    pub(crate) name: String,
    pub(crate) role: RoleName,
    pub(crate) resources: Resources,
    pub(crate) state: &'static str,
    /// The executor of its framework that runs it, if one does.
    pub(crate) executor_id: Option<ExecutorId>,
    pub(crate) container: Option<String>,
    pub(crate) pid: Option<u32>,
    /// The directory of its sandbox on this machine, while it has a container.
    pub(crate) sandbox: Option<PathBuf>,
    #[serde(skip)]
    container_id: Option<ContainerId>,
}

impl TaskRow {
    /// Only the shell knows where sandboxes are.
    pub(crate) fn say_sandbox(&mut self, path: impl Fn(&TaskKey, ContainerId) -> PathBuf) {
        let task = match &self.executor_id {
            None => Some((self.framework_id, self.task_id.clone())),
            Some(executor) => executor_place(&(self.framework_id, executor.clone())),
        };
        let place = task.zip(self.container_id);
        self.sandbox = place.map(|(task, container)| path(&task, container));
    }
}

impl From<TaskSummary<'_>> for TaskRow {
    fn from(task: TaskSummary<'_>) -> Self {
        Self {
            framework_id: task.framework_id,
            task_id: task.task_id.clone(),
            name: task.name.to_owned(),
            role: task.role.clone(),
            resources: task.resources.clone(),
            state: task.state.name(),
            executor_id: task.executor_id.cloned(),
            container: task.container.map(|container| container.to_string()),
            pid: task.pid,
            sandbox: None,
            container_id: task.container,
        }
    }
}

/// An executor, as `GET /api/v1/executors` shows it.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct ExecutorRow {
    framework_id: FrameworkId,
    executor_id: ExecutorId,
    container: Option<String>,
    pid: Option<u32>,
    subscribed: bool,
    tasks: usize,
}

impl From<ExecutorSummary<'_>> for ExecutorRow {
    fn from(executor: ExecutorSummary<'_>) -> Self {
        Self {
            framework_id: executor.framework_id,
            executor_id: executor.executor_id.clone(),
            container: executor.container.map(|container| container.to_string()),
            pid: executor.pid,
            subscribed: executor.is_subscribed,
            tasks: executor.tasks,
        }
    }
}
