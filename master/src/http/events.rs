//! `GET /api/v1/events`: every change of the cluster, in order, and none twice (semantics Q4).
//!
//! Server-sent events, each with a CloudEvents envelope. The id of an event is its place: who comes back
//! with the last one, as `after` or in `Last-Event-ID`, is told what came behind it, or of a gap.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, Uri, header};
use axum::response::Response;
use meros_daemon::http::{ApiError, Endless};
use meros_proto::ids::ClusterId;
use meros_proto::refusal::Refusal;
use meros_proto::time::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};

use super::Api;
use super::feed::{Feed, Voice};
use super::reads::query;
use crate::projection::{Batch, Form, Place};

/// What a browser sends when it connects again.
const LAST_EVENT_ID: &str = "last-event-id";

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct EventsQuery {
    after: Option<String>,
}

pub(super) async fn events(
    State(api): State<Arc<Api>>,
    headers: HeaderMap,
    uri: Uri,
) -> Result<Response, ApiError> {
    let EventsQuery { after } = query(&uri)?;
    let after = match (after, headers.get(LAST_EVENT_ID)) {
        (Some(after), _) => Some(place(&after)?),
        (None, Some(after)) => Some(place(after.to_str().unwrap_or_default())?),
        (None, None) => None,
    };
    let cluster = |model: &crate::projection::ReadModel| model.master().map(|it| it.cluster_id);
    let (cluster, watcher) = api
        .projection
        .watch(after, cluster)
        .map_err(|_| Refusal::Recovering)?;
    let voice = Sse {
        cluster: cluster.ok_or(Refusal::Recovering)?,
    };
    // So that a client that is cut off before the first event knows where it was.
    let first = format!("retry: 1000\nid: {}\n\n", watcher.place());
    let first = vec![first.into()];
    let feed = Feed::start(&api.pool, watcher, first, api.heartbeat, voice)?;
    let mut answer = Response::new(Body::new(feed));
    let headers = answer.headers_mut();
    let kind = HeaderValue::from_static("text/event-stream");
    headers.insert(header::CONTENT_TYPE, kind);
    let never = HeaderValue::from_static("no-store");
    headers.insert(header::CACHE_CONTROL, never);
    answer.extensions_mut().insert(Endless);
    Ok(answer)
}

fn place(text: &str) -> Result<Place, ApiError> {
    text.parse()
        .map_err(|error| ApiError::invalid(format!("after is {text:?}: {error}")))
}

struct Sse {
    cluster: ClusterId,
}

impl Sse {
    /// A CloudEvent in JSON, on a line of its own.
    fn said(&self, place: Place, kind: &str, at: Option<Timestamp>, data: &Value) -> Bytes {
        let kind = format!("meros.{kind}");
        let mut event = json!({
            "specversion": "1.0",
            "id": place.to_string(),
            "source": format!("/clusters/{}", self.cluster),
            "type": kind,
            "datacontenttype": "application/json",
            "data": data,
        });
        if let Some(at) = at {
            event["time"] = json!(rfc3339(at));
        }
        format!("id: {place}\nevent: {kind}\ndata: {event}\n\n").into()
    }
}

/// Until the year 9999, which is as far as it goes.
fn rfc3339(at: Timestamp) -> String {
    const LAST: Duration = Duration::from_secs(253_402_300_799);
    let since = Duration::from_micros(at.0).min(LAST);
    humantime::format_rfc3339_micros(SystemTime::UNIX_EPOCH + since).to_string()
}

impl Voice for Sse {
    fn form(&self) -> Form {
        Form::Sse
    }

    fn event(&self, batch: &Batch, at: usize) -> Option<Bytes> {
        let (event, _) = batch.event(at);
        // Its name and what belongs to it.
        let Ok(Value::Object(change)) = serde_json::to_value(&event.change) else {
            return None;
        };
        let (kind, data) = change.into_iter().next()?;
        Some(self.said(batch.place(at), &kind, Some(event.at), &data))
    }

    fn gap(&self, after: Place, until: Place) -> Option<Bytes> {
        let data = json!({"after": after.to_string(), "until": until.to_string()});
        Some(self.said(until, "gap", None, &data))
    }

    fn heartbeat(&self) -> Bytes {
        Bytes::from_static(b":\n\n")
    }
}

#[cfg(test)]
mod tests {
    use meros_proto::ids::Epoch;

    use super::*;

    #[test]
    fn an_event_is_a_cloud_event_on_one_line() {
        let voice = Sse {
            cluster: ClusterId(7),
        };
        let place = Place {
            epoch: Epoch(3),
            sequence: 17,
        };
        let said = voice.said(
            place,
            "task_added",
            Some(Timestamp(1_500_000)),
            &json!({"a": "b\nc"}),
        );
        let text = std::str::from_utf8(&said).expect("text");
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[..2], ["id: 3-17", "event: meros.task_added"]);
        let data = lines[2].strip_prefix("data: ").expect("the event");
        let event: Value = serde_json::from_str(data).expect("one line of JSON");
        assert_eq!(event["time"], "1970-01-01T00:00:01.500000Z");
        assert_eq!(
            (&event["id"], &event["specversion"]),
            (&json!("3-17"), &json!("1.0"))
        );
        assert_eq!(
            event["source"],
            "/clusters/00000000-0000-0000-0000-000000000007"
        );
        assert!(text.ends_with("\n\n") && lines.len() == 4, "{text:?}");
    }
}
