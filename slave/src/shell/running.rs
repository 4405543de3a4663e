//! Containers that run, and whose they are: for all who measure them or want into one.

use std::sync::Arc;

use meros_proto::ids::{ClusterId, ExecutorId, FrameworkId, TaskId};
use meros_proto::resources::Resources;
use meros_slave_core::{ContainerId, SlaveCore, TaskKey};

use super::containers::Containers;
use crate::container::Container;

/// A container that runs.
#[derive(Debug)]
pub(crate) struct RunningContainer {
    pub(crate) id: ContainerId,
    pub(crate) framework_id: FrameworkId,
    pub(crate) owner: Owner,
    /// Of the task or the executor.
    pub(crate) name: String,
    /// Its first process.
    pub(crate) pid: Option<u32>,
    /// What it may use; that of an executor also what the tasks take that it was given.
    pub(crate) resources: Resources,
    pub(crate) process: Arc<Container>,
}

/// What a container is for.
#[derive(Debug)]
pub(crate) enum Owner {
    /// One task.
    Task(TaskId),
    /// An executor with its tasks.
    Executor(ExecutorId),
}

/// Some of those that run.
#[derive(Debug)]
pub(crate) struct RunningContainers {
    /// None while no master has admitted this slave: then nothing runs.
    pub(crate) cluster_id: Option<ClusterId>,
    /// Those of tasks by their key, then those of executors by theirs.
    pub(crate) some: Vec<RunningContainer>,
    /// How many are not among them.
    pub(crate) others: u64,
}

impl RunningContainers {
    /// At most so many.
    pub(super) fn of(core: &SlaveCore, containers: &Containers, most: usize) -> Self {
        let running = |at: Option<ContainerId>| Some((at?, containers.process(at?)?));
        let tasks = core.tasks().filter(|it| it.executor_id.is_none());
        let tasks = tasks.filter_map(|it| Some((running(it.container)?, it)));
        let executors = core.executors();
        let executors = executors.filter_map(|it| Some((running(it.container)?, it)));
        let (mut tasks, mut executors) = (tasks, executors);
        let mut some = Vec::new();
        for ((id, process), task) in tasks.by_ref().take(most) {
            some.push(RunningContainer {
                id,
                framework_id: task.framework_id,
                owner: Owner::Task(task.task_id.clone()),
                name: task.name.to_owned(),
                pid: task.pid,
                resources: task.resources.clone(),
                process,
            });
        }
        for ((id, process), it) in executors.by_ref().take(most - some.len()) {
            some.push(RunningContainer {
                id,
                framework_id: it.framework_id,
                owner: Owner::Executor(it.executor_id.clone()),
                name: it.run.executor.name.clone(),
                pid: it.pid,
                resources: it.promised.clone(),
                process,
            });
        }
        Self {
            cluster_id: core.identity().map(|it| it.cluster_id),
            some,
            others: (tasks.count() + executors.count()) as u64,
        }
    }
}

/// What there is of a task to come into.
#[derive(Debug)]
pub(crate) enum TaskContainer {
    /// No such task is here.
    Unknown,
    /// It has no container, in this state.
    NotRunning(&'static str),
    /// Its container, or that of its executor.
    Running(Arc<Container>),
}

impl TaskContainer {
    pub(super) fn of(core: &SlaveCore, containers: &Containers, task: &TaskKey) -> Self {
        let Some(task) = core.task(task) else {
            return Self::Unknown;
        };
        match task.container.and_then(|at| containers.process(at)) {
            Some(process) => Self::Running(process),
            None => Self::NotRunning(task.state.name()),
        }
    }
}
