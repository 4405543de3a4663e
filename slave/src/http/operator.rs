//! `POST /api/v1`: what operators ask of a slave in the words of v1 (semantics O4, A2).
//!
//! A slave remembers no tasks, executors or frameworks whose last update is acknowledged, so of what is
//! completed there is nothing. Containers below others, those without a task, and sessions in them are not
//! there: those calls are answered 501.

use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, FromRequest, Request, State};
use axum::http::{Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::any;
use meros_daemon::http::ApiError;
use meros_daemon::verbosity;
use meros_v1::agent;
use meros_v1::encoding::{decode, encode};
use meros_v1::ids::Ids;
use meros_v1::pb;
use meros_v1::pb::agent::call::Type;
use meros_v1::pb::agent::response::{self as parts, Type as Kind};
use meros_v1::pb::agent::{Call, Response as Answer};
use meros_v1::state::VERSION;
use meros_v1::task::duration;
use tokio::task::spawn_blocking;

use super::call::{negotiated, not_a_call};
use super::{Api, CORE_PATIENCE, ROWS_MAX, containers, error, files, reads};
use crate::shell::inbox::Input;
use crate::shell::snapshot::Picked;

/// The largest call: a path of a file, with all that a client may add.
const CALL_BYTES_MAX: usize = 64 << 10;

/// What is below it and has no name of its own falls back to it (semantics R6).
pub(super) fn routes() -> Router<Arc<Api>> {
    let mut router = Router::new();
    for prefix in ["", "/slave(1)"] {
        for end in ["", "/", "/operator"] {
            router = router.route(&format!("{prefix}/api/v1{end}"), any(call));
        }
    }
    router.layer(DefaultBodyLimit::max(CALL_BYTES_MAX))
}

async fn call(State(api): State<Arc<Api>>, request: Request) -> Response {
    if request.method() != Method::POST {
        return not_a_call();
    }
    answered(&api, request)
        .await
        .unwrap_or_else(IntoResponse::into_response)
}

async fn answered(api: &Arc<Api>, request: Request) -> Result<Response, ApiError> {
    let media = negotiated(request.headers())?;
    let body = Bytes::from_request(request, &()).await;
    let body = body.map_err(|error| ApiError::new(error.status(), "invalid", error.body_text()))?;
    let call: Call = decode(media.call, &body)
        .map_err(|error| ApiError::invalid(format!("the call cannot be read: {error}")))?;
    let kind = call.r#type();
    let is_order = matches!(kind, Type::SetLoggingLevel | Type::KillContainer);
    if is_order && api.executors.authenticate() {
        // Tasks reach this port. Where they do not trust each other none of them may kill the others.
        let why = "this slave takes orders from nobody over HTTP: it was started with authenticate_executors, \
                   and operators have nothing yet that proves who they are";
        return Err(ApiError::new(StatusCode::FORBIDDEN, "forbidden", why));
    }
    if kind == Type::SetLoggingLevel {
        let it = call.set_logging_level.as_ref();
        let it = it.ok_or_else(missing("set_logging_level"))?;
        let time = duration("set_logging_level.duration", it.duration)
            .map_err(|refused| ApiError::invalid(refused.to_string()))?;
        verbosity::set(it.level, time)?;
        return Ok(StatusCode::OK.into_response());
    }
    let media = media.answer;
    let body = match kind {
        Type::WaitContainer => {
            let it = call.wait_container.as_ref();
            let it = it.ok_or_else(missing("wait_container"))?;
            return containers::wait(api, &it.container_id, media).await;
        }
        Type::KillContainer => {
            let it = call.kill_container.as_ref();
            containers::kill(api, it.ok_or_else(missing("kill_container"))?).await?;
            return Ok(StatusCode::OK.into_response());
        }
        Type::GetState | Type::GetTasks | Type::GetExecutors | Type::GetFrameworks => {
            let picked = picked(api).await?;
            // Away from the threads that serve the network: there may be thousands.
            spawn_blocking(move || encode(media, &of_picked(kind, &picked))).await
        }
        _ => {
            let answer = answer(api, &call).await?;
            spawn_blocking(move || encode(media, &answer)).await
        }
    };
    let body = body.map_err(|error| ApiError::internal(error.to_string()))?;
    Ok(([(header::CONTENT_TYPE, media.name())], body).into_response())
}

fn missing(what: &'static str) -> impl Fn() -> ApiError {
    move || ApiError::invalid(format!("{what} is missing"))
}

/// All that is here.
async fn picked(api: &Api) -> Result<Picked, ApiError> {
    let asked = api
        .inbox
        .ask(|reply| Input::Pick(ROWS_MAX, reply), CORE_PATIENCE)
        .await;
    asked.map_err(|_| error::stopping())
}

/// The answer to a question that is not about tasks, executors and frameworks.
async fn answer(api: &Arc<Api>, call: &Call) -> Result<Answer, ApiError> {
    let mut out = Answer::default();
    let kind = match call.r#type() {
        Type::GetHealth => {
            out.get_health = Some(parts::GetHealth { healthy: true });
            Kind::GetHealth
        }
        Type::GetFlags => {
            let flags = api.site.settings.iter().map(|it| pb::Flag {
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
            let metrics = reads::snapshot(api).await?;
            let metrics = metrics.into_iter().map(|(name, value)| pb::Metric {
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
            let file_infos = files::list_call(api, it.path.clone()).await?;
            out.list_files = Some(parts::ListFiles { file_infos });
            Kind::ListFiles
        }
        Type::ReadFile => {
            let it = call.read_file.as_ref().ok_or_else(missing("read_file"))?;
            let read = files::read_call(api, it.path.clone(), it.offset, it.length);
            let (size, data) = read.await?;
            out.read_file = Some(parts::ReadFile {
                size,
                data: data.into(),
            });
            Kind::ReadFile
        }
        Type::GetContainers => {
            let containers = containers::list(api).await?;
            out.get_containers = Some(parts::GetContainers { containers });
            Kind::GetContainers
        }
        Type::GetOperations => {
            out.get_operations = Some(parts::GetOperations::default());
            Kind::GetOperations
        }
        Type::GetAgent => {
            let agent_info = Some(agent_info(api).await?);
            out.get_agent = Some(parts::GetAgent { agent_info });
            Kind::GetAgent
        }
        Type::GetResourceProviders => {
            out.get_resource_providers = Some(parts::GetResourceProviders::default());
            Kind::GetResourceProviders
        }
        Type::Unknown => return Err(ApiError::invalid("type is missing or not known")),
        other => {
            let why = format!(
                "{} is not supported by Meros: docs/mesos.md says what is",
                other.as_str_name()
            );
            let status = StatusCode::NOT_IMPLEMENTED;
            return Err(ApiError::new(status, "unsupported", why));
        }
    };
    out.set_type(kind);
    Ok(out)
}

/// This slave; without an id while no master has admitted it.
async fn agent_info(api: &Api) -> Result<pb::AgentInfo, ApiError> {
    let here = api.inbox.ask(|reply| Input::Pick(0, reply), CORE_PATIENCE);
    let here = here.await.map_err(|_| error::stopping())?;
    let site = &api.site;
    Ok(pb::AgentInfo {
        id: here
            .identity
            .map(|it| Ids::new(it.cluster_id).slave(it.slave_id)),
        ..agent::info(
            &site.hostname,
            &site.http_address,
            &here.total,
            &site.attributes,
        )
    })
}

/// The answer to a question about tasks, executors, frameworks, or all of them.
fn of_picked(asked: Type, picked: &Picked) -> Answer {
    let mut out = Answer::default();
    let kind = match asked {
        Type::GetTasks => {
            out.get_tasks = Some(tasks(picked));
            Kind::GetTasks
        }
        Type::GetExecutors => {
            out.get_executors = Some(executors(picked));
            Kind::GetExecutors
        }
        Type::GetFrameworks => {
            out.get_frameworks = Some(frameworks(picked));
            Kind::GetFrameworks
        }
        _ => {
            out.get_state = Some(parts::GetState {
                get_tasks: Some(tasks(picked)),
                get_executors: Some(executors(picked)),
                get_frameworks: Some(frameworks(picked)),
            });
            Kind::GetState
        }
    };
    out.set_type(kind);
    out
}

/// None while this slave is of no cluster: then there is nothing here that has an id.
fn ids(picked: &Picked) -> Option<Ids> {
    picked.identity.map(|it| Ids::new(it.cluster_id))
}

fn tasks(picked: &Picked) -> parts::GetTasks {
    let all = picked.tasks.iter();
    ids(picked).map_or_else(Default::default, |ids| agent::tasks(ids, all))
}

/// Those of frameworks, and for each command task that has not ended the one that it is itself.
fn executors(picked: &Picked) -> parts::GetExecutors {
    let Some(ids) = ids(picked) else {
        return parts::GetExecutors::default();
    };
    let own = picked.executors.iter();
    let own = own.map(|it| agent::executor(ids, &it.view, it.shutdown_grace, it.is_group));
    let live = picked.tasks.iter().filter(|task| {
        let is_command = task.executor_id.is_none();
        is_command && !task.state.is_terminal()
    });
    let of_tasks = live.map(|task| agent::command_executor(ids, task));
    parts::GetExecutors {
        executors: own.chain(of_tasks).collect(),
        completed_executors: Vec::new(),
    }
}

fn frameworks(picked: &Picked) -> parts::GetFrameworks {
    let Some(ids) = ids(picked) else {
        return parts::GetFrameworks::default();
    };
    let all = picked.frameworks.values();
    let all = all.map(|(framework, roles)| agent::framework(ids, framework, roles));
    parts::GetFrameworks {
        frameworks: all.collect(),
        completed_frameworks: Vec::new(),
    }
}
