//! What only the slave refuses.

use axum::http::StatusCode;
use meros_daemon::http::ApiError;

pub(super) fn not_found() -> ApiError {
    let message = "no such path: there are /health, /metrics, /api/v1/isolation, /api/v1/tasks, \
        /api/v1/logs/{framework}/{task}/{stdout|stderr}, \
        /api/v1/files/{framework}/{task}/{browse|read|download}, and for tools of Mesos /state and \
        /files/{browse|read|download|debug}";
    ApiError::new(StatusCode::NOT_FOUND, "not_found", message)
}

pub(super) fn method_not_allowed() -> ApiError {
    ApiError::new(
        StatusCode::METHOD_NOT_ALLOWED,
        "method_not_allowed",
        "all there is here is GET",
    )
}

pub(super) fn output_unknown(task: &str) -> ApiError {
    let message = format!(
        "no output of task {task} is kept on this slave: it never ran here, or it ended long ago, or \
         more than a minute ago while the slave's disk was almost full"
    );
    ApiError::new(StatusCode::NOT_FOUND, "output_unknown", message)
}

pub(super) fn stopping() -> ApiError {
    let message = "the slave is stopping or too busy to answer";
    ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", message)
}
