//! Executors that speak v1 (semantics M1, M2): what they say in our words, and what they are told in theirs.

use std::time::Duration;

use bytes::Bytes;
use meros_proto::check::{Check, CheckStatus, HealthCheck, Probe};
use meros_proto::executor::ExecutorDescription;
use meros_proto::framework::FrameworkCapability;
use meros_proto::ids::{ExecutorId, FrameworkId, SlaveId, TaskId};
use meros_proto::message::executor::SlaveToExecutor;
use meros_proto::message::slave::RunExecutor;
use meros_proto::status::{Reason, Source, TaskState, TaskStatus};
use meros_proto::task::{Command, Execute, TaskDescription};
use meros_proto::time::Timestamp;

use crate::ids::Ids;
use crate::pb;
use crate::pb::executor::event::{self, Type};
use crate::pb::executor::{Call, Event};
use crate::refused::Refused;
use crate::resources::{Form, labels_from_v1, labels_to_v1, to_v1};
use crate::task::task_id;

/// What executors say why a task is in a state (semantics G3); anything else is not passed on.
const REASONS: [Reason; 12] = [
    Reason::CommandExecutorFailed,
    Reason::ExecutorTerminated,
    Reason::ContainerLimitationMemory,
    Reason::TaskInvalid,
    Reason::TaskUnauthorized,
    Reason::ContainerLimitation,
    Reason::ContainerLimitationDisk,
    Reason::ContainerLaunchFailed,
    Reason::TaskCheckStatusUpdated,
    Reason::TaskHealthCheckStatusUpdated,
    Reason::TaskKilledDuringLaunch,
    Reason::MaxCompletionTimeReached,
];

/// News of a task as an executor says it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Update {
    /// What the acknowledgement names.
    pub uuid: u128,
    /// The news.
    pub status: TaskStatus,
}

/// The executor that a call is of; none if nobody is called so here.
#[must_use]
pub fn executor_of(call: &Call, ids: Ids) -> Option<(FrameworkId, ExecutorId)> {
    let executor = ExecutorId::new(&call.executor_id.value).ok()?;
    Some((ids.read_framework(&call.framework_id)?, executor))
}

/// Tasks that an executor was given and has told nothing of (semantics M3).
///
/// # Errors
/// One has an id that no task can have.
pub fn unacknowledged_tasks(from: &[pb::TaskInfo]) -> Result<Vec<TaskId>, Refused> {
    from.iter().map(|task| task_id(&task.task_id)).collect()
}

/// Reads what becomes of a task.
///
/// # Errors
/// The first field that breaks a rule.
pub fn update(from: &pb::TaskStatus) -> Result<Update, Refused> {
    let uuid: Result<[u8; 16], _> = from.uuid.as_deref().unwrap_or_default().try_into();
    let uuid = uuid.map(u128::from_be_bytes).map_err(|_| {
        let why = "an executor gives each update a uuid of 16 bytes: its acknowledgement names it";
        Refused::invalid("status.uuid", why)
    })?;
    let state = state(from.state())?;
    // A moment before 1970, or none, is far ahead: for the slave that is now.
    let seconds = Duration::try_from_secs_f64(from.timestamp()).ok();
    let micros = seconds.and_then(|it| u64::try_from(it.as_micros()).ok());
    let timestamp = Timestamp(micros.filter(|it| *it > 0).unwrap_or(u64::MAX));
    let reason = from.reason.and_then(|number| {
        let mut reasons = REASONS.into_iter();
        reasons.find(|reason| *reason as i32 == number)
    });
    let status = TaskStatus {
        reason,
        message: from.message().to_owned(),
        healthy: from.healthy,
        labels: labels_from_v1("status.labels", from.labels.as_ref())?,
        data: from.data.clone().unwrap_or_default(),
        check_status: from.check_status.as_ref().and_then(check_status),
        ..TaskStatus::new(task_id(&from.task_id)?, state, Source::Executor, timestamp)
    };
    Ok(Update { uuid, status })
}

/// semantics: F1, F6
fn state(from: pb::TaskState) -> Result<TaskState, Refused> {
    Ok(match from {
        pb::TaskState::TaskStarting => TaskState::Starting,
        pb::TaskState::TaskRunning => TaskState::Running,
        pb::TaskState::TaskKilling => TaskState::Killing,
        pb::TaskState::TaskFinished => TaskState::Finished,
        pb::TaskState::TaskFailed => TaskState::Failed,
        pb::TaskState::TaskKilled => TaskState::Killed,
        pb::TaskState::TaskError => TaskState::Error,
        pb::TaskState::TaskLost => TaskState::Lost,
        pb::TaskState::TaskDropped => TaskState::Dropped,
        pb::TaskState::TaskGone => TaskState::Failed,
        pb::TaskState::TaskStaging
        | pb::TaskState::TaskUnreachable
        | pb::TaskState::TaskGoneByOperator
        | pb::TaskState::TaskUnknown => {
            let why = "no executor can say this of a task";
            return Err(Refused::invalid("status.state", why));
        }
    })
}

fn check_status(from: &pb::CheckStatusInfo) -> Option<CheckStatus> {
    if let Some(command) = &from.command {
        let exit_code = command.exit_code;
        return Some(CheckStatus::Command { exit_code });
    }
    if let Some(http) = &from.http {
        let status_code = http.status_code.and_then(|code| u16::try_from(code).ok());
        return Some(CheckStatus::Http { status_code });
    }
    let succeeded = from.tcp.as_ref()?.succeeded;
    Some(CheckStatus::Tcp { succeeded })
}

fn empty(kind: Type) -> Event {
    Event {
        r#type: Some(kind.into()),
        ..Default::default()
    }
}

/// HEARTBEAT.
#[must_use]
pub fn heartbeat() -> Event {
    empty(Type::Heartbeat)
}

/// ACKNOWLEDGED: the update is durable with the slave.
#[must_use]
pub fn acknowledged(task: &TaskId, uuid: u128) -> Event {
    Event {
        acknowledged: Some(event::Acknowledged {
            task_id: id_of(task),
            uuid: uuid.to_be_bytes().to_vec().into(),
        }),
        ..empty(Type::Acknowledged)
    }
}

/// ERROR: the executor is to end.
#[must_use]
pub fn error(message: impl Into<String>) -> Event {
    Event {
        error: Some(event::Error {
            message: message.into(),
        }),
        ..empty(Type::Error)
    }
}

fn id_of(task: &TaskId) -> pb::TaskId {
    pb::TaskId {
        value: task.as_str().to_owned(),
    }
}

fn bytes_of(data: &Bytes) -> Option<Bytes> {
    Some(data.clone()).filter(|data| !data.is_empty())
}

fn length(from: Duration) -> pb::DurationInfo {
    pb::DurationInfo {
        nanoseconds: i64::try_from(from.as_nanos()).unwrap_or(i64::MAX),
    }
}

/// How one executor is told.
#[derive(Debug, Clone)]
pub struct ExecutorTeller {
    /// The cluster's ids.
    pub ids: Ids,
    /// The slave that it is on.
    pub agent: pb::AgentInfo,
    /// What it was started as.
    pub run: Box<RunExecutor>,
    /// The name of its container.
    pub container: String,
}

impl ExecutorTeller {
    /// What a message of the slave is as an event; none for acknowledgements, which are of several updates
    /// ([`acknowledged`]).
    #[must_use]
    pub fn event(&self, message: &SlaveToExecutor) -> Option<Event> {
        Some(match message {
            SlaveToExecutor::Acknowledged { .. } => return None,
            SlaveToExecutor::Subscribed { slave_id, .. } => self.subscribed(*slave_id),
            SlaveToExecutor::Launch(task) => Event {
                launch: Some(event::Launch {
                    task: self.task(task),
                }),
                ..empty(Type::Launch)
            },
            SlaveToExecutor::Kill { task_id, grace } => Event {
                kill: Some(event::Kill {
                    task_id: id_of(task_id),
                    kill_policy: Some(pb::KillPolicy {
                        grace_period: Some(length(*grace)),
                    }),
                }),
                ..empty(Type::Kill)
            },
            SlaveToExecutor::Message(data) => Event {
                message: Some(event::Message { data: data.clone() }),
                ..empty(Type::Message)
            },
            SlaveToExecutor::Shutdown { .. } => empty(Type::Shutdown),
            SlaveToExecutor::Refused { refusal } => error(refusal.to_string()),
        })
    }

    fn subscribed(&self, slave_id: SlaveId) -> Event {
        let framework = &self.run.framework;
        let agent_info = pb::AgentInfo {
            id: Some(self.ids.slave(slave_id)),
            ..self.agent.clone()
        };
        Event {
            subscribed: Some(event::Subscribed {
                executor_info: self.executor(&self.run.executor),
                framework_info: pb::FrameworkInfo {
                    user: framework.user.clone().unwrap_or_default(),
                    name: framework.name.clone(),
                    id: Some(self.ids.framework(framework.framework_id)),
                    checkpoint: Some(framework.checkpoint),
                    roles: vec![self.run.role.as_str().to_owned()],
                    ..Default::default()
                },
                agent_info,
                container_id: Some(pb::ContainerId {
                    value: self.container.clone(),
                    parent: None,
                }),
            }),
            ..empty(Type::Subscribed)
        }
    }

    fn resources(&self, of: &meros_proto::resources::Resources) -> Vec<pb::Resource> {
        let capabilities = &self.run.framework.capabilities;
        let form = Form {
            multi_role: true,
            refined: capabilities.contains(&FrameworkCapability::ReservationRefinement),
        };
        to_v1(of, Some(&self.run.role), form)
    }

    fn executor(&self, from: &ExecutorDescription) -> pb::ExecutorInfo {
        let mut to = pb::ExecutorInfo {
            executor_id: pb::ExecutorId {
                value: from.executor_id.as_str().to_owned(),
            },
            resources: self.resources(&from.resources),
            command: from.command.as_ref().map(command),
            framework_id: Some(self.ids.framework(self.run.framework.framework_id)),
            name: Some(from.name.clone()),
            shutdown_grace_period: from.shutdown_grace.map(length),
            labels: labels_to_v1(&from.labels),
            data: bytes_of(&from.data),
            ..Default::default()
        };
        to.set_type(match from.is_group() {
            true => pb::executor_info::Type::Default,
            false => pb::executor_info::Type::Custom,
        });
        to
    }

    /// A task as its framework described it.
    fn task(&self, from: &TaskDescription) -> pb::TaskInfo {
        pb::TaskInfo {
            name: from.name.clone(),
            task_id: id_of(&from.task_id),
            agent_id: self.ids.slave(from.slave_id),
            resources: self.resources(&from.resources),
            executor: from.executor.as_ref().map(|it| self.executor(it)),
            data: bytes_of(&from.data),
            health_check: from.health_check.as_ref().and_then(health_check),
            labels: labels_to_v1(&from.labels),
            kill_policy: from.kill_grace.map(|grace| pb::KillPolicy {
                grace_period: Some(length(grace)),
            }),
            check: from.check.as_ref().and_then(check),
            max_completion_time: from.max_completion_time.map(length),
            ..Default::default()
        }
    }
}

fn command(from: &Command) -> pb::CommandInfo {
    let variables = from.environment.iter().map(|(name, value)| {
        let mut variable = pb::environment::Variable {
            name: name.clone(),
            value: Some(value.clone()),
            ..Default::default()
        };
        variable.set_type(pb::environment::variable::Type::Value);
        variable
    });
    let uris = from.uris.iter().map(|uri| pb::command_info::Uri {
        value: uri.value.clone(),
        executable: Some(uri.executable),
        extract: Some(uri.extract),
        cache: Some(uri.cache),
        output_file: uri.output_file.clone(),
    });
    let (shell, value, arguments) = match &from.execute {
        Execute::Shell(line) => (true, Some(line.clone()), Vec::new()),
        Execute::Argv(argv) => (false, argv.first().cloned(), argv.clone()),
    };
    pb::CommandInfo {
        uris: uris.collect(),
        environment: Some(pb::Environment {
            variables: variables.collect(),
        }),
        value,
        user: from.user.clone(),
        shell: Some(shell),
        arguments,
    }
}

/// Mesos knows no gRPC.
fn health_check(from: &HealthCheck) -> Option<pb::HealthCheck> {
    use pb::health_check::{HttpCheckInfo, TcpCheckInfo, Type};
    let check = &from.check;
    let mut to = pb::HealthCheck {
        delay_seconds: Some(check.delay.as_secs_f64()),
        interval_seconds: Some(check.interval.as_secs_f64()),
        timeout_seconds: Some(check.timeout.as_secs_f64()),
        consecutive_failures: Some(from.consecutive_failures),
        grace_period_seconds: Some(from.grace_period.as_secs_f64()),
        ..Default::default()
    };
    match &check.probe {
        Probe::Command(it) => {
            to.set_type(Type::Command);
            to.command = Some(command(it));
        }
        Probe::Http(it) => {
            to.set_type(Type::Http);
            to.http = Some(HttpCheckInfo {
                port: it.port.into(),
                path: Some(it.path.clone()),
                scheme: Some(if it.tls { "https" } else { "http" }.to_owned()),
                ..Default::default()
            });
        }
        Probe::Tcp { port } => {
            to.set_type(Type::Tcp);
            to.tcp = Some(TcpCheckInfo {
                port: (*port).into(),
                ..Default::default()
            });
        }
        Probe::Grpc { .. } => return None,
    }
    Some(to)
}

/// Mesos knows no gRPC, and no checks over TLS.
fn check(from: &Check) -> Option<pb::CheckInfo> {
    use pb::check_info::{Command as ByCommand, Http, Tcp, Type};
    let mut to = pb::CheckInfo {
        delay_seconds: Some(from.delay.as_secs_f64()),
        interval_seconds: Some(from.interval.as_secs_f64()),
        timeout_seconds: Some(from.timeout.as_secs_f64()),
        ..Default::default()
    };
    match &from.probe {
        Probe::Command(it) => {
            to.set_type(Type::Command);
            to.command = Some(ByCommand {
                command: command(it),
            });
        }
        Probe::Http(it) => {
            to.set_type(Type::Http);
            to.http = Some(Http {
                port: it.port.into(),
                path: Some(it.path.clone()),
            });
        }
        Probe::Tcp { port } => {
            to.set_type(Type::Tcp);
            to.tcp = Some(Tcp {
                port: (*port).into(),
            });
        }
        Probe::Grpc { .. } => return None,
    }
    Some(to)
}

#[cfg(test)]
mod tests {
    use meros_proto::ids::ClusterId;
    use meros_proto::message::slave::TaskFramework;
    use meros_proto::refusal::Refusal;
    use serde_json::{Value, json};

    use super::*;
    use crate::encoding::{Media, decode, encode};

    const UUID: &str = "AAAAAAAAQACAAAAAAAAAAQ==";

    fn ids() -> Ids {
        Ids::new(ClusterId(7))
    }

    fn call(json: Value) -> Call {
        let head = json!({"executor_id": {"value": "e"},
            "framework_id": {"value": ids().framework(FrameworkId(3)).value}});
        let mut call = head.as_object().expect("it is one").clone();
        call.extend(json.as_object().expect("it is one").clone());
        let text = Value::Object(call).to_string();
        decode(Media::Json, text.as_bytes()).expect("well formed")
    }

    fn read(status: Value) -> Result<Update, String> {
        let call = call(json!({"type": "UPDATE", "update": {"status": status}}));
        // Both encodings mean the same.
        let bytes = encode(Media::Protobuf, &call);
        let call: Call = decode(Media::Protobuf, &bytes).expect("well formed");
        update(&call.update.expect("given").status).map_err(|refused| refused.to_string())
    }

    /// A task as its framework describes it.
    fn described() -> Value {
        json!({"name": "n", "task_id": {"value": "t"}, "agent_id": {"value": ids().slave(SlaveId(2)).value},
            "resources": [{"name": "cpus", "type": "SCALAR", "scalar": {"value": 0.5}}],
            "executor": {"type": "CUSTOM", "executor_id": {"value": "e"}, "name": "pool", "data": "Y29uZmln",
                "framework_id": {"value": ids().framework(FrameworkId(3)).value},
                "command": {"shell": false, "value": "/bin/e", "arguments": ["/bin/e", "-v"],
                    "environment": {"variables": [{"name": "A", "type": "VALUE", "value": "1"}]},
                    "uris": [{"value": "http://h/f", "executable": true, "extract": false, "cache": false}]},
                "resources": [{"name": "mem", "type": "SCALAR", "scalar": {"value": 64.0}}],
                "shutdown_grace_period": {"nanoseconds": 7_000_000_000_u64},
                "labels": {"labels": [{"key": "x", "value": "y"}]}},
            "data": "aGk=", "labels": {"labels": [{"key": "k", "value": "v"}]},
            "kill_policy": {"grace_period": {"nanoseconds": 2_000_000_000}},
            "max_completion_time": {"nanoseconds": 9_000_000_000_u64},
            "health_check": {"type": "HTTP", "delay_seconds": 1.0, "interval_seconds": 2.0,
                "timeout_seconds": 3.0, "consecutive_failures": 4, "grace_period_seconds": 5.0,
                "http": {"port": 80, "path": "/h", "scheme": "https"}},
            "check": {"type": "COMMAND", "delay_seconds": 1.0, "interval_seconds": 2.0,
                "timeout_seconds": 3.0, "command": {"command": {"shell": true, "value": "true"}}}})
    }

    fn teller() -> (ExecutorTeller, TaskDescription) {
        let info: pb::TaskInfo =
            decode(Media::Json, described().to_string().as_bytes()).expect("well formed");
        let task = crate::task::task(&info, ids()).expect("all of it can be done");
        let run = RunExecutor {
            framework: TaskFramework {
                framework_id: FrameworkId(3),
                name: "f".to_owned(),
                user: Some("nobody".to_owned()),
                checkpoint: true,
                capabilities: vec![FrameworkCapability::ReservationRefinement],
            },
            role: "ads".parse().expect("a role"),
            executor: task.executor.clone().expect("given"),
        };
        let agent = pb::AgentInfo {
            hostname: "h".to_owned(),
            ..Default::default()
        };
        let teller = ExecutorTeller {
            ids: ids(),
            agent,
            run: Box::new(run),
            container: "1-2".to_owned(),
        };
        (teller, task)
    }

    fn told(event: &Event) -> Value {
        serde_json::from_slice(&encode(Media::Json, event)).expect("JSON")
    }

    #[test]
    fn calls_are_of_executors_of_this_cluster() {
        // semantics: M1
        let heartbeat = call(json!({"type": "HEARTBEAT"}));
        let (framework, executor) = executor_of(&heartbeat, ids()).expect("it is one");
        assert_eq!((framework, executor.as_str()), (FrameworkId(3), "e"));
        assert_eq!(executor_of(&heartbeat, Ids::new(ClusterId(8))), None);
        let mut nameless = heartbeat;
        nameless.executor_id.value = "a/b".to_owned();
        assert_eq!(executor_of(&nameless, ids()), None);
    }

    #[test]
    fn an_update_is_read_as_it_was_said() {
        // semantics: M3, C5
        let status = json!({"task_id": {"value": "t"}, "state": "TASK_RUNNING", "uuid": UUID,
            "timestamp": 1.5, "message": "m", "data": "aGk=", "healthy": false,
            "source": "SOURCE_EXECUTOR", "reason": "REASON_TASK_HEALTH_CHECK_STATUS_UPDATED",
            "labels": {"labels": [{"key": "k", "value": "v"}]},
            "check_status": {"type": "COMMAND", "command": {"exit_code": 3}},
            "executor_id": {"value": "e"}, "agent_id": {"value": "anything"}});
        let Update { uuid, status } = read(status).expect("well formed");
        assert_eq!(uuid, 0x4000_8000_0000_0000_0001);
        assert_eq!(status.state, TaskState::Running);
        assert_eq!(status.timestamp, Timestamp(1_500_000));
        assert_eq!(status.message, "m");
        assert_eq!(status.data.as_ref(), b"hi");
        assert_eq!(status.healthy, Some(false));
        assert_eq!(status.reason, Some(Reason::TaskHealthCheckStatusUpdated));
        assert_eq!(status.labels.iter().count(), 1);
        let check = CheckStatus::Command { exit_code: Some(3) };
        assert_eq!(status.check_status, Some(check));

        let least = json!({"task_id": {"value": "t"}, "state": "TASK_GONE", "uuid": UUID});
        let status = read(least).expect("it is enough").status;
        assert_eq!(status.state, TaskState::Failed);
        assert_eq!(status.timestamp, Timestamp(u64::MAX), "now");
    }

    #[test]
    fn an_update_that_nobody_could_use_is_refused() {
        let all = [
            (json!({"uuid": "AAAA"}), "status.uuid is not valid"),
            (json!({"uuid": null}), "status.uuid is not valid"),
            (
                json!({"state": "TASK_STAGING"}),
                "status.state is not valid",
            ),
            (
                json!({"state": "TASK_UNREACHABLE"}),
                "status.state is not valid",
            ),
            (json!({"task_id": {"value": ".."}}), "task_id is not valid"),
        ];
        for (fields, why) in all {
            let mut status =
                json!({"task_id": {"value": "t"}, "state": "TASK_RUNNING", "uuid": UUID});
            for (name, value) in fields.as_object().expect("it is one") {
                status[name] = value.clone();
            }
            let refused = read(status).expect_err(why);
            assert!(refused.starts_with(why), "{refused}");
        }
    }

    #[test]
    fn a_task_comes_to_its_executor_as_it_was_described() {
        // semantics: M2
        let (teller, task) = teller();
        let event = teller.event(&SlaveToExecutor::Launch(Box::new(task)));
        let mut event = told(&event.expect("it is told"));
        assert_eq!(event["type"], "LAUNCH");
        let mut launched = event["launch"]["task"].take();
        for of in ["/resources", "/executor/resources"] {
            let resources = launched.pointer_mut(of).and_then(Value::as_array_mut);
            for resource in resources.expect("given") {
                let role = resource["allocation_info"].take();
                assert_eq!(role, json!({"role": "ads"}));
                let fields = resource.as_object_mut().expect("it is one");
                fields.remove("allocation_info");
            }
        }
        let command = launched.pointer_mut("/check/command/command");
        let command = command.and_then(Value::as_object_mut).expect("given");
        assert_eq!(command.remove("environment"), Some(json!({})));
        assert_eq!(launched, described());
    }

    #[test]
    fn an_executor_is_told_who_it_is_and_what_to_do() {
        // semantics: M2, R13
        let (teller, _) = teller();
        let event = |message| told(&teller.event(&message).expect("it is told"));
        let subscribed = event(SlaveToExecutor::Subscribed {
            slave_id: SlaveId(2),
            heard: 0,
        });
        let about = &subscribed["subscribed"];
        assert_eq!(about["executor_info"]["executor_id"], json!({"value": "e"}));
        assert_eq!(about["executor_info"]["data"], "Y29uZmln");
        let framework = ids().framework(FrameworkId(3)).value;
        assert_eq!(about["framework_info"]["id"], json!({"value": framework}));
        assert_eq!(about["framework_info"]["checkpoint"], true);
        let agent = ids().slave(SlaveId(2)).value;
        assert_eq!(about["agent_info"]["id"], json!({"value": agent}));
        assert_eq!(about["container_id"], json!({"value": "1-2"}));

        let task_id = TaskId::new("t").expect("an id");
        let grace = Duration::from_secs(2);
        let kill = SlaveToExecutor::Kill {
            task_id: task_id.clone(),
            grace,
        };
        let told_kill = json!({"task_id": {"value": "t"},
            "kill_policy": {"grace_period": {"nanoseconds": 2_000_000_000}}});
        assert_eq!(event(kill), json!({"type": "KILL", "kill": told_kill}));
        let message = event(SlaveToExecutor::Message(Bytes::from_static(b"hi")));
        assert_eq!(
            message,
            json!({"type": "MESSAGE", "message": {"data": "aGk="}})
        );
        let shutdown = event(SlaveToExecutor::Shutdown { grace });
        assert_eq!(shutdown, json!({"type": "SHUTDOWN"}));
        let refusal = Refusal::Stopping;
        let refused = event(SlaveToExecutor::Refused { refusal });
        assert_eq!(refused["type"], "ERROR");
        assert_eq!(told(&heartbeat()), json!({"type": "HEARTBEAT"}));
        let told_uuid = told(&acknowledged(&task_id, 0x4000_8000_0000_0000_0001));
        let about = json!({"task_id": {"value": "t"}, "uuid": UUID});
        assert_eq!(
            told_uuid,
            json!({"type": "ACKNOWLEDGED", "acknowledged": about})
        );
        let number = 1;
        let unnamed = SlaveToExecutor::Acknowledged { number };
        assert_eq!(teller.event(&unnamed), None, "of which, the edge knows");
    }
}
