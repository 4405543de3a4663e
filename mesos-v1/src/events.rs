//! Events for frameworks (semantics C, R8, R10, R11).

use std::net::{IpAddr, SocketAddr};

use meros_proto::attribute::Attributes;
use meros_proto::check::CheckStatus;
use meros_proto::ids::SlaveId;
use meros_proto::maintenance::Unavailability;
use meros_proto::message::framework::MasterToFramework;
use meros_proto::offer::Offer;
use meros_proto::operation::OperationState;
use meros_proto::refusal::Refusal;
use meros_proto::status::{Reason, TaskExit, TaskState, TaskStatus};

use crate::ids::{Ids, NO_SLAVE};
use crate::pb;
use crate::pb::scheduler::Event;
use crate::pb::scheduler::event::{self, Type};
use crate::resources::{Form, allocated_to, labels_to_v1, to_v1};

/// How one framework is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Teller {
    /// The cluster's ids.
    pub ids: Ids,
    /// What the framework understands.
    pub form: Form,
}

/// An event without anything.
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

/// ERROR: the framework is to give up, or to subscribe again.
#[must_use]
pub fn error(message: impl Into<String>) -> Event {
    Event {
        error: Some(event::Error {
            message: message.into(),
        }),
        ..empty(Type::Error)
    }
}

/// ERROR in the words that clients know (semantics A8, N4).
#[must_use]
pub fn error_of(refusal: &Refusal) -> Event {
    match refusal {
        Refusal::Superseded { .. } => error("Framework failed over"),
        Refusal::FrameworkRemoved { .. } => error("Framework has been removed"),
        other => error(other.to_string()),
    }
}

/// UPDATE about a task whose description could not be read, so that the core never hears of it.
#[must_use]
pub fn refused_task(task: &pb::TaskInfo, state: TaskState, reason: Reason, why: &str) -> Event {
    let status = pb::TaskStatus {
        task_id: task.task_id.clone(),
        agent_id: Some(task.agent_id.clone()),
        state: state as i32,
        source: Some(pb::task_status::Source::Master.into()),
        reason: Some(reason as i32),
        message: Some(why.to_owned()),
        ..Default::default()
    };
    Event {
        update: Some(event::Update { status }),
        ..empty(Type::Update)
    }
}

/// UPDATE_OPERATION_STATUS (semantics C6); never to be acknowledged.
#[must_use]
pub fn operation_event(
    operation_id: String,
    agent_id: Option<pb::AgentId>,
    state: OperationState,
    message: String,
) -> Event {
    let state = match state {
        OperationState::Finished => pb::OperationState::OperationFinished,
        OperationState::Failed => pb::OperationState::OperationFailed,
        OperationState::Error => pb::OperationState::OperationError,
        OperationState::Dropped => pb::OperationState::OperationDropped,
        OperationState::Pending => pb::OperationState::OperationPending,
        OperationState::Unknown => pb::OperationState::OperationUnknown,
        OperationState::Unreachable => pb::OperationState::OperationUnreachable,
        OperationState::GoneByOperator => pb::OperationState::OperationGoneByOperator,
        OperationState::Recovering => pb::OperationState::OperationRecovering,
    };
    let status = pb::OperationStatus {
        operation_id: Some(pb::OperationId {
            value: operation_id,
        }),
        state: state.into(),
        message: Some(message).filter(|text| !text.is_empty()),
        agent_id,
        ..Default::default()
    };
    Event {
        update_operation_status: Some(event::UpdateOperationStatus { status }),
        ..empty(Type::UpdateOperationStatus)
    }
}

/// The end of a process as `wait(2)` encodes it, which is what v1 passes on.
#[must_use]
pub fn wait_status(exit: TaskExit) -> i32 {
    match exit {
        TaskExit::Code(code) => code << 8,
        TaskExit::Signal(number) => number,
    }
}

impl Teller {
    /// SUBSCRIBED.
    #[must_use]
    pub fn subscribed(
        self,
        framework: meros_proto::ids::FrameworkId,
        heartbeat_seconds: f64,
        master: pb::MasterInfo,
    ) -> Event {
        Event {
            subscribed: Some(event::Subscribed {
                framework_id: self.ids.framework(framework),
                heartbeat_interval_seconds: Some(heartbeat_seconds),
                master_info: Some(master),
            }),
            ..empty(Type::Subscribed)
        }
    }

    /// What a message of the core is as an event; none for those that v1 has no event for: the answer
    /// to a subscription, for which see [`Teller::subscribed`], a call that was refused, which v1
    /// frameworks do not hear of, framework state, which they do not ask about, and where the masters are,
    /// which they find by redirects.
    ///
    /// `address` tells where a slave is reached.
    #[must_use]
    pub fn event(
        self,
        message: &MasterToFramework,
        address: impl FnOnce(SlaveId) -> Option<IpAddr>,
    ) -> Option<Event> {
        Some(match message {
            MasterToFramework::Subscribed { .. }
            | MasterToFramework::Refused { .. }
            | MasterToFramework::State { .. }
            | MasterToFramework::Masters { .. } => return None,
            MasterToFramework::Offers(offers) => Event {
                offers: Some(event::Offers {
                    offers: offers.iter().map(|offer| self.offer(offer)).collect(),
                }),
                ..empty(Type::Offers)
            },
            MasterToFramework::Rescind { offer_id } => Event {
                rescind: Some(event::Rescind {
                    offer_id: self.ids.offer(*offer_id),
                }),
                ..empty(Type::Rescind)
            },
            MasterToFramework::Update(status) => {
                let runs_at = status
                    .slave_id
                    .filter(|_| status.state == TaskState::Running);
                let status = self.status(status, runs_at.and_then(address));
                Event {
                    update: Some(event::Update { status }),
                    ..empty(Type::Update)
                }
            }
            MasterToFramework::Failure { slave_id } => Event {
                failure: Some(event::Failure {
                    agent_id: Some(self.ids.slave(*slave_id)),
                    ..Default::default()
                }),
                ..empty(Type::Failure)
            },
            MasterToFramework::ExecutorEnded {
                slave_id,
                executor_id,
                exit,
            } => Event {
                failure: Some(event::Failure {
                    agent_id: Some(self.ids.slave(*slave_id)),
                    executor_id: Some(pb::ExecutorId {
                        value: executor_id.as_str().to_owned(),
                    }),
                    status: exit.map(wait_status),
                }),
                ..empty(Type::Failure)
            },
            MasterToFramework::ExecutorMessage {
                slave_id,
                executor_id,
                data,
            } => Event {
                message: Some(event::Message {
                    agent_id: self.ids.slave(*slave_id),
                    executor_id: pb::ExecutorId {
                        value: executor_id.as_str().to_owned(),
                    },
                    data: data.clone(),
                }),
                ..empty(Type::Message)
            },
            MasterToFramework::Operation(status) => operation_event(
                status.operation_id.as_str().to_owned(),
                self.agent(status.slave_id),
                status.state,
                status.message.clone(),
            ),
            MasterToFramework::Error { refusal, .. } => error_of(refusal),
        })
    }

    /// An offer.
    #[must_use]
    pub fn offer(self, offer: &Offer) -> pb::Offer {
        let role = Some(&offer.role);
        pb::Offer {
            id: self.ids.offer(offer.offer_id),
            framework_id: self.ids.framework(offer.framework_id),
            agent_id: self.ids.slave(offer.slave_id),
            hostname: offer.hostname.clone(),
            url: agent_url(&offer.hostname, &offer.http_address),
            resources: to_v1(&offer.resources, role, self.form),
            attributes: attributes(&offer.attributes),
            allocation_info: allocated_to(role, self.form),
            unavailability: offer.unavailability.map(unavailability),
            domain: domain(&offer.attributes),
            executor_ids: Vec::new(),
        }
    }

    /// Nobody where the framework had named nobody of this cluster.
    fn agent(self, slave: Option<SlaveId>) -> Option<pb::AgentId> {
        let known = slave.filter(|id| *id != NO_SLAVE);
        known.map(|id| self.ids.slave(id))
    }

    /// A status. What a master has made is not to be acknowledged (semantics I2, Q2), so it has no
    /// `uuid`. `address` is where the task is reached, if it runs.
    #[must_use]
    pub fn status(self, status: &TaskStatus, address: Option<IpAddr>) -> pb::TaskStatus {
        let uuid = status.update_id.filter(|id| !id.is_by_master());
        pb::TaskStatus {
            task_id: pb::TaskId {
                value: status.task_id.as_str().to_owned(),
            },
            agent_id: self.agent(status.slave_id),
            executor_id: status.executor_id.as_ref().map(|id| pb::ExecutorId {
                value: id.as_str().to_owned(),
            }),
            state: status.state as i32,
            source: Some(status.source as i32),
            reason: told_reason(status).map(|reason| reason as i32),
            message: Some(status.message.clone()).filter(|text| !text.is_empty()),
            timestamp: Some(status.timestamp.as_secs_f64()),
            uuid: uuid.map(|id| id.0.to_be_bytes().to_vec().into()),
            healthy: status.healthy,
            unreachable_time: status.unreachable_since.map(time),
            limitation: status
                .limitation
                .as_ref()
                .map(|resources| pb::TaskResourceLimitation {
                    resources: to_v1(resources, None, self.form),
                }),
            labels: labels_to_v1(&status.labels),
            data: Some(status.data.clone()).filter(|data| !data.is_empty()),
            container_status: address.map(|address| container_status(status, address)),
            check_status: status.check_status.and_then(check_status),
        }
    }
}

/// A task that was killed for its health has no reason in Mesos, but `healthy` is false (semantics M8).
fn told_reason(status: &TaskStatus) -> Option<Reason> {
    let is_killed = matches!(status.state, TaskState::Killing | TaskState::Killed);
    let reason = status.reason;
    reason.filter(|reason| !is_killed || *reason != Reason::TaskHealthCheckStatusUpdated)
}

/// Mesos knows no gRPC.
fn check_status(from: CheckStatus) -> Option<pb::CheckStatusInfo> {
    use pb::check_info::Type;
    use pb::check_status_info::{Command, Http, Tcp};
    let mut to = pb::CheckStatusInfo::default();
    match from {
        CheckStatus::Command { exit_code } => {
            to.set_type(Type::Command);
            to.command = Some(Command { exit_code });
        }
        CheckStatus::Http { status_code } => {
            to.set_type(Type::Http);
            let status_code = status_code.map(u32::from);
            to.http = Some(Http { status_code });
        }
        CheckStatus::Tcp { succeeded } => {
            to.set_type(Type::Tcp);
            to.tcp = Some(Tcp { succeeded });
        }
        CheckStatus::Grpc { .. } => return None,
    }
    Some(to)
}

/// What clients look for to reach a task: its container, and the address of its machine, whose network
/// it uses (semantics R11).
fn container_status(status: &TaskStatus, address: IpAddr) -> pb::ContainerStatus {
    let protocol = match address {
        IpAddr::V4(_) => pb::network_info::Protocol::IPv4,
        IpAddr::V6(_) => pb::network_info::Protocol::IPv6,
    };
    pb::ContainerStatus {
        container_id: Some(pb::ContainerId {
            value: status.task_id.as_str().to_owned(),
            parent: None,
        }),
        network_infos: vec![pb::NetworkInfo {
            ip_addresses: vec![pb::network_info::IpAddress {
                protocol: Some(protocol.into()),
                ip_address: Some(address.to_string()),
            }],
            ..Default::default()
        }],
        executor_pid: None,
    }
}

/// A moment.
#[must_use]
pub fn time(at: meros_proto::time::Timestamp) -> pb::TimeInfo {
    pb::TimeInfo {
        nanoseconds: i64::try_from(at.0.saturating_mul(1_000)).unwrap_or(i64::MAX),
    }
}

/// A window of maintenance.
#[must_use]
pub fn unavailability(window: Unavailability) -> pb::Unavailability {
    let duration = window.duration.map(|duration| pb::DurationInfo {
        nanoseconds: i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX),
    });
    pb::Unavailability {
        start: time(window.start),
        duration,
    }
}

/// Where a slave's HTTP endpoint is; none if it has none that an address can say.
#[must_use]
pub fn agent_url(hostname: &str, http_address: &str) -> Option<pb::Url> {
    let address: SocketAddr = http_address.parse().ok()?;
    Some(pb::Url {
        scheme: "http".to_owned(),
        address: pb::Address {
            hostname: Some(hostname.to_owned()),
            ip: Some(address.ip().to_string()),
            port: address.port().into(),
        },
        path: Some("/slave(1)".to_owned()),
        ..Default::default()
    })
}

/// The fault domain that two attributes name, if both are there.
#[must_use]
pub fn domain(attributes: &Attributes) -> Option<pb::DomainInfo> {
    use pb::domain_info::FaultDomain;
    use pb::domain_info::fault_domain::{RegionInfo, ZoneInfo};
    let name = |name: &str| attributes.value(name).map(str::to_owned);
    Some(pb::DomainInfo {
        fault_domain: Some(FaultDomain {
            region: RegionInfo {
                name: name("region")?,
            },
            zone: ZoneInfo {
                name: name("zone")?,
            },
        }),
    })
}

/// Attributes: a number is a scalar, everything else is text.
#[must_use]
pub fn attributes(attributes: &Attributes) -> Vec<pb::Attribute> {
    let one = |(name, text): (&str, &str)| {
        let mut out = pb::Attribute {
            name: name.to_owned(),
            ..Default::default()
        };
        let is_number = text
            .bytes()
            .all(|byte| byte.is_ascii_digit() || b".-".contains(&byte));
        match text.parse::<f64>() {
            Ok(value) if is_number => {
                out.set_type(pb::value::Type::Scalar);
                out.scalar = Some(pb::value::Scalar { value });
            }
            _ => {
                out.set_type(pb::value::Type::Text);
                out.text = Some(pb::value::Text {
                    value: text.to_owned(),
                });
            }
        }
        out
    };
    attributes.iter().map(one).collect()
}
