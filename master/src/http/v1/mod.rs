//! The Mesos v1 API on the HTTP port (docs/decisions/0014-mesos-v1.md).
//!
//! A v1 framework is a framework of the core like any other: its SUBSCRIBE is a connection, whose queue
//! is the stream that answers it, and each of its calls is a message on that connection. The core knows
//! nothing of HTTP.

mod maintenance;
mod operator;
mod rate;
mod reads;
mod roles;
mod scheduler;
mod sessions;
mod stream;
mod watch;

use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{FromRequest, Request};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::middleware;
use axum::response::{IntoResponse, Response};
use axum::routing::{any, delete, get, post};
use meros_daemon::http::ApiError;
use meros_proto::refusal::Refusal;
use meros_v1::encoding::{Media, Message, Name, Negotiated, decode, encode};
use meros_v1::ids::Ids;

use super::{Api, to_leader};

pub(crate) use sessions::Sessions;

/// Each path with and without `/master`, and those that are read as JSON also by that name (semantics
/// R6).
pub(super) fn routes(api: &Arc<Api>) -> Router<Arc<Api>> {
    let mut leading = Router::new();
    let mut any_master = Router::new();
    for prefix in ["", "/master"] {
        for end in ["", "/"] {
            let path = format!("{prefix}/api/v1/scheduler{end}");
            leading = leading.route(&path, any(scheduler::call));
            let path = format!("{prefix}/api/v1{end}");
            leading = leading.route(&path, any(operator::call));
        }
        for end in ["", ".json"] {
            let at = |name: &str| format!("{prefix}/{name}{end}");
            leading = leading
                .route(&at("state"), get(reads::whole))
                .route(&at("state-summary"), get(reads::summary))
                .route(&at("slaves"), get(reads::slaves))
                .route(&at("frameworks"), get(reads::frameworks))
                .route(&at("tasks"), get(reads::tasks))
                .route(&at("roles"), get(reads::roles));
            any_master = any_master
                .route(&at("version"), get(reads::version))
                .route(&at("flags"), get(reads::flags));
        }
        let at = |name: &str| format!("{prefix}/{name}");
        let schedule = get(maintenance::schedule).post(maintenance::set_schedule);
        leading = leading
            .route(&at("quota"), get(roles::quotas).post(roles::post_quota))
            .route(&at("quota/{*role}"), delete(roles::delete_quota))
            .route(&at("weights"), get(roles::weights).put(roles::put_weights))
            .route(&at("maintenance/schedule"), schedule)
            .route(&at("maintenance/status"), get(maintenance::status))
            .route(&at("machine/down"), post(maintenance::down))
            .route(&at("machine/up"), post(maintenance::up));
        // What is below it and has no name of its own falls back to it.
        let path = format!("{prefix}/api/v1/operator");
        leading = leading.route(&path, any(operator::call));
        any_master = any_master
            .route(&format!("{prefix}/redirect"), any(reads::redirect))
            .route(&format!("{prefix}/metrics/snapshot"), get(reads::metrics));
    }
    let leading = leading.route_layer(middleware::from_fn_with_state(Arc::clone(api), to_leader));
    any_master
        .route("/master/health", get(super::reads::health))
        .merge(leading)
}

/// A call as it came, and how it is to be answered.
struct Posted {
    headers: HeaderMap,
    body: Bytes,
    media: Media,
    answer: Media,
    /// Streams are to say so (semantics R2).
    is_recordio: bool,
}

impl Posted {
    /// The message, and how ids are written in this cluster.
    fn call<C: Message + Default + Name>(&self, api: &Api) -> Result<(C, Ids), ApiError> {
        let call = decode(self.media, &self.body)
            .map_err(|error| ApiError::invalid(format!("the call cannot be read: {error}")))?;
        let cluster = api.projection.read().master().map(|it| it.cluster_id);
        Ok((call, Ids::new(cluster.ok_or(Refusal::Recovering)?)))
    }
}

/// Looks at everything about a request but its message (semantics A2).
async fn posted(request: Request) -> Result<Posted, ApiError> {
    let headers = request.headers().clone();
    let text = |name: &'static str| headers.get(name).and_then(|value| value.to_str().ok());
    let negotiated = Negotiated::of(text).map_err(|error| {
        let status = StatusCode::from_u16(error.status()).expect("one of HTTP's");
        ApiError::new(status, error.code(), error.to_string())
    })?;
    let body = Bytes::from_request(request, &()).await;
    let body = body.map_err(|error| ApiError::new(error.status(), "invalid", error.body_text()))?;
    Ok(Posted {
        headers,
        body,
        media: negotiated.call,
        answer: negotiated.answer,
        is_recordio: negotiated.is_recordio,
    })
}

/// 405: no call is anything else than POST.
fn not_a_call() -> Response {
    let why = "calls are POST";
    let refused = ApiError::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", why);
    let mut answer = refused.into_response();
    let post = HeaderValue::from_static("POST");
    answer.headers_mut().insert(header::ALLOW, post);
    answer
}

/// A JSON document of a message, for tools that know no calls.
fn document<M: Message + Name>(message: &M) -> Response {
    let kind = [(header::CONTENT_TYPE, Media::Json.name())];
    (kind, encode(Media::Json, message)).into_response()
}

/// Reads a JSON document as a message. Its media type does not matter: nothing else would be understood.
fn read<M: Message + Default + Name>(body: &[u8]) -> Result<M, ApiError> {
    decode(Media::Json, body)
        .map_err(|error| ApiError::invalid(format!("the body cannot be read: {error}")))
}

/// Reads a JSON list as the message that has such a list in this field.
fn read_list<M: Message + Default + Name>(field: &str, body: &[u8]) -> Result<M, ApiError> {
    let list: Vec<serde_json::Value> = super::orders::json(body)?;
    read(serde_json::json!({field: list}).to_string().as_bytes())
}

/// Away from the threads that serve the network.
async fn blocking<T: Send + 'static>(
    make: impl FnOnce() -> Result<T, ApiError> + Send + 'static,
) -> Result<T, ApiError> {
    let made = tokio::task::spawn_blocking(make).await;
    made.map_err(|error| ApiError::internal(error.to_string()))?
}
