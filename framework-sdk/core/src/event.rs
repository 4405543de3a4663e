//! What can happen to a framework's driver: the one door in.

use std::time::Duration;

use bytes::Bytes;
use meros_proto::constraint::OfferWishes;
use meros_proto::ids::{ExecutorId, OfferId, SlaveId, TaskId, UpdateId};
use meros_proto::message::framework::MasterToFramework;
use meros_proto::message::master::ReconcileTask;
use meros_proto::offer::{Filters, Operation};
use meros_proto::role::RoleName;

/// What a framework asks of its driver.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Call {
    /// Use offers (semantics B4). Every task in it gets exactly one terminal status, also when
    /// the accept never reaches a master: while disconnected its tasks are DROPPED at once. A
    /// task whose id is live already is taken out and answered by a refusal.
    Accept {
        /// All of one slave and one role.
        offer_ids: Vec<OfferId>,
        /// Carried out in order.
        operations: Vec<Operation>,
        /// For what is left.
        filters: Filters,
    },
    /// Give offers back (semantics B5). Does nothing while disconnected: offers are void then.
    Decline {
        /// Which.
        offer_ids: Vec<OfferId>,
        /// For how long.
        filters: Filters,
    },
    /// Want offers again (semantics B7). Remembered over re-subscriptions.
    Revive {
        /// Empty: all roles.
        roles: Vec<RoleName>,
    },
    /// Want no offers for now (semantics B8). Remembered over re-subscriptions.
    Suppress {
        /// Empty: all roles.
        roles: Vec<RoleName>,
    },
    /// Wish something else of the offers to come (semantics B17). Remembered over re-subscriptions.
    /// Wishes that the master cannot fulfil are refused there: while subscribed as this call, else as
    /// the subscription, which ends the session.
    Wish {
        /// For each of its roles at most once; for the others nothing in particular.
        wishes: Vec<OfferWishes>,
    },
    /// Kill a task (semantics B9). Remembered and sent again after a re-subscription until the
    /// task has ended.
    Kill {
        /// Which.
        task_id: TaskId,
        /// Instead of the task's own grace; a repeat can only shorten it.
        grace: Option<Duration>,
    },
    /// A delivered update has been dealt with (semantics B11): the next one of its task may come.
    /// Also for updates without an id: while an end that had none is not dealt with, what the
    /// slave says of the same end stays unacknowledged.
    Acknowledge {
        /// From the update.
        slave_id: Option<SlaveId>,
        /// From the update.
        task_id: TaskId,
        /// From the update.
        update_id: Option<UpdateId>,
    },
    /// Ask for the state of tasks now (semantics H8).
    Reconcile {
        /// Tasks that the framework believes to be live, for example from its own records after a
        /// restart: they are tracked from now on. Empty: all live ones, and those that only the
        /// master knows.
        tasks: Vec<ReconcileTask>,
    },
    /// Shut an executor down (semantics B10). Lost while disconnected.
    ShutdownExecutor {
        /// Where it is.
        slave_id: SlaveId,
        /// Which.
        executor_id: ExecutorId,
    },
    /// Send an executor a message (semantics B15): best effort, lost while disconnected.
    MessageExecutor {
        /// Where it is.
        slave_id: SlaveId,
        /// Which.
        executor_id: ExecutorId,
        /// What.
        data: Bytes,
    },
    /// End the framework with its tasks (semantics B3).
    Teardown,
    /// Leave, and come back later: tasks stay.
    Leave,
}

/// Something that has happened.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(
    clippy::large_enum_variant,
    reason = "updates are the common case: a box each would cost more"
)]
pub enum Event {
    /// The connection that `Effect::Connect` asked for stands.
    Connected,
    /// It could not be made.
    ConnectFailed {
        /// Why, for a person.
        why: String,
        /// Trying again cannot help: the identity is not what the cluster trusts.
        hopeless: bool,
    },
    /// The connection has ended, and not by `Effect::Disconnect`.
    Disconnected {
        /// Why, for a person.
        why: String,
    },
    /// The shell has a way to a master that leads: there is no reason to wait any longer before the next
    /// attempt. Ignored unless the driver waits.
    LeaderFound,
    /// A message of the master.
    Master(MasterToFramework),
    /// The framework asks.
    Call(Call),
    /// The shell cannot go on.
    GiveUp {
        /// Why, for a person.
        why: String,
    },
    /// Time has passed: what is due at `now` happens.
    Tick,
}
