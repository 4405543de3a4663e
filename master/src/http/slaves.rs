//! POST: what operators decide about slaves (semantics K7, K10, Q7). The decision is durable when this
//! answers; what follows from it takes its time, and shows in `GET /api/v1/slaves`.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::Uri;
use axum::response::Response;
use meros_daemon::http::ApiError;
use meros_master_core::event::OperatorCall;
use meros_proto::ids::SlaveId;
use meros_proto::slave::SlaveMode;
use serde::Deserialize;
use tracing::info;

use super::Api;
use super::orders::{Nothing, order, parse, parse_grace};
use super::reads::query;

type SlavePath = Result<Path<String>, PathRejection>;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct DrainQuery {
    grace: Option<String>,
    #[serde(default)]
    mark_gone: bool,
}

/// `POST /api/v1/slaves/{id}/drain?grace=30s&mark_gone=true`: nothing is offered, kills are on their
/// way.
pub(super) async fn drain(
    State(api): State<Arc<Api>>,
    path: SlavePath,
    uri: Uri,
) -> Result<Response, ApiError> {
    let DrainQuery { grace, mark_gone } = query(&uri)?;
    let grace: Option<Duration> = grace.as_deref().map(parse_grace).transpose()?;
    set_mode(&api, path, SlaveMode::Draining { grace, mark_gone }).await
}

/// `POST /api/v1/slaves/{id}/deactivate`: nothing is offered, tasks go on.
pub(super) async fn deactivate(
    State(api): State<Arc<Api>>,
    path: SlavePath,
    uri: Uri,
) -> Result<Response, ApiError> {
    let Nothing {} = query(&uri)?;
    set_mode(&api, path, SlaveMode::Deactivated).await
}

/// `POST /api/v1/slaves/{id}/activate`: what is free is offered again; a drain is called off.
pub(super) async fn activate(
    State(api): State<Arc<Api>>,
    path: SlavePath,
    uri: Uri,
) -> Result<Response, ApiError> {
    let Nothing {} = query(&uri)?;
    set_mode(&api, path, SlaveMode::Active).await
}

/// `POST /api/v1/slaves/{id}/gone`: it is no member any more, and never comes back.
pub(super) async fn gone(
    State(api): State<Arc<Api>>,
    path: SlavePath,
    uri: Uri,
) -> Result<Response, ApiError> {
    let Nothing {} = query(&uri)?;
    let slave_id = slave_id(path)?;
    info!(%slave_id, "operator declares a slave gone");
    order(&api, OperatorCall::MarkSlaveGone { slave_id }).await
}

async fn set_mode(api: &Api, path: SlavePath, mode: SlaveMode) -> Result<Response, ApiError> {
    let slave_id = slave_id(path)?;
    info!(%slave_id, mode = mode.name(), "operator decides about a slave");
    order(api, OperatorCall::SetSlaveMode { slave_id, mode }).await
}

fn slave_id(path: SlavePath) -> Result<SlaveId, ApiError> {
    let Path(text) = path.map_err(|error| ApiError::invalid(error.body_text()))?;
    parse(&text)
}
