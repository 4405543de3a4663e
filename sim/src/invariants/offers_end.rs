//! W13: an offer is used, given back, or taken back within the time that a framework may hold it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use meros_proto::ids::OfferId;
use meros_proto::time::Timestamp;
use meros_proto::view::ClusterChange;

use super::{Broken, check};

/// The offers that one master has out, oldest first.
#[derive(Debug, Default)]
pub(crate) struct OffersEnd {
    made_at: BTreeMap<OfferId, Timestamp>,
    oldest: BTreeSet<(Timestamp, OfferId)>,
}

impl OffersEnd {
    pub(crate) fn on_published(&mut self, change: &ClusterChange) {
        match change {
            ClusterChange::Elected(_) => *self = Self::default(),
            ClusterChange::OfferMade(offer) => {
                self.made_at.insert(offer.offer_id, offer.made_at);
                self.oldest.insert((offer.made_at, offer.offer_id));
            }
            ClusterChange::OfferEnded { offer_id, .. } => {
                if let Some(at) = self.made_at.remove(offer_id) {
                    self.oldest.remove(&(at, *offer_id));
                }
            }
            _ => {}
        }
    }

    /// The master has just done what was due at `now`.
    pub(crate) fn check_oldest(&self, now: Timestamp, held_max: Duration) -> Result<(), Broken> {
        let Some((made_at, offer_id)) = self.oldest.first() else {
            return Ok(());
        };
        check("W13", now < made_at.after(held_max), || {
            format!("{offer_id} is out since {made_at:?}, and may be for {held_max:?}: now {now:?}")
        })
    }
}

#[cfg(test)]
mod tests {
    use meros_proto::ids::{Epoch, FrameworkId, SlaveId};
    use meros_proto::view::{OfferEnd, OfferView};

    use super::*;

    #[test]
    fn an_offer_that_stays_out_too_long_is_rejected() {
        let offer_id = OfferId {
            epoch: Epoch(1),
            number: 1,
        };
        let mut checker = OffersEnd::default();
        checker.on_published(&ClusterChange::OfferMade(OfferView {
            offer_id,
            framework_id: FrameworkId(0),
            slave_id: SlaveId(0),
            role: "*".parse().expect("a role"),
            resources: Default::default(),
            made_at: Timestamp(1_000_000),
        }));
        let at =
            |checker: &OffersEnd, now| checker.check_oldest(Timestamp(now), Duration::from_secs(1));
        assert_eq!(at(&checker, 1_999_999), Ok(()));
        assert_eq!(at(&checker, 2_000_000).expect_err("too long").id, "W13");
        let end = OfferEnd::TimedOut;
        checker.on_published(&ClusterChange::OfferEnded { offer_id, end });
        assert_eq!(at(&checker, 3_000_000), Ok(()));
    }
}
