//! Executors of frameworks: started for their first task, and ended (semantics M). What is said between, see
//! `sessions`.
//!
//! Invariants: X1 an executor's resources are taken once, from its first task until its end.

use std::time::Duration;

use meros_proto::executor::{
    EXECUTOR_ID_BYTES_MAX, EXECUTORS_PER_SLAVE_MAX, TASKS_PER_EXECUTOR_MAX,
};
use meros_proto::ids::{ExecutorId, FrameworkId};
use meros_proto::message::executor::SlaveToExecutor;
use meros_proto::message::master::SlaveToMaster;
use meros_proto::message::slave::{RunExecutor, RunTask};
use meros_proto::status::{Reason, TaskExit, TaskState};
use meros_proto::task::Command;
use meros_proto::time::Timestamp;
use tracing::info;

use crate::event::{ContainerExit, ContainerId, ExecutorKey};
use crate::executor::{Executor, ExecutorCause, ExecutorEnding, ExecutorPhase, ExecutorSummary};
use crate::launch::{End, ended_by_us, lost};
use crate::signal::signal_name;
use crate::task::{Cause, Phase, Task};
use crate::timers::Due;
use crate::{Awaiting, Effect, Effects, Record, SlaveCore, TaskKey};

/// How the container of an executor ended.
enum HowEnded {
    NotStarted(String),
    Exited(ContainerExit),
    Lost,
    /// There never was one.
    NeverStarted,
}

/// Whose task this is, if an executor of its framework runs it.
pub(crate) fn executor_key(run: &RunTask) -> Option<ExecutorKey> {
    let executor = run.task.executor.as_ref().filter(|it| !it.is_group())?;
    Some((run.framework.framework_id, executor.executor_id.clone()))
}

impl SlaveCore {
    /// Executors that are here, by key, then groups.
    pub fn executors(&self) -> impl Iterator<Item = ExecutorSummary<'_>> {
        let groups = self.groups.iter().map(|(key, it)| ExecutorSummary {
            framework_id: key.0,
            executor_id: &key.1,
            run: &it.run,
            container: None,
            pid: None,
            is_subscribed: false,
            tasks: it.tasks.len(),
            promised: &it.run.executor.resources,
        });
        let executors = self.executors.iter().map(|(key, it)| ExecutorSummary {
            framework_id: key.0,
            executor_id: &key.1,
            run: &it.run,
            container: it.container(),
            pid: it.pid(),
            is_subscribed: it.session.is_some(),
            tasks: it.tasks.len(),
            promised: &it.promised,
        });
        executors.chain(groups)
    }

    /// The container of an executor, and what it was started as; none before its container was asked for.
    #[must_use]
    pub fn executor(&self, key: &ExecutorKey) -> Option<(ContainerId, &RunExecutor)> {
        let executor = self.executors.get(key)?;
        Some((executor.container()?, &executor.run))
    }

    /// Whether the processes of an executor run, as far as is known: only then it may subscribe.
    #[must_use]
    pub fn is_executor_running(&self, key: &ExecutorKey) -> bool {
        let executor = self.executors.get(key);
        executor.is_some_and(|it| it.pid().is_some())
    }

    pub(crate) fn on_run_in_executor(
        &mut self,
        run: Box<RunTask>,
        starts: bool,
        now: Timestamp,
        effects: &mut Effects,
    ) {
        let Some(executor) = executor_key(&run) else {
            // Refused there, if it is a group's.
            return self.on_run_task(run, now, effects);
        };
        let key = (run.framework.framework_id, run.task.task_id.clone());
        let is_known = self.tasks.contains_key(&key) || self.streams.contains_key(&key);
        let refusal = match is_known {
            true => None,
            false => self.refuse_in_executor(&run, &executor, starts),
        };
        if is_known || refusal.is_some() {
            match refusal {
                Some(refusal) => {
                    self.counters.tasks_refused += 1;
                    self.update_phantom(key, refusal, now, effects);
                }
                None => self.counters.duplicate_tasks += 1,
            }
            if starts && !self.executors.contains_key(&executor) {
                // The master has charged one that will not be.
                self.tell_executor_ended(executor, None, effects);
            }
            return;
        }
        if !self.executors.contains_key(&executor) {
            self.add_executor(&run, executor.clone(), effects);
        }
        self.free
            .checked_sub_assign(&run.task.resources)
            .expect("refuse_in_executor has seen that they are free");
        self.counters.tasks_accepted += 1;
        let record = Record::TaskAdded(run.clone());
        let record = self.persist_for(record, Awaiting::Task(key.clone()), effects);
        let its = self.executors.get_mut(&executor).expect("just added");
        its.tasks.insert(key.1.clone());
        self.tasks
            .insert(key, Task::new(run, Phase::Accepted { record }));
    }

    fn add_executor(&mut self, run: &RunTask, key: ExecutorKey, effects: &mut Effects) {
        let executor = run.task.executor.clone().expect("executor_key has seen it");
        self.free
            .checked_sub_assign(&executor.resources)
            .expect("refuse_in_executor has seen that they are free");
        let run = Box::new(RunExecutor {
            framework: run.framework.clone(),
            role: run.role.clone(),
            executor,
        });
        self.counters.executors_started += 1;
        self.persist(Record::ExecutorAdded(run.clone()), effects);
        self.executors.insert(key, Executor::new(run));
    }

    /// The first that applies.
    fn refuse_in_executor(&self, run: &RunTask, key: &ExecutorKey, starts: bool) -> Option<End> {
        let dropped =
            |reason, message: String| Some(End::by_slave(TaskState::Dropped, reason, message));
        if let Some(end) = self.refuse_place(run) {
            return Some(end);
        }
        let wanted = run.task.executor.as_ref()?;
        let mut need = run.task.resources.clone();
        if self.groups.contains_key(key) {
            let message = format!("{} is the id of a group here: give another one", key.1);
            return dropped(Reason::TaskInvalid, message);
        }
        match self.executors.get(key) {
            // semantics: G2, never started
            Some(it) if it.ending.is_some() || it.abandoned => {
                let message = format!("executor {} is ending: launch it again when it has", key.1);
                return dropped(Reason::ExecutorTerminated, message);
            }
            Some(it) if !is_same(&it.run, run) => {
                let message = format!(
                    "executor {} runs here with another description: give both the same, or the task \
                     another executor_id",
                    key.1
                );
                return dropped(Reason::TaskInvalid, message);
            }
            Some(it) if it.tasks.len() >= TASKS_PER_EXECUTOR_MAX => {
                let message = format!(
                    "executor {} has {TASKS_PER_EXECUTOR_MAX} tasks, which is the limit",
                    key.1
                );
                return dropped(Reason::ResourcesUnknown, message);
            }
            Some(_) => {}
            None if !starts => {
                let message = format!("executor {} has ended meanwhile: launch it again", key.1);
                return dropped(Reason::ExecutorTerminated, message);
            }
            None if self.executors.len() + self.groups.len() >= EXECUTORS_PER_SLAVE_MAX => {
                let message = format!(
                    "the slave has {EXECUTORS_PER_SLAVE_MAX} executors, which is its limit"
                );
                return dropped(Reason::ResourcesUnknown, message);
            }
            None if key.1.as_str().len() > EXECUTOR_ID_BYTES_MAX => {
                let message =
                    format!("the id of its executor has more than {EXECUTOR_ID_BYTES_MAX} bytes");
                return dropped(Reason::TaskInvalid, message);
            }
            None => {
                if let Err(why) = need.checked_add_assign(&wanted.resources) {
                    return dropped(Reason::TaskInvalid, why.to_string());
                }
            }
        }
        self.refuse_room(run, &need)
    }

    /// The task's record is durable: now its executor may be started, or given it.
    pub(crate) fn start_in_executor(
        &mut self,
        task: &TaskKey,
        key: &ExecutorKey,
        effects: &mut Effects,
    ) {
        let Some(slave_id) = self.slave_id() else {
            return;
        };
        if let Some(task) = self.tasks.get_mut(task) {
            task.phase = Phase::Queued;
        }
        let Some(executor) = self.executors.get_mut(key) else {
            return;
        };
        if executor.session.is_some() && executor.ending.is_none() {
            return self.give(task, key, effects);
        }
        if executor.phase != ExecutorPhase::Accepted {
            return;
        }
        self.containers_made += 1;
        let container = ContainerId {
            incarnation: self.incarnation,
            number: self.containers_made,
        };
        executor.phase = ExecutorPhase::Starting { container };
        let run = executor.run.clone();
        let ends_with_slave = !self.executor_outlives(&run);
        self.executor_containers.insert(container, key.clone());
        effects.push(Effect::StartExecutor {
            container,
            slave_id,
            run,
            ends_with_slave,
        });
    }

    fn executor_outlives(&self, run: &RunExecutor) -> bool {
        run.framework.checkpoint && !self.config.tasks_end_with_slave
    }

    /// Its container may use what it and the tasks that it was given take.
    pub(crate) fn resize_executor(&self, key: &ExecutorKey, effects: &mut Effects) {
        let Some(executor) = self.executors.get(key).filter(|it| it.ending.is_none()) else {
            return;
        };
        let ExecutorPhase::Running { container, .. } = executor.phase else {
            return;
        };
        effects.resize(container, executor.promised.clone());
    }

    pub(crate) fn on_executor_started(
        &mut self,
        key: &ExecutorKey,
        container: ContainerId,
        pid: u32,
        now: Timestamp,
        effects: &mut Effects,
    ) {
        let Some(executor) = self.executors.get_mut(key) else {
            return;
        };
        if executor.phase != (ExecutorPhase::Starting { container }) {
            return self.ignore_container(container, "started twice");
        }
        executor.phase = ExecutorPhase::Running { container, pid };
        if let Some(ending) = &mut executor.ending {
            let grace = ending.grace;
            ending.kill_at = Some(now.after(grace));
            return effects.push(Effect::KillContainer { container, grace });
        }
        // semantics: M4
        let at = now.after(self.config.executor_registration_timeout);
        self.timers.set(Due::Executor(key.clone()), at);
    }

    pub(crate) fn on_executor_not_started(
        &mut self,
        key: &ExecutorKey,
        container: ContainerId,
        message: String,
        now: Timestamp,
        effects: &mut Effects,
    ) {
        let executor = self.executors.get(key);
        if executor.is_some_and(|it| it.phase != (ExecutorPhase::Starting { container })) {
            return self.ignore_container(container, "failed to start after its start");
        }
        self.end_executor(key, HowEnded::NotStarted(message), now, effects);
    }

    pub(crate) fn on_executor_exited(
        &mut self,
        key: &ExecutorKey,
        exit: Option<ContainerExit>,
        now: Timestamp,
        effects: &mut Effects,
    ) {
        let how = exit.map_or(HowEnded::Lost, HowEnded::Exited);
        self.end_executor(key, how, now, effects);
    }

    /// A task was killed before its executor was given it: one that waits for nothing else is not needed.
    pub(crate) fn end_if_idle(&mut self, key: &ExecutorKey, now: Timestamp, effects: &mut Effects) {
        let executor = self.executors.get(key);
        if executor.is_some_and(|it| !it.was_subscribed && it.tasks.is_empty()) {
            self.shut_down_executor(key, ExecutorCause::Idle, None, now, effects);
        }
    }

    pub(crate) fn on_shutdown_executor(
        &mut self,
        key: &ExecutorKey,
        now: Timestamp,
        effects: &mut Effects,
    ) {
        self.shut_down_executor(key, ExecutorCause::Requested, None, now, effects);
        self.kill_members(key, Cause::Requested, now, effects);
    }

    /// Ends an executor from wherever it is; a repeat may only shorten the grace (semantics M4).
    pub(crate) fn shut_down_executor(
        &mut self,
        key: &ExecutorKey,
        cause: ExecutorCause,
        grace: Option<Duration>,
        now: Timestamp,
        effects: &mut Effects,
    ) {
        let Some(executor) = self.executors.get_mut(key) else {
            return;
        };
        let own = executor.grace();
        let grace = grace.map_or(own, |grace| grace.min(own));
        let ending = executor.ending.get_or_insert(ExecutorEnding {
            cause,
            grace,
            kill_at: None,
        });
        ending.grace = ending.grace.min(grace);
        match executor.phase {
            ExecutorPhase::Accepted => {
                self.end_executor(key, HowEnded::NeverStarted, now, effects);
            }
            ExecutorPhase::Starting { container }
                if (executor.run.executor.command.as_ref()).is_some_and(Command::is_prepared) =>
            {
                effects.push(Effect::CancelStart { container });
            }
            // When the container answers.
            ExecutorPhase::Starting { .. } => {}
            ExecutorPhase::Running { container, .. } => {
                let kill_at = now.after(grace);
                if ending.kill_at.is_some_and(|known| known <= kill_at) {
                    return;
                }
                ending.kill_at = Some(kill_at);
                let due = Due::Executor(key.clone());
                if executor.session.is_some() {
                    self.timers.set(due, kill_at);
                    self.tell(key, SlaveToExecutor::Shutdown { grace }, effects);
                } else {
                    self.timers.clear(&due);
                    effects.push(Effect::KillContainer { container, grace });
                }
            }
        }
    }

    /// It has not subscribed in time, or not ended in time.
    pub(crate) fn on_executor_due(
        &mut self,
        key: &ExecutorKey,
        now: Timestamp,
        effects: &mut Effects,
    ) {
        let Some(executor) = self.executors.get(key) else {
            return;
        };
        if executor.ending.is_some() {
            if let Some(container) = executor.container() {
                let grace = Duration::ZERO;
                effects.push(Effect::KillContainer { container, grace });
            }
            return;
        }
        let cause = match executor.was_subscribed {
            true => ExecutorCause::LostSight,
            false => ExecutorCause::NeverSubscribed,
        };
        info!(framework_id = %key.0, executor_id = %key.1, ?cause, "executor did not subscribe in time");
        self.counters.executors_timed_out += 1;
        self.shut_down_executor(key, cause, None, now, effects);
    }

    /// Its process tree is dead or never was.
    fn end_executor(
        &mut self,
        key: &ExecutorKey,
        how: HowEnded,
        now: Timestamp,
        effects: &mut Effects,
    ) {
        let Some(executor) = self.executors.remove(key) else {
            return;
        };
        self.timers.clear(&Due::Executor(key.clone()));
        if let Some(session) = executor.session {
            self.sessions.remove(&session);
            effects.push(Effect::CloseSession { session });
        }
        let container = executor.container();
        if let Some(container) = container {
            self.executor_containers.remove(&container);
        }
        if executor.abandoned {
            if let Some(container) = container {
                effects.push(Effect::ForgetContainer { container });
            }
            return self.tell_if_forgotten(key.0, effects);
        }
        for id in &executor.tasks {
            let task_key = (key.0, id.clone());
            if let Some(task) = self.tasks.get(&task_key) {
                let end = end_with(&executor, task, &how);
                self.end_task(&task_key, end, now, effects);
            }
        }
        self.free
            .checked_add_assign(&executor.run.executor.resources)
            .expect("they were taken from what is free");
        let exit = match how {
            HowEnded::Exited(exit) => Some(exit.exit),
            _ => None,
        };
        self.forget_executor(key.clone(), container, effects);
        self.tell_executor_ended(key.clone(), exit, effects);
    }

    /// After the ends of its tasks: once this is durable, so are they (S18).
    pub(crate) fn forget_executor(
        &mut self,
        key: ExecutorKey,
        container: Option<ContainerId>,
        effects: &mut Effects,
    ) {
        let record = Record::ExecutorForgotten { executor: key };
        match container {
            Some(container) => {
                self.persist_for(record, Awaiting::ExecutorEnd(container), effects);
            }
            None => {
                self.persist(record, effects);
            }
        }
    }

    /// The master has it in its books; on the next connection the report says it.
    pub(crate) fn tell_executor_ended(
        &mut self,
        key: ExecutorKey,
        exit: Option<TaskExit>,
        effects: &mut Effects,
    ) {
        match self.link {
            Some(link) if link.is_registered() => effects.push(Effect::Send {
                connection: link.connection,
                message: ended_message(key, exit),
            }),
            // Maybe after the report.
            Some(_) => self.executors_ended.push((key, exit)),
            None => {}
        }
    }

    /// What has ended between the report and the welcome.
    pub(crate) fn tell_executors_ended(&mut self, effects: &mut Effects) {
        let Some(link) = self.link else { return };
        for (key, exit) in std::mem::take(&mut self.executors_ended) {
            effects.push(Effect::Send {
                connection: link.connection,
                message: ended_message(key, exit),
            });
        }
    }

    pub(crate) fn executors_of(&self, framework_id: FrameworkId) -> Vec<ExecutorKey> {
        let keys = self.executors.keys();
        keys.filter(|key| key.0 == framework_id).cloned().collect()
    }

    /// The framework is gone: the executor takes nothing any more, and nobody is told of its end.
    pub(crate) fn abandon_executor(
        &mut self,
        key: &ExecutorKey,
        now: Timestamp,
        effects: &mut Effects,
    ) {
        let Some(executor) = self.executors.get_mut(key) else {
            return;
        };
        if std::mem::replace(&mut executor.abandoned, true) {
            return;
        }
        executor.tasks.clear();
        self.free
            .checked_add_assign(&executor.run.executor.resources)
            .expect("they were taken from what is free");
        self.shut_down_executor(key, ExecutorCause::FrameworkGone, None, now, effects);
    }

    /// The slave goes: executors that go with it are ended.
    pub(crate) fn end_executors_with_slave(
        &mut self,
        grace: Duration,
        now: Timestamp,
        effects: &mut Effects,
    ) {
        let keys: Vec<ExecutorKey> = self.executors.keys().cloned().collect();
        for key in keys {
            if self.executor_ends_now(&self.executors[&key]) {
                let cause = ExecutorCause::SlaveGoes;
                self.shut_down_executor(&key, cause, Some(grace), now, effects);
            }
        }
    }

    fn executor_ends_now(&self, executor: &Executor) -> bool {
        let for_good = self.going.is_some_and(|going| going.unregister);
        for_good || executor.container().is_none() || !self.executor_outlives(&executor.run)
    }

    /// Whether a slave that goes has to wait for this executor.
    pub(crate) fn is_executor_waited_for(&self, executor: &Executor) -> bool {
        executor.pid().is_none() || executor.ending.is_some() || self.executor_ends_now(executor)
    }
}

fn ended_message(key: ExecutorKey, exit: Option<TaskExit>) -> SlaveToMaster {
    SlaveToMaster::ExecutorEnded {
        framework_id: key.0,
        executor_id: key.1,
        exit,
    }
}

fn is_same(known: &RunExecutor, run: &RunTask) -> bool {
    run.task.executor.as_ref() == Some(&known.executor)
}

/// semantics: L3
pub(crate) fn never_given() -> End {
    let message = "its slave restarted before its executor was given the task";
    End::by_slave(TaskState::Dropped, Reason::SlaveRestarted, message)
}

/// Why a task is over whose executor has ended (semantics G2, M4).
fn end_with(executor: &Executor, task: &Task, how: &HowEnded) -> End {
    let failed = |reason, message: String| End::by_slave(TaskState::Failed, reason, message);
    if let HowEnded::NotStarted(message) = how {
        return failed(Reason::ContainerLaunchFailed, message.clone());
    }
    let id = &executor.run.executor.executor_id;
    let was_given = task.phase == Phase::Given;
    if executor.is_inherited && !was_given {
        return never_given();
    }
    if executor.ending.is_some() && executor.was_subscribed && !was_given {
        let message = format!("its executor {id} was ending when it came: launch it again");
        return End::by_slave(TaskState::Dropped, Reason::ExecutorTerminated, message);
    }
    match executor.ending.map(|ending| ending.cause) {
        Some(ExecutorCause::NeverSubscribed) => {
            let message = format!(
                "its executor {id} was started and did not subscribe in time: it has to call \
                 run_executor of the SDK, or SUBSCRIBE of the v1 API; its output says more"
            );
            failed(Reason::ExecutorRegistrationTimeout, message)
        }
        Some(ExecutorCause::LostSight) => {
            let message = format!("its executor {id} did not subscribe again in time");
            End::by_slave(
                TaskState::Gone,
                Reason::ExecutorReregistrationTimeout,
                message,
            )
        }
        Some(ExecutorCause::SlaveGoes) => ended_by_us(Cause::SlaveGoes, task),
        Some(ExecutorCause::Requested) => {
            let message = format!("its executor {id} was shut down on request");
            failed(Reason::ExecutorTerminated, message)
        }
        Some(ExecutorCause::Idle | ExecutorCause::FrameworkGone) | None => match how {
            _ if task.ending.is_some() => {
                ended_by_us(task.ending.map_or(Cause::Requested, |it| it.cause), task)
            }
            HowEnded::Exited(exit) => ended_with_exit(id, exit),
            HowEnded::Lost | HowEnded::NeverStarted | HowEnded::NotStarted(_) => lost(),
        },
    }
}

pub(crate) fn ended_with_exit(id: &ExecutorId, exit: &ContainerExit) -> End {
    if let Some(limitation) = &exit.limitation {
        let message = format!("its executor {id} was ended: {}", limitation.message);
        return End::by_slave(TaskState::Failed, limitation.reason, message);
    }
    let how = match exit.exit {
        _ if !exit.message.is_empty() => exit.message.clone(),
        TaskExit::Code(code) => format!("exited with code {code}"),
        TaskExit::Signal(number) => format!("was ended by signal {}", signal_name(number)),
    };
    let message = format!("its executor {id} ended before it: {how}");
    End::by_slave(TaskState::Failed, Reason::ExecutorTerminated, message)
}
