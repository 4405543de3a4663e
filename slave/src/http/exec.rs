//! `GET /api/v1/exec` with `Upgrade: meros-exec/1`: the way into containers, for `meros exec`.
//!
//! The answer is 101, and what follows is TLS with certificates of the cluster; see
//! docs/decisions/0020-into-containers.md. Without the header the answer is 426.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use meros_daemon::http::ApiError;
use meros_proto::message::exec::EXEC_UPGRADE;

use super::Api;

pub(super) async fn open(
    State(api): State<Arc<Api>>,
    request: Request,
) -> Result<Response, ApiError> {
    let Some(execs) = &api.execs else {
        let message = "this slave lets nobody into containers: its option `exec` is false";
        return Err(ApiError::new(StatusCode::FORBIDDEN, "exec_off", message));
    };
    let wanted = request.headers().get(header::UPGRADE);
    if wanted.is_none_or(|wanted| {
        !wanted
            .as_bytes()
            .eq_ignore_ascii_case(EXEC_UPGRADE.as_bytes())
    }) {
        let message = format!("this is for `meros exec`: ask for an upgrade to {EXEC_UPGRADE}");
        return Err(ApiError::new(
            StatusCode::UPGRADE_REQUIRED,
            "upgrade_required",
            message,
        ));
    }
    let place = execs.place().ok_or_else(|| {
        let message = "too many shake hands already: try again in a moment";
        ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "busy", message)
    })?;
    // Served on its own: this connection's part in HTTP is over with the answer.
    tokio::spawn(Arc::clone(execs).serve(hyper::upgrade::on(request), place));
    let headers = [
        (header::CONNECTION, HeaderValue::from_static("upgrade")),
        (header::UPGRADE, HeaderValue::from_static(EXEC_UPGRADE)),
    ];
    Ok((StatusCode::SWITCHING_PROTOCOLS, headers).into_response())
}
