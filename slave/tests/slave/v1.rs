//! Executors that speak v1 over HTTP. Their processes only sleep: what they would say, the test says.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read};
use std::time::Duration;

use bytes::Bytes;
use meros_proto::executor::{EXECUTOR_MESSAGE_BYTES_MAX, ExecutorDescription};
use meros_proto::ids::{ExecutorId, FrameworkId};
use meros_proto::message::slave::MasterToSlave;
use meros_proto::status::TaskState;
use meros_proto::task::Command;
use meros_slave::Running;
use serde_json::{Value, json};

use crate::world::{PATIENCE, World, eventually, get, order};

const PATH: &str = "/api/v1/executor";
const JSON: (&str, &str) = ("Content-Type", "application/json");
/// Two uuids, in base 64.
const UUID: &str = "AAAAAAAAQACAAAAAAAAAAQ==";
const OTHER_UUID: &str = "AAAAAAAAQACAAAAAAAAAAg==";

/// A task in an executor that writes its environment to its output.
fn in_executor(task: &str, executor: &str) -> MasterToSlave {
    let MasterToSlave::RunTask(mut run) = order(task, Command::shell("")) else {
        panic!("it is one");
    };
    run.task.command = None;
    let command = Command::shell("printenv; echo said; exec sleep 1000");
    let resources = "cpus:0.1;mem:32".parse().expect("well formed");
    let id = ExecutorId::new(executor).expect("an id");
    let mut executor = ExecutorDescription::new(id, command, resources);
    // It does not do what it is asked to.
    executor.shutdown_grace = Some(Duration::from_millis(100));
    run.task.executor = Some(executor);
    MasterToSlave::RunInExecutor { run, starts: true }
}

/// What an executor finds in its environment.
fn environment(slave: &Running, executor: &str) -> BTreeMap<String, String> {
    let path = format!("/api/v1/logs/F1/executor:{executor}/stdout");
    let mut text = String::new();
    eventually("it has started", || {
        text = get(slave, &path).text();
        text.ends_with("said\n")
    });
    let pairs = text.lines().filter_map(|line| line.split_once('='));
    let pairs = pairs.map(|(name, value)| (name.to_owned(), value.to_owned()));
    pairs.collect()
}

type Response = ureq::http::Response<ureq::Body>;

fn post(slave: &Running, headers: &[(&str, &str)], body: &[u8]) -> Response {
    post_at(slave, PATH, headers, body)
}

fn post_at(slave: &Running, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Response {
    let agent: ureq::Agent = ureq::Agent::config_builder()
        .timeout_global(Some(PATIENCE))
        .http_status_as_error(false)
        .build()
        .into();
    let mut request = agent.post(format!("http://{}{path}", slave.http_addr()));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.send(body).expect("it answers")
}

/// An executor as its environment says.
struct Executor<'a> {
    slave: &'a Running,
    env: BTreeMap<String, String>,
}

impl<'a> Executor<'a> {
    fn started(slave: &'a Running, executor: &str) -> Self {
        let env = environment(slave, executor);
        assert_eq!(env["MESOS_AGENT_ENDPOINT"], slave.http_addr().to_string());
        Self { slave, env }
    }

    fn call(&self, mut call: Value) -> Value {
        call["framework_id"] = json!({"value": self.env["MESOS_FRAMEWORK_ID"]});
        call["executor_id"] = json!({"value": self.env["MESOS_EXECUTOR_ID"]});
        call
    }

    fn token(&self) -> String {
        format!("Bearer {}", self.env["MESOS_EXECUTOR_AUTHENTICATION_TOKEN"])
    }

    fn post(&self, call: Value) -> Response {
        let token = self.token();
        let headers = [JSON, ("Authorization", token.as_str())];
        post(self.slave, &headers, self.call(call).to_string().as_bytes())
    }

    fn says(&self, call: Value) {
        let kind = call["type"].clone();
        assert_eq!(self.post(call).status(), 202, "{kind}");
    }

    fn status(task: &str, state: &str, uuid: &str) -> Value {
        json!({"task_id": {"value": task}, "state": state, "uuid": uuid, "timestamp": 1.5})
    }

    fn updates(&self, task: &str, state: &str, uuid: &str) {
        let status = Self::status(task, state, uuid);
        self.says(json!({"type": "UPDATE", "update": {"status": status}}));
    }

    fn subscribed(&self, subscribe: Value) -> Events {
        let response = self.post(json!({"type": "SUBSCRIBE", "subscribe": subscribe}));
        assert_eq!(response.status(), 200);
        let kind = response.headers().get("content-type");
        assert_eq!(kind.expect("it says"), "application/json");
        let mut events = Events(BufReader::new(response.into_body().into_reader()));
        let first = events.next();
        assert_eq!(first["type"], "SUBSCRIBED");
        let id = &first["subscribed"]["executor_info"]["executor_id"];
        assert_eq!(*id, json!({"value": self.env["MESOS_EXECUTOR_ID"]}));
        events
    }
}

/// The stream of a subscription.
struct Events(BufReader<ureq::BodyReader<'static>>);

impl Events {
    fn next(&mut self) -> Value {
        let mut length = String::new();
        self.0.read_line(&mut length).expect("it goes on");
        let length = length.trim_end().parse().expect("a length");
        let mut record = vec![0; length];
        self.0.read_exact(&mut record).expect("it goes on");
        serde_json::from_slice(&record).expect("JSON")
    }

    fn is_over(&mut self) -> bool {
        let mut rest = Vec::new();
        let read = self.0.read_to_end(&mut rest);
        read.is_err() || rest.is_empty()
    }
}

pub(crate) fn tokens(world: &mut World) {
    // semantics: A2, M1 to M3, M6
    let mut config = world.config();
    config.authenticate_executors = true;
    let slave = world.registered_as(config);
    world.runtime.block_on(async {
        world.master.say(in_executor("t", "e")).await;
        world.master.say(in_executor("u", "other")).await;
    });
    let executor = Executor::started(&slave, "e");
    let other = Executor::started(&slave, "other");
    let update = executor.call(json!({"type": "UPDATE",
        "update": {"status": Executor::status("t", "TASK_RUNNING", UUID)}}));
    let update = update.to_string();
    let refused = |token: &str, body: &str, status: u16, code: &str| {
        let headers = [JSON, ("Authorization", token)];
        let mut response = post(&slave, &headers, body.as_bytes());
        assert_eq!(response.status(), status, "{token} {body}");
        let text = response.body_mut().read_to_string().expect("text");
        assert!(text.contains(&format!("\"code\":\"{code}\"")), "{text}");
        let challenge = response.headers().get("www-authenticate");
        assert_eq!(challenge.is_some(), status == 401);
    };
    let (own, of_other) = (executor.token(), other.token());
    let cut = &own[..own.len() - 1];
    for token in ["", "Bearer", "Bearer x", "Basic eDp5", cut] {
        refused(token, &update, 401, "unauthorized");
    }
    refused(&own, &update, 403, "not_subscribed");
    let subscribe = executor.call(json!({"type": "SUBSCRIBE", "subscribe": {}}));
    refused(&of_other, &subscribe.to_string(), 401, "unauthorized");
    let mut stranger = subscribe.clone();
    stranger["executor_id"]["value"] = json!("stranger");
    refused(&own, &stranger.to_string(), 400, "invalid");
    let mut stranger = subscribe.clone();
    stranger["framework_id"]["value"] = json!("stranger");
    refused(&own, &stranger.to_string(), 400, "invalid");
    for end in 0..update.len() {
        if end % 16 == 0 {
            refused(&own, &update[..end], 400, "invalid");
        }
    }

    // What a token proves, nobody gets around.
    let kill = json!({"type": "KILL_CONTAINER",
        "kill_container": {"container_id": {"value": "1-1"}}});
    let kill = kill.to_string();
    let killed = post_at(&slave, "/api/v1", &[JSON], kill.as_bytes());
    assert_eq!(killed.status(), 403);

    let mut events = executor.subscribed(json!({}));
    let launch = events.next();
    assert_eq!(launch["launch"]["task"]["task_id"]["value"], "t");
    refused(&of_other, &update, 401, "unauthorized");
    executor.updates("t", "TASK_RUNNING", UUID);
    let update = world
        .runtime
        .block_on(async { world.master.acknowledged().await });
    assert_eq!(update.status.state, TaskState::Running);
    let acknowledged = events.next();
    assert_eq!(acknowledged["acknowledged"]["uuid"], UUID);
    // On another connection, and as if nothing had been acknowledged.
    let task = launch["launch"]["task"].clone();
    let mut events_again = executor.subscribed(json!({"unacknowledged_tasks": [task],
        "unacknowledged_updates": [
            {"status": Executor::status("t", "TASK_RUNNING", UUID)},
            {"status": Executor::status("t", "TASK_FINISHED", OTHER_UUID)}]}));
    assert!(events.is_over(), "there is one stream");
    for uuid in [UUID, OTHER_UUID] {
        let event = events_again.next();
        assert_eq!(event["acknowledged"]["uuid"], uuid, "{event}");
    }
    let update = world
        .runtime
        .block_on(async { world.master.acknowledged().await });
    assert_eq!(update.status.state, TaskState::Finished, "told once");
    // semantics: R12
    executor.updates("t", "TASK_FAILED", "AAAAAAAAQACAAAAAAAAAAw==");
    let event = events_again.next();
    assert_eq!(event["acknowledged"]["uuid"], "AAAAAAAAQACAAAAAAAAAAw==");
    world.stop(&slave);
}

pub(crate) fn nonsense_and_slow_readers(world: &mut World) {
    let slave = world.registered();
    world.runtime.block_on(async {
        world.master.say(in_executor("t", "e")).await;
    });
    let executor = Executor::started(&slave, "e");
    // Without a token, since none is asked for; but a wrong one is wrong.
    let subscribe = executor.call(json!({"type": "SUBSCRIBE", "subscribe": {}}));
    let wrong = [JSON, ("Authorization", "Bearer x")];
    let subscribe = subscribe.to_string();
    assert_eq!(post(&slave, &wrong, subscribe.as_bytes()).status(), 401);
    let mut seed = 7_u64;
    for kind in ["application/json", "application/x-protobuf"] {
        for length in 0..200 {
            let bytes: Vec<u8> = (0..length)
                .map(|_| {
                    seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                    seed.to_be_bytes()[3]
                })
                .collect();
            let status = post(&slave, &[("Content-Type", kind)], &bytes).status();
            assert_eq!(status, 400, "{kind} {bytes:?}");
        }
    }
    let deep = "[".repeat(100_000);
    assert_eq!(post(&slave, &[JSON], deep.as_bytes()).status(), 400);

    let events = post(&slave, &[JSON], subscribe.as_bytes());
    assert_eq!(events.status(), 200);
    // It reads nothing, and its framework goes on.
    let dropped = || {
        let text = get(&slave, "/metrics").text();
        let line = "meros_slave_executor_messages_dropped_total ";
        let count = text.lines().find_map(|it| it.strip_prefix(line));
        count.expect("it is there").parse::<f64>().expect("a count") > 0.0
    };
    assert!(!dropped());
    let data = Bytes::from(vec![0; EXECUTOR_MESSAGE_BYTES_MAX]);
    let executor_id = ExecutorId::new("e").expect("an id");
    eventually("messages are dropped", || {
        let message = MasterToSlave::ExecutorMessage {
            framework_id: FrameworkId(1),
            executor_id: executor_id.clone(),
            data: data.clone(),
        };
        world
            .runtime
            .block_on(async { world.master.say(message).await });
        dropped()
    });
    drop(events);
    // The place of a reader that is gone is free, and nothing was lost that counts.
    let mut events = executor.subscribed(json!({}));
    let mut launch = events.next();
    while launch["type"] != "LAUNCH" {
        launch = events.next();
    }
    world.stop(&slave);
}
