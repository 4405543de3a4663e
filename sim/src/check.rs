//! Runs of one seed or many, and what they found.

use std::collections::BTreeMap;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use crate::fault::Fault;
use crate::invariants::Broken;
use crate::plan::{Bounds, Plan};
use crate::world::World;

/// Runs spent on shrinking the faults of one seed: each fault is tried at most a few times.
const SHRINK_RUNS_MAX: usize = 60;
/// Failures of one check whose faults are shrunk: more are rarely looked at.
const SHRUNK_MAX: usize = 2;

/// Lines on how a failure came about.
const LINES_MAX: usize = 60;

/// What one run has shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// The seed.
    pub seed: u64,
    /// The same for two runs in which the same happened in the same order.
    pub hash: u64,
    /// How many things happened.
    pub steps: u64,
    /// How much virtual time passed.
    pub elapsed: Duration,
    /// How often which fault or rare event was met.
    pub met: BTreeMap<&'static str, u64>,
    /// What went wrong, if anything.
    pub broken: Option<Broken>,
    /// What happened last; empty unless it was asked for.
    pub lines: Vec<String>,
}

/// A seed that broke something.
#[derive(Debug, Clone)]
pub struct Failure {
    /// The first run.
    pub outcome: Outcome,
    /// The faults that are enough to break it, and how, in text.
    pub faults: Vec<String>,
    /// What happened last in the run with those faults.
    pub lines: Vec<String>,
    /// The command that runs it again.
    pub replay: String,
}

/// What many runs have shown.
#[derive(Debug, Clone, Default)]
pub struct Report {
    /// How many seeds were run.
    pub seeds: u64,
    /// How many things happened in all of them.
    pub steps: u64,
    /// How much virtual time passed in all of them.
    pub elapsed: Duration,
    /// How often which fault or rare event was met in all of them.
    pub met: BTreeMap<&'static str, u64>,
    /// Those that broke something.
    pub failures: Vec<Failure>,
}

/// Runs `seeds` seeds from `start`. At the first `failures_max` that break something it stops.
/// `progress` hears of each outcome.
#[must_use]
pub fn check(
    start: u64,
    seeds: u64,
    bounds: &Bounds,
    failures_max: usize,
    mut progress: impl FnMut(&Outcome),
) -> Report {
    let mut report = Report::default();
    for seed in start..start.saturating_add(seeds) {
        let outcome = replay(seed, bounds, 0);
        report.seeds += 1;
        report.steps += outcome.steps;
        report.elapsed += outcome.elapsed;
        for (what, count) in &outcome.met {
            *report.met.entry(what).or_default() += count;
        }
        progress(&outcome);
        if outcome.broken.is_some() {
            let shrinks = report.failures.len() < SHRUNK_MAX;
            report.failures.push(explain(outcome, bounds, shrinks));
            if report.failures.len() >= failures_max {
                break;
            }
        }
    }
    report
}

/// Runs one seed, and keeps up to `lines_max` lines on what happened last.
#[must_use]
pub fn replay(seed: u64, bounds: &Bounds, lines_max: usize) -> Outcome {
    run(Plan::draw(seed, bounds), lines_max)
}

fn run(plan: Plan, lines_max: usize) -> Outcome {
    let seed = plan.seed;
    let mut world = World::new(plan, lines_max);
    // The cores assert what they hold for impossible; for us that is a finding like any other.
    let broken = match catch_unwind(AssertUnwindSafe(|| world.run())) {
        Ok(result) => result.err(),
        Err(panic) => {
            let text = panic
                .downcast_ref::<String>()
                .map(String::as_str)
                .or_else(|| panic.downcast_ref::<&str>().copied());
            let what = text.unwrap_or("panicked without a text").to_owned();
            Some(Broken { id: "panic", what })
        }
    };
    Outcome {
        seed,
        hash: world.hash(),
        steps: world.steps(),
        elapsed: world.elapsed(),
        met: world.met(),
        broken,
        lines: world.lines(),
    }
}

/// Finds faults that are enough, by leaving out one after the other.
fn explain(outcome: Outcome, bounds: &Bounds, shrinks: bool) -> Failure {
    let mut plan = Plan::draw(outcome.seed, bounds);
    let id = outcome.broken.as_ref().map(|broken| broken.id);
    let mut runs = 0;
    let mut at = 0;
    while shrinks && at < plan.faults.len() && runs < SHRINK_RUNS_MAX {
        let mut fewer = plan.clone();
        fewer.faults.remove(at);
        runs += 1;
        if run(fewer.clone(), 0).broken.map(|broken| broken.id) == id {
            plan = fewer;
        } else {
            at += 1;
        }
    }
    let faults = plan.faults.iter().map(Fault::to_string).collect();
    let last = run(plan, LINES_MAX);
    let seed = outcome.seed;
    Failure {
        faults,
        lines: last.lines,
        replay: format!("meros sim replay {seed}"),
        outcome,
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Outcome { seed, broken, .. } = &self.outcome;
        match broken {
            Some(broken) => writeln!(f, "seed {seed}: {broken}")?,
            None => writeln!(f, "seed {seed}: nothing is broken")?,
        }
        writeln!(f, "enough to break it:")?;
        self.faults
            .iter()
            .try_for_each(|fault| writeln!(f, "  {fault}"))?;
        writeln!(f, "what happened last:")?;
        self.lines
            .iter()
            .try_for_each(|line| writeln!(f, "  {line}"))?;
        write!(f, "replay: {}", self.replay)
    }
}

#[cfg(test)]
mod tests;
