//! Slaves fall silent: missed pings, broken connections, and what follows (semantics K1 to K4).

use meros_proto::framework::FrameworkDescription;
use meros_proto::ids::SlaveId;
use meros_proto::message::framework::MasterToFramework;
use meros_proto::message::slave::MasterToSlave;
use meros_proto::mutant::Mutant;
use meros_proto::refusal::Refusal;
use meros_proto::slave::SlaveState;
use meros_proto::status::{Reason, TaskState};
use meros_proto::time::Timestamp;
use meros_proto::view::OfferEnd;
use tracing::{info, warn};

use crate::MasterCore;
use crate::command::Command;
use crate::event::ConnectionId;
use crate::publish::{task_changed, task_removed};
use crate::tasks::TaskSlot;
use crate::timers::Timer;
use crate::turn::Turn;

impl MasterCore {
    pub(crate) fn on_ping_due(&mut self, slave_id: SlaveId, turn: &mut Turn<'_>) {
        let misses_max = self.config.ping_misses_max;
        let Some(slave) = self.slaves.get_mut(slave_id) else {
            return;
        };
        self.timers.arm(
            Timer::Ping(slave_id),
            turn.now.after(self.config.ping_interval),
        );
        match (slave.state(), slave.connection) {
            (SlaveState::Registered, Some(connection)) if slave.misses < misses_max => {
                self.counters.pings_missed += u64::from(slave.misses > 0);
                slave.misses += 1;
                turn.send_slave(connection, MasterToSlave::Ping { registered: true });
            }
            (SlaveState::Disconnected, _) => {
                // Pings go on in mind: what has no connection cannot answer (semantics K1, K3).
                self.counters.pings_missed += 1;
                slave.misses = slave.misses.saturating_add(1);
                let is_silent = slave.misses >= misses_max;
                self.lose_tasks_without_checkpoint(slave_id, turn);
                if is_silent {
                    self.give_up_slave(slave_id, turn);
                }
            }
            (SlaveState::Registered, _) => self.give_up_slave(slave_id, turn),
            (SlaveState::Recovered | SlaveState::Unreachable, _) => {
                self.timers.cancel(&Timer::Ping(slave_id));
            }
        }
    }

    pub(crate) fn on_pong(&mut self, slave_id: SlaveId) {
        if let Some(slave) = self.slaves.get_mut(slave_id) {
            slave.misses = 0;
        }
    }

    pub(crate) fn on_return_due(&mut self, slave_id: SlaveId, turn: &mut Turn<'_>) {
        if let Some(slave) = self.slaves.get(slave_id)
            && matches!(
                slave.state(),
                SlaveState::Recovered | SlaveState::Disconnected
            )
        {
            // Armed again: a slave that is just coming back is not given up now, and may break off.
            let at = turn.now.after(
                self.config
                    .slave_reregister_timeout
                    .max(self.config.ping_interval),
            );
            self.timers.arm(Timer::Return(slave_id), at);
            self.give_up_slave(slave_id, turn);
        }
    }

    pub(crate) fn on_slave_disconnected(
        &mut self,
        slave_id: SlaveId,
        connection: ConnectionId,
        turn: &mut Turn<'_>,
    ) {
        let Some(slave) = self.slaves.get_mut(slave_id) else {
            return;
        };
        if slave
            .connection
            .take_if(|current| *current == connection)
            .is_none()
        {
            return;
        }
        info!(%slave_id, "slave disconnected");
        self.slaves
            .set_state(slave_id, SlaveState::Disconnected, turn.now);
        self.allocator.set_offerable(slave_id, false);
        self.end_offers_of_slave(slave_id, OfferEnd::Rescinded, turn);
        let at = turn.now.after(self.config.slave_reregister_timeout);
        self.timers.arm(Timer::Return(slave_id), at);
        self.timers.arm(
            Timer::Ping(slave_id),
            turn.now.after(self.config.ping_interval),
        );
        self.publish_slave(slave_id, turn);
    }

    /// Tasks of frameworks without checkpointing do not outlive the process of their slave. K3 has
    /// them LOST at once, which turned every blink of a socket into lost tasks (MESOS-7911); here
    /// their slave has one ping interval to come back with them.
    fn lose_tasks_without_checkpoint(&mut self, slave_id: SlaveId, turn: &mut Turn<'_>) {
        let keeps =
            |framework: Option<&FrameworkDescription>| framework.is_none_or(|it| it.checkpoint);
        for slot in self.tasks.of_slave(slave_id) {
            let Some(task) = self.tasks.get(slot) else {
                continue;
            };
            if task.is_live() && !keeps(self.description(task.framework())) {
                let now = turn.now;
                self.end_task(slot, TaskState::Lost, Reason::SlaveDisconnected, now, turn);
            }
        }
    }

    /// Starts to give a slave up: first in the registry, then for everybody (semantics K4).
    fn give_up_slave(&mut self, slave_id: SlaveId, turn: &mut Turn<'_>) {
        let Some(slave) = self.slaves.get(slave_id) else {
            return;
        };
        if slave.proposal.is_some() || slave.claimant.is_some() {
            return;
        }
        warn!(%slave_id, missed_pings = slave.misses, "giving a slave up");
        self.allocator.set_offerable(slave_id, false);
        let command = Command::MarkSlaveUnreachable {
            slave_id,
            at: turn.now,
        };
        self.propose_for_slave(slave_id, command, turn);
    }

    pub(crate) fn on_slave_unreachable(
        &mut self,
        slave_id: SlaveId,
        at: Timestamp,
        turn: &mut Turn<'_>,
    ) {
        let Some(slave) = self.slaves.get_mut(slave_id) else {
            return;
        };
        let connection = slave.connection.take();
        slave.misses = 0;
        self.counters.slaves_unreachable += 1;
        // One time for all: the slave, its tasks and their updates (semantics K4).
        self.slaves.set_state(slave_id, SlaveState::Unreachable, at);
        self.timers.cancel(&Timer::Ping(slave_id));
        self.timers.cancel(&Timer::Return(slave_id));
        self.end_offers_of_slave(slave_id, OfferEnd::Rescinded, turn);
        self.publish_slave(slave_id, turn);
        self.recall_tasks(slave_id, at, turn);
        for slot in self.tasks.of_slave(slave_id) {
            self.cut_off_task(slot, at, turn);
        }
        self.forget_executors_of_slave(slave_id, turn);
        self.allocator.remove_slave(slave_id);
        self.allocator.clear_slave_filters(slave_id);
        if let Some(connection) = connection {
            // It does not answer, but if it still hears it comes back by a new connection.
            self.close(connection, Refusal::TooSlow, turn);
        }
        self.tell_failure(slave_id, turn);
    }

    pub(crate) fn cut_off_task(&mut self, slot: TaskSlot, at: Timestamp, turn: &mut Turn<'_>) {
        self.uncharge(slot);
        let Some(task) = self.tasks.get_mut(slot).filter(|task| task.is_live()) else {
            return;
        };
        task.advance(TaskState::Unreachable);
        let Some(task) = self.tasks.get(slot) else {
            return;
        };
        let mut status = self.master_status(task, TaskState::Unreachable, at);
        status.reason = Some(Reason::SlaveRemoved);
        status.message = format!("slave {} does not answer", task.slave());
        status.unreachable_since = Some(at);
        let framework = task.framework();
        self.note_status(slot, &status, turn);
        self.send_master_update(framework, status, turn);
        if let Some(oldest) = self.tasks.list_unreachable(slot, at) {
            self.counters.unreachable_tasks_forgotten += 1;
            self.forget_task(oldest, turn);
        }
    }

    /// Every framework hears of a lost slave (semantics C7).
    pub(crate) fn tell_failure(&self, slave_id: SlaveId, turn: &mut Turn<'_>) {
        for (_, framework) in self.frameworks.iter() {
            if let Some(connection) = framework.connection {
                turn.send_framework(connection, MasterToFramework::Failure { slave_id });
            }
        }
    }

    /// Makes a status the last one of a task, for readers and reconciliation.
    pub(crate) fn note_status(
        &mut self,
        slot: TaskSlot,
        status: &meros_proto::status::TaskStatus,
        turn: &mut Turn<'_>,
    ) {
        if let Some(task) = self.tasks.get_mut(slot) {
            task.keep_status(status);
            self.publisher.publish(task_changed(task), turn);
        }
    }

    /// A task leaves the table.
    pub(crate) fn forget_task(&mut self, slot: TaskSlot, turn: &mut Turn<'_>) {
        self.uncharge(slot);
        if let Some(task) = self.tasks.remove(slot) {
            self.publisher.publish(task_removed(&task), turn);
            self.note_drained(task.slave(), turn);
        }
    }

    /// Gives the resources of a task back (semantics F8).
    pub(crate) fn uncharge(&mut self, slot: TaskSlot) {
        let Some(task) = self.tasks.get_mut(slot) else {
            return;
        };
        let was_charged = std::mem::take(&mut task.is_charged);
        task.is_charged = was_charged && Mutant::FreeTwice.is_on();
        if was_charged {
            let (framework, slave) = (task.framework(), task.slave());
            self.allocator
                .release(framework, &task.role, slave, task.resources.clone());
        }
    }
}
