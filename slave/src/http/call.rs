//! What all calls of Mesos v1 have in common: they are POST, and their headers say how they are written
//! (semantics A2).

use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use meros_daemon::http::ApiError;
use meros_v1::encoding::Negotiated;

/// How a call is written, and how its answer is to be.
pub(super) fn negotiated(headers: &HeaderMap) -> Result<Negotiated, ApiError> {
    let text = |name: &'static str| headers.get(name).and_then(|value| value.to_str().ok());
    Negotiated::of(text).map_err(|error| {
        let status = StatusCode::from_u16(error.status()).expect("one of HTTP's");
        ApiError::new(status, error.code(), error.to_string())
    })
}

/// 405: no call is anything else than POST.
pub(super) fn not_a_call() -> Response {
    let why = "calls are POST";
    let refused = ApiError::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", why);
    let mut answer = refused.into_response();
    let post = HeaderValue::from_static("POST");
    answer.headers_mut().insert(header::ALLOW, post);
    answer
}
