//! How long a decline lasts at least.
//!
//! Who holds nothing is asked before those who hold something. With many frameworks that decline, what
//! is free goes from hand to hand for longer than a decline lasts, begins anew, and never reaches
//! those who are due more (MESOS-3202). So a decline lasts a few times as long as all of them
//! together take to answer. With few frameworks that is shorter than what they ask for.

use std::time::Duration;

use meros_proto::offer::Filters;
use meros_proto::time::Timestamp;

use crate::MasterCore;

/// What is free is in the hands of those who decline for one part in so many of its time.
const PARTS: u32 = 4;
/// No decline is made to last longer than this.
const REFUSE_LEAST_MAX: Duration = Duration::from_secs(5 * 60);
/// Who takes longer to answer is limited as one who hoards.
const ANSWER_MAX: Duration = Duration::from_secs(1);
/// So often it is measured, since that takes a look at all frameworks.
const MEASURED_EVERY: Duration = Duration::from_secs(1);

/// How long all those who decline most of their offers take to answer, one after the other.
#[derive(Debug, Default)]
pub(crate) struct Declining {
    time: Duration,
    /// From then on it is measured anew.
    stale_from: Timestamp,
}

impl MasterCore {
    /// The filters of a decline, which last long enough for others to be asked. Who wants none gets
    /// none.
    pub(crate) fn declined(&mut self, filters: Filters, now: Timestamp) -> Filters {
        let least = self.time_of_declines(now).saturating_mul(PARTS);
        let least = least.min(REFUSE_LEAST_MAX);
        if filters.refuse.is_zero() || filters.refuse >= least {
            return filters;
        }
        self.counters.declines_prolonged += 1;
        Filters { refuse: least }
    }

    fn time_of_declines(&mut self, now: Timestamp) -> Duration {
        if now >= self.declining.stale_from {
            let delay = self.config.allocation_delay;
            let rows = self.frameworks.iter();
            let times = rows.map(|(_, row)| match row.holding.uses_few() {
                // It is asked once for each of its roles.
                true => (row.holding.mean.min(ANSWER_MAX) + delay)
                    .saturating_mul(u32::try_from(row.offered_roles.len()).unwrap_or(u32::MAX)),
                false => Duration::ZERO,
            });
            self.declining = Declining {
                time: times.fold(Duration::ZERO, Duration::saturating_add),
                stale_from: now.after(MEASURED_EVERY),
            };
        }
        self.declining.time
    }
}
