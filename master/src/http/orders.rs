//! POST: what operators order. The core decides; the answer is its own.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::{StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use meros_daemon::http::ApiError;
use meros_master_core::effect::Answer;
use meros_master_core::event::OperatorCall;
use meros_proto::ids::{FrameworkId, ParseIdError, TaskId};
use meros_proto::refusal::Refusal;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tokio::sync::oneshot;
use tracing::info;

use super::Api;
use super::reads::query;
use crate::shell::inbox::Input;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct KillQuery {
    grace: Option<String>,
}

/// An order without parameters.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Nothing {}

/// `POST /api/v1/tasks/{framework}/{task}/kill?grace=5s`: the kill is on its way when this answers.
pub(super) async fn kill(
    State(api): State<Arc<Api>>,
    path: Result<Path<(String, String)>, PathRejection>,
    uri: Uri,
) -> Result<Response, ApiError> {
    let Path((framework, task)) = path.map_err(|error| ApiError::invalid(error.body_text()))?;
    let KillQuery { grace } = query(&uri)?;
    let framework_id: FrameworkId = parse(&framework)?;
    let task_id: TaskId = parse(&task)?;
    let grace = grace.as_deref().map(parse_grace).transpose()?;
    info!(%framework_id, %task_id, ?grace, "operator orders a kill");
    order(
        &api,
        OperatorCall::KillTask {
            framework_id,
            task_id,
            grace,
        },
    )
    .await
}

/// `POST /api/v1/frameworks/{id}/teardown`: the framework is removed when this answers; its tasks
/// are being killed.
pub(super) async fn teardown(
    State(api): State<Arc<Api>>,
    path: Result<Path<String>, PathRejection>,
    uri: Uri,
) -> Result<Response, ApiError> {
    let Path(framework) = path.map_err(|error| ApiError::invalid(error.body_text()))?;
    let Nothing {} = query(&uri)?;
    let framework_id: FrameworkId = parse(&framework)?;
    info!(%framework_id, "operator orders a teardown");
    order(&api, OperatorCall::Teardown { framework_id }).await
}

/// An order without anything to say about it afterwards.
pub(super) async fn order(api: &Api, call: OperatorCall) -> Result<Response, ApiError> {
    ordered(api, call).await?;
    Ok((StatusCode::ACCEPTED, Json(serde_json::json!({}))).into_response())
}

/// Gives an order and waits until it is carried out or refused.
pub(super) async fn ordered(api: &Api, call: OperatorCall) -> Result<Answer, ApiError> {
    let (reply, answer) = oneshot::channel();
    let sent = api.inbox.send([Input::Operator(call, reply)], 0).await;
    sent.map_err(|_| Refusal::Stopping)?;
    Ok(answer.await.map_err(|_| Refusal::Stopping)??)
}

/// Reads a body. Its media type does not matter: nothing else than JSON would be understood.
pub(super) fn json<T: DeserializeOwned>(body: &[u8]) -> Result<T, ApiError> {
    serde_json::from_slice(body)
        .map_err(|error| ApiError::invalid(format!("the body is not what is asked for: {error}")))
}

pub(super) fn parse<T: std::str::FromStr<Err = ParseIdError>>(text: &str) -> Result<T, ApiError> {
    text.parse()
        .map_err(|error: ParseIdError| ApiError::invalid(error.to_string()))
}

pub(super) fn parse_grace(text: &str) -> Result<Duration, ApiError> {
    humantime::parse_duration(text).map_err(|error| {
        ApiError::invalid(format!(
            "grace is {text:?}, not a duration such as 5s: {error}"
        ))
    })
}
