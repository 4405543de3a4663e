//! Rows of the read model as messages of the operator API (semantics O1).

use meros_proto::ids::ExecutorId;
use meros_proto::resources::{ResourceName, Resources, Scalar};
use meros_proto::slave::{SlaveMode, SlaveState};
use meros_proto::status::TaskState;
use meros_proto::view::{
    ExecutorView, FrameworkRow, FrameworkState, OfferView, RoleRow, SlaveRow, TaskView,
};
use std::collections::BTreeMap;

use crate::events::{self, Teller};
use crate::ids::Ids;
use crate::pb;
use crate::pb::agent_info::capability::Type as AgentCapability;
use crate::pb::master::response::{get_agents, get_frameworks};
use crate::resources::{Form, labels_to_v1, scalar_to_v1, to_v1};
use crate::state::VERSION;

/// Operators read the later forms of everything.
pub(crate) const FORM: Form = Form {
    multi_role: true,
    refined: true,
};

fn resources(resources: &Resources) -> Vec<pb::Resource> {
    to_v1(resources, None, FORM)
}

/// A slave.
#[must_use]
pub fn agent(ids: Ids, row: &SlaveRow) -> get_agents::Agent {
    let view = &row.slave;
    let can = |kind: AgentCapability| pb::agent_info::Capability {
        r#type: Some(kind.into()),
    };
    get_agents::Agent {
        agent_info: agent_info(ids, row),
        active: view.state == SlaveState::Registered && view.mode.is_offered(),
        version: VERSION.to_owned(),
        pid: Some(format!("slave(1)@{}", view.http_address)),
        registered_time: Some(events::time(view.state_since)),
        reregistered_time: None,
        total_resources: resources(&view.resources),
        allocated_resources: resources(&row.used),
        offered_resources: resources(&row.offered),
        capabilities: [
            AgentCapability::MultiRole,
            AgentCapability::HierarchicalRole,
            AgentCapability::ReservationRefinement,
            AgentCapability::AgentDraining,
            AgentCapability::TaskResourceLimits,
        ]
        .map(can)
        .to_vec(),
        deactivated: Some(!view.mode.is_offered()),
        drain_info: drain_info(row),
        estimated_drain_start_time: None,
    }
}

/// What a slave says of itself.
#[must_use]
pub fn agent_info(ids: Ids, row: &SlaveRow) -> pb::AgentInfo {
    let view = &row.slave;
    pb::AgentInfo {
        id: Some(ids.slave(view.slave_id)),
        ..crate::agent::info(
            &view.hostname,
            &view.http_address,
            &view.resources,
            &view.attributes,
        )
    }
}

fn drain_info(row: &SlaveRow) -> Option<pb::DrainInfo> {
    let SlaveMode::Draining { grace, mark_gone } = row.slave.mode else {
        return None;
    };
    let state = match row.slave.is_drained {
        true => pb::DrainState::Drained,
        false => pb::DrainState::Draining,
    };
    let grace = grace.map(|grace| pb::DurationInfo {
        nanoseconds: i64::try_from(grace.as_nanos()).unwrap_or(i64::MAX),
    });
    Some(pb::DrainInfo {
        state: state.into(),
        config: pb::DrainConfig {
            max_grace_period: grace,
            mark_gone: Some(mark_gone),
        },
    })
}

/// A framework with its offers. Its user and its capabilities are not known to readers: the user is
/// empty, and of the capabilities there are those that make its other fields what they are.
#[must_use]
pub fn framework<'a>(
    ids: Ids,
    row: &FrameworkRow,
    offers: impl Iterator<Item = &'a OfferView>,
) -> get_frameworks::Framework {
    let view = &row.framework;
    let is_connected = view.state == FrameworkState::Subscribed;
    let since = events::time(view.state_since);
    let is_completed = view.state == FrameworkState::Completed;
    let mut offered = Resources::new();
    let offers = offers
        .map(|view| {
            // A sum that is too large is shown as far as it goes.
            let _ = offered.checked_add_assign(&view.resources);
            offer(ids, view)
        })
        .collect();
    get_frameworks::Framework {
        framework_info: framework_info(ids, row),
        active: is_connected,
        connected: is_connected,
        recovered: view.state == FrameworkState::Recovered,
        registered_time: Some(since),
        reregistered_time: None,
        unregistered_time: is_completed.then_some(since),
        offers,
        inverse_offers: Vec::new(),
        allocated_resources: resources(&row.used),
        offered_resources: resources(&offered),
        offer_constraints: None,
    }
}

fn framework_info(ids: Ids, row: &FrameworkRow) -> pb::FrameworkInfo {
    use pb::framework_info::Capability;
    use pb::framework_info::capability::Type;
    let view = &row.framework;
    let text = |text: &String| Some(text.clone()).filter(|text| !text.is_empty());
    pb::FrameworkInfo {
        name: view.name.clone(),
        id: Some(ids.framework(view.framework_id)),
        failover_timeout: Some(view.failover_timeout.as_secs_f64()),
        principal: text(&view.principal),
        webui_url: text(&view.webui_url),
        capabilities: vec![Capability {
            r#type: Some(Type::MultiRole.into()),
        }],
        roles: view
            .roles
            .iter()
            .map(|role| role.as_str().to_owned())
            .collect(),
        ..Default::default()
    }
}

fn offer(ids: Ids, view: &OfferView) -> pb::Offer {
    let role = Some(&view.role);
    pb::Offer {
        id: ids.offer(view.offer_id),
        framework_id: ids.framework(view.framework_id),
        agent_id: ids.slave(view.slave_id),
        resources: to_v1(&view.resources, role, FORM),
        allocation_info: crate::resources::allocated_to(role, FORM),
        ..Default::default()
    }
}

/// The executor of a task: that of its framework, or the one that its last status names.
pub(crate) fn executor_of(view: &TaskView) -> Option<&ExecutorId> {
    let told = view.status.as_ref().and_then(|it| it.executor_id.as_ref());
    view.executor_id.as_ref().or(told)
}

pub(crate) fn executor_info(ids: Ids, view: &ExecutorView) -> pb::ExecutorInfo {
    pb::ExecutorInfo {
        executor_id: pb::ExecutorId {
            value: view.executor_id.as_str().to_owned(),
        },
        framework_id: Some(ids.framework(view.framework_id)),
        name: Some(view.name.clone()),
        resources: to_v1(&view.resources, Some(&view.role), FORM),
        labels: labels_to_v1(&view.labels),
        ..Default::default()
    }
}

/// Executors of frameworks.
#[must_use]
pub fn executors<'a>(
    ids: Ids,
    views: impl Iterator<Item = &'a ExecutorView>,
) -> pb::master::response::GetExecutors {
    let executors = views.map(|view| pb::master::response::get_executors::Executor {
        executor_info: executor_info(ids, view),
        agent_id: ids.slave(view.slave_id),
    });
    pb::master::response::GetExecutors {
        executors: executors.collect(),
        orphan_executors: Vec::new(),
    }
}

/// A task.
#[must_use]
pub fn task(ids: Ids, view: &TaskView) -> pb::Task {
    let teller = Teller { ids, form: FORM };
    let status = view
        .status
        .as_ref()
        .map(|status| teller.status(status, None));
    let executor = executor_of(view);
    pb::Task {
        name: view.name.clone(),
        task_id: pb::TaskId {
            value: view.task_id.as_str().to_owned(),
        },
        framework_id: ids.framework(view.framework_id),
        executor_id: executor.map(|id| pb::ExecutorId {
            value: id.as_str().to_owned(),
        }),
        agent_id: ids.slave(view.slave_id),
        state: view.state as i32,
        resources: to_v1(&view.resources, Some(&view.role), FORM),
        status_update_state: status.as_ref().map(|it| it.state),
        status_update_uuid: status.as_ref().and_then(|it| it.uuid.clone()),
        statuses: status.into_iter().collect(),
        labels: labels_to_v1(&view.labels),
        ..Default::default()
    }
}

/// Tasks by how they stand.
#[must_use]
pub fn tasks<'a>(
    ids: Ids,
    views: impl Iterator<Item = &'a TaskView>,
) -> pb::master::response::GetTasks {
    let mut out = pb::master::response::GetTasks::default();
    for view in views {
        let list = match view.state {
            TaskState::Unreachable => &mut out.unreachable_tasks,
            state if state.is_terminal() => &mut out.completed_tasks,
            _ => &mut out.tasks,
        };
        list.push(task(ids, view));
    }
    out
}

fn scalars(amounts: &BTreeMap<ResourceName, Scalar>) -> BTreeMap<String, pb::value::Scalar> {
    let one = |(name, amount): (&ResourceName, &Scalar)| {
        (name.as_str().to_owned(), scalar_to_v1(*amount))
    };
    amounts.iter().map(one).collect()
}

/// A role with the frameworks in it.
#[must_use]
pub fn role(ids: Ids, row: &RoleRow, frameworks: &[meros_proto::ids::FrameworkId]) -> pb::Role {
    let used = row.used.iter().map(|(name, amount)| pb::Resource {
        name: name.as_str().to_owned(),
        r#type: pb::value::Type::Scalar.into(),
        scalar: Some(scalar_to_v1(*amount)),
        ..Default::default()
    });
    pb::Role {
        name: row.role.as_str().to_owned(),
        weight: row.weight.as_f64(),
        frameworks: frameworks.iter().map(|id| ids.framework(*id)).collect(),
        resources: used.collect(),
    }
}

/// The quota of a role.
fn quota(row: &RoleRow) -> pb::quota::QuotaConfig {
    pb::quota::QuotaConfig {
        role: row.role.as_str().to_owned(),
        guarantees: scalars(&row.guarantees),
        limits: scalars(&row.limits),
    }
}

/// What a role is guaranteed, in the older form; none if that is nothing.
fn quota_info(row: &RoleRow) -> Option<pb::quota::QuotaInfo> {
    let guarantee = row.guarantees.iter().map(|(name, amount)| pb::Resource {
        name: name.as_str().to_owned(),
        r#type: pb::value::Type::Scalar.into(),
        scalar: Some(scalar_to_v1(*amount)),
        role: Some("*".to_owned()),
        ..Default::default()
    });
    let guarantee: Vec<pb::Resource> = guarantee.collect();
    (!guarantee.is_empty()).then(|| pb::quota::QuotaInfo {
        role: Some(row.role.as_str().to_owned()),
        principal: None,
        guarantee,
    })
}

/// The quotas of roles, in both forms.
#[must_use]
pub fn quotas(rows: &[RoleRow]) -> pb::quota::QuotaStatus {
    pb::quota::QuotaStatus {
        infos: rows.iter().filter_map(quota_info).collect(),
        configs: rows.iter().map(quota).collect(),
    }
}

/// The weight of a role.
#[must_use]
pub fn weight(row: &RoleRow) -> pb::WeightInfo {
    pb::WeightInfo {
        weight: row.weight.as_f64(),
        role: Some(row.role.as_str().to_owned()),
    }
}
