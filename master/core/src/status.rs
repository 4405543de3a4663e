//! News of tasks: from slaves to frameworks, acknowledgements back, and the master's own updates
//! (semantics F5 to F8, B11, I, Q2, R12).

use meros_proto::framework::{FrameworkCapability, FrameworkDescription};
use meros_proto::ids::{FrameworkId, SlaveId, TaskId, UpdateId};
use meros_proto::message::framework::MasterToFramework;
use meros_proto::message::master::StatusUpdate;
use meros_proto::message::slave::MasterToSlave;
use meros_proto::mutant::Mutant;
use meros_proto::status::{Reason, Source, TaskState, TaskStatus};
use meros_proto::time::Timestamp;
use tracing::debug;

use crate::MasterCore;
use crate::event::ConnectionId;
use crate::publish::task_changed;
use crate::tasks::{Awaiting, Task, TaskSlot};
use crate::timers::Timer;
use crate::turn::Turn;
use crate::updates::Added;

impl MasterCore {
    pub(crate) fn on_status_update(
        &mut self,
        slave_id: SlaveId,
        connection: ConnectionId,
        update: StatusUpdate,
        turn: &mut Turn<'_>,
    ) {
        self.counters.updates_received += 1;
        let StatusUpdate {
            framework_id,
            mut status,
            latest_state,
        } = update;
        let Some(update_id) = status.update_id.filter(|id| !id.is_by_master()) else {
            self.counters.updates_invalid += 1;
            return;
        };
        let says = |state| {
            !matches!(
                state,
                TaskState::Unreachable | TaskState::Unknown | TaskState::Staging
            )
        };
        if !says(status.state) || !says(latest_state) {
            self.counters.updates_invalid += 1;
            return;
        }
        // Where it comes from is known; what it says of that is not needed.
        status.slave_id = Some(slave_id);
        let slot = self.tasks.find(framework_id, &status.task_id);
        let is_elsewhere = slot
            .and_then(|slot| self.tasks.get(slot))
            .is_some_and(|task| task.slave() != slave_id);
        let is_absent = Mutant::AcknowledgeForAbsent.is_on()
            && self.frameworks.connection(framework_id).is_none();
        if self.frameworks.get(framework_id).is_none() || is_elsewhere || is_absent {
            // Nobody will acknowledge it; without an answer the slave would repeat it for ever.
            self.counters.updates_disowned += 1;
            let acknowledge = MasterToSlave::Acknowledge {
                framework_id,
                task_id: status.task_id,
                update_id,
            };
            turn.send_slave(connection, acknowledge);
            return;
        }
        let is_drained_away = slot
            .and_then(|slot| self.tasks.get(slot)?.kill)
            .is_some_and(|kill| kill.for_drain);
        if is_drained_away && status.state == TaskState::Killed && status.reason.is_none() {
            // The slave kills on request, and does not ask whose (semantics G2).
            status.reason = Some(Reason::SlaveDraining);
            "killed because its slave is being drained".clone_into(&mut status.message);
        }
        if let Some(slot) = slot {
            self.apply_update(slot, update_id, &status, latest_state, turn);
        }
        // A task that is not known is forwarded all the same: its framework acknowledges it.
        self.tell_status(framework_id, &status, turn);
    }

    fn apply_update(
        &mut self,
        slot: TaskSlot,
        update_id: UpdateId,
        status: &TaskStatus,
        latest_state: TaskState,
        turn: &mut Turn<'_>,
    ) {
        let Some(task) = self.tasks.get_mut(slot) else {
            return;
        };
        let had_ended = task.state.is_terminal();
        // The slave answers for a task again that was cut off (semantics F6).
        if task.state == TaskState::Unreachable {
            self.tasks.unlist_unreachable(slot);
        }
        let Some(task) = self.tasks.get_mut(slot) else {
            return;
        };
        let was_unreachable = task.state == TaskState::Unreachable;
        // The first end stays, later ones are passed on only (semantics R12).
        task.advance(if status.state.is_terminal() {
            status.state
        } else {
            latest_state
        });
        if !had_ended || task.status.is_none() {
            task.keep_status(status);
        }
        task.awaiting = Some(Awaiting::new(update_id, status));
        let has_ended = task.state.is_terminal();
        self.publisher.publish(task_changed(task), turn);
        if has_ended && !had_ended {
            self.counters.tasks_ended += 1;
            // At once, before any acknowledgement (semantics F8).
            self.uncharge(slot);
        }
        if was_unreachable && !has_ended {
            self.charge_task(slot);
        }
    }

    pub(crate) fn on_acknowledge(
        &mut self,
        framework: FrameworkId,
        slave_id: Option<SlaveId>,
        task_id: &TaskId,
        update_id: UpdateId,
        turn: &mut Turn<'_>,
    ) {
        let is_taken = if update_id.is_by_master() {
            self.acknowledge_own(framework, task_id, update_id, turn)
        } else {
            self.acknowledge_slaves(framework, slave_id, task_id, update_id, turn)
        };
        if is_taken {
            self.counters.acknowledgements += 1;
        } else {
            self.counters.acknowledgements_unexpected += 1;
        }
    }

    fn acknowledge_own(
        &mut self,
        framework: FrameworkId,
        task_id: &TaskId,
        update_id: UpdateId,
        turn: &mut Turn<'_>,
    ) -> bool {
        let Some(done) = self.updates.acknowledge(framework, task_id, update_id) else {
            return false;
        };
        self.timers
            .cancel(&Timer::UpdateRetry(framework, task_id.clone()));
        if let Some(next) = done.next {
            self.tell_status(framework, &next, turn);
            self.arm_retry(framework, task_id, turn);
        } else if done.status.state.is_terminal()
            && let Some(slot) = self.tasks.find(framework, task_id)
            // A refused launch under the id of a task that lives ends nothing but itself.
            && self.tasks.get(slot).is_some_and(|task| task.state.is_terminal() && !task.has_full_end())
        {
            self.forget_task(slot, turn);
        }
        true
    }

    /// An update of a slave has been dealt with: the slave may go on to the next (semantics B11).
    fn acknowledge_slaves(
        &mut self,
        framework_id: FrameworkId,
        slave_id: Option<SlaveId>,
        task_id: &TaskId,
        update_id: UpdateId,
        turn: &mut Turn<'_>,
    ) -> bool {
        let slot = self.tasks.find(framework_id, task_id);
        let task = slot.and_then(|slot| self.tasks.get_mut(slot));
        let slave_id = match &task {
            Some(task)
                if task
                    .awaiting
                    .as_ref()
                    .is_none_or(|it| it.update_id != update_id) =>
            {
                return false;
            }
            Some(task) => task.slave(),
            None => match slave_id {
                Some(slave_id) => slave_id,
                None => return false,
            },
        };
        let connection = self.slaves.connection(slave_id);
        // A slave that is away sends it again when it is back, if it comes back with what it has;
        // one that is removed never does. An end is settled all the same: the task would wait here
        // for ever if its slave has lost it, or had the acknowledgement by way of another leader.
        let is_end = task
            .as_ref()
            .and_then(|task| task.awaiting.as_ref())
            .is_some_and(|it| it.state.is_terminal());
        if connection.is_none() && self.slaves.get(slave_id).is_some() && !is_end {
            return false;
        }
        if let Some(connection) = connection {
            let task_id = task_id.clone();
            let acknowledge = MasterToSlave::Acknowledge {
                framework_id,
                task_id,
                update_id,
            };
            turn.send_slave(connection, acknowledge);
        }
        if let (Some(slot), Some(task)) = (slot, task)
            && let Some(awaiting) = task.awaiting.take()
            && awaiting.state.is_terminal()
        {
            self.forget_task(slot, turn);
        }
        true
    }

    /// Passes a status on to its framework, in words that it understands.
    pub(crate) fn tell_status(
        &mut self,
        framework: FrameworkId,
        status: &TaskStatus,
        turn: &mut Turn<'_>,
    ) {
        if let (Some(connection), Some(description)) = (
            self.frameworks.connection(framework),
            self.description(framework),
        ) {
            let heard = as_heard(status, description);
            turn.send_framework(connection, MasterToFramework::Update(heard));
            self.counters.updates_sent += 1;
        }
    }

    /// Sends an update of our own, again and again until it is acknowledged (semantics Q2).
    pub(crate) fn send_master_update(
        &mut self,
        framework: FrameworkId,
        status: TaskStatus,
        turn: &mut Turn<'_>,
    ) {
        let Some(epoch) = self.epoch else { return };
        let task_id = status.task_id.clone();
        match self.updates.add(epoch, framework, status) {
            Added::InFlight(status) => {
                self.tell_status(framework, &status, turn);
                self.arm_retry(framework, &task_id, turn);
            }
            Added::Waits => debug!(framework_id = %framework, %task_id, "update waits for another"),
            Added::Unreliable(status) => {
                self.counters.updates_unreliable += 1;
                self.tell_status(framework, &status, turn);
            }
        }
    }

    /// Only towards a framework that is there: one that comes back gets everything at once.
    fn arm_retry(&mut self, framework: FrameworkId, task: &TaskId, turn: &Turn<'_>) {
        if self.frameworks.connection(framework).is_some()
            && let Some(wait) = self.updates.retry_after(framework, task)
        {
            self.timers.arm(
                Timer::UpdateRetry(framework, task.clone()),
                turn.now.after(wait),
            );
        }
    }

    pub(crate) fn on_update_retry_due(
        &mut self,
        framework: FrameworkId,
        task: &TaskId,
        turn: &mut Turn<'_>,
    ) {
        if self.frameworks.connection(framework).is_none() {
            return;
        }
        if let Some(status) = self.updates.repeat(framework, task) {
            self.counters.updates_retried += 1;
            self.tell_status(framework, &status, turn);
            self.arm_retry(framework, task, turn);
        }
    }

    /// What a framework that is back has not acknowledged comes at once (semantics I1, I3).
    pub(crate) fn repeat_updates(&mut self, framework: FrameworkId, turn: &mut Turn<'_>) {
        for slot in self.tasks.of_framework(framework) {
            let awaiting = self
                .tasks
                .get(slot)
                .and_then(|task| task.awaiting.as_ref()?.status.clone());
            if let Some(status) = awaiting {
                self.tell_status(framework, &status, turn);
            }
        }
        for status in self.updates.in_flight(framework) {
            self.tell_status(framework, &status, turn);
            self.arm_retry(framework, &status.task_id, turn);
        }
    }

    /// A status that the master makes of a task in its table.
    pub(crate) fn master_status(&self, task: &Task, state: TaskState, at: Timestamp) -> TaskStatus {
        let mut status = TaskStatus::new(task.id().clone(), state, Source::Master, at);
        status.slave_id = Some(task.slave());
        status
    }

    /// Ends a task by the master's own word.
    pub(crate) fn end_task(
        &mut self,
        slot: TaskSlot,
        state: TaskState,
        reason: Reason,
        at: Timestamp,
        turn: &mut Turn<'_>,
    ) {
        self.uncharge(slot);
        self.tasks.unlist_unreachable(slot);
        let Some(task) = self.tasks.get_mut(slot) else {
            return;
        };
        if !task.advance(state) {
            return;
        }
        self.counters.tasks_ended += 1;
        // Its slave is not asked for what it has not told yet.
        task.awaiting = None;
        let Some(task) = self.tasks.get(slot) else {
            return;
        };
        let framework = task.framework();
        let mut status = self.master_status(task, state, at);
        status.reason = Some(reason);
        self.note_status(slot, &status, turn);
        self.send_master_update(framework, status, turn);
    }
}

/// A status in the words that a framework understands (semantics F2, F5).
fn as_heard(status: &TaskStatus, framework: &FrameworkDescription) -> TaskStatus {
    use TaskState::{Dropped, Gone, GoneByOperator, Killing, Lost, Running, Unknown, Unreachable};
    let state = match status.state {
        Dropped | Unreachable | Gone | GoneByOperator | Unknown
            if !framework.can(FrameworkCapability::PartitionAware) =>
        {
            Lost
        }
        Killing if !framework.can(FrameworkCapability::TaskKillingState) => Running,
        state => state,
    };
    TaskStatus {
        state,
        ..status.clone()
    }
}
