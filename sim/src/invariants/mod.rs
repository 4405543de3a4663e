//! What must hold in the whole system, one file each; the ids are those of `docs/INVARIANTS.md`.
//!
//! They see what a stranger could see: messages, disks, containers, news told to frameworks. What
//! the cores know of themselves they check themselves (M, S, D).

pub(crate) mod acknowledged;
pub(crate) mod claims_kept;
pub(crate) mod converged;
pub(crate) mod durable;
pub(crate) mod ends_once;
pub(crate) mod fits;
pub(crate) mod groups;
pub(crate) mod guarantees;
pub(crate) mod in_order;
pub(crate) mod kept;
pub(crate) mod limits;
pub(crate) mod offers_end;
pub(crate) mod offers_return;
pub(crate) mod old_terms;
pub(crate) mod one_task;
pub(crate) mod own_news;
pub(crate) mod refusals;
pub(crate) mod remembered;
pub(crate) mod reserved;
pub(crate) mod sent_away;
pub(crate) mod true_ends;
pub(crate) mod volumes;

use std::collections::BTreeMap;

use meros_proto::quota::Quota;
use meros_proto::role::RoleName;
use meros_proto::time::Timestamp;
use meros_proto::view::ClusterChange;

/// An invariant that does not hold.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{id} is broken: {what}")]
pub struct Broken {
    /// Its id.
    pub id: &'static str,
    /// What was seen.
    pub what: String,
}

/// `Ok` if it holds, else what was seen.
pub(crate) fn check(
    id: &'static str,
    holds: bool,
    what: impl FnOnce() -> String,
) -> Result<(), Broken> {
    match holds {
        true => Ok(()),
        false => Err(Broken { id, what: what() }),
    }
}

/// All that have a memory.
#[derive(Debug, Default)]
pub(crate) struct Checks {
    pub(crate) ends_once: ends_once::EndsOnce,
    pub(crate) in_order: in_order::InOrder,
    pub(crate) acknowledged: acknowledged::Acknowledged,
    pub(crate) own_news: own_news::OwnNews,
    pub(crate) kept: kept::Kept,
    pub(crate) old_terms: old_terms::OldTerms,
    pub(crate) claims_kept: claims_kept::ClaimsKept,
    pub(crate) volumes: volumes::Volumes,
}

/// What readers of one master's changes know.
#[derive(Debug, Default)]
pub(crate) struct Reading {
    pub(crate) fits: fits::Fits,
    pub(crate) offers_end: offers_end::OffersEnd,
    pub(crate) refusals: refusals::Refusals,
    pub(crate) one_task: one_task::OneTask,
    pub(crate) remembered: remembered::Remembered,
    /// Before the present event.
    quotas: BTreeMap<RoleName, Quota>,
}

/// What is known of a master that publishes a change.
pub(crate) struct Publisher<'c> {
    /// By its own clock.
    pub(crate) now: Timestamp,
    /// The quotas that it knows after the event.
    pub(crate) quotas: &'c BTreeMap<RoleName, Quota>,
    /// Unless it has had to forget what was declined.
    pub(crate) keeps_filters: bool,
    /// How often one made room for a later one, up to the end of the present event.
    pub(crate) filters_replaced: u64,
    /// Unless slaves came back with more than fits.
    pub(crate) charges_all: bool,
}

impl Reading {
    pub(crate) fn on_published(
        &mut self,
        change: &ClusterChange,
        of: &Publisher<'_>,
    ) -> Result<(), Broken> {
        reserved::check_published(change)?;
        self.one_task.on_published(change)?;
        self.remembered.on_published(change);
        self.fits.on_published(change);
        self.offers_end.on_published(change);
        if let (ClusterChange::OfferMade(offer), true) = (change, of.charges_all) {
            limits::check_offer(&self.fits, [&self.quotas, of.quotas], offer)?;
        }
        match of.keeps_filters {
            true => {
                self.refusals.on_replaced(of.filters_replaced);
                self.refusals.on_published(change, of.now)
            }
            false => Ok(()),
        }
    }

    /// An event is over.
    pub(crate) fn on_done(&mut self, quotas: &BTreeMap<RoleName, Quota>) -> Result<(), Broken> {
        if self.quotas != *quotas {
            self.quotas.clone_from(quotas);
        }
        self.remembered.check()
    }
}

#[cfg(test)]
pub(crate) mod example {
    //! Pieces of hand-made histories.

    use meros_proto::executor::ExecutorDescription;
    use meros_proto::ids::{Epoch, ExecutorId, FrameworkId, OfferId, SlaveId, TaskId, UpdateId};
    use meros_proto::message::slave::{RunTask, TaskFramework};
    use meros_proto::slave::{SlaveMode, SlaveState};
    use meros_proto::status::{Source, TaskState, TaskStatus};
    use meros_proto::task::{Command, TaskDescription};
    use meros_proto::time::Timestamp;
    use meros_proto::view::{OfferView, SlaveView, TaskView};

    pub(crate) fn task_id() -> TaskId {
        TaskId::new("t").expect("a letter")
    }

    /// The task `t` of a framework, on slave S0, in everybody's role, with a cpu.
    pub(crate) fn task_view(framework_id: FrameworkId) -> TaskView {
        TaskView {
            task_id: task_id(),
            name: String::new(),
            framework_id,
            slave_id: SlaveId(0),
            role: "*".parse().expect("a role"),
            resources: "cpus:1".parse().expect("resources"),
            state: TaskState::Staging,
            status: None,
            launched_at: Timestamp(1),
            labels: Default::default(),
            executor_id: None,
        }
    }

    /// The order for the task `t` of framework F0, in an executor with these.
    pub(crate) fn run_in_executor(resources: &str) -> RunTask {
        let executor_id = ExecutorId::new("e").expect("a letter");
        let command = Command::shell("true");
        let resources = resources.parse().expect("resources");
        let executor = ExecutorDescription::new(executor_id, command.clone(), resources);
        let view = task_view(FrameworkId(0));
        let task = TaskDescription {
            command: None,
            executor: Some(executor),
            ..TaskDescription::command(view.task_id, view.slave_id, view.resources, command)
        };
        RunTask {
            framework: TaskFramework {
                framework_id: view.framework_id,
                name: String::new(),
                user: None,
                checkpoint: true,
                capabilities: Vec::new(),
            },
            role: view.role,
            task,
        }
    }

    /// An offer of slave S0 to framework F0.
    pub(crate) fn offer_view(number: u64, role: &str, resources: &str) -> OfferView {
        let epoch = Epoch(1);
        OfferView {
            offer_id: OfferId { epoch, number },
            framework_id: FrameworkId(0),
            slave_id: SlaveId(0),
            role: role.parse().expect("a role"),
            resources: resources.parse().expect("resources"),
            made_at: Timestamp(1),
        }
    }

    /// A slave that is registered and has these.
    pub(crate) fn slave_view(slave_id: SlaveId, resources: &str) -> SlaveView {
        SlaveView {
            slave_id,
            hostname: String::new(),
            http_address: String::new(),
            state: SlaveState::Registered,
            state_since: Timestamp(1),
            mode: SlaveMode::default(),
            mode_since: Timestamp(0),
            is_drained: false,
            unavailability: None,
            resources: resources.parse().expect("resources"),
            attributes: Default::default(),
            version: String::new(),
        }
    }

    /// The `number`-th update of slave S0 about task `t`.
    pub(crate) fn update(number: u64, state: TaskState) -> TaskStatus {
        let mut status = TaskStatus::new(task_id(), state, Source::Slave, Timestamp(1));
        status.slave_id = Some(SlaveId(0));
        status.update_id = Some(UpdateId::by_slave(SlaveId(0), 1, number));
        status
    }
}
