//! HTTP: health, metrics, reads, the few orders of operators, and the Mesos v1 API.
//!
//! Reads are answered from the read model, orders go to the core and wait for its answer. Everything
//! that a client can do is bounded: connections, idle time, requests at work, their time, their body,
//! the rows of an answer. Errors are JSON, `{"code": …, "message": …}`: programs match on the code,
//! people read the message.

mod currency;
mod error;
mod events;
mod feed;
mod maintenance;
mod masters;
mod openapi;
mod orders;
mod reads;
mod roles;
mod settings;
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
use axum::handler::Handler;
use axum::http::{HeaderValue, Method, StatusCode, Uri, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, get, post};
use meros_daemon::http::{ApiError, Limits};
use meros_proto::refusal::Refusal;
use meros_proto::view::SettingView;
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::config::HEARTBEAT_INTERVAL_DEFAULT;
use crate::metrics::{Exposition, Metrics};
use crate::projection::Projection;
use crate::registry::{Member, Service, Status};
use crate::shell::inbox::Inbox;
use crate::shell::link::Pool;

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
    /// Between two heartbeats of a v1 stream.
    pub(crate) heartbeat: Duration,
    /// For what waits to be read on streams.
    pub(crate) pool: Pool,
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
            heartbeat: HEARTBEAT_INTERVAL_DEFAULT,
            pool: Pool::default(),
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
    let currency = middleware::from_fn_with_state(Arc::clone(&api), currency::answer_or_send);
    let to_leader = middleware::from_fn_with_state(Arc::clone(&api), to_leader);
    Router::new()
        .merge(of_each_master().router)
        .merge(of_the_cluster().router.route_layer(currency))
        .merge(of_the_leader().router.route_layer(to_leader))
        .merge(v1::routes(&api))
        .fallback(async || error::not_found())
        .method_not_allowed_fallback(async || error::method_not_allowed())
        .layer(middleware::from_fn(refuse_web_pages))
        .with_state(api)
}

/// Routes of ours, with a list of them: `openapi.json` has to have each.
#[derive(Default)]
struct Routes {
    router: Router<Arc<Api>>,
    all: Vec<(&'static str, &'static str)>,
}

impl Routes {
    fn get<H: Handler<T, Arc<Api>>, T: 'static>(self, path: &'static str, handler: H) -> Self {
        self.add("get", path, get(handler))
    }

    fn post<H: Handler<T, Arc<Api>>, T: 'static>(self, path: &'static str, handler: H) -> Self {
        self.add("post", path, post(handler))
    }

    fn add(
        mut self,
        method: &'static str,
        path: &'static str,
        route: MethodRouter<Arc<Api>>,
    ) -> Self {
        self.all.push((method, path));
        self.router = self.router.route(path, route);
        self
    }
}

/// What every master answers about itself.
fn of_each_master() -> Routes {
    Routes::default()
        .get("/health", reads::health)
        .get("/metrics", reads::metrics)
        .get("/openapi.json", openapi::document)
        .get("/api/v1/settings", settings::list)
        .get("/api/v1/masters", masters::list)
}

/// What every master answers, as far as it knows.
fn of_the_cluster() -> Routes {
    Routes::default()
        .get("/api/v1/master", reads::master)
        .get("/api/v1/slaves", reads::slaves)
        .get("/api/v1/frameworks", reads::frameworks)
        .get("/api/v1/offers", reads::offers)
        .get("/api/v1/tasks", reads::tasks)
        .get("/api/v1/roles", reads::roles)
        .get("/api/v1/quotas", reads::quotas)
        .get("/api/v1/weights", reads::weights)
        .get("/api/v1/minimums", reads::minimums)
}

/// What only the leader can answer; others say where it is.
fn of_the_leader() -> Routes {
    Routes::default()
        .get("/api/v1/events", events::events)
        .get("/api/v1/why", why::why)
        .post("/api/v1/quotas", roles::set_quotas)
        .post("/api/v1/weights", roles::set_weights)
        .post("/api/v1/minimums", roles::set_minimums)
        .post("/api/v1/tasks/{framework}/{task}/kill", orders::kill)
        .post("/api/v1/frameworks/{framework}/teardown", orders::teardown)
        .post("/api/v1/slaves/{slave}/drain", slaves::drain)
        .post("/api/v1/slaves/{slave}/deactivate", slaves::deactivate)
        .post("/api/v1/slaves/{slave}/activate", slaves::activate)
        .post("/api/v1/slaves/{slave}/gone", slaves::gone)
        .post("/api/v1/slaves/{slave}/resources/{change}", slaves::change)
        .post("/api/v1/settings", settings::set)
        .post("/api/v1/maintenance", maintenance::set)
        .get("/api/v1/state", state::spaces)
        .post("/api/v1/state/{principal}/{space}", state::call)
        .post("/api/v1/masters/{name}/remove", masters::remove)
        .post("/api/v1/masters/{name}/replace", masters::replace)
        .post("/api/v1/masters/{name}/lead", masters::lead)
        .get("/api/v1/backup", masters::backup)
}

/// 307 to the leader, 503 if there is none: decided before anything else is looked at (semantics A6,
/// R5).
async fn to_leader(State(api): State<Arc<Api>>, request: Request, next: Next) -> Response {
    if api.projection.is_leading() {
        return next.run(request).await;
    }
    match api.status.other_leader() {
        Some(leader) => redirect(request.uri(), leader),
        None => ApiError::from(Refusal::Recovering).into_response(),
    }
}

/// 307 to the same path of the leader, by the scheme that the client came with.
fn redirect(uri: &Uri, leader: Member) -> Response {
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let location = format!("//{}{path}", leader.address);
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
