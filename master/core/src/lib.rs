//! MasterCore: slaves, frameworks, offers, tasks, roles; no clock, socket, file or thread.
//!
//! [`MasterCore::handle`] takes one [`Event`] and adds [`Effect`]s; [`MasterCore::next_deadline`]
//! says when a [`Event::Tick`] is wanted. The same events at the same times give the same effects.
//!
//! | tables | what is done with them |
//! |---|---|
//! | `registry`: what is replicated | `lead`: election, commits |
//! | `connections`, `slaves`, `frameworks`: who is there | `membership`, `takeover`, `health`, `drain`, `subscription` |
//! | `offers`, `allocator`: what is promised to whom | `offering`, `declining`, `launch`, `quota`, `wishes`, `explain` |
//! | `tasks`, `remembered`, `updates`: what runs, and the news of it | `status`, `kill`, `reconcile` |
//! | `timers`: what is due | `operator`, `settings`, `publish`, `invariants` |
//!
//! Absent: Raft, addresses, certificates, reads. A read is answered from the stream of
//! [`ClusterEvent`](meros_proto::view::ClusterEvent)s, never from here.

pub mod allocator;
mod clients;
pub mod command;
mod config;
mod connections;
mod counters;
mod declining;
mod drain;
pub mod effect;
pub mod event;
mod executors;
mod explain;
mod format;
mod framework_update;
mod frameworks;
mod groups;
mod health;
mod holding;
mod invariants;
mod kill;
mod launch;
mod lead;
mod maintenance;
mod membership;
mod numbered;
mod offering;
mod offers;
mod operations;
mod operator;
mod publish;
mod quota;
mod reconcile;
mod registry;
mod remembered;
mod settings;
mod slaves;
pub mod state;
mod status;
mod subscription;
mod takeover;
mod tasks;
#[cfg(test)]
mod tests;
mod timers;
mod turn;
mod updates;
mod validate;
mod wishes;

use std::collections::BTreeMap;

use meros_proto::ids::Epoch;
use meros_proto::message::master::{FrameworkToMaster, SlaveToMaster};
use meros_proto::refusal::Refusal;
use meros_proto::state::SpaceId;
use meros_proto::time::Timestamp;

pub use allocator::{FILTERS_PER_FRAMEWORK_MAX, FILTERS_PER_KEY_MAX};
pub use clients::{
    CHANGES_IN_FLIGHT_MAX, CHANGES_PER_PRINCIPAL_MAX, WATCH_TIMEOUT, WATCHES_MAX,
    WATCHES_PER_PRINCIPAL_MAX,
};
pub use command::Command;
pub use config::{Config, INTERVAL_MIN};
pub use connections::CONNECTIONS_MAX;
pub use counters::Counters;
pub use effect::{Answer, Effect, Effects};
pub use event::{ConnectionId, Event, OperatorCall, ProposalId, RequestId};
pub use explain::{WHY_JUDGEMENTS_MAX, WHY_JUDGEMENTS_PER_SECOND};
pub use format::Format;
pub use frameworks::FRAMEWORKS_MAX;
pub use holding::Holding;
pub use invariants::Violation;
pub use quota::{CONFIGURED_ROLES_MAX, WEIGHT_MAX};
pub use registry::{FrameworkRecord, GONE_FOR, GONE_MAX, NotApplied, Registry, SlaveRecord};
pub use settings::ClusterSetting;
pub use slaves::SLAVES_MAX;
pub use tasks::{TASKS_MAX, TASKS_PER_FRAMEWORK_MAX, UNREACHABLE_PER_FRAMEWORK_MAX};
pub use updates::{RETRY_MAX, RETRY_MIN, UPDATES_PER_FRAMEWORK_MAX};

use allocator::{Allocator, Grant};
use clients::{Asker, Clients};
use connections::{Connections, Stage};
use declining::Declining;
use executors::Executors;
use frameworks::Frameworks;
use offers::Offers;
use operations::ReportedClaims;
use publish::Publisher;
use remembered::Remembered;
use slaves::Slaves;
use tasks::Tasks;
use timers::{Timer, Timers};
use turn::Turn;
use updates::Updates;

/// The master's mind: all its tables, and every decision.
///
/// A core follows until [`Event::Elected`]: it applies what is committed and refuses everybody.
/// From then on it leads; a core that no longer leads is thrown away.
#[derive(Debug)]
pub struct MasterCore {
    /// What is in force.
    config: Config,
    /// What this master was started with.
    started_with: Config,
    registry: Registry,
    counters: Counters,
    /// The latest time heard of; time never goes back here.
    now: Timestamp,
    /// The term it was elected for; it leads once the cluster is formed.
    elected: Option<Epoch>,
    /// The term it leads in.
    epoch: Option<Epoch>,
    connections: Connections,
    slaves: Slaves,
    frameworks: Frameworks,
    tasks: Tasks,
    executors: Executors,
    remembered: Remembered,
    offers: Offers,
    updates: Updates,
    allocator: Allocator,
    /// The grants of a round; kept for its room.
    grants: Vec<Grant>,
    timers: Timers,
    publisher: Publisher,
    proposal_last: u64,
    /// Connections that wait for the admission of what they are.
    admissions: BTreeMap<ProposalId, ConnectionId>,
    /// Operators who wait for the commit of what they ordered.
    orders: BTreeMap<ProposalId, RequestId>,
    declining: Declining,
    /// Clients of framework state.
    clients: Clients,
    /// Until then no question that takes long is answered.
    why_from: Timestamp,
    /// So many slaves were expected back when it began to lead; no offers before most are.
    waits_for_slaves: Option<usize>,
    /// Operations on resources ordered in this term.
    operations_made: u64,
    /// Ids for the next admissions, ahead of the registry by those that are being committed.
    slave_next: u32,
    framework_next: u32,
}

impl MasterCore {
    /// A core that follows, with what the registry held when the process started.
    #[must_use]
    pub fn new(config: Config, registry: Registry, now: Timestamp) -> Self {
        Self {
            allocator: Allocator::new(config.policy.clone()),
            config: config.with(registry.settings()),
            started_with: config,
            registry,
            counters: Counters::default(),
            now,
            elected: None,
            epoch: None,
            connections: Connections::default(),
            slaves: Slaves::default(),
            frameworks: Frameworks::default(),
            tasks: Tasks::default(),
            executors: Executors::default(),
            remembered: Remembered::default(),
            offers: Offers::default(),
            updates: Updates::default(),
            grants: Vec::new(),
            timers: Timers::default(),
            publisher: Publisher::default(),
            proposal_last: 0,
            admissions: BTreeMap::new(),
            orders: BTreeMap::new(),
            declining: Declining::default(),
            clients: Clients::default(),
            why_from: Timestamp::default(),
            waits_for_slaves: None,
            operations_made: 0,
            slave_next: 0,
            framework_next: 0,
        }
    }

    /// Handles one event; what is to be done about it is added to `effects`, in order.
    ///
    /// What was due before the event is done first, so that an offer that has timed out is gone
    /// when somebody accepts it.
    pub fn handle(&mut self, event: Event, now: Timestamp, effects: &mut Effects) {
        self.counters.events += 1;
        self.now = self.now.max(now);
        let turn = &mut Turn {
            now: self.now,
            effects,
        };
        self.do_due(turn);
        match event {
            Event::Elected { epoch, remembered } => self.on_elected(epoch, remembered, turn),
            Event::Committed { proposal, command } => self.on_committed(proposal, &command, turn),
            Event::SlaveConnected {
                connection,
                principal,
            } => {
                let stage = Stage::SlaveFresh {
                    report: Vec::new(),
                    executors: Vec::new(),
                    claims: None,
                };
                self.on_connected(connection, principal, stage, turn);
            }
            Event::FrameworkConnected {
                connection,
                principal,
            } => {
                self.on_connected(connection, principal, Stage::FrameworkFresh, turn);
            }
            Event::Disconnected { connection } => self.on_disconnected(connection, turn),
            Event::Slave {
                connection,
                message,
            } => self.on_slave_message(connection, message, turn),
            Event::Framework {
                connection,
                message,
            } => {
                self.on_framework_message(connection, message, turn);
            }
            Event::Operator { request, call } => self.on_operator_call(request, call, turn),
            Event::Tick => {}
        }
        self.schedule_offers(turn);
    }

    /// When [`Event::Tick`] is wanted next; none while nothing waits for its time.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Timestamp> {
        let deadlines = [self.timers.next_deadline(), self.allocator.next_expiry()];
        deadlines.into_iter().flatten().min()
    }

    /// What is replicated, as far as it is committed; the shell makes snapshots of it.
    #[must_use]
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// What has been counted.
    #[must_use]
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Whether it leads, and so answers anything but refusals.
    #[must_use]
    pub fn is_leading(&self) -> bool {
        self.epoch.is_some()
    }

    fn do_due(&mut self, turn: &mut Turn<'_>) {
        self.allocator.expire_filters(turn.now);
        while let Some(timer) = self.timers.pop_due(turn.now) {
            match timer {
                Timer::Allocate => self.make_offers(turn),
                Timer::OffersResume => self.waits_for_slaves = None,
                Timer::Ping(slave) => self.on_ping_due(slave, turn),
                Timer::Return(slave) => self.on_return_due(slave, turn),
                Timer::Drain(slave) => self.end_executors_for_drain(slave, turn),
                Timer::Failover(framework) => self.on_failover_due(framework, turn),
                Timer::OfferExpiry(number) => self.on_offer_expired(number, turn),
                Timer::Answer(framework) => self.on_answer_due(framework, turn),
                Timer::UpdateRetry(framework, task) => {
                    self.on_update_retry_due(framework, &task, turn)
                }
                Timer::Session(session) => self.on_state_session_due(session, turn),
                Timer::Watch(number) => self.on_watch_due(number, turn),
            }
        }
    }

    fn on_connected(
        &mut self,
        connection: ConnectionId,
        principal: String,
        stage: Stage,
        turn: &mut Turn<'_>,
    ) {
        if self.epoch.is_none() {
            self.close(connection, Refusal::Recovering, turn);
        } else if self.connections.is_full() {
            let refusal = Refusal::OverLimit {
                what: "the number of connections".to_owned(),
                limit: CONNECTIONS_MAX as u64,
                advice: "try again when others have left".to_owned(),
            };
            self.close(connection, refusal, turn);
        } else {
            self.connections.insert(connection, principal, stage);
        }
    }

    fn on_disconnected(&mut self, connection: ConnectionId, turn: &mut Turn<'_>) {
        self.forget_watches(connection);
        let Some(connection_row) = self.connections.remove(connection) else {
            self.counters.closed_connection_events += 1;
            return;
        };
        match connection_row.stage {
            Stage::SlaveRegistered(slave) => self.on_slave_disconnected(slave, connection, turn),
            Stage::SlaveClaiming { slave_id, .. } => {
                if let Some(slave) = self.slaves.get_mut(slave_id) {
                    slave.claimant.take_if(|claimant| *claimant == connection);
                }
            }
            Stage::FrameworkSubscribed(framework) => {
                self.on_framework_disconnected(framework, connection, turn);
            }
            Stage::FrameworkClaiming { framework_id, .. } => {
                if let Some(framework) = self.frameworks.get_mut(framework_id) {
                    framework
                        .claimant
                        .take_if(|claimant| *claimant == connection);
                }
            }
            Stage::SlaveFresh { .. }
            | Stage::SlaveAdmitting { .. }
            | Stage::SlaveLeaving
            | Stage::FrameworkFresh
            | Stage::FrameworkAdmitting => {}
        }
    }

    fn on_slave_message(
        &mut self,
        connection: ConnectionId,
        message: SlaveToMaster,
        turn: &mut Turn<'_>,
    ) {
        let Some(row) = self.connections.get(connection) else {
            self.counters.closed_connection_events += 1;
            return;
        };
        match (message, &row.stage) {
            (SlaveToMaster::Register { slave }, Stage::SlaveFresh { .. }) => {
                self.on_register(connection, slave, turn);
            }
            (SlaveToMaster::ReportTasks { tasks }, Stage::SlaveFresh { .. }) => {
                self.on_report_tasks(connection, tasks, turn);
            }
            (
                SlaveToMaster::Reregister {
                    slave_id,
                    cluster_id,
                    slave,
                },
                Stage::SlaveFresh { .. },
            ) => {
                self.on_reregister(connection, slave_id, cluster_id, slave, turn);
            }
            (SlaveToMaster::ReportClaims { claims, decided }, Stage::SlaveFresh { .. }) => {
                self.on_report_claims(connection, ReportedClaims { claims, decided }, turn);
            }
            (SlaveToMaster::ReportExecutors { executors }, Stage::SlaveFresh { .. }) => {
                self.on_report_executors(connection, executors, turn);
            }
            (
                SlaveToMaster::ExecutorEnded {
                    framework_id,
                    executor_id,
                    exit,
                },
                Stage::SlaveRegistered(slave),
            ) => self.on_executor_ended(*slave, framework_id, executor_id, exit, turn),
            (
                SlaveToMaster::ExecutorMessage {
                    framework_id,
                    executor_id,
                    data,
                },
                Stage::SlaveRegistered(slave),
            ) => self.on_message_of_executor(*slave, framework_id, executor_id, data, turn),
            (SlaveToMaster::ChangeApplied { number }, Stage::SlaveRegistered(slave)) => {
                self.on_change_applied(*slave, number, turn);
            }
            (SlaveToMaster::Pong, Stage::SlaveRegistered(slave)) => self.on_pong(*slave),
            (SlaveToMaster::TermHeard { epoch }, Stage::SlaveRegistered(slave)) => {
                if Some(epoch) == self.epoch {
                    self.slaves.set_ours(*slave);
                }
            }
            (SlaveToMaster::Update(update), Stage::SlaveRegistered(slave)) => {
                self.on_status_update(*slave, connection, update, turn);
            }
            (SlaveToMaster::Unregister, Stage::SlaveRegistered(slave)) => {
                self.on_unregister(*slave, turn);
            }
            (_, Stage::SlaveLeaving) => self.counters.closed_connection_events += 1,
            (
                SlaveToMaster::Register { .. }
                | SlaveToMaster::ReportTasks { .. }
                | SlaveToMaster::ReportClaims { .. }
                | SlaveToMaster::ReportExecutors { .. }
                | SlaveToMaster::Reregister { .. },
                _,
            ) => self.refuse_slave(connection, Refusal::AlreadySubscribed, turn),
            _ => self.refuse_slave(connection, Refusal::NotSubscribed, turn),
        }
    }

    fn on_framework_message(
        &mut self,
        connection: ConnectionId,
        message: FrameworkToMaster,
        turn: &mut Turn<'_>,
    ) {
        let Some(row) = self.connections.get(connection) else {
            self.counters.closed_connection_events += 1;
            return;
        };
        if let FrameworkToMaster::State {
            request,
            space,
            call,
        } = message
        {
            let space = SpaceId {
                principal: row.principal.clone(),
                name: space,
            };
            let asker = Asker::Framework {
                connection,
                request,
            };
            return self.on_state_call(asker, space, call, turn);
        }
        let framework_id = match (&row.stage, &message) {
            (Stage::FrameworkSubscribed(framework_id), _) => *framework_id,
            (Stage::FrameworkFresh, FrameworkToMaster::Subscribe { .. }) => {
                if let FrameworkToMaster::Subscribe {
                    framework,
                    suppressed_roles,
                    wishes,
                } = message
                {
                    self.on_subscribe(connection, framework, suppressed_roles, wishes, turn);
                }
                return;
            }
            (_, FrameworkToMaster::Subscribe { .. }) => {
                self.refuse_call(connection, "Subscribe", Refusal::AlreadySubscribed, turn);
                return;
            }
            (_, call) => {
                self.refuse_call(connection, name_of(call), Refusal::NotSubscribed, turn);
                return;
            }
        };
        match message {
            FrameworkToMaster::Subscribe { .. } => {
                self.refuse_call(connection, "Subscribe", Refusal::AlreadySubscribed, turn);
            }
            FrameworkToMaster::Teardown => self.end_framework(framework_id, turn),
            FrameworkToMaster::Accept {
                offer_ids,
                operations,
                filters,
            } => {
                self.on_accept(framework_id, &offer_ids, operations, filters, turn);
            }
            FrameworkToMaster::Decline { offer_ids, filters } => {
                self.on_decline(framework_id, connection, &offer_ids, filters, turn);
            }
            FrameworkToMaster::Revive { roles } => {
                self.on_revive(framework_id, connection, &roles, turn);
            }
            FrameworkToMaster::Suppress { roles } => {
                self.on_suppress(framework_id, connection, &roles, turn);
            }
            FrameworkToMaster::Kill {
                task_id,
                slave_id,
                grace,
            } => {
                self.on_kill(framework_id, &task_id, slave_id, grace, turn);
            }
            FrameworkToMaster::Acknowledge {
                slave_id,
                task_id,
                update_id,
            } => {
                self.on_acknowledge(framework_id, slave_id, &task_id, update_id, turn);
            }
            FrameworkToMaster::Reconcile { tasks } => {
                self.on_reconcile(framework_id, connection, &tasks, turn);
            }
            FrameworkToMaster::Wish { wishes } => {
                self.on_wish(framework_id, connection, wishes, turn);
            }
            FrameworkToMaster::ReconcileOperations { operations } => {
                self.on_reconcile_operations(framework_id, connection, &operations, turn);
            }
            FrameworkToMaster::ShutdownExecutor {
                slave_id,
                executor_id,
            } => self.on_shutdown_executor(framework_id, slave_id, executor_id, turn),
            FrameworkToMaster::ExecutorMessage {
                slave_id,
                executor_id,
                data,
            } => self.on_message_for_executor(framework_id, slave_id, executor_id, data, turn),
            // Answered above, whoever it is.
            FrameworkToMaster::State { .. } => {}
        }
    }
}

/// The name of a call, for [`MasterToFramework::Refused`].
///
/// [`MasterToFramework::Refused`]: meros_proto::message::framework::MasterToFramework::Refused
fn name_of(call: &FrameworkToMaster) -> &'static str {
    match call {
        FrameworkToMaster::Subscribe { .. } => "Subscribe",
        FrameworkToMaster::Teardown => "Teardown",
        FrameworkToMaster::Accept { .. } => "Accept",
        FrameworkToMaster::Decline { .. } => "Decline",
        FrameworkToMaster::Revive { .. } => "Revive",
        FrameworkToMaster::Suppress { .. } => "Suppress",
        FrameworkToMaster::Kill { .. } => "Kill",
        FrameworkToMaster::Acknowledge { .. } => "Acknowledge",
        FrameworkToMaster::Reconcile { .. } => "Reconcile",
        FrameworkToMaster::Wish { .. } => "Wish",
        FrameworkToMaster::State { .. } => "State",
        FrameworkToMaster::ReconcileOperations { .. } => "ReconcileOperations",
        FrameworkToMaster::ShutdownExecutor { .. } => "ShutdownExecutor",
        FrameworkToMaster::ExecutorMessage { .. } => "ExecutorMessage",
    }
}
