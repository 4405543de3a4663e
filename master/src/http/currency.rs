//! Reads on a master that follows: answered from what it knows, with how old that may be; or not at all.
//!
//! - The leader answers as ever, but not while it waits for the others: one of them may lead.
//! - A follower answers with the header `x-meros-lag-ms`: everything that the leader had published so many
//!   milliseconds ago is in the answer. Beyond [`LAG_MAX`] it refuses (`view_too_old`).
//! - One that knows nothing yet sends to the leader.
//! - Whoever must not read what is old, such as his own order's effect, asks with `x-meros-read: leader`.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Request, State};
use axum::http::{HeaderValue, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use meros_daemon::http::ApiError;
use meros_proto::refusal::Refusal;

use super::{Api, redirect};
use crate::projection::Currency;
use crate::registry::Status;

/// What is older is not told: by then another master leads, or this one is cut off.
const LAG_MAX: Duration = Duration::from_secs(10);

/// The request's header: `leader` if nobody else is to answer; `any`, or none.
const READ: &str = "x-meros-read";
/// The answer's header, on followers only.
const LAG: &str = "x-meros-lag-ms";

pub(super) async fn answer_or_send(
    State(api): State<Arc<Api>>,
    request: Request,
    next: Next,
) -> Response {
    let of_leader = match request.headers().get(READ).map(HeaderValue::as_bytes) {
        None | Some(b"any") => false,
        Some(b"leader") => true,
        Some(_) => return ApiError::invalid(format!("{READ} is leader or any")).into_response(),
    };
    let lag = match api.projection.currency() {
        Currency::Leading if !api.status.is_waiting() => return next.run(request).await,
        Currency::Behind(lag) if !of_leader => lag,
        Currency::Leading | Currency::Behind(_) | Currency::Void => {
            return match api.status.other_leader() {
                Some(leader) => redirect(request.uri(), leader),
                None => ApiError::from(Refusal::Recovering).into_response(),
            };
        }
    };
    if let Some(refusal) = too_old(&api.status, lag) {
        return refusal.into_response();
    }
    let mut answer = next.run(request).await;
    let millis = u64::try_from(lag.as_millis()).unwrap_or(u64::MAX);
    answer.headers_mut().insert(LAG, HeaderValue::from(millis));
    answer
}

fn too_old(status: &Status, lag: Duration) -> Option<ApiError> {
    if lag <= LAG_MAX {
        return None;
    }
    let whom = match status.other_leader() {
        Some(leader) => format!(
            "ask the leader, which was {} at {}",
            leader.name, leader.address
        ),
        None => "ask another master: /api/v1/masters lists them".to_owned(),
    };
    let message = format!(
        "this master follows, and has heard nothing of the leader for {} s: {whom}",
        lag.as_secs()
    );
    let status = StatusCode::SERVICE_UNAVAILABLE;
    Some(ApiError::new(status, "view_too_old", message))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_too_old_is_not_told() {
        let status = Status::unknown();
        assert!(too_old(&status, LAG_MAX).is_none());
        let refusal = too_old(&status, LAG_MAX + Duration::from_millis(1));
        assert_eq!(refusal.expect("too old").code(), "view_too_old");
    }
}
