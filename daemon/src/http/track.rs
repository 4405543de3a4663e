//! Where a connection is in its life, and until when.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::body::Body;
use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use parking_lot::Mutex;
use tokio::sync::{Notify, OwnedSemaphorePermit};
use tokio::time::Instant;

use super::server::Limits;
use super::stats::Cut;

/// `Head -> Work -> Answer | Stream -> Idle -> Head`, `Work -> Upgraded`; each of them `-> Closing`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// The head of a request is on its way; nothing else counts as progress.
    Head,
    /// A request is at work, its body on its way perhaps. Its time is the request's own.
    Work,
    /// The answer is being written.
    Answer,
    /// An answer without an end is being written: only what waits for its reader has a time.
    Stream,
    /// It speaks another protocol from now on, whose handler has bounds of its own.
    Upgraded,
    /// Between two requests.
    Idle,
    /// Everything is said; the client's end is waited for, so that it reads the last answer.
    Closing,
}

#[derive(Debug)]
struct State {
    stage: Stage,
    since: Instant,
    /// The answer's body has bytes that are not handed over yet.
    body_open: bool,
    /// Room for the answer's bytes, given back when they are written; of a stream its place.
    room: Option<OwnedSemaphorePermit>,
    /// Since when bytes of a stream wait for their reader, who takes none.
    waiting: Option<Instant>,
}

impl State {
    fn enter(&mut self, stage: Stage) {
        self.stage = stage;
        self.since = Instant::now();
    }
}

/// One connection's stage, shared by its stream, its requests and the server.
#[derive(Debug)]
pub(super) struct Track {
    state: Mutex<State>,
    /// The server wants its place.
    pub(super) leave: Notify,
}

impl Track {
    pub(super) fn new() -> Self {
        Self {
            state: Mutex::new(State {
                stage: Stage::Head,
                since: Instant::now(),
                body_open: false,
                room: None,
                waiting: None,
            }),
            leave: Notify::new(),
        }
    }

    pub(super) fn stage(&self) -> (Stage, Instant) {
        let state = self.state.lock();
        (state.stage, state.since)
    }

    /// When the stage is over, and what the end is called; ordinary ends have no name.
    pub(super) fn deadline(&self, limits: &Limits) -> Option<(Instant, Option<Cut>)> {
        let state = self.state.lock();
        let (stage, since) = (state.stage, state.since);
        match stage {
            Stage::Head => Some((since + limits.head, Some(Cut::Head))),
            Stage::Work | Stage::Upgraded => None,
            Stage::Stream => {
                let waiting = state.waiting?;
                Some((waiting + limits.answer, Some(Cut::Answer)))
            }
            Stage::Answer => Some((since + limits.answer, Some(Cut::Answer))),
            Stage::Idle => Some((since + limits.idle, Some(Cut::Idle))),
            Stage::Closing => Some((since + limits.linger, None)),
        }
    }

    /// Bytes have arrived. True if they begin a head.
    pub(super) fn on_read(&self) -> bool {
        let mut state = self.state.lock();
        let begins = state.stage == Stage::Idle;
        if begins {
            state.enter(Stage::Head);
        }
        begins
    }

    pub(super) fn on_request(&self) {
        self.state.lock().enter(Stage::Work);
    }

    /// There is an answer. Its body is to be sent as an [`AnswerBody`].
    pub(super) fn on_answer(&self, room: Option<OwnedSemaphorePermit>, is_stream: bool) {
        let mut state = self.state.lock();
        state.enter(match is_stream {
            true => Stage::Stream,
            false => Stage::Answer,
        });
        state.body_open = true;
        state.waiting = None;
        state.room = room;
    }

    /// The answer is that the protocol changes.
    pub(super) fn on_upgrade(&self) {
        self.state.lock().enter(Stage::Upgraded);
    }

    /// The next bytes of an answer were handed over.
    fn on_frame(&self) {
        self.state.lock().waiting.get_or_insert_with(Instant::now);
    }

    /// Some bytes were taken by the reader's side.
    pub(super) fn on_written(&self) {
        if let Some(waiting) = &mut self.state.lock().waiting {
            *waiting = Instant::now();
        }
    }

    /// The parser has refused what should have been a head.
    pub(super) fn on_refused_head(&self) {
        self.state.lock().enter(Stage::Answer);
    }

    /// All that was handed over is written.
    pub(super) fn on_flushed(&self) {
        let mut state = self.state.lock();
        state.waiting = None;
        if matches!(state.stage, Stage::Answer | Stage::Stream) && !state.body_open {
            state.room = None;
            state.enter(Stage::Idle);
        }
    }

    pub(super) fn on_shutdown(&self) {
        let mut state = self.state.lock();
        if state.stage != Stage::Closing {
            state.enter(Stage::Closing);
        }
    }
}

/// A body that tells when it is handed over.
#[derive(Debug)]
pub(super) struct AnswerBody {
    body: Body,
    track: Arc<Track>,
}

impl AnswerBody {
    pub(super) fn new(body: Body, track: Arc<Track>) -> Self {
        Self { body, track }
    }
}

impl HttpBody for AnswerBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let frame = Pin::new(&mut self.body).poll_frame(cx);
        if matches!(frame, Poll::Ready(Some(Ok(_)))) {
            self.track.on_frame();
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for AnswerBody {
    fn drop(&mut self) {
        self.track.state.lock().body_open = false;
    }
}
