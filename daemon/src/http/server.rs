//! Accepting connections, and the life of each of them.

use std::convert::Infallible;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::{Arc, Weak};
use std::task::Poll;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, HttpBody};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tower_http::limit::RequestBodyLimitLayer;
use tracing::{debug, warn};

use super::error::ApiError;
use super::stats::{Cut, HttpStats, Open};
use super::stream::TrackedStream;
use super::track::{AnswerBody, Stage, Track};

/// The most bytes of a request's head. Our longest requests have some hundred.
pub(super) const HEAD_BYTES_MAX: usize = 16 << 10;
/// The most that is buffered of what a client sends ahead.
const BUFFER_BYTES_MAX: usize = 32 << 10;
/// Answers below this are sent whatever else waits: all connections together hold 32 MiB of them.
const SMALL_ANSWER_BYTES: usize = 64 << 10;
/// Between two looks for room when there is none.
const ROOM_INTERVAL: Duration = Duration::from_millis(20);
/// After the system gave no connection, for want of file descriptors mostly.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The bounds of a server. All of them are times and amounts that no honest client meets.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Connections at the same time, at least 1. Default 512.
    pub connections: usize,
    /// Requests at work at the same time, at least 1; those beyond are answered 503. Default 64.
    pub requests: usize,
    /// Answers without an end at the same time, below `connections`; those beyond are answered 503.
    /// Default 0.
    pub streams: usize,
    /// Bytes of a request's body; beyond it the answer is 413. Default 16 KiB.
    pub body_bytes: usize,
    /// Bytes of large answers that wait for their readers, together; beyond it 503. Default 256 MiB.
    pub answer_bytes: usize,
    /// From the first byte of a request's head to its last. Default 10 s.
    pub head: Duration,
    /// After this long an unfinished head makes room for a new connection, if there is no other
    /// room. Default 1 s.
    pub head_under_pressure: Duration,
    /// From a request's head to its answer, the body included; beyond it 504. Default 15 s.
    pub request: Duration,
    /// From the answer to its last byte; of an answer without an end, how long its reader may take
    /// nothing of what is there. Default 30 s.
    pub answer: Duration,
    /// Between two requests of a connection. Default 60 s.
    pub idle: Duration,
    /// For the client to close after the last answer. Default 1 s.
    pub linger: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 512,
            requests: 64,
            streams: 0,
            body_bytes: 16 << 10,
            answer_bytes: 256 << 20,
            head: Duration::from_secs(10),
            head_under_pressure: Duration::from_secs(1),
            request: Duration::from_secs(15),
            answer: Duration::from_secs(30),
            idle: Duration::from_secs(60),
            linger: Duration::from_secs(1),
        }
    }
}

/// Put into the extensions of a response whose body has no end of its own: a stream of events. It has
/// no time to be over, but its reader may not stand still.
#[derive(Debug, Clone, Copy)]
pub struct Endless;

/// What all connections share.
#[derive(Debug)]
struct Shared {
    router: Router,
    limits: Limits,
    stats: Arc<HttpStats>,
    requests: Semaphore,
    streams: Arc<Semaphore>,
    answer_bytes: Arc<Semaphore>,
}

/// Serves until `stop` is true or its sender is gone; then requests at work are finished, and
/// connections without one end at once. Dropping the future ends everything.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    limits: Limits,
    stats: Arc<HttpStats>,
    mut stop: watch::Receiver<bool>,
) {
    let shared = Arc::new(Shared {
        router: router.layer(RequestBodyLimitLayer::new(limits.body_bytes)),
        requests: Semaphore::new(limits.requests),
        streams: Arc::new(Semaphore::new(limits.streams)),
        answer_bytes: Arc::new(Semaphore::new(limits.answer_bytes)),
        limits,
        stats,
    });
    let mut connections = Connections::default();
    let stopping = stop.clone();
    tokio::select! {
        // Gone is the same as asked.
        _ = stop.wait_for(|stop| *stop) => {}
        never = accept(&listener, &shared, &mut connections, &stopping) => match never {},
    }
    drop(listener);
    while connections.tasks.join_next().await.is_some() {}
}

#[derive(Debug, Default)]
struct Connections {
    tasks: JoinSet<()>,
    tracks: Vec<Weak<Track>>,
}

impl Connections {
    /// Forgets those that have ended and counts the others.
    fn count(&mut self) -> usize {
        while self.tasks.try_join_next().is_some() {}
        self.tracks.retain(|track| track.strong_count() > 0);
        self.tracks.len()
    }

    /// Sends away who idles longest, or else the oldest unfinished head, unless it is young.
    fn make_room(&self, limits: &Limits) {
        let now = Instant::now();
        let candidates = self.tracks.iter().filter_map(Weak::upgrade);
        let ranked = candidates.filter_map(|track| match track.stage() {
            (Stage::Idle | Stage::Closing, since) => Some((0, since, track)),
            (Stage::Head, since) if now - since >= limits.head_under_pressure => {
                Some((1, since, track))
            }
            _ => None,
        });
        if let Some((_, _, track)) = ranked.min_by_key(|(rank, since, _)| (*rank, *since)) {
            track.leave.notify_one();
        }
    }
}

async fn accept(
    listener: &TcpListener,
    shared: &Arc<Shared>,
    connections: &mut Connections,
    stop: &watch::Receiver<bool>,
) -> Infallible {
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                // The client may have gone again; else we have too many open files.
                debug!(%error, "no connection accepted");
                connections.make_room(&shared.limits);
                sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        while connections.count() >= shared.limits.connections {
            connections.make_room(&shared.limits);
            // Whether one has ended or not, the next look tells.
            let _ = timeout(ROOM_INTERVAL, connections.tasks.join_next()).await;
        }
        let track = Arc::new(Track::new());
        connections.tracks.push(Arc::downgrade(&track));
        let connection = connection(stream, track, Arc::clone(shared), stop.clone());
        connections.tasks.spawn(connection);
    }
}

/// One connection until it ends or has to.
async fn connection(
    stream: TcpStream,
    track: Arc<Track>,
    shared: Arc<Shared>,
    mut stop: watch::Receiver<bool>,
) {
    let _open = Open::new(&shared.stats);
    if let Err(error) = stream.set_nodelay(true) {
        debug!(%error, "TCP_NODELAY is refused");
    }
    let tracked = TrackedStream::new(stream, Arc::clone(&track), Arc::clone(&shared.stats));
    let service = service_fn(|request| answer(&shared, &track, request));
    let mut builder = http1::Builder::new();
    builder
        // Ours counts from the first byte of a head, which an idle connection has not sent.
        .header_read_timeout(None)
        .max_header_size(HEAD_BYTES_MAX)
        .max_buf_size(BUFFER_BYTES_MAX);
    let serving = builder.serve_connection(TokioIo::new(tracked), service);
    let mut http = pin!(serving.with_upgrades());
    let mut leave = pin!(async {
        tokio::select! {
            () = track.leave.notified() => Some(Cut::Room),
            _ = stop.wait_for(|stop| *stop) => None,
        }
    });
    let mut timer = pin!(sleep_until(Instant::now()));
    let mut is_leaving = false;
    let cut = poll_fn(|cx| {
        loop {
            if let Poll::Ready(ended) = http.as_mut().poll(cx) {
                if let Err(error) = ended {
                    debug!(%error, "HTTP connection failed");
                }
                return Poll::Ready(None);
            }
            if is_leaving {
                break;
            }
            let Poll::Ready(why) = leave.as_mut().poll(cx) else {
                break;
            };
            is_leaving = true;
            if !matches!(track.stage().0, Stage::Work | Stage::Answer | Stage::Stream) {
                return Poll::Ready(why);
            }
            // hyper closes after the answer; it has to be polled to hear of it.
            http.as_mut().graceful_shutdown();
        }
        // The stages change while hyper is polled, and only then.
        let Some((deadline, cut)) = track.deadline(&shared.limits) else {
            return Poll::Pending;
        };
        if timer.deadline() != deadline {
            timer.as_mut().reset(deadline);
        }
        timer.as_mut().poll(cx).map(|()| cut)
    })
    .await;
    if let Some(cut) = cut {
        shared.stats.count_cut(cut);
        debug!(cause = cut.name(), "HTTP connection cut");
    }
}

/// Around every request: room, time, count.
async fn answer(
    shared: &Shared,
    track: &Arc<Track>,
    request: hyper::Request<Incoming>,
) -> Result<Response<AnswerBody>, Infallible> {
    track.on_request();
    let answered = match shared.requests.try_acquire() {
        Ok(_place) => handle(shared, request).await,
        Err(_) => ApiError::busy(shared.limits.requests).into_response(),
    };
    let (response, room) = match room_for(shared, &answered) {
        Ok(room) => (answered, room),
        Err(refused) => (refused.into_response(), None),
    };
    shared.stats.count_answer(response.status().as_u16());
    let is_stream = response.extensions().get::<Endless>().is_some();
    match response.status() {
        StatusCode::SWITCHING_PROTOCOLS => track.on_upgrade(),
        _ => track.on_answer(room, is_stream),
    }
    Ok(response.map(|body| AnswerBody::new(body, Arc::clone(track))))
}

async fn handle(shared: &Shared, request: hyper::Request<Incoming>) -> Response {
    let limits = &shared.limits;
    let router = TowerToHyperService::new(shared.router.clone());
    let request = request.map(Body::new);
    match timeout(
        limits.request,
        hyper::service::Service::call(&router, request),
    )
    .await
    {
        Ok(Ok(response)) if response.status() == StatusCode::PAYLOAD_TOO_LARGE => {
            ApiError::body_too_large(limits.body_bytes).into_response()
        }
        Ok(Ok(response)) => response,
        Ok(Err(never)) => match never {},
        Err(_) => {
            warn!(seconds = limits.request.as_secs(), "HTTP request timed out");
            ApiError::timeout(limits.request).into_response()
        }
    }
}

/// Takes room for an answer's bytes: their reader may be slow, and the next one, too.
fn room_for(
    shared: &Shared,
    response: &Response,
) -> Result<Option<OwnedSemaphorePermit>, ApiError> {
    if response.extensions().get::<Endless>().is_some() {
        return Arc::clone(&shared.streams)
            .try_acquire_owned()
            .map(Some)
            .map_err(|_| ApiError::busy_streaming(shared.limits.streams));
    }
    let limit = shared.limits.answer_bytes;
    let size = response.body().size_hint().exact();
    // A body of unknown size is made as it is read.
    let size = size.map_or(SMALL_ANSWER_BYTES, |size| {
        usize::try_from(size).unwrap_or(usize::MAX)
    });
    if size <= SMALL_ANSWER_BYTES {
        return Ok(None);
    }
    let size = u32::try_from(size).map_err(|_| ApiError::busy_writing(limit))?;
    Arc::clone(&shared.answer_bytes)
        .try_acquire_many_owned(size)
        .map(Some)
        .map_err(|_| ApiError::busy_writing(limit))
}
