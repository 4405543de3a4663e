//! `POST /api/v1`: what operators ask and order in the words of v1 (semantics O1, O2). Answers are from
//! the read model; orders are those of our own API, and the core decides.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Request, State};
use axum::http::{Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use meros_daemon::http::ApiError;
use meros_master_core::event::OperatorCall;
use meros_proto::ids::FrameworkId;
use meros_proto::operation::{Change, ChangeKind};
use meros_proto::quota::Quota;
use meros_proto::refusal::Refusal;
use meros_proto::resources::{ResourceName, Scalar};
use meros_proto::role::RoleName;
use meros_proto::slave::{SlaveMode, SlaveState};
use meros_proto::view::{FrameworkState, OfferView};
use meros_v1::Refused;
use meros_v1::encoding::{Media, encode};
use meros_v1::ids::Ids;
use meros_v1::pb;
use meros_v1::pb::master::call::Type;
use meros_v1::pb::master::response::{self as parts, Type as Kind};
use meros_v1::pb::master::{Call, Response as Answer};
use meros_v1::resources::from_v1;
use meros_v1::state::VERSION;
use meros_v1::{events, views};
use tracing::info;

use super::reads::{Picked, snapshot};
use super::{not_a_call, posted, watch};
use crate::http::Api;
use crate::http::orders::ordered;
use crate::projection::RoleFilter;

pub(super) async fn call(State(api): State<Arc<Api>>, request: Request) -> Response {
    if request.method() != Method::POST {
        return not_a_call();
    }
    answered(api, request)
        .await
        .unwrap_or_else(IntoResponse::into_response)
}

async fn answered(api: Arc<Api>, request: Request) -> Result<Response, ApiError> {
    let posted = posted(request).await?;
    let (call, ids) = posted.call::<Call>(&api)?;
    if let Some((order, status)) = order_of(&call, ids)? {
        info!(
            call = call.r#type().as_str_name(),
            "operator orders over v1"
        );
        ordered(&api, order).await?;
        return Ok(status.into_response());
    }
    if call.r#type() == Type::Subscribe {
        return watch::subscribe(api, &posted).await;
    }
    let media = posted.answer;
    // Picking and writing out are kept away from the threads that serve the network.
    let made = tokio::task::spawn_blocking(move || {
        answer(&api, call.r#type()).map(|answer| encode(media, &answer))
    });
    let body = made
        .await
        .map_err(|error| ApiError::internal(error.to_string()))??;
    Ok(([(header::CONTENT_TYPE, Media::name(media))], body).into_response())
}

pub(super) fn refused(refused: Refused) -> ApiError {
    let status = match &refused {
        Refused::Invalid { .. } => StatusCode::BAD_REQUEST,
        Refused::Unsupported { .. } => StatusCode::NOT_IMPLEMENTED,
    };
    ApiError::new(status, refused.code(), refused.to_string())
}

fn missing(what: &'static str) -> impl Fn() -> ApiError {
    move || ApiError::invalid(format!("{what} is missing"))
}

/// The order that a call is, and what it is answered when it is carried out; none if it asks.
fn order_of(call: &Call, ids: Ids) -> Result<Option<(OperatorCall, StatusCode)>, ApiError> {
    let mode = |agent: &pb::AgentId, mode| OperatorCall::SetSlaveMode {
        slave_id: ids.read_slave(agent),
        mode,
    };
    let order = match call.r#type() {
        Type::Teardown => {
            let it = call.teardown.as_ref().ok_or_else(missing("teardown"))?;
            let unknown = || ApiError::invalid("Framework cannot be found");
            let framework_id = ids.read_framework(&it.framework_id).ok_or_else(unknown)?;
            OperatorCall::Teardown { framework_id }
        }
        Type::MarkAgentGone => {
            let it = call
                .mark_agent_gone
                .as_ref()
                .ok_or_else(missing("mark_agent_gone"))?;
            let slave_id = ids.read_slave(&it.agent_id);
            OperatorCall::MarkSlaveGone { slave_id }
        }
        Type::DrainAgent => {
            let it = call
                .drain_agent
                .as_ref()
                .ok_or_else(missing("drain_agent"))?;
            let grace = it.max_grace_period.as_ref().map(|span| {
                let seconds = u64::try_from(span.seconds()).unwrap_or_default();
                let nanos = u32::try_from(span.nanos()).unwrap_or_default();
                Duration::from_secs(seconds).saturating_add(Duration::from_nanos(nanos.into()))
            });
            let mark_gone = it.mark_gone();
            mode(&it.agent_id, SlaveMode::Draining { grace, mark_gone })
        }
        Type::DeactivateAgent => {
            let it = call.deactivate_agent.as_ref();
            let it = it.ok_or_else(missing("deactivate_agent"))?;
            mode(&it.agent_id, SlaveMode::Deactivated)
        }
        Type::ReactivateAgent => {
            let it = call.reactivate_agent.as_ref();
            let it = it.ok_or_else(missing("reactivate_agent"))?;
            mode(&it.agent_id, SlaveMode::Active)
        }
        Type::UpdateQuota => {
            let it = call
                .update_quota
                .as_ref()
                .ok_or_else(missing("update_quota"))?;
            let quotas: Result<_, ApiError> = it.quota_configs.iter().map(quota).collect();
            OperatorCall::SetQuotas {
                quotas: quotas?,
                force: it.force(),
            }
        }
        Type::UpdateWeights => {
            let it = call
                .update_weights
                .as_ref()
                .ok_or_else(missing("update_weights"))?;
            let weights = it.weight_infos.iter().map(|info| {
                let role = role("weight_infos.role", info.role())?;
                Ok::<_, ApiError>((role, amount("weight_infos.weight", info.weight)?))
            });
            OperatorCall::SetWeights {
                weights: weights.collect::<Result<_, _>>()?,
            }
        }
        Type::ReserveResources
        | Type::UnreserveResources
        | Type::CreateVolumes
        | Type::DestroyVolumes => {
            let order = change(call, ids)?;
            // It is on its way to the slave, which may still fail (semantics O2).
            return Ok(Some((order, StatusCode::ACCEPTED)));
        }
        _ => return Ok(None),
    };
    Ok(Some((order, StatusCode::OK)))
}

fn change(call: &Call, ids: Ids) -> Result<OperatorCall, ApiError> {
    let (kind, agent, list) = if let Some(it) = &call.reserve_resources {
        if !it.source.is_empty() {
            let why = "reserve_resources.source is not supported by Meros: unreserve first";
            return Err(ApiError::new(
                StatusCode::NOT_IMPLEMENTED,
                "unsupported",
                why,
            ));
        }
        (ChangeKind::Reserve, &it.agent_id, &it.resources)
    } else if let Some(it) = &call.unreserve_resources {
        (ChangeKind::Unreserve, &it.agent_id, &it.resources)
    } else if let Some(it) = &call.create_volumes {
        (ChangeKind::Create, &it.agent_id, &it.volumes)
    } else if let Some(it) = &call.destroy_volumes {
        (ChangeKind::Destroy, &it.agent_id, &it.volumes)
    } else {
        return Err(missing("what its type names")());
    };
    let resources = from_v1("resources", list).map_err(refused)?;
    Ok(OperatorCall::ChangeResources {
        slave_id: ids.read_slave(agent),
        change: Box::new(Change::new(kind, resources)),
    })
}

fn role(field: &str, name: &str) -> Result<RoleName, ApiError> {
    RoleName::new(name).map_err(|error| ApiError::invalid(format!("{field}: {error}")))
}

fn amount(field: &str, value: f64) -> Result<Scalar, ApiError> {
    Scalar::from_f64(value).map_err(|error| ApiError::invalid(format!("{field}: {error}")))
}

fn quota(config: &pb::quota::QuotaConfig) -> Result<(RoleName, Quota), ApiError> {
    let amounts = |amounts: &BTreeMap<String, pb::value::Scalar>| {
        let read = amounts.iter().map(|(name, value)| {
            let name = ResourceName::new(name)
                .map_err(|error| ApiError::invalid(format!("quota_configs: {error}")))?;
            Ok::<_, ApiError>((name, amount("quota_configs", value.value)?))
        });
        read.collect::<Result<BTreeMap<_, _>, _>>()
    };
    let quota = Quota {
        guarantees: amounts(&config.guarantees)?,
        limits: amounts(&config.limits)?,
    };
    Ok((role("quota_configs.role", &config.role)?, quota))
}

/// The answer to a question.
fn answer(api: &Api, asked: Type) -> Result<Answer, ApiError> {
    let picked = || Picked::all(&api.projection.read()).ok_or(Refusal::Recovering);
    let mut out = Answer::default();
    let kind = match asked {
        Type::GetHealth => {
            out.get_health = Some(parts::GetHealth { healthy: true });
            Kind::GetHealth
        }
        Type::GetFlags => {
            let flags = api.settings.iter().map(|it| pb::Flag {
                name: it.option.clone(),
                value: Some(it.value.clone()),
            });
            out.get_flags = Some(parts::GetFlags {
                flags: flags.collect(),
            });
            Kind::GetFlags
        }
        Type::GetVersion => {
            let version_info = pb::VersionInfo {
                version: VERSION.to_owned(),
                ..Default::default()
            };
            out.get_version = Some(parts::GetVersion { version_info });
            Kind::GetVersion
        }
        Type::GetMetrics => {
            let metrics = snapshot(api).into_iter().map(|(name, value)| pb::Metric {
                name,
                value: value.as_f64(),
            });
            out.get_metrics = Some(parts::GetMetrics {
                metrics: metrics.collect(),
            });
            Kind::GetMetrics
        }
        Type::GetLoggingLevel => {
            out.get_logging_level = Some(parts::GetLoggingLevel { level: 0 });
            Kind::GetLoggingLevel
        }
        Type::GetState => {
            out.get_state = Some(state_of(&picked()?));
            Kind::GetState
        }
        Type::GetAgents => {
            out.get_agents = Some(agents(&picked()?));
            Kind::GetAgents
        }
        Type::GetFrameworks => {
            out.get_frameworks = Some(frameworks(&picked()?));
            Kind::GetFrameworks
        }
        Type::GetTasks => {
            out.get_tasks = Some(tasks(&picked()?));
            Kind::GetTasks
        }
        Type::GetExecutors => {
            out.get_executors = Some(parts::GetExecutors::default());
            Kind::GetExecutors
        }
        Type::GetOperations => {
            out.get_operations = Some(parts::GetOperations::default());
            Kind::GetOperations
        }
        Type::GetMaster => {
            let elected = picked()?.master.elected_at.as_secs_f64();
            out.get_master = Some(parts::GetMaster {
                master_info: Some(super::stream::master_info(api)),
                start_time: None,
                elected_time: Some(elected),
            });
            Kind::GetMaster
        }
        Type::GetMaintenanceSchedule | Type::GetMaintenanceStatus => {
            return Ok(maintenance(&picked()?, asked));
        }
        other => return of_roles(api, other),
    };
    out.set_type(kind);
    Ok(out)
}

/// All there is.
pub(super) fn state_of(picked: &Picked) -> parts::GetState {
    parts::GetState {
        get_tasks: Some(tasks(picked)),
        get_executors: Some(parts::GetExecutors::default()),
        get_frameworks: Some(frameworks(picked)),
        get_agents: Some(agents(picked)),
    }
}

fn agents(picked: &Picked) -> parts::GetAgents {
    let mut out = parts::GetAgents::default();
    for row in &picked.slaves {
        match row.slave.state {
            SlaveState::Recovered => {
                out.recovered_agents
                    .push(views::agent_info(picked.ids, row));
            }
            _ => out.agents.push(views::agent(picked.ids, row)),
        }
    }
    out
}

fn tasks(picked: &Picked) -> parts::GetTasks {
    views::tasks(picked.ids, picked.tasks.iter().map(|task| &**task))
}

fn frameworks(picked: &Picked) -> parts::GetFrameworks {
    let mut offers: BTreeMap<FrameworkId, Vec<&OfferView>> = BTreeMap::new();
    for offer in &picked.offers {
        offers.entry(offer.framework_id).or_default().push(offer);
    }
    let mut out = parts::GetFrameworks::default();
    for row in &picked.frameworks {
        let of_it = offers
            .remove(&row.framework.framework_id)
            .unwrap_or_default();
        let framework = views::framework(picked.ids, row, of_it.into_iter());
        match row.framework.state {
            FrameworkState::Completed => out.completed_frameworks.push(framework),
            _ => out.frameworks.push(framework),
        }
    }
    out
}

/// The plan: one window for each slave that has one; and the machines that are being drained.
fn maintenance(picked: &Picked, asked: Type) -> Answer {
    let machine = |row: &meros_proto::view::SlaveRow| pb::MachineId {
        hostname: Some(row.slave.hostname.clone()),
        ip: None,
    };
    let mut out = Answer::default();
    let planned = picked
        .slaves
        .iter()
        .filter_map(|row| Some((row, row.slave.unavailability?)));
    if asked == Type::GetMaintenanceSchedule {
        let windows = planned.map(|(row, window)| pb::maintenance::Window {
            machine_ids: vec![machine(row)],
            unavailability: events::unavailability(window),
        });
        let schedule = pb::maintenance::Schedule {
            windows: windows.collect(),
        };
        out.get_maintenance_schedule = Some(parts::GetMaintenanceSchedule { schedule });
        out.set_type(Kind::GetMaintenanceSchedule);
    } else {
        let draining = planned
            .map(|(row, _)| pb::maintenance::cluster_status::DrainingMachine { id: machine(row) });
        let status = pb::maintenance::ClusterStatus {
            draining_machines: draining.collect(),
            down_machines: Vec::new(),
        };
        out.get_maintenance_status = Some(parts::GetMaintenanceStatus { status });
        out.set_type(Kind::GetMaintenanceStatus);
    }
    out
}

fn of_roles(api: &Api, asked: Type) -> Result<Answer, ApiError> {
    let model = api.projection.read();
    let rows = |filter| model.roles(filter, None, super::reads::ROWS_MAX).rows;
    let ids = model.master().map(|it| Ids::new(it.cluster_id));
    let ids = ids.ok_or(Refusal::Recovering)?;
    let mut out = Answer::default();
    let kind = match asked {
        Type::GetRoles => {
            let frameworks = super::reads::frameworks_of_roles(&model);
            let rows = rows(RoleFilter::Any);
            let roles = rows.iter().map(|row| {
                let frameworks = frameworks.get(row.role.as_str());
                views::role(ids, row, frameworks.map_or(&[][..], Vec::as_slice))
            });
            out.get_roles = Some(parts::GetRoles {
                roles: roles.collect(),
            });
            Kind::GetRoles
        }
        Type::GetWeights => {
            let rows = rows(RoleFilter::WithWeight);
            out.get_weights = Some(parts::GetWeights {
                weight_infos: rows.iter().map(views::weight).collect(),
            });
            Kind::GetWeights
        }
        Type::GetQuota => {
            let rows = rows(RoleFilter::WithQuota);
            let status = pb::quota::QuotaStatus {
                infos: Vec::new(),
                configs: rows.iter().map(views::quota).collect(),
            };
            out.get_quota = Some(parts::GetQuota { status });
            Kind::GetQuota
        }
        Type::Unknown => return Err(ApiError::invalid("type is missing or not known")),
        other => {
            let why = format!("{} is not supported by Meros", other.as_str_name());
            return Err(ApiError::new(
                StatusCode::NOT_IMPLEMENTED,
                "unsupported",
                why,
            ));
        }
    };
    out.set_type(kind);
    Ok(out)
}
