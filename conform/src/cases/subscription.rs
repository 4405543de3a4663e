//! A4, A5, A7 to A9, B1, B2, N, R15: how frameworks come, go, and come back.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::framework::{
    Framework, SCHEDULER, capabilities, info, info_with, subscribe_error, subscribe_raw,
};
use crate::stream::Next;
use crate::target::Target;
use crate::{Case, Checked, Halt, ensure};

pub(super) const CASES: &[Case] = &[
    Case {
        id: "A4",
        says: "SUBSCRIBE is answered 200 with Mesos-Stream-Id, and SUBSCRIBED comes first",
        check: subscribe,
    },
    Case {
        id: "A5.accepted",
        says: "a call with the stream's id is answered 202 without a body",
        check: accepted,
    },
    Case {
        id: "A5.stream_id_missing",
        says: "a call without Mesos-Stream-Id is answered 400",
        check: |target| refused(target, &[]),
    },
    Case {
        id: "A5.stream_id_other",
        says: "a call with another Mesos-Stream-Id is answered 400",
        check: |target| {
            let other = "5f2e12a0-0000-4000-8000-000000000000";
            refused(target, &[("Mesos-Stream-Id", other)])
        },
    },
    Case {
        id: "A5.subscribe_with_stream_id",
        says: "SUBSCRIBE with Mesos-Stream-Id is answered 400",
        check: subscribe_with_stream_id,
    },
    Case {
        id: "A5.unknown",
        says: "a call of an unknown framework is answered 400",
        check: unknown,
    },
    Case {
        id: "A5.not_subscribed",
        says: "a call of a framework that is away is answered 403",
        check: not_subscribed,
    },
    Case {
        id: "A7",
        says: "SUBSCRIBED tells the interval of heartbeats, and they come",
        check: heartbeats,
    },
    Case {
        id: "A8",
        says: "a second subscription ends the first with ERROR and has a stream id of its own",
        check: second_subscription,
    },
    Case {
        id: "A9",
        says: "ids are <uuid>-NNNN of frameworks, <uuid>-S<n> of agents, <uuid>-O<n> of offers",
        check: ids,
    },
    Case {
        id: "B1.new",
        says: "a framework without an id is new and gets one",
        check: new_ids,
    },
    Case {
        id: "B1.role_with_multi_role",
        says: "`role` with MULTI_ROLE is an ERROR",
        check: |target| {
            let fields = json!({"role": "a", "capabilities": capabilities(&["MULTI_ROLE"])});
            error_for(target, fields)
        },
    },
    Case {
        id: "B1.roles_without_multi_role",
        says: "`roles` without MULTI_ROLE is an ERROR",
        check: |target| error_for(target, json!({"roles": ["a"]})),
    },
    Case {
        id: "B1.suppressed_roles",
        says: "suppressed roles that the framework is not in are an ERROR",
        check: |target| {
            let subscribe = json!({"framework_info": info(target),
                "suppressed_roles": ["conform-other"]});
            subscribe_error(target, &subscribe).map(drop)
        },
    },
    Case {
        id: "B1.no_role",
        says: "a framework without a role is in `*`",
        check: no_role,
    },
    Case {
        id: "B2.principal",
        says: "another principal than before is an ERROR",
        check: principal,
    },
    Case {
        id: "B2.fields",
        says: "a new subscription changes the name; the user stays as it was without an error",
        check: fields,
    },
    Case {
        id: "N2",
        says: "a framework that is back before its timeout has its id and a new stream id",
        check: comes_back,
    },
    Case {
        id: "N3",
        says: "a framework whose failover timeout passes is removed; the default is 0 s",
        check: does_not_come_back,
    },
    Case {
        id: "R15",
        says: "TEARDOWN ends the stream, and a later SUBSCRIBE with that id gets an ERROR",
        check: torn_down,
    },
];

fn subscribe(target: &Target) -> Checked {
    let framework = Framework::new(target)?;
    ensure!(
        framework.subscribed["type"] == "SUBSCRIBED",
        "the first event is {}",
        framework.subscribed["type"]
    );
    let length = framework.stream_id.len();
    ensure!(
        (1..=128).contains(&length),
        "the stream id has {length} bytes"
    );
    Ok(())
}

fn revive() -> Value {
    json!({"type": "REVIVE"})
}

fn accepted(target: &Target) -> Checked {
    let framework = Framework::new(target)?;
    let mut reply = framework.call(revive())?;
    ensure!(reply.status == 202, "it is answered {}", reply.status);
    let body = reply.body(target.patience)?;
    ensure!(body.is_empty(), "it has a body of {} bytes", body.len());
    Ok(())
}

fn refused(target: &Target, headers: &[(&str, &str)]) -> Checked {
    let framework = Framework::new(target)?;
    let status = framework.call_with(revive(), headers)?.status;
    ensure!(status == 400, "it is answered {status}");
    Ok(())
}

fn subscribe_with_stream_id(target: &Target) -> Checked {
    let call = json!({"type": "SUBSCRIBE", "subscribe": {"framework_info": info(target)}});
    let headers = [("Mesos-Stream-Id", "5f2e12a0-0000-4000-8000-000000000000")];
    let status = target.post(SCHEDULER, &headers, &call)?.status;
    ensure!(status == 400, "it is answered {status}");
    Ok(())
}

fn unknown(target: &Target) -> Checked {
    let call = json!({"type": "REVIVE", "framework_id": {"value": "nobody-0000"}});
    let headers = [("Mesos-Stream-Id", "5f2e12a0-0000-4000-8000-000000000000")];
    let status = target.post(SCHEDULER, &headers, &call)?.status;
    ensure!(status == 400, "it is answered {status}");
    Ok(())
}

fn not_subscribed(target: &Target) -> Checked {
    let framework = Framework::new(target)?;
    let stream_id = framework.stream_id.clone();
    let id = framework.leave();
    let call = json!({"type": "REVIVE", "framework_id": {"value": id}});
    let headers = [("Mesos-Stream-Id", stream_id.as_str())];
    // Until its end has been heard of.
    let noticed = target.eventually("it is not answered 403", || {
        Ok(target.post(SCHEDULER, &headers, &call)?.status == 403)
    });
    tear_down(target, &id)?;
    noticed
}

/// As an operator.
fn tear_down(target: &Target, id: &str) -> Checked {
    let call = json!({"type": "TEARDOWN", "teardown": {"framework_id": {"value": id}}});
    target.operate(&call).map(drop)
}

fn heartbeats(target: &Target) -> Checked {
    let mut framework = Framework::new(target)?;
    let told = &framework.subscribed["subscribed"]["heartbeat_interval_seconds"];
    let seconds = told.as_f64().unwrap_or_default();
    ensure!(seconds > 0.0, "heartbeat_interval_seconds is {told}");
    let interval = Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX);
    if interval > target.patience {
        let why = format!("one comes every {seconds} s, which is longer than we wait");
        return Err(Halt::not_tried(why));
    }
    // The first comes at once (R4), the second after the interval.
    for _ in 0..2 {
        framework.find("HEARTBEAT", |event| event["type"] == "HEARTBEAT")?;
    }
    Ok(())
}

fn again(target: &Target, id: &str) -> Value {
    json!({"framework_info": info_with(target, json!({"id": {"value": id}}))})
}

fn second_subscription(target: &Target) -> Checked {
    let mut first = Framework::new(target)?;
    let subscribe = again(target, &first.id);
    let call = json!({"type": "SUBSCRIBE", "framework_id": {"value": first.id},
        "subscribe": subscribe});
    let events = crate::framework::subscribe_call(target, &call)?;
    let second = Framework::from_stream(target, events)?;
    ensure!(second.id == first.id, "the id is now {}", second.id);
    ensure!(
        second.stream_id != first.stream_id,
        "both streams have the same id"
    );
    let message = first.error()?;
    ensure!(!message.is_empty(), "the ERROR says nothing");
    first.ends()?;
    let headers = [("Mesos-Stream-Id", first.stream_id.as_str())];
    let status = second.call_with(revive(), &headers)?.status;
    ensure!(
        status == 400,
        "a call with the old stream id is answered {status}"
    );
    first.leave();
    Ok(())
}

fn is_uuid(text: &str) -> bool {
    let parts: Vec<usize> = text.split('-').map(str::len).collect();
    let is_hex = |byte: u8| byte.is_ascii_hexdigit() || byte == b'-';
    parts == [8, 4, 4, 4, 12] && text.bytes().all(is_hex)
}

/// Of `<uuid>-<rest>`, whether the rest is as it should be.
fn is_id(id: &str, is_right: impl Fn(&str) -> bool) -> bool {
    let parts = id.split_at_checked(36);
    parts.is_some_and(|(uuid, rest)| is_uuid(uuid) && rest.strip_prefix('-').is_some_and(is_right))
}

fn ids(target: &Target) -> Checked {
    let mut framework = Framework::new(target)?;
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|it| it.is_ascii_digit());
    ensure!(
        is_id(&framework.id, |rest| rest.len() >= 4 && digits(rest)),
        "the framework's id is {}",
        framework.id
    );
    let offer = framework.offer()?;
    let agent = offer["agent_id"]["value"].as_str().unwrap_or_default();
    let is_agent = |rest: &str| rest.strip_prefix('S').is_some_and(digits);
    ensure!(is_id(agent, is_agent), "the agent's id is {agent:?}");
    let id = offer["id"]["value"].as_str().unwrap_or_default();
    let is_offer = |rest: &str| rest.starts_with('O') && rest.len() > 1;
    ensure!(is_id(id, is_offer), "the offer's id is {id:?}");
    Ok(())
}

fn new_ids(target: &Target) -> Checked {
    let (first, second) = (Framework::new(target)?, Framework::new(target)?);
    ensure!(!first.id.is_empty(), "the id is empty");
    ensure!(first.id != second.id, "both are {}", first.id);
    Ok(())
}

fn error_for(target: &Target, fields: Value) -> Checked {
    let subscribe = json!({"framework_info": info_with(target, fields)});
    subscribe_error(target, &subscribe).map(drop)
}

/// What the operator API says of a framework that has not ended.
pub(super) fn described(target: &Target, id: &str) -> Checked<Option<Value>> {
    let answer = target.question(&json!({"type": "GET_FRAMEWORKS"}))?;
    let all = answer["get_frameworks"]["frameworks"].as_array();
    let found = all.into_iter().flatten();
    let mut found = found.filter(|it| it["framework_info"]["id"]["value"] == *id);
    Ok(found.next().cloned())
}

fn roles_of(framework: &Value) -> Vec<&str> {
    let info = &framework["framework_info"];
    let roles = info["roles"].as_array().into_iter().flatten();
    roles
        .chain([&info["role"]])
        .filter_map(Value::as_str)
        .collect()
}

fn no_role(target: &Target) -> Checked {
    let framework = Framework::new(target)?;
    target.eventually(
        "GET_FRAMEWORKS does not have it in `*`, or without roles",
        || {
            let known = described(target, &framework.id)?;
            let roles = known.as_ref().map(roles_of);
            Ok(roles.is_some_and(|roles| roles.is_empty() || roles == ["*"]))
        },
    )?;
    // Without a word about roles it is in `*`, where offers are.
    target.eventually("GET_ROLES does not have it in `*`", || {
        let answer = target.question(&json!({"type": "GET_ROLES"}))?;
        let all = answer["get_roles"]["roles"]
            .as_array()
            .into_iter()
            .flatten();
        let members = all.filter(|role| role["name"] == "*");
        let mut members = members
            .filter_map(|role| role["frameworks"].as_array())
            .flatten();
        Ok(members.any(|it| it["value"] == *framework.id))
    })
}

fn principal(target: &Target) -> Checked {
    let framework = Framework::with(target, json!({"principal": "conform-a"}))?;
    let fields = json!({"id": {"value": framework.id}, "principal": "conform-b"});
    error_for(target, fields)
}

fn fields(target: &Target) -> Checked {
    let first = Framework::new(target)?;
    let fields = json!({"id": {"value": first.id}, "name": "renamed", "user": "somebody"});
    let second = Framework::with(target, fields)?;
    first.leave();
    target.eventually(
        "its name is not the new one, or its user has changed",
        || {
            let known = described(target, &second.id)?.unwrap_or_default();
            let info = &known["framework_info"];
            Ok(info["name"] == "renamed" && info["user"] != "somebody")
        },
    )
}

fn comes_back(target: &Target) -> Checked {
    let framework = Framework::new(target)?;
    let stream_id = framework.stream_id.clone();
    let id = framework.leave();
    let back = Framework::subscribe(target, &again(target, &id))?;
    ensure!(back.id == id, "it has another id: {}", back.id);
    ensure!(
        back.stream_id != stream_id,
        "it has the stream id of before"
    );
    back.accepted(revive())
}

fn does_not_come_back(target: &Target) -> Checked {
    let mut info = info(target);
    if let Some(info) = info.as_object_mut() {
        info.remove("failover_timeout");
    }
    let id = Framework::subscribe(target, &json!({"framework_info": info}))?.leave();
    target.eventually("it is not among the completed frameworks", || {
        is_completed(target, &id)
    })
}

/// Whether the framework is among those that have ended.
fn is_completed(target: &Target, id: &str) -> Checked<bool> {
    let answer = target.question(&json!({"type": "GET_FRAMEWORKS"}))?;
    let ended = answer["get_frameworks"]["completed_frameworks"].as_array();
    let mut ended = ended.into_iter().flatten();
    Ok(ended.any(|it| it["framework_info"]["id"]["value"] == *id))
}

fn torn_down(target: &Target) -> Checked {
    let mut framework = Framework::new(target)?;
    framework.accepted(json!({"type": "TEARDOWN"}))?;
    framework.ends()?;
    let id = framework.leave();
    let mut events = subscribe_raw(target, &again(target, &id))?;
    let deadline = Instant::now() + target.patience;
    let Next::Event(event) = events.next(deadline)? else {
        return Err(Halt::failed("the second stream says nothing"));
    };
    ensure!(
        event["type"] == "ERROR",
        "instead of ERROR came {}",
        event["type"]
    );
    Ok(())
}
