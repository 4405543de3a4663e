//! What a seed stands for: topology, settings, workload and faults, all drawn before the run begins,
//! so that a fault can be taken out without changing the rest.

use std::time::Duration;

use meros_master_core::allocator::{Minimum, Policy, Sorter};
use meros_master_core::{Command, Config};
use meros_proto::attribute::Attributes;
use meros_proto::constraint::OfferWishes;
use meros_proto::resources::{ResourceName, Resources};
use meros_proto::role::RoleName;
use meros_sdk_core::NEWS_QUEUE;

use crate::behaviour::nonsense::Manner;
use crate::fault::{self, Fault, Targets};
use crate::kit::{GuestPlan, TaskRuns};
use crate::prng::Rng;
use crate::scenario::JobsPlan;

/// Roles of workloads; most share everybody's.
const ROLES: [&str; 6] = ["*", "*", "*", "batch", "web", "web/ads"];

/// Somebody who connects to the master.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Client {
    /// The slave at this place in the plan.
    Slave(usize),
    /// The framework at this place in the plan.
    Framework(usize),
}

/// How the network behaves when nothing is wrong.
#[derive(Debug, Clone)]
pub(crate) struct NetworkPlan {
    pub(crate) latency_min: Duration,
    pub(crate) latency_max: Duration,
    /// After so much silence an end takes a connection for dead.
    pub(crate) idle_timeout: Duration,
}

/// What a workload framework does.
#[derive(Debug, Clone)]
pub(crate) struct WorkloadPlan {
    /// How many tasks it launches in all its lives.
    pub(crate) tasks: u32,
    /// The most tasks in one accept.
    pub(crate) batch: u32,
    /// Of a hundred tasks so many run until they are killed.
    pub(crate) services: u64,
    /// Of a hundred running tasks so many are killed after a while.
    pub(crate) kills: u64,
    /// Of a hundred launched tasks so many are killed at once, or soon.
    pub(crate) regrets: u64,
    /// Of a hundred updates that are no ends it acknowledges so many only after a while.
    pub(crate) lingers: u64,
    /// In so many of a hundred rounds it asks what has become of its tasks, though its driver does so
    /// by itself.
    pub(crate) asks: u64,
    /// Of a hundred offers so many are held for a long time, and so many declined.
    pub(crate) hoards: u64,
    pub(crate) declines: u64,
    /// Whether it says that it wants no offers while it has nothing to launch.
    pub(crate) suppresses: bool,
    pub(crate) partition_aware: bool,
    pub(crate) hears_killing: bool,
    pub(crate) checkpoint: bool,
    pub(crate) failover_timeout: Duration,
    /// The longest time between news and what it does about it.
    pub(crate) thinking: Duration,
    /// How many news may wait for it before it reads no more.
    pub(crate) inbox: usize,
    /// In so many of a hundred accepts it reserves, gives back, makes, destroys or resizes volumes.
    pub(crate) claims: u64,
    /// Of a hundred tasks so many run in executors.
    pub(crate) executors: u64,
    /// Of a hundred accepts so many launch some of their tasks as a group.
    pub(crate) groups: u64,
    /// The role of its offers.
    pub(crate) role: &'static str,
}

/// What a slave is.
#[derive(Debug, Clone)]
pub(crate) struct SlavePlan {
    pub(crate) resources: Resources,
    pub(crate) attributes: Attributes,
}

/// What a framework is.
#[derive(Debug, Clone)]
pub(crate) enum FrameworkPlan {
    /// Real work through the SDK's driver.
    Workload(WorkloadPlan),
    /// A workload of a scenario through the SDK's driver.
    Jobs(Box<JobsPlan>),
    /// Speaks the protocol without the driver, and badly: so often.
    Nonsense {
        /// The mean time between two messages.
        every: Duration,
        manner: Manner,
    },
    /// Comes at the very end and wants everything.
    Probe,
    /// Comes after the probe, and is owed a part of what that one has.
    Creditor,
    /// A framework of a developer, through the SDK's driver: what it does is asked outside.
    Guest(GuestPlan),
}

impl FrameworkPlan {
    /// For people.
    pub(crate) fn name(&self, at: usize) -> String {
        match self {
            Self::Guest(plan) => plan.framework.name.clone(),
            Self::Jobs(plan) => plan.name.clone(),
            Self::Workload(_) | Self::Nonsense { .. } | Self::Probe | Self::Creditor => {
                format!("framework {at}")
            }
        }
    }

    /// Whether ids of its tasks may mean more than one task.
    pub(crate) fn reuses_ids(&self) -> bool {
        match self {
            Self::Nonsense { .. } => true,
            Self::Guest(plan) => plan.guest.borrow().reuses_ids,
            Self::Workload(_) | Self::Jobs(_) | Self::Probe | Self::Creditor => false,
        }
    }

    /// What it wishes of its offers at first.
    pub(crate) fn wishes(&self) -> Vec<OfferWishes> {
        match self {
            Self::Guest(plan) => plan.wishes.clone(),
            _ => Vec::new(),
        }
    }

    /// The roles that it wants no offers for at first.
    pub(crate) fn suppressed_roles(&self) -> Vec<RoleName> {
        match self {
            Self::Guest(plan) => plan.suppressed_roles.clone(),
            _ => Vec::new(),
        }
    }
}

/// A run that is measured and not judged: for so long, then it is over.
#[derive(Debug, Clone)]
pub(crate) struct Measured {
    pub(crate) duration: Duration,
    /// The time between two samples of what changes over time.
    pub(crate) every: Duration,
    /// Whether invariants are checked after every event, which takes most of the time.
    pub(crate) checks: bool,
}

/// What the world is made of: drawn from a seed, or described by a scenario.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) seed: u64,
    /// How many masters there are.
    pub(crate) masters: usize,
    pub(crate) master: Config,
    pub(crate) network: NetworkPlan,
    /// The longest a disk takes when nothing is wrong.
    pub(crate) disk_max: Duration,
    pub(crate) slaves: Vec<SlavePlan>,
    /// Frameworks; the last are the probe and the creditor, unless the run is measured.
    pub(crate) frameworks: Vec<FrameworkPlan>,
    /// Faults in the order of their times.
    pub(crate) faults: Vec<Fault>,
    /// Until when faults happen; from then on everything heals.
    pub(crate) safety: Duration,
    /// By when, counted from the end of the faults, everything must have come to its end.
    pub(crate) patience: Duration,
    /// What the registry holds before anybody comes.
    pub(crate) configured: Vec<Command>,
    /// Set for a scenario.
    pub(crate) measured: Option<Measured>,
    /// Set for a test kit: faults come when they are asked for, and nothing ends by itself. How the
    /// tasks of guests behave.
    pub(crate) driven: Option<TaskRuns>,
}

impl Plan {
    /// What `seed` stands for, within these bounds.
    pub(crate) fn draw(seed: u64, bounds: &Bounds) -> Self {
        let root = Rng::new(seed);
        let mut rng = root.fork("plan");
        let slaves = (0..rng.between(1, bounds.slaves_max))
            .map(|_| SlavePlan {
                resources: slave_resources(&mut rng),
                attributes: Attributes::default(),
            })
            .collect::<Vec<_>>();
        // A stream of its own: what is drawn for the rest does not depend on it.
        let mut of_claims = root.fork("claims");
        let workloads = rng.between(1, bounds.frameworks_max);
        let mut frameworks: Vec<FrameworkPlan> = (0..workloads)
            .map(|_| {
                let claims = *of_claims.pick(&[0, 0, 20, 80]);
                FrameworkPlan::Workload(workload(&mut rng, claims, bounds))
            })
            .collect();
        for _ in 0..rng.below(3) {
            let every = rng.skewed(Duration::from_millis(200), Duration::from_secs(10));
            let manner = *rng.pick(&[
                Manner::Anything,
                Manner::Reuses,
                Manner::Hoards,
                Manner::Declines,
                Manner::Unthankful,
            ]);
            frameworks.push(FrameworkPlan::Nonsense { every, manner });
        }
        let safety = rng.skewed(Duration::from_secs(20), Duration::from_secs(600));
        let master = Config {
            policy: policy(&mut root.fork("policy")),
            ..master_config(&mut rng)
        };
        let network = network(&mut rng);
        let masters = *rng.pick(&[1, 3, 3]);
        let disk_max = rng.skewed(Duration::from_micros(100), Duration::from_millis(200));
        let mut faults = match bounds.faults_max {
            0 => Vec::new(),
            max => fault::draw(
                &mut root.fork("faults"),
                max,
                safety,
                Targets {
                    masters,
                    slaves: slaves.len(),
                    frameworks: frameworks.len(),
                },
            ),
        };
        if bounds.faults_max > 0 {
            faults.extend(fault::draw_changes(&mut of_claims, safety, slaves.len()));
            faults.sort_by_key(|fault| fault.at);
        }
        frameworks.extend([FrameworkPlan::Probe, FrameworkPlan::Creditor]);
        // Whoever waits longest: an update is repeated every ten minutes at most (semantics I1), a
        // lost launch is found by a reconciliation, slaves that stay away are given up, and what does
        // not heed SIGTERM may have an hour (semantics M5) by a clock that is slow.
        let patience = Duration::from_secs(90 * 60) + master.slave_reregister_timeout * 2;
        Self {
            seed,
            masters,
            master,
            network,
            disk_max,
            slaves,
            frameworks,
            faults,
            safety,
            patience,
            configured: Vec::new(),
            measured: None,
            driven: None,
        }
    }

    /// Whether invariants are checked after every event.
    pub(crate) fn checks(&self) -> bool {
        self.measured.as_ref().is_none_or(|it| it.checks)
    }
}

/// How large and how bad a drawn world may be.
#[derive(Debug, Clone)]
pub struct Bounds {
    /// The most slaves. Default 6, at least 1.
    pub slaves_max: u64,
    /// The most workload frameworks. Default 4, at least 1.
    pub frameworks_max: u64,
    /// The most tasks of one framework. Default 40, at least 1.
    pub tasks_max: u64,
    /// The most faults; none at 0. Default 24.
    pub faults_max: u64,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            slaves_max: 6,
            frameworks_max: 4,
            tasks_max: 40,
            faults_max: 24,
        }
    }
}

fn slave_resources(rng: &mut Rng) -> Resources {
    let cpus = rng.between(2, 8);
    let mem = rng.between(1, 8) * 1_024;
    let ports = match rng.percent(50) {
        true => ";ports:[31000-31009]",
        false => "",
    };
    // Reserved as a slave's configuration says; never all, so that everybody finds something.
    let reserved = match rng.percent(25) {
        true => ";cpus(web):2;mem(web):1024",
        false => "",
    };
    format!("cpus:{cpus};mem:{mem};disk:10000{ports}{reserved}")
        .parse()
        .expect("a well-formed text")
}

fn workload(rng: &mut Rng, claims: u64, bounds: &Bounds) -> WorkloadPlan {
    let seconds = Duration::from_secs;
    WorkloadPlan {
        tasks: u32::try_from(rng.between(1, bounds.tasks_max)).expect("a small bound"),
        batch: u32::try_from(rng.between(1, 8)).expect("at most 8"),
        services: *rng.pick(&[0, 10, 50]),
        kills: *rng.pick(&[0, 10, 50, 100]),
        regrets: *rng.pick(&[0, 0, 10, 50]),
        lingers: *rng.pick(&[0, 0, 50]),
        asks: *rng.pick(&[0, 0, 5]),
        hoards: *rng.pick(&[0, 0, 20, 90]),
        declines: *rng.pick(&[0, 20, 50]),
        suppresses: rng.percent(50),
        partition_aware: rng.percent(80),
        hears_killing: rng.percent(50),
        checkpoint: rng.percent(75),
        failover_timeout: match rng.percent(70) {
            true => seconds(7 * 24 * 3_600),
            false => rng.skewed(seconds(5), seconds(300)),
        },
        thinking: rng.skewed(Duration::from_micros(10), seconds(2)),
        claims,
        // Drawn apart, so that seeds without them are the same as ever.
        executors: *rng.fork("executors").pick(&[0, 0, 20, 90]),
        groups: *rng.fork("groups").pick(&[0, 0, 0, 50]),
        inbox: *rng.pick(&[32, 128, NEWS_QUEUE]),
        role: ROLES[rng.index(ROLES.len())],
    }
}

fn master_config(rng: &mut Rng) -> Config {
    let seconds = Duration::from_secs;
    Config {
        offer_timeout: rng.skewed(seconds(5), seconds(300)),
        ping_interval: rng.skewed(seconds(1), seconds(15)),
        ping_misses_max: u32::try_from(rng.between(2, 5)).expect("at most 5"),
        slave_reregister_timeout: rng.skewed(seconds(5), seconds(600)),
        allocation_delay: match rng.percent(25) {
            true => Duration::ZERO,
            false => rng.skewed(Duration::from_millis(1), Duration::from_millis(100)),
        },
        ..Config::default()
    }
}

/// How resources are divided: as it is set by default, most of the time.
fn policy(rng: &mut Rng) -> Policy {
    let mut policy = Policy::default();
    if rng.percent(20) {
        policy.sorter = Sorter::WeightedRandom { seed: rng.next() };
    }
    if rng.percent(20) {
        policy.excluded_names = vec![ResourceName::MEM];
    }
    if rng.percent(20) {
        policy.minimum = Minimum { any_of: Vec::new() };
    }
    // Real masters always do.
    policy.shuffle = rng.percent(80).then(|| rng.next());
    policy
}

fn network(rng: &mut Rng) -> NetworkPlan {
    let latency_min = rng.skewed(Duration::from_micros(50), Duration::from_millis(10));
    NetworkPlan {
        latency_min,
        latency_max: latency_min * u32::try_from(rng.between(2, 50)).expect("at most 50"),
        idle_timeout: rng.skewed(Duration::from_secs(3), Duration::from_secs(30)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_stands_for_one_plan_and_seeds_differ() {
        let draw = |seed| format!("{:?}", Plan::draw(seed, &Bounds::default()));
        assert_eq!(draw(1), draw(1));
        assert_ne!(draw(1), draw(2));
    }

    #[test]
    fn resources_are_divided_in_every_way() {
        let drawn = (0..100).map(|seed| Plan::draw(seed, &Bounds::default()).master.policy);
        let drawn: Vec<Policy> = drawn.collect();
        let default = Policy::default();
        let differs: [fn(&Policy, &Policy) -> bool; 4] = [
            |a, b| a.sorter != b.sorter,
            |a, b| a.excluded_names != b.excluded_names,
            |a, b| a.minimum != b.minimum,
            |a, b| a.shuffle != b.shuffle,
        ];
        for (number, differs) in differs.iter().enumerate() {
            let count = drawn.iter().filter(|it| differs(it, &default)).count();
            assert!((5..95).contains(&count), "{number}: {count} of 100");
        }
    }
}
