//! A framework that comes at the very end, when all others have left, and wants everything: what is
//! not offered to it has leaked.

use std::collections::BTreeMap;

use meros_proto::framework::FrameworkDescription;
use meros_proto::ids::{OfferId, SlaveId};
use meros_proto::message::framework::MasterToFramework;
use meros_proto::message::master::FrameworkToMaster;
use meros_proto::offer::Offer;
use meros_proto::resources::Resources;

/// What it has been offered.
#[derive(Debug, Default)]
pub(crate) struct Probe {
    offers: BTreeMap<OfferId, Offer>,
}

impl Probe {
    pub(crate) fn subscribe() -> FrameworkToMaster {
        let role = "*".parse().expect("everybody's role");
        FrameworkToMaster::Subscribe {
            framework: FrameworkDescription::new("probe", role),
            suppressed_roles: Vec::new(),
            wishes: Vec::new(),
        }
    }

    pub(crate) fn on_message(&mut self, message: MasterToFramework) {
        match message {
            // Offers do not outlive a subscription (semantics E7).
            MasterToFramework::Subscribed { .. } => self.offers.clear(),
            MasterToFramework::Offers(offers) => {
                for offer in offers {
                    self.offers.insert(offer.offer_id, offer);
                }
            }
            MasterToFramework::Rescind { offer_id } => {
                self.offers.remove(&offer_id);
            }
            _ => {}
        }
    }

    /// By slave, what it holds offers of.
    pub(crate) fn offered(&self) -> BTreeMap<SlaveId, Resources> {
        let mut by_slave: BTreeMap<SlaveId, Resources> = BTreeMap::new();
        for offer in self.offers.values() {
            let sum = by_slave.entry(offer.slave_id).or_default();
            sum.checked_add_assign(&offer.resources)
                .expect("parts of one slave");
        }
        by_slave
    }
}
