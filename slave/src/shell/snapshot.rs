//! What can be read of a slave: copies that leave the core's thread.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

use meros_proto::ids::{ExecutorId, FrameworkId, TaskId};
use meros_proto::message::slave::TaskFramework;
use meros_proto::resources::Resources;
use meros_proto::role::RoleName;
use meros_proto::time::Timestamp;
use meros_proto::view::{ExecutorView, TaskView};
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

/// All that is here at one moment, for the operator API of Mesos.
#[derive(Debug)]
pub(crate) struct Picked {
    /// None while no master has admitted this slave: then nothing else is here either.
    pub(crate) identity: Option<Identity>,
    /// What the slave has, and what of it nobody uses.
    pub(crate) total: Resources,
    pub(crate) free: Resources,
    /// Without a status, and when they were launched is not known here.
    pub(crate) tasks: Vec<TaskView>,
    pub(crate) executors: Vec<PickedExecutor>,
    /// Those of the tasks and executors, with the roles that these are in.
    pub(crate) frameworks: BTreeMap<FrameworkId, (TaskFramework, BTreeSet<RoleName>)>,
}

/// An executor of a framework.
#[derive(Debug)]
pub(crate) struct PickedExecutor {
    pub(crate) view: ExecutorView,
    /// From being asked to shut down to SIGKILL, if its framework says so.
    pub(crate) shutdown_grace: Option<Duration>,
    /// Whether it stands for a group of tasks.
    pub(crate) is_group: bool,
}

impl Picked {
    /// At most so many tasks, and as many executors.
    pub(super) fn of(core: &SlaveCore, most: usize) -> Self {
        let identity = core.identity();
        let mut picked = Self {
            identity,
            total: core.total().clone(),
            free: core.free().clone(),
            tasks: Vec::new(),
            executors: Vec::new(),
            frameworks: BTreeMap::new(),
        };
        let Some(identity) = identity else {
            return picked;
        };
        for task in core.tasks().take(most) {
            picked.see(task.framework, task.role);
            picked.tasks.push(TaskView {
                task_id: task.task_id.clone(),
                name: task.name.to_owned(),
                framework_id: task.framework_id,
                slave_id: identity.slave_id,
                role: task.role.clone(),
                resources: task.resources.clone(),
                state: task.state,
                status: None,
                launched_at: Timestamp(0),
                labels: task.labels.clone(),
                executor_id: task.executor_id.or(task.group_id).cloned(),
            });
        }
        for it in core.executors().take(most) {
            picked.see(&it.run.framework, &it.run.role);
            let executor = &it.run.executor;
            picked.executors.push(PickedExecutor {
                view: ExecutorView {
                    executor_id: it.executor_id.clone(),
                    name: executor.name.clone(),
                    framework_id: it.framework_id,
                    slave_id: identity.slave_id,
                    role: it.run.role.clone(),
                    resources: executor.resources.clone(),
                    labels: executor.labels.clone(),
                },
                shutdown_grace: executor.shutdown_grace,
                is_group: executor.is_group(),
            });
        }
        picked
    }

    fn see(&mut self, framework: &TaskFramework, role: &RoleName) {
        let known = self.frameworks.entry(framework.framework_id);
        let (_, roles) = known.or_insert_with(|| (framework.clone(), BTreeSet::new()));
        if !roles.contains(role) {
            roles.insert(role.clone());
        }
    }
}
