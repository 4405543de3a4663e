//! Rows of the read model as the tools of Mesos read them in `/state` and its parts (semantics A10, R14).
//!
//! What Meros does not know of a row is left out, never made up.

use meros_proto::ids::FrameworkId;
use meros_proto::resources::{ResourceName, Resources, Value};
use meros_proto::slave::SlaveState;
use meros_proto::status::{TaskState, TaskStatus};
use meros_proto::time::Timestamp;
use meros_proto::view::{
    ExecutorView, FrameworkRow, FrameworkState, OfferView, RoleRow, SlaveRow, TaskView,
};
use serde_json::{Map, Value as Json, json};

use crate::events;
use crate::ids::Ids;

/// The version whose protocol this is, for clients that look at it (semantics R3).
pub const VERSION: &str = "1.11.0";

/// Resources as one object: scalars as numbers, ranges and sets as text such as `[31000-32000]`. The
/// four that every tool looks for are always there.
#[must_use]
pub fn resources(resources: &Resources) -> Json {
    let mut out = Map::new();
    for name in ["cpus", "gpus", "mem", "disk"] {
        out.insert(name.to_owned(), json!(0.0));
    }
    for resource in resources {
        let name = resource.name();
        let value = match resource.value() {
            Value::Scalar(_) => json!(resources.scalar(name).as_f64()),
            Value::Ranges(_) => json!(resources.ranges(name).to_string()),
            Value::Set(set) => json!(set.to_string()),
        };
        out.insert(name.as_str().to_owned(), value);
    }
    Json::Object(out)
}

fn seconds(at: Timestamp) -> f64 {
    at.as_secs_f64()
}

/// A slave, for `/slaves`.
#[must_use]
pub fn slave(ids: Ids, row: &SlaveRow) -> Json {
    let view = &row.slave;
    let port: Option<u16> = view
        .http_address
        .rsplit_once(':')
        .and_then(|(_, port)| port.parse().ok());
    let attributes: Map<String, Json> = events::attributes(&view.attributes)
        .into_iter()
        .map(|attribute| {
            let value = match (attribute.scalar, attribute.text) {
                (Some(scalar), _) => json!(scalar.value),
                (None, text) => json!(text.unwrap_or_default().value),
            };
            (attribute.name, value)
        })
        .collect();
    let reserved: Map<String, Json> = view
        .resources
        .iter()
        .filter_map(|it| it.reservations().role())
        .map(|role| {
            (
                role.as_str().to_owned(),
                resources(&view.resources.reserved_for(role)),
            )
        })
        .collect();
    let is_registered = view.state == SlaveState::Registered;
    let mut out = json!({
        "id": ids.slave(view.slave_id).value,
        "hostname": view.hostname,
        "attributes": attributes,
        "pid": format!("slave(1)@{}", view.http_address),
        "registered_time": seconds(view.state_since),
        "resources": resources(&view.resources),
        "used_resources": resources(&row.used),
        "offered_resources": resources(&row.offered),
        "reserved_resources": reserved,
        "unreserved_resources": resources(&view.resources.unreserved()),
        "active": is_registered && view.mode.is_offered(),
        "deactivated": !view.mode.is_offered(),
        "version": VERSION,
        "meros": {"version": view.version, "state": view.state.name(), "mode": view.mode.name()},
    });
    if let Some(port) = port {
        out["port"] = json!(port);
    }
    out
}

/// A task, for `/tasks`.
#[must_use]
pub fn task(ids: Ids, view: &TaskView) -> Json {
    let statuses: Vec<Json> = view.status.iter().map(status).collect();
    let executor = super::views::executor_of(view);
    let labels: Vec<Json> = view
        .labels
        .iter()
        .map(|label| json!({"key": label.key(), "value": label.value()}))
        .collect();
    json!({
        "id": view.task_id.as_str(),
        "name": view.name,
        "framework_id": ids.framework(view.framework_id).value,
        "executor_id": executor.map_or("", |id| id.as_str()),
        "slave_id": ids.slave(view.slave_id).value,
        "role": view.role.as_str(),
        "state": view.state.name(),
        "resources": resources(&view.resources),
        "labels": labels,
        "statuses": statuses,
    })
}

fn status(status: &TaskStatus) -> Json {
    let mut out = json!({
        "state": status.state.name(),
        "timestamp": seconds(status.timestamp),
    });
    if !status.message.is_empty() {
        out["message"] = json!(status.message);
    }
    if let Some(healthy) = status.healthy {
        out["healthy"] = json!(healthy);
    }
    out
}

/// What belongs to a framework.
#[derive(Debug, Default)]
pub struct Parts<'a> {
    /// Its tasks.
    pub tasks: Vec<&'a TaskView>,
    /// Its outstanding offers.
    pub offers: Vec<&'a OfferView>,
    /// Its executors.
    pub executors: Vec<&'a ExecutorView>,
}

/// A framework, for `/frameworks`, with what belongs to it. There is no `pid`: readers take one that
/// is empty for an error (semantics R14).
#[must_use]
pub fn framework(ids: Ids, row: &FrameworkRow, parts: Parts<'_>) -> Json {
    let view = &row.framework;
    let (mut live, mut unreachable, mut completed) = (Vec::new(), Vec::new(), Vec::new());
    for view in parts.tasks {
        match view.state {
            TaskState::Unreachable => unreachable.push(task(ids, view)),
            state if state.is_terminal() => completed.push(task(ids, view)),
            _ => live.push(task(ids, view)),
        }
    }
    let mut offered = Resources::new();
    let offers: Vec<Json> = parts
        .offers
        .into_iter()
        .map(|view| {
            // A sum that is too large is shown as far as it goes.
            let _ = offered.checked_add_assign(&view.resources);
            offer(ids, view)
        })
        .collect();
    let executors = parts.executors.iter();
    let executors: Vec<Json> = executors.map(|view| executor(ids, view)).collect();
    let is_completed = view.state == FrameworkState::Completed;
    let is_connected = view.state == FrameworkState::Subscribed;
    let since = seconds(view.state_since);
    json!({
        "id": ids.framework(view.framework_id).value,
        "name": view.name,
        "principal": view.principal,
        "role": view.roles.first().map_or("*", |role| role.as_str()),
        "roles": view.roles,
        "suppressed_roles": view.suppressed_roles,
        "webui_url": view.webui_url,
        "failover_timeout": view.failover_timeout.as_secs_f64(),
        "active": is_connected,
        "connected": is_connected,
        "recovered": view.state == FrameworkState::Recovered,
        "registered_time": since,
        "unregistered_time": if is_completed { since } else { 0.0 },
        "resources": resources(&row.used),
        "used_resources": resources(&row.used),
        "offered_resources": resources(&offered),
        "tasks": live,
        "unreachable_tasks": unreachable,
        "completed_tasks": completed,
        "offers": offers,
        "executors": executors,
    })
}

fn executor(ids: Ids, view: &ExecutorView) -> Json {
    json!({
        "executor_id": view.executor_id.as_str(),
        "name": view.name,
        "framework_id": ids.framework(view.framework_id).value,
        "slave_id": ids.slave(view.slave_id).value,
        "role": view.role.as_str(),
        "resources": resources(&view.resources),
    })
}

fn offer(ids: Ids, view: &OfferView) -> Json {
    json!({
        "id": ids.offer(view.offer_id).value,
        "framework_id": ids.framework(view.framework_id).value,
        "slave_id": ids.slave(view.slave_id).value,
        "allocation_info": {"role": view.role.as_str()},
        "resources": resources(&view.resources),
    })
}

/// A role, for `/roles`.
#[must_use]
pub fn role(ids: Ids, row: &RoleRow, frameworks: &[FrameworkId]) -> Json {
    let frameworks: Vec<String> = frameworks
        .iter()
        .map(|id| ids.framework(*id).value)
        .collect();
    let numbers =
        |amounts: &std::collections::BTreeMap<ResourceName, meros_proto::resources::Scalar>| {
            let one = |(name, amount): (&ResourceName, &meros_proto::resources::Scalar)| {
                (name.as_str().to_owned(), json!(amount.as_f64()))
            };
            Json::Object(amounts.iter().map(one).collect())
        };
    json!({
        "name": row.role.as_str(),
        "weight": row.weight.as_f64(),
        "frameworks": frameworks,
        "resources": numbers(&row.used),
        "allocated": numbers(&row.used),
        "offered": numbers(&row.offered),
        "reserved": numbers(&row.reserved),
        "quota": {
            "role": row.role.as_str(),
            "guarantee": numbers(&row.guarantees),
            "limit": numbers(&row.limits),
            "consumed": numbers(&row.counted),
        },
    })
}

#[cfg(test)]
mod tests {
    use meros_proto::ids::{ClusterId, SlaveId, TaskId};
    use meros_proto::view::SlaveView;

    use super::*;

    #[test]
    fn resources_are_numbers_and_text() {
        // semantics: R14
        let sum: Resources = "cpus:1;cpus(web):2;mem:64;ports:[31000-32000]"
            .parse()
            .expect("fine");
        let expected = json!({"cpus": 3.0, "gpus": 0.0, "mem": 64.0, "disk": 0.0,
            "ports": "[31000-32000]"});
        assert_eq!(resources(&sum), expected);
    }

    #[test]
    fn a_slave_and_a_task_have_the_names_that_tools_look_for() {
        let ids = Ids::new(ClusterId(7));
        let row = SlaveRow {
            slave: SlaveView {
                slave_id: SlaveId(2),
                hostname: "h".to_owned(),
                http_address: "127.0.0.1:5051".to_owned(),
                state: SlaveState::Registered,
                state_since: Timestamp(1_500_000),
                mode: Default::default(),
                mode_since: Default::default(),
                is_drained: false,
                unavailability: None,
                resources: "cpus:1;cpus(web):2".parse().expect("fine"),
                attributes: "rack:r1;size:3".parse().expect("fine"),
                version: "0.1.0".to_owned(),
            },
            used: Resources::new(),
            offered: Resources::new(),
            tasks: 0,
        };
        let slave = slave(ids, &row);
        assert_eq!(slave["pid"], "slave(1)@127.0.0.1:5051");
        assert_eq!(
            (&slave["port"], &slave["active"]),
            (&json!(5051), &json!(true))
        );
        assert_eq!(slave["attributes"], json!({"rack": "r1", "size": 3.0}));
        assert_eq!(slave["reserved_resources"]["web"]["cpus"], 2.0);
        assert_eq!(slave["unreserved_resources"]["cpus"], 1.0);
        let view = TaskView {
            task_id: TaskId::new("t").expect("an id"),
            name: "n".to_owned(),
            framework_id: FrameworkId(3),
            slave_id: SlaveId(2),
            role: meros_proto::role::RoleName::any(),
            resources: Resources::new(),
            state: TaskState::Running,
            status: None,
            launched_at: Timestamp(5),
            labels: Default::default(),
            executor_id: None,
        };
        let task = task(ids, &view);
        assert_eq!(
            (&task["id"], &task["state"]),
            (&json!("t"), &json!("TASK_RUNNING"))
        );
        assert!(
            task["framework_id"]
                .as_str()
                .is_some_and(|id| id.ends_with("-0003"))
        );
    }
}
