//! Images of the slave: which are here, and away with those that nobody uses.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::{get, post};
use axum::{Json, Router};
use meros_daemon::http::ApiError;
use serde_json::{Value, json};
use tokio::task::spawn_blocking;

use super::{Api, error};
use crate::image::{ImageRow, Images};

pub(super) fn routes() -> Router<Arc<Api>> {
    Router::new()
        .route("/api/v1/images", get(list))
        .route("/api/v1/images/prune", post(prune))
}

fn images(api: &Api) -> Result<Arc<Images>, ApiError> {
    let images = api.metrics.images.clone();
    images.map_err(|why| {
        let why = format!("this slave runs no images: {why}");
        ApiError::new(StatusCode::CONFLICT, "image_unavailable", why)
    })
}

async fn list(State(api): State<Arc<Api>>) -> Result<Json<Vec<ImageRow>>, ApiError> {
    Ok(Json(images(&api)?.list()))
}

/// Removes those that no container is made of.
async fn prune(State(api): State<Arc<Api>>) -> Result<Json<Value>, ApiError> {
    let images = images(&api)?;
    let pruned = spawn_blocking(move || images.prune()).await;
    let bytes = pruned.map_err(|_| error::stopping())?;
    Ok(Json(json!({ "freed_bytes": bytes })))
}
