//! HTTP: health, metrics, reads and the few orders of operators.
//!
//! Reads are answered from the read model, orders go to the core and wait for its answer. Everything
//! that a client can do is bounded: connections, idle time, requests at work, their time, their body,
//! the rows of an answer. Errors are JSON, `{"code": …, "message": …}`: programs match on the code,
//! people read the message.

mod error;
mod maintenance;
mod orders;
mod reads;
mod roles;
mod slaves;
#[cfg(test)]
mod tests;
mod why;

use std::sync::Arc;

use axum::Router;
use axum::extract::Request;
use axum::http::{Method, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use meros_daemon::http::Limits;
use meros_proto::view::SettingView;
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::metrics::{Exposition, Metrics};
use crate::projection::Projection;
use crate::shell::inbox::Inbox;

/// The largest body: the quotas of some thousand roles in one order.
const BODY_BYTES_MAX: usize = 1 << 20;

/// What the handlers share.
#[derive(Debug)]
pub(crate) struct Api {
    pub(crate) projection: Projection,
    pub(crate) inbox: Inbox,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) exposition: Exposition,
    /// Of this master; none in tests without a configuration.
    pub(crate) settings: Vec<SettingView>,
}

impl Api {
    /// With everything a handler needs.
    pub(crate) fn new(projection: Projection, inbox: Inbox, metrics: Arc<Metrics>) -> Self {
        let exposition = Exposition::new(&metrics, &projection, &inbox);
        Self {
            projection,
            inbox,
            metrics,
            exposition,
            settings: Vec::new(),
        }
    }
}

/// Serves until `stop` changes or its sender is gone; requests at work are finished.
pub(crate) async fn serve(listener: TcpListener, api: Arc<Api>, stop: watch::Receiver<bool>) {
    // Reads of large lists take some 10 MiB each: hence the default of 64 requests at work.
    let limits = Limits {
        body_bytes: BODY_BYTES_MAX,
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
        .route("/api/v1/master", get(reads::master))
        .route("/api/v1/slaves", get(reads::slaves))
        .route("/api/v1/frameworks", get(reads::frameworks))
        .route("/api/v1/offers", get(reads::offers))
        .route("/api/v1/tasks", get(reads::tasks))
        .route("/api/v1/roles", get(reads::roles))
        .route("/api/v1/why", get(why::why))
        .route("/api/v1/quotas", get(reads::quotas).post(roles::set_quotas))
        .route(
            "/api/v1/weights",
            get(reads::weights).post(roles::set_weights),
        )
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
        .route("/api/v1/maintenance", post(maintenance::set))
        .fallback(async || error::not_found())
        .method_not_allowed_fallback(async || error::method_not_allowed())
        .layer(middleware::from_fn(refuse_web_pages))
        .with_state(api)
}

/// There is no authentication, and any page that an operator opens could post to loopback.
async fn refuse_web_pages(request: Request, next: Next) -> Response {
    if request.method() != Method::GET && request.headers().contains_key(header::ORIGIN) {
        return error::cross_site().into_response();
    }
    next.run(request).await
}
