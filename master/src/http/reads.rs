//! GET: from the read model only. Lists are plain JSON arrays; the header `x-meros-total` tells how
//! many rows match, which may be more than were sent. Then `x-meros-next` is what to give as `after`,
//! escaped already, for those that follow. On masters that do not lead see `currency`.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Query, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use meros_daemon::http::ApiError;
use meros_proto::ids::{FrameworkId, OfferId, TaskId};
use meros_proto::refusal::Refusal;
use meros_proto::role::RoleName;
use meros_proto::status::TaskState;
use meros_proto::view::MasterView;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::Api;
use crate::projection::{
    BadCursor, Page, ReadModel, RoleFilter, StateFilter, TaskCursor, TaskFilter,
};

/// The most rows in one answer, and how many there are when the client does not say. A task takes
/// about 1 KiB.
const ROWS_MAX: usize = 10_000;

const TOTAL: &str = "x-meros-total";
const NEXT: &str = "x-meros-next";
/// Behind the last event that is in the answer: what comes after it, `/api/v1/events` tells.
const PLACE: &str = "x-meros-place";

/// What `/health` answers.
#[derive(Debug, Serialize)]
struct Health {
    /// `leading`; `following` one that does; or `recovering`.
    status: &'static str,
    /// The rest only when leading.
    #[serde(flatten)]
    master: Option<MasterView>,
}

pub(super) async fn health(State(api): State<Arc<Api>>) -> Response {
    // What is known of another leader does not make this one lead.
    let master = match api.projection.is_leading() {
        true => api.projection.read().master().cloned(),
        false => None,
    };
    match master {
        Some(master) => Json(Health {
            status: "leading",
            master: Some(master),
        })
        .into_response(),
        None if api.status.other_leader().is_some() => Json(Health {
            status: "following",
            master: None,
        })
        .into_response(),
        None => {
            let health = Health {
                status: "recovering",
                master: None,
            };
            (StatusCode::SERVICE_UNAVAILABLE, Json(health)).into_response()
        }
    }
}

pub(super) async fn metrics(State(api): State<Arc<Api>>) -> Result<Response, ApiError> {
    let text = api
        .exposition
        .text()
        .map_err(|error| ApiError::internal(error.to_string()))?;
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    Ok(([(header::CONTENT_TYPE, kind)], text).into_response())
}

pub(super) async fn master(State(api): State<Arc<Api>>) -> Result<Json<MasterView>, ApiError> {
    let master = api.projection.read().master().cloned();
    Ok(Json(master.ok_or(Refusal::Recovering)?))
}

/// What a list without filters takes.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Plain<Id> {
    after: Option<Id>,
    limit: Option<usize>,
}

pub(super) async fn slaves(State(api): State<Arc<Api>>, uri: Uri) -> Result<Response, ApiError> {
    let Plain { after, limit } = query(&uri)?;
    let limit = checked_limit(limit)?;
    list(api, move |model| model.slaves(after, limit)).await
}

pub(super) async fn frameworks(
    State(api): State<Arc<Api>>,
    uri: Uri,
) -> Result<Response, ApiError> {
    let Plain { after, limit } = query(&uri)?;
    let limit = checked_limit(limit)?;
    list(api, move |model| model.frameworks(after, limit)).await
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct OffersQuery {
    framework: Option<FrameworkId>,
    after: Option<OfferId>,
    limit: Option<usize>,
}

pub(super) async fn offers(State(api): State<Arc<Api>>, uri: Uri) -> Result<Response, ApiError> {
    let OffersQuery {
        framework,
        after,
        limit,
    } = query(&uri)?;
    let limit = checked_limit(limit)?;
    list(api, move |model| model.offers(framework, after, limit)).await
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct TasksQuery {
    framework: Option<FrameworkId>,
    task: Option<TaskId>,
    state: Option<String>,
    after: Option<String>,
    limit: Option<usize>,
}

pub(super) async fn tasks(State(api): State<Arc<Api>>, uri: Uri) -> Result<Response, ApiError> {
    let TasksQuery {
        framework,
        task,
        state,
        after,
        limit,
    } = query(&uri)?;
    let limit = checked_limit(limit)?;
    let after: Option<TaskCursor> = after
        .map(|text| text.parse())
        .transpose()
        .map_err(|error: BadCursor| ApiError::invalid(error.to_string()))?;
    let state = state.as_deref().map(parse_state).transpose()?;
    let filter = TaskFilter {
        framework,
        task,
        state,
    };
    list(api, move |model| {
        model.tasks(&filter, after.as_ref(), limit)
    })
    .await
}

pub(super) async fn roles(State(api): State<Arc<Api>>, uri: Uri) -> Result<Response, ApiError> {
    list_roles(api, &uri, RoleFilter::Any).await
}

pub(super) async fn quotas(State(api): State<Arc<Api>>, uri: Uri) -> Result<Response, ApiError> {
    list_roles(api, &uri, RoleFilter::WithQuota).await
}

pub(super) async fn weights(State(api): State<Arc<Api>>, uri: Uri) -> Result<Response, ApiError> {
    list_roles(api, &uri, RoleFilter::WithWeight).await
}

pub(super) async fn minimums(State(api): State<Arc<Api>>, uri: Uri) -> Result<Response, ApiError> {
    list_roles(api, &uri, RoleFilter::WithMinimum).await
}

async fn list_roles(api: Arc<Api>, uri: &Uri, filter: RoleFilter) -> Result<Response, ApiError> {
    let Plain::<RoleName> { after, limit } = query(uri)?;
    let limit = checked_limit(limit)?;
    list(api, move |model| model.roles(filter, after.as_ref(), limit)).await
}

/// Picks rows under the lock and serialises them without it; both away from the threads that serve
/// the network.
async fn list<T: Serialize + Send + 'static>(
    api: Arc<Api>,
    pick: impl FnOnce(&ReadModel) -> Page<T> + Send + 'static,
) -> Result<Response, ApiError> {
    let picked = tokio::task::spawn_blocking(move || {
        let (place, page) = {
            let model = api.projection.read();
            model.place().map(|place| (place, pick(&model)))
        }
        .ok_or(Refusal::Recovering)?;
        let body = serde_json::to_vec(&page.rows)
            .map_err(|error| ApiError::internal(error.to_string()))?;
        Ok::<_, ApiError>((place, page.total, page.next, body))
    });
    let (place, total, next, body) = picked
        .await
        .map_err(|error| ApiError::internal(error.to_string()))??;
    let mut headers = HeaderMap::new();
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/json"),
    );
    headers.insert(TOTAL, HeaderValue::from(total));
    let place = HeaderValue::try_from(place.to_string()).expect("digits and a dash");
    headers.insert(PLACE, place);
    if let Some(cursor) = next {
        headers.insert(NEXT, escaped(&cursor));
    }
    Ok((headers, body).into_response())
}

/// As a query and a header can carry it: task ids are of any script.
fn escaped(text: &str) -> HeaderValue {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    HeaderValue::try_from(out).expect("letters, digits and a few signs")
}

/// Reads the parameters of a request; unknown ones are refused, since a misspelt filter would be
/// no filter.
pub(super) fn query<T: DeserializeOwned>(uri: &Uri) -> Result<T, ApiError> {
    Query::try_from_uri(uri)
        .map(|Query(query)| query)
        .map_err(|error| ApiError::invalid(error.body_text()))
}

fn checked_limit(limit: Option<usize>) -> Result<usize, ApiError> {
    match limit.unwrap_or(ROWS_MAX) {
        limit @ 1..=ROWS_MAX => Ok(limit),
        other => Err(ApiError::invalid(format!(
            "limit is {other}: it must be 1 to {ROWS_MAX}"
        ))),
    }
}

fn parse_state(text: &str) -> Result<StateFilter, ApiError> {
    match text {
        "active" => return Ok(StateFilter::Active),
        "ended" => return Ok(StateFilter::Ended),
        _ => {}
    }
    let wanted = text.to_ascii_uppercase();
    TaskState::ALL
        .into_iter()
        .find(|state| {
            state.name() == wanted || state.name().strip_prefix("TASK_") == Some(&*wanted)
        })
        .map(StateFilter::Is)
        .ok_or_else(|| {
            ApiError::invalid(format!(
                "state is {text:?}: it must be active, ended or a state such as TASK_RUNNING"
            ))
        })
}
