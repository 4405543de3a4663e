//! What only the master refuses.

use axum::http::StatusCode;
use meros_daemon::http::ApiError;

pub(super) fn not_found() -> ApiError {
    ApiError::new(
        StatusCode::NOT_FOUND,
        "not_found",
        "no such path: there are /health, /metrics and /api/v1/{master,masters,slaves,frameworks,offers,tasks,roles,quotas,weights,minimums,why,backup,state}",
    )
}

pub(super) fn method_not_allowed() -> ApiError {
    ApiError::new(
        StatusCode::METHOD_NOT_ALLOWED,
        "method_not_allowed",
        "reads are GET, orders are POST",
    )
}

pub(super) fn cross_site() -> ApiError {
    ApiError::new(
        StatusCode::FORBIDDEN,
        "cross_site",
        "orders from web pages are refused: use the command line or a client without an Origin header",
    )
}
