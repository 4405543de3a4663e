//! POST: what operators decide about slaves (semantics K7, K10, Q7). The decision is durable when this
//! answers; what follows from it takes its time, and shows in `GET /api/v1/slaves`.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::Uri;
use axum::response::Response;
use meros_daemon::http::ApiError;
use meros_master_core::event::OperatorCall;
use meros_proto::ids::SlaveId;
use meros_proto::operation::{Change, ChangeKind};
use meros_proto::resources::{ParseResourcesError, Resources};
use meros_proto::slave::SlaveMode;
use serde::Deserialize;
use tracing::info;

use super::Api;
use super::orders::{Nothing, json, order, parse, parse_grace};
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

/// What is to be changed on a slave, as it is while reserved or a volume: text such as
/// `disk(web,):64`, or the list of objects that `GET /api/v1/slaves` shows.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Named {
    Text(String),
    List(Box<Resources>),
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ChangeBody {
    resources: Named,
}

/// `POST /api/v1/slaves/{id}/resources/{reserve,unreserve,create,destroy,grow,shrink}`, body
/// `{"resources": "disk(web,)[db:data]:64"}`: offers that hold it are taken back, and the order is on its
/// way to the slave when this answers (202, semantics O2). 409 `not_enough` if tasks use it, or if it is
/// not there.
pub(super) async fn change(
    State(api): State<Arc<Api>>,
    path: Result<Path<(String, String)>, PathRejection>,
    uri: Uri,
    body: Bytes,
) -> Result<Response, ApiError> {
    let Path((slave, kind)) = path.map_err(|error| ApiError::invalid(error.body_text()))?;
    let Nothing {} = query(&uri)?;
    let slave_id: SlaveId = parse(&slave)?;
    let kind = ChangeKind::from_name(&kind).ok_or_else(super::error::not_found)?;
    let ChangeBody { resources } = json(&body)?;
    let resources = match resources {
        Named::List(resources) => *resources,
        Named::Text(text) => text.parse().map_err(|error: ParseResourcesError| {
            ApiError::invalid(format!("resources are {text:?}: {error}"))
        })?,
    };
    info!(%slave_id, %kind, %resources, "operator changes what is reserved");
    let change = Box::new(Change::new(kind, resources));
    order(&api, OperatorCall::ChangeResources { slave_id, change }).await
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
