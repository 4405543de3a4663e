//! v1 frameworks over HTTP, as their clients see it: bytes of a socket, JSON and status codes.

use std::net::SocketAddr;

use meros_master::Running;
use meros_proto::ids::{SlaveId, TaskId, UpdateId};
use meros_proto::message::master::{SlaveToMaster, StatusUpdate};
use meros_proto::message::slave::MasterToSlave;
use meros_proto::status::{Source, TaskState, TaskStatus};
use meros_proto::time::Timestamp;
use meros_v1::encoding::{Media, decode};
use meros_v1::pb::scheduler::Event;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::test;
use tokio::time::timeout;

use crate::site::{PATIENCE, Site, SlavePeer, eventually, eventually_metric, get, get_text};

const JSON: &str = "application/json";

/// An answer whose body is read piece by piece.
struct Answer {
    status: u16,
    headers: Vec<(String, String)>,
    stream: BufReader<TcpStream>,
}

async fn post(to: SocketAddr, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
    send(to, "POST", path, headers, body).await
}

/// Asks with these headers, on a connection of its own.
async fn send(
    to: SocketAddr,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> Answer {
    let mut head = format!("{method} {path} HTTP/1.1\r\nhost: m\r\nconnection: close\r\n");
    for (name, value) in headers {
        head += &format!("{name}: {value}\r\n");
    }
    head += &format!("content-length: {}\r\n\r\n", body.len());
    let mut stream = TcpStream::connect(to).await.expect("it listens");
    stream.write_all(head.as_bytes()).await.expect("it reads");
    stream.write_all(body).await.expect("it reads");
    let mut answer = Answer {
        status: 0,
        headers: Vec::new(),
        stream: BufReader::new(stream),
    };
    let first = answer.line().await;
    let status = first.split(' ').nth(1).expect("a status line");
    answer.status = status.parse().expect("a number");
    loop {
        let line = answer.line().await;
        let Some((name, value)) = line.split_once(": ") else {
            break;
        };
        answer.headers.push((name.to_lowercase(), value.to_owned()));
    }
    answer
}

impl Answer {
    async fn line(&mut self) -> String {
        let mut line = String::new();
        let read = timeout(PATIENCE, self.stream.read_line(&mut line)).await;
        read.expect("a line comes").expect("a line");
        line.trim_end().to_owned()
    }

    fn header(&self, name: &str) -> Option<&str> {
        let mut all = self.headers.iter();
        all.find(|(one, _)| one == name)
            .map(|(_, value)| value.as_str())
    }

    async fn text(mut self) -> String {
        let mut text = String::new();
        let read = timeout(PATIENCE, self.stream.read_to_string(&mut text)).await;
        read.expect("it ends").expect("text");
        text
    }

    /// The next record, which is all of one chunk (semantics R1); none at the end.
    async fn record(&mut self) -> Option<Vec<u8>> {
        let length = usize::from_str_radix(&self.line().await, 16).expect("a chunk");
        let mut chunk = vec![0; length + 2];
        let read = timeout(PATIENCE, self.stream.read_exact(&mut chunk)).await;
        read.expect("a chunk comes").expect("a whole chunk");
        chunk.truncate(length);
        if chunk.is_empty() {
            return None;
        }
        let end = chunk
            .iter()
            .position(|byte| *byte == b'\n')
            .expect("a length");
        let record = chunk.split_off(end + 1);
        let told: usize = std::str::from_utf8(&chunk[..end]).unwrap().parse().unwrap();
        assert_eq!(told, record.len(), "one record is one chunk");
        Some(record)
    }

    async fn event(&mut self) -> Option<Value> {
        let record = self.record().await?;
        assert!(record.is_ascii() && !record.contains(&b'\n'));
        Some(serde_json::from_slice(&record).expect("JSON"))
    }

    /// The next event of this type; others are passed over.
    async fn find(&mut self, kind: &str) -> Value {
        loop {
            let event = self.event().await;
            let event = event.unwrap_or_else(|| panic!("the stream ends before {kind}"));
            if event["type"] == kind {
                return event;
            }
        }
    }
}

/// A framework with its stream.
struct Framework {
    master: SocketAddr,
    id: String,
    stream_id: String,
    events: Answer,
}

async fn subscribe(master: &Running, info: Value) -> Answer {
    let call = json!({"type": "SUBSCRIBE", "subscribe": {"framework_info": info}});
    let headers = [("content-type", JSON), ("accept", JSON)];
    let path = "/master/api/v1/scheduler";
    post(
        master.http_addr,
        path,
        &headers,
        call.to_string().as_bytes(),
    )
    .await
}

impl Framework {
    async fn subscribed(master: &Running, info: Value) -> Self {
        let mut events = subscribe(master, info).await;
        assert_eq!(events.status, 200);
        assert_eq!(events.header("content-type"), Some(JSON), "semantics: R2");
        assert_eq!(events.header("transfer-encoding"), Some("chunked"));
        let stream_id = events
            .header("mesos-stream-id")
            .expect("semantics: A4")
            .to_owned();
        let first = events.event().await.expect("SUBSCRIBED");
        assert_eq!(first["type"], "SUBSCRIBED", "{first}");
        assert_eq!(first["subscribed"]["heartbeat_interval_seconds"], 15.0);
        let port = first["subscribed"]["master_info"]["port"].as_u64();
        assert_eq!(port, Some(master.http_addr.port().into()));
        let second = events.event().await.expect("HEARTBEAT");
        assert_eq!(second, json!({"type": "HEARTBEAT"}), "semantics: R4");
        let id = first["subscribed"]["framework_id"]["value"].as_str();
        Self {
            master: master.http_addr,
            id: id.expect("an id").to_owned(),
            stream_id,
            events,
        }
    }

    /// Sends a call, and tells the answer's status and text.
    async fn call(&self, mut call: Value) -> (u16, String) {
        call["framework_id"] = json!({"value": self.id});
        let headers = [
            ("content-type", JSON),
            ("mesos-stream-id", &*self.stream_id),
        ];
        let body = call.to_string();
        let answer = post(self.master, "/api/v1/scheduler", &headers, body.as_bytes()).await;
        (answer.status, answer.text().await)
    }

    async fn accepted(&self, call: Value) {
        let (status, text) = self.call(call).await;
        assert_eq!((status, text.as_str()), (202, ""), "semantics: A5, R2");
    }

    async fn offer(&mut self) -> Value {
        let offers = self.events.find("OFFERS").await;
        offers["offers"]["offers"][0].clone()
    }

    async fn acknowledge(&self, status: &Value) {
        self.accepted(json!({"type": "ACKNOWLEDGE", "acknowledge": {
            "agent_id": status["agent_id"], "task_id": status["task_id"], "uuid": status["uuid"]}}))
            .await;
    }
}

/// What an operator's call is answered.
async fn operator(master: &Running, call: Value) -> (u16, Value) {
    let headers = [("content-type", JSON)];
    let body = call.to_string();
    let answer = post(master.http_addr, "/api/v1", &headers, body.as_bytes()).await;
    let status = answer.status;
    let text = answer.text().await;
    (status, serde_json::from_str(&text).unwrap_or_default())
}

fn task(name: &str, offer: &Value) -> Value {
    json!({"name": name, "task_id": {"value": name}, "agent_id": offer["agent_id"],
        "command": {"value": "true"}, "resources": [
            {"name": "cpus", "type": "SCALAR", "scalar": {"value": 1}, "role": "*"},
            {"name": "mem", "type": "SCALAR", "scalar": {"value": 64}, "allocation_info": {"role": "*"}}]})
}

async fn update(slave: &mut SlavePeer, slave_id: SlaveId, number: u64, state: TaskState) {
    let task_id = TaskId::new("good").unwrap();
    let mut status = TaskStatus::new(task_id, state, Source::Slave, Timestamp(1));
    status.slave_id = Some(slave_id);
    status.update_id = Some(UpdateId::by_slave(slave_id, 1, number));
    let framework_id = "F0".parse().unwrap();
    slave
        .send(SlaveToMaster::Update(StatusUpdate {
            framework_id,
            status,
            latest_state: state,
        }))
        .await;
}

async fn acknowledged(slave: &mut SlavePeer, slave_id: SlaveId, number: u64) {
    let wanted = UpdateId::by_slave(slave_id, 1, number);
    slave
        .find("the acknowledgement", |message| match message {
            MasterToSlave::Acknowledge { update_id, .. } => (update_id == wanted).then_some(()),
            _ => None,
        })
        .await;
}

#[test(flavor = "multi_thread", worker_threads = 2)]
async fn a_v1_framework_lives_from_its_subscription_to_its_teardown() {
    let site = Site::new();
    let master = site.master().await;
    let (mut slave, slave_id) = site.registered("s1", master.quic_addr).await;
    let info = json!({"user": "", "name": "curl", "failover_timeout": 600.0});
    let mut framework = Framework::subscribed(&master, info.clone()).await;
    let offer = framework.offer().await;
    assert_eq!(offer["framework_id"]["value"], framework.id.as_str());
    assert_eq!(offer["hostname"], "s1");
    assert!(offer.get("allocation_info").is_none(), "semantics: R8");

    // One task of two can be launched; the other fails alone, and says why (semantics D1).
    let mut bad = task("bad", &offer);
    bad["container"] = json!({"type": "DOCKER", "docker": {"image": "a", "network": "BRIDGE"}});
    framework
        .accepted(
            json!({"type": "ACCEPT", "accept": {"offer_ids": [offer["id"]], "operations": [
            {"type": "LAUNCH", "launch": {"task_infos": [bad, task("good", &offer)]}}]}}),
        )
        .await;
    let refused = framework.events.find("UPDATE").await;
    let refused = &refused["update"]["status"];
    assert_eq!(refused["state"], "TASK_ERROR");
    assert_eq!(refused["task_id"]["value"], "bad");
    assert!(
        refused["message"]
            .as_str()
            .is_some_and(|text| text.contains("container.docker"))
    );
    slave
        .find("RunTask", |message| match message {
            MasterToSlave::RunTask(run) => (run.task.task_id.as_str() == "good").then_some(()),
            _ => None,
        })
        .await;
    update(&mut slave, slave_id, 1, TaskState::Running).await;
    let running = framework.events.find("UPDATE").await["update"]["status"].clone();
    assert_eq!(running["state"], "TASK_RUNNING");
    assert_eq!(running["source"], "SOURCE_AGENT");
    framework.acknowledge(&running).await;
    acknowledged(&mut slave, slave_id, 1).await;

    // Tools see it under the names they know (semantics A10, R6, R14).
    eventually(&master, "/master/tasks", |text| {
        text.contains("TASK_RUNNING")
    })
    .await;
    let state = get(&master, "/state.json").await;
    assert_eq!(
        (&state["version"], &state["activated_slaves"]),
        (&"1.11.0".into(), &1.into())
    );
    let shown = &state["frameworks"][0];
    assert_eq!(shown["id"], framework.id.as_str());
    assert!(shown.get("pid").is_none(), "semantics: R14");
    assert_eq!(shown["tasks"][0]["resources"]["cpus"], 1.0);
    assert_eq!(state["slaves"][0]["resources"]["ports"], "[31000-31009]");
    let summary = get(&master, "/master/state-summary").await;
    assert_eq!(summary["slaves"][0]["TASK_RUNNING"], 1);
    let known = get(
        &master,
        &format!("/tasks?framework_id={}&task_id=good", framework.id),
    )
    .await;
    assert_eq!(known["tasks"].as_array().map(Vec::len), Some(1));
    assert_eq!(
        get(&master, "/tasks?task_id=other").await["tasks"],
        json!([])
    );
    assert_eq!(get(&master, "/roles").await["roles"][0]["name"], "*");
    assert_eq!(
        get(&master, "/frameworks").await["frameworks"][0]["connected"],
        true
    );
    assert_eq!(
        get(&master, "/master/slaves").await["slaves"][0]["hostname"],
        "s1"
    );
    assert_eq!(
        get(&master, "/version").await["version"],
        "1.11.0",
        "semantics: R3"
    );
    assert_eq!(
        get(&master, "/metrics/snapshot").await["master/tasks_running"],
        1
    );
    assert_eq!(get(&master, "/master/health").await["status"], "leading");

    // The same by the operator API (semantics O1).
    let (status, all) = operator(&master, json!({"type": "GET_STATE"})).await;
    assert_eq!((status, &all["type"]), (200, &"GET_STATE".into()), "{all}");
    let all = &all["get_state"];
    assert_eq!(all["get_tasks"]["tasks"][0]["state"], "TASK_RUNNING");
    assert_eq!(all["get_agents"]["agents"][0]["active"], true);
    let known = &all["get_frameworks"]["frameworks"][0]["framework_info"];
    assert_eq!(known["id"]["value"], framework.id.as_str());
    for kind in [
        "GET_AGENTS",
        "GET_ROLES",
        "GET_QUOTA",
        "GET_MASTER",
        "GET_MAINTENANCE_SCHEDULE",
    ] {
        let (status, answer) = operator(&master, json!({"type": kind})).await;
        assert_eq!((status, &answer["type"]), (200, &kind.into()), "{answer}");
    }
    let weights = json!({"type": "UPDATE_WEIGHTS", "update_weights": {"weight_infos": [
        {"role": "web", "weight": 2.5}]}});
    assert_eq!(operator(&master, weights).await.0, 200);
    eventually(&master, "/master/roles.json", |text| text.contains("2.5")).await;
    let files = |path: &str| json!({"type": "LIST_FILES", "list_files": {"path": path}});
    assert_eq!(operator(&master, files("/")).await.0, 200);
    assert_eq!(operator(&master, files("/master/log")).await.0, 404);
    let read = json!({"type": "READ_FILE", "read_file": {"path": "/master/log", "offset": 0}});
    assert_eq!(operator(&master, read).await.0, 404);
    let other = json!({"type": "RESERVE_RESOURCES", "reserve_resources":
        {"agent_id": {"value": "S0"}, "source": [{"name": "cpus", "type": "SCALAR"}]}});
    assert_eq!(operator(&master, other).await.0, 501);
    let db = json!({"name": "disk", "type": "SCALAR", "scalar": {"value": 2}, "role": "web",
        "disk": {"persistence": {"id": "db"}, "volume": {"container_path": "x", "mode": "RW"}}});
    let shrink = |by: f64| {
        json!({"type": "SHRINK_VOLUME", "shrink_volume":
            {"agent_id": {"value": "S0"}, "volume": db, "subtract": {"value": by}}})
    };
    for (call, status) in [
        (json!({"type": "GROW_VOLUME"}), 400),
        (
            json!({"type": "GROW_VOLUME", "grow_volume": {"volume": db, "addition": db}}),
            400,
        ),
        (shrink(1.5), 400),
        (shrink(1.0), 404),
    ] {
        let (got, answer) = operator(&master, call).await;
        assert_eq!(got, status, "{answer}");
    }
    assert_eq!(operator(&master, json!({"type": "TEARDOWN"})).await.0, 400);

    framework
        .accepted(json!({"type": "RECONCILE", "reconcile": {"tasks": []}}))
        .await;
    let answer = framework.events.find("UPDATE").await;
    let answer = &answer["update"]["status"];
    assert_eq!(answer["reason"], "REASON_RECONCILIATION");
    assert!(answer.get("uuid").is_none(), "semantics: H");

    // Operators who watch are told everything, and then what changes (semantics O3, R2).
    let headers = [
        ("content-type", JSON),
        ("accept", "application/recordio"),
        ("message-accept", JSON),
    ];
    let call = json!({"type": "SUBSCRIBE"}).to_string();
    let mut watch = post(master.http_addr, "/api/v1", &headers, call.as_bytes()).await;
    assert_eq!(watch.status, 200);
    assert_eq!(watch.header("content-type"), Some("application/recordio"));
    assert_eq!(watch.header("message-content-type"), Some(JSON));
    let first = watch.event().await.expect("SUBSCRIBED");
    assert_eq!(first["type"], "SUBSCRIBED", "{first}");
    let told = &first["subscribed"]["get_state"]["get_tasks"]["tasks"][0];
    assert_eq!(told["state"], "TASK_RUNNING");
    let second = watch.event().await;
    assert_eq!(second, Some(json!({"type": "HEARTBEAT"})), "semantics: R4");

    // A second subscription with its id takes over (semantics A8, N2).
    let mut again = info.clone();
    again["id"] = json!({"value": framework.id});
    let mut second = Framework::subscribed(&master, again.clone()).await;
    assert_eq!(second.id, framework.id);
    assert_ne!(second.stream_id, framework.stream_id);
    let over = framework.events.find("ERROR").await;
    assert_eq!(over["error"]["message"], "Framework failed over");
    assert_eq!(framework.events.event().await, None, "the stream ends");
    let (status, text) = framework.call(json!({"type": "SUPPRESS"})).await;
    assert_eq!(status, 400, "semantics: A5: {text}");

    second
        .accepted(json!({"type": "KILL", "kill": {"task_id": {"value": "good"}}}))
        .await;
    slave
        .find("KillTask", |message| {
            matches!(message, MasterToSlave::KillTask { .. }).then_some(())
        })
        .await;
    update(&mut slave, slave_id, 2, TaskState::Killed).await;
    let killed = second.events.find("UPDATE").await["update"]["status"].clone();
    assert_eq!(killed["state"], "TASK_KILLED");
    second.acknowledge(&killed).await;
    acknowledged(&mut slave, slave_id, 2).await;
    while watch.find("TASK_UPDATED").await["task_updated"]["state"] != "TASK_KILLED" {}

    let gone = json!({"type": "ACCEPT", "accept": {"offer_ids": [{"value": "none"}], "operations": [
        {"type": "LAUNCH", "launch": {"task_infos": [task("late", &offer)]}}]}});
    second.accepted(gone).await;
    let dropped = second.events.find("UPDATE").await["update"]["status"].clone();
    assert_eq!(dropped["state"], "TASK_LOST", "semantics: E6, F5");
    assert_eq!(dropped["reason"], "REASON_INVALID_OFFERS");
    assert!(dropped.get("uuid").is_none(), "semantics: I2, Q2");
    // Two of the slave's, and one that the edge acknowledged for the framework.
    eventually_metric(&master, "meros_master_acknowledgements_total 3").await;

    second.accepted(json!({"type": "TEARDOWN"})).await;
    while let Some(event) = second.events.event().await {
        assert_ne!(event["type"], "ERROR", "semantics: R15");
    }
    let removed = watch.find("FRAMEWORK_REMOVED").await;
    let removed = &removed["framework_removed"]["framework_info"];
    assert_eq!(removed["id"]["value"], framework.id.as_str());
    let mut third = subscribe(&master, again).await;
    let error = third.event().await.expect("an event");
    assert_eq!(
        error["error"]["message"], "Framework has been removed",
        "semantics: N4"
    );
    assert_eq!(third.event().await, None);
    let (status, text) = second.call(json!({"type": "SUPPRESS"})).await;
    assert_eq!(
        (status, text.contains("cannot be found")),
        (400, true),
        "{text}"
    );
    eventually_metric(&master, "meros_master_connections{peer=\"framework\"} 0").await;
    master.shutdown().await;
}

#[test(flavor = "multi_thread", worker_threads = 2)]
async fn v1_answers_have_the_codes_that_clients_look_at() {
    let site = Site::new();
    let master = site.master().await;
    // It leads.
    get_text(&master, "/api/v1/master").await;
    let info = json!({"user": "", "name": "a", "failover_timeout": 600});
    let framework = Framework::subscribed(&master, info).await;
    let id = framework.id.as_str();
    let other = format!("{}0009", &id[..id.len() - 4]);
    let stream = framework.stream_id.as_str();
    let call = |kind: &str| json!({"type": kind, "framework_id": {"value": id}}).to_string();
    let subscribe = r#"{"type":"SUBSCRIBE","subscribe":{"framework_info":{"user":"","name":"a"}}}"#;
    let json = ("content-type", JSON);
    let mine = ("mesos-stream-id", stream);
    for (status, headers, body) in [
        (400, vec![], call("REVIVE")),
        (415, vec![("content-type", "text/plain")], call("REVIVE")),
        (406, vec![json, ("accept", "text/html")], call("REVIVE")),
        (400, vec![json, mine], "{".to_owned()),
        (400, vec![json, mine], call("NEW")),
        (400, vec![json, mine], call("KILL")),
        (400, vec![json, mine], subscribe.to_owned()),
        (400, vec![json], call("REVIVE")),
        (400, vec![json, ("mesos-stream-id", "x")], call("REVIVE")),
        (400, vec![json, mine], call("REVIVE").replace(id, &other)),
        // Without what they are about.
        (400, vec![json, mine], call("MESSAGE")),
        (400, vec![json, mine], call("UPDATE_FRAMEWORK")),
        (400, vec![json, mine], call("RECONCILE_OPERATIONS")),
        (202, vec![json, mine], call("REVIVE")),
        (202, vec![json, mine], call("REQUEST")),
        (
            202,
            vec![("content-type", "application/json; charset=utf-8"), mine],
            call("SUPPRESS"),
        ),
    ] {
        let answer = post(
            master.http_addr,
            "/api/v1/scheduler/",
            &headers,
            body.as_bytes(),
        )
        .await;
        assert_eq!(
            answer.status, status,
            "semantics: A2, A5: {headers:?} {body}"
        );
    }
    let url = format!("http://{}/api/v1/scheduler", master.http_addr);
    let got = tokio::task::spawn_blocking(move || ureq::get(url).call().map(|_| ())).await;
    let error = got.expect("no panic").expect_err("calls are POST");
    assert!(matches!(error, ureq::Error::StatusCode(405)), "{error}");

    // Known, and away: its stream has ended (semantics A5).
    let (id, stream) = (framework.id.clone(), framework.stream_id.clone());
    drop(framework);
    let body = json!({"type": "REVIVE", "framework_id": {"value": id}}).to_string();
    let headers = [("content-type", JSON), ("mesos-stream-id", stream.as_str())];
    let deadline = std::time::Instant::now() + PATIENCE;
    loop {
        let answer = post(
            master.http_addr,
            "/api/v1/scheduler",
            &headers,
            body.as_bytes(),
        )
        .await;
        if answer.status == 403 {
            break;
        }
        // Until its end has been heard of.
        assert!(answer.status == 202 && std::time::Instant::now() < deadline);
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    master.shutdown().await;
}

#[test(flavor = "multi_thread", worker_threads = 2)]
async fn a_v1_framework_may_speak_protobuf() {
    let site = Site::new();
    let master = site.master().await;
    get_text(&master, "/api/v1/master").await;
    // SUBSCRIBE of the framework "a" of nobody, by hand.
    let body = [0x10, 1, 0x1a, 7, 0x0a, 5, 0x0a, 0, 0x12, 1, b'a'];
    let media = "application/x-protobuf";
    let headers = [("content-type", media), ("accept", media)];
    let mut events = post(master.http_addr, "/api/v1/scheduler", &headers, &body).await;
    assert_eq!(
        (events.status, events.header("content-type")),
        (200, Some(media))
    );
    let record = events.record().await.expect("SUBSCRIBED");
    let event: Event = decode(Media::Protobuf, &record).expect("an event");
    let subscribed = event.subscribed.expect("SUBSCRIBED");
    assert!(subscribed.framework_id.value.ends_with("-0000"));
    // A refused subscription is an event, and the end.
    let body = [
        0x10, 1, 0x1a, 10, 0x0a, 8, 0x0a, 0, 0x12, 1, b'a', 0x32, 1, b' ',
    ];
    let mut events = post(master.http_addr, "/api/v1/scheduler", &headers, &body).await;
    let record = events.record().await.expect("ERROR");
    let event: Event = decode(Media::Protobuf, &record).expect("an event");
    assert!(
        event
            .error
            .is_some_and(|error| error.message.contains("framework_info.role"))
    );
    master.shutdown().await;
}

/// What a tool of operators is answered.
async fn tool(master: &Running, method: &str, path: &str, body: &Value) -> (u16, Value) {
    let body = body.to_string();
    let answer = send(master.http_addr, method, path, &[], body.as_bytes()).await;
    let status = answer.status;
    (
        status,
        serde_json::from_str(&answer.text().await).unwrap_or_default(),
    )
}

#[test(flavor = "multi_thread", worker_threads = 2)]
async fn tools_read_and_set_quotas_and_weights_where_mesos_has_them() {
    // semantics: E8, E10, O1
    let site = Site::new();
    let master = site.master().await;
    let (_slave, _) = site.registered("s1", master.quic_addr).await;
    let tell = async |method, path, body: &Value| tool(&master, method, path, body).await;
    assert_eq!(get(&master, "/quota").await, json!({}));
    assert_eq!(get(&master, "/master/weights").await, json!([]));
    let amount = json!({"name": "cpus", "type": "SCALAR", "scalar": {"value": 2.0}});
    let quota = json!({"role": "web", "guarantee": [amount]});
    assert_eq!(tell("POST", "/quota", &quota).await.0, 200);
    eventually(&master, "/quota", |text| text.contains("infos")).await;
    let mut shown = amount.clone();
    shown["role"] = "*".into();
    let told = get(&master, "/master/quota").await;
    assert_eq!(
        told,
        json!({"infos": [{"role": "web", "guarantee": [shown]}],
            "configs": [{"role": "web", "guarantees": {"cpus": {"value": 2.0}},
                "limits": {"cpus": {"value": 2.0}}}]})
    );
    for (method, path, body, status) in [
        ("POST", "/quota", &quota, 400),
        (
            "POST",
            "/quota",
            &json!({"role": "a", "guarantee": []}),
            400,
        ),
        ("POST", "/quota", &json!([]), 400),
        ("DELETE", "/quota/other", &Value::Null, 400),
        ("DELETE", "/quota/a%20b", &Value::Null, 400),
        ("DELETE", "/quota", &Value::Null, 405),
        ("PUT", "/quota", &quota, 405),
        (
            "PUT",
            "/weights",
            &json!([{"role": "web", "weight": -1}]),
            400,
        ),
        ("PUT", "/weights", &json!({"role": "web", "weight": 2}), 400),
        ("PUT", "/weights", &json!([{"role": "web"}]), 400),
        ("POST", "/weights", &json!([]), 405),
        ("DELETE", "/master/quota/web", &Value::Null, 200),
        (
            "PUT",
            "/weights",
            &json!([{"role": "web", "weight": 2.5}]),
            200,
        ),
    ] {
        let (got, text) = tell(method, path, body).await;
        assert_eq!(got, status, "{method} {path} {body}: {text}");
    }
    eventually(&master, "/quota", |text| text == "{}").await;
    eventually(&master, "/weights", |text| text.contains("2.5")).await;
    let told = get(&master, "/weights").await;
    assert_eq!(told, json!([{"role": "web", "weight": 2.5}]));
    // Orders from web pages are refused here, too.
    let origin = [("origin", "http://evil.example")];
    let answer = send(master.http_addr, "DELETE", "/quota/web", &origin, &[]).await;
    assert_eq!(answer.status, 403);
    master.shutdown().await;
}

#[test(flavor = "multi_thread", worker_threads = 2)]
async fn tools_take_machines_down_and_bring_them_up() {
    // semantics: K11, O1
    let site = Site::new();
    let master = site.master().await;
    let (_one, one) = site.registered("s1", master.quic_addr).await;
    let (_two, two) = site.registered("s2", master.quic_addr).await;
    assert_ne!(one, two);
    let tell = async |path, body: &Value| tool(&master, "POST", path, body).await;
    let window = |machine: &str| {
        json!({"machine_ids": [{"hostname": machine}],
            "unavailability": {"start": {"nanoseconds": 4_000_000_000_000_000_000_i64}}})
    };
    let machines = |names: &[&str]| -> Value {
        let one = |name: &&str| json!({"hostname": name});
        names.iter().map(one).collect()
    };
    let both = json!({"windows": [window("s1"), window("s2")]});
    for (path, body) in [
        ("/maintenance/schedule", json!({"windows": [window("s3")]})),
        (
            "/maintenance/schedule",
            json!({"windows": [window("s1"), window("S1")]}),
        ),
        ("/maintenance/schedule", json!([])),
        ("/machine/down", machines(&["s1"])),
        ("/machine/down", machines(&[])),
        ("/machine/down", json!({"hostname": "s1"})),
        ("/machine/up", machines(&["s1"])),
    ] {
        let (status, answer) = tell(path, &body).await;
        assert_eq!(status, 400, "{path} {body}: {answer}");
    }
    assert_eq!(tell("/maintenance/schedule", &both).await.0, 200);
    // At once: the core knows, whether readers do or not.
    assert_eq!(
        tell("/master/machine/down", &machines(&["s1"])).await.0,
        200
    );
    assert_eq!(tell("/machine/down", &machines(&["s1"])).await.0, 400);
    eventually(&master, "/maintenance/status", |text| {
        text.contains("down_machines")
    })
    .await;
    let expected = json!({"draining_machines": [{"id": {"hostname": "s2"}}],
        "down_machines": [{"hostname": "s1"}]});
    assert_eq!(get(&master, "/master/maintenance/status").await, expected);
    let (_, answer) = operator(&master, json!({"type": "GET_MAINTENANCE_STATUS"})).await;
    assert_eq!(answer["get_maintenance_status"]["status"], expected);
    let told = get(&master, "/maintenance/schedule").await;
    let mut grouped = window("s1");
    grouped["machine_ids"] = machines(&["s1", "s2"]);
    assert_eq!(told, json!({"windows": [grouped]}));
    let agents = get(&master, "/slaves").await;
    assert_eq!(agents["slaves"][0]["deactivated"], true, "{agents}");

    // The same as calls, and what is down stays in the schedule.
    let call = |kind: &str, field: &str, value: Value| json!({"type": kind, field: value});
    let schedule = |windows: Value| {
        call(
            "UPDATE_MAINTENANCE_SCHEDULE",
            "update_maintenance_schedule",
            json!({"schedule": {"windows": windows}}),
        )
    };
    let start = call(
        "START_MAINTENANCE",
        "start_maintenance",
        json!({"machines": machines(&["s2"])}),
    );
    let stop = call(
        "STOP_MAINTENANCE",
        "stop_maintenance",
        json!({"machines": machines(&["s1", "s2"])}),
    );
    for (call, status) in [
        (schedule(json!([window("s2")])), 400),
        (schedule(json!([window("s2"), window("s1")])), 200),
        (start.clone(), 200),
        (start, 400),
        (stop.clone(), 200),
        (stop, 400),
    ] {
        let (got, answer) = operator(&master, call.clone()).await;
        assert_eq!(got, status, "{call}: {answer}");
    }
    eventually(&master, "/maintenance/schedule", |text| text == "{}").await;
    eventually(&master, "/maintenance/status", |text| text == "{}").await;
    let agents = get(&master, "/slaves").await;
    assert_eq!(agents["slaves"][0]["deactivated"], false, "{agents}");
    master.shutdown().await;
}
