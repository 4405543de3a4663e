//! A slave is back: its tasks and the task table are brought together (semantics K5, K6).

use std::collections::BTreeSet;

use meros_proto::ids::SlaveId;
use meros_proto::message::master::REPORT_TASKS_MAX;
use meros_proto::message::slave::{MasterToSlave, ReconcileOnSlave, RunExecutor};
use meros_proto::status::{Reason, TaskState};
use meros_proto::view::ClusterChange;
use tracing::warn;

use crate::MasterCore;
use crate::allocator::Profile;
use crate::event::ConnectionId;
use crate::operations::total_of;
use crate::publish::{task_changed, task_view};
use crate::tasks::{Kill, ReportedTask, Task, TaskSlot};
use crate::turn::Turn;

/// What a slave says that it has when it comes back.
#[derive(Debug, Default)]
pub(crate) struct Report {
    pub(crate) tasks: Vec<ReportedTask>,
    pub(crate) executors: Vec<RunExecutor>,
}

/// A slave that has just registered, and what it was before.
pub(crate) struct Back {
    pub(crate) slave_id: SlaveId,
    pub(crate) connection: ConnectionId,
    /// It was merely away: this leader knew all its tasks.
    pub(crate) was_known: bool,
    /// Its tasks were said to be unreachable.
    pub(crate) was_unreachable: bool,
}

impl MasterCore {
    /// Brings the task table and what the slave holds together (semantics K5, K6).
    pub(crate) fn take_over_tasks(&mut self, back: &Back, report: Report, turn: &mut Turn<'_>) {
        let Report {
            tasks: report,
            executors,
        } = report;
        let mut missing: BTreeSet<TaskSlot> =
            self.tasks.of_slave(back.slave_id).into_iter().collect();
        // What it has may have changed: everything there is charged anew below.
        for slot in &missing {
            self.uncharge(*slot);
        }
        self.forget_executors_of_slave(back.slave_id, turn);
        let mut orphans = BTreeSet::new();
        for reported in report {
            if self.frameworks.get(reported.framework).is_none() {
                orphans.insert(reported.framework);
                continue;
            }
            match self.tasks.find(reported.framework, &reported.id) {
                Some(slot)
                    if self
                        .tasks
                        .get(slot)
                        .is_some_and(|it| it.slave() == back.slave_id) =>
                {
                    missing.remove(&slot);
                    self.confirm_task(slot, &reported, back, turn);
                }
                Some(_) => {
                    // The name was used again elsewhere while this slave was forgotten.
                    let kill = MasterToSlave::KillTask {
                        framework_id: reported.framework,
                        task_id: reported.id,
                        grace: None,
                    };
                    turn.send_slave(back.connection, kill);
                }
                None => self.adopt_task(reported, back, turn),
            }
        }
        self.describe_slave(back.slave_id);
        self.take_over_executors(back.slave_id, executors, &mut orphans, turn);
        let missing = self.charge_tasks_of(back.slave_id, missing, turn);
        for framework_id in orphans {
            turn.send_slave(
                back.connection,
                MasterToSlave::ShutdownFramework { framework_id },
            );
        }
        self.ask_for_missing(missing, back, turn);
        self.repeat_kills(back, turn);
    }

    /// A task that this leader knew is there.
    fn confirm_task(
        &mut self,
        slot: TaskSlot,
        reported: &ReportedTask,
        back: &Back,
        turn: &mut Turn<'_>,
    ) {
        self.tasks.unlist_unreachable(slot);
        let Some(task) = self.tasks.get_mut(slot) else {
            return;
        };
        let was_unreachable = task.state == TaskState::Unreachable;
        let has_ended = task.state.is_terminal();
        if task.advance(reported.state) && task.state.is_terminal() {
            self.counters.tasks_ended += 1;
        }
        if let (true, Some(status)) = (was_unreachable, &reported.status) {
            task.keep_status(status);
        }
        let is_live = task.is_live();
        if has_ended && !reported.state.is_terminal() {
            // Its framework was told that it ended (semantics K3).
            task.kill = Some(Kill::default());
        }
        self.publisher.publish(task_changed(task), turn);
        if was_unreachable && is_live {
            self.tell_returned(slot, back, turn);
        }
    }

    /// A task that this leader did not know.
    fn adopt_task(&mut self, reported: ReportedTask, back: &Back, turn: &mut Turn<'_>) {
        if !self.tasks.has_room(1) {
            self.counters.tasks_not_kept += 1;
            return;
        }
        let mut task = Task::reported(back.slave_id, reported, turn.now);
        let is_live = task.is_live();
        if back.was_known && is_live {
            // It was here, ended for its framework, and is forgotten (semantics K3).
            task.kill = Some(Kill::default());
        }
        self.remembered.remove(task.framework(), task.id());
        self.publisher
            .publish(ClusterChange::TaskAdded(task_view(&task)), turn);
        let slot = self.tasks.insert(task);
        if back.was_unreachable && is_live {
            self.tell_returned(slot, back, turn);
        }
    }

    /// Its framework hears that a task is not cut off any more (semantics K5).
    fn tell_returned(&mut self, slot: TaskSlot, back: &Back, turn: &mut Turn<'_>) {
        let Some(task) = self.tasks.get(slot) else {
            return;
        };
        let mut status = self.master_status(task, task.state, turn.now);
        status.reason = Some(Reason::SlaveReregistered);
        status.message = format!("slave {} is back", back.slave_id);
        self.send_master_update(task.framework(), status, turn);
    }

    /// Tells the allocator what the slave has.
    fn describe_slave(&mut self, slave_id: SlaveId) {
        let (Some(record), Some(row)) = (self.registry.slave(slave_id), self.slaves.get(slave_id))
        else {
            return;
        };
        let total = total_of(&record.slave, row.claims.as_deref());
        self.allocator.add_slave(slave_id, &total);
        let profile = Profile {
            hostname: record.slave.hostname.clone(),
            attributes: record.slave.attributes.clone(),
        };
        self.allocator.describe_slave(slave_id, profile);
        let is_excluded = !record.mode.is_offered();
        self.allocator.set_excluded(slave_id, is_excluded);
    }

    /// Charges what the slave reports, and what it may still have. Ends what it neither reports nor
    /// has room for; tells what is left to ask for.
    fn charge_tasks_of(
        &mut self,
        slave_id: SlaveId,
        mut missing: BTreeSet<TaskSlot>,
        turn: &mut Turn<'_>,
    ) -> BTreeSet<TaskSlot> {
        let reported = self.tasks.of_slave(slave_id);
        for slot in reported.into_iter().filter(|slot| !missing.contains(slot)) {
            self.charge_task(slot);
        }
        // What they were launched on is not there: the operation that was to reserve it has not
        // reached the slave, and they were sent after it.
        let homeless: Vec<TaskSlot> = missing
            .iter()
            .copied()
            .filter(|slot| !self.try_charge(*slot))
            .collect();
        for slot in homeless {
            let Some(task) = self.tasks.get(slot).filter(|task| task.is_live()) else {
                continue;
            };
            let state = match task.has_started {
                true => TaskState::Gone,
                false => TaskState::Dropped,
            };
            missing.remove(&slot);
            self.end_task(slot, state, Reason::ResourcesUnknown, turn.now, turn);
        }
        missing
    }

    /// Charges a task that runs, whether its slave has room for it or not.
    pub(crate) fn charge_task(&mut self, slot: TaskSlot) {
        if !self.try_charge(slot)
            && let Some(task) = self.tasks.get(slot).filter(|task| task.is_live())
        {
            self.counters.tasks_uncharged += 1;
            warn!(slave_id = %task.slave(), task_id = %task.id(), "a reported task does not fit its slave");
        }
    }

    /// Charges a task if it holds something and that is there.
    fn try_charge(&mut self, slot: TaskSlot) -> bool {
        let Some(task) = self.tasks.get_mut(slot).filter(|task| task.is_live()) else {
            return false;
        };
        task.is_charged =
            self.allocator
                .charge(task.framework(), &task.role, task.slave(), &task.resources);
        task.is_charged
    }

    /// Asks the slave about tasks that it did not report (semantics K6).
    fn ask_for_missing(&mut self, missing: BTreeSet<TaskSlot>, back: &Back, turn: &mut Turn<'_>) {
        let mut asked = Vec::new();
        for task in missing.into_iter().filter_map(|slot| self.tasks.get(slot)) {
            // The end of others is told already, or waits here for an acknowledgement.
            let end_is_on_its_way = task.state.is_terminal()
                && (task.has_full_end() || self.updates.contains(task.framework(), task.id()));
            if !end_is_on_its_way {
                asked.push(ReconcileOnSlave {
                    framework_id: task.framework(),
                    task_id: task.id().clone(),
                    started: task.has_started,
                });
            }
        }
        for tasks in asked.chunks(REPORT_TASKS_MAX) {
            let ask = MasterToSlave::ReconcileTasks {
                tasks: tasks.to_vec(),
            };
            turn.send_slave(back.connection, ask);
        }
    }

    /// Kills that may not have arrived are sent again (semantics B9, K6).
    fn repeat_kills(&mut self, back: &Back, turn: &mut Turn<'_>) {
        for slot in self.tasks.of_slave(back.slave_id) {
            let Some(task) = self.tasks.get(slot) else {
                continue;
            };
            if let Some(kill) = task.kill {
                let message = MasterToSlave::KillTask {
                    framework_id: task.framework(),
                    task_id: task.id().clone(),
                    grace: kill.grace,
                };
                turn.send_slave(back.connection, message);
            }
        }
    }
}
