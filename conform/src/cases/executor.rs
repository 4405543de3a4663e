//! A1, M, O4: what agents answer, and what executors and they say to each other. Where an agent is, its
//! offers say.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::calls::with_offer;
use crate::framework::{Framework, MEM, scalar, unique};
use crate::http::Reply;
use crate::stream::{Events, Next};
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
    question!("GET_FRAMEWORKS", "get_frameworks"),
    question!("GET_EXECUTORS", "get_executors"),
    question!("GET_OPERATIONS", "get_operations"),
    question!("GET_LOGGING_LEVEL", "get_logging_level"),
    question!("GET_RESOURCE_PROVIDERS", "get_resource_providers"),
    Case {
        id: "M1.unknown",
        says: "SUBSCRIBE of an executor that the agent does not know is answered 400",
        check: |target| {
            let call = json!({"type": "SUBSCRIBE", "executor_id": {"value": "nobody"},
                "framework_id": {"value": "nobody"}, "subscribe": {}});
            ask(target, EXECUTOR, &call, 400).map(drop)
        },
    },
    Case {
        id: "M1.encoding",
        says: "calls of executors are POST, in JSON or protobuf: else 405, 400, 415, 406",
        check: encoding,
    },
    Case {
        id: "M1.not_subscribed",
        says: "UPDATE of an executor that is not subscribed is answered 403",
        check: |target| {
            let executor = Executor::started(target)?;
            // The agent knows it as soon as it may subscribe.
            drop(executor.subscribe(&json!({}))?);
            let deadline = Instant::now() + target.patience;
            loop {
                let status = executor.post(&executor.update("TASK_RUNNING"))?.status;
                match status {
                    403 => return Ok(()),
                    // The end of its stream is on its way.
                    202 if Instant::now() < deadline => std::thread::sleep(GLANCE),
                    _ => return Err(Halt::failed(format!("it is answered {status}"))),
                }
            }
        },
    },
    Case {
        id: "M1.heartbeat",
        says: "HEARTBEAT of an executor is answered 202",
        check: |target| {
            Executor::started(target)?
                .subscribed()?
                .says(json!({"type": "HEARTBEAT"}))
        },
    },
    Case {
        id: "M1.message",
        says: "MESSAGE of an executor reaches its framework, and that of the framework the executor",
        check: message,
    },
    Case {
        id: "M1.update",
        says: "UPDATE reaches the framework as the executor said it, and is ACKNOWLEDGED by its uuid",
        check: update,
    },
    Case {
        id: "M2.subscribed",
        says: "SUBSCRIBED tells the executor, its framework and its agent, with their ids",
        check: |target| Executor::started(target)?.subscribed().map(drop),
    },
    Case {
        id: "M2.launch",
        says: "LAUNCH brings the task as its framework described it",
        check: |target| {
            let mut executor = Executor::started(target)?.subscribed()?;
            let task = executor.find("LAUNCH")?["launch"]["task"].take();
            ensure!(
                task["task_id"] == executor.task["task_id"],
                "it is of {}",
                task["task_id"]
            );
            ensure!(task["data"] == DATA, "its data is {}", task["data"]);
            let id = &task["executor"]["executor_id"];
            ensure!(*id == executor.id, "its executor is {id}");
            Ok(())
        },
    },
    Case {
        id: "M2.kill",
        says: "KILL reaches the executor, and what it says of it the framework: TASK_KILLED",
        check: kill,
    },
    Case {
        id: "M2.shutdown",
        says: "SHUTDOWN of an executor by its framework reaches it",
        check: |target| {
            let mut executor = Executor::started(target)?.subscribed()?;
            executor.find("LAUNCH")?;
            executor
                .framework
                .accepted(json!({"type": "SHUTDOWN", "shutdown":
                {"executor_id": executor.id, "agent_id": executor.task["agent_id"]}}))?;
            executor.find("SHUTDOWN").map(drop)
        },
    },
    Case {
        id: "M3",
        says: "an executor that subscribes again is not given its tasks again, and its updates are told once",
        check: again,
    },
];

const EXECUTOR: &str = "/api/v1/executor";
/// Of tasks and executors, in base 64.
const DATA: &str = "aGVsbG8=";
/// Two uuids, in base 64.
const UUID: &str = "AAAAAAAAQACAAAAAAAAAAQ==";
const OTHER_UUID: &str = "AAAAAAAAQACAAAAAAAAAAg==";
/// Between two looks at what changes by itself.
const GLANCE: Duration = Duration::from_millis(20);

/// An executor whose process only sleeps: what it should say, the case says for it. It ends with its
/// framework.
struct Executor<'a> {
    framework: Framework<'a>,
    /// Of its agent.
    address: String,
    path: String,
    id: Value,
    /// Its first task.
    task: Value,
}

/// One that is subscribed.
struct Subscribed<'a> {
    executor: Executor<'a>,
    events: Events,
}

impl<'a> std::ops::Deref for Subscribed<'a> {
    type Target = Executor<'a>;

    fn deref(&self) -> &Executor<'a> {
        &self.executor
    }
}

impl std::ops::DerefMut for Subscribed<'_> {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.executor
    }
}

impl<'a> Executor<'a> {
    /// Launches a task into a new one.
    fn started(target: &'a Target) -> Checked<Self> {
        let (framework, offer) = with_offer(target)?;
        let (address, base) = place(&offer)?;
        let name = unique("conform");
        let mut task = framework.task(&offer, "");
        if let Some(fields) = task.as_object_mut() {
            fields.remove("command");
        }
        let id = json!({"value": name});
        task["data"] = json!(DATA);
        task["executor"] = json!({"executor_id": id, "name": name, "data": DATA,
            "command": {"value": "exec sleep 300"},
            "resources": [scalar("cpus", 0.01), scalar("mem", MEM)],
            "shutdown_grace_period": {"nanoseconds": 100_000_000}});
        let launch = json!([{"type": "LAUNCH", "launch": {"task_infos": [task]}}]);
        framework.accept(&offer, &launch)?;
        Ok(Self {
            framework,
            address,
            path: format!("{base}{EXECUTOR}"),
            id,
            task,
        })
    }

    fn post(&self, call: &Value) -> Checked<Reply> {
        let mut call = call.clone();
        call["executor_id"] = self.id.clone();
        call["framework_id"] = json!({"value": self.framework.id});
        let patience = self.framework.target.patience;
        let body = call.to_string();
        let reply = ask_at(
            &self.address,
            "POST",
            &self.path,
            &JSON,
            body.as_bytes(),
            patience,
        )?;
        if reply.status == 401 {
            return Err(Halt::not_tried("the agent asks executors for a token"));
        }
        Ok(reply)
    }

    /// Opens its stream, as soon as the agent knows it.
    fn subscribe(&self, subscribe: &Value) -> Checked<Events> {
        let patience = self.framework.target.patience;
        let deadline = Instant::now() + patience;
        let call = json!({"type": "SUBSCRIBE", "subscribe": subscribe});
        loop {
            let mut reply = self.post(&call)?;
            match reply.status {
                200 => return Ok(Events::new(reply)),
                400 if Instant::now() < deadline => std::thread::sleep(GLANCE),
                status => {
                    let body = reply.body(patience).unwrap_or_default();
                    let why = String::from_utf8_lossy(&body).into_owned();
                    return Err(Halt::failed(format!(
                        "SUBSCRIBE is answered {status}: {why}"
                    )));
                }
            }
        }
    }

    fn subscribed(self) -> Checked<Subscribed<'a>> {
        self.subscribed_with(&json!({}))
    }

    fn subscribed_with(self, subscribe: &Value) -> Checked<Subscribed<'a>> {
        let events = self.subscribe(subscribe)?;
        let mut executor = Subscribed {
            executor: self,
            events,
        };
        let event = executor.find("SUBSCRIBED")?;
        let told = &event["subscribed"];
        let about = &told["executor_info"];
        ensure!(
            about["executor_id"] == executor.id,
            "executor_info is {about}"
        );
        ensure!(
            about["data"] == DATA,
            "executor_info.data is {}",
            about["data"]
        );
        let framework = &told["framework_info"]["id"];
        let expected = json!({"value": executor.framework.id});
        ensure!(*framework == expected, "framework_info.id is {framework}");
        let agent = &told["agent_info"]["id"];
        ensure!(
            *agent == executor.task["agent_id"],
            "agent_info.id is {agent}"
        );
        Ok(executor)
    }

    /// News of its task.
    fn update(&self, state: &str) -> Value {
        json!({"type": "UPDATE", "update": {"status": self.status(state, UUID)}})
    }

    fn status(&self, state: &str, uuid: &str) -> Value {
        json!({"task_id": self.task["task_id"], "state": state, "uuid": uuid, "data": DATA,
            "message": "said", "source": "SOURCE_EXECUTOR", "timestamp": 1_500_000_000.25,
            "labels": {"labels": [{"key": "k", "value": "v"}]}})
    }
}

impl Subscribed<'_> {
    /// The next event of a kind. Others are passed over.
    fn find(&mut self, kind: &str) -> Checked<Value> {
        let deadline = Instant::now() + self.framework.target.patience;
        loop {
            match self.events.next(deadline)? {
                Next::Event(event) if event["type"] == kind => return Ok(event),
                Next::Event(event) => ensure!(event["type"] != "ERROR", "ERROR: {event}"),
                Next::End => return Err(Halt::failed(format!("the stream ended before {kind}"))),
                Next::Nothing => return Err(Halt::failed(format!("{kind} did not come"))),
            }
        }
    }

    /// A call that has to be accepted.
    fn says(&self, call: Value) -> Checked {
        let status = self.post(&call)?.status;
        ensure!(status == 202, "{} is answered {status}", call["type"]);
        Ok(())
    }

    /// That an update is acknowledged.
    fn acknowledged(&mut self, uuid: &str) -> Checked {
        let event = self.find("ACKNOWLEDGED")?;
        let told = &event["acknowledged"];
        let expected = json!({"task_id": self.task["task_id"], "uuid": uuid});
        ensure!(*told == expected, "ACKNOWLEDGED is {told}");
        Ok(())
    }

    /// What its framework hears next of its task.
    fn heard(&mut self, state: &str) -> Checked<Value> {
        let task_id = self.task["task_id"].clone();
        let status = self.framework.update(&task_id, state)?;
        self.framework.acknowledge(&status)?;
        Ok(status)
    }
}

/// A method, headers, and the status that they are answered with.
type Encoded<'a> = (&'a str, &'a [(&'a str, &'a str)], u16);

fn encoding(target: &Target) -> Checked {
    let (_framework, offer) = with_offer(target)?;
    let (address, base) = place(&offer)?;
    let path = format!("{base}{EXECUTOR}");
    let accept = ("Accept", "text/html");
    let calls: [Encoded<'_>; 6] = [
        ("GET", &JSON, 405),
        ("POST", &[], 400),
        ("POST", &[("Content-Type", "text/plain")], 415),
        ("POST", &[JSON[0], accept], 406),
        ("POST", &JSON, 400),
        ("POST", &[("Content-Type", "application/x-protobuf")], 400),
    ];
    for (method, headers, expected) in calls {
        let reply = ask_at(&address, method, &path, headers, b"{", target.patience)?;
        if reply.status == 404 {
            return Err(Halt::not_offered(format!("the agent has no {path}")));
        }
        if reply.status == 401 {
            return Err(Halt::not_tried("the agent asks executors for a token"));
        }
        let status = reply.status;
        ensure!(
            status == expected,
            "{method} with {headers:?} is answered {status}"
        );
    }
    Ok(())
}

fn message(target: &Target) -> Checked {
    let mut executor = Executor::started(target)?.subscribed()?;
    executor.says(json!({"type": "MESSAGE", "message": {"data": DATA}}))?;
    let event = executor
        .framework
        .find("MESSAGE", |event| event["type"] == "MESSAGE")?;
    let told = &event["message"];
    ensure!(told["data"] == DATA, "its data is {}", told["data"]);
    ensure!(
        told["executor_id"] == executor.id,
        "it is of {}",
        told["executor_id"]
    );
    executor
        .framework
        .accepted(json!({"type": "MESSAGE", "message":
        {"executor_id": executor.id, "agent_id": executor.task["agent_id"], "data": DATA}}))?;
    let event = executor.find("MESSAGE")?;
    let data = &event["message"]["data"];
    ensure!(*data == DATA, "the executor is told {data}");
    Ok(())
}

fn update(target: &Target) -> Checked {
    let mut executor = Executor::started(target)?.subscribed()?;
    executor.find("LAUNCH")?;
    executor.says(executor.update("TASK_RUNNING"))?;
    executor.acknowledged(UUID)?;
    let told = executor.heard("TASK_RUNNING")?;
    let said = executor.status("TASK_RUNNING", UUID);
    for field in ["data", "message", "source", "labels", "timestamp"] {
        ensure!(told[field] == said[field], "{field} is {}", told[field]);
    }
    ensure!(
        told["executor_id"] == executor.id,
        "it is of {}",
        told["executor_id"]
    );
    Ok(())
}

fn kill(target: &Target) -> Checked {
    let mut executor = Executor::started(target)?.subscribed()?;
    executor.find("LAUNCH")?;
    let task_id = executor.task["task_id"].clone();
    executor
        .framework
        .accepted(json!({"type": "KILL", "kill": {"task_id": task_id,
        "kill_policy": {"grace_period": {"nanoseconds": 7_000_000_000_u64}}}}))?;
    let event = executor.find("KILL")?;
    let told = &event["kill"];
    ensure!(told["task_id"] == task_id, "KILL is of {}", told["task_id"]);
    let grace = &told["kill_policy"]["grace_period"]["nanoseconds"];
    ensure!(*grace == 7_000_000_000_u64, "its grace is {grace}");
    executor.says(executor.update("TASK_KILLED"))?;
    executor.heard("TASK_KILLED").map(drop)
}

fn again(target: &Target) -> Checked {
    let mut executor = Executor::started(target)?.subscribed()?;
    let task = executor.find("LAUNCH")?["launch"]["task"].take();
    executor.says(executor.update("TASK_RUNNING"))?;
    executor.heard("TASK_RUNNING")?;
    // Its stream is left as it is. It has seen no acknowledgement of the first, and has not sent the second.
    let running = executor.status("TASK_RUNNING", UUID);
    let finished = executor.status("TASK_FINISHED", OTHER_UUID);
    let Subscribed { executor, .. } = executor;
    let mut executor = executor.subscribed_with(&json!({"unacknowledged_tasks": [task],
        "unacknowledged_updates": [{"status": running}, {"status": finished}]}))?;
    executor.acknowledged(UUID)?;
    executor.acknowledged(OTHER_UUID)?;
    // Told again, RUNNING would come first, and be of no state that is waited for.
    let task_id = executor.task["task_id"].clone();
    let event = executor.framework.find("UPDATE", |event| {
        event["type"] == "UPDATE" && event["update"]["status"]["task_id"] == task_id
    })?;
    let status = &event["update"]["status"];
    ensure!(
        status["state"] == "TASK_FINISHED",
        "{} is told again",
        status["state"]
    );
    executor.framework.acknowledge(status)?;
    let deadline = Instant::now() + target.quiet;
    while let Next::Event(event) = executor.events.next(deadline)? {
        ensure!(event["type"] != "LAUNCH", "the task is launched again");
    }
    Ok(())
}

/// Where the agent of an offer is: its address, and the path before that of its APIs.
fn place(offer: &Value) -> Checked<(String, String)> {
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
    Ok((address, base.to_owned()))
}

const JSON: [(&str, &str); 2] = [
    ("Content-Type", "application/json"),
    ("Accept", "application/json"),
];

/// Asks an agent, at the path that its offers name.
fn ask(target: &Target, path: &str, call: &Value, expected: u16) -> Checked<Value> {
    let (_framework, offer) = with_offer(target)?;
    let (address, base) = place(&offer)?;
    let path = format!("{base}{path}");
    let body = call.to_string();
    let mut reply = ask_at(
        &address,
        "POST",
        &path,
        &JSON,
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
