//! C, R10, R11: what frameworks are told.

use serde_json::{Value, json};

use super::calls::with_offer;
use crate::framework::{Framework, capabilities, scalar, unique};
use crate::target::Target;
use crate::{Case, Checked, ensure};

pub(super) const CASES: &[Case] = &[
    Case {
        id: "C1",
        says: "SUBSCRIBED has the framework's id, the interval of heartbeats, and the master",
        check: subscribed,
    },
    Case {
        id: "C2",
        says: "an offer is of one agent and one role",
        check: one_role,
    },
    Case {
        id: "R10",
        says: "an offer has id, agent_id, framework_id, hostname, url.address.ip, resources, attributes",
        check: offer_fields,
    },
    Case {
        id: "C5",
        says: "an update of an agent has uuid, agent_id, source and timestamp",
        check: update_fields,
    },
    Case {
        id: "R11",
        says: "TASK_RUNNING has the container's id and an address",
        check: container_status,
    },
    Case {
        id: "M8",
        says: "a task that fails its health check is TASK_KILLED with healthy=false and no reason",
        check: unhealthy,
    },
    Case {
        id: "M8.check",
        says: "a check tells its result as check_status, first without one",
        check: check_status,
    },
    Case {
        id: "C6",
        says: "an operation with an id is answered UPDATE_OPERATION_STATUS: OPERATION_FINISHED",
        check: |target| operation(target, 0.1, "OPERATION_FINISHED"),
    },
    Case {
        id: "C6.error",
        says: "one that cannot be done: OPERATION_ERROR",
        check: |target| operation(target, 100_000.0, "OPERATION_ERROR"),
    },
    Case {
        id: "C7",
        says: "the ERROR of a subscription that is refused says why",
        check: |target| {
            let info = crate::framework::info_with(target, json!({"role": "a/../b"}));
            let subscribe = json!({"framework_info": info});
            let why = crate::framework::subscribe_error(target, &subscribe)?;
            ensure!(!why.is_empty(), "it says nothing");
            Ok(())
        },
    },
];

fn subscribed(target: &Target) -> Checked {
    let framework = Framework::new(target)?;
    let told = &framework.subscribed["subscribed"];
    ensure!(
        told["heartbeat_interval_seconds"].is_number(),
        "heartbeat_interval_seconds is {}",
        told["heartbeat_interval_seconds"]
    );
    let master = &told["master_info"];
    ensure!(master["id"].is_string(), "master_info has no id");
    ensure!(master["port"].is_number(), "master_info has no port");
    ensure!(
        master["address"]["port"].is_number(),
        "master_info has no address"
    );
    Ok(())
}

fn one_role(target: &Target) -> Checked {
    let (a, b) = (unique("conform-a"), unique("conform-b"));
    let fields = json!({"roles": [a, b], "capabilities": capabilities(&["MULTI_ROLE"])});
    let mut framework = Framework::with(target, fields)?;
    let offer = framework.offer()?;
    let role = &offer["allocation_info"]["role"];
    ensure!(*role == *a || *role == *b, "its role is {role}");
    for resource in offer["resources"].as_array().into_iter().flatten() {
        let of = &resource["allocation_info"]["role"];
        ensure!(of == role, "a resource is allocated to {of}");
    }
    let agent = &offer["agent_id"]["value"];
    ensure!(agent.is_string(), "its agent is {agent}");
    Ok(())
}

fn offer_fields(target: &Target) -> Checked {
    let (framework, offer) = with_offer(target)?;
    for field in ["id", "agent_id", "framework_id"] {
        ensure!(
            offer[field]["value"].is_string(),
            "{field} is {}",
            offer[field]
        );
    }
    let of = &offer["framework_id"]["value"];
    ensure!(*of == framework.id, "it is of framework {of}");
    ensure!(
        offer["hostname"].as_str().is_some_and(|it| !it.is_empty()),
        "hostname is {}",
        offer["hostname"]
    );
    let address = &offer["url"]["address"];
    let ip = address["ip"].as_str().unwrap_or_default();
    ensure!(
        ip.parse::<std::net::IpAddr>().is_ok(),
        "url.address.ip is {ip:?}"
    );
    ensure!(
        address["port"].is_number(),
        "url.address.port is {}",
        address["port"]
    );
    ensure!(
        offer["resources"].is_array(),
        "resources are {}",
        offer["resources"]
    );
    let attributes = &offer["attributes"];
    ensure!(
        attributes.is_array() || attributes.is_null(),
        "attributes are {attributes}"
    );
    Ok(())
}

fn update_fields(target: &Target) -> Checked {
    let (mut framework, offer) = with_offer(target)?;
    let task = framework.launch(&offer, "exit 3")?;
    let status = framework.update(&task, "TASK_FAILED")?;
    let uuid = status["uuid"].as_str().unwrap_or_default();
    // 16 bytes in base64.
    ensure!(uuid.len() == 24, "uuid is {}", status["uuid"]);
    let agent = &status["agent_id"];
    ensure!(*agent == offer["agent_id"], "agent_id is {agent}");
    let source = status["source"].as_str().unwrap_or_default();
    ensure!(
        ["SOURCE_AGENT", "SOURCE_EXECUTOR"].contains(&source),
        "source is {}",
        status["source"]
    );
    ensure!(
        status["timestamp"].is_number(),
        "timestamp is {}",
        status["timestamp"]
    );
    framework.acknowledge(&status)
}

fn container_status(target: &Target) -> Checked {
    let (mut framework, offer) = with_offer(target)?;
    let task = framework.launch(&offer, "sleep 1000")?;
    let status = framework.update(&task, "TASK_RUNNING")?;
    framework.acknowledge(&status)?;
    let container = &status["container_status"];
    let id = &container["container_id"]["value"];
    ensure!(id.is_string(), "container_id is {id}");
    let ip = &container["network_infos"][0]["ip_addresses"][0]["ip_address"];
    ensure!(ip.is_string(), "the address is {ip}");
    framework.kill(&task).map(drop)
}

fn unhealthy(target: &Target) -> Checked {
    let (mut framework, offer) = with_offer(target)?;
    let mut task = framework.task(&offer, "sleep 1000");
    task["health_check"] = json!({"type": "COMMAND", "command": {"value": "exit 1"},
        "delay_seconds": 0, "interval_seconds": 0.2, "grace_period_seconds": 0,
        "consecutive_failures": 2});
    let launch = json!([{"type": "LAUNCH", "launch": {"task_infos": [task]}}]);
    framework.accept(&offer, &launch)?;
    let status = framework.update(&task["task_id"], "TASK_KILLED")?;
    framework.acknowledge(&status)?;
    ensure!(
        status["healthy"] == false,
        "healthy is {}",
        status["healthy"]
    );
    let reason = &status["reason"];
    ensure!(reason.is_null(), "reason is {reason}");
    Ok(())
}

fn check_status(target: &Target) -> Checked {
    let (mut framework, offer) = with_offer(target)?;
    let mut task = framework.task(&offer, "sleep 1000");
    task["check"] = json!({"type": "COMMAND", "command": {"command": {"value": "exit 5"}},
        "delay_seconds": 0, "interval_seconds": 0.2});
    let launch = json!([{"type": "LAUNCH", "launch": {"task_infos": [task]}}]);
    framework.accept(&offer, &launch)?;
    let id = &task["task_id"];
    let status = framework.update(id, "TASK_RUNNING")?;
    framework.acknowledge(&status)?;
    let first = &status["check_status"];
    ensure!(first["type"] == "COMMAND", "check_status is {first}");
    let status = framework.update(id, "TASK_RUNNING")?;
    framework.acknowledge(&status)?;
    let code = &status["check_status"]["command"]["exit_code"];
    ensure!(*code == 5, "exit_code is {code}");
    let reason = &status["reason"];
    ensure!(
        reason == "REASON_TASK_CHECK_STATUS_UPDATED",
        "reason is {reason}"
    );
    framework.kill(id).map(drop)
}

fn operation(target: &Target, amount: f64, expected: &str) -> Checked {
    let role = unique("conform");
    let fields = json!({"role": role, "capabilities": capabilities(&["RESERVATION_REFINEMENT"])});
    let mut framework = Framework::with(target, fields)?;
    let offer = framework.offer()?;
    let mut resource = scalar("cpus", amount);
    resource["reservations"] = json!([{"type": "DYNAMIC", "role": role}]);
    let resources = json!([resource]);
    let id = json!({"value": unique("conform")});
    framework.accept(
        &offer,
        &json!([{"type": "RESERVE", "id": id, "reserve": {"resources": resources}}]),
    )?;
    let event = framework.find("UPDATE_OPERATION_STATUS", |event: &Value| {
        event["type"] == "UPDATE_OPERATION_STATUS"
            && event["update_operation_status"]["status"]["operation_id"] == id
    })?;
    let state = &event["update_operation_status"]["status"]["state"];
    if state == "OPERATION_FINISHED" {
        let call = json!({"type": "UNRESERVE_RESOURCES", "unreserve_resources":
            {"agent_id": offer["agent_id"], "resources": resources}});
        drop(target.operate(&call)?);
    }
    ensure!(state == expected, "its state is {state}");
    Ok(())
}
