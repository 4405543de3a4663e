//! HTTP: health, metrics, tasks, what tasks write, the files in their sandboxes, the way into their containers, and
//! the Mesos v1 operator API.
//!
//! Everything that a client can do is bounded: connections, idle time, requests at work, their time,
//! the size of an answer. Errors are JSON, `{"code": …, "message": …}`: programs match on the code,
//! people read the message. Only the calls of executors and operators that speak v1 have a body.

mod call;
mod containers;
mod error;
mod exec;
mod executor;
mod files;
mod images;
mod logs;
mod operator;
mod reads;
mod state;
mod usage;

use std::sync::Arc;
use std::time::Duration;

use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use meros_daemon::http::{ApiError, Limits};
use meros_proto::attribute::Attributes;
use meros_proto::message::exec::EXEC_PATH;
use meros_proto::view::SettingView;
use serde::Deserialize;
use serde_json::json;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tokio::task::spawn_blocking;

pub(crate) use executor::Executors;

use crate::exec::Execs;
use crate::files::Files;
use crate::metrics::Metrics;
use crate::output::Outputs;
use crate::shell::inbox::{Inbox, Input};
use crate::usage::{ROWS_MAX as ROWS_WITH_METRICS_MAX, Usages};

/// Requests at work at the same time; most of them are followers of an output that wait, for less
/// than a request may take.
const REQUESTS_MAX: usize = 256;
/// Downloads of files at the same time; each has a thread that reads.
const DOWNLOADS_MAX: usize = 32;
/// How long the core may take to answer.
const CORE_PATIENCE: Duration = Duration::from_secs(5);
/// Requests at the same time that wait for the end of a container.
const WAITS_MAX: usize = 256;
/// Requests at one time that measure all containers.
const MEASURING_MAX: usize = 2;
/// Streams of executors that speak v1; each calls on another connection.
const EXECUTOR_STREAMS_MAX: usize = 1_024;
const CONNECTIONS_MAX: usize = 2 * EXECUTOR_STREAMS_MAX + 512;
/// Between two requests of a connection. v1 executors keep one for their calls, and take its end for an
/// error; the one that idles longest makes room for a new one anyway.
const IDLE: Duration = Duration::from_secs(60 * 60);
/// Rows of an answer unless asked for otherwise, and the most.
const ROWS_DEFAULT: usize = 1_000;
const ROWS_MAX: usize = 10_000;

/// What the handlers share.
#[derive(Debug)]
pub(crate) struct Api {
    inbox: Inbox,
    outputs: Arc<Outputs>,
    files: Files,
    metrics: Arc<Metrics>,
    executors: Executors,
    /// None if nobody may come in.
    execs: Option<Arc<Execs>>,
    site: Site,
    /// Turns of those who measure containers.
    measuring: Arc<Semaphore>,
    /// Places of downloads, each of which has a thread, and of those who wait for containers: they must not
    /// take those of executors, nor the threads that containers are started with.
    downloads: Arc<Semaphore>,
    waits: Arc<Semaphore>,
    /// Set when the slave stops: answers without an end are over then.
    stop: watch::Receiver<bool>,
}

/// What the slave is, as it was started.
#[derive(Debug)]
pub(crate) struct Site {
    /// By which tasks and people reach its machine.
    pub(crate) hostname: String,
    /// Where it listens.
    pub(crate) http_address: String,
    pub(crate) attributes: Attributes,
    pub(crate) settings: Vec<SettingView>,
}

impl Api {
    /// With everything a handler needs.
    pub(crate) fn new(
        inbox: Inbox,
        outputs: Arc<Outputs>,
        files: Files,
        metrics: Arc<Metrics>,
        executors: Executors,
        site: Site,
        stop: watch::Receiver<bool>,
    ) -> Self {
        Self {
            inbox,
            outputs,
            files,
            metrics,
            executors,
            execs: None,
            site,
            measuring: Arc::new(Semaphore::new(MEASURING_MAX)),
            downloads: Arc::new(Semaphore::new(DOWNLOADS_MAX)),
            waits: Arc::new(Semaphore::new(WAITS_MAX)),
            stop,
        }
    }

    /// Lets operators into containers, if there is a way.
    pub(crate) fn with_execs(self, execs: Option<Arc<Execs>>) -> Self {
        Self { execs, ..self }
    }
}

/// Serves until `stop` is set or its sender is gone; requests at work are finished.
pub(crate) async fn serve(listener: TcpListener, api: Arc<Api>, stop: watch::Receiver<bool>) {
    let limits = Limits {
        requests: REQUESTS_MAX,
        connections: CONNECTIONS_MAX,
        streams: DOWNLOADS_MAX + WAITS_MAX + EXECUTOR_STREAMS_MAX,
        body_bytes: executor::CALL_BYTES_MAX,
        idle: IDLE,
        ..Limits::default()
    };
    let stats = Arc::clone(&api.metrics.http);
    meros_daemon::http::serve(listener, router(api), limits, stats, stop).await;
}

fn router(api: Arc<Api>) -> Router {
    Router::new()
        .route("/health", get(health))
        .route("/metrics", get(metrics))
        .route("/api/v1/isolation", get(isolation))
        .route(EXEC_PATH, get(exec::open))
        .route("/api/v1/usage/{framework}/{task}", get(usage::read))
        .route("/api/v1/tasks", get(tasks))
        .route("/api/v1/executors", get(executors))
        .route("/api/v1/logs/{framework}/{task}/{stream}", get(logs::read))
        .merge(files::routes())
        .merge(images::routes())
        .merge(state::routes())
        .merge(reads::routes())
        .merge(containers::routes())
        .merge(operator::routes())
        .merge(executor::routes())
        .fallback(async || error::not_found())
        .method_not_allowed_fallback(async || error::method_not_allowed())
        .with_state(api)
}

/// 200 while a master takes this slave as registered, else 503; the body says the same.
async fn health(State(api): State<Arc<Api>>) -> Result<Response, ApiError> {
    let asked = api.inbox.ask(Input::Snapshot, CORE_PATIENCE).await;
    let snapshot = asked.map_err(|_| error::stopping())?;
    let status = if snapshot.registered {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    let body = json!({
        "registered": snapshot.registered,
        "slave_id": snapshot.identity.map(|identity| identity.slave_id),
        "cluster_id": snapshot.identity.map(|identity| identity.cluster_id),
        "tasks": snapshot.tasks.values().sum::<u64>(),
        "version": env!("CARGO_PKG_VERSION"),
    });
    Ok((status, Json(body)).into_response())
}

async fn metrics(State(api): State<Arc<Api>>) -> Result<Response, ApiError> {
    let asked = api.inbox.ask(Input::Snapshot, CORE_PATIENCE).await;
    let snapshot = asked.map_err(|_| error::stopping())?;
    let ask = |reply| Input::Containers(ROWS_WITH_METRICS_MAX, reply);
    let running = api.inbox.ask(ask, CORE_PATIENCE).await;
    let running = running.map_err(|_| error::stopping())?;
    let turn = Arc::clone(&api.measuring).acquire_owned().await;
    let turn = turn.map_err(|_| error::stopping())?;
    let measured = spawn_blocking(move || {
        let _turn = turn;
        Usages::of(&running)
    });
    let usages = measured.await.map_err(|_| error::stopping())?;
    let text = api
        .metrics
        .text(&snapshot, usages)
        .map_err(|error| ApiError::internal(error.to_string()))?;
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    Ok(([(header::CONTENT_TYPE, kind)], text).into_response())
}

/// What keeps tasks apart, part by part.
async fn isolation(State(api): State<Arc<Api>>) -> Response {
    Json(&api.metrics.isolation).into_response()
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RowsQuery {
    /// Rows at most.
    limit: Option<usize>,
}

fn rows_of(query: Result<Query<RowsQuery>, QueryRejection>) -> Result<usize, ApiError> {
    let Query(query) = query.map_err(|error| ApiError::invalid(error.body_text()))?;
    match query.limit.unwrap_or(ROWS_DEFAULT) {
        limit @ 1..=ROWS_MAX => Ok(limit),
        other => {
            let message = format!("limit is {other}: it must be 1 to {ROWS_MAX}");
            Err(ApiError::invalid(message))
        }
    }
}

async fn tasks(
    State(api): State<Arc<Api>>,
    query: Result<Query<RowsQuery>, QueryRejection>,
) -> Result<Response, ApiError> {
    let limit = rows_of(query)?;
    let rows = api
        .inbox
        .ask(|reply| Input::Tasks(limit, reply), CORE_PATIENCE)
        .await;
    let mut rows = rows.map_err(|_| error::stopping())?;
    for row in &mut rows {
        row.say_sandbox(|task, container| api.files.sandbox(task, container));
    }
    Ok(Json(rows).into_response())
}

/// Executors of frameworks.
async fn executors(
    State(api): State<Arc<Api>>,
    query: Result<Query<RowsQuery>, QueryRejection>,
) -> Result<Response, ApiError> {
    let limit = rows_of(query)?;
    let rows = api
        .inbox
        .ask(|reply| Input::Executors(limit, reply), CORE_PATIENCE)
        .await;
    Ok(Json(rows.map_err(|_| error::stopping())?).into_response())
}
