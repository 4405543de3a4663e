//! What is measured while a scenario runs: what is used and offered over time, how long the cores
//! take, how the datacenter comes back after a failover.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use meros_master_core::Effect;
use meros_proto::ids::{FrameworkId, OfferId, SlaveId};
use meros_proto::resources::Resources;
use meros_proto::slave::SlaveState;
use meros_proto::time::Timestamp;
use meros_proto::view::{ClusterChange, OfferEnd};

use super::amounts::Amounts;
use super::record::Record;
use crate::clock::elapsed;
use crate::plan::Plan;

/// Measures real time, or nothing.
#[derive(Debug)]
pub(crate) struct Stopwatch(Option<Instant>);

impl Stopwatch {
    pub(crate) fn start(is_wanted: bool) -> Self {
        #[expect(
            clippy::disallowed_methods,
            reason = "how long the cores take, for the part of a report that is not deterministic"
        )]
        Self(is_wanted.then(Instant::now))
    }

    pub(crate) fn nanos(self) -> u64 {
        let passed = self.0.map_or(Duration::ZERO, |began| began.elapsed());
        u64::try_from(passed.as_nanos()).unwrap_or(u64::MAX)
    }
}

/// What this thread has used of a processor so far, in nanoseconds; None where the system does not
/// tell.
pub(crate) fn cpu_nanos() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").ok()?;
    text.split_whitespace().next()?.parse().ok()
}

/// Times by their size: each class is an eighth of a doubling wide.
#[derive(Debug, Clone)]
pub(crate) struct Times {
    classes: Vec<u64>,
    pub(crate) count: u64,
    pub(crate) sum: u64,
    pub(crate) max: u64,
}

const CLASSES_PER_DOUBLING: u32 = 8;

impl Times {
    fn new() -> Self {
        let classes = usize::try_from(64 * CLASSES_PER_DOUBLING).expect("a small number");
        Self {
            classes: vec![0; classes],
            count: 0,
            sum: 0,
            max: 0,
        }
    }

    fn class(nanos: u64) -> usize {
        let doublings = nanos.max(CLASSES_PER_DOUBLING.into()).ilog2();
        let rest = (nanos.max(8) >> (doublings - 3)) & 7;
        let class = u64::from(doublings * CLASSES_PER_DOUBLING) + rest;
        usize::try_from(class).expect("at most 64 doublings")
    }

    fn add(&mut self, nanos: u64) {
        self.classes[Self::class(nanos)] += 1;
        self.count += 1;
        self.sum += nanos;
        self.max = self.max.max(nanos);
    }

    /// The time that so many of a thousand do not exceed, within an eighth.
    pub(crate) fn quantile(&self, per_mille: u64) -> u64 {
        let rank = (self.count * per_mille).div_ceil(1_000);
        let mut seen = 0;
        for (class, count) in self.classes.iter().enumerate() {
            seen += count;
            if seen >= rank && *count > 0 {
                let class = u32::try_from(class).expect("few classes");
                let (doublings, rest) =
                    (class / CLASSES_PER_DOUBLING, class % CLASSES_PER_DOUBLING);
                let width = 1_u64 << (doublings.max(3) - 3);
                return (u64::from(8 + rest) * width + width - 1).min(self.max);
            }
        }
        0
    }
}

/// What changes over time, at one moment.
#[derive(Debug, Clone)]
pub(crate) struct Sample {
    pub(crate) at: Duration,
    /// What slaves that are up have, what their containers use, what is on offer.
    pub(crate) total: Amounts,
    pub(crate) used: Amounts,
    pub(crate) offered: Amounts,
    pub(crate) slaves: u64,
    /// By framework.
    pub(crate) frameworks: Vec<FrameworkSample>,
}

/// What a framework has at one moment.
#[derive(Debug, Clone, Copy)]
pub(crate) struct FrameworkSample {
    pub(crate) used: Amounts,
    pub(crate) pending: u64,
    pub(crate) live: u64,
}

/// How the datacenter comes back after its master died.
#[derive(Debug, Clone, Default)]
pub(crate) struct Failover {
    pub(crate) down_at: Duration,
    pub(crate) slaves_before: u64,
    /// Since then: a master leads, an offer is made, a task is launched, as many slaves as before
    /// are registered.
    pub(crate) led: Option<Duration>,
    pub(crate) offered: Option<Duration>,
    pub(crate) launched: Option<Duration>,
    pub(crate) slaves_back: Option<Duration>,
}

/// How offers ended.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Offers {
    pub(crate) made: u64,
    pub(crate) accepted: u64,
    pub(crate) declined: u64,
    pub(crate) rescinded: u64,
    pub(crate) timed_out: u64,
}

/// Everything that is measured of the whole.
#[derive(Debug)]
pub(crate) struct Meter {
    /// By the framework's place in the plan: what its containers use.
    used_by: Vec<Amounts>,
    places: BTreeMap<FrameworkId, usize>,
    registered: BTreeSet<SlaveId>,
    total: Amounts,
    used: Amounts,
    offered: Amounts,
    outstanding: BTreeMap<OfferId, Amounts>,
    pub(crate) offers: Offers,
    pub(crate) samples: Vec<Sample>,
    pub(crate) failovers: Vec<Failover>,
    /// Real time that the master's core takes: for each event, and for those that make offers.
    pub(crate) events: Times,
    pub(crate) decisions: Times,
    /// Real time that all slaves' and all frameworks' cores take together, in nanoseconds.
    pub(crate) slave_nanos: u64,
}

impl Meter {
    pub(crate) fn new(plan: &Plan) -> Self {
        Self {
            used_by: vec![Amounts::default(); plan.frameworks.len()],
            places: BTreeMap::new(),
            registered: BTreeSet::new(),
            total: Amounts::default(),
            used: Amounts::default(),
            offered: Amounts::default(),
            outstanding: BTreeMap::new(),
            offers: Offers::default(),
            samples: Vec::new(),
            failovers: Vec::new(),
            events: Times::new(),
            decisions: Times::new(),
            slave_nanos: 0,
        }
    }

    pub(crate) fn on_subscribed(&mut self, framework: usize, id: FrameworkId) {
        self.places.insert(id, framework);
    }

    pub(crate) fn on_slave_up(&mut self, resources: &Resources) {
        self.total += Amounts::of(resources);
    }

    pub(crate) fn on_slave_down(&mut self, resources: &Resources) {
        self.total -= Amounts::of(resources);
    }

    pub(crate) fn on_container_started(&mut self, id: FrameworkId, resources: &Resources) {
        let amounts = Amounts::of(resources);
        self.used += amounts;
        if let Some(place) = self.places.get(&id) {
            self.used_by[*place] += amounts;
        }
    }

    pub(crate) fn on_container_ended(&mut self, id: FrameworkId, resources: &Resources) {
        let amounts = Amounts::of(resources);
        self.used -= amounts;
        if let Some(place) = self.places.get(&id) {
            self.used_by[*place] -= amounts;
        }
    }

    pub(crate) fn on_slave_time(&mut self, watch: Stopwatch) {
        self.slave_nanos += watch.nanos();
    }

    pub(crate) fn on_master_time(&mut self, nanos: u64, effects: &[Effect]) {
        self.events.add(nanos);
        let makes_offer = |effect: &Effect| match effect {
            Effect::Publish(event) => matches!(event.change, ClusterChange::OfferMade(_)),
            _ => false,
        };
        if effects.iter().any(makes_offer) {
            self.decisions.add(nanos);
        }
    }

    pub(crate) fn on_master_down(&mut self, now: Timestamp) {
        self.failovers.push(Failover {
            down_at: elapsed(now),
            slaves_before: count(&self.registered),
            ..Failover::default()
        });
    }

    pub(crate) fn on_launch(&mut self, now: Timestamp) {
        if let Some(failover) = self.failovers.last_mut() {
            let since = elapsed(now).saturating_sub(failover.down_at);
            failover.launched.get_or_insert(since);
        }
    }

    pub(crate) fn on_published(&mut self, change: &ClusterChange, now: Timestamp) {
        match change {
            ClusterChange::Elected(_) => {
                // What an earlier leader promised is void.
                self.outstanding.clear();
                self.offered = Amounts::default();
                self.registered.clear();
                if let Some(failover) = self.failovers.last_mut() {
                    let since = elapsed(now).saturating_sub(failover.down_at);
                    failover.led.get_or_insert(since);
                }
            }
            ClusterChange::Slave(slave) => {
                match slave.state {
                    SlaveState::Registered => self.registered.insert(slave.slave_id),
                    _ => self.registered.remove(&slave.slave_id),
                };
                let registered = count(&self.registered);
                if let Some(failover) = self.failovers.last_mut()
                    && failover.led.is_some()
                    && registered >= failover.slaves_before
                {
                    let since = elapsed(now).saturating_sub(failover.down_at);
                    failover.slaves_back.get_or_insert(since);
                }
            }
            ClusterChange::SlaveRemoved(slave_id) => {
                self.registered.remove(slave_id);
            }
            ClusterChange::OfferMade(offer) => {
                let amounts = Amounts::of(&offer.resources);
                self.offers.made += 1;
                self.offered += amounts;
                self.outstanding.insert(offer.offer_id, amounts);
                if let Some(failover) = self.failovers.last_mut() {
                    let since = elapsed(now).saturating_sub(failover.down_at);
                    failover.offered.get_or_insert(since);
                }
            }
            ClusterChange::OfferEnded { offer_id, end } => {
                if let Some(amounts) = self.outstanding.remove(offer_id) {
                    self.offered -= amounts;
                }
                *match end {
                    OfferEnd::Accepted => &mut self.offers.accepted,
                    OfferEnd::Declined => &mut self.offers.declined,
                    OfferEnd::Rescinded => &mut self.offers.rescinded,
                    OfferEnd::TimedOut => &mut self.offers.timed_out,
                } += 1;
            }
            ClusterChange::Framework(_)
            | ClusterChange::Role(_)
            | ClusterChange::TaskAdded(_)
            | ClusterChange::TaskChanged { .. }
            | ClusterChange::TaskRemoved { .. }
            | ClusterChange::TaskRemembered(_)
            | ClusterChange::TaskForgotten { .. }
            | ClusterChange::ExecutorAdded(_)
            | ClusterChange::ExecutorRemoved { .. } => {}
        }
    }

    pub(crate) fn sample<'a>(
        &mut self,
        now: Timestamp,
        records: impl Iterator<Item = Option<&'a Record>>,
    ) {
        let frameworks = self.used_by.iter().zip(records);
        let frameworks = frameworks.map(|(used, record)| FrameworkSample {
            used: *used,
            pending: record.map_or(0, |record| record.pending),
            live: record.map_or(0, |record| record.live),
        });
        let sample = Sample {
            at: elapsed(now),
            total: self.total,
            used: self.used,
            offered: self.offered,
            slaves: count(&self.registered),
            frameworks: frameworks.collect(),
        };
        self.samples.push(sample);
    }
}

fn count<T>(set: &BTreeSet<T>) -> u64 {
    u64::try_from(set.len()).expect("lengths fit 64 bits")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_of_times_are_right_within_an_eighth() {
        let mut times = Times::new();
        (1..=100_000).for_each(|nanos| times.add(nanos));
        for per_mille in [1, 500, 900, 990, 1_000] {
            let exact = per_mille * 100;
            let found = times.quantile(per_mille);
            assert!(
                (exact..=exact + exact / 8 + 8).contains(&found),
                "{per_mille}: {found} for {exact}"
            );
        }
        assert_eq!(times.max, 100_000);
        assert_eq!(Times::new().quantile(500), 0);
    }
}
