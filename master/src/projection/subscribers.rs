//! Masters that follow this one, as its read model sees them: each has a queue of what it has not been
//! sent yet. A queue is bounded; a subscriber whose queue is full is dropped, which is counted, and
//! starts over with everything there is.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use meros_proto::view::ClusterEvent;
use tokio::sync::mpsc;

use super::Row;

/// Subscribers at a time: twice the masters that a cluster may have, since one that has been started again
/// comes before its old connection has ended.
const SUBSCRIBERS_MAX: usize = 18;
/// Batches that may wait for one subscriber.
const BATCHES_MAX: usize = 8_192;
/// Events that may wait for one subscriber: some seconds at full load, and some 100 MiB, which
/// all subscribers share.
const EVENTS_MAX: usize = 262_144;

/// What a subscriber is told after the rows.
#[derive(Debug)]
pub(crate) enum News {
    /// These events follow.
    Events(Arc<[ClusterEvent]>),
    /// All that was published before this mark was asked for has been told.
    Mark(u64),
}

/// What a subscriber gets.
#[derive(Debug)]
pub(crate) struct Subscription {
    /// Its number, for marks.
    pub(crate) number: u64,
    /// All there is.
    pub(crate) rows: Vec<Row>,
    /// The number of the last event that is in the rows.
    pub(crate) sequence: u64,
    news: mpsc::Receiver<News>,
    waiting: Arc<AtomicUsize>,
}

impl Subscription {
    /// Waits for what is new; none once this master leads no more, or the subscriber was too slow.
    pub(crate) async fn next(&mut self) -> Option<News> {
        let news = self.news.recv().await?;
        if let News::Events(events) = &news {
            self.waiting.fetch_sub(events.len(), Ordering::Relaxed);
        }
        Some(news)
    }
}

/// Why there is no subscription.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SubscribeError {
    /// Only a leader has something to tell.
    #[error("this master does not lead")]
    NotLeading,
    /// There are too many.
    #[error("{SUBSCRIBERS_MAX} masters follow already")]
    TooMany,
}

impl SubscribeError {
    /// For metrics.
    pub(crate) fn code(self) -> &'static str {
        match self {
            Self::NotLeading => "not_leading",
            Self::TooMany => "too_many_followers",
        }
    }
}

#[derive(Debug)]
struct Subscriber {
    number: u64,
    news: mpsc::Sender<News>,
    waiting: Arc<AtomicUsize>,
}

impl Subscriber {
    /// Whether there was room.
    fn tell(&self, events: &Arc<[ClusterEvent]>) -> bool {
        let waiting = self.waiting.fetch_add(events.len(), Ordering::Relaxed);
        waiting < EVENTS_MAX && self.news.try_send(News::Events(Arc::clone(events))).is_ok()
    }
}

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Subscribers {
    all: Vec<Subscriber>,
    last: u64,
    dropped: u64,
}

impl Subscribers {
    pub(super) fn len(&self) -> usize {
        self.all.len()
    }

    /// How many were dropped because they were too slow.
    pub(super) fn dropped(&self) -> u64 {
        self.dropped
    }

    pub(super) fn add(
        &mut self,
        rows: Vec<Row>,
        sequence: u64,
    ) -> Result<Subscription, SubscribeError> {
        self.all.retain(|one| !one.news.is_closed());
        if self.all.len() >= SUBSCRIBERS_MAX {
            return Err(SubscribeError::TooMany);
        }
        self.last += 1;
        let (sender, news) = mpsc::channel(BATCHES_MAX);
        let waiting = Arc::<AtomicUsize>::default();
        self.all.push(Subscriber {
            number: self.last,
            news: sender,
            waiting: Arc::clone(&waiting),
        });
        Ok(Subscription {
            number: self.last,
            rows,
            sequence,
            news,
            waiting,
        })
    }

    pub(super) fn tell(&mut self, events: &Arc<[ClusterEvent]>) {
        self.all.retain(|one| !one.news.is_closed());
        let before = self.all.len();
        self.all.retain(|one| one.tell(events));
        self.dropped += u64::try_from(before - self.all.len()).expect("a handful");
    }

    pub(super) fn mark(&mut self, subscriber: u64, number: u64) {
        if let Some(one) = self.all.iter().find(|one| one.number == subscriber) {
            // One that is full has its mark when it is dropped, or with the next.
            let _ = one.news.try_send(News::Mark(number));
        }
    }

    pub(super) fn clear(&mut self) {
        self.all.clear();
    }
}
