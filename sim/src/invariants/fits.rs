//! W7: no resource is in two places at once. On a slave, what the containers of its tasks were
//! promised fits what it has; in what the master publishes, offers, tasks and executors of a slave do.

use std::collections::BTreeMap;
use std::sync::Arc;

use meros_proto::ids::{ExecutorId, FrameworkId, OfferId, SlaveId, TaskId};
use meros_proto::resources::Resources;
use meros_proto::role::RoleName;
use meros_proto::slave::SlaveState;
use meros_proto::status::TaskState;
use meros_proto::view::{ClusterChange, ExecutorView};

use super::{Broken, check};

#[derive(Debug)]
struct OfferRow {
    slave: SlaveId,
    role: RoleName,
    resources: Resources,
}

#[derive(Debug)]
struct TaskRow {
    slave: SlaveId,
    role: RoleName,
    state: TaskState,
    resources: Resources,
}

impl TaskRow {
    /// Whether it holds what it was given.
    fn holds(&self) -> bool {
        !self.state.is_terminal() && self.state != TaskState::Unreachable
    }
}

/// What the master has published, as its readers would keep it.
#[derive(Debug, Default)]
pub(crate) struct Fits {
    slaves: BTreeMap<SlaveId, (SlaveState, Resources)>,
    offers: BTreeMap<OfferId, OfferRow>,
    tasks: BTreeMap<(FrameworkId, TaskId), TaskRow>,
    executors: BTreeMap<(SlaveId, FrameworkId, ExecutorId), Arc<ExecutorView>>,
    is_changed: bool,
}

impl Fits {
    pub(crate) fn on_published(&mut self, change: &ClusterChange) {
        self.is_changed = true;
        match change {
            ClusterChange::Elected(_) => *self = Self::default(),
            ClusterChange::Slave(slave) => {
                let row = (slave.state, slave.resources.clone());
                self.slaves.insert(slave.slave_id, row);
            }
            ClusterChange::SlaveRemoved(slave_id) => {
                self.slaves.remove(slave_id);
            }
            // What an earlier leader knew holds nothing here.
            ClusterChange::Framework(_)
            | ClusterChange::Role(_)
            | ClusterChange::TaskRemembered(_)
            | ClusterChange::TaskForgotten { .. } => {}
            ClusterChange::OfferMade(offer) => {
                let row = OfferRow {
                    slave: offer.slave_id,
                    role: offer.role.clone(),
                    resources: offer.resources.clone(),
                };
                self.offers.insert(offer.offer_id, row);
            }
            ClusterChange::OfferEnded { offer_id, .. } => {
                self.offers.remove(offer_id);
            }
            ClusterChange::TaskAdded(task) => {
                let row = TaskRow {
                    slave: task.slave_id,
                    role: task.role.clone(),
                    state: task.state,
                    resources: task.resources.clone(),
                };
                self.tasks
                    .insert((task.framework_id, task.task_id.clone()), row);
            }
            ClusterChange::TaskChanged {
                framework_id,
                task_id,
                state,
                ..
            } => {
                let key = (*framework_id, task_id.clone());
                if let Some(known) = self.tasks.get_mut(&key) {
                    known.state = *state;
                }
            }
            ClusterChange::TaskRemoved {
                framework_id,
                task_id,
            } => {
                self.tasks.remove(&(*framework_id, task_id.clone()));
            }
            ClusterChange::ExecutorAdded(executor) => {
                let id = executor.executor_id.clone();
                let at = (executor.slave_id, executor.framework_id, id);
                self.executors.insert(at, Arc::clone(executor));
            }
            ClusterChange::ExecutorRemoved {
                slave_id,
                framework_id,
                executor_id,
            } => {
                let at = (*slave_id, *framework_id, executor_id.clone());
                self.executors.remove(&at);
            }
        }
    }

    /// Tasks that have not left the master's tables.
    pub(crate) fn tasks(
        &self,
    ) -> impl Iterator<Item = (&FrameworkId, &TaskId, SlaveId, TaskState)> {
        self.tasks
            .iter()
            .map(|((framework, task), row)| (framework, task, row.slave, row.state))
    }

    /// Slaves in the master's tables, and how they stand.
    pub(crate) fn slaves(&self) -> impl Iterator<Item = (SlaveId, SlaveState, &Resources)> {
        self.slaves
            .iter()
            .map(|(id, (state, resources))| (*id, *state, resources))
    }

    /// What roles hold, by offers, by tasks and by executors.
    pub(crate) fn held(&self) -> impl Iterator<Item = (&RoleName, &Resources)> {
        let offers = self.offers.values().map(|it| (&it.role, &it.resources));
        let tasks = self.tasks.values().filter(|it| it.holds());
        let executors = self.executors.values();
        let executors = executors.map(|it| (&it.role, &it.resources));
        let tasks = tasks.map(|it| (&it.role, &it.resources));
        offers.chain(tasks).chain(executors)
    }

    /// What the slaves have that take part in the allocation.
    pub(crate) fn taking_part(&self) -> impl Iterator<Item = &Resources> {
        let is_there = |state| matches!(state, SlaveState::Registered | SlaveState::Disconnected);
        let slaves = self.slaves.values();
        slaves
            .filter(move |(state, _)| is_there(*state))
            .map(|(_, resources)| resources)
    }

    /// Between two events: what is published fits.
    pub(crate) fn check_published(&mut self) -> Result<(), Broken> {
        if !std::mem::take(&mut self.is_changed) {
            return Ok(());
        }
        let mut held: BTreeMap<SlaveId, Resources> = BTreeMap::new();
        let offers = self.offers.values().map(|it| (&it.slave, &it.resources));
        let tasks = self.tasks.values().filter(|it| it.holds());
        let tasks = tasks.map(|it| (&it.slave, &it.resources));
        let executors = self.executors.values();
        let executors = executors.map(|it| (&it.slave_id, &it.resources));
        for (slave, resources) in offers.chain(tasks).chain(executors) {
            let is_there = self.slaves.get(slave).is_some_and(|(state, _)| {
                matches!(state, SlaveState::Registered | SlaveState::Disconnected)
            });
            if is_there {
                add(held.entry(*slave).or_default(), resources)?;
            }
        }
        for (slave, held) in held {
            let (_, total) = &self.slaves[&slave];
            check("W7", total.contains(&held), || {
                format!("{slave} has {total}, and {held} is offered or used")
            })?;
        }
        Ok(())
    }
}

/// On a slave: the containers of tasks that it answers for.
pub(crate) fn check_containers<'a>(
    total: &Resources,
    used: impl Iterator<Item = &'a Resources>,
) -> Result<(), Broken> {
    let mut sum = Resources::new();
    for resources in used {
        add(&mut sum, resources)?;
    }
    check("W7", total.contains(&sum), || {
        format!("the slave has {total}, its containers were promised {sum}")
    })
}

/// Ranges and sets add as unions, which would hide that something is used twice.
fn add(sum: &mut Resources, more: &Resources) -> Result<(), Broken> {
    let twice = sum.ports().intersect(&more.ports());
    check("W7", twice.is_empty(), || {
        format!("ports {twice:?} are used twice")
    })?;
    sum.checked_add_assign(more).map_err(|error| Broken {
        id: "W7",
        what: error.to_string(),
    })
}

#[cfg(test)]
mod tests {
    use meros_proto::ids::Epoch;
    use meros_proto::time::Timestamp;
    use meros_proto::view::{OfferView, SlaveView};

    use super::*;

    fn resources(text: &str) -> Resources {
        text.parse().expect("well formed")
    }

    #[test]
    fn containers_beyond_the_slave_are_rejected() {
        let total = resources("cpus:4;mem:1024;ports:[1-2]");
        let used = |texts: &[&str]| {
            let list: Vec<Resources> = texts.iter().map(|text| resources(text)).collect();
            check_containers(&total, list.iter())
        };
        assert_eq!(used(&["cpus:2", "cpus:2;mem:1024"]), Ok(()));
        assert_eq!(
            used(&["cpus:2", "cpus:2.001"]).expect_err("too much").id,
            "W7"
        );
        assert!(
            used(&["ports:[1-1]", "ports:[1-1]"]).is_err(),
            "one port for two"
        );
    }

    #[test]
    fn offers_beyond_the_slave_are_rejected() {
        let mut checker = Fits::default();
        checker.on_published(&ClusterChange::Slave(SlaveView {
            slave_id: SlaveId(0),
            hostname: String::new(),
            http_address: String::new(),
            state: SlaveState::Registered,
            state_since: Timestamp(1),
            mode: Default::default(),
            mode_since: Default::default(),
            is_drained: false,
            unavailability: None,
            resources: resources("cpus:4"),
            attributes: Default::default(),
            version: String::new(),
        }));
        let executor = |number, text| {
            ClusterChange::ExecutorAdded(Arc::new(ExecutorView {
                executor_id: ExecutorId::new(format!("e{number}")).expect("an id"),
                name: String::new(),
                framework_id: FrameworkId(0),
                slave_id: SlaveId(0),
                role: "*".parse().expect("a role"),
                resources: resources(text),
                labels: Default::default(),
            }))
        };
        checker.on_published(&executor(1, "cpus:1"));
        let mut offer = |number, text| {
            checker.on_published(&ClusterChange::OfferMade(OfferView {
                offer_id: OfferId {
                    epoch: Epoch(1),
                    number,
                },
                framework_id: FrameworkId(0),
                slave_id: SlaveId(0),
                role: "*".parse().expect("a role"),
                resources: resources(text),
                made_at: Timestamp(1),
            }));
            checker.check_published()
        };
        assert_eq!(offer(1, "cpus:2"), Ok(()));
        assert_eq!(offer(2, "cpus:1"), Ok(()), "with what the executor takes");
        assert_eq!(offer(3, "cpus:0.001").expect_err("too much").id, "W7");
    }
}
