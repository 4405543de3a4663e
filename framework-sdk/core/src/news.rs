//! News that wait until their framework has time for them.
//!
//! They are told in order. What is void before it is told is not told at all: an offer that is taken
//! back, or whose connection is gone, leaves the queue together with the word that it is. Offers join
//! those that wait already, and are told with them. So a framework that is slower than offers come and go is
//! not buried under them, the queue is not filled by them, and its updates come through.
//!
//! Invariants: D9 nothing but void offers is dropped, and of an offer that was told its end is, too.

use std::collections::{BTreeMap, VecDeque};

use meros_proto::ids::OfferId;
use meros_proto::offer::Offer;

use crate::News;

/// News that may wait for a framework before its session stops to read from the master. Beyond it
/// the wire fills, and a master cuts off who does not read.
pub const NEWS_QUEUE: usize = 1_024;

/// News that calls of the framework may make while the queue is full: calls are taken until then. One that answers
/// ten thousand offers before it looks at other news would else wait for itself, and the tasks of a call that
/// cannot be sent end with a news each.
pub const CALL_NEWS_MAX: usize = 1 << 20;

/// So many offers that wait are joined by no more, so that a framework can look at other things between.
const OFFERS_AT_ONCE_MAX: usize = 10_000;

/// The queue between a driver and its framework.
#[derive(Debug, Clone)]
pub struct NewsQueue {
    /// Numbered as they came.
    waiting: VecDeque<(u64, News)>,
    came: u64,
    /// Offers that were not told yet, and the number of the news that tells them.
    untold: BTreeMap<OfferId, u64>,
    /// The number of the news that further offers join.
    open: Option<u64>,
    capacity: usize,
    dropped: u64,
}

impl Default for NewsQueue {
    /// One of [`NEWS_QUEUE`] news.
    fn default() -> Self {
        Self::new(NEWS_QUEUE)
    }
}

impl NewsQueue {
    /// An empty queue that is full with so many.
    #[must_use]
    pub fn new(capacity: usize) -> Self {
        Self {
            waiting: VecDeque::new(),
            came: 0,
            untold: BTreeMap::new(),
            open: None,
            capacity,
            dropped: 0,
        }
    }

    /// Adds what the driver delivers ([`Effect::Deliver`](crate::Effect::Deliver)). It is taken even
    /// when the queue is full: by then no more events should be fed to the driver, but for
    /// acknowledgements, which make no news, and calls, up to [`CALL_NEWS_MAX`].
    pub fn push(&mut self, news: News) {
        let news = match news {
            News::Offers(offers) => return self.push_offers(offers),
            other => other,
        };
        match &news {
            News::Rescinded(offer_id) => {
                if let Some(number) = self.untold.remove(offer_id) {
                    self.dropped += 1;
                    return self.take_out(*offer_id, number);
                }
            }
            // What is offered of a slave that was lost and is back comes after the word of its loss.
            News::SlaveLost(_) => self.open = None,
            // Offers do not outlive their subscription (semantics E7), and these news say so.
            News::Subscribed { .. } | News::Disconnected { .. } | News::Ended(_) => {
                self.dropped += u64::try_from(self.untold.len()).unwrap_or(u64::MAX);
                self.untold.clear();
                self.open = None;
                self.waiting
                    .retain(|(_, it)| !matches!(it, News::Offers(_) | News::Rescinded(_)));
            }
            _ => {}
        }
        self.waiting.push_back((self.came, news));
        self.came += 1;
    }

    fn push_offers(&mut self, more: Vec<Offer>) {
        let number = self.open.unwrap_or(self.came);
        let ids = more.iter().map(|offer| (offer.offer_id, number));
        self.untold.extend(ids);
        if let Some(place) = self.open.map(|number| self.place_of(number))
            && let Some((_, News::Offers(offers))) = self.waiting.get_mut(place)
        {
            offers.extend(more);
        } else {
            self.waiting.push_back((number, News::Offers(more)));
            self.came += 1;
        }
        let waiting = self.untold.len();
        self.open = Some(number).filter(|_| waiting < OFFERS_AT_ONCE_MAX);
    }

    fn place_of(&self, number: u64) -> usize {
        let place = self.waiting.binary_search_by_key(&number, |(it, _)| *it);
        place.expect("what is not told yet waits")
    }

    /// An offer is void before it was told.
    fn take_out(&mut self, offer_id: OfferId, number: u64) {
        let place = self.place_of(number);
        if let Some((_, News::Offers(offers))) = self.waiting.get_mut(place) {
            offers.retain(|offer| offer.offer_id != offer_id);
            if offers.is_empty() {
                self.waiting.remove(place);
                self.open.take_if(|open| *open == number);
            }
        }
    }

    /// The oldest, to be told now.
    pub fn pop(&mut self) -> Option<News> {
        let (number, news) = self.waiting.pop_front()?;
        self.open.take_if(|open| *open == number);
        if let News::Offers(offers) = &news {
            for offer in offers {
                self.untold.remove(&offer.offer_id);
            }
        }
        Some(news)
    }

    /// How many wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Whether none waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Whether nothing more should be read from the master for now.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.waiting.len() >= self.capacity
    }

    /// Whether calls that may make news should wait, too.
    #[must_use]
    pub fn is_full_for_calls(&self) -> bool {
        self.waiting.len() >= self.capacity.saturating_add(CALL_NEWS_MAX)
    }

    /// How many offers were void before they could be told.
    #[must_use]
    pub fn dropped_offers(&self) -> u64 {
        self.dropped
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use meros_proto::ids::{ClusterId, Epoch, FrameworkId, SlaveId, TaskId};
    use meros_proto::offer::Offer;
    use meros_proto::status::{Source, TaskState, TaskStatus};
    use meros_proto::time::Timestamp;
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    fn id(number: u64) -> OfferId {
        let epoch = Epoch(1);
        OfferId { epoch, number }
    }

    fn offers(numbers: &[u64]) -> News {
        let offer = |number: &u64| Offer {
            offer_id: id(*number),
            framework_id: FrameworkId(0),
            slave_id: SlaveId(0),
            hostname: String::new(),
            http_address: String::new(),
            role: "*".parse().expect("a role"),
            resources: Default::default(),
            attributes: Default::default(),
            unavailability: None,
        };
        News::Offers(numbers.iter().map(offer).collect())
    }

    fn update(number: u64) -> News {
        let task_id = TaskId::new(format!("t{number}")).expect("an id");
        let status = TaskStatus::new(task_id, TaskState::Running, Source::Slave, Timestamp(1));
        News::Update(status)
    }

    fn subscribed() -> News {
        News::Subscribed {
            framework_id: FrameworkId(0),
            cluster_id: ClusterId(1),
            again: true,
        }
    }

    fn disconnected() -> News {
        let why = String::new();
        News::Disconnected { why }
    }

    fn all(queue: &mut NewsQueue) -> Vec<News> {
        std::iter::from_fn(|| queue.pop()).collect()
    }

    #[test]
    fn an_offer_that_is_taken_back_before_it_was_told_is_never_told() {
        let mut queue = NewsQueue::default();
        queue.push(offers(&[1, 2]));
        queue.push(update(1));
        queue.push(News::Rescinded(id(1)));
        assert_eq!(queue.pop(), Some(offers(&[2])));
        queue.push(offers(&[3]));
        queue.push(News::Rescinded(id(2)));
        queue.push(News::Rescinded(id(3)));
        assert_eq!(all(&mut queue), [update(1), News::Rescinded(id(2))]);
        assert_eq!(queue.dropped_offers(), 2);
    }

    #[test]
    fn a_subscription_that_is_gone_takes_its_offers_along() {
        for end in [disconnected(), subscribed()] {
            let mut queue = NewsQueue::default();
            queue.push(offers(&[1]));
            assert_eq!(queue.pop(), Some(offers(&[1])));
            queue.push(News::Rescinded(id(1)));
            queue.push(offers(&[2]));
            queue.push(update(1));
            queue.push(end.clone());
            queue.push(offers(&[3]));
            assert_eq!(all(&mut queue), [update(1), end, offers(&[3])]);
        }
    }

    #[test]
    fn offers_join_those_that_wait_but_not_across_the_loss_of_a_slave() {
        let mut queue = NewsQueue::new(3);
        queue.push(offers(&[1]));
        queue.push(update(1));
        queue.push(offers(&[2, 3]));
        assert_eq!(queue.len(), 2);
        queue.push(News::SlaveLost(SlaveId(0)));
        queue.push(offers(&[4]));
        queue.push(News::Rescinded(id(2)));
        let lost = News::SlaveLost(SlaveId(0));
        assert_eq!(queue.pop(), Some(offers(&[1, 3])));
        assert_eq!(queue.pop(), Some(update(1)));
        // Those that all are taken back are joined by none.
        queue.push(News::Rescinded(id(4)));
        queue.push(offers(&[5]));
        assert_eq!(all(&mut queue), [lost, offers(&[5])]);
        queue.push(offers(&[6]));
        assert_eq!(all(&mut queue), [offers(&[6])]);
    }

    /// The simulator's seed 3986: who looks at a full queue does not read on, and what would empty it is not
    /// read.
    #[test]
    fn offers_alone_never_fill_it() {
        let mut queue = NewsQueue::new(2);
        for number in 0..1_000 {
            queue.push(offers(&[number]));
            assert!(!queue.is_full());
        }
    }

    #[test]
    fn offers_that_come_and_go_never_fill_it() {
        let mut queue = NewsQueue::new(2);
        queue.push(update(1));
        for number in 0..10_000 {
            queue.push(offers(&[number]));
            assert!(queue.is_full());
            queue.push(News::Rescinded(id(number)));
            assert!(!queue.is_full());
        }
        assert_eq!((queue.len(), queue.is_empty()), (1, false));
    }

    /// What a driver may deliver, and that the framework takes one.
    #[derive(Debug, Clone, Copy)]
    enum Step {
        Offers(u8),
        /// One of those that are out, told or not.
        Rescind(prop::sample::Index),
        Update,
        Reconnect,
        Tell,
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            4 => (1..4_u8).prop_map(Step::Offers),
            4 => any::<prop::sample::Index>().prop_map(Step::Rescind),
            3 => Just(Step::Update),
            1 => Just(Step::Reconnect),
            5 => Just(Step::Tell),
        ];
        vec(step, 0..200)
    }

    /// What a framework knows that hears these news.
    #[derive(Debug, Default)]
    struct Framework {
        holds: BTreeSet<OfferId>,
        /// All but offers and rescinds, in order.
        heard: Vec<News>,
    }

    impl Framework {
        fn hear(&mut self, news: News, out: &BTreeSet<OfferId>) {
            match news {
                News::Offers(offers) => {
                    assert!(!offers.is_empty(), "an empty piece of news");
                    for offer in offers {
                        assert!(out.contains(&offer.offer_id), "void, and told all the same");
                        self.holds.insert(offer.offer_id);
                    }
                }
                News::Rescinded(offer_id) => {
                    assert!(self.holds.remove(&offer_id), "taken back, and never told");
                }
                other => {
                    if matches!(other, News::Disconnected { .. }) {
                        self.holds.clear();
                    }
                    self.heard.push(other);
                }
            }
        }
    }

    proptest! {
        /// D9
        #[test]
        fn order_is_kept_no_update_is_lost_and_an_offer_that_was_told_ends(steps in steps()) {
            let mut queue = NewsQueue::default();
            let mut framework = Framework::default();
            let mut said = Vec::new();
            let mut out = BTreeSet::new();
            let mut number = 0;
            for step in steps {
                match step {
                    Step::Offers(count) => {
                        let first = number;
                        number += u64::from(count);
                        let numbers: Vec<u64> = (first..number).collect();
                        out.extend(numbers.iter().copied().map(id));
                        queue.push(offers(&numbers));
                    }
                    Step::Rescind(which) if !out.is_empty() => {
                        let offer_id = *out.iter().nth(which.index(out.len())).expect("in range");
                        out.remove(&offer_id);
                        queue.push(News::Rescinded(offer_id));
                    }
                    Step::Rescind(_) => {}
                    Step::Update => {
                        number += 1;
                        said.push(update(number));
                        queue.push(update(number));
                    }
                    Step::Reconnect => {
                        out.clear();
                        for news in [disconnected(), subscribed()] {
                            said.push(news.clone());
                            queue.push(news);
                        }
                    }
                    Step::Tell => {
                        if let Some(news) = queue.pop() {
                            framework.hear(news, &out);
                        }
                    }
                }
            }
            while let Some(news) = queue.pop() {
                framework.hear(news, &out);
            }
            prop_assert_eq!(framework.heard, said);
            prop_assert_eq!(framework.holds, out, "what is held is what is out");
            prop_assert!(queue.untold.is_empty());
        }
    }
}
