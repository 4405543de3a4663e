//! A new life: containers that run on are taken up, and what an earlier life left unfinished is
//! finished with an update (semantics L).
//!
//! What is remembered decides about tasks, what was found about their fate. A container that was found
//! and belongs to no task that is remembered is killed; one that has ended is forgotten as soon as its
//! end is durable.

use std::collections::BTreeMap;
use std::time::Duration;

use meros_proto::ids::ExecutorId;
use meros_proto::mutant::Mutant;
use meros_proto::status::{Reason, Source, TaskState};
use meros_proto::time::Timestamp;
use tracing::{info, warn};

use crate::checkpoint::{Checkpoint, CheckpointedExecutor, CheckpointedTask, Record};
use crate::event::{ContainerExit, ContainerId, ExecutorKey, FoundContainer, FoundState, Owner};
use crate::executor::{Executor, ExecutorPhase};
use crate::executors::{ended_with_exit, executor_key, never_given};
use crate::groups::group_key;
use crate::launch::{End, ended_by_itself, ended_by_us, lost};
use crate::stream::Stream;
use crate::task::{Cause, Ending, Phase, Task, executor_of};
use crate::timers::Due;
use crate::{Effect, Effects, SlaveCore, TaskKey};

impl SlaveCore {
    pub(crate) fn recover(
        &mut self,
        recovered: Checkpoint,
        mut found: Vec<FoundContainer>,
        now: Timestamp,
        effects: &mut Effects,
    ) {
        let Checkpoint {
            identity,
            tasks,
            executors,
            updates,
            claims,
            ..
        } = recovered;
        self.claims = claims;
        for directory in self.claims.wiping.iter().cloned() {
            effects.push(Effect::WipeVolume { directory });
        }
        let (mut of_tasks, mut of_executors) = (BTreeMap::new(), BTreeMap::new());
        found.sort_by_key(|found| found.container);
        for found in found {
            // A task has one container in its life; a task of the same id came after it.
            let older = match found.owner.clone() {
                Owner::Task(key) if tasks.contains_key(&key) => of_tasks.insert(key, found),
                Owner::Executor(key) if executors.contains_key(&key) => {
                    of_executors.insert(key, found)
                }
                _ => Some(found),
            };
            if let Some(older) = older {
                self.clear_stray(older, effects);
            }
        }
        if identity.is_none() {
            for found in of_tasks.into_values().chain(of_executors.into_values()) {
                self.clear_stray(found, effects);
            }
            self.forget_answers(effects);
            if !tasks.is_empty() || !executors.is_empty() || !updates.is_empty() {
                // Nobody would know whose tasks these were.
                self.persist(Record::Left, effects);
            }
            return;
        }
        for (key, statuses) in updates {
            let stream = Stream::recovered(statuses);
            if !stream.is_empty() {
                self.phantoms += usize::from(!tasks.contains_key(&key));
                self.streams.insert(key, stream);
            }
        }
        let (total, mut ended, mut running) = (tasks.len(), 0, 0);
        let mut gone = BTreeMap::new();
        for (key, executor) in executors {
            if executor.run.executor.is_group() {
                self.take_up_group(&key, executor, effects);
                continue;
            }
            let found = of_executors.remove(&key);
            if let Some(found) = self.take_up_executor(&key, executor, found, now) {
                gone.insert(key, found);
            }
        }
        for (key, CheckpointedTask { run, reached }) in tasks {
            let mut task = Task::new(run, Phase::Ended);
            let newest = self.streams.get(&key).and_then(Stream::newest_state);
            task.state = newest.unwrap_or(reached);
            let told = self.streams.get(&key).and_then(Stream::newest);
            task.checks.resume(told);
            let started = reached != TaskState::Staging;
            let is_over = task.state.is_terminal();
            self.tasks.insert(key.clone(), task);
            let found = of_tasks.remove(&key);
            let executor = executor_key(&self.tasks[&key].run).filter(|_| !is_over);
            if let Some(executor) = executor {
                if self.take_up_in_executor(&key, &executor, now) {
                    running += 1;
                } else {
                    ended += 1;
                    let found = gone.get(&executor).and_then(Option::as_ref);
                    self.end_in_executor(&key, &executor.1, started, found, now, effects);
                }
                continue;
            }
            if is_over || Mutant::LeaveLostTasks.is_on() {
                if let Some(found) = found {
                    self.clear_stray(found, effects);
                }
                continue;
            }
            match found {
                Some(FoundContainer {
                    container,
                    age,
                    state: FoundState::Running { pid },
                    ..
                }) if self.take_up(&key, container, pid, age, now, effects) => running += 1,
                found => {
                    ended += 1;
                    let found = found.filter(|found| !self.kill_stray(found, effects));
                    self.end_recovered(&key, started, found, now, effects);
                }
            }
        }
        for (key, found) in gone {
            let found = found.filter(|found| !self.kill_stray(found, effects));
            self.forget_executor(key, found.map(|found| found.container), effects);
        }
        self.settle_groups(now, effects);
        // A damaged checkpoint may have lost a task but not its updates; if the last one is not
        // the end of the task, the master asks for the task when the slave re-registers (K6).
        let open: Vec<TaskKey> = self
            .streams
            .iter()
            .filter(|(_, stream)| !stream.newest_state().is_some_and(TaskState::is_terminal))
            .filter(|(key, _)| !self.tasks.contains_key(*key))
            .map(|(key, _)| key.clone())
            .collect();
        for key in open {
            self.drop_stream(&key);
            self.persist(Record::TaskForgotten { task: key }, effects);
        }
        if total > 0 {
            info!(
                tasks = total,
                running, ended, "recovered tasks of an earlier life"
            );
        }
    }

    /// A container that is no task's.
    fn clear_stray(&mut self, found: FoundContainer, effects: &mut Effects) {
        if !self.kill_stray(&found, effects) {
            let container = found.container;
            effects.push(Effect::ForgetContainer { container });
        }
    }

    /// Whether there was anything to kill.
    fn kill_stray(&mut self, found: &FoundContainer, effects: &mut Effects) -> bool {
        let container = found.container;
        let FoundState::Running { .. } = found.state else {
            return false;
        };
        warn!(%container, owner = %found.owner, "a container that nobody has any more is killed");
        self.strays.insert(container);
        let grace = Duration::ZERO;
        effects.push(Effect::KillContainer { container, grace });
        true
    }

    /// A task that runs on. False if there is no room for it any more.
    fn take_up(
        &mut self,
        key: &TaskKey,
        container: ContainerId,
        pid: u32,
        age: Duration,
        now: Timestamp,
        effects: &mut Effects,
    ) -> bool {
        let task = self.tasks.get_mut(key).expect("just inserted");
        let group = group_key(&task.run);
        // Its group does not fit any more.
        let is_orphan = group
            .as_ref()
            .is_some_and(|it| !self.groups.contains_key(it));
        if is_orphan
            || self
                .free
                .checked_sub_assign(&task.run.task.resources)
                .is_err()
        {
            return false;
        }
        if let Some(group) = group.as_ref().and_then(|it| self.groups.get_mut(it)) {
            group.tasks.insert(key.1.clone());
        }
        task.phase = Phase::Running { container, pid };
        self.containers.insert(container, key.clone());
        let (state, most) = (task.state, task.run.task.max_completion_time);
        let grace = task.grace(None);
        let cause = self.cause_of_kill(key);
        if let Some(most) = most {
            let left = most.saturating_sub(age);
            self.timers
                .set(Due::Completion(key.clone()), now.after(left));
        }
        // Its framework has heard of it; a new master has not.
        let acknowledged = !self.streams.contains_key(key);
        match state {
            TaskState::Killing => {
                // It had been told, and maybe not done.
                let kill_at = Some(now.after(grace));
                let task = self.tasks.get_mut(key).expect("just inserted");
                task.ending = Some(Ending {
                    cause,
                    grace,
                    kill_at,
                });
                effects.push(Effect::KillContainer { container, grace });
            }
            TaskState::Running => self.start_checks(key, age, now),
            // Told when it is known of all of its group that they run.
            _ if group.is_some() => return true,
            _ => {
                self.start_checks(key, age, now);
                let status = self.running(key, now);
                self.update_task(key, status, effects);
                return true;
            }
        }
        if acknowledged {
            let status = self.living(key, state, now);
            let task = self.tasks.get_mut(key).expect("just inserted");
            task.acknowledged = Some(Box::new(status));
        }
        true
    }

    /// Why a task was being killed by an earlier life, as far as its framework has not said that it knows.
    fn cause_of_kill(&self, key: &TaskKey) -> Cause {
        let told = self.streams.get(key).and_then(Stream::newest);
        match told.and_then(|told| told.reason) {
            Some(Reason::TaskHealthCheckStatusUpdated) => Cause::Unhealthy,
            _ => Cause::Requested,
        }
    }

    /// An executor that runs on; else what was found of it.
    fn take_up_executor(
        &mut self,
        key: &ExecutorKey,
        CheckpointedExecutor { run, heard }: CheckpointedExecutor,
        found: Option<FoundContainer>,
        now: Timestamp,
    ) -> Option<Option<FoundContainer>> {
        let Some(FoundContainer {
            container,
            state: FoundState::Running { pid },
            ..
        }) = found
        else {
            return Some(found);
        };
        if self
            .free
            .checked_sub_assign(&run.executor.resources)
            .is_err()
        {
            return Some(found);
        }
        let mut executor = Executor::new(run);
        executor.phase = ExecutorPhase::Running { container, pid };
        // It may not have: but then it was given nothing either.
        executor.was_subscribed = true;
        executor.is_inherited = true;
        executor.heard = heard;
        self.executor_containers.insert(container, key.clone());
        self.executors.insert(key.clone(), executor);
        // One that has never been heard may still be coming up.
        let again = self.config.executor_reregistration_timeout;
        let patience = match heard {
            0 => again.max(self.config.executor_registration_timeout),
            _ => again,
        };
        self.timers
            .set(Due::Executor(key.clone()), now.after(patience));
        None
    }

    /// A task that its executor may have. What it makes of it, it says when it subscribes (semantics L2).
    fn take_up_in_executor(
        &mut self,
        key: &TaskKey,
        executor: &ExecutorKey,
        now: Timestamp,
    ) -> bool {
        let Some(its) = self.executors.get_mut(executor) else {
            return false;
        };
        let task = self.tasks.get_mut(key).expect("just inserted");
        if self
            .free
            .checked_sub_assign(&task.run.task.resources)
            .is_err()
        {
            return false;
        }
        its.tasks.insert(key.1.clone());
        its.promise(&task.run.task.resources);
        task.phase = Phase::Given;
        let (state, most) = (task.state, task.run.task.max_completion_time);
        if let Some(most) = most.filter(|_| state == TaskState::Running) {
            // How long it has run, only the executor knows: it gets the time anew.
            let due = Due::Completion(key.clone());
            self.timers.set(due, now.after(most));
        }
        // Its framework has heard of it; a new master has not.
        if state != TaskState::Staging && !self.streams.contains_key(key) {
            let status = self.living(key, state, now);
            let task = self.tasks.get_mut(key).expect("just inserted");
            task.acknowledged = Some(Box::new(status));
        }
        true
    }

    fn end_in_executor(
        &mut self,
        key: &TaskKey,
        executor: &ExecutorId,
        started: bool,
        found: Option<&FoundContainer>,
        now: Timestamp,
        effects: &mut Effects,
    ) {
        let end = match found.map(|found| &found.state) {
            None | Some(FoundState::NeverRan) if !started => never_given(),
            Some(FoundState::Ended(exit)) => ended_with_exit(executor, exit),
            Some(FoundState::Lost) => lost(),
            state => {
                let message = match state {
                    Some(FoundState::Rebooted) => "its machine was restarted",
                    _ => "its slave restarted, and its executor ended with it",
                };
                let reason = Reason::ExecutorReregistrationTimeout;
                End::by_slave(TaskState::Gone, reason, message)
            }
        };
        let mut status = end.tell(self.status(&key.1, TaskState::Dropped, Source::Slave, now));
        status.executor_id = Some(executor.clone());
        self.update_task(key, status, effects);
    }

    fn end_recovered(
        &mut self,
        key: &TaskKey,
        started: bool,
        found: Option<FoundContainer>,
        now: Timestamp,
        effects: &mut Effects,
    ) {
        let task = &self.tasks[key];
        let container = found.as_ref().map(|found| found.container);
        let was_being_killed = task.state == TaskState::Killing;
        let cause = self.cause_of_kill(key);
        let task = &self.tasks[key];
        let gone = |message: &str| {
            End::by_slave(
                TaskState::Gone,
                Reason::ExecutorReregistrationTimeout,
                message,
            )
        };
        let end = match found.map(|found| found.state) {
            Some(FoundState::Ended(exit)) => {
                let ContainerExit { exit: how, .. } = exit;
                let mut end = match was_being_killed {
                    true => ended_by_us(cause, task),
                    false => ended_by_itself(&exit, &task.run.task),
                };
                end.exit = Some(how);
                end
            }
            Some(FoundState::Lost) => lost(),
            Some(FoundState::Rebooted) if started => gone("its machine was restarted"),
            _ if started => gone("its slave restarted, and the task ended with it"),
            _ => {
                let message = "its slave restarted before the task was seen running";
                End::by_slave(TaskState::Dropped, Reason::SlaveRestarted, message)
            }
        };
        let has_exit = end.exit.is_some();
        let mut status = end.tell(self.status(&key.1, TaskState::Dropped, Source::Slave, now));
        if has_exit {
            status.executor_id = self.tasks.get(key).map(|task| executor_of(&task.run));
        }
        task.checks.dress(&mut status);
        if let Some(group) = group_key(&task.run) {
            self.doom_group(&group, status.state, effects);
        }
        self.update_task(key, status, effects);
        let task = self.tasks.get_mut(key).expect("just inserted");
        task.ended_in = container;
    }
}
