//! Errors as clients see them.

use std::time::Duration;

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use meros_proto::refusal::Refusal;
use serde::Serialize;

/// A refused request.
#[derive(Debug)]
pub(super) struct ApiError {
    status: StatusCode,
    code: &'static str,
    message: String,
}

#[derive(Serialize)]
struct Body<'a> {
    code: &'a str,
    message: &'a str,
}

impl ApiError {
    fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self {
            status,
            code,
            message: message.into(),
        }
    }

    pub(super) fn not_found() -> Self {
        Self::new(
            StatusCode::NOT_FOUND,
            "not_found",
            "no such path: there are /health, /metrics and /api/v1/{master,slaves,frameworks,offers,tasks}",
        )
    }

    pub(super) fn method_not_allowed() -> Self {
        Self::new(
            StatusCode::METHOD_NOT_ALLOWED,
            "method_not_allowed",
            "reads are GET, orders are POST",
        )
    }

    pub(super) fn cross_site() -> Self {
        Self::new(
            StatusCode::FORBIDDEN,
            "cross_site",
            "orders from web pages are refused: use the command line or a client without an Origin header",
        )
    }

    pub(super) fn invalid(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid", message)
    }

    pub(super) fn busy(limit: usize) -> Self {
        Self::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "busy",
            format!("{limit} requests are at work already: try again in a moment"),
        )
    }

    pub(super) fn timeout(limit: Duration) -> Self {
        Self::new(
            StatusCode::GATEWAY_TIMEOUT,
            "timeout",
            format!(
                "no answer within {} s; an order may still be carried out",
                limit.as_secs()
            ),
        )
    }

    pub(super) fn body_too_large(limit: usize) -> Self {
        Self::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "body_too_large",
            format!("a body of more than {limit} bytes: no request here needs one"),
        )
    }

    pub(super) fn internal(message: impl Into<String>) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", message)
    }
}

impl From<Refusal> for ApiError {
    fn from(refusal: Refusal) -> Self {
        let status = match &refusal {
            Refusal::Invalid { .. } => StatusCode::BAD_REQUEST,
            Refusal::NotYours { .. } => StatusCode::FORBIDDEN,
            Refusal::FrameworkUnknown { .. }
            | Refusal::SlaveUnknown { .. }
            | Refusal::TaskUnknown { .. }
            | Refusal::OfferInvalid { .. } => StatusCode::NOT_FOUND,
            Refusal::FrameworkRemoved { .. } => StatusCode::GONE,
            Refusal::OverLimit { .. } => StatusCode::TOO_MANY_REQUESTS,
            Refusal::NotLeading { .. } | Refusal::Recovering | Refusal::Stopping => {
                StatusCode::SERVICE_UNAVAILABLE
            }
            _ => StatusCode::CONFLICT,
        };
        Self::new(status, refusal.code(), refusal.to_string())
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let body = Body {
            code: self.code,
            message: &self.message,
        };
        (self.status, Json(body)).into_response()
    }
}
