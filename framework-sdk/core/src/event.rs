//! What can happen to a framework's driver: the one door in.

use std::time::Duration;

use meros_proto::ids::{OfferId, SlaveId, TaskId, UpdateId};
use meros_proto::message::framework::MasterToFramework;
use meros_proto::offer::{Filters, Operation};
use meros_proto::role::RoleName;

/// What a framework asks of its driver.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Call {
    /// Use offers (semantics B4).
    Accept {
        /// All of one slave and one role.
        offer_ids: Vec<OfferId>,
        /// Carried out in order.
        operations: Vec<Operation>,
        /// For what is left.
        filters: Filters,
    },
    /// Give offers back (semantics B5).
    Decline {
        /// Which.
        offer_ids: Vec<OfferId>,
        /// For how long.
        filters: Filters,
    },
    /// Want offers again (semantics B7).
    Revive {
        /// Empty: all roles.
        roles: Vec<RoleName>,
    },
    /// Want no offers for now (semantics B8).
    Suppress {
        /// Empty: all roles.
        roles: Vec<RoleName>,
    },
    /// Kill a task (semantics B9). Remembered and sent again after a re-subscription until the
    /// task has ended.
    Kill {
        /// Which.
        task_id: TaskId,
        /// Instead of the task's own grace.
        grace: Option<Duration>,
    },
    /// Acknowledge an update; only for sessions that do it themselves.
    Acknowledge {
        /// From the update.
        slave_id: Option<SlaveId>,
        /// From the update.
        task_id: TaskId,
        /// From the update.
        update_id: UpdateId,
    },
    /// Ask for the state of all live tasks now (semantics H8).
    Reconcile,
    /// End the framework with its tasks (semantics B3).
    Teardown,
    /// Leave, and come back later: tasks stay.
    Leave,
}

/// Something that has happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A connection to a master stands.
    Connected,
    /// It has ended, or could not be made.
    Disconnected,
    /// A message of the master.
    Master(MasterToFramework),
    /// The framework asks.
    Call(Call),
    /// Time has passed: what is due at `now` happens.
    Tick,
}
