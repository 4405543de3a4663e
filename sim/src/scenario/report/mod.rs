//! What a run has shown: numbers with stable names, from which text, JSON and the page are made.
//!
//! Everything but `wall` is the same whenever the same scenario is run with the same seed.

mod compare;
mod html;
mod svg;
mod table;
mod text;

use std::time::Duration;

use serde::Serialize;

use super::amounts::{Amounts, NAMES, ratio};
use super::meter::{Failover, Sample, Times};
use super::record::Record;
use super::run::{Group, Outcome};
use super::variant::Variant;

pub use compare::differences;
pub use html::page;
pub(crate) use table::time;
pub use text::text;

/// What one run has shown.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// Of the scenario.
    pub title: String,
    /// Which variant of the scenario: a comparison or a step of a sweep; empty for the scenario
    /// itself.
    pub variant: String,
    /// In a sweep: what is varied, and its value in this run.
    pub step_of: Option<String>,
    /// See `step_of`.
    pub step: Option<f64>,
    /// What chance began with.
    pub seed: u64,
    /// By which slaves and arrivals were multiplied.
    pub scale: f64,
    /// Simulated time, in seconds.
    pub simulated_seconds: f64,
    /// How many things happened.
    pub happenings: u64,
    /// The same for two runs in which the same happened in the same order, in hexadecimal.
    pub hash: String,
    /// How many slaves there were at the most.
    pub slaves: u64,
    /// What the slaves had and how it was used, by resource.
    pub resources: Vec<ResourceReport>,
    /// What became of offers.
    pub offers: OffersReport,
    /// All frameworks together.
    pub total: FrameworksReport,
    /// By group of frameworks.
    pub frameworks: Vec<FrameworksReport>,
    /// How evenly the dominant shares, divided by weights, were spread over frameworks with work:
    /// Jain's index, 1 is even.
    pub fairness: Option<FairnessReport>,
    /// How the datacenter came back after its master died, by failover.
    pub failovers: Vec<FailoverReport>,
    /// What changes over time.
    pub series: Series,
    /// Real time: not deterministic.
    pub wall: Wall,
}

/// One resource of all slaves.
#[derive(Debug, Clone, Serialize)]
pub struct ResourceReport {
    /// Its name.
    pub name: String,
    /// What slaves that were up had at the most, in its unit.
    pub total: f64,
    /// The part that containers used: mean over time, and the most at once.
    pub used_mean: f64,
    /// See `used_mean`.
    pub used_max: f64,
    /// The part that lay in offers, mean over time.
    pub offered_mean: f64,
}

/// What became of offers, as the master counts them.
#[derive(Debug, Clone, Serialize)]
pub struct OffersReport {
    /// Made.
    pub made: u64,
    /// Used by an accept.
    pub accepted: u64,
    /// Given back.
    pub declined: u64,
    /// Taken back by the master.
    pub rescinded: u64,
    /// Held for too long.
    pub timed_out: u64,
}

/// The frameworks of one group.
#[derive(Debug, Clone, Serialize)]
pub struct FrameworksReport {
    /// Of the group.
    pub name: String,
    /// How many they are.
    pub count: u64,
    /// Tasks that became ready, those that were lost and came back included.
    pub submitted: u64,
    /// Tasks in an accept.
    pub launched: u64,
    /// Tasks that were told to be running.
    pub started: u64,
    /// Tasks that ended as they should.
    pub finished: u64,
    /// Tasks that ended with a failure of their own.
    pub failed: u64,
    /// Tasks that the datacenter lost; each was submitted again.
    pub lost: u64,
    /// Tasks refused because too many waited.
    pub rejected: u64,
    /// Tasks that waited at the end.
    pub pending: u64,
    /// Tasks that ran or were about to at the end.
    pub live: u64,
    /// Offers that came.
    pub offers: u64,
    /// Of those, used.
    pub accepted: u64,
    /// Of those, given back.
    pub declined: u64,
    /// Of those, taken back.
    pub rescinded: u64,
    /// From ready to running, in seconds; none if nothing ran.
    pub wait: Option<Waits>,
    /// The dominant share of all of them together, mean over time, from 0 to 1.
    pub share_mean: f64,
}

/// How long tasks waited, in seconds.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Waits {
    /// The mean.
    pub mean: f64,
    /// Half waited no longer.
    pub p50: f64,
    /// Nine of ten waited no longer.
    pub p90: f64,
    /// 99 of 100 waited no longer.
    pub p99: f64,
    /// The longest.
    pub max: f64,
}

/// How even shares were.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct FairnessReport {
    /// Mean over time.
    pub mean: f64,
    /// The worst moment.
    pub min: f64,
}

/// One failover; times in seconds since the master died, none if it did not come to that.
#[derive(Debug, Clone, Serialize)]
pub struct FailoverReport {
    /// When, since the beginning.
    pub at: f64,
    /// Registered slaves before.
    pub slaves: u64,
    /// Until a master led.
    pub led_after: Option<f64>,
    /// Until the first offer.
    pub offered_after: Option<f64>,
    /// Until the first launch.
    pub launched_after: Option<f64>,
    /// Until as many slaves as before were registered.
    pub slaves_back_after: Option<f64>,
}

/// What changes over time: all lists have one value for each moment.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Series {
    /// In seconds since the beginning.
    pub seconds: Vec<f64>,
    /// Registered slaves.
    pub slaves: Vec<u64>,
    /// By resource.
    pub resources: Vec<ResourceSeries>,
    /// By group of frameworks.
    pub frameworks: Vec<FrameworksSeries>,
    /// Jain's index; null when no framework has work.
    pub fairness: Vec<Option<f64>>,
}

/// A resource over time, in parts of what slaves that are up have.
#[derive(Debug, Clone, Serialize)]
pub struct ResourceSeries {
    /// Its name.
    pub name: String,
    /// Used by containers.
    pub used: Vec<f64>,
    /// In offers.
    pub offered: Vec<f64>,
}

/// A group of frameworks over time.
#[derive(Debug, Clone, Serialize)]
pub struct FrameworksSeries {
    /// Of the group.
    pub name: String,
    /// The dominant share of all of them together.
    pub share: Vec<f64>,
    /// Tasks that wait.
    pub pending: Vec<u64>,
    /// Tasks that run or are about to.
    pub live: Vec<u64>,
}

/// Real time, measured on this machine at this moment.
#[derive(Debug, Clone, Serialize)]
pub struct Wall {
    /// Of the whole run, in seconds, on one thread.
    pub seconds: f64,
    /// What it took of one processor, in seconds; none where the system does not tell.
    pub cpu_seconds: Option<f64>,
    /// The same for each simulated hour.
    pub cpu_seconds_per_simulated_hour: Option<f64>,
    /// Things that happened in a second.
    pub happenings_per_second: f64,
    /// In the master's core, in seconds.
    pub master_seconds: f64,
    /// In the cores of all slaves, in seconds.
    pub slaves_seconds: f64,
    /// How long the master's core took for an event, in microseconds.
    pub master_event: Latency,
    /// How long it took for an event in which it made offers.
    pub master_decision: Latency,
    /// The most memory that the process had, in MiB; none where the system does not tell.
    pub memory_mib: Option<f64>,
}

/// Times in microseconds; quantiles are right within an eighth.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Latency {
    /// How many.
    pub count: u64,
    /// The mean.
    pub mean: f64,
    /// Half took no longer.
    pub p50: f64,
    /// 99 of 100 took no longer.
    pub p99: f64,
    /// The longest.
    pub max: f64,
}

impl Report {
    /// The report of a run.
    pub(crate) fn new(variant: &Variant, outcome: &Outcome) -> Self {
        let meter = &outcome.meter;
        let samples = &meter.samples;
        let simulated = outcome.duration.as_secs_f64();
        let wall = Wall::new(outcome);
        let mut all = Group {
            name: "all".to_owned(),
            ..Group::default()
        };
        for group in &outcome.groups {
            all.record.merge(&group.record);
            all.places.extend(&group.places);
        }
        let fairness: Vec<Option<f64>> = samples
            .iter()
            .map(|sample| fairness(sample, &outcome.weights))
            .collect();
        let frameworks = |group: &Group| FrameworksReport::new(group, samples);
        Self {
            title: variant.scenario.file.title.clone(),
            variant: variant.name.clone(),
            step_of: variant.step.as_ref().map(|(of, _)| of.clone()),
            step: variant.step.as_ref().map(|(_, value)| *value),
            seed: outcome.setting.seed,
            scale: outcome.setting.scale,
            simulated_seconds: simulated,
            happenings: outcome.steps,
            hash: format!("{:016x}", outcome.hash),
            slaves: samples.iter().map(|it| it.slaves).max().unwrap_or(0),
            resources: resources(samples),
            offers: OffersReport {
                made: meter.offers.made,
                accepted: meter.offers.accepted,
                declined: meter.offers.declined,
                rescinded: meter.offers.rescinded,
                timed_out: meter.offers.timed_out,
            },
            total: frameworks(&all),
            frameworks: outcome.groups.iter().map(frameworks).collect(),
            fairness: FairnessReport::new(&fairness),
            failovers: meter.failovers.iter().map(FailoverReport::new).collect(),
            series: Series::new(samples, &outcome.groups, fairness),
            wall,
        }
    }

    /// As JSON, for programs.
    #[must_use]
    pub fn json(&self) -> serde_json::Value {
        serde_json::to_value(self).expect("plain structures of numbers and texts")
    }

    /// The names of the group that this is, with how many they are.
    pub(crate) fn group(&self, name: &str) -> Option<&FrameworksReport> {
        self.frameworks.iter().find(|group| group.name == name)
    }
}

impl FrameworksReport {
    fn new(group: &Group, samples: &[Sample]) -> Self {
        let record = &group.record;
        let shares: Vec<f64> = samples.iter().map(|it| share(it, group)).collect();
        Self {
            name: group.name.clone(),
            count: count(group.places.len()),
            submitted: record.submitted,
            launched: record.launched,
            started: record.started,
            finished: record.finished,
            failed: record.failed,
            lost: record.lost,
            rejected: record.rejected,
            pending: record.pending,
            live: record.live,
            offers: record.offers,
            accepted: record.accepted,
            declined: record.declined,
            rescinded: record.rescinded,
            wait: Waits::new(record),
            share_mean: mean(&shares),
        }
    }
}

impl Waits {
    fn new(record: &Record) -> Option<Self> {
        let mut waits = record.waits.clone();
        waits.sort_unstable();
        let max = *waits.last()?;
        let seconds = |micros: u64| micros as f64 / 1e6;
        let quantile = |per_mille: usize| {
            let rank = (waits.len() * per_mille).div_ceil(1_000).max(1);
            seconds(waits[rank - 1])
        };
        let sum: u64 = waits.iter().sum();
        Some(Self {
            mean: seconds(sum) / waits.len() as f64,
            p50: quantile(500),
            p90: quantile(900),
            p99: quantile(990),
            max: seconds(max),
        })
    }
}

impl FairnessReport {
    fn new(values: &[Option<f64>]) -> Option<Self> {
        let values: Vec<f64> = values.iter().flatten().copied().collect();
        let min = values.iter().copied().reduce(f64::min)?;
        Some(Self {
            mean: mean(&values),
            min,
        })
    }
}

impl FailoverReport {
    fn new(failover: &Failover) -> Self {
        let seconds = |time: Option<Duration>| time.map(|time| time.as_secs_f64());
        Self {
            at: failover.down_at.as_secs_f64(),
            slaves: failover.slaves_before,
            led_after: seconds(failover.led),
            offered_after: seconds(failover.offered),
            launched_after: seconds(failover.launched),
            slaves_back_after: seconds(failover.slaves_back),
        }
    }
}

impl Series {
    fn new(samples: &[Sample], groups: &[Group], fairness: Vec<Option<f64>>) -> Self {
        let part = |kind: usize, of: fn(&Sample) -> &Amounts| -> Vec<f64> {
            let part = |it: &Sample| part(of(it).0[kind], it.total.0[kind]);
            samples.iter().map(part).collect()
        };
        let resources = kinds(samples).map(|kind| ResourceSeries {
            name: NAMES[kind].to_owned(),
            used: part(kind, |it| &it.used),
            offered: part(kind, |it| &it.offered),
        });
        let frameworks = groups.iter().map(|group| {
            let sum = |it: &Sample, of: fn(&super::meter::FrameworkSample) -> u64| {
                let places = group.places.iter();
                places.map(|place| of(&it.frameworks[*place])).sum()
            };
            FrameworksSeries {
                name: group.name.clone(),
                share: samples.iter().map(|it| share(it, group)).collect(),
                pending: samples.iter().map(|it| sum(it, |it| it.pending)).collect(),
                live: samples.iter().map(|it| sum(it, |it| it.live)).collect(),
            }
        });
        Self {
            seconds: samples.iter().map(|it| it.at.as_secs_f64()).collect(),
            slaves: samples.iter().map(|it| it.slaves).collect(),
            resources: resources.collect(),
            frameworks: frameworks.collect(),
            fairness,
        }
    }
}

impl Wall {
    fn new(outcome: &Outcome) -> Self {
        let seconds = |nanos: u64| nanos as f64 / 1e9;
        let simulated = outcome.duration.as_secs_f64();
        let wall = seconds(outcome.nanos);
        let cpu = outcome.cpu_nanos.map(seconds);
        let meter = &outcome.meter;
        Self {
            seconds: wall,
            cpu_seconds: cpu,
            cpu_seconds_per_simulated_hour: cpu.map(|cpu| cpu * 3_600.0 / simulated),
            happenings_per_second: outcome.steps as f64 / wall,
            master_seconds: seconds(meter.events.sum),
            slaves_seconds: seconds(meter.slave_nanos),
            master_event: Latency::new(&meter.events),
            master_decision: Latency::new(&meter.decisions),
            memory_mib: memory_mib(),
        }
    }
}

impl Latency {
    fn new(times: &Times) -> Self {
        let micros = |nanos: u64| nanos as f64 / 1e3;
        Self {
            count: times.count,
            mean: micros(times.sum) / times.count.max(1) as f64,
            p50: micros(times.quantile(500)),
            p99: micros(times.quantile(990)),
            max: micros(times.max),
        }
    }
}

/// The most memory that this process has had, where Linux tells.
fn memory_mib() -> Option<f64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    let kib: f64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kib / 1_024.0)
}

fn count(len: usize) -> u64 {
    u64::try_from(len).expect("lengths fit 64 bits")
}

fn mean(values: &[f64]) -> f64 {
    match values.is_empty() {
        true => 0.0,
        false => values.iter().sum::<f64>() / values.len() as f64,
    }
}

fn part(part: i64, whole: i64) -> f64 {
    match whole > 0 {
        true => ratio(part, whole),
        false => 0.0,
    }
}

/// The dominant share of a group.
fn share(sample: &Sample, group: &Group) -> f64 {
    let mut used = Amounts::default();
    for place in &group.places {
        used += sample.frameworks[*place].used;
    }
    used.dominant_share(&sample.total)
}

/// Jain's index of the dominant shares, divided by weights, of frameworks that have work.
fn fairness(sample: &Sample, weights: &[f64]) -> Option<f64> {
    let shares: Vec<f64> = sample
        .frameworks
        .iter()
        .zip(weights)
        .filter(|(it, _)| it.pending > 0)
        .map(|(it, weight)| it.used.dominant_share(&sample.total) / weight)
        .collect();
    let squares: f64 = shares.iter().map(|share| share * share).sum();
    let sum: f64 = shares.iter().sum();
    // Of one alone there is nothing to say.
    (shares.len() > 1 && squares > 0.0).then(|| sum * sum / (shares.len() as f64 * squares))
}

/// The kinds of resources that there are.
fn kinds(samples: &[Sample]) -> impl Iterator<Item = usize> {
    (0..NAMES.len()).filter(|kind| samples.iter().any(|it| it.total.0[*kind] > 0))
}

fn resources(samples: &[Sample]) -> Vec<ResourceReport> {
    let of = |kind: usize| {
        let part = |of: fn(&Sample) -> &Amounts| -> Vec<f64> {
            let part = |it: &Sample| part(of(it).0[kind], it.total.0[kind]);
            samples.iter().map(part).collect()
        };
        let used = part(|it| &it.used);
        let total = samples.iter().map(|it| it.total.0[kind]).max().unwrap_or(0);
        ResourceReport {
            name: NAMES[kind].to_owned(),
            total: ratio(total, 1_000),
            used_mean: mean(&used),
            used_max: used.iter().copied().fold(0.0, f64::max),
            offered_mean: mean(&part(|it| &it.offered)),
        }
    };
    kinds(samples).map(of).collect()
}

#[cfg(test)]
mod tests;
