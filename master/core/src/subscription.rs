//! Frameworks subscribe, go away, come back and end (semantics B1 to B3, N).

use std::collections::BTreeSet;
use std::time::Duration;

use meros_proto::constraint::OfferWishes;
use meros_proto::framework::{FrameworkCapability, FrameworkDescription};
use meros_proto::ids::FrameworkId;
use meros_proto::message::framework::MasterToFramework;
use meros_proto::message::slave::MasterToSlave;
use meros_proto::refusal::Refusal;
use meros_proto::role::RoleName;
use meros_proto::status::{Reason, TaskState};
use meros_proto::time::Timestamp;
use meros_proto::view::{ClusterChange, FrameworkState};
use tracing::info;

use crate::MasterCore;
use crate::allocator::Abilities;
use crate::command::Command;
use crate::connections::{Connection, Stage};
use crate::effect::Answer;
use crate::event::ConnectionId;
use crate::frameworks::{FRAMEWORKS_MAX, Framework};
use crate::membership::{outdated, superseded};
use crate::publish::framework_view;
use crate::registry::FrameworkRecord;
use crate::timers::Timer;
use crate::turn::Turn;
use crate::validate::check_framework;
use crate::wishes::check_wishes;

/// A framework that is coming back when its time is over gets this much more.
const FAILOVER_EXTENSION: Duration = Duration::from_secs(10);

impl MasterCore {
    pub(crate) fn on_subscribe(
        &mut self,
        connection: ConnectionId,
        framework: FrameworkDescription,
        suppressed_roles: Vec<RoleName>,
        wishes: Vec<OfferWishes>,
        turn: &mut Turn<'_>,
    ) {
        let Some(row) = self.connections.get_mut(connection) else {
            return;
        };
        let principal = row.principal.clone();
        let checked = check_framework(&framework, &suppressed_roles, &principal)
            .and_then(|()| check_wishes(wishes, &framework));
        match checked {
            Ok(wishes) => row.wishes = wishes,
            Err(refusal) => return self.refuse_framework(connection, refusal, turn),
        }
        match framework.framework_id {
            None => self.admit_framework(connection, principal, framework, suppressed_roles, turn),
            Some(id) => {
                self.claim_framework(
                    id,
                    connection,
                    &principal,
                    framework,
                    suppressed_roles,
                    turn,
                );
            }
        }
    }

    fn admit_framework(
        &mut self,
        connection: ConnectionId,
        principal: String,
        framework: FrameworkDescription,
        suppressed_roles: Vec<RoleName>,
        turn: &mut Turn<'_>,
    ) {
        let framework_id = FrameworkId(self.framework_next);
        let (true, Some(next)) = (
            self.frameworks.len() + self.admissions.len() < FRAMEWORKS_MAX,
            self.framework_next.checked_add(1),
        ) else {
            let refusal = Refusal::OverLimit {
                what: "the number of frameworks".to_owned(),
                limit: FRAMEWORKS_MAX as u64,
                advice: "tear down frameworks that are not needed any more".to_owned(),
            };
            return self.refuse_framework(connection, refusal, turn);
        };
        self.framework_next = next;
        let framework = FrameworkDescription {
            framework_id: Some(framework_id),
            principal: Some(principal.clone()),
            ..framework
        };
        let command = Command::AdmitFramework {
            framework_id,
            principal,
            framework,
            suppressed_roles,
            at: turn.now,
        };
        let proposal = self.propose(command, turn);
        self.admissions.insert(proposal, connection);
        self.connections
            .set_stage(connection, Stage::FrameworkAdmitting);
    }

    /// The first that applies: removed, unknown, another's, outdated (semantics N4, A8, A9).
    fn claim_framework(
        &mut self,
        framework_id: FrameworkId,
        connection: ConnectionId,
        principal: &str,
        framework: FrameworkDescription,
        suppressed_roles: Vec<RoleName>,
        turn: &mut Turn<'_>,
    ) {
        let (Some(record), Some(row)) = (
            self.registry.framework(framework_id),
            self.frameworks.get_mut(framework_id),
        ) else {
            let refusal = if self.registry.is_removed_framework(framework_id) {
                Refusal::FrameworkRemoved { framework_id }
            } else {
                Refusal::FrameworkUnknown { framework_id }
            };
            return self.refuse_framework(connection, refusal, turn);
        };
        // One that is ending waits until that is committed, and only then hears that it is removed:
        // a master that was deposed meanwhile must not say what will never be true.
        if record.principal != principal {
            let refusal = Refusal::NotYours {
                what: format!("framework {framework_id}"),
            };
            return self.refuse_framework(connection, refusal, turn);
        }
        // The newest connection is the framework: what a process that has died said on an older one may
        // come last. Whoever is alive can open another one.
        if row.claimant.max(row.connection) > Some(connection) {
            return self.refuse_framework(connection, outdated("framework"), turn);
        }
        // User and checkpoint stay what they were, without a word (semantics B2).
        let framework = Box::new(FrameworkDescription {
            principal: Some(principal.to_owned()),
            user: record.framework.user.clone(),
            checkpoint: record.framework.checkpoint,
            ..framework
        });
        let older = row.claimant.replace(connection);
        let stage = Stage::FrameworkClaiming {
            framework_id,
            framework,
            suppressed_roles,
        };
        self.connections.set_stage(connection, stage);
        if let Some(older) = older {
            self.refuse_framework(older, superseded("framework"), turn);
        }
        self.advance_framework(framework_id, turn);
    }

    pub(crate) fn on_framework_admitted(
        &mut self,
        framework_id: FrameworkId,
        waiting: Option<ConnectionId>,
        turn: &mut Turn<'_>,
    ) {
        let Some(record) = self.registry.framework(framework_id) else {
            return;
        };
        info!(%framework_id, name = %record.framework.name, "framework admitted");
        self.counters.frameworks_admitted += 1;
        let suppressed = record.suppressed_roles.clone();
        self.frameworks.insert(
            framework_id,
            Framework::new(FrameworkState::Recovered, turn.now),
        );
        let is_admitting = |row: &Connection| matches!(row.stage, Stage::FrameworkAdmitting);
        match waiting
            .filter(|connection| self.connections.get(*connection).is_some_and(is_admitting))
        {
            Some(connection) => self.welcome_framework(framework_id, connection, suppressed, turn),
            // Nobody was ever told this id, so nobody will come back under it.
            None => self.end_framework(framework_id, turn),
        }
    }

    /// Does the next step about a framework's membership, unless one is being committed.
    pub(crate) fn advance_framework(&mut self, framework_id: FrameworkId, turn: &mut Turn<'_>) {
        let Some(row) = self
            .frameworks
            .get(framework_id)
            .filter(|row| row.proposal.is_none())
        else {
            return;
        };
        if row.is_ending {
            let command = Command::RemoveFramework {
                framework_id,
                at: turn.now,
            };
            return self.propose_for_framework(framework_id, command, turn);
        }
        let Some(connection) = row.claimant else {
            return;
        };
        let (
            Some(Stage::FrameworkClaiming {
                framework,
                suppressed_roles,
                ..
            }),
            Some(record),
        ) = (
            self.connections.stage_mut(connection),
            self.registry.framework(framework_id),
        )
        else {
            return;
        };
        if record.framework != **framework || record.suppressed_roles != *suppressed_roles {
            let command = Command::UpdateFramework {
                framework_id,
                framework: (**framework).clone(),
                suppressed_roles: suppressed_roles.clone(),
            };
            return self.propose_for_framework(framework_id, command, turn);
        }
        let suppressed = std::mem::take(suppressed_roles);
        self.counters.frameworks_resubscribed += 1;
        self.welcome_framework(framework_id, connection, suppressed, turn);
    }

    /// A connection becomes the framework; an older one of the same ends (semantics A8, N2).
    fn welcome_framework(
        &mut self,
        framework_id: FrameworkId,
        connection: ConnectionId,
        suppressed: Vec<RoleName>,
        turn: &mut Turn<'_>,
    ) {
        let (Some(row), Some(cluster_id), Some(epoch)) = (
            self.frameworks.get_mut(framework_id),
            self.registry.cluster_id(),
            self.epoch,
        ) else {
            return;
        };
        let older = row.connection.replace(connection);
        row.claimant = None;
        row.state = FrameworkState::Subscribed;
        row.since = turn.now;
        row.suppressed = suppressed.into_iter().collect();
        self.connections
            .set_stage(connection, Stage::FrameworkSubscribed(framework_id));
        if let Some(older) = older {
            self.refuse_framework(older, superseded("framework"), turn);
        }
        self.timers.cancel(&Timer::Failover(framework_id));
        // Offers and filters do not survive a subscription (semantics E7, N6).
        self.end_offers_of_framework(framework_id, turn);
        self.allocator.clear_filters(framework_id, None);
        let wishes = self.connections.get_mut(connection);
        let wishes = wishes.map(|row| std::mem::take(&mut row.wishes));
        self.apply_wishes(framework_id, wishes.unwrap_or_default());
        self.sync_roles(framework_id);
        let subscribed = MasterToFramework::Subscribed {
            framework_id,
            cluster_id,
            epoch,
        };
        turn.send_framework(connection, subscribed);
        self.publish_framework(framework_id, turn);
        self.repeat_updates(framework_id, turn);
    }

    /// Makes the allocator's view of a framework's roles what it should be (semantics B7, B8).
    pub(crate) fn sync_roles(&mut self, framework_id: FrameworkId) {
        let Some(row) = self.frameworks.get_mut(framework_id) else {
            return;
        };
        let wanted: BTreeSet<RoleName> = match self.registry.framework(framework_id) {
            Some(record) if row.connection.is_some() => {
                let roles = record.framework.roles.iter();
                roles
                    .filter(|role| !row.suppressed.contains(*role))
                    .cloned()
                    .collect()
            }
            _ => BTreeSet::new(),
        };
        for role in row.offered_roles.difference(&wanted) {
            self.allocator.set_active(framework_id, role, false);
        }
        for role in wanted.difference(&row.offered_roles) {
            self.allocator.set_active(framework_id, role, true);
        }
        row.offered_roles = wanted;
        if let Some(record) = self.registry.framework(framework_id) {
            let abilities = abilities_of(&record.framework);
            self.allocator.set_abilities(framework_id, abilities);
        }
    }

    pub(crate) fn on_framework_disconnected(
        &mut self,
        framework_id: FrameworkId,
        connection: ConnectionId,
        turn: &mut Turn<'_>,
    ) {
        let Some(row) = self.frameworks.get_mut(framework_id) else {
            return;
        };
        if row
            .connection
            .take_if(|current| *current == connection)
            .is_none()
        {
            return;
        }
        info!(%framework_id, "framework disconnected");
        row.state = FrameworkState::Disconnected;
        row.answered = None;
        row.since = turn.now;
        self.sync_roles(framework_id);
        self.end_offers_of_framework(framework_id, turn);
        self.allocator.clear_filters(framework_id, None);
        let timeout = self
            .description(framework_id)
            .map_or(Duration::ZERO, |it| it.failover_timeout);
        self.timers
            .arm(Timer::Failover(framework_id), turn.now.after(timeout));
        self.publish_framework(framework_id, turn);
    }

    pub(crate) fn on_failover_due(&mut self, framework_id: FrameworkId, turn: &mut Turn<'_>) {
        let Some(row) = self.frameworks.get(framework_id) else {
            return;
        };
        if row.claimant.is_some() {
            let at = turn.now.after(FAILOVER_EXTENSION);
            self.timers.arm(Timer::Failover(framework_id), at);
        } else {
            info!(%framework_id, "framework stayed away too long");
            self.end_framework(framework_id, turn);
        }
    }

    /// Starts to end a framework: first in the registry, then for everybody (semantics N3).
    pub(crate) fn end_framework(&mut self, framework_id: FrameworkId, turn: &mut Turn<'_>) {
        let Some(row) = self.frameworks.get_mut(framework_id) else {
            return;
        };
        if !std::mem::replace(&mut row.is_ending, true) {
            self.advance_framework(framework_id, turn);
        }
    }

    pub(crate) fn on_framework_removed(
        &mut self,
        framework_id: FrameworkId,
        record: &FrameworkRecord,
        at: Timestamp,
        turn: &mut Turn<'_>,
    ) {
        self.counters.frameworks_removed += 1;
        self.timers.cancel(&Timer::Failover(framework_id));
        self.timers.cancel(&Timer::Answer(framework_id));
        self.end_offers_of_framework(framework_id, turn);
        let Some(mut row) = self.frameworks.remove(framework_id) else {
            return;
        };
        info!(%framework_id, "framework removed");
        for role in std::mem::take(&mut row.offered_roles) {
            self.allocator.set_active(framework_id, &role, false);
        }
        self.allocator.clear_filters(framework_id, None);
        self.allocator.remove_framework(framework_id);
        for task in self.updates.remove(framework_id) {
            self.timers.cancel(&Timer::UpdateRetry(framework_id, task));
        }
        self.kill_tasks_of_removed(framework_id, at, turn);
        self.forget_remembered_for(framework_id, turn);
        row.since = at;
        let view = framework_view(framework_id, &row, record, FrameworkState::Completed);
        self.publisher.publish(ClusterChange::Framework(view), turn);
        for connection in [row.connection, row.claimant].into_iter().flatten() {
            self.refuse_framework(connection, Refusal::FrameworkRemoved { framework_id }, turn);
        }
        for request in row.teardown_requests {
            turn.reply(request, Ok(Answer::Done));
        }
    }

    /// Its tasks are killed by their slaves; nobody is left to hear of it (semantics N3).
    fn kill_tasks_of_removed(
        &mut self,
        framework_id: FrameworkId,
        at: Timestamp,
        turn: &mut Turn<'_>,
    ) {
        let mut slaves = self.forget_executors_of_framework(framework_id, turn);
        for slot in self.tasks.of_framework(framework_id) {
            let Some(task) = self.tasks.get(slot) else {
                continue;
            };
            slaves.insert(task.slave());
            if !task.state.is_terminal() {
                let mut status = self.master_status(task, TaskState::Killed, at);
                status.reason = Some(Reason::FrameworkRemoved);
                self.tasks.unlist_unreachable(slot);
                if let Some(task) = self.tasks.get_mut(slot) {
                    task.advance(TaskState::Killed);
                }
                self.counters.tasks_ended += 1;
                self.note_status(slot, &status, turn);
            }
            self.forget_task(slot, turn);
        }
        for slave_id in slaves {
            if let Some(connection) = self.slaves.connection(slave_id) {
                turn.send_slave(
                    connection,
                    MasterToSlave::ShutdownFramework { framework_id },
                );
            }
        }
    }
}

/// What may be offered to a framework (semantics E2).
fn abilities_of(framework: &FrameworkDescription) -> Abilities {
    Abilities {
        gpus: framework.can(FrameworkCapability::GpuResources),
        revocable: framework.can(FrameworkCapability::RevocableResources),
        shared: framework.can(FrameworkCapability::SharedResources),
        refined: framework.can(FrameworkCapability::ReservationRefinement),
    }
}
