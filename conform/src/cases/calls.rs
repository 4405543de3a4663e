//! B3 to B17, E6, D1, D2, D7, M7: what frameworks ask for, and what follows.

use serde_json::{Value, json};

use super::subscription::described;
use crate::framework::{
    CPUS, Framework, MEM, amount, capabilities, disk, info_with, scalar, unique, volume,
};
use crate::target::{Target, offered};
use crate::{Case, Checked, Halt, ensure};

/// More offers than these do not come free while a case runs.
const ROUNDS_MAX: usize = 10;

pub(super) const CASES: &[Case] = &[
    Case {
        id: "B3",
        says: "TEARDOWN ends the stream and the tasks, and the framework is completed",
        check: teardown,
    },
    Case {
        id: "B4.launch",
        says: "ACCEPT with LAUNCH runs a task: RUNNING, FINISHED",
        check: launch,
    },
    Case {
        id: "B4.no_operations",
        says: "ACCEPT without operations declines",
        check: |target| {
            comes_again(target, |offer| {
                json!({"type": "ACCEPT", "accept": {"offer_ids": [offer["id"]], "operations": [],
                "filters": {"refuse_seconds": 0.0}}})
            })
        },
    },
    Case {
        id: "B4.in_order",
        says: "operations of an ACCEPT are carried out in order: LAUNCH on what RESERVE made",
        check: in_order,
    },
    Case {
        id: "B5",
        says: "what is declined without a filter is offered again",
        check: |target| {
            comes_again(target, |offer| {
                json!({"type": "DECLINE", "decline": {"offer_ids": [offer["id"]],
                "filters": {"refuse_seconds": 0.0}}})
            })
        },
    },
    Case {
        id: "B6",
        says: "answers to inverse offers are accepted",
        check: |target| {
            let framework = Framework::new(target)?;
            for (kind, field) in [
                ("ACCEPT_INVERSE_OFFERS", "accept_inverse_offers"),
                ("DECLINE_INVERSE_OFFERS", "decline_inverse_offers"),
            ] {
                framework.accepted(json!({"type": kind, field: {"inverse_offer_ids": []}}))?;
            }
            Ok(())
        },
    },
    Case {
        id: "B7",
        says: "REVIVE drops the filters of offers that were declined for long",
        check: revive,
    },
    Case {
        id: "B8",
        says: "SUPPRESS stops offers until REVIVE",
        check: suppress,
    },
    Case {
        id: "B9.task",
        says: "KILL ends a task: TASK_KILLED",
        check: |target| {
            let (mut framework, task) = running(target)?;
            framework.kill(&task).map(drop)
        },
    },
    Case {
        id: "B9.unknown",
        says: "KILL of an unknown task is answered as reconciliation would: TASK_UNKNOWN",
        check: kill_unknown,
    },
    Case {
        id: "B10",
        says: "SHUTDOWN of an executor is accepted",
        check: |target| {
            let (mut framework, offer) = with_offer(target)?;
            framework.accepted(json!({"type": "SHUTDOWN", "shutdown":
                {"executor_id": {"value": "nobody"}, "agent_id": offer["agent_id"]}}))?;
            framework.nothing("ERROR", |event| event["type"] == "ERROR")
        },
    },
    Case {
        id: "B11",
        says: "the next update of a task comes when the one before is acknowledged",
        check: acknowledge,
    },
    Case {
        id: "B12",
        says: "ACKNOWLEDGE_OPERATION_STATUS is accepted",
        check: |target| {
            let (framework, offer) = with_offer(target)?;
            framework.accepted(json!({"type": "ACKNOWLEDGE_OPERATION_STATUS",
                "acknowledge_operation_status": {"agent_id": offer["agent_id"],
                    "operation_id": {"value": "none"}, "uuid": "AAAAAAAAQACAAAAAAAAAAA=="}}))
        },
    },
    Case {
        id: "B13.explicit",
        says: "RECONCILE of a task tells its state, with REASON_RECONCILIATION and without uuid",
        check: |target| reconcile(target, false),
    },
    Case {
        id: "B13.implicit",
        says: "RECONCILE of nothing tells the state of every task",
        check: |target| reconcile(target, true),
    },
    Case {
        id: "B13.unknown",
        says: "RECONCILE of an unknown task of an unknown agent is answered TASK_UNKNOWN",
        check: reconcile_unknown,
    },
    Case {
        id: "B14",
        says: "RECONCILE_OPERATIONS of an unknown operation is answered OPERATION_UNKNOWN",
        check: reconcile_operations,
    },
    Case {
        id: "B15",
        says: "MESSAGE to an executor is accepted, whether it arrives or not",
        check: |target| {
            let (framework, offer) = with_offer(target)?;
            framework.accepted(
                json!({"type": "MESSAGE", "message": {"agent_id": offer["agent_id"],
                "executor_id": {"value": "nobody"}, "data": "aGVsbG8="}}),
            )
        },
    },
    Case {
        id: "B16",
        says: "REQUEST is accepted, and nothing follows",
        check: |target| {
            let framework = Framework::new(target)?;
            framework.accepted(json!({"type": "REQUEST", "request": {"requests": []}}))
        },
    },
    Case {
        id: "B17.update",
        says: "UPDATE_FRAMEWORK is answered 200 when it is done",
        check: update_framework,
    },
    Case {
        id: "B17.principal",
        says: "UPDATE_FRAMEWORK with another principal, user or checkpoint is answered 400",
        check: update_principal,
    },
    Case {
        id: "B17.roles",
        says: "UPDATE_FRAMEWORK with a suppressed role that is none of its roles is answered 400",
        check: |target| {
            let framework = Framework::new(target)?;
            let info = info_with(target, json!({"id": {"value": framework.id}}));
            let status = update(
                &framework,
                &json!({"framework_info": info,
                "suppressed_roles": ["conform-other"]}),
            )?;
            ensure!(status == 400, "it is answered {status}");
            Ok(())
        },
    },
    Case {
        id: "D1",
        says: "a task that is not valid is TASK_ERROR, and the others of its call go on",
        check: invalid_task,
    },
    Case {
        id: "D2",
        says: "a group with a task that is not valid is TASK_ERROR as a whole: REASON_TASK_GROUP_INVALID",
        check: invalid_group,
    },
    Case {
        id: "D7.grow",
        says: "GROW_VOLUME makes a volume larger by disk that is reserved alike",
        check: |target| {
            let by = |role: &str| {
                json!({"type": "GROW_VOLUME", "grow_volume":
                {"volume": volume(role, 4.0), "addition": disk(role, 6.0)}})
            };
            resize(target, &by, 10.0, "OPERATION_FINISHED")
        },
    },
    Case {
        id: "D7.shrink",
        says: "SHRINK_VOLUME makes it smaller",
        check: |target| {
            let by = |role: &str| {
                json!({"type": "SHRINK_VOLUME", "shrink_volume":
                {"volume": volume(role, 4.0), "subtract": {"value": 3.0}}})
            };
            resize(target, &by, 1.0, "OPERATION_FINISHED")
        },
    },
    Case {
        id: "D7.shrink_all",
        says: "SHRINK_VOLUME by all of it is OPERATION_ERROR",
        check: |target| {
            let by = |role: &str| {
                json!({"type": "SHRINK_VOLUME", "shrink_volume":
                {"volume": volume(role, 4.0), "subtract": {"value": 4.0}}})
            };
            resize(target, &by, 4.0, "OPERATION_ERROR")
        },
    },
    Case {
        id: "D9",
        says: "a task without resources is TASK_ERROR",
        check: |target| {
            let (mut framework, offer) = with_offer(target)?;
            let mut task = framework.task(&offer, "true");
            task["resources"] = json!([]);
            let id = task["task_id"].clone();
            let launch = json!([{"type": "LAUNCH", "launch": {"task_infos": [task]}}]);
            framework.accept(&offer, &launch)?;
            framework.update(&id, "TASK_ERROR").map(drop)
        },
    },
    Case {
        id: "M7",
        says: "tasks of a group run under the default executor, and the end of one kills the others",
        check: group,
    },
    Case {
        id: "E6",
        says: "a task launched with an offer that was used is lost: REASON_INVALID_OFFERS, no uuid",
        check: used_offer,
    },
];

/// One that understands all states.
pub(super) fn with_offer(target: &Target) -> Checked<(Framework<'_>, Value)> {
    let fields = json!({"capabilities": capabilities(&["PARTITION_AWARE"])});
    let mut framework = Framework::with(target, fields)?;
    let offer = framework.offer()?;
    Ok((framework, offer))
}

/// With a task that runs for long, and is acknowledged so far.
pub(super) fn running(target: &Target) -> Checked<(Framework<'_>, Value)> {
    let (mut framework, offer) = with_offer(target)?;
    let task = framework.launch(&offer, "sleep 1000")?;
    let status = framework.update(&task, "TASK_RUNNING")?;
    framework.acknowledge(&status)?;
    Ok((framework, task))
}

fn teardown(target: &Target) -> Checked {
    let (mut framework, task) = running(target)?;
    framework.accepted(json!({"type": "TEARDOWN"}))?;
    framework.ends()?;
    let id = framework.leave();
    target.eventually("its task is still among those that run", || {
        let answer = target.question(&json!({"type": "GET_TASKS"}))?;
        let mut live = answer["get_tasks"]["tasks"]
            .as_array()
            .into_iter()
            .flatten();
        Ok(!live.any(|it| it["task_id"] == task && it["framework_id"]["value"] == *id))
    })?;
    target.eventually("it is still among those that live", || {
        Ok(described(target, &id)?.is_none())
    })
}

fn launch(target: &Target) -> Checked {
    let (mut framework, offer) = with_offer(target)?;
    let task = framework.launch(&offer, "true")?;
    let status = framework.update(&task, "TASK_RUNNING")?;
    framework.acknowledge(&status)?;
    let status = framework.update(&task, "TASK_FINISHED")?;
    framework.acknowledge(&status)
}

fn comes_again(target: &Target, decline: impl Fn(&Value) -> Value) -> Checked {
    let (mut framework, offer) = with_offer(target)?;
    framework.forget();
    framework.accepted(decline(&offer))?;
    offered_again(&mut framework, &offer)
}

/// The same agent, in another offer.
fn offered_again(framework: &mut Framework, before: &Value) -> Checked {
    framework.find("another offer of the same agent", |event| {
        let offers = event["offers"]["offers"].as_array().into_iter().flatten();
        let mut same = offers.filter(|it| it["agent_id"] == before["agent_id"]);
        same.any(|it| it["id"] != before["id"])
    })?;
    Ok(())
}

fn in_order(target: &Target) -> Checked {
    let role = unique("conform");
    let fields = json!({"role": role,
        "capabilities": capabilities(&["PARTITION_AWARE", "RESERVATION_REFINEMENT"])});
    let mut framework = Framework::with(target, fields)?;
    let offer = framework.offer()?;
    let mut task = framework.task(&offer, "true");
    for resource in task["resources"].as_array_mut().into_iter().flatten() {
        resource["reservations"] = json!([{"type": "DYNAMIC", "role": role}]);
    }
    let (id, reserved) = (task["task_id"].clone(), task["resources"].clone());
    let operations = json!([
        {"type": "RESERVE", "reserve": {"resources": reserved}},
        {"type": "LAUNCH", "launch": {"task_infos": [task]}},
    ]);
    framework.accept(&offer, &operations)?;
    let status = framework.update(&id, "TASK_FINISHED")?;
    framework.acknowledge(&status)?;
    // As it was.
    let call = json!({"type": "UNRESERVE_RESOURCES",
        "unreserve_resources": {"agent_id": offer["agent_id"], "resources": reserved}});
    // The task's end may not have come round yet.
    target.eventually("UNRESERVE_RESOURCES is not answered 202", || {
        Ok(target.operate(&call)?.0 == 202)
    })
}

/// Makes a volume of 4 MiB of the 10 that it reserves, and then this of it; it is so large afterwards.
fn resize(target: &Target, by: &dyn Fn(&str) -> Value, becomes: f64, expected: &str) -> Checked {
    let role = unique("conform");
    let fields = json!({"role": role, "capabilities": capabilities(&["RESERVATION_REFINEMENT"])});
    let mut framework = Framework::with(target, fields)?;
    let offer = framework.offer()?;
    if amount(&offer, "disk") < 10.0 {
        return Err(Halt::not_tried("the agent has no disk to spare"));
    }
    let (made, id) = (
        json!({"value": unique("made")}),
        json!({"value": unique("resized")}),
    );
    let mut resized = by(&role);
    resized["id"] = id.clone();
    let operations = json!([
        {"type": "RESERVE", "reserve": {"resources": [disk(&role, 10.0)]}},
        {"type": "CREATE", "id": made, "create": {"volumes": [volume(&role, 4.0)]}},
        resized,
    ]);
    framework.accept(&offer, &operations)?;
    let mut told = |id: &Value| -> Checked<Value> {
        let event = framework.find("UPDATE_OPERATION_STATUS", |event| {
            event["type"] == "UPDATE_OPERATION_STATUS"
                && event["update_operation_status"]["status"]["operation_id"] == *id
        })?;
        Ok(event["update_operation_status"]["status"]["state"].clone())
    };
    let state = told(&id)?;
    // As it was, once all of it is done.
    told(&made)?;
    for (kind, field, what, resource) in [
        (
            "DESTROY_VOLUMES",
            "destroy_volumes",
            "volumes",
            volume(&role, becomes),
        ),
        (
            "UNRESERVE_RESOURCES",
            "unreserve_resources",
            "resources",
            disk(&role, 10.0),
        ),
    ] {
        let mut call = json!({"type": kind, field: {"agent_id": offer["agent_id"]}});
        call[field][what] = json!([resource]);
        let (status, answer) = target.operate(&call)?;
        ensure!(status == 202, "{kind} is answered {status}: {answer}");
    }
    ensure!(state == expected, "its state is {state}");
    Ok(())
}

/// Declines what is offered until nothing is: what others had may come free meanwhile.
fn until_quiet(framework: &mut Framework, refuse_seconds: f64) -> Checked {
    for _ in 0..ROUNDS_MAX {
        let Some(event) = framework.look_for_offers()? else {
            return Ok(());
        };
        let offers = event["offers"]["offers"].as_array().into_iter().flatten();
        let ids: Vec<Value> = offers.map(|offer| offer["id"].clone()).collect();
        framework.accepted(json!({"type": "DECLINE", "decline": {"offer_ids": ids,
            "filters": {"refuse_seconds": refuse_seconds}}}))?;
    }
    Err(Halt::failed("offers come again and again"))
}

fn revive(target: &Target) -> Checked {
    let (mut framework, offer) = with_offer(target)?;
    framework.accepted(
        json!({"type": "DECLINE", "decline": {"offer_ids": [offer["id"]],
        "filters": {"refuse_seconds": 3600.0}}}),
    )?;
    until_quiet(&mut framework, 3600.0)?;
    framework.accepted(json!({"type": "REVIVE", "revive": {"roles": []}}))?;
    offered_again(&mut framework, &offer)
}

fn suppress(target: &Target) -> Checked {
    let (mut framework, offer) = with_offer(target)?;
    framework.accepted(json!({"type": "SUPPRESS", "suppress": {"roles": []}}))?;
    framework.accepted(
        json!({"type": "DECLINE", "decline": {"offer_ids": [offer["id"]],
        "filters": {"refuse_seconds": 0.0}}}),
    )?;
    // Without a filter they would come again at once.
    until_quiet(&mut framework, 0.0)?;
    framework.accepted(json!({"type": "REVIVE"}))?;
    offered_again(&mut framework, &offer)
}

/// A status that the master made about a task that it does not know.
fn is_unknown(framework: &mut Framework, task: &Value) -> Checked {
    let status = framework.update(task, "TASK_UNKNOWN")?;
    let reason = &status["reason"];
    ensure!(reason == "REASON_RECONCILIATION", "its reason is {reason}");
    ensure!(status["uuid"].is_null(), "it has a uuid");
    Ok(())
}

fn kill_unknown(target: &Target) -> Checked {
    let fields = json!({"capabilities": capabilities(&["PARTITION_AWARE"])});
    let mut framework = Framework::with(target, fields)?;
    let task = json!({"value": unique("conform")});
    framework.accepted(json!({"type": "KILL",
        "kill": {"task_id": task, "agent_id": {"value": "nobody-S0"}}}))?;
    is_unknown(&mut framework, &task)
}

fn acknowledge(target: &Target) -> Checked {
    let (mut framework, offer) = with_offer(target)?;
    let task = framework.launch(&offer, "true")?;
    let status = framework.update(&task, "TASK_RUNNING")?;
    framework.nothing("the next update", |event| {
        event["update"]["status"]["task_id"] == task
            && event["update"]["status"]["uuid"] != status["uuid"]
    })?;
    framework.acknowledge(&status)?;
    let status = framework.update(&task, "TASK_FINISHED")?;
    framework.acknowledge(&status)
}

fn reconcile(target: &Target, is_implicit: bool) -> Checked {
    let (mut framework, task) = running(target)?;
    let tasks = match is_implicit {
        true => json!([]),
        false => json!([{"task_id": task}]),
    };
    framework.accepted(json!({"type": "RECONCILE", "reconcile": {"tasks": tasks}}))?;
    let event = framework.find("the answer to RECONCILE", |event| {
        let status = &event["update"]["status"];
        status["task_id"] == task && status["reason"] == "REASON_RECONCILIATION"
    })?;
    let status = &event["update"]["status"];
    ensure!(
        status["state"] == "TASK_RUNNING",
        "the state is {}",
        status["state"]
    );
    ensure!(
        status["source"] == "SOURCE_MASTER",
        "its source is {}",
        status["source"]
    );
    ensure!(status["uuid"].is_null(), "it has a uuid");
    framework.kill(&task).map(drop)
}

fn reconcile_unknown(target: &Target) -> Checked {
    let fields = json!({"capabilities": capabilities(&["PARTITION_AWARE"])});
    let mut framework = Framework::with(target, fields)?;
    let task = json!({"value": unique("conform")});
    framework.accepted(json!({"type": "RECONCILE", "reconcile":
        {"tasks": [{"task_id": task, "agent_id": {"value": "nobody-S0"}}]}}))?;
    is_unknown(&mut framework, &task)
}

fn reconcile_operations(target: &Target) -> Checked {
    let mut framework = Framework::new(target)?;
    let operation = json!({"value": unique("conform")});
    framework.accepted(
        json!({"type": "RECONCILE_OPERATIONS", "reconcile_operations":
        {"operations": [{"operation_id": operation, "agent_id": {"value": "nobody-S0"}}]}}),
    )?;
    let event = framework.find("UPDATE_OPERATION_STATUS", |event| {
        let status = &event["update_operation_status"]["status"];
        event["type"] == "UPDATE_OPERATION_STATUS" && status["operation_id"] == operation
    })?;
    let status = &event["update_operation_status"]["status"];
    ensure!(
        status["state"] == "OPERATION_UNKNOWN",
        "its state is {}",
        status["state"]
    );
    ensure!(status["uuid"].is_null(), "it has a uuid");
    Ok(())
}

fn update(framework: &Framework, update: &Value) -> Checked<u16> {
    let call = json!({"type": "UPDATE_FRAMEWORK", "update_framework": update});
    let reply = framework.call(call.clone())?;
    offered(&reply, &call)?;
    Ok(reply.status)
}

fn update_framework(target: &Target) -> Checked {
    let fields = |name: &str, roles: Value| json!({"name": name, "roles": roles, "capabilities": capabilities(&["MULTI_ROLE"])});
    let (a, b) = (unique("conform-a"), unique("conform-b"));
    let framework = Framework::with(target, fields("conform", json!([a])))?;
    let mut changed = fields("renamed", json!([a, b]));
    changed["id"] = json!({"value": framework.id});
    let info = info_with(target, changed);
    let status = update(
        &framework,
        &json!({"framework_info": info, "suppressed_roles": [b]}),
    )?;
    ensure!(status == 200, "it is answered {status}");
    target.eventually("GET_FRAMEWORKS has not the new name and both roles", || {
        let known = described(target, &framework.id)?.unwrap_or_default();
        let info = &known["framework_info"];
        let roles = info["roles"].as_array().map_or(0, Vec::len);
        Ok(info["name"] == "renamed" && roles == 2)
    })
}

fn update_principal(target: &Target) -> Checked {
    let framework = Framework::with(target, json!({"principal": "conform-a"}))?;
    for (field, value) in [
        ("principal", json!("conform-b")),
        ("user", json!("somebody")),
        ("checkpoint", json!(true)),
    ] {
        let id = json!({"value": framework.id});
        let mut info = info_with(target, json!({"principal": "conform-a", "id": id}));
        info[field] = value;
        let status = update(&framework, &json!({"framework_info": info}))?;
        ensure!(status == 400, "another {field} is answered {status}");
    }
    Ok(())
}

fn invalid_task(target: &Target) -> Checked {
    let (mut framework, offer) = with_offer(target)?;
    let mut bad = framework.task(&offer, "true");
    bad["task_id"] = json!({"value": format!("{}/no", unique("conform"))});
    let good = framework.task(&offer, "true");
    let (bad_id, good_id) = (bad["task_id"].clone(), good["task_id"].clone());
    let launch = json!([{"type": "LAUNCH", "launch": {"task_infos": [bad, good]}}]);
    framework.accept(&offer, &launch)?;
    let status = framework.update(&bad_id, "TASK_ERROR")?;
    ensure!(status["uuid"].is_null(), "TASK_ERROR has a uuid");
    let status = framework.update(&good_id, "TASK_FINISHED")?;
    framework.acknowledge(&status)
}

/// A LAUNCH_GROUP of two tasks that fits where one of ours does; the ids of the tasks and of its executor.
fn launch_group(framework: &Framework, offer: &Value, second: &str) -> Checked<[Value; 3]> {
    let mut tasks = [
        framework.task(offer, "sleep 1000"),
        framework.task(offer, "sleep 1000"),
    ];
    for task in &mut tasks {
        task["resources"] = json!([scalar("cpus", CPUS * 0.4), scalar("mem", MEM / 2.0)]);
    }
    if !second.is_empty() {
        tasks[1]["task_id"] = json!({"value": second});
    }
    let executor_id = json!({"value": unique("conform")});
    let executor = json!({"type": "DEFAULT", "executor_id": executor_id,
        "resources": [scalar("cpus", CPUS * 0.2)]});
    let ids = [&tasks[0], &tasks[1]].map(|it| it["task_id"].clone());
    let launch = json!([{"type": "LAUNCH_GROUP", "launch_group":
        {"executor": executor, "task_group": {"tasks": tasks}}}]);
    framework.accept(offer, &launch)?;
    let [first, second] = ids;
    Ok([first, second, executor_id])
}

fn invalid_group(target: &Target) -> Checked {
    let (mut framework, offer) = with_offer(target)?;
    let bad = format!("{}/no", unique("conform"));
    let [first, second, _] = launch_group(&framework, &offer, &bad)?;
    for id in [first, second] {
        let status = framework.update(&id, "TASK_ERROR")?;
        let reason = &status["reason"];
        ensure!(
            reason == "REASON_TASK_GROUP_INVALID",
            "its reason is {reason}"
        );
        ensure!(status["uuid"].is_null(), "TASK_ERROR has a uuid");
    }
    Ok(())
}

fn group(target: &Target) -> Checked {
    let (mut framework, offer) = with_offer(target)?;
    let [first, second, executor_id] = launch_group(&framework, &offer, "")?;
    for id in [&first, &second] {
        let status = framework.update(id, "TASK_RUNNING")?;
        let told = &status["executor_id"];
        ensure!(*told == executor_id, "its executor is {told}");
        framework.acknowledge(&status)?;
    }
    framework.kill(&first)?;
    // Nobody has asked for this one.
    let status = framework.update(&second, "TASK_KILLED")?;
    framework.acknowledge(&status)
}

fn used_offer(target: &Target) -> Checked {
    let (mut framework, offer) = with_offer(target)?;
    framework.accepted(
        json!({"type": "DECLINE", "decline": {"offer_ids": [offer["id"]],
        "filters": {"refuse_seconds": 60.0}}}),
    )?;
    let task = framework.launch(&offer, "true")?;
    let status = framework.update(&task, "TASK_DROPPED")?;
    let reason = &status["reason"];
    ensure!(reason == "REASON_INVALID_OFFERS", "its reason is {reason}");
    ensure!(status["uuid"].is_null(), "it has a uuid");
    // One that does not know of partitions hears TASK_LOST.
    let mut older = Framework::new(target)?;
    let task = older.launch(&offer, "true")?;
    let status = older.update(&task, "TASK_LOST")?;
    let reason = &status["reason"];
    ensure!(
        reason == "REASON_INVALID_OFFERS",
        "of an older framework it is {reason}"
    );
    Ok(())
}
