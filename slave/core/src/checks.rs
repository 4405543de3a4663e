//! Checks of tasks that run: when to probe, what to make of what was found, and when a task is killed
//! for it (semantics M8).
//!
//! ```text
//!            delay                  found, or overdue
//! started ──────────► waiting ──due──► probing ──────► waiting (interval) ─► …
//!                        └── the task ends or is killed: no more ──┘
//! ```
//! A framework is told of changes only, and of one at a time: while an update about a check waits for its
//! acknowledgement no other is made, and then the newest result counts. So a check that flaps, or a
//! framework that is away, costs one place in the stream of the task's updates.
//!
//! Invariants: S30 each check of a task that runs and is not being ended has a deadline, and no other has;
//! S31 of the updates of a task that wait at most one is about its checks.
//!
//! What is known of checks is not checkpointed beyond the updates: a slave that starts anew probes at once,
//! counts failures from zero, and tells the first result again.

use std::time::Duration;

use meros_proto::check::{CheckStatus, HealthCheck, Probe};
use meros_proto::status::{Reason, TaskState, TaskStatus};
use meros_proto::task::TaskDescription;
use meros_proto::time::Timestamp;
use tracing::{debug, info};

use crate::event::{CheckPurpose, Found, ProbeId};
use crate::groups::group_key;
use crate::task::{Cause, Phase, Task};
use crate::timers::Due;
use crate::{Effect, Effects, SlaveCore, TaskKey};

/// A shell that has no place for a probe answers after the timeout, one that has after another. Who is
/// later than this beyond both is not waited for.
const ANSWER_SLACK: Duration = Duration::from_secs(10);

/// What is known of the checks of one task.
#[derive(Debug, Default)]
pub(crate) struct Checks {
    health: Option<Checking>,
    readiness: Option<Checking>,
    told: Results,
}

/// What a framework hears of checks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Results {
    healthy: Option<bool>,
    check: Option<CheckStatus>,
}

impl Results {
    fn of(status: &TaskStatus) -> Self {
        Self {
            healthy: status.healthy,
            check: status.check_status,
        }
    }
}

/// One check under way.
#[derive(Debug)]
struct Checking {
    /// Failures count from then on, if it has not passed before: the end of the grace period.
    counts_from: Timestamp,
    /// The number of the newest probe.
    probe: u64,
    /// Whether that one has not answered yet.
    is_probing: bool,
    /// Then failures count, also within the grace period.
    has_passed: bool,
    /// One after the other, up to now.
    failures: u32,
    /// Of a health check, once it counts.
    healthy: Option<bool>,
    status: CheckStatus,
    /// Why the latest failed.
    message: String,
}

impl Checking {
    fn new(probe: &Probe) -> Self {
        Self {
            counts_from: Timestamp::default(),
            probe: 0,
            is_probing: false,
            has_passed: false,
            failures: 0,
            healthy: None,
            status: CheckStatus::none_of(probe),
            message: String::new(),
        }
    }

    /// Takes in a result.
    fn take(&mut self, found: Found) {
        self.status = found.status;
        self.message = found.message;
    }

    /// Counts the latest result of a health check. True if the task is to be killed for it.
    fn count(&mut self, health: &HealthCheck, now: Timestamp) -> bool {
        if self.status.is_passed() {
            self.has_passed = true;
            self.failures = 0;
            self.healthy = Some(true);
            return false;
        }
        if !self.has_passed && now < self.counts_from {
            return false;
        }
        self.failures = self.failures.saturating_add(1);
        self.healthy = Some(false);
        self.failures >= health.consecutive_failures
    }
}

impl Checks {
    /// Of a task that has not started.
    pub(crate) fn of(task: &TaskDescription) -> Self {
        // An executor checks its tasks itself.
        let is_ours = task.command.is_some();
        let health = task.health_check.as_ref().filter(|_| is_ours);
        let check = task.check.as_ref().filter(|_| is_ours);
        Self {
            health: health.map(|health| Checking::new(&health.check.probe)),
            readiness: check.map(|check| Checking::new(&check.probe)),
            told: Results::default(),
        }
    }

    /// Takes up what an earlier life has told last and is not acknowledged yet.
    pub(crate) fn resume(&mut self, told: Option<&TaskStatus>) {
        if let (Some(health), Some(told)) = (&mut self.health, told) {
            health.healthy = told.healthy;
            health.has_passed = told.healthy == Some(true);
        }
        if let (Some(readiness), Some(status)) =
            (&mut self.readiness, told.and_then(|told| told.check_status))
        {
            readiness.status = status;
        }
        self.told = self.results();
    }

    fn results(&self) -> Results {
        Results {
            healthy: self.health.as_ref().and_then(|health| health.healthy),
            check: self.readiness.as_ref().map(|readiness| readiness.status),
        }
    }

    fn get_mut(&mut self, purpose: CheckPurpose) -> Option<&mut Checking> {
        match purpose {
            CheckPurpose::Health => self.health.as_mut(),
            CheckPurpose::Readiness => self.readiness.as_mut(),
        }
    }

    /// Puts what is known into a status.
    pub(crate) fn dress(&self, status: &mut TaskStatus) {
        let results = self.results();
        status.healthy = results.healthy;
        status.check_status = results.check;
    }

    /// A status is on its way.
    pub(crate) fn tell(&mut self, status: &TaskStatus) {
        self.told = Results::of(status);
    }

    /// Why a task is killed that has failed its health check.
    pub(crate) fn why_unhealthy(&self) -> String {
        let failed = self.health.as_ref().filter(|health| health.failures > 0);
        // Counted by an earlier life.
        let Some(health) = failed else {
            return "killed because it failed its health check".to_owned();
        };
        let times = match health.failures {
            1 => "once".to_owned(),
            failures => format!("{failures} times in a row"),
        };
        let message = &health.message;
        format!("killed because its health check failed {times}, the last time: {message}")
    }
}

impl SlaveCore {
    /// A task runs, for so long already.
    pub(crate) fn start_checks(&mut self, key: &TaskKey, age: Duration, now: Timestamp) {
        let task = self.tasks.get_mut(key).expect("callers have looked it up");
        for purpose in CheckPurpose::ALL {
            let Some(checking) = task.checks.get_mut(purpose) else {
                continue;
            };
            let check = purpose.of(&task.run.task).expect("it is checked");
            let grace = match (purpose, &task.run.task.health_check) {
                (CheckPurpose::Health, Some(health)) => health.grace_period,
                _ => Duration::ZERO,
            };
            checking.counts_from = now.after(grace.saturating_sub(age));
            let left = check.delay.saturating_sub(age);
            let due = Due::Check(key.clone(), purpose);
            self.timers.set(due, now.after(left));
        }
    }

    /// A task is being ended or has ended: nothing more is probed, and what is still found is ignored.
    pub(crate) fn stop_checks(&mut self, key: &TaskKey) {
        for purpose in CheckPurpose::ALL {
            self.timers.clear(&Due::Check(key.clone(), purpose));
        }
    }

    pub(crate) fn on_check_due(
        &mut self,
        key: &TaskKey,
        purpose: CheckPurpose,
        now: Timestamp,
        effects: &mut Effects,
    ) {
        let task = self
            .tasks
            .get_mut(key)
            .expect("S30: only what runs is checked");
        let (Some(container), Some(checking), Some(check)) = (
            task.container(),
            task.checks.get_mut(purpose),
            purpose.of(&task.run.task),
        ) else {
            return;
        };
        let due = Due::Check(key.clone(), purpose);
        if std::mem::take(&mut checking.is_probing) {
            // Of the shell's making, so it says nothing of the task.
            self.counters.probes_overdue += 1;
            return self.timers.set(due, now.after(check.interval));
        }
        checking.probe += 1;
        checking.is_probing = true;
        let id = ProbeId {
            container,
            purpose,
            number: checking.probe,
        };
        let latest = check.timeout * 2 + ANSWER_SLACK;
        self.timers.set(due, now.after(latest));
        self.counters.probes += 1;
        effects.push(Effect::Probe {
            id,
            probe: Box::new(check.probe.clone()),
            timeout: check.timeout,
        });
    }

    /// None if there was no place for the probe, or nothing could be found out.
    pub(crate) fn on_probed(
        &mut self,
        id: ProbeId,
        found: Option<Found>,
        now: Timestamp,
        effects: &mut Effects,
    ) {
        let Some((key, interval)) = self.expects(id) else {
            self.counters.probes_late += 1;
            return;
        };
        let due = Due::Check(key.clone(), id.purpose);
        self.timers.set(due, now.after(interval));
        let task = self.tasks.get_mut(&key).expect("S5: its container's");
        let checking = task.checks.get_mut(id.purpose).expect("it was probed");
        checking.is_probing = false;
        let Some(found) = found else {
            self.counters.probes_untried += 1;
            return;
        };
        checking.take(found);
        if !checking.status.is_passed() {
            self.counters.probes_failed += 1;
            debug!(framework_id = %key.0, task_id = %key.1, purpose = id.purpose.name(), why = checking.message, "check failed");
        }
        let health = task.run.task.health_check.as_ref();
        let health = health.filter(|_| id.purpose == CheckPurpose::Health);
        let is_fatal = health.is_some_and(|health| checking.count(health, now));
        let grace = task.grace(None);
        self.tell_checks(&key, now, effects);
        if is_fatal {
            info!(framework_id = %key.0, task_id = %key.1, "task fails its health check and is killed");
            self.counters.tasks_unhealthy += 1;
            self.kill(&key, Cause::Unhealthy, grace, now, effects);
        }
    }

    /// The task whose probe this is, if somebody waits for it; and the interval of the check.
    fn expects(&self, id: ProbeId) -> Option<(TaskKey, Duration)> {
        let key = self.containers.get(&id.container)?;
        let task = self.tasks.get(key).filter(|task| is_checked(task))?;
        let checking = match id.purpose {
            CheckPurpose::Health => task.checks.health.as_ref()?,
            CheckPurpose::Readiness => task.checks.readiness.as_ref()?,
        };
        let interval = id.purpose.of(&task.run.task)?.interval;
        let is_newest = checking.is_probing && checking.probe == id.number;
        is_newest.then(|| (key.clone(), interval))
    }

    /// Tells what has changed, unless an update about that is on its way.
    pub(crate) fn tell_checks(&mut self, key: &TaskKey, now: Timestamp, effects: &mut Effects) {
        let Some(task) = self.tasks.get(key).filter(|task| is_checked(task)) else {
            return;
        };
        let (results, told) = (task.checks.results(), task.checks.told);
        let stream = self.streams.get(key);
        let waits = stream.is_some_and(|stream| stream.statuses().any(is_about_checks));
        if results == told || waits {
            return;
        }
        let (reason, checking) = match results.healthy != told.healthy {
            true => (Reason::TaskHealthCheckStatusUpdated, &task.checks.health),
            false => (Reason::TaskCheckStatusUpdated, &task.checks.readiness),
        };
        let message = checking.as_ref().map(|checking| checking.message.clone());
        let mut status = self.living(key, TaskState::Running, now);
        status.reason = Some(reason);
        status.message = message.unwrap_or_default();
        self.update_task(key, status, effects);
    }

    pub(crate) fn check_checks(&self) {
        for (key, task) in &self.tasks {
            for purpose in CheckPurpose::ALL {
                let is_due = self.timers.at(&Due::Check(key.clone(), purpose)).is_some();
                let checking = match purpose {
                    CheckPurpose::Health => &task.checks.health,
                    CheckPurpose::Readiness => &task.checks.readiness,
                };
                let is_on = checking.is_some() && is_checked(task);
                let name = purpose.name();
                assert_eq!(is_due, is_on, "S30: {name} check of {key:?}");
            }
        }
        let is_ours = |key: &TaskKey| {
            let task = self.tasks.get(key);
            task.is_some_and(|task| task.run.task.command.is_some())
        };
        // An executor may say what it likes of its own checks.
        for (key, stream) in self.streams.iter().filter(|(key, _)| is_ours(key)) {
            let about = stream.statuses().filter(|status| is_about_checks(status));
            assert!(about.count() <= 1, "S31: updates of checks of {key:?}");
        }
    }
}

/// Whether probes of it count. Of a member of a group from when all of the group run.
fn is_checked(task: &Task) -> bool {
    let runs = matches!(task.phase, Phase::Running { .. });
    let is_told = group_key(&task.run).is_none() || !task.is_unheard();
    runs && is_told && task.ending.is_none() && !task.abandoned
}

fn is_about_checks(status: &TaskStatus) -> bool {
    let about = [
        Reason::TaskCheckStatusUpdated,
        Reason::TaskHealthCheckStatusUpdated,
    ];
    let reason = status.reason;
    status.state == TaskState::Running && reason.is_some_and(|it| about.contains(&it))
}
