//! `POST /api/v1`: what operators ask and order in the words of v1 (semantics O1, O2). Answers are from
//! the read model; orders are those of our own API, and the core decides.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Request, State};
use axum::http::{Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use meros_daemon::http::ApiError;
use meros_daemon::verbosity;
use meros_master_core::event::OperatorCall;
use meros_proto::ids::FrameworkId;
use meros_proto::operation::{Change, ChangeKind};
use meros_proto::refusal::Refusal;
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
use meros_v1::task::duration;
use meros_v1::{machines, operation, roles, views};
use tracing::info;

use super::reads::{Picked, snapshot};
use super::{maintenance, not_a_call, posted, watch};
use crate::http::Api;
use crate::http::orders::ordered;
use crate::projection::RoleFilter;

/// Of a path in a message: what a stranger wrote may be long.
const PATH_CHARS_MAX: usize = 128;

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
    let kind = call.r#type();
    if kind == Type::Subscribe {
        return watch::subscribe(api, &posted).await;
    }
    if kind == Type::SetLoggingLevel {
        let it = call.set_logging_level.as_ref();
        let it = it.ok_or_else(missing("set_logging_level"))?;
        let time = duration("set_logging_level.duration", it.duration).map_err(refused)?;
        verbosity::set(it.level, time)?;
        return Ok(StatusCode::OK.into_response());
    }
    let media = posted.answer;
    let of_call = Arc::clone(&api);
    // Picking and writing out are kept away from the threads that serve the network.
    let made = super::blocking(move || {
        Ok(match order_of(&of_call, &call, ids)? {
            Some((order, status)) => Made::Order(order, status),
            None => Made::Answer(encode(media, &answer(&of_call, &call)?)),
        })
    });
    match made.await? {
        Made::Answer(body) => {
            Ok(([(header::CONTENT_TYPE, Media::name(media))], body).into_response())
        }
        Made::Order(order, status) => {
            info!(call = kind.as_str_name(), "operator orders over v1");
            ordered(&api, order).await?;
            Ok(status.into_response())
        }
    }
}

/// What comes of a call.
enum Made {
    /// What is asked for.
    Answer(Vec<u8>),
    /// What the core is to do, and the status when it is done.
    Order(OperatorCall, StatusCode),
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
fn order_of(
    api: &Api,
    call: &Call,
    ids: Ids,
) -> Result<Option<(OperatorCall, StatusCode)>, ApiError> {
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
            let quotas: Result<_, Refused> = it.quota_configs.iter().map(roles::quota).collect();
            OperatorCall::SetQuotas {
                quotas: quotas.map_err(refused)?,
                force: it.force(),
            }
        }
        Type::SetQuota => {
            let it = call.set_quota.as_ref().ok_or_else(missing("set_quota"))?;
            super::roles::set_quota(api, &it.quota_request)?
        }
        Type::RemoveQuota => {
            let it = call.remove_quota.as_ref();
            super::roles::remove_quota(api, &it.ok_or_else(missing("remove_quota"))?.role)?
        }
        Type::UpdateWeights => {
            let it = call
                .update_weights
                .as_ref()
                .ok_or_else(missing("update_weights"))?;
            let weights = roles::weights(&it.weight_infos).map_err(refused)?;
            OperatorCall::SetWeights { weights }
        }
        Type::UpdateMaintenanceSchedule => {
            let it = call.update_maintenance_schedule.as_ref();
            let it = it.ok_or_else(missing("update_maintenance_schedule"))?;
            maintenance::plan(api, &it.schedule)?
        }
        Type::StartMaintenance => {
            let it = call.start_maintenance.as_ref();
            let it = it.ok_or_else(missing("start_maintenance"))?;
            maintenance::start(api, &it.machines)?
        }
        Type::StopMaintenance => {
            let it = call.stop_maintenance.as_ref();
            let it = it.ok_or_else(missing("stop_maintenance"))?;
            maintenance::stop(api, &it.machines)?
        }
        Type::ReserveResources
        | Type::UnreserveResources
        | Type::CreateVolumes
        | Type::DestroyVolumes
        | Type::GrowVolume
        | Type::ShrinkVolume => {
            let order = change(call, ids)?;
            // It is on its way to the slave, which may still fail (semantics O2).
            return Ok(Some((order, StatusCode::ACCEPTED)));
        }
        _ => return Ok(None),
    };
    Ok(Some((order, StatusCode::OK)))
}

fn change(call: &Call, ids: Ids) -> Result<OperatorCall, ApiError> {
    let (agent, change) = match (call.r#type(), &call.grow_volume, &call.shrink_volume) {
        (Type::GrowVolume, Some(it), _) => {
            let agent = it.agent_id.as_ref();
            let agent = agent.ok_or_else(missing("grow_volume.agent_id"))?;
            (agent, operation::grow(&it.volume, &it.addition))
        }
        (Type::ShrinkVolume, _, Some(it)) => {
            let agent = it.agent_id.as_ref();
            let agent = agent.ok_or_else(missing("shrink_volume.agent_id"))?;
            (agent, operation::shrink(&it.volume, it.subtract))
        }
        (Type::GrowVolume | Type::ShrinkVolume, ..) => return Err(missing("what its type names")()),
        _ => return change_of_list(call, ids),
    };
    Ok(OperatorCall::ChangeResources {
        slave_id: ids.read_slave(agent),
        change: Box::new(change.map_err(refused)?),
    })
}

/// One that names a list of resources.
fn change_of_list(call: &Call, ids: Ids) -> Result<OperatorCall, ApiError> {
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

/// The answer to a question.
fn answer(api: &Api, call: &Call) -> Result<Answer, ApiError> {
    let asked = call.r#type();
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
            let level = verbosity::level();
            out.get_logging_level = Some(parts::GetLoggingLevel { level });
            Kind::GetLoggingLevel
        }
        Type::ListFiles => {
            let it = call.list_files.as_ref().ok_or_else(missing("list_files"))?;
            out.list_files = Some(list_files(&it.path)?);
            Kind::ListFiles
        }
        Type::ReadFile => {
            let it = call.read_file.as_ref().ok_or_else(missing("read_file"))?;
            return Err(no_such_file(&it.path));
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
            out.get_executors = Some(executors(&picked()?));
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
        Type::GetMaintenanceSchedule => {
            let schedule = machines::schedule(&maintenance::rows(api)?);
            out.get_maintenance_schedule = Some(parts::GetMaintenanceSchedule { schedule });
            Kind::GetMaintenanceSchedule
        }
        Type::GetMaintenanceStatus => {
            let status = machines::status(&maintenance::rows(api)?);
            out.get_maintenance_status = Some(parts::GetMaintenanceStatus { status });
            Kind::GetMaintenanceStatus
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
        get_executors: Some(executors(picked)),
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

fn executors(picked: &Picked) -> parts::GetExecutors {
    views::executors(picked.ids, picked.executors.iter().map(|it| &**it))
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

/// The master shows no files, so there is its root with nothing in it.
fn list_files(path: &str) -> Result<parts::ListFiles, ApiError> {
    match path {
        "" | "/" => Ok(parts::ListFiles::default()),
        _ => Err(no_such_file(path)),
    }
}

fn no_such_file(path: &str) -> ApiError {
    let path: String = path.chars().take(PATH_CHARS_MAX).collect();
    let why = format!(
        "the master shows no {path:?}, nor any other file: its log is where its standard error goes, \
         and sandboxes are at the slaves"
    );
    ApiError::new(StatusCode::NOT_FOUND, "no_such_file", why)
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
            let status = views::quotas(&rows);
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
