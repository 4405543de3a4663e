//! O: what operators ask, order and watch.

use std::time::Instant;

use serde_json::{Value, json};

use crate::framework::{Framework, amount, capabilities, disk, scalar, unique, volume};
use crate::stream::{Events, Next};
use crate::target::{Target, offered};
use crate::{Case, Checked, Halt, ensure};

/// A question with the field of its answer.
macro_rules! question {
    ($kind:literal, $field:literal) => {
        Case {
            id: concat!("O1.", $kind),
            says: concat!($kind, " is answered with ", $field),
            check: |target| answered(target, &json!({"type": $kind}), $kind, $field),
        }
    };
}

pub(super) const CASES: &[Case] = &[
    question!("GET_HEALTH", "get_health"),
    question!("GET_FLAGS", "get_flags"),
    question!("GET_VERSION", "get_version"),
    Case {
        id: "O1.GET_METRICS",
        says: "GET_METRICS is answered with get_metrics, in a time that the caller gives",
        check: |target| {
            let call = json!({"type": "GET_METRICS",
                "get_metrics": {"timeout": {"nanoseconds": 5_000_000_000_u64}}});
            answered(target, &call, "GET_METRICS", "get_metrics")
        },
    },
    question!("GET_LOGGING_LEVEL", "get_logging_level"),
    Case {
        id: "O1.SET_LOGGING_LEVEL",
        says: "SET_LOGGING_LEVEL is done",
        check: |target| {
            let call = json!({"type": "SET_LOGGING_LEVEL", "set_logging_level":
                {"level": 0, "duration": {"nanoseconds": 1_000_000_000_u64}}});
            ordered(target, &call, 200)
        },
    },
    question!("GET_STATE", "get_state"),
    question!("GET_AGENTS", "get_agents"),
    question!("GET_FRAMEWORKS", "get_frameworks"),
    question!("GET_EXECUTORS", "get_executors"),
    question!("GET_OPERATIONS", "get_operations"),
    question!("GET_TASKS", "get_tasks"),
    question!("GET_ROLES", "get_roles"),
    question!("GET_WEIGHTS", "get_weights"),
    question!("GET_MASTER", "get_master"),
    question!("GET_MAINTENANCE_STATUS", "get_maintenance_status"),
    question!("GET_MAINTENANCE_SCHEDULE", "get_maintenance_schedule"),
    question!("GET_QUOTA", "get_quota"),
    Case {
        id: "O1.LIST_FILES",
        says: "LIST_FILES lists a folder of the master, or knows no such path",
        check: |target| {
            let call = json!({"type": "LIST_FILES", "list_files": {"path": "/master/log"}});
            let (status, _) = target.operate(&call)?;
            ensure!(matches!(status, 200 | 404), "it is answered {status}");
            Ok(())
        },
    },
    Case {
        id: "O1.READ_FILE",
        says: "READ_FILE reads a file of the master, or knows no such path",
        check: |target| {
            let call = json!({"type": "READ_FILE",
                "read_file": {"path": "/master/log", "offset": 0, "length": 1}});
            let (status, _) = target.operate(&call)?;
            ensure!(matches!(status, 200 | 404), "it is answered {status}");
            Ok(())
        },
    },
    Case {
        id: "O1.UPDATE_WEIGHTS",
        says: "UPDATE_WEIGHTS sets what GET_WEIGHTS tells",
        check: weights,
    },
    Case {
        id: "O1.UPDATE_QUOTA",
        says: "UPDATE_QUOTA sets what GET_QUOTA tells",
        check: quota,
    },
    Case {
        id: "O1.SET_QUOTA",
        says: "SET_QUOTA and REMOVE_QUOTA set and take away what GET_QUOTA tells, each once",
        check: older_quota,
    },
    Case {
        id: "O1.UPDATE_MAINTENANCE_SCHEDULE",
        says: "UPDATE_MAINTENANCE_SCHEDULE sets what GET_MAINTENANCE_SCHEDULE tells; its machines are draining",
        check: schedule,
    },
    Case {
        id: "O1.START_MAINTENANCE",
        says: "START_MAINTENANCE of a machine that is not in the schedule is answered 400",
        check: |target| of_no_machine(target, "START_MAINTENANCE", "start_maintenance"),
    },
    Case {
        id: "O1.STOP_MAINTENANCE",
        says: "STOP_MAINTENANCE of a machine that is not in the schedule is answered 400",
        check: |target| of_no_machine(target, "STOP_MAINTENANCE", "stop_maintenance"),
    },
    Case {
        id: "O1.reads",
        says: "/quota, /weights and /maintenance/schedule tell what the calls tell",
        check: reads,
    },
    Case {
        id: "O1.TEARDOWN",
        says: "TEARDOWN ends a framework and its stream",
        check: teardown,
    },
    Case {
        id: "O1.MARK_AGENT_GONE",
        says: "MARK_AGENT_GONE of an agent that is not known is refused",
        check: |target| of_no_agent(target, "MARK_AGENT_GONE", "mark_agent_gone"),
    },
    Case {
        id: "O1.DRAIN_AGENT",
        says: "DRAIN_AGENT of an agent that is not known is refused",
        check: |target| of_no_agent(target, "DRAIN_AGENT", "drain_agent"),
    },
    Case {
        id: "O1.DEACTIVATE_AGENT",
        says: "DEACTIVATE_AGENT takes an agent out of what is offered, REACTIVATE_AGENT brings it back",
        check: deactivate,
    },
    Case {
        id: "O2.reserve",
        says: "RESERVE_RESOURCES is answered 202, and the agent has it reserved; UNRESERVE_RESOURCES undoes it",
        check: reserve,
    },
    Case {
        id: "O2.insufficient",
        says: "RESERVE_RESOURCES of more than there is is answered 409",
        check: insufficient,
    },
    Case {
        id: "O2.resize",
        says: "GROW_VOLUME and SHRINK_VOLUME are answered 202, and the agent has the volume so",
        check: resize,
    },
    Case {
        id: "O2.invalid",
        says: "a call without what its type names is answered 400",
        check: |target| {
            for call in [
                "TEARDOWN",
                "UPDATE_QUOTA",
                "SET_QUOTA",
                "REMOVE_QUOTA",
                "UPDATE_MAINTENANCE_SCHEDULE",
                "START_MAINTENANCE",
                "RESERVE_RESOURCES",
                "GROW_VOLUME",
                "SHRINK_VOLUME",
            ] {
                let (status, _) = target.operate(&json!({"type": call}))?;
                ensure!(status == 400, "{call} is answered {status}");
            }
            Ok(())
        },
    },
    Case {
        id: "O3.subscribed",
        says: "SUBSCRIBE opens a stream: SUBSCRIBED with the whole state, HEARTBEAT",
        check: watch,
    },
    Case {
        id: "O3.frameworks",
        says: "watchers hear FRAMEWORK_ADDED, FRAMEWORK_UPDATED and FRAMEWORK_REMOVED",
        check: watch_frameworks,
    },
    Case {
        id: "O3.tasks",
        says: "watchers hear TASK_ADDED, and TASK_UPDATED with the state and the status",
        check: watch_tasks,
    },
    Case {
        id: "R2.recordio",
        says: "a watcher that accepts application/recordio is told Message-Content-Type",
        check: recordio,
    },
];

fn answered(target: &Target, call: &Value, kind: &str, field: &str) -> Checked {
    let answer = target.question(call)?;
    ensure!(
        answer["type"] == kind,
        "the answer's type is {}",
        answer["type"]
    );
    ensure!(answer[field].is_object(), "the answer has no {field}");
    Ok(())
}

fn ordered(target: &Target, call: &Value, expected: u16) -> Checked {
    let (status, answer) = target.operate(call)?;
    ensure!(
        status == expected,
        "{} is answered {status}: {answer}",
        call["type"]
    );
    Ok(())
}

fn weights(target: &Target) -> Checked {
    let role = unique("conform");
    let set = |weight: f64| {
        let call = json!({"type": "UPDATE_WEIGHTS", "update_weights":
            {"weight_infos": [{"role": role, "weight": weight}]}});
        ordered(target, &call, 200)
    };
    set(2.5)?;
    let told = target.eventually("GET_WEIGHTS does not tell it", || {
        let answer = target.question(&json!({"type": "GET_WEIGHTS"}))?;
        let mut all = answer["get_weights"]["weight_infos"]
            .as_array()
            .into_iter()
            .flatten();
        Ok(all.any(|it| it["role"] == *role && it["weight"] == 2.5))
    });
    set(1.0)?;
    told
}

fn quota(target: &Target) -> Checked {
    let role = unique("conform");
    let set = |limits: Value| {
        let call = json!({"type": "UPDATE_QUOTA", "update_quota":
            {"force": true, "quota_configs": [{"role": role, "limits": limits}]}});
        ordered(target, &call, 200)
    };
    set(json!({"cpus": {"value": 1.5}}))?;
    let told = target.eventually("GET_QUOTA does not tell it", || {
        let answer = target.question(&json!({"type": "GET_QUOTA"}))?;
        let mut all = answer["get_quota"]["status"]["configs"]
            .as_array()
            .into_iter()
            .flatten();
        Ok(all.any(|it| it["role"] == *role && it["limits"]["cpus"]["value"] == 1.5))
    });
    set(json!({}))?;
    told
}

/// Whether GET_QUOTA tells a guarantee of the role in the older form.
fn has_guarantee(target: &Target, role: &str) -> Checked<bool> {
    let answer = target.question(&json!({"type": "GET_QUOTA"}))?;
    let all = answer["get_quota"]["status"]["infos"].as_array();
    let mut all = all.into_iter().flatten();
    Ok(all.any(|it| it["role"] == *role && it["guarantee"][0]["scalar"]["value"] == 0.1))
}

fn older_quota(target: &Target) -> Checked {
    let role = unique("conform");
    let set = json!({"type": "SET_QUOTA", "set_quota": {"quota_request":
        {"role": role, "force": true, "guarantee": [scalar("cpus", 0.1)]}}});
    let remove = json!({"type": "REMOVE_QUOTA", "remove_quota": {"role": role}});
    ordered(target, &remove, 400)?;
    ordered(target, &set, 200)?;
    let told = target.eventually("GET_QUOTA does not tell it", || {
        has_guarantee(target, &role)
    });
    let again = ordered(target, &set, 400);
    ordered(target, &remove, 200)?;
    told?;
    again?;
    target.eventually("GET_QUOTA still tells it", || {
        Ok(!has_guarantee(target, &role)?)
    })
}

/// The machine of some agent.
fn some_machine(target: &Target) -> Checked<Value> {
    let (_framework, offer) = some_offer(target)?;
    let answer = target.question(&json!({"type": "GET_AGENTS"}))?;
    let all = answer["get_agents"]["agents"].as_array();
    let mut all = all.into_iter().flatten();
    let Some(agent) = all.find(|it| it["agent_info"]["id"] == offer["agent_id"]) else {
        return Err(Halt::failed("GET_AGENTS does not have the agent"));
    };
    let pid = agent["pid"].as_str().unwrap_or_default();
    let address = pid.split_once('@').map_or(pid, |(_, address)| address);
    let ip = address.rsplit_once(':').map_or(address, |(ip, _)| ip);
    Ok(json!({"hostname": agent["agent_info"]["hostname"], "ip": ip}))
}

/// Sets the whole schedule.
fn set_schedule(target: &Target, schedule: &Value) -> Checked {
    let call = json!({"type": "UPDATE_MAINTENANCE_SCHEDULE",
        "update_maintenance_schedule": {"schedule": schedule}});
    ordered(target, &call, 200)
}

fn schedule(target: &Target) -> Checked {
    let machine = some_machine(target)?;
    let before = target.question(&json!({"type": "GET_MAINTENANCE_SCHEDULE"}))?;
    let before = &before["get_maintenance_schedule"]["schedule"];
    // In 2096, for a minute.
    let start = json!({"nanoseconds": 4_000_000_000_000_000_000_i64});
    let window = json!({"machine_ids": [machine], "unavailability":
        {"start": start, "duration": {"nanoseconds": 60_000_000_000_i64}}});
    set_schedule(target, &json!({"windows": [window]}))?;
    let told = target.eventually("GET_MAINTENANCE_SCHEDULE does not tell it", || {
        let answer = target.question(&json!({"type": "GET_MAINTENANCE_SCHEDULE"}))?;
        let window = &answer["get_maintenance_schedule"]["schedule"]["windows"][0];
        let is_of_it = window["machine_ids"][0]["hostname"] == machine["hostname"];
        Ok(is_of_it && window["unavailability"]["start"] == start)
    });
    let draining = target.eventually("GET_MAINTENANCE_STATUS does not tell it", || {
        let answer = target.question(&json!({"type": "GET_MAINTENANCE_STATUS"}))?;
        let status = &answer["get_maintenance_status"]["status"];
        Ok(status["draining_machines"][0]["id"]["hostname"] == machine["hostname"])
    });
    let twice = json!({"windows": [window, window]});
    let call = json!({"type": "UPDATE_MAINTENANCE_SCHEDULE",
        "update_maintenance_schedule": {"schedule": twice}});
    let refused = ordered(target, &call, 400);
    set_schedule(target, before)?;
    told?;
    draining?;
    refused
}

fn of_no_machine(target: &Target, kind: &str, field: &str) -> Checked {
    let call = json!({"type": kind,
        field: {"machines": [{"hostname": "nobody.invalid", "ip": "192.0.2.1"}]}});
    ordered(target, &call, 400)?;
    ordered(target, &json!({"type": kind, field: {"machines": []}}), 400)
}

fn reads(target: &Target) -> Checked {
    for (path, kind, field) in [
        ("/quota", "GET_QUOTA", "/get_quota/status"),
        ("/weights", "GET_WEIGHTS", "/get_weights/weight_infos"),
        (
            "/maintenance/schedule",
            "GET_MAINTENANCE_SCHEDULE",
            "/get_maintenance_schedule/schedule",
        ),
    ] {
        let answer = target.question(&json!({"type": kind}))?;
        let empty = match path {
            "/weights" => json!([]),
            _ => json!({}),
        };
        let expected = answer.pointer(field).unwrap_or(&empty);
        let document = target.get(path)?;
        ensure!(document == *expected, "{path} tells {document}");
        let below = target.get(&format!("/master{path}"))?;
        ensure!(below == document, "/master{path} tells {below}");
    }
    let status = target.get("/maintenance/status")?;
    ensure!(status.is_object(), "/maintenance/status tells {status}");
    Ok(())
}

fn teardown(target: &Target) -> Checked {
    let mut framework = Framework::new(target)?;
    let call = json!({"type": "TEARDOWN", "teardown": {"framework_id": {"value": framework.id}}});
    ordered(target, &call, 200)?;
    framework.ends()?;
    framework.leave();
    Ok(())
}

fn of_no_agent(target: &Target, kind: &str, field: &str) -> Checked {
    let call = json!({"type": kind, field: {"agent_id": {"value": "nobody-S0"}}});
    let (status, answer) = target.operate(&call)?;
    ensure!(
        (400..500).contains(&status),
        "it is answered {status}: {answer}"
    );
    Ok(())
}

/// An offer, so that there is an agent to do something with.
fn some_offer(target: &Target) -> Checked<(Framework<'_>, Value)> {
    let mut framework = Framework::new(target)?;
    let offer = framework.offer()?;
    Ok((framework, offer))
}

fn deactivate(target: &Target) -> Checked {
    let (mut framework, offer) = some_offer(target)?;
    let agent = &offer["agent_id"];
    let order = |kind: &str, field: &str| {
        let call = json!({"type": kind, field: {"agent_id": agent}});
        ordered(target, &call, 200)
    };
    order("DEACTIVATE_AGENT", "deactivate_agent")?;
    let rescinded = framework.find("RESCIND of its offer", |event| {
        event["type"] == "RESCIND" && event["rescind"]["offer_id"] == offer["id"]
    });
    order("REACTIVATE_AGENT", "reactivate_agent")?;
    rescinded?;
    framework.forget();
    framework.find("an offer of the agent that is back", |event| {
        let offers = event["offers"]["offers"].as_array();
        offers.is_some_and(|all| all.iter().any(|it| it["agent_id"] == *agent))
    })?;
    Ok(())
}

fn reserved(role: &str, amount: f64) -> Value {
    let mut resource = scalar("cpus", amount);
    resource["reservations"] = json!([{"type": "DYNAMIC", "role": role}]);
    json!([resource])
}

/// How many cpus of an agent are reserved for a role.
fn reserved_on(target: &Target, agent: &Value, role: &str) -> Checked<f64> {
    total_on(target, agent, role, |it| it["name"] == "cpus")
}

/// How much of these an agent has for a role.
fn total_on(
    target: &Target,
    agent: &Value,
    role: &str,
    these: impl Fn(&Value) -> bool,
) -> Checked<f64> {
    let answer = target.question(&json!({"type": "GET_AGENTS"}))?;
    let all = answer["get_agents"]["agents"].as_array();
    let mut all = all.into_iter().flatten();
    let Some(agent) = all.find(|it| it["agent_info"]["id"] == *agent) else {
        return Err(Halt::failed("GET_AGENTS does not have the agent"));
    };
    let resources = agent["total_resources"].as_array().into_iter().flatten();
    let for_role = resources
        .filter(|it| these(it) && (it["role"] == *role || it["reservations"][0]["role"] == *role));
    Ok(for_role
        .filter_map(|it| it["scalar"]["value"].as_f64())
        .sum())
}

fn reserve(target: &Target) -> Checked {
    let (_framework, offer) = some_offer(target)?;
    let role = unique("conform");
    let order = |kind: &str, field: &str| {
        let call = json!({"type": kind, field: {"agent_id": offer["agent_id"],
            "resources": reserved(&role, 0.1)}});
        ordered(target, &call, 202)
    };
    order("RESERVE_RESOURCES", "reserve_resources")?;
    let has = target.eventually("GET_AGENTS does not have it reserved", || {
        Ok(reserved_on(target, &offer["agent_id"], &role)? == 0.1)
    });
    order("UNRESERVE_RESOURCES", "unreserve_resources")?;
    has
}

fn resize(target: &Target) -> Checked {
    let (_framework, offer) = some_offer(target)?;
    if amount(&offer, "disk") < 10.0 {
        return Err(Halt::not_tried("the agent has no disk to spare"));
    }
    let role = unique("conform");
    let (disk, volume) = (|mib| disk(&role, mib), |mib| volume(&role, mib));
    let agent = &offer["agent_id"];
    let order = |kind: &str, field: &str, what: Value| {
        let mut call = json!({"type": kind, field: what});
        call[field]["agent_id"] = agent.clone();
        ordered(target, &call, 202)
    };
    let becomes = |mib: f64| {
        let is_volume = |it: &Value| it["disk"]["persistence"]["id"].is_string();
        target.eventually("GET_AGENTS does not have the volume so", || {
            Ok(total_on(target, agent, &role, is_volume)? == mib)
        })
    };
    order(
        "RESERVE_RESOURCES",
        "reserve_resources",
        json!({"resources": [disk(10.0)]}),
    )?;
    order(
        "CREATE_VOLUMES",
        "create_volumes",
        json!({"volumes": [volume(4.0)]}),
    )?;
    let grow = json!({"volume": volume(4.0), "addition": disk(6.0)});
    order("GROW_VOLUME", "grow_volume", grow)?;
    let has = becomes(10.0);
    let shrink = json!({"volume": volume(10.0), "subtract": {"value": 3.0}});
    order("SHRINK_VOLUME", "shrink_volume", shrink)?;
    let has = has.and_then(|()| becomes(7.0));
    order(
        "DESTROY_VOLUMES",
        "destroy_volumes",
        json!({"volumes": [volume(7.0)]}),
    )?;
    order(
        "UNRESERVE_RESOURCES",
        "unreserve_resources",
        json!({"resources": [disk(10.0)]}),
    )?;
    has
}

fn insufficient(target: &Target) -> Checked {
    let (_framework, offer) = some_offer(target)?;
    let role = unique("conform");
    let call = json!({"type": "RESERVE_RESOURCES", "reserve_resources":
        {"agent_id": offer["agent_id"], "resources": reserved(&role, 100_000.0)}});
    ordered(target, &call, 409)
}

/// The operator's stream of events.
struct Watch<'a> {
    target: &'a Target,
    events: Events,
}

impl<'a> Watch<'a> {
    fn open(target: &'a Target) -> Checked<Self> {
        let call = json!({"type": "SUBSCRIBE"});
        let reply = target.post("/api/v1", &[], &call)?;
        offered(&reply, &call)?;
        ensure!(
            reply.status == 200,
            "SUBSCRIBE is answered {}",
            reply.status
        );
        let events = Events::new(reply);
        Ok(Self { target, events })
    }

    fn next(&mut self, what: &str) -> Checked<Value> {
        let deadline = Instant::now() + self.target.patience;
        match self.events.next(deadline)? {
            Next::Event(event) => Ok(event),
            Next::End => Err(Halt::failed("the stream ended")),
            Next::Nothing => Err(Halt::failed(format!("{what} did not come"))),
        }
    }

    fn find(&mut self, what: &str, wanted: impl Fn(&Value) -> bool) -> Checked<Value> {
        let deadline = Instant::now() + self.target.patience;
        loop {
            let event = self.next(what)?;
            if wanted(&event) {
                return Ok(event);
            }
            ensure!(Instant::now() < deadline, "{what} did not come");
        }
    }
}

fn watch(target: &Target) -> Checked {
    let mut watch = Watch::open(target)?;
    let first = watch.next("SUBSCRIBED")?;
    ensure!(
        first["type"] == "SUBSCRIBED",
        "the first event is {}",
        first["type"]
    );
    let state = &first["subscribed"]["get_state"];
    for part in ["get_agents", "get_frameworks", "get_tasks", "get_executors"] {
        ensure!(state[part].is_object(), "the state has no {part}");
    }
    let seconds = &first["subscribed"]["heartbeat_interval_seconds"];
    ensure!(
        seconds.as_f64().is_some_and(|it| it > 0.0),
        "heartbeat_interval_seconds is {seconds}"
    );
    watch.find("HEARTBEAT", |event| event["type"] == "HEARTBEAT")?;
    Ok(())
}

fn watch_frameworks(target: &Target) -> Checked {
    let mut watch = Watch::open(target)?;
    let framework = Framework::new(target)?;
    let id = json!({"value": framework.id});
    let is_of = |event: &Value, kind: &str, field: &str| {
        let info = match field {
            "framework_removed" => &event[field]["framework_info"],
            _ => &event[field]["framework"]["framework_info"],
        };
        event["type"] == kind && info["id"] == id
    };
    watch.find("FRAMEWORK_ADDED", |it| {
        is_of(it, "FRAMEWORK_ADDED", "framework_added")
    })?;
    let back = Framework::with(target, json!({"id": id, "name": "renamed"}))?;
    framework.leave();
    watch.find("FRAMEWORK_UPDATED with the new name", |it| {
        is_of(it, "FRAMEWORK_UPDATED", "framework_updated")
            && it["framework_updated"]["framework"]["framework_info"]["name"] == "renamed"
    })?;
    back.accepted(json!({"type": "TEARDOWN"}))?;
    watch.find("FRAMEWORK_REMOVED", |it| {
        is_of(it, "FRAMEWORK_REMOVED", "framework_removed")
    })?;
    back.leave();
    Ok(())
}

fn watch_tasks(target: &Target) -> Checked {
    let mut watch = Watch::open(target)?;
    let mut framework = Framework::with(
        target,
        json!({"capabilities": capabilities(&["PARTITION_AWARE"])}),
    )?;
    let offer = framework.offer()?;
    let task = framework.launch(&offer, "sleep 1000")?;
    watch.find("TASK_ADDED", |event| {
        let added = &event["task_added"]["task"];
        event["type"] == "TASK_ADDED" && added["task_id"] == task && added["name"].is_string()
    })?;
    let status = framework.update(&task, "TASK_RUNNING")?;
    framework.acknowledge(&status)?;
    let update = watch.find("TASK_UPDATED with TASK_RUNNING", |event| {
        let updated = &event["task_updated"];
        event["type"] == "TASK_UPDATED"
            && updated["status"]["task_id"] == task
            && updated["state"] == "TASK_RUNNING"
    })?;
    let of = &update["task_updated"]["framework_id"]["value"];
    ensure!(*of == framework.id, "it is of framework {of}");
    framework.kill(&task)?;
    watch.find("TASK_UPDATED with TASK_KILLED", |event| {
        let updated = &event["task_updated"];
        updated["status"]["task_id"] == task && updated["state"] == "TASK_KILLED"
    })?;
    Ok(())
}

fn recordio(target: &Target) -> Checked {
    let headers = [
        ("Content-Type", "application/json"),
        ("Accept", "application/recordio"),
        ("Message-Accept", "application/json"),
    ];
    let call = json!({"type": "SUBSCRIBE"});
    let body = call.to_string();
    let reply = target.ask("POST", "/api/v1", &headers, body.as_bytes())?;
    offered(&reply, &call)?;
    ensure!(reply.status == 200, "it is answered {}", reply.status);
    let kind = reply.header("content-type");
    ensure!(
        kind == Some("application/recordio"),
        "Content-Type is {kind:?}"
    );
    let kind = reply.header("message-content-type");
    ensure!(
        kind == Some("application/json"),
        "Message-Content-Type is {kind:?}"
    );
    Ok(())
}
