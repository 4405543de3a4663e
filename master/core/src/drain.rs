//! Slaves that operators take out: deactivated, drained, declared gone (semantics K7, K10, Q7).
//!
//! Invariants: M14 of a slave that is not active nothing is offered. What was decided is in the
//! registry, so a new leader goes on with it; kills and ends of executors are ordered again when the slave is
//! back.

use std::time::Duration;

use meros_proto::ids::SlaveId;
use meros_proto::message::slave::MasterToSlave;
use meros_proto::refusal::Refusal;
use meros_proto::slave::{SlaveMode, SlaveState};
use meros_proto::task::KILL_GRACE_MAX;
use meros_proto::view::OfferEnd;
use tracing::info;

use crate::MasterCore;
use crate::command::Command;
use crate::event::RequestId;
use crate::kill::shortened;
use crate::tasks::Kill;
use crate::timers::Timer;
use crate::turn::Turn;

/// The most operators that wait until one slave is gone; one more is refused.
const GONE_REQUESTS_MAX: usize = 64;

impl MasterCore {
    pub(crate) fn on_set_slave_mode(
        &mut self,
        request: RequestId,
        slave_id: SlaveId,
        mode: SlaveMode,
        turn: &mut Turn<'_>,
    ) -> Result<(), Refusal> {
        self.check_member(slave_id)?;
        if let SlaveMode::Draining {
            grace: Some(grace), ..
        } = mode
            && grace > KILL_GRACE_MAX
        {
            return Err(Refusal::Invalid {
                field: "grace".to_owned(),
                why: format!("it is {grace:?}; at most {KILL_GRACE_MAX:?} is allowed"),
            });
        }
        let at = turn.now;
        let command = Command::SetSlaveMode { slave_id, mode, at };
        self.order(request, command, turn)
    }

    /// Declares a slave gone: first in the registry, then for everybody.
    pub(crate) fn on_mark_gone(
        &mut self,
        request: RequestId,
        slave_id: SlaveId,
        turn: &mut Turn<'_>,
    ) -> Result<(), Refusal> {
        self.check_member(slave_id)?;
        let Some(row) = self.slaves.get_mut(slave_id) else {
            return Err(Refusal::NoSuchSlave { slave_id });
        };
        if row.gone_requests.len() >= GONE_REQUESTS_MAX {
            return Err(Refusal::OverLimit {
                what: "the number of requests to declare this slave gone".to_owned(),
                limit: GONE_REQUESTS_MAX as u64,
                advice: "wait for the end of the first".to_owned(),
            });
        }
        row.gone_requests.push(request);
        self.mark_gone(slave_id, turn);
        Ok(())
    }

    fn mark_gone(&mut self, slave_id: SlaveId, turn: &mut Turn<'_>) {
        let Some(row) = self.slaves.get_mut(slave_id) else {
            return;
        };
        if std::mem::replace(&mut row.is_gone, true) {
            return;
        }
        self.allocator.set_offerable(slave_id, false);
        self.end_offers_of_slave(slave_id, OfferEnd::Rescinded, turn);
        self.advance_slave(slave_id, turn);
    }

    pub(crate) fn check_member(&self, slave_id: SlaveId) -> Result<(), Refusal> {
        match self.slaves.get(slave_id) {
            Some(_) => Ok(()),
            None if self.registry.is_gone_slave(slave_id) => Err(Refusal::SlaveGone { slave_id }),
            None => Err(Refusal::NoSuchSlave { slave_id }),
        }
    }

    /// What was decided about a slave has become part of the registry.
    pub(crate) fn on_slave_mode_set(&mut self, slave_id: SlaveId, turn: &mut Turn<'_>) {
        let (Some(record), Some(row)) =
            (self.registry.slave(slave_id), self.slaves.get_mut(slave_id))
        else {
            return;
        };
        let mode = record.mode;
        info!(%slave_id, mode = mode.name(), "an operator has decided about a slave");
        row.is_draining = matches!(mode, SlaveMode::Draining { .. });
        row.is_drained = false;
        self.allocator.set_excluded(slave_id, !mode.is_offered());
        if !mode.is_offered() {
            self.end_offers_of_slave(slave_id, OfferEnd::Rescinded, turn);
        }
        match mode {
            SlaveMode::Draining { grace, .. } => {
                self.kill_for_drain(slave_id, grace, turn);
                self.limit_executors(slave_id, grace, turn);
            }
            SlaveMode::Active | SlaveMode::Deactivated => {
                self.take_kills_back(slave_id);
                self.free_executors(slave_id);
            }
        }
        self.publish_slave(slave_id, turn);
        self.note_drained(slave_id, turn);
    }

    /// A slave is back: what the last one, or the last leader, did not get done is done now.
    pub(crate) fn resume_drain(&mut self, slave_id: SlaveId, turn: &mut Turn<'_>) {
        let mode = self.registry.slave(slave_id).map(|record| record.mode);
        if let Some(SlaveMode::Draining { grace, .. }) = mode {
            self.kill_for_drain(slave_id, grace, turn);
            self.limit_executors(slave_id, grace, turn);
            self.note_drained(slave_id, turn);
        }
    }

    /// Orders a kill of all that runs on a slave and is not being killed as fast already.
    fn kill_for_drain(&mut self, slave_id: SlaveId, grace: Option<Duration>, turn: &mut Turn<'_>) {
        let connection = self.slaves.connection(slave_id);
        for slot in self.tasks.of_slave(slave_id) {
            let Some(task) = self.tasks.get_mut(slot) else {
                continue;
            };
            let kill = Kill {
                grace: shortened(task.kill, grace),
                for_drain: task.kill.is_none_or(|kill| kill.for_drain),
            };
            if task.state.is_terminal() || task.kill == Some(kill) {
                continue;
            }
            task.kill = Some(kill);
            // A slave that is away hears of it when it is back.
            if let Some(connection) = connection {
                let message = MasterToSlave::KillTask {
                    framework_id: task.framework(),
                    task_id: task.id().clone(),
                    grace: kill.grace,
                };
                turn.send_slave(connection, message);
            }
        }
    }

    /// A drain that is called off kills nothing more. What the slave has heard it does.
    fn take_kills_back(&mut self, slave_id: SlaveId) {
        if self.slaves.connection(slave_id).is_some() {
            return;
        }
        for slot in self.tasks.of_slave(slave_id) {
            if let Some(task) = self.tasks.get_mut(slot) {
                task.kill.take_if(|kill| kill.for_drain);
            }
        }
    }

    /// The executors of a slave that hears of its drain end with it. A repeat may only shorten the grace,
    /// and one after a lost connection repeats the orders.
    fn limit_executors(&mut self, slave_id: SlaveId, grace: Option<Duration>, turn: &mut Turn<'_>) {
        let row = self.slaves.get_mut(slave_id);
        let Some(row) = row.filter(|row| row.connection.is_some()) else {
            return;
        };
        // Without a grace each task has its own, and none has a longer one than this.
        let over = turn.now.after(grace.unwrap_or(KILL_GRACE_MAX));
        let at = row.executors_end_at.map_or(over, |known| known.min(over));
        row.executors_end_at = Some(at);
        row.executors_told_to_end = false;
        if at > turn.now && self.executors.count_of_slave(slave_id) > 0 {
            self.timers.arm(Timer::Drain(slave_id), at);
        }
        self.end_executors_for_drain(slave_id, turn);
    }

    /// A drain that is called off ends no more executors.
    fn free_executors(&mut self, slave_id: SlaveId) {
        self.timers.cancel(&Timer::Drain(slave_id));
        if let Some(row) = self.slaves.get_mut(slave_id) {
            row.executors_end_at = None;
            row.executors_told_to_end = false;
        }
    }

    /// Ends executors that have nothing left to do, or had their time: a kill only asks them, and one that
    /// does not listen would hold the drain up for ever.
    pub(crate) fn end_executors_for_drain(&mut self, slave_id: SlaveId, turn: &mut Turn<'_>) {
        let has_tasks = self.tasks.count_of_slave(slave_id) > 0;
        let row = self.slaves.get_mut(slave_id);
        let Some(row) = row.filter(|row| row.is_draining && !row.executors_told_to_end) else {
            return;
        };
        // A slave that is away hears of it when it is back.
        let Some(connection) = row.connection else {
            return;
        };
        let is_over = row.executors_end_at.is_some_and(|at| at <= turn.now);
        if has_tasks && !is_over {
            return;
        }
        row.executors_told_to_end = true;
        self.timers.cancel(&Timer::Drain(slave_id));
        for (_, framework_id, executor_id) in self.executors.of_slave(slave_id) {
            let order = MasterToSlave::ShutdownExecutor {
                framework_id,
                executor_id,
            };
            turn.send_slave(connection, order);
        }
    }

    /// Notices that nothing is left on a slave that is drained, or nothing but executors, which then end.
    pub(crate) fn note_drained(&mut self, slave_id: SlaveId, turn: &mut Turn<'_>) {
        self.end_executors_for_drain(slave_id, turn);
        let Some(row) = self.slaves.get(slave_id).filter(|row| row.is_draining) else {
            return;
        };
        // What runs on one that has not come back yet is not known.
        let is_known = matches!(
            row.state(),
            SlaveState::Registered | SlaveState::Disconnected
        );
        let is_empty = self.tasks.count_of_slave(slave_id) == 0
            && self.executors.count_of_slave(slave_id) == 0
            && row.operations.is_empty();
        let is_drained = is_empty && (is_known || row.is_drained);
        if is_drained == row.is_drained {
            return;
        }
        if let Some(row) = self.slaves.get_mut(slave_id) {
            row.is_drained = is_drained;
        }
        self.publish_slave(slave_id, turn);
        let mode = self.registry.slave(slave_id).map(|record| record.mode);
        if is_drained
            && let Some(SlaveMode::Draining {
                mark_gone: true, ..
            }) = mode
        {
            info!(%slave_id, "slave drained, and gone as ordered");
            self.mark_gone(slave_id, turn);
        }
    }
}
