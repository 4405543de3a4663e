//! What executors and the slave say to each other (semantics M1 to M3).
//!
//! A session is one connection of an executor. What a connection took with it is said again on the next: the
//! executor repeats its updates, the slave what it was not heard to have, and kills.
//!
//! Invariants: X2 what an executor says is acknowledged to it only when it is durable, and told once.
//!
//! Absent: sockets. The shell knows which container speaks, and numbers its connections.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use meros_proto::executor::{
    EXECUTOR_MESSAGE_BYTES_MAX, EXECUTOR_UPDATE_DATA_BYTES_MAX, TASKS_PER_EXECUTOR_MAX,
};
use meros_proto::ids::TaskId;
use meros_proto::message::executor::{ExecutorToSlave, ExecutorUpdate, SlaveToExecutor};
use meros_proto::message::master::SlaveToMaster;
use meros_proto::refusal::Refusal;
use meros_proto::status::{Source, TaskState, TaskStatus};
use meros_proto::task::KILL_GRACE_DEFAULT;
use meros_proto::time::Timestamp;
use tracing::debug;

use crate::config::{STATUS_TEXT_BYTES_MAX, UPDATES_PER_TASK_MAX};
use crate::event::{ContainerId, ExecutorKey, SessionId};
use crate::executor::{Executor, ExecutorCause};
use crate::executors::{executor_key, never_given};
use crate::launch::{ended_by_us, killed_during_launch};
use crate::stream::Stream;
use crate::task::{Cause, Phase};
use crate::timers::Due;
use crate::{Effect, Effects, SlaveCore, TaskKey};

/// The most tasks that a subscription names: those that live, and as many that have ended meanwhile.
const NAMED_MAX: usize = 2 * TASKS_PER_EXECUTOR_MAX;

/// So far the clock of an executor may be ahead of the slave's, which follows no steps of the system's.
const CLOCKS_APART_MAX: Duration = Duration::from_secs(1);

/// How an update is like the newest that is known of its task.
enum Likeness {
    /// All that can be compared is the same.
    Same,
    /// All but the time.
    Near,
}

/// What a subscription says of the executor.
struct Named {
    made: u64,
    tasks: Vec<(TaskId, Option<u64>)>,
}

impl SlaveCore {
    pub(crate) fn on_executor(
        &mut self,
        session: SessionId,
        container: ContainerId,
        message: ExecutorToSlave,
        now: Timestamp,
        effects: &mut Effects,
    ) {
        if let ExecutorToSlave::Subscribe {
            framework_id,
            executor_id,
            made,
            tasks,
        } = message
        {
            let key = (framework_id, executor_id);
            let named = Named { made, tasks };
            return self.on_executor_subscribed(session, container, key, named, now, effects);
        }
        let Some(key) = self.sessions.get(&session).cloned() else {
            // One that was closed, or that did not subscribe.
            self.counters.executor_messages_ignored += 1;
            return effects.push(Effect::CloseSession { session });
        };
        match message {
            ExecutorToSlave::Update(update) => self.on_executor_update(&key, update, now, effects),
            ExecutorToSlave::Message(data) => {
                let link = self.link.filter(|link| link.is_registered());
                let Some(link) = link.filter(|_| data.len() <= EXECUTOR_MESSAGE_BYTES_MAX) else {
                    self.counters.executor_messages_ignored += 1;
                    return;
                };
                effects.push(Effect::Send {
                    connection: link.connection,
                    message: SlaveToMaster::ExecutorMessage {
                        framework_id: key.0,
                        executor_id: key.1,
                        data,
                    },
                });
            }
            ExecutorToSlave::Subscribe { .. } => {}
        }
    }

    fn on_executor_subscribed(
        &mut self,
        session: SessionId,
        container: ContainerId,
        key: ExecutorKey,
        named: Named,
        now: Timestamp,
        effects: &mut Effects,
    ) {
        if self.sessions.contains_key(&session) || named.tasks.len() > NAMED_MAX {
            // No executor of ours does so, and it would cost more than it is worth.
            self.counters.executor_messages_ignored += 1;
            self.on_executor_disconnected(session, now);
            return effects.push(Effect::CloseSession { session });
        }
        let is_it = |it: &&mut Executor| it.container() == Some(container) && it.pid().is_some();
        let slave_id = self.slave_id();
        let executor = self.executors.get_mut(&key).filter(is_it);
        let (Some(executor), Some(slave_id)) = (executor, slave_id) else {
            self.counters.executor_messages_ignored += 1;
            let refusal = Refusal::Invalid {
                field: "executor_id".to_owned(),
                why: format!("no executor {} of {} is expected here", key.1, key.0),
            };
            let message = SlaveToExecutor::Refused { refusal };
            effects.push(Effect::TellExecutor { session, message });
            return effects.push(Effect::CloseSession { session });
        };
        let old = executor.session.replace(session);
        executor.was_subscribed = true;
        let is_inherited = std::mem::take(&mut executor.is_inherited);
        let (ending, heard) = (executor.ending, executor.heard);
        let tasks: Vec<TaskId> = executor.tasks.iter().cloned().collect();
        if let Some(old) = old.filter(|old| *old != session) {
            self.sessions.remove(&old);
            effects.push(Effect::CloseSession { session: old });
        }
        self.sessions.insert(session, key.clone());
        self.counters.executor_subscriptions += 1;
        debug!(framework_id = %key.0, executor_id = %key.1, "executor subscribed");
        let subscribed = SlaveToExecutor::Subscribed { slave_id, heard };
        self.tell(&key, subscribed, effects);
        if named.made < heard {
            // Another process in the same container: what the one before ran is lost.
            let (cause, grace) = (ExecutorCause::LostSight, Some(Duration::ZERO));
            return self.shut_down_executor(&key, cause, grace, now, effects);
        }
        if let Some(ending) = ending {
            let grace = ending.grace;
            return self.tell(&key, SlaveToExecutor::Shutdown { grace }, effects);
        }
        self.timers.clear(&Due::Executor(key.clone()));
        self.kill_unknown(&key, &named.tasks, effects);
        // One that has ended, as we know, is not the one that we have under its name now.
        let named: BTreeSet<TaskId> = named
            .tasks
            .into_iter()
            .filter(|(_, ended)| ended.is_none_or(|number| number > heard))
            .map(|(task_id, _)| task_id)
            .collect();
        let mut has_fewer = false;
        for id in tasks {
            let task_key = (key.0, id);
            let Some(task) = self.tasks.get(&task_key) else {
                continue;
            };
            let is_unknown_there = task.state == TaskState::Staging && !named.contains(&task_key.1);
            match (task.phase, task.ending) {
                (Phase::Queued, _) => self.give(&task_key, &key, effects),
                (Phase::Given, _) if is_unknown_there && is_inherited => {
                    has_fewer = true;
                    self.end_task(&task_key, never_given(), now, effects);
                }
                (Phase::Given, Some(ending)) if is_unknown_there => {
                    has_fewer = true;
                    self.end_task(&task_key, killed_during_launch(ending.cause), now, effects);
                }
                (Phase::Given, None) if is_unknown_there => self.give(&task_key, &key, effects),
                (Phase::Given, Some(ending)) => {
                    let (task_id, grace) = (task_key.1, ending.grace);
                    self.tell(&key, SlaveToExecutor::Kill { task_id, grace }, effects);
                }
                _ => {}
            }
        }
        if has_fewer || is_inherited {
            self.resize_executor(&key, effects);
        }
    }

    /// What the executor runs and the slave has given up, or lost with a damaged record.
    fn kill_unknown(
        &self,
        key: &ExecutorKey,
        named: &[(TaskId, Option<u64>)],
        effects: &mut Effects,
    ) {
        let Some(executor) = self.executors.get(key) else {
            return;
        };
        let live = named.iter().filter(|(_, ended)| ended.is_none());
        let unknown = live.filter(|(task_id, _)| !executor.tasks.contains(task_id));
        for (task_id, _) in unknown.take(TASKS_PER_EXECUTOR_MAX).cloned() {
            let grace = KILL_GRACE_DEFAULT;
            self.tell(key, SlaveToExecutor::Kill { task_id, grace }, effects);
        }
    }

    pub(crate) fn on_executor_disconnected(&mut self, session: SessionId, now: Timestamp) {
        let Some(key) = self.sessions.remove(&session) else {
            return;
        };
        let Some(executor) = self.executors.get_mut(&key) else {
            return;
        };
        executor.session.take_if(|it| *it == session);
        if executor.session.is_none() && executor.ending.is_none() {
            let at = now.after(self.config.executor_reregistration_timeout);
            self.timers.set(Due::Executor(key), at);
        }
    }

    /// What was not acknowledged may be known all the same: the acknowledgement was lost with the connection.
    /// Numbers do not tell, they are new. But an executor is heard in order: if one of its updates of a task
    /// is the newest that is known of it, all before that are known as well.
    pub(crate) fn on_executor_resent(
        &mut self,
        session: SessionId,
        updates: Vec<ExecutorUpdate>,
        now: Timestamp,
        effects: &mut Effects,
    ) {
        let Some(key) = self.sessions.get(&session).cloned() else {
            self.counters.executor_messages_ignored += 1;
            return effects.push(Effect::CloseSession { session });
        };
        let mut known: BTreeMap<TaskId, u64> = BTreeMap::new();
        for update in &updates {
            let (task_id, number) = (update.status.task_id.clone(), update.number);
            match self.likeness(&key, update, now) {
                Some(Likeness::Same) => drop(known.insert(task_id, number)),
                // Rather told twice than not at all.
                Some(Likeness::Near) => drop(known.entry(task_id).or_insert(number)),
                None => {}
            }
        }
        for update in updates {
            let last = known.get(&update.status.task_id);
            if last.is_none_or(|last| update.number > *last) {
                self.on_executor_update(&key, update, now, effects);
                continue;
            }
            self.counters.executor_updates_ignored += 1;
            if let Some(executor) = self.executors.get_mut(&key) {
                executor.heard = executor.heard.max(update.number);
            }
        }
        self.acknowledge_executor(&key, effects);
    }

    /// How much this is the newest word on its task, once more; none if it is another.
    fn likeness(
        &self,
        key: &ExecutorKey,
        update: &ExecutorUpdate,
        now: Timestamp,
    ) -> Option<Likeness> {
        let task_key = (key.0, update.status.task_id.clone());
        let waiting = self.streams.get(&task_key).and_then(Stream::newest);
        let newest = waiting.or_else(|| self.tasks.get(&task_key)?.acknowledged.as_deref())?;
        let said = update.status.timestamp;
        let ahead = said.0.checked_sub(newest.timestamp.0);
        let likeness = match ahead.map(Duration::from_micros) {
            Some(Duration::ZERO) => Likeness::Same,
            // It was given the time when it came first: it said none, or one that was still to come here.
            Some(ahead) if said > now || ahead <= CLOCKS_APART_MAX => Likeness::Near,
            _ => return None,
        };
        let mut status = self.own_words(update.status.clone(), key, now);
        status.update_id = newest.update_id;
        status.timestamp = newest.timestamp;
        if waiting.is_none() {
            // Of what its framework has acknowledged the data is not kept.
            status.data.clone_from(&newest.data);
        }
        (*newest == status).then_some(likeness)
    }

    fn on_executor_update(
        &mut self,
        key: &ExecutorKey,
        update: ExecutorUpdate,
        now: Timestamp,
        effects: &mut Effects,
    ) {
        let ExecutorUpdate { number, mut status } = update;
        if matches!(status.state, TaskState::Gone | TaskState::GoneByOperator) {
            // Only a slave or a master can know that: for its executor the task is over.
            status.message = format!("its executor called it {}", status.state.name());
            status.state = TaskState::Failed;
        }
        let Some(executor) = self.executors.get_mut(key) else {
            return;
        };
        let is_new = number > executor.heard;
        executor.heard = executor.heard.max(number);
        let task_key = (key.0, status.task_id.clone());
        if !is_new || !self.takes_update(&task_key, key, status.state) {
            // semantics: R12, acknowledged all the same
            self.counters.executor_updates_ignored += 1;
            return self.acknowledge_executor(key, effects);
        }
        let status = self.own_words(status, key, now);
        let task = &self.tasks[&task_key];
        let is_first_run = status.state == TaskState::Running && task.state != TaskState::Running;
        if let Some(most) = task.run.task.max_completion_time.filter(|_| is_first_run) {
            let due = Due::Completion(task_key.clone());
            self.timers.set(due, now.after(most));
        }
        let from = Some((key.1.clone(), number));
        if !status.state.is_terminal() {
            return self.update_task_from(&task_key, status, from, effects);
        }
        let mut status = status;
        let ending = task.ending;
        if ending.is_some_and(|it| it.cause == Cause::CompletionTime)
            && status.state == TaskState::Killed
        {
            // semantics: G3
            status = ended_by_us(Cause::CompletionTime, task).tell(status);
        }
        self.close_task(&task_key);
        self.resize_executor(key, effects);
        self.update_task_from(&task_key, status, from, effects);
    }

    /// Whether a task may be told of like this (semantics F6, R12).
    fn takes_update(&self, task_key: &TaskKey, key: &ExecutorKey, state: TaskState) -> bool {
        let Some(task) = self.tasks.get(task_key) else {
            return false;
        };
        let is_its = task.phase == Phase::Given && executor_key(&task.run).as_ref() == Some(key);
        let is_for_executors = !matches!(
            state,
            TaskState::Staging | TaskState::Unreachable | TaskState::Unknown
        );
        let waiting = self.streams.get(task_key).map_or(0, Stream::len);
        let has_room = state.is_terminal() || waiting < UPDATES_PER_TASK_MAX;
        is_its && is_for_executors && has_room && task.state.may_become(state)
    }

    /// A status of an executor, without what only a slave can know, and bounded.
    fn own_words(&self, status: TaskStatus, key: &ExecutorKey, now: Timestamp) -> TaskStatus {
        let mut status = TaskStatus {
            slave_id: self.slave_id(),
            executor_id: Some(key.1.clone()),
            source: Source::Executor,
            update_id: None,
            unreachable_since: None,
            limitation: None,
            // A clock far ahead would outlive its reader's patience.
            timestamp: status.timestamp.min(now),
            ..status
        };
        let mut end = status.message.len().min(STATUS_TEXT_BYTES_MAX);
        while !status.message.is_char_boundary(end) {
            end -= 1;
        }
        status.message.truncate(end);
        let labels = status.labels.iter();
        let labels: usize = labels
            .map(|label| label.key().len() + label.value().map_or(0, str::len))
            .sum();
        if labels > STATUS_TEXT_BYTES_MAX {
            status.labels = Default::default();
        }
        if status.data.len() > EXECUTOR_UPDATE_DATA_BYTES_MAX {
            status.data = Default::default();
        }
        status
    }

    /// All that it said and that needs to be durable is: it need not say it again (X2).
    pub(crate) fn acknowledge_executor(&self, key: &ExecutorKey, effects: &mut Effects) {
        let heard = self.executors.get(key);
        if let Some(executor) = heard.filter(|it| it.heard_record <= self.durable) {
            let number = executor.heard;
            self.tell(key, SlaveToExecutor::Acknowledged { number }, effects);
        }
    }

    pub(crate) fn give(&mut self, task: &TaskKey, key: &ExecutorKey, effects: &mut Effects) {
        let Some(task) = self.tasks.get_mut(task) else {
            return;
        };
        let was_given = std::mem::replace(&mut task.phase, Phase::Given) == Phase::Given;
        let executor = self.executors.get_mut(key).filter(|_| !was_given);
        if let Some(executor) = executor {
            executor.promise(&task.run.task.resources);
        }
        let description = Box::new(task.run.task.clone());
        self.resize_executor(key, effects);
        self.tell(key, SlaveToExecutor::Launch(description), effects);
    }

    /// Asks a task's executor to end it; asked again when it subscribes anew.
    pub(crate) fn kill_in_executor(
        &mut self,
        task: &TaskKey,
        grace: Duration,
        effects: &mut Effects,
    ) {
        let key = self
            .tasks
            .get(task)
            .and_then(|task| executor_key(&task.run));
        if let Some(key) = key {
            let task_id = task.1.clone();
            self.tell(&key, SlaveToExecutor::Kill { task_id, grace }, effects);
        }
    }

    pub(crate) fn on_executor_message(
        &mut self,
        key: &ExecutorKey,
        message: SlaveToExecutor,
        effects: &mut Effects,
    ) {
        self.tell(key, message, effects);
    }

    /// Nothing happens if it is not subscribed: what matters is said again when it is.
    pub(crate) fn tell(&self, key: &ExecutorKey, message: SlaveToExecutor, effects: &mut Effects) {
        let session = self.executors.get(key).and_then(|it| it.session);
        if let Some(session) = session {
            effects.push(Effect::TellExecutor { session, message });
        }
    }
}
