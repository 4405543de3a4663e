//! What must hold after every event. The ids are those of `docs/INVARIANTS.md`.
//!
//! Checked by tests after each event, and by the simulator; never on the way of real work, since
//! it looks at everything.

use std::collections::BTreeMap;

use meros_proto::ids::{FrameworkId, SlaveId};
use meros_proto::operation::OPERATIONS_PENDING_MAX;
use meros_proto::resources::Resources;
use meros_proto::role::RoleName;
use meros_proto::slave::{SlaveMode, SlaveState};
use meros_proto::status::TaskState;
use meros_proto::view::FrameworkState;

use crate::MasterCore;
use crate::connections::Stage;
use crate::timers::Timer;

/// An invariant that does not hold: a bug of ours.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{id} is broken: {what}")]
pub struct Violation {
    /// Its id, such as `M1`.
    pub id: &'static str,
    /// What is wrong.
    pub what: String,
}

fn check(id: &'static str, holds: bool, what: impl FnOnce() -> String) -> Result<(), Violation> {
    if holds {
        Ok(())
    } else {
        Err(Violation { id, what: what() })
    }
}

impl MasterCore {
    /// Checks all invariants, at the cost of looking at everything.
    ///
    /// # Errors
    /// The first that is broken.
    pub fn check_invariants(&self) -> Result<(), Violation> {
        self.check_resources()?;
        self.check_tasks()?;
        self.check_offers()?;
        self.check_indexes()?;
        self.check_updates()?;
        self.check_slaves()?;
        self.check_frameworks()?;
        self.check_connections()?;
        self.check_clients()
    }

    /// M1: free, offered and used resources of a slave are all it has. M6: what is charged to a
    /// framework and role is the sum of its offers, tasks and executors.
    fn check_resources(&self) -> Result<(), Violation> {
        let mut held: BTreeMap<SlaveId, Resources> = BTreeMap::new();
        let mut charged: BTreeMap<(FrameworkId, RoleName), Resources> = BTreeMap::new();
        let offers = self
            .offers
            .iter()
            .map(|(_, it)| (it.framework, &it.role, it.slave, &*it.resources));
        let tasks = self.tasks.iter().filter(|task| task.is_charged);
        let tasks = tasks.map(|it| (it.framework(), &it.role, it.slave(), &it.resources));
        let executors = self.executors.iter().filter(|(_, it)| it.is_charged);
        let executors = executors
            .map(|((slave, framework, _), it)| (*framework, &it.role, *slave, &it.resources));
        for (framework, role, slave, resources) in offers.chain(tasks).chain(executors) {
            let too_much = |what: String| Violation { id: "M1", what };
            held.entry(slave)
                .or_default()
                .checked_add_assign(resources)
                .map_err(|sum| too_much(sum.to_string()))?;
            charged
                .entry((framework, role.clone()))
                .or_default()
                .checked_add_assign(resources)
                .map_err(|sum| too_much(sum.to_string()))?;
        }
        for (slave, _) in self.slaves.iter() {
            let held = held.remove(&slave).unwrap_or_default();
            let (Some(free), Some(total)) =
                (self.allocator.free(slave), self.allocator.total(slave))
            else {
                check("M1", held.is_empty(), || {
                    format!("{held:?} held on {slave}, which takes no part")
                })?;
                continue;
            };
            let sum = free.checked_add(&held);
            check("M1", sum.as_ref() == Ok(total), || {
                format!("{slave} has {total:?}, but {free:?} is free and {held:?} held")
            })?;
        }
        check("M1", held.is_empty(), || {
            format!("resources held on unknown slaves: {held:?}")
        })?;
        for ((framework, role), resources) in &charged {
            check(
                "M6",
                self.allocator.is_charged_with(*framework, role, resources),
                || format!("{framework} holds {resources:?} in {role}, the shares say otherwise"),
            )?;
        }
        check("M6", self.allocator.is_consistent(), || {
            "orders of shares or filters are off".to_owned()
        })
    }

    fn check_tasks(&self) -> Result<(), Violation> {
        for task in self.tasks.iter() {
            let name = || format!("{} of {} in {}", task.id(), task.framework(), task.state);
            check("M2", task.is_live() || !task.is_charged, name)?;
            check("M2", task.state != TaskState::Unknown, name)?;
            check("M4", self.frameworks.get(task.framework()).is_some(), name)?;
            // The end of a task outlives its slave until it is acknowledged.
            let has_slave = self.slaves.get(task.slave()).is_some();
            check("M4", has_slave || task.state.is_terminal(), name)?;
        }
        for ((slave, framework, id), _) in self.executors.iter() {
            let name = || format!("executor {id} of {framework} on {slave}");
            check("X1", self.frameworks.get(*framework).is_some(), name)?;
            check("X1", self.slaves.get(*slave).is_some(), name)?;
        }
        Ok(())
    }

    fn check_offers(&self) -> Result<(), Violation> {
        for (number, offer) in self.offers.iter() {
            let name = || format!("offer {number} of {} to {}", offer.slave, offer.framework);
            check(
                "M3",
                self.timers.is_armed(&Timer::OfferExpiry(number)),
                name,
            )?;
            check(
                "M3",
                self.frameworks.connection(offer.framework).is_some(),
                name,
            )?;
            check("M3", self.slaves.connection(offer.slave).is_some(), name)?;
            check("M3", !offer.resources.is_empty(), name)?;
        }
        Ok(())
    }

    fn check_indexes(&self) -> Result<(), Violation> {
        check("M4", self.tasks.is_consistent(), || {
            "task indexes".to_owned()
        })?;
        check("M4", self.offers.is_consistent(), || {
            "offer indexes".to_owned()
        })?;
        check("X1", self.executors.is_consistent(), || {
            "counts of executors".to_owned()
        })?;
        check("M4", self.remembered.is_consistent(), || {
            "index of remembered tasks".to_owned()
        })?;
        for task in self.remembered.iter() {
            let name = || format!("remembered {} of {}", task.task_id, task.framework_id);
            let slave = self.slaves.get(task.slave_id);
            let is_away = slave.is_some_and(|slave| slave.state() == SlaveState::Recovered);
            let is_known = self.tasks.find(task.framework_id, &task.task_id).is_some();
            let has_framework = self.frameworks.get(task.framework_id).is_some();
            check("M4", is_away && !is_known && has_framework, name)?;
        }
        check("M4", self.timers.is_consistent(), || {
            "timer indexes".to_owned()
        })?;
        for (_, timer) in self.timers.iter() {
            let is_of_something = match timer {
                Timer::Allocate => true,
                Timer::OffersResume => self.waits_for_slaves.is_some(),
                Timer::Ping(slave) | Timer::Return(slave) | Timer::Drain(slave) => {
                    self.slaves.get(*slave).is_some()
                }
                Timer::Failover(framework) | Timer::Answer(framework) => {
                    self.frameworks.get(*framework).is_some()
                }
                Timer::OfferExpiry(number) => self.offers.get(*number).is_some(),
                Timer::UpdateRetry(framework, task) => self.updates.contains(*framework, task),
                Timer::Session(session) => self.clients.has_session(*session),
                Timer::Watch(number) => self.clients.has_watch(*number),
            };
            check("M4", is_of_something, || {
                format!("a timer of nothing: {timer:?}")
            })?;
        }
        Ok(())
    }

    /// M5: an update in flight to a framework that is there will be sent again.
    fn check_updates(&self) -> Result<(), Violation> {
        for (framework, task) in self.updates.iter() {
            let name = || format!("update of {task} of {framework}");
            check("M5", self.frameworks.get(framework).is_some(), name)?;
            let is_there = self.frameworks.connection(framework).is_some();
            let timer = Timer::UpdateRetry(framework, task.clone());
            check("M5", !is_there || self.timers.is_armed(&timer), name)?;
        }
        Ok(())
    }

    /// M7: each slave has its record; one that is silent or away will be noticed.
    fn check_slaves(&self) -> Result<(), Violation> {
        if self.epoch.is_none() {
            return check("M7", self.slaves.len() == 0, || {
                "slaves without leading".to_owned()
            });
        }
        check(
            "M7",
            self.registry.slaves().count() == self.slaves.len(),
            || "records without rows".to_owned(),
        )?;
        for (id, slave) in self.slaves.iter() {
            let name = || format!("{id} {:?}", slave);
            let Some(record) = self.registry.slave(id) else {
                return check("M7", false, name);
            };
            let is_unreachable = slave.state() == SlaveState::Unreachable;
            check(
                "M7",
                is_unreachable == record.unreachable_since.is_some(),
                name,
            )?;
            check(
                "M7",
                (slave.state() == SlaveState::Registered) == slave.connection.is_some(),
                name,
            )?;
            let watch = match slave.state() {
                SlaveState::Registered => Some(Timer::Ping(id)),
                SlaveState::Disconnected | SlaveState::Recovered => Some(Timer::Return(id)),
                SlaveState::Unreachable => None,
            };
            let is_watched = watch.is_none_or(|timer| self.timers.is_armed(&timer));
            check("M7", is_watched || slave.is_leaving, name)?;
            let takes_part = matches!(
                slave.state(),
                SlaveState::Registered | SlaveState::Disconnected
            );
            check("M7", takes_part == self.allocator.total(id).is_some(), name)?;
            let claims = self.allocator.total(id).map(Resources::claims);
            let known = slave.claims.as_deref().cloned().unwrap_or_default();
            let is_counted = claims.is_none_or(|claims| claims == known);
            let is_bounded = slave.operations.len() <= OPERATIONS_PENDING_MAX;
            check("M15", is_counted && is_bounded, name)?;
            let is_found = slave.operations.iter().all(|operation| {
                let Some((framework, operation_id)) = &operation.origin else {
                    return true;
                };
                let key = (operation_id.clone(), operation.number);
                // A framework that is removed asks no more.
                let framework = self.frameworks.get(*framework);
                framework.is_none_or(|it| it.operations.get(&key) == Some(&id))
            });
            check("M15", is_found, name)?;
            check(
                "M7",
                slave.connection.is_some() || !self.allocator.is_offerable(id),
                name,
            )?;
        }
        for (id, slave) in self.slaves.iter() {
            let mode = self.registry.slave(id).map(|record| record.mode);
            let has_offers = !self.offers.of_slave(id).is_empty();
            check(
                "M14",
                mode == Some(SlaveMode::Active) || !has_offers,
                || format!("offers of {id}, which is {mode:?}"),
            )?;
            let is_draining = matches!(mode, Some(SlaveMode::Draining { .. }));
            check("M14", slave.is_draining == is_draining, || {
                format!("{id} is {mode:?}, but its row {}", slave.is_draining)
            })?;
            let tasks = self.tasks.count_of_slave(id);
            let executors = self.executors.count_of_slave(id);
            check("M14", !slave.is_drained || tasks + executors == 0, || {
                format!("{id} is drained with {tasks} tasks and {executors} executors")
            })?;
        }
        check("M7", self.slaves.is_consistent(), || {
            "counts of slaves".to_owned()
        })
    }

    /// M8: each framework has its record; one that is away has a deadline.
    fn check_frameworks(&self) -> Result<(), Violation> {
        if self.epoch.is_none() {
            return check("M8", self.frameworks.len() == 0, || {
                "frameworks without leading".to_owned()
            });
        }
        let records = self.registry.frameworks().count();
        check("M8", records == self.frameworks.len(), || {
            "records without rows".to_owned()
        })?;
        for (id, framework) in self.frameworks.iter() {
            let name = || format!("{id} {framework:?}");
            check("M8", self.registry.framework(id).is_some(), name)?;
            let is_subscribed = framework.state == FrameworkState::Subscribed;
            check("M8", is_subscribed == framework.connection.is_some(), name)?;
            let has_deadline = self.timers.is_armed(&Timer::Failover(id)) || framework.is_ending;
            check("M8", is_subscribed || has_deadline, name)?;
            let are_pending = framework.operations.iter().all(|((_, number), slave)| {
                let slave = self.slaves.get(*slave);
                slave.is_some_and(|it| it.operations.iter().any(|it| it.number == *number))
            });
            check("M15", are_pending, name)?;
            check(
                "M8",
                is_subscribed || framework.offered_roles.is_empty(),
                name,
            )?;
        }
        Ok(())
    }

    /// M17, M18: framework state is within its bounds. M19: what lives or waits there has its time.
    fn check_clients(&self) -> Result<(), Violation> {
        let state = self.registry.state();
        state
            .check()
            .map_err(|what| Violation { id: "M18", what })?;
        let (sessions, watches) = self.clients.all();
        let mut open = 0;
        for (session, space, is_ending) in sessions {
            let name = || format!("session {session} of {space}");
            let timer = Timer::Session(session);
            check("M19", self.timers.is_armed(&timer) || is_ending, name)?;
            check("M19", state.session_ttl(space, session).is_some(), name)?;
            open += 1;
        }
        let expected = match self.epoch {
            Some(_) => state.sessions().count(),
            None => 0,
        };
        check("M19", open == expected, || {
            format!("{open} of {expected} sessions are known")
        })?;
        for number in watches {
            let timer = Timer::Watch(number);
            check("M19", self.timers.is_armed(&timer), || {
                format!("watch {number}")
            })?;
        }
        Ok(())
    }

    /// M4: connections and what they claim to be point at each other.
    fn check_connections(&self) -> Result<(), Violation> {
        for (id, row) in self.connections.iter() {
            let name = || format!("{id:?} {:?}", row.stage);
            let points_back = match &row.stage {
                Stage::SlaveRegistered(slave) => self.slaves.connection(*slave) == Some(id),
                Stage::SlaveClaiming { slave_id, .. } => self
                    .slaves
                    .get(*slave_id)
                    .is_some_and(|slave| slave.claimant == Some(id)),
                Stage::FrameworkSubscribed(framework) => {
                    self.frameworks.connection(*framework) == Some(id)
                }
                Stage::FrameworkClaiming { framework_id, .. } => self
                    .frameworks
                    .get(*framework_id)
                    .is_some_and(|it| it.claimant == Some(id)),
                Stage::SlaveAdmitting { .. } | Stage::FrameworkAdmitting => {
                    self.admissions.values().any(|waiting| *waiting == id)
                }
                Stage::SlaveFresh { .. } | Stage::SlaveLeaving | Stage::FrameworkFresh => true,
            };
            check("M4", points_back, name)?;
        }
        let is_open = |connection| self.connections.get(connection).is_some();
        let of_slaves = self
            .slaves
            .iter()
            .flat_map(|(_, it)| [it.connection, it.claimant]);
        let of_frameworks = self
            .frameworks
            .iter()
            .flat_map(|(_, it)| [it.connection, it.claimant]);
        let dangling = of_slaves
            .chain(of_frameworks)
            .flatten()
            .find(|it| !is_open(*it));
        check("M4", dangling.is_none(), || {
            format!("{dangling:?} is not open")
        })
    }
}
