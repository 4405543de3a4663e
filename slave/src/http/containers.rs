//! Containers that run, and what they use: GET_CONTAINERS of the operator API, and `GET /containers` and
//! `GET /monitor/statistics` as the tools of Mesos read them (semantics O4, R6). There are none below others,
//! and none without a task or an executor. Also WAIT_CONTAINER and KILL_CONTAINER.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use meros_daemon::http::{ApiError, Endless};
use meros_proto::ids::{ExecutorId, FrameworkId};
use meros_proto::resources::{ResourceName, Resources};
use meros_slave_core::ContainerId;
use meros_v1::agent;
use meros_v1::encoding::{Media, Message, Name, encode};
use meros_v1::ids::Ids;
use meros_v1::pb;
use meros_v1::pb::agent::Response as Answer;
use meros_v1::pb::agent::call::KillContainer;
use meros_v1::pb::agent::response::{Type as Kind, get_containers};
use rustix::process::Signal;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::task::spawn_blocking;
use tracing::info;

use super::files::Pieces;
use super::operator::picked;
use super::{Api, CORE_PATIENCE, WAITS_MAX, error};
use crate::container::{Container, ExitReport, Usage};
use crate::sandbox::parse_container;
use crate::shell::containers::exit_of;
use crate::shell::inbox::Input;
use crate::shell::snapshot::Picked;

/// Of an id in a message: what a stranger wrote may be long.
const ID_CHARS_MAX: usize = 64;

pub(super) fn routes() -> Router<Arc<Api>> {
    let mut router = Router::new();
    for prefix in ["", "/slave(1)"] {
        for ending in ["", ".json", "/"] {
            let at = |name: &str| format!("{prefix}/{name}{ending}");
            router = router
                .route(&at("containers"), get(containers))
                .route(&at("monitor/statistics"), get(statistics));
        }
    }
    router
}

async fn containers(State(api): State<Arc<Api>>) -> Result<Response, ApiError> {
    let rows = list(&api).await?;
    let shown = rows.iter().map(|row| {
        let mut shown = usage_of(row);
        shown["container_id"] = json!(row.container_id.value);
        shown["status"] = row.container_status.as_ref().map_or(json!({}), json_of);
        shown
    });
    Ok(Json(shown.collect::<Vec<Value>>()).into_response())
}

async fn statistics(State(api): State<Arc<Api>>) -> Result<Response, ApiError> {
    let rows = list(&api).await?;
    Ok(Json(rows.iter().map(usage_of).collect::<Vec<Value>>()).into_response())
}

fn usage_of(row: &get_containers::Container) -> Value {
    let framework_id = row.framework_id.as_ref().map(|id| id.value.as_str());
    let executor_id = row.executor_id.as_ref().map(|id| id.value.as_str());
    json!({
        "framework_id": framework_id,
        "executor_id": executor_id,
        "executor_name": row.executor_name,
        "source": "",
        "statistics": row.resource_statistics.as_ref().map_or(json!({}), json_of),
    })
}

fn json_of<M: Message + Name>(message: &M) -> Value {
    serde_json::from_slice(&encode(Media::Json, message)).expect("it was written as JSON")
}

/// All that run, each measured now.
pub(super) async fn list(api: &Api) -> Result<Vec<get_containers::Container>, ApiError> {
    let picked = picked(api).await?;
    let running = api.inbox.ask(Input::Containers, CORE_PATIENCE).await;
    let running = running.map_err(|_| error::stopping())?;
    // A dozen files of the kernel are read for each container: not for everybody at one time.
    let turn = Arc::clone(&api.measuring).acquire_owned().await;
    let turn = turn.map_err(|_| error::stopping())?;
    let measured = spawn_blocking(move || {
        let _turn = turn;
        rows(&picked, &running)
    });
    measured.await.map_err(|_| error::stopping())
}

fn rows(
    picked: &Picked,
    running: &BTreeMap<ContainerId, Arc<Container>>,
) -> Vec<get_containers::Container> {
    let Some(identity) = picked.identity else {
        return Vec::new();
    };
    let ids = Ids::new(identity.cluster_id);
    let process = |id: Option<ContainerId>| id.and_then(|id| running.get_key_value(&id));
    let mut given: BTreeMap<(FrameworkId, &ExecutorId), Resources> = BTreeMap::new();
    let mut rows = Vec::new();
    for task in &picked.tasks {
        let view = &task.view;
        if let Some(executor) = &view.executor_id {
            if !view.state.is_terminal() {
                let key = (view.framework_id, executor);
                let sum = given.entry(key).or_default();
                // A sum that is too large is shown as far as it goes.
                let _ = sum.checked_add_assign(&view.resources);
            }
        } else if let Some((id, process)) = process(task.container) {
            let of = Of {
                framework_id: view.framework_id,
                executor_id: view.task_id.as_str(),
                name: &view.name,
                pid: task.pid,
            };
            rows.push(row(ids, *id, process, of, &view.resources));
        }
    }
    for it in &picked.executors {
        let Some((id, process)) = process(it.container) else {
            continue;
        };
        let executor = &it.view;
        let key = (executor.framework_id, &executor.executor_id);
        let mut resources = given.remove(&key).unwrap_or_default();
        let _ = resources.checked_add_assign(&executor.resources);
        let of = Of {
            framework_id: executor.framework_id,
            executor_id: executor.executor_id.as_str(),
            name: &executor.name,
            pid: it.pid,
        };
        rows.push(row(ids, *id, process, of, &resources));
    }
    rows
}

/// What a container is for.
struct Of<'a> {
    framework_id: FrameworkId,
    /// A command task is its own executor.
    executor_id: &'a str,
    name: &'a str,
    pid: Option<u32>,
}

fn row(
    ids: Ids,
    id: ContainerId,
    process: &Container,
    of: Of<'_>,
    resources: &Resources,
) -> get_containers::Container {
    let container_id = pb::ContainerId {
        value: id.to_string(),
        parent: None,
    };
    get_containers::Container {
        framework_id: Some(ids.framework(of.framework_id)),
        executor_id: Some(pb::ExecutorId {
            value: of.executor_id.to_owned(),
        }),
        executor_name: Some(of.name.to_owned()),
        container_id: container_id.clone(),
        container_status: Some(pb::ContainerStatus {
            executor_pid: of.pid,
            container_id: Some(container_id),
            ..Default::default()
        }),
        resource_statistics: Some(measured(&process.stats(), resources)),
    }
}

/// What the kernel does not count on this host is left out.
fn measured(usage: &Usage, resources: &Resources) -> pb::ResourceStatistics {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let seconds = |time: Option<Duration>| time.map(|it| it.as_secs_f64());
    let count = |count: Option<u64>| count.map(|it| u32::try_from(it).unwrap_or(u32::MAX));
    pb::ResourceStatistics {
        timestamp: now.unwrap_or_default().as_secs_f64(),
        cpus_user_time_secs: seconds(usage.cpu_user_time),
        cpus_system_time_secs: seconds(usage.cpu_system_time),
        cpus_limit: Some(resources.scalar(&ResourceName::CPUS).as_f64()),
        cpus_nr_periods: count(usage.cpu_periods),
        cpus_nr_throttled: count(usage.cpu_throttled_periods),
        cpus_throttled_time_secs: seconds(usage.cpu_throttled_time),
        mem_total_bytes: usage.memory_bytes,
        mem_rss_bytes: usage.memory_anon_bytes,
        mem_anon_bytes: usage.memory_anon_bytes,
        mem_cache_bytes: usage.memory_file_bytes,
        mem_file_bytes: usage.memory_file_bytes,
        mem_limit_bytes: usage.memory_limit_bytes,
        threads: count(usage.pids),
    }
}

/// The container that a call names.
async fn find(api: &Api, id: &pb::ContainerId) -> Result<Arc<Container>, ApiError> {
    let running = api.inbox.ask(Input::Containers, CORE_PATIENCE).await;
    let mut running = running.map_err(|_| error::stopping())?;
    let own = parse_container(&id.value);
    let own = own.filter(|own| id.parent.is_none() && own.to_string() == id.value);
    own.and_then(|own| running.remove(&own)).ok_or_else(|| {
        let shown: String = id.value.chars().take(ID_CHARS_MAX).collect();
        let why = format!("Container {shown:?} cannot be found: it does not run here");
        ApiError::new(StatusCode::NOT_FOUND, "container_unknown", why)
    })
}

/// KILL_CONTAINER: SIGKILL, unless it says otherwise, is for all processes of the container, another signal
/// for its first process alone.
pub(super) async fn kill(api: &Api, call: &KillContainer) -> Result<(), ApiError> {
    let number = call.signal.unwrap_or(Signal::KILL.as_raw());
    let signal = Signal::from_named_raw(number).ok_or_else(|| {
        ApiError::invalid(format!(
            "signal is {number}: it must be one that has a name, such as 15 or 9"
        ))
    })?;
    let process = find(api, &call.container_id).await?;
    info!(
        container = process.id(),
        number, "an operator signals a container over v1"
    );
    if signal == Signal::KILL {
        process.kill(Duration::ZERO);
        return Ok(());
    }
    let id = process.id().to_owned();
    let sent = spawn_blocking(move || process.signal(signal)).await;
    let sent = sent.map_err(|_| error::stopping())?;
    sent.map_err(|error| {
        let why = format!("Container {id:?} ends: {error}");
        ApiError::new(StatusCode::NOT_FOUND, "container_unknown", why)
    })
}

/// WAIT_CONTAINER: 200 at once, and the body when the container has ended, however long that takes. A slave
/// that stops cuts the answer.
pub(super) async fn wait(
    api: &Api,
    id: &pb::ContainerId,
    media: Media,
) -> Result<Response, ApiError> {
    let process = find(api, id).await?;
    let place = Arc::clone(&api.waits).try_acquire_owned();
    let place = place.map_err(|_| error::busy(WAITS_MAX, "calls that wait"))?;
    let (sender, pieces) = mpsc::channel(1);
    let mut stop = api.stop.clone();
    tokio::spawn(async move {
        let _place = place;
        let piece = tokio::select! {
            report = process.wait() => Ok(Bytes::from(encode(media, &ended(&report)))),
            // Its sender gone is the same as asked.
            _ = stop.wait_for(|stop| *stop) => Err(io::Error::other("the slave stops")),
            () = sender.closed() => return,
        };
        // Who does not read any more does not want to know.
        let _ = sender.send(piece).await;
    });
    let kind = [(header::CONTENT_TYPE, media.name())];
    let mut answer = (kind, Body::new(Pieces(pieces))).into_response();
    answer.extensions_mut().insert(Endless);
    Ok(answer)
}

fn ended(report: &ExitReport) -> Answer {
    let exit = exit_of(report);
    let limitation = exit.as_ref().and_then(|it| it.limitation.as_ref());
    let reason = limitation.map(|it| it.reason);
    let exit = exit.map(|it| it.exit);
    let mut out = Answer {
        wait_container: Some(agent::ended(exit, reason, report.message())),
        ..Default::default()
    };
    out.set_type(Kind::WaitContainer);
    out
}
