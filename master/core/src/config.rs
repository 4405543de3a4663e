//! What can be set on a master core. The shell checks ranges and speaks to people about them.

use std::time::Duration;

use crate::allocator::Policy;

/// Intervals shorter than this are taken as this, so that no timer can keep the core busy.
pub const INTERVAL_MIN: Duration = Duration::from_millis(1);

/// The settings of a [`MasterCore`](crate::MasterCore).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// The version of the software, as readers see it.
    pub version: String,
    /// How long a framework may hold an offer before it is rescinded (semantics E4, Q6). Default
    /// 5 min. Longer lets an idle framework starve others.
    pub offer_timeout: Duration,
    /// The time between two pings of a slave (semantics K1). Default 15 s, at least
    /// [`INTERVAL_MIN`].
    pub ping_interval: Duration,
    /// So many unanswered pings in a row make a slave unreachable (semantics K1). Default 5, at
    /// least 1.
    pub ping_misses_max: u32,
    /// How long a slave that is known may take to come back, after its connection broke or after
    /// an election, before it is given up (semantics K3, J2). Default 10 min.
    pub slave_reregister_timeout: Duration,
    /// How long free resources are gathered before they are offered, so that many small changes
    /// make one round. Default 2 ms; zero offers within the event that freed them.
    pub allocation_delay: Duration,
    /// A framework that keeps offers longer than this on average, and does not use most of them, gets
    /// fewer at a time while others want some. Default 1 min; zero never.
    pub hoarding_after: Duration,
    /// So many it may always have, and one for ten slaves. Default 16, at least 1.
    pub hoarding_offers: u32,
    /// How free resources are divided.
    pub policy: Policy,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            offer_timeout: Duration::from_secs(5 * 60),
            ping_interval: Duration::from_secs(15),
            ping_misses_max: 5,
            slave_reregister_timeout: Duration::from_secs(10 * 60),
            allocation_delay: Duration::from_millis(2),
            hoarding_after: Duration::from_secs(60),
            hoarding_offers: 16,
            policy: Policy::default(),
        }
    }
}

impl Config {
    /// The same with every value in its range.
    pub(crate) fn clamped(mut self) -> Self {
        self.ping_interval = self.ping_interval.max(INTERVAL_MIN);
        self.offer_timeout = self.offer_timeout.max(INTERVAL_MIN);
        self.ping_misses_max = self.ping_misses_max.max(1);
        self.hoarding_offers = self.hoarding_offers.max(1);
        self
    }

    /// After this long without a pong a slave is unreachable, and without a ping a slave looks for
    /// a master anew (semantics K1, K2).
    #[must_use]
    pub fn ping_timeout(&self) -> Duration {
        self.ping_interval.saturating_mul(self.ping_misses_max)
    }
}
