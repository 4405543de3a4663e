//! The end of a run: the faults are over, everything must come to its end, and all that the slaves
//! have must be on offer again.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use meros_proto::ids::{FrameworkId, SlaveId, TaskId};
use meros_proto::resources::{Resources, Value};
use meros_proto::slave::SlaveState;
use meros_proto::status::TaskState;
use meros_sdk_core::Call;

use super::framework::Mind;
use super::{Happening, Node, World};
use crate::invariants::converged::Unfinished;
use crate::invariants::fits::Fits;
use crate::invariants::{Broken, guarantees, offers_return};
use crate::plan::FrameworkPlan;

/// How long services run on after the faults.
const DRAIN_AFTER: Duration = Duration::from_secs(60);
pub(super) const OPERATE_EVERY: Duration = Duration::from_secs(10);
const WATCH_EVERY: Duration = Duration::from_secs(5);
/// How long the last framework has to be offered everything: a dial, a subscription, a round.
const PROBE_TIME: Duration = Duration::from_secs(60);
/// An offer that has just timed out is made again in a moment.
const JUDGEMENTS_MAX: u32 = 10;
const JUDGE_AGAIN: Duration = Duration::from_millis(1_370);

impl World {
    pub(super) fn heal(&mut self) -> Result<(), Broken> {
        self.end_faults();
        self.healed_at = Some(self.now);
        self.trace.line(|| "the faults are over".to_owned());
        for at in 0..self.frameworks.len() {
            if matches!(self.frameworks[at].mind, Mind::Nonsense(_)) {
                self.retire_framework(at);
            }
        }
        self.after(DRAIN_AFTER, Happening::Drain);
        self.after(OPERATE_EVERY, Happening::Operate);
        self.after(WATCH_EVERY, Happening::Watch);
        Ok(())
    }

    pub(super) fn drain(&mut self) {
        for at in 0..self.frameworks.len() {
            self.drain_framework(at);
        }
    }

    pub(super) fn watch(&mut self) -> Result<(), Broken> {
        let unfinished = self.unfinished();
        if unfinished.is_empty() {
            return self.probe();
        }
        let healed_at = self.healed_at.expect("watched only after the faults");
        if self.now.since(healed_at) > self.plan.patience {
            return unfinished.check_nothing();
        }
        self.after(WATCH_EVERY, Happening::Watch);
        Ok(())
    }

    /// All others leave, and the last framework comes.
    fn probe(&mut self) -> Result<(), Broken> {
        self.trace
            .line(|| "everything has come to its end".to_owned());
        for at in 0..self.frameworks.len() {
            if matches!(self.frameworks[at].mind, Mind::Workload(_)) {
                self.call(at, vec![Call::Leave])?;
            }
        }
        self.send_last(&FrameworkPlan::Probe);
        Ok(())
    }

    /// A framework of this kind starts, and is judged after a while.
    fn send_last(&mut self, kind: &FrameworkPlan) {
        let kind = std::mem::discriminant(kind);
        let mut kinds = self.plan.frameworks.iter().map(std::mem::discriminant);
        let at = kinds.position(|it| it == kind).expect("plans have one");
        self.last = Some(at);
        self.judgements = 0;
        self.after(Duration::ZERO, Happening::Start(Node::Framework(at)));
        self.after(PROBE_TIME, Happening::Judge);
    }

    pub(super) fn judge(&mut self) -> Result<(), Broken> {
        self.judgements += 1;
        let has = self.present_slaves();
        let node = self.last.map(|at| &self.frameworks[at].mind);
        let Some(Mind::Probe(last)) = node else {
            unreachable!("nobody else is judged");
        };
        let verdict = match &self.promised {
            None => offers_return::check_returned(&has, &last.offered()),
            Some(quota) => guarantees::check_met(quota, &sum(last.offered().values())),
        };
        // Offers time out and commits are on their way at any moment.
        let is_quiet = verdict.is_ok() && self.unfinished().is_empty();
        if !is_quiet && self.judgements < JUDGEMENTS_MAX {
            self.after(JUDGE_AGAIN, Happening::Judge);
            return Ok(());
        }
        verdict?;
        self.unfinished().check_nothing()?;
        self.is_over = self.promised.is_some();
        if !self.is_over {
            // The probe keeps what it has; the creditor comes and is owed its part of that.
            self.promise_half(&sum(has.values()))?;
            self.send_last(&FrameworkPlan::Creditor);
        }
        Ok(())
    }

    fn present_slaves(&self) -> BTreeMap<SlaveId, Resources> {
        self.slaves
            .iter()
            .filter_map(|node| {
                let identity = node.core.as_ref()?.identity()?;
                Some((identity.slave_id, node.resources().clone()))
            })
            .collect()
    }

    fn unfinished(&self) -> Unfinished {
        let mut unfinished = Unfinished::default();
        let present = self.present_slaves();
        self.unfinished_slaves(&present, &mut unfinished.others);
        // A slave that has left without a word is for an operator to declare gone, and none does here:
        // tasks there stay unreachable for ever.
        let is_given_up = |slave: Option<SlaveId>| {
            slave.is_some_and(|id| {
                !present.contains_key(&id) && self.log.registry().slave(id).is_some()
            })
        };
        let mut awaited: BTreeSet<(FrameworkId, &TaskId)> = BTreeSet::new();
        for (at, node) in self.frameworks.iter().enumerate() {
            let Mind::Workload(worker) = &node.mind else {
                continue;
            };
            let live = || worker.app.live().filter(|(_, it)| !is_given_up(it.slave));
            unfinished
                .tasks
                .extend(live().map(|(task, _)| task.clone()));
            awaited.extend(
                node.framework_id
                    .iter()
                    .flat_map(|id| live().map(|(task, _)| (*id, task))),
            );
            if node.is_over {
                continue;
            }
            if !worker.app.has_launched_all() {
                unfinished
                    .others
                    .push(format!("framework {at} has not launched all its tasks"));
            }
            // What a leader remembers of a slave that never comes back may be older than what its framework
            // has heard: there a driver asks on, and the application does not.
            let of_driver = worker.driver.as_ref().map_or(usize::MAX, |driver| {
                driver
                    .live()
                    .filter(|(_, slave)| !is_given_up(*slave))
                    .count()
            });
            if of_driver > live().count() {
                unfinished.others.push(format!(
                    "the driver of framework {at} waits for {of_driver} tasks"
                ));
            }
        }
        for (at, node) in self.slaves.iter().enumerate() {
            for (container, key) in node.running() {
                let ghost = format!("{container} of {} {} on slave {at}", key.0, key.1);
                match awaited.contains(&(key.0, &key.1)) {
                    true => unfinished.others.push(ghost),
                    false => unfinished.ghosts.push(ghost),
                }
            }
        }
        let leader = self.log.leader().map(|at| &self.masters[at]);
        let reading = leader.map(|node| &node.reading.fits);
        for (framework, task, slave, state) in reading.into_iter().flat_map(Fits::tasks) {
            if state != TaskState::Unreachable && !is_given_up(Some(slave)) {
                unfinished
                    .others
                    .push(format!("the master holds {task} of {framework} as {state}"));
            }
        }
        unfinished
    }

    fn unfinished_slaves(&self, present: &BTreeMap<SlaveId, Resources>, others: &mut Vec<String>) {
        for (at, node) in self.slaves.iter().enumerate() {
            let Some(core) = &node.core else {
                others.push(format!("slave {at} is down"));
                continue;
            };
            if !core.is_registered() {
                others.push(format!("slave {at} is not registered"));
            }
            if core.updates_pending() > 0 {
                others.push(format!("slave {at} has updates that nobody acknowledges"));
            }
            if core.free() != node.resources() {
                others.push(format!("slave {at} has only {} free", core.free()));
            }
        }
        let leader = self.log.leader().map(|at| &self.masters[at]);
        let reading = leader.map(|node| &node.reading.fits);
        for (id, state, resources) in reading.into_iter().flat_map(Fits::slaves) {
            if let Some(has) = present.get(&id).filter(|has| *has != resources) {
                others.push(format!("{id} has {has}, the master holds {resources}"));
            }
            let expected = match present.contains_key(&id) {
                true => SlaveState::Registered,
                false => SlaveState::Unreachable,
            };
            if state != expected {
                others.push(format!("the master holds {id} as {}", state.name()));
            }
        }
        let quotas = self.log.registry().quotas();
        if !quotas.is_empty() && self.promised.is_none() {
            others.push("a role has a quota".to_owned());
        }
        if !self.log.registry().minimums().is_empty() {
            others.push("a role has a minimum".to_owned());
        }
        if leader.is_none_or(|node| node.term != Some(self.log.term())) {
            others.push("nobody leads".to_owned());
        }
        for (at, node) in self.masters.iter().enumerate() {
            if node.core.is_none() || node.disk != *self.log.registry() {
                others.push(format!("master {at} has not applied what is committed"));
            }
        }
    }
}

fn sum<'a>(parts: impl Iterator<Item = &'a Resources>) -> Resources {
    let mut sum = Resources::new();
    for part in parts {
        // Ports of several slaves have the same numbers; only amounts are asked for.
        sum.checked_add_assign(&part.filter(|it| matches!(it.value(), Value::Scalar(_))))
            .expect("small amounts");
    }
    sum
}
