//! A1, M, O4: what agents answer. Where an agent is, its offers say.

use serde_json::{Value, json};

use super::calls::with_offer;
use crate::target::{Target, ask_at, json as parse, offered};
use crate::{Case, Checked, Halt, ensure};

/// A question with the field of its answer.
macro_rules! question {
    ($kind:literal, $field:literal) => {
        Case {
            id: concat!("O4.", $kind),
            says: concat!("an agent answers ", $kind, " with ", $field),
            check: |target| {
                let answer = ask(target, "/api/v1", &json!({"type": $kind}), 200)?;
                ensure!(answer["type"] == $kind, "the answer's type is {}", answer["type"]);
                ensure!(answer[$field].is_object(), "the answer has no {}", $field);
                Ok(())
            },
        }
    };
}

pub(super) const CASES: &[Case] = &[
    question!("GET_HEALTH", "get_health"),
    question!("GET_VERSION", "get_version"),
    question!("GET_FLAGS", "get_flags"),
    question!("GET_METRICS", "get_metrics"),
    question!("GET_STATE", "get_state"),
    question!("GET_TASKS", "get_tasks"),
    question!("GET_CONTAINERS", "get_containers"),
    question!("GET_AGENT", "get_agent"),
    Case {
        id: "M1.unknown",
        says: "SUBSCRIBE of an executor that the agent does not know is answered 400",
        check: |target| {
            let call = json!({"type": "SUBSCRIBE", "executor_id": {"value": "nobody"},
                "framework_id": {"value": "nobody"}, "subscribe": {}});
            ask(target, "/api/v1/executor", &call, 400).map(drop)
        },
    },
];

/// Asks an agent, at the path that its offers name.
fn ask(target: &Target, path: &str, call: &Value, expected: u16) -> Checked<Value> {
    let (_framework, offer) = with_offer(target)?;
    let url = &offer["url"];
    let (ip, port) = (&url["address"]["ip"], &url["address"]["port"]);
    let (Some(ip), Some(port)) = (ip.as_str(), port.as_u64()) else {
        return Err(Halt::failed("the offer does not say where its agent is"));
    };
    let address = match ip.contains(':') {
        true => format!("[{ip}]:{port}"),
        false => format!("{ip}:{port}"),
    };
    let base = url["path"].as_str().unwrap_or_default();
    let path = format!("{base}{path}");
    let headers = [
        ("Content-Type", "application/json"),
        ("Accept", "application/json"),
    ];
    let body = call.to_string();
    let mut reply = ask_at(
        &address,
        "POST",
        &path,
        &headers,
        body.as_bytes(),
        target.patience,
    )?;
    offered(&reply, call)?;
    if reply.status == 404 {
        return Err(Halt::not_offered(format!("the agent has no {path}")));
    }
    ensure!(reply.status == expected, "it is answered {}", reply.status);
    let body = reply.body(target.patience)?;
    Ok(parse(&body).unwrap_or(Value::Null))
}
