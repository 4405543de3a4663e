//! `GET /api/v1/logs/{framework}/{task}/{stdout|stderr}`: a piece of what a task has written.
//!
//! Query: `offset` (bytes from the task's start, default 0) or `tail` (bytes before the end);
//! `length` (default and most 1 MiB); `wait` (milliseconds to wait for at least one byte or the end
//! of the task, default 0, at most 10,000). The answer is the bytes; `x-meros-offset` says where they
//! begin (later than asked for if the beginning is no longer kept), `x-meros-size` where the output
//! ends so far, `x-meros-complete` whether the task has ended and this reaches to the end. Past the
//! end the answer is empty.
//!
//! A task in an executor of its framework writes what its executor writes, which is also there under the
//! name `executor:` and the executor's id.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use meros_daemon::http::ApiError;
use meros_proto::ids::{FrameworkId, TaskId};
use meros_slave_core::TaskKey;
use serde::Deserialize;

use super::error::{output_unknown, stopping};
use super::{Api, CORE_PATIENCE};
use crate::output::{Begin, PIECE_BYTES_MAX, ReadError, Stream};
use crate::plan::executor_place;
use crate::shell::inbox::Input;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct LogQuery {
    offset: Option<u64>,
    tail: Option<u64>,
    length: Option<u64>,
    wait: Option<u64>,
}

impl LogQuery {
    fn begin(&self) -> Result<Begin, ApiError> {
        match (self.offset, self.tail) {
            (Some(_), Some(_)) => Err(ApiError::invalid("offset and tail exclude each other")),
            (None, Some(bytes)) => Ok(Begin::Tail(bytes.min(PIECE_BYTES_MAX))),
            (offset, None) => Ok(Begin::Offset(offset.unwrap_or(0))),
        }
    }
}

pub(super) async fn read(
    State(api): State<Arc<Api>>,
    path: Result<Path<(String, String, String)>, PathRejection>,
    query: Result<Query<LogQuery>, QueryRejection>,
) -> Result<Response, ApiError> {
    let Path((framework, task, stream)) =
        path.map_err(|error| ApiError::invalid(error.body_text()))?;
    let Query(query) = query.map_err(|error| ApiError::invalid(error.body_text()))?;
    let invalid = |error: meros_proto::ids::ParseIdError| ApiError::invalid(error.to_string());
    let framework: FrameworkId = framework.parse().map_err(invalid)?;
    let task = TaskId::new(&task).map_err(invalid)?;
    let stream = match stream.as_str() {
        "stdout" => Stream::Stdout,
        "stderr" => Stream::Stderr,
        _ => {
            return Err(ApiError::invalid(
                "a task has outputs `stdout` and `stderr`",
            ));
        }
    };
    let begin = query.begin()?;
    let length = query.length.unwrap_or(PIECE_BYTES_MAX);
    let wait = Duration::from_millis(query.wait.unwrap_or(0));
    let key = (framework, task);
    let mut piece = api.outputs.read(&key, stream, begin, length, wait).await;
    if matches!(piece, Err(ReadError::Unknown))
        && let Some(executor) = executor_of(&api, &key).await?
    {
        piece = api
            .outputs
            .read(&executor, stream, begin, length, wait)
            .await;
    }
    let piece = piece.map_err(|error| match error {
        ReadError::Unknown => output_unknown(key.1.as_str()),
        ReadError::Io(source) => ApiError::internal(format!("output cannot be read: {source}")),
    })?;
    let headers = [
        ("x-meros-offset", piece.offset.to_string()),
        ("x-meros-size", piece.size.to_string()),
        ("x-meros-complete", piece.complete.to_string()),
    ];
    // Whatever a task writes is bytes: a browser must not run it.
    let kind = [
        (header::CONTENT_TYPE, "application/octet-stream"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ];
    Ok((kind, headers, piece.bytes).into_response())
}

/// Where the output of a task is that has none of its own.
async fn executor_of(api: &Api, task: &TaskKey) -> Result<Option<TaskKey>, ApiError> {
    let ask = |reply| Input::ExecutorOf(task.clone(), reply);
    let asked = api.inbox.ask(ask, CORE_PATIENCE).await;
    let executor = asked.map_err(|_| stopping())?;
    Ok(executor.as_ref().and_then(executor_place))
}
