//! What is counted, for the shell's metrics. Plain numbers that only grow, and no decisions.

use std::collections::BTreeMap;

macro_rules! counters {
    ($($(#[doc = $doc:literal])+ $name:ident,)+) => {
        /// Counts since the core was made.
        #[derive(Debug, Clone, Default, PartialEq, Eq)]
        pub struct Counters {
            $($(#[doc = $doc])+ pub $name: u64,)+
            /// Refusals by their code, those of operators included.
            pub refusals: BTreeMap<&'static str, u64>,
        }

        impl Counters {
            /// Name, meaning and value of every plain count.
            #[must_use]
            pub fn list(&self) -> Vec<(&'static str, &'static str, u64)> {
                vec![$((stringify!($name), concat!($($doc),+), self.$name),)+]
            }
        }
    };
}

counters! {
    /// Events handled.
    events,
    /// Commands proposed to the registry.
    proposals,
    /// Committed commands that the registry did not apply because they no longer fit.
    commands_not_applied,
    /// Messages and ends of connections that the core had closed already.
    closed_connection_events,
    /// Messages of or for executors, and orders to shut one down, that were not passed on: it or its
    /// framework is not there, or the message is too long.
    executor_calls_ignored,
    /// Slaves admitted as new members.
    slaves_admitted,
    /// Slaves that came back under their id.
    slaves_reregistered,
    /// Slaves given up as unreachable.
    slaves_unreachable,
    /// Slaves that left for good.
    slaves_removed,
    /// Slaves that operators declared gone.
    slaves_gone,
    /// Pings that went unanswered for an interval.
    pings_missed,
    /// Frameworks admitted.
    frameworks_admitted,
    /// Subscriptions taken up again under an id.
    frameworks_resubscribed,
    /// Frameworks torn down or timed out.
    frameworks_removed,
    /// Operations on resources ordered from slaves.
    operations_ordered,
    /// Operations that slaves have carried out.
    operations_finished,
    /// Operations that slaves could not carry out.
    operations_failed,
    /// Operations that did not reach their slave.
    operations_dropped,
    /// Operations that were refused at once.
    operations_invalid,
    /// Answers of slaves about operations that are not known.
    stale_operation_answers,
    /// Offers made.
    offers_made,
    /// Offers used by an accept.
    offers_accepted,
    /// Offers given back.
    offers_declined,
    /// Offers taken back by the master.
    offers_rescinded,
    /// Offers held too long.
    offers_timed_out,
    /// Accepts that failed whole because of an offer that was not valid.
    accepts_invalid,
    /// Decline filters not kept because their framework has too many.
    filters_dropped,
    /// Decline filters that made room for a later one of the same framework, role and slave.
    filters_replaced,
    /// Declines that last longer than was asked for, so that those who decline are not asked all the
    /// time.
    declines_prolonged,
    /// Tasks launched.
    tasks_launched,
    /// Tasks refused as not valid.
    tasks_invalid,
    /// Tasks of an accept that failed whole.
    tasks_dropped,
    /// Tasks that ended, in whatever way.
    tasks_ended,
    /// Tasks that a slave reported beyond what it has, kept without a charge.
    tasks_uncharged,
    /// Tasks that a slave reported beyond what the table holds, not kept.
    tasks_not_kept,
    /// Tasks that the leader before knew, when this one began to lead.
    tasks_remembered,
    /// Those of them whose slave was given up or had left, so that their frameworks were told by this one.
    tasks_recalled,
    /// Unreachable tasks forgotten because their framework has too many.
    unreachable_tasks_forgotten,
    /// Status updates received from slaves.
    updates_received,
    /// Status updates of slaves that could not be used and were dropped.
    updates_invalid,
    /// Status updates of slaves for frameworks that are gone, or of tasks held elsewhere,
    /// acknowledged by the master itself.
    updates_disowned,
    /// Status updates sent to frameworks, repetitions included.
    updates_sent,
    /// Updates made by the master that were sent without an id, because too many of their
    /// framework wait for acknowledgement.
    updates_unreliable,
    /// Updates made by the master and sent again for want of an acknowledgement.
    updates_retried,
    /// Acknowledgements passed on or consumed.
    acknowledgements,
    /// Acknowledgements of updates that nobody waits for, dropped.
    acknowledgements_unexpected,
    /// Kills received.
    kills,
    /// Answers to reconciliations.
    reconciliations,
    /// Calls about framework state that read or wait.
    state_reads,
    /// Signs of life of clients of framework state.
    state_keep_alives,
    /// Changes of framework state that were carried out.
    state_changes,
    /// Changes of framework state that were committed and refused, such as a condition that does not hold.
    state_changes_refused,
    /// Clients of framework state whose time to live was over.
    state_sessions_expired,
}

impl Counters {
    pub(crate) fn refused(&mut self, code: &'static str) {
        *self.refusals.entry(code).or_default() += 1;
    }
}
