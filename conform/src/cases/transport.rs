//! A1 to A3, A6, A10: endpoints, encodings, framing, who answers.

use std::time::Instant;

use serde_json::{Value, json};

use crate::framework::{Framework, SCHEDULER};
use crate::http::Reply;
use crate::stream::Next;
use crate::target::{Target, ask_at, json as parse};
use crate::{Case, Checked, Halt, ensure};

pub(super) const CASES: &[Case] = &[
    Case {
        id: "A1",
        says: "frameworks call /api/v1/scheduler, operators /api/v1",
        check: endpoints,
    },
    Case {
        id: "A2.method",
        says: "a call that is not a POST is answered 405",
        check: |target| status_of(target, "GET", &[JSON], VERSION, 405),
    },
    Case {
        id: "A2.content_type_missing",
        says: "a call without Content-Type is answered 400",
        check: |target| status_of(target, "POST", &[], VERSION, 400),
    },
    Case {
        id: "A2.content_type_other",
        says: "a call in another encoding is answered 415",
        check: |target| {
            status_of(
                target,
                "POST",
                &[("Content-Type", "text/plain")],
                VERSION,
                415,
            )
        },
    },
    Case {
        id: "A2.accept_other",
        says: "a call whose answer could be in no encoding is answered 406",
        check: |target| {
            status_of(
                target,
                "POST",
                &[JSON, ("Accept", "text/html")],
                VERSION,
                406,
            )
        },
    },
    Case {
        id: "A2.unreadable",
        says: "a body that is no call is answered 400",
        check: |target| status_of(target, "POST", &[JSON], b"{\"type\":", 400),
    },
    Case {
        id: "A2.protobuf",
        says: "calls and answers may be protobuf",
        check: protobuf,
    },
    Case {
        id: "A2.accept_both",
        says: "the answer is JSON where both encodings are accepted",
        check: accept_both,
    },
    Case {
        id: "A3",
        says: "a stream is chunked, and its records have their length before them",
        check: recordio,
    },
    Case {
        id: "A6",
        says: "a master that follows answers 307 with the leader in Location: //host:port/path",
        check: follower,
    },
    Case {
        id: "A10",
        says: "what clients read is there: /version, /health, /state, /slaves, /tasks, and others",
        check: reads,
    },
];

const JSON: (&str, &str) = ("Content-Type", "application/json");
const VERSION: &[u8] = b"{\"type\":\"GET_VERSION\"}";

fn endpoints(target: &Target) -> Checked {
    for path in [SCHEDULER, "/api/v1"] {
        let status = target.post(path, &[], &json!({}))?.status;
        ensure!(
            status == 400,
            "an empty call to {path} is answered {status}"
        );
    }
    Ok(())
}

fn status_of(
    target: &Target,
    method: &str,
    headers: &[(&str, &str)],
    body: &[u8],
    expected: u16,
) -> Checked {
    for path in ["/api/v1", SCHEDULER] {
        let status = target.ask(method, path, headers, body)?.status;
        ensure!(status == expected, "{path} answers {status}");
    }
    Ok(())
}

/// `type`, field 1 of each call and answer, is a varint: 3 is GET_VERSION.
const VERSION_PROTOBUF: &[u8] = &[0x08, 0x03];
const PROTOBUF: &str = "application/x-protobuf";

fn protobuf(target: &Target) -> Checked {
    let headers = [("Content-Type", PROTOBUF), ("Accept", PROTOBUF)];
    let mut reply = target.ask("POST", "/api/v1", &headers, VERSION_PROTOBUF)?;
    ensure!(reply.status == 200, "it is answered {}", reply.status);
    ensure!(
        reply.header("content-type") == Some(PROTOBUF),
        "the answer's Content-Type is {:?}",
        reply.header("content-type")
    );
    let body = reply.body(target.patience)?;
    ensure!(
        body.starts_with(VERSION_PROTOBUF),
        "the answer is not that of GET_VERSION"
    );
    Ok(())
}

fn accept_both(target: &Target) -> Checked {
    let both = format!("{PROTOBUF}, application/json");
    let headers = [("Content-Type", PROTOBUF), ("Accept", both.as_str())];
    let mut reply = target.ask("POST", "/api/v1", &headers, VERSION_PROTOBUF)?;
    ensure!(reply.status == 200, "it is answered {}", reply.status);
    let answer = parse(&reply.body(target.patience)?).map_err(Halt::failed)?;
    ensure!(answer["type"] == "GET_VERSION", "the answer is {answer}");
    Ok(())
}

fn recordio(target: &Target) -> Checked {
    let mut framework = Framework::new(target)?;
    ensure!(framework.events.is_chunked(), "the stream is not chunked");
    // Reading one more record shows that the lengths of two of them were right.
    let deadline = Instant::now() + target.patience;
    let next = framework.events.next(deadline)?;
    ensure!(matches!(next, Next::Event(_)), "no second record came");
    Ok(())
}

fn follower(target: &Target) -> Checked {
    let Some(follower) = &target.follower else {
        let why = "no master that follows was named";
        return Err(Halt::not_tried(why));
    };
    let ask = |method, path| -> Checked<Reply> {
        Ok(ask_at(follower, method, path, &[], b"", target.patience)?)
    };
    for (method, path) in [
        ("POST", SCHEDULER),
        ("GET", SCHEDULER),
        ("POST", "/api/v1"),
        ("GET", "/quota"),
        ("GET", "/maintenance/schedule"),
        ("POST", "/machine/down"),
    ] {
        let reply = ask(method, path)?;
        ensure!(
            reply.status == 307,
            "{method} {path} is answered {}",
            reply.status
        );
        let location = reply.header("location").unwrap_or_default();
        let rest = location.strip_prefix("//").unwrap_or_default();
        let is_address = rest.split('/').next().is_some_and(|it| it.contains(':'));
        ensure!(
            is_address && rest.ends_with(path),
            "Location is {location:?}"
        );
    }
    Ok(())
}

fn reads(target: &Target) -> Checked {
    let paths: [(&str, &[&str]); 9] = [
        ("/version", &["version"]),
        (
            "/state",
            &[
                "version",
                "id",
                "pid",
                "slaves",
                "frameworks",
                "completed_frameworks",
            ],
        ),
        ("/state-summary", &["slaves", "frameworks"]),
        ("/slaves", &["slaves"]),
        ("/frameworks", &["frameworks", "completed_frameworks"]),
        ("/tasks", &["tasks"]),
        ("/roles", &["roles"]),
        (
            "/metrics/snapshot",
            &[
                "master/elected",
                "master/slaves_active",
                "master/tasks_running",
            ],
        ),
        ("/flags", &["flags"]),
    ];
    for (path, fields) in paths {
        let document: Value = target.get(path)?;
        for field in fields {
            ensure!(!document[field].is_null(), "{path} has no {field:?}");
        }
    }
    let health = target.ask("GET", "/health", &[], b"")?.status;
    ensure!(health == 200, "/health is answered {health}");
    Ok(())
}
