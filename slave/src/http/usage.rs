//! `GET /api/v1/usage/{framework}/{task}`: what the container of a task uses now, by the kernel's counters.
//! What this host does not tell is null. Totals count from the container's start; of two answers `at_us` tells the
//! time between them.
//!
//! A task in an executor of its framework uses what its executor uses.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use meros_daemon::http::ApiError;
use meros_proto::ids::{FrameworkId, TaskId};
use serde::Serialize;
use tokio::task::spawn_blocking;

use super::{Api, CORE_PATIENCE, error};
use crate::container::Usage;
use crate::shell::inbox::Input;
use crate::shell::running::TaskContainer;

/// Times are microseconds, sizes bytes.
#[derive(Debug, Serialize)]
struct UsageRow {
    framework_id: FrameworkId,
    task_id: TaskId,
    container: String,
    /// When, since 1970 by the slave's clock.
    at_us: u64,
    cpu_us: Option<u64>,
    cpu_throttled_us: Option<u64>,
    cpu_periods: Option<u64>,
    cpu_throttled_periods: Option<u64>,
    memory_bytes: Option<u64>,
    memory_peak_bytes: Option<u64>,
    memory_limit_bytes: Option<u64>,
    memory_limit_hits: Option<u64>,
    oom_kills: Option<u64>,
    pids: Option<u64>,
    pids_refused: Option<u64>,
    io_read_bytes: Option<u64>,
    io_written_bytes: Option<u64>,
    /// For how long some of its processes waited for want of each (pressure).
    cpu_stalled_us: Option<u64>,
    memory_stalled_us: Option<u64>,
    io_stalled_us: Option<u64>,
    stdout_bytes: u64,
    stderr_bytes: u64,
}

impl UsageRow {
    fn new((framework_id, task_id): (FrameworkId, TaskId), container: String, it: Usage) -> Self {
        let micros = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        Self {
            framework_id,
            task_id,
            container,
            at_us: micros(now.unwrap_or_default()),
            cpu_us: it.cpu_time.map(micros),
            cpu_throttled_us: it.cpu_throttled_time.map(micros),
            cpu_periods: it.cpu_periods,
            cpu_throttled_periods: it.cpu_throttled_periods,
            memory_bytes: it.memory_bytes,
            memory_peak_bytes: it.memory_peak_bytes,
            memory_limit_bytes: it.memory_limit_bytes,
            memory_limit_hits: it.memory_limit_hits,
            oom_kills: it.oom_kills,
            pids: it.pids,
            pids_refused: it.pids_refused,
            io_read_bytes: it.io_read_bytes,
            io_written_bytes: it.io_written_bytes,
            cpu_stalled_us: it.cpu_stalled.map(micros),
            memory_stalled_us: it.memory_stalled.map(micros),
            io_stalled_us: it.io_stalled.map(micros),
            stdout_bytes: it.stdout.bytes,
            stderr_bytes: it.stderr.bytes,
        }
    }
}

pub(super) async fn read(
    State(api): State<Arc<Api>>,
    path: Result<Path<(String, String)>, PathRejection>,
) -> Result<Response, ApiError> {
    let Path((framework, task)) = path.map_err(|error| ApiError::invalid(error.body_text()))?;
    let invalid = |error: meros_proto::ids::ParseIdError| ApiError::invalid(error.to_string());
    let framework: FrameworkId = framework.parse().map_err(invalid)?;
    let key = (framework, TaskId::new(&task).map_err(invalid)?);
    let ask = |reply| Input::ContainerOf(key.clone(), reply);
    let asked = api.inbox.ask(ask, CORE_PATIENCE).await;
    let process = match asked.map_err(|_| error::stopping())? {
        TaskContainer::Running(process) => process,
        TaskContainer::NotRunning(state) => {
            let message = format!("task {task} does not run: it is {state}");
            return Err(ApiError::new(
                StatusCode::CONFLICT,
                "task_not_running",
                message,
            ));
        }
        TaskContainer::Unknown => {
            let message = format!(
                "no task {task} of framework {framework} is on this slave: it has ended, or never ran here"
            );
            return Err(ApiError::new(
                StatusCode::NOT_FOUND,
                "task_unknown",
                message,
            ));
        }
    };
    let container = process.id().to_owned();
    // A dozen files of the kernel.
    let usage = spawn_blocking(move || process.stats()).await;
    let usage = usage.map_err(|_| error::stopping())?;
    Ok(Json(UsageRow::new(key, container, usage)).into_response())
}
