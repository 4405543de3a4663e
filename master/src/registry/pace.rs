//! How patient a master is with the others: all of it follows from one duration, the lease.
//!
//! Masters may have different ones, such as while an operator changes them: a leader counts of each follower
//! what that one has promised.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// How long followers elect nobody else after a message of the leader, unless an operator says otherwise.
/// Shorter, and a busy disk or processor deposes leaders; longer, and a dead one is replaced later.
pub(crate) const LEASE_DEFAULT: Duration = Duration::from_millis(750);
/// Shorter is less than a few messages of a leader, and an election.
pub(crate) const LEASE_MIN: Duration = LEASE_DEFAULT;
/// Longer, and nobody leads for a minute when a master has died.
pub(crate) const LEASE_MAX: Duration = Duration::from_secs(30);

/// Between two messages of a leader that has nothing to say, whatever the lease.
pub(crate) const HEARTBEAT: Duration = Duration::from_millis(100);

/// With [`LEASE_DEFAULT`]: how long an election may take before there is another one.
const ELECTION: Duration = Duration::from_millis(200);

/// A checked lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Pace {
    lease_ms: u32,
}

impl Default for Pace {
    fn default() -> Self {
        Self::new(LEASE_DEFAULT)
    }
}

impl Pace {
    /// Of a lease; one outside of [`LEASE_MIN`] to [`LEASE_MAX`] is taken for the nearest inside.
    pub(crate) fn new(lease: Duration) -> Self {
        let lease = lease.clamp(LEASE_MIN, LEASE_MAX).as_millis();
        Self {
            lease_ms: u32::try_from(lease).expect("at most a minute"),
        }
    }

    /// One that another master, or another release, has written down.
    pub(super) fn checked(self) -> Self {
        Self::new(Duration::from_millis(self.lease_ms.into()))
    }

    /// How long whoever has this pace elects nobody else after a message of the leader.
    pub(super) fn lease(self) -> Duration {
        Duration::from_millis(self.lease_ms.into())
    }

    /// How long a leader counts on that, from when it sent the message: less by what clocks may differ, and
    /// what our looking takes.
    pub(super) fn lease_of_leader(self) -> Duration {
        self.lease() * 22 / 25
    }

    /// How long a leader whose lease has ended waits for another one before it takes itself for deposed: by then
    /// the others have elected somebody, if they hear each other and not it.
    pub(super) fn patience(self) -> Duration {
        self.lease() * 2
    }

    /// How long an election may take before there is another one.
    pub(super) fn election(self) -> Duration {
        self.scaled(ELECTION)
    }

    /// What takes so long with [`LEASE_DEFAULT`].
    pub(super) fn scaled(self, time: Duration) -> Duration {
        time * self.lease_ms / Self::default().lease_ms
    }
}

const _: () = assert!(HEARTBEAT.as_millis() * 2 <= ELECTION.as_millis());
const _: () = assert!(ELECTION.as_millis() * 2 < LEASE_MIN.as_millis());

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pace_is_bounded_and_the_leader_counts_less_than_followers_promise() {
        let millis = Duration::from_millis;
        for (asked, lease) in [
            (0, 750),
            (750, 750),
            (3_000, 3_000),
            (30_000, 30_000),
            (600_000, 30_000),
        ] {
            let pace = Pace::new(millis(asked));
            assert_eq!(pace.lease(), millis(lease));
            assert!(pace.lease_of_leader() * 9 <= pace.lease() * 8);
            assert!(pace.election() * 2 < pace.lease());
        }
        assert_eq!(Pace::default().election(), ELECTION);
        assert_eq!(Pace::default().lease_of_leader(), millis(660));
        let wild = Pace { lease_ms: u32::MAX };
        assert_eq!(wild.checked().lease(), LEASE_MAX);
    }
}
