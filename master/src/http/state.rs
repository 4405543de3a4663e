//! Framework state for operators: the spaces, and any call about one of them, in anybody's name.
//!
//! Asked of the core, unlike other reads: an answer must not be older than the question. A watch waits
//! for up to ten seconds.

use std::sync::Arc;

use axum::Json;
use axum::body::Bytes;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::Uri;
use meros_daemon::http::ApiError;
use meros_master_core::effect::Answer;
use meros_master_core::event::OperatorCall;
use meros_proto::state::{SpaceId, SpaceName, SpaceView, StateAnswer, StateCall};
use tracing::info;

use super::Api;
use super::orders::{Nothing, json, ordered};
use super::reads::query;

/// `GET /api/v1/state`: all spaces, by principal and name.
pub(super) async fn spaces(
    State(api): State<Arc<Api>>,
    uri: Uri,
) -> Result<Json<Vec<SpaceView>>, ApiError> {
    let Nothing {} = query(&uri)?;
    match ordered(&api, OperatorCall::Spaces).await? {
        Answer::Spaces(spaces) => Ok(Json(spaces)),
        _ => Err(ApiError::internal("the answer is to another question")),
    }
}

/// `POST /api/v1/state/{principal}/{space}`: the body is a call, such as `{"read": {"keys": ["a"]}}`.
pub(super) async fn call(
    State(api): State<Arc<Api>>,
    path: Result<Path<(String, String)>, PathRejection>,
    body: Bytes,
) -> Result<Json<StateAnswer>, ApiError> {
    let Path((principal, name)) = path.map_err(|error| ApiError::invalid(error.body_text()))?;
    let name = SpaceName::new(&name).map_err(|error| ApiError::invalid(error.to_string()))?;
    let space = SpaceId { principal, name };
    let call: StateCall = json(&body)?;
    if let StateCall::Change { change, .. } = &call {
        info!(%space, ?change, "operator changes framework state");
    }
    match ordered(&api, OperatorCall::State { space, call }).await? {
        Answer::State(answer) => Ok(Json(answer)),
        _ => Err(ApiError::internal("the answer is to another question")),
    }
}
