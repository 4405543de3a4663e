//! Groups of tasks (pods): all start or none, and the first that does not finish well takes the others along
//! (semantics D2, M7).
//!
//! A group is not a process. Its members are command tasks with containers of their own; what is here is who they
//! are, what the group itself takes, and whether it is being ended.
//!
//! Invariants: S40 no member is told as running before all have been started; of a group of which one has ended in
//! any other way than FINISHED no other goes on. X1 what a group takes is taken once, until its last member has ended.

use std::collections::BTreeSet;
use std::time::Duration;

use meros_proto::executor::{EXECUTOR_ID_BYTES_MAX, EXECUTORS_PER_SLAVE_MAX};
use meros_proto::group::TASKS_PER_GROUP_MAX;
use meros_proto::ids::TaskId;
use meros_proto::message::slave::{RunExecutor, RunGroup, RunTask};
use meros_proto::mutant::Mutant;
use meros_proto::status::{Reason, TaskState};
use meros_proto::time::Timestamp;
use tracing::info;

use crate::event::ExecutorKey;
use crate::launch::End;
use crate::task::{Cause, Phase, Task};
use crate::{Awaiting, CheckpointedExecutor, Effects, Record, SlaveCore, TaskKey};

/// A group that is not over.
#[derive(Debug)]
pub(crate) struct Group {
    /// What was ordered, without its tasks.
    pub(crate) run: Box<RunExecutor>,
    /// Its tasks that have not ended.
    pub(crate) tasks: BTreeSet<TaskId>,
    /// One of them has not finished well, and that is recorded: no other goes on.
    pub(crate) is_ending: bool,
}

/// Whose task this is, if it runs in a group.
pub(crate) fn group_key(run: &RunTask) -> Option<ExecutorKey> {
    let executor = run.task.executor.as_ref().filter(|it| it.is_group())?;
    Some((run.framework.framework_id, executor.executor_id.clone()))
}

impl SlaveCore {
    pub(crate) fn on_run_group(&mut self, order: RunGroup, now: Timestamp, effects: &mut Effects) {
        let run = Box::new(RunExecutor {
            framework: order.framework.clone(),
            role: order.role.clone(),
            executor: order.group.executor.clone(),
        });
        let key = (run.framework.framework_id, run.executor.executor_id.clone());
        let members = order.group.into_members().map(|task| RunTask {
            framework: order.framework.clone(),
            role: order.role.clone(),
            task,
        });
        let members: Vec<RunTask> = members.collect();
        if let Err(why) = self.check_group(&key, &run, &members) {
            self.refuse_group(&key, &members, &why, now, effects);
            return;
        }
        let mut group = Group {
            run: run.clone(),
            tasks: BTreeSet::new(),
            is_ending: false,
        };
        self.take(&run.executor.resources);
        let record = Record::GroupAdded {
            executor: run,
            tasks: members.clone(),
        };
        self.counters.groups_accepted += 1;
        let record = self.persist_for(record, Awaiting::Group(key.clone()), effects);
        for member in members {
            self.take(&member.task.resources);
            self.counters.tasks_accepted += 1;
            let task_id = member.task.task_id.clone();
            group.tasks.insert(task_id.clone());
            let task = Task::new(Box::new(member), Phase::Accepted { record });
            self.tasks.insert((key.0, task_id), task);
        }
        self.groups.insert(key, group);
    }

    fn take(&mut self, resources: &meros_proto::resources::Resources) {
        self.free
            .checked_sub_assign(resources)
            .expect("check_group has seen that all of it is free");
    }

    /// Whether all of it can be run here and now. The master checks most of this, too.
    fn check_group(
        &self,
        key: &ExecutorKey,
        run: &RunExecutor,
        members: &[RunTask],
    ) -> Result<(), Box<End>> {
        let dropped = |reason, message: String| {
            let end = End::by_slave(TaskState::Dropped, reason, message);
            Err(Box::new(end))
        };
        let invalid = |message: String| dropped(Reason::TaskGroupInvalid, message);
        let id = &key.1;
        if members.is_empty() || members.len() > TASKS_PER_GROUP_MAX || !run.executor.is_group() {
            return invalid(format!(
                "a group has 1 to {TASKS_PER_GROUP_MAX} tasks and no command of its own"
            ));
        }
        if id.as_str().len() > EXECUTOR_ID_BYTES_MAX {
            return invalid(format!(
                "the id of its group has more than {EXECUTOR_ID_BYTES_MAX} bytes"
            ));
        }
        if self.groups.contains_key(key) || self.executors.contains_key(key) {
            let message = format!("{id} runs here already: launch it again when it has ended");
            return dropped(Reason::ExecutorTerminated, message);
        }
        if self.executors.len() + self.groups.len() >= EXECUTORS_PER_SLAVE_MAX {
            let message = format!(
                "the slave has {EXECUTORS_PER_SLAVE_MAX} executors and groups, which is its limit"
            );
            return dropped(Reason::ResourcesUnknown, message);
        }
        let mut need = run.executor.resources.clone();
        let mut named = BTreeSet::new();
        for member in members {
            let (task, task_id) = (&member.task, &member.task.task_id);
            let task_key = (key.0, task_id.clone());
            if self.tasks.contains_key(&task_key)
                || self.streams.contains_key(&task_key)
                || !named.insert(task_id)
            {
                return invalid(format!("task {task_id} of its group is here already"));
            }
            if task.command.is_none() {
                return invalid(format!("task {task_id} of its group has no command"));
            }
            if let Some(end) = self.refuse_place(member) {
                return Err(Box::new(end));
            }
            if let Err(sum) = need.checked_add_assign(&task.resources) {
                return invalid(sum.to_string());
            }
        }
        let max = self.config.tasks_max;
        if self.tasks.len() + members.len() > max {
            let message = format!("the slave holds at most {max} tasks");
            return dropped(Reason::ResourcesUnknown, message);
        }
        // Each by itself: the paths of its volumes, and whether one of them is being left.
        let alone = members
            .iter()
            .find_map(|member| self.refuse_room(member, &need));
        alone.map_or(Ok(()), |end| Err(Box::new(end)))
    }

    /// None of it is run. A task that is here under the same id is left alone.
    fn refuse_group(
        &mut self,
        key: &ExecutorKey,
        members: &[RunTask],
        why: &End,
        now: Timestamp,
        effects: &mut Effects,
    ) {
        for member in members {
            let task = (key.0, member.task.task_id.clone());
            if self.tasks.contains_key(&task) || self.streams.contains_key(&task) {
                self.counters.duplicate_tasks += 1;
                continue;
            }
            self.counters.tasks_refused += 1;
            self.update_phantom(task, why.clone(), now, effects);
        }
        if !self.groups.contains_key(key) && !self.executors.contains_key(key) {
            // The master has charged one that will not be.
            self.tell_executor_ended(key.clone(), None, effects);
        }
    }

    /// The group is durable: now its containers may exist.
    pub(crate) fn start_group(&mut self, key: &ExecutorKey, effects: &mut Effects) {
        for task in self.members(key) {
            self.start_task(&task, effects);
        }
    }

    pub(crate) fn members(&self, key: &ExecutorKey) -> Vec<TaskKey> {
        let group = self.groups.get(key);
        let tasks = group.iter().flat_map(|group| &group.tasks);
        tasks.map(|task_id| (key.0, task_id.clone())).collect()
    }

    /// One more member has been started: with the last of them all are told as running.
    pub(crate) fn on_member_started(
        &mut self,
        key: &ExecutorKey,
        now: Timestamp,
        effects: &mut Effects,
    ) {
        let members = self.members(key);
        let is_coming = |task: &TaskKey| {
            matches!(
                self.tasks[task].phase,
                Phase::Accepted { .. } | Phase::Starting { .. }
            )
        };
        if members.iter().any(is_coming) {
            return;
        }
        for task in members {
            let member = &self.tasks[&task];
            let runs = matches!(member.phase, Phase::Running { .. });
            if runs && member.is_unheard() && member.ending.is_none() {
                self.tell_running(&task, Duration::ZERO, now, effects);
            }
        }
    }

    /// A member ends like this, which is not recorded yet. What follows for the others has to be known before: once
    /// its end is acknowledged, nothing else tells of it.
    pub(crate) fn doom_group(
        &mut self,
        key: &ExecutorKey,
        state: TaskState,
        effects: &mut Effects,
    ) {
        let Some(group) = self.groups.get_mut(key) else {
            return;
        };
        if state == TaskState::Finished || group.is_ending || Mutant::LeaveGroups.is_on() {
            return;
        }
        group.is_ending = true;
        info!(framework_id = %key.0, group = %key.1, "a task of a group did not finish well: the others are killed");
        self.counters.groups_ended_early += 1;
        let executor = key.clone();
        self.persist(Record::GroupEnding { executor }, effects);
    }

    /// A member has ended and is in the group no more.
    pub(crate) fn on_member_ended(
        &mut self,
        key: &ExecutorKey,
        now: Timestamp,
        effects: &mut Effects,
    ) {
        if self.groups.get(key).is_some_and(|it| it.is_ending) {
            self.kill_members(key, Cause::Group, now, effects);
        }
        // Killing those that had not been started has ended them, and maybe the group with the last of them.
        if self.groups.get(key).is_some_and(|it| it.tasks.is_empty()) {
            self.end_group(key, effects);
            self.tell_executor_ended(key.clone(), None, effects);
        } else {
            self.on_member_started(key, now, effects);
        }
    }

    pub(crate) fn kill_members(
        &mut self,
        key: &ExecutorKey,
        cause: Cause,
        now: Timestamp,
        effects: &mut Effects,
    ) {
        for task in self.members(key) {
            if let Some(member) = self.tasks.get(&task) {
                let grace = member.grace(None);
                self.kill(&task, cause, grace, now, effects);
            }
        }
    }

    fn end_group(&mut self, key: &ExecutorKey, effects: &mut Effects) {
        self.leave_group(key);
        self.forget_executor(key.clone(), None, effects);
    }

    /// It is in the table no more, and takes nothing.
    pub(crate) fn leave_group(&mut self, key: &ExecutorKey) {
        if let Some(group) = self.groups.remove(key) {
            self.free
                .checked_add_assign(&group.run.executor.resources)
                .expect("they were taken from what is free");
        }
    }

    /// A group that an earlier life left. One that does not fit any more ends with its members.
    pub(crate) fn take_up_group(
        &mut self,
        key: &ExecutorKey,
        known: CheckpointedExecutor,
        effects: &mut Effects,
    ) {
        let is_ending = known.is_ending();
        let run = known.run;
        let fits = self.free.checked_sub_assign(&run.executor.resources);
        if fits.is_ok() {
            let group = Group {
                run,
                tasks: BTreeSet::new(),
                is_ending,
            };
            self.groups.insert(key.clone(), group);
        } else {
            self.forget_executor(key.clone(), None, effects);
        }
    }

    /// All members have been taken up or ended: the groups go on as a whole or end.
    pub(crate) fn settle_groups(&mut self, now: Timestamp, effects: &mut Effects) {
        let keys: Vec<ExecutorKey> = self.groups.keys().cloned().collect();
        for key in keys {
            let group = &self.groups[&key];
            if group.tasks.is_empty() {
                self.end_group(&key, effects);
            } else if group.is_ending {
                self.kill_members(&key, Cause::Group, now, effects);
            } else {
                self.on_member_started(&key, now, effects);
            }
        }
    }
}
