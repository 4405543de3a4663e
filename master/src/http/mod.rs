//! HTTP: health, metrics, reads and the few orders of operators.
//!
//! Reads are answered from the read model, orders go to the core and wait for its answer. Everything
//! that a client can do is bounded: connections, idle time, requests at work, their time, their body,
//! the rows of an answer. Errors are JSON, `{"code": …, "message": …}`: programs match on the code,
//! people read the message.

mod error;
mod listener;
mod orders;
mod reads;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{Method, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tower_http::limit::RequestBodyLimitLayer;

use crate::metrics::{Exposition, Metrics};
use crate::projection::Projection;
use crate::shell::inbox::Inbox;
use error::ApiError;
use listener::BoundedListener;

/// Requests at work at the same time. Reads of large lists take some 10 MiB each.
const REQUESTS_MAX: usize = 64;
/// How long a request may take. Orders wait for the disk at most.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(15);
/// No request needs a body.
const BODY_BYTES_MAX: usize = 16 << 10;

/// What the handlers share.
#[derive(Debug)]
pub(crate) struct Api {
    pub(crate) projection: Projection,
    pub(crate) inbox: Inbox,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) exposition: Exposition,
    room: Semaphore,
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
            room: Semaphore::new(REQUESTS_MAX),
        }
    }
}

/// Serves until `stop` changes or its sender is gone; requests at work are finished.
pub(crate) async fn serve(
    listener: TcpListener,
    api: Arc<Api>,
    mut stop: watch::Receiver<bool>,
) -> std::io::Result<()> {
    let stopped = async move {
        // An error means that whoever would stop us is gone, which is the same.
        let _ = stop.wait_for(|stop| *stop).await;
    };
    axum::serve(BoundedListener::new(listener), router(api))
        .with_graceful_shutdown(stopped)
        .await
}

fn router(api: Arc<Api>) -> Router {
    Router::new()
        .route("/health", get(reads::health))
        .route("/metrics", get(reads::metrics))
        .route("/api/v1/master", get(reads::master))
        .route("/api/v1/slaves", get(reads::slaves))
        .route("/api/v1/frameworks", get(reads::frameworks))
        .route("/api/v1/offers", get(reads::offers))
        .route("/api/v1/tasks", get(reads::tasks))
        .route("/api/v1/tasks/{framework}/{task}/kill", post(orders::kill))
        .route(
            "/api/v1/frameworks/{framework}/teardown",
            post(orders::teardown),
        )
        .fallback(async || ApiError::not_found())
        .method_not_allowed_fallback(async || ApiError::method_not_allowed())
        .layer(RequestBodyLimitLayer::new(BODY_BYTES_MAX))
        .layer(middleware::from_fn_with_state(Arc::clone(&api), guard))
        .with_state(api)
}

/// Around every request: room, time, count.
async fn guard(State(api): State<Arc<Api>>, request: Request, next: Next) -> Response {
    // There is no authentication, and any page that an operator opens could post to loopback.
    let is_cross_site =
        request.method() != Method::GET && request.headers().contains_key(header::ORIGIN);
    let response = match api.room.try_acquire() {
        Ok(_) if is_cross_site => ApiError::cross_site().into_response(),
        Ok(_place) => match tokio::time::timeout(REQUEST_TIMEOUT, next.run(request)).await {
            Ok(response) if response.status() == StatusCode::PAYLOAD_TOO_LARGE => {
                ApiError::body_too_large(BODY_BYTES_MAX).into_response()
            }
            Ok(response) => response,
            Err(_) => ApiError::timeout(REQUEST_TIMEOUT).into_response(),
        },
        Err(_) => ApiError::busy(REQUESTS_MAX).into_response(),
    };
    api.metrics.answered(response.status().as_u16());
    response
}
