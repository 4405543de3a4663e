//! Known bugs that can be put back, to show that the simulator finds them (see
//! `docs/decisions/0009-mutants.md`).
//!
//! Without the cargo feature `mutants`, which no product has, [`Mutant::is_on`] is a constant
//! `false` and nothing of this is left in the program. With it, a bug lives for the time of one call
//! of `Mutant::during` and on its thread alone.

/// A bug that some system of this kind has had.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mutant {
    // ---- slave ----
    /// An update is sent while its record is still on its way to the disk.
    SendBeforePersist,
    /// An update that is sent again gets a new id.
    ResendWithNewId,
    /// A task is forgotten when its end is sent, and not when the end is acknowledged.
    ForgetUnacknowledged,
    /// A restarted slave tells nobody of the tasks that ended with its last life.
    LeaveLostTasks,
    /// A kill of a task that is being started is lost.
    LoseKillWhileStarting,
    /// A slave obeys a master that was deposed before.
    ObeyDeposed,
    /// A reservation or a volume is confirmed while its record is still on its way to the disk.
    ConfirmBeforePersist,
    /// A volume that grows or shrinks gets a new directory, without its data.
    MoveResized,
    /// The tasks of a group go on when one of them has failed.
    LeaveGroups,
    // ---- master ----
    /// A slave is welcomed before its admission is committed.
    WelcomeBeforeCommit,
    /// An offer that is taken back can still be used.
    LaunchOnRescinded,
    /// A task may have the id of another one that lives.
    ReuseTaskIds,
    /// The resources of a task are freed again each time that it is given up.
    FreeTwice,
    /// A task is taken for gone while its slave has not come back after an election.
    AnswerWhileRecovering,
    /// Updates for a framework that is away are acknowledged for it.
    AcknowledgeForAbsent,
    /// Offers of a framework that goes away stay out.
    KeepOffersOfAbsent,
    /// What was declined is offered again at once.
    ForgetFilters,
    /// A new leader does not know of quotas that were set before its time.
    ForgetQuotas,
    /// Offers stay out although what is in them is guaranteed to another role.
    KeepGuaranteed,
    // ---- driver ----
    /// An update is acknowledged when it is told, and not when the framework has dealt with it.
    AcknowledgeOnDelivery,
    /// A task whose end was told is forgotten at once.
    ForgetEnds,
    /// Only the latest update is known to be a repeat.
    TellOlder,
    /// An end that was told without an id is taken for dealt with.
    TakeEndForHandled,
    /// Kills are sent once.
    ForgetKills,
    /// Nobody asks what became of the tasks after an interruption.
    NeverReconcile,
    /// A framework follows a master that was deposed before.
    FollowDeposed,
}

impl Mutant {
    /// All of them.
    pub const ALL: [Self; 26] = [
        Self::SendBeforePersist,
        Self::ResendWithNewId,
        Self::ForgetUnacknowledged,
        Self::LeaveLostTasks,
        Self::LoseKillWhileStarting,
        Self::ObeyDeposed,
        Self::ConfirmBeforePersist,
        Self::MoveResized,
        Self::LeaveGroups,
        Self::WelcomeBeforeCommit,
        Self::LaunchOnRescinded,
        Self::ReuseTaskIds,
        Self::FreeTwice,
        Self::AnswerWhileRecovering,
        Self::AcknowledgeForAbsent,
        Self::KeepOffersOfAbsent,
        Self::ForgetFilters,
        Self::ForgetQuotas,
        Self::KeepGuaranteed,
        Self::AcknowledgeOnDelivery,
        Self::ForgetEnds,
        Self::TellOlder,
        Self::TakeEndForHandled,
        Self::ForgetKills,
        Self::NeverReconcile,
        Self::FollowDeposed,
    ];

    /// Whether mutants can be switched on in this program at all; the product refuses to be
    /// compiled with them.
    pub const COMPILED_IN: bool = cfg!(feature = "mutants");

    /// Whether this bug is there.
    #[cfg(not(feature = "mutants"))]
    #[inline(always)]
    #[must_use]
    pub const fn is_on(self) -> bool {
        false
    }

    /// Whether this bug is there.
    #[cfg(feature = "mutants")]
    #[must_use]
    pub fn is_on(self) -> bool {
        ON.with(|on| on.get() == Some(self))
    }

    /// Puts this bug back while `run` runs, on this thread.
    #[cfg(feature = "mutants")]
    pub fn during<T>(self, run: impl FnOnce() -> T) -> T {
        /// Also when `run` panics.
        struct Off;
        impl Drop for Off {
            fn drop(&mut self) {
                ON.with(|on| on.set(None));
            }
        }
        let _off = Off;
        ON.with(|on| on.set(Some(self)));
        run()
    }
}

#[cfg(feature = "mutants")]
thread_local! {
    static ON: std::cell::Cell<Option<Mutant>> = const { std::cell::Cell::new(None) };
}

#[cfg(all(test, feature = "mutants"))]
mod tests {
    use super::*;

    #[test]
    fn a_bug_is_there_during_one_call_only() {
        Mutant::ForgetEnds.during(|| {
            let on: Vec<Mutant> = Mutant::ALL.into_iter().filter(|it| it.is_on()).collect();
            assert_eq!(on, [Mutant::ForgetEnds]);
        });
        assert!(!Mutant::ForgetEnds.is_on());
    }
}
