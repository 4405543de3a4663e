//! Answers without an end that tell of every change of the cluster.
//!
//! What is told is the same for all who read one form, so it is made once and shared; who reads costs
//! a place among the events and a few records on their way. It is read as fast as its reader reads:
//! one that is slow falls behind, until what it has not read is not kept any more.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Bytes;
use axum::http::StatusCode;
use http_body::{Body, Frame};
use meros_daemon::http::ApiError;
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep};

use crate::projection::{Batch, Form, Place, Told, Watcher};
use crate::shell::link::{Pool, Share};

/// Records on their way to one reader.
const RECORDS_MAX: usize = 16;
/// From when all is told to the next look: many readers are not woken for every single change.
const BREATH: Duration = Duration::from_millis(5);

/// How one form says things.
pub(super) trait Voice: Send + Sync + 'static {
    /// Which it is.
    fn form(&self) -> Form;
    /// An event of a batch; none if this form has no word for it.
    fn event(&self, batch: &Batch, at: usize) -> Option<Bytes>;
    /// Something is missing; none if this form has no word for that, and the answer ends.
    fn gap(&self, after: Place, until: Place) -> Option<Bytes>;
    /// Nothing has happened.
    fn heartbeat(&self) -> Bytes;
}

/// The body.
#[derive(Debug)]
pub(super) struct Feed(mpsc::Receiver<Bytes>);

impl Feed {
    /// Says `first`, and then what the watcher is told. Ends when this master does not lead any more.
    ///
    /// # Errors
    /// 503: what others have not read takes all the memory for that.
    pub(super) fn start(
        pool: &Pool,
        watcher: Watcher,
        first: Vec<Bytes>,
        heartbeat: Duration,
        voice: impl Voice,
    ) -> Result<Self, ApiError> {
        let share = pool.take(first.iter().map(Bytes::len).sum());
        let share = share.ok_or_else(|| {
            let why = "what waits for others takes all memory for streams: try again in a moment";
            ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "busy", why)
        })?;
        let (sender, records) = mpsc::channel(RECORDS_MAX);
        tokio::spawn(async move {
            // Its reader has gone, or there is nothing more to say: both end it.
            let _ = tell(watcher, (first, share), heartbeat, &voice, &sender).await;
        });
        Ok(Self(records))
    }
}

/// The reader has gone.
struct Gone;

async fn tell(
    mut watcher: Watcher,
    (first, share): (Vec<Bytes>, Share),
    heartbeat: Duration,
    voice: &impl Voice,
    to: &mpsc::Sender<Bytes>,
) -> Result<(), Gone> {
    let send = async |record| to.send(record).await.map_err(|_| Gone);
    for record in first {
        send(record).await?;
    }
    // They may be on their way still: a few, which the reader has begun to read.
    drop(share);
    let mut due = interval_at(Instant::now() + heartbeat, heartbeat);
    due.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let mut told = tokio::select! {
            told = watcher.next() => told,
            _ = due.tick() => {
                send(voice.heartbeat()).await?;
                continue;
            }
            () = to.closed() => return Err(Gone),
        };
        if told.is_none() {
            return Ok(());
        }
        // All that is there, however much: one who was asleep is not to fall behind.
        while let Some(next) = told {
            match next {
                Told::Events(batch, range) => {
                    for at in range {
                        let said = batch.said(at, voice.form(), || voice.event(&batch, at));
                        if let Some(record) = said {
                            send(record).await?;
                        }
                    }
                }
                Told::Gap { after, until } => match voice.gap(after, until) {
                    Some(record) => send(record).await?,
                    None => return Ok(()),
                },
            }
            told = watcher.look();
        }
        sleep(BREATH).await;
    }
}

impl Body for Feed {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let record = self.0.poll_recv(cx);
        record.map(|record| record.map(|record| Ok(Frame::data(record))))
    }
}
