//! Files out of sandboxes.
//!
//! Ours, below `GET /api/v1/files/{framework}/{task}/`, of the newest sandbox of a task:
//! `browse?path=` lists a folder as JSON; `read?path=` gives a part of a file with the query and the
//! headers of [logs](super::logs), so that it can be followed; `download?path=` gives all of it.
//!
//! Those of Mesos (semantics A10, R6): `/files/browse`, `/files/read`, `/files/download` with `path`, and
//! `/files/debug`; also behind `/slave(1)` and with `.json`. `path` is a sandbox's directory as
//! `/api/v1/tasks` tells it, or `/frameworks/…/executors/…/runs/…`. The same in the operator API:
//! LIST_FILES and READ_FILE.

use std::fs::File;
use std::io::Read;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use bytes::Bytes;
use http_body::{Body, Frame};
use meros_daemon::http::{ApiError, Endless};
use meros_proto::ids::{FrameworkId, TaskId};
use meros_v1::pb;
use nix::unistd::{Gid, Group, Uid, User};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep};

use super::{Api, DOWNLOADS_MAX, error};
use crate::files::{FileRow, Files, FilesError, Listing, Spot, read_at};
use crate::output::{Begin, PIECE_BYTES_MAX, WAIT_MAX};

/// What Mesos gives at most in one answer of `/files/read`: 16 pages.
const MESOS_PIECE_BYTES_MAX: u64 = 64 << 10;
/// Between two looks at a file that a reader waits for.
const POLL: Duration = Duration::from_millis(50);
/// Of a download, and how many of them wait for their reader.
const DOWNLOAD_PIECE_BYTES: usize = 256 << 10;
const DOWNLOAD_PIECES: usize = 2;
/// Sandboxes that `/files/debug` shows.
const DEBUG_ROWS_MAX: usize = 10_000;
/// Whether a folder has more than is shown.
const MORE: &str = "x-meros-more";

pub(super) fn routes() -> Router<Arc<Api>> {
    let mut router = Router::new()
        .route("/api/v1/files/{framework}/{task}/browse", get(browse))
        .route("/api/v1/files/{framework}/{task}/read", get(read))
        .route("/api/v1/files/{framework}/{task}/download", get(download));
    for prefix in ["", "/slave(1)"] {
        for ending in ["", ".json", "/"] {
            let at = |name: &str| format!("{prefix}/files/{name}{ending}");
            router = router
                .route(&at("browse"), get(mesos_browse))
                .route(&at("read"), get(mesos_read))
                .route(&at("download"), get(mesos_download))
                .route(&at("debug"), get(mesos_debug));
        }
    }
    router
}

type Where = Result<Path<(String, String)>, PathRejection>;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct PathQuery {
    #[serde(default)]
    path: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ReadQuery {
    path: String,
    offset: Option<u64>,
    tail: Option<u64>,
    length: Option<u64>,
    wait: Option<u64>,
}

async fn browse(
    State(api): State<Arc<Api>>,
    path: Where,
    query: Result<Query<PathQuery>, QueryRejection>,
) -> Result<Response, ApiError> {
    let Query(query) = query.map_err(|error| ApiError::invalid(error.body_text()))?;
    let spot = spot(&api, path, query.path).await?;
    let Listing { rows, has_more } = blocking(move || spot.list()).await?;
    Ok(([(MORE, has_more.to_string())], Json(rows)).into_response())
}

async fn read(
    State(api): State<Arc<Api>>,
    path: Where,
    query: Result<Query<ReadQuery>, QueryRejection>,
) -> Result<Response, ApiError> {
    let Query(query) = query.map_err(|error| ApiError::invalid(error.body_text()))?;
    let begin = match (query.offset, query.tail) {
        (Some(_), Some(_)) => return Err(ApiError::invalid("offset and tail exclude each other")),
        (None, Some(bytes)) => Begin::Tail(bytes.min(PIECE_BYTES_MAX)),
        (offset, None) => Begin::Offset(offset.unwrap_or(0)),
    };
    let spot = spot(&api, path, query.path).await?;
    let task = spot.task.clone();
    let file = Arc::new(blocking(move || spot.file()).await?);
    let wait = Duration::from_millis(query.wait.unwrap_or(0)).min(WAIT_MAX);
    let deadline = Instant::now() + wait;
    let length = query.length.unwrap_or(PIECE_BYTES_MAX).min(PIECE_BYTES_MAX);
    let mut begin = begin;
    loop {
        // Before the look at the file: what is written before the end is seen after it.
        let has_ended = !api.outputs.is_live(&task);
        let same = Arc::clone(&file);
        let (offset, size, bytes) = blocking(move || piece(&same, begin, length)).await?;
        if bytes.is_empty() && length > 0 && !has_ended && Instant::now() < deadline {
            // What comes next is what was waited for, also at the end of a tail.
            begin = Begin::Offset(offset);
            sleep(POLL.min(deadline.saturating_duration_since(Instant::now()))).await;
            continue;
        }
        let end = offset + bytes.len() as u64;
        let headers = [
            ("x-meros-offset", offset.to_string()),
            ("x-meros-size", size.to_string()),
            ("x-meros-complete", (has_ended && end >= size).to_string()),
        ];
        return Ok((OCTETS, headers, bytes).into_response());
    }
}

/// Where a piece begins, how large the file is, the bytes.
fn piece(file: &File, begin: Begin, length: u64) -> Result<(u64, u64, Vec<u8>), FilesError> {
    let size = file.metadata()?.len();
    let offset = match begin {
        Begin::Offset(offset) => offset,
        Begin::Tail(bytes) => size.saturating_sub(bytes),
    };
    Ok((offset, size, read_at(file, offset, length)?))
}

async fn download(
    State(api): State<Arc<Api>>,
    path: Where,
    query: Result<Query<PathQuery>, QueryRejection>,
) -> Result<Response, ApiError> {
    let Query(query) = query.map_err(|error| ApiError::invalid(error.body_text()))?;
    let spot = spot(&api, path, query.path).await?;
    whole(&api, spot).await
}

/// Whatever a task writes is bytes: a browser must not run it.
const OCTETS: [(&str, &str); 2] = [
    ("content-type", "application/octet-stream"),
    ("x-content-type-options", "nosniff"),
];

/// A file from its beginning to where it ends now.
async fn whole(api: &Api, spot: Spot) -> Result<Response, ApiError> {
    let place = Arc::clone(&api.downloads).try_acquire_owned();
    let place = place.map_err(|_| error::busy(DOWNLOADS_MAX, "downloads"))?;
    let name: String = spot
        .name()
        .chars()
        .map(|it| {
            if it.is_ascii_alphanumeric() || "-_.".contains(it) {
                it
            } else {
                '_'
            }
        })
        .collect();
    let opened = blocking(move || {
        let file = spot.file()?;
        let size = file.metadata()?.len();
        Ok((file, size))
    });
    let (file, size) = opened.await?;
    let headers = [
        (header::CONTENT_LENGTH, size.to_string()),
        (
            header::CONTENT_DISPOSITION,
            format!("attachment; filename=\"{name}\""),
        ),
    ];
    let body = axum::body::Body::new(Pieces::of(file, size, place));
    let mut answer = (OCTETS, headers, body).into_response();
    // It takes as long as it takes; its reader may not stand still.
    answer.extensions_mut().insert(Endless);
    Ok(answer)
}

/// A body in pieces as they come.
pub(super) struct Pieces(pub(super) mpsc::Receiver<Result<Bytes, std::io::Error>>);

impl Pieces {
    /// The bytes of a file on their way.
    fn of(file: File, size: u64, place: OwnedSemaphorePermit) -> Self {
        let (sender, receiver) = mpsc::channel(DOWNLOAD_PIECES);
        spawn_blocking(move || {
            let _place = place;
            let mut file = file.take(size);
            loop {
                let mut piece = Vec::new();
                let mut part = (&mut file).take(DOWNLOAD_PIECE_BYTES as u64);
                let piece = match part.read_to_end(&mut piece) {
                    Ok(0) => return,
                    Ok(_) => Ok(Bytes::from(piece)),
                    Err(error) => Err(error),
                };
                let is_over = piece.is_err();
                // An error is a reader that has gone.
                if sender.blocking_send(piece).is_err() || is_over {
                    return;
                }
            }
        });
        Self(receiver)
    }
}

impl Body for Pieces {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, std::io::Error>>> {
        self.0
            .poll_recv(cx)
            .map(|it| it.map(|piece| piece.map(Frame::data)))
    }
}

async fn spot(api: &Arc<Api>, path: Where, below: String) -> Result<Spot, ApiError> {
    let Path((framework, task)) = path.map_err(|error| ApiError::invalid(error.body_text()))?;
    let invalid = |error: meros_proto::ids::ParseIdError| ApiError::invalid(error.to_string());
    let framework: FrameworkId = framework.parse().map_err(invalid)?;
    let task = TaskId::new(&task).map_err(invalid)?;
    let files = api.files.clone();
    blocking(move || files.spot((framework, task), &below)).await
}

async fn blocking<T: Send + 'static>(
    body: impl FnOnce() -> Result<T, FilesError> + Send + 'static,
) -> Result<T, ApiError> {
    blocking_or(refused, body).await
}

async fn blocking_or<T: Send + 'static>(
    refused: fn(&FilesError) -> ApiError,
    body: impl FnOnce() -> Result<T, FilesError> + Send + 'static,
) -> Result<T, ApiError> {
    match spawn_blocking(body).await {
        Ok(Ok(done)) => Ok(done),
        Ok(Err(error)) => Err(refused(&error)),
        Err(_) => Err(error::stopping()),
    }
}

fn refused(error: &FilesError) -> ApiError {
    let (status, code) = match error {
        FilesError::Unknown => (StatusCode::NOT_FOUND, "file_unknown"),
        FilesError::Outside => (StatusCode::FORBIDDEN, "file_outside"),
        FilesError::Kind { .. } => (StatusCode::CONFLICT, "file_kind"),
        FilesError::Path => (StatusCode::BAD_REQUEST, "invalid"),
        FilesError::Io(_) => (StatusCode::INTERNAL_SERVER_ERROR, "internal"),
    };
    ApiError::new(status, code, error.to_string())
}

/// Clients of Mesos send more than is looked at: `jsonp`, numbers to get around caches.
#[derive(Debug, Deserialize)]
struct MesosQuery {
    path: Option<String>,
    offset: Option<i64>,
    length: Option<i64>,
}

impl MesosQuery {
    async fn spot(&self, api: &Arc<Api>) -> Result<Spot, ApiError> {
        let path = self.path.clone().filter(|path| !path.is_empty());
        let path = path.ok_or_else(|| ApiError::invalid("Expecting 'path=value' in query."))?;
        let files = api.files.clone();
        blocking(move || files.virtual_spot(&path)).await
    }
}

type MesosQueried = Result<Query<MesosQuery>, QueryRejection>;

fn mesos(query: MesosQueried) -> Result<MesosQuery, ApiError> {
    let Query(query) = query.map_err(|error| ApiError::invalid(error.body_text()))?;
    Ok(query)
}

async fn mesos_browse(
    State(api): State<Arc<Api>>,
    query: MesosQueried,
) -> Result<Response, ApiError> {
    let query = mesos(query)?;
    let spot = query.spot(&api).await?;
    let above = query.path.unwrap_or_default();
    let rows = blocking(move || {
        let listing = spot.list()?;
        let rows = listing
            .rows
            .iter()
            .map(|row| mesos_row(above.trim_end_matches('/'), row));
        Ok(rows.collect::<Vec<Value>>())
    });
    Ok(Json(rows.await?).into_response())
}

/// By name, or by number where there is none.
fn user_and_group(row: &FileRow) -> (String, String) {
    let user = User::from_uid(Uid::from_raw(row.uid)).ok().flatten();
    let group = Group::from_gid(Gid::from_raw(row.gid)).ok().flatten();
    (
        user.map_or_else(|| row.uid.to_string(), |user| user.name),
        group.map_or_else(|| row.gid.to_string(), |group| group.name),
    )
}

fn mesos_row(above: &str, row: &FileRow) -> Value {
    let (uid, gid) = user_and_group(row);
    json!({
        "path": format!("{above}/{}", row.name),
        "size": row.size,
        "nlink": row.links,
        "mtime": row.modified,
        "mode": row.mode,
        "uid": uid,
        "gid": gid,
    })
}

async fn mesos_read(
    State(api): State<Arc<Api>>,
    query: MesosQueried,
) -> Result<Response, ApiError> {
    let query = mesos(query)?;
    let not =
        |what: &str, value: i64| ApiError::invalid(format!("Negative {what} provided: {value}."));
    let offset = match query.offset {
        None | Some(-1) => None,
        Some(offset) => Some(u64::try_from(offset).map_err(|_| not("offset", offset))?),
    };
    let length = match query.length {
        None | Some(-1) => MESOS_PIECE_BYTES_MAX,
        Some(length) => u64::try_from(length).map_err(|_| not("length", length))?,
    };
    let spot = query.spot(&api).await?;
    let (offset, data) = blocking(move || {
        let file = spot.file()?;
        let size = file.metadata()?.len();
        // Without an offset it is asked where the file ends.
        let Some(offset) = offset.filter(|offset| *offset < size) else {
            return Ok((size, String::new()));
        };
        let length = length.min(MESOS_PIECE_BYTES_MAX);
        let (_, _, bytes) = piece(&file, Begin::Offset(offset), length)?;
        let has_more = offset + (bytes.len() as u64) < size;
        Ok((offset, text(&bytes, has_more)))
    })
    .await?;
    Ok(Json(json!({"data": data, "offset": offset})).into_response())
}

/// As text; a character that is cut off by the end of a piece comes with the next one.
fn text(bytes: &[u8], has_more: bool) -> String {
    let cut = match std::str::from_utf8(bytes) {
        Err(error) if has_more && error.error_len().is_none() && error.valid_up_to() > 0 => {
            error.valid_up_to()
        }
        _ => bytes.len(),
    };
    String::from_utf8_lossy(&bytes[..cut]).into_owned()
}

async fn mesos_download(
    State(api): State<Arc<Api>>,
    query: MesosQueried,
) -> Result<Response, ApiError> {
    let spot = mesos(query)?.spot(&api).await?;
    whole(&api, spot).await
}

async fn mesos_debug(State(api): State<Arc<Api>>) -> Result<Response, ApiError> {
    let files: Files = api.files.clone();
    let all = blocking(move || Ok(files.named(DEBUG_ROWS_MAX))).await?;
    let rows = all
        .into_iter()
        .map(|(name, path)| (name, path.display().to_string().into()));
    Ok(Json(Value::Object(rows.collect())).into_response())
}

/// What calls of the operator API are answered: it is the path that is wrong, whatever is there.
fn refused_call(error: &FilesError) -> ApiError {
    match error {
        FilesError::Kind { .. } => {
            ApiError::new(StatusCode::BAD_REQUEST, "file_kind", error.to_string())
        }
        other => refused(other),
    }
}

/// LIST_FILES of the operator API (semantics O4).
pub(super) async fn list_call(api: &Api, path: String) -> Result<Vec<pb::FileInfo>, ApiError> {
    let files = api.files.clone();
    blocking_or(refused_call, move || {
        let listing = files.virtual_spot(&path)?.list()?;
        let above = path.trim_end_matches('/');
        let rows = listing.rows.iter().map(|row| file_info(above, row));
        Ok(rows.collect())
    })
    .await
}

fn file_info(above: &str, row: &FileRow) -> pb::FileInfo {
    let (uid, gid) = user_and_group(row);
    pb::FileInfo {
        path: format!("{above}/{}", row.name),
        nlink: i32::try_from(row.links).ok(),
        size: Some(row.size),
        mtime: Some(pb::TimeInfo {
            nanoseconds: row.modified.saturating_mul(1_000_000_000),
        }),
        mode: Some(row.mode_bits),
        uid: Some(uid),
        gid: Some(gid),
    }
}

/// READ_FILE of the operator API: the size of the file, and at most as many bytes as `/files/read` gives.
pub(super) async fn read_call(
    api: &Api,
    path: String,
    offset: u64,
    length: Option<u64>,
) -> Result<(u64, Vec<u8>), ApiError> {
    let files = api.files.clone();
    blocking_or(refused_call, move || {
        let file = files.virtual_spot(&path)?.file()?;
        let length = length.unwrap_or(u64::MAX).min(MESOS_PIECE_BYTES_MAX);
        let (_, size, bytes) = piece(&file, Begin::Offset(offset), length)?;
        Ok((size, bytes))
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_character_that_is_cut_comes_with_the_next_piece() {
        let bytes = "aü".as_bytes();
        assert_eq!(text(&bytes[..2], true), "a");
        assert_eq!(text(&bytes[..2], false), "a\u{fffd}");
        assert_eq!(text(bytes, true), "aü");
        assert_eq!(text(&[0xff, b'a'], true), "\u{fffd}a");
    }
}
