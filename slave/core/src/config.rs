//! What a slave is told before its first event, and the constants of its protocol.

use std::time::Duration;

use meros_proto::message::master::TASKS_PER_SLAVE_MAX;
use meros_proto::slave::SlaveDescription;

/// The first wait for an acknowledgement; doubled with each repeat (semantics I1).
pub const RETRY_INTERVAL_MIN: Duration = Duration::from_secs(10);
/// The longest wait for an acknowledgement (semantics I1).
pub const RETRY_INTERVAL_MAX: Duration = Duration::from_secs(10 * 60);
/// How long a master has to answer a registration before the slave looks for another one. A
/// registration waits for one write of the registry, 20 s at the most.
pub const REGISTER_TIMEOUT: Duration = Duration::from_secs(30);
/// The silence after which a slave looks for a master anew when the master has not said how long
/// (semantics K2): five pings of 15 s.
pub const PING_TIMEOUT_DEFAULT: Duration = Duration::from_secs(75);
/// What a master may ask for as ping timeout is cut to this range, so that no message can make the
/// slave spin or sleep for ever.
pub(crate) const PING_TIMEOUT_RANGE: (Duration, Duration) =
    (Duration::from_millis(100), Duration::from_secs(60 * 60));
/// The most tasks that are not here and whose end is being reported. Beyond it a question is not
/// answered: the master asks again when the slave re-registers.
pub const PHANTOM_TASKS_MAX: usize = 10_000;
/// After a registration the heads of all update streams go out again. At most this many at once,
/// the rest in steps of [`RESEND_STEP`], so that 100,000 do not overrun the send queue.
pub(crate) const RESEND_BURST: usize = 256;
/// 256 in 10 ms: 25,600 updates in a second.
pub(crate) const RESEND_STEP: Duration = Duration::from_millis(10);
/// How long a slave that leaves for good waits for its last updates to be acknowledged before it
/// unregisters all the same: then the master makes them up (semantics K8).
pub const LEAVE_ACKNOWLEDGEMENTS_MAX: Duration = Duration::from_secs(10);
/// Between two updates that say how far the preparation of a task is.
pub const PROGRESS_INTERVAL: Duration = Duration::from_secs(5);
/// The longest text of such an update, in bytes.
pub(crate) const PROGRESS_BYTES_MAX: usize = 1_024;
/// The most bytes in one report message, unless one task or executor alone has more: the largest fits a frame of
/// 4 MiB.
pub(crate) const REPORT_BYTES_MAX: usize = 256 * 1024;
/// The most bytes of a status's message in a report, and of labels: masters keep no more.
pub(crate) const REPORT_MESSAGE_BYTES_MAX: usize = 1_024;
pub(crate) const REPORT_LABELS_BYTES_MAX: usize = 16 * 1_024;

/// The most updates of one task that an executor may have waiting; one more that is not the task's last
/// is acknowledged and not kept: the newest state follows anyway.
pub(crate) const UPDATES_PER_TASK_MAX: usize = 16;
/// What is kept of an executor's text and labels in one update, in bytes each.
pub(crate) const STATUS_TEXT_BYTES_MAX: usize = 64 * 1024;
/// How long an executor that was started has to subscribe (semantics M4).
pub const EXECUTOR_REGISTRATION_TIMEOUT_DEFAULT: Duration = Duration::from_secs(60);
/// How long an executor has to subscribe again after its connection has ended or the slave was
/// restarted. Mesos waits 2 s, at most 15 s, because its slaves keep masters waiting meanwhile
/// (semantics L2); ours do not, so a busy machine gets the time.
pub const EXECUTOR_REREGISTRATION_TIMEOUT_DEFAULT: Duration = Duration::from_secs(15);

/// What a slave is and may hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// What it tells masters of itself. `resources` is also what its tasks together may use.
    pub slave: SlaveDescription,
    /// The most tasks it holds at one time, ended ones with an unacknowledged last update included.
    /// Default and most: [`TASKS_PER_SLAVE_MAX`].
    pub tasks_max: usize,
    /// Whether no task outlives the slave; else those of frameworks with `checkpoint` do (semantics
    /// L1). Default: false.
    pub tasks_end_with_slave: bool,
    /// How long an executor has to subscribe for the first time. Default:
    /// [`EXECUTOR_REGISTRATION_TIMEOUT_DEFAULT`].
    pub executor_registration_timeout: Duration,
    /// How long an executor has to subscribe again. Default:
    /// [`EXECUTOR_REREGISTRATION_TIMEOUT_DEFAULT`].
    pub executor_reregistration_timeout: Duration,
}

impl Config {
    /// The description with the default bounds.
    #[must_use]
    pub fn new(slave: SlaveDescription) -> Self {
        Self {
            slave,
            tasks_max: TASKS_PER_SLAVE_MAX,
            tasks_end_with_slave: false,
            executor_registration_timeout: EXECUTOR_REGISTRATION_TIMEOUT_DEFAULT,
            executor_reregistration_timeout: EXECUTOR_REREGISTRATION_TIMEOUT_DEFAULT,
        }
    }
}
