//! What a driver is told at its start, and the bounds it keeps.

use std::time::Duration;

use meros_proto::constraint::OfferWishes;
use meros_proto::framework::FrameworkDescription;
use meros_proto::ids::{ClusterId, Epoch};
use meros_proto::role::RoleName;

/// The first delay between two attempts to reach a master; it doubles up to [`RETRY_MAX`].
pub const RETRY_MIN: Duration = Duration::from_millis(100);
/// The longest delay between two attempts to reach a master: a leader that is back is found
/// within this time.
pub const RETRY_MAX: Duration = Duration::from_secs(15);
/// How long a master may take to answer a subscription: longer than a registry write on a busy
/// disk, short enough to try the next one.
pub const SUBSCRIBE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a teardown is repeated when no master answers.
pub const TEARDOWN_TIMEOUT: Duration = Duration::from_secs(10);
/// Redirections to another master that are followed without a delay, so that two masters which
/// name each other cannot make us spin.
pub const REDIRECTS_MAX: u32 = 3;
/// Between two reconciliations of all live tasks (semantics H8).
pub const RECONCILE_INTERVAL: Duration = Duration::from_secs(15 * 60);
/// Tasks asked about in one message. The next message waits for their answers, so that a
/// reconciliation cannot flood a connection.
pub const RECONCILE_CHUNK: usize = 1_000;
/// How long one such message may go without answers before the next one is sent.
pub const RECONCILE_ANSWER_TIMEOUT: Duration = Duration::from_secs(2);
/// The first delay before unanswered tasks are asked about again; doubles up to
/// [`RECONCILE_RETRY_MAX`].
pub const RECONCILE_RETRY_MIN: Duration = Duration::from_secs(2);
/// The longest delay before unanswered tasks are asked about again.
pub const RECONCILE_RETRY_MAX: Duration = Duration::from_secs(60);
/// The most live tasks. At the bound a launch ends as TASK_ERROR, and a task that only the master
/// knows is passed on without being tracked.
pub const LIVE_TASKS_MAX: usize = 1 << 20;
/// How many ended tasks are remembered, to drop their late duplicates. A duplicate can only come
/// while the acknowledgement of the end is on its way, so only the latest matter.
pub const ENDED_TASKS_MAX: usize = 1 << 16;
/// Delivered and not yet acknowledged updates of one task. More are left unanswered, so that
/// they come again later.
pub const UNHANDLED_UPDATES_MAX: usize = 16;
/// The largest accept, in estimated bytes: with room to spare within one frame of the wire. The
/// tasks of a larger one end as TASK_ERROR.
pub const ACCEPT_BYTES_MAX: usize = 3 << 20;

/// What a driver is told at its start.
#[derive(Debug, Clone)]
pub struct DriverConfig {
    /// Who the framework is. With an id it takes up where it left off.
    pub framework: FrameworkDescription,
    /// Roles it wants no offers for at first.
    pub suppressed_roles: Vec<RoleName>,
    /// What it wishes of its offers at first, for each of its roles at most once.
    pub wishes: Vec<OfferWishes>,
    /// The cluster that gave the framework its id, if it has one: a subscription to another
    /// cluster ends the session, because the id means somebody else there.
    pub cluster_id: Option<ClusterId>,
    /// The highest term of that cluster whose leader has subscribed the framework in an earlier
    /// life ([`Driver::epoch`](crate::Driver::epoch)); 0 if there was none. What a master of an
    /// earlier term says is not believed.
    pub epoch: Epoch,
    /// Fixes the jitter of all delays; differs between processes, so that they do not move in
    /// step.
    pub seed: u64,
}
