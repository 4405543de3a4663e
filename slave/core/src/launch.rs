//! From an order to run a task to the end of its container.
//!
//! Command tasks go from STAGING straight to RUNNING, unless files or an image have to be brought for them: then
//! STARTING (semantics F2) says so, and now and then how far it is. For all others it would only hold
//! RUNNING back by a round trip to the framework, because only the head of an update stream is in
//! flight (semantics I1). For the same reason the next word of progress waits until the framework has
//! heard the last.

use std::time::Duration;

use meros_proto::ids::TaskId;
use meros_proto::message::slave::RunTask;
use meros_proto::resources::{Resource, ResourceName, Resources};
use meros_proto::status::{Reason, Source, TaskExit, TaskState, TaskStatus};
use meros_proto::task::TaskDescription;
use meros_proto::time::Timestamp;
use tracing::{debug, warn};

use crate::claims::key_of;
use crate::config::{PROGRESS_BYTES_MAX, PROGRESS_INTERVAL};
use crate::event::{ContainerExit, ContainerId};
use crate::executors::executor_key;
use crate::groups::group_key;
use crate::signal::signal_name;
use crate::task::{Cause, Phase, Task, executor_of};
use crate::timers::Due;
use crate::{Awaiting, Effect, Effects, Record, SlaveCore, TaskKey};

/// An end as it is told to the framework.
#[derive(Debug, Clone)]
pub(crate) struct End {
    pub(crate) state: TaskState,
    source: Source,
    reason: Option<Reason>,
    message: String,
    pub(crate) exit: Option<TaskExit>,
    /// What it had too little of, if a limit ended it.
    limitation: Option<Resources>,
}

impl End {
    pub(crate) fn by_slave(state: TaskState, reason: Reason, message: impl Into<String>) -> Self {
        let message = message.into();
        Self {
            state,
            source: Source::Slave,
            reason: Some(reason),
            message,
            exit: None,
            limitation: None,
        }
    }

    /// Puts it into a status.
    pub(crate) fn tell(self, mut status: TaskStatus) -> TaskStatus {
        status.state = self.state;
        status.source = self.source;
        status.reason = self.reason;
        status.message = self.message;
        status.exit = self.exit;
        status.limitation = self.limitation;
        status
    }
}

impl SlaveCore {
    pub(crate) fn on_run_task(&mut self, run: Box<RunTask>, now: Timestamp, effects: &mut Effects) {
        let key = (run.framework.framework_id, run.task.task_id.clone());
        if self.tasks.contains_key(&key) || self.streams.contains_key(&key) {
            self.counters.duplicate_tasks += 1;
            return;
        }
        if let Some(refusal) = self.refuse_task(&run) {
            self.counters.tasks_refused += 1;
            return self.update_phantom(key, refusal, now, effects);
        }
        self.free
            .checked_sub_assign(&run.task.resources)
            .expect("refuse_task has seen that they are free");
        self.counters.tasks_accepted += 1;
        let record = Record::TaskAdded(run.clone());
        let record = self.persist_for(record, Awaiting::Task(key.clone()), effects);
        self.tasks
            .insert(key, Task::new(run, Phase::Accepted { record }));
    }

    /// The first that applies. The master checks all of this; the slave does it again because it
    /// is the one that would suffer.
    fn refuse_task(&self, run: &RunTask) -> Option<End> {
        let dropped = |reason, message| Some(End::by_slave(TaskState::Dropped, reason, message));
        if let Some(end) = self.refuse_place(run) {
            return Some(end);
        }
        if run.task.command.is_none() {
            let message = "it was ordered as a command, and the task has none";
            return dropped(Reason::TaskInvalid, message.to_owned());
        }
        if run.task.executor.is_some() {
            let message = "it was ordered by itself, and has an executor or a group";
            return dropped(Reason::TaskInvalid, message.to_owned());
        }
        self.refuse_room(run, &run.task.resources)
    }

    /// Whether the task is not to run here, and now.
    pub(crate) fn refuse_place(&self, run: &RunTask) -> Option<End> {
        let dropped = |reason, message| Some(End::by_slave(TaskState::Dropped, reason, message));
        if self.going.is_some() {
            return dropped(Reason::SlaveDraining, "the slave is stopping".to_owned());
        }
        if Some(run.task.slave_id) != self.slave_id() {
            let message = format!("it was meant for slave {}", run.task.slave_id);
            return dropped(Reason::TaskInvalid, message);
        }
        None
    }

    /// Whether there is no room for the task, which takes this.
    pub(crate) fn refuse_room(&self, run: &RunTask, need: &Resources) -> Option<End> {
        let dropped = |reason, message| Some(End::by_slave(TaskState::Dropped, reason, message));
        if let Err(clash) = run.task.resources.check_volume_paths() {
            return dropped(Reason::TaskInvalid, clash.to_string());
        }
        let max = self.config.tasks_max;
        if self.tasks.len() >= max {
            let message = format!("the slave holds {max} tasks, which is its limit");
            return dropped(Reason::ResourcesUnknown, message);
        }
        if let Err(why) = self.free.checked_sub(need) {
            let message = format!("the slave has not got it: {why}");
            return dropped(Reason::ResourcesUnknown, message);
        }
        let mut volumes = run.task.resources.iter().filter_map(key_of);
        let (_, id) = volumes.find(|key| self.is_being_left(key))?;
        let message = format!("volume {id} is used by a task that is being killed");
        dropped(Reason::ResourcesUnknown, message)
    }

    /// The task's record is durable: now its container may exist.
    pub(crate) fn start_task(&mut self, key: &TaskKey, effects: &mut Effects) {
        let Some(slave_id) = self.slave_id() else {
            return;
        };
        let Some(task) = self.tasks.get_mut(key) else {
            return;
        };
        match task.phase {
            Phase::Accepted { record } if record <= self.durable => {}
            // Killed meanwhile, or it is a later task of the same id, whose record comes later.
            _ => return,
        }
        if let Some(executor) = executor_key(&task.run) {
            return self.start_in_executor(key, &executor, effects);
        }
        self.containers_made += 1;
        let container = ContainerId {
            incarnation: self.incarnation,
            number: self.containers_made,
        };
        task.phase = Phase::Starting { container };
        let run = task.run.clone();
        self.containers.insert(container, key.clone());
        let volumes = self.mounted(&run.task.resources);
        let ends_with_slave = !self.outlives(&run);
        effects.push(Effect::StartContainer {
            container,
            slave_id,
            run,
            volumes,
            ends_with_slave,
        });
    }

    /// semantics: L1
    pub(crate) fn outlives(&self, run: &RunTask) -> bool {
        run.framework.checkpoint && !self.config.tasks_end_with_slave
    }

    pub(crate) fn on_container_started(
        &mut self,
        container: ContainerId,
        pid: u32,
        image: Option<String>,
        now: Timestamp,
        effects: &mut Effects,
    ) {
        if let Some(key) = self.executor_containers.get(&container).cloned() {
            return self.on_executor_started(&key, container, pid, now, effects);
        }
        let Some((key, task)) = self.task_in(container) else {
            return;
        };
        if task.phase != (Phase::Starting { container }) {
            return self.ignore_container(container, "started twice");
        }
        let group = group_key(&task.run);
        task.phase = Phase::Running { container, pid };
        task.image = image;
        if let Some(ending) = &mut task.ending {
            // Killed while it was being started: nobody hears of it as running.
            ending.kill_at = Some(now.after(ending.grace));
            let grace = ending.grace;
            return effects.push(Effect::KillContainer { container, grace });
        }
        if let Some(most) = task.run.task.max_completion_time {
            self.timers
                .set(Due::Completion(key.clone()), now.after(most));
        }
        match group {
            Some(group) => self.on_member_started(&group, now, effects),
            None => self.tell_running(&key, Duration::ZERO, now, effects),
        }
    }

    /// A task that runs since `age` is told as running, and checked from now on.
    pub(crate) fn tell_running(
        &mut self,
        key: &TaskKey,
        age: Duration,
        now: Timestamp,
        effects: &mut Effects,
    ) {
        self.start_checks(key, age, now);
        let mut status = self.running(key, now);
        // A tag stands for something else tomorrow.
        let image = self.tasks[key].image.as_ref();
        status.message = image.map_or_else(String::new, |image| format!("image {image}"));
        self.update_task(key, status, effects);
    }

    /// What a task says that runs.
    pub(crate) fn running(&self, key: &TaskKey, now: Timestamp) -> TaskStatus {
        self.living(key, TaskState::Running, now)
    }

    /// What its executor says of a task that lives.
    pub(crate) fn living(&self, key: &TaskKey, state: TaskState, now: Timestamp) -> TaskStatus {
        let mut status = self.status(&key.1, state, Source::Executor, now);
        if let Some(task) = self.tasks.get(key) {
            status.executor_id = Some(executor_of(&task.run));
            task.checks.dress(&mut status);
        }
        status
    }

    /// Tells how far its preparation is, unless that was told a moment ago or is still on its way.
    pub(crate) fn on_container_preparing(
        &mut self,
        container: ContainerId,
        mut message: String,
        now: Timestamp,
        effects: &mut Effects,
    ) {
        if self.executor_containers.contains_key(&container) {
            // Its tasks have nothing to say before they are given to it.
            return;
        }
        let Some((key, task)) = self.task_in(container) else {
            return;
        };
        if task.phase != (Phase::Starting { container }) {
            return self.ignore_container(container, "prepared after its start");
        }
        let is_soon = task
            .progress_told
            .is_some_and(|told| now < told.after(PROGRESS_INTERVAL));
        let is_ending = task.ending.is_some();
        if is_soon || is_ending || self.streams.contains_key(&key) {
            return;
        }
        let task = self.tasks.get_mut(&key).expect("looked up above");
        task.progress_told = Some(now);
        message.truncate(message.floor_char_boundary(PROGRESS_BYTES_MAX));
        let mut status = self.status(&key.1, TaskState::Starting, Source::Slave, now);
        status.message = message;
        self.update_task(&key, status, effects);
    }

    pub(crate) fn on_container_not_started(
        &mut self,
        container: ContainerId,
        message: String,
        now: Timestamp,
        effects: &mut Effects,
    ) {
        if let Some(key) = self.executor_containers.get(&container).cloned() {
            return self.on_executor_not_started(&key, container, message, now, effects);
        }
        let Some((key, task)) = self.task_in(container) else {
            return;
        };
        if task.phase != (Phase::Starting { container }) {
            return self.ignore_container(container, "failed to start after its start");
        }
        let end = match task.ending {
            Some(ending) => killed_during_launch(ending.cause),
            None => End::by_slave(TaskState::Failed, Reason::ContainerLaunchFailed, message),
        };
        self.end_task(&key, end, now, effects);
    }

    pub(crate) fn on_container_ended(
        &mut self,
        container: ContainerId,
        exit: ContainerExit,
        now: Timestamp,
        effects: &mut Effects,
    ) {
        if self.strays.remove(&container) {
            return effects.push(Effect::ForgetContainer { container });
        }
        if let Some(key) = self.executor_containers.get(&container).cloned() {
            return self.on_executor_exited(&key, Some(exit), now, effects);
        }
        let Some((key, task)) = self.task_in(container) else {
            return;
        };
        let mut end = end_of(task, |task| ended_by_itself(&exit, &task.run.task));
        end.exit = Some(exit.exit);
        self.end_task(&key, end, now, effects);
    }

    pub(crate) fn on_container_lost(
        &mut self,
        container: ContainerId,
        now: Timestamp,
        effects: &mut Effects,
    ) {
        if self.strays.remove(&container) {
            return effects.push(Effect::ForgetContainer { container });
        }
        if let Some(key) = self.executor_containers.get(&container).cloned() {
            return self.on_executor_exited(&key, None, now, effects);
        }
        let Some((key, task)) = self.task_in(container) else {
            return;
        };
        let end = end_of(task, |_| lost());
        self.end_task(&key, end, now, effects);
    }

    /// The task is over: its resources are free, its end is told, or forgotten if nobody is left to
    /// be told.
    pub(crate) fn end_task(
        &mut self,
        key: &TaskKey,
        end: End,
        now: Timestamp,
        effects: &mut Effects,
    ) {
        self.close_task(key);
        let task = &self.tasks[key];
        if task.abandoned {
            if let Some(container) = task.ended_in {
                effects.push(Effect::ForgetContainer { container });
            }
            self.tasks.remove(key);
            return self.tell_if_forgotten(key.0, effects);
        }
        let mut status = end.tell(self.status(&key.1, TaskState::Failed, Source::Slave, now));
        let task = &self.tasks[key];
        if status.exit.is_some() || task.run.task.executor.is_some() {
            status.executor_id = Some(executor_of(&task.run));
        }
        self.tasks[key].checks.dress(&mut status);
        debug!(framework_id = %key.0, task_id = %key.1, state = %status.state, "task ended");
        let group = group_key(&self.tasks[key].run);
        if let Some(group) = &group {
            self.doom_group(group, status.state, effects);
        }
        self.update_task(key, status, effects);
        if let Some(group) = &group {
            self.on_member_ended(group, now, effects);
        }
    }

    /// The task is over, and takes nothing any more.
    pub(crate) fn close_task(&mut self, key: &TaskKey) {
        let task = self.tasks.get_mut(key).expect("callers have looked it up");
        task.ended_in = task.container();
        if let Some(container) = task.ended_in {
            self.containers.remove(&container);
        }
        let was_given = std::mem::replace(&mut task.phase, Phase::Ended) == Phase::Given;
        let (executor, group) = (executor_key(&task.run), group_key(&task.run));
        let is_charged = !task.abandoned;
        self.timers.clear(&Due::Completion(key.clone()));
        self.stop_checks(key);
        if let Some(executor) = executor.and_then(|it| self.executors.get_mut(&it)) {
            executor.tasks.remove(&key.1);
            if was_given {
                executor.take_back(&self.tasks[key].run.task.resources);
            }
        }
        if let Some(group) = group.and_then(|it| self.groups.get_mut(&it)) {
            group.tasks.remove(&key.1);
        }
        if is_charged {
            self.release(key);
        }
    }

    /// Some update of the task is durable: if it was its last, its container need not be found again (S18).
    pub(crate) fn forget_container(&mut self, key: &TaskKey, effects: &mut Effects) {
        let told = self
            .streams
            .get(key)
            .and_then(|stream| stream.latest(self.durable));
        if told.is_none_or(|status| !status.state.is_terminal()) {
            return;
        }
        let task = self.tasks.get_mut(key);
        if let Some(container) = task.and_then(|task| task.ended_in.take()) {
            effects.push(Effect::ForgetContainer { container });
        }
    }

    /// Gives back what the task took.
    pub(crate) fn release(&mut self, key: &TaskKey) {
        let task = self.tasks.get(key).expect("callers have looked it up");
        self.free
            .checked_add_assign(&task.run.task.resources)
            .expect("they were taken from what is free");
    }

    pub(crate) fn status(
        &self,
        task_id: &TaskId,
        state: TaskState,
        source: Source,
        now: Timestamp,
    ) -> TaskStatus {
        let mut status = TaskStatus::new(task_id.clone(), state, source, now);
        status.slave_id = self.slave_id();
        status
    }

    fn task_in(&mut self, container: ContainerId) -> Option<(TaskKey, &mut Task)> {
        let Some(key) = self.containers.get(&container) else {
            self.ignore_container(container, "not known");
            return None;
        };
        let task = self
            .tasks
            .get_mut(key)
            .expect("S5: every container has its task");
        Some((key.clone(), task))
    }

    pub(crate) fn ignore_container(&mut self, container: ContainerId, why: &'static str) {
        warn!(%container, why, "news of a container ignored");
        self.counters.container_events_ignored += 1;
    }
}

/// Why a task is over whose container has ended.
fn end_of(task: &Task, by_itself: impl FnOnce(&Task) -> End) -> End {
    match task.ending {
        // Seen running only if it was told so.
        Some(ending) if task.is_unheard() => killed_during_launch(ending.cause),
        Some(ending) => ended_by_us(ending.cause, task),
        None => by_itself(task),
    }
}

/// semantics: G2
pub(crate) fn lost() -> End {
    let message = "the process that watched over it (meros-shim) was killed or crashed, and the task \
                   was killed then";
    End::by_slave(TaskState::Failed, Reason::IoSwitchboardExited, message)
}

/// semantics: G2
pub(crate) fn killed_during_launch(cause: Cause) -> End {
    let message = match cause {
        Cause::SlaveGoes => "the slave stopped before the task ran",
        Cause::Group => {
            "not run: another task of its group failed, was killed or could not be started"
        }
        _ => "killed before it ran",
    };
    End::by_slave(TaskState::Killed, Reason::TaskKilledDuringLaunch, message)
}

pub(crate) fn ended_by_us(cause: Cause, task: &Task) -> End {
    let (state, reason, message) = match cause {
        Cause::Requested | Cause::FrameworkGone => {
            (TaskState::Killed, None, "killed on request".to_owned())
        }
        Cause::Group => {
            let message = "killed because another task of its group failed or was killed";
            (TaskState::Killed, None, message.to_owned())
        }
        Cause::SlaveGoes => {
            let message = "killed because its slave was stopped".to_owned();
            (TaskState::Killed, Some(Reason::SlaveDraining), message)
        }
        Cause::Unhealthy => (
            TaskState::Killed,
            Some(Reason::TaskHealthCheckStatusUpdated),
            task.checks.why_unhealthy(),
        ),
        Cause::CompletionTime => {
            let most = task.run.task.max_completion_time.unwrap_or_default();
            let message = format!("ran longer than its max_completion_time of {most:?}");
            (
                TaskState::Failed,
                Some(Reason::MaxCompletionTimeReached),
                message,
            )
        }
    };
    End {
        state,
        source: Source::Executor,
        reason,
        message,
        exit: None,
        limitation: None,
    }
}

pub(crate) fn ended_by_itself(exit: &ContainerExit, task: &TaskDescription) -> End {
    if let Some(limitation) = &exit.limitation {
        let message = limitation.message.clone();
        return End {
            limitation: limit_broken(limitation.reason, task),
            ..End::by_slave(TaskState::Failed, limitation.reason, message)
        };
    }
    let (state, message) = match exit.exit {
        TaskExit::Code(0) => (TaskState::Finished, String::new()),
        TaskExit::Code(code) => (TaskState::Failed, format!("exited with code {code}")),
        TaskExit::Signal(number) => (
            TaskState::Failed,
            format!("ended by signal {}", signal_name(number)),
        ),
    };
    let message = if exit.message.is_empty() {
        message
    } else {
        exit.message.clone()
    };
    End {
        state,
        source: Source::Executor,
        reason: None,
        message,
        exit: None,
        limitation: None,
    }
}

/// The limit that the task was given of what it had too little of.
fn limit_broken(reason: Reason, task: &TaskDescription) -> Option<Resources> {
    let asked = |name: &ResourceName| task.resources.scalar(name);
    let (name, limit) = match reason {
        Reason::ContainerLimitationMemory => {
            let name = ResourceName::MEM;
            let limit = task.limits.mem.unwrap_or_else(|| asked(&name));
            (name, limit)
        }
        Reason::ContainerLimitationDisk => {
            let name = ResourceName::DISK;
            let limit = asked(&name);
            (name, limit)
        }
        _ => return None,
    };
    let limit = Resource::new(name, limit).ok().map(Resources::from);
    // A task that asks for none has a limit of the slave's own making, which the message names.
    limit.filter(|limit| !limit.is_empty())
}
