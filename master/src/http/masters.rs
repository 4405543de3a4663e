//! The members of the cluster: every master lists them, the leader changes them.

use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::{StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use meros_daemon::http::ApiError;
use meros_proto::refusal::Refusal;
use tracing::info;

use super::{Api, redirect};
use crate::registry::{MemberView, RemoveError, Service, TransferError};

/// `GET /api/v1/masters`: as far as this one knows.
pub(super) async fn list(State(api): State<Arc<Api>>) -> Json<Vec<MemberView>> {
    Json(api.status.views())
}

/// `POST /api/v1/masters/{name}/remove`: the members that are left agree on it when this answers. The
/// leader lets another one lead, and sends whoever asks there.
pub(super) async fn remove(
    State(api): State<Arc<Api>>,
    uri: Uri,
    path: Result<Path<String>, PathRejection>,
) -> Result<Response, ApiError> {
    let (name, members) = named(&api, path)?;
    info!(master = name, "operator orders the removal of a master");
    match members.remove(&name).await {
        Ok(()) => Ok(done()),
        Err(RemoveError::HandedOver(leader)) => Ok(redirect(&uri, leader)),
        Err(why) => Err(refused(&why)),
    }
}

fn refused(why: &RemoveError) -> ApiError {
    let (status, code) = match why {
        RemoveError::Unknown => (StatusCode::NOT_FOUND, "master_unknown"),
        RemoveError::Alone => (StatusCode::CONFLICT, "only_master"),
        RemoveError::Leads => (StatusCode::CONFLICT, "master_leads"),
        RemoveError::HandedOver(_) | RemoveError::Failed(_) => {
            (StatusCode::SERVICE_UNAVAILABLE, "not_agreed")
        }
    };
    ApiError::new(status, code, why.to_string())
}

/// `POST /api/v1/masters/{name}/replace`: for a minute a master with an empty data directory may take the
/// place of the member of this name.
pub(super) async fn replace(
    State(api): State<Arc<Api>>,
    path: Result<Path<String>, PathRejection>,
) -> Result<Response, ApiError> {
    let (name, members) = named(&api, path)?;
    match members.replace(&name) {
        Ok(()) => Ok(done()),
        Err(why) => Err(refused(&why)),
    }
}

/// `POST /api/v1/masters/{name}/lead`: that one leads when this answers.
pub(super) async fn lead(
    State(api): State<Arc<Api>>,
    path: Result<Path<String>, PathRejection>,
) -> Result<Response, ApiError> {
    let (name, members) = named(&api, path)?;
    info!(master = name, "operator orders that another master leads");
    match members.hand_over(Some(&name)).await {
        Ok(leader) if leader.name == name => Ok(done()),
        Ok(leader) => {
            let why = format!("{} was elected instead", leader.name);
            let status = StatusCode::SERVICE_UNAVAILABLE;
            Err(ApiError::new(status, "not_elected", why))
        }
        Err(TransferError::NotLeading) => Err(Refusal::NotLeading { leader: None }.into()),
        Err(why) => {
            let (status, code) = match why {
                TransferError::Unknown => (StatusCode::NOT_FOUND, "master_unknown"),
                TransferError::Nobody => (StatusCode::CONFLICT, "no_vote"),
                _ => (StatusCode::SERVICE_UNAVAILABLE, "not_elected"),
            };
            Err(ApiError::new(status, code, why.to_string()))
        }
    }
}

/// `GET /api/v1/backup`: the registry, as the leader has applied it.
pub(super) async fn backup(State(api): State<Arc<Api>>) -> Result<Response, ApiError> {
    let members = api.members.as_ref().ok_or(Refusal::Recovering)?;
    match members.backup().await {
        Ok(json) => Ok(([(header::CONTENT_TYPE, "application/json")], json).into_response()),
        Err(error) => {
            let status = StatusCode::INTERNAL_SERVER_ERROR;
            Err(ApiError::new(status, "no_backup", error.to_string()))
        }
    }
}

fn named(
    api: &Api,
    path: Result<Path<String>, PathRejection>,
) -> Result<(String, &Service), ApiError> {
    let Path(name) = path.map_err(|error| ApiError::invalid(error.body_text()))?;
    let members = api.members.as_ref().ok_or(Refusal::Recovering)?;
    Ok((name, members))
}

fn done() -> Response {
    (StatusCode::ACCEPTED, Json(serde_json::json!({}))).into_response()
}
