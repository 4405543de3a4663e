//! The API as a client meets it: real sockets, a read model, and a stand-in for the core that answers
//! orders.

use std::net::SocketAddr;
use std::thread::JoinHandle;
use std::time::Duration;

use meros_master_core::{Answer, OperatorCall};
use meros_proto::ids::{ClusterId, Epoch, FrameworkId, SlaveId, TaskId};
use meros_proto::maintenance::Unavailability;
use meros_proto::operation::{Change, ChangeKind};
use meros_proto::quota::Quota;
use meros_proto::refusal::Refusal;
use meros_proto::slave::{SlaveMode, SlaveState};
use meros_proto::state::{Revision, StateAnswer, StateCall, StateEntry, StateKey, StateRefusal};
use meros_proto::status::TaskState;
use meros_proto::time::Timestamp;
use meros_proto::view::{
    ClusterChange, ClusterEvent, FrameworkState, FrameworkView, MasterView, RoleRow, RoleView,
    SlaveRow, SlaveView, TaskView,
};
use meros_proto::why::{Why, WhyOffers, WhyQuestion, WhyReason, WhyRow, WhyTask};
use serde_json::Value;

use super::*;
use crate::exit::Exit;
use crate::projection::{Publisher, TaskFilter};
use crate::shell::inbox::{Input, inbox};

mod watching;

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
        let (inbox, outlet) = inbox();
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
        let api = Api::new(
            projection.clone(),
            inbox.clone(),
            Arc::default(),
            Status::unknown(),
        );
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
            mode: Default::default(),
            mode_since: Default::default(),
            is_drained: false,
            unavailability: None,
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
            offers_max: None,
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
                executor_id: None,
            }));
        }
        site.await_applied();
        site
    }

    fn await_applied(&self) {
        let deadline = std::time::Instant::now() + Duration::from_secs(60);
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
        self.send(path, |agent, url| match method {
            "GET" => agent.get(url).call(),
            "POST" => agent.post(url).send_empty(),
            "POST from a web page" => agent
                .post(url)
                .header("origin", "http://evil.example")
                .send_empty(),
            body => agent.post(url).send(body),
        })
    }

    fn send(
        &self,
        path: &str,
        call: impl FnOnce(&ureq::Agent, &str) -> Result<ureq::http::Response<ureq::Body>, ureq::Error>,
    ) -> (u16, String, ureq::http::HeaderMap) {
        let config = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(Duration::from_secs(20)))
            .build();
        let agent: ureq::Agent = config.into();
        let mut response = call(&agent, &format!("http://{}{path}", self.address)).unwrap();
        let text = response.body_mut().read_to_string().unwrap();
        (response.status().as_u16(), text, response.headers().clone())
    }

    /// Posts a body.
    fn ask_with(&self, path: &str, body: &str) -> (u16, String, ureq::http::HeaderMap) {
        self.send(path, |agent, url| agent.post(url).send(body))
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

fn answer(call: &OperatorCall) -> Result<Answer, Refusal> {
    match call {
        OperatorCall::Why(question) => answer_why(question),
        OperatorCall::Spaces => Ok(Answer::Spaces(Vec::new())),
        OperatorCall::State { call, .. } => match call {
            StateCall::Read { .. } => Ok(Answer::State(StateAnswer::Entries {
                revision: Revision(7),
                entries: vec![StateEntry {
                    key: StateKey::new("a").unwrap(),
                    value: "1".into(),
                    created: Revision(3),
                    modified: Revision(4),
                }],
                more: false,
            })),
            _ => Err(Refusal::State(StateRefusal::Conflict { condition: 0 })),
        },
        OperatorCall::KillTask {
            framework_id: FrameworkId(0),
            ..
        } => Ok(Answer::Done),
        OperatorCall::KillTask { framework_id, .. } => Err(Refusal::FrameworkUnknown {
            framework_id: *framework_id,
        }),
        OperatorCall::Teardown {
            framework_id: FrameworkId(0),
        } => Ok(Answer::Done),
        OperatorCall::Teardown { framework_id } => Err(Refusal::FrameworkRemoved {
            framework_id: *framework_id,
        }),
        OperatorCall::SetQuotas { quotas, .. } => match quotas.iter().find(|it| it.1.is_empty()) {
            Some((role, _)) => Err(Refusal::RoleUnknown { role: role.clone() }),
            None => Ok(Answer::Done),
        },
        OperatorCall::SetWeights { .. }
        | OperatorCall::SetMinimums { .. }
        | OperatorCall::SetSettings { .. }
        | OperatorCall::UpdateFramework { .. }
        | OperatorCall::SetMaintenance { .. }
        | OperatorCall::StartMaintenance { .. }
        | OperatorCall::StopMaintenance { .. } => Ok(Answer::Done),
        OperatorCall::ChangeResources { slave_id, .. } if slave_id.0 == 2 => {
            let why = "cpus: wanted 2, has 1".to_owned();
            let slave_id = *slave_id;
            Err(Refusal::NotEnough { slave_id, why })
        }
        OperatorCall::ChangeResources { slave_id, .. }
        | OperatorCall::SetSlaveMode { slave_id, .. }
        | OperatorCall::MarkSlaveGone { slave_id } => match slave_id.0 {
            0 => Ok(Answer::Done),
            1 => Err(Refusal::SlaveGone {
                slave_id: *slave_id,
            }),
            _ => Err(Refusal::NoSuchSlave {
                slave_id: *slave_id,
            }),
        },
    }
}

fn answer_why(question: &WhyQuestion) -> Result<Answer, Refusal> {
    let why = match question {
        WhyQuestion::Framework(framework_id) => Why::Offers(WhyOffers {
            rows: vec![WhyRow {
                framework_id: *framework_id,
                name: "test".to_owned(),
                role: "*".parse().unwrap(),
                holds: 0,
                offerable: 0,
                reasons: vec![WhyReason {
                    code: "declined".to_owned(),
                    text: "it has declined it".to_owned(),
                    advice: "revive".to_owned(),
                    slaves: 1,
                }],
                declined_until: Some(Timestamp(7)),
                smallest_change: Some("revive".to_owned()),
            }],
            left_out: 0,
        }),
        WhyQuestion::Task(framework_id, task_id) if task_id.as_str() == "one" => {
            Why::Task(WhyTask {
                framework_id: *framework_id,
                task_id: task_id.clone(),
                slave_id: SlaveId(0),
                state: TaskState::Running,
                reason: None,
                because: Vec::new(),
                advice: "nothing: it runs".to_owned(),
            })
        }
        WhyQuestion::Task(_, task_id) => {
            return Err(Refusal::TaskUnknown {
                task_id: task_id.clone(),
            });
        }
        WhyQuestion::Role(_) | WhyQuestion::Slave(_) => {
            return Err(Refusal::OverLimit {
                what: "questions".to_owned(),
                limit: 1,
                advice: "ask again in a second".to_owned(),
            });
        }
    };
    Ok(Answer::Why(Box::new(why)))
}

#[test]
fn resources_are_reserved_and_given_back_by_orders() {
    // semantics: O1, O2
    let site = Site::leading();
    let text = r#"{"resources":"disk(web,)[db:data]:64"}"#;
    let list = r#"{"resources":[{"name":"cpus","type":"scalar","value":1,
        "reservations":[{"type":"dynamic","role":"web"}]}]}"#;
    let pieces = r#"{"resources":"disk(web,)[db:data]:64;disk(web,):8"}"#;
    for (kind, body) in [
        ("create", text),
        ("destroy", text),
        ("reserve", list),
        ("unreserve", list),
        ("grow", pieces),
        ("shrink", pieces),
    ] {
        let path = format!("/api/v1/slaves/S0/resources/{kind}");
        assert_eq!(site.ask_with(&path, body).0, 202, "{kind}");
    }
    for (path, body, status, code) in [
        ("S0/resources/wipe", text, 404, "not_found"),
        ("S2/resources/reserve", list, 409, "not_enough"),
        ("S7/resources/reserve", list, 404, "no_such_slave"),
        ("F0/resources/reserve", list, 400, "invalid"),
        ("S0/resources/reserve", "", 400, "invalid"),
        (
            "S0/resources/reserve",
            r#"{"resources":"cpus"}"#,
            400,
            "invalid",
        ),
        (
            "S0/resources/reserve",
            r#"{"resources":"cpus:1","x":1}"#,
            400,
            "invalid",
        ),
    ] {
        let (got, answer, _) = site.ask_with(&format!("/api/v1/slaves/{path}"), body);
        let answer: Value = serde_json::from_str(&answer).unwrap();
        let got = (got, answer["code"].as_str());
        assert_eq!(got, (status, Some(code)), "{path} {body}");
    }
    let calls = site.calls();
    let change = |kind, text: &str| OperatorCall::ChangeResources {
        slave_id: SlaveId(0),
        change: Box::new(Change::new(kind, text.parse().unwrap())),
    };
    let volume = "disk(web,)[db:data]:64";
    assert_eq!(calls[0], change(ChangeKind::Create, volume));
    assert_eq!(calls[1], change(ChangeKind::Destroy, volume));
    assert_eq!(calls[2], change(ChangeKind::Reserve, "cpus(web,):1"));
    let pieces = "disk(web,)[db:data]:64;disk(web,):8";
    assert_eq!(calls[4], change(ChangeKind::Grow, pieces));
    assert_eq!(calls[5], change(ChangeKind::Shrink, pieces));
}

#[test]
fn framework_state_is_read_and_changed_by_calls() {
    let site = Site::leading();
    assert_eq!(site.get("/api/v1/state"), (200, serde_json::json!([])));
    let path = "/api/v1/state/web/main";
    let (status, body, _) = site.ask_with(path, r#"{"read": {"keys": ["a"]}}"#);
    assert_eq!(status, 200, "{body}");
    let expected = serde_json::json!({"entries": {"revision": 7, "more": false, "entries": [
        {"key": "a", "value": "1", "created": 3, "modified": 4}
    ]}});
    assert_eq!(serde_json::from_str::<Value>(&body).unwrap(), expected);
    let change = r#"{"change": {"by": null, "change": {"commit":
        {"conditions": [{"absent": "a"}], "operations": [{"set": {"key": "a", "value": "1"}}]}}}}"#;
    let (status, body, _) = site.ask_with(path, change);
    assert_eq!(
        (status, body.contains("state_conflict")),
        (409, true),
        "{body}"
    );
    let long = format!(r#"{{"read": {{"keys": ["{}"]}}}}"#, "k".repeat(513));
    for bad in ["", "{}", r#"{"read": {"keys": [""]}}"#, &long] {
        let (status, body, _) = site.ask_with(path, bad);
        assert_eq!((status, body.contains("invalid")), (400, true), "{body}");
    }
    let (status, body, _) = site.ask_with("/api/v1/state/web/a%20b", r#"{"leases": null}"#);
    assert_eq!(status, 400, "{body}");
}

#[test]
fn slaves_are_taken_out_and_back_by_orders() {
    let site = Site::leading();
    for order in [
        "drain?grace=30s&mark_gone=true",
        "drain",
        "deactivate",
        "activate",
        "gone",
    ] {
        let path = format!("/api/v1/slaves/S0/{order}");
        assert_eq!(site.ask("POST", &path).0, 202, "{order}");
    }
    for (path, status, code) in [
        ("S7/drain", 404, "no_such_slave"),
        ("S1/gone", 410, "slave_gone"),
        ("F0/drain", 400, "invalid"),
        ("S0/drain?grace=5", 400, "invalid"),
        ("S0/drain?mark_gone=maybe", 400, "invalid"),
        ("S0/activate?grace=5s", 400, "invalid"),
        ("S0/destroy", 404, "not_found"),
    ] {
        site.refused("POST", &format!("/api/v1/slaves/{path}"), status, code);
    }
    site.refused("GET", "/api/v1/slaves/S0/drain", 405, "method_not_allowed");
    let (slave_id, grace) = (SlaveId(0), Some(Duration::from_secs(30)));
    let mode = SlaveMode::Draining {
        grace,
        mark_gone: true,
    };
    let calls = site.calls();
    assert_eq!(calls[0], OperatorCall::SetSlaveMode { slave_id, mode });
    assert_eq!(calls[4], OperatorCall::MarkSlaveGone { slave_id });
    assert_eq!(calls.len(), 7);
}

#[test]
fn maintenance_is_planned_as_a_whole() {
    let site = Site::leading();
    let body = r#"{"windows":[{"slaves":["S0","S1"],"start":"2030-01-31T22:00:00Z","duration":"2h"}],
        "cancel":["S2"],"replace":true}"#;
    let (status, text, _) = site.ask_with("/api/v1/maintenance", body);
    assert_eq!(status, 202, "{text}");
    for body in [
        r#"{"windows":[{"slaves":["S0"],"start":"tomorrow"}]}"#,
        r#"{"windows":[{"slaves":["S0"],"start":"2030-01-31T22:00:00Z","duration":"2"}]}"#,
        r#"{"windows":[{"slaves":["0"],"start":"2030-01-31T22:00:00Z"}]}"#,
        r#"{"window":[]}"#,
    ] {
        let (status, text, _) = site.ask_with("/api/v1/maintenance", body);
        assert_eq!(status, 400, "{body}: {text}");
    }
    let window = Some(Unavailability {
        start: Timestamp(1_896_127_200_000_000),
        duration: Some(Duration::from_secs(2 * 60 * 60)),
    });
    let expected = OperatorCall::SetMaintenance {
        windows: vec![
            (SlaveId(0), window),
            (SlaveId(1), window),
            (SlaveId(2), None),
        ],
        replace: true,
    };
    assert_eq!(site.calls(), [expected]);
}

#[test]
fn why_asks_the_core_about_one_thing_at_a_time() {
    let site = Site::leading();
    let (status, body) = site.get("/api/v1/why?framework=F0");
    assert_eq!(status, 200, "{body}");
    assert_eq!(body["rows"][0]["reasons"][0]["code"], "declined");
    let (status, body) = site.get("/api/v1/why?task=one");
    assert_eq!((status, &body["state"]), (200, &"TASK_RUNNING".into()));
    let (status, body) = site.get("/api/v1/why?task=two-words%3F&framework=F0");
    assert_eq!((status, &body["state"]), (200, &"TASK_FINISHED".into()));
    assert!(body["advice"].as_str().unwrap().contains("has ended"));
    let (status, text, headers) = site.ask("GET", "/api/v1/why?role=a%2Fb");
    assert_eq!(
        (status, &headers["retry-after"]),
        (429, &1.into()),
        "{text}"
    );
    site.refused("GET", "/api/v1/why?task=three", 404, "task_unknown");
    for query in ["", "framework=F0&role=a", "slave=F0", "role=a+b", "why=x"] {
        site.refused("GET", &format!("/api/v1/why?{query}"), 400, "invalid");
    }
    assert_eq!(site.calls().len(), 4);
}

#[test]
fn quotas_weights_and_minimums_are_set_together_and_read_back() {
    let mut site = Site::leading();
    let body = r#"{"force":true,"quotas":[
        {"role":"web","guarantees":{"cpus":1.5},"limits":{"cpus":4}},
        {"role":"*","limits":{"gpus":0}}]}"#;
    let (status, text, _) = site.ask_with("/api/v1/quotas", body);
    assert_eq!(status, 200, "{text}");
    assert_eq!(
        text, r#"{"roles_without_frameworks":["web"]}"#,
        "somebody is in *"
    );
    let body = r#"{"weights":[{"role":"web","weight":2.5}]}"#;
    assert_eq!(site.ask_with("/api/v1/weights", body).0, 200);
    let body = r#"{"minimums":[{"role":"web","minimum":"cpus:2;mem:64|gpus:1"},{"role":"*","minimum":null}]}"#;
    assert_eq!(site.ask_with("/api/v1/minimums", body).0, 200);
    site.publish(ClusterChange::Role(RoleView {
        role: "web".parse().unwrap(),
        weight: "2.5".parse().unwrap(),
        quota: Quota {
            guarantees: [("cpus".parse().unwrap(), "1.5".parse().unwrap())].into(),
            limits: Default::default(),
        },
        minimum: Some("cpus:2;mem:64|gpus:1".parse().unwrap()),
    }));
    site.await_applied();
    let names = |path: &str| -> Vec<String> {
        let rows: Vec<RoleRow> = serde_json::from_value(site.get(path).1).unwrap();
        rows.iter().map(|row| row.role.to_string()).collect()
    };
    assert_eq!(names("/api/v1/roles"), ["*", "web"]);
    assert_eq!(names("/api/v1/roles?after=*&limit=1"), ["web"]);
    assert_eq!(names("/api/v1/quotas"), ["web"]);
    assert_eq!(names("/api/v1/weights"), ["web"]);
    assert_eq!(names("/api/v1/minimums"), ["web"]);
    let rows = site.get("/api/v1/minimums").1;
    assert_eq!(rows[0]["minimum"], "cpus:2;mem:64|gpus:1");
    let (_, metrics, _) = site.ask("GET", "/metrics");
    for line in [
        "meros_master_roles 2",
        "meros_master_role_weight{role=\"web\"} 2.5",
        "meros_master_role_guarantee{role=\"web\",resource=\"cpus\"} 1.5",
        "meros_master_role_minimum{role=\"web\",alternative=\"0\",resource=\"mem\"} 64",
        "meros_master_role_minimum{role=\"web\",alternative=\"1\",resource=\"gpus\"} 1",
        "meros_master_role_used{role=\"*\",resource=\"mem\"} 32",
        "meros_master_role_frameworks{role=\"*\"} 1",
    ] {
        assert!(metrics.contains(line), "{line} is not in {metrics}");
    }
    let calls = site.calls();
    let quota = |guarantees: &[(&str, &str)], limits: &[(&str, &str)]| {
        let amounts = |all: &[(&str, &str)]| {
            let one =
                |(name, amount): &(&str, &str)| (name.parse().unwrap(), amount.parse().unwrap());
            all.iter().map(one).collect()
        };
        Quota {
            guarantees: amounts(guarantees),
            limits: amounts(limits),
        }
    };
    let expected = OperatorCall::SetQuotas {
        quotas: vec![
            (
                "web".parse().unwrap(),
                quota(&[("cpus", "1.5")], &[("cpus", "4")]),
            ),
            ("*".parse().unwrap(), quota(&[], &[("gpus", "0")])),
        ],
        force: true,
    };
    assert_eq!(calls[0], expected);
}

#[test]
fn what_is_no_quota_or_weight_never_reaches_the_core() {
    let site = Site::leading();
    for (path, body) in [
        ("quotas", ""),
        ("quotas", "{}"),
        ("quotas", "[]"),
        ("quotas", r#"{"quotas":[{"role":"a b","limits":{}}]}"#),
        ("quotas", r#"{"quotas":[{"role":"a","limit":{"cpus":1}}]}"#),
        (
            "quotas",
            r#"{"quotas":[{"role":"a","limits":{"cpus":-1}}]}"#,
        ),
        (
            "quotas",
            r#"{"quotas":[{"role":"a","limits":{"cpus":"4"}}]}"#,
        ),
        (
            "quotas",
            r#"{"quotas":[{"role":"a","limits":{"cpus":1e300}}]}"#,
        ),
        ("weights", r#"{"weights":[{"role":"a","weight":NaN}]}"#),
        ("weights", r#"{"weights":[{"role":"a","weight":"NaN"}]}"#),
        ("weights", r#"{"weights":[{"role":"a"}]}"#),
        ("minimums", r#"{"minimums":[{"role":"a"}]}"#),
        (
            "minimums",
            r#"{"minimums":[{"role":"a","minimum":"cpus(b):1"}]}"#,
        ),
        (
            "weights",
            r#"{"weights":[{"role":"a","weight":1}],"force":true}"#,
        ),
    ] {
        let (status, text, _) = site.ask_with(&format!("/api/v1/{path}"), body);
        assert_eq!(status, 400, "{body}: {text}");
        assert!(text.contains(r#""code":"invalid""#), "{text}");
    }
    let deep = "[".repeat(100_000);
    assert_eq!(site.ask_with("/api/v1/quotas", &deep).0, 400);
    // The core's own refusals have a code as well.
    let (status, text, _) = site.ask_with("/api/v1/quotas", r#"{"quotas":[{"role":"x"}]}"#);
    assert_eq!(status, 404, "{text}");
    assert!(text.contains("role_unknown"), "{text}");
    assert_eq!(site.calls().len(), 1);
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
        ..(*all.rows[0].task).clone()
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
