//! `/quota` and `/weights`, and what operator calls share with them (semantics E8, E10, O1).

use std::sync::Arc;

use axum::Json;
use axum::body::Bytes;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::Response;
use meros_daemon::http::ApiError;
use meros_master_core::event::OperatorCall;
use meros_proto::quota::Quota;
use meros_proto::refusal::Refusal;
use meros_proto::role::RoleName;
use meros_proto::view::RoleRow;
use meros_v1::pb::master::call::UpdateWeights;
use meros_v1::pb::quota::QuotaRequest;
use meros_v1::{roles, views};
use serde_json::{Value, json};
use tracing::info;

use super::operator::refused;
use super::reads::ROWS_MAX;
use super::{blocking, document, read, read_list};
use crate::http::Api;
use crate::http::orders::ordered;
use crate::projection::RoleFilter;

fn rows(api: &Api, filter: RoleFilter) -> Result<Vec<RoleRow>, ApiError> {
    let model = api.projection.read();
    model.master().ok_or(Refusal::Recovering)?;
    Ok(model.roles(filter, None, ROWS_MAX).rows)
}

fn has_quota(api: &Api, role: &RoleName) -> Result<bool, ApiError> {
    let rows = rows(api, RoleFilter::WithQuota)?;
    Ok(rows.iter().any(|row| row.role == *role))
}

/// The order to give a quota to a role that has none: what is guaranteed is the limit, too.
pub(super) fn set_quota(api: &Api, request: &QuotaRequest) -> Result<OperatorCall, ApiError> {
    let (role, quota) = roles::quota_request(request).map_err(refused)?;
    if has_quota(api, &role)? {
        let why = format!("{role} has a quota already: remove it first, or use UPDATE_QUOTA");
        return Err(ApiError::invalid(why));
    }
    Ok(OperatorCall::SetQuotas {
        quotas: vec![(role, quota)],
        force: request.force(),
    })
}

/// The order to take the quota of a role away.
pub(super) fn remove_quota(api: &Api, role: &str) -> Result<OperatorCall, ApiError> {
    let role = roles::role("role", role).map_err(refused)?;
    if !has_quota(api, &role)? {
        return Err(ApiError::invalid(format!("{role} has no quota")));
    }
    Ok(OperatorCall::SetQuotas {
        quotas: vec![(role, Quota::default())],
        force: false,
    })
}

pub(super) async fn quotas(State(api): State<Arc<Api>>) -> Result<Response, ApiError> {
    blocking(move || {
        let rows = rows(&api, RoleFilter::WithQuota)?;
        Ok(document(&views::quotas(&rows)))
    })
    .await
}

pub(super) async fn post_quota(
    State(api): State<Arc<Api>>,
    body: Bytes,
) -> Result<StatusCode, ApiError> {
    let order = set_quota(&api, &read(&body)?)?;
    info!("operator sets a quota");
    ordered(&api, order).await?;
    Ok(StatusCode::OK)
}

pub(super) async fn delete_quota(
    State(api): State<Arc<Api>>,
    path: Result<Path<String>, PathRejection>,
) -> Result<StatusCode, ApiError> {
    let Path(role) = path.map_err(|error| ApiError::invalid(error.body_text()))?;
    let order = remove_quota(&api, &role)?;
    info!(role, "operator removes a quota");
    ordered(&api, order).await?;
    Ok(StatusCode::OK)
}

/// The roles that have another weight than 1.
pub(super) async fn weights(State(api): State<Arc<Api>>) -> Result<Json<Value>, ApiError> {
    let rows = rows(&api, RoleFilter::WithWeight)?;
    let weight = |row: &RoleRow| json!({"role": row.role.as_str(), "weight": row.weight.as_f64()});
    Ok(Json(rows.iter().map(weight).collect()))
}

pub(super) async fn put_weights(
    State(api): State<Arc<Api>>,
    body: Bytes,
) -> Result<StatusCode, ApiError> {
    let read: UpdateWeights = read_list("weight_infos", &body)?;
    let weights = roles::weights(&read.weight_infos).map_err(refused)?;
    info!(roles = weights.len(), "operator sets weights");
    ordered(&api, OperatorCall::SetWeights { weights }).await?;
    Ok(StatusCode::OK)
}
