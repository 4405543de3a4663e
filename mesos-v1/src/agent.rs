//! What a slave says of itself and of what runs on it, as messages of an agent's operator API (semantics O4).

use std::collections::BTreeSet;
use std::time::Duration;

use meros_proto::attribute::Attributes;
use meros_proto::framework::FrameworkCapability;
use meros_proto::message::slave::TaskFramework;
use meros_proto::resources::Resources;
use meros_proto::role::RoleName;
use meros_proto::status::{Reason, TaskExit, TaskState};
use meros_proto::view::{ExecutorView, TaskView};

use crate::events;
use crate::ids::Ids;
use crate::pb;
use crate::pb::agent::response;
use crate::pb::framework_info::Capability;
use crate::pb::framework_info::capability::Type as FrameworkCan;
use crate::resources::to_v1;
use crate::views::{self, FORM};

/// The slave itself; `total` is what it has, what was reserved at run time included. Its id is known to who
/// has been admitted.
#[must_use]
pub fn info(
    hostname: &str,
    http_address: &str,
    total: &Resources,
    attributes: &Attributes,
) -> pb::AgentInfo {
    let port = http_address.rsplit_once(':');
    pb::AgentInfo {
        hostname: hostname.to_owned(),
        resources: to_v1(total, None, FORM),
        attributes: events::attributes(attributes),
        id: None,
        port: port.and_then(|(_, port)| port.parse().ok()),
        domain: events::domain(attributes),
    }
}

/// A framework as far as its slaves know it, with the roles that its tasks and executors here are in.
#[must_use]
pub fn framework(
    ids: Ids,
    framework: &TaskFramework,
    roles: &BTreeSet<RoleName>,
) -> response::get_frameworks::Framework {
    let can = |kind: FrameworkCan| Capability {
        r#type: Some(kind.into()),
    };
    let capabilities = framework.capabilities.iter().map(|it| match it {
        FrameworkCapability::PartitionAware => FrameworkCan::PartitionAware,
        FrameworkCapability::TaskKillingState => FrameworkCan::TaskKillingState,
        FrameworkCapability::RevocableResources => FrameworkCan::RevocableResources,
        FrameworkCapability::SharedResources => FrameworkCan::SharedResources,
        FrameworkCapability::GpuResources => FrameworkCan::GpuResources,
        FrameworkCapability::ReservationRefinement => FrameworkCan::ReservationRefinement,
    });
    // The list of roles is what makes it one with several.
    let capabilities = capabilities.chain([FrameworkCan::MultiRole]).map(can);
    response::get_frameworks::Framework {
        framework_info: pb::FrameworkInfo {
            user: framework.user.clone().unwrap_or_default(),
            name: framework.name.clone(),
            id: Some(ids.framework(framework.framework_id)),
            checkpoint: Some(framework.checkpoint),
            capabilities: capabilities.collect(),
            roles: roles.iter().map(|role| role.as_str().to_owned()).collect(),
            ..Default::default()
        },
    }
}

/// An executor of a framework, or what a group of tasks runs under, as its slave shows it: not what it is started
/// with, which has secrets in its environment.
#[must_use]
pub fn executor(
    ids: Ids,
    view: &ExecutorView,
    shutdown_grace: Option<Duration>,
    is_group: bool,
) -> response::get_executors::Executor {
    let grace = shutdown_grace.map(|grace| pb::DurationInfo {
        nanoseconds: i64::try_from(grace.as_nanos()).unwrap_or(i64::MAX),
    });
    let mut info = pb::ExecutorInfo {
        shutdown_grace_period: grace,
        ..views::executor_info(ids, view)
    };
    info.set_type(match is_group {
        true => pb::executor_info::Type::Default,
        false => pb::executor_info::Type::Custom,
    });
    response::get_executors::Executor {
        executor_info: info,
    }
}

/// What runs a command task: under the id of the task, and without resources of its own.
#[must_use]
pub fn command_executor(ids: Ids, task: &TaskView) -> response::get_executors::Executor {
    let id = id(task.task_id.as_str());
    response::get_executors::Executor {
        executor_info: pb::ExecutorInfo {
            source: Some(id.value.clone()),
            executor_id: id,
            framework_id: Some(ids.framework(task.framework_id)),
            name: Some(task.name.clone()),
            ..Default::default()
        },
    }
}

/// How a container ended: none if nobody knows how, and a reason if a limit ended it.
#[must_use]
pub fn ended(
    exit: Option<TaskExit>,
    limitation: Option<Reason>,
    message: String,
) -> response::WaitContainer {
    response::WaitContainer {
        exit_status: exit.map(events::wait_status),
        state: limitation.map(|_| pb::TaskState::TaskFailed.into()),
        reason: limitation.map(|reason| reason as i32),
        message: Some(message).filter(|text| !text.is_empty()),
    }
}

fn id(value: &str) -> pb::ExecutorId {
    pb::ExecutorId {
        value: value.to_owned(),
    }
}

/// Tasks by how they stand. Those whose end is acknowledged are known to nobody here.
#[must_use]
pub fn tasks<'a>(ids: Ids, tasks: impl Iterator<Item = &'a TaskView>) -> response::GetTasks {
    let mut out = response::GetTasks::default();
    for view in tasks {
        let list = match view.state {
            // Not given to anybody yet: its executor is not subscribed, or its files are being fetched.
            TaskState::Staging if view.executor_id.is_some() => &mut out.queued_tasks,
            TaskState::Staging => &mut out.pending_tasks,
            state if state.is_terminal() => &mut out.terminated_tasks,
            _ => &mut out.launched_tasks,
        };
        list.push(pb::Task {
            status_update_state: Some(view.state as i32),
            ..views::task(ids, view)
        });
    }
    out
}
