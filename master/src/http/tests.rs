//! The API as a client meets it: real sockets, a read model, and a stand-in for the core that answers
//! orders.

use std::net::SocketAddr;
use std::thread::JoinHandle;
use std::time::Duration;

use meros_master_core::OperatorCall;
use meros_proto::ids::{ClusterId, Epoch, FrameworkId, SlaveId, TaskId};
use meros_proto::refusal::Refusal;
use meros_proto::slave::SlaveState;
use meros_proto::status::TaskState;
use meros_proto::time::Timestamp;
use meros_proto::view::{
    ClusterChange, ClusterEvent, FrameworkState, FrameworkView, MasterView, SlaveRow, SlaveView,
    TaskView,
};
use serde_json::Value;

use super::*;
use crate::exit::Exit;
use crate::projection::{Publisher, TaskFilter};
use crate::shell::inbox::{Input, inbox};

struct Site {
    address: SocketAddr,
    publisher: Option<Publisher>,
    sequence: u64,
    core: Option<JoinHandle<Vec<OperatorCall>>>,
    stop: watch::Sender<bool>,
    inbox: Inbox,
    projection: Projection,
    _runtime: tokio::runtime::Runtime,
}

impl Site {
    fn start() -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let (projection, publisher, _) = Projection::start(&Exit::new()).unwrap();
        let (inbox, outlet) = inbox(1);
        let core = std::thread::spawn(move || {
            let mut calls = Vec::new();
            let mut inputs = Vec::new();
            while outlet.receive(&mut inputs, 1, None).is_ok() {
                match inputs.pop() {
                    Some(Input::Operator(call, reply)) => {
                        reply.send(answer(&call)).expect("the handler waits");
                        calls.push(call);
                    }
                    _ => break,
                }
            }
            calls
        });
        let api = Api::new(projection.clone(), inbox.clone(), Arc::default());
        let (stop, stopping) = watch::channel(false);
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = listener.local_addr().unwrap();
        runtime.spawn(serve(listener, Arc::new(api), stopping));
        Self {
            address,
            publisher: Some(publisher),
            sequence: 0,
            core: Some(core),
            stop,
            inbox,
            projection,
            _runtime: runtime,
        }
    }

    /// With a leading master, a slave, a framework and two tasks.
    fn leading() -> Self {
        let mut site = Self::start();
        site.publish(ClusterChange::Elected(MasterView {
            cluster_id: ClusterId(7),
            epoch: Epoch(3),
            elected_at: Timestamp(1),
            version: "0.1.0".to_owned(),
        }));
        site.publish(ClusterChange::Slave(SlaveView {
            slave_id: SlaveId(0),
            hostname: "host".to_owned(),
            http_address: "127.0.0.1:5051".to_owned(),
            state: SlaveState::Registered,
            state_since: Timestamp(1),
            resources: "cpus:4;mem:1024".parse().unwrap(),
            attributes: "rack:r1".parse().unwrap(),
            version: "0.1.0".to_owned(),
        }));
        site.publish(ClusterChange::Framework(FrameworkView {
            framework_id: FrameworkId(0),
            name: "test".to_owned(),
            principal: "test".to_owned(),
            roles: vec!["*".parse().unwrap()],
            suppressed_roles: Vec::new(),
            state: FrameworkState::Subscribed,
            state_since: Timestamp(1),
            failover_timeout: Duration::from_secs(60),
            webui_url: String::new(),
        }));
        for (name, state) in [
            ("one", TaskState::Running),
            ("two words?", TaskState::Finished),
        ] {
            site.publish(ClusterChange::TaskAdded(TaskView {
                task_id: TaskId::new(name.replace(' ', "-")).unwrap(),
                name: name.to_owned(),
                framework_id: FrameworkId(0),
                slave_id: SlaveId(0),
                role: "*".parse().unwrap(),
                resources: "cpus:1;mem:32".parse().unwrap(),
                state,
                status: None,
                launched_at: Timestamp(5),
                labels: Default::default(),
            }));
        }
        site.await_applied();
        site
    }

    fn await_applied(&self) {
        let deadline = std::time::Instant::now() + Duration::from_secs(10);
        while self.projection.read().sequence() < self.sequence {
            assert!(
                std::time::Instant::now() < deadline,
                "events are not applied"
            );
            std::thread::yield_now();
        }
    }

    fn publish(&mut self, change: ClusterChange) {
        self.sequence += 1;
        let event = ClusterEvent {
            sequence: self.sequence,
            at: Timestamp(1),
            change,
        };
        self.publisher
            .as_ref()
            .unwrap()
            .publish(vec![event])
            .unwrap();
    }

    fn ask(&self, method: &str, path: &str) -> (u16, String, ureq::http::HeaderMap) {
        let config = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(Duration::from_secs(20)))
            .build();
        let agent: ureq::Agent = config.into();
        let url = format!("http://{}{path}", self.address);
        let response = match method {
            "GET" => agent.get(&url).call(),
            "POST" => agent.post(&url).send_empty(),
            "POST from a web page" => agent
                .post(&url)
                .header("origin", "http://evil.example")
                .send_empty(),
            body => agent.post(&url).send(body),
        };
        let mut response = response.unwrap();
        let text = response.body_mut().read_to_string().unwrap();
        (response.status().as_u16(), text, response.headers().clone())
    }

    fn get(&self, path: &str) -> (u16, Value) {
        let (status, text, _) = self.ask("GET", path);
        (
            status,
            serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}")),
        )
    }

    /// Refused with this status and code.
    fn refused(&self, method: &str, path: &str, status: u16, code: &str) {
        let (got, text, _) = self.ask(method, path);
        let body: Value = serde_json::from_str(&text).unwrap_or_else(|_| panic!("{path}: {text}"));
        assert_eq!(
            (got, body["code"].as_str()),
            (status, Some(code)),
            "{method} {path}: {text}"
        );
        assert!(
            body["message"]
                .as_str()
                .is_some_and(|message| message.len() > 10),
            "{text}"
        );
    }

    /// The orders that reached the core.
    fn calls(mut self) -> Vec<OperatorCall> {
        self.inbox.report(Input::Stop).unwrap();
        self.core.take().unwrap().join().unwrap()
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        self.stop.send_replace(true);
    }
}

fn answer(call: &OperatorCall) -> Result<(), Refusal> {
    match call {
        OperatorCall::KillTask {
            framework_id: FrameworkId(0),
            ..
        } => Ok(()),
        OperatorCall::KillTask { framework_id, .. } => Err(Refusal::FrameworkUnknown {
            framework_id: *framework_id,
        }),
        OperatorCall::Teardown {
            framework_id: FrameworkId(0),
        } => Ok(()),
        OperatorCall::Teardown { framework_id } => Err(Refusal::FrameworkRemoved {
            framework_id: *framework_id,
        }),
        OperatorCall::SetQuotas { .. } | OperatorCall::SetWeights { .. } => Ok(()),
    }
}

#[test]
fn health_tells_whether_this_master_leads() {
    let site = Site::start();
    let (status, body) = site.get("/health");
    assert_eq!((status, body["status"].as_str()), (503, Some("recovering")));
    for list in ["master", "slaves", "tasks"] {
        site.refused("GET", &format!("/api/v1/{list}"), 503, "recovering");
    }
    let site = Site::leading();
    let (status, body) = site.get("/health");
    assert_eq!((status, body["status"].as_str()), (200, Some("leading")));
    assert_eq!(body["epoch"], 3);
    assert_eq!(
        site.get("/api/v1/master").1["cluster_id"],
        ClusterId(7).to_string()
    );
}

#[test]
fn rows_can_be_read_back_as_what_they_are() {
    let site = Site::leading();
    let slaves: Vec<SlaveRow> = serde_json::from_value(site.get("/api/v1/slaves").1).unwrap();
    assert_eq!(
        slaves[0].used,
        "cpus:1;mem:32".parse().unwrap(),
        "one of the two has ended"
    );
    assert_eq!(slaves[0].slave.hostname, "host");
    let tasks: Vec<TaskView> = serde_json::from_value(site.get("/api/v1/tasks").1).unwrap();
    assert_eq!(tasks.len(), 2);
    assert_eq!(tasks[0].state, TaskState::Running);
    assert_eq!(site.get("/api/v1/frameworks").1[0]["tasks"], 1);
    assert_eq!(site.get("/api/v1/offers").1, Value::Array(Vec::new()));
}

#[test]
fn filters_are_applied_and_misspelt_ones_refused() {
    let site = Site::leading();
    let found = |query: &str| {
        let (status, body) = site.get(&format!("/api/v1/tasks?{query}"));
        assert_eq!(status, 200, "{query}: {body}");
        body.as_array().unwrap().len()
    };
    assert_eq!(found("framework=F0"), 2);
    assert_eq!(found("framework=F1"), 0);
    assert_eq!(found("state=active"), 1);
    assert_eq!(found("state=TASK_FINISHED&framework=F0"), 1);
    assert_eq!(found("state=running"), 1);
    assert_eq!(found("task=two-words%3F"), 1);
    let (_, _, headers) = site.ask("GET", "/api/v1/tasks?limit=1");
    assert_eq!(headers["x-meros-total"], "2");

    for query in [
        "tasks?framwork=F0",
        "tasks?framework=0",
        "tasks?state=sleeping",
        "tasks?limit=0",
        "tasks?limit=10001",
        "tasks?limit=-1",
        "tasks?task=a%2Fb",
        "slaves?state=active",
        "offers?framework=S0",
        "tasks?limit=1&limit=2",
        "tasks?after=F0",
        "slaves?after=live%2FF0%2Fa",
        "frameworks?after=",
        "offers?after=1",
    ] {
        site.refused("GET", &format!("/api/v1/{query}"), 400, "invalid");
    }
}

#[test]
fn lists_are_read_page_by_page() {
    let mut site = Site::leading();
    let all = site
        .projection
        .read()
        .tasks(&TaskFilter::default(), None, 1);
    // Of another script, and with what a query would take for its own.
    site.publish(ClusterChange::TaskAdded(TaskView {
        task_id: TaskId::new("ö&a=b#?%").unwrap(),
        name: "three".to_owned(),
        ..(*all.rows[0]).clone()
    }));
    site.await_applied();
    let whole = site.get("/api/v1/tasks").1;
    assert_eq!(whole.as_array().unwrap().len(), 3);
    let mut rows = Vec::new();
    let mut query = "limit=1".to_owned();
    loop {
        let (status, text, headers) = site.ask("GET", &format!("/api/v1/tasks?{query}"));
        assert_eq!(status, 200, "{text}");
        assert_eq!(headers["x-meros-total"], "3");
        rows.extend(serde_json::from_str::<Vec<Value>>(&text).unwrap());
        let Some(next) = headers.get("x-meros-next") else {
            break;
        };
        query = format!("limit=1&after={}", next.to_str().unwrap());
    }
    assert_eq!(Value::Array(rows), whole);
    for (list, last) in [("slaves", "S0"), ("frameworks", "F0")] {
        let (_, text, headers) = site.ask("GET", &format!("/api/v1/{list}?after={last}"));
        assert_eq!(
            (text.as_str(), &headers["x-meros-total"]),
            ("[]", &1.into())
        );
        assert!(!headers.contains_key("x-meros-next"));
    }
}

#[test]
fn a_web_page_cannot_give_orders() {
    let site = Site::leading();
    let path = "/api/v1/frameworks/F0/teardown";
    site.refused("POST from a web page", path, 403, "cross_site");
    assert_eq!(
        site.ask("POST", path).0,
        202,
        "the framework was not harmed"
    );
}

#[test]
fn orders_reach_the_core_and_its_answer_comes_back() {
    let site = Site::leading();
    assert_eq!(
        site.ask("POST", "/api/v1/tasks/F0/web.1/kill?grace=1500ms")
            .0,
        202
    );
    assert_eq!(site.ask("POST", "/api/v1/frameworks/F0/teardown").0, 202);
    site.refused(
        "POST",
        "/api/v1/tasks/F9/web.1/kill",
        404,
        "framework_unknown",
    );
    site.refused(
        "POST",
        "/api/v1/frameworks/F9/teardown",
        410,
        "framework_removed",
    );
    // What cannot be an order never reaches the core.
    site.refused(
        "POST",
        "/api/v1/tasks/F0/web.1/kill?grace=5",
        400,
        "invalid",
    );
    site.refused(
        "POST",
        "/api/v1/tasks/F0/web.1/kill?force=1",
        400,
        "invalid",
    );
    site.refused(
        "POST",
        "/api/v1/tasks/F0/..%2F..%2Fetc/kill",
        400,
        "invalid",
    );
    site.refused("POST", "/api/v1/tasks/0/web.1/kill", 400, "invalid");
    site.refused("POST", "/api/v1/tasks/F0/%ff/kill", 400, "invalid");
    site.refused(
        "POST",
        "/api/v1/frameworks/F99999999999/teardown",
        400,
        "invalid",
    );
    let calls = site.calls();
    assert_eq!(calls.len(), 4, "{calls:?}");
    assert_eq!(
        calls[0],
        OperatorCall::KillTask {
            framework_id: FrameworkId(0),
            task_id: TaskId::new("web.1").unwrap(),
            grace: Some(Duration::from_millis(1_500)),
        }
    );
}

#[test]
fn other_paths_methods_and_large_bodies_are_refused_in_json() {
    let site = Site::leading();
    site.refused("GET", "/api/v1/nodes", 404, "not_found");
    site.refused("GET", "/", 404, "not_found");
    site.refused(
        "GET",
        "/api/v1/frameworks/F0/teardown",
        405,
        "method_not_allowed",
    );
    site.refused("POST", "/api/v1/tasks", 405, "method_not_allowed");
    let body = "x".repeat(BODY_BYTES_MAX + 1);
    site.refused(
        &body,
        "/api/v1/frameworks/F0/teardown",
        413,
        "body_too_large",
    );
    assert!(site.calls().is_empty());
}

#[test]
fn orders_to_a_master_that_has_ended_are_refused() {
    let mut site = Site::leading();
    site.inbox.report(Input::Stop).unwrap();
    site.core.take().unwrap().join().unwrap();
    site.refused("POST", "/api/v1/frameworks/F0/teardown", 503, "stopping");
}

#[test]
fn metrics_are_open_metrics_text_with_states_and_counts() {
    let site = Site::leading();
    assert_eq!(site.ask("GET", "/health").0, 200);
    let (status, text, headers) = site.ask("GET", "/metrics");
    assert_eq!(status, 200);
    assert!(
        headers["content-type"]
            .to_str()
            .unwrap()
            .starts_with("application/openmetrics-text")
    );
    for line in [
        "meros_master_leading 1",
        "meros_master_epoch 3",
        "meros_master_tasks{state=\"TASK_RUNNING\"} 1",
        "meros_master_tasks{state=\"TASK_KILLED\"} 0",
        "meros_master_slaves{state=\"registered\"} 1",
        "meros_master_frameworks{state=\"subscribed\"} 1",
        "meros_master_offers_outstanding 0",
        "meros_master_http_requests_total{status=\"200\"} 1",
        "meros_master_http_connections_cut_total{cause=\"head\"} 0",
        "meros_master_offers_made_total 0",
        "meros_master_inbox_messages 0",
    ] {
        assert!(
            text.lines().any(|one| one == line),
            "{line} is not in\n{text}"
        );
    }
    assert!(text.ends_with("# EOF\n"));
    let resident = text
        .lines()
        .find_map(|line| line.strip_prefix("meros_master_resident_bytes "));
    assert!(resident.unwrap().parse::<u64>().unwrap() > 1 << 20);
}
