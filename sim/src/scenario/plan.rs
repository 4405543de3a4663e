//! A world made of a scenario, and the checks of what must fit together in one.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use meros_master_core::Config;
use meros_master_core::allocator::Policy;
use meros_proto::attribute::Attributes;
use meros_proto::resources::{Reservation, Resources};
use toml::Spanned;

use super::arrivals::{Arrivals, Runs};
use super::file::{
    ArrivalsPart, Behaviour, File, FrameworksPart, LostPart, Misplaced, RunsPart, SlavesPart,
    TroublePart, WorkPart,
};
use super::jobs::{JobsPlan, OfferPolicy, WorkPlan};
use super::roles;
use super::trace::{TraceError, Traces};
use super::value::{Name, Time};
use crate::fault::{Fault, Trouble};
use crate::plan::{FrameworkPlan, Measured, NetworkPlan, Plan, SlavePlan};
use crate::prng::Rng;

/// The most slaves and frameworks in all: what a master takes.
const SLAVES_MAX: u64 = 100_000;
const FRAMEWORKS_MAX: u64 = 10_000;
/// The most points of what changes over time.
const SAMPLES_MAX: u128 = 10_000;
/// Points, when nothing else is said.
const SAMPLES: u32 = 240;
/// From an order to the first process of a task: a small container without an image.
const START_DEFAULT: Duration = Duration::from_millis(50);
const REFUSE_DEFAULT: Duration = Duration::from_secs(5);
const TASKS_PER_OFFER_DEFAULT: u32 = 1_000;
/// A write to a disk that makes records durable, at the most.
const DISK_MAX: Duration = Duration::from_millis(8);
const LATENCY_MIN_DEFAULT: Duration = Duration::from_micros(200);
const LATENCY_MAX_DEFAULT: Duration = Duration::from_millis(2);
const IDLE_TIMEOUT_DEFAULT: Duration = Duration::from_secs(5);
/// Longer than any run: what goes then does not come back.
const NEVER: Duration = Duration::from_secs(100 * 365 * 24 * 3_600);

/// What a run changes of a scenario.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Setting {
    pub(crate) seed: u64,
    /// Slaves and arrivals are multiplied by this.
    pub(crate) scale: f64,
    pub(crate) checks: bool,
}

impl File {
    /// Whether everything fits together.
    pub(crate) fn check(&self) -> Result<(), Misplaced> {
        let duration = self.duration.get_ref().0;
        if duration.is_zero() {
            return Err(Misplaced::at(&self.duration, "a run has to take some time"));
        }
        if let Some(every) = &self.report.every
            && (every.get_ref().0.is_zero()
                || duration.as_nanos() / every.get_ref().0.as_nanos() > SAMPLES_MAX)
        {
            let what = format!("at most {SAMPLES_MAX} points are taken: make it longer");
            return Err(Misplaced::at(every, what));
        }
        let slaves: u64 = self.slaves.values().map(SlavesPart::count_at_least).sum();
        let frameworks: u64 = self.frameworks.values().map(count_of).map(u64::from).sum();
        for (what, count, max) in [
            ("slaves", slaves, SLAVES_MAX),
            ("frameworks", frameworks, FRAMEWORKS_MAX),
        ] {
            if count == 0 || count > max {
                return Err(Misplaced {
                    span: 0..0,
                    what: format!("there are {count} {what}: from 1 to {max} are allowed"),
                });
            }
        }
        self.slaves.values().try_for_each(check_slaves)?;
        self.frameworks.values().try_for_each(check_frameworks)?;
        roles::configured(&self.frameworks)?;
        self.check_faults()
    }

    fn check_faults(&self) -> Result<(), Misplaced> {
        for fault in &self.faults {
            if fault.at.get_ref().0 >= self.duration.get_ref().0 {
                return Err(Misplaced::at(&fault.at, "the run is over by then"));
            }
            let TroublePart::SlavesLost(LostPart {
                shape: Some(shape), ..
            }) = fault.what.get_ref()
            else {
                continue;
            };
            if !self.slaves.contains_key(shape) {
                let known: Vec<String> = self.slaves.keys().map(ToString::to_string).collect();
                let what = format!(
                    "there are no slaves of the shape {shape}, only of {}",
                    known.join(", ")
                );
                return Err(Misplaced::at(&fault.what, what));
            }
        }
        Ok(())
    }

    /// The world of this scenario, and which group each of its frameworks belongs to.
    pub(crate) fn plan(
        &self,
        setting: Setting,
        traces: &Traces<'_>,
    ) -> Result<(Plan, Vec<usize>), TraceError> {
        let duration = self.duration.get_ref().0;
        let mut slaves = Vec::new();
        let mut shapes: BTreeMap<&Name, std::ops::Range<usize>> = BTreeMap::new();
        for (name, part) in &self.slaves {
            let from = slaves.len();
            slaves.extend(part.plans(setting.scale, traces)?);
            shapes.insert(name, from..slaves.len());
        }
        let mut frameworks = Vec::new();
        let mut groups = Vec::new();
        for (group, (name, part)) in self.frameworks.iter().enumerate() {
            let count = count_of(part);
            for number in 0..count {
                let name = match count {
                    1 => name.to_string(),
                    _ => format!("{name}-{number}"),
                };
                let place = Place { number, count };
                let jobs = jobs(name, part, setting.scale, place, traces)?;
                frameworks.push(FrameworkPlan::Jobs(Box::new(jobs)));
                groups.push(group);
            }
        }
        let every = self.report.every.as_ref();
        let plan = Plan {
            seed: setting.seed,
            masters: 1,
            master: self.master_config(),
            network: self.network_plan(),
            disk_max: DISK_MAX,
            faults: self.faults(&shapes, slaves.len(), setting.seed),
            slaves,
            frameworks,
            safety: Duration::ZERO,
            patience: Duration::ZERO,
            configured: roles::configured(&self.frameworks).expect("checked when it was read"),
            measured: Some(Measured {
                duration,
                every: every.map_or(duration / SAMPLES, |every| every.get_ref().0),
                checks: setting.checks,
            }),
            driven: None,
        };
        Ok((plan, groups))
    }

    fn master_config(&self) -> Config {
        let default = Config::default();
        let part = &self.master;
        let or = |time: Option<Time>, default| time.map_or(default, |time| time.0);
        Config {
            offer_timeout: or(part.offer_timeout, default.offer_timeout),
            ping_interval: or(part.ping_interval, default.ping_interval),
            ping_misses_max: part
                .ping_misses_max
                .map_or(default.ping_misses_max, |it| it.0),
            slave_reregister_timeout: or(
                part.slave_reregister_timeout,
                default.slave_reregister_timeout,
            ),
            allocation_delay: or(part.allocation_delay, default.allocation_delay),
            // As a real master does.
            policy: Policy {
                shuffle: Some(0),
                ..Policy::default()
            },
            ..default
        }
    }

    fn network_plan(&self) -> NetworkPlan {
        let part = &self.network;
        let latency_min = part.latency_min.map_or(LATENCY_MIN_DEFAULT, |time| time.0);
        let latency_max = part.latency_max.map_or(LATENCY_MAX_DEFAULT, |time| time.0);
        NetworkPlan {
            latency_min,
            latency_max: latency_max.max(latency_min),
            idle_timeout: part.idle_timeout.map_or(IDLE_TIMEOUT_DEFAULT, |it| it.0),
        }
    }

    fn faults(
        &self,
        shapes: &BTreeMap<&Name, std::ops::Range<usize>>,
        slaves: usize,
        seed: u64,
    ) -> Vec<Fault> {
        let mut rng = Rng::new(seed).fork("slaves lost");
        let mut faults: Vec<Fault> = self
            .faults
            .iter()
            .map(|fault| Fault {
                at: fault.at.get_ref().0,
                what: match fault.what.get_ref() {
                    TroublePart::LeaderFailover(part) => Trouble::KillMaster { down: part.down.0 },
                    TroublePart::SlavesLost(part) => {
                        let all = part.shape.as_ref().and_then(|shape| shapes.get(shape));
                        let all = all.cloned().unwrap_or(0..slaves);
                        Trouble::KillSlaves {
                            slaves: all
                                .filter(|_| rng.below(1_000_000) < part.part.ppm())
                                .collect(),
                            down: part.back_after.map_or(NEVER, |time| time.0),
                        }
                    }
                },
            })
            .collect();
        faults.sort_by_key(|fault| fault.at);
        faults
    }
}

fn count_of(part: &FrameworksPart) -> u32 {
    part.count.map_or(1, |count| count.0)
}

/// So many, multiplied; at least one.
fn scaled(count: u32, scale: f64) -> u32 {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "positive, and a cast saturates"
    )]
    let count = (f64::from(count) * scale).round() as u32;
    count.max(1)
}

impl SlavesPart {
    /// How many, as far as the file says.
    fn count_at_least(&self) -> u64 {
        self.count.map_or(1, |count| count.0.into())
    }

    /// As much, for the one role that may use it if there is one.
    fn reserve(&self, resources: &Resources) -> Result<Resources, String> {
        let Some(role) = &self.reserved_for else {
            return Ok(resources.clone());
        };
        let reservation = Reservation::fixed(role.get_ref().0.clone());
        let reservation = reservation.map_err(|error| error.to_string())?;
        let reserved = resources.push_reservation(&reservation);
        reserved.map_err(|error| error.to_string())
    }

    fn plans(&self, scale: f64, traces: &Traces<'_>) -> Result<Vec<SlavePlan>, TraceError> {
        let pairs: Vec<(String, String)> = self.attributes.get_ref().clone().into_iter().collect();
        if let Some(file) = &self.openb {
            let mut all = traces.nodes(file.get_ref(), scale)?;
            for plan in &mut all {
                let set = |(name, value): &(String, String)| plan.attributes.set(name, value);
                pairs.iter().for_each(set);
            }
            return Ok(all);
        }
        let (Some(count), Some(resources)) = (self.count, &self.resources) else {
            unreachable!("checked when it was read");
        };
        let plan = SlavePlan {
            resources: self
                .reserve(&resources.0)
                .expect("checked when it was read"),
            attributes: Attributes::new(pairs).expect("checked when it was read"),
        };
        let count = scaled(count.0, scale);
        Ok((0..count).map(|_| plan.clone()).collect())
    }
}

/// The how many-th of how many alike.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place {
    pub(crate) number: u32,
    pub(crate) count: u32,
}

fn check_slaves(part: &SlavesPart) -> Result<(), Misplaced> {
    let pairs = part.attributes.get_ref().clone().into_iter().collect();
    if let Err(error) = Attributes::new(pairs) {
        return Err(Misplaced::at(&part.attributes, error.to_string()));
    }
    if let (Some(role), Some(resources)) = (&part.reserved_for, &part.resources) {
        let reserved = part.reserve(&resources.0);
        reserved.map_err(|what| Misplaced::at(role, what))?;
    }
    match (&part.openb, &part.count, &part.resources) {
        (None, Some(_), Some(_)) => Ok(()),
        (Some(_), None, None) if part.reserved_for.is_none() => Ok(()),
        (Some(file), _, _) => {
            let what = "the file says how many there are and what they have: leave out count, resources and reserved_for";
            Err(Misplaced::at(file, what))
        }
        (None, _, _) => Err(Misplaced::at(
            &part.attributes,
            "slaves need count and resources, or openb",
        )),
    }
}

fn check_frameworks(part: &FrameworksPart) -> Result<(), Misplaced> {
    match part.behaviour.get_ref() {
        Behaviour::SlowDecider if part.decision.is_none() => {
            let what = "a slow decider needs a decision time: decision = \"30s\"";
            return Err(Misplaced::at(&part.behaviour, what));
        }
        Behaviour::Hoarder => {
            if let Some(hold) = &part.offers.hold {
                let what = "a hoarder keeps offers until they are taken back: leave it out";
                return Err(Misplaced::at(hold, what));
            }
        }
        Behaviour::Service => {
            for work in &part.work {
                if let Some(runs) = &work.runs
                    && !matches!(runs.get_ref(), RunsPart::Forever)
                {
                    let what = "a service runs \"forever\"";
                    return Err(Misplaced::at(runs, what));
                }
            }
        }
        Behaviour::Batch | Behaviour::SlowDecider => {}
    }
    part.work.iter().try_for_each(check_work)
}

fn check_work(work: &WorkPart) -> Result<(), Misplaced> {
    if let ArrivalsPart::Bursts(bursts) = work.arrivals.get_ref()
        && bursts.every.0 < Duration::from_millis(1)
    {
        let what = "between two bursts there is at least 1ms";
        return Err(Misplaced::at(&work.arrivals, what));
    }
    let is_trace = matches!(work.arrivals.get_ref(), ArrivalsPart::Trace(_));
    let runs = match (is_trace, &work.task, &work.runs) {
        (true, None, None) => return Ok(()),
        (false, Some(_), Some(runs)) => runs,
        (true, ..) => {
            let what =
                "the trace says what tasks take and how long they run: leave out task and runs";
            return Err(Misplaced::at(&work.arrivals, what));
        }
        (false, ..) => {
            let what = "work needs task and runs, unless it comes from a trace";
            return Err(Misplaced::at(&work.arrivals, what));
        }
    };
    let is_right = match runs.get_ref() {
        RunsPart::Uniform(part) => part.min.0 <= part.max.0,
        RunsPart::Pareto(part) => !part.min.0.is_zero() && part.min.0 <= part.max.0,
        _ => true,
    };
    match is_right {
        true => Ok(()),
        false => Err(Misplaced::at(
            runs,
            "min is at most as long as max, and for pareto above 0",
        )),
    }
}

fn jobs(
    name: String,
    part: &FrameworksPart,
    scale: f64,
    place: Place,
    traces: &Traces<'_>,
) -> Result<JobsPlan, TraceError> {
    let offers = &part.offers;
    let hold = match part.behaviour.get_ref() {
        Behaviour::Hoarder => None,
        _ => Some(
            offers
                .hold
                .as_ref()
                .map_or(Duration::ZERO, |it| it.get_ref().0),
        ),
    };
    let tasks_per_offer = offers
        .tasks_per_offer
        .map_or(TASKS_PER_OFFER_DEFAULT, |it| it.0);
    let decision = part.decision.as_ref();
    let work = part
        .work
        .iter()
        .map(|work| work_plan(work, scale, place, traces));
    Ok(JobsPlan {
        name,
        role: roles::role_of(part),
        policy: OfferPolicy {
            hold,
            refuse: offers.refuse.map_or(REFUSE_DEFAULT, |it| it.0),
            suppress: offers.suppress,
            tasks_per_offer: usize::try_from(tasks_per_offer).expect("32 bits fit"),
        },
        decision: decision.map_or(Duration::ZERO, |it| it.get_ref().0),
        work: work.collect::<Result<_, _>>()?,
    })
}

fn work_plan(
    part: &WorkPart,
    scale: f64,
    place: Place,
    traces: &Traces<'_>,
) -> Result<WorkPlan, TraceError> {
    let arrivals = match part.arrivals.get_ref() {
        ArrivalsPart::Poisson(rate) => Arrivals::Poisson {
            per_second: rate.0 * scale,
        },
        ArrivalsPart::Bursts(bursts) => Arrivals::Bursts {
            first: bursts.first.map_or(Duration::ZERO, |first| first.0),
            every: bursts.every.0,
            count: scaled(bursts.count.0, scale),
        },
        ArrivalsPart::Start(count) => Arrivals::Start {
            count: scaled(count.0, scale),
        },
        ArrivalsPart::Trace(trace) => Arrivals::Listed(traces.tasks(trace, scale, place)?),
    };
    let runs = match part
        .runs
        .as_ref()
        .map_or(&RunsPart::Forever, Spanned::get_ref)
    {
        RunsPart::Philly(part) => Runs::Measured(traces.runs(part)?),
        RunsPart::Forever => Runs::Forever,
        RunsPart::Fixed(time) => Runs::Fixed(time.0),
        RunsPart::Uniform(part) => Runs::Uniform(part.min.0, part.max.0),
        RunsPart::Exponential(part) => Runs::Exponential { mean: part.mean.0 },
        RunsPart::Pareto(part) => Runs::Pareto {
            alpha: part.alpha.0,
            min: part.min.0,
            max: part.max.0,
        },
        RunsPart::Lognormal(part) => Runs::Lognormal {
            median: part.median.0,
            sigma: part.sigma.0,
        },
    };
    let nothing = || Arc::new(Resources::new());
    Ok(WorkPlan {
        arrivals,
        resources: part
            .task
            .as_ref()
            .map_or_else(nothing, |task| task.0.clone()),
        runs,
        fails_ppm: part.fails.ppm(),
        start: part.start.map_or(START_DEFAULT, |start| start.0),
    })
}
