//! Slaves join, come back and leave (semantics K5, K6, K8).

use std::collections::BTreeSet;

use meros_proto::ids::{ClusterId, SlaveId};
use meros_proto::message::master::{REPORT_TASKS_MAX, TASKS_PER_SLAVE_MAX, TaskReport};
use meros_proto::message::slave::{MasterToSlave, ReconcileOnSlave};
use meros_proto::refusal::Refusal;
use meros_proto::slave::{SlaveDescription, SlaveState};
use meros_proto::status::{Reason, TaskState};
use meros_proto::time::Timestamp;
use meros_proto::view::{ClusterChange, OfferEnd};
use tracing::{info, warn};

use crate::MasterCore;
use crate::command::Command;
use crate::connections::Stage;
use crate::event::ConnectionId;
use crate::publish::{task_changed, task_view};
use crate::slaves::{SLAVES_MAX, Slave};
use crate::tasks::{Kill, ReportedTask, Task, TaskSlot};
use crate::timers::Timer;
use crate::turn::Turn;
use crate::validate::check_slave;

impl MasterCore {
    pub(crate) fn on_register(
        &mut self,
        connection: ConnectionId,
        slave: SlaveDescription,
        turn: &mut Turn<'_>,
    ) {
        let Some(principal) = self
            .connections
            .get(connection)
            .map(|row| row.principal.clone())
        else {
            return;
        };
        if let Err(refusal) = check_slave(&slave) {
            return self.refuse_slave(connection, refusal, turn);
        }
        let slave_id = SlaveId(self.slave_next);
        let (true, Some(next)) = (
            self.slaves.len() + self.admissions.len() < SLAVES_MAX,
            self.slave_next.checked_add(1),
        ) else {
            let refusal = Refusal::OverLimit {
                what: "the number of slaves".to_owned(),
                limit: SLAVES_MAX as u64,
                advice: "let slaves that are gone for good leave the cluster first".to_owned(),
            };
            return self.refuse_slave(connection, refusal, turn);
        };
        self.slave_next = next;
        let command = Command::AdmitSlave {
            slave_id,
            principal,
            slave,
            at: turn.now,
        };
        let proposal = self.propose(command, turn);
        self.admissions.insert(proposal, connection);
        self.connections
            .set_stage(connection, Stage::SlaveAdmitting);
    }

    pub(crate) fn on_slave_admitted(
        &mut self,
        slave_id: SlaveId,
        waiting: Option<ConnectionId>,
        turn: &mut Turn<'_>,
    ) {
        info!(%slave_id, "slave admitted");
        self.counters.slaves_admitted += 1;
        self.slaves
            .insert(slave_id, Slave::new(SlaveState::Recovered, turn.now));
        let is_admitting =
            |row: &crate::connections::Connection| matches!(row.stage, Stage::SlaveAdmitting);
        match waiting
            .filter(|connection| self.connections.get(*connection).is_some_and(is_admitting))
        {
            Some(connection) => self.welcome_slave(slave_id, connection, Vec::new(), turn),
            None => {
                // Nobody was ever told this id, so nobody will come back under it.
                if let Some(slave) = self.slaves.get_mut(slave_id) {
                    slave.is_leaving = true;
                }
                self.advance_slave(slave_id, turn);
            }
        }
    }

    pub(crate) fn on_report_tasks(
        &mut self,
        connection: ConnectionId,
        tasks: Vec<TaskReport>,
        turn: &mut Turn<'_>,
    ) {
        let Some(Stage::SlaveFresh { report }) = self.connections.stage_mut(connection) else {
            return;
        };
        if tasks.len() > REPORT_TASKS_MAX || report.len() + tasks.len() > TASKS_PER_SLAVE_MAX {
            let refusal = Refusal::OverLimit {
                what: "the number of reported tasks".to_owned(),
                limit: TASKS_PER_SLAVE_MAX as u64,
                advice: format!("send at most {REPORT_TASKS_MAX} in one message"),
            };
            return self.refuse_slave(connection, refusal, turn);
        }
        report.extend(tasks.into_iter().map(ReportedTask::from));
    }

    pub(crate) fn on_reregister(
        &mut self,
        connection: ConnectionId,
        slave_id: SlaveId,
        cluster_id: ClusterId,
        slave: SlaveDescription,
        turn: &mut Turn<'_>,
    ) {
        if let Err(refusal) = self.check_reregister(connection, slave_id, cluster_id, &slave) {
            return self.refuse_slave(connection, refusal, turn);
        }
        let Some(Stage::SlaveFresh { report }) = self.connections.stage_mut(connection) else {
            return;
        };
        let report = std::mem::take(report);
        let stage = Stage::SlaveClaiming {
            slave_id,
            slave: Box::new(slave),
            report,
        };
        self.connections.set_stage(connection, stage);
        let Some(row) = self.slaves.get_mut(slave_id) else {
            return;
        };
        if let Some(older) = row.claimant.replace(connection) {
            self.refuse_slave(older, superseded("slave"), turn);
        }
        self.advance_slave(slave_id, turn);
    }

    /// The first that applies: another cluster's, a bad description, unknown, another's.
    fn check_reregister(
        &self,
        connection: ConnectionId,
        slave_id: SlaveId,
        theirs: ClusterId,
        slave: &SlaveDescription,
    ) -> Result<(), Refusal> {
        match self.registry.cluster_id() {
            Some(ours) if ours != theirs => return Err(Refusal::WrongCluster { ours, theirs }),
            _ => {}
        }
        check_slave(slave)?;
        let unknown = Refusal::SlaveUnknown { slave_id };
        let (Some(record), Some(row)) = (self.registry.slave(slave_id), self.slaves.get(slave_id))
        else {
            return Err(unknown);
        };
        if row.is_leaving {
            return Err(unknown);
        }
        let is_owner = |principal: &str| principal == record.principal;
        match self.connections.get(connection) {
            Some(row) if is_owner(&row.principal) => Ok(()),
            _ => Err(Refusal::NotYours {
                what: format!("slave {slave_id}"),
            }),
        }
    }

    /// Does the next step about a slave's membership, unless one is being committed.
    pub(crate) fn advance_slave(&mut self, slave_id: SlaveId, turn: &mut Turn<'_>) {
        let Some(row) = self
            .slaves
            .get(slave_id)
            .filter(|row| row.proposal.is_none())
        else {
            return;
        };
        if row.is_leaving {
            let command = Command::RemoveSlave {
                slave_id,
                at: turn.now,
            };
            return self.propose_for_slave(slave_id, command, turn);
        }
        let Some(connection) = row.claimant else {
            return;
        };
        if row.state() == SlaveState::Unreachable {
            let command = Command::MarkSlaveReachable { slave_id };
            return self.propose_for_slave(slave_id, command, turn);
        }
        let Some(Stage::SlaveClaiming { slave, report, .. }) =
            self.connections.stage_mut(connection)
        else {
            return;
        };
        if self
            .registry
            .slave(slave_id)
            .is_some_and(|record| record.slave != **slave)
        {
            let command = Command::UpdateSlave {
                slave_id,
                slave: (**slave).clone(),
            };
            return self.propose_for_slave(slave_id, command, turn);
        }
        let report = std::mem::take(report);
        info!(%slave_id, tasks = report.len(), "slave re-registered");
        self.counters.slaves_reregistered += 1;
        self.welcome_slave(slave_id, connection, report, turn);
    }

    /// The slave is back in the registry, but not yet here.
    pub(crate) fn on_slave_reachable(&mut self, slave_id: SlaveId, turn: &mut Turn<'_>) {
        let Some(slave) = self.slaves.get_mut(slave_id) else {
            return;
        };
        slave.was_unreachable = true;
        self.slaves
            .set_state(slave_id, SlaveState::Recovered, turn.now);
        let at = turn.now.after(self.config.slave_reregister_timeout);
        self.timers.arm(Timer::Return(slave_id), at);
        self.publish_slave(slave_id, turn);
    }

    /// A connection becomes the slave; an older one of the same slave ends (semantics A8).
    fn welcome_slave(
        &mut self,
        slave_id: SlaveId,
        connection: ConnectionId,
        report: Vec<ReportedTask>,
        turn: &mut Turn<'_>,
    ) {
        let (Some(row), Some(cluster_id), Some(epoch)) = (
            self.slaves.get_mut(slave_id),
            self.registry.cluster_id(),
            self.epoch,
        ) else {
            return;
        };
        let older = row.connection.replace(connection);
        row.claimant = None;
        row.misses = 0;
        let before = row.state();
        let was_unreachable = std::mem::take(&mut row.was_unreachable);
        self.slaves
            .set_state(slave_id, SlaveState::Registered, turn.now);
        self.connections
            .set_stage(connection, Stage::SlaveRegistered(slave_id));
        if let Some(older) = older {
            self.refuse_slave(older, superseded("slave"), turn);
        }
        self.timers.cancel(&Timer::Return(slave_id));
        self.timers.arm(
            Timer::Ping(slave_id),
            turn.now.after(self.config.ping_interval),
        );
        self.end_offers_of_slave(slave_id, OfferEnd::Rescinded, turn);
        let ping_timeout = self.config.ping_timeout();
        turn.send_slave(
            connection,
            MasterToSlave::Registered {
                slave_id,
                cluster_id,
                epoch,
                ping_timeout,
            },
        );
        self.publish_slave(slave_id, turn);
        // While it was merely away, this leader knew every task it had.
        let was_known = matches!(before, SlaveState::Registered | SlaveState::Disconnected);
        let back = Back {
            slave_id,
            connection,
            was_known,
            was_unreachable,
        };
        self.take_over_tasks(&back, report, turn);
    }

    /// Brings the task table and what the slave holds together (semantics K5, K6).
    fn take_over_tasks(&mut self, back: &Back, report: Vec<ReportedTask>, turn: &mut Turn<'_>) {
        let mut missing: BTreeSet<TaskSlot> =
            self.tasks.of_slave(back.slave_id).into_iter().collect();
        // What it has may have changed: everything there is charged anew below.
        for slot in &missing {
            self.uncharge(*slot);
        }
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
        self.charge_tasks_of(back.slave_id);
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
            task.kill = Some(Kill { grace: None });
        }
        self.publisher.publish(task_changed(task), turn);
        if was_unreachable && is_live {
            self.tell_returned(slot, back, turn);
        }
    }

    /// A task that this leader did not know.
    fn adopt_task(&mut self, reported: ReportedTask, back: &Back, turn: &mut Turn<'_>) {
        if self.tasks.is_full() {
            self.counters.tasks_not_kept += 1;
            return;
        }
        let mut task = Task::reported(back.slave_id, reported, turn.now);
        let is_live = task.is_live();
        if back.was_known && is_live {
            // It was here, ended for its framework, and is forgotten (semantics K3).
            task.kill = Some(Kill { grace: None });
        }
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

    fn charge_tasks_of(&mut self, slave_id: SlaveId) {
        let Some(record) = self.registry.slave(slave_id) else {
            return;
        };
        self.allocator.add_slave(slave_id, &record.slave.resources);
        for slot in self.tasks.of_slave(slave_id) {
            let Some(task) = self.tasks.get_mut(slot).filter(|task| task.is_live()) else {
                continue;
            };
            let framework = task.framework();
            task.is_charged =
                self.allocator
                    .charge(framework, &task.role, slave_id, &task.resources);
            if !task.is_charged {
                self.counters.tasks_uncharged += 1;
                warn!(%slave_id, task_id = %task.id(), "a reported task does not fit its slave");
            }
        }
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

    pub(crate) fn on_unregister(&mut self, slave_id: SlaveId, turn: &mut Turn<'_>) {
        let Some(slave) = self.slaves.get_mut(slave_id) else {
            return;
        };
        slave.is_leaving = true;
        self.allocator.set_offerable(slave_id, false);
        self.end_offers_of_slave(slave_id, OfferEnd::Rescinded, turn);
        self.advance_slave(slave_id, turn);
    }

    /// The slave is no more: what ran there is lost, for all frameworks in this word (semantics K8).
    pub(crate) fn on_slave_removed(
        &mut self,
        slave_id: SlaveId,
        at: Timestamp,
        turn: &mut Turn<'_>,
    ) {
        info!(%slave_id, "slave removed");
        self.counters.slaves_removed += 1;
        self.end_offers_of_slave(slave_id, OfferEnd::Rescinded, turn);
        for slot in self.tasks.of_slave(slave_id) {
            self.lose_task_of_removed_slave(slot, at, turn);
        }
        self.allocator.remove_slave(slave_id);
        self.allocator.clear_slave_filters(slave_id);
        self.timers.cancel(&Timer::Ping(slave_id));
        self.timers.cancel(&Timer::Return(slave_id));
        if let Some(slave) = self.slaves.remove(slave_id) {
            if let Some(connection) = slave.connection {
                self.connections.set_stage(connection, Stage::SlaveLeaving);
            }
            if let Some(connection) = slave.claimant {
                self.refuse_slave(connection, Refusal::SlaveUnknown { slave_id }, turn);
            }
        }
        self.publisher
            .publish(ClusterChange::SlaveRemoved(slave_id), turn);
        self.tell_failure(slave_id, turn);
    }

    fn lose_task_of_removed_slave(&mut self, slot: TaskSlot, at: Timestamp, turn: &mut Turn<'_>) {
        let Some(task) = self.tasks.get(slot) else {
            return;
        };
        if !task.state.is_terminal() {
            return self.end_task(slot, TaskState::Lost, Reason::SlaveRemoved, at, turn);
        }
        // The slave will not send the end again, so what is left of it comes from here.
        if !task.has_full_end() && !self.updates.contains(task.framework(), task.id()) {
            let mut status = self.master_status(task, task.state, at);
            status.reason = Some(Reason::SlaveRemoved);
            self.send_master_update(task.framework(), status, turn);
        }
    }
}

/// A slave that has just registered, and what it was before.
struct Back {
    slave_id: SlaveId,
    connection: ConnectionId,
    /// This leader knew all its tasks until a moment ago.
    was_known: bool,
    /// Its tasks were said to be unreachable.
    was_unreachable: bool,
}

pub(crate) fn superseded(what: &str) -> Refusal {
    Refusal::Superseded {
        what: what.to_owned(),
    }
}
