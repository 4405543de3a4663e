//! `POST /api/v1/maintenance`: when slaves will not be available (semantics K11). The plan is in
//! `GET /api/v1/slaves`, and in offers.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::body::Bytes;
use axum::extract::State;
use axum::response::Response;
use meros_daemon::http::ApiError;
use meros_master_core::event::OperatorCall;
use meros_proto::ids::SlaveId;
use meros_proto::maintenance::Unavailability;
use meros_proto::time::Timestamp;
use serde::Deserialize;
use tracing::info;

use super::Api;
use super::orders::{json, order};

/// A change of the plan, all of it or nothing.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Plan {
    #[serde(default)]
    windows: Vec<Window>,
    /// Slaves whose maintenance is called off.
    #[serde(default)]
    cancel: Vec<SlaveId>,
    /// Whether that of all slaves that are not in a window is called off.
    #[serde(default)]
    replace: bool,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Window {
    slaves: Vec<SlaveId>,
    /// As RFC 3339 has it, such as `2030-01-31T22:00:00Z`.
    start: String,
    /// Such as `2h`; for good if absent.
    duration: Option<String>,
}

pub(super) async fn set(State(api): State<Arc<Api>>, body: Bytes) -> Result<Response, ApiError> {
    let plan: Plan = json(&body)?;
    let mut windows = Vec::new();
    for window in plan.windows {
        let unavailability = Unavailability {
            start: parse_start(&window.start)?,
            duration: window.duration.as_deref().map(parse_duration).transpose()?,
        };
        let of_slave = |slave_id| (slave_id, Some(unavailability));
        windows.extend(window.slaves.into_iter().map(of_slave));
    }
    windows.extend(plan.cancel.into_iter().map(|slave_id| (slave_id, None)));
    let replace = plan.replace;
    info!(
        slaves = windows.len(),
        replace, "operator plans maintenance"
    );
    order(&api, OperatorCall::SetMaintenance { windows, replace }).await
}

fn parse_start(text: &str) -> Result<Timestamp, ApiError> {
    let time: SystemTime = humantime::parse_rfc3339(text).map_err(|error| {
        ApiError::invalid(format!(
            "start is {text:?}, not a time such as 2030-01-31T22:00:00Z: {error}"
        ))
    })?;
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    Ok(Timestamp::default().after(since))
}

fn parse_duration(text: &str) -> Result<Duration, ApiError> {
    humantime::parse_duration(text).map_err(|error| {
        ApiError::invalid(format!(
            "duration is {text:?}, not a duration such as 2h: {error}"
        ))
    })
}
