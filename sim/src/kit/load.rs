//! Frameworks of the simulator's own that compete with the ones under test.

use std::sync::Arc;
use std::time::Duration;

use meros_proto::resources::Resources;
use meros_proto::role::RoleName;

use crate::scenario::{Arrivals, JobsPlan, OfferPolicy, Runs, WorkPlan};

/// From an order to the first process of one of its tasks.
const START: Duration = Duration::from_millis(50);
const REFUSE: Duration = Duration::from_secs(5);
const TASKS_PER_OFFER: usize = 1_000;

/// A framework that is there to take resources: its tasks come, wait for offers, run and end.
///
/// ```
/// use std::time::Duration;
/// use meros_sim::kit::Load;
/// // Two tasks a second, half a minute each: 60 cpus, if there are so many.
/// let batch = Load::new("batch", "cpus:1;mem:128")
///     .arrive(2.0)
///     .run_for(Duration::from_secs(30));
/// ```
#[derive(Debug, Clone)]
pub struct Load {
    name: String,
    role: RoleName,
    resources: Resources,
    arrivals: Arrivals,
    runs: Runs,
    hoards: bool,
}

impl Load {
    /// One task that takes these resources and runs until the test ends, for the role `*`.
    ///
    /// # Panics
    /// These are no resources, or the name has other characters than letters, digits and dashes.
    #[must_use]
    #[track_caller]
    pub fn new(name: &str, task: &str) -> Self {
        let is_plain = |c: char| c.is_ascii_alphanumeric() || c == '-';
        assert!(
            !name.is_empty() && name.chars().all(is_plain),
            "a load is named by letters, digits and dashes, not {name:?}"
        );
        let resources = task
            .parse()
            .unwrap_or_else(|error| panic!("{task:?} are no resources: {error}"));
        Self {
            name: name.to_owned(),
            role: RoleName::any(),
            resources,
            arrivals: Arrivals::Start { count: 1 },
            runs: Runs::Forever,
            hoards: false,
        }
    }

    /// The role whose offers it uses.
    ///
    /// # Panics
    /// This is no role.
    #[must_use]
    #[track_caller]
    pub fn role(self, role: &str) -> Self {
        let role = role
            .parse()
            .unwrap_or_else(|error| panic!("{role:?} is no role: {error}"));
        Self { role, ..self }
    }

    /// So many tasks at the beginning.
    #[must_use]
    pub fn start(self, count: u32) -> Self {
        let arrivals = Arrivals::Start { count };
        Self { arrivals, ..self }
    }

    /// Tasks that come one by one, so many a second on average.
    ///
    /// # Panics
    /// Not above 0, or more than 10,000.
    #[must_use]
    #[track_caller]
    pub fn arrive(self, per_second: f64) -> Self {
        assert!(
            per_second > 0.0 && per_second <= 10_000.0,
            "{per_second} tasks a second: above 0, and at most 10,000, are possible"
        );
        let arrivals = Arrivals::Poisson { per_second };
        Self { arrivals, ..self }
    }

    /// Each runs for so long. Default: until the test ends.
    #[must_use]
    pub fn run_for(self, runs: Duration) -> Self {
        let runs = Runs::Fixed(runs);
        Self { runs, ..self }
    }

    /// It keeps offers that it has no use for until they are taken back.
    #[must_use]
    pub fn hoard(self) -> Self {
        Self {
            hoards: true,
            ..self
        }
    }

    pub(crate) fn plan(&self) -> JobsPlan {
        JobsPlan {
            name: self.name.clone(),
            role: self.role.clone(),
            policy: OfferPolicy {
                hold: (!self.hoards).then_some(Duration::ZERO),
                refuse: REFUSE,
                suppress: false,
                tasks_per_offer: TASKS_PER_OFFER,
            },
            decision: Duration::ZERO,
            work: vec![WorkPlan {
                arrivals: self.arrivals.clone(),
                resources: Arc::new(self.resources.clone()),
                runs: self.runs.clone(),
                fails_ppm: 0,
                start: START,
            }],
        }
    }
}
