//! What a simulated cluster is made of.

use std::collections::BTreeMap;
use std::time::Duration;

use meros_proto::attribute::Attributes;
use meros_proto::quota::Quota;
use meros_proto::resources::{ResourceName, Resources, Scalar, Value};
use meros_proto::role::RoleName;
use meros_proto::task::TaskDescription;
use meros_sim::kit::{Chance, Datacenter, Load, Setting, TaskRun, TaskRuns};

use super::Cluster;

/// The most slaves: what a master takes.
const SLAVES_MAX: usize = 100_000;

/// An election and registrations take seconds.
const START_MAX: Duration = Duration::from_secs(60);

/// What a simulated cluster is made of: begin with [`Cluster::builder`].
///
/// Texts that cannot be read make the test fail: this is a kit for tests.
#[derive(Debug, Clone)]
#[must_use = "nothing happens before it is started"]
pub struct Builder {
    setting: Setting,
}

impl Builder {
    pub(super) fn new() -> Self {
        Self {
            setting: Setting::default(),
        }
    }

    /// Fixes all chance: latencies, the order of what happens at once, faults that are drawn.
    /// Default 0.
    pub fn seed(mut self, seed: u64) -> Self {
        self.setting.seed = seed;
        self
    }

    /// How many masters there are: 1, 3 or 5. Default 1.
    ///
    /// # Panics
    /// Another number.
    #[track_caller]
    pub fn masters(mut self, count: usize) -> Self {
        assert!(
            matches!(count, 1 | 3 | 5),
            "a cluster has 1, 3 or 5 masters, not {count}"
        );
        self.setting.masters = count;
        self
    }

    /// So many slaves more with these resources, as `cpus:4;mem:1024;ports:[31000-31099]`. Slaves are
    /// named `host0`, `host1`, … in the order in which they are given.
    ///
    /// # Panics
    /// These are no resources, or there are more than 100,000 slaves.
    #[track_caller]
    pub fn slaves(self, count: usize, resources: &str) -> Self {
        self.slaves_with(count, resources, &[])
    }

    /// As [`Builder::slaves`], with attributes.
    ///
    /// # Panics
    /// These are no resources or no attributes, or there are more than 100,000 slaves.
    #[track_caller]
    pub fn slaves_with(
        mut self,
        count: usize,
        resources: &str,
        attributes: &[(&str, &str)],
    ) -> Self {
        let slave = (parse_resources(resources), parse_attributes(attributes));
        let slaves = &mut self.setting.slaves;
        slaves.extend(std::iter::repeat_n(slave, count.min(SLAVES_MAX + 1)));
        let all = slaves.len();
        assert!(
            all <= SLAVES_MAX,
            "a cluster has at most {SLAVES_MAX} slaves"
        );
        self
    }

    /// How tasks behave: asked once for each launch, with chance that the seed and the task's id fix.
    /// Default: each finishes after one to ten seconds.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use meros_sdk::testing::{Cluster, TaskRun};
    /// let second = Duration::from_secs(1);
    /// Cluster::builder().slaves(1, "cpus:4;mem:1024").tasks(move |task, chance| {
    ///     match task.name.as_str() {
    ///         "server" => TaskRun::forever(),
    ///         // One of five fails.
    ///         _ if chance.percent(20) => TaskRun::fails_after(second, 1),
    ///         _ => TaskRun::finishes_after(chance.between(second, second * 60)),
    ///     }
    /// });
    /// ```
    pub fn tasks(
        mut self,
        run_of: impl Fn(&TaskDescription, &mut Chance) -> TaskRun + 'static,
    ) -> Self {
        self.setting.tasks = TaskRuns::new(run_of);
        self
    }

    /// A framework of the simulator's own, which competes for what there is.
    pub fn load(mut self, load: Load) -> Self {
        self.setting.loads.push(load);
        self
    }

    /// The weight of a role: what it is due compared with others. Default 1, at least 0.001.
    ///
    /// # Panics
    /// This is no role or no weight.
    #[track_caller]
    pub fn weight(mut self, role: &str, weight: f64) -> Self {
        let scalar = Scalar::from_f64(weight)
            .ok()
            .filter(|scalar| !scalar.is_zero());
        let scalar = scalar.unwrap_or_else(|| panic!("a weight is at least 0.001, not {weight}"));
        self.setting.weights.insert(parse_role(role), scalar);
        self
    }

    /// The quota of a role: what it is guaranteed and what it is limited to, as `cpus:4;mem:1024`;
    /// either may be empty.
    ///
    /// # Panics
    /// This is no role or no plain amounts, or less is allowed than guaranteed.
    #[track_caller]
    pub fn quota(mut self, role: &str, guarantee: &str, limit: &str) -> Self {
        let (guarantees, limits) = (parse_amounts(guarantee), parse_amounts(limit));
        let is_within = |(name, amount): (&ResourceName, &Scalar)| {
            limits.get(name).is_none_or(|limit| amount <= limit)
        };
        assert!(
            guarantees.iter().all(is_within),
            "{guarantee:?} is guaranteed, and only {limit:?} allowed"
        );
        let quota = Quota { guarantees, limits };
        let role = parse_role(role);
        assert!(!role.is_any(), "`*` is everybody's role and has no quota");
        self.setting.quotas.insert(role, quota);
        self
    }

    /// How long a framework may hold an offer. Default 5 min, as in production.
    pub fn offer_timeout(mut self, timeout: Duration) -> Self {
        self.setting.master.offer_timeout = timeout;
        self
    }

    /// How long a slave that is cut off may take to come back before its tasks are told to be
    /// [unreachable](crate::TaskState::Unreachable). Default 10 min, as in production.
    pub fn slave_reregister_timeout(mut self, timeout: Duration) -> Self {
        self.setting.master.slave_reregister_timeout = timeout;
        self
    }

    /// The cluster starts. When this returns, a master leads and all slaves are registered, and some
    /// seconds of simulated time have passed.
    ///
    /// # Panics
    /// There is no slave.
    #[must_use]
    #[track_caller]
    pub fn start(self) -> Cluster {
        assert!(
            !self.setting.slaves.is_empty(),
            "a cluster has a slave: .slaves(3, \"cpus:4;mem:1024\")"
        );
        let mut cluster = Cluster::new(Datacenter::new(&self.setting));
        cluster.run_until(START_MAX, |cluster| cluster.datacenter.is_up());
        cluster
    }
}

#[track_caller]
fn parse_resources(text: &str) -> Resources {
    match text.parse() {
        Ok(resources) => resources,
        Err(error) => panic!("{text:?} are no resources: {error}"),
    }
}

#[track_caller]
fn parse_attributes(pairs: &[(&str, &str)]) -> Attributes {
    let owned = pairs
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    match Attributes::new(owned.collect()) {
        Ok(attributes) => attributes,
        Err(error) => panic!("{pairs:?} are no attributes: {error}"),
    }
}

#[track_caller]
fn parse_role(text: &str) -> RoleName {
    match text.parse() {
        Ok(role) => role,
        Err(error) => panic!("{text:?} is no role: {error}"),
    }
}

#[track_caller]
fn parse_amounts(text: &str) -> BTreeMap<ResourceName, Scalar> {
    if text.is_empty() {
        return BTreeMap::new();
    }
    let resources = parse_resources(text);
    let amounts = resources.iter().map(|resource| match resource.value() {
        Value::Scalar(amount) => (resource.name().clone(), *amount),
        _ => panic!("{text:?}: a quota is of plain amounts, as cpus:4;mem:1024"),
    });
    amounts.collect()
}
