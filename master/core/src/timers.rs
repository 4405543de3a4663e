//! What is due when: one deadline for each thing that waits.
//!
//! Filters of declined offers keep their own deadlines in the allocator.

use std::collections::{BTreeMap, BTreeSet};

use meros_proto::ids::{FrameworkId, SlaveId, TaskId};
use meros_proto::state::SessionId;
use meros_proto::time::Timestamp;

/// Something that waits for its time.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Timer {
    /// Free resources have been gathered long enough.
    Allocate,
    /// Slaves have had their time to come back; offers are made whoever is missing.
    OffersResume,
    /// A slave is to be pinged.
    Ping(SlaveId),
    /// A slave should have come back by now.
    Return(SlaveId),
    /// The grace of a slave's drain is over, for its executors.
    Drain(SlaveId),
    /// A framework should have come back by now.
    Failover(FrameworkId),
    /// An offer, by its number, has been held too long.
    OfferExpiry(u64),
    /// The next part of the answer to an implicit reconciliation.
    Answer(FrameworkId),
    /// An update made by the master has not been acknowledged.
    UpdateRetry(FrameworkId, TaskId),
    /// A client of framework state has shown no sign of life.
    Session(SessionId),
    /// A watch of framework state, by its number, has waited long enough.
    Watch(u64),
}

/// At most one deadline for each [`Timer`].
#[derive(Debug, Default)]
pub(crate) struct Timers {
    due: BTreeSet<(Timestamp, Timer)>,
    at: BTreeMap<Timer, Timestamp>,
}

impl Timers {
    /// Sets or moves a deadline.
    pub(crate) fn arm(&mut self, timer: Timer, at: Timestamp) {
        self.cancel(&timer);
        self.at.insert(timer.clone(), at);
        self.due.insert((at, timer));
    }

    pub(crate) fn cancel(&mut self, timer: &Timer) {
        if let Some((timer, at)) = self.at.remove_entry(timer) {
            self.due.remove(&(at, timer));
        }
    }

    pub(crate) fn is_armed(&self, timer: &Timer) -> bool {
        self.at.contains_key(timer)
    }

    pub(crate) fn next_deadline(&self) -> Option<Timestamp> {
        self.due.first().map(|(at, _)| *at)
    }

    /// Takes out the first that is due.
    pub(crate) fn pop_due(&mut self, now: Timestamp) -> Option<Timer> {
        if self.next_deadline()? > now {
            return None;
        }
        let (_, timer) = self.due.pop_first()?;
        self.at.remove(&timer);
        Some(timer)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (Timestamp, &Timer)> {
        self.due.iter().map(|(at, timer)| (*at, timer))
    }

    /// Whether both indexes hold the same.
    pub(crate) fn is_consistent(&self) -> bool {
        self.due.len() == self.at.len()
            && self
                .due
                .iter()
                .all(|(at, timer)| self.at.get(timer) == Some(at))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timer_that_is_armed_again_fires_once_at_the_new_time() {
        let mut timers = Timers::default();
        timers.arm(Timer::Ping(SlaveId(1)), Timestamp(5));
        timers.arm(Timer::Ping(SlaveId(1)), Timestamp(9));
        assert_eq!(timers.pop_due(Timestamp(8)), None);
        assert_eq!(timers.next_deadline(), Some(Timestamp(9)));
        assert_eq!(timers.pop_due(Timestamp(9)), Some(Timer::Ping(SlaveId(1))));
        assert_eq!(timers.pop_due(Timestamp(9)), None);
        assert!(timers.is_consistent());
    }

    #[test]
    fn a_cancelled_timer_never_fires() {
        let mut timers = Timers::default();
        timers.arm(Timer::OfferExpiry(3), Timestamp(1));
        timers.cancel(&Timer::OfferExpiry(3));
        assert_eq!(
            (timers.pop_due(Timestamp(2)), timers.next_deadline()),
            (None, None)
        );
    }
}
