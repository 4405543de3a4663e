//! What only the slave refuses.

use axum::http::StatusCode;
use meros_daemon::http::ApiError;

pub(super) fn not_found() -> ApiError {
    let message = "no such path: there are /health, /metrics, /api/v1/isolation, /api/v1/tasks, \
        /api/v1/executors, /api/v1/exec, /api/v1/usage/{framework}/{task}, \
        /api/v1/logs/{framework}/{task}/{stdout|stderr}, \
        /api/v1/files/{framework}/{task}/{browse|read|download}, and for tools of Mesos /api/v1, \
        /api/v1/executor, /state, /containers, /monitor/statistics, /version, /flags, /metrics/snapshot and \
        /files/{browse|read|download|debug}";
    ApiError::new(StatusCode::NOT_FOUND, "not_found", message)
}

/// No more of something that has no end of its own.
pub(super) fn busy(most: usize, what: &str) -> ApiError {
    ApiError::new(
        StatusCode::SERVICE_UNAVAILABLE,
        "busy",
        format!("{most} {what} are open already: close one, or try again later"),
    )
}

pub(super) fn method_not_allowed() -> ApiError {
    ApiError::new(
        StatusCode::METHOD_NOT_ALLOWED,
        "method_not_allowed",
        "there is only GET here, and POST at /api/v1 and /api/v1/executor",
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
