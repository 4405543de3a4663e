//! The latest events, for those who watch over HTTP: one copy for all of them, and a place in it for
//! each.
//!
//! Who watches is told every event once and in order, or of a gap: when the events after a place are
//! not kept any more, or were those of another leader. A watcher costs its place; that it is slow
//! costs nobody but itself. Kept from the first watcher on, as long as this master leads.
//!
//! Bounds: [`EVENTS_MAX`] and [`BYTES_MAX`], then the oldest go.

use std::collections::VecDeque;
use std::fmt;
use std::ops::Range;
use std::str::FromStr;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use meros_proto::ids::Epoch;
use meros_proto::view::{ClusterChange, ClusterEvent};
use parking_lot::Mutex;
use tokio::sync::watch;

/// Some seconds at full load, hours on a quiet day.
const EVENTS_MAX: usize = 65_536;
/// Labels and messages may be so large that the number alone bounds little. As much again may be what
/// events are as text, for each form that is watched.
const BYTES_MAX: usize = 64 << 20;

/// A place in the order of all events of a cluster: behind an event of a leader's term.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    /// The term.
    pub(crate) epoch: Epoch,
    /// Counted from 1 in each term; 0 is before all of them.
    pub(crate) sequence: u64,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.epoch.0, self.sequence)
    }
}

/// It is not two numbers with a dash between them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a place among the events is TERM-NUMBER, such as 3-1207")]
pub(crate) struct BadPlace;

impl FromStr for Place {
    type Err = BadPlace;

    fn from_str(text: &str) -> Result<Self, BadPlace> {
        let (epoch, sequence) = text.split_once('-').ok_or(BadPlace)?;
        let place = Self {
            epoch: Epoch(epoch.parse().map_err(|_| BadPlace)?),
            sequence: sequence.parse().map_err(|_| BadPlace)?,
        };
        // One text for one place.
        (place.to_string() == text).then_some(place).ok_or(BadPlace)
    }
}

/// How events are written for those who watch.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Form {
    /// Server-sent events.
    Sse,
    /// Records of the Mesos v1 operator stream, as JSON.
    V1Json,
    /// The same as protobuf.
    V1Protobuf,
}

const FORMS: usize = 3;

/// What an event is in each form, once somebody has asked; none where it is nothing.
type Said = [OnceLock<Option<Bytes>>; FORMS];

/// What was published together.
#[derive(Debug)]
pub(crate) struct Batch {
    epoch: Epoch,
    events: Arc<[ClusterEvent]>,
    /// For each, whether what it is about was there before.
    before: Box<[bool]>,
    said: OnceLock<Box<[Said]>>,
    bytes: usize,
}

impl Batch {
    /// An event, and whether what it is about was there before.
    pub(crate) fn event(&self, at: usize) -> (&ClusterEvent, bool) {
        (&self.events[at], self.before[at])
    }

    /// The place behind an event.
    pub(crate) fn place(&self, at: usize) -> Place {
        Place {
            epoch: self.epoch,
            sequence: self.events[at].sequence,
        }
    }

    /// An event as it is written; made by the first who asks.
    pub(crate) fn said(
        &self,
        at: usize,
        form: Form,
        make: impl FnOnce() -> Option<Bytes>,
    ) -> Option<Bytes> {
        let none = || self.events.iter().map(|_| Said::default()).collect();
        let said = &self.said.get_or_init(none)[at][form as usize];
        said.get_or_init(make).clone()
    }

    fn first(&self) -> u64 {
        self.events.first().map_or(0, |event| event.sequence)
    }

    fn last(&self) -> u64 {
        self.events.last().map_or(0, |event| event.sequence)
    }
}

#[derive(Debug, Default)]
struct Ring {
    epoch: Epoch,
    batches: VecDeque<Arc<Batch>>,
    events: usize,
    bytes: usize,
    /// The number of the last event that was told.
    last: u64,
}

impl Ring {
    /// The first place after which everything is kept.
    fn begin(&self) -> Place {
        let first = self.batches.front().map(|batch| batch.first() - 1);
        Place {
            epoch: self.epoch,
            sequence: first.unwrap_or(self.last),
        }
    }

    fn push(&mut self, batch: Batch) {
        self.last = batch.last();
        self.events += batch.events.len();
        self.bytes += batch.bytes;
        self.batches.push_back(Arc::new(batch));
        while self.batches.len() > 1 && (self.events > EVENTS_MAX || self.bytes > BYTES_MAX) {
            let Some(oldest) = self.batches.pop_front() else {
                return;
            };
            self.events -= oldest.events.len();
            self.bytes -= oldest.bytes;
        }
    }

    /// What follows a place, or where it goes on instead.
    fn after(&self, place: Place) -> Option<Told> {
        let begin = self.begin();
        if place.epoch != self.epoch || place < begin || place.sequence > self.last {
            return Some(Told::Gap {
                after: place,
                until: begin,
            });
        }
        let at = self
            .batches
            .partition_point(|batch| batch.last() <= place.sequence);
        let batch = self.batches.get(at)?;
        let start = batch
            .events
            .partition_point(|event| event.sequence <= place.sequence);
        Some(Told::Events(Arc::clone(batch), start..batch.events.len()))
    }
}

/// All of it.
#[derive(Debug)]
pub(super) struct History {
    ring: Mutex<Ring>,
    /// The number of the last event; none while nothing is kept.
    last: watch::Sender<Option<u64>>,
}

impl Default for History {
    fn default() -> Self {
        Self {
            ring: Mutex::default(),
            last: watch::Sender::new(None),
        }
    }
}

impl History {
    /// Whether anybody has watched.
    pub(super) fn is_kept(&self) -> bool {
        self.last.borrow().is_some()
    }

    /// The next events of a term, in order.
    pub(super) fn tell(&self, epoch: Epoch, events: &Arc<[ClusterEvent]>, before: Vec<bool>) {
        let Some(last) = events.last() else { return };
        let batch = Batch {
            epoch,
            events: Arc::clone(events),
            before: before.into(),
            said: OnceLock::new(),
            bytes: events.iter().map(weigh).sum(),
        };
        {
            let mut ring = self.ring.lock();
            if ring.epoch != epoch || batch.first() != ring.last + 1 {
                *ring = Ring {
                    epoch,
                    last: batch.first() - 1,
                    ..Ring::default()
                };
            }
            ring.push(batch);
        }
        self.last.send_replace(Some(last.sequence));
    }

    /// This master does not lead any more: every watch is over.
    pub(super) fn end(&self) {
        let mut ring = self.ring.lock();
        // Before the events go: nobody is to take that for a gap.
        self.last.send_replace(None);
        *ring = Ring::default();
    }
}

/// Watches from a place on. Nothing may be told between the moment when `now` was true and the return.
pub(super) fn watch(history: &Arc<History>, now: Place, after: Option<Place>) -> Watcher {
    {
        let mut ring = history.ring.lock();
        if !history.is_kept() || ring.epoch != now.epoch {
            *ring = Ring {
                epoch: now.epoch,
                last: now.sequence,
                ..Ring::default()
            };
        }
    }
    let last = history.last.subscribe();
    history.last.send_if_modified(|last| {
        let is_first = last.is_none();
        last.get_or_insert(now.sequence);
        is_first
    });
    Watcher {
        history: Arc::clone(history),
        last,
        place: after.unwrap_or(now),
    }
}

/// What comes next.
#[derive(Debug)]
pub(crate) enum Told {
    /// These of a batch.
    Events(Arc<Batch>, Range<usize>),
    /// What came between these is not kept.
    Gap {
        /// The last that was told.
        after: Place,
        /// What follows comes behind this.
        until: Place,
    },
}

/// Somebody's place.
#[derive(Debug)]
pub(crate) struct Watcher {
    history: Arc<History>,
    last: watch::Receiver<Option<u64>>,
    place: Place,
}

impl Watcher {
    /// Where it is.
    pub(crate) fn place(&self) -> Place {
        self.place
    }

    /// What is there already; none if that is nothing, or this master does not lead any more.
    pub(crate) fn look(&mut self) -> Option<Told> {
        // Marked as seen before the look, so that what comes after it is not missed.
        (*self.last.borrow_and_update())?;
        let told = self.history.ring.lock().after(self.place)?;
        self.place = match &told {
            Told::Events(batch, range) => batch.place(range.end - 1),
            Told::Gap { until, .. } => *until,
        };
        Some(told)
    }

    /// Waits for what is next; none when this master does not lead any more. May be given up while it
    /// waits, without a loss.
    pub(crate) async fn next(&mut self) -> Option<Told> {
        loop {
            if let Some(told) = self.look() {
                return Some(told);
            }
            if self.last.borrow().is_none() {
                return None;
            }
            self.last.changed().await.ok()?;
        }
    }
}

/// Roughly what an event takes: the parts whose size others choose, and the size of the type.
fn weigh(event: &ClusterEvent) -> usize {
    let labels = |labels: &meros_proto::labels::Labels| -> usize {
        let one = |label: &meros_proto::labels::Label| {
            size_of_val(label) + label.key().len() + label.value().map_or(0, str::len)
        };
        labels.iter().map(one).sum()
    };
    let status = |status: &meros_proto::status::TaskStatus| {
        status.message.len() + status.data.len() + labels(&status.labels)
    };
    let task = |task: &meros_proto::view::TaskView| {
        task.name.len() + labels(&task.labels) + task.status.as_ref().map_or(0, status)
    };
    size_of::<ClusterEvent>()
        + match &event.change {
            ClusterChange::TaskAdded(view) => task(view),
            ClusterChange::TaskRemembered(view) => task(view),
            ClusterChange::ExecutorAdded(view) => view.name.len() + labels(&view.labels),
            ClusterChange::TaskChanged { status: it, .. } => it.as_ref().map_or(0, status),
            ClusterChange::Slave(view) => {
                let attributes = view.attributes.iter();
                attributes
                    .map(|(name, value)| name.len() + value.len())
                    .sum()
            }
            ClusterChange::Framework(view) => {
                view.name.len() + view.principal.len() + view.webui_url.len()
            }
            _ => 0,
        }
}

#[cfg(test)]
mod tests {
    use meros_proto::ids::SlaveId;
    use meros_proto::time::Timestamp;

    use super::*;

    fn events(numbers: Range<u64>) -> Arc<[ClusterEvent]> {
        let event = |sequence| ClusterEvent {
            sequence,
            at: Timestamp(1),
            change: ClusterChange::SlaveRemoved(SlaveId(0)),
        };
        numbers.map(event).collect()
    }

    fn place(epoch: u64, sequence: u64) -> Place {
        Place {
            epoch: Epoch(epoch),
            sequence,
        }
    }

    fn tell(history: &History, epoch: u64, numbers: Range<u64>) {
        let events = events(numbers);
        history.tell(Epoch(epoch), &events, vec![true; events.len()]);
    }

    /// What is there to be told, without waiting.
    fn now(watcher: &mut Watcher) -> Option<String> {
        let next = std::pin::pin!(watcher.next());
        let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
        match next.poll(&mut cx) {
            std::task::Poll::Pending => Some("nothing".to_owned()),
            std::task::Poll::Ready(told) => told.map(|told| match told {
                Told::Events(batch, range) => {
                    format!(
                        "{}..={}",
                        batch.place(range.start),
                        batch.place(range.end - 1)
                    )
                }
                Told::Gap { after, until } => format!("gap {after} {until}"),
            }),
        }
    }

    #[test]
    fn each_event_is_told_once_and_in_order_to_each() {
        let history = Arc::<History>::default();
        let mut first = watch(&history, place(3, 10), None);
        assert_eq!(now(&mut first).as_deref(), Some("nothing"));
        tell(&history, 3, 11..13);
        tell(&history, 3, 13..14);
        let mut second = watch(&history, place(3, 13), Some(place(3, 11)));
        assert_eq!(now(&mut first).as_deref(), Some("3-11..=3-12"));
        assert_eq!(now(&mut second).as_deref(), Some("3-12..=3-12"));
        for watcher in [&mut first, &mut second] {
            assert_eq!(now(watcher).as_deref(), Some("3-13..=3-13"));
            assert_eq!(now(watcher).as_deref(), Some("nothing"));
            assert_eq!(watcher.place(), place(3, 13));
        }
        history.end();
        assert_eq!(now(&mut first), None, "it does not lead any more");
    }

    #[test]
    fn what_is_not_kept_is_a_gap_and_then_it_goes_on() {
        let history = Arc::<History>::default();
        let mut slow = watch(&history, place(3, 0), None);
        let many = EVENTS_MAX as u64 + 1;
        tell(&history, 3, 1..2);
        tell(&history, 3, 2..many + 1);
        tell(&history, 3, many + 1..many + 2);
        assert_eq!(history.ring.lock().batches.len(), 1, "the oldest have gone");
        let gap = format!("gap 3-0 3-{many}");
        assert_eq!(now(&mut slow), Some(gap));
        let last = format!("3-{0}..=3-{0}", many + 1);
        assert_eq!(now(&mut slow), Some(last));
        for other in [place(2, 5), place(4, 1), place(3, many + 9)] {
            let mut watcher = watch(&history, place(3, many + 1), Some(other));
            let gap = format!("gap {other} 3-{many}");
            assert_eq!(now(&mut watcher), Some(gap));
        }
    }

    #[test]
    fn another_term_is_a_gap() {
        let history = Arc::<History>::default();
        let mut watcher = watch(&history, place(3, 4), None);
        tell(&history, 4, 1..3);
        assert_eq!(now(&mut watcher).as_deref(), Some("gap 3-4 4-0"));
        assert_eq!(now(&mut watcher).as_deref(), Some("4-1..=4-2"));
    }

    #[test]
    fn a_place_is_a_term_and_a_number() {
        assert_eq!("3-17".parse(), Ok(place(3, 17)));
        for text in ["", "3", "3-", "-3", "03-1", "3-1-1", "3-+1", "a-1"] {
            assert_eq!(text.parse::<Place>(), Err(BadPlace), "{text:?}");
        }
    }

    #[test]
    fn what_an_event_is_as_text_is_made_once() {
        let history = Arc::<History>::default();
        let mut watcher = watch(&history, place(3, 0), None);
        tell(&history, 3, 1..2);
        let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
        let next = std::pin::pin!(watcher.next());
        let std::task::Poll::Ready(Some(Told::Events(batch, _))) = next.poll(&mut cx) else {
            panic!("it is there");
        };
        let made = |text: &'static str| move || Some(Bytes::from_static(text.as_bytes()));
        assert_eq!(
            batch.said(0, Form::Sse, made("a")).as_deref(),
            Some(&b"a"[..])
        );
        assert_eq!(
            batch.said(0, Form::Sse, made("b")).as_deref(),
            Some(&b"a"[..])
        );
        assert_eq!(batch.said(0, Form::V1Json, || None), None);
    }
}
