//! How fast the connections of one container are heard, all of them together: what one executor says is not
//! to keep the core from the others.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::{Instant, sleep};

/// Bytes heard in a second, for long. An update takes some 300 bytes, and with what is charged for
/// each message 5,000 tasks a second with two updates each take a third of it.
const RATE: u64 = 16 << 20;
/// So much of the future may be used at once: 32 MiB.
const BURST: Duration = Duration::from_secs(2);
/// What a message costs beside its bytes: the work that it makes.
pub(super) const PER_MESSAGE: u64 = 256;

/// The pace of one container.
#[derive(Debug)]
pub(super) struct Pace {
    /// When all that was heard so far is paid for.
    paid: Mutex<Instant>,
}

impl Pace {
    pub(super) fn new() -> Self {
        Self {
            paid: Mutex::new(Instant::now()),
        }
    }

    /// Waits until so many bytes may be heard.
    pub(super) async fn keep(&self, bytes: u64) {
        let wait = self.charge(bytes, Instant::now());
        if !wait.is_zero() {
            sleep(wait).await;
        }
    }

    /// How long to wait.
    fn charge(&self, bytes: u64, now: Instant) -> Duration {
        let cost = Duration::from_nanos(bytes.saturating_mul(1_000_000_000) / RATE);
        let mut paid = self.paid.lock();
        *paid = (*paid).max(now) + cost;
        paid.saturating_duration_since(now).saturating_sub(BURST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_passes_and_more_waits() {
        let pace = Pace::new();
        let now = Instant::now() + Duration::from_secs(1);
        assert_eq!(pace.charge(32 << 20, now), Duration::ZERO);
        assert_eq!(pace.charge(RATE, now), Duration::from_secs(1));
        let later = now + Duration::from_secs(3);
        assert_eq!(pace.charge(32 << 20, later), Duration::ZERO);
    }
}
