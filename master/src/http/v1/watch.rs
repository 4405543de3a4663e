//! SUBSCRIBE of operators: the whole state, then every change (semantics O3).

use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::http::{HeaderName, HeaderValue, header};
use axum::response::Response;
use meros_daemon::http::{ApiError, Endless};
use meros_proto::refusal::Refusal;
use meros_v1::encoding::{Media, encode};
use meros_v1::ids::Ids;
use meros_v1::pb::master::Event;
use meros_v1::{recordio, watch};
use tracing::info;

use super::Posted;
use super::operator::state_of;
use super::reads::Picked;
use crate::http::Api;
use crate::http::feed::{Feed, Voice};
use crate::projection::{Batch, Form, Place};

/// What the records of a stream are, where its own type is that of streams (semantics R2).
static MESSAGE_CONTENT_TYPE: HeaderName = HeaderName::from_static("message-content-type");

pub(super) async fn subscribe(api: Arc<Api>, posted: &Posted) -> Result<Response, ApiError> {
    let media = posted.answer;
    let seconds = api.heartbeat.as_secs_f64();
    let seen = Arc::clone(&api);
    // Picking and writing out are kept away from the threads that serve the network.
    let begun = tokio::task::spawn_blocking(move || {
        let (picked, watcher) = seen
            .projection
            .watch(None, Picked::all)
            .map_err(|_| Refusal::Recovering)?;
        let picked = picked.ok_or(Refusal::Recovering)?;
        let subscribed = watch::subscribed(state_of(&picked), seconds);
        Ok::<_, Refusal>((picked.ids, record(media, &subscribed), watcher))
    });
    let begun = begun
        .await
        .map_err(|error| ApiError::internal(error.to_string()))?;
    let (ids, subscribed, watcher) = begun?;
    let voice = Operator { ids, media };
    // The first heartbeat right after it (semantics R4).
    let first = vec![subscribed, voice.heartbeat()];
    let feed = Feed::start(&api.pool, watcher, first, api.heartbeat, voice)?;
    let mut answer = Response::new(Body::new(feed));
    let headers = answer.headers_mut();
    let media = HeaderValue::from_static(media.name());
    match posted.is_recordio {
        true => {
            let recordio = HeaderValue::from_static("application/recordio");
            headers.insert(header::CONTENT_TYPE, recordio);
            headers.insert(MESSAGE_CONTENT_TYPE.clone(), media);
        }
        false => {
            headers.insert(header::CONTENT_TYPE, media);
        }
    }
    answer.extensions_mut().insert(Endless);
    Ok(answer)
}

fn record(media: Media, event: &Event) -> Bytes {
    recordio::frame(&encode(media, event))
}

struct Operator {
    ids: Ids,
    media: Media,
}

impl Voice for Operator {
    fn form(&self) -> Form {
        match self.media {
            Media::Json => Form::V1Json,
            Media::Protobuf => Form::V1Protobuf,
        }
    }

    fn event(&self, batch: &Batch, at: usize) -> Option<Bytes> {
        let (event, before) = batch.event(at);
        let event = watch::event(self.ids, &event.change, before)?;
        Some(record(self.media, &event))
    }

    /// v1 has no word for it: who subscribes again is told everything.
    fn gap(&self, after: Place, until: Place) -> Option<Bytes> {
        info!(%after, %until, "an operator reads the v1 stream too slowly");
        None
    }

    fn heartbeat(&self) -> Bytes {
        record(self.media, &watch::heartbeat())
    }
}
