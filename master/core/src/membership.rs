//! Slaves join, come back and leave (semantics K5, K6, K8).

use meros_proto::ids::{ClusterId, SlaveId};
use meros_proto::message::master::{REPORT_TASKS_MAX, TASKS_PER_SLAVE_MAX, TaskReport};
use meros_proto::message::slave::MasterToSlave;
use meros_proto::mutant::Mutant;
use meros_proto::refusal::Refusal;
use meros_proto::slave::{SlaveDescription, SlaveState};
use meros_proto::status::{Reason, TaskState};
use meros_proto::time::Timestamp;
use meros_proto::view::{ClusterChange, OfferEnd};
use tracing::{info, warn};

use crate::MasterCore;
use crate::command::Command;
use crate::connections::Stage;
use crate::effect::Answer;
use crate::event::ConnectionId;
use crate::operations::{ReportedClaims, check_reported, kept};
use crate::slaves::{SLAVES_MAX, Slave};
use crate::takeover::{Back, Report};
use crate::tasks::{ReportedTask, TaskSlot};
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
        let claims = match self.connections.stage_mut(connection) {
            Some(Stage::SlaveFresh { claims, .. }) => claims.take(),
            _ => None,
        };
        if let Err(refusal) = check_described(&slave, claims.as_deref()) {
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
            .set_stage(connection, Stage::SlaveAdmitting { claims });
        if let (true, Some(cluster_id), Some(epoch)) = (
            Mutant::WelcomeBeforeCommit.is_on(),
            self.registry.cluster_id(),
            self.epoch,
        ) {
            let ping_timeout = self.config.ping_timeout();
            let welcome = MasterToSlave::Registered {
                slave_id,
                cluster_id,
                epoch,
                ping_timeout,
            };
            turn.send_slave(connection, welcome);
        }
    }

    pub(crate) fn on_slave_admitted(
        &mut self,
        slave_id: SlaveId,
        waiting: Option<ConnectionId>,
        turn: &mut Turn<'_>,
    ) {
        info!(%slave_id, "slave admitted");
        self.counters.slaves_admitted += 1;
        self.slaves.insert(slave_id, Slave::admitted(turn.now));
        let admitting =
            waiting.and_then(|connection| match self.connections.stage_mut(connection) {
                Some(Stage::SlaveAdmitting { claims }) => Some((connection, claims.take())),
                _ => None,
            });
        match admitting {
            Some((connection, claims)) => {
                self.welcome_slave(slave_id, connection, Report::default(), claims, turn);
            }
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
        let Some(Stage::SlaveFresh { report, .. }) = self.connections.stage_mut(connection) else {
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
        let Some(Stage::SlaveFresh {
            report,
            executors,
            claims,
        }) = self.connections.stage_mut(connection)
        else {
            return;
        };
        let (report, claims) = (std::mem::take(report), claims.take());
        let executors = std::mem::take(executors);
        let stage = Stage::SlaveClaiming {
            slave_id,
            slave: Box::new(slave),
            report,
            executors,
            claims,
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

    /// The first that applies: another cluster's, a bad description, gone, unknown, another's, outdated.
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
        let claims = match self.connections.get(connection).map(|row| &row.stage) {
            Some(Stage::SlaveFresh { claims, .. }) => claims.as_deref(),
            _ => None,
        };
        check_described(slave, claims)?;
        // One that is leaving, or to be gone, waits until that is committed, and only then hears of it:
        // a master that was deposed meanwhile must not say what will never be true.
        if self.registry.is_gone_slave(slave_id) {
            return Err(Refusal::SlaveGone { slave_id });
        }
        let Some(record) = self.registry.slave(slave_id) else {
            return Err(Refusal::SlaveUnknown { slave_id });
        };
        let is_owner = |principal: &str| principal == record.principal;
        let row = self.connections.get(connection);
        if !row.is_some_and(|row| is_owner(&row.principal)) {
            return Err(Refusal::NotYours {
                what: format!("slave {slave_id}"),
            });
        }
        // The newest connection is the slave: what a process that has died said on an older one may come
        // last. Whoever is alive can open another one.
        let newest = self.slaves.get(slave_id);
        let newest = newest.and_then(|row| row.claimant.max(row.connection));
        match newest > Some(connection) {
            true => Err(outdated("slave")),
            false => Ok(()),
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
        if row.is_gone {
            let command = Command::MarkSlaveGone {
                slave_id,
                at: turn.now,
            };
            return self.propose_for_slave(slave_id, command, turn);
        }
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
        let Some(Stage::SlaveClaiming {
            slave,
            report,
            executors,
            claims,
            ..
        }) = self.connections.stage_mut(connection)
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
        let (report, claims) = (std::mem::take(report), claims.take());
        let executors = std::mem::take(executors);
        info!(%slave_id, tasks = report.len(), "slave re-registered");
        self.counters.slaves_reregistered += 1;
        let report = Report {
            tasks: report,
            executors,
        };
        self.welcome_slave(slave_id, connection, report, claims, turn);
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
        report: Report,
        claims: Option<Box<ReportedClaims>>,
        turn: &mut Turn<'_>,
    ) {
        let ReportedClaims { claims, decided } = claims.map(|it| *it).unwrap_or_default();
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
        row.claims = kept(claims);
        let was_known = row.is_known();
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
        self.settle_operations(slave_id, &decided, turn);
        let back = Back {
            slave_id,
            connection,
            was_known,
            was_unreachable,
        };
        self.take_over_tasks(&back, report, turn);
        self.forget_remembered_of(slave_id, turn);
        self.resume_drain(slave_id, turn);
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

    /// The slave has left: what ran there is lost, for all frameworks in this word (semantics K8).
    pub(crate) fn on_slave_removed(
        &mut self,
        slave_id: SlaveId,
        at: Timestamp,
        turn: &mut Turn<'_>,
    ) {
        info!(%slave_id, "slave removed");
        self.counters.slaves_removed += 1;
        let left = self.remove_slave(slave_id, (TaskState::Lost, Reason::SlaveRemoved), at, turn);
        if let Some(connection) = left {
            self.connections.set_stage(connection, Stage::SlaveLeaving);
        }
    }

    /// The slave is gone by an operator's word: it is told, and so are the frameworks of what ran
    /// there (semantics K7).
    pub(crate) fn on_slave_gone(&mut self, slave_id: SlaveId, at: Timestamp, turn: &mut Turn<'_>) {
        warn!(%slave_id, "slave declared gone");
        self.counters.slaves_gone += 1;
        let end = (TaskState::GoneByOperator, Reason::SlaveRemovedByOperator);
        if let Some(connection) = self.remove_slave(slave_id, end, at, turn) {
            self.refuse_slave(connection, Refusal::SlaveGone { slave_id }, turn);
        }
    }

    /// A slave is no member any more; what ran there ends like this. Its connection, if it has one.
    fn remove_slave(
        &mut self,
        slave_id: SlaveId,
        end: (TaskState, Reason),
        at: Timestamp,
        turn: &mut Turn<'_>,
    ) -> Option<ConnectionId> {
        self.end_offers_of_slave(slave_id, OfferEnd::Rescinded, turn);
        self.recall_tasks(slave_id, at, turn);
        for slot in self.tasks.of_slave(slave_id) {
            self.lose_task_of_removed_slave(slot, end, at, turn);
        }
        self.forget_executors_of_slave(slave_id, turn);
        self.allocator.remove_slave(slave_id);
        self.allocator.clear_slave_filters(slave_id);
        self.timers.cancel(&Timer::Ping(slave_id));
        self.timers.cancel(&Timer::Return(slave_id));
        self.timers.cancel(&Timer::Drain(slave_id));
        let row = self.slaves.remove(slave_id);
        if let Some(connection) = row.as_ref().and_then(|row| row.claimant) {
            let refusal = match self.registry.is_gone_slave(slave_id) {
                true => Refusal::SlaveGone { slave_id },
                false => Refusal::SlaveUnknown { slave_id },
            };
            self.refuse_slave(connection, refusal, turn);
        }
        self.publisher
            .publish(ClusterChange::SlaveRemoved(slave_id), turn);
        self.tell_failure(slave_id, turn);
        let row = row?;
        self.drop_operations(slave_id, row.operations, turn);
        for request in row.gone_requests {
            turn.reply(request, Ok(Answer::Done));
        }
        row.connection
    }

    pub(crate) fn lose_task_of_removed_slave(
        &mut self,
        slot: TaskSlot,
        (state, reason): (TaskState, Reason),
        at: Timestamp,
        turn: &mut Turn<'_>,
    ) {
        let Some(task) = self.tasks.get(slot) else {
            return;
        };
        if !task.state.is_terminal() {
            return self.end_task(slot, state, reason, at, turn);
        }
        // The slave will not send the end again, so what is left of it comes from here.
        if !task.has_full_end() && !self.updates.contains(task.framework(), task.id()) {
            let mut status = self.master_status(task, task.state, at);
            status.reason = Some(reason);
            self.send_master_update(task.framework(), status, turn);
        }
    }
}

/// Checks what a slave says of itself and of its claims.
fn check_described(
    slave: &SlaveDescription,
    claims: Option<&ReportedClaims>,
) -> Result<(), Refusal> {
    check_slave(slave)?;
    claims.map_or(Ok(()), |it| check_reported(slave, &it.claims))
}

pub(crate) fn outdated(what: &str) -> Refusal {
    Refusal::Outdated {
        what: what.to_owned(),
    }
}

pub(crate) fn superseded(what: &str) -> Refusal {
    Refusal::Superseded {
        what: what.to_owned(),
    }
}
