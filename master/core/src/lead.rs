//! Election, proposals and commits: how the registry and the tables stay together.
//!
//! Everything about the membership of one slave or framework is done a step at a time: while a
//! command about it is being committed nothing else happens to it, and after the commit its
//! `advance_…` looks at it afresh.

use std::sync::Arc;

use meros_proto::framework::FrameworkDescription;
use meros_proto::ids::{Epoch, FrameworkId, SlaveId};
use meros_proto::message::framework::MasterToFramework;
use meros_proto::message::slave::MasterToSlave;
use meros_proto::refusal::{Leadership, Refusal};
use meros_proto::slave::{SlaveMode, SlaveState};
use meros_proto::view::{ClusterChange, FrameworkState, MasterView, TaskView};
use tracing::{info, warn};

use crate::MasterCore;
use crate::command::Command;
use crate::effect::Effect;
use crate::event::{ConnectionId, ProposalId};
use crate::frameworks::Framework;
use crate::publish::{framework_view, slave_view};
use crate::slaves::Slave;
use crate::timers::Timer;
use crate::turn::Turn;

impl MasterCore {
    pub(crate) fn on_elected(
        &mut self,
        epoch: Epoch,
        remembered: Vec<Arc<TaskView>>,
        turn: &mut Turn<'_>,
    ) {
        // A core leads once: what it knew would be void in another term.
        if self.elected.is_some() {
            warn!(%epoch, "elected twice, ignored");
            return;
        }
        self.elected = Some(epoch);
        self.lead_if_formed(turn);
        self.remember(remembered, turn);
    }

    /// Starts to lead: everybody in the registry is expected back (semantics J2, Q1).
    fn lead_if_formed(&mut self, turn: &mut Turn<'_>) {
        let (Some(epoch), Some(cluster_id), None) =
            (self.elected, self.registry.cluster_id(), self.epoch)
        else {
            return;
        };
        info!(%epoch, slaves = self.registry.slaves().count(), "leading");
        self.epoch = Some(epoch);
        self.slave_next = self.registry.slave_next();
        self.framework_next = self.registry.framework_next();
        let version = self.config.version.clone();
        let master = MasterView {
            cluster_id,
            epoch,
            elected_at: turn.now,
            version,
        };
        self.publisher.publish(ClusterChange::Elected(master), turn);
        for (slave_id, record) in self.registry.slaves() {
            let mut slave = match record.unreachable_since {
                Some(since) => Slave::new(SlaveState::Unreachable, since),
                None => {
                    let at = turn.now.after(self.config.slave_reregister_timeout);
                    self.timers.arm(Timer::Return(slave_id), at);
                    Slave::new(SlaveState::Recovered, turn.now)
                }
            };
            slave.is_draining = matches!(record.mode, SlaveMode::Draining { .. });
            let view = slave_view(slave_id, &slave, &self.registry, record);
            self.publisher.publish(ClusterChange::Slave(view), turn);
            self.slaves.insert(slave_id, slave);
        }
        for (framework_id, record) in self.registry.frameworks() {
            let at = turn.now.after(record.framework.failover_timeout);
            self.timers.arm(Timer::Failover(framework_id), at);
            let mut framework = Framework::new(FrameworkState::Recovered, turn.now);
            framework.suppressed = record.suppressed_roles.iter().cloned().collect();
            let view = framework_view(framework_id, &framework, record, framework.state);
            self.publisher.publish(ClusterChange::Framework(view), turn);
            self.frameworks.insert(framework_id, framework);
        }
        self.take_over_roles(turn);
        self.take_over_sessions(turn);
    }

    pub(crate) fn propose(&mut self, command: Command, turn: &mut Turn<'_>) -> ProposalId {
        self.proposal_last += 1;
        self.counters.proposals += 1;
        let proposal = ProposalId(self.proposal_last);
        turn.effects.push(Effect::Propose { proposal, command });
        proposal
    }

    /// Proposes a command about a slave that is a member.
    pub(crate) fn propose_for_slave(
        &mut self,
        slave_id: SlaveId,
        command: Command,
        turn: &mut Turn<'_>,
    ) {
        let proposal = self.propose(command, turn);
        if let Some(slave) = self.slaves.get_mut(slave_id) {
            slave.proposal = Some(proposal);
        }
    }

    /// Proposes a command about a framework that is known.
    pub(crate) fn propose_for_framework(
        &mut self,
        framework_id: FrameworkId,
        command: Command,
        turn: &mut Turn<'_>,
    ) {
        let proposal = self.propose(command, turn);
        if let Some(framework) = self.frameworks.get_mut(framework_id) {
            framework.proposal = Some(proposal);
        }
    }

    pub(crate) fn on_committed(
        &mut self,
        proposal: Option<ProposalId>,
        command: &Command,
        turn: &mut Turn<'_>,
    ) {
        if self.epoch.is_some() {
            match command {
                Command::ChangeState { space, by, change } => {
                    return self.on_state_changed(proposal, space, *by, change, turn);
                }
                Command::EndStateSession { space, session } => {
                    return self.on_state_session_ended(space, *session, turn);
                }
                _ => {}
            }
        }
        // The record of what is about to go, for those who read of its end.
        let removed = match command {
            Command::RemoveFramework { framework_id, .. } => {
                self.registry.framework(*framework_id).cloned()
            }
            _ => None,
        };
        let applied = self.registry.apply(command);
        if let Err(why) = applied {
            self.counters.commands_not_applied += 1;
            warn!(error = %why, "a committed command was not applied");
        }
        if self.epoch.is_none() {
            self.lead_if_formed(turn);
            return;
        }
        // Somebody else's commands, after a change of leader, may have used numbers of ours.
        self.slave_next = self.slave_next.max(self.registry.slave_next());
        self.framework_next = self.framework_next.max(self.registry.framework_next());
        let waiting = proposal.and_then(|proposal| self.admissions.remove(&proposal));
        let order = proposal.and_then(|proposal| self.orders.remove(&proposal));
        self.end_proposal(proposal, command);
        if applied.is_err() {
            if let Some(connection) = waiting {
                self.close(connection, Refusal::Recovering, turn);
            }
            match (order, command) {
                (Some(request), Command::SetSlaveMode { slave_id, .. }) => {
                    let slave_id = *slave_id;
                    turn.reply(request, Err(Refusal::NoSuchSlave { slave_id }));
                }
                (Some(request), Command::UpdateFramework { framework_id, .. }) => {
                    let framework_id = *framework_id;
                    turn.reply(request, Err(Refusal::FrameworkRemoved { framework_id }));
                }
                _ => {}
            }
            return self.advance_waiting(command, turn);
        }
        match (command, removed) {
            (Command::RemoveFramework { framework_id, at }, Some(record)) => {
                self.on_framework_removed(*framework_id, &record, *at, turn);
            }
            _ => self.on_applied(command, waiting, turn),
        }
        self.answer_order(order, turn);
    }

    /// A command changed nothing, since somebody else's had been there before: what has waited for it goes on.
    fn advance_waiting(&mut self, command: &Command, turn: &mut Turn<'_>) {
        match command {
            Command::UpdateSlave { slave_id, .. }
            | Command::MarkSlaveUnreachable { slave_id, .. }
            | Command::MarkSlaveReachable { slave_id }
            | Command::RemoveSlave { slave_id, .. }
            | Command::MarkSlaveGone { slave_id, .. } => self.advance_slave(*slave_id, turn),
            Command::UpdateFramework { framework_id, .. }
            | Command::RemoveFramework { framework_id, .. } => {
                self.advance_framework(*framework_id, turn);
            }
            _ => {}
        }
    }

    fn on_applied(
        &mut self,
        command: &Command,
        waiting: Option<ConnectionId>,
        turn: &mut Turn<'_>,
    ) {
        match command {
            // The first was applied before anybody led, the others are dealt with by the caller.
            Command::FormCluster { .. }
            | Command::RemoveFramework { .. }
            | Command::ChangeState { .. }
            | Command::EndStateSession { .. }
            // Looked at when something is to be proposed.
            | Command::RaiseFormat { .. } => {}
            Command::AdmitSlave { slave_id, .. } => {
                self.on_slave_admitted(*slave_id, waiting, turn)
            }
            Command::UpdateSlave { slave_id, .. } => {
                // Its attributes may have changed (semantics E3).
                self.allocator.clear_slave_filters(*slave_id);
                self.advance_slave(*slave_id, turn);
            }
            Command::MarkSlaveUnreachable { slave_id, at } => {
                self.on_slave_unreachable(*slave_id, *at, turn);
                self.advance_slave(*slave_id, turn);
            }
            Command::MarkSlaveReachable { slave_id } => {
                self.on_slave_reachable(*slave_id, turn);
                self.advance_slave(*slave_id, turn);
            }
            Command::RemoveSlave { slave_id, at } => self.on_slave_removed(*slave_id, *at, turn),
            Command::AdmitFramework { framework_id, .. } => {
                self.on_framework_admitted(*framework_id, waiting, turn);
            }
            Command::UpdateFramework { framework_id, .. } => {
                self.on_framework_updated(*framework_id, turn);
            }
            Command::SetQuotas { quotas } => self.on_quotas_set(quotas, turn),
            Command::SetWeights { weights } => self.on_weights_set(weights, turn),
            Command::SetMinimums { minimums } => self.on_minimums_set(minimums, turn),
            Command::SetSlaveMode { slave_id, .. } => self.on_slave_mode_set(*slave_id, turn),
            Command::MarkSlaveGone { slave_id, at } => self.on_slave_gone(*slave_id, *at, turn),
            Command::SetMaintenance { windows } => self.on_maintenance_set(windows, turn),
            Command::SetSettings { .. } => self.on_settings_set(),
        }
    }

    fn end_proposal(&mut self, proposal: Option<ProposalId>, command: &Command) {
        match command {
            Command::UpdateSlave { slave_id, .. }
            | Command::MarkSlaveUnreachable { slave_id, .. }
            | Command::MarkSlaveReachable { slave_id }
            | Command::RemoveSlave { slave_id, .. }
            | Command::MarkSlaveGone { slave_id, .. } => {
                if let Some(slave) = self.slaves.get_mut(*slave_id) {
                    slave.proposal.take_if(|ours| Some(*ours) == proposal);
                }
            }
            Command::UpdateFramework { framework_id, .. }
            | Command::RemoveFramework { framework_id, .. } => {
                if let Some(framework) = self.frameworks.get_mut(*framework_id) {
                    framework.proposal.take_if(|ours| Some(*ours) == proposal);
                }
            }
            Command::FormCluster { .. }
            | Command::AdmitSlave { .. }
            | Command::AdmitFramework { .. }
            | Command::SetQuotas { .. }
            | Command::SetWeights { .. }
            | Command::SetMinimums { .. }
            | Command::SetSlaveMode { .. }
            | Command::SetMaintenance { .. }
            | Command::ChangeState { .. }
            | Command::EndStateSession { .. }
            | Command::RaiseFormat { .. }
            | Command::SetSettings { .. } => {}
        }
    }

    /// Closes a connection; whatever it was, it is no more.
    pub(crate) fn close(&mut self, connection: ConnectionId, why: Refusal, turn: &mut Turn<'_>) {
        self.counters.refused(why.code());
        turn.close(connection, why);
        if self.connections.get(connection).is_some() {
            self.on_disconnected(connection, turn);
        }
    }

    fn leadership(&self) -> Option<Leadership> {
        let (cluster_id, epoch) = (self.registry.cluster_id()?, self.epoch?);
        Some(Leadership { cluster_id, epoch })
    }

    /// Refuses what a slave asked for, and closes.
    pub(crate) fn refuse_slave(
        &mut self,
        connection: ConnectionId,
        why: Refusal,
        turn: &mut Turn<'_>,
    ) {
        let refused = MasterToSlave::Refused {
            refusal: why.clone(),
            by: self.leadership(),
        };
        turn.send_slave(connection, refused);
        self.close(connection, why, turn);
    }

    /// Ends a subscription, or refuses one, and closes.
    pub(crate) fn refuse_framework(
        &mut self,
        connection: ConnectionId,
        why: Refusal,
        turn: &mut Turn<'_>,
    ) {
        let error = MasterToFramework::Error {
            refusal: why.clone(),
            by: self.leadership(),
        };
        turn.send_framework(connection, error);
        self.close(connection, why, turn);
    }

    /// Refuses one call of a framework; its subscription goes on.
    pub(crate) fn refuse_call(
        &mut self,
        connection: ConnectionId,
        call: &str,
        refusal: Refusal,
        turn: &mut Turn<'_>,
    ) {
        self.counters.refused(refusal.code());
        let refused = MasterToFramework::Refused {
            call: call.to_owned(),
            refusal,
        };
        turn.send_framework(connection, refused);
    }

    pub(crate) fn publish_slave(&mut self, slave_id: SlaveId, turn: &mut Turn<'_>) {
        if let (Some(slave), Some(record)) =
            (self.slaves.get(slave_id), self.registry.slave(slave_id))
        {
            let view = slave_view(slave_id, slave, &self.registry, record);
            self.publisher.publish(ClusterChange::Slave(view), turn);
        }
    }

    pub(crate) fn publish_framework(&mut self, framework_id: FrameworkId, turn: &mut Turn<'_>) {
        if let (Some(framework), Some(record)) = (
            self.frameworks.get(framework_id),
            self.registry.framework(framework_id),
        ) {
            let view = framework_view(framework_id, framework, record, framework.state);
            self.publisher.publish(ClusterChange::Framework(view), turn);
        }
    }

    /// What a framework says of itself.
    pub(crate) fn description(&self, framework_id: FrameworkId) -> Option<&FrameworkDescription> {
        self.registry
            .framework(framework_id)
            .map(|record| &record.framework)
    }

    /// Sends to a framework that is subscribed; nothing if it is away.
    pub(crate) fn tell_framework(
        &self,
        framework_id: FrameworkId,
        message: MasterToFramework,
        turn: &mut Turn<'_>,
    ) {
        if let Some(connection) = self.frameworks.connection(framework_id) {
            turn.send_framework(connection, message);
        }
    }
}
