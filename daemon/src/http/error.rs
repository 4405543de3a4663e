//! Errors as clients see them.

use std::time::Duration;

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use meros_proto::refusal::Refusal;
use serde::Serialize;

use crate::verbosity::VerbosityError;

/// A refused request: programs match on the code, people read the message.
#[derive(Debug)]
pub struct ApiError {
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
    /// `code` is stable, lower case and without spaces.
    #[must_use]
    pub fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self {
            status,
            code,
            message: message.into(),
        }
    }

    /// The stable code.
    #[must_use]
    pub fn code(&self) -> &'static str {
        self.code
    }

    /// 400: the request itself is wrong.
    #[must_use]
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid", message)
    }

    /// 500: the disk or we have failed.
    #[must_use]
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", message)
    }

    pub(super) fn busy(limit: usize) -> Self {
        Self::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "busy",
            format!("{limit} requests are at work already: try again in a moment"),
        )
    }

    pub(super) fn busy_writing(limit: usize) -> Self {
        Self::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "busy",
            format!(
                "answers of {} MiB wait for their readers already: try again in a moment, or ask for fewer rows",
                limit >> 20
            ),
        )
    }

    pub(super) fn busy_streaming(limit: usize) -> Self {
        Self::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "busy",
            format!("{limit} streams of events are open already: close one, or try again later"),
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
            format!("a body of more than {limit} bytes: no request here needs as much"),
        )
    }

    /// What the parser of requests refuses before there is a request.
    pub(super) fn unparsed(status: StatusCode, head_bytes_max: usize) -> Self {
        let (code, message) = match status {
            StatusCode::URI_TOO_LONG => (
                "uri_too_long",
                format!("a request line of more than {head_bytes_max} bytes"),
            ),
            StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE => (
                "head_too_large",
                format!("a request head of more than {head_bytes_max} bytes or too many headers"),
            ),
            _ => ("invalid", "this is not HTTP/1.1".to_owned()),
        };
        Self::new(status, code, message)
    }

    /// The whole answer as it is sent, after which the connection ends.
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let body = serde_json::to_string(&self.body()).expect("two strings are always JSON");
        let (status, length) = (self.status, body.len());
        format!(
            "HTTP/1.1 {status}\r\ncontent-type: application/json\r\nconnection: close\r\n\
             content-length: {length}\r\n\r\n{body}"
        )
        .into_bytes()
    }

    fn body(&self) -> Body<'_> {
        Body {
            code: self.code,
            message: &self.message,
        }
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
            | Refusal::RoleUnknown { .. }
            | Refusal::NoSuchSlave { .. }
            | Refusal::OfferInvalid { .. } => StatusCode::NOT_FOUND,
            Refusal::FrameworkRemoved { .. } | Refusal::SlaveGone { .. } => StatusCode::GONE,
            Refusal::OverLimit { .. } => StatusCode::TOO_MANY_REQUESTS,
            Refusal::NotLeading { .. } | Refusal::Recovering | Refusal::Stopping => {
                StatusCode::SERVICE_UNAVAILABLE
            }
            _ => StatusCode::CONFLICT,
        };
        Self::new(status, refusal.code(), refusal.to_string())
    }
}

impl From<VerbosityError> for ApiError {
    fn from(error: VerbosityError) -> Self {
        match &error {
            VerbosityError::Unsupported => {
                let status = StatusCode::NOT_IMPLEMENTED;
                Self::new(status, "unsupported", error.to_string())
            }
            VerbosityError::Refused { .. } => Self::internal(error.to_string()),
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = (self.status, Json(self.body())).into_response();
        if self.status == StatusCode::TOO_MANY_REQUESTS || self.code == "busy" {
            // Limits in time are mended within a second, the others by somebody.
            let second = HeaderValue::from_static("1");
            response.headers_mut().insert(header::RETRY_AFTER, second);
        }
        response
    }
}
