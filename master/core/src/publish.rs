//! The ordered stream of what can be read (architecture decision 3), and the rows in it.
//!
//! Invariants: M9 within a term the sequence has no gaps and never goes back.

use std::sync::Arc;

use meros_proto::ids::{Epoch, FrameworkId, OfferId, SlaveId};
use meros_proto::time::Timestamp;
use meros_proto::view::{
    ClusterChange, ClusterEvent, ExecutorView, FrameworkState, FrameworkView, OfferView, SlaveView,
    TaskView,
};

use crate::effect::Effect;
use crate::executors::{Executor, ExecutorAt};
use crate::frameworks::Framework;
use crate::offers::Outstanding;
use crate::operations::total_of;
use crate::registry::{FrameworkRecord, Registry, SlaveRecord};
use crate::slaves::Slave;
use crate::tasks::Task;
use crate::turn::Turn;

/// Numbers the changes of a term.
#[derive(Debug, Default)]
pub(crate) struct Publisher {
    sequence: u64,
}

impl Publisher {
    /// Adds a change to the stream.
    pub(crate) fn publish(&mut self, change: ClusterChange, turn: &mut Turn<'_>) {
        self.sequence += 1;
        let event = ClusterEvent {
            sequence: self.sequence,
            at: turn.now,
            change,
        };
        turn.effects.push(Effect::Publish(event));
    }
}

pub(crate) fn slave_view(
    id: SlaveId,
    slave: &Slave,
    registry: &Registry,
    record: &SlaveRecord,
) -> SlaveView {
    SlaveView {
        slave_id: id,
        hostname: record.slave.hostname.clone(),
        http_address: record.slave.http_address.clone(),
        state: slave.state(),
        state_since: slave.since,
        mode: record.mode,
        mode_since: record.mode_since,
        is_drained: slave.is_drained,
        unavailability: registry.maintenance().get(&id).copied(),
        resources: total_of(&record.slave, slave.claims.as_deref()),
        attributes: record.slave.attributes.clone(),
        version: record.slave.version.clone(),
    }
}

pub(crate) fn framework_view(
    id: FrameworkId,
    framework: &Framework,
    record: &FrameworkRecord,
    state: FrameworkState,
) -> FrameworkView {
    FrameworkView {
        framework_id: id,
        name: record.framework.name.clone(),
        principal: record.principal.clone(),
        roles: record.framework.roles.clone(),
        suppressed_roles: framework.suppressed.iter().cloned().collect(),
        state,
        state_since: framework.since,
        failover_timeout: record.framework.failover_timeout,
        webui_url: record.framework.webui_url.clone(),
        offers_max: framework.offers_max,
    }
}

pub(crate) fn offer_view(
    epoch: Epoch,
    number: u64,
    offer: &Outstanding,
    made_at: Timestamp,
) -> OfferView {
    OfferView {
        offer_id: OfferId { epoch, number },
        framework_id: offer.framework,
        slave_id: offer.slave,
        role: offer.role.clone(),
        resources: (*offer.resources).clone(),
        made_at,
    }
}

pub(crate) fn task_view(task: &Task) -> TaskView {
    TaskView {
        task_id: task.id().clone(),
        name: task.name.clone(),
        framework_id: task.framework(),
        slave_id: task.slave(),
        role: task.role.clone(),
        resources: task.resources.clone(),
        state: task.state,
        status: task.status.as_deref().cloned(),
        launched_at: task.launched_at,
        labels: task.labels.clone(),
        executor_id: task.executor_id.clone(),
    }
}

pub(crate) fn executor_added(at: &ExecutorAt, executor: &Executor) -> ClusterChange {
    let (slave_id, framework_id, executor_id) = at.clone();
    ClusterChange::ExecutorAdded(Arc::new(ExecutorView {
        executor_id,
        name: executor.name.clone(),
        framework_id,
        slave_id,
        role: executor.role.clone(),
        resources: executor.resources.clone(),
        labels: executor.labels.clone(),
    }))
}

pub(crate) fn executor_removed(at: &ExecutorAt) -> ClusterChange {
    let (slave_id, framework_id, executor_id) = at.clone();
    ClusterChange::ExecutorRemoved {
        slave_id,
        framework_id,
        executor_id,
    }
}

pub(crate) fn task_changed(task: &Task) -> ClusterChange {
    ClusterChange::TaskChanged {
        framework_id: task.framework(),
        task_id: task.id().clone(),
        state: task.state,
        status: task.status.as_deref().cloned(),
    }
}

pub(crate) fn task_removed(task: &Task) -> ClusterChange {
    ClusterChange::TaskRemoved {
        framework_id: task.framework(),
        task_id: task.id().clone(),
    }
}
