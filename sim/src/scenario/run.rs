//! One run of a scenario.

use std::path::PathBuf;
use std::time::Duration;

use super::file::Scenario;
use super::meter::{Meter, Stopwatch, cpu_nanos};
use super::plan::Setting;
use super::record::Record;
use super::report::Report;
use super::trace::{TraceError, Traces};
use super::variant::Variant;
use crate::invariants::Broken;
use crate::world::World;

/// Between two looks at the progress.
const STEPS_PER_LOOK: u64 = 8_192;

/// What is changed of a scenario for one run.
#[derive(Debug, Clone)]
pub struct RunOptions {
    /// Instead of the scenario's own.
    pub seed: Option<u64>,
    /// Slaves and arrivals are multiplied by this. Default 1; above 0.
    pub scale: f64,
    /// Whether invariants are checked after every event, which takes most of the time. Default no.
    pub checks: bool,
    /// The folder with the traces that the scenario names.
    pub traces: Option<PathBuf>,
}

impl Default for RunOptions {
    fn default() -> Self {
        Self {
            seed: None,
            scale: 1.0,
            checks: false,
            traces: None,
        }
    }
}

/// How far a run has come.
#[derive(Debug, Clone, Copy)]
pub struct Progress {
    /// Simulated time that has passed.
    pub simulated: Duration,
    /// Simulated time in all.
    pub duration: Duration,
    /// How many things have happened.
    pub steps: u64,
}

/// Why a run did not come to its end.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// A trace cannot be used.
    #[error(transparent)]
    Trace(#[from] TraceError),
    /// An invariant does not hold: a bug.
    #[error("after {simulated:?} of simulated time")]
    Broken {
        /// When.
        simulated: Duration,
        /// What.
        source: Broken,
    },
}

/// What a run has shown.
#[derive(Debug)]
pub(crate) struct Outcome {
    /// The same for two runs in which the same happened in the same order.
    pub(crate) hash: u64,
    /// How many things happened.
    pub(crate) steps: u64,
    pub(crate) setting: Setting,
    pub(crate) meter: Box<Meter>,
    /// By group, in the order of the scenario.
    pub(crate) groups: Vec<Group>,
    /// By the framework's place in the plan.
    pub(crate) weights: Vec<f64>,
    /// Simulated time in all.
    pub(crate) duration: Duration,
    /// Real time of the run, in nanoseconds.
    pub(crate) nanos: u64,
    /// What it took of a processor, where the system tells.
    pub(crate) cpu_nanos: Option<u64>,
}

/// The frameworks of one group.
#[derive(Debug, Clone, Default)]
pub(crate) struct Group {
    pub(crate) name: String,
    /// Their places in the plan.
    pub(crate) places: Vec<usize>,
    pub(crate) record: Record,
}

/// Runs a scenario to its end and reports. `progress` hears now and then how far it has come.
///
/// # Errors
/// A trace cannot be used, or an invariant does not hold.
pub fn run(
    variant: &Variant,
    options: &RunOptions,
    progress: impl FnMut(Progress),
) -> Result<Report, RunError> {
    let outcome = measure(&variant.scenario, options, progress)?;
    Ok(Report::new(variant, &outcome))
}

/// Runs a scenario to its end. `progress` hears now and then how far it has come.
///
/// # Errors
/// A trace cannot be used, or an invariant does not hold.
fn measure(
    scenario: &Scenario,
    options: &RunOptions,
    mut progress: impl FnMut(Progress),
) -> Result<Outcome, RunError> {
    let setting = Setting {
        seed: options.seed.unwrap_or(scenario.file.seed),
        scale: options.scale,
        checks: options.checks,
    };
    let traces = Traces::new(options.traces.as_deref());
    let (plan, group_of) = scenario.file.plan(setting, &traces)?;
    let duration = scenario.file.duration.get_ref().0;
    let watch = Stopwatch::start(true);
    let cpu_before = cpu_nanos();
    let mut world = World::new(plan, 0);
    loop {
        let goes_on = world.advance().map_err(|source| RunError::Broken {
            simulated: world.elapsed(),
            source,
        })?;
        if !goes_on {
            break;
        }
        if world.steps().is_multiple_of(STEPS_PER_LOOK) {
            progress(Progress {
                simulated: world.elapsed(),
                duration,
                steps: world.steps(),
            });
        }
    }
    let (hash, steps) = (world.hash(), world.steps());
    let (meter, records) = world.into_measurements().expect("a scenario is measured");
    let mut groups: Vec<Group> = scenario
        .file
        .frameworks
        .keys()
        .map(|name| Group {
            name: name.to_string(),
            ..Group::default()
        })
        .collect();
    let parts: Vec<_> = scenario.file.frameworks.values().collect();
    let weight = |group: &usize| {
        parts[*group]
            .weight
            .as_ref()
            .map_or(1.0, |it| it.get_ref().0)
    };
    let weights = group_of.iter().map(weight).collect();
    for (place, (record, group)) in records.iter().zip(group_of).enumerate() {
        groups[group].places.push(place);
        groups[group].record.merge(record);
    }
    Ok(Outcome {
        hash,
        steps,
        setting,
        meter,
        groups,
        weights,
        duration,
        nanos: watch.nanos(),
        cpu_nanos: cpu_nanos()
            .zip(cpu_before)
            .map(|(after, before)| after - before),
    })
}
