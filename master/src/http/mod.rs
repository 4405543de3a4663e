//! HTTP: health, metrics, reads, the few orders of operators, and the Mesos v1 API.
//!
//! Reads are answered from the read model, orders go to the core and wait for its answer. Everything
//! that a client can do is bounded: connections, idle time, requests at work, their time, their body,
//! the rows of an answer. Errors are JSON, `{"code": …, "message": …}`: programs match on the code,
//! people read the message.

mod currency;
mod error;
mod maintenance;
mod masters;
mod orders;
mod reads;
mod roles;
mod slaves;
mod state;
#[cfg(test)]
mod tests;
mod v1;
mod why;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderValue, Method, StatusCode, Uri, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use meros_daemon::http::{ApiError, Limits};
use meros_proto::refusal::Refusal;
use meros_proto::view::SettingView;
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::metrics::{Exposition, Metrics};
use crate::projection::Projection;
use crate::registry::{Member, Service, Status};
use crate::shell::inbox::Inbox;

/// The largest body: the quotas of some thousand roles in one order.
const BODY_BYTES_MAX: usize = 1 << 20;

/// Streams of events at a time: v1 frameworks and those who watch. Each may hold what its queue may.
const STREAMS_MAX: usize = 1_024;

/// Connections at a time: the streams, as many for the calls beside them, and the default.
const CONNECTIONS_MAX: usize = 2 * STREAMS_MAX + 512;

/// Between two requests of a connection. v1 clients keep one for their calls, and take its end for an
/// error; the one that idles longest makes room for a new one anyway.
const IDLE: Duration = Duration::from_secs(60 * 60);

/// What the handlers share.
pub(crate) struct Api {
    pub(crate) projection: Projection,
    pub(crate) inbox: Inbox,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) status: Status,
    /// None in tests without a registry.
    pub(crate) members: Option<Service>,
    pub(crate) exposition: Exposition,
    /// Of this master; none in tests without a configuration.
    pub(crate) settings: Vec<SettingView>,
    /// The v1 frameworks that are subscribed.
    pub(crate) sessions: v1::Sessions,
    /// Where v1 clients are told that this master is.
    pub(crate) address: SocketAddr,
}

impl Api {
    /// With everything a handler needs.
    pub(crate) fn new(
        projection: Projection,
        inbox: Inbox,
        metrics: Arc<Metrics>,
        status: Status,
    ) -> Self {
        let exposition = Exposition::new(&metrics, &projection, &inbox, &status);
        Self {
            projection,
            inbox,
            metrics,
            status,
            members: None,
            exposition,
            settings: Vec::new(),
            sessions: v1::Sessions::default(),
            address: SocketAddr::from(([127, 0, 0, 1], 0)),
        }
    }
}

/// Serves until `stop` changes or its sender is gone; requests at work are finished.
pub(crate) async fn serve(listener: TcpListener, api: Arc<Api>, stop: watch::Receiver<bool>) {
    // Reads of large lists take some 10 MiB each: hence the default of 64 requests at work.
    let limits = Limits {
        body_bytes: BODY_BYTES_MAX,
        connections: CONNECTIONS_MAX,
        streams: STREAMS_MAX,
        idle: IDLE,
        ..Limits::default()
    };
    let stats = Arc::clone(&api.metrics.http);
    meros_daemon::http::serve(listener, router(api), limits, stats, stop).await;
}

fn router(api: Arc<Api>) -> Router {
    Router::new()
        .route("/health", get(reads::health))
        .route("/metrics", get(reads::metrics))
        .route("/api/v1/settings", get(reads::settings))
        .route("/api/v1/masters", get(masters::list))
        .merge(of_the_cluster(&api))
        .merge(of_the_leader(&api))
        .merge(v1::routes(&api))
        .fallback(async || error::not_found())
        .method_not_allowed_fallback(async || error::method_not_allowed())
        .layer(middleware::from_fn(refuse_web_pages))
        .with_state(api)
}

/// What every master answers, as far as it knows.
fn of_the_cluster(api: &Arc<Api>) -> Router<Arc<Api>> {
    Router::new()
        .route("/api/v1/master", get(reads::master))
        .route("/api/v1/slaves", get(reads::slaves))
        .route("/api/v1/frameworks", get(reads::frameworks))
        .route("/api/v1/offers", get(reads::offers))
        .route("/api/v1/tasks", get(reads::tasks))
        .route("/api/v1/roles", get(reads::roles))
        .route("/api/v1/quotas", get(reads::quotas))
        .route("/api/v1/weights", get(reads::weights))
        .route_layer(middleware::from_fn_with_state(
            Arc::clone(api),
            currency::answer_or_send,
        ))
}

/// What only the leader can answer; others say where it is.
fn of_the_leader(api: &Arc<Api>) -> Router<Arc<Api>> {
    Router::new()
        .route("/api/v1/why", get(why::why))
        .route("/api/v1/quotas", post(roles::set_quotas))
        .route("/api/v1/weights", post(roles::set_weights))
        .route("/api/v1/tasks/{framework}/{task}/kill", post(orders::kill))
        .route(
            "/api/v1/frameworks/{framework}/teardown",
            post(orders::teardown),
        )
        .route("/api/v1/slaves/{slave}/drain", post(slaves::drain))
        .route(
            "/api/v1/slaves/{slave}/deactivate",
            post(slaves::deactivate),
        )
        .route("/api/v1/slaves/{slave}/activate", post(slaves::activate))
        .route("/api/v1/slaves/{slave}/gone", post(slaves::gone))
        .route(
            "/api/v1/slaves/{slave}/resources/{change}",
            post(slaves::change),
        )
        .route("/api/v1/maintenance", post(maintenance::set))
        .route("/api/v1/state", get(state::spaces))
        .route("/api/v1/state/{principal}/{space}", post(state::call))
        .route("/api/v1/masters/{name}/remove", post(masters::remove))
        .route("/api/v1/masters/{name}/replace", post(masters::replace))
        .route("/api/v1/masters/{name}/lead", post(masters::lead))
        .route("/api/v1/backup", get(masters::backup))
        .route_layer(middleware::from_fn_with_state(
            Arc::clone(api),
            send_to_leader,
        ))
}

/// 307 to the leader, if it is another master (semantics A6). Decided before anything else is looked
/// at.
async fn send_to_leader(State(api): State<Arc<Api>>, request: Request, next: Next) -> Response {
    if !api.projection.is_leading()
        && let Some(leader) = api.status.other_leader()
    {
        return redirect(request.uri(), leader);
    }
    next.run(request).await
}

fn redirect(uri: &Uri, leader: Member) -> Response {
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let location = format!("http://{}{path}", leader.address);
    let leader = Some(leader.address);
    let mut answer = ApiError::from(Refusal::NotLeading { leader }).into_response();
    *answer.status_mut() = StatusCode::TEMPORARY_REDIRECT;
    if let Ok(location) = HeaderValue::from_str(&location) {
        answer.headers_mut().insert(header::LOCATION, location);
    }
    answer
}

/// There is no authentication, and any page that an operator opens could post to loopback.
async fn refuse_web_pages(request: Request, next: Next) -> Response {
    if request.method() != Method::GET && request.headers().contains_key(header::ORIGIN) {
        return error::cross_site().into_response();
    }
    next.run(request).await
}
