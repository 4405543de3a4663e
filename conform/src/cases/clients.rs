//! R: what real clients rely on beyond the documents.

use serde_json::{Value, json};

use crate::framework::{Framework, capabilities, info_with, scalar, subscribe_call};
use crate::target::{Target, json as parse};
use crate::{Case, Checked, Halt, ensure};

pub(super) const CASES: &[Case] = &[
    Case {
        id: "R1.chunks",
        says: "each chunk of a stream is one record with its length",
        check: |target| {
            let framework = streamed(target)?;
            ensure!(framework.events.is_chunk_a_record, "some chunk is not");
            Ok(())
        },
    },
    Case {
        id: "R1.plain",
        says: "JSON on a stream is one line of ASCII",
        check: |target| {
            let mut framework = streamed(target)?;
            // What it hears of again: the name of its own task.
            let offer = framework.offer()?;
            let mut task = framework.task(&offer, "true");
            task["task_id"] = json!({"value": crate::framework::unique("aufräumen")});
            let id = task["task_id"].clone();
            let launch = json!([{"type": "LAUNCH", "launch": {"task_infos": [task]}}]);
            framework.accept(&offer, &launch)?;
            framework.update(&id, "TASK_FINISHED")?;
            ensure!(framework.events.is_plain, "some record is not");
            Ok(())
        },
    },
    Case {
        id: "R2.media_types",
        says: "Content-Type is exactly application/json; no Accept and */* mean JSON",
        check: media_types,
    },
    Case {
        id: "R2.no_content",
        says: "calls without an answer are answered 202 without Content-Type",
        check: no_content,
    },
    Case {
        id: "R3",
        says: "/version and /state tell a version X.Y.Z of at least 1.0.0",
        check: version,
    },
    Case {
        id: "R4",
        says: "HEARTBEAT comes right after SUBSCRIBED",
        check: first_heartbeat,
    },
    Case {
        id: "R5",
        says: "/redirect and /master/redirect answer 307 with //host:port of the leader",
        check: redirect,
    },
    Case {
        id: "R6.prefix",
        says: "endpoints are also below /master, and with a slash or .json behind",
        check: prefixes,
    },
    Case {
        id: "R6.below",
        says: "an unknown path falls back to the one above it: /api/v1/operator is /api/v1",
        check: |target| {
            let call = json!({"type": "GET_VERSION"});
            let status = target.post("/api/v1/operator", &[], &call)?.status;
            ensure!(status == 200, "/api/v1/operator answers {status}");
            Ok(())
        },
    },
    Case {
        id: "R7",
        says: "JSON may have nulls, unknown fields and names, numbers and booleans as text, Infinity",
        check: lenient_json,
    },
    Case {
        id: "R8.single_role",
        says: "without MULTI_ROLE neither offers nor their resources have allocation_info",
        check: |target| allocation_info(target, &[]),
    },
    Case {
        id: "R8.multi_role",
        says: "with MULTI_ROLE offers and their resources have allocation_info",
        check: |target| allocation_info(target, &["MULTI_ROLE"]),
    },
    Case {
        id: "R8.old_reservations",
        says: "without RESERVATION_REFINEMENT resources have `role` and no `reservations`",
        check: |target| reservations(target, &[]),
    },
    Case {
        id: "R8.new_reservations",
        says: "with RESERVATION_REFINEMENT resources have no `role`",
        check: |target| reservations(target, &["RESERVATION_REFINEMENT"]),
    },
    Case {
        id: "R9.subscribe",
        says: "SUBSCRIBE may have empty texts, long names, and the id of the framework twice",
        check: tolerated_subscribe,
    },
    Case {
        id: "R9.calls",
        says: "ACCEPT and DECLINE may have no offers; refuse_seconds may be 4294967295",
        check: tolerated_calls,
    },
    Case {
        id: "R9.task",
        says: "a task may have `gpus: 0.0`, fields of older versions, and `:` and `.` in its id",
        check: tolerated_task,
    },
    Case {
        id: "R14",
        says: "/state has `master@ip:port`, no `pid` of HTTP frameworks, and ports as text",
        check: state,
    },
];

/// One on whose stream offers and a heartbeat have come.
fn streamed(target: &Target) -> Checked<Framework<'_>> {
    let mut framework = Framework::new(target)?;
    framework.find("HEARTBEAT", |event| event["type"] == "HEARTBEAT")?;
    Ok(framework)
}

fn media_types(target: &Target) -> Checked {
    let body = b"{\"type\":\"GET_VERSION\"}";
    let sent = ("Content-Type", "application/json");
    let accepts: [&[(&str, &str)]; 3] =
        [&[], &[("Accept", "*/*")], &[("Accept", "application/json")]];
    for accept in accepts {
        let mut headers = vec![sent];
        headers.extend_from_slice(accept);
        let mut reply = target.ask("POST", "/api/v1", &headers, body)?;
        ensure!(
            reply.status == 200,
            "with {accept:?} it is answered {}",
            reply.status
        );
        let kind = reply.header("content-type").map(str::to_owned);
        ensure!(
            kind.as_deref() == Some("application/json"),
            "with {accept:?} Content-Type is {kind:?}"
        );
        parse(&reply.body(target.patience)?).map_err(Halt::failed)?;
    }
    let framework = Framework::new(target)?;
    let kind = framework.events.header("content-type");
    ensure!(
        kind == Some("application/json"),
        "of the stream it is {kind:?}"
    );
    Ok(())
}

fn no_content(target: &Target) -> Checked {
    let framework = Framework::new(target)?;
    let reply = framework.call(json!({"type": "REVIVE"}))?;
    ensure!(reply.status == 202, "it is answered {}", reply.status);
    let kind = reply.header("content-type");
    ensure!(kind.is_none(), "Content-Type is {kind:?}");
    Ok(())
}

fn version(target: &Target) -> Checked {
    for path in ["/version", "/state"] {
        let document = target.get(path)?;
        let version = document["version"].as_str().unwrap_or_default();
        let parts: Option<Vec<u32>> = version.split('.').map(|it| it.parse().ok()).collect();
        let is_right = parts.is_some_and(|parts| parts.len() == 3 && parts[0] >= 1);
        ensure!(is_right, "{path} tells {:?}", document["version"]);
    }
    Ok(())
}

fn first_heartbeat(target: &Target) -> Checked {
    let mut framework = Framework::new(target)?;
    let next = framework.find("a second event", |_| true)?;
    ensure!(
        next["type"] == "HEARTBEAT",
        "the second event is {}",
        next["type"]
    );
    Ok(())
}

fn redirect(target: &Target) -> Checked {
    for path in ["/redirect", "/master/redirect"] {
        let reply = target.ask("GET", path, &[], b"")?;
        ensure!(reply.status == 307, "{path} is answered {}", reply.status);
        let location = reply.header("location").unwrap_or_default();
        let address = location.strip_prefix("//").unwrap_or_default();
        let port = address.rsplit_once(':').map(|(_, port)| port);
        let is_right = port.is_some_and(|it| it.parse::<u16>().is_ok());
        ensure!(is_right, "{path} has Location {location:?}");
    }
    Ok(())
}

fn prefixes(target: &Target) -> Checked {
    for path in [
        "/master/version",
        "/master/health",
        "/master/state",
        "/master/state.json",
        "/state.json",
        "/master/slaves",
        "/master/frameworks",
        "/master/tasks",
        "/master/tasks.json",
        "/master/roles",
        "/master/metrics/snapshot",
    ] {
        let status = target.ask("GET", path, &[], b"")?.status;
        ensure!(status == 200, "{path} is answered {status}");
    }
    for path in ["/master/api/v1", "/api/v1/", "/master/api/v1/"] {
        let status = target
            .post(path, &[], &json!({"type": "GET_VERSION"}))?
            .status;
        ensure!(status == 200, "{path} answers {status}");
    }
    for path in ["/master/api/v1/scheduler", "/api/v1/scheduler/"] {
        // Refused for what it says, not for where.
        let status = target.post(path, &[], &json!({}))?.status;
        ensure!(status == 400, "{path} answers {status}");
    }
    Ok(())
}

fn lenient_json(target: &Target) -> Checked {
    let info = info_with(
        target,
        json!({"failover_timeout": "60", "checkpoint": "false", "hostname": null,
            "conform_unknown": {"a": [1]}, "labels": null,
            "capabilities": [{"type": "PARTITION_AWARE"}, {"type": "CONFORM_UNKNOWN"}]}),
    );
    let framework = Framework::subscribe(target, &json!({"framework_info": info}))?;
    framework.accepted(json!({"type": "DECLINE", "decline":
        {"offer_ids": [], "filters": {"refuse_seconds": "Infinity"}}, "accept": null}))?;
    framework.accepted(json!({"type": "REVIVE", "revive": {"roles": null}}))
}

fn allocation_info(target: &Target, names: &[&str]) -> Checked {
    let is_there = !names.is_empty();
    let mut fields = json!({"capabilities": capabilities(names)});
    if is_there {
        fields["roles"] = json!(["*"]);
    }
    let mut framework = Framework::with(target, fields)?;
    let offer = framework.offer()?;
    let resources = offer["resources"].as_array().into_iter().flatten();
    for (what, it) in
        std::iter::once(("the offer", &offer)).chain(resources.map(|it| ("a resource", it)))
    {
        let has = it["allocation_info"]["role"].is_string();
        ensure!(
            has == is_there,
            "{what} {}: {it}",
            if has { "has it" } else { "has it not" }
        );
    }
    Ok(())
}

fn reservations(target: &Target, names: &[&str]) -> Checked {
    let mut framework = Framework::with(target, json!({"capabilities": capabilities(names)}))?;
    let offer = framework.offer()?;
    let is_old = names.is_empty();
    for resource in offer["resources"].as_array().into_iter().flatten() {
        let has_role = resource["role"].is_string();
        ensure!(has_role == is_old, "`role` of a resource: {resource}");
        let list = resource["reservations"].as_array();
        ensure!(
            !is_old || list.is_none_or(Vec::is_empty),
            "`reservations` of a resource: {resource}"
        );
    }
    Ok(())
}

fn tolerated_subscribe(target: &Target) -> Checked {
    let name = "a name with blanks ".repeat(15);
    let fields = json!({"name": name, "webui_url": "", "hostname": "", "principal": ""});
    let first = Framework::with(target, fields)?;
    let id = json!({"value": first.id});
    let info = info_with(target, json!({"name": name, "id": id}));
    let call =
        json!({"type": "SUBSCRIBE", "framework_id": id, "subscribe": {"framework_info": info}});
    let second = Framework::from_stream(target, subscribe_call(target, &call)?)?;
    ensure!(second.id == first.id, "it has another id: {}", second.id);
    first.leave();
    Ok(())
}

fn tolerated_calls(target: &Target) -> Checked {
    let framework = Framework::new(target)?;
    let filters = json!({"refuse_seconds": 4_294_967_295_u64});
    framework
        .accepted(json!({"type": "DECLINE", "decline": {"offer_ids": [], "filters": filters}}))?;
    framework.accepted(json!({"type": "ACCEPT",
        "accept": {"offer_ids": [], "operations": [], "filters": filters}}))
}

fn tolerated_task(target: &Target) -> Checked {
    let mut framework = Framework::new(target)?;
    let offer = framework.offer()?;
    let mut task = framework.task(&offer, "true");
    let id = json!({"value": format!("{}:a.b", crate::framework::unique("conform"))});
    task["task_id"] = id.clone();
    task["slave_id"] = offer["agent_id"].clone();
    task["hostname"] = json!("");
    if let Some(resources) = task["resources"].as_array_mut() {
        resources.push(scalar("gpus", 0.0));
    }
    let launch = json!([{"type": "LAUNCH", "launch": {"task_infos": [task]}}]);
    framework.accept(&offer, &launch)?;
    let status = framework.update(&id, "TASK_FINISHED")?;
    framework.acknowledge(&status)
}

fn state(target: &Target) -> Checked {
    let mut framework = Framework::new(target)?;
    // With an offer there is an agent.
    framework.offer()?;
    let state = target.get("/state")?;
    for field in ["pid", "leader"] {
        let text = state[field].as_str().unwrap_or_default();
        let address = text
            .strip_prefix("master@")
            .and_then(|it| it.rsplit_once(':'));
        let is_right = address.is_some_and(|(_, port)| port.parse::<u16>().is_ok());
        ensure!(is_right, "{field} is {:?}", state[field]);
    }
    let frameworks = state["frameworks"].as_array().into_iter().flatten();
    let mut ours = frameworks.filter(|it| it["id"] == *framework.id);
    let ours = ours
        .next()
        .ok_or_else(|| Halt::failed("it does not have the framework"))?;
    ensure!(
        ours.get("pid").is_none(),
        "the framework has a pid: {}",
        ours["pid"]
    );
    let slaves: Vec<&Value> = state["slaves"].as_array().into_iter().flatten().collect();
    ensure!(!slaves.is_empty(), "it has no slaves");
    for slave in slaves {
        let pid = slave["pid"].as_str().unwrap_or_default();
        ensure!(
            pid.starts_with("slave(1)@"),
            "the pid of a slave is {pid:?}"
        );
        let ports = &slave["resources"]["ports"];
        let is_text = ports.as_str().is_some_and(|it| it.starts_with('['));
        ensure!(
            is_text || ports.is_null(),
            "the ports of a slave are {ports}"
        );
    }
    Ok(())
}
