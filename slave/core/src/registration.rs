//! How the slave stands with the leading master: registration, pings, reports (semantics K).

use std::time::Duration;

use meros_proto::codec::encoded_bytes;
use meros_proto::executor::ExecutorDescription;
use meros_proto::ids::{ClusterId, Epoch, SlaveId};
use meros_proto::labels::Labels;
use meros_proto::message::executor::SlaveToExecutor;
use meros_proto::message::master::{
    REPORT_EXECUTORS_MAX, REPORT_TASKS_MAX, SlaveToMaster, TaskReport,
};
use meros_proto::message::slave::MasterToSlave;
use meros_proto::mutant::Mutant;
use meros_proto::refusal::{Leadership, Refusal};
use meros_proto::resources::Resources;
use meros_proto::status::{TaskState, TaskStatus};
use meros_proto::task::{Command, TaskDescription};
use meros_proto::time::Timestamp;
use serde::Serialize;
use tracing::{info, warn};

use crate::config::{
    PING_TIMEOUT_RANGE, REGISTER_TIMEOUT, REPORT_BYTES_MAX, REPORT_LABELS_BYTES_MAX,
    REPORT_MESSAGE_BYTES_MAX, RESEND_BURST, RESEND_STEP,
};
use crate::event::ConnectionId;
use crate::task::Task;
use crate::timers::Due;
use crate::{Awaiting, Effect, Effects, Identity, Record, SlaveCore, TaskKey};

/// The one connection to a master. `Asking -> Registered -> Asking` (a ping said that we are not).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Link {
    pub(crate) connection: ConnectionId,
    /// Set when the master has welcomed us: the silence after which we look for another.
    pub(crate) ping_timeout: Option<Duration>,
}

impl Link {
    pub(crate) fn is_registered(&self) -> bool {
        self.ping_timeout.is_some()
    }
}

impl SlaveCore {
    pub(crate) fn on_connected(
        &mut self,
        connection: ConnectionId,
        now: Timestamp,
        effects: &mut Effects,
    ) {
        if let Some(old) = self.link.take().filter(|old| old.connection != connection) {
            self.give_up(old.connection, None, effects);
        }
        self.recall_updates();
        if self.is_gone() {
            // To register now would be to come back.
            self.timers.clear(&Due::Master);
            return;
        }
        self.link = Some(Link {
            connection,
            ping_timeout: None,
        });
        self.ask_to_register(now, effects);
    }

    pub(crate) fn on_disconnected(&mut self, connection: ConnectionId) {
        if self.link.is_some_and(|link| link.connection == connection) {
            self.link = None;
            self.timers.clear(&Due::Master);
            self.recall_updates();
        }
    }

    pub(crate) fn on_master(
        &mut self,
        connection: ConnectionId,
        message: MasterToSlave,
        now: Timestamp,
        effects: &mut Effects,
    ) {
        let current = self
            .link
            .filter(|link| link.connection == connection && !self.is_gone());
        let Some(link) = current else {
            // Sent before it knew of our leaving it; whatever matters is said again elsewhere.
            self.counters.messages_ignored += 1;
            return;
        };
        match message {
            MasterToSlave::Registered {
                slave_id,
                cluster_id,
                epoch,
                ping_timeout,
            } => {
                let identity = Identity {
                    slave_id,
                    cluster_id,
                };
                self.on_registered(link, identity, epoch, ping_timeout, now, effects);
            }
            MasterToSlave::Refused { refusal, by } => self.on_refused(link, refusal, by, effects),
            MasterToSlave::Ping { registered } => self.on_ping(link, registered, now, effects),
            // For the shell, which has heard it.
            MasterToSlave::Masters { .. } => {}
            _ if !link.is_registered() => self.counters.messages_ignored += 1,
            MasterToSlave::RunTask(run) => self.on_run_task(run, now, effects),
            MasterToSlave::KillTask {
                framework_id,
                task_id,
                grace,
            } => {
                self.on_kill_task((framework_id, task_id), grace, now, effects);
            }
            MasterToSlave::Acknowledge {
                framework_id,
                task_id,
                update_id,
            } => {
                self.on_acknowledge(&(framework_id, task_id), update_id, now, effects);
            }
            MasterToSlave::ReconcileTasks { tasks } => {
                for task in tasks {
                    let key = (task.framework_id, task.task_id);
                    self.answer_for_unknown(key, task.started, now, effects);
                }
            }
            MasterToSlave::RunInExecutor { run, starts } => {
                self.on_run_in_executor(run, starts, now, effects);
            }
            MasterToSlave::RunGroup(order) => self.on_run_group(*order, now, effects),
            MasterToSlave::ShutdownExecutor {
                framework_id,
                executor_id,
            } => self.on_shutdown_executor(&(framework_id, executor_id), now, effects),
            MasterToSlave::ExecutorMessage {
                framework_id,
                executor_id,
                data,
            } => {
                let message = SlaveToExecutor::Message(data);
                self.on_executor_message(&(framework_id, executor_id), message, effects);
            }
            MasterToSlave::ChangeResources { number, change } => {
                self.on_change(link, number, &change, effects);
            }
            MasterToSlave::ShutdownFramework { framework_id } => {
                self.on_shutdown_framework(framework_id, now, effects);
            }
        }
    }

    /// semantics: K2
    pub(crate) fn on_master_silent(&mut self, now: Timestamp, effects: &mut Effects) {
        if let Some(link) = self.link.take() {
            warn!(registered = link.is_registered(), at = ?now, "master is silent, looking for it anew");
            self.recall_updates();
            self.give_up(link.connection, None, effects);
        }
    }

    fn give_up(&mut self, connection: ConnectionId, leader: Option<String>, effects: &mut Effects) {
        self.counters.reconnects += 1;
        effects.push(Effect::Reconnect { connection, leader });
    }

    /// Leaves the current master for another one.
    pub(crate) fn leave_master(
        &mut self,
        link: Link,
        leader: Option<String>,
        effects: &mut Effects,
    ) {
        self.link = None;
        self.timers.clear(&Due::Master);
        self.recall_updates();
        self.give_up(link.connection, leader, effects);
    }

    /// A slave without an id registers; one with an id says all it has and re-registers
    /// (semantics K5, K6).
    fn ask_to_register(&mut self, now: Timestamp, effects: &mut Effects) {
        let Some(link) = self.link else { return };
        let connection = link.connection;
        self.timers.set(Due::Master, now.after(REGISTER_TIMEOUT));
        // What a master is told must stay true.
        self.registration_waits = self.claims_record > self.durable;
        if self.registration_waits {
            return;
        }
        self.executors_ended.clear();
        if let Some(message) = self.report_claims() {
            effects.push(Effect::Send {
                connection,
                message,
            });
        }
        let slave = self.config.slave.clone();
        let message = match self.identity {
            None => SlaveToMaster::Register { slave },
            Some(Identity {
                slave_id,
                cluster_id,
            }) => {
                self.report_executors(connection, effects);
                self.report_tasks(connection, effects);
                SlaveToMaster::Reregister {
                    slave_id,
                    cluster_id,
                    slave,
                }
            }
        };
        effects.push(Effect::Send {
            connection,
            message,
        });
    }

    /// Claims are durable that were not: a registration may have waited for that.
    pub(crate) fn on_claims_durable(&mut self, now: Timestamp, effects: &mut Effects) {
        if std::mem::take(&mut self.registration_waits) {
            self.ask_to_register(now, effects);
        }
    }

    fn report_executors(&self, connection: ConnectionId, effects: &mut Effects) {
        let executors = self.executors.values().filter(|it| !it.abandoned);
        let executors = executors.map(|executor| (*executor.run).clone());
        let groups = self.groups.values().map(|group| (*group.run).clone());
        let executors = executors.chain(groups);
        for executors in in_parts(executors, REPORT_EXECUTORS_MAX) {
            let message = SlaveToMaster::ReportExecutors { executors };
            effects.push(Effect::Send {
                connection,
                message,
            });
        }
    }

    fn report_tasks(&self, connection: ConnectionId, effects: &mut Effects) {
        let tasks = self.tasks.iter().filter(|(_, task)| !task.abandoned);
        let tasks = tasks.map(|(key, task)| self.report(key, task));
        for tasks in in_parts(tasks, REPORT_TASKS_MAX) {
            let message = SlaveToMaster::ReportTasks { tasks };
            effects.push(Effect::Send {
                connection,
                message,
            });
        }
    }

    /// Says no more than what is durable: a report must stay true if we crash after it. And no more than masters
    /// keep: what a task runs, and what it said, is large.
    fn report(&self, key: &TaskKey, task: &Task) -> TaskReport {
        let queued = self
            .streams
            .get(key)
            .and_then(|stream| stream.latest(self.durable));
        let status = queued.or(task.acknowledged.as_deref());
        TaskReport {
            framework_id: key.0,
            role: task.run.role.clone(),
            task: described(&task.run.task),
            state: status.map_or(TaskState::Staging, |status| status.state),
            status: status.map(shortened),
        }
    }

    fn on_registered(
        &mut self,
        link: Link,
        identity: Identity,
        epoch: Epoch,
        ping_timeout: Duration,
        now: Timestamp,
        effects: &mut Effects,
    ) {
        if epoch < self.epoch && !Mutant::ObeyDeposed.is_on() {
            warn!(%epoch, known = %self.epoch, "a deposed master answered, looking for the leader");
            return self.leave_master(link, None, effects);
        }
        match self.identity {
            Some(ours) if ours.cluster_id != identity.cluster_id => {
                return self
                    .exit_refused(wrong_cluster(identity.cluster_id, ours.cluster_id), effects);
            }
            Some(ours) if ours.slave_id != identity.slave_id => {
                // Nothing we asked for; obeying would mix two slaves' tasks.
                warn!(ours = %ours.slave_id, theirs = %identity.slave_id, "master called this slave by another id");
                return self.leave_master(link, None, effects);
            }
            Some(_) => {}
            None => {}
        }
        if epoch != self.epoch || self.identity.is_none() {
            // Else its next life might obey a master that was deposed in this one. Without an id the
            // disk may know another term, of a life that ended before it had one.
            self.epoch = epoch;
            let record = Record::TermHeard(epoch);
            self.epoch_record = self.persist_for(record, Awaiting::Term, effects);
        }
        // After the term: who has an id knows which masters cannot have heard of it.
        if self.identity.is_none() {
            info!(slave_id = %identity.slave_id, cluster_id = %identity.cluster_id, "admitted");
            self.identity = Some(identity);
            self.persist(Record::Identity(identity), effects);
        }
        self.counters.registrations += 1;
        let ping_timeout = ping_timeout.clamp(PING_TIMEOUT_RANGE.0, PING_TIMEOUT_RANGE.1);
        self.link = Some(Link {
            connection: link.connection,
            ping_timeout: Some(ping_timeout),
        });
        self.timers.set(Due::Master, now.after(ping_timeout));
        self.tell_term(effects);
        self.tell_executors_ended(effects);
        self.resend_updates(now, effects);
    }

    /// Once no older master can be obeyed any more, the leader may be sure of what is here.
    pub(crate) fn tell_term(&self, effects: &mut Effects) {
        let welcomed = self.link.filter(|link| link.is_registered());
        if let Some(link) = welcomed.filter(|_| self.epoch_record <= self.durable) {
            effects.push(Effect::Send {
                connection: link.connection,
                message: SlaveToMaster::TermHeard { epoch: self.epoch },
            });
        }
    }

    fn on_refused(
        &mut self,
        link: Link,
        refusal: Refusal,
        by: Option<Leadership>,
        effects: &mut Effects,
    ) {
        let cluster_id = self.identity.map(|identity| identity.cluster_id);
        // Its successor may have admitted us; a master that leads nothing knows nothing for sure.
        let is_deposed = by.is_none_or(|by| by.is_over(cluster_id, self.epoch));
        let is_believed = !is_deposed || Mutant::ObeyDeposed.is_on();
        match refusal {
            Refusal::WrongCluster { .. }
            | Refusal::SlaveUnknown { .. }
            | Refusal::SlaveGone { .. }
            | Refusal::NotYours { .. }
            | Refusal::Invalid { .. }
                if is_believed =>
            {
                self.exit_refused(refusal, effects);
            }
            Refusal::NotLeading { leader } => self.leave_master(link, leader, effects),
            other => {
                info!(code = other.code(), why = %other, "master refused this slave, trying again");
                self.leave_master(link, None, effects);
            }
        }
    }

    /// No master of ours will ever say yes: an operator must act.
    fn exit_refused(&mut self, why: Refusal, effects: &mut Effects) {
        self.link = None;
        self.timers.clear(&Due::Master);
        self.recall_updates();
        effects.push(Effect::Exit { why: Some(why) });
    }

    fn on_ping(&mut self, link: Link, registered: bool, now: Timestamp, effects: &mut Effects) {
        let connection = link.connection;
        effects.push(Effect::Send {
            connection,
            message: SlaveToMaster::Pong,
        });
        let Some(ping_timeout) = link.ping_timeout else {
            return;
        };
        if registered {
            self.timers.set(Due::Master, now.after(ping_timeout));
        } else {
            // semantics: K2, the master lost sight of us; this connection is as good as a new one.
            self.link = Some(Link {
                connection,
                ping_timeout: None,
            });
            self.recall_updates();
            self.ask_to_register(now, effects);
        }
    }

    /// Nothing is in flight any more.
    fn recall_updates(&mut self) {
        for (key, stream) in &mut self.streams {
            stream.recall();
            self.timers.clear(&Due::Retry(key.clone()));
        }
    }

    /// semantics: I1, the head of every stream goes out again, at a pace that the send queue takes.
    fn resend_updates(&mut self, now: Timestamp, effects: &mut Effects) {
        self.recall_updates();
        let keys: Vec<TaskKey> = self.streams.keys().cloned().collect();
        for (nth, key) in keys.into_iter().enumerate() {
            if nth < RESEND_BURST {
                self.send_head(&key, now, effects);
            } else {
                let step = u32::try_from(nth / RESEND_BURST).unwrap_or(u32::MAX);
                self.timers
                    .set(Due::Retry(key), now.after(RESEND_STEP * step));
            }
        }
    }

    pub(crate) fn slave_id(&self) -> Option<SlaveId> {
        self.identity.map(|identity| identity.slave_id)
    }
}

fn wrong_cluster(masters: ClusterId, slaves: ClusterId) -> Refusal {
    Refusal::WrongCluster {
        ours: masters,
        theirs: slaves,
    }
}

/// A task without what it runs.
fn described(task: &TaskDescription) -> TaskDescription {
    let executor = task.executor.as_ref().map(|executor| {
        let id = executor.executor_id.clone();
        ExecutorDescription::new(id, Command::argv([""]), Resources::default())
    });
    TaskDescription {
        command: None,
        executor,
        data: Default::default(),
        health_check: None,
        check: None,
        labels: reported_labels(&task.labels),
        ..task.clone()
    }
}

/// A status without its data, and with the beginning of its message.
fn shortened(status: &TaskStatus) -> TaskStatus {
    let mut end = status.message.len().min(REPORT_MESSAGE_BYTES_MAX);
    while !status.message.is_char_boundary(end) {
        end -= 1;
    }
    TaskStatus {
        data: Default::default(),
        message: status.message[..end].to_owned(),
        labels: reported_labels(&status.labels),
        ..status.clone()
    }
}

fn reported_labels(labels: &Labels) -> Labels {
    let bytes = labels.iter().map(|label| {
        let value = label.value().map_or(0, str::len);
        label.key().len() + value
    });
    match bytes.sum::<usize>() <= REPORT_LABELS_BYTES_MAX {
        true => labels.clone(),
        false => Labels::default(),
    }
}

/// In lists of at most so many, each of at most [`REPORT_BYTES_MAX`] or of one alone.
fn in_parts<T: Serialize>(all: impl Iterator<Item = T>, most: usize) -> Vec<Vec<T>> {
    let mut parts: Vec<Vec<T>> = Vec::new();
    let mut bytes = 0;
    for one in all {
        // What cannot be counted cannot be sent either, and is not among what we have read or been sent.
        let its = encoded_bytes(&one).unwrap_or(REPORT_BYTES_MAX);
        bytes += its;
        match parts.last_mut() {
            Some(part) if part.len() < most && bytes <= REPORT_BYTES_MAX => part.push(one),
            _ => {
                bytes = its;
                parts.push(vec![one]);
            }
        }
    }
    parts
}

#[cfg(test)]
mod tests {
    use meros_proto::ids::{SlaveId, TaskId};
    use meros_proto::status::Source;

    use super::*;

    #[test]
    fn parts_are_bounded_in_number_and_bytes() {
        let sizes = [10, 200_000, 200_000, 300_000, 10, 10, 10];
        let all = sizes.iter().map(|&size| "x".repeat(size));
        let parts = in_parts(all, 2);
        let lengths = parts
            .iter()
            .map(|part| part.iter().map(String::len).collect());
        let lengths: Vec<Vec<usize>> = lengths.collect();
        assert_eq!(
            lengths,
            [
                vec![10, 200_000],
                vec![200_000],
                vec![300_000],
                vec![10, 10],
                vec![10]
            ]
        );
    }

    #[test]
    fn what_a_task_runs_and_says_is_not_in_a_report() {
        let large = "x".repeat(1 << 20);
        let task_id = TaskId::new("t").expect("a good id");
        let command = Command::shell(large.clone());
        let mut task =
            TaskDescription::command(task_id.clone(), SlaveId(0), Resources::default(), command);
        task.data = large.clone().into();
        let mut status =
            TaskStatus::new(task_id, TaskState::Running, Source::Executor, Timestamp(1));
        status.data = large.clone().into();
        status.message = large;
        let said = (described(&task), shortened(&status));
        let bytes = encoded_bytes(&said).expect("it can be counted");
        assert!(bytes < 2_048, "{bytes} bytes");
        assert_eq!(said.0.name, "t");
    }
}
