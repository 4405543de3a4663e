//! Containers that run, and what they use: GET_CONTAINERS of the operator API, and `GET /containers` and
//! `GET /monitor/statistics` as the tools of Mesos read them (semantics O4, R6). There are none below others,
//! and none without a task or an executor. Also WAIT_CONTAINER and KILL_CONTAINER.

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
use meros_proto::resources::{ResourceName, Resources};
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
use super::{Api, CORE_PATIENCE, ROWS_MAX, WAITS_MAX, error};
use crate::container::{Container, ExitReport, Usage};
use crate::sandbox::parse_container;
use crate::shell::containers::exit_of;
use crate::shell::inbox::Input;
use crate::shell::running::{Owner, RunningContainer};

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
    let ask = |reply| Input::Containers(ROWS_MAX, reply);
    let running = api.inbox.ask(ask, CORE_PATIENCE).await;
    let running = running.map_err(|_| error::stopping())?;
    // A dozen files of the kernel are read for each container: not for everybody at one time.
    let turn = Arc::clone(&api.measuring).acquire_owned().await;
    let turn = turn.map_err(|_| error::stopping())?;
    let measured = spawn_blocking(move || {
        let _turn = turn;
        let ids = running.cluster_id.map(Ids::new);
        let some = running.some.iter();
        ids.map_or_else(Vec::new, |ids| some.map(|it| row(ids, it)).collect())
    });
    measured.await.map_err(|_| error::stopping())
}

fn row(ids: Ids, it: &RunningContainer) -> get_containers::Container {
    let container_id = pb::ContainerId {
        value: it.id.to_string(),
        parent: None,
    };
    // A command task is its own executor.
    let executor_id = match &it.owner {
        Owner::Task(task) => task.to_string(),
        Owner::Executor(executor) => executor.to_string(),
    };
    get_containers::Container {
        framework_id: Some(ids.framework(it.framework_id)),
        executor_id: Some(pb::ExecutorId { value: executor_id }),
        executor_name: Some(it.name.clone()),
        container_id: container_id.clone(),
        container_status: Some(pb::ContainerStatus {
            executor_pid: it.pid,
            container_id: Some(container_id),
            ..Default::default()
        }),
        resource_statistics: Some(measured(&it.process.stats(), &it.resources)),
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
    let own = parse_container(&id.value);
    let own = own.filter(|own| id.parent.is_none() && own.to_string() == id.value);
    let running = match own {
        Some(own) => {
            let ask = |reply| Input::Container(own, reply);
            let asked = api.inbox.ask(ask, CORE_PATIENCE).await;
            asked.map_err(|_| error::stopping())?
        }
        None => None,
    };
    running.ok_or_else(|| {
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
