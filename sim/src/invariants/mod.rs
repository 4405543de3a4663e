//! What must hold in the whole system, one file each; the ids are those of `docs/INVARIANTS.md`.
//!
//! They see what a stranger could see: messages, disks, containers, news told to frameworks. What
//! the cores know of themselves they check themselves (M, S, D).

pub(crate) mod acknowledged;
pub(crate) mod converged;
pub(crate) mod durable;
pub(crate) mod ends_once;
pub(crate) mod fits;
pub(crate) mod in_order;
pub(crate) mod kept;
pub(crate) mod offers_end;
pub(crate) mod offers_return;
pub(crate) mod old_terms;
pub(crate) mod own_news;
pub(crate) mod refusals;
pub(crate) mod true_ends;

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
}

/// What readers of one master's changes know.
#[derive(Debug, Default)]
pub(crate) struct Reading {
    pub(crate) fits: fits::Fits,
    pub(crate) offers_end: offers_end::OffersEnd,
    pub(crate) refusals: refusals::Refusals,
}

impl Reading {
    /// The master publishes a change at this time of its own; `keeps_filters` unless it has had to
    /// forget what was declined.
    pub(crate) fn on_published(
        &mut self,
        change: &ClusterChange,
        now: Timestamp,
        keeps_filters: bool,
    ) -> Result<(), Broken> {
        self.fits.on_published(change);
        self.offers_end.on_published(change);
        match keeps_filters {
            true => self.refusals.on_published(change, now),
            false => Ok(()),
        }
    }
}

#[cfg(test)]
pub(crate) mod example {
    //! Pieces of hand-made histories.

    use meros_proto::ids::{SlaveId, TaskId, UpdateId};
    use meros_proto::status::{Source, TaskState, TaskStatus};
    use meros_proto::time::Timestamp;

    pub(crate) fn task_id() -> TaskId {
        TaskId::new("t").expect("a letter")
    }

    /// The `number`-th update of slave S0 about task `t`.
    pub(crate) fn update(number: u64, state: TaskState) -> TaskStatus {
        let mut status = TaskStatus::new(task_id(), state, Source::Slave, Timestamp(1));
        status.slave_id = Some(SlaveId(0));
        status.update_id = Some(UpdateId::by_slave(SlaveId(0), 1, number));
        status
    }
}
