//! How things stand in a datacenter under test.

use std::collections::BTreeSet;

use meros_proto::ids::{FrameworkId, SlaveId, TaskId};
use meros_proto::offer::Offer;
use meros_proto::refusal::Refusal;
use meros_proto::resources::Resources;
use meros_proto::status::TaskState;
use meros_sdk_core::EndReason;

use super::{Datacenter, GuestId};

/// A task of a framework under test, as everybody sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaskView {
    /// Its id.
    pub task_id: TaskId,
    /// Where it was launched; empty if that is not known.
    pub hostname: String,
    /// As its framework was told last; [`TaskState::Staging`] until then.
    pub told: TaskState,
    /// As the leading master has it; none if it has forgotten the task, or nobody leads.
    pub master: Option<TaskState>,
    /// Whether its container is there, and runs or is about to.
    pub runs: bool,
}

/// A slave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SlaveView {
    /// The name of its host.
    pub hostname: String,
    /// None while it is down, or was never admitted.
    pub slave_id: Option<SlaveId>,
    /// All that it has.
    pub resources: Resources,
    /// What tasks take of it.
    pub used: Resources,
    /// Whether its process is there.
    pub is_up: bool,
    /// Whether it takes itself for a member of the cluster.
    pub is_registered: bool,
}

impl Datacenter {
    /// All tasks that a framework has launched or was told of, by their ids.
    #[must_use]
    pub fn tasks(&self, guest: GuestId) -> Vec<TaskView> {
        let framework_id = self.framework_id(guest);
        let containers: BTreeSet<TaskId> = framework_id
            .map(|id| self.world.containers(id))
            .into_iter()
            .flatten()
            .map(|(task, _)| task)
            .collect();
        let masters = framework_id.and_then(|id| self.world.masters_tasks(id));
        let of_master = |task: &TaskId| masters.as_ref()?.get(task).copied();
        let guest = self.guest(guest);
        guest
            .tasks
            .iter()
            .map(|(task_id, task)| TaskView {
                task_id: task_id.clone(),
                hostname: task.hostname.clone(),
                told: task.state,
                master: of_master(task_id),
                runs: containers.contains(task_id),
            })
            .collect()
    }

    /// All slaves, in their order.
    #[must_use]
    pub fn slaves(&self) -> Vec<SlaveView> {
        let (_, slaves, _) = self.world.sizes();
        let view = |slave: usize| SlaveView {
            hostname: hostname(slave),
            slave_id: self.world.slave_id(slave),
            resources: self.world.slave_resources(slave).clone(),
            used: self.world.slave_used(slave),
            is_up: self.world.slave_is_up(slave),
            is_registered: self.world.slave_is_registered(slave),
        };
        (0..slaves).map(view).collect()
    }

    /// The offers that a framework was told of and may use still.
    #[must_use]
    pub fn offers(&self, guest: GuestId) -> Vec<Offer> {
        self.guest(guest).offers.values().cloned().collect()
    }

    /// The calls of a framework that were refused, by their names, and why.
    #[must_use]
    pub fn refusals(&self, guest: GuestId) -> Vec<(String, Refusal)> {
        self.guest(guest).refusals.clone()
    }

    /// The id of a framework, once it has one.
    #[must_use]
    pub fn framework_id(&self, guest: GuestId) -> Option<FrameworkId> {
        self.world.framework_id(self.guests[guest.0].at)
    }

    /// Whether the subscription of a framework holds, as far as it was told.
    #[must_use]
    pub fn is_subscribed(&self, guest: GuestId) -> bool {
        let is_up = self.world.framework_is_up(self.guests[guest.0].at);
        is_up && self.guest(guest).is_subscribed
    }

    /// Why the session of a framework has ended, if it has.
    #[must_use]
    pub fn ended(&self, guest: GuestId) -> Option<EndReason> {
        self.guest(guest).ended.clone()
    }

    /// Whether a master leads and all slaves are members.
    #[must_use]
    pub fn is_up(&self) -> bool {
        let (_, slaves, _) = self.world.sizes();
        let mut all = 0..slaves;
        self.world.leader().is_some() && all.all(|slave| self.world.slave_is_registered(slave))
    }

    /// The place of a slave.
    pub(super) fn slave(&self, name: &str) -> usize {
        let (_, slaves, _) = self.world.sizes();
        let found = (0..slaves).find(|slave| hostname(*slave) == name);
        found.unwrap_or_else(|| {
            panic!(
                "there is no slave {name:?}: they are host0 to host{}",
                slaves - 1
            )
        })
    }

    /// What is not in order yet: a slave that is not back, a framework and its tasks of which the
    /// driver, the leading master and the slaves think differently. Empty in a cluster at rest.
    #[must_use]
    pub fn unsettled(&self) -> Vec<String> {
        let mut found = Vec::new();
        if self.world.leader().is_none() {
            found.push("nobody leads".to_owned());
        }
        for slave in self.slaves() {
            let what = match (slave.is_up, slave.is_registered) {
                (false, _) => "down",
                (true, false) => "not registered",
                (true, true) => continue,
            };
            found.push(format!("{} is {what}", slave.hostname));
        }
        for number in 0..self.guests.len() {
            self.unsettled_of(GuestId(number), &mut found);
        }
        found
    }

    fn unsettled_of(&self, id: GuestId, found: &mut Vec<String>) {
        let place = &self.guests[id.0];
        let (name, guest) = (&place.name, place.guest.borrow());
        let Some(framework_id) = self.framework_id(id) else {
            if guest.ended.is_none() {
                found.push(format!("{name} was never subscribed"));
            }
            return;
        };
        let containers = self.world.containers(framework_id);
        match &guest.ended {
            // Its tasks are nobody's concern until it comes back, which it does not here.
            Some(EndReason::Left) => return,
            Some(_) => {
                let names = containers.iter().map(|(task, _)| task.to_string());
                found.extend(names.map(|task| format!("{task} of {name} runs after its end")));
                return;
            }
            None if !self.world.framework_is_up(place.at) => {
                found.push(format!("{name} is down"));
                return;
            }
            None if !guest.is_subscribed => found.push(format!("{name} is not subscribed")),
            None => {}
        }
        let present: BTreeSet<SlaveId> = self
            .slaves()
            .iter()
            .filter_map(|slave| slave.slave_id)
            .collect();
        let live: BTreeSet<&TaskId> = guest.live().map(|(task, _)| task).collect();
        let running: BTreeSet<&TaskId> = containers.iter().map(|(task, _)| task).collect();
        for task in running.difference(&live) {
            found.push(format!("{task} runs, and {name} takes it for ended"));
        }
        // A slave that came back as another one is for an operator to declare gone: what was on it
        // stays unreachable until then.
        let given_up = |task: &TaskId| {
            let task = &guest.tasks[task];
            task.state == TaskState::Unreachable
                && task.slave_id.is_some_and(|id| !present.contains(&id))
        };
        for task in live.difference(&running).filter(|task| !given_up(task)) {
            found.push(format!("{name} waits for {task}, which does not run"));
        }
        if containers.len() > running.len() {
            found.push(format!("a task of {name} runs twice"));
        }
        if self.world.drivers_tasks(place.at) != live.len() {
            found.push(format!(
                "the driver of {name} waits for other tasks than {name}"
            ));
        }
        let masters = self.world.masters_tasks(framework_id).unwrap_or_default();
        for task in masters.keys().filter(|task| !live.contains(task)) {
            found.push(format!(
                "the master holds {task}, and {name} takes it for ended"
            ));
        }
        let unknown = live.iter().filter(|task| !masters.contains_key(**task));
        for task in unknown.filter(|task| !given_up(task)) {
            found.push(format!(
                "{name} waits for {task}, which the master does not know"
            ));
        }
    }
}

/// The name of a host, as the world gives it.
pub(super) fn hostname(slave: usize) -> String {
    format!("host{slave}")
}
