//! HTTP: health, metrics, tasks, and what tasks write.
//!
//! Everything that a client can do is bounded: connections, idle time, requests at work, their time,
//! the size of an answer. Errors are JSON, `{"code": …, "message": …}`: programs match on the code,
//! people read the message. There is no request with a body.

mod error;
mod listener;
mod logs;

use std::sync::Arc;
use std::time::Duration;

use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, Request, State};
use axum::http::{StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::json;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tower_http::limit::RequestBodyLimitLayer;

use crate::metrics::Metrics;
use crate::output::Outputs;
use crate::shell::inbox::{Inbox, Input};
use error::ApiError;
use listener::BoundedListener;

/// Requests at work at the same time; most of them are followers of an output that wait.
const REQUESTS_MAX: usize = 256;
/// How long a request may take: longer than a follower may wait.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(15);
/// How long the core may take to answer.
const CORE_PATIENCE: Duration = Duration::from_secs(5);
/// No request needs a body.
const BODY_BYTES_MAX: usize = 1 << 10;
/// Rows of an answer unless asked for otherwise, and the most.
const ROWS_DEFAULT: usize = 1_000;
const ROWS_MAX: usize = 10_000;

/// What the handlers share.
#[derive(Debug)]
pub(crate) struct Api {
    inbox: Inbox,
    outputs: Arc<Outputs>,
    metrics: Arc<Metrics>,
    room: Semaphore,
}

impl Api {
    /// With everything a handler needs.
    pub(crate) fn new(inbox: Inbox, outputs: Arc<Outputs>, metrics: Arc<Metrics>) -> Self {
        Self {
            inbox,
            outputs,
            metrics,
            room: Semaphore::new(REQUESTS_MAX),
        }
    }
}

/// Serves until `stop` is set or its sender is gone; requests at work are finished.
pub(crate) async fn serve(
    listener: TcpListener,
    api: Arc<Api>,
    mut stop: watch::Receiver<bool>,
) -> std::io::Result<()> {
    let stopped = async move { drop(stop.wait_for(|stop| *stop).await) };
    axum::serve(BoundedListener::new(listener), router(api))
        .with_graceful_shutdown(stopped)
        .await
}

fn router(api: Arc<Api>) -> Router {
    Router::new()
        .route("/health", get(health))
        .route("/metrics", get(metrics))
        .route("/api/v1/tasks", get(tasks))
        .route("/api/v1/logs/{framework}/{task}/{stream}", get(logs::read))
        .fallback(async || ApiError::not_found())
        .method_not_allowed_fallback(async || ApiError::method_not_allowed())
        .layer(RequestBodyLimitLayer::new(BODY_BYTES_MAX))
        .layer(middleware::from_fn_with_state(Arc::clone(&api), guard))
        .with_state(api)
}

/// Around every request: room, time, count.
async fn guard(State(api): State<Arc<Api>>, request: Request, next: Next) -> Response {
    let response = match api.room.try_acquire() {
        Ok(_place) => match tokio::time::timeout(REQUEST_TIMEOUT, next.run(request)).await {
            Ok(response) => response,
            Err(_) => ApiError::timeout(REQUEST_TIMEOUT).into_response(),
        },
        Err(_) => ApiError::busy(REQUESTS_MAX).into_response(),
    };
    api.metrics.answered(response.status().as_u16());
    response
}

/// 200 while a master takes this slave as registered, else 503; the body says the same.
async fn health(State(api): State<Arc<Api>>) -> Result<Response, ApiError> {
    let asked = api.inbox.ask(Input::Snapshot, CORE_PATIENCE).await;
    let snapshot = asked.map_err(|_| ApiError::stopping())?;
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
    let snapshot = asked.map_err(|_| ApiError::stopping())?;
    let text = api
        .metrics
        .text(&snapshot)
        .map_err(|error| ApiError::internal(error.to_string()))?;
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    Ok(([(header::CONTENT_TYPE, kind)], text).into_response())
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct TasksQuery {
    /// Rows at most.
    limit: Option<usize>,
}

async fn tasks(
    State(api): State<Arc<Api>>,
    query: Result<Query<TasksQuery>, QueryRejection>,
) -> Result<Response, ApiError> {
    let Query(query) = query.map_err(|error| ApiError::invalid(error.body_text()))?;
    let limit = query.limit.unwrap_or(ROWS_DEFAULT);
    if limit > ROWS_MAX {
        return Err(ApiError::invalid(format!("limit is at most {ROWS_MAX}")));
    }
    let rows = api
        .inbox
        .ask(|reply| Input::Tasks(limit, reply), CORE_PATIENCE)
        .await;
    Ok(Json(rows.map_err(|_| ApiError::stopping())?).into_response())
}
