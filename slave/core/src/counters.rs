//! What is counted, for metrics. Plain numbers that only grow.

/// Counts since this life of the slave began.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counters {
    /// Tasks accepted from masters.
    pub tasks_accepted: u64,
    /// Tasks refused with a DROPPED update: over a bound or over the slave's resources.
    pub tasks_refused: u64,
    /// Orders to run a task that is here already.
    pub duplicate_tasks: u64,
    /// Tasks that ended as FINISHED.
    pub tasks_finished: u64,
    /// Tasks that ended as FAILED.
    pub tasks_failed: u64,
    /// Tasks that ended as KILLED.
    pub tasks_killed: u64,
    /// Tasks that ended as DROPPED or GONE.
    pub tasks_lost: u64,
    /// Status updates made.
    pub updates_made: u64,
    /// Status updates sent, repeats included.
    pub updates_sent: u64,
    /// Status updates sent again for want of an acknowledgement.
    pub updates_retried: u64,
    /// Status updates acknowledged.
    pub updates_acknowledged: u64,
    /// Acknowledgements of an update that is not the one in flight.
    pub stale_acknowledgements: u64,
    /// Questions about unknown tasks that went unanswered at the bound.
    pub unanswered: u64,
    /// Messages of a connection that is no longer the current one, or before its registration.
    pub messages_ignored: u64,
    /// Answers about containers that are not known.
    pub container_events_ignored: u64,
    /// Probes asked for by checks of tasks.
    pub probes: u64,
    /// Probes that found a check not passed.
    pub probes_failed: u64,
    /// Probes that were not tried: too many at one time, or the slave could not.
    pub probes_untried: u64,
    /// Probes that did not answer in time, timeout and wait for a place included.
    pub probes_overdue: u64,
    /// Answers of probes that nobody waited for any more.
    pub probes_late: u64,
    /// Tasks killed because they failed their health check.
    pub tasks_unhealthy: u64,
    /// Operations on resources carried out.
    pub changes_applied: u64,
    /// Operations on resources that could not be done.
    pub changes_refused: u64,
    /// Destroyed volumes of which nothing is left.
    pub volumes_wiped: u64,
    /// Executors accepted with their first task.
    pub executors_started: u64,
    /// Groups of tasks accepted.
    pub groups_accepted: u64,
    /// Groups that were ended because one of their tasks did not finish well.
    pub groups_ended_early: u64,
    /// Executors that did not subscribe in time, for the first time or again.
    pub executors_timed_out: u64,
    /// Times that an executor has subscribed.
    pub executor_subscriptions: u64,
    /// Updates of executors that were repeated, too many, or about a task that is over.
    pub executor_updates_ignored: u64,
    /// Messages of or for executors that nobody takes.
    pub executor_messages_ignored: u64,
    /// Times that a master welcomed this slave.
    pub registrations: u64,
    /// Times that this slave gave a connection up: silence, a refusal, an older leader.
    pub reconnects: u64,
}
