//! The way to one framework, over QUIC or HTTP.
//!
//! Both have the same bounds. A native framework's queue is its connection's; that of a v1 framework is
//! here, and the stream of its SUBSCRIBE reads it.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker};

use meros_proto::labels::Label;
use meros_proto::message::framework::MasterToFramework;
use meros_proto::offer::Offer;
use meros_proto::refusal::Refusal;
use meros_proto::resources::Resource;
use meros_proto::state::{HoldView, KeyChange, LeaseView, StateAnswer, StateEntry};
use meros_proto::transport::{CloseCode, QueueBound, Sender, TrySendError};
use meros_v1::pb::scheduler::Event;
use meros_v1::resources::Form;
use parking_lot::Mutex;

/// Messages that may wait for one framework. The largest burst is the answer to an implicit
/// reconciliation: an update for each of its tasks.
const FRAMEWORK_QUEUE: usize = 131_072;

/// Bytes that may wait for one framework: 128 MiB. Honest updates take less than 1 KiB each, so the
/// burst above fits; data and labels of tasks may be so large that their number alone bounds little.
const FRAMEWORK_QUEUE_BYTES: usize = 128 << 20;

/// Bytes that each queue of a v1 framework may hold whatever others hold: 1 MiB, a thousand updates.
const QUEUE_OWN_BYTES: usize = 1 << 20;

/// Bytes that what waits for v1 clients may take beyond that, all of them together: 512 MiB, as much as
/// four queues that are full. Nobody who reads needs it.
const POOL_BYTES: usize = 512 << 20;

/// Both together.
pub(crate) const FRAMEWORK_BOUND: QueueBound<MasterToFramework> = QueueBound {
    messages: FRAMEWORK_QUEUE,
    bytes: FRAMEWORK_QUEUE_BYTES,
    weigh,
};

/// Why a message is not on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unsent {
    /// The framework does not read.
    Full,
    /// Nobody is there any more.
    Gone,
}

/// Where the core's thread sends what is for one framework. A send never waits.
#[derive(Debug)]
pub(crate) enum FrameworkLink {
    /// Over QUIC.
    Native(Sender<MasterToFramework>),
    /// Over HTTP.
    V1(V1Link),
}

impl FrameworkLink {
    /// Puts a message behind those before it.
    pub(crate) fn try_send(&self, message: MasterToFramework) -> Result<(), Unsent> {
        match self {
            Self::Native(sender) => sender.try_send(message).map_err(|error| match error {
                TrySendError::Full(_) => Unsent::Full,
                TrySendError::Closed(_) => Unsent::Gone,
            }),
            Self::V1(link) => link.send(Outgoing::Message(message)),
        }
    }

    /// Closes after what was sent before.
    pub(crate) fn close(self, code: CloseCode, reason: &str, why: &Refusal) {
        match self {
            Self::Native(sender) => sender.close(code, reason),
            Self::V1(link) => link.close(why),
        }
    }
}

/// What a v1 framework is to be told.
#[derive(Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "messages of the core are the common case: a box each would cost more than it saves"
)]
pub(crate) enum Outgoing {
    /// By the core.
    Message(MasterToFramework),
    /// By the edge, about what the core never hears of.
    Event(Box<Event>),
    /// Nothing: from here on it is told in this form.
    Form(Form),
}

/// Memory that all who read v1 streams share. Clones are the same.
#[derive(Debug, Clone)]
pub(crate) struct Pool(Arc<AtomicUsize>);

impl Default for Pool {
    fn default() -> Self {
        Self(Arc::new(AtomicUsize::new(POOL_BYTES)))
    }
}

impl Pool {
    /// Takes so many bytes; none if there are not as many.
    pub(crate) fn take(&self, bytes: usize) -> Option<Share> {
        let mut share = Share {
            pool: self.clone(),
            bytes: 0,
        };
        share.resize(bytes).then_some(share)
    }
}

/// A part of a pool; given back when it is dropped.
#[derive(Debug)]
pub(crate) struct Share {
    pool: Pool,
    bytes: usize,
}

impl Share {
    /// Makes it so large; false, and as large as before, if there is not as much.
    fn resize(&mut self, bytes: usize) -> bool {
        let left = &*self.pool.0;
        if bytes <= self.bytes {
            left.fetch_add(self.bytes - bytes, Ordering::Relaxed);
        } else {
            let more = bytes - self.bytes;
            let take = |left: usize| left.checked_sub(more);
            let taken = left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take);
            if taken.is_err() {
                return false;
            }
        }
        self.bytes = bytes;
        true
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.resize(0);
    }
}

/// The queue of a v1 framework. Clones are the same queue.
#[derive(Debug, Clone)]
pub(crate) struct V1Link(Arc<Mutex<Queue>>);

#[derive(Debug)]
struct Queue {
    items: VecDeque<(Outgoing, usize)>,
    bytes: usize,
    /// For what is beyond its own.
    share: Share,
    /// Set when it is closed: nothing comes behind what is in it.
    end: Option<Refusal>,
    /// Whoever reads is gone.
    is_deaf: bool,
    waker: Option<Waker>,
}

impl V1Link {
    /// An empty queue.
    pub(crate) fn new(pool: &Pool) -> Self {
        Self(Arc::new(Mutex::new(Queue {
            items: VecDeque::new(),
            bytes: 0,
            share: Share {
                pool: pool.clone(),
                bytes: 0,
            },
            end: None,
            is_deaf: false,
            waker: None,
        })))
    }

    /// Puts something behind what is there.
    pub(crate) fn send(&self, outgoing: Outgoing) -> Result<(), Unsent> {
        let weight = match &outgoing {
            Outgoing::Message(message) => weigh(message),
            Outgoing::Event(event) => size_of::<Event>() + meros_v1::encoding::size(&**event),
            Outgoing::Form(form) => size_of_val(form),
        };
        let mut queue = self.0.lock();
        if queue.is_deaf || queue.end.is_some() {
            return Err(Unsent::Gone);
        }
        let bytes = queue.bytes + weight;
        if queue.items.len() >= FRAMEWORK_QUEUE
            || bytes > FRAMEWORK_QUEUE_BYTES
            || !queue.weighs(bytes)
        {
            return Err(Unsent::Full);
        }
        queue.items.push_back((outgoing, weight));
        queue.wake();
        Ok(())
    }

    fn close(&self, why: &Refusal) {
        let mut queue = self.0.lock();
        if *why == Refusal::TooSlow {
            // It is not going to be read, and takes much memory.
            queue.items = VecDeque::new();
            queue.weighs(0);
        }
        queue.end = Some(why.clone());
        queue.wake();
    }

    /// The next thing to tell; an error when there is none any more.
    pub(crate) fn poll_next(&self, cx: &mut Context<'_>) -> Poll<Result<Outgoing, Refusal>> {
        let mut queue = self.0.lock();
        if let Some((outgoing, weight)) = queue.items.pop_front() {
            let bytes = queue.bytes - weight;
            queue.weighs(bytes);
            return Poll::Ready(Ok(outgoing));
        }
        if let Some(why) = &queue.end {
            return Poll::Ready(Err(why.clone()));
        }
        queue.waker = Some(cx.waker().clone());
        Poll::Pending
    }

    /// Nobody reads any more.
    pub(crate) fn deafen(&self) {
        let mut queue = self.0.lock();
        queue.is_deaf = true;
        queue.items = VecDeque::new();
        queue.weighs(0);
    }
}

impl Queue {
    /// So many bytes are in it; false, and as before, if there is no memory for that.
    fn weighs(&mut self, bytes: usize) -> bool {
        let has = self.share.resize(bytes.saturating_sub(QUEUE_OWN_BYTES));
        if has {
            self.bytes = bytes;
        }
        has
    }

    fn wake(&mut self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

/// How many bytes of memory a message for a framework takes, roughly: the parts whose size others
/// choose are counted, the rest is the size of the type.
fn weigh(message: &MasterToFramework) -> usize {
    let inside = match message {
        MasterToFramework::Offers(offers) => offers.iter().map(weigh_offer).sum(),
        MasterToFramework::Update(status) => {
            let labels = status.labels.iter().map(|label| {
                size_of::<Label>() + label.key().len() + label.value().map_or(0, str::len)
            });
            status.message.len() + status.data.len() + labels.sum::<usize>()
        }
        MasterToFramework::Refused { call, .. } => call.len(),
        MasterToFramework::Operation(status) => status.message.len(),
        MasterToFramework::State { answer, .. } => answer.as_ref().map_or(0, weigh_answer),
        MasterToFramework::Masters { addresses } => addresses.iter().map(String::len).sum(),
        MasterToFramework::ExecutorMessage { data, .. } => data.len(),
        MasterToFramework::ExecutorEnded { .. }
        | MasterToFramework::Subscribed { .. }
        | MasterToFramework::Rescind { .. }
        | MasterToFramework::Failure { .. }
        | MasterToFramework::Error { .. } => 0,
    };
    size_of::<MasterToFramework>() + inside
}

fn weigh_answer(answer: &StateAnswer) -> usize {
    let weigh_entry =
        |entry: &StateEntry| size_of::<StateEntry>() + entry.key.as_str().len() + entry.value.len();
    let weigh_lease = |view: &LeaseView| {
        let holders = view.queue.iter().map(|hold| hold.holder.len());
        size_of::<LeaseView>() + size_of::<HoldView>() * view.queue.len() + holders.sum::<usize>()
    };
    match answer {
        StateAnswer::Entries { entries, .. } => entries.iter().map(weigh_entry).sum(),
        StateAnswer::Changes { changes, .. } => changes
            .iter()
            .map(|change| match change {
                KeyChange::Set(entry) => weigh_entry(entry),
                KeyChange::Deleted { key, .. } => size_of::<KeyChange>() + key.as_str().len(),
            })
            .sum(),
        StateAnswer::Lease(view) => weigh_lease(view),
        StateAnswer::Leases(views) => views.iter().map(weigh_lease).sum(),
        StateAnswer::Alive | StateAnswer::Changed(_) => 0,
    }
}

fn weigh_offer(offer: &Offer) -> usize {
    let attributes = offer.attributes.iter();
    let attributes = attributes.map(|(name, value)| name.len() + value.len());
    size_of::<Offer>()
        + size_of::<Resource>() * offer.resources.iter().count()
        + offer.hostname.len()
        + attributes.sum::<usize>()
}

#[cfg(test)]
mod tests {
    use meros_proto::ids::TaskId;
    use meros_proto::labels::Labels;
    use meros_proto::status::{Source, TaskState, TaskStatus};
    use meros_proto::time::Timestamp;

    use super::*;

    fn status() -> TaskStatus {
        let id = TaskId::new("t").unwrap();
        TaskStatus::new(id, TaskState::Running, Source::Slave, Timestamp(0))
    }

    #[test]
    fn what_others_make_large_is_weighed() {
        let small = weigh(&MasterToFramework::Update(status()));
        assert!(small < 1_024, "an honest burst must fit: {small}");
        let mut large = status();
        large.data = vec![0; 1 << 20].into();
        large.message = "m".repeat(1 << 10);
        let label = Label::new("k", Some("v".repeat(1 << 16))).unwrap();
        large.labels = Labels::from_list(vec![label; 4]).unwrap();
        let large = weigh(&MasterToFramework::Update(large));
        assert!(
            large >= small + (1 << 20) + (1 << 10) + 4 * (1 << 16),
            "{large}"
        );
    }

    #[test]
    fn a_full_queue_of_honest_updates_is_within_its_bytes() {
        let one = weigh(&MasterToFramework::Update(status()));
        assert!(
            one * FRAMEWORK_QUEUE <= FRAMEWORK_QUEUE_BYTES,
            "{one} bytes each"
        );
    }

    fn next(link: &V1Link) -> Poll<Result<Outgoing, Refusal>> {
        link.poll_next(&mut Context::from_waker(Waker::noop()))
    }

    #[test]
    fn a_v1_queue_ends_after_what_is_in_it() {
        let link = V1Link::new(&Pool::default());
        assert!(next(&link).is_pending());
        let update = || Outgoing::Message(MasterToFramework::Update(status()));
        link.send(update()).expect("there is room");
        link.close(&Refusal::Stopping);
        assert_eq!(link.send(update()), Err(Unsent::Gone));
        assert!(matches!(next(&link), Poll::Ready(Ok(_))));
        assert!(matches!(next(&link), Poll::Ready(Err(Refusal::Stopping))));
    }

    #[test]
    fn a_v1_queue_is_bounded_and_emptied_when_nobody_reads_it() {
        let link = V1Link::new(&Pool::default());
        let mut large = status();
        large.data = vec![0; 1 << 20].into();
        let mut sent = 0;
        while link
            .send(Outgoing::Message(MasterToFramework::Update(large.clone())))
            .is_ok()
        {
            sent += 1;
        }
        assert!((100..128).contains(&sent), "{sent} MiB");
        link.close(&Refusal::TooSlow);
        assert!(matches!(next(&link), Poll::Ready(Err(Refusal::TooSlow))));
        assert_eq!(link.0.lock().items.capacity(), 0);
    }

    #[test]
    fn queues_share_what_they_have_beyond_their_own_and_give_it_back() {
        let pool = Pool(Arc::new(AtomicUsize::new(4 << 20)));
        let large = || {
            let mut large = status();
            large.data = vec![0; 1 << 20].into();
            Outgoing::Message(MasterToFramework::Update(large))
        };
        let small = || Outgoing::Message(MasterToFramework::Update(status()));
        let (greedy, modest) = (V1Link::new(&pool), V1Link::new(&pool));
        let taken = std::iter::from_fn(|| greedy.send(large()).ok()).count();
        assert_eq!(taken, 4, "its own, and nearly all there is");
        while greedy.send(small()).is_ok() {}
        assert_eq!(modest.send(large()), Err(Unsent::Full));
        modest.send(small()).expect("each has some of its own");
        assert!(matches!(next(&greedy), Poll::Ready(Ok(_))));
        modest.send(large()).expect("what is read is given back");
        greedy.deafen();
        drop((greedy, modest));
        assert_eq!(pool.0.load(Ordering::Relaxed), 4 << 20);
        assert!(pool.take(5 << 20).is_none());
        let share = pool.take(4 << 20).expect("all of it");
        assert!(pool.take(1).is_none());
        drop(share);
        assert!(pool.take(1).is_some());
    }
}
