//! `/maintenance/schedule`, `/maintenance/status`, `/machine/down`, `/machine/up`, and what operator calls
//! share with them (semantics K11, O1). What machines and slaves have to do with each other is in
//! `meros_v1::machines`; the core decides.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use meros_daemon::http::ApiError;
use meros_master_core::event::OperatorCall;
use meros_proto::refusal::Refusal;
use meros_proto::view::SlaveRow;
use meros_v1::machines;
use meros_v1::pb;
use meros_v1::pb::maintenance::Schedule;
use meros_v1::pb::master::call::StartMaintenance;
use tracing::info;

use super::operator::refused;
use super::reads::ROWS_MAX;
use super::{blocking, document, read, read_list};
use crate::http::Api;
use crate::http::orders::ordered;

/// The slaves of the cluster.
pub(super) fn rows(api: &Api) -> Result<Vec<SlaveRow>, ApiError> {
    let model = api.projection.read();
    model.master().ok_or(Refusal::Recovering)?;
    Ok(model.slaves(None, ROWS_MAX).rows)
}

/// The order to have this schedule and no other.
pub(super) fn plan(api: &Api, schedule: &Schedule) -> Result<OperatorCall, ApiError> {
    let windows = machines::read_schedule(schedule, &rows(api)?).map_err(refused)?;
    let replace = true;
    Ok(OperatorCall::SetMaintenance { windows, replace })
}

/// The order to take machines down.
pub(super) fn start(api: &Api, ids: &[pb::MachineId]) -> Result<OperatorCall, ApiError> {
    let slaves = machines::slaves(ids, &rows(api)?).map_err(refused)?;
    Ok(OperatorCall::StartMaintenance { slaves })
}

/// The order to bring machines up.
pub(super) fn stop(api: &Api, ids: &[pb::MachineId]) -> Result<OperatorCall, ApiError> {
    let slaves = machines::slaves(ids, &rows(api)?).map_err(refused)?;
    Ok(OperatorCall::StopMaintenance { slaves })
}

pub(super) async fn schedule(State(api): State<Arc<Api>>) -> Result<Response, ApiError> {
    blocking(move || Ok(document(&machines::schedule(&rows(&api)?)))).await
}

pub(super) async fn status(State(api): State<Arc<Api>>) -> Result<Response, ApiError> {
    blocking(move || Ok(document(&machines::status(&rows(&api)?)))).await
}

pub(super) async fn set_schedule(
    State(api): State<Arc<Api>>,
    body: Bytes,
) -> Result<StatusCode, ApiError> {
    info!("operator sets the maintenance schedule");
    done(api, move |api| plan(api, &read(&body)?)).await
}

pub(super) async fn down(State(api): State<Arc<Api>>, body: Bytes) -> Result<StatusCode, ApiError> {
    info!("operator takes machines down");
    done(api, move |api| start(api, &listed(&body)?)).await
}

pub(super) async fn up(State(api): State<Arc<Api>>, body: Bytes) -> Result<StatusCode, ApiError> {
    info!("operator brings machines up");
    done(api, move |api| stop(api, &listed(&body)?)).await
}

fn listed(body: &[u8]) -> Result<Vec<pb::MachineId>, ApiError> {
    let read: StartMaintenance = read_list("machines", body)?;
    Ok(read.machines)
}

/// Makes an order, and has it carried out.
async fn done(
    api: Arc<Api>,
    order: impl FnOnce(&Api) -> Result<OperatorCall, ApiError> + Send + 'static,
) -> Result<StatusCode, ApiError> {
    let of_order = Arc::clone(&api);
    let order = blocking(move || order(&of_order)).await?;
    ordered(&api, order).await?;
    Ok(StatusCode::OK)
}
